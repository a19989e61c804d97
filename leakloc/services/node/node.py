"""DICOM node: receives studies, queues complete ones, analyzes them and returns the results.

Three tasks run in parallel and independently: receiving (or polling), analysis of queued studies
(each in a separate process), and sending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Final

from leakloc.core.extras import check_installed
from leakloc.core.settings import Settings
from leakloc.services.batch.batch import PAUSE_S, Pages, log_text
from leakloc.services.batch.engine import PACKAGES, Engine, WorkOptions
from leakloc.services.batch.finder import find_studies
from leakloc.services.batch.ledger import Entry, Ledger, State
from leakloc.services.batch.run import Outcome, clean_up
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.dicomweb import Poller, Server
from leakloc.services.node.outbox import Outbox
from leakloc.services.node.receiver import Listen, Receiver
from leakloc.services.node.sender import Peer, Sender, StoreSender
from leakloc.services.node.spool import Spool

_LOG = logging.getLogger("leakloc.node")
_POLL_S: Final = 0.2


@dataclass
class Node:
    """DICOM node with one output folder.

    Parameters
    ----------
    output : Path
    settings : Settings
        Settings of all studies and of the node (``settings.node``).
    listen : Listen, optional
        Where to receive objects by C-STORE.
    server : str, optional
        URL of a DICOMweb server to poll and to store results on.
    return_to : Peer, optional
        Where to send results by C-STORE.
    options : WorkOptions
        Options of the analysis.
    ready : callable, optional
        Called with the port when the node is listening.
    """

    output: Path
    settings: Settings
    listen: Listen | None = None
    server: str | None = None
    return_to: Peer | None = None
    options: WorkOptions = field(default_factory=WorkOptions)
    ready: Callable[[int], None] | None = None
    _stopping: Event = field(default_factory=Event)
    _engine: Engine | None = None

    def run(self) -> None:
        """Receive, analyze and send until `stop`, or an exception in this thread.

        Raises
        ------
        SettingsError
            If it cannot listen, or a required package is not installed.
        OutputError
            If another process uses the output folder, or it cannot be written.
        """
        check_installed((*PACKAGES, "pynetdicom", "dicomweb_client", "urllib3"), "node")
        self.settings.report.check_installed()
        ledger = Ledger(self.output)
        with ledger.hold("leakloc node"):
            clean_up(ledger.output, [entry.name for entry in ledger.entries()])
            ledger.recover()
            _Run(self, ledger).run_all()

    def stop(self) -> None:
        """End `run`; thread-safe. Running analyses are requeued."""
        self._stopping.set()
        if self._engine is not None:
            self._engine.stop()


class _Run:
    """State of a running node."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self.node, self.ledger = node, ledger
        settings = node.settings.node
        self.spool = Spool(ledger.output, settings, node.settings.loaders)
        self.arrivals = Arrivals(settings.settle_s)
        self.pages = Pages(ledger, errors_to=_LOG)
        self.receiver: Receiver | None = None
        self.poller: Poller | None = None
        self.outbox: Outbox | None = None
        sender: Sender | None = None
        if node.listen is not None:
            self.receiver = Receiver(node.listen, self.spool, self.arrivals, settings)
        title = node.listen.title if node.listen is not None else Listen().title
        if node.server is not None:
            sender = server = Server(node.server, settings, node.settings.loaders)
            self.poller = Poller(
                server, ledger, self.spool, self.arrivals, settings, time.monotonic
            )
        if node.return_to is not None:
            sender = StoreSender(node.return_to, title, settings)
        if sender is not None:
            self.outbox = Outbox(ledger, sender, settings, self._is_own)

    def run_all(self) -> None:
        for study_uid in self.spool.recover():
            if self.poller is None or not self.poller.is_partial(study_uid):
                self.arrivals.arrived(study_uid)
        threads = [Thread(target=self._settle, name="leakloc-settle", daemon=True)]
        if self.poller is not None:
            threads.append(Thread(target=self._poll, name="leakloc-poll", daemon=True))
        try:
            if self.receiver is not None:
                self.receiver.start()
                if self.node.ready is not None:
                    self.node.ready(self.receiver.port)
            for thread in threads:
                thread.start()
            if self.outbox is not None:
                self.outbox.start()
            while not self.node._stopping.is_set():
                self._analyze()
        finally:
            self.node._stopping.set()
            if self.receiver is not None:
                self.receiver.stop()
            if self.outbox is not None:
                self.outbox.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(self.node.settings.node.network_timeout_s)

    def _analyze(self) -> None:
        """Analyze queued studies; after an error, such as a full disk, pause."""
        node = self.node
        node._engine = Engine(self.ledger, node.options, self._ended, self.pages.write_if_due)
        try:
            node._engine.run(lambda: not node._stopping.is_set())
        except Exception as error:  # receiving must continue; running studies are requeued
            _LOG.error("analyzing stopped for a while: %s", log_text(error))
            node._stopping.wait(PAUSE_S)

    def _ended(self, entry: Entry, state: State, outcome: Outcome) -> None:
        self.pages.add(entry, state)
        why = f": {outcome.error_class}" if outcome.error_class else ""
        _LOG.info("study %s %s after %.1f s%s", entry.name, state.value, outcome.wall_s, why)

    def _settle(self) -> None:
        """Queue studies as they settle."""
        while not self.node._stopping.wait(_POLL_S):
            for study_uid in self.arrivals.settled():
                try:
                    self._queue(study_uid)
                except Exception as error:  # retry, so that no received study is lost
                    self.arrivals.arrived(study_uid)
                    _LOG.error("cannot queue study %s: %s", study_uid, log_text(error))
        self.ledger.close()

    def _queue(self, study_uid: str) -> None:
        node = self.node
        found = find_studies([self.spool.study(study_uid)], node.settings.loaders)
        for study in found.studies:
            decision = self.ledger.queue(
                study.name,
                study.source,
                study.study_uid,
                study.fingerprint,
                node.settings,
                retries=node.options.retries,
            )
            _LOG.info("study %s has %d files: %s", study.name, study.n_files, decision.value)
        if not found.studies:
            _LOG.warning("study %s holds nothing to analyze", study_uid)

    def _poll(self) -> None:
        assert self.poller is not None
        while not self.node._stopping.is_set():
            try:
                self.poller.poll(self.node._stopping)
            except Exception as error:  # a server may return anything
                _LOG.error("polling failed, it is tried again: %s", log_text(error))
            self.node._stopping.wait(self.node.settings.node.poll_s)
        self.ledger.close()

    def _is_own(self, source: tuple[str, ...]) -> bool:
        """Whether a study of the ledger was received, not queued by a batch."""
        return any(Path(path).is_relative_to(self.spool.folder) for path in source)
