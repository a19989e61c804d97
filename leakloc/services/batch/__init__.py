"""Batch processing: find studies, queue them, analyze them in parallel and list the results.

    finder -> ledger -> engine (run, on Dask) -> summaries -> worklist, table

`Batch` runs all steps; the DICOM node uses the ledger (job database) and the engine for the
studies it receives.
"""

from typing import TYPE_CHECKING

from leakloc.core.extras import lazy_names

if TYPE_CHECKING:
    from leakloc.services.batch.batch import Batch, Tally
    from leakloc.services.batch.engine import Engine, WorkOptions
    from leakloc.services.batch.finder import Found, Search, find_studies
    from leakloc.services.batch.ledger import Decision, Entry, Ledger, State, Usage
else:  # the process of one analysis needs neither the search nor the scheduler
    __getattr__ = lazy_names(
        __name__,
        {
            "Batch": "leakloc.services.batch.batch",
            "Decision": "leakloc.services.batch.ledger",
            "Engine": "leakloc.services.batch.engine",
            "Entry": "leakloc.services.batch.ledger",
            "Found": "leakloc.services.batch.finder",
            "Ledger": "leakloc.services.batch.ledger",
            "Search": "leakloc.services.batch.finder",
            "State": "leakloc.services.batch.ledger",
            "Tally": "leakloc.services.batch.batch",
            "Usage": "leakloc.services.batch.ledger",
            "WorkOptions": "leakloc.services.batch.engine",
            "find_studies": "leakloc.services.batch.finder",
        },
    )

__all__ = [
    "Batch",
    "Decision",
    "Engine",
    "Entry",
    "Found",
    "Ledger",
    "Search",
    "State",
    "Tally",
    "Usage",
    "WorkOptions",
    "find_studies",
]
