"""Measurement and level assignment of one epidural fluid collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast, get_args

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.vocabulary import Compartment, Pattern, Position
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import FloatArray
from leakloc.localization.canal import (
    CANAL_RADIUS_MM,
    SECTION_SMOOTHING_MM,
    ArcGrid,
    CanalVoxels,
    area_profile,
    profile_ends,
    section_sigma_mm,
)
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.grading import Evidence, basis, confidence_of, grade_of
from leakloc.localization.ranking import (
    probable_segments,
    rank_levels,
    segment_evidence,
    without_c1_c2,
)
from leakloc.localization.result import (
    Collection,
    Extent,
    ExtentEnd,
    PositionFractions,
    Profile,
)
from leakloc.localization.sac import SacProfile, compression
from leakloc.localization.segments import (
    MIN_OCCUPIED_MM,
    layer_thickness_mm,
    max_angle_deg,
    offsets_from_sac,
    quadrants_of,
)
from leakloc.localization.signals import SuppressedSignal
from leakloc.localization.thickness import ball_diameters_mm
from leakloc.segmentation.result import Candidate, Segmentation

_END_MM = 3.0
"""The end of a collection is at the center of the fluid within this distance of it."""

_END_AREA_MM2: Final = 3.0
"""A collection ends where its cross-sectional area falls below this or below a tenth of its
maximum, whichever is less."""

_MIN_SEGMENT_OVERLAP_MM: Final = 2.0
"""Minimum extent of a collection within a segment for the segment to be involved; partial volume
alone extends about one voxel."""

_MIN_SEGMENT_FRACTION: Final = 0.005
"""Minimum fraction of the collection's volume within an involved segment."""

_MIN_CIRCUMFERENTIAL_MM: Final = 20.0
"""Minimum length over which a circumferential collection surrounds the sac: about one level."""

_MIN_CIRCUMFERENTIAL_FRACTION: Final = 0.33
"""Minimum fraction of the length of a circumferential collection over which it surrounds the
sac."""

_MIN_LONGITUDINAL_MM: Final = 95.0
"""Minimum length of a longitudinal collection if levels are not numbered: three mean lumbar
levels."""

_MIN_OUTSIDE_FRACTION: Final = 0.35
"""Minimum fraction of the volume outside the canal of a pseudomeningocele (posterior) or a
periradicular collection (lateral)."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A located collection, and the unrounded measurements that later steps use.

    Parameters
    ----------
    peak_mm, start_mm, stop_mm : float
        Largest cross-section, cranial and caudal end, as distances along the centerline.
    ends_lps : ndarray, shape (2, 3)
        Cranial and caudal end.
    volume_ml, thickness_mm : float
    renumbered : str or None
        First alternative level that is the same position with another numbering.
    """

    collection: Collection
    peak_mm: float
    start_mm: float
    stop_mm: float
    ends_lps: FloatArray
    volume_ml: float
    thickness_mm: float
    renumbered: str | None = None


@dataclass(frozen=True, eq=False)
class _Measures:
    """Measurements of a collection in canal coordinates, before classification."""

    area_mm2: FloatArray
    thickness_mm: FloatArray
    start_mm: float
    stop_mm: float
    fractions: dict[str, float]
    max_angle_deg: float
    surrounds: bool
    outside: FloatArray
    """Distance from the centerline for voxels outside the canal, else 0; per voxel."""
    behind: npt.NDArray[np.bool_]
    """Whether a voxel is outside and posterior to the canal."""


