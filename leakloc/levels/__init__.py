"""Detection and numbering of vertebral levels.

The stage is `labeling`. It uses, in this order: `search` (volumes and detectors), `candidates`
(features of each disc), `numbering` (optimization), `naming` (choice of the numbering),
`confidence`, `bodies` and `wording`.
"""

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
