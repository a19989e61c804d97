"""Data models of the report, version 1.

The JSON Schema (`report_schema`) is generated from these models. All keys of the report contract
are required, further keys (such as the description of an extent) are optional; unknown values are
``None`` and all numbers are finite. Positions are in LPS millimeters in the frame of reference of
the myelogram, volumes in mL, lengths in mm, areas in mm², confidences 0..1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from leakloc.anatomy.vocabulary import LateralSide, LevelStatus, NumberingMethod, Position, Role
from leakloc.core.errors import InputError
from leakloc.core.parts import (
    Amount,
    Direction,
    Fraction,
    Milliliters,
    Nullable,
    Part,
    Point,
    Ratio,
)
from leakloc.core.templates import render_html
from leakloc.localization.result import (
    Collection,
    Conus,
    Coverage,
    Finding,
    Planning,
    PostoperativeChanges,
    SegmentFluid,
    ThecalSac,
)

SCHEMA_NAME: Final = "leakloc.report/1"
"""Value of the key ``schema``; incremented with each incompatible change."""

MAX_VIEWER_VOXELS: Final = 24_000_000
"""Maximum size of the viewer's grid: decoded in three seconds on an old PC, requires 48 MB."""

MAX_RUNS_LENGTH: Final = 400_000
"""Maximum number of characters of run lengths; ``corrections.json`` is smaller than 1 MB."""


class Generator(Part):
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


class StudyIdentity(Part):
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


class Warning_(Part):  # noqa: N801 - `Warning` is a builtin
    """Warning for the reader of the report."""

    model_config = ConfigDict(title="Warning")

    code: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    """Machine-readable, stable code: lower-case words joined by underscores."""
    message: str
    """One sentence, without patient data."""


class Series(Part):
    """One stack of slices and its role."""

    series_instance_uid: str | None
    """Null for formats other than DICOM."""
    description: str
    """Series Description; may contain arbitrary text and must be escaped for display."""
    role: Role
    """Role assigned to the series."""
    used_for: tuple[str, ...]
    """Parts of the report the series contributed to: ``fluid``, ``levels``, ``character``,
    ``planning``, ``comparison`` (second myelogram, axial T2), ``enhancement``."""
    contribution: str = ""
    """What the series contributed, or why nothing."""
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


class NumberingAlternative(Part):
    """Alternative numbering of the same vertebrae."""

    shift: int
    """Caudal shift of all names, in levels."""
    confidence: Fraction
    """Probability that this numbering is correct."""
    reason: str
    """Condition under which this numbering is correct."""


class Numbering(Part):
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


class Vertebra(Part):
    """A vertebral body."""

    name: str
    """``C2`` to ``S5``."""
    center_lps_mm: Point
    """Center of the vertebral body."""
    confidence: Fraction
    """Confidence in the position and name of the vertebra."""


class Disc(Part):
    """An intervertebral disc, or a remnant disc between sacral segments."""

    name: str
    """The vertebrae above and below, such as ``L4-L5``."""
    center_lps_mm: Point
    """Center of the disc."""
    normal_lps: Direction
    """Unit normal of the disc plane, cranial."""
    confidence: Fraction
    """Confidence in the position and name of the disc; low if the disc was interpolated."""


class Levels(Part):
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

    @property
    def numbering_text(self) -> str:
        """Description of the numbering and its confidence."""
        if self.status == "unlabelled":
            return "levels could not be named"
        return f"{self.numbering.assumption} (confidence {self.numbering.confidence:.2f})"


class Rejected(Part):
    """Rejected candidate: bright signal outside the thecal sac."""

    volume_ml: Milliliters
    """Volume, with voxels weighted by their fluid fraction."""
    center_lps_mm: Nullable[Point]
    """Center of the bright signal."""
    level: str | None
    """Motion segment of the center, or the nearest named one; null if no level is named."""
    position: Position
    """Direction of the center relative to the canal centerline."""
    probability: Fraction
    """Probability of epidural fluid."""
    reason: str
    """Reason for rejection, in one sentence."""
    mimics: tuple[str, ...]
    """Names of the assumed mimics."""
    side: LateralSide | None = None
    """Side of the center; midline up to 3 mm from the centerline of the canal. Null in reports of
    earlier versions."""


class Quality(Part):
    """Image quality and warnings."""

    snr: Nullable[Ratio]
    """CSF signal divided by the noise in tissue; null if noise was not measured."""
    coverage: Coverage
    """Coverage of the spine."""
    warnings: tuple[Warning_, ...]
    """Warnings, without duplicates."""


class Outputs(Part):
    """Output files, relative to the report folder."""

    overlays: tuple[str, ...] = ()
    """PNG figures."""
    masks: dict[str, str] = Field(default_factory=dict)
    """NIfTI masks by content."""
    labels: tuple[str, ...] = ()
    """Names and colors of the values of each mask: BIDS ``dseg.tsv`` and ITK-SNAP descriptions."""
    markups: tuple[str, ...] = ()
    """Levels, collections and paths as markups of 3D Slicer."""
    dicom: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """DICOM objects by kind."""
    html: str | None = None
    """HTML report; null if not written."""
    text: str | None = None
    """Report text by headings, to paste into a reporting system; null if not written."""
    pdf: str | None = None
    """PDF with the figures as vector graphics."""
    caudal: str | None = None
    """PDF of the caudal access sheet, one page."""
    html3d: str | None = None
    """HTML file with a 3D viewer of volume and masks."""
    tables: tuple[str, ...] = ()
    """CSV files of collections, levels and all measurements."""
    fhir: str | None = None
    """FHIR R4 bundle; null if not written."""
    bids: tuple[str, ...] = ()
    """Masks, label tables and metadata of a BIDS derivative dataset."""


