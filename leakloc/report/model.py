"""Data models of the report, version 1.

The JSON Schema (`report_schema`) is generated from these models. All keys of the report contract
are required, further keys (such as the description of an extent) are optional; unknown values are
``None`` and all numbers are finite. Positions are in LPS millimeters in the frame of reference of
the myelogram, volumes in mL, lengths in mm, areas in mm², confidences 0..1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leakloc.anatomy.vocabulary import (
    Compartment,
    Grade,
    LeakStatus,
    LevelStatus,
    NumberingMethod,
    Pattern,
    Position,
    Role,
)
from leakloc.core.errors import InputError
from leakloc.core.templates import render_html

SCHEMA_NAME: Final = "leakloc.report/1"
"""Value of the key ``schema``; incremented with each incompatible change."""

Point = tuple[float, float, float]
"""Position in LPS millimeters."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A fraction or a confidence."""
Amount = Annotated[float, Field(ge=0.0)]
"""A volume, length or area."""


class _Part(BaseModel):
    # Keys added by later versions are preserved.
    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
        serialize_by_alias=True,
    )


class Generator(_Part):
    """Program that created the report, and its settings."""

    name: Literal["leakloc"]
    """Always ``leakloc``."""
    version: str
    """Version of the package."""
    created: str
    """Date and time, UTC, ISO 8601."""
    config: dict[str, Any]
    """All settings of the analysis."""
    config_sha256: str
    """SHA-256 of `config`; equal for reports with the same settings."""
    runtime_s: dict[str, Amount]
    """Run time in seconds by stage, and ``total``."""


class StudyIdentity(_Part):
    """Study identifiers; patient attributes according to the setting `report.identity`."""

    study_instance_uid: str | None
    """Null if the input has none (formats other than DICOM)."""
    study_date: str | None
    """In DICOM format, ``YYYYMMDD``."""
    accession_number: str | None
    """According to the setting `report.identity`; null if absent or removed."""
    patient_id: str | None
    """According to the setting `report.identity`; null if absent or removed."""
    identity: Literal["keep", "hash", "remove"]
    """Processing of the patient attributes."""


class Warning_(_Part):  # noqa: N801 - `Warning` is a builtin
    """Warning for the reader of the report."""

    model_config = ConfigDict(title="Warning")

    code: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    """Machine-readable, stable code: lower-case words joined by underscores."""
    message: str
    """One sentence, without patient data."""


class Series(_Part):
    """One stack of slices and its role."""

    series_instance_uid: str | None
    """Null for formats other than DICOM."""
    description: str
    """Series Description; may contain arbitrary text and must be escaped for display."""
    role: Role
    """Role assigned to the series."""
    used_for: tuple[str, ...]
    """``fluid``, ``levels``, both or neither."""
    reason: str
    """One sentence: the rule that determined the role."""
    n_instances: int = Field(ge=0)
    """Number of images of the stack."""
    shape: tuple[int, int, int] | None
    """Slices, rows, columns; null if the slices do not form a regular volume."""
    spacing_mm: tuple[float, float, float] | None
    """Distance between slices, between rows, between columns (the order of `shape`)."""
    notes: tuple[Warning_, ...] = ()
    """Corrections and irregularities of the series."""


class NumberingAlternative(_Part):
    """Alternative numbering of the same vertebrae."""

    shift: int
    """Caudal shift of all names, in levels."""
    confidence: Fraction
    """Probability that this numbering is correct."""
    reason: str
    """Condition under which this numbering is correct."""


class Numbering(_Part):
    """Method, assumption and confidence of the level numbering."""

    method: NumberingMethod
    """Counted down from C2, up from the sacrum, set by the user, or supplied externally."""
    assumption: str
    """Assumption of the numbering, in words."""
    confidence: Fraction
    """Probability that all names are correct; the remainder is distributed among `alternatives`."""
    transitional_suspected: bool
    """Whether a transitional vertebra or a different number of lumbar vertebrae is suspected."""
    lumbar_count: int
    """Assumed number of lumbar vertebrae."""
    alternatives: tuple[NumberingAlternative, ...]
    """Shifts by one level up and down, each with its reason."""


