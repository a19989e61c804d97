"""The whole analysis measured on phantom studies.

Each case goes the way a patient's study does: written as DICOM, read back, triaged,
analysed. Figures from phantoms are upper bounds; they say nothing about patients.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.errors import LeaklocError, SettingsError
from leakloc.evaluation.metrics import dice, hd95_mm, match_collections, wilson_interval

if TYPE_CHECKING:
    from leakloc.phantom import Phantom
    from leakloc.pipeline import Analysis, Progress
    from leakloc.settings import Settings

VERTEBRA_TOLERANCE_MM: Final = 10.0
"""A vertebra is right where its centre lies this near the true centre of the same name."""

SMALLEST_COLLECTION_ML: Final = 0.5
"""True collections below this volume are not counted as missed."""


@dataclass(frozen=True)
class PhantomCase:
    """One analysed phantom study; NaN where a figure does not apply."""

    scenario: str
    seed: int
    error: str
    """Why the analysis was refused or failed; empty where it ran."""
    refusal_right: bool
    """Whether refusing (or not) was the right answer for this scenario."""
    sac_dice: float
    sac_hd95_mm: float
    fluid_dice: float
    fluid_volume_error: float
    """(found - true) / true volume of all collections, partial volume as fractions."""
    true_collections: int
    found_collections: int
    invented_collections: int
    leak_true: str
    leak_found: str
    levels_exact: int
    """Matched collections whose segment is the true one."""
    levels_within_one: int
    vertebrae_true: int
    """True vertebrae C2 to S1 whose centres lie in the field."""
    vertebrae_right: int
    numbering_confidence: float
    transitional_true: bool
    transitional_found: bool
    path_error_mm: float
    """Largest error of the canal distance from the hiatus, over matched collections."""
    runtime_s: float


@dataclass(frozen=True)
class PhantomTable:
    """All cases, and their summary."""

    cases: tuple[PhantomCase, ...]

    def to_json(self) -> str:
        """Cases as a JSON list; NaN as null."""
        rows = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(c).items()}
            for c in self.cases
        ]
        return json.dumps({"cases": rows, "summary": self.summary()}, indent=2)

    def summary(self) -> dict[str, Any]:
        """Pooled figures over all cases."""
        ran = [c for c in self.cases if not c.error]
        true = sum(c.true_collections for c in ran)
        found = sum(c.found_collections for c in ran)
        free = [c for c in ran if c.leak_true == "absent"]
        vertebrae = sum(c.vertebrae_true for c in ran)
        return {
            "cases": len(self.cases),
            "wrongly_refused_or_failed": sum(not c.refusal_right for c in self.cases),
            "sac_dice": _mean(c.sac_dice for c in ran),
            "sac_hd95_mm": _mean(c.sac_hd95_mm for c in ran),
            "fluid_dice": _mean(c.fluid_dice for c in ran),
            "fluid_volume_error_abs": _mean(abs(c.fluid_volume_error) for c in ran),
            "collections_found": f"{found}/{true}",
            "collections_found_95_interval": wilson_interval(found, true),
            "invented_per_leak_free_study": _mean(c.invented_collections for c in free),
            "leak_right": _mean(c.leak_true == c.leak_found for c in ran),
            "level_exact": _ratio(sum(c.levels_exact for c in ran), found),
            "level_within_one": _ratio(sum(c.levels_within_one for c in ran), found),
            "vertebrae_right": _ratio(sum(c.vertebrae_right for c in ran), vertebrae),
            "path_error_mm": _mean(c.path_error_mm for c in ran),
            "runtime_s": _mean(c.runtime_s for c in ran),
        }

    def to_text(self) -> str:
        """Means per scenario and the pooled summary, as aligned text."""
        header = (
            "scenario", "cases", "sac Dice", "sac HD95", "fluid Dice", "volume",
            "found", "invented", "leak right", "level", "within 1", "vertebrae", "path mm", "s",
        )  # fmt: skip
        rows: list[tuple[str, ...]] = [header]
        for scenario in dict.fromkeys(c.scenario for c in self.cases):
            rows.append(_row(scenario, [c for c in self.cases if c.scenario == scenario]))
        rows.append(_row("all", list(self.cases)))
        widths = [max(len(row[n]) for row in rows) for n in range(len(header))]
        lines = [
            "  ".join(
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        problems = [
            f"{c.scenario} seed {c.seed}: {c.error or 'analysed, but should have been refused'}"
            for c in self.cases
            if not c.refusal_right
        ]
        return "\n".join([*lines, *problems, "Phantoms only; no clinical validation."])


def evaluate_phantoms(
    scenarios: Sequence[str] | None,
    seeds: Iterable[int],
    settings: Settings,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhantomTable:
    """Analyse phantom studies and compare with their truth.

    Parameters
    ----------
    scenarios : sequence of str or None
        Names from `leakloc.phantom.SCENARIOS`; all where None.
    seeds : iterable of int
        Each gives another anatomy.
    settings : Settings
    workers : int
        Processes to run side by side.
    progress : callable, optional

    Raises
    ------
    SettingsError
        If a scenario is unknown.
    """
    from concurrent.futures import ProcessPoolExecutor

    from leakloc.phantom import SCENARIOS

    names = list(scenarios or SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise SettingsError(
            f"no scenario is named {unknown[0]!r}; see `leakloc phantom OUT --list`"
        )
    tasks = [(name, seed, settings) for name in names for seed in seeds]
    cases: list[PhantomCase] = []
    if workers == 1:
        results: Iterable[PhantomCase] = map(_case, tasks)
        pool = None
    else:
        pool = ProcessPoolExecutor(workers)
        results = pool.map(_case, tasks)
    for case in results:
        cases.append(case)
        if progress is not None:
            progress(f"{case.scenario} seed {case.seed}", len(cases) / len(tasks))
    if pool is not None:
        pool.shutdown()
    return PhantomTable(tuple(cases))


def _case(task: tuple[str, int, Settings]) -> PhantomCase:
    from leakloc.loaders import load_study
    from leakloc.phantom import make_phantom, write_study
    from leakloc.pipeline import analyze_study

    scenario, seed, settings = task
    phantom = make_phantom(scenario, seed)
    with tempfile.TemporaryDirectory() as folder:
        write_study(phantom, Path(folder), truth=False)
        start = time.perf_counter()
        try:
            study = load_study(Path(folder) / "dicom", settings.loaders)
            analysis = analyze_study(study, settings)
        except LeaklocError as error:
            return _failed(phantom, scenario, seed, str(error), time.perf_counter() - start)
        return _measured(phantom, scenario, seed, analysis, time.perf_counter() - start)


def _failed(
    phantom: Phantom, scenario: str, seed: int, error: str, runtime_s: float
) -> PhantomCase:
    blank: dict[str, Any] = {f.name: float("nan") for f in fields(PhantomCase)}
    counts = dict.fromkeys(
        (
            "true_collections", "found_collections", "invented_collections", "levels_exact",
            "levels_within_one", "vertebrae_true", "vertebrae_right",
        ),
        0,
    )  # fmt: skip
    return PhantomCase(
        **blank
        | counts
        | {
            "scenario": scenario,
            "seed": seed,
            "error": error,
            "refusal_right": scenario == "slab_only",
            "leak_true": phantom.truth.leak,
            "leak_found": "refused",
            "transitional_true": phantom.truth.lumbar_count != 5,
            "transitional_found": False,
            "runtime_s": runtime_s,
        }
    )


def _measured(
    phantom: Phantom, scenario: str, seed: int, analysis: Analysis, runtime_s: float
) -> PhantomCase:
    truth = phantom.truth
    segmentation, levels = analysis.segmentation, analysis.levels
    geometry = segmentation.thecal_sac.geometry
    masks = phantom.masks(geometry)
    true_sac = masks.thecal_sac.with_array(masks.thecal_sac.array >= 0.5)
    true_ml = float(masks.fluid_fraction.array.sum()) * geometry.voxel_volume_ml
    inside = segmentation.fluid_fraction.array[segmentation.collections.array > 0]
    found_ml = float(inside.sum()) * geometry.voxel_volume_ml
    large = [c for c in truth.collections if c.volume_ml >= SMALLEST_COLLECTION_ML]
    pairs, _, invented = match_collections(segmentation.collections, masks.fluid)
    located = {c.id: c for c in analysis.localization.collections}
    targets = {t.collection: t for t in analysis.localization.planning.targets}
    segments = [d.name for d in levels.discs]
    exact = within = 0
    path_errors = []
    for true in large:
        if true.id not in pairs:
            continue
        found = located[pairs[true.id]]
        exact += found.level == true.level
        within += found.level is not None and _steps_apart(found.level, true.level, segments) <= 1
        target = targets.get(found.id)
        path_mm = target.canal_distance_from_hiatus_mm if target is not None else None
        if path_mm is not None and true.path_length_mm is not None:
            path_errors.append(abs(path_mm - true.path_length_mm))
    right, total = _vertebrae_right(truth.vertebrae, levels.vertebrae, geometry)
    return PhantomCase(
        scenario=scenario,
        seed=seed,
        error="",
        refusal_right=scenario != "slab_only",
        sac_dice=dice(segmentation.thecal_sac.array > 0, true_sac.array),
        sac_hd95_mm=hd95_mm(segmentation.thecal_sac, true_sac),
        fluid_dice=dice(segmentation.collections.array > 0, masks.fluid.array > 0)
        if large
        else float("nan"),
        fluid_volume_error=(found_ml - true_ml) / true_ml if large else float("nan"),
        true_collections=len(large),
        found_collections=sum(c.id in pairs for c in large),
        invented_collections=len(invented),
        leak_true=truth.leak,
        leak_found=analysis.localization.finding.leak,
        levels_exact=exact,
        levels_within_one=within,
        vertebrae_true=total,
        vertebrae_right=right,
        numbering_confidence=levels.numbering.confidence,
        transitional_true=truth.lumbar_count != 5,
        transitional_found=levels.numbering.transitional_suspected,
        path_error_mm=max(path_errors, default=float("nan")),
        runtime_s=runtime_s,
    )


def _vertebrae_right(true: Any, found: Any, geometry: Any) -> tuple[int, int]:
    centers = {v.name: v.center_lps for v in found}
    wanted = [
        v
        for v in true
        if v.name not in ("C1", "S2", "S3", "S4", "S5") and bool(geometry.contains(v.center_lps))
    ]
    right = sum(
        v.name in centers
        and float(np.linalg.norm(centers[v.name] - v.center_lps)) <= VERTEBRA_TOLERANCE_MM
        for v in wanted
    )
    return right, len(wanted)


def _steps_apart(a: str, b: str, segments: list[str]) -> int:
    if a not in segments or b not in segments:
        return 99
    return abs(segments.index(a) - segments.index(b))


def _row(name: str, cases: list[PhantomCase]) -> tuple[str, ...]:
    figures = PhantomTable(tuple(cases)).summary()
    return (
        name,
        str(figures["cases"]),
        _number(figures["sac_dice"], ".3f"),
        _number(figures["sac_hd95_mm"], ".1f"),
        _number(figures["fluid_dice"], ".3f"),
        _number(figures["fluid_volume_error_abs"], ".0%"),
        figures["collections_found"],
        str(sum(c.invented_collections for c in cases)),
        _number(figures["leak_right"], ".0%"),
        _number(figures["level_exact"], ".0%"),
        _number(figures["level_within_one"], ".0%"),
        _number(figures["vertebrae_right"], ".1%"),
        _number(figures["path_error_mm"], ".1f"),
        _number(figures["runtime_s"], ".1f"),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = [float(v) for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
