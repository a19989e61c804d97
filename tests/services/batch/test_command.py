from __future__ import annotations

import json
import shutil
from pathlib import Path

import batch_fakes as fakes
import pydicom
import pytest

from leakloc.cli import ANALYSIS_FAILED, BAD_USAGE, DONE, INPUT_UNUSABLE, main
from leakloc.cli.batch import SOME_FAILED
from leakloc.report import Report
from leakloc.services.batch import batch as batching
from leakloc.services.batch.batch import Tally
from leakloc.services.batch.ledger import Ledger

SAMPLE = Path(__file__).parents[3] / "sample_data" / "postoperative" / "dicom"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["batch", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with the replacement for the analysis."""
    init = batching.Batch.__init__

    def replaced(self, output, settings, options, **others) -> None:
        from dataclasses import replace

        init(self, output, settings, replace(options, analyze=fakes.ANALYZE), **others)

    monkeypatch.setattr(batching.Batch, "__init__", replaced)


@pytest.mark.parametrize(
    ("behaviours", "code"),
    [(["", ""], DONE), (["", "input"], SOME_FAILED), (["input", "exit"], ANALYSIS_FAILED)],
)
def test_the_exit_code_says_whether_all_some_or_none_succeeded(
    capsys, tmp_path, quick, behaviours, code
):
    for number, behaviour in enumerate(behaviours):
        fakes.make_study(tmp_path / "in" / str(number), number, behaviour)
    options = (tmp_path / "in", "-o", tmp_path / "out", "--workers", "2", "--retries", "0")
    found, out, _ = run(capsys, *options)
    good = behaviours.count("")
    assert found == code
    assert f"{good} of 2 studies finished (0 of them earlier), {2 - good} failed" in out
    found, out, _ = run(capsys, *options, "--json")
    assert found == code
    assert json.loads(out) == {"finished": good, "failed": 2 - good, "kept": good, "left_out": {}}


def test_status_lists_the_ledger(capsys, tmp_path, quick):
    uid = fakes.make_study(tmp_path / "in" / "a", 1, "input")
    run(capsys, tmp_path / "in", "-o", tmp_path / "out", "-v")
    code, out, _ = run(capsys, "-o", tmp_path / "out", "--status")
    assert code == DONE
    assert uid in out and "InputError: (input) holds no images" in out
    assert str(tmp_path / "in" / "a") in out
    _, out, _ = run(capsys, "-o", tmp_path / "out", "--status", "--json")
    (entry,) = json.loads(out)
    assert (entry["name"], entry["state"], entry["attempts"]) == (uid, "failed", 2)
    assert "Traceback" in entry["error_detail"]


def test_verbose_reports_each_study(capsys, tmp_path, quick):
    uid = fakes.make_study(tmp_path / "in" / "Doe", 1, "segfault")
    _, _, err = run(capsys, tmp_path / "in", "-o", tmp_path / "out", "-v", "--retries", "0")
    assert f"{uid} failed" in err and "SIGSEGV" in err and "Doe" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["-o", "{out}"], BAD_USAGE, "specify at least one ROOT"),
        (["{in}/gone", "-o", "{out}"], INPUT_UNUSABLE, "does not exist"),
        (["{in}", "-o", "{out}"], INPUT_UNUSABLE, "no MR study"),
        (["{in}", "-o", "{out}", "--retries", "-1"], BAD_USAGE, "--retries"),
        (["--watch", "{in}/gone", "-o", "{out}"], INPUT_UNUSABLE, "not a folder to watch"),
        (["-o", "{out}", "--status"], INPUT_UNUSABLE, "no job database"),
        (["{in}", "-o", "{in}/file/out"], BAD_USAGE, "cannot create the folder"),
    ],
)
def test_bad_usage_gets_one_sentence(capsys, tmp_path, arguments, code, complaint):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").touch()
    places = {"in": tmp_path / "in", "out": tmp_path / "out"}
    found, _, err = run(capsys, *(argument.format(**places) for argument in arguments))
    assert (found, complaint in err) == (code, True), err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "wrong", [["--timeout", "soon"], ["--memory-limit", "4X"], ["--workers", "0"], ["--settle=-1"]]
)
def test_values_are_checked(capsys, wrong):
    with pytest.raises(SystemExit) as stop:
        main(["batch", "in", "-o", "out", *wrong])
    assert stop.value.code == BAD_USAGE


def test_times_and_sizes():
    from leakloc.cli.parser import _mebibytes, _seconds

    assert [_seconds(text) for text in ("90", "90s", "1.5m", "1h", "0")] == [90, 90, 90, 3600, 0]
    assert [_mebibytes(text) for text in ("1500", "1500M", "4G", "2GiB")] == [
        1500, 1500, 4096, 2048,
    ]  # fmt: skip


def test_the_line_says_what_is_left():
    from leakloc.cli.batch import format_progress

    tally = Tally(found=10, finished=4, failed=1, waiting=3, running=2, workers=2)
    assert format_progress(tally) == "4 of 10 finished, 1 failed, 5 to do"
    assert format_progress(Tally(found=1, waiting=1)) == (
        "0 of 1 finished, 0 failed, 1 to do; waiting for workers"
    )


@pytest.mark.slow
def test_real_studies_are_analyzed_in_the_same_way_as_alone(capsys, tmp_path):
    from leakloc.pipeline import analyze

    for number in range(2):
        for file in (file for file in SAMPLE.rglob("*") if file.is_file()):
            dataset = pydicom.dcmread(file)
            dataset.StudyInstanceUID = f"{fakes.UID_ROOT}.{number + 1}"
            target = tmp_path / "in" / str(number) / file.relative_to(SAMPLE)
            target.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(target)
    shutil.make_archive(str(tmp_path / "in" / "1"), "zip", tmp_path / "in" / "1")
    shutil.rmtree(tmp_path / "in" / "1")
    code, _, _ = run(capsys, tmp_path / "in", "-o", tmp_path / "out", "--workers", "1")
    assert code == DONE
    alone = analyze(SAMPLE).report
    for number in range(2):
        report = Report.load(tmp_path / "out" / f"{fakes.UID_ROOT}.{number + 1}")
        assert report.finding == alone.finding
        assert report.collections[0].volume_ml == pytest.approx(alone.collections[0].volume_ml)
        assert report.outputs.dicom["seg"] == "dicom/seg.dcm"
    assert "data:image/webp" in (tmp_path / "out" / "index.html").read_text()
    for entry in Ledger(tmp_path / "out").entries():
        assert entry.peak_mib > 300 and entry.cpu_s > 1
