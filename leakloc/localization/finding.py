"""The finding of a study: presence of epidural fluid and a one-sentence summary."""

from __future__ import annotations

from typing import Final

from leakloc.anatomy.vocabulary import LeakStatus, Position
from leakloc.core.settings import LocalizationSettings
from leakloc.levels.result import Levels
from leakloc.localization.result import Finding, LocatedCollection
from leakloc.segmentation.result import Segmentation

_GRADES = ("definite", "probable", "possible")

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
    collections: tuple[LocatedCollection, ...],
    segmentation: Segmentation,
    levels: Levels,
    coverage: tuple[str | None, str | None],
    settings: LocalizationSettings,
    *,
    blind: bool,
) -> Finding:
    """Determine whether epidural fluid is present, its level and the confidence.

    ``present`` requires a definite or probable collection. If there are only possible ones, or
    the input cannot distinguish fluid from other bright tissue, the result is ``indeterminate``.
    """
    if collections:
        main = min(collections, key=lambda c: (_GRADES.index(c.grade), -c.volume_ml))
        leak: LeakStatus = "indeterminate" if main.grade == "possible" or blind else "present"
        sentence = _positive(main, len(collections) - 1, levels)
        if blind:
            sentence = f"{sentence}; {_BLIND}"
        return Finding(leak, main.level, main.confidence, _sentence(sentence))
    if blind:
        return Finding("indeterminate", None, 0.0, _sentence(f"indeterminate: {_BLIND}"))
    max_probability = max((c.probability for c in segmentation.candidates), default=0.0)
    if segmentation.fat_suppressed is False and (
        _cannot_tell(segmentation) or _maybe_fat(segmentation)
    ):
        return Finding(
            "indeterminate",
            None,
            max_probability,
            _sentence(
                f"bright signal outside the thecal sac {_where(coverage)} may be fluid or "
                "epidural fat, which is not suppressed on this acquisition"
            ),
        )
    confidence = settings.absent_confidence * (1.0 - max_probability)
    return Finding(
        "absent",
        None,
        confidence,
        _sentence(
            f"no epidural fluid collection detected {_where(coverage)}; "
            f"this does not exclude a leak{_numbering(None, levels)}"
        ),
    )


_BLIND = (
    "the study contains no fat-suppressed myelogram, so epidural fluid can be neither shown "
    "nor ruled out"
)


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


def _positive(main: LocatedCollection, others: int, levels: Levels) -> str:
    side = _SIDES[main.position]
    text = f"{side} epidural fluid signal"
    if main.grade == "possible":
        text = f"possible {text}"
    if not main.segments:
        text += f" over {main.length_mm:.0f} mm of the canal"
    elif len(main.segments) == 1:
        text += f" at {main.segments[0]}"
    else:
        text += f" from {main.segments[0]} to {main.segments[-1]}, largest at {main.level}"
        if len(main.level_set) > 1:
            text += f" or {' or '.join(main.level_set[1:])}"
    beyond = [c for c in ("paraspinal", "subcutaneous") if c in main.compartments]
    if beyond:
        text += f", reaching the {beyond[-1]} tissue"
    text += f" ({main.volume_ml:.1f} mL, up to {main.max_thickness_mm:.0f} mm thick, {main.grade})"
    if others:
        text += f", and {others} other collection{'s' if others > 1 else ''}"
    return text + _numbering(main, levels)


def _numbering(main: LocatedCollection | None, levels: Levels) -> str:
    if levels.status == "unlabelled":
        return "; vertebral levels could not be named"
    numbering = levels.numbering
    assumed = numbering.assumption.partition(";")[0]  # the evidence is in the report
    text = f"; numbering assumes {assumed}"
    if main is None or main.level is None:
        return text
    if numbering.confidence < _MIN_NUMBERING_CONFIDENCE and numbering.alternatives:
        other = next((a.level for a in main.alternatives if a.if_renumbered), None)
        if other is not None:
            text += f" (or {other} if numbered otherwise)"
    return text


def _where(coverage: tuple[str | None, str | None]) -> str:
    cranial, caudal = coverage
    if cranial is None or caudal is None:
        return "in the field of view"
    return f"from {cranial} to {caudal}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
