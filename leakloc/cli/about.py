"""`leakloc config`, `schema` and `version`: print settings, report schema and version."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from leakloc import __version__
from leakloc.cli.shared import DONE, common_options, recipe_options, settings_of

if TYPE_CHECKING:
    from leakloc.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    config = commands.add_parser(
        "config",
        parents=[recipe_options(), common_options()],
        help="print all settings with their descriptions",
    )
    config.set_defaults(command=_config)
    schema = commands.add_parser(
        "schema", parents=[common_options()], help="print the JSON Schema of report.json"
    )
    schema.set_defaults(command=_schema)
    version = commands.add_parser("version", parents=[common_options()], help="print the version")
    version.set_defaults(command=_version)


def _config(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    print(settings.model_dump_json(indent=2) if options.json else settings.to_toml(), end="")
    return DONE


def _schema(options: argparse.Namespace) -> int:
    from leakloc.report import report_schema

    print(json.dumps(report_schema(), indent=2))
    return DONE


def _version(options: argparse.Namespace) -> int:
    print(json.dumps({"version": __version__}) if options.json else f"leakloc {__version__}")
    return DONE
