"""The ledger of an output folder: which study is waiting, running, finished or failed.

One SQLite file, ``ledger.sqlite``, beside the folders of the studies. Only the process that
holds the folder (`Ledger.hold`) writes to it; workers hand their results to that process. A
process that is killed leaves rows in the state ``running``, which `Ledger.recover` puts right.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from leakloc.core.errors import OutputError
from leakloc.core.settings import Settings

LEDGER_NAME: Final = "ledger.sqlite"
LOCK_NAME: Final = ".leakloc-lock"
_BUSY_S: Final = 30.0  # a reader never holds the file longer than one query
_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS studies (
    name TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    study_uid TEXT,
    fingerprint TEXT NOT NULL,
    settings_sha256 TEXT NOT NULL REFERENCES settings (sha256),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'finished', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    error_class TEXT,
    error_message TEXT,
    error_detail TEXT,
    queued REAL NOT NULL,
    started REAL,
    ended REAL,
    wall_s REAL,
    cpu_s REAL,
    peak_mib REAL,
    worker TEXT,
    standing TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON studies (state, attempts, queued);
CREATE TABLE IF NOT EXISTS settings (sha256 TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holder (host TEXT, pid INTEGER, since REAL, what TEXT);
"""


class State(StrEnum):
    """What became of a study."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class Decision(StrEnum):
    """What `Ledger.queue` did with a study."""

    NEW = "new"
    WAITING = "waiting"
    """Queued before and not begun, or being analysed now."""
    KEPT = "kept"
    """Finished with the same input and settings."""
    CHANGED = "changed"
    """Input or settings differ: analysed again."""
    RETRIED = "retried"
    """Failed before, and may try again."""
    EXHAUSTED = "exhausted"
    """Failed as often as it may."""
    FORCED = "forced"


@dataclass(frozen=True)
class Entry:
    """One study in the ledger.

    Parameters
    ----------
    name : str
        Folder of the study in the output folder; holds no patient data.
    source : tuple of str
        Absolute paths of the folders, archives or files that hold the study. May hold patient
        names, so it goes into no page, table or log.
    study_uid : str or None
        Study to read where the source holds several.
    fingerprint : str
        Digest of names, sizes and times of the input files.
    settings_sha256 : str
        Digest of the settings, which `Ledger.settings` gives back.
    state : State
    attempts : int
        Analyses begun and not cut off from outside, with this input and these settings.
    interruptions : int
        Analyses cut off from outside: the batch was killed, the machine went down.
    error_class, error_message : str or None
        Why it failed, without patient data.
    error_detail : str or None
        Traceback or last words of the process; may name files, so it is shown nowhere else.
    queued, started, ended : float or None
        Seconds since 1970.
    wall_s, cpu_s, peak_mib : float or None
        Time, processor time and largest memory of the last analysis.
    worker : str or None
        Where it ran.
    standing : str or None
        Stamp of the report that stood in the folder when the analysis began; another one there
        later means that the analysis came to its end.
    """

    name: str
    source: tuple[str, ...]
    study_uid: str | None
    fingerprint: str
    settings_sha256: str
    state: State
    attempts: int = 0
    interruptions: int = 0
    error_class: str | None = None
    error_message: str | None = None
    error_detail: str | None = None
    queued: float = 0.0
    started: float | None = None
    ended: float | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mib: float | None = None
    worker: str | None = None
    standing: str | None = None


@dataclass(frozen=True)
class Usage:
    """What an analysis took.

    Parameters
    ----------
    wall_s, cpu_s, peak_mib : float
        Time, processor time, largest resident memory.
    worker : str
        ``host:process``.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    worker: str


