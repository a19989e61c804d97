from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # tests, and the processes of their analyses, import `batch_fakes`


@pytest.fixture(autouse=True)
def _light() -> None:
    """The replacement for the analysis needs little memory."""
    from leakloc.services.batch import run

    run.PRELOAD[:] = ["leakloc.report.model"]


@pytest.fixture
def batch_process() -> Callable[..., subprocess.Popen[str]]:
    """Starts a whole batch with the replacement in a process of its own."""
    started = []

    def start(root: Path, output: Path, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "batch_fakes.py"), str(root), str(output), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[2])])},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
