"""Parameter sweeps: one property of phantom studies is degraded stepwise.

The anatomy of a seed is constant along a sweep, so that a curve shows only this property.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from leakloc.core.errors import SettingsError, suggestion
from leakloc.validation.evaluation.cohort import PHANTOM_CAVEAT, Cohort, as_text
from leakloc.validation.evaluation.phantoms import (
    Method,
    evaluate_phantoms,
    leakloc_method,
)
from leakloc.validation.phantom import SCENARIOS, Scenario, find_scenario
from leakloc.validation.phantom.series import FIELD_MM

if TYPE_CHECKING:
    from leakloc.core.clock import Progress
    from leakloc.core.settings import Settings
    from leakloc.validation.evaluation.sheet import Tile

DEFAULT_SCENARIOS: Final = ("postoperative_dorsal", "circumferential_thin", "normal")
"""A thick collection, a thin collection, and no leak."""

_PLANES: Final[tuple[Literal["sagittal", "coronal", "axial"], ...]] = (
    "sagittal",
    "coronal",
    "axial",
)


@dataclass(frozen=True)
class Parameter:
    """A property of a phantom study that can be degraded.

    Parameters
    ----------
    label : str
        Axis label with unit.
    values : tuple of float
        Steps of the sweep, mildest first.
    apply : callable
        Returns the scenario with the property set to a value.
    names : tuple of str
        Names of the values 0, 1, ... of a categorical property.
    """

    label: str
    values: tuple[float, ...]
    apply: Callable[[Scenario, float], Scenario]
    names: tuple[str, ...] = ()

    def value(self, text: str) -> float:
        """Return a value from its name or number.

        Raises
        ------
        SettingsError
            If the text is neither.
        """
        if text in self.names:
            return float(self.names.index(text))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not math.isfinite(value) or self.names:
            kinds = f"one of {', '.join(self.names)}" if self.names else "a number"
            raise SettingsError(f"{self.label}: {text!r} is not {kinds}")
        return value

    def format_value(self, value: float) -> str:
        """Return a value as text: its name, else its number."""
        return self.names[int(value)] if self.names else f"{value:g}"


def _voxel(scenario: Scenario, mm: float) -> Scenario:
    """Set isotropic voxels over the same field of view."""
    rows, columns, slices = scenario.myelogram_shape
    old = _in_plane_mm(scenario)
    shape = (
        round(rows * old / mm),
        round(columns * old / mm),
        round(slices * scenario.slice_mm / mm),
    )
    return replace(scenario, myelogram_shape=shape, voxel_mm=mm, slice_mm=mm)


def _slice(scenario: Scenario, mm: float) -> Scenario:
    """Set the slice thickness over the same field of view."""
    rows, columns, slices = scenario.myelogram_shape
    count = max(round(slices * scenario.slice_mm / mm), 3)
    return replace(scenario, myelogram_shape=(rows, columns, count), slice_mm=mm)


def _plane(scenario: Scenario, number: float) -> Scenario:
    """Set the acquisition plane with the same voxel size."""
    plane = _PLANES[int(number)]
    if plane == "sagittal":
        return scenario
    rows, columns, slices = scenario.myelogram_shape
    voxel = _in_plane_mm(scenario)
    along, depth, across = rows * voxel, columns * voxel, slices * scenario.slice_mm
    if plane == "coronal":
        shape = (rows, round(across / voxel), round(depth / scenario.slice_mm))
    else:
        shape = (round(depth / voxel), round(across / voxel), round(along / scenario.slice_mm))
    return replace(scenario, plane=plane, myelogram_shape=shape, voxel_mm=voxel)


def _thickness(scenario: Scenario, mm: float) -> Scenario:
    thick = tuple(replace(c, thickness_mm=(mm, mm)) for c in scenario.collections)
    return replace(scenario, collections=thick)


def _in_plane_mm(scenario: Scenario) -> float:
    return scenario.voxel_mm or FIELD_MM[scenario.field_of_view] / scenario.myelogram_shape[0]


PARAMETERS: Final[dict[str, Parameter]] = {
    "snr": Parameter(
        "SNR of CSF", (60, 40, 25, 15, 10, 6), lambda s, v: replace(s, snr=v)
    ),
    "bias": Parameter(
        "relative strength of the receive bias", (0.0, 0.2, 0.4, 0.6, 0.8),
        lambda s, v: replace(s, bias=v),
    ),
    "obliquity": Parameter(
        "tilt of the grid about each axis, degrees", (0, 4, 8, 12, 16, 20),
        lambda s, v: replace(s, obliquity_deg=(v, v)),
    ),
    "scoliosis": Parameter(
        "Cobb angle, degrees", (0, 10, 20, 30, 40), lambda s, v: replace(s, scoliosis_deg=(v, v))
    ),
    "voxel": Parameter("isotropic voxel, mm", (0.8, 1.0, 1.2, 1.5, 2.0), _voxel),
    "slice": Parameter("slice thickness, mm", (0.8, 1.25, 2.0, 3.0, 4.0), _slice),
    "plane": Parameter("acquired plane", (0, 1, 2), _plane, _PLANES),
    "echo-time": Parameter(
        "nominal echo time, ms", (700, 550, 400, 300, 200, 120),
        lambda s, v: replace(s, echo_time_ms=v),
    ),
    "fat": Parameter(
        "fraction of fat signal after suppression", (0.0, 0.07, 0.15, 0.3, 0.5, 1.0),
        lambda s, v: replace(s, fat_residual=v),
    ),
    "pulsation": Parameter(
        "depth of flow voids", (0.0, 0.35, 0.6, 0.9), lambda s, v: replace(s, pulsation=v)
    ),
    "thickness": Parameter("thickness of the fluid, mm", (6, 4, 3, 2, 1.5, 1.0), _thickness),
}  # fmt: skip
"""Sweep parameters by command-line name."""


def find_parameter(name: str) -> Parameter:
    """Return a sweep parameter by name.

    Raises
    ------
    SettingsError
        If no parameter has that name.
    """
    if name not in PARAMETERS:
        hint = suggestion(name, PARAMETERS) or f"; one of: {', '.join(PARAMETERS)}"
        raise SettingsError(f"no sweep parameter is named {name!r}{hint}")
    return PARAMETERS[name]


@dataclass(frozen=True)
class SweepPoint:
    """All cases at one value of the swept property."""

    value: float
    cohort: Cohort


@dataclass(frozen=True)
class Sweep:
    """Metrics as a function of a swept property."""

    parameter: str
    label: str
    scenarios: tuple[str, ...]
    points: tuple[SweepPoint, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values, if the parameter is not a number."""
        return PARAMETERS[self.parameter].names

    def to_text(self) -> str:
        """Return the metrics at each value as aligned text."""
        head = f"{self.label}"
        width = max(len(head), 12)
        format_value = PARAMETERS[self.parameter].format_value
        lines = [
            f"{head:{width}}  {'sac Dice':19}  HD95  {'fluid Dice':19}  detected"
            "  false positives  leak correct  level  vertebrae  refused"
        ]
        for point in self.points:
            s = point.cohort.summary()
            refused = sum(bool(c.error) for c in point.cohort.cases)
            lines.append(
                f"{format_value(point.value):{width}}  {_with_interval(s, 'sac_dice')}"
                f"  {as_text(s['sac_hd95_mm'], '.1f'):>4}  {_with_interval(s, 'fluid_dice')}"
                f"  {s['collections_detected']:>8}  {s['false_positive_collections']:>15}"
                f"  {as_text(s['leak_correct'], '.0%'):>12}  {as_text(s['level_exact'], '.0%'):>5}"
                f"  {as_text(s['vertebrae_correct'], '.0%'):>9}  {refused:>7}"
            )
        cases = f"{', '.join(self.scenarios)}; Dice with the 95 % bootstrap interval of its mean"
        return "\n".join([*lines, f"{cases}. {PHANTOM_CAVEAT}"])

    def to_csv(self) -> str:
        """Return all cases as CSV, with the value of the property in the first column."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        for n, point in enumerate(self.points):
            head, *rows = csv.reader(io.StringIO(point.cohort.to_csv()))
            if n == 0:
                writer.writerow([self.parameter, *head])
            value = PARAMETERS[self.parameter].format_value(point.value)
            writer.writerows([value, *row] for row in rows)
        return stream.getvalue()

    def to_json(self) -> str:
        """Return the summary at each value as JSON."""
        format_value = PARAMETERS[self.parameter].format_value
        points = [
            {"value": p.value, "name": format_value(p.value), **p.cohort.summary()}
            for p in self.points
        ]
        return json.dumps(
            {
                "parameter": self.parameter,
                "label": self.label,
                "scenarios": self.scenarios,
                "points": points,
                "caveat": PHANTOM_CAVEAT,
            },
            indent=2,
            allow_nan=False,
        )


def sweep_phantoms(
    parameter: str,
    scenarios: Sequence[str | Scenario] | None,
    seeds: Iterable[int],
    settings: Settings,
    *,
    values: Sequence[float] | None = None,
    method: Method = leakloc_method,
    workers: int = 1,
    keep: Path | None = None,
    tiles: list[Tile] | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate the analysis while one property of the phantoms is degraded.

    Parameters
    ----------
    parameter : str
        Name from `PARAMETERS`.
    scenarios : sequence of str or Scenario, or None
        None for `DEFAULT_SCENARIOS`.
    seeds : iterable of int
    values : sequence of float, optional
        Steps of the sweep; by default those of the parameter.
    method, workers, keep, tiles, progress
        See `evaluate_phantoms`.

    Raises
    ------
    SettingsError
        If the parameter or a scenario is unknown.
    """
    swept = find_parameter(parameter)
    bases = [_minimal(find_scenario(s, SCENARIOS)) for s in scenarios or DEFAULT_SCENARIOS]
    steps, seeds = tuple(values or swept.values), tuple(seeds)
    points: list[SweepPoint] = []
    for n, value in enumerate(steps):

        def at_value(what: str, fraction: float, n: int = n, value: float = value) -> None:
            if progress is not None:
                progress(
                    f"{parameter} {swept.format_value(value)}: {what}", (n + fraction) / len(steps)
                )

        cohort = evaluate_phantoms(
            [swept.apply(base, value) for base in bases],
            seeds,
            settings,
            method=method,
            workers=workers,
            keep=keep,
            tiles=tiles,
            progress=at_value,
        )
        points.append(SweepPoint(float(value), cohort))
    return Sweep(parameter, swept.label, tuple(base.name for base in bases), tuple(points))


def _minimal(scenario: Scenario) -> Scenario:
    """Return the scenario without series that do not affect any metric."""
    needed = tuple(s for s in scenario.series if s not in ("ht2w_mip", "ht2w_slab"))
    return replace(scenario, series=needed or scenario.series, optional_series=())


def _with_interval(summary: dict[str, Any], key: str) -> str:
    low, high = summary[f"{key}_95_interval"]
    interval = "" if low is None else f" ({low:.3f}-{high:.3f})"
    return f"{as_text(summary[key], '.3f'):>5}{interval}".ljust(19)
