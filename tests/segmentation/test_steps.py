"""The steps one by one give what the whole gives."""

from __future__ import annotations

import numpy as np

from leakloc import segmentation
from tests.segmentation.test_segment import SETTINGS, mini


def test_steps_agree_with_the_whole() -> None:
    m = mini(collection="dorsal", codes="PIR")
    spine = segmentation.Spine(m.image)
    whole = segmentation.segment(spine, {}, SETTINGS)
    fluid = segmentation.fluid_fraction(spine)
    inside = whole.thecal_sac.array > 0
    np.testing.assert_allclose(fluid.array[inside], whole.fluid_fraction.array[inside], atol=1e-6)
    dura = segmentation.dural_surface(spine)
    sac = segmentation.sac_mask(spine, dura)
    np.testing.assert_array_equal(sac.array, whole.thecal_sac.array)
    labels, candidates = segmentation.fluid_outside(spine, dura, settings=SETTINGS)
    np.testing.assert_array_equal(labels.array, whole.collections.array)
    assert [c.accepted for c in candidates] == [c.accepted for c in whole.candidates]
