"""Localization of segmented fluid: level, extent, side, grade, path from the sacral hiatus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakloc.core.extras import lazy_names

if TYPE_CHECKING:
    from leakloc.localization.axial import measure_axial
    from leakloc.localization.companions import CompanionMeasurements
    from leakloc.localization.coordinate import LevelCoordinate
    from leakloc.localization.enhancement import measure_enhancement
    from leakloc.localization.hiatus import SacralCanal, find_sacral_canal
    from leakloc.localization.intracranial import without_cisterns
    from leakloc.localization.localizer import localize
    from leakloc.localization.retrospinal import without_retrospinal
    from leakloc.localization.second_myelogram import compare_myelograms
    from leakloc.localization.signals import measure_signals, surroundings_of
    from leakloc.localization.surgical_bed import measure_surgical_bed
else:  # reading a report needs only `leakloc.localization.result`
    __getattr__ = lazy_names(
        __name__,
        {
            "LevelCoordinate": "leakloc.localization.coordinate",
            "SacralCanal": "leakloc.localization.hiatus",
            "find_sacral_canal": "leakloc.localization.hiatus",
            "localize": "leakloc.localization.localizer",
            "compare_myelograms": "leakloc.localization.second_myelogram",
            "measure_axial": "leakloc.localization.axial",
            "measure_enhancement": "leakloc.localization.enhancement",
            "measure_signals": "leakloc.localization.signals",
            "surroundings_of": "leakloc.localization.signals",
            "CompanionMeasurements": "leakloc.localization.companions",
            "measure_surgical_bed": "leakloc.localization.surgical_bed",
            "without_cisterns": "leakloc.localization.intracranial",
            "without_retrospinal": "leakloc.localization.retrospinal",
        },
    )

__all__ = [
    "CompanionMeasurements",
    "LevelCoordinate",
    "SacralCanal",
    "compare_myelograms",
    "find_sacral_canal",
    "localize",
    "measure_axial",
    "measure_enhancement",
    "measure_signals",
    "measure_surgical_bed",
    "surroundings_of",
    "without_cisterns",
    "without_retrospinal",
]
