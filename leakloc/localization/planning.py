"""Path from the sacral hiatus along the posterior epidural space to each collection."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.vocabulary import SACRAL, segment_name
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray
from leakloc.localization.collections import Placed
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.hiatus import SacralCanal
from leakloc.localization.result import (
    Crossing,
    ExpectedHiatus,
    InterlaminarWindow,
    LengthMark,
    Planning,
    SacralHiatus,
    Target,
)
from leakloc.localization.sac import SAC_TAPER_MM, SacProfile
from leakloc.localization.surroundings import Surroundings

_MEAN_PATH_MM = (
    82.0, 115.0, 150.0, 186.0, 221.0, 254.0, 285.5, 317.0, 346.0, 372.5, 399.5, 426.0, 451.5, 477.0,
    501.5, 524.5, 547.5, 569.0,
)  # fmt: skip
"""Mean distance from the hiatus along the posterior canal to each disc from the lumbosacral disc up
to C7-T1, mm, for any number of lumbar vertebrae. Sum of posterior wall heights; agrees with hiatus
to conus, 232 ± 22 mm, measured on MRI in 200 adults (Park 2016)."""

_WINDOW_BELOW_DISC_MM: Final = 5.0
"""Distance of lumbar interlaminar windows below their disc; they lie at the disc or 5 to 10 mm
below it."""

_MAX_BEYOND_TRACE_MM: Final = 15.0
"""Maximum distance of S4 below the traced canal at which distances are measured from S4, if the
hiatus was not detected: one sacral segment."""

_POSTERIOR_EPIDURAL_MM: Final = 1.0
"""Distance of the path from the posterior border of the sac: just outside the dura, where the
posterior epidural space is open even between its fat pads."""

_DEFAULT_DORSAL_MM: Final = 2.5
"""Distance of the path from the canal center where neither sac nor sacral canal was detected."""

_MAX_WINDOW_DISTANCE_MM: Final = 60.0
"""Maximum distance from the level of reported interlaminar windows: under two lumbar levels."""

_MAX_WINDOWS: Final = 3
"""Maximum number of interlaminar windows reported."""

_PATH_STEP_MM: Final = 2.0
"""Distance between points of a path."""

_MARK_STEP_MM: Final = 10.0
"""Distance between length marks; catheters have marks every 10 mm."""

_PATH_SMOOTHING_MM: Final = 8.0
"""Gaussian sigma of the path's distance from the centerline; a catheter does not follow every
concavity of the sac."""

_PATH_SD_FRACTION: Final = 0.10
"""Standard deviation of path lengths between people, as a fraction of the length."""

_PATH_SD_MM: Final = 8.0
"""Additional standard deviation in mm, added in quadrature."""

_MAX_PATH_SD: Final = 3.0
"""Paths that deviate by more than this many standard deviations from the mean are reported as
implausible."""


@dataclass(frozen=True, eq=False)
class _Path:
    """The posterior epidural line.

    Parameters
    ----------
    arc_mm : ndarray, shape (n,)
        Distance along the centerline, starting at the lowest point (decreasing).
    points_lps : ndarray, shape (n, 3)
    length_mm : ndarray, shape (n,)
        Distance along the path from its lowest point.
    """

    arc_mm: FloatArray
    points_lps: FloatArray
    length_mm: FloatArray

    def length_at(self, arc_mm: float) -> float:
        """Return the path length from the lowest point to `arc_mm`; 0 caudal to it."""
        return float(np.interp(arc_mm, self.arc_mm[::-1], self.length_mm[::-1]))


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
    if hiatus_mm is not None and coordinate.is_labeled:
        notes.extend(_plausibility(hiatus_mm, back, sac, coordinate))
    marks: tuple[LengthMark, ...] = ()
    if hiatus_mm is not None and coordinate.is_labeled:
        marks = _length_marks(hiatus_mm, back, sac, coordinate, surroundings)
    tip_mm = None
    if hiatus_mm is not None and sac_end_mm is not None and sac_end_mm < hiatus_mm:
        tip_mm = posterior_path(sac_end_mm, hiatus_mm, back, sac).length_at(sac_end_mm)
        cysts = surroundings.cysts_between(sac_end_mm, hiatus_mm)
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
        sacral_hiatus=hiatus, targets=targets, length_marks=marks, sac_tip_to_hiatus_mm=tip_mm
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


def posterior_path(
    top_mm: float,
    bottom_mm: float,
    back: FloatArray | None,
    sac: SacProfile,
) -> _Path:
    """Return the path posterior to the sac and, below it, along the posterior sacral canal.

    Parameters
    ----------
    top_mm, bottom_mm : float
        Ends of the path, as distances along the centerline.
    back : ndarray, shape (2, n), or None
        Distance along the centerline and dorsal offset of the posterior epidural line of the
        sacral canal, if detected.
    """
    top_mm = min(top_mm, bottom_mm)
    count = max(int(np.ceil((bottom_mm - top_mm) / _PATH_STEP_MM)) + 1, 2)
    arc = np.linspace(bottom_mm, top_mm, count)
    margin = int(3 * _PATH_SMOOTHING_MM / _PATH_STEP_MM) + 1
    step = (bottom_mm - top_mm) / (count - 1) or _PATH_STEP_MM
    wide = np.asarray(bottom_mm + step * (margin - np.arange(count + 2 * margin)), np.float64)
    offset = _back_of_canal(wide, back, sac)
    offset = gaussian_filter1d(offset, _PATH_SMOOTHING_MM / step, mode="nearest")
    offset = offset[margin : margin + count]
    _, _, dorsal = sac.centerline.frame_at(arc)
    points = sac.centerline.at(arc) + offset[:, None] * dorsal
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return _Path(arc, points, np.concatenate([[0.0], np.cumsum(steps)]))


def _back_of_canal(
    arc_mm: FloatArray,
    back: FloatArray | None,
    sac: SacProfile,
) -> FloatArray:
    """Return the dorsal offset of the posterior epidural space, mm; constant where unknown."""
    behind_sac = sac.back_mm + _POSTERIOR_EPIDURAL_MM
    known = np.isfinite(behind_sac)
    if sac.ends_mm is not None:  # the posterior canal does not taper with the sac
        known &= sac.grid.centers_mm <= sac.ends_mm[1] - SAC_TAPER_MM
    at, offsets = sac.grid.centers_mm[known], behind_sac[known]
    if back is not None:
        detected = back[:, back[0] > (at[-1] if len(at) else -np.inf)]
        order = np.argsort(detected[0])
        at, offsets = np.append(at, detected[0, order]), np.append(offsets, detected[1, order])
    if len(at):
        offset = np.interp(arc_mm, at, offsets)
    else:
        offset = np.full(arc_mm.shape, _DEFAULT_DORSAL_MM)
    here = behind_sac[sac.grid.bin_of(arc_mm)]
    inside = (arc_mm >= sac.grid.centers_mm[0]) & (arc_mm <= sac.grid.centers_mm[-1])
    # The path never crosses the sac.
    offset = np.fmax(offset, np.where(inside, here, np.nan))
    return np.asarray(offset, dtype=np.float64)


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
        cysts=surroundings.cysts_between(target_mm, lowest_mm),
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
        offset = _back_of_canal(np.array([window_mm]), None, sac)
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


def _length_marks(
    hiatus_mm: float,
    back: FloatArray | None,
    sac: SacProfile,
    coordinate: LevelCoordinate,
    surroundings: Surroundings,
) -> tuple[LengthMark, ...]:
    """Return the level reached at every 10 mm along the path, up to the most cranial disc."""
    path = posterior_path(float(coordinate.knots_arc_mm[0]), hiatus_mm, back, sac)
    marks = []
    for length_mm in np.arange(_MARK_STEP_MM, path.length_mm[-1], _MARK_STEP_MM):
        arc_mm = float(np.interp(length_mm, path.length_mm, path.arc_mm))
        segment = coordinate.segment_at(arc_mm)
        if segment is None:
            continue
        marks.append(
            LengthMark(
                distance_from_hiatus_mm=length_mm,
                segment=segment,
                description=coordinate.describe(arc_mm),
                posterior_depth_mm=surroundings.depth_at(arc_mm),
            )
        )
    return tuple(marks)


def _plausibility(
    hiatus_mm: float,
    back: FloatArray | None,
    sac: SacProfile,
    coordinate: LevelCoordinate,
) -> list[Note]:
    """Compare path lengths with population means; report the level of largest deviation."""
    top_mm = float(coordinate.knots_arc_mm[0])
    if top_mm >= hiatus_mm:
        return []
    path = posterior_path(top_mm, hiatus_mm, back, sac)
    worst: tuple[float, str, float, float] | None = None
    presacral = coordinate.chain[: coordinate.chain.index("S1") + 1][::-1]
    discs = (segment_name(upper, lower) for lower, upper in pairwise(presacral))
    for name, mean_mm in zip(discs, _MEAN_PATH_MM, strict=False):
        disc_mm = coordinate.disc_arc(name)
        if disc_mm is None or not top_mm <= disc_mm <= hiatus_mm:
            continue
        length_mm = path.length_at(disc_mm)
        sd_mm = float(np.hypot(_PATH_SD_FRACTION * mean_mm, _PATH_SD_MM))
        away = abs(length_mm - mean_mm) / sd_mm
        if worst is None or away > worst[0]:
            worst = away, name, length_mm, mean_mm
    if worst is None or worst[0] <= _MAX_PATH_SD:
        return []
    _, name, length_mm, mean_mm = worst
    return [note("path_implausible", disc=name, length_mm=length_mm, mean_mm=mean_mm)]
