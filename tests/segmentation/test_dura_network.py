"""The dura network: its input, what its probabilities mean, and that it knows a canal."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.errors import LeaklocError
from leakloc.segmentation import dura_network
from leakloc.segmentation.dura_network import (
    ANGLES,
    NO_PRIOR,
    OUTSIDE_FIELD,
    OVERLAP_RAYS,
    RADII,
    RADIUS_START_MM,
    RADIUS_STEP_MM,
    boundary_cost,
    dura_probabilities,
    network_input,
)

RADIUS_MM = RADIUS_START_MM + RADIUS_STEP_MM * np.arange(RADII)


def ring(edge_mm: float, arcs: int = 12) -> np.ndarray:
    """A tube of CSF whose edge cuts through the bins by partial volume."""
    filled = np.clip((edge_mm - RADIUS_MM) / RADIUS_STEP_MM + 0.5, 0, 1)
    return np.broadcast_to(filled, (arcs, ANGLES, RADII)).astype(np.float32)


@pytest.mark.parametrize("edge_mm", [3.3, 5.8, 8.3])
def test_the_cheapest_boundary_is_the_edge(edge_mm: float) -> None:
    cost = boundary_cost(ring(edge_mm))
    assert RADIUS_MM[cost[0, 0].argmin()] == pytest.approx(edge_mm, abs=1e-6)
    assert cost.min() == 0.0


def test_input_closes_the_ring_and_marks_the_field() -> None:
    rng = np.random.default_rng(0)
    signal = rng.random((13, ANGLES, RADII)).astype(np.float32)
    in_field = np.ones(signal.shape, bool)
    in_field[3, 5, 7] = False
    planes = network_input(signal, in_field, None)
    assert planes.shape == (3, 16, ANGLES + 2 * OVERLAP_RAYS, RADII)
    np.testing.assert_array_equal(planes[0, :, :OVERLAP_RAYS], planes[0, :, ANGLES:-OVERLAP_RAYS])
    assert (planes[1] == NO_PRIOR).all()
    assert planes[0, 3, OVERLAP_RAYS + 5, 7] == np.float32(OUTSIDE_FIELD)


def test_network_sees_a_sac_and_the_fluid_behind_it() -> None:
    signal = ring(7.0, arcs=40).copy()
    behind = slice(ANGLES // 4 - 6, ANGLES // 4 + 7)
    signal[10:30, behind] = np.maximum(signal[10:30, behind], ring(11.0)[:1, :1])
    line = np.abs(RADIUS_MM - 7.2) < 0.3
    signal[10:30, behind, line] = 0.5
    inside, outside = dura_probabilities(signal, np.ones(signal.shape, bool))
    assert inside[20, :, RADIUS_MM < 6.0].mean() > 0.9
    assert inside[20, :, RADIUS_MM > 12.0].mean() < 0.05
    beyond = (RADIUS_MM > 8.4) & (RADIUS_MM < 10.5)
    assert inside[20, behind][:, beyond].mean() < 0.3
    assert outside[20, behind][:, beyond].mean() > 0.6
    assert outside[20, : ANGLES // 8].max() < 0.3


def test_missing_weights_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(dura_network, "MODEL_PATH", tmp_path / "dura.onnx")
    signal = ring(7.0)
    with pytest.raises(LeaklocError, match="weights of the dura network"):
        dura_probabilities(signal, np.ones(signal.shape, bool))
