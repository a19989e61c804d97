"""Benchmark of the measurements on other series."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.validation.phantom import SCENARIOS, make_phantom
from tests.benchmarks.test_numbering import load


@pytest.fixture(scope="module")
def companions():
    return load("companions")


def test_values_that_were_not_measured_are_counted_separately(companions):
    assert companions.counted([True, False, None, True]) == "2 of 3 (1 not measured)"
    assert companions.counted([]) == "0 of 0"


def test_cases_have_collections_of_their_tissue_and_one_suppressed_series(companions):
    for case in companions.CASES:
        scenario = companions.scenario_of(case)
        assert all(spec.tissue == case.tissue for spec in scenario.collections)
        assert {"stir_sagittal", "t2_fs_sagittal"} & {*scenario.series} == {case.suppressed}


def test_epidural_fat_is_posterior_to_the_sac(companions):
    case = next(case for case in companions.CASES if case.scenario == "normal")
    subject = make_phantom(replace(companions.scenario_of(case), myelogram_shape=(96, 64, 24),
                                   voxel_mm=2.5, slice_mm=2.5), case.seed)  # fmt: skip
    grid = subject.myelogram_geometry()
    sac = subject.masks(grid).thecal_sac.array >= 0.5
    fat = companions.epidural_fat(subject, grid, sac)
    assert (fat >= companions.MIN_FAT).any()
    points = grid.lps_from_kji(np.argwhere(fat > 0.5))
    _, left, dorsal = subject.body.anatomy.centerline.project(points)
    assert (dorsal > np.abs(left) - 1.0).all()
    assert not (sac & (fat > 0.5)).any()


def test_interruptions_elsewhere_count_as_false(companions, capsys):
    row = companions.MeasuredDura(
        "scoliosis", 55, 0.0, True, True, 1.0, 0.7, 0.9, 300, 20, None, 5.0, 4.5, True
    )
    elsewhere = replace(row, is_there=False)
    none = replace(row, found_mm=None, is_there=None)
    fat = replace(none, scenario="normal", gap_mm=None, confirms=False)
    companions.print_dura([row, elsewhere, none, fat])
    printed = capsys.readouterr().out
    assert "detected 1 of 3, error of the width [-0.5] mm; false interruptions 1 of 4" in printed
    assert "fat: bright 1 of 1, confirmed 0 of 1" in printed


def test_a_cropped_grid_contains_the_collection(companions):
    subject = make_phantom(companions.phantom.compact(SCENARIOS["scoliosis"]), 41)
    geometry = subject.myelogram_geometry()
    part = companions.cropped(geometry, subject)
    (collection,) = subject.truth.collections
    for point in (collection.cranial_lps, collection.caudal_lps, collection.epicenter_lps):
        assert part.contains(point)
    assert np.prod(part.shape) < 0.5 * np.prod(geometry.shape)
