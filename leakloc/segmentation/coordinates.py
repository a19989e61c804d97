"""Canal coordinates (arc, left, dorsal) of every voxel of a region, quickly.

Projecting millions of voxels onto a curve is slow; the coordinates are smooth, so they are
computed on a coarse grid and interpolated. At 4 mm and the canal's radii of curvature of
more than 50 mm the error stays below 0.05 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.centerline import Centerline
from leakloc.volume import Geometry, Volume

Array = npt.NDArray[np.float32]

COARSE_MM: Final = 4.0


@dataclass(frozen=True, eq=False)
class CanalCoordinates:
    """Arc, left and dorsal offsets in mm of the voxels of a grid, float32 ``[k, j, i]``."""

    geometry: Geometry
    arc: Array
    left: Array
    dorsal: Array

    @classmethod
    def of(cls, geometry: Geometry, centerline: Centerline) -> CanalCoordinates:
        """Compute them for a grid near the canal."""
        step = [max(COARSE_MM, mm) for mm in geometry.spacing_ijk_mm]
        coarse = _covering(geometry, step)
        axes = [np.arange(n) for n in coarse.shape]
        k, j, i = np.meshgrid(*axes, indexing="ij")
        points = coarse.lps_from_ijk(np.stack([i, j, k], axis=-1))
        fields = centerline.project(points)
        fine = [
            Volume(field.astype(np.float32), coarse).resample(geometry, order=1).array
            for field in fields
        ]
        return cls(geometry, fine[0], fine[1], fine[2])


def _covering(geometry: Geometry, spacing_ijk_mm: list[float]) -> Geometry:
    """A coarse grid whose outer voxel centres lie on or beyond those of `geometry`."""
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
