import numpy as np

from leakloc.levels.candidates import sacral_fraction
from leakloc.levels.detection import DetectedDisc
from tests.levels.spines import MadeSpine


def test_sacral_fraction_is_0_for_lumbar_1_for_sacrum_and_nan_outside():
    spine = MadeSpine()
    found = spine.detect(spine.volume, None)
    last = found.discs[-2]
    assert sacral_fraction(found, last, 1.0) < 0.05
    assert sacral_fraction(found, last, -1.0) > 0.95
    far = last.center_lps + np.array([0.0, 500.0, 0.0])
    away = DetectedDisc(far, last.normal_lps, 0.9, 30.0)
    assert np.isnan(sacral_fraction(found, away, 1.0))
