"""The whole job on the sample study, held against its truth and the report contract."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from leakloc.anatomy.vocabulary import NOTICE
from leakloc.cli import DONE, main
from leakloc.core.errors import SettingsError
from leakloc.core.volume import Volume
from leakloc.pipeline import analyze, stage
from leakloc.report import report_schema
from leakloc.validation.evaluation.metrics import dice

SAMPLE = Path(__file__).parent.parent / "sample_data" / "postoperative"


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "out"
    stages: list[tuple[str, float]] = []
    analyze(
        SAMPLE / "dicom",
        output=out,
        progress=lambda what, fraction: stages.append((what, fraction)),
    )
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    return out


@pytest.fixture(scope="session")
def report(folder) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="session")
def truth() -> dict:
    return json.loads((SAMPLE / "truth" / "truth.json").read_text())


def mask(path: Path) -> Volume:
    return Volume.from_nibabel(nib.load(path)).oriented("LPS")


def test_report_validates_against_the_schema_it_names(report):
    jsonschema.validate(report, report_schema())
    assert report["schema"] == "leakloc.report/1"
    assert report["notice"] == NOTICE


def test_the_finding_is_the_true_one(report, truth):
    true = truth["collections"][0]
    found = report["collections"][0]
    assert report["finding"]["leak"] == "present"
    assert report["finding"]["level"] == found["level"] == true["level"] == "L4-L5"
    assert found["position"]["label"] == true["position"] == "dorsal"
    assert found["volume_ml"] == pytest.approx(true["volume_ml"], rel=0.25)


def test_ends_and_levels_lie_where_they_are(report, truth):
    true = {v["name"]: np.array(v["center_lps"]) for v in truth["vertebrae"]}
    for vertebra in report["levels"]["vertebrae"]:
        if vertebra["name"].startswith("L"):
            gap = np.linalg.norm(true[vertebra["name"]] - vertebra["center_lps_mm"])
            assert gap < 5.0, vertebra["name"]


def test_masks_agree_with_the_truth(folder):
    sac = mask(folder / "masks" / "thecal_sac.nii.gz")
    true_sac = mask(SAMPLE / "truth" / "thecal_sac.nii.gz")
    assert sac.geometry.matches(true_sac.geometry)
    assert dice(sac.array > 0, true_sac.array >= 0.5) > 0.9
    fluid = mask(folder / "masks" / "epidural_fluid.nii.gz")
    true_fluid = mask(SAMPLE / "truth" / "fluid.nii.gz")
    assert dice(fluid.array > 0, true_fluid.array > 0) > 0.7


def test_level_mask_contains_each_vertebra_at_its_center(folder, report):
    levels = mask(folder / "masks" / "levels.nii.gz")
    values = report["levels"]["label_values"]
    assert levels.array.dtype == np.uint8
    inside = 0
    for vertebra in report["levels"]["vertebrae"]:
        if not vertebra["name"].startswith("L"):
            continue
        k, j, i = np.round(levels.geometry.kji_from_lps(vertebra["center_lps_mm"])).astype(int)
        assert levels.array[k, j, i] == values[vertebra["name"]]
        inside += 1
    assert inside == 5


def test_every_file_named_exists_and_none_is_unnamed(folder, report):
    outputs = report["outputs"]
    named = {*outputs["overlays"], *outputs["masks"].values(), outputs["html"], outputs["text"]}
    named |= {name for value in outputs["dicom"].values() for name in _each(value)}
    named |= {*outputs["labels"], *outputs["markups"], outputs["fhir"]}
    written = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert named | {"report.json", "levels.json", "relabel.npz"} == written


def _each(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_same_study_gives_the_same_result(report, recorded_sample):
    again = json.loads(recorded_sample.analysis.report.to_json())
    for part in ("levels", "thecal_sac", "collections", "finding", "planning"):
        assert again[part] == report[part]


def test_a_stage_is_swapped_by_passing_a_callable(recorded_sample):
    assert recorded_sample.labeled == [recorded_sample.analysis.triage.myelogram]


def test_the_network_runs_once_per_image_and_all_stages_share_one_canal(recorded_sample):
    chosen = recorded_sample.analysis.triage
    assert recorded_sample.images == [chosen.myelogram, chosen.companions["sagittal_t2"]]
    assert recorded_sample.traced == [chosen.spine.oriented]


def test_unknown_plugin_names_the_installed_ones():
    with pytest.raises(SettingsError, match="installed: leakloc"):
        stage("leakloc.segmenters", "unknown")


def test_command_with_the_own_masks_gives_the_same_report(capsys, folder, report, tmp_path):
    masks, out = folder / "masks", tmp_path / "out"
    command = ["analyze", str(SAMPLE / "dicom"), "-o", str(out), "--pipeline", "postoperative"]
    command += ["--sac", str(masks / "thecal_sac.nii.gz")]
    command += ["--fluid", str(masks / "epidural_fluid.nii.gz")]
    assert main([*command, "--set", 'report.write=["json"]']) == DONE
    printed = capsys.readouterr().out
    assert "L4-L5" in printed
    assert str(out / "report.json") in printed
    assert NOTICE in printed
    assert {p.name for p in out.iterdir()} == {"report.json", "levels.json"}

    again = json.loads((out / "report.json").read_text())
    assert {"sac_given", "fluid_given"} <= {w["code"] for w in again["quality"]["warnings"]}
    was, now = report["collections"][0], again["collections"][0]
    assert (now["level"], now["segments"]) == (was["level"], was["segments"])
    assert now["volume_ml"] == pytest.approx(was["volume_ml"], rel=0.001)
    volumes = [content["thecal_sac"]["volume_ml"] for content in (again, report)]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-3)
