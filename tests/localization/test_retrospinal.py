"""Retrospinal fluid at C1-C2 on a straight canal: excluded from the collections, no level."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import segment_name
from leakloc.core.notes import note
from leakloc.core.settings import LevelSettings, LocalizationSettings, SegmentationSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels import label
from leakloc.levels.result import Disc, Levels, Numbering, Vertebra
from leakloc.localization import (
    localize,
    measure_surgical_bed,
    without_cisterns,
    without_retrospinal,
)
from leakloc.localization.result import FALSE_LOCALIZING, RETROSPINAL_FLUID
from leakloc.segmentation import segment
from leakloc.segmentation.result import Candidate, Features, Segmentation
from tests.levels.test_real import template

GRID = Geometry.from_axes((75, 35, 31), origin_lps=(-30, -20, 0), spacing_ijk_mm=(2, 2, 2))
TOP_MM = 148.0
C2_MM = 100.0
PITCH_MM = 18.0
NAMES = tuple(f"C{n}" for n in range(2, 8))
CAUDAL_TO_C1 = GRID.cropped((slice(0, 55), slice(None), slice(None)))
SETTINGS = SegmentationSettings()
SAC_MM = 8.0


def features(**values: float) -> Features:
    usual = {"length_mm": 10.0, "thickness_mm": 6.0, "brightness": 1.0, "reach_left_mm": 12.0}
    zero = dict.fromkeys((field.name for field in fields(Features)), 0.0)
    return Features(**{**zero, **usual, **values})


def rejected(left=0.0, dorsal=14.0, above_c2=9.0, volume_ml=0.8, **values) -> Candidate:
    center = np.array([left, dorsal, C2_MM + above_c2])
    values = {"arc_start_mm": TOP_MM - C2_MM - above_c2 - 5, **values}
    return Candidate(
        0, False, 0.1, volume_ml, center, "bright", ("epidural fat",), ("paraspinal",),
        features(**values),
    )  # fmt: skip


def segmented(*candidates: Candidate, boxes=(), grid: Geometry = GRID) -> Segmentation:
    """Boxes: ranges (left, dorsal, above C2) in mm of accepted collections."""
    points = grid.lps_from_kji(np.moveaxis(np.indices(grid.shape), 0, -1))
    sac = np.hypot(points[..., 0], points[..., 1]) <= SAC_MM
    labels = np.zeros(grid.shape, np.uint8)
    found = []
    for number, box in enumerate(boxes, start=1):
        position = np.stack([points[..., 0], points[..., 1], points[..., 2] - C2_MM], axis=-1)
        inside = np.all([(position[..., n] >= a) & (position[..., n] <= b)
                         for n, (a, b) in enumerate(box)], axis=0) & ~sac  # fmt: skip
        labels[inside] = number
        volume = float(inside.sum()) * grid.voxel_volume_ml
        center = points[inside].mean(axis=0)
        found.append(
            Candidate(number, True, 0.95, volume, center, "fluid", (), ("epidural",), features())
        )
    return Segmentation(
        fluid_fraction=Volume((sac | (labels > 0)).astype(np.float32), grid),
        centerline=Centerline(np.array([[0, 0, TOP_MM], [0, 0, 60.0], [0, 0, 0.0]])),
        thecal_sac=Volume(sac.astype(np.uint8), grid),
        collections=Volume(labels, grid),
        candidates=(*found, *candidates),
        fat_suppressed=True,
        csf_signal=1000.0,
        noise=20.0,
        round_structures=(),
    )


def named(names=NAMES) -> Levels:
    bodies = tuple(
        Vertebra(name, np.array([0, -16, C2_MM - PITCH_MM * n]), 0.8)
        for n, name in enumerate(NAMES)
        if name in names
    )
    up = np.array([0.0, 0.0, 1.0])
    discs = tuple(
        Disc(segment_name(a.name, b.name), 0.5 * (a.center_lps + b.center_lps), up, 0.8)
        for a, b in pairwise(bodies)
    )
    numbering = Numbering("c2_count", "counted from C2", 0.98, 5)
    mask = Volume(np.zeros(GRID.shape, np.uint8), GRID)
    return Levels("partial" if bodies else "unlabelled", numbering, bodies, discs, mask)


def located(segmentation: Segmentation, levels: Levels | None = None):
    levels = levels or named()
    within = without_retrospinal(segmentation, levels, SETTINGS)
    return within, localize(within, levels, LocalizationSettings())


def test_a_component_behind_c1_and_c2_is_reported_without_a_level():
    _, result = located(segmented(rejected()))
    fluid = result.finding.retrospinal_c1_c2
    assert (fluid.present, fluid.side, fluid.volume_ml) == (True, "midline", 0.8)
    assert fluid.confidence == 0.8  # of the label C2
    assert fluid.center_lps_mm == pytest.approx((0, 14, C2_MM + 9))
    assert (result.finding.leak, result.finding.level) == ("indeterminate", None)
    assert RETROSPINAL_FLUID in result.finding.summary
    assert FALSE_LOCALIZING in result.finding.summary
    assert not result.collections and not result.planning.targets


@pytest.mark.parametrize(("left", "side"), [(6.0, "left"), (-6.0, "right")])
def test_side(left, side):
    assert located(segmented(rejected(left)))[1].finding.retrospinal_c1_c2.side == side


@pytest.mark.parametrize(
    "changed",
    [
        {"dorsal": -14.0},
        {"left": 18.0, "dorsal": 9.0},  # lateral: root sleeve of C2
        {"above_c2": -20.0},  # C3
        {"above_c2": 34.0},  # posterior to the foramen magnum
        {"brightness": 0.6},
        {"thickness_mm": 1.5},
        {"length_mm": 90.0},
        {"reach_left_mm": 40.0},
        {"volume_ml": 0.2},
        {"arc_start_mm": TOP_MM - C2_MM - 30},  # continuous with the cisterna magna
    ],
)
def test_other_components_are_not_retrospinal_fluid(changed):
    found = segmented(rejected(**changed))
    within, result = located(found)
    assert within is found
    assert result.finding.retrospinal_c1_c2.present is False
    assert result.finding.leak == "absent"


BEHIND = ((-10, 10), (10, 20), (0, 16))
CERVICAL = ((-6, 6), (-14, 0), (-80, -40))


def test_a_collection_at_c1_c2_is_excluded_and_the_others_keep_their_level():
    found = segmented(boxes=(BEHIND, CERVICAL))
    within, result = located(found)
    (alone,) = located(segmented(boxes=(CERVICAL,)))[1].collections
    (kept,) = result.collections
    assert kept == alone
    np.testing.assert_array_equal(within.collections.array, found.collections.array == 2)
    assert result.finding.leak == "present"
    assert result.finding.level == alone.level
    fluid = result.finding.retrospinal_c1_c2
    assert fluid.present and fluid.volume_ml == pytest.approx(found.candidates[0].volume_ml)


def test_the_largest_section_at_c1_c2_does_not_lead_the_level():
    """A dorsal layer to C7 in the same collection as thick fluid behind C1 and C2."""
    layer = ((-6, 6), (0, 11), (-80, 4))
    found = segmented(boxes=(layer, BEHIND))
    labels = np.minimum(found.collections.array, 1)
    volume = float(labels.sum()) * GRID.voxel_volume_ml
    whole = replace(found.candidates[0], volume_ml=volume)
    joined = replace(found, collections=found.collections.with_array(labels), candidates=(whole,))
    within, result = located(joined)
    (kept,) = result.collections
    fluid = result.finding.retrospinal_c1_c2
    assert fluid.present
    assert kept.volume_ml + fluid.volume_ml == pytest.approx(volume, abs=0.001)
    assert kept.level in ("C2-C3", "C3-C4", "C4-C5", "C5-C6")
    assert kept.segments[0] == "C1-C2" and "C1-C2" not in kept.level_set
    points = GRID.lps_from_kji(np.argwhere(within.collections.array > 0))
    high = points[points[:, 2] > C2_MM]
    assert high[:, 1].max() < 10  # only fluid in the canal is left at C1-C2
    unnamed = located(joined, named(NAMES[1:]))[1].collections[0]
    assert kept.max_area_mm2 < 0.5 * unnamed.max_area_mm2


def test_the_neck_of_retrospinal_fluid_is_excluded_with_it():
    neck = ((-2, 2), (0, 9), (6, 10))
    layer = ((-6, 6), (0, 11), (-80, -6))
    found = segmented(boxes=(layer, neck, BEHIND))
    labels = np.minimum(found.collections.array, 1)
    joined = replace(
        found, collections=found.collections.with_array(labels), candidates=found.candidates[:1]
    )
    within, result = located(joined)
    np.testing.assert_array_equal(within.collections.array, found.collections.array == 1)
    assert "C1-C2" not in result.collections[0].segments


@pytest.mark.parametrize(
    ("caudal", "level"), [(((-6, 6), (-16, 0), (-48, -40)), "C4-C5"), (None, "C1-C2")]
)
def test_fluid_anterior_at_c1_c2_leads_the_level_only_on_its_own(caudal, level):
    upper = ((-12, 12), (-18, 0), (4, 16))
    found = segmented(boxes=(upper, caudal) if caudal else (upper,))
    labels = np.minimum(found.collections.array, 1)
    joined = replace(
        found, collections=found.collections.with_array(labels), candidates=found.candidates[:1]
    )
    (kept,) = located(joined)[1].collections
    assert kept.level == level


def test_the_subarachnoid_space_below_the_cisterna_magna_is_not_retrospinal_fluid():
    within, result = located(segmented(boxes=(((-12, 12), (8, 18), (0, 40)), CERVICAL)))
    assert result.finding.retrospinal_c1_c2.present is False
    assert [c.id for c in result.collections] == [1]
    assert result.collections[0].position.ventral > 0.5
    assert "basal cistern" in within.candidates[-1].mimics


@pytest.mark.data
@pytest.mark.slow
def test_the_template_of_healthy_adults_has_neither_retrospinal_fluid_nor_a_collection():
    """PAM50: the dorsal subarachnoid space at C1 is a component of 7.3 mL outside the sac."""
    volume, _ = template()
    spine = Spine(volume)
    found = segment(spine, {}, SETTINGS)
    levels = label(spine, {}, found, LevelSettings())
    within, result = located(without_cisterns(found, levels), levels)
    assert result.finding.retrospinal_c1_c2.present is False
    assert not result.collections
    assert len(within.accepted) < len(found.accepted)


def test_a_longitudinal_collection_that_reaches_the_foramen_magnum_is_unchanged():
    found = segmented(boxes=(((-6, 6), (0, 14), (-80, 40)),))
    within, _ = located(found)
    assert within is found


def test_a_study_without_a_myelogram_is_not_assessed():
    within = without_retrospinal(segmented(rejected()), named(), SETTINGS)
    notes = (note("no_myelogram", identification="", fat=""),)
    result = localize(within, named(), LocalizationSettings(), input_notes=notes)
    fluid = result.finding.retrospinal_c1_c2
    assert fluid.present is None and "myelogram" in fluid.not_assessed
    assert RETROSPINAL_FLUID not in result.finding.summary


def test_a_cervical_collection_below_c2_is_unchanged():
    found = segmented(boxes=(CERVICAL,))
    within, result = located(found)
    assert within is found
    assert result.finding.retrospinal_c1_c2.present is False
    assert RETROSPINAL_FLUID not in result.finding.summary


@pytest.mark.parametrize(
    ("found", "levels", "reason"),
    [
        (segmented(), named(()), "levels are not named"),
        (segmented(rejected()), named(NAMES[1:]), "C2 is not named"),
        (segmented(grid=CAUDAL_TO_C1), named(), "field of view"),
        (replace(segmented(rejected()), round_structures=None), named(), "as bright as fluid"),
    ],
)  # fmt: skip
def test_not_assessed(found, levels, reason):
    _, result = located(found, levels)
    fluid = result.finding.retrospinal_c1_c2
    assert (fluid.present, fluid.volume_ml, fluid.confidence) == (None, None, 0.0)
    assert reason in fluid.not_assessed
    assert result.finding.leak == "absent"


def test_the_extension_of_a_collection_into_the_retrospinal_space_is_not_reported():
    layer = ((-6, 6), (0, 11), (-80, 4))
    found = segmented(boxes=(layer, BEHIND))
    labels = np.minimum(found.collections.array, 1)
    whole = replace(found.candidates[0], compartments=("epidural", "paraspinal"))
    joined = replace(found, collections=found.collections.with_array(labels), candidates=(whole,))
    bed = measure_surgical_bed(joined, None)
    within = without_retrospinal(joined, named(), SETTINGS)
    result = localize(within, named(), LocalizationSettings(), bed=bed)
    assert bed.extensions and not result.postoperative.extensions
    assert result.collections[0].compartments == ("epidural",)
    kept = localize(joined, named(), LocalizationSettings(), bed=bed)
    assert kept.postoperative.extensions
