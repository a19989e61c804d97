"""The node as a whole, with an analyzer that takes no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from leakloc.core.errors import OutputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.services.node.receiver import Listen
from leakloc.services.node.sender import Peer
from tests.services.node.peers import Archive, free_port, query, running, store, until

Maker = Callable[..., Any]


def _peer(archive: Archive) -> Peer:
    return Peer("ARCHIVE", "127.0.0.1", archive.port)


def test_receives_settles_analyzes_and_returns(
    tmp_path: Path, quick: Settings, study: Maker, archive: Archive
) -> None:
    datasets = study().datasets
    uid = datasets[0].StudyInstanceUID
    with running(tmp_path / "out", quick, return_to=_peer(archive)) as node:
        assert store(node.port, datasets) == [0] * 6
        until(lambda: len(archive.got) == 2, "returning the results")
        assert node.state(uid) == "finished"
        assert node.report(uid)["n_files"] == 6
        until(lambda: query(node.output, "SELECT 1 FROM node_sends WHERE state='sent'"), "noting")
    # Started again, nothing is analyzed or sent a second time.
    with running(tmp_path / "out", quick, return_to=_peer(archive)) as node:
        time.sleep(2.5)
        assert query(node.output, "SELECT attempts FROM studies") == [(1,)]
    assert len(set(archive.got)) == len(archive.got) == 2


def test_late_images_are_analyzed_too(tmp_path: Path, quick: Settings, study: Maker) -> None:
    datasets = study().datasets
    uid = datasets[0].StudyInstanceUID
    with running(tmp_path / "out", quick) as node:
        store(node.port, datasets[:4])
        until(lambda: node.state(uid) == "finished", "the first analysis")
        store(node.port, datasets[4:])
        until(lambda: node.report(uid)["n_files"] == 6, "the second analysis")
        # What was there before changes nothing.
        store(node.port, datasets)
        time.sleep(1.5)
        assert query(node.output, "SELECT attempts FROM studies") == [(1,)]


def test_crash_and_hang_never_stop_receiving(tmp_path: Path, quick: Settings, study: Maker) -> None:
    first, second = study("a").datasets, study("b").datasets
    with running(tmp_path / "out", quick, analyze="tests.services.node.fakes:crash") as node:
        store(node.port, first)
        until(lambda: node.state(first[0].StudyInstanceUID) == "failed", "the crash")
        assert store(node.port, second) == [0] * 6
    with running(tmp_path / "out", quick, analyze="tests.services.node.fakes:hang") as node:
        until(lambda: node.state(second[0].StudyInstanceUID) == "running", "the hang")
        assert store(node.port, study("c").datasets) == [0] * 6
        start = time.monotonic()
    assert time.monotonic() - start < 15  # it stops although an analysis hangs


def test_results_wait_for_a_peer_that_is_down(
    tmp_path: Path, quick: Settings, study: Maker
) -> None:
    port = free_port()
    datasets = study().datasets
    with running(tmp_path / "out", quick, return_to=Peer("ARCHIVE", "127.0.0.1", port)) as node:
        store(node.port, datasets)
        until(lambda: query(node.output, "SELECT 1 FROM node_sends WHERE tries>1"), "two tries")
    archive = Archive(port)
    try:
        with running(tmp_path / "out", quick, return_to=Peer("ARCHIVE", "127.0.0.1", port)):
            until(lambda: len(archive.got) == 2, "returning the results after a restart")
    finally:
        archive.stop()


def test_a_refused_result_is_abandoned_in_time(
    tmp_path: Path, quick: Settings, study: Maker, archive: Archive
) -> None:
    archive.status = 0xA700
    settings = quick.changed(node__resend_for_h=0.0)
    with running(tmp_path / "out", settings, return_to=_peer(archive)) as node:
        store(node.port, study().datasets)
        until(lambda: query(node.output, "SELECT 1 FROM node_sends WHERE state='failed'"), "end")
        found = query(node.output, "SELECT error FROM node_sends WHERE state = 'failed'")
    assert found[0] == ("the peer refused it (A700)",)


def test_eight_senders_at_once(tmp_path: Path, quick: Settings, study: Maker) -> None:
    studies = [study(str(n)).datasets for n in range(8)]
    refused: list[Any] = []

    def send(datasets: Sequence[Any], port: int) -> None:
        """Send again what was not acknowledged (timeout of a busy machine), as senders do."""
        left = list(datasets)
        for _ in range(3):
            statuses = store(port, left)
            refused.extend(status for status in statuses if status)
            left = [d for d, status in zip(left, statuses, strict=True) if status is None]
            if not left:
                return
        refused.append(None)

    with running(tmp_path / "out", quick) as node:
        senders = [threading.Thread(target=send, args=(d, node.port)) for d in studies]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert refused == []
        assert node.files() == sorted(d.SOPInstanceUID for s in studies for d in s)
        uids = [s[0].StudyInstanceUID for s in studies]
        until(lambda: {node.state(uid) for uid in uids} == {"finished"}, "eight analyses")
        assert [node.report(uid)["n_files"] for uid in uids] == [6] * 8


def test_two_nodes_on_one_folder_are_reported(tmp_path: Path, quick: Settings) -> None:
    with (
        running(tmp_path / "out", quick),
        pytest.raises(OutputError, match="another process uses"),
        running(tmp_path / "out", quick),
    ):
        pass


def test_a_port_in_use_is_reported(tmp_path: Path, quick: Settings) -> None:
    with (
        running(tmp_path / "a", quick) as node,
        pytest.raises(SettingsError, match="cannot listen"),
        running(tmp_path / "b", quick, listen=Listen("LEAKLOC", node.port)),
    ):
        pass