class Vertebra(_Part):
    """A vertebral body."""

    name: str
    """``C2`` to ``S5``."""
    center_lps_mm: Point
    """Center of the vertebral body."""
    confidence: Fraction
    """Confidence in the position and name of the vertebra."""


class Disc(_Part):
    """An intervertebral disc, or a remnant disc between sacral segments."""

    name: str
    """The vertebrae above and below, such as ``L4-L5``."""
    center_lps_mm: Point
    """Center of the disc."""
    normal_lps: Point
    """Unit normal of the disc plane, cranial."""
    confidence: Fraction
    """Confidence in the position and name of the disc; low if the disc was interpolated."""


class Conus(_Part):
    """The conus medullaris."""

    lps_mm: Point
    """Tip of the conus, on the centerline of the canal."""
    level: str | None
    """Third of a vertebral level, such as ``lower L1``; null if levels are unlabelled."""


class Levels(_Part):
    """Vertebrae and discs, cranial to caudal."""

    status: LevelStatus
    """``partial``: numbering based on vertebral size only; ``unlabelled``: no level is named."""
    numbering: Numbering
    """Level numbering."""
    vertebrae: tuple[Vertebra, ...]
    """Vertebral bodies, cranial to caudal."""
    discs: tuple[Disc, ...]
    """Discs, cranial to caudal."""
    label_values: dict[str, int]
    """Voxel value of each vertebra in ``masks/levels.nii.gz``."""
    conus: Conus | None = None
    """Conus medullaris; null if not detected."""


class CaudalEnd(_Part):
    """Caudal end of the thecal sac."""

    lps_mm: Point | None
    """Caudal end of the sac; null if the sac extends beyond the field of view."""
    level: str | None
    """Vertebra or segment at the caudal end; null if unknown."""


class SacSegment(_Part):
    """The thecal sac within one motion segment."""

    segment: str
    """Motion segment, such as ``L4-L5``."""
    volume_ml: Amount | None
    """Sac volume within the segment."""
    min_area_mm2: Amount | None
    """Minimum cross-section, perpendicular to the canal."""
    mean_area_mm2: Amount | None
    """Mean cross-section, perpendicular to the canal."""


class ThecalSac(_Part):
    """Measurements of the thecal sac."""

    volume_ml: Amount | None
    """Volume of the sac, including cord and roots."""
    csf_volume_ml: Amount | None
    """CSF volume in the sac, with voxels weighted by their fluid fraction."""
    caudal_end: CaudalEnd
    """Caudal end of the sac."""
    by_segment: tuple[SacSegment, ...]
    """Motion segments in the field of view, cranial to caudal."""


class LevelAlternative(_Part):
    """Alternative level of a collection."""

    level: str
    """Motion segment."""
    score: Fraction
    """Support relative to the reported level, 0 to 1; a score for ranking, not a probability."""
    basis: tuple[str, ...]
    """Reasons for the alternative level."""


class ExtentEnd(_Part):
    """One end of a collection along the canal."""

    lps_mm: Point | None
    """Position on the centerline."""
    segment: str | None
    """Motion segment of the end; null if levels are unlabelled."""
    description: str | None = None
    """Description, such as ``L4-L5, 6 mm below the disc center``."""


class Extent(_Part):
    """Extent of a collection along the canal."""

    cranial: ExtentEnd
    """Cranial end of the collection."""
    caudal: ExtentEnd
    """Caudal end of the collection."""
    length_mm: Amount | None
    """Length along the canal."""


class PositionFractions(_Part):
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


