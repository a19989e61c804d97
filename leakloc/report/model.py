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
    """Always ``leakloc``."""
    version: str
    """Version of the package."""
    created: str
    """UTC, ISO 8601."""
    config: dict[str, Any]
    """Every setting of the run."""
    config_sha256: str
    """SHA-256 of `config`: two reports with the same one were made with the same settings."""
    runtime_s: dict[str, Amount]
    """Seconds by stage, and ``total``."""


class StudyIdentity(_Part):
    """The study; patient fields as the setting `report.identity` says."""

    study_instance_uid: str | None
    """Null where the input has none (files other than DICOM)."""
    study_date: str | None
    """As DICOM writes it, ``YYYYMMDD``."""
    accession_number: str | None
    """As the setting `report.identity` leaves it; null where absent or removed."""
    patient_id: str | None
    """As the setting `report.identity` leaves it; null where absent or removed."""
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
    """Null for files other than DICOM."""
    description: str
    """As the scanner wrote it: may hold anything, escape it."""
    role: Role
    """What the series was taken for."""
    used_for: tuple[str, ...]
    """``fluid``, ``levels``, both or neither."""
    reason: str
    """One sentence: the rule that fired."""
    n_instances: int = Field(ge=0)
    """Images of the stack."""
    shape: tuple[int, int, int] | None
    """Slices, rows, columns; null where the slices form no regular volume."""
    spacing_mm: tuple[float, float, float] | None
    """Distance between slices, between rows, between columns (the order of `shape`)."""
    notes: tuple[Warning_, ...] = ()
    """What was mended or is odd about the series."""


class NumberingAlternative(_Part):
    """Another way to number the same vertebrae."""

    shift: int
    """How many names every level moves towards the tail."""
    confidence: Share
    """How likely this numbering is the right one."""
    reason: str
    """What would have to be so."""


class Numbering(_Part):
    """How names were given, and how far to trust them."""

    method: NumberingMethod
    """Counted down from C2, up from the sacrum, fixed by the user, or taken from outside."""
    assumption: str
    """What the names rest on, in one sentence."""
    confidence: Share
    """How likely all names are right; the rest is shared by `alternatives`."""
    transitional_suspected: bool
    """Whether a transitional vertebra, or another number of lumbar ones, may be there."""
    lumbar_count: int
    """Number of lumbar vertebrae that the names assume."""
    alternatives: tuple[NumberingAlternative, ...]
    """One name more and one name less, each with its reason."""


class Vertebra(_Part):
    """A vertebral body."""

    name: str
    """``C2`` to ``S5``."""
    center_lps_mm: Point
    """Centre of the vertebral body."""
    confidence: Share
    """That this place is a vertebra of this name."""


class Disc(_Part):
    """A disc, or the remnant between sacral segments."""

    name: str
    """The vertebrae above and below, such as ``L4-L5``."""
    center_lps_mm: Point
    """Centre of the disc."""
    normal_lps: Point
    """Unit normal, towards the head."""
    confidence: Share
    """That this place is the disc of this name; low where it was filled in."""


class Conus(_Part):
    """The end of the spinal cord."""

    lps_mm: Point
    """On the centerline of the canal."""
    level: str | None
    """Third of a vertebral level, such as ``lower L1``; null where levels are unlabelled."""


class Levels(_Part):
    """Vertebrae and discs, from the head down."""

    status: LevelStatus
    """``partial``: names rest on vertebral sizes alone; ``unlabelled``: no level is named."""
    numbering: Numbering
    """How names were given."""
    vertebrae: tuple[Vertebra, ...]
    """Vertebral bodies, from the head down."""
    discs: tuple[Disc, ...]
    """Discs, from the head down."""
    label_values: dict[str, int]
    """Voxel value of each vertebra in ``masks/levels.nii.gz``."""
    conus: Conus | None = None
    """End of the spinal cord; null where it was not detected."""


class CaudalEnd(_Part):
    """Lower end of the thecal sac."""

    lps_mm: Point | None
    """Tip of the sac; null where it runs out of the field."""
    level: str | None
    """Vertebra or segment at the tip; null where unknown."""


class SacSegment(_Part):
    """The sac within one motion segment."""

    segment: str
    """Motion segment, such as ``L4-L5``."""
    volume_ml: Amount | None
    """Sac volume within the segment."""
    min_area_mm2: Amount | None
    """Least cross-section, square to the canal."""
    mean_area_mm2: Amount | None
    """Mean cross-section, square to the canal."""


class ThecalSac(_Part):
    """Everything the dura encloses."""

    volume_ml: Amount | None
    """The sac, cord and roots included."""
    csf_volume_ml: Amount | None
    """The fluid in it, partial volume as fraction."""
    caudal_end: CaudalEnd
    """Where the sac ends."""
    by_segment: tuple[SacSegment, ...]
    """Motion segments in the field, from the head down."""


