from __future__ import annotations

import numpy as np
import pytest

from leakloc.validation.evaluation.agreement import (
    bland_altman,
    icc_2_1,
    mean_interval,
    reliability,
    weighted_kappa,
    wilson_interval,
)


def test_wilson_interval_of_published_example():
    # Newcombe, Stat Med 1998;17:857, table I: 81/263 -> 0.2553 to 0.3662
    low, high = wilson_interval(81, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_bland_altman_of_published_example():
    # Bland and Altman, Lancet 1986;1:307, peak flow by two meters: bias -2.1, SD 38.8 l/min
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    agreement = bland_altman(wright, mini)
    assert agreement.n == 17
    assert agreement.bias == pytest.approx(-2.1, abs=0.05)
    assert (agreement.high - agreement.low) / 2 / 1.96 == pytest.approx(38.8, abs=0.05)


def test_bland_altman_ignores_unknown_values():
    assert bland_altman([1.0, float("nan"), 3.0], [0.0, 1.0, 2.0]).bias == 1.0
    assert np.isnan(bland_altman([1.0], [0.5]).low)


def test_icc_of_published_example():
    # Shrout and Fleiss, Psychol Bull 1979;86:420, table 2, judges 1 and 3 of six targets,
    # and the mean squares worked out by hand.
    one, three = [9, 6, 8, 7, 10, 6], [5, 3, 6, 2, 6, 4]
    both = np.stack([one, three], axis=1).astype(float)
    between = 2 * both.mean(axis=1).var(ddof=1)
    judges = 6 * both.mean(axis=0).var(ddof=1)
    rest = both - both.mean(axis=1, keepdims=True) - both.mean(axis=0) + both.mean()
    error = (rest**2).sum() / 5
    expected = (between - error) / (between + error + 2 * (judges - error) / 6)
    assert icc_2_1(one, three) == pytest.approx(expected)
    assert icc_2_1([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(1.0)
    assert icc_2_1([1, 2, 3, 4], [6, 7, 8, 9]) < 0.2  # a constant shift is not agreement


def test_kappa_of_two_categories_is_cohens():
    # 20 + 15 of 50 agree; Cohen's kappa 0.4
    found = [1] * 25 + [0] * 25
    truth = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert weighted_kappa(found, truth) == pytest.approx(0.4)


def test_kappa_weights_errors_by_distance():
    truth = [0, 1, 2, 3, 4] * 4
    near = [1, 1, 2, 3, 3] * 4
    far = [4, 1, 2, 3, 0] * 4
    assert weighted_kappa(truth, truth) == 1.0
    assert weighted_kappa(near, truth) > weighted_kappa(far, truth) > -1
    assert np.isnan(weighted_kappa([], []))
    assert np.isnan(weighted_kappa([2, 2], [2, 2]))


def test_reliability_of_calibrated_and_overstated_confidence():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 4000)
    y = rng.uniform(0, 1, 4000) < p
    honest = reliability(p, y)
    assert honest.calibration_error < 0.03
    assert honest.counts.sum() == 4000
    assert honest.brier == pytest.approx(1 / 6, abs=0.01)
    boast = reliability(np.full(100, 0.95), np.arange(100) % 2 == 0)
    assert boast.calibration_error == pytest.approx(0.45)
    assert len(reliability([], []).counts) == 0


def test_bootstrap_interval_of_a_mean():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        low, high = mean_interval(rng.normal(0.9, 0.05, 25))
        inside += low <= 0.9 <= high
    assert 0.88 <= inside / 200 <= 0.99  # percentile intervals of 25 are a little narrow
    assert np.isnan(mean_interval([0.9, np.nan, 0.8])).all()
    assert mean_interval([0.5] * 4) == (0.5, 0.5)
    assert mean_interval([0.1, 0.4, 0.9, np.nan]) == mean_interval([0.1, 0.4, 0.9])
