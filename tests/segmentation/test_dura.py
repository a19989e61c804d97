"""Tests of `leakloc.segmentation.dura`."""

import numpy as np
import pytest

from leakloc.segmentation.dura import ANGLES, ARC_STEP_MM, _Frame, _head_end, sac_range

ARC_MM = np.arange(0.0, 240.0, ARC_STEP_MM)
RADIUS_MM = np.arange(0.8, 24.4, 0.5)


def frame_with(filled_mm: np.ndarray) -> _Frame:
    """Fluid out to a radius at each position along the canal."""
    angle = np.arange(ANGLES) * 2 * np.pi / ANGLES
    values = (filled_mm[:, None] >= RADIUS_MM).astype(np.float32)
    values = np.repeat(values[:, None], ANGLES, axis=1)
    return _Frame(ARC_MM, angle, RADIUS_MM, values, np.ones(values.shape, bool))


def test_the_head_ends_where_the_cisterns_have_tapered_to_the_canal() -> None:
    wide, canal = 30.0, 7.0
    filled = np.interp(ARC_MM, [50.0, 80.0], [wide, canal])
    assert _head_end(frame_with(filled), 0) == pytest.approx(79.0, abs=2.0)
    interrupted = filled.copy()
    interrupted[10:12] = 20.0  # a vessel: the widest radii are not reached everywhere
    assert _head_end(frame_with(interrupted), 0) == pytest.approx(79.0, abs=2.0)


def test_a_canal_alone_and_a_pool_farther_down_are_no_head() -> None:
    canal = np.full(len(ARC_MM), 7.0)
    assert _head_end(frame_with(canal), 0) == 0.0
    pool = np.where((ARC_MM > 120) & (ARC_MM < 150), 30.0, canal)
    assert _head_end(frame_with(pool), 0) == 0.0


def test_fluid_far_caudal_to_the_sac_is_not_joined_to_it() -> None:
    filled = np.where((ARC_MM > 80) & (ARC_MM < 190), 0.0, 7.0)
    filled[ARC_MM > 214] = 0.0
    frame = frame_with(filled)
    first, last = sac_range(frame, frame.values)
    assert (ARC_MM[first], ARC_MM[last]) == (0.0, 80.0)


def test_the_sac_is_bridged_where_no_dura_is_detected() -> None:
    filled = np.where((ARC_MM > 80) & (ARC_MM < 160), 0.0, 7.0)  # severe stenosis of two levels
    filled[ARC_MM > 200] = 0.0
    frame = frame_with(filled)
    first, last = sac_range(frame, frame.values)
    assert (ARC_MM[first], ARC_MM[last]) == (0.0, 200.0)


def test_a_short_part_caudal_to_a_gap_is_not_the_end_of_the_sac() -> None:
    gap = (ARC_MM > 120) & (ARC_MM < 135)
    filled = np.where(gap | (ARC_MM > 158), 0.0, 7.0)  # a cyst of 23 mm in the sacral canal
    frame = frame_with(filled)
    first, last = sac_range(frame, frame.values)
    assert (ARC_MM[first], ARC_MM[last]) == (0.0, 120.0)
    filled[~gap] = np.where(ARC_MM[~gap] > 174, 0.0, 7.0)  # the end of the sac
    frame = frame_with(filled)
    assert ARC_MM[sac_range(frame, frame.values)[1]] == 174.0
