"""`leakloc evaluate`: compare results, or the analysis itself, with ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakloc.cli.codes import DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.cli.shared import settings_of
from leakloc.core.errors import OutputError, SettingsError
from leakloc.core.extras import LazyModule, check_installed
from leakloc.validation.evaluation import (
    contact_sheet,
    evaluate_folders,
    evaluate_phantoms,
    evaluate_readers,
    evaluate_spider,
    readers_json,
    readers_text,
    spider_json,
    spider_text,
)
from leakloc.validation.evaluation.baseline import textbook_method
from leakloc.validation.evaluation.phantoms import leakloc_method
from leakloc.validation.evaluation.simulated import PATIENTS_OF, evaluate_simulated
from leakloc.validation.evaluation.sweep import DEFAULT_SCENARIOS, find_parameter, sweep_phantoms
from leakloc.validation.phantom import SCENARIOS, compact, find_scenario
from leakloc.validation.simulation import CAVEAT

if TYPE_CHECKING:
    from leakloc.validation.evaluation import figures
    from leakloc.validation.evaluation.phantoms import Method
    from leakloc.validation.evaluation.sheet import Tile
    from leakloc.validation.phantom import Scenario
else:  # needs matplotlib
    figures = LazyModule("leakloc.validation.evaluation.figures", "figures")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.readers is not None:
        return _readers(options)
    if options.output is not None:  # before the evaluation, which may take hours
        check_installed(("matplotlib",), "figures")
    if options.found is not None:
        return _folders(options)
    if options.spider is not None:
        return _spider(options)
    if options.simulated is not None:
        return _simulated(options)
    if options.sweep is not None:
        return _sweep(options)
    if options.phantom is None:
        raise SettingsError(
            "specify PRED and TRUTH, or --phantom, --sweep PARAM, --spider DIR, or --simulated DIR"
        )
    return _phantoms(options)


def _folders(options: argparse.Namespace) -> int:
    if options.truth is None:
        raise SettingsError("PRED is compared with TRUTH: specify both")
    if options.sheet is not None:
        raise SettingsError(
            "--sheet requires images: use it with --phantom, --sweep, --spider, --simulated"
        )
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        cohort = evaluate_folders(
            options.found,
            options.truth,
            kind=options.kind,
            label=options.label,
            resample=options.resample,
            progress=progress,
        )
    return _print_result(cohort, options)


def _readers(options: argparse.Namespace) -> int:
    if options.found is None or options.truth is not None:
        raise SettingsError("--readers compares one folder of reports with a table: specify it")
    agreements = evaluate_readers(options.found, options.readers)
    if options.output is not None:
        _write(options.output / "readers.json", readers_json(agreements).encode())
    print(readers_json(agreements) if options.json else readers_text(agreements))
    return DONE


def _phantoms(options: argparse.Namespace) -> int:
    tiles: list[Tile] | None = [] if options.sheet is not None else None
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        cohort = evaluate_phantoms(
            _scenarios(options),
            _seeds(options.seeds or "100-104"),
            settings_of(options),
            method=_method(options),
            workers=options.workers,
            keep=options.keep,
            tiles=tiles,
            progress=progress,
        )
    _write_sheet(options.sheet, tiles)
    return _print_result(cohort, options)


def _sweep(options: argparse.Namespace) -> int:
    swept = find_parameter(options.sweep)
    texts = options.values.split(",") if options.values else ()
    values = [swept.value(text.strip()) for text in texts]
    tiles: list[Tile] | None = [] if options.sheet is not None else None
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        sweep = sweep_phantoms(
            options.sweep,
            _scenarios(options),
            _seeds(options.seeds or "100-104"),
            settings_of(options),
            values=values,
            method=_method(options),
            workers=options.workers,
            keep=options.keep,
            tiles=tiles,
            progress=progress,
        )
    _write_sheet(options.sheet, tiles)
    if options.output is not None:
        name = f"sweep_{sweep.parameter}"
        _write(options.output / f"{name}.csv", sweep.to_csv().encode())
        _write(options.output / f"{name}.json", sweep.to_json().encode())
        _write(options.output / f"{name}.png", figures.png(figures.sweep_figure(sweep)))
    print(sweep.to_json() if options.json else sweep.to_text())
    return DONE


def _spider(options: argparse.Namespace) -> int:
    tiles: list[Tile] | None = [] if options.sheet is not None else None
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        cases = evaluate_spider(
            options.spider,
            settings_of(options),
            patients=_listed(options.patients) or None,
            tiles=tiles,
            progress=progress,
        )
    _write_sheet(options.sheet, tiles)
    print(spider_json(cases) if options.json else spider_text(cases))
    return DONE


def _simulated(options: argparse.Namespace) -> int:
    tiles: list[Tile] | None = [] if options.sheet is not None else None
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        cohort = evaluate_simulated(
            options.simulated,
            _listed(options.scenarios),
            _seeds(options.seeds or "100"),
            settings_of(options),
            patients=_listed(options.patients) or PATIENTS_OF[options.split],
            method=_method(options),
            workers=options.workers,
            keep=options.keep,
            tiles=tiles,
            progress=progress,
        )
    _write_sheet(options.sheet, tiles, CAVEAT)
    return _print_result(cohort, options)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _method(options: argparse.Namespace) -> Method:
    return textbook_method if options.baseline else leakloc_method


def _print_result(cohort: Any, options: argparse.Namespace) -> int:
    if options.output is not None:
        cohort.save(options.output)
    print(cohort.to_json() if options.json else cohort.to_text())
    return DONE


def _scenarios(options: argparse.Namespace) -> list[str | Scenario] | None:
    """Return the requested scenarios; None for the default ones."""
    if not options.compact:
        return options.phantom or None
    names = options.phantom or (DEFAULT_SCENARIOS if options.sweep else list(SCENARIOS))
    chosen = (find_scenario(name, SCENARIOS) for name in names)
    return [compact(found) for found in chosen if found.stations == 1]


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        raise SettingsError(f"--seeds takes a number or a range A-B, not {text!r}") from None


def _write_sheet(path: Path | None, tiles: list[Tile] | None, caveat: str = "") -> None:
    if path is None or tiles is None:
        return
    _write(path, contact_sheet(tiles, caveat))


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
