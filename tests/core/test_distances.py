"""Distances from masks equal those of scipy and of SimpleITK."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

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


@pytest.mark.parametrize("spacing_kji_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.9), (1.0, 1.2, 0.7)])
@pytest.mark.parametrize("shape", [(30, 40, 36), (1, 40, 36)])
def test_distances_are_those_of_simpleitk(shape, spacing_kji_mm):
    sitk = pytest.importorskip("SimpleITK")
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 4, mode="nearest")
    mask = noise > np.percentile(noise, 70)  # also at the edges of the grid
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_kji_mm[::-1])
    expected = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
    )
    distance = signed_distance_mm(mask, spacing_kji_mm)
    assert distance.dtype == np.float32
    assert_allclose(distance, expected, atol=1e-4)
    assert (distance[~mask] > 0).all()
    assert (distance[mask] <= 0).all()
    assert (distance == 0).sum() == (np.abs(expected) < 1e-3).sum()


def test_a_mask_of_the_whole_grid_has_no_border():
    assert (signed_distance_mm(np.ones((3, 4, 5), bool), (1.0, 1.0, 1.0)) == -np.inf).all()
