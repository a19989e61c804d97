"""`leakloc node` as people and service managers run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from leakloc.cli import main
from tests.services.node.peers import ROOT, received, state, store, until

Maker = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "-o OUT"),
        (["-o", "out", "--bind", "0.0.0.0"], "--allow"),
        (["-o", "out", "--aet", "A" * 17], "AE title"),
        (["-o", "out", "--port", "70000"], "not a valid port"),
        (["-o", "out", "--return-to", "PACS:104"], "AET@host:port"),
        (["-o", "out", "--orthanc", "localhost:8042"], "takes a URL"),
        (["-o", "out", "--orthanc", "http://u:p@h/"], "LEAKLOC_DICOMWEB_USER"),
        (["-o", "out", "--workers", "0"], "--workers"),
        (["-o", "out", "--set", "node.settle_s=-1"], "settle_s"),
    ],
)
def test_wrong_options_are_reported(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["node", *options]) == 2
    assert said in capsys.readouterr().err


def test_runs_quietly_and_ends_on_sigterm(tmp_path: Path, study: Maker) -> None:
    output = tmp_path / "out"
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "leakloc", "node", "-v", "--json", "-o", str(output)),
            *("--port", "0", "--allow", "SENDER", "--set", "node.min_free_mib=0"),
            *("--set", "node.settle_s=0.3"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert child.stdout is not None
    port = json.loads(child.stdout.readline())["port"]
    made = study()
    assert store(port, made.datasets, calling="STRANGER") == [None] * 6
    assert store(port, made.datasets) == [0] * 6
    uid = str(made.datasets[0].StudyInstanceUID)
    until(lambda: state(output, uid) not in (None, "waiting"), "the analysis' begin")
    listening = {
        one.laddr.ip
        for one in psutil.Process(child.pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=60)
    assert child.returncode == 0
    assert received(output) == sorted(str(d.SOPInstanceUID) for d in made.datasets)
    assert "refused an association of STRANGER" in log
    for secret in ("Doe", "Jane", "P1"):
        assert secret not in log
    assert listening == {"127.0.0.1"}
    assert (output / "incoming").stat().st_mode & 0o077 == 0
