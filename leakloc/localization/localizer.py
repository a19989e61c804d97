"""The localization stage: from masks and named levels to what the report says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.core.notes import Note
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.result import Levels
from leakloc.localization.canal import ArcGrid, CanalVoxels, IntArray, canal_voxels
from leakloc.localization.collections import Placed, locate_collection
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.finding import find
from leakloc.localization.hiatus import SacralCanal, plausible_canal
from leakloc.localization.planning import plan
from leakloc.localization.result import Localization, LocatedConus, LocatedSac, Quality
from leakloc.localization.sac import (
    bulges,
    caudal_end_mm,
    locate_sac,
    narrow_places,
    sac_profile,
)
from leakloc.localization.surroundings import Surroundings, crop_to_path
from leakloc.segmentation.collections import rim_of
from leakloc.segmentation.result import Segmentation

_GRID_MARGIN_MM = 10.0
"""Bins beyond the outermost voxels, so that smoothing finds nothing there."""


_TIP_MM = 40.0
"""The end of the sac is sought in this last stretch."""

_JOIN_MM = 8.0
"""Over this length the trace of the sac goes over into the middle of the sacral canal."""


def localize(
    segmentation: Segmentation,
    levels: Levels,
    settings: LocalizationSettings,
    *,
    input_notes: tuple[Note, ...] = (),
    sacral: SacralCanal | None = None,
    anatomy: Volume | None = None,
) -> Localization:
    """Say where fluid lies, how far it reaches, how sure that is, and the way to it.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels
        Nothing is named where its status is ``"unlabelled"``.
    settings : LocalizationSettings
    input_notes : tuple of Note
        Of earlier stages; some mean that the input cannot tell (`settings.blind_codes`).
    sacral : SacralCanal, optional
        From `find_sacral_canal`; without it no length from the sacral hiatus is given.
    anatomy : Volume, optional
        A companion on which fat is bright, for the depth of the posterior epidural space and
        of the skin.

    Returns
    -------
    Localization
        `Localization.notes` holds this stage's own notes only.
    """
    geometry = segmentation.collections.geometry
    traced_mm = segmentation.centerline.length_mm
    tip = _sac_tip(segmentation)
    sacral = plausible_canal(sacral, levels, tip, settings)
    segmentation = replace(
        segmentation, centerline=_whole_canal(segmentation.centerline, tip, sacral)
    )
    sac_voxels, pieces = _gather(segmentation)
    free = (segmentation.thecal_sac.array == 0) & (segmentation.collections.array == 0)
    rims = {n: _rim(piece, segmentation, free) for n, piece in pieces.items()}
    grid = _common_grid(segmentation, [sac_voxels, *pieces.values(), *rims.values()], settings)
    coordinate = LevelCoordinate.from_levels(levels, segmentation.centerline)
    sac = sac_profile(sac_voxels, grid, segmentation.centerline, geometry, settings)
    blind = any(note.code in settings.blind_codes for note in input_notes)
    shifts = tuple((a.shift, a.confidence, a.reason) for a in levels.numbering.alternatives)
    placed = tuple(
        locate_collection(
            candidate,
            pieces[candidate.id],
            rims[candidate.id],
            sac,
            _touches(pieces[candidate.id].index, segmentation),
            segmentation,
            coordinate,
            shifts,
            settings,
            blind=blind,
        )
        for candidate in segmentation.accepted
        if candidate.id in pieces
    )
    collections = tuple(p.collection for p in placed)
    coverage = _coverage(levels, coordinate, segmentation)
    planning, notes = plan(
        collections,
        {p.collection.id: (p.peak_mm, p.start_mm, p.stop_mm) for p in placed},
        sac,
        caudal_end_mm(sac, geometry, settings),
        traced_mm,
        coordinate,
        sacral,
        Surroundings.of(segmentation, anatomy, sac, settings),
        settings,
    )
    noise = segmentation.noise
    located_sac = locate_sac(sac_voxels, sac, coordinate, geometry, settings)
    return Localization(
        sac=located_sac,
        collections=collections,
        finding=find(collections, segmentation, levels, coverage, settings, blind=blind),
        planning=planning,
        quality=Quality(segmentation.csf_signal / noise if noise > 0 else None, *coverage),
        conus=_conus(levels, coordinate, segmentation.centerline),
        notes=(
            *notes,
            *_bulge_notes(located_sac, settings),
            *_narrow_notes(narrow_places(sac, coordinate, settings)),
            *_edge_notes(placed, geometry, segmentation, settings),
        ),
    )


def crop_to_region_read(
    anatomy: Volume,
    segmentation: Segmentation,
    sacral: SacralCanal | None,
    settings: LocalizationSettings,
) -> Volume:
    """The image with zeros wherever `localize` never looks, whatever the levels are named.

    Parameters
    ----------
    anatomy, segmentation, sacral, settings
        As for `localize`.
    """
    line = segmentation.centerline
    lines = [line]  # names decide whether the sacral canal is plausible
    if sacral is not None and sacral.confidence >= settings.hiatus_min_confidence:
        lines.append(_whole_canal(line, _sac_tip(segmentation), sacral))
    return crop_to_path(anatomy, lines)


def _whole_canal(
    line: Centerline, tip: FloatArray | None, sacral: SacralCanal | None
) -> Centerline:
    """The traced canal, continued below the sac's tip through the sacral canal where detected."""
    if sacral is None or tip is None:
        return line
    nearest = int(np.linalg.norm(sacral.middle_lps - tip, axis=1).argmin())
    below = sacral.middle_lps[nearest:]
    kept = line.points_lps[line.arc_mm < float(line.project(below[0])[0]) - _JOIN_MM]
    if len(kept) < 2 or len(below) < 2:
        return line
    return Centerline.smoothed(np.concatenate([kept, below]), smoothing_mm=_JOIN_MM / 2)


