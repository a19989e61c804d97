"""Search for discs, conus and sacrum on the myelogram, its companion series and the localizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.extension import extend_centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import AnalysisError, LeaklocError
from leakloc.core.notes import Note, note
from leakloc.core.volume import Geometry, Volume
from leakloc.levels import profile
from leakloc.levels.candidates import (
    END_MARGIN_MM,
    MAX_LEVEL_MM,
    MIN_DISCS,
    SAME_DISC_MM,
    Candidate,
    below_foramen,
    candidate_from,
    nearest_mm,
    plausible_discs,
    within_height_and_depth,
)
from leakloc.levels.conus import Conus, find_conus
from leakloc.levels.detection import DetectedDisc, Detections, Detector
from leakloc.levels.network import network_detector
from leakloc.levels.sacrum import SacralAxis, trace_sacrum

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.segmentation.result import Segmentation

_PREFERENCE: Final[tuple[Role, ...]] = ("sagittal_t2", "sagittal_stir", "sagittal_t1")
"""Companion series, by decreasing contrast between discs and vertebral bodies."""
_EXTRA_FIELD_MM: Final = 25.0
"""The myelogram is also searched if it covers this much more of the spine: one level."""
_FIELD_STEP_MM: Final = 3.0
"""Step along the canal when comparing fields of view."""
_SAME_DISC_LOCALIZER_MM: Final = 12.0
"""A disc on the localizer closer than this to one on another volume is the same disc: the patient
may have moved by a few millimeters, and the minimum pitch is 15 mm."""


@dataclass(frozen=True)
class SpineDetection:
    """Detected discs, conus and sacrum before numbering by `assign_levels`.

    Parameters
    ----------
    detections : tuple of Detections
        One for each volume searched.
    candidates : tuple of Candidate
        Possible discs, cranial to caudal.
    fields : tuple of Geometry
        Grids of the volumes searched; the last is that of the myelogram.
    notes : tuple of Note
    conus : Conus or None
        Tip of the conus medullaris; None if not detected.
    localizer : Geometry or None
        Grid of the low-resolution series on which discs above all other fields were detected.
    sacrum : SacralAxis or None
        Sacrum traced in the volume in which discs were detected.
    sources : tuple of Role
        Roles of the series on which these were detected.
    """

    detections: tuple[Detections, ...]
    candidates: tuple[Candidate, ...]
    fields: tuple[Geometry, ...]
    notes: tuple[Note, ...]
    conus: Conus | None = None
    localizer: Geometry | None = None
    sacrum: SacralAxis | None = None
    sources: tuple[Role, ...] = ()


@dataclass(frozen=True)
class _Search:
    """Plausible discs on one volume, and the canal centerline extended by the detector."""

    volume: Volume
    detections: Detections
    discs: list[DetectedDisc]
    centerline: Centerline


def detect_spine(
    spine: Spine,
    companions: Mapping[Role, Volume],
    segmentation: Segmentation,
    settings: LevelSettings,
    detector: Detector | None = None,
) -> SpineDetection:
    """Detect discs, conus and sacrum: the slow part of `label`, which needs the images.

    Parameters
    ----------
    spine : Spine
        Contains the myelogram.
    companions : mapping of role to Volume
    segmentation : Segmentation
    settings : LevelSettings
        Names supplied by the user (anchor, lumbar count) are not used here.
    detector : Detector, optional
        As in `label`.
    """
    detector = detector or _detector(settings, spine)
    found = detect_discs(spine.myelogram, companions, segmentation.centerline, detector)
    found = replace(found, candidates=below_foramen(found.candidates, segmentation))
    conus = find_conus(segmentation, found.candidates)
    sources = found.sources if conus is None else (*found.sources, "myelogram")
    return replace(found, conus=conus, sources=tuple(dict.fromkeys(sources)))


def detect_discs(
    myelogram: Volume,
    companions: Mapping[Role, Volume],
    centerline: Centerline,
    detector: Detector,
) -> SpineDetection:
    """Detect the discs and the sacrum of a study, without the conus.

    Discs are detected on the best sagittal companion series, on the myelogram if it covers more of
    the spine, and on a localizer above both.

    Parameters
    ----------
    myelogram : Volume
    companions : mapping of role to Volume
    centerline : Centerline
        Of the canal.
    detector : Detector
    """
    volumes, notes = _volumes(myelogram, companions)
    tried, detector, fallback_notes = _search_until_found(volumes, centerline, detector)
    notes = (*notes, *fallback_notes)
    if not tried:
        return SpineDetection((), (), (myelogram.geometry,), notes)
    best = max(tried, key=lambda search: len(search.discs))
    searches = [best]
    if _extra_field_mm(best.volume, myelogram, centerline) > _EXTRA_FIELD_MM:
        searches.append(_search_rest(myelogram, best, centerline, detector))
    fields: tuple[Geometry, ...] = (best.volume.geometry, myelogram.geometry)
    line, coarse = best.centerline, None
    upper = _search_localizer(companions.get("localizer"), line, detector)
    images = [(search.volume, search.detections) for search in searches]
    if upper is not None:
        line = upper.centerline
        upper = _part_above(upper, fields, [disc for search in searches for disc in search.discs])
        if upper.discs:
            coarse = upper.volume.geometry
            searches.append(upper)
            fields = (best.volume.geometry, coarse, myelogram.geometry)
    discs = [(disc, search.detections) for search in searches for disc in search.discs]
    arcs = [float(line.project(disc.center_lps)[0]) for disc, _ in discs]
    ordered = [discs[n] for n in np.argsort(arcs)]
    candidates = tuple(candidate_from(disc, found, line, fields) for disc, found in ordered)
    axes = (
        trace_sacrum(image, found.sacrum, candidates)
        for image, found in images
        if found.sacrum is not None
    )
    role_of = {id(volume): role for role, volume in companions.items()}
    with_discs = [search.volume for search in searches if search.discs]
    return SpineDetection(
        sources=tuple(role_of.get(id(volume), "myelogram") for volume in with_discs),
        detections=tuple(search.detections for search in searches),
        candidates=candidates,
        fields=fields,
        notes=notes,
        localizer=coarse,
        sacrum=next((axis for axis in axes if axis is not None), None),
    )


def _detector(settings: LevelSettings, spine: Spine) -> Detector:
    return profile.detect if settings.detector == "profile" else network_detector(spine.anatomy)


def _volumes(
    myelogram: Volume, companions: Mapping[Role, Volume]
) -> tuple[list[Volume], tuple[Note, ...]]:
    """Volumes to search, best first, without those in another frame of reference."""
    chosen: list[Volume] = []
    notes: list[Note] = []
    for role in _PREFERENCE:
        if role not in companions:
            continue
        if companions[role].geometry.in_other_frame(myelogram.geometry):
            notes.append(note("companion_in_other_frame", role=role))
            continue
        chosen.append(companions[role])
    return [*chosen, myelogram], tuple(notes)


def _search_until_found(
    volumes: Sequence[Volume], centerline: Centerline, detector: Detector
) -> tuple[list[_Search], Detector, tuple[Note, ...]]:
    """Search volumes until one shows a chain of discs; also return the detector that worked."""
    tried: list[_Search] = []
    notes: list[Note] = []
    for volume in volumes:
        try:
            found = detector(volume, centerline)
        except AnalysisError:
            continue
        except LeaklocError as error:  # the network weights are not installed
            notes.append(note("detector_failed", error=error))
            detector = profile.detect
            found = detector(volume, centerline)
        line = extend_centerline(centerline, found.canal)
        tried.append(_Search(volume, found, plausible_discs(found, line), line))
        if len(tried[-1].discs) > MIN_DISCS:
            break
    return tried, detector, tuple(notes)


def _extra_field_mm(volume: Volume, myelogram: Volume, centerline: Centerline) -> float:
    """Length of the canal covered by the myelogram but not by the volume."""
    arcs = np.arange(0.0, centerline.length_mm, _FIELD_STEP_MM)
    points = centerline.at(arcs) - 20.0 * centerline.frame_at(arcs)[2]  # in the bodies
    missing = myelogram.geometry.contains(points) & ~volume.geometry.contains(points)
    return float(missing.sum()) * _FIELD_STEP_MM


def _search_rest(
    myelogram: Volume, best: _Search, centerline: Centerline, detector: Detector
) -> _Search:
    """Search the myelogram for discs that were not detected on another volume."""
    found = detector(myelogram, centerline)
    discs = [
        disc
        for disc in plausible_discs(found, centerline)
        if nearest_mm(disc, best.discs) > SAME_DISC_MM
    ]
    return _Search(myelogram, found, discs, centerline)


def _search_localizer(
    localizer: Volume | None, centerline: Centerline, detector: Detector
) -> _Search | None:
    """Search the localizer; None if there is none or its image is constant."""
    if localizer is None:
        return None
    try:
        found = detector(localizer, centerline)
    except AnalysisError:
        return None
    line = extend_centerline(centerline, found.canal)
    return _Search(localizer, found, plausible_discs(found, line), line)


def _part_above(
    search: _Search, fields: Sequence[Geometry], discs: Sequence[DetectedDisc]
) -> _Search:
    """Keep only the part of a search above other fields of view and the discs detected there."""
    above = [disc for disc in search.discs if _is_above(disc, fields, discs)]
    if not above:
        return replace(search, discs=[])
    lowest_mm = min(float(disc.center_lps[2]) for disc in above)
    return replace(search, discs=above, detections=_cropped_below(search.detections, lowest_mm))


def _is_above(
    disc: DetectedDisc, fields: Sequence[Geometry], discs: Sequence[DetectedDisc]
) -> bool:
    """Return whether a disc lies above the other fields of view and all discs detected there."""
    margin = np.array([0.0, 0.0, END_MARGIN_MM])
    if any(
        within_height_and_depth(field, disc.center_lps + side * margin).all()
        for field in fields
        for side in (-1, 1)
    ):
        return False
    higher = all(disc.center_lps[2] > other.center_lps[2] for other in discs)
    return higher and nearest_mm(disc, discs) > _SAME_DISC_LOCALIZER_MM


def _cropped_below(found: Detections, lowest_mm: float) -> Detections:
    """Crop detections to at most one level below a height; other volumes cover the rest."""

    def cut(volume: Volume | None) -> Volume | None:
        if volume is None:  # the k axis of a detector's grid is cranial
            return None
        k = volume.geometry.kji_from_lps([*volume.geometry.center_lps[:2], lowest_mm])[0]
        below = round(MAX_LEVEL_MM / volume.geometry.spacing_kji_mm[0])
        start = int(np.clip(k - below, 0, volume.array.shape[0] - 1))
        return volume.crop((slice(start, None), slice(None), slice(None)))

    return replace(found, bodies=cut(found.bodies), sacrum=cut(found.sacrum), canal=None)
