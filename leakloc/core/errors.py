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
