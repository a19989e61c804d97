"""Coded terms of findings and measurements, common to the structured report and FHIR."""

from __future__ import annotations

from typing import Final
from uuid import NAMESPACE_URL, uuid5

from leakloc.anatomy.vocabulary import CodedTerm, private_term

DEVICE_UID: Final = f"2.25.{uuid5(NAMESPACE_URL, 'leakloc:device').int}"
"""UID of the program as observer; constant, as it is derived from a name."""

PROCEDURE: Final = private_term("MRMYELOGRAPHY", "MR myelography of the spine")
POSITIONS: Final = {
    "dorsal": CodedTerm("255551008", "SCT", "Posterior"),
    "ventral": CodedTerm("255549009", "SCT", "Anterior"),
    "left": CodedTerm("7771000", "SCT", "Left"),
    "right": CodedTerm("24028007", "SCT", "Right"),
    "circumferential": CodedTerm("255593009", "SCT", "Circumferential"),
}
LEAK: Final = {
    "present": CodedTerm("52101004", "SCT", "Present"),
    "absent": CodedTerm("272519000", "SCT", "Absent"),
    "indeterminate": CodedTerm("373068000", "SCT", "Undetermined"),
}
VOLUME: Final = CodedTerm("118565006", "SCT", "Volume")
CSF_VOLUME: Final = private_term("CSFVOLUME", "Volume of cerebrospinal fluid in the sac")
LENGTH: Final = CodedTerm("410668003", "SCT", "Length")
DEPTH: Final = CodedTerm("131197000", "SCT", "Depth")
AREA: Final = CodedTerm("42798000", "SCT", "Area")
PROBABILITY: Final = CodedTerm("122157", "DCM", "Probability")
PATH_LENGTH: Final = CodedTerm("121211", "DCM", "Path length")
SAC_COMPRESSION: Final = private_term("SACCOMPRESSION", "Sac compression")
NUMBERING_CONFIDENCE: Final = private_term("NUMBERINGCONF", "Confidence of the level numbering")
