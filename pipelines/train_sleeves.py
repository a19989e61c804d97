"""Train the sleeve network: cysts and diverticula of the roots, or normal sleeves.

    python pipelines/train_sleeves.py collect WORK --seeds 0-39 --repeats 2
    python pipelines/train_sleeves.py collect WORK --seeds 40-55 --repeats 1
    python pipelines/train_sleeves.py train WORK --epochs 24 --out sleeves.pt
    python pipelines/train_sleeves.py measure WORK sleeves.pt
    python pipelines/train_sleeves.py export sleeves.pt leakloc/models/sleeves.onnx

A sample is the vicinity of a root in a phantom with many cysts and diverticula. Only the signal of
CSF, sac, sleeves, roots and veins is rendered, in the coordinates of the canal, which takes two
seconds per phantom. Seeds from `VALIDATION` on are used by ``measure`` only. Needs the extra
``train``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Geometry
from leakloc.segmentation.root_sleeves import distance_mm, root_region, sleeve_points
from leakloc.segmentation.sleeve_network import SHAPE, sleeve_patch
from leakloc.validation import phantom
from leakloc.validation.phantom.body import Body
from leakloc.validation.phantom.canvas import Points
from leakloc.validation.phantom.findings import Blob, Tube, root_direction
from leakloc.validation.phantom.shapes import Float, Noise3D, coverage
from leakloc.validation.phantom.truth import TrueRootStructure

VALIDATION: Final = 40
"""First seed that is not used for training."""
LEVELS: Final = (
    "T10-T11", "T11-T12", "T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1", "S1-S2",
)  # fmt: skip
SIZES_MM: Final = ((1.5, 2.3), (2.0, 3.0), (2.3, 3.3), (3.0, 4.5))
"""Ranges of the mean radius, one of which is drawn: structures about the limit are frequent."""
FREQUENCY: Final = 0.62
CYSTS: Final = 0.6
"""Probability of a structure, twice per level, and fraction of cysts around a root."""
SLEEVE_SD: Final = (0.15, 0.25)
"""Standard deviation of the logarithm of factors of all sleeve radii and lengths of a patient."""
VEINS: Final = 0.4
VEIN_MM: Final = (0.8, 3.0)
VEIN_SIGNAL: Final = (0.5, 1.0)
"""Probability of a bright vein along the canal per level, range of its radius, and of its signal
relative to CSF."""
BOX_MM: Final = (16.0, 25.0, 13.0)
"""Half size of the rendered box in caudal, left and dorsal direction."""
CAUDAL_MM: Final = 6.0
"""Distance of its center caudal to the exit of the root."""
MARGIN: Final = 2
"""Points of a stored patch in addition to `SHAPE`, for shifts."""
MIN_MM: Final = 3.0
FULL_MM: Final = 3.6
"""Visible diameter below which a structure is not a sample, and above which it is positive."""
REACH_MM: Final = 4.0
"""Distance of a point from the center of its structure; 0.6 diameters if more."""
APART_MM: Final = 3.0
"""Minimum distance of a normal sample from the surface of every structure."""
WIDTH: Final = 12
LEARNING_RATE: Final = 2e-3
BATCH: Final = 32


class SleeveNet(nn.Module):
    """Three convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(3, WIDTH, 4, 2, 1)
        self.second = nn.Conv3d(WIDTH, 2 * WIDTH, 3, padding=1)
        self.third = nn.Conv3d(2 * WIDTH, 2 * WIDTH, 3, 2, 1)
        self.hidden = nn.Linear(2 * WIDTH * 5 * 5 * 4, 32)
        self.out = nn.Linear(32, 1)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log odds of patches, shape (n,)."""
        for layer in (self.first, self.second, self.third):
            x = functional.relu(layer(x))
        hidden = functional.relu(self.hidden(self.drop(x.flatten(1))))
        return self.out(self.drop(hidden))[:, 0]


def crowded(seed: int, repeat: int, rng: np.random.Generator) -> phantom.Phantom:
    """Return a phantom with many structures, and with sleeves that are wider or narrower."""
    mimics = tuple(
        phantom.MimicSpec(
            "perineural_cyst" if rng.random() < CYSTS else "root_diverticulum",
            (level,),
            SIZES_MM[int(rng.integers(len(SIZES_MM)))],
        )
        for level in LEVELS
        for _ in range(2)
        if rng.random() < FREQUENCY
    )
    base = phantom.SCENARIOS["normal"]
    subject = phantom.make_phantom(
        replace(base, name=f"root structures {repeat}", mimics=mimics), seed
    )
    roots = subject.body.anatomy.tables.roots
    for table, sd in zip((roots.sleeve_radius, roots.sleeve_length), SLEEVE_SD, strict=True):
        table[:] *= np.float32(np.exp(rng.normal(0, sd)))
    return subject


def draw_vein(center: FloatArray, rng: np.random.Generator) -> tuple[Tube, float]:
    """Return a vein lateral to the sac, longer than the box, and its signal."""
    side = rng.choice([-1.0, 1.0])
    start = center + np.array([-20.0, side * rng.uniform(9, 18), rng.uniform(-7, 3)])
    stop = start + np.array([40.0, side * rng.uniform(-5, 5), rng.uniform(-5, 5)])
    radii = rng.uniform(*VEIN_MM) * rng.uniform(0.8, 1.2, 2)
    tube = Tube(np.array([start, stop]), radii, Noise3D(rng, 5.0), 0.3)
    return tube, float(rng.uniform(*VEIN_SIGNAL))


def grid_at(center: FloatArray, voxel_mm: float, rng: np.random.Generator) -> Geometry:
    """Return the grid of a tilted box; its LPS axes are left, dorsal and cranial."""
    shape = np.ceil(2 * np.array(BOX_MM) / voxel_mm).astype(int)[[0, 2, 1]]
    turn = Rotation.from_rotvec(rng.normal(0, 0.06, 3)).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = voxel_mm * turn @ np.diag([1.0, 1.0, -1.0])
    middle = np.array([center[1], center[2], -center[0]]) + voxel_mm * rng.uniform(-0.5, 0.5, 3)
    affine[:3, 3] = middle - affine[:3, :3] @ (0.5 * (shape[::-1] - 1))
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def rendered(
    body: Body,
    shapes: Sequence[tuple[Blob | Tube, float]],
    grid: Geometry,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the normalized signal and the sac; eight points per voxel."""
    kji = [np.arange(2 * n) / 2 - 0.25 for n in grid.shape]
    lps = grid.lps_from_kji(np.stack(np.meshgrid(*kji, indexing="ij"), axis=-1)).reshape(-1, 3)
    left, dorsal, cranial = (np.ascontiguousarray(x) for x in lps.T.astype(np.float32))
    arc, zeros = -cranial, np.zeros_like(left)
    points = Points(arc, left, dorsal, zeros, zeros, zeros, body.anatomy.rows(arc))
    width_mm = 0.5 * grid.spacing_ijk_mm[0]

    def inside(distance: Float) -> Float:
        return coverage(distance, width_mm)

    def mean(values: Float) -> npt.NDArray[np.float64]:
        k, j, i = grid.shape
        return np.asarray(values.reshape(k, 2, j, 2, i, 2).mean(axis=(1, 3, 5)), np.float64)

    sleeve, root = body.canal.sleeve_distances(points)
    sac = body.canal.sac_distance(points)
    outer, inner, nerve = inside(sleeve - 0.25), inside(sleeve), inside(root)
    csf = np.zeros_like(left)
    for shape, brightness in shapes:
        if shape.reach_mm[0] < arc.max() and shape.reach_mm[1] > arc.min():
            csf = np.maximum(csf, brightness * inside(shape.distance(arc, left, dorsal)))
    csf = csf * (1 - np.maximum(nerve, outer)) + np.maximum(inner - nerve, 0)
    in_sac = inside(sac)
    dura = np.maximum(inside(sac - 0.35) - np.minimum(inner, inside(sac - 1.2)), in_sac)
    signal = mean(csf * (1 - dura) + in_sac)
    fat = np.abs(ndimage.gaussian_filter(rng.normal(0, 1, signal.shape), 1.5))
    tissue = rng.uniform(0.01, 0.03) + rng.uniform(0, 0.05) * fat / fat.std()
    signal = ndimage.gaussian_filter(signal + tissue * (1 - np.clip(signal, 0, 1)), 0.38)
    noise = rng.normal(0, 1 / rng.uniform(25, 45), (2, *signal.shape))
    signal = np.hypot(signal + noise[0], noise[1]) - rng.uniform(0.04, 0.06)
    signal = np.clip(signal * rng.uniform(0.92, 1.12), 0, 1).astype(np.float32)
    return signal, mean(in_sac) > rng.uniform(0.35, 0.65)


