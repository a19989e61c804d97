"""Classification of single disc candidates as presacral, lumbosacral or sacral.

A multinomial logistic model of detector probabilities, depth and tilt, fitted to candidates
of 11 patients of SPIDER (van der Graaf et al., Sci Data 11:264, 2024, CC BY 4.0) and of
phantoms, with equal priors, so that its scores are likelihood ratios. The weights are specific
to the network in ``leakloc/models``: after retraining the network, refit them with
``pipelines/fit_disc_kinds.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.levels.candidates import Candidate

KINDS: Final = ("presacral", "lumbosacral", "first_sacral", "lower_sacral")
"""Kinds of true discs; scores are relative to a false positive."""

_FEATURES: Final = (
    "one", "score", "score2", "bone_above", "bone_below", "bone_below2", "depth", "depth2",
    "tilt", "tilt2", "sacrum_above", "sacrum_below",
)  # fmt: skip
"""Order of the columns: probabilities as log odds, depth relative to the patient's discs."""

_WEIGHTS: Final[FloatArray] = np.array(
    [
        [-6.85, 0.54, 3.69, 0.38, 0.13, -0.25, 0.43, 0.35, 0.70, 0.09, 0.82, -1.12],
        [-12.68, 3.91, 3.61, 1.83, 0.17, -1.05, 0.06, -0.01, 1.25, 0.30, 0.31, 2.62],
        [-0.42, 2.50, 1.66, 1.57, -0.24, -1.53, -0.38, -0.82, 1.88, -0.75, 1.83, 1.82],
        [4.21, 2.34, 2.37, 0.68, 1.10, -3.25, -0.46, -0.64, 0.21, -2.69, 2.64, 1.69],
    ]
)
_MAX_LOG_ODDS: Final = 4.0
"""Log odds are clipped here: the detector is overconfident."""
_TILT_UNIT_DEG: Final = 20.0
_TILT_RANGE_DEG: Final = (-40.0, 70.0)
_USUAL_DEPTH: Final = 0.8
"""Assumed depth if unknown, as a fraction of the patient's deeper discs."""
_MAX_DEPTH: Final = 1.3
_CANAL_TILT_DEG: Final = ((-7.0, 10.0), (25.0, 12.0), (40.0, 15.0), (50.0, 20.0))
"""Mean and standard deviation of the canal's forward tilt at each of `KINDS` (10 patients of SPIDER
and 11 phantoms; sacral values widened because of few samples)."""
_CANAL_TILTS_DEG: Final = 110.0
"""Range of the uniform tilt distribution of false positives."""
_MIN_SCORE: Final = 0.6
"""Minimum score of discs used for the patient's reference depth."""


def kind_scores(candidates: Sequence[Candidate]) -> FloatArray:
    """Log likelihood ratio of each kind of disc versus a false positive.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of one patient: depth is relative to the deepest quarter of them.

    Returns
    -------
    ndarray, shape (n, 4)
        Columns as `KINDS`.
    """
    fitted = kind_features(candidates) @ _WEIGHTS.T
    plain = np.array([_plain_scores(c) for c in candidates]).reshape(-1, len(KINDS))
    unknown = np.array([np.isnan(c.bone_above) and np.isnan(c.bone_below) for c in candidates])
    return np.where(unknown[:, None], plain, fitted)


def _plain_scores(candidate: Candidate) -> FloatArray:
    """Scores from detector score and canal tilt only, if no bone probability is known."""
    mean, sd = np.array(_CANAL_TILT_DEG).T
    deviation = (candidate.tilt_deg - mean) / sd
    likely = -0.5 * deviation**2 - np.log(sd * np.sqrt(2 * np.pi) / _CANAL_TILTS_DEG)
    return np.asarray(_odds(candidate.score) + likely)


def kind_features(candidates: Sequence[Candidate]) -> FloatArray:
    """Features of each candidate.

    Parameters
    ----------
    candidates : sequence of Candidate
        All of one patient, as for `kind_scores`.

    Returns
    -------
    ndarray, shape (n, 12)
        Columns as those of the weights; the first is one.
    """
    depths = [c.depth_mm for c in candidates if np.isfinite(c.depth_mm)]
    clear = [c.depth_mm for c in candidates if np.isfinite(c.depth_mm) and c.score > _MIN_SCORE]
    own = float(np.percentile(clear or depths or [1.0], 75))
    return np.array([_features(c, own) for c in candidates]).reshape(-1, len(_FEATURES))


def _features(candidate: Candidate, own_depth_mm: float) -> FloatArray:
    score = _odds(candidate.score)
    below = _odds(candidate.bone_below)
    depth = candidate.depth_mm / own_depth_mm if np.isfinite(candidate.depth_mm) else _USUAL_DEPTH
    depth = min(depth, _MAX_DEPTH)
    tilt = float(np.clip(candidate.tilt_deg, *_TILT_RANGE_DEG)) / _TILT_UNIT_DEG
    return np.array(
        [
            1.0,
            score,
            score**2 / 4,
            _odds(candidate.bone_above),
            below,
            below**2 / 4,
            depth,
            depth**2,
            tilt,
            tilt**2,
            _odds(candidate.sacrum_above),
            _odds(candidate.sacrum_below),
        ]
    )


def _odds(probability: float) -> float:
    """Log odds, clipped at both ends; 0 if unknown."""
    if not np.isfinite(probability):
        return 0.0
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.clip(np.log(p / (1 - p)), -_MAX_LOG_ODDS, _MAX_LOG_ODDS))
