from __future__ import annotations

import csv
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import batch_fakes as fakes
import pandas as pd
import pytest

from leakloc.core import extras
from leakloc.core.errors import InputError, OutputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.report import Report
from leakloc.services.batch import batch as batch_module
from leakloc.services.batch import engine
from leakloc.services.batch.batch import Batch, FolderWatch, Pages, Tally
from leakloc.services.batch.engine import Engine, WorkOptions
from leakloc.services.batch.finder import Found, ScanCache
from leakloc.services.batch.ledger import Ledger, State
from leakloc.services.batch.run import Outcome

WORK = WorkOptions(workers=2, analyze=fakes.ANALYZE, timeout_s=20, memory_mib=1000)
Start = Callable[..., subprocess.Popen]


def make(root: Path, *behaviours: str) -> list[str]:
    return [
        fakes.make_study(root / f"Doe^Jane {number}", number, behaviour)
        for number, behaviour in enumerate(behaviours)
    ]


def run(root: Path, output: Path, work: WorkOptions = WORK, **options) -> Tally:
    settings = options.pop("settings", Settings())
    return Batch(output, settings, work, **options).run([root])


def states(output: Path) -> list[str]:
    return [entry.state.value for entry in sorted(Ledger(output).entries(), key=lambda e: e.name)]


def written(output: Path) -> dict[str, int]:
    """When each report was written."""
    return {
        report.parent.name: report.stat().st_mtime_ns for report in output.glob("*/report.json")
    }


def test_each_study_ends_on_its_own_and_all_is_listed(tmp_path):
    names = make(tmp_path / "in", "", "leak L4-L5", "segfault", "input", "killed", "once")
    out = tmp_path / "out"
    tally = run(tmp_path / "in", out)
    assert (tally.found, tally.finished, tally.failed) == (6, 3, 3)
    assert states(out) == ["finished", "finished", "failed", "failed", "failed", "finished"]
    assert set(written(out)) == {names[0], names[1], names[5]}
    tries = {entry.name: entry.attempts for entry in Ledger(out).entries()}
    assert [tries[name] for name in names] == [1, 1, 2, 2, 2, 2]
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["study"] == names[1] and rows[0]["level"] == "L4-L5"  # most urgent first
    assert [row["error_class"] for row in rows[1:4]] == ["Crash", "InputError", "Crash"]
    frame = pd.read_parquet(out / "summary.parquet")
    assert frame["volume_ml"].tolist()[0] == 3.5 and frame["attempts"].tolist()[1] == 2
    assert list(frame["study"]) == [row["study"] for row in rows]
    page = (out / "index.html").read_text()
    assert all(name in page for name in names)
    for text in (page, (out / "summary.csv").read_text()):
        assert "Doe" not in text and "Jane" not in text
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    pages = {"index.html", "summary.csv", "summary.parquet"}
    assert visible - set(names) - pages <= {
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
    }


def test_a_second_run_does_only_what_is_left(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    names = make(root, "", "", "input")
    run(root, out)
    before = written(out)
    tally = run(root, out)
    assert (tally.finished, tally.kept, tally.failed) == (2, 2, 1)
    assert written(out) == before
    # repaired: only that one
    fakes.make_study(root / "Doe^Jane 2", 2)
    assert run(root, out).finished == 3
    # changed input: only that one
    (root / "Doe^Jane 0" / "im7").write_bytes(fakes.header(names[0]))
    again = run(root, out)
    assert written(out)[names[0]] != before[names[0]] and again.kept == 2
    assert written(out)[names[1]] == before[names[1]]
    # changed settings, force: all
    changed = Settings().changed(report__identity="remove")
    assert run(root, out, settings=changed).kept == 0
    last = written(out)
    assert run(root, out, settings=changed, force=True).finished == 3
    assert all(written(out)[name] != last[name] for name in names)


def test_failed_studies_are_tried_again_only_as_often_as_allowed(tmp_path):
    make(tmp_path / "in", "input")
    tries = []
    for retries in (0, 0, 2, 2):
        run(tmp_path / "in", tmp_path / "out", replace(WORK, retries=retries))
        tries.append(Ledger(tmp_path / "out").entries()[0].attempts)
    assert tries == [1, 1, 3, 3]


def test_nothing_found_is_an_input_error_that_counts_what_was_left_out(tmp_path):
    fakes.make_study(tmp_path / "in" / "a", 1, modality="CT")
    with pytest.raises(InputError, match="1 study without MR images"):
        run(tmp_path / "in", tmp_path / "out")


def test_a_missing_extra_is_reported(tmp_path, monkeypatch):
    find = extras.find_spec
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name == "distributed" else find(name)
    )
    with pytest.raises(SettingsError, match=r"pip install 'leakloc\[batch\]'"):
        run(tmp_path, tmp_path / "out")


