"""Optimization of settings on a cohort, with evaluation on a held-out part.

The search (Akiba et al., Optuna, KDD 2019) uses only the fitting part. The gain there is
optimistically biased; the gain on the held-out part is unbiased.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tomlkit

from leakloc.core.errors import InputError, LeaklocError, SettingsError, counted
from leakloc.core.extras import LazyModule
from leakloc.core.settings import LoaderSettings, Settings, unknown_setting
from leakloc.loaders import load_study, triage
from leakloc.pipeline import analyze, stage
from leakloc.validation.evaluation.annotation import (
    AnnotatedCollection,
    Annotation,
    annotation_from_analysis,
    is_case,
    read_case,
)
from leakloc.validation.evaluation.cases import Case, compare, failed_case
from leakloc.validation.evaluation.cohort import Cohort, as_text

if TYPE_CHECKING:
    from leakloc.core.clock import Progress
    from leakloc.loaders.study import Study, Triage
    from leakloc.segmentation.result import Segmentation

optuna = LazyModule("optuna", "research")

SEARCHED_SECTIONS: Final = ("segmentation", "levels", "localization")

CACHED_STUDIES: Final = 64
"""Number of studies cached in memory per process: 64 of 50 MB are 3 GB."""

BOOTSTRAPS: Final = 2000
"""Bootstrap resamples of the gain; its limits vary by less than 1 % of the interval width."""

_VARIANT: Final = re.compile(r"_[0-9a-f]{8}$")


@dataclass(frozen=True)
class Range:
    """One setting and its search range.

    Parameters
    ----------
    section, key : str
    low, high : float
    is_integer : bool
        Whether the setting is an integer.
    """

    section: str
    key: str
    low: float
    high: float
    is_integer: bool

    @property
    def name(self) -> str:
        """Name as used by `Settings.changed`."""
        return f"{self.section}__{self.key}"


@dataclass(frozen=True)
class Pair:
    """Paths of a study and its ground truth."""

    name: str
    study: Path
    truth: Path

    @property
    def patient(self) -> str:
        """Unit of splitting; variants of one phantom have the same anatomy."""
        return _VARIANT.sub("", self.name)


@dataclass(frozen=True)
class Tuning:
    """Result of a search and its evaluation.

    Parameters
    ----------
    settings : Settings
        Best settings on the fitting part.
    changes : dict
        Values that differ from the initial settings, by section and key.
    fit_before, fit_after, held_out_before, held_out_after : Cohort
        Fitting and held-out part with the initial and the best settings.
    trials : tuple of (dict, float)
        Values of each trial and their score on the fitting part.
    """

    settings: Settings
    changes: dict[str, dict[str, float]]
    fit_before: Cohort
    fit_after: Cohort
    held_out_before: Cohort
    held_out_after: Cohort
    trials: tuple[tuple[dict[str, float], float], ...]

    @property
    def held_out_gain(self) -> tuple[float, float, float]:
        """Mean gain of the score on the held-out part, and its 95 % bootstrap interval."""
        before, after = (
            np.array([score(c) for c in part.cases])
            for part in (self.held_out_before, self.held_out_after)
        )
        gain = after - before
        rng = np.random.default_rng(0)
        means = gain[rng.integers(0, len(gain), (BOOTSTRAPS, len(gain)))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(gain.mean()), float(low), float(high)

    def to_text(self) -> str:
        """Return a table of both parts before and after, and the changes, as text."""
        lines = [
            "part       settings  cases  score  sac Dice  fluid Dice  detected  false positives"
        ]
        for part, name, cohort in (
            ("fitting", "start", self.fit_before),
            ("fitting", "tuned", self.fit_after),
            ("held-out", "start", self.held_out_before),
            ("held-out", "tuned", self.held_out_after),
        ):
            s = cohort.summary()
            lines.append(
                f"{part:9}  {name:8}  {s['cases']:5}  {mean_score(cohort.cases):.3f}"
                f"  {as_text(s['sac_dice'], '.3f'):>8}  {as_text(s['fluid_dice'], '.3f'):>10}"
                f"  {s['collections_detected']:8}  {s['false_positive_collections']:15}"
            )
        gain, low, high = self.held_out_gain
        conclusion = "" if low > 0 else ": no gain beyond chance"
        lines.append(
            f"gain on the held-out part {gain:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
            f"{conclusion}"
        )
        for section, values in self.changes.items():
            lines += [f"{section}.{key} = {value:g}" for key, value in values.items()]
        if not self.changes:
            lines.append("no trial improved on the initial settings")
        return "\n".join(lines)

    def to_toml(self) -> str:
        """Return a recipe of all settings that differ from the defaults, with the gain."""
        gain, low, high = self.held_out_gain
        document = tomlkit.document()
        recipe = tomlkit.table()
        recipe.add("name", "tuned")
        recipe.add(
            "description",
            f"Tuned on {counted(len(self.fit_after.cases), 'studies')}; gain of the score on "
            f"{counted(len(self.held_out_after.cases), 'studies')} held out {gain:+.4f} "
            f"({low:+.4f} to {high:+.4f}).",
        )
        document.add("recipe", recipe)
        for section, values in self.settings.differences().items():
            table = tomlkit.table()
            for key, value in values.items():
                table.add(key, list(value) if isinstance(value, tuple) else value)
            document.add(section, table)
        return tomlkit.dumps(document)


def score(case: Case) -> float:
    """Return the score of a case, 0 (failed) to 1 (perfect).

    Mean of sac Dice, fluid Dice (1 without true fluid) divided by 1 + false positives, and, if
    available, the fractions of correct levels and of correct vertebrae.
    """
    if case.error:
        return 0.0
    fluid = 1.0 if np.isnan(case.fluid_dice) else case.fluid_dice
    parts = [case.sac_dice, fluid / (1 + case.false_positive_collections)]
    if case.levels_compared:
        parts.append(case.levels_exact / case.levels_compared)
    if case.vertebrae_true:
        parts.append(case.vertebrae_correct / case.vertebrae_true)
    return float(np.nanmean(parts))


def mean_score(cases: Iterable[Case]) -> float:
    """Return the mean `score` of the cases."""
    return float(np.mean([score(c) for c in cases]))


def parse_ranges(wanted: Sequence[str], settings: Settings) -> tuple[Range, ...]:
    """Return the search ranges of settings.

    Parameters
    ----------
    wanted : sequence of str
        ``section.key`` (half to double its value, within its bounds) or
        ``section.key=low:high``.
    settings : Settings
        Initial settings.

    Raises
    ------
    SettingsError
        If a setting is unknown or not a number, or has no default range.
    """
    return tuple(_range(text, settings) for text in wanted)


def _range(text: str, settings: Settings) -> Range:
    name, equals, limits = text.partition("=")
    section, _, key = name.partition(".")
    if section not in SEARCHED_SECTIONS:
        raise SettingsError(
            f"{name!r} cannot be tuned; write SECTION.KEY of {', '.join(SEARCHED_SECTIONS)}"
        )
    model = getattr(settings, section)
    field = type(model).model_fields.get(key)
    value = getattr(model, key, None)
    if field is None:
        raise unknown_setting(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{name!r} is not a number and cannot be tuned")
    if equals:
        try:
            low, high = (float(limit) for limit in limits.split(":"))
        except ValueError:
            raise SettingsError(f"a range is written {name}=LOW:HIGH, not {text!r}") from None
    else:
        low, high = sorted((value / 2, value * 2))
        for bound in field.metadata:
            low = max(low, *(getattr(bound, n) for n in ("ge", "gt") if hasattr(bound, n)), low)
            high = min(high, *(getattr(bound, n) for n in ("le", "lt") if hasattr(bound, n)), high)
    if not low < high:
        raise SettingsError(f"{name!r} has no default range: write {name}=LOW:HIGH")
    for limit in (low, high):
        settings.changed(**{f"{section}__{key}": _cast(limit, isinstance(value, int))})
    return Range(section, key, low, high, isinstance(value, int))


def find_pairs(studies: Path, truth: Path | None = None) -> tuple[Pair, ...]:
    """Return the studies that have a ground truth.

    Parameters
    ----------
    studies : Path
        Folder of studies. Without `truth` each contains ``dicom/`` and ``truth/``, as cached
        phantoms do.
    truth : Path, optional
        Folder with the ground truth of each study under the same name.

    Raises
    ------
    InputError
        If fewer than two patients have a ground truth.
    """
    if not studies.is_dir():
        raise InputError(f"{studies} is not a folder of studies")
    pairs = []
    for path in sorted(studies.iterdir()):
        if path.name.startswith("."):
            continue
        if truth is None:
            if (path / "dicom").is_dir() and is_case(path):
                pairs.append(Pair(path.name, path / "dicom", path))
            continue
        name = path.name.partition(".")[0] if path.is_file() else path.name
        matches = [t for t in sorted(truth.glob(f"{name}*")) if is_case(t)]
        exact = [t for t in matches if t.name.partition(".")[0] == name]
        if exact:
            pairs.append(Pair(name, path, exact[0]))
    if len({pair.patient for pair in pairs}) < 2:
        raise InputError(
            f"{studies} contains {counted(len(pairs), 'studies')} with ground truth; "
            "a search requires at least two patients, one of them held out "
            "(`leakloc evaluate --phantom --keep DIR` creates phantoms)"
        )
    return tuple(pairs)


def split(
    pairs: Sequence[Pair], held_out: float, seed: int
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Split studies by patient into a fitting and a held-out part.

    Raises
    ------
    SettingsError
        If the fraction is not between 0 and 1.
    """
    if not 0 < held_out < 1:
        raise SettingsError(f"the held-out fraction must be between 0 and 1, not {held_out:g}")
    patients = sorted({pair.patient for pair in pairs})
    np.random.default_rng(seed).shuffle(patients)
    count = min(max(round(held_out * len(patients)), 1), len(patients) - 1)
    held_out_patients = set(patients[:count])
    return (
        tuple(pair for pair in pairs if pair.patient not in held_out_patients),
        tuple(pair for pair in pairs if pair.patient in held_out_patients),
    )


