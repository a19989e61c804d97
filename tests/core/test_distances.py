"""Distances from masks equal those of scipy."""

import numpy as np
from numpy.testing import assert_allclose
from scipy.ndimage import binary_erosion, distance_transform_edt

from leakloc.core.distances import signed_distance_mm


def test_distances_are_those_to_the_nearest_border_voxel():
    spacing = (3.0, 0.7, 1.1)
    mask = np.random.default_rng(0).random((9, 24, 20)) > 0.98
    mask[3:7, 5:12, 6:15] = True
    border = mask & ~binary_erosion(mask, np.ones((3, 3, 3)), border_value=1)
    expected = distance_transform_edt(~border, sampling=spacing)
    found = signed_distance_mm(mask, spacing)
    assert_allclose(found[~mask], expected[~mask], atol=1e-4)
    assert found[mask].max() == 0
    assert found[5, 8, 10] < -1.1
