"""Select the series for analysis by the roles assigned in `leakloc.loaders.roles`.

Thick slabs and other projections have no depth and are never used for level or volume. A study
without usable series is rejected with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isclose
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import InputError
from leakloc.core.notes import Note, note
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders.alignment import Aligner
from leakloc.loaders.gate import looks_like_head
from leakloc.loaders.roles import (
    ClassifiedSeries,
    Pixels,
    finished,
    judge_all,
    other_modality,
)
from leakloc.loaders.stations import (
    adjoin,
    compose_stations,
    covers,
    find_stations,
    neighbors,
    overlap_fraction,
    shared_extent,
)
from leakloc.loaders.study import SeriesStack, Study, Triage

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_SHARED_FIELD: Final = 0.5
"""Minimum overlap, relative to the smaller field, of headerless files in one coordinate system."""
_MAX_LEFT_OUT: Final = 0.1
"""Maximum fraction of the slices of the myelogram not used; with more, fluid may be missed or its
volume underestimated."""
_PARALLEL: Final = 0.94
"""Minimum cosine of the angle between slices of one plane (20 degrees)."""
_MIN_OTHER_ORIENTATION_DEG: Final = 0.2
"""Angle from which orientation is stated as the reason why slices form a separate stack."""
_SAME_SLICE: Final = 0.25
"""Maximum distance, in slices, of images at the same position."""
_COMPANIONS: Final[tuple[Role, ...]] = (
    "sagittal_t2",
    "sagittal_stir",
    "axial_t2",
    "sagittal_t1",
    "axial_t1_post",
)
_UP_TO_THE_NECK_MM: Final = 150.0
"""Minimum additional cranial coverage of a coarse series used to count levels: C2 is 200 mm from
T6, the cranial limit of lumbar series."""
_PLANES_TO_COUNT: Final = 3
"""Minimum sagittal planes, about 10 mm apart; fewer miss a laterally curved spine."""
_SAME_ORIENTATION: Final = 0.999
"""Minimum cosine of the angle between axes of one protocol (2.5 degrees)."""
_SIMILAR_TIMING: Final = 0.25
"""Maximum relative difference of echo and repetition times of a T1 pair; 25 % of the repetition
time changes the signal of muscle by 15 %, and its ratio to other tissue less."""
_FOR_LEVELS: Final[frozenset[Role]] = frozenset({"sagittal_t2", "sagittal_stir", "sagittal_t1"})


def triage(
    study: Study,
    settings: LoaderSettings,
    *,
    myelogram_uid: str | None = None,
    companion_uids: Sequence[str] = (),
    verify: bool | None = None,
) -> Triage:
    """Assign a role to every stack and select the volumes to analyze.

    Parameters
    ----------
    study : Study
    settings : LoaderSettings
    myelogram_uid : str, optional
        Series Instance UID, or series number, of the series used to detect fluid.
    companion_uids : sequence of str
        The only additional series to use, if specified.
    verify : bool, optional
        Whether to verify the alignment of companions with the myelogram; None for
        `settings.verify_companions`.

    Returns
    -------
    Triage
        If no series is heavily T2-weighted, the best fluid-sensitive volume replaces the
        myelogram, with the note ``no_myelogram``.

    Raises
    ------
    InputError
        If the study has no usable fluid-sensitive volume of the spine; the message states why.
    """
    pixels = Pixels(settings)
    judged = judge_all(study, settings, pixels)
    members, volume, notes = _choose_fluid(judged, settings, pixels, myelogram_uid)
    judged = _with_suppressed_t2(judged, members)
    chosen = members[0]
    volume = _with_fat_fact(volume, chosen)
    companions, chosen_notes = _choose_companions(judged, chosen, volume, pixels, companion_uids)
    notes = [*notes, *chosen_notes]
    for_fluid = [item.stack for item in members]
    for_levels: list[SeriesStack] = []
    volumes: dict[Role, Volume] = {}
    verify = settings.verify_companions if verify is None else verify
    spine = Spine(volume, pixels.anatomy)
    aligner = Aligner(spine)
    for role, parts in companions.items():
        if parts[0] is chosen:
            placed: Volume | None = volume
        else:
            whole, joined = _whole(role, parts, pixels, settings)
            placed, found = _placed(
                parts[0], whole, chosen, aligner, verify=verify and role in _FOR_LEVELS
            )
            notes += [*joined, *found] if placed is not None else found
        if placed is None:
            continue
        if parts[0].facts.contrast == "t1_post":
            enhanced = replace(placed.provenance, contrast_agent=True)
            placed = replace(placed, provenance=enhanced)
        volumes[role] = placed
        if role in _FOR_LEVELS:
            for_levels += [part.stack for part in parts]
    if not companion_uids:
        tops = [v.geometry.top_mm for role, v in volumes.items() if role in _FOR_LEVELS]
        unused = [item for item in judged if not _is_in(item.stack, [*for_fluid, *for_levels])]
        top_mm = max([volume.geometry.top_mm, *tops])
        counting = _choose_counting(unused, chosen, volume, top_mm, pixels)
        if counting:
            volumes["localizer"] = _whole("localizer", counting, pixels, settings)[0]
            for_levels += [part.stack for part in counting]
    if not _FOR_LEVELS & volumes.keys():
        for_levels += for_fluid
    others = _Others()
    if not companion_uids:
        others = _other_series(judged, members, volume, pixels, aligner, settings, verify=verify)
        notes += [note for note in others.notes if note not in notes]
    additional = (part for parts in companions.values() for part in parts)
    for item in (*members, *additional):
        notes += [note for note in item.stack.notes if note not in notes]
    used = [*for_fluid, *for_levels]
    notes = [
        *_use_notes(judged, members, used, chosen_by_user=myelogram_uid is not None),
        *_intrathecal_notes(judged),
        *notes,
    ]
    uses = {
        "fluid": for_fluid,
        "levels": for_levels,
        "comparison": others.for_comparison,
        "enhancement": others.for_pairs,
    }
    stacks = tuple(
        finished(item, tuple(use for use, stacks in uses.items() if _is_in(item.stack, stacks)))
        for item in judged
    )
    return Triage(stacks, spine, volumes, tuple(notes), others.second, tuple(others.pairs))


@dataclass
class _Others:
    """Series that are compared with the myelogram, and their registered volumes."""

    second: Volume | None = None
    pairs: list[tuple[Volume, Volume]] = field(default_factory=list)
    for_comparison: list[SeriesStack] = field(default_factory=list)
    for_pairs: list[SeriesStack] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def _other_series(
    judged: list[ClassifiedSeries],
    members: list[ClassifiedSeries],
    myelogram: Volume,
    pixels: Pixels,
    aligner: Aligner,
    settings: LoaderSettings,
    *,
    verify: bool,
) -> _Others:
    """Select and register a second myelogram, and T1 series before and after contrast."""
    chosen, found = members[0], _Others()

    def placed(item: ClassifiedSeries, *, verify: bool) -> Volume | None:
        volume, notes = _placed(item, pixels.of(item.stack), chosen, aligner, verify=verify)
        found.notes += notes
        return volume

    item = _second_myelogram(judged, members, pixels) if settings.compare_myelograms else None
    if item is not None:
        found.second = placed(item, verify=verify)
        found.for_comparison += [] if found.second is None else [item.stack]
    for pair in _t1_pairs(judged, chosen, myelogram, pixels):
        # Axial series cover too little of the canal for verification.
        is_sagittal = pair[0].facts.plane == "sagittal"
        before, after = (placed(one, verify=verify and is_sagittal) for one in pair)
        if before is not None and after is not None:
            found.pairs.append((before, after))
            found.for_pairs += [one.stack for one in pair]
    return found


def _second_myelogram(
    judged: list[ClassifiedSeries], members: list[ClassifiedSeries], pixels: Pixels
) -> ClassifiedSeries | None:
    """Select the best other myelogram; not another version or station of the one that is used."""
    used = {_series_of(item) for item in members}
    grids = [item.stack.geometry for item in members if item.stack.geometry is not None]
    pool = [
        item
        for item in judged
        if item.role == "myelogram"
        and _series_of(item) not in used
        and item.stack.series_instance_uid is not None
        and item.stack.geometry is not None
        and not any(_same_protocol(item.stack.geometry, grid) for grid in grids)
    ]
    ranked = sorted(pool, key=lambda item: (item.score, item.stack.n_instances), reverse=True)
    return next((item for item in ranked if pixels.readable(item.stack)), None)


def _same_protocol(one: Geometry, other: Geometry) -> bool:
    """Return whether two grids have the same orientation and voxel size."""
    turned = np.abs(one.directions_lps.T @ other.directions_lps)
    return bool(
        np.diag(turned).min() > _SAME_ORIENTATION
        and np.allclose(one.spacing_ijk_mm, other.spacing_ijk_mm, rtol=0.01)
    )


def _t1_pairs(
    judged: list[ClassifiedSeries], chosen: ClassifiedSeries, myelogram: Volume, pixels: Pixels
) -> list[tuple[ClassifiedSeries, ClassifiedSeries]]:
    """Select T1 series before and after intravenous contrast, at most one pair for each plane.

    Signal is comparable only with the same fat suppression and similar timing.
    """
    pool = [
        item
        for item in judged
        if item.facts.contrast in ("t1", "t1_post")
        and not item.set_aside
        and item.role not in ("projection", "localizer", "unreadable")
        and item.stack.series_instance_uid is not None
        and item.stack.geometry is not None
        and _same_frame(item.stack, chosen.stack)
    ]
    found = []
    for plane in ("axial", "sagittal", "coronal"):
        pairs = [
            (before, after)
            for before in pool
            for after in pool
            if before.facts.plane == after.facts.plane == plane
            and (before.facts.contrast, after.facts.contrast) == ("t1", "t1_post")
            and before.facts.fat_suppressed == after.facts.fat_suppressed
            and _similar(before.facts.echo_time_ms, after.facts.echo_time_ms)
            and _similar(before.facts.repetition_time_ms, after.facts.repetition_time_ms)
        ]
        pairs.sort(key=lambda pair: min(_shows(i.stack, myelogram) for i in pair))
        readable = (pair for pair in pairs[::-1] if all(pixels.readable(i.stack) for i in pair))
        found += list(islice(readable, 1))
    return found


def _similar(one: float | None, other: float | None) -> bool:
    """Return whether two times, if known, differ little."""
    return one is None or other is None or isclose(one, other, rel_tol=_SIMILAR_TIMING)


def _is_in(stack: SeriesStack, stacks: Sequence[SeriesStack]) -> bool:
    """Return whether a stack is one of `stacks`: the same object, as equal ones may be repeats."""
    return any(stack is other for other in stacks)


def _use_notes(
    judged: list[ClassifiedSeries],
    members: list[ClassifiedSeries],
    used: Sequence[SeriesStack],
    *,
    chosen_by_user: bool,
) -> list[Note]:
    """Notes on myelograms that were not used, and on series of which a part was used."""
    found = [] if chosen_by_user else _unused_myelograms(judged, members)
    fluid = {_series_of(item) for item in members}
    series = dict.fromkeys(_series_of(item) for item in judged if _is_in(item.stack, used))
    for key in sorted(series, key=lambda key: key not in fluid):
        parts = [item for item in judged if _series_of(item) == key and _is_image(item)]
        found += _part_notes(parts, used, is_fluid=key in fluid)
    return found


def _intrathecal_notes(judged: list[ClassifiedSeries]) -> list[Note]:
    """Notes on series with contrast in the CSF, which are not T1 companions."""
    return [
        note("intrathecal_contrast", series=_number(item), reason=item.reason)
        for item in judged
        if item.facts.intrathecal and item.set_aside and item.facts.contrast in ("t1", "t1_post")
    ]


def _series_of(item: ClassifiedSeries) -> tuple[object, ...]:
    """Return what identifies a series; identifiers alone may not be unique."""
    stack = item.stack
    own = id(stack) if stack.series_instance_uid is None else stack.series_instance_uid
    return own, stack.series_number, stack.description


def _is_image(item: ClassifiedSeries) -> bool:
    """Return whether a stack is not an overview or document within its series."""
    excluded = any(note.definition.excludes_series for note in item.stack.notes)
    return item.role not in ("projection", "localizer") and not excluded


def _unused_myelograms(
    judged: list[ClassifiedSeries], members: list[ClassifiedSeries]
) -> list[Note]:
    """Notes on series that appear to be the myelogram, but cannot be used.

    If another myelogram is used, series that are no image of fluid are not mentioned.
    """
    fluid = {_series_of(item) for item in members}
    roles: set[Role] = {"unreadable"} if members[0].role == "myelogram" else {"unreadable", "other"}
    concerned: dict[tuple[object, ...], ClassifiedSeries] = {}
    for item in sorted(judged, key=lambda item: item.stack.n_instances, reverse=True):
        if item.facts.intrathecal:
            continue  # has a note of its own
        if item.role in roles and item.facts.appears_myelogram and _series_of(item) not in fluid:
            concerned.setdefault(_series_of(item), item)
    return [
        note(
            "myelogram_not_used",
            series=_number(item),
            evidence=_evidence(item),
            reason=item.reason,
        )
        for item in concerned.values()
    ]


def _number(item: ClassifiedSeries) -> str:
    return "without number" if item.stack.series_number is None else str(item.stack.series_number)


def _evidence(item: ClassifiedSeries) -> str:
    return "name" if item.facts.named_myelography else "echo time"


def _part_notes(
    parts: list[ClassifiedSeries], used: Sequence[SeriesStack], *, is_fluid: bool
) -> list[Note]:
    """Count the images of one series that were not used."""
    ours = [item for item in parts if _is_in(item.stack, used)]
    others = [item for item in parts if not _is_in(item.stack, used)]
    if not ours:
        return []
    grids = [item.stack.geometry for item in ours if item.stack.geometry is not None]
    versions = [item for item in others if _is_covered(item.stack.geometry, grids)]
    rest = [item for item in others if item not in versions]
    truncated = max(item.stack.n_truncated for item in ours)
    n_used = sum(item.stack.n_instances for item in ours)
    values: dict[str, object] = {"series": _number(ours[0])}
    found = []
    slices = [item for item in rest if _is_parallel(item.stack.geometry, grids)]
    missing = truncated + sum(item.stack.n_instances for item in slices)
    left = truncated + sum(item.stack.n_instances for item in rest)
    incomplete = is_fluid and missing > _MAX_LEFT_OUT * (n_used + missing)
    if rest or incomplete:  # truncated images alone have a note of the loader
        code, counted = (
            ("series_incomplete", slices) if incomplete else ("series_partly_used", rest)
        )
        number = missing if incomplete else left
        reasons = dict.fromkeys(_why_apart(item, ours[0]) for item in counted)
        why = "; ".join([*reasons, *(["truncated"] if truncated else [])])
        found.append(note(code, left=number, total=n_used + number, reason=why, **values))
    if versions:
        extra = sum(item.stack.n_instances for item in versions)
        total = n_used + extra
        found.append(note("series_partly_used", "versions", left=extra, total=total, **values))
    return found


def _why_apart(item: ClassifiedSeries, ours: ClassifiedSeries) -> str:
    """Return why images are not part of the stack that was used."""
    one, other = item.stack.geometry, ours.stack.geometry
    if one is None or other is None or item.set_aside:
        return item.reason
    te, our_te = item.facts.echo_time_ms, ours.facts.echo_time_ms
    if te is not None and our_te is not None and not isclose(te, our_te, rel_tol=0.01):
        return f"echo time {te:.6g} ms instead of {our_te:.6g} ms"
    cosine = min(1.0, abs(float(one.directions_lps[:, 2] @ other.directions_lps[:, 2])))
    rows = min(1.0, abs(float(one.directions_lps[:, 0] @ other.directions_lps[:, 0])))
    degrees = np.degrees(np.arccos(min(cosine, rows)))
    if degrees > _MIN_OTHER_ORIENTATION_DEG:
        return f"orientation different by {degrees:.1f} degrees"
    if one.shape[1:] != other.shape[1:] or not np.allclose(
        one.spacing_ijk_mm[:2], other.spacing_ijk_mm[:2], rtol=1e-3
    ):
        return "other matrix or pixel spacing"
    if one.frame_of_reference_uid != other.frame_of_reference_uid:
        return "other frame of reference"
    return "not adjacent to the slices used, or other image type"


def _is_parallel(geometry: Geometry | None, grids: list[Geometry]) -> bool:
    """Return whether slices are about parallel to those of a grid; unknown positions count."""
    return geometry is None or any(
        abs(geometry.directions_lps[:, 2] @ grid.directions_lps[:, 2]) > _PARALLEL for grid in grids
    )


def _is_covered(geometry: Geometry | None, grids: list[Geometry]) -> bool:
    """Return whether every slice lies at the position of a slice of one of the grids."""
    if geometry is None or not _is_parallel(geometry, grids):
        return False
    k = np.arange(geometry.shape[0])
    center = [(n - 1) / 2 for n in geometry.shape[1:]]
    centers = geometry.lps_from_kji(np.stack([k, *(np.full(k.shape, c) for c in center)], axis=1))
    covered = np.zeros(k.shape, dtype=bool)
    for grid in grids:
        places = grid.kji_from_lps(centers)
        inside = (places > -0.5) & (places < np.array(grid.shape) - 0.5)
        on_slice = np.abs(places[:, 0] - np.round(places[:, 0])) < _SAME_SLICE
        covered |= inside.all(axis=1) & on_slice
    return bool(covered.all())


def _with_fat_fact(volume: Volume, chosen: ClassifiedSeries) -> Volume:
    """Record in the provenance whether the header states fat suppression."""
    stated = chosen.facts.fat_suppressed or chosen.facts.contrast == "stir"
    if stated == volume.provenance.fat_suppressed:
        return volume  # the same object: its network output may already be computed
    return replace(volume, provenance=replace(volume.provenance, fat_suppressed=stated))


def _fluid_score(item: ClassifiedSeries) -> float:
    facts = item.facts
    score = item.score + 2.0 * (facts.fat_suppressed or facts.contrast == "stir")
    score += 1.0 * (facts.plane == "sagittal")
    return score - 3.0 * facts.is_silent


def _choose_fluid(
    judged: list[ClassifiedSeries],
    settings: LoaderSettings,
    pixels: Pixels,
    wanted: str | None,
) -> tuple[list[ClassifiedSeries], Volume, list[Note]]:
    """Select the stack (or stations) used to detect fluid, and its volume."""
    if wanted is not None:
        chosen = _named(judged, wanted)
        return [chosen], pixels.of(chosen.stack), []
    myelograms = sorted(
        (item for item in judged if item.role == "myelogram"),
        key=lambda item: (item.score, item.stack.n_instances),
        reverse=True,
    )
    _require_one_file(myelograms or [item for item in judged if item.fluid_sensitive])
    if myelograms:
        members, volume, notes = _join_stations(myelograms, settings, pixels)
        return members, volume, [*notes, *_weighting_notes(members[0])]
    for item in sorted((i for i in judged if i.fluid_sensitive), key=_fluid_score, reverse=True):
        try:
            volume = pixels.of(item.stack)
        except InputError:
            continue
        if item.facts.region == "unknown" and looks_like_head(volume):
            raise InputError(
                "the images appear to show a head (its width, with air lateral to and above it), "
                "not a spine: select the spine study, or specify the series to use it anyway"
            )
        return [item], volume, [_substitute_note(item)]
    raise InputError(_refusal(judged))


def _weighting_notes(item: ClassifiedSeries) -> list[Note]:
    if item.facts.contrast == "steady_state":
        return [note("steady_state_myelogram")]
    if item.gate is not None and item.gate.weighting == "conventional":
        return [note("weak_t2_weighting")]
    return []


def _require_one_file(candidates: list[ClassifiedSeries]) -> None:
    """Reject several candidate files without headers: they may be of different patients."""
    files = [item for item in candidates if item.stack.series_instance_uid is None]
    if len(files) > 1:
        raise InputError(
            f"{len(files)} volume files without headers could be analyzed; specify one file"
        )


def _substitute_note(item: ClassifiedSeries) -> Note:
    fat = (
        "fat is suppressed on it"
        if item.facts.fat_suppressed or item.facts.contrast == "stir"
        else "fat may resemble fluid on it"
    )
    known = ""
    if item.facts.is_silent:
        known = "identified by its pixels only, as its file has no acquisition header"
        known += "; " if item.facts.confirmed_by_pixels else ", and they do not rule out T1; "
    return note("no_myelogram", identification=known, fat=fat)


def _join_stations(
    ranked: list[ClassifiedSeries], settings: LoaderSettings, pixels: Pixels
) -> tuple[list[ClassifiedSeries], Volume, list[Note]]:
    """Return the best myelogram, or the composed stations of its protocol, main one first.

    For a series composed by the scanner, its grid is used with the signal of the stations:
    scanners leave gain steps between stations.
    """
    stations = find_stations([item.stack for item in ranked])
    parts = sorted((ranked[n] for n in stations.parts), key=lambda item: _center_z(item.stack))
    whole = None if stations.whole is None else ranked[stations.whole]
    if whole is not None and not covers([item.stack for item in parts], whole.stack):
        return [whole], pixels.of(whole.stack), []
    if not adjoin([item.stack for item in parts]):
        notes = [note("one_of_several_stations", count=len(parts))]
        return parts[:1], pixels.of(parts[0].stack), notes
    joined = compose_stations([pixels.of(i.stack) for i in parts], settings.max_station_movement_mm)
    notes = [note("stations_stitched", count=len(parts), moved_mm=joined.moved_mm)]
    if whole is None or whole.stack.geometry is None:
        return parts, joined.volume, notes
    volume = joined.volume.resample(whole.stack.geometry)
    provenance = replace(
        volume.provenance, series_instance_uid=whole.stack.series_instance_uid,
        series_description=whole.stack.description,
    )  # fmt: skip
    return [whole, *parts], replace(volume, provenance=provenance), notes


def _center_z(stack: SeriesStack) -> float:
    return 0.0 if stack.geometry is None else float(stack.geometry.center_lps[2])


def _named(judged: list[ClassifiedSeries], wanted: str) -> ClassifiedSeries:
    """Return the largest volume of a user-specified series, by UID or series number."""
    found = [
        item
        for item in judged
        if wanted in (item.stack.series_instance_uid, str(item.stack.series_number))
    ]
    if not found:
        raise InputError(f"no series {wanted} in this study; `leakloc series` lists them")
    usable = [i for i in found if i.stack.geometry is not None and i.role != "projection"]
    if not usable:
        raise InputError(f"series {wanted} cannot be used: {found[0].reason}")
    if {item.stack.modality for item in usable} - {"MR", ""}:
        raise InputError(f"series {wanted} cannot be used: {usable[0].reason}")
    return max(usable, key=lambda item: item.stack.n_instances)


def _with_suppressed_t2(
    judged: list[ClassifiedSeries], members: Sequence[ClassifiedSeries]
) -> list[ClassifiedSeries]:
    """Assign fat-suppressed sagittal T2 the role of STIR, if there is T2 with fat but no STIR."""
    others = [item for item in judged if not any(item is member for member in members)]
    t2 = [item for item in others if item.role == "sagittal_t2"]
    is_suppressed = [bool(item.facts.fat_suppressed) for item in t2]
    has_stir = any(item.role == "sagittal_stir" for item in others)
    if has_stir or all(is_suppressed):
        return judged
    chosen = {id(item) for item, suppressed in zip(t2, is_suppressed, strict=True) if suppressed}
    return [replace(item, role="sagittal_stir") if id(item) in chosen else item for item in judged]


def _choose_companions(
    judged: list[ClassifiedSeries],
    chosen: ClassifiedSeries,
    myelogram: Volume,
    pixels: Pixels,
    wanted: Sequence[str],
) -> tuple[dict[Role, list[ClassifiedSeries]], list[Note]]:
    """Select the best companion of every role; sagittal ones with their adjacent stations."""
    picked = [_as_companion(_named(judged, uid)) for uid in wanted]
    pool = picked if wanted else [item for item in judged if item.role in _COMPANIONS]
    companions: dict[Role, list[ClassifiedSeries]] = {}
    notes: list[Note] = []
    if chosen.role in _COMPANIONS:
        companions[chosen.role] = [chosen]

    def rank(item: ClassifiedSeries) -> tuple[bool, float]:
        """Prefer series that overlap the myelogram, e.g. not the cervical station."""
        return _shows(item.stack, myelogram) >= _SHARED_FIELD, item.score

    for role in _COMPANIONS:
        ranked = sorted((i for i in pool if i.role == role), key=rank, reverse=True)
        if role in companions or not ranked:
            continue
        fusable = [item for item in ranked if _same_frame(item.stack, chosen.stack)]
        if not fusable and role not in _FOR_LEVELS:
            notes.append(note("companion_other_frame", "not_used", series=_name(ranked[0])))
            continue
        readable = [item for item in fusable or ranked if pixels.readable(item.stack)]
        for item in readable[:1]:
            more = neighbors([i.stack for i in readable]) if role in _FOR_LEVELS else ()
            companions[role] = [item, *(readable[n] for n in more)]
            if item.stack.series_instance_uid is None and fusable:
                notes.append(note("companion_frame_assumed", series=item.role.replace("_", " ")))
    return companions, notes


def _choose_counting(
    unused: list[ClassifiedSeries],
    chosen: ClassifiedSeries,
    myelogram: Volume,
    top_mm: float,
    pixels: Pixels,
) -> list[ClassifiedSeries]:
    """Select a series (with its stations) that shows the spine up to the neck, as the localizer.

    Whole-spine localizers and fast sagittal series are acquired for counting levels. Empty if the
    series in use, which reach up to `top_mm`, show as much.
    """
    pool = [
        item
        for item in unused
        if item.role in (*_FOR_LEVELS, "localizer")
        and item.facts.plane == "sagittal"
        and item.stack.geometry is not None
        and item.stack.geometry.shape[0] >= _PLANES_TO_COUNT
        and _same_frame(item.stack, chosen.stack)
        and item.stack.series_instance_uid is not None
    ]
    for item in sorted(pool, key=lambda i: _shows(i.stack, myelogram), reverse=True):
        rest = [item, *(other for other in pool if other is not item)]
        parts = [item, *(rest[n] for n in neighbors([i.stack for i in rest]))]
        highest = max(p.stack.geometry.top_mm for p in parts if p.stack.geometry is not None)
        if _shows(item.stack, myelogram) < _SHARED_FIELD or highest < top_mm + _UP_TO_THE_NECK_MM:
            continue
        if all(pixels.readable(part.stack) for part in parts):
            return parts
    return []


def _shows(stack: SeriesStack, myelogram: Volume) -> float:
    """Craniocaudal overlap of a stack with the myelogram, as a fraction of the shorter extent."""
    return 0.0 if stack.geometry is None else shared_extent(stack.geometry, myelogram.geometry)


def _whole(
    role: Role, parts: list[ClassifiedSeries], pixels: Pixels, settings: LoaderSettings
) -> tuple[Volume, list[Note]]:
    """Return the volume of a companion, composed of all its stations."""
    volumes = [pixels.of(part.stack) for part in parts]
    if len(parts) == 1:
        return volumes[0], []
    joined = compose_stations(volumes, settings.max_station_movement_mm)
    values = {"count": len(parts), "series": role.replace("_", " "), "moved_mm": joined.moved_mm}
    return joined.volume, [note("companion_stations_stitched", **values)]


def _placed(
    companion: ClassifiedSeries,
    volume: Volume,
    chosen: ClassifiedSeries,
    aligner: Aligner,
    *,
    verify: bool,
) -> tuple[Volume | None, list[Note]]:
    """Align a companion with the myelogram; None if the alignment is unknown."""
    name = _name(companion)
    if not _same_frame(companion.stack, chosen.stack):
        return aligner.registered(volume, name)
    return aligner.verified(volume, name) if verify else (volume, [])


def _name(item: ClassifiedSeries) -> str:
    number = "" if item.stack.series_number is None else f" (series {item.stack.series_number})"
    return f"{item.role.replace('_', ' ')}{number}"


def _as_companion(item: ClassifiedSeries) -> ClassifiedSeries:
    if item.role in _COMPANIONS:
        return item
    role: Role = "axial_t2" if item.facts.plane == "axial" else "sagittal_t2"
    return replace(item, role=role)


def _same_frame(one: SeriesStack, other: SeriesStack) -> bool:
    if one.geometry is None or other.geometry is None:
        return False
    same = one.geometry.frame_of_reference_uid == other.geometry.frame_of_reference_uid
    if one.series_instance_uid is None or other.series_instance_uid is None:
        return same and overlap_fraction(one.geometry, other.geometry) >= _SHARED_FIELD
    return same


def _refusal(judged: Iterable[ClassifiedSeries]) -> str:
    """Return in one sentence why none of the series can be analyzed."""
    items = list(judged)
    modalities = {item.stack.modality for item in items}
    if not modalities & {"MR", ""}:
        if modalities == {"CT"}:
            named = [item for item in items if item.facts.named_myelography]
            return f"{other_modality('CT', (named or items)[0].facts)}; specify the MR study"
        listed = ", ".join(sorted(modalities))
        return f"modality {listed}: leakloc reads MR myelography; specify the MR study"
    mr = [item for item in items if item.stack.modality in ("MR", "")]
    if any(item.facts.region == "brain" for item in mr) and not any(
        item.facts.region == "spine" for item in mr
    ):
        return "this is an MR of the brain or head, not of the spine: select the spine study"
    if any(item.facts.region == "elsewhere" for item in mr) and not any(
        item.facts.region == "spine" for item in mr
    ):
        return "this MR shows another body part, not the spine: select the spine study"
    concerned = [
        item
        for item in sorted(mr, key=lambda item: item.stack.n_instances, reverse=True)
        if item.role in ("unreadable", "other") and item.facts.appears_myelogram
    ]
    if concerned:
        item = concerned[0]
        return (
            f"{_label(item.stack)} appears to be a myelogram by its {_evidence(item)}, but cannot "
            f"be used: {item.reason}"
        )
    present = {item.role for item in mr}
    if present <= {"localizer", "other"} and "localizer" in present:
        return "only a localizer can be read: include the myelographic or sagittal T2 series"
    if "projection" in present and not any(
        item.stack.geometry is not None and item.role not in ("projection", "localizer")
        for item in mr
    ):
        return (
            "only thick-slab or other projection images: they have no depth, so neither level nor "
            "volume can be determined; include the 3D or multislice series"
        )
    irregular = sorted(
        (item for item in mr if item.stack.geometry is None),
        key=lambda item: (item.facts.contrast in ("t2", "stir"), item.stack.n_instances),
        reverse=True,
    )
    if len(irregular) == len(mr):
        return f"no series has regular geometry: {irregular[0].reason}"
    counts = ", ".join(sorted(f"{_label(item.stack)}: {item.reason}" for item in mr)[:4])
    return f"no fluid-sensitive (T2-weighted) volume of the spine among {len(mr)} series ({counts})"


def _label(stack: SeriesStack) -> str:
    return "file" if stack.series_number is None else f"series {stack.series_number}"
