"""Samples for training the dura network: canals in polar coordinates about a centerline.

Two sources: simulated contrast on the development patients of SPIDER
(`leakloc.validation.simulation`), and phantoms. A sample is one study, sampled about several
displaced centerlines; the training crops patches from it. Samples are written one by one, so that
an interrupted run can be resumed; ``OMP_NUM_THREADS=1`` limits a run to one processor thread.

    python pipelines/dura_samples.py real SPIDER POOL --count 1000
    python pipelines/dura_samples.py phantoms POOL --seeds 0,2,3
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import anatomy_probabilities
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.dura import find_dura, follow_canal, polar_signal
from leakloc.segmentation.dura_network import NO_PRIOR
from leakloc.segmentation.fluid import map_fluid
from leakloc.validation.phantom import SCENARIOS, Phantom, PhantomSeries, make_phantom
from leakloc.validation.simulation import DEVELOPMENT_PATIENTS, Patient, read_patient, simulate
from leakloc.validation.simulation.study import ALL_MIMICS, SimulatedStudy, SimulationScenario

Array = npt.NDArray[Any]
Rng = np.random.Generator

LINES = 3
"""Number of displaced centerlines per study."""
SCALES = (0.85, 1.18)
WIDENED = 0.4
"""Fraction of the variants of a patient with synthetic tissue lateral to the slab."""


def heavy_t2_series(phantom: Phantom) -> list[PhantomSeries]:
    """Return the myelograms of a phantom."""
    return [s for s in phantom.series() if s.sequence.name in ("ht2w_3d", "ht2w_bssfp")]


def study_rng(number: int) -> Rng:
    """Return the generator of a simulated study, which first draws the patient."""
    return np.random.default_rng([number, 20261128])


def phantom_lines(
    phantom: Phantom, geometry: Geometry, scenario: str, seed: int
) -> Iterator[tuple[bool, Centerline]]:
    """Yield displaced centerlines of a phantom and whether each is sampled without the prior."""
    rng = np.random.default_rng([seed, *scenario.encode()])
    true = Centerline.smoothed(phantom.truth.centerline_lps, step_mm=1.0, smoothing_mm=4.0)
    line = Centerline(true.points_lps[geometry.contains(true.points_lps)])
    for _ in range(2 * LINES):
        yield rng.random() < 0.3, displaced(line, rng)


def random_scenario(rng: Rng) -> SimulationScenario:
    """Draw a random scenario for training; no leak in 40 %."""
    u = rng.random
    patterns = ("dorsal", "ventral", "left", "right", "circumferential", "pseudomeningocele")
    count = 0 if u() < 0.4 else 1 + int(u() < 0.3)
    chosen = tuple(
        patterns[n] for n in rng.choice(6, count, p=(0.14, 0.26, 0.17, 0.17, 0.18, 0.08))
    )
    acquisition = rng.choice(["3d", "2d_sagittal", "2d_axial"], p=(0.55, 0.32, 0.13))
    kinds = ["heavy", "moderate", "stir", "conventional"]
    contrast = str(rng.choice(kinds, p=(0.48, 0.22, 0.18, 0.12)))
    fat = "none" if contrast == "conventional" else "partial" if u() < 0.3 else "suppressed"
    return SimulationScenario(
        f"training {rng.integers(2**31)}",
        chosen,  # type: ignore[arg-type]
        (1.2, 8.0),
        (12.0, 220.0),
        (contrast,),  # type: ignore[arg-type]
        fat,  # type: ignore[arg-type]
        str(acquisition),  # type: ignore[arg-type]
        (8.0, 70.0),
        tuple(m for m in ALL_MIMICS if u() < 0.3),
    )


class Patients:
    """The development patients, each in several sizes, read on first use."""

    def __init__(self, folder: Path, variants: int = 3) -> None:
        self.folder, self.variants = folder, variants
        self.known: dict[tuple[str, int], Patient] = {}

    def draw(self, rng: Rng) -> Patient:
        """Return a random patient in a random size."""
        number = str(rng.choice(DEVELOPMENT_PATIENTS))
        variant = int(rng.integers(self.variants))
        if (number, variant) not in self.known:
            own = np.random.default_rng([int(number), variant])
            patient = read_patient(self.folder, number).cropped(45.0, 55.0)
            if own.random() < WIDENED:
                patient = patient.widened(float(own.uniform(8.0, 16.0)))
            self.known[number, variant] = patient.scaled(float(own.uniform(*SCALES)))
        return self.known[number, variant]


def displaced(line: Centerline, rng: Rng) -> Centerline:
    """Return a centerline displaced as by an imperfect detection."""
    count = len(line.points_lps)
    shift = gaussian_filter1d(rng.normal(size=(count, 2)), rng.uniform(12, 40), axis=0)
    shift *= rng.uniform(0.1, 1.2) / max(shift.std(), 1e-6)
    shift += rng.normal(0.0, 1.0, size=2)
    shift = np.clip(shift, -4.0, 4.0)
    # Caudal to the sac the detection has no guidance and may deviate.
    below = np.clip((line.arc_mm - line.length_mm + 35.0) / 35.0, 0, 1)
    bent = rng.normal(0.0, 7.0) * below**2
    points = line.points_lps + shift[:, :1] * line.lefts_lps
    points = points + (shift[:, 1:] + bent[:, None]) * line.dorsals_lps
    return Centerline.smoothed(points, step_mm=1.0, smoothing_mm=4.0)


def found_lines(myelogram: Volume, prior: Volume | None) -> list[Centerline]:
    """Return the centerlines that leakloc passes to the network in its two passes."""
    volume = myelogram.oriented("LPS")
    try:
        rough = find_canal(volume, prior).centerline
        signal = map_fluid(volume, rough).signal
        followed = follow_canal(signal, rough, prior)
        return [followed, find_dura(signal, rough, prior=prior).centerline]
    except AnalysisError:
        return []


def polar_sample(
    volume: Volume, line: Centerline, prior: Volume | None, inside: Volume, fluid: Volume
) -> dict[str, Array]:
    """Return signal normalized to CSF, prior and ground truth about one centerline."""
    signal = map_fluid(volume.oriented("LPS"), line).signal
    values, in_field = polar_signal(signal, line)
    near = np.full(values.shape, NO_PRIOR) if prior is None else polar_signal(prior, line)[0]
    masks = [polar_signal(mask, line)[0] for mask in (inside, fluid)]
    packed = [np.round(255 * np.clip(part, 0, 1)).astype(np.uint8) for part in (near, *masks)]
    return {
        "signal": np.clip(values, -2, 3).astype(np.float16), "in_field": in_field,
        "prior": packed[0], "inside": packed[1], "fluid": packed[2],
    }  # fmt: skip


def prior_of(study: SimulatedStudy, inside: Volume, rng: Rng) -> Volume | None:
    """Return the canal probability of the network or of a distorted ground truth, or None."""
    choice = rng.random()
    if choice < 0.15:
        return None
    if choice < 0.7:
        return anatomy_probabilities(study.myelogram).canal
    width, bias = rng.uniform(0.3, 1.5), rng.normal(0.0, 0.8)
    coarse = gaussian_filter1d(gaussian_filter1d(rng.normal(size=(40, 24)), 3, 0), 2, 1)
    coarse *= 1.0 / coarse.std()
    rows = np.linspace(0, 39, inside.array.shape[0])
    wave = np.array([np.interp(rows, range(40), column) for column in coarse.T]).mean(0)
    shifted = inside.array + bias + 0.7 * wave[:, None, None]
    return inside.with_array((1 / (1 + np.exp(np.clip(shifted / width, -30, 30)))).astype("f4"))


def make_real(patients: Patients, rng: Rng, path: Path) -> None:
    """Simulate one study and store it."""
    patient = patients.draw(rng)
    study = simulate(patient, random_scenario(rng), int(rng.integers(2**31)), companion=False)
    distance = Volume(patient.sac_distance_mm, patient.image.geometry)
    inside = distance.with_array(np.clip(0.5 - patient.sac_distance_mm / 0.7, 0, 1))
    prior = prior_of(study, distance, rng)
    stored: dict[str, Array] = {"source": np.array("real")}
    lines = [displaced(study.centerline, rng) for _ in range(LINES)]
    for n, line in enumerate([*lines, *found_lines(study.myelogram, prior)]):
        try:
            parts = polar_sample(study.myelogram, line, prior, inside, study.fluid_fraction)
        except AnalysisError:
            continue
        stored |= {f"{n}_{name}": array for name, array in parts.items()}
    _save(path, stored)


def make_from_phantom(scenario: str, seed: int, path: Path) -> None:
    """Render a phantom and store it."""
    phantom = make_phantom(scenario, seed)
    series = heavy_t2_series(phantom)[-1]
    volume = phantom.image(series.sequence, series.geometry)
    masks = phantom.masks(volume.geometry)
    stored: dict[str, Array] = {"source": np.array("phantom")}
    canal = anatomy_probabilities(volume).canal
    lines = phantom_lines(phantom, volume.geometry, scenario, seed)
    for n, (without_prior, line) in enumerate(lines):
        prior = None if without_prior else canal
        parts = polar_sample(volume, line, prior, masks.thecal_sac, masks.fluid_fraction)
        stored |= {f"{n}_{name}": array for name, array in parts.items()}
    _save(path, stored)


def _save(path: Path, stored: dict[str, Array]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, **stored)
    partial.rename(path)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    real = commands.add_parser("real", help="simulated contrast on real anatomy")
    real.add_argument("spider", type=Path)
    real.add_argument("pool", type=Path)
    real.add_argument("--count", type=int, default=1000)
    real.add_argument("--first", type=int, default=0)
    phantoms = commands.add_parser("phantoms", help="phantoms")
    phantoms.add_argument("pool", type=Path)
    phantoms.add_argument("--seeds", default="0,2,3")
    phantoms.add_argument("--scenarios", default=",".join(n for n in SCENARIOS if n != "slab_only"))
    options = parser.parse_args()
    options.pool.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    if options.command == "real":
        patients = Patients(options.spider)
        for number in range(options.first, options.first + options.count):
            path = options.pool / f"real_{number:05d}.npz"
            if not path.exists():
                make_real(patients, study_rng(number), path)
                print(path.name, f"{time.monotonic() - start:.0f} s", flush=True)
        return
    for seed in map(int, options.seeds.split(",")):
        for scenario in options.scenarios.split(","):
            path = options.pool / f"phantom_{scenario}_{seed}.npz"
            if not path.exists():
                make_from_phantom(scenario, seed, path)
                print(path.name, f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
