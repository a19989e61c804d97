"""Retrospinal fluid at C1-C2: a false localizing sign, which is not a collection with a level.

In spontaneous intracranial hypotension CSF-like fluid is found in the soft tissue between the
posterior arches of C1 and C2 in a third of the patients, also if the leak is thoracic or lumbar
(Schievink et al., J Neurosurg 2004;100:639).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.vocabulary import lateral_side
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import FloatArray, Geometry
from leakloc.levels.result import Levels, Vertebra
from leakloc.localization.canal import CanalVoxels, canal_voxels
from leakloc.localization.intracranial import rejected_as_cistern, renumbered
from leakloc.localization.result import FALSE_LOCALIZING, RETROSPINAL_FLUID, RetrospinalFluid
from leakloc.localization.surgical_bed import SurgicalBed
from leakloc.segmentation.classification import DIMMER
from leakloc.segmentation.components import assign_compartments
from leakloc.segmentation.result import Candidate, Segmentation
from leakloc.segmentation.supplied import distance_outside_mm

CRANIAL_MM: Final = 26.0
CAUDAL_MM: Final = 5.0
"""Range cranial and caudal to the middle of the C2 body: from the upper border of the posterior
arch of C1 to the upper part of the lamina of C2."""

POSTERIOR_MM: Final = 10.0
"""Minimum distance posterior to the centerline of voxels behind the canal, which is 16 to 20 mm
deep at C1."""

_MIN_CENTER_MM: Final = 8.0
"""Minimum distance posterior to the centerline of the center of a component."""

LATERAL_MM: Final = 25.0
"""Maximum lateral distance, that of the medial border of the lateral masses' posterior muscles."""

_MIN_DORSAL_RATIO: Final = 0.6
"""Minimum ratio of posterior to lateral offset of a component; root sleeves of C2 and effusions of
the lateral atlantoaxial joints are lateral."""

_MAX_LENGTH_MM: Final = 40.0
"""Maximum length of a component along the canal; veins and fat planes of the neck are longer."""

_MIN_THICKNESS_MM: Final = 2.5
"""Minimum thickness of a component; partial volume at the posterior border of the sac is thinner.
"""

_MAX_CRANIAL_FRACTION: Final = 0.1
"""Maximum fraction of a collection cranial to that range. The dorsal subarachnoid space at C1 is
continuous with the cisterna magna: on the PAM50 template (average of T2 images of 50 healthy
adults) half of such a component of 7.3 mL lies cranial to it."""


def without_retrospinal(
    segmentation: Segmentation, levels: Levels, settings: SegmentationSettings
) -> Segmentation:
    """Exclude retrospinal fluid at C1-C2 from the collections.

    A collection continuous with the cisterna magna, and with little fluid caudal to C1-C2, is
    rejected. Any other loses its voxels posterior to the canal at C1-C2, so that these influence
    neither its level nor its size; with little fluid caudal to C1-C2 it is rejected. The excluded
    parts, and retrospinal components that the segmentation rejected, become rejected candidates
    named `RETROSPINAL_FLUID`. Without a named C2 nothing changes.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels
    settings : SegmentationSettings
        Of the minimum volume of a collection, which is also that of retrospinal fluid.

    Returns
    -------
    Segmentation
        The remaining collections, renumbered from 1.
    """
    axis = _axis(levels)
    if axis is None:
        return segmentation
    axis_mm = float(segmentation.centerline.project(axis.center_lps)[0])
    segmentation = _without_cisterna_magna(segmentation, axis_mm, settings)
    remaining: list[Candidate] = []
    excluded: list[Candidate] = []
    labels = segmentation.collections.array.copy()
    for candidate in segmentation.candidates:
        if not candidate.accepted:
            fluid = _is_retrospinal(candidate, segmentation, axis_mm)
            (excluded if fluid else remaining).append(candidate)
            continue
        place = _Place.of(candidate, segmentation, axis_mm)
        if place.fraction == 0 or place.cranial > _MAX_CRANIAL_FRACTION:
            remaining.append(candidate)
        elif place.caudal * candidate.volume_ml < settings.collection_min_ml:
            excluded.append(replace(candidate, accepted=False))
        else:
            labels.ravel()[place.voxels.index[place.behind]] = 0
            excluded.append(_part(candidate, place))
            remaining.append(_remainder(candidate, place, segmentation))
    if sum(c.volume_ml for c in excluded) < settings.collection_min_ml:
        return segmentation
    separated = segmentation.collections.with_array(labels)
    return renumbered(
        replace(segmentation, collections=separated), (*remaining, *map(_named, excluded))
    )