def samples(seed: int, repeat: int) -> list[tuple[npt.NDArray[np.uint8], float, float, str]]:
    """Return the samples of a phantom.

    Returns
    -------
    list of tuple
        Patch (0 to 255), visible diameter of the structure at the point (0 for none), distance
        from the surface of the nearest structure, and kind.
    """
    rng = np.random.default_rng([seed, repeat])
    subject = crowded(seed, repeat, rng)
    body, true = subject.body, subject.truth.root_structures
    shapes = [s for f in body.findings.mimics for s in f.shapes if isinstance(s, Blob)]
    voxel_mm = 1.25 if rng.random() < 0.6 else 1.0
    length_mm = float(body.anatomy.hiatus_mm)
    arcs = np.arange(0.0, length_mm)
    line = Centerline.smoothed(
        np.stack([0 * arcs, 0 * arcs, -arcs], axis=1), step_mm=1.0, smoothing_mm=0.0
    )
    found = []
    for level in LEVELS:
        start, _, _ = root_direction(body.anatomy, level.split("-")[1], 1.0)
        center = np.array([start[0] + CAUDAL_MM, 0.0, start[2] - 1.0])
        grid = grid_at(center, voxel_mm, rng)
        bright: list[tuple[Blob | Tube, float]] = [(shape, 1.0) for shape in shapes]
        if rng.random() < VEINS:
            bright.append(draw_vein(center, rng))
        signal, inside = rendered(body, bright, grid, rng)
        c = CanalCoordinates.of(grid, line)
        outside_mm = distance_mm(inside, grid.spacing_kji_mm)
        for at in map(tuple, sleeve_points(signal, outside_mm, root_region(c), c)):
            canal_mm = (float(c.arc[at]), float(c.left[at]), float(c.dorsal[at]))
            if abs(canal_mm[0] - center[0]) > BOX_MM[0] - 4:
                continue
            bigger = tuple(n + MARGIN for n in SHAPE)
            patch = sleeve_patch(signal, inside, grid, line, canal_mm, bigger)
            away_mm = np.array([float(np.linalg.norm(s.center - canal_mm)) for s in shapes])
            found.append(((255 * patch).astype(np.uint8), *label(away_mm, true)))
    return found


