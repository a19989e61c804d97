"""Volumes with their geometry in patient coordinates.

Conventions used throughout leakloc:

* arrays are indexed ``[k, j, i]`` (slice, row, column), as SimpleITK returns them to numpy;
* points are in millimeters in DICOM patient coordinates, LPS (x to the patient's left,
  y posterior, z cranial); a name ending in ``_lps`` is such a point or direction;
* an affine maps column vectors ``(i, j, k, 1)`` to LPS millimeters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.core.errors import GeometryError
from leakloc.core.extras import LazyModule
from leakloc.core.resampling import resampled

if TYPE_CHECKING:
    import SimpleITK as sitk

    from leakloc import notebook
else:
    sitk = LazyModule("SimpleITK", "sitk")
    notebook = LazyModule("leakloc.notebook")  # an upper layer, for `_repr_html_`

FloatArray = npt.NDArray[np.float64]

ORTHOGONALITY_TOLERANCE: Final = 1e-3
"""Maximum cosine between two axes of a grid (the same value as for image orientation in DICOM)."""

_ROUNDING: Final = 1e-6
"""Maximum cosine between axes due to rounding in headers; axes within it are used unmodified."""

NEGLIGIBLE: Final = 1e-12
"""Cosines and origins (mm) below this are rounding errors and are set to zero."""

_LPS_FROM_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_POSITIVE: Final = ("L", "P", "S")
_NEGATIVE: Final = ("R", "A", "I")


@dataclass(frozen=True)
class Geometry:
    """A regular, orthogonal grid in patient space.

    Axes that are orthogonal within `ORTHOGONALITY_TOLERANCE` are replaced by the nearest orthogonal
    ones, with the center of the grid unchanged, as ITK and DICOM writers have lower tolerances.

    Parameters
    ----------
    shape : tuple of int
        Array shape ``(k, j, i)``.
    affine_lps : ndarray, shape (4, 4)
        Maps ``(i, j, k, 1)`` to LPS millimeters.
    frame_of_reference_uid : str or None
        DICOM Frame of Reference UID; grids with different UIDs require registration.

    Raises
    ------
    GeometryError
        If the affine is not finite, singular, or its axes are not orthogonal.
    """

    shape: tuple[int, int, int]
    affine_lps: FloatArray
    frame_of_reference_uid: str | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("the affine must be a finite 4 x 4 matrix")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"the shape must be three positive integers, not {self.shape}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() <= 0 or not np.isfinite(spacing).all():
            raise GeometryError("the affine has an axis of zero or infinite length")
        cosines = (affine[:3, :3] / spacing).T @ (affine[:3, :3] / spacing) - np.eye(3)
        if np.abs(cosines).max() > ORTHOGONALITY_TOLERANCE:
            raise GeometryError(
                f"the grid is sheared: two axes have a cosine of {np.abs(cosines).max():.4f}; "
                "resample it onto an orthogonal grid first"
            )
        if np.abs(cosines).max() > _ROUNDING:
            affine = _orthogonalized(affine, spacing, self.shape)
        # ITK's singular value decomposition fails silently on very small cosines.
        affine[np.abs(affine / [*spacing, 1.0]) < NEGLIGIBLE] = 0
        affine.flags.writeable = False
        object.__setattr__(self, "affine_lps", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @classmethod
    def from_axes(
        cls,
        shape: tuple[int, int, int],
        *,
        origin_lps: Sequence[float],
        spacing_ijk_mm: Sequence[float],
        directions_lps: npt.ArrayLike | None = None,
        frame_of_reference_uid: str | None = None,
    ) -> Geometry:
        """Create a grid from origin, spacing and unit axes (columns i, j, k; identity if None)."""
        axes = np.eye(3) if directions_lps is None else np.asarray(directions_lps, dtype=float)
        affine = np.eye(4)
        affine[:3, :3] = axes * np.asarray(spacing_ijk_mm, dtype=float)
        affine[:3, 3] = origin_lps
        return cls(shape, affine, frame_of_reference_uid)

    @cached_property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in millimeters."""
        i, j, k = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Voxel size in array order (k, j, i), for functions with a ``spacing`` argument."""
        i, j, k = self.spacing_ijk_mm
        return k, j, i

    @cached_property
    def directions_lps(self) -> FloatArray:
        """Unit vectors of the i, j and k axes as columns, shape (3, 3)."""
        return np.asarray(self.affine_lps[:3, :3] / np.array(self.spacing_ijk_mm))

    @property
    def origin_lps(self) -> FloatArray:
        """Center of voxel ``[0, 0, 0]``, LPS millimeters."""
        return np.asarray(self.affine_lps[:3, 3])

    @property
    def corners_lps(self) -> FloatArray:
        """Centers of the eight outermost voxels, shape (8, 3)."""
        ends = np.indices((2, 2, 2)).reshape(3, -1).T
        return self.lps_from_ijk(ends * (np.array(self.shape[::-1]) - 1))

    @property
    def top_mm(self) -> float:
        """Largest craniocaudal (S) coordinate of a voxel center."""
        return float(self.corners_lps[:, 2].max())

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in milliliters."""
        return float(np.prod(self.spacing_ijk_mm)) / 1000.0

    def edges_along_mm(self, directions_lps: FloatArray) -> FloatArray:
        """Return the lengths of the voxel edges i, j, k along unit vectors, shape (..., 3).

        Parameters
        ----------
        directions_lps : ndarray, shape (..., 3)
        """
        return np.asarray(np.abs(directions_lps @ self.directions_lps) * self.spacing_ijk_mm)

    @cached_property
    def _ijk_from_lps(self) -> FloatArray:
        return np.asarray(np.linalg.inv(self.affine_lps))

    @property
    def axis_codes(self) -> str:
        """Directions of the i, j and k axes, such as ``"LPS"``; each patient axis occurs once."""
        codes = []
        order = _axis_assignment(self.directions_lps)
        for column, axis in zip(self.directions_lps.T, order, strict=True):
            codes.append((_POSITIVE if column[axis] > 0 else _NEGATIVE)[axis])
        return "".join(codes)

    @property
    def center_lps(self) -> FloatArray:
        """Center of the field of view, LPS millimeters."""
        k, j, i = self.shape
        return self.lps_from_ijk([(i - 1) / 2, (j - 1) / 2, (k - 1) / 2])

    def lps_from_ijk(self, points_ijk: npt.ArrayLike) -> FloatArray:
        """Return LPS millimeters of continuous indices ``(i, j, k)``, shape (..., 3)."""
        points = np.asarray(points_ijk, dtype=np.float64)
        return np.asarray(points @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3])

    def ijk_from_lps(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Return continuous indices ``(i, j, k)`` of LPS points, shape (..., 3)."""
        points = np.asarray(points_lps, dtype=np.float64)
        inverse = self._ijk_from_lps
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])

    def lps_from_kji(self, points_kji: npt.ArrayLike) -> FloatArray:
        """Return LPS millimeters of array indices ``(k, j, i)``, as from `numpy.argwhere`."""
        return self.lps_from_ijk(np.asarray(points_kji)[..., ::-1])

    def kji_from_lps(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Return continuous array indices ``(k, j, i)`` of LPS points, as for `scipy.ndimage`."""
        return self.ijk_from_lps(points_lps)[..., ::-1]

    def index_transform(self, other: Geometry) -> FloatArray:
        """Return the affine that maps indices ``(k, j, i, 1)`` of another grid to those of this."""
        transform = np.linalg.inv(self.affine_lps) @ other.affine_lps
        order = [2, 1, 0, 3]
        return np.asarray(transform[np.ix_(order, order)])

    def contains(self, points_lps: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return whether LPS points lie in a voxel of the grid, shape (...)."""
        ijk = self.ijk_from_lps(points_lps)
        upper = np.array(self.shape[::-1]) - 0.5
        return np.asarray(((ijk >= -0.5) & (ijk <= upper)).all(axis=-1))

    def matches(self, other: Geometry, tolerance_mm: float = 0.01) -> bool:
        """Return whether both grids are equal: same shape, corners within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_lps - other.corners_lps).max() <= tolerance_mm)

    def in_other_frame(self, other: Geometry) -> bool:
        """Return whether both have a frame of reference, and these differ."""
        uids = {self.frame_of_reference_uid, other.frame_of_reference_uid} - {None}
        return len(uids) > 1

    def clamp_left_right(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Move points outside the left or right edge of the grid onto its edge.

        Points move along the left-right grid axis, so that their other indices do not change.
        """
        kji = self.kji_from_lps(points_lps)
        axis = 2 - int(np.abs(self.directions_lps[0]).argmax())
        kji[..., axis] = np.clip(kji[..., axis], 0, self.shape[axis] - 1)
        return self.lps_from_kji(kji)

    def cropped(self, box: tuple[slice, slice, slice]) -> Geometry:
        """Return the grid of ``array[box]``; slices in ``[k, j, i]`` order, step 1."""
        starts, shape = [], []
        for part, length in zip(box, self.shape, strict=True):
            start, stop, step = part.indices(length)
            if step != 1 or stop <= start:
                raise GeometryError(f"cannot crop {self.shape} to {box}")
            starts.append(start)
            shape.append(stop - start)
        affine = self.affine_lps.copy()
        affine[:3, 3] = self.lps_from_kji(starts)
        return replace(self, shape=(shape[0], shape[1], shape[2]), affine_lps=affine)

    def box_around(
        self, points_lps: npt.ArrayLike, margin_mm: float = 0.0
    ) -> tuple[slice, slice, slice]:
        """Return the smallest ``[k, j, i]`` box with the points and a margin, within the grid.

        Raises
        ------
        GeometryError
            If the box lies entirely outside the grid.
        """
        kji = self.kji_from_lps(np.reshape(points_lps, (-1, 3)))
        margin = margin_mm / np.array(self.spacing_kji_mm)
        low = np.maximum(np.floor(kji.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(kji.max(axis=0) + margin) + 1, self.shape).astype(int)
        if (high <= low).any():
            raise GeometryError("the requested region lies outside the volume")
        k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return k, j, i

    def with_spacing(self, spacing_ijk_mm: Sequence[float]) -> Geometry:
        """Return a grid with the same field of view and axes and another voxel size."""
        new = np.asarray(spacing_ijk_mm, dtype=float)
        old = np.array(self.spacing_ijk_mm)
        counts = np.maximum(np.round(np.array(self.shape[::-1]) * old / new), 1).astype(int)
        first = -0.5 + 0.5 * new / old
        affine = self.affine_lps.copy()
        affine[:3, :3] = self.directions_lps * new
        affine[:3, 3] = self.lps_from_ijk(first)
        i, j, k = (int(n) for n in counts)
        return replace(self, shape=(k, j, i), affine_lps=affine)


@dataclass(frozen=True)
class Provenance:
    """Origin and processing steps of an array."""

    source: str = ""
    """Role, file name or stage, without patient data."""
    series_instance_uid: str | None = None
    series_description: str = ""
    fat_suppressed: bool = False
    """Whether the header states fat suppression; False does not exclude fat suppression."""
    contrast_agent: bool = False
    """Whether header or name state a contrast agent."""
    steps: tuple[str, ...] = ()
    """Operations since loading, oldest first."""

    def then(self, step: str) -> Provenance:
        """Return a copy with one more step."""
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True, eq=False)
class Volume:
    """An array ``[k, j, i]`` with its geometry and provenance.

    Raises
    ------
    GeometryError
        If the shape of the array differs from that of the geometry.
    """

    array: npt.NDArray[Any]
    geometry: Geometry
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryError(
                f"an array of shape {self.array.shape} does not fit a grid of "
                f"{self.geometry.shape} ({self.provenance.source or 'unnamed volume'})"
                f"{_shape_hint(self.array.shape, self.geometry.shape)}"
            )

    def __repr__(self) -> str:
        spacing = " x ".join(f"{mm:.3g}" for mm in self.geometry.spacing_ijk_mm)
        return (
            f"Volume({self.array.dtype} {self.geometry.shape} [k, j, i], {spacing} mm (i, j, k), "
            f"axes {self.geometry.axis_codes}, {self.provenance.source or 'unnamed'})"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the voxels ``[k, j, i]``, for ``numpy.asarray(volume)``."""
        return np.array(self.array, dtype=dtype, copy=copy)

    def _repr_html_(self) -> str:
        return notebook.volume_html(self)

    def with_array(self, array: npt.NDArray[Any], step: str = "") -> Volume:
        """Return a volume with another array on the same grid."""
        provenance = self.provenance.then(step) if step else self.provenance
        return Volume(array, self.geometry, provenance)

    def crop(self, box: tuple[slice, slice, slice]) -> Volume:
        """Return ``array[box]`` with its geometry."""
        return Volume(self.array[box], self.geometry.cropped(box), self.provenance)

    def oriented(self, codes: str = "LPS") -> Volume:
        """Return the same voxels with axes permuted and flipped to be closest to `codes`.

        No interpolation: the affine keeps any obliquity. With ``"LPS"``, i points to the patient's
        left, j posteriorly and k cranially.

        Parameters
        ----------
        codes : str
            Requested directions of the i, j and k axes.

        Raises
        ------
        ValueError
            If `codes` does not contain each patient axis once.
        """
        if sorted("LPS"["RAI".find(c)] if c in "RAI" else c for c in codes) != ["L", "P", "S"]:
            raise ValueError(f"orientation codes must have each patient axis once, not {codes!r}")
        wanted = [_POSITIVE.index(c) if c in _POSITIVE else _NEGATIVE.index(c) for c in codes]
        signs = [1.0 if c in _POSITIVE else -1.0 for c in codes]
        order = _axis_assignment(self.geometry.directions_lps)  # patient axis of i, j, k
        affine = np.eye(4)
        source_axes = [order.index(axis) for axis in wanted]  # which of i, j, k goes where
        array = np.transpose(self.array, [2 - source_axes[2 - n] for n in range(3)])
        affine[:3, 3] = self.geometry.affine_lps[:3, 3]
        flips: list[slice] = [slice(None)] * 3
        for new, (old, axis, sign) in enumerate(zip(source_axes, wanted, signs, strict=True)):
            column = self.geometry.affine_lps[:3, old]
            if column[axis] * sign < 0:
                affine[:3, 3] += column * (array.shape[2 - new] - 1)
                column = -column
                flips[2 - new] = slice(None, None, -1)
            affine[:3, new] = column
        array = array[tuple(flips)]
        k, j, i = array.shape
        geometry = Geometry((k, j, i), affine, self.geometry.frame_of_reference_uid)
        return Volume(array, geometry, self.provenance)

    def sample(self, points_lps: npt.ArrayLike, *, order: int = 1, fill: float = 0.0) -> FloatArray:
        """Interpolate values at LPS points with splines of `order`; `fill` outside the grid.

        Parameters
        ----------
        points_lps : array_like, shape (..., 3)
            LPS millimeters.

        Returns
        -------
        ndarray, shape (...)
        """
        kji = self.geometry.kji_from_lps(points_lps)
        flat = kji.reshape(-1, 3).T
        values = ndimage.map_coordinates(
            self.array, flat, output=np.float64, order=order, mode="constant", cval=fill
        )
        return np.asarray(values.reshape(kji.shape[:-1]))

    def resample(self, target: Geometry, *, order: int = 1, fill: float = 0.0) -> Volume:
        """Resample onto another grid in patient coordinates.

        Parameters
        ----------
        target : Geometry
            Target grid.
        order : {0, 1, 3}
            Nearest neighbor (for labels), linear, or cubic B-spline. Cubic requires four samples
            along every axis; a smaller volume is interpolated linearly. Integers are rounded.
        fill : float
            Value outside this volume.
        """
        if self.geometry.matches(target, tolerance_mm=1e-6):
            return Volume(self.array, target, self.provenance)
        if order == 3 and min(self.array.shape) < 4:
            order = 1
        array = self.array.astype(_restored_dtype(self.array.dtype), copy=False)
        source_from_target = self.geometry.index_transform(target)
        array = resampled(array, source_from_target, target.shape, order=order, fill=fill)
        return Volume(array, target, self.provenance.then("resampled"))

    def to_sitk(self) -> sitk.Image:
        """Convert to a SimpleITK image (also LPS).

        Raises
        ------
        SettingsError
            If SimpleITK is not installed; the message contains the installation command.
        """
        array = self.array
        if array.dtype == np.bool_:
            array = array.astype(np.uint8)
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetOrigin([float(x) for x in self.geometry.origin_lps])
        image.SetSpacing(self.geometry.spacing_ijk_mm)
        image.SetDirection([float(x) for x in self.geometry.directions_lps.ravel()])
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image, provenance: Provenance | None = None) -> Volume:
        """Create a volume from a SimpleITK image with three axes."""
        if image.GetDimension() != 3:
            raise GeometryError(f"the image must have three axes, not {image.GetDimension()}")
        array = sitk.GetArrayFromImage(image)
        k, j, i = array.shape
        geometry = Geometry.from_axes(
            (k, j, i),
            origin_lps=image.GetOrigin(),
            spacing_ijk_mm=image.GetSpacing(),
            directions_lps=np.reshape(image.GetDirection(), (3, 3)),
        )
        return cls(array, geometry, provenance or Provenance())

    def to_nibabel(self) -> nib.Nifti1Image:
        """Convert to a NIfTI image: RAS affine in qform and sform, array ``[i, j, k]``."""
        array = np.transpose(self.array)
        kinds = {"bool": np.uint8, "float16": np.float32}  # not supported by NIfTI
        array = array.astype(kinds.get(array.dtype.name, array.dtype), copy=False)
        affine = _LPS_FROM_RAS @ self.geometry.affine_lps
        image = nib.Nifti1Image(array, affine, dtype=array.dtype)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")
        return image

    @classmethod
    def from_nibabel(cls, image: Any, provenance: Provenance | None = None) -> Volume:
        """Create a volume from a 3D nibabel image (trailing axes of length 1 are dropped)."""
        array = np.asanyarray(image.dataobj)
        while array.ndim > 3 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim != 3:
            raise GeometryError(f"the image must have three axes, not shape {array.shape}")
        affine = _LPS_FROM_RAS @ np.asarray(image.affine, dtype=np.float64)
        array = np.transpose(array)
        k, j, i = array.shape
        return cls(array, Geometry((k, j, i), affine), provenance or Provenance())


