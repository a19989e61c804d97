"""The one currency between stages: an array with its place in the patient.

Conventions, used everywhere in leakloc:

* arrays are indexed ``[k, j, i]`` (slice, row, column), as SimpleITK hands them to numpy;
* points are millimetres in DICOM patient coordinates, LPS (x to the patient's left,
  y to the back, z to the head); a name ending in ``_lps`` is such a point or direction;
* an affine maps column vectors ``(i, j, k, 1)`` to LPS millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.core.errors import GeometryError

if TYPE_CHECKING:
    import nibabel as nib
    import SimpleITK as sitk

FloatArray = npt.NDArray[np.float64]

ORTHOGONALITY_TOLERANCE: Final = 1e-3
"""Largest cosine between two axes of a grid (same figure as for image orientation in DICOM)."""

NEGLIGIBLE: Final = 1e-12
"""Cosine below which an axis does not lean, and origin in mm that is zero: rounding."""

_LPS_FROM_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_POSITIVE: Final = ("L", "P", "S")
_NEGATIVE: Final = ("R", "A", "I")


@dataclass(frozen=True)
class Geometry:
    """A regular, orthogonal grid in patient space.

    Parameters
    ----------
    shape : tuple of int
        Array shape ``(k, j, i)``.
    affine_lps : ndarray, shape (4, 4)
        Maps ``(i, j, k, 1)`` to LPS millimetres.
    frame_of_reference_uid : str or None
        DICOM Frame of Reference UID; grids with different ones need registration.

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
            raise GeometryError(f"a volume has three axes, each of at least 1, not {self.shape}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() <= 0 or not np.isfinite(spacing).all():
            raise GeometryError("the affine has an axis of zero or endless length")
        cosines = (affine[:3, :3] / spacing).T @ (affine[:3, :3] / spacing) - np.eye(3)
        if np.abs(cosines).max() > ORTHOGONALITY_TOLERANCE:
            raise GeometryError(
                f"the grid is sheared: two axes have a cosine of {np.abs(cosines).max():.4f}; "
                "resample it onto an orthogonal grid first"
            )
        # ITK's singular value decomposition fails without an error on vanishing cosines.
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
        """Build from an origin, spacings and unit axes (columns i, j, k; identity if None)."""
        axes = np.eye(3) if directions_lps is None else np.asarray(directions_lps, dtype=float)
        affine = np.eye(4)
        affine[:3, :3] = axes * np.asarray(spacing_ijk_mm, dtype=float)
        affine[:3, 3] = origin_lps
        return cls(shape, affine, frame_of_reference_uid)

    @cached_property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in millimetres."""
        i, j, k = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Voxel size in array order, for functions that take ``spacing=``."""
        i, j, k = self.spacing_ijk_mm
        return k, j, i

    @cached_property
    def directions_lps(self) -> FloatArray:
        """Unit vectors of the i, j and k axes as columns, shape (3, 3)."""
        return np.asarray(self.affine_lps[:3, :3] / np.array(self.spacing_ijk_mm))

    @property
    def origin_lps(self) -> FloatArray:
        """Centre of voxel ``[0, 0, 0]``, LPS millimetres."""
        return np.asarray(self.affine_lps[:3, 3])

    @property
    def corners_lps(self) -> FloatArray:
        """Centres of the eight outermost voxels, shape (8, 3)."""
        ends = np.indices((2, 2, 2)).reshape(3, -1).T
        return self.lps_from_ijk(ends * (np.array(self.shape[::-1]) - 1))

    @property
    def top_mm(self) -> float:
        """Patient coordinate, towards the head, of the highest voxel centre."""
        return float(self.corners_lps[:, 2].max())

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_ijk_mm)) / 1000.0

    @cached_property
    def _ijk_from_lps(self) -> FloatArray:
        return np.asarray(np.linalg.inv(self.affine_lps))

    @property
    def axis_codes(self) -> str:
        """Where the i, j and k axes point, such as ``"LPS"``; each patient axis is named once."""
        codes = []
        order = _axis_assignment(self.directions_lps)
        for column, axis in zip(self.directions_lps.T, order, strict=True):
            codes.append((_POSITIVE if column[axis] > 0 else _NEGATIVE)[axis])
        return "".join(codes)

    @property
    def center_lps(self) -> FloatArray:
        """Centre of the field of view, LPS millimetres."""
        k, j, i = self.shape
        return self.lps_from_ijk([(i - 1) / 2, (j - 1) / 2, (k - 1) / 2])

    def lps_from_ijk(self, points_ijk: npt.ArrayLike) -> FloatArray:
        """LPS millimetres of continuous indices ``(i, j, k)``, shape (..., 3)."""
        points = np.asarray(points_ijk, dtype=np.float64)
        return np.asarray(points @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3])

    def ijk_from_lps(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Continuous indices ``(i, j, k)`` of LPS points, shape (..., 3)."""
        points = np.asarray(points_lps, dtype=np.float64)
        inverse = self._ijk_from_lps
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])

    def lps_from_kji(self, points_kji: npt.ArrayLike) -> FloatArray:
        """LPS millimetres of array indices ``(k, j, i)``, as `numpy.argwhere` gives them."""
        return self.lps_from_ijk(np.asarray(points_kji)[..., ::-1])

    def kji_from_lps(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Continuous array indices ``(k, j, i)`` of LPS points, as `scipy.ndimage` takes them."""
        return self.ijk_from_lps(points_lps)[..., ::-1]

    def contains(self, points_lps: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether LPS points fall into a voxel of the grid, shape (...)."""
        ijk = self.ijk_from_lps(points_lps)
        upper = np.array(self.shape[::-1]) - 0.5
        return np.asarray(((ijk >= -0.5) & (ijk <= upper)).all(axis=-1))

    def matches(self, other: Geometry, tolerance_mm: float = 0.01) -> bool:
        """Whether both are the same grid: equal shape, corners within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_lps - other.corners_lps).max() <= tolerance_mm)

    def in_other_frame(self, other: Geometry) -> bool:
        """Whether both name a frame of reference, and not the same one."""
        uids = {self.frame_of_reference_uid, other.frame_of_reference_uid} - {None}
        return len(uids) > 1

    def clamp_left_right(self, points_lps: npt.ArrayLike) -> FloatArray:
        """Points moved into the field from its left and right: slabs may be narrower than a curve.

        Along the grid's own axes, so that their height and depth in it stay.
        """
        kji = self.kji_from_lps(points_lps)
        axis = 2 - int(np.abs(self.directions_lps[0]).argmax())
        kji[..., axis] = np.clip(kji[..., axis], 0, self.shape[axis] - 1)
        return self.lps_from_kji(kji)

    def cropped(self, box: tuple[slice, slice, slice]) -> Geometry:
        """The grid of ``array[box]``; slices in ``[k, j, i]`` order, step 1."""
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
        """Smallest ``[k, j, i]`` box that holds the points and a margin, inside the grid.

        Raises
        ------
        GeometryError
            If the box lies wholly outside the grid.
        """
        kji = self.kji_from_lps(np.reshape(points_lps, (-1, 3)))
        margin = margin_mm / np.array(self.spacing_kji_mm)
        low = np.maximum(np.floor(kji.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(kji.max(axis=0) + margin) + 1, self.shape).astype(int)
        if (high <= low).any():
            raise GeometryError("the region asked for lies outside the volume")
        k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return k, j, i

    def with_spacing(self, spacing_ijk_mm: Sequence[float]) -> Geometry:
        """A grid over the same field of view and axes with another voxel size."""
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
    """Where an array came from and what was done to it."""

    source: str = ""
    """What it is, without patient data: a role, a file name, a stage."""
    series_instance_uid: str | None = None
    series_description: str = ""
    fat_suppressed: bool = False
    """Whether its header states fat suppression; headers that do not may just be silent."""
    steps: tuple[str, ...] = ()
    """Operations since loading, oldest first."""

    def then(self, step: str) -> Provenance:
        """The same origin with one more step."""
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True, eq=False)
class Volume:
    """An array ``[k, j, i]``, its geometry, and where it came from.

    Raises
    ------
    GeometryError
        If the array's shape is not that of the geometry.
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
        """The voxels ``[k, j, i]``, so that ``numpy.asarray(volume)`` works."""
        return np.array(self.array, dtype=dtype, copy=copy)

    def _repr_html_(self) -> str:
        from leakloc.notebook import volume_html

        return volume_html(self)

    def with_array(self, array: npt.NDArray[Any], step: str = "") -> Volume:
        """Another array on the same grid."""
        provenance = self.provenance.then(step) if step else self.provenance
        return Volume(array, self.geometry, provenance)

    def crop(self, box: tuple[slice, slice, slice]) -> Volume:
        """The part ``array[box]``, in the same place in the patient."""
        return Volume(self.array[box], self.geometry.cropped(box), self.provenance)

    def oriented(self, codes: str = "LPS") -> Volume:
        """The same voxels with axes permuted and flipped to point nearest to `codes`.

        No interpolation: the affine keeps any obliquity. ``"LPS"`` makes k run to the
        head, j to the back, and i to the patient's left.

        Parameters
        ----------
        codes : str
            Wanted directions of the i, j and k axes.

        Raises
        ------
        ValueError
            If `codes` does not name each patient axis once.
        """
        if sorted("LPS"["RAI".find(c)] if c in "RAI" else c for c in codes) != ["L", "P", "S"]:
            raise ValueError(f"orientation codes name each patient axis once, not {codes!r}")
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
        """Values at LPS points, interpolated with splines of `order`; `fill` outside.

        Parameters
        ----------
        points_lps : array_like, shape (..., 3)
            LPS millimetres.

        Returns
        -------
        ndarray, shape (...)
        """
        from scipy import ndimage

        kji = self.geometry.kji_from_lps(points_lps)
        flat = kji.reshape(-1, 3).T
        values = ndimage.map_coordinates(
            self.array, flat, output=np.float64, order=order, mode="constant", cval=fill
        )
        return np.asarray(values.reshape(kji.shape[:-1]))

    def resample(self, target: Geometry, *, order: int = 1, fill: float = 0.0) -> Volume:
        """The same signal on another grid, through patient coordinates.

        Parameters
        ----------
        target : Geometry
            Where to sample.
        order : {0, 1, 3}
            Nearest neighbour (for labels), linear, or cubic B-spline. Cubic needs four samples
            along every axis; a thinner volume is interpolated linearly.
        fill : float
            Value outside this volume.
        """
        if self.geometry.matches(target, tolerance_mm=1e-6):
            return Volume(self.array, target, self.provenance)
        import SimpleITK as sitk

        if order == 3 and min(self.array.shape) < 4:
            order = 1  # ITK's B-spline reads outside thinner images and returns garbage
        kinds = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}
        image = self.to_sitk()
        wanted = sitk.Image([int(n) for n in target.shape[::-1]], sitk.sitkUInt8)
        wanted.SetOrigin([float(x) for x in target.origin_lps])
        wanted.SetSpacing(target.spacing_ijk_mm)
        wanted.SetDirection([float(x) for x in target.directions_lps.ravel()])
        moved = sitk.Resample(image, wanted, sitk.Transform(), kinds[order], float(fill))
        array = sitk.GetArrayFromImage(moved).astype(_restored_dtype(self.array.dtype), copy=False)
        return Volume(array, target, self.provenance.then("resampled"))

    def to_sitk(self) -> sitk.Image:
        """As a SimpleITK image (which is LPS too)."""
        import SimpleITK as sitk

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
        """From a SimpleITK image with three axes."""
        import SimpleITK as sitk

        if image.GetDimension() != 3:
            raise GeometryError(f"need three axes, not {image.GetDimension()}")
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
        """As a NIfTI image: RAS affine in both qform and sform, array ``[i, j, k]``."""
        import nibabel as nib

        array = np.transpose(self.array)
        kinds = {"bool": np.uint8, "float16": np.float32}  # NIfTI has neither
        array = array.astype(kinds.get(array.dtype.name, array.dtype), copy=False)
        affine = _LPS_FROM_RAS @ self.geometry.affine_lps
        image = nib.Nifti1Image(array, affine, dtype=array.dtype)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        image.header.set_xyzt_units("mm")
        return image

    @classmethod
    def from_nibabel(cls, image: Any, provenance: Provenance | None = None) -> Volume:
        """From a nibabel image with three axes (trailing axes of length 1 are dropped)."""
        array = np.asanyarray(image.dataobj)
        while array.ndim > 3 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim != 3:
            raise GeometryError(f"need an image with three axes, not shape {array.shape}")
        affine = _LPS_FROM_RAS @ np.asarray(image.affine, dtype=np.float64)
        array = np.transpose(array)
        k, j, i = array.shape
        return cls(array, Geometry((k, j, i), affine), provenance or Provenance())


def _axis_assignment(directions_lps: FloatArray) -> list[int]:
    """Patient axis (0 L, 1 P, 2 S) that each of i, j, k follows most; each is used once."""
    from itertools import permutations

    strength = np.abs(directions_lps)
    # Exact diagonals tie; the sense of the diagonal decides, whatever the order and sign of axes.
    strength = strength + 1e-6 * directions_lps * np.roll(directions_lps, -1, axis=0)
    best = max(permutations(range(3)), key=lambda p: sum(strength[p[n], n] for n in range(3)))
    return list(best)


def _shape_hint(shape: tuple[int, ...], wanted: tuple[int, int, int]) -> str:
    """What to do about the mistakes that people make with the shape of an array."""
    if len(shape) == 2:
        return ": a volume has three axes; one slice is array[None]"
    if shape == wanted[::-1]:
        return ": its axes are in nibabel's order [i, j, k]; array.T, or Volume.from_nibabel"
    if sorted(shape) == sorted(wanted):
        return ": its axes are in another order than [k, j, i] (slice, row, column)"
    return ""


def _restored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype
