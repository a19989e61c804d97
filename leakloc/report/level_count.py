"""Figure of the series on which levels are counted from C2, to verify the count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.vocabulary import Role
from leakloc.core.volume import FloatArray, Volume
from leakloc.report.canvas import INK, Column, Label, Panel, Place, Sheet, Stroke
from leakloc.report.style import footer, numbering_text
from leakloc.report.views import StudyView

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData

_MIN_EXTRA_MM: Final = 60.0
"""Minimum cranial extent beyond the myelogram, about two levels, of a series that is shown."""
_STEP_MM: Final = 1.0
"""Pixel size of the figure; localizers have 1.3 to 2.5 mm."""
_MARGIN_MM: Final = 30.0
"""Margin above the first and below the last vertebra: one level."""
_NECK_MARGIN_MM: Final = 120.0
"""Margin above the first vertebra if C2 was not detected: the neck."""
_ANTERIOR_MM: Final = 70.0
"""Margin anterior to the vertebral bodies, for the labels."""
_POSTERIOR_MM: Final = 60.0
"""Margin posterior to the vertebral bodies: canal and spinous processes."""
_LABEL_MM: Final = 24.0
"""Distance from the center of a body to its label: half its depth and a gap."""
_TICKS_MM: Final = (12.0, 20.0)
"""Ends of a disc's tick mark, anterior to its center."""
_ROLES: Final[dict[Role, str]] = {
    "localizer": "localizer",
    "sagittal_t2": "sagittal T2",
    "sagittal_stir": "sagittal STIR",
    "sagittal_t1": "sagittal T1",
}


def find_counting_series(analysis: AnalysisData) -> tuple[str, Volume] | None:
    """Return the series for verification of the count from C2, with its name.

    If C2 was not detected on a localizer of the upper spine, the reader may identify it. None if
    the overview shows all named levels.
    """
    detected = analysis.levels.detection
    beyond = detected is not None and detected.localizer is not None
    if analysis.levels.numbering.method != "c2_count" and not beyond:
        return None
    own = analysis.triage.myelogram.geometry
    shown = analysis.triage.companions
    for role, name in _ROLES.items():
        volume = shown.get(role)
        if volume is None or volume is analysis.triage.myelogram:
            continue
        field = volume.geometry
        if not field.in_other_frame(own) and field.top_mm >= own.top_mm + _MIN_EXTRA_MM:
            return name, volume
    return None


def level_count_sheet(view: StudyView, name: str, volume: Volume) -> Sheet:
    """Lay out a curved sagittal plane through all named vertebrae.

    Parameters
    ----------
    view : Scene
    name : str
        Name of the series for the caption.
    volume : Volume
        Image of the series.
    """
    levels = view.analysis.levels
    bodies = np.array([v.center_lps for v in levels.vertebrae])
    bodies = bodies[np.argsort(bodies[:, 2])]
    from_c2 = levels.numbering.method == "c2_count"
    more = _MARGIN_MM if from_c2 else _NECK_MARGIN_MM
    top = min(bodies[-1, 2] + more, max(volume.geometry.top_mm, bodies[-1, 2] + _MARGIN_MM))
    bottom = bodies[0, 2] - _MARGIN_MM
    front, back = bodies[:, 1].min() - _ANTERIOR_MM, bodies[:, 1].max() + _POSTERIOR_MM
    heights = np.arange(top, bottom, -_STEP_MM)
    depths = np.arange(front, back, _STEP_MM)
    sides = np.interp(heights, bodies[:, 2], bodies[:, 0])
    points = np.stack(
        [
            np.broadcast_to(sides[:, None], (len(heights), len(depths))),
            np.broadcast_to(depths, (len(heights), len(depths))),
            np.broadcast_to(heights[:, None], (len(heights), len(depths))),
        ],
        axis=-1,
    )
    # A few sagittal planes rarely include the whole curve.
    values = volume.sample(volume.geometry.clamp_left_right(points))
    positive = values[values > 0]
    low, high = np.percentile(positive, [1.0, 99.5]) if len(positive) else (0.0, 1.0)
    gray = np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)

    def place(point: FloatArray) -> Place:
        return (top - point[2]) / _STEP_MM, (point[1] - front) / _STEP_MM

    labels, strokes = [], []
    for vertebra in levels.vertebrae:
        row, column = place(vertebra.center_lps)
        labels.append(Label(vertebra.name, (row, column - _LABEL_MM / _STEP_MM), side="left"))
    for disc in levels.discs:
        forward = np.array([0.0, -1.0, 0.0])
        along = forward - disc.normal_lps * float(disc.normal_lps @ forward)
        along = along / max(float(np.linalg.norm(along)), 1e-6)
        near, far = (disc.center_lps + mm * along for mm in _TICKS_MM)
        strokes.append(Stroke(place(near), place(far), INK))
    first, last = levels.vertebrae[0].name, levels.vertebrae[-1].name
    panel = Panel(
        shape=gray.shape,
        spacing_mm=(_STEP_MM, _STEP_MM),
        gray=gray,
        orientation_labels=("A", "P", "H", "F"),
        labels=labels,
        strokes=strokes,
        caption=(f"The {name}, along the vertebral bodies", f"{first} to {last}"),
    )
    return Sheet(
        title=(
            f"Levels counted from C2 on the {name}: verify the count"
            if from_c2
            else f"C2 was not detected on the {name}: verify the level names by counting"
        ),
        lines=(numbering_text(view),),
        columns=(Column((panel,)),),
        footer=footer(),
    )
