"""Features of a stack from its header: contrast, plane, region and resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.loaders import names
from leakloc.loaders.headers import component_words
from leakloc.loaders.study import SeriesStack

Plane = Literal["sagittal", "coronal", "axial"]
Contrast = Literal[
    "heavy_t2", "t2", "stir", "steady_state", "t1", "t1_post", "proton_density", "flair", "unknown"
]
Region = Literal["spine", "brain", "elsewhere", "unknown"]

_PLANE_OF_AXIS: Final[tuple[Plane, Plane, Plane]] = ("sagittal", "coronal", "axial")
_DIXON_WITH_FAT: Final = frozenset(
    {"F", "FAT", "IP", "IN", "IN_PHASE", "OP", "OPP", "OPP_PHASE", "OUT_PHASE"}
)
_LONG_TE_MS: Final = 250.0
"""Minimum echo time of a single-shot sequence classified as myelography."""
_T2_TE_MS: Final = 60.0
_SHORT_TE_MS: Final = 40.0
_T1_TR_MS: Final = 1200.0
_LONG_TR_MS: Final = 1500.0
_STIR_TI_MS: Final = (80.0, 300.0)
_T1_FLAIR_TI_MS: Final = (450.0, 1300.0)
_STEADY_STATE_TR_MS: Final = 20.0
_STEADY_STATE_FLIP_DEG: Final = 35.0


@dataclass(frozen=True)
class Facts:
    """Features of a stack used for triage.

    Parameters
    ----------
    text : str
        Normalized series description, protocol and sequence names.
    plane : str or None
        Slice plane by geometry, or by name if there is no geometry.
    coverage_mm : float
        Craniocaudal extent.
    image_type : frozenset of str
    echo_time_ms, repetition_time_ms, slice_thickness_mm : float or None
    intrathecal : bool
        Whether name or route of administration state intrathecal contrast.
    confirmed_by_pixels : bool
        Whether the pixels showed bright fluid, if the header does not state the contrast.
    """

    text: str
    plane: Plane | None
    coverage_mm: float
    largest_voxel_mm: float
    anisotropy: float
    is_3d: bool
    image_type: frozenset[str]
    echo_time_ms: float | None
    repetition_time_ms: float | None
    slice_thickness_mm: float | None
    fat_suppressed: bool
    named_myelography: bool
    contrast: Contrast
    region: Region
    intrathecal: bool = False
    confirmed_by_pixels: bool = False

    @property
    def is_myelogram_by_header(self) -> bool:
        """Whether the name states myelography and the echo time is long.

        Names of options and protocols do not outweigh both.
        """
        return self.named_myelography and (self.echo_time_ms or 0.0) >= _LONG_TE_MS

    @property
    def appears_myelogram(self) -> bool:
        """Whether the name or the echo time indicates myelography."""
        return self.named_myelography or self.contrast == "heavy_t2"

    @property
    def is_silent(self) -> bool:
        """Whether neither sequence parameters nor names indicate the contrast."""
        return self.contrast == "unknown" and self.echo_time_ms is None

    @property
    def is_composed(self) -> bool:
        """Whether the scanner composed the series from several stations."""
        tokens = {"COMP_SP", "COMP_AD", "COMPOSED", "SPLICED", "PASTED"}
        return bool(tokens & self.image_type) or "comp sp" in self.text or "comp ad" in self.text

    @property
    def is_assembled(self) -> bool:
        """Whether the series is composed or a Dixon water image, not a projection."""
        return self.is_composed or bool({"W", "WATER"} & self.image_type)


def gather(stack: SeriesStack, heavy_echo_time_ms: float) -> Facts:
    """Collect the features of a stack from its parameters and geometry."""
    p = stack.parameters
    text = names.normalized(
        stack.description,
        p.get("ProtocolName"),
        p.get("SequenceName"),
        p.get("PulseSequenceName"),
    )
    image_type = frozenset(str(part).upper() for part in _list(p.get("ImageType")))
    image_type |= frozenset(component_words(p))
    spacing = stack.geometry.spacing_ijk_mm if stack.geometry is not None else (np.inf,) * 3
    dixon_part = names.is_dixon_part(names.normalized(stack.description), text)
    fat_suppressed = _is_fat_suppressed(p, text, image_type, dixon_part=dixon_part)
    myelography = _is_named_myelography(stack.description, text, _echo_time(p))
    return Facts(
        text=text,
        plane=_plane(stack, text),
        coverage_mm=_coverage_mm(stack),
        largest_voxel_mm=max(spacing),
        anisotropy=max(spacing) / min(spacing) if np.isfinite(spacing).all() else np.inf,
        is_3d=_is_3d(stack, text),
        image_type=image_type,
        echo_time_ms=_echo_time(p),
        repetition_time_ms=_number(p.get("RepetitionTime")),
        slice_thickness_mm=_number(p.get("SliceThickness")),
        fat_suppressed=fat_suppressed,
        named_myelography=myelography,
        contrast=_contrast(p, text, image_type, heavy_echo_time_ms, named=myelography),
        region=_region(p, text),
        intrathecal=_is_intrathecal(p, text),
    )


def _is_named_myelography(description: str, text: str, te: float | None) -> bool:
    if not names.MYELOGRAPHY.search(text):
        return False
    if not names.OTHER_HYDROGRAPHY.search(text):
        return True
    # A protocol for another organ may be used for the spine.
    own = names.normalized(description)
    spinal = names.MYELOGRAPHY.search(own) and not names.OTHER_HYDROGRAPHY.search(own)
    return (te or 0.0) >= _LONG_TE_MS and bool(spinal or names.SPINE.search(text))


def _is_intrathecal(p: dict[str, Any], text: str) -> bool:
    route = names.normalized(p.get("ContrastBolusRoute"))
    return bool(names.INTRATHECAL.search(text) or names.INTRATHECAL.search(route))


def _contrast(
    p: dict[str, Any],
    text: str,
    image_type: frozenset[str],
    heavy_echo_time_ms: float,
    *,
    named: bool,
) -> Contrast:
    te, tr = _echo_time(p), _number(p.get("RepetitionTime"))
    ti = _inversion_time(p)
    if te is None or te <= 0:
        return _contrast_by_name(p, text, named=named)
    if _is_steady_state(p, text, te, tr):
        return "steady_state"
    if _is_gradient_echo(p):
        return _post(p, text) if te <= _SHORT_TE_MS and (tr or 0) <= _T1_TR_MS else "unknown"
    is_t1 = te <= _SHORT_TE_MS and tr is not None and tr <= _T1_TR_MS
    if te >= heavy_echo_time_ms or (_single_shot(p, text) and te >= _LONG_TE_MS):
        return "heavy_t2"
    if named and not is_t1:  # T1 named myelography: contrast in the CSF
        return "heavy_t2"
    if ti is not None and _T1_FLAIR_TI_MS[0] <= ti <= _T1_FLAIR_TI_MS[1] and te <= _SHORT_TE_MS:
        return _post(p, text)
    if (ti is not None and ti > _T1_FLAIR_TI_MS[1]) or names.FLUID_ATTENUATED.search(text):
        return "flair"
    inverted = "IR" in _words(p.get("ScanningSequence")) or p.get("InversionRecovery") == "YES"
    in_stir_range = ti is not None and _STIR_TI_MS[0] <= ti <= _STIR_TI_MS[1]
    if in_stir_range or (names.STIR.search(text) and (inverted or ti is None)):
        return "stir"
    if is_t1:
        return _post(p, text)
    if te >= _T2_TE_MS:
        return "t2"
    if tr is not None and tr >= _LONG_TR_MS:
        return "proton_density"
    return _contrast_by_name(p, text, named=named)


def _contrast_by_name(p: dict[str, Any], text: str, *, named: bool) -> Contrast:
    stated = str(p.get("AcquisitionContrast", "")).upper()
    if named:
        return "heavy_t2"
    if names.FLUID_ATTENUATED.search(text) or stated == "FLUID_ATTENUATED":
        return "flair"
    if names.STIR.search(text) or stated == "STIR":
        return "stir"
    if names.STEADY_STATE.search(text):
        return "steady_state"
    if names.T1.search(text) or stated == "T1":
        return _post(p, text)
    if names.T2.search(text) or names.T2_3D.search(text) or stated == "T2":
        return "t2"
    return "unknown"


def _post(p: dict[str, Any], text: str) -> Contrast:
    if names.NO_CONTRAST.search(text):
        return "t1"
    enhanced = names.CONTRAST.search(text) or p.get("ContrastBolusAgent")
    return "t1_post" if enhanced else "t1"


def _is_steady_state(p: dict[str, Any], text: str, te: float, tr: float | None) -> bool:
    if te >= _SHORT_TE_MS:
        return False
    if names.STEADY_STATE.search(text):
        return True
    stated = str(p.get("SteadyStatePulseSequence", "")).upper()
    if stated not in ("", "NONE"):
        return stated in ("TRUE", "TRUE_FISP", "BALANCED", "FREE_PRECESSION") or "FREE" in stated
    flip = _number(p.get("FlipAngle")) or 0.0
    quick = tr is not None and tr <= _STEADY_STATE_TR_MS
    refocused = "SS" in _words(p.get("SequenceVariant")) and "SP" not in _words(
        p.get("SequenceVariant")
    )
    return _is_gradient_echo(p) and quick and refocused and flip >= _STEADY_STATE_FLIP_DEG


def _is_gradient_echo(p: dict[str, Any]) -> bool:
    kinds = _words(p.get("ScanningSequence"))
    if kinds:
        return "GR" in kinds and "SE" not in kinds
    return str(p.get("EchoPulseSequence", "")).upper() == "GRADIENT"


def _single_shot(p: dict[str, Any], text: str) -> bool:
    stated = str(p.get("SegmentedKSpaceTraversal", "")).upper() == "SINGLE"
    return stated or bool(names.SINGLE_SHOT.search(text))


def _is_fat_suppressed(
    p: dict[str, Any], text: str, image_type: frozenset[str], *, dixon_part: bool
) -> bool:
    options = " ".join(_words(p.get("ScanOptions")))
    selective = str(p.get("SpectrallySelectedSuppression", "")).upper()
    water = bool({"W", "WATER"} & image_type)
    if not water and (dixon_part or _DIXON_WITH_FAT & image_type):
        return False  # fat is visible on all Dixon images but the water image
    return (
        bool(names.FAT_SUPPRESSED.search(names.NO_FAT_SUPPRESSION.sub(" ", text)))
        or water
        or "FS" in options.split()
        or "SFS" in options.split()
        or "FAT_SAT" in options
        or "FATSAT" in options
        or selective in ("FAT", "FAT_AND_WATER")
    )


def _is_3d(stack: SeriesStack, text: str) -> bool:
    stated = str(stack.parameters.get("MRAcquisitionType", "")).upper()
    if stated in ("2D", "3D"):
        return stated == "3D"
    if names.T2_3D.search(text) or "3d" in text:
        return True
    # Not stated: 2D slices of the spine are never thinner than 2 mm.
    return stack.geometry is not None and max(stack.geometry.spacing_ijk_mm) < 2.0


def _plane(stack: SeriesStack, text: str) -> Plane | None:
    if stack.geometry is not None:
        normal: FloatArray = _thick_axis(stack)
        return _PLANE_OF_AXIS[int(np.abs(normal).argmax())]
    for plane in _PLANE_OF_AXIS:
        if names.PLANES[plane].search(text):
            return plane
    return None


def _thick_axis(stack: SeriesStack) -> FloatArray:
    """Slice normal: the k axis of DICOM stacks, the coarsest axis of other files."""
    assert stack.geometry is not None
    axis = 2
    if stack.series_instance_uid is None:
        axis = int(np.argmax(stack.geometry.spacing_ijk_mm))
    return np.asarray(stack.geometry.directions_lps[:, axis])


def _coverage_mm(stack: SeriesStack) -> float:
    if stack.geometry is None:
        return 0.0
    counts = np.array(stack.geometry.shape[::-1])
    extents = stack.geometry.affine_lps[2, :3] * counts
    return float(np.abs(extents).max())


def _region(p: dict[str, Any], text: str) -> Region:
    """Region by series names, else study description, else body part (often incorrect)."""
    study, body_part = (
        names.normalized(p.get("StudyDescription")),
        names.normalized(p.get("BodyPartExamined")),
    )
    for words in (text, study, body_part):
        if names.SPINE.search(words) or names.MYELOGRAPHY.search(words):
            return "spine"
        if names.BRAIN.search(words):
            return "brain"
        if names.OTHER_BODY_PART.search(words):
            return "elsewhere"
    return "unknown"


def _echo_time(p: dict[str, Any]) -> float | None:
    te = _number(p.get("EchoTime"))
    return te if te else _number(p.get("EffectiveEchoTime"))


def _inversion_time(p: dict[str, Any]) -> float | None:
    ti = _number(p.get("InversionTime"))
    return ti if ti else _number(p.get("InversionTimes")) or None


def _number(value: Any) -> float | None:
    first = value[0] if isinstance(value, list) and value else value
    try:
        number = float(first)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _words(value: Any) -> list[str]:
    return [word for part in _list(value) for word in str(part).upper().replace("\\", " ").split()]
