from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from leakloc.core.errors import OutputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.services.batch.ledger import Decision, Entry, Ledger, State, Usage

SETTINGS = Settings()
OTHER = SETTINGS.changed(report__identity="remove")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "out")


def queue(ledger: Ledger, name: str = "1.2.3", **changes) -> Decision:
    values = {"fingerprint": "f00d", "settings": SETTINGS, **changes}
    return ledger.queue(name, ["/in/a"], None, **values)


def taken(ledger: Ledger) -> Entry:
    entry = ledger.take()
    assert entry is not None
    return entry


def write_report(ledger: Ledger, name: str, digest: str = SETTINGS.sha256) -> None:
    folder = ledger.output / name
    folder.mkdir(exist_ok=True)
    new = folder / "new"
    new.write_text(f'{{"generator": {{"config_sha256": "{digest}"}}}}')
    new.replace(folder / "report.json")


def test_a_study_goes_from_waiting_to_finished(ledger):
    assert queue(ledger) is Decision.NEW
    entry = taken(ledger)
    assert (entry.name, entry.source, entry.state) == ("1.2.3", ("/in/a",), State.RUNNING)
    assert ledger.settings(entry.settings_sha256) == SETTINGS
    assert ledger.take() is None
    assert ledger.finish(entry, Usage(2.0, 1.5, 300.0, "host:1")) is State.FINISHED
    done = ledger.entry("1.2.3")
    assert (done.state, done.attempts, done.wall_s, done.worker) == ("finished", 1, 2.0, "host:1")
    assert ledger.counts() == {"waiting": 0, "running": 0, "finished": 1, "failed": 0}


def test_a_finished_study_is_not_repeated_until_its_input_or_settings_change(ledger):
    queue(ledger)
    ledger.finish(taken(ledger))
    assert queue(ledger) is Decision.KEPT
    assert ledger.take() is None
    for changes, decision in (
        ({"fingerprint": "beef"}, Decision.CHANGED),
        ({"fingerprint": "beef", "settings": OTHER}, Decision.CHANGED),
        ({"fingerprint": "beef", "settings": OTHER, "force": True}, Decision.FORCED),
    ):
        assert queue(ledger, **changes) is decision
        entry = taken(ledger)
        assert entry.attempts == 1
        assert ledger.settings(entry.settings_sha256) == changes.get("settings", SETTINGS)
        ledger.finish(entry)


def test_a_failed_study_is_retried_as_often_as_allowed_over_all_runs(ledger):
    queue(ledger)
    assert ledger.fail(taken(ledger), "InputError", "broken", retries=1) is State.WAITING
    assert ledger.fail(taken(ledger), "InputError", "broken", retries=1) is State.FAILED
    assert ledger.entry("1.2.3").error_message == "broken"
    assert queue(ledger, retries=1) is Decision.EXHAUSTED
    assert ledger.take() is None
    assert queue(ledger, retries=2) is Decision.RETRIED
    assert taken(ledger).attempts == 3


def test_a_changed_input_gives_a_failed_study_all_its_tries_back(ledger):
    queue(ledger)
    ledger.fail(taken(ledger), "InputError", "broken")
    assert queue(ledger, fingerprint="beef") is Decision.CHANGED
    assert taken(ledger).attempts == 1


def test_first_tries_come_before_further_ones(ledger):
    for name in ("a", "b"):
        queue(ledger, name)
    ledger.fail(taken(ledger), "Crash", "crashed", retries=1)
    assert [taken(ledger).name, taken(ledger).name] == ["b", "a"]


def test_images_that_arrive_during_the_analysis_queue_the_study_again(ledger):
    queue(ledger)
    entry = taken(ledger)
    assert queue(ledger) is Decision.WAITING
    assert queue(ledger, fingerprint="beef") is Decision.CHANGED
    assert ledger.entry("1.2.3").state is State.RUNNING
    assert ledger.finish(entry) is State.WAITING
    again = taken(ledger)
    assert again.fingerprint == "beef"
    assert ledger.finish(again) is State.FINISHED


def test_what_a_killed_process_left_is_repaired(ledger):
    for name in ("done", "cut", "old"):
        queue(ledger, name)
    write_report(ledger, "old")
    for _ in range(3):
        taken(ledger)
    write_report(ledger, "done")
    adopted, waiting = ledger.recover()
    assert [entry.name for entry in adopted] == ["done"]
    assert [entry.name for entry in waiting] == ["cut", "old"]  # its report was there before
    cut = ledger.entry("cut")
    assert (cut.state, cut.attempts, cut.interruptions) == (State.WAITING, 0, 1)


def test_a_report_with_other_settings_is_not_adopted(ledger):
    queue(ledger)
    taken(ledger)
    write_report(ledger, "1.2.3", OTHER.sha256)
    assert ledger.recover()[0] == []


def test_only_one_process_holds_the_folder(ledger):
    code = (
        "import sys; from pathlib import Path; from leakloc.services.batch.ledger import Ledger\n"
        "with Ledger(Path(sys.argv[1])).hold('leakloc batch'): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(ledger.output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(OutputError, match=f"leakloc batch, process {holder.pid} on"),
        ledger.hold("second"),
    ):
        pass
    holder.kill()  # however it ends, the lock ends with it
    holder.wait()
    with ledger.hold("second"):
        pass


