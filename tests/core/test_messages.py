"""The table of warnings: complete, used, and formatted by the values that the stages pass."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

import leakloc
from leakloc.core.messages import MESSAGES
from leakloc.core.notes import Note, note

TEMPLATES = [
    (code, variant, template)
    for code, message in MESSAGES.items()
    for variant, template in message.templates.items()
]


def trees():
    for path in Path(leakloc.__file__).parent.rglob("*.py"):
        if path.name != "messages.py":
            yield ast.parse(path.read_text())


def strings(node):
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}


def placeholders(template):
    return {name: spec for _, name, spec, _ in Formatter().parse(template) if name is not None}


@pytest.mark.parametrize(("code", "variant", "template"), TEMPLATES)
def test_each_template_can_be_formatted(code, variant, template):
    values = {name: 1.0 if spec else "x" for name, spec in placeholders(template).items()}
    made = note(code, variant, **values)
    assert made.code == code and made.message
    assert not re.search(r"[{}]|\s\s", made.message)


def test_an_unknown_code_variant_or_value_raises():
    for wrong in (("no_such_code",), ("sac_given", "other"), ("sacrum_cut",)):
        with pytest.raises(KeyError):
            note(*wrong)


def test_each_code_is_used():
    assert not MESSAGES.keys() - set().union(*(strings(tree) for tree in trees()))
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code) for code in MESSAGES)


def test_calls_pass_the_values_of_the_template():
    """Also those of rare notes, so that no analysis fails over its note."""
    calls = 0
    for tree in trees():
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "note"):
                continue
            calls += 1
            passed = {keyword.arg for keyword in call.keywords}
            for code in strings(call.args[0]) & MESSAGES.keys():
                templates = MESSAGES[code].templates
                variants = strings(call.args[1]) & templates.keys() if call.args[1:] else {""}
                assert variants or isinstance(call.args[1], ast.Name), ast.unparse(call)
                for variant in variants or templates:
                    missing = placeholders(templates[variant]).keys() - passed
                    assert not missing or None in passed, ast.unparse(call)  # None: **values
    assert calls > 60


def test_a_plug_in_makes_notes_with_codes_of_its_own():
    mine = Note("low_field", "Field strength below 1 T.")
    assert not (mine.definition.precludes_finding or mine.definition.concerns_images)
    assert Note("no_myelogram", "There is none.").definition.precludes_finding
