"""Drawing one picture: grey panels with thin outlines, names, letters and a scale bar.

Nothing here knows what a thecal sac is. A `Panel` is a picture of one plane in display
order (row 0 on top, column 0 on the left) with its pixel spacing; everything drawn on it is
placed in its rows and columns, so that image, outlines and names cannot part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

# Okabe & Ito, "Color Universal Design" (2008): told apart with any kind of colour vision.
BLUE: Final[Colour] = (86, 180, 233)
ORANGE: Final[Colour] = (230, 159, 0)
BACKGROUND: Final[Colour] = (14, 15, 18)
INK: Final[Colour] = (236, 238, 242)
FAINT: Final[Colour] = (168, 173, 182)
BLACK: Final[Colour] = (0, 0, 0)

TEXT_PX: Final = 15  # smallest type that is read easily at 1:1 on a full-HD screen
TITLE_PX: Final = 22
LABEL_PX: Final = 16
OUTLINE_PX: Final = 2
SHEET_PX_PER_MM: Final = 3.0  # below it a sheet of 2 mm drowns in the lines beside it
SCALE_BAR_MM: Final = 20.0
MARGIN_PX: Final = 16
MOST_WIDTH_PX: Final = 1880  # fits a full-HD screen
LEAST_WIDTH_PX: Final = 190  # room for a scale bar, letters and names
LINE_PX: Final = 21  # TEXT_PX with leading
_SUPERSAMPLING: Final = 2  # outlines are drawn larger and reduced, for smooth edges

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of a panel."""
Place = tuple[float, float]
"""Row and column on a panel's grid (centres of its cells at whole numbers)."""


@dataclass(frozen=True)
class Label:
    """A word at a place."""

    text: str
    place: Place
    colour: Colour = INK
    side: Literal["left", "right"] = "right"
    """Which side of the place the text stands on."""
    bold: bool = False
    optional: bool = False
    """Whether it is left out where it would cover another."""


@dataclass(frozen=True)
class Stroke:
    """A straight line between two places."""

    start: Place
    end: Place
    colour: Colour = FAINT
    width_px: int = 2


