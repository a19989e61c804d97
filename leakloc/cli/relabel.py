"""`leakloc relabel`: rename the vertebral levels of a finished report without reanalysis."""

from __future__ import annotations

import argparse

from leakloc.cli.codes import DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.cli.shared import check_numbering, parts_to_write, print_report
from leakloc.relabel import relabel


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_numbering(options)
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        report = relabel(
            options.output,
            options.corrections,
            study=options.study,
            write=None if options.write is None else tuple(parts_to_write(options.write)),
            anchor=options.anchor,
            lumbar_count=options.lumbar_count,
            lowest_disc=options.lowest_disc,
            levels=options.levels or options.levels_from,
            level_scheme=options.scheme,
            progress=progress,
        )
    print_report(report, options.output, as_json=options.json, quiet=options.quiet)
    return DONE
