"""Layers of a report folder, and the edits made in them.

napari displays axes ``[k, j, i]`` from the first down. Here k points inferiorly, j posteriorly and
i to the patient's left, so that axial, coronal, sagittal and three-dimensional views have the
radiological orientation. World coordinates are millimeters: ``(-z, y, x)`` of LPS ``(x, y, z)``.

Layers are placed by scale and translation, as napari edits slices of rotated layers at wrong
positions: an oblique grid is displayed along its own axes, with its center at the correct position.
Positions are converted by the grid and are exact in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from leakloc.core.errors import InputError
from leakloc.core.volume import Geometry, Volume
from leakloc.notebook import display_window
from leakloc.relabel import DiscPoint
from leakloc.report import ReportContents, read_contents
from leakloc.report.canvas import ORANGE
from leakloc.report.label_files import mask_labels

LayerData = tuple[Any, dict[str, Any], str]
"""Data, attributes and type of a layer."""

DISCS: Final = "discs"
FLUID: Final = "epidural fluid"
KEY: Final = "leakloc"
"""Key in the metadata of a layer."""

_AXES: Final = "LPI"
"""Directions of i, j and k."""
_OPACITY: Final = 0.4
_NEW_COLOR: Final = tuple(value / 255 for value in ORANGE)
"""Color of labels added by the reader."""
_POINT_MM: Final = 4.0
"""Size of disc points, about half the height of a disc."""


def report_reader(path: str | Sequence[str]) -> Callable[..., list[LayerData]] | None:
    """Return the reader of a report folder for napari; None for other paths.

    Parameters
    ----------
    path : str or sequence of str
        A report folder or its ``report.json``; or a report folder and its study, in any order.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]
    folders = [p.parent if p.name == "report.json" else p for p in paths]
    reports = [p for p in folders if (p / "report.json").is_file()]
    studies = [p for p in folders if p not in reports]
    if len(reports) != 1 or len(studies) > 1:
        return None
    return lambda _path: layer_data(reports[0], *studies)


def layer_data(folder: str | Path, study: str | Path | None = None) -> list[LayerData]:
    """Return the layers of a report folder: masks, disc points, and the image of its study.

    Parameters
    ----------
    folder : path
        Output folder of `leakloc analyze`.
    study : path, optional
        The analyzed study; without it, the image is omitted.

    Raises
    ------
    InputError
        If a file cannot be read, it is another study, or the report contains no masks.
    """
    contents = read_contents(folder, study)
    layers = image_layers(contents)
    for name, labels in mask_labels(contents.report).items():
        if name in contents.masks:
            colors = {label.value: tuple(c / 255 for c in label.color) for label in labels}
            attributes: dict[str, Any] = {
                "name": name.replace("_", " "),
                "opacity": _OPACITY,
                "features": {
                    "index": [0, *(label.value for label in labels)],
                    "name": ["", *(label.name for label in labels)],
                },
                "visible": name != "levels",
                "colormap": {0: "transparent", **colors, None: _NEW_COLOR},
            }
            mask = contents.masks[name].oriented(_AXES)
            layers.append((mask.array, attributes | _placement(contents), "labels"))
    layers.append(_disc_layer(contents))
    return layers


def image_layers(contents: ReportContents) -> list[LayerData]:
    """Return the layer of the myelogram; an empty list without image."""
    if contents.image is None:
        return []
    image = contents.image.oriented(_AXES).array
    attributes = {
        "name": "myelogram",
        "contrast_limits": display_window(image),
        "projection_mode": "none",  # not averaged in thick slices
    }
    return [(image, attributes | _placement(contents), "image")]


def edited_layers(
    layers: Iterable[Any],
) -> tuple[ReportContents, list[DiscPoint] | None, Volume | None]:
    """Return the report, the disc points and the fluid mask of edited layers.

    Parameters
    ----------
    layers : iterable of napari.layers.Layer
        Layers of one report; others are ignored. Points or mask are None if the layer was closed.

    Raises
    ------
    InputError
        If no report or several reports are open, or the report was replaced in the meantime.
    """
    ours = [layer for layer in layers if KEY in layer.metadata]
    opened = {tuple(layer.metadata[KEY].values()) for layer in ours}
    if len(opened) != 1:
        raise InputError("open one report folder" if not opened else "several reports are open")
    ((folder, created),) = opened
    contents = read_contents(folder)
    if contents.report.generator.created != created:
        raise InputError("the report was replaced after it was opened: open it again")
    grid = _grid(contents)
    discs, fluid = None, None
    for layer in ours:
        if layer.name == DISCS:
            discs = [
                DiscPoint(str(reported), str(name), grid.lps_from_kji(point))
                for reported, name, point in zip(
                    layer.features["reported"], layer.features["name"], layer.data, strict=True
                )
            ]
        if layer.name == FLUID:
            fluid = Volume(np.asarray(layer.data), grid)
    return contents, discs, fluid


def _disc_layer(contents: ReportContents) -> LayerData:
    discs = contents.report.levels.discs
    names = [disc.name for disc in discs]
    centers = np.array([disc.center_lps_mm for disc in discs]).reshape(-1, 3)
    size = _POINT_MM / _grid(contents).spacing_kji_mm[0]
    attributes = {
        "name": DISCS,
        "features": {"reported": names, "name": names},
        "text": {  # anterior to the point in sagittal planes, to the right of it in the others
            "string": "{name}",
            "anchor": "upper_right",
            "translation": (0, -size, -size),
            "color": "white",
        },
        "size": size,
        "face_color": "transparent",
        "border_color": "yellow",
        "projection_mode": "all",  # in thick slices
    }
    points = _grid(contents).kji_from_lps(centers)
    return points, attributes | _placement(contents), "points"


def _grid(contents: ReportContents) -> Geometry:
    for mask in contents.masks.values():
        return mask.oriented(_AXES).geometry
    raise InputError("the report contains no masks: repeat the analysis with --write masks")


def _placement(contents: ReportContents) -> dict[str, Any]:
    """Return scale and translation of the layers of a report, and its identification."""
    grid = _grid(contents)
    scale = np.array(grid.spacing_kji_mm)
    center = grid.center_lps[::-1] * (-1, 1, 1)
    created = contents.report.generator.created
    return {
        "scale": scale,
        "translate": center - scale * (np.array(grid.shape) - 1) / 2,
        "axis_labels": ("inferior", "posterior", "left"),
        "units": ("mm", "mm", "mm"),
        "metadata": {KEY: {"folder": str(contents.folder.absolute()), "created": created}},
    }