class Ledger:
    """The ledger of one output folder; safe to use from several threads.

    Parameters
    ----------
    output : Path
        Output folder; made where it is missing.

    Raises
    ------
    OutputError
        If the folder or the ledger cannot be written, or is no ledger of ours.

    Examples
    --------
    >>> import tempfile
    >>> ledger = Ledger(Path(tempfile.mkdtemp()))
    >>> with ledger.hold("batch"):
    ...     ledger.queue("1.2.3", ["/data/a"], None, "f00d", Settings())
    ...     entry = ledger.take()
    ...     ledger.finish(entry)
    <Decision.NEW: 'new'>
    <State.FINISHED: 'finished'>
    >>> ledger.counts()["finished"]
    1
    """

    def __init__(self, output: Path) -> None:
        self.output = Path(output).absolute()
        self.path = self.output / LEDGER_NAME
        self._local = threading.local()
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.output}: {error.strerror}") from error
        with self.connection() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise OutputError(
                    f"{self.path} was written by a newer leakloc; update leakloc or name "
                    "another output folder"
                )
            if version < _VERSION:
                database.executescript(_SCHEMA)
                database.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Connection of this thread, in a transaction that ends well or leaves no trace.

        Other users of the ledger (the DICOM node) may keep tables of their own in it.

        Raises
        ------
        OutputError
            If the ledger cannot be read or written: disk full, damaged, read-only.
        """
        try:
            database = self._open()
            if getattr(self._local, "together", False):
                yield database
                return
            with database:
                yield database
        except sqlite3.Error as error:
            raise OutputError(
                f"cannot use the ledger {self.path}: {error}; finished studies are kept, "
                "run again when this is put right"
            ) from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what this thread does within the block one transaction: all of it or nothing.

        Writing to the disk for each of 5,000 studies that are queued takes a minute.
        """
        with self.connection() as database:
            database.execute("BEGIN IMMEDIATE")
            self._local.together = True
            try:
                yield
            finally:
                self._local.together = False

    def _open(self) -> sqlite3.Connection:
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is None:
            database = sqlite3.connect(self.path, timeout=_BUSY_S)
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            # A row written must survive a power cut: it is a few per minute.
            database.execute("PRAGMA synchronous = FULL")
            self._local.database = database
        return database

    def close(self) -> None:
        """Close this thread's connection."""
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is not None:
            database.close()
            self._local.database = None

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Hold the output folder: one process at a time, however the last one ended.

        The lock is the operating system's, on a file of its own, so it ends with the process.

        Parameters
        ----------
        what : str
            Who holds it, for the message to others, e.g. ``"leakloc batch"``.

        Raises
        ------
        OutputError
            If another process holds it.
        """
        try:
            lock = sqlite3.connect(self.output / LOCK_NAME, timeout=0.2, isolation_level=None)
        except sqlite3.Error as error:
            raise OutputError(f"cannot lock {self.output}: {error}") from error
        with closing(lock):
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise OutputError(self._held_by_another(error)) from error
            with self.connection() as database:
                database.execute("DELETE FROM holder")
                database.execute(
                    "INSERT INTO holder VALUES (?, ?, ?, ?)",
                    (socket.gethostname(), os.getpid(), time.time(), what),
                )
            try:
                yield
            finally:
                with suppress(OutputError), self.connection() as database:
                    database.execute("DELETE FROM holder")

    def _held_by_another(self, error: sqlite3.Error) -> str:
        if "locked" not in str(error):
            return f"cannot lock {self.output}: {error}"
        with self.connection() as database:
            row = database.execute("SELECT * FROM holder").fetchone()
        who = f" ({row['what']}, process {row['pid']} on {row['host']})" if row else ""
        return (
            f"another process works on {self.output}{who}; wait until it ends or name another "
            "output folder"
        )

    def queue(
        self,
        name: str,
        source: Iterable[str | Path],
        study_uid: str | None,
        fingerprint: str,
        settings: Settings,
        *,
        retries: int = 0,
        force: bool = False,
    ) -> Decision:
        """Put a study into the ledger, to wait for analysis unless that was done.

        Parameters
        ----------
        name, source, study_uid, fingerprint
            As in `Entry`.
        settings : Settings
            To analyse it with.
        retries : int
            How often a failed study may be tried again, over all runs.
        force : bool
            Analyse again whatever was done.
        """
        digest = settings.sha256
        places = json.dumps([str(path) for path in source])
        with self.connection() as database:
            _begin(database)
            row = _row(database, name)
            decision = _decide(row, fingerprint, digest, retries=retries, force=force)
            if decision in (Decision.KEPT, Decision.EXHAUSTED):
                return decision
            database.execute(
                "INSERT OR IGNORE INTO settings VALUES (?, ?)", (digest, _dumped(settings))
            )
            # What runs goes on; its end compares fingerprints and queues it again if need be.
            database.execute(
                "INSERT INTO studies (name, source, study_uid, fingerprint, settings_sha256, "
                "state, queued) VALUES (?, ?, ?, ?, ?, 'waiting', ?) "
                "ON CONFLICT (name) DO UPDATE SET source = excluded.source, "
                "study_uid = excluded.study_uid, "
                "fingerprint = excluded.fingerprint, settings_sha256 = excluded.settings_sha256, "
                "state = CASE state WHEN 'running' THEN state ELSE 'waiting' END",
                (name, places, study_uid, fingerprint, digest, time.time()),
            )
            if decision in (Decision.CHANGED, Decision.FORCED):
                database.execute("UPDATE studies SET attempts = 0 WHERE name = ?", (name,))
        return decision

    def take(self) -> Entry | None:
        """The study to analyse next, marked as running; None where none waits.

        First tries come before further ones, then in the order queued.
        """
        with self.connection() as database:
            _begin(database)
            row = database.execute(
                "SELECT name FROM studies WHERE state = 'waiting' "
                "ORDER BY attempts + interruptions, queued, name LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            database.execute(
                "UPDATE studies SET state = 'running', attempts = attempts + 1, started = ?, "
                "ended = NULL, error_class = NULL, error_message = NULL, error_detail = NULL, "
                "standing = ? "
                "WHERE name = ?",
                (time.time(), self.stamp(row["name"]), row["name"]),
            )
            return _entry(_row(database, row["name"]))

    def finish(self, entry: Entry, usage: Usage | None = None) -> State:
        """Note that the report of a study that was taken stands in its folder.

        Returns
        -------
        State
            ``finished``, or ``waiting`` where its input or settings changed meanwhile.
        """
        return self._end(entry, State.FINISHED, (None, None, None), usage)

    def fail(
        self,
        entry: Entry,
        error_class: str,
        error_message: str,
        usage: Usage | None = None,
        *,
        detail: str | None = None,
        retries: int = 0,
    ) -> State:
        """Note why the analysis of a study that was taken failed.

        Returns
        -------
        State
            ``waiting`` where it may be tried again, else ``failed``.
        """
        state = State.WAITING if entry.attempts <= retries else State.FAILED
        return self._end(entry, state, (error_class, error_message, detail), usage)

    def put_back(self, entry: Entry) -> None:
        """Let a study wait again whose analysis was cut off through no fault of its own."""
        with self.connection() as database:
            database.execute(
                "UPDATE studies SET state = 'waiting', attempts = max(attempts - 1, 0), "
                "interruptions = interruptions + 1 WHERE name = ? AND state = 'running'",
                (entry.name,),
            )

    def recover(self) -> tuple[list[Entry], list[Entry]]:
        """Put right what a killed process left as running; call it while holding the folder.

        Returns
        -------
        adopted, put_back : list of Entry
            Studies whose new report stands in its folder, and those that wait again.
        """
        adopted: list[Entry] = []
        waiting: list[Entry] = []
        for entry in self.entries(State.RUNNING):
            if self._came_to_its_end(entry):
                self.finish(entry)
                adopted.append(entry)
            else:
                self.put_back(entry)
                waiting.append(entry)
        return adopted, waiting

    def _came_to_its_end(self, entry: Entry) -> bool:
        stamp = self.stamp(entry.name)
        if stamp is None or stamp == entry.standing:
            return False
        try:
            report = json.loads((self.output / entry.name / "report.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(report["generator"]["config_sha256"] == entry.settings_sha256)

    def _end(
        self,
        entry: Entry,
        state: State,
        error: tuple[str | None, str | None, str | None],
        usage: Usage | None,
    ) -> State:
        with self.connection() as database:
            _begin(database)
            row = _row(database, entry.name)
            if (row["fingerprint"], row["settings_sha256"]) != (
                entry.fingerprint,
                entry.settings_sha256,
            ):
                state = State.WAITING
            database.execute(
                "UPDATE studies SET state = ?, error_class = ?, error_message = ?, "
                "error_detail = ?, ended = ?, wall_s = ?, cpu_s = ?, peak_mib = ?, worker = ? "
                "WHERE name = ?",
                (
                    state,
                    *error,
                    time.time(),
                    usage and usage.wall_s,
                    usage and usage.cpu_s,
                    usage and usage.peak_mib,
                    usage and usage.worker,
                    entry.name,
                ),
            )
        return state

    def stamp(self, name: str) -> str | None:
        """Tells one report in a study's folder from a later one; None where there is none."""
        try:
            found = (self.output / name / "report.json").stat()
        except OSError:
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}"

    def entry(self, name: str) -> Entry | None:
        """One study, None where the ledger does not know it."""
        with self.connection() as database:
            row = _row(database, name)
        return None if row is None else _entry(row)

    def entries(self, state: State | None = None) -> list[Entry]:
        """All studies, or those in one state, in the order queued."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        with self.connection() as database:
            rows = database.execute(
                f"SELECT * FROM studies {where} ORDER BY queued, name", values
            ).fetchall()
        return [_entry(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """Number of studies in each state."""
        with self.connection() as database:
            rows = database.execute("SELECT state, count(*) FROM studies GROUP BY state").fetchall()
        found = {State(state): int(count) for state, count in rows}
        return {state: found.get(state, 0) for state in State}

    def states(self) -> dict[str, State]:
        """State of each study by name."""
        with self.connection() as database:
            rows = database.execute("SELECT name, state FROM studies").fetchall()
        return {row["name"]: State(row["state"]) for row in rows}

    def settings(self, sha256: str) -> Settings:
        """The settings of an entry."""
        with self.connection() as database:
            row = database.execute(
                "SELECT json FROM settings WHERE sha256 = ?", (sha256,)
            ).fetchone()
        if row is None:
            raise OutputError(f"{self.path} holds no settings {sha256[:12]}: it is damaged")
        return Settings.from_dict(json.loads(row["json"]), source=str(self.path))


def _decide(
    row: sqlite3.Row | None, fingerprint: str, digest: str, *, retries: int, force: bool
) -> Decision:
    if row is None:
        return Decision.NEW
    if (row["fingerprint"], row["settings_sha256"]) != (fingerprint, digest):
        return Decision.CHANGED
    if row["state"] in (State.WAITING, State.RUNNING):
        return Decision.WAITING
    if row["state"] == State.FINISHED:
        return Decision.FORCED if force else Decision.KEPT
    if force:
        return Decision.FORCED
    return Decision.RETRIED if row["attempts"] <= retries else Decision.EXHAUSTED


def _begin(database: sqlite3.Connection) -> None:
    """Lock before reading what is about to be written, unless that was done."""
    if not database.in_transaction:
        database.execute("BEGIN IMMEDIATE")


def _row(database: sqlite3.Connection, name: str) -> Any:
    return database.execute("SELECT * FROM studies WHERE name = ?", (name,)).fetchone()


def _dumped(settings: Settings) -> str:
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True)


def _entry(row: sqlite3.Row) -> Entry:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Entry)}
    values["source"] = tuple(json.loads(values["source"]))
    values["state"] = State(values["state"])
    return Entry(**values)
