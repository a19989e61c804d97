"""What each series contributed to the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from leakloc.analysis import SeriesSelection
from leakloc.anatomy.vocabulary import role_name
from leakloc.core.errors import counted
from leakloc.localization.enhancement import plane_of

if TYPE_CHECKING:
    from leakloc.analysis import Landmarks
    from leakloc.anatomy.vocabulary import Role
    from leakloc.levels.result import Levels
    from leakloc.loaders.study import Triage, TriagedStack
    from leakloc.localization.result import Localization

_NEVER_USED: Final = {
    "projection": "a projection has no depth",
    "localizer": "too coarse, or no vertebrae cranial to the other series",
    "axial_t1_post": "no T1 series before contrast with the same plane and fat suppression",
    "myelogram": "another myelogram was used",
    "other": "no measurement uses series of this kind",
    "unreadable": "not readable",
}
"""Reasons why a series contributed nothing, by role."""


class Usage(NamedTuple):
    """Uses of a series, and what it contributed, in words."""

    used_for: tuple[str, ...]
    contribution: str


def selections_of(triage: Triage) -> tuple[SeriesSelection, ...]:
    """Return how each stack took part in the analysis, in the order of the stacks."""
    return tuple(_selection(item, triage) for item in triage.stacks)


def _selection(item: TriagedStack, triage: Triage) -> SeriesSelection:
    volume, uid = triage.companions.get(item.role), item.stack.series_instance_uid
    is_companion = volume is not None and (
        "levels" in item.used_for
        or (uid is not None and uid == volume.provenance.series_instance_uid)
    )
    return SeriesSelection(
        role=item.role,
        is_fluid="fluid" in item.used_for,
        is_companion=is_companion,
        has_other=volume is not None and not is_companion,
        is_second="comparison" in item.used_for,
        t1_pair=_pair_plane(item),
    )


def _pair_plane(item: TriagedStack) -> str | None:
    if "enhancement" not in item.used_for or item.stack.geometry is None:
        return None
    return plane_of(item.stack.geometry)


def usage_of(
    selection: SeriesSelection,
    levels: Levels,
    localization: Localization,
    landmarks: Landmarks | None,
) -> Usage:
    """Return what a series contributed to the results, or why nothing."""
    uses: list[str] = []
    parts: list[str] = []
    role: Role = "myelogram" if selection.is_fluid else selection.role
    if selection.is_fluid:
        uses.append("fluid")
        parts.append("epidural fluid and thecal sac")
    if selection.is_fluid or selection.is_companion:
        sources = () if levels.detection is None else levels.detection.sources
        if role in sources:
            uses.append("levels")
            named = "vertebrae cranial to the other series" if role == "localizer" else "discs"
            parts.append("conus" if selection.is_fluid and len(sources) > 1 else named)
        if _measured_signal(role, localization):
            uses.append("character")
            parts.append("signal of the collections relative to CSF")
        planning = _planning(role, localization, landmarks)
        if planning:
            uses.append("planning")
            parts += planning
    for use, sentence in (
        ("comparison", _second(selection, localization)),
        ("comparison", _axial(selection, localization)),
        ("enhancement", _enhancement(selection, localization)),
    ):
        if sentence:
            uses.append(use)
            parts.append(sentence)
    if parts:
        return Usage(tuple(uses), ", ".join(parts))
    return Usage((), f"none: {_why_not(selection, levels)}")


def _measured_signal(role: Role, localization: Localization) -> bool:
    """Return whether the signal of a collection was measured on the series of a role."""
    return any(
        measured.role == role and measured.ratio is not None
        for collection in localization.collections
        if collection.character is not None
        for measured in collection.character.ratios
    )


def _second(selection: SeriesSelection, localization: Localization) -> str:
    """Return what the second myelogram contributed."""
    agreement = localization.finding.second_myelogram
    if not selection.is_second or agreement is None:
        return ""
    n_collections = len(localization.collections)
    text = f"{agreement.n_confirmed} of {counted(n_collections, 'collections')} confirmed"
    if not localization.collections:
        text = "compared with the myelogram: no collection on either"
        if agreement.n_additional:
            text = "compared with the myelogram"
    return f"{text}, {agreement.n_additional} additional" if agreement.n_additional else text


def _axial(selection: SeriesSelection, localization: Localization) -> str:
    """Return what axial T2 contributed."""
    if selection.role != "axial_t2" or not selection.is_companion:
        return ""
    measured = [c.axial_t2 for c in localization.collections if c.axial_t2 is not None]
    known = [one for one in measured if one.bright is not None]
    if not known:
        return ""
    bright = sum(bool(one.bright) for one in known)
    fluid = sum(bool(one.confirms) for one in known)
    sides = sum(bool(one.side_confirmed) for one in known)
    lines = sum(one.dark_line is not None and one.dark_line.fraction is not None for one in known)
    return (
        f"{bright} of {counted(len(localization.collections), 'collections')} as bright as CSF "
        f"({fluid} brighter than fat), side of {sides} confirmed, dark line of {lines} measured"
    )


def _enhancement(selection: SeriesSelection, localization: Localization) -> str:
    """Return what a T1 series contributed to the measurement of enhancement."""
    measured = [c.enhancement for c in localization.collections if c.enhancement is not None]
    known = [one for one in measured if one.rim is not None and one.plane == selection.t1_pair]
    if not known:
        return ""
    n_collections = len(localization.collections)
    return f"enhancement around {len(known)} of {counted(n_collections, 'collections')}"


def _planning(role: Role, localization: Localization, landmarks: Landmarks | None) -> list[str]:
    found: list[str] = []
    planning = localization.planning
    if landmarks is None:
        return found
    if planning.sacral_hiatus.visible and role in landmarks.sacral_roles:
        found.append("sacral hiatus")
    access = planning.caudal_access
    measured = access is not None and (
        access.assessed_mm is not None or access.skin_to_hiatus_mm is not None
    )
    measured = measured or any(
        target.narrowest_posterior_depth is not None
        or any(window.skin_to_canal_mm is not None for window in target.interlaminar)
        for target in planning.targets
    )
    changes = localization.postoperative
    bed = changes is not None and (changes.arches_assessed or changes.metal_assessed)
    if bed and role in landmarks.anatomy_roles:
        found.append("posterior arches and metal")
    if measured and role in landmarks.anatomy_roles:
        found.append("posterior epidural depth and distance to the skin")
    return found


def _why_not(selection: SeriesSelection, levels: Levels) -> str:
    if selection.t1_pair is not None:
        return "T1 of another plane was used, or no collection has a measurable shell"
    if selection.is_second:
        return "no spinal canal detected on it"
    if selection.role == "axial_t2" and selection.is_companion:
        return "no collection large enough in its field of view"
    if selection.role in _NEVER_USED:
        return _NEVER_USED[selection.role]
    if selection.has_other:
        return "another series of this kind was used"
    if not selection.is_companion:
        return "not selected, or not registered to the myelogram (see warnings)"
    if levels.detection is None:
        return "the levels were supplied by the user"
    names = [role_name(role) for role in levels.detection.sources]
    return f"discs were detected on the {' and '.join(names)}" if names else "no discs detected"
