"""The labelling stage: which disc and which vertebra is where, and how sure that is."""

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
"""Companions by how well discs stand out from bodies."""
_ASIDE_MM: Final = 30.0
"""No disc's centre lies further to the side of the canal's plane."""
_BEHIND_MM: Final = 0.0
"""No disc's centre lies behind the middle of the canal."""
_AHEAD_MM: Final = 60.0
"""No disc's centre lies further in front of it (25 to 40 mm)."""
_SAME_DISC_MM: Final = 9.0
"""Two candidates nearer than this are one disc; the smallest pitch is 15 mm."""
_SEAM_MM: Final = 12.0
"""A disc of the localizer nearer than this to one of another volume is that one: the patient may
have moved by some millimetres since, and the smallest pitch is 15 mm."""
_LEVEL_MM: Final = 45.0
"""Height of the tallest level."""
_EXTRA_FIELD_MM: Final = 25.0
"""The myelogram is searched too where it shows this much more of the spine: a level."""
_ADJACENT_MM: Final = (9.0, 12.0, 15.0)
"""Distances from a disc's centre along its normal where its surroundings are read."""
_ALONG: Final = 0.8
"""The way from a disc to the next is within 37 degrees of its normal."""
_BONE: Final = 0.5
"""Probability from which a point counts as bone."""
_MARCH_MM: Final = 3.0
_MAX_LENGTH_MM: Final = 900.0
"""How far and in what steps the field is followed along the spine."""
_SACRUM_MM: Final = 25.0
"""With less than that of the sacrum below it (S1 is 30 mm high) the lumbosacral disc is not sure:
of 24 volumes cut through L5, 19 were named one too low."""
_CONUS_NEAR_LEVELS: Final = 0.5
"""The cord's end is as usual within this distance of its mean place, two thirds of people."""
_CONUS_FAR_LEVELS: Final = 1.8
"""Farther from it than in anybody (T12 to L3) it was not the cord's end that was seen."""
_MIN_ODDS: Final = 0.05
"""Each neighbouring numbering is told with some belief, whatever the evidence."""
_COMPETITOR_SCORE: Final = 0.6
"""A find this sure that the count from C2 passes over may be one of the discs it should count."""
_USUAL_COMPETITORS: Final = 1
"""Above C2-C3 the base of the dens or of the skull is often taken for a disc once."""
_MAX_COMPETITORS: Final = 3
"""More rivals than this make the count no worse: it is worthless by then."""
_COMPETITOR_FACTOR: Final = 0.6
"""On the confidence, by rival: with two or more, one of two counts was wrong."""
_TRANSITIONAL_FACTOR: Final = 0.7
"""On the confidence counted from a junction that looks transitional."""
_COUNT_WORDS: Final = {4: "four", 5: "five", 6: "six"}
_MIN_CHAIN: Final = 2
"""Fewer discs in a row than this cannot be numbered."""


@dataclass(frozen=True)
class SpineDetection:
    """What was seen of the spine before any of it is named; `assign_levels` names it.

    Parameters
    ----------
    detections : tuple of Detections
        By volume searched.
    candidates : tuple of Candidate
        Possible discs from the head down.
    fields : tuple of Geometry
        Grids of the volumes searched, the last that of the myelogram.
    notes : tuple of Note
    conus : Conus or None
        The cord's end; None where it was not seen.
    localizer : Geometry or None
        Grid of the coarse series that discs above all other fields were seen on.
    sacrum : SacralAxis or None
        The sacrum, traced in the volume that discs were detected in.
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
    """Find and name discs and vertebrae (a `leakloc.levels.result.Labeler`).

    Discs are sought on the best sagittal companion, and on the myelogram where that shows
    more of the spine or where there is none. Names count down from C2 where C2 is seen, else
    up from the sacrum, assuming five lumbar vertebrae, unless the settings say otherwise.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    segmentation : Segmentation
        Its centreline tells where the spine is.
    settings : LevelSettings
    detector : Detector, optional
        Finds discs; where None, the one that `settings.detector` names.

    Returns
    -------
    Levels
        With status ``"unlabelled"`` where nothing can be named.

    Raises
    ------
    SettingsError
        If a user's anchor is malformed or fits no disc.
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
    """See the spine: the half of `label` that needs the images and takes the time.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    segmentation : Segmentation
    settings : LevelSettings
        Only `settings.detector` matters here, nothing that the user knows of names.
    detector : Detector, optional
        As for `label`.
    """
    volumes, notes = _volumes(myelogram, companions)
    seen = _search(
        volumes,
        myelogram,
        companions.get("localizer"),
        segmentation.centerline,
        settings,
        detector or _detector(settings),
    )
    conus = _conus(segmentation, seen.candidates)
    return replace(seen, notes=(*notes, *seen.notes), conus=conus)


