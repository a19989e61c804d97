"""Collections with voxels painted or erased by a reader."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from leakloc.core.errors import InputError
from leakloc.segmentation.supplied import (
    Labels,
    Mask,
    distance_outside_mm,
    drawn_candidate,
    group_parts,
)

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings
    from leakloc.segmentation.result import Candidate, Segmentation

PAINTED_REASON: Final = "Painted by the reader."
EDITED_REASON: Final = "Mask edited by the reader."
ERASED_REASON: Final = "Erased by the reader."

MAX_ID: Final = 254
"""Maximum collection id; the page uses 255 for the sac."""

_MAX_PARTS: Final = 1000
"""Maximum number of separate painted parts: more than a reader paints, few enough to group."""

_NEIGHBORS: Final = np.ones((3, 3, 3), bool)


def edit_fluid(
    found: Segmentation,
    painted: Mask,
    erased: Mask,
    settings: SegmentationSettings,
    *,
    original: Segmentation,
    first_id: int,
) -> Segmentation:
    """Return the segmentation with painted voxels added to the fluid and erased ones removed.

    Painted voxels that touch collections (face, edge or corner) are added to the one they touch
    most; others are new collections, which are grouped like supplied fluid (`SuppliedMasks`). They
    count as completely filled and are removed from the sac. Erased voxels of the original sac are
    returned to it.

    Parameters
    ----------
    found : Segmentation
    painted, erased : ndarray of bool
        On the grid of the myelogram, ``[k, j, i]``.
    settings : SegmentationSettings
    original : Segmentation
        Before the first edit, for its sac and its fluid fraction.
    first_id : int
        Minimum id of a new collection.

    Returns
    -------
    Segmentation
        The ids of existing collections are unchanged.

    Raises
    ------
    InputError
        If there are too many painted parts or collections.
    """
    labels: Labels = found.collections.array.astype(np.uint8)
    erased = erased & (labels > 0)
    added = painted & (labels == 0)
    if not (erased.any() or added.any()):
        return found
    changed = set(np.unique(labels[erased]).tolist())
    labels[erased] = 0
    apart = np.zeros(labels.shape, np.uint8)
    pieces, count = ndimage.label(added, _NEIGHBORS)
    if count > _MAX_PARTS:
        raise InputError(f"{count} separate parts are painted; the maximum is {_MAX_PARTS}")
    before = labels.copy()
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        near = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        piece = pieces[near] == number
        touched = before[near][ndimage.binary_dilation(piece, _NEIGHBORS)]
        contact = np.bincount(touched[touched > 0], minlength=1)
        if contact.any():
            labels[near][piece] = contact.argmax()
            changed.add(int(contact.argmax()))
        else:
            apart[near][piece] = 1
    new_ids = _add_groups(labels, apart, found, settings, first_id)

    fluid = found.fluid_fraction
    restored = erased & (original.thecal_sac.array > 0)
    fraction = np.where(erased, np.float32(0), fluid.array)
    fraction[restored] = original.fluid_fraction.array[restored]
    fraction[added] = 1
    sac = found.thecal_sac.array.copy()
    sac[added] = 0
    sac[restored] = 1
    result = replace(
        found,
        thecal_sac=found.thecal_sac.with_array(sac, "edited"),
        fluid_fraction=fluid.with_array(fraction.astype(fluid.array.dtype), "edited"),
        collections=found.collections.with_array(labels, "edited"),
    )
    outside = distance_outside_mm(result.thecal_sac)
    remaining = set(np.unique(labels).tolist())

    def updated(candidate: Candidate) -> Candidate:
        if not candidate.accepted or candidate.id not in changed:
            return candidate
        if candidate.id not in remaining:
            return replace(candidate, id=0, accepted=False, probability=0.0, reason=ERASED_REASON)
        measured = drawn_candidate(candidate.id, labels, result, outside)
        reason = candidate.reason
        if not reason.startswith((PAINTED_REASON, EDITED_REASON)):
            reason = f"{EDITED_REASON} Before: {reason}"
        return replace(
            measured, probability=candidate.probability, reason=reason, mimics=candidate.mimics
        )

    new = (
        replace(drawn_candidate(number, labels, result, outside), reason=PAINTED_REASON)
        for number in new_ids
    )
    return replace(result, candidates=(*map(updated, found.candidates), *new))


def _add_groups(
    labels: Labels,
    apart: Labels,
    found: Segmentation,
    settings: SegmentationSettings,
    first_id: int,
) -> range:
    """Add painted voxels that touch no collection to `labels`, and return their ids."""
    pieces, count = ndimage.label(apart, _NEIGHBORS)
    if not count:
        return range(0)
    volume = found.collections.with_array(apart)
    groups = group_parts(pieces, volume, found.centerline, settings)
    ids = range(first_id, first_id + int(groups.max()))
    if ids.stop > MAX_ID + 1:
        raise InputError(f"more than {MAX_ID} collections are painted: paint fewer separate parts")
    lookup = np.concatenate([[0], groups + first_id - 1])
    np.copyto(labels, lookup[pieces].astype(np.uint8), where=pieces > 0)
    return ids
