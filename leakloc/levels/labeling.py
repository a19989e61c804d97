"""Labeling stage: positions and names of discs and vertebrae, with confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role, split_segment
from leakloc.core.notes import note
from leakloc.core.volume import Provenance, Volume
from leakloc.levels.bodies import Body, bodies_between, is_sacral, level_mask, sacral_bodies
from leakloc.levels.candidates import MIN_DISCS
from leakloc.levels.confidence import assess_numbering
from leakloc.levels.detection import Detector
from leakloc.levels.naming import choose_numbering, name_discs
from leakloc.levels.numbering import Assignment
from leakloc.levels.result import Disc, Levels, Numbering
from leakloc.levels.search import SpineDetection, detect_spine
from leakloc.levels.wording import describe_numbering, numbering_notes

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.segmentation.result import Segmentation


def label(
    spine: Spine,
    companions: Mapping[Role, Volume],
    segmentation: Segmentation,
    settings: LevelSettings,
    detector: Detector | None = None,
) -> Levels:
    """Detect and name discs and vertebrae (a `leakloc.levels.result.Labeler`).

    Discs are detected on the best sagittal companion series, and on the myelogram if it covers
    more of the spine or there is no companion. Levels are counted down from C2 if visible, else
    up from the sacrum, assuming five lumbar vertebrae, unless the settings specify otherwise.

    Parameters
    ----------
    spine : Spine
        Contains the myelogram.
    companions : mapping of role to Volume
    segmentation : Segmentation
        Its centerline locates the spine.
    settings : LevelSettings
    detector : Detector, optional
        Disc detector; by default the one named in `settings.detector`.

    Returns
    -------
    Levels
        With status ``"unlabelled"`` if no level can be named.

    Raises
    ------
    SettingsError
        If the user-supplied anchor is malformed or matches no disc.
    """
    detection = detect_spine(spine, companions, segmentation, settings, detector)
    return assign_levels(detection, settings)


def assign_levels(detection: SpineDetection, settings: LevelSettings) -> Levels:
    """Name the detected discs: the fast part of `label`, which applies names set by the user.

    Parameters
    ----------
    detection : SpineDetection
        From `detect_spine`.
    settings : LevelSettings

    Returns
    -------
    Levels
        As in `label`; `Levels.detection` holds `detection`.

    Raises
    ------
    SettingsError
        If the user-supplied anchor is malformed or matches no disc.
    """
    chosen = choose_numbering(detection.candidates, settings, detection.conus)
    if chosen is None:
        return _unlabeled(detection)
    discs = name_discs(detection.candidates, chosen.assignment)
    if sum(not is_sacral(disc.name) for disc in discs) < MIN_DISCS:
        return _unlabeled(detection)
    assessment = assess_numbering(detection, chosen, settings)
    bodies, discs = _bodies(discs, chosen.assignment, detection)
    conus = detection.conus if assessment.conus_levels is not None else None
    return Levels(
        status="labelled" if chosen.is_anchored else "partial",
        numbering=describe_numbering(chosen, assessment),
        vertebrae=tuple(body.vertebra for body in bodies),
        discs=tuple(discs),
        mask=level_mask(bodies, detection.detections, detection.fields[-1]),
        notes=(*detection.notes, *numbering_notes(detection, chosen, assessment)),
        detection=detection,
        conus_tip_lps=None if conus is None else conus.point_lps,
    )


def _bodies(
    discs: list[Disc], assignment: Assignment, detection: SpineDetection
) -> tuple[list[Body], list[Disc]]:
    """Vertebral bodies and the discs between them, with those of the sacrum if it is visible."""
    fields, scale = detection.fields, assignment.scale
    presacral = [disc for disc in discs if not is_sacral(disc.name)]
    bodies = bodies_between(presacral, assignment.chain, scale, detection.detections, fields)
    if assignment.has_junction:
        remnants = {disc.name: disc for disc in discs if is_sacral(disc.name)}
        sacral, below = sacral_bodies(presacral[-1], remnants, scale, detection.sacrum, fields)
        bodies = [*(body for body in bodies if not body.name.startswith("S")), *sacral]
        discs = [*presacral, *below]
    names = {body.name for body in bodies}
    return bodies, [disc for disc in discs if names & set(split_segment(disc.name))]


def _unlabeled(detection: SpineDetection) -> Levels:
    geometry = detection.fields[-1]
    empty = Volume(np.zeros(geometry.shape, np.uint8), geometry, Provenance("levels"))
    numbering = Numbering("sacrum_up", "no level could be numbered", 0.0, 5)
    notes = (*detection.notes, note("levels_not_found"))
    return Levels("unlabelled", numbering, (), (), empty, notes, detection)
