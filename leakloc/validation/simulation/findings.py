"""Simulation of epidural fluid and its mimics around the thecal sac of a patient.

All structures are computed on the patient grid in canal coordinates: a layer along the dura, a
collection posterior to the canal with a neck, and bright structures that mimic a leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from leakloc.anatomy.vocabulary import Position
from leakloc.validation.phantom.shapes import capsule, coverage, ellipsoid
from leakloc.validation.simulation.patients import Patient

Array = npt.NDArray[np.float32]
Rng = np.random.Generator
Mask = npt.NDArray[np.bool_]

SECTOR_ANGLE: Final[dict[Position, float]] = {
    "left": 0.0, "dorsal": np.pi / 2, "right": np.pi, "ventral": -np.pi / 2
}  # fmt: skip
"""Central angle of each sector around the sac, from left to posterior, radians."""

EDGE_MM: Final = 0.6
"""Width of the blurred edge of simulated fluid: about one voxel of the patient volumes."""

MIN_LAYER_MM: Final = 0.7
"""Minimum thickness of a layer; thinner parts are removed."""

FIELD_STEP_MM: Final = 4.0
"""Grid spacing of the smooth noise that modulates a layer."""


@dataclass(frozen=True)
class Layer:
    """Layer of fluid along the dura.

    Parameters
    ----------
    position : str
        Sector or circumferential.
    arc_mm : tuple of float
        Cranial and caudal end along the centerline.
    half_width_rad : float
        Half the angle covered by the layer; not used if circumferential.
    thickness_mm : float
        Thickness before modulation.
    gap_mm : float
        Distance between sac and fluid (dura).
    """

    position: Position
    arc_mm: tuple[float, float]
    half_width_rad: float
    thickness_mm: float
    gap_mm: float = 0.6


@dataclass(frozen=True)
class Pool:
    """A pseudomeningocele: a collection posterior to the canal with a neck to the dura.

    Parameters
    ----------
    arc_mm, left_mm, dorsal_mm : float
        Center in canal coordinates.
    radii_mm : tuple of float
        Along the canal, to the left, posteriorly.
    neck_mm : float
        Radius of the neck; 0 for none (a seroma separate from the canal).
    """

    arc_mm: float
    left_mm: float
    dorsal_mm: float
    radii_mm: tuple[float, float, float]
    neck_mm: float


@dataclass(frozen=True, eq=False)
class Painted:
    """Simulated fluid and mimics on the grid of a patient.

    Parameters
    ----------
    fraction : ndarray, float32
        Fraction of each voxel filled by epidural fluid.
    ids : ndarray, uint8
        Number of the collection that contributes most; 0 for none.
    positions : dict
        Position of each collection by number.
    mimics : ndarray, float32
        Signal of bright structures that mimic a leak, relative to CSF.
    """

    fraction: Array
    ids: npt.NDArray[np.uint8]
    positions: dict[int, Position]
    mimics: Array


def smooth_field(rng: Rng, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> Array:
    """Return Gaussian noise of unit variance, smoothed with `sigma` in samples."""
    noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), sigma, mode="wrap")
    return np.asarray(noise / (noise.std() + 1e-6), np.float32)


def paint_layer(patient: Patient, layer: Layer, rng: Rng) -> Array:
    """Return the voxel fractions of a layer, outside sac, bone and discs."""
    c = patient.coordinates
    start, stop = layer.arc_mm
    near = (c.arc > start) & (c.arc < stop) & (patient.sac_distance_mm > -1.0)
    near &= (patient.sac_distance_mm < 2.0 * layer.thickness_mm + 3.0) & ~patient.solid
    arc, angle = c.arc[near], np.arctan2(c.dorsal[near], c.left[near])
    rows = max(int((stop - start) / FIELD_STEP_MM) + 2, 4)
    noise = smooth_field(rng, (rows, 24), (rng.uniform(1.0, 4.0), rng.uniform(1.5, 4.0)))
    at = [(arc - start) / FIELD_STEP_MM, (angle + np.pi) / (2 * np.pi) * 24]
    modulation = map_coordinates(noise, at, order=1, mode="grid-wrap")
    thickness = layer.thickness_mm * np.exp(np.float32(rng.uniform(0.1, 0.35)) * modulation)
    for end in (arc - start, stop - arc):
        length = min(rng.uniform(3.0, 14.0), 0.45 * (stop - start))
        thickness *= np.sqrt(np.clip(end / length, 0.0, 1.0))
    if layer.position != "circumferential":
        away = angle - SECTOR_ANGLE[layer.position] + np.pi
        away = np.abs(away % (2 * np.pi) - np.pi)
        taper = np.clip((layer.half_width_rad - away) / rng.uniform(0.2, 0.5), 0.0, 1.0)
        thickness *= np.sqrt(taper)
    thickness[thickness < MIN_LAYER_MM] = -EDGE_MM
    distance = patient.sac_distance_mm[near] - np.float32(layer.gap_mm)
    inner = np.clip(0.5 + distance / EDGE_MM, 0.0, 1.0)
    outer = np.clip(0.5 + (thickness - distance) / EDGE_MM, 0.0, 1.0)
    painted = np.zeros(c.arc.shape, np.float32)
    painted[near] = inner * outer
    return painted


def paint_pool(patient: Patient, pool: Pool) -> Array:
    """Return the voxel fractions of a pool and its neck; vertebral arches are replaced."""
    c = patient.coordinates
    a, b, d = pool.radii_mm
    near = (np.abs(c.arc - pool.arc_mm) < a + 1.0) & (c.dorsal > 0)
    arc, left, dorsal = c.arc[near], c.left[near], c.dorsal[near]
    away = (arc - pool.arc_mm, left - pool.left_mm, dorsal - pool.dorsal_mm)
    distance = ellipsoid(*away, (a, b, d))
    if pool.neck_mm > 0:
        start = np.array([pool.arc_mm, 0.3 * pool.left_mm, 3.0])
        stop = np.array([pool.arc_mm, pool.left_mm, pool.dorsal_mm])
        neck = capsule(arc, left, dorsal, start, stop, (pool.neck_mm, pool.neck_mm))
        distance = np.minimum(distance, neck)
    painted = np.zeros(c.arc.shape, np.float32)
    outside = np.clip(0.5 + (patient.sac_distance_mm[near] - 0.6) / EDGE_MM, 0.0, 1.0)
    painted[near] = coverage(distance, EDGE_MM) * outside
    return painted


def paint_blob(
    patient: Patient, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Array:
    """Return the voxel fractions of an ellipsoid (arc, left, dorsal) outside the sac."""
    c = patient.coordinates
    near = (np.abs(c.arc - center[0]) < radii[0] + 1.0) & (patient.sac_distance_mm > 0.3)
    axes = (c.arc[near], c.left[near], c.dorsal[near])
    x, y, z = (axis - middle for axis, middle in zip(axes, center, strict=True))
    painted = np.zeros(c.arc.shape, np.float32)
    painted[near] = coverage(ellipsoid(x, y, z, radii), EDGE_MM)
    return painted


def paint_vein(
    patient: Patient, arc_mm: tuple[float, float], angle: float, radius_mm: float, rng: Rng
) -> Array:
    """Return the voxel fractions of a thin vessel along the dura."""
    c = patient.coordinates
    start, stop = arc_mm
    near = (c.arc > start) & (c.arc < stop) & (patient.sac_distance_mm < 8.0) & ~patient.solid
    arc = c.arc[near]
    sway = smooth_field(rng, (64,), 6.0)
    turn = angle + 0.25 * np.interp(arc, np.linspace(start, stop, 64), sway)
    bearing = np.arctan2(c.dorsal[near], c.left[near])
    away = np.abs((bearing - turn + np.pi) % (2 * np.pi) - np.pi)
    across = away * np.hypot(c.left[near], c.dorsal[near])
    out = patient.sac_distance_mm[near] - (radius_mm + 0.7)
    painted = np.zeros(c.arc.shape, np.float32)
    painted[near] = coverage(np.hypot(across, out) - radius_mm, EDGE_MM)
    return painted
