"""`leakloc batch`: analyze many studies and write their reports and a worklist."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.cli.codes import ANALYSIS_FAILED, DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.cli.shared import print_table, settings_of
from leakloc.core.errors import InputError, SettingsError, counted
from leakloc.services.batch.batch import Batch
from leakloc.services.batch.engine import WorkOptions
from leakloc.services.batch.ledger import LEDGER_NAME, Ledger

if TYPE_CHECKING:
    from leakloc.services.batch.batch import Tally
    from leakloc.services.batch.ledger import Entry, State
    from leakloc.services.batch.run import Outcome

SOME_FAILED: Final = 5
"""Exit code of a batch in which some studies succeeded and some failed."""


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.status:
        return _status(options)
    if not options.roots and not options.watch:
        raise SettingsError("specify at least one ROOT, or --watch DIR")
    if options.retries < 0:
        raise SettingsError("--retries requires a number >= 0")
    work = WorkOptions(
        workers=options.workers,
        scheduler=options.scheduler,
        timeout_s=options.timeout or None,
        memory_mib=options.memory_limit,
        retries=options.retries,
    )
    progress = ProgressDisplay(quiet=options.quiet)
    show = _Display(progress, verbose=options.verbose)
    batch = Batch(
        options.output,
        settings_of(options),
        work,
        force=options.force,
        watcher=show.tally,
        ended=show.ended,
        finding=show.finding,
    )
    with progress:
        tally = batch.run(options.roots, watch=options.watch, settle_s=options.settle)
    if options.json:
        print(
            json.dumps(
                {
                    "finished": tally.finished,
                    "failed": tally.failed,
                    "kept": tally.kept,
                    "left_out": tally.left_out,
                }
            )
        )
    elif not options.quiet:
        _print_summary(tally, options.output)
    return _code(tally)


def _code(tally: Tally) -> int:
    if not tally.failed:
        return DONE
    return SOME_FAILED if tally.finished else ANALYSIS_FAILED


def _print_summary(tally: Tally, output: Path) -> None:
    print(
        f"{tally.finished} of {counted(tally.found, 'studies')} finished "
        f"({tally.kept} of them earlier), "
        f"{tally.failed} failed"
    )
    for reason, count in tally.left_out.items():
        print(f"  skipped: {counted(count, reason)}")
    if tally.failed:
        print(f"  reasons: leakloc batch --status -o {output}")
    print(f"worklist: {output / 'index.html'}")
    print(f"table: {output / 'summary.csv'}")


def _status(options: argparse.Namespace) -> int:
    if not (options.output / LEDGER_NAME).exists():
        raise InputError(f"{options.output} contains no job database of a batch")
    entries = Ledger(options.output).entries()
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return DONE
    rows: list[dict[str, object]] = [
        {
            "study": entry.name,
            "state": entry.state.value,
            "tries": entry.attempts,
            "seconds": None if entry.wall_s is None else round(entry.wall_s, 1),
            "MiB": None if entry.peak_mib is None else round(entry.peak_mib),
            "error": entry.error_class and f"{entry.error_class}: {entry.error_message}",
            "source": entry.source[0] + (" ..." if len(entry.source) > 1 else ""),
        }
        for entry in entries
    ]
    print_table(rows, ("study", "state", "tries", "seconds", "MiB", "error", "source"))
    return DONE


class _Display:
    """Progress of a batch: a bar on a terminal, periodic lines in a log."""

    def __init__(self, progress: ProgressDisplay, *, verbose: bool) -> None:
        self._progress = progress
        self._verbose = verbose

    def finding(self, n_files: int) -> None:
        self._progress(f"looking for studies: {counted(n_files, 'files')}", None)

    def tally(self, tally: Tally) -> None:
        done = tally.finished + tally.failed
        total = done + tally.waiting + tally.running
        self._progress(format_progress(tally), done / total if total else None, tally.seconds_left)

    def ended(self, entry: Entry, state: State, outcome: Outcome) -> None:
        if self._verbose:
            why = f": {outcome.error_class}: {outcome.error_message}" if outcome.error_class else ""
            took = f"{outcome.wall_s:.1f} s, {outcome.peak_mib:.0f} MiB"
            self._progress.line(f"{entry.name} {state.value} ({took}){why}")


def format_progress(tally: Tally) -> str:
    """Return the progress of a batch in one line."""
    left = tally.waiting + tally.running
    total = tally.finished + tally.failed + left
    text = f"{tally.finished} of {total} finished, {tally.failed} failed, {left} to do"
    return text if tally.workers else f"{text}; waiting for workers"
