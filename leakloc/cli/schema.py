"""`leakloc schema`: print the JSON Schema of report.json."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.report import report_schema


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    print(json.dumps(report_schema(), indent=2))
    return DONE
