"""Reading a study and choosing its series."""

from leakloc.loaders.load import load_study
from leakloc.loaders.study import SeriesStack, Study, StudyInfo, Triage, TriagedStack
from leakloc.loaders.table import series_table
from leakloc.loaders.triage import triage

__all__ = [
    "SeriesStack",
    "Study",
    "StudyInfo",
    "Triage",
    "TriagedStack",
    "load_study",
    "series_table",
    "triage",
]
