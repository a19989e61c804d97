"""Layout of figures: grayscale panels with outlines, labels, orientation labels and scale bar.

This module is independent of anatomy. A `Panel` is an image of one plane in display order
(row 0 at the top, column 0 at the left) with its pixel spacing; outlines and labels are
positioned in its rows and columns, so that they stay registered to the image. The layout is a
`Drawing`, rendered as pixels here and as vector graphics in `leakloc.report.vector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from itertools import product, repeat
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from PIL import Image, ImageDraw, ImageFont
from scipy.optimize import isotonic_regression

_FONTS: Final = Path(__file__).parent / "fonts"
Color = tuple[int, int, int]

# Okabe & Ito, "Color Universal Design" (2008): distinguishable with color vision deficiency.
BLUE: Final[Color] = (86, 180, 233)
ORANGE: Final[Color] = (230, 159, 0)
BACKGROUND: Final[Color] = (14, 15, 18)
INK: Final[Color] = (236, 238, 242)
FAINT: Final[Color] = (168, 173, 182)
GRID: Final[Color] = (70, 75, 84)
BLACK: Final[Color] = (0, 0, 0)

TEXT_PX: Final = 15  # smallest font that is legible at 1:1 on a full-HD screen
TITLE_PX: Final = 22
LABEL_PX: Final = 16
OUTLINE_PX: Final = 2
SHEET_PX_PER_MM: Final = 3.0  # below this scale, adjacent outlines obscure a 2 mm layer
SCALE_BAR_MM: Final = 20.0
MARGIN_PX: Final = 16
MAX_WIDTH_PX: Final = 1880  # fits a full-HD screen
MIN_WIDTH_PX: Final = 190  # space for scale bar, orientation labels and level labels
LINE_PX: Final = 21  # TEXT_PX with line spacing
CHART_PX: Final = 210  # width of a chart: four digits on its scale
_EDGE_FRACTIONS: Final = (0.5, 0.46, 0.54, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82)
"""Positions of an orientation label along the edge of a panel, the preferred one first."""
_SUPERSAMPLING: Final = 2  # outlines are drawn larger and downsampled, for smooth edges

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of a panel."""
Place = tuple[float, float]
"""Row and column on a panel's grid (pixel centers at integers)."""


@dataclass(frozen=True)
class Label:
    """A text label at a position."""

    text: str
    place: Place
    color: Color = INK
    side: Literal["left", "right"] = "right"
    """Side of the position on which the text is drawn."""
    bold: bool = False
    optional: bool = False
    """Whether the label is omitted if it would overlap another."""


@dataclass(frozen=True)
class Stroke:
    """A straight line between two positions."""

    start: Place
    end: Place
    color: Color = FAINT
    width_px: int = 2


@dataclass(frozen=True, eq=False)
class Panel:
    """One image plane with its annotations.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the grid of all positions.
    spacing_mm : tuple of float
        Row and column spacing of that grid.
    gray : ndarray
        Image, 0..1, of the same field at any resolution.
    orientation_labels : tuple of str
        Orientation labels at the left, right, top and bottom edge.
    outlines : sequence of (mask, color)
        Masks of the same field (or mask fractions, 0..1, outlined at 0.5), drawn as thin
        outlines, the first one on top (the last one in a panel of small scale).
    tints : sequence of (mask, color)
        Masks whose pixels are colored; their brightness is preserved.
    caption : tuple of str
        Lines below the panel; the first one is emphasized.
    framed : bool
        Whether a thin frame highlights the panel.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    gray: npt.NDArray[np.float32]
    orientation_labels: tuple[str, str, str, str]
    outlines: Sequence[tuple[npt.NDArray[np.bool_ | np.float32], Color]] = ()
    tints: Sequence[tuple[npt.NDArray[np.bool_], Color]] = ()
    labels: Sequence[Label] = ()
    strokes: Sequence[Stroke] = ()
    caption: tuple[str, ...] = ()
    framed: bool = False
    scale_bar: bool = True

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width in millimeters."""
        rows, columns = self.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


