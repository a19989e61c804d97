"""The finding of a study: presence of epidural fluid and a one-sentence summary."""

from __future__ import annotations

from typing import Final

from leakloc.anatomy.vocabulary import LeakStatus, Position
from leakloc.core.settings import LocalizationSettings
from leakloc.levels.result import Levels
from leakloc.localization.collections import Placed
from leakloc.localization.result import (
    FALSE_LOCALIZING,
    RETROSPINAL_FLUID,
    Coverage,
    Finding,
    RetrospinalFluid,
    certainty_key,
)
from leakloc.segmentation.result import Segmentation

_SIDES: dict[Position, str] = {
    "dorsal": "dorsal",
    "ventral": "ventral",
    "left": "left-sided",
    "right": "right-sided",
    "circumferential": "circumferential",
}

_MIN_FAT_PROBABILITY: Final = 0.25
"""Minimum probability of a rejected candidate, possibly unsuppressed fat, that makes the result
indeterminate."""

_MIN_NUMBERING_CONFIDENCE: Final = 0.9
"""Below this confidence of the numbering the summary also states the alternative."""


def find(
    placed: tuple[Placed, ...],
    segmentation: Segmentation,
    levels: Levels,
    coverage: Coverage,
    settings: LocalizationSettings,
    *,
    blind: bool,
    incomplete: bool = False,
    retrospinal: RetrospinalFluid | None = None,
) -> Finding:
    """Determine whether epidural fluid is present, its level and the confidence.

    ``present`` requires a definite or probable collection. If there are only possible ones, or
    the input cannot distinguish fluid from other bright tissue or is `incomplete`, the result is
    ``indeterminate``. Retrospinal fluid at C1-C2 alone is ``indeterminate`` and has no level.
    """
    sign = _retrospinal(retrospinal)
    if placed:
        main = min(placed, key=lambda p: certainty_key(p.collection))
        possible = main.collection.grade == "possible"
        unsure = possible or blind or incomplete
        leak: LeakStatus = "indeterminate" if unsure else "present"
        sentence = _positive(main, len(placed) - 1, levels)
        if blind:
            sentence = f"{sentence}; {_BLIND}"
        elif incomplete:
            sentence = f"{sentence}; {_INCOMPLETE}"
        return _finding(leak, main.collection.confidence, sentence + sign, main.collection.level)
    if blind:
        return _finding("indeterminate", 0.0, f"indeterminate: {_BLIND}{sign}")
    if incomplete:
        return _finding("indeterminate", 0.0, f"indeterminate: {_INCOMPLETE}{sign}")
    if sign:
        text = f"no epidural fluid collection detected {_where(coverage)}{sign}"
        return _finding("indeterminate", 0.0, f"{text}{_numbering(None, levels)}")
    max_probability = max((c.probability for c in segmentation.candidates), default=0.0)
    if segmentation.fat_suppressed is False and (
        _cannot_tell(segmentation) or _maybe_fat(segmentation)
    ):
        return _finding(
            "indeterminate",
            max_probability,
            f"bright signal outside the thecal sac {_where(coverage)} may be fluid or "
            "epidural fat, which is not suppressed on this acquisition",
        )
    return _finding(
        "absent",
        settings.absent_confidence * (1.0 - max_probability),
        f"no epidural fluid collection detected {_where(coverage)}; "
        f"this does not exclude a leak{_numbering(None, levels)}",
    )


def _finding(leak: LeakStatus, confidence: float, text: str, level: str | None = None) -> Finding:
    summary = f"{text[0].upper()}{text[1:]}."
    return Finding(leak=leak, level=level, confidence=confidence, summary=summary)


_BLIND = (
    "the study contains no fat-suppressed myelogram, so epidural fluid can be neither shown "
    "nor ruled out"
)

_INCOMPLETE = "a considerable part of the myelogram's slices could not be used"


def _retrospinal(fluid: RetrospinalFluid | None) -> str:
    """Return the part of the summary on retrospinal fluid; empty without it."""
    if fluid is None or not fluid.present:
        return ""
    return f"; {RETROSPINAL_FLUID} ({fluid.volume_ml:.1f} mL, {fluid.side}); {FALSE_LOCALIZING}"


def _cannot_tell(segmentation: Segmentation) -> bool:
    """Return whether adjacent fluid may be part of the sac mask: dura inferred from canal shape."""
    return any(note.definition.precludes_absence for note in segmentation.notes)


def _maybe_fat(segmentation: Segmentation) -> bool:
    return any(
        not candidate.accepted
        and candidate.probability >= _MIN_FAT_PROBABILITY
        and any("fat" in mimic.lower().split() for mimic in candidate.mimics)
        for candidate in segmentation.candidates
    )


def _positive(placed: Placed, others: int, levels: Levels) -> str:
    main = placed.collection
    side = _SIDES[main.position.label]
    text = f"{side} epidural fluid signal"
    if main.grade == "possible":
        text = f"possible {text}"
    if not main.segments:
        text += f" over {placed.stop_mm - placed.start_mm:.0f} mm of the canal"
    elif len(main.segments) == 1:
        text += f" at {main.segments[0]}"
    else:
        text += f" from {main.segments[0]} to {main.segments[-1]}, largest at {main.level}"
        if len(main.level_set) > 1:
            text += f" or {' or '.join(main.level_set[1:])}"
    beyond = [c for c in ("paraspinal", "subcutaneous") if c in main.compartments]
    if beyond:
        text += f", reaching the {beyond[-1]} tissue"
    text += f" ({placed.volume_ml:.1f} mL, up to {placed.thickness_mm:.0f} mm thick, {main.grade})"
    if others:
        text += f", and {others} other collection{'s' if others > 1 else ''}"
    return text + _numbering(placed, levels)


def _numbering(main: Placed | None, levels: Levels) -> str:
    if levels.status == "unlabelled":
        return "; vertebral levels could not be named"
    numbering = levels.numbering
    assumed = numbering.assumption.partition(";")[0]  # the evidence is in the report
    text = f"; numbering assumes {assumed}"
    unsure = numbering.confidence < _MIN_NUMBERING_CONFIDENCE
    if main is not None and main.renumbered is not None and unsure:
        found = main.collection
        is_named = len(found.segments) > 1 and main.renumbered in found.level_set
        text += "" if is_named else f" (or {main.renumbered} if numbered otherwise)"
    return text


def _where(coverage: Coverage) -> str:
    if coverage.cranial is None or coverage.caudal is None:
        return "in the field of view"
    return f"from {coverage.cranial} to {coverage.caudal}"
