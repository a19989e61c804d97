"""`leakloc tune`: optimize settings on a cohort and evaluate them on a held-out part."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import DONE, ProgressLine, common_options, recipe_options, settings_of
from leakloc.core.errors import OutputError

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    tune = commands.add_parser(
        "tune",
        parents=[recipe_options(), common_options()],
        help="optimize settings on studies with ground truth",
        description="Optimize settings on studies with ground truth, and report the gain of the "
        "best ones on a held-out part. Requires leakloc[research].",
    )
    tune.add_argument("studies", type=Path, metavar="STUDIES", help="folder of studies")
    tune.add_argument(
        "truth", nargs="?", type=Path, metavar="TRUTH",
        help="folder of ground truth by study name (default: truth/ of each study)",
    )  # fmt: skip
    tune.add_argument(
        "--search",
        action="append",
        required=True,
        metavar="SECTION.KEY[=LOW:HIGH]",
        help="setting to optimize (repeatable)",
    )
    tune.add_argument("--trials", type=int, default=30, metavar="N", help="number of trials (30)")
    tune.add_argument(
        "--held-out",
        type=float,
        default=0.3,
        metavar="FRACTION",
        help="held-out fraction of patients (0.3)",
    )
    tune.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of split and search (0)"
    )
    tune.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    tune.add_argument("-o", "--output", type=Path, metavar="TOML", help="recipe file to write")
    tune.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.validation.evaluation.tune import find_pairs, parse_ranges, tune

    settings = settings_of(options)
    space = parse_ranges(options.search, settings)
    pairs = find_pairs(options.studies, options.truth)
    with ProgressLine(verbose=options.verbose) as progress:
        tuning = tune(
            pairs,
            space,
            settings,
            trials=options.trials,
            held_out=options.held_out,
            seed=options.seed,
            workers=options.workers,
            progress=progress,
        )
    if options.output is not None:
        try:
            options.output.write_text(tuning.to_toml(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {options.output}: {error.strerror}") from error
    if options.json:
        gain, low, high = tuning.held_out_gain
        print(
            json.dumps(
                {
                    "changes": tuning.changes,
                    "held_out_gain": gain,
                    "held_out_gain_95_interval": [low, high],
                    "held_out_before": tuning.held_out_before.summary(),
                    "held_out_after": tuning.held_out_after.summary(),
                    "trials": [{"values": v, "score": s} for v, s in tuning.trials],
                },
                indent=2,
            )
        )
    else:
        print(tuning.to_text())
    return DONE
