"""Results of localization: parts of the report, and `Localization`, which holds them.

Lengths are in mm, areas in mm², volumes in mL, positions in LPS mm in the frame of reference of
the myelogram. Unknown values are None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import Field

from leakloc.anatomy.vocabulary import (
    Compartment,
    Grade,
    LateralSide,
    LeakStatus,
    Pattern,
    Position,
    Role,
)
from leakloc.core.notes import Note
from leakloc.core.parts import (
    Degrees,
    Fraction,
    Milliliters,
    Millimeters,
    Nullable,
    Part,
    Point,
    Ratio,
    Signed,
    SignedMillimeters,
)

PathContent = Literal["fluid", "no fat"]
LineReason = Literal["in-plane resolution", "slice thickness", "partial volume"]
FluidKind = Literal["CSF-like", "protein-rich or seroma-like", "blood-like", "fat-like"]

_GRADES: Final[tuple[Grade, ...]] = get_args(Grade)
"""Grades, most certain first."""


class Conus(Part):
    """The conus medullaris."""

    lps_mm: Point
    """Tip of the conus, on the centerline of the canal."""
    level: str | None
    """Third of a vertebral level, such as ``lower L1``; null if levels are unlabelled."""


class CaudalEnd(Part):
    """Caudal end of the thecal sac."""

    lps_mm: Nullable[Point]
    """Caudal end of the sac; null if the sac extends beyond the field of view."""
    level: str | None
    """Vertebra or segment at the caudal end; null if unknown."""


class SacSegment(Part):
    """The thecal sac within one motion segment."""

    segment: str
    """Motion segment, such as ``L4-L5``."""
    volume_ml: Nullable[Milliliters]
    """Sac volume within the segment."""
    min_area_mm2: Nullable[Millimeters]
    """Minimum cross-section, perpendicular to the canal."""
    mean_area_mm2: Nullable[Millimeters]
    """Mean cross-section, perpendicular to the canal."""
    csf_volume_ml: Nullable[Milliliters] = None
    """CSF volume in the sac within the segment, relative to the signals of CSF and nerve roots at
    the same level; null in reports of older versions."""


class ThecalSac(Part):
    """Measurements of the thecal sac."""

    volume_ml: Nullable[Milliliters]
    """Volume of the sac, including cord and roots."""
    csf_volume_ml: Nullable[Milliliters]
    """CSF volume in the sac, with voxels weighted by their fluid fraction."""
    caudal_end: CaudalEnd
    """Caudal end of the sac."""
    by_segment: tuple[SacSegment, ...]
    """Motion segments in the field of view, cranial to caudal."""


class LevelAlternative(Part):
    """Alternative level of a collection."""

    level: str
    """Motion segment."""
    score: Fraction
    """Support relative to the reported level, 0 to 1; a score for ranking, not a probability."""
    basis: tuple[str, ...]
    """Reasons for the alternative level."""


class ExtentEnd(Part):
    """One end of a collection along the canal."""

    lps_mm: Nullable[Point]
    """Position on the centerline."""
    segment: str | None
    """Motion segment of the end; null if levels are unlabelled."""
    description: str | None = None
    """Description, such as ``L4-L5, 6 mm below the disc center``."""


class Extent(Part):
    """Extent of a collection along the canal."""

    cranial: ExtentEnd
    """Cranial end of the collection."""
    caudal: ExtentEnd
    """Caudal end of the collection."""
    length_mm: Nullable[Millimeters]
    """Length along the canal."""


class PositionFractions(Part):
    """Position of a collection around the thecal sac, as fractions of its volume."""

    label: Position
    """Position of the largest fraction, or ``circumferential``."""
    dorsal: Fraction
    """Fraction of the volume posterior to the sac."""
    ventral: Fraction
    """Fraction of the volume anterior to the sac."""
    left: Fraction
    """Fraction of the volume on the patient's left."""
    right: Fraction
    """Fraction of the volume on the patient's right."""


