"""`leakloc relabel`: other names for the levels of a finished report, without analysing again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import (
    DONE,
    ProgressLine,
    check_numbering,
    common_options,
    numbering_options,
    output_options,
    parts_to_write,
    print_report,
)

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    relabel = commands.add_parser(
        "relabel",
        parents=[numbering_options(), output_options(), common_options()],
        help="name the levels of a finished report anew",
        description="Names the levels of a finished report anew and rewrites it, in a second or "
        "two. Without any option of the numbering the names of the analysis come back.",
    )
    relabel.add_argument("output", type=Path, metavar="OUT", help="folder that analyze wrote")
    relabel.add_argument(
        "--study",
        type=Path,
        metavar="STUDY",
        help="the study it was made from: pictures, page and DICOM objects are made anew too",
    )
    relabel.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.pipeline import relabel

    check_numbering(options)
    with ProgressLine(verbose=options.verbose) as progress:
        report = relabel(
            options.output,
            study=options.study,
            write=None if options.write is None else tuple(parts_to_write(options.write)),
            anchor=options.anchor,
            lumbar_count=options.lumbar_count,
            lowest_disc=options.lowest_disc,
            levels=options.levels or options.levels_from,
            level_scheme=options.scheme,
            progress=progress,
        )
    print_report(report, options.output, as_json=options.json)
    return DONE
