from __future__ import annotations

import numpy as np
import pytest

from leakloc.errors import GeometryError
from leakloc.evaluation.metrics import (
    dice,
    hd95_mm,
    match_collections,
    surface_distances_mm,
    wilson_interval,
)
from leakloc.volume import Geometry, Volume


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
    with pytest.raises(GeometryError, match="do not share a grid"):
        hd95_mm(box(grid(), slice(2, 4)), box(grid(spacing=(1, 1, 2)), slice(2, 4)))


def test_matching_pairs_misses_and_inventions():
    geometry = grid((40, 40, 40))
    truth = np.zeros(geometry.shape, np.uint8)
    truth[2:10, 2:10, 2:10] = 1
    truth[30:38, 30:38, 30:38] = 2
    found = np.zeros(geometry.shape, np.uint8)
    found[2:10, 2:10, 3:11] = 5  # the first, shifted
    found[2:10, 9:10, 1:2] = 6  # far from everything but near the first: no overlap
    found[20:22, 2:4, 30:38] = 7
    pairs, missed, invented = match_collections(Volume(found, geometry), Volume(truth, geometry))
    assert pairs == {1: 5}
    assert missed == [2]
    assert invented == [6, 7]


def test_wilson_interval_of_published_example():
    # Newcombe, Stat Med 1998;17:857, table I: 81/263 -> 0.2553 to 0.3662
    low, high = wilson_interval(81, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson_interval(0, 0) == (0.0, 1.0)
