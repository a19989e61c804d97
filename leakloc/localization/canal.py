"""Voxels in canal coordinates, and profiles along the canal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Geometry

IntArray = npt.NDArray[np.intp]

_END_REACH_MM = 1.5
"""Minimum distance inward over which the height of an end is taken; 2.5 sigma if larger."""

SECTION_SMOOTHING_MM: Final = 1.5
"""Gaussian sigma along the canal for cross-sections, which smooths partially covered bins."""

CANAL_RADIUS_MM: Final = 14.0
"""Fluid farther than this from the canal center lies outside the bony canal (lumbar canals are 14
to 16 mm deep and 22 to 28 mm wide)."""


@dataclass(frozen=True, eq=False)
class CanalVoxels:
    """Voxels of a mask in canal coordinates.

    Parameters
    ----------
    index : ndarray, shape (n,)
        Flat indices into the array of the mask.
    points_lps : ndarray, shape (n, 3)
    arc_mm, left_mm, dorsal_mm : ndarray, shape (n,)
        As returned by `Centerline.project`.
    fluid : ndarray, shape (n,)
        Fluid fraction, 0..1.
    section_mm3 : ndarray, shape (n,)
        Voxel volume per unit length along the centerline. Its sum over a segment of the canal,
        divided by the segment length, is an area perpendicular to the canal, also in curves.
    voxel_mm3 : float
    """

    index: IntArray
    points_lps: FloatArray
    arc_mm: FloatArray
    left_mm: FloatArray
    dorsal_mm: FloatArray
    fluid: FloatArray
    section_mm3: FloatArray
    voxel_mm3: float

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fluid_ml(self) -> float:
        """Sum of fluid fractions times voxel volume."""
        return float(self.fluid.sum()) * self.voxel_mm3 / 1000.0

    def where(self, chosen: npt.NDArray[np.bool_]) -> CanalVoxels:
        """Return the voxels for which `chosen` is true."""
        return CanalVoxels(
            self.index[chosen],
            self.points_lps[chosen],
            self.arc_mm[chosen],
            self.left_mm[chosen],
            self.dorsal_mm[chosen],
            self.fluid[chosen],
            self.section_mm3[chosen],
            self.voxel_mm3,
        )

    def joined(self, other: CanalVoxels) -> CanalVoxels:
        """Return these voxels and `other`, which are of the same grid."""
        return CanalVoxels(
            np.concatenate([self.index, other.index]),
            np.concatenate([self.points_lps, other.points_lps]),
            np.concatenate([self.arc_mm, other.arc_mm]),
            np.concatenate([self.left_mm, other.left_mm]),
            np.concatenate([self.dorsal_mm, other.dorsal_mm]),
            np.concatenate([self.fluid, other.fluid]),
            np.concatenate([self.section_mm3, other.section_mm3]),
            self.voxel_mm3,
        )


def canal_voxels(
    index: IntArray,
    geometry: Geometry,
    fluid_fraction: npt.NDArray[np.floating],
    centerline: Centerline,
) -> CanalVoxels:
    """Transform voxels to canal coordinates.

    Parameters
    ----------
    index : ndarray, shape (n,)
        Flat indices into arrays of `geometry`.
    fluid_fraction : ndarray
        Array on `geometry`.
    """
    kji = np.stack(np.unravel_index(index, geometry.shape), axis=-1)
    points = geometry.lps_from_kji(kji)
    if len(index):
        arc, left, dorsal = centerline.project(points)
    else:
        arc, left, dorsal = (np.empty(0) for _ in range(3))
    fluid = np.clip(fluid_fraction[tuple(kji.T)].astype(np.float64), 0.0, 1.0)
    voxel_mm3 = geometry.voxel_volume_ml * 1000.0
    section = voxel_mm3 / centerline.stretch_at(arc, left, dorsal)
    return CanalVoxels(index, points, arc, left, dorsal, fluid, section, voxel_mm3)


@dataclass(frozen=True, eq=False)
class ArcGrid:
    """Equally spaced bins along the canal, common to several masks.

    Parameters
    ----------
    start_mm : float
        Center of the first bin, as distance along the centerline.
    step_mm : float
    count : int
    """

    start_mm: float
    step_mm: float
    count: int
    centers_mm: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        centers = self.start_mm + self.step_mm * np.arange(self.count)
        object.__setattr__(self, "centers_mm", centers)

    @classmethod
    def over(cls, arcs_mm: FloatArray, step_mm: float, margin_mm: float) -> ArcGrid:
        """Return bins over the range of `arcs_mm`, extended by a margin at both ends."""
        start = float(arcs_mm.min()) - margin_mm
        count = int(np.ceil((float(arcs_mm.max()) + margin_mm - start) / step_mm)) + 1
        return cls(start, step_mm, count)

    def bin_of(self, arcs_mm: npt.ArrayLike) -> IntArray:
        """Return the bin nearest to each distance, shape (...)."""
        at = np.round((np.asarray(arcs_mm, dtype=np.float64) - self.start_mm) / self.step_mm)
        return np.clip(at, 0, self.count - 1).astype(np.intp)

    def spread(self, arcs_mm: FloatArray, weights: FloatArray) -> FloatArray:
        """Return the sum of weights per bin, each split linearly between the two nearest bins.

        The split avoids aliasing between slices and bins.
        """
        place = np.clip((arcs_mm - self.start_mm) / self.step_mm, 0.0, self.count - 1.001)
        low = np.floor(place).astype(np.intp)
        upper_fraction = place - low
        total = np.bincount(low, weights * (1.0 - upper_fraction), minlength=self.count)
        total += np.bincount(low + 1, weights * upper_fraction, minlength=self.count)
        return np.asarray(total, dtype=np.float64)

    def smooth(self, profile: FloatArray, sigma_mm: float, axis: int = 0) -> FloatArray:
        """Return the Gaussian-smoothed profile, with zeros assumed beyond the grid."""
        if sigma_mm <= 0:
            return profile
        return np.asarray(
            gaussian_filter1d(profile, sigma_mm / self.step_mm, axis=axis, mode="constant")
        )


def area_profile(
    grid: ArcGrid, voxels: CanalVoxels, fraction: FloatArray | float, sigma_mm: float
) -> FloatArray:
    """Return the cross-sectional area perpendicular to the canal per bin, mm², shape (count,).

    Parameters
    ----------
    fraction : ndarray of shape (n,) or float
        Weight of each voxel, such as its fluid fraction.
    sigma_mm : float
        Gaussian smoothing along the canal.
    """
    weights = voxels.section_mm3 * fraction
    return grid.smooth(grid.spread(voxels.arc_mm, weights) / grid.step_mm, sigma_mm)


def profile_ends(
    profile: FloatArray, grid: ArcGrid, threshold: float, sigma_mm: float
) -> tuple[float, float]:
    """Return the start and end of a profile, mm along the centerline.

    The outermost bins that reach the threshold (or a tenth of the maximum, if lower) are moved
    to where the profile crosses half of its maximum a short distance inward. A blunt end is
    thus placed at half its height for any smoothing; a tapering end moves little.

    Parameters
    ----------
    threshold : float
        In units of the profile.
    sigma_mm : float
        Smoothing already applied to the profile.
    """
    above = np.flatnonzero(profile >= min(threshold, 0.1 * float(profile.max())))
    reach = max(int(np.ceil(max(_END_REACH_MM, 2.5 * sigma_mm) / grid.step_mm)), 1)
    start = _half_height(profile, int(above[0]), 1, reach)
    stop = _half_height(profile, int(above[-1]), -1, reach)
    first = float(grid.centers_mm[0])
    return first + grid.step_mm * start, first + grid.step_mm * stop


def _half_height(profile: FloatArray, end: int, inwards: int, reach: int) -> float:
    inner = np.clip(end + inwards * np.arange(reach + 1), 0, len(profile) - 1)
    half = 0.5 * float(profile[inner].max())
    at = end
    while profile[at] < half:
        at += inwards
    outer = at - inwards
    if not 0 <= outer < len(profile):
        return float(at)
    fraction = (profile[at] - half) / max(float(profile[at] - profile[outer]), 1e-9)
    return at - inwards * float(np.clip(fraction, 0.0, 1.0))


def section_sigma_mm(geometry: Geometry, centerline: Centerline, wanted_mm: float) -> float:
    """Return a sigma along the canal that suppresses slice ripple, at least `wanted_mm`."""
    along_mm = geometry.edges_along_mm(centerline.tangents_lps).max(axis=1)
    return max(wanted_mm, 0.6 * float(np.median(along_mm)))


def centers_along(
    grid: ArcGrid, voxels: CanalVoxels, sigma_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the center of a mask's cross-section per bin: left and dorsal offsets, mm.

    Where the cross-section becomes small, the center moves toward the centerline.
    """
    weights = voxels.section_mm3
    area = grid.smooth(grid.spread(voxels.arc_mm, weights) / grid.step_mm, sigma_mm)
    left = grid.smooth(grid.spread(voxels.arc_mm, weights * voxels.left_mm), sigma_mm)
    dorsal = grid.smooth(grid.spread(voxels.arc_mm, weights * voxels.dorsal_mm), sigma_mm)
    anchored = (area + _ANCHOR_MM2) * grid.step_mm
    return left / anchored, dorsal / anchored


_ANCHOR_MM2 = 4.0
"""Area assigned to the centerline: small relative to a sac, large relative to a few voxels."""
