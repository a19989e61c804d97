"""What the listening side takes, and what it refuses."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pydicom
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pynetdicom import AE

from leakloc.core.errors import SettingsError
from leakloc.core.settings import NodeSettings
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.receiver import (
    CANNOT_UNDERSTAND,
    DUPLICATE,
    OUT_OF_RESOURCES,
    TRANSFER_SYNTAXES,
    Listen,
    Receiver,
    _Budget,
    _Connections,
    _Meter,
    printable,
)
from leakloc.services.node.sender import Peer, echo
from leakloc.services.node.spool import Spool
from tests.services.node.peers import received, store, until

Maker = Callable[..., Any]
Start = Callable[..., Receiver]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Receiver] = []

    def start(allow: tuple[str, ...] = (), **values: Any) -> Receiver:
        settings = NodeSettings(**{"min_free_mib": 0, "network_timeout_s": 5, **values})
        spool = Spool(tmp_path / "out", settings)
        receiver = Receiver(
            Listen("LEAKLOC", 0, allow=allow), spool, Arrivals(settings.settle_s), settings
        )
        receiver.start()
        started.append(receiver)
        return receiver

    yield start
    for receiver in started:
        receiver.stop()


def test_only_listed_senders_that_know_our_name(start: Start, study: Maker, tmp_path: Path) -> None:
    receiver = start(allow=("SENDER", "OTHER"))
    dataset = study().datasets[0]
    assert store(receiver.port, [dataset], calling="STRANGER") == [None]
    assert store(receiver.port, [dataset], called="WRONG") == [None]
    assert received(tmp_path / "out") == []
    assert store(receiver.port, [dataset]) == [0]
    peer = Peer("LEAKLOC", "127.0.0.1", receiver.port)
    assert echo(peer, "OTHER", NodeSettings())
    assert not echo(peer, "STRANGER", NodeSettings())


def test_other_kinds_of_objects_are_not_taken(start: Start, study: Maker, tmp_path: Path) -> None:
    ct, mr = study().datasets[:2]
    ct.SOPClassUID = ct.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    receiver = start()
    assert store(receiver.port, [ct, mr]) == [None, 0]
    assert received(tmp_path / "out") == [mr.SOPInstanceUID]
    with pytest.raises(SettingsError, match="also_accept"):
        start(also_accept=("../x",))


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_encoding_that_is_read_is_taken(start: Start, syntax: str) -> None:
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.4", syntax)
    association = entity.associate("127.0.0.1", start().port, ae_title="LEAKLOC")
    accepted = [context.transfer_syntax[0] for context in association.accepted_contexts]
    association.release()
    assert accepted == [syntax]


def test_announced_uids_and_damage_are_checked(
    start: Start, study: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = start()
    evil, cut, good = study().datasets[:3]
    with pydicom.config.disable_value_validation():
        evil.StudyInstanceUID = "../../../tmp/evil"
        cut.PixelData = cut.PixelData[:-100]
        cut["PixelData"].value = cut.PixelData
        log = logging.getLogger("leakloc.node")
        log.addHandler(caplog.handler)
        try:
            assert store(receiver.port, [evil, good]) == [CANNOT_UNDERSTAND, 0]
        finally:
            log.removeHandler(caplog.handler)
    assert received(tmp_path / "out") == [good.SOPInstanceUID]
    said = [r.getMessage() for r in caplog.records if r.name == "leakloc.node"]
    assert said and all("C000" in line for line in said)
    assert not any("Doe" in line or "evil" in line for line in said)


def test_full_disk_and_bounds_answer_a700(
    start: Start, study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = study().datasets
    receiver = start(max_study_instances=3)
    assert store(receiver.port, datasets[:4]) == [0, 0, 0, OUT_OF_RESOURCES]
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    other = study("other").datasets
    assert store(receiver.port, other[:1]) == [OUT_OF_RESOURCES]
    monkeypatch.undo()
    assert store(receiver.port, other[:1]) == [0]


def test_too_large_an_object_ends_the_association(
    start: Start, study: Maker, tmp_path: Path
) -> None:
    receiver = start(max_instance_mib=1)
    large = study("large", shape=(3, 1024, 1024)).datasets[0]
    assert store(receiver.port, [large]) == [None]
    assert received(tmp_path / "out") == []
    assert store(receiver.port, study().datasets) == [0] * 6


def test_a_claimed_length_reserves_nothing(start: Start) -> None:
    receiver = start()
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 4_000_000_000))
        peer.sendall(bytes(1000))
        assert _ends(peer)


def _ends(peer: socket.socket) -> bool:
    """Whether the other side closes the connection."""
    try:
        while peer.recv(1000):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_silent_and_noisy_peers_block_no_other(start: Start, study: Maker) -> None:
    receiver = start(network_timeout_s=2)
    silent = [socket.create_connection(("127.0.0.1", receiver.port), timeout=10) for _ in range(5)]
    noisy = socket.create_connection(("127.0.0.1", receiver.port), timeout=10)
    noisy.sendall(os.urandom(5000))
    assert store(receiver.port, study().datasets) == [0] * 6
    assert all(map(_ends, [*silent, noisy]))
    for peer in [*silent, noisy]:
        peer.close()


def _request(calling: bytes = b"SENDER") -> bytes:
    """An association request for MR images."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = item(0x30, b"1.2.840.10008.5.1.4.1.1.4") + item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")
    body = struct.pack(">HH", 1, 0) + b"LEAKLOC".ljust(16) + calling.ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\x01\0\0\0" + context)
    body += item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(body)) + body