class Profile(_Part):
    """Thickness and cross-section of a collection along the canal."""

    arc_mm: tuple[float, ...]
    """Distance along the centerline, from its cranial end."""
    thickness_mm: tuple[float | None, ...]
    """Maximum thickness at each position of `arc_mm`; null if not measured."""
    area_mm2: tuple[float | None, ...]
    """Cross-section at each position of `arc_mm`; null if not measured."""


class Collection(_Part):
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
    volume_ml: Amount | None
    """Volume, with voxels weighted by their fluid fraction."""
    max_thickness_mm: Amount | None
    """Maximum thickness outside the dura."""
    max_area_mm2: Amount | None
    """Largest cross-section, perpendicular to the canal."""
    sac_compression: Fraction | None
    """1 - minimum sac area along the collection / area expected from adjacent levels."""
    centroid_lps_mm: Point | None
    """Centroid of the collection."""
    epicenter_lps_mm: Point | None
    """Center of the largest cross-section."""
    confidence: Fraction
    """Probability of epidural CSF-like fluid."""
    grade: Grade
    """Category of `confidence`."""
    basis: tuple[str, ...]
    """Criteria for the finding, in sentences."""
    mimics_considered: tuple[str, ...]
    """Mimics that were considered."""
    profile: Profile | None = None
    """Thickness and area along the canal; null if not measured."""


class Rejected(_Part):
    """Rejected candidate: bright signal outside the thecal sac."""

    volume_ml: Amount
    """Volume, with voxels weighted by their fluid fraction."""
    center_lps_mm: Point | None
    """Center of the bright signal."""
    level: str | None
    """Motion segment of the center; null if no level is named there."""
    position: Position
    """Direction of the center relative to the canal centerline."""
    probability: Fraction
    """Probability of epidural fluid."""
    reason: str
    """Reason for rejection, in one sentence."""
    mimics: tuple[str, ...]
    """Names of the assumed mimics."""


class Finding(_Part):
    """The finding of the study."""

    leak: LeakStatus
    """Presence of epidural fluid; ``indeterminate`` if the images do not allow a decision."""
    level: str | None
    """Level of the main collection; null without collections."""
    confidence: Fraction
    """Confidence in `leak`."""
    summary: str
    """One-sentence summary in the style of a radiology report."""


class ExpectedHiatus(_Part):
    """Expected position of the apex of an undetected hiatus; the range includes 19 of 20 people."""

    level: str
    """Sacral vertebra of the most frequent position."""
    lps_mm: Point
    """Most frequent position: the middle of that vertebra, in the canal."""
    cranial_lps_mm: Point
    """Cranial end of the range: the middle of S3."""
    caudal_lps_mm: Point
    """Caudal end of the range: the end of S5."""


class SacralHiatus(_Part):
    """The sacral hiatus, the caudal opening of the sacral canal."""

    visible: bool
    """Whether the hiatus was detected."""
    lps_mm: Point | None
    """Apex, in the midline; null if not detected."""
    confidence: Fraction
    """Confidence in the position; 0 if not detected."""
    expected: ExpectedHiatus | None = None
    """Expected position; null if the hiatus was detected or S4 is not in the field of view."""


class Crossing(_Part):
    """Distance at which the path crosses the middle of a disc."""

    disc: str
    """Name of the disc."""
    distance_from_hiatus_mm: float
    """Distance along the path."""


class InterlaminarWindow(_Part):
    """An interlaminar window near a collection."""

    segment: str
    """Motion segment of the window."""
    along_canal_mm: float
    """Distance of the window from the level of the collection, positive cranially."""
    skin_to_canal_mm: Amount | None
    """Skin-to-canal distance in the midline, perpendicular to the canal;
    null if the skin is not in the field of view."""


class NarrowestDepth(_Part):
    """Minimum depth of the posterior epidural space along the path."""

    depth_mm: Amount
    """Distance from the posterior border of the sac to that of the canal."""
    lps_mm: Point
    """Position of the minimum."""
    level: str | None
    """Motion segment of the minimum; null if levels are unlabelled."""


