"""What each series contributed to the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.anatomy.vocabulary import Role
    from leakloc.loaders.study import TriagedStack

_ABSENT: Final = {
    "projection": "a projection has no depth",
    "localizer": "too coarse, or no vertebrae cranial to the other series",
    "axial_t2": "no measurement uses axial series",
    "axial_t1_post": "no measurement uses axial series",
    "myelogram": "another myelogram was used",
    "other": "no measurement uses series of this kind",
    "unreadable": "not readable",
}
"""Reasons why a series contributed nothing, by role."""


class Usage(NamedTuple):
    """Uses of a series, and what it contributed, in words."""

    used_for: tuple[str, ...]
    contribution: str


def usage_of(item: TriagedStack, analysis: AnalysisData) -> Usage:
    """Return what a series contributed to the results, or why nothing."""
    uses: list[str] = []
    parts: list[str] = []
    is_fluid = "fluid" in item.used_for
    role: Role = "myelogram" if is_fluid else item.role
    if is_fluid:
        uses.append("fluid")
        parts.append("epidural fluid and thecal sac")
    if is_fluid or _is_loaded(item, analysis):
        detection = analysis.levels.detection
        if detection is not None and role in detection.sources:
            uses.append("levels")
            named = "vertebrae cranial to the other series" if role == "localizer" else "discs"
            parts.append("conus" if is_fluid and len(detection.sources) > 1 else named)
        planning = _planning(role, analysis)
        if planning:
            uses.append("planning")
            parts += planning
    if parts:
        return Usage(tuple(uses), ", ".join(parts))
    return Usage((), f"none: {_why_not(item, analysis)}")


def _is_loaded(item: TriagedStack, analysis: AnalysisData) -> bool:
    """Return whether the stack is the companion, or a part of the companion, of its role."""
    volume = analysis.triage.companions.get(item.role)
    if volume is None:
        return False
    uid = volume.provenance.series_instance_uid
    return "levels" in item.used_for or (uid is not None and uid == item.stack.series_instance_uid)


def _planning(role: Role, analysis: AnalysisData) -> list[str]:
    if analysis.basis is None:
        return []
    landmarks, planning = analysis.basis.landmarks, analysis.localization.planning
    found = []
    if planning.sacral_hiatus.visible and role in landmarks.sacral_roles:
        found.append("sacral hiatus")
    measured = any(
        target.narrowest_posterior_depth is not None
        or any(window.skin_to_canal_mm is not None for window in target.interlaminar)
        for target in planning.targets
    )
    if measured and role in landmarks.anatomy_roles:
        found.append("posterior epidural depth and distance to the skin")
    return found


def _why_not(item: TriagedStack, analysis: AnalysisData) -> str:
    if item.role in _ABSENT:
        return _ABSENT[item.role]
    if not _is_loaded(item, analysis):
        if item.role in analysis.triage.companions:
            return "another series of this kind was used"
        return "not used by a user's selection, or not registered to the myelogram (see warnings)"
    if analysis.levels.detection is None:
        return "the levels were supplied by the user"
    names = [role.replace("_", " ") for role in analysis.levels.detection.sources]
    return f"discs were detected on the {' and '.join(names)}" if names else "no discs detected"