def locate_collection(
    candidate: Candidate,
    voxels: CanalVoxels,
    rim: CanalVoxels,
    sac: SacProfile,
    contact: npt.NDArray[np.bool_],
    segmentation: Segmentation,
    coordinate: LevelCoordinate,
    shifts: tuple[tuple[int, float, str], ...],
    settings: LocalizationSettings,
    *,
    blind: bool,
    suppressed: SuppressedSignal | None = None,
    fluid_on_axial_t2: bool = False,
) -> Placed:
    """Determine level, extent, side, size and grade of one collection.

    Parameters
    ----------
    candidate : Candidate
        An accepted candidate.
    voxels : CanalVoxels
        Its voxels, at least one.
    rim : CanalVoxels
        Adjacent voxels that the collection fills partially.
    sac : SacProfile
    contact : ndarray of bool, shape (n,)
        Which of the voxels touch the sac.
    shifts : tuple of (shift, confidence, reason)
        Alternative numberings of the levels.
    blind : bool
        Whether the input cannot distinguish fluid from other bright tissue.
    suppressed : str or None
        Whether it has the signal of fluid, fat or other tissue on STIR or fat-suppressed T2.
    fluid_on_axial_t2 : bool
        Whether it has the signal of CSF, and not that of fat, on axial T2.
    """
    measures = _measure(voxels, rim, sac, segmentation, settings)
    grid = sac.grid
    leading_mm2 = without_c1_c2(measures.area_mm2, grid, coordinate)
    by_segment = segment_evidence(
        voxels, leading_mm2, grid, contact, measures.outside > 0, coordinate
    )
    level_set = probable_segments(by_segment, settings)
    level = level_set[0].segment if level_set else None
    peak_mm = (
        level_set[0].peak_mm if level_set else float(grid.centers_mm[measures.area_mm2.argmax()])
    )
    segments = _segments_touched(measures, voxels, coordinate, level)
    thickness = float(measures.thickness_mm.max())
    evidence = Evidence(
        candidate=candidate,
        volume_ml=candidate.volume_ml,
        thickness_mm=thickness,
        voxel_mm=segmentation.collections.geometry.voxel_volume_ml ** (1 / 3) * 10.0,
        csf_signal=segmentation.csf_signal,
        noise=segmentation.noise,
        fat_suppressed=segmentation.fat_suppressed,
        blind=blind,
        suppressed=suppressed,
        fluid_on_axial_t2=fluid_on_axial_t2,
    )
    confidence = confidence_of(evidence)
    along = (grid.centers_mm >= measures.start_mm) & (grid.centers_mm <= measures.stop_mm)
    weights = np.maximum(voxels.fluid, 1e-3)
    max_area = float(measures.area_mm2.max())
    alternatives, renumbered = rank_levels(by_segment, level, coordinate, shifts, settings)
    ends = np.stack(
        [
            _end_lps(voxels, measures.start_mm, 1, sac),
            _end_lps(voxels, measures.stop_mm, -1, sac),
        ]
    )
    collection = Collection(
        id=candidate.id,
        level=level,
        alternatives=alternatives,
        level_set=tuple(evidence.segment for evidence in level_set),
        segments=segments,
        extent=Extent(
            cranial=_end(ends[0], measures.start_mm, segments[:1], coordinate),
            caudal=_end(ends[1], measures.stop_mm, segments[-1:], coordinate),
            length_mm=measures.stop_mm - measures.start_mm,
        ),
        position=PositionFractions(label=_position(measures), **measures.fractions),
        compartments=tuple(c for c in get_args(Compartment) if c in candidate.compartments),
        pattern=_pattern(candidate, measures, voxels, coordinate, settings),
        volume_ml=candidate.volume_ml,
        max_thickness_mm=thickness,
        max_area_mm2=max_area,
        max_angle_around_sac_deg=measures.max_angle_deg,
        floating_sac=measures.surrounds,
        sac_compression=compression(sac, measures.start_mm, measures.stop_mm, coordinate),
        centroid_lps_mm=np.average(voxels.points_lps, axis=0, weights=weights),
        epicenter_lps_mm=_section_center(voxels, peak_mm, grid),
        confidence=confidence,
        grade=grade_of(confidence, settings),
        basis=basis(
            evidence,
            max_area_mm2=max_area,
            place=coordinate.describe(peak_mm),
            contact_fraction=float(contact.mean()),
            settings=settings,
        ),
        mimics_considered=candidate.mimics,
        profile=Profile(
            arc_mm=tuple(grid.centers_mm[along]),
            thickness_mm=tuple(measures.thickness_mm[along]),
            area_mm2=tuple(measures.area_mm2[along]),
        ),
    )
    return Placed(
        collection,
        peak_mm,
        measures.start_mm,
        measures.stop_mm,
        ends,
        candidate.volume_ml,
        thickness,
        renumbered,
    )


def _measure(
    voxels: CanalVoxels,
    rim: CanalVoxels,
    sac: SacProfile,
    segmentation: Segmentation,
    settings: LocalizationSettings,
) -> _Measures:
    grid = sac.grid
    geometry = segmentation.collections.geometry
    line = segmentation.centerline
    sigma_mm = section_sigma_mm(geometry, line, SECTION_SMOOTHING_MM)
    whole = voxels.joined(rim)
    area = area_profile(grid, whole, whole.fluid, sigma_mm)
    sharp_mm = section_sigma_mm(geometry, line, 0.0)
    sharp = area_profile(grid, whole, whole.fluid, sharp_mm)
    start_mm, stop_mm = profile_ends(sharp, grid, _END_AREA_MM2, sharp_mm)
    left, dorsal = offsets_from_sac(whole, sac)
    layer_mm = layer_thickness_mm(whole, left, dorsal, grid)
    index, diameter = ball_diameters_mm(voxels.index, segmentation.fluid_fraction.array, geometry)
    thickness = np.zeros(grid.count)
    places = np.searchsorted(voxels.index, index)
    np.maximum.at(thickness, grid.bin_of(voxels.arc_mm[places]), diameter)
    if not len(index):  # no voxel at least half full: thinner than a voxel
        thickness = layer_mm.max(axis=1)
    from_canal = np.hypot(voxels.left_mm, voxels.dorsal_mm)
    outside = np.where(from_canal > CANAL_RADIUS_MM, from_canal, 0.0)
    return _Measures(
        area_mm2=area,
        thickness_mm=thickness,
        start_mm=start_mm,
        stop_mm=stop_mm,
        fractions=_fractions(left, dorsal, whole.fluid),
        max_angle_deg=max_angle_deg(layer_mm),
        surrounds=_surrounds(layer_mm, grid, stop_mm - start_mm, settings),
        outside=outside,
        behind=(outside > 0) & (voxels.dorsal_mm > np.abs(voxels.left_mm)),
    )


