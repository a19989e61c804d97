"""Canal coordinates (arc, left, dorsal) of all voxels of a region.

Because projecting millions of voxels onto a curve is slow, the coordinates are computed on a
coarse grid and interpolated. With a grid of 4 mm and radii of curvature of the canal of more than
50 mm, the error stays below 0.05 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import Geometry

Array = npt.NDArray[np.float32]

COARSE_MM: Final = 4.0


@dataclass(frozen=True, eq=False)
class CanalCoordinates:
    """Arc length, left and dorsal offsets (mm) of the voxels of a grid, float32 ``[k, j, i]``."""

    geometry: Geometry
    arc: Array
    left: Array
    dorsal: Array

    @classmethod
    def of(cls, geometry: Geometry, centerline: Centerline) -> CanalCoordinates:
        """Compute the canal coordinates of a grid near the canal."""
        step = [max(COARSE_MM, mm) for mm in geometry.spacing_ijk_mm]
        coarse = _covering(geometry, step)
        axes = [np.arange(n) for n in coarse.shape]
        k, j, i = np.meshgrid(*axes, indexing="ij")
        points = coarse.lps_from_ijk(np.stack([i, j, k], axis=-1))
        ratios = [old / new for old, new in zip(geometry.spacing_kji_mm, step[::-1], strict=True)]
        arc, left, dorsal = (
            _stretched(field.astype(np.float32), geometry.shape, ratios)
            for field in centerline.project(points)
        )
        return cls(geometry, arc, left, dorsal)


def _stretched(field: Array, shape: tuple[int, int, int], ratios: list[float]) -> Array:
    """Interpolate linearly, one axis at a time, onto a finer grid with the same axes.

    Parameters
    ----------
    ratios : list of float
        Ratio of the voxel size of the fine grid to that of the coarse grid; k, j, i.
    """
    for axis in (2, 1, 0):  # the axis with the largest stride last
        at = np.arange(shape[axis]) * ratios[axis]
        low = np.minimum(at.astype(int), field.shape[axis] - 2)
        weight = (at - low).astype(np.float32)
        source = np.moveaxis(field, axis, 0)
        fine = np.empty((shape[axis], *source.shape[1:]), np.float32)
        for n in range(shape[axis]):
            before, after = source[low[n]], source[low[n] + 1]
            np.multiply(after - before, weight[n], out=fine[n])
            fine[n] += before
        field = np.moveaxis(fine, 0, axis)
    return field


def _covering(geometry: Geometry, spacing_ijk_mm: list[float]) -> Geometry:
    """Return a coarse grid whose outer voxel centers lie on or beyond those of `geometry`."""
    counts = [
        int(np.ceil((n - 1) * old / new)) + 1 if n > 1 else 2
        for n, old, new in zip(
            geometry.shape[::-1], geometry.spacing_ijk_mm, spacing_ijk_mm, strict=True
        )
    ]
    return Geometry.from_axes(
        (counts[2], counts[1], counts[0]),
        origin_lps=geometry.origin_lps.tolist(),
        spacing_ijk_mm=spacing_ijk_mm,
        directions_lps=geometry.directions_lps,
    )
