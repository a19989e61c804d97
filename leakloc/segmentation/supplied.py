"""A segmenter that takes the sac or the fluid from masks made elsewhere.

Hand-corrected masks go back through numbering, localization and reporting. What is not given
comes from another segmenter, as do the measures of signal and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import Compartment, Role
from leakloc.core.errors import AnalysisError, InputError
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.collections import rim_ml
from leakloc.segmentation.result import Candidate, Segmentation, Segmenter
from leakloc.segmentation.segment import canal_and_fluid, segment

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SUPPLIED_PROBABILITY: Final = 0.98
"""How sure a collection is that a person drew; the highest that leakloc gives its own."""
SUPPLIED_REASON: Final = "Drawn in the fluid mask that was given."

_BRIGHT: Final = 0.5
"""Fluid fraction from which a voxel is rather fluid than not."""
_BRIGHT_SAC_FRACTION: Final = 0.3
"""Least share of bright voxels in a sac: cord and roots fill less than half of it."""
_BRIGHT_PERCENTILE: Final = 75.0
"""The brighter part of a collection tells whether it shows; rims hold partial volume."""
_ON_LINE_FRACTION: Final = 0.95
"""Share of the traced canal inside the given sac from which the trace stands as it is."""
_JOIN_MM: Final = 15.0
"""The traced canal goes on from the end of a given sac where it passes this close (a sac width)."""
_SMOOTHING_MM: Final = 7.0
"""Gaussian along a centreline through the middle of a sac; the canal bends over > 50 mm."""
_MIN_SAC_MM: Final = 20.0
"""A shorter sac is no canal: less than one vertebra."""
_SAC_PERCENTILE: Final = 90.0
"""Signal of pure CSF within a sac that also holds cord and roots."""

_EPIDURAL_MM: Final = 9.0
"""Depth of the epidural space outside the dura, with its widest dorsal recess."""
_CANAL_HALF_WIDTH_MM: Final = 14.0
_FORAMEN_MM: Final = (12.0, 30.0)
"""A foramen reaches from the canal's lateral wall to beyond the joints, left or right."""
_FORAMEN_DEPTH_MM: Final = 14.0
_SKIN_FAT_MM: Final = 50.0
"""Behind the canal by more than laminae and muscles in slim adults: fat under the skin."""
_PLACE_ML: Final = 0.2
"""Fluid in a compartment that counts; less only where it is half of the collection."""


@dataclass(frozen=True, eq=False)
class SuppliedMasks:
    """A segmenter with the sac, the fluid, or both given.

    Parameters
    ----------
    sac : Volume, optional
        Everything the dura encloses: one label, on any grid in the myelogram's space.
    fluid : Volume, optional
        Extradural fluid. Several labels are one collection each; a single label is taken
        apart into connected pieces, and pieces close along the canal on the same side are
        one collection. A mask without any label says that there is no fluid.
    base : Segmenter
        Gives what is not given, the fluid fraction and the noise.
    sac_label : int, optional
        Which label of `sac` is the sac, where it holds several.

    Notes
    -----
    The volume of a collection counts partial volume where its signal is that of fluid; a
    collection drawn on dim signal is counted by whole voxels, with a note.
    """

    sac: Volume | None
    fluid: Volume | None
    base: Segmenter
    sac_label: int | None = None

    def __call__(
        self,
        myelogram: Volume,
        companions: Mapping[Role, Volume],
        settings: SegmentationSettings,
    ) -> Segmentation:
        """Segment a myelogram.

        Raises
        ------
        InputError
            If a mask does not fit the myelogram, or its labels are not clear.
        AnalysisError
            If what is not given cannot be found.
        """
        notes: list[Note] = []
        sac = self._sac(myelogram, notes)
        fluid = None
        if self.fluid is not None:
            from leakloc.loaders.masks import put_on_grid

            fluid, fluid_notes = put_on_grid(self.fluid, myelogram.geometry, "fluid mask")
            notes += [Note("fluid_given", "the extradural fluid was taken from a mask that was "
                           "given, not found by leakloc"), *fluid_notes]  # fmt: skip
        result = self._found(myelogram, companions, settings, sac)
        if sac is not None:
            result = _with_sac(result, sac, fluid is None, settings, notes)
        if fluid is not None:
            result = _with_fluid(result, fluid, settings, notes)
        return replace(result, notes=(*result.notes, *notes))

    def _sac(self, myelogram: Volume, notes: list[Note]) -> Volume | None:
        if self.sac is None:
            return None
        labels = np.unique(self.sac.array[self.sac.array > 0])
        if self.sac_label is not None and self.sac_label not in labels:
            raise InputError(f"the sac mask holds no label {self.sac_label}: {_listed(labels)}")
        if self.sac_label is None and len(labels) > 1:
            raise InputError(
                f"the sac mask holds {len(labels)} labels ({_listed(labels)}): say which is the "
                "sac with --sac-label"
            )
        wanted = int(labels[0]) if self.sac_label is None else self.sac_label
        mask = self.sac.with_array((self.sac.array == wanted).astype(np.uint8))
        from leakloc.loaders.masks import put_on_grid

        sac, grid_notes = put_on_grid(mask, myelogram.geometry, "sac mask")
        text = "the thecal sac was taken from a mask that was given, not found by leakloc"
        notes += [Note("sac_given", text), *grid_notes]
        return sac

    def _found(
        self,
        myelogram: Volume,
        companions: Mapping[Role, Volume],
        settings: SegmentationSettings,
        sac: Volume | None,
    ) -> Segmentation:
        # leakloc's own sac and fluid are not worth their time where both are given.
        complete = sac is not None and self.fluid is not None
        base = canal_and_fluid if complete and self.base is segment else self.base
        try:
            return base(myelogram, companions, settings)
        except AnalysisError:
            if sac is None or self.fluid is None:
                raise
            return _from_sac(myelogram, sac)