class SignalRatio(Part):
    """Signal of a collection relative to CSF in the sac at the same level, on one series."""

    role: Role
    """Role of the series."""
    ratio: Nullable[Ratio]
    """Ratio of the medians; null if partial volume leaves too few voxels."""
    low: Nullable[Ratio]
    """Lower limit of the 95 % interval from noise."""
    high: Nullable[Ratio]
    """Upper limit of the 95 % interval from noise."""
    n_voxels: int = Field(ge=0)
    """Number of voxels of the series completely within the collection."""


class FluidCharacter(Part):
    """Signal of a collection on companion series; the type of fluid is not determined."""

    kind: FluidKind | None
    """Kind of fluid that the ratios resemble; null without unenhanced T1, or if the interval
    includes several kinds."""
    ratios: tuple[SignalRatio, ...]
    """Ratios by series."""


class Interruption(Part):
    """Interruption of the dark line with fluid signal across it; not evidence of a tear."""

    center_lps_mm: Point
    """Center, on the outline of the sac."""
    level: str | None
    """Motion segment; null if levels are unlabelled."""
    side: Position
    """Quadrant around the sac."""
    angle_deg: Degrees
    """Angle around the sac: 0 dorsal, 90 to the patient's left, 180 ventral, 270 to the right."""
    width_mm: Millimeters
    """Length along the outline of the sac on the axial slice on which it is widest."""


class DarkLine(Part):
    """Dark line (the dura) between the sac and a collection on axial T2.

    Measured at samples every 0.5 mm along the interface. Normal dura next to epidural fat is also
    a dark line.
    """

    fraction: Nullable[Fraction]
    """Fraction of the samples with a line darker than both sides; null if not measured."""
    n_slices: int = Field(ge=0)
    """Number of axial slices with samples."""
    n_samples: int = Field(ge=0)
    """Number of samples."""
    n_excluded: int = Field(ge=0)
    """Number of other places along the interface: dark tissue such as a nerve root adjoins."""
    not_measured: LineReason | None
    """Why the line was not measured: pixels larger than 0.8 mm, the sac oblique to thick slices, or
    a collection thinner than 2 mm or darker tissue along the interface."""
    interruption: Interruption | None
    """Widest interruption of the line with fluid signal across it; null if none was detected."""


class AxialT2(Part):
    """Signal of a collection on axial T2; epidural fat may be as bright as fluid."""

    bright: bool | None
    """Whether the signal is at least 0.75 of that of CSF in the sac; null if not measured."""
    side_confirmed: bool | None
    """Whether it is brighter than the opposite side of the sac; null if not measured, or if the
    intervals overlap."""
    ratio: Nullable[Ratio]
    """Signal relative to CSF in the sac; null if partial volume leaves too few voxels."""
    low: Nullable[Ratio]
    """Lower limit of the 95 % interval from noise."""
    high: Nullable[Ratio]
    """Upper limit of the 95 % interval from noise."""
    opposite_ratio: Nullable[Ratio]
    """Signal of the opposite side of the sac relative to CSF; null if not measured."""
    n_voxels: int = Field(ge=0)
    """Number of voxels completely within the collection."""
    covered_fraction: Fraction
    """Fraction of the collection within the canal that is in the field of view."""
    confirms: bool | None = None
    """Whether the signal is that of CSF or brighter, and brighter than fat in the same images;
    false if darker than fluid, or if fat is not excluded; null if not measured."""
    fat_ratio: Nullable[Ratio] = None
    """Signal of fat posterior to the canal relative to CSF; null if not measured."""
    fat_high: Nullable[Ratio] = None
    """Upper limit of its interval from the variation between places."""
    dark_line: DarkLine | None = None
    """Dark line between the sac and the collection."""


