"""Image artifacts: receive field, flow voids, fat suppression, fold-over, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.core.volume import FloatArray, Geometry
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.canvas import Points
from leakloc.validation.phantom.scenario import Scenario
from leakloc.validation.phantom.shapes import Float

ROLLOFF_MM: Final = 28.0
"""Length at each end of the field of view over which coil signal decreases."""


EPIDURAL_FAILURE_MM: Final = (14.0, 12.0, 26.0)
"""Half axes (left, posterior, cranial) of a region of failed suppression posterior to the sac."""


@dataclass(frozen=True, eq=False)
class FlowVoids:
    """Flow voids in pulsating CSF: Gaussian, in (arc, left, dorsal)."""

    centers: FloatArray
    sizes: FloatArray
    depths: FloatArray

    def factor(self, points: Points, strength: float) -> Float:
        """Return the fraction of CSF signal that remains at each point."""
        remaining = np.ones_like(points.arc)
        for center, size, depth in zip(self.centers, self.sizes, self.depths, strict=True):
            near = np.flatnonzero(np.abs(points.arc - np.float32(center[0])) < 3 * size[0])
            if not len(near):
                continue
            q = points.take(near)
            squared = (
                ((q.arc - np.float32(center[0])) / np.float32(size[0])) ** 2
                + ((q.left - np.float32(center[1])) / np.float32(size[1])) ** 2
                + ((q.dorsal - np.float32(center[2])) / np.float32(size[2])) ** 2
            )
            cloud = np.exp(np.float32(-0.5) * squared)
            remaining[near] *= 1 - np.float32(min(depth * strength, 0.9)) * cloud
        return remaining


def draw_voids(scenario: Scenario, anatomy: Anatomy, rng: np.random.Generator) -> FlowVoids:
    """Draw flow voids, mainly dorsal to the thoracic cord; rare in the lumbar sac."""
    drawn: list[tuple[float, float]] = []
    for site in anatomy.sites:
        chance = {"C": 0.25, "T": 0.5, "L": 0.12}.get(site.name[0], 0.0)
        if rng.random() < chance:
            drawn.append((site.middle_mm + float(rng.normal(0, 8)), chance))
    sac = anatomy.tables.sac
    centers, sizes, depths = [], [], []
    for arc, chance in drawn:
        b, center = (anatomy.value(table, arc) for table in (sac.b, sac.center))
        centers.append((arc, float(rng.normal(0, 2)), center + b * float(rng.uniform(0.2, 0.8))))
        sizes.append((float(rng.uniform(5, 22)), float(rng.uniform(2, 5)), 2.2))
        depths.append(scenario.pulsation * (1.8 if chance > 0.4 else 1.0) * rng.uniform(0.4, 1.2))
    return FlowVoids(np.reshape(centers, (-1, 3)), np.reshape(sizes, (-1, 3)), np.array(depths))


@dataclass(frozen=True, eq=False)
class FatPatches:
    """Regions of failed fat suppression: ellipsoids with smooth edges, in LPS."""

    residual: float
    centers_lps: FloatArray
    sizes_mm: FloatArray
    strengths: FloatArray

    def factor(self, points: Points) -> Float:
        """Return the fraction of fat signal that remains at each point."""
        fraction = np.full(points.x.shape, self.residual, np.float32)
        for center, size, strength in zip(
            self.centers_lps, self.sizes_mm, self.strengths, strict=True
        ):
            squared = sum(
                ((axis - np.float32(middle)) / np.float32(half)) ** 2
                for axis, middle, half in zip(
                    (points.x, points.y, points.z), center, size, strict=True
                )
            )
            edge = 1 / (1 + np.exp(np.clip(6 * (np.sqrt(squared) - 1), -30, 30)))
            np.maximum(fraction, np.float32(strength) * edge, out=fraction)
        return fraction


def draw_fat_patches(scenario: Scenario, anatomy: Anatomy, rng: np.random.Generator) -> FatPatches:
    """Draw regions of failed fat suppression near the spine and at the edges of the field."""
    centers, sizes, strengths = [], [], []
    names = [site.name for site in anatomy.sites]
    for _ in range(scenario.fat_failure_patches):
        site = anatomy.sites[int(rng.integers(names.index("T12"), names.index("S3") + 1))]
        middle = anatomy.centerline.at(site.middle_mm)
        middle = middle + np.array([rng.normal(0, 35), rng.uniform(-10, 70), rng.normal(0, 15)])
        centers.append(middle)
        sizes.append(rng.uniform((25, 20, 25), (60, 45, 65)))
        strengths.append(float(rng.uniform(0.6, 2.0)))
    residual = scenario.fat_residual * float(rng.uniform(0.6, 1.4))
    if scenario.epidural_fat_failure is not None:
        arc = anatomy.site(scenario.epidural_fat_failure).bottom_mm
        _, _, dorsal = anatomy.centerline.frame_at(arc)
        sac = anatomy.tables.sac
        back = anatomy.value(sac.center, arc) + anatomy.value(sac.b, arc)
        centers.append(anatomy.centerline.at(arc) + back * dorsal)
        sizes.append(np.array(EPIDURAL_FAILURE_MM))
        strengths.append(1.0)
    return FatPatches(
        residual,
        np.reshape(centers, (-1, 3)),
        np.reshape(sizes, (-1, 3)),
        np.array(strengths),
    )


def receive_field(
    geometry: Geometry, anatomy: Anatomy, scenario: Scenario, rng: np.random.Generator
) -> Float:
    """Return the receive field on the grid, about 1 at the canal in the center of the field.

    Signal is higher posteriorly, near the spine coils; along the body it varies slowly and
    decreases at the ends of the field.
    """
    counts = [min(24, max(2, n)) for n in geometry.shape]
    nodes = [np.linspace(0, n - 1, m) for n, m in zip(geometry.shape, counts, strict=True)]
    kji = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    lps = geometry.lps_from_kji(kji)
    canal = anatomy.centerline.points_lps
    order = np.argsort(canal[:, 2])
    back = lps[..., 1] - np.interp(lps[..., 2], canal[order, 2], canal[order, 1])
    reach = float(rng.uniform(90, 170))
    log = scenario.bias * 3.5 * np.clip(back, -150, 90) / reach
    along = lps[..., 2] - geometry.center_lps[2]
    for period in (180.0, 300.0):
        phase = rng.uniform(0, 2 * np.pi)
        log = log + scenario.bias * rng.normal(0, 0.45) * np.sin(2 * np.pi * along / period + phase)
    log = log + scenario.bias * rng.normal(0, 0.4) * (lps[..., 0] - geometry.center_lps[0]) / 60
    corners = geometry.lps_from_kji([(0, 0, 0), tuple(n - 1 for n in geometry.shape)])[:, 2]
    extent = abs(float(corners[1] - corners[0]))
    field = np.exp(np.clip(log, -2.0, 1.2))
    if extent > 150:
        edge = extent / 2 - np.abs(along)
        field *= 1 - scenario.end_rolloff * np.clip(1 - edge / ROLLOFF_MM, 0, 1) ** 1.5
    return upsample(field.astype(np.float32), geometry.shape)


def upsample(coarse: Float, shape: tuple[int, int, int]) -> Float:
    """Interpolate an array linearly to `shape` over the same extent."""
    out = coarse
    for axis, count in enumerate(shape):
        nodes = np.linspace(0, out.shape[axis] - 1, count)
        low = np.minimum(nodes.astype(int), max(out.shape[axis] - 2, 0))
        weight = (
            (nodes - low).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(3)])
        )
        above = np.minimum(low + 1, out.shape[axis] - 1)
        out = np.take(out, low, axis) * (1 - weight) + np.take(out, above, axis) * weight
    return np.asarray(out, dtype=np.float32)


def add_fold_over(image: Float, strength: float, axis: int) -> None:
    """Add fold-over from each end of an axis at the opposite end (in place)."""
    if strength <= 0:
        return
    count = image.shape[axis]
    width = count // 5
    head = np.take(image, np.arange(width), axis)
    tail = np.take(image, np.arange(count - width, count), axis)
    ramp = np.linspace(1, 0, width, dtype=np.float32)
    ramp = ramp.reshape([-1 if n == axis else 1 for n in range(3)])
    moved = np.moveaxis(image, axis, 0)
    moved[:width] += np.moveaxis(strength * tail * ramp, axis, 0)
    moved[-width:] += np.moveaxis(strength * head * np.flip(ramp, axis), axis, 0)


def add_ghosts(image: Float, bright: Float, strength: float, axis: int, shift: int) -> None:
    """Add faint shifted copies of pulsating fluid along the phase direction (in place)."""
    if strength <= 0:
        return
    for order in (-1, 1):
        image += np.float32(strength) * np.roll(bright, order * shift, axis)


def blur(image: Float, sigma_voxels: float, through_plane: bool) -> None:
    """Blur by the point spread function of the acquisition (in place)."""
    for axis in (0, 1, 2) if through_plane else (1, 2):
        if image.shape[axis] > 1:
            gaussian_filter1d(image, sigma_voxels, axis, output=image, mode="nearest", radius=2)


def add_rician_noise(image: Float, sigma: float, rng: np.random.Generator) -> None:
    """Add Rician noise of standard deviation `sigma` (in place)."""
    for part in image:  # slice by slice to limit memory
        real = part + sigma * rng.standard_normal(part.shape, np.float32)
        imaginary = sigma * rng.standard_normal(part.shape, np.float32)
        np.hypot(real, imaginary, out=part)
