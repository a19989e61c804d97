"""Naming vertebral levels: detection, then numbering."""

from leakloc.levels.files import read_level_map, read_levels
from leakloc.levels.given import GivenLevels, GivenMap
from leakloc.levels.labeling import Seen, label, look, number
from leakloc.levels.result import Levels

__all__ = [
    "GivenLevels",
    "GivenMap",
    "Levels",
    "Seen",
    "label",
    "look",
    "number",
    "read_level_map",
    "read_levels",
]
