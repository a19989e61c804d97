from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_fakes as fakes
import nibabel as nib
import numpy as np
import psutil
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from leakloc.core.settings import Settings
from leakloc.report import Report
from leakloc.services.batch.run import (
    ANALYZE,
    Job,
    Limits,
    _run_analysis,
    _without_names,
    clean_up,
    run_job,
    scratch_prefix,
)


@pytest.fixture
def job(tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()

    def make(behaviour: str = "") -> Job:
        folder = tmp_path / "Doe^Jane"
        uid = fakes.make_study(folder, 1, behaviour)
        return Job(uid, (str(folder),), uid, str(output), Settings())

    return make


def left_behind(job: Job) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{scratch_prefix(Path(job.output))}*"))


def test_a_study_is_analyzed_in_a_separate_process(job):
    made = job("leak L4-L5")
    outcome = run_job(made, Limits(60, 2000, 1), fakes.ANALYZE)
    assert (outcome.error_class, outcome.error_message) == (None, None)
    assert outcome.worker.endswith(f":{os.getpid()}")
    assert 0 < outcome.cpu_s < 10 and 10 < outcome.peak_mib < 1000
    assert Report.load(Path(made.output, made.name)).finding.level == "L4-L5"
    assert left_behind(made) == []
    # and again with an existing report
    assert run_job(made, Limits(60), fakes.ANALYZE).error_class is None


@pytest.mark.parametrize(
    ("behaviour", "error_class", "message"),
    [
        ("segfault", "Crash", "SIGSEGV"),
        ("killed", "Crash", "SIGKILL"),
        ("exit", "Crash", "exit code 7"),
        ("sleep 60", "Timeout", "stopped after 0.5 s"),
        ("eat 900", "MemoryLimit", "--memory-limit"),
        ("input", "InputError", "(input) holds no images; name another folder"),
        ("unexpected", "ValueError", "the analysis failed unexpectedly (ValueError)"),
        ("disk", "DiskFull", "the disk is full"),
    ],
)
def test_errors_are_reported_without_names(job, behaviour, error_class, message):
    made = job(behaviour)
    timeout = 0.5 if behaviour.startswith("sleep") else 30
    outcome = run_job(made, Limits(timeout, 400, 1), fakes.ANALYZE)
    assert outcome.error_class == error_class
    assert message in outcome.error_message
    assert "Doe" not in outcome.error_message and "Jane" not in outcome.error_message
    assert outcome.disk_full == (behaviour == "disk")
    assert list(Path(made.output).iterdir()) == []
    assert left_behind(made) == []


def test_the_detail_of_a_crash_says_where(job):
    assert "in behave" in run_job(job("segfault"), Limits(30), fakes.ANALYZE).detail
    assert "ValueError: Patient" in run_job(job("unexpected"), Limits(30), fakes.ANALYZE).detail


def test_what_an_analysis_started_ends_with_it(job, tmp_path):
    pid_file = tmp_path / "pid"
    assert run_job(job(f"fork {pid_file}"), Limits(1.5), fakes.ANALYZE).error_class == "Timeout"
    assert not running(int(pid_file.read_text()))


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_analysis_ends_when_the_one_who_watches_is_killed(job):
    made = job("sleep 60")
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); import batch_fakes as fakes\n"
        "from leakloc.services.batch import run; from leakloc.core.settings import Settings\n"
        "run.PRELOAD[:] = []\n"
        "if __name__ == '__main__':\n"
        "    job = run.Job('1.2', (sys.argv[1],), None, sys.argv[2], Settings())\n"
        "    run.run_job(job, run.Limits(60), fakes.ANALYZE)\n"
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", code, made.source[0], made.output, str(Path(fakes.__file__).parent)]
    )
    deadline = time.monotonic() + 20
    scratch: list[Path] = []
    while not any((place / "log").exists() for place in scratch):
        assert time.monotonic() < deadline and watcher.poll() is None
        time.sleep(0.05)
        scratch = left_behind(made)
    family = psutil.Process(watcher.pid).children(recursive=True)
    assert family
    watcher.send_signal(signal.SIGKILL)
    watcher.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [one for one in alive if running(one.pid)] == []
    clean_up(Path(made.output))
    assert left_behind(made) == []


