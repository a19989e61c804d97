"""`leakloc analyze`: analyze one study and write its report."""

from __future__ import annotations

import argparse

from leakloc.cli.codes import DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.cli.shared import check_numbering, print_report, settings_of
from leakloc.pipeline import STAGES, analyze


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_numbering(options)
    known = {
        f"levels__{name}": getattr(options, name)
        for name in ("anchor", "lumbar_count", "lowest_disc")
        if getattr(options, name) is not None
    }
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet, stages=STAGES) as progress:
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
            fluid_label=options.fluid_label or None,
            levels=options.levels or options.levels_from,
            level_scheme=options.scheme,
            corrections=options.corrections,
        ).report
    print_report(report, options.output, as_json=options.json, quiet=options.quiet)
    return DONE
