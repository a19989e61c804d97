"""A node on this machine, and peers to talk with it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt

from leakloc.core.settings import Settings
from leakloc.services.batch.engine import WorkOptions
from leakloc.services.node.node import Node
from leakloc.services.node.receiver import Listen

ROOT = Path(__file__).parents[3]
MR = "1.2.840.10008.5.1.4.1.1.4"
FAKE = "tests.services.node.fakes:analyze"
WAIT_S = 40.0


def until(condition: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait for something to come true."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {wait_s:g} s")


@contextmanager
def running(output: Path, settings: Settings, **options: Any) -> Iterator[Running]:
    """A node in a thread of this process."""
    node = Running(output, settings, **options)
    node.start()
    try:
        yield node
    finally:
        node.stop()


class Running:
    """A node in a thread, and the content of its output folder."""

    def __init__(
        self,
        output: Path,
        settings: Settings,
        *,
        analyze: str = FAKE,
        allow: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.output, self._port = output, threading.Event()
        self.port = 0
        options.setdefault("listen", Listen("LEAKLOC", 0, allow=tuple(allow)))
        self.node = Node(
            output,
            settings,
            options=WorkOptions(workers=1, retries=0, analyze=analyze, min_free_mib=0),
            ready=self._ready,
            **options,
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self.node.listen is not None:
            until(lambda: self._port.is_set() or self._error, "listening")
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self.node.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.node.run()
        except BaseException as error:
            self._error = error

    def _ready(self, port: int) -> None:
        self.port = port
        self._port.set()

    def files(self) -> list[str]:
        return received(self.output)

    def state(self, study_uid: str) -> str | None:
        return state(self.output, study_uid)

    def report(self, study_uid: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / study_uid / "report.json").read_text())
        return found


def received(output: Path) -> list[str]:
    """Names of the files in the spool, study by study."""
    return sorted(path.stem for path in (output / "incoming").glob("[0-9]*/*"))


def query(output: Path, sql: str) -> list[tuple[Any, ...]]:
    """Content of the ledger."""
    database = sqlite3.connect(output / "ledger.sqlite", timeout=10)
    try:
        return database.execute(sql).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return []
    finally:
        database.close()


def state(output: Path, study_uid: str) -> str | None:
    rows = query(output, f"SELECT state FROM studies WHERE name = '{study_uid}'")
    return rows[0][0] if rows else None


def store(
    port: int, datasets: Sequence[Any], *, calling: str = "SENDER", called: str = "LEAKLOC"
) -> list[int | None]:
    """Send datasets over one association; gives the statuses, None where none came."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for kind in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
        entity.add_requested_context(*kind)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    statuses: list[int | None] = []
    for dataset in datasets:
        if not association.is_established:
            statuses.append(None)
            continue
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except ValueError:  # no presentation context was accepted
            statuses.append(None)
    if association.is_established:
        association.release()
    return statuses


class Archive:
    """A peer that accepts results, with a configured response."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[str] = []
        self.status = 0
        entity = AE(ae_title="ARCHIVE")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.1.7")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.1.66.4")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.1.88.33")
        entity.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")
        self._server: Any = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._stored)]
        )
        self.port = int(self._server.server_address[1])

    def _stored(self, event: Any) -> int:
        if self.status == 0:
            self.got.append(str(event.request.AffectedSOPInstanceUID))
        return self.status

    def stop(self) -> None:
        self._server.shutdown()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


RUN = """
import sys
from pathlib import Path
from leakloc.services.batch.engine import WorkOptions
from leakloc.services.node.node import Node
from leakloc.services.node.receiver import Listen
from leakloc.core.settings import Settings
output, port, settle = sys.argv[1:4]
settings = Settings().changed(
    node__settle_s=float(settle), node__min_free_mib=0, node__resend_s=0.3
)
Node(
    Path(output), settings, Listen("LEAKLOC", int(port)),
    options=WorkOptions(
        workers=1, retries=0, analyze="tests.services.node.fakes:analyze", min_free_mib=0
    ),
    ready=lambda port: print(port, flush=True),
).run()
"""


def process(output: Path, port: int = 0, settle_s: float = 0.5) -> tuple[Any, int]:
    """A node in a process of its own, which can be killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, str(output), str(port), str(settle_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the node did not start"
    return child, int(line)
