"""Signal of collections on companion series, relative to the CSF in the thecal sac.

The ratio to intrathecal CSF at the same level cancels the sensitivity of the coil. On T1, CSF is
dark; protein, blood and fat are brighter. After intravenous contrast, epidural CSF may be bright
as well, so that an enhanced T1 series is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM, IntArray
from leakloc.localization.result import FluidCharacter, FluidKind, SignalRatio
from leakloc.segmentation.result import Candidate, Segmentation

_ROLES: Final[tuple[Role, ...]] = ("sagittal_t1", "sagittal_t2", "sagittal_stir")
"""Companion series that are registered to the myelogram."""

_MIN_COVERED: Final = 0.9
"""Minimum fraction of a voxel of the companion inside the fluid; partial volume changes ratios."""

MIN_VOXELS: Final = 5
"""Minimum number of such voxels in the collection and in the sac."""

_REACH_MM: Final = 20.0
"""CSF in the sac within this distance of the collection is the reference."""

_SUBSAMPLES: Final = 3
"""Points per axis at which the coverage of a voxel is evaluated."""

_MAX_CSF_T1: Final = 1.3
_MAX_PROTEIN_T1: Final = 2.0
_MAX_BLOOD_T2: Final = 0.8
_MIN_FAT_T1: Final = 4.0
_MAX_FAT_STIR: Final = 0.5
_MIN_FLUID_STIR: Final = 0.8
"""Limits of the ratios between kinds of fluid, from relaxation times at 1.5 T: CSF 1.1 on T1;
seroma 1.7; hematoma 2.3 (2.0 at 3 T), on T2 0.6; fat 5.8, on STIR 0.3; on STIR CSF 1.0, seroma
1.2, hematoma 0.6."""

SuppressedSignal = Literal["fluid", "fat", "tissue"]


@dataclass(frozen=True)
class MeasuredRatio:
    """Signal of a collection relative to CSF in the sac on one series.

    Parameters
    ----------
    role : Role
    ratio, low, high : float
        Ratio of the medians and its 95 % interval from the variation of the voxels; NaN if there
        are too few.
    n_voxels : int
        Number of voxels of the series within the collection.
    """

    role: Role
    ratio: float
    low: float
    high: float
    n_voxels: int


@dataclass(frozen=True)
class CollectionSignals:
    """Signals of one collection, by series.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the candidate.
    ratios : tuple of MeasuredRatio
    """

    center_lps: FloatArray
    ratios: tuple[MeasuredRatio, ...]


@dataclass(frozen=True)
class Surrounded:
    """The part of a collection in the canal and the sac around it, on a crop of the grid.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the candidate.
    points_lps : ndarray, shape (n, 3)
        Voxels of the collection.
    fluid, sac : Volume
        Fraction of fluid in the collection and in the sac.
    """

    center_lps: FloatArray
    points_lps: FloatArray
    fluid: Volume
    sac: Volume

    @property
    def corners_lps(self) -> FloatArray:
        """Corners of the box with the reference CSF, shape (2, 2, 2, 3)."""
        return corners_around(self.points_lps, _REACH_MM)

    def voxels_on(self, grid: Geometry) -> tuple[IntArray, IntArray] | None:
        """Return the voxels of another grid in the collection and in the sac, each shape (n, 3).

        Only voxels that lie almost completely inside; None outside the field of view.
        """
        try:
            box = grid.box_around(self.corners_lps)
        except GeometryError:
            return None
        return covered_voxels(self.fluid, grid, box), covered_voxels(self.sac, grid, box)


def corners_around(points_lps: FloatArray, margin_mm: float) -> FloatArray:
    """Return the corners of the box around points with a margin, shape (2, 2, 2, 3)."""
    ends = [points_lps.min(axis=0) - margin_mm, points_lps.max(axis=0) + margin_mm]
    return np.stack(np.meshgrid(*np.stack(ends).T), axis=-1)


def surroundings_of(segmentation: Segmentation) -> tuple[Surrounded, ...]:
    """Return each collection with the sac around it, except those without a part in the canal.

    Only the part in the canal is measured, as its distance from the coil is that of the sac.
    """
    found = (_surroundings(segmentation, candidate) for candidate in segmentation.accepted)
    return tuple(one for one in found if one is not None)


def _surroundings(segmentation: Segmentation, candidate: Candidate) -> Surrounded | None:
    grid = segmentation.fluid_fraction.geometry
    kji = np.argwhere(segmentation.collections.array == candidate.id)
    if not len(kji):
        return None
    points = grid.lps_from_kji(kji)
    _, left, dorsal = segmentation.centerline.project(points)
    in_canal = np.hypot(left, dorsal) <= CANAL_RADIUS_MM
    points = points[in_canal]
    if not len(points):
        return None
    # Copies of the surroundings only, not of the whole grid.
    box = grid.box_around(points, _REACH_MM)
    fraction = segmentation.fluid_fraction.crop(box)
    sac = fraction.with_array(fraction.array * (segmentation.thecal_sac.array[box] > 0))
    own = np.zeros_like(fraction.array)
    own[tuple((kji[in_canal] - [part.start for part in box]).T)] = 1
    fluid = fraction.with_array(fraction.array * own)
    return Surrounded(candidate.center_lps, points, fluid, sac)


def measure_signals(
    surroundings: Sequence[Surrounded], companions: Mapping[Role, Volume]
) -> tuple[CollectionSignals, ...]:
    """Measure the signal of each collection on the companion series.

    Parameters
    ----------
    surroundings : sequence of Surrounded
        Of each collection, from `surroundings_of`.
    companions : mapping of role to Volume
        Registered to the myelogram.
    """
    volumes = {
        role: companions[role]
        for role in _ROLES
        if role in companions and not companions[role].provenance.contrast_agent
    }
    return tuple(
        CollectionSignals(
            around.center_lps, tuple(_ratio(role, vol, around) for role, vol in volumes.items())
        )
        for around in (surroundings if volumes else ())
    )


def _ratio(role: Role, volume: Volume, around: Surrounded) -> MeasuredRatio:
    voxels = around.voxels_on(volume.geometry)
    if voxels is None:
        return MeasuredRatio(role, np.nan, np.nan, np.nan, 0)
    own, csf = (volume.array[tuple(kji.T)].astype(np.float64) for kji in voxels)
    return ratio_of(role, own, csf)


def ratio_of(role: Role, own: FloatArray, csf: FloatArray) -> MeasuredRatio:
    """Return the ratio of the signal of voxels to that of CSF; NaN if either are too few."""
    if min(len(own), len(csf)) < MIN_VOXELS or np.median(csf) <= 0:
        return MeasuredRatio(role, np.nan, np.nan, np.nan, len(own))
    ratio = float(np.median(own) / np.median(csf))
    error = float(np.hypot(_relative_error(own), _relative_error(csf)))
    spread = 1.96 * ratio * error
    return MeasuredRatio(role, ratio, max(ratio - spread, 0.0), ratio + spread, len(own))


def covered_voxels(
    mask: Volume,
    grid: Geometry,
    box: tuple[slice, slice, slice],
    min_covered: float = _MIN_COVERED,
) -> IntArray:
    """Return the voxels of a box of another grid that lie almost completely inside a mask.

    Returns
    -------
    ndarray, shape (n, 3)
        Indices ``[k, j, i]`` into the grid.
    """
    first = np.array([part.start for part in box])
    size = [part.stop - part.start for part in box]
    kji = np.moveaxis(np.indices(size), 0, -1).reshape(-1, 3) + first
    kji = kji[mask.sample(grid.lps_from_kji(kji)) >= min_covered]
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    shifts = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)
    coverage = mask.sample(grid.lps_from_kji(kji + shifts)).mean(axis=0)
    return np.asarray(kji[coverage >= min_covered])


def _relative_error(values: FloatArray) -> float:
    """Standard error of a median relative to it, for normally distributed values."""
    return float(1.253 * values.std() / np.sqrt(len(values)) / max(np.median(values), 1e-9))


def suppressed_signal(signals: CollectionSignals | None) -> SuppressedSignal | None:
    """Return whether the signal on STIR or fat-suppressed T2 is that of fluid, fat or other tissue.

    Fat also has to be brighter on T1 than fluid, if T1 was measured; tissue (marrow, hematoma) has
    to be darker than fluid, and brighter on T1. None if none of them.
    """
    ratios = {} if signals is None else {measured.role: measured for measured in signals.ratios}
    suppressed = ratios.get("sagittal_stir")
    if suppressed is None or np.isnan(suppressed.ratio):
        return None
    if suppressed.low >= _MIN_FLUID_STIR:
        return "fluid"
    t1 = ratios.get("sagittal_t1")
    is_measured = t1 is not None and not np.isnan(t1.ratio)
    is_bright = t1 is not None and t1.low > _MAX_PROTEIN_T1
    if suppressed.high < _MAX_FAT_STIR and (is_bright or not is_measured):
        return "fat"
    return "tissue" if suppressed.high < _MIN_FLUID_STIR and is_bright else None


def character_of(signals: CollectionSignals | None) -> FluidCharacter | None:
    """Return the measured ratios in the form of the report; None without any."""
    if signals is None or not signals.ratios:
        return None
    ratios = {measured.role: measured for measured in signals.ratios}
    kinds = {_kind(ratios, limit) for limit in ("low", "ratio", "high")}
    return FluidCharacter(
        kind=kinds.pop() if len(kinds) == 1 else None,
        ratios=tuple(
            SignalRatio(role=m.role, ratio=m.ratio, low=m.low, high=m.high, n_voxels=m.n_voxels)
            for m in signals.ratios
        ),
    )


def _kind(ratios: dict[Role, MeasuredRatio], limit: str) -> FluidKind | None:
    """Return the kind of fluid for the lower limit, value or upper limit of the T1 ratio."""
    t1 = float(getattr(ratios["sagittal_t1"], limit)) if "sagittal_t1" in ratios else np.nan
    if np.isnan(t1):
        return None
    t2, stir = (
        ratios[role].ratio if role in ratios else np.nan
        for role in ("sagittal_t2", "sagittal_stir")
    )
    if t1 <= _MAX_CSF_T1:
        return "CSF-like"
    if t1 > _MIN_FAT_T1 and stir < _MAX_FAT_STIR:
        return "fat-like"
    # On T1, hematoma is brighter than seroma by less at 3 T.
    if t2 < _MAX_BLOOD_T2:
        return "blood-like"
    return "protein-rich or seroma-like" if t1 <= _MAX_PROTEIN_T1 else None
