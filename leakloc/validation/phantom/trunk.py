"""Trunk around the spine: skin, fat, muscles and organs."""

from __future__ import annotations

import numpy as np

from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.canvas import Canvas, Points
from leakloc.validation.phantom.shapes import (
    Float,
    Noise3D,
    coverage,
    ellipse,
    ellipsoid,
    rounded_box,
)


class Trunk:
    """Trunk of one subject: girth, organs and fat in muscle, drawn at random."""

    def __init__(self, anatomy: Anatomy, rng: np.random.Generator) -> None:
        self._anatomy = anatomy
        self._tables = anatomy.tables
        self._loops = Noise3D(rng, 26.0)
        self._content = Noise3D(rng, 30.0)
        self.streaks = Noise3D(rng, 7.0)
        """Fine noise, for fat in muscle and for the dura."""
        self._fatty_muscle = float(rng.uniform(0.7, 2.2))
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

    def distance(self, points: Points) -> Float:
        """Return the signed distance to the skin."""
        fat_mm = np.float32(self._anatomy.fat_depth_mm)
        wall, muscle = self._tables.canal.b[points.rows], self._tables.muscle[points.rows]
        skin = wall + 6 + muscle + fat_mm
        back = points.dorsal - skin + points.left * points.left * np.float32(1 / 520)
        neck = self._neck(points)
        half_width = np.float32(178 * self._girth) - 112 * neck + fat_mm
        half_depth = np.float32(112 * self._girth) - 48 * neck + fat_mm
        trunk = ellipse(points.left, points.dorsal - skin + half_depth, half_width, half_depth)
        return np.asarray(np.maximum(trunk, np.minimum(back, 30)))

    def _neck(self, points: Points) -> Float:
        """Return a weight: 0 below the shoulders, 1 in the neck."""
        return np.clip((self._anatomy.site("T2").middle_mm - points.arc) / 60, 0, 1)

    def paint(self, canvas: Canvas, distance: Float) -> None:
        """Paint the trunk inside the skin at a signed distance."""
        points = canvas.points
        canvas.fill("fat", distance)
        inner = distance + np.float32(self._anatomy.fat_depth_mm)
        canvas.fill("muscle", inner)
        front = points.dorsal + self._tables.canal.b[points.rows] - 4
        cavity = np.maximum(inner + 14, front) + 6 * self._neck(points)
        inside = np.flatnonzero(cavity < 3)
        if len(inside):
            with canvas.region(inside) as part:
                part.paint("fat", coverage(cavity[inside], 2.0))
                self._paint_organs(part, cavity[inside])
        self._paint_muscles(canvas)

    def _paint_organs(self, canvas: Canvas, cavity: Float) -> None:
        points, rows = canvas.points, canvas.points.rows
        front = -self._tables.canal.b[rows] - 2 * self._tables.column.b[rows]
        belly = np.flatnonzero((cavity < 0) & (points.dorsal < front - 18))
        if len(belly):
            with canvas.region(belly) as part:
                self._paint_bowel(part)
        self._paint_lungs(canvas)
        for side in self._kidneys:
            if float((side * points.left).max()) >= 15:
                self._paint_kidney(canvas, side, front)
        fork = np.float32(self._anatomy.site("L4").middle_mm)
        below = np.clip((points.arc - fork) / 60, 0, 1)
        for offset, radius in ((11.0, 9.0), (-13.0, 10.0)):  # aorta and vena cava
            shift = np.float32(np.sign(offset)) * 26 * below
            x, y = points.left - np.float32(offset) - shift, points.dorsal - front + 12
            canvas.fill("blood_flow", ellipse(x, y, radius, 0.9 * radius) + 3 * below)
        self._paint_bladders(canvas)

    def _paint_bowel(self, canvas: Canvas) -> None:
        points = canvas.points
        loops = self._loops(points.x, points.y, points.z)
        content = self._content(points.x, points.y, points.z)
        inside = np.clip((loops - 0.15) / 0.25, 0, 1)
        canvas.paint("organ", np.clip((loops + 0.05) / 0.2, 0, 1))
        threshold = 1.6 - 2.4 * self._anatomy.scenario.abdominal_fluid
        canvas.paint("bowel_fluid", inside * np.clip((content - threshold) / 0.3, 0, 1))
        canvas.paint("air", inside * np.clip((-content - 0.6) / 0.3, 0, 1))

    def _paint_lungs(self, canvas: Canvas) -> None:
        points, anatomy = canvas.points, self._anatomy
        chest = anatomy.site("T11").middle_mm
        lung = ellipse(np.abs(points.left) - 85, points.dorsal + 62, 60.0, 88.0)
        dome = points.left * points.left * np.float32(0.002)
        lung = np.maximum(lung, points.arc - np.float32(chest) - dome)
        lung = np.maximum(lung, np.float32(anatomy.site("C7").middle_mm) - points.arc)
        if anatomy.scenario.abdominal_fluid > 0.5:  # pleural fluid
            canvas.paint("urine", canvas.inside(lung - 7) * (points.dorsal > -30))
        canvas.paint("air", coverage(lung, 3.0))

    def _paint_kidney(self, canvas: Canvas, side: float, front: Float) -> None:
        """Paint a kidney with pelvis and ureter; `front` is the anterior surface of the column."""
        points, fluid = canvas.points, self._anatomy.scenario.abdominal_fluid
        center = self._kidneys[side]
        arc = points.arc - np.float32(center[0])
        kidney = ellipsoid(
            arc, points.left - np.float32(center[1]), points.dorsal - np.float32(center[2]),
            (54.0, 27.0, 24.0),
        )  # fmt: skip
        canvas.fill("kidney", kidney)
        pelvis = ellipsoid(
            arc, points.left - np.float32(center[1] - side * 16),
            points.dorsal - np.float32(center[2] - 4), (14.0, 8.0, 6.0),
        )  # fmt: skip
        canvas.fill("urine", pelvis + 5 * (1 - fluid))
        start, stop = float(center[0]), self._anatomy.site("S1").middle_mm
        position = np.clip((points.arc - np.float32(start)) / np.float32(stop - start), 0, 1)
        ureter = np.hypot(
            points.left - side * (42 - 8 * position) - 3 * np.sin(points.arc * np.float32(0.06)),
            points.dorsal - front * (0.75 + 0.25 * position),
        ) - np.float32(self._ureter_mm + 1.5 * (fluid > 0.5))
        canvas.fill("urine", np.where((points.arc > start) & (points.arc < stop + 20), ureter, 9))

    def _paint_bladders(self, canvas: Canvas) -> None:
        """Paint the urinary bladder, and the gallbladder if it is full."""
        points, fluid = canvas.points, self._anatomy.scenario.abdominal_fluid
        low, size = self._pelvis_lps, self._bladder_mm
        bladder = ellipsoid(
            points.x - np.float32(low[0]), points.y - np.float32(low[1] - 95),
            points.z - np.float32(low[2] - 12),
            (1.3 * size * (1 + 0.7 * fluid), size * (1 + 0.7 * fluid), size * (1 + 0.6 * fluid)),
        )  # fmt: skip
        canvas.fill("muscle", bladder - 3)
        canvas.fill("urine", bladder)
        if fluid > 0.5:
            l1 = np.float32(self._anatomy.site("L1").middle_mm)
            axes = points.arc - l1, points.left + 68, points.dorsal + 105
            canvas.fill("urine", ellipsoid(*axes, (30.0, 14.0, 14.0)))

    def _paint_muscles(self, canvas: Canvas) -> None:
        points, anatomy = canvas.points, self._anatomy
        depth, b = self._tables.muscle[points.rows], self._tables.canal.b[points.rows]
        y = points.dorsal - b - 3 - 0.5 * depth
        erector = rounded_box(np.abs(points.left) - 30, y, 29.0, 0.52 * depth + 2, 13.0)
        size = np.clip((points.arc - np.float32(anatomy.site("L1").middle_mm)) / 90, 0, 1)
        psoas = ellipse(
            np.abs(points.left) - self._tables.column.a[points.rows] - 10 - 6 * size,
            points.dorsal + b + 12 + 6 * size, 7.0 + 11 * size, 9.0 + 13 * size,
        )  # fmt: skip
        low, high = anatomy.site("T12").middle_mm, anatomy.site("S2").middle_mm
        psoas = np.where((points.arc > low) & (points.arc < high), psoas, 30)
        shape = np.minimum(erector, psoas)
        near = np.flatnonzero((shape < 2) & (np.abs(points.left) < 75))
        if not len(near):
            return
        with canvas.region(near) as part:
            muscle, points = part.inside(shape[near]), part.points
            part.paint("muscle", muscle)
            streaks = self.streaks(points.arc * 0.25, points.left, points.dorsal)
            lumbar = (points.arc - np.float32(anatomy.site("L3").middle_mm)) / 60
            worse = 0.5 * np.clip(lumbar, 0, 1) * (points.dorsal > 0)
            fatty = np.clip((streaks - self._fatty_muscle + worse) / 0.5, 0, 0.8)
            part.paint("fat", fatty * muscle)
