"""Queue of results to return, stored in the ledger; objects are resent until acknowledged.

A row is marked as tried before sending and as sent after the acknowledgment. If the process is
killed in between, the object is sent again with the same UID, which a DICOM archive treats as the
same object; a DICOMweb server is queried first.

Times in the ledger are seconds of a clock of the outbox: it advances only while the node runs, so
that changes of the system clock and the time between two runs do not affect retries. After a
restart, waiting objects are due immediately.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from pydicom import dcmread

from leakloc.core.errors import LeaklocError
from leakloc.services.batch.ledger import State
from leakloc.services.node.sender import Parcel, Sender

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings
    from leakloc.services.batch.ledger import Ledger

_LOG = logging.getLogger("leakloc.node")
_MAX_S: Final = 3600.0
_POLL_S: Final = 1.0
_AT_A_TIME: Final = 500  # objects over one association
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS node_results (study TEXT PRIMARY KEY, stamp TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS node_sends (destination TEXT, sop_uid TEXT, study TEXT NOT NULL, "
    "study_uid TEXT NOT NULL, path TEXT NOT NULL, "
    "state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'failed', 'superseded')), "
    "tries INTEGER NOT NULL DEFAULT 0, since REAL NOT NULL, next_try REAL NOT NULL, error TEXT, "
    "PRIMARY KEY (destination, sop_uid))",
)


class Outbox:
    """Queue of results for one peer.

    Parameters
    ----------
    ledger : Ledger
        Ledger of the output folder; the ``dicom`` folders of its studies are sent.
    sender : Sender
    settings : NodeSettings
    is_own : callable
        Returns whether a study of the ledger was received by this node.
    """

    def __init__(
        self,
        ledger: Ledger,
        sender: Sender,
        settings: NodeSettings,
        is_own: Callable[[tuple[str, ...]], bool],
    ) -> None:
        self._ledger, self._sender, self._settings, self._is_own = ledger, sender, settings, is_own
        self._stopping = Event()
        self._thread = Thread(target=self._work, name="leakloc-outbox", daemon=True)
        with ledger.connection() as database:
            for statement in _SCHEMA:
                database.execute(statement)
            (latest,) = database.execute(
                "SELECT max(max(since, next_try)) FROM node_sends"
            ).fetchone()
        self._offset_s = (0.0 if latest is None else float(latest)) - time.monotonic()

    def _now(self) -> float:
        """Seconds of the clock of the outbox."""
        return self._offset_s + time.monotonic()

    def start(self) -> None:
        """Start sending in a separate thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; waiting objects are sent by the next run."""
        self._stopping.set()
        self._thread.join(self._settings.network_timeout_s)

    def enlist(self) -> int:
        """Queue the results of finished studies that are not yet queued.

        Returns
        -------
        int
            Number of objects queued.
        """
        with self._ledger.connection() as database:
            rows = database.execute("SELECT study, stamp FROM node_results").fetchall()
        known = {row["study"]: row["stamp"] for row in rows}
        noted = 0
        for entry in self._ledger.entries(State.FINISHED):
            stamp = self._ledger.stamp(entry.name)
            if stamp is not None and known.get(entry.name) != stamp and self._is_own(entry.source):
                try:
                    noted += self._note(entry.name, stamp)
                except OSError as error:  # retried; other studies are sent
                    _LOG.error(
                        "cannot read the results of study %s: %s", entry.name, error.strerror
                    )
        return noted

    def _note(self, study: str, stamp: str) -> int:
        now = self._now()
        found, damaged = _objects(self._ledger.output / study / "dicom")
        with self._ledger.connection() as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "UPDATE node_sends SET state = 'superseded' WHERE study = ? AND state = 'waiting'",
                (study,),
            )
            for path, sop_uid, study_uid in found:
                relative = path.relative_to(self._ledger.output).as_posix()
                database.execute(
                    "INSERT INTO node_sends VALUES (?, ?, ?, ?, ?, 'waiting', 0, ?, ?, NULL) "
                    "ON CONFLICT DO UPDATE SET state = 'waiting' WHERE state = 'superseded'",
                    (self._sender.name, sop_uid, study, study_uid, relative, now, now),
                )
            for path in damaged:
                relative = path.relative_to(self._ledger.output).as_posix()
                database.execute(
                    "INSERT OR REPLACE INTO node_sends "
                    "VALUES (?, ?, ?, '', ?, 'failed', 0, ?, ?, 'not readable as DICOM')",
                    (self._sender.name, relative, study, relative, now, now),
                )
            database.execute("INSERT OR REPLACE INTO node_results VALUES (?, ?)", (study, stamp))
        if damaged:
            _LOG.error(
                "%d results of study %s are not readable as DICOM and are not sent; analyze the "
                "study again",
                len(damaged),
                study,
            )
        return len(found)

    def send_due(self) -> tuple[int, int]:
        """Send the waiting objects that are due.

        Returns
        -------
        sent, failed : int
            Number of objects that the peer accepted and did not accept.
        """
        now = self._now()
        with self._ledger.connection() as database:
            database.execute("BEGIN IMMEDIATE")
            rows = database.execute(
                "SELECT * FROM node_sends WHERE destination = ? AND state = 'waiting' "
                "AND next_try <= ? ORDER BY since, path LIMIT ?",
                (self._sender.name, now, _AT_A_TIME),
            ).fetchall()
            for row in rows:
                wait = min(self._settings.resend_s * 2 ** min(row["tries"], 30), _MAX_S)
                database.execute(
                    "UPDATE node_sends SET tries = tries + 1, next_try = ? "
                    "WHERE destination = ? AND sop_uid = ?",
                    (now + wait, row["destination"], row["sop_uid"]),
                )
        parcels = [
            Parcel(
                self._ledger.output / row["path"],
                row["sop_uid"],
                row["study_uid"],
                row["tries"] > 0,
            )
            for row in rows
        ]
        since = {row["sop_uid"]: row["since"] for row in rows}
        sent = failed = 0
        for parcel, problem in self._sender.send(parcels) if parcels else ():
            self._record(parcel, problem, since[parcel.sop_uid])
            sent, failed = sent + (problem is None), failed + (problem is not None)
            if self._stopping.is_set():
                break
        return sent, failed

    def _record(self, parcel: Parcel, problem: str | None, since: float) -> None:
        given_up = self._now() - since > self._settings.resend_for_h * 3600
        state = "sent" if problem is None else "failed" if given_up else "waiting"
        with self._ledger.connection() as database:
            # Superseded objects remain superseded unless they were sent.
            database.execute(
                "UPDATE node_sends SET state = CASE WHEN state = 'waiting' OR ?1 = 'sent' "
                "THEN ?1 ELSE state END, error = ?2 WHERE destination = ?3 AND sop_uid = ?4",
                (state, problem, self._sender.name, parcel.sop_uid),
            )
        if state == "failed":
            _LOG.error("gave up sending %s to %s: %s", parcel.sop_uid, self._sender.name, problem)

    def counts(self) -> dict[str, int]:
        """Number of objects by state: waiting, sent, failed, superseded."""
        with self._ledger.connection() as database:
            rows = database.execute(
                "SELECT state, count(*) FROM node_sends WHERE destination = ? GROUP BY state",
                (self._sender.name,),
            ).fetchall()
        return {state: int(count) for state, count in rows}

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self.enlist()
                sent, failed = self.send_due()
                if sent or failed:
                    _LOG.info("sent %d objects to %s, %d not", sent, self._sender.name, failed)
            except LeaklocError as error:  # a full disk may have free space later
                _LOG.error("%s", error)
            except Exception as error:  # sending must never end while the node runs
                _LOG.error("sending failed unexpectedly (%s)", type(error).__name__)
            self._stopping.wait(_POLL_S)
        self._ledger.close()


def _objects(folder: Path) -> tuple[list[tuple[Path, str, str]], list[Path]]:
    """The DICOM files of a report (path, SOP and Study Instance UID), and the unreadable ones."""
    found, damaged = [], []
    for path in sorted(folder.rglob("*.dcm")):
        try:
            header = dcmread(
                path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "StudyInstanceUID"]
            )
            found.append((path, str(header.SOPInstanceUID), str(header.StudyInstanceUID)))
        except Exception:  # any error from damaged data
            damaged.append(path)
    return found, damaged
