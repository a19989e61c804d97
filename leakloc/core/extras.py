"""Deferred import: of packages that an extra installs, and of modules that few commands need.

`leakloc.cli` imports the module of a command when it runs. No other import is deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from leakloc.core.errors import SettingsError


def need(module: str, extra: str) -> Any:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Module to import, such as ``"pandas"``, or a module of leakloc that imports such a module.
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
        missing, wanted = ((error.name or module).partition(".")[0], module.partition(".")[0])
        if missing != wanted and wanted != "leakloc":
            raise  # installed, but one of its own dependencies is missing
        raise _not_installed([missing], extra) from error


def check_installed(packages: Sequence[str], extra: str) -> None:
    """Check that optional packages are installed, without importing them.

    Parameters
    ----------
    packages : sequence of str
        Names of top-level packages.
    extra : str
        Extra of leakloc that installs them.

    Raises
    ------
    SettingsError
        If any is not installed; the message contains the installation command.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise _not_installed(missing, extra)


def _not_installed(packages: Sequence[str], extra: str) -> SettingsError:
    return SettingsError(f"this needs {', '.join(packages)}: pip install 'leakloc[{extra}]'")


class LazyModule:
    """A module that is imported when one of its attributes is first used.

    For a module of leakloc, the same import under ``TYPE_CHECKING`` is required, so that
    import-linter and mypy see it.

    Parameters
    ----------
    module : str
        Name of the module, including that of its package.
    extra : str, optional
        Extra of leakloc that installs it; None for a dependency of every installation.

    Examples
    --------
    >>> fractions = LazyModule("fractions")
    >>> fractions.Fraction(2, 4)
    Fraction(1, 2)
    """

    def __init__(self, module: str, extra: str | None = None) -> None:
        self._module = module
        self._extra = extra

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module.

        Raises
        ------
        SettingsError
            If the module belongs to an extra that is not installed.
        """
        if name.startswith("__"):  # inspection, for example by doctest, imports nothing
            raise AttributeError(name)
        module = self._module
        found = need(module, self._extra) if self._extra else import_module(module)
        return getattr(found, name)


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a function ``__getattr__`` for a package, which imports its names on first use.

    Parameters
    ----------
    package : str
        Name of the package.
    modules : mapping
        Module of each public name; for a module, its own name.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = import_module(modules[name])
        return found if found.__name__.endswith(f".{name}") else getattr(found, name)

    return get