class Enhancement(Part):
    """Rise of T1 signal after intravenous contrast around a collection.

    Values are relative to the signal of muscle. Enhancement has many causes; it does not indicate
    one.
    """

    rim: bool | None
    """Whether a rim of the collection enhances; null if not measured."""
    rise: Nullable[Signed]
    """Median rise in a shell around the collection."""
    low: Nullable[Signed]
    """Lower limit of its 95 % interval from the variation of the voxels."""
    high: Nullable[Signed]
    """Upper limit of its 95 % interval."""
    interior_rise: Nullable[Signed]
    """Median rise within the collection."""
    enhancing_fraction: Nullable[Fraction]
    """Fraction of the shell that enhances."""
    n_voxels: int = Field(ge=0)
    """Number of voxels in the shell."""
    plane: Literal["sagittal", "coronal", "axial"]
    """Plane of the T1 series before and after contrast; of several pairs, that with the most voxels
    in the shell."""
    not_measured: str | None = None
    """Why it was not measured: partial volume, registration or field of view."""


class SecondMyelogram(Part):
    """A collection on a second myelogram of the study."""

    agreement: Literal["confirmed", "not detected", "not covered", "not assessable"]
    """``not assessable``: not detected, but fat is as bright as fluid there."""
    volume_ml: Nullable[Milliliters]
    """Volume of the corresponding fluid there; null if not covered."""
    covered_fraction: Fraction
    """Fraction of the collection in its field of view."""


class Profile(Part):
    """Thickness and cross-section of a collection along the canal."""

    arc_mm: tuple[SignedMillimeters, ...]
    """Distance along the centerline, from its cranial end."""
    thickness_mm: tuple[Nullable[SignedMillimeters], ...]
    """Maximum thickness at each position of `arc_mm`; null if not measured."""
    area_mm2: tuple[Nullable[SignedMillimeters], ...]
    """Cross-section at each position of `arc_mm`; null if not measured."""


class Collection(Part):
    """Epidural fluid collection, in or connected with the spinal canal."""

    id: int = Field(ge=1)
    """Voxel value in ``masks/epidural_fluid.nii.gz``."""
    level: str | None
    """Motion segment of the largest cross-section."""
    level_set: tuple[str, ...] = ()
    """`level` and the alternative segments of the largest cross-section, by probability: the
    smallest set that includes the correct segment with the probability defined in the settings."""
    alternatives: tuple[LevelAlternative, ...]
    """Alternative segments, best first."""
    segments: tuple[str, ...]
    """All motion segments the collection extends into, cranial to caudal."""
    extent: Extent
    """Extent along the canal."""
    position: PositionFractions
    """Position around the thecal sac."""
    compartments: tuple[Compartment, ...]
    """Compartments involved: epidural, foraminal, paraspinal, subcutaneous."""
    pattern: Pattern
    """Shape, by rules on length, position and compartments."""
    volume_ml: Nullable[Milliliters]
    """Volume, with voxels weighted by their fluid fraction."""
    max_thickness_mm: Nullable[Millimeters]
    """Maximum thickness outside the dura."""
    max_area_mm2: Nullable[Millimeters]
    """Largest cross-section, perpendicular to the canal."""
    max_angle_around_sac_deg: Nullable[Degrees] = None
    """Largest angle of the circumference of the sac with adjacent fluid in one cross-section;
    null in reports of earlier versions."""
    floating_sac: bool | None = None
    """Whether fluid surrounds the sac over a sufficient length ("floating dural sac sign")."""
    sac_compression: Nullable[Fraction]
    """1 - minimum sac area along the collection / area expected from adjacent levels."""
    centroid_lps_mm: Nullable[Point]
    """Centroid of the collection."""
    epicenter_lps_mm: Nullable[Point]
    """Center of the largest cross-section."""
    confidence: Fraction
    """Probability of epidural CSF-like fluid."""
    grade: Grade
    """Category of `confidence`."""
    basis: tuple[str, ...]
    """Criteria for the finding, in sentences."""
    mimics_considered: tuple[str, ...]
    """Mimics that were considered."""
    character: FluidCharacter | None = None
    """Signal on companion series; null if no companion is registered."""
    axial_t2: AxialT2 | None = None
    """Signal on axial T2; null if no axial T2 is registered or covers the collection."""
    enhancement: Enhancement | None = None
    """Enhancement around the collection; null without a T1 pair."""
    second_myelogram: SecondMyelogram | None = None
    """The collection on a second myelogram; null without one."""
    profile: Profile | None = None
    """Thickness and area along the canal; null if not measured."""


