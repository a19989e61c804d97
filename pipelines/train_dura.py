"""Train the dura network on samples of `dura_samples` and write it as ONNX.

    python pipelines/train_dura.py train POOL --minutes 80 --out dura.pt
    python pipelines/train_dura.py train POOL --minutes 60 --out dura.pt --resume
    python pipelines/train_dura.py average training/dura.pt dura.pt --out training/dura.pt
    python pipelines/train_dura.py export training/dura.pt leakloc/models/dura.onnx

Needs the extra ``train`` of leakloc. Uses a GPU if available; takes one to two hours on two CPU
cores. The checkpoint contains network, running mean of the weights, optimizer and step count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import nn
from torch.nn import functional

from leakloc.segmentation.dura_network import (
    ANGLES,
    NO_PRIOR,
    OVERLAP_RAYS,
    RADII,
    RADIUS_START_MM,
    RADIUS_STEP_MM,
    network_input,
)

Array = npt.NDArray[Any]
CHANNELS = (8, 24, 48, 64, 96)
ARCS = 48
"""Length of a patch in steps of 2 mm."""
BATCH = 4
LEARNING_RATE = 2e-3
AVERAGED = 0.998
"""Decay of the running mean of the weights, which is exported."""
PHANTOMS = 0.35
"""Fraction of the patches that come from phantoms."""
RECENTERED = 0.75
"""Fraction of the patches that are resampled about another centerline."""
OTHER_BRIGHTNESS = 0.35
"""Fraction of the patches in which epidural fluid and sac differ in brightness."""
DEFORMED = 0.6
"""Fraction of the resampled patches that are also deformed."""
WITH_CORD = 0.2
"""Fraction of the patches with a simulated cord."""
ROTATED = 0.3
"""Fraction of the patches with contents of the sac rotated, as in prone or lateral position."""
THINNED = 0.3
"""Fraction of the patches with fewer nerve roots."""
CONTRACTED = 0.3
"""Fraction of the patches with the contents of the sac contracted toward its center."""
WITH_FLUID = 0.6
"""Fraction of the patches that are centered on fluid, in studies with fluid."""


class Block(nn.Module):
    """3 x 3 x 3 convolutions with batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n in range(count):
            width = inputs if n == 0 else outputs
            layers += [
                nn.Conv3d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm3d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers."""
        return self.layers(x)


class DuraNet(nn.Module):
    """3D U-Net over arc, angle and radius; logits of inside the dura and of epidural fluid."""

    def __init__(self) -> None:
        super().__init__()
        widths = list(pairwise(CHANNELS))
        self.first = Block(3, CHANNELS[0], 1)
        self.down = nn.ModuleList([Block(fine, coarse, 2) for fine, coarse in widths])
        # Fewer channels before upsampling: the finest level takes most of the time.
        self.narrow = nn.ModuleList([nn.Conv3d(coarse, fine, 1) for fine, coarse in widths])
        self.up = nn.ModuleList([Block(2 * fine, fine, 1) for fine, _ in widths])
        self.out = nn.Conv3d(CHANNELS[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits over the grid of `x`, the output of `network_input`."""
        skips = [self.first(x)]
        for block in self.down:
            skips.append(block(functional.max_pool3d(skips[-1], 2)))
        y = skips.pop()
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            wide = functional.interpolate(narrow(y), scale_factor=2.0, mode="nearest")
            y = block(torch.cat([wide, skips.pop()], 1))
        return self.out(y)


class Patches(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Infinite stream of patches from a folder of samples; new samples are included."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed

    def __iter__(self) -> Iterator[tuple[Array, Array, Array]]:
        """Yield network input, target and weight of augmented patches."""
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        drawn = 0
        while True:
            if drawn % 200 == 0:
                files = {
                    kind: sorted(self.folder.glob(f"{kind}_*.npz")) for kind in ("real", "phantom")
                }
            drawn += 1
            phantom = not files["real"] or (bool(files["phantom"]) and rng.random() < PHANTOMS)
            paths = files["phantom" if phantom else "real"]
            patch = _cut(paths[rng.integers(len(paths))], rng)
            if patch is not None:
                yield _augmented(patch, phantom, rng)


def _cut(path: Path, rng: np.random.Generator) -> dict[str, Array] | None:
    """Crop a patch from a sample, preferably with fluid outside the dura."""
    with np.load(path) as stored:
        lines = sorted({name.split("_")[0] for name in stored.files if name != "source"})
        if not lines:
            return None
        line = lines[rng.integers(len(lines))]
        names = ("signal", "in_field", "prior", "inside", "fluid")
        whole = {name: stored[f"{line}_{name}"] for name in names}
    count = len(whole["signal"])
    fluid_rows = np.flatnonzero(whole["fluid"].max((1, 2)) > 100)
    middle = rng.integers(count)
    if len(fluid_rows) and rng.random() < WITH_FLUID:
        middle = rng.choice(fluid_rows) + rng.integers(-12, 12)
    start = int(np.clip(middle - ARCS // 2, 0, max(count - ARCS, 0)))
    patch = {name: array[start : start + ARCS] for name, array in whole.items()}
    short = ARCS - len(patch["signal"])
    if short > 0:
        padding = ((0, short), (0, 0), (0, 0))
        patch = {name: np.pad(array, padding, mode="edge") for name, array in patch.items()}
    for name in ("prior", "inside", "fluid"):
        patch[name] = patch[name].astype(np.float32) / 255
    patch["signal"] = patch["signal"].astype(np.float32)
    return patch


ANGLE = np.arange(ANGLES) * 2 * np.pi / ANGLES
RADIUS_MM = RADIUS_START_MM + RADIUS_STEP_MM * np.arange(RADII)


def _recentered(patch: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Resample a patch about another centerline, as detected without knowledge of the dura.

    Bright fluid outside the sac and CSF anterior to the roots attract the detection. Without
    this augmentation the network assumes that the sac is centered in the patch.
    """
    area = (patch["inside"] + patch["fluid"]) * RADIUS_MM
    total = area.sum((1, 2)) + 1e-3
    toward = [(area * part[:, None] * RADIUS_MM).sum((1, 2)) / total
              for part in (np.cos(ANGLE), np.sin(ANGLE))]  # fmt: skip
    shift = np.stack(toward, 1) * rng.uniform(0.0, 1.3) * (total > 60)[:, None]
    shift += (rng.normal(0.0, 0.9), rng.normal(-0.7, 1.3))  # left, posterior
    shift = gaussian_filter1d(np.clip(shift, -7.0, 7.0), rng.uniform(2.0, 8.0), axis=0)
    radius_mm = RADIUS_MM * (_deformation(len(shift), rng) if rng.random() < DEFORMED else 1.0)
    left = shift[:, :1, None] + np.cos(ANGLE)[:, None] * radius_mm
    dorsal = shift[:, 1:, None] + np.sin(ANGLE)[:, None] * radius_mm
    column = (np.arctan2(dorsal, left) % (2 * np.pi)) / (2 * np.pi) * ANGLES
    step = np.maximum((np.hypot(left, dorsal) - RADIUS_START_MM) / RADIUS_STEP_MM, 0.0)
    low, near = np.floor(column).astype(int), np.minimum(np.floor(step).astype(int), RADII - 2)
    a, b = (column - low).astype(np.float32), np.clip(step - near, 0, 1).astype(np.float32)
    row = np.arange(len(shift))[:, None, None]
    low %= ANGLES
    following = (low + 1) % ANGLES
    result = {}
    for name, array in patch.items():
        values = array.astype(np.float32)
        first = values[row, low, near] * (1 - a) + values[row, following, near] * a
        second = values[row, low, near + 1] * (1 - a) + values[row, following, near + 1] * a
        result[name] = first * (1 - b) + second * b
    result["in_field"] = (result["in_field"] > 0.5) & (step <= RADII - 1)
    return result


def _deformation(arcs: int, rng: np.random.Generator) -> Array:
    """Return a smooth factor of the radius by arc and angle, for other sac sizes and shapes.

    The patches come from few patients; without this augmentation the network generalizes less well.
    """
    sigma = (rng.uniform(4.0, 12.0), rng.uniform(2.5, 6.0))
    field = gaussian_filter(rng.normal(size=(arcs, ANGLES)), sigma, mode=("reflect", "wrap"))
    field *= rng.uniform(0.0, 0.12) / field.std()
    factor: Array = np.exp(field + rng.normal(0.0, 0.08))[:, :, None]
    return factor


def _with_cord(patch: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Add a gray cord to the sac: CSF posterior to the cord is not epidural fluid.

    The volumes include little more than the conus. Diameters of the adult cord: 6 to 14 mm
    transverse, 6 to 9 mm anteroposterior (Frostell et al., Front Neurol 2016;7:238).
    """
    arcs = len(patch["signal"])
    sway = gaussian_filter1d(rng.normal(size=(arcs, 2)), 6.0, axis=0) * 3.0
    center = sway + rng.normal(0.0, 1.0, 2)
    left = (np.cos(ANGLE)[:, None] * RADIUS_MM - center[:, :1, None]) / rng.uniform(3.0, 7.0)
    dorsal = (np.sin(ANGLE)[:, None] * RADIUS_MM - center[:, 1:, None]) / rng.uniform(3.0, 4.5)
    cord = np.clip((1.0 - np.hypot(left, dorsal)) * rng.uniform(3.0, 8.0) + 0.5, 0.0, 1.0)
    cord *= patch["inside"]
    signal = patch["signal"] * (1.0 - cord) + rng.uniform(0.1, 0.75) * cord
    return {**patch, "signal": signal.astype(np.float32)}


def _with_other_roots(patch: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Rotate or contract the contents of the sac or remove part of the nerve roots.

    In nearly all training data the roots lie posteriorly, in contact with the dura. Without this
    augmentation, CSF between the dura and roots in another position was taken for epidural fluid.
    """
    wall_mm = RADIUS_MM[0] + RADIUS_STEP_MM * (patch["inside"].sum(2, keepdims=True) - 0.5)
    wall_mm = gaussian_filter(wall_mm, (0.7, 0.7, 0), mode=("nearest", "wrap", "nearest"))
    depth_mm = wall_mm - RADIUS_MM
    interior = np.clip(depth_mm - 0.3, 0.0, 1.0) * (wall_mm > 2.0)
    signal = patch["signal"]
    if rng.random() < ROTATED:
        steps = round(rng.normal(rng.choice([-90.0, 90.0, 180.0]), 25.0) / 360 * ANGLES)
        source_mm = RADIUS_MM * np.roll(wall_mm, steps, axis=1) / np.maximum(wall_mm, 1.0)
        rotated = _at_radius(np.roll(signal, steps, axis=1), source_mm)
        signal = signal + interior * (rotated - signal)
    if rng.random() < THINNED:
        removed = rng.uniform(0.0, 0.9) * _one_side(rng)
        signal = signal + interior * removed * np.clip(1.0 - signal, 0.0, 1.0)
    if rng.random() < CONTRACTED:
        layer_mm = np.minimum(rng.uniform(0.5, 4.0) * _one_side(rng), 0.4 * wall_mm)
        inner_mm = np.maximum(wall_mm - layer_mm, 1.0)
        # The dark line of the dura remains at the wall.
        source_mm = RADIUS_MM * np.maximum(wall_mm - 0.8, 1.0) / inner_mm
        contracted = _at_radius(signal, source_mm)
        csf = np.clip((RADIUS_MM - inner_mm) / RADIUS_STEP_MM + 0.5, 0.0, 1.0)
        bright = np.percentile(signal[patch["inside"] > 0.9], 90) if interior.any() else 1.0
        contracted = contracted + csf * (bright * rng.uniform(0.85, 1.05) - contracted)
        signal = signal + interior * (layer_mm > 0.3) * (contracted - signal)
    return {**patch, "signal": signal.astype(np.float32)}


def _one_side(rng: np.random.Generator) -> Array:
    """Return a weight by angle, 1 in a random direction and 0 opposite; or 1 everywhere."""
    side = 0.5 + 0.5 * np.cos(ANGLE - rng.uniform(0, 2 * np.pi))[:, None]
    weight: Array = side ** rng.uniform(0.0, 2.0)
    return weight


def _at_radius(signal: Array, source_mm: Array) -> Array:
    """Interpolate the signal at another radius for each arc, angle and radius."""
    step = np.clip((source_mm - RADIUS_START_MM) / RADIUS_STEP_MM, 0.0, RADII - 1.001)
    near = np.floor(step).astype(int)
    first, second = (np.take_along_axis(signal, near + n, axis=2) for n in (0, 1))
    values: Array = first + (step - near) * (second - first)
    return values


def _augmented(
    patch: dict[str, Array], phantom: bool, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Vary gain, noise, field of view and prior; mirror left-right in half of the cases."""
    patch = _with_other_roots(patch, rng)
    if rng.random() < WITH_CORD:
        patch = _with_cord(patch, rng)
    if rng.random() < RECENTERED:
        patch = _recentered(patch, rng)
    # The scale may be that of fluid brighter than the CSF between the roots.
    gain = np.exp(rng.uniform(-0.7, 0.25)) if rng.random() < 0.3 else rng.uniform(0.85, 1.15)
    signal = patch["signal"] * gain + rng.normal(0, 0.03)
    if (
        rng.random() < OTHER_BRIGHTNESS
    ):  # fluid brighter than the CSF between crowded roots, or the reverse
        signal = signal * (1 + rng.uniform(-0.15, 0.4) * patch["fluid"])
        signal = signal * (1 - rng.uniform(0.0, 0.35) * patch["inside"] * (1 - patch["fluid"]))
    if rng.random() < 0.4:
        signal = np.sign(signal) * np.abs(signal) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.4:
        noise = gaussian_filter(rng.normal(size=signal.shape), (0.4, 0.9, 1.0))
        signal = signal + noise / noise.std() * rng.uniform(0, 0.08)
    if phantom and rng.random() < 0.3:
        width = rng.uniform(0, 0.8)
        signal = gaussian_filter(signal, (width, width, 1.5 * width))
    in_field = patch["in_field"]
    if phantom and rng.random() < 0.5:  # slabs as thin as those of the real volumes
        lateral = np.cos(ANGLE)[:, None] * RADIUS_MM - rng.normal(0, 1.5)
        in_field = in_field & (np.abs(lateral) < rng.uniform(6.0, 16.0))
    prior = patch["prior"]
    if rng.random() < 0.12:
        prior = np.full_like(prior, NO_PRIOR)
    weight = np.where(in_field, 1.0, 0.2 if phantom else 0.0)
    parts = [signal, in_field, prior, patch["inside"], patch["fluid"], weight]
    if rng.random() < 0.5:
        parts = [np.roll(part[:, ::-1], 1 + ANGLES // 2, axis=1) for part in parts]
    planes = network_input(parts[0], parts[1].astype(bool), parts[2])
    return planes, np.stack(parts[3:5]).astype(np.float32), parts[5].astype(np.float32)[None]


def loss_of(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy and soft Dice within the field of view."""
    logits = logits[:, :, :, OVERLAP_RAYS:-OVERLAP_RAYS]
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (entropy * weight).sum((0, 2, 3, 4)) / weight.sum()
    likely, true = torch.sigmoid(logits) * weight, target * weight
    overlap = (likely * true).sum((2, 3, 4))
    dice = (2 * overlap + 40) / ((likely**2).sum((2, 3, 4)) + (true**2).sum((2, 3, 4)) + 40)
    return 2 * entropy[0] + 4 * entropy[1] + 0.5 * (1 - dice).sum(1).mean()


def update_mean(mean: dict[str, torch.Tensor], net: nn.Module, keep: float) -> None:
    """Update the running mean of the weights, with the fraction `keep` of its former value."""
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            mean[name].lerp_(value, 1 - keep)
        else:
            mean[name].copy_(value)


def save_checkpoint(
    path: Path,
    net: nn.Module,
    mean: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Replace a checkpoint; an interrupted call leaves the former one."""
    state = {
        "net": net.state_dict(), "mean": mean, "optimizer": optimizer.state_dict(), "step": step
    }  # fmt: skip
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def train(options: argparse.Namespace) -> None:
    """Train for a wall-clock budget with a cosine schedule; write a checkpoint every 50 steps."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = DuraNet().to(device, memory_format=torch.channels_last_3d)  # faster on CPUs
    if options.start is not None:
        weights = torch.load(options.start, weights_only=True, map_location=device)["mean"]
        net.load_state_dict(weights)
    optimizer = torch.optim.AdamW(net.parameters(), options.rate, weight_decay=1e-3)
    first, mean = 0, {k: v.detach().clone() for k, v in net.state_dict().items()}
    if options.resume and options.out.exists():
        state = torch.load(options.out, weights_only=True, map_location=device)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first, mean = state["step"], state["mean"]
    patches = torch.utils.data.DataLoader(
        Patches(options.pool, options.seed + first), batch_size=BATCH, num_workers=1,
        prefetch_factor=6,
    )  # fmt: skip
    start, losses = time.monotonic(), []
    for step, batch in enumerate(patches, start=first + 1):
        done = (time.monotonic() - start) / (60 * options.minutes)
        warm = min(1.0, (step - first) / 50)
        rate = options.rate * warm * (0.505 + 0.495 * np.cos(np.pi * min(done, 1)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        net.train()
        planes, target, weight = (part.to(device) for part in batch)
        planes = planes.contiguous(memory_format=torch.channels_last_3d)
        loss = loss_of(net(planes), target, weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        update_mean(mean, net, min(AVERAGED, (step + 1) / (step + 20)))
        losses.append(float(loss.detach()))
        if step % 50 == 0 or done >= 1:
            seconds = time.monotonic() - start
            print(f"{step} {seconds:.0f} s loss {np.mean(losses[-200:]):.4f}", flush=True)
            save_checkpoint(options.out, net, mean, optimizer, step)
        if done >= 1:
            return


def average(first: Path, second: Path, path: Path) -> None:
    """Write the mean weights of two networks; the second was trained from the first (``--start``).

    The mean keeps more of what the first learned from other data (Wortsman et al., CVPR 2022,
    7959).
    """
    states = [torch.load(name, weights_only=True, map_location="cpu") for name in (first, second)]
    old, new = (state["mean"] for state in states)
    mean = {
        name: (value.float() + new[name].float()) / 2 if value.is_floating_point() else value
        for name, value in old.items()
    }
    torch.save({"mean": mean, "step": sum(state["step"] for state in states)}, path)


def export(checkpoint: Path, path: Path) -> None:
    """Write the running mean of the weights as ONNX, for any arc length."""
    net = DuraNet()
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    net.load_state_dict(state["mean"])
    net.eval()
    example = torch.zeros(1, 3, 80, ANGLES + 2 * OVERLAP_RAYS, 48)
    axes = {"polar": {2: "arc"}, "logits": {2: "arc"}}
    torch.onnx.export(
        net, (example,), str(path), input_names=["polar"], output_names=["logits"],
        dynamic_axes=axes, opset_version=17, dynamo=False,
    )  # fmt: skip
    print(json.dumps({"steps": state["step"], "patches": state["step"] * BATCH}))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train, writing a checkpoint")
    training.add_argument("pool", type=Path)
    training.add_argument("--minutes", type=float, default=80.0)
    training.add_argument("--rate", type=float, default=LEARNING_RATE)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--start", type=Path, help="initial weights, such as training/dura.pt")
    training.add_argument("--resume", action="store_true", help="resume from the checkpoint")
    training.add_argument("--out", type=Path, default=Path("dura.pt"))
    averaging = commands.add_parser("average", help="average the weights of two checkpoints")
    averaging.add_argument("first", type=Path)
    averaging.add_argument("second", type=Path)
    averaging.add_argument("--out", type=Path, required=True)
    exporting = commands.add_parser("export", help="write ONNX")
    exporting.add_argument("checkpoint", type=Path)
    exporting.add_argument("onnx", type=Path)
    options = parser.parse_args()
    if options.command == "train":
        train(options)
    elif options.command == "average":
        average(options.first, options.second, options.out)
    else:
        export(options.checkpoint, options.onnx)


if __name__ == "__main__":
    main()
