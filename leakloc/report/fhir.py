"""The report as a FHIR R4 bundle: DiagnosticReport, Observations and the program as Device.

The bundle is a collection without a server. The imaging study is referenced by its Study Instance
UID; a patient is referenced, by identifier, only with the setting ``report.identity = "keep"``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from leakloc.anatomy.vocabulary import NOTICE, PRIVATE_SCHEME, PRIVATE_SCHEME_UID, CodedTerm
from leakloc.report import clinical_terms as terms
from leakloc.report.measurement_groups import measurement_groups

if TYPE_CHECKING:
    from leakloc.report.measurement_groups import Group, Value
    from leakloc.report.model import Report

Resource = dict[str, Any]

_SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    PRIVATE_SCHEME: f"urn:oid:{PRIVATE_SCHEME_UID}",
}
"""FHIR code system of each DICOM coding scheme."""
_UCUM: Final = "http://unitsofmeasure.org"
_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_STUDY_DATE_DIGITS: Final = 8


def bundle(report: Report) -> str:
    """Return the bundle as indented JSON; values that are null in the report are omitted."""
    device_url, report_url = _url(), _url()
    observations = {_url(): _observation(group) for group in measurement_groups(report)}
    for made in observations.values():
        made |= _common(report) | {"device": {"reference": device_url}}
    entries = {
        report_url: _diagnostic_report(report, list(observations)),
        **observations,
        device_url: _device(report),
    }
    content = {
        "resourceType": "Bundle",
        "meta": _research(),
        "type": "collection",
        "timestamp": report.generator.created,
        "entry": [{"fullUrl": url, "resource": made} for url, made in entries.items()],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _diagnostic_report(report: Report, results: list[str]) -> Resource:
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "meta": _research(),
        "status": "preliminary",
        "category": [
            {"coding": [{"system": f"{_TERMINOLOGY}/v2-0074", "code": "RAD"}], "text": "Radiology"}
        ],
        "code": _concept(terms.PROCEDURE),
        "issued": report.generator.created,
        "result": [{"reference": url} for url in results],
        "conclusion": f"{report.finding.summary} {NOTICE}",
        **_identity(report),
    }
    study = _imaging_study(report)
    if study is not None:
        made["imagingStudy"] = [study]
    return made


def _observation(group: Group) -> Resource:
    """Create the observation of a measurement group; its value is the state or the side."""
    components: list[Resource] = [
        {"code": _concept(v.term) | {"text": v.name}, "valueQuantity": _quantity(v)}
        for v in group.values
    ]
    components += [
        {"code": _concept(question), "valueCodeableConcept": _concept(answer)}
        for question, answer in group.answers
    ]
    if group.points_lps:
        position = ", ".join(f"{mm:.2f}" for mm in group.points_lps[-1])
        components.append({"code": _concept(group.place), "valueString": f"LPS {position} mm"})
    made: Resource = {
        "resourceType": "Observation",
        "meta": _research(),
        "status": "preliminary",
        "category": [
            {"coding": [{"system": f"{_TERMINOLOGY}/observation-category", "code": "imaging"}]}
        ],
        "code": _concept(group.finding),
        "note": [{"text": f"{group.text.removesuffix('.')}. {NOTICE}"}],
    }
    if components:
        made["component"] = components
    state = group.state or (terms.POSITIONS[group.side] if group.side is not None else None)
    if state is not None:
        made["valueCodeableConcept"] = _concept(state)
    if group.level is not None:
        made["bodySite"] = _concept(group.site)
    return made


def _common(report: Report) -> Resource:
    """Return the elements that all observations have."""
    study = _imaging_study(report)
    return {
        "issued": report.generator.created,
        **({"derivedFrom": [study]} if study is not None else {}),
        **_identity(report),
    }


def _identity(report: Report) -> Resource:
    """Return subject and date as far as the setting `report.identity` retains them."""
    made: Resource = {}
    study = report.study
    if study.identity == "keep" and study.patient_id:
        made["subject"] = {"type": "Patient", "identifier": {"value": study.patient_id}}
    date = study.study_date or ""
    if len(date) == _STUDY_DATE_DIGITS and date.isdecimal():
        made["effectiveDateTime"] = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    return made


def _imaging_study(report: Report) -> Resource | None:
    uid = report.study.study_instance_uid
    if uid is None:
        return None
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    return {"type": "ImagingStudy", "identifier": identifier}


def _device(report: Report) -> Resource:
    generator = report.generator
    return {
        "resourceType": "Device",
        "meta": _research(),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{terms.DEVICE_UID}"}],
        "deviceName": [{"name": generator.name, "type": "manufacturer-name"}],
        "version": [{"value": generator.version}],
        "note": [{"text": NOTICE}],
    }


def _research() -> Resource:
    """Return metadata with the purpose of use: healthcare research."""
    code = {"system": f"{_TERMINOLOGY}/v3-ActReason", "code": "HRESCH"}
    return {"security": [code]}


def _concept(term: CodedTerm) -> Resource:
    coding = {"system": _SYSTEMS[term.scheme], "code": term.value, "display": term.meaning}
    return {"coding": [coding], "text": term.meaning}


def _quantity(value: Value) -> Resource:
    unit = value.unit
    return {"value": round(value.value, 4), "unit": unit, "system": _UCUM, "code": unit}


def _url() -> str:
    return f"urn:uuid:{uuid4()}"
