"""Vocabulary: level names, label values, coded terms, enumerations.

All interfaces identify levels by name: vertebrae ``"L4"``, discs and motion segments ``"L4-L5"``.
Integers are used only as voxel values of a level mask, with the values of `LABEL_VALUES` (those
of TPTBox/SPINEPS, for exchange of masks).

Coded terms were verified against DICOM PS3.16 (context groups 7603, 7604 and 1003); terms without
a verified standard code use the private scheme ``99LEAKLOC``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple
from uuid import NAMESPACE_URL, uuid5

NOTICE: Final = (
    "Research use only. Not a medical device. Not for diagnosis or treatment planning. "
    "Requires review by a qualified radiologist. Levels assume the stated numbering."
)
"""Included in every output."""

SHORT_NOTICE: Final = "Research use only - not a medical device - unverified"
"""Short form of the notice, burned into figures."""

Role = Literal[
    "myelogram",
    "sagittal_t2",
    "sagittal_stir",
    "axial_t2",
    "sagittal_t1",
    "axial_t1_post",
    "projection",
    "localizer",
    "other",
    "unreadable",
]
NumberingMethod = Literal["c2_count", "sacrum_up", "user", "external"]
LevelStatus = Literal["labelled", "partial", "unlabelled"]
Position = Literal["dorsal", "ventral", "left", "right", "circumferential"]
LateralSide = Literal["left", "right", "midline"]
Compartment = Literal["epidural", "foraminal", "paraspinal", "subcutaneous"]
Pattern = Literal["focal", "longitudinal", "pseudomeningocele", "periradicular", "indeterminate"]
Grade = Literal["definite", "probable", "possible"]
LeakStatus = Literal["present", "absent", "indeterminate"]

CERVICAL: Final = tuple(f"C{n}" for n in range(1, 8))
SACRAL: Final = tuple(f"S{n}" for n in range(1, 6))

LABEL_VALUES: Final[dict[str, int]] = {
    **{name: 1 + n for n, name in enumerate(CERVICAL)},
    **{f"T{n}": 7 + n for n in range(1, 13)},
    **{f"L{n}": 19 + n for n in range(1, 7)},
    "S1": 26,
    "T13": 28,
    "S2": 29,
    "S3": 30,
    "S4": 31,
    "S5": 32,
}
"""Voxel value of each vertebra in a level mask (TPTBox ``Vertebra_Instance`` ids)."""


def vertebra_chain(lumbar_count: int = 5, thoracic_count: int = 12) -> tuple[str, ...]:
    """Return the names of all vertebrae from C1 to S5, cranial to caudal.

    Parameters
    ----------
    lumbar_count : int
        Number of lumbar vertebrae, 4 to 6.
    thoracic_count : int
        Number of thoracic vertebrae, 11 to 13.

    Examples
    --------
    >>> vertebra_chain()[18:25]
    ('T12', 'L1', 'L2', 'L3', 'L4', 'L5', 'S1')
    >>> vertebra_chain(lumbar_count=6)[-6]
    'L6'
    """
    if not 4 <= lumbar_count <= 6:
        raise ValueError(f"lumbar_count must be 4, 5 or 6, not {lumbar_count}")
    if not 11 <= thoracic_count <= 13:
        raise ValueError(f"thoracic_count must be 11, 12 or 13, not {thoracic_count}")
    thoracic = tuple(f"T{n}" for n in range(1, thoracic_count + 1))
    lumbar = tuple(f"L{n}" for n in range(1, lumbar_count + 1))
    return CERVICAL + thoracic + lumbar + SACRAL


def segment_name(upper: str, lower: str) -> str:
    """Return the name of the disc or motion segment between two adjacent vertebrae.

    >>> segment_name("L4", "L5")
    'L4-L5'
    """
    return f"{upper}-{lower}"


def split_segment(segment: str) -> tuple[str, str]:
    """Return the vertebrae above and below a disc or motion segment.

    >>> split_segment("L5-S1")
    ('L5', 'S1')
    """
    upper, _, lower = segment.partition("-")
    if upper not in LABEL_VALUES or lower not in LABEL_VALUES:
        raise ValueError(f"{segment!r} is not a motion segment such as 'L4-L5'")
    return upper, lower


def with_neighbors(segments: Sequence[str]) -> tuple[str, ...]:
    """Add the next motion segment, if any, at both ends of consecutive segments.

    >>> with_neighbors(["L4-L5", "L5-S1"])
    ('L3-L4', 'L4-L5', 'L5-S1', 'S1-S2')
    """
    every = [segment_name(*pair) for pair in pairwise(vertebra_chain())]
    first, last = every.index(segments[0]), every.index(segments[-1])
    return (*every[max(first - 1, 0) : first], *segments, *every[last + 1 : last + 2])


_ACRONYMS: Final = frozenset({"t1", "t2", "stir"})


def role_name(role: Role) -> str:
    """Return the role of a series in words.

    >>> role_name("sagittal_t2")
    'sagittal T2'
    """
    return " ".join(word.upper() if word in _ACRONYMS else word for word in role.split("_"))


SIDES: Final = ("dorsal", "ventral", "left", "right")
"""Quadrants around the thecal sac."""

_MIDLINE_MM: Final = 3.0
"""Maximum distance from the centerline of the canal of a structure in the midline."""


def lateral_side(left_mm: float) -> LateralSide:
    """Return the side of a point, from its distance to the left of the centerline of the canal.

    >>> lateral_side(-8.0), lateral_side(1.5)
    ('right', 'midline')
    """
    if abs(left_mm) <= _MIDLINE_MM:
        return "midline"
    return "left" if left_mm > 0 else "right"


def quadrant(left_mm: float, dorsal_mm: float) -> Position:
    """Return the quadrant of a point, from its distance to the left of and dorsal to a center.

    >>> quadrant(-8.0, 5.0), quadrant(1.0, 5.0)
    ('right', 'dorsal')
    """
    if abs(left_mm) > abs(dorsal_mm):
        return "left" if left_mm > 0 else "right"
    return "dorsal" if dorsal_mm > 0 else "ventral"


class CodedTerm(NamedTuple):
    """A DICOM code: value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


