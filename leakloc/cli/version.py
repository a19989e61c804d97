"""`leakloc version`: print the version."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.core.version import __version__


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    print(json.dumps({"version": __version__}) if options.json else f"leakloc {__version__}")
    return DONE
