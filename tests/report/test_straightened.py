from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.pipeline import Analysis
from leakloc.report import canvas
from leakloc.report.straightened import (
    arcs_across,
    reach_of,
    sac_areas,
    section,
    straightened_sheet,
)
from leakloc.report.views import StudyView

SAC_MM2 = np.pi * 8 * 6.5  # of a horizontal section of the analytic sac


@pytest.fixture(scope="module")
def view(analysis: Analysis) -> StudyView:
    return StudyView(analysis)


def panels(sheet: canvas.Sheet) -> list[canvas.Panel | canvas.Chart]:
    return [column.panels[0] for column in sheet.columns]


def test_the_straightened_sac_is_upright(view: StudyView) -> None:
    side, front, *_ = panels(straightened_sheet(view))
    assert isinstance(side, canvas.Panel) and isinstance(front, canvas.Panel)
    for panel, width_mm in ((side, 13.0), (front, 16.0)):
        sac = panel.outlines[0][0] > 0.5
        rows = sac[(sac.sum(axis=1) > 0)][5:-5]
        columns = np.arange(sac.shape[1])
        middles = (rows * columns).sum(axis=1) / rows.sum(axis=1) * panel.spacing_mm[1]
        assert np.ptp(middles) < 2.0  # bends by 14 mm in the patient
        assert np.median(rows.sum(axis=1)) * panel.spacing_mm[1] == pytest.approx(width_mm, abs=1)


def test_fluid_lies_on_its_side_and_at_its_level(view: StudyView, analysis: Analysis) -> None:
    side, front, *_ = panels(straightened_sheet(view))
    assert isinstance(side, canvas.Panel) and isinstance(front, canvas.Panel)
    tags = {label.text: label.place for label in front.labels if label.bold}
    names = {label.text: label.place[0] for label in front.labels if not label.bold}
    sac = front.outlines[0][0] > 0.5
    assert tags["2"][1] > np.flatnonzero(sac[round(tags["2"][0])]).max()  # left is right
    assert names["L1"] < tags["2"][0] < names["L3"]
    fluid = np.argwhere(side.outlines[1][0])
    middle = np.flatnonzero(side.outlines[0][0][int(np.median(fluid[:, 0]))] > 0.5).mean()
    assert np.median(fluid[:, 1]) > middle  # dorsal: behind the sac
    assert np.all(np.diff([names[n] for n in ("L1", "L2", "L3", "L4", "L5", "S1")]) > 0)


def test_the_area_is_that_of_the_sac(view: StudyView) -> None:
    arcs, areas = sac_areas(view)
    line = view.centerline
    _, _, dorsal = line.frame_at(arcs)
    whole = np.isfinite(areas) & (line.at(arcs)[:, 2] > -80)
    true = SAC_MM2 * np.abs(dorsal[whole][:, 1])  # the cut across a leaning tube is smaller
    np.testing.assert_allclose(areas[whole], true, rtol=0.12)


def test_where_the_field_cuts_the_sac_the_area_is_unknown(analysis: Analysis) -> None:
    box = (slice(28, 36), slice(None), slice(None))  # 9 mm of the sac's 16 mm
    parts = analysis.segmentation
    thin = replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(analysis.triage.myelogram.crop(box))),
        segmentation=replace(
            parts, thecal_sac=parts.thecal_sac.crop(box), collections=parts.collections.crop(box)
        ),
    )
    view = StudyView(thin)
    assert np.isnan(sac_areas(view)[1]).all()
    canvas.draw(straightened_sheet(view), 600)  # curves without a value are no failure


def test_a_section_lies_across_the_canal(view: StudyView, analysis: Analysis) -> None:
    first = analysis.localization.collections[0]
    above, peak, below = arcs_across(view, first)
    assert above < peak < below
    panel = section(view, peak, reach_of(view, [first]), ("L4-L5",))
    step = panel.spacing_mm[0]
    sac, fluid = (mask > 0.5 for mask, _ in panel.outlines)
    _, _, dorsal = view.centerline.frame_at(peak)
    assert sac.sum() * step**2 == pytest.approx(SAC_MM2 * abs(dorsal[1]), rel=0.08)
    assert np.argwhere(fluid)[:, 0].mean() > np.argwhere(sac)[:, 0].mean()  # dorsal is below
    tilt = np.degrees(np.arccos(abs(view.centerline.frame_at(peak)[0][2])))
    assert panel.caption[-1].endswith(f"tilted {tilt:.0f}°")
    assert panel.orientation_labels[:2] == ("R", "L")


def test_a_view_reaches_as_far_as_the_fluid(view: StudyView, analysis: Analysis) -> None:
    collection = analysis.localization.collections[0]
    narrow = reach_of(view, [collection], side_mm=1, front_mm=1, back_mm=1)
    assert narrow.dorsal_mm[1] > 12 and max(narrow.left_mm) > 5
    none = reach_of(view, [], side_mm=1, front_mm=2, back_mm=3)
    assert (none.left_mm, none.dorsal_mm) == ((-1, 1), (-2, 3))


def test_charts_are_next_to_their_position(view: StudyView, analysis: Analysis) -> None:
    sheet = straightened_sheet(view)
    charts = [panel for panel in panels(sheet) if isinstance(panel, canvas.Chart)]
    assert len(charts) == 2
    for chart in charts:
        assert chart.height_mm == pytest.approx(sheet.columns[0].panels[0].size_mm[0])
        names = [name for _, name in chart.marks]
        assert names == [disc.name for disc in analysis.levels.discs]


@pytest.mark.parametrize(
    ("largest", "end", "step"),
    [(0.0, 1, 0.5), (17.4, 20, 10), (790, 1000, 500), (2.9, 3, 1), (0.4, 0.4, 0.2)],
)
def test_scales_end_at_round_values(largest: float, end: float, step: float) -> None:
    assert canvas._round_scale(largest) == pytest.approx((end, step))


def test_a_short_canal_is_drawn(analysis: Analysis) -> None:
    points = analysis.segmentation.centerline.points_lps[90:96]
    short = replace(
        analysis, segmentation=replace(analysis.segmentation, centerline=Centerline(points))
    )
    canvas.draw(straightened_sheet(StudyView(short)), 500)