def _fractions(left: FloatArray, dorsal: FloatArray, weights: FloatArray) -> dict[str, float]:
    """Return fractions of the fluid dorsal, ventral, left and right of the sac (quadrants)."""
    total = max(float(weights.sum()), 1e-9)
    return {
        name: float(weights[where].sum()) / total
        for name, where in quadrants_of(left, dorsal).items()
    }


def _surrounds(
    layer_mm: FloatArray, grid: ArcGrid, length_mm: float, settings: LocalizationSettings
) -> bool:
    """Return whether fluid surrounds the sac over a sufficient length."""
    occupied_deg = 360.0 * (layer_mm >= MIN_OCCUPIED_MM).mean(axis=1)
    surrounded_mm = grid.step_mm * int((occupied_deg >= settings.circumferential_deg).sum())
    needed_mm = max(_MIN_CIRCUMFERENTIAL_MM, _MIN_CIRCUMFERENTIAL_FRACTION * length_mm)
    return surrounded_mm >= needed_mm


def _position(measures: _Measures) -> Position:
    if measures.surrounds:
        return "circumferential"
    label = max(measures.fractions, key=lambda side: measures.fractions[side])
    return cast(Position, label)


def _segments_touched(
    measures: _Measures,
    voxels: CanalVoxels,
    coordinate: LevelCoordinate,
    level: str | None,
) -> tuple[str, ...]:
    total = max(float(voxels.fluid.sum()), 1e-9)
    touched = []
    for name, start, stop in coordinate.segments():
        overlap = min(stop, measures.stop_mm) - max(start, measures.start_mm)
        inside = (voxels.arc_mm >= start) & (voxels.arc_mm < stop)
        fraction = float(voxels.fluid[inside].sum()) / total
        reaches = overlap >= _MIN_SEGMENT_OVERLAP_MM
        if name == level or (reaches and fraction >= _MIN_SEGMENT_FRACTION):
            touched.append(name)
    return tuple(touched)


def _end(
    point_lps: FloatArray, arc_mm: float, segment: tuple[str, ...], coordinate: LevelCoordinate
) -> ExtentEnd:
    return ExtentEnd(
        lps_mm=point_lps,
        segment=segment[0] if segment else None,
        description=coordinate.describe(arc_mm) or None,
    )


def _end_lps(voxels: CanalVoxels, arc_mm: float, inwards: int, sac: SacProfile) -> FloatArray:
    """Return the end at `arc_mm`; `inwards` is 1 (caudal) or -1 (cranial), into the collection."""
    depth = (voxels.arc_mm - arc_mm) * inwards
    near = (depth >= -_END_MM) & (depth <= _END_MM)
    if not near.any():
        near = depth <= depth.min() + _END_MM
    weights = np.maximum(voxels.fluid[near], 1e-3)
    center = np.average(voxels.points_lps[near], axis=0, weights=weights)
    at_mm = float(np.average(voxels.arc_mm[near], weights=weights))
    # The canal is straight over this distance: move along the tangent to the end.
    tangent = sac.centerline.frame_at(arc_mm)[0]
    return np.asarray(center + (arc_mm - at_mm) * tangent)


def _section_center(voxels: CanalVoxels, peak_mm: float, grid: ArcGrid) -> FloatArray:
    distance = np.abs(voxels.arc_mm - peak_mm)
    near = distance <= max(float(distance.min()) + 0.5 * grid.step_mm, 1.5 * grid.step_mm)
    weights = np.maximum(voxels.fluid[near], 1e-3)
    return np.asarray(np.average(voxels.points_lps[near], axis=0, weights=weights))


def _pattern(
    candidate: Candidate,
    measures: _Measures,
    voxels: CanalVoxels,
    coordinate: LevelCoordinate,
    settings: LocalizationSettings,
) -> Pattern:
    total = max(float(voxels.fluid.sum()), 1e-9)
    posterior = float(voxels.fluid[measures.behind].sum()) / total
    lateral = float(voxels.fluid[(measures.outside > 0) & ~measures.behind].sum()) / total
    dorsal_bulk = {"paraspinal", "subcutaneous"} & set(candidate.compartments)
    if dorsal_bulk and posterior >= _MIN_OUTSIDE_FRACTION:
        return "pseudomeningocele"
    levels = coordinate.level_at([measures.start_mm, measures.stop_mm])
    length_mm = measures.stop_mm - measures.start_mm
    if np.isfinite(levels).all():
        long = float(levels[1] - levels[0]) >= settings.longitudinal_levels
    else:
        long = length_mm >= _MIN_LONGITUDINAL_MM
    if long:
        return "longitudinal"
    if "foraminal" in candidate.compartments and lateral >= _MIN_OUTSIDE_FRACTION:
        return "periradicular"
    if "epidural" in candidate.compartments:
        return "focal"
    return "indeterminate"
