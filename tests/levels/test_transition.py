import numpy as np
import pytest

from leakloc.core.settings import LevelSettings
from leakloc.levels.detection import DetectedDisc
from leakloc.levels.labeling import label
from leakloc.levels.transition import sacral_fraction
from tests.levels.spines import MadeSpine

SETTINGS = LevelSettings()


def labelled(spine, settings=SETTINGS):
    return label(spine.volume, {}, spine.segmentation, settings, detector=spine.detect)


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
    usual, odd = labelled(MadeSpine()), labelled(MadeSpine(**shape))
    assert not usual.numbering.transitional_suspected and note(usual) == ""
    assert odd.numbering.transitional_suspected and sign in note(odd)
    assert odd.numbering.confidence < 0.8 * usual.numbering.confidence
    assert [d.name for d in odd.discs] == [d.name for d in usual.discs]  # reported, not renamed


def test_confidence_of_a_count_from_c2_is_unchanged():
    field = {"first": "C2-C3", "last": "S1-S2"}
    usual, odd = labelled(MadeSpine(**field)), labelled(MadeSpine(**field, in_between_mm=14.0))
    assert odd.numbering.transitional_suspected and not usual.numbering.transitional_suspected
    assert odd.numbering.confidence == pytest.approx(usual.numbering.confidence, abs=0.02)


def test_thresholds_are_settings():
    lenient = LevelSettings(transitional_fraction=0.45)
    assert not labelled(MadeSpine(in_between_mm=5.0), lenient).numbering.transitional_suspected


def test_sacral_fraction_is_0_for_lumbar_1_for_sacrum_and_nan_outside():
    spine = MadeSpine()
    found = spine.detect(spine.volume, None, SETTINGS)
    last = found.discs[-2]
    assert sacral_fraction(found, last, 1.0) < 0.05
    assert sacral_fraction(found, last, -1.0) > 0.95
    far = last.center_lps + np.array([0.0, 500.0, 0.0])
    away = DetectedDisc(far, last.normal_lps, 0.9, 30.0)
    assert np.isnan(sacral_fraction(found, away, 1.0))
