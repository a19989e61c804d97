"""Choosing the series the analysis uses, from the roles that `leakloc.loaders.roles` gives.

Thick slabs and other projections have no depth and are never used for level or volume. Where
nothing can be used, the study is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import InputError
from leakloc.core.notes import Note
from leakloc.core.volume import Volume
from leakloc.loaders.alignment import Aligner
from leakloc.loaders.gate import looks_like_head
from leakloc.loaders.roles import Judged, Pixels, finished, judge_all
from leakloc.loaders.stations import (
    adjoin,
    covers,
    find_stations,
    neighbours,
    overlap_fraction,
    shared_extent,
    stitch,
)
from leakloc.loaders.study import SeriesStack, Study, Triage

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_SHARED_FIELD: Final = 0.5
"""Share of the smaller field from which two files without headers may show one place."""
_COMPANIONS: Final[tuple[Role, ...]] = (
    "sagittal_t2",
    "sagittal_stir",
    "axial_t2",
    "sagittal_t1",
    "axial_t1_post",
)
_UP_TO_THE_NECK_MM: Final = 150.0
"""Field above all others' from which a coarse series is worth counting levels on: from T6, as high
as lumbar series reach, C2 is 200 mm away."""
_PLANES_TO_COUNT: Final = 3
"""Fewer sagittal planes, about 10 mm apart, miss the spine where it curves to a side."""
_FOR_LEVELS: Final[frozenset[Role]] = frozenset({"sagittal_t2", "sagittal_stir", "sagittal_t1"})


def triage(
    study: Study,
    settings: LoaderSettings,
    *,
    myelogram_uid: str | None = None,
    companion_uids: Sequence[str] = (),
    verify: bool | None = None,
) -> Triage:
    """Give every stack its role and choose the volumes to analyse.

    Parameters
    ----------
    study : Study
    settings : LoaderSettings
    myelogram_uid : str, optional
        Series Instance UID, or series number, of the series to find fluid on.
    companion_uids : sequence of str
        The only series to use beside it, if any are named.
    verify : bool, optional
        Whether to look if companions show the patient where the myelogram does; as
        `settings.verify_companions` says where None.

    Returns
    -------
    Triage
        Where no series is heavily T2-weighted, the best fluid-sensitive volume stands in for
        the myelogram and the note ``no_myelogram`` says so.

    Raises
    ------
    InputError
        If the study holds no usable fluid-sensitive volume of the spine; the message says why.
    """
    pixels = Pixels()
    judged = judge_all(study, settings, pixels)
    notes: list[Note] = []
    members, volume = _choose_fluid(judged, settings, pixels, notes, myelogram_uid)
    chosen = members[0]
    volume = _with_fat_fact(volume, chosen)
    companions = _choose_companions(judged, chosen, volume, pixels, notes, companion_uids)
    used: dict[int, tuple[str, ...]] = {id(item.stack): ("fluid",) for item in members}
    volumes: dict[Role, Volume] = {}
    verify = settings.verify_companions if verify is None else verify
    aligner = Aligner(volume, settings)
    for role, parts in companions.items():
        if parts[0] is chosen:
            placed: Volume | None = volume
        else:
            whole, joined = _whole(role, parts, pixels, settings)
            placed, found = _placed(role, parts[0], whole, chosen, aligner, verify=verify)
            notes += [*joined, *found] if placed is not None else found
        if placed is None:
            continue
        volumes[role] = placed
        if role in _FOR_LEVELS:
            for part in parts:
                used[id(part.stack)] = (*used.get(id(part.stack), ()), "levels")
    if not companion_uids:
        _add_counting(judged, chosen, volume, volumes, used, pixels, settings)
    if not _FOR_LEVELS & volumes.keys():
        used.update({id(item.stack): ("fluid", "levels") for item in members})
    beside = (part for parts in companions.values() for part in parts)
    for item in {id(c): c for c in (*members, *beside)}.values():
        notes += [note for note in item.stack.notes if note not in notes]
    stacks = tuple(finished(item, used.get(id(item.stack), ())) for item in judged)
    return Triage(stacks, volume, volumes, tuple(notes))


def _with_fat_fact(volume: Volume, chosen: Judged) -> Volume:
    """The volume to find fluid on, with what its header states about fat."""
    stated = chosen.facts.fat_suppressed or chosen.facts.contrast == "stir"
    return replace(volume, provenance=replace(volume.provenance, fat_suppressed=stated))


def _fluid_score(item: Judged) -> float:
    facts = item.facts
    score = item.score + 2.0 * (facts.fat_suppressed or facts.contrast == "stir")
    score += 1.0 * (facts.plane == "sagittal")
    return score - 3.0 * facts.is_silent


def _choose_fluid(
    judged: list[Judged],
    settings: LoaderSettings,
    pixels: Pixels,
    notes: list[Note],
    wanted: str | None,
) -> tuple[list[Judged], Volume]:
    """The stack (or stations) to find fluid on, and its volume."""
    if wanted is not None:
        chosen = _named(judged, wanted)
        return [chosen], pixels.of(chosen.stack)
    myelograms = sorted(
        (item for item in judged if item.role == "myelogram"), key=lambda i: i.score, reverse=True
    )
    _demand_one_file(myelograms or [item for item in judged if item.fluid_sensitive])
    if myelograms:
        members, volume = _join_stations(myelograms, settings, pixels, notes)
        notes += _weighting_notes(members[0])
        return members, volume
    for item in sorted((i for i in judged if i.fluid_sensitive), key=_fluid_score, reverse=True):
        try:
            volume = pixels.of(item.stack)
        except InputError:
            continue
        if item.facts.region == "unknown" and looks_like_head(volume):
            raise InputError(
                "the images look like a head (its width, with air beside and above it), not like a "
                "spine: choose the spine study, or name the series to use all the same"
            )
        notes.append(_stand_in_note(item))
        return [item], volume
    raise InputError(_refusal(judged))


def _weighting_notes(item: Judged) -> list[Note]:
    if item.facts.contrast == "steady_state":
        text = "the myelogram is a balanced steady-state series, on which fat is bright as well"
        return [Note("steady_state_myelogram", text)]
    if item.gate is not None and item.gate.weighting == "conventional":
        text = "the series named myelography shows tissue as bright as ordinary T2 images do"
        return [Note("weak_t2_weighting", text)]
    return []


def _demand_one_file(candidates: list[Judged]) -> None:
    """Files without headers may show different patients, so none is preferred silently."""
    files = [item for item in candidates if item.stack.series_instance_uid is None]
    if len(files) > 1:
        raise InputError(
            f"{len(files)} volume files without headers could be the one to analyse; name one file"
        )


def _stand_in_note(item: Judged) -> Note:
    fat = (
        "fat is suppressed on it"
        if item.facts.fat_suppressed or item.facts.contrast == "stir"
        else "fat may look like fluid on it"
    )
    known = ""
    if item.facts.is_silent:
        known = "by its pixels alone, as its file has no acquisition header"
        known += "; " if item.facts.confirmed_by_pixels else ", and they do not rule out T1; "
    return Note(
        "no_myelogram",
        f"no heavily T2-weighted series was found; an ordinary fluid-sensitive volume was used "
        f"instead, {known}{fat}",
    )


def _join_stations(
    ranked: list[Judged], settings: LoaderSettings, pixels: Pixels, notes: list[Note]
) -> tuple[list[Judged], Volume]:
    """The best myelogram, or the stations of its protocol joined; the main one first.

    A series that the scanner composed keeps its grid, but takes the signal of its stations:
    scanners leave steps of gain at the joints.
    """
    stations = find_stations([item.stack for item in ranked])
    parts = sorted((ranked[n] for n in stations.parts), key=lambda item: _center_z(item.stack))
    whole = None if stations.whole is None else ranked[stations.whole]
    if whole is not None and not covers([item.stack for item in parts], whole.stack):
        return [whole], pixels.of(whole.stack)
    if not adjoin([item.stack for item in parts]):
        text = f"{len(parts)} stations do not overlap; the most caudal one was analysed"
        notes.append(Note("one_of_several_stations", text))
        return parts[:1], pixels.of(parts[0].stack)
    joined = stitch([pixels.of(i.stack) for i in parts], settings.max_station_movement_mm)
    notes.append(
        Note(
            "stations_stitched",
            f"{len(parts)} stations of one myelography were joined: gains matched, movement of up "
            f"to {joined.moved_mm:.1f} mm between stations undone",
        )
    )
    if whole is None or whole.stack.geometry is None:
        return parts, joined.volume
    volume = joined.volume.resample(whole.stack.geometry)
    provenance = replace(
        volume.provenance, series_instance_uid=whole.stack.series_instance_uid,
        series_description=whole.stack.description,
    )  # fmt: skip
    return [whole, *parts], replace(volume, provenance=provenance)


def _center_z(stack: SeriesStack) -> float:
    return 0.0 if stack.geometry is None else float(stack.geometry.center_lps[2])


def _named(judged: list[Judged], wanted: str) -> Judged:
    """The largest volume of a series the user chose, by UID or series number."""
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


def _choose_companions(
    judged: list[Judged],
    chosen: Judged,
    myelogram: Volume,
    pixels: Pixels,
    notes: list[Note],
    wanted: Sequence[str],
) -> dict[Role, list[Judged]]:
    """The best companion of every role; of sagittal ones with the stations that adjoin it."""
    picked = [_as_companion(_named(judged, uid)) for uid in wanted]
    pool = picked if wanted else [item for item in judged if item.role in _COMPANIONS]
    companions: dict[Role, list[Judged]] = {}
    if chosen.role in _COMPANIONS:
        companions[chosen.role] = [chosen]

    def rank(item: Judged) -> tuple[bool, float]:
        """Those that show the myelogram's place first: of stations, not the neck's."""
        return _shows(item.stack, myelogram) >= _SHARED_FIELD, item.score

    for role in _COMPANIONS:
        ranked = sorted((i for i in pool if i.role == role), key=rank, reverse=True)
        if role in companions or not ranked:
            continue
        fusable = [item for item in ranked if _same_frame(item.stack, chosen.stack)]
        if not fusable and role not in _FOR_LEVELS:
            notes.append(_other_frame(ranked[0]))
            continue
        readable = [item for item in fusable or ranked if pixels.readable(item.stack)]
        for item in readable[:1]:
            more = neighbours([i.stack for i in readable]) if role in _FOR_LEVELS else ()
            companions[role] = [item, *(readable[n] for n in more)]
            if item.stack.series_instance_uid is None and fusable:
                notes.append(_assumed_frame(item))
    return companions


def _add_counting(
    judged: list[Judged],
    chosen: Judged,
    myelogram: Volume,
    volumes: dict[Role, Volume],
    used: dict[int, tuple[str, ...]],
    pixels: Pixels,
    settings: LoaderSettings,
) -> None:
    """Add, as the localizer, what shows the spine up to the neck where nothing else does.

    Localizers of the whole spine and quick sagittal series are made to count the levels on.
    """
    others = [v.geometry for role, v in volumes.items() if role in _FOR_LEVELS]
    top = max(geometry.top_mm for geometry in (myelogram.geometry, *others))
    pool = [
        item
        for item in judged
        if item.role in (*_FOR_LEVELS, "localizer")
        and item.facts.plane == "sagittal"
        and id(item.stack) not in used
        and item.stack.geometry is not None
        and item.stack.geometry.shape[0] >= _PLANES_TO_COUNT
        and _same_frame(item.stack, chosen.stack)
        and item.stack.series_instance_uid is not None
    ]
    for item in sorted(pool, key=lambda i: _shows(i.stack, myelogram), reverse=True):
        rest = [item, *(other for other in pool if other is not item)]
        parts = [item, *(rest[n] for n in neighbours([i.stack for i in rest]))]
        highest = max(p.stack.geometry.top_mm for p in parts if p.stack.geometry is not None)
        if _shows(item.stack, myelogram) < _SHARED_FIELD or highest < top + _UP_TO_THE_NECK_MM:
            continue
        if all(pixels.readable(part.stack) for part in parts):
            volumes["localizer"] = _whole("localizer", parts, pixels, settings)[0]
            used.update({id(part.stack): ("levels",) for part in parts})
            return


def _shows(stack: SeriesStack, myelogram: Volume) -> float:
    """Share of the shorter extent along the body that a stack has in common with the myelogram."""
    return 0.0 if stack.geometry is None else shared_extent(stack.geometry, myelogram.geometry)


def _whole(
    role: Role, parts: list[Judged], pixels: Pixels, settings: LoaderSettings
) -> tuple[Volume, list[Note]]:
    """A companion's volume, of all its stations."""
    volumes = [pixels.of(part.stack) for part in parts]
    if len(parts) == 1:
        return volumes[0], []
    joined = stitch(volumes, settings.max_station_movement_mm)
    text = (
        f"{len(parts)} stations of the {role.replace('_', ' ')} series were joined to count the "
        f"levels: movement of up to {joined.moved_mm:.1f} mm between stations undone"
    )
    return joined.volume, [Note("companion_stations_stitched", text)]


