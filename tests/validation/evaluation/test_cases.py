from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakloc.core.errors import GeometryError
from leakloc.core.volume import Geometry, Volume
from leakloc.validation.evaluation.annotation import (
    AnnotatedCollection,
    Annotation,
    annotation_from_fluid,
    read_case,
)
from leakloc.validation.evaluation.cases import compare, failed_case
from leakloc.validation.evaluation.cohort import Cohort

from .conftest import GRID, box


@pytest.fixture
def truth(truth_folder):
    return read_case(truth_folder)


def reported(truth, **changes):
    """Return a perfect report, except for the changes to its collection."""
    true = truth.collections[0]
    reported = AnnotatedCollection(
        id=1, volume_ml=true.volume_ml, level=true.level, segments=true.segments,
        cranial_lps=true.cranial_lps, caudal_lps=true.caudal_lps, path_mm=true.path_mm,
        confidence=0.9,
    )  # fmt: skip
    return replace(truth, collections=(replace(reported, **changes),), numbering_confidence=0.8)


def test_perfect_result_is_perfect(truth):
    case = compare(reported(truth), truth)
    assert (case.sac_dice, case.fluid_dice) == (1.0, 1.0)
    assert case.sac_hd95_mm == case.fluid_assd_mm == case.fluid_volume_error == 0.0
    assert (case.true_collections, case.detected_collections, case.false_positive_collections) == (
        1,
        1,
        0,
    )
    assert (case.levels_exact, case.levels_within_one, case.extent_error_mm) == (1, 1, 0.0)
    assert (case.vertebrae_correct, case.vertebrae_true) == (1, 1)
    assert case.segments_true == case.segments_detected == ("L3-L4",)
    assert case.confidences == (0.9,)
    assert case.detections_correct == (True,)


@pytest.mark.parametrize(("level", "exact", "within"), [("L4-L5", 0, 1), ("L5-S1", 0, 0)])
def test_incorrect_level_is_counted_in_steps(truth, level, exact, within):
    case = compare(reported(truth, level=level), truth)
    assert (case.levels_exact, case.levels_within_one) == (exact, within)


def test_extent_error_adds_both_ends(truth):
    moved = reported(truth, cranial_lps=np.array([0, 10, 34.0]), caudal_lps=np.array([0, 10, -7.0]))
    case = compare(moved, truth)
    assert case.extent_error_mm == pytest.approx(12.0)
    assert case.extent_error_levels == pytest.approx(12.0 / 30.0)


def test_path_error(truth):
    assert compare(reported(truth, path_mm=113.0), truth).path_error_mm == pytest.approx(7.0)
    assert np.isnan(compare(reported(truth, path_mm=None), truth).path_error_mm)


def test_landmarks_in_the_field_are_compared(truth):
    inside, outside = truth.thecal_sac.geometry.center_lps, np.array([0.0, 0.0, 1e4])
    true = replace(truth, hiatus_lps=outside, conus_lps=inside)
    found = replace(reported(truth), conus_lps=np.add(inside, (3.0, 0.0, -4.0)), hiatus_lps=None)
    case = compare(found, true)
    assert (case.hiatus_in_field, case.conus_in_field) == (False, True)
    assert np.isnan(case.hiatus_error_mm)
    assert case.conus_error_mm == pytest.approx(4.0)
    text = Cohort((case, compare(replace(found, conus_lps=None), true))).to_text()
    assert "conus detected in 1/2 that show it, 1/1 within 6 mm" in text
    assert "hiatus" not in text


def test_missed_collection_has_the_fields_diagonal(truth):
    nothing = replace(
        truth, fluid=truth.fluid.with_array(truth.fluid.array * 0), fluid_ml=0.0, collections=()
    )
    case = compare(nothing, truth)
    assert case.fluid_dice == 0.0
    assert case.fluid_hd95_mm == pytest.approx(np.hypot(np.hypot(24, 36), 120))
    assert not case.fluid_distance_defined
    assert case.fluid_volume_error == -1.0
    assert case.true_detected == (False,)


