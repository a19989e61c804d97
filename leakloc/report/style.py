"""Labels, captions and colors common to all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.vocabulary import SHORT_NOTICE
from leakloc.core.version import __version__
from leakloc.report.canvas import BLUE, ORANGE, Color, Label
from leakloc.report.views import Plane, StudyView

if TYPE_CHECKING:
    from leakloc.localization.result import Collection


def collection_labels(cells: Plane) -> tuple[Label, ...]:
    """Label each collection in a plane with its id, at its right edge in the figure."""
    tags = []
    for value in np.unique(cells):
        if value:
            where = np.argwhere(cells == value)
            row = int(np.median(where[:, 0]))
            near = where[np.abs(where[:, 0] - row) <= 1]
            edge = float(near[:, 1].max()) if near.size else float(where[:, 1].max())
            tags.append(Label(str(int(value)), (row, edge + 1), ORANGE, bold=True))
    return tuple(tags)


def numbering_text(view: StudyView, collection: Collection | None = None) -> str:
    """Describe the level numbering and the alternative levels of a collection."""
    levels = view.analysis.levels
    if levels.status == "unlabelled" or not levels.vertebrae:
        return "Levels could not be named."
    numbering = levels.numbering
    text = f"Numbering assumes {numbering.assumption} (confidence {numbering.confidence:.2f})."
    if collection is not None and collection.alternatives:
        others = ", ".join(f"{a.level} ({a.score:.2f})" for a in collection.alternatives[:3])
        text += f" Alternative levels: {others}."
    elif numbering.transitional_suspected:
        text += " Transitional vertebra suspected."
    return text


def footer() -> str:
    """Return the notice and version for the footer of a figure."""
    return f"{SHORT_NOTICE} · leakloc {__version__}"


def legend(with_fluid: bool) -> tuple[tuple[str, Color], ...]:
    """Return the color legend of the outlines."""
    sac = ("thecal sac", BLUE)
    return (sac, ("epidural fluid", ORANGE)) if with_fluid else (sac,)


def format_position(view: StudyView, kji: tuple[float, float, float], axis: int) -> str:
    """Format a slice position as patient coordinate in mm, with its orientation label."""
    return format_coordinate(float(view.geometry.lps_from_kji(kji)[axis]), axis)


def format_coordinate(value: float, axis: int) -> str:
    """Format an LPS coordinate (axis 0: left, 1: posterior, 2: head) with its orientation label."""
    orientation_labels = (("L", "R"), ("P", "A"), ("H", "F"))[axis]
    return f"{orientation_labels[0] if value >= 0 else orientation_labels[1]} {abs(value):.1f} mm"
