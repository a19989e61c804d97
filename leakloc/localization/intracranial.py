"""Exclusion of intracranial CSF from the epidural fluid collections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from leakloc.anatomy.reference import FORAMEN_ABOVE_AXIS_MM
from leakloc.levels.result import Levels
from leakloc.segmentation.result import Candidate, Segmentation

AXIS_TOP_MM: Final = 10.0
"""Distance from the middle of the C2 body up to its upper end plate."""

FORAMEN_MAGNUM_MM: Final = AXIS_TOP_MM + FORAMEN_ABOVE_AXIS_MM
"""Distance from the middle of the C2 body up to the foramen magnum. Fluid posterior to C1 and C2
lies below it."""

BEYOND_MM: Final = 5.0
"""Tolerance above the foramen magnum, larger than the thickness of its rim and the error of the
limit. The spinal dura is attached to the rim: epidural fluid does not extend beyond it."""


def without_cisterns(segmentation: Segmentation, levels: Levels) -> Segmentation:
    """Reject CSF of the cisterns around the brainstem.

    Rejects collections centered above the foramen magnum, and those centered above C2 that extend
    through the foramen. Without a named C2 nothing changes: the field of view hardly reaches the
    skull.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels

    Returns
    -------
    Segmentation
        The remaining collections, renumbered from 1.
    """
    axis = next((v.center_lps for v in levels.vertebrae if v.name == "C2"), None)
    if axis is None:
        return segmentation
    arc, _, _ = segmentation.centerline.project(axis)
    tangent, _, _ = segmentation.centerline.frame_at(arc)
    candidates = []
    for candidate in segmentation.candidates:
        above_mm = float((axis - candidate.center_lps) @ tangent)
        features = candidate.features
        reach_mm = float(arc) - features.arc_start_mm if features else float("-inf")
        through = above_mm > AXIS_TOP_MM and reach_mm > FORAMEN_MAGNUM_MM + BEYOND_MM
        if candidate.accepted and (above_mm > FORAMEN_MAGNUM_MM or through):
            candidate = rejected_as_cistern(
                candidate, "lies above or extends through the foramen magnum"
            )
        candidates.append(candidate)
    return renumbered(segmentation, candidates)


def rejected_as_cistern(candidate: Candidate, reason: str) -> Candidate:
    """Return a candidate as CSF of the cisterns, which is not a collection."""
    return replace(
        candidate,
        accepted=False,
        reason=f"{reason}: CSF of the cisterns",
        mimics=(*candidate.mimics, "basal cistern"),
    )


def renumbered(segmentation: Segmentation, candidates: Iterable[Candidate]) -> Segmentation:
    """Return a segmentation with other candidates: accepted ones are renumbered from 1.

    Parameters
    ----------
    segmentation : Segmentation
    candidates : iterable of Candidate
        With their ids in the mask; those that are no longer accepted are removed from it.
    """
    lookup = np.zeros(256, np.uint8)
    kept = 0
    numbered = []
    for candidate in sorted(candidates, key=lambda c: (not c.accepted, c.id)):
        if candidate.accepted:
            kept += 1
            lookup[candidate.id] = kept
        numbered.append(replace(candidate, id=kept if candidate.accepted else 0))
    collections = segmentation.collections
    return replace(
        segmentation,
        candidates=tuple(numbered),
        collections=collections.with_array(lookup[collections.array]),
    )