def tune(
    pairs: Sequence[Pair],
    space: Sequence[Range],
    settings: Settings,
    *,
    trials: int = 30,
    held_out: float = 0.3,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Tuning:
    """Optimize settings on one part of a cohort and evaluate them on the other.

    Only the segmentation runs if only segmentation settings are searched.

    Parameters
    ----------
    pairs : sequence of Pair
        See `find_pairs`.
    space : sequence of Range
        See `parse_ranges`.
    settings : Settings
        Initial settings, used in the first trial.
    trials : int
    held_out : float
        Fraction of the patients excluded from the search.
    seed : int
        Random seed of the split and the search.
    workers : int
        Number of parallel processes.
    progress : callable, optional

    Raises
    ------
    SettingsError
        If optuna is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fitting, held_out_pairs = split(pairs, held_out, seed)
    full_analysis = any(r.section != "segmentation" for r in space)
    steps = trials + 1  # the last one is the held-out part

    with _runner(workers) as run:

        def evaluate(part: Sequence[Pair], wanted: Settings) -> Cohort:
            return Cohort(tuple(run([(pair, wanted, full_analysis) for pair in part])))

        results: list[tuple[dict[str, float], float]] = []
        cohorts: list[Cohort] = []

        def objective(trial: Any) -> float:
            values = {r.name: _suggest(trial, r) for r in space}
            cohorts.append(evaluate(fitting, settings.changed(**values)))
            results.append((values, mean_score(cohorts[-1].cases)))
            if progress is not None:
                progress(f"trial {len(results)}: {results[-1][1]:.4f}", len(results) / steps)
            return results[-1][1]

        search = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
        )
        search.enqueue_trial({r.name: getattr(getattr(settings, r.section), r.key) for r in space})
        search.optimize(objective, n_trials=trials)
        best = int(np.argmax([value for _, value in results]))
        changes = {
            name: value for name, value in results[best][0].items() if value != results[0][0][name]
        }
        after = settings.changed(**changes)
        held_out_before = evaluate(held_out_pairs, settings)
        held_out_after = evaluate(held_out_pairs, after) if changes else held_out_before
    return Tuning(
        after,
        _group_by_section(changes),
        cohorts[0],
        cohorts[best],
        held_out_before,
        held_out_after,
        tuple(results),
    )


def _suggest(trial: Any, r: Range) -> float:
    if r.is_integer:
        return int(trial.suggest_int(r.name, int(r.low), int(r.high)))
    return _round_to_4_digits(float(trial.suggest_float(r.name, r.low, r.high)))


def _group_by_section(changes: Mapping[str, float]) -> dict[str, dict[str, float]]:
    nested: dict[str, dict[str, float]] = {}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        nested.setdefault(section, {})[key] = value
    return nested


def _round_to_4_digits(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def _cast(value: float, is_integer: bool) -> float:
    return round(value) if is_integer else value


_Task = tuple[Pair, Settings, bool]


@contextmanager
def _runner(workers: int) -> Iterator[Callable[[list[_Task]], Iterable[Case]]]:
    if workers == 1:
        yield lambda tasks: map(_evaluate, tasks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield lambda tasks: pool.map(_evaluate, tasks)


def _evaluate(task: _Task) -> Case:
    pair, settings, full_analysis = task
    truth = _truth(pair.truth)
    try:
        study, chosen = _study(pair.study, settings)
        predicted = _analyze(study, settings) if full_analysis else _segment(chosen, settings)
        return compare(predicted, truth, resample=True)
    except LeaklocError as error:
        return failed_case(truth, pair.name, str(error))


@lru_cache(maxsize=CACHED_STUDIES)
def _truth(path: Path) -> Annotation:
    return read_case(path)


def _study(path: Path, settings: Settings) -> tuple[Study, Triage]:
    return _load(path, settings.loaders.model_dump_json())


@lru_cache(maxsize=CACHED_STUDIES)
def _load(path: Path, loaders: str) -> tuple[Study, Triage]:
    wanted = LoaderSettings.model_validate_json(loaders)
    study = load_study(path, wanted)
    return study, triage(study, wanted)


def _analyze(study: Study, settings: Settings) -> Annotation:
    return annotation_from_analysis(analyze(study, settings))


def _segment(chosen: Triage, settings: Settings) -> Annotation:
    segmenter = stage("leakloc.segmenters", settings.stages.segmenter)
    return annotation_from_segmentation(
        segmenter(chosen.spine, chosen.companions, settings.segmentation)
    )


def annotation_from_segmentation(segmentation: Segmentation) -> Annotation:
    """Return the annotation of a segmentation, without levels and grades."""
    accepted = segmentation.accepted
    return Annotation(
        case="",
        thecal_sac=segmentation.thecal_sac,
        fluid=segmentation.collections,
        fluid_ml=sum(c.volume_ml for c in accepted),
        leak="present" if accepted else "absent",
        collections=tuple(
            AnnotatedCollection(id=c.id, volume_ml=c.volume_ml, confidence=c.probability)
            for c in accepted
        ),
    )
