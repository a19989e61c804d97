"""Command-line interface of leakloc.

`parser` defines the arguments of all commands. Each command is a module with a function `run`,
which is imported when the command runs, so that ``leakloc --help`` imports no other package.

Exit codes: 0 success, 2 incorrect usage (arguments, settings, output folder), 3 unusable input,
4 analysis failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from leakloc.cli.codes import ANALYSIS_FAILED, BAD_USAGE, DONE, INPUT_UNUSABLE, exit_code
from leakloc.cli.parser import make_parser
from leakloc.core.errors import LeaklocError, reason_of
from leakloc.core.quiet import quiet_libraries

__all__ = ["ANALYSIS_FAILED", "BAD_USAGE", "DONE", "INPUT_UNUSABLE", "exit_code", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        with nullcontext() if options.verbose else quiet_libraries():
            code: int = import_module(f"leakloc.cli.{options.command}").run(options)
        return code
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
            f"leakloc: the analysis failed unexpectedly ({reason_of(error)}); "
            "run again with -v for details",
            file=sys.stderr,
        )
        return ANALYSIS_FAILED
