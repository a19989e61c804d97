"""`leakloc diff`: compare two reports of one patient."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import DONE, common_options

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    diff = commands.add_parser(
        "diff", parents=[common_options()], help="compare two reports of one patient"
    )
    diff.add_argument("before", type=Path, metavar="BEFORE", help="report.json or its folder")
    diff.add_argument("after", type=Path, metavar="AFTER", help="report.json or its folder")
    diff.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.report.compare import compare
    from leakloc.report.model import Report

    found = compare(Report.load(options.before), Report.load(options.after))
    print(json.dumps(found.to_dict(), indent=2) if options.json else found.text)
    return DONE
