"""The node and an Orthanc; run by `test_orthanc` where only the loopback interface exists."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from leakloc.core.settings import Settings
from leakloc.services.node.dicomweb import Server
from leakloc.services.node.sender import Parcel, Peer
from tests.services.node.peers import FAKE, query, running, store, until

Maker = Callable[..., Any]
HTTP, DICOM = 18042, 14242
URL = f"http://127.0.0.1:{HTTP}"
TODAY = f"{date.today():%Y%m%d}"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


class Orthanc:
    """An Orthanc on a fresh store."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        config = folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder),
                    "IndexDirectory": str(folder),
                    "HttpPort": HTTP,
                    "DicomPort": DICOM,
                    "DicomAet": "ORTHANC",
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "Plugins": [PLUGIN],
                    "DicomAlwaysAllowStore": True,
                    **settings,
                }
            )
        )
        self._process = subprocess.Popen(
            ["Orthanc", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "Orthanc's start")

    def _answers(self) -> bool:
        try:
            self.get("/dicom-web/studies")
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(URL + path, timeout=20) as answer:
            return json.load(answer)

    def put(self, paths: Sequence[Path]) -> None:
        for path in paths:
            request = urllib.request.Request(URL + "/instances", path.read_bytes())
            urllib.request.urlopen(request, timeout=20).close()

    def instances(self) -> list[str]:
        found = self.get("/instances?expand")
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in found)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = Orthanc(folder)
    yield server
    server.stop()


def polling(output: Path, settings: Settings, analyze: str = FAKE) -> Any:
    return running(output, settings, listen=None, server=URL, analyze=analyze)


def test_polls_analyzes_and_stores_once(
    orthanc: Orthanc, tmp_path: Path, quick: Settings, study: Maker
) -> None:
    spine = study("spine", StudyDate=TODAY, SeriesDescription="MRT LWS sag")
    knee = study("knee", StudyDate=TODAY, SeriesDescription="Knie links", PatientID="2")
    old = study("old", PatientID="3", StudyDate=f"{date.today() - timedelta(days=9):%Y%m%d}")
    orthanc.put([*spine.paths[:5], *knee.paths, *old.paths])
    uid = spine.datasets[0].StudyInstanceUID
    with polling(tmp_path / "out", quick) as node:
        until(lambda: len(orthanc.instances()) == 17 + 2, "storing the results")
        assert node.report(uid)["n_files"] == 5
        time.sleep(2)  # our own results do not make it look new
        assert query(node.output, "SELECT name, attempts FROM studies") == [(uid, 1)]
        orthanc.put(spine.paths[5:])
        until(lambda: len(orthanc.instances()) == 18 + 4, "the late image's results")
        assert node.report(uid)["n_files"] == 6
    for name in node.files():
        kept = pydicom.dcmread(tmp_path / "out" / "incoming" / uid / f"{name}.dcm")
        sent = next(d for d in spine.datasets if name == d.SOPInstanceUID)
        assert kept.PixelData == sent.PixelData
    with polling(tmp_path / "out", quick):
        time.sleep(2)
    assert len(orthanc.instances()) == 22
    assert query(tmp_path / "out", "SELECT DISTINCT state FROM node_sends") == [("sent",)]


def test_what_may_have_arrived_is_asked_for_first(
    orthanc: Orthanc, quick: Settings, study: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(StudyDate=TODAY)
    server = Server(URL, quick.node)
    stored: list[str] = []
    really = Server._store

    def counted(self: Server, client: Any, parcel: Parcel) -> None:
        stored.append(parcel.sop_uid)
        really(self, client, parcel)

    monkeypatch.setattr(Server, "_store", counted)
    first = [
        Parcel(path, str(d.SOPInstanceUID), str(d.StudyInstanceUID), tried)
        for path, d, tried in zip(made.paths, made.datasets, [False] * 5 + [True], strict=True)
    ]
    assert [problem for _, problem in server.send(first)] == [None] * 6
    again = [Parcel(p.path, p.sop_uid, p.study_uid, True) for p in first]
    assert [problem for _, problem in server.send(again)] == [None] * 6
    assert len(stored) == 6 and orthanc.instances() == sorted(stored)


def test_a_server_that_goes_away_is_asked_again(
    tmp_path: Path, quick: Settings, study: Maker
) -> None:
    made = study(StudyDate=TODAY)
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with polling(tmp_path / "out", quick) as node:  # it is not there yet
        time.sleep(0.5)
        server = Orthanc(folder)
        try:
            server.put(made.paths)
            until(lambda: node.state(made.datasets[0].StudyInstanceUID) == "finished", "analysis")
        finally:
            server.stop()


def test_results_go_to_orthanc_by_c_store(
    orthanc: Orthanc, tmp_path: Path, quick: Settings, study: Maker
) -> None:
    returns = Peer("ORTHANC", "127.0.0.1", DICOM)
    with running(tmp_path / "out", quick, return_to=returns) as node:
        assert store(node.port, study().datasets) == [0] * 6
        until(lambda: len(orthanc.instances()) == 2, "the results")


def test_orthanc_routes_by_the_script_that_is_deployed(
    tmp_path: Path, quick: Settings, study: Maker
) -> None:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    made = study()
    uid = made.datasets[0].StudyInstanceUID
    returns = Peer("ORTHANC", "127.0.0.1", DICOM)
    with running(tmp_path / "out", quick, allow=("ORTHANC",), return_to=returns) as node:
        server = Orthanc(
            folder,
            StableAge=1,
            LuaScripts=[str(Path(__file__).parents[3] / "deploy" / "route.lua")],
            DicomModalities={"leakloc": ["LEAKLOC", "127.0.0.1", node.port]},
        )
        try:
            server.put(made.paths)
            until(lambda: len(server.instances()) == 6 + 2, "send and return")
            assert node.report(uid)["n_files"] == 6
            time.sleep(3)  # what came back is not sent again
            assert len(server.instances()) == 8
        finally:
            server.stop()


@pytest.mark.slow
def test_a_real_analysis_there_and_back(orthanc: Orthanc, tmp_path: Path, quick: Settings) -> None:
    source = Path(__file__).parents[3] / "sample_data" / "postoperative" / "dicom"
    if not source.is_dir():
        pytest.skip("no sample data")
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()]
    orthanc.put(paths)
    settings = quick.changed(node__look_back_days=36500)
    with polling(tmp_path / "out", settings, "leakloc.pipeline:analyze") as node:
        until(lambda: len(orthanc.instances()) >= len(paths) + 3, "SEG, SR and captures", 240)
        time.sleep(3)
        assert query(node.output, "SELECT state FROM studies") == [("finished",)]
    modalities = {one["MainDicomTags"]["Modality"] for one in orthanc.get("/series?expand")}
    assert {"MR", "SEG", "SR"} <= modalities
    assert len(orthanc.get("/studies")) == 1  # in the study of the images