class CystOnPath(_Part):
    """A cyst-like structure in the canal along the path."""

    volume_ml: Amount
    """Volume of the cyst."""
    center_lps_mm: Point
    """Center of the cyst."""


class Target(_Part):
    """Path from the hiatus along the posterior epidural space to one collection."""

    collection: int
    """The `id` of the collection."""
    level: str | None
    """Motion segment of the collection; null if levels are unlabelled."""
    canal_distance_from_hiatus_mm: Amount | None
    """Distance along the path to the level, from the hiatus or, if not detected, its expected
    position; null if neither is in the field of view."""
    path_lps_mm: tuple[Point, ...]
    """Points of the path, from the hiatus or the most caudal point in the field of view upward."""
    nearest_interlaminar: str | None
    """Motion segment of the nearest interlaminar window; null if levels are unlabelled."""
    distance_to_caudal_end_mm: float | None = None
    """Distance from the hiatus to the caudal end of the collection."""
    distance_to_cranial_end_mm: float | None = None
    """Distance from the hiatus to the cranial end of the collection."""
    canal_distance_range_mm: tuple[Amount, Amount] | None = None
    """Distances from both ends of the expected range; null if the hiatus was detected."""
    crossings: tuple[Crossing, ...] = ()
    """Discs crossed by the path, from the hiatus upward."""
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Interlaminar windows, nearest first."""
    narrowest_posterior_depth: NarrowestDepth | None = None
    """Measured only posterior to the sac, on a companion series with bright fat; null otherwise."""
    cysts: tuple[CystOnPath, ...] = ()
    """Cysts in the sacral canal along the path."""


class Planning(_Part):
    """Geometric measurements for planning; no dose, needle or technique."""

    sacral_hiatus: SacralHiatus
    """Sacral hiatus, the caudal end of the paths."""
    targets: tuple[Target, ...]
    """One path for each collection."""
    sac_tip_to_hiatus_mm: float | None = None
    """Distance from the caudal end of the sac to the hiatus or its expected position, along the
    canal; null if either is unknown."""


class Coverage(_Part):
    """First and last vertebra in the field of view."""

    cranial: str | None
    """Most cranial vertebra in the field of view; null if levels are unlabelled."""
    caudal: str | None
    """Most caudal vertebra in the field of view; null if levels are unlabelled."""


class Quality(_Part):
    """Image quality and warnings."""

    snr: Amount | None
    """CSF signal divided by the noise in tissue; null if noise was not measured."""
    coverage: Coverage
    """Coverage of the spine."""
    warnings: tuple[Warning_, ...]
    """Warnings, without duplicates."""


class Outputs(_Part):
    """Output files, relative to the report folder."""

    overlays: tuple[str, ...] = ()
    """PNG figures."""
    masks: dict[str, str] = Field(default_factory=dict)
    """NIfTI masks by content."""
    dicom: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """DICOM objects by kind."""
    html: str | None = None
    """HTML report; null if not written."""
    pdf: str | None = None
    """PDF with the figures as vector graphics."""
    html3d: str | None = None
    """HTML file with a 3D viewer of volume and masks."""
    tables: tuple[str, ...] = ()
    """CSV files of collections and levels."""


class SkippedFiles(_Part):
    """Files that do not belong to a series."""

    reason: str
    """Reason for skipping the files."""
    count: int
    """Number of files."""


class Report(_Part):
    """Report of one study; the content of ``report.json``.

    Examples
    --------
    >>> report = Report.load("out/report.json")  # doctest: +SKIP
    >>> report.finding.level, report.collections[0].position.label  # doctest: +SKIP
    ('L4-L5', 'dorsal')
    """

    model_config = ConfigDict(title="leakloc report", protected_namespaces=())

    schema_: Literal["leakloc.report/1"] = Field(default=SCHEMA_NAME, alias="schema")
    """Name and version of the report schema."""
    notice: str
    """Notice on the intended use."""
    generator: Generator
    """Program version, settings and run time."""
    study: StudyIdentity
    """Identifiers of the study."""
    series: tuple[Series, ...]
    """All stacks of slices of the study, with their roles."""
    levels: Levels
    """Named vertebrae and discs."""
    thecal_sac: ThecalSac
    """Volumes, cross-sections and caudal end of the thecal sac."""
    collections: tuple[Collection, ...]
    """Epidural fluid collections, by decreasing volume."""
    finding: Finding
    """Presence of epidural fluid, level and confidence."""
    planning: Planning
    """Distances and positions along the paths from the sacral hiatus."""
    quality: Quality
    """Image quality and warnings of the study."""
    outputs: Outputs
    """Output files of the report."""
    skipped_files: tuple[SkippedFiles, ...] = ()
    """Number of skipped files, by reason."""
    rejected: tuple[Rejected, ...] = ()
    """Rejected candidates, by decreasing probability."""

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a ``report.json`` or report folder of this or an older schema version.

        Raises
        ------
        InputError
            If the file is missing or does not conform to the schema.
        """
        file = Path(path)
        file = file / "report.json" if file.is_dir() else file
        try:
            values = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is not a report: not JSON") from error
        except OSError as error:
            raise InputError(f"cannot read the report {file}: {error.strerror}") from error
        try:
            # Strict JSON validation: NaN and infinity are rejected.
            return cls.model_validate_json(json.dumps(upgraded(values, str(file))))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"{file} is not a valid {SCHEMA_NAME}: {where}: {first['msg']}"
            ) from error

    def to_json(self) -> str:
        """Return the text of ``report.json``: indented JSON without NaN or infinity."""
        values = self.model_dump(mode="json", by_alias=True)
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """Return an HTML summary for notebooks."""
        return render_html("report/page/summary.html.j2", report=self)


