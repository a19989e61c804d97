"""`leakloc config`: print all settings with their descriptions."""

from __future__ import annotations

import argparse

from leakloc.cli.codes import DONE
from leakloc.cli.shared import settings_of


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    settings = settings_of(options)
    print(settings.model_dump_json(indent=2) if options.json else settings.to_toml(), end="")
    return DONE
