"""Comparison of reports with the findings of readers by motion segment.

The reference may be MR myelography, CT myelography or digital subtraction myelography. Only the
reports and a table are needed, no images, so that a clinic can measure accuracy on its patients.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from leakloc.anatomy.vocabulary import split_segment
from leakloc.core.errors import InputError, counted
from leakloc.report import Report
from leakloc.validation.evaluation.agreement import (
    BOOTSTRAP_RESAMPLES,
    weighted_kappa,
    wilson_interval,
)

COLUMNS: Final = ("study", "segment", "fluid")
"""Required columns: name of the report folder, motion segment, presence of epidural fluid."""

_YES: Final = frozenset({"1", "yes", "y", "true", "present"})
_NO: Final = frozenset({"0", "no", "n", "false", "absent"})
_COUNTED: Final = ("definite", "probable")
"""Grades of the collections that count as detected; possible ones are no finding of the report."""

Pair = tuple[bool, bool]
"""Fluid according to the report, and according to the reader."""


class ReaderFinding(NamedTuple):
    """Finding of one reader in one motion segment."""

    study: str
    segment: str
    fluid: bool
    reference: str
    reader: str


@dataclass(frozen=True)
class ReaderAgreement:
    """Agreement of the reports with one reader of one modality.

    Parameters
    ----------
    reference, reader : str
        As in the table; empty if not stated.
    by_study : dict
        Pairs of each study by motion segment.
    studies : dict
        Pair of each study: any fluid.
    n_outside : int
        Rows with a segment that is not in the field of view of the report.
    n_indeterminate : int
        Studies whose finding is ``indeterminate``; by patient they count as not detected.
    """

    reference: str
    reader: str
    by_study: dict[str, tuple[Pair, ...]]
    studies: dict[str, Pair]
    n_outside: int
    n_indeterminate: int

    def summary(self) -> dict[str, Any]:
        """Return sensitivity, specificity and kappa by segment and by patient; None if undefined.

        Intervals of 95 %: by segment from a bootstrap over patients, as segments of a patient are
        not independent; by patient Wilson score intervals.
        """
        segments = [pair for pairs in self.by_study.values() for pair in pairs]
        patients = list(self.studies.values())
        by_segment = {
            name: {"value": _none(metric(segments)), "interval": self._bootstrap(metric)}
            for name, metric in _METRICS.items()
        }
        by_patient: dict[str, Any] = {}
        for name, metric in _METRICS.items():
            counts = _COUNTS[name](patients) if name in _COUNTS else None
            by_patient[name] = {
                "value": _none(metric(patients)),
                "interval": list(wilson_interval(*counts)) if counts and counts[1] else None,
            }
        return {
            "reference": self.reference,
            "reader": self.reader,
            "n_patients": len(patients),
            "n_segments": len(segments),
            "n_segments_outside_the_field_of_view": self.n_outside,
            "n_indeterminate": self.n_indeterminate,
            "by_segment": by_segment,
            "by_patient": by_patient,
        }

    def to_text(self) -> str:
        """Return the summary as text."""
        summary = self.summary()
        title = " ".join(part for part in (self.reference, self.reader) if part) or "readers"
        lines = [
            f"{title}: {counted(summary['n_patients'], 'patients')}, "
            f"{counted(summary['n_segments'], 'segments')} "
            f"({self.n_outside} outside the field of view not counted, "
            f"{self.n_indeterminate} indeterminate reports count as no fluid by patient)"
        ]
        for unit in ("segment", "patient"):
            for name, found in summary[f"by_{unit}"].items():
                value, interval = found["value"], found["interval"]
                text = "-" if value is None else f"{value:.2f}"
                if interval is not None:
                    text += f" (95 % interval {interval[0]:.2f}-{interval[1]:.2f})"
                lines.append(f"  {name} by {unit}: {text}")
        return "\n".join(lines)

    def _bootstrap(self, metric: Callable[[Sequence[Pair]], float]) -> list[float] | None:
        """Return the percentile interval of a metric over resampled patients; None if undefined."""
        groups = list(self.by_study.values())
        rng = np.random.default_rng(0)
        values = []
        for _ in range(BOOTSTRAP_RESAMPLES):
            drawn = rng.integers(len(groups), size=len(groups))
            value = metric([pair for n in drawn for pair in groups[n]])
            if not math.isnan(value):
                values.append(value)
        if len(groups) < 3 or not values:
            return None
        low, high = np.percentile(values, [2.5, 97.5])
        return [float(low), float(high)]


def _sensitivity_counts(pairs: Sequence[Pair]) -> tuple[int, int]:
    return sum(found for found, true in pairs if true), sum(true for _, true in pairs)


def _specificity_counts(pairs: Sequence[Pair]) -> tuple[int, int]:
    return (
        sum(not found for found, true in pairs if not true),
        sum(not true for _, true in pairs),
    )


def _fraction(counts: tuple[int, int]) -> float:
    return counts[0] / counts[1] if counts[1] else math.nan


_COUNTS: Final = {"sensitivity": _sensitivity_counts, "specificity": _specificity_counts}
_METRICS: Final[dict[str, Callable[[Sequence[Pair]], float]]] = {
    "sensitivity": lambda pairs: _fraction(_sensitivity_counts(pairs)),
    "specificity": lambda pairs: _fraction(_specificity_counts(pairs)),
    "kappa": lambda pairs: weighted_kappa([int(f) for f, _ in pairs], [int(t) for _, t in pairs]),
}


def evaluate_readers(reports: Path, table: Path) -> tuple[ReaderAgreement, ...]:
    """Compare reports with a table of readers' findings by motion segment.

    Parameters
    ----------
    reports : Path
        Folder of report folders, such as the output of ``leakloc batch``.
    table : Path
        CSV with the columns ``study``, ``segment`` and ``fluid`` (1 or 0), and optionally
        ``reference`` (modality) and ``reader``.

    Returns
    -------
    tuple of ReaderAgreement
        One for each reference and reader.

    Raises
    ------
    InputError
        If the table is malformed, or a study has no report.
    """
    findings = read_findings(table)
    loaded = {
        name: _load(reports / name, name) for name in dict.fromkeys(f.study for f in findings)
    }
    groups: dict[tuple[str, str], list[ReaderFinding]] = defaultdict(list)
    for finding in findings:
        groups[finding.reference, finding.reader].append(finding)
    return tuple(
        _agreement(reference, reader, rows, loaded) for (reference, reader), rows in groups.items()
    )


def _load(folder: Path, name: str) -> Report:
    if Path(name).name != name or not (folder / "report.json").is_file():
        raise InputError(f"there is no report of study {name!r} in {folder.parent}")
    return Report.load(folder)


def _agreement(
    reference: str, reader: str, rows: Iterable[ReaderFinding], reports: dict[str, Report]
) -> ReaderAgreement:
    by_study: dict[str, list[Pair]] = defaultdict(list)
    any_true: dict[str, bool] = defaultdict(bool)
    n_outside = 0
    for row in rows:
        report = reports[row.study]
        any_true[row.study] |= row.fluid
        in_field = {part.segment: part.collections for part in report.fluid_by_segment}
        if row.segment not in in_field:
            n_outside += 1
            continue
        grades = {c.id: c.grade for c in report.collections}
        found = any(grades.get(n) in _COUNTED for n in in_field[row.segment])
        by_study[row.study].append((found, row.fluid))
    leaks = {name: reports[name].finding.leak for name in any_true}
    return ReaderAgreement(
        reference=reference,
        reader=reader,
        by_study={name: tuple(pairs) for name, pairs in by_study.items()},
        studies={name: (leaks[name] == "present", true) for name, true in any_true.items()},
        n_outside=n_outside,
        n_indeterminate=sum(leak == "indeterminate" for leak in leaks.values()),
    )


def read_findings(path: Path) -> tuple[ReaderFinding, ...]:
    """Read a table of readers' findings.

    Raises
    ------
    InputError
        If it cannot be read; the message contains the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: save it as CSV in UTF-8") from error
    if not rows:
        raise InputError(f"the table {path} has no rows")
    missing = [name for name in COLUMNS if name not in rows[0]]
    if missing:
        raise InputError(f"the table {path} has no column {missing[0]!r}")
    found: dict[tuple[str, str, str, str], ReaderFinding] = {}
    for line, row in enumerate(rows, 2):
        finding = _finding(row, f"{path.name}, line {line}")
        key = (finding.study, finding.segment, finding.reference, finding.reader)
        if found.setdefault(key, finding).fluid != finding.fluid:
            raise InputError(
                f"{path.name}, line {line}: contradicts an earlier line of the same segment"
            )
    return tuple(found.values())


def _finding(row: dict[str, str | None], where: str) -> ReaderFinding:
    values = {name: (value or "").strip() for name, value in row.items() if name is not None}
    try:
        split_segment(values["segment"])
    except ValueError as error:
        raise InputError(
            f"{where}: {values['segment']!r} is not a motion segment such as L4-L5"
        ) from error
    answer = values["fluid"].lower()
    if answer not in _YES | _NO:
        raise InputError(f"{where}: fluid is {values['fluid']!r}; use 1 or 0")
    return ReaderFinding(
        study=values["study"],
        segment=values["segment"],
        fluid=answer in _YES,
        reference=values.get("reference", ""),
        reader=values.get("reader", ""),
    )


def readers_json(agreements: Iterable[ReaderAgreement]) -> str:
    """Return the summaries as JSON."""
    return json.dumps([one.summary() for one in agreements], indent=2, allow_nan=False)


def readers_text(agreements: Iterable[ReaderAgreement]) -> str:
    """Return the summaries as text."""
    return "\n".join(one.to_text() for one in agreements)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
