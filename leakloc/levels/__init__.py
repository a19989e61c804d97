"""Detection and numbering of vertebral levels."""

from leakloc.levels.files import read_level_map, read_levels
from leakloc.levels.labeling import assign_levels, label
from leakloc.levels.result import Levels
from leakloc.levels.search import SpineDetection, detect_spine
from leakloc.levels.supplied import SuppliedLevelMap, SuppliedLevels

__all__ = [
    "Levels",
    "SpineDetection",
    "SuppliedLevelMap",
    "SuppliedLevels",
    "assign_levels",
    "detect_spine",
    "label",
    "read_level_map",
    "read_levels",
]
