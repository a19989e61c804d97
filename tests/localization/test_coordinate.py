from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakloc.anatomy.vocabulary import segment_name, vertebra_chain
from leakloc.localization import LevelCoordinate
from leakloc.localization.coordinate import NOT_NAMED

CHAIN = vertebra_chain()


@st.composite
def coordinates(draw):
    """Bodies and most of their discs, unevenly spaced, somewhere in the spine."""
    first = draw(st.integers(0, len(CHAIN) - 2))
    count = draw(st.integers(2, len(CHAIN) - first))
    gaps = draw(st.lists(st.floats(6.0, 25.0), min_size=2 * count, max_size=2 * count))
    arc = draw(st.floats(-50.0, 100.0)) + np.cumsum(gaps)[: 2 * count - 1]
    level = first + np.arange(2 * count - 1) / 2
    keep = np.ones(len(arc), dtype=bool)
    keep[1::2] = draw(st.lists(st.booleans(), min_size=count - 1, max_size=count - 1))
    return LevelCoordinate(CHAIN, arc[keep], level[keep])


@given(coordinates())
def test_level_rises_along_the_canal_without_jumps(coordinate):
    low, high = coordinate.arc_at(np.array(coordinate.level_range))
    arc = np.linspace(low + 1e-6, high - 1e-6, 400)
    level = coordinate.level_at(arc)
    assert np.isfinite(level).all()
    assert (np.diff(level) > 0).all()
    # Half levels are at least 6 mm apart, so no step may be steeper than that.
    assert np.diff(level).max() <= (arc[1] - arc[0]) * 0.5 / 6.0 + 1e-9


@given(coordinates(), st.floats(0.0, 1.0))
def test_level_and_distance_are_inverse(coordinate, share):
    first, last = coordinate.level_range
    level = first + share * (last - first)
    assert float(coordinate.level_at(coordinate.arc_at(level))) == pytest.approx(level, abs=1e-9)


@given(coordinates(), st.floats(0.01, 0.99))
def test_each_section_between_bodies_has_their_names(coordinate, share):
    whole = coordinate.knots_level[coordinate.knots_level % 1 == 0].astype(int)
    for level in whole[:-1]:
        upper, lower = CHAIN[level], CHAIN[level + 1]
        start, stop = coordinate.body_arc(upper), coordinate.body_arc(lower)
        assert coordinate.segment_at(start + share * (stop - start)) == segment_name(upper, lower)


@given(coordinates())
def test_positions_far_from_the_last_landmarks_are_not_named(coordinate):
    first = coordinate.knots_arc_mm[0] - 60
    last = coordinate.knots_arc_mm[-1] + 60
    assert coordinate.segment_at(first) is None
    assert coordinate.segment_at(last) is None
    assert coordinate.describe(last) == NOT_NAMED
    # ... but the half segment next to the last body is.
    above = coordinate.segment_at(coordinate.knots_arc_mm[0] - 0.5)
    named = coordinate.segments()
    assert above == (named[0][0] if coordinate.knots_level[0] > 0 else None)
    assert coordinate.nearest_segment(first) == named[0][0]
    assert coordinate.nearest_segment(last) == named[-1][0]
    middle = 0.5 * sum(named[0][1:])
    assert coordinate.nearest_segment(middle) == coordinate.segment_at(middle) == named[0][0]


@given(coordinates())
def test_segments_follow_each_other_without_gaps(coordinate):
    segments = coordinate.segments()
    for (_, _, stop), (_, start, _) in itertools.pairwise(segments):
        assert stop == start
    everything = coordinate.segments_between(segments[0][1], segments[-1][2])
    assert everything == tuple(name for name, _, _ in segments)


def test_description_states_the_side_of_the_disc(spine):
    model = spine(radius_mm=160.0)
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    disc = model.disc_mm("L4-L5")
    assert coordinate.describe(disc + 6) == "L4-L5, 6 mm below the disc center"
    assert coordinate.describe(disc - 4) == "L4-L5, 4 mm above the disc center"
    assert coordinate.describe(disc) == "L4-L5, at the disc center"
    assert coordinate.describe(model.disc_mm("S1-S2")) == "S1-S2, at the junction"
    assert coordinate.body_part_at(model.body_mm("L4")) == "mid L4"
    assert coordinate.body_part_at(disc - 3) == "lower L4"
    assert coordinate.body_part_at(disc + 3) == "upper L5"
    assert coordinate.body_at(disc + 3) == "L5"


