"""Detect the stations (table positions) of one protocol and compose them to one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize

from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.loaders.study import SeriesStack

Signal = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SAME_PLACE: Final = 0.6
"""Minimum overlap, as a fraction of the shorter field of view, of series at the same position."""
_WHOLE: Final = 0.95
"""Minimum fraction of the total extent covered by a series composed by the scanner."""
_MIN_OVERLAP_MM: Final = 8.0
"""Overlap needed to match signal between stations; scanners plan 20 to 60 mm."""
_SAME_SPACING_MM: Final = 0.01
_PARALLEL: Final = 1e-3
"""Maximum difference of direction cosines; stations are translated, not rotated."""
_MORE_FIELD_MM: Final = 60.0
"""Minimum additional coverage of a station (two levels); with less it is a repetition."""
_ALIKE_ANGLE_DEG: Final = 15.0
"""Maximum angle between separately planned stations."""
_ALIKE_FACTOR: Final = 1.5
"""Maximum ratio of echo times and of voxel edges of stations with similar contrast and detail."""
_BINS: Final = 32
_SAMPLES: Final = 50_000
"""Points in the overlap used to register stations."""
_FIRST_STEP_MM: Final = 2.0
"""Initial displacement along each axis in the registration."""
_TOLERANCE_MM: Final = 0.02
"""Smallest step of the registration, invisible after blending."""
_MIN_GAIN: Final = 0.01
"""Minimum increase in correlation to accept a movement; noise causes small increases."""
_MIN_REGION_VOXELS: Final = 8
"""Minimum overlap along each axis to estimate movement."""
_GAIN_LIMITS: Final = (0.5, 2.0)
_BRIGHT_PERCENTILE: Final = 98.0
"""Fluid in the overlap, used to match gains; tissue is at noise level."""


@dataclass(frozen=True)
class Stations:
    """Series of one protocol and frame of reference.

    Parameters
    ----------
    whole : int or None
        Index of the first series that covers the total extent of all.
    parts : tuple of int
        Indices of the others at different positions, in input order.
    """

    whole: int | None
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Joined:
    """Volume composed of stations.

    Parameters
    ----------
    moved_mm : float
        Largest corrected movement between adjacent stations.
    """

    volume: Volume
    moved_mm: float


def find_stations(stacks: Sequence[SeriesStack]) -> Stations:
    """Find the stacks, sorted best first, that are stations of the first one's protocol.

    Parameters
    ----------
    stacks : sequence of SeriesStack
        All with a geometry.
    """
    ranges = [_range_mm(stack.geometry) for stack in stacks if stack.geometry is not None]
    group = [n for n, stack in enumerate(stacks) if n == 0 or _same_protocol(stacks[0], stack)]
    low = min(ranges[n][0] for n in group)
    high = max(ranges[n][1] for n in group)
    wholes = [n for n in group if ranges[n][1] - ranges[n][0] >= _WHOLE * (high - low)]
    parts: list[int] = []
    for n in group:
        apart = all(_overlap_fraction(ranges[n], ranges[m]) < _SAME_PLACE for m in parts)
        if n not in wholes and apart:
            parts.append(n)
    return Stations(wholes[0] if wholes else None, tuple(parts))


def neighbors(stacks: Sequence[SeriesStack]) -> tuple[int, ...]:
    """Find the stacks, sorted best first, that extend the first one along the body.

    Cervical, thoracic and lumbar sagittal series are often planned separately, each slightly
    rotated to its part of the spine: similar parameters are sufficient.

    Parameters
    ----------
    stacks : sequence of SeriesStack
        All with a geometry, in one frame of reference.
    """
    low, high = _range_mm(stacks[0].geometry)
    alike = [n for n, stack in enumerate(stacks) if n and _alike(stacks[0], stack)]
    found: list[int] = []
    while True:
        for n in alike:
            start, stop = _range_mm(stacks[n].geometry)
            meets = min(high, stop) - max(low, start) >= _MIN_OVERLAP_MM
            if n not in found and meets and max(low - start, stop - high) >= _MORE_FIELD_MM:
                found.append(n)
                low, high = min(low, start), max(high, stop)
                break
        else:
            return tuple(found)


def shared_extent(one: Geometry, other: Geometry) -> float:
    """Overlap of two extents along the body, as a fraction of the shorter one."""
    return max(_overlap_fraction(_range_mm(one), _range_mm(other)), 0.0)


def adjoin(stacks: Sequence[SeriesStack]) -> bool:
    """Return whether adjacent stations along the body overlap enough to be composed."""
    ranges = sorted(_range_mm(s.geometry) for s in stacks if s.geometry is not None)
    return len(ranges) > 1 and all(a[1] - b[0] >= _MIN_OVERLAP_MM for a, b in pairwise(ranges))


def covers(parts: Sequence[SeriesStack], whole: SeriesStack) -> bool:
    """Return whether overlapping stations have the extent of a composed series."""
    if len(parts) < 2 or not adjoin(parts):
        return False
    ranges = [_range_mm(part.geometry) for part in parts]
    low, high = _range_mm(whole.geometry)
    reach = max(r[1] for r in ranges) - min(r[0] for r in ranges)
    return reach >= _WHOLE * (high - low)


def compose_stations(volumes: Sequence[Volume], max_movement_mm: float) -> Joined:
    """Compose overlapping stations on the grid of the most caudal one.

    From caudal to cranial, each station is translated (not rotated) to match the ones caudal to
    it, its gain is matched on their common fluid, and the overlap is blended linearly.

    Parameters
    ----------
    volumes : sequence of Volume
        Parallel grids of equal spacing; see `find_stations` and `adjoin`.
    max_movement_mm : float
        Maximum patient movement between stations that is corrected; 0 disables the
        correction.
    """
    ordered = sorted(volumes, key=lambda volume: float(volume.geometry.center_lps[2]))
    grid = _union_grid([volume.geometry for volume in ordered])
    axis = 2 - int(np.abs(grid.directions_lps[2]).argmax())  # array axis along the body
    total = np.zeros(grid.shape, dtype=np.float32)
    weight = np.zeros(grid.shape, dtype=np.float32)
    moved_mm = 0.0
    for volume in ordered:
        movement = _movement_lps(volume, grid, total, weight, max_movement_mm)
        moved_mm = max(moved_mm, float(np.linalg.norm(movement)))
        box, part, inside, below = _against(_moved(volume, movement), grid, total, weight)
        overlap = inside & (weight[box] > 0)
        gain = _gain(below[overlap], part[overlap]) if overlap.any() else 1.0
        ramp = _ramp(part.shape[axis], int(np.any(overlap, axis=_others(axis)).sum()))
        ramp = inside * ramp.reshape([-1 if n == axis else 1 for n in range(3)])
        total[box] += ramp * (gain * part)
        weight[box] += ramp
    np.divide(total, weight, out=total, where=weight > 0)
    lowest = ordered[0]
    if lowest.array.dtype.kind in "iu":
        limits = np.iinfo(lowest.array.dtype)
        total = np.clip(np.round(total), limits.min, limits.max).astype(lowest.array.dtype)
    step = f"{len(ordered)} stations joined, gains matched"
    return Joined(Volume(total, grid, lowest.provenance.then(step)), moved_mm)


def _against(
    volume: Volume, grid: Geometry, total: Signal, weight: Signal
) -> tuple[tuple[slice, slice, slice], Signal, Mask, Signal]:
    """Return the grid box of a station, its signal, mask, and the signal of caudal stations."""
    box, part, inside = _placed(volume, grid)
    below = np.divide(total[box], weight[box], out=np.zeros_like(part), where=weight[box] > 0)
    return box, part, inside, below


def _movement_lps(
    volume: Volume, grid: Geometry, total: Signal, weight: Signal, limit_mm: float
) -> FloatArray:
    """Translation that aligns a station with the caudal ones; zero if it does not match better."""
    box, part, inside, below = _against(volume, grid, total, weight)
    overlap = inside & (weight[box] > 0)
    movement = _registered_lps(below, overlap, grid.cropped(box), volume)
    if not 0 < np.linalg.norm(movement) <= limit_mm:
        return np.zeros(3)
    before = _agreement(below, part, overlap)
    box, part, inside, below = _against(_moved(volume, movement), grid, total, weight)
    after = _agreement(below, part, inside & (weight[box] > 0))
    return movement if after > before + _MIN_GAIN else np.zeros(3)


def _agreement(below: Signal, here: Signal, overlap: npt.NDArray[np.bool_]) -> float:
    """Correlation of two stations in their overlap, -1..1."""
    if overlap.sum() < 2 or below[overlap].std() == 0 or here[overlap].std() == 0:
        return 0.0
    return float(np.corrcoef(below[overlap], here[overlap])[0, 1])


def _registered_lps(below: Signal, overlap: Mask, geometry: Geometry, volume: Volume) -> FloatArray:
    """Register a station to the caudal ones by mutual information; return its translation.

    CSF is uniform along the canal; mutual information also uses the weak signal of vertebrae,
    which correlation of the signals neglects (six seams of three phantoms: error up to 0.2 mm;
    phase correlation on ten seams up to 5 mm along the canal).
    """
    if not overlap.any():
        return np.zeros(3)
    ends = [np.flatnonzero(overlap.any(axis=_others(n)))[[0, -1]] for n in range(3)]
    box = tuple(slice(int(first), int(last) + 1) for first, last in ends)
    fixed = Volume(below, geometry).crop((box[0], box[1], box[2]))
    if min(fixed.array.shape) < _MIN_REGION_VOXELS or np.ptp(fixed.array) == 0:
        return np.zeros(3)
    points, signal = _sampled(fixed, overlap[box])
    rows = np.rint(_binned(signal, float(np.ptp(signal)), float(signal.min()))).astype(np.intp)
    array = volume.array.astype(np.float32)
    start = volume.geometry.kji_from_lps(points)
    turn = volume.geometry.kji_from_lps(np.eye(3)) - volume.geometry.kji_from_lps(np.zeros(3))
    unmoved = _interpolated(array, start)
    low, width = float(unmoved.min()), float(np.ptp(unmoved))
    if min(width, np.ptp(signal)) == 0:
        return np.zeros(3)

    def cost(movement: FloatArray) -> float:
        moved = _interpolated(array, start - movement @ turn)
        return -_mutual_information(rows, _binned(moved, width, low))

    simplex = np.vstack([np.zeros(3), _FIRST_STEP_MM * np.eye(3)])
    found = minimize(
        cost, np.zeros(3), method="Nelder-Mead",
        options={"xatol": _TOLERANCE_MM, "fatol": 1e-5, "initial_simplex": simplex},
    )  # fmt: skip
    return np.asarray(found.x, np.float64)


def _sampled(fixed: Volume, overlap: Mask) -> tuple[FloatArray, Signal]:
    """Return random points in the overlap, LPS, and the signal there.

    They lie between voxel centers in both stations, because mutual information has local maxima
    where interpolation does not smooth the noise.
    """
    rng = np.random.default_rng(0)
    kji = rng.uniform(0, np.array(overlap.shape) - 1, (_SAMPLES, 3))
    kji = kji[overlap[tuple(np.rint(kji).astype(np.intp).T)]]
    return fixed.geometry.lps_from_kji(kji), _interpolated(fixed.array, kji)


def _interpolated(array: npt.NDArray[Any], kji: FloatArray) -> Signal:
    return np.asarray(map_coordinates(array, kji.T, np.float32, order=1, mode="nearest"))


def _binned(signal: Signal, width: float, low: float) -> npt.NDArray[np.floating]:
    """Return the signal in bins of equal width, 0 to `_BINS` - 1."""
    return np.asarray(np.clip((signal - low) * ((_BINS - 1) / (width or 1.0)), 0, _BINS - 1))


def _mutual_information(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.floating]) -> float:
    """Return mutual information in nats; the columns are split between bins to be continuous."""
    low = np.minimum(columns.astype(np.intp), _BINS - 2)
    above = columns - low
    index = rows * _BINS + low
    joint = np.bincount(index, 1 - above, _BINS**2) + np.bincount(index + 1, above, _BINS**2)
    fraction = joint.reshape(_BINS, _BINS) / len(rows)
    product = fraction.sum(axis=1, keepdims=True) * fraction.sum(axis=0, keepdims=True)
    nonzero = fraction > 0
    return float((fraction[nonzero] * np.log(fraction[nonzero] / product[nonzero])).sum())


def _moved(volume: Volume, movement_lps: FloatArray) -> Volume:
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] += movement_lps
    return Volume(volume.array, replace(volume.geometry, affine_lps=affine), volume.provenance)


def overlap_fraction(one: Geometry, other: Geometry) -> float:
    """Overlap of two patient-aligned bounding boxes, as a fraction of the smaller one."""
    a, b = one.corners_lps, other.corners_lps
    low = np.maximum(a.min(axis=0), b.min(axis=0))
    high = np.minimum(a.max(axis=0), b.max(axis=0))
    smaller = np.minimum(np.ptp(a, axis=0), np.ptp(b, axis=0))
    return float(np.prod(np.clip(high - low, 0, None) / np.maximum(smaller, 1e-6)))


def _union_grid(grids: Sequence[Geometry]) -> Geometry:
    reference = grids[0]
    corners = np.concatenate([reference.ijk_from_lps(grid.corners_lps) for grid in grids])
    low = np.floor(corners.min(axis=0) + 0.01).astype(int)
    high = np.ceil(corners.max(axis=0) - 0.01).astype(int)
    affine = reference.affine_lps.copy()
    affine[:3, 3] = reference.lps_from_ijk(low)
    i, j, k = (int(n) for n in high - low + 1)
    return Geometry((k, j, i), affine, reference.frame_of_reference_uid)


def _placed(volume: Volume, grid: Geometry) -> tuple[tuple[slice, slice, slice], Signal, Mask]:
    """Return the box of `grid` around a station, its resampled signal and its mask."""
    corners = grid.kji_from_lps(volume.geometry.corners_lps)
    low = np.maximum(np.ceil(corners.min(axis=0) - 0.01), 0).astype(int)
    high = np.minimum(np.floor(corners.max(axis=0) + 0.01) + 1, grid.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    target = grid.cropped((k, j, i))
    signal = volume.resample(target, order=1).array.astype(np.float32)
    if np.abs(volume.geometry.directions_lps - grid.directions_lps).max() <= _PARALLEL:
        return (k, j, i), signal, np.ones(target.shape, bool)
    # A rotated station does not fill the corners of its box.
    field = Volume(np.ones(volume.array.shape, np.uint8), volume.geometry)
    return (k, j, i), signal, field.resample(target, order=0).array > 0


def _gain(below: Signal, here: Signal) -> float:
    """Gain that matches the fluid signal of a station to that of the caudal one."""
    bright = (below >= np.percentile(below, _BRIGHT_PERCENTILE)) & (here > 0)
    if bright.sum() < 50:  # too few voxels to estimate a gain
        return 1.0
    return float(np.clip(np.median(below[bright]) / np.median(here[bright]), *_GAIN_LIMITS))


def _ramp(length: int, overlap: int) -> FloatArray:
    """Weights along the body that decrease over `overlap` voxels toward both ends."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    return np.minimum(distance / (max(overlap, 1) + 1), 1.0)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(n for n in range(3) if n != axis)


