"""The node killed while it receives: what was acknowledged is there, once."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.services.node.peers import free_port, process, query, received, state, store, until

Maker = Callable[..., Any]


@pytest.mark.slow
def test_ten_kills_while_receiving(tmp_path: Path, study: Maker) -> None:
    """Senders repeat what was not acknowledged, as real ones do."""
    output, port = tmp_path / "out", free_port()
    chance = random.Random(7)
    studies = [study(str(n), shape=(40, 16, 16)).datasets for n in range(3)]
    everything = {str(d.SOPInstanceUID): d for datasets in studies for d in datasets}
    acknowledged: set[str] = set()
    killing = threading.Event()

    def send(datasets: list[Any]) -> None:
        while not killing.is_set() or not acknowledged >= {str(d.SOPInstanceUID) for d in datasets}:
            left = [d for d in datasets if str(d.SOPInstanceUID) not in acknowledged] or datasets
            for dataset, status in zip(left, store(port, left), strict=True):
                if status == 0:
                    acknowledged.add(str(dataset.SOPInstanceUID))

    senders = [threading.Thread(target=send, args=(one,), daemon=True) for one in studies]
    child, _ = process(output, port)
    for sender in senders:
        sender.start()
    for _ in range(10):
        time.sleep(chance.uniform(0.05, 1.0))
        sure = set(acknowledged)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert sure <= set(received(output))
        child, _ = process(output, port)
    killing.set()
    try:
        for sender in senders:
            sender.join(60)
        uids = [str(datasets[0].StudyInstanceUID) for datasets in studies]
        until(lambda: {state(output, uid) for uid in uids} == {"finished"}, "the analyses", 90)
    finally:
        child.kill()
        child.wait()
    assert received(output) == sorted(everything)
    for path in (output / "incoming").glob("[0-9]*/*"):
        assert pydicom.dcmread(path).PixelData == everything[path.stem].PixelData
    assert len(query(output, "SELECT name FROM studies")) == 3