def test_false_positives_of_a_mask_count_from_half_a_milliliter(truth):
    extra = truth.fluid.array.copy()
    extra[2:5, 2:9, 0:9] = 2  # 0.68 mL
    extra[37, 1, 1] = 3  # 0.004 mL
    case = compare(annotation_from_fluid("", truth.fluid.with_array(extra)), truth)
    assert case.false_positive_collections == 1
    assert case.detected_collections == 1


def test_collections_of_a_report_count_at_any_size(truth):
    extra = truth.fluid.array.copy()
    extra[37, 1, 1] = 2
    base = reported(truth)
    speck = AnnotatedCollection(id=2, volume_ml=0.004, confidence=0.6)
    report = replace(
        base, fluid=truth.fluid.with_array(extra), collections=(*base.collections, speck)
    )
    case = compare(report, truth)
    assert case.false_positive_collections == 1
    assert case.detections_correct == (True, False)


def test_other_grid_is_refused_with_the_fix(truth):
    finer = GRID.with_spacing((0.5, 0.6, 1.5))
    found = Annotation("", thecal_sac=truth.thecal_sac.resample(finer, order=0))
    with pytest.raises(GeometryError, match=r"another grid .*--resample"):
        compare(found, truth)
    assert compare(found, truth, resample=True).sac_dice > 0.9


def test_other_order_of_axes_is_the_same_grid(truth):
    found = Annotation("", thecal_sac=truth.thecal_sac.oriented("PIR"))
    assert compare(found, truth).sac_dice == 1.0


@settings(max_examples=15, deadline=None)
@given(
    st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 4)
)
def test_storage_order_of_a_mask_does_not_change_metrics(order, flips, shift):
    codes = "".join(
        "LPS"[n] if not flip else "RAI"[n] for n, flip in zip(order, flips, strict=True)
    )
    true = box(slice(10, 30), slice(6, 20), slice(4, 15))
    moved = true.with_array(np.roll(true.array, shift, axis=0))
    as_is = compare(annotation_from_fluid("", moved), annotation_from_fluid("", true))
    stored = compare(
        annotation_from_fluid("", moved.oriented(codes)), annotation_from_fluid("", true)
    )
    assert stored.fluid_dice == as_is.fluid_dice == pytest.approx(1 - shift / 20)
    assert stored.fluid_hd95_mm == pytest.approx(as_is.fluid_hd95_mm)
    assert stored.fluid_detected_ml == pytest.approx(as_is.fluid_detected_ml)


def test_ras_written_as_lps_is_named(truth):
    mirrored = Geometry(GRID.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.affine_lps)
    found = Annotation("", thecal_sac=Volume(truth.thecal_sac.array, mirrored))
    with pytest.raises(GeometryError, match=r"mirrored .*np\.diag\(\[-1, -1, 1, 1\]\)"):
        compare(found, truth)


def test_lost_affine_is_named(truth):
    identity = Geometry.from_axes(
        GRID.shape, origin_lps=(500, 500, 500), spacing_ijk_mm=GRID.spacing_ijk_mm
    )
    found = Annotation("", thecal_sac=Volume(truth.thecal_sac.array, identity))
    with pytest.raises(GeometryError, match="saved without the affine"):
        compare(found, truth)


def test_leak_free_case_has_no_dice(truth_folder):
    free = Annotation("", fluid=box(), fluid_ml=0.0, leak="absent")
    case = compare(free, free)
    assert np.isnan(case.fluid_dice)
    assert case.leak_true == case.leak_reported == "absent"


def test_failed_case_includes_the_truth(truth):
    case = failed_case(truth, "a", "no canal")
    assert (case.leak_true, case.leak_reported, case.refusal_correct) == (
        "present",
        "refused",
        False,
    )
    assert case.row()["sac_dice"] is None
    assert (case.true_collections, case.detected_collections) == (1, 0)
    assert failed_case(truth, "a", "slabs only", refusal_correct=True).true_collections == 0