class LevelAlternative(_Part):
    """Another segment a collection could belong to."""

    level: str
    """Motion segment."""
    score: Share
    """Support for it against that for the level reported, 0 to 1; scores are ranks, not
    probabilities."""
    basis: tuple[str, ...]
    """What speaks for it, in words and figures."""


class ExtentEnd(_Part):
    """One end of a collection along the canal."""

    lps_mm: Point | None
    """On the centreline at the end."""
    segment: str | None
    """Motion segment of the end; null where levels are unlabelled."""
    description: str | None = None
    """In words, such as ``L4-L5, 6 mm below the disc centre``."""


class Extent(_Part):
    """How far a collection reaches along the canal."""

    cranial: ExtentEnd
    """End towards the head."""
    caudal: ExtentEnd
    """End towards the tail."""
    length_mm: Amount | None
    """Along the canal."""


class PositionFractions(_Part):
    """Where around the sac a collection lies: fractions of its volume."""

    label: Position
    """The side with most of the volume, or ``circumferential``."""
    dorsal: Share
    """Share of the volume behind the sac."""
    ventral: Share
    """Share of the volume in front of the sac."""
    left: Share
    """Share of the volume on the patient's left."""
    right: Share
    """Share of the volume on the patient's right."""


class Profile(_Part):
    """A collection along the canal."""

    arc_mm: tuple[float, ...]
    """Distance along the centreline, from its head end."""
    thickness_mm: tuple[float | None, ...]
    """Greatest thickness at each place of `arc_mm`; null where not measured."""
    area_mm2: tuple[float | None, ...]
    """Cross-section at each place of `arc_mm`; null where not measured."""


class Collection(_Part):
    """CSF-like fluid outside the dura, in or connected with the spinal canal."""

    id: int = Field(ge=1)
    """Voxel value in ``masks/epidural_fluid.nii.gz``."""
    level: str | None
    """Motion segment of the largest cross-section."""
    level_set: tuple[str, ...] = ()
    """`level` and the segments that may hold the largest cross-section instead, by probability:
    the smallest set that holds it with the probability that the settings state."""
    alternatives: tuple[LevelAlternative, ...]
    """Other segments it could belong to, best first."""
    segments: tuple[str, ...]
    """Every motion segment touched, from the head down."""
    extent: Extent
    """Its ends along the canal."""
    position: PositionFractions
    """Where around the sac it lies."""
    compartments: tuple[Compartment, ...]
    """Where it reaches: epidural, foraminal, paraspinal, subcutaneous."""
    pattern: Pattern
    """Its form, by rules on length, place and compartments."""
    volume_ml: Amount | None
    """Partial volume counted as a fraction of the voxel."""
    max_thickness_mm: Amount | None
    """Greatest thickness outside the dura."""
    max_area_mm2: Amount | None
    """Largest cross-section, square to the canal."""
    sac_compression: Share | None
    """1 - least sac area along the collection / area expected from its neighbours."""
    centroid_lps_mm: Point | None
    """Centre of its volume."""
    epicenter_lps_mm: Point | None
    """Centre of the largest cross-section."""
    confidence: Share
    """How likely it is extradural CSF-like fluid."""
    grade: Grade
    """`confidence` in a word."""
    basis: tuple[str, ...]
    """What the answer rests on, in sentences."""
    mimics_considered: tuple[str, ...]
    """What else looks like it and was weighed."""
    profile: Profile | None = None
    """Thickness and area along the canal; null where not measured."""


class Rejected(_Part):
    """Bright signal outside the thecal sac that was looked at and not counted."""

    volume_ml: Amount
    """Partial volume counted as a fraction of the voxel."""
    center_lps_mm: Point | None
    """Centre of its signal."""
    level: str | None
    """Motion segment of its centre; null where no level is named there."""
    position: Position
    """Direction of its centre from the middle of the canal."""
    probability: Share
    """How likely it is extradural fluid all the same."""
    reason: str
    """What it is taken for, in one sentence."""
    mimics: tuple[str, ...]
    """What it is taken for, in names."""


class Finding(_Part):
    """The answer of the study."""

    leak: LeakStatus
    """Whether extradural fluid is seen; ``indeterminate`` where the input cannot tell."""
    level: str | None
    """Level of the leading collection; null without one."""
    confidence: Share
    """In the answer `leak`."""
    summary: str
    """One sentence a radiologist would write."""


class ExpectedHiatus(_Part):
    """Where the apex of a hiatus that was not detected lies in 19 of 20 people."""

    level: str
    """Sacral vertebra of the most frequent place."""
    lps_mm: Point
    """The most frequent place: the middle of that vertebra, in the canal."""
    cranial_lps_mm: Point
    """Upper end of the range: the middle of S3."""
    caudal_lps_mm: Point
    """Lower end of the range: the end of S5."""


class SacralHiatus(_Part):
    """Lower opening of the sacral canal."""

    visible: bool
    """Whether it was detected."""
    lps_mm: Point | None
    """Its apex, in the midline; null where it was not detected."""
    confidence: Share
    """In the place; 0 where it was not detected."""
    expected: ExpectedHiatus | None = None
    """Where it lies in most people; null where it was detected or S4 is not in the field."""


