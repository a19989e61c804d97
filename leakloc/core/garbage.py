"""Frequency of garbage collection in processes that run one command or one analysis."""

import gc
from typing import Final

_OBJECTS: Final = 100_000
"""Number of new objects after which reference cycles are searched for. With Python's default of
700, this takes 3 % of the time of an analysis; the peak memory is the same."""


def collect_rarely() -> None:
    """Search for reference cycles less often than by default."""
    gc.set_threshold(_OBJECTS)