def assign_levels(detection: SpineDetection, settings: LevelSettings) -> Levels:
    """Name what was detection: the half of `label` that is quick, and where the user's word counts.

    Parameters
    ----------
    detection : SpineDetection
        From `detect_spine`.
    settings : LevelSettings

    Returns
    -------
    Levels
        As of `label`; `Levels.detection` keeps `detection`.

    Raises
    ------
    SettingsError
        If a user's anchor is malformed or fits no disc.
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
                "Neither C2 nor the lumbosacral disc was recognised in the field: names rest on "
                "the size of the vertebrae alone and may be off by several levels.",
            ),
        )
    if method == "sacrum_up" and assignment.has_junction:
        below_mm = _below_junction_mm(detection.candidates, assignment)
        if below_mm < _SACRUM_MM:
            text = (
                f"The field ends {below_mm:.0f} mm below the disc taken for the lumbosacral one: "
                "too little of the sacrum is detection to be sure of it."
            )
            notes = (*notes, Note("sacrum_cut", text))
    if method == "c2_count" and detection.localizer is not None:
        text = (
            "Levels above the other series were counted on a localizer or another coarse series: "
            "check the count there."
        )
        notes = (*notes, Note("counted_on_localizer", text))
    if method == "sacrum_up" and detection.localizer is not None:
        text = (
            "C2 was not recognised on the localizer, which reaches above the other series: a count "
            "down from C2 there would tell four or six lumbar vertebrae from five."
        )
        notes = (*notes, Note("localizer_without_c2", text))
    if method == "c2_count" and (rivals := _competitors(detection.candidates, assignment)):
        text = (
            f"The count from C2 passed over {rivals} more place(s) that look like discs: it may "
            "be off by one or more; check it on a sagittal series."
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
    """Possible discs of a study from the head down, not yet named, as `label` sees them.

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
    """Volumes to search, best first; those of another frame of reference are left out."""
    chosen: list[Volume] = []
    notes: list[Note] = []
    for role in _PREFERENCE:
        if role not in companions:
            continue
        if companions[role].geometry.in_other_frame(myelogram.geometry):
            notes.append(
                Note(
                    "companion_in_other_frame",
                    f"The {role} series has another frame of reference than the myelogram and was "
                    "not used to find levels.",
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
    """Detect on the first volume that shows a chain, and beyond its field on the others."""
    tried: list[tuple[Detections, list[DetectedDisc], Volume, Centerline]] = []
    notes: list[Note] = []
    for volume in volumes:
        try:
            found = detector(volume, centerline, settings)
        except AnalysisError:
            continue
        except LeaklocError as error:  # the network's weights are not there
            text = "discs were sought by the profile along the canal: names are often wrong"
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
    except AnalysisError:  # it shows nothing
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
    """Whether a disc lies above what other volumes show, and is none of those seen on them."""
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
    """Distance to the nearest of other discs; endless without any."""
    gaps = (float(np.linalg.norm(disc.center_lps - other.center_lps)) for other in others)
    return min(gaps, default=np.inf)


def _upper_part(found: Detections, lowest_mm: float) -> Detections:
    """Detections without what lies more than a level below a height: other volumes show it."""

    def cut(volume: Volume | None) -> Volume | None:
        if volume is None:  # the k axis of a detector's grid runs to the head
            return None
        k = volume.geometry.kji_from_lps([*volume.geometry.center_lps[:2], lowest_mm])[0]
        below = round(_LEVEL_MM / volume.geometry.spacing_kji_mm[0])
        start = int(np.clip(k - below, 0, volume.array.shape[0] - 1))
        return volume.crop((slice(start, None), slice(None), slice(None)))

    return replace(found, bodies=cut(found.bodies), sacrum=cut(found.sacrum), canal=None)


def _plausible(found: Detections, centerline: Centerline) -> list[DetectedDisc]:
    """Discs where the canal allows one, and discs between bones next to them; one of each."""
    kept: list[DetectedDisc] = []
    ranked = sorted(found.discs, key=lambda d: -d.score)
    at_canal = [disc for disc in ranked if _is_ahead_of_canal(disc, centerline)]
    # A canal that is narrowed or ends early does not hide a disc of the same column.
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
    """Whether a disc is within a level of another one, along its normal."""
    offset = disc.center_lps - other.center_lps
    gap_mm = float(np.linalg.norm(offset))
    return 0 < gap_mm < _LEVEL_MM and abs(float(offset @ other.normal_lps)) > _ALONG * gap_mm


def _is_ahead_of_canal(disc: DetectedDisc, centerline: Centerline) -> bool:
    """Whether a disc lies in front of the canal and near its plane."""
    arc, left, dorsal = (float(x) for x in centerline.project(disc.center_lps))
    beyond = max(-arc, arc - centerline.length_mm, 0.0)
    # Past the known canal its course is a guess, the more so the further.
    if abs(left) > _ASIDE_MM + 0.5 * beyond or dorsal > _BEHIND_MM + 0.7 * beyond:
        return False
    return dorsal >= -_AHEAD_MM - 0.7 * beyond


def _adjacent_points(disc: DetectedDisc) -> tuple[FloatArray, FloatArray]:
    """Points above and below a disc, in the bones beside it."""
    offsets = np.array(_ADJACENT_MM)[:, None] * disc.normal_lps
    return disc.center_lps + offsets, disc.center_lps - offsets


def _more_field_mm(volume: Volume, myelogram: Volume, centerline: Centerline) -> float:
    """Length of the canal that the myelogram shows and the volume does not."""
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
    """Largest probability at some points; NaN where the volume does not reach."""
    if volume is None or not volume.geometry.contains(points_lps).all():
        return float("nan")
    return float(volume.sample(points_lps).max())


def _reach_mm(
    center_lps: FloatArray, centerline: Centerline, fields: Sequence[Geometry], direction: float
) -> float:
    """How far the field goes on from a disc, along a parallel to the canal."""
    arc, left, dorsal = (float(x) for x in centerline.project(center_lps))
    steps = np.arange(_MARCH_MM, _MAX_LENGTH_MM, _MARCH_MM)
    arcs = arc + direction * steps
    _, lefts, dorsals = centerline.frame_at(arcs)
    points = centerline.at(arcs) + left * lefts + dorsal * dorsals
    inside = np.any([_within_height_and_depth(field, points) for field in fields], axis=0)
    outside = np.flatnonzero(~inside)
    return float(steps[outside[0]] - _MARCH_MM if len(outside) else steps[-1])


def _within_height_and_depth(field: Geometry, points_lps: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether a field holds points, sides left aside: slabs may be narrower than a curve."""
    return field.contains(field.clamp_left_right(points_lps))


def _conus(segmentation: Segmentation, candidates: Sequence[Candidate]) -> Conus | None:
    """The cord's end in relation to the nearest disc; None where either is not seen."""
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
    """The numbering to report, by what method, and the belief in 4, 5 and 6 lumbar vertebrae."""
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
            raise SettingsError(f"no numbering has a disc {pinned[1]!r} at the anchor")
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
    """Numbers of lumbar vertebrae to consider where the user named one disc.

    From a disc above L1 they can be counted down to the sacrum; a lumbar one is named under the
    assumption of the usual five.
    """
    if "L6" in name:
        return (6,)
    if settings.lumbar_count is not None:
        return (settings.lumbar_count,)
    return (5,) if name.startswith(("L", "S")) else (4, 5, 6)


def _pinned(
    candidates: Sequence[Candidate], solutions: Sequence[Solution], settings: LevelSettings
) -> tuple[int, str] | None:
    """The candidate whose name the user gave, by anchor or as the lowest disc."""
    if settings.anchor is not None:
        name, point = parse_anchor(settings.anchor)
        if not candidates:
            return None
        gaps = [float(np.linalg.norm(c.center_lps - point)) for c in candidates]
        nearest = int(np.argmin(gaps))
        if gaps[nearest] > settings.anchor_reach_mm:
            raise SettingsError(
                f"no disc was found within {settings.anchor_reach_mm:g} mm of the anchor "
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
    """Disc name and LPS point of an anchor such as ``"L4-L5@-3.5,12.0,-88.0"``.

    Raises
    ------
    SettingsError
        If the text has another form.
    """
    name, separator, numbers = text.partition("@")
    try:
        point = np.array([float(part) for part in numbers.split(",")])
    except ValueError as error:
        raise SettingsError(f"anchor {text!r}: {numbers!r} are not three numbers") from error
    if not separator or point.shape != (3,) or not np.isfinite(point).all():
        raise SettingsError(f"anchor {text!r} must look like 'L4-L5@x,y,z' (LPS millimetres)")
    split_or_refuse(name)
    return name, point


def split_or_refuse(disc_name: str) -> tuple[str, str]:
    """The two vertebrae of a disc's name; `SettingsError` if it names no disc."""
    known = {disc for count in (4, 5, 6) for disc in reference_chain(count).discs}
    if disc_name not in known:
        raise SettingsError(f"{disc_name!r} names no disc; write for example 'L4-L5'")
    return split_segment(disc_name)


def _fill_gaps(candidates: Sequence[Candidate], assignment: Assignment) -> list[Disc]:
    """Named discs, with those that were missed put in between."""
    belief = assignment.shifted.get(0, 1.0)
    discs: list[Disc] = []
    names = assignment.chain.discs
    previous: tuple[int, Candidate] | None = None
    for m, n in zip(assignment.candidates, assignment.discs, strict=True):
        here = candidates[m]
        if previous is not None:
            last_n, last = previous
            for inner in range(last_n + 1, n):
                share = (inner - last_n) / (n - last_n)
                center = (1 - share) * last.center_lps + share * here.center_lps
                normal = (1 - share) * last.normal_lps + share * here.normal_lps
                normal = normal / np.linalg.norm(normal)
                discs.append(Disc(names[inner], center, normal, 0.3 * belief))
        discs.append(Disc(names[n], here.center_lps, here.normal_lps, here.score * belief))
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
    """Odds of numberings moved by so many levels against the one reported.

    One lumbar vertebra more or less moves every name above the sacrum by one, too.
    """
    here = max(assignment.shifted.get(0, 1.0), 1e-6)
    odds = {s: b / here for s, b in assignment.shifted.items() if s != 0}
    lumbar_count = assignment.chain.lumbar_count
    for count, belief in counts.items():
        if count != lumbar_count:
            shift = count - lumbar_count
            odds[shift] = odds.get(shift, 0.0) + belief / max(counts[lumbar_count], 1e-6)
    return odds


def _conus_levels(
    assignment: Assignment, conus: Conus | None, settings: LevelSettings
) -> float | None:
    """How many levels below its usual place the cord ends by a numbering; negative above."""
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
    """What makes the numbering less sure, each with a factor on its confidence."""
    penalties: list[tuple[str, float]] = []
    chain = assignment.chain
    if not assignment.has_junction:
        penalties.append(("no_sacrum", 0.7 if counted else 0.4))
    elif not counted and _below_junction_mm(candidates, assignment) < _SACRUM_MM:
        penalties.append(("sacrum_cut", 0.6))  # what lies above the field's end looks like the last
    rivals = _competitors(candidates, assignment) if counted else 0
    if rivals:
        penalties.append(("rivals", _COMPETITOR_FACTOR ** min(rivals, _MAX_COMPETITORS)))
    if all(np.isnan(candidates[m].bone_below) for m in assignment.candidates):
        penalties.append(("bare_detector", 0.5))  # right in about a third of patients
    if len(assignment.candidates) < 5:
        penalties.append(("few_discs", 0.7))
    steps = np.diff(assignment.discs)
    missed = int((steps - 1)[np.array(assignment.discs[1:]) <= chain.junction].sum())
    if missed:
        penalties.append(("missed_discs", 0.8**missed))
    if transitional_signs(candidates, assignment, settings):
        # Who counts down from C2 does not need the junction.
        penalties.append(("transitional", 1.0 if counted else _TRANSITIONAL_FACTOR))
    return penalties


def _competitors(candidates: Sequence[Candidate], assignment: Assignment) -> int:
    """How many sure finds a count from C2 passes over, besides those usual above C2-C3.

    Names near the sacrum rest on the sacrum whatever the count, so that the evidence of the
    whole chain does not show a wrong count in the neck; discs that were not counted do.
    """
    used = set(assignment.candidates)
    junction = assignment.chain.junction
    presacral = [
        m for m, n in zip(assignment.candidates, assignment.discs, strict=True) if n <= junction
    ]
    sure = [
        m
        for m, c in enumerate(candidates[: max(presacral, default=0)])
        if m not in used and c.score >= _COMPETITOR_SCORE
    ]
    above = sum(m < assignment.candidates[0] for m in sure)
    return len(sure) - above + max(above - _USUAL_COMPETITORS, 0)


def _below_junction_mm(candidates: Sequence[Candidate], assignment: Assignment) -> float:
    """How far the field goes on below the lumbosacral disc."""
    place = assignment.discs.index(assignment.chain.junction)
    return candidates[assignment.candidates[place]].reach_below_mm


def _reason(shift: int, counted: bool, junction_detected: bool) -> str:
    if not counted and not junction_detected:
        return "the sacrum is not in the field: levels were named by the size of the vertebrae"
    if counted:
        return "a disc counted twice" if shift < 0 else "a disc missed in the count from C2"
    if shift > 0:
        return "six lumbar vertebrae, or the disc taken for L5-S1 is S1-S2 (lumbarised S1)"
    return "four lumbar vertebrae, or the disc taken for L5-S1 is L4-L5 (sacralised L5)"


def _hint(shift: int, conus_levels: float | None) -> str:
    """What the cord's end says for names further towards the tail (positive) or the head."""
    if conus_levels is None or -shift * conus_levels < _CONUS_NEAR_LEVELS:
        return ""
    return f"; the cord ends {_height(conus_levels)} by the reported names"


def _height(conus_levels: float) -> str:
    side = "lower" if conus_levels > 0 else "higher"
    return f"{abs(conus_levels):.1f} levels {side} than usual"


def _assumption(method: NumberingMethod, assignment: Assignment, conus_levels: float | None) -> str:
    if method == "user":
        return "the names that the user fixed"
    if method == "c2_count":
        above = "seven cervical and twelve thoracic vertebrae"
        if not assignment.has_junction:
            return f"{above}, counted from C2; sacrum not in the field"
        lumbar = _COUNT_WORDS[assignment.chain.lumbar_count]
        return f"{above} above {lumbar} lumbar ones, counted from C2"
    if conus_levels is None:
        cue = "nothing in the field tells five from four or six (the cord's end is not seen)"
    elif abs(conus_levels) < _CONUS_NEAR_LEVELS:
        cue = "the cord ends where that makes it usual"
    else:
        cue = f"the cord then ends {_height(conus_levels)}"
    place = (
        "counted up from the lumbosacral disc"
        if assignment.has_junction
        else "sacrum not recognised, placed by size of the vertebrae"
    )
    if conus_levels is not None and not assignment.has_junction:
        place += " and the end of the cord"
    return f"five lumbar vertebrae, {place}; {cue}"


def _variant_note(numbering: Numbering, signs: Sequence[str]) -> Note:
    if numbering.method == "c2_count" and numbering.lumbar_count != 5:
        count = _COUNT_WORDS[numbering.lumbar_count]
        text = (
            f"Counted from C2 there are {count} lumbar vertebrae: who counts up from the sacrum "
            "gives other names; say the reference when passing a level on."
        )
    else:
        why = f" ({'; '.join(signs)})" if signs else ""
        text = (
            f"A transitional vertebra or another number of lumbar vertebrae is possible{why}; "
            "check the numbering on a series that shows C2."
        )
    return Note("transitional_suspected", text)


def _unlabelled(geometry: Geometry, notes: tuple[Note, ...], seen: SpineDetection) -> Levels:
    empty = Volume(np.zeros(geometry.shape, np.uint8), geometry, Provenance("levels"))
    note = Note("levels_not_found", "No chain of discs was found: no level is named.")
    numbering = Numbering("sacrum_up", "nothing could be numbered", 0.0, 5)
    return Levels("unlabelled", numbering, (), (), empty, (*notes, note), seen)