def find_retrospinal(
    segmentation: Segmentation, levels: Levels, *, blind: bool
) -> RetrospinalFluid:
    """Return the retrospinal fluid of a segmentation from `without_retrospinal`.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels
    blind : bool
        Whether the input cannot distinguish fluid from other bright tissue.
    """
    axis = _axis(levels)
    if axis is None:
        unnamed = levels.status == "unlabelled"
        return _not_assessed("levels are not named" if unnamed else "C2 is not named")
    if blind:
        return _not_assessed("the study contains no fat-suppressed myelogram")
    found = [c for c in segmentation.candidates if not c.accepted and RETROSPINAL_FLUID in c.mimics]
    if found:
        return _present(found, segmentation, axis)
    if not _in_field(segmentation, axis):
        return _not_assessed("C1-C2 is not completely in the field of view")
    if segmentation.round_structures is None:
        return _not_assessed("fat or soft tissue is as bright as fluid, or masks were supplied")
    return RetrospinalFluid(present=False, confidence=axis.confidence)


def without_extensions(bed: SurgicalBed, segmentation: Segmentation, levels: Levels) -> SurgicalBed:
    """Return the surgical bed without posterior extensions that end in the retrospinal space."""
    axis, line = _axis(levels), segmentation.centerline
    if axis is None or not bed.extensions:
        return bed
    axis_mm = float(line.project(axis.center_lps)[0])
    kept = tuple(
        one for one in bed.extensions if not _is_behind(*line.project(one.end_lps), axis_mm)
    )
    return replace(bed, extensions=kept)


def _present(
    found: Sequence[Candidate], segmentation: Segmentation, axis: Vertebra
) -> RetrospinalFluid:
    weights = [c.volume_ml for c in found]
    center = np.average([c.center_lps for c in found], axis=0, weights=weights)
    left_mm = float(segmentation.centerline.project(center)[1])
    return RetrospinalFluid(
        present=True,
        volume_ml=sum(weights),
        side=lateral_side(left_mm),
        center_lps_mm=center,
        confidence=axis.confidence,
    )


def _not_assessed(reason: str) -> RetrospinalFluid:
    return RetrospinalFluid(present=None, confidence=0.0, not_assessed=reason)


def _axis(levels: Levels) -> Vertebra | None:
    return next((v for v in levels.vertebrae if v.name == "C2"), None)


def _in_field(segmentation: Segmentation, axis: Vertebra) -> bool:
    """Return whether the space between the posterior arches of C1 and C2 is in the images."""
    line = segmentation.centerline
    axis_mm = float(line.project(axis.center_lps)[0])
    arcs = axis_mm + np.array([-CRANIAL_MM, 0.0])
    tangents, lefts, dorsals = line.frame_at(arcs)
    on_line = line.at(arcs) + np.minimum(arcs, 0.0)[:, None] * tangents
    points = [
        on_line + left_mm * lefts + dorsal_mm * dorsals
        for left_mm in (-LATERAL_MM / 2, LATERAL_MM / 2)
        for dorsal_mm in (POSTERIOR_MM, LATERAL_MM)
    ]
    return bool(segmentation.collections.geometry.contains(np.concatenate(points)).all())


def _without_cisterna_magna(
    segmentation: Segmentation, axis_mm: float, settings: SegmentationSettings
) -> Segmentation:
    """Reject collections posterior to the canal at C1-C2 that are continuous with a cistern."""
    candidates = []
    for candidate in segmentation.candidates:
        if candidate.accepted:
            place = _Place.of(candidate, segmentation, axis_mm)
            is_short = place.caudal * candidate.volume_ml < settings.collection_min_ml
            if is_short and place.fraction > 0 and place.cranial > _MAX_CRANIAL_FRACTION:
                candidate = rejected_as_cistern(candidate, "continuous with fluid cranial to C1")
        candidates.append(candidate)
    if candidates == list(segmentation.candidates):
        return segmentation
    return renumbered(segmentation, candidates)


