"""Figures of two studies of a patient in the same planes.

Both studies are cut in the midline of the canal and perpendicular to the canal. The planes are
matched by the level coordinate: the same fraction of the distance between two vertebrae of the
same names. Both panels of a figure have the same field, scale and window relative to CSF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.report.canvas import BLUE, INK, ORANGE, Column, Label, Panel, Sheet, Stroke, lay_out
from leakloc.report.overlays import (
    AXIAL_PX_PER_MM,
    BODY_HALF_MM,
    TICK_MM,
    Figure,
    Kind,
    Picture,
    render_figure,
)
from leakloc.report.straightened import MIN_STEP_MM, Reach, reach_of, section
from leakloc.report.style import collection_labels, footer, legend
from leakloc.report.views import BACK_MM, CSF_HEADROOM, FRONT_MM, StudyView

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.report.compare import CollectionChange, Comparison

NAMES: Final = ("Earlier study", "Later study")
MAX_SECTIONS: Final = 4
"""Maximum number of collections with an axial figure, in order of the largest volume."""
ALONG_MM: Final = 15.0
"""Margin of the sagittal plane above and below the named levels in both fields of view."""
_SAME: Final = (
    f"Same field and scale; white is {CSF_HEADROOM:g} times the CSF signal of each study."
)


@dataclass(frozen=True)
class Match:
    """The same level in both studies.

    Parameters
    ----------
    arcs_mm : tuple of float
        Distance along the centerline of each study.
    description : str
        Level, such as ``"L4-L5, 6 mm below the disc center"``.
    """

    arcs_mm: tuple[float, float]
    description: str


def followup_pictures(
    analyses: tuple[AnalysisData, AnalysisData], comparison: Comparison
) -> tuple[Picture, ...]:
    """Draw both studies in the same planes: one sagittal figure, one axial per collection.

    Parameters
    ----------
    analyses : tuple of AnalysisData
        Results of the earlier and the later study; patient identity is not drawn.
    comparison : Comparison
        Of the reports of both studies.

    Returns
    -------
    tuple of Picture
        Empty if the studies have no level in common.
    """
    views = StudyView(analyses[0]), StudyView(analyses[1])
    height = max(analysis.settings.report.picture_height_px for analysis in analyses)
    figures = [*_sagittal_figures(views, height), *_axial_figures(views, comparison)]
    return tuple(render_figure(figure) for figure in figures)


def same_level(views: tuple[StudyView, StudyView], of: int, arc_mm: float) -> Match | None:
    """Return the position in both studies of a level of one of them.

    Parameters
    ----------
    of : int
        Index of the study with the position, 0 or 1.
    arc_mm : float
        Distance along the centerline of that study.

    Returns
    -------
    Match or None
        None if the level is not named, or is outside the other field of view.
    """
    own, other = views[of], views[1 - of]
    level = float(own.coordinate.level_at(arc_mm))
    if np.isnan(level):
        return None
    upper = min(int(level), len(own.coordinate.chain) - 1)
    name = own.coordinate.chain[upper]
    if name not in other.coordinate.chain:
        return None
    found = float(other.coordinate.arc_at(other.coordinate.chain.index(name) + level - upper))
    if np.isnan(found) or not other.geometry.contains(other.centerline.at(found)):
        return None
    arcs = (arc_mm, found) if of == 0 else (found, arc_mm)
    return Match(arcs, own.coordinate.describe(arc_mm))


# --- sagittal plane -----------------------------------------------------------------------


def _sagittal_figures(views: tuple[StudyView, StudyView], height_px: int) -> Iterator[Figure]:
    """Yield the midline of the canal, from the first to the last level in both fields of view."""
    first, last = _common_ends(views)
    if first is None or last is None:
        return
    ends = [
        np.stack([view.centerline.at(first.arcs_mm[n]), view.centerline.at(last.arcs_mm[n])])
        for n, view in enumerate(views)
    ]
    # Chord of the common part of the canal: the later study is rotated to that of the earlier.
    angles = [float(np.arctan2(top[1] - low[1], top[2] - low[2])) for top, low in ends]
    frames = [_Frame(end[0], angle - angles[0]) for end, angle in zip(ends, angles, strict=True)]
    fields = [frame.field(view, end) for frame, view, end in zip(frames, views, ends, strict=True)]
    low = np.min([field[0] for field in fields], axis=0)
    high = np.max([field[1] for field in fields], axis=0)
    panels = [
        frame.panel(view, low, high, name)
        for frame, view, name in zip(frames, views, NAMES, strict=True)
    ]
    lines = (
        f"Matched from {first.description} to {last.description}.",
        f"{_SAME} The plane follows the canal laterally.",
    )
    yield _figure(
        "sagittal", "follow-up-sagittal", "Midline of the canal", lines, panels, height_px
    )


def _common_ends(views: tuple[StudyView, StudyView]) -> tuple[Match | None, Match | None]:
    """Return the most cranial and the most caudal level in both fields of view."""
    line = views[0].centerline
    arcs = np.arange(0.0, line.length_mm, 1.0)
    arcs = arcs[views[0].geometry.contains(line.at(arcs))]
    matches = [match for arc in arcs if (match := same_level(views, 0, float(arc))) is not None]
    return (matches[0], matches[-1]) if matches else (None, None)


@dataclass(frozen=True, eq=False)
class _Frame:
    """In-plane axes: `origin_lps` is at (0, 0), rotated about the left-right axis."""

    origin_lps: FloatArray
    angle: float

    def to_plane(self, points_lps: FloatArray) -> FloatArray:
        """Return mm caudal and mm posterior to the origin, shape (..., 2)."""
        _, y, z = np.moveaxis(points_lps - self.origin_lps, -1, 0)
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        return np.stack([-(cosine * z + sine * y), cosine * y - sine * z], axis=-1)

    def to_patient(self, down_mm: FloatArray, back_mm: FloatArray, view: StudyView) -> FloatArray:
        """Return points of the curved plane, LPS, shape (rows, columns, 3)."""
        sine, cosine = np.sin(self.angle), np.cos(self.angle)
        down, back = np.meshgrid(down_mm, back_mm, indexing="ij")
        y = self.origin_lps[1] + cosine * back - sine * down
        z = self.origin_lps[2] - cosine * down - sine * back
        line = view.centerline.points_lps[np.argsort(view.centerline.points_lps[:, 2])]
        return np.stack([np.interp(z, line[:, 2], line[:, 0]), y, z], axis=-1)

    def field(self, view: StudyView, ends_lps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the lowest and highest plane coordinates to display, in mm."""
        line = self.to_plane(view.centerline.points_lps)
        down = self.to_plane(ends_lps)[:, 0] + np.array([-ALONG_MM, ALONG_MM])
        near = line[(line[:, 0] >= down[0]) & (line[:, 0] <= down[1])]
        low = np.array([down[0], near[:, 1].min() - FRONT_MM])
        return low, np.array([down[1], near[:, 1].max() + BACK_MM])

    def panel(self, view: StudyView, low_mm: FloatArray, high_mm: FloatArray, name: str) -> Panel:
        """Extract the plane with its outlines and level names."""
        step = MIN_STEP_MM
        down, back = (np.arange(low_mm[n], high_mm[n], step) for n in (0, 1))
        points = self.to_patient(down, back, view)
        cells = view.sample(view.collections, points, 0)
        labels, strokes = self._level_names(view, low_mm, high_mm, step)
        return Panel(
            shape=(len(down), len(back)),
            spacing_mm=(step, step),
            gray=view.gray(view.sample(view.image.array, points, 1)),
            orientation_labels=("A", "P", "H", "F"),
            outlines=((view.sample(view.sac, points, 1), BLUE), (cells > 0, ORANGE)),
            labels=(*labels, *collection_labels(cells)),
            strokes=strokes,
            caption=(name,),
        )

    def _level_names(
        self, view: StudyView, low_mm: FloatArray, high_mm: FloatArray, step: float
    ) -> tuple[tuple[Label, ...], tuple[Stroke, ...]]:
        """Label the bodies anterior to the canal, with ticks at the discs."""

        def place(point_lps: FloatArray, forward_mm: float = 0.0) -> tuple[float, float]:
            down, back = self.to_plane(point_lps)
            return (down - low_mm[0]) / step, (back - forward_mm - low_mm[1]) / step

        def visible(point_lps: FloatArray) -> bool:
            return bool(low_mm[0] <= self.to_plane(point_lps)[0] <= high_mm[0])

        levels = view.analysis.levels
        labels = tuple(
            Label(v.name, place(v.center_lps, BODY_HALF_MM + TICK_MM), side="left")
            for v in levels.vertebrae
            if visible(v.center_lps)
        )
        strokes = tuple(
            Stroke(
                place(d.center_lps, BODY_HALF_MM - TICK_MM), place(d.center_lps, BODY_HALF_MM), INK
            )
            for d in levels.discs
            if visible(d.center_lps)
        )
        return labels, strokes


