"""One queued study, analysed safely: in a process of its own, watched, and put in place whole.

The process is forked from one that has everything imported, so it costs milliseconds. It may
hang, crash or eat memory: that is its study's failure and nobody else's. When it ends, its
memory is the system's again. Nothing here knows the ledger or who asked.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from multiprocessing import connection, current_process, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.errors import LeaklocError, OutputError
from leakloc.core.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    import psutil

ANALYZE: Final = "leakloc.pipeline:analyze"
"""What analyses a study: `module:function` with the signature of `leakloc.pipeline.analyze`."""
PRELOAD = ["leakloc.services.batch.preload"]
"""Modules that the process has imported from which analyses are forked."""
_POLL_S: Final = 0.1  # NumPy fills some 100 MB in that time: the limit holds to that
_GONE_S: Final = 5.0
"""How long a killed process may take to be gone: a busy machine reaps late."""
_FAMILY_S: Final = 2.0  # finding a process's children means looking at all of the machine's
_MIB: Final = 1024**2
_LOG_BYTES: Final = 16_000  # of what a crashed process printed last
_DISK_FULL: Final = "DiskFull"
_running: dict[BaseProcess, str] = {}  # processes of this worker's analyses, and their output
_lock = threading.Lock()  # threads that start and reap processes steal each other's exit codes


@dataclass(frozen=True)
class Job:
    """A study to analyse.

    Parameters
    ----------
    name : str
        Folder to write, below `output`.
    source : tuple of str
        Folders, archives or files that hold the study.
    study_uid : str or None
        Which study, where they hold several.
    output : str
        Output folder, the same place on every machine that works on it.
    settings : Settings
    """

    name: str
    source: tuple[str, ...]
    study_uid: str | None
    output: str
    settings: Settings


@dataclass(frozen=True)
class Limits:
    """What one analysis may take.

    Parameters
    ----------
    timeout_s, memory_mib : float or None
        Longest time and largest resident memory; None for no limit.
    threads : int
        Processor threads.
    """

    timeout_s: float | None = None
    memory_mib: float | None = None
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """How the analysis of one study ended; picklable.

    Parameters
    ----------
    error_class : str or None
        None where the report stands in its folder. Else the class of leakloc's error, the
        name of another exception, or ``Timeout``, ``MemoryLimit``, ``Crash``, ``DiskFull``.
    error_message : str or None
        For people, without patient data.
    detail : str or None
        Traceback or last words of the process, which may hold names of files.
    wall_s, cpu_s, peak_mib : float
        Time, processor time, largest resident memory.
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
        """Whether it failed for want of room, which is not the study's fault."""
        return self.error_class == _DISK_FULL


@dataclass(frozen=True)
class _Said:
    """What the process of an analysis says when it ends by itself."""

    error_class: str | None
    error_message: str | None
    detail: str | None
    cpu_s: float
    peak_mib: float


def run_job(job: Job, limits: Limits | None = None, analyze: str = ANALYZE) -> Outcome:
    """Analyse a study in a process of its own and put its folder in place.

    Parameters
    ----------
    job : Job
    limits : Limits, optional
    analyze : str
        ``module:function`` to call instead of `leakloc.pipeline.analyze`.

    Returns
    -------
    Outcome
        Whatever happens to the study is told here; nothing is raised for it.
    """
    limits = limits or Limits()
    start = time.perf_counter()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    with _scratch(job) as scratch:
        here, there = connection.Pipe(duplex=False)
        process = _context(limits.threads).Process(
            target=_analyze_here, args=(there, job, limits, analyze, str(scratch)), daemon=True
        )
        with _lock, _may_have_children():
            process.start()
        _running[process] = job.output
        there.close()
        try:
            said, memory = _watch(process, here, limits, start)
        finally:
            _kill(process)
            _running.pop(process, None)
            here.close()
        if said is None:
            said = _last_words(process, memory, scratch)
    return Outcome(
        said.error_class,
        said.error_message,
        said.detail,
        time.perf_counter() - start,
        said.cpu_s,
        max(said.peak_mib, memory.peak_mib),
        worker,
    )


def stop_jobs(output: str) -> None:
    """Kill every analysis for an output folder that this worker is at."""
    for process in [one for one, place in list(_running.items()) if place == output]:
        with _lock:
            process.kill()


@dataclass
class _Memory:
    """What was seen of a process from outside."""

    peak_mib: float = 0.0
    cpu_s: float = 0.0
    stopped_for: tuple[str, str] | None = None
    watched: psutil.Process | None = None
    children: list[psutil.Process] = field(default_factory=list)
    family_at: float = 0.0


def _watch(
    process: BaseProcess, here: Connection, limits: Limits, start: float
) -> tuple[_Said | None, _Memory]:
    """Wait for the process to end; stop it at its limits."""
    seen = _Memory()
    while True:
        ready = connection.wait([here, process.sentinel], _POLL_S)
        if here in ready or here.poll():
            with suppress(EOFError, OSError):  # it died while it spoke
                said: _Said = here.recv()
                return said, seen
        if ready:
            return None, seen
        _look_at(process, seen)
        if limits.timeout_s is not None and time.perf_counter() - start > limits.timeout_s:
            seen.stopped_for = (
                "Timeout",
                f"stopped after {limits.timeout_s:g} s; allow more with --timeout",
            )
            return None, seen
        if limits.memory_mib is not None and seen.peak_mib > limits.memory_mib:
            seen.stopped_for = (
                "MemoryLimit",
                f"stopped at {seen.peak_mib:.0f} MiB of memory; allow more with --memory-limit",
            )
            return None, seen


