"""Shared code of the commands: settings, progress and tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.core.errors import SettingsError, printable
from leakloc.core.settings import Settings, find_recipe

if TYPE_CHECKING:
    from leakloc.report.model import Report


def check_numbering(options: argparse.Namespace) -> None:
    """Reject contradictory options of `numbering_options`."""
    if options.levels and options.levels_from:
        raise SettingsError("--levels and --levels-from both name the levels; specify only one")
    if bool(options.levels_from) != bool(options.scheme):
        raise SettingsError("--levels-from requires --scheme, which defines its label values")


def print_report(report: Report, folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the finding, the notes and the paths of the outputs; with `quiet`, JSON only."""
    if as_json:
        print(report.to_json())
        return
    if quiet:
        return
    print(printable(report.finding.summary))
    for warning in report.quality.warnings:
        print(f"  note: {printable(warning.message)}")
    print(f"report: {folder / 'report.json'}")
    for picture in report.outputs.overlays:
        print(f"image: {folder / picture}")
    if report.outputs.html:
        print(f"HTML report: {folder / report.outputs.html}")
    print(report.notice)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings: the recipe, then each `--set`, then `--write`."""
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
    return printable(text)


def duration(seconds: float) -> str:
    """Return a duration as text.

    Examples
    --------
    >>> duration(80.2), duration(600), duration(7200)
    ('80 s', '10 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
