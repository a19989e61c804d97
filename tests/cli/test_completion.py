from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakloc.cli import DONE, main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="answers on a file descriptor")


def completions(line: str, folder: Path) -> list[str]:
    """Return what a shell receives after a line is typed and Tab is pressed."""
    answers = folder / "answers"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "leakloc"], env=environment, check=True)
    return [word.strip() for word in answers.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("leakloc an", ["analyze"]),
        ("leakloc analyze x --lumbar-c", ["--lumbar-count"]),
        ("leakloc analyze x --set levels.anchor_", ["levels.anchor_reach_mm="]),
        ("leakloc analyze x --pipeline post", ["postoperative"]),
        ("leakloc analyze x --write json,ma", ["json,masks", "json,markups"]),
    ],
)
def test_words_are_completed(tmp_path, line, expected):
    assert completions(line, tmp_path) == expected


@pytest.mark.parametrize(
    ("shell", "part"),
    [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete --command leakloc")],
)
def test_code_for_each_shell(capsys, shell, part):
    assert main(["completion", shell]) == DONE
    assert part in capsys.readouterr().out
