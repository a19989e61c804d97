"""Progress bars on a terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from leakloc.cli.shared import duration

_TYPICAL_S: Final = 15.0
"""Run time of an analysis on two cores; the first estimate of the time left."""
_TYPICAL_WEIGHT: Final = 0.05
"""Completed fraction at which the measured run time has as much influence as the typical one."""
_MOST: Final = 0.97
"""Length of the bar of a stage that takes longer than estimated."""
_REFRESHES_PER_S: Final = 4.0


class Bars(Progress):
    """One bar per stage, or one bar if the command has no stages.

    The bar of a stage advances with time: its length is the elapsed time relative to the estimated
    run time, which follows from the duration of the preceding stages.

    Parameters
    ----------
    stages : mapping
        Stages in order, with the fraction of the run time before each, 0..1; may be empty.
    console : rich.console.Console, optional
        Standard error if None.
    get_time : callable
        Clock in seconds.
    """

    def __init__(
        self,
        stages: Mapping[str, float],
        console: Console | None = None,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows: dict[str, TaskID] = {}  # read by the constructor of Progress
        super().__init__(
            _Spinner(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _TimeColumn(),
            console=console or Console(stderr=True),
            get_time=get_time,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,  # forked processes would inherit the lock of the display
            redirect_stderr=False,
        )
        bounds = itertools.pairwise([*stages.values(), 1.0])
        self._spans = {name: end - start for name, (start, end) in zip(stages, bounds, strict=True)}
        self._rows.update({name: self.add_task(name, total=1.0, start=False) for name in stages})
        self._single = None if stages else self.add_task("", total=None)
        self._begin_s = self.get_time()

    def show(self, what: str, fraction: float | None, left_s: float | None) -> None:
        """Show a step; see `ProgressDisplay`."""
        if self._single is not None:
            self.update(
                self._single,
                description=what,
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
                left_s=left_s,
            )
        elif what in self._rows:
            self._start_stage(what, fraction or 0.0)
        elif fraction == 1.0:
            self._finish(self._rows)

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(Text(text), highlight=False)

    def _start_stage(self, name: str, fraction: float) -> None:
        names = list(self._rows)
        at = names.index(name)
        self._finish(names[:at])
        passed_s = self.get_time() - self._begin_s
        total_s = (passed_s + _TYPICAL_WEIGHT * _TYPICAL_S) / (fraction + _TYPICAL_WEIGHT)
        for later in names[at:]:
            self.update(self._rows[later], expected_s=total_s * self._spans[later])
        if not self._tasks[self._rows[name]].started:
            self.start_task(self._rows[name])

    def _finish(self, names: Iterable[str]) -> None:
        for name in names:
            row = self._rows[name]
            if not self._tasks[row].finished:
                self.start_task(row)
                self.update(row, completed=1.0)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Advance the bar of the current stage, and return the rows."""
        for row in self._rows.values():
            task = self._tasks[row]
            if task.started and not task.finished and task.elapsed is not None:
                share = task.elapsed / max(task.fields.get("expected_s", _TYPICAL_S), 0.1)
                self.update(row, completed=min(share, _MOST))
        yield from super().get_renderables()


class _Spinner(SpinnerColumn):
    """A spinner for the current stage, a check mark for finished ones."""

    def render(self, task: Task) -> RenderableType:
        """Return the symbol of a row."""
        return super().render(task) if task.started else Text(" ")


class _TimeColumn(ProgressColumn):
    """Duration of a finished stage, otherwise the time left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the text of a row."""
        if task.finished:
            return Text(f"{task.finished_time or 0.0:.1f} s", style="green")
        left = _left_s(task)
        if left is None or left < 1.0:  # unknown, or longer than estimated
            return Text("" if task.elapsed is None else f"{duration(task.elapsed)} elapsed")
        return Text(f"{duration(left)} left" if task.started else f"about {duration(left)}")


def _left_s(task: Task) -> float | None:
    """Return the time left of a row in seconds; None if unknown."""
    known: float | None = task.fields.get("left_s")
    expected: float | None = task.fields.get("expected_s")
    passed = task.elapsed or 0.0
    if known is not None:
        return known
    if expected is not None:
        return expected - passed
    if task.total and task.completed > 0.0:
        return passed * (task.total / task.completed - 1.0)
    return None
