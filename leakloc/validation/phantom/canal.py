"""Spinal canal: surfaces of canal, sac and root sleeves, and the fluid between them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.canvas import Canvas, Points
from leakloc.validation.phantom.findings import ANGLES, Fluid, Layer
from leakloc.validation.phantom.shapes import Float, coverage, ellipse, ellipsoid, rounded_box
from leakloc.validation.phantom.tables import TABLE_STEP_MM

DURA_MM: Final = 0.35
"""Thickness of the dura."""

NEAR_LATERAL_MM: Final = 9.0
"""Lateral margin beyond the half axes of the canal that is rendered on a finer grid."""

NEAR_SAGITTAL_MM: Final = 3.0

COLUMN_LATERAL_MM: Final = 66.0
COLUMN_FRONT_MM: Final = 70.0
COLUMN_BACK_MM: Final = 62.0
"""Lateral, anterior and posterior limits of the box around the canal containing the spine."""


class Canal:
    """Bony canal, thecal sac and root sleeves of an anatomy."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.tables = anatomy.tables

    # --- surfaces --------------------------------------------------------------------------

    def wall_distance(self, points: Points) -> Float:
        """Return the signed distance to the wall of the bony canal with its dorsal recess."""
        canal, rows = self.tables.canal, points.rows
        a, b, recess = canal.a[rows], canal.b[rows], canal.recess[rows]
        main = rounded_box(points.left, points.dorsal, a, b, 0.93 * np.minimum(a, b))
        cut = self.tables.arches.cut[rows]
        roof = ellipse(
            points.left, points.dorsal - 0.6 * b, 0.55 * a + 2.5 * cut, 0.4 * b + recess + 0.05
        )
        return np.minimum(main, roof)

    def sac_distance(self, points: Points) -> Float:
        """Return the signed distance to the inner surface of the dura."""
        sac, rows = self.tables.sac, points.rows
        x, y = points.left, points.dorsal - sac.center[rows]
        # A trefoil term makes the lumbar sac slightly triangular, apex dorsal.
        swell = 1 + sac.trefoil[rows] * _cos3(x, y)
        a, b = np.maximum(sac.a[rows] * swell, 0.05), np.maximum(sac.b[rows] * swell, 0.05)
        tip = np.float32(self.anatomy.sac_tip_mm)
        return np.asarray(np.maximum(ellipse(x, y, a, b), points.arc - tip))

    def sleeve_distances(self, points: Points) -> tuple[Float, Float]:
        """Return the distances to the CSF of root sleeves and to the roots."""
        roots, sac, rows = self.tables.roots, self.tables.sac, points.rows
        side = (points.left > 0).astype(np.intp)
        length, radius = roots.sleeve_length[side, rows], roots.sleeve_radius[side, rows]
        sine, cosine, slope = roots.sine[rows], roots.cosine[rows], roots.slope[rows]
        u = roots.offset[rows]
        v = np.abs(points.left) - 0.8 * sac.a[rows]
        w = points.dorsal - sac.center[rows]
        norm = np.sqrt(1 + (sine * slope) ** 2)
        du, dv, dw = cosine / norm, sine / norm, sine * slope / norm
        along = u * du + v * dv + w * dw
        off2 = u * u + v * v + w * w

        def tube(reach: Float, start_mm: Float, end_mm: Float) -> Float:
            at = np.clip(along, 0, reach)
            away = np.sqrt(np.maximum(off2 - 2 * at * along + at * at, 0))
            position = at / np.maximum(reach, 0.1)
            return np.asarray(away - start_mm - position * (end_mm - start_mm), dtype=np.float32)

        sleeve = np.where(radius > 0, tube(length, radius, 0.45 * radius), 20)
        # The opening of the sleeve is part of the sac.
        root = tube(length + 20, 0.38 * radius + 0.3, 0.55 * radius + 0.3)
        ganglion = tube(length + 5, np.zeros_like(radius), 1.15 * radius)
        root = np.where(radius > 0, np.minimum(root, ganglion), 20)
        return np.asarray(sleeve, np.float32), np.asarray(root, np.float32)

    def near(self, points: Points) -> npt.NDArray[np.intp]:
        """Return the points near thin structures, for rendering on a finer grid."""
        central = np.flatnonzero((np.abs(points.left) < 40) & (np.abs(points.dorsal) < 30))
        canal, rows = self.tables.canal, points.rows[central]
        a = canal.a[rows] + NEAR_LATERAL_MM
        b = canal.b[rows] + NEAR_SAGITTAL_MM
        b = b + 0.5 * canal.recess[rows]
        x, y = points.left[central] / a, (points.dorsal[central] - 1) / b
        inside = x * x + y * y < 1
        inside &= points.arc[central] < self.anatomy.hiatus_mm + 5
        return np.asarray(central[inside])

    # --- voxel fractions, used for both images and truth -----------------------------------

    def sac_fraction(self, points: Points, width_mm: float) -> Float:
        """Return the voxel fraction inside the spinal dura."""
        fraction = np.zeros_like(points.arc)
        reach = 14.0 if float(points.arc.min(initial=1e3)) > self.anatomy.sites[0].top_mm else 60.0
        near = np.flatnonzero(
            (np.abs(points.left) < reach)
            & (np.abs(points.dorsal) < max(reach, 16.0))
            & (points.arc < self.anatomy.sac_tip_mm + 2)
            & (points.arc >= self.anatomy.foramen_magnum_mm)
        )
        if len(near):
            fraction[near] = coverage(self.sac_distance(points.take(near)), width_mm)
        return fraction

    def sleeve_fraction(self, points: Points, width_mm: float) -> Float:
        """Return the voxel fraction in root sleeves outside the sac."""
        fraction = np.zeros_like(points.arc)
        near = np.flatnonzero((np.abs(points.left) < 40) & (np.abs(points.dorsal) < 30))
        if len(near):
            part = points.take(near)
            sleeve, _ = self.sleeve_distances(part)
            inside = coverage(self.sac_distance(part), width_mm)
            fraction[near] = coverage(sleeve, width_mm) * (1 - inside)
        return fraction

    def fluid_fractions(self, points: Points, fluids: tuple[Fluid, ...], width_mm: float) -> Float:
        """Return the voxel fraction of each fluid collection, shape (fluids, n).

        The fractions of sac and root sleeves are excluded.
        """
        fractions = np.zeros((len(fluids), len(points.arc)), np.float32)
        for number, fluid in enumerate(fluids):
            low, high = fluid.reach_mm
            near = np.flatnonzero(
                (points.arc > low)
                & (points.arc < high)
                & (np.abs(points.left) < COLUMN_LATERAL_MM)
                & (points.dorsal > -COLUMN_FRONT_MM)
            )
            if len(near):
                fractions[number, near] = self._fluid_fraction(points.take(near), fluid, width_mm)
        return fractions

    def rim_fraction(self, points: Points, fluid: Fluid, width_mm: float) -> Float:
        """Return the voxel fraction of a collection together with its rim."""
        rim_mm = fluid.spec.rim_mm if fluid.spec is not None else 0.0
        return self._fluid_fraction(points, fluid, width_mm, rim_mm)

    def _fluid_fraction(
        self, points: Points, fluid: Fluid, width_mm: float, rim_mm: float = 0.0
    ) -> Float:
        outer = self.sac_distance(points) - DURA_MM
        in_sac = coverage(outer, width_mm)
        fraction = np.zeros_like(in_sac)
        if fluid.layer is not None:
            fraction = self._layer_fraction(points, fluid.layer, outer, width_mm, rim_mm)
        for shape in fluid.shapes:
            distance = shape.distance(points.arc, points.left, points.dorsal) - rim_mm
            fraction = np.maximum(fraction, coverage(distance, width_mm) * (1 - in_sac))
        sleeve, _ = self.sleeve_distances(points)
        return np.asarray(fraction * (1 - coverage(sleeve, width_mm)), dtype=np.float32)

    def _layer_fraction(
        self, points: Points, layer: Layer, outer: Float, width_mm: float, rim_mm: float
    ) -> Float:
        """Return the fraction in a layer on the dura, at a distance `outer`, without its fat."""
        sac = self.tables.sac
        y = points.dorsal - sac.center[points.rows]
        angle = np.degrees(np.arctan2(points.left, y)) + 180
        column = np.minimum((angle * (ANGLES / 360)).astype(np.int32), ANGLES - 1)
        thickness = layer.thickness_mm[points.rows, column]
        wall = self.wall_distance(points)
        fraction = coverage(np.maximum(outer - thickness, wall) - np.float32(rim_mm), width_mm)
        fraction = np.maximum(fraction - coverage(outer, width_mm), 0)
        fraction[thickness <= 0] = 0
        for arc, degrees, radius in layer.fat_lobules:
            row = int(arc / TABLE_STEP_MM)
            out = float(sac.b[row]) + DURA_MM + 1.3 * radius
            radians = np.radians(degrees)
            lobule = ellipsoid(
                points.arc - np.float32(arc),
                points.left - np.float32(out * np.sin(radians)),
                points.dorsal - np.float32(sac.center[row] + out * np.cos(radians)),
                (2.2 * radius, 1.3 * radius, radius),
            )
            fraction *= 1 - coverage(lobule, width_mm)
        return fraction

    # --- painting --------------------------------------------------------------------------

    def paint(self, canvas: Canvas) -> None:
        """Paint the fat of canal and foramina, epidural veins and ligaments."""
        points, rows = canvas.points, canvas.points.rows
        column, sacral = self.tables.column, self.tables.arches.sacral[rows]
        x = np.abs(points.left)
        a, b = self.tables.canal.a[rows], self.tables.canal.b[rows]
        open_above = points.arc < self.anatomy.hiatus_mm + 8
        # Foramina: fat between the pedicles.
        pitch = column.pitch[rows]
        height = np.abs(column.phase[rows] - 0.76) * pitch - 0.25 * pitch
        foramen = np.maximum(
            rounded_box(x - a - 4, points.dorsal + 0.35 * b, 8.0, 0.75 * b, 3.0), height
        )
        above_s4 = points.arc < self.anatomy.site("S4").top_mm
        canvas.fill("fat", np.where(open_above & above_s4, foramen, 20))
        wall = np.where(open_above, self.wall_distance(points), 20)
        canvas.fill("ligament", wall - 0.5)
        canvas.fill("fat", wall)
        # Ventral venous plexus on both sides of the midline, posterior to the bodies.
        y, waist = points.dorsal + b, column.waist[rows]
        plexus = ellipse(x - 0.45 * a, y - 0.9, 0.28 * a, 1.0) + 2 * (1 - waist)
        plexus = np.where(open_above & (sacral < 0.9), plexus, 20)
        canvas.paint("vein", 0.6 * canvas.inside(plexus))
        posterior = np.maximum(np.abs(y - 0.3) - 0.45, x - 0.75 * a)
        posterior = np.where(open_above, posterior, 20)
        canvas.paint("ligament", canvas.inside(posterior) * (waist < 0.6))


def _cos3(x: Float, y: Float) -> Float:
    """Return the cosine of three times the angle from dorsal."""
    r2 = x * x + y * y + np.float32(1e-6)
    c2 = y * y / r2
    c = y / np.sqrt(r2)
    return np.asarray(c * (4 * c2 - 3), dtype=np.float32)
