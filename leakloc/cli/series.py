"""`leakloc series`: list the series of a study and the role of each."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Final

from leakloc.cli.codes import DONE
from leakloc.cli.shared import print_table, settings_of
from leakloc.core.errors import counted, printable
from leakloc.loaders import load_study, series_table

COLUMNS: Final = (
    *("series", "role", "used_for", "description", "n_instances", "spacing_mm"),
    "reason",
)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    settings = settings_of(options)
    study = load_study(options.study, settings.loaders, study_uid=options.study_uid)
    rows, skipped = series_table(
        study,
        settings.loaders,
        myelogram_uid=options.myelogram,
        companion_uids=tuple(options.companion),
    )
    if options.json:
        print(json.dumps({"series": rows, "skipped": skipped}, indent=2))
        return DONE
    print_table([{**row, "used_for": " + ".join(row["used_for"]) or None} for row in rows], COLUMNS)
    for row in rows:
        for note in row["notes"]:
            print(printable(f"series {row['series'] or '-'}: {note}"))
    if skipped:
        print(f"{counted(len(skipped), 'files')} skipped:")
        for reason, count in Counter(str(item["reason"]) for item in skipped).most_common():
            print(f"  {count} x {printable(reason)}")
    return DONE
