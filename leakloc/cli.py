"""The command line: thin, quick to start, clear about what went wrong.

Exit codes: 0 done, 2 bad usage (arguments, settings, output folder), 3 input unusable,
4 analysis failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc import __version__
from leakloc.errors import (
    InputError,
    LeaklocError,
    OutputError,
    SettingsError,
)

if TYPE_CHECKING:
    from leakloc.pipeline import Progress
    from leakloc.settings import Settings

DONE: Final = 0
BAD_USAGE: Final = 2
INPUT_UNUSABLE: Final = 3
ANALYSIS_FAILED: Final = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except LeaklocError as error:
        print(f"leakloc: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("leakloc: stopped", file=sys.stderr)
        return ANALYSIS_FAILED
    except BrokenPipeError:  # the reader of our output left, e.g. `| head`
        sys.stderr.close()
        return DONE
    except Exception as error:
        if options.verbose:
            raise
        print(
            f"leakloc: the analysis failed unexpectedly ({type(error).__name__}); "
            "run again with -v for details",
            file=sys.stderr,
        )
        return ANALYSIS_FAILED


def exit_code(error: LeaklocError) -> int:
    """Exit code that a command ends with on `error`."""
    if isinstance(error, SettingsError | OutputError):
        return BAD_USAGE
    if isinstance(error, InputError):
        return INPUT_UNUSABLE
    return ANALYSIS_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leakloc",
        description="Finds CSF outside the dura on MR myelography and names the vertebral level. "
        "Research use only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"leakloc {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="say more, to stderr")
    common.add_argument("--json", action="store_true", help="print JSON for machines")
    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument(
        "--pipeline",
        metavar="NAME|FILE",
        help="recipe: postoperative, spontaneous, research, or a TOML file",
    )
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting (repeatable); see `leakloc config`",
    )
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("study", type=Path, metavar="STUDY", help="folder, archive or file")
    choice.add_argument("--study", dest="study_uid", metavar="UID", help="which of several studies")
    choice.add_argument("--myelogram", metavar="UID", help="series to find fluid on")
    choice.add_argument(
        "--companion", action="append", default=[], metavar="UID", help="series to name levels on"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    analyze = commands.add_parser(
        "analyze", parents=[choice, recipe, common], help="find and place extradural fluid"
    )
    analyze.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder")
    analyze.add_argument("--overwrite", action="store_true", help="replace a report in OUT")
    analyze.set_defaults(command=_analyze)

    series = commands.add_parser(
        "series", parents=[choice, recipe, common], help="show each series, its role and why"
    )
    series.set_defaults(command=_series)

    phantom = commands.add_parser(
        "phantom", parents=[common], help="write a phantom study as DICOM, with its truth"
    )
    phantom.add_argument("output", type=Path, metavar="OUT")
    phantom.add_argument("--scenario", default="postoperative_dorsal", metavar="NAME")
    phantom.add_argument("--seed", type=int, default=0, metavar="N")
    phantom.add_argument("--list", action="store_true", help="list the scenarios and stop")
    phantom.set_defaults(command=_phantom)

    evaluate = commands.add_parser(
        "evaluate",
        parents=[recipe, common],
        help="measure the analysis on phantoms, or on the volumes of SPIDER",
    )
    evaluate.add_argument("--phantom", nargs="*", metavar="NAME", help="scenarios (default: all)")
    evaluate.add_argument("--seeds", default="100-104", metavar="A-B", help="seeds (100-104)")
    evaluate.add_argument("--spider", type=Path, metavar="DIR", help="folder of SPIDER volumes")
    evaluate.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    evaluate.set_defaults(command=_evaluate)

    config = commands.add_parser(
        "config", parents=[recipe, common], help="print every setting with its meaning"
    )
    config.set_defaults(command=_config)

    schema = commands.add_parser(
        "schema", parents=[common], help="print the JSON Schema of report.json"
    )
    schema.set_defaults(command=_schema)

    version = commands.add_parser("version", parents=[common], help="print the version")
    version.set_defaults(command=_version)
    return parser


def _analyze(options: argparse.Namespace) -> int:
    from leakloc.pipeline import analyze

    with _ProgressLine(verbose=options.verbose) as progress:
        report = analyze(
            options.study,
            options.output,
            _settings(options),
            study_uid=options.study_uid,
            overwrite=options.overwrite,
            progress=progress,
            myelogram_uid=options.myelogram,
            companion_uids=tuple(options.companion),
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


def _series(options: argparse.Namespace) -> int:
    from collections import Counter

    from leakloc.loaders import load_study, series_table

    settings = _settings(options)
    study = load_study(options.study, settings.loaders, study_uid=options.study_uid)
    rows, skipped = series_table(
        study,
        settings.loaders,
        myelogram_uid=options.myelogram,
        companion_uids=tuple(options.companion),
    )
    if options.json:
        print(json.dumps({"series": rows, "skipped": skipped}, indent=2))
        return DONE
    _print_table(rows)
    if skipped:
        print(f"{len(skipped)} files left out:")
        for reason, count in Counter(str(item["reason"]) for item in skipped).most_common():
            print(f"  {count} x {reason}")
    return DONE


def _phantom(options: argparse.Namespace) -> int:
    from leakloc.phantom import SCENARIOS, make_phantom, write_study

    if options.list:
        if options.json:
            print(json.dumps({name: s.description for name, s in SCENARIOS.items()}, indent=2))
        else:
            width = max(map(len, SCENARIOS))
            for name, scenario in SCENARIOS.items():
                print(f"{name:{width}}  {scenario.description}")
        return DONE
    if options.scenario not in SCENARIOS:
        raise SettingsError(
            f"no scenario is named {options.scenario!r}; see `leakloc phantom OUT --list`"
        )
    if options.output.exists() and any(options.output.iterdir()):
        raise OutputError(f"{options.output} is not empty; name a new folder")
    with _ProgressLine(verbose=options.verbose) as progress:
        phantom = make_phantom(options.scenario, options.seed)
        write_study(phantom, options.output, progress=progress)
    found = {"dicom": str(options.output / "dicom"), "truth": str(options.output / "truth")}
    print(json.dumps(found) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return DONE


def _evaluate(options: argparse.Namespace) -> int:
    from leakloc.evaluation import evaluate_phantoms, evaluate_spider, spider_json, spider_text

    if options.spider is not None:
        with _ProgressLine(verbose=options.verbose) as progress:
            cases = evaluate_spider(options.spider, _settings(options), progress=progress)
        print(spider_json(cases) if options.json else spider_text(cases))
        return DONE
    first, _, last = options.seeds.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        raise SettingsError(
            f"--seeds takes a number or a range A-B, not {options.seeds!r}"
        ) from None
    with _ProgressLine(verbose=options.verbose) as progress:
        table = evaluate_phantoms(
            options.phantom or None,
            seeds,
            _settings(options),
            workers=options.workers,
            progress=progress,
        )
    print(table.to_json() if options.json else table.to_text())
    return DONE


def _config(options: argparse.Namespace) -> int:
    settings = _settings(options)
    print(settings.model_dump_json(indent=2) if options.json else settings.to_toml(), end="")
    return DONE


def _schema(options: argparse.Namespace) -> int:
    from leakloc.report import report_schema

    print(json.dumps(report_schema(), indent=2))
    return DONE


def _version(options: argparse.Namespace) -> int:
    print(json.dumps({"version": __version__}) if options.json else f"leakloc {__version__}")
    return DONE


def _settings(options: argparse.Namespace) -> Settings:
    from leakloc.settings import Settings, find_recipe

    settings = Settings.load(find_recipe(options.pipeline)) if options.pipeline else Settings()
    changes: dict[str, object] = {}
    for change in options.set:
        name, equals, text = change.partition("=")
        if not equals:
            raise SettingsError(f"--set takes SECTION.KEY=VALUE, not {change!r}")
        try:
            changes[name.replace(".", "__", 1)] = json.loads(text)
        except json.JSONDecodeError:
            changes[name.replace(".", "__", 1)] = text
    return settings.changed(**changes)


class _ProgressLine:
    """One line on a terminal that is overwritten; plain lines with -v; else silent."""

    def __init__(self, *, verbose: bool) -> None:
        self._lines = verbose
        self._line = sys.stderr.isatty() and not verbose

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._line:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _show(self, what: str, share: float) -> None:
        if self._lines:
            print(f"{share:4.0%} {what}", file=sys.stderr, flush=True)
        elif self._line:
            print(f"\r\x1b[2K{share:4.0%} {what} ...", end="", file=sys.stderr, flush=True)


def _print_table(rows: Sequence[dict[str, object]]) -> None:
    columns = ("series", "role", "description", "n_instances", "spacing_mm", "reason")
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for text in [list(columns), *texts]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip()
        )


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(f"{number:.3g}" for number in value)
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text)


if __name__ == "__main__":
    raise SystemExit(main())
