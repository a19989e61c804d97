"""Names and colors of the label values of the masks."""

import csv
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from highdicom.color import CIELabColor

from leakloc.anatomy.vocabulary import LABEL_VALUES, vertebra_chain
from leakloc.pipeline import Analysis
from leakloc.report import Report, write_outputs
from leakloc.report.canvas import BLUE, ORANGE
from leakloc.report.label_files import vertebra_color

Change = Callable[..., Analysis]
ITKSNAP_LINE = re.compile(
    r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"(.*)"$', re.ASCII
)
"""Index, red, green, blue, opacity, visibility, mesh visibility, name."""


def difference(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """Color difference (CIE 1976)."""
    scale = np.array([100, 255, 255]) / 0xFFFF  # of the DICOM encoding of L*, a* and b*
    first, second = (np.array(CIELabColor.from_rgb(*c).value) * scale for c in (a, b))
    return float(np.linalg.norm(first - second))


def test_vertebrae_have_different_colors() -> None:
    assert len({vertebra_color(name) for name in LABEL_VALUES}) == len(LABEL_VALUES)
    for counts in itertools.product((4, 5, 6), (11, 12, 13)):
        for pair in itertools.pairwise(vertebra_chain(*counts)):
            assert difference(*map(vertebra_color, pair)) > 30, pair
    for name in LABEL_VALUES:
        assert difference(vertebra_color(name), BLUE) > 30  # sac
        assert difference(vertebra_color(name), ORANGE) > 30  # fluid


@pytest.fixture(scope="module")
def masks(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("labels") / "out"
    settings = analysis.settings.changed(
        report__write=["masks"], report__level_scheme="totalspineseg"
    )
    return write_outputs(replace(analysis, settings=settings), folder), folder


@pytest.mark.parametrize("name", ["thecal_sac", "epidural_fluid", "levels"])
def test_each_value_of_a_mask_has_a_name(masks: tuple[Report, Path], name: str) -> None:
    report, folder = masks
    with (folder / "masks" / f"{name}_dseg.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    values = np.unique(np.asarray(nib.load(folder / report.outputs.masks[name]).dataobj))
    assert set(values[values > 0]) <= {int(row["index"]) for row in rows}
    assert all(re.fullmatch("#[0-9A-F]{6}", row["color"]) for row in rows)
    if name == "levels":
        assert {r["name"]: int(r["index"]) for r in rows} == report.levels.label_values
    lines = (folder / "masks" / f"{name}_itksnap.txt").read_text().splitlines()
    assert lines[0].startswith("#")
    found = [ITKSNAP_LINE.match(line) for line in lines[1:]]
    assert found[0] is not None and found[0][1] == "0"
    described = [
        (m[1], "#{:02X}{:02X}{:02X}".format(*map(int, m.group(2, 3, 4))), m[8]) for m in found[1:]
    ]
    assert described == [(row["index"], row["color"], row["name"]) for row in rows]


def test_label_files_are_named_in_the_report(masks: tuple[Report, Path]) -> None:
    report, folder = masks
    written = {str(p.relative_to(folder)) for p in folder.glob("masks/*") if p.suffix != ".gz"}
    assert set(report.outputs.labels) == written