def _orthogonalized(
    affine: FloatArray, spacing: FloatArray, shape: tuple[int, int, int]
) -> FloatArray:
    """Return the affine with the nearest orthogonal axes and the same center of the grid."""
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    middle = (np.array(shape[::-1]) - 1) / 2
    regular = affine.copy()
    regular[:3, :3] = left @ right * spacing
    regular[:3, 3] += (affine[:3, :3] - regular[:3, :3]) @ middle
    return regular


def _axis_assignment(directions_lps: FloatArray) -> list[int]:
    """Return the closest patient axis (0 L, 1 P, 2 S) of each of i, j, k, each used once."""
    strength = np.abs(directions_lps)
    # Break ties of exact diagonals independently of the order and sign of the axes.
    strength = strength + 1e-6 * directions_lps * np.roll(directions_lps, -1, axis=0)
    best = max(permutations(range(3)), key=lambda p: sum(strength[p[n], n] for n in range(3)))
    return list(best)


def _shape_hint(shape: tuple[int, ...], wanted: tuple[int, int, int]) -> str:
    """Return a hint for common mistakes in the shape of an array."""
    if len(shape) == 2:
        return ": a volume has three axes; use array[None] for one slice"
    if shape == wanted[::-1]:
        return ": its axes are in nibabel order [i, j, k]; use array.T or Volume.from_nibabel"
    if sorted(shape) == sorted(wanted):
        return ": its axes are not in the order [k, j, i] (slice, row, column)"
    return ""


def _restored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype
