"""What each series contributed, and that a series listed as used changes the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leakloc.analysis import Landmarks, SeriesSelection
from leakloc.levels.search import SpineDetection
from leakloc.loaders import load
from leakloc.localization.result import MyelogramAgreement
from leakloc.pipeline import analyze
from leakloc.report.usage import usage_of
from leakloc.validation.phantom import SCENARIOS, compact, make_phantom, write_study
from tests.report.test_text import COMPANIONS

RESULTS = ("levels", "thecal_sac", "collections", "fluid_by_segment", "planning", "finding")


def selection(role, *, is_fluid=False, is_companion=True, has_other=False):
    return SeriesSelection(role, is_fluid, is_companion, has_other)


def usage(analysis, chosen, *sources, sacral_roles=()):
    """Usage of a series if discs were detected on the series of these roles."""
    detection = SpineDetection((), (), (), (), sources=sources) if sources else None
    landmarks = Landmarks(None, None, sacral_roles, ())
    levels = replace(analysis.levels, detection=detection)
    return usage_of(chosen, levels, analysis.localization, landmarks)


def test_the_series_on_which_discs_were_detected(analysis):
    used = usage(analysis, selection("sagittal_t2"), "sagittal_t2")
    assert used == (("levels",), "discs")


def test_a_companion_without_a_contribution(analysis):
    used = usage(analysis, selection("sagittal_stir"), "sagittal_t2", "myelogram")
    assert used == ((), "none: discs were detected on the sagittal T2 and myelogram")


def test_the_myelogram_alone_is_used_for_both(analysis):
    chosen = selection("myelogram", is_fluid=True, is_companion=False)
    used = usage(analysis, chosen, "myelogram")
    assert used == (("fluid", "levels"), "epidural fluid and thecal sac, discs")


def test_the_conus_on_the_myelogram(analysis):
    chosen = selection("myelogram", is_fluid=True, is_companion=False)
    used = usage(analysis, chosen, "sagittal_t2", "myelogram")
    assert used.contribution == "epidural fluid and thecal sac, conus"


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (selection("projection", is_companion=False), "no depth"),
        (selection("axial_t2"), "no collection large enough"),
        (selection("myelogram", is_companion=False), "another myelogram"),
        (selection("sagittal_t2", is_companion=False, has_other=True), "another series"),
        (selection("sagittal_t2", is_companion=False), "not selected, or not registered"),
    ],
)
def test_reason_for_no_contribution(analysis, chosen, reason):
    used = usage(analysis, chosen, "myelogram")
    assert used.used_for == () and used.contribution.startswith("none: ")
    assert reason in used.contribution


def test_supplied_levels_use_no_series(analysis):
    assert "supplied by the user" in usage(analysis, selection("sagittal_t2")).contribution


def with_parts(analysis, agreement=None, **parts):
    """The analysis with parts of other series in its first collection."""
    first, *others = analysis.localization.collections
    finding = analysis.localization.finding.model_copy(update={"second_myelogram": agreement})
    localization = replace(
        analysis.localization,
        collections=(first.model_copy(update=parts), *others),
        finding=finding,
    )
    return replace(analysis, localization=localization)


def test_contribution_of_series_compared_with_the_myelogram(analysis):
    agreement = MyelogramAgreement(n_collections=2, n_confirmed=1, n_additional=1)
    compared = with_parts(analysis, agreement, **COMPANIONS)
    second = replace(selection("myelogram", is_companion=False), is_second=True)
    assert usage(compared, second) == (
        ("comparison",), "1 of 2 collections confirmed, 1 additional",
    )  # fmt: skip
    assert usage(compared, selection("axial_t2")) == (
        ("comparison",),
        "1 of 2 collections as bright as CSF (1 brighter than fat), side of 1 confirmed, "
        "dark line of 1 measured",
    )  # fmt: skip
    t1 = replace(selection("other", is_companion=False), t1_pair="axial")
    assert usage(compared, t1) == (("enhancement",), "enhancement around 1 of 2 collections")
    other_plane = replace(t1, t1_pair="sagittal")
    assert usage(compared, other_plane).used_for == ()
    assert usage(analysis, t1).contribution.endswith("no collection has a measurable shell")


@pytest.mark.slow
def test_without_a_series_listed_as_used_the_report_changes(tmp_path):
    scenario = replace(
        compact(SCENARIOS["postoperative_dorsal"]),
        series=(
            *("ht2w_3d", "t2_sagittal", "stir_sagittal", "t1_sagittal"),
            *("t2_axial", "t1_axial", "t1_axial_post", "ht2w_coronal", "localizer"),
        ),
    )
    write_study(make_phantom(scenario, 43), tmp_path, truth=False)
    study = load(tmp_path / "dicom")
    whole = analyze(study).report.model_dump()
    used = [s for s in whole["series"] if s["used_for"] and "fluid" not in s["used_for"]]
    assert {"comparison", "enhancement"} <= {use for s in used for use in s["used_for"]}
    for series in used:
        uid = series["series_instance_uid"]
        left = replace(study, stacks=tuple(s for s in study.stacks if s.series_instance_uid != uid))
        without = analyze(left).report.model_dump()
        assert any(without[part] != whole[part] for part in RESULTS), series["role"]
    for series in whole["series"]:
        if not series["used_for"]:
            assert series["contribution"].startswith("none: ")
