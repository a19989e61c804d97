"""Vertebral column: bodies, discs, sacrum and posterior elements."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.validation.phantom.canal import (
    COLUMN_BACK_MM,
    COLUMN_FRONT_MM,
    COLUMN_LATERAL_MM,
    Canal,
)
from leakloc.validation.phantom.canvas import Canvas, Points
from leakloc.validation.phantom.shapes import Float, coverage, ellipsoid, rounded_box
from leakloc.validation.phantom.tissues import TissueName

_DISC_TISSUES: Final[dict[str, TissueName]] = {
    "healthy": "disc_healthy",
    "intermediate": "disc_intermediate",
    "desiccated": "disc_desiccated",
    "rudimentary": "disc_desiccated",
}

_FAR: Final = np.float32(20)
"""Distance of a structure where it does not exist, millimeters."""


class Column:
    """Vertebrae and discs of an anatomy.

    Parameters
    ----------
    canal : Canal
    facet_fluid_mm : dict
        Width of the bright joint line by motion segment.
    """

    def __init__(self, canal: Canal, facet_fluid_mm: dict[str, float]) -> None:
        self._canal = canal
        self._anatomy = canal.anatomy
        self._tables = canal.tables
        names = [site.name for site in canal.anatomy.sites]
        self._joint_mm = np.zeros(len(names) + 1, np.float32)
        for segment, mm in facet_fluid_mm.items():
            self._joint_mm[names.index(segment.split("-")[0])] = mm

    def near(self, points: Points) -> npt.NDArray[np.intp]:
        """Return the points in a box that contains the spine."""
        return np.flatnonzero(
            (np.abs(points.left) < COLUMN_LATERAL_MM)
            & (points.dorsal > -COLUMN_FRONT_MM)
            & (points.dorsal < COLUMN_BACK_MM)
        )

    def labels(self, points: Points) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Return the site index of the body, and of the disc, at each point; -1 for none."""
        bodies = np.full(len(points.arc), -1, np.int16)
        discs = np.full(len(points.arc), -1, np.int16)
        near = self.near(points)
        part = points.take(near)
        outline, gap = self._distances(part)
        first, last = self._anatomy.sites[0], self._anatomy.sites[-1]
        inside = (outline < 0) & (part.arc > first.top_mm) & (part.arc < last.bottom_mm)
        column = self._tables.column
        bodies[near] = np.where(inside & (gap > 0), column.body[part.rows], -1)
        discs[near] = np.where(inside & (gap <= 0), column.disc[part.rows], -1)
        return bodies, discs

    def _distances(self, points: Points) -> tuple[Float, Float]:
        """Return the distances to the outline of the column and to the nearest endplate."""
        column, rows = self._tables.column, points.rows
        a, half = column.a[rows], column.b[rows]
        y = points.dorsal + self._tables.canal.b[rows] + half
        outline = rounded_box(points.left, y, a, half, 0.82 * half)
        dent = column.waist[rows] * 1.6 * np.exp(-((points.left * np.float32(0.12)) ** 2))
        outline = np.maximum(outline, y - half + dent)
        rho = np.minimum((points.left / a) ** 2 + (y / half) ** 2, 1.2)
        gap = np.abs(column.disc_offset[rows]) - column.half_height[rows] * (1.08 - 0.32 * rho)
        bridge = column.bridge[rows]
        gap = np.where(bridge > 0, np.maximum(gap, outline + bridge), gap)
        return outline, gap

    def paint(self, canvas: Canvas) -> None:
        """Paint sacrum, bodies, discs and posterior elements."""
        points, rows = canvas.points, canvas.points.rows
        first, last = self._anatomy.sites[0], self._anatomy.sites[-1]
        inside = (points.arc > first.top_mm - 14) & (points.arc < last.bottom_mm + 28)
        outline, gap = self._distances(points)
        outline = np.where(inside, outline, _FAR)
        bone = np.maximum(outline, -gap)
        self._paint_sacral_wings(canvas)
        canvas.fill("ligament", outline - 0.9)
        canvas.fill("bone", bone)
        canvas.fill("marrow", bone + 0.8)
        # Basivertebral vein, entering posteriorly at mid-body.
        y = points.dorsal + self._tables.canal.b[rows]
        offset = self._tables.column.body_offset[rows]
        vein = ellipsoid(offset, points.left, y + 5, (1.6, 3.0, 7.5))
        vein = np.where(inside & (points.arc < self._anatomy.site("S1").top_mm), vein, _FAR)
        canvas.paint("vein", 0.7 * canvas.inside(vein))
        self._paint_discs(canvas, outline, gap)
        self._paint_arches(canvas)
        self._paint_facet_joints(canvas)

    def _paint_sacral_wings(self, canvas: Canvas) -> None:
        points, rows = canvas.points, canvas.points.rows
        top, end = self._anatomy.sacrum_top_mm, self._anatomy.sites[-1].bottom_mm
        body, canal = self._tables.column.b[rows], self._tables.canal.b[rows]
        half = 52 - 34 * np.clip((points.arc - top) / (end - top), 0, 1)
        y = points.dorsal + 0.55 * body + 0.2 * canal
        wing = rounded_box(points.left, y, half, 0.75 * body + canal, 6.0)
        wing = np.maximum(wing, top + 4 + np.abs(points.left) * 0.15 - points.arc)
        wing = np.maximum(wing, points.arc - end)
        canvas.fill("bone", wing)
        canvas.fill("marrow", wing + 1.2)

    def _paint_discs(self, canvas: Canvas, outline: Float, gap: Float) -> None:
        number = self._tables.column.disc[canvas.points.rows].astype(np.int32)
        canvas.fill("annulus", np.maximum(outline - 0.8, gap))
        core = coverage(np.maximum(outline + 5.0, gap + 0.4), 1.6 * canvas.width_mm)
        for kind, tissue in _DISC_TISSUES.items():
            of_kind = [n for n, site in enumerate(self._anatomy.sites) if site.disc_kind == kind]
            canvas.paint(tissue, core * np.isin(number, of_kind))

    def _facet_distance(self, points: Points) -> Float:
        """Return the distance to the articular processes."""
        a, b = self._tables.canal.a[points.rows], self._tables.canal.b[points.rows]
        offset = self._tables.column.disc_offset[points.rows]
        return ellipsoid(
            offset - 3, np.abs(points.left) - a - 6.5, points.dorsal - 0.6 * b - 3, (12.0, 7.0, 8.0)
        )

    def _paint_arches(self, canvas: Canvas) -> None:
        """Paint laminae, pedicles, articular, transverse and spinous processes, and ligaments."""
        points, rows = canvas.points, canvas.points.rows
        arches, hiatus_mm = self._tables.arches, self._anatomy.hiatus_mm
        a, b = self._tables.canal.a[rows], self._tables.canal.b[rows]
        x = np.abs(points.left)
        cut = (arches.cut[rows] > 0.5) & (x < 0.9 * a + 3)
        wall = self._canal.wall_distance(points)
        presacral = points.arc < hiatus_mm
        arch = np.maximum(np.maximum(wall - 6.0, -wall), -(points.dorsal - 0.25 * b))
        flavum = np.maximum(np.abs(wall - 1.9) - 1.9, arch)
        canvas.fill("ligament", np.where(presacral & ~cut, flavum, _FAR))
        lamina = np.where(cut | ~presacral, _FAR, np.maximum(arch, arches.lamina[rows]))
        pedicle = rounded_box(x - a - 4.5, points.dorsal + 0.35 * b, 5.0, 0.85 * b, 3.0)
        pedicle = np.maximum(pedicle, arches.pedicle[rows])
        transverse = rounded_box(x - a - 22, points.dorsal - 0.5 * b - 4, 15.0, 3.5, 3.0)
        transverse = np.maximum(transverse, arches.pedicle[rows] + 2)
        processes = np.minimum(np.minimum(pedicle, transverse), self._facet_distance(points))
        mobile = arches.sacral[rows] < 0.5
        shear = arches.spinous_shear[rows]
        lower = self._anatomy.rows(points.arc - shear * np.maximum(points.dorsal - b - 4, 0))
        length = arches.spinous_length[lower]
        y = points.dorsal - b - 3 - 0.5 * length
        spinous = rounded_box(points.left, y, 3.4, 0.5 * length, 2.0)
        spinous = np.maximum(spinous, arches.spinous[lower] - 2)
        spinous = np.where((arches.cut[lower] > 0.5) | (points.arc > hiatus_mm), _FAR, spinous)
        bones = np.minimum.reduce([lamina, np.where(mobile, processes, _FAR), spinous])
        bones = np.where(points.arc > self._anatomy.sites[0].top_mm - 14, bones, _FAR)
        canvas.fill("bone", bones)
        canvas.fill("marrow", bones + 1.3)

    def _paint_facet_joints(self, canvas: Canvas) -> None:
        """Paint a line of fluid in the middle of each facet joint."""
        points, rows = canvas.points, canvas.points.rows
        column = self._tables.column
        a, b = self._tables.canal.a[rows], self._tables.canal.b[rows]
        joint = np.abs(points.left) - a - 6.5 - 0.4 * (points.dorsal - 0.6 * b - 3)
        width = self._joint_mm[column.disc[rows].astype(np.int32)]
        end = np.abs(column.disc_offset[rows] - 3) - 8
        extent = np.maximum(self._facet_distance(points) + 1.0, end)
        canvas.fill("ligament", np.maximum(np.abs(joint) - 1.2, extent))
        # Nested slabs give the correct fraction for thin lines.
        line = canvas.inside(np.abs(joint) - 0.5 * width) - canvas.inside(np.abs(joint))
        fluid = np.maximum(line, 0) * canvas.inside(extent) * (width > 0)
        canvas.paint("synovial", fluid * (self._tables.arches.sacral[rows] < 0.5))
