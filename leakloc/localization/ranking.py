"""Ranking of the motion segments to which a collection may belong, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import FloatArray
from leakloc.localization.canal import ArcGrid, CanalVoxels
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import LevelAlternative

_DRAWS: Final = 500
"""Number of random draws; standard error of a probability of 0.85: 0.016."""
_BORDER_ERROR_MM: Final = 1.0
"""Standard deviation of segment borders: 0.3 mm from the discs (SPIDER), the rest from another
course of the centerline."""
_SECTION_ERROR: Final = 0.05
"""Relative standard deviation of the error of a cross-section. Median 0.034 on 91 simulated
collections of three development patients, on which the dura network was trained; larger here,
because that of other patients is."""
_ERROR_LENGTH_MM: Final = 6.0
"""Gaussian sigma of the correlation of these errors along the canal; 6 and 10 mm gave equal sets on
these collections (88 of 91 correct, 1.24 segments)."""

_MIN_CAUDAL: Final = 0.1
"""Minimum cross-section caudal to C1-C2, relative to the largest, of a collection ranked there."""

_MIN_ALTERNATIVE_SCORE: Final = 0.05
"""Minimum score of a reported alternative segment."""


@dataclass(frozen=True)
class SegmentEvidence:
    """Part of a collection within one motion segment.

    Parameters
    ----------
    probability : float
        Probability that the collection's largest cross-section lies in the segment.
    section : float
        Largest cross-section in the segment, divided by the largest overall.
    peak_mm : float
        Its position along the canal.
    contact : float
        Fraction of the collection's contact with the sac.
    beyond_canal : float
        Fraction of the collection's fluid outside the canal.
    """

    segment: str
    probability: float
    section: float
    peak_mm: float
    contact: float
    beyond_canal: float


def segment_evidence(
    voxels: CanalVoxels,
    area_mm2: FloatArray,
    grid: ArcGrid,
    contact: npt.NDArray[np.bool_],
    beyond_canal: npt.NDArray[np.bool_],
    coordinate: LevelCoordinate,
) -> tuple[SegmentEvidence, ...]:
    """Return evidence by segment, cranial to caudal; segments without fluid are omitted."""
    fluid = voxels.fluid
    all_contact = max(float(contact.sum()), 1.0)
    all_beyond = max(float(fluid[beyond_canal].sum()), 1e-9)
    largest = max(float(area_mm2.max()), 1e-9)
    tops_mm = _possible_tops_mm(area_mm2, grid, _SECTION_ERROR)
    found = []
    for name, start, stop in coordinate.segments():
        bins = (grid.centers_mm >= start) & (grid.centers_mm < stop)
        inside = (voxels.arc_mm >= start) & (voxels.arc_mm < stop)
        if not inside.any() or not bins.any():
            continue
        peak = int(np.where(bins, area_mm2, -1.0).argmax())
        found.append(
            SegmentEvidence(
                name,
                float(((tops_mm >= start) & (tops_mm < stop)).mean()),
                float(area_mm2[peak]) / largest,
                float(grid.centers_mm[peak]),
                float(contact[inside].sum()) / all_contact,
                float(fluid[inside & beyond_canal].sum()) / all_beyond,
            )
        )
    return tuple(found)


def without_c1_c2(area_mm2: FloatArray, grid: ArcGrid, coordinate: LevelCoordinate) -> FloatArray:
    """Return cross-sections without those cranial to the middle of C2, where fluid has no level.

    Unchanged if the others are less than a tenth of the largest.
    """
    axis_mm = coordinate.body_arc("C2")
    if axis_mm is None:
        return area_mm2
    caudal = np.where(grid.centers_mm >= axis_mm, area_mm2, 0.0)
    return caudal if caudal.max() >= _MIN_CAUDAL * area_mm2.max() else area_mm2


def _possible_tops_mm(area_mm2: FloatArray, grid: ArcGrid, error: float) -> FloatArray:
    """Return positions of the largest cross-section in random draws of sections and borders."""
    rng = np.random.default_rng(0)
    noise = grid.smooth(rng.standard_normal((_DRAWS, grid.count)), _ERROR_LENGTH_MM, axis=1)
    noise = noise / max(float(noise.std()), 1e-9)
    tops = (area_mm2 * np.exp(error * noise)).argmax(axis=1)
    return np.asarray(grid.centers_mm[tops] + rng.normal(0.0, _BORDER_ERROR_MM, _DRAWS))


def probable_segments(
    segments: tuple[SegmentEvidence, ...], settings: LocalizationSettings
) -> tuple[SegmentEvidence, ...]:
    """Return the smallest set of segments that probably contains the largest cross-section.

    Returns
    -------
    tuple of SegmentEvidence
        Most probable segment first; empty if the largest cross-section most probably lies
        outside the named segments.
    """
    ranked = sorted(segments, key=lambda evidence: -evidence.probability)
    total = np.cumsum([0.0, *(evidence.probability for evidence in ranked)])
    if not ranked or 1.0 - total[-1] > ranked[0].probability:
        return ()
    return tuple(
        evidence
        for evidence, before in zip(ranked, total[:-1], strict=True)
        if before < settings.level_set_probability
    )


def rank_levels(
    segments: tuple[SegmentEvidence, ...],
    level: str | None,
    coordinate: LevelCoordinate,
    shifts: tuple[tuple[int, float, str], ...],
    settings: LocalizationSettings,
) -> tuple[tuple[LevelAlternative, ...], str | None]:
    """Return alternatives to `level`, highest score first, and the first by another numbering.

    The list combines two uncertainties: the segment of the largest cross-section, and the name
    of that segment (the confidence of each alternative numbering).

    Parameters
    ----------
    shifts : tuple of (shift, confidence, reason)
        Alternative numberings of the levels.
    """
    if level is None:
        return (), None
    scores: dict[str, float] = {}
    reasons: dict[str, list[str]] = {}
    renumbered: set[str] = set()
    for evidence in segments:
        if evidence.segment != level:
            scores[evidence.segment] = evidence.probability
            reasons[evidence.segment] = _reasons(evidence)
    for shift, confidence, reason in shifts:
        name = coordinate.shifted(level, shift)
        if name is not None and name != level:
            scores[name] = scores.get(name, 0.0) + confidence
            renumbered.add(name)
            reasons.setdefault(name, []).append(
                f"the same position if the levels are numbered differently: {reason}"
            )
    ranked = sorted(scores, key=lambda name: -scores[name])
    ranked = [
        name
        for name in ranked[: settings.alternatives_max]
        if scores[name] >= _MIN_ALTERNATIVE_SCORE
    ]
    alternatives = tuple(
        LevelAlternative(level=name, score=min(scores[name], 1.0), basis=tuple(reasons[name]))
        for name in ranked
    )
    return alternatives, next((name for name in ranked if name in renumbered), None)


def _reasons(evidence: SegmentEvidence) -> list[str]:
    reasons = [f"cross-section {evidence.section:.0%} of the largest"]
    if evidence.contact >= 0.1:
        reasons.append(f"{evidence.contact:.0%} of the contact with the thecal sac")
    if evidence.beyond_canal >= 0.1:
        reasons.append(f"{evidence.beyond_canal:.0%} of the fluid outside the canal")
    return reasons
