"""Confidence of a numbering and of the adjacent ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.levels.candidates import Candidate
from leakloc.levels.conus import Conus, conus_offset
from leakloc.levels.naming import ChosenNumbering
from leakloc.levels.numbering import Assignment
from leakloc.levels.search import SpineDetection
from leakloc.levels.transition import transitional_signs

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings

MIN_SACRUM_MM: Final = 25.0
"""With less of the sacrum in the field of view (S1 is 30 mm high) the lumbosacral disc is
uncertain: of 24 volumes cropped through L5, 19 were named one level too low."""

_COUNTED_CONFIDENCE: Final = 0.98
"""Maximum confidence when levels are counted from C2."""
_NO_CONUS_FACTOR: Final = 0.9
"""Factor on the confidence of counting from the sacrum if the conus is not visible; nothing else in
the field of view distinguishes five lumbar vertebrae from four or six."""
_NO_SACRUM_FACTOR: Final = 0.4
_COUNTED_NO_SACRUM_FACTOR: Final = 0.7
"""Factors on the confidence if the lumbosacral disc was not detected: in general, and when counting
from C2."""
_SHORT_SACRUM_FACTOR: Final = 0.6
"""Factor on the confidence with less than `MIN_SACRUM_MM`: the lowest visible disc resembles
L5-S1."""
_NO_PROBABILITY_FACTOR: Final = 0.5
"""Factor on the confidence of a detector without bone probabilities; correct in about a third of
patients."""
_FEW_DISCS: Final = 5
_FEW_DISCS_FACTOR: Final = 0.7
"""Factor on the confidence with fewer discs than this."""
_MISSED_DISC_FACTOR: Final = 0.8
"""Factor on the confidence per interpolated disc."""
_TRANSITIONAL_FACTOR: Final = 0.7
"""Factor on the confidence when counting from a junction with transitional signs."""
_COMPETITOR_SCORE: Final = 0.6
"""Minimum score of a candidate skipped by the count from C2 that may be a missed disc."""
_USUAL_COMPETITORS: Final = 1
"""Above C2-C3 the base of the dens or of the skull is often detected as one disc."""
_MAX_COMPETITORS: Final = 3
"""More competing candidates do not lower the confidence further: the count is unusable."""
_COMPETITOR_FACTOR: Final = 0.6
"""Factor on the confidence per competing candidate; with two or more, half of counts were wrong."""
_MAX_CONUS_LEVELS: Final = 1.8
"""Beyond this distance from the usual position (range T12 to L3) the detected structure is not the
conus."""
_MIN_ODDS: Final = 0.05
"""Minimum odds reported for each adjacent numbering, whatever the evidence."""
_ADJACENT_FRACTION: Final = 0.9
"""Fraction of the remaining probability that belongs to the two adjacent numberings."""


@dataclass(frozen=True)
class Assessment:
    """Confidence of a numbering, with the evidence that it is based on.

    Parameters
    ----------
    confidence : float
    alternatives : dict
        Confidence of the adjacent numberings, by caudal shift of all names in levels.
    transitional_suspected : bool
    transitional_signs : tuple of str
        Signs of a transitional vertebra, each as a clause for the report.
    conus_levels : float or None
        Levels from the usual to the detected conus position; negative above, None if the conus was
        not detected or is implausible.
    sacrum_mm : float
        Extent of the field of view below the lumbosacral disc; 0 if that was not detected.
    competitors : int
        Candidates that a count from C2 may have missed.
    foramen_detected : bool
        Whether the distance of the discs from the foramen magnum is known.
    """

    confidence: float
    alternatives: dict[int, float]
    transitional_suspected: bool
    transitional_signs: tuple[str, ...]
    conus_levels: float | None
    sacrum_mm: float
    competitors: int
    foramen_detected: bool


def assess_numbering(
    detection: SpineDetection, chosen: ChosenNumbering, settings: LevelSettings
) -> Assessment:
    """Estimate the confidence of a numbering and of the adjacent ones.

    Parameters
    ----------
    detection : SpineDetection
    chosen : ChosenNumbering
    settings : LevelSettings
    """
    candidates, assignment = detection.candidates, chosen.assignment
    counted, by_user = chosen.method == "c2_count", chosen.method == "user"
    signs = transitional_signs(candidates, assignment)
    conus_levels = _conus_levels(assignment, detection.conus)
    sacrum_mm = _sacrum_mm(candidates, assignment)
    competitors = _competitors(candidates, assignment) if counted else 0
    odds = _alternative_odds(assignment, chosen.count_probabilities)
    confidence = 1.0
    if not by_user:
        highest = _COUNTED_CONFIDENCE if counted else settings.assumed_confidence
        if conus_levels is None and not counted:
            highest *= _NO_CONUS_FACTOR
        confidence = highest / (1.0 + sum(odds.values()))
        for factor in _factors(
            candidates, assignment, counted, sacrum_mm, competitors, bool(signs)
        ):
            confidence *= factor
    lumbar_count = assignment.chain.lumbar_count
    other_count = 1 - chosen.count_probabilities.get(lumbar_count, 0.0)
    weights = {shift: max(odds.get(shift, 0.0), _MIN_ODDS) for shift in (-1, 1)}
    total = sum(weights.values())
    return Assessment(
        confidence=float(confidence),
        alternatives={
            shift: (1.0 - confidence) * _ADJACENT_FRACTION * weight / total
            for shift, weight in weights.items()
        },
        transitional_suspected=not by_user
        and (
            (counted and lumbar_count != 5)
            or other_count > settings.transitional_probability
            or bool(signs)
        ),
        transitional_signs=signs,
        conus_levels=conus_levels,
        sacrum_mm=sacrum_mm,
        competitors=competitors,
        foramen_detected=any(np.isfinite(c.below_foramen_mm) for c in candidates),
    )


def _alternative_odds(assignment: Assignment, counts: Mapping[int, float]) -> dict[int, float]:
    """Odds of each shifted numbering against the one reported, by shift in levels.

    One lumbar vertebra more or less also shifts every name above the sacrum by one.
    """
    here = max(assignment.shifted.get(0, 1.0), 1e-6)
    odds = {s: b / here for s, b in assignment.shifted.items() if s != 0}
    lumbar_count = assignment.chain.lumbar_count
    for count, probability in counts.items():
        if count != lumbar_count:
            shift = count - lumbar_count
            odds[shift] = odds.get(shift, 0.0) + probability / max(counts[lumbar_count], 1e-6)
    return odds


def _factors(
    candidates: Sequence[Candidate],
    assignment: Assignment,
    counted: bool,
    sacrum_mm: float,
    competitors: int,
    transitional: bool,
) -> list[float]:
    """Factors on the confidence for findings that make the numbering uncertain."""
    factors = []
    if not assignment.has_junction:
        factors.append(_COUNTED_NO_SACRUM_FACTOR if counted else _NO_SACRUM_FACTOR)
    elif not counted and sacrum_mm < MIN_SACRUM_MM:
        factors.append(_SHORT_SACRUM_FACTOR)
    factors.append(_COMPETITOR_FACTOR ** min(competitors, _MAX_COMPETITORS))
    if all(np.isnan(candidates[m].bone_below) for m in assignment.candidates):
        factors.append(_NO_PROBABILITY_FACTOR)
    if len(assignment.candidates) < _FEW_DISCS:
        factors.append(_FEW_DISCS_FACTOR)
    presacral = np.array(assignment.discs[1:]) <= assignment.chain.junction
    missed = int((np.diff(assignment.discs) - 1)[presacral].sum())
    factors.append(_MISSED_DISC_FACTOR**missed)
    if transitional and not counted:  # a count from C2 does not depend on the junction
        factors.append(_TRANSITIONAL_FACTOR)
    return factors


def _conus_levels(assignment: Assignment, conus: Conus | None) -> float | None:
    """Levels from the usual to the detected conus position; negative above, None if unknown."""
    if conus is None or conus.candidate not in assignment.candidates:
        return None
    disc = assignment.discs[assignment.candidates.index(conus.candidate)]
    levels = float(conus_offset(conus, assignment.chain, assignment.scale)[disc])
    return levels if abs(levels) < _MAX_CONUS_LEVELS else None


def _sacrum_mm(candidates: Sequence[Candidate], assignment: Assignment) -> float:
    """Extent of the field of view below the lumbosacral disc; 0 if that was not detected."""
    if not assignment.has_junction:
        return 0.0
    place = assignment.discs.index(assignment.chain.junction)
    return candidates[assignment.candidates[place]].reach_below_mm


def _competitors(candidates: Sequence[Candidate], assignment: Assignment) -> int:
    """Number of high-score candidates skipped by a count from C2, less those usual above C2-C3.

    Names near the sacrum depend on the sacrum whatever the count, so the evidence of the whole
    chain does not reveal a miscount in the cervical spine; skipped candidates do.
    """
    used = set(assignment.candidates)
    junction = assignment.chain.junction
    presacral = [
        m for m, n in zip(assignment.candidates, assignment.discs, strict=True) if n <= junction
    ]
    competing = [
        m
        for m, c in enumerate(candidates[: max(presacral, default=0)])
        if m not in used and c.score >= _COMPETITOR_SCORE
    ]
    above = sum(m < assignment.candidates[0] for m in competing)
    return len(competing) - above + max(above - _USUAL_COMPETITORS, 0)
