"""Rendering: tissue fractions of voxels from canal coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.core.volume import FloatArray, Geometry
from leakloc.validation.phantom.anatomy import TABLE_STEP_MM, Anatomy
from leakloc.validation.phantom.findings import ANGLES, Findings, Fluid
from leakloc.validation.phantom.roots import ROOT_ROWS, lay_roots
from leakloc.validation.phantom.shapes import (
    Float,
    Noise3D,
    capsule,
    coverage,
    ellipse,
    ellipsoid,
    rounded_box,
)
from leakloc.validation.phantom.tissues import TEXTURES, TISSUES, TissueName

Palette = Mapping[TissueName, npt.NDArray[np.float32]]
"""Signal and texture of each tissue in the five channels."""

COARSE_STEP_MM: Final = 4.0
"""Step of computed canal coordinates; the error of linear interpolation is less than 0.05 mm at
the maximum curvature of the sacrum."""

DURA_MM: Final = 0.35
"""Thickness of the dura."""

NEAR_LATERAL_MM: Final = 9.0
"""Lateral margin beyond the half axes of the canal that is rendered on a finer grid."""

NEAR_SAGITTAL_MM: Final = 3.0

COLUMN_LATERAL_MM: Final = 66.0
COLUMN_FRONT_MM: Final = 70.0
COLUMN_BACK_MM: Final = 62.0
"""Lateral, anterior and posterior limits of the box around the canal containing the spine."""


TEXTURE_NODES: Final = 2
"""Grid steps of texture noise per correlation length; the period is 32 lengths."""

TEXTURE_LOSS: Final = 0.89
"""Mean standard deviation of such unit noise after linear interpolation."""


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the patient: canal coordinates and LPS, each of shape (n,)."""

    arc: Float
    left: Float
    dorsal: Float
    x: Float
    y: Float
    z: Float

    def take(self, index: npt.NDArray[np.intp]) -> Points:
        """Return a subset of the points."""
        return Points(
            self.arc[index], self.left[index], self.dorsal[index],
            self.x[index], self.y[index], self.z[index],
        )  # fmt: skip


class CanalGrid:
    """Canal coordinates of points in a grid, interpolated from a coarse grid."""

    def __init__(self, anatomy: Anatomy, geometry: Geometry) -> None:
        self.geometry = geometry
        self._nodes = [
            np.linspace(0, count - 1, max(int(np.ceil((count - 1) * mm / COARSE_STEP_MM)) + 1, 2))
            for count, mm in zip(geometry.shape, geometry.spacing_kji_mm, strict=True)
        ]
        kji = np.stack(np.meshgrid(*self._nodes, indexing="ij"), axis=-1)
        arc, left, dorsal = anatomy.centerline.project(geometry.lps_from_kji(kji))
        self._coarse = np.stack([arc, left, dorsal]).astype(np.float32)

    def slab(self, start: int, stop: int) -> Points:
        """Return all voxels of slices `start` to `stop`, flattened."""
        ranges = ((start, stop), (0, self.geometry.shape[1]), (0, self.geometry.shape[2]))
        part = self._coarse
        for axis, (nodes, (first, last)) in enumerate(zip(self._nodes, ranges, strict=True)):
            part = _interpolated(part, axis + 1, nodes, np.arange(first, last, dtype=float))
        k, j, i = (
            np.arange(start, stop, dtype=np.float32)[:, None, None],
            np.arange(self.geometry.shape[1], dtype=np.float32)[None, :, None],
            np.arange(self.geometry.shape[2], dtype=np.float32)[None, None, :],
        )
        affine = self.geometry.affine_lps.astype(np.float32)
        x, y, z = (
            (affine[n, 0] * i + affine[n, 1] * j + affine[n, 2] * k + affine[n, 3]).ravel()
            for n in range(3)
        )
        arc, left, dorsal = (np.ascontiguousarray(values).ravel() for values in part)
        return Points(arc, left, dorsal, x, y, z)

    def at(self, points_kji: FloatArray) -> Points:
        """Return the points at continuous indices, shape (n, 3)."""
        from scipy.ndimage import map_coordinates

        scaled = np.empty((3, len(points_kji)))
        for axis, nodes in enumerate(self._nodes):
            step = nodes[1] - nodes[0] if len(nodes) > 1 and nodes[1] > nodes[0] else 1.0
            scaled[axis] = points_kji[:, axis] / step
        arc, left, dorsal = (
            map_coordinates(values, scaled, output=np.float32, order=1, mode="nearest")
            for values in self._coarse
        )
        x, y, z = self.geometry.lps_from_kji(points_kji).T.astype(np.float32)
        return Points(arc, left, dorsal, x, y, z)


def _interpolated(array: Float, axis: int, nodes: FloatArray, at: FloatArray) -> Float:
    """Interpolate linearly along one axis (without BLAS, to avoid its threads)."""
    low = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, len(nodes) - 2)
    gap = np.maximum(nodes[low + 1] - nodes[low], 1e-9)
    share = np.clip((at - nodes[low]) / gap, 0, 1).astype(np.float32)
    share = share.reshape([-1 if n == axis else 1 for n in range(array.ndim)])
    below, above = np.take(array, low, axis), np.take(array, low + 1, axis)
    above -= below
    above *= share
    above += below
    return above


