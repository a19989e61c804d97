"""Correction of an existing report, and renumbering of its levels, without a new analysis."""

from leakloc.relabel.edits import DiscPoint, write_corrections
from leakloc.relabel.renumber import relabel, reopen

__all__ = ["DiscPoint", "relabel", "reopen", "write_corrections"]
