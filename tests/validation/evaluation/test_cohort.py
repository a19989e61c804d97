from __future__ import annotations

import csv
import io
import json

import pytest

from leakloc.validation.evaluation.cases import Case
from leakloc.validation.evaluation.cohort import Cohort


@pytest.fixture
def cohort():
    """Three leaking studies, one of them missed, two free ones, one of them reported as leaking."""
    leaking = [
        Case(
            f"wet{n}", "wet", n, sac_dice=0.9 + n / 100, fluid_dice=dice, fluid_true_ml=10.0 * n,
            fluid_detected_ml=10.0 * n + n, true_collections=1, detected_collections=found,
            true_volumes_ml=(0.8, 4.0, 30.0)[n - 1 : n], true_detected=(bool(found),),
            confidences=(0.9,) * found, detections_correct=(True,) * found, leak_true="present",
            leak_reported="present" if found else "absent", levels_compared=found,
            levels_exact=found, levels_within_one=found, level_pairs=((n, n),) * found,
            segments_in_field=("a", "b"), segments_true=("a",), segments_detected=("a",) * found,
            vertebrae_true=5, vertebrae_correct=5, numbering_confidence=0.9,
        )
        for n, dice, found in ((1, 0.0, 0), (2, 0.7, 1), (3, 0.9, 1))
    ]  # fmt: skip
    free = [
        Case("dry1", "dry", 1, leak_true="absent", leak_reported="absent"),
        Case(
            "dry2", "dry", 2, leak_true="absent", leak_reported="present",
            false_positive_collections=1, fluid_true_ml=0.0, fluid_detected_ml=1.0,
            confidences=(0.7,), detections_correct=(False,),
        ),
    ]  # fmt: skip
    return Cohort((*leaking, *free, Case("x", "dry", 3, "refused", False)), "made up")


def test_pooled_figures(cohort):
    s = cohort.summary()
    assert (s["cases"], s["n_failures"]) == (6, 1)
    assert s["sac_dice"] == pytest.approx(0.92)
    assert s["collections_detected"] == "2/3"
    assert s["collections_detected_by_volume"] == {
        "0-1 mL": "0/1", "1-5 mL": "1/1", "5-20 mL": "0/0", "> 20 mL": "1/1",
    }  # fmt: skip
    assert s["fluid_dice_by_volume"]["5-20 mL"] == 0.0
    assert s["fluid_dice_by_volume"]["> 20 mL"] == pytest.approx(0.8)  # of 20 and 30 mL
    assert (s["sensitivity"], s["specificity"]) == ("2/3", "1/2")
    assert s["false_positives_per_leak_free_study"] == 0.5
    assert s["fluid_volume_bias_ml"] == pytest.approx((1 + 2 + 3 + 1) / 4)
    assert s["level_weighted_kappa"] == 1.0
    assert s["segment_by_segment_kappa"] == pytest.approx(2 / 3, abs=1e-6)
    assert s["confidence_brier"] == pytest.approx((0.01 + 0.01 + 0.49) / 3)
    assert s["studies_numbered_correctly"] == 1.0


def test_csv_and_json_hold_every_case(cohort):
    rows = list(csv.DictReader(io.StringIO(cohort.to_csv())))
    assert [row["case"] for row in rows] == ["wet1", "wet2", "wet3", "dry1", "dry2", "x"]
    assert rows[1]["true_volumes_ml"] == "4.0"
    assert rows[3]["sac_dice"] == ""
    assert len(json.loads(cohort.to_json())["cases"]) == 6


def test_text_reports_intervals_and_caveat(cohort):
    text = cohort.to_text()
    assert "collections detected 2/3 (95 % interval 21%-94%)" in text
    assert "x: refused" in text
    assert text.endswith("made up")


def test_empty_cohort_has_no_figures():
    empty = Cohort(())
    assert empty.summary()["sac_dice"] is None
    assert "all" in empty.to_text()


def test_figures_are_drawn(cohort, tmp_path):
    names = {path.name for path in cohort.save(tmp_path / "out")}
    assert {"dice.png", "volume.png", "detection.png", "reliability.png"} <= names
    assert (tmp_path / "out/volume.png").read_bytes().startswith(b"\x89PNG")
