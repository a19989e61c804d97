"""Tables of an output folder: ``summary.csv`` and ``summary.parquet``, one row per study."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.extras import LazyModule
from leakloc.services.batch.ledger import Entry
from leakloc.services.batch.summaries import StudySummary
from leakloc.services.batch.worklist import urgency

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LazyModule("pandas", "batch")

_SUMMARY_COLUMNS: Final = (
    "study_instance_uid",
    "study_date",
    "patient_id",
    "leak",
    "level",
    "confidence",
    "summary",
    "collections",
    "volume_ml",
    "thickness_mm",
    "position",
    "grade",
    "numbering",
    "numbering_confidence",
)
_ENTRY_COLUMNS: Final = (
    "error_class",
    "error_message",
    "attempts",
    "interruptions",
    "wall_s",
    "cpu_s",
    "peak_mib",
    "worker",
    "settings_sha256",
    "fingerprint",
)
_WHOLE: Final = ("collections", "attempts", "interruptions")
_NUMBERS: Final = (
    "confidence",
    "volume_ml",
    "thickness_mm",
    "numbering_confidence",
    "wall_s",
    "cpu_s",
    "peak_mib",
)
COLUMNS: Final = ("study", "state", *_SUMMARY_COLUMNS, "warnings", *_ENTRY_COLUMNS, "report")
"""Column names in order; the suffix of a name gives the unit."""


def table_rows(
    entries: Sequence[Entry], summaries: Mapping[str, StudySummary]
) -> list[dict[str, Any]]:
    """Return one row per study, most urgent first; missing values are None.

    ``warnings`` are codes separated by spaces, ``report`` is relative to the output folder.
    """
    ordered = sorted(entries, key=lambda e: (*urgency(e, summaries.get(e.name)), e.name))
    return [_row(entry, summaries.get(entry.name)) for entry in ordered]


def _row(entry: Entry, summary: StudySummary | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(study=entry.name, state=entry.state.value)
    row.update({name: getattr(entry, name) for name in _ENTRY_COLUMNS})
    if summary is not None:
        row.update({name: getattr(summary, name) for name in _SUMMARY_COLUMNS})
        row["warnings"] = " ".join(code for code, _ in summary.warnings)
        row["report"] = f"{entry.name}/report.json"
    return row


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _safe(value: Any) -> Any:
    """Prefix text that spreadsheets interpret as a formula with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def as_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the rows as Parquet, with fixed column types."""
    frame = as_frame(rows)
    packed = io.BytesIO()
    frame.to_parquet(packed, index=False)
    return packed.getvalue()


def as_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a data frame."""
    frame = pd.DataFrame.from_records([dict(row) for row in rows], columns=list(COLUMNS))
    types = dict.fromkeys(_NUMBERS, "Float64") | dict.fromkeys(_WHOLE, "Int64")
    return frame.astype({name: types.get(name, "string") for name in COLUMNS})
