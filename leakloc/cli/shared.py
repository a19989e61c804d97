"""Shared code of the commands: exit codes, options, settings, progress and tables."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import SettingsError

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.pipeline import Progress
    from leakloc.report.model import Report

DONE: Final = 0
BAD_USAGE: Final = 2
INPUT_UNUSABLE: Final = 3
ANALYSIS_FAILED: Final = 4

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def common_options() -> argparse.ArgumentParser:
    """Return the options of every command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="print details to stderr")
    common.add_argument("--json", action="store_true", help="print JSON")
    return common


def recipe_options() -> argparse.ArgumentParser:
    """Return the options of commands that use settings; `settings_of` reads them."""
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument(
        "--pipeline",
        metavar="NAME|FILE",
        help="recipe: postoperative, spontaneous, research, or a TOML file",
    )
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting (repeatable); see `leakloc config`",
    )
    return recipe


def study_options() -> argparse.ArgumentParser:
    """Return the options of commands that read one study."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("study", type=Path, metavar="STUDY", help="folder, archive or file")
    choice.add_argument(
        "--study", dest="study_uid", metavar="UID", help="Study Instance UID, if there are several"
    )
    choice.add_argument("--myelogram", metavar="UID", help="series used to detect fluid")
    choice.add_argument(
        "--companion", action="append", default=[], metavar="UID", help="series used to name levels"
    )
    return choice


def output_options() -> argparse.ArgumentParser:
    """Return the options of commands that write reports; `settings_of` reads them."""
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument(
        "--write",
        metavar="LIST",
        help="outputs in addition to report.json, comma-separated: masks, png, html, seg, sr, "
        "sc, relabel, csv, pdf, html3d",
    )
    return output


def numbering_options() -> argparse.ArgumentParser:
    """Return the options that override the numbering of levels."""
    options = argparse.ArgumentParser(add_help=False)
    numbering = options.add_argument_group("numbering (overrides the analysis)")
    numbering.add_argument(
        "--anchor", metavar="DISC@X,Y,Z", help="a disc and a point in it, LPS mm: L4-L5@-3,12,-88"
    )
    numbering.add_argument("--lumbar-count", type=int, choices=(4, 5, 6), help="lumbar vertebrae")
    numbering.add_argument("--lowest-disc", metavar="DISC", help="the lowest well-formed disc")
    numbering.add_argument(
        "--levels", type=Path, metavar="FILE", help="edited levels.json of an earlier report"
    )
    numbering.add_argument(
        "--levels-from", type=Path, metavar="FILE", help="level map of another program"
    )
    numbering.add_argument(
        "--scheme",
        metavar="NAME|TOML",
        help="label scheme of that map: totalspineseg, spineps, totalsegmentator, "
        "totalsegmentator_mr, sct, spider, leakloc, or a TOML file",
    )
    return options


def check_numbering(options: argparse.Namespace) -> None:
    """Reject contradictory options of `numbering_options`."""
    if options.levels and options.levels_from:
        raise SettingsError("--levels and --levels-from both name the levels; specify only one")
    if bool(options.levels_from) != bool(options.scheme):
        raise SettingsError("--levels-from requires --scheme, which defines its label values")


def print_report(report: Report, folder: Path, *, as_json: bool) -> None:
    """Print the finding, the notes and the paths of the outputs."""
    if as_json:
        print(report.to_json())
        return
    print(report.finding.summary)
    for warning in report.quality.warnings:
        print(f"  note: {warning.message}")
    print(f"report: {folder / 'report.json'}")
    for picture in report.outputs.overlays:
        print(f"image: {folder / picture}")
    if report.outputs.html:
        print(f"HTML report: {folder / report.outputs.html}")
    print(report.notice)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings: the recipe, then each `--set`, then `--write`."""
    from leakloc.core.settings import Settings, find_recipe

    settings = Settings.load(find_recipe(options.pipeline)) if options.pipeline else Settings()
    changes: dict[str, object] = {}
    for change in options.set:
        name, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"--set requires SECTION.KEY=VALUE, not {change!r}")
        try:
            changes[name.replace(".", "__", 1)] = json.loads(text)
        except json.JSONDecodeError:
            changes[name.replace(".", "__", 1)] = text
    if getattr(options, "write", None) is not None:
        changes["report__write"] = parts_to_write(options.write)
    return settings.changed(**changes)


def parts_to_write(text: str) -> list[str]:
    """Return the outputs listed by `--write`, always including report.json."""
    parts = [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(["json", *(part for part in parts if part)]))


class ProgressLine:
    """Progress display: one updated line on a terminal; plain lines with -v; else none."""

    def __init__(self, *, verbose: bool) -> None:
        self._lines = verbose
        self._line = sys.stderr.isatty() and not verbose

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._line:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _show(self, what: str, fraction: float) -> None:
        if self._lines:
            print(f"{fraction:4.0%} {what}", file=sys.stderr, flush=True)
        elif self._line:
            print(f"\r\x1b[2K{fraction:4.0%} {what} ...", end="", file=sys.stderr, flush=True)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C: running jobs are requeued, finished ones are kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_table(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    """Print an aligned table; unprintable characters are replaced."""
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for text in [list(columns), *texts]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip()
        )


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(f"{number:.3g}" for number in value)
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)