@dataclass(frozen=True, eq=False)
class Curve:
    """A measurement along the canal.

    Parameters
    ----------
    down_mm, values : ndarray, shape (n,)
        Distance from the top of the chart, and the value there (NaN: unknown, drawn as a gap).
    """

    down_mm: npt.NDArray[np.floating]
    values: npt.NDArray[np.floating]
    color: Color


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart of curves next to a panel of the same height; values increase to the right.

    Parameters
    ----------
    height_mm : float
        Height of the adjacent panel.
    marks : sequence of (float, str)
        Distances from the top of labeled horizontal lines, and their labels.
    """

    height_mm: float
    curves: tuple[Curve, ...]
    caption: tuple[str, ...]
    marks: Sequence[tuple[float, str]] = ()

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height; the width of a chart does not depend on the scale."""
        return self.height_mm, 0.0


@dataclass(frozen=True)
class Column:
    """Panels stacked vertically at the same scale, limited by the height and `max_px_per_mm`."""

    panels: tuple[Panel | Chart, ...]
    max_px_per_mm: float = float("inf")


@dataclass(frozen=True)
class Sheet:
    """Content of one figure: title, subtitle lines, columns of panels, footer and color legend."""

    title: str
    lines: tuple[str, ...]
    columns: tuple[Column, ...]
    footer: str
    key: tuple[tuple[str, Color], ...] = field(default=())


# --- drawing primitives -------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Raster:
    """A grayscale image, 0..1, that fills a box, with colored masks on its grid."""

    box: Box
    gray: npt.NDArray[np.float32]
    tints: Sequence[tuple[npt.NDArray[np.bool_], Color]] = ()


@dataclass(frozen=True, eq=False)
class Outline:
    """Closed or open thin lines with a dark border for contrast on bright signal."""

    paths: Sequence[npt.NDArray[np.float64]]
    """Each of shape (n, 2): x, y in pixels."""
    color: Color
    width_px: float = OUTLINE_PX


@dataclass(frozen=True)
class Line:
    """A straight line."""

    start: tuple[float, float]
    end: tuple[float, float]
    color: Color
    width_px: int


@dataclass(frozen=True)
class Frame:
    """The border of a box."""

    box: Box
    color: Color
    width_px: int


@dataclass(frozen=True)
class TextLine:
    """A line of text."""

    x: float
    y: float
    text: str
    size_px: int
    color: Color
    anchor: str = "la"
    """Text anchor of `x`, `y`, as defined by Pillow: l, m, r and a, m, s, d."""
    bold: bool = False
    has_border: bool = False
    """Whether the text has a dark border for contrast on an image."""


Item = Raster | Outline | Line | Frame | TextLine


@dataclass
class Drawing:
    """Items in drawing order, clipped at the edges, followed by nested drawings at (x, y)."""

    width: int
    height: int
    color: Color = BACKGROUND
    items: list[Item] = field(default_factory=list)
    parts: list[tuple[int, int, Drawing]] = field(default_factory=list)


def render(drawing: Drawing) -> Image.Image:
    """Render a drawing as RGB pixels."""
    image = Image.new("RGB", (drawing.width, drawing.height), drawing.color)
    for item in drawing.items:
        if isinstance(item, Raster):
            _render_raster(image, item)
        elif isinstance(item, Outline):
            _render_outline(image, item)
        else:
            pen = ImageDraw.Draw(image)
            if isinstance(item, Line):
                pen.line([item.start, item.end], item.color, item.width_px)
            elif isinstance(item, Frame):
                pen.rectangle(item.box, outline=item.color, width=item.width_px)
            else:
                pen.text(
                    (item.x, item.y),
                    item.text,
                    item.color,
                    font(item.size_px, bold=item.bold),
                    item.anchor,
                    stroke_width=2 if item.has_border else 0,
                    stroke_fill=BLACK,
                )
    for x, y, part in drawing.parts:
        image.paste(render(part), (x, y))
    return image


def _render_raster(image: Image.Image, item: Raster) -> None:
    left, top, right, bottom = (round(edge) for edge in item.box)
    size = (right - left, bottom - top)
    gray = Image.fromarray((np.clip(item.gray, 0, 1) * 255).astype(np.uint8))
    shown = gray.resize(size, Image.Resampling.BICUBIC)
    drawn = shown.convert("RGB")
    for mask, color in item.tints:
        if mask.any():
            area = Image.fromarray(mask.astype(np.uint8) * 255)
            area = area.resize(size, Image.Resampling.BILINEAR)
            light = np.asarray(shown, dtype=np.float32)[..., None] / 255
            toned = (light * np.array(color, dtype=np.float32)).astype(np.uint8)
            drawn.paste(Image.fromarray(toned), (0, 0), area)
    image.paste(drawn, (left, top))


