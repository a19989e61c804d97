"""Every error leakloc raises on purpose.

The message says what is wrong with which file or series, and what to do about it.
Commands turn the class into an exit code (`leakloc.cli`); a batch turns it into a
recorded reason.
"""


class LeaklocError(Exception):
    """Base of all errors that leakloc raises on purpose."""


class SettingsError(LeaklocError):
    """A setting, recipe or command-line value is unknown or out of range."""


class InputError(LeaklocError):
    """The input cannot be used: nothing readable, wrong modality, no suitable series."""


class GeometryError(InputError):
    """Slices or grids do not fit together in patient space."""


class OutputError(LeaklocError):
    """The output folder cannot be written or must not be overwritten."""


class AnalysisError(LeaklocError):
    """A stage could not reach a result on usable input."""
