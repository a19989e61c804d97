"""The way from the sacral hiatus along the posterior epidural space to each collection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leakloc.centerline import Centerline
from leakloc.levels.result import Levels
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import (
    LevelCrossing,
    LocatedCollection,
    Planning,
    PlanningTarget,
    SacralHiatus,
)
from leakloc.localization.sac import SacProfile
from leakloc.notes import Note
from leakloc.settings import LocalizationSettings
from leakloc.vocabulary import SACRAL
from leakloc.volume import FloatArray, Geometry

_MEAN_PATH_MM = {
    "L5-S1": 82.0, "L4-L5": 115.0, "L3-L4": 150.0, "L2-L3": 186.0, "L1-L2": 221.0,
    "T12-L1": 254.0, "T11-T12": 285.5, "T10-T11": 317.0, "T9-T10": 346.0, "T8-T9": 372.5,
    "T7-T8": 399.5, "T6-T7": 426.0, "T5-T6": 451.5, "T4-T5": 477.0, "T3-T4": 501.5,
    "T2-T3": 524.5, "T1-T2": 547.5, "C7-T1": 569.0,
}  # fmt: skip
"""Mean distance from the hiatus along the back of the canal to each disc, mm: a chain of
posterior wall heights that agrees with hiatus to conus, 232 ± 22 mm, measured on MRI in 200
adults (Park 2016)."""

_PITCH_MM = {
    "T11": 31.5, "T12": 31.5, "L1": 33.5, "L2": 35.5, "L3": 36.0, "L4": 35.5, "L5": 32.5,
    "S1": 30.0, "S2": 25.0, "S3": 20.0, "S4": 17.0, "S5": 15.0,
}  # fmt: skip
"""Mean height of a vertebra and the disc below it along the canal, mm (adults)."""


@dataclass(frozen=True, eq=False)
class _Path:
    """The posterior epidural line.

    Parameters
    ----------
    arc_mm : ndarray, shape (n,)
        Distance along the centreline, from the lowest point upwards (falling).
    points_lps : ndarray, shape (n, 3)
    length_mm : ndarray, shape (n,)
        Distance along the line from its lowest point.
    """

    arc_mm: FloatArray
    points_lps: FloatArray
    length_mm: FloatArray

    def length_at(self, arc_mm: float) -> float:
        """Distance from the lowest point to a level of the canal; 0 below it."""
        return float(np.interp(arc_mm, self.arc_mm[::-1], self.length_mm[::-1]))


def plan(
    collections: tuple[LocatedCollection, ...],
    target_arcs_mm: dict[int, tuple[float, float, float]],
    sac: SacProfile,
    sac_end_mm: float | None,
    traced_mm: float,
    coordinate: LevelCoordinate,
    levels: Levels,
    geometry: Geometry,
    settings: LocalizationSettings,
) -> tuple[Planning, tuple[Note, ...]]:
    """Hiatus, paths and distances.

    Parameters
    ----------
    target_arcs_mm : dict
        By collection id: where its largest cross-section, cranial and caudal end lie along
        the centreline.
    sac_end_mm : float or None
        Where the sac ends along the centreline.
    traced_mm : float
        Where along the centreline the canal was last seen.

    Returns
    -------
    planning : Planning
    notes : tuple of Note
        ``hiatus_not_visible``, ``path_implausible``.
    """
    hiatus_mm, hiatus = find_hiatus(
        coordinate, levels, sac.centerline, traced_mm, geometry, settings
    )
    lowest_mm = traced_mm if hiatus_mm is None else hiatus_mm
    notes = []
    if hiatus_mm is None:
        notes.append(
            Note(
                "hiatus_not_visible",
                "The sacral hiatus is not in the field or could not be placed; "
                "distances from it are not given.",
            )
        )
    targets = []
    for collection in collections:
        arcs_mm = target_arcs_mm[collection.id]
        targets.append(
            _target(collection, arcs_mm, lowest_mm, hiatus_mm, sac, coordinate, settings)
        )
    if hiatus_mm is not None and coordinate.labelled:
        notes.extend(_plausibility(hiatus_mm, sac, coordinate, settings))
    tip_mm = None
    if hiatus_mm is not None and sac_end_mm is not None and sac_end_mm < hiatus_mm:
        tip_mm = posterior_path(sac_end_mm, hiatus_mm, hiatus_mm, sac, settings).length_at(
            sac_end_mm
        )
    return Planning(hiatus, tuple(targets), tip_mm), tuple(notes)


def find_hiatus(
    coordinate: LevelCoordinate,
    levels: Levels,
    centerline: Centerline,
    traced_mm: float,
    geometry: Geometry,
    settings: LocalizationSettings,
) -> tuple[float | None, SacralHiatus]:
    """Where the sacral canal opens to the back, estimated from the named levels.

    The opening itself hardly shows on myelographic images; it is placed where it lies in most
    people (at S4), with a confidence that falls the further the named levels and the traced
    canal end above it.

    Parameters
    ----------
    traced_mm : float
        Where along the centreline the canal was last seen; beyond, it is extrapolated.

    Returns
    -------
    arc_mm : float or None
        Distance along the centreline; None where the hiatus cannot be placed.
    hiatus : SacralHiatus
    """
    nowhere = None, SacralHiatus(False, None, 0.0)
    if not coordinate.labelled or settings.hiatus_level not in coordinate.chain:
        return nowhere
    arc_mm, guessed_mm = _sacral_arc(settings.hiatus_level, coordinate)
    beyond_mm = max(arc_mm - traced_mm, 0.0)
    if guessed_mm > settings.hiatus_reach_mm or beyond_mm > settings.hiatus_beyond_trace_mm:
        return nowhere
    _, _, dorsal = centerline.frame_at(arc_mm)
    point = centerline.at(arc_mm) + settings.hiatus_dorsal_mm * dorsal
    opening = centerline.at(arc_mm + settings.hiatus_margin_mm)
    if not bool(geometry.contains(point) & geometry.contains(opening)):
        return nowhere
    trust = min((v.confidence for v in levels.vertebrae if v.name in SACRAL), default=0.5)
    far = max(
        guessed_mm / max(settings.hiatus_reach_mm, 1e-6),
        beyond_mm / max(settings.hiatus_beyond_trace_mm, 1e-6),
    )
    confidence = settings.hiatus_prior * trust * (1.0 - 0.5 * far)
    return arc_mm, SacralHiatus(True, point, float(np.clip(confidence, 0.0, 1.0)))


def _sacral_arc(vertebra: str, coordinate: LevelCoordinate) -> tuple[float, float]:
    """Where a vertebra's middle lies along the centreline, and how much of that is guessed.

    Below the last named level it goes on with the mean heights of sacral segments, scaled to
    this patient's own last levels.
    """
    wanted = float(coordinate.chain.index(vertebra))
    last = float(coordinate.knots_level[-1])
    if wanted <= last:
        return float(coordinate.arc_at(wanted)), 0.0
    known_from = max(last - 3.0, float(coordinate.knots_level[0]))
    mean_mm = _mean_distance_mm(known_from, last, coordinate.chain)
    own_mm = float(coordinate.knots_arc_mm[-1] - coordinate.arc_at(known_from))
    scale = float(np.clip(own_mm / mean_mm, 0.75, 1.33)) if mean_mm > 0 else 1.0
    guessed_mm = scale * _mean_distance_mm(last, wanted, coordinate.chain)
    return float(coordinate.knots_arc_mm[-1]) + guessed_mm, guessed_mm


def _mean_distance_mm(first: float, last: float, chain: tuple[str, ...]) -> float:
    """Mean distance between two levels along the canal."""
    # Half levels are discs: the pitch of vertebra n reaches from n - 1/2 to n + 1/2.
    edges = np.arange(len(chain) + 1) - 0.5
    pitches = [_PITCH_MM.get(name, 25.0) for name in chain]
    along = np.concatenate([[0.0], np.cumsum(pitches)])
    return float(np.interp(last, edges, along) - np.interp(first, edges, along))


def posterior_path(
    top_mm: float,
    bottom_mm: float,
    hiatus_mm: float | None,
    sac: SacProfile,
    settings: LocalizationSettings,
) -> _Path:
    """The line behind the sac, and behind the canal's middle below the sac's end.

    Parameters
    ----------
    top_mm, bottom_mm : float
        Its ends, as distances along the centreline.
    hiatus_mm : float or None
        Where the line meets the back wall of the sacral canal.
    """
    from scipy.ndimage import gaussian_filter1d

    top_mm = min(top_mm, bottom_mm)
    count = max(int(np.ceil((bottom_mm - top_mm) / settings.path_step_mm)) + 1, 2)
    arc = np.linspace(bottom_mm, top_mm, count)
    margin = int(3 * settings.path_smoothing_mm / settings.path_step_mm) + 1
    step = (bottom_mm - top_mm) / (count - 1) or settings.path_step_mm
    wide = np.asarray(bottom_mm + step * (margin - np.arange(count + 2 * margin)), np.float64)
    offset = _back_of_canal(wide, hiatus_mm, sac, settings)
    offset = gaussian_filter1d(offset, settings.path_smoothing_mm / step, mode="nearest")
    offset = offset[margin : margin + count]
    _, _, dorsal = sac.centerline.frame_at(arc)
    points = sac.centerline.at(arc) + offset[:, None] * dorsal
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return _Path(arc, points, np.concatenate([[0.0], np.cumsum(steps)]))


def _back_of_canal(
    arc_mm: FloatArray,
    hiatus_mm: float | None,
    sac: SacProfile,
    settings: LocalizationSettings,
) -> FloatArray:
    """Dorsal offset of the posterior epidural space, mm; constant beyond what is known."""
    behind_sac = sac.back_mm + settings.posterior_epidural_mm
    known = np.isfinite(behind_sac)
    if sac.ends_mm is not None:  # where the sac tapers, the back of the canal does not follow
        known &= sac.grid.centers_mm <= sac.ends_mm[1] - settings.sac_taper_mm
    if hiatus_mm is not None:
        known &= sac.grid.centers_mm < hiatus_mm
    at, back = sac.grid.centers_mm[known], behind_sac[known]
    if hiatus_mm is not None:
        at, back = np.append(at, hiatus_mm), np.append(back, settings.hiatus_dorsal_mm)
    if len(at):
        offset = np.interp(arc_mm, at, back)
    else:
        offset = np.full(arc_mm.shape, settings.hiatus_dorsal_mm)
    here = behind_sac[sac.grid.bin_of(arc_mm)]
    inside = (arc_mm >= sac.grid.centers_mm[0]) & (arc_mm <= sac.grid.centers_mm[-1])
    # ... but the line never runs through the sac.
    offset = np.fmax(offset, np.where(inside, here, np.nan))
    return np.asarray(offset, dtype=np.float64)


def _target(
    collection: LocatedCollection,
    arcs_mm: tuple[float, float, float],
    lowest_mm: float,
    hiatus_mm: float | None,
    sac: SacProfile,
    coordinate: LevelCoordinate,
    settings: LocalizationSettings,
) -> PlanningTarget:
    """The way to the disc of the collection's level, or to its largest section without one."""
    peak_mm, cranial_mm, caudal_mm = arcs_mm
    disc_mm = coordinate.disc_arc(collection.level) if collection.level else None
    target_mm = peak_mm if disc_mm is None else disc_mm
    path = posterior_path(target_mm, lowest_mm, hiatus_mm, sac, settings)
    to_target = to_cranial = to_caudal = None
    crossings = []
    if hiatus_mm is not None:
        whole = posterior_path(min(target_mm, cranial_mm), hiatus_mm, hiatus_mm, sac, settings)
        to_target = path.length_at(target_mm)
        to_cranial = whole.length_at(cranial_mm)
        to_caudal = whole.length_at(caudal_mm)
        for name, _, _ in reversed(coordinate.segments()):
            passed_mm = coordinate.disc_arc(name)
            if passed_mm is not None and target_mm <= passed_mm <= hiatus_mm:
                crossings.append(LevelCrossing(name, path.length_at(passed_mm)))
    return PlanningTarget(
        collection=collection.id,
        level=collection.level,
        canal_distance_from_hiatus_mm=to_target,
        distance_to_caudal_end_mm=to_caudal,
        distance_to_cranial_end_mm=to_cranial,
        path_lps=path.points_lps,
        nearest_interlaminar=coordinate.nearest_interlaminar(
            target_mm, settings.interlaminar_below_disc_mm
        ),
        crossings=tuple(crossings),
    )


