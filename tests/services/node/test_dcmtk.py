"""DCMTK's tools against the node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leakloc.cli import main
from leakloc.core.settings import Settings
from tests.services.node.peers import running, until

# pynetdicom installs programs with the names of DCMTK's in the environment of Python.
PATH = os.pathsep.join(p for p in os.get_exec_path() if Path(p) != Path(sys.executable).parent)
pytestmark = pytest.mark.skipif(shutil.which("storescu", path=PATH) is None, reason="needs DCMTK")
Maker = Callable[..., Any]


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (shutil.which(tool, path=PATH) or tool, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_echoscu_and_storescu(tmp_path: Path, quick: Settings, study: Maker) -> None:
    made = study()
    uid = made.datasets[0].StudyInstanceUID
    with running(tmp_path / "out", quick, allow=("DCMTK",)) as node:
        where = ("-aec", "LEAKLOC", "127.0.0.1", str(node.port))
        assert _run("echoscu", "-aet", "DCMTK", *where).returncode == 0
        assert _run("echoscu", "-aet", "STRANGER", *where).returncode != 0
        sent = _run("storescu", "-aet", "DCMTK", *where, "+sd", str(tmp_path / "study"))
        assert sent.returncode == 0, sent.stderr
        until(lambda: node.state(uid) == "finished", "the analysis")
        assert node.report(uid)["n_files"] == 6


@pytest.mark.parametrize(
    ("tool", "option"),
    [("dcmcrle", "-xr"), ("dcmcjpeg", "-xs"), ("dcmcjpls", "-xt"), ("dcmconv", "-xb")],
)
def test_other_encodings_arrive_as_sent(
    tmp_path: Path, quick: Settings, study: Maker, tool: str, option: str
) -> None:
    made = study()
    packed = tmp_path / "packed.dcm"
    how = ("+tb",) if tool == "dcmconv" else ()
    assert _run(tool, *how, str(made.paths[0]), str(packed)).returncode == 0
    with running(tmp_path / "out", quick) as node:
        where = ("-aec", "LEAKLOC", "127.0.0.1", str(node.port))
        sent = _run("storescu", option, *where, str(packed))
        assert sent.returncode == 0, sent.stderr
        (kept,) = (tmp_path / "out" / "incoming").glob("[0-9]*/*")
    syntax = _run("dcmdump", "+P", "0002,0010", str(packed)).stdout
    assert _run("dcmdump", "+P", "0002,0010", str(kept)).stdout == syntax
    pixels = _run("dcmdump", "+P", "7fe0,0010", "+L", str(packed)).stdout
    assert _run("dcmdump", "+P", "7fe0,0010", "+L", str(kept)).stdout == pixels


def test_results_go_to_storescp(tmp_path: Path, quick: Settings, study: Maker) -> None:
    from leakloc.services.node.sender import Peer
    from tests.services.node.peers import free_port

    port, inbox = free_port(), tmp_path / "inbox"
    inbox.mkdir()
    command = (
        shutil.which("storescp", path=PATH) or "",
        "-aet",
        "ARCHIVE",
        "-od",
        str(inbox),
        str(port),
    )
    peer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        returns = Peer("ARCHIVE", "127.0.0.1", port)
        with running(tmp_path / "out", quick, return_to=returns) as node:
            sent = _run(
                "storescu", "-aec", "LEAKLOC", "127.0.0.1", str(node.port), *map(str, study().paths)
            )
            assert sent.returncode == 0
            until(lambda: len(list(inbox.iterdir())) == 2, "the results")
    finally:
        peer.kill()
        peer.wait()


def test_the_command_asks_a_node(
    tmp_path: Path, quick: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "out", quick) as node:
        assert main(["node", "--check", f"LEAKLOC@127.0.0.1:{node.port}"]) == 0
        port = node.port
    assert main(["node", "--check", f"LEAKLOC@127.0.0.1:{port}"]) == 4
    assert main(["node", "--check", "nonsense"]) == 2
    assert "AET@host:port" in capsys.readouterr().err
