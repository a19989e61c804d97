"""Many studies: found, queued in a ledger, analysed in parallel, listed.

    finder -> ledger -> engine (run, on Dask) -> cards -> worklist, summary

`Batch` tells it all once; the DICOM node uses the ledger and the engine with studies that it
receives.
"""

from leakloc.services.batch.batch import Batch, Tally
from leakloc.services.batch.engine import Engine, WorkOptions
from leakloc.services.batch.finder import Found, Search, find_studies
from leakloc.services.batch.ledger import Decision, Entry, Ledger, State, Usage

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