def _plausibility(
    hiatus_mm: float,
    sac: SacProfile,
    coordinate: LevelCoordinate,
    settings: LocalizationSettings,
) -> list[Note]:
    """Compare this patient's distances with those of other people, worst level first."""
    top_mm = float(coordinate.knots_arc_mm[0])
    if top_mm >= hiatus_mm:
        return []
    path = posterior_path(top_mm, hiatus_mm, hiatus_mm, sac, settings)
    worst: tuple[float, str, float, float] | None = None
    for name, mean_mm in _MEAN_PATH_MM.items():
        disc_mm = coordinate.disc_arc(name)
        if disc_mm is None or not top_mm <= disc_mm <= hiatus_mm:
            continue
        length_mm = path.length_at(disc_mm)
        sd_mm = float(np.hypot(settings.path_sd_share * mean_mm, settings.path_sd_mm))
        away = abs(length_mm - mean_mm) / sd_mm
        if worst is None or away > worst[0]:
            worst = away, name, length_mm, mean_mm
    if worst is None or worst[0] <= settings.path_max_sd:
        return []
    _, name, length_mm, mean_mm = worst
    return [
        Note(
            "path_implausible",
            f"From the sacral hiatus to {name} the canal measures {length_mm:.0f} mm, where "
            f"{mean_mm:.0f} mm is usual: the numbering of the levels or the place of the hiatus "
            "is suspect.",
        )
    ]
