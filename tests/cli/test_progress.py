from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from leakloc.cli import progress as module
from leakloc.cli.bars import Bars
from leakloc.cli.progress import ProgressDisplay
from leakloc.pipeline import STAGES

CALLS = (("reading", 0.0), ("reading", 0.2), ("segmentation", 0.5), ("done", 1.0))
TWO = {"reading": 0.0, "segmentation": 0.5}


def printed(capsys: pytest.CaptureFixture[str], **options: object) -> list[str]:
    with ProgressDisplay(**options) as show:
        for what, fraction in CALLS:
            show(what, fraction)
    return capsys.readouterr().err.splitlines()


def test_one_line_per_stage_where_there_is_no_terminal(capsys):
    assert printed(capsys, stages=TWO) == ["  0% reading", " 50% segmentation"]


def test_a_command_without_stages_prints_a_line_every_30_seconds(capsys, monkeypatch):
    seconds = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    assert printed(capsys) == [" 20% reading", "100% done"]


def test_verbose_prints_every_call_and_quiet_none(capsys):
    assert len(printed(capsys, verbose=True)) == len(CALLS)
    assert printed(capsys, quiet=True, stages=TWO) == []


def test_time_left_is_part_of_a_line(capsys):
    with ProgressDisplay(verbose=True) as show:
        show("4 of 10 finished", 0.4, 300.0)
        show.line("study-1 done")
    assert capsys.readouterr().err == " 40% 4 of 10 finished, 5 min left\nstudy-1 done\n"


def test_terminal_shows_bars(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with ProgressDisplay(stages=TWO) as show:
        for what, fraction in CALLS:
            show(what, fraction)
        show.line("[not markup]")
    text = sys.stderr.getvalue()
    assert "segmentation" in text and "✓" in text and "[not markup]" in text


def rows(bars: Bars) -> list[str]:
    with bars.console.capture() as captured:
        bars.console.print(*bars.get_renderables())
    return [line.rstrip() for line in captured.get().splitlines()]


def bars_at(now: list[float], stages: dict[str, float]) -> Bars:
    bars = Bars(stages, Console(file=io.StringIO(), width=80), lambda: now[0])
    for column in bars.columns:
        column.max_refresh = None
    return bars


def test_time_left_of_a_stage_follows_from_the_preceding_ones():
    clock = [0.0]
    bars = bars_at(clock, TWO)
    bars.show("reading", 0.0, None)
    clock[0] = 100.0
    bars.show("segmentation", 0.5, None)
    first, second = rows(bars)
    assert first.endswith("100.0 s") and "✓" in first
    # (100 + 0.05 x 15) / (0.5 + 0.05) s in total, half of it for this stage.
    assert second.endswith("2 min left")
    clock[0] = 150.0
    assert rows(bars)[1].endswith("42 s left")
    clock[0] = 300.0
    assert rows(bars)[1].endswith("3 min elapsed")
    bars.show("done", 1.0, None)
    assert rows(bars)[1].endswith("200.0 s")


def test_time_left_of_a_count():
    clock = [0.0]
    bars = bars_at(clock, {})
    bars.show("case 1", 0.25, None)
    clock[0] = 20.0
    (row,) = rows(bars)
    assert "case 1" in row and row.endswith("60 s left")
    bars.show("case 2", 0.5, 7.0)
    assert rows(bars)[0].endswith("7 s left")


def test_stages_of_an_analysis_are_in_order():
    starts = list(STAGES.values())
    assert starts[0] == 0.0 and starts == sorted(set(starts)) and starts[-1] < 1.0
