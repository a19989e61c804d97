"""Points in canal coordinates, and the signal painted on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from leakloc.core.volume import FloatArray, Geometry
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.shapes import Float, coverage
from leakloc.validation.phantom.tissues import TissueName

Palette = Mapping[TissueName, npt.NDArray[np.float32]]
"""Signal and texture of each tissue in the five channels."""

COARSE_STEP_MM: Final = 4.0
"""Step of computed canal coordinates; the error of linear interpolation is less than 0.05 mm at
the maximum curvature of the sacrum."""


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the patient: canal coordinates and LPS, each of shape (n,)."""

    arc: Float
    left: Float
    dorsal: Float
    x: Float
    y: Float
    z: Float
    rows: npt.NDArray[np.int32]
    """Index in the tables of the anatomy."""

    def take(self, index: npt.NDArray[np.intp]) -> Points:
        """Return a subset of the points."""
        return Points(*(values[index] for values in vars(self).values()))


class CanalGrid:
    """Canal coordinates of points in a grid, interpolated from a coarse grid."""

    def __init__(self, anatomy: Anatomy, geometry: Geometry) -> None:
        self.geometry = geometry
        self._anatomy = anatomy
        self._nodes = [
            np.linspace(0, count - 1, max(int(np.ceil((count - 1) * mm / COARSE_STEP_MM)) + 1, 2))
            for count, mm in zip(geometry.shape, geometry.spacing_kji_mm, strict=True)
        ]
        kji = np.stack(np.meshgrid(*self._nodes, indexing="ij"), axis=-1)
        arc, left, dorsal = anatomy.centerline.project(geometry.lps_from_kji(kji))
        self._coarse = np.stack([arc, left, dorsal]).astype(np.float32)

    def slab(self, start: int, stop: int) -> Points:
        """Return all voxels of slices `start` to `stop`, flattened."""
        ranges = ((start, stop), (0, self.geometry.shape[1]), (0, self.geometry.shape[2]))
        part = self._coarse
        for axis, (nodes, (first, last)) in enumerate(zip(self._nodes, ranges, strict=True)):
            part = _interpolated(part, axis + 1, nodes, np.arange(first, last, dtype=float))
        k, j, i = (
            np.arange(start, stop, dtype=np.float32)[:, None, None],
            np.arange(self.geometry.shape[1], dtype=np.float32)[None, :, None],
            np.arange(self.geometry.shape[2], dtype=np.float32)[None, None, :],
        )
        affine = self.geometry.affine_lps.astype(np.float32)
        x, y, z = (
            (affine[n, 0] * i + affine[n, 1] * j + affine[n, 2] * k + affine[n, 3]).ravel()
            for n in range(3)
        )
        arc, left, dorsal = (np.ascontiguousarray(values).ravel() for values in part)
        return Points(arc, left, dorsal, x, y, z, self._anatomy.rows(arc))

    def at(self, points_kji: FloatArray) -> Points:
        """Return the points at continuous indices, shape (n, 3)."""
        scaled = np.empty((3, len(points_kji)))
        for axis, nodes in enumerate(self._nodes):
            step = nodes[1] - nodes[0] if len(nodes) > 1 and nodes[1] > nodes[0] else 1.0
            scaled[axis] = points_kji[:, axis] / step
        arc, left, dorsal = (
            map_coordinates(values, scaled, output=np.float32, order=1, mode="nearest")
            for values in self._coarse
        )
        x, y, z = self.geometry.lps_from_kji(points_kji).T.astype(np.float32)
        return Points(arc, left, dorsal, x, y, z, self._anatomy.rows(arc))


def _interpolated(array: Float, axis: int, nodes: FloatArray, at: FloatArray) -> Float:
    """Interpolate linearly along one axis (without BLAS, to avoid its threads)."""
    low = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, len(nodes) - 2)
    gap = np.maximum(nodes[low + 1] - nodes[low], 1e-9)
    weight = np.clip((at - nodes[low]) / gap, 0, 1).astype(np.float32)
    weight = weight.reshape([-1 if n == axis else 1 for n in range(array.ndim)])
    below, above = np.take(array, low, axis), np.take(array, low + 1, axis)
    above -= below
    above *= weight
    above += below
    return above


@dataclass(frozen=True, eq=False)
class Canvas:
    """Points and their signal, on which tissues are painted from back to front.

    Parameters
    ----------
    channels : numpy.ndarray
        Signal in the channels of `sequences`, shape (n, 5); changed in place.
    points : Points
    palette : mapping
    width_mm : float
        Width of the voxel of each point.
    """

    channels: Float
    points: Points
    palette: Palette
    width_mm: float

    def inside(self, distance: Float) -> Float:
        """Return the fraction of each voxel inside a surface at a signed distance."""
        return coverage(distance, self.width_mm)

    def fill(self, tissue: TissueName, distance: Float) -> None:
        """Paint a tissue inside a surface at a signed distance."""
        self.paint(tissue, self.inside(distance))

    def paint(self, tissue: TissueName, fraction: Float) -> None:
        """Paint a fraction of each voxel with a tissue."""
        rows = np.flatnonzero(fraction > 0)
        if not len(rows):
            return
        part = fraction[rows, None].astype(np.float32, copy=False)
        self.channels[rows] = self.channels[rows] * (1 - part) + part * self.palette[tissue]

    def paint_csf_in_dura(self, outer: Float, inner: Float) -> None:
        """Paint dura in a fraction `outer` and CSF in its part `inner`, each exactly."""
        rows = np.flatnonzero(outer > 0)
        if not len(rows):
            return
        out, core = outer[rows, None], inner[rows, None]
        dura, csf = self.palette["dura"], self.palette["csf"]
        self.channels[rows] = self.channels[rows] * (1 - out) + (out - core) * dura + core * csf

    @contextmanager
    def region(self, index: npt.NDArray[np.intp]) -> Iterator[Canvas]:
        """Provide a canvas of some of the points; what is painted on it is copied back."""
        part = replace(self, channels=self.channels[index], points=self.points.take(index))
        yield part
        self.channels[index] = part.channels
