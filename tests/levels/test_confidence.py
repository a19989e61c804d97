import pytest

from leakloc.core.settings import LevelSettings
from tests.levels.spines import MadeSpine, label_spine


def test_both_adjacent_numberings_are_reported():
    numbering = label_spine(MadeSpine()).numbering
    assert {a.shift for a in numbering.alternatives} == {-1, 1}
    assert all(0 < a.confidence < 1 and a.reason for a in numbering.alternatives)
    assert numbering.confidence + sum(a.confidence for a in numbering.alternatives) <= 1.0
    assert 0.4 < numbering.confidence <= LevelSettings().assumed_confidence


def test_a_field_that_ends_in_the_sacrum_is_not_trusted():
    whole = label_spine(MadeSpine(last="L5-S1", margin_mm=35.0))
    cut = label_spine(MadeSpine(last="L5-S1", margin_mm=18.0))
    assert "sacrum_cut" not in {n.code for n in whole.notes}
    assert "sacrum_cut" in {n.code for n in cut.notes}
    assert cut.numbering.confidence < 0.5 < whole.numbering.confidence


@pytest.mark.parametrize(("fractions", "competitors"), [((0.01,), 1), ((0.05, 0.12), 2)])
def test_count_from_c2_that_skips_high_scores_has_low_confidence(fractions, competitors):
    whole = MadeSpine(first="C2-C3", last="S1-S2")
    faint = MadeSpine(first="C2-C3", last="S1-S2", false_at=fractions)
    high = MadeSpine(first="C2-C3", last="S1-S2", false_at=fractions, false_score=0.8)
    clean = label_spine(whole)
    assert clean.numbering.method == "c2_count"
    assert clean.numbering.confidence > 0.9
    assert label_spine(faint).numbering.confidence > 0.8
    lowered = label_spine(high)
    assert [n for n in lowered.notes if n.code == "doubtful_count"]
    assert lowered.numbering.confidence <= 0.98 * 0.6**competitors
    assert "doubtful_count" not in {n.code for n in (*clean.notes, *label_spine(faint).notes)}


def test_one_high_score_above_c2_c3_is_usual():
    spine = MadeSpine(first="C2-C3", last="S1-S2", false_at=(-0.03,), false_score=0.8)
    levels = label_spine(spine)
    assert "doubtful_count" not in {n.code for n in levels.notes}
    assert levels.numbering.confidence > 0.8


def test_usual_conus_supports_five_lumbar_vertebrae():
    hidden = label_spine(MadeSpine()).numbering
    usual = label_spine(MadeSpine(cord_ends_at=("L1-L2", -12.0))).numbering
    assert usual.confidence > hidden.confidence
    assert "not visible" in hidden.assumption and "usual" in usual.assumption
    assert not usual.transitional_suspected


@pytest.mark.parametrize(("disc", "reported"), [("T12-L1", True), ("L4-L5", False)])
def test_implausible_conus_is_not_reported(disc, reported):
    levels = label_spine(MadeSpine(cord_ends_at=(disc, 8.0)))
    assert levels.detection.conus is not None
    assert (levels.conus_tip_lps is not None) == reported


@pytest.mark.parametrize(
    ("disc", "below_mm", "shift", "word"),
    [("T11-T12", 8.0, 1, "higher"), ("L2-L3", 0.0, -1, "lower")],
)
def test_unusual_conus_lowers_confidence(disc, below_mm, shift, word):
    levels = label_spine(MadeSpine(cord_ends_at=(disc, below_mm)))
    numbering = levels.numbering
    assert numbering.transitional_suspected
    assert "transitional_suspected" in {n.code for n in levels.notes}
    assert numbering.lumbar_count == 5  # reported, not renamed: the landmark is weak
    likely = max(numbering.alternatives, key=lambda a: a.confidence)
    assert likely.shift == shift and word in likely.reason
    assert numbering.confidence < label_spine(MadeSpine()).numbering.confidence


def test_without_sacrum_and_c2_levels_are_partial_with_low_confidence():
    levels = label_spine(MadeSpine(first="T9-T10", last="L2-L3"))
    assert levels.status == "partial"
    assert levels.numbering.confidence < 0.4
    assert "no_anchor" in {n.code for n in levels.notes}
