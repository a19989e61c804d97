"""Fit the decisions on epidural fluid: single voxels, and whole components.

Both are logistic functions, fitted on simulated studies of the development patients and on
phantoms: ``voxels`` prints `leakloc.segmentation.scene.VOXEL_WEIGHTS`, ``components`` prints
`leakloc.segmentation.classification.CONFIDENCE`. A component is true if a tenth of it is simulated
fluid. Fit the voxels first, because the components consist of them.

    python pipelines/fit_collections.py voxels WORK --spider SPIDER --seeds 11,12
    python pipelines/fit_collections.py voxels WORK --phantom-seeds 30,31,32,33
    python pipelines/fit_collections.py components WORK --spider SPIDER --seeds 11,12
    python pipelines/fit_collections.py components WORK --phantom-seeds 30,31,32,33

Each study is stored in the folder WORK; every call fits all studies stored there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from leakloc.core.errors import LeaklocError
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Volume
from leakloc.segmentation import segment
from leakloc.segmentation.classification import confidence_evidence
from leakloc.segmentation.scene import Scene, voxel_candidates
from leakloc.segmentation.segment import neighbourhood
from leakloc.segmentation.steps import dural_surface, fluid_fraction
from leakloc.validation.phantom import SCENARIOS as PHANTOMS
from leakloc.validation.phantom import make_phantom
from leakloc.validation.simulation import DEVELOPMENT_PATIENTS, SCENARIOS, read_patient, simulate

Array = npt.NDArray[np.float64]
Weights = tuple[float, ...]

TRUE_FRACTION = 0.1
"""Minimum fraction of simulated fluid in a true component."""
ANY = SegmentationSettings(collection_min_probability=0.001)
"""Accepts everything that the network classifies as fluid."""
RIDGE = 0.1
"""Penalty on squared weights of components, needed because few are false. Leave-one-out log loss of
0.02, 0.05, 0.1 and 0.2: 0.077, 0.081, 0.085, 0.091; with less, one feature dominates."""


@dataclass(frozen=True, eq=False)
class Study:
    """A simulated study or phantom: the myelogram and its true fluid."""

    name: str
    myelogram: Volume
    fluid: npt.NDArray[np.bool_]


def simulated(
    folder: Path | None, seeds: list[int], done: Callable[[str], bool]
) -> Iterator[Study]:
    """Yield simulated studies of the development patients that are not done."""
    if folder is None:
        return
    scenarios = [name for name, scenario in SCENARIOS.items() if scenario.fat != "none"]
    for n, number in enumerate(DEVELOPMENT_PATIENTS):
        patient = read_patient(folder, number)
        for seed in seeds:
            for scenario in scenarios[(n + seed) % 3 :: 3]:
                name = f"simulated_{number}_{scenario}_{seed}"
                if not done(name):
                    study = simulate(patient, scenario, seed, companion=False)
                    yield Study(name, study.myelogram, study.fluid.array > 0)


def phantoms(seeds: list[int], done: Callable[[str], bool]) -> Iterator[Study]:
    """Yield phantoms with one myelogram that are not done."""
    for seed in seeds:
        for scenario in PHANTOMS:
            name = f"phantom_{scenario}_{seed}"
            if done(name):
                continue
            phantom = make_phantom(scenario, seed)
            series = [s for s in phantom.series() if s.sequence.name in ("ht2w_3d", "ht2w_bssfp")]
            if series and len(series[-1].stacks) == 1:
                volume = phantom.image(series[-1].sequence, series[-1].geometry)
                yield Study(name, volume, phantom.masks(volume.geometry).fluid.array > 0)


def components(study: Study) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the evidence for every component, and whether it is fluid."""
    suppressed = replace(study.myelogram.provenance, fat_suppressed=True)
    volume = Volume(study.myelogram.array, study.myelogram.geometry, suppressed)
    found = segment(volume, {}, ANY)
    labels = found.collections.array
    features = [c.features for c in found.accepted if c.features is not None]
    evidence = confidence_evidence(
        [f.network for f in features],
        [f.contact_fraction for f in features],
        [f.volume_ml for f in features],
    )
    fluid = [study.fluid[labels == c.id].mean() >= TRUE_FRACTION for c in found.accepted]
    return evidence, np.array(fluid, bool)


