"""Every command and snippet of the README and the documentation, executed.

A page's blocks run in order in one fresh folder that holds `sample_data` and `pipelines`.
``STUDY`` stands for the sample study, ``OUT`` for a folder. A block after a comment
``<!-- checked, not run: REASON -->`` needs what a test has not got (a PACS, a cluster): its
leakloc commands are parsed instead. `make` lines must name targets that exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/pages").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- checked, not run: (?P<reason>[^>]+) -->\n+)?"
    r"^```(?P<kind>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SAMPLE = "sample_data/postoperative/dicom"


@dataclass(frozen=True)
class Block:
    kind: str
    code: str
    reason: str | None

    @property
    def make_targets(self) -> list[str]:
        return re.findall(r"^make (\S+)", self.code, re.MULTILINE)


def blocks(page: Path) -> list[Block]:
    return [Block(m["kind"], m["code"], m["reason"]) for m in FENCE.finditer(page.read_text())]


def commands(code: str) -> list[list[str]]:
    """The leakloc commands of a shell block, split into words."""
    joined = code.replace("\\\n", " ").replace(".venv/bin/leakloc", "leakloc")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words for words in lines if words and words[0] == "leakloc"]


RUNNABLE = [page for page in PAGES if any(not block.reason for block in blocks(page))]


@pytest.mark.slow  # one to two minutes each; `make test-docs` runs three of them
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_page_runs(page, tmp_path):
    for name in ("sample_data", "pipelines", "leakloc", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in blocks(page):
        if block.reason or block.make_targets:
            continue
        code = re.sub(r"\bSTUDY\b", SAMPLE, block.code)
        code = re.sub(r"\bOUT\b", "out", code)
        run = ["bash", "-euo", "pipefail", "-c"] if block.kind == "sh" else [sys.executable, "-c"]
        ran = subprocess.run(
            [*run, code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, f"{block.code}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_understood(page):
    from leakloc.cli.parser import make_parser

    for block in blocks(page):
        for words in commands(block.code) if block.kind == "sh" else []:
            words = words[1 : words.index(">")] if ">" in words else words[1:]
            if words != ["--help"]:
                make_parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(page):
        for target in block.make_targets:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
