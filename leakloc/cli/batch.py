"""`leakloc batch`: analyze many studies and write their reports and a worklist."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.cli.shared import (
    ANALYSIS_FAILED,
    DONE,
    common_options,
    print_table,
    recipe_options,
    settings_of,
    terminated_like_interrupted,
)

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands
    from leakloc.services.batch.batch import Tally
    from leakloc.services.batch.ledger import Entry, State
    from leakloc.services.batch.run import Outcome

SOME_FAILED: Final = 5
"""Exit code of a batch in which some studies succeeded and some failed."""
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_SIZES: Final = {"": 1, "M": 1, "G": 1024, "T": 1024**2}
_LINE_EVERY_S: Final = 30.0  # interval of progress lines in a log file


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    batch = commands.add_parser(
        "batch",
        parents=[recipe_options(), common_options()],
        help="analyze many studies and list the results",
        description="Finds studies, analyzes them in parallel and lists them in OUT/index.html. "
        "Run it again to resume an interrupted batch. Exit code: 0 all succeeded, 5 some failed, "
        "4 all failed, 3 no study found, 2 incorrect usage.",
    )
    batch.add_argument(
        "roots",
        nargs="*",
        type=Path,
        metavar="ROOT",
        help="folder, archive, image, DICOMDIR, or CSV file with a column `path`",
    )
    batch.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="output folder"
    )
    batch.add_argument(
        "--workers", type=_count, metavar="N", help="parallel analyses (number of cores)"
    )
    batch.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT|FILE", help="run on this Dask cluster instead"
    )
    batch.add_argument(
        "--timeout",
        type=_seconds,
        default=1800.0,
        metavar="TIME",
        help="time limit per study, e.g. 90s, 10m, 1h; 0 for none (30m)",
    )
    batch.add_argument(
        "--memory-limit",
        type=_mebibytes,
        metavar="SIZE",
        help="memory limit per study, e.g. 1500M, 4G (available memory / workers)",
    )
    batch.add_argument(
        "--retries", type=int, default=1, metavar="N", help="retries of a failed study (1)"
    )
    batch.add_argument("--force", action="store_true", help="reanalyze finished studies")
    batch.add_argument(
        "--watch",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="analyze studies as they arrive in DIR, until interrupted",
    )
    batch.add_argument(
        "--settle",
        type=_seconds,
        default=60.0,
        metavar="TIME",
        help="with --watch: analyze a study once unchanged for TIME (60s)",
    )
    batch.add_argument("--status", action="store_true", help="only list the jobs recorded in OUT")
    batch.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    if options.status:
        return _status(options)
    from leakloc.core.errors import SettingsError
    from leakloc.services.batch.batch import Batch
    from leakloc.services.batch.engine import WorkOptions

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
    show = _Display(verbose=options.verbose)
    batch = Batch(
        options.output,
        settings_of(options),
        work,
        force=options.force,
        watcher=show.tally,
        ended=show.ended,
        finding=show.finding,
    )
    with terminated_like_interrupted(), show:
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
    else:
        _print_summary(tally, options.output)
    return _code(tally)


def _code(tally: Tally) -> int:
    if not tally.failed:
        return DONE
    return SOME_FAILED if tally.finished else ANALYSIS_FAILED


def _print_summary(tally: Tally, output: Path) -> None:
    print(
        f"{tally.finished} of {tally.found} studies finished ({tally.kept} of them earlier), "
        f"{tally.failed} failed"
    )
    for reason, count in tally.left_out.items():
        print(f"  skipped: {count} {reason}")
    if tally.failed:
        print(f"  reasons: leakloc batch --status -o {output}")
    print(f"worklist: {output / 'index.html'}")
    print(f"table: {output / 'summary.csv'}")


def _status(options: argparse.Namespace) -> int:
    from leakloc.core.errors import InputError
    from leakloc.services.batch.ledger import LEDGER_NAME, Ledger

    if not (options.output / LEDGER_NAME).exists():
        raise InputError(f"{options.output} contains no job database of a batch")
    entries = Ledger(options.output).entries()
    if options.json:
        from dataclasses import asdict

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
    """Progress display: one updated line on a terminal, periodic lines in a log."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._live = sys.stderr.isatty()
        self._last = time.monotonic()

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def finding(self, n_files: int) -> None:
        self._line(f"looking for studies: {n_files} files")

    def tally(self, tally: Tally) -> None:
        self._line(format_progress(tally))

    def ended(self, entry: Entry, state: State, outcome: Outcome) -> None:
        if self._verbose:
            why = f": {outcome.error_class}: {outcome.error_message}" if outcome.error_class else ""
            clear = "\r\x1b[2K" if self._live else ""
            took = f"{outcome.wall_s:.1f} s, {outcome.peak_mib:.0f} MiB"
            print(f"{clear}{entry.name} {state.value} ({took}){why}", file=sys.stderr, flush=True)

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if self._live:
            print(f"\r\x1b[2K{text} ...", end="", file=sys.stderr, flush=True)
        elif now - self._last >= _LINE_EVERY_S:
            self._last = now
            print(text, file=sys.stderr, flush=True)


def format_progress(tally: Tally) -> str:
    """Return the progress of a batch in one line."""
    left = tally.waiting + tally.running
    total = tally.finished + tally.failed + left
    text = f"{tally.finished} of {total} finished, {tally.failed} failed, {left} left"
    if tally.seconds_left is not None and left:
        text += f", {_duration(tally.seconds_left)} to go"
    return text if tally.workers else f"{text}; waiting for workers"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("requires a number >= 1")
    return int(text)


def _seconds(text: str) -> float:
    return _parse_quantity(text, _UNITS, "a time such as 90s, 10m or 1h")


def _mebibytes(text: str) -> float:
    return _parse_quantity(
        text.removesuffix("iB").removesuffix("B"), _SIZES, "a size such as 1500M or 4G"
    )


def _parse_quantity(text: str, units: dict[str, int], wanted: str) -> float:
    number = text.rstrip("".join(units))
    try:
        value = float(number) * units[text[len(number) :]]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"requires {wanted}, not {text!r}")
    return value
