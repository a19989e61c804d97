"""Import of optional dependencies, with an installation hint if missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from leakloc.core.errors import SettingsError


def need(module: str, extra: str) -> Any:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Module to import, such as ``"pandas"``.
    extra : str
        Extra of leakloc that installs it.

    Raises
    ------
    SettingsError
        If it is not installed; the message contains the installation command.

    Examples
    --------
    >>> need("no_such_module", "research")
    Traceback (most recent call last):
    ...
    leakloc.core.errors.SettingsError: this needs no_such_module: pip install 'leakloc[research]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # installed, but one of its own dependencies is missing
        raise SettingsError(f"this needs {module}: pip install 'leakloc[{extra}]'") from error
