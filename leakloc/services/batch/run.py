"""Analysis of one queued study in a separate, monitored process.

The process is forked from a preloaded one, which takes milliseconds. If it hangs, crashes or
uses too much memory, only its own study fails; its memory is released when it ends. This module
does not depend on the ledger or the caller.
"""

from __future__ import annotations

import errno
import faulthandler
import hashlib
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from multiprocessing import connection, current_process, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.errors import LeaklocError, OutputError, neutral_names, printable
from leakloc.core.extras import LazyModule
from leakloc.core.settings import Settings
from leakloc.core.temporary import TemporaryFolder, remove_leftovers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import psutil
else:
    psutil = LazyModule("psutil", "batch")

if sys.platform != "win32":
    import resource

ANALYZE: Final = "leakloc.pipeline:analyze"
"""Analysis function: `module:function` with the signature of `leakloc.pipeline.analyze`."""
PRELOAD = ["leakloc.services.batch.preload"]
"""Modules imported by the process from which analyses are forked."""
_POLL_S: Final = 0.1  # NumPy fills about 100 MB in this time: precision of the memory limit
_GONE_S: Final = 5.0
"""Maximum time to wait for a killed process to end; a busy machine is slow."""
_FAMILY_S: Final = 2.0  # finding child processes scans all processes of the machine
_MIB: Final = 1024**2
_LOG_BYTES: Final = 16_000  # of the last output of a crashed process
_DISK_FULL: Final = "DiskFull"
_LEFTOVER: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{1,8}\.(?P<kind>old|partial)")
_MIN_NAME: Final = 3
"""Minimum length of a file name that is removed from messages of plug-ins; shorter ones occur in
words and contain at most initials."""
_PLAIN_WORD: Final = re.compile(r"[a-z]{1,10}")
"""Names such as "images", which are retained in messages."""
_running: dict[BaseProcess, str] = {}  # analysis processes of this worker and their output
_lock = threading.Lock()  # concurrent starting and reaping of processes can lose exit codes


@dataclass(frozen=True)
class Job:
    """A study to analyze.

    Parameters
    ----------
    name : str
        Report folder, relative to `output`.
    source : tuple of str
        Folders, archives or files of the study.
    study_uid : str or None
        Study to read if the source contains several.
    output : str
        Output folder, at the same path on every worker.
    settings : Settings
    """

    name: str
    source: tuple[str, ...]
    study_uid: str | None
    output: str
    settings: Settings


@dataclass(frozen=True)
class Limits:
    """Resource limits of one analysis.

    Parameters
    ----------
    timeout_s, memory_mib : float or None
        Maximum time and resident memory; None for no limit.
    threads : int
        Number of CPU threads.
    """

    timeout_s: float | None = None
    memory_mib: float | None = None
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """Outcome of the analysis of one study; picklable.

    Parameters
    ----------
    error_class : str or None
        None if the report was written. Otherwise the class of leakloc's error, the
        name of another exception, or ``Timeout``, ``MemoryLimit``, ``Crash``, ``DiskFull``.
    error_message : str or None
        Message for the user, without patient data.
    detail : str or None
        Traceback or last output of the process; may contain file names.
    wall_s, cpu_s, peak_mib : float
        Wall-clock time, CPU time, peak resident memory.
    worker : str
        ``host:process``.
    """

    error_class: str | None
    error_message: str | None
    detail: str | None
    wall_s: float
    cpu_s: float
    peak_mib: float
    worker: str

    @property
    def disk_full(self) -> bool:
        """Whether the analysis failed because the disk was full."""
        return self.error_class == _DISK_FULL


@dataclass(frozen=True)
class _Result:
    """Result that an analysis process sends before it exits."""

    error_class: str | None
    error_message: str | None
    detail: str | None
    cpu_s: float
    peak_mib: float


def run_job(job: Job, limits: Limits | None = None, analyze: str = ANALYZE) -> Outcome:
    """Analyze a study in a separate process and write its report folder.

    Parameters
    ----------
    job : Job
    limits : Limits, optional
    analyze : str
        ``module:function`` to call instead of `leakloc.pipeline.analyze`.

    Returns
    -------
    Outcome
        Includes any failure of the analysis; no exception is raised for it.
    """
    limits = limits or Limits()
    start = time.perf_counter()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    with _scratch(job) as scratch:
        here, there = connection.Pipe(duplex=False)
        process = _context(limits.threads).Process(
            target=_analyze_here, args=(there, job, limits, analyze, str(scratch)), daemon=True
        )
        with _lock, _children_allowed():
            process.start()
        _running[process] = job.output
        there.close()
        try:
            result, memory = _watch(process, here, limits, start)
        finally:
            _kill(process)
            _running.pop(process, None)
            here.close()
        if result is None:
            result = _missing_result(process, memory, scratch)
    return Outcome(
        result.error_class,
        result.error_message,
        result.detail,
        time.perf_counter() - start,
        result.cpu_s,
        max(result.peak_mib, memory.peak_mib),
        worker,
    )


def stop_jobs(output: str) -> None:
    """Kill all analyses for an output folder that run on this worker."""
    for process in [one for one, place in list(_running.items()) if place == output]:
        with _lock:
            process.kill()


