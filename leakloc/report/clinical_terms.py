"""Coded terms of findings and measurements."""

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
PRESENCE: Final = {True: LEAK["present"], False: LEAK["absent"], None: LEAK["indeterminate"]}
VOLUME: Final = CodedTerm("118565006", "SCT", "Volume")
CSF_VOLUME: Final = private_term("CSFVOLUME", "Volume of cerebrospinal fluid in the sac")
LENGTH: Final = CodedTerm("410668003", "SCT", "Length")
DEPTH: Final = CodedTerm("131197000", "SCT", "Depth")
AREA: Final = CodedTerm("42798000", "SCT", "Area")
PROBABILITY: Final = CodedTerm("122157", "DCM", "Probability")
PATH_LENGTH: Final = CodedTerm("121211", "DCM", "Path length")
SAC_COMPRESSION: Final = private_term("SACCOMPRESSION", "Sac compression")
NUMBERING_CONFIDENCE: Final = private_term("NUMBERINGCONF", "Confidence of the level numbering")
DIAMETER: Final = CodedTerm("81827009", "SCT", "Diameter")
WIDTH: Final = CodedTerm("103355008", "SCT", "Width")
HEIGHT: Final = CodedTerm("121207", "DCM", "Height")
ANGLE: Final = CodedTerm("1483009", "SCT", "Angle")
SKIN_DISTANCE: Final = CodedTerm("121243", "DCM", "Distance from skin")
CANAL_DISTANCE: Final = private_term("CANALDISTANCE", "Distance from the spinal canal")
SAC_DISTANCE: Final = private_term("SACDISTANCE", "Distance from the thecal sac")
HIDDEN_CANAL: Final = private_term("HIDDENCANAL", "Length of the canal within the signal void")
POSTERIOR_DEPTH: Final = private_term("POSTERIORDEPTH", "Depth of the posterior epidural space")
FAT_ASSESSED: Final = private_term("FATASSESSED", "Length of the path with fat assessed")
ADULT_PATH: Final = private_term("ADULTPATH", "Path length in adults")
ADULT_PATH_LOW: Final = private_term("ADULTPATHLOW", "Path length in adults, 2.5th percentile")
ADULT_PATH_HIGH: Final = private_term("ADULTPATHHIGH", "Path length in adults, 97.5th percentile")
MINIMUM: Final = CodedTerm("255605001", "SCT", "Minimum")
MAXIMUM: Final = CodedTerm("56851009", "SCT", "Maximum")
MEAN: Final = CodedTerm("373098007", "SCT", "Mean")

SPINE: Final = CodedTerm("421060004", "SCT", "Spine")
SEGMENT: Final = private_term("SEGMENT", "Motion segment")
SEGMENT_WITH: Final = private_term("SEGMENTWITH", "Motion segment with epidural fluid")
SEGMENT_WITHOUT: Final = private_term("SEGMENTWITHOUT", "Motion segment without epidural fluid")
ALTERNATIVE_LEVEL: Final = private_term("ALTLEVEL", "Level it could also be")
NERVE_ROOT: Final = private_term("NERVEROOT", "Nerve root")
ROOT_DIVERTICULUM: Final = private_term(
    "ROOTDIVERTICULUM", "Perineural cyst or root sleeve diverticulum"
)
RETROSPINAL_FLUID: Final = private_term("RETROSPINAL", "Retrospinal fluid at C1-C2")
LABEL_CONFIDENCE: Final = private_term("LABELCONF", "Confidence of the level label")
SPINOUS_PROCESS: Final = CodedTerm("55678000", "SCT", "Spinous process of vertebra")
POSTERIOR_EXTENSION: Final = private_term("POSTEXTENSION", "Fluid posterior to the spinal canal")
NECK: Final = private_term("FLUIDNECK", "Neck of the fluid posterior to the canal")
DARK_LINE: Final = private_term("DARKLINE", "Dark line between sac and fluid on axial T2")
LINE_FRACTION: Final = private_term("LINEFRACTION", "Fraction of the interface with a dark line")
LINE_SLICES: Final = private_term("LINESLICES", "Number of axial slices")
LINE_SAMPLES: Final = private_term("LINESAMPLES", "Number of samples along the interface")
LINE_EXCLUDED: Final = private_term("LINEEXCLUDED", "Number of samples at darker tissue")
INTERRUPTION: Final = private_term(
    "LINEINTERRUPT", "Interruption of the dark line, not evidence of a tear"
)
FAT_SIGNAL_HIGH: Final = private_term(
    "FATSIGNALHIGH", "Upper limit of the signal of fat relative to CSF, axial T2"
)
FAT_SIGNAL: Final = private_term("FATSIGNAL", "Signal of fat relative to CSF, axial T2")
SIGNAL_VOID: Final = private_term("SIGNALVOID", "Signal void consistent with metal")
HIATUS: Final = private_term("SACRALHIATUS", "Sacral hiatus")
EXPECTED_HIATUS: Final = private_term("EXPECTEDHIATUS", "Expected position of the sacral hiatus")
PATH: Final = private_term("HIATUSPATH", "Path from the sacral hiatus")
PATH_POINT: Final = private_term("PATHPOINT", "Point on the path from the sacral hiatus")
WITHOUT_FAT: Final = private_term("WITHOUTFAT", "Path without posterior epidural fat")
CYST_ON_PATH: Final = private_term("CYSTONPATH", "Cyst-like structure in the spinal canal")
BRIGHT_ON_PATH: Final = private_term("BRIGHTONPATH", "Bright structure in the spinal canal")
REJECTED: Final = private_term("REJECTED", "Bright signal not classified as epidural fluid")

CENTER: Final = CodedTerm("111010", "DCM", "Center")
EPICENTER: Final = private_term("EPICENTER", "Center of the largest cross-section")
CRANIAL_END: Final = private_term("CRANIALEND", "Cranial end")
CAUDAL_END: Final = private_term("CAUDALEND", "Caudal end")
POSTERIOR_END: Final = private_term("POSTERIOREND", "Posterior end")
SAC_POINT: Final = private_term("SACPOINT", "Point within the thecal sac")
DISC_CENTER: Final = private_term("DISCCENTER", "Center of the disc at the level of the fluid")
BODY_CENTER: Final = private_term("BODYCENTER", "Center of the vertebral body")


def root_code(root: str) -> CodedTerm:
    """Return the code of a nerve root, such as ``L4``."""
    return private_term(f"ROOT_{root}", f"{root} nerve root")


def signal_ratio(series: str) -> CodedTerm:
    """Return the code of the signal relative to CSF on a series, such as ``sagittal T1``."""
    code = f"RATIO{series.replace(' ', '')}".upper()
    return private_term(code, f"Signal relative to CSF, {series}")
