"""How studies, volumes and results show themselves in a notebook: small pieces of HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.vocabulary import SHORT_NOTICE

if TYPE_CHECKING:
    from leakloc.loaders.study import Study
    from leakloc.pipeline import Analysis
    from leakloc.volume import Volume

PLANE_PX: Final = 280
"""Height of each of the three planes of a volume: together as wide as a notebook's cell."""

WINDOW_PERCENT: Final = (1.0, 99.7)
"""Percentiles of the signal shown as black and white; single bright voxels do not count."""

_PLANES: Final = (("sagittal", 2), ("coronal", 1), ("axial", 0))
"""The planes of an LPS volume and the array axis each is across."""


def study_html(study: Study) -> str:
    """The series of a study as a table."""
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
    head = ("series", "description", "voxels (k, j, i)", "mm (i, j, k)", "notes")
    left_out = f"<p>{len(study.skipped)} files left out.</p>" if study.skipped else ""
    title = f"<p><strong>Study of {len(rows)} series</strong></p>"
    return f"<div>{title}{_table(head, rows)}{left_out}</div>"


def volume_html(volume: Volume) -> str:
    """Three planes through the middle of a volume (of its labels, where it is a mask)."""
    picture = png_tag(volume_picture(volume), "sagittal, coronal and axial plane")
    return f"<div><p><code>{escape(repr(volume))}</code></p>{picture}</div>"


def analysis_html(analysis: Analysis) -> str:
    """The finding, its collections and the overview picture."""
    from leakloc.report import picture

    shown = picture(analysis, "overview")
    return f"<div>{analysis.report._repr_html_()}{png_tag(shown.rgb, shown.alt)}</div>"


def volume_picture(volume: Volume) -> npt.NDArray[np.uint8]:
    """Sagittal, coronal and axial plane side by side, shape (rows, columns, 3).

    Through the middle of the labels where the volume is a mask, else of the field; head and
    front up, the patient's right on the left.
    """
    from PIL import Image

    turned = volume.oriented("LPS")
    array = turned.array
    center = _center(array)
    low, high = _window(array)
    spacing = turned.geometry.spacing_kji_mm
    planes = []
    for name, axis in _PLANES:
        plane = np.take(array, center[axis], axis=axis)
        across = [mm for n, mm in enumerate(spacing) if n != axis]
        grey = np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)
        if name != "axial":
            grey = grey[::-1]  # head up
        width = max(round(PLANE_PX * grey.shape[1] * across[1] / (grey.shape[0] * across[0])), 1)
        image = Image.fromarray((grey * 255).astype(np.uint8))
        planes.append(np.asarray(image.resize((width, PLANE_PX), Image.Resampling.BILINEAR)))
    gap = np.full((PLANE_PX, 4), 255, np.uint8)
    row = np.concatenate([planes[0], gap, planes[1], gap, planes[2]], axis=1)
    return np.repeat(row[:, :, None], 3, axis=2)


def png_tag(rgb: npt.NDArray[np.uint8], alt: str) -> str:
    """A picture as an ``<img>`` that needs no file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return (
        f'<img style="max-width:100%" alt="{escape(alt, quote=True)}" '
        f'src="data:image/png;base64,{data}"><p><small>{SHORT_NOTICE}</small></p>'
    )


def _center(array: npt.NDArray[Any]) -> tuple[int, ...]:
    labels = array.dtype in (np.bool_, np.uint8)
    if labels and array.any() and (array > 0).mean() < 0.5:
        return tuple(round(n) for n in np.argwhere(array).mean(axis=0))
    return tuple(n // 2 for n in array.shape)


def _window(array: npt.NDArray[Any]) -> tuple[float, float]:
    values = array[::2, ::2, ::2]
    values = values[np.isfinite(values)].astype(np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, WINDOW_PERCENT))
    if high <= low:  # a mask: most of it is background
        low, high = float(values.min()), float(values.max())
    return low, max(high, low + 1e-6)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    def line(cells: Iterable[object], tag: str) -> str:
        texts = ("" if cell is None else escape(str(cell)) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
