"""Map of the fraction of CSF-like fluid in each voxel.

Signal is normalized between local soft tissue (0) and CSF in the sac (1). Both references are
measured plane by plane along the canal, which corrects for the receive bias field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    gaussian_filter1d,
    maximum_filter1d,
    median_filter,
    minimum_filter1d,
    uniform_filter1d,
)

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import FloatArray, Volume

ARC_STEP_MM: Final = 2.0
"""Step of the reference profiles; the bias field varies over more than 30 mm."""

SAC_CORE_MM: Final = 6.0
"""Radius in which the CSF signal is measured: inside every adult thecal sac."""

TISSUE_RING_MM: Final = (14.0, 32.0)
"""Radii between which the soft-tissue signal is measured: outside the canal, inside the body."""

CSF_QUANTILE: Final = 85.0
"""Percentile of the signal in the core that represents pure CSF; cord and roots fill the darker
part."""

CSF_STEADY: Final = 0.7
"""Minimum CSF signal relative to that just above, including below a stenosis. At short echo times
sacral marrow, which the centerline enters below the sac, reaches 0.6."""
STEADY_MM: Final = 40.0
"""Length of the CSF just above; a receive field that halves over the whole field of view falls by
0.1 over this length."""

FAT_SEARCH_MM: Final = (25.0, 110.0)
"""Distance posterior to the canal in which subcutaneous fat is searched for."""

FAT_LAYER_MM: Final = 4.0
"""Minimum thickness of a layer of subcutaneous fat."""

_MAX_SUPPRESSED_FAT: Final = 0.25
"""Subcutaneous fat with less than this fraction of the CSF signal counts as suppressed; without
suppression it has 0.3-0.4 on heavily T2-weighted 3D myelography and 0.8 on conventional T2."""


@dataclass(frozen=True, eq=False)
class FluidMap:
    """Normalized signal and its references.

    Parameters
    ----------
    signal : Volume
        float32 on the grid of the input: 0 in soft tissue, 1 in CSF; not clipped, so that
        differences within bright CSF, such as the dural line, are preserved.
    arc_mm, csf_profile : ndarray, shape (n,)
        Signal of pure CSF along the centerline.
    background_profile : ndarray, shape (n,)
        Signal of soft tissue along the centerline.
    csf_signal, noise : float
        CSF signal at the middle of the centerline, and standard deviation in tissue, in units
        of the input.
    fat_level : float or None
        Signal of subcutaneous fat relative to CSF; None if outside the field of view.
    fat_suppressed : bool or None
        Whether subcutaneous fat is dark.
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
        """Fraction of CSF-like fluid, float32 0..1."""
        clipped = _laid_out_as(self.signal.array)
        np.clip(self.signal.array, 0.0, 1.0, out=clipped)
        return self.signal.with_array(clipped, "fluid fraction")


def map_fluid(volume: Volume, centerline: Centerline) -> FluidMap:
    """Normalize signal to the CSF in the sac.

    Parameters
    ----------
    volume : Volume
        Myelogram, in any grid orientation.
    centerline : Centerline
        Centerline of the canal.

    Raises
    ------
    AnalysisError
        If the canal is not brighter than the surrounding tissue.
    """
    arc = np.arange(0.0, centerline.length_mm, ARC_STEP_MM)
    csf, tissue = _references(volume, centerline, arc)
    noise = tissue_noise(volume)
    middle = len(arc) // 2
    if float(np.median(csf - tissue)) <= max(3.0 * noise, 1e-6):
        raise AnalysisError(
            "the spinal canal is not clearly brighter than the surrounding tissue in "
            f"{volume.provenance.source or 'the myelogram'}: the series is not fluid-sensitive"
        )
    signal = _normalized(volume, centerline, arc, csf, tissue)
    fat_level = _fat_level(signal, centerline)
    suppressed = None if fat_level is None else fat_level < _MAX_SUPPRESSED_FAT
    return FluidMap(signal, arc, csf, tissue, float(csf[middle]), noise, fat_level, suppressed)


def tissue_noise(volume: Volume) -> float:
    """Estimate the noise standard deviation from neighboring voxels in dim tissue.

    Median absolute difference along the finest axis, which is insensitive to edges. Voxels at or
    below the first decile are excluded, because zero-filled air contains no noise.
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
    # Without CSF (below the caudal end of the sac, stenosis), interpolate from neighbors.
    best = maximum_filter1d(csf, int(80 / ARC_STEP_MM) | 1, mode="nearest")
    top = np.percentile(csf - tissue, 90)
    good = (csf - tissue > 0.55 * (best - tissue)) & (csf - tissue > 0.25 * top)
    good &= ~_below_the_end(csf, good)
    csf = _filled(np.where(good, csf, np.nan))
    return np.asarray(gaussian_filter1d(csf, 8.0 / ARC_STEP_MM, mode="nearest")), tissue


def _below_the_end(csf: FloatArray, good: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return positions below the end of the CSF, where the centerline continues in marrow."""
    below = np.zeros(len(csf), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]).astype(np.int8)))
    if len(edges) == 0:
        return below
    start = int(edges[::2][np.argmax(edges[1::2] - edges[::2])])  # of the longest run
    accepted: list[float] = [csf[start]]
    for n in range(start, len(csf)):
        if good[n] and csf[n] >= CSF_STEADY * max(accepted[-round(STEADY_MM / ARC_STEP_MM) :]):
            accepted.append(csf[n])
        else:
            below[n] = True
    return below


def offset_points(
    centerline: Centerline, arc: FloatArray, left: FloatArray, dorsal: FloatArray
) -> FloatArray:
    """Return points around the centerline, shape (len(arc), len(left), 3), LPS millimeters."""
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


def _normalized(
    volume: Volume,
    centerline: Centerline,
    arc: FloatArray,
    csf: FloatArray,
    tissue: FloatArray,
) -> Volume:
    """Normalize per plane of the array axis closest to the craniocaudal axis."""
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
    return volume.with_array(fraction, "normalized to CSF")


def _laid_out_as(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an uninitialized float32 array with the memory layout of `array`.

    No copy is then needed to return to the acquired orientation, of which `array` is a view.
    """
    flips = tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)
    return np.asarray(np.empty_like(array[flips], np.float32)[flips])


def _fat_level(fraction: Volume, centerline: Centerline) -> float | None:
    """Return the median signal of the brightest layer posterior to the spine, relative to CSF."""
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
        covered = inside.sum(axis=1) * step >= 20.0
        layers.extend(float(value) for value in layer.max(axis=1)[covered])
    return float(np.median(layers)) if len(layers) >= 5 else None