@dataclass(frozen=True, eq=False)
class Panel:
    """One plane, ready to be drawn.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the grid on which places are given.
    spacing_mm : tuple of float
        Between rows, between columns of that grid.
    grey : ndarray
        0..1, over the same field in any resolution.
    letters : tuple of str
        Patient directions at the left, right, top and bottom edge.
    outlines : sequence of (mask, colour)
        Masks over the same field, drawn as thin lines around them, the first one on top (the
        last one in a panel of small scale).
    tints : sequence of (mask, colour)
        Masks whose pixels take the colour and keep their brightness.
    caption : tuple of str
        Lines under the panel; the first one in full brightness.
    framed : bool
        Whether a thin frame marks it as the one to look at first.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    grey: npt.NDArray[np.float32]
    letters: tuple[str, str, str, str]
    outlines: Sequence[tuple[npt.NDArray[np.bool_], Colour]] = ()
    tints: Sequence[tuple[npt.NDArray[np.bool_], Colour]] = ()
    labels: Sequence[Label] = ()
    strokes: Sequence[Stroke] = ()
    caption: tuple[str, ...] = ()
    framed: bool = False
    scale_bar: bool = True

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        rows, columns = self.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


@dataclass(frozen=True)
class Column:
    """Panels below each other at one scale: as large as fits, or `most_px_per_mm`."""

    panels: tuple[Panel, ...]
    most_px_per_mm: float = float("inf")


@dataclass(frozen=True)
class Sheet:
    """What one picture says: a title, lines under it, panels side by side, a footer."""

    title: str
    lines: tuple[str, ...]
    columns: tuple[Column, ...]
    footer: str
    key: tuple[tuple[str, Colour], ...] = field(default=())


def draw(sheet: Sheet, height_px: int) -> Image.Image:
    """Draw a sheet; it gets as wide as its panels need, up to the width of a screen.

    Parameters
    ----------
    sheet : Sheet
    height_px : int
        Height of the tallest column of panels; captions, title and footer come on top.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    from PIL import Image, ImageDraw

    drawn = [_column(column, height_px) for column in sheet.columns]
    total = sum(image.width for image in drawn) + MARGIN_PX * (len(drawn) + 1)
    if total > MOST_WIDTH_PX:
        height_px = int(height_px * MOST_WIDTH_PX / total)
        drawn = [_column(column, height_px) for column in sheet.columns]
    bold, plain = font(TITLE_PX, bold=True), font(TEXT_PX)
    body_width = sum(image.width for image in drawn) + MARGIN_PX * (len(drawn) - 1)
    needed = max(
        [_width(sheet.footer, plain) + _key_width(sheet.key), _width("x" * 60, plain), body_width]
    )
    width = round(needed) + 2 * MARGIN_PX
    title = wrapped(sheet.title, bold, width - 2 * MARGIN_PX)
    lines = [part for line in sheet.lines for part in wrapped(line, plain, width - 2 * MARGIN_PX)]
    title_line = TITLE_PX + 8
    top = MARGIN_PX + len(title) * title_line + len(lines) * LINE_PX + 8
    body = max(image.height for image in drawn)
    canvas = Image.new("RGB", (width, top + body + LINE_PX + 2 * MARGIN_PX), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    y = MARGIN_PX
    for text in title:
        pen.text((MARGIN_PX, y), text, INK, bold)
        y += title_line
    for text in lines:
        pen.text((MARGIN_PX, y), text, FAINT, plain)
        y += LINE_PX
    x = MARGIN_PX + (width - 2 * MARGIN_PX - body_width) // 2
    for image in drawn:
        canvas.paste(image, (x, top))
        x += image.width + MARGIN_PX
    y = canvas.height - MARGIN_PX - LINE_PX + 4
    pen.text((MARGIN_PX, y), sheet.footer, FAINT, plain)
    _draw_key(pen, sheet.key, width - MARGIN_PX, y)
    return canvas


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, compressed fast: a third larger than the best, five times sooner."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


@cache
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib on every system."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size_px)


def wrapped(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """Break a text into lines that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer, face) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart until they keep `gap`, with the least squared shift.

    Where they cannot all fit between `low` and `high`, the gap shrinks.

    >>> spread([10, 11, 50], 8, 0, 100)
    [6.5, 14.5, 50.0]
    """
    from scipy.optimize import isotonic_regression

    if not positions:
        return []
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    # With the steps taken off, "at least a gap apart" becomes "never falling".
    level = isotonic_regression(np.asarray(positions, dtype=float)[order] - steps).x
    result = np.empty(len(positions))
    result[order] = np.clip(level, low, max(high - steps[-1], low)) + steps
    return [float(value) for value in result]


def _column(column: Column, height_px: int) -> Image.Image:
    from PIL import Image

    captions = sum(_caption_px(panel) for panel in column.panels)
    total_mm = sum(panel.size_mm[0] for panel in column.panels)
    gaps = MARGIN_PX * (len(column.panels) - 1)
    most = height_px + _caption_px(column.panels[0])  # captions hang below the tallest column
    scale = min((most - captions - gaps) / total_mm, column.most_px_per_mm)
    images = [draw_panel(panel, scale) for panel in column.panels]
    width = max(image.width for image in images)
    canvas = Image.new("RGB", (width, sum(i.height for i in images) + gaps), BACKGROUND)
    y = 0
    for image in images:
        canvas.paste(image, (0, y))
        y += image.height + MARGIN_PX
    return canvas


def _caption_px(panel: Panel) -> int:
    return len(panel.caption) * LINE_PX + (6 if panel.caption else 0)


def draw_panel(panel: Panel, px_per_mm: float) -> Image.Image:
    """Draw one panel with its caption, true to scale in both directions."""
    from PIL import Image, ImageDraw

    height = max(round(panel.size_mm[0] * px_per_mm), 1)
    width = max(round(panel.size_mm[1] * px_per_mm), 1)
    grey = Image.fromarray((np.clip(panel.grey, 0, 1) * 255).astype(np.uint8))
    image = grey.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
    for mask, colour in panel.tints:
        image = _tinted(image, mask, colour)
    # Where a thin sheet is hardly wider than a line, its own line must win.
    coarse = px_per_mm < SHEET_PX_PER_MM
    for mask, colour in panel.outlines if coarse else reversed(panel.outlines):
        _outline(image, mask, colour)
    to_px = _to_px(panel, width, height)
    if width < LEAST_WIDTH_PX:  # a thin slab: letters and names stand beside it
        room = (LEAST_WIDTH_PX - width) // 2
        image, to_px = _on_wider(image, room), replace(to_px, left=float(room))
        width = image.width
    pen = ImageDraw.Draw(image)
    for stroke in panel.strokes:
        pen.line([to_px(stroke.start), to_px(stroke.end)], stroke.colour, stroke.width_px)
    taken = _draw_labels(pen, panel.labels, to_px, width, height)
    if panel.scale_bar:
        taken += _draw_scale_bar(pen, px_per_mm, width, height, taken)
    _draw_letters(pen, panel.letters, width, height, taken)
    if panel.framed:
        pen.rectangle([0, 0, width - 1, height - 1], outline=ORANGE, width=2)
    if not panel.caption:
        return image
    return _with_caption(image, panel.caption)


def _to_px(panel: Panel, width: int, height: int) -> _ToPx:
    rows, columns = panel.shape
    return _ToPx(height / rows, width / columns)


@dataclass(frozen=True)
class _ToPx:
    rows: float
    columns: float
    left: float = 0.0

    def __call__(self, place: Place) -> tuple[float, float]:
        x = self.left + (place[1] + 0.5) * self.columns - 0.5
        return x, (place[0] + 0.5) * self.rows - 0.5


def _on_wider(image: Image.Image, room: int) -> Image.Image:
    from PIL import Image

    wider = Image.new("RGB", (image.width + 2 * room, image.height), BACKGROUND)
    wider.paste(image, (room, 0))
    return wider


def _tinted(image: Image.Image, mask: npt.NDArray[np.bool_], colour: Colour) -> Image.Image:
    from PIL import Image

    if not mask.any():
        return image
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        image.size, Image.Resampling.BILINEAR
    )
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    toned = (grey * np.array(colour, dtype=np.float32)).astype(np.uint8)
    return Image.composite(Image.fromarray(toned), image, area)


def _outline(image: Image.Image, mask: npt.NDArray[np.bool_], colour: Colour) -> None:
    """A thin smooth line around a mask, with a dark edge that keeps it visible on bright."""
    from PIL import Image, ImageDraw
    from skimage import measure

    if not mask.any():
        return
    contours: list[npt.NDArray[np.float64]] = measure.find_contours(  # type: ignore[no-untyped-call]
        np.pad(mask, 1).astype(np.float32), 0.5
    )
    rows, columns = mask.shape
    size = (image.width * _SUPERSAMPLING, image.height * _SUPERSAMPLING)
    scale = np.array([size[0] / columns, size[1] / rows])
    paths = [[tuple(xy) for xy in (path[:, ::-1] - 0.5) * scale - 0.5] for path in contours]
    for ink, thickness, strength in ((BLACK, OUTLINE_PX + 2, 0.55), (colour, OUTLINE_PX, 1.0)):
        layer = Image.new("L", size, 0)
        pen = ImageDraw.Draw(layer)
        for path in paths:
            pen.line(path, round(255 * strength), thickness * _SUPERSAMPLING, joint="curve")
        image.paste(ink, (0, 0), layer.reduce(_SUPERSAMPLING))


def _draw_letters(
    pen: ImageDraw.ImageDraw,
    letters: tuple[str, str, str, str],
    width: int,
    height: int,
    taken: Sequence[Box],
) -> None:
    """Patient directions in the middle of the edges, or as near to it as nothing is covered."""
    face = font(LABEL_PX, bold=True)
    left, right, top, bottom = letters
    for text, anchor, along_x in (
        (left, "lm", False),
        (right, "rm", False),
        (top, "ma", True),
        (bottom, "md", True),
    ):
        for share in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74):
            x = width * share if along_x else (6.0 if anchor == "lm" else width - 6.0)
            y = height * share if not along_x else (5.0 if anchor == "ma" else height - 5.0)
            box = pen.textbbox((x, y), text, face, anchor, stroke_width=3)
            if not any(_overlap(box, other) for other in taken):
                break
        pen.text((x, y), text, INK, face, anchor, stroke_width=2, stroke_fill=BLACK)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_scale_bar(
    pen: ImageDraw.ImageDraw, px_per_mm: float, width: int, height: int, taken: Sequence[Box]
) -> list[Box]:
    """A bar in the lower right corner, or the left one where a name stands in the right."""
    length = SCALE_BAR_MM * px_per_mm
    if length > 0.6 * width:
        return []
    text, face = f"{SCALE_BAR_MM:.0f} mm", font(TEXT_PX)
    y, wide = height - 12.0, max(length, _width(text, face))
    for right in (width - 12.0, 12.0 + wide):
        box = (right - wide, y - 8 - TEXT_PX, right, y + 6)
        if not any(_overlap(box, other) for other in taken):
            break
    x = right - length
    for inflate, colour in ((1, BLACK), (0, INK)):
        pen.line([x - inflate, y, right + inflate, y], colour, 3 + 2 * inflate)
        for end in (x, right):
            pen.line([end, y - 5 - inflate, end, y + 5 + inflate], colour, 2 + 2 * inflate)
    pen.text((right, y - 8), text, INK, face, "rs", stroke_width=2, stroke_fill=BLACK)
    return [box]


