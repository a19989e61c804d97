"""`leakloc phantom`: write a digital spine phantom as a DICOM study with ground truth."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.cli.shared import ProgressLine
from leakloc.core.errors import OutputError, SettingsError
from leakloc.validation.phantom import SCENARIOS, make_phantom, write_study


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.list:
        if options.json:
            print(json.dumps({name: s.description for name, s in SCENARIOS.items()}, indent=2))
        else:
            width = max(map(len, SCENARIOS))
            for name, scenario in SCENARIOS.items():
                print(f"{name:{width}}  {scenario.description}")
        return DONE
    if options.scenario not in SCENARIOS:
        raise SettingsError(
            f"no scenario is named {options.scenario!r}; see `leakloc phantom OUT --list`"
        )
    if options.output.exists() and any(options.output.iterdir()):
        raise OutputError(f"{options.output} is not empty; specify a new folder")
    with ProgressLine(verbose=options.verbose) as progress:
        phantom = make_phantom(options.scenario, options.seed)
        write_study(phantom, options.output, progress=progress)
    found = {"dicom": str(options.output / "dicom"), "truth": str(options.output / "truth")}
    print(json.dumps(found) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return DONE