def _listed(labels: npt.NDArray[np.integer], most: int = 8) -> str:
    shown = ", ".join(str(int(n)) for n in labels[:most])
    return shown if len(labels) <= most else f"{shown}, ..."


def _from_sac(myelogram: Volume, sac: Volume) -> Segmentation:
    """What can be measured with the sac alone, where no canal was found on the myelogram."""
    inside = sac.array > 0
    csf = float(np.percentile(myelogram.array[inside], _SAC_PERCENTILE))
    if not np.isfinite(csf) or csf <= 0:
        raise AnalysisError("the given sac shows no signal on the myelogram: is it the right mask?")
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
        notes=(
            Note(
                "canal_not_found",
                "leakloc found no canal on the myelogram; the way along it follows the given sac.",
            ),
        ),
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
        notes.append(
            Note(
                "sac_mask_dim",
                f"only {bright:.0%} of the given sac is as bright as fluid on the myelogram: check "
                "that it belongs to this study and that its sides are right",
            )
        )
    result = replace(found, thecal_sac=sac, centerline=_line_with(found.centerline, sac))
    if not keep_fluid:
        return result
    pieces = found.collections.array.copy()
    pieces[inside] = 0
    return _kept(result, found, pieces, settings)


def _kept(
    result: Segmentation, found: Segmentation, pieces: Labels, settings: SegmentationSettings
) -> Segmentation:
    """Collections less what the given sac encloses; ids by falling volume again."""
    unit = found.fluid_fraction.geometry.voxel_volume_ml
    fraction = found.fluid_fraction.array
    before = np.bincount(found.collections.array.ravel(), fraction.ravel(), 256)
    after = np.bincount(pieces.ravel(), fraction.ravel(), 256)
    kept: list[Candidate] = []
    rejected = [c for c in found.candidates if not c.accepted]
    for candidate in found.accepted:
        left = float(after[candidate.id] / before[candidate.id]) if before[candidate.id] else 0.0
        volume = candidate.volume_ml * left
        if volume < settings.collection_min_ml:
            reason = "Lies inside the sac that was given."
            rejected.append(replace(candidate, id=0, accepted=False, probability=0.0,
                                    volume_ml=float(before[candidate.id]) * unit,
                                    reason=reason))  # fmt: skip
        elif left < 1.0:
            voxels = np.nonzero(pieces == candidate.id)
            kept.append(replace(candidate, volume_ml=volume, center_lps=_center(voxels, found)))
        else:
            kept.append(candidate)
    return _renumbered(result, pieces, kept, rejected)


def _renumbered(
    result: Segmentation, pieces: Labels, kept: list[Candidate], rejected: list[Candidate]
) -> Segmentation:
    lookup = np.zeros(256, np.uint8)
    numbered = []
    for number, candidate in enumerate(sorted(kept, key=lambda c: -c.volume_ml), start=1):
        lookup[candidate.id] = number
        numbered.append(replace(candidate, id=number))
    collections = Volume(lookup[pieces], result.collections.geometry, result.collections.provenance)
    return replace(result, collections=collections, candidates=(*numbered, *rejected))


