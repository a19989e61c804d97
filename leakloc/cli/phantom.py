"""`leakloc phantom`: write a digital spine phantom as a DICOM study with ground truth."""

from __future__ import annotations

import argparse
import json

from leakloc.cli.codes import DONE
from leakloc.cli.progress import ProgressDisplay
from leakloc.core.errors import OutputError
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
    phantom = make_phantom(options.scenario, options.seed)
    if options.output.exists() and any(options.output.iterdir()):
        raise OutputError(f"{options.output} is not empty; specify a new folder")
    with ProgressDisplay(verbose=options.verbose, quiet=options.quiet) as progress:
        write_study(phantom, options.output, progress=progress)
    found = {"dicom": str(options.output / "dicom"), "truth": str(options.output / "truth")}
    if options.json:
        print(json.dumps(found))
    elif not options.quiet:
        print("\n".join(f"{name}: {path}" for name, path in found.items()))
    return DONE