PRIVATE_SCHEME: Final = "99LEAKLOC"
"""Coding scheme designator of terms without a verified standard code."""

PRIVATE_SCHEME_UID: Final = f"2.25.{uuid5(NAMESPACE_URL, 'leakloc:coding-scheme').int}"
"""UID of the private coding scheme; constant, as it is derived from a name."""

_VERTEBRA_SCT: Final = {
    "C1": "14806007", "C2": "39976000", "C3": "113205007", "C4": "5329002", "C5": "36978003",
    "C6": "36054005", "C7": "87391001", "T1": "64864005", "T2": "53733008", "T3": "1626008",
    "T4": "73071006", "T5": "56401006", "T6": "45296009", "T7": "62487009", "T8": "11068009",
    "T9": "82687006", "T10": "7610001", "T11": "12989004", "T12": "23215003", "L1": "66794005",
    "L2": "14293000", "L3": "36470004", "L4": "11994002", "L5": "49668003",
}  # fmt: skip
_LEVEL_SCT: Final = {
    "C2-C3": "243902007", "C3-C4": "243903002", "C4-C5": "243904008", "C5-C6": "243905009",
    "C6-C7": "243906005", "C7-T1": "243925008", "T1-T2": "243908006", "T2-T3": "243909003",
    "T3-T4": "243910008", "T4-T5": "243911007", "T5-T6": "243912000", "T6-T7": "243913005",
    "T7-T8": "243914004", "T8-T9": "243915003", "T9-T10": "243916002", "T10-T11": "243917006",
    "T11-T12": "243918001", "T12-L1": "243926009", "L1-L2": "243920003", "L2-L3": "243921004",
    "L3-L4": "243922006", "L4-L5": "243923001", "L5-S1": "243927000",
}  # fmt: skip


def vertebra_code(name: str) -> CodedTerm:
    """Return the code of a vertebra: SNOMED CT (CID 7603), or private (S1-S5, L6, T13).

    >>> vertebra_code("L4")
    CodedTerm(value='11994002', scheme='SCT', meaning='L4 vertebra')
    """
    if name in _VERTEBRA_SCT:
        return CodedTerm(_VERTEBRA_SCT[name], "SCT", f"{name} vertebra")
    return private_term(f"VERTEBRA_{name}", f"{name} vertebra")


def level_code(segment: str) -> CodedTerm:
    """Return the code of the level of a motion segment: SNOMED CT (CID 1003), or private.

    >>> level_code("L4-L5")
    CodedTerm(value='243923001', scheme='SCT', meaning='Level of L4/L5 intervertebral disc')
    """
    upper, lower = split_segment(segment)
    meaning = f"Level of {upper}/{lower} intervertebral disc"
    if segment in _LEVEL_SCT:
        return CodedTerm(_LEVEL_SCT[segment], "SCT", meaning)
    return private_term(f"SEGMENT_{upper}{lower}", meaning)


def private_term(value: str, meaning: str) -> CodedTerm:
    """Return a term of the private scheme; DICOM limits values to 16 characters.

    >>> private_term("EPIFLUID", "Epidural fluid collection").scheme
    '99LEAKLOC'
    """
    if len(value) > 16:
        raise ValueError(f"{value!r} exceeds the 16 characters of a code value")
    return CodedTerm(value, PRIVATE_SCHEME, meaning)


THECAL_SAC: Final = private_term("THECALSAC", "Thecal sac")
EPIDURAL_FLUID: Final = private_term("EPIFLUID", "Epidural fluid collection")
