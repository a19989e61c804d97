"""Localization of segmented fluid: level, extent, side, grade, path from the sacral hiatus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakloc.core.extras import lazy_names

if TYPE_CHECKING:
    from leakloc.localization.coordinate import LevelCoordinate
    from leakloc.localization.hiatus import SacralCanal, find_sacral_canal
    from leakloc.localization.intracranial import without_cisterns
    from leakloc.localization.localizer import localize
    from leakloc.localization.signals import measure_signals
else:  # reading a report needs only `leakloc.localization.result`
    __getattr__ = lazy_names(
        __name__,
        {
            "LevelCoordinate": "leakloc.localization.coordinate",
            "SacralCanal": "leakloc.localization.hiatus",
            "find_sacral_canal": "leakloc.localization.hiatus",
            "localize": "leakloc.localization.localizer",
            "measure_signals": "leakloc.localization.signals",
            "without_cisterns": "leakloc.localization.intracranial",
        },
    )

__all__ = [
    "LevelCoordinate",
    "SacralCanal",
    "find_sacral_canal",
    "localize",
    "measure_signals",
    "without_cisterns",
]