class SideFluid(Part):
    """Epidural fluid on one side of the thecal sac within a motion segment."""

    present: bool
    """Whether fluid was detected."""
    thickness_mm: Nullable[Millimeters]
    """Maximum radial thickness outside the dura, within the canal; 0 without fluid."""
    area_mm2: Nullable[Millimeters]
    """Largest cross-section, perpendicular to the canal; 0 without fluid."""
    truncated: bool = False
    """Whether the fluid extends to a lateral, anterior or posterior edge of the images, so that
    thickness and area are minimum values."""


def by_certainty(collections: Iterable[Collection]) -> tuple[Collection, ...]:
    """Sort collections by grade, then by volume; the first one is the main collection."""
    return tuple(sorted(collections, key=certainty_key))


def certainty_key(collection: Collection) -> tuple[int, float]:
    """Sort key of `by_certainty`."""
    return _GRADES.index(collection.grade), -(collection.volume_ml or 0.0)


class SegmentFluid(Part):
    """Epidural fluid of one motion segment, by side of the thecal sac."""

    segment: str
    """Motion segment, such as ``L4-L5``."""
    present: bool
    """Whether a collection extends into the segment; outside the canal it is on no side."""
    collections: tuple[int, ...]
    """The `id` of each collection that extends into the segment."""
    dorsal: SideFluid
    """Quadrant posterior to the sac."""
    ventral: SideFluid
    """Quadrant anterior to the sac."""
    left: SideFluid
    """Quadrant on the patient's left."""
    right: SideFluid
    """Quadrant on the patient's right."""


class MyelogramAgreement(Part):
    """Fluid on a second myelogram of the study."""

    n_collections: int = Field(ge=0)
    """Number of collections detected on it."""
    n_confirmed: int = Field(ge=0)
    """Number of reported collections confirmed on it."""
    n_additional: int = Field(ge=0)
    """Number of collections detected only on it."""


class RootDiverticulum(Part):
    """A perineural cyst or root sleeve diverticulum: a round CSF-like structure at a root."""

    root: str | None
    """Nerve root, such as ``L4`` (exits between L4 and L5); null if levels are unlabelled."""
    side: Literal["left", "right"]
    """Side of the patient."""
    max_diameter_mm: Millimeters
    """Maximum diameter."""
    volume_ml: Milliliters
    """Volume of the voxels with at least half the signal of CSF."""
    center_lps_mm: Point
    """Center of the structure."""
    sac_distance_mm: Millimeters
    """Distance of its border from the thecal sac."""


RETROSPINAL_FLUID: Final = "retrospinal CSF-like fluid at C1-C2"
FALSE_LOCALIZING: Final = "a known false localizing sign: it does not indicate the level"


class RetrospinalFluid(Part):
    """Retrospinal CSF-like fluid at C1-C2, between the posterior arches.

    A known false localizing sign: it does not indicate the level.
    """

    present: bool | None
    """Whether it was detected; null if not assessed."""
    volume_ml: Nullable[Milliliters] = None
    """Volume; null without it."""
    side: LateralSide | None = None
    """Side of the center; null without it."""
    center_lps_mm: Nullable[Point] = None
    """Center; null without it."""
    confidence: Fraction
    """Confidence of the label C2, on which its position is based; 0 if not assessed."""
    not_assessed: str | None = None
    """Reason why it was not assessed; null if it was."""


class Finding(Part):
    """The finding of the study."""

    leak: LeakStatus
    """Presence of epidural fluid; ``indeterminate`` if the images do not allow a decision."""
    level: str | None
    """Level of the main collection; null without collections."""
    confidence: Fraction
    """Confidence in `leak`."""
    summary: str
    """One-sentence summary in the style of a radiology report."""
    segments_with_fluid: int | None = None
    """Number of motion segments with epidural fluid, possible collections included; null if levels
    are unlabelled."""
    second_myelogram: MyelogramAgreement | None = None
    """Fluid on a second myelogram; null without one."""
    root_diverticula: tuple[RootDiverticulum, ...] | None = None
    """Perineural cysts and root sleeve diverticula, largest first; null if not assessed."""
    retrospinal_c1_c2: RetrospinalFluid | None = None
    """Retrospinal fluid at C1-C2, never one of the collections; null in reports of earlier
    versions."""