def _draw_labels(
    pen: ImageDraw.ImageDraw, labels: Sequence[Label], to_px: _ToPx, width: int, height: int
) -> list[Box]:
    """Words at their places, moved apart; returns the boxes they fill."""
    taken: list[Box] = []
    for side in ("left", "right"):
        group = [label for label in labels if label.side == side]
        if not group:
            continue
        at = [to_px(label.place) for label in group]
        half = LABEL_PX / 2 + 2
        heights = spread([y for _, y in at], LABEL_PX + 3, half, height - half)
        for label, (x, _), y in zip(group, at, heights, strict=True):
            face = font(LABEL_PX, bold=label.bold)
            length = _width(label.text, face)
            # Inside the picture even where the place is near its edge.
            start = x - length - 4 if side == "left" else x + 4
            start = min(max(start, 4.0), max(width - length - 4, 4.0))
            box = (start, y - half, start + length, y + half)
            if label.optional and any(_overlap(box, other) for other in taken):
                continue
            pen.text(
                (start, y), label.text, label.colour, face, "lm", stroke_width=2, stroke_fill=BLACK
            )
            taken.append(box)
    return taken


def _with_caption(image: Image.Image, caption: tuple[str, ...]) -> Image.Image:
    from PIL import Image, ImageDraw

    plain, bold = font(TEXT_PX), font(TEXT_PX, bold=True)
    faces = [bold] + [plain] * (len(caption) - 1)
    needed = max(_width(text, face) for text, face in zip(caption, faces, strict=True))
    width = max(image.width, round(needed) + 2)
    canvas = Image.new("RGB", (width, image.height + 6 + len(caption) * LINE_PX), BACKGROUND)
    canvas.paste(image, ((width - image.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    for n, (text, face) in enumerate(zip(caption, faces, strict=True)):
        pen.text((0, image.height + 6 + n * LINE_PX), text, FAINT if n else INK, face)
    return canvas


def _draw_key(
    pen: ImageDraw.ImageDraw, key: tuple[tuple[str, Colour], ...], right: float, y: float
) -> None:
    face = font(TEXT_PX)
    for text, colour in reversed(key):
        right -= _width(text, face)
        pen.text((right, y), text, INK, face)
        right -= 28
        pen.line([right, y + LINE_PX / 2 - 1, right + 20, y + LINE_PX / 2 - 1], colour, 3)
        right -= 16


def _key_width(key: tuple[tuple[str, Colour], ...]) -> float:
    return sum(_width(text, font(TEXT_PX)) + 44 for text, _ in key) + 24


def _width(text: str, face: ImageFont.FreeTypeFont) -> float:
    return float(face.getlength(text))