class Body:
    """Anatomy and findings, with the tissue fractions of any point."""

    def __init__(self, anatomy: Anatomy, findings: Findings, rng: np.random.Generator) -> None:
        self.anatomy = anatomy
        self.findings = findings
        self._tables = anatomy.tables
        self._root_paths = lay_roots(anatomy.roots, anatomy.tables).astype(np.float32)
        self._texture = Noise3D(rng, 1.0, TEXTURE_NODES)
        self._textures = _draw_textures(rng.spawn(1)[0])
        self._loops = Noise3D(rng, 26.0)
        self._content = Noise3D(rng, 30.0)
        self._streaks = Noise3D(rng, 7.0)
        self._fatty_muscle = float(rng.uniform(0.7, 2.2))
        names = [site.name for site in anatomy.sites]
        self._names = names
        self._first_sacral = names.index("S1")
        self._first_lumbar = names.index("L1")
        self._girth = float(rng.uniform(0.9, 1.15)) * anatomy.stature
        self._pelvis_lps = anatomy.centerline.at(anatomy.site("S3").middle_mm)
        self._bladder_mm = float(rng.uniform(18, 30))
        self._kidneys = {
            side: np.array(
                [anatomy.site("L2").middle_mm + rng.normal(0, 12), side * rng.uniform(58, 70),
                 -rng.uniform(30, 48)]
            )
            for side in (-1.0, 1.0)
        }  # fmt: skip
        self._ureter_mm = float(rng.uniform(0.6, 1.3))

    # --- fractions used for both images and truth ------------------------------------------

    def sac_distance(self, points: Points, index: npt.NDArray[np.int32]) -> Float:
        """Return the signed distance to the inner surface of the dura."""
        t = self._tables
        x, y = points.left, points.dorsal - t["sac_c"][index]
        a, b = t["sac_a"][index], t["sac_b"][index]
        # A trefoil term makes the lumbar sac slightly triangular, apex dorsal.
        swell = 1 + t["sac_trefoil"][index] * _cos3(x, y)
        a, b = np.maximum(a * swell, 0.05), np.maximum(b * swell, 0.05)
        distance = ellipse(x, y, a, b)
        tip = np.float32(self.anatomy.sac_tip_mm)
        return np.asarray(np.maximum(distance, points.arc - tip))

    def canal_distance(self, points: Points, index: npt.NDArray[np.int32]) -> Float:
        """Return the signed distance to the wall of the bony canal with its dorsal recess."""
        t = self._tables
        a, b, recess = t["canal_a"][index], t["canal_b"][index], t["recess"][index]
        main = rounded_box(points.left, points.dorsal, a, b, 0.93 * np.minimum(a, b))
        cut = t["cut"][index]
        roof = ellipse(
            points.left, points.dorsal - 0.6 * b, 0.55 * a + 2.5 * cut, 0.4 * b + recess + 0.05
        )
        return np.minimum(main, roof)

    def fluid_fractions(self, points: Points, fluids: tuple[Fluid, ...], width_mm: float) -> Float:
        """Return the voxel fraction of each fluid collection, shape (fluids, n).

        The fractions of sac and root sleeves are excluded.
        """
        index = self.anatomy.index(points.arc)
        shares = np.zeros((len(fluids), len(points.arc)), np.float32)
        if not fluids:
            return shares
        for number, fluid in enumerate(fluids):
            low, high = fluid.reach_mm
            near = np.flatnonzero(
                (points.arc > low)
                & (points.arc < high)
                & (np.abs(points.left) < COLUMN_LATERAL_MM)
                & (points.dorsal > -COLUMN_FRONT_MM)
            )
            if len(near):
                shares[number, near] = self._fluid_fraction_of(
                    points.take(near), index[near], fluid, width_mm
                )
        return shares

    def _fluid_fraction_of(
        self, points: Points, index: npt.NDArray[np.int32], fluid: Fluid, width_mm: float
    ) -> Float:
        outer = self.sac_distance(points, index) - DURA_MM
        in_sac = coverage(outer, width_mm)
        share = np.zeros_like(in_sac)
        if fluid.sheet is not None:
            x = points.left
            y = points.dorsal - self._tables["sac_c"][index]
            angle = np.degrees(np.arctan2(x, y)) + 180
            column = np.minimum((angle * (ANGLES / 360)).astype(np.int32), ANGLES - 1)
            thickness = fluid.sheet.thickness_mm[index, column]
            wall = self.canal_distance(points, index)
            share = coverage(np.maximum(outer - thickness, wall), width_mm) - in_sac
            share = np.maximum(share, 0)
            share[thickness <= 0] = 0
            for arc, degrees, radius in fluid.sheet.islands:
                row = int(arc / TABLE_STEP_MM)
                b, c = self._tables["sac_b"][row], self._tables["sac_c"][row]
                out = float(b) + DURA_MM + 1.3 * radius
                center = np.array(
                    [arc, out * np.sin(np.radians(degrees)), c + out * np.cos(np.radians(degrees))]
                )
                lobule = ellipsoid(
                    points.arc - np.float32(center[0]),
                    points.left - np.float32(center[1]),
                    points.dorsal - np.float32(center[2]),
                    (2.2 * radius, 1.3 * radius, radius),
                )
                share *= 1 - coverage(lobule, width_mm)
        for shape in fluid.shapes:
            distance = shape.distance(points.arc, points.left, points.dorsal)
            share = np.maximum(share, coverage(distance, width_mm) * (1 - in_sac))
        sleeve, _ = self._sleeve_distances(points, index)
        return np.asarray(share * (1 - coverage(sleeve, width_mm)), dtype=np.float32)

    def sac_fraction(self, points: Points, width_mm: float) -> Float:
        """Return the voxel fraction inside the spinal dura."""
        share = np.zeros_like(points.arc)
        near = self._near_sac(points)
        near = near[points.arc[near] >= self.anatomy.foramen_magnum_mm]
        if len(near):
            part = points.take(near)
            index = self.anatomy.index(part.arc)
            share[near] = coverage(self.sac_distance(part, index), width_mm)
        return share

    def sleeve_fraction(self, points: Points, width_mm: float) -> Float:
        """Return the voxel fraction in root sleeves outside the sac."""
        share = np.zeros_like(points.arc)
        near = np.flatnonzero((np.abs(points.left) < 40) & (np.abs(points.dorsal) < 30))
        if len(near):
            part = points.take(near)
            index = self.anatomy.index(part.arc)
            sleeve, _ = self._sleeve_distances(part, index)
            inside = coverage(self.sac_distance(part, index), width_mm)
            share[near] = coverage(sleeve, width_mm) * (1 - inside)
        return share

    def labels(self, points: Points) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Return the site index of the body, and of the disc, at each point; -1 for none."""
        bodies = np.full(len(points.arc), -1, np.int16)
        discs = np.full(len(points.arc), -1, np.int16)
        near = self._column(points)
        part = points.take(near)
        index = self.anatomy.index(part.arc)
        outline, gap = self._column_distances(part, index)
        t = self._tables
        kept = (part.arc > self.anatomy.sites[0].top_mm) & (
            part.arc < self.anatomy.sites[-1].bottom_mm
        )
        bodies[near] = np.where((outline < 0) & (gap > 0) & kept, t["body"][index], -1)
        discs[near] = np.where((outline < 0) & (gap <= 0) & kept, t["disc"][index], -1)
        return bodies, discs

    def near_canal(self, points: Points) -> npt.NDArray[np.intp]:
        """Return the points near thin structures, for rendering on a finer grid."""
        column = np.flatnonzero((np.abs(points.left) < 40) & (np.abs(points.dorsal) < 30))
        index = self.anatomy.index(points.arc[column])
        a = self._tables["canal_a"][index] + NEAR_LATERAL_MM
        b = self._tables["canal_b"][index] + NEAR_SAGITTAL_MM
        b = b + 0.5 * self._tables["recess"][index]
        x, y = points.left[column] / a, (points.dorsal[column] - 1) / b
        inside = x * x + y * y < 1
        inside &= points.arc[column] < self.anatomy.hiatus_mm + 5
        return np.asarray(column[inside])

    def grain(
        self,
        points: Points,
        index: npt.NDArray[np.intp],
        variation: Float,
        fat_part: Float,
        width_mm: float,
    ) -> Float:
        """Return texture factors of the signal of some points, mean 1.

        Averaging over a voxel reduces strength and increases grain size.

        Parameters
        ----------
        points : Points
        index : numpy.ndarray
            Indices of the points.
        variation : numpy.ndarray
            Coefficient of variation in a median subject.
        fat_part : numpy.ndarray
            Fat fraction of the signal; it distinguishes muscle, marrow and fat.
        width_mm : float
        """
        strength, across, along = self._textures
        wide, tall = (np.hypot(mm, width_mm / np.sqrt(3)) for mm in (across, along))
        strength = strength * across / wide * np.sqrt(along / tall) / TEXTURE_LOSS
        row = (fat_part * (len(strength) - 1)).astype(np.intp)
        flat, up = ((1 / mm).astype(np.float32)[row] for mm in (wide, tall))
        x, y, z = (values[index] for values in (points.x, points.y, points.z))
        noise = self._texture(x * flat, y * flat, z * up)
        noise *= variation * strength.astype(np.float32)[row]
        noise += 1
        return np.maximum(noise, np.float32(0.1))

    # --- painting --------------------------------------------------------------------------

    def paint(self, points: Points, palette: Palette, width_mm: float) -> Float:
        """Return the channels of each point, shape (n, 5)."""
        canvas = np.zeros((len(points.arc), 5), np.float32)
        index = self.anatomy.index(points.arc)
        trunk = self._trunk_distance(points, index)
        body = np.flatnonzero(trunk < width_mm)
        if not len(body):
            return canvas
        piece = canvas[body]
        self._paint_trunk(piece, points.take(body), index[body], trunk[body], palette, width_mm)
        canvas[body] = piece
        near = self._column(points)
        if len(near):
            part, rows = points.take(near), index[near]
            piece = canvas[near]
            self._paint_column(piece, part, rows, palette, width_mm)
            self._paint_canal(piece, part, rows, palette, width_mm)
            canvas[near] = piece
        self._paint_fluids(canvas, points, palette, width_mm)
        if len(near):
            piece = canvas[near]
            self._paint_sac(piece, part, rows, palette, width_mm)
            canvas[near] = piece
        return canvas

    def _column(self, points: Points) -> npt.NDArray[np.intp]:
        return np.flatnonzero(
            (np.abs(points.left) < COLUMN_LATERAL_MM)
            & (points.dorsal > -COLUMN_FRONT_MM)
            & (points.dorsal < COLUMN_BACK_MM)
        )

    def _near_sac(self, points: Points) -> npt.NDArray[np.intp]:
        reach = 14.0 if float(points.arc.min(initial=1e3)) > self.anatomy.sites[0].top_mm else 60.0
        return np.flatnonzero(
            (np.abs(points.left) < reach)
            & (np.abs(points.dorsal) < max(reach, 16.0))
            & (points.arc < self.anatomy.sac_tip_mm + 2)
        )

    def _trunk_distance(self, p: Points, index: npt.NDArray[np.int32]) -> Float:
        """Return the signed distance to the skin."""
        t = self._tables
        fat_mm = np.float32(self.anatomy.fat_depth_mm)
        skin = t["canal_b"][index] + 6 + t["muscle"][index] + fat_mm
        back = p.dorsal - skin + p.left * p.left * np.float32(1 / 520)
        neck = self._neck(p)
        half_width = np.float32(178 * self._girth) - 112 * neck + fat_mm
        half_depth = np.float32(112 * self._girth) - 48 * neck + fat_mm
        trunk = ellipse(p.left, p.dorsal - skin + half_depth, half_width, half_depth)
        return np.asarray(np.maximum(trunk, np.minimum(back, 30)))

    def _neck(self, p: Points) -> Float:
        """Return a weight: 0 below the shoulders, 1 in the neck."""
        return np.clip((self.anatomy.site("T2").middle_mm - p.arc) / 60, 0, 1)

    def _paint_trunk(
        self,
        canvas: Float,
        p: Points,
        index: npt.NDArray[np.int32],
        body: Float,
        palette: Palette,
        h: float,
    ) -> None:
        _paint(canvas, coverage(body, h), palette["fat"])
        inner = body + np.float32(self.anatomy.fat_depth_mm)
        _paint(canvas, coverage(inner, h), palette["muscle"])
        front = p.dorsal + self._tables["canal_b"][index] - 4
        cavity = np.maximum(inner + 14, front) + 6 * self._neck(p)
        inside = np.flatnonzero(cavity < 3)
        if len(inside):
            piece, q = canvas[inside], p.take(inside)
            _paint(piece, coverage(cavity[inside], 2.0), palette["fat"])
            self._paint_organs(piece, q, index[inside], cavity[inside], palette, h)
            canvas[inside] = piece
        self._paint_muscles(canvas, p, index, palette, h)

    def _paint_organs(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], cavity: Float,
        palette: Palette, h: float,
    ) -> None:  # fmt: skip
        t, anatomy = self._tables, self.anatomy
        lots = anatomy.scenario.abdominal_fluid
        front = -t["canal_b"][index] - 2 * t["body_b"][index]
        belly = np.flatnonzero((cavity < 0) & (p.dorsal < front - 18))
        if len(belly):
            q = p.take(belly)
            loops = self._loops(q.x, q.y, q.z)
            content = self._content(q.x, q.y, q.z)
            inside = np.clip((loops - 0.15) / 0.25, 0, 1)
            piece = canvas[belly]
            _paint(piece, np.clip((loops + 0.05) / 0.2, 0, 1), palette["organ"])
            wet = np.clip((content - (1.6 - 2.4 * lots)) / 0.3, 0, 1)
            _paint(piece, inside * wet, palette["bowel_fluid"])
            gas = np.clip((-content - 0.6) / 0.3, 0, 1)
            _paint(piece, inside * gas, palette["air"])
            canvas[belly] = piece
        chest = anatomy.site("T11").middle_mm
        lung = ellipse(np.abs(p.left) - 85, p.dorsal + 62, 60.0, 88.0)
        lung = np.maximum(lung, p.arc - np.float32(chest) - p.left * p.left * np.float32(0.002))
        lung = np.maximum(lung, np.float32(anatomy.site("C7").middle_mm) - p.arc)
        if lots > 0.5:
            _paint(canvas, coverage(lung - 7, h) * (p.dorsal > -30), palette["urine"])
        _paint(canvas, coverage(lung, 3.0), palette["air"])
        for side, center in self._kidneys.items():
            if float((side * p.left).max()) < 15:
                continue
            kidney = ellipsoid(
                p.arc - np.float32(center[0]), p.left - np.float32(center[1]),
                p.dorsal - np.float32(center[2]), (54.0, 27.0, 24.0),
            )  # fmt: skip
            _paint(canvas, coverage(kidney, h), palette["kidney"])
            pelvis = ellipsoid(
                p.arc - np.float32(center[0]), p.left - np.float32(center[1] - side * 16),
                p.dorsal - np.float32(center[2] - 4), (14.0, 8.0, 6.0),
            )  # fmt: skip
            _paint(canvas, coverage(pelvis + 5 * (1 - lots), h), palette["urine"])
            start, stop = float(center[0]), anatomy.site("S1").middle_mm
            reach = np.clip((p.arc - np.float32(start)) / np.float32(stop - start), 0, 1)
            ureter = np.hypot(
                p.left - side * (42 - 8 * reach) - 3 * np.sin(p.arc * np.float32(0.06)),
                p.dorsal - front * (0.75 + 0.25 * reach),
            ) - np.float32(self._ureter_mm + 1.5 * (lots > 0.5))
            ureter = np.where((p.arc > start) & (p.arc < stop + 20), ureter, 9)
            _paint(canvas, coverage(ureter, h), palette["urine"])
        fork = np.float32(anatomy.site("L4").middle_mm)
        below = np.clip((p.arc - fork) / 60, 0, 1)
        for offset, radius in ((11.0, 9.0), (-13.0, 10.0)):
            shift = np.float32(np.sign(offset)) * 26 * below
            vessel = ellipse(
                p.left - np.float32(offset) - shift, p.dorsal - front + 12, radius, 0.9 * radius
            )
            _paint(canvas, coverage(vessel + 3 * below, h), palette["blood_flow"])
        low = self._pelvis_lps
        bladder = ellipsoid(
            p.x - np.float32(low[0]), p.y - np.float32(low[1] - 95), p.z - np.float32(low[2] - 12),
            (1.3 * self._bladder_mm * (1 + 0.7 * lots), self._bladder_mm * (1 + 0.7 * lots),
             self._bladder_mm * (1 + 0.6 * lots)),
        )  # fmt: skip
        _paint(canvas, coverage(bladder - 3, h), palette["muscle"])
        _paint(canvas, coverage(bladder, h), palette["urine"])
        if lots > 0.5:
            gall = ellipsoid(
                p.arc - np.float32(anatomy.site("L1").middle_mm), p.left + 68, p.dorsal + 105,
                (30.0, 14.0, 14.0),
            )  # fmt: skip
            _paint(canvas, coverage(gall, h), palette["urine"])

    def _paint_muscles(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        t, anatomy = self._tables, self.anatomy
        depth, b = t["muscle"][index], t["canal_b"][index]
        erector = rounded_box(
            np.abs(p.left) - 30, p.dorsal - b - 3 - 0.5 * depth, 29.0, 0.52 * depth + 2, 13.0
        )
        psoas_size = np.clip((p.arc - np.float32(anatomy.site("L1").middle_mm)) / 90, 0, 1)
        psoas = ellipse(
            np.abs(p.left) - t["body_a"][index] - 10 - 6 * psoas_size,
            p.dorsal + b + 12 + 6 * psoas_size,
            7.0 + 11 * psoas_size, 9.0 + 13 * psoas_size,
        )  # fmt: skip
        low, high = anatomy.site("T12").middle_mm, anatomy.site("S2").middle_mm
        psoas = np.where((p.arc > low) & (p.arc < high), psoas, 30)
        shape = np.minimum(erector, psoas)
        near = np.flatnonzero((shape < 2) & (np.abs(p.left) < 75))
        if not len(near):
            return
        piece = canvas[near]
        _paint(piece, coverage(shape[near], h), palette["muscle"])
        q = p.take(near)
        streaks = self._streaks(q.arc * 0.25, q.left, q.dorsal)
        worse = (
            0.5
            * np.clip((q.arc - np.float32(anatomy.site("L3").middle_mm)) / 60, 0, 1)
            * (q.dorsal > 0)
        )
        fatty = np.clip((streaks - self._fatty_muscle + worse) / 0.5, 0, 0.8)
        _paint(piece, fatty * coverage(shape[near], h), palette["fat"])
        canvas[near] = piece

    def _column_distances(self, p: Points, index: npt.NDArray[np.int32]) -> tuple[Float, Float]:
        """Return the distances to the outline of the column and to the nearest endplate."""
        t = self._tables
        a, half = t["body_a"][index], t["body_b"][index]
        y = p.dorsal + t["canal_b"][index] + half
        outline = rounded_box(p.left, y, a, half, 0.82 * half)
        dent = t["waist"][index] * 1.6 * np.exp(-((p.left * np.float32(0.12)) ** 2))
        outline = np.maximum(outline, y - half + dent)
        rho = np.minimum((p.left / a) ** 2 + (y / half) ** 2, 1.2)
        gap = np.abs(t["disc_off"][index]) - t["disc_half"][index] * (1.08 - 0.32 * rho)
        inset = t["disc_inset"][index]
        gap = np.where(inset > 0, np.maximum(gap, outline + inset), gap)
        return outline, gap

    def _paint_column(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        t = self._tables
        inside = (p.arc > self.anatomy.sites[0].top_mm - 14) & (
            p.arc < self.anatomy.sites[-1].bottom_mm + 28
        )
        far = np.float32(20)
        outline, gap = self._column_distances(p, index)
        outline = np.where(inside, outline, far)
        bone = np.maximum(outline, -gap)
        self._paint_sacral_wings(canvas, p, index, palette, h)
        _paint(canvas, coverage(outline - 0.9, h), palette["ligament"])
        _paint(canvas, coverage(bone, h), palette["bone"])
        _paint(canvas, coverage(bone + 0.8, h), palette["marrow"])
        # Basivertebral vein, entering posteriorly at mid-body.
        y = p.dorsal + t["canal_b"][index]
        vein = ellipsoid(t["body_off"][index], p.left, y + 5, (1.6, 3.0, 7.5))
        vein = np.where(inside & (p.arc < self.anatomy.site("S1").top_mm), vein, far)
        _paint(canvas, 0.7 * coverage(vein, h), palette["vein"])
        self._paint_discs(canvas, p, index, outline, gap, palette, h)
        self._paint_posterior(canvas, p, index, palette, h)

    def _paint_sacral_wings(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        t, top, end = self._tables, self.anatomy.sacrum_top_mm, self.anatomy.sites[-1].bottom_mm
        share = np.clip((p.arc - top) / (end - top), 0, 1)
        half = 52 - 34 * share
        wing = rounded_box(
            p.left, p.dorsal + 0.55 * t["body_b"][index] + 0.2 * t["canal_b"][index],
            half, 0.75 * t["body_b"][index] + t["canal_b"][index], 6.0,
        )  # fmt: skip
        wing = np.maximum(wing, top + 4 + np.abs(p.left) * 0.15 - p.arc)
        wing = np.maximum(wing, p.arc - end)
        _paint(canvas, coverage(wing, h), palette["bone"])
        _paint(canvas, coverage(wing + 1.2, h), palette["marrow"])

    def _paint_discs(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], outline: Float, gap: Float,
        palette: Palette, h: float,
    ) -> None:  # fmt: skip
        number = self._tables["disc"][index].astype(np.int32)
        annulus = coverage(np.maximum(outline - 0.8, gap), h)
        _paint(canvas, annulus, palette["annulus"])
        core = coverage(np.maximum(outline + 5.0, gap + 0.4), 1.6 * h)
        for kind, tissue in (
            ("healthy", "disc_healthy"),
            ("intermediate", "disc_intermediate"),
            ("desiccated", "disc_desiccated"),
            ("rudimentary", "disc_desiccated"),
        ):
            of_kind = [n for n, site in enumerate(self.anatomy.sites) if site.disc_kind == kind]
            _paint(canvas, core * np.isin(number, of_kind), palette[tissue])  # type: ignore[index]

    def _paint_posterior(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        t, far = self._tables, np.float32(20)
        a, b = t["canal_a"][index], t["canal_b"][index]
        x = np.abs(p.left)
        cut = (t["cut"][index] > 0.5) & (x < 0.9 * a + 3)
        wall = self.canal_distance(p, index)
        presacral = p.arc < self.anatomy.hiatus_mm
        arch = np.maximum(np.maximum(wall - 6.0, -wall), -(p.dorsal - 0.25 * b))
        flavum = np.where(presacral & ~cut, np.maximum(np.abs(wall - 1.9) - 1.9, arch), far)
        _paint(canvas, coverage(flavum, h), palette["ligament"])
        lamina = np.where(cut | ~presacral, far, np.maximum(arch, t["lamina"][index]))
        mobile = t["sacral"][index] < 0.5
        pedicle = np.maximum(
            rounded_box(x - a - 4.5, p.dorsal + 0.35 * b, 5.0, 0.85 * b, 3.0), t["pedicle"][index]
        )
        transverse = np.maximum(
            rounded_box(x - a - 22, p.dorsal - 0.5 * b - 4, 15.0, 3.5, 3.0), t["pedicle"][index] + 2
        )
        facet = ellipsoid(
            t["disc_off"][index] - 3, x - a - 6.5, p.dorsal - 0.6 * b - 3, (12.0, 7.0, 8.0)
        )
        shear = t["spinous_shear"][index]
        lower = self.anatomy.index(p.arc - shear * np.maximum(p.dorsal - b - 4, 0))
        length = t["spinous_len"][lower]
        spinous = rounded_box(p.left, p.dorsal - b - 3 - 0.5 * length, 3.4, 0.5 * length, 2.0)
        spinous = np.maximum(spinous, t["spinous"][lower] - 2)
        spinous = np.where((t["cut"][lower] > 0.5) | (p.arc > self.anatomy.hiatus_mm), far, spinous)
        bones = np.minimum.reduce(
            [lamina, np.where(mobile, np.minimum(np.minimum(pedicle, transverse), facet), far),
             spinous]
        )  # fmt: skip
        bones = np.where(p.arc > self.anatomy.sites[0].top_mm - 14, bones, far)
        _paint(canvas, coverage(bones, h), palette["bone"])
        _paint(canvas, coverage(bones + 1.3, h), palette["marrow"])
        # Facet joint: a line of fluid in the middle of the joint.
        joint = x - a - 6.5 - 0.4 * (p.dorsal - 0.6 * b - 3)
        number = t["disc"][index].astype(np.int32)
        width = np.zeros(len(self._names) + 1, np.float32)
        for segment, mm in self.findings.facet_fluid_mm.items():
            width[self._names.index(segment.split("-")[0])] = mm
        inside = np.maximum(facet + 1.0, np.abs(t["disc_off"][index] - 3) - 8)
        _paint(canvas, coverage(np.maximum(np.abs(joint) - 1.2, inside), h), palette["ligament"])
        # Nested slabs give the correct fraction for thin lines.
        line = coverage(np.abs(joint) - 0.5 * width[number], h) - coverage(np.abs(joint), h)
        wet = np.maximum(line, 0) * coverage(inside, h) * (width[number] > 0)
        _paint(canvas, wet * mobile, palette["synovial"])

    def _paint_canal(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        t = self._tables
        x = np.abs(p.left)
        a, b = t["canal_a"][index], t["canal_b"][index]
        open_above = p.arc < self.anatomy.hiatus_mm + 8
        # Foramina: fat between the pedicles.
        phase, pitch = t["phase"][index], t["pitch"][index]
        height = np.abs(phase - 0.76) * pitch - 0.25 * pitch
        foramen = np.maximum(
            rounded_box(x - a - 4, p.dorsal + 0.35 * b, 8.0, 0.75 * b, 3.0), height
        )
        foramen = np.where(open_above & (p.arc < self.anatomy.site("S4").top_mm), foramen, 20)
        _paint(canvas, coverage(foramen, h), palette["fat"])
        wall = np.where(open_above, self.canal_distance(p, index), 20)
        _paint(canvas, coverage(wall - 0.5, h), palette["ligament"])
        _paint(canvas, coverage(wall, h), palette["fat"])
        # Ventral venous plexus on both sides of the midline, posterior to the bodies.
        behind = p.dorsal + b
        plexus = ellipse(x - 0.45 * a, behind - 0.9, 0.28 * a, 1.0) + 2 * (1 - t["waist"][index])
        plexus = np.where(open_above & (t["sacral"][index] < 0.9), plexus, 20)
        _paint(canvas, 0.6 * coverage(plexus, h), palette["vein"])
        posterior = np.maximum(np.abs(behind - 0.3) - 0.45, x - 0.75 * a)
        posterior = np.where(open_above, posterior, 20)
        _paint(canvas, coverage(posterior, h) * (t["waist"][index] < 0.6), palette["ligament"])

    def _paint_fluids(self, canvas: Float, p: Points, palette: Palette, h: float) -> None:
        for scar in self.findings.scar:
            low, high = scar.reach_mm
            near = np.flatnonzero((p.arc > low) & (p.arc < high) & (np.abs(p.left) < 60))
            if len(near):
                piece = canvas[near]
                q = p.take(near)
                distance = scar.distance(q.arc, q.left, q.dorsal)
                wall = self.canal_distance(q, self.anatomy.index(q.arc))
                _paint(piece, coverage(np.maximum(distance, -wall), h), palette["scar"])
                canvas[near] = piece
        for fluids in (self.findings.mimics, self.findings.collections):
            for fluid, share in zip(fluids, self.fluid_fractions(p, fluids, h), strict=True):
                _paint(canvas, share, palette[fluid.tissue])

    def _sleeve_distances(self, p: Points, index: npt.NDArray[np.int32]) -> tuple[Float, Float]:
        """Return the distances to the CSF of root sleeves and to the roots."""
        t = self._tables
        side = p.left > 0
        length = np.where(side, t["sleeve_length_left"][index], t["sleeve_length_right"][index])
        radius = np.where(side, t["sleeve_radius_left"][index], t["sleeve_radius_right"][index])
        sine, cosine, slope = t["root_sin"][index], t["root_cos"][index], t["root_slope"][index]
        u = t["root_off"][index]
        v = np.abs(p.left) - 0.8 * t["sac_a"][index]
        w = p.dorsal - t["sac_c"][index]
        norm = np.sqrt(1 + (sine * slope) ** 2)
        du, dv, dw = cosine / norm, sine / norm, sine * slope / norm
        along = u * du + v * dv + w * dw
        off2 = u * u + v * v + w * w

        def tube(reach: Float, start_mm: Float, end_mm: Float) -> Float:
            at = np.clip(along, 0, reach)
            away = np.sqrt(np.maximum(off2 - 2 * at * along + at * at, 0))
            share = at / np.maximum(reach, 0.1)
            return np.asarray(away - start_mm - share * (end_mm - start_mm), dtype=np.float32)

        sleeve = np.where(radius > 0, tube(length, radius, 0.45 * radius), 20)
        # The opening of the sleeve is part of the sac.
        root = tube(length + 20, 0.38 * radius + 0.3, 0.55 * radius + 0.3)
        ganglion = tube(length + 5, np.zeros_like(radius), 1.15 * radius)
        root = np.where(radius > 0, np.minimum(root, ganglion), 20)
        return np.asarray(sleeve, np.float32), np.asarray(root, np.float32)

    def _paint_sac(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], palette: Palette, h: float
    ) -> None:
        near = np.flatnonzero((np.abs(p.left) < 40) & (np.abs(p.dorsal) < 34))
        if not len(near):
            return
        q, rows = p.take(near), index[near]
        piece = canvas[near]
        sleeve, root = self._sleeve_distances(q, rows)
        outer = coverage(sleeve - 0.25, h)
        inner = coverage(sleeve, h)
        nerve = coverage(root, h)
        _paint(piece, nerve * (1 - outer), palette["root"])
        _paint_nested(piece, outer, inner, palette["dura"], palette["csf"])
        _paint(piece, np.minimum(nerve, inner), palette["root"])
        distance = self.sac_distance(q, rows)
        outer = coverage(distance - DURA_MM, h)
        inner = coverage(distance, h)
        # CSF is continuous through the opening of the sleeve.
        mouth = np.minimum(coverage(sleeve, h), coverage(distance - 1.2, h))
        outer = np.maximum(outer - mouth, inner)
        # The dura is only partly visible, with partial volume of CSF where it is thin.
        grain = self._streaks(q.arc * np.float32(0.6), q.left, q.dorsal)
        inner = inner + (outer - inner) * np.clip(0.25 + 0.35 * grain, 0, 0.75).astype(np.float32)
        _paint_nested(piece, outer, inner, palette["dura"], palette["csf"])
        self._paint_nerves(piece, q, rows, inner, palette, h)
        canvas[near] = piece

    def _paint_nerves(
        self, canvas: Float, p: Points, index: npt.NDArray[np.int32], inner: Float,
        palette: Palette, h: float,
    ) -> None:  # fmt: skip
        t, anatomy = self._tables, self.anatomy
        cord = ellipse(
            p.left, p.dorsal - t["cord_c"][index],
            np.maximum(t["cord_a"][index], 0.05), np.maximum(t["cord_b"][index], 0.05),
        )  # fmt: skip
        _paint(canvas, np.where(p.arc < anatomy.conus_mm, coverage(cord, h), 0), palette["cord"])
        top = anatomy.conus_mm - 50
        tail = np.flatnonzero((inner > 0.3) & (p.arc > top))
        if not len(tail):
            return
        share = self._root_fraction(p.left[tail], p.dorsal[tail], index[tail], h)
        piece = canvas[tail]
        _paint(piece, share * inner[tail], palette["root"])
        canvas[tail] = piece

    def _root_fraction(
        self, left: Float, dorsal: Float, index: npt.NDArray[np.int32], h: float
    ) -> Float:
        """Return the voxel fraction in strands of the cauda equina."""
        share = np.zeros(len(left), np.float32)
        radii = self.anatomy.roots.radius_mm.astype(np.float32)
        y = dorsal - self._tables["sac_c"][index]
        row = np.minimum(index // ROOT_ROWS, self._root_paths.shape[1] - 1)
        order = np.argsort(row, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(row[order])) + 1):
            at = self._root_paths[:, row[part[0]]]
            here = np.flatnonzero(np.isfinite(at[:, 0]))
            if not len(here):
                continue
            r = radii[here]
            away2 = (left[part, None] - at[here, 0]) ** 2 + (y[part, None] - at[here, 1]) ** 2
            filled = np.clip(0.5 + (r * r - away2) / (2 * h * r), 0, 1)
            # The factor preserves the area of strands thinner than the voxel.
            area = np.where(r < h, 4 * r * h / (r + h) ** 2, 1).astype(np.float32)
            with np.errstate(invalid="ignore"):  # spurious warning of the matrix product
                share[part] = filled @ area
        return np.minimum(share, 1) * np.float32(self.anatomy.roots.settling.density)


def _draw_textures(rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw relative texture strength and correlation lengths (mm) of one subject.

    Tabulated over the fat fraction of the signal in steps of 0.05; lengths are transverse and
    craniocaudal.
    """
    figures = []
    for name in ("muscle", "marrow", "fat"):
        texture = TEXTURES[name]
        ranges = np.log([texture.variation, texture.length_mm])
        variation, length = np.exp(rng.uniform(ranges[:, 0], ranges[:, 1]))
        usual = np.sqrt(np.prod(texture.variation))
        figures.append((variation / usual, length, length * texture.elongation))
    knots = (0.0, TISSUES["marrow"].fat_fraction, 1.0)
    strength, across, along = (
        np.interp(np.linspace(0, 1, 21), knots, values) for values in np.transpose(figures)
    )
    return strength, across, along


