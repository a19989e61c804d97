"""The documentation builds without a warning, offline, and agrees with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(ROOT / "docs/mkdocs.yml")]
    built = subprocess.run(
        [*command, "--strict", "--quiet", "-d", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr, built.stderr
    return out


def test_nothing_is_fetched_from_elsewhere(site):
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"')
    for page in site.glob("*.html"):
        for match in loads.finditer(page.read_text()):
            address = match[1] or match[2]
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style.name


def test_no_mark_is_left_unfilled(site):
    for page in site.glob("*.html"):
        assert "generated:" not in page.read_text(), page.name


def test_every_setting_is_listed(site):
    from leakloc.core.settings import Settings

    text = (site / "settings.html").read_text()
    for section, values in Settings().model_dump().items():
        for name in values:
            assert f"{section}.{name}" in text


def test_every_command_is_listed(site):
    text = (site / "command_line.html").read_text()
    for command in ("analyze", "series", "phantom", "evaluate", "config", "schema"):
        assert f"leakloc {command} [-h]" in text


def test_every_warning_is_listed_with_its_message(site):
    from leakloc.core.messages import MESSAGES

    text = (site / "errors.html").read_text()
    assert re.search(r"<code>weak_t2_weighting</code></td>\s*<td>[^<]*T2", text)
    for code, message in MESSAGES.items():
        [row] = re.findall(rf"<td><code>{code}</code></td>\s*<td>(.*?)</td>", text)
        assert len(row.split("<br>")) == len(message.templates), row
