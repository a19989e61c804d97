"""Contents of the spinal canal: fluid collections, sac, cord and roots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leakloc.validation.phantom.canal import COLUMN_LATERAL_MM, DURA_MM, Canal
from leakloc.validation.phantom.canvas import Canvas
from leakloc.validation.phantom.findings import DuralGap, Findings, Fluid
from leakloc.validation.phantom.roots import ROOT_ROWS, place_roots
from leakloc.validation.phantom.shapes import Float, Noise3D, ellipse


class Contents:
    """Painter of the contents of a canal.

    Parameters
    ----------
    canal : Canal
    streaks : Noise3D
        Variation of the visible thickness of the dura.
    """

    def __init__(self, canal: Canal, streaks: Noise3D) -> None:
        self._canal = canal
        self._anatomy = canal.anatomy
        self._streaks = streaks
        self._root_paths = place_roots(canal.anatomy.roots, canal.tables).astype(np.float32)

    def paint_fluids(self, canvas: Canvas, findings: Findings) -> None:
        """Paint scar, mimics and collections."""
        points = canvas.points
        for scar in findings.scar:
            low, high = scar.reach_mm
            near = np.flatnonzero(
                (points.arc > low) & (points.arc < high) & (np.abs(points.left) < 60)
            )
            if len(near):
                with canvas.region(near) as part:
                    q = part.points
                    distance = scar.distance(q.arc, q.left, q.dorsal)
                    part.fill("scar", np.maximum(distance, -self._canal.wall_distance(q)))
        for fluid in findings.collections:
            if fluid.spec is not None and fluid.spec.rim_mm > 0:
                self._paint_rim(canvas, fluid)
        mimics = findings.mimics
        if findings.retrospinal is not None:
            mimics = (*mimics, findings.retrospinal)
        for fluids in (mimics, findings.collections):
            fractions = self._canal.fluid_fractions(points, fluids, canvas.width_mm)
            for fluid, fraction in zip(fluids, fractions, strict=True):
                canvas.paint(fluid.tissue, fraction)

    def _paint_rim(self, canvas: Canvas, fluid: Fluid) -> None:
        """Paint the enhancing rim of a collection, before its fluid."""
        low, high = fluid.reach_mm
        points = canvas.points
        near = np.flatnonzero(
            (points.arc > low) & (points.arc < high) & (np.abs(points.left) < COLUMN_LATERAL_MM)
        )
        if len(near):
            with canvas.region(near) as part:
                rim = self._canal.rim_fraction(part.points, fluid, part.width_mm)
                part.paint("granulation", rim)

    def paint_sac(self, canvas: Canvas, gaps: Sequence[DuralGap] = ()) -> None:
        """Paint dura with its gaps, CSF, cord and roots with their sleeves."""
        points = canvas.points
        near = np.flatnonzero((np.abs(points.left) < 40) & (np.abs(points.dorsal) < 34))
        if not len(near):
            return
        with canvas.region(near) as part:
            points = part.points
            sleeve, root = self._canal.sleeve_distances(points)
            outer, inner, nerve = (part.inside(d) for d in (sleeve - 0.25, sleeve, root))
            part.paint("root", nerve * (1 - outer))
            part.paint_csf_in_dura(outer, inner)
            part.paint("root", np.minimum(nerve, inner))
            distance = self._canal.sac_distance(points)
            # CSF is continuous through the opening of the sleeve.
            mouth = np.minimum(inner, part.inside(distance - 1.2))
            inner = part.inside(distance)
            outer = np.maximum(part.inside(distance - DURA_MM) - mouth, inner)
            # The dura is only partly visible, with partial volume of CSF where it is thin.
            grain = self._streaks(points.arc * np.float32(0.6), points.left, points.dorsal)
            thin = np.clip(0.25 + 0.35 * grain, 0, 0.75).astype(np.float32)
            dorsal = points.dorsal - self._canal.tables.sac.center[points.rows]
            for gap in gaps:
                filled = part.inside(gap.distance(points.arc, points.left, dorsal))
                thin = np.maximum(thin, filled)
            inner = inner + (outer - inner) * thin
            part.paint_csf_in_dura(outer, inner)
            self._paint_nerves(part, inner)

    def _paint_nerves(self, canvas: Canvas, inner: Float) -> None:
        """Paint cord and cauda equina within a fraction `inner` of CSF."""
        cord, points, rows = self._canal.tables.cord, canvas.points, canvas.points.rows
        distance = ellipse(
            points.left, points.dorsal - cord.center[rows],
            np.maximum(cord.a[rows], 0.05), np.maximum(cord.b[rows], 0.05),
        )  # fmt: skip
        conus_mm = self._anatomy.conus_mm
        canvas.paint("cord", np.where(points.arc < conus_mm, canvas.inside(distance), 0))
        tail = np.flatnonzero((inner > 0.3) & (points.arc > conus_mm - 50))
        if len(tail):
            with canvas.region(tail) as part:
                part.paint("root", self._root_fraction(part) * inner[tail])

    def _root_fraction(self, canvas: Canvas) -> Float:
        """Return the voxel fraction in strands of the cauda equina."""
        points, width_mm = canvas.points, canvas.width_mm
        fraction = np.zeros(len(points.arc), np.float32)
        radii = self._anatomy.roots.radius_mm.astype(np.float32)
        left, y = points.left, points.dorsal - self._canal.tables.sac.center[points.rows]
        row = np.minimum(points.rows // ROOT_ROWS, self._root_paths.shape[1] - 1)
        order: npt.NDArray[np.intp] = np.argsort(row, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(row[order])) + 1):
            at = self._root_paths[:, row[part[0]]]
            here = np.flatnonzero(np.isfinite(at[:, 0]))
            if not len(here):
                continue
            r = radii[here]
            away2 = (left[part, None] - at[here, 0]) ** 2 + (y[part, None] - at[here, 1]) ** 2
            filled = np.clip(0.5 + (r * r - away2) / (2 * width_mm * r), 0, 1)
            # The factor preserves the area of strands thinner than the voxel.
            area = 4 * r * width_mm / (r + width_mm) ** 2
            area = np.where(r < width_mm, area, 1).astype(np.float32)
            with np.errstate(invalid="ignore"):  # spurious warning of the matrix product
                fraction[part] = filled @ area
        return np.minimum(fraction, 1) * np.float32(self._anatomy.roots.settling.density)
