"""Detection of the spinal canal on a coarse grid.

The canal is a tube that is brighter than its surroundings, from the upper edge of the field of
view to the caudal end of the thecal sac. It is traced by a minimum-cost path over axial planes
(dynamic programming, Viterbi), which is robust to bright organs, cysts and levels without signal.

Where fat is as bright as CSF, the canal probability of a network trained on any contrast is used
as a prior; where the network detects no canal, brightness determines the path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import FloatArray, Volume

Array = npt.NDArray[np.float32]

RING_MM: Final = (9.5, 14.0)
"""Radii of the surroundings with which the canal is compared: outside an adult sac (7-9 mm) and
inside the next regularly bright structure (dorsal subcutaneous fat)."""

DEEPER_THAN_SKIN_MM: Final = 20.0
"""Minimum distance of the canal anterior to the subcutaneous fat."""

OUTERMOST_WEIGHT: Final = 0.3
"""Weight of a tube with nothing bright posterior to it and another tube anterior to it; in a thin
slab without fat suppression, subcutaneous fat resembles a tube."""

PATH_SMOOTHING_MM: Final = 7.0
"""Sigma of the Gaussian along the path; the coarse grid has steps of 2-3 mm, and the radius of
curvature of the canal is more than 50 mm."""

_GRID_MM: Final = 3.0
"""Voxel size of the grid on which the canal is searched: one third of the width of the thecal
sac."""
_CORE_MM: Final = 7.0
"""Radius of the bright disk searched for: that of an adult thecal sac."""
_MIN_CONTRAST: Final = 0.2
"""Minimum (inside - outside) / (inside + outside) along the canal; noise stays below 0.1."""
_PRIOR_WEIGHT: Final = 2.0
"""Weight of the network's canal probability relative to brightness (1), because fat is often the
brightest tube on conventional T2. Of 24 public volumes, brightness alone missed the canal by more
than 25 mm in four of eight reviewed, with the prior in none of eleven."""
_MIN_LENGTH_MM: Final = 60.0
"""Minimum length of the canal: two lumbar levels; shorter tubes cannot be distinguished from
vessels."""
_SLOPE_COST: Final = 0.15
"""Cost of the path's slope (tan² from the vertical) per plane, in units of contrast."""


@dataclass(frozen=True, eq=False)
class Canal:
    """Initial estimate of the spinal canal.

    Parameters
    ----------
    centerline : Centerline
        From the upper edge of the field of view caudally, in steps of about 1 mm.
    contrast : ndarray, shape (n,)
        Contrast of the canal to its surroundings, -1..1, at each point of the centerline.
    """

    centerline: Centerline
    contrast: FloatArray


def find_canal(volume: Volume, prior: Volume | None = None) -> Canal:
    """Trace the canal from the upper to the lower edge of the field of view.

    Below the thecal sac the path is unreliable; `leakloc.segmentation.dura` truncates it there.

    Parameters
    ----------
    volume : Volume
        Myelogram, in any grid orientation and signal unit.
    prior : Volume, optional
        Probability of canal, 0..1, on any grid in the same patient space.

    Raises
    ------
    AnalysisError
        If no spinal canal is detected.
    """
    coarse = shrink(volume.oriented("LPS"), _GRID_MM)
    response = tube_contrast(coarse, _CORE_MM)
    gain = _path_gain(response, coarse)
    if prior is not None:
        likely = prior.resample(coarse.geometry).array
        gain = gain + np.float32(_PRIOR_WEIGHT) * likely.astype(np.float32)
        response = np.maximum(response, likely).astype(np.float32)
    path = _best_path(gain, coarse.geometry.spacing_kji_mm)
    values = response[path[:, 0], path[:, 1], path[:, 2]]
    points = coarse.geometry.lps_from_kji(path)
    step_mm = float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())
    length_mm = _longest_run(_smooth(values, 10.0 / step_mm) > _MIN_CONTRAST) * step_mm
    if length_mm < _MIN_LENGTH_MM:
        raise AnalysisError(
            f"no spinal canal found in {volume.provenance.source or 'the myelogram'}: the longest "
            f"bright tube measures {length_mm:.0f} mm, a canal at least "
            f"{_MIN_LENGTH_MM:.0f} mm; check that the series shows the spine and "
            "that its orientation is correct"
        )
    centerline = Centerline.smoothed(points, step_mm=1.0, smoothing_mm=PATH_SMOOTHING_MM)
    along = np.linspace(0.0, 1.0, len(values))
    contrast = np.interp(np.linspace(0.0, 1.0, len(centerline.points_lps)), along, values)
    return Canal(centerline, np.asarray(contrast))


