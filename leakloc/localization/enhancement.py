"""Enhancement around collections on T1 before and after intravenous contrast.

The signal of a shell around a collection is compared between both series, relative to that of the
collection and of muscle. Enhancement of the fluid itself is not a rim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.ndimage import distance_transform_edt

from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.localization.canal import IntArray
from leakloc.localization.result import Enhancement
from leakloc.localization.signals import corners_around, covered_voxels
from leakloc.segmentation.result import Segmentation

Plane = Literal["sagittal", "coronal", "axial"]
Unmeasured = Literal["partial volume", "not registered", "outside the field of view"]

_SHELL_MM: Final = (1.0, 3.5)
"""Distances of voxel centers of the shell from the voxels of the collection: about 0.5 to 3 mm from
its surface. Enhancing walls of collections are 1 to 3 mm thick."""

_DURA_MM: Final = 1.0
"""Tissue within this distance of the sac contains partial volume of CSF."""

_MIN_COVERED: Final = 0.7
"""Minimum fraction of a voxel of the T1 series within the shell; partial volume lowers the rise."""

_MIN_VOXELS: Final = 20
"""Minimum number of such voxels; half of them within the collection."""

_MUSCLE_LEFT_MM: Final = (15.0, 38.0)
_MUSCLE_DORSAL_MM: Final = (8.0, 35.0)
"""Region of the paraspinal muscles relative to the centerline of the canal."""

_MIN_RISE: Final = 0.3
"""Minimum rise, relative to the signal of muscle, of a voxel that enhances; noise is 0.1."""

_MIN_ENHANCING: Final = 0.4
"""Minimum fraction of the shell that enhances in rim enhancement."""

_SHIFTS_MM: Final = np.arange(-4.0, 4.1, 1.0)
"""In-plane displacements of the series after contrast that are compared."""

_MAX_SHIFT_MM: Final = 1.5
"""Maximum displacement of the best match: half the thickness of the shell."""

_MIN_CORRELATION: Final = 0.5
"""Minimum correlation of both series around a collection."""

_MATCH_MM: Final = 15.0
"""Distance around a collection in which both series are compared."""

_MAX_SAMPLES: Final = 15_000


@dataclass(frozen=True)
class MeasuredEnhancement:
    """Rise of T1 signal around a collection, relative to the signal of muscle.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the candidate.
    rise, low, high : float
        Median rise in the shell and its 95 % interval; NaN if not measured.
    interior : float
        Median rise within the collection; NaN if not measured.
    fraction : float
        Fraction of the shell that enhances.
    n_voxels : int
        Number of voxels in the shell.
    plane : str
        Plane of the T1 pair.
    unmeasured : str or None
        Why it was not measured.
    """

    center_lps: FloatArray
    rise: float
    low: float
    high: float
    interior: float
    fraction: float
    n_voxels: int
    plane: Plane
    unmeasured: Unmeasured | None = None


def measure_enhancement(
    segmentation: Segmentation, pairs: Sequence[tuple[Volume, Volume]]
) -> tuple[MeasuredEnhancement, ...]:
    """Measure the enhancement around each collection on the T1 pair that shows most of it.

    Parameters
    ----------
    segmentation : Segmentation
    pairs : sequence of (Volume, Volume)
        T1 before and after contrast with the same plane and fat suppression, registered to the
        myelogram.
    """
    found = []
    for candidate in segmentation.accepted if pairs else ():
        kji = np.argwhere(segmentation.collections.array == candidate.id)
        if not len(kji):
            continue
        measured = [
            _measure(segmentation, candidate.id, candidate.center_lps, kji, *pair) for pair in pairs
        ]
        found.append(max(measured, key=lambda one: (one.unmeasured is None, one.n_voxels)))
    return tuple(found)


def _measure(
    segmentation: Segmentation,
    number: int,
    center_lps: FloatArray,
    kji: IntArray,
    before: Volume,
    after: Volume,
) -> MeasuredEnhancement:
    def unmeasured(reason: Unmeasured, n_voxels: int = 0) -> MeasuredEnhancement:
        nan = float("nan")
        return MeasuredEnhancement(
            center_lps, nan, nan, nan, nan, nan, n_voxels, plane_of(before.geometry), reason
        )

    grid = segmentation.collections.geometry
    points = grid.lps_from_kji(kji)
    margin = max(_MATCH_MM, _MUSCLE_LEFT_MM[1])
    corners = corners_around(points, margin)
    try:
        box = before.geometry.box_around(corners)
    except GeometryError:
        return unmeasured("outside the field of view")
    shell, own = _shell(segmentation, number, kji)
    rim, interior = (covered_voxels(mask, before.geometry, box, least) for mask, least in (
        (shell, _MIN_COVERED), (own, 0.9)
    ))  # fmt: skip
    muscle = _muscle(segmentation, points, before, box)
    places = [before.geometry.lps_from_kji(part) for part in (rim, interior, muscle)]
    inside = [after.geometry.contains(part) for part in places]
    places = [part[keep] for part, keep in zip(places, inside, strict=True)]
    if not len(places[0]):
        return unmeasured("outside the field of view" if not len(rim) else "partial volume")
    if min(len(places[0]), 2 * len(places[1]), len(places[2])) < _MIN_VOXELS:
        return unmeasured("partial volume", len(places[0]))
    if not _is_registered(before, after, points):
        return unmeasured("not registered", len(places[0]))
    first, second = (
        [volume.sample(part) for part in places] for volume in (before, after)
    )  # signal of rim, interior and muscle
    level = float(np.median(first[2]))
    gain = float(np.median(second[2])) / max(level, 1e-9)
    if level <= 0 or gain <= 0:
        return unmeasured("partial volume", len(places[0]))
    rise, inner = ((b / gain - a) / level for a, b in zip(first[:2], second[:2], strict=True))
    middle = float(np.median(rise))
    spread = 1.96 * 1.253 * float(rise.std()) / np.sqrt(len(rise))
    return MeasuredEnhancement(
        center_lps, middle, middle - spread, middle + spread, float(np.median(inner)),
        float((rise >= _MIN_RISE).mean()), len(rise), plane_of(before.geometry),
    )  # fmt: skip


def plane_of(geometry: Geometry) -> Plane:
    """Return the plane of the slices of a grid."""
    axis = int(np.abs(geometry.directions_lps[:, 2]).argmax())
    return ("sagittal", "coronal", "axial")[axis]


def _shell(segmentation: Segmentation, number: int, kji: IntArray) -> tuple[Volume, Volume]:
    """Return the masks of the shell and of the interior on a crop of the myelogram's grid."""
    grid = segmentation.collections.geometry
    box = grid.box_around(grid.lps_from_kji(kji), _SHELL_MM[1] + 2 * max(grid.spacing_ijk_mm))
    labels = segmentation.collections.crop(box)
    spacing = grid.spacing_kji_mm
    outside_mm = distance_transform_edt(labels.array != number, sampling=spacing)
    sac = segmentation.thecal_sac.array[box] > 0
    free = (labels.array == 0) & ~sac
    if sac.any():
        free &= distance_transform_edt(~sac, sampling=spacing) > _DURA_MM
    shell = free & (outside_mm >= _SHELL_MM[0]) & (outside_mm <= _SHELL_MM[1])
    own = labels.array == number
    return labels.with_array(shell.astype(np.float32)), labels.with_array(own.astype(np.float32))


