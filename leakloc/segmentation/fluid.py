"""The share of each voxel that is CSF-like fluid.

Signal is normalised between the local soft tissue (0) and the CSF in the sac (1). Both are
taken along the canal, plane by plane, so that the receive field's bias cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

ARC_STEP_MM: Final = 2.0
"""Step of the reference profiles; the bias field varies over > 30 mm."""

SAC_CORE_MM: Final = 6.0
"""Radius in which CSF is looked for: inside every adult sac."""

TISSUE_RING_MM: Final = (14.0, 32.0)
"""Radii between which the soft-tissue level is taken: outside the canal, inside the body."""

CSF_QUANTILE: Final = 85.0
"""Per cent; cord and roots fill part of the core, pure CSF the brightest part."""

CSF_STEADY: Final = 0.7
"""Share of the signal just above that CSF has at least, after a stenosis too. At short echo times
sacral marrow, into which the centreline runs past the sac, reaches 0.6."""
STEADY_MM: Final = 40.0
"""Length of CSF just above: receive fields that halve over a whole field fall by 0.1 over that."""

FAT_SEARCH_MM: Final = (25.0, 110.0)
"""Distance behind the canal in which subcutaneous fat is looked for."""

FAT_LAYER_MM: Final = 4.0
"""Least thickness of a layer that counts as fat under the skin."""


@dataclass(frozen=True, eq=False)
class FluidMap:
    """Normalised signal and the references it rests on.

    Parameters
    ----------
    signal : Volume
        float32 on the grid of the input: 0 in soft tissue, 1 in CSF, not clipped; differences
        within bright CSF, such as the dural line, survive here.
    arc_mm, csf_profile : ndarray, shape (n,)
        Signal of pure CSF along the centreline.
    background_profile : ndarray, shape (n,)
        Signal of soft tissue along the centreline.
    csf_signal, noise : float
        At the middle of the centreline, and the standard deviation in tissue; units of the
        input.
    fat_level : float or None
        Signal of subcutaneous fat as a share of CSF; None where it lies outside the field.
    fat_suppressed : bool or None
        Whether that is dark.
    """

    signal: Volume
    arc_mm: FloatArray
    csf_profile: FloatArray
    background_profile: FloatArray
    csf_signal: float
    noise: float
    fat_level: float | None
    fat_suppressed: bool | None

    @property
    def fraction(self) -> Volume:
        """Share of CSF-like fluid, float32 0..1."""
        clipped = _laid_out_as(self.signal.array)
        np.clip(self.signal.array, 0.0, 1.0, out=clipped)
        return self.signal.with_array(clipped, "fluid fraction")


def map_fluid(volume: Volume, centerline: Centerline, settings: SegmentationSettings) -> FluidMap:
    """Normalise signal to the CSF in the sac.

    Parameters
    ----------
    volume : Volume
        Myelogram, any orientation of the grid.
    centerline : Centerline
        Down the canal.
    settings : SegmentationSettings

    Raises
    ------
    AnalysisError
        If the canal is no brighter than the tissue around it.
    """
    arc = np.arange(0.0, centerline.length_mm, ARC_STEP_MM)
    csf, tissue = _references(volume, centerline, arc)
    noise = tissue_noise(volume)
    middle = len(arc) // 2
    if float(np.median(csf - tissue)) <= max(3.0 * noise, 1e-6):
        raise AnalysisError(
            "the spinal canal is hardly brighter than its surroundings in "
            f"{volume.provenance.source or 'the myelogram'}: the series is not fluid-sensitive"
        )
    signal = _normalised(volume, centerline, arc, csf, tissue)
    fat_level = _fat_level(signal, centerline)
    suppressed = None if fat_level is None else fat_level < settings.fat_suppressed_below
    return FluidMap(signal, arc, csf, tissue, float(csf[middle]), noise, fat_level, suppressed)


def tissue_noise(volume: Volume) -> float:
    """Standard deviation of the noise, from differences of neighbours in dim tissue.

    Differences along the finest axis; their median absolute deviation ignores edges. Voxels
    at or below the first decile are left out: zero-filled air carries no noise.
    """
    axis = int(np.argmin(volume.geometry.spacing_kji_mm))
    array = np.moveaxis(volume.array, axis, -1)[::2, ::2].astype(np.float32)
    low, high = np.percentile(array, [10, 90])
    first, second = array[..., :-1], array[..., 1:]
    dim = (first > low) & (first <= max(high, low + 1e-6))
    if not dim.any():
        return 0.0
    return float(1.4826 * np.median(np.abs(first - second)[dim]) / np.sqrt(2.0))


def _references(
    volume: Volume, centerline: Centerline, arc: FloatArray
) -> tuple[FloatArray, FloatArray]:
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter

    grid = np.arange(-TISSUE_RING_MM[1], TISSUE_RING_MM[1] + 0.1, 2.0)
    left, dorsal = (axis.ravel() for axis in np.meshgrid(grid, grid))
    radius = np.hypot(left, dorsal)
    core, ring = radius <= SAC_CORE_MM, (radius >= TISSUE_RING_MM[0])
    csf = np.empty(len(arc))
    tissue = np.empty(len(arc))
    points = offset_points(centerline, arc, left, dorsal)
    signal = volume.sample(points, order=1, fill=np.nan)
    inside = volume.geometry.contains(points) & np.isfinite(signal)
    for n in range(len(arc)):
        bright = signal[n][core & inside[n]]
        dim = signal[n][ring & inside[n]]
        csf[n] = np.percentile(bright, CSF_QUANTILE) if len(bright) else np.nan
        tissue[n] = np.median(dim) if len(dim) else np.nan
    tissue = _filled(tissue)
    tissue = gaussian_filter1d(tissue, 20.0 / ARC_STEP_MM, mode="nearest")
    csf = _filled(csf)
    csf = median_filter(csf, size=int(12 / ARC_STEP_MM) | 1, mode="nearest")
    # Where the canal holds no CSF (below the tip, stenosis) the neighbourhood decides.
    best = maximum_filter1d(csf, int(80 / ARC_STEP_MM) | 1, mode="nearest")
    top = np.percentile(csf - tissue, 90)
    good = (csf - tissue > 0.55 * (best - tissue)) & (csf - tissue > 0.25 * top)
    good &= ~_below_the_end(csf, good)
    csf = _filled(np.where(good, csf, np.nan))
    return np.asarray(gaussian_filter1d(csf, 8.0 / ARC_STEP_MM, mode="nearest")), tissue


def _below_the_end(csf: FloatArray, good: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Places below the end of the CSF, where the centreline runs on through marrow."""
    below = np.zeros(len(csf), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]).astype(np.int8)))
    if len(edges) == 0:
        return below
    start = int(edges[::2][np.argmax(edges[1::2] - edges[::2])])  # of the longest stretch
    seen: list[float] = [csf[start]]
    for n in range(start, len(csf)):
        if good[n] and csf[n] >= CSF_STEADY * max(seen[-round(STEADY_MM / ARC_STEP_MM) :]):
            seen.append(csf[n])
        else:
            below[n] = True
    return below


