"""The report as typed data: names and meanings of the report contract, version 1.

These models are the one source of the JSON Schema (`report_schema`). Keys of ours that the
contract does not name stand beside the contract's (an extent's description, the discs a path
passes); every key of the contract is required, unknown is ``None``, and a number is always
finite. Positions are LPS millimetres in the frame of reference of the myelogram, volumes mL,
lengths mm, areas mm², confidences 0..1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leakloc.errors import InputError
from leakloc.vocabulary import (
    Compartment,
    Grade,
    LeakStatus,
    LevelStatus,
    NumberingMethod,
    Pattern,
    Position,
    Role,
)

SCHEMA_NAME: Final = "leakloc.report/1"
"""Value of the key ``schema``; a new number for every change that breaks a reader."""

Point = tuple[float, float, float]
"""LPS millimetres."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A fraction or a confidence."""
Amount = Annotated[float, Field(ge=0.0)]
"""A volume, length or area."""


class _Part(BaseModel):
    # Keys added by a later version survive reading and writing by this one.
    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
        serialize_by_alias=True,
    )


class Generator(_Part):
    """What wrote the report, with which settings."""

    name: Literal["leakloc"]
    version: str
    created: str
    """UTC, ISO 8601."""
    config: dict[str, Any]
    """Every setting of the run."""
    config_sha256: str
    runtime_s: dict[str, Amount]
    """Seconds by stage, and ``total``."""


class StudyIdentity(_Part):
    """The study; patient fields as the setting `report.identity` says."""

    study_instance_uid: str | None
    study_date: str | None
    """As DICOM writes it, ``YYYYMMDD``."""
    accession_number: str | None
    patient_id: str | None
    identity: Literal["keep", "hash", "remove"]
    """What was done with the patient fields."""


class Warning_(_Part):  # noqa: N801 - `Warning` is a builtin
    """Something the reader should know."""

    model_config = ConfigDict(title="Warning")

    code: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    """Lower-case words joined by underscores; stable, for machines."""
    message: str
    """One sentence, without patient data."""


class Series(_Part):
    """One stack of slices that was found, and what it was taken for."""

    series_instance_uid: str | None
    description: str
    """As the scanner wrote it: may hold anything, escape it."""
    role: Role
    used_for: tuple[str, ...]
    reason: str
    """One sentence: the rule that fired."""
    n_instances: int = Field(ge=0)
    shape: tuple[int, int, int] | None
    """Slices, rows, columns; null where the slices form no regular volume."""
    spacing_mm: tuple[float, float, float] | None
    """Distance between slices, between rows, between columns (the order of `shape`)."""
    notes: tuple[Warning_, ...] = ()


class NumberingAlternative(_Part):
    """Another way to number the same vertebrae."""

    shift: int
    """How many names every level moves towards the tail."""
    confidence: Share
    reason: str


class Numbering(_Part):
    """How names were given, and how far to trust them."""

    method: NumberingMethod
    assumption: str
    confidence: Share
    transitional_suspected: bool
    lumbar_count: int
    alternatives: tuple[NumberingAlternative, ...]


class Vertebra(_Part):
    """A vertebral body."""

    name: str
    center_lps_mm: Point
    confidence: Share


class Disc(_Part):
    """A disc, or the remnant between sacral segments."""

    name: str
    center_lps_mm: Point
    normal_lps: Point
    """Unit normal, towards the head."""
    confidence: Share


class Levels(_Part):
    """Vertebrae and discs, from the head down."""

    status: LevelStatus
    numbering: Numbering
    vertebrae: tuple[Vertebra, ...]
    discs: tuple[Disc, ...]
    label_values: dict[str, int]
    """Voxel value of each vertebra in ``masks/levels.nii.gz``."""


class CaudalEnd(_Part):
    """Lower end of the thecal sac."""

    lps_mm: Point | None
    level: str | None


class SacSegment(_Part):
    """The sac within one motion segment."""

    segment: str
    volume_ml: Amount | None
    min_area_mm2: Amount | None
    mean_area_mm2: Amount | None


class ThecalSac(_Part):
    """Everything the dura encloses."""

    volume_ml: Amount | None
    """The sac, cord and roots included."""
    csf_volume_ml: Amount | None
    """The fluid in it, partial volume as fraction."""
    caudal_end: CaudalEnd
    by_segment: tuple[SacSegment, ...]


class LevelAlternative(_Part):
    """Another segment a collection could belong to."""

    level: str
    score: Share
    basis: tuple[str, ...]


