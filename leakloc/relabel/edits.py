"""Writing corrections: edited disc points and an edited mask of the epidural fluid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from leakloc.anatomy.vocabulary import segment_name, split_segment, vertebra_chain
from leakloc.core.errors import InputError, OutputError
from leakloc.report.model import Corrections, EditedDisc, MarkedCollection, RenamedVertebra
from leakloc.report.writer import write_mask

if TYPE_CHECKING:
    from leakloc.core.volume import Volume
    from leakloc.report import ReportContents
    from leakloc.report.model import Report

CORRECTIONS_NAME: Final = "corrections.json"
FLUID_NAME: Final = "corrected_fluid.nii.gz"

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
) -> tuple[Path, ...]:
    """Write the differences from a report to ``corrections.json`` and ``corrected_fluid.nii.gz``.

    `leakloc relabel OUT corrections.json` applies the first file, `leakloc analyze STUDY --fluid
    corrected_fluid.nii.gz` the second. Collections of which all voxels were erased are marked as
    false in the first; the second is written if other voxels differ. Files of these names that no
    longer apply are removed.

    Parameters
    ----------
    contents : ReportContents
    output : path
        Folder for the files, outside the report folder; created if missing.
    reader : str
        Name or initials of the reader.
    discs : sequence of DiscPoint, optional
        All disc points; those of the report that are missing are recorded as deleted. If one is
        renamed, all levels are renamed by the same number of levels.
    fluid : Volume, optional
        Mask of the epidural fluid on the grid of the report, in any axis order.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    InputError
        If nothing was corrected, the reader is missing, or names are invalid or contradictory.
    OutputError
        If the files cannot be written.
    """
    output, folder = Path(output), contents.folder
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise InputError("the output is inside the report folder: specify another folder")
    report = contents.report
    erased, edited = _fluid_edits(contents, fluid) if fluid is not None else ((), None)
    moved, renamed = _disc_edits(report, discs) if discs is not None else ((), ())
    try:
        corrections = Corrections(
            study_instance_uid=report.study.study_instance_uid,
            report_created=report.generator.created,
            reader=reader.strip(),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            vertebrae=renamed,
            discs=moved,
            collections=erased,
        )
    except ValidationError as error:
        raise InputError("specify the name or initials of the reader (64 characters)") from error
    has_corrections = bool(moved or renamed or erased)
    if not has_corrections and edited is None:
        raise InputError("no correction has been made")
    return _write(output, corrections if has_corrections else None, edited)


def _write(output: Path, corrections: Corrections | None, fluid: Volume | None) -> tuple[Path, ...]:
    written = []
    text, mask = output / CORRECTIONS_NAME, output / FLUID_NAME
    try:
        output.mkdir(parents=True, exist_ok=True)
        if corrections is None:
            text.unlink(missing_ok=True)
        else:
            content = corrections.model_dump_json(indent=2, by_alias=True)
            text.write_text(content + "\n", encoding="utf-8")
            written.append(text)
        if fluid is None:
            mask.unlink(missing_ok=True)
        else:
            write_mask(fluid, mask)
            written.append(mask)
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror or error}") from error
    return tuple(written)


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


def _fluid_edits(
    contents: ReportContents, fluid: Volume
) -> tuple[tuple[MarkedCollection, ...], Volume | None]:
    """Return collections without remaining voxels, and the mask if other voxels differ."""
    before = contents.masks.get("epidural_fluid")
    if before is None:
        raise InputError("the report contains no mask of the epidural fluid")
    after = fluid.oriented(before.geometry.axis_codes)
    if not after.geometry.matches(before.geometry):
        raise InputError("the edited mask has another grid than the report")
    kept = np.unique(after.array)
    erased = [c.id for c in contents.report.collections if c.id not in kept]
    unchanged = np.where(np.isin(before.array, erased), 0, before.array)
    marks = tuple(MarkedCollection(id=number, is_fluid=False) for number in erased)
    return marks, None if np.array_equal(after.array, unchanged) else after
