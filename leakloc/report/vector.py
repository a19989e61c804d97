"""Figures as vector graphics: PDF with one figure per page, or matplotlib figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from leakloc.report.canvas import (
    BLACK,
    Color,
    Drawing,
    Frame,
    Line,
    Outline,
    Raster,
    TextLine,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

PX_PER_INCH: Final = 100  # resolution of a drawing: text of 15 px has 11 points on paper
_POINTS: Final = 72 / PX_PER_INCH
_ACROSS: Final = {"l": "left", "m": "center", "r": "right"}
_DOWN: Final = {"a": "top", "m": "center", "s": "baseline", "d": "bottom"}


def figure(drawing: Drawing) -> Figure:
    """Convert a drawing to a matplotlib figure of the same layout.

    The figure is not registered with pyplot.
    """
    size = (drawing.width / PX_PER_INCH, drawing.height / PX_PER_INCH)
    made = Figure(figsize=size, dpi=PX_PER_INCH, facecolor=_rgb(drawing.color))
    axes = made.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(
        xlim=(-0.5, drawing.width - 0.5), ylim=(drawing.height - 0.5, -0.5), autoscale_on=False
    )
    _draw(axes, drawing, 0.0, 0.0)
    return made


def write_pdf(drawings: Iterable[Drawing], target: BinaryIO) -> None:
    """Write a PDF with one page per drawing, with searchable text and vector outlines."""
    # TrueType fonts for searchable text; no creation date, so that the output is reproducible.
    with (
        rc_context({"pdf.fonttype": 42, "pdf.compression": 6}),
        PdfPages(target, metadata={"Creator": "leakloc", "CreationDate": None}) as pages,
    ):
        for drawing in drawings:
            made = figure(drawing)
            made.savefig(pages, format="pdf", facecolor=made.get_facecolor())


def _draw(axes: Axes, drawing: Drawing, left: float, top: float) -> None:
    low = (left - 0.5, top - 0.5)
    clip = Rectangle(low, drawing.width, drawing.height, transform=axes.transData)
    if (left, top) != (0, 0):
        page = Rectangle(low, drawing.width, drawing.height, color=_rgb(drawing.color))
        axes.add_patch(page)
    order = len(axes.get_children())
    for item in drawing.items:
        for artist in _artists(axes, item, left, top):
            artist.set_clip_path(clip)
            order += 1
            artist.set_zorder(10 + order)  # in layout order, independent of artist type
    for x, y, part in drawing.parts:
        _draw(axes, part, left + x, top + y)


def _artists(
    axes: Axes, item: Raster | Outline | Line | Frame | TextLine, left: float, top: float
) -> list[Artist]:
    if isinstance(item, Raster):
        return [_image(axes, item, left, top)]
    if isinstance(item, Outline):
        return _lines(axes, item, left, top)
    if isinstance(item, Line):
        (x1, y1), (x2, y2) = item.start, item.end
        return axes.plot(  # type: ignore[return-value]
            [left + x1, left + x2],
            [top + y1, top + y2],
            color=_rgb(item.color),
            linewidth=item.width_px * _POINTS,
            solid_capstyle="butt",
        )
    if isinstance(item, Frame):
        x1, y1, x2, y2 = item.box
        frame = Rectangle(
            (left + x1, top + y1),
            x2 - x1,
            y2 - y1,
            fill=False,
            edgecolor=_rgb(item.color),
            linewidth=2 * item.width_px * _POINTS,  # its outer half is clipped
        )
        axes.add_patch(frame)
        return [frame]
    return [_text(axes, item, left, top)]


def _image(axes: Axes, item: Raster, left: float, top: float) -> Artist:
    x1, y1, x2, y2 = item.box
    rgb = np.repeat(np.clip(item.gray, 0, 1)[..., None], 3, axis=-1)
    for mask, color in item.tints:
        rgb = np.where(mask[..., None], item.gray[..., None] * np.array(_rgb(color)), rgb)
    extent = (left + x1 - 0.5, left + x2 - 0.5, top + y2 - 0.5, top + y1 - 0.5)
    return axes.imshow(
        (rgb * 255).astype(np.uint8), extent=extent, aspect="auto", interpolation="none"
    )


def _lines(axes: Axes, item: Outline, left: float, top: float) -> list[Artist]:
    paths = [np.add(path, (left, top)) for path in item.paths]
    drawn: list[Artist] = []
    for color, width, strength in (
        (BLACK, item.width_px + 2, 0.55),
        (item.color, item.width_px, 1.0),
    ):
        lines = LineCollection(
            paths, colors=[_rgb(color)], linewidths=width * _POINTS, alpha=strength
        )
        axes.add_collection(lines, autolim=False)
        drawn.append(lines)
    return drawn


def _text(axes: Axes, item: TextLine, left: float, top: float) -> Artist:
    text = axes.text(
        left + item.x,
        top + item.y,
        item.text,
        color=_rgb(item.color),
        family="DejaVu Sans",
        fontsize=item.size_px * _POINTS,
        fontweight="bold" if item.bold else "normal",
        ha=_ACROSS[item.anchor[0]],
        va=_DOWN[item.anchor[1]],
        parse_math=False,
    )
    if item.has_border:
        text.set_path_effects([withStroke(linewidth=4 * _POINTS, foreground="black")])
    return text


def _rgb(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
