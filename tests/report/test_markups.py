"""Markups for 3D Slicer."""

import json

import numpy as np
import pytest

from leakloc.pipeline import Analysis
from leakloc.report import Report, build_report
from leakloc.report.markups import markup_files


@pytest.fixture(scope="module")
def report(analysis: Analysis) -> Report:
    return build_report(analysis)


def read(report: Report, name: str) -> tuple[dict, dict[str, list[float]]]:
    """The markup of a file, and its points by label."""
    content = json.loads(markup_files(report)[name])
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    (markup,) = content["markups"]
    assert markup["coordinateSystem"] == "LPS"
    assert "not a medical device" in markup["description"]
    points = markup["controlPoints"]
    assert len({point["id"] for point in points}) == len(points)
    return markup, {point["label"]: point["position"] for point in points}


def test_levels_are_points(report: Report) -> None:
    markup, points = read(report, "levels.mrk.json")
    assert markup["type"] == "Fiducial"
    parts = (*report.levels.vertebrae, *report.levels.discs)
    assert points == {part.name: list(part.center_lps_mm) for part in parts}


def test_collections_have_epicenter_and_ends(report: Report) -> None:
    _, points = read(report, "collections.mrk.json")
    first = report.collections[0]
    assert points["Fluid 1 epicenter"] == list(first.epicenter_lps_mm)
    assert points["Fluid 1 cranial end"] == list(first.extent.cranial.lps_mm)
    assert points["Fluid 1 caudal end"] == list(first.extent.caudal.lps_mm)
    assert not any("iatus" in label for label in points)  # unknown in this study


def test_path_is_a_curve(report: Report) -> None:
    markup, _ = read(report, "path-1.mrk.json")
    assert markup["type"] == "Curve"
    path = [point["position"] for point in markup["controlPoints"]]
    np.testing.assert_array_equal(path, report.planning.targets[0].path_lps_mm)


def test_study_without_fluid_has_levels_only(leakless: Analysis) -> None:
    assert set(markup_files(build_report(leakless))) == {"levels.mrk.json"}
