"""Corrections of a report by a reader: file format, and their application."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from scipy import ndimage

from leakloc.anatomy.vocabulary import segment_name, split_segment, vertebra_chain
from leakloc.core.errors import GeometryError, InputError, file_label, reason_of
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.result import Disc, Vertebra
from leakloc.levels.supplied import SUPPLIED_CONFIDENCE, SuppliedLevels
from leakloc.loaders.limits import require_regular
from leakloc.relabel.runs import mask_of
from leakloc.report.model import Corrections, positions_lps_mm
from leakloc.segmentation.edited import edit_fluid

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings
    from leakloc.report.model import EditedFluid, Report
    from leakloc.segmentation.result import Segmentation

_MAX_BYTES: Final = 1_000_000
"""Maximum size of ``corrections.json``."""

_MAX_POSITION_MM: Final = 5.0
"""Maximum displacement of a vertebra, disc or collection between two analyses of a study: more than
rounding and small changes of the method, less than half the distance between two levels."""

_MAX_ROUNDING_MM: Final = 0.1
"""Maximum deviation of the viewer's grid from that of the myelogram due to rounding."""


def read_corrections(path: Path) -> Corrections:
    """Read ``corrections.json``, as downloaded from the HTML report.

    Raises
    ------
    InputError
        If the file is not readable or not valid.
    """
    name = file_label(path)
    try:
        if require_regular(path).st_size > _MAX_BYTES:
            raise InputError(f"{name} is larger than {_MAX_BYTES // 1000} kB")
        return Corrections.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{name} is not readable: {reason_of(error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{name} is not valid: {where}: {first['msg']}") from error


def check_study(corrections: Corrections, study_instance_uid: str | None, path: Path) -> None:
    """Check that corrections are of this study.

    Raises
    ------
    InputError
        If they are of another study.
    """
    if corrections.study_instance_uid != study_instance_uid:
        raise InputError(f"{file_label(path)} contains corrections of another study")


def check_collections(corrections: Corrections, report: Report) -> None:
    """Check that the report contains the marked collections.

    Raises
    ------
    InputError
        If one does not exist.
    """
    known = {collection.id for collection in report.collections}
    for mark in corrections.collections:
        if mark.id not in known:
            raise InputError(f"the report contains no collection {mark.id}")


def check_created(corrections: Corrections, report: Report, path: Path) -> None:
    """Check that corrections are of this version of the report.

    Raises
    ------
    InputError
        If they are of another version.
    """
    if corrections.report_created != report.generator.created:
        raise InputError(
            f"{file_label(path)} contains corrections of another version of this report: numbers "
            "and names may differ; download the file from the current report.html"
        )


def check_positions(corrections: Corrections, report: Report, path: Path) -> bool:
    """Check that what was corrected has the same position in the report of a new analysis.

    Returns
    -------
    bool
        Whether all positions are in the file, and were compared.

    Raises
    ------
    InputError
        If a vertebra, disc or collection is at another position.
    """
    now = positions_lps_mm(report)
    for name, before in corrections.positions_lps_mm.items():
        apart_mm = math.dist(before, now[name]) if name in now else math.inf
        if apart_mm > _MAX_POSITION_MM:
            what = f"collection {name}" if name.isdigit() else name
            raise InputError(
                f"{file_label(path)}: {what} is not where it was in the corrected report, as the "
                "analysis differs: correct the new report instead"
            )
    corrected = {
        *(vertebra.name for vertebra in corrections.vertebrae),
        *(disc.name for disc in corrections.discs),
        *(str(mark.id) for mark in corrections.collections),
    }
    return corrected <= set(corrections.positions_lps_mm)


def renaming_anchor(report: Report, corrections: Corrections) -> str | None:
    """Return the level setting `anchor` that renames a vertebra by the disc caudal to it.

    None if disc points are edited as well, or the report contains no such disc.
    """
    if corrections.discs or len(corrections.vertebrae) != 1:
        return None
    chain = vertebra_chain(report.levels.numbering.lumbar_count)
    below = dict(pairwise(chain))
    (renamed,) = corrections.vertebrae
    caudal = {split_segment(d.name)[0]: d.center_lps_mm for d in report.levels.discs}
    point = caudal.get(renamed.name)
    if point is None or renamed.new_name not in below:
        return None
    name = segment_name(renamed.new_name, below[renamed.new_name])
    return f"{name}@{','.join(f'{x:g}' for x in point)}"


def reported_levels(report: Report, mask: Volume | None) -> SuppliedLevels:
    """Return the levels of a report as supplied levels, with its level map."""
    vertebrae = [
        Vertebra(v.name, np.array(v.center_lps_mm), v.confidence) for v in report.levels.vertebrae
    ]
    discs = [
        Disc(d.name, np.array(d.center_lps_mm), np.array(d.normal_lps), d.confidence)
        for d in report.levels.discs
    ]
    return SuppliedLevels(vertebrae, discs, mask)


def corrected_levels(
    report: Report, mask: Volume | None, corrections: Corrections
) -> SuppliedLevels | None:
    """Return the levels of a report with the corrections; None if no level is corrected.

    If a vertebra is renamed, all others are renamed by the same number of levels. A deleted disc
    is placed midway between its vertebrae.

    Parameters
    ----------
    report : Report
    mask : Volume or None
        Its level map.
    corrections : Corrections

    Raises
    ------
    InputError
        If a name does not occur in the report, or renamed vertebrae contradict each other.
    """
    if not (corrections.vertebrae or corrections.discs):
        return None
    supplied = reported_levels(report, mask)
    discs = {disc.name: disc for disc in supplied.discs}
    for edit in corrections.discs:
        if edit.name not in discs:
            raise InputError(f"the report contains no disc {edit.name}")
        if edit.lps_mm is None:
            del discs[edit.name]
        else:
            moved = replace(discs[edit.name], center_lps=np.array(edit.lps_mm))
            discs[edit.name] = moved
    chain = vertebra_chain(report.levels.numbering.lumbar_count)
    known = {vertebra.name for vertebra in supplied.vertebrae}
    for renamed in corrections.vertebrae:
        if renamed.name not in known or renamed.new_name not in chain:
            raise InputError(f"{renamed.name} cannot be renamed to {renamed.new_name}")
    shifts = {chain.index(v.new_name) - chain.index(v.name) for v in corrections.vertebrae}
    if len(shifts) > 1:
        raise InputError("the new names of the vertebrae contradict each other")
    shift = shifts.pop() if shifts else 0

    def renamed_to(name: str) -> str | None:
        index = chain.index(name) + shift
        return chain[index] if 0 <= index < len(chain) else None

    vertebrae = [
        replace(vertebra, name=name, confidence=SUPPLIED_CONFIDENCE)
        for vertebra in supplied.vertebrae
        if (name := renamed_to(vertebra.name)) is not None
    ]
    named_discs = []
    for disc in discs.values():
        upper, lower = (renamed_to(name) for name in split_segment(disc.name))
        if upper is not None and lower is not None:
            name = segment_name(upper, lower)
            named_discs.append(replace(disc, name=name, confidence=SUPPLIED_CONFIDENCE))
    return replace(supplied, vertebrae=vertebrae, discs=named_discs)


def with_corrected_fluid(
    segmentation: Segmentation,
    corrections: Iterable[Corrections],
    settings: SegmentationSettings,
) -> Segmentation:
    """Return the segmentation with the collections as corrected by readers.

    Each file is applied to the result of the former ones: first, collections marked as false are
    removed, then fluid is painted and erased.

    Parameters
    ----------
    segmentation : Segmentation
        Collections with the ids of the report before any correction.
    corrections : iterable of Corrections
        In the order of their application.
    settings : SegmentationSettings

    Raises
    ------
    InputError
        If edits lie outside the images, or too many collections are painted.
    """
    original = segmentation
    next_id = _max_id(segmentation) + 1
    for edits in corrections:
        segmentation = _without_false_collections(segmentation, edits)
        if edits.fluid is not None:
            geometry = segmentation.collections.geometry
            segmentation = edit_fluid(
                segmentation,
                _edited_voxels(edits.fluid, edits.fluid.painted, geometry),
                _edited_voxels(edits.fluid, edits.fluid.erased, geometry),
                settings,
                original=original,
                first_id=next_id,
            )
            next_id = max(next_id, _max_id(segmentation) + 1)
    return segmentation


def _max_id(segmentation: Segmentation) -> int:
    return int(segmentation.collections.array.max())


def _edited_voxels(edited: EditedFluid, runs: str, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Return the voxels of the myelogram whose centers are in the selected voxels of the viewer.

    Raises
    ------
    InputError
        If a selected voxel lies outside the myelogram.
    """
    voxels = np.zeros(geometry.shape, bool)
    selected = mask_of(runs, edited.shape_kji)
    if not selected.any():
        return voxels
    try:
        grid = Geometry(edited.shape_kji, np.array(edited.affine_lps))
    except GeometryError as error:
        raise InputError(f"the grid of the edited fluid is not valid: {error}") from error
    (box,) = ndimage.find_objects(selected.view(np.uint8))
    region = Volume(selected[box].view(np.uint8), grid.cropped(box))
    corners = region.geometry.corners_lps
    if not geometry.contains(corners).all():
        raise InputError(
            "fluid was painted or erased outside the images of this report: edit only within them"
        )
    edge = max(region.geometry.spacing_ijk_mm) + _MAX_ROUNDING_MM
    target = geometry.box_around(corners, edge)
    voxels[target] = region.resample(geometry.cropped(target), order=0).array > 0
    return voxels


def _without_false_collections(segmentation: Segmentation, edits: Corrections) -> Segmentation:
    """Return the segmentation without collections that a reader marked as false."""
    false = {mark.id for mark in edits.collections if not mark.is_fluid}
    if not false:
        return segmentation
    mask = segmentation.collections
    kept = np.where(np.isin(mask.array, list(false)), 0, mask.array).astype(mask.array.dtype)
    reason = "Marked as not epidural fluid by the reader."
    candidates = tuple(
        replace(c, id=0, accepted=False, probability=0.0, reason=reason) if c.id in false else c
        for c in segmentation.candidates
    )
    return replace(segmentation, collections=mask.with_array(kept), candidates=candidates)