def offset_points(
    centerline: Centerline, arc: FloatArray, left: FloatArray, dorsal: FloatArray
) -> FloatArray:
    """Points beside the centreline, shape (len(arc), len(left), 3), LPS millimetres."""
    at = centerline.at(arc)[:, None, :]
    _, lefts, dorsals = centerline.frame_at(arc)
    return np.asarray(
        at + left[None, :, None] * lefts[:, None, :] + dorsal[None, :, None] * dorsals[:, None, :]
    )


def _filled(values: FloatArray) -> FloatArray:
    good = np.isfinite(values)
    if not good.any():
        return np.zeros_like(values)
    index = np.arange(len(values))
    return np.asarray(np.interp(index, index[good], values[good]))


def _normalised(
    volume: Volume,
    centerline: Centerline,
    arc: FloatArray,
    csf: FloatArray,
    tissue: FloatArray,
) -> Volume:
    """Per plane of the axis that runs along the spine, so that the whole array is one formula."""
    geometry = volume.geometry
    points = geometry.kji_from_lps(centerline.at(arc))
    axis = int(np.abs(geometry.directions_lps[2]).argmax())  # of i, j, k
    axis_kji = 2 - axis
    planes = np.arange(geometry.shape[axis_kji])
    order = np.argsort(points[:, axis_kji])
    at = points[order, axis_kji]
    low = np.interp(planes, at, tissue[order])
    span = np.maximum(np.interp(planes, at, csf[order]) - low, 1e-6)
    shape = [1, 1, 1]
    shape[axis_kji] = -1
    fraction = _laid_out_as(volume.array)
    fraction[:] = volume.array
    fraction -= low.reshape(shape).astype(np.float32)
    fraction *= (1.0 / span).reshape(shape).astype(np.float32)
    return volume.with_array(fraction, "normalised to CSF")


def _laid_out_as(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Uninitialised floats, in memory as `array` is: turned as one, flipped as the other.

    The volume as it was acquired, of which `array` is a view, then needs no copy either.
    """
    flips = tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)
    return np.asarray(np.empty_like(array[flips], np.float32)[flips])


def _fat_level(fraction: Volume, centerline: Centerline) -> float | None:
    """Median over the back of the brightest layer behind the spine, as a share of CSF."""
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    step = 1.0
    arc = np.arange(0.0, centerline.length_mm, 10.0)
    depth = np.arange(*FAT_SEARCH_MM, step)
    layers: list[float] = []
    for left in (-30.0, -15.0, 0.0, 15.0, 30.0):
        points = offset_points(centerline, arc, np.full_like(depth, left), depth)
        profile = fraction.sample(points, order=1, fill=0.0)
        inside = fraction.geometry.contains(points)
        width = int(FAT_LAYER_MM / step)
        layer = minimum_filter1d(uniform_filter1d(profile, 3, axis=1), width, axis=1)
        seen = inside.sum(axis=1) * step >= 20.0
        layers.extend(float(value) for value in layer.max(axis=1)[seen])
    return float(np.median(layers)) if len(layers) >= 5 else None
