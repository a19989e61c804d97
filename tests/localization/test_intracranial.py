from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.result import Levels, Numbering, Vertebra
from leakloc.localization import without_cisterns
from leakloc.segmentation.result import Candidate, Features, Segmentation

GRID = Geometry.from_axes((60, 20, 20), origin_lps=(-20, -20, 0), spacing_ijk_mm=(2, 2, 2))
C2_HEIGHT_MM = 60.0


def candidate(number: int, height_mm: float) -> Candidate:
    center = np.array([0.0, 0.0, height_mm])
    return Candidate(number, True, 0.9, 2.0, center, "bright", (), ("epidural",))


@pytest.fixture
def segmentation() -> Segmentation:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[50:55] = 1  # about 105 mm: a cistern
    labels[5:10] = 2  # about 15 mm: in the spine
    fluid = Volume((labels > 0).astype(np.float32), GRID)
    line = Centerline(np.array([[0, 0, 118.0], [0, 0, 60.0], [0, 0, 0.0]]))
    found = (candidate(1, 105.0), candidate(2, 15.0))
    sac = Volume(np.zeros(GRID.shape, np.uint8), GRID)
    return Segmentation(fluid, line, sac, Volume(labels, GRID), found, True, 1000.0, 20.0)


@pytest.fixture
def levels() -> Levels:
    numbering = Numbering("c2_count", "counted from C2", 0.98, 5)
    axis = Vertebra("C2", np.array([0.0, -15.0, C2_HEIGHT_MM]), 0.9)
    mask = Volume(np.zeros(GRID.shape, np.uint8), GRID)
    return Levels("partial", numbering, (axis,), (), mask)


def features_from(arc_start_mm: float) -> Features:
    values = dict.fromkeys((field.name for field in fields(Features)), 0.0)
    return Features(**{**values, "arc_start_mm": arc_start_mm})


def test_cisterns_are_rejected_and_the_others_renumbered(segmentation, levels):
    kept = without_cisterns(segmentation, levels)
    assert [c.center_lps[2] for c in kept.accepted] == [15.0]
    assert [c.id for c in kept.accepted] == [1]
    np.testing.assert_array_equal(kept.collections.array, segmentation.collections.array == 2)
    rejected = next(c for c in kept.candidates if not c.accepted)
    assert "foramen magnum" in rejected.reason
    assert "basal cistern" in rejected.mimics


def test_fluid_behind_c1_and_c2_stays(segmentation, levels):
    near = replace(segmentation, candidates=(candidate(1, C2_HEIGHT_MM + 25), candidate(2, 15.0)))
    assert len(without_cisterns(near, levels).accepted) == 2


@pytest.mark.parametrize(("reach_mm", "kept"), [(30.0, 2), (45.0, 1)])
def test_what_goes_through_the_foramen_magnum_is_rejected(segmentation, levels, reach_mm, kept):
    start = 118.0 - C2_HEIGHT_MM - reach_mm  # the centerline starts at 118 mm
    near = replace(candidate(1, C2_HEIGHT_MM + 25), features=features_from(start))
    found = replace(segmentation, candidates=(near, candidate(2, 15.0)))
    assert len(without_cisterns(found, levels).accepted) == kept


def test_a_cervical_collection_that_reaches_c1_stays(segmentation, levels):
    long = replace(candidate(1, C2_HEIGHT_MM - 20), features=features_from(5.0))
    found = replace(segmentation, candidates=(long, candidate(2, 15.0)))
    assert len(without_cisterns(found, levels).accepted) == 2


def test_without_c2_nothing_changes(segmentation, levels):
    assert without_cisterns(segmentation, replace(levels, vertebrae=())) is segmentation
