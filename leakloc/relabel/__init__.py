"""Renumbering of the levels of an existing report, without a new analysis."""

from leakloc.relabel.renumber import relabel, reopen

__all__ = ["relabel", "reopen"]
