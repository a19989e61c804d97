"""Results of localization: the content of the report.

Names and meanings are those of the report schema; lengths in mm, areas in mm², volumes in mL,
points in LPS mm. Unknown values are None.
"""

from __future__ import annotations

from dataclasses import dataclass

from leakloc.anatomy.vocabulary import Compartment, Grade, LeakStatus, Pattern, Position
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray


@dataclass(frozen=True)
class AlternativeLevel:
    """Alternative segment of the finding, with reasons."""

    level: str
    score: float
    basis: tuple[str, ...]
    if_renumbered: bool = False
    """Whether it is the same position with another numbering of the levels."""


@dataclass(frozen=True)
class ExtentEnd:
    """One end of a collection along the canal."""

    point_lps: FloatArray
    segment: str | None
    description: str
    """For example ``"L4-L5, 6 mm below the disc center"``."""


@dataclass(frozen=True)
class Profile:
    """Thickness and cross-section of a collection along the canal.

    Parameters
    ----------
    arc_mm : ndarray, shape (n,)
        Distance along the centerline, cranial to caudal.
    thickness_mm, area_mm2 : ndarray, shape (n,)
    """

    arc_mm: FloatArray
    thickness_mm: FloatArray
    area_mm2: FloatArray


@dataclass(frozen=True)
class LocatedCollection:
    """One located epidural fluid collection."""

    id: int
    level: str | None
    """Motion segment of the largest cross-section; None if no level is named."""
    alternatives: tuple[AlternativeLevel, ...]
    segments: tuple[str, ...]
    """All segments the collection extends into, cranial to caudal."""
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
    """1 - minimum sac area along the collection / area expected from adjacent levels, 0..1."""
    centroid_lps: FloatArray
    epicenter_lps: FloatArray
    """Center of the largest cross-section."""
    confidence: float
    grade: Grade
    basis: tuple[str, ...]
    mimics_considered: tuple[str, ...]
    profile: Profile
    level_set: tuple[str, ...] = ()
    """`level` and the alternative segments of the largest cross-section, by probability."""


@dataclass(frozen=True)
class SacSegment:
    """The thecal sac within one motion segment."""

    segment: str
    volume_ml: float
    min_area_mm2: float
    mean_area_mm2: float


@dataclass(frozen=True)
class LocatedSac:
    """Measurements of the thecal sac."""

    volume_ml: float
    csf_volume_ml: float
    caudal_end_lps: FloatArray | None
    """None if the sac extends beyond the field of view."""
    caudal_end_level: str | None
    by_segment: tuple[SacSegment, ...]


@dataclass(frozen=True)
class Finding:
    """The finding of the study."""

    leak: LeakStatus
    level: str | None
    confidence: float
    summary: str


@dataclass(frozen=True)
class ExpectedHiatus:
    """Expected position of the apex of a hiatus that was not detected.

    S4 in two of three people, S3 to S5 in 19 of 20 (155 sacra: Nastoulis et al., Folia Morphol
    2023;82:603).
    """

    level: str
    point_lps: FloatArray
    cranial_lps: FloatArray
    caudal_lps: FloatArray


@dataclass(frozen=True)
class SacralHiatus:
    """The sacral hiatus, the caudal opening of the sacral canal."""

    visible: bool
    point_lps: FloatArray | None
    confidence: float
    expected: ExpectedHiatus | None = None
    """Only if the hiatus was not detected."""


@dataclass(frozen=True)
class LevelCrossing:
    """Distance at which the path passes the middle of a disc."""

    disc: str
    distance_from_hiatus_mm: float


@dataclass(frozen=True)
class InterlaminarWindow:
    """An interlaminar window near a collection."""

    segment: str
    along_canal_mm: float
    """From the collection's level to the window, positive cranially."""
    skin_to_canal_mm: float | None
    """Midline distance from the skin of the back to the posterior canal, perpendicular to the
    canal; None if the skin is outside the field of view."""


@dataclass(frozen=True)
class NarrowestDepth:
    """Minimum depth of the posterior epidural space along the path."""

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
    """Path along the posterior epidural space from the hiatus to one collection."""

    collection: int
    level: str | None
    canal_distance_from_hiatus_mm: float | None
    distance_to_caudal_end_mm: float | None
    distance_to_cranial_end_mm: float | None
    path_lps: FloatArray
    """Shape (n, 3), from the hiatus (or the lowest point in the field of view) to the level."""
    nearest_interlaminar: str | None
    crossings: tuple[LevelCrossing, ...]
    canal_distance_range_mm: tuple[float, float] | None = None
    """Minimum and maximum for the expected range of a hiatus that was not detected."""
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Nearest first."""
    narrowest_depth: NarrowestDepth | None = None
    cysts: tuple[CystOnPath, ...] = ()


@dataclass(frozen=True)
class Planning:
    """Geometry for a catheter advanced cranially from the sacral hiatus."""

    hiatus: SacralHiatus
    targets: tuple[PlanningTarget, ...]
    sac_tip_to_hiatus_mm: float | None


@dataclass(frozen=True)
class Quality:
    """Image quality and coverage."""

    snr: float | None
    """CSF signal divided by noise; None if noise was not measured."""
    coverage_cranial: str | None
    coverage_caudal: str | None


@dataclass(frozen=True)
class LocatedConus:
    """The conus medullaris."""

    point_lps: FloatArray
    level: str | None
    """Third of a vertebral level, such as ``"lower L1"``; None if no level is named."""


@dataclass(frozen=True)
class Localization:
    """Localization results of one study, in patient coordinates."""

    sac: LocatedSac
    collections: tuple[LocatedCollection, ...]
    finding: Finding
    planning: Planning
    quality: Quality
    conus: LocatedConus | None = None
    """None if the conus was not detected."""
    notes: tuple[Note, ...] = ()