@dataclass(frozen=True, eq=False)
class _Place:
    """Voxels of a collection, which of them are retrospinal, and fractions of its fluid."""

    voxels: CanalVoxels
    behind: npt.NDArray[np.bool_]
    fraction: float
    """Of retrospinal fluid."""
    cranial: float
    """Cranial to C1-C2."""
    caudal: float
    """Caudal to C1-C2."""

    @classmethod
    def of(cls, candidate: Candidate, segmentation: Segmentation, axis_mm: float) -> _Place:
        voxels = canal_voxels(
            np.flatnonzero(segmentation.collections.array == candidate.id),
            segmentation.collections.geometry,
            segmentation.fluid_fraction.array,
            segmentation.centerline,
        )
        behind = _is_behind(voxels.arc_mm, voxels.left_mm, voxels.dorsal_mm, axis_mm)
        at_mm = voxels.arc_mm - axis_mm
        behind = _with_neck(voxels, behind, at_mm > CAUDAL_MM, segmentation.collections.geometry)
        total = max(float(voxels.fluid.sum()), 1e-9)
        fractions = (
            float(voxels.fluid[where].sum()) / total
            for where in (behind, at_mm < -CRANIAL_MM, at_mm > CAUDAL_MM)
        )
        return cls(voxels, behind, *fractions)


def _with_neck(
    voxels: CanalVoxels,
    behind: npt.NDArray[np.bool_],
    is_caudal: npt.NDArray[np.bool_],
    geometry: Geometry,
) -> npt.NDArray[np.bool_]:
    """Add voxels connected with the retrospinal fluid, but without it not with caudal fluid."""
    if not behind.any():
        return behind
    whole = np.stack(np.unravel_index(voxels.index, geometry.shape))
    kji = tuple(whole - whole.min(axis=1, keepdims=True))
    retrospinal, rest = np.zeros((2, *(axis.max() + 1 for axis in kji)), bool)
    retrospinal[kji] = behind
    rest[kji] = ~behind
    neighbors = np.ones((3, 3, 3), bool)
    number = ndimage.label(rest, neighbors)[0][kji]
    touching = number[ndimage.binary_dilation(retrospinal, neighbors)[kji] & ~behind]
    neck = np.setdiff1d(touching, number[is_caudal & ~behind])
    return np.asarray(behind | np.isin(number, neck[neck > 0]))


def _is_behind(
    arc_mm: FloatArray, left_mm: FloatArray, dorsal_mm: FloatArray, axis_mm: float
) -> npt.NDArray[np.bool_]:
    at_mm = arc_mm - axis_mm
    return np.asarray(
        (at_mm >= -CRANIAL_MM)
        & (at_mm <= CAUDAL_MM)
        & (dorsal_mm >= POSTERIOR_MM)
        & (np.abs(left_mm) <= LATERAL_MM)
    )


def _is_retrospinal(candidate: Candidate, segmentation: Segmentation, axis_mm: float) -> bool:
    """Return whether a rejected candidate is retrospinal fluid by place, size and signal."""
    f = candidate.features
    if f is None or segmentation.round_structures is None:
        return False
    place = segmentation.centerline.project(candidate.center_lps)
    arc_mm, left_mm, dorsal_mm = (float(mm) for mm in place)
    placed = -CRANIAL_MM <= arc_mm - axis_mm <= CAUDAL_MM
    placed &= dorsal_mm >= max(_MIN_CENTER_MM, _MIN_DORSAL_RATIO * abs(left_mm))
    placed &= f.arc_start_mm >= axis_mm - CRANIAL_MM  # others are continuous with a cistern
    small = f.length_mm <= _MAX_LENGTH_MM and f.reach_left_mm <= LATERAL_MM
    return bool(placed and small and f.thickness_mm >= _MIN_THICKNESS_MM and f.brightness >= DIMMER)


def _named(candidate: Candidate) -> Candidate:
    return replace(
        candidate,
        mimics=(RETROSPINAL_FLUID, *candidate.mimics),
        reason=f"Posterior to the canal at C1-C2; {FALSE_LOCALIZING}.",
    )


def _remainder(candidate: Candidate, place: _Place, segmentation: Segmentation) -> Candidate:
    """Return a collection without its retrospinal part."""
    voxels = place.voxels.where(~place.behind)
    outside = distance_outside_mm(segmentation.thecal_sac).ravel()[voxels.index]
    fluid_ml = voxels.fluid * voxels.voxel_mm3 / 1000
    # Measurements on other series are identified by the center, which is kept.
    return replace(
        candidate,
        volume_ml=(1 - place.fraction) * candidate.volume_ml,
        compartments=assign_compartments(voxels.left_mm, voxels.dorsal_mm, outside, fluid_ml),
    )


def _part(candidate: Candidate, place: _Place) -> Candidate:
    """Return the retrospinal part of a collection as a rejected candidate."""
    voxels = place.voxels.where(place.behind)
    return replace(
        candidate,
        accepted=False,
        volume_ml=place.fraction * candidate.volume_ml,
        center_lps=np.average(voxels.points_lps, axis=0, weights=np.maximum(voxels.fluid, 1e-3)),
        features=None,
    )