def _look_at(process: BaseProcess, seen: _Memory) -> None:
    import psutil

    with suppress(psutil.Error):
        if seen.watched is None:
            seen.watched = psutil.Process(process.pid)
        now = time.monotonic()
        if now - seen.family_at > _FAMILY_S:
            seen.family_at = now
            seen.children = seen.watched.children(recursive=True)
        resident = seen.watched.memory_info().rss
        for child in seen.children:
            with suppress(psutil.Error):
                resident += child.memory_info().rss
        seen.peak_mib = max(seen.peak_mib, resident / _MIB)
        times = seen.watched.cpu_times()
        seen.cpu_s = times.user + times.system


def _kill(process: BaseProcess) -> None:
    """End the process and whatever it started."""
    import psutil

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


def _last_words(process: BaseProcess, seen: _Memory, scratch: Path) -> _Said:
    """Why a process ended that said nothing."""
    log = ""
    with suppress(OSError):  # it may have died before it opened its log
        log = (scratch / "log").read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
    log = log.partition("\n\nExtension modules:")[0]
    kind, message = seen.stopped_for or ("Crash", _how_it_died(process.exitcode))
    return _Said(kind, message, log or None, seen.cpu_s, seen.peak_mib)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if name == "SIGKILL":
            return (
                "the process of the analysis was killed (SIGKILL), most likely by the system "
                "for want of memory; use fewer workers or set --memory-limit"
            )
        return f"the process of the analysis crashed ({name})"
    return f"the process of the analysis ended without a word (exit code {exitcode})"


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """Temporary folder of one analysis, which goes away however the analysis ends."""
    folder = Path(tempfile.mkdtemp(prefix=scratch_prefix(Path(job.output))))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_prefix(output: Path) -> str:
    """Start of the names of the temporary folders of one output folder."""
    import hashlib

    return f"leakloc-batch-{hashlib.sha256(str(output).encode()).hexdigest()[:12]}-"


def clean_up(output: Path) -> None:
    """Remove what killed analyses left behind; call it while holding the output folder.

    A report that was about to be replaced, and whose place is empty, is put back.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{scratch_prefix(output)}*"):
        shutil.rmtree(left, ignore_errors=True)
    for old in output.glob(".*.old"):
        place = output / old.name[1:].rsplit(".", 2)[0]
        if not place.exists() and (old / "report.json").exists():
            old.rename(place)
    for pattern in (".*.old", ".*.partial"):
        for left in output.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _may_have_children() -> Iterator[None]:
    """Let this process start others, which multiprocessing forbids to daemons.

    Dask's nannies run their workers as daemons. The rule keeps children from outliving such a
    process; ours end by themselves when it does (`_end_with_parent`).
    """
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    was = config.get("daemon")
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = was


@lru_cache(maxsize=1)
def _context(threads: int) -> Any:
    """Where processes come from: forked from a clean, loaded one; started anew on Windows."""
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
    """Body of the process of one analysis."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the batch's to handle
    _log_to(Path(scratch, "log"))
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    os.environ.update(_thread_variables(limits.threads))
    there.send(_told(job, analyze, Path(scratch)))
    there.close()


def _told(job: Job, analyze: str, scratch: Path) -> _Said:
    import traceback

    error_class = message = detail = None
    try:
        _analyze(job, analyze, scratch)
    except BaseException as error:
        detail = traceback.format_exc()[-_LOG_BYTES:]
        error_class, message = _blame(error, job, scratch)
    cpu_s, peak_mib = _used()
    return _Said(error_class, message, detail, cpu_s, peak_mib)


def _analyze(job: Job, analyze: str, scratch: Path) -> None:
    module, _, function = analyze.partition(":")
    call: Callable[..., Any] = getattr(import_module(module), function)
    output = Path(job.output)
    if not output.is_dir():
        raise OutputError(
            "this machine does not see the output folder; every worker needs it at the same place"
        )
    call(
        _one_place(job.source, scratch),
        output / job.name,
        job.settings,
        study_uid=job.study_uid,
        overwrite=True,
    )


def _one_place(source: tuple[str, ...], scratch: Path) -> Path:
    """The source as one path: a study that lies in several places is gathered by links."""
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
    except OSError:  # Windows allows links to few
        shutil.copyfile(source, target)


def _blame(error: BaseException, job: Job, scratch: Path) -> tuple[str, str]:
    """Class and message of an error, without the names of input files."""
    import errno

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
        return kind, _without_names(str(error), job, scratch)
    if isinstance(error, MemoryError):
        return "MemoryLimit", "memory ran out; use fewer workers"
    return kind, f"the analysis failed unexpectedly ({kind})"


def _without_names(message: str, job: Job, scratch: Path) -> str:
    """A message with the input's paths, which may name a patient, left out."""
    message = message.replace(str(scratch), "(temporary folder)")
    for path in sorted(job.source, key=len, reverse=True):
        message = message.replace(path, "(input)")
        if Path(path).suffix:
            message = message.replace(Path(path).name, "(input)")
    return message


def _used() -> tuple[float, float]:
    """Processor seconds and peak MiB of this process."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return time.process_time(), psutil.Process().memory_info().rss / _MIB
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB
    return time.process_time(), peak


def _end_with_parent() -> None:
    """End this process when the one that watches it is gone, however that ended."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _log_to(path: Path) -> None:
    """Send what libraries print to a file, and the places of a crash too."""
    import faulthandler

    log = path.open("wb", buffering=0)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    faulthandler.enable(file=log)
