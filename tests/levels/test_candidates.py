import numpy as np
import pytest

from leakloc.core.volume import Geometry, Volume
from leakloc.levels.candidates import disc_height_mm, sacral_fraction
from leakloc.levels.detection import DetectedDisc, Detections
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


def test_disc_height_is_the_distance_of_the_bones_and_nan_without_a_gap():
    geometry = Geometry.from_axes(
        (60, 40, 10), origin_lps=(-18, -40, -60), spacing_ijk_mm=(4, 2, 2)
    )
    z = geometry.lps_from_ijk(np.array([[0, 0, k] for k in range(60)]))[:, 2]
    bone = np.broadcast_to((np.abs(z) > 5)[:, None, None], geometry.shape)
    body = Volume((bone & (z > 0)[:, None, None]).astype(np.float32), geometry)
    sacrum = Volume((bone & (z < 0)[:, None, None]).astype(np.float32), geometry)
    disc = DetectedDisc(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.9, 30.0)
    found = Detections((disc,), body, "made", sacrum)
    assert disc_height_mm(found, disc) == pytest.approx(11.0, abs=1.0)
    full = body.with_array(np.ones(geometry.shape, np.float32))
    assert np.isnan(disc_height_mm(Detections((disc,), full, "made", full), disc))
    empty = body.with_array(np.zeros(geometry.shape, np.float32))
    assert np.isnan(disc_height_mm(Detections((disc,), empty, "made", empty), disc))
    assert np.isnan(disc_height_mm(Detections((disc,), None, "profile"), disc))
