"""Polling a DICOMweb server: what is asked, what is fetched, what is made of nonsense."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from leakloc.core.errors import AnalysisError
from leakloc.core.settings import NodeSettings
from leakloc.services.batch.ledger import Ledger
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.dicomweb import PASSWORD, USER, Poller, Server, may_be_spine
from leakloc.services.node.sender import Parcel
from leakloc.services.node.spool import Spool
from tests.services.node.peers import received

pytest.importorskip("dicomweb_client")
Maker = Callable[..., Any]


class Client:
    """Answers like dicomweb-client, from series in memory."""

    def __init__(self, *series: Any) -> None:
        self.series = list(series)
        self.lost = 0
        self.asked: list[dict[str, Any]] = []

    def search_for_studies(self, limit: int, offset: int, **asked: Any) -> list[Any]:
        self.asked.append(asked)
        uids = list(dict.fromkeys(s.datasets[0].StudyInstanceUID for s in self.series))
        return [{"0020000D": {"Value": [uid]}} for uid in uids[offset : offset + limit]]

    def search_for_series(self, study_uid: str, **_: Any) -> list[Any]:
        return [
            {
                "0020000E": {"Value": [s.datasets[0].SeriesInstanceUID]},
                "00080060": {"Value": [s.datasets[0].Modality]},
                "0008103E": {"Value": [s.datasets[0].get("SeriesDescription")]},
                "00201209": {"Value": [len(s.datasets)]},
            }
            for s in self.series
            if s.datasets[0].StudyInstanceUID == study_uid
        ]

    def iter_series(self, _study: str, series_uid: str, _types: Any) -> Iterator[Any]:
        (one,) = [s for s in self.series if s.datasets[0].SeriesInstanceUID == series_uid]
        for dataset in one.datasets[self.lost :]:
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            yield dataset


@pytest.fixture
def poller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(client: Client, **values: Any) -> tuple[Poller, Arrivals, list[float]]:
        settings = NodeSettings(**{"min_free_mib": 0, "settle_s": 60, **values})
        server = Server("http://localhost:1", settings)
        monkeypatch.setattr(server, "client", lambda: client)
        now = [1000.0]
        arrivals = Arrivals(settings.settle_s, lambda: now[0])
        ledger = Ledger(tmp_path / "out")
        spool = Spool(tmp_path / "out", settings)
        return Poller(server, ledger, spool, arrivals, settings, lambda: now[0]), arrivals, now

    return make


def test_fetches_what_settled_once(poller: Any, study: Maker, tmp_path: Path) -> None:
    client = Client(study("a", SeriesDescription="T2 LWS"), study("b", SeriesDescription="Knie"))
    uid = str(client.series[0].datasets[0].StudyInstanceUID)
    poll, arrivals, now = poller(client)
    stop = threading.Event()
    assert poll.poll(stop) == 0  # it may still grow
    now[0] += 61
    assert poll.poll(stop) == 1
    assert arrivals.settled() == (uid,)  # and is known to be whole: no second wait
    assert received(tmp_path / "out") == sorted(d.SOPInstanceUID for d in client.series[0].datasets)
    now[0] += 1000
    assert poll.poll(stop) == 0
    assert client.asked[0]["search_filters"]["ModalitiesInStudy"] == "MR"


def test_a_partial_study_is_not_analyzed(poller: Any, study: Maker) -> None:
    client = Client(study())
    uid = str(client.series[0].datasets[0].StudyInstanceUID)
    poll, arrivals, now = poller(client)
    client.lost = 2
    poll.poll(threading.Event())
    now[0] += 61
    with pytest.raises(AnalysisError, match="4 of 6 images"):
        poll.poll(threading.Event())
    now[0] += 1000
    assert arrivals.settled() == () and poll.is_partial(uid)
    client.lost = 0
    assert poll.poll(threading.Event()) == 1
    assert arrivals.settled() == (uid,) and not poll.is_partial(uid)


def test_long_lists_are_read_page_by_page(poller: Any, study: Maker) -> None:
    client = Client(*(study(str(n), shape=(1, 4, 4)) for n in range(5)))
    real = client.search_for_studies
    # A server that ignores the offset repeats itself, and must not hold us for ever.
    client.search_for_studies = lambda limit, offset, **asked: real(200, 0, **asked)  # type: ignore[method-assign]
    poll, _, now = poller(client, settle_s=0.1)
    poll.poll(threading.Event())
    now[0] += 1
    assert poll.poll(threading.Event()) == 5


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["MRT LWS nativ"], True),
        (["", "Rachis lombaire"], True),
        (["Knee", "T1 cor"], False),
        (["3D Myelo"], True),
        ([], True),
    ],
)
def test_which_studies_may_be_of_the_spine(texts: list[str], wanted: bool) -> None:
    assert may_be_spine(texts) is wanted


class _Nonsense(BaseHTTPRequestHandler):
    answer: tuple[int, str, bytes] = (200, "text/html", b"<p>Hello</p>")
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        type(self).seen.append(self.headers.get("Authorization", ""))
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<p>Doe^Jane</p>"),
        (200, "application/dicom+json", b"{not json"),
        (200, "application/dicom+json", b"[1, 2]"),
        (200, "application/dicom+json", b'[{"0020000D": 7}]'),
        (401, "text/plain", b"no Doe^Jane for you"),
        (500, "text/plain", b""),
        (404, "text/plain", b""),
    ],
)
def test_nonsense_is_one_kind_of_error(
    web: str, answer: tuple[int, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Nonsense, "answer", answer)
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")
    monkeypatch.setattr(_Nonsense, "seen", [])
    with pytest.raises(AnalysisError) as caught:
        Server(web, NodeSettings(network_timeout_s=5)).recent()
    assert "Doe" not in str(caught.value) and "secret" not in str(caught.value)
    assert _Nonsense.seen[0] == "Basic " + base64.b64encode(b"me:secret").decode()


def test_no_server_is_an_answer_for_each_object(tmp_path: Path, study: Maker) -> None:
    made = study()
    parcels = [Parcel(path, "1.2", "1.2") for path in [*made.paths[:1], tmp_path / "gone"]]
    found = [problem for _, problem in Server("http://127.0.0.1:9", NodeSettings()).send(parcels)]
    assert found[0] is not None and "storing an object failed" in found[0]
    assert found[1] is not None and "could not be sent" in found[1]
