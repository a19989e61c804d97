"""Plots of an evaluation: agreement, detection, calibration, sweeps."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leakloc.validation.evaluation.agreement import Reliability, wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from leakloc.validation.evaluation.cohort import Cohort
    from leakloc.validation.evaluation.sweep import Sweep

BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
GRAY: Final = "#777777"
"""Colors of Okabe and Ito, distinguishable with color vision deficiency."""


def cohort_figures(cohort: Cohort) -> dict[str, bytes]:
    """Return the figures that the cases support, as PNG files by name."""
    drawn = {
        "dice": dice_figure(cohort),
        "volume": volume_figure(cohort),
        "detection": detection_figure(cohort),
        "reliability": reliability_figure(cohort),
    }
    return {name: png(figure) for name, figure in drawn.items() if figure is not None}


def dice_figure(cohort: Cohort) -> Figure | None:
    """Plot Dice of sac and fluid by group, one point per case."""
    groups = list(cohort.groups().items())
    rows = [(c.sac_dice, c.fluid_dice) for _, part in groups for c in part.completed]
    if not rows or not np.isfinite(rows).any():
        return None
    figure = _figure(7.0, 1.2 + 0.28 * len(groups))
    axes = figure.subplots()
    for row, (_, part) in enumerate(groups):
        for name, color, shift in (("sac_dice", BLUE, -0.12), ("fluid_dice", ORANGE, 0.12)):
            values = np.array([getattr(c, name) for c in part.completed], dtype=float)
            label = name.replace("_dice", "").replace("sac", "thecal sac") if row == 0 else None
            axes.plot(
                values, np.full(len(values), row + shift), "o", ms=4, color=color, label=label
            )
    axes.set_yticks(range(len(groups)), [name or "all" for name, _ in groups])
    axes.invert_yaxis()
    axes.set_xlabel("Dice")
    axes.set_xlim(right=1.0)
    axes.legend(loc="lower left", frameon=False)
    return _finish(figure, axes, cohort.caveat)


def volume_figure(cohort: Cohort) -> Figure | None:
    """Draw a Bland-Altman plot of fluid volume."""
    agreement = cohort.volume_agreement
    if agreement.n < 2:
        return None
    with_fluid = [c for c in cohort.completed if c.fluid_true_ml > 0 or c.fluid_detected_ml > 0]
    detected = np.array([c.fluid_detected_ml for c in with_fluid])
    true = np.array([c.fluid_true_ml for c in with_fluid])
    figure = _figure(6.0, 4.0)
    axes = figure.subplots()
    axes.plot((detected + true) / 2, detected - true, "o", ms=4, color=BLUE)
    for value, name in (
        (agreement.bias, "bias"),
        (agreement.low, "lower limit"),
        (agreement.high, "upper limit"),
    ):
        axes.axhline(value, color=GRAY, lw=1, ls="-" if name == "bias" else "--")
        axes.annotate(
            f"{name} {value:+.2f}",
            (1.0, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    axes.set_xlabel("mean of detected and true fluid volume, mL")
    axes.set_ylabel("detected - true, mL")
    return _finish(figure, axes, cohort.caveat)


def detection_figure(cohort: Cohort) -> Figure | None:
    """Plot the fraction of collections detected by volume, with Wilson intervals."""
    rows = [row for row in cohort.detection_by_volume() if row[2]]
    if not rows:
        return None
    figure = _figure(5.0, 3.2)
    axes = figure.subplots()
    for n, (_, hits, total) in enumerate(rows):
        low, high = wilson_interval(hits, total)
        axes.plot([n, n], [low, high], color=GRAY, lw=2)
        axes.plot(n, hits / total, "o", color=BLUE)
        axes.annotate(f"{hits}/{total}", (n, hits / total), (6, 0), textcoords="offset points")
    axes.set_xticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.3)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("true volume")
    axes.set_ylabel("fraction detected")
    return _finish(figure, axes, cohort.caveat)


def reliability_figure(cohort: Cohort) -> Figure | None:
    """Plot the fraction correct against stated confidence."""
    curves = [
        ("collections", cohort.reliability, BLUE),
        ("numbering", cohort.numbering_reliability, ORANGE),
    ]
    curves = [(name, curve, color) for name, curve, color in curves if len(curve.counts)]
    if not curves:
        return None
    figure = _figure(4.2, 4.0)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, lw=1)
    for name, curve, color in curves:
        _reliability(axes, name, curve, color)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("stated confidence")
    axes.set_ylabel("fraction correct")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    return _finish(figure, axes, cohort.caveat)


def _reliability(axes: Axes, name: str, curve: Reliability, color: str) -> None:
    label = f"{name}: Brier {curve.brier:.3f}"
    axes.plot(curve.confidence, curve.fraction_correct, "o-", color=color, label=label)
    for x, y, n in zip(curve.confidence, curve.fraction_correct, curve.counts, strict=True):
        axes.annotate(f"n={n}", (x, y), (4, -10), textcoords="offset points", fontsize=7)


def sweep_figure(sweep: Sweep) -> Figure:
    """Plot Dice, detection and false positives against severity, with 95 % intervals."""
    figure = _figure(9.0, 3.4)
    left, right = figure.subplots(1, 2)
    x = np.array([point.value for point in sweep.points])
    parts = [point.cohort.summary() for point in sweep.points]
    for key, color, label in (
        ("sac_dice", BLUE, "thecal sac"),
        ("fluid_dice", ORANGE, "fluid"),
    ):
        left.plot(x, _series(parts, key), "o-", color=color, label=label)
        ends = [[np.nan if e is None else e for e in s[f"{key}_95_interval"]] for s in parts]
        left.vlines(x, *np.array(ends).T, color=color, alpha=0.35, lw=4)
    left.set_ylabel("Dice")
    left.set_ylim(0, 1.0)
    counts = [point.cohort.detected_and_true() for point in sweep.points]
    fraction = np.array([f / t if t else np.nan for f, t in counts])
    bounds = np.array([wilson_interval(f, t) for f, t in counts])
    right.fill_between(x, bounds[:, 0], bounds[:, 1], color=BLUE, alpha=0.15, lw=0)
    right.plot(x, fraction, "o-", color=BLUE, label="collections detected")
    right.plot(x, _series(parts, "level_exact"), "s--", color=GREEN, label="level exact")
    right.plot(
        x,
        [s["false_positive_collections"] / s["cases"] for s in parts],
        "^:",
        color=ORANGE,
        label="false positives per study",
    )
    right.set_ylim(bottom=0)
    for axes in (left, right):
        if sweep.names:
            axes.set_xticks(x, [sweep.names[int(value)] for value in x])
        axes.set_xlabel(sweep.label)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
        _hide_frame(axes)
    figure.suptitle(f"{sweep.label}: {', '.join(sweep.scenarios)}", fontsize=9)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": "leakloc"})
    return stream.getvalue()


def _series(parts: list[dict[str, Any]], key: str) -> list[float]:
    return [float("nan") if s[key] is None else float(s[key]) for s in parts]


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(figure: Figure, axes: Axes, caveat: str) -> Figure:
    _hide_frame(axes)
    if caveat:
        wrapped = textwrap.fill(caveat, int(16 * figure.get_figwidth()))  # 16 characters per inch
        figure.supxlabel(wrapped, fontsize=7, color=GRAY, x=0.99, ha="right")
    return figure


def _hide_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
