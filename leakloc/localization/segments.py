"""Epidural fluid by motion segment and side of the thecal sac."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from leakloc.anatomy.vocabulary import SIDES
from leakloc.core.volume import FloatArray, Geometry
from leakloc.localization.canal import (
    CANAL_RADIUS_MM,
    SECTION_SMOOTHING_MM,
    ArcGrid,
    CanalVoxels,
    area_profile,
    section_sigma_mm,
)
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import SegmentFluid, SideFluid
from leakloc.localization.sac import SacProfile

_BY_ANGLE: Final = ("dorsal", "left", "ventral", "right")
"""Quadrants by the angle of `layer_thickness_mm`."""

MIN_OCCUPIED_MM: Final = 0.4
"""Minimum radial thickness at which fluid counts as present in a direction around the sac."""

_DIRECTIONS = 36
"""Angular sectors around the sac, 10 degrees each."""

_MIN_RADIUS_MM = 2.0
"""Minimum distance from the center of the sac; the direction is undefined at the center."""

_MIN_SIDE_ML: Final = 0.02
"""Minimum volume of fluid on a side of a segment; less is partial volume of an adjacent one."""


_MIN_FILLED: Final = 0.5
"""Minimum fluid fraction of a voxel at the edge of the images: the fluid continues beyond it."""


def fluid_by_segment(
    collections: dict[int, CanalVoxels],
    segments: dict[int, tuple[str, ...]],
    sac: SacProfile,
    coordinate: LevelCoordinate,
    geometry: Geometry,
) -> tuple[SegmentFluid, ...]:
    """Return the epidural fluid of each motion segment in the field of view, by side.

    Only fluid within the canal is on a side: thickness and area of a pseudomeningocele are those
    of its part adjacent to the sac.

    Parameters
    ----------
    collections : dict of CanalVoxels
        Voxels of each collection, including partially filled ones, by id.
    segments : dict of tuple of str
        Motion segments that each collection extends into, by id.
    geometry : Geometry
        Grid of the voxels.
    """
    grid, line = sac.grid, sac.centerline
    in_field = [
        segment
        for segment in coordinate.segments()
        if bool(geometry.contains(line.at(0.5 * (segment[1] + segment[2]))))
    ]
    if not collections:
        return tuple(_segment(name, (), {}) for name, _, _ in in_field)
    first, *others = collections.values()
    for other in others:
        first = first.joined(other)
    in_canal = np.hypot(first.left_mm, first.dorsal_mm) <= CANAL_RADIUS_MM
    voxels = first.where(in_canal)
    left, dorsal = offsets_from_sac(voxels, sac)
    layer_mm = layer_thickness_mm(voxels, left, dorsal, grid)
    sigma_mm = section_sigma_mm(geometry, line, SECTION_SMOOTHING_MM)
    quarter = _DIRECTIONS // len(_BY_ANGLE)
    sectors = np.roll(layer_mm, quarter // 2, axis=1).reshape(grid.count, len(_BY_ANGLE), quarter)
    thickness_mm = dict(zip(_BY_ANGLE, sectors.max(axis=2).T, strict=True))
    quadrants = quadrants_of(left, dorsal)
    at_edge = _at_edge(voxels, geometry)
    area_mm2 = {
        side: area_profile(grid, voxels.where(chosen), voxels.fluid[chosen], sigma_mm)
        for side, chosen in quadrants.items()
    }
    found = []
    for name, start_mm, stop_mm in in_field:
        bins = (grid.centers_mm >= start_mm) & (grid.centers_mm < stop_mm)
        inside = (voxels.arc_mm >= start_mm) & (voxels.arc_mm < stop_mm)
        sides = {}
        for side in SIDES:
            chosen = inside & quadrants[side]
            thick = float(thickness_mm[side][bins].max(initial=0.0))
            volume_ml = float(voxels.fluid[chosen].sum()) * voxels.voxel_mm3 / 1000.0
            if thick >= MIN_OCCUPIED_MM and volume_ml >= _MIN_SIDE_ML:
                area = float(area_mm2[side][bins].max())
                sides[side] = SideFluid(
                    present=True,
                    thickness_mm=thick,
                    area_mm2=area,
                    truncated=bool(at_edge[chosen].any()),
                )
        here = tuple(sorted(n for n, names in segments.items() if name in names))
        found.append(_segment(name, here, sides if here else {}))
    return tuple(found)


def _segment(name: str, collections: tuple[int, ...], sides: dict[str, SideFluid]) -> SegmentFluid:
    none = SideFluid(present=False, thickness_mm=0.0, area_mm2=0.0)
    return SegmentFluid(
        segment=name,
        present=bool(collections),
        collections=collections,
        **{side: sides.get(side, none) for side in SIDES},
    )


def _at_edge(voxels: CanalVoxels, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Return which filled voxels are the outermost ones, except at the head and feet end."""
    ijk = geometry.ijk_from_lps(voxels.points_lps)
    along = int(np.abs(geometry.directions_lps[2]).argmax())
    across = [axis for axis in range(3) if axis != along]
    last = np.array(geometry.shape[::-1]) - 1
    outermost = (ijk < 0.5) | (ijk > last - 0.5)
    return np.asarray(outermost[:, across].any(axis=1) & (voxels.fluid >= _MIN_FILLED))


