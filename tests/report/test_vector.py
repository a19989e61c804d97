import re
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from leakloc.core.errors import InputError
from leakloc.pipeline import Analysis
from leakloc.report import canvas, figure, overlays, picture
from leakloc.report.vector import write_pdf


@pytest.fixture(scope="module")
def overview(analysis: Analysis) -> canvas.Drawing:
    return next(overlays.figures(analysis, "overview")).drawing


def test_lines_and_pixels_show_the_same(analysis: Analysis, overview: canvas.Drawing) -> None:
    made = figure(analysis)
    buffer = BytesIO()
    made.savefig(buffer, format="png", dpi=100, facecolor=made.get_facecolor())
    lines = Image.open(buffer).convert("RGB")
    pixels = canvas.render(overview)
    assert lines.size == pixels.size
    small = (pixels.width // 8, pixels.height // 8)  # type is set a pixel apart
    one, other = (
        np.asarray(image.resize(small, Image.Resampling.BOX), dtype=float)
        for image in (lines, pixels)
    )
    assert np.abs(one - other).mean() < 4
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


def streams(pdf: bytes) -> bytes:
    """Everything drawn on the pages, decompressed."""
    parts = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    drawn = []
    for part in parts:
        try:
            drawn.append(zlib.decompress(part))
        except zlib.error:
            continue
    return b"\n".join(drawn)


def test_a_pdf_holds_lines_and_type(analysis: Analysis) -> None:
    drawings = [found.drawing for found in overlays.figures(analysis)]
    target = BytesIO()
    write_pdf(drawings[:2], target)
    pdf = target.getvalue()
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page ") == 2
    drawn = streams(pdf)
    assert len(re.findall(rb"\bl\b", drawn)) > 500  # outlines are lines
    assert len(re.findall(rb"\bTj|\bTJ", drawn)) > 20  # names are type
    assert b"CreationDate" not in pdf


def test_the_same_study_gives_the_same_pdf(overview: canvas.Drawing) -> None:
    first, second = BytesIO(), BytesIO()
    write_pdf([overview], first)
    write_pdf([overview], second)
    assert first.getvalue() == second.getvalue()


def test_a_notebook_shows_one_picture(analysis: Analysis) -> None:
    shown = picture(analysis, "collection-2-axial")
    assert shown._repr_png_() == shown.png and shown.collection == 2
    assert Image.open(BytesIO(shown.png)).size == shown.rgb.shape[1::-1]


def test_an_unknown_figure_names_the_known_ones(analysis: Analysis) -> None:
    with pytest.raises(InputError, match=r"no figure 'axial'.*collection-2-axial"):
        picture(analysis, "axial")
