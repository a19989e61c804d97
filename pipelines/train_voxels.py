"""Train the voxel network: which voxels belong to the sac, and which to epidural fluid.

    python pipelines/train_voxels.py collect WORK --spider SPIDER --seeds 11,12
    python pipelines/train_voxels.py collect WORK --phantom-seeds 20,21,22
    python pipelines/train_voxels.py train WORK --minutes 18 --out voxels.pt
    python pipelines/train_voxels.py train WORK --minutes 10 --out voxels.pt --resume
    python pipelines/train_voxels.py measure WORK voxels.pt
    python pipelines/train_voxels.py export voxels.pt leakloc/models/voxels.onnx

Samples are simulated studies of the development patients and phantoms, with the dural surface and
the fluid that the dura network detects; stored samples are not computed again. The patients and
phantoms of `VALIDATION` are used by ``measure`` only. Needs the extra ``train`` of leakloc; takes
half an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from dura_samples import heavy_t2_series
from fit_confidence import numbers
from scipy.ndimage import binary_dilation
from torch import nn
from torch.nn import functional
from train_dura import save_checkpoint, update_mean

from leakloc.anatomy.spine import Spine
from leakloc.core.errors import LeaklocError
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Volume
from leakloc.segmentation.dura import find_dura
from leakloc.segmentation.fluid import map_fluid
from leakloc.segmentation.scene import HALF, MAX_SURFACE_ERROR_MM, locate_voxels
from leakloc.segmentation.segment import neighborhood
from leakloc.segmentation.voxel_network import MAX_DISTANCE_MM, SIGNAL_RANGE, network_input
from leakloc.validation.evaluation.metrics import dice
from leakloc.validation.phantom import SCENARIOS as PHANTOMS
from leakloc.validation.phantom import make_phantom
from leakloc.validation.simulation import DEVELOPMENT_PATIENTS, SCENARIOS, read_patient, simulate

Array = npt.NDArray[Any]
Sample = dict[str, Array]

VALIDATION = ("118", "141", "146", "30", "31")
"""Patients and phantom seeds that are not used for training."""
WIDTH = 16
"""Channels of the two hidden layers."""
SURFACE_SCALE = 4.0
"""Change of the initial logit per millimeter from the dural surface."""
PATCH = 28
"""Edge of a patch in voxels."""
PHANTOM_PATCHES, REAL_PATCHES = 3, 5
"""Patches per step."""
WET = 0.6
"""Fraction of the patches that are centered on fluid, in samples with fluid."""
LEARNING_RATE = 4e-3
AVERAGED = 0.995
"""Decay of the running mean of the weights, which is exported."""
MIN_FLUID = 0.1
"""Fraction of the dura network above which voxels count in the loss of the fluid."""
MARGIN = 4
"""Voxels stored around those that count."""


class VoxelNet(nn.Module):
    """Two 3 x 3 x 3 convolutions that correct the decision of the dura network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(4, WIDTH, 3, padding=1)
        self.second = nn.Conv3d(WIDTH, WIDTH, 3, padding=1)
        self.out = nn.Conv3d(WIDTH, 2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of sac and epidural fluid for the output of `network_input`."""
        sac = -SURFACE_SCALE * MAX_DISTANCE_MM * x[:, 1:2]
        fluid = x[:, 3:4].clamp(0.02, 0.98)
        known = torch.cat([sac, torch.log(fluid / (1 - fluid))], 1)
        hidden = functional.relu(self.second(functional.relu(self.first(x))))
        return self.out(hidden) + known


def studies(options: argparse.Namespace) -> Iterator[tuple[Path, Volume, Array, Array]]:
    """Yield path, myelogram, sac and fluid of every sample that is not stored."""
    scenarios = [name for name, scenario in SCENARIOS.items() if scenario.fat != "none"]
    for n, number in enumerate(DEVELOPMENT_PATIENTS if options.spider else ()):
        patient = read_patient(options.spider, number)
        for seed in options.seeds:
            for scenario in scenarios[(n + seed) % 3 :: 3]:
                path = options.work / f"real_{number}_{scenario}_{seed}.npz"
                if not path.exists():
                    study = simulate(patient, scenario, seed, companion=False)
                    yield path, study.myelogram, study.thecal_sac.array, study.fluid.array
    for seed in options.phantom_seeds:
        for scenario in PHANTOMS:
            path = options.work / f"phantom_{seed}_{scenario}_{seed}.npz"
            if path.exists():
                continue
            phantom = make_phantom(scenario, seed)
            series = heavy_t2_series(phantom)
            if series and len(series[-1].stacks) == 1:
                volume = phantom.image(series[-1].sequence, series[-1].geometry)
                masks = phantom.masks(volume.geometry)
                yield path, volume, masks.thecal_sac.array, masks.fluid.array


def collect(options: argparse.Namespace) -> None:
    """Store the network input and the truth of every study."""
    settings = SegmentationSettings()
    options.work.mkdir(parents=True, exist_ok=True)
    for path, myelogram, sac, fluid in studies(options):
        spine = Spine(myelogram)
        try:
            mapped = map_fluid(spine.oriented, spine.centerline)
            dura = find_dura(mapped.signal, spine.centerline, prior=spine.canal_probability)
        except LeaklocError as error:
            print(f"{path.stem}: {error}")
            continue
        box = neighborhood(mapped.signal, dura.centerline, settings)
        signal = mapped.signal.crop(box)
        _, outside, _, network = locate_voxels(mapped.fraction.crop(box), dura)
        estimate = np.where(outside > 0, network.array, np.float32(0))
        near = (np.abs(outside) < MAX_DISTANCE_MM) | (estimate >= MIN_FLUID)
        part = tuple(
            slice(max(int(a.min()) - MARGIN, 0), int(a.max()) + MARGIN + 1) for a in near.nonzero()
        )
        truth = [
            myelogram.with_array(mask).oriented("LPS").crop(box).array[part] > 0
            for mask in (sac > HALF, fluid)
        ]
        np.savez_compressed(
            path, signal=np.clip(signal.array[part], *SIGNAL_RANGE).astype(np.float16),
            outside=outside[part].astype(np.float16), fluid=estimate[part].astype(np.float16),
            sac_true=truth[0], fluid_true=truth[1],
        )  # fmt: skip


def samples(work: Path, validation: bool) -> list[tuple[str, Sample]]:
    """Return the samples of the training or of the validation patients and phantoms."""
    found = []
    for path in sorted(work.glob("*.npz")):
        if (path.stem.split("_")[1] in VALIDATION) == validation:
            with np.load(path) as stored:
                found.append((path.stem, dict(stored)))
    return found


def cut(sample: Sample, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return input, truth and weight of an augmented patch."""
    wet = rng.random() < WET and len(sample["wet"])
    centers = sample["wet" if wet else "surface"]
    shape = np.array(sample["signal"].shape)
    middle = centers[rng.integers(len(centers))] + rng.integers(-6, 7, 3)
    low = np.clip(middle - PATCH // 2, 0, np.maximum(shape - PATCH, 0))
    part = tuple(slice(start, start + PATCH) for start in low)
    signal, outside, fluid = (sample[n][part].astype(float) for n in ("signal", "outside", "fluid"))
    signal = signal * rng.uniform(0.9, 1.1) + rng.normal(0, rng.uniform(0, 0.04), signal.shape)
    if rng.random() < 0.15:
        signal = np.sign(signal) * np.abs(signal) ** rng.uniform(0.8, 1.25)
    truth = np.stack([sample["sac_true"][part], sample["fluid_true"][part]]).astype(np.float32)
    crossed = (outside > -MAX_DISTANCE_MM / 2) & (outside <= 0)
    near = np.abs(outside) < MAX_SURFACE_ERROR_MM
    weight = np.stack([near, (fluid >= MIN_FLUID) | crossed])
    parts = [network_input(signal, outside, fluid), truth, weight.astype(np.float32)]
    flipped = [axis for axis in (1, 2, 3) if rng.random() < 0.5]
    padding = [(0, 0), *((0, PATCH - n) for n in signal.shape)]
    x, y, w = (np.pad(np.flip(p, flipped), padding) for p in parts)
    return x, y, w


def train(options: argparse.Namespace) -> None:
    """Train for a wall-clock budget with a cosine schedule."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for name, sample in samples(options.work, validation=False):
        near = np.abs(sample["outside"].astype(np.float32)) < 1.0
        wet = sample["fluid_true"] & (sample["fluid"] >= MIN_FLUID)
        kinds[name.split("_")[0]].append(
            {**sample, "surface": np.argwhere(near)[::7], "wet": np.argwhere(wet)[::5]}
        )
    draws = [kinds["phantom"]] * PHANTOM_PATCHES + [kinds["real"]] * REAL_PATCHES
    net = VoxelNet()
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=1e-4)
    mean, step = {name: value.clone() for name, value in net.state_dict().items()}, 0
    if options.resume and options.out.exists():
        state = torch.load(options.out, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        mean, step = state["mean"], state["step"]
        rng = np.random.default_rng(step)
    start, losses, first = time.monotonic(), [], step
    done = 0.0
    while done < 1:
        done = (time.monotonic() - start) / (60 * options.minutes)
        step += 1
        warm = min(1.0, (step - first) / 30)
        rate = LEARNING_RATE * warm * (0.51 + 0.49 * np.cos(np.pi * min(done, 1)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        patches = [cut(kind[rng.integers(len(kind))], rng) for kind in draws]
        x, y, w = (torch.from_numpy(np.stack(part)) for part in zip(*patches, strict=True))
        entropy = functional.binary_cross_entropy_with_logits(net(x), y, reduction="none") * w
        loss = (entropy.sum((0, 2, 3, 4)) / (w.sum((0, 2, 3, 4)) + 1)).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        update_mean(mean, net, min(AVERAGED, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        if step % 100 == 0 or done >= 1:
            print(f"{step} loss {np.mean(losses[-100:]):.4f}", flush=True)
            save_checkpoint(options.out, net, mean, optimizer, step)


def measure(options: argparse.Namespace) -> None:
    """Print the Dice coefficients of surface and network on the validation samples."""
    net = loaded(options.checkpoint)
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for name, sample in samples(options.work, validation=True):
        signal, outside, fluid = (
            sample[n].astype(np.float32) for n in ("signal", "outside", "fluid")
        )
        with torch.no_grad():
            logits = net(torch.from_numpy(network_input(signal, outside, fluid)[None]))[0].numpy()
        sac = np.where(np.abs(outside) < MAX_SURFACE_ERROR_MM, logits[0] >= 0, outside <= 0)
        true = sample["fluid_true"]
        zone = binary_dilation(true, iterations=5) & (outside > 0)  # without other bright signal
        values = [dice(mask, sample["sac_true"]) for mask in (outside <= 0, sac)]
        values += [
            dice(zone & mask, true) if true.any() else np.nan
            for mask in (fluid >= 0.4, (fluid > MIN_FLUID) & (logits[1] >= 0))
        ]
        found[name.split("_")[0]].append(tuple(values))
    for kind, rows in found.items():
        sac, sac_voxels, wet_dura, wet_voxels = np.nanmean(rows, axis=0)
        print(
            f"{kind}: sac {sac:.4f} -> {sac_voxels:.4f}, fluid {wet_dura:.3f} -> {wet_voxels:.3f}"
        )


def loaded(checkpoint: Path) -> VoxelNet:
    """Return the network with the running mean of the weights."""
    net = VoxelNet()
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["mean"])
    return net.eval()


def export(options: argparse.Namespace) -> None:
    """Write the network as ONNX, for volumes of any size."""
    axes = {0: "batch", 2: "k", 3: "j", 4: "i"}
    torch.onnx.export(
        loaded(options.checkpoint), (torch.zeros(1, 4, 8, 8, 8),), options.path,
        input_names=["voxels"], output_names=["logits"],
        dynamic_axes={"voxels": axes, "logits": axes}, opset_version=17, dynamo=False,
    )  # fmt: skip


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    part = commands.add_parser("collect", help="compute samples")
    part.add_argument("work", type=Path)
    part.add_argument("--spider", type=Path)
    part.add_argument("--seeds", type=numbers, default=[11, 12])
    part.add_argument("--phantom-seeds", type=numbers, default=[])
    part.set_defaults(run=collect)
    part = commands.add_parser("train", help="train on stored samples")
    part.add_argument("work", type=Path)
    part.add_argument("--minutes", type=float, default=18)
    part.add_argument("--threads", type=int, default=1)
    part.add_argument("--resume", action="store_true", help="resume from the checkpoint")
    part.add_argument("--out", type=Path, required=True)
    part.set_defaults(run=train)
    part = commands.add_parser("measure", help="print Dice coefficients of the validation samples")
    part.add_argument("work", type=Path)
    part.add_argument("checkpoint", type=Path)
    part.set_defaults(run=measure)
    part = commands.add_parser("export", help="write ONNX")
    part.add_argument("checkpoint", type=Path)
    part.add_argument("path", type=Path)
    part.set_defaults(run=export)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