def _connected(peers: ExitStack, receiver: Receiver, number: int) -> list[socket.socket]:
    address = ("127.0.0.1", receiver.port)
    return [
        peers.enter_context(socket.create_connection(address, timeout=10)) for _ in range(number)
    ]


@pytest.mark.parametrize("sent", [0, 1, 5, 6, 74, 150])
def test_connections_without_an_association_block_no_other(
    start: Start, study: Maker, sent: int
) -> None:
    receiver = start(allow=("SENDER",), max_associations=4, network_timeout_s=30)
    with ExitStack() as peers:
        for peer in _connected(peers, receiver, 20):
            with suppress(OSError):  # the oldest are closed
                peer.sendall(_request()[:sent])
        assert store(receiver.port, study().datasets) == [0] * 6


def test_threads_of_closed_connections_end(start: Start) -> None:
    receiver = start(network_timeout_s=60)
    before = threading.active_count()
    with ExitStack() as peers:
        _connected(peers, receiver, 10)
        until(lambda: threading.active_count() > before, "the connections", 5)
    until(lambda: threading.active_count() <= before, "the end of the threads", 5)


def test_an_association_that_ends_unexpectedly_leaves_its_place(
    study: Maker, tmp_path: Path
) -> None:
    settings = NodeSettings(min_free_mib=0, settle_s=0.1, max_associations=1)
    arrivals = Arrivals(settings.settle_s)
    receiver = Receiver(Listen("LEAKLOC", 0), Spool(tmp_path / "out", settings), arrivals, settings)
    receiver.start()
    try:
        dataset = study().datasets[0]
        entity = AE(ae_title="SENDER")
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", receiver.port, ae_title="LEAKLOC")
        association.send_c_store(dataset)
        (own,) = receiver._server.active_associations
        own.dul.kill_dul()  # as after an error in pynetdicom, which reports no closed connection
        assert until(arrivals.settled, "settling", 5) == (dataset.StudyInstanceUID,)
        assert until(lambda: store(receiver.port, [dataset]) == [0], "a free place", 5)
    finally:
        receiver.stop()


def test_a_request_has_a_maximum_duration(start: Start) -> None:
    receiver = start(network_timeout_s=1)
    with ExitStack() as peers:
        (peer,) = _connected(peers, receiver, 1)
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in _request():
                peer.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("size", [60_000, 20])
def test_objects_have_a_minimum_rate(start: Start, study: Maker, size: int) -> None:
    """Slow by bytes of one PDU, or by small PDUs."""
    receiver = start(network_timeout_s=1, max_associations=1)
    with ExitStack() as peers:
        (peer,) = _connected(peers, receiver, 1)
        peer.sendall(_request())
        assert peer.recv(1) == b"\x02"
        pdu = struct.pack(">BBL", 4, 0, size) + struct.pack(">L", size - 4) + b"\x01\0"
        pdu += bytes(size - 6)
        assert store(receiver.port, study().datasets[:1]) == [None]
        began = time.monotonic()
        with pytest.raises(OSError):
            for number in range(100):
                peer.sendall(pdu[number : number + 1] if size > 100 else pdu)
                time.sleep(0.1)
        assert time.monotonic() - began < 4
        assert until(lambda: store(receiver.port, study().datasets[:1]) == [0], "a free place", 5)


def test_one_address_cannot_have_all_places() -> None:
    connections = _Connections(8)
    ours, theirs = ([_meter(address) for _ in range(20)] for address in ("10.0.0.1", "10.0.0.2"))
    assert [connections.established(one) for one in theirs].count(True) == 6
    assert [connections.established(one) for one in ours].count(True) == 2
    connections.closed(theirs[0])
    assert connections.established(ours[5])


def test_pending_connections_of_the_busiest_address_are_closed_first() -> None:
    connections = _Connections(2)
    quiet, *loud = [_meter(address) for address in ("10.0.0.1", *["10.0.0.2"] * 50)]
    connections.opened(quiet)
    for one in loud:
        connections.opened(one)
    assert _is_open(quiet) and [_is_open(one) for one in loud] == [False] * 47 + [True] * 3


def _meter(address: str) -> _Meter:
    connection, other = socket.socketpair()
    meter = _Meter(connection, address, NodeSettings(), _Budget(1, 1))
    _OTHER_ENDS[meter] = other
    return meter


_OTHER_ENDS: WeakKeyDictionary[_Meter, socket.socket] = WeakKeyDictionary()


