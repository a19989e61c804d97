"""Signed distances (millimeters, negative inside) to shapes, and voxel fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from leakloc.core.volume import FloatArray

Float = npt.NDArray[np.floating[Any]]


def coverage(distance: Float, width_mm: float) -> Float:
    """Return the fraction of a voxel inside a surface at a signed distance from its center."""
    fraction = np.float32(0.5) - distance * np.float32(1 / width_mm)
    return np.asarray(np.clip(fraction, 0, 1), dtype=np.float32)


def ellipse(x: Float, y: Float, a: Float | float, b: Float | float) -> Float:
    """Return the distance to an ellipse, first-order accurate at its edge."""
    p, q = x / a, y / b
    k0 = np.sqrt(p * p + q * q)
    p, q = p / a, q / b
    k1 = np.sqrt(p * p + q * q)
    tiny = np.float32(1e-4)
    return np.asarray((k0 - 1) * (k0 + tiny) / (k1 + tiny / b), dtype=np.float32)


def ellipsoid(x: Float, y: Float, z: Float, radii: tuple[float, float, float]) -> Float:
    """Return the distance to an ellipsoid, first-order accurate at its edge."""
    a, b, c = (np.float32(radius) for radius in radii)
    p, q, r = x / a, y / b, z / c
    k0 = np.sqrt(p * p + q * q + r * r)
    p, q, r = p / a, q / b, r / c
    k1 = np.sqrt(p * p + q * q + r * r)
    tiny = np.float32(1e-4)
    return np.asarray((k0 - 1) * (k0 + tiny) / (k1 + tiny / min(a, b, c)), dtype=np.float32)


def rounded_box(
    x: Float, y: Float, a: Float | float, b: Float | float, radius: Float | float
) -> Float:
    """Return the distance to a rectangle with half sides `a`, `b` and rounded corners."""
    p = np.abs(x) - (a - radius)
    q = np.abs(y) - (b - radius)
    outside = np.sqrt(np.maximum(p, 0) ** 2 + np.maximum(q, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(p, q), 0) - radius, dtype=np.float32)


def capsule(
    x: Float, y: Float, z: Float, start: FloatArray, stop: FloatArray, radii: tuple[float, float]
) -> Float:
    """Return the distance to a tube from `start` to `stop` with linearly varying radius."""
    along = np.asarray(stop - start, dtype=np.float32)
    length2 = float(along @ along) + 1e-9
    px, py, pz = (v - np.float32(s) for v, s in zip((x, y, z), start, strict=True))
    t = np.clip((px * along[0] + py * along[1] + pz * along[2]) / np.float32(length2), 0, 1)
    px, py, pz = px - t * along[0], py - t * along[1], pz - t * along[2]
    radius = np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    return np.asarray(np.sqrt(px * px + py * py + pz * pz) - radius, dtype=np.float32)


class Noise3D:
    """Smooth periodic noise of unit variance in three coordinates.

    Parameters
    ----------
    rng : numpy.random.Generator
    grain_mm : float
        Correlation length (decay to 1/e).
    nodes : int
        Grid steps of the noise per correlation length; the period is 64 steps.
    """

    SIZE = 64

    def __init__(self, rng: np.random.Generator, grain_mm: float, nodes: int = 4) -> None:
        self._step = np.float32(grain_mm / nodes)
        rough = rng.normal(size=(self.SIZE,) * 3).astype(np.float32)
        smooth = gaussian_filter(rough, nodes / 2, mode="wrap")
        self._values = smooth / smooth.std()

    def __call__(self, x: Float, y: Float, z: Float) -> Float:
        """Return the values at coordinates in millimeters, shape as `x`."""
        at = np.stack([x, y, z]).reshape(3, -1) / self._step
        values = map_coordinates(
            self._values, at, output=np.float32, order=1, mode="grid-wrap", prefilter=False
        )
        return np.asarray(values.reshape(np.shape(x)))


def smooth_noise(n: int, sigma_mm: float, rng: np.random.Generator, step_mm: float) -> FloatArray:
    """Return smooth noise of unit variance at `n` points with a spacing of `step_mm`."""
    coarse = max(int(n * step_mm / (sigma_mm / 3)), 8)
    rough = gaussian_filter1d(rng.normal(size=coarse), 3.0, mode="reflect")
    rough = (rough - rough.mean()) / (rough.std() + 1e-9)
    return np.asarray(np.interp(np.linspace(0, coarse - 1, n), np.arange(coarse), rough))
