"""Results on disk against truths on disk: single files, single studies, or many by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.errors import InputError, LeaklocError
from leakloc.validation.evaluation.cases import Case, compare, failed
from leakloc.validation.evaluation.cohort import Cohort
from leakloc.validation.evaluation.reading import Kind, Reading, case_name, is_case, read_case

if TYPE_CHECKING:
    from leakloc.pipeline import Progress

MAX_LABELS: Final = {"sac": 1, "fluid": 50}
"""Most labels of a mask: a sac is one thing, collections are few; more are levels or organs."""


def evaluate_folders(
    found: Path,
    truth: Path,
    *,
    kind: Kind = "fluid",
    label: int | None = None,
    resample: bool = False,
    progress: Progress | None = None,
) -> Cohort:
    """Compare what stands in `found` with what stands in `truth`.

    Parameters
    ----------
    found, truth : Path
        One study each (report folder, phantom's truth, folder of masks, or a mask file), or
        folders of such, paired by name.
    kind : {"fluid", "sac"}
        Of mask files: what their labels are.
    label : int, optional
        Of mask files: the only value that counts.
    resample : bool
        Put predictions on the truth's grid where they differ.

    Raises
    ------
    InputError
        If there is nothing to compare, or a single pair cannot be compared. Among many, a
        pair that cannot be compared becomes a case with its error.
    """
    for path in (found, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist")
    if is_case(found) and is_case(truth):
        pair = _read(found, kind, label), _read(truth, kind, label)
        _demand_comparable(*pair)
        return Cohort((compare(*pair, resample=resample),))
    if is_case(found) or is_case(truth):
        one, many = (found, truth) if is_case(found) else (truth, found)
        raise InputError(
            f"{one} is one study, {many} is none (no report.json, truth.json or mask in it): give "
            "two studies, or two folders of studies that bear the same names"
        )
    theirs, ours = _cases_in(truth), _cases_in(found)
    if not set(theirs) & set(ours):
        raise InputError(
            f"no study of {found} bears the name of one in {truth}: name the folders or mask files "
            "of a study alike on both sides"
        )
    cases: list[Case] = []
    for name, path in theirs.items():
        if progress is not None:
            progress(name, len(cases) / len(theirs))
        cases.append(_case(name, ours.get(name), path, kind, label, resample))
    return Cohort(tuple(cases))


def _case(
    name: str, found: Path | None, truth: Path, kind: Kind, label: int | None, resample: bool
) -> Case:
    true: Reading | None = None
    try:
        true = _read(truth, kind, label)
        if found is None:
            return failed(true, name, "no result of that name")
        said = _read(found, kind, label)
        _demand_comparable(said, true)
        return compare(said, true, resample=resample)
    except LeaklocError as error:
        return failed(true, name, str(error))


def _read(path: Path, kind: Kind, label: int | None) -> Reading:
    return read_case(path, kind=kind, label=label)


def _demand_comparable(found: Reading, truth: Reading) -> None:
    """Masks that cannot mean the same are a mistake, not a bad result."""
    if (found.thecal_sac is None or truth.thecal_sac is None) and (
        found.fluid is None or truth.fluid is None
    ):
        raise InputError(
            f"{found.case} and {truth.case} have no mask in common: one holds the sac, the other "
            "the fluid"
        )
    for side, reading in (("prediction", found), ("truth", truth)):
        for what, mask in (("sac", reading.thecal_sac), ("fluid", reading.fluid)):
            labels = [] if mask is None else [int(n) for n in np.unique(mask.array) if n]
            if len(labels) > MAX_LABELS[what]:
                listed = ", ".join(map(str, labels[:8]))
                raise InputError(
                    f"the {what} mask of the {side} {reading.case} holds {len(labels)} labels "
                    f"({listed} ...), more than a {what} mask has: name the right one with --label"
                )


def _cases_in(folder: Path) -> dict[str, Path]:
    """Studies of a folder by name: subfolders and mask files that `read_case` takes."""
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a study nor a folder of studies")
    found = {case_name(path): path for path in sorted(folder.iterdir()) if is_case(path)}
    if not found:
        raise InputError(
            f"{folder} holds no study: neither report folders, nor truth folders, nor masks"
        )
    return found
