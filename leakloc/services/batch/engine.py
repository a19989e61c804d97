"""Working through a ledger on a Dask cluster: the one embedded here, or any other.

The embedded cluster lives within this process and opens no port to other machines: each of
its threads waits for one analysis, which runs in a process of its own
(`leakloc.services.batch.run`).
On a cluster of machines the same code runs in its workers; they may join and die meanwhile.
Only this side writes to the ledger.
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
from leakloc.services.batch.ledger import Entry, Ledger, State, Usage
from leakloc.services.batch.run import ANALYZE, Job, Limits, Outcome, run_job, stop_jobs

if TYPE_CHECKING:
    import distributed
    from distributed import Client

    Future = distributed.Future[Outcome]

_POLL_S: Final = 0.5
_CONNECT_S = 20.0  # a scheduler that was just started through a queue may take that long
_MIB: Final = 1024**2
_WORKER_MIB: Final = 2048  # an analysis of a large study takes 1 to 1.5 GiB
_MEMORY_FRACTION: Final = 0.9  # the rest is the system's, and the page cache's


@dataclass(frozen=True)
class WorkOptions:
    """How studies are worked through.

    Parameters
    ----------
    workers : int or None
        Analyses at a time on this machine; None for the cores, or fewer where memory is
        short.
    scheduler : str or None
        Dask scheduler to work on instead of this machine: its address, ``tcp://host:8786``, or
        the ``.json`` file that it wrote.
    timeout_s : float or None
        Longest time for one study: one that takes 100 times the usual 10 to 20 s hangs.
    memory_mib : float or None
        Largest resident memory of one analysis; None for its share of the machine's.
    retries : int
        How often a failed study is tried again, over all runs.
    min_free_mib : float
        Room on the output disk below which no further study is begun: a report takes up to
        some 10 MiB, and the ledger must still be written.
    analyze : str
        What analyses a study, ``module:function`` like `leakloc.pipeline.analyze`.
    """

    workers: int | None = None
    scheduler: str | None = None
    timeout_s: float | None = 1800.0
    memory_mib: float | None = None
    retries: int = 1
    min_free_mib: float = 200.0
    analyze: str = ANALYZE


Ended = Callable[[Entry, State, Outcome], None]
"""Told the study that ended, its state now, and how the analysis ended."""


@dataclass
class Engine:
    """Takes waiting studies from a ledger and has them analysed, until none is left.

    The caller holds the ledger (`Ledger.hold`) and has called `Ledger.recover`.

    Parameters
    ----------
    ledger : Ledger
    options : WorkOptions
    ended : callable, optional
        Called in the thread of `run` after the ledger knows.
    glance : callable, optional
        Called in the thread of `run` about twice a second.
    """

    ledger: Ledger
    options: WorkOptions
    ended: Ended | None = None
    glance: Callable[[], None] | None = None
    workers: int = 0
    """Analyses possible at a time, while it runs."""
    _stopping: Event = field(default_factory=Event)
    _problem: str | None = None
    _looked: float = 0.0

    def run(self, more: Callable[[], bool] = lambda: False) -> None:
        """Work until nothing waits and `more` says that nothing will come.

        Analyses that run when this is left by an exception are stopped and wait again.

        Raises
        ------
        OutputError
            If the disk is full or the ledger cannot be written; what is finished is kept.
        AnalysisError
            If the scheduler is lost.
        """
        with connected(self.options) as client:
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
        """Begin nothing more; stop what runs, which then waits again. From any thread."""
        self._stopping.set()

    def _work(self, client: Client, running: dict[Future, Entry], more: Callable[[], bool]) -> None:
        done: Queue[Future] = Queue()
        while not self._stopping.is_set():
            while len(running) < self._slots(client) and (entry := self._next()) is not None:
                future = self._submit(client, entry)
                running[future] = entry
                future.add_done_callback(done.put)
            if self.glance is not None:
                self.glance()
            if not running and (self._problem is not None or not self._more(more)):
                return
            with suppress(Empty):
                future = done.get(timeout=_POLL_S)
                self._end(running.pop(future), future)
            if client.status not in ("running", "connecting"):
                raise LeaklocError(
                    "the Dask scheduler is gone; finished studies are kept, run again when it "
                    "is back"
                )

    def _more(self, more: Callable[[], bool]) -> bool:
        # Asked first: what came before the answer is in the ledger by now.
        return more() or self.ledger.counts()[State.WAITING] > 0

    def _slots(self, client: Client) -> int:
        if time.monotonic() - self._looked > 1.0 or not self.workers:
            self.workers = sum(client.nthreads().values())
            self._looked = time.monotonic()
        return self.workers

    def _next(self) -> Entry | None:
        if self._problem is not None or self._stopping.is_set():
            return None
        free = shutil.disk_usage(self.ledger.output).free / _MIB
        if free < self.options.min_free_mib:
            self._problem = (
                f"only {free:.0f} MiB are free on the disk of {self.ledger.output}; finished "
                "studies are kept, make room and run again"
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
                "finished studies are kept, make room and run again"
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
        with suppress(Exception):  # a lost cluster cannot be told
            client.cancel(list(running), force=True)
            client.run(stop_jobs, str(self.ledger.output))
        for entry in running.values():
            self.ledger.put_back(entry)

    def _check(self, client: Client) -> None:
        """Refuse a cluster whose workers cannot do the work, before they fail every study."""
        from leakloc.core.version import __version__

        output = str(self.ledger.output)
        client.run(stop_jobs, output)  # of a batch that was killed
        for address, (version, sees) in client.run(_introduce, output).items():
            if version != __version__:
                raise SettingsError(
                    f"worker {address} has leakloc {version}, this is {__version__}; install the "
                    "same on all"
                )
            if not sees:
                raise OutputError(
                    f"worker {address} does not see {output}; every worker needs the input and "
                    "the output folder at the same place"
                )


def _task(job: Job, limits: Limits, analyze: str) -> Outcome:
    """One study on a worker, which shares its machine's memory and cores out."""
    from dask.system import CPU_COUNT
    from distributed import get_worker

    worker = get_worker()
    threads = worker.state.nthreads
    memory = limits.memory_mib
    manager = getattr(worker, "memory_manager", None)
    if memory is None and manager is not None and manager.memory_limit:
        memory = manager.memory_limit / threads / _MIB
    return run_job(job, Limits(limits.timeout_s, memory, max(1, CPU_COUNT // threads)), analyze)


def _introduce(output: str) -> tuple[str, bool]:
    from leakloc.core.version import __version__

    return __version__, Path(output).is_dir()


def _outcome(future: Future) -> Outcome:
    """What the task returned; where a worker was lost with it, again and again, that."""
    try:
        outcome: Outcome = future.result()
    except Exception as error:
        kind = type(error).__name__
        message = (
            "the workers that took it on were lost, each time"
            if kind == "KilledWorker"
            else f"the worker failed unexpectedly ({kind})"
        )
        return Outcome(kind, message, str(error)[:4000], 0.0, 0.0, 0.0, "")
    finally:
        future.release()
    return outcome


def default_workers() -> int:
    """Analyses at a time that fit this machine's cores and memory."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    fitting = int(_MEMORY_FRACTION * MEMORY_LIMIT / _MIB / _WORKER_MIB)
    return max(1, min(int(CPU_COUNT), fitting))


@contextmanager
def connected(options: WorkOptions) -> Iterator[Client]:
    """A client of the cluster that the options name.

    Raises
    ------
    SettingsError
        If the extra is not installed, or the scheduler does not answer.
    """
    need_dask()
    import dask
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    if options.scheduler is not None:
        named = "scheduler_file" if options.scheduler.endswith(".json") else "address"
        try:
            client = Client(**{named: options.scheduler}, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise SettingsError(
                f"no Dask scheduler answers at {options.scheduler}: {error}"
            ) from error
        with client:
            yield client
        return
    quiet = {
        # No pages, no ports to other machines: nobody asked for a server.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # Nor does anyone look at profiles of threads that only wait.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.tick.limit": "1h",
        # Logs of the last thousands of steps, each with the study it was about.
        "distributed.admin.low-level-log-length": 20,
    }
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=1,
            threads_per_worker=options.workers or default_workers(),
            processes=False,
            memory_limit=int(_MEMORY_FRACTION * MEMORY_LIMIT),
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def need_dask() -> None:
    """Check that the extra is installed.

    Raises
    ------
    SettingsError
        If it is not; the message says how to install it.
    """
    from importlib.util import find_spec

    missing = [name for name in ("dask", "distributed", "psutil") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"many studies need {', '.join(missing)}: pip install 'leakloc[batch]'")
