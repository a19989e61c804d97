"""Tests of `leakloc.segmentation.dura`."""

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.dura import (
    ANGLES,
    ARC_STEP_MM,
    _field_edge,
    _Frame,
    _head_end,
    _sac_area,
    _straight_in_head,
    sac_range,
)

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
    assert ARC_MM[_head_end(frame_with(filled))] == pytest.approx(79.0, abs=2.0)
    interrupted = filled.copy()
    interrupted[10:12] = 20.0  # a vessel: the widest radii are not reached everywhere
    assert ARC_MM[_head_end(frame_with(interrupted))] == pytest.approx(79.0, abs=2.0)


def test_a_short_head_ends_at_the_foramen_magnum_not_in_a_wide_canal() -> None:
    filled = np.interp(ARC_MM, [0.0, 14.0, 50.0, 80.0], [24.0, 11.5, 9.0, 7.0])
    assert ARC_MM[_head_end(frame_with(filled))] == 14.0


def test_a_canal_alone_and_a_pool_farther_down_are_no_head() -> None:
    canal = np.full(len(ARC_MM), 7.0)
    assert _head_end(frame_with(canal)) == 0
    pool = np.where((ARC_MM > 120) & (ARC_MM < 150), 30.0, canal)
    assert _head_end(frame_with(pool)) == 0


@pytest.mark.parametrize("directions", [slice(6, 19), slice(0, 13), slice(13, 36)])
def test_a_collection_at_the_upper_edge_is_no_head(directions: slice) -> None:
    """It is dorsal, on the left, or on the right: not wider than the canal on both sides."""
    frame = frame_with(np.full(len(ARC_MM), 7.0))
    frame.values[:8, directions] = 1.0
    assert _head_end(frame) == 0


def test_the_canal_is_continued_straight_through_the_cisterns() -> None:
    geometry = Geometry.from_axes(
        (240, 60, 60), origin_lps=(-29.5, -29.5, -239.0), spacing_ijk_mm=(1, 1, 1)
    )
    k, j, i = np.indices(geometry.shape)
    x, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([i, j, k], axis=-1)), -1, 0)
    wide = np.clip(z + 20.0, 0.0, None)
    inside = np.hypot(x / (8.0 + wide), y / (7.0 + 0.5 * wide)) < 1
    signal = Volume(inside.astype(np.float32), geometry)
    height = np.arange(0.0, -238.0, -1.0)
    left = np.clip(height + 22.0, 0.0, None)  # to the edge of the cisterns
    skewed = Centerline(np.stack([left, 0 * height, height], axis=-1))
    line, frame, head = _straight_in_head(signal, skewed)
    assert np.abs(line.points_lps[:, 0]).max() < 1.0
    foramen = line.at(frame.arc_mm[head])
    assert foramen[2] == pytest.approx(-20.0, abs=2.0)


def test_a_sac_is_continued_beyond_the_field_but_not_its_end() -> None:
    frame = frame_with(np.full(len(ARC_MM), 7.0))
    frame.values[100:] = 0.0
    frame.inside[100:] = False
    frame.values[98:, :24] = 0.0
    frame.inside[98:, :24] = False  # an oblique edge
    assert _field_edge(frame, _sac_area(frame, frame.values), is_cut=False) == 98
    beyond = frame.continued(98)
    assert beyond.inside.all() and (beyond.values[98:] == frame.values[97]).all()
    frame.values[95:] = 0.0  # the sac ends cranial to the edge
    assert _field_edge(frame, _sac_area(frame, frame.values), is_cut=False) is None
    assert _field_edge(frame, _sac_area(frame, frame.values), is_cut=True) == 98


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
