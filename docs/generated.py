"""Generate documentation from the code: settings, report fields, commands, model card.

MkDocs calls `on_page_markdown`, which replaces a line ``<!-- generated: NAME -->`` by the output of
``NAME()``, so that the documentation always matches the code.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from html import escape
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from leakloc.core.messages import MESSAGES, Message

ROOT = Path(__file__).parents[1]
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page (called by MkDocs)."""
    return _MARK.sub(lambda match: GENERATED[match[1]](), markdown)


def settings() -> str:
    """Return all settings by section: name, default, bounds, meaning."""
    from leakloc.core.settings import Settings

    parts = []
    for section, field in Settings.model_fields.items():
        model = _models(field.annotation)[0]
        parts.append(f"## {section}\n\n{_text(model.__doc__)}\n\n")
        parts.append("| Setting | Default | Range | Meaning |\n|---|---|---|---|\n")
        for name, info in model.model_fields.items():
            default = info.get_default(call_default_factory=True)
            shown = "none" if default is None else f"`{default}`"
            meaning = _cell(info.description)
            parts.append(f"| `{section}.{name}` | {shown} | {_bounds(info)} | {meaning} |\n")
        parts.append("\n")
    return "".join(parts)


def report_fields() -> str:
    """Return all report fields, one table per part, in the order of report.json."""
    from leakloc.report import Report

    parts, waiting, visited = [], [("report.json", Report)], {Report}
    while waiting:
        title, model = waiting.pop(0)
        parts.append(f"## {title}\n\n{_text(model.__doc__)}\n\n| Field | Type | Meaning |\n")
        parts.append("|---|---|---|\n")
        for name, info in model.model_fields.items():
            key = info.serialization_alias or info.alias or name
            parts.append(f"| `{key}` | {_type(info)} | {_cell(info.description)} |\n")
            for inner in _models(info.annotation):
                if inner not in visited:
                    visited.add(inner)
                    waiting.append((key.replace("_", " "), inner))
        parts.append("\n")
    return "".join(parts)


def command_line() -> str:
    """Return the `--help` text of every command."""
    from leakloc.cli.parser import commands_of, make_parser

    parser = make_parser()
    parts = [f"```text\n{_help(parser)}```\n\n"]
    for name, command in commands_of(parser).items():
        parts.append(f"## leakloc {name}\n\n```text\n{_help(command)}```\n\n")
    return "".join(parts)


def warnings() -> str:
    """Return all warning codes with their messages and what to do, from the table."""
    rows = [
        f"| `{code}` | {_wordings(message)} | {_cell(message.advice)} |\n"
        for code, message in sorted(MESSAGES.items())
    ]
    return "| Code | Message | What to do |\n|---|---|---|\n" + "".join(rows)


def errors() -> str:
    """Return the error classes with their meaning."""
    from leakloc.core import errors as module

    rows = [
        f"| `{name}` | `{kind.__bases__[0].__name__}` | {_cell(kind.__doc__)} |\n"
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return "| Error | Kind of | Meaning |\n|---|---|---|\n" + "".join(rows)


def model_card() -> str:
    """Return the model cards of all networks."""
    names = ("MODEL_CARD", "DURA_CARD", "VOXELS_CARD", "SLEEVES_CARD", "CONUS_CARD")
    return "\n".join((ROOT / f"leakloc/models/{name}.md").read_text() for name in names)


def _wordings(message: Message) -> str:
    """Return the texts of a message, with … in place of values."""
    return "<br>".join(
        _cell(re.sub(r"\{\w+[^}]*\}", "…", text)) for text in message.templates.values()
    )


def _help(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=90)
    return parser.format_help()


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _type(info: FieldInfo) -> str:
    schema = {
        "string": "text",
        "array": "list",
        "object": "object",
        "number": "number",
        "integer": "whole number",
        "boolean": "true or false",
        "null": "null",
    }
    annotation = info.annotation
    if models := _models(annotation):
        inside = models[0].__name__.strip("_")
        many = typing.get_origin(annotation) in (list, tuple, dict)
        return f"list of {inside}" if many else inside
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    from pydantic import TypeAdapter

    found = TypeAdapter(annotation).json_schema()
    options = found.get("anyOf", [found])
    return " or ".join(
        ", ".join(f"`{value}`" for value in option["enum"])
        if "enum" in option
        else schema.get(option.get("type", ""), "any")
        for option in options
    )


def _bounds(info: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(limit, name)}"
        for limit in info.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    if not found and typing.get_origin(info.annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(info.annotation))
    if not found and isinstance(info.annotation, types.UnionType):
        return "" if info.default is not None else "optional"
    return ", ".join(found)


def _text(doc: str | None) -> str:
    return " ".join((doc or "").split())


def _cell(text: str | None) -> str:
    return escape(_text(text), quote=False).replace("|", "\\|").replace("``", "`")


GENERATED = {
    function.__name__: function
    for function in (settings, report_fields, command_line, warnings, errors, model_card)
}
