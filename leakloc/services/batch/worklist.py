"""Worklist (``index.html``) of an output folder: all studies, most urgent first.

Self-contained and offline like the reports it links to. Sorting and filtering use an embedded
script; without it, the list is complete and sorted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from leakloc.core.templates import render_html
from leakloc.services.batch.ledger import Entry, State
from leakloc.services.batch.summaries import StudySummary

_URGENCY: Final = {"present": 0, "indeterminate": 1, "failed": 2, "absent": 3}
_LAST: Final = 4
_WORDS: Final = {
    "present": "present",
    "indeterminate": "indeterminate",
    "absent": "none detected",
    "finished": "finished",  # its report is no longer readable
    "failed": "failed",
    "waiting": "waiting",
    "running": "running",
}


def urgency(entry: Entry, summary: StudySummary | None) -> tuple[float, ...]:
    """Sort key of studies: fluid first, then indeterminate, failed and all others.

    A failed study precedes one without fluid because it has no result.
    """
    status = find_status(entry, summary)
    if summary is None:
        return (_URGENCY.get(status, _LAST), 0.0, 0.0)
    return (_URGENCY.get(status, _LAST), -summary.confidence, -(summary.volume_ml or 0.0))


def find_status(entry: Entry, summary: StudySummary | None) -> str:
    """Finding (``present``, ``indeterminate``, ``absent``) or else the state of the study."""
    if entry.state is State.FINISHED and summary is not None:
        return summary.leak
    return entry.state.value


def worklist(entries: Sequence[Entry], summaries: Mapping[str, StudySummary]) -> str:
    """Return the worklist as HTML.

    Parameters
    ----------
    entries : sequence of Entry
    summaries : mapping of name to Card
        Of the finished studies.
    """
    ordered = sorted(entries, key=lambda e: (*urgency(e, summaries.get(e.name)), e.name))
    rows = [(e, summaries.get(e.name), find_status(e, summaries.get(e.name))) for e in ordered]
    found = [status for _, _, status in rows]
    return render_html(
        "services/batch/worklist.html.j2",
        rows=rows,
        counts={status: found.count(status) for status in _WORDS},
        words=_WORDS,
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