class Crossing(_Part):
    """Where the path passes the middle of a disc."""

    disc: str
    """Name of the disc."""
    distance_from_hiatus_mm: float
    """Along the path."""


class InterlaminarWindow(_Part):
    """A window between two arches near a collection."""

    segment: str
    """Motion segment of the window."""
    along_canal_mm: float
    """From the collection's level to the window, positive towards the head."""
    skin_to_canal_mm: Amount | None
    """In the midline, square to the canal; null where the skin is not in the field."""


class NarrowestDepth(_Part):
    """Where the posterior epidural space behind the sac is narrowest on the way."""

    depth_mm: Amount
    """Back of the sac to the back of the canal."""
    lps_mm: Point
    """Where that is."""
    level: str | None
    """Motion segment there; null where levels are unlabelled."""


class CystOnPath(_Part):
    """A cyst-like structure in the canal on the way."""

    volume_ml: Amount
    """Volume of the cyst."""
    center_lps_mm: Point
    """Centre of the cyst."""


class Target(_Part):
    """The way from the hiatus along the posterior epidural space to one collection."""

    collection: int
    """The `id` of the collection."""
    level: str | None
    """Motion segment of the collection; null where levels are unlabelled."""
    canal_distance_from_hiatus_mm: Amount | None
    """Along the path to the level, from the hiatus or, where it was not detected, from its expected
    place; null where neither is in the field."""
    path_lps_mm: tuple[Point, ...]
    """From the hiatus, or the lowest point in the field, upwards."""
    nearest_interlaminar: str | None
    """Motion segment of the nearest window; null without levels."""
    distance_to_caudal_end_mm: float | None = None
    """The same to the collection's lower end."""
    distance_to_cranial_end_mm: float | None = None
    """The same to the collection's upper end."""
    canal_distance_range_mm: tuple[Amount, Amount] | None = None
    """From both ends of the expected range; null where the hiatus was detected."""
    crossings: tuple[Crossing, ...] = ()
    """Discs passed, from the hiatus up."""
    interlaminar: tuple[InterlaminarWindow, ...] = ()
    """Nearest first."""
    narrowest_posterior_depth: NarrowestDepth | None = None
    """Null where it was not measured: behind the sac only, on a companion with bright fat."""
    cysts: tuple[CystOnPath, ...] = ()
    """Cysts in the sacral canal on the way."""


class Planning(_Part):
    """Geometry for whoever plans; no dose, needle or technique."""

    sacral_hiatus: SacralHiatus
    """Where a path from below would begin."""
    targets: tuple[Target, ...]
    """One for each collection."""
    sac_tip_to_hiatus_mm: float | None = None
    """From the tip of the sac down to the hiatus or its expected place, along the canal; null where
    either is unknown."""


class Coverage(_Part):
    """First and last vertebra in the field."""

    cranial: str | None
    """Uppermost vertebra in the field; null where levels are unlabelled."""
    caudal: str | None
    """Lowest vertebra in the field; null where levels are unlabelled."""


class Quality(_Part):
    """How good the images were for the purpose."""

    snr: Amount | None
    """Signal of CSF over the noise in tissue; null where no noise was measured."""
    coverage: Coverage
    """What the field shows of the spine."""
    warnings: tuple[Warning_, ...]
    """Everything the reader should know, each once."""


class Outputs(_Part):
    """Files beside the report, relative to its folder."""

    overlays: tuple[str, ...] = ()
    """PNG pictures."""
    masks: dict[str, str] = Field(default_factory=dict)
    """NIfTI masks by what they hold."""
    dicom: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """DICOM objects by kind."""
    html: str | None = None
    """The page to read; null where it was not written."""
    pdf: str | None = None
    """The figures as lines and type."""
    html3d: str | None = None
    """A page with the volume and the masks in three dimensions."""
    tables: tuple[str, ...] = ()
    """CSV of collections and levels."""


class SkippedFiles(_Part):
    """Files that are no part of any series."""

    reason: str
    """Why they were left out."""
    count: int
    """How many files."""


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
    """Name and number of this form of the report."""
    notice: str
    """What the report must not be used for."""
    generator: Generator
    """The program, its settings, and when it ran."""
    study: StudyIdentity
    """Which study it is about."""
    series: tuple[Series, ...]
    """Every stack of slices found, with what it was taken for."""
    levels: Levels
    """Vertebrae and discs with their names."""
    thecal_sac: ThecalSac
    """What the dura encloses."""
    collections: tuple[Collection, ...]
    """Fluid outside the dura, by falling volume."""
    finding: Finding
    """The answer: leak or none, its level, how sure."""
    planning: Planning
    """Lengths and places for a way up from the sacral hiatus."""
    quality: Quality
    """How good the images were, and warnings."""
    outputs: Outputs
    """Files beside the report."""
    skipped_files: tuple[SkippedFiles, ...] = ()
    """Files that could not be used, by reason."""
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
