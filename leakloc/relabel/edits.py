"""Writing ``corrections.json`` from edited disc points and an edited mask of the epidural fluid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from scipy import ndimage

from leakloc.anatomy.vocabulary import segment_name, split_segment, vertebra_chain
from leakloc.core.errors import InputError, OutputError
from leakloc.relabel.runs import run_lengths
from leakloc.report.model import (
    Corrections,
    EditedDisc,
    EditedFluid,
    RenamedVertebra,
    positions_lps_mm,
)

if TYPE_CHECKING:
    from leakloc.core.volume import Volume
    from leakloc.report import ReportContents
    from leakloc.report.model import Report

CORRECTIONS_NAME: Final = "corrections.json"

_MOVED_MM: Final = 0.1
"""Minimum displacement of an edited disc point; smaller ones are rounding errors."""


class DiscPoint(NamedTuple):
    """A disc point after editing."""

    reported: str
    """Name in the report, such as ``L4-L5``."""
    name: str
    """Name specified by the reader; the same if not renamed."""
    center_lps_mm: npt.ArrayLike
    """Position, shape (3,), LPS in mm."""


def write_corrections(
    contents: ReportContents,
    output: str | Path,
    *,
    reader: str,
    discs: Sequence[DiscPoint] | None = None,
    fluid: Volume | None = None,
) -> Path:
    """Write the differences from a report to ``corrections.json``, as the HTML report does.

    `leakloc relabel OUT corrections.json` applies the file.

    Parameters
    ----------
    contents : ReportContents
    output : path
        Folder for the file, outside the report folder; created if missing.
    reader : str
        Name or initials of the reader.
    discs : sequence of DiscPoint, optional
        All disc points; those of the report that are missing are recorded as deleted. If one is
        renamed, all levels are renamed by the same number of levels.
    fluid : Volume, optional
        Mask of the epidural fluid on the grid of the report, in any axis order. Voxels that are
        fluid only in the mask are recorded as painted, those only in the report as erased; labels
        are not compared.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If nothing was corrected, the reader is missing, names are invalid or contradictory, or the
        mask has another grid or too many differences.
    OutputError
        If the file cannot be written.
    """
    output, folder = Path(output), contents.folder
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise InputError("the output is inside the report folder: specify another folder")
    report = contents.report
    edited = None if fluid is None else _fluid_edits(contents, fluid)
    moved, renamed = _disc_edits(report, discs) if discs is not None else ((), ())
    positions = positions_lps_mm(report)
    named = (*(vertebra.name for vertebra in renamed), *(disc.name for disc in moved))
    try:
        corrections = Corrections(
            study_instance_uid=report.study.study_instance_uid,
            report_created=report.generator.created,
            reader=reader.strip(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            vertebrae=renamed,
            discs=moved,
            fluid=edited,
            positions_lps_mm={name: positions[name] for name in named},
        )
    except ValidationError as error:
        raise InputError("specify the name or initials of the reader (64 characters)") from error
    if not (moved or renamed or edited):
        raise InputError("no correction has been made")
    path = output / CORRECTIONS_NAME
    try:
        output.mkdir(parents=True, exist_ok=True)
        content = corrections.model_dump_json(indent=2, by_alias=True)
        path.write_text(content + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror or error}") from error
    return path


def _disc_edits(
    report: Report, points: Sequence[DiscPoint]
) -> tuple[tuple[EditedDisc, ...], tuple[RenamedVertebra, ...]]:
    """Return moved and deleted discs, and a renamed vertebra if discs were renamed."""
    before = {disc.name: np.array(disc.center_lps_mm) for disc in report.levels.discs}
    chain = vertebra_chain(report.levels.numbering.lumbar_count)
    place = {segment_name(*pair): n for n, pair in enumerate(pairwise(chain))}
    after: dict[str, DiscPoint] = {}
    for point in points:
        if point.reported not in before:
            raise InputError(f"the report contains no disc {point.reported}")
        if point.reported in after:
            raise InputError(f"two points are disc {point.reported}: delete one of them")
        if point.name not in place:
            raise InputError(f"{point.name} is not a disc such as L4-L5")
        after[point.reported] = point
    edits = []
    for name, center in before.items():
        if name not in after:
            edits.append(EditedDisc(name=name, lps_mm=None))
            continue
        now = np.asarray(after[name].center_lps_mm, dtype=float)
        if np.linalg.norm(now - center) > _MOVED_MM:
            x, y, z = (round(float(mm), 2) for mm in now)
            edits.append(EditedDisc(name=name, lps_mm=(x, y, z)))
    renamed = [p for p in after.values() if p.name != p.reported]
    if len({place[p.name] - place[p.reported] for p in renamed}) > 1:
        raise InputError("the new names of the discs contradict each other")
    vertebrae = tuple(
        RenamedVertebra(name=split_segment(p.reported)[0], new_name=split_segment(p.name)[0])
        for p in renamed[:1]  # all others are renamed by the same number of levels
    )
    return tuple(edits), vertebrae


def _fluid_edits(contents: ReportContents, fluid: Volume) -> EditedFluid | None:
    """Return the painted and erased voxels, on the box around them; None without any."""
    before = contents.masks.get("epidural_fluid")
    if before is None:
        raise InputError("the report contains no mask of the epidural fluid")
    after = fluid.oriented(before.geometry.axis_codes)
    if not after.geometry.matches(before.geometry):
        raise InputError("the edited mask has another grid than the report")
    changed = (after.array > 0) != (before.array > 0)
    if not changed.any():
        return None
    (box,) = ndimage.find_objects(changed.view(np.uint8))
    grid, is_fluid = before.geometry.cropped(box), after.array[box] > 0
    try:
        return EditedFluid(
            shape_kji=grid.shape,
            affine_lps=grid.affine_lps.tolist(),
            painted=run_lengths(changed[box] & is_fluid),
            erased=run_lengths(changed[box] & ~is_fluid),
        )
    except ValidationError as error:
        raise InputError("the edited regions are too complex for one file") from error