def _render_outline(image: Image.Image, item: Outline) -> None:
    if not item.paths:
        return
    margin = item.width_px + 2
    ends = np.concatenate(item.paths)
    low = np.maximum(np.floor(ends.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(ends.max(axis=0) + margin) + 1, image.size).astype(int)
    if (high <= low).any():
        return
    width, height = ((high - low) * _SUPERSAMPLING).tolist()
    # The center of pixel (0, 0) is the common corner of its subpixels.
    finer = [((path - low + 0.5) * _SUPERSAMPLING - 0.5) for path in item.paths]
    paths = [[tuple(xy) for xy in path] for path in finer]
    for ink, wide, strength in ((BLACK, item.width_px + 2, 0.55), (item.color, item.width_px, 1)):
        layer = Image.new("L", (width, height), 0)
        pen = ImageDraw.Draw(layer)
        for path in paths:
            thickness = round(wide * _SUPERSAMPLING)
            pen.line(path, round(255 * strength), thickness, joint="curve")
        corner = (int(low[0]), int(low[1]))
        image.paste(ink, (*corner, int(high[0]), int(high[1])), layer.reduce(_SUPERSAMPLING))


# --- layout -------------------------------------------------------------------------------


def draw(sheet: Sheet, height_px: int) -> Image.Image:
    """Render a sheet as pixels; see `lay_out`."""
    return render(lay_out(sheet, height_px))


def lay_out(sheet: Sheet, height_px: int) -> Drawing:
    """Lay out a sheet; its width is that of its panels, up to `MAX_WIDTH_PX`.

    Parameters
    ----------
    sheet : Sheet
    height_px : int
        Height of the tallest column of panels, without captions, title and footer.
    """
    drawn = [_column(column, height_px) for column in sheet.columns]
    total = sum(part.width for part in drawn) + MARGIN_PX * (len(drawn) + 1)
    if total > MAX_WIDTH_PX:
        height_px = int(height_px * MAX_WIDTH_PX / total)
        drawn = [_column(column, height_px) for column in sheet.columns]
    bold, plain = font(TITLE_PX, bold=True), font(TEXT_PX)
    body_width = sum(part.width for part in drawn) + MARGIN_PX * (len(drawn) - 1)
    needed = max(
        [
            _width(sheet.footer, plain) + _legend_width(sheet.key),
            _width("x" * 60, plain),
            body_width,
        ]
    )
    width = round(needed) + 2 * MARGIN_PX
    title = wrap(sheet.title, bold, width - 2 * MARGIN_PX)
    lines = [part for line in sheet.lines for part in wrap(line, plain, width - 2 * MARGIN_PX)]
    title_line = TITLE_PX + 8
    top = MARGIN_PX + len(title) * title_line + len(lines) * LINE_PX + 8
    body = max(part.height for part in drawn)
    whole = Drawing(width, top + body + LINE_PX + 2 * MARGIN_PX)
    y = MARGIN_PX
    for text in title:
        whole.items.append(TextLine(MARGIN_PX, y, text, TITLE_PX, INK, bold=True))
        y += title_line
    for text in lines:
        whole.items.append(TextLine(MARGIN_PX, y, text, TEXT_PX, FAINT))
        y += LINE_PX
    x = MARGIN_PX + (width - 2 * MARGIN_PX - body_width) // 2
    for part in drawn:
        whole.parts.append((x, top, part))
        x += part.width + MARGIN_PX
    y = whole.height - MARGIN_PX - LINE_PX + 4
    whole.items.append(TextLine(MARGIN_PX, y, sheet.footer, TEXT_PX, FAINT))
    _place_legend(whole, sheet.key, width - MARGIN_PX, y)
    return whole


def png_bytes(image: Image.Image) -> bytes:
    """Encode an image as PNG: a third larger than with maximum compression, five times faster."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


@cache
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, also the default font of matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(_FONTS / name), size_px)


def wrap(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """Break text into lines that fit the width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer, face) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Separate positions by at least `gap`, minimizing the sum of squared shifts.

    The gap is reduced if the positions do not fit between `low` and `high`.

    >>> spread([10, 11, 50], 8, 0, 100)
    [6.5, 14.5, 50.0]
    """
    if not positions:
        return []
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(positions))
    # After subtracting the steps, the minimum distance becomes a monotonicity constraint.
    level = isotonic_regression(np.asarray(positions, dtype=float)[order] - steps).x
    result = np.empty(len(positions))
    result[order] = np.clip(level, low, max(high - steps[-1], low)) + steps
    return [float(value) for value in result]


def _column(column: Column, height_px: int) -> Drawing:
    captions = sum(_caption_px(panel) for panel in column.panels)
    total_mm = sum(panel.size_mm[0] for panel in column.panels)
    gaps = MARGIN_PX * (len(column.panels) - 1)
    # Captions extend below the tallest column.
    available = height_px + _caption_px(column.panels[0])
    scale = min((available - captions - gaps) / total_mm, column.max_px_per_mm)
    drawn = [
        _chart(panel, scale) if isinstance(panel, Chart) else lay_panel(panel, scale)
        for panel in column.panels
    ]
    whole = Drawing(max(part.width for part in drawn), sum(part.height for part in drawn) + gaps)
    y = 0
    for part in drawn:
        whole.parts.append((0, y, part))
        y += part.height + MARGIN_PX
    return whole


def _caption_px(panel: Panel | Chart) -> int:
    return len(panel.caption) * LINE_PX + (6 if panel.caption else 0)


def draw_panel(panel: Panel, px_per_mm: float) -> Image.Image:
    """Render one panel with its caption as pixels."""
    return render(lay_panel(panel, px_per_mm))


def lay_panel(panel: Panel, px_per_mm: float) -> Drawing:
    """Lay out one panel with its caption, with the same scale in both directions."""
    height = max(round(panel.size_mm[0] * px_per_mm), 1)
    width = max(round(panel.size_mm[1] * px_per_mm), 1)
    # A thin slab is padded to make space for the labels.
    left = max((MIN_WIDTH_PX - width) // 2, 0)
    whole = Drawing(width + 2 * left, height)
    to_px = _ToPx(height / panel.shape[0], width / panel.shape[1], float(left))
    whole.items.append(Raster((left, 0, left + width, height), panel.gray, panel.tints))
    # At small scales, a thin layer is hardly wider than a line, so its outline is drawn last.
    coarse = px_per_mm < SHEET_PX_PER_MM
    for mask, color in panel.outlines if coarse else reversed(panel.outlines):
        paths = [to_px.path(contour) for contour in contours(mask)]
        whole.items.append(Outline(paths, color))
    for stroke in panel.strokes:
        ends = to_px(stroke.start), to_px(stroke.end)
        whole.items.append(Line(*ends, stroke.color, stroke.width_px))
    width = whole.width
    occupied = _place_labels(whole, panel.labels, to_px)
    occupied += [box for box in map(_tick_box, panel.strokes, repeat(to_px)) if box is not None]
    if panel.scale_bar:
        occupied += _place_scale_bar(whole, px_per_mm, occupied)
    _place_orientation_labels(whole, panel.orientation_labels, occupied)
    if panel.framed:
        whole.items.append(Frame((0, 0, width - 1, height - 1), ORANGE, 2))
    return _with_caption(whole, panel.caption) if panel.caption else whole


def _chart(chart: Chart, px_per_mm: float) -> Drawing:
    """Lay out a chart whose axis ends at a round value above the maximum."""
    height = max(round(chart.height_mm * px_per_mm), 1)
    whole = Drawing(CHART_PX, height)
    known = [c.values[np.isfinite(c.values)] for c in chart.curves]
    largest = max((float(values.max()) for values in known if values.size), default=1.0)
    end, step = _round_scale(largest)
    top, bottom = 26.0, height - 8.0
    left, right = 10.0, CHART_PX - 18.0

    def across(value: float) -> float:
        return left + (right - left) * value / end

    for value in np.arange(0, end + step / 2, step):
        x = across(float(value))
        whole.items.append(Line((x, top), (x, bottom), GRID, 1))
        text_line = TextLine(x, top - 6, f"{value:g}", TEXT_PX, FAINT, "ms")
        whole.items.append(text_line)
    heights = spread(
        [mm * px_per_mm for mm, _ in chart.marks], TEXT_PX + 2, top + TEXT_PX, bottom - 4
    )
    for (mm, name), y in zip(chart.marks, heights, strict=True):
        place = mm * px_per_mm
        whole.items.append(Line((left, place), (right, place), GRID, 1))
        whole.items.append(TextLine(right, y - 2, name, TEXT_PX - 2, FAINT, "rs"))
    for curve in chart.curves:
        points = np.stack(
            [left + (right - left) * curve.values / end, curve.down_mm * px_per_mm], axis=1
        )
        gaps = np.flatnonzero(~np.isfinite(points).all(axis=1))
        pieces = [p[np.isfinite(p).all(axis=1)] for p in np.split(points, gaps)]
        paths = [piece for piece in pieces if len(piece) > 1]
        whole.items.append(Outline(paths, curve.color))
    return _with_caption(whole, chart.caption) if chart.caption else whole


def _round_scale(largest: float) -> tuple[float, float]:
    """Return the end of an axis that includes `largest`, and the step between its tick labels."""
    if largest <= 0.0:
        return 1.0, 0.5
    step = 10.0 ** np.floor(np.log10(largest))
    for factor in (0.5, 1.0, 2.0, 5.0):
        if largest <= 3 * factor * step:
            return float(np.ceil(largest / (factor * step)) * factor * step), float(factor * step)
    return float(10 * step), float(5 * step)


def contours(mask: npt.NDArray[np.bool_ | np.float32]) -> list[npt.NDArray[np.float64]]:
    """Return the contours of a mask, each of shape (n, 2): row, column."""
    if not mask.any():
        return []
    generator = contour_generator(z=np.pad(mask, 1).astype(np.float32))
    lines = cast(list[npt.NDArray[np.float64]], generator.lines(0.5))  # x, y
    return [line[:, ::-1] - 1 for line in lines]


@dataclass(frozen=True)
class _ToPx:
    rows: float
    columns: float
    left: float = 0.0

    def __call__(self, place: Place) -> tuple[float, float]:
        x = self.left + (place[1] + 0.5) * self.columns - 0.5
        return x, (place[0] + 0.5) * self.rows - 0.5

    def path(self, places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Convert positions (row, column) to pixels (x, y), shape (n, 2)."""
        return np.stack(self((places[:, 0], places[:, 1])), axis=1)  # type: ignore[arg-type]


