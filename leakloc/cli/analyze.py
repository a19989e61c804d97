"""`leakloc analyze`: analyze one study and write its report."""

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
    print_report,
    recipe_options,
    settings_of,
    study_options,
)

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    analyze = commands.add_parser(
        "analyze",
        parents=[
            study_options(),
            recipe_options(),
            output_options(),
            numbering_options(),
            common_options(),
        ],
        help="detect and localize epidural fluid",
    )
    analyze.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="output folder"
    )
    analyze.add_argument("--overwrite", action="store_true", help="overwrite a report in OUT")
    analyze.add_argument(
        "--sac", type=Path, metavar="MASK", help="use this mask file as the thecal sac"
    )
    analyze.add_argument(
        "--fluid", type=Path, metavar="MASK", help="use this mask file as the epidural fluid"
    )
    analyze.add_argument(
        "--sac-label", type=int, metavar="N", help="label of the sac, if the mask contains several"
    )
    analyze.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.pipeline import analyze

    check_numbering(options)
    known = {
        f"levels__{name}": getattr(options, name)
        for name in ("anchor", "lumbar_count", "lowest_disc")
        if getattr(options, name) is not None
    }
    with ProgressLine(verbose=options.verbose) as progress:
        report = analyze(
            options.study,
            settings_of(options).changed(**known),
            output=options.output,
            study_uid=options.study_uid,
            overwrite=options.overwrite,
            progress=progress,
            myelogram_uid=options.myelogram,
            companion_uids=tuple(options.companion),
            sac=options.sac,
            fluid=options.fluid,
            sac_label=options.sac_label,
            levels=options.levels or options.levels_from,
            level_scheme=options.scheme,
        ).report
    print_report(report, options.output, as_json=options.json)
    return DONE
