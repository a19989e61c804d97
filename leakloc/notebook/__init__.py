"""Notebook views of studies, volumes and results: HTML, planes with outlines, pandas tables."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_erosion

from leakloc.anatomy.vocabulary import SHORT_NOTICE
from leakloc.core.extras import LazyModule
from leakloc.core.settings import Settings
from leakloc.core.templates import render_html
from leakloc.loaders import series_table
from leakloc.report import picture
from leakloc.report.tables import collection_rows, level_rows

if TYPE_CHECKING:
    import pandas as pd

    from leakloc.analysis import AnalysisData
    from leakloc.core.volume import Volume
    from leakloc.loaders.study import Study
    from leakloc.report.model import Report
else:
    pd = LazyModule("pandas", "research")

PLANE_PX: Final = 280
"""Height of each of the three planes of a volume; together they fit the width of a notebook
cell."""

WINDOW_PERCENT: Final = (1.0, 99.7)
"""Percentiles of the signal displayed as black and white, which ignore single bright voxels."""

OUTLINED_PX: Final = 420
"""Height of a sagittal plane with outlines: about one pixel per voxel."""

OUTLINED_AXIAL_MM: Final = 80.0
"""Edge length of the axial plane, which covers canal, laminae and the surgical bed."""

OUTLINED_DEPTH_MM: Final = (70.0, 80.0)
"""Extent of the sagittal plane anterior and posterior to the canal."""

OUTLINE_COLORS: Final = ((86, 180, 233), (255, 60, 180), (0, 200, 120), (230, 159, 0))
"""Outline colors, distinguishable with color vision deficiency and from gray."""

_PLANES: Final = (("sagittal", 2), ("coronal", 1), ("axial", 0))
"""Planes of an LPS volume and the array axis perpendicular to each."""

Plane = npt.NDArray[Any]
Color = tuple[int, int, int]


def study_html(study: Study) -> str:
    """Return the series of a study as an HTML table."""
    rows = []
    for stack in study.stacks:
        geometry = stack.geometry
        size = " × ".join(str(n) for n in geometry.shape) if geometry is not None else "no volume"
        spacing = (
            " × ".join(f"{mm:.3g}" for mm in geometry.spacing_ijk_mm)
            if geometry is not None
            else ""
        )
        notes = "; ".join(note.message for note in stack.notes)
        rows.append((stack.series_number, stack.description, size, spacing, notes))
    return render_html(
        "notebook/study.html.j2",
        header=("series", "description", "voxels (k, j, i)", "mm (i, j, k)", "notes"),
        rows=rows,
        skipped=len(study.skipped),
    )


def volume_html(volume: Volume) -> str:
    """Return HTML of three planes through the center of a volume (of its labels, for a mask)."""
    picture = _embed(volume_picture(volume), "sagittal, coronal and axial plane")
    return render_html("notebook/volume.html.j2", text=repr(volume), picture=picture)


def analysis_html(analysis: AnalysisData, report: Report) -> str:
    """Return HTML of the finding, its collections and the overview figure."""
    figure = picture(analysis, "overview")
    embedded = _embed(figure.rgb, figure.alt)
    return render_html("notebook/analysis.html.j2", report=report, picture=embedded)


def volume_picture(volume: Volume) -> npt.NDArray[np.uint8]:
    """Return sagittal, coronal and axial planes side by side, shape (rows, columns, 3).

    The planes pass through the center of the labels of a mask, or of the field of view. Cranial
    and anterior are up; the patient's right is on the left.
    """
    turned = volume.oriented("LPS")
    array = turned.array
    center = _center(array)
    low, high = display_window(array)
    spacing = turned.geometry.spacing_kji_mm
    planes = []
    for name, axis in _PLANES:
        plane = np.take(array, center[axis], axis=axis)
        across = [mm for n, mm in enumerate(spacing) if n != axis]
        gray = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
        if name != "axial":
            gray = gray[::-1]  # cranial up
        width = max(round(PLANE_PX * gray.shape[1] * across[1] / (gray.shape[0] * across[0])), 1)
        image = Image.fromarray((gray * 255).astype(np.uint8))
        planes.append(np.asarray(image.resize((width, PLANE_PX), Image.Resampling.BILINEAR)))
    gap = np.full((PLANE_PX, 4), 255, np.uint8)
    row = np.concatenate([planes[0], gap, planes[1], gap, planes[2]], axis=1)
    return np.repeat(row[:, :, None], 3, axis=2)


def display_window(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the signals of a volume displayed as black and white (`WINDOW_PERCENT`)."""
    values = array[::2, ::2, ::2]
    values = values[np.isfinite(values)].astype(np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, WINDOW_PERCENT))
    if high <= low:  # a mask: most of it is background
        low, high = float(values.min()), float(values.max())
    return low, max(high, low + 1e-6)


