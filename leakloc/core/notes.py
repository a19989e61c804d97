"""Warnings that travel with results instead of being printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something the reader of a report should know.

    Parameters
    ----------
    code : str
        Lower-case words joined by underscores; stable, for machines.
    message : str
        One sentence for humans, without patient data.
    """

    code: str
    message: str
