"""Structured report, FHIR, tables, text and page have the content of ``report.json``.

Each key of `PARTS` is changed in the report of the sample phantom, and each form must change. Keys
are taken from the JSON Schema: a new key that is missing in a form fails until it is added.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from leakloc.anatomy.vocabulary import SIDES
from leakloc.localization.result import (
    BrightStructure,
    CystOnPath,
    MetalArtifact,
    PathStretch,
    PosteriorArch,
    RetrospinalFluid,
    RootDiverticulum,
)
from leakloc.pipeline import Analysis
from leakloc.report import dicom, fhir, structured_report, tables
from leakloc.report.measurement_groups import Group, measurement_groups
from leakloc.report.model import Rejected, Report, report_schema
from leakloc.report.page import html
from leakloc.report.text import report_text
from tests.report.conftest import AXIAL_T2

PARTS = (
    ("finding", "root_diverticula"),
    ("postoperative",),
    ("planning", "caudal_access"),
    ("planning", "length_marks"),
    ("planning", "sac_tip_to_hiatus_mm"),
    ("fluid_by_segment",),
    *(
        ("finding", "retrospinal_c1_c2", name)
        for name in ("present", "volume_ml", "side", "confidence", "center_lps_mm")
    ),
    ("rejected",),
    ("collections", "axial_t2", "confirms"),
    ("collections", "axial_t2", "fat_ratio"),
    ("collections", "axial_t2", "fat_high"),
    ("collections", "axial_t2", "dark_line"),
)

Key = tuple[str, ...]

OMITTED = {
    "text": {
        ("planning", "length_marks", "description"): "the segment is listed",
        ("fluid_by_segment", "collections"): "each collection lists its segments",
    },
}
"""Keys that a form omits, with the reason; text and page omit positions."""

MEASURED = {"caudal_access": "hiatus_width_mm", "dark_line": "fraction"}
"""Value that is null if the key `not_measured` of the part has a reason."""


def sample_with_all_parts(report: Report) -> Report:
    """Add the findings that the phantom does not have."""
    values = report.model_dump(mode="json", by_alias=True)
    center = [-4.0, 60.0, -150.0]
    metal = {"segments": ["L2-L3", "L3-L4"], "cranial_lps_mm": center, "length_mm": 21.3}
    metal |= {"caudal_lps_mm": [-4.0, 60.0, -171.0], "canal_distance_mm": 0.0}
    cyst = CystOnPath(
        volume_ml=0.41, center_lps_mm=center, level="S1-S2", distance_from_hiatus_mm=38.2
    )
    other = BrightStructure(
        volume_ml=1.31, center_lps_mm=(2.0, 95.0, -135.0), level="S2-S3",
        distance_from_hiatus_mm=21.4, mimics=("epidural fat",),
    )  # fmt: skip
    root = RootDiverticulum(
        root="L4", side="left", max_diameter_mm=7.21, volume_ml=0.12,
        center_lps_mm=(11.0, 62.0, -80.0), sac_distance_mm=2.13,
    )  # fmt: skip
    rejected = Rejected(
        volume_ml=0.83, center_lps_mm=(9.0, 80.0, -90.0), level="L4-L5", position="dorsal",
        probability=0.23, reason="Lies in a facet joint.", mimics=("facet effusion",), side="left",
    )  # fmt: skip
    values["finding"]["root_diverticula"] = [root.model_dump(mode="json")]
    values["finding"]["retrospinal_c1_c2"] = RetrospinalFluid(
        present=True, volume_ml=0.91, side="left", center_lps_mm=(8.0, 90.0, 60.0), confidence=0.83
    ).model_dump(mode="json")
    values["rejected"] = [rejected.model_dump(mode="json")]
    values["collections"][0]["axial_t2"] = AXIAL_T2.model_dump(mode="json")
    changes = values["postoperative"]
    changes["metal"] = [
        MetalArtifact(**metal, hidden_canal_mm=6.4).model_dump(mode="json"),
        MetalArtifact(**metal | {"canal_distance_mm": 4.2}, hidden_canal_mm=0.0).model_dump(
            mode="json"
        ),
    ]
    arch = PosteriorArch(vertebra="L2", present=None, confidence=0.0)
    changes["arches"][1] = arch.model_dump(mode="json")
    access = values["planning"]["caudal_access"]
    access["cysts"] = [cyst.model_dump(mode="json")]
    access["bright_structures"] = [
        BrightStructure(**dict(cyst), mimics=("perineural cyst",)).model_dump(mode="json"),
        other.model_dump(mode="json"),
    ]
    access["without_fat"] = [
        PathStretch(start_mm=85, stop_mm=108, content="fluid", segments=("L5-S1",)).model_dump()
    ]
    for disc in access["discs"]:
        disc["distance_range_mm"] = [100.5, 140.5]
    access["hiatus_width_mm"] = 14.2
    segment = next(part for part in values["fluid_by_segment"] if part["present"])
    for number, side in enumerate(SIDES):
        size = {"thickness_mm": 3.1 + number, "area_mm2": 20.7 + number}
        segment[side] = {"present": True, "truncated": False, **size}
    return Report.model_validate_json(json.dumps(values))


@pytest.fixture(scope="module")
def report(sample_report: Path) -> Report:
    return sample_with_all_parts(Report.load(sample_report))


# --- keys -------------------------------------------------------------------------------------


def schema_keys(node: dict, definitions: dict, key: Key = ()) -> Iterator[Key]:
    """Yield the keys below a node of the schema; lists are transparent."""
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    choices = [one for one in node.get("anyOf", []) if one.get("type") != "null"]
    if choices:
        yield from schema_keys(choices[0], definitions, key)
    elif "properties" in node:
        for name, part in node["properties"].items():
            yield from schema_keys(part, definitions, (*key, name))
    elif node.get("items"):
        yield from schema_keys(node["items"], definitions, key)
    else:
        yield key


def values_at(value: Any, key: Key) -> list[Any]:
    """Values of a key, without null."""
    if isinstance(value, list) and (key or not is_leaf(value)):
        return [found for item in value for found in values_at(item, key)]
    if not key:
        return [] if value is None or value == [] else [value]
    return [] if value is None else values_at(value[key[0]], key[1:])


def is_leaf(value: Any) -> bool:
    """Whether a value is a point, a range or a list of names."""
    return not isinstance(value, list) or not any(isinstance(item, dict) for item in value)


def replaced(value: Any, key: Key, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list) and (key or not is_leaf(value)):
        return [replaced(item, key, change) for item in value]
    if not key or value is None:
        return None if value is None else change(value)
    return {**value, key[0]: replaced(value[key[0]], key[1:], change)}


WORDS = {
    "left": "right", "right": "left", "dorsal": "ventral", "ventral": "dorsal",
    "fluid": "no fat", "no fat": "fluid",
    "subcutaneous": "paraspinal", "paraspinal": "subcutaneous",
    "partial volume": "slice thickness",
}  # fmt: skip


def other(value: Any) -> Any:
    """Another valid value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.07 if 0 <= value <= 1 else value + 17
    if isinstance(value, list):
        return [other(item) for item in value]
    if isinstance(value, dict):
        return {name: other(item) for name, item in value.items()}
    if re.fullmatch(r"[CTLS]\d+", value):
        return "T7"
    if re.fullmatch(r"[CTLS]\d+-[CTLS]\d+", value):
        return "T7-T8"
    return WORDS.get(value, f"{value} (changed)")


