"""The localization stage: from masks and named levels to the content of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.core.notes import Note, note
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.result import Levels
from leakloc.localization.canal import ArcGrid, CanalVoxels, IntArray, canal_voxels
from leakloc.localization.collections import Placed, locate_collection
from leakloc.localization.companions import CompanionMeasurements
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.finding import find
from leakloc.localization.hiatus import SacralCanal, plausible_canal
from leakloc.localization.planning import plan
from leakloc.localization.result import Conus, Coverage, Localization, SegmentFluid
from leakloc.localization.retrospinal import find_retrospinal, without_extensions
from leakloc.localization.root_diverticula import locate_diverticula
from leakloc.localization.sac import (
    FIELD_MARGIN_MM,
    caudal_end_mm,
    locate_sac,
    narrow_places,
    premature_end,
    sac_profile,
)
from leakloc.localization.second_myelogram import MyelogramComparison, agreement
from leakloc.localization.segments import fluid_by_segment
from leakloc.localization.surgical_bed import SurgicalBed, postoperative_changes
from leakloc.localization.surroundings import Surroundings
from leakloc.segmentation.components import rim_of
from leakloc.segmentation.result import Segmentation

_GRID_MARGIN_MM = 10.0
"""Margin beyond the outermost voxels, so that smoothing is not truncated."""


_TIP_MM = 40.0
"""Length of the caudal part of the sac in which its end is determined."""

_JOIN_MM = 8.0
"""Length of the transition from the centerline of the sac to that of the sacral canal."""

_ARC_STEP_MM: Final = 1.0
"""Length of a bin along the canal: about a voxel, far below a level (30 mm)."""


def localize(
    segmentation: Segmentation,
    levels: Levels,
    settings: LocalizationSettings,
    *,
    input_notes: tuple[Note, ...] = (),
    sacral: SacralCanal | None = None,
    anatomy: Volume | None = None,
    companions: CompanionMeasurements | None = None,
    bed: SurgicalBed | None = None,
) -> Localization:
    """Determine position, extent, confidence and path from the hiatus of each collection.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels
        No level is named if its status is ``"unlabelled"``.
    settings : LocalizationSettings
    input_notes : tuple of Note
        Notes of earlier stages; some preclude a definite finding (`Message.precludes_finding`).
    sacral : SacralCanal, optional
        From `find_sacral_canal`; without it the hiatus is not detected.
    anatomy : Volume, optional
        A registered volume with bright fat, to measure the depth of the posterior epidural space
        and of the skin.
    companions : CompanionMeasurements, optional
        Measurements on other series.
    bed : SurgicalBed, optional
        From `measure_surgical_bed`; without it no postoperative changes are reported.

    Returns
    -------
    Localization
        `Localization.notes` contains the notes of this stage only.
    """
    geometry = segmentation.collections.geometry
    traced_mm = segmentation.centerline.length_mm
    tip = find_sac_tip(segmentation)
    sacral = plausible_canal(sacral, levels, tip, settings)
    segmentation = replace(
        segmentation, centerline=continue_through_sacrum(segmentation.centerline, tip, sacral)
    )
    sac_voxels, voxels_by_id = _gather(segmentation)
    free = (segmentation.thecal_sac.array == 0) & (segmentation.collections.array == 0)
    rims = {n: _rim(voxels, segmentation, free) for n, voxels in voxels_by_id.items()}
    grid = _common_grid(segmentation, [sac_voxels, *voxels_by_id.values(), *rims.values()])
    coordinate = LevelCoordinate.from_levels(levels, segmentation.centerline)
    sac = sac_profile(sac_voxels, grid, segmentation.centerline, geometry)
    blind = any(note.definition.precludes_finding for note in input_notes)
    incomplete = any(note.definition.is_incomplete for note in input_notes)
    shifts = tuple((a.shift, a.confidence, a.reason) for a in levels.numbering.alternatives)
    companions = companions or CompanionMeasurements()
    placed = tuple(
        locate_collection(
            candidate,
            voxels_by_id[candidate.id],
            rims[candidate.id],
            sac,
            _touches(voxels_by_id[candidate.id].index, segmentation),
            segmentation,
            coordinate,
            shifts,
            settings,
            blind=blind,
            suppressed=companions.suppressed_at(candidate.center_lps),
            fluid_on_axial_t2=companions.fluid_on_axial_t2(candidate.center_lps),
        )
        for candidate in segmentation.accepted
        if candidate.id in voxels_by_id
    )
    coverage = _coverage(levels, coordinate, segmentation)
    retrospinal = find_retrospinal(segmentation, levels, blind=blind)
    if bed is not None and retrospinal.present:
        bed = without_extensions(bed, segmentation, levels)
    planning, notes = plan(
        placed,
        sac,
        caudal_end_mm(sac, geometry),
        traced_mm,
        coordinate,
        sacral,
        Surroundings.of(segmentation, anatomy, sac),
    )
    centers = {c.id: c.center_lps for c in segmentation.accepted}
    by_segment = fluid_by_segment(
        {n: voxels_by_id[n].joined(rims[n]) for n in (p.collection.id for p in placed)},
        {p.collection.id: p.collection.segments for p in placed},
        sac,
        coordinate,
        geometry,
    )

    def segment_of(point_lps: FloatArray) -> str | None:
        return coordinate.segment_at(float(segmentation.centerline.project(point_lps)[0]))

    csf, noise = segmentation.csf_signal, segmentation.noise
    thecal_sac, wide = locate_sac(sac_voxels, sac, coordinate, geometry)
    return Localization(
        thecal_sac=thecal_sac,
        collections=tuple(
            p.collection.model_copy(
                update=companions.parts_at(centers[p.collection.id], segment_of)
            )
            for p in placed
        ),
        finding=find(
            placed,
            segmentation,
            levels,
            coverage,
            settings,
            blind=blind,
            incomplete=incomplete,
            retrospinal=retrospinal,
        ).model_copy(
            update={
                "segments_with_fluid": _count(by_segment, coordinate),
                "second_myelogram": agreement(companions.comparison),
                "root_diverticula": locate_diverticula(segmentation, coordinate),
                "retrospinal_c1_c2": retrospinal,
            }
        ),
        planning=planning,
        coverage=coverage,
        fluid_by_segment=by_segment,
        snr=csf / noise if csf >= 0 and noise > 0 else None,
        conus=_conus(levels, coordinate, segmentation.centerline),
        postoperative=postoperative_changes(
            bed, coordinate, segmentation.centerline, segmentation.accepted
        ),
        notes=(
            *notes,
            *_segment_notes("sac_unusually_wide", wide),
            *_segment_notes("sac_interrupted", narrow_places(sac, coordinate)),
            *_segment_notes("sac_not_followed", premature_end(sac, coordinate, geometry)),
            *_edge_notes(placed, geometry, segmentation),
            *_additional_notes(companions.comparison, segment_of),
        ),
    )


def _additional_notes(
    comparison: MyelogramComparison | None, segment_of: Callable[[FloatArray], str | None]
) -> list[Note]:
    """Return notes on collections that were detected on the second myelogram only."""
    found = []
    for fluid in comparison.additional if comparison is not None else ():
        found.append(
            note(
                "second_myelogram_additional",
                "" if fluid.in_field else "outside",
                volume_ml=fluid.volume_ml,
                place=segment_of(fluid.center_lps) or "a level that could not be named",
            )
        )
    return found


def _count(segments: tuple[SegmentFluid, ...], coordinate: LevelCoordinate) -> int | None:
    """Return the number of segments with fluid; None if no level is named."""
    return sum(segment.present for segment in segments) if coordinate.is_labeled else None


def continue_through_sacrum(
    line: Centerline, tip: FloatArray | None, sacral: SacralCanal | None
) -> Centerline:
    """Return the centerline, continued caudal to the sac through the sacral canal if detected."""
    if sacral is None or tip is None:
        return line
    nearest = int(np.linalg.norm(sacral.middle_lps - tip, axis=1).argmin())
    below = sacral.middle_lps[nearest:]
    above = line.points_lps[line.arc_mm < float(line.project(below[0])[0]) - _JOIN_MM]
    if len(above) < 2 or len(below) < 2:
        return line
    return Centerline.smoothed(np.concatenate([above, below]), smoothing_mm=_JOIN_MM / 2)


def find_sac_tip(segmentation: Segmentation) -> FloatArray | None:
    """Return the caudal end of the sac on the centerline; None without a sac."""
    kji = np.argwhere(segmentation.thecal_sac.array)
    if not len(kji):
        return None
    line = segmentation.centerline
    points = segmentation.thecal_sac.geometry.lps_from_kji(kji)
    arcs = line.project(points[points[:, 2] < points[:, 2].min() + _TIP_MM])[0]
    return line.at(float(np.quantile(arcs, 0.99)))


def _conus(levels: Levels, coordinate: LevelCoordinate, centerline: Centerline) -> Conus | None:
    point = levels.conus_tip_lps
    if point is None:
        return None
    level = coordinate.body_part_at(float(centerline.project(point)[0]))
    return Conus(lps_mm=point, level=level)


def _gather(segmentation: Segmentation) -> tuple[CanalVoxels, dict[int, CanalVoxels]]:
    """Return the voxels of the sac, and those of each collection by id."""
    geometry = segmentation.collections.geometry
    fraction = segmentation.fluid_fraction.array
    line = segmentation.centerline
    sac = canal_voxels(np.flatnonzero(segmentation.thecal_sac.array != 0), geometry, fraction, line)
    index = np.flatnonzero(segmentation.collections.array != 0)
    everything = canal_voxels(index, geometry, fraction, line)
    ids = segmentation.collections.array.ravel()[index]
    return sac, {int(n): everything.where(ids == n) for n in np.unique(ids)}


def _rim(
    collection: CanalVoxels, segmentation: Segmentation, free: npt.NDArray[np.bool_]
) -> CanalVoxels:
    """Return adjacent `free` voxels (no sac, no collection) that a collection fills partially."""
    fraction = segmentation.fluid_fraction
    voxels = np.unravel_index(collection.index, fraction.geometry.shape)
    rim, filled = rim_of(voxels, fraction, free)
    index = np.ravel_multi_index(rim, fraction.geometry.shape)
    placed = canal_voxels(index, fraction.geometry, fraction.array, segmentation.centerline)
    return replace(placed, fluid=filled)


def _common_grid(segmentation: Segmentation, masks: list[CanalVoxels]) -> ArcGrid:
    ends = [np.array([0.0, segmentation.centerline.length_mm])]
    arcs = np.concatenate(ends + [mask.arc_mm for mask in masks])
    return ArcGrid.over(arcs, _ARC_STEP_MM, _GRID_MARGIN_MM)


def _touches(index: IntArray, segmentation: Segmentation) -> npt.NDArray[np.bool_]:
    """Return which voxels are face-adjacent to the sac."""
    sac = segmentation.thecal_sac.array
    kji = np.stack(np.unravel_index(index, sac.shape), axis=-1)
    touching = np.zeros(len(index), dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            neighbor = kji.copy()
            neighbor[:, axis] = np.clip(neighbor[:, axis] + step, 0, sac.shape[axis] - 1)
            touching |= sac[tuple(neighbor.T)] > 0
    return touching


def _coverage(levels: Levels, coordinate: LevelCoordinate, segmentation: Segmentation) -> Coverage:
    """Return the first and last named vertebra whose canal level is in the field of view."""
    names = []
    for vertebra in levels.vertebrae:
        arc_mm = coordinate.body_arc(vertebra.name)
        if arc_mm is not None:
            point = segmentation.centerline.at(arc_mm)
            if bool(segmentation.collections.geometry.contains(point)):
                names.append(vertebra.name)
    return Coverage(cranial=names[0] if names else None, caudal=names[-1] if names else None)


def _segment_notes(code: str, segments: tuple[str, ...]) -> tuple[Note, ...]:
    """Return the note of this code, if it applies to any segment."""
    return (note(code, segments=", ".join(segments)),) if segments else ()


def _edge_notes(
    placed: tuple[Placed, ...],
    geometry: Geometry,
    segmentation: Segmentation,
) -> tuple[Note, ...]:
    """Return notes for collections that may extend beyond the field of view."""
    notes = []
    for p in placed:
        for end, arc_mm, point_lps, outwards in (
            ("cranial", p.start_mm, p.ends_lps[0], -1.0),
            ("caudal", p.stop_mm, p.ends_lps[1], 1.0),
        ):
            tangent = segmentation.centerline.frame_at(arc_mm)[0]
            beyond = point_lps + outwards * FIELD_MARGIN_MM * tangent
            if not bool(geometry.contains(beyond)):
                notes.append(note("collection_reaches_field_edge", id=p.collection.id, end=end))
    return tuple(notes)
