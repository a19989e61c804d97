"""The voxel network: its input, its extent, and what it decides at a surface."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.errors import LeaklocError
from leakloc.segmentation import voxel_network
from leakloc.segmentation.voxel_network import MAX_DISTANCE_MM, network_input, voxel_probabilities

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


@pytest.mark.parametrize("edge_mm", [7.6, 9.4])
def test_signal_corrects_a_surface_that_is_half_a_voxel_off(edge_mm: float) -> None:
    signal, true = sac_of(edge_mm), edge_mm > RADIUS_MM
    for error_mm in (-0.5, 0.5):
        outside = RADIUS_MM - np.float32(edge_mm + error_mm)
        sac, _ = voxel_probabilities(signal, outside, np.zeros_like(signal), np.abs(outside) < 2.5)
        near = np.abs(outside) < 2.5
        assert ((sac >= 0.5) != true)[near].mean() < 0.6 * ((outside <= 0) != true)[near].mean()


def test_probabilities_do_not_depend_on_the_division_into_slabs(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    signal = sac_of(8.0) + rng.normal(0, 0.05, SHAPE).astype(np.float32)
    outside = RADIUS_MM - np.float32(8.0)
    fluid = np.where((outside > 0) & (outside < 3), np.float32(0.6), np.float32(0))
    needed = np.zeros(SHAPE, bool)
    needed[10:60, 10:30, 10:30] = True
    whole = voxel_probabilities(signal, outside, fluid, needed)
    monkeypatch.setattr(voxel_network, "_SLAB", 7)
    for one, other in zip(whole, voxel_probabilities(signal, outside, fluid, needed), strict=True):
        np.testing.assert_allclose(one[needed], other[needed], atol=1e-5)
        assert not one[~needed].any()


def test_nothing_needed_gives_zeros() -> None:
    signal = sac_of(8.0)
    sac, epidural = voxel_probabilities(signal, signal, signal, np.zeros(SHAPE, bool))
    assert not sac.any()
    assert not epidural.any()


def test_missing_weights_are_reported(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(voxel_network, "MODEL_PATH", tmp_path / "voxels.onnx")
    signal = sac_of(8.0)
    with pytest.raises(LeaklocError, match="voxel network are missing"):
        voxel_probabilities(signal, signal, signal, signal > 0)
