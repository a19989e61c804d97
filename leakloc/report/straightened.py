"""Curved reformations: straightened canal and sections perpendicular to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.report.canvas import (
    BLUE,
    INK,
    ORANGE,
    Chart,
    Column,
    Curve,
    Label,
    Panel,
    Sheet,
    Stroke,
)
from leakloc.report.style import (
    collection_labels,
    footer,
    format_coordinate,
    legend,
    numbering_text,
)
from leakloc.report.views import (
    BACK_MM,
    COLLECTION_MARGIN_MM,
    FRONT_MM,
    StudyView,
    direction_labels,
)

if TYPE_CHECKING:
    from leakloc.localization.result import Collection, Profile

ACROSS_SIDE_MM: Final = 36.0  # foramina and facet joints
ACROSS_FRONT_MM: Final = 30.0
ACROSS_BACK_MM: Final = 42.0
LATERAL_MM: Final = 45.0  # to each side in the straightened coronal projection
SLAB_MM: Final = 12.0  # half its slab thickness: canal without paraspinal collections
SLAB_STEP_MM: Final = 1.0
MIN_STEP_MM: Final = 0.4  # finer sampling adds no information
TICK_MM: Final = 5.0
PROFILE_STEP_MM: Final = 2.0  # along the canal, matched to the smoothness of the sac's outline
SAC_HALF_MM: Final = 24.0  # half the side of the square used for area measurement; exceeds any sac
WHOLE_MM: Final = 12.0  # minimum distance from the centerline to the field edge for a complete sac


@dataclass(frozen=True)
class Reach:
    """Extent of a view to the left and dorsal of the centerline, in mm."""

    left_mm: tuple[float, float]
    dorsal_mm: tuple[float, float]


def reach_of(
    view: StudyView,
    collections: Sequence[Collection],
    *,
    side_mm: float = ACROSS_SIDE_MM,
    front_mm: float = ACROSS_FRONT_MM,
    back_mm: float = ACROSS_BACK_MM,
) -> Reach:
    """Return the default extent around the canal, enlarged to include collections."""
    left, dorsal = [-side_mm, side_mm], [-front_mm, back_mm]
    for collection in collections:
        points = view.points_of(collection)
        if len(points):
            _, lefts, dorsals = view.centerline.project(points)
            left = [
                min(left[0], lefts.min() - COLLECTION_MARGIN_MM),
                max(left[1], lefts.max() + COLLECTION_MARGIN_MM),
            ]
            dorsal = [
                min(dorsal[0], dorsals.min() - COLLECTION_MARGIN_MM),
                max(dorsal[1], dorsals.max() + COLLECTION_MARGIN_MM),
            ]
    return Reach((float(left[0]), float(left[1])), (float(dorsal[0]), float(dorsal[1])))


def section(
    view: StudyView, arc_mm: float, reach: Reach, caption: tuple[str, ...], *, framed: bool = False
) -> Panel:
    """Extract a plane perpendicular to the canal: patient's right on the left, anterior at the top.

    Parameters
    ----------
    arc_mm : float
        Distance along the centerline.
    reach : Reach
    caption : tuple of str
        The position is added as last line.
    """
    step = max(min(view.geometry.spacing_ijk_mm[:2]), MIN_STEP_MM)
    center = view.centerline.at(arc_mm)
    tangent, left, dorsal = view.centerline.frame_at(arc_mm)
    lefts = np.arange(*reach.left_mm, step)
    dorsals = np.arange(*reach.dorsal_mm, step)
    points = center + lefts[None, :, None] * left + dorsals[:, None, None] * dorsal
    cells = view.sample(view.collections, points, 0)
    tilt = np.degrees(np.arccos(min(abs(float(tangent[2])), 1.0)))
    where = f"Axial, {format_coordinate(float(center[2]), 2)}"
    if tilt >= 1:
        where += f", tilted {tilt:.0f}°"  # plane perpendicular to the canal
    orientation_labels = (*direction_labels(left), *direction_labels(dorsal))
    return Panel(
        shape=(len(dorsals), len(lefts)),
        spacing_mm=(step, step),
        gray=view.gray(view.sample(view.image.array, points, 1)),
        orientation_labels=orientation_labels,
        outlines=((view.sample(view.sac, points, 1), BLUE), (cells > 0, ORANGE)),
        labels=collection_labels(cells),
        caption=(*caption, where),
        framed=framed,
    )


def arcs_across(view: StudyView, collection: Collection) -> tuple[float, float, float]:
    """Return section positions: halfway up, at the largest cross-section, halfway down."""
    line = view.centerline
    peak = float(line.project(view.geometry.lps_from_kji(view.epicenter(collection)))[0])
    points = view.points_of(collection)
    arcs = line.project(points)[0] if len(points) else np.array([peak])
    gap = view.geometry.spacing_ijk_mm[2]
    above = min((peak + float(arcs.min())) / 2, peak - gap)
    return above, peak, max((peak + float(arcs.max())) / 2, peak + gap)


def straightened_sheet(view: StudyView) -> Sheet:
    """Lay out the straightened canal in lateral view and coronal projection, with its profile."""
    located = view.analysis.localization
    line = view.centerline
    step = max(min(view.geometry.spacing_ijk_mm), MIN_STEP_MM)
    arcs = _in_field_of_view(view, np.arange(0.0, line.length_mm, step))
    columns = [
        Column((_lateral_view(view, arcs, step),)),
        Column((_coronal_projection(view, arcs, step),)),
    ]
    height_mm = len(arcs) * step
    marks = [(arc - arcs[0], name) for name, arc in _discs(view, arcs)]
    profiles = [c.profile for c in located.collections if c.profile is not None]
    if profiles:
        thickness = tuple(_curve(profile, profile.thickness_mm, arcs[0]) for profile in profiles)
        caption = ("Fluid thickness, mm", "along the canal")
        columns.append(Column((Chart(height_mm, thickness, caption, marks),)))
    areas = [_curve(profile, profile.area_mm2, arcs[0]) for profile in profiles]
    along, sac = sac_areas(view)
    if np.isfinite(sac).any():
        areas.insert(0, Curve(along - arcs[0], sac, BLUE))
    if areas:
        caption = ("Cross-section, mm²", "perpendicular to the canal")
        columns.append(Column((Chart(height_mm, tuple(areas), caption, marks),)))
    return Sheet(
        title="Straightened canal: the vertical axis is the distance along the canal",
        lines=(located.finding.summary, numbering_text(view)),
        columns=tuple(columns),
        footer=footer(),
        key=legend(bool(located.collections)),
    )


def _curve(profile: Profile, values: Sequence[float | None], top_mm: float) -> Curve:
    """Return a measurement of a collection below the top of the chart."""
    down_mm = np.array(profile.arc_mm) - top_mm
    return Curve(down_mm, np.array(values, dtype=np.float64), ORANGE)  # None becomes NaN


def sac_areas(view: StudyView) -> tuple[FloatArray, FloatArray]:
    """Measure the cross-section of the thecal sac perpendicular to the canal.

    Returns
    -------
    arc_mm, area_mm2 : ndarray, shape (n,)
        NaN if the field of view does not include the whole width and depth of the sac.
    """
    line = view.centerline
    arcs = np.arange(0.0, line.length_mm, PROFILE_STEP_MM)
    _, left, dorsal = (vectors[:, None, None] for vectors in line.frame_at(arcs))
    offsets = np.arange(-SAC_HALF_MM, SAC_HALF_MM + 0.5)  # 1 mm apart: a count is the area in mm²
    center = line.at(arcs)[:, None, None]
    points = center + offsets[None, :, None, None] * left + offsets[None, None, :, None] * dorsal
    areas = (view.sample(view.sac, points, 1) > 0.5).sum(axis=(1, 2)).astype(float)
    probes = [side * axis for axis in (left, dorsal) for side in (-WHOLE_MM, WHOLE_MM)]
    complete = np.logical_and.reduce([view.geometry.contains(center + p)[:, 0, 0] for p in probes])
    return arcs, np.where(complete, areas, np.nan)


def _lateral_view(view: StudyView, arcs: FloatArray, step: float) -> Panel:
    found = view.analysis.localization.collections
    reach = reach_of(view, found, front_mm=FRONT_MM, back_mm=BACK_MM)
    offsets = np.arange(*reach.dorsal_mm, step)
    _, _, dorsal = view.centerline.frame_at(arcs)
    points = view.centerline.at(arcs)[:, None] + offsets[:, None] * dorsal[:, None]
    cells = view.sample(view.collections, points, 0)
    labels, strokes = _names(view, arcs, step)
    return Panel(
        shape=cells.shape,
        spacing_mm=(step, step),
        gray=view.gray(view.sample(view.image.array, points, 1)),
        orientation_labels=("A", "P", "H", "F"),
        outlines=((view.sample(view.sac, points, 1), BLUE), (cells > 0, ORANGE)),
        labels=(*labels, *collection_labels(cells)),
        strokes=strokes,
        caption=("Lateral view through the centerline", "anterior to posterior"),
    )


def _coronal_projection(view: StudyView, arcs: FloatArray, step: float) -> Panel:
    """Project the maximum signal within the canal, and the masks at all depths."""
    found = view.analysis.localization.collections
    reach = reach_of(view, found, side_mm=LATERAL_MM)
    offsets = np.arange(*reach.left_mm, step)
    _, left, dorsal = view.centerline.frame_at(arcs)
    plane = view.centerline.at(arcs)[:, None] + offsets[:, None] * left[:, None]
    shape = plane.shape[:2]
    image = np.zeros(shape, np.float32)
    sac = np.zeros(shape, bool)
    cells = np.zeros(shape, view.collections.dtype)
    for depth in np.arange(-SLAB_MM, SLAB_MM + SLAB_STEP_MM, SLAB_STEP_MM):
        points = plane + depth * dorsal[:, None]
        image = np.maximum(image, view.sample(view.image.array, points, 1))
        sac |= view.sample(view.sac, points, 0) > 0
    for collection in found:
        rows, depths = _range_of(view, collection, arcs)
        for depth in depths:
            points = plane[rows] + depth * dorsal[rows, None]
            fluid = view.sample(view.collections, points, 0)
            fluid = np.where(fluid == collection.id, fluid, 0)
            if fluid.any():
                signal = np.where(fluid > 0, view.sample(view.image.array, points, 1), 0)
                cells[rows] = np.maximum(cells[rows], fluid)
                image[rows] = np.maximum(image[rows], signal)
    labels, strokes = _names(view, arcs, step)
    fluid_drawn = np.asarray(cells > 0)
    return Panel(
        shape=shape,
        spacing_mm=(step, step),
        gray=view.gray(image),
        orientation_labels=("R", "L", "H", "F"),
        outlines=((sac, BLUE), (fluid_drawn, ORANGE)),
        tints=((fluid_drawn, ORANGE),),
        labels=(*labels, *collection_labels(cells)),
        strokes=strokes,
        caption=("Coronal projection", "fluid in color" if found else "maximum signal"),
    )


def _range_of(
    view: StudyView, collection: Collection, arcs: FloatArray
) -> tuple[slice, FloatArray]:
    """Return the rows of the straightened view with a collection, and its range of depths."""
    points = view.points_of(collection)
    if not len(points):
        return slice(0, 0), np.empty(0)
    arc, _, dorsal = view.centerline.project(points)
    margin = max(view.geometry.spacing_ijk_mm)
    rows = slice(*np.searchsorted(arcs, [arc.min() - margin, arc.max() + margin]).tolist())
    return rows, np.arange(dorsal.min() - margin, dorsal.max() + margin, SLAB_STEP_MM)


def _names(
    view: StudyView, arcs: FloatArray, step: float
) -> tuple[tuple[Label, ...], tuple[Stroke, ...]]:
    """Label the bodies, with ticks at the discs, along the left edge."""
    bodies = ((v.name, view.coordinate.body_arc(v.name)) for v in view.analysis.levels.vertebrae)
    labels = tuple(
        Label(name, ((arc - arcs[0]) / step, 0.0))
        for name, arc in bodies
        if arc is not None and arcs[0] < arc < arcs[-1]
    )
    rows = [(arc - arcs[0]) / step for _, arc in _discs(view, arcs)]
    strokes = tuple(Stroke((row, 0.0), (row, TICK_MM / step), INK) for row in rows)
    return labels, strokes


def _discs(view: StudyView, arcs: FloatArray) -> list[tuple[str, float]]:
    """Return the discs and their positions along the displayed part of the canal."""
    discs = ((d.name, view.coordinate.disc_arc(d.name)) for d in view.analysis.levels.discs)
    return [(name, arc) for name, arc in discs if arc is not None and arcs[0] < arc < arcs[-1]]


def _in_field_of_view(view: StudyView, arcs: FloatArray) -> FloatArray:
    """Clip positions along the canal to the field of view."""
    inside = np.flatnonzero(view.geometry.contains(view.centerline.at(arcs)))
    return arcs[inside[0] : inside[-1] + 1] if len(inside) else arcs
