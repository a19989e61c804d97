from __future__ import annotations

import subprocess
import sys

import numpy as np

from leakloc.report.canvas import (
    BLUE,
    Column,
    Drawing,
    Outline,
    Panel,
    Sheet,
    font,
    lay_out,
)


def outlines(drawing: Drawing) -> list[Outline]:
    found = [item for item in drawing.items if isinstance(item, Outline)]
    return found + [outline for *_, part in drawing.parts for outline in outlines(part)]


def drawn(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outlines of a mask on a panel, in pixels."""
    panel = Panel(
        mask.shape,
        (1.0, 1.0),
        np.zeros(mask.shape, np.float32),
        ("A", "P", "H", "F"),
        [(mask, BLUE)],
    )
    whole = lay_out(Sheet("title", (), (Column((panel,)),), "footer"), 400)
    (outline,) = outlines(whole)
    return list(outline.paths)


def test_outline_encloses_the_area_of_the_mask():
    rows, columns = np.indices((60, 60))
    mask = np.hypot(rows - 30, columns - 25) < 12
    (path,) = drawn(mask)
    x, y = path.T
    area = abs(np.sum(x[:-1] * np.diff(y) - y[:-1] * np.diff(x))) / 2
    px = (x.max() - x.min()) / (np.ptp(np.flatnonzero(mask.any(0))) + 1)
    assert np.array_equal(path[0], path[-1])
    assert abs(area / px**2 / mask.sum() - 1) < 0.01


def test_outline_at_the_border_is_closed():
    mask = np.zeros((60, 60), bool)
    mask[:20, :30] = True
    (path,) = drawn(mask)
    assert np.array_equal(path[0], path[-1])


def test_pixels_that_touch_at_a_corner_have_separate_outlines():
    mask = np.zeros((60, 60), bool)
    mask[20:30, 20:30] = mask[30:40, 30:40] = True
    paths = drawn(mask)
    assert len(paths) == 2


def test_figures_do_not_need_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None; import leakloc.report.overlays; "
        "from leakloc.report.canvas import font; print(*font(15, bold=True).getname())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "DejaVu Sans Bold\n"
    assert font(15).getname() == ("DejaVu Sans", "Book")