class ExpectedHiatus(Part):
    """Expected position of the apex of an undetected hiatus; the range includes 19 of 20 people."""

    level: str
    """Sacral vertebra of the most frequent position."""
    lps_mm: Point
    """Most frequent position: the middle of that vertebra, in the canal."""
    cranial_lps_mm: Point
    """Cranial end of the range: the middle of S3."""
    caudal_lps_mm: Point
    """Caudal end of the range: the end of S5."""


class SacralHiatus(Part):
    """The sacral hiatus, the caudal opening of the sacral canal."""

    visible: bool
    """Whether the hiatus was detected."""
    lps_mm: Nullable[Point]
    """Apex, in the midline; null if not detected."""
    confidence: Fraction
    """Confidence in the position; 0 if not detected."""
    expected: ExpectedHiatus | None = None
    """Expected position; null if the hiatus was detected or S4 is not in the field of view."""


class Crossing(Part):
    """Distance at which the path crosses the middle of a disc."""

    disc: str
    """Name of the disc."""
    distance_from_hiatus_mm: SignedMillimeters
    """Distance along the path."""


class InterlaminarWindow(Part):
    """An interlaminar window near a collection."""

    segment: str
    """Motion segment of the window."""
    along_canal_mm: SignedMillimeters
    """Distance of the window from the level of the collection, positive cranially."""
    skin_to_canal_mm: Nullable[Millimeters]
    """Skin-to-canal distance in the midline, perpendicular to the canal;
    null if the skin is not in the field of view."""


class NarrowestDepth(Part):
    """Minimum depth of the posterior epidural space along the path."""

    depth_mm: Millimeters
    """Distance from the posterior border of the sac to that of the canal."""
    lps_mm: Point
    """Position of the minimum."""
    level: str | None
    """Motion segment of the minimum; null if levels are unlabelled."""


class CystOnPath(Part):
    """A cyst-like structure in the canal along the path."""

    volume_ml: Milliliters
    """Volume of the cyst."""
    center_lps_mm: Point
    """Center of the cyst."""
    level: str | None = None
    """Motion segment of the center; null if levels are unlabelled."""
    distance_from_hiatus_mm: Nullable[SignedMillimeters] = None
    """Distance along the path from the hiatus or its expected position to the center; null if
    neither is in the field of view."""