def _is_open(meter: _Meter) -> bool:
    try:
        _OTHER_ENDS[meter].sendall(b"?")
    except OSError:
        return False
    return True


def test_bytes_in_memory_are_limited_by_address() -> None:
    budget = _Budget(100, 10)
    assert budget.take("a", 75) and not budget.take("a", 1)
    assert budget.take("b", 25) and not budget.take("b", 1)
    budget.give_back("a", 75)
    assert budget.take("b", 50)
    assert _Budget(100, 100).take("a", 100)  # one object of the maximum size


def test_status_of_refused_objects(
    start: Start, study: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = start()
    dataset, large = study().datasets[:2]
    assert store(receiver.port, [dataset, dataset]) == [0, 0]
    dataset.PatientID = "OTHER"
    large.Rows = large.Columns = 65535
    log = logging.getLogger("leakloc.node")
    log.addHandler(caplog.handler)
    try:
        assert store(receiver.port, [dataset, large]) == [DUPLICATE, OUT_OF_RESOURCES]
    finally:
        log.removeHandler(caplog.handler)
    assert received(tmp_path / "out") == [dataset.SOPInstanceUID]
    lines = [
        record.getMessage()
        for record in dict.fromkeys(caplog.records)  # two handlers
        if record.name == "leakloc.node"
    ]
    assert len(lines) == 2 and "0111" in lines[0] and "max_decoded_mib" in lines[1]
    assert not any("OTHER" in line for line in lines)


@given(st.data())
@hypothesis_settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_stalled_peers_block_no_other(start: Start, study: Maker, data: st.DataObject) -> None:
    """Peers that stop anywhere in a request or in the object that follows it."""
    receiver = start(max_associations=4, network_timeout_s=1)
    text = _request() + struct.pack(">BBL", 4, 0, 200) + bytes(200)
    stops = data.draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=20))
    dataset = study().datasets[:1]
    with ExitStack() as peers:
        for peer, stop in zip(_connected(peers, receiver, len(stops)), stops, strict=True):
            with suppress(OSError):
                peer.sendall(text[:stop])
        # Associations occupy places until the timeout; connections without one never do.
        until(lambda: store(receiver.port, dataset) == [0], "a free place", 6)


def test_more_senders_than_allowed_are_reported(start: Start, study: Maker) -> None:
    receiver = start(max_associations=1)
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    first = entity.associate("127.0.0.1", receiver.port, ae_title="LEAKLOC")
    assert first.is_established
    assert store(receiver.port, study().datasets[:1]) == [None]
    first.release()
    time.sleep(0.5)
    assert store(receiver.port, study().datasets[:1]) == [0]


def test_settles_only_after_the_sender_left(study: Maker, tmp_path: Path) -> None:
    settings = NodeSettings(min_free_mib=0, settle_s=0.3)
    arrivals = Arrivals(settings.settle_s)
    receiver = Receiver(Listen("LEAKLOC", 0), Spool(tmp_path / "out", settings), arrivals, settings)
    receiver.start()
    try:
        dataset = study().datasets[0]
        entity = AE(ae_title="SENDER")
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", receiver.port, ae_title="LEAKLOC")
        association.send_c_store(dataset)
        time.sleep(0.8)
        assert arrivals.settled() == ()
        association.abort()  # however it goes
        assert until(arrivals.settled, "settling", 5) == (dataset.StudyInstanceUID,)
    finally:
        receiver.stop()


def test_tls_asks_for_a_certificate(start: Start, tmp_path: Path, study: Maker) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    files = {"tls_certificate": str(certificate), "tls_key": str(key)}
    receiver = start(**files, tls_authorities=str(certificate))
    # A peer without a handshake does not block others.
    with socket.create_connection(("127.0.0.1", receiver.port)):
        peer = Peer("LEAKLOC", "localhost", receiver.port)
        known = NodeSettings(**files, tls_authorities=str(certificate), tls_return=True)
        assert echo(peer, "SENDER", known)
    anonymous = ssl.create_default_context(cafile=str(certificate))
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate(
        "localhost", receiver.port, ae_title="LEAKLOC", tls_args=(anonymous, "localhost")
    )
    assert not association.is_established
    assert store(receiver.port, study().datasets[:1]) == [None]  # and no plain talk
    with pytest.raises(SettingsError, match="cannot read the certificate"):
        start(tls_certificate=str(tmp_path / "none.pem"))


def test_listening_to_all_needs_a_list_of_senders() -> None:
    with pytest.raises(SettingsError, match="--allow"):
        Listen(bind="0.0.0.0")
    with pytest.raises(SettingsError, match="AE title"):
        Listen(title="MUCH TOO LONG A TITLE")
    assert Listen(bind="0.0.0.0", allow=("PACS",)).allow == ("PACS",)


def test_words_of_peers_cannot_forge_the_log() -> None:
    assert printable("A\nERROR x\x1b[2J" + "y" * 99) == "A?ERROR x?[2Jyyy"