def _with_fluid(
    found: Segmentation, fluid: Volume, settings: SegmentationSettings, notes: list[Note]
) -> Segmentation:
    """The given fluid as collections; it is cut out of the sac where both claim a voxel."""
    given = fluid.array > 0
    both = given & (found.thecal_sac.array > 0)
    sac = found.thecal_sac
    if both.any():
        sac = sac.with_array(np.where(both, 0, sac.array).astype(np.uint8), "given fluid cut out")
        share = float(both.sum() / given.sum())
        text = f"{share:.0%} of the given fluid lay inside the sac and was counted as fluid"
        notes.append(Note("masks_overlap", text))
    pieces = _collections(fluid, found.centerline, settings, notes)
    result = replace(found, thecal_sac=sac, fluid_fraction=_shown(found, pieces, notes))
    outside = _outside_mm(sac)
    drawn = [_drawn(int(n), pieces, result, outside) for n in np.unique(pieces[pieces > 0])]
    left_out = []
    for candidate in found.accepted:
        if not given[found.collections.array == candidate.id].any():
            reason = "Found by leakloc, but left out of the fluid mask that was given."
            left_out.append(
                replace(candidate, id=0, accepted=False, probability=0.0, reason=reason)
            )
    # A person looked at all of it: what was left out raises no doubt.
    others = [replace(c, probability=0.0) for c in found.candidates if not c.accepted]
    return _renumbered(result, pieces, drawn, [*left_out, *others])


def _collections(
    fluid: Volume, line: Centerline, settings: SegmentationSettings, notes: list[Note]
) -> Labels:
    """Ids from 1, one per label value, or per connected piece where there is one value."""
    values = np.unique(fluid.array[fluid.array > 0])
    if len(values) > 255:
        raise InputError(f"the fluid mask holds {len(values)} labels: at most 255 collections fit")
    if len(values) != 1:
        return np.searchsorted(values, fluid.array, side="right").astype(np.uint8) * (
            fluid.array > 0
        )
    labelled, count = _connected(fluid)
    groups = _grouped(labelled, count, fluid, line, settings)
    sizes = np.bincount(groups[labelled][labelled > 0])
    order = np.argsort(-sizes[1:]) + 1
    lookup = np.zeros(len(sizes), np.uint8)
    lookup[order[:255]] = np.arange(1, min(len(order), 255) + 1)
    if len(order) > 255:
        text = f"the given fluid has {len(order)} pieces; the 255 largest were used"
        notes.append(Note("too_many_pieces", text))
    return np.asarray(lookup[groups[labelled]], np.uint8)


def _connected(fluid: Volume) -> tuple[npt.NDArray[np.int32], int]:
    from scipy import ndimage

    labelled, count = ndimage.label(fluid.array > 0, np.ones((3, 3, 3), bool))
    return labelled, int(count)


def _grouped(
    labelled: npt.NDArray[np.int32],
    count: int,
    fluid: Volume,
    line: Centerline,
    settings: SegmentationSettings,
) -> npt.NDArray[np.int32]:
    """Group number of each piece: close along the canal on one side of it, as for found ones."""
    places = np.argwhere(labelled)
    piece = labelled[tuple(places.T)]
    arc, left, dorsal = line.project(fluid.geometry.lps_from_kji(places))
    spans = np.array([[arc[piece == n].min(), arc[piece == n].max()] for n in range(1, count + 1)])
    sides = np.array(
        [
            np.arctan2(dorsal[piece == n].mean(), left[piece == n].mean())
            for n in range(1, count + 1)
        ]
    )
    groups = np.arange(count + 1, dtype=np.int32)
    for a in range(count):
        for b in range(a):
            gap = max(spans[a, 0], spans[b, 0]) - min(spans[a, 1], spans[b, 1])
            apart = abs((sides[a] - sides[b] + np.pi) % (2 * np.pi) - np.pi)
            if gap <= settings.collection_gap_mm and apart < np.pi / 2:
                groups[groups == groups[a + 1]] = groups[b + 1]
    return np.asarray(np.unique(groups, return_inverse=True)[1], np.int32)


def _shown(found: Segmentation, pieces: Labels, notes: list[Note]) -> Volume:
    """The fluid fraction, with collections drawn on dim signal counted as whole voxels."""
    fraction = found.fluid_fraction.array
    dim = []
    for number in np.unique(pieces[pieces > 0]):
        here = pieces == number
        if np.percentile(fraction[here], _BRIGHT_PERCENTILE) < _BRIGHT:
            dim.append((int(number), float(fraction[here].mean())))
            fraction = np.where(here, np.float32(1.0), fraction)
    if not dim:
        return found.fluid_fraction
    listed = ", ".join(f"{share:.0%}" for _, share in dim[:5])
    text = (
        f"{len(dim)} given collection(s) are no brighter than {listed} of CSF on the myelogram: "
        "they were counted by whole voxels; check that the mask belongs to this study"
    )
    notes.append(Note("given_fluid_dim", text))
    return found.fluid_fraction.with_array(fraction, "given fluid counted as whole voxels")


