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

from leakloc.anatomy.reference import ReferenceChain, reference_chain
from leakloc.core.volume import FloatArray
from leakloc.levels.conus import Conus
from leakloc.levels.kinds import kind_scores

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings

_LOG_FLOOR: Final = -1e9
"""Log evidence of an impossible assignment; finite, so that differences are defined."""
_MAX_STEP: Final = 3
"""Maximum number of discs from one candidate to the next: two consecutive missed discs."""
_MAX_SKIP: Final = 4
"""Maximum number of candidates skipped between two discs."""
_MAX_CONUS_SD: Final = 2.5
"""Standard deviations from the usual conus position beyond which a false detection is more
likely."""


@dataclass(frozen=True)
class Candidate:
    """A possible disc with its image features.

    Parameters
    ----------
    center_lps, normal_lps : ndarray, shape (3,)
    score : float
        Detector score, 0..1.
    tilt_deg : float
        Forward tilt of the normal against the patient's long axis.
    depth_mm : float
        Anteroposterior depth; NaN if unknown.
    bone_above, bone_below : float
        Probability of vertebra (not sacrum) above and below the disc; NaN if unknown.
    sacrum_above, sacrum_below : float
        Probability of sacrum at the same points; NaN if unknown.
    reach_above_mm, reach_below_mm : float
        Extent of the field of view along the spine, above and below the disc.
    sacral_fraction_above, sacral_fraction_below : float
        Fraction of sacrum in the bone of the adjacent vertebra; NaN if unknown.
    """

    center_lps: FloatArray
    normal_lps: FloatArray
    score: float
    tilt_deg: float
    depth_mm: float
    bone_above: float
    bone_below: float
    sacrum_above: float
    sacrum_below: float
    reach_above_mm: float
    reach_below_mm: float
    sacral_fraction_above: float = float("nan")
    sacral_fraction_below: float = float("nan")


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
    settings: LevelSettings,
    *,
    lumbar_counts: Sequence[int] = (4, 5, 6),
    pinned: tuple[int, str] | None = None,
) -> list[Solution]:
    """Best numbering for every body size and number of lumbar vertebrae.

    Parameters
    ----------
    candidates : sequence of Candidate
        Cranial to caudal.
    settings : LevelSettings
    lumbar_counts : sequence of int
        Numbers of lumbar vertebrae to consider.
    pinned : (int, str), optional
        A candidate and its known disc name.
    """
    sizes = np.linspace(settings.size_low, settings.size_high, settings.size_steps)
    return [
        _solve(candidates, reference_chain(count), float(size), settings, pinned)
        for count in lumbar_counts
        for size in sizes
        if candidates and (pinned is None or pinned[1] in reference_chain(count).discs)
    ]


def best_of(
    solutions: Sequence[Solution], settings: LevelSettings, conus: Conus | None = None
) -> Assignment | None:
    """Select the numbering with the highest evidence; None if there are no solutions.

    The conus position, if known, affects the probabilities, not the selection.
    """
    if not solutions:
        return None
    best = max(solutions, key=lambda s: s.log_evidence + _count_prior(s.chain, settings))
    return Assignment(
        chain=best.chain,
        candidates=best.candidates,
        discs=best.discs,
        scale=best.scale,
        shifted=_shifts(best, solutions, settings, conus),
        has_junction=best.chain.junction in best.discs,
        has_c2=0 in best.discs,
    )


