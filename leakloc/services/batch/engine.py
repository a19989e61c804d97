"""Parallel analysis of queued studies on a Dask cluster, embedded or external.

The embedded cluster runs within this process and opens no port to other machines: each of its
threads waits for one analysis, which runs in a separate process (`leakloc.services.batch.run`).
On an external cluster, the same code runs in its workers, which may join and leave at any time.
Only this process writes to the ledger.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import LeaklocError, OutputError, SettingsError
from leakloc.core.extras import LazyModule, check_installed, need
from leakloc.core.version import __version__
from leakloc.services.batch.ledger import Entry, Ledger, State, Usage
from leakloc.services.batch.run import ANALYZE, Job, Limits, Outcome, run_job, stop_jobs

if TYPE_CHECKING:
    import distributed
    from distributed import Client

    Future = distributed.Future[Outcome]
else:
    distributed = LazyModule("distributed", "batch")

dask = LazyModule("dask", "batch")
dask_system = LazyModule("dask.system", "batch")
distributed_system = LazyModule("distributed.system", "batch")

PACKAGES: Final = ("dask", "distributed", "pandas", "psutil", "pyarrow")
"""Packages of the ``batch`` extra."""
_POLL_S: Final = 0.5
_CONNECT_S = 20.0  # a scheduler just submitted to a job queue may take this long
_MIB: Final = 1024**2
_WORKER_MIB: Final = 2048  # the analysis of a large study takes 1 to 1.5 GiB
_MEMORY_FRACTION: Final = 0.9  # the rest is for the system and the page cache


@dataclass(frozen=True)
class WorkOptions:
    """Options for the analysis of queued studies.

    Parameters
    ----------
    workers : int or None
        Parallel analyses on this machine; None for one per core, or fewer if memory is
        limited.
    scheduler : str or None
        Dask scheduler to use instead of this machine: its address, ``tcp://host:8786``, or
        the ``.json`` file that it wrote.
    timeout_s : float or None
        Maximum time for one study: at 100 times the usual 10 to 20 s, it is assumed to hang.
    memory_mib : float or None
        Maximum resident memory of one analysis; None for an equal fraction of the machine's.
    retries : int
        Maximum number of retries of a failed study, over all runs.
    min_free_mib : float
        Free space on the output disk below which no further study is started: a report takes
        up to about 10 MiB, and the ledger must remain writable.
    analyze : str
        Analysis function, ``module:function``, like `leakloc.pipeline.analyze`.
    """

    workers: int | None = None
    scheduler: str | None = None
    timeout_s: float | None = 1800.0
    memory_mib: float | None = None
    retries: int = 1
    min_free_mib: float = 200.0
    analyze: str = ANALYZE


EndedCallback = Callable[[Entry, State, Outcome], None]
"""Called with the study that ended, its new state and the outcome of the analysis."""


@dataclass
class Engine:
    """Analyzes the waiting studies of a ledger until none is left.

    The caller must hold the lock (`Ledger.hold`) and have called `Ledger.recover`.

    Parameters
    ----------
    ledger : Ledger
    options : WorkOptions
    ended : callable, optional
        Called in the thread of `run` after the ledger is updated.
    on_poll : callable, optional
        Called in the thread of `run` about twice a second.
    """

    ledger: Ledger
    options: WorkOptions
    ended: EndedCallback | None = None
    on_poll: Callable[[], None] | None = None
    workers: int = 0
    """Maximum number of parallel analyses while running."""
    _stopping: Event = field(default_factory=Event)
    _problem: str | None = None
    _counted_at: float = 0.0

    def run(self, more: Callable[[], bool] = lambda: False) -> None:
        """Analyze until no study is waiting and `more` returns False.

        If an exception is raised, running analyses are stopped and requeued.

        Raises
        ------
        OutputError
            If the disk is full or the ledger cannot be written; finished studies are kept.
        AnalysisError
            If the connection to the scheduler is lost.
        """
        with connect(self.options) as client:
            self._check(client)
            running: dict[Future, Entry] = {}
            try:
                self._work(client, running, more)
            finally:
                if running:
                    self._abandon(client, running)
        if self._problem is not None:
            raise OutputError(self._problem)

    def stop(self) -> None:
        """Start no further analyses; stop and requeue the running ones. Thread-safe."""
        self._stopping.set()

    def _work(self, client: Client, running: dict[Future, Entry], more: Callable[[], bool]) -> None:
        done: Queue[Future] = Queue()
        while not self._stopping.is_set():
            while len(running) < self._slots(client) and (entry := self._next()) is not None:
                future = self._submit(client, entry)
                running[future] = entry
                future.add_done_callback(done.put)
            if self.on_poll is not None:
                self.on_poll()
            if not running and (self._problem is not None or not self._more(more)):
                return
            with suppress(Empty):
                future = done.get(timeout=_POLL_S)
                self._end(running.pop(future), future)
            if client.status not in ("running", "connecting"):
                raise LeaklocError(
                    "the connection to the Dask scheduler was lost; finished studies are kept, run "
                    "again when it is available"
                )

    def _more(self, more: Callable[[], bool]) -> bool:
        # `more` is called first: studies queued before it returned are in the ledger.
        return more() or self.ledger.counts()[State.WAITING] > 0

    def _slots(self, client: Client) -> int:
        if time.monotonic() - self._counted_at > 1.0 or not self.workers:
            self.workers = sum(client.nthreads().values())
            self._counted_at = time.monotonic()
        return self.workers

    def _next(self) -> Entry | None:
        if self._problem is not None or self._stopping.is_set():
            return None
        free = shutil.disk_usage(self.ledger.output).free / _MIB
        if free < self.options.min_free_mib:
            self._problem = (
                f"only {free:.0f} MiB are free on the disk of {self.ledger.output}; finished "
                "studies are kept, free some space and run again"
            )
            return None
        return self.ledger.take()

    def _submit(self, client: Client, entry: Entry) -> Future:
        job = Job(
            entry.name,
            entry.source,
            entry.study_uid,
            str(self.ledger.output),
            self.ledger.settings(entry.settings_sha256),
        )
        limits = Limits(self.options.timeout_s, self.options.memory_mib)
        return client.submit(
            _task, job, limits, self.options.analyze, key=f"study-{uuid.uuid4().hex}", pure=False
        )

    def _end(self, entry: Entry, future: Future) -> None:
        outcome = _outcome(future)
        if outcome.disk_full:
            self._problem = (
                f"the disk of {self.ledger.output}, or that of the temporary files, is full; "
                "finished studies are kept, free some space and run again"
            )
            self.ledger.put_back(entry)
            return
        usage = Usage(outcome.wall_s, outcome.cpu_s, outcome.peak_mib, outcome.worker)
        if outcome.error_class is None:
            state = self.ledger.finish(entry, usage)
        else:
            state = self.ledger.fail(
                entry,
                outcome.error_class,
                outcome.error_message or "",
                usage,
                detail=outcome.detail,
                retries=self.options.retries,
            )
        if self.ended is not None:
            self.ended(entry, state, outcome)

    def _abandon(self, client: Client, running: dict[Future, Entry]) -> None:
        with suppress(Exception):  # the cluster may be unreachable
            client.cancel(list(running), force=True)
            client.run(stop_jobs, str(self.ledger.output))
        for entry in running.values():
            self.ledger.put_back(entry)

    def _check(self, client: Client) -> None:
        """Reject a cluster with unsuitable workers before every study fails."""
        output = str(self.ledger.output)
        client.run(stop_jobs, output)  # left by a killed batch
        for address, (version, accessible) in client.run(_worker_info, output).items():
            if version != __version__:
                raise SettingsError(
                    f"worker {address} has leakloc {version}, this process has {__version__}; "
                    "install the same version on all machines"
                )
            if not accessible:
                raise OutputError(
                    f"worker {address} cannot access {output}; every worker needs the input and "
                    "the output folder at the same path"
                )


def _task(job: Job, limits: Limits, analyze: str) -> Outcome:
    """Analyze one study on a worker with its fraction of the memory and cores."""
    worker = distributed.get_worker()
    threads = worker.state.nthreads
    memory = limits.memory_mib
    manager = getattr(worker, "memory_manager", None)
    if memory is None and manager is not None and manager.memory_limit:
        memory = manager.memory_limit / threads / _MIB
    return run_job(
        job, Limits(limits.timeout_s, memory, max(1, dask_system.CPU_COUNT // threads)), analyze
    )


def _worker_info(output: str) -> tuple[str, bool]:
    return __version__, Path(output).is_dir()


def _outcome(future: Future) -> Outcome:
    """Outcome returned by the task, or a failure if its workers were lost."""
    try:
        outcome: Outcome = future.result()
    except Exception as error:
        kind = type(error).__name__
        message = (
            "all workers that analyzed this study were lost"
            if kind == "KilledWorker"
            else f"the worker failed unexpectedly ({kind})"
        )
        return Outcome(kind, message, str(error)[:4000], 0.0, 0.0, 0.0, "")
    finally:
        future.release()
    return outcome


def default_workers() -> int:
    """Number of parallel analyses that fit the cores and memory of this machine."""
    fitting = int(_MEMORY_FRACTION * distributed_system.MEMORY_LIMIT / _MIB / _WORKER_MIB)
    return max(1, min(int(dask_system.CPU_COUNT), fitting))


@contextmanager
def connect(options: WorkOptions) -> Iterator[Client]:
    """Return a client of the cluster specified by the options.

    Raises
    ------
    SettingsError
        If the extra is not installed, or the scheduler does not respond.
    """
    check_installed(PACKAGES, "batch")
    need("distributed", "batch")  # adds its defaults to the settings, which are changed below
    if options.scheduler is not None:
        named = "scheduler_file" if options.scheduler.endswith(".json") else "address"
        try:
            client = distributed.Client(
                **{named: options.scheduler}, timeout=_CONNECT_S, set_as_default=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise SettingsError(
                f"no Dask scheduler responds at {options.scheduler}: {error}"
            ) from error
        with client:
            yield client
        return
    quiet = {
        # No dashboard and no ports to other machines.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # No profiling of threads that only wait.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.tick.limit": "1h",
        # Short event logs: the default keeps thousands of events, each with its study.
        "distributed.admin.low-level-log-length": 20,
    }
    with (
        dask.config.set(quiet),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=options.workers or default_workers(),
            processes=False,
            memory_limit=int(_MEMORY_FRACTION * distributed_system.MEMORY_LIMIT),
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client