def test_clean_up_removes_halves_and_puts_back_what_was_being_replaced(tmp_path):
    for name in (".1.2.aaaaaaaa.partial", ".1.2.bbbbbbbb.old", ".1.3.cccccccc.old", "1.3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(name)
    clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.2", "1.3"]
    assert (tmp_path / "1.2" / "report.json").read_text() == ".1.2.bbbbbbbb.old"
    assert (tmp_path / "1.3" / "report.json").read_text() == "1.3"


@pytest.mark.parametrize(
    "name", [".thesis.old", ".download.partial", ".thesis.aaaaaaaa.old", ".1.2.bbbbbbbb.partial"]
)
def test_clean_up_keeps_folders_of_others(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious.txt").write_text("x")
    link = tmp_path / ".1.3.cccccccc.old"
    link.symlink_to(tmp_path / name)
    clean_up(tmp_path, ["1.3", "download"])
    assert (tmp_path / name / "precious.txt").exists() and link.is_symlink()
    clean_up(tmp_path, ["1.2"])  # a study of this folder
    assert (tmp_path / name).exists() == (not name.startswith(".1.2."))


def test_a_study_spread_over_places_is_read_as_one(job, tmp_path):
    other = tmp_path / "other"
    fakes.make_study(other, 1)
    (other / "behaviour.txt").unlink()
    made = job()
    spread = Job(
        made.name, (made.source[0], str(other / "im0")), made.study_uid, made.output, made.settings
    )
    outcome = run_job(spread, Limits(30), "batch_fakes_listing:listing")
    assert outcome.error_class == "AssertionError"
    names = outcome.detail.split("listing:")[-1].split()
    assert len(names) == 4  # two images and a text here, one there


def test_a_missing_output_folder_is_reported(job):
    made = job()
    Path(made.output).rmdir()
    outcome = run_job(made, Limits(30), fakes.ANALYZE)
    assert (outcome.error_class, "every worker" in outcome.error_message) == ("OutputError", True)


PATIENT = "DOE^Jane 1961"


def broken_slices(place: Path, series: Callable[..., Any]) -> Path:
    """A series whose files are named after the patient; the pixels cannot be decoded."""
    made = series(
        shape=(12, 32, 32), SeriesDescription="3D myelo", EchoTime=600.0, RepetitionTime=5000.0,
        ScanningSequence="SE",
    )  # fmt: skip
    for dataset in made.datasets:
        dataset.PixelData = encapsulate([b"\2\0\0\0broken" * 20])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = RLELossless
    made.write(place, prefix=PATIENT)
    return place


def bad_archive(place: Path, series: Callable[..., Any]) -> Path:
    place.mkdir()
    with zipfile.ZipFile(place / PATIENT, "w") as archive:
        archive.writestr("a", os.urandom(5000))
    content = bytearray((place / PATIENT).read_bytes())
    content[100:400] = bytes(300)
    (place / PATIENT).write_bytes(content)
    return place / PATIENT


def bad_volume(place: Path, series: Callable[..., Any]) -> Path:
    (place / PATIENT).mkdir(parents=True)
    (place / PATIENT / f"{PATIENT}.nii").write_bytes(nib.Nifti1Image(
        np.zeros((9, 9, 9, 2), np.uint8), np.eye(4)).to_bytes())  # fmt: skip
    return place


def cut_volume(place: Path, series: Callable[..., Any]) -> Path:
    place.mkdir()
    image = nib.Nifti1Image(np.arange(8000, dtype=np.int16).reshape(20, 20, 20), np.eye(4))
    (place / f"{PATIENT}.nii").write_bytes(image.to_bytes()[:-100])
    return place / f"{PATIENT}.nii"


def no_file(place: Path, series: Callable[..., Any]) -> Path:
    return place / PATIENT


def bad_index(place: Path, series: Callable[..., Any]) -> Path:
    (place / PATIENT).mkdir(parents=True)
    (place / PATIENT / "DICOMDIR").write_bytes(bytes(128) + b"DICM1.2.840.10008.1.3.10")
    return place / PATIENT / "DICOMDIR"


@pytest.mark.parametrize(
    "make", [broken_slices, bad_archive, bad_volume, cut_volume, no_file, bad_index]
)
@pytest.mark.parametrize("identity", ["hash", "keep"])
def test_errors_name_files_by_their_position(series, tmp_path, make, identity):
    source = make(tmp_path / "in", series)
    (tmp_path / "out").mkdir()
    settings = Settings().changed(report__identity=identity)
    job = Job("1.2", (str(source),), None, str(tmp_path / "out"), settings)
    result = _run_analysis(job, ANALYZE, tmp_path / "scratch")
    assert result.error_class == "InputError"
    if identity == "keep":
        assert source.name in result.error_message or PATIENT in result.error_message
        return
    for part in ("DOE", "Jane", "1961"):
        assert part not in result.error_message
    if make is broken_slices:
        assert "pixels of file 1 of 12 (transfer syntax RLE" in result.error_message


@pytest.mark.parametrize("name", ["DOE_Jane", "Doe, J.", "DOE^JANE.dcm", "Jane.Doe.nii.gz"])
def test_names_in_messages_of_plug_ins_are_removed(tmp_path, name):
    (tmp_path / "images" / name).mkdir(parents=True)
    (tmp_path / "images" / name / name).write_text("x")
    job = Job("1.2", (str(tmp_path / "images"),), None, str(tmp_path), Settings())
    where = tmp_path / "images" / name / name
    message = _without_names(f"bad images in {where}: {name} and {name.split('.')[0]}", job)
    assert "oe" not in message and "OE" not in message and "Jane" not in message
    assert message.startswith("bad images in (input)")
