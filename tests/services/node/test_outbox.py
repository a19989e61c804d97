"""What is sent back: once, again after failures, never an outdated result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from leakloc.core.settings import NodeSettings, Settings
from leakloc.services.batch.ledger import Ledger
from leakloc.services.node.outbox import Outbox
from leakloc.services.node.sender import Answer, Parcel
from tests.services.node.fakes import analyze
from tests.services.node.peers import query

STUDY = "1.2.3"


class Peer:
    """Accepts what it is configured to accept; may be interrupted."""

    name = "PEER@somewhere:104"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.problem: str | None = None
        self.dies_after: int | None = None

    def send(self, parcels: Sequence[Parcel]) -> Iterator[Answer]:
        for number, parcel in enumerate(parcels):
            if number == self.dies_after:
                raise KeyboardInterrupt
            if self.problem is None:
                self.got.append(parcel.sop_uid)
            yield parcel, self.problem


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    source = tmp_path / "source"
    source.mkdir()
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
    dataset.StudyInstanceUID = STUDY
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.save_as(source / "a.dcm", enforce_file_format=True)
    ledger = Ledger(tmp_path / "out")
    _analyzed(ledger, source, "one")
    return ledger


def _analyzed(ledger: Ledger, source: Path, fingerprint: str) -> None:
    ledger.queue(STUDY, [source], STUDY, fingerprint, Settings())
    entry = ledger.take()
    assert entry is not None
    analyze(source, Settings(), output=ledger.output / STUDY, study_uid=STUDY, overwrite=True)
    ledger.finish(entry)


def _outbox(ledger: Ledger, peer: Peer, **values: float) -> Outbox:
    settings = NodeSettings(**{"resend_s": 0.1, **values})  # type: ignore[arg-type]
    return Outbox(ledger, peer, settings, lambda _source: True)


def test_each_result_is_sent_once(ledger: Ledger, peer: Peer) -> None:
    outbox = _outbox(ledger, peer)
    assert outbox.enlist() == 2
    assert outbox.send_due() == (2, 0)
    for again in (outbox, _outbox(ledger, peer)):
        assert (again.enlist(), again.send_due()) == (0, (0, 0))
    assert len(set(peer.got)) == len(peer.got) == 2


def test_cut_off_in_the_middle_only_the_rest_is_sent(ledger: Ledger, peer: Peer) -> None:
    outbox = _outbox(ledger, peer)
    outbox.enlist()
    peer.dies_after = 1
    with pytest.raises(KeyboardInterrupt):
        outbox.send_due()
    peer.dies_after = None
    _later(ledger)
    assert _outbox(ledger, peer).send_due() == (1, 0)
    assert len(set(peer.got)) == len(peer.got) == 2


def test_an_outdated_result_is_not_sent(ledger: Ledger, peer: Peer, tmp_path: Path) -> None:
    outbox = _outbox(ledger, peer)
    outbox.enlist()
    _analyzed(ledger, tmp_path / "source", "two")
    assert outbox.enlist() == 2
    assert outbox.send_due() == (2, 0)
    assert outbox.counts() == {"sent": 2, "superseded": 2}


def test_waits_longer_each_time_and_gives_up(ledger: Ledger, peer: Peer) -> None:
    outbox = _outbox(ledger, peer, resend_s=100.0, resend_for_h=1.0)
    outbox.enlist()
    peer.problem = "the peer cannot be reached"
    waits = []
    for _ in range(7):
        assert outbox.send_due() == (0, 2)
        assert outbox.send_due() == (0, 0)  # not due yet
        rows = query(ledger.output, "SELECT max(next_try - since) FROM node_sends")
        waits.append(round(rows[0][0] / 100))
        _later(ledger)
    assert waits == [1, 2, 4, 8, 16, 32, 36]  # at most an hour
    with ledger.connection() as database:
        database.execute("UPDATE node_sends SET since = since - 3601")
    assert outbox.send_due() == (0, 2)
    assert outbox.counts() == {"failed": 2}


def test_batch_studies_are_not_sent(ledger: Ledger, peer: Peer) -> None:
    outbox = Outbox(ledger, peer, NodeSettings(), lambda _source: False)
    assert (outbox.enlist(), outbox.send_due()) == (0, (0, 0))


def _later(ledger: Ledger) -> None:
    """Let the next try be due."""
    with ledger.connection() as database:
        database.execute("UPDATE node_sends SET next_try = 0")
