"""What localization yields: the report's content before it is written.

Names and meanings are those of the report contract; lengths mm, areas mm², volumes mL,
points LPS mm. Unknown is `None`, never a made-up number.
"""

from __future__ import annotations

from dataclasses import dataclass

from leakloc.anatomy.vocabulary import Compartment, Grade, LeakStatus, Pattern, Position
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray


@dataclass(frozen=True)
class AlternativeLevel:
    """Another segment the finding could belong to, and why."""

    level: str
    score: float
    basis: tuple[str, ...]


@dataclass(frozen=True)
class ExtentEnd:
    """One end of a collection along the canal."""

    point_lps: FloatArray
    segment: str | None
    description: str
    """Such as ``"L4-L5, 6 mm below the disc centre"``."""


@dataclass(frozen=True)
class Profile:
    """How a collection changes along the canal.

    Parameters
    ----------
    arc_mm : ndarray, shape (n,)
        Distance along the centreline, head down.
    thickness_mm, area_mm2 : ndarray, shape (n,)
    """

    arc_mm: FloatArray
    thickness_mm: FloatArray
    area_mm2: FloatArray


@dataclass(frozen=True)
class LocatedCollection:
    """One extradural collection, placed."""

    id: int
    level: str | None
    """Motion segment of the largest cross-section; None where nothing is named."""
    alternatives: tuple[AlternativeLevel, ...]
    segments: tuple[str, ...]
    """Every segment touched, from the head down."""
    cranial: ExtentEnd
    caudal: ExtentEnd
    length_mm: float
    position: Position
    position_fractions: dict[str, float]
    """``dorsal``, ``ventral``, ``left``, ``right``: fractions of its volume, summing to 1."""
    compartments: tuple[Compartment, ...]
    pattern: Pattern
    volume_ml: float
    max_thickness_mm: float
    max_area_mm2: float
    sac_compression: float | None
    """1 - least sac area along the collection / area expected from its neighbours, 0..1."""
    centroid_lps: FloatArray
    epicenter_lps: FloatArray
    """Centre of the largest cross-section."""
    confidence: float
    grade: Grade
    basis: tuple[str, ...]
    mimics_considered: tuple[str, ...]
    profile: Profile
    level_set: tuple[str, ...] = ()
    """`level` and the segments that may hold the largest cross-section instead, by probability."""


@dataclass(frozen=True)
class SacSegment:
    """The thecal sac within one motion segment."""

    segment: str
    volume_ml: float
    min_area_mm2: float
    mean_area_mm2: float


@dataclass(frozen=True)
class LocatedSac:
    """The thecal sac, measured."""

    volume_ml: float
    csf_volume_ml: float
    caudal_end_lps: FloatArray | None
    """None where the sac runs out of the field."""
    caudal_end_level: str | None
    by_segment: tuple[SacSegment, ...]


@dataclass(frozen=True)
class Finding:
    """The answer of the study."""

    leak: LeakStatus
    level: str | None
    confidence: float
    summary: str


@dataclass(frozen=True)
class ExpectedHiatus:
    """Where the apex of a hiatus that was not detected lies in most people.

    At S4 in two of three people, at S3 to S5 in 19 of 20 (155 sacra: Nastoulis et al., Folia
    Morphol 2023;82:603).
    """

    level: str
    point_lps: FloatArray
    cranial_lps: FloatArray
    caudal_lps: FloatArray


@dataclass(frozen=True)
class SacralHiatus:
    """Lower opening of the sacral canal."""

    visible: bool
    point_lps: FloatArray | None
    confidence: float
    expected: ExpectedHiatus | None = None
    """Only where it was not detected."""


@dataclass(frozen=True)
class LevelCrossing:
    """Where the path passes the middle of a disc."""

    disc: str
    distance_from_hiatus_mm: float


@dataclass(frozen=True)
class InterlaminarWindow:
    """A window between two arches near a collection."""

    segment: str
    along_canal_mm: float
    """From the collection's level to the window, positive towards the head."""
    skin_to_canal_mm: float | None
    """From the skin of the back, in the midline and square to the canal, to the back of the
    canal; None where the field does not show the skin there."""


@dataclass(frozen=True)
class NarrowestDepth:
    """Where the posterior epidural space is narrowest on the way."""

    depth_mm: float
    point_lps: FloatArray
    level: str | None


@dataclass(frozen=True)
class CystOnPath:
    """A cyst-like structure in the sacral canal."""

    volume_ml: float
    center_lps: FloatArray


@dataclass(frozen=True)
class PlanningTarget:
    """The way along the posterior epidural space from the hiatus to one collection."""

    collection: int
    level: str | None
    canal_distance_from_hiatus_mm: float | None
    distance_to_caudal_end_mm: float | None
    distance_to_cranial_end_mm: float | None
    path_lps: FloatArray
    """Shape (n, 3), from the hiatus (or the lowest point in the field) up to the level."""
    nearest_interlaminar: str | None
    crossings: tuple[LevelCrossing, ...]
    canal_distance_range_mm: tuple[float, float] | None = None
    """Shortest and longest, from the ends of the expected range of a hiatus not detected."""
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Nearest first."""
    narrowest_depth: NarrowestDepth | None = None
    cysts: tuple[CystOnPath, ...] = ()


@dataclass(frozen=True)
class Planning:
    """Geometry for a catheter that comes up from the sacral hiatus."""

    hiatus: SacralHiatus
    targets: tuple[PlanningTarget, ...]
    sac_tip_to_hiatus_mm: float | None


@dataclass(frozen=True)
class Quality:
    """How good the images were for the purpose."""

    snr: float | None
    """Signal of CSF over noise; None where no noise was measured."""
    coverage_cranial: str | None
    coverage_caudal: str | None


@dataclass(frozen=True)
class LocatedConus:
    """The end of the spinal cord."""

    point_lps: FloatArray
    level: str | None
    """Third of a vertebral level, such as ``"lower L1"``; None where no level is named."""


@dataclass(frozen=True)
class Localization:
    """Everything said about one study, in the patient's own frame."""

    sac: LocatedSac
    collections: tuple[LocatedCollection, ...]
    finding: Finding
    planning: Planning
    quality: Quality
    conus: LocatedConus | None = None
    """None where the end of the cord was not detected."""
    notes: tuple[Note, ...] = ()