class SkippedFiles(Part):
    """Files that do not belong to a series."""

    reason: str
    """Reason for skipping the files."""
    count: int
    """Number of files."""


class RenamedVertebra(Part):
    """A vertebra renamed by the reader; all others are renamed by the same number of levels."""

    name: str
    """Name in the report."""
    new_name: str
    """Name specified by the reader."""


class EditedDisc(Part):
    """A disc point moved or deleted by the reader."""

    name: str
    """Name in the report."""
    lps_mm: Point | None
    """New position; null if deleted."""


class MarkedCollection(Part):
    """A collection marked as true or false by the reader."""

    id: int = Field(ge=1)
    """Number of the collection in the report."""
    is_fluid: bool
    """Whether the reader considers it epidural fluid; if not, it is removed."""


_Count = Annotated[int, Field(ge=1, le=4096)]
_Row = tuple[float, float, float, float]
_Runs = Annotated[str, Field(max_length=MAX_RUNS_LENGTH, pattern=r"^([0-9]{1,8}( [0-9]{1,8})*)?$")]


class EditedFluid(Part):
    """Epidural fluid painted or erased by the reader, on the grid of the viewer.

    Run lengths, separated by spaces, are numbers of consecutive voxels that are alternately not
    selected and selected. Voxels are in the order ``i``, ``k``, ``j`` (``j`` varies fastest).
    """

    shape_kji: tuple[_Count, _Count, _Count]
    """Number of voxels along k, j and i."""
    affine_lps: tuple[_Row, _Row, _Row, _Row]
    """Maps ``(i, j, k, 1)`` to LPS millimeters."""
    painted: _Runs = ""
    """Run lengths of the voxels added to the fluid."""
    erased: _Runs = ""
    """Run lengths of the voxels removed from the fluid."""

    @model_validator(mode="after")
    def _within_grid(self) -> Self:
        count = math.prod(self.shape_kji)
        if count > MAX_VIEWER_VOXELS:
            raise ValueError(f"the grid has more than {MAX_VIEWER_VOXELS} voxels")
        if any(sum(map(int, runs.split())) > count for runs in (self.painted, self.erased)):
            raise ValueError("the run lengths exceed the grid")
        return self

    def volumes_ml(self) -> dict[str, float]:
        """Return the volumes of the painted and the erased voxels, without those of 0."""
        (a, b, c, _), (d, e, f, _), (g, h, i, _), _ = self.affine_lps
        determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        unit_ml = abs(determinant) / 1000.0
        volumes = {
            edit: unit_ml * sum(map(int, runs.split()[1::2]))
            for edit, runs in (("painted", self.painted), ("erased", self.erased))
        }
        return {edit: volume for edit, volume in volumes.items() if volume > 0}


def positions_lps_mm(report: Report) -> dict[str, tuple[float, float, float]]:
    """Return the positions to which corrections refer.

    Returns
    -------
    dict
        Centers of vertebrae and discs by name, centroids of collections by number; LPS, mm.
    """
    positions = {vertebra.name: vertebra.center_lps_mm for vertebra in report.levels.vertebrae}
    positions |= {disc.name: disc.center_lps_mm for disc in report.levels.discs}
    for collection in report.collections:
        if collection.centroid_lps_mm is not None:
            positions[str(collection.id)] = collection.centroid_lps_mm
    return positions


class Corrections(Part):
    """Corrections of a report by a reader; the content of ``corrections.json``."""

    schema_: Literal["leakloc.corrections/1"] = Field(
        default="leakloc.corrections/1", alias="schema"
    )
    """Name and version of the format."""
    study_instance_uid: str | None
    """Study Instance UID of the report."""
    report_created: str
    """Value of `generator.created` of the corrected report."""
    reader: str = Field(min_length=1, max_length=64)
    """Name or initials of the reader."""
    created: str
    """Date and time, UTC, ISO 8601."""
    vertebrae: tuple[RenamedVertebra, ...] = ()
    """Renamed vertebrae."""
    discs: tuple[EditedDisc, ...] = ()
    """Moved and deleted disc points."""
    collections: tuple[MarkedCollection, ...] = ()
    """Marked collections."""
    fluid: EditedFluid | None = None
    """Painted and erased fluid; applied after the marks of collections."""
    positions_lps_mm: dict[str, Point] = Field(default_factory=dict)
    """Positions in the corrected report of the vertebrae, discs (by name) and collections (by
    number) that are corrected; a new analysis is compared with them."""


class Report(Part):
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
    fluid_by_segment: tuple[SegmentFluid, ...] = ()
    """Epidural fluid of each motion segment in the field of view, cranial to caudal, by side."""
    finding: Finding
    """Presence of epidural fluid, level and confidence."""
    planning: Planning
    """Distances and positions along the paths from the sacral hiatus."""
    postoperative: PostoperativeChanges | None = None
    """Postoperative changes; null in reports of earlier versions."""
    quality: Quality
    """Image quality and warnings of the study."""
    outputs: Outputs
    """Output files of the report."""
    skipped_files: tuple[SkippedFiles, ...] = ()
    """Number of skipped files, by reason."""
    rejected: tuple[Rejected, ...] = ()
    """Rejected candidates, by decreasing probability."""
    corrections: tuple[Corrections, ...] = ()
    """Corrections by readers that this report contains, in the order of their application."""

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
