"""The voxel network: its input, its extent, and the border of fluid."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.errors import LeaklocError
from leakloc.segmentation import voxel_network
from leakloc.segmentation.voxel_network import MAX_DISTANCE_MM, fluid_probability, network_input

SHAPE = (70, 40, 40)
RADIUS_MM = np.hypot(*(np.indices(SHAPE)[1:] - 20.0)).astype(np.float32)


def sac_of(edge_mm: float) -> np.ndarray:
    """A tube of CSF with voxels of 1 mm that its edge fills partially."""
    return np.clip(edge_mm - RADIUS_MM + 0.5, 0.0, 1.0).astype(np.float32)


def test_input_clips_signal_and_distance() -> None:
    signal = np.full((2, 2, 2), 3.0)
    planes = network_input(signal, np.full((2, 2, 2), -50.0), np.zeros((2, 2, 2)))
    assert planes.shape == (4, 2, 2, 2)
    assert planes.dtype == np.float32
    assert planes[0].max() == pytest.approx(1.6)
    assert planes[1].min() == -1.0
    assert planes[2].min() == pytest.approx(-1.0)
    assert MAX_DISTANCE_MM == 3.0


def test_border_of_fluid_follows_the_signal() -> None:
    """Fluid behind a sac of 7 mm; the dura network estimates its border a voxel too far out."""
    _, j, _ = np.indices(SHAPE)
    true = (RADIUS_MM >= 7.0) & (RADIUS_MM < 10.0) & (j > 24)
    signal = np.where(true, np.float32(1), sac_of(7.0))
    blurred = np.where((RADIUS_MM >= 7.0) & (RADIUS_MM < 11.0) & (j > 24), np.float32(0.55), 0)
    needed = blurred > 0
    fluid = fluid_probability(signal, RADIUS_MM - 7.0, blurred.astype(np.float32), needed) >= 0.5
    middle = slice(20, 50)
    assert (needed != true)[middle].sum() > 5 * (fluid != true)[middle].sum()


def test_result_does_not_depend_on_the_division_into_slabs(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    signal = sac_of(8.0) + rng.normal(0, 0.05, SHAPE).astype(np.float32)
    outside = RADIUS_MM - np.float32(8.0)
    fluid = np.where((outside > 0) & (outside < 3), np.float32(0.6), np.float32(0))
    needed = np.zeros(SHAPE, bool)
    needed[10:60, 10:30, 10:30] = True
    whole = fluid_probability(signal, outside, fluid, needed)
    monkeypatch.setattr(voxel_network, "_SLAB", 7)
    slabs = fluid_probability(signal, outside, fluid, needed)
    np.testing.assert_allclose(whole[needed], slabs[needed], atol=1e-5)
    assert not whole[~needed & (np.indices(SHAPE)[0] < 10)].any()


def test_nothing_needed_gives_zeros() -> None:
    signal = sac_of(8.0)
    assert not fluid_probability(signal, signal, signal, np.zeros(SHAPE, bool)).any()


def test_missing_weights_are_reported(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(voxel_network, "MODEL_PATH", tmp_path / "voxels.onnx")
    signal = sac_of(8.0)
    with pytest.raises(LeaklocError, match="voxel network are missing"):
        fluid_probability(signal, signal, signal, signal > 0)
