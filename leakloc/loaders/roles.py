"""Assign a role to each stack by rules on headers and names, then by pixels.

Each stack has one sentence stating the rule that determined its role.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from leakloc.anatomy.network import AnatomyOutputs
from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import InputError
from leakloc.core.volume import Volume
from leakloc.loaders import names
from leakloc.loaders.facts import Facts, gather
from leakloc.loaders.gate import (
    Gate,
    estimate_weighting,
    fluid_over_bone,
    looks_like_labels,
    looks_like_phase,
)
from leakloc.loaders.study import SeriesStack, Study, TriagedStack

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

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
"""Maximum slices per plane of a three-plane localizer."""

_MIN_SLAB_THICKNESS_MM: Final = 15.0
"""Slices of at least this thickness are projections (thick-slab myelography: 20 to 60 mm), which
are not used for levels or volumes."""

_MAX_SLAB_SLICES: Final = 24
"""Maximum number of images of a thick-slab series; radial protocols acquire 6 to 16 angles."""

_MAX_T1_FLUID_RATIO: Final = 1.0
"""Ratio of canal to vertebral body signal below which a series without a DICOM header is classified
as T1-weighted: 0.4 to 0.5 on T1 of phantoms, 2.2 and more on T2 and STIR of phantoms and
patients."""

_MAX_INTRATHECAL_TISSUE: Final = 0.45
"""Maximum ratio of the 80th to the 99.5th percentile of the signal with contrast in the CSF."""

_MIN_INTRATHECAL_RATIO: Final = 1.5
"""Minimum ratio of canal to vertebral body signal on fat-suppressed T1 with contrast in the CSF."""

_CORRECTED: Final = 0.25
"""Score of a correction (distortion, surface coil) that distinguishes versions of one series."""

_MAX_FINE_VOXEL_MM: Final = 1.2
"""Maximum voxel edge length of a volume that resolves thin collections in all directions."""


@dataclass(frozen=True)
class ClassifiedSeries:
    """A stack with its role and the features it is based on."""

    stack: SeriesStack
    facts: Facts
    role: Role
    reason: str
    gate: Gate | None = None
    score: float = 0.0
    set_aside: bool = False
    """Whether it was excluded regardless of its contrast (brain, phase image, label map)."""

    @property
    def fluid_sensitive(self) -> bool:
        """Whether fluid is the brightest tissue and the stack forms a volume."""
        bright = self.facts.contrast in ("t2", "stir", "heavy_t2") or self.facts.is_silent
        return bright and not self.set_aside and self.stack.geometry is not None


class Pixels:
    """Cache of stack volumes and their network output.

    Each is read or computed once, unless the volumes exceed the maximum decoded size together.

    Parameters
    ----------
    settings : LoaderSettings
    """

    def __init__(self, settings: LoaderSettings) -> None:
        self.anatomy = AnatomyOutputs()
        self._max_bytes = settings.max_decoded_mib * 1024**2
        self._volumes: dict[int, Volume] = {}

    def of(self, stack: SeriesStack) -> Volume:
        """Return the volume of a stack; raise `InputError` if it cannot be read."""
        if id(stack) not in self._volumes:
            self._volumes[id(stack)] = stack.load()
            while (
                len(self._volumes) > 1
                and sum(v.array.nbytes for v in self._volumes.values()) > self._max_bytes
            ):
                del self._volumes[next(iter(self._volumes))]  # the oldest
        return self._volumes[id(stack)]

    def readable(self, stack: SeriesStack) -> bool:
        """Read the volume of a stack; return whether this succeeded."""
        try:
            self.of(stack)
        except InputError:
            return False
        return True


def roles(study: Study, settings: LoaderSettings) -> tuple[TriagedStack, ...]:
    """Return the role of every stack without selecting any; no study is rejected."""
    return tuple(finished(item, ()) for item in judge_all(study, settings, Pixels(settings)))


def finished(item: ClassifiedSeries, used_for: tuple[str, ...]) -> TriagedStack:
    """Convert a classified stack for the report."""
    heaviness = None if item.gate is None else item.gate.ratio
    return TriagedStack(item.stack, item.role, item.reason, item.score, heaviness, used_for)


def judge_all(study: Study, settings: LoaderSettings, pixels: Pixels) -> list[ClassifiedSeries]:
    """Classify every stack of a study, in scanner order."""
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
        decision = _excluded(stack, fact, mixed_planes=mixed)
        if decision is not None:
            role, reason = decision
            judged.append(ClassifiedSeries(stack, fact, role, reason, set_aside=True))
        else:
            judged.append(_classified(stack, fact, pixels))
    return [replace(item, score=_score(item, settings)) for item in judged]


def _excluded(stack: SeriesStack, facts: Facts, *, mixed_planes: bool) -> tuple[Role, str] | None:
    """Rules that exclude a stack regardless of its contrast."""
    if stack.modality not in ("MR", ""):
        return "other", other_modality(stack.modality, facts)
    for note in stack.notes:
        if note.definition.excludes_series:
            return "other", note.message
    if names.LOCALIZER.search(facts.text) or "LOCALIZER" in facts.image_type:
        return "localizer", "localizer by name or image type"
    not_anatomy = names.NOT_ANATOMY.search(facts.text) and not facts.is_myelogram_by_header
    if not_anatomy or "EP" in str(stack.parameters.get("ScanningSequence")):
        return "other", "calibration, diffusion, map or document by name or sequence"
    if names.OTHER_HYDROGRAPHY.search(facts.text) and not facts.is_myelogram_by_header:
        return "other", "hydrography of another organ by name"
    projection = _projection(stack, facts)
    if projection is not None:
        return "projection", projection
    if stack.geometry is None:
        return _without_volume(stack, facts)
    if mixed_planes and stack.geometry.shape[0] <= _LOCALIZER_SLICES:
        return "localizer", "few slices in several planes of one series"
    for token, what in _PHASE_OR_FAT.items():
        if token in facts.image_type and not (token in ("R", "I") and "M" in facts.image_type):
            return "other", f"{what} by image type"
    if names.is_dixon_part(names.normalized(stack.description), facts.text):
        return "other", "fat, in-phase or opposed-phase part of a Dixon series by name"
    if facts.region in ("brain", "elsewhere"):
        what = "brain or head" if facts.region == "brain" else "another body part"
        return "other", f"{what} by name or body part, spine not mentioned"
    return None


def other_modality(modality: str, facts: Facts) -> str:
    """Return why images of a modality other than MR are not analyzed."""
    if modality != "CT":
        return f"modality {modality}: only MR is analyzed"
    name = "CT myelography" if facts.named_myelography or facts.intrathecal else "CT"
    return (
        f"{name} (modality CT): only MR is analyzed; CT would require separation of the contrast "
        "agent from bone, and detection of vertebrae on CT"
    )


def _without_volume(stack: SeriesStack, facts: Facts) -> tuple[Role, str]:
    codes = {note.code: note.message for note in stack.notes}
    if "mixed_orientations" in codes and not facts.appears_myelogram:
        return "localizer", "single slices in several orientations"
    if "too_few_slices" in codes:
        return "other", codes["too_few_slices"]
    reason = stack.notes[-1].message if stack.notes else "the slices do not form a regular volume"
    return "unreadable", reason


def _projection(stack: SeriesStack, facts: Facts) -> str | None:
    thickness = facts.slice_thickness_mm
    if (
        thickness is not None
        and thickness >= _MIN_SLAB_THICKNESS_MM
        and stack.n_instances <= _MAX_SLAB_SLICES
    ):
        return f"thick slab of {thickness:.0f} mm: no depth information, overview only"
    if _PROJECTIONS & facts.image_type:
        return f"image type {', '.join(sorted(_PROJECTIONS & facts.image_type))}: a derived view"
    technique = str(stack.parameters.get("VolumeBasedCalculationTechnique", "NONE")).upper()
    if technique not in ("NONE", ""):
        return f"computed by {technique}: a derived view"
    if names.PROJECTION.search(facts.text):
        return "projection or reformat by name: a derived view"
    return None


def _classified(stack: SeriesStack, facts: Facts, pixels: Pixels) -> ClassifiedSeries:
    """Role by contrast and plane; pixels determine heavy T2 weighting."""
    gate: Gate | None = None
    intrathecal = _intrathecal_evidence(stack, facts, pixels)
    if intrathecal is not None:
        reason = (
            f"intrathecal gadolinium myelography by {intrathecal}: T1 with contrast in the CSF, "
            "not analyzed"
        )
        facts = replace(facts, intrathecal=True)
        return ClassifiedSeries(stack, facts, "other", reason, set_aside=True)
    has_header = stack.series_instance_uid is not None
    if _needs_pixels(facts) or not has_header:
        try:
            volume = pixels.of(stack)
        except InputError as error:
            return ClassifiedSeries(stack, facts, "unreadable", str(error), set_aside=True)
        if not has_header and looks_like_labels(volume):
            reason = "few distinct integers, mostly zero: a label map"
            return ClassifiedSeries(stack, facts, "other", reason, set_aside=True)
        if has_header and looks_like_phase(volume):
            reason = "a phase, real or imaginary image by its pixels"
            return ClassifiedSeries(stack, facts, "other", reason, set_aside=True)
        gate = estimate_weighting(volume)
        if facts.is_silent and gate.weighting != "heavy":
            ratio = fluid_over_bone(volume, pixels.anatomy)
            if ratio is not None and ratio < _MAX_T1_FLUID_RATIO:
                facts = replace(facts, contrast="t1")
                reason = f"no header; by pixels the canal is darker than bone ({ratio:.0%}): T1"
                return ClassifiedSeries(stack, facts, _by_plane(facts, "t1"), reason, gate)
            facts = replace(facts, confirmed_by_pixels=ratio is not None)
    role, reason = _role(facts, gate)
    return ClassifiedSeries(stack, facts, role, reason, gate)


def _intrathecal_evidence(stack: SeriesStack, facts: Facts, pixels: Pixels) -> str | None:
    """Return the evidence that a series shows contrast in the CSF; None without any.

    On T1 with fat suppression, fluid is brighter than other tissue only with contrast in it.
    """
    if facts.contrast not in ("t1", "t1_post"):
        return None
    if facts.intrathecal:
        return "name or route of administration"
    if facts.named_myelography:
        return "name and T1 weighting"
    if not facts.fat_suppressed or facts.contrast != "t1_post" or not pixels.readable(stack):
        return None
    volume = pixels.of(stack)
    if estimate_weighting(volume).ratio > _MAX_INTRATHECAL_TISSUE:
        return None
    ratio = fluid_over_bone(volume, pixels.anatomy)
    if ratio is None or ratio < _MIN_INTRATHECAL_RATIO:
        return None
    return f"its signal (canal {ratio:.1f} times as bright as bone)"


def _needs_pixels(facts: Facts) -> bool:
    if facts.contrast in ("heavy_t2", "steady_state") or facts.is_silent:
        return True
    return facts.contrast == "t2" and (facts.is_3d or facts.echo_time_ms is None)


def _role(facts: Facts, gate: Gate | None) -> tuple[Role, str]:
    why = _wording(facts)
    if gate is not None:
        signal = f"tissue at {gate.ratio:.0%} of fluid"
        if facts.named_myelography and facts.contrast in ("heavy_t2", "t2", "steady_state"):
            return "myelogram", f"named myelography{why}; pixels: {gate.weighting} ({signal})"
        if facts.contrast == "steady_state" and facts.is_3d:
            return (
                "myelogram",
                f"3D balanced steady state{why}; pixels: {gate.weighting} ({signal})",
            )
        if facts.contrast == "heavy_t2" and gate.weighting != "conventional":
            return "myelogram", f"long echo time{why} and {gate.weighting} T2 by pixels ({signal})"
        if gate.weighting == "heavy" and facts.contrast == "t2":
            return "myelogram", f"T2{why}, heavily weighted by pixels ({signal})"
        if facts.is_silent and gate.weighting != "conventional":
            return "myelogram", f"no header; {gate.weighting} T2 by pixels ({signal})"
        if facts.is_silent:
            return _by_plane(facts, "t2"), f"no header; conventional weighting by pixels ({signal})"
        if facts.contrast in ("heavy_t2", "t2"):
            return _by_plane(facts, "t2"), f"T2{why}, conventional weighting by pixels ({signal})"
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
        return "sagittal_t2"  # similar resolution in sagittal and coronal planes
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


def _score(item: ClassifiedSeries, settings: LoaderSettings) -> float:
    """Rank among stacks of one role (weights of the project's clinical notes, section 1.5)."""
    facts, gate = item.facts, item.gate
    if item.stack.geometry is None:
        return 0.0
    score = min(0.02 * facts.coverage_mm, 4.0)
    score += 3.0 * (facts.is_3d and facts.largest_voxel_mm <= _MAX_FINE_VOXEL_MM)
    score -= 2.0 * (facts.anisotropy > 5)
    score += _CORRECTED * len({"DIS2D", "DIS3D", "NORM"} & facts.image_type)
    score -= 3.0 * ("DERIVED" in facts.image_type and not facts.is_assembled)
    if item.role == "myelogram":
        weight = {"heavy": 3.0, "moderate": 0.0, "conventional": -3.0}
        score += 4.0 * facts.named_myelography + 2.0 * facts.fat_suppressed
        score += weight[gate.weighting] if gate is not None else 0.0
        score += 1.0 * ((facts.echo_time_ms or 0.0) >= settings.heavy_echo_time_ms)
        score -= 2.0 * (facts.contrast == "steady_state")  # fat and banding
    else:
        score += (
            1.0 * facts.is_composed
        )  # one craniocaudal field of view is best for counting vertebrae
        score -= 0.5 * (facts.fat_suppressed and item.role == "sagittal_t2")
        score -= 1.0 * (facts.contrast == "t1_post" and item.role == "sagittal_t1")
    return score
