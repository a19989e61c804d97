from __future__ import annotations

from io import BytesIO

import pytest

from leakloc.analysis import AnalysisData
from leakloc.anatomy.vocabulary import NOTICE
from leakloc.localization.result import (
    BrightStructure,
    CaudalAccess,
    CystOnPath,
    DiscDistance,
    LengthMark,
    PathStretch,
)
from leakloc.report import build_report, vector
from leakloc.report.canvas import TextLine, font
from leakloc.report.caudal import MAX_MARKS, caudal_sheet, draw_caudal_sheet
from leakloc.report.model import Report
from leakloc.report.page import html


@pytest.fixture(scope="module")
def report(analysis: AnalysisData) -> Report:
    """A report with measurements of the path, and more length marks than fit on the sheet."""
    discs = tuple(
        DiscDistance(
            disc=name, distance_from_hiatus_mm=mm, typical_mm=mean, typical_range_mm=(low, high)
        )
        for name, mm, mean, low, high in (
            ("L5-S1", None, 82, 59, 105),
            ("L4-L5", 118, 115, 87, 143),
        )
    )
    access = CaudalAccess(
        hiatus_height_mm=22.4, hiatus_width_mm=None, hiatus_depth_mm=6.1, canal_to_skin_deg=19.0,
        skin_to_hiatus_mm=43.6,
        not_measured={"hiatus_width_mm": "slices 4.0 mm apart are too thick"},
        discs=discs,
        without_fat=(PathStretch(start_mm=85, stop_mm=108, content="fluid", segments=("L5-S1",)),),
        assessed_mm=290,
        cysts=(
            CystOnPath(
                volume_ml=0.42, center_lps_mm=(0, 90, -120), level="S1-S2",
                distance_from_hiatus_mm=38,
            ),
        ),
        bright_structures=(
            BrightStructure(
                volume_ml=0.42, center_lps_mm=(0, 90, -120), level="S1-S2",
                distance_from_hiatus_mm=38, mimics=("perineural cyst",),
            ),
            BrightStructure(
                volume_ml=1.3, center_lps_mm=(2, 95, -135), level="S2-S3",
                distance_from_hiatus_mm=21, mimics=("epidural fat",),
            ),
        ),
    )  # fmt: skip
    marks = tuple(
        LengthMark(
            distance_from_hiatus_mm=10 * n, segment="L4-L5",
            description="L4-L5, at the disc center", posterior_depth_mm=None if n < 9 else 5.0,
        )
        for n in range(1, MAX_MARKS + 10)
    )  # fmt: skip
    made = build_report(analysis)
    planning = made.planning.model_copy(
        update={"caudal_access": access, "length_marks": marks, "sac_tip_to_hiatus_mm": 51.0}
    )
    return made.model_copy(update={"planning": planning})


def test_sheet_compares_the_level_with_adults(report: Report) -> None:
    sheet = caudal_sheet(report)
    assert sheet is not None
    assert sheet.main == "Hiatus to L4-L5: 118 mm. In adults 115 mm (87 to 143 mm in 19 of 20)."
    assert sheet.discs.rows[0] == ("L5-S1", "not measured", "82", "59 to 105")
    assert dict(sheet.hiatus)["Width of the canal at the apex"] == (
        "not measured: slices 4.0 mm apart are too thick"
    )
    assert (
        "85 to 108 mm: fluid, L5-S1" in dict(sheet.way)["Stretches without posterior epidural fat"]
    )
    others = dict(sheet.way)["Other bright structures in the canal"]
    assert others == "1.3 mL, S2-S3, 21 mm from the hiatus (assumed: epidural fat)"
    assert dict(sheet.way)["Cysts in the canal"] == "0.4 mL, S1-S2, 38 mm from the hiatus"


def test_length_marks_name_what_lies_there(report: Report) -> None:
    sheet = caudal_sheet(report)
    assert sheet is not None
    rows = {row[0]: row[2:] for row in sheet.marks.rows}
    assert len(rows) == MAX_MARKS
    assert rows["20"] == ("caudal to the sac", "bright structure")
    assert rows["40"] == ("caudal to the sac", "cyst")
    assert rows["50"] == ("caudal to the sac", "end of the sac")
    assert rows["80"] == ("not measured", "")
    assert rows["90"] == ("5.0", "fluid")


def test_sheet_is_one_page_with_the_notice(report: Report) -> None:
    sheet = caudal_sheet(report)
    assert sheet is not None
    page = draw_caudal_sheet(sheet, report)
    lines = [item for item in page.items if isinstance(item, TextLine)]
    for line in lines:
        width = font(line.size_px, bold=line.bold).getlength(line.text)
        assert line.x + width <= page.width and line.y + line.size_px <= page.height
    assert NOTICE in " ".join(line.text for line in lines)
    target = BytesIO()
    vector.write_pdf([page], target)
    assert target.getvalue().count(b"/Type /Page ") + target.getvalue().count(b"/Type /Page\n") == 1


def test_page_has_the_sheet(report: Report, analysis: AnalysisData) -> None:
    text = html.page(report)
    section = text[text.index('<section id="caudal"') : text.index('<section id="series"')]
    assert "Hiatus to L4-L5: 118 mm" in section and NOTICE in section
    earlier = report.model_copy(
        update={"planning": report.planning.model_copy(update={"caudal_access": None})}
    )
    assert caudal_sheet(earlier) is None
    assert "Not measured by the version" in html.page(earlier)
