"""Matching of true and reported structures in the benchmark of root structures."""

import numpy as np
import pytest

from leakloc.core.volume import Geometry
from leakloc.localization.result import RootDiverticulum
from leakloc.validation.phantom.truth import TrueRootStructure
from tests.benchmarks.test_numbering import load


@pytest.fixture(scope="module")
def benchmark_script():
    return load("root_structures")


def true_at(x_mm, root="L3"):
    return TrueRootStructure("root_diverticulum", root, "left", 6.0, 5.5, np.array([x_mm, 0, 0]))


def reported_at(x_mm):
    return RootDiverticulum(
        root="L3", side="left", max_diameter_mm=6.0, volume_ml=0.1,
        center_lps_mm=np.array([x_mm, 0, 0]), sac_distance_mm=1.0,
    )  # fmt: skip


def test_structures_match_by_distance_inside_the_field_of_view(benchmark_script):
    geometry = Geometry.from_axes(
        (40, 40, 40), origin_lps=(-20, -20, -20), spacing_ijk_mm=(1, 1, 1)
    )
    true = [true_at(0.0), true_at(15.0, root="L4"), true_at(30.0)]
    structures, false_mm = benchmark_script.compare(
        true, [reported_at(-3.0), reported_at(-15.0)], geometry
    )
    assert [(s.root, s.found_mm is not None) for s in structures] == [("L3", True), ("L4", False)]
    assert false_mm == (6.0,)
