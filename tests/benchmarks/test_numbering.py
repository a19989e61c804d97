"""What the numbering benchmark hands to other programs, and how it judges their answers."""

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


def test_every_disc_has_the_value_of_its_kind_where_it_lies(numbering):
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


def test_a_neck_disc_told_as_such_is_a_landmark(numbering):
    masks, centers = spine(numbering)
    labels = numbering.step1_labels(masks, centers, ("C2-C3", "presacral", "lumbosacral", "false"))
    assert [labels.sample(c, order=0) for c in centers[:3]] == [2, 1, 5]


def test_scores_say_who_is_last_and_no_more(numbering):
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


def test_a_wrong_name_given_surely_is_a_confident_mistake(numbering):
    truth = {"L3-L4": np.zeros(3), "L4-L5": np.array([0.0, 0, -35])}
    right = [("L3", np.zeros(3)), ("L4", np.array([0.0, 3, -35]))]
    shifted = [("L2", np.zeros(3)), ("L3", np.array([0.0, 3, -35]))]
    assert numbering.judged(right, truth, sure=True)["all_right"]
    wrong = numbering.judged(shifted, truth, sure=True)
    assert (wrong["right"], wrong["wrong"], wrong["confident_mistake"]) == (0, 2, True)
    assert not numbering.judged(shifted, truth, sure=False)["confident_mistake"]
    assert not numbering.judged([], truth, sure=True)["confident_mistake"]


def test_a_peer_that_is_not_there_is_left_out_with_one_sentence(peers, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "totalspineseg", None)
    monkeypatch.setitem(sys.modules, "spineps", None)
    (tmp_path / "a.json").write_text('{"scores": [[0.5]]}')
    (tmp_path / "a.nii.gz").write_bytes(b"")
    for name, told in peers.answers(tmp_path).items():
        assert set(told) == {"absent"}
        assert told["absent"].startswith(f"{name} was left out")


def test_answers_are_pooled_by_group_and_solver(numbering):
    row = {"group": "g", "solver": "s", "true": 5, "right": 4, "wrong": 1, "all_right": False}
    row |= {"refused": False, "confident_mistake": True}
    best = row | {"right": 5, "wrong": 0, "all_right": True, "confident_mistake": False}
    [pooled] = numbering.summary([row, best])
    assert (pooled["right"], pooled["vertebrae"], pooled["spines_all_right"]) == (9, 10, 1)
    assert pooled["confident_mistakes"] == 1


def test_one_landmark_at_most_comes_from_found_masks(numbering, monkeypatch):
    masks, centers = spine(numbering)
    scores = np.array([[3.0, 1, -5, -9], [2, 4, -5, -9], [1, 6, -5, -9], [-1, -3, 2, -6]])
    scores = np.vstack([scores, [5.0, 0, 0, 0]])
    monkeypatch.setattr(numbering, "kind_scores", lambda _: scores)
    finds = [SimpleNamespace(center_lps=c) for c in (*centers, np.array([0.0, -20.0, 47.0]))]
    kinds, share = numbering.likely_kinds(SimpleNamespace(candidates=finds), masks.disc)
    assert kinds == ("presacral", "presacral", "lumbosacral", "first_sacral", "false")
    assert share[2] > share[1] > share[0]