@dataclass
class _Memory:
    """Resource usage of a process, measured from outside."""

    peak_mib: float = 0.0
    cpu_s: float = 0.0
    stopped_for: tuple[str, str] | None = None
    watched: psutil.Process | None = None
    children: list[psutil.Process] = field(default_factory=list)
    family_at: float = 0.0


def _watch(
    process: BaseProcess, here: Connection, limits: Limits, start: float
) -> tuple[_Result | None, _Memory]:
    """Wait for the process to end; stop it at its limits."""
    usage = _Memory()
    while True:
        ready = connection.wait([here, process.sentinel], _POLL_S)
        if here in ready or here.poll():
            with suppress(EOFError, OSError):  # it died while sending
                result: _Result = here.recv()
                return result, usage
        if ready:
            return None, usage
        _measure(process, usage)
        if limits.timeout_s is not None and time.perf_counter() - start > limits.timeout_s:
            usage.stopped_for = (
                "Timeout",
                f"stopped after {limits.timeout_s:g} s; allow more with --timeout",
            )
            return None, usage
        if limits.memory_mib is not None and usage.peak_mib > limits.memory_mib:
            usage.stopped_for = (
                "MemoryLimit",
                f"stopped at {usage.peak_mib:.0f} MiB of memory; allow more with --memory-limit",
            )
            return None, usage


def _measure(process: BaseProcess, usage: _Memory) -> None:
    with suppress(psutil.Error):
        if usage.watched is None:
            usage.watched = psutil.Process(process.pid)
        now = time.monotonic()
        if now - usage.family_at > _FAMILY_S:
            usage.family_at = now
            usage.children = usage.watched.children(recursive=True)
        resident = usage.watched.memory_info().rss
        for child in usage.children:
            with suppress(psutil.Error):
                resident += child.memory_info().rss
        usage.peak_mib = max(usage.peak_mib, resident / _MIB)
        times = usage.watched.cpu_times()
        usage.cpu_s = times.user + times.system


def _kill(process: BaseProcess) -> None:
    """Kill the process and its children."""
    with _lock:
        if process.is_alive():
            family: list[psutil.Process] = []
            with suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
            for child in family:
                with suppress(psutil.Error):
                    child.kill()
            process.kill()
            psutil.wait_procs(family, timeout=_GONE_S)
        process.join()


def _missing_result(process: BaseProcess, usage: _Memory, scratch: Path) -> _Result:
    """Result for a process that ended without sending one."""
    log = ""
    with suppress(OSError):  # it may have died before it opened its log
        log = (scratch / "log").read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
    log = log.partition("\n\nExtension modules:")[0]
    kind, message = usage.stopped_for or ("Crash", _exit_reason(process.exitcode))
    return _Result(kind, message, log or None, usage.cpu_s, usage.peak_mib)


