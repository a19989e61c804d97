"""Runs `orthanc_cases` in a network namespace with nothing but its own loopback.

Debian's Orthanc listens on every address whatever its settings say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def _alone() -> list[str]:
    """Command that runs another without any network; skips where that is not allowed."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("needs Orthanc and its DICOMweb plugin")
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    start = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make a network namespace here")
    return [*start, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def _run(which: str, timeout_s: float) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which]
    done = subprocess.run(
        [*_alone(), *command, "-W", "ignore", "--show-capture=no", "tests/node/orthanc_cases.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_with_a_quick_analyzer() -> None:
    _run("not slow", 300)


@pytest.mark.slow
def test_with_a_real_analysis() -> None:
    _run("slow", 400)
