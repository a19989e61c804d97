from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakloc import __version__
from leakloc.cli import ANALYSIS_FAILED, BAD_USAGE, DONE, INPUT_UNUSABLE, exit_code, main
from leakloc.core.errors import (
    AnalysisError,
    GeometryError,
    InputError,
    OutputError,
    SettingsError,
)
from leakloc.core.settings import Settings


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError, BAD_USAGE),
        (OutputError, BAD_USAGE),
        (InputError, INPUT_UNUSABLE),
        (GeometryError, INPUT_UNUSABLE),
        (AnalysisError, ANALYSIS_FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error("x")) == code


def test_help_starts_at_once():
    def seconds() -> float:
        """Processor time, which does not depend on other programs."""
        start = os.times()
        subprocess.run([sys.executable, "-m", "leakloc", "--help"], check=True, capture_output=True)
        end = os.times()
        return sum(end[2:4]) - sum(start[2:4])

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_imports_nothing_heavy():
    code = "import sys, leakloc.cli as c; c.make_parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    heavy = {
        "numpy",
        "SimpleITK",
        "pydicom",
        "scipy",
        "contourpy",
        "rich",
        "highdicom",
        "jinja2",
    }
    assert heavy & set(loaded.stdout.split()) == set()


def test_version(capsys):
    assert run(capsys, "version") == (DONE, f"leakloc {__version__}\n", "")
    code, out, _ = run(capsys, "version", "--json")
    assert (code, json.loads(out)) == (DONE, {"version": __version__})


def test_config_prints_what_was_set(capsys):
    code, out, _ = run(capsys, "config", "--json", "--set", "stages.labeler=mine")
    assert code == DONE
    assert Settings.from_dict(json.loads(out)).stages.labeler == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["config", "--set", "nonsense"], "SECTION.KEY=VALUE"),
        (["config", "--set", "stages.nothing=1"], "no setting is named 'stages.nothing'"),
        (["config", "--set", "levels.ancor=1"], "did you mean 'levels.anchor'?"),
        (["config", "--set", "levels.collection_gap_mm=1"], "'segmentation.collection_gap_mm'?"),
        (["config", "--set", "report.identity=hsh"], "did you mean 'hash'?"),
        (["phantom", "out", "--scenario", "nrmal"], "did you mean 'normal'?"),
        (["evaluate", "--sweep", "snrr", "-q"], "did you mean 'snr'?"),
        (["config", "--pipeline", "no-such-recipe"], "postoperative"),
        (["evaluate", "--phantom", "--seeds", "many"], "--seeds takes"),
        (["evaluate", "--phantom", "no-such-scenario"], "no scenario is named"),
        (["phantom", "out", "--scenario", "no-such-scenario"], "no scenario is named"),
    ],
)
def test_bad_usage_gets_one_sentence_and_exit_code_2(capsys, arguments, complaint):
    code, out, err = run(capsys, *arguments)
    assert code == BAD_USAGE
    assert out == ""
    assert complaint in err
    assert len(err.strip().splitlines()) == 1


def test_unknown_arguments_are_bad_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["analyze", "--nonsense"])
    assert stop.value.code == BAD_USAGE


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["analyze", "gone", "-o", "{out}", "--write", "pdf"], "figures"),
        (["batch", "gone", "-o", "{out}"], "batch"),
        (["node", "-o", "{out}"], "node"),
        (["evaluate", "--phantom", "normal", "-o", "{out}"], "figures"),
    ],
)
def test_a_missing_extra_is_named_before_anything_is_done(
    capsys, monkeypatch, tmp_path, arguments, extra
):
    monkeypatch.setattr("leakloc.core.extras.find_spec", lambda name: None)
    out = tmp_path / "out"
    code, _, err = run(capsys, *(word.format(out=out) for word in arguments))
    assert code == BAD_USAGE
    assert err.endswith(f"pip install 'leakloc[{extra}]'\n") and len(err.splitlines()) == 1
    assert not out.exists()


def test_quiet_prints_neither_progress_nor_a_summary(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "leakloc.cli.phantom.write_study", lambda *_, progress, **__: progress("x", 0)
    )
    arguments = ("phantom", tmp_path / "out", "--scenario", "normal")
    assert run(capsys, *arguments, "--quiet") == (DONE, "", "")
    code, out, err = run(capsys, *arguments, "--verbose")
    assert (code, err) == (DONE, "  0% x\n") and "truth:" in out
