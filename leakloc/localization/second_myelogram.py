"""Comparison of the collections of two myelograms of one study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.spatial import cKDTree

from leakloc.core.volume import FloatArray
from leakloc.localization.canal import IntArray
from leakloc.localization.result import MyelogramAgreement
from leakloc.segmentation.result import Segmentation

Agreement = Literal["confirmed", "not detected", "not covered", "not assessable"]

_MIN_COVERED: Final = 0.5
"""Minimum fraction of a collection in the field of view of the other myelogram."""

_NEAR_MM: Final = 3.0
"""Maximum distance of corresponding voxels: movement of the patient, and voxels of 1 to 1.5 mm."""

_VOLUME_MM: Final = 5.0
"""Distance from a collection within which the fluid of the other myelogram is counted as its."""

_MIN_FOUND: Final = 0.3
"""Minimum fraction of a collection, in the field of view of the other myelogram, with corresponding
fluid there."""

_MAX_CORRESPONDING: Final = 0.1
"""Maximum fraction of a collection of the second myelogram near one of the first that is counted as
an additional one."""


@dataclass(frozen=True)
class SecondDetection:
    """One collection on the second myelogram.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the collection on the first myelogram.
    agreement : str
    volume_ml : float
        Corresponding fluid on the second myelogram.
    covered, found : float
        Fractions of the collection in its field of view, and of this part with fluid.
    """

    center_lps: FloatArray
    agreement: Agreement
    volume_ml: float
    covered: float
    found: float


@dataclass(frozen=True)
class AdditionalFluid:
    """A collection detected on the second myelogram only."""

    center_lps: FloatArray
    volume_ml: float
    in_field: bool
    """Whether most of it is in the field of view of the first myelogram."""


@dataclass(frozen=True)
class MyelogramComparison:
    """Collections of the first myelogram on the second, and additional ones."""

    detections: tuple[SecondDetection, ...]
    additional: tuple[AdditionalFluid, ...]
    n_collections: int
    """Number of collections on the second myelogram."""


def compare_myelograms(first: Segmentation, second: Segmentation) -> MyelogramComparison:
    """Compare two independently segmented myelograms collection by collection.

    Parameters
    ----------
    first, second : Segmentation
        In one frame of reference.
    """
    theirs = {c.id: _points(second, c.id) for c in second.accepted}
    ours = {c.id: _points(first, c.id) for c in first.accepted}
    their_points = np.concatenate([np.empty((0, 3)), *theirs.values()])
    weight = np.concatenate([np.empty(0), *(_fluid_ml(second, number) for number in theirs)])
    assessable = not any(note.definition.precludes_absence for note in second.notes)
    detections = []
    for candidate in first.accepted:
        points = ours[candidate.id]
        if not len(points):
            continue
        inside = second.collections.geometry.contains(points)
        covered = float(inside.mean())
        volume_ml, found = 0.0, 0.0
        if inside.any() and len(their_points):
            near = cKDTree(points).query(their_points)[0] <= _VOLUME_MM
            volume_ml = float(weight[near].sum())
            found = float((cKDTree(their_points).query(points[inside])[0] <= _NEAR_MM).mean())
        detections.append(
            SecondDetection(
                candidate.center_lps, _agreement(covered, found, assessable=assessable),
                volume_ml, covered, found,
            )
        )  # fmt: skip
    additional = []
    our_points = np.concatenate([np.empty((0, 3)), *ours.values()])
    for candidate in second.accepted:
        points = theirs[candidate.id]
        corresponding = 0.0
        if len(our_points) and len(points):
            near = cKDTree(our_points).query(points)[0] <= _VOLUME_MM
            corresponding = float(near.mean())
        if corresponding <= _MAX_CORRESPONDING:
            in_field = float(first.collections.geometry.contains(points).mean()) >= _MIN_COVERED
            additional.append(AdditionalFluid(candidate.center_lps, candidate.volume_ml, in_field))
    return MyelogramComparison(tuple(detections), tuple(additional), len(second.accepted))


def agreement(comparison: MyelogramComparison | None) -> MyelogramAgreement | None:
    """Return the comparison in the form of the report; None without a second myelogram."""
    if comparison is None:
        return None
    return MyelogramAgreement(
        n_collections=comparison.n_collections,
        n_confirmed=sum(one.agreement == "confirmed" for one in comparison.detections),
        n_additional=len(comparison.additional),
    )


def _agreement(covered: float, found: float, *, assessable: bool) -> Agreement:
    if covered < _MIN_COVERED:
        return "not covered"
    if found >= _MIN_FOUND:
        return "confirmed"
    return "not detected" if assessable else "not assessable"


def _voxels(segmentation: Segmentation, number: int) -> IntArray:
    return np.argwhere(segmentation.collections.array == number)


def _points(segmentation: Segmentation, number: int) -> FloatArray:
    return segmentation.collections.geometry.lps_from_kji(_voxels(segmentation, number))


def _fluid_ml(segmentation: Segmentation, number: int) -> FloatArray:
    fraction = segmentation.fluid_fraction
    values = fraction.array[tuple(_voxels(segmentation, number).T)]
    return np.asarray(values * fraction.geometry.voxel_volume_ml, np.float64)
