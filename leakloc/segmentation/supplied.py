"""A segmenter that takes the thecal sac or the fluid from supplied masks.

Manually corrected masks are processed by numbering, localization and reporting. Masks that are
not supplied come from another segmenter, as do the measures of signal and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.distances import signed_distance_mm
from leakloc.core.errors import AnalysisError, InputError
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray, Volume
from leakloc.loaders.masks import put_on_grid
from leakloc.segmentation.components import (
    CanalExtent,
    assign_compartments,
    count_sectors,
    group_extents,
    rim_ml,
)
from leakloc.segmentation.result import Candidate, Segmentation, Segmenter
from leakloc.segmentation.segment import canal_and_fluid, segment

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SUPPLIED_PROBABILITY: Final = 0.98
"""Probability of a manually drawn collection; the maximum that leakloc assigns to its own."""
SUPPLIED_REASON: Final = "Drawn in the supplied fluid mask."

_BRIGHT: Final = 0.5
"""Fluid fraction above which a voxel counts as fluid."""
_BRIGHT_SAC_FRACTION: Final = 0.3
"""Minimum fraction of bright voxels in a sac; cord and roots fill less than half of it."""
_BRIGHT_PERCENTILE: Final = 75.0
"""Percentile of the signal that determines whether a collection is visible; rims have partial
volume."""
_ON_LINE_FRACTION: Final = 0.95
"""Minimum fraction of the traced centerline inside the supplied sac for which the trace is kept
unchanged."""
_JOIN_MM: Final = 15.0
"""The traced centerline is continued beyond the end of a supplied sac if it passes this close (a
sac width)."""
_SMOOTHING_MM: Final = 7.0
"""Sigma of the Gaussian along a centerline through the center of a sac; the radius of curvature of
the canal is more than 50 mm."""
_MIN_SAC_MM: Final = 20.0
"""Minimum length of a supplied sac: less than one vertebra."""
_SAC_PERCENTILE: Final = 90.0
"""Percentile that represents pure CSF within a sac that also contains cord and roots."""

_SAC_FRACTION: Final = 0.5
"""Fraction of a label in the thecal sac above which it is not epidural fluid."""
_MAX_DIM_ML: Final = 5.0
"""Maximum volume of dim fluid among several labels; vertebral bodies have 10 mL and more."""


@dataclass(frozen=True, eq=False)
class SuppliedMasks:
    """A segmenter with a supplied sac, supplied fluid, or both.

    Parameters
    ----------
    sac : Volume, optional
        Everything inside the dura, as one label on any grid in the patient space of the myelogram.
    fluid : Volume, optional
        Epidural fluid. Each of several labels is one collection; a single label is split into
        connected components, and components close along the canal on the same side are one
        collection. An empty mask means that there is no fluid.
    base : Segmenter
        Provides masks that are not supplied, the fluid fraction and the noise.
    sac_label : int, optional
        Label of the sac in `sac`, if it contains several.
    is_fluid_selected : bool
        Whether the labels of `fluid` were selected by the user or by their codes. Otherwise several
        labels are rejected if one of them is another structure, such as the sac or a vertebra.

    Notes
    -----
    The volume of a collection accounts for partial volume where its signal is that of fluid; a
    collection drawn on dim signal is counted by whole voxels, with a warning.
    """

    sac: Volume | None
    fluid: Volume | None
    base: Segmenter
    sac_label: int | None = None
    is_fluid_selected: bool = False

    def __call__(
        self, spine: Spine, companions: Mapping[Role, Volume], settings: SegmentationSettings
    ) -> Segmentation:
        """Segment a myelogram.

        Raises
        ------
        InputError
            If a mask does not fit the myelogram, or its labels are ambiguous.
        AnalysisError
            If a mask that is not supplied cannot be computed.
        """
        notes: list[Note] = []
        sac = self._sac(spine.myelogram, notes)
        fluid = None
        if self.fluid is not None:
            fluid, fluid_notes = put_on_grid(self.fluid, spine.myelogram.geometry, "fluid mask")
            notes += [note("fluid_given"), *fluid_notes]
        result = self._found(spine, companions, settings, sac)
        if fluid is not None and not self.is_fluid_selected:
            _require_fluid(fluid, result, result.thecal_sac if sac is None else sac)
        if sac is not None:
            result = _with_sac(result, sac, fluid is None, settings, notes)
        if fluid is not None:
            result = _with_fluid(result, fluid, settings, notes)
        # Masks other than those in which round structures were searched.
        return replace(result, notes=(*result.notes, *notes), round_structures=None)

    def _sac(self, myelogram: Volume, notes: list[Note]) -> Volume | None:
        if self.sac is None:
            return None
        labels = np.unique(self.sac.array[self.sac.array > 0])
        if self.sac_label is not None and self.sac_label not in labels:
            raise InputError(f"the sac mask has no label {self.sac_label}: {_listed(labels)}")
        if self.sac_label is None and len(labels) > 1:
            raise InputError(
                f"the sac mask contains {len(labels)} labels ({_listed(labels)}): specify that of "
                "the sac with --sac-label"
            )
        wanted = int(labels[0]) if self.sac_label is None else self.sac_label
        mask = self.sac.with_array((self.sac.array == wanted).astype(np.uint8))
        sac, grid_notes = put_on_grid(mask, myelogram.geometry, "sac mask")
        notes += [note("sac_given"), *grid_notes]
        return sac

    def _found(
        self,
        spine: Spine,
        companions: Mapping[Role, Volume],
        settings: SegmentationSettings,
        sac: Volume | None,
    ) -> Segmentation:
        # Segmentation of sac and fluid is not needed if both are supplied.
        complete = sac is not None and self.fluid is not None
        base = canal_and_fluid if complete and self.base is segment else self.base
        try:
            return base(spine, companions, settings)
        except AnalysisError:
            if sac is None or self.fluid is None:
                raise
            return _from_sac(spine.myelogram, sac)


def _listed(labels: npt.NDArray[np.integer], maximum: int = 8) -> str:
    shown = ", ".join(str(int(n)) for n in labels[:maximum])
    return shown if len(labels) <= maximum else f"{shown}, ..."


def _require_fluid(fluid: Volume, found: Segmentation, sac: Volume) -> None:
    """Reject a mask with several labels if one of them is another structure than fluid."""
    values = np.unique(fluid.array[fluid.array > 0])
    if len(values) < 2:
        return
    other = []
    for value in values:
        here = fluid.array == value
        fraction = found.fluid_fraction.array[here]
        is_dim = np.percentile(fraction, _BRIGHT_PERCENTILE) < _BRIGHT
        volume_ml = float(here.sum()) * fluid.geometry.voxel_volume_ml
        if (sac.array[here] > 0).mean() > _SAC_FRACTION or (is_dim and volume_ml > _MAX_DIM_ML):
            other.append(int(value))
    if other:
        raise InputError(
            f"the fluid mask contains {len(values)} labels ({_listed(values)}), of which "
            f"{_listed(np.array(other))} are not epidural fluid on the myelogram: select those of "
            "the fluid with --fluid-label"
        )


def _from_sac(myelogram: Volume, sac: Volume) -> Segmentation:
    """Measure with the sac alone if no canal was detected on the myelogram."""
    inside = sac.array > 0
    csf = float(np.percentile(myelogram.array[inside], _SAC_PERCENTILE))
    if not np.isfinite(csf) or csf <= 0:
        raise AnalysisError("the supplied sac has no signal on the myelogram: is the mask correct?")
    fraction = np.clip(myelogram.array / np.float32(csf), 0, 1).astype(np.float32)
    outside = myelogram.array[~inside & (myelogram.array > 0)]
    spread = float(np.median(np.abs(outside - np.median(outside)))) if outside.size else 0.0
    empty = sac.with_array(np.zeros_like(sac.array))
    return Segmentation(
        fluid_fraction=Volume(fraction, myelogram.geometry, myelogram.provenance),
        centerline=_line_through(sac),
        thecal_sac=sac,
        collections=empty,
        candidates=(),
        fat_suppressed=None,
        csf_signal=csf,
        noise=1.4826 * spread,
        notes=(note("canal_not_found"),),
    )


def _with_sac(
    found: Segmentation,
    sac: Volume,
    keep_fluid: bool,
    settings: SegmentationSettings,
    notes: list[Note],
) -> Segmentation:
    inside = sac.array > 0
    bright = float((found.fluid_fraction.array[inside] >= _BRIGHT).mean())
    if bright < _BRIGHT_SAC_FRACTION:
        notes.append(note("sac_mask_dim", fraction=bright))
    result = replace(found, thecal_sac=sac, centerline=_line_with(found.centerline, sac))
    if not keep_fluid:
        return result
    components = found.collections.array.copy()
    components[inside] = 0
    return _without_sac_fluid(result, found, components, settings)


def _without_sac_fluid(
    result: Segmentation, found: Segmentation, components: Labels, settings: SegmentationSettings
) -> Segmentation:
    """Remove fluid inside the supplied sac from the collections and renumber them by volume."""
    unit = found.fluid_fraction.geometry.voxel_volume_ml
    fraction = found.fluid_fraction.array
    before = np.bincount(found.collections.array.ravel(), fraction.ravel(), 256)
    after = np.bincount(components.ravel(), fraction.ravel(), 256)
    kept: list[Candidate] = []
    rejected = [c for c in found.candidates if not c.accepted]
    for candidate in found.accepted:
        left = float(after[candidate.id] / before[candidate.id]) if before[candidate.id] else 0.0
        volume = candidate.volume_ml * left
        if volume < settings.collection_min_ml:
            reason = "Lies inside the supplied sac."
            rejected.append(replace(candidate, id=0, accepted=False, probability=0.0,
                                    volume_ml=float(before[candidate.id]) * unit,
                                    reason=reason))  # fmt: skip
        elif left < 1.0:
            voxels = np.nonzero(components == candidate.id)
            kept.append(replace(candidate, volume_ml=volume, center_lps=_center(voxels, found)))
        else:
            kept.append(candidate)
    return _renumbered(result, components, kept, rejected)


def _renumbered(
    result: Segmentation, components: Labels, kept: list[Candidate], rejected: list[Candidate]
) -> Segmentation:
    lookup = np.zeros(256, np.uint8)
    numbered = []
    for number, candidate in enumerate(sorted(kept, key=lambda c: -c.volume_ml), start=1):
        lookup[candidate.id] = number
        numbered.append(replace(candidate, id=number))
    collections = Volume(
        lookup[components], result.collections.geometry, result.collections.provenance
    )
    return replace(result, collections=collections, candidates=(*numbered, *rejected))


def _with_fluid(
    found: Segmentation, fluid: Volume, settings: SegmentationSettings, notes: list[Note]
) -> Segmentation:
    """Use the supplied fluid as collections; voxels in both masks are removed from the sac."""
    supplied = fluid.array > 0
    both = supplied & (found.thecal_sac.array > 0)
    sac = found.thecal_sac
    if both.any():
        sac = sac.with_array(np.where(both, 0, sac.array).astype(np.uint8), "fluid removed")
        notes.append(note("masks_overlap", fraction=float(both.sum() / supplied.sum())))
    components = _collections(fluid, found.centerline, settings, notes)
    result = replace(found, thecal_sac=sac, fluid_fraction=_shown(found, components, notes))
    outside = distance_outside_mm(sac)
    drawn = [
        drawn_candidate(int(n), components, result, outside)
        for n in np.unique(components[components > 0])
    ]
    left_out = []
    for candidate in found.accepted:
        if not supplied[found.collections.array == candidate.id].any():
            reason = "Segmented by leakloc, but not part of the supplied fluid mask."
            left_out.append(
                replace(candidate, id=0, accepted=False, probability=0.0, reason=reason)
            )
    # Everything was reviewed manually: excluded candidates do not add uncertainty.
    others = [replace(c, probability=0.0) for c in found.candidates if not c.accepted]
    return _renumbered(result, components, drawn, [*left_out, *others])


def _collections(
    fluid: Volume, line: Centerline, settings: SegmentationSettings, notes: list[Note]
) -> Labels:
    """Return ids from 1, one per label value, or per group of components of a single value."""
    values = np.unique(fluid.array[fluid.array > 0])
    if len(values) > 255:
        raise InputError(f"the fluid mask contains {len(values)} labels; the maximum is 255")
    if len(values) != 1:
        return np.searchsorted(values, fluid.array, side="right").astype(np.uint8) * (
            fluid.array > 0
        )
    labeled, count = ndimage.label(fluid.array > 0, np.ones((3, 3, 3), bool))
    groups = np.zeros(count + 1, np.int32)
    groups[1:] = group_parts(labeled, fluid, line, settings)
    sizes = np.bincount(groups[labeled][labeled > 0])
    order = np.argsort(-sizes[1:]) + 1
    lookup = np.zeros(len(sizes), np.uint8)
    lookup[order[:255]] = np.arange(1, min(len(order), 255) + 1)
    if len(order) > 255:
        notes.append(note("too_many_pieces", count=len(order)))
    return np.asarray(lookup[groups[labeled]], np.uint8)


def group_parts(
    labeled: npt.NDArray[np.int32],
    fluid: Volume,
    line: Centerline,
    settings: SegmentationSettings,
) -> npt.NDArray[np.int32]:
    """Return the group of each connected component, from 1."""
    extents = []
    for number, box in enumerate(ndimage.find_objects(labeled), start=1):
        voxels = np.argwhere(labeled[box] == number) + [part.start for part in box]
        arc, left, dorsal = line.project(fluid.geometry.lps_from_kji(voxels))
        angle = float(np.arctan2(dorsal.mean(), left.mean()))
        sectors = count_sectors(left, dorsal, np.full(len(arc), 1 / len(arc)))
        extents.append(CanalExtent(float(arc.min()), float(arc.max()), angle, sectors))
    return group_extents(extents, settings.collection_gap_mm) + 1


def _shown(found: Segmentation, components: Labels, notes: list[Note]) -> Volume:
    """Return the fluid fraction, with collections on dim signal counted as whole voxels."""
    fraction = found.fluid_fraction.array
    dim = []
    for number in np.unique(components[components > 0]):
        here = components == number
        if np.percentile(fraction[here], _BRIGHT_PERCENTILE) < _BRIGHT:
            dim.append((int(number), float(fraction[here].mean())))
            fraction = np.where(here, np.float32(1.0), fraction)
    if not dim:
        return found.fluid_fraction
    listed = ", ".join(f"{mean:.0%}" for _, mean in dim[:5])
    notes.append(note("given_fluid_dim", count=len(dim), fractions=listed))
    return found.fluid_fraction.with_array(fraction, "supplied fluid counted as whole voxels")


def drawn_candidate(
    number: int, components: Labels, result: Segmentation, outside: npt.NDArray[np.float32]
) -> Candidate:
    """Return the accepted candidate of a manually drawn collection.

    Parameters
    ----------
    number : int
        Its value in `components`.
    components : ndarray
        Collection ids on the grid of `result`.
    result : Segmentation
        Fluid fraction and centerline.
    outside : ndarray
        Distance from the sac in mm (`distance_outside_mm`).
    """
    voxels = np.nonzero(components == number)
    fraction = result.fluid_fraction.array[voxels].astype(np.float64)
    geometry = result.fluid_fraction.geometry
    volume = float(fraction.sum()) * geometry.voxel_volume_ml
    volume += rim_ml(voxels, result.fluid_fraction, outside > 0.0)
    _, left, dorsal = result.centerline.project(geometry.lps_from_kji(np.stack(voxels, axis=1)))
    return Candidate(
        id=number,
        accepted=True,
        probability=SUPPLIED_PROBABILITY,
        volume_ml=volume,
        center_lps=_center(voxels, result),
        reason=SUPPLIED_REASON,
        mimics=(),
        compartments=assign_compartments(
            left, dorsal, outside[voxels], fraction * geometry.voxel_volume_ml
        ),
    )


def _center(voxels: tuple[npt.NDArray[np.intp], ...], result: Segmentation) -> FloatArray:
    weight = np.maximum(result.fluid_fraction.array[voxels].astype(np.float64), 1e-3)
    center = np.average(np.stack(voxels, axis=1), axis=0, weights=weight)
    return result.fluid_fraction.geometry.lps_from_kji(center)


def distance_outside_mm(sac: Volume) -> npt.NDArray[np.float32]:
    """Return the distance from the sac, 0 inside it."""
    distance = signed_distance_mm(sac.array, sac.geometry.spacing_kji_mm)
    return np.maximum(distance, np.float32(0))


def _line_with(traced: Centerline, sac: Volume) -> Centerline:
    """Return the traced centerline if it lies in the supplied sac, else one through the sac."""
    inside = sac.sample(traced.points_lps, order=0) > 0
    z = traced.points_lps[:, 2]
    low, high = _extent_z(sac)
    alongside = (z >= low) & (z <= high)
    if alongside.any() and inside[alongside].mean() >= _ON_LINE_FRACTION:
        return traced
    through = _line_through(sac)
    ends = through.points_lps[[0, -1]]
    arcs, left, dorsal = traced.project(ends)
    near = np.hypot(left, dorsal) < _JOIN_MM
    head = traced.points_lps[traced.arc_mm < arcs[0]] if near[0] else traced.points_lps[:0]
    tail = traced.points_lps[traced.arc_mm > arcs[1]] if near[1] else traced.points_lps[:0]
    return Centerline.smoothed(
        np.concatenate([head, through.points_lps, tail]), smoothing_mm=_SMOOTHING_MM
    )


def _extent_z(sac: Volume) -> tuple[float, float]:
    z = sac.geometry.lps_from_kji(np.argwhere(sac.array > 0))[:, 2]
    return float(z.min()), float(z.max())


def _line_through(sac: Volume) -> Centerline:
    """Return the centerline of the sac from cranial to caudal, plane by plane."""
    turned = sac.oriented("LPS")
    planes = np.flatnonzero(turned.array.any(axis=(1, 2)))[::-1]
    middles = np.array(
        [[k, *np.argwhere(turned.array[k] > 0).mean(axis=0)] for k in planes], dtype=np.float64
    )
    if np.ptp(middles[:, 0]) * turned.geometry.spacing_kji_mm[0] < _MIN_SAC_MM:
        raise AnalysisError(
            f"the supplied sac is less than {_MIN_SAC_MM:.0f} mm long and is not a thecal sac; "
            "was the fluid mask supplied instead?"
        )
    points = turned.geometry.lps_from_kji(middles)
    return Centerline.smoothed(points, smoothing_mm=_SMOOTHING_MM)