def test_no_study_is_taken_twice(ledger):
    for number in range(40):
        queue(ledger, f"s{number}")
    names: list[str] = []

    def work() -> None:
        while (entry := ledger.take()) is not None:
            names.append(entry.name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(f"s{number}" for number in range(40))


def test_an_unusable_ledger_is_an_output_error(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="not a database"):
        Ledger(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot create"):
        Ledger(tmp_path / "file" / "out")


def test_a_newer_ledger_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(OutputError, match="newer version of leakloc"):
        Ledger(tmp_path)


def test_a_ledger_of_version_1_is_converted(ledger):
    queue(ledger)
    with sqlite3.connect(ledger.path) as database:
        database.execute("ALTER TABLE studies RENAME COLUMN report_stamp TO standing")
        database.execute("PRAGMA user_version = 1")
    assert [e.name for e in Ledger(ledger.output).entries()] == [e.name for e in ledger.entries()]


def test_a_full_disk_is_reported_and_loses_nothing(ledger):
    queue(ledger)
    with ledger.connection() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutputError, match="full"):
        for number in range(200):
            queue(ledger, f"{number}" * 40)
    assert ledger.entry("1.2.3").state is State.WAITING
    assert taken(ledger).name == "1.2.3"


def test_killing_the_writer_leaves_a_sound_ledger(tmp_path):
    code = (
        "import sys; from pathlib import Path; from leakloc.services.batch.ledger import Ledger\n"
        "from leakloc.core.settings import Settings\n"
        "ledger = Ledger(Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        "    ledger.queue(str(n), ['/in'], None, 'f', Settings())\n"
        "    print(n, flush=True); n += 1"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(5):
        last = int(writer.stdout.readline())
    time.sleep(0.02)
    writer.kill()
    names_written = [last, *map(int, writer.stdout.read().split("\n")[:-1])]
    names = {int(entry.name) for entry in Ledger(tmp_path).entries()}
    assert set(names_written) <= names


def test_what_is_done_together_is_done_as_a_whole_or_not_at_all(ledger):
    with pytest.raises(RuntimeError), ledger.transaction():
        queue(ledger, "a")
        queue(ledger, "b")
        raise RuntimeError
    assert ledger.entries() == []
    with ledger.transaction():
        assert [queue(ledger, name) for name in "aba"] == ["new", "new", "waiting"]
    assert ledger.take().name == "a"
    assert len(Ledger(ledger.output).entries()) == 2


def use_everything(output: Path) -> int:
    """All that a batch reads from its job database; returns the number of studies."""
    again = Ledger(output)
    try:
        with again.hold("test"):
            again.recover()
            again.counts()
            again.states()
            entries = again.entries()
            for entry in entries:
                again.settings(entry.settings_sha256)
                again.entry(entry.name)
            again.take()
        return len(entries)
    finally:
        again.close()


DAMAGES = {
    "source": b"\0\0\0",
    "source ": "1",
    "source  ": "[1]",
    "source   ": "[" * 100_000,
    "study_uid": b"x",
    "attempts": "many",
    "queued": "now",
    "peak_mib": "much",
    "fingerprint": b"\xff",
    "error_message": b"x",
}


@pytest.mark.parametrize("column", DAMAGES)
def test_a_damaged_row_says_what_to_do(ledger, column):
    queue(ledger)
    ledger.close()
    with sqlite3.connect(ledger.path) as database:
        database.execute(f"UPDATE studies SET {column.strip()} = ?", (DAMAGES[column],))
    database.close()
    with pytest.raises(OutputError, match=r"is damaged .* delete it: reports are kept"):
        use_everything(ledger.output)


@pytest.mark.parametrize("change", ["", "x", "[" * 100_000, None])
def test_damaged_settings_say_what_to_do(ledger, change):
    queue(ledger)
    ledger.close()
    with sqlite3.connect(ledger.path) as database:
        if change is None:
            database.execute("DELETE FROM settings")
        else:
            database.execute("UPDATE settings SET json = ?", (change,))
    database.close()
    with pytest.raises(OutputError, match=r"is damaged .* delete it: reports are kept"):
        use_everything(ledger.output)


def test_an_empty_file_is_no_new_job_database(ledger):
    queue(ledger)
    ledger.close()
    for file in ledger.output.glob("ledger.sqlite*"):
        file.write_bytes(b"")
    with pytest.raises(OutputError, match=r"it is empty.* delete it: reports are kept"):
        Ledger(ledger.output)
    ledger.path.unlink()
    assert use_everything(ledger.output) == 0


def test_random_damage_is_an_error_or_harmless(ledger, tmp_path):
    for number in range(60):
        queue(ledger, f"1.2.{number}")
    ledger.close()
    content = ledger.path.read_bytes()
    random = np.random.default_rng(1)
    for number in range(60):
        damaged, at = bytearray(content), int(random.integers(len(content)))
        if number % 3 == 0:
            damaged = damaged[:at]
        elif number % 3 == 1:
            for place in random.integers(0, len(content), 20):
                damaged[place] ^= 1 << int(random.integers(8))
        else:
            damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "ledger.sqlite").write_bytes(damaged)
        try:
            assert use_everything(tmp_path / str(number)) == 60
        except (OutputError, SettingsError) as error:
            assert str(tmp_path / str(number)) in str(error)
