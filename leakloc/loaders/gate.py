"""T2-weighting check and other image-based classification of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from leakloc.anatomy.network import AnatomyOutputs
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import Volume

Weighting = Literal["heavy", "moderate", "conventional"]

_CENTER: Final = 0.6
"""Central fraction of each axis that is evaluated; in a spine study it lies within the body."""
_SAMPLES: Final = 400_000
"""Number of voxels sampled for the percentiles."""
_TISSUE_PERCENTILE: Final = 80.0
"""Above most tissue, below fluid; the median fell within dark muscle even on conventional T2."""
_FLUID_PERCENTILE: Final = 99.5
"""Within fluid (1 to 10 % of the central field of view); below isolated bright voxels."""
_MIN_PROBABILITY: Final = 0.5
"""Network probability above which a voxel is assigned to a tissue."""
_MIN_VOXELS: Final = 500
"""Minimum voxels (about 3 mm³ each) per tissue: half a disc."""
_BRIGHTEST_DISC: Final = 2.0
"""Disc-to-marrow signal ratio above which the bodies were misdetected: up to 1.2 even on STIR."""
_MIN_NEGATIVE_RATIO: Final = 0.5
"""Minimum ratio of the 0.5th to the 99.5th percentile, of opposite sign, of signed signal."""
_NOISE_BLOCK: Final = 8
"""Edge length in voxels of the blocks in which noise is measured."""
_NOISE_PLANES: Final = 24
"""Number of slices sampled."""
_MIN_NOISE_SPREAD: Final = 0.2
"""Minimum standard deviation of noise of full amplitude, as a fraction of the range (0.29 if
uniform)."""
_MIN_NOISE_JUMP: Final = 0.2
"""Minimum mean difference of adjacent voxels (0.33 for uniform noise, 0.14 at an edge)."""
_MIN_NOISE_FRACTION: Final = 0.05
"""Minimum fraction of such blocks on a phase image."""
_COARSE_MM: Final = 4.0
"""Grid spacing for the body outline."""
_BODY_FRACTION: Final = 0.1
"""Fraction of the 99th percentile separating body from air on conventional T2 weighting."""
_AIR_FRACTION: Final = 0.02
"""Maximum fraction of bright voxels in a row or plane of air."""
_AIR_MM: Final = 8.0
"""Air above the vertex in a head study."""
_HEAD_WIDTH_MM: Final = (110.0, 200.0)
_HEAD_DEPTH_MM: Final = (130.0, 270.0)
"""Adult and pediatric heads including ears and nose; trunks are wider than 220 mm."""

_MAX_HEAVY_RATIO: Final = 0.15
"""Maximum ratio of the 80th to the 99.5th percentile of the signal in the central field of view for
heavy T2 weighting; tissue has 0 to 17 % of the signal of fluid (heavy spin echo to 3D turbo spin
echo)."""

_MIN_CONVENTIONAL_RATIO: Final = 0.21
"""Minimum value of the same ratio for conventional T2 weighting; 24 public lumbar T2 SPACE volumes
have 0.22 to 0.83."""


@dataclass(frozen=True)
class Gate:
    """T2 weighting of a volume and the signal ratio it is based on.

    Parameters
    ----------
    ratio : float
        Tissue-to-fluid signal ratio (80th over 99.5th percentile).
    weighting : str
    """

    ratio: float
    weighting: Weighting


def estimate_weighting(volume: Volume) -> Gate:
    """Classify the T2 weighting from the central field of view.

    On heavy T2 weighting tissue signal is at noise level, so no threshold separates body from
    air; the central field of view is assumed to be body instead. Voxels with the minimum value in
    padded borders are excluded.
    """
    middle = volume.array[tuple(_middle(n) for n in volume.array.shape)]
    stride = max(1, round((middle.size / _SAMPLES) ** (1 / 3)))
    values = middle[::stride, ::stride, ::stride].astype(np.float32).ravel()
    values = values - min(float(values.min()), 0.0)
    inside = values[values > 0] if (values == 0).mean() > 0.02 else values
    if inside.size < 100:
        return Gate(1.0, "conventional")
    tissue, fluid = np.percentile(inside, [_TISSUE_PERCENTILE, _FLUID_PERCENTILE])
    ratio = float(tissue / fluid) if fluid > 0 else 1.0
    if ratio < _MAX_HEAVY_RATIO:
        return Gate(ratio, "heavy")
    return Gate(ratio, "moderate" if ratio < _MIN_CONVENTIONAL_RATIO else "conventional")


def fluid_over_bone(volume: Volume, anatomy: AnatomyOutputs) -> float | None:
    """Ratio of the median signal of the canal to that of the vertebral bodies.

    Both are segmented by a network. Fluid is brighter than marrow on any T2 weighting (2.2 to 4.2
    on phantoms and public volumes) and darker on T1 (0.4 to 0.5). None if the network detects too
    little of a spine, or discs that are implausibly bright.
    """
    try:
        detected = anatomy.of(volume)
    except AnalysisError:
        return None
    image = volume.oriented("LPS").resample(detected.canal.geometry).array
    parts = [
        image[part.array > _MIN_PROBABILITY]
        for part in (detected.canal, detected.vertebra, detected.disc)
    ]
    if min(part.size for part in parts) < _MIN_VOXELS:
        return None
    canal, bone, disc = (float(np.median(part)) for part in parts)
    if bone <= 0 or disc > _BRIGHTEST_DISC * bone:
        return None
    return canal / bone


def looks_like_labels(volume: Volume) -> bool:
    """Return whether a volume is a label map: few distinct integers, mostly zero."""
    sample = volume.array[:: max(1, volume.array.shape[0] // 64)]
    values = np.unique(sample)
    whole = bool(np.all(values == np.round(values)))
    return whole and len(values) <= 64 and float((sample == 0).mean()) > 0.5


def looks_like_phase(volume: Volume) -> bool:
    """Return whether a volume shows phase, or the real or imaginary part of the signal.

    On phase images, noise in air has the full range of values; on real and imaginary images,
    values are as negative as positive. Magnitudes have neither.
    """
    low, high = np.percentile(volume.array, [0.5, 99.5])
    if high <= low:
        return False
    if -low > _MIN_NEGATIVE_RATIO * high:
        return True
    step = max(1, volume.array.shape[0] // _NOISE_PLANES)
    k, j, i = volume.array[::step].shape
    rows, columns = j // _NOISE_BLOCK, i // _NOISE_BLOCK
    if not rows or not columns:
        return False
    values = volume.array[::step, : rows * _NOISE_BLOCK, : columns * _NOISE_BLOCK]
    scaled = (values.astype(np.float32) - low) / np.float32(high - low)
    blocks = scaled.reshape(k, rows, _NOISE_BLOCK, columns, _NOISE_BLOCK)
    spread = blocks.std(axis=(2, 4))
    jumps = np.minimum(
        np.abs(np.diff(blocks, axis=2)).mean(axis=(2, 4)),
        np.abs(np.diff(blocks, axis=4)).mean(axis=(2, 4)),
    )
    noisy = (spread > _MIN_NOISE_SPREAD) & (jumps > _MIN_NOISE_JUMP)
    return bool(noisy.mean() > _MIN_NOISE_FRACTION)


def looks_like_head(volume: Volume) -> bool:
    """Return whether the volume shows a head: of its width, with air lateral to and above it.

    A trunk is wider or fills the field of view, a neck continues cranially, and a sagittal slab of
    the spine fills its own width; none of these is classified as a head.
    """
    oriented = volume.oriented("LPS")
    spacing = oriented.geometry.spacing_kji_mm
    strides = [max(1, round(_COARSE_MM / mm)) for mm in spacing]
    coarse = oriented.array[tuple(slice(None, None, n) for n in strides)].astype(np.float32)
    k_mm, j_mm, i_mm = (mm * n for mm, n in zip(spacing, strides, strict=True))
    body = coarse > _BODY_FRACTION * np.percentile(coarse, 99)
    levels = body.mean(axis=(1, 2))
    if not levels.any() or levels[-max(1, round(_AIR_MM / k_mm)) :].max() > _AIR_FRACTION:
        return False
    across = body.mean(axis=(0, 1)) > _AIR_FRACTION
    depth = body.mean(axis=(0, 2)) > _AIR_FRACTION
    if not across.any() or not depth.any() or across[[0, -1]].any() or depth[0]:
        return False
    width_mm, depth_mm = np.ptp(np.flatnonzero(across)) * i_mm, np.ptp(np.flatnonzero(depth)) * j_mm
    return bool(
        _HEAD_WIDTH_MM[0] <= width_mm <= _HEAD_WIDTH_MM[1]
        and _HEAD_DEPTH_MM[0] <= depth_mm <= _HEAD_DEPTH_MM[1]
    )


def _middle(length: int) -> slice:
    margin = int(length * (1 - _CENTER) / 2)
    return slice(margin, length - margin)
