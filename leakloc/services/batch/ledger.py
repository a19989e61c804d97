"""Job database (ledger) of an output folder, with the state of each study.

One SQLite file, ``ledger.sqlite``, next to the study folders. Only the process that locks the
folder (`Ledger.hold`) writes to it; workers return their results to that process. A killed
process leaves rows in the state ``running``, which `Ledger.recover` resolves.
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

from leakloc.core.errors import OutputError, printable
from leakloc.core.settings import Settings

LEDGER_NAME: Final = "ledger.sqlite"
LOCK_NAME: Final = ".leakloc-lock"
_BUSY_S: Final = 30.0  # a reader locks the file for at most one query
_VERSION: Final = 2

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
    report_stamp TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON studies (state, attempts, queued);
CREATE TABLE IF NOT EXISTS settings (sha256 TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holder (host TEXT, pid INTEGER, since REAL, what TEXT);
"""


_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("name", "fingerprint", "settings_sha256"), str),
    **dict.fromkeys(("study_uid", "error_class", "error_message", "error_detail"), str | None),
    **dict.fromkeys(("worker", "report_stamp"), str | None),
    **dict.fromkeys(("attempts", "interruptions"), int),
    "queued": float,
    **dict.fromkeys(("started", "ended", "wall_s", "cpu_s", "peak_mib"), float | None),
}
"""Types of the columns, which SQLite does not enforce."""
_CREATION_TRIES: Final = 5
_CREATION_S: Final = 0.1
"""Another process creates the database within half a second."""


class State(StrEnum):
    """Processing state of a study."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class Decision(StrEnum):
    """Action taken by `Ledger.queue` for a study."""

    NEW = "new"
    WAITING = "waiting"
    """Already queued and not started, or being analyzed now."""
    KEPT = "kept"
    """Already finished with the same input and settings."""
    CHANGED = "changed"
    """Input or settings differ; analyzed again."""
    RETRIED = "retried"
    """Failed before and is retried."""
    EXHAUSTED = "exhausted"
    """Failed, with no retries left."""
    FORCED = "forced"


@dataclass(frozen=True)
class Entry:
    """One study in the ledger.

    Parameters
    ----------
    name : str
        Folder of the study in the output folder; contains no patient data.
    source : tuple of str
        Absolute paths of the folders, archives or files of the study. They may contain patient
        names and are not written to HTML pages, tables or logs.
    study_uid : str or None
        Study to read if the source contains several.
    fingerprint : str
        Digest of names, sizes and times of the input files.
    settings_sha256 : str
        Digest of the settings, which `Ledger.settings` returns.
    state : State
    attempts : int
        Analyses started with this input and these settings, excluding interrupted ones.
    interruptions : int
        Analyses interrupted externally: the batch was killed, the machine shut down.
    error_class, error_message : str or None
        Reason for the failure, without patient data.
    error_detail : str or None
        Traceback or last output of the process; may contain file names and is not shown.
    queued, started, ended : float or None
        Seconds since 1970.
    wall_s, cpu_s, peak_mib : float or None
        Wall-clock time, CPU time and peak memory of the last analysis.
    worker : str or None
        Host and process that ran the analysis.
    report_stamp : str or None
        Stamp of the report in the folder when the analysis started; a different stamp later
        shows that the analysis was completed.
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
    report_stamp: str | None = None


