"""`leakloc diff`: compare two reports of one patient."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from leakloc.cli.codes import DONE
from leakloc.core.errors import OutputError, SettingsError
from leakloc.core.extras import LazyModule
from leakloc.report.compare import compare
from leakloc.report.model import Report

if TYPE_CHECKING:
    from leakloc import relabel
    from leakloc.report.page import followup
else:  # the text needs neither images nor figures
    relabel = LazyModule("leakloc.relabel")
    followup = LazyModule("leakloc.report.page.followup")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.studies and not options.html:
        raise SettingsError("--studies is only used for the figures of --html")
    before, after = Report.load(options.before), Report.load(options.after)
    analyses, same_patient = None, None
    if options.studies:
        one, two = options.studies
        analyses = relabel.reopen(options.before, one), relabel.reopen(options.after, two)
        same_patient = followup.same_patient(analyses)
    found = compare(before, after, same_patient=same_patient)
    if options.html:
        page = followup.followup_page(before, after, found, analyses)
        try:
            options.html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {options.html}: {error.strerror}") from error
    print(json.dumps(found.to_dict(), indent=2) if options.json else found.text)
    if options.html and not options.json:
        print(f"HTML: {options.html}")
    return DONE