class Target(Part):
    """Path from the hiatus along the posterior epidural space to one collection."""

    collection: int
    """The `id` of the collection."""
    level: str | None
    """Motion segment of the collection; null if levels are unlabelled."""
    canal_distance_from_hiatus_mm: Nullable[Millimeters]
    """Distance along the path to the level, from the hiatus or, if not detected, its expected
    position; null if neither is in the field of view."""
    path_lps_mm: tuple[Point, ...]
    """Points of the path, from the hiatus or the most caudal point in the field of view upward."""
    nearest_interlaminar: str | None
    """Motion segment of the nearest interlaminar window; null if levels are unlabelled."""
    distance_to_caudal_end_mm: Nullable[SignedMillimeters] = None
    """Distance from the hiatus to the caudal end of the collection."""
    distance_to_cranial_end_mm: Nullable[SignedMillimeters] = None
    """Distance from the hiatus to the cranial end of the collection."""
    canal_distance_range_mm: Nullable[tuple[Millimeters, Millimeters]] = None
    """Distances from both ends of the expected range; null if the hiatus was detected."""
    crossings: tuple[Crossing, ...] = ()
    """Discs crossed by the path, from the hiatus upward."""
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Interlaminar windows, nearest first."""
    narrowest_posterior_depth: NarrowestDepth | None = None
    """Measured only posterior to the sac, on a companion series with bright fat; null otherwise."""
    cysts: tuple[CystOnPath, ...] = ()
    """Cysts in the sacral canal along the path."""


class LengthMark(Part):
    """Level reached at one length along the path from the hiatus."""

    distance_from_hiatus_mm: Millimeters
    """Length along the path: that of a catheter inserted to this point."""
    segment: str
    """Motion segment reached."""
    description: str
    """Position in the segment, such as ``L4-L5, 6 mm below the disc center``."""
    posterior_depth_mm: Nullable[Millimeters]
    """Depth of the posterior epidural space there; null if not measured."""
    lps_mm: Nullable[Point] = None
    """Point on the path; null in reports of earlier versions."""


class DiscDistance(Part):
    """Distance from the hiatus to one disc, and that in adults."""

    disc: str
    """Name of the disc."""
    distance_from_hiatus_mm: Nullable[Millimeters]
    """Distance along the path from the hiatus or its expected position; null if neither is in the
    field of view."""
    distance_range_mm: Nullable[tuple[Millimeters, Millimeters]] = None
    """Distances from both ends of the expected range; null if the hiatus was detected."""
    typical_mm: Millimeters
    """Mean distance in adults."""
    typical_range_mm: tuple[Millimeters, Millimeters]
    """Range that includes 19 of 20 adults."""


class BrightStructure(Part):
    """Bright structure in the canal that was not classified as epidural fluid."""

    volume_ml: Milliliters
    """Volume of the structure."""
    center_lps_mm: Point
    """Center of the structure."""
    level: str | None
    """Motion segment of the center."""
    distance_from_hiatus_mm: SignedMillimeters
    """Distance along the path from the hiatus or its expected position to the center."""
    mimics: tuple[str, ...]
    """Names of the assumed mimics; a cyst can be named differently."""


class PathStretch(Part):
    """Stretch of the path without fat in the posterior epidural space."""

    start_mm: Millimeters
    """Distance of the caudal end from the hiatus or its expected position, along the path."""
    stop_mm: Millimeters
    """Distance of the cranial end."""
    content: PathContent
    """``fluid``: epidural fluid; ``no fat``: no signal of fat or fluid, cause not determined."""
    segments: tuple[str, ...]
    """Motion segments, from the caudal end upward."""


class CaudalAccess(Part):
    """Measurements of the sacral hiatus and of the path from it; no dose, needle or technique.

    A value that was not measured is null, with the reason in `not_measured`.
    """

    hiatus_height_mm: Nullable[Millimeters]
    """Distance along the canal from the apex of the hiatus to the end of S5."""
    hiatus_width_mm: Nullable[Millimeters]
    """Width of the sacral canal at the apex."""
    hiatus_depth_mm: Nullable[Millimeters]
    """Anteroposterior diameter of the sacral canal at the apex, in the midline."""
    canal_to_skin_deg: Nullable[Degrees]
    """Angle between the caudal 20 mm of the sacral canal and the skin, in the midline."""
    skin_to_hiatus_mm: Nullable[Millimeters]
    """Shortest distance from the skin to the apex, in the midline."""
    not_measured: dict[str, str]
    """Reason for each value that is null, by key."""
    discs: tuple[DiscDistance, ...]
    """Discs from L5-S1 to the most cranial disc in the field of view, at least to L1-L2; empty if
    levels are unlabelled."""
    without_fat: tuple[PathStretch, ...]
    """Stretches of at least 10 mm without posterior epidural fat, from the hiatus upward; short
    ones between the fat pads of adjacent levels are normal."""
    assessed_mm: Nullable[Millimeters]
    """Length of the path on which fat was assessed; null if it was not."""
    cysts: tuple[CystOnPath, ...]
    """Cysts in the canal along the path, from the hiatus upward."""
    bright_structures: tuple[BrightStructure, ...] = ()
    """All rejected bright structures in the canal along the path from 0.2 mL, cysts included."""

    @property
    def other_structures(self) -> tuple[BrightStructure, ...]:
        """Bright structures that are not listed as cysts."""
        cysts = {cyst.center_lps_mm for cyst in self.cysts}
        return tuple(s for s in self.bright_structures if s.center_lps_mm not in cysts)


class Planning(Part):
    """Geometric measurements for planning; no dose, needle or technique."""

    sacral_hiatus: SacralHiatus
    """Sacral hiatus, the caudal end of the paths."""
    targets: tuple[Target, ...]
    """One path for each collection."""
    length_marks: tuple[LengthMark, ...] = ()
    """Level reached at every 10 mm from the hiatus or its expected position, up to the most cranial
    disc; empty if neither is in the field of view."""
    sac_tip_to_hiatus_mm: Nullable[SignedMillimeters] = None
    """Distance from the caudal end of the sac to the hiatus or its expected position, along the
    canal; null if either is unknown."""
    caudal_access: CaudalAccess | None = None
    """Measurements of the hiatus and of the path; null in reports of earlier versions."""


class PosteriorArch(Part):
    """Posterior arch of one vertebra, assessed by the bone marrow of its spinous process."""

    vertebra: str
    """Vertebra, such as ``L4``."""
    present: bool | None
    """Whether the spinous process was identified; null if it is not in the field of view."""
    confidence: Fraction
    """Confidence in `present`; 0 if null."""


class PosteriorExtension(Part):
    """Extension of a collection posterior to the spinal canal."""

    collection: int = Field(ge=1)
    """The `id` of the collection."""
    neck_level: str | None
    """Motion segment of the neck; null without a neck, or if levels are unlabelled."""
    neck_width_mm: Nullable[Millimeters]
    """Diameter of the circle with the area of the narrowest cross-section; null if the fluid does
    not narrow between the canal and its posterior part."""
    neck_lps_mm: Nullable[Point]
    """Center of the neck."""
    end_level: str | None
    """Motion segment of the posterior end of the fluid."""
    end_lps_mm: Point
    """Posterior end of the fluid."""
    canal_distance_mm: Millimeters
    """Distance of the posterior end from the canal."""
    skin_distance_mm: Nullable[Millimeters]
    """Distance of the posterior end from the skin; null if the skin is not in the field of view."""
    compartment: Literal["paraspinal", "subcutaneous"]
    """Most posterior compartment of the fluid."""


class MetalArtifact(Part):
    """A stretch of the canal adjacent to a signal void of the size of an implant."""

    segments: tuple[str, ...]
    """Motion segments, cranial to caudal."""
    cranial_lps_mm: Point
    """Cranial end, on the centerline of the canal."""
    caudal_lps_mm: Point
    """Caudal end, on the centerline of the canal."""
    length_mm: Millimeters
    """Length along the canal."""
    canal_distance_mm: Millimeters
    """Distance of the void from the canal; 0 if it extends into the canal."""
    hidden_canal_mm: Millimeters
    """Length of the canal into which the void extends, where fluid may not be visible."""


class PostoperativeChanges(Part):
    """Postoperative changes: posterior arches, posterior extension of fluid, metal."""

    arches: tuple[PosteriorArch, ...]
    """Lumbar vertebrae in the field of view, cranial to caudal."""
    arches_assessed: bool
    """Whether arches could be assessed; requires a sagittal T2 series and named levels."""
    extensions: tuple[PosteriorExtension, ...]
    """Extensions of the collections posterior to the canal."""
    metal: tuple[MetalArtifact, ...]
    """Signal voids, cranial to caudal."""
    metal_assessed: bool
    """Whether metal could be assessed; requires a sagittal T2 series."""


class Coverage(Part):
    """First and last vertebra in the field of view."""

    cranial: str | None
    """Most cranial vertebra in the field of view; null if levels are unlabelled."""
    caudal: str | None
    """Most caudal vertebra in the field of view; null if levels are unlabelled."""


@dataclass(frozen=True)
class Localization:
    """Localization results of one study, in patient coordinates."""

    thecal_sac: ThecalSac
    collections: tuple[Collection, ...]
    finding: Finding
    planning: Planning
    coverage: Coverage
    fluid_by_segment: tuple[SegmentFluid, ...]
    snr: float | None
    """CSF signal divided by noise; None if noise was not measured."""
    conus: Conus | None = None
    """None if the conus was not detected."""
    notes: tuple[Note, ...] = ()
    postoperative: PostoperativeChanges | None = None
    """None if not measured."""
