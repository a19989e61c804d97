"""Command-line interface of leakloc.

Each command is a module whose function `add` adds its parser; dependencies are imported when the
command runs.

Exit codes: 0 success, 2 incorrect usage (arguments, settings, output folder), 3 unusable input,
4 analysis failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from leakloc.cli import about, analyze, batch, diff, evaluate, node, phantom, relabel, series, tune
from leakloc.cli.shared import ANALYSIS_FAILED, BAD_USAGE, DONE, INPUT_UNUSABLE
from leakloc.core.errors import InputError, LeaklocError, OutputError, SettingsError
from leakloc.core.version import __version__

COMMANDS = (analyze, relabel, batch, node, diff, series, phantom, evaluate, tune, about)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except LeaklocError as error:
        print(f"leakloc: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("leakloc: interrupted", file=sys.stderr)
        return ANALYSIS_FAILED
    except BrokenPipeError:  # the reading process closed the pipe, e.g. `| head`
        sys.stderr.close()
        return DONE
    except Exception as error:
        if options.verbose:
            raise
        print(
            f"leakloc: the analysis failed unexpectedly ({type(error).__name__}); "
            "run again with -v for details",
            file=sys.stderr,
        )
        return ANALYSIS_FAILED


def exit_code(error: LeaklocError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, SettingsError | OutputError):
        return BAD_USAGE
    if isinstance(error, InputError):
        return INPUT_UNUSABLE
    return ANALYSIS_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leakloc",
        description="Detects CSF outside the dura on MR myelography and names the vertebral level. "
        "Research use only; not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"leakloc {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
