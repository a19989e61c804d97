"""Evaluation of the whole analysis on simulated contrast on real anatomy.

Each case is processed like a patient study: written as DICOM, read, triaged and analyzed.
The anatomy is that of SPIDER patients; contrast and epidural fluid are simulated. Results are
reported separately by patient split: networks of leakloc are trained on the development patients,
never on the test patients.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from leakloc.core.errors import InputError
from leakloc.core.settings import Settings
from leakloc.validation.evaluation.annotation import read_case
from leakloc.validation.evaluation.cases import Case, compare, failed_case
from leakloc.validation.evaluation.cohort import Cohort, as_text, table_lines
from leakloc.validation.evaluation.phantoms import (
    Method,
    Task,
    leakloc_method,
    run_method,
    run_tasks,
)
from leakloc.validation.evaluation.sheet import Tile, make_tile
from leakloc.validation.evaluation.study_cache import cached_simulation
from leakloc.validation.phantom import find_scenario
from leakloc.validation.simulation import (
    CAVEAT,
    DEVELOPMENT_PATIENTS,
    SCENARIOS,
    TEST_PATIENTS,
    Patient,
    SimulationScenario,
    list_patients,
    read_patient,
    simulate,
)
from leakloc.validation.simulation.dicom import write_study

if TYPE_CHECKING:
    from leakloc.core.clock import Progress

Split = Literal["development", "test"]

SIMULATED_CAVEAT: Final = (
    f"{CAVEAT} Epidural fluid is simulated; no patient with a leak, no clinical validation."
)

PATIENTS_OF: Final[dict[Split, tuple[str, ...]]] = {
    "development": DEVELOPMENT_PATIENTS,
    "test": TEST_PATIENTS,
}

_TRAINING: Final = {
    "development": "networks of leakloc are trained on them",
    "test": "no network of leakloc is trained on them",
    "other": "not in the split of this version",
}


class SimulatedCohort(Cohort):
    """Cases of simulated contrast on real anatomy, reported by patient split."""

    def splits(self) -> dict[str, SimulatedCohort]:
        """Return the cases of development patients, test patients, and any others."""
        names = {c.case: _split_of(c.patient) for c in self.cases}
        return {
            name: SimulatedCohort(tuple(c for c in self.cases if names[c.case] == name))
            for name in _TRAINING
            if name in names.values()
        }

    def summary(self) -> dict[str, Any]:
        """Return the pooled metrics of all studies with fat suppression in the header.

        The expected result without it is "indeterminate"; such studies count in their own row only.
        """
        fat = {name for name, scenario in SCENARIOS.items() if scenario.fat == "none"}
        return Cohort(tuple(c for c in self.cases if c.group not in fat)).summary()

    def to_dict(self) -> dict[str, Any]:
        """Return cases and summary, with the metrics of each split and its scenarios."""
        splits = {
            name: {
                "patients": sorted({c.patient for c in part.cases}),
                "training": _TRAINING[name],
                "summary": part.summary(),
                "scenarios": {group: of.summary() for group, of in part.groups().items()},
            }
            for name, part in self.splits().items()
        }
        return {**super().to_dict(), "splits": splits}

    def to_text(self) -> str:
        """Return one table with pooled metrics for each split, as text."""
        lines: list[str] = []
        for name, part in self.splits().items():
            count = len({c.patient for c in part.cases})
            lines += [f"{name} patients ({count}; {_TRAINING[name]})"]
            groups = [*part.groups().items(), ("all with fat suppression", part)]
            lines += table_lines(_COLUMNS, [(group, _summary(of)) for group, of in groups])
            lines += [f"{c.case}: {c.error}" for c in part.cases if c.error]
            lines += [*part._summary_lines(), *_additional_lines(part.summary()), ""]
        return "\n".join([*lines, self.caveat])


@dataclass(frozen=True)
class _Task(Task[SimulationScenario]):
    folder: Path
    patient: str


def evaluate_simulated(
    folder: Path,
    scenarios: Sequence[str | SimulationScenario] | None,
    seeds: Iterable[int],
    settings: Settings,
    *,
    patients: Iterable[str] | None = None,
    method: Method = leakloc_method,
    workers: int = 1,
    keep: Path | None = None,
    tiles: list[Tile] | None = None,
    progress: Progress | None = None,
) -> SimulatedCohort:
    """Analyze simulated studies and compare them with the ground truth.

    Parameters
    ----------
    folder : Path
        Contains ``spider-NNN_T2SPACE.nii.gz``, ``_mask.nii.gz`` and ``_discs.json``.
    scenarios : sequence of str or SimulationScenario, or None
        Names from `leakloc.validation.simulation.SCENARIOS`, or custom ones; None for all.
    seeds : iterable of int
        Random seeds of fluid and contrast.
    settings : Settings
    patients : iterable of str, optional
        Patient numbers; by default those of `leakloc.validation.simulation.TEST_PATIENTS` that
        are in the folder.
    method : callable
        Method to evaluate, such as `leakloc.validation.evaluation.baseline.textbook_method`.
    workers : int
        Number of parallel processes.
    keep : Path, optional
        Folder in which written studies are cached.
    tiles : list, optional
        Receives an image of each case, for `contact_sheet`.
    progress : callable, optional

    Raises
    ------
    InputError
        If the folder lacks a patient.
    SettingsError
        If a scenario is unknown.
    """
    present = list_patients(folder)
    wanted = list(patients) if patients is not None else [n for n in TEST_PATIENTS if n in present]
    missing = [number for number in wanted if number not in present]
    if missing or not wanted:
        raise InputError(f"{folder} lacks patient {', '.join(missing or TEST_PATIENTS)} of SPIDER")
    chosen = (
        [find_scenario(s, SCENARIOS) for s in scenarios] if scenarios else list(SCENARIOS.values())
    )
    numbers = list(seeds)
    tasks = [
        _Task(scenario, seed, settings, method, keep, tiles is not None, folder, patient)
        for patient in wanted
        for scenario in chosen
        for seed in numbers
    ]
    return SimulatedCohort(run_tasks(_case, tasks, workers, tiles, progress), SIMULATED_CAVEAT)


@lru_cache(maxsize=1)
def _patient(folder: Path, number: str) -> Patient:
    return read_patient(folder, number)


def _case(task: _Task) -> tuple[Case, Tile | None]:
    def write(folder: Path) -> None:
        patient = _patient(task.folder, task.patient)
        write_study(simulate(patient, task.scenario, task.seed), folder)

    if task.keep is not None:
        cached = cached_simulation(task.scenario, task.patient, task.seed, task.keep, write)
        return _measure(task, cached)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return _measure(task, Path(folder))


def _measure(task: _Task, folder: Path) -> tuple[Case, Tile | None]:
    """Analyze the study in ``folder/dicom`` and compare it with ``folder/truth``."""
    name = f"{task.scenario.name}_{task.patient}_{task.seed}"
    truth = replace(read_case(folder), case=name)
    run = run_method(folder, task.settings, task.method)
    tile = None
    if run.result is None:
        case = failed_case(truth, name, run.error)
    else:
        predicted, image = run.result
        # Without a myelogram the companion may be analyzed; its masks are on another grid.
        case = compare(predicted, truth, resample=True)
        tile = make_tile(name, image, predicted, truth, case) if task.with_tile else None
    case = replace(
        case,
        group=task.scenario.name,
        seed=task.seed,
        patient=task.patient,
        runtime_s=run.runtime_s,
    )
    return case, tile


def _split_of(patient: str) -> str:
    return next((name for name, numbers in PATIENTS_OF.items() if patient in numbers), "other")


_COLUMNS: Final = (
    ("studies", "cases", ""), ("sac Dice", "sac_dice", ".3f"), ("HD95", "sac_hd95_mm", ".1f"),
    ("fluid Dice", "fluid_dice", ".3f"), ("over 5 mL", "fluid_dice_over_5_ml", ".3f"),
    ("detected", "collections_detected", ""), ("false positives", "false_positive_collections", ""),
    ("def./prob.", "definite_or_probable_false_positives", ""),
    ("mL, no leak", "false_positive_ml_per_leak_free_study", ".1f"),
    ("position", "position_correct", ".0%"), ("segment", "level_exact", ".0%"),
    ("within 1", "level_within_one", ".0%"), ("present/absent/indet.", "leak_counts", ""),
    ("s", "runtime_s", ".1f"),
)  # fmt: skip


def _summary(part: Cohort) -> dict[str, Any]:
    summary = part.summary()
    counts = (summary["leak_status"].get(k, 0) for k in ("present", "absent", "indeterminate"))
    return {**summary, "leak_counts": "/".join(map(str, counts))}


def _additional_lines(s: dict[str, Any]) -> list[str]:
    """Return text lines of a split in addition to those of `Cohort`."""
    lines = []
    if s["false_positives_per_leak_free_study"] is not None:
        lines.append(
            f"per leak-free study: {s['false_positives_per_leak_free_study']:.2f} false positives, "
            f"{s['definite_or_probable_false_positives_per_leak_free_study']:.2f} of them "
            "definite or probable; "
            f"{as_text(s['false_positive_ml_per_leak_free_study'], '.2f')} mL of detected "
            "epidural fluid"
        )
    if not s["definite_false_positives"].endswith("/0"):
        lines.append(
            f"false positives among collections graded definite {s['definite_false_positives']}"
        )
    if s["notes"]:
        notes = sorted(s["notes"].items(), key=lambda item: -item[1])
        lines.append("studies with a warning: " + ", ".join(f"{k} {n}" for k, n in notes))
    return lines
