"""Batch analysis: find studies, queue them, analyze them and list the results."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final

from leakloc.core.errors import InputError, LeaklocError, OutputError, SettingsError, counted
from leakloc.core.extras import check_installed
from leakloc.core.settings import Settings
from leakloc.services.batch.engine import PACKAGES, Engine, WorkOptions
from leakloc.services.batch.finder import FindProgress, Found, ScanCache, find_studies
from leakloc.services.batch.ledger import Decision, Entry, Ledger, State
from leakloc.services.batch.run import Outcome, clean_up
from leakloc.services.batch.summaries import SummaryStore, summarize_report
from leakloc.services.batch.table import as_csv, as_parquet, table_rows
from leakloc.services.batch.worklist import worklist

_LOG = logging.getLogger(__name__)
PAUSE_S: Final = 30.0  # the disk may have free space by then


@dataclass
class Tally:
    """Progress of a batch.

    Parameters
    ----------
    found : int
        Studies found.
    left_out : dict
        Number of excluded studies and files, by reason.
    kept : int
        Already finished with the same input and settings.
    finished, failed, waiting, running : int
        Of the studies found; `finished` includes `kept`.
    workers : int
        Maximum number of parallel analyses.
    seconds_left : float or None
        Estimated remaining time; None until a study has ended.
    """

    found: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    finished: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0
    workers: int = 0
    seconds_left: float | None = None


ProgressCallback = Callable[[Tally], None]
EndedCallback = Callable[[Entry, State, Outcome], None]


@dataclass
class Batch:
    """Batch analysis of studies into one output folder.

    Parameters
    ----------
    output : Path
    settings : Settings
        Settings of all studies.
    options : WorkOptions
    force : bool
        Analyze finished studies again.
    watcher : callable, optional
        Called with the tally about twice a second.
    ended : callable, optional
        Called for each study that ended.
    finding : callable, optional
        Called with the number of files examined during the search.

    Examples
    --------
    >>> batch = Batch(Path("out"), Settings(), WorkOptions(workers=2))  # doctest: +SKIP
    >>> batch.run([Path("studies")]).finished  # doctest: +SKIP
    40
    """

    output: Path
    settings: Settings
    options: WorkOptions = field(default_factory=WorkOptions)
    force: bool = False
    watcher: ProgressCallback | None = None
    ended: EndedCallback | None = None
    finding: FindProgress | None = None

    def run(
        self, roots: Sequence[Path], *, watch: Sequence[Path] = (), settle_s: float = 60.0
    ) -> Tally:
        """Find studies and analyze them.

        Parameters
        ----------
        roots : sequence of Path
            As for `leakloc.services.batch.find_studies`.
        watch : sequence of Path
            Folders to search repeatedly; the run then ends only by an interruption.
        settle_s : float
            Time without changes after which a study in a watched folder is queued.

        Raises
        ------
        InputError
            If no study is found.
        SettingsError
            If a required package is not installed.
        OutputError
            If another process uses the output folder, or it cannot be written.
        """
        check_installed(PACKAGES, "batch")
        self.settings.report.check_installed()
        ledger = Ledger(self.output)
        with ledger.hold("leakloc batch"):
            clean_up(ledger.output, [entry.name for entry in ledger.entries()])
            ledger.recover()
            return _Run(self, ledger).run_all(roots, watch, settle_s)


class _Run:
    """State of a running batch."""

    def __init__(self, batch: Batch, ledger: Ledger) -> None:
        self.batch, self.ledger = batch, ledger
        self.tally = Tally()
        self.names: set[str] = set()
        self.pages = Pages(ledger)
        self.engine = Engine(ledger, batch.options, self._ended, self._check_inputs)
        self.started = 0.0
        self.done = 0

    def run_all(self, roots: Sequence[Path], watch: Sequence[Path], settle_s: float) -> Tally:
        if roots:
            self._find(roots)
        watcher = None
        if watch:
            watcher = FolderWatch(self.ledger, watch, settle_s, self._settled, self.batch.settings)
            watcher.start()
        elif not self.names:
            raise InputError(_no_study_message(roots, self.tally.left_out))
        self.started = time.monotonic()
        try:
            if watcher is not None:
                self.pages.errors_to = _LOG
                while True:
                    self._analyze_watched()
            if self.ledger.counts()[State.WAITING]:
                self.engine.run()
        finally:
            if watcher is not None:
                watcher.stop()
            self.pages.write()
            self._count()
        return self.tally

    def _analyze_watched(self) -> None:
        """Analyze what arrives until an interruption or an error, after which it is repeated."""
        batch = self.batch
        self.engine = Engine(self.ledger, batch.options, self._ended, self._check_inputs)
        try:
            self.engine.run(lambda: True)
        except SettingsError:
            raise
        except Exception as error:  # such as a full disk; running studies are requeued
            _LOG.error("analyzing stopped for %g s: %s", PAUSE_S, log_text(error))
            time.sleep(PAUSE_S)

    def _find(self, roots: Sequence[Path]) -> None:
        search = find_studies(
            roots,
            self.batch.settings.loaders,
            output=self.ledger.output,
            cache=ScanCache(self.ledger),
            progress=self.batch.finding,
        )
        self.tally.left_out = search.left_out
        self._settled(search.studies)

    def _queue(self, study: Found) -> None:
        decision = self.ledger.queue(
            study.name,
            study.source,
            study.study_uid,
            study.fingerprint,
            self.batch.settings,
            retries=self.batch.options.retries,
            force=self.batch.force,
        )
        self.names.add(study.name)
        self.tally.kept += decision is Decision.KEPT
        self.tally.found = len(self.names)

    def _settled(self, studies: Iterable[Found]) -> None:
        with self.ledger.transaction():
            for study in studies:
                self._queue(study)

    def _ended(self, entry: Entry, state: State, outcome: Outcome) -> None:
        self.done += state in (State.FINISHED, State.FAILED)
        self.pages.add(entry, state)
        if self.batch.ended is not None:
            self.batch.ended(entry, state, outcome)

    def _check_inputs(self) -> None:
        self.pages.write_if_due()
        if self.batch.watcher is not None:
            self._count()
            self.batch.watcher(self.tally)

    def _count(self) -> None:
        states = self.ledger.states()
        counts = Counter(states[name] for name in list(self.names) if name in states)
        tally = self.tally
        tally.finished, tally.failed = counts[State.FINISHED], counts[State.FAILED]
        tally.waiting, tally.running = counts[State.WAITING], counts[State.RUNNING]
        tally.workers = self.engine.workers
        left = tally.waiting + tally.running / 2  # running studies are half done on average
        spent = time.monotonic() - self.started
        tally.seconds_left = left * spent / self.done if self.done else None


class Pages:
    """Worklist and summary tables of an output folder, updated as studies end.

    Parameters
    ----------
    ledger : Ledger
    errors_to : Logger, optional
        Where an error of an update is logged, which is then repeated after a pause; raised if None.
    """

    _MIN_S = 5.0  # minimum interval between updates
    _FRACTION = 0.02  # maximum fraction of the time spent on updates of long lists

    def __init__(self, ledger: Ledger, errors_to: logging.Logger | None = None) -> None:
        self.errors_to = errors_to
        self._ledger = ledger
        self._summaries = SummaryStore(ledger)
        self._changed = False
        self._next = time.monotonic() + self._MIN_S

    def add(self, entry: Entry, state: State) -> None:
        """Add a study that ended."""
        self._attempt(lambda: self._add(entry, state))

    def _add(self, entry: Entry, state: State) -> None:
        self._changed = True
        if state is State.FINISHED:
            try:
                summary = summarize_report(self._ledger.output / entry.name)
            except LeaklocError:
                return  # the study is then listed without its finding
            self._summaries.put(entry.name, summary)

    def write_if_due(self) -> None:
        """Write if something changed and the minimum interval has passed."""
        if self._changed and time.monotonic() >= self._next:
            self._attempt(self._write_now)

    def _write_now(self) -> None:
        start = time.monotonic()
        self.write()
        spent = time.monotonic() - start
        self._next = time.monotonic() + max(self._MIN_S, spent / self._FRACTION)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            if self.errors_to is None:
                raise
            self._next = time.monotonic() + PAUSE_S
            self.errors_to.error("the worklist is not up to date: %s", log_text(error))

    def write(self) -> None:
        """Write ``index.html``, ``summary.csv`` and ``summary.parquet``.

        Raises
        ------
        OutputError
            If they cannot be written; the existing files are kept.
        """
        entries = self._ledger.entries()
        finished = [entry.name for entry in entries if entry.state is State.FINISHED]
        summaries = self._summaries.all(finished)
        rows = table_rows(entries, summaries)
        self._put("index.html", worklist(entries, summaries).encode())
        self._put("summary.csv", as_csv(rows).encode())
        self._put("summary.parquet", as_parquet(rows))
        self._changed = False

    def _put(self, name: str, content: bytes) -> None:
        partial = self._ledger.output / f".{name}.partial"
        try:
            partial.write_bytes(content)
            partial.replace(self._ledger.output / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"cannot write {name}: {error.strerror}") from error


class FolderWatch:
    """Watches folders and reports studies that have stopped changing.

    Parameters
    ----------
    ledger : Ledger
    folders : sequence of Path
    settle_s : float
        Required time without changes: scanners and PACS send for minutes, with pauses.
    settled : callable
        Called with the studies in the watching thread.
    settings : Settings
    """

    _SEARCHES = 4  # per settling time

    def __init__(
        self,
        ledger: Ledger,
        folders: Sequence[Path],
        settle_s: float,
        settled: Callable[[Iterable[Found]], None],
        settings: Settings,
    ) -> None:
        self._ledger, self._folders, self._settings = ledger, folders, settings
        self._settle_s, self._settled = settle_s, settled
        self._fingerprints: dict[str, tuple[str, float]] = {}
        self._reported: dict[str, str] = {}
        self._unreadable: str | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._watch, name="leakloc-watch", daemon=True)

    def start(self) -> None:
        """Start watching.

        Raises
        ------
        InputError
            If a folder does not exist.
        """
        for folder in self._folders:
            if not folder.is_dir():
                raise InputError(f"{folder} is not a folder to watch")
        self._thread.start()

    def alive(self) -> bool:
        """Whether the folders are still watched."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            cache = ScanCache(self._ledger)
            while not self._stopping.is_set():
                self._poll_again(cache)
                self._stopping.wait(max(0.2, self._settle_s / self._SEARCHES))
        finally:
            self._ledger.close()

    def _poll_again(self, cache: ScanCache) -> None:
        """Search; after an error, the folders are searched again at the next time."""
        try:
            self.poll(cache, time.monotonic())
            self._unreadable = None
        except Exception as error:  # a folder was removed, its server is down, or the disk full
            kind = type(error.__cause__ or error).__name__
            if kind != self._unreadable:
                _LOG.warning("searching the watched folders failed (%s); trying again", kind)
            self._unreadable = kind

    def poll(self, cache: ScanCache, now: float) -> None:
        """Search once, at time `now` in seconds, and report the studies that have settled."""
        search = find_studies(
            self._folders, self._settings.loaders, output=self._ledger.output, cache=cache
        )
        ready = []
        for study in search.studies:
            fingerprint, since = self._fingerprints.get(study.name, ("", now))
            if fingerprint != study.fingerprint:
                since = now
            self._fingerprints[study.name] = (study.fingerprint, since)
            settled = now - since >= self._settle_s
            if settled and self._reported.get(study.name) != study.fingerprint:
                self._reported[study.name] = study.fingerprint
                ready.append(study)
        if ready:
            self._settled(ready)


def log_text(error: Exception) -> str:
    """Error text for the log; messages of other libraries may contain header data."""
    return str(error) if isinstance(error, LeaklocError) else f"unexpected {type(error).__name__}"


def _no_study_message(roots: Sequence[Path], left_out: dict[str, int]) -> str:
    reasons = ", ".join(counted(count, reason) for reason, count in left_out.items())
    places = ", ".join(str(root) for root in roots)
    return f"no MR study in {places}" + (f" (excluded: {reasons})" if reasons else "")
