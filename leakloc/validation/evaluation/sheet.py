"""Contact sheets: images of all cases with outlines of ground truth and result."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from leakloc.anatomy.vocabulary import SHORT_NOTICE
from leakloc.core.volume import Volume
from leakloc.notebook import OUTLINED_PX, draw_outlines
from leakloc.report.canvas import font
from leakloc.validation.evaluation.annotation import Annotation

if TYPE_CHECKING:
    from leakloc.validation.evaluation.cases import Case

COLUMNS: Final = 6

COLORS: Final = {
    "true sac": (86, 180, 233),
    "predicted sac": (230, 159, 0),
    "true fluid": (0, 200, 120),
    "predicted fluid": (255, 60, 180),
}
"""Outline colors: cool for ground truth, warm for the result."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Image of one case: a sagittal and an axial plane, with outlines.

    Parameters
    ----------
    caption : tuple of str
    rgb : ndarray, shape (rows, columns, 3), uint8
    """

    caption: tuple[str, ...]
    rgb: npt.NDArray[np.uint8]


def make_tile(
    name: str, image: Volume, predicted: Annotation, truth: Annotation, case: Case | None = None
) -> Tile:
    """Draw one case at the largest cross-section of its true, else detected, fluid.

    Parameters
    ----------
    image : Volume
        Image on which the masks are drawn.
    """
    masks = {
        "true fluid": truth.fluid,
        "predicted fluid": predicted.fluid,
        "true sac": truth.thecal_sac,
        "predicted sac": predicted.thecal_sac,
    }
    present = {name: mask for name, mask in masks.items() if mask is not None}
    return Tile(_caption(name, case), draw_outlines(image, present, colors=COLORS))


def contact_sheet(tiles: Sequence[Tile], caveat: str = "") -> bytes:
    """Return all tiles in one PNG image; `caveat` is printed with the notice."""
    face = font(13)
    line = 17
    caption_px = max((len(tile.caption) for tile in tiles), default=1) * line + 6
    width = max((tile.rgb.shape[1] for tile in tiles), default=200) + 8
    columns = min(COLUMNS, max(len(tiles), 1))
    rows = -(-len(tiles) // columns)
    notice = f"{SHORT_NOTICE}. {caveat}" if caveat else SHORT_NOTICE
    key_px = 12 + 110 * len(COLORS) + int(face.getlength(notice))
    size = max(columns * width, key_px), 40 + rows * (OUTLINED_PX + caption_px)
    sheet = Image.new("RGB", size, "black")
    pen = ImageDraw.Draw(sheet)
    x = 6
    for name, color in COLORS.items():
        pen.text((x, 10), name, fill=color, font=face)
        x += 110
    pen.text((x, 10), notice, fill="white", font=face)
    for number, tile in enumerate(tiles):
        left, top = number % columns * width, 40 + number // columns * (OUTLINED_PX + caption_px)
        for row, text in enumerate(tile.caption):
            pen.text((left + 2, top + row * line), text, fill="white", font=face)
        sheet.paste(Image.fromarray(tile.rgb), (left, top + caption_px))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _caption(name: str, case: Case | None) -> tuple[str, ...]:
    if case is None:
        return (name,)
    parts = [f"sac {case.sac_dice:.3f}" if case.sac_dice == case.sac_dice else ""]
    if case.fluid_dice == case.fluid_dice:
        parts.append(f"fluid {case.fluid_dice:.2f}")
    parts.append(f"detected {case.detected_collections}/{case.true_collections}")
    if case.false_positive_collections:
        parts.append(f"false positives {case.false_positive_collections}")
    return name, "  ".join(part for part in parts if part)
