"""Agreement statistics of a cohort: proportions, volumes, levels, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from leakloc.core.volume import FloatArray

NORMAL_975: Final = 1.959963984540054
"""97.5th percentile of the normal distribution: two-sided intervals of 95 %."""

RELIABILITY_BINS: Final = 5
"""Number of confidence bins, for cohorts of tens of findings."""

BOOTSTRAP_RESAMPLES: Final = 2000
"""Bootstrap resamples: the limits of a Dice interval are stable to the third decimal."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion; (0, 1) without trials.

    Wilson, J Am Stat Assoc 1927;22:209.
    """
    if trials == 0:
        return 0.0, 1.0
    z = NORMAL_975
    p = successes / trials
    center = p + z * z / (2 * trials)
    half = z * float(np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)))
    scale = 1 + z * z / trials
    return max((center - half) / scale, 0.0), min((center + half) / scale, 1.0)


def mean_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean; NaN below three finite values.

    Efron, Ann Stat 1979;7:1. The random seed is fixed.

    Parameters
    ----------
    values : array_like
        One value per case, such as its Dice; NaN if undefined.
    """
    known = np.asarray(values, dtype=float).ravel()
    known = known[np.isfinite(known)]
    if len(known) < 3:
        return float("nan"), float("nan")
    interval = bootstrap(
        (known,),
        np.mean,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class BlandAltman:
    """Bland-Altman agreement of two measurements, in their unit.

    Parameters
    ----------
    bias : float
        Mean of detected - true.
    low, high : float
        Limits of agreement: bias -/+ 1.96 standard deviations of the differences.
    n : int
        Number of pairs.
    """

    bias: float
    low: float
    high: float
    n: int


def bland_altman(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> BlandAltman:
    """Return bias and limits of agreement; NaN below two pairs.

    Bland and Altman, Lancet 1986;1:307.
    """
    predicted, truth = _pairs(predicted, truth)
    difference = predicted - truth
    if len(difference) < 2:
        nan = float("nan")
        return BlandAltman(
            float(difference[0]) if len(difference) else nan, nan, nan, len(predicted)
        )
    bias, spread = float(difference.mean()), NORMAL_975 * float(difference.std(ddof=1))
    return BlandAltman(bias, bias - spread, bias + spread, len(difference))


def icc_2_1(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return ICC(2,1), absolute agreement of two raters; NaN below three pairs.

    Shrout and Fleiss, Psychol Bull 1979;86:420.
    """
    predicted, truth = _pairs(predicted, truth)
    n, raters = len(predicted), 2
    if n < 3:
        return float("nan")
    ratings = np.stack([predicted, truth], axis=1)
    mean = ratings.mean()
    between = raters * ((ratings.mean(axis=1) - mean) ** 2).sum() / (n - 1)
    raters_ms = n * ((ratings.mean(axis=0) - mean) ** 2).sum() / (raters - 1)
    residual = ratings - ratings.mean(axis=1, keepdims=True) - ratings.mean(axis=0) + mean
    error = (residual**2).sum() / ((n - 1) * (raters - 1))
    denominator = between + (raters - 1) * error + raters * (raters_ms - error) / n
    return float((between - error) / denominator) if denominator > 0 else float("nan")


def weighted_kappa(predicted: Sequence[int], truth: Sequence[int]) -> float:
    """Return linearly weighted Cohen's kappa; NaN if the expected disagreement is 0.

    Cohen, Psychol Bull 1968;70:213. With two categories it is the unweighted kappa.

    Parameters
    ----------
    predicted, truth : sequence of int
        Category number of each case by both raters, in category order.
    """
    a, b = np.asarray(predicted, dtype=int), np.asarray(truth, dtype=int)
    if a.size == 0:
        return float("nan")
    observed = float(np.abs(a - b).mean())
    expected = float(np.abs(a[:, None] - b[None, :]).mean())
    return 1.0 - observed / expected if expected > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Reliability:
    """Calibration of confidence: fraction correct against stated confidence.

    Parameters
    ----------
    confidence, fraction_correct : ndarray, shape (bins,)
        Mean confidence and fraction correct of each non-empty bin.
    counts : ndarray, shape (bins,)
        Number of cases in each bin.
    brier : float
        Mean squared difference of confidence and outcome: 0 is best, 0.25 is chance.
    calibration_error : float
        Expected calibration error: mean |confidence - fraction correct| over cases.
    """

    confidence: FloatArray
    fraction_correct: FloatArray
    counts: npt.NDArray[np.int64]
    brier: float
    calibration_error: float


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> Reliability:
    """Return the calibration of stated confidence, 0 to 1, against correctness."""
    p, y = _pairs(confidence, np.asarray(correct, dtype=float))
    if len(p) == 0:
        empty = np.empty(0)
        return Reliability(empty, empty, np.empty(0, np.int64), float("nan"), float("nan"))
    number = np.minimum((p * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    bins = [number == n for n in range(RELIABILITY_BINS) if (number == n).any()]
    mean = np.array([p[b].mean() for b in bins])
    fraction = np.array([y[b].mean() for b in bins])
    counts = np.array([b.sum() for b in bins], dtype=np.int64)
    return Reliability(
        mean,
        fraction,
        counts,
        float(((p - y) ** 2).mean()),
        float((counts * np.abs(mean - fraction)).sum() / counts.sum()),
    )


def _pairs(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as floats, without pairs of which either value is not finite."""
    x, y = np.asarray(a, dtype=float).ravel(), np.asarray(b, dtype=float).ravel()
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]
