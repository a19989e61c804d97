"""What lies above the spine is no extradural collection of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from leakloc.levels.result import Levels
from leakloc.segmentation.result import Segmentation

FORAMEN_MAGNUM_MM: Final = 32.0
"""From the middle of the C2 body up to the foramen magnum: half the body (10 mm), and the dens
with the arch of C1 (about 22 mm). Fluid behind C1 and C2 lies below it."""


AXIS_TOP_MM: Final = 10.0
"""From the middle of the C2 body up to its top."""

BEYOND_MM: Final = 5.0
"""The spinal dura is attached to the rim of the foramen magnum: extradural fluid does not pass it.
More than the rim's own thickness and the error of the limit."""


def without_cisterns(segmentation: Segmentation, levels: Levels) -> Segmentation:
    """Reject CSF of the cisterns around the brainstem.

    That is what is centred above the foramen magnum, or above C2 and goes on through the foramen.
    Only where C2 was named; otherwise the field hardly reaches the skull and nothing changes.

    Parameters
    ----------
    segmentation : Segmentation
    levels : Levels

    Returns
    -------
    Segmentation
        The rest of the collections, numbered from 1 again.
    """
    axis = next((v.center_lps for v in levels.vertebrae if v.name == "C2"), None)
    if axis is None:
        return segmentation
    arc, _, _ = segmentation.centerline.project(axis)
    tangent, _, _ = segmentation.centerline.frame_at(arc)
    lookup = np.zeros(256, np.uint8)
    kept = 0
    candidates = []
    for candidate in sorted(segmentation.candidates, key=lambda c: (not c.accepted, c.id)):
        above_mm = float((axis - candidate.center_lps) @ tangent)
        reach_mm = float(arc) - candidate.features.get("arc_start_mm", float("inf"))
        through = above_mm > AXIS_TOP_MM and reach_mm > FORAMEN_MAGNUM_MM + BEYOND_MM
        if candidate.accepted and (above_mm > FORAMEN_MAGNUM_MM or through):
            candidate = replace(
                candidate,
                id=0,
                accepted=False,
                reason="lies above or goes through the foramen magnum: CSF of the cisterns",
                mimics=(*candidate.mimics, "basal cistern"),
            )
        elif candidate.accepted:
            kept += 1
            lookup[candidate.id] = kept
            candidate = replace(candidate, id=kept)
        candidates.append(candidate)
    collections = segmentation.collections
    return replace(
        segmentation,
        candidates=tuple(candidates),
        collections=collections.with_array(lookup[collections.array]),
    )
