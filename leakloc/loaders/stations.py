"""Couch positions of one protocol: recognising them and joining them to one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.loaders.study import SeriesStack
from leakloc.volume import FloatArray, Geometry, Volume

Signal = npt.NDArray[np.float32]

_SAME_PLACE: Final = 0.6
"""Share of the shorter field from which two series repeat one place instead of adjoining."""
_WHOLE: Final = 0.95
"""Share of the joint extent from which one series holds all stations (composed by the scanner)."""
_LEAST_OVERLAP_MM: Final = 8.0
"""Overlap needed to match signal between stations; scanners plan 20 to 60 mm."""
_SAME_SPACING_MM: Final = 0.01
_PARALLEL: Final = 1e-3
"""Largest difference of direction cosines; stations are moved, not turned."""
_GAIN_LIMITS: Final = (0.5, 2.0)
_BRIGHT_PERCENTILE: Final = 98.0
"""Fluid in the overlap, on which gains are compared; tissue lies in the noise."""


@dataclass(frozen=True)
class Stations:
    """Series of one protocol and frame of reference.

    Parameters
    ----------
    whole : int or None
        Index of a series that covers what all cover together.
    parts : tuple of int
        Indices of series at different places, in the order given.
    """

    whole: int | None
    parts: tuple[int, ...]


def find_stations(stacks: Sequence[SeriesStack]) -> Stations:
    """Which of the stacks, best first, are stations of the protocol of the first.

    Parameters
    ----------
    stacks : sequence of SeriesStack
        All with a geometry.
    """
    ranges = [_range_mm(stack.geometry) for stack in stacks if stack.geometry is not None]
    group = [n for n, stack in enumerate(stacks) if n == 0 or _same_protocol(stacks[0], stack)]
    low = min(ranges[n][0] for n in group)
    high = max(ranges[n][1] for n in group)
    for n in group:
        if ranges[n][1] - ranges[n][0] >= _WHOLE * (high - low):
            return Stations(n, (n,))
    parts: list[int] = []
    for n in group:
        if all(_overlap_share(ranges[n], ranges[m]) < _SAME_PLACE for m in parts):
            parts.append(n)
    return Stations(None, tuple(parts))


def adjoin(stacks: Sequence[SeriesStack]) -> bool:
    """Whether the stations, ordered along the body, overlap enough to be joined."""
    ranges = sorted(_range_mm(s.geometry) for s in stacks if s.geometry is not None)
    return len(ranges) > 1 and all(a[1] - b[0] >= _LEAST_OVERLAP_MM for a, b in pairwise(ranges))


def stitch(volumes: Sequence[Volume]) -> Volume:
    """Join overlapping stations on the grid of the most caudal one.

    Gains are matched on fluid in the overlaps, from the tail up; across an overlap the
    stations are blended linearly.

    Parameters
    ----------
    volumes : sequence of Volume
        Parallel grids of one spacing; see `find_stations` and `adjoin`.
    """
    ordered = sorted(volumes, key=lambda volume: float(volume.geometry.center_lps[2]))
    grid = _union_grid([volume.geometry for volume in ordered])
    axis = 2 - int(np.abs(grid.directions_lps[2]).argmax())  # array axis along the body
    total = np.zeros(grid.shape, dtype=np.float32)
    weight = np.zeros(grid.shape, dtype=np.float32)
    for volume in ordered:
        box, part = _placed(volume, grid)
        seen = weight[box] > 0
        gain = _gain(total[box][seen] / weight[box][seen], part[seen]) if seen.any() else 1.0
        share = _ramp(part.shape[axis], int(np.any(seen, axis=_others(axis)).sum()))
        share = share.reshape([-1 if n == axis else 1 for n in range(3)])
        total[box] += share * (gain * part)
        weight[box] += share
    np.divide(total, weight, out=total, where=weight > 0)
    lowest = ordered[0]
    if lowest.array.dtype.kind in "iu":
        limits = np.iinfo(lowest.array.dtype)
        total = np.clip(np.round(total), limits.min, limits.max).astype(lowest.array.dtype)
    step = f"{len(ordered)} stations joined, gains matched"
    return Volume(total, grid, lowest.provenance.then(step))


def overlap_share(one: Geometry, other: Geometry) -> float:
    """Share of the smaller field's box, edges along the patient's axes, inside the other's."""
    a, b = _corners_lps(one), _corners_lps(other)
    low = np.maximum(a.min(axis=0), b.min(axis=0))
    high = np.minimum(a.max(axis=0), b.max(axis=0))
    smaller = np.minimum(np.ptp(a, axis=0), np.ptp(b, axis=0))
    return float(np.prod(np.clip(high - low, 0, None) / np.maximum(smaller, 1e-6)))


def _union_grid(grids: Sequence[Geometry]) -> Geometry:
    reference = grids[0]
    corners = np.concatenate([reference.ijk_from_lps(_corners_lps(grid)) for grid in grids])
    low = np.floor(corners.min(axis=0) + 0.01).astype(int)
    high = np.ceil(corners.max(axis=0) - 0.01).astype(int)
    affine = reference.affine_lps.copy()
    affine[:3, 3] = reference.lps_from_ijk(low)
    i, j, k = (int(n) for n in high - low + 1)
    return Geometry((k, j, i), affine, reference.frame_of_reference_uid)


def _placed(volume: Volume, grid: Geometry) -> tuple[tuple[slice, slice, slice], Signal]:
    """The voxels of `grid` that lie inside a station, and its signal there."""
    corners = grid.kji_from_lps(_corners_lps(volume.geometry))
    low = np.maximum(np.ceil(corners.min(axis=0) - 0.01), 0).astype(int)
    high = np.minimum(np.floor(corners.max(axis=0) + 0.01) + 1, grid.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    moved = volume.resample(grid.cropped((k, j, i)), order=1)
    return (k, j, i), moved.array.astype(np.float32)


def _gain(below: Signal, here: Signal) -> float:
    """Factor that brings a station's fluid to the signal of the one below it."""
    bright = (below >= np.percentile(below, _BRIGHT_PERCENTILE)) & (here > 0)
    if bright.sum() < 50:  # too little to tell a gain from noise
        return 1.0
    return float(np.clip(np.median(below[bright]) / np.median(here[bright]), *_GAIN_LIMITS))


def _ramp(length: int, overlap: int) -> FloatArray:
    """Weights along the body that fade over `overlap` voxels towards both ends."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    return np.minimum(distance / (max(overlap, 1) + 1), 1.0)


def _others(axis: int) -> tuple[int, ...]:
    return tuple(n for n in range(3) if n != axis)


def _corners_lps(grid: Geometry) -> FloatArray:
    last = np.array(grid.shape[::-1]) - 1
    return grid.lps_from_ijk(np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T * last)


def _range_mm(grid: Geometry | None) -> tuple[float, float]:
    """Lowest and highest voxel centre along the body."""
    if grid is None:
        return 0.0, 0.0
    z = _corners_lps(grid)[:, 2]
    return float(z.min()), float(z.max())


def _overlap_share(one: tuple[float, float], other: tuple[float, float]) -> float:
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
    turned = np.abs(a.directions_lps - b.directions_lps).max()
    return bool(spacing <= _SAME_SPACING_MM and turned <= _PARALLEL)