def keys() -> list[Key]:
    schema = report_schema()
    found = schema_keys(schema, schema["$defs"])
    return [key for key in found if any(key[: len(part)] == part for part in PARTS)]


# --- forms ------------------------------------------------------------------------------------


def as_csv(report: Report) -> str:
    made = (tables.collection_rows, tables.level_rows, tables.measurement_rows)
    return repr([rows(report) for rows in made])


def as_fhir(report: Report) -> str:
    return re.sub(r"urn:uuid:[0-9a-f-]+", "", fhir.bundle(report))


FORMS: dict[str, Callable[[Report], str]] = {
    "groups": lambda report: repr(measurement_groups(report)),  # of the structured report
    "fhir": as_fhir,
    "csv": as_csv,
    "text": report_text,
    "page": html.page,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_key_of_the_report_is_in_each_form(report: Report, form: str) -> None:
    values = report.model_dump(mode="json", by_alias=True)
    make, omitted = FORMS[form], OMITTED.get(form, {})
    original, missing = make(report), []
    for key in keys():
        assert values_at(values, key), f"{'.'.join(key)} has no value in the test"
        if key in omitted or (form in ("text", "page") and key[-1].endswith("lps_mm")):
            continue
        before, changed = original, replaced(values, key, other)
        if key[-1] == "not_measured":  # refers to a value that is null
            partial = replaced(values, (*key[:-1], MEASURED[key[-2]]), lambda _: None)
            before = make(Report.model_validate_json(json.dumps(partial)))
            changed = replaced(partial, key, other)
        if make(Report.model_validate_json(json.dumps(changed))) == before:
            missing.append(".".join(key))
    assert missing == []


def test_numbers_of_the_report_are_values_of_the_groups(report: Report) -> None:
    values = report.model_dump(mode="json", by_alias=True)
    found = {round(v.value, 4) for group in measurement_groups(report) for v in group.values}
    for key in keys():
        numbers = [n for value in values_at(values, key) for n in numbers_of(value)]
        if numbers and not key[-1].endswith("lps_mm") and key[-1] != "collections":
            assert {round(n, 4) for n in numbers if n} & found, ".".join(key)


def numbers_of(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for item in value for number in numbers_of(item)]
    return [value] if isinstance(value, float | int) and not isinstance(value, bool) else []


# --- the forms made from groups ---------------------------------------------------------------


def content(group: Group) -> tuple[list, list]:
    """Values and answers of a group, as codes."""
    values = [(v.term.value, round(v.value, 4)) for v in group.values]
    state = [(group.finding.value, group.state.value)] if group.state is not None else []
    return values, state + [(q.value, a.value) for q, a in group.answers]


def test_structured_report_has_all_groups(report: Report, written: tuple[Analysis, Path]) -> None:
    sources = dicom.read_sources(dicom.source_stacks(written[0]), keep_identity=False)
    document = structured_report.report_object(report, (), sources)
    buffer = io.BytesIO()
    document.save_as(buffer)
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    found = {}
    for item in read.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue != "126010":
            continue
        for made in item.ContentSequence:
            parts = list(made.ContentSequence)
            name = next(p.TextValue for p in parts if code_of(p) == "112039")
            values = [
                (code_of(p), float(p.MeasuredValueSequence[0].NumericValue))
                for p in parts
                if p.ValueType == "NUM"
            ]
            known = ("363698007", "121071")  # finding site and finding type
            answers = [
                (code_of(p), p.ConceptCodeSequence[0].CodeValue)
                for p in parts
                if p.ValueType == "CODE" and code_of(p) not in known
            ]
            found[name] = values, answers
    assert found == {group.name: content(group) for group in measurement_groups(report)}


def code_of(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def test_fhir_has_all_groups_and_conforms(report: Report) -> None:
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    text = fhir.bundle(report)
    models.Bundle.model_validate_json(text)
    resources = [entry["resource"] for entry in json.loads(text)["entry"]]
    observations = [made for made in resources if made["resourceType"] == "Observation"]
    groups = measurement_groups(report)
    for made, group in zip(observations, groups, strict=True):
        parts = [(p["code"]["coding"][0]["code"], p) for p in made.get("component", [])]
        values, answers = content(group)
        quantities = [(c, p["valueQuantity"]["value"]) for c, p in parts if "valueQuantity" in p]
        assert quantities == values
        codes = [
            (c, p["valueCodeableConcept"]["coding"][0]["code"])
            for c, p in parts
            if "valueCodeableConcept" in p
        ]
        assert codes == (answers[1:] if group.state is not None else answers)


def test_table_has_all_values(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "measurements.csv"
    tables.write_csv(path, tables.MEASUREMENT_COLUMNS, tables.measurement_rows(report))
    with path.open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    groups = measurement_groups(report)
    assert list(dict.fromkeys(row["group"] for row in rows)) == [group.name for group in groups]
    read = [(r["group"], r["code"], float(r["value"])) for r in rows if r["value"]]
    assert read == [(g.name, v.term.value, v.value) for g in groups for v in g.values]


def test_names_of_groups_are_unique(report: Report) -> None:
    names = [group.name for group in measurement_groups(report)]
    assert len(set(names)) == len(names)
