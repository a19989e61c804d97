"""The series on which levels can be counted from C2, with the names: to check the count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.vocabulary import Role
from leakloc.core.volume import FloatArray, Volume
from leakloc.report.canvas import INK, Column, Label, Panel, Place, Sheet, Stroke
from leakloc.report.marks import footer, numbering_line
from leakloc.report.scene import Scene

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData

_MORE_MM: Final = 60.0
"""A series is shown where it reaches this much higher than the myelogram, about two levels: what
the overview does not show."""
_STEP_MM: Final = 1.0
"""Pixel of the picture; localizers have 1.3 to 2.5 mm."""
_BEYOND_MM: Final = 30.0
"""Shown above the first and below the last vertebra: a level."""
_UNCOUNTED_MM: Final = 120.0
"""Shown above the first vertebra where C2 was not recognised: the neck."""
_AHEAD_MM: Final = 70.0
"""Shown in front of the foremost vertebra: room for the names."""
_BEHIND_MM: Final = 60.0
"""Shown behind the rearmost one: canal and spinous processes."""
_NAME_MM: Final = 24.0
"""From a body's centre to its name: half its depth and a gap."""
_TICK_MM: Final = (12.0, 20.0)
"""Ends of a disc's tick in front of its centre."""
_ROLES: Final[dict[Role, str]] = {
    "localizer": "localizer",
    "sagittal_t2": "sagittal T2",
    "sagittal_stir": "sagittal STIR",
    "sagittal_t1": "sagittal T1",
}


def counted_on(analysis: AnalysisData) -> tuple[str, Volume] | None:
    """The series that shows the count from C2 and more than the myelogram does, with its name.

    Where C2 was not recognised on a localizer that shows the upper spine, a reader may find it.
    None where the overview shows all levels that have names.
    """
    seen = analysis.levels.seen
    beyond = seen is not None and seen.localizer is not None
    if analysis.levels.numbering.method != "c2_count" and not beyond:
        return None
    own = analysis.triage.myelogram.geometry
    shown = analysis.triage.companions
    for role, name in _ROLES.items():
        volume = shown.get(role)
        if volume is None or volume is analysis.triage.myelogram:
            continue
        field = volume.geometry
        if not field.in_other_frame(own) and field.top_mm >= own.top_mm + _MORE_MM:
            return name, volume
    return None


def counted_sheet(scene: Scene, name: str, volume: Volume) -> Sheet:
    """One sagittal picture of the whole count; the plane follows the vertebrae from side to side.

    Parameters
    ----------
    scene : Scene
    name : str
        Of the series, in words.
    volume : Volume
        The series.
    """
    levels = scene.analysis.levels
    bodies = np.array([v.center_lps for v in levels.vertebrae])
    bodies = bodies[np.argsort(bodies[:, 2])]
    counted = levels.numbering.method == "c2_count"
    more = _BEYOND_MM if counted else _UNCOUNTED_MM
    top = min(bodies[-1, 2] + more, max(volume.geometry.top_mm, bodies[-1, 2] + _BEYOND_MM))
    bottom = bodies[0, 2] - _BEYOND_MM
    front, back = bodies[:, 1].min() - _AHEAD_MM, bodies[:, 1].max() + _BEHIND_MM
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
    # A few planes seldom hold a whole curve.
    values = volume.sample(volume.geometry.clamp_left_right(points))
    seen = values[values > 0]
    low, high = np.percentile(seen, [1.0, 99.5]) if len(seen) else (0.0, 1.0)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)

    def place(point: FloatArray) -> Place:
        return (top - point[2]) / _STEP_MM, (point[1] - front) / _STEP_MM

    labels, strokes = [], []
    for vertebra in levels.vertebrae:
        row, column = place(vertebra.center_lps)
        labels.append(Label(vertebra.name, (row, column - _NAME_MM / _STEP_MM), side="left"))
    for disc in levels.discs:
        forward = np.array([0.0, -1.0, 0.0])
        along = forward - disc.normal_lps * float(disc.normal_lps @ forward)
        along = along / max(float(np.linalg.norm(along)), 1e-6)
        near, far = (disc.center_lps + mm * along for mm in _TICK_MM)
        strokes.append(Stroke(place(near), place(far), INK))
    first, last = levels.vertebrae[0].name, levels.vertebrae[-1].name
    panel = Panel(
        shape=grey.shape,
        spacing_mm=(_STEP_MM, _STEP_MM),
        grey=grey,
        letters=("A", "P", "H", "F"),
        labels=labels,
        strokes=strokes,
        caption=(f"The {name}, along the vertebrae", f"{first} to {last}"),
    )
    return Sheet(
        title=(
            f"Levels counted from C2 on the {name}: check the count"
            if counted
            else f"C2 was not recognised on the {name}: count down to check the names"
        ),
        lines=(numbering_line(scene),),
        columns=(Column((panel,)),),
        footer=footer(),
    )
