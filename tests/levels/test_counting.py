"""Counting from C2 on sagittal series of neck, chest and back in addition to a lumbar myelogram."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leakloc.core.settings import LoaderSettings
from leakloc.loaders import load_study
from leakloc.pipeline import analyze
from leakloc.validation.phantom import SCENARIOS, compact, make_phantom
from leakloc.validation.phantom.dicom import series_datasets
from leakloc.validation.phantom.phantom import Phantom
from leakloc.validation.phantom.series import PhantomSeries, centered, plane_axes

FIELD_MM = 340.0
OVERLAP_MM = 45.0


def stations(phantom: Phantom, sagittal: PhantomSeries) -> list[PhantomSeries]:
    """The sagittal series repeated from the sacrum to the skull, each turned to its spine."""
    line = phantom.body.anatomy.centerline.points_lps
    planned = []
    bottom = float(line[:, 2].min()) - 10
    while not planned or bottom + OVERLAP_MM < line[:, 2].max() + 5:
        part = line[(line[:, 2] > bottom) & (line[:, 2] < bottom + FIELD_MM)]
        center = part.mean(axis=0) * [1, 1, 0] + [0, -15, bottom + FIELD_MM / 2]
        turn = np.radians(3.0 * (-1) ** len(planned))
        c, s = np.cos(turn), np.sin(turn)
        axes = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ plane_axes("sagittal")
        grid = centered(center, axes, (15, 283, 250), (1.2, 1.2, 4.4))
        planned.append(replace(sagittal, number=90 - len(planned), stacks=(grid,)))
        bottom += FIELD_MM - OVERLAP_MM
    return planned


@pytest.mark.slow
@pytest.mark.parametrize("lumbar_count", [4, 5, 6])
def test_stations_from_the_neck_tell_how_many_lumbar_vertebrae_or_doubt_it(
    lumbar_count, tmp_path: Path
):
    scenario = replace(compact(SCENARIOS["transitional"]), lumbar_counts=(lumbar_count,))
    phantom = make_phantom(scenario, 31)
    planned = phantom.series()
    sagittal = next(s for s in planned if s.sequence.name == "t2_sagittal")
    myelogram = next(s for s in planned if s.sequence.name == "ht2w_3d")
    series = (myelogram, *stations(phantom, sagittal))
    numbering = counted(phantom, series, tmp_path)
    assert numbering.transitional_suspected == (lumbar_count != 5)


@pytest.mark.slow
@pytest.mark.parametrize("lumbar_count", [4, 6])
def test_a_localizer_of_the_whole_spine_does_so_too(lumbar_count, tmp_path: Path):
    scenario = replace(
        compact(SCENARIOS["transitional"]), lumbar_counts=(lumbar_count,), localizer="whole_spine"
    )
    phantom = make_phantom(scenario, 52)
    wanted = ("localizer", "t2_sagittal", "ht2w_3d")
    series = [s for s in phantom.series() if s.sequence.name in wanted]
    assert counted(phantom, series, tmp_path).transitional_suspected


def counted(phantom, series, folder: Path):
    """Numbering of a study of some series: counted from C2, and right or unsure."""
    for one in series:
        for n, dataset in enumerate(series_datasets(phantom, one, phantom.render(one))):
            dataset.save_as(folder / f"{one.number}_{n}", enforce_file_format=True)
    report = analyze(load_study(folder, LoaderSettings())).report
    numbering = report.levels.numbering
    assert numbering.method == "c2_count"
    if numbering.lumbar_count != phantom.truth.lumbar_count:
        assert numbering.confidence < 0.6  # the base of the dens may look like a disc
        return numbering
    true = {v.name: v.center_lps for v in phantom.truth.vertebrae}
    for vertebra in report.levels.vertebrae:
        if vertebra.name.startswith("L"):
            gap = np.linalg.norm(np.subtract(vertebra.center_lps_mm, true[vertebra.name]))
            assert gap < 10
    return numbering