@pytest.mark.parametrize("radius_mm", [np.inf, 120.0, -120.0])
def test_a_bend_does_not_shift_bodies_along_the_canal(spine, radius_mm):
    """Bodies lie 26 mm anterior to the canal: a projection along the z axis would be off."""
    model = spine(radius_mm=radius_mm)
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    for name in model.names:
        assert coordinate.body_arc(name) == pytest.approx(model.body_mm(name), abs=0.6)
    for segment in ("L1-L2", "L5-S1", "S3-S4"):
        assert coordinate.disc_arc(segment) == pytest.approx(model.disc_mm(segment), abs=0.6)


def test_a_body_lies_halfway_between_its_discs_along_the_canal(spine):
    """The projection of its center depends on the curvature; only discs define segments."""
    from dataclasses import replace

    model = spine(radius_mm=120.0)
    levels = model.levels()
    up = np.array([0.0, 0.0, 3.0])
    moved = tuple(replace(b, center_lps=b.center_lps + up) for b in levels.vertebrae)
    coordinate = LevelCoordinate.from_levels(replace(levels, vertebrae=moved), model.centerline())
    middle = 0.5 * (coordinate.disc_arc("L3-L4") + coordinate.disc_arc("L4-L5"))
    assert coordinate.body_arc("L4") == pytest.approx(middle, abs=1e-6)


def test_a_landmark_out_of_order_is_ignored(spine):
    from dataclasses import replace

    model = spine()
    levels = model.levels()
    discs = list(levels.discs)
    wrong = replace(discs[3], center_lps=discs[6].center_lps, confidence=0.1)
    coordinate = LevelCoordinate.from_levels(
        replace(levels, discs=(*discs[:3], wrong, *discs[4:])), model.centerline()
    )
    assert coordinate.body_arc("L4") == pytest.approx(model.body_mm("L4"), abs=0.6)
    assert coordinate.disc_arc(wrong.name) == pytest.approx(
        0.5 * (model.body_mm("L3") + model.body_mm("L4")), abs=1.0
    )


def test_nothing_is_named_without_levels(spine):
    model = spine(status="unlabelled")
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    assert not coordinate.is_labeled
    assert coordinate.segment_at(100.0) is None
    assert coordinate.segments() == ()
    assert coordinate.nearest_interlaminar(100.0, 5.0) is None
    assert coordinate.body_arc("L4") is None


def test_interlaminar_windows_end_at_the_sacrum(spine):
    model = spine()
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    assert coordinate.nearest_interlaminar(model.disc_mm("L3-L4") + 5, 5.0) == "L3-L4"
    assert coordinate.nearest_interlaminar(model.disc_mm("S2-S3"), 5.0) == "L5-S1"
    # A window lies below its disc, so the middle of L4 is nearer to the one above.
    assert coordinate.nearest_interlaminar(model.body_mm("L4"), 8.0) == "L3-L4"


@pytest.mark.parametrize(
    ("names", "segment", "shift", "expected"),
    [
        (("L4", "L5", "S1"), "L4-L5", 1, "L5-S1"),
        (("L4", "L5", "S1"), "L4-L5", -1, "L3-L4"),
        (("L5", "L6", "S1"), "L5-L6", 1, "L6-S1"),
        (("L3", "L4", "S1"), "L3-L4", 1, "L4-S1"),
    ],
)
def test_other_numberings_shift_names(names, segment, shift, expected):
    from leakloc.anatomy.centerline import Centerline
    from leakloc.core.volume import Geometry, Volume
    from leakloc.levels.result import Levels, Numbering, Vertebra

    geometry = Geometry.from_axes((2, 2, 2), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    bodies = tuple(
        Vertebra(name, np.array([0.0, -20.0, -30.0 * n]), 1.0) for n, name in enumerate(names)
    )
    levels = Levels(
        "labelled",
        Numbering("sacrum_up", "five lumbar vertebrae", 0.8, 5),
        bodies,
        (),
        Volume(np.zeros((2, 2, 2), np.uint8), geometry),
    )
    line = Centerline(np.array([[0.0, 0.0, -float(z)] for z in range(100)]))
    coordinate = LevelCoordinate.from_levels(levels, line)
    assert coordinate.shifted(segment, shift) == expected
