"""A batch, told once: find studies, queue them, work through them, list them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from leakloc.core.errors import InputError, LeaklocError, OutputError
from leakloc.core.settings import Settings
from leakloc.services.batch.cards import CardBox, make_card
from leakloc.services.batch.engine import Engine, WorkOptions, need_dask
from leakloc.services.batch.finder import FindProgress, Found, ScanCache, find_studies
from leakloc.services.batch.ledger import Decision, Entry, Ledger, State
from leakloc.services.batch.run import Outcome, clean_up
from leakloc.services.batch.summary import as_csv, as_parquet, summary_rows
from leakloc.services.batch.worklist import worklist


@dataclass
class Tally:
    """How far a batch is, for whoever watches.

    Parameters
    ----------
    found : int
        Studies found.
    left_out : dict
        Studies and files that are not among them, by reason.
    kept : int
        Finished before, with the same input and settings.
    finished, failed, waiting, running : int
        Of the studies found, kept ones among the finished.
    workers : int
        Analyses possible at a time.
    seconds_left : float or None
        Estimate, None until a study has ended.
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


Watcher = Callable[[Tally], None]
Ended = Callable[[Entry, State, Outcome], None]


@dataclass
class Batch:
    """One run over an output folder.

    Parameters
    ----------
    output : Path
    settings : Settings
        Of every study.
    options : WorkOptions
    force : bool
        Analyse again what was finished.
    watcher : callable, optional
        Told the tally about twice a second.
    ended : callable, optional
        Told each study that ended.
    finding : callable, optional
        Told the number of files looked at while searching.

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
    watcher: Watcher | None = None
    ended: Ended | None = None
    finding: FindProgress | None = None

    def run(
        self, roots: Sequence[Path], *, watch: Sequence[Path] = (), settle_s: float = 60.0
    ) -> Tally:
        """Find studies and work through them.

        Parameters
        ----------
        roots : sequence of Path
            As `leakloc.services.batch.find_studies` takes them.
        watch : sequence of Path
            Folders to look into again and again until `stop`.
        settle_s : float
            How long nothing of a study may change in a watched folder before it is taken.

        Raises
        ------
        InputError
            If there is nothing to do.
        OutputError
            If another process works on the output folder, or it cannot be written.
        """
        need_dask()
        ledger = Ledger(self.output)
        with ledger.hold("leakloc batch"):
            clean_up(ledger.output)
            ledger.recover()
            return _Run(self, ledger).go(roots, watch, settle_s)


class _Run:
    """The parts of a running batch and what they share."""

    def __init__(self, batch: Batch, ledger: Ledger) -> None:
        self.batch, self.ledger = batch, ledger
        self.tally = Tally()
        self.names: set[str] = set()
        self.pages = Pages(ledger)
        self.engine = Engine(ledger, batch.options, self._ended, self._check_inputs)
        self.started = 0.0
        self.done = 0

    def go(self, roots: Sequence[Path], watch: Sequence[Path], settle_s: float) -> Tally:
        if roots:
            self._find(roots)
        watcher = None
        if watch:
            watcher = FolderWatch(self.ledger, watch, settle_s, self._settled, self.batch.settings)
            watcher.start()
        elif not self.names:
            raise InputError(_nothing_found(roots, self.tally.left_out))
        self.started = time.monotonic()
        try:
            if watcher is not None or self.ledger.counts()[State.WAITING]:
                self.engine.run(lambda: watcher is not None and watcher.alive())
        finally:
            if watcher is not None:
                watcher.stop()
            self.pages.write()
            self._count()
        if watcher is not None and watcher.error is not None:
            raise watcher.error
        return self.tally

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
        with self.ledger.together():
            for study in studies:
                self._queue(study)

    def _ended(self, entry: Entry, state: State, outcome: Outcome) -> None:
        self.done += state in (State.FINISHED, State.FAILED)
        self.pages.add(entry, state)
        if self.batch.ended is not None:
            self.batch.ended(entry, state, outcome)

    def _check_inputs(self) -> None:
        self.pages.write_now_and_then()
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
        left = tally.waiting + tally.running / 2  # those running are half done on average
        spent = time.monotonic() - self.started
        tally.seconds_left = left * spent / self.done if self.done else None


class Pages:
    """Worklist and tables of an output folder, written anew while studies end.

    Parameters
    ----------
    ledger : Ledger
    """

    _MIN_S = 5.0  # people reload a page no faster
    _SHARE = 0.02  # of the time may go into pages of long lists

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._cards = CardBox(ledger)
        self._changed = False
        self._next = time.monotonic() + self._MIN_S

    def add(self, entry: Entry, state: State) -> None:
        """Take in a study that ended."""
        self._changed = True
        if state is State.FINISHED:
            try:
                card = make_card(self._ledger.output / entry.name)
            except LeaklocError:
                return  # the page then names the study without its finding
            self._cards.put(entry.name, card)

    def write_now_and_then(self) -> None:
        """Write where something changed and the last time is long enough ago."""
        if self._changed and time.monotonic() >= self._next:
            start = time.monotonic()
            self.write()
            spent = time.monotonic() - start
            self._next = time.monotonic() + max(self._MIN_S, spent / self._SHARE)

    def write(self) -> None:
        """Write ``index.html``, ``summary.csv`` and ``summary.parquet``.

        Raises
        ------
        OutputError
            If they cannot be written; what stood there stays.
        """
        entries = self._ledger.entries()
        finished = [entry.name for entry in entries if entry.state is State.FINISHED]
        cards = self._cards.all(finished)
        rows = summary_rows(entries, cards)
        self._put("index.html", worklist(entries, cards).encode())
        self._put("summary.csv", as_csv(rows).encode())
        self._put("summary.parquet", as_parquet(rows))
        self._changed = False

    def _put(self, name: str, content: bytes) -> None:
        aside = self._ledger.output / f".{name}.partial"
        try:
            aside.write_bytes(content)
            aside.replace(self._ledger.output / name)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OutputError(f"cannot write {name}: {error.strerror}") from error


class FolderWatch:
    """Looks into folders again and again, and hands over the studies that have settled.

    Parameters
    ----------
    ledger : Ledger
    folders : sequence of Path
    settle_s : float
        How long a study must stay as it is: scanners and PACS send for minutes, with pauses.
    settled : callable
        Takes the studies, in the thread of the watch.
    settings : Settings
    """

    _LOOKS = 4  # looks per settling time

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
        self._seen: dict[str, tuple[str, float]] = {}
        self._told: dict[str, str] = {}
        self.error: LeaklocError | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._watch, name="leakloc-watch", daemon=True)

    def start(self) -> None:
        """Begin to look.

        Raises
        ------
        InputError
            If a folder does not exist.
        """
        for folder in self._folders:
            if not folder.is_dir():
                raise InputError(f"{folder} is no folder to watch")
        self._thread.start()

    def alive(self) -> bool:
        """Whether it still looks."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            cache = ScanCache(self._ledger)
            while not self._stopping.is_set():
                self.look(cache, time.monotonic())
                self._stopping.wait(max(0.2, self._settle_s / self._LOOKS))
        except LeaklocError as error:
            self.error = error
        finally:
            self._ledger.close()

    def look(self, cache: ScanCache, now: float) -> None:
        """Look once, at `now` seconds, and hand over what has settled by then."""
        search = find_studies(
            self._folders, self._settings.loaders, output=self._ledger.output, cache=cache
        )
        ready = []
        for study in search.studies:
            fingerprint, since = self._seen.get(study.name, ("", now))
            if fingerprint != study.fingerprint:
                since = now
            self._seen[study.name] = (study.fingerprint, since)
            settled = now - since >= self._settle_s
            if settled and self._told.get(study.name) != study.fingerprint:
                self._told[study.name] = study.fingerprint
                ready.append(study)
        if ready:
            self._settled(ready)


def _nothing_found(roots: Sequence[Path], left_out: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    places = ", ".join(str(root) for root in roots)
    return f"no MR study in {places}" + (f" (left out: {reasons})" if reasons else "")
