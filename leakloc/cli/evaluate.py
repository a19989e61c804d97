"""`leakloc evaluate`: the analysis measured against known truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from leakloc.cli.shared import DONE, ProgressLine, common_options, recipe_options, settings_of
from leakloc.errors import SettingsError

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    evaluate = commands.add_parser(
        "evaluate",
        parents=[recipe_options(), common_options()],
        help="measure the analysis on phantoms, or on the volumes of SPIDER",
    )
    evaluate.add_argument("--phantom", nargs="*", metavar="NAME", help="scenarios (default: all)")
    evaluate.add_argument("--seeds", default="100-104", metavar="A-B", help="seeds (100-104)")
    evaluate.add_argument("--spider", type=Path, metavar="DIR", help="folder of SPIDER volumes")
    evaluate.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    evaluate.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from leakloc.evaluation import evaluate_phantoms, evaluate_spider, spider_json, spider_text

    if options.spider is not None:
        with ProgressLine(verbose=options.verbose) as progress:
            cases = evaluate_spider(options.spider, settings_of(options), progress=progress)
        print(spider_json(cases) if options.json else spider_text(cases))
        return DONE
    first, _, last = options.seeds.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        raise SettingsError(
            f"--seeds takes a number or a range A-B, not {options.seeds!r}"
        ) from None
    with ProgressLine(verbose=options.verbose) as progress:
        table = evaluate_phantoms(
            options.phantom or None,
            seeds,
            settings_of(options),
            workers=options.workers,
            progress=progress,
        )
    print(table.to_json() if options.json else table.to_text())
    return DONE
