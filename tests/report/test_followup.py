"""Figures of two studies in the same planes."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.core.volume import Geometry
from leakloc.report import build_report
from leakloc.report.compare import compare
from leakloc.report.followup import followup_pictures, same_level
from leakloc.report.views import StudyView


@pytest.fixture(scope="module")
def later(analysis, make_synthetic):
    """The same anatomy on a displaced, coarser grid, without fluid."""
    grid = analysis.triage.myelogram.geometry
    affine = grid.affine_lps.copy()
    affine[:3, 3] += [3.0, -4.0, 6.0]
    affine[:3, 0] *= 1.15
    return make_synthetic(Geometry(grid.shape, affine), leak=False)


@pytest.fixture(scope="module")
def pair(analysis, later):
    return analysis, later


def test_a_level_is_the_same_place_in_both_studies(pair):
    views = StudyView(pair[0]), StudyView(pair[1])
    for arc in (40.0, 90.0, 130.0):
        match = same_level(views, 0, arc)
        one, two = (v.centerline.at(a) for v, a in zip(views, match.arcs_mm, strict=True))
        assert np.linalg.norm(one - two) < 0.5  # the anatomy has not moved
        back = same_level(views, 1, match.arcs_mm[1])
        assert back.arcs_mm == pytest.approx(match.arcs_mm)


def test_other_names_are_other_places(pair):
    first, second = pair
    vertebrae = tuple(
        replace(v, name=n)
        for v, n in zip(second.levels.vertebrae, ("T12", "L1", "L2", "L3", "L4", "L5"), strict=True)
    )
    discs = ()
    renamed = replace(second, levels=replace(second.levels, vertebrae=vertebrae, discs=discs))
    views = StudyView(first), StudyView(renamed)
    match = same_level(views, 0, views[0].coordinate.body_arc("L3"))
    there = views[1].centerline.at(match.arcs_mm[1])
    assert there[2] == pytest.approx(-23.0, abs=5.0)  # the body called L4 in the first study


def test_both_panels_have_the_same_field_and_scale(pair):
    reports = tuple(build_report(a) for a in pair)
    pictures = followup_pictures(pair, compare(*reports))
    assert [p.kind for p in pictures] == ["sagittal", "axial", "axial"]
    sagittal, axial, _ = pictures
    assert "L4-L5" in axial.alt
    for picture in (sagittal, axial):
        assert "earlier study on the left" in picture.alt
        half = picture.rgb.shape[1] // 2
        body = picture.rgb[picture.title_px :].astype(int)
        orange = (body[..., 0] > 200) & (body[..., 2] < 60)
        left, right = orange[:-60, :half].sum(), orange[:-60, half:].sum()
        assert left > 50  # fluid is outlined only in the earlier study
        assert right < left / 5


def test_studies_without_a_common_level_have_no_figures(analysis, later):
    unnamed = replace(
        later, levels=replace(later.levels, status="unlabelled", vertebrae=(), discs=())
    )
    reports = build_report(analysis), build_report(unnamed)
    assert followup_pictures((analysis, unnamed), compare(*reports)) == ()
