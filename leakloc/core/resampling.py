"""Interpolation of an array on the grid of another one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]
Positions = list[FloatArray]

_PARALLEL_VOXELS: Final = 1e-3
"""Maximum displacement by a rotation between two grids that is neglected; invisible."""
_ROUNDED: Final = 9
"""Decimals of positions in voxels, so that rounding errors do not decide between two neighbors."""


def resampled(
    array: npt.NDArray[Any],
    source_from_target: npt.ArrayLike,
    shape: tuple[int, int, int],
    *,
    order: int,
    fill: float,
) -> npt.NDArray[Any]:
    """Interpolate an array on another grid, as ITK does.

    A position is inside if it lies in a voxel; between the centers of the outermost voxels and
    their edges, the value is constant, or mirrored for a cubic B-spline. A position midway
    between two voxels has the value of the one with the higher index if `order` is 0.

    Parameters
    ----------
    array : ndarray, shape (k, j, i)
    source_from_target : array_like, shape (4, 4)
        Maps indices ``(k, j, i, 1)`` of the target to those of `array`.
    shape : tuple of int
        Shape of the target.
    order : {0, 1, 3}
        Nearest neighbor, linear, or cubic B-spline.
    fill : float
        Value outside `array`.

    Returns
    -------
    ndarray
        Of the type of `array`; integers are rounded.
    """
    matrix = np.asarray(source_from_target, np.float64)
    axes = _axes(matrix, shape)
    if axes is None or order == 3:
        values = _transformed(array, matrix, shape, order)
        outside = _outside(array.shape, matrix, shape)
        return _filled(values, array.dtype, outside, fill)
    positions = [_along(matrix, shape, axis, axes[axis]) for axis in range(3)]
    array = array.transpose(axes)
    values = _nearest(array, positions) if order == 0 else _linear(array, positions)
    inside = [
        (position >= -0.5) & (position < n - 0.5)
        for position, n in zip(positions, array.shape, strict=True)
    ]
    if all(part.all() for part in inside):
        return _filled(values, array.dtype, None, fill)
    return _filled(values, array.dtype, ~_combined(inside), fill)


def _axes(matrix: FloatArray, shape: tuple[int, int, int]) -> tuple[int, ...] | None:
    """Return the axis of the source along each axis of the target; None if not parallel."""
    moved = np.abs(matrix[:3, :3]) * (np.array(shape) - 1)
    axes = tuple(int(axis) for axis in np.abs(matrix[:3, :3]).argmax(axis=0))
    if sorted(axes) != [0, 1, 2]:
        return None
    moved[axes, range(3)] = 0
    return axes if moved.sum(axis=1).max() <= _PARALLEL_VOXELS else None


def _along(
    matrix: FloatArray, shape: tuple[int, int, int], axis: int, source_axis: int
) -> FloatArray:
    """Return the positions of the target's planes on an axis of the source, in voxels."""
    middle = (np.array(shape) - 1) / 2
    middle[axis] = 0
    start = matrix[source_axis, :3] @ middle + matrix[source_axis, 3]
    positions = start + matrix[source_axis, axis] * np.arange(shape[axis])
    return np.asarray(np.round(positions, _ROUNDED))


def _nearest(array: npt.NDArray[Any], positions: Positions) -> npt.NDArray[Any]:
    index = [
        np.clip(np.floor(position + 0.5).astype(np.intp), 0, n - 1)
        for position, n in zip(positions, array.shape, strict=True)
    ]
    return np.asarray(array[np.ix_(*index)])


def _linear(array: npt.NDArray[Any], positions: Positions) -> npt.NDArray[Any]:
    """Interpolate along one axis after the other, first where the number of values decreases."""
    kind = np.result_type(array.dtype, np.float32)
    growth = [len(position) / n for position, n in zip(positions, array.shape, strict=True)]
    for axis in np.argsort(growth):
        length = array.shape[axis]
        position = np.clip(positions[axis], 0, length - 1)
        low = np.floor(position).astype(np.intp)
        weight = (position - low).astype(kind)
        below = array.take(low, axis).astype(kind, copy=False)
        if weight.any():
            above = array.take(np.minimum(low + 1, length - 1), axis).astype(kind, copy=False)
            above -= below
            above *= weight.reshape([-1 if n == axis else 1 for n in range(3)])
            below += above
        array = below
    return array


def _transformed(
    array: npt.NDArray[Any], matrix: FloatArray, shape: tuple[int, int, int], order: int
) -> npt.NDArray[Any]:
    kind = array.dtype if order == 0 else np.result_type(array.dtype, np.float32)
    if array.dtype == np.float16:
        array, kind = array.astype(np.float32), np.dtype(np.float32)
    mode = "mirror" if order == 3 else "nearest"
    return np.asarray(
        ndimage.affine_transform(
            array, matrix[:3, :3], matrix[:3, 3], shape, output=kind, order=order, mode=mode
        )
    )


def _outside(
    source: tuple[int, ...], matrix: FloatArray, shape: tuple[int, int, int]
) -> npt.NDArray[np.bool_]:
    """Return the voxels of the target outside the source, plane by plane."""
    outside = np.zeros(shape, bool)
    _, rows, columns = (np.arange(n) for n in shape)
    for axis, length in enumerate(source):
        in_plane = matrix[axis, 1] * rows[:, None] + matrix[axis, 2] * columns + matrix[axis, 3]
        for k in range(shape[0]):
            position = np.round(in_plane + matrix[axis, 0] * k, _ROUNDED)
            outside[k] |= (position < -0.5) | (position >= length - 0.5)
    return outside


def _combined(inside: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    k, j, i = inside
    return np.asarray(k[:, None, None] & j[:, None] & i)


def _filled(
    values: npt.NDArray[Any],
    dtype: np.dtype[Any],
    outside: npt.NDArray[np.bool_] | None,
    fill: float,
) -> npt.NDArray[Any]:
    if dtype.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    values = values.astype(dtype, copy=False)
    if outside is not None:
        values[outside] = fill
    return values
