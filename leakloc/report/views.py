"""Study data in LPS orientation for display, used by the figures and viewers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.core.volume import FloatArray, Geometry
from leakloc.localization.coordinate import LevelCoordinate

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.localization.result import Collection

Plane = npt.NDArray[Any]

FRONT_MM: Final = 62.0  # anterior to the canal: vertebral body (35 mm) and space for labels
BACK_MM: Final = 48.0  # posterior to the canal: spinous processes and surgical bed
SIDE_MM: Final = 58.0  # lateral to the canal: foramina, psoas and space for labels
COLLECTION_MARGIN_MM: Final = 8.0  # margin around a collection that extends beyond the default crop
CSF_HEADROOM: Final = 1.3  # white level relative to CSF, for contrast with roots and cord
GAMMA: Final = 0.8  # brightens tissue other than fluid on heavily T2-weighted images
MAX_POINTS: Final = 20_000  # sufficient to determine the extent of a collection
OBLIQUE: Final = 0.35  # sine of 20 degrees: more oblique axes have a second letter

_DIRECTION_LABELS: Final = (("R", "L"), ("A", "P"), ("F", "H"))  # decreasing and increasing x, y, z


class StudyView:
    """Image, masks and canal in LPS orientation: k cranial, j posterior, i left.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages.
    """

    def __init__(self, analysis: AnalysisData) -> None:
        self.analysis = analysis
        image = analysis.triage.myelogram.oriented("LPS")
        self.image = image
        self.geometry: Geometry = image.geometry
        self.sac: Plane = analysis.segmentation.thecal_sac.oriented("LPS").array > 0
        self.collections: Plane = analysis.segmentation.collections.oriented("LPS").array
        self.centerline = analysis.segmentation.centerline
        canal = self.geometry.kji_from_lps(self.centerline.points_lps)
        canal = canal[np.argsort(canal[:, 0])]
        heights = np.arange(self.geometry.shape[0])
        # Constant extrapolation beyond the ends of the centerline; where the canal leaves a thin
        # slab, the outermost plane is used.
        _, last_j, last_i = (n - 1 for n in self.geometry.shape)
        self.canal_j = np.interp(heights, canal[:, 0], canal[:, 1]).clip(0, last_j)
        self.canal_i = np.interp(heights, canal[:, 0], canal[:, 2]).clip(0, last_i)
        covered = canal[:, 0].clip(0, len(heights) - 1)
        self.canal_rows = slice(int(covered.min()), int(covered.max()) + 1)

    @cached_property
    def window(self) -> tuple[float, float]:
        """Signal displayed as black and as white."""
        near = self.image.array[self.canal_rows, :, self.across(self.canal_rows)]
        values = near[:: max(near.shape[0] // 64, 1), ::2, ::2]
        low, high = (float(v) for v in np.percentile(values, [1.0, 99.8]))
        csf = self.analysis.segmentation.csf_signal
        if np.isfinite(csf) and csf > low:
            high = CSF_HEADROOM * csf
        return low, max(high, low + 1e-6)

    @cached_property
    def coordinate(self) -> LevelCoordinate:
        """Level names along the canal."""
        return LevelCoordinate.from_levels(self.analysis.levels, self.centerline)

    def gray(self, values: Plane) -> npt.NDArray[np.float32]:
        """Convert signal to brightness, 0..1."""
        low, high = self.window
        scaled = (np.asarray(values, dtype=np.float32) - low) / (high - low)
        return np.asarray(np.clip(scaled, 0, 1) ** GAMMA, dtype=np.float32)

    def rows(self, low_k: float, high_k: float) -> slice:
        """Return the slices from `low_k` to `high_k`, clipped to the volume."""
        return inside(low_k, high_k, self.geometry.shape[0])

    def depth(self, rows: slice, front_mm: float = FRONT_MM, back_mm: float = BACK_MM) -> slice:
        """Return the anterior-posterior crop around canal and collections in a range of slices."""
        spacing = self.geometry.spacing_ijk_mm[1]
        low = self.canal_j[rows].min() - front_mm / spacing
        high = self.canal_j[rows].max() + back_mm / spacing
        found = np.flatnonzero((self.collections[rows] > 0).any(axis=(0, 2)))
        return _with_margin(
            low, high, found, COLLECTION_MARGIN_MM / spacing, self.geometry.shape[1]
        )

    def across(self, rows: slice, side_mm: float = SIDE_MM) -> slice:
        """Return the right-left crop around canal and collections in a range of slices."""
        spacing = self.geometry.spacing_ijk_mm[0]
        low = self.canal_i[rows].min() - side_mm / spacing
        high = self.canal_i[rows].max() + side_mm / spacing
        found = np.flatnonzero((self.collections[rows] > 0).any(axis=(0, 1)))
        return _with_margin(
            low, high, found, COLLECTION_MARGIN_MM / spacing, self.geometry.shape[2]
        )

    def epicenter(self, collection: Collection) -> tuple[int, int, int]:
        """Return the index (k, j, i) of the center of the largest cross-section, clipped."""
        if collection.epicenter_lps_mm is None:
            place = self.voxels_of(collection).mean(axis=0)
        else:
            place = self.geometry.kji_from_lps(collection.epicenter_lps_mm)
        kji = np.round(place).astype(int)
        k, j, i = np.clip(kji, 0, np.array(self.geometry.shape) - 1)
        return int(k), int(j), int(i)

    def sample(self, array: Plane, points_lps: FloatArray, order: int) -> Plane:
        """Interpolate an array on the grid of the myelogram at points, zero outside."""
        stored = array.view(np.uint8) if array.dtype == np.bool_ else array
        kji = np.moveaxis(self.geometry.kji_from_lps(points_lps), -1, 0)
        kind = np.float32 if order else stored.dtype
        return np.asarray(
            ndimage.map_coordinates(stored, kji, output=kind, order=order, mode="constant")
        )

    @cached_property
    def boxes(self) -> dict[int, tuple[slice, slice, slice]]:
        """Bounding box of each collection, by id."""
        found = ndimage.find_objects(self.collections)
        return {n + 1: box for n, box in enumerate(found) if box is not None}

    def voxels_of(self, collection: Collection) -> npt.NDArray[np.intp]:
        """Return the indices (k, j, i) of a collection's voxels, shape (n, 3), or none."""
        box = self.boxes.get(collection.id)
        if box is None:
            return np.empty((0, 3), dtype=np.intp)
        corner = [part.start for part in box]
        return np.asarray(np.argwhere(self.collections[box] == collection.id) + corner)

    def points_of(self, collection: Collection) -> FloatArray:
        """Return voxel positions of a collection (LPS), subsampled if large; shape (n, 3)."""
        found = self.voxels_of(collection)
        return self.geometry.lps_from_kji(found[:: len(found) // MAX_POINTS + 1])

    def segment_at(self, point_lps: FloatArray) -> str | None:
        """Return the motion segment at a point: between the centers of two adjacent bodies."""
        arc, _, _ = self.centerline.project(point_lps)
        return self.coordinate.segment_at(float(arc))


def axis_labels(geometry: Geometry) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
    """Return the orientation labels at the low and the high end of the i, j and k axes.

    An oblique axis has two letters, the closer direction first.
    """
    i, j, k = (direction_labels(direction) for direction in geometry.directions_lps.T)
    return i, j, k


def direction_labels(direction_lps: FloatArray) -> tuple[str, str]:
    """Return the orientation labels against and along a unit vector."""
    first, second = np.argsort(-np.abs(direction_lps), kind="stable")[:2]
    axes = [first, second] if abs(direction_lps[second]) > OBLIQUE else [first]
    low = "".join(_DIRECTION_LABELS[axis][int(direction_lps[axis] < 0)] for axis in axes)
    return low, "".join(_DIRECTION_LABELS[axis][int(direction_lps[axis] > 0)] for axis in axes)


def inside(low: float, high: float, length: int) -> slice:
    """Return the integer indices from `low` to `high`, inclusive, clipped to 0..length - 1."""
    start = min(max(int(np.floor(low)), 0), length - 1)
    return slice(start, max(min(int(np.ceil(high)) + 1, length), start + 1))


def _with_margin(
    low: float, high: float, found: npt.NDArray[np.intp], room: float, length: int
) -> slice:
    if found.size:
        low, high = min(low, found[0] - room), max(high, found[-1] + room)
    return inside(low, high, length)
