"""Many studies: found, queued in a ledger, analysed in parallel, listed.

    finder -> ledger -> engine (run, on Dask) -> cards -> worklist, summary

`Batch` tells it all once; the DICOM node uses the ledger and the engine with studies that it
receives.
"""

from leakloc.batch.batch import Batch, Tally
from leakloc.batch.engine import Engine, WorkOptions
from leakloc.batch.finder import Found, Search, find_studies
from leakloc.batch.ledger import Decision, Entry, Ledger, State, Usage

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
