"""`leakloc completion`: print the code with which a shell completes commands and options.

`complete` answers the requests of that code; `leakloc.cli.main` calls it if the shell requests
completions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, get_args

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.shell_integration import shellcode

from leakloc.cli.codes import DONE
from leakloc.cli.parser import commands_of
from leakloc.core.extras import LazyModule

if TYPE_CHECKING:
    from leakloc.core import settings
    from leakloc.levels import schemes
    from leakloc.validation import phantom
else:  # slow to import; each completion is a new process
    settings = LazyModule("leakloc.core.settings")
    schemes = LazyModule("leakloc.levels.schemes")
    phantom = LazyModule("leakloc.validation.phantom")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    print(shellcode(["leakloc"], shell=options.shell))
    return DONE


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions that the shell requests, and exit."""
    for command in commands_of(parser).values():
        for action in command._actions:
            if action.dest in _COMPLETERS:
                action.completer = _COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _settings(**_: object) -> list[str]:
    return [f"{name}=" for name in settings.setting_names()]


def _recipes(prefix: str, **_: object) -> list[str]:
    files: Iterable[str] = FilesCompleter(("toml",))(prefix)
    return [*settings.recipe_names(), *files]


def _outputs(prefix: str, **_: object) -> list[str]:
    """Complete the last output of a list separated by commas."""
    before = prefix.rpartition(",")[0]
    known = get_args(get_args(settings.ReportSettings.model_fields["write"].annotation)[0])
    return [f"{before},{name}" if before else name for name in known]


def _schemes(**_: object) -> list[str]:
    return list(schemes.SCHEMES)


def _scenarios(**_: object) -> list[str]:
    return list(phantom.SCENARIOS)


_COMPLETERS: Final[dict[str, Callable[..., Any]]] = {
    "set": _settings,
    "search": _settings,
    "pipeline": _recipes,
    "write": _outputs,
    "scheme": _schemes,
    "scenario": _scenarios,
    "phantom": _scenarios,
}