def disc_at_cord_end(solutions: Sequence[Solution], settings: LevelSettings, conus: Conus) -> str:
    """Most likely name of the disc nearest to the conus, by sizes and usual conus position.

    For fields of view without C2 and sacrum. Requires at least one solution.
    """
    scored = []
    for solution in solutions:
        offset = conus_offset(conus, solution.chain, solution.scale, settings)
        score = solution.through[conus.candidate] / settings.temperature + _conus_log_evidence(
            offset
        )
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
        evidence is divided by ``settings.temperature``.
    """
    temperature = 1.0 if counted else settings.temperature
    evidence: dict[int, float] = {}
    priors: dict[int, float] = {}
    for solution in solutions:
        count = solution.chain.lumbar_count
        conus_value = _conus_evidence(solution, conus, 0, settings) / settings.temperature
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
    settings: LevelSettings,
    pinned: tuple[int, str] | None,
) -> Solution:
    local = _local_evidence(candidates, chain, settings)
    if pinned is not None:
        index, name = pinned
        wanted = chain.discs.index(name)
        others = np.arange(len(chain.discs)) != wanted
        local[index, others] = _LOG_FLOOR
        local[:index, wanted:] = _LOG_FLOOR
        local[index + 1 :, : wanted + 1] = _LOG_FLOOR
    prior = _size_prior(scale, settings)
    head, tail = _open_ends(candidates, chain, scale, settings)
    if pinned is not None:  # the chain must include the pinned disc
        head[pinned[0] + 1 :] = _LOG_FLOOR
        tail[: pinned[0]] = _LOG_FLOOR
    count, names = local.shape
    links = {
        (upper, lower): _link_evidence(candidates[upper], candidates[lower], chain, scale, settings)
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


def conus_offset(
    conus: Conus, chain: ReferenceChain, scale: float, settings: LevelSettings
) -> FloatArray:
    """Offset of the conus below its usual position, for each possible name of its disc.

    Returns
    -------
    ndarray, shape (n,)
        In standard deviations; negative if above.
    """
    disc = np.arange(len(chain.discs))
    vertebra = disc + 1 if conus.below_mm >= 0 else disc  # integers: tops of vertebrae
    level = disc + 1 + conus.below_mm / (scale * chain.pitch_mm[vertebra])
    usual = chain.vertebrae.index("L1") + settings.conus_in_l1
    return np.asarray((level - usual) / settings.conus_sd_levels)


def _local_evidence(
    candidates: Sequence[Candidate], chain: ReferenceChain, settings: LevelSettings
) -> FloatArray:
    """Log evidence of each candidate being each disc versus a false positive, shape (m, n)."""
    n = np.arange(len(chain.discs))
    kind = np.clip(n - chain.junction, -1, 2) + 1  # column of kinds.KINDS
    scores, limit = kind_scores(candidates), settings.max_kind_evidence
    best = scores.max(axis=1, keepdims=True)
    # Clip by a common offset, so that differences between kinds are preserved.
    clipped = np.clip(scores + np.minimum(limit - best, 0.0), -limit, limit)
    return np.asarray(settings.presence + settings.kind_weight * clipped[:, kind])


def _link_evidence(
    upper: Candidate, lower: Candidate, chain: ReferenceChain, scale: float, settings: LevelSettings
) -> FloatArray:
    """Log evidence of one candidate following another, shape (step - 1, upper disc)."""
    gap = float(np.linalg.norm(lower.center_lps - upper.center_lps))
    count = len(chain.discs)
    links = np.full((_MAX_STEP, count), _LOG_FLOOR)
    reach = np.concatenate([[0.0], np.cumsum(scale * chain.chord_mm[1:])])
    for step in range(1, _MAX_STEP + 1):
        expected = reach[step:count] - reach[: count - step]
        sd = settings.pitch_sd * expected / np.sqrt(step) + settings.center_sd_mm
        missed = np.zeros(count - step)
        for inner in range(1, step):
            missed += _missing_cost(np.arange(count - step) + inner, chain, settings)
        links[step - 1, : count - step] = (
            -0.5 * np.minimum(((gap - expected) / sd) ** 2, settings.pitch_worst) - missed
        )
    return links


def _missing_cost(
    discs: FloatArray | np.ndarray[tuple[int], np.dtype[np.intp]],
    chain: ReferenceChain,
    settings: LevelSettings,
) -> FloatArray:
    sacral = np.asarray(discs) > chain.junction
    return np.where(sacral, settings.missing_sacral_cost, settings.missing_cost)


def _open_ends(
    candidates: Sequence[Candidate], chain: ReferenceChain, scale: float, settings: LevelSettings
) -> tuple[FloatArray, FloatArray]:
    """Log evidence of a chain starting and ending at each candidate, from missed discs in view."""
    count = len(chain.discs)
    reach = np.concatenate([[0.0], np.cumsum(scale * chain.chord_mm[1:])])
    cost = _missing_cost(np.arange(count), chain, settings)
    margin = settings.end_margin_mm
    down = reach[None, :count] - reach[:count, None]  # from disc n to disc m
    above = np.array([c.reach_above_mm - margin for c in candidates])[:, None, None]
    below = np.array([c.reach_below_mm - margin for c in candidates])[:, None, None]
    # Misses at an end share a cause, such as a slab that leaves the spine: their cost is capped.
    max_cost = settings.max_missing * settings.missing_cost
    head = -np.minimum(((down < 0) & (-down < above)) @ cost, max_cost)
    tail = -np.minimum(((down > 0) & (down < below)) @ cost, max_cost)
    return head, tail


def _size_prior(scale: float, settings: LevelSettings) -> float:
    return -0.5 * ((scale - 1.0) / settings.size_sd) ** 2


def _count_prior(chain: ReferenceChain, settings: LevelSettings) -> float:
    fraction = (
        1 - settings.variant_fraction if chain.lumbar_count == 5 else settings.variant_fraction / 2
    )
    return float(np.log(fraction))


def _conus_evidence(
    solution: Solution, conus: Conus | None, shift: int, settings: LevelSettings
) -> float:
    """Log evidence of the conus position for a numbering shifted caudally by `shift` discs."""
    if conus is None or conus.candidate not in solution.candidates:
        return 0.0
    disc = solution.discs[solution.candidates.index(conus.candidate)] + shift
    if not 0 <= disc < len(solution.chain.discs):
        return 0.0
    offset = conus_offset(conus, solution.chain, solution.scale, settings)
    # Independent evidence: compensate for the temperature applied to adjacent discs.
    return settings.temperature * float(_conus_log_evidence(offset)[disc])


def _conus_log_evidence(offset: FloatArray) -> FloatArray:
    """Log evidence of the conus position by its offset from usual, in standard deviations."""
    return -0.5 * np.minimum(np.abs(offset), _MAX_CONUS_SD) ** 2


def _shifts(
    best: Solution, solutions: Sequence[Solution], settings: LevelSettings, conus: Conus | None
) -> dict[int, float]:
    """Probability of each shift of the whole numbering, from the best evidence for each.

    Evaluated at the middle of the chain, for the same number of lumbar vertebrae: with another
    number the same index is a different name.
    """
    m = best.candidates[len(best.candidates) // 2]
    n = best.discs[len(best.discs) // 2]
    evidence: dict[int, float] = {}
    for solution in solutions:
        if solution.chain is not best.chain:
            continue
        for shift in (-2, -1, 0, 1, 2):
            if 0 <= n + shift < solution.through.shape[1]:
                value = float(solution.through[m, n + shift])
                value += _conus_evidence(best, conus, shift, settings)
                evidence[shift] = max(evidence.get(shift, -np.inf), value)
    top = max(evidence.values())
    weights = {s: float(np.exp((e - top) / settings.temperature)) for s, e in evidence.items()}
    total = sum(weights.values())
    return {s: x / total for s, x in weights.items()}
