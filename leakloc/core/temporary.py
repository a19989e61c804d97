"""Temporary folders with patient data, which are removed even if their process was killed."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

if sys.platform != "win32":
    import fcntl

_PREFIX: Final = "leakloc-"
_LOCK_NAME: Final = "leakloc.lock"


class TemporaryFolder:
    """A temporary folder that exists until `remove` is called, or the object or process ends.

    A file in it is locked by the process. If the process is killed, the operating system releases
    the lock, and `remove_leftovers` of a later process removes the folder.

    Parameters
    ----------
    prefix : str
        Start of its name after ``leakloc-``.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, prefix: str) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix=f"{_PREFIX}{prefix}", ignore_cleanup_errors=True
        )
        self.path = Path(self._folder.name)
        self._lock = _locked_file(self.path)

    def remove(self) -> None:
        """Remove the folder with its content."""
        self._folder.cleanup()
        self._lock.close()


def _locked_file(folder: Path) -> IO[bytes]:
    new = folder / f"{_LOCK_NAME}.new"
    file = new.open("wb")
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(folder / _LOCK_NAME)  # under its name it is always locked
    return file


def remove_leftovers() -> None:
    """Remove the temporary folders of this user's killed leakloc processes (not on Windows)."""
    if sys.platform == "win32":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # in use, or of another user
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return
    lock = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
