"""Naming vertebral levels: detection, then numbering."""

from leakloc.levels.labeling import label
from leakloc.levels.result import Levels

__all__ = ["Levels", "label"]
