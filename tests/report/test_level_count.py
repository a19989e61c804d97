from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.search import SpineDetection
from leakloc.pipeline import Analysis
from leakloc.report import overlays
from leakloc.report.level_count import find_counting_series, level_count_sheet
from leakloc.report.views import StudyView


def marked(points_lps: FloatArray, frame: str, more_mm: float) -> Volume:
    """Three sagittal planes about the midline, bright at some points; reaching far up."""
    grid = Geometry.from_axes(
        (3, 220 + round(more_mm / 2), 160),
        origin_lps=(-8.0, -160.0, 120.0 + more_mm),
        spacing_ijk_mm=(2.0, 2.0, 8.0),
        directions_lps=np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]),
        frame_of_reference_uid=frame,
    )
    array = np.full(grid.shape, 50.0, np.float32)
    for k, j, i in np.round(grid.kji_from_lps(points_lps)).astype(int):
        array[max(k, 0) : k + 1, j - 1 : j + 2, i - 1 : i + 2] = 1000.0
    return Volume(array, grid)


def counted(
    analysis: Analysis,
    *,
    method: str = "c2_count",
    role: Role = "localizer",
    frame: str = "1.2",
    more_mm: float = 200.0,
) -> Analysis:
    own = analysis.triage.myelogram
    myelogram = Volume(own.array, replace(own.geometry, frame_of_reference_uid="1.2"))
    centers = np.array([v.center_lps for v in analysis.levels.vertebrae]) * [0, 1, 1]
    volume = marked(centers, frame, more_mm)
    numbering = replace(analysis.levels.numbering, method=method)
    return replace(
        analysis,
        triage=replace(analysis.triage, spine=Spine(myelogram), companions={role: volume}),
        levels=replace(analysis.levels, numbering=numbering),
    )


def test_names_are_next_to_their_vertebrae(analysis: Analysis) -> None:
    made = counted(analysis)
    name, volume = find_counting_series(made)
    (panel,) = level_count_sheet(StudyView(made), name, volume).columns[0].panels
    assert [label.text for label in panel.labels] == [v.name for v in made.levels.vertebrae]
    for label in panel.labels:
        row, column = (round(x) for x in label.place)
        assert panel.gray[row, column : column + 40].max() > 0.9
        assert panel.gray[row + 12, column : column + 40].max() < 0.5


@pytest.mark.parametrize("role", ["localizer", "sagittal_t2"])
def test_the_count_is_one_of_the_pictures(analysis: Analysis, role: Role) -> None:
    found = overlays.picture(counted(analysis, role=role), "count")
    assert "verify the count" in found.alt and found.collection is None


def test_neck_is_shown_if_c2_was_not_detected(analysis: Analysis) -> None:
    made = counted(analysis, method="sacrum_up")
    field = made.triage.companions["localizer"].geometry
    seen = SpineDetection((), (), (field,), (), localizer=field)
    made = replace(made, levels=replace(made.levels, detection=seen))
    name, volume = find_counting_series(made)
    sheet = level_count_sheet(StudyView(made), name, volume)
    assert "not detected" in sheet.title
    (panel,) = sheet.columns[0].panels
    assert panel.labels[0].place[0] > 80.0  # millimetres above the first name


@pytest.mark.parametrize(
    "wanting", [{"method": "sacrum_up"}, {"frame": "9.9"}, {"more_mm": 0.0}, {"role": "axial_t2"}]
)
def test_no_picture_where_it_shows_nothing_more(analysis: Analysis, wanting: dict) -> None:
    assert find_counting_series(counted(analysis, **wanting)) is None
