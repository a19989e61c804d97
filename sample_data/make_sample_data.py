"""Make the sample study again: `make sample-data`.

A small postoperative phantom: voxels of 1.25 mm, two sequences with a localizer and a
projection, so that a complete study stays small enough for git.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from leakloc.validation.phantom import SCENARIOS, compact, make_phantom, write_study

FOLDER = Path(__file__).parent / "postoperative"
SEED = 7

scenario = compact(SCENARIOS["postoperative_dorsal"])
scenario = replace(
    scenario,
    collections=(replace(scenario.collections[0], levels=("L4-L5",)),),
    vendor="siemens",
    field_t=1.5,
)

if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_study(make_phantom(scenario, SEED), FOLDER)
    size_mb = sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) / 1e6
    print(f"{FOLDER}: {size_mb:.1f} MB")
