"""Exit codes of the commands."""

from __future__ import annotations

from typing import Final

from leakloc.core.errors import InputError, LeaklocError, OutputError, SettingsError

DONE: Final = 0
BAD_USAGE: Final = 2
INPUT_UNUSABLE: Final = 3
ANALYSIS_FAILED: Final = 4


def exit_code(error: LeaklocError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, SettingsError | OutputError):
        return BAD_USAGE
    if isinstance(error, InputError):
        return INPUT_UNUSABLE
    return ANALYSIS_FAILED
