"""Progress of a command on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from leakloc.cli.shared import duration
from leakloc.core.extras import LazyModule

if TYPE_CHECKING:
    from leakloc.cli import bars
else:  # rich is needed only on a terminal
    bars = LazyModule("leakloc.cli.bars")

_LINE_EVERY_S: Final = 30.0  # interval of the lines of a long command in a log file


class ProgressDisplay:
    """Display of the progress of a command; see `leakloc.pipeline.Progress` for its arguments.

    On a terminal, one bar per stage with the time left, or one bar without stages. Elsewhere one
    line per stage, or one line every 30 seconds; with `verbose`, one line per call.

    Parameters
    ----------
    verbose : bool
        Print a line for each call, also on a terminal.
    quiet : bool
        Print nothing.
    stages : mapping, optional
        Stages of the command in order, with the fraction of the run time before each, 0..1.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        quiet: bool = False,
        stages: Mapping[str, float] | None = None,
    ) -> None:
        self._stages = stages or {}
        self._quiet, self._verbose = quiet, verbose
        self._bars: bars.Bars | None = None
        self._printed_s = time.monotonic()
        self._stage: str | None = None

    def __enter__(self) -> ProgressDisplay:
        if sys.stderr.isatty() and not (self._quiet or self._verbose):
            self._bars = bars.Bars(self._stages)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, what: str, fraction: float | None, left_s: float | None = None) -> None:
        """Show what is done now.

        Parameters
        ----------
        what : str
            A stage, or the current step.
        fraction : float or None
            Completed fraction, 0..1; None if unknown.
        left_s : float, optional
            Time left, in seconds, if the caller knows it.
        """
        if self._bars is not None:
            self._bars.show(what, fraction, left_s)
        elif not self._quiet and (self._verbose or self._is_due(what)):
            percent = "" if fraction is None else f"{fraction:4.0%} "
            left = "" if left_s is None else f", {duration(left_s)} left"
            print(f"{percent}{what}{left}", file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Print a line, above the bars if there are any."""
        if self._bars is not None:
            self._bars.line(text)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def _is_due(self, what: str) -> bool:
        now, before = time.monotonic(), self._stage
        self._stage = what
        if what in self._stages:
            return what != before
        if now - self._printed_s < _LINE_EVERY_S:
            return False
        self._printed_s = now
        return True