def test_a_scheduler_that_does_not_respond_is_reported(tmp_path, monkeypatch):
    make(tmp_path / "in", "")
    monkeypatch.setattr(engine, "_CONNECT_S", 0.5)
    with pytest.raises(SettingsError, match=r"no Dask scheduler responds at tcp://127\.0\.0\.1:9"):
        run(tmp_path / "in", tmp_path / "out", replace(WORK, scheduler="tcp://127.0.0.1:9"))
    assert states(tmp_path / "out") == ["waiting"]


def test_a_full_disk_stops_the_batch_and_fails_no_study(tmp_path):
    make(tmp_path / "in", "", "disk", "disk")
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="full; finished studies are kept"):
        run(tmp_path / "in", out, replace(WORK, workers=1))
    assert states(out) == ["finished", "waiting", "waiting"]
    with pytest.raises(OutputError, match="MiB are free"):
        run(tmp_path / "in", out, replace(WORK, min_free_mib=1e12))
    for number in (1, 2):
        (tmp_path / "in" / f"Doe^Jane {number}" / "behaviour.txt").write_text("")
    assert run(tmp_path / "in", out).finished == 3


def wait_for(process: subprocess.Popen, what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "too slow"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_second_batch_on_the_same_folder_is_reported(tmp_path, batch_process: Start):
    make(tmp_path / "in", "sleep 30")
    first = batch_process(tmp_path / "in", tmp_path / "out")
    assert first.stdout.readline() == "began\n"
    wait_for(first, lambda: (tmp_path / "out" / "ledger.sqlite").exists())
    wait_for(first, lambda: states(tmp_path / "out") == ["running"])
    with pytest.raises(OutputError, match=f"another process uses .* process {first.pid} on"):
        run(tmp_path / "in", tmp_path / "out")
    assert states(tmp_path / "out") == ["running"]


def test_killing_the_whole_batch_loses_and_doubles_nothing(tmp_path, batch_process: Start):
    root, out = tmp_path / "in", tmp_path / "out"
    names = make(root, "", "", "", "sleep 30", "sleep 30", "")
    first = batch_process(root, out)
    wait_for(first, lambda: len(written(out)) >= 3)
    wait_for(first, lambda: states(out).count("running") == 2)
    first.kill()
    first.wait()
    before = written(out)
    for number in (3, 4):
        folder = root / f"Doe^Jane {number}"
        (folder / "behaviour.txt").write_text("")
    tally = run(root, out)
    assert (tally.finished, tally.failed) == (6, 0)
    assert {name: at for name, at in written(out).items() if name in before} == before
    assert set(written(out)) == set(names)
    assert [path for path in out.iterdir() if ".partial" in path.name] == []


def test_a_report_in_place_that_the_ledger_did_not_hear_of_is_adopted(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    make(root, "")
    run(root, out)
    with sqlite3.connect(out / "ledger.sqlite") as database:
        database.execute("UPDATE studies SET state = 'running', report_stamp = NULL")
    before = written(out)
    assert run(root, out).kept == 1
    assert written(out) == before


def test_interrupting_leaves_what_ran_waiting(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    make(root, "", "sleep 60")

    def interrupt(tally: Tally) -> None:
        if tally.finished == 1 and tally.running == 1:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(root, out, watcher=interrupt)
    assert time.monotonic() - start < 20
    assert states(out) == ["finished", "waiting"]
    assert Ledger(out).entries()[1].attempts == 0
    assert (out / "index.html").exists()


def test_the_tally_reports_progress(tmp_path):
    make(tmp_path / "in", *[""] * 5, "input")
    seen: list[Tally] = []
    run(tmp_path / "in", tmp_path / "out", watcher=lambda tally: seen.append(replace(tally)))
    assert all(t.finished + t.failed + t.waiting + t.running == 6 for t in seen)
    assert (seen[-1].finished, seen[-1].failed, seen[-1].seconds_left) == (5, 1, 0)
    assert any(t.seconds_left for t in seen[:-1]) and seen[0].seconds_left is None


def found(uid: str, fingerprint: str) -> Found:
    return Found(uid, (f"/in/{uid}",), uid, fingerprint, 1)


def test_watched_studies_are_taken_when_they_have_settled(tmp_path):
    ledger = Ledger(tmp_path / "out")
    root = tmp_path / "in"
    taken: list[tuple[float, str]] = []
    now = 0.0
    watch = FolderWatch(
        ledger,
        [root],
        10.0,
        lambda studies: taken.extend((now, s.name) for s in studies),
        Settings(),
    )
    root.mkdir()
    cache = ScanCache(ledger)
    for now in range(0, 40, 2):
        if now in (2, 8):  # images of the first come in two bursts
            uid = fakes.make_study(root / "a", 1)
            (root / "a" / f"more{now}").write_bytes(fakes.header(uid))
        if now == 4:
            fakes.make_study(root / "b", 2)
        watch.poll(cache, float(now))
    assert taken == [(14, f"{fakes.UID_ROOT}.2"), (18, f"{fakes.UID_ROOT}.1")]


def test_watching_takes_what_arrives_until_it_is_stopped(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()

    def step(tally: Tally) -> None:
        if tally.finished == tally.found < 2 and not (root / str(tally.found)).exists():
            fakes.make_study(root / str(tally.found), tally.found)
        elif tally.finished == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Batch(out, Settings(), WORK, watcher=step).run([], watch=[root], settle_s=0.5)
    assert states(out) == ["finished", "finished"]
    assert len(written(out)) == 2


def failing_search(monkeypatch, errors: list[Exception]) -> None:
    truly = batch_module.find_studies

    def search(*values, **options):
        if errors:
            raise errors.pop()
        return truly(*values, **options)

    monkeypatch.setattr(batch_module, "find_studies", search)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "gone"), OSError(5, "I/O error"), InputError("does not exist")]
)
def test_watching_goes_on_when_inputs_cannot_be_read(tmp_path, monkeypatch, caplog, error):
    root = tmp_path / "in"
    fakes.make_study(root / "DOE", 1)
    failing_search(monkeypatch, [error, error, error])

    def step(tally: Tally) -> None:
        if tally.finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caplog.at_level("WARNING", batch_module.__name__):
        Batch(tmp_path / "out", Settings(), WORK, watcher=step).run([], watch=[root], settle_s=0.2)
    messages = [r.getMessage() for r in caplog.records if r.name == batch_module.__name__]
    assert len(messages) == 1 and "trying again" in messages[0] and "DOE" not in messages[0]


def test_watching_goes_on_when_the_folder_is_removed(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    ledger = Ledger(out)
    watch = FolderWatch(ledger, [root], 0.2, lambda studies: None, Settings())
    watch.start()
    root.rmdir()
    time.sleep(1.0)
    assert watch.alive()
    watch.stop()


def no_space(monkeypatch, until: float) -> None:
    truly = shutil.disk_usage

    def usage(path):
        found = truly(path)
        return found if time.monotonic() > until else found._replace(free=0)

    monkeypatch.setattr(engine.shutil, "disk_usage", usage)


@pytest.mark.parametrize("problem", ["search", "disk", "worklist"])
def test_watching_does_not_end_by_itself(tmp_path, monkeypatch, caplog, problem):
    root, out = tmp_path / "in", tmp_path / "out"
    fakes.make_study(root / "DOE", 1)
    monkeypatch.setattr(batch_module, "PAUSE_S", 0.2)
    options = WORK
    if problem == "search":
        failing_search(monkeypatch, [RuntimeError("DOE"), OutputError("the disk is full")])
    elif problem == "disk":
        no_space(monkeypatch, time.monotonic() + 3.0)
        options = replace(WORK, min_free_mib=1)
    else:
        (out / "index.html").mkdir(parents=True)
        monkeypatch.setattr(Pages, "_MIN_S", 0.0)
    finished_at: list[float] = []

    def step(tally: Tally) -> None:
        if tally.finished:
            finished_at.append(time.monotonic())
            if finished_at[-1] - finished_at[0] > 1.0:
                with suppress(OSError):
                    (out / "index.html").rmdir()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), caplog.at_level("WARNING", batch_module.__name__):
        Batch(out, Settings(), options, watcher=step).run([], watch=[root], settle_s=0.2)
    assert states(out) == ["finished"]
    assert caplog.records and "DOE" not in caplog.text


def test_others_may_put_studies_into_the_ledger_while_it_is_worked_through(tmp_path):
    """As the DICOM node does."""
    root = tmp_path / "in"
    ledger = Ledger(tmp_path / "out")
    ended: list[str] = []

    def note(entry, state: State, outcome: Outcome) -> None:
        ended.append(entry.name)
        if len(ended) < 3:
            queue(len(ended))

    def queue(number: int) -> None:
        uid = fakes.make_study(root / str(number), number)
        ledger.queue(uid, [root / str(number)], uid, "f", Settings())

    with ledger.hold("test"):
        queue(0)
        worker = Engine(ledger, WORK, ended=note)
        worker.run()
    assert len(ended) == 3 and ledger.counts()[State.FINISHED] == 3
    assert Report.load(tmp_path / "out" / ended[2]).finding.leak == "absent"