def _place_orientation_labels(
    whole: Drawing, orientation_labels: tuple[str, str, str, str], occupied: Sequence[Box]
) -> None:
    """Place orientation labels at the middle of the edges, or nearby to avoid overlap.

    Where level labels occupy the whole edge, the orientation label is further inside.
    """
    width, height = whole.width, whole.height
    left, right, top, bottom = orientation_labels
    for text, anchor, along_x in (
        (left, "lm", False),
        (right, "rm", False),
        (top, "ma", True),
        (bottom, "md", True),
    ):
        for inwards, fraction in product((0, 1, 2), _EDGE_FRACTIONS):
            shift = 6.0 + 1.5 * LABEL_PX * inwards
            x = width * fraction if along_x else (shift if anchor == "lm" else width - shift)
            y = height * fraction if not along_x else (shift if anchor == "ma" else height - shift)
            text_line = TextLine(x, y, text, LABEL_PX, INK, anchor, bold=True, has_border=True)
            if not any(_overlap(_box_of(text_line), other) for other in occupied):
                break
        whole.items.append(text_line)


def _tick_box(stroke: Stroke, to_px: _ToPx) -> Box | None:
    """Return the box of a tick; None for long lines, which labels may overlap."""
    xs, ys = zip(to_px(stroke.start), to_px(stroke.end), strict=True)
    box = (min(xs) - 2, min(ys) - 2, max(xs) + 2, max(ys) + 2)
    return box if max(box[2] - box[0], box[3] - box[1]) < 3 * LABEL_PX else None