def _drawn(
    number: int, pieces: Labels, result: Segmentation, outside: npt.NDArray[np.float32]
) -> Candidate:
    voxels = np.nonzero(pieces == number)
    fraction = result.fluid_fraction.array[voxels].astype(np.float64)
    volume = float(fraction.sum()) * result.fluid_fraction.geometry.voxel_volume_ml
    volume += rim_ml(voxels, result.fluid_fraction, outside > 0.0)
    return Candidate(
        id=number,
        accepted=True,
        probability=SUPPLIED_PROBABILITY,
        volume_ml=volume,
        center_lps=_center(voxels, result),
        reason=SUPPLIED_REASON,
        mimics=(),
        compartments=_compartments(voxels, result, outside),
        features={"volume_ml": volume},
    )


def _center(voxels: tuple[npt.NDArray[np.intp], ...], result: Segmentation) -> FloatArray:
    weight = np.maximum(result.fluid_fraction.array[voxels].astype(np.float64), 1e-3)
    center = np.average(np.stack(voxels, axis=1), axis=0, weights=weight)
    return result.fluid_fraction.geometry.lps_from_kji(center)


def _outside_mm(sac: Volume) -> npt.NDArray[np.float32]:
    """Distance from the sac, 0 inside it."""
    import SimpleITK as sitk

    distance = sitk.SignedMaurerDistanceMap(
        sac.to_sitk(), insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return np.asarray(np.maximum(sitk.GetArrayFromImage(distance), 0), np.float32)


def _compartments(
    voxels: tuple[npt.NDArray[np.intp], ...],
    result: Segmentation,
    outside: npt.NDArray[np.float32],
) -> tuple[Compartment, ...]:
    """Where a collection lies, by place relative to the sac and the canal."""
    geometry = result.fluid_fraction.geometry
    points = geometry.lps_from_kji(np.stack(voxels, axis=1))
    _, left, dorsal = result.centerline.project(points)
    left = np.abs(left)
    subcutaneous = dorsal > _SKIN_FAT_MM
    epidural = (outside[voxels] <= _EPIDURAL_MM) & (left < _CANAL_HALF_WIDTH_MM) & ~subcutaneous
    foraminal = ~epidural & ~subcutaneous & (left >= _FORAMEN_MM[0]) & (left < _FORAMEN_MM[1])
    foraminal &= np.abs(dorsal) < _FORAMEN_DEPTH_MM
    places: dict[Compartment, Mask] = {
        "epidural": epidural,
        "foraminal": foraminal,
        "paraspinal": ~epidural & ~foraminal & ~subcutaneous,
        "subcutaneous": subcutaneous,
    }
    amount = result.fluid_fraction.array[voxels].astype(np.float64) * geometry.voxel_volume_ml
    least = min(_PLACE_ML, 0.5 * float(amount.sum()))
    return tuple(name for name, where in places.items() if float(amount[where].sum()) >= least)


def _line_with(traced: Centerline, sac: Volume) -> Centerline:
    """The traced canal where it runs in the given sac, else through the sac's middle."""
    inside = sac.sample(traced.points_lps, order=0) > 0
    z = traced.points_lps[:, 2]
    low, high = _extent_z(sac)
    beside = (z >= low) & (z <= high)
    if beside.any() and inside[beside].mean() >= _ON_LINE_FRACTION:
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
    """Middle of the sac from head to tail, plane by plane."""
    turned = sac.oriented("LPS")
    planes = np.flatnonzero(turned.array.any(axis=(1, 2)))[::-1]
    middles = np.array(
        [[k, *np.argwhere(turned.array[k] > 0).mean(axis=0)] for k in planes], dtype=np.float64
    )
    if np.ptp(middles[:, 0]) * turned.geometry.spacing_kji_mm[0] < _MIN_SAC_MM:
        raise AnalysisError(
            f"the given sac is shorter than {_MIN_SAC_MM:.0f} mm from head to tail: it is no "
            "thecal sac; was the fluid mask given in its place?"
        )
    points = turned.geometry.lps_from_kji(middles)
    return Centerline.smoothed(points, smoothing_mm=_SMOOTHING_MM)
