"""Exception classes of leakloc.

The message names the affected file or series, the problem and a remedy. Commands map the class to
an exit code (`leakloc.cli`); a batch records it as the reason of the failure.
"""


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


def reason_of(error: BaseException) -> str:
    """Return the class of an exception and the first line of its message.

    Examples
    --------
    >>> reason_of(ValueError("not a number"))
    'ValueError: not a number'
    """
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return f"{name}: {lines[0].strip()[:MAX_REASON_CHARACTERS]}" if lines else name