@dataclass(frozen=True)
class Usage:
    """Time and memory used by an analysis.

    Parameters
    ----------
    wall_s, cpu_s, peak_mib : float
        Wall-clock time, CPU time, peak resident memory.
    worker : str
        ``host:process``.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    worker: str


class Ledger:
    """Job database of one output folder; thread-safe.

    Parameters
    ----------
    output : Path
        Output folder; created if missing.

    Raises
    ------
    OutputError
        If the folder or the database cannot be written, or is not a leakloc database.

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
            raise OutputError(
                f"cannot create the folder {self.output}: {error.strerror}"
            ) from error
        self._require_content()
        with self.connection() as database:
            [check] = database.execute("PRAGMA quick_check (1)").fetchone()
            if check != "ok":
                raise sqlite3.DatabaseError(check)
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise OutputError(
                    f"{self.path} was written by a newer version of leakloc; update leakloc "
                    "or specify another output folder"
                )
            if version == 1:
                database.execute("ALTER TABLE studies RENAME COLUMN standing TO report_stamp")
            if version < _VERSION:
                database.executescript(_SCHEMA)
                database.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Connection of this thread, in a transaction that is committed or rolled back.

        Other components (the DICOM node) may store their own tables in the database.

        Raises
        ------
        OutputError
            If the database cannot be read or written: disk full, damaged, read-only.
        """
        try:
            database = self._open()
            if getattr(self._local, "transaction", False):
                yield database
                return
            with database:
                yield database
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot use the job database {self.path}: {error}; finished studies are kept, "
                "run again when this is fixed"
            ) from error
        except sqlite3.Error as error:
            raise OutputError(self._damage_message(str(error))) from error

    def _damage_message(self, reason: str) -> str:
        return (
            f"the job database {self.path} is damaged ({printable(reason)}); restore it from a "
            "backup, or delete it: reports are kept, and all studies are analyzed again"
        )

    def _require_content(self) -> None:
        """Reject an empty file, which a new job database is only while it is created."""
        for _ in range(_CREATION_TRIES):
            if not self.path.exists() or self.path.stat().st_size > 0:
                return
            time.sleep(_CREATION_S)
        raise OutputError(self._damage_message("it is empty"))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Combine all database operations of this thread in the block in one transaction.

        Writing 5,000 queued studies to disk one by one takes a minute.
        """
        with self.connection() as database:
            database.execute("BEGIN IMMEDIATE")
            self._local.transaction = True
            try:
                yield
            finally:
                self._local.transaction = False

    def _open(self) -> sqlite3.Connection:
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is None:
            database = sqlite3.connect(self.path, timeout=_BUSY_S)
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            # Committed rows must survive a power failure; only a few are written per minute.
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
        """Lock the output folder for this process.

        An operating-system lock on a separate file, released whenever the process ends.

        Parameters
        ----------
        what : str
            Name of the holder for the error message of other processes, e.g. ``"leakloc batch"``.

        Raises
        ------
        OutputError
            If another process holds the lock.
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
        owner = f" ({row['what']}, process {row['pid']} on {row['host']})" if row else ""
        return (
            f"another process uses {self.output}{owner}; wait until it ends or specify another "
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
        """Queue a study for analysis unless it is finished or has no retries left.

        Parameters
        ----------
        name, source, study_uid, fingerprint
            As in `Entry`.
        settings : Settings
            Settings of the analysis.
        retries : int
            Maximum number of retries of a failed study, over all runs.
        force : bool
            Analyze again even if finished or failed.
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
                "INSERT OR IGNORE INTO settings VALUES (?, ?)", (digest, _dump(settings))
            )
            # A running analysis continues; `_end` requeues the study if its input has changed.
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
        """Return the next study to analyze, marked as running; None if none is waiting.

        Ordered by number of previous attempts, then by queuing time.
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
                "report_stamp = ? "
                "WHERE name = ?",
                (time.time(), self.stamp(row["name"]), row["name"]),
            )
            return _entry(_row(database, row["name"]))

    def finish(self, entry: Entry, usage: Usage | None = None) -> State:
        """Record that the report of a study returned by `take` was written.

        Returns
        -------
        State
            ``finished``, or ``waiting`` if its input or settings changed in the meantime.
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
        """Record why the analysis of a study returned by `take` failed.

        Returns
        -------
        State
            ``waiting`` if a retry is left, otherwise ``failed``.
        """
        state = State.WAITING if entry.attempts <= retries else State.FAILED
        return self._end(entry, state, (error_class, error_message, detail), usage)

    def put_back(self, entry: Entry) -> None:
        """Requeue a study whose analysis was interrupted externally."""
        with self.connection() as database:
            database.execute(
                "UPDATE studies SET state = 'waiting', attempts = max(attempts - 1, 0), "
                "interruptions = interruptions + 1 WHERE name = ? AND state = 'running'",
                (entry.name,),
            )

    def recover(self) -> tuple[list[Entry], list[Entry]]:
        """Resolve studies that a killed process left as running; call it within `hold`.

        Returns
        -------
        adopted, put_back : list of Entry
            Studies whose new report is complete, and requeued studies.
        """
        adopted: list[Entry] = []
        waiting: list[Entry] = []
        for entry in self.entries(State.RUNNING):
            if self._was_completed(entry):
                self.finish(entry)
                adopted.append(entry)
            else:
                self.put_back(entry)
                waiting.append(entry)
        return adopted, waiting

    def _was_completed(self, entry: Entry) -> bool:
        stamp = self.stamp(entry.name)
        if stamp is None or stamp == entry.report_stamp:
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
        """Identifier of the current report file of a study; None if there is no report."""
        try:
            found = (self.output / name / "report.json").stat()
        except OSError:
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}"

    def entry(self, name: str) -> Entry | None:
        """Entry of one study; None if it is not in the database."""
        with self.connection() as database:
            row = _row(database, name)
            return None if row is None else _entry(row)

    def entries(self, state: State | None = None) -> list[Entry]:
        """Entries of all studies, or of those in one state, in queuing order."""
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
            found = {_state(state): int(count) for state, count in rows}
        return {state: found.get(state, 0) for state in State}

    def states(self) -> dict[str, State]:
        """State of each study by name."""
        with self.connection() as database:
            rows = database.execute("SELECT name, state FROM studies").fetchall()
            return {row["name"]: _state(row["state"]) for row in rows}

    def settings(self, sha256: str) -> Settings:
        """Return the settings with the given digest."""
        with self.connection() as database:
            row = database.execute(
                "SELECT json FROM settings WHERE sha256 = ?", (sha256,)
            ).fetchone()
            try:
                values = json.loads(row["json"])
            except (TypeError, ValueError, RecursionError) as error:  # no row, or not JSON
                raise sqlite3.DatabaseError(f"settings {sha256[:12]} are missing") from error
        return Settings.from_dict(values, source=str(self.path))


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
    """Lock the database before a read-modify-write, unless already in a transaction."""
    if not database.in_transaction:
        database.execute("BEGIN IMMEDIATE")


def _row(database: sqlite3.Connection, name: str) -> Any:
    return database.execute("SELECT * FROM studies WHERE name = ?", (name,)).fetchone()


def _dump(settings: Settings) -> str:
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True)


def _entry(row: sqlite3.Row) -> Entry:
    try:
        values: dict[str, Any] = {field.name: row[field.name] for field in fields(Entry)}
        values["source"] = tuple(json.loads(values["source"]))
        values["state"] = _state(values["state"])
        entry = Entry(**values)
        if not all(isinstance(place, str) for place in entry.source):
            raise TypeError
        for name, kinds in _TYPES.items():
            if not isinstance(values[name], kinds):
                raise TypeError
    except (TypeError, ValueError, IndexError, RecursionError) as error:
        raise sqlite3.DatabaseError("a row is not that of a study") from error
    return entry


def _state(text: Any) -> State:
    try:
        return State(text)
    except ValueError as error:
        raise sqlite3.DatabaseError("a state is unknown") from error
