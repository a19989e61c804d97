"""Fit the calibrated probability of candidates of epidural fluid.

The candidates are components that the dura network classifies as fluid, in simulated studies of
the development patients and in phantoms; a candidate is true if a tenth of it is simulated fluid.
Prints `leakloc.segmentation.classification.CONFIDENCE`, of which the last weight is fitted.

    python pipelines/fit_confidence.py SPIDER --seeds 11 --rows simulated.json
    python pipelines/fit_confidence.py --phantom-seeds 30 --rows phantoms.json
    python pipelines/fit_confidence.py --phantom-seeds 33,34,35 --rows fat.json \
        --scenarios metal,fat_suppression_failure
    python pipelines/fit_confidence.py --phantom-seeds 36,37,38,39,44,45,46,47,48,49 \
        --scenarios metal --rows metal.json
    python pipelines/fit_confidence.py --fit simulated.json phantoms.json fat.json metal.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dura_samples import heavy_t2_series
from scipy.optimize import minimize_scalar

from leakloc.anatomy.spine import Spine
from leakloc.core.errors import LeaklocError
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Volume
from leakloc.segmentation import segment
from leakloc.segmentation.classification import confidence_evidence
from leakloc.validation.phantom import SCENARIOS as PHANTOMS
from leakloc.validation.phantom import make_phantom
from leakloc.validation.simulation import DEVELOPMENT_PATIENTS, SCENARIOS, read_patient, simulate

Row = tuple[float, float, float, float, bool]
"""Peak network fraction, contact with the sac, volume in mL, signal of the surrounding tissue, and
whether it is fluid."""
TRUE_FRACTION = 0.1
"""Minimum fraction of simulated fluid in a true candidate."""
ANY = SegmentationSettings(collection_min_probability=0.001)
"""Accepts everything that the network classifies as fluid."""
FORMER = np.array([-0.80, 1.25, 1.92, 0.51])
"""Weights of the other predictors, fitted to 124 candidates of former networks, three of them
false. The present networks detect fewer false ones, too few to fit all weights: with all of them
free, the weight of the volume vanishes."""
RIDGE = 0.02
"""Penalty on the squared weight, needed because few candidates are false."""


def candidates(myelogram: Volume, fluid: npt.NDArray[np.bool_]) -> list[Row]:
    """Return the features of every candidate, and whether it is fluid."""
    suppressed = replace(myelogram.provenance, fat_suppressed=True)
    volume = Volume(myelogram.array, myelogram.geometry, suppressed)
    try:
        found = segment(Spine(volume), {}, ANY)
    except LeaklocError:
        return []
    labels = found.collections.array
    return [
        (
            c.features.network,
            c.features.contact_fraction,
            c.features.volume_ml,
            c.features.surrounding,
            bool(fluid[labels == c.id].mean() >= TRUE_FRACTION),
        )
        for c in found.accepted
        if c.features is not None
    ]


def simulated(folder: Path, seeds: list[int]) -> Iterator[Row]:
    """Yield the candidates in simulated studies of the development patients."""
    names = [name for name, scenario in SCENARIOS.items() if scenario.fat != "none"]
    for n, number in enumerate(DEVELOPMENT_PATIENTS):
        patient = read_patient(folder, number)
        for seed in seeds:
            for name in names[(n + seed) % 3 :: 3]:
                study = simulate(patient, name, seed, companion=False)
                yield from candidates(study.myelogram, study.fluid.array > 0)


def phantoms(seeds: list[int], scenarios: list[str]) -> Iterator[Row]:
    """Yield the candidates in phantoms."""
    for seed in seeds:
        for name in scenarios:
            phantom = make_phantom(name, seed)
            series = heavy_t2_series(phantom)
            if not series or len(series[-1].stacks) != 1:
                continue
            volume = phantom.image(series[-1].sequence, series[-1].geometry)
            yield from candidates(volume, phantom.masks(volume.geometry).fluid.array > 0)


def fit(rows: list[Row]) -> float:
    """Return the weight of the surrounding tissue in `confidence_evidence`."""
    *features, true = (np.array(c, dtype=float) for c in zip(*rows, strict=True))
    evidence = confidence_evidence(*features)
    sign = np.where(true > 0, 1, -1)

    def loss(weight: float) -> float:
        logit = evidence @ np.append(FORMER, weight)
        return float(np.logaddexp(0, -logit * sign).sum() + RIDGE * weight**2)

    return float(minimize_scalar(loss, bounds=(-10.0, 0.0), method="bounded").x)


def numbers(text: str) -> list[int]:
    """Parse comma-separated numbers."""
    return [int(n) for n in text.split(",") if n]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("spider", type=Path, nargs="?")
    parser.add_argument("--seeds", type=numbers, default=[11])
    parser.add_argument("--phantom-seeds", type=numbers, default=[])
    parser.add_argument("--scenarios", default=",".join(PHANTOMS), help="of the phantoms")
    parser.add_argument("--rows", type=Path, help="write the candidates to this file")
    parser.add_argument("--fit", type=Path, nargs="+", default=[], help="files written with --rows")
    options = parser.parse_args()
    rows: list[Row] = [tuple(row) for path in options.fit for row in json.loads(path.read_text())]
    if options.spider is not None:
        rows += list(simulated(options.spider, options.seeds))
    rows += list(phantoms(options.phantom_seeds, options.scenarios.split(",")))
    if options.rows is not None:
        options.rows.write_text(json.dumps(rows))
    large = [row for row in rows if row[2] >= ANY.collection_min_ml]
    false = [row for row in large if not row[-1]]
    print(f"{len(large)} candidates, {len(false)} of them false")
    for network, contact, volume, around, _ in false:
        print(
            f"  false: network {network:.2f}, contact {contact:.2f}, {volume:.2f} mL, "
            f"surrounding {around:.2f}"
        )
    weights = (*FORMER, fit(large))
    print("CONFIDENCE = (" + ", ".join(f"{w:.2f}" for w in weights) + ")")


if __name__ == "__main__":
    main()
