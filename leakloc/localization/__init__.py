"""Localization of segmented fluid: level, extent, side, grade, path from the sacral hiatus."""

from __future__ import annotations

from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.hiatus import SacralCanal, find_sacral_canal
from leakloc.localization.intracranial import without_cisterns
from leakloc.localization.localizer import localize

__all__ = [
    "LevelCoordinate",
    "SacralCanal",
    "find_sacral_canal",
    "localize",
    "without_cisterns",
]
