"""Temporary folders hold patient data: nothing of them remains, however their process ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from leakloc.core.temporary import TemporaryFolder, remove_leftovers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")

HOLD = """
import sys, time
from leakloc.core.temporary import TemporaryFolder
folder = TemporaryFolder("extracted-")
(folder.path / "patient").write_text("x")
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def tmp(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_of_killed_processes_are_removed_and_those_in_use_remain(tmp):
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    mine = TemporaryFolder("extracted-")
    remove_leftovers()
    assert (left / "patient").exists() and mine.path.is_dir()
    process.kill()
    process.wait()
    remove_leftovers()
    assert not left.exists() and mine.path.is_dir()
    mine.remove()
    assert list(tmp.iterdir()) == []


def test_folders_of_others_remain(tmp):
    (tmp / "leakloc-notes").mkdir()
    (tmp / "leakloc-notes" / "thesis.txt").write_text("x")
    (tmp / "elsewhere").mkdir()
    (tmp / "elsewhere" / "leakloc.lock").touch()
    (tmp / "leakloc-link").symlink_to(tmp / "elsewhere")
    (tmp / "leakloc-pipe").mkdir()
    os.mkfifo(tmp / "leakloc-pipe" / "leakloc.lock")
    (tmp / "leakloc-lock-is-a-link").mkdir()
    (tmp / "leakloc-lock-is-a-link" / "leakloc.lock").symlink_to(tmp / "elsewhere" / "leakloc.lock")
    before = sorted(tmp.rglob("*"))
    remove_leftovers()
    assert sorted(tmp.rglob("*")) == before


ANALYZE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from leakloc.loaders import load
import leakloc.pipeline

def wait(study, *values, **options):
    print("extracted", flush=True)
    for _ in range(600):
        time.sleep(0.1)

leakloc.pipeline.triage = wait
from leakloc.cli import main
sys.exit(main(["analyze", sys.argv[1], "-o", sys.argv[2], "--quiet"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_extracted_files_are_removed_when_analyze_is_stopped(series, tmp, tmp_path_factory, number):
    folder = tmp_path_factory.mktemp("study")
    made = series().write(folder / "in")
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for path in made.paths:
            archive.write(path, path.name)
    process = subprocess.Popen(
        [sys.executable, "-c", ANALYZE, str(folder / "a.zip"), str(folder / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "extracted"
    assert len(list(tmp.rglob("im*"))) == 8
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert len(list(tmp.rglob("im*"))) == 8
        remove_leftovers()  # at the next start
    else:
        assert (process.returncode, error.strip()) == (4, "leakloc: interrupted")
    assert [path for path in tmp.rglob("*") if "leakloc" in path.name] == []
    assert sorted(path.name for path in folder.iterdir()) == ["a.zip", "in"]


def test_the_next_analysis_removes_what_a_killed_one_left(series, tmp):
    from leakloc.core.settings import LoaderSettings
    from leakloc.loaders import load_study

    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    made = series().write(tmp / "study")
    started = time.monotonic()
    load_study(made.paths[0].parent, LoaderSettings())
    assert not left.exists() and time.monotonic() - started < 10
