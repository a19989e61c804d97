"""Run time and progress of the stages of an analysis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Progress = Callable[[str, float], None]
"""Callback with the current stage and the fraction of the run time before it, 0..1."""


@dataclass
class Clock:
    """Measure the run time of stages and report progress."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    def report(self, name: str, fraction: float) -> None:
        """Report the current stage and the completed fraction."""
        if self.progress is not None:
            self.progress(name, fraction)

    @contextmanager
    def stage(self, name: str, fraction: float) -> Iterator[None]:
        """Report a stage and add its run time."""
        self.report(name, fraction)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
