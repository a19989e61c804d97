"""Recipes for clusters, run as far as a machine without a queue can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import batch_fakes as fakes
import pytest

from leakloc.services.batch.ledger import Ledger

RECIPES = Path(__file__).parents[3] / "pipelines"


def test_shell_recipes_are_sound():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [shellcheck, RECIPES / "slurm_batch.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_slurm_recipe_runs_where_srun_is_a_plain_start(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (programs / "srun").chmod(0o755)
    # Headers alone: the real analysis refuses them at once, each for itself.
    names = {fakes.make_study(tmp_path / "in" / str(n), n) for n in range(2)}
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", RECIPES / "slurm_batch.sh", tmp_path / "out", tmp_path / "in", "--retries", "0"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    entries = Ledger(tmp_path / "out").entries()
    assert {entry.name for entry in entries} == names
    assert {entry.error_class for entry in entries} == {"InputError"}
    assert list((tmp_path / "out").glob(".scheduler*")) == []


@pytest.mark.slow
def test_the_recipe_for_queues_runs_without_one(tmp_path):
    pytest.importorskip("dask_jobqueue")
    names = {fakes.make_study(tmp_path / "in" / str(n), n) for n in range(2)}
    done = subprocess.run(
        [
            *(sys.executable, RECIPES / "jobqueue_batch.py", "--queue", "local", "--most", "2"),
            *("-o", tmp_path / "out", tmp_path / "in"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "0 of 2 finished, 2 failed\n", done.stderr
    assert {entry.name for entry in Ledger(tmp_path / "out").entries()} == names
