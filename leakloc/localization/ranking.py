"""Which segments a collection may belong to, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leakloc.localization.canal import ArcGrid, CanalVoxels
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import AlternativeLevel
from leakloc.settings import LocalizationSettings
from leakloc.volume import FloatArray


@dataclass(frozen=True)
class SegmentShare:
    """What one motion segment holds of a collection.

    Parameters
    ----------
    section : float
        Largest cross-section in the segment over the largest of all.
    contact : float
        Share of the collection's contact with the sac.
    beyond_canal : float
        Share of its fluid that lies outside the canal.
    """

    segment: str
    section: float
    contact: float
    beyond_canal: float


def segment_shares(
    voxels: CanalVoxels,
    area_mm2: FloatArray,
    grid: ArcGrid,
    contact: npt.NDArray[np.bool_],
    beyond_canal: npt.NDArray[np.bool_],
    coordinate: LevelCoordinate,
) -> tuple[SegmentShare, ...]:
    """Evidence by segment, from the head down; segments that hold nothing are left out."""
    fluid = voxels.fluid
    all_contact = max(float(contact.sum()), 1.0)
    all_beyond = max(float(fluid[beyond_canal].sum()), 1e-9)
    largest = max(float(area_mm2.max()), 1e-9)
    found = []
    for name, start, stop in coordinate.segments():
        bins = (grid.centers_mm >= start) & (grid.centers_mm < stop)
        inside = (voxels.arc_mm >= start) & (voxels.arc_mm < stop)
        if not inside.any() or not bins.any():
            continue
        found.append(
            SegmentShare(
                name,
                float(area_mm2[bins].max()) / largest,
                float(contact[inside].sum()) / all_contact,
                float(fluid[inside & beyond_canal].sum()) / all_beyond,
            )
        )
    return tuple(found)


def rank_levels(
    shares: tuple[SegmentShare, ...],
    level: str | None,
    coordinate: LevelCoordinate,
    shifts: tuple[tuple[int, float, str], ...],
    settings: LocalizationSettings,
) -> tuple[AlternativeLevel, ...]:
    """Segments other than `level` that could be meant, best first.

    Two kinds of doubt are kept in one list: where along the canal the collection belongs
    (its evidence by segment, shared out so that all segments sum to 1), and how the segment
    there is called (the confidence of each other numbering).

    Parameters
    ----------
    shifts : tuple of (shift, confidence, reason)
        Other ways to number the levels.
    """
    if level is None:
        return ()
    scores: dict[str, float] = {}
    reasons: dict[str, list[str]] = {}
    strengths = {share.segment: _strength(share, settings) for share in shares}
    total = max(sum(strengths.values()), 1e-9)
    for share in shares:
        if share.segment != level:
            scores[share.segment] = strengths[share.segment] / total
            reasons[share.segment] = _reasons(share)
    for shift, confidence, reason in shifts:
        name = coordinate.shifted(level, shift)
        if name is not None and name != level:
            scores[name] = scores.get(name, 0.0) + confidence
            reasons.setdefault(name, []).append(
                f"the same place if the levels are numbered differently: {reason}"
            )
    ranked = sorted(scores, key=lambda name: -scores[name])
    return tuple(
        AlternativeLevel(name, float(min(scores[name], 1.0)), tuple(reasons[name]))
        for name in ranked[: settings.alternatives_max]
        if scores[name] >= settings.alternative_min_score
    )


def _strength(share: SegmentShare, settings: LocalizationSettings) -> float:
    evidence = (
        settings.section_weight * share.section
        + settings.contact_weight * share.contact
        + settings.beyond_canal_weight * share.beyond_canal
    )
    return float(evidence**settings.ranking_sharpness)


def _reasons(share: SegmentShare) -> list[str]:
    reasons = [f"cross-section {share.section:.0%} of the largest"]
    if share.contact >= 0.1:
        reasons.append(f"{share.contact:.0%} of the contact with the thecal sac")
    if share.beyond_canal >= 0.1:
        reasons.append(f"{share.beyond_canal:.0%} of the fluid outside the canal")
    return reasons