# --- axial planes -------------------------------------------------------------------------


def _axial_figures(views: tuple[StudyView, StudyView], comparison: Comparison) -> Iterator[Figure]:
    """Yield the largest cross-section of each collection, and the same level of the other study."""
    largest = sorted(comparison.collections, key=lambda c: -max(v or 0.0 for v in c.volumes_ml))
    shown = [(c, match) for c in largest if (match := _match(views, c)) is not None][:MAX_SECTIONS]
    if not shown:
        return
    reach = _union([reach_of(v, v.analysis.localization.collections) for v in views])
    for change, match in shown:
        panels = [
            section(view, arc, reach, (name,))
            for view, arc, name in zip(views, match.arcs_mm, NAMES, strict=True)
        ]
        lines = (
            f"{change.place}: {change.change}.",
            f"Perpendicular to the canal. {_SAME}",
        )
        height_px = round(panels[0].size_mm[0] * AXIAL_PX_PER_MM)
        ids = "-".join(str(n) for n in (change.before, change.after) if n is not None)
        title = f"Axial at {match.description}"
        yield _figure("axial", f"follow-up-axial-{ids}", title, lines, panels, height_px)


def _match(views: tuple[StudyView, StudyView], change: CollectionChange) -> Match | None:
    """Return the level of the largest cross-section, in the study with the larger volume."""
    before, after = (volume or 0.0 for volume in change.volumes_ml)
    of = int(change.before is None or (change.after is not None and after > before))
    view, number = views[of], (change.before, change.after)[of]
    for collection in view.analysis.localization.collections:
        if collection.id == number:
            point = view.geometry.lps_from_kji(view.epicenter(collection))
            return same_level(views, of, float(view.centerline.project(point)[0]))
    return None


def _union(reaches: Sequence[Reach]) -> Reach:
    left = [reach.left_mm for reach in reaches]
    dorsal = [reach.dorsal_mm for reach in reaches]
    return Reach(
        (min(low for low, _ in left), max(high for _, high in left)),
        (min(low for low, _ in dorsal), max(high for _, high in dorsal)),
    )


# --- layout -------------------------------------------------------------------------------


def _figure(
    kind: Kind,
    name: str,
    title: str,
    lines: tuple[str, ...],
    panels: Sequence[Panel],
    height_px: int,
) -> Figure:
    scale = height_px / max(panel.size_mm[0] for panel in panels)  # the same in all columns
    sheet = Sheet(
        title=title,
        lines=lines,
        columns=tuple(Column((panel,), max_px_per_mm=scale) for panel in panels),
        footer=footer(),
        key=legend(with_fluid=True),
    )
    alt = f"{title}, earlier study on the left, later study on the right. {' '.join(lines)}"
    return Figure(name, kind, alt, None, lay_out(sheet, height_px))
