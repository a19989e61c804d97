"""Interpolation compared with SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from leakloc.core.resampling import resampled
from leakloc.core.volume import Geometry, Volume

SAGITTAL = np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])
SOURCE = Geometry.from_axes(
    (30, 40, 24), origin_lps=(-3.1, 4, 35.3), spacing_ijk_mm=(1.1, 0.9, 1.3),
    directions_lps=SAGITTAL,
)  # fmt: skip
TURNS = {"parallel": (0, 0), "nearly parallel": (1e-6, 0), "turned": (7, 0), "oblique": (30, 20)}


def target(turn: str) -> Geometry:
    return Geometry.from_axes(
        (52, 28, 50), origin_lps=(-7.03, 1.01, -2.17), spacing_ijk_mm=(0.8303, 1.0511, 0.7709),
        directions_lps=Rotation.from_euler("zx", TURNS[turn], degrees=True).as_matrix(),
    )  # fmt: skip


def signal(dtype: str) -> Volume:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SOURCE.shape), 1)
    return Volume((3000 * noise + 1500).clip(0, 3000).astype(dtype), SOURCE)


def by_simpleitk(volume: Volume, grid: Geometry, order: int, fill: float) -> np.ndarray:
    sitk = pytest.importorskip("SimpleITK")
    empty = Volume(np.zeros(grid.shape, np.uint8), grid).to_sitk()
    kind = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order]
    moved = sitk.Resample(volume.to_sitk(), empty, sitk.Transform(), kind, fill)
    return np.asarray(sitk.GetArrayFromImage(moved), np.float64)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_values_are_those_of_simpleitk(turn, order, dtype):
    volume, grid = signal(dtype), target(turn)
    moved = volume.resample(grid, order=order, fill=7)
    expected = by_simpleitk(volume, grid, order, 7)
    assert moved.array.dtype == dtype and moved.geometry is grid
    assert 0.1 < (expected == 7).mean() < 0.9
    outside = ~SOURCE.contains(grid.lps_from_kji(np.indices(grid.shape).transpose(1, 2, 3, 0)))
    np.testing.assert_array_equal(moved.array[outside], 7)
    # SimpleITK truncates integers; these are rounded.
    limit = 1.0 if dtype == "uint16" and order else 0.003 if order else 0.0
    np.testing.assert_allclose(moved.array, expected, rtol=0, atol=limit)


def test_a_position_between_two_voxels_has_the_value_of_the_higher_index():
    array = np.array([10, 20, 30], np.int16).reshape(1, 1, 3)
    halves = np.diag([1.0, 1.0, 0.5, 1.0])
    halves[2, 3] = -1.0  # -1, -0.5, 0, ..., 3
    values = resampled(array, halves, (1, 1, 9), order=0, fill=-1).ravel()
    assert values.tolist() == [-1, 10, 10, 20, 20, 30, 30, -1, -1]
    values = resampled(array, halves, (1, 1, 9), order=1, fill=-1).ravel()
    assert values.tolist() == [-1, 10, 10, 15, 20, 25, 30, -1, -1]


def test_integers_are_rounded():
    array = np.array([0, 10], np.uint8).reshape(1, 1, 2)
    tenths = np.diag([1.0, 1.0, 0.17, 1.0])
    values = resampled(array, tenths, (1, 1, 6), order=1, fill=0).ravel()
    assert values.tolist() == [0, 2, 3, 5, 7, 8]  # 1.7, 3.4, 5.1, 6.8, 8.5


def test_splines_do_not_exceed_the_range_of_the_type():
    array = np.zeros((8, 8, 8), np.uint8)
    array[4] = 255
    finer = Geometry.from_axes((16, 8, 8), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 0.5))
    source = Geometry.from_axes((8, 8, 8), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    moved = Volume(array, source).resample(finer, order=3).array[:, 4, 4]
    assert moved[[0, 2, 4, 6]].max() == 0
    assert moved[8] == 255
    assert moved[5] == 0  # negative before it is limited
