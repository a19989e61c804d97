"""Numbering of a chain of disc candidates by one joint optimization.

Each candidate may be any disc from C2-C3 to S4-S5 or a false positive; discs may have been
missed. Dynamic programming finds the assignment that best explains spacing, tilt, depth and
adjacent bone of all candidates, for each body size and number of lumbar vertebrae. Forward and
backward passes give the evidence for every other assignment, and thus the confidence and the
adjacent numberings. Based on the global solver with explicit anomaly hypotheses of VERIDAH
(spineps), with manually chosen costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.reference import FORAMEN_ABOVE_AXIS_MM, ReferenceChain, reference_chain
from leakloc.core.volume import FloatArray
from leakloc.levels.candidates import END_MARGIN_MM, Candidate
from leakloc.levels.conus import Conus, conus_offset
from leakloc.levels.kinds import kind_scores

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings

_LOG_FLOOR: Final = -1e9
"""Log evidence of an impossible assignment; finite, so that differences are defined."""
_MAX_STEP: Final = 3
"""Maximum number of discs from one candidate to the next: two consecutive missed discs."""
_MAX_SKIP: Final = 4
"""Maximum number of candidates skipped between two discs."""
_SIZES: Final = tuple(np.linspace(0.82, 1.22, 10))
"""Body sizes evaluated, relative to the mean adult; steps of 4.5 % are smaller than the variation
of one level."""
_SIZE_SD: Final = 0.08
"""Standard deviation of body size (mean 0.93 in women, 1.05 in men; 5 % within each sex)."""
_PITCH_SD: Final = 0.06
"""Relative standard deviation of the height of one level for a given body size (7 to 8 %)."""
_CENTER_SD_MM: Final = 1.0
"""Standard deviation of the position error of a disc center."""
_MAX_PITCH_PENALTY: Final = 16.0
"""Maximum penalty of a gap, in squared standard deviations, because fused or collapsed levels
exist."""
_PRIOR_LOG_ODDS: Final = 3.0
"""Prior log odds that a candidate in the row of discs is a disc; most are."""
_KIND_WEIGHT: Final = 0.6
"""Weight of the appearance of a single candidate relative to spacing."""
_MAX_KIND_EVIDENCE: Final = 9.0
"""Maximum log odds contributed by the appearance of one candidate."""
_FORAMEN_SD_MM: Final = 4.0
"""Standard deviation of the distance from the foramen magnum to C2 in people of the same size, with
the error of the detected position (up to 2 mm in phantoms)."""
_MAX_FORAMEN_PENALTY: Final = 25.0
"""Maximum penalty of that distance, in squared standard deviations: a false detection of the
foramen magnum is less likely."""
_MISSING_COST: Final = 4.0
"""Log cost of an undetected disc above the sacrum within the field of view."""
_MISSING_SACRAL_COST: Final = 0.1
"""Log cost of an undetected sacral disc; most sacral discs are rudimentary or absent."""
_MAX_MISSING: Final = 2.0
"""Maximum number of consecutive undetected discs counted at an end of the chain: their common cause
may be a slab that leaves the spine."""
_CONUS_SD_LEVELS: Final = 0.5
"""Standard deviation of the conus position between people, in levels (range T12 to L3 in 504)."""
_MAX_CONUS_SD: Final = 2.5
"""Standard deviations from the usual conus position beyond which a false detection is more
likely."""
_TEMPERATURE: Final = 2.0
"""Divisor of the log evidence before it is converted to probability, because neighboring discs are
not independent."""


@dataclass(frozen=True)
class Assignment:
    """Disc candidates with their assigned disc names.

    Parameters
    ----------
    chain : ReferenceChain
        Names and typical sizes; `discs` are indices into it.
    candidates : tuple of int
        Indices of the candidates used, cranial to caudal.
    discs : tuple of int
        Index into ``chain.discs`` of each, strictly increasing.
    scale : float
        Body size relative to the mean adult.
    shifted : dict
        Probability of each caudal shift of all names, by number of discs.
    has_junction : bool
        Whether the lumbosacral disc is among those used.
    has_c2 : bool
        Whether C2-C3 is among them.
    """

    chain: ReferenceChain
    candidates: tuple[int, ...]
    discs: tuple[int, ...]
    scale: float
    shifted: dict[int, float]
    has_junction: bool
    has_c2: bool


def solve(
    candidates: Sequence[Candidate],
    *,
    lumbar_counts: Sequence[int] = (4, 5, 6),
    pinned: tuple[int, str] | None = None,
) -> list[Solution]:
    """Best numbering for every body size and number of lumbar vertebrae.

    Parameters
    ----------
    candidates : sequence of Candidate
        Cranial to caudal.
    lumbar_counts : sequence of int
        Numbers of lumbar vertebrae to consider.
    pinned : (int, str), optional
        A candidate and its known disc name.
    """
    return [
        _solve(candidates, reference_chain(count), float(size), pinned)
        for count in lumbar_counts
        for size in _SIZES
        if candidates and (pinned is None or pinned[1] in reference_chain(count).discs)
    ]


def best_of(
    solutions: Sequence[Solution],
    settings: LevelSettings,
    conus: Conus | None = None,
    *,
    alternatives: Sequence[Solution] | None = None,
) -> Assignment | None:
    """Select the numbering with the highest evidence; None if there are no solutions.

    The conus position, if known, affects the probabilities, not the selection.

    Parameters
    ----------
    solutions : sequence of Solution
    settings : LevelSettings
    conus : Conus, optional
    alternatives : sequence of Solution, optional
        Solutions from which the probability of other numberings is estimated, if not `solutions`.
    """
    if not solutions:
        return None
    best = max(solutions, key=lambda s: s.log_evidence + _count_prior(s.chain, settings))
    return Assignment(
        chain=best.chain,
        candidates=best.candidates,
        discs=best.discs,
        scale=best.scale,
        shifted=_shifts(best, alternatives or solutions, conus),
        has_junction=best.chain.junction in best.discs,
        has_c2=0 in best.discs,
    )


def disc_at_conus(solutions: Sequence[Solution], conus: Conus) -> str:
    """Most likely name of the disc nearest to the conus, by sizes and usual conus position.

    For fields of view without C2. Requires at least one solution.
    """
    scored = []
    for solution in solutions:
        offset = conus_offset(conus, solution.chain, solution.scale)
        score = solution.through[conus.candidate] / _TEMPERATURE + _conus_log_evidence(offset)
        n = int(score.argmax())
        scored.append((float(score[n]), solution.chain.discs[n]))
    return max(scored)[1]


def lumbar_count_probabilities(
    solutions: Sequence[Solution],
    settings: LevelSettings,
    conus: Conus | None = None,
    *,
    counted: bool = False,
) -> dict[int, float]:
    """Probability of each number of lumbar vertebrae, including the conus position.

    Parameters
    ----------
    counted : bool
        Whether C2 is visible. If so, the counts differ by whole discs between C2 and the sacrum
        and the evidence is used unscaled; otherwise they differ by appearance alone, and the
        evidence is divided by the temperature.
    """
    temperature = 1.0 if counted else _TEMPERATURE
    evidence: dict[int, float] = {}
    priors: dict[int, float] = {}
    for solution in solutions:
        count = solution.chain.lumbar_count
        conus_value = _conus_evidence(solution, conus, 0) / _TEMPERATURE
        value = solution.log_evidence / temperature + conus_value
        evidence[count] = max(evidence.get(count, -np.inf), value)
        priors[count] = float(np.exp(_count_prior(solution.chain, settings)))
    top = max(evidence.values(), default=0.0)
    weights = {c: priors[c] * float(np.exp(e - top)) for c, e in evidence.items()}
    total = sum(weights.values())
    return {c: x / total for c, x in weights.items()}


@dataclass(frozen=True)
class Solution:
    """The best numbering for one body size and number of lumbar vertebrae."""

    chain: ReferenceChain
    scale: float
    candidates: tuple[int, ...]
    discs: tuple[int, ...]
    log_evidence: float
    through: FloatArray
    """Best log evidence with candidate m as disc n, shape (m, n)."""


def _solve(
    candidates: Sequence[Candidate],
    chain: ReferenceChain,
    scale: float,
    pinned: tuple[int, str] | None,
) -> Solution:
    local = _local_evidence(candidates, chain)
    if pinned is not None:
        index, name = pinned
        wanted = chain.discs.index(name)
        others = np.arange(len(chain.discs)) != wanted
        local[index, others] = _LOG_FLOOR
        local[:index, wanted:] = _LOG_FLOOR
        local[index + 1 :, : wanted + 1] = _LOG_FLOOR
    prior = _size_prior(scale)
    head, tail = _open_ends(candidates, chain, scale)
    if pinned is not None:  # the chain must include the pinned disc
        head[pinned[0] + 1 :] = _LOG_FLOOR
        tail[: pinned[0]] = _LOG_FLOOR
    count, names = local.shape
    links = {
        (upper, lower): _link_evidence(candidates[upper], candidates[lower], chain, scale)
        for upper in range(count)
        for lower in range(upper + 1, min(upper + 2 + _MAX_SKIP, count))
        if pinned is None or not upper < pinned[0] < lower
    }
    forward = head + local
    came_from = np.full((count, names, 2), -1)
    for lower in range(count):
        for upper in range(max(0, lower - 1 - _MAX_SKIP), lower):
            link = links.get((upper, lower))
            if link is None:
                continue
            for step in range(1, _MAX_STEP + 1):
                new = forward[upper, :-step] + link[step - 1, :-step] + local[lower, step:]
                better = new > forward[lower, step:]
                forward[lower, step:][better] = new[better]
                came_from[lower, step:][better] = np.stack(
                    [np.full(better.sum(), upper), np.flatnonzero(better)], axis=-1
                )
    backward = tail.copy()
    for upper in range(count - 1, -1, -1):
        for lower in range(upper + 1, min(upper + 2 + _MAX_SKIP, count)):
            link = links.get((upper, lower))
            if link is None:
                continue
            for step in range(1, _MAX_STEP + 1):
                new = link[step - 1, :-step] + local[lower, step:] + backward[lower, step:]
                backward[upper, :-step] = np.maximum(backward[upper, :-step], new)
    through = forward + backward + prior
    ends = forward + tail + prior
    m, n = (int(x) for x in np.unravel_index(int(ends.argmax()), ends.shape))
    log_evidence = float(ends[m, n])
    used, discs = [m], [n]
    while came_from[m, n, 0] >= 0:
        m, n = (int(x) for x in came_from[m, n])
        used.append(m)
        discs.append(n)
    return Solution(
        chain, scale, tuple(used[::-1]), tuple(discs[::-1]), log_evidence, np.asarray(through)
    )


def _local_evidence(candidates: Sequence[Candidate], chain: ReferenceChain) -> FloatArray:
    """Log evidence of each candidate being each disc versus a false positive, shape (m, n)."""
    n = np.arange(len(chain.discs))
    kind = np.clip(n - chain.junction, -1, 2) + 1  # column of kinds.KINDS
    scores, limit = kind_scores(candidates), _MAX_KIND_EVIDENCE
    best = scores.max(axis=1, keepdims=True)
    # Clip by a common offset, so that differences between kinds are preserved.
    clipped = np.clip(scores + np.minimum(limit - best, 0.0), -limit, limit)
    return np.asarray(_PRIOR_LOG_ODDS + _KIND_WEIGHT * clipped[:, kind])


def _link_evidence(
    upper: Candidate, lower: Candidate, chain: ReferenceChain, scale: float
) -> FloatArray:
    """Log evidence of one candidate following another, shape (step - 1, upper disc)."""
    gap = float(np.linalg.norm(lower.center_lps - upper.center_lps))
    count = len(chain.discs)
    links = np.full((_MAX_STEP, count), _LOG_FLOOR)
    reach = np.concatenate([[0.0], np.cumsum(scale * chain.chord_mm[1:])])
    for step in range(1, _MAX_STEP + 1):
        expected = reach[step:count] - reach[: count - step]
        sd = _PITCH_SD * expected / np.sqrt(step) + _CENTER_SD_MM
        missed = np.zeros(count - step)
        for inner in range(1, step):
            missed += _missing_cost(np.arange(count - step) + inner, chain)
        links[step - 1, : count - step] = (
            -0.5 * np.minimum(((gap - expected) / sd) ** 2, _MAX_PITCH_PENALTY) - missed
        )
    return links


def _missing_cost(
    discs: FloatArray | np.ndarray[tuple[int], np.dtype[np.intp]],
    chain: ReferenceChain,
) -> FloatArray:
    sacral = np.asarray(discs) > chain.junction
    return np.where(sacral, _MISSING_SACRAL_COST, _MISSING_COST)


def _open_ends(
    candidates: Sequence[Candidate], chain: ReferenceChain, scale: float
) -> tuple[FloatArray, FloatArray]:
    """Log evidence of a chain starting and ending at each candidate.

    From missed discs in the field of view and, at the cranial end, the distance from the foramen
    magnum.
    """
    count = len(chain.discs)
    reach = np.concatenate([[0.0], np.cumsum(scale * chain.chord_mm[1:])])
    cost = _missing_cost(np.arange(count), chain)
    down = reach[None, :count] - reach[:count, None]  # from disc n to disc m
    above = np.array([c.reach_above_mm - END_MARGIN_MM for c in candidates])[:, None, None]
    below = np.array([c.reach_below_mm - END_MARGIN_MM for c in candidates])[:, None, None]
    max_cost = _MAX_MISSING * _MISSING_COST
    head = -np.minimum(((down < 0) & (-down < above)) @ cost, max_cost)
    tail = -np.minimum(((down > 0) & (down < below)) @ cost, max_cost)
    return head + _foramen_evidence(candidates, chain, scale), tail


def _foramen_evidence(
    candidates: Sequence[Candidate], chain: ReferenceChain, scale: float
) -> FloatArray:
    """Log evidence of the distance of each candidate from the foramen magnum, shape (m, n)."""
    below = np.array([c.below_foramen_mm for c in candidates])[:, None]
    expected = scale * (FORAMEN_ABOVE_AXIS_MM + np.cumsum(chain.chord_mm[: len(chain.discs)]))
    steps = np.arange(len(expected)) + 1
    sd = np.hypot(_PITCH_SD * expected / np.sqrt(steps) + _CENTER_SD_MM, _FORAMEN_SD_MM)
    deviation = np.nan_to_num((below - expected) / sd)  # NaN without a foramen magnum
    return np.asarray(-0.5 * np.minimum(deviation**2, _MAX_FORAMEN_PENALTY))


def _size_prior(scale: float) -> float:
    return -0.5 * ((scale - 1.0) / _SIZE_SD) ** 2


def _count_prior(chain: ReferenceChain, settings: LevelSettings) -> float:
    fraction = (
        1 - settings.variant_fraction if chain.lumbar_count == 5 else settings.variant_fraction / 2
    )
    return float(np.log(fraction))


def _conus_evidence(solution: Solution, conus: Conus | None, shift: int) -> float:
    """Log evidence of the conus position for a numbering shifted caudally by `shift` discs."""
    if conus is None or conus.candidate not in solution.candidates:
        return 0.0
    disc = solution.discs[solution.candidates.index(conus.candidate)] + shift
    if not 0 <= disc < len(solution.chain.discs):
        return 0.0
    offset = conus_offset(conus, solution.chain, solution.scale)
    # Independent evidence: compensate for the temperature applied to adjacent discs.
    return _TEMPERATURE * float(_conus_log_evidence(offset)[disc])


def _conus_log_evidence(offset_levels: FloatArray) -> FloatArray:
    """Log evidence of the conus position by its offset from the usual one."""
    return -0.5 * np.minimum(np.abs(offset_levels / _CONUS_SD_LEVELS), _MAX_CONUS_SD) ** 2


def _shifts(best: Solution, solutions: Sequence[Solution], conus: Conus | None) -> dict[int, float]:
    """Probability of each shift of the whole numbering, from the best evidence for each.

    Evaluated at the middle of the chain, for the same number of lumbar vertebrae: with another
    number the same index is a different name.
    """
    m = best.candidates[len(best.candidates) // 2]
    n = best.discs[len(best.discs) // 2]
    evidence: dict[int, float] = {}
    for solution in solutions:
        if solution.chain.lumbar_count != best.chain.lumbar_count:
            continue
        for shift in (-2, -1, 0, 1, 2):
            if 0 <= n + shift < solution.through.shape[1]:
                value = float(solution.through[m, n + shift])
                value += _conus_evidence(best, conus, shift)
                evidence[shift] = max(evidence.get(shift, -np.inf), value)
    top = max(evidence.values())
    weights = {s: float(np.exp((e - top) / _TEMPERATURE)) for s, e in evidence.items()}
    total = sum(weights.values())
    return {s: x / total for s, x in weights.items()}
