"""`leakloc relabel`: rename the vertebral levels of a finished report without reanalysis."""

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
        help="rename the levels of a finished report",
        description="Renames the levels of a finished report and rewrites it within a second or "
        "two. Without numbering options, the level names of the analysis are restored.",
    )
    relabel.add_argument("output", type=Path, metavar="OUT", help="output folder of analyze")
    relabel.add_argument(
        "--study",
        type=Path,
        metavar="STUDY",
        help="the analyzed study: images, HTML report and DICOM objects are also regenerated",
    )
    relabel.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.relabel import relabel

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
