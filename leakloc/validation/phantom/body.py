"""Body of one subject: tissue signal of points from trunk, column and canal."""

from __future__ import annotations

from typing import Final

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.canal import Canal
from leakloc.validation.phantom.canvas import Canvas, Palette, Points
from leakloc.validation.phantom.column import Column
from leakloc.validation.phantom.contents import Contents
from leakloc.validation.phantom.findings import Findings
from leakloc.validation.phantom.shapes import Float, Noise3D
from leakloc.validation.phantom.tissues import TEXTURES, TISSUES
from leakloc.validation.phantom.trunk import Trunk

TEXTURE_NODES: Final = 2
"""Grid steps of texture noise per correlation length; the period is 32 lengths."""

TEXTURE_LOSS: Final = 0.89
"""Mean standard deviation of such unit noise after linear interpolation."""


class Body:
    """Anatomy and findings, painted region by region."""

    def __init__(self, anatomy: Anatomy, findings: Findings, rng: np.random.Generator) -> None:
        self.anatomy = anatomy
        self.findings = findings
        self._texture = Noise3D(rng, 1.0, TEXTURE_NODES)
        self._textures = _draw_textures(rng.spawn(1)[0])
        self.canal = Canal(anatomy)
        self.column = Column(self.canal, findings.facet_fluid_mm)
        self._trunk = Trunk(anatomy, rng)
        self._contents = Contents(self.canal, self._trunk.streaks)

    def paint(self, points: Points, palette: Palette, width_mm: float) -> Float:
        """Return the channels of each point, shape (n, 5)."""
        canvas = Canvas(np.zeros((len(points.arc), 5), np.float32), points, palette, width_mm)
        skin = self._trunk.distance(points)
        inside = np.flatnonzero(skin < width_mm)
        if not len(inside):
            return canvas.channels
        with canvas.region(inside) as part:
            self._trunk.paint(part, skin[inside])
        near = self.column.near(points)
        if len(near):
            with canvas.region(near) as part:
                self.column.paint(part)
                self.canal.paint(part)
        self._contents.paint_fluids(canvas, self.findings)
        gaps = [fluid.gap for fluid in self.findings.collections if fluid.gap is not None]
        if len(near):
            with canvas.region(near) as part:
                self._contents.paint_sac(part, gaps)
        return canvas.channels

    def grain(
        self, points: Points, variation: Float, fat_fraction: Float, width_mm: float
    ) -> Float:
        """Return texture factors of the signal of points, mean 1.

        Averaging over a voxel reduces strength and increases grain size.

        Parameters
        ----------
        points : Points
        variation : numpy.ndarray
            Coefficient of variation in a median subject.
        fat_fraction : numpy.ndarray
            Fat fraction of the signal; it distinguishes muscle, marrow and fat.
        width_mm : float
        """
        strength, across, along = self._textures
        wide, tall = (np.hypot(mm, width_mm / np.sqrt(3)) for mm in (across, along))
        strength = strength * across / wide * np.sqrt(along / tall) / TEXTURE_LOSS
        row = (fat_fraction * (len(strength) - 1)).astype(np.intp)
        flat, up = ((1 / mm).astype(np.float32)[row] for mm in (wide, tall))
        noise = self._texture(points.x * flat, points.y * flat, points.z * up)
        noise *= variation * strength.astype(np.float32)[row]
        noise += 1
        return np.maximum(noise, np.float32(0.1))


def _draw_textures(rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw relative texture strength and correlation lengths (mm) of one subject.

    Tabulated over the fat fraction of the signal in steps of 0.05; lengths are transverse and
    craniocaudal.
    """
    drawn = []
    for name in ("muscle", "marrow", "fat"):
        texture = TEXTURES[name]
        ranges = np.log([texture.variation, texture.length_mm])
        variation, length = np.exp(rng.uniform(ranges[:, 0], ranges[:, 1]))
        median = np.sqrt(np.prod(texture.variation))
        drawn.append((variation / median, length, length * texture.elongation))
    knots = (0.0, TISSUES["marrow"].fat_fraction, 1.0)
    strength, across, along = (
        np.interp(np.linspace(0, 1, 21), knots, values) for values in np.transpose(drawn)
    )
    return strength, across, along
