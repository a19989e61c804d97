import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.levels.profile import detect
from tests.levels.spines import draw_spine


@pytest.mark.parametrize(("disc", "body"), [(0.4, 0.15), (0.15, 0.6), (0.05, 0.15)])
def test_finds_discs_whatever_the_contrast(disc, body):
    spine, image = draw_spine(disc, body)
    found = detect(image, spine.centerline)
    heights = np.array([d.center_lps[2] for d in found.discs])
    for center in spine.centers.values():
        assert np.abs(heights - center[2]).min() < 4.0
    assert len(found.discs) <= len(spine.centers) + 2
    assert found.bodies is None and found.method == "profile"
    assert (np.diff(heights) < 0).all()


def test_nothing_in_nothing():
    spine, image = draw_spine(0.5, 0.2)
    assert detect(image.with_array(np.zeros_like(image.array)), spine.centerline).discs == ()


def test_needs_the_canal():
    with pytest.raises(AnalysisError, match="canal"):
        detect(draw_spine(0.5, 0.2)[1], None)


def test_a_line_shorter_than_a_level_is_no_harm():
    _, image = draw_spine(0.5, 0.2)
    line = Centerline(np.array([[0.0, 0.0, 4.0], [0.0, 0.0, -4.0]]))
    assert len(detect(image, line).discs) <= 1
