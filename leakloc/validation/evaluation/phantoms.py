"""Evaluation of the whole analysis on phantom studies.

Each case is processed like a patient study: written as DICOM, read, triaged and analyzed.
Results on phantoms are upper bounds and do not apply to patients.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from leakloc.core.errors import GeometryError, LeaklocError
from leakloc.core.settings import Settings
from leakloc.core.volume import Volume
from leakloc.loaders import load_study
from leakloc.pipeline import analyze
from leakloc.validation.evaluation.annotation import (
    Annotation,
    annotation_from_analysis,
    annotation_from_phantom,
    annotation_without_masks,
    read_case,
)
from leakloc.validation.evaluation.cases import Case, compare, failed_case
from leakloc.validation.evaluation.cohort import PHANTOM_CAVEAT, Cohort
from leakloc.validation.evaluation.sheet import Tile, make_tile
from leakloc.validation.evaluation.study_cache import cached_phantom
from leakloc.validation.phantom import (
    SCENARIOS,
    Phantom,
    Scenario,
    find_scenario,
    make_phantom,
    write_study,
)

if TYPE_CHECKING:
    from leakloc.core.clock import Progress
    from leakloc.loaders.study import Study

AnyTask = TypeVar("AnyTask")
AnyScenario = TypeVar("AnyScenario")

Method = Callable[["Study", Settings], tuple[Annotation, Volume]]
"""Method to evaluate: returns the annotation of a study and the analyzed volume."""


def leakloc_method(study: Study, settings: Settings) -> tuple[Annotation, Volume]:
    """Run the whole analysis of leakloc on a study."""
    analysis = analyze(study, settings)
    return annotation_from_analysis(analysis), analysis.triage.myelogram


@dataclass(frozen=True)
class MethodRun:
    """One run of a method; `result` is None and `error` a message if it failed."""

    result: tuple[Annotation, Volume] | None
    error: str
    runtime_s: float


def run_method(folder: Path, settings: Settings, method: Method) -> MethodRun:
    """Run a method on the study in ``folder/dicom``."""
    start = time.perf_counter()
    try:
        result = method(load_study(folder / "dicom", settings.loaders), settings)
    except LeaklocError as error:
        return MethodRun(None, str(error), time.perf_counter() - start)
    return MethodRun(result, "", time.perf_counter() - start)


@dataclass(frozen=True)
class Task(Generic[AnyScenario]):
    """One case to evaluate."""

    scenario: AnyScenario
    seed: int
    settings: Settings
    method: Method
    keep: Path | None
    with_tile: bool


def evaluate_phantoms(
    scenarios: Sequence[str | Scenario] | None,
    seeds: Iterable[int],
    settings: Settings,
    *,
    method: Method = leakloc_method,
    workers: int = 1,
    keep: Path | None = None,
    tiles: list[Tile] | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Analyze phantom studies and compare them with the ground truth.

    Parameters
    ----------
    scenarios : sequence of str or Scenario, or None
        Names from `leakloc.validation.phantom.SCENARIOS`, or custom ones; None for all.
    seeds : iterable of int
        Random seeds of the anatomy.
    settings : Settings
    method : callable
        Method to evaluate, such as `leakloc.validation.evaluation.baseline.textbook_method`.
    workers : int
        Number of parallel processes.
    keep : Path, optional
        Folder in which rendered phantoms are cached.
    tiles : list, optional
        Receives an image of each case, for `contact_sheet`.
    progress : callable, optional

    Raises
    ------
    SettingsError
        If a scenario is unknown.
    """
    wanted = [find_scenario(s, SCENARIOS) for s in scenarios or SCENARIOS]
    tasks = [
        Task(scenario, seed, settings, method, keep, tiles is not None)
        for scenario in wanted
        for seed in seeds
    ]
    return Cohort(run_tasks(_case, tasks, workers, tiles, progress), PHANTOM_CAVEAT)


def run_tasks(
    evaluate: Callable[[AnyTask], tuple[Case, Tile | None]],
    tasks: Sequence[AnyTask],
    workers: int,
    tiles: list[Tile] | None,
    progress: Progress | None,
) -> tuple[Case, ...]:
    """Return the cases of the tasks in task order, computed in `workers` processes."""
    cases: list[Case] = []
    with ExitStack() as stack:
        results: Iterable[tuple[Case, Tile | None]] = map(evaluate, tasks)
        if workers > 1:
            results = stack.enter_context(ProcessPoolExecutor(workers)).map(evaluate, tasks)
        for case, tile in results:
            cases.append(case)
            if tiles is not None and tile is not None:
                tiles.append(tile)
            if progress is not None:
                progress(case.case, len(cases) / len(tasks))
    return tuple(cases)


def _case(task: Task[Scenario]) -> tuple[Case, Tile | None]:
    phantom = make_phantom(task.scenario, task.seed)
    if task.keep is not None:
        return _measure(phantom, cached_phantom(task.scenario, task.seed, task.keep), task)
    with tempfile.TemporaryDirectory() as folder:
        write_study(phantom, Path(folder), truth=False)
        return _measure(phantom, Path(folder), task)


def _measure(phantom: Phantom, folder: Path, task: Task[Scenario]) -> tuple[Case, Tile | None]:
    """Analyze the study in ``folder/dicom`` and compare it with the phantom's ground truth."""
    scenario = phantom.scenario
    name = f"{scenario.name}_{phantom.seed}"
    has_depth = any(series in ("ht2w_3d", "ht2w_bssfp") for series in scenario.series)
    run = run_method(folder, task.settings, task.method)
    tile = None
    if run.result is None:
        truth = annotation_without_masks(phantom.truth, name)
        case = failed_case(truth, name, run.error, refusal_correct=not has_depth)
    else:
        predicted, image = run.result
        case, truth = _compare_on_grid(phantom, folder, predicted)
        case = replace(case, refusal_correct=has_depth)
        tile = make_tile(name, image, predicted, truth, case) if task.with_tile else None
    case = replace(case, group=scenario.name, seed=phantom.seed, runtime_s=run.runtime_s)
    return case, tile


def _compare_on_grid(
    phantom: Phantom, folder: Path, predicted: Annotation
) -> tuple[Case, Annotation]:
    if (folder / "truth" / "truth.json").is_file():
        truth = read_case(folder)
        try:
            return compare(predicted, truth), truth
        except GeometryError:
            pass  # analyzed on another grid, such as composed stations
    truth = annotation_from_phantom(phantom, predicted.thecal_sac)
    return compare(predicted, truth), truth
