"""Warnings that are returned with results instead of being printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A warning or note for the reader of a report.

    Parameters
    ----------
    code : str
        Stable machine-readable code: lower-case words joined by underscores.
    message : str
        One sentence, without patient data.
    """

    code: str
    message: str
