from __future__ import annotations

import json

import pytest

from leakloc.cli import main
from leakloc.cli import tune as command
from leakloc.core.errors import InputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.validation.evaluation import tune as module
from leakloc.validation.evaluation.cases import Case
from leakloc.validation.evaluation.tune import Pair, find_pairs, parse_ranges, score, split, tune

PAIRS = tuple(Pair(f"p{n}", None, None) for n in range(10))

START = Settings().changed(segmentation__fluid_min_fraction=0.5)


def made_up(best_for):
    """A measurement whose Dice is 1 where fluid_min_fraction has the value that suits the study."""

    def measured(task):
        pair, settings, _ = task
        away = abs(settings.segmentation.fluid_min_fraction - best_for(pair))
        return Case(pair.name, sac_dice=max(1 - away, 0.0))

    return measured


def test_search_finds_the_best_value(monkeypatch):
    monkeypatch.setattr(module, "_evaluate", made_up(lambda pair: 0.9))
    space = parse_ranges(["segmentation.fluid_min_fraction=0.5:1.0"], START)
    tuning = tune(PAIRS, space, START, trials=25)
    assert tuning.changes["segmentation"]["fluid_min_fraction"] == pytest.approx(0.9, abs=0.03)
    gain, low, _ = tuning.held_out_gain
    assert gain == pytest.approx(0.2, abs=0.01)  # sac from 0.6 to 1, fluid 1 in both
    assert low > 0
    assert len(tuning.held_out_after.cases) == 3
    assert tuning.trials[0] == ({"segmentation__fluid_min_fraction": 0.5}, pytest.approx(0.8))


def test_gain_by_chance_is_reported(monkeypatch):
    fitting, held = split(PAIRS, 0.3, 0)
    names = {pair.name for pair in fitting}
    monkeypatch.setattr(
        module, "_evaluate", made_up(lambda pair: 0.9 if pair.name in names else 0.55)
    )
    space = parse_ranges(["segmentation.fluid_min_fraction=0.5:1.0"], START)
    tuning = tune(PAIRS, space, START, trials=15)
    assert tuning.held_out_gain[0] < 0
    assert "no gain beyond chance" in tuning.to_text()
    assert len(held) == 3


def test_recipe_holds_what_differs_and_loads(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_evaluate", made_up(lambda pair: 0.9))
    start = Settings().changed(localization__small_volume_ml=0.5)
    tuning = tune(
        PAIRS, parse_ranges(["segmentation.fluid_min_fraction=0.5:1.0"], start), start, trials=5
    )
    path = tmp_path / "tuned.toml"
    path.write_text(tuning.to_toml())
    assert Settings.load(path) == tuning.settings
    assert set(tuning.settings.differences()) == {"segmentation", "localization"}
    assert "3 studies held out" in path.read_text()


def test_initial_settings_stay_if_none_is_better(monkeypatch):
    monkeypatch.setattr(module, "_evaluate", made_up(lambda pair: 0.5))
    tuning = tune(PAIRS, parse_ranges(["segmentation.fluid_min_fraction"], START), START, trials=4)
    assert tuning.changes == {}
    assert tuning.held_out_gain[0] == 0
    assert "no trial improved" in tuning.to_text()


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.99])
def test_no_patient_is_on_both_sides(fraction):
    names = [f"{s}_{n}{v}" for s in ("a", "b") for n in (1, 2) for v in ("", "_0a1b2c3d")]
    pairs = [Pair(name, None, None) for name in names]
    fitting, held = split(pairs, fraction, 1)
    assert {p.patient for p in fitting}.isdisjoint({p.patient for p in held})
    assert fitting
    assert held
    assert len(fitting) + len(held) == 8


def test_ranges_stay_within_bounds():
    wanted = [
        "segmentation.fluid_min_fraction",
        "segmentation.collection_gap_mm=5:30",
        "localization.circumferential_deg",
        "localization.alternatives_max",
    ]
    fraction, gap, angle, count = parse_ranges(wanted, Settings())
    assert (fraction.low, fraction.high) == (0.125, 0.5)
    assert (gap.low, gap.high) == (5.0, 30.0)
    assert (angle.low, angle.high) == (180.0, 360.0)
    assert count.is_integer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loaders.max_archive_files", "cannot be tuned"),
        ("segmentation.no_such", "no setting is named"),
        ("segmentation.fat_suppressed", "is not a number"),
        ("segmentation.fluid_min_fraction=1", "LOW:HIGH"),
        ("segmentation.fluid_min_fraction=0.5:7", "less than or equal to 1"),
        ("segmentation.fluid_min_fraction=0.7:0.5", "no default range"),
    ],
)
def test_invalid_ranges_are_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_ranges([text], Settings())


def test_score_falls_with_each_error():
    good = Case("", sac_dice=0.9, fluid_dice=0.8, levels_compared=1, levels_exact=1)
    from dataclasses import replace

    assert score(good) == pytest.approx((0.9 + 0.8 + 1) / 3)
    assert score(replace(good, false_positive_collections=1)) < score(good)
    assert score(replace(good, levels_exact=0)) < score(good)
    assert score(replace(good, error="refused")) == 0
    assert score(Case("", sac_dice=0.9)) == pytest.approx(0.95)  # nothing there, nothing found


def test_studies_and_truths_are_paired_by_name(tmp_path, truth_folder):
    for name in ("case_a", "case_b", "case_c"):
        (tmp_path / "studies" / name).mkdir(parents=True)
    import shutil

    shutil.copytree(truth_folder, tmp_path / "truth" / "case_b")
    pairs = find_pairs(tmp_path / "studies", tmp_path / "truth")
    assert [p.name for p in pairs] == ["case_a", "case_b"]
    shutil.rmtree(tmp_path / "truth" / "case_b")
    with pytest.raises(InputError, match="least two patients"):
        find_pairs(tmp_path / "studies", tmp_path / "truth")


def test_cached_phantoms_include_their_truth(tmp_path, truth_folder):
    import shutil

    for name in ("normal_1", "normal_2"):
        (tmp_path / "keep" / name / "dicom").mkdir(parents=True)
        shutil.copytree(truth_folder, tmp_path / "keep" / name / "truth")
    first, _ = find_pairs(tmp_path / "keep")
    assert first.study.name == "dicom"


def test_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "find_pairs", lambda *_: PAIRS)
    monkeypatch.setattr(module, "_evaluate", made_up(lambda pair: 0.9))
    recipe = tmp_path / "mine.toml"
    wanted = ["tune", "x", "--search", "segmentation.fluid_min_fraction", "--trials", "6"]
    assert main([*wanted, "-o", str(recipe)]) == 0
    assert "held-out" in capsys.readouterr().out
    assert Settings.load(recipe).segmentation.fluid_min_fraction != 0.5
    assert main([*wanted, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held_out_gain"] > 0
    assert main(["tune", str(tmp_path / "no"), "--search", "loaders.max_archive_files"]) == 2
