"""What the listening side takes, and what it refuses."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE

from leakloc.core.errors import SettingsError
from leakloc.core.settings import NodeSettings
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.receiver import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    TRANSFER_SYNTAXES,
    Listen,
    Receiver,
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
