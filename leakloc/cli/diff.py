"""`leakloc diff`: compare two reports of one patient."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.report.compare import compare
from leakloc.report.model import Report


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    found = compare(Report.load(options.before), Report.load(options.after))
    print(json.dumps(found.to_dict(), indent=2) if options.json else found.text)
    return DONE