def _range_mm(grid: Geometry | None) -> tuple[float, float]:
    """Lowest and highest voxel center along the body."""
    if grid is None:
        return 0.0, 0.0
    z = grid.corners_lps[:, 2]
    return float(z.min()), float(z.max())


def _overlap_fraction(one: tuple[float, float], other: tuple[float, float]) -> float:
    shorter = min(one[1] - one[0], other[1] - other[0])
    return (min(one[1], other[1]) - max(one[0], other[0])) / max(shorter, 1e-6)


def _same_protocol(one: SeriesStack, other: SeriesStack) -> bool:
    a, b = one.geometry, other.geometry
    if a is None or b is None or a.frame_of_reference_uid is None:
        return False
    if a.frame_of_reference_uid != b.frame_of_reference_uid:
        return False
    if one.parameters.get("EchoTime") != other.parameters.get("EchoTime"):
        return False
    spacing = np.abs(np.subtract(a.spacing_ijk_mm, b.spacing_ijk_mm)).max()
    rotation = np.abs(a.directions_lps - b.directions_lps).max()
    return bool(spacing <= _SAME_SPACING_MM and rotation <= _PARALLEL)


def _alike(one: SeriesStack, other: SeriesStack) -> bool:
    a, b = one.geometry, other.geometry
    if a is None or b is None or a.frame_of_reference_uid is None:
        return False
    if a.frame_of_reference_uid != b.frame_of_reference_uid:
        return False
    cosines = np.abs(np.sum(a.directions_lps * b.directions_lps, axis=0))
    angle_deg = np.degrees(np.arccos(np.clip(cosines.min(), 0.0, 1.0)))
    echoes = [float(s.parameters.get("EchoTime") or np.nan) for s in (one, other)]
    ratios = [*np.divide(a.spacing_ijk_mm, b.spacing_ijk_mm), echoes[0] / echoes[1]]
    known = np.abs(np.log([ratio for ratio in ratios if np.isfinite(ratio)]))
    return bool(angle_deg <= _ALIKE_ANGLE_DEG and (known <= np.log(_ALIKE_FACTOR)).all())