class ExtentEnd(_Part):
    """One end of a collection along the canal."""

    lps_mm: Point | None
    segment: str | None
    description: str | None = None


class Extent(_Part):
    """How far a collection reaches along the canal."""

    cranial: ExtentEnd
    caudal: ExtentEnd
    length_mm: Amount | None


class PositionFractions(_Part):
    """Where around the sac a collection lies: fractions of its volume."""

    label: Position
    dorsal: Share
    ventral: Share
    left: Share
    right: Share


class Profile(_Part):
    """A collection along the canal."""

    arc_mm: tuple[float, ...]
    """Distance along the centreline, from its head end."""
    thickness_mm: tuple[float | None, ...]
    area_mm2: tuple[float | None, ...]


class Collection(_Part):
    """CSF-like fluid outside the dura, in or connected with the spinal canal."""

    id: int = Field(ge=1)
    """Voxel value in ``masks/epidural_fluid.nii.gz``."""
    level: str | None
    """Motion segment of the largest cross-section."""
    alternatives: tuple[LevelAlternative, ...]
    segments: tuple[str, ...]
    extent: Extent
    position: PositionFractions
    compartments: tuple[Compartment, ...]
    pattern: Pattern
    volume_ml: Amount | None
    max_thickness_mm: Amount | None
    max_area_mm2: Amount | None
    sac_compression: Share | None
    """1 - least sac area along the collection / area expected from its neighbours."""
    centroid_lps_mm: Point | None
    epicenter_lps_mm: Point | None
    """Centre of the largest cross-section."""
    confidence: Share
    grade: Grade
    basis: tuple[str, ...]
    mimics_considered: tuple[str, ...]
    profile: Profile | None = None


class Rejected(_Part):
    """Bright signal outside the thecal sac that was looked at and not counted."""

    volume_ml: Amount
    center_lps_mm: Point | None
    probability: Share
    """How likely it is extradural fluid all the same."""
    reason: str
    """What it is taken for, in one sentence."""
    mimics: tuple[str, ...]


class Finding(_Part):
    """The answer of the study."""

    leak: LeakStatus
    level: str | None
    confidence: Share
    summary: str
    """One sentence a radiologist would write."""


class SacralHiatus(_Part):
    """Lower opening of the sacral canal."""

    visible: bool
    lps_mm: Point | None
    confidence: Share


class Crossing(_Part):
    """Where the path passes the middle of a disc."""

    disc: str
    distance_from_hiatus_mm: float


class InterlaminarWindow(_Part):
    """A window between two arches near a collection."""

    segment: str
    along_canal_mm: float
    """From the collection's level to the window, positive towards the head."""
    skin_to_canal_mm: Amount | None
    """In the midline, square to the canal; null where the skin is not in the field."""


class NarrowestDepth(_Part):
    """Where the posterior epidural space behind the sac is narrowest on the way."""

    depth_mm: Amount
    lps_mm: Point
    level: str | None


class CystOnPath(_Part):
    """A cyst-like structure in the canal on the way."""

    volume_ml: Amount
    center_lps_mm: Point


