"""Ellipsoids with the second moments of a set of voxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leakloc.core.volume import FloatArray


def ellipsoid_of(
    voxels: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating],
    spacing: tuple[float, float, float],
) -> tuple[FloatArray, FloatArray]:
    """Return the center and the lengths of the axes of a uniform ellipsoid with the same moments.

    Parameters
    ----------
    voxels : ndarray of int, shape (n, 3)
        Indices (k, j, i), at least two.
    weights : ndarray, shape (n,)
    spacing : tuple of float
        Voxel size in the order of the indices, mm.

    Returns
    -------
    center : ndarray, shape (3,)
        Indices (k, j, i).
    axes_mm : ndarray, shape (3,)
        Full lengths, ascending.
    """
    weight = weights.astype(np.float64)
    center = np.average(voxels, axis=0, weights=weight)
    offset = (voxels - center) * spacing
    # Within-voxel variance; a uniform ellipsoid has a variance of a fifth of its semi-axis².
    spread = np.cov(offset.T, aweights=weight, bias=True) + np.diag(np.square(spacing)) / 12
    return center, 2 * np.sqrt(5 * np.linalg.eigvalsh(spread))
