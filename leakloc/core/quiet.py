"""Suppress warnings that other libraries print; leakloc reports problems as notes and errors."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOGGERS: Final = ("pydicom", "highdicom", "nibabel", "nibabel.global")
"""Loggers of readers and writers; nibabel's has a handler of its own."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings of pydicom, highdicom, nibabel, ITK and numpy within a ``with`` block.

    Warnings of leakloc are values (`leakloc.core.notes.Note`) and are not affected.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    sitk = sys.modules.get("SimpleITK")  # an extra, and slow to import
    displayed = sitk is not None and sitk.ProcessObject.GetGlobalWarningDisplay()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if sitk is not None:
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if sitk is not None:
                sitk.ProcessObject.SetGlobalWarningDisplay(displayed)
