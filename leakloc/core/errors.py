"""Exception classes of leakloc.

The message names the affected file or series, the problem and a remedy. Commands map the class to
an exit code (`leakloc.cli`); a batch records it as the reason of the failure. File names may
contain patient names, so messages name files with `file_label` and `path_label`, and services
replace these names with `neutral_names`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Final

_UID: Final = re.compile(r"[0-9.]*")
_neutral: ContextVar[Callable[[Path], str] | None] = ContextVar("neutral", default=None)


def file_label(path: Path) -> str:
    """Return the name of a file for a message: its own, or a neutral one."""
    neutral = _neutral.get()
    return path.name if neutral is None else neutral(path)


def path_label(path: Path) -> str:
    """Return a path for a message: as specified, or a neutral name."""
    neutral = _neutral.get()
    return str(path) if neutral is None else neutral(path)


def printable(text: str) -> str:
    """Replace control characters, which could change a terminal, with ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def counted(number: int, plural: str) -> str:
    """Return a number with what it counts; the first word becomes singular for 1.

    Examples
    --------
    >>> counted(1, "studies without MR images"), counted(0, "files"), counted(1, "series")
    ('1 study without MR images', '0 files', '1 series')
    """
    word, space, rest = plural.partition(" ")
    if number == 1 and word != "series":
        word = f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")
    return f"{number} {word}{space}{rest}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the known name most similar to an unknown one, as the end of a message.

    Examples
    --------
    >>> suggestion("analyse", ["analyze", "batch"])
    "; did you mean 'analyze'?"
    >>> suggestion("xyz", ["analyze", "batch"])
    ''
    """
    similar = get_close_matches(name, list(known), 1)
    return f"; did you mean {similar[0]!r}?" if similar else ""


def uid_label(uid: str) -> str:
    """Return a UID for a message; within `neutral_names` not a text in its place."""
    if _neutral.get() is not None and not _UID.fullmatch(uid):
        return "(not a UID)"
    return printable(uid)


@contextmanager
def neutral_names(label: Callable[[Path], str]) -> Iterator[None]:
    """Name files in messages with `label`, so that the messages contain no patient names."""
    token = _neutral.set(label)
    try:
        yield
    finally:
        _neutral.reset(token)


class LeaklocError(Exception):
    """Base class of the exceptions raised by leakloc."""


class SettingsError(LeaklocError):
    """A setting, recipe or command-line value is unknown or out of range."""


class InputError(LeaklocError):
    """The input cannot be used: nothing readable, wrong modality, no suitable series."""


class GeometryError(InputError):
    """Slices or grids are inconsistent in patient space."""


class OutputError(LeaklocError):
    """The output folder cannot be written or must not be overwritten."""


class AnalysisError(LeaklocError):
    """A stage produced no result although the input is usable."""


MAX_REASON_CHARACTERS = 300
"""Length at which the message of another library is cut: one or two lines of a terminal."""


def reason_of(error: BaseException, path: Path | None = None) -> str:
    """Return the class of an exception and the first line of its message.

    The file name of a system error is omitted. Within `neutral_names` the message is omitted,
    because those of other libraries may contain file names or values of a DICOM header.

    Parameters
    ----------
    error : BaseException
    path : Path, optional
        File without patient data in its header. Within `neutral_names` the message is then included
        if it contains no path and not the name of this file.

    Examples
    --------
    >>> reason_of(ValueError("not a number"))
    'ValueError: not a number'
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
    lines = text.strip().splitlines()
    name = type(error).__name__
    if not lines:
        return name
    if _neutral.get() is not None and (
        path is None or any(part in lines[0] for part in ("/", "\\", path.name))
    ):
        return name
    return f"{name}: {printable(lines[0].strip()[:MAX_REASON_CHARACTERS])}"
