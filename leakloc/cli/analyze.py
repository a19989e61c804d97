"""`leakloc analyze`: one study in, its report out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import (
    DONE,
    ProgressLine,
    common_options,
    output_options,
    recipe_options,
    settings_of,
    study_options,
)
from leakloc.errors import SettingsError

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    analyze = commands.add_parser(
        "analyze",
        parents=[study_options(), recipe_options(), output_options(), common_options()],
        help="find and place extradural fluid",
    )
    analyze.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder")
    analyze.add_argument("--overwrite", action="store_true", help="replace a report in OUT")
    analyze.add_argument(
        "--sac", type=Path, metavar="MASK", help="take the thecal sac from this mask file"
    )
    analyze.add_argument(
        "--fluid", type=Path, metavar="MASK", help="take the extradural fluid from this mask file"
    )
    analyze.add_argument(
        "--sac-label", type=int, metavar="N", help="label of the sac, if its mask holds several"
    )
    numbering = analyze.add_argument_group("numbering, where you know better")
    numbering.add_argument(
        "--anchor", metavar="DISC@X,Y,Z", help="a disc and a point in it, LPS mm: L4-L5@-3,12,-88"
    )
    numbering.add_argument("--lumbar-count", type=int, choices=(4, 5, 6), help="lumbar vertebrae")
    numbering.add_argument("--lowest-disc", metavar="DISC", help="the lowest well-formed disc")
    numbering.add_argument(
        "--levels", type=Path, metavar="FILE", help="an edited levels.json of an earlier report"
    )
    numbering.add_argument(
        "--levels-from", type=Path, metavar="FILE", help="level map of another program"
    )
    numbering.add_argument(
        "--scheme",
        metavar="NAME|TOML",
        help="what its values mean: totalspineseg, spineps, totalsegmentator, "
        "totalsegmentator_mr, sct, spider, leakloc, or a TOML file",
    )
    analyze.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.pipeline import analyze

    if options.levels and options.levels_from:
        raise SettingsError("--levels and --levels-from name the levels twice; give one of them")
    if bool(options.levels_from) != bool(options.scheme):
        raise SettingsError("--levels-from needs --scheme, which says what its values mean")
    known = {
        f"levels__{name}": getattr(options, name)
        for name in ("anchor", "lumbar_count", "lowest_disc")
        if getattr(options, name) is not None
    }
    with ProgressLine(verbose=options.verbose) as progress:
        report = analyze(
            options.study,
            options.output,
            settings_of(options).changed(**known),
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
        )
    if options.json:
        print(report.to_json())
        return DONE
    print(report.finding.summary)
    for warning in report.quality.warnings:
        print(f"  note: {warning.message}")
    print(f"report: {options.output / 'report.json'}")
    for picture in report.outputs.overlays:
        print(f"picture: {options.output / picture}")
    if report.outputs.html:
        print(f"page: {options.output / report.outputs.html}")
    print(report.notice)
    return DONE
