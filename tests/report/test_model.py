import json
from pathlib import Path

import jsonschema
import pytest

from leakloc.core.errors import InputError
from leakloc.pipeline import Analysis
from leakloc.report import Report, build_report, report_schema
from leakloc.report import model as report_model

CONTRACT_KEYS = {
    "generator": ["name", "version", "created", "config", "config_sha256", "runtime_s"],
    "study": ["study_instance_uid", "study_date", "accession_number", "patient_id"],
    "levels": ["status", "numbering", "vertebrae", "discs", "label_values"],
    "thecal_sac": ["volume_ml", "csf_volume_ml", "caudal_end", "by_segment"],
    "finding": ["leak", "level", "confidence", "summary"],
    "planning": ["sacral_hiatus", "targets"],
    "quality": ["snr", "coverage", "warnings"],
    "outputs": ["overlays", "masks", "dicom", "html"],
}
COLLECTION_KEYS = [
    "id",
    "level",
    "alternatives",
    "segments",
    "extent",
    "position",
    "compartments",
    "pattern",
    "volume_ml",
    "max_thickness_mm",
    "max_area_mm2",
    "sac_compression",
    "centroid_lps_mm",
    "epicenter_lps_mm",
    "confidence",
    "grade",
    "basis",
    "mimics_considered",
]
SERIES_KEYS = [
    "series_instance_uid",
    "description",
    "role",
    "used_for",
    "reason",
    "n_instances",
    "shape",
    "spacing_mm",
]
TARGET_KEYS = [
    "collection",
    "level",
    "canal_distance_from_hiatus_mm",
    "path_lps_mm",
    "nearest_interlaminar",
]


def test_every_name_of_the_contract_is_there(analysis: Analysis) -> None:
    values = json.loads(build_report(analysis).to_json())
    assert values["schema"] == "leakloc.report/1"
    for section, keys in CONTRACT_KEYS.items():
        assert set(keys) <= set(values[section]), section
    assert set(COLLECTION_KEYS) <= set(values["collections"][0])
    assert set(SERIES_KEYS) <= set(values["series"][0])
    assert set(TARGET_KEYS) <= set(values["planning"]["targets"][0])


def test_shipped_schema_is_the_models_schema() -> None:
    shipped = Path(report_model.__file__).with_name("report.schema.json")
    assert json.loads(shipped.read_text(encoding="utf-8")) == report_schema()


def test_every_key_is_described() -> None:
    schema = report_schema()
    parts = {"Report": schema, **schema["$defs"]}
    keys = [
        (name, key, value)
        for name, part in parts.items()
        for key, value in part.get("properties", {}).items()
    ]
    assert len(keys) > 120
    assert [(n, k) for n, k, v in keys if len(v.get("description", "")) < 10] == []


@pytest.mark.parametrize(
    "path",
    [(s, k) for s, keys in CONTRACT_KEYS.items() for k in keys]
    + [("collections", 0, k) for k in COLLECTION_KEYS]
    + [("series", 0, k) for k in SERIES_KEYS],
)
def test_schema_demands_every_name(analysis: Analysis, path: tuple[str | int, ...]) -> None:
    values = json.loads(build_report(analysis).to_json())
    validator = jsonschema.Draft202012Validator(report_schema())
    validator.validate(values)
    part = values
    for step in path[:-1]:
        part = part[step]
    del part[path[-1]]
    assert not validator.is_valid(values)


def test_load_gives_back_what_was_written(analysis: Analysis, tmp_path: Path) -> None:
    report = build_report(analysis)
    file = tmp_path / "report.json"
    file.write_text(report.to_json(), encoding="utf-8")
    assert Report.load(file) == report
    assert Report.load(tmp_path) == report


def test_keys_of_a_later_version_survive(analysis: Analysis, tmp_path: Path) -> None:
    values = json.loads(build_report(analysis).to_json())
    values["finding"]["second_reader"] = "agrees"
    file = tmp_path / "report.json"
    file.write_text(json.dumps(values))
    assert json.loads(Report.load(file).to_json()) == values


def test_older_versions_are_read_as_this_one(analysis: Analysis, tmp_path: Path) -> None:
    report = build_report(analysis)
    values = json.loads(report.to_json())
    values["schema"] = "leakloc.report/0"
    del values["study"]["identity"], values["outputs"]
    file = tmp_path / "report.json"
    file.write_text(json.dumps(values))
    found = Report.load(file)
    assert found.schema_ == "leakloc.report/1" and found.finding == report.finding
    assert found.study.identity == "keep" and found.outputs.masks == {}


def test_reports_of_this_version_without_later_keys_are_read(
    analysis: Analysis, tmp_path: Path
) -> None:
    """Keys outside the contract may be missing: other programs and earlier releases lack them."""
    values = json.loads(build_report(analysis).to_json())
    for target in values["planning"]["targets"]:
        for key in set(target) - set(TARGET_KEYS):
            del target[key]
    for key in set(values["outputs"]) - {"overlays", "masks", "dicom", "html"}:
        del values["outputs"][key]
    file = tmp_path / "report.json"
    file.write_text(json.dumps(values))
    assert Report.load(file).planning.targets[0].interlaminar == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": "leakloc.report/2"}', "install a newer leakloc"),
        ('{"schema": "other/1"}', "not a report of leakloc"),
        ("{}", "not a report of leakloc"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        ("\xff", "not JSON"),
    ],
)
def test_what_is_no_known_report_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        Report.load(file)


def test_load_names_the_place_that_is_wrong(analysis: Analysis, tmp_path: Path) -> None:
    values = json.loads(build_report(analysis).to_json())
    values["finding"]["confidence"] = 1.5
    file = tmp_path / "report.json"
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"finding\.confidence"):
        Report.load(file)
    with pytest.raises(InputError, match="cannot read"):
        Report.load(tmp_path / "nothing.json")


def test_notebook_view_escapes(analysis: Analysis) -> None:
    report = build_report(analysis)
    evil = report.finding.model_copy(update={"summary": "<script>alert(1)</script>"})
    html = report.model_copy(update={"finding": evil})._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "L4-L5" in html and "Research use only" in html
