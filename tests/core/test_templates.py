"""Every value in a template is escaped, and a missing value is an error."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jinja2
import pytest

from leakloc.core import templates

PACKAGE = Path(str(files("leakloc")))
TEMPLATES = sorted(PACKAGE.rglob("*.j2"))


def test_all_templates_compile_and_none_disables_escaping():
    assert len(TEMPLATES) > 5
    for file in TEMPLATES:
        templates._environment().get_template(file.relative_to(PACKAGE).as_posix())
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|\bMarkup\b", text), file.name


def test_values_are_escaped():
    picture = {"alt": '"><script>', "png": "", "notice": ""}
    text = templates.render_html("notebook/volume.html.j2", text="<b>&'", picture=picture)
    assert "<code>&lt;b&gt;&amp;&#39;</code>" in text
    assert "<script>" not in text and 'alt="&#34;&gt;' in text


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        templates.render_html("notebook/volume.html.j2", text="")


def test_html_is_written_in_templates_only():
    for file in PACKAGE.rglob("*.py"):
        found = re.findall(r"</\w+>|<(?:div|table|img|tr|td|span)\b", file.read_text("utf-8"))
        assert not found, file.name


def test_jinja_is_imported_on_use_only():
    code = (
        "import sys, leakloc.cli, leakloc.pipeline, leakloc.report; print('jinja2' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
