import pytest

from tests.levels.spines import MadeSpine, label_spine


def note(levels):
    return next((n.message for n in levels.notes if n.code == "transitional_suspected"), "")


SHAPES = {
    "L5 partly resembles the sacrum": {"in_between_mm": 14.0},
    "S1 partly resembles a lumbar vertebra": {"in_between_mm": -14.0},
    "the disc L5-S1 is narrow": {"last_depth": 0.7},
    "the disc S1-S2 is well formed": {"remnant_depth_mm": 30.0, "remnant_score": 0.85},
}


@pytest.mark.parametrize(("sign", "shape"), SHAPES.items())
def test_each_sign_is_reported_and_lowers_the_confidence(sign, shape):
    usual, odd = label_spine(MadeSpine()), label_spine(MadeSpine(**shape))
    assert not usual.numbering.transitional_suspected and note(usual) == ""
    assert odd.numbering.transitional_suspected and sign in note(odd)
    assert odd.numbering.confidence < 0.8 * usual.numbering.confidence
    assert [d.name for d in odd.discs] == [d.name for d in usual.discs]  # reported, not renamed


def test_confidence_of_a_count_from_c2_is_unchanged():
    field = {"first": "C2-C3", "last": "S1-S2"}
    usual, odd = (
        label_spine(MadeSpine(**field)),
        label_spine(MadeSpine(**field, in_between_mm=14.0)),
    )
    assert odd.numbering.transitional_suspected and not usual.numbering.transitional_suspected
    assert odd.numbering.confidence == pytest.approx(usual.numbering.confidence, abs=0.02)
