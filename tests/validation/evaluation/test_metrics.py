from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from leakloc.core.errors import GeometryError
from leakloc.core.volume import Geometry, Volume
from leakloc.validation.evaluation.metrics import (
    assd_mm,
    dice,
    hd95_mm,
    match_collections,
    surface_distances_mm,
)


def grid(shape=(20, 30, 40), spacing=(1.0, 1.0, 1.0)) -> Geometry:
    return Geometry.from_axes(shape, origin_lps=(0, 0, 0), spacing_ijk_mm=spacing)


def box(geometry: Geometry, *bounds: slice, value: int = 1) -> Volume:
    array = np.zeros(geometry.shape, np.uint8)
    array[bounds] = value
    return Volume(array, geometry)


def test_dice_of_half_overlap():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[:4], b[2:6] = True, True
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(a, a) == 1.0
    assert np.isnan(dice(np.zeros(3), np.zeros(3)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.8, 3.0)])
def test_shifted_plate_lies_one_shift_away(spacing):
    geometry = grid(spacing=spacing)
    a = box(geometry, slice(8, 9), slice(5, 25), slice(5, 35))
    b = box(geometry, slice(11, 12), slice(5, 25), slice(5, 35))
    distances = surface_distances_mm(a, b)
    assert distances == pytest.approx(3 * spacing[2])
    assert hd95_mm(a, b) == pytest.approx(3 * spacing[2])


def test_distances_ignore_the_inside_of_a_mask():
    geometry = grid()
    a = box(geometry, slice(5, 15), slice(5, 15), slice(5, 15))
    assert surface_distances_mm(a, a).max() == 0.0
    assert len(surface_distances_mm(a, a)) == 2 * (10**3 - 8**3)


def test_empty_masks_have_no_distance():
    geometry = grid()
    assert np.isnan(hd95_mm(box(geometry, slice(0)), box(geometry, slice(3, 5))))


def test_other_grids_are_refused():
    with pytest.raises(GeometryError, match="are on different grids"):
        hd95_mm(box(grid(), slice(2, 4)), box(grid(spacing=(1, 1, 2)), slice(2, 4)))


def test_matches_misses_and_false_positives():
    geometry = grid((40, 40, 40))
    truth = np.zeros(geometry.shape, np.uint8)
    truth[2:10, 2:10, 2:10] = 1
    truth[30:38, 30:38, 30:38] = 2
    found = np.zeros(geometry.shape, np.uint8)
    found[2:10, 2:10, 3:11] = 5  # the first, shifted
    found[2:10, 9:10, 1:2] = 6  # far from everything but near the first: no overlap
    found[20:22, 2:4, 30:38] = 7
    pairs, missed, false = match_collections(Volume(found, geometry), Volume(truth, geometry))
    assert pairs == {1: 5}
    assert missed == [2]
    assert false == [6, 7]


@pytest.fixture
def blobs():
    """Two overlapping lumps on an uneven grid."""
    geometry = grid((24, 30, 34), (0.8, 1.0, 1.9))
    k, j, i = np.indices(geometry.shape)
    one = ((k - 11) * 1.9) ** 2 + (j - 14) ** 2 + ((i - 15) * 0.8) ** 2 < 8.0**2
    two = ((k - 12) * 1.9 / 1.3) ** 2 + (j - 16) ** 2 + ((i - 18) * 0.8) ** 2 < 7.0**2
    return Volume(one.astype(np.uint8), geometry), Volume(two.astype(np.uint8), geometry)


def test_largest_distance_is_that_of_simpleitk(blobs):
    one, two = blobs
    oracle = sitk.HausdorffDistanceImageFilter()
    oracle.Execute(one.to_sitk(), two.to_sitk())
    # ITK measures from every voxel of one mask to the other mask, not between surfaces: the
    # farthest point is the same.
    assert surface_distances_mm(one, two).max() == pytest.approx(
        oracle.GetHausdorffDistance(), abs=0.5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_distances_are_those_of_surface_distance(blobs):
    surface_distance = pytest.importorskip("surface_distance")
    one, two = blobs
    spacing = one.geometry.spacing_kji_mm
    oracle = surface_distance.compute_surface_distances(one.array > 0, two.array > 0, spacing)
    there, back = surface_distance.compute_average_surface_distance(oracle)
    # It weighs by area on a grid of corners; half of the largest voxel edge is its own step.
    assert assd_mm(one, two) == pytest.approx((there + back) / 2, abs=0.5)
    assert hd95_mm(one, two) == pytest.approx(
        surface_distance.compute_robust_hausdorff(oracle, 95), abs=0.95
    )
