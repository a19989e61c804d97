"""Number supplied masks with other programs; run by `numbering.py` in their environment.

    PYTHON benchmarks/numbering_peers.py FOLDER

`FOLDER` holds ``<case>.nii.gz`` (values of TotalSpineSeg's first step) and ``<case>.json`` (scores
for the path solver of SPINEPS); ``run_solvers.json`` is written to the same folder. leakloc is not
imported, and the networks of these programs are not run, only their numbering.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MISSING = (
    "{name} was left out: {reason}. Install it in a separate environment and specify its "
    "interpreter with --peers (see docs/pages/evaluation.md)."
)


def totalspineseg(path: Path) -> list[tuple[int, list[float]]]:
    """Return the discs numbered by `totalspineseg`, with RAS centers, cranial to caudal.

    Called as in its `inference.py`. Raises `ValueError` if there is no landmark.
    """
    import nibabel as nib
    import numpy as np
    from scipy import ndimage
    from totalspineseg.utils.iterative_label import iterative_label

    numbered = iterative_label(
        nib.load(path),
        selected_disc_landmarks=[2, 5, 3, 4],
        disc_labels=[1, 2, 3, 4, 5],
        disc_landmark_labels=[2, 3, 4, 5],
        disc_landmark_output_labels=[63, 71, 91, 100],
        canal_labels=[8],
        canal_output_label=2,
        cord_labels=[9],
        cord_output_label=1,
        sacrum_labels=[6],
        sacrum_output_label=50,
        map_input_dict={7: 11},
    )
    array = np.asarray(numbered.dataobj)
    values = [int(v) for v in np.unique(array) if 60 < v <= 100]
    centers = [ndimage.center_of_mass(array == v) for v in values]
    ras = nib.affines.apply_affine(numbered.affine, np.reshape(centers, (-1, 3)))
    return [(v, p.tolist()) for v, p in zip(values, ras, strict=True)]


def spineps(path: Path) -> list[int]:
    """Return the vertebra values (TPTBox) of the path solver, cranial to caudal.

    Thoracic variants are disabled, as by its ``proc_lab_force_no_tl_anomaly``: the scores contain
    no information on them, so that the choice would be arbitrary.
    """
    import numpy as np
    from spineps.phase_labeling import fpath_post_processing
    from spineps.utils.find_min_cost_path import L5_CLASS_IDX, find_most_probably_sequence

    scores = np.array(json.loads(path.read_text())["scores"])
    if not scores.size:
        raise ValueError("no vertebra")
    _, sequence, _ = find_most_probably_sequence(
        scores,
        min_start_class=1,
        invert_cost=True,
        allow_multiple_at_class=[L5_CLASS_IDX],
        allow_skip_at_class=[],
        allow_skip_at_region=[],
    )
    return [int(value) for value in fpath_post_processing(sequence)]


SOLVERS = {"totalspineseg": (totalspineseg, "*.nii.gz"), "spineps": (spineps, "*.json")}


def missing_message(name: str, reason: Exception) -> str:
    """Return a message for a program that cannot be imported."""
    return MISSING.format(name=name, reason=str(reason) or type(reason).__name__)


def run_solvers(folder: Path) -> dict[str, object]:
    """Return the results of every installed solver, and the reason for missing ones."""
    results: dict[str, object] = {}
    for name, (solver, pattern) in SOLVERS.items():
        cases = {}
        started = time.perf_counter()
        try:
            for path in sorted(folder.glob(pattern)):
                if path.name == "answers.json":
                    continue
                case = path.name.removesuffix(pattern[1:])
                try:
                    cases[case] = {"answer": solver(path)}
                except (ValueError, IndexError) as error:  # raised if the input is rejected
                    cases[case] = {"refused": str(error)}
            results[name] = {
                "version": version(name),
                "seconds": round(time.perf_counter() - started, 1),
                "cases": cases,
            }
        except (ImportError, PackageNotFoundError) as error:
            results[name] = {"absent": missing_message(name, error)}
    return results


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "answers.json").write_text(json.dumps(run_solvers(place)))
