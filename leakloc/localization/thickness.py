"""Thickness of a fluid collection: diameter of the largest inscribed ball."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from leakloc.core.volume import FloatArray, Geometry
from leakloc.localization.canal import IntArray

_MAX_QUERIES = 40_000
"""Maximum number of balls; the thickness of a large collection needs only a sample of voxels."""


def ball_diameters_mm(
    index: IntArray, fluid_fraction: npt.NDArray[np.floating], geometry: Geometry
) -> tuple[IntArray, FloatArray]:
    """Return diameters of the largest balls inscribed in a collection, centered on its voxels.

    The surface lies where the fluid fraction crosses one half between neighboring voxels, or
    midway to a neighbor that is fluid but not part of the collection, so the thickness is not
    rounded to whole voxels. In a layer or crescent the largest ball spans its thickness.

    Parameters
    ----------
    index : ndarray, shape (n,)
        Flat indices of the collection into arrays of `geometry`.
    fluid_fraction : ndarray
        Array on `geometry`.

    Returns
    -------
    index : ndarray, shape (m,)
        Voxels at least half full; a regular subset if there are more than 40 000.
    diameter_mm : ndarray, shape (m,)
    """
    kji = np.stack(np.unravel_index(index, geometry.shape), axis=-1)
    low = kji.min(axis=0) - 1
    shape = kji.max(axis=0) + 2 - low
    fraction = _padded_crop(fluid_fraction, low, shape)
    collection = np.zeros(tuple(shape), dtype=bool)
    collection[tuple((kji - low).T)] = True
    full = collection & (fraction >= 0.5)
    if not full.any():
        return np.empty(0, dtype=np.intp), np.empty(0)
    spacing = np.array(geometry.spacing_kji_mm)
    surface = cKDTree(_surface_points(full, collection, fraction) * spacing)
    centers = np.argwhere(full)
    centers = centers[:: int(np.ceil(len(centers) / _MAX_QUERIES))]
    radius, _ = surface.query(centers * spacing)
    flat = np.ravel_multi_index(tuple((centers + low).T), geometry.shape)
    return flat.astype(np.intp), 2.0 * np.asarray(radius, dtype=np.float64)


def _padded_crop(
    array: npt.NDArray[np.floating], low: IntArray, shape: IntArray
) -> npt.NDArray[np.float32]:
    """Return a crop of `array` starting at `low`, zero outside the array."""
    crop = np.zeros(tuple(shape), dtype=np.float32)
    start = np.maximum(low, 0)
    stop = np.minimum(low + shape, array.shape)
    inner = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, low, strict=True))
    crop[inner] = array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return crop


def _surface_points(
    full: npt.NDArray[np.bool_],
    collection: npt.NDArray[np.bool_],
    fraction: npt.NDArray[np.float32],
) -> FloatArray:
    """Return surface points on grid edges between full and other voxels, in voxels (k, j, i)."""
    found = []
    for axis in range(3):
        first = np.take(full, range(full.shape[axis] - 1), axis=axis)
        second = np.take(full, range(1, full.shape[axis]), axis=axis)
        crossing = np.argwhere(first != second)
        step = np.zeros(3, dtype=np.intp)
        step[axis] = 1
        first_full = first[tuple(crossing.T)]
        inner = np.where(first_full[:, None], crossing, crossing + step)
        outer = np.where(first_full[:, None], crossing + step, crossing)
        f_in = fraction[tuple(inner.T)].astype(np.float64)
        f_out = fraction[tuple(outer.T)].astype(np.float64)
        # A full neighbor outside the collection is other fluid (the sac): surface at the midpoint.
        other = ~collection[tuple(outer.T)] & (f_out >= 0.5)
        offset = (f_in - 0.5) / np.maximum(f_in - f_out, 1e-6)
        offset = np.where(other, 0.5, np.clip(offset, 0.0, 1.0))
        found.append(inner + (outer - inner) * offset[:, None])
    return np.concatenate(found)
