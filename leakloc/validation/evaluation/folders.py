"""Comparison of results on disk with ground truth on disk, for one study or many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.errors import InputError, LeaklocError
from leakloc.validation.evaluation.annotation import Annotation, Kind, case_name, is_case, read_case
from leakloc.validation.evaluation.cases import Case, compare, failed_case
from leakloc.validation.evaluation.cohort import Cohort

if TYPE_CHECKING:
    from leakloc.core.clock import Progress

MAX_LABELS: Final = {"sac": 1, "fluid": 50}
"""Maximum number of labels of a mask; more indicate a mask of levels or organs."""


def evaluate_folders(
    predicted: Path,
    truth: Path,
    *,
    kind: Kind = "fluid",
    label: int | None = None,
    resample: bool = False,
    progress: Progress | None = None,
) -> Cohort:
    """Compare the results in `predicted` with the ground truth in `truth`.

    Parameters
    ----------
    predicted, truth : Path
        One study each (report folder, phantom truth, folder of masks, or mask file), or folders
        of studies, paired by name.
    kind : {"fluid", "sac"}
        Content of mask files.
    label : int, optional
        Label value to use in mask files; all by default.
    resample : bool
        Resample predictions to the grid of the truth if they differ.

    Raises
    ------
    InputError
        If there is nothing to compare, or a single pair cannot be compared. In folders of
        studies, a pair that cannot be compared becomes a case with an error.
    """
    for path in (predicted, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist")
    if is_case(predicted) and is_case(truth):
        pair = _read(predicted, kind, label), _read(truth, kind, label)
        _require_comparable(*pair)
        return Cohort((compare(*pair, resample=resample),))
    if is_case(predicted) or is_case(truth):
        one, many = (predicted, truth) if is_case(predicted) else (truth, predicted)
        raise InputError(
            f"{one} is one study, {many} is not (no report.json, truth.json or mask in it): "
            "specify two studies, or two folders of studies with the same names"
        )
    truths, results = _cases_in(truth), _cases_in(predicted)
    if not set(truths) & set(results):
        raise InputError(
            f"no study in {predicted} has the name of a study in {truth}: name the folders or mask "
            "files of a study identically on both sides"
        )
    cases: list[Case] = []
    for name, path in truths.items():
        if progress is not None:
            progress(name, len(cases) / len(truths))
        cases.append(_case(name, results.get(name), path, kind, label, resample))
    return Cohort(tuple(cases))


def _case(
    name: str, predicted: Path | None, truth: Path, kind: Kind, label: int | None, resample: bool
) -> Case:
    true: Annotation | None = None
    try:
        true = _read(truth, kind, label)
        if predicted is None:
            return failed_case(true, name, "no result with this name")
        result = _read(predicted, kind, label)
        _require_comparable(result, true)
        return compare(result, true, resample=resample)
    except LeaklocError as error:
        return failed_case(true, name, str(error))


def _read(path: Path, kind: Kind, label: int | None) -> Annotation:
    return read_case(path, kind=kind, label=label)


def _require_comparable(predicted: Annotation, truth: Annotation) -> None:
    """Raise an error if the masks differ in kind: not a poor result, but a wrong input."""
    if (predicted.thecal_sac is None or truth.thecal_sac is None) and (
        predicted.fluid is None or truth.fluid is None
    ):
        raise InputError(
            f"{predicted.case} and {truth.case} have no mask in common: one contains the sac, the "
            "other the fluid"
        )
    for side, annotation in (("prediction", predicted), ("truth", truth)):
        for what, mask in (("sac", annotation.thecal_sac), ("fluid", annotation.fluid)):
            labels = [] if mask is None else [int(n) for n in np.unique(mask.array) if n]
            if len(labels) > MAX_LABELS[what]:
                listed = ", ".join(map(str, labels[:8]))
                raise InputError(
                    f"the {what} mask of the {side} {annotation.case} contains {len(labels)} "
                    f"labels ({listed} ...), more than a {what} mask has: select one with --label"
                )


def _cases_in(folder: Path) -> dict[str, Path]:
    """Return the studies of a folder by name: subfolders and mask files."""
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a study nor a folder of studies")
    cases = {case_name(path): path for path in sorted(folder.iterdir()) if is_case(path)}
    if not cases:
        raise InputError(f"{folder} contains no study: no report folders, truth folders or masks")
    return cases
