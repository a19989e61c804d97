"""Input of the numbering benchmark for other programs, and the evaluation of their results."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from leakloc.core.volume import Geometry, Volume

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def numbering():
    before = sys.modules.pop("conftest", None)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield load("numbering")
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("conftest", None)
        if before is not None:
            sys.modules["conftest"] = before


@pytest.fixture(scope="module")
def peers():
    return load("numbering_peers")


Z_MM = (0.0, 30.0, 60.0, 90.0)
"""Heights of a remnant in the sacrum, the lumbosacral disc and two above it."""
KINDS = ("presacral", "presacral", "lumbosacral", "first_sacral")


def spine(numbering):
    """Masks on an oblique-free grid with 3 mm planes: four discs, a canal behind, a sacrum."""
    geometry = Geometry.from_axes(
        (120, 60, 12), origin_lps=(-18.0, -40.0, -10.0), spacing_ijk_mm=(3.0, 1.0, 1.0)
    )
    k, j, i = np.indices(geometry.shape)
    x, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([i, j, k], -1)), -1, 0)
    column = (np.abs(x) < 12) & (np.abs(y + 20) < 14)
    disc = column & np.any([np.abs(z - at) < 3.5 for at in Z_MM], axis=0)

    def mask(part):
        return Volume(part.astype(np.float32), geometry)

    masks = numbering.Masks(
        mask(disc), mask(column & ~disc), mask((y > 2) & (y < 12)), mask(column & (z < 27))
    )
    centers = [np.array([0.0, -20.0, at]) for at in reversed(Z_MM)]
    return masks, centers


def test_every_disc_has_the_value_of_its_kind_at_its_position(numbering):
    masks, centers = spine(numbering)
    labels = numbering.step1_labels(masks, centers, KINDS)
    values = [labels.sample(c, order=0) for c in centers]
    assert values == [1, 1, 5, 6]  # the remnant stays sacrum
    assert labels.geometry.spacing_ijk_mm == pytest.approx((1, 1, 1))
    assert labels.sample([0.0, 6.0, 40.0], order=0) == 8


def test_the_labels_keep_the_volume_of_the_masks(numbering):
    masks, centers = spine(numbering)
    labels = numbering.step1_labels(masks, centers, ("presacral",) * 4)
    drawn_ml = masks.disc.array.sum() * masks.disc.geometry.voxel_volume_ml
    assert (labels.array == 1).sum() * 1e-3 == pytest.approx(drawn_ml, rel=0.1)


def test_a_cervical_disc_is_used_as_landmark(numbering):
    masks, centers = spine(numbering)
    labels = numbering.step1_labels(masks, centers, ("C2-C3", "presacral", "lumbosacral", "false"))
    assert [labels.sample(c, order=0) for c in centers[:3]] == [2, 1, 5]


def test_scores_contain_only_the_last_vertebra(numbering):
    scores = np.array(numbering.path_scores([0.1, 0.2, 0.9], has_c2_disc=False))
    assert scores.shape == (3, 24)
    assert scores[:, 23].tolist() == [0.1, 0.2, 0.9]
    assert np.ptp(scores[:, 1:23], axis=1).max() == 0
    assert (scores[:, 0] == 0).all()
    assert np.argmax(numbering.path_scores([0.0, 1.0], has_c2_disc=True)[0]) == 1


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((90 - 8, 91, 92, 93, 94, 95, 100), ("T11", "T12", "L1", "L2", "L3", "L4", "L5")),
        ((91, 92, 93, 94, 95, 96, 100), ("T12", "L1", "L2", "L3", "L4", "L5", "L6")),
        ((91, 92, 93, 94, 100), ("T12", "L1", "L2", "L3", "L4")),
        ((63, 64, 67, 71, 72), ("C2", "C3", "C6", "C7", "T1")),
        ((100,), ("L5",)),
    ],
)
def test_totalspineseg_values_mean_the_vertebra_above(numbering, values, names):
    assert tuple(numbering.totalspineseg_names(values)) == names


def test_an_incorrect_name_with_high_confidence_is_a_confident_error(numbering):
    truth = {"L3-L4": np.zeros(3), "L4-L5": np.array([0.0, 0, -35])}
    correct = [("L3", np.zeros(3)), ("L4", np.array([0.0, 3, -35]))]
    shifted = [("L2", np.zeros(3)), ("L3", np.array([0.0, 3, -35]))]
    assert numbering.score_names(correct, truth, confident=True)["all_correct"]
    incorrect = numbering.score_names(shifted, truth, confident=True)
    assert (incorrect["correct"], incorrect["incorrect"], incorrect["confident_error"]) == (
        0,
        2,
        True,
    )
    assert not numbering.score_names(shifted, truth, confident=False)["confident_error"]
    assert not numbering.score_names([], truth, confident=True)["confident_error"]


def test_a_missing_program_is_skipped_with_a_message(peers, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "totalspineseg", None)
    monkeypatch.setitem(sys.modules, "spineps", None)
    (tmp_path / "a.json").write_text('{"scores": [[0.5]]}')
    (tmp_path / "a.nii.gz").write_bytes(b"")
    for name, result in peers.run_solvers(tmp_path).items():
        assert set(result) == {"absent"}
        assert result["absent"].startswith(f"{name} was left out")


def test_answers_are_pooled_by_group_and_solver(numbering):
    row = {
        "group": "g",
        "solver": "s",
        "true": 5,
        "correct": 4,
        "incorrect": 1,
        "all_correct": False,
    }
    row |= {"refused": False, "confident_error": True}
    best = row | {"correct": 5, "incorrect": 0, "all_correct": True, "confident_error": False}
    [pooled] = numbering.summary([row, best])
    assert (pooled["correct"], pooled["vertebrae"], pooled["spines_all_correct"]) == (9, 10, 1)
    assert pooled["confident_errors"] == 1


def test_predicted_masks_yield_at_most_one_landmark(numbering, monkeypatch):
    masks, centers = spine(numbering)
    scores = np.array([[3.0, 1, -5, -9], [2, 4, -5, -9], [1, 6, -5, -9], [-1, -3, 2, -6]])
    scores = np.vstack([scores, [5.0, 0, 0, 0]])
    monkeypatch.setattr(numbering, "kind_scores", lambda _: scores)
    candidates = [SimpleNamespace(center_lps=c) for c in (*centers, np.array([0.0, -20.0, 47.0]))]
    kinds, probability = numbering.predict_kinds(SimpleNamespace(candidates=candidates), masks.disc)
    assert kinds == ("presacral", "presacral", "lumbosacral", "first_sacral", "false")
    assert probability[2] > probability[1] > probability[0]
