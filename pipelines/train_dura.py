"""Train the dura network and write it as ONNX.

Half of the pieces are made up anew each time (`dura_pieces`), half are cut from phantoms of
leakloc, straightened and put in polar coordinates by the package itself (``cache``). No patient
data.

    python pipelines/train_dura.py cache POLAR --seeds 0,2,3
    python pipelines/train_dura.py train POLAR --minutes 38
    python pipelines/train_dura.py export CHECKPOINT leakloc/models/dura.onnx

Needs ``pip install leakloc[train]``. Training goes on from a checkpoint with ``--resume``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from dura_pieces import SLICES, Piece, make_piece
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import nn
from torch.nn import functional

from leakloc.centerline import Centerline
from leakloc.phantom import SCENARIOS, make_phantom
from leakloc.segmentation.dura import find_dura, follow_fluid, polar_signal
from leakloc.segmentation.dura_network import ANGLES, OVERLAP_RAYS, RADII, network_input
from leakloc.segmentation.fluid import map_fluid
from leakloc.segmentation.steps import canal_centerline
from leakloc.settings import SegmentationSettings
from leakloc.volume import Volume

CHANNELS = (8, 16, 32, 48)
MADE_UP_SHARE = 0.5
BATCH = 4
LEARNING_RATE = 2e-3
JITTER_MM = 1.2
"""Standard deviation by which centrelines are moved, so that the network forgives poor ones."""


class Block(nn.Module):
    """Convolutions of 3 x 3 x 3 with batch normalisation and rectifier."""

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
    """3D U-Net over arc, angle and radius; logits of inside the dura and of fluid outside."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = CHANNELS
        self.down = nn.ModuleList([Block(2, a, 1), Block(a, b, 2), Block(b, c, 2), Block(c, d, 2)])
        self.up = nn.ModuleList([Block(d + c, c, 1), Block(c + b, b, 1), Block(b + a, a, 1)])
        self.out = nn.Conv3d(a, 2, 1)
        self.steps = ((2, 2, 2), (2, 2, 2), (2, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the shape of `x`, which `network_input` makes."""
        kept = [self.down[0](x)]
        for block, step in zip(self.down[1:], self.steps, strict=True):
            kept.append(block(functional.max_pool3d(kept[-1], step)))
        y = kept.pop()
        for block, step in zip(self.up, reversed(self.steps), strict=True):
            scale = tuple(float(n) for n in step)
            wide = functional.interpolate(y, scale_factor=scale, mode="nearest")
            y = block(torch.cat([wide, kept.pop()], 1))
        return self.out(y)


def cache_phantom(scenario: str, seed: int, path: Path) -> None:
    """Store a phantom in polar coordinates about four centrelines: rough and fine, each moved."""
    phantom = make_phantom(scenario, seed)
    series = [s for s in phantom.series() if s.sequence.name in ("ht2w_3d", "ht2w_bssfp")][-1]
    volume = phantom.image(series.sequence, series.geometry)
    masks = phantom.masks(volume.geometry)
    settings = SegmentationSettings()
    line = canal_centerline(volume, settings=settings)
    fluid = map_fluid(volume.oriented("LPS"), line, settings)
    fine = find_dura(fluid.fraction, line, settings, surface_signal=fluid.signal).centerline
    rng = np.random.default_rng(seed)
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, axis in (("rough", follow_fluid(fluid.fraction, line)), ("fine", fine)):
        for moved in (0, 1):
            used = _moved(axis, rng) if moved else axis
            signal, in_field = polar_signal(fluid.signal, used)
            key = f"{name}{moved}"
            stored[f"{key}_signal"] = signal.astype(np.float16)
            stored[f"{key}_in_field"] = in_field
            stored[f"{key}_inside"] = polar_signal(masks.thecal_sac, used)[0].astype(np.float16)
            outside = Volume(masks.fluid_fraction.array, volume.geometry)
            stored[f"{key}_fluid"] = polar_signal(outside, used)[0].astype(np.float16)
    np.savez_compressed(path, **stored)


def _moved(line: Centerline, rng: np.random.Generator) -> Centerline:
    shift = gaussian_filter1d(rng.normal(size=(len(line.points_lps), 2)), 12, axis=0)
    shift *= JITTER_MM / shift.std()
    points = line.points_lps + shift[:, :1] * line.lefts_lps + shift[:, 1:] * line.dorsals_lps
    return Centerline.smoothed(points, step_mm=1.0, smoothing_mm=4.0)


class Pieces(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Endless pieces, made up or cut from cached phantoms, as network input and target."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.files = sorted(folder.glob("*.npz"))
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Draw and augment."""
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        loaded: dict[Path, dict[str, npt.NDArray[Any]]] = {}
        while True:
            if not self.files or rng.random() < MADE_UP_SHARE:
                piece = make_piece(rng)
            else:
                path = self.files[rng.integers(len(self.files))]
                if path not in loaded:
                    loaded[path] = dict(np.load(path))
                piece = _disturbed(_cut(loaded[path], rng), rng)
            parts = _turned(piece, rng)
            planes = network_input(parts[0], parts[1].astype(bool))
            yield planes, np.stack(parts[2:]).astype(np.float32)


def _cut(stored: dict[str, npt.NDArray[Any]], rng: np.random.Generator) -> Piece:
    """A stretch of a phantom, more often than not one with fluid outside the dura."""
    key = f"{rng.choice(['rough', 'fine'])}{rng.integers(2)}"
    fluid = stored[f"{key}_fluid"]
    wet = np.flatnonzero(fluid.max((1, 2)) > 0.4)
    middle = rng.integers(len(fluid))
    if len(wet) and rng.random() < 0.6:
        middle = rng.choice(wet) + rng.integers(-10, 10)
    start = int(np.clip(middle - SLICES // 2, 0, len(fluid) - SLICES))
    part = slice(start, start + SLICES)
    names = ("signal", "in_field", "inside", "fluid")
    return Piece(*(stored[f"{key}_{name}"][part].astype(np.float32) for name in names))


def _disturbed(piece: Piece, rng: np.random.Generator) -> Piece:
    """More blur, noise, contrast and another scale."""
    signal = piece.signal
    if rng.random() < 0.5:
        if rng.random() < 0.5:
            width = rng.uniform(0, 0.5)
            signal = gaussian_filter(signal, (width, width, 2.4 * width))
        noise = gaussian_filter(rng.normal(size=signal.shape), (0.4, 0.9, 1.2))
        signal = signal + noise / noise.std() * rng.uniform(0, 0.06)
    if rng.random() < 0.3:
        signal = np.clip(signal, 0, None) ** rng.uniform(0.75, 1.35)
    return Piece(signal * rng.uniform(0.88, 1.12), piece.in_field, piece.inside, piece.fluid)


def _turned(piece: Piece, rng: np.random.Generator) -> list[npt.NDArray[Any]]:
    """Mirror left and right, turn about the canal, or turn upside down."""
    parts = [piece.signal, piece.in_field, piece.inside, piece.fluid]
    if rng.random() < 0.5:
        parts = [np.roll(part[:, ::-1], 1 + ANGLES // 2, axis=1) for part in parts]
    if rng.random() < 0.25:
        turn = int(rng.integers(ANGLES))
        parts = [np.roll(part, turn, axis=1) for part in parts]
    if rng.random() < 0.3:
        parts = [part[::-1] for part in parts]
    return parts


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice; the fluid outside counts half."""
    logits = logits[:, :, :, OVERLAP_RAYS:-OVERLAP_RAYS, :RADII]
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    likely = torch.sigmoid(logits)
    overlap = (likely * target).sum((2, 3, 4))
    dice = (2 * overlap + 20) / ((likely + target).sum((2, 3, 4)) + 20)
    weighted = entropy[:, 0].mean() + 0.5 * entropy[:, 1].mean()
    return 2 * weighted + 0.5 * (1 - dice).sum(1).mean()


def train(folder: Path, minutes: float, seed: int, resume: Path | None, out: Path) -> None:
    """Train for a time, with a cosine schedule; a checkpoint every 50 steps."""
    torch.manual_seed(seed)
    net = DuraNet()
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=1e-3)
    if resume is not None:
        state = torch.load(resume, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    pieces = torch.utils.data.DataLoader(
        Pieces(folder, seed), batch_size=BATCH, num_workers=1, prefetch_factor=6
    )
    start, losses = time.monotonic(), []
    for step, (planes, target) in enumerate(pieces, start=1):
        done = (time.monotonic() - start) / (60 * minutes)
        rate = LEARNING_RATE * min(1.0, step / 50) * (0.51 + 0.49 * np.cos(np.pi * min(done, 1)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        net.train()
        loss = loss_of(net(planes), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 50 == 0 or done >= 1:
            print(
                f"{step} {60 * minutes * done:.0f} s loss {np.mean(losses[-100:]):.4f}", flush=True
            )
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, out)
        if done >= 1:
            return


def export(checkpoint: Path, path: Path) -> None:
    """Write the weights as ONNX, any length of arc."""
    net = DuraNet()
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["net"])
    net.eval()
    example = torch.zeros(1, 2, 80, ANGLES + 2 * OVERLAP_RAYS, 40)
    axes = {"polar": {2: "arc"}, "logits": {2: "arc"}}
    torch.onnx.export(
        net, (example,), str(path), input_names=["polar"], output_names=["logits"],
        dynamic_axes=axes, opset_version=17, dynamo=False,
    )  # fmt: skip


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    caching = commands.add_parser("cache", help="phantoms in polar coordinates")
    caching.add_argument("folder", type=Path)
    caching.add_argument("--seeds", default="0,2,3")
    caching.add_argument("--scenarios", default=",".join(n for n in SCENARIOS if n != "slab_only"))
    training = commands.add_parser("train", help="train, writing a checkpoint")
    training.add_argument("folder", type=Path)
    training.add_argument("--minutes", type=float, default=38.0)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--resume", type=Path)
    training.add_argument("--out", type=Path, default=Path("dura.pt"))
    exporting = commands.add_parser("export", help="write ONNX")
    exporting.add_argument("checkpoint", type=Path)
    exporting.add_argument("onnx", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "cache":
        given.folder.mkdir(parents=True, exist_ok=True)
        for seed in map(int, given.seeds.split(",")):
            for scenario in given.scenarios.split(","):
                path = given.folder / f"{scenario}_{seed}.npz"
                if not path.exists():
                    cache_phantom(scenario, seed, path)
    elif given.command == "train":
        train(given.folder, given.minutes, given.seed, given.resume, given.out)
    else:
        export(given.checkpoint, given.onnx)


if __name__ == "__main__":
    main()