def _box_of(text_line: TextLine) -> Box:
    """Return the box of a line of text, including its border."""
    face = font(text_line.size_px, bold=text_line.bold)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    return pen.textbbox(
        (text_line.x, text_line.y), text_line.text, face, text_line.anchor, stroke_width=3
    )


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _place_scale_bar(whole: Drawing, px_per_mm: float, occupied: Sequence[Box]) -> list[Box]:
    """Place the scale bar in the lower right corner, or the left one if that is occupied."""
    width, height = whole.width, whole.height
    length = SCALE_BAR_MM * px_per_mm
    if length > 0.6 * width:
        return []
    text = f"{SCALE_BAR_MM:.0f} mm"
    y, wide = height - 12.0, max(length, _width(text, font(TEXT_PX)))
    for right in (width - 12.0, 12.0 + wide):
        box = (right - wide, y - 8 - TEXT_PX, right, y + 6)
        if not any(_overlap(box, other) for other in occupied):
            break
    x = right - length
    for inflate, color in ((1, BLACK), (0, INK)):
        bar = Line((x - inflate, y), (right + inflate, y), color, 3 + 2 * inflate)
        whole.items.append(bar)
        for end in (x, right):
            low, high = (end, y - 5 - inflate), (end, y + 5 + inflate)
            whole.items.append(Line(low, high, color, 2 + 2 * inflate))
    whole.items.append(TextLine(right, y - 8, text, TEXT_PX, INK, "rs", has_border=True))
    return [box]


