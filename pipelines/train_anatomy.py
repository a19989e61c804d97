"""Train the anatomy network and write it as ONNX.

Data: SPIDER (van der Graaf et al., Sci Data 11:264, 2024, doi 10.1038/s41597-024-03090-w,
CC BY 4.0, modified), and optionally a folder of leakloc phantoms. The volumes have one
contrast; the others are synthesized from the masks (`_remapped`).

Run ``python pipelines/train_anatomy.py --help``; needs the extra ``train`` of leakloc.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from leakloc.anatomy.network import CLASSES, network_input
from leakloc.core.volume import Volume

HELD_OUT = ("005", "045", "069", "098", "127", "162", "220")
"""SPIDER patients never used for training."""
BODY, DISC, CANAL, SACRUM = 1, 2, 3, 4
ARCH = 5
"""Neural arch: bone with a separate contrast, background in the network output."""
EPIDURAL = 6
"""Margin around the sac of a phantom, excluded from the loss: the canal border is undefined."""
UNKNOWN = 255
"""Outside the field of view, excluded from the loss."""
STEP_MM = 1.0
"""Voxel size of the cached sagittal planes and of the network."""
CROP_PX = 192
"""Side of a training patch: seven lumbar, ten cervical segments."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One volume as sagittal planes ``[i, k, j]``: k increases cranially, j posteriorly.

    Parameters
    ----------
    image : ndarray, float32
        Signal; in real volumes 1 is the median of the vertebral bodies.
    labels : ndarray, uint8
        Class per voxel; `ARCH` is background, `EPIDURAL` is excluded.
    plane_step_mm : float
        Distance between planes.
    real : bool
        Whether the sacrum is unlabeled, so that background may also be sacrum.
    """

    image: Array
    labels: Array
    plane_step_mm: float
    real: bool
    remappable: bool = True


def load_spider(folder: Path, patient: str) -> Case:
    """Read one SPIDER volume and relabel the neural arches of its vertebrae."""
    stem = folder / f"spider-{patient}"
    image = Volume.from_nibabel(nib.load(f"{stem}_T2SPACE.nii.gz")).oriented("LPS")
    mask = Volume.from_nibabel(nib.load(f"{stem}_mask.nii.gz")).oriented("LPS")
    i_mm, j_mm, k_mm = image.geometry.spacing_ijk_mm
    planes = np.moveaxis(image.array, 2, 0).astype(np.float32)
    labels = np.moveaxis(mask.array, 2, 0)
    labels = _without_arches(labels, j_mm)
    zoom = (k_mm / STEP_MM, j_mm / STEP_MM)
    shape = tuple(round(n * z) for n, z in zip(planes.shape[1:], zoom, strict=True))
    one_hot = np.stack([labels == c for c in range(ARCH + 1)], 1).astype(np.float32)
    fine = torch.from_numpy(np.concatenate([planes[:, None], one_hot], 1))
    coarse = functional.interpolate(fine, shape, mode="bilinear", antialias=True).numpy()
    small = coarse[:, 1:].argmax(1).astype(np.uint8)
    signal = coarse[:, 0] / np.median(coarse[:, 0][small == BODY])
    return Case(signal, small, i_mm, real=True)


def _without_arches(labels: Array, j_mm: float) -> Array:
    """Relabel bone posterior to the anterior canal wall as arch (planes ``[i, k, j]``)."""
    front = np.full(labels.shape[1], np.nan)
    canal = labels == 3
    for k in range(labels.shape[1]):
        columns = [np.flatnonzero(plane[k]).min() for plane in canal if plane[k].any()]
        if columns:
            front[k] = np.median(columns)
    known = np.flatnonzero(np.isfinite(front))
    front = np.interp(np.arange(len(front)), known, front[known])
    # The pedicle starts here; 4 mm preserve the rounded posterior corners of the body.
    behind = np.arange(labels.shape[2]) > (front + 4.0 / j_mm)[:, None]
    result = labels.astype(np.uint8).copy()
    result[(labels == BODY) & behind] = ARCH
    return result


def load_cases(spider: Path | None, phantoms: Path | None) -> tuple[list[Case], list[Case]]:
    """Return the training volumes: real ones (without held-out patients) and phantoms."""
    real, synthetic = [], []
    if spider is not None:
        for path in sorted(spider.glob("spider-*_T2SPACE.nii.gz")):
            patient = path.name.removeprefix("spider-")[:3]
            if patient not in HELD_OUT:
                real.append(load_spider(spider, patient))
    if phantoms is not None:
        for path in sorted(phantoms.glob("*.npz")):
            with np.load(path) as data:
                image, labels = data["image"].astype(np.float32), data["labels"]
                image /= np.median(image[(labels == BODY) | (labels == SACRUM)])
                step_mm, remappable = float(data["plane_step_mm"]), bool(data["remappable"])
                synthetic.append(Case(image, labels, step_mm, False, remappable))
    return real, synthetic


# --- patches ------------------------------------------------------------------------------


def patch(case: Case, rng: np.random.Generator, size: int = CROP_PX) -> tuple[Array, Array]:
    """Return a random training patch.

    Returns
    -------
    inputs : ndarray, float32, shape (channels, size, size)
    target : ndarray, uint8, shape (size, size)
        Class, `UNKNOWN` outside the field.
    """
    count = case.image.shape[0]
    step = max(1, round(rng.uniform(2.0, 4.5) / case.plane_step_mm))
    thick = int(rng.integers(1, step + 1))
    center = int(rng.integers(0, count))
    wanted = [int(np.clip(center + d * step, 0, count - 1)) for d in (-1, 0, 1)]
    if rng.random() < 0.5:  # left-right symmetry
        wanted.reverse()
    planes = []
    for i in wanted:
        first = max(0, i - thick // 2)
        planes.append(case.image[first : first + thick].mean(0))
    labels = case.labels[wanted]
    image, labels, inside = _moved(np.stack(planes), labels, rng, size)
    natural = not case.remappable or rng.random() < 0.2
    if natural:
        signal = image / max(float(np.percentile(image, 99)), 1e-6)
    else:
        signal = _remapped(image, labels, rng)
    signal = _degraded(signal, rng)
    field = _random_field(inside, rng)
    signal = np.where(field, signal, 0.0)
    target = labels[1].copy()
    target[target == ARCH] = 0
    target[target == EPIDURAL] = UNKNOWN
    target[~field[1]] = UNKNOWN
    low, high = np.percentile(signal[field], [0.5, 99.5]) if field.any() else (0.0, 1.0)
    high = low + max(high - low, 1e-3) * rng.uniform(0.6, 1.3)
    return network_input(signal.astype(np.float32), float(low), float(high)), target


def _moved(
    image: Array, labels: Array, rng: np.random.Generator, size: int
) -> tuple[Array, Array, Array]:
    """Rotate, scale, bend and warp three planes and their labels about a point of the spine."""
    _, height, width = image.shape
    spine = np.argwhere((labels[1] >= BODY) & (labels[1] <= SACRUM))
    middle = spine[rng.integers(len(spine))] if len(spine) else np.array([height, width]) / 2
    if rng.random() < 0.1:
        middle = np.array([rng.uniform(0, height), rng.uniform(0, width)])
    # A flexed cervical spine may be tilted by 60 degrees.
    angle = np.deg2rad(rng.uniform(-60, 60) if rng.random() < 0.25 else rng.uniform(-20, 20))
    # Down to 0.45: the length of a cervical segment relative to a lumbar one.
    overall = np.exp(rng.uniform(-0.8, 0.26)) if rng.random() < 0.6 else rng.uniform(0.85, 1.15)
    scale = overall * np.exp(rng.normal(0, 0.08, 2))
    rows, columns = np.meshgrid(
        np.arange(size) - size / 2 + rng.uniform(-60, 60),
        np.arange(size) - size / 2 + rng.uniform(-60, 60),
        indexing="ij",
    )
    # Bending changes lordosis to kyphosis, which is absent in lumbar volumes.
    columns = columns + rng.normal(0, 0.0012) * rows**2
    warp = ndimage.zoom(rng.normal(0, 1.5, (2, 5, 5)), (1, size / 5, size / 5), order=1)
    rows, columns = (rows + warp[0]) / scale[0], (columns + warp[1]) / scale[1]
    source_rows = middle[0] + np.cos(angle) * rows - np.sin(angle) * columns
    source_columns = middle[1] + np.sin(angle) * rows + np.cos(angle) * columns
    grid = np.stack([2 * source_columns / (width - 1) - 1, 2 * source_rows / (height - 1) - 1], -1)
    place = torch.from_numpy(grid.astype(np.float32))[None]
    moved = functional.grid_sample(torch.from_numpy(image)[None], place, align_corners=True)[0]
    known = torch.from_numpy(labels.astype(np.float32))[None]
    moved_labels = functional.grid_sample(known, place, mode="nearest", align_corners=True)[0]
    inside = (np.abs(grid) <= 1).all(-1)
    return moved.numpy(), moved_labels.numpy().astype(np.uint8), np.repeat(inside[None], 3, 0)


def _texture(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Array:
    """Return a smooth random field of unit variance."""
    coarse = tuple(max(2, math.ceil(n / max(sigma, 1.0))) + 1 for n in shape)
    field = rng.normal(size=coarse)
    zoom = tuple(n / c for n, c in zip(shape, coarse, strict=True))
    return np.asarray(ndimage.zoom(field, zoom, order=1))


def _remapped(image: Array, labels: Array, rng: np.random.Generator) -> Array:
    """Synthesize another contrast from the masks, with one signal mapping per tissue.

    `image` is in units of the median marrow signal. The presets follow the usual order of tissue
    signals on clinical sequences; the last one is arbitrary, so that no order is assumed.
    """
    kind = rng.choice(["ht2w", "stir", "t1", "t2", "any"], p=[0.35, 0.15, 0.15, 0.1, 0.25])
    u = rng.uniform
    if kind == "ht2w":
        csf, marrow, disc = 1.0, u(0.03, 0.22), u(0.03, 0.28)
        muscle, fat, arch = u(0.02, 0.15), u(0.01, 0.2), marrow * u(0.6, 1.2)
    elif kind == "stir":
        csf, marrow, disc = 1.0, u(0.08, 0.4), u(0.1, 0.9)
        muscle, fat, arch = u(0.12, 0.4), u(0.01, 0.15), marrow * u(0.6, 1.2)
    elif kind == "t1":
        csf, marrow, disc = u(0.05, 0.35), u(0.4, 1.0), u(0.25, 0.6)
        muscle, fat, arch = u(0.25, 0.6), u(0.8, 1.3), marrow * u(0.6, 1.2)
    elif kind == "t2":
        csf, marrow, disc = 1.0, u(0.25, 0.7), u(0.08, 0.9)
        muscle, fat, arch = u(0.05, 0.3), u(0.5, 1.1), marrow * u(0.6, 1.2)
    else:
        csf, marrow, disc, muscle, fat, arch = u(0.02, 1.0, 6)
    air = u(0.0, 0.05)
    # Original signal of air and cortex, muscle, marrow, fat, fluid, relative to marrow.
    knots = np.array([0.0, 0.45, 1.0, 1.8, 3.0])
    like_marrow = marrow * u(0.8, 1.2) if rng.random() < 0.7 else u(0.02, 1.0)  # sacrum, ribs
    other = np.interp(image, knots, [air, muscle, like_marrow, fat, max(fat, csf * u(0.3, 1.0))])

    def tissue(level: float, mean: float, sign_changes: bool) -> Array:
        gain = u(0.1, 1.0) * level / max(mean, 0.2)
        if sign_changes and rng.random() < 0.3:
            gain = -gain
        return level + gain * (image - mean)

    canal = labels == CANAL
    bright = float(np.percentile(image[canal], 85)) if canal.any() else 3.0
    nerve = csf * u(0.1, 0.8) if kind != "t1" else csf * u(1.0, 2.5)
    sac = np.interp(image, [0.0, 0.35 * bright, bright], [nerve * 0.8, nerve, csf])
    if rng.random() < 0.35:  # a cord, which lumbar volumes include only in part
        depth = ndimage.distance_transform_edt(canal[1])
        core = depth > u(0.25, 0.6) * max(float(depth.max()), 1.0)
        sac = np.where(ndimage.gaussian_filter(core.astype(float), 0.7) > 0.5, nerve, sac)
    discs = labels == DISC
    disc_mean = float(image[discs].mean()) if discs.any() else 1.0
    values = {
        BODY: tissue(marrow, 1.0, True),
        DISC: tissue(disc, disc_mean, True),
        CANAL: sac,
        SACRUM: tissue(like_marrow, 1.0, True),
        ARCH: tissue(arch, 0.8, False),
    }
    result = np.zeros_like(image)
    total = np.zeros_like(image)
    softness = u(0.4, 0.9)  # partial volume at the borders of the masks
    for label, value in [(0, other), *values.items()]:
        member = labels == label
        if label == 0:
            member |= labels == EPIDURAL
        member = member.astype(np.float32)
        if not member.any():
            continue
        weight = np.stack([ndimage.gaussian_filter(m, softness) for m in member])
        result += weight * value
        total += weight
    result = result / np.maximum(total, 1e-6)
    if rng.random() < 0.5:  # endplates: dark rims on all sequences
        body = labels == BODY
        rim = np.stack([b & ~ndimage.binary_erosion(b) for b in body])
        result = np.where(rim, result * u(0.3, 1.0), result)
    if rng.random() < 0.5 and kind != "t1":
        result = _with_fluid(result, labels, csf, rng)
    for label in (BODY, DISC, 0):  # inhomogeneous marrow and other tissue
        if rng.random() < 0.3:
            spots = 1 + u(0.05, 0.25) * _texture(image.shape[1:], u(3, 14), rng)
            result = np.where(labels == label, result * spots, result)
    return np.asarray(np.clip(result, 0, None))


def _with_fluid(image: Array, labels: Array, level: float, rng: np.random.Generator) -> Array:
    """Add fluid outside the canal: epidural collections, vessels, bladder, bowel."""
    shape = image.shape[1:]
    free = (labels == 0) | (labels == ARCH) | (labels == EPIDURAL)
    wet = np.zeros(shape, bool)
    if rng.random() < 0.6:
        reach = ndimage.distance_transform_edt(labels[1] != CANAL)
        wet |= (reach < rng.uniform(1.5, 7.0)) & (_texture(shape, 25, rng) > rng.uniform(-0.5, 1.0))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(0, 5)):
        center = rng.uniform(0, shape[0], 2)
        radii = rng.uniform(1.0, 5.0) if rng.random() < 0.6 else rng.uniform(6.0, 30.0)
        stretch = rng.uniform(0.5, 2.0)
        distance = ((rows - center[0]) / stretch) ** 2 + ((columns - center[1]) * stretch) ** 2
        wet |= distance < radii**2
    amount = ndimage.gaussian_filter(wet.astype(np.float32), 0.6) * rng.uniform(0.4, 1.1)
    return np.where(free, image * (1 - np.minimum(amount, 1)) + level * amount, image)


def _degraded(image: Array, rng: np.random.Generator) -> Array:
    """Apply blur, coarser pixels, coil shading, gamma and Rician noise."""
    shape = image.shape
    if rng.random() < 0.4:
        image = ndimage.gaussian_filter(image, (0, rng.uniform(0, 1.0), rng.uniform(0, 1.0)))
    if rng.random() < 0.35:
        factor = rng.uniform(1.2, 2.2, 2) if rng.random() < 0.7 else [rng.uniform(1.5, 3.5), 1.0]
        small = [max(8, round(n / f)) for n, f in zip(shape[1:], factor, strict=True)]
        pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
        coarse = functional.interpolate(pixels, small, mode="bilinear", antialias=True)
        back = functional.interpolate(coarse, shape[1:], mode="bilinear")
        image = back[0].numpy()
    if rng.random() < 0.7:
        rows, columns = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
        slope = rng.normal(0, 0.35, 3)
        shade = np.exp(slope[0] * rows + slope[1] * columns + slope[2] * rows**2)
        image = image * shade
        if rng.random() < 0.5:
            image = image * np.exp(0.15 * _texture(shape[1:], 50, rng))
    top = max(float(np.percentile(image, 99.5)), 1e-6)
    image = image / top
    if rng.random() < 0.4:
        image = np.clip(image, 0, 2) ** np.exp(rng.normal(0, 0.3))
    # Ratio of bright tissue to noise: 12 to 150.
    noise = 1.0 / np.exp(rng.uniform(np.log(12), np.log(150)))
    real = image + rng.normal(0, noise, shape)
    return np.asarray(np.hypot(real, rng.normal(0, noise, shape)))


def _random_field(inside: Array, rng: np.random.Generator) -> Array:
    """Return the field of view, cropped in some cases."""
    size = inside.shape[1]
    if rng.random() < 0.6:
        return inside
    field = np.zeros_like(inside)
    height, width = int(rng.uniform(0.5, 1.0) * size), int(rng.uniform(0.3, 1.0) * size)
    top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
    field[:, top : top + height, left : left + width] = True
    return field & inside


class Patches(torch.utils.data.IterableDataset[Any]):
    """Infinite stream of batches; `phantom_fraction` of the patches come from phantoms."""

    def __init__(
        self,
        real: list[Case],
        synthetic: list[Case],
        *,
        batch: int,
        phantom_fraction: float,
        seed: int,
    ) -> None:
        self.real, self.synthetic, self.batch = real, synthetic, batch
        self.phantom_fraction = phantom_fraction if synthetic else 0.0
        if not real:
            self.phantom_fraction = 1.0
        self.seed = seed

    def __iter__(self) -> Any:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            inputs, targets, kinds = [], [], []
            for _ in range(self.batch):
                pool = self.synthetic if rng.random() < self.phantom_fraction else self.real
                case = pool[rng.integers(len(pool))]
                one, target = patch(case, rng)
                inputs.append(one)
                targets.append(target)
                kinds.append(case.real)
            yield (
                torch.from_numpy(np.stack(inputs)),
                torch.from_numpy(np.stack(targets)).long(),
                torch.tensor(kinds),
            )


# --- network ------------------------------------------------------------------------------


def _block(inward: int, outward: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (inward, outward):
        layers += [nn.Conv2d(source, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class AnatomyNet(nn.Module):
    """U-Net on three sagittal planes and the locally normalized middle one."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _block(a, b) for a, b in zip((4, *widths[:-1]), widths, strict=True)
        )
        pairs = list(pairwise(widths))
        self.lift = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, 2) for flat, deep in pairs)
        self.up = nn.ModuleList(_block(2 * flat, flat) for flat, _ in pairs)
        self.head = nn.Conv2d(widths[0], len(CLASSES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits per class and pixel."""
        skips = []
        for n, block in enumerate(self.down):
            x = block(x if n == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for n in reversed(range(len(self.up))):
            x = self.up[n](torch.cat([self.lift[n](x), skips[n]], 1))
        return self.head(x)


def loss_of(logits: torch.Tensor, target: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy plus soft Dice; in real volumes background may also be sacrum."""
    known = target != UNKNOWN
    label = torch.where(known, target, 0)
    log_p = functional.log_softmax(logits.float(), 1)
    either = torch.logaddexp(log_p[:, :1], log_p[:, 4:])
    outside = torch.where(real[:, None, None, None], either, log_p[:, :1])
    log_p = torch.cat([outside, log_p[:, 1:]], 1)
    weight = (
        torch.tensor([1.0, 1.0, 2.5, 1.5, 4.0])[label] * known
    )  # higher for thin, small and rare structures
    picked = log_p.gather(1, label[:, None])[:, 0]
    entropy = -(picked * weight).sum() / weight.sum().clamp(min=1)
    p = log_p.exp() * known[:, None]
    p = torch.cat([p[:, :4], p[:, 4:] * ~real[:, None, None, None]], 1)
    truth = functional.one_hot(label, len(CLASSES)).movedim(-1, 1) * known[:, None]
    overlap = (p * truth).sum((0, 2, 3))[1:]
    size = (p + truth).sum((0, 2, 3))[1:]
    present = truth.sum((0, 2, 3))[1:] > 0
    # The sacrum counts only if a phantom includes it.
    dice = 1 - (2 * overlap + 50) / (size + 50)
    return entropy + (dice * present).sum() / present.sum().clamp(min=1)


def export(net: AnatomyNet, path: Path) -> None:
    """Write ONNX that returns probabilities, for any number of planes, sizes divisible by 16."""
    model = nn.Sequential(copy.deepcopy(net).eval(), nn.Softmax(dim=1))
    axes = {"planes": {0: "n", 2: "h", 3: "w"}, "probabilities": {0: "n", 2: "h", 3: "w"}}
    temporary = path.with_suffix(".part")
    torch.onnx.export(
        model,
        (torch.zeros(1, 4, 64, 64),),
        str(temporary),
        input_names=["planes"],
        output_names=["probabilities"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    temporary.replace(path)


def train(args: argparse.Namespace) -> None:
    """Train for a wall-clock budget with a cosine learning-rate schedule."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    real, synthetic = load_cases(args.spider, args.phantoms)
    print(f"{len(real)} real volumes, {len(synthetic)} phantoms", flush=True)
    stream = Patches(
        real, synthetic, batch=args.batch, phantom_fraction=args.phantom_fraction, seed=args.seed
    )
    net = AnatomyNet().to(memory_format=torch.channels_last)
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=1e-4)
    step = 0
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    began = saved = time.monotonic()
    recent: list[float] = []
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4)
    for planes, target, kinds in loader:
        spent = (time.monotonic() - began) / (60 * args.minutes)
        if spent >= 1:
            break
        warm = min(1.0, (step + 1) / 100)
        cosine = args.floor + (1 - args.floor) * 0.5 * (1 + math.cos(math.pi * spent))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * warm * cosine
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(planes.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, target, kinds)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        step += 1
        recent.append(float(loss.detach()))
        decay = min(args.average, 1 - 1 / (step + 1))
        with torch.no_grad():
            for old, new in zip(
                average.state_dict().values(), net.state_dict().values(), strict=True
            ):
                if old.dtype.is_floating_point:
                    old.lerp_(new, 1 - decay)
        if step % 100 == 0:
            pace = (time.monotonic() - began) / max(len(recent), 1)
            print(f"step {step} loss {np.mean(recent[-100:]):.4f} {pace:.3f} s/step", flush=True)
        if time.monotonic() - saved > 60 * args.save_minutes:
            _save(net, average, optimizer, step, args)
            saved = time.monotonic()
    _save(net, average, optimizer, step, args)


def _save(
    net: AnatomyNet,
    average: AnatomyNet,
    optimizer: torch.optim.Optimizer,
    step: int,
    args: argparse.Namespace,
) -> None:
    state = {
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    part = args.work / "checkpoint.part"
    torch.save(state, part)
    part.replace(args.work / "checkpoint.pt")
    export(average, args.work / "anatomy.onnx")
    print(f"saved at step {step}", flush=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and ONNX")
    parser.add_argument("--spider", type=Path, help="folder of SPIDER volumes")
    parser.add_argument("--phantoms", type=Path, help="folder of phantom .npz")
    parser.add_argument("--minutes", type=float, default=60, help="wall-clock budget")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument(
        "--floor", type=float, default=0.02, help="final learning rate relative to the first"
    )
    parser.add_argument("--phantom-fraction", type=float, default=0.4)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument(
        "--average", type=float, default=0.998, help="decay of the running mean of the weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.nice(15)
    train(args)


if __name__ == "__main__":
    main()
