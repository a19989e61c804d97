"""`leakloc tune`: optimize settings on a cohort and evaluate them on a held-out part."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.cli.shared import settings_of
from leakloc.core.errors import OutputError
from leakloc.validation.evaluation.tune import find_pairs, parse_ranges, tune


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    settings = settings_of(options)
    space = parse_ranges(options.search, settings)
    pairs = find_pairs(options.studies, options.truth)
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
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