def _placed(
    role: Role, companion: Judged, volume: Volume, chosen: Judged, aligner: Aligner, *, verify: bool
) -> tuple[Volume | None, list[Note]]:
    """A companion's volume where the myelogram shows the same; None where that is unknown."""
    name = _name(companion)
    if not _same_frame(companion.stack, chosen.stack):
        return aligner.registered(volume, name)
    return aligner.verified(volume, name) if verify and role in _FOR_LEVELS else (volume, [])


def _name(item: Judged) -> str:
    number = "" if item.stack.series_number is None else f" (series {item.stack.series_number})"
    return f"{item.role.replace('_', ' ')}{number}"


def _as_companion(item: Judged) -> Judged:
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


def _assumed_frame(item: Judged) -> Note:
    return Note(
        "companion_frame_assumed",
        f"the {item.role.replace('_', ' ')} file states no frame of reference; as it covers the "
        "same place as the myelogram, it was taken to share its coordinates",
    )


def _other_frame(item: Judged) -> Note:
    return Note(
        "companion_other_frame",
        f"the {_name(item)} lies in another frame of reference than the myelogram, so it was not "
        "combined with it",
    )


def _refusal(judged: Iterable[Judged]) -> str:
    """Why none of the series can be analysed, in one sentence."""
    items = list(judged)
    modalities = {item.stack.modality for item in items}
    if not modalities & {"MR", ""}:
        listed = ", ".join(sorted(modalities))
        return f"modality {listed}: leakloc reads MR myelography, give it the MR study"
    mr = [item for item in items if item.stack.modality in ("MR", "")]
    if any(item.facts.region == "brain" for item in mr) and not any(
        item.facts.region == "spine" for item in mr
    ):
        return "this is an MR of the brain or head, not of the spine: choose the spine study"
    if any(item.facts.region == "elsewhere" for item in mr) and not any(
        item.facts.region == "spine" for item in mr
    ):
        return "this MR shows another body part, not the spine: choose the spine study"
    present = {item.role for item in mr}
    if present <= {"localizer", "other"} and "localizer" in present:
        return "only a localizer can be read: send the myelographic or sagittal T2 series too"
    if "projection" in present and not any(
        item.stack.geometry is not None and item.role not in ("projection", "localizer")
        for item in mr
    ):
        return (
            "only thick-slab or other projection images: they have no depth, so neither level nor "
            "volume can be told; send the 3D or multislice series"
        )
    irregular = [item for item in mr if item.stack.geometry is None]
    if len(irregular) == len(mr):
        return f"no series has regular geometry: {irregular[0].reason}"
    counts = ", ".join(sorted(f"{_label(item.stack)}: {item.reason}" for item in mr)[:4])
    return f"no fluid-sensitive (T2-weighted) volume of the spine among {len(mr)} series ({counts})"


def _label(stack: SeriesStack) -> str:
    return "file" if stack.series_number is None else f"series {stack.series_number}"
