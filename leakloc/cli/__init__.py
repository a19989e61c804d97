"""Command-line interface of leakloc.

`parser` defines the arguments of all commands. Each command is a module with a function `run`,
which is imported when the command runs, so that ``leakloc --help`` imports no other package.

Exit codes: 0 success, 2 incorrect usage (arguments, settings, output folder), 3 unusable input,
4 analysis failed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module

from leakloc.cli.codes import ANALYSIS_FAILED, BAD_USAGE, DONE, INPUT_UNUSABLE, exit_code
from leakloc.cli.parser import check_spelling, make_parser
from leakloc.core.errors import LeaklocError, printable, reason_of
from leakloc.core.garbage import collect_rarely
from leakloc.core.quiet import quiet_libraries

__all__ = ["ANALYSIS_FAILED", "BAD_USAGE", "DONE", "INPUT_UNUSABLE", "exit_code", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = make_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "_ARGCOMPLETE" in os.environ:  # the shell requests completions
        import_module("leakloc.cli.completion").complete(parser)
    if not words:
        parser.print_help()
        return DONE
    check_spelling(parser, words)
    options = parser.parse_args(words)
    collect_rarely()
    try:
        quiet = nullcontext() if options.verbose else quiet_libraries()
        with terminated_like_interrupted(), quiet:
            code: int = import_module(f"leakloc.cli.{options.command}").run(options)
        return code
    except LeaklocError as error:
        print(f"leakloc: {printable(str(error))}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("leakloc: interrupted", file=sys.stderr)
        return ANALYSIS_FAILED
    except BrokenPipeError:  # the reading process closed the pipe, e.g. `| head`
        sys.stderr.close()
        return DONE
    except MemoryError:
        print(
            "leakloc: out of memory; close other programs, or reduce the setting "
            "loaders.max_decoded_mib to exclude large series",
            file=sys.stderr,
        )
        return ANALYSIS_FAILED
    except Exception as error:
        if options.verbose:
            raise
        print(
            f"leakloc: the analysis failed unexpectedly ({printable(reason_of(error))}); "
            "run again with -v for details",
            file=sys.stderr,
        )
        return ANALYSIS_FAILED


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that temporary files with patient data are removed.

    Running jobs of a batch are requeued, finished ones are kept.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP")  # SIGHUP does not exist on Windows
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # A program started with nohup ignores SIGHUP.
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
