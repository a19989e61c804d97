"""Train the regression trees that locate the conus tip from profiles of the sac's content.

    python pipelines/train_conus.py collect WORK --pool POOL --spider SPIDER
    python pipelines/train_conus.py measure WORK
    python pipelines/train_conus.py train WORK leakloc/models/conus.onnx

Samples: phantoms and simulated studies of `dura_samples` (POOL), and T2-weighted images of the
development patients of SPIDER, all with the annotated end of the cord; stored samples are not
computed again. ``measure`` prints the errors of five-fold cross-validation by patient and phantom
seed. Needs the extra ``train`` of leakloc; takes a quarter of an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from dura_samples import LINES, Patients, heavy_t2_series, phantom_lines, study_rng
from scipy.ndimage import map_coordinates
from sklearn.ensemble import HistGradientBoostingRegressor

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.core.settings import Settings
from leakloc.core.volume import Volume
from leakloc.levels.conus import (
    HALF_WIDTH_MM,
    MAX_OFFSET_MM,
    STEP_MM,
    measure_profile,
    sample_planes,
    vote_for_tip,
    windows_of,
)
from leakloc.loaders import load
from leakloc.segmentation import segment
from leakloc.segmentation.dura_network import ANGLES, RADII, RADIUS_START_MM, RADIUS_STEP_MM
from leakloc.validation.evaluation.spider import LANDMARKS
from leakloc.validation.phantom import make_phantom
from leakloc.validation.simulation import DEVELOPMENT_PATIENTS

Array = npt.NDArray[Any]
Sample = tuple[Array, float]
"""Profile and plane of the conus tip."""

FOLDS = 5
IMAGE_WEIGHT = 60.0
"""Weight of a T2-weighted image relative to a phantom or a simulated study: there are few."""
VARIANTS = 3
"""Augmented copies of each sample."""
STRETCH_SD, CONTRAST_SD = 0.1, 0.25
"""Standard deviations of the logarithms of length and of the exponent of the fluid fraction."""
CROPPED = 0.5
"""Fraction of the copies whose field of view ends closer to the tip."""
MIN_PLANES = 6
"""Minimum number of planes above and below the tip in these."""
ACCURATE_MM = 6.0
TREES = {
    "max_iter": 300, "max_leaf_nodes": 31, "learning_rate": 0.05, "min_samples_leaf": 40,
    "l2_regularization": 5.0, "max_features": 0.1, "random_state": 0,
}  # fmt: skip


def collect(options: argparse.Namespace) -> None:
    """Store profiles and tips: ``phantom_SEED_*``, ``simulated_PATIENT_*``, ``image_PATIENT``."""
    options.work.mkdir(parents=True, exist_ok=True)
    ends_mm = {
        number: marks["cord_end_z_mm"]
        for number, marks in json.loads(LANDMARKS.read_text())["patients"].items()
        if number in DEVELOPMENT_PATIENTS and "cord_end_z_mm" in marks
    }
    patients = Patients(options.spider)
    for source in sorted(options.pool.glob("*.npz")):
        kind, _, name = source.stem.partition("_")
        if kind == "phantom":
            scenario, _, seed = name.rpartition("_")
            path = options.work / f"phantom_{seed}_{scenario}.npz"
            if not path.exists():
                _store(path, _phantom_profiles(source, scenario, int(seed)))
        else:
            _store_simulated(options.work, source, patients, ends_mm)
    for number, end_mm in ends_mm.items():
        path = options.work / f"image_{number}.npz"
        if path.exists():
            continue
        result = segment(Spine(_image(options.spider, number)), {}, Settings().segmentation)
        tip = _plane_at(result.centerline, end_mm)
        first, profile = measure_profile(*sample_planes(result))
        _store(path, [(profile, tip - first)])


@cache
def _image(folder: Path, number: str) -> Volume:
    """Return the T2-weighted image of a patient."""
    return load(folder / f"spider-{number}_T2SPACE.nii.gz", Settings()).stacks[0].load()


def _store(path: Path, samples: list[Sample]) -> None:
    stored = {f"{n}_profile": profile for n, (profile, _) in enumerate(samples)}
    np.savez(path, tips=np.array([tip for _, tip in samples]), **stored)
    print(path.stem, len(samples), flush=True)


def _phantom_profiles(source: Path, scenario: str, seed: int) -> list[Sample]:
    """Return the profiles about the displaced centerlines of `dura_samples`, drawn again."""
    phantom = make_phantom(scenario, seed)
    geometry, tip_lps = heavy_t2_series(phantom)[-1].geometry, phantom.truth.conus_lps
    if not geometry.contains(tip_lps):
        return []
    lines = islice(phantom_lines(phantom, geometry, scenario, seed), LINES)
    tips = (float(line.project(tip_lps[None])[0][0]) / STEP_MM for _, line in lines)
    return list(_polar_profiles(source, tips))


def _store_simulated(
    work: Path, source: Path, patients: Patients, ends_mm: dict[str, float]
) -> None:
    """Store the profiles of a simulated study, whose patient and size are drawn again."""
    number = int(source.stem.rpartition("_")[2])
    if list(work.glob(f"simulated_*_{number}.npz")):
        return
    patient = patients.draw(study_rng(number))
    if patient.number not in ends_mm:
        return
    original = _image(patients.folder, patient.number).geometry
    scale = min(patient.image.geometry.spacing_ijk_mm) / min(original.spacing_ijk_mm)
    tip = _plane_at(patient.centerline, ends_mm[patient.number] * scale)
    path = work / f"simulated_{patient.number}_{number}.npz"
    _store(path, list(_polar_profiles(source, repeat(tip, LINES))))


def _plane_at(line: Centerline, height_mm: float) -> float:
    """Return the plane of a centerline at a height."""
    heights_mm = line.at(np.arange(0.0, line.length_mm, STEP_MM))[:, 2]
    return float(np.interp(-height_mm, -heights_mm, np.arange(len(heights_mm))))


def _polar_profiles(source: Path, tips: Iterable[float]) -> Iterator[Sample]:
    """Yield profiles of samples in polar coordinates, resampled to planes across the canal."""
    across = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + 1.0)
    left, dorsal = np.meshgrid(across, across)
    angle = np.arctan2(dorsal, left) % (2 * np.pi) / (2 * np.pi) * ANGLES
    radius = np.clip((np.hypot(left, dorsal) - RADIUS_START_MM) / RADIUS_STEP_MM, 0, RADII - 1)
    with np.load(source) as polar:
        for n, tip in enumerate(tips):
            if f"{n}_signal" not in polar:
                continue
            planes = []
            for key in ("signal", "inside"):
                values = polar[f"{n}_{key}"].astype(np.float32)
                wrapped = np.concatenate([values, values[:, :1]], axis=1)
                planes.append(
                    np.stack(
                        [map_coordinates(plane, (angle, radius), order=1) for plane in wrapped]
                    )
                )
            first, profile = measure_profile(1.0 - planes[0], planes[1] > 127)
            yield profile, tip - first


def read_samples(work: Path) -> dict[str, list[Sample]]:
    """Return the samples with a visible tip by the name of their file."""
    found = {}
    for path in sorted(work.glob("*.npz")):
        with np.load(path) as stored:
            parts = [(stored[f"{n}_profile"], float(tip)) for n, tip in enumerate(stored["tips"])]
        found[path.stem] = [part for part in parts if 0 <= part[1] < part[0].shape[1]]
    return found


def fit(samples: dict[str, list[Sample]]) -> HistGradientBoostingRegressor:
    """Fit the offset of the tip, within `MAX_OFFSET_MM`, to windows of all samples."""
    rng = np.random.default_rng(0)
    rows, offsets, weights = [], [], []
    for name, parts in samples.items():
        for sample in parts:
            for variant in range(1 + VARIANTS):
                profile, tip = _augmented(sample, rng) if variant else sample
                offset = STEP_MM * (tip - np.arange(profile.shape[1]))
                near = np.abs(offset) < MAX_OFFSET_MM
                rows.append(windows_of(profile)[near])
                offsets.append(offset[near])
                weights.append(np.full(near.sum(), IMAGE_WEIGHT if name.startswith("image") else 1))
    trees = HistGradientBoostingRegressor(**TREES)
    return trees.fit(np.concatenate(rows), np.concatenate(offsets), np.concatenate(weights))


def _augmented(sample: Sample, rng: np.random.Generator) -> Sample:
    """Vary the length of the cord, the contrast of its surroundings, and the field of view."""
    profile, tip = sample
    if rng.random() < CROPPED:
        first = int(rng.uniform(0, max(tip - MIN_PLANES, 1)))
        last = int(rng.uniform(min(tip + MIN_PLANES, profile.shape[1]), profile.shape[1] + 1))
        profile, tip = profile[:, first:last], tip - first
    stretch = np.exp(rng.normal(0, STRETCH_SD))
    count = profile.shape[1]
    planes = np.arange(int(count / stretch)) * stretch
    changed = np.stack([np.interp(planes, np.arange(count), row) for row in profile])
    changed[:-1] = 1 - (1 - changed[:-1]) ** np.exp(rng.normal(0, CONTRAST_SD))
    return changed.astype(np.float32), tip / stretch


def measure(options: argparse.Namespace) -> None:
    """Print the errors of cross-validation by patient and phantom seed."""
    samples = read_samples(options.work)
    sources = sorted({name.split("_")[1] for name in samples})
    np.random.default_rng(0).shuffle(sources)
    errors: dict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        held = set(sources[fold::FOLDS])
        trees = fit({n: s for n, s in samples.items() if n.split("_")[1] not in held})
        for name, parts in samples.items():
            for profile, tip in parts if name.split("_")[1] in held else ():
                plane = vote_for_tip(trees.predict(windows_of(profile)))
                error = np.nan if plane is None else STEP_MM * (plane - tip)
                errors[name.split("_")[0]].append(error)
    for kind, values in errors.items():
        found = np.array(values)[np.isfinite(values)]
        print(
            f"{kind}: detected {len(found)} of {len(values)}, within {ACCURATE_MM:.0f} mm "
            f"{(abs(found) <= ACCURATE_MM).sum()}, median {np.median(found):.1f} mm, largest "
            f"{np.sort(abs(found))[-5:].round()}"
        )


def train(options: argparse.Namespace) -> None:
    """Fit all samples and write ONNX."""
    samples = read_samples(options.work)
    write_onnx(fit(samples), options.path)
    kinds = [name.split("_")[0] for name in samples]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})


def write_onnx(trees: HistGradientBoostingRegressor, path: Path) -> None:
    """Write boosted trees as one TreeEnsembleRegressor (skl2onnx 1.20 fails with these)."""
    nodes = [predictors[0].nodes for predictors in trees._predictors]
    every = np.concatenate(nodes)
    tree = np.repeat(np.arange(len(nodes)), [len(part) for part in nodes])
    ids = np.concatenate([np.arange(len(part)) for part in nodes])
    leaf = every["is_leaf"].astype(bool)
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["profiles"], ["offsets_mm"], domain="ai.onnx.ml", n_targets=1,
        base_values=[float(np.ravel(trees._baseline_prediction)[0])],
        nodes_treeids=tree.tolist(), nodes_nodeids=ids.tolist(),
        nodes_featureids=every["feature_idx"].astype(int).tolist(),
        nodes_values=every["num_threshold"].tolist(),
        nodes_truenodeids=every["left"].astype(int).tolist(),
        nodes_falsenodeids=every["right"].astype(int).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        target_treeids=tree[leaf].tolist(), target_nodeids=ids[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()), target_weights=every["value"][leaf].tolist(),
    )  # fmt: skip
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])
        for name, width in (("profiles", trees.n_features_in_), ("offsets_mm", 1))
    ]
    graph = onnx.helper.make_graph([node], "conus", ports[:1], ports[1:])
    versions = [onnx.helper.make_opsetid("ai.onnx.ml", 3), onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=versions, ir_version=8)
    path.write_bytes(model.SerializeToString())


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("collect", collect), ("measure", measure), ("train", train)):
        part = commands.add_parser(name, help=(run.__doc__ or "").split("\n", 1)[0])
        part.add_argument("work", type=Path)
        part.set_defaults(run=run)
        if run is collect:
            part.add_argument("--pool", type=Path, required=True)
            part.add_argument("--spider", type=Path, required=True)
        elif run is train:
            part.add_argument("path", type=Path)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
