"""Labeling stage: positions and names of discs and vertebrae, with confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.extension import extend_centerline
from leakloc.anatomy.reference import reference_chain
from leakloc.anatomy.vocabulary import LevelStatus, NumberingMethod, Role, split_segment
from leakloc.core.errors import AnalysisError, LeaklocError, SettingsError
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.levels import profile
from leakloc.levels.bodies import bodies_between, is_sacral, level_mask, sacral_bodies
from leakloc.levels.conus import Conus, conus_arc_mm
from leakloc.levels.detection import DetectedDisc, Detections, Detector
from leakloc.levels.numbering import (
    Assignment,
    Candidate,
    Solution,
    best_of,
    conus_offset,
    disc_at_cord_end,
    lumbar_count_probabilities,
    solve,
)
from leakloc.levels.result import AlternativeNumbering, Disc, Levels, Numbering
from leakloc.levels.sacrum import SacralAxis, trace_sacrum
from leakloc.levels.transition import sacral_fraction, transitional_signs

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.segmentation.result import Segmentation

_PREFERENCE: Final[tuple[Role, ...]] = ("sagittal_t2", "sagittal_stir", "sagittal_t1")
"""Companion series, by decreasing contrast between discs and vertebral bodies."""
_MAX_LATERAL_MM: Final = 30.0
"""Maximum lateral distance of a disc center from the plane of the canal."""
_MAX_POSTERIOR_MM: Final = 0.0
"""Maximum distance of a disc center posterior to the canal center."""
_MAX_ANTERIOR_MM: Final = 60.0
"""Maximum distance of a disc center anterior to the canal center (typically 25 to 40 mm)."""
_SAME_DISC_MM: Final = 9.0
"""Candidates closer than this are the same disc; the minimum pitch is 15 mm."""
_SEAM_MM: Final = 12.0
"""A disc on the localizer closer than this to one on another volume is the same disc: the patient
may have moved by a few millimeters, and the minimum pitch is 15 mm."""
_LEVEL_MM: Final = 45.0
"""Maximum height of a level."""
_EXTRA_FIELD_MM: Final = 25.0
"""The myelogram is also searched if it covers this much more of the spine: one level."""
_ADJACENT_MM: Final = (9.0, 12.0, 15.0)
"""Distances from a disc center along its normal at which adjacent bone is sampled."""
_ALONG: Final = 0.8
"""The direction from a disc to the next is within 37 degrees of its normal."""
_BONE: Final = 0.5
"""Minimum probability of bone."""
_MARCH_MM: Final = 3.0
_MAX_LENGTH_MM: Final = 900.0
"""Step and maximum length when following the field of view along the spine."""
_SACRUM_MM: Final = 25.0
"""With less of the sacrum in the field of view (S1 is 30 mm high) the lumbosacral disc is
uncertain: of 24 volumes cropped through L5, 19 were named one level too low."""
_CONUS_NEAR_LEVELS: Final = 0.5
"""Maximum distance of a usual conus from its mean position; includes two thirds of people."""
_CONUS_FAR_LEVELS: Final = 1.8
"""Beyond this distance (range T12 to L3) the detected structure is not the conus."""
_MIN_ODDS: Final = 0.05
"""Minimum odds reported for each adjacent numbering, whatever the evidence."""
_COMPETITOR_SCORE: Final = 0.6
"""Minimum score of a candidate skipped by the count from C2 that may be a missed disc."""
_USUAL_COMPETITORS: Final = 1
"""Above C2-C3 the base of the dens or of the skull is often detected as one disc."""
_MAX_COMPETITORS: Final = 3
"""More competing candidates do not lower the confidence further: the count is unusable."""
_COMPETITOR_FACTOR: Final = 0.6
"""Factor on the confidence per competing candidate; with two or more, half of counts were wrong."""
_TRANSITIONAL_FACTOR: Final = 0.7
"""Factor on the confidence when counting from a junction with transitional signs."""
_COUNT_WORDS: Final = {4: "four", 5: "five", 6: "six"}
_MIN_CHAIN: Final = 2
"""Minimum number of discs for numbering."""


@dataclass(frozen=True)
class SpineDetection:
    """Detected discs, conus and sacrum before numbering by `assign_levels`.

    Parameters
    ----------
    detections : tuple of Detections
        One for each volume searched.
    candidates : tuple of Candidate
        Possible discs, cranial to caudal.
    fields : tuple of Geometry
        Grids of the volumes searched; the last is that of the myelogram.
    notes : tuple of Note
    conus : Conus or None
        Tip of the conus medullaris; None if not detected.
    localizer : Geometry or None
        Grid of the low-resolution series on which discs above all other fields were detected.
    sacrum : SacralAxis or None
        Sacrum traced in the volume in which discs were detected.
    """

    detections: tuple[Detections, ...]
    candidates: tuple[Candidate, ...]
    fields: tuple[Geometry, ...]
    notes: tuple[Note, ...]
    conus: Conus | None = None
    localizer: Geometry | None = None
    sacrum: SacralAxis | None = None


def label(
    myelogram: Volume,
    companions: Mapping[Role, Volume],
    segmentation: Segmentation,
    settings: LevelSettings,
    detector: Detector | None = None,
) -> Levels:
    """Detect and name discs and vertebrae (a `leakloc.levels.result.Labeler`).

    Discs are detected on the best sagittal companion series, and on the myelogram if it covers
    more of the spine or there is no companion. Levels are counted down from C2 if visible, else
    up from the sacrum, assuming five lumbar vertebrae, unless the settings specify otherwise.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    segmentation : Segmentation
        Its centerline locates the spine.
    settings : LevelSettings
    detector : Detector, optional
        Disc detector; by default the one named in `settings.detector`.

    Returns
    -------
    Levels
        With status ``"unlabelled"`` if no level can be named.

    Raises
    ------
    SettingsError
        If the user-supplied anchor is malformed or matches no disc.
    """
    detection = detect_spine(myelogram, companions, segmentation, settings, detector)
    return assign_levels(detection, settings)


def detect_spine(
    myelogram: Volume,
    companions: Mapping[Role, Volume],
    segmentation: Segmentation,
    settings: LevelSettings,
    detector: Detector | None = None,
) -> SpineDetection:
    """Detect discs, conus and sacrum: the slow part of `label`, which needs the images.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    segmentation : Segmentation
    settings : LevelSettings
        Names supplied by the user (anchor, lumbar count) are not used here.
    detector : Detector, optional
        As in `label`.
    """
    volumes, notes = _volumes(myelogram, companions)
    detected = _search(
        volumes,
        myelogram,
        companions.get("localizer"),
        segmentation.centerline,
        settings,
        detector or _detector(settings),
    )
    conus = _conus(segmentation, detected.candidates)
    return replace(detected, notes=(*notes, *detected.notes), conus=conus)


def assign_levels(detection: SpineDetection, settings: LevelSettings) -> Levels:
    """Name the detected discs: the fast part of `label`, which applies names set by the user.

    Parameters
    ----------
    detection : SpineDetection
        From `detect_spine`.
    settings : LevelSettings

    Returns
    -------
    Levels
        As in `label`; `Levels.seen` holds `detection`.

    Raises
    ------
    SettingsError
        If the user-supplied anchor is malformed or matches no disc.
    """
    notes, geometry, conus = detection.notes, detection.fields[-1], detection.conus
    chosen = _choose(detection.candidates, settings, conus)
    if chosen is None:
        return _unlabelled(geometry, notes, detection)
    assignment, method, counts = chosen
    discs = _fill_gaps(detection.candidates, assignment)
    numbering = _numbering(detection.candidates, assignment, method, counts, settings, conus)
    presacral = [d for d in discs if not is_sacral(d.name)]
    if len(presacral) < _MIN_CHAIN:
        return _unlabelled(geometry, notes, detection)
    bodies = bodies_between(
        presacral, assignment.chain, assignment.scale, detection.detections, detection.fields
    )
    if assignment.has_junction:
        remnants = {d.name: d for d in discs if is_sacral(d.name)}
        bodies = [body for body in bodies if not body.name.startswith("S")]
        sacral, below = sacral_bodies(
            presacral[-1], remnants, assignment.scale, detection.sacrum, detection.fields
        )
        bodies, discs = [*bodies, *sacral], [*presacral, *below]
    names = {body.name for body in bodies}
    discs = [d for d in discs if names & set(split_segment(d.name))]
    anchored = assignment.has_junction or assignment.has_c2 or method == "user"
    status: LevelStatus = "labelled" if anchored else "partial"
    if not anchored:
        notes = (
            *notes,
            Note(
                "no_anchor",
                "Neither C2 nor the lumbosacral disc was identified in the field of view: levels "
                "are named by vertebral size alone and may be off by several levels.",
            ),
        )
    if method == "sacrum_up" and assignment.has_junction:
        below_mm = _below_junction_mm(detection.candidates, assignment)
        if below_mm < _SACRUM_MM:
            text = (
                f"The field of view ends {below_mm:.0f} mm below the presumed lumbosacral disc: "
                "too little of the sacrum is visible to confirm it."
            )
            notes = (*notes, Note("sacrum_cut", text))
    if method == "c2_count" and detection.localizer is not None:
        text = (
            "Levels above the other series were counted on a localizer or another low-resolution "
            "series: verify the count on it."
        )
        notes = (*notes, Note("counted_on_localizer", text))
    if method == "sacrum_up" and detection.localizer is not None:
        text = (
            "C2 was not identified on the localizer, which extends above the other series: a "
            "count down from C2 on it would distinguish four or six lumbar vertebrae from five."
        )
        notes = (*notes, Note("localizer_without_c2", text))
    if method == "c2_count" and (competitors := _competitors(detection.candidates, assignment)):
        text = (
            f"The count from C2 skipped {competitors} more disc-like structure(s): it may be off "
            "by one or more levels; verify it on a sagittal series."
        )
        notes = (*notes, Note("doubtful_count", text))
    if numbering.transitional_suspected:
        signs = transitional_signs(detection.candidates, assignment, settings)
        notes = (*notes, _variant_note(numbering, signs))
    mask = level_mask(bodies, detection.detections, geometry)
    vertebrae = tuple(body.vertebra for body in bodies)
    credible = _conus_levels(assignment, conus, settings) is not None
    cord_end = conus.point_lps if conus is not None and credible else None
    return Levels(status, numbering, vertebrae, tuple(discs), mask, notes, detection, cord_end)


def find_candidates(
    myelogram: Volume,
    companions: Mapping[Role, Volume],
    centerline: Centerline,
    settings: LevelSettings,
    detector: Detector,
) -> tuple[Candidate, ...]:
    """Find the unnamed disc candidates of a study, cranial to caudal, as used by `label`.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    centerline : Centerline
        Of the canal.
    settings : LevelSettings
    detector : Detector
    """
    volumes, _ = _volumes(myelogram, companions)
    localizer = companions.get("localizer")
    return _search(volumes, myelogram, localizer, centerline, settings, detector).candidates


def _detector(settings: LevelSettings) -> Detector:
    if settings.detector == "profile":
        return profile.detect
    from leakloc.levels.network import detect

    return detect


def _volumes(
    myelogram: Volume, companions: Mapping[Role, Volume]
) -> tuple[list[Volume], tuple[Note, ...]]:
    """Volumes to search, best first, without those in another frame of reference."""
    chosen: list[Volume] = []
    notes: list[Note] = []
    for role in _PREFERENCE:
        if role not in companions:
            continue
        if companions[role].geometry.in_other_frame(myelogram.geometry):
            notes.append(
                Note(
                    "companion_in_other_frame",
                    f"The {role} series has a different frame of reference from the myelogram and "
                    "was not used for level detection.",
                )
            )
            continue
        chosen.append(companions[role])
    return [*chosen, myelogram], tuple(notes)


def _search(
    volumes: Sequence[Volume],
    myelogram: Volume,
    localizer: Volume | None,
    centerline: Centerline,
    settings: LevelSettings,
    detector: Detector,
) -> SpineDetection:
    """Detect discs on the first volume with a chain, and beyond its field of view on others."""
    tried: list[tuple[Detections, list[DetectedDisc], Volume, Centerline]] = []
    notes: list[Note] = []
    for volume in volumes:
        try:
            found = detector(volume, centerline, settings)
        except AnalysisError:
            continue
        except LeaklocError as error:  # the network weights are not installed
            text = "discs were detected by the profile detector: level names are often wrong"
            notes.append(Note("detector_failed", f"{error}; {text}"))
            detector = profile.detect
            found = detector(volume, centerline, settings)
        line = extend_centerline(centerline, found.canal)
        tried.append((found, _plausible(found, line), volume, line))
        if len(tried[-1][1]) > _MIN_CHAIN:
            break
    if not tried:
        return SpineDetection((), (), (myelogram.geometry,), tuple(notes))
    found, discs, volume, line = max(tried, key=lambda t: len(t[1]))
    detections = [found]
    searched = [(volume, found)]
    owners = [found] * len(discs)
    more = _more_field_mm(volume, myelogram, centerline)
    if volume is not myelogram and more > _EXTRA_FIELD_MM:
        extra = detector(myelogram, centerline, settings)
        detections.append(extra)
        searched.append((myelogram, extra))
        for disc in _plausible(extra, centerline):
            if _nearest_mm(disc, discs) > _SAME_DISC_MM:
                discs.append(disc)
                owners.append(extra)
    fields: tuple[Geometry, ...] = (volume.geometry, myelogram.geometry)
    coarse = None
    try:
        far = None if localizer is None else detector(localizer, line, settings)
    except AnalysisError:  # constant image
        far = None
    if localizer is not None and far is not None:
        line = extend_centerline(line, far.canal)
        above = [d for d in _plausible(far, line) if _beyond(d, fields, discs, settings)]
        if above:
            far = _upper_part(far, min(float(d.center_lps[2]) for d in above))
            detections.append(far)
            discs += above
            owners += [far] * len(above)
            coarse = localizer.geometry
            fields = (volume.geometry, coarse, myelogram.geometry)
    arcs = [float(line.project(d.center_lps)[0]) for d in discs]
    candidates = tuple(_candidate(discs[n], owners[n], line, fields) for n in np.argsort(arcs))
    axes = (_sacral_axis(image, detected, candidates) for image, detected in searched)
    axis = next((axis for axis in axes if axis is not None), None)
    return SpineDetection(
        tuple(detections), candidates, fields, tuple(notes), localizer=coarse, sacrum=axis
    )


def _sacral_axis(
    image: Volume, found: Detections, candidates: Sequence[Candidate]
) -> SacralAxis | None:
    return None if found.sacrum is None else trace_sacrum(image, found.sacrum, candidates)


def _beyond(
    disc: DetectedDisc,
    fields: Sequence[Geometry],
    discs: Sequence[DetectedDisc],
    settings: LevelSettings,
) -> bool:
    """Return whether a disc lies above the other fields of view and all discs detected there."""
    margin = np.array([0.0, 0.0, settings.end_margin_mm])
    if any(
        _within_height_and_depth(field, disc.center_lps + side * margin).all()
        for field in fields
        for side in (-1, 1)
    ):
        return False
    higher = all(disc.center_lps[2] > other.center_lps[2] for other in discs)
    return higher and _nearest_mm(disc, discs) > _SEAM_MM


def _nearest_mm(disc: DetectedDisc, others: Sequence[DetectedDisc]) -> float:
    """Distance to the nearest of the other discs; infinite if none."""
    gaps = (float(np.linalg.norm(disc.center_lps - other.center_lps)) for other in others)
    return min(gaps, default=np.inf)


def _upper_part(found: Detections, lowest_mm: float) -> Detections:
    """Crop detections to at most one level below a height; other volumes cover the rest."""

    def cut(volume: Volume | None) -> Volume | None:
        if volume is None:  # the k axis of a detector's grid is cranial
            return None
        k = volume.geometry.kji_from_lps([*volume.geometry.center_lps[:2], lowest_mm])[0]
        below = round(_LEVEL_MM / volume.geometry.spacing_kji_mm[0])
        start = int(np.clip(k - below, 0, volume.array.shape[0] - 1))
        return volume.crop((slice(start, None), slice(None), slice(None)))

    return replace(found, bodies=cut(found.bodies), sacrum=cut(found.sacrum), canal=None)


def _plausible(found: Detections, centerline: Centerline) -> list[DetectedDisc]:
    """Discs anterior to the canal, and discs between bones next to them, without duplicates."""
    kept: list[DetectedDisc] = []
    ranked = sorted(found.discs, key=lambda d: -d.score)
    at_canal = [disc for disc in ranked if _is_anterior_to_canal(disc, centerline)]
    # Discs of the same column are retained if the canal is narrowed or ends early.
    in_column = [
        disc
        for disc in ranked
        if _is_between_bones(disc, found) and any(_follows(disc, other) for other in at_canal)
    ]
    for disc in (*at_canal, *in_column):
        if _nearest_mm(disc, kept) > _SAME_DISC_MM:
            kept.append(disc)
    return kept


def _is_between_bones(disc: DetectedDisc, found: Detections) -> bool:
    return all(
        any(_probability(bone, points) > _BONE for bone in (found.bodies, found.sacrum))
        for points in _adjacent_points(disc)
    )


def _follows(disc: DetectedDisc, other: DetectedDisc) -> bool:
    """Return whether a disc lies within one level of another, along its normal."""
    offset = disc.center_lps - other.center_lps
    gap_mm = float(np.linalg.norm(offset))
    return 0 < gap_mm < _LEVEL_MM and abs(float(offset @ other.normal_lps)) > _ALONG * gap_mm


def _is_anterior_to_canal(disc: DetectedDisc, centerline: Centerline) -> bool:
    """Return whether a disc lies anterior to the canal and near its plane."""
    arc, left, dorsal = (float(x) for x in centerline.project(disc.center_lps))
    beyond = max(-arc, arc - centerline.length_mm, 0.0)
    # Beyond the known canal its centerline is extrapolated; tolerance grows with distance.
    if abs(left) > _MAX_LATERAL_MM + 0.5 * beyond or dorsal > _MAX_POSTERIOR_MM + 0.7 * beyond:
        return False
    return dorsal >= -_MAX_ANTERIOR_MM - 0.7 * beyond


def _adjacent_points(disc: DetectedDisc) -> tuple[FloatArray, FloatArray]:
    """Points in the bone above and below a disc."""
    offsets = np.array(_ADJACENT_MM)[:, None] * disc.normal_lps
    return disc.center_lps + offsets, disc.center_lps - offsets


def _more_field_mm(volume: Volume, myelogram: Volume, centerline: Centerline) -> float:
    """Length of the canal covered by the myelogram but not by the volume."""
    arcs = np.arange(0.0, centerline.length_mm, _MARCH_MM)
    points = centerline.at(arcs) - 20.0 * centerline.frame_at(arcs)[2]  # in the bodies
    missing = myelogram.geometry.contains(points) & ~volume.geometry.contains(points)
    return float(missing.sum()) * _MARCH_MM


def _candidate(
    disc: DetectedDisc, found: Detections, centerline: Centerline, fields: Sequence[Geometry]
) -> Candidate:
    above, below = _adjacent_points(disc)
    return Candidate(
        center_lps=disc.center_lps,
        normal_lps=disc.normal_lps,
        score=disc.score,
        tilt_deg=float(np.degrees(np.arctan2(-disc.normal_lps[1], disc.normal_lps[2]))),
        depth_mm=np.nan if disc.depth_mm is None else disc.depth_mm,
        bone_above=_probability(found.bodies, above),
        bone_below=_probability(found.bodies, below),
        sacrum_above=_probability(found.sacrum, above),
        sacrum_below=_probability(found.sacrum, below),
        reach_above_mm=_reach_mm(disc.center_lps, centerline, fields, -1.0),
        reach_below_mm=_reach_mm(disc.center_lps, centerline, fields, 1.0),
        sacral_fraction_above=sacral_fraction(found, disc, 1.0),
        sacral_fraction_below=sacral_fraction(found, disc, -1.0),
    )


def _probability(volume: Volume | None, points_lps: FloatArray) -> float:
    """Maximum probability at some points; NaN if any lies outside the volume."""
    if volume is None or not volume.geometry.contains(points_lps).all():
        return float("nan")
    return float(volume.sample(points_lps).max())


def _reach_mm(
    center_lps: FloatArray, centerline: Centerline, fields: Sequence[Geometry], direction: float
) -> float:
    """Distance from a disc to the edge of the field of view, parallel to the canal."""
    arc, left, dorsal = (float(x) for x in centerline.project(center_lps))
    steps = np.arange(_MARCH_MM, _MAX_LENGTH_MM, _MARCH_MM)
    arcs = arc + direction * steps
    _, lefts, dorsals = centerline.frame_at(arcs)
    points = centerline.at(arcs) + left * lefts + dorsal * dorsals
    inside = np.any([_within_height_and_depth(field, points) for field in fields], axis=0)
    outside = np.flatnonzero(~inside)
    return float(steps[outside[0]] - _MARCH_MM if len(outside) else steps[-1])


def _within_height_and_depth(field: Geometry, points_lps: FloatArray) -> npt.NDArray[np.bool_]:
    """Test points against a field, ignoring left-right: slabs may be narrower than scoliosis."""
    return field.contains(field.clamp_left_right(points_lps))


def _conus(segmentation: Segmentation, candidates: Sequence[Candidate]) -> Conus | None:
    """Conus position relative to the nearest disc; None if either is not detected."""
    arc = conus_arc_mm(segmentation)
    if arc is None or not candidates:
        return None
    line = segmentation.centerline
    below = [arc - float(line.project(c.center_lps)[0]) for c in candidates]
    nearest = int(np.abs(below).argmin())
    return Conus(nearest, below[nearest], line.at(arc))


def _choose(
    candidates: Sequence[Candidate], settings: LevelSettings, conus: Conus | None = None
) -> tuple[Assignment, NumberingMethod, dict[int, float]] | None:
    """Select the numbering, its method, and probabilities of 4, 5 and 6 lumbar vertebrae."""
    if len(candidates) < _MIN_CHAIN:
        return None
    solutions = solve(candidates, settings)
    counts = lumbar_count_probabilities(solutions, settings, conus)
    pinned = _pinned(candidates, solutions, settings)
    if pinned is not None:
        possible = _counts_with(pinned[1], settings)
        fixed = solve(candidates, settings, lumbar_counts=possible, pinned=pinned)
        found = best_of(fixed, settings)
        if found is None:
            raise SettingsError(f"no numbering allows disc {pinned[1]!r} at the anchor")
        return found, "user", counts
    free = best_of(solutions, settings, conus)
    if free is None or len(free.candidates) < _MIN_CHAIN:
        return None
    if settings.lumbar_count is None and free.has_c2:
        return (
            free,
            "c2_count",
            lumbar_count_probabilities(solutions, settings, conus, counted=True),
        )
    wanted = settings.lumbar_count or 5
    of_count = [s for s in solutions if s.chain.lumbar_count == wanted]
    usual = best_of(of_count, settings, conus)
    if usual is None:
        return None
    if conus is not None and not usual.has_junction and not usual.has_c2:
        pin = conus.candidate, disc_at_cord_end(of_count, settings, conus)
        at_cord = solve(candidates, settings, lumbar_counts=(wanted,), pinned=pin)
        usual = best_of(at_cord, settings, conus) or usual
    return usual, "sacrum_up" if settings.lumbar_count is None else "user", counts


def _counts_with(name: str, settings: LevelSettings) -> tuple[int, ...]:
    """Numbers of lumbar vertebrae to consider if the user named one disc.

    From a disc above L1 they can be counted down to the sacrum; for a lumbar disc the usual five
    are assumed.
    """
    if "L6" in name:
        return (6,)
    if settings.lumbar_count is not None:
        return (settings.lumbar_count,)
    return (5,) if name.startswith(("L", "S")) else (4, 5, 6)


def _pinned(
    candidates: Sequence[Candidate], solutions: Sequence[Solution], settings: LevelSettings
) -> tuple[int, str] | None:
    """The candidate named by the user, by anchor or as the lowest disc."""
    if settings.anchor is not None:
        name, point = parse_anchor(settings.anchor)
        if not candidates:
            return None
        gaps = [float(np.linalg.norm(c.center_lps - point)) for c in candidates]
        nearest = int(np.argmin(gaps))
        if gaps[nearest] > settings.anchor_reach_mm:
            raise SettingsError(
                f"no disc was detected within {settings.anchor_reach_mm:g} mm of the anchor "
                f"{settings.anchor!r}; the nearest is {gaps[nearest]:.0f} mm away"
            )
        return nearest, name
    if settings.lowest_disc is not None:
        split_or_refuse(settings.lowest_disc)
        free = best_of([s for s in solutions if s.chain.lumbar_count == 5], settings)
        if free is None:
            return None
        well_formed = [
            m for m, n in zip(free.candidates, free.discs, strict=True) if n <= free.chain.junction
        ]
        return (well_formed[-1], settings.lowest_disc) if well_formed else None
    return None


def parse_anchor(text: str) -> tuple[str, FloatArray]:
    """Parse the disc name and LPS point of an anchor such as ``"L4-L5@-3.5,12.0,-88.0"``.

    Raises
    ------
    SettingsError
        If the text is malformed.
    """
    name, separator, numbers = text.partition("@")
    try:
        point = np.array([float(part) for part in numbers.split(",")])
    except ValueError as error:
        raise SettingsError(f"anchor {text!r}: {numbers!r} are not three numbers") from error
    if not separator or point.shape != (3,) or not np.isfinite(point).all():
        raise SettingsError(f"anchor {text!r} must have the form 'L4-L5@x,y,z' (LPS, mm)")
    split_or_refuse(name)
    return name, point


def split_or_refuse(disc_name: str) -> tuple[str, str]:
    """Split a disc name into its two vertebrae; raise `SettingsError` if it is not a disc name."""
    known = {disc for count in (4, 5, 6) for disc in reference_chain(count).discs}
    if disc_name not in known:
        raise SettingsError(f"{disc_name!r} is not a disc name such as 'L4-L5'")
    return split_segment(disc_name)


def _fill_gaps(candidates: Sequence[Candidate], assignment: Assignment) -> list[Disc]:
    """Named discs, with missed discs interpolated."""
    probability = assignment.shifted.get(0, 1.0)
    discs: list[Disc] = []
    names = assignment.chain.discs
    previous: tuple[int, Candidate] | None = None
    for m, n in zip(assignment.candidates, assignment.discs, strict=True):
        here = candidates[m]
        if previous is not None:
            last_n, last = previous
            for inner in range(last_n + 1, n):
                fraction = (inner - last_n) / (n - last_n)
                center = (1 - fraction) * last.center_lps + fraction * here.center_lps
                normal = (1 - fraction) * last.normal_lps + fraction * here.normal_lps
                normal = normal / np.linalg.norm(normal)
                discs.append(Disc(names[inner], center, normal, 0.3 * probability))
        discs.append(Disc(names[n], here.center_lps, here.normal_lps, here.score * probability))
        previous = (n, here)
    return discs


def _numbering(
    candidates: Sequence[Candidate],
    assignment: Assignment,
    method: NumberingMethod,
    counts: dict[int, float],
    settings: LevelSettings,
    conus: Conus | None = None,
) -> Numbering:
    counted = method == "c2_count"
    lumbar_count = assignment.chain.lumbar_count
    offset = _conus_levels(assignment, conus, settings)
    penalties = (
        [] if method == "user" else _confidence_penalties(candidates, assignment, counted, settings)
    )
    odds = _alternative_odds(assignment, counts)
    variant = 1 - counts.get(lumbar_count, 0.0)
    if method == "user":
        confidence = 1.0
    else:
        highest = settings.counted_confidence if counted else settings.assumed_confidence
        if offset is None and not counted:
            highest *= settings.no_conus_factor
        confidence = highest / (1.0 + sum(odds.values()))
        for _, factor in penalties:
            confidence *= factor
    transitional = method != "user" and (
        (counted and lumbar_count != 5)
        or variant > settings.transitional_probability
        or any(code == "transitional" for code, _ in penalties)
    )
    weights = {s: max(odds.get(s, 0.0), _MIN_ODDS) for s in (-1, 1)}
    total = sum(weights.values())
    alternatives = tuple(
        AlternativeNumbering(
            s,
            (1.0 - confidence) * 0.9 * weights[s] / total,
            _reason(s, counted, assignment.has_junction) + _hint(s, offset),
        )
        for s in (-1, 1)
    )
    return Numbering(
        method,
        _assumption(method, assignment, offset),
        float(confidence),
        lumbar_count,
        transitional,
        alternatives,
    )


def _alternative_odds(assignment: Assignment, counts: Mapping[int, float]) -> dict[int, float]:
    """Odds of each shifted numbering against the one reported, by shift in levels.

    One lumbar vertebra more or less also shifts every name above the sacrum by one.
    """
    here = max(assignment.shifted.get(0, 1.0), 1e-6)
    odds = {s: b / here for s, b in assignment.shifted.items() if s != 0}
    lumbar_count = assignment.chain.lumbar_count
    for count, probability in counts.items():
        if count != lumbar_count:
            shift = count - lumbar_count
            odds[shift] = odds.get(shift, 0.0) + probability / max(counts[lumbar_count], 1e-6)
    return odds


def _conus_levels(
    assignment: Assignment, conus: Conus | None, settings: LevelSettings
) -> float | None:
    """Levels from the usual to the detected conus position; negative above, None if unknown."""
    if conus is None or conus.candidate not in assignment.candidates:
        return None
    disc = assignment.discs[assignment.candidates.index(conus.candidate)]
    offset = conus_offset(conus, assignment.chain, assignment.scale, settings)[disc]
    levels = float(offset) * settings.conus_sd_levels
    return levels if abs(levels) < _CONUS_FAR_LEVELS else None


def _confidence_penalties(
    candidates: Sequence[Candidate],
    assignment: Assignment,
    counted: bool,
    settings: LevelSettings,
) -> list[tuple[str, float]]:
    """Reasons that lower the confidence of the numbering, each with its factor."""
    penalties: list[tuple[str, float]] = []
    chain = assignment.chain
    if not assignment.has_junction:
        penalties.append(("no_sacrum", 0.7 if counted else 0.4))
    elif not counted and _below_junction_mm(candidates, assignment) < _SACRUM_MM:
        penalties.append(("sacrum_cut", 0.6))  # the lowest visible disc resembles L5-S1
    competitors = _competitors(candidates, assignment) if counted else 0
    if competitors:
        penalties.append(("rivals", _COMPETITOR_FACTOR ** min(competitors, _MAX_COMPETITORS)))
    if all(np.isnan(candidates[m].bone_below) for m in assignment.candidates):
        penalties.append(("bare_detector", 0.5))  # correct in about a third of patients
    if len(assignment.candidates) < 5:
        penalties.append(("few_discs", 0.7))
    steps = np.diff(assignment.discs)
    missed = int((steps - 1)[np.array(assignment.discs[1:]) <= chain.junction].sum())
    if missed:
        penalties.append(("missed_discs", 0.8**missed))
    if transitional_signs(candidates, assignment, settings):
        # Counting down from C2 does not depend on the junction.
        penalties.append(("transitional", 1.0 if counted else _TRANSITIONAL_FACTOR))
    return penalties


def _competitors(candidates: Sequence[Candidate], assignment: Assignment) -> int:
    """Number of high-score candidates skipped by a count from C2, less those usual above C2-C3.

    Names near the sacrum depend on the sacrum whatever the count, so the evidence of the whole
    chain does not reveal a miscount in the cervical spine; skipped candidates do.
    """
    used = set(assignment.candidates)
    junction = assignment.chain.junction
    presacral = [
        m for m, n in zip(assignment.candidates, assignment.discs, strict=True) if n <= junction
    ]
    competing = [
        m
        for m, c in enumerate(candidates[: max(presacral, default=0)])
        if m not in used and c.score >= _COMPETITOR_SCORE
    ]
    above = sum(m < assignment.candidates[0] for m in competing)
    return len(competing) - above + max(above - _USUAL_COMPETITORS, 0)


def _below_junction_mm(candidates: Sequence[Candidate], assignment: Assignment) -> float:
    """Extent of the field of view below the lumbosacral disc."""
    place = assignment.discs.index(assignment.chain.junction)
    return candidates[assignment.candidates[place]].reach_below_mm


def _reason(shift: int, counted: bool, junction_detected: bool) -> str:
    if not counted and not junction_detected:
        return "the sacrum is not in the field of view: levels were named by vertebral size"
    if counted:
        return "a disc counted twice" if shift < 0 else "a disc missed in the count from C2"
    if shift > 0:
        return "six lumbar vertebrae, or the presumed L5-S1 disc is S1-S2 (lumbarized S1)"
    return "four lumbar vertebrae, or the presumed L5-S1 disc is L4-L5 (sacralized L5)"


def _hint(shift: int, conus_levels: float | None) -> str:
    """Conus position, if it supports a caudal (positive) or cranial shift of the names."""
    if conus_levels is None or -shift * conus_levels < _CONUS_NEAR_LEVELS:
        return ""
    return f"; with the reported names the conus lies {_height(conus_levels)}"


def _height(conus_levels: float) -> str:
    side = "lower" if conus_levels > 0 else "higher"
    return f"{abs(conus_levels):.1f} levels {side} than usual"


def _assumption(method: NumberingMethod, assignment: Assignment, conus_levels: float | None) -> str:
    if method == "user":
        return "the names specified by the user"
    if method == "c2_count":
        above = "seven cervical and twelve thoracic vertebrae"
        if not assignment.has_junction:
            return f"{above}, counted from C2; sacrum not in the field of view"
        lumbar = _COUNT_WORDS[assignment.chain.lumbar_count]
        return f"{above} above {lumbar} lumbar ones, counted from C2"
    if conus_levels is None:
        cue = "not distinguishable from four or six in this field of view (conus not visible)"
    elif abs(conus_levels) < _CONUS_NEAR_LEVELS:
        cue = "the conus then lies at its usual level"
    else:
        cue = f"the conus then lies {_height(conus_levels)}"
    place = (
        "counted up from the lumbosacral disc"
        if assignment.has_junction
        else "sacrum not identified, placed by vertebral size"
    )
    if conus_levels is not None and not assignment.has_junction:
        place += " and the conus"
    return f"five lumbar vertebrae, {place}; {cue}"


def _variant_note(numbering: Numbering, signs: Sequence[str]) -> Note:
    if numbering.method == "c2_count" and numbering.lumbar_count != 5:
        count = _COUNT_WORDS[numbering.lumbar_count]
        text = (
            f"Counting from C2 gives {count} lumbar vertebrae: counting up from the sacrum gives "
            "other names; state the reference when communicating a level."
        )
    else:
        why = f" ({'; '.join(signs)})" if signs else ""
        text = (
            f"A transitional vertebra or another number of lumbar vertebrae is possible{why}; "
            "verify the numbering on a series that includes C2."
        )
    return Note("transitional_suspected", text)


def _unlabelled(geometry: Geometry, notes: tuple[Note, ...], detection: SpineDetection) -> Levels:
    empty = Volume(np.zeros(geometry.shape, np.uint8), geometry, Provenance("levels"))
    note = Note("levels_not_found", "No chain of discs was detected: no level is named.")
    numbering = Numbering("sacrum_up", "no level could be numbered", 0.0, 5)
    return Levels("unlabelled", numbering, (), (), empty, (*notes, note), detection)
