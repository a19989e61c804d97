import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError, LeaklocError
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels import labeling, network
from leakloc.levels.profile import detect
from tests.levels.spines import MadeSpine

SETTINGS = LevelSettings()


def drawn(disc, body):
    """A made spine as signal: bodies and discs in front of a bright canal."""
    spine = MadeSpine(last="L5-S1", margin_mm=40.0)
    low, high = spine.bottom, spine.top
    geometry = Geometry.from_axes(
        (int(high - low), 90, 12), origin_lps=(-22, -70, low), spacing_ijk_mm=(4, 1, 1)
    )
    k, j, i = np.indices(geometry.shape)
    _, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([i, j, k], axis=-1)), -1, 0)
    array = np.full(geometry.shape, 0.1, np.float32)
    column = (y > -44) & (y < -9)
    array[column] = body
    for center in spine.centers.values():
        array[column & (np.abs(z - center[2]) < 5)] = disc
    array[np.abs(y) < 8] = 1.0
    noise = np.random.default_rng(1).normal(0, 0.005, geometry.shape)
    return spine, Volume((array + noise).clip(0).astype(np.float32), geometry)


@pytest.mark.parametrize(("disc", "body"), [(0.4, 0.15), (0.15, 0.6), (0.05, 0.15)])
def test_finds_discs_whatever_the_contrast(disc, body):
    spine, image = drawn(disc, body)
    found = detect(image, spine.centerline, SETTINGS)
    heights = np.array([d.center_lps[2] for d in found.discs])
    for center in spine.centers.values():
        assert np.abs(heights - center[2]).min() < 4.0
    assert len(found.discs) <= len(spine.centers) + 2
    assert found.bodies is None and found.method == "profile"
    assert (np.diff(heights) < 0).all()


def test_nothing_in_nothing():
    spine, image = drawn(0.5, 0.2)
    assert (
        detect(image.with_array(np.zeros_like(image.array)), spine.centerline, SETTINGS).discs == ()
    )


def test_needs_the_canal():
    with pytest.raises(AnalysisError, match="canal"):
        detect(drawn(0.5, 0.2)[1], None, SETTINGS)


def test_stands_in_for_a_network_without_weights(monkeypatch):
    spine, image = drawn(0.5, 0.2)

    def lost(*_):
        raise LeaklocError("the weights are missing")

    monkeypatch.setattr(network, "detect", lost)
    segmentation = spine.segmentation
    levels = labeling.label(image, {}, segmentation, SETTINGS)
    assert "detector_failed" in {n.code for n in levels.notes}
    assert levels.vertebrae and levels.numbering.confidence < 0.4
    chosen = labeling.label(image, {}, segmentation, LevelSettings(detector="profile"))
    assert [d.name for d in chosen.discs] == [d.name for d in levels.discs]
    assert "detector_failed" not in {n.code for n in chosen.notes}


def test_a_line_shorter_than_a_level_is_no_harm():
    _, image = drawn(0.5, 0.2)
    line = Centerline(np.array([[0.0, 0.0, 4.0], [0.0, 0.0, -4.0]]))
    assert len(detect(image, line, SETTINGS).discs) <= 1
