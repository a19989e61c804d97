"""Polling a DICOMweb server: what is asked, what is fetched, what is made of nonsense."""

from __future__ import annotations

import base64
import gzip
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import pytest

from leakloc.core.errors import AnalysisError, InputError
from leakloc.core.settings import LoaderSettings, NodeSettings
from leakloc.services.batch.ledger import Ledger
from leakloc.services.node.arrivals import Arrivals
from leakloc.services.node.dicomweb import PASSWORD, USER, Poller, Remote, Server, may_be_spine
from leakloc.services.node.sender import Parcel
from leakloc.services.node.spool import Spool
from tests.services.node.peers import received
from tests.services.node.test_spool import bomb

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


def test_a_bad_study_does_not_block_others(
    poller: Any, study: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(*(study(str(number)) for number in range(4)))
    uids = [str(series.datasets[0].StudyInstanceUID) for series in client.series]
    real_series, real_images = client.search_for_series, client.iter_series
    retrieved: list[str] = []

    def search(study_uid: str, **options: Any) -> list[Any]:
        if study_uid == uids[1]:
            raise ValueError("Doe^Jane")
        return real_series(study_uid, **options)

    def images(study_uid: str, *options: Any) -> Iterator[Any]:
        retrieved.append(study_uid)
        found = list(real_images(study_uid, *options))
        yield from found[1:] if study_uid == uids[0] else found

    client.search_for_series = search  # type: ignore[method-assign]
    client.iter_series = images  # type: ignore[method-assign]
    poll, arrivals, now = poller(client, resend_s=100, settle_s=10)
    assert poll.poll(threading.Event()) == 0
    for _ in range(100):  # in 1000 s: after 100, 300 and 700 s
        now[0] += 10.001
        with suppress(AnalysisError):
            poll.poll(threading.Event())
    assert set(arrivals.settled()) == set(uids[2:])
    assert [retrieved.count(uid) for uid in uids] == [4, 0, 1, 1]
    assert list(poll.not_fetched()) == uids[:1]
    assert "5 of 6 images" in poll.not_fetched()[uids[0]]
    client.iter_series = real_images  # type: ignore[method-assign]
    now[0] += 3600
    assert poll.poll(threading.Event()) == 1
    assert poll.not_fetched() == {}


@pytest.mark.parametrize("stated", [6, 0])
def test_a_series_has_an_end(poller: Any, study: Maker, stated: int) -> None:
    client = Client(study())
    listed, (dataset, *_) = client.search_for_series, client.series[0].datasets
    client.search_for_series = lambda uid, **_: [  # type: ignore[method-assign]
        one | {"00201209": {"Value": [stated]}} for one in listed(uid)
    ]
    client.iter_series = lambda *_: repeat(dataset)  # type: ignore[method-assign]
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    poll, _, now = poller(client, max_study_instances=8)
    poll.poll(threading.Event())
    now[0] += 61
    with pytest.raises(AnalysisError, match=f"more than the {stated or 8} images"):
        poll.poll(threading.Event())


def test_long_lists_are_read_page_by_page(poller: Any, study: Maker) -> None:
    client = Client(*(study(str(n), shape=(1, 4, 4)) for n in range(5)))
    real = client.search_for_studies
    # A server that ignores the offset repeats itself, and must not hold us for ever.
    client.search_for_studies = lambda limit, offset, **asked: real(200, 0, **asked)  # type: ignore[method-assign]
    poll, _, now = poller(client, settle_s=0.1)
    poll.poll(threading.Event())
    now[0] += 1
    assert poll.poll(threading.Event()) == 5


def test_long_lists_do_not_fill_the_memory(poller: Any) -> None:
    def listed(limit: int, offset: int, **_: Any) -> list[Any]:
        uids = range(offset + 1, offset + 1 + limit) if offset < 4000 else []
        text = {"Value": ["x" * 50_000]}
        return [{"0020000D": {"Value": [f"1.{n}"]}, "00081030": text} for n in uids]

    client = Client()
    client.search_for_studies = listed  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    poller(client)[0].poll(threading.Event())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000  # all entries have 200 MB


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


class _Hostile(BaseHTTPRequestHandler):
    """Responses that do not end; JSON for queries and objects for retrievals."""

    headers_s = 0.0
    head: bytes = b""
    body: bytes = b" "
    pause_s = 0.0
    encoding = "identity"
    content_type = "application/dicom+json"

    def do_GET(self) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n":
                self.wfile.write(bytes([byte]))
                time.sleep(self.headers_s)
            self.send_header("Content-Type", self.content_type)
            self.send_header("Content-Encoding", self.encoding)
            self.end_headers()
            self.wfile.write(self.head)
            for _ in range(int(1e6)):
                self.wfile.write(self.body)
                time.sleep(self.pause_s)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def set_up(**values: Any) -> str:
        for name, value in values.items():
            monkeypatch.setattr(_Hostile, name, value)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield set_up
    server.shutdown()
    server.server_close()


_OBJECTS = 'multipart/related; type="application/dicom"; boundary=b'
_ENDLESS = [
    {"body": b" " * 2**20},
    {"body": gzip.compress(bytes(2**26)), "encoding": "gzip"},
    {"body": b" ", "pause_s": 0.05},
    {"headers_s": 0.3},
]


@pytest.mark.parametrize("kind", ["application/dicom+json", "application/dicom", _OBJECTS])
@pytest.mark.parametrize("answer", _ENDLESS)
def test_endless_responses_are_limited(hostile: Any, kind: str, answer: dict[str, Any]) -> None:
    url = hostile(content_type=kind, **answer)
    server = Server(url, NodeSettings(network_timeout_s=1, max_instance_mib=1))
    began = time.monotonic()
    with pytest.raises(AnalysisError, match=r"exceeds|slower|ConnectionError"):
        if kind == "application/dicom+json":
            server.recent()
        else:
            list(server.images(Remote("1.2", {"1.3": 1}, ())))
    assert time.monotonic() - began < 8


def _part(content: bytes) -> bytes:
    return b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + content


@pytest.mark.parametrize("kind", ["application/dicom", _OBJECTS])
def test_decoded_size_of_retrieved_objects_is_limited(
    web: str, kind: str, monkeypatch: Any
) -> None:
    content = bomb(3)
    body = content if kind == "application/dicom" else _part(content) + b"\r\n--b--"
    monkeypatch.setattr(_Nonsense, "answer", (200, kind, body))
    study = Remote("1.2", {"1.3": 1}, ())
    limited = Server(web, NodeSettings(), LoaderSettings(max_decoded_mib=2))
    with pytest.raises(InputError, match="max_decoded_mib"):
        list(limited.images(study))
    ((_, uid),) = Server(web, NodeSettings()).images(study)
    assert uid == "1.2.3"


def test_no_server_is_an_answer_for_each_object(tmp_path: Path, study: Maker) -> None:
    made = study()
    parcels = [Parcel(path, "1.2", "1.2") for path in [*made.paths[:1], tmp_path / "gone"]]
    found = [problem for _, problem in Server("http://127.0.0.1:9", NodeSettings()).send(parcels)]
    assert found[0] is not None and "storing an object failed" in found[0]
    assert found[1] is not None and "could not be sent" in found[1]
