"""Read a study and select its series."""

from leakloc.loaders.load import load, load_study
from leakloc.loaders.masks import put_on_grid, read_mask
from leakloc.loaders.study import SeriesStack, Study, StudyInfo, Triage, TriagedStack
from leakloc.loaders.table import series_table
from leakloc.loaders.triage import triage

__all__ = [
    "SeriesStack",
    "Study",
    "StudyInfo",
    "Triage",
    "TriagedStack",
    "load",
    "load_study",
    "put_on_grid",
    "read_mask",
    "series_table",
    "triage",
]
