"""The words leakloc uses: level names, label values, coded terms, enumerations.

Levels are named, never numbered, in every interface: vertebrae ``"L4"``, discs and
motion segments ``"L4-L5"``. Integers appear only as voxel values of a level mask, with
the values of `LABEL_VALUES` (those of TPTBox/SPINEPS, so that masks can be exchanged).

Coded terms are those checked against the DICOM dictionaries (PS3.16 context groups 7603,
7604 and 1003); anything without a verified standard code is private to ``99LEAKLOC``.
"""

from __future__ import annotations

from typing import Final, Literal

NOTICE: Final = (
    "Research use only. Not a medical device. Not for diagnosis or treatment planning. "
    "Requires review by a qualified radiologist. Levels assume the stated numbering."
)
"""Stated on every output."""

SHORT_NOTICE: Final = "Research use only - not a medical device - unverified"
"""The notice as burned into pictures."""

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
    """Names of all vertebrae from C1 to S5, head down.

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
    """Name of the disc or motion segment between two neighbouring vertebrae.

    >>> segment_name("L4", "L5")
    'L4-L5'
    """
    return f"{upper}-{lower}"


def split_segment(segment: str) -> tuple[str, str]:
    """The vertebrae above and below a disc or motion segment.

    >>> split_segment("L5-S1")
    ('L5', 'S1')
    """
    upper, _, lower = segment.partition("-")
    if upper not in LABEL_VALUES or lower not in LABEL_VALUES:
        raise ValueError(f"{segment!r} is not a motion segment such as 'L4-L5'")
    return upper, lower