def _place_labels(whole: Drawing, labels: Sequence[Label], to_px: _ToPx) -> list[Box]:
    """Place labels without overlap; return their boxes."""
    width, height = whole.width, whole.height
    occupied: list[Box] = []
    for side in ("left", "right"):
        group = [label for label in labels if label.side == side]
        if not group:
            continue
        at = [to_px(label.place) for label in group]
        half = LABEL_PX / 2 + 2
        heights = spread([y for _, y in at], LABEL_PX + 3, half, height - half)
        for label, (x, _), y in zip(group, at, heights, strict=True):
            length = _width(label.text, font(LABEL_PX, bold=label.bold))
            # Keep labels near an edge inside the image.
            start = x - length - 4 if side == "left" else x + 4
            start = min(max(start, 4.0), max(width - length - 4, 4.0))
            box = (start, y - half, start + length, y + half)
            if label.optional and any(_overlap(box, other) for other in occupied):
                continue
            text_line = TextLine(
                start, y, label.text, LABEL_PX, label.color, "lm", bold=label.bold, has_border=True
            )
            whole.items.append(text_line)
            occupied.append(box)
    return occupied


def _with_caption(part: Drawing, caption: tuple[str, ...]) -> Drawing:
    plain, bold = font(TEXT_PX), font(TEXT_PX, bold=True)
    faces = [bold] + [plain] * (len(caption) - 1)
    needed = max(_width(text, face) for text, face in zip(caption, faces, strict=True))
    width = max(part.width, round(needed) + 2)
    whole = Drawing(width, part.height + 6 + len(caption) * LINE_PX)
    whole.parts.append(((width - part.width) // 2, 0, part))
    for n, text in enumerate(caption):
        y = part.height + 6 + n * LINE_PX
        whole.items.append(TextLine(0, y, text, TEXT_PX, FAINT if n else INK, bold=not n))
    return whole


def _place_legend(
    whole: Drawing, key: tuple[tuple[str, Color], ...], right: float, y: float
) -> None:
    face = font(TEXT_PX)
    middle = y + LINE_PX / 2 - 1
    for text, color in reversed(key):
        right -= _width(text, face)
        whole.items.append(TextLine(right, y, text, TEXT_PX, INK))
        right -= 28
        whole.items.append(Line((right, middle), (right + 20, middle), color, 3))
        right -= 16


def _legend_width(key: tuple[tuple[str, Color], ...]) -> float:
    return sum(_width(text, font(TEXT_PX)) + 44 for text, _ in key) + 24


def _width(text: str, face: ImageFont.FreeTypeFont) -> float:
    return float(face.getlength(text))
