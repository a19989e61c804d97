"""The centerline of the spinal canal and its local coordinate frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from leakloc.core.volume import FloatArray

_CURVATURE_SMOOTHING_MM = 8.0
"""Sigma for the curvature of the centerline; changes over shorter lengths are tracing noise."""

_MIN_STRETCH = 0.3
"""Lower limit of the stretch factor: far from a curved canal, perpendicular planes intersect."""


@dataclass(frozen=True, eq=False)
class Centerline:
    """The centerline of the spinal canal, from cranial to caudal.

    Each point has an orthonormal frame: `tangents_lps` (caudal), `lefts_lps` (the patient's left)
    and `dorsals_lps` (dorsal). The frame is defined in patient coordinates, so left is the
    patient's left for any acquisition orientation.

    Parameters
    ----------
    points_lps : ndarray, shape (n, 3)
        At least two points in LPS millimeters, cranial to caudal, without repeats.
    """

    points_lps: FloatArray

    def __post_init__(self) -> None:
        points = np.array(self.points_lps, dtype=np.float64)
        if points.ndim != 2 or points.shape[0] < 2 or points.shape[1] != 3:
            raise ValueError(f"a centerline needs points of shape (n >= 2, 3), not {points.shape}")
        if (np.diff(points, axis=0) == 0).all(axis=1).any():
            raise ValueError("a centerline must not repeat a point")
        points.flags.writeable = False
        object.__setattr__(self, "points_lps", points)

    @classmethod
    def smoothed(
        cls, points_lps: npt.ArrayLike, *, step_mm: float = 1.0, smoothing_mm: float = 5.0
    ) -> Centerline:
        """Return an evenly spaced, Gaussian-smoothed (sigma `smoothing_mm`) version of a path."""
        rough = np.asarray(points_lps, dtype=np.float64)
        even = _evenly_spaced(rough, step_mm)
        if smoothing_mm > 0:
            sigma = smoothing_mm / step_mm
            pad = int(4 * sigma) + 1  # filter radius
            # Point reflection preserves position and direction at the ends.
            padded = np.pad(even, ((pad, pad), (0, 0)), mode="reflect", reflect_type="odd")
            even = gaussian_filter1d(padded, sigma, axis=0)[pad : pad + len(even)]
            even = _evenly_spaced(even, step_mm)
        return cls(even)

    @cached_property
    def arc_mm(self) -> FloatArray:
        """Distance along the curve from its cranial end, shape (n,)."""
        steps = np.linalg.norm(np.diff(self.points_lps, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_mm(self) -> float:
        """Length of the curve."""
        return float(self.arc_mm[-1])

    @cached_property
    def tangents_lps(self) -> FloatArray:
        """Unit tangents in caudal direction, shape (n, 3)."""
        gradient = np.gradient(self.points_lps, self.arc_mm, axis=0)
        return np.asarray(gradient / np.linalg.norm(gradient, axis=1, keepdims=True))

    @cached_property
    def lefts_lps(self) -> FloatArray:
        """Unit vectors to the patient's left, perpendicular to the tangents, shape (n, 3)."""
        return left_and_dorsal(self.tangents_lps)[0]

    @cached_property
    def dorsals_lps(self) -> FloatArray:
        """Unit dorsal vectors, perpendicular to tangent and left, shape (n, 3)."""
        return left_and_dorsal(self.tangents_lps)[1]

    def at(self, arc_mm: npt.ArrayLike) -> FloatArray:
        """Return LPS points at distances along the curve, extrapolated linearly, shape (..., 3)."""
        arc = np.asarray(arc_mm, dtype=np.float64)
        inside = np.clip(arc, 0.0, self.length_mm)
        points = np.stack(
            [np.interp(inside, self.arc_mm, self.points_lps[:, axis]) for axis in range(3)], axis=-1
        )
        before = np.minimum(arc, 0.0)[..., None] * self.tangents_lps[0]
        beyond = np.maximum(arc - self.length_mm, 0.0)[..., None] * self.tangents_lps[-1]
        return np.asarray(points + before + beyond)

    def frame_at(self, arc_mm: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return unit tangent, left and dorsal vectors at distances along the curve: (..., 3)."""
        arc = np.clip(np.asarray(arc_mm, dtype=np.float64), 0.0, self.length_mm)
        index = np.interp(arc, self.arc_mm, np.arange(len(self.arc_mm)))
        nearest = np.round(index).astype(int)
        return (
            self.tangents_lps[nearest],
            self.lefts_lps[nearest],
            self.dorsals_lps[nearest],
        )

    def project(self, points_lps: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the canal coordinates of points.

        Parameters
        ----------
        points_lps : array_like, shape (..., 3)
            LPS millimeters.

        Returns
        -------
        arc_mm, left_mm, dorsal_mm : ndarray, each of shape (...)
            Arc length of the nearest point on the curve (below 0 or above `length_mm` beyond
            the ends), and signed offsets to the left and dorsally.
        """
        points = np.asarray(points_lps, dtype=np.float64)
        flat = points.reshape(-1, 3)
        _, nearest = cKDTree(self.points_lps).query(flat)
        offset = flat - self.points_lps[nearest]
        tangent = self.tangents_lps[nearest]
        along = np.einsum("nc,nc->n", offset, tangent)
        # Refine the arc along the tangent by at most half the distance to the neighboring point.
        half_gap = 0.5 * float(np.diff(self.arc_mm).max())
        ends = (nearest == 0) | (nearest == len(self.points_lps) - 1)
        arc = self.arc_mm[nearest] + np.where(ends, along, np.clip(along, -half_gap, half_gap))
        left = np.einsum("nc,nc->n", offset, self.lefts_lps[nearest])
        dorsal = np.einsum("nc,nc->n", offset, self.dorsals_lps[nearest])
        shape = points.shape[:-1]
        return arc.reshape(shape), left.reshape(shape), dorsal.reshape(shape)

    def stretch_at(
        self, arc_mm: FloatArray, left_mm: FloatArray, dorsal_mm: FloatArray
    ) -> FloatArray:
        """Return the length of a parallel curve divided by that of the centerline, shape (n,).

        The perpendicular planes of a curved canal diverge: a volume per unit length along the
        centerline, divided by this factor, is a cross-sectional area.

        Parameters
        ----------
        arc_mm, left_mm, dorsal_mm : ndarray, shape (n,)
            As returned by `project`.
        """
        bend = self._bends_per_mm
        along_left, along_dorsal = (np.interp(arc_mm, self.arc_mm, part) for part in bend.T)
        stretch = 1.0 - left_mm * along_left - dorsal_mm * along_dorsal
        return np.asarray(np.maximum(stretch, _MIN_STRETCH))

    @cached_property
    def _bends_per_mm(self) -> FloatArray:
        """Curvature to the left and dorsally at each point, 1/mm, shape (n, 2)."""
        sigma = _CURVATURE_SMOOTHING_MM / float(np.mean(np.diff(self.arc_mm)))
        tangents = gaussian_filter1d(self.tangents_lps, sigma, axis=0, mode="nearest")
        bend = np.gradient(tangents, self.arc_mm, axis=0)
        axes = np.stack([self.lefts_lps, self.dorsals_lps], axis=1)
        return np.asarray(np.einsum("nc,nac->na", bend, axes))


def left_and_dorsal(caudal_lps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return left and dorsal unit vectors perpendicular to caudal directions.

    Parameters
    ----------
    caudal_lps : ndarray, shape (..., 3)
        Unit vectors.

    Returns
    -------
    left_lps, dorsal_lps : ndarray, each of shape (..., 3)
    """
    left = np.array([1.0, 0.0, 0.0]) - caudal_lps * caudal_lps[..., :1]
    left = left / np.linalg.norm(left, axis=-1, keepdims=True)
    return left, np.cross(left, caudal_lps)


def _evenly_spaced(points: FloatArray, step_mm: float) -> FloatArray:
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    keep = np.concatenate([[True], gaps > 1e-6])
    points = points[keep]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = max(round(float(arc[-1]) / step_mm) + 1, 2)
    even = np.linspace(0.0, arc[-1], count)
    return np.stack([np.interp(even, arc, points[:, axis]) for axis in range(3)], axis=-1)
