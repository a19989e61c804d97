"""Tests of `leakloc.segmentation.collections`."""

import numpy as np
import pytest

from leakloc.centerline import Centerline
from leakloc.segmentation.collections import Scene
from leakloc.segmentation.dura import Dura
from leakloc.volume import Geometry, Provenance, Volume

GEOMETRY = Geometry.from_axes((61, 40, 40), origin_lps=(-20, -20, -30), spacing_ijk_mm=(1, 1, 1))
HEAD_LPS = GEOMETRY.lps_from_kji([60, 20, 20])
FOOT_LPS = GEOMETRY.lps_from_kji([0, 20, 20])


@pytest.mark.parametrize(("head_arc_mm", "highest_k"), [(0.0, 60), (20.0, 40)])
def test_the_sac_ends_where_the_cisterns_begin(head_arc_mm: float, highest_k: int) -> None:
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    angle = np.arange(0.0, 2 * np.pi, np.pi / 8)
    radius = np.full((len(line.arc_mm), len(angle)), 8.0)
    dura = Dura(line, line.arc_mm, angle, radius, None, head_arc_mm=head_arc_mm)
    fraction = Volume(np.ones(GEOMETRY.shape, np.float32), GEOMETRY, Provenance("made"))
    sac = Scene.of(fraction, dura, False).sac
    planes = np.flatnonzero(sac.any(axis=(1, 2)))
    assert planes.max() == pytest.approx(highest_k, abs=1)
    assert planes.min() == 0
    assert sac[20].sum() == pytest.approx(np.pi * 8**2, rel=0.05)