def voxels(study: Study) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the evidence for every voxel of true components, and whether it is fluid."""
    volume = study.myelogram
    dura = dural_surface(volume)
    box = neighbourhood(volume.oriented("LPS"), dura.centerline, ANY)
    signal = fluid_fraction(volume).oriented("LPS").crop(box)
    scene = Scene.of(signal, dura, False)
    labels, evidence = voxel_candidates(scene.network, scene.signal, scene.outside_mm > 0)
    fluid = volume.with_array(study.fluid).oriented("LPS").crop(box).array
    numbers, true = labels[labels > 0], fluid[labels > 0]
    fraction = np.bincount(numbers, weights=true) / np.maximum(np.bincount(numbers), 1)
    selected = fraction[numbers] >= TRUE_FRACTION
    return evidence[selected], true[selected]


def fit(
    evidence: Array, true: npt.NDArray[np.bool_], importance: Array, ridge: float, increasing: bool
) -> Array:
    """Return the weights of a logistic function; all but the constant positive if `increasing`."""
    sign = np.where(true, 1, -1)

    def loss(weights: Array) -> tuple[float, Array]:
        margin = sign * (evidence @ weights)
        slope = -(importance * sign / (1 + np.exp(margin))) @ evidence
        slope[1:] += 2 * ridge * weights[1:]
        misfit = importance @ np.logaddexp(0, -margin)
        return float(misfit + ridge * (weights[1:] ** 2).sum()), slope

    low = 0.0 if increasing else None
    bounds = [(None, None), *[(low, None)] * (evidence.shape[1] - 1)]
    start = [0.0, *[1.0] * (evidence.shape[1] - 1)]
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


def fit_voxels(stored: dict[str, Any]) -> Weights:
    """Fit `VOXEL_WEIGHTS`; patients and phantoms, and each study of them, count equally."""
    weight = {}
    for kind in ("simulated", "phantom"):
        names = [name for name, (evidence, _) in stored.items() if name.startswith(kind)]
        weight |= {n: np.full(len(stored[n][0]), 1 / len(stored[n][0]) / len(names)) for n in names}
    parts = [(*stored[name], weight[name]) for name in weight if len(stored[name][0])]
    evidence, true, importance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return tuple(fit(evidence, true, importance, 1e-5, increasing=False))


def fit_components(stored: dict[str, Any]) -> Weights:
    """Fit `CONFIDENCE` to the components above the reporting threshold."""
    evidence, true = (np.concatenate(part) for part in zip(*stored.values(), strict=True))
    large = evidence[:, 3] >= np.log(ANY.collection_min_ml)
    evidence, true = evidence[large], true[large]
    print(f"{len(true)} components, {np.count_nonzero(~true)} of them false")
    for _, odds, contact, volume in evidence[~true]:
        print(f"  false: log odds {odds:.2f}, contact {contact:.2f}, {np.exp(volume):.2f} mL")
    return tuple(fit(evidence, true, np.ones(len(true)), RIDGE, increasing=True))


def numbers(text: str) -> list[int]:
    """Parse comma-separated numbers."""
    return [int(n) for n in text.split(",") if n]


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("voxels", "components"))
    parser.add_argument("work", type=Path, help="folder for the studies")
    parser.add_argument("--spider", type=Path)
    parser.add_argument("--seeds", type=numbers, default=[11])
    parser.add_argument("--phantom-seeds", type=numbers, default=[])
    options = parser.parse_args()
    measure = voxels if options.what == "voxels" else components

    def path_of(name: str) -> Path:
        return Path(options.work) / f"{options.what}_{name}.npz"

    def done(name: str) -> bool:
        return path_of(name).exists()

    options.work.mkdir(parents=True, exist_ok=True)
    for study in chain(
        simulated(options.spider, options.seeds, done), phantoms(options.phantom_seeds, done)
    ):
        try:
            evidence, true = measure(study)
        except LeaklocError as error:
            print(f"{study.name}: {error}")
            continue
        np.savez_compressed(path_of(study.name), evidence=evidence, true=true)
    stored = {}
    for path in sorted(options.work.glob(f"{options.what}_*.npz")):
        with np.load(path) as data:
            stored[path.stem.removeprefix(f"{options.what}_")] = data["evidence"], data["true"]
    weights = fit_voxels(stored) if options.what == "voxels" else fit_components(stored)
    print(f"{len(stored)} studies: (" + ", ".join(f"{w:.2f}" for w in weights) + ")")


if __name__ == "__main__":
    main()
