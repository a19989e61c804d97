from __future__ import annotations

import json
from dataclasses import replace

import pytest

from leakloc.cli import main
from leakloc.core.errors import AnalysisError, InputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.validation.evaluation import simulated
from leakloc.validation.evaluation.annotation import AnnotatedCollection
from leakloc.validation.evaluation.simulated import evaluate_simulated

SEEDS = [100]
MASKS = ("thecal_sac", "fluid")
SLICE_MM = 2.0
"""Half as many files as with the voxels in plane."""


@pytest.fixture
def calls(made_simulation, monkeypatch):
    """Patients 005 and 107 (test) and 007 (development) that are not read from files."""
    simulated_studies = []

    def simulate(patient, scenario, seed):
        simulated_studies.append((patient, scenario.name, seed))
        return made_simulation(scenario, patient, seed, slice_mm=SLICE_MM)

    monkeypatch.setattr(simulated, "list_patients", lambda folder: ("005", "007", "107"))
    monkeypatch.setattr(simulated, "_patient", lambda folder, number: number)
    monkeypatch.setattr(simulated, "simulate", simulate)
    return simulated_studies


@pytest.fixture
def oracle(calls, made_simulation, annotation_of):
    """A method that returns the truth of the last simulated study."""

    def method(study, settings):
        patient, scenario, seed = calls[-1]
        truth = annotation_of(made_simulation(scenario, patient, seed, slice_mm=SLICE_MM))
        graded = tuple(replace(c, confidence=0.9, grade="definite") for c in truth.collections)
        return replace(truth, collections=graded, notes=("hint", "hint")), study.stacks[0].load()

    return method


@pytest.fixture
def one_false_positive(oracle):
    """A method that adds a false positive of 1 mL, graded probable, to the truth."""

    def method(study, settings):
        found, image = oracle(study, settings)
        fluid = found.fluid.array.copy()
        fluid[20:30, 4:9, 5:25] = 9
        false = AnnotatedCollection(9, 1.0, position="ventral", confidence=0.7, grade="probable")
        return replace(
            found,
            fluid=found.fluid.with_array(fluid),
            fluid_ml=found.fluid_ml + 1.0,
            leak="present",
            collections=(*found.collections, false),
        ), image

    return method


def refusing(study, settings):
    raise AnalysisError("no canal")


def test_the_truth_scores_perfectly(calls, oracle, tmp_path):
    tiles = []
    cohort = evaluate_simulated(
        tmp_path, ["dorsal", "no_leak"], SEEDS, Settings(), method=oracle, tiles=tiles
    )
    assert calls == [(p, s, 100) for p in ("005", "107") for s in ("dorsal", "no_leak")]
    case = cohort.cases[0]
    assert (case.case, case.group, case.patient) == ("dorsal_005_100", "dorsal", "005")
    assert case.sac_dice == case.fluid_dice == 1.0
    assert case.levels_exact == case.positions_correct == case.detected_collections == 1
    s = cohort.summary()
    assert (s["sensitivity"], s["specificity"]) == ("2/2", "2/2")
    assert s["notes"] == {"hint": 4}
    assert s["definite_false_positives"] == "0/2"
    assert s["false_positive_ml_per_leak_free_study"] == 0.0
    assert len(tiles) == 4


def test_false_positives_are_counted_by_grade(one_false_positive, tmp_path):
    cohort = evaluate_simulated(
        tmp_path, ["dorsal", "no_leak"], SEEDS, Settings(), method=one_false_positive
    )
    s = cohort.summary()
    assert s["false_positives_per_leak_free_study"] == 1.0
    assert s["definite_or_probable_false_positives_per_leak_free_study"] == 1.0
    assert s["definite_or_probable_false_positives"] == 4
    assert s["definite_false_positives"] == "0/2"
    assert s["false_positive_ml_per_leak_free_study"] == pytest.approx(1.0)
    assert s["leak_status"] == {"present": 4}
    text = cohort.to_text()
    assert "per leak-free study: 1.00 false positives, 1.00 of them definite or probable" in text
    assert text.endswith(simulated.SIMULATED_CAVEAT)


def test_splits_are_separate(oracle, tmp_path):
    cohort = evaluate_simulated(
        tmp_path, ["dorsal"], SEEDS, Settings(), patients=["007", "107"], method=oracle
    )
    values = json.loads(cohort.to_json())
    assert values["splits"]["development"]["patients"] == ["007"]
    assert values["splits"]["test"]["patients"] == ["107"]
    assert values["splits"]["test"]["scenarios"]["dorsal"]["cases"] == 1
    assert "test patients (1; no network of leakloc is trained on them)" in cohort.to_text()
    assert "Simulated contrast on real anatomy" in values["caveat"]


def test_studies_without_fat_suppression_are_not_pooled(oracle, tmp_path):
    cohort = evaluate_simulated(
        tmp_path, ["dorsal", "conventional_t2"], SEEDS, Settings(), method=oracle
    )
    assert len(cohort.cases) == 4
    assert cohort.summary()["cases"] == 2
    assert "conventional_t2" in cohort.to_text()


def test_refusal_counts_as_missed(calls, tmp_path):
    [case] = evaluate_simulated(
        tmp_path, ["dorsal"], SEEDS, Settings(), patients=["107"], method=refusing
    ).cases
    assert (case.error, case.refusal_correct, case.patient) == ("no canal", False, "107")
    assert (case.leak_true, case.detected_collections, case.true_collections) == ("present", 0, 1)


def test_cached_studies_are_not_rendered_again(calls, oracle, tmp_path):
    for _ in range(2):
        cohort = evaluate_simulated(
            tmp_path, ["dorsal"], SEEDS, Settings(), patients=["107"], method=oracle,
            keep=tmp_path / "keep",
        )  # fmt: skip
        assert cohort.cases[0].fluid_dice == 1.0
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "keep").iterdir()] == ["107_dorsal_100"]


def test_result_on_the_companion_is_put_on_the_grid_of_the_truth(oracle, tmp_path):
    def on_another_grid(study, settings):
        found, image = oracle(study, settings)
        coarser = image.geometry.with_spacing((2.3, 2.3, 2.3))
        masks = {name: getattr(found, name).resample(coarser, order=0) for name in MASKS}
        return replace(found, **masks), image.resample(coarser)

    [case] = evaluate_simulated(
        tmp_path, ["dorsal"], SEEDS, Settings(), patients=["107"], method=on_another_grid
    ).cases
    assert 0.7 < case.fluid_dice < 1.0


def test_unknown_names_are_refused(calls, tmp_path):
    with pytest.raises(SettingsError, match="no scenario is named 'nothing'"):
        evaluate_simulated(tmp_path, ["nothing"], SEEDS, Settings())
    with pytest.raises(InputError, match="lacks patient 999"):
        evaluate_simulated(tmp_path, None, SEEDS, Settings(), patients=["107", "999"])


def test_command_prints_json_and_writes_sheet_and_tables(oracle, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("leakloc.validation.evaluation.phantoms.leakloc_method", oracle)
    sheet, out = tmp_path / "sheet.png", tmp_path / "out"
    arguments = ["--patients", "107", "--scenarios", "dorsal, no_leak", "--seeds", "100-101"]
    where = ["--simulated", str(tmp_path), "--sheet", str(sheet), "-o", str(out), "--json"]
    assert main(["evaluate", *where, *arguments]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [case["case"] for case in values["cases"]] == [
        "dorsal_107_100", "dorsal_107_101", "no_leak_107_100", "no_leak_107_101",
    ]  # fmt: skip
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert "Simulated contrast on real anatomy" in (out / "evaluation.txt").read_text()
