"""The dural surface."""

import numpy as np

from leakloc.centerline import Centerline
from leakloc.segmentation.dura import Dura


def test_the_convex_sac_fills_a_dent() -> None:
    angle = np.arange(48) * (2 * np.pi / 48)
    ring = np.full((3, 48), 8.0)
    ring[1, 10:15] = 4.0
    line = Centerline.smoothed(
        np.array([[0, 0, 20.0], [0, 0, 10], [0, 0, 0]]), step_mm=1.0, smoothing_mm=1.0
    )
    convex = Dura(line, np.array([0.0, 2.0, 4.0]), angle, ring, None).convex().radius_mm
    np.testing.assert_allclose(convex[0], 8.0)
    chord = 8.0 * np.cos(3 * 2 * np.pi / 48)  # a straight bridge over six rays
    np.testing.assert_allclose(convex[1, 12], chord)
