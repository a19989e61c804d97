"""The FHIR bundle, validated by the models of fhir.resources (R4B, which has these of R4)."""

import json
from collections.abc import Callable

import pytest

from leakloc.anatomy.vocabulary import NOTICE
from leakloc.pipeline import Analysis
from leakloc.report import build_report
from leakloc.report.fhir import bundle
from leakloc.report.measurement_groups import measurement_groups

Change = Callable[..., Analysis]
IDENTITY = ["MRN-0047-SECRET", "ACC-1234-SECRET"]


def resources(content: dict, kind: str) -> list[dict]:
    found = (entry["resource"] for entry in content["entry"])
    return [made for made in found if made["resourceType"] == kind]


def quantities(observation: dict) -> dict[str, float]:
    return {
        part["code"]["text"]: part["valueQuantity"]["value"]
        for part in observation["component"]
        if "valueQuantity" in part
    }


@pytest.fixture(scope="module")
def made(analysis: Analysis) -> dict:
    return json.loads(bundle(build_report(analysis)))


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("identity", ["keep", "hash", "remove"])
def test_bundle_conforms_to_the_specification(
    analysis: Analysis, leakless: Analysis, with_settings: Change, leak: bool, identity: str
) -> None:
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    changed = with_settings(analysis if leak else leakless, report__identity=identity)
    report = build_report(changed)
    text = bundle(report)
    parsed = models.Bundle.model_validate_json(text)
    kinds = [entry.resource.get_resource_type() for entry in parsed.entry]
    count = len(measurement_groups(report))
    assert count == (10 if leak else 2)
    assert kinds == ["DiagnosticReport", *["Observation"] * count, "Device"]


def test_validation_detects_errors(made: dict) -> None:
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    broken = json.loads(json.dumps(made))
    del resources(broken, "Observation")[0]["status"]
    with pytest.raises(ValueError, match="status"):
        models.Bundle.model_validate(broken)


def test_references_are_resolved_within_the_bundle(made: dict) -> None:
    assert made["type"] == "collection"
    urls = [entry["fullUrl"] for entry in made["entry"]]
    assert len(set(urls)) == len(urls)
    (report,) = resources(made, "DiagnosticReport")
    observations = resources(made, "Observation")
    by_url = {entry["fullUrl"]: entry["resource"] for entry in made["entry"]}
    assert [by_url[result["reference"]] for result in report["result"]] == observations
    for observation in observations:
        assert by_url[observation["device"]["reference"]]["resourceType"] == "Device"


def test_values_are_those_of_the_report(analysis: Analysis, made: dict) -> None:
    report = build_report(analysis)
    (diagnostic,) = resources(made, "DiagnosticReport")
    assert diagnostic["status"] == "preliminary"
    assert diagnostic["conclusion"] == f"{report.finding.summary} {NOTICE}"
    uid = f"urn:oid:{report.study.study_instance_uid}"
    assert diagnostic["imagingStudy"][0]["identifier"]["value"] == uid
    study, sac, first, *others = resources(made, "Observation")
    second = next(o for o in others if "Epidural fluid 2" in o["note"][0]["text"])
    assert study["valueCodeableConcept"]["text"] == "Present"
    assert quantities(sac)["Volume"] == report.thecal_sac.volume_ml
    assert quantities(first)["Volume"] == report.collections[0].volume_ml
    assert quantities(first)["Path length"] == 61.0
    assert "Sac compression" not in quantities(second)  # unknown
    coding = first["bodySite"]["coding"][0]
    assert (coding["system"], coding["code"]) == ("http://snomed.info/sct", "243923001")
    assert all(NOTICE in observation["note"][0]["text"] for observation in (study, sac, first))


@pytest.mark.parametrize(
    ("identity", "id_kept", "date_kept"),
    [("keep", True, True), ("hash", False, True), ("remove", False, False)],
)
def test_identity_follows_the_setting(
    analysis: Analysis, with_settings: Change, identity: str, id_kept: bool, date_kept: bool
) -> None:
    text = bundle(build_report(with_settings(analysis, report__identity=identity)))
    assert (IDENTITY[0] in text) == id_kept
    assert ("2026-01-02" in text) == date_kept
    assert IDENTITY[1] not in text
    (diagnostic,) = resources(json.loads(text), "DiagnosticReport")
    assert ("subject" in diagnostic) == id_kept