def _sac_tip(segmentation: Segmentation) -> FloatArray | None:
    """Lowest point of the sac on the centerline; None without a sac."""
    kji = np.argwhere(segmentation.thecal_sac.array)
    if not len(kji):
        return None
    line = segmentation.centerline
    points = segmentation.thecal_sac.geometry.lps_from_kji(kji)
    arcs = line.project(points[points[:, 2] < points[:, 2].min() + _TIP_MM])[0]
    return line.at(float(np.quantile(arcs, 0.99)))


def _conus(
    levels: Levels, coordinate: LevelCoordinate, centerline: Centerline
) -> LocatedConus | None:
    point = levels.cord_end_lps
    if point is None:
        return None
    return LocatedConus(point, coordinate.body_part_at(float(centerline.project(point)[0])))


def _gather(segmentation: Segmentation) -> tuple[CanalVoxels, dict[int, CanalVoxels]]:
    """The voxels of the sac, and of each collection by id."""
    geometry = segmentation.collections.geometry
    fraction = segmentation.fluid_fraction.array
    line = segmentation.centerline
    sac = canal_voxels(np.flatnonzero(segmentation.thecal_sac.array != 0), geometry, fraction, line)
    index = np.flatnonzero(segmentation.collections.array != 0)
    everything = canal_voxels(index, geometry, fraction, line)
    ids = segmentation.collections.array.ravel()[index]
    return sac, {int(n): everything.where(ids == n) for n in np.unique(ids)}


def _rim(
    piece: CanalVoxels, segmentation: Segmentation, free: npt.NDArray[np.bool_]
) -> CanalVoxels:
    """Voxels next to a collection that it fills in part; `free` of sac and collections."""
    fraction = segmentation.fluid_fraction
    voxels = np.unravel_index(piece.index, fraction.geometry.shape)
    rim, filled = rim_of(voxels, fraction, free)
    index = np.ravel_multi_index(rim, fraction.geometry.shape)
    placed = canal_voxels(index, fraction.geometry, fraction.array, segmentation.centerline)
    return replace(placed, fluid=filled)


def _common_grid(
    segmentation: Segmentation, masks: list[CanalVoxels], settings: LocalizationSettings
) -> ArcGrid:
    ends = [np.array([0.0, segmentation.centerline.length_mm])]
    arcs = np.concatenate(ends + [mask.arc_mm for mask in masks])
    return ArcGrid.over(arcs, settings.arc_step_mm, _GRID_MARGIN_MM)


def _touches(index: IntArray, segmentation: Segmentation) -> npt.NDArray[np.bool_]:
    """Which voxels share a face with the sac."""
    sac = segmentation.thecal_sac.array
    kji = np.stack(np.unravel_index(index, sac.shape), axis=-1)
    touching = np.zeros(len(index), dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            neighbour = kji.copy()
            neighbour[:, axis] = np.clip(neighbour[:, axis] + step, 0, sac.shape[axis] - 1)
            touching |= sac[tuple(neighbour.T)] > 0
    return touching


def _coverage(
    levels: Levels, coordinate: LevelCoordinate, segmentation: Segmentation
) -> tuple[str | None, str | None]:
    """First and last named vertebra whose stretch of canal lies in the field."""
    names = []
    for vertebra in levels.vertebrae:
        arc_mm = coordinate.body_arc(vertebra.name)
        if arc_mm is not None:
            point = segmentation.centerline.at(arc_mm)
            if bool(segmentation.collections.geometry.contains(point)):
                names.append(vertebra.name)
    return (names[0], names[-1]) if names else (None, None)


def _bulge_notes(sac: LocatedSac, settings: LocalizationSettings) -> tuple[Note, ...]:
    names = ", ".join(part.segment for part in bulges(sac.by_segment, settings))
    if not names:
        return ()
    return (
        Note(
            "sac_unusually_wide",
            f"The thecal sac is unusually wide at {names}: fluid that lies against it may have "
            "been counted into it.",
        ),
    )


def _narrow_notes(places: tuple[str, ...]) -> tuple[Note, ...]:
    if not places:
        return ()
    return (
        Note(
            "sac_interrupted",
            f"The thecal sac is hardly detected at {', '.join(places)}: severe stenosis or a "
            "signal void. Its outline there rests on the levels above and below.",
        ),
    )


def _edge_notes(
    placed: tuple[Placed, ...],
    geometry: Geometry,
    segmentation: Segmentation,
    settings: LocalizationSettings,
) -> tuple[Note, ...]:
    """Collections that may go on beyond the field."""
    notes = []
    for p in placed:
        for end, arc_mm, outwards in (
            ("head", p.start_mm, -1.0),
            ("tail", p.stop_mm, 1.0),
        ):
            point = p.collection.cranial if outwards < 0 else p.collection.caudal
            tangent = segmentation.centerline.frame_at(arc_mm)[0]
            beyond = point.point_lps + outwards * settings.field_margin_mm * tangent
            if not bool(geometry.contains(beyond)):
                notes.append(
                    Note(
                        "collection_reaches_field_edge",
                        f"Collection {p.collection.id} reaches the {end} end of the field "
                        "and may go on beyond it.",
                    )
                )
    return tuple(notes)
