"""What is sent back: once, again after failures, never an outdated result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    return _ledger(tmp_path)


def _ledger(folder: Path) -> Ledger:
    source = folder / "source"
    source.mkdir()
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
    dataset.StudyInstanceUID = STUDY
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.save_as(source / "a.dcm", enforce_file_format=True)
    ledger = Ledger(folder / "out")
    _analyzed(ledger, source, "one")
    return ledger


def _analyzed(ledger: Ledger, source: Path, fingerprint: str, study: str = STUDY) -> None:
    ledger.queue(study, [source], study, fingerprint, Settings())
    entry = ledger.take()
    assert entry is not None
    analyze(source, Settings(), output=ledger.output / study, study_uid=study, overwrite=True)
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


@pytest.mark.parametrize(
    "content", [b"", b"damaged", bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(500)]
)
def test_a_damaged_result_does_not_block_others(
    ledger: Ledger, peer: Peer, tmp_path: Path, content: bytes
) -> None:
    (ledger.output / STUDY / "dicom" / "0.dcm").write_bytes(content)
    _analyzed(ledger, tmp_path / "source", "two", "1.2.4")
    outbox = _outbox(ledger, peer)
    assert outbox.enlist() == 4
    assert outbox.send_due() == (4, 0)
    assert outbox.counts() == {"sent": 4, "failed": 1}
    assert outbox.enlist() == 0  # the damaged file is not read again


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(-4e9, 4e9), st.booleans()), min_size=1, max_size=6))
def test_changes_of_the_system_clock_do_not_affect_retries(jumps: list[tuple[float, bool]]) -> None:
    """Jumps in seconds, each with a refused try; some with a restart."""
    elapsed, wall = [1000.0], [1.7e9]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(time, "time", lambda: wall[0]),
        mock.patch.object(time, "monotonic", lambda: elapsed[0]),
    ):
        ledger, peer = _ledger(Path(folder)), Peer()
        outbox = _outbox(ledger, peer, resend_s=10.0, resend_for_h=24.0)
        outbox.enlist()
        peer.problem = "refused"
        wait = 10.0
        for jump, is_restarted in jumps:
            assert outbox.send_due() == (0, 2)
            wall[0] += jump
            assert outbox.send_due() == (0, 0)  # not due yet
            if is_restarted:  # due immediately, whenever that is
                elapsed[0] = 5.0
                outbox = _outbox(ledger, peer, resend_s=10.0, resend_for_h=24.0)
            else:
                elapsed[0] += wait
            wait *= 2
        peer.problem = None
        assert outbox.send_due() == (2, 0)
        ledger.close()


def test_age_of_a_result_is_the_time_the_node_ran(ledger: Ledger, peer: Peer) -> None:
    peer.problem = "refused"
    elapsed = [0.0]
    with mock.patch.object(time, "monotonic", lambda: elapsed[0]):
        outbox = _outbox(ledger, peer, resend_for_h=1.0)
        outbox.enlist()
        outbox.send_due()
        elapsed[0] += 3700
        assert outbox.send_due() == (0, 2)
    assert outbox.counts() == {"failed": 2}


def _later(ledger: Ledger) -> None:
    """Let the next try be due."""
    with ledger.connection() as database:
        database.execute("UPDATE node_sends SET next_try = 0")
