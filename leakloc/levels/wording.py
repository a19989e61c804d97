"""Text of the numbering: assumption, reasons for other numberings, and notes."""

from __future__ import annotations

from typing import Final

from leakloc.core.notes import Note, note
from leakloc.levels.confidence import MIN_SACRUM_MM, Assessment
from leakloc.levels.naming import ChosenNumbering
from leakloc.levels.result import AlternativeNumbering, Numbering
from leakloc.levels.search import SpineDetection

_USUAL_CONUS_LEVELS: Final = 0.5
"""Maximum distance of a usual conus from its mean position; includes two thirds of people."""
_COUNT_WORDS: Final = {4: "four", 5: "five", 6: "six"}


def describe_numbering(chosen: ChosenNumbering, assessment: Assessment) -> Numbering:
    """Return the numbering with its assumption and alternatives as text for the report."""
    return Numbering(
        method=chosen.method,
        assumption=_assumption(chosen, assessment),
        confidence=assessment.confidence,
        lumbar_count=chosen.assignment.chain.lumbar_count,
        transitional_suspected=assessment.transitional_suspected,
        alternatives=tuple(
            AlternativeNumbering(
                shift, confidence, _reason(chosen, shift) + _hint(shift, assessment.conus_levels)
            )
            for shift, confidence in assessment.alternatives.items()
        ),
    )


def numbering_notes(
    detection: SpineDetection, chosen: ChosenNumbering, assessment: Assessment
) -> list[Note]:
    """Return the notes on the reliability of a numbering."""
    notes = []
    counted, from_sacrum = chosen.method == "c2_count", chosen.method == "sacrum_up"
    if not chosen.is_anchored:
        notes.append(note("no_anchor"))
    if from_sacrum and chosen.assignment.has_junction and assessment.sacrum_mm < MIN_SACRUM_MM:
        notes.append(note("sacrum_cut", below_mm=assessment.sacrum_mm))
    if counted and detection.localizer is not None:
        notes.append(note("counted_on_localizer"))
    if from_sacrum and detection.localizer is not None:
        notes.append(note("localizer_without_c2"))
    if assessment.competitors:
        notes.append(note("doubtful_count", structures=assessment.competitors))
    if assessment.transitional_suspected:
        notes.append(_transitional_note(chosen, assessment))
    return notes


def _assumption(chosen: ChosenNumbering, assessment: Assessment) -> str:
    assignment, conus_levels = chosen.assignment, assessment.conus_levels
    if chosen.method == "user":
        return "the names specified by the user"
    if chosen.method == "c2_count":
        above = "seven cervical and twelve thoracic vertebrae"
        if not assignment.has_junction:
            return f"{above}, counted from C2; sacrum not in the field of view"
        lumbar = _COUNT_WORDS[assignment.chain.lumbar_count]
        return f"{above} above {lumbar} lumbar ones, counted from C2"
    if conus_levels is None:
        cue = "not distinguishable from four or six in this field of view (conus not visible)"
    elif abs(conus_levels) < _USUAL_CONUS_LEVELS:
        cue = "the conus then lies at its usual level"
    else:
        cue = f"the conus then lies {_height(conus_levels)}"
    place = (
        "counted up from the lumbosacral disc"
        if assignment.has_junction
        else "sacrum not identified, placed by vertebral size"
    )
    if conus_levels is not None and not assignment.has_junction:
        place += " and the conus"
    if assessment.foramen_detected and not assignment.has_junction:
        place += " and the distance from the foramen magnum"
    return f"five lumbar vertebrae, {place}; {cue}"


def _reason(chosen: ChosenNumbering, shift: int) -> str:
    counted = chosen.method == "c2_count"
    if not counted and not chosen.assignment.has_junction:
        return "the sacrum is not in the field of view: levels were named by vertebral size"
    if counted:
        return "a disc counted twice" if shift < 0 else "a disc missed in the count from C2"
    if shift > 0:
        return "six lumbar vertebrae, or the presumed L5-S1 disc is S1-S2 (lumbarized S1)"
    return "four lumbar vertebrae, or the presumed L5-S1 disc is L4-L5 (sacralized L5)"


def _hint(shift: int, conus_levels: float | None) -> str:
    """Conus position, if it supports a caudal (positive) or cranial shift of the names."""
    if conus_levels is None or -shift * conus_levels < _USUAL_CONUS_LEVELS:
        return ""
    return f"; with the reported names the conus lies {_height(conus_levels)}"


def _height(conus_levels: float) -> str:
    side = "lower" if conus_levels > 0 else "higher"
    return f"{abs(conus_levels):.1f} levels {side} than usual"


def _transitional_note(chosen: ChosenNumbering, assessment: Assessment) -> Note:
    lumbar_count = chosen.assignment.chain.lumbar_count
    if chosen.method == "c2_count" and lumbar_count != 5:
        return note("transitional_suspected", "counted", lumbar=_COUNT_WORDS[lumbar_count])
    signs = assessment.transitional_signs
    return note("transitional_suspected", "signs" if signs else "", signs="; ".join(signs))