def offsets_from_sac(voxels: CanalVoxels, sac: SacProfile) -> tuple[FloatArray, FloatArray]:
    """Return the offsets of voxels from the center of the sac, to the left and dorsal, in mm."""
    bins = sac.grid.bin_of(voxels.arc_mm)
    return voxels.left_mm - sac.left_mm[bins], voxels.dorsal_mm - sac.dorsal_mm[bins]


def quadrants_of(left: FloatArray, dorsal: FloatArray) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which points lie in each quadrant around the sac."""
    sagittal = np.abs(dorsal) >= np.abs(left)
    return {
        "dorsal": sagittal & (dorsal >= 0),
        "ventral": sagittal & (dorsal < 0),
        "left": ~sagittal & (left > 0),
        "right": ~sagittal & (left <= 0),
    }


def layer_thickness_mm(
    voxels: CanalVoxels, left: FloatArray, dorsal: FloatArray, grid: ArcGrid
) -> FloatArray:
    """Return the radial fluid thickness around the sac, mm, shape (bins, directions).

    Directions are 10 degrees apart, from dorsal over left, ventral and right.
    """
    radius = np.maximum(np.hypot(left, dorsal), _MIN_RADIUS_MM)
    turn = np.arctan2(left, dorsal) / (2 * np.pi) * _DIRECTIONS
    low = np.floor(turn).astype(np.intp)
    upper_fraction = turn - low
    width_rad = 2 * np.pi / _DIRECTIONS
    # Radial thickness: volume of a voxel divided by the area of its angular sector.
    weights = voxels.section_mm3 * voxels.fluid / (radius * width_rad * grid.step_mm)
    cells = np.zeros(grid.count * _DIRECTIONS)
    rows = grid.bin_of(voxels.arc_mm) * _DIRECTIONS
    for column, part in ((low, 1.0 - upper_fraction), (low + 1, upper_fraction)):
        cells += np.bincount(rows + column % _DIRECTIONS, weights * part, minlength=len(cells))
    thickness = grid.smooth(cells.reshape(grid.count, _DIRECTIONS), 1.5)
    return np.asarray(gaussian_filter1d(thickness, 0.7, axis=1, mode="wrap"))


def max_angle_deg(layer_mm: FloatArray) -> float:
    """Return the largest angle of the circumference of the sac with adjacent fluid.

    A layer ends where its thickness falls to half of that within 20 degrees, because the thickness
    is smoothed over the directions.

    Parameters
    ----------
    layer_mm : ndarray, shape (bins, directions)
        From `layer_thickness_mm`.
    """
    nearby = maximum_filter1d(layer_mm, 5, axis=1, mode="wrap")
    occupied = layer_mm >= np.maximum(MIN_OCCUPIED_MM, 0.5 * nearby)
    return float(360.0 * occupied.mean(axis=1).max())