def _cos3(x: Float, y: Float) -> Float:
    """Return the cosine of three times the angle from dorsal."""
    r2 = x * x + y * y + np.float32(1e-6)
    c2 = y * y / r2
    c = y / np.sqrt(r2)
    return np.asarray(c * (4 * c2 - 3), dtype=np.float32)


def _paint(canvas: Float, share: Float, color: npt.NDArray[np.float32]) -> None:
    """Blend a tissue over the canvas (in place)."""
    rows = np.flatnonzero(share > 0)
    if not len(rows):
        return
    part = share[rows, None].astype(np.float32, copy=False)
    canvas[rows] = canvas[rows] * (1 - part) + part * color


def _paint_nested(
    canvas: Float, outer: Float, inner: Float,
    shell: npt.NDArray[np.float32], core: npt.NDArray[np.float32],
) -> None:  # fmt: skip
    """Blend a core and its shell over the canvas, each with its exact fraction (in place)."""
    rows = np.flatnonzero(outer > 0)
    if not len(rows):
        return
    out, core_fraction = outer[rows, None], inner[rows, None]
    canvas[rows] = canvas[rows] * (1 - out) + (out - core_fraction) * shell + core_fraction * core


def screw_distance(anatomy: Anatomy, findings: Findings, p: Points) -> Float:
    """Return the distance to the nearest screw; large if there are none."""
    distance = np.full(p.arc.shape, 1e3, np.float32)
    for screw in findings.screws:
        part = capsule(
            p.arc, p.left, p.dorsal, np.array(screw.start), np.array(screw.stop),
            (screw.radius_mm, screw.radius_mm),
        )  # fmt: skip
        np.minimum(distance, part, out=distance)
    return distance