def label(away_mm: FloatArray, true: tuple[TrueRootStructure, ...]) -> tuple[float, float, str]:
    """Return visible diameter, distance and kind of the structure at a point."""
    pairs = list(zip(away_mm, true, strict=True))
    nearest = min((mm - 0.5 * t.diameter_mm for mm, t in pairs), default=99.0)
    here = [t for mm, t in pairs if mm <= max(0.6 * t.diameter_mm, REACH_MM)]
    if not here:
        return 0.0, float(nearest), "normal"
    largest = max(here, key=lambda t: t.visible_mm)
    return largest.visible_mm, float(nearest), largest.kind


def collect(options: argparse.Namespace) -> None:
    """Store the samples of every phantom."""
    options.work.mkdir(parents=True, exist_ok=True)
    first, last = options.seeds
    for repeat in range(options.repeats):
        for seed in range(first, last + 1):
            path = options.work / f"{seed}_{repeat}.npz"
            if path.exists():
                continue
            patches, visible, nearest, kinds = zip(*samples(seed, repeat), strict=True)
            np.savez_compressed(
                path, patches=np.stack(patches), visible_mm=visible, nearest_mm=nearest,
                kinds=kinds,
            )  # fmt: skip


def stored(work: Path, validation: bool) -> dict[str, npt.NDArray[Any]]:
    """Return all samples of the training or the validation seeds."""
    paths = sorted(work.glob("*.npz"))
    wanted = [p for p in paths if (int(p.stem.split("_")[0]) >= VALIDATION) == validation]
    parts = [dict(np.load(path)) for path in wanted]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def targets(
    data: dict[str, npt.NDArray[Any]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the target of each sample, and its weight in the loss."""
    visible = data["visible_mm"]
    doubtful = (visible >= MIN_MM) & (visible < FULL_MM)
    target = np.where(doubtful, 0.4, visible >= FULL_MM)
    weight = np.where(doubtful, 0.4, (visible >= FULL_MM) | is_normal(data))
    return target.astype(np.float32), weight.astype(np.float32)


def is_normal(data: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Return which samples are normal and apart from every structure."""
    return np.asarray((data["visible_mm"] == 0) & (data["nearest_mm"] >= APART_MM))


def cropped(patches: npt.NDArray[np.uint8], shift: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return the patches without margin, shifted, 0 to 1."""
    first = [MARGIN // 2 + n for n in shift]
    i, j, k = (slice(n, n + size) for n, size in zip(first, SHAPE, strict=True))
    return patches[..., i, j, k].astype(np.float32) / 255


def train(options: argparse.Namespace) -> None:
    """Train for a number of epochs."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    data = stored(options.work, validation=False)
    target, weight = targets(data)
    used = np.flatnonzero(weight)
    print(f"{len(used)} samples, {int((target[used] > 0.5).sum())} with a structure")
    net = SleeveNet()
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=1e-2)
    steps = options.epochs * (len(used) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    for epoch in range(options.epochs):
        net.train()
        order = rng.permutation(used)
        for n in range(len(used) // BATCH):
            batch = order[n * BATCH : (n + 1) * BATCH]
            x = cropped(data["patches"][batch], tuple(rng.integers(-1, 2, 3)))
            signal = x[:, 0::2]
            gain = rng.uniform(0.93, 1.07, (BATCH, 1, 1, 1, 1))
            noise = rng.normal(0, rng.uniform(0, 0.03), signal.shape)
            x[:, 0::2] = np.clip(signal * gain + noise, 0, 1)
            loss = functional.binary_cross_entropy_with_logits(
                net(torch.from_numpy(x)),
                torch.from_numpy(target[batch]),
                torch.from_numpy(weight[batch]),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.save(net.state_dict(), options.out)
        if epoch % 4 == 3 or epoch == options.epochs - 1:
            report(net, stored(options.work, validation=True))


def report(net: SleeveNet, data: dict[str, npt.NDArray[Any]]) -> None:
    """Print the structures above limits with 0.05 to 0.2 false per 18 normal samples."""
    net.eval()
    with torch.no_grad():
        logits = net(torch.from_numpy(cropped(data["patches"], (0, 0, 0)))).numpy()
    falling = np.sort(logits[is_normal(data)])[::-1]
    for false in (0.05, 0.1, 0.2):
        limit = falling[int(false * len(falling) / 18)]
        line = f"{false} false per study, limit {limit:.2f}:"
        for kind in ("perineural_cyst", "root_diverticulum"):
            for low, high in ((4, 5), (5, 6), (6, 99)):
                visible = data["visible_mm"]
                part = (data["kinds"] == kind) & (visible >= low) & (visible < high)
                line += f" {kind} from {low} mm {int((logits[part] > limit).sum())}/{part.sum()}"
        print(line, flush=True)


def loaded(checkpoint: Path) -> SleeveNet:
    """Return a trained network."""
    net = SleeveNet()
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    return net.eval()


def measure(options: argparse.Namespace) -> None:
    """Print the accuracy on the validation samples."""
    report(loaded(options.checkpoint), stored(options.work, validation=True))


def export(options: argparse.Namespace) -> None:
    """Write the network as ONNX."""
    axes = {"patches": {0: "n"}, "logits": {0: "n"}}
    torch.onnx.export(
        loaded(options.checkpoint), (torch.zeros(1, 3, *SHAPE),), options.path,
        input_names=["patches"], output_names=["logits"], dynamic_axes=axes, opset_version=17,
        dynamo=False,
    )  # fmt: skip


def seed_range(text: str) -> tuple[int, int]:
    """Parse a range of seeds, as 0-39."""
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    part = commands.add_parser("collect", help="compute samples")
    part.add_argument("work", type=Path)
    part.add_argument("--seeds", type=seed_range, required=True, help="first and last")
    part.add_argument("--repeats", type=int, default=1, help="phantoms per seed")
    part.set_defaults(run=collect)
    part = commands.add_parser("train", help="train on stored samples")
    part.add_argument("work", type=Path)
    part.add_argument("--epochs", type=int, default=24)
    part.add_argument("--threads", type=int, default=1)
    part.add_argument("--out", type=Path, required=True)
    part.set_defaults(run=train)
    part = commands.add_parser("measure", help="print the accuracy on the validation samples")
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