def _muscle(
    segmentation: Segmentation,
    points_lps: FloatArray,
    volume: Volume,
    box: tuple[slice, slice, slice],
) -> IntArray:
    """Return the voxels, shape (n, 3), in the paraspinal muscles at the level of a collection."""
    size = [part.stop - part.start for part in box]
    kji = np.moveaxis(np.indices(size), 0, -1).reshape(-1, 3)[::3]
    kji = kji + np.array([part.start for part in box])
    line = segmentation.centerline
    arcs = line.project(points_lps)[0]
    arc, left, dorsal = line.project(volume.geometry.lps_from_kji(kji))
    near = (arc >= arcs.min()) & (arc <= arcs.max())
    near &= (np.abs(left) >= _MUSCLE_LEFT_MM[0]) & (np.abs(left) <= _MUSCLE_LEFT_MM[1])
    near &= (dorsal >= _MUSCLE_DORSAL_MM[0]) & (dorsal <= _MUSCLE_DORSAL_MM[1])
    labels = segmentation.collections
    near &= labels.sample(volume.geometry.lps_from_kji(kji), order=0) == 0
    return np.asarray(kji[near])


def _is_registered(before: Volume, after: Volume, points_lps: FloatArray) -> bool:
    """Return whether both series match best without a displacement around a collection."""
    try:
        box = before.geometry.box_around(corners_around(points_lps, _MATCH_MM))
    except GeometryError:
        return False
    size = [part.stop - part.start for part in box]
    kji = np.moveaxis(np.indices(size), 0, -1).reshape(-1, 3)
    kji = kji[:: max(1, len(kji) // _MAX_SAMPLES)] + np.array([part.start for part in box])
    places = before.geometry.lps_from_kji(kji)
    fixed = before.array[tuple(kji.T)].astype(np.float64)
    axes = before.geometry.directions_lps
    gap = before.geometry.spacing_ijk_mm[2]
    shifts = [(i, j, 0.0) for i in _SHIFTS_MM for j in _SHIFTS_MM]
    shifts += [(0.0, 0.0, -gap), (0.0, 0.0, gap)]
    values = [_correlation(fixed, after.sample(places + axes @ np.array(s))) for s in shifts]
    best = int(np.argmax(values))
    moved_mm = float(np.linalg.norm(shifts[best]))
    return values[best] >= _MIN_CORRELATION and moved_mm <= _MAX_SHIFT_MM


def _correlation(one: FloatArray, other: FloatArray) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def enhancement_of(measured: MeasuredEnhancement | None) -> Enhancement | None:
    """Return a measurement in the form of the report; None without a T1 pair."""
    if measured is None:
        return None
    rim = None
    if measured.unmeasured is None:
        rim = bool(measured.fraction >= _MIN_ENHANCING and measured.low > measured.interior)
    return Enhancement(
        rim=rim,
        rise=measured.rise,
        low=measured.low,
        high=measured.high,
        interior_rise=measured.interior,
        enhancing_fraction=measured.fraction,
        n_voxels=measured.n_voxels,
        plane=measured.plane,
        not_measured=measured.unmeasured,
    )