def draw_outlines(
    image: Volume,
    masks: Mapping[str, Volume],
    *,
    colors: Mapping[str, Color] | None = None,
    point_lps: npt.ArrayLike | None = None,
) -> npt.NDArray[np.uint8]:
    """Return a sagittal and an axial plane with the outlines of masks.

    Parameters
    ----------
    image : Volume
    masks : mapping
        By name; masks on another grid are resampled (nearest neighbor).
    colors : mapping, optional
        By the same names; defaults if None.
    point_lps : array_like, optional
        Intersection of the planes; if None, the center of the largest axial section of the
        first non-empty mask.

    Returns
    -------
    ndarray, shape (rows, columns, 3)
        Cranial and anterior are up, the patient's right is on the left; display with
        ``PIL.Image.fromarray``.
    """
    turned = image.oriented("LPS")
    planes = {name: _match_grid(mask, turned) for name, mask in masks.items()}
    colors = colors or dict(zip(planes, itertools.cycle(OUTLINE_COLORS)))
    if point_lps is None:
        k, j, i = _largest_section(planes.values(), turned)
    else:
        at = turned.geometry.kji_from_lps(point_lps).round().astype(int)
        k, j, i = (int(n) for n in at.clip(0, np.array(turned.array.shape) - 1))
    low, high = display_window(turned.array)
    dk, dj, di = turned.geometry.spacing_kji_mm

    def panel(cut: tuple[Any, ...], across_mm: tuple[float, float], height_px: int) -> Plane:
        gray = np.clip((turned.array[cut].astype(np.float32) - low) / (high - low), 0, 1)
        lines = [(mask[cut], colors[name]) for name, mask in planes.items()]
        return _draw(gray, lines, across_mm, height_px)

    front, back = (round(mm / dj) for mm in OUTLINED_DEPTH_MM)
    sagittal = panel(
        (slice(None, None, -1), slice(max(j - front, 0), j + back), i), (dk, dj), OUTLINED_PX
    )
    half_j, half_i = round(OUTLINED_AXIAL_MM / 2 / dj), round(OUTLINED_AXIAL_MM / 2 / di)
    box = (k, slice(max(j - half_j, 0), j + half_j), slice(max(i - half_i, 0), i + half_i))
    axial = panel(box, (dj, di), OUTLINED_PX // 2)
    filler = np.zeros((OUTLINED_PX - axial.shape[0], axial.shape[1], 3), np.uint8)
    return np.hstack([sagittal, np.vstack([axial, filler])])


def study_table(study: Study, settings: Settings | None = None) -> pd.DataFrame:
    """Return the series of a study: geometry, role, and the rule that assigned the role."""
    rows, _ = series_table(study, (settings or Settings()).loaders)
    return _frame(rows)


def collections_table(report: Report) -> pd.DataFrame:
    """Return the collections of a report: level, side, size, confidence, path from the hiatus."""
    return _frame(collection_rows(report))


def levels_table(report: Report) -> pd.DataFrame:
    """Return vertebrae and discs, cranial to caudal, with centers and sac at their level."""
    return _frame(level_rows(report))


def sac_table(report: Report) -> pd.DataFrame:
    """Return the volume and areas of the thecal sac per motion segment."""
    return _frame([segment.model_dump() for segment in report.thecal_sac.by_segment])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def _center(array: npt.NDArray[Any]) -> tuple[int, ...]:
    labels = array.dtype in (np.bool_, np.uint8)
    if labels and array.any() and (array > 0).mean() < 0.5:
        return tuple(round(n) for n in np.argwhere(array).mean(axis=0))
    return tuple(n // 2 for n in array.shape)


def _embed(rgb: npt.NDArray[np.uint8], alt: str) -> dict[str, str]:
    """Return the values of ``picture.html.j2``."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    png = base64.b64encode(stream.getvalue()).decode("ascii")
    return {"alt": alt, "png": png, "notice": SHORT_NOTICE}


def _match_grid(mask: Volume, image: Volume) -> Plane:
    on_image = mask.oriented("LPS")
    if not on_image.geometry.matches(image.geometry):
        on_image = mask.resample(image.geometry, order=0)
    return np.asarray(on_image.array > 0)


def _largest_section(masks: Iterable[Plane], image: Volume) -> tuple[int, int, int]:
    for mask in masks:
        if mask.any():
            k = int(mask.sum(axis=(1, 2)).argmax())
            j, i = np.argwhere(mask[k]).mean(axis=0)
            return k, round(float(j)), round(float(i))
    k, j, i = (n // 2 for n in image.array.shape)
    return k, j, i


def _draw(
    gray: Plane,
    outlines: Iterable[tuple[Plane, Color]],
    across_mm: tuple[float, float],
    height_px: int,
) -> Plane:
    rows_mm, columns_mm = gray.shape[0] * across_mm[0], gray.shape[1] * across_mm[1]
    size = (max(round(height_px * columns_mm / rows_mm), 1), height_px)
    picture = Image.fromarray((gray * 255).astype(np.uint8))
    rgb = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).convert("RGB")).copy()
    for mask, color in outlines:
        filled = Image.fromarray(mask.astype(np.uint8) * 255)
        inside = np.asarray(filled.resize(size, Image.Resampling.BILINEAR)) > 127
        rgb[inside & ~binary_erosion(inside)] = color
    return rgb
