from dataclasses import replace

import pytest

from leakloc.core.settings import LevelSettings
from leakloc.levels.labeling import assign_levels
from tests.levels.spines import MadeSpine, label_spine


def note(levels):
    return next((n.message for n in levels.notes if n.code == "transitional_suspected"), "")


SHAPES = {
    "L5 partly resembles the sacrum": {"in_between_mm": 14.0},
    "S1 partly resembles a lumbar vertebra": {"in_between_mm": -14.0},
    "the disc L5-S1 is narrow": {"last_depth": 0.7},
    "the disc S1-S2 is well formed": {"remnant_depth_mm": 12.0, "remnant_score": 0.85},
}


@pytest.mark.parametrize(("sign", "shape"), SHAPES.items())
def test_each_sign_is_reported_and_lowers_the_confidence(sign, shape):
    usual, odd = label_spine(MadeSpine()), label_spine(MadeSpine(**shape))
    assert not usual.numbering.transitional_suspected and note(usual) == ""
    assert odd.numbering.transitional_suspected and sign in note(odd)
    assert odd.numbering.confidence < 0.8 * usual.numbering.confidence
    assert [d.name for d in odd.discs] == [d.name for d in usual.discs]  # reported, not renamed


@pytest.mark.parametrize(
    ("last_depth", "height", "is_sign"),
    [(1.0, 0.5, False), (0.85, 0.5, True), (0.85, 1.0, False), (0.85, float("nan"), False)],
)
def test_a_disc_of_small_area_is_a_sign_and_a_flat_one_is_not(last_depth, height, is_sign):
    detection = label_spine(MadeSpine(last_depth=last_depth, last="L5-S1", margin_mm=60)).detection
    candidates = tuple(replace(c, height_mm=10.0) for c in detection.candidates)
    last = replace(candidates[-1], height_mm=10.0 * height)
    detection = replace(detection, candidates=(*candidates[:-1], last))
    levels = assign_levels(detection, LevelSettings())
    assert ("the disc L5-S1 is small" in note(levels)) == is_sign


def test_an_uncertain_remnant_is_not_a_sign():
    assert note(label_spine(MadeSpine(remnant_depth_mm=30.0, remnant_score=0.5))) == ""


def test_confidence_of_a_count_from_c2_is_unchanged():
    field = {"first": "C2-C3", "last": "S1-S2"}
    usual, odd = (
        label_spine(MadeSpine(**field)),
        label_spine(MadeSpine(**field, in_between_mm=14.0)),
    )
    assert odd.numbering.transitional_suspected and not usual.numbering.transitional_suspected
    assert odd.numbering.confidence == pytest.approx(usual.numbering.confidence, abs=0.02)
