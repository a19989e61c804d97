"""Path from the sacral hiatus along the posterior epidural space to each collection."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import numpy as np

from leakloc.anatomy.vocabulary import SACRAL
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray
from leakloc.localization.caudal import caudal_access, implausible_length, length_marks
from leakloc.localization.collections import Placed
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.hiatus import SacralCanal
from leakloc.localization.path import back_of_canal, posterior_path
from leakloc.localization.result import (
    Crossing,
    ExpectedHiatus,
    InterlaminarWindow,
    LengthMark,
    Planning,
    SacralHiatus,
    Target,
)
from leakloc.localization.sac import SacProfile
from leakloc.localization.surroundings import Surroundings

_WINDOW_BELOW_DISC_MM: Final = 5.0
"""Distance of lumbar interlaminar windows below their disc; they lie at the disc or 5 to 10 mm
below it."""

_MAX_BEYOND_TRACE_MM: Final = 15.0
"""Maximum distance of S4 below the traced canal at which distances are measured from S4, if the
hiatus was not detected: one sacral segment."""

_MAX_WINDOW_DISTANCE_MM: Final = 60.0
"""Maximum distance from the level of reported interlaminar windows: under two lumbar levels."""

_MAX_WINDOWS: Final = 3
"""Maximum number of interlaminar windows reported."""


def plan(
    placed: tuple[Placed, ...],
    sac: SacProfile,
    sac_end_mm: float | None,
    traced_mm: float,
    coordinate: LevelCoordinate,
    sacral: SacralCanal | None,
    surroundings: Surroundings,
) -> tuple[Planning, tuple[Note, ...]]:
    """Determine the hiatus, and the path and distances to each collection.

    Parameters
    ----------
    sac_end_mm : float or None
        Caudal end of the sac along the centerline.
    traced_mm : float
        Caudal end of the traced canal along the centerline.
    sacral : SacralCanal or None
        The sacral canal, if detected.
    surroundings : Surroundings
        Anatomy adjacent to the path.

    Returns
    -------
    planning : Planning
    notes : tuple of Note
        ``hiatus_not_visible``, ``hiatus_from_levels``, ``path_implausible``, ``cyst_on_path``.
    """
    expected = hiatus_mm = range_mm = back = None
    if sacral is not None:
        hiatus_mm = float(sac.centerline.project(sacral.apex_lps)[0])
        at_mm, _, dorsal_mm = sac.centerline.project(sacral.back_lps)
        back = np.stack([at_mm, dorsal_mm])
    elif found := _expected_arcs(coordinate, traced_mm):
        hiatus_mm, *range_mm = found
        s4, cranial, caudal = (sac.centerline.at(arc_mm) for arc_mm in found)
        expected = ExpectedHiatus(
            level="S4", lps_mm=s4, cranial_lps_mm=cranial, caudal_lps_mm=caudal
        )
    lowest_mm = traced_mm if hiatus_mm is None else hiatus_mm
    notes = []
    if expected is not None:
        notes.append(note("hiatus_from_levels"))
    if hiatus_mm is None:
        notes.append(note("hiatus_not_visible"))
    targets = tuple(
        _target(p, lowest_mm, hiatus_mm, range_mm, back, sac, coordinate, surroundings)
        for p in placed
    )
    path = range_paths = None
    marks: tuple[LengthMark, ...] = ()
    if hiatus_mm is not None and coordinate.is_labeled:
        top_mm = float(coordinate.knots_arc_mm[0])
        path = posterior_path(top_mm, hiatus_mm, back, sac)
        if range_mm is not None:
            upper, lower = (posterior_path(top_mm, mm, None, sac) for mm in range_mm)
            range_paths = upper, lower
        notes.extend(implausible_length(path, coordinate))
        marks = length_marks(path, coordinate, surroundings)
    tip_mm = None
    if hiatus_mm is not None and sac_end_mm is not None and sac_end_mm < hiatus_mm:
        below_sac = posterior_path(sac_end_mm, hiatus_mm, back, sac)
        tip_mm = below_sac.length_at(sac_end_mm)
        cysts = surroundings.cysts_along(below_sac, coordinate, is_from_hiatus=True)
        if cysts:
            variant = "one" if len(cysts) == 1 else "several"
            notes.append(note("cyst_on_path", variant, count=len(cysts)))
    hiatus = SacralHiatus(
        visible=sacral is not None,
        lps_mm=None if sacral is None else sacral.apex_lps,
        confidence=0.0 if sacral is None else sacral.confidence,
        expected=expected,
    )
    planning = Planning(
        sacral_hiatus=hiatus,
        targets=targets,
        length_marks=marks,
        sac_tip_to_hiatus_mm=tip_mm,
        caudal_access=caudal_access(path, range_paths, sacral, coordinate, surroundings),
    )
    return planning, tuple(notes)


def _expected_arcs(
    coordinate: LevelCoordinate, traced_mm: float
) -> tuple[float, float, float] | None:
    """Return arcs of S4, the middle of S3 and the end of S5, if S4 is in the field of view."""
    if not coordinate.is_labeled or "S3" not in coordinate.chain:
        return None
    s3 = coordinate.chain.index("S3")
    s4_mm, cranial_mm = (float(a) for a in coordinate.arc_at([s3 + 1.0, float(s3)]))
    if not s4_mm <= traced_mm + _MAX_BEYOND_TRACE_MM:
        return None
    return s4_mm, cranial_mm, s4_mm + 1.5 * (s4_mm - cranial_mm)


def _lengths_from(range_mm: list[float], target_mm: float, sac: SacProfile) -> tuple[float, float]:
    """Return path lengths to a level from the cranial and the caudal end of a range."""
    cranial, caudal = (
        posterior_path(target_mm, start_mm, None, sac).length_at(target_mm) for start_mm in range_mm
    )
    return cranial, caudal


def _target(
    placed: Placed,
    lowest_mm: float,
    hiatus_mm: float | None,
    range_mm: list[float] | None,
    back: FloatArray | None,
    sac: SacProfile,
    coordinate: LevelCoordinate,
    surroundings: Surroundings,
) -> Target:
    """Return the path to the disc of the collection's level, or to its largest cross-section."""
    collection = placed.collection
    disc_mm = coordinate.disc_arc(collection.level) if collection.level else None
    target_mm = placed.peak_mm if disc_mm is None else disc_mm
    path = posterior_path(target_mm, lowest_mm, back, sac)
    to_target = to_cranial = to_caudal = None
    crossings = []
    if hiatus_mm is not None:
        whole = posterior_path(min(target_mm, placed.start_mm), hiatus_mm, back, sac)
        to_target = path.length_at(target_mm)
        to_cranial = whole.length_at(placed.start_mm)
        to_caudal = whole.length_at(placed.stop_mm)
        for name, _, _ in reversed(coordinate.segments()):
            passed_mm = coordinate.disc_arc(name)
            if passed_mm is not None and target_mm <= passed_mm <= hiatus_mm:
                passed = path.length_at(passed_mm)
                crossings.append(Crossing(disc=name, distance_from_hiatus_mm=passed))
    return Target(
        collection=collection.id,
        level=collection.level,
        canal_distance_from_hiatus_mm=to_target,
        distance_to_caudal_end_mm=to_caudal,
        distance_to_cranial_end_mm=to_cranial,
        path_lps_mm=tuple(path.points_lps),
        nearest_interlaminar=coordinate.nearest_interlaminar(target_mm, _WINDOW_BELOW_DISC_MM),
        crossings=tuple(crossings),
        canal_distance_range_mm=None
        if range_mm is None
        else _lengths_from(range_mm, target_mm, sac),
        interlaminar=_windows(target_mm, sac, coordinate, surroundings),
        narrowest_posterior_depth=surroundings.narrowest_depth(target_mm, lowest_mm, coordinate),
        cysts=surroundings.cysts_along(path, coordinate, is_from_hiatus=hiatus_mm is not None),
    )


def _windows(
    target_mm: float,
    sac: SacProfile,
    coordinate: LevelCoordinate,
    surroundings: Surroundings,
) -> tuple[InterlaminarWindow, ...]:
    """Return the interlaminar windows near a position, nearest first."""
    found = []
    for name, _, _ in coordinate.segments():
        disc_mm = coordinate.disc_arc(name)
        upper = name.split("-")[0]
        if disc_mm is None or upper in SACRAL:
            continue
        below_mm = _WINDOW_BELOW_DISC_MM if upper.startswith("L") else 0.0
        window_mm = disc_mm + below_mm
        if abs(window_mm - target_mm) > _MAX_WINDOW_DISTANCE_MM:
            continue
        offset = back_of_canal(np.array([window_mm]), None, sac)
        _, _, dorsal = sac.centerline.frame_at(window_mm)
        point = sac.centerline.at(window_mm) + offset[0] * dorsal
        window = InterlaminarWindow(
            segment=name,
            along_canal_mm=target_mm - window_mm,
            skin_to_canal_mm=surroundings.skin_depth_mm(point, dorsal),
        )
        found.append((abs(target_mm - window_mm), window))
    found.sort(key=itemgetter(0))
    return tuple(window for _, window in found[:_MAX_WINDOWS])
