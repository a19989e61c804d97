"""Contact sheets: every case at a glance, truth and result outlined on the image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.evaluation.reading import Reading
from leakloc.vocabulary import SHORT_NOTICE
from leakloc.volume import Volume

if TYPE_CHECKING:
    from leakloc.evaluation.cases import Case

HEIGHT_PX: Final = 420
"""Height of a tile's sagittal plane: about one pixel a voxel."""

AXIAL_MM: Final = 80.0
"""Edge of the axial plane: canal, laminae and the surgical bed."""

DEPTH_MM: Final = (70.0, 80.0)
"""Room in front of and behind the canal in the sagittal plane."""

WINDOW_PERCENT: Final = (1.0, 99.8)
COLUMNS: Final = 6

COLOURS: Final = {
    "true sac": (86, 180, 233),
    "found sac": (230, 159, 0),
    "true fluid": (0, 200, 120),
    "found fluid": (255, 60, 180),
}
"""Outlines: truth cool, result warm."""

Plane = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tile:
    """One case: a sagittal plane and an axial one, with outlines.

    Parameters
    ----------
    caption : tuple of str
    rgb : ndarray, shape (rows, columns, 3), uint8
    """

    caption: tuple[str, ...]
    rgb: npt.NDArray[np.uint8]


def make_tile(
    name: str, image: Volume, found: Reading, truth: Reading, case: Case | None = None
) -> Tile:
    """Draw one case at the largest cross-section of its fluid (true before found).

    Parameters
    ----------
    image : Volume
        What the masks lie on.
    """
    turned = image.oriented("LPS")
    masks = {
        "true sac": _turned(truth.thecal_sac, turned),
        "found sac": _turned(found.thecal_sac, turned),
        "true fluid": _turned(truth.fluid, turned),
        "found fluid": _turned(found.fluid, turned),
    }
    k, j, i = _focus(masks, turned)
    values = turned.array[::2, ::2, ::2]
    low, high = (float(v) for v in np.percentile(values, WINDOW_PERCENT))
    dk, dj, di = turned.geometry.spacing_kji_mm

    def panel(cut: tuple[Any, ...], across_mm: tuple[float, float], height_px: int) -> Plane:
        grey = np.clip((turned.array[cut].astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        outlines = {n: m[cut] for n, m in masks.items() if m is not None}
        return _drawn(grey, outlines, across_mm, height_px)

    front, back = (round(mm / dj) for mm in DEPTH_MM)
    depth = slice(max(j - front, 0), j + back)
    sagittal = panel((slice(None, None, -1), depth, i), (dk, dj), HEIGHT_PX)
    half_j, half_i = round(AXIAL_MM / 2 / dj), round(AXIAL_MM / 2 / di)
    box = (k, slice(max(j - half_j, 0), j + half_j), slice(max(i - half_i, 0), i + half_i))
    axial = panel(box, (dj, di), HEIGHT_PX // 2)
    filler = np.zeros((HEIGHT_PX - axial.shape[0], axial.shape[1], 3), np.uint8)
    return Tile(_caption(name, case), np.hstack([sagittal, np.vstack([axial, filler])]))


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """All tiles on one picture, as a PNG file."""
    from PIL import Image, ImageDraw

    from leakloc.report.canvas import font

    face = font(13)
    line = 17
    words = max((len(tile.caption) for tile in tiles), default=1) * line + 6
    width = max((tile.rgb.shape[1] for tile in tiles), default=200) + 8
    columns = min(COLUMNS, max(len(tiles), 1))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width, 40 + rows * (HEIGHT_PX + words)), "black")
    pen = ImageDraw.Draw(sheet)
    x = 6
    for name, colour in COLOURS.items():
        pen.text((x, 10), name, fill=colour, font=face)
        x += 110
    pen.text((x, 10), SHORT_NOTICE, fill="white", font=face)
    for number, tile in enumerate(tiles):
        left, top = number % columns * width, 40 + number // columns * (HEIGHT_PX + words)
        for row, text in enumerate(tile.caption):
            pen.text((left + 2, top + row * line), text, fill="white", font=face)
        sheet.paste(Image.fromarray(tile.rgb), (left, top + words))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _caption(name: str, case: Case | None) -> tuple[str, ...]:
    if case is None:
        return (name,)
    figures = [f"sac {case.sac_dice:.3f}" if case.sac_dice == case.sac_dice else ""]
    if case.fluid_dice == case.fluid_dice:
        figures.append(f"fluid {case.fluid_dice:.2f}")
    figures.append(f"found {case.found_collections}/{case.true_collections}")
    if case.invented_collections:
        figures.append(f"invented {case.invented_collections}")
    return name, "  ".join(f for f in figures if f)


def _turned(mask: Volume | None, image: Volume) -> Plane | None:
    if mask is None:
        return None
    on_image = mask.oriented("LPS")
    if not on_image.geometry.matches(image.geometry):
        on_image = mask.resample(image.geometry, order=0)
    return np.asarray(on_image.array > 0)


def _focus(masks: dict[str, Plane | None], image: Volume) -> tuple[int, int, int]:
    """Where the fluid's axial section is largest; the middle of the sac without fluid."""
    for name in ("true fluid", "found fluid", "true sac", "found sac"):
        mask = masks[name]
        if mask is None or not mask.any():
            continue
        areas = mask.sum(axis=(1, 2))
        rows = np.flatnonzero(areas)
        k = int(areas.argmax()) if name.endswith("fluid") else int(np.median(rows))
        k = k if areas[k] else int(rows[len(rows) // 2])
        j, i = np.argwhere(mask[k]).mean(axis=0)
        return k, round(float(j)), round(float(i))
    k, j, i = (n // 2 for n in image.array.shape)
    return k, j, i


def _drawn(
    grey: Plane, outlines: dict[str, Plane], across_mm: tuple[float, float], height_px: int
) -> Plane:
    from PIL import Image
    from scipy.ndimage import binary_erosion

    rows_mm, columns_mm = grey.shape[0] * across_mm[0], grey.shape[1] * across_mm[1]
    size = (max(round(height_px * columns_mm / rows_mm), 1), height_px)
    picture = Image.fromarray((grey * 255).astype(np.uint8))
    rgb = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).convert("RGB")).copy()
    for name, mask in outlines.items():
        scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            size, Image.Resampling.BILINEAR
        )
        inside = np.asarray(scaled) > 127
        rgb[inside & ~binary_erosion(inside)] = COLOURS[name]
    return rgb