def shrink(volume: Volume, target_mm: float) -> Volume:
    """Average blocks of voxels so that no voxel edge is much shorter than `target_mm`."""
    geometry = volume.geometry
    factors = [max(round(target_mm / mm), 1) for mm in geometry.spacing_kji_mm]
    factors = [min(f, n) for f, n in zip(factors, geometry.shape, strict=True)]
    mean = volume.array
    for axis, factor in enumerate(factors):
        rows = np.moveaxis(mean, axis, 0)
        rows = rows[: len(rows) // factor * factor]
        total = rows[::factor].astype(np.float32)
        for n in range(1, factor):
            total += rows[n::factor]
        mean = np.moveaxis(total / np.float32(factor), 0, axis)
    affine = geometry.affine_lps.copy()
    affine[:3, :3] *= factors[::-1]
    affine[:3, 3] = geometry.lps_from_kji((np.array(factors) - 1) / 2)
    k, j, i = mean.shape
    grid = replace(geometry, shape=(k, j, i), affine_lps=affine)
    return Volume(mean, grid, volume.provenance.then("shrunk"))


def tube_contrast(coarse: Volume, core_mm: float) -> Array:
    """Return the contrast of a disk to its surroundings in the axial plane, -1..1.

    The surroundings are four sectors (anterior, posterior, left, right). The darker of two
    opposite sectors has more weight, because a collection lies on one side of the sac but a layer
    of fat on both. Sectors outside the field of view are ignored, as in thin sagittal slabs.

    Parameters
    ----------
    coarse : Volume
        In LPS orientation, with voxels of 2-3 mm.
    core_mm : float
        Radius of the disk.
    """
    _, dj, di = coarse.geometry.spacing_kji_mm
    reach_j, reach_i = int(RING_MM[1] / dj) + 1, int(RING_MM[1] / di) + 1
    y, x = np.meshgrid(
        np.arange(-reach_j, reach_j + 1) * dj, np.arange(-reach_i, reach_i + 1) * di, indexing="ij"
    )
    radius = np.hypot(x, y)
    ring = (radius >= RING_MM[0]) & (radius <= RING_MM[1])
    core = np.clip((core_mm - radius) / dj + 0.5, 0, 1)
    upright = np.abs(y) >= np.abs(x)
    kernels = [core, ring & upright & (y < 0), ring & upright & (y > 0)]
    kernels += [ring & ~upright & (x < 0), ring & ~upright & (x > 0)]
    image = np.asarray(coarse.array, dtype=np.float32)
    inner, front, back, left, right = _means_under(image, kernels)
    upright_pair, level_pair = _darker_first(front, back), _darker_first(left, right)
    around = np.where(np.isnan(upright_pair), level_pair, upright_pair)
    around = 0.5 * (around + np.where(np.isnan(level_pair), around, level_pair))
    inner = np.nan_to_num(inner, nan=0.0)
    around = np.where(np.isnan(around), inner, around)
    floor = 0.1 * float(np.percentile(image, 99.5)) + 1e-6  # suppress noise in air
    contrast = (inner - around) / (inner + around + floor)
    return np.asarray(contrast, dtype=np.float32)


def _path_gain(contrast: Array, coarse: Volume) -> Array:
    """Return the contrast, reduced for possible subcutaneous fat and far from the midline."""
    _, dj, di = coarse.geometry.spacing_kji_mm
    steps = max(round(DEEPER_THAN_SKIN_MM / dj), 1)
    height, width = contrast.shape[1:]
    image = np.asarray(coarse.array, dtype=np.float32)
    posterior = np.maximum.accumulate(image[:, ::-1], axis=1)[:, ::-1]
    posterior = np.pad(posterior, ((0, 0), (0, steps), (0, 0)))[:, steps:]
    anterior = np.maximum.accumulate(contrast, axis=1).max(axis=2, keepdims=True)
    anterior = np.pad(anterior, ((0, 0), (steps, 0), (0, 0)), constant_values=-1)[:, :height]
    skin = (posterior < 0.35 * image) & (anterior > 0.4 * contrast) & (contrast > 0)
    lateral = np.abs(np.arange(width) - (width - 1) / 2) * di
    # Weak preference for the midline, because of scoliosis and off-center fields of view.
    pull = 0.1 * (np.maximum(lateral - 30.0, 0) / 30.0)[None, None, :] ** 2
    gain = np.where(skin, OUTERMOST_WEIGHT * contrast, contrast) - pull
    return np.asarray(gain, dtype=np.float32)


def _means_under(image: Array, kernels: Sequence[npt.NDArray[np.generic]]) -> Iterator[Array]:
    """Yield the kernel means of each axial plane; NaN if under a third of a kernel is in the field.

    Uses `scipy.fft` directly, because importing `scipy.signal` takes half a second.
    """
    plane, reach = image.shape[1:], np.shape(kernels[0])
    whole = [n + m - 1 for n, m in zip(plane, reach, strict=True)]
    padded = [next_fast_len(n, real=True) for n in whole]
    first = [(m - 1) // 2 for m in reach]
    middle = tuple(slice(a, a + n) for a, n in zip(first, plane, strict=True))
    spectrum = rfftn(image, padded, axes=(1, 2))
    field = rfftn(np.ones(plane, np.float32), padded)
    for kernel in kernels:
        weights = np.asarray(kernel, dtype=np.float32)[::-1, ::-1]
        turned = rfftn(weights, padded)
        total = irfftn(spectrum * turned, padded, axes=(1, 2))[:, *middle]
        inside = irfftn(field * turned, padded)[middle]
        fraction = inside / max(float(weights.sum()), 1e-6)
        mean = np.maximum(total, 0) / np.maximum(inside, 1e-3)[None]
        yield np.asarray(np.where((fraction > 1 / 3)[None], mean, np.nan), dtype=np.float32)


def _darker_first(a: Array, b: Array) -> Array:
    darker = np.fmin(a, b)
    return np.asarray(0.7 * darker + 0.3 * np.fmax(a, b), dtype=np.float32)


def _best_path(gain: Array, spacing_kji_mm: tuple[float, float, float]) -> npt.NDArray[np.intp]:
    """Return the path voxel ``(k, j, i)`` in each plane from cranial to caudal, shape (n, 3)."""
    dk, dj, di = spacing_kji_mm
    n, height, width = gain.shape
    steps_j = range(-int(np.ceil(2.0 * dk / dj)), int(np.ceil(2.0 * dk / dj)) + 1)
    steps_i = range(-int(np.ceil(1.0 * dk / di)), int(np.ceil(1.0 * dk / di)) + 1)
    moves = []
    for sj in steps_j:
        for si in steps_i:
            bend = _SLOPE_COST * ((sj * dj / dk) ** 2 + 2 * (si * di / dk) ** 2)
            moves.append((sj, si, float(bend)))
    best = gain[n - 1].astype(np.float32)
    choice = np.zeros((n, height, width), np.int16)
    for row in range(n - 2, -1, -1):
        arrived = np.full((height, width), -np.inf, np.float32)
        for number, (sj, si, cost) in enumerate(moves):
            to_j, from_j = _overlap(height, sj)
            to_i, from_i = _overlap(width, si)
            offered = best[from_j, from_i] - cost
            target = arrived[to_j, to_i]
            better = offered > target
            target[better] = offered[better]
            choice[row][to_j, to_i][better] = number
        best = arrived + gain[row]
    j, i = np.unravel_index(int(best.argmax()), best.shape)
    path = [(0, int(j), int(i))]
    for row in range(n - 1):  # `moves` are steps from the caudal to the cranial plane
        sj, si, _ = moves[choice[row][path[-1][1], path[-1][2]]]
        path.append((row + 1, path[-1][1] + sj, path[-1][2] + si))
    return np.asarray(path[::-1])


def _overlap(length: int, step: int) -> tuple[slice, slice]:
    """Return slices such that ``a[first]`` and ``b[second]`` pair index n with n + step."""
    return slice(max(-step, 0), length - max(step, 0)), slice(max(step, 0), length - max(-step, 0))


def _smooth(values: npt.NDArray[np.floating], sigma: float) -> FloatArray:
    return np.asarray(gaussian_filter1d(np.asarray(values, float), sigma, mode="nearest"))


def _longest_run(mask: npt.NDArray[np.bool_]) -> int:
    padded = np.concatenate([[False], mask, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
