"""A cluster of Dask workers in processes of their own, and what they do when killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import batch_fakes as fakes
import pytest

from leakloc.core.settings import Settings
from leakloc.services.batch.batch import Batch
from leakloc.services.batch.engine import WorkOptions
from leakloc.services.batch.ledger import Ledger, State

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler and workers as `dask` starts them on real clusters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.scheduler_file = folder / "scheduler.json"
        self._start(
            "scheduler",
            "--port",
            "0",
            "--host",
            "127.0.0.1",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(self.scheduler_file),
        )
        deadline = time.monotonic() + 60
        while not self.scheduler_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        import json

        self.address = json.loads(self.scheduler_file.read_text())["address"]
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self, *, nanny: bool = True) -> None:
        self.workers.append(
            self._start(
                "worker",
                self.address,
                "--nthreads",
                "1",
                "--host",
                "127.0.0.1",
                "--dashboard-address",
                "127.0.0.1:0",
                "--local-directory",
                str(self._folder),
                "--nanny" if nanny else "--no-nanny",
            )
        )

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            env={**os.environ, "PYTHONPATH": str(HERE)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        import psutil

        for process in self._processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_workers_that_die_and_join_during_the_run_cost_no_study(tmp_path, cluster):
    root, out = tmp_path / "in", tmp_path / "out"
    names = [fakes.make_study(root / str(n), n, "sleep 0.5") for n in range(24)]
    names.append(fakes.make_study(root / "bad", 99, "segfault"))
    for nanny in (True, False):
        cluster.add_worker(nanny=nanny)
    random.seed(1)
    killed = 0

    def kill_now_and_then(tally) -> None:
        nonlocal killed
        if killed < 3 and tally.finished >= 3 * (killed + 1):
            import psutil

            killed += 1
            victim = cluster.workers[-1]
            victim.send_signal(signal.SIGKILL)
            cluster.add_worker(nanny=False)
            if killed == 2:  # the one under a nanny, which restarts it
                for child in psutil.Process(cluster.workers[0].pid).children():
                    child.kill()

    work = WorkOptions(scheduler=cluster.address, analyze=fakes.ANALYZE, retries=1)
    tally = Batch(out, Settings(), work, watcher=kill_now_and_then).run([root])
    assert killed == 3
    assert (tally.finished, tally.failed) == (24, 1)
    entries = {entry.name: entry for entry in Ledger(out).entries()}
    assert entries[names[-1]].error_class == "Crash"
    assert all(entries[name].state is State.FINISHED for name in names[:-1])
    assert len(list(out.glob("*/report.json"))) == 24
    assert [path for path in out.iterdir() if ".partial" in path.name] == []


def test_a_batch_waits_for_workers_and_uses_those_that_join(tmp_path, cluster):
    root, out = tmp_path / "in", tmp_path / "out"
    for n in range(4):
        fakes.make_study(root / str(n), n)
    seen: list[int] = []

    def watch(tally) -> None:
        seen.append(tally.workers)
        if len(seen) == 3:
            cluster.add_worker()

    work = WorkOptions(scheduler=cluster.address, analyze=fakes.ANALYZE)
    assert Batch(out, Settings(), work, watcher=watch).run([root]).finished == 4
    assert seen[:3] == [0, 0, 0] and seen[-1] == 1


def test_killing_the_batch_leaves_the_cluster_usable(tmp_path, cluster, batch_process):
    root, out = tmp_path / "in", tmp_path / "out"
    for n in range(6):
        fakes.make_study(root / str(n), n, "sleep 1")
    cluster.add_worker()
    first = batch_process(root, out, f"scheduler={cluster.address}")
    deadline = time.monotonic() + 60
    while not list(out.glob("*/report.json")):
        assert time.monotonic() < deadline and first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.kill()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    work = WorkOptions(scheduler=cluster.address, analyze=fakes.ANALYZE)
    tally = Batch(out, Settings(), work).run([root])
    assert (tally.finished, tally.failed) == (6, 0)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_ten_kills_of_the_whole_batch_lose_and_double_nothing(tmp_path, batch_process):
    root, out = tmp_path / "in", tmp_path / "out"
    names = {fakes.make_study(root / str(n), n, "sleep 0.3") for n in range(40)}
    random.seed(7)
    written: dict[str, int] = {}
    for _ in range(10):
        process = batch_process(root, out)
        assert process.stdout.readline() == "began\n"
        time.sleep(random.uniform(1.0, 5.0))
        process.kill()
        process.wait()
        for report in out.glob("*/report.json"):
            stamp = report.stat().st_mtime_ns
            assert written.setdefault(report.parent.name, stamp) == stamp
        visible = [path for path in out.glob("*/") if not path.name.startswith(".")]
        assert all((path / "report.json").exists() for path in visible)
    assert batch_process(root, out).wait(timeout=300) == 0
    counts = Ledger(out).counts()
    assert counts[State.FINISHED] == 40 and sum(counts.values()) == 40
    final = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    assert set(final) == names
    assert {name: final[name] for name in written} == written