def upgraded(values: Any, source: str = "the report") -> Any:
    """Convert the values of a report of an older schema version to the current one.

    Parameters
    ----------
    values : dict
        Parsed ``report.json``.
    source : str
        Source name in error messages.

    Raises
    ------
    InputError
        If the version is newer than supported, or not that of a leakloc report.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source} is not a report: not a JSON object")
    schema = values.get("schema")
    visited = []
    while schema != SCHEMA_NAME:
        upgrade = _UPGRADES.get(schema) if isinstance(schema, str) else None
        if upgrade is None or schema in visited:
            raise InputError(_unknown_version(schema, source))
        visited.append(schema)
        values = upgrade(values)
        schema = values.get("schema")
    return values


def _unknown_version(schema: Any, source: str) -> str:
    name, _, number = str(schema).partition("/")
    ours = int(SCHEMA_NAME.partition("/")[2])
    if name == SCHEMA_NAME.partition("/")[0] and number.isdigit() and int(number) > ours:
        return (
            f"{source} has schema {schema}, this version of leakloc reads up to {SCHEMA_NAME}: "
            "install a newer leakloc"
        )
    return f"{source} is not a report of leakloc: its schema is {schema!r}"[:300]


def _from_0(values: dict[str, Any]) -> dict[str, Any]:
    """Convert version 0, which lacks `study.identity` and `outputs`."""
    study = {"identity": "keep", **values.get("study", {})}
    outputs = values.get("outputs", {})
    return {**values, "schema": "leakloc.report/1", "study": study, "outputs": outputs}


_UPGRADES: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "leakloc.report/0": _from_0
}
"""By version: conversion to the next version."""


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``report.json``."""
    schema = Report.model_json_schema(by_alias=True, mode="validation")
    schema["required"] = ["schema", *schema["required"], "outputs"]
    schema["required"] = list(dict.fromkeys(schema["required"]))
    outputs = schema["$defs"]["Outputs"]
    outputs["required"] = ["overlays", "masks", "dicom", "html"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_NAME,
        **schema,
    }
