"""Choosing the series: what each stack is, and which ones the analysis uses.

Rules on headers and names come first, pixels decide whether a candidate really is heavily
T2-weighted. Every stack keeps one sentence that says which rule gave it its role. Thick slabs
and other projections have no depth and are never used for level or volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from leakloc.errors import InputError
from leakloc.loaders import names
from leakloc.loaders.facts import Facts, gather
from leakloc.loaders.gate import Gate, looks_like_head, looks_like_labels, weigh
from leakloc.loaders.stations import adjoin, covers, find_stations, overlap_share, stitch
from leakloc.loaders.study import SeriesStack, Study, Triage, TriagedStack
from leakloc.notes import Note
from leakloc.vocabulary import Role
from leakloc.volume import Volume

if TYPE_CHECKING:
    from leakloc.settings import LoaderSettings

_PHASE_OR_FAT: Final = {
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"), "a phase image"),
    **dict.fromkeys(("F", "FAT"), "the fat image of a Dixon series"),
    **dict.fromkeys(("IP", "IN", "IN_PHASE"), "an in-phase image of a Dixon series"),
    **dict.fromkeys(("OP", "OPP", "OPP_PHASE", "OUT_PHASE"), "an opposed-phase image"),
    **dict.fromkeys(("ADC", "T2MAP", "T1MAP", "SUB", "SUBTRACTION"), "a computed map"),
}
_PROJECTIONS: Final = frozenset(
    {"PROJECTION IMAGE", "MIP", "MNIP", "MAX_IP", "MIN_IP", "MPR", "CURVED_MPR", "VOLUME_RENDER"}
)
_LOCALIZER_SLICES: Final = 7
"""Most slices per plane of a three-plane localizer."""
_SHARED_FIELD: Final = 0.5
"""Share of the smaller field from which two files without headers may show one place."""
_COMPANIONS: Final[tuple[Role, ...]] = (
    "sagittal_t2",
    "sagittal_stir",
    "axial_t2",
    "sagittal_t1",
    "axial_t1_post",
)
_FOR_LEVELS: Final[frozenset[Role]] = frozenset({"sagittal_t2", "sagittal_stir", "sagittal_t1"})


@dataclass(frozen=True)
class _Judged:
    """A stack on its way through the rules."""

    stack: SeriesStack
    facts: Facts
    role: Role
    reason: str
    gate: Gate | None = None
    score: float = 0.0

    @property
    def fluid_sensitive(self) -> bool:
        """Whether fluid is the brightest thing on it and it forms a volume."""
        usable = self.role not in ("projection", "localizer", "unreadable", "myelogram")
        # A rule that set it aside (brain, phase image, label map) gave a reason, not a contrast.
        bright = self.facts.contrast in ("t2", "stir", "heavy_t2") or self.facts.is_silent
        return usable and bright and self.stack.geometry is not None


class _Pixels:
    """Reads each stack once."""

    def __init__(self) -> None:
        self._volumes: dict[int, Volume] = {}

    def of(self, stack: SeriesStack) -> Volume:
        if id(stack) not in self._volumes:
            self._volumes[id(stack)] = stack.load()
        return self._volumes[id(stack)]


def triage(
    study: Study,
    settings: LoaderSettings,
    *,
    myelogram_uid: str | None = None,
    companion_uids: Sequence[str] = (),
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
    pixels = _Pixels()
    judged = _judge_all(study, settings, pixels)
    notes: list[Note] = []
    members, volume = _choose_fluid(judged, settings, pixels, notes, myelogram_uid)
    chosen = members[0]
    companions = _choose_companions(judged, chosen, pixels, notes, companion_uids)
    used: dict[int, tuple[str, ...]] = {id(item.stack): ("fluid",) for item in members}
    volumes: dict[Role, Volume] = {}
    for role, companion in companions.items():
        volumes[role] = volume if companion is chosen else pixels.of(companion.stack)
        if role in _FOR_LEVELS:
            used[id(companion.stack)] = (*used.get(id(companion.stack), ()), "levels")
    if not _FOR_LEVELS & volumes.keys():
        used.update({id(item.stack): ("fluid", "levels") for item in members})
    for item in {id(c): c for c in (*members, *companions.values())}.values():
        notes += [note for note in item.stack.notes if note not in notes]
    stacks = tuple(_finished(item, used.get(id(item.stack), ())) for item in judged)
    return Triage(stacks, volume, volumes, tuple(notes))


def roles(study: Study, settings: LoaderSettings) -> tuple[TriagedStack, ...]:
    """The role of every stack, without choosing any; never refuses a study."""
    return tuple(_finished(item, ()) for item in _judge_all(study, settings, _Pixels()))


def _finished(item: _Judged, used_for: tuple[str, ...]) -> TriagedStack:
    heaviness = None if item.gate is None else item.gate.ratio
    return TriagedStack(item.stack, item.role, item.reason, item.score, heaviness, used_for)


def _judge_all(study: Study, settings: LoaderSettings, pixels: _Pixels) -> list[_Judged]:
    planes: dict[str | None, set[str]] = {}
    facts = [gather(stack, settings.heavy_echo_time_ms) for stack in study.stacks]
    for stack, fact in zip(study.stacks, facts, strict=True):
        if stack.geometry is not None and fact.plane is not None:
            planes.setdefault(stack.series_instance_uid, set()).add(fact.plane)
    judged = []
    for stack, fact in zip(study.stacks, facts, strict=True):
        mixed = stack.series_instance_uid is not None and (
            len(planes.get(stack.series_instance_uid, ())) > 1
        )
        verdict = _set_aside(stack, fact, settings, mixed_planes=mixed)
        if verdict is not None:
            role, reason = verdict
            # Set aside for good: what remains unknown must not bring it back as a fallback.
            judged.append(_Judged(stack, replace(fact, contrast="flair"), role, reason))
        else:
            judged.append(_judge(stack, fact, settings, pixels))
    return [replace(item, score=_score(item, settings)) for item in judged]


def _set_aside(
    stack: SeriesStack, facts: Facts, settings: LoaderSettings, *, mixed_planes: bool
) -> tuple[Role, str] | None:
    """The rules that take a stack out before its contrast matters."""
    if stack.modality not in ("MR", ""):
        return "other", f"modality {stack.modality}: only MR is analysed"
    codes = {note.code: note.message for note in stack.notes}
    for code in ("color_image", "secondary_capture", "mosaic"):
        if code in codes:
            return "other", codes[code]
    if names.LOCALIZER.search(facts.text) or "LOCALIZER" in facts.image_type:
        return "localizer", "localizer by name or image type"
    if names.NOT_ANATOMY.search(facts.text) or "EP" in str(
        stack.parameters.get("ScanningSequence")
    ):
        return "other", "calibration, diffusion, map or document by name or sequence"
    if names.OTHER_HYDROGRAPHY.search(facts.text):
        return "other", "fluid imaging of another organ by name"
    projection = _projection(stack, facts, settings)
    if projection is not None:
        return "projection", projection
    if stack.geometry is None:
        return _without_volume(stack, codes)
    if mixed_planes and stack.geometry.shape[0] <= _LOCALIZER_SLICES:
        return "localizer", "a few slices in several planes under one series"
    for token, what in _PHASE_OR_FAT.items():
        if token in facts.image_type and not (token in ("R", "I") and "M" in facts.image_type):
            return "other", f"{what} by image type"
    dixon_part = names.DIXON_PART.search(facts.text)
    if dixon_part and not names.DIXON_WATER.search(facts.text):
        return "other", "fat, in-phase or opposed-phase part of a Dixon series by name"
    if facts.region in ("brain", "elsewhere"):
        what = "brain or head" if facts.region == "brain" else "another body part"
        return "other", f"{what} by name or body part, nothing says spine"
    return None


def _without_volume(stack: SeriesStack, codes: dict[str, str]) -> tuple[Role, str]:
    if "mixed_orientations" in codes:
        return "localizer", "single slices in several orientations"
    if "too_few_slices" in codes:
        return "other", codes["too_few_slices"]
    reason = stack.notes[-1].message if stack.notes else "the slices form no regular volume"
    return "unreadable", reason


def _projection(stack: SeriesStack, facts: Facts, settings: LoaderSettings) -> str | None:
    thickness = facts.slice_thickness_mm
    if (
        thickness is not None
        and thickness >= settings.slab_thickness_mm
        and stack.n_instances <= settings.slab_max_slices
    ):
        return f"thick slab of {thickness:.0f} mm: no depth, so overview only"
    if _PROJECTIONS & facts.image_type:
        return f"image type {', '.join(sorted(_PROJECTIONS & facts.image_type))}: a derived view"
    technique = str(stack.parameters.get("VolumeBasedCalculationTechnique", "NONE")).upper()
    if technique not in ("NONE", ""):
        return f"computed by {technique}: a derived view"
    if names.PROJECTION.search(facts.text):
        return "projection or reformat by name: a derived view"
    return None


def _judge(stack: SeriesStack, facts: Facts, settings: LoaderSettings, pixels: _Pixels) -> _Judged:
    """Contrast and plane make the role; pixels decide on heavy T2 weighting."""
    gate: Gate | None = None
    has_header = stack.series_instance_uid is not None
    if _needs_pixels(facts) or not has_header:
        try:
            volume = pixels.of(stack)
        except InputError as error:
            return _Judged(stack, replace(facts, contrast="flair"), "unreadable", str(error))
        if not has_header and looks_like_labels(volume):
            reason = "few whole-numbered values, mostly zero: a label map"
            return _Judged(stack, replace(facts, contrast="flair"), "other", reason)
        gate = weigh(volume, settings)
    role, reason = _role(facts, gate)
    return _Judged(stack, facts, role, reason, gate)


def _needs_pixels(facts: Facts) -> bool:
    if facts.contrast in ("heavy_t2", "steady_state") or facts.is_silent:
        return True
    return facts.contrast == "t2" and (facts.is_3d or facts.echo_time_ms is None)


def _role(facts: Facts, gate: Gate | None) -> tuple[Role, str]:
    why = _wording(facts)
    if gate is not None:
        share = f"tissue at {gate.ratio:.0%} of fluid"
        if facts.named_myelography and facts.contrast in ("heavy_t2", "t2", "steady_state"):
            return "myelogram", f"named myelography{why}; pixels: {gate.weighting} ({share})"
        if facts.contrast == "steady_state" and facts.is_3d:
            return "myelogram", f"3D balanced steady state{why}; pixels: {gate.weighting} ({share})"
        if facts.contrast == "heavy_t2" and gate.weighting != "conventional":
            return "myelogram", f"long echo time{why} and {gate.weighting} T2 by pixels ({share})"
        if gate.weighting == "heavy" and facts.contrast == "t2":
            return "myelogram", f"T2{why}, heavily weighted by pixels ({share})"
        if facts.is_silent and gate.weighting != "conventional":
            return "myelogram", f"no header; {gate.weighting} T2 by pixels ({share})"
        if facts.is_silent:
            return _by_plane(facts, "t2"), f"no header; ordinary weighting by pixels ({share})"
        if facts.contrast in ("heavy_t2", "t2"):
            return _by_plane(facts, "t2"), f"T2{why}, ordinary weighting by pixels ({share})"
    wording = facts.contrast.replace("_", " ")
    plane = facts.plane or "unknown plane"
    return _by_plane(facts, facts.contrast), f"{plane} {wording} by parameters or name{why}"


def _wording(facts: Facts) -> str:
    parts = []
    if facts.echo_time_ms:
        parts.append(f"TE {facts.echo_time_ms:.0f} ms")
    if facts.repetition_time_ms:
        parts.append(f"TR {facts.repetition_time_ms:.0f} ms")
    if facts.fat_suppressed:
        parts.append("fat-suppressed")
    return f" ({', '.join(parts)})" if parts else ""


def _by_plane(facts: Facts, contrast: str) -> Role:
    plane = facts.plane
    if contrast in ("t2", "heavy_t2") and plane == "axial":
        return "axial_t2"
    if plane == "coronal" and contrast == "t2" and facts.anisotropy < 1.5:
        return "sagittal_t2"  # as fine sagittally as in its own plane
    if plane == "sagittal":
        if contrast == "stir":
            return "sagittal_stir"
        if contrast in ("t2", "heavy_t2"):
            water = bool({"W", "WATER"} & facts.image_type)
            return "sagittal_stir" if water else "sagittal_t2"
        if contrast in ("t1", "t1_post"):
            return "sagittal_t1"
    if plane == "axial" and contrast == "t1_post":
        return "axial_t1_post"
    return "other"


def _score(item: _Judged, settings: LoaderSettings) -> float:
    """Rank among stacks of one role (weights of the project's clinical notes, section 1.5)."""
    facts, gate = item.facts, item.gate
    if item.stack.geometry is None:
        return 0.0
    score = min(0.02 * facts.coverage_mm, 4.0)
    score += 3.0 * (facts.is_3d and facts.largest_voxel_mm <= settings.fine_voxel_mm)
    score -= 2.0 * (facts.anisotropy > 5)
    score -= 3.0 * ("DERIVED" in facts.image_type and not facts.is_assembled)
    if item.role == "myelogram":
        weight = {"heavy": 3.0, "moderate": 0.0, "conventional": -3.0}
        score += 4.0 * facts.named_myelography + 2.0 * facts.fat_suppressed
        score += weight[gate.weighting] if gate is not None else 0.0
        score += 1.0 * ((facts.echo_time_ms or 0.0) >= settings.heavy_echo_time_ms)
        score -= 2.0 * (facts.contrast == "steady_state")  # fat and banding
    else:
        score += 1.0 * facts.is_composed  # one field from head to tail counts vertebrae best
        score -= 0.5 * (facts.fat_suppressed and item.role == "sagittal_t2")
        score -= 1.0 * (facts.contrast == "t1_post" and item.role == "sagittal_t1")
    return score


def _fluid_score(item: _Judged) -> float:
    facts = item.facts
    score = item.score + 2.0 * (facts.fat_suppressed or facts.contrast == "stir")
    score += 1.0 * (facts.plane == "sagittal")
    return score - 3.0 * facts.is_silent


def _choose_fluid(
    judged: list[_Judged],
    settings: LoaderSettings,
    pixels: _Pixels,
    notes: list[Note],
    wanted: str | None,
) -> tuple[list[_Judged], Volume]:
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


def _weighting_notes(item: _Judged) -> list[Note]:
    if item.facts.contrast == "steady_state":
        text = "the myelogram is a balanced steady-state series, on which fat is bright as well"
        return [Note("steady_state_myelogram", text)]
    if item.gate is not None and item.gate.weighting == "conventional":
        text = "the series named myelography shows tissue as bright as ordinary T2 images do"
        return [Note("weak_t2_weighting", text)]
    return []


def _demand_one_file(candidates: list[_Judged]) -> None:
    """Files without headers may show different patients, so none is preferred silently."""
    files = [item for item in candidates if item.stack.series_instance_uid is None]
    if len(files) > 1:
        raise InputError(
            f"{len(files)} volume files without headers could be the one to analyse; name one file"
        )


def _stand_in_note(item: _Judged) -> Note:
    fat = (
        "fat is suppressed on it"
        if item.facts.fat_suppressed or item.facts.contrast == "stir"
        else "fat may look like fluid on it"
    )
    known = "by its pixels alone, as its file has no acquisition header; " * item.facts.is_silent
    return Note(
        "no_myelogram",
        f"no heavily T2-weighted series was found; an ordinary fluid-sensitive volume was used "
        f"instead, {known}{fat}",
    )


def _join_stations(
    ranked: list[_Judged], settings: LoaderSettings, pixels: _Pixels, notes: list[Note]
) -> tuple[list[_Judged], Volume]:
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


def _named(judged: list[_Judged], wanted: str) -> _Judged:
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
    judged: list[_Judged],
    chosen: _Judged,
    pixels: _Pixels,
    notes: list[Note],
    wanted: Sequence[str],
) -> dict[Role, _Judged]:
    picked = [_as_companion(_named(judged, uid)) for uid in wanted]
    pool = picked if wanted else [item for item in judged if item.role in _COMPANIONS]
    companions: dict[Role, _Judged] = {}
    if chosen.role in _COMPANIONS:
        companions[chosen.role] = chosen
    for role in _COMPANIONS:
        ranked = sorted((i for i in pool if i.role == role), key=lambda i: i.score, reverse=True)
        if role in companions or not ranked:
            continue
        fusable = [item for item in ranked if _same_frame(item.stack, chosen.stack)]
        if not fusable:
            notes.append(_other_frame(ranked[0]))
        for item in fusable:
            try:
                pixels.of(item.stack)
            except InputError:
                continue
            companions[role] = item
            if item.stack.series_instance_uid is None:
                notes.append(_assumed_frame(item))
            break
    return companions


def _as_companion(item: _Judged) -> _Judged:
    if item.role in _COMPANIONS:
        return item
    role: Role = "axial_t2" if item.facts.plane == "axial" else "sagittal_t2"
    return replace(item, role=role)


def _same_frame(one: SeriesStack, other: SeriesStack) -> bool:
    if one.geometry is None or other.geometry is None:
        return False
    same = one.geometry.frame_of_reference_uid == other.geometry.frame_of_reference_uid
    if one.series_instance_uid is None or other.series_instance_uid is None:
        return same and overlap_share(one.geometry, other.geometry) >= _SHARED_FIELD
    return same


def _assumed_frame(item: _Judged) -> Note:
    return Note(
        "companion_frame_assumed",
        f"the {item.role.replace('_', ' ')} file states no frame of reference; as it covers the "
        "same place as the myelogram, it was taken to share its coordinates",
    )


def _other_frame(item: _Judged) -> Note:
    number = "" if item.stack.series_number is None else f" (series {item.stack.series_number})"
    return Note(
        "companion_other_frame",
        f"the {item.role.replace('_', ' ')}{number} lies in another frame of reference than the "
        "myelogram, so it was not combined with it",
    )


def _refusal(judged: Iterable[_Judged]) -> str:
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