class Target(_Part):
    """The way from the hiatus along the posterior epidural space to one collection."""

    collection: int
    level: str | None
    canal_distance_from_hiatus_mm: Amount | None
    path_lps_mm: tuple[Point, ...]
    """From the hiatus, or the lowest point in the field, upwards."""
    nearest_interlaminar: str | None
    distance_to_caudal_end_mm: float | None = None
    distance_to_cranial_end_mm: float | None = None
    crossings: tuple[Crossing, ...] = ()
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Nearest first."""
    narrowest_posterior_depth: NarrowestDepth | None = None
    """Null where it was not measured: behind the sac only, on a companion with bright fat."""
    cysts: tuple[CystOnPath, ...] = ()


class Planning(_Part):
    """Geometry for whoever plans; no dose, needle or technique."""

    sacral_hiatus: SacralHiatus
    targets: tuple[Target, ...]
    sac_tip_to_hiatus_mm: float | None = None


class Coverage(_Part):
    """First and last vertebra in the field."""

    cranial: str | None
    caudal: str | None


class Quality(_Part):
    """How good the images were for the purpose."""

    snr: Amount | None
    coverage: Coverage
    warnings: tuple[Warning_, ...]


class Outputs(_Part):
    """Files beside the report, relative to its folder."""

    overlays: tuple[str, ...] = ()
    masks: dict[str, str] = Field(default_factory=dict)
    dicom: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    html: str | None = None
    pdf: str | None = None
    """The figures as lines and type."""
    html3d: str | None = None
    """A page with the volume and the masks in three dimensions."""
    tables: tuple[str, ...] = ()
    """CSV of collections and levels."""


class SkippedFiles(_Part):
    """Files that are no part of any series."""

    reason: str
    count: int


class Report(_Part):
    """What one analysed study says; the content of ``report.json``.

    Examples
    --------
    >>> report = Report.load("out/report.json")  # doctest: +SKIP
    >>> report.finding.level, report.collections[0].position.label  # doctest: +SKIP
    ('L4-L5', 'dorsal')
    """

    model_config = ConfigDict(title="leakloc report", protected_namespaces=())

    schema_: Literal["leakloc.report/1"] = Field(default=SCHEMA_NAME, alias="schema")
    notice: str
    generator: Generator
    study: StudyIdentity
    series: tuple[Series, ...]
    levels: Levels
    thecal_sac: ThecalSac
    collections: tuple[Collection, ...]
    finding: Finding
    planning: Planning
    quality: Quality
    outputs: Outputs
    skipped_files: tuple[SkippedFiles, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    """Largest first."""

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a ``report.json``, or the one in a report folder, of this version or an older one.

        Raises
        ------
        InputError
            If there is none, or it does not keep the contract.
        """
        file = Path(path)
        file = file / "report.json" if file.is_dir() else file
        try:
            values = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is no report: it is not JSON") from error
        except OSError as error:
            raise InputError(f"cannot read the report {file}: {error.strerror}") from error
        try:
            # Strict JSON reading as before: NaN and infinity are no numbers of a report.
            return cls.model_validate_json(json.dumps(upgraded(values, str(file))))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(f"{file} is no {SCHEMA_NAME}: {where}: {first['msg']}") from error

    def to_json(self) -> str:
        """The text of ``report.json``: UTF-8, indented, no NaN or infinity."""
        values = self.model_dump(mode="json", by_alias=True)
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """The finding, for notebooks."""
        rows = "".join(
            f"<tr><td>{c.id}</td><td>{escape(c.level or '?')}</td><td>{c.position.label}</td>"
            f"<td>{_number(c.volume_ml)} mL</td><td>{c.grade}</td></tr>"
            for c in self.collections
        )
        table = (
            "<table><tr><th>#</th><th>level</th><th>position</th><th>volume</th><th>grade</th>"
            f"</tr>{rows}</table>"
            if rows
            else ""
        )
        numbering = self.levels.numbering
        return (
            f"<div><p><strong>{escape(self.finding.summary)}</strong></p>{table}"
            f"<p>Numbering assumes {escape(numbering.assumption)} "
            f"(confidence {numbering.confidence:.2f}).</p>"
            f"<p><small>{escape(self.notice)}</small></p></div>"
        )


def upgraded(values: Any, source: str = "the report") -> Any:
    """The values of a report of any known version, as this version writes them.

    Parameters
    ----------
    values : dict
        Parsed ``report.json``.
    source : str
        Named in errors.

    Raises
    ------
    InputError
        If the version is newer than this program, or none of a leakloc report.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source} is no report: it holds no object")
    schema = values.get("schema")
    seen = []
    while schema != SCHEMA_NAME:
        upgrade = _UPGRADES.get(schema) if isinstance(schema, str) else None
        if upgrade is None or schema in seen:
            raise InputError(_unknown_version(schema, source))
        seen.append(schema)
        values = upgrade(values)
        schema = values.get("schema")
    return values


def _unknown_version(schema: Any, source: str) -> str:
    name, _, number = str(schema).partition("/")
    ours = int(SCHEMA_NAME.partition("/")[2])
    if name == SCHEMA_NAME.partition("/")[0] and number.isdigit() and int(number) > ours:
        return (
            f"{source} was written as {schema}, this leakloc reads up to {SCHEMA_NAME}: "
            "install a newer leakloc"
        )
    return f"{source} is no leakloc report: its schema is {schema!r}"[:300]


def _from_0(values: dict[str, Any]) -> dict[str, Any]:
    """What the first drafts lacked: the treatment of identity, and outputs."""
    study = {"identity": "keep", **values.get("study", {})}
    outputs = values.get("outputs", {})
    return {**values, "schema": "leakloc.report/1", "study": study, "outputs": outputs}


_UPGRADES: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "leakloc.report/0": _from_0
}
"""By version: how its values become those of the next one."""


def report_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) every ``report.json`` is validated against."""
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


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"
