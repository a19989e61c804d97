"""Postoperative changes in the report text, in the tables and on the page."""

from dataclasses import replace

import pytest

from leakloc.localization.result import (
    MetalArtifact,
    PosteriorArch,
    PosteriorExtension,
    PostoperativeChanges,
)
from leakloc.report import build_report
from leakloc.report.page.html import page
from leakloc.report.tables import COLLECTION_COLUMNS, LEVEL_COLUMNS, collection_rows, level_rows
from leakloc.report.text import report_sections

CHANGES = PostoperativeChanges(
    arches=(
        PosteriorArch(vertebra="L3", present=True, confidence=0.99),
        PosteriorArch(vertebra="L4", present=False, confidence=0.93),
        PosteriorArch(vertebra="L5", present=None, confidence=0.0),
    ),
    arches_assessed=True,
    extensions=(
        PosteriorExtension(
            collection=1,
            neck_level="L4-L5",
            neck_width_mm=8.2,
            neck_lps_mm=(0.0, 20.0, -40.0),
            end_level="L5-S1",
            end_lps_mm=(0.0, 60.0, -50.0),
            canal_distance_mm=45.0,
            skin_distance_mm=11.0,
            compartment="subcutaneous",
        ),
    ),
    metal=(
        MetalArtifact(
            segments=("L3-L4", "L4-L5"),
            cranial_lps_mm=(0.0, 0.0, -10.0),
            caudal_lps_mm=(0.0, 0.0, -22.0),
            length_mm=12.0,
            canal_distance_mm=0.0,
            hidden_canal_mm=6.0,
        ),
    ),
    metal_assessed=True,
)


@pytest.fixture(scope="module")
def operated(analysis):
    """The analytic study with postoperative changes."""
    localization = replace(analysis.localization, postoperative=CHANGES)
    return replace(analysis, localization=localization)


def sentences(analysis):
    return dict(report_sections(build_report(analysis)))["Postoperative changes"]


def test_text(operated):
    assert sentences(operated) == (
        "Spinous process not identified: L4 (confidence 0.93); verify on the images.",
        "Spinous process indeterminate: L5.",
        "Collection 1 extends posterior to the canal; neck at L4-L5, 8 mm wide; posterior end in "
        "the subcutaneous tissue at L5-S1, 45 mm from the canal, 11 mm from the skin.",
        "Signal void at L3-L4 and L4-L5, consistent with metal, 12 mm long; fluid may not be "
        "visible in 6 mm of the canal.",
    )


def test_text_without_measurements(analysis):
    assert sentences(analysis) == ("Not assessed.",)


def test_text_states_what_was_not_assessed(analysis):
    changes = PostoperativeChanges(
        arches=(), arches_assessed=False, extensions=(), metal=(), metal_assessed=False
    )
    text = " ".join(
        sentences(
            replace(analysis, localization=replace(analysis.localization, postoperative=changes))
        )
    )
    assert "arches not assessed" in text and "Metal artifacts not assessed" in text
    assert "No signal void" not in text


def test_tables(operated):
    report = build_report(operated)
    rows = {row["name"]: row for row in level_rows(report)}
    assert set(rows["L4"]) == set(LEVEL_COLUMNS)
    arches = {name: rows[name]["posterior_arch"] for name in ("L2", "L3", "L4", "L5")}
    assert arches == {"L2": None, "L3": "present", "L4": "absent", "L5": "indeterminate"}
    assert rows["L4"]["posterior_arch_confidence"] == 0.93
    assert rows["L4-L5"]["metal"] is True and rows["L5-S1"]["metal"] is False
    first, second = collection_rows(report)
    assert set(first) == set(COLLECTION_COLUMNS)
    assert (first["neck_level"], first["neck_width_mm"]) == ("L4-L5", 8.2)
    assert (first["posterior_end_level"], first["posterior_skin_distance_mm"]) == ("L5-S1", 11.0)
    assert second["neck_level"] is None


def test_page(operated):
    text = page(build_report(operated))
    assert "Spinous process not identified: L4 (confidence 0.93)" in text
