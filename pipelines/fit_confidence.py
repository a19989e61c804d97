"""Fit the calibrated probability of a piece of extradural fluid.

Pieces that the dura network takes for fluid, in simulated studies of the development patients and
in phantoms, against whether a tenth of them is painted fluid. Prints the coefficients for
`leakloc.segmentation.collections.CONFIDENCE`.

    python pipelines/fit_confidence.py SPIDER --seeds 11,12 --phantom-seeds 20,21
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from leakloc.errors import LeaklocError
from leakloc.phantom import SCENARIOS as PHANTOMS
from leakloc.phantom import make_phantom
from leakloc.segmentation import segment
from leakloc.settings import SegmentationSettings
from leakloc.simulation import DEVELOPMENT_PATIENTS, SCENARIOS, read_patient, simulate
from leakloc.volume import Volume

Row = tuple[float, float, bool]
TRUE_FRACTION = 0.1
"""Fraction of a piece that must be painted fluid for it to be a collection."""
PRIOR_WEIGHT = 0.02
"""Ridge penalty: few false pieces are to be had."""
ANY = SegmentationSettings(collection_min_probability=0.001, fluid_min_fraction=0.15)
"""Accepts everything, and a lower fraction than an analysis does: doubtful pieces are rare."""


def pieces(myelogram: Volume, companion: Volume | None, fluid: npt.NDArray[np.bool_]) -> list[Row]:
    """Peak fraction by the network, volume in mL, and whether it is fluid, for every piece."""
    suppressed = replace(myelogram.provenance, fat_suppressed=True)
    volume = Volume(myelogram.array, myelogram.geometry, suppressed)
    companions = {} if companion is None else {"sagittal_t2": companion}
    try:
        found = segment(volume, companions, ANY)  # type: ignore[arg-type]
    except LeaklocError:
        return []
    labels = found.collections.array
    return [
        (
            c.features["network"],
            c.features["volume_ml"],
            bool(fluid[labels == c.id].mean() >= TRUE_FRACTION),
        )
        for c in found.accepted
    ]


def simulated(folder: Path, seeds: list[int]) -> Iterator[Row]:
    """Pieces of simulated studies of the development patients."""
    names = [name for name, scenario in SCENARIOS.items() if scenario.fat != "none"]
    for n, number in enumerate(DEVELOPMENT_PATIENTS):
        patient = read_patient(folder, number)
        for seed in seeds:
            for name in names[(n + seed) % 3 :: 3]:
                study = simulate(patient, name, seed, companion=bool((n + seed) % 2))
                yield from pieces(study.myelogram, study.companion, study.fluid.array > 0)


def phantoms(seeds: list[int]) -> Iterator[Row]:
    """Pieces of phantoms."""
    for seed in seeds:
        for name in PHANTOMS:
            phantom = make_phantom(name, seed)
            series = [s for s in phantom.series() if s.sequence.name in ("ht2w_3d", "ht2w_bssfp")]
            if not series or len(series[-1].stacks) != 1:
                continue
            volume = phantom.image(series[-1].sequence, series[-1].geometry)
            yield from pieces(volume, None, phantom.masks(volume.geometry).fluid.array > 0)


def fit(rows: list[Row]) -> npt.NDArray[np.float64]:
    """Intercept, weight of the peak fraction and of the logarithm of the volume."""
    network, volume, true = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    design = np.stack([np.ones(len(rows)), network, np.log(volume)], axis=1)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        margin = design @ weights * np.where(true > 0, 1, -1)
        return float(np.logaddexp(0, -margin).mean() + PRIOR_WEIGHT * (weights[1:] ** 2).mean())

    return np.asarray(minimize(loss, [-3.0, 5.0, 0.5]).x)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("spider", type=Path)
    parser.add_argument("--seeds", default="11")
    parser.add_argument("--phantom-seeds", default="")
    options = parser.parse_args()
    rows = list(simulated(options.spider, [int(n) for n in options.seeds.split(",")]))
    if options.phantom_seeds:
        rows += list(phantoms([int(n) for n in options.phantom_seeds.split(",")]))
    large = [row for row in rows if row[1] >= 0.3]
    weights = fit(large)
    false = [row for row in large if not row[2]]
    print(f"{len(large)} pieces, {len(false)} of them false")
    for network, volume, _ in false:
        print(f"  false: network {network:.2f}, {volume:.2f} mL")
    print("CONFIDENCE = (" + ", ".join(f"{w:.2f}" for w in weights) + ")")


if __name__ == "__main__":
    main()
