"""Simulation of MR myelography contrast and acquisition from conventional T2.

Each parameter is drawn from a wide range to cover the variation between scanners: from
moderately T2-weighted and STIR images with a gray cord to heavily T2-weighted images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter, zoom

from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.validation.simulation.findings import Painted, smooth_field
from leakloc.validation.simulation.patients import BONE, DISC, Patient

Array = npt.NDArray[np.float32]
Rng = np.random.Generator

ContrastKind = Literal["heavy", "moderate", "stir", "conventional"]
Fat = Literal["suppressed", "partial", "none"]
Plane = Literal["sagittal", "coronal", "axial"]

SAC_EDGE_MM: Final = 0.7
"""Width of the signal transition at the surface of the sac."""

CSF_LIMIT: Final = 1.15
"""Maximum relative signal; higher values are inflow or clipping in the source volume."""

_RANGES: Final[dict[ContrastKind, dict[str, tuple[float, float]]]] = {
    "heavy": {
        "floor": (0.0, 0.45), "ceiling": (0.65, 1.05), "gamma": (0.7, 2.4), "power": (0.9, 2.2),
        "bone": (0.02, 0.3), "disc": (0.05, 0.7), "other": (0.02, 0.35),
    },
    "moderate": {
        "floor": (0.0, 0.2), "ceiling": (0.85, 1.1), "gamma": (0.7, 1.4), "power": (0.8, 1.4),
        "bone": (0.2, 0.9), "disc": (0.2, 1.0), "other": (0.05, 0.45),
    },
    "stir": {
        "floor": (0.0, 0.25), "ceiling": (0.85, 1.1), "gamma": (0.6, 1.3), "power": (0.6, 1.3),
        "bone": (0.1, 0.5), "disc": (0.3, 1.1), "other": (0.05, 0.4),
    },
}  # fmt: skip
"""Range of each parameter of `Contrast`; conventional T2 is unchanged."""

_AXES: Final[dict[Plane, FloatArray]] = {
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "axial": np.eye(3),
}
"""Columns: directions of i, j, k in the axes (left, posterior, superior) of the patient grid."""


@dataclass(frozen=True)
class Contrast:
    """Mapping of relative T2 signal to myelogram signal (CSF is 1).

    Parameters
    ----------
    floor, ceiling, gamma : float
        Inside the sac: ``((signal - floor) / (ceiling - floor)) ** gamma``.
    power : float
        Exponent outside the sac, applied before the gains.
    bone, disc, other : float
        Gain of vertebrae, of discs, and of fat and all other tissue.
    failed : float
        Gain of fat where fat suppression fails; equals `other` without failure.
    fluid : float
        Signal of epidural fluid relative to CSF at the same level.
    dural_line : float
        Depth of the dark line between CSF and epidural fluid, 0 to 1.
    """

    floor: float
    ceiling: float
    gamma: float
    power: float
    bone: float
    disc: float
    other: float
    failed: float
    fluid: float
    dural_line: float


@dataclass(frozen=True)
class Acquisition:
    """Voxel grid and image quality of a series.

    Parameters
    ----------
    plane : str
    pixel_mm, slice_mm : float
        In-plane pixel size and slice spacing.
    blur_voxels : float
        Standard deviation of the in-plane point spread function.
    snr : float
        Signal of CSF divided by the standard deviation of the noise.
    shading : float
        Maximum relative deviation of the receive field.
    """

    plane: Plane
    pixel_mm: float
    slice_mm: float
    blur_voxels: float = 0.4
    snr: float = 40.0
    shading: float = 0.2


def draw_contrast(kind: ContrastKind, fat: Fat, rng: Rng) -> Contrast:
    """Draw random contrast parameters of a kind."""
    u = rng.uniform
    fluid, line = float(np.clip(rng.normal(1.0, 0.08), 0.85, 1.2)), float(u(0.1, 1.0))
    if kind == "conventional":
        return Contrast(0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, fluid, line)
    drawn = {name: float(u(*limits)) for name, limits in _RANGES[kind].items()}
    failed = float(u(0.4, 1.0)) if fat == "partial" else drawn["other"]
    return Contrast(**drawn, failed=failed, fluid=fluid, dural_line=line)


def render(patient: Patient, painted: Painted, contrast: Contrast, rng: Rng) -> Array:
    """Return the noise-free signal on the patient grid, CSF about 1."""
    signal, distance = patient.relative_signal, patient.sac_distance_mm
    span = contrast.ceiling - contrast.floor
    inside = np.clip((np.clip(signal, 0, CSF_LIMIT) - contrast.floor) / span, 0, None)
    inside **= np.float32(contrast.gamma)
    np.minimum(inside, CSF_LIMIT, out=inside)
    gain = np.full(signal.shape, contrast.other, np.float32)
    bone = patient.labels.array == BONE
    gain[bone] = contrast.bone
    if contrast.failed != contrast.other:
        field = _low_frequency(rng, patient.image.geometry)
        weight = 1 / (1 + np.exp(-4.0 * (field + np.float32(rng.normal(0.0, 0.8)))))
        weight[bone] *= rng.uniform(0.0, 0.8)  # marrow contains less fat
        gain += np.float32(max(contrast.failed - contrast.other, 0.0)) * weight
    gain[patient.labels.array == DISC] = contrast.disc
    outside = np.clip(signal, 0, 2.0) ** np.float32(contrast.power) * gain
    np.maximum(outside, painted.mimics, out=outside)
    mixed = np.clip(0.5 - distance / SAC_EDGE_MM, 0, 1)
    result = mixed * inside + (1 - mixed) * outside
    fluid = painted.fraction
    if painted.positions:
        near = (painted.ids > 0) | (fluid > 0)
        result[near] += fluid[near] * (contrast.fluid - result[near])
        result *= 1 - contrast.dural_line * _dura_near(fluid, distance, patient)
    return np.asarray(result, np.float32)


def _dura_near(fluid: Array, distance: Array, patient: Patient) -> Array:
    """Return a weight, 0 to 1, of the dura between CSF and simulated fluid."""
    size = [max(round(1.8 / mm) | 1, 1) for mm in patient.image.geometry.spacing_kji_mm]
    shell = np.exp(-0.5 * ((distance - 0.25) / 0.35) ** 2).astype(np.float32)
    return np.asarray(shell * maximum_filter(fluid, size), np.float32)


def _low_frequency(rng: Rng, geometry: Geometry, length_mm: float = 50.0) -> Array:
    """Return smooth noise of approximately unit variance on a grid."""
    extent = [n * mm for n, mm in zip(geometry.shape, geometry.spacing_kji_mm, strict=True)]
    coarse = rng.normal(size=[max(int(mm / length_mm) + 3, 4) for mm in extent])
    coarse = zoom(coarse.astype(np.float32), 4, order=3)  # cubic upsampling, then fast linear
    factors = [n / m for n, m in zip(geometry.shape, coarse.shape, strict=True)]
    return np.asarray(zoom(coarse, factors, order=1), np.float32)


def acquisition_grid(patient: Patient, acquisition: Acquisition) -> Geometry:
    """Return the grid of a series that covers the patient volume."""
    source = patient.image.geometry
    rotation = _AXES[acquisition.plane]
    directions = source.directions_lps @ rotation
    extent_lps = np.array([n * mm for n, mm in zip(source.shape[::-1], source.spacing_ijk_mm,
                                                   strict=True)])  # fmt: skip
    extent = np.abs(rotation.T) @ extent_lps
    spacing = np.array([acquisition.pixel_mm, acquisition.pixel_mm, acquisition.slice_mm])
    counts = np.maximum(np.floor(extent / spacing + 1e-6), 1).astype(int)
    corner = -0.5 * (counts - 1) * spacing
    origin = source.center_lps + directions @ corner
    i, j, k = map(int, counts)
    return Geometry.from_axes(
        (k, j, i), origin_lps=origin.tolist(), spacing_ijk_mm=spacing.tolist(),
        directions_lps=directions,
    )  # fmt: skip


def sample_on(volume: Volume, target: Geometry) -> Array:
    """Return the mean of a volume over each voxel of a coarser grid.

    Each target voxel is divided to approximately the source spacing; the subvoxels are
    interpolated and averaged.
    """
    native = np.abs(target.directions_lps.T @ volume.geometry.directions_lps)
    native_mm = native @ np.array(volume.geometry.spacing_ijk_mm)
    parts = [max(round(mm / own), 1) for mm, own in zip(target.spacing_ijk_mm, native_mm,
                                                        strict=True)]  # fmt: skip
    spacing = [mm / n for mm, n in zip(target.spacing_ijk_mm, parts, strict=True)]
    offset = target.directions_lps @ (0.5 * (np.array(spacing) - np.array(target.spacing_ijk_mm)))
    k, j, i = (n * p for n, p in zip(target.shape, parts[::-1], strict=True))
    fine = Geometry.from_axes(
        (k, j, i), origin_lps=(target.origin_lps + offset).tolist(), spacing_ijk_mm=spacing,
        directions_lps=target.directions_lps,
    )  # fmt: skip
    array = volume.resample(fine).array
    kk, jj, ii = target.shape
    shaped = array.reshape(kk, parts[2], jj, parts[1], ii, parts[0])
    return np.asarray(shaped.mean(axis=(1, 3, 5)), np.float32)


def acquire(signal: Array, geometry: Geometry, acquisition: Acquisition, rng: Rng) -> Array:
    """Apply blur, receive field and Rician noise on the grid of a series."""
    blur = acquisition.blur_voxels
    through = blur if acquisition.slice_mm < 1.5 else 0.0
    image = gaussian_filter(signal, (through, blur, blur))
    field = _low_frequency(rng, geometry, 90.0)
    field *= acquisition.shading / max(float(np.abs(field).max()), 1e-6)
    image *= 1 + field
    sigma = np.float32(1 / acquisition.snr)
    real = image + sigma * rng.standard_normal(image.shape, np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, np.float32)
    return np.asarray(np.hypot(real, imaginary), np.float32)


def smooth_voids(patient: Patient, count: int, rng: Rng) -> Array:
    """Return a factor for flow voids in CSF: blurred ellipsoids and a slow modulation."""
    factor = np.ones(patient.image.geometry.shape, np.float32)
    c = patient.coordinates
    length = patient.centerline.length_mm
    for _ in range(count):
        arc, angle, out = rng.uniform(0, length), rng.uniform(0, 2 * np.pi), rng.uniform(0, 5)
        radii = rng.uniform(3, 12), rng.uniform(1, 3.5)
        near = np.abs(c.arc - arc) < 3 * radii[0]
        away = ((c.arc[near] - arc) / radii[0]) ** 2
        away += ((c.left[near] - out * np.cos(angle)) / radii[1]) ** 2
        away += ((c.dorsal[near] - out * np.sin(angle)) / radii[1]) ** 2
        factor[near] *= 1 - np.float32(rng.uniform(0.2, 0.9)) * np.exp(-0.5 * away)
    slow = smooth_field(rng, (64,), 5.0)
    change = 1 + 0.08 * np.interp(c.arc, np.linspace(0, length, 64), slow)
    return np.asarray(factor * change, np.float32)