def _exit_reason(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if name == "SIGKILL":
            return (
                "the analysis process was killed (SIGKILL), most likely because the system ran "
                "out of memory; use fewer workers or set --memory-limit"
            )
        return f"the analysis process crashed ({name})"
    return f"the analysis process ended without a result (exit code {exitcode})"


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """Temporary folder of one analysis, always removed at its end."""
    folder = TemporaryFolder(_scratch_name(Path(job.output)))
    try:
        yield folder.path
    finally:
        folder.remove()


def scratch_prefix(output: Path) -> str:
    """Name prefix of the temporary folders of one output folder."""
    return f"leakloc-{_scratch_name(output)}"


def _scratch_name(output: Path) -> str:
    return f"batch-{hashlib.sha256(str(output).encode()).hexdigest()[:12]}-"


def clean_up(output: Path, studies: Collection[str] = ()) -> None:
    """Remove leftovers of killed analyses; call it while the output folder is locked.

    A previous report is restored if its replacement was not written. Folders that leakloc did not
    create are kept, whatever their name.

    Parameters
    ----------
    output : Path
        Output folder.
    studies : collection of str
        Names of the studies of its ledger.
    """
    remove_leftovers()
    for left in Path(tempfile.gettempdir()).glob(f"{scratch_prefix(output)}*"):
        shutil.rmtree(left, ignore_errors=True)
    found = [(path, _LEFTOVER.fullmatch(path.name)) for path in output.glob(".*") if path.is_dir()]
    own = [
        (path, match["name"], match["kind"])
        for path, match in found
        if match is not None
        and not path.is_symlink()
        and (match["name"] in studies or _holds_report(path))
    ]
    for path, name, kind in own:
        if kind == "old" and not (output / name).exists() and _holds_report(path):
            path.rename(output / name)
    for path, _, _ in own:
        shutil.rmtree(path, ignore_errors=True)


def _holds_report(folder: Path) -> bool:
    return (folder / "report.json").is_file()


@contextmanager
def _children_allowed() -> Iterator[None]:
    """Allow this process to start others, which multiprocessing forbids for daemons.

    Dask nannies run their workers as daemons. The rule prevents children from outliving such a
    process; analysis processes exit with their parent anyway (`_end_with_parent`).
    """
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    previous = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = previous


@lru_cache(maxsize=1)
def _context(threads: int) -> Any:
    """Multiprocessing context: forked from a preloaded process, or spawned on Windows."""
    os.environ.update(_thread_variables(threads))
    if sys.platform == "win32":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _thread_variables(threads: int) -> dict[str, str]:
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
    return dict.fromkeys(names, str(threads))


def _analyze_here(there: Connection, job: Job, limits: Limits, analyze: str, scratch: str) -> None:
    """Main function of an analysis process."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the batch handles Ctrl-C
    _log_to(Path(scratch, "log"))
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    os.environ.update(_thread_variables(limits.threads))
    there.send(_run_analysis(job, analyze, Path(scratch)))
    there.close()


def _run_analysis(job: Job, analyze: str, scratch: Path) -> _Result:
    error_class = message = detail = None
    named = job.settings.report.identity == "keep"
    try:
        with nullcontext() if named else neutral_names(partial(_neutral_name, job)):
            _analyze(job, analyze, scratch)
    except BaseException as error:
        detail = traceback.format_exc()[-_LOG_BYTES:]
        error_class, message = _describe(error, job, scratch)
    cpu_s, peak_mib = _resource_usage()
    return _Result(error_class, message, detail, cpu_s, peak_mib)


def _analyze(job: Job, analyze: str, scratch: Path) -> None:
    module, _, function = analyze.partition(":")
    call: Callable[..., Any] = getattr(import_module(module), function)
    output = Path(job.output)
    if not output.is_dir():
        raise OutputError(
            "this machine cannot access the output folder; every worker needs it at the same path"
        )
    call(
        _single_path(job.source, scratch),
        job.settings,
        output=output / job.name,
        study_uid=job.study_uid,
        overwrite=True,
    )


def _single_path(source: tuple[str, ...], scratch: Path) -> Path:
    """The source as one path; several paths are combined in a folder of links."""
    if len(source) == 1:
        return Path(source[0])
    gathered = scratch / "gathered"
    gathered.mkdir()
    for number, path in enumerate(source):
        if Path(path).is_dir():
            for place, inner in enumerate(sorted(Path(path).iterdir())):
                if inner.is_file():
                    _link(inner, gathered / f"{number:06d}-{place:06d}")
        else:
            _link(Path(path), gathered / f"{number:06d}")
    return gathered


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # on Windows, links need a privilege
        shutil.copyfile(source, target)


def _describe(error: BaseException, job: Job, scratch: Path) -> tuple[str, str]:
    """Class and message of an error, without names of input files unless identity is kept."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    full = (errno.ENOSPC, errno.EDQUOT)
    if any(isinstance(one, OSError) and one.errno in full for one in causes):
        return _DISK_FULL, "the disk is full"
    kind = type(error).__name__
    if isinstance(error, LeaklocError):
        message = str(error).replace(str(scratch), "(temporary folder)")
        keep = job.settings.report.identity == "keep"
        return kind, printable(message if keep else _without_names(message, job))
    if isinstance(error, MemoryError):
        return "MemoryLimit", "out of memory; use fewer workers"
    return kind, f"the analysis failed unexpectedly ({kind})"


def _neutral_name(job: Job, path: Path) -> str:
    """Name a file by its position among the sorted files of its folder, archive or list."""
    if str(path) in job.source:
        return "the input" if len(job.source) == 1 else f"input {job.source.index(str(path)) + 1}"
    tops = [Path(place) for place in job.source if path.is_relative_to(place)]
    files = _paths_below(tops[0] if tops else path.parent)
    if str(path) not in files:
        return "a file of the input"
    return f"file {files.index(str(path)) + 1} of {len(files)}"


def _paths_below(top: Path) -> list[str]:
    """All files and folders below a folder, sorted."""
    return sorted(
        os.path.join(parent, name)  # noqa: PTH118 - links and unusual names stay as they are
        for parent, folders, names in os.walk(top)
        for name in [*folders, *names]
    )


def _without_names(message: str, job: Job) -> str:
    """Remove input paths and file names, which may contain patient names, from a message.

    For messages of plug-ins; those of leakloc contain neutral names (`_neutral_name`).
    """
    below = [path for place in job.source for path in _paths_below(Path(place))]
    paths = [*job.source, *below]
    for path in sorted(paths, key=len, reverse=True):
        message = message.replace(path, "(input)")
    names = {Path(path).name for path in paths}
    names |= {name.split(".")[0] for name in names}
    for name in sorted(names, key=len, reverse=True):
        if len(name) > _MIN_NAME and not _PLAIN_WORD.fullmatch(name):
            message = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(input)", message)
    return message


def _resource_usage() -> tuple[float, float]:
    """CPU time in s and peak memory in MiB of this process."""
    if sys.platform == "win32":
        return time.process_time(), psutil.Process().memory_info().rss / _MIB
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
    return time.process_time(), peak


def _end_with_parent() -> None:
    """Exit this process when its parent process has ended."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _log_to(path: Path) -> None:
    """Redirect the output of libraries and crash tracebacks to a file."""
    log = path.open("wb", buffering=0)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    faulthandler.enable(file=log)
