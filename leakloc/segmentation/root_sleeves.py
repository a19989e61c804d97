"""Round CSF-like structures at the nerve roots: perineural cysts and root sleeve diverticula.

A normal root sleeve contains a nerve root, which is dark, so that the mean signal within a ball of
the size of the sleeve is far below that of CSF; a cyst or diverticulum next to the root fills the
ball with CSF. Those that do not fill it, with the root in the center, are detected by the sleeve
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.centerline import Centerline
from leakloc.core.distances import signed_distance_mm
from leakloc.segmentation.classification import CYST
from leakloc.segmentation.ellipsoid import ellipsoid_of
from leakloc.segmentation.result import Candidate, RoundStructure
from leakloc.segmentation.scene import HALF, Array, Mask, Scene
from leakloc.segmentation.sleeve_network import cyst_logits, sleeve_patch

MIN_ML: Final = 0.03
"""Minimum volume: a sphere of 3.9 mm."""

_BALL_MM: Final = 2.0
"""Radius of the ball in which the signal is averaged: that of the smallest structure."""

MIN_FILLED: Final = 0.65
"""Minimum mean signal of that ball relative to CSF. It was at most 0.65 in the sleeves of four of
five normal phantoms and 0.81 in a wide sleeve of the fifth."""

MIN_CENTER: Final = 0.5
"""Minimum signal at the center of the ball, up to `_CENTER_MM` from it. The root in the center of
a wide sleeve is darker."""
_CENTER_MM: Final = 1.3

MIN_LOGIT: Final = 1.5
"""Minimum log odds of the sleeve network, less those of the opposite side if positive: sleeves that
are wide on both sides are normal. In six complete phantoms (seeds 41 to 48) they were at least 3.3
for structures of 4 mm or more, and at most -0.4 for normal sleeves."""

_SAME_LEVEL_MM: Final = 8.0
"""Maximum distance along the canal at which both sides are compared."""

_SLEEVE_MM: Final = 4.0
"""Minimum distance of the points that the network classifies: twice the radius of a sleeve."""

_FLUID_MM: Final = 3.0
_MIN_FLUID: Final = 0.13
"""These points have maximum fluid in a ball of this radius, and at least this mean signal in it."""

_EDGE_MM: Final = 1.0
"""Distance from the sac beyond its blurred edge."""

_MIN_ASIDE_MM: Final = 2.0
"""Minimum distance of these points from the sac."""

_RING_MM: Final = 5.0
_RING_SIGNAL: Final = 0.3
"""Radius around the center within which a structure with a root in it is measured, and the minimum
signal of its fluid: a layer of 1 mm around a root is dimmed by partial volume."""

_MARGIN_MM: Final = 14.0
"""Margin around the centers that are searched: half the diagonal of a patch of the network."""

_MIN_DURA_MM: Final = 1.5
"""Minimum distance of the center of the ball from the sac: beyond the blurred edge of the sac."""

_ANTERIOR_MM: Final = -12.0
_POSTERIOR_MM: Final = 4.0
"""Range anterior and posterior to the centerline of the canal. Roots course anterolaterally; the
facet joints are posterior to them."""

_LATERAL_MM: Final = (3.0, 30.0)
"""Range lateral to the centerline, from the roots at the narrow end of the sac to the lateral end
of the foramina."""

_CANAL_MM: Final = 12.0
_BELOW_SAC_MM: Final = 6.0
"""Maximum distance from the centerline of a structure at the midline in the sacral canal, and its
minimum distance caudal to the sac, whose tip is too narrow to be visible."""

_COLLECTION_MM: Final = 3.0
"""Maximum distance from a collection at which a structure counts as part of it."""

_MAX_ELONGATION: Final = 2.0
"""Maximum length of a structure relative to its mean thickness; veins and fluid along a root are
longer."""

Measured = tuple[npt.NDArray[np.float64], float, float, float]
"""Center (k, j, i), diameter (mm), volume (mL) and distance from the sac (mm) of a structure."""


def find_round_structures(
    scene: Scene, collections: npt.NDArray[np.uint8]
) -> tuple[RoundStructure, ...] | None:
    """Find round structures of CSF signal at the roots, outside the sac and the collections.

    Parameters
    ----------
    scene : Scene
    collections : ndarray, uint8
        Collection ids on the grid of the scene.

    Returns
    -------
    tuple of RoundStructure or None
        By decreasing diameter; None if fat or soft tissue is as bright as fluid.
    """
    if scene.fat_like_fluid or scene.tissue_bright:
        return None
    c, tip_mm = scene.coordinates, scene.dura.tip_arc_mm
    region = root_region(c)
    if tip_mm is not None:
        in_canal = np.hypot(c.left, c.dorsal) <= _CANAL_MM
        in_canal &= (c.dorsal >= _ANTERIOR_MM) & (c.dorsal <= _POSTERIOR_MM)
        region |= (c.arc > tip_mm + _BELOW_SAC_MM) & in_canal
    region &= (c.arc >= scene.dura.head_arc_mm) & (c.arc < scene.dura.centerline.length_mm)
    if not region.any():
        return ()
    geometry = scene.signal.geometry
    box = _box(region, geometry.spacing_kji_mm, _MARGIN_MM)
    signal, inside = scene.signal.array[box], scene.inside[box]
    geometry = geometry.cropped(box)
    part = CanalCoordinates(geometry, c.arc[box], c.left[box], c.dorsal[box])
    structures = round_structures(
        signal, inside, collections[box] > 0, region[box], part, scene.dura.centerline
    )
    return tuple(
        RoundStructure(geometry.lps_from_kji(center), *sizes) for center, *sizes in structures
    )


def root_region(c: CanalCoordinates) -> Mask:
    """Return the voxels lateral to the centerline of the canal in which roots and sleeves lie."""
    aside = np.abs(c.left)
    region = (aside >= np.abs(c.dorsal)) & (aside >= _LATERAL_MM[0]) & (aside <= _LATERAL_MM[1])
    return np.asarray(region & (c.dorsal >= _ANTERIOR_MM) & (c.dorsal <= _POSTERIOR_MM))


def name_cysts(
    candidates: Sequence[Candidate], structures: Sequence[RoundStructure]
) -> tuple[Candidate, ...]:
    """Name rejected candidates that are one of the round structures as perineural cysts."""
    return tuple(_named(candidate, structures) for candidate in candidates)


def _named(candidate: Candidate, structures: Sequence[RoundStructure]) -> Candidate:
    if candidate.accepted:
        return candidate
    for structure in structures:
        distance_mm = np.linalg.norm(candidate.center_lps - structure.center_lps)
        if distance_mm <= 0.5 * structure.diameter_mm:
            others = tuple(name for name in candidate.mimics if name != CYST)
            reason = f"Round CSF-like structure of {structure.diameter_mm:.0f} mm at a nerve root."
            return replace(candidate, mimics=(CYST, *others), reason=reason)
    return candidate


def round_structures(
    signal: Array,
    inside: Mask,
    collections: Mask,
    region: Mask,
    coordinates: CanalCoordinates,
    line: Centerline,
) -> list[Measured]:
    """Return center (k, j, i), diameter (mm), volume (mL) and distance from the sac (mm) of each.

    Parameters
    ----------
    signal : ndarray
        Signal relative to CSF, 0..1.
    inside, collections, region : ndarray of bool
        Masks of the sac, of the collections, and of the centers that are searched.
    coordinates : CanalCoordinates
        Of the voxels, along `line`.
    line : Centerline
    """
    geometry = coordinates.geometry
    spacing = geometry.spacing_kji_mm
    outside_mm = distance_mm(inside, spacing)
    apart = distance_mm(collections, spacing, _COLLECTION_MM) > _COLLECTION_MM
    # The sac next to a structure must not fill the ball.
    free = np.where(inside, np.float32(0), signal)
    filled = _convolved(free, _ball(spacing, _BALL_MM))
    center = ndimage.minimum_filter(free, footprint=_within(spacing, _CENTER_MM))
    core = region & (filled >= MIN_FILLED) & (center >= MIN_CENTER)
    core &= outside_mm >= _MIN_DURA_MM
    bright = (signal >= HALF) & ~inside & (outside_mm > 0)
    near = bright & (distance_mm(core, spacing, _BALL_MM) <= _BALL_MM)
    labels, _ = ndimage.label(near, np.ones((3, 3, 3)))
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        voxels = np.argwhere(labels[box] == number) + [axis.start for axis in box]
        index = tuple(voxels.T)
        volume_ml = len(voxels) * geometry.voxel_volume_ml
        if len(voxels) < 2 or volume_ml < MIN_ML or not apart[index].all():
            continue
        middle, axes_mm = ellipsoid_of(voxels, signal[index], spacing)
        if axes_mm[2] > _MAX_ELONGATION * axes_mm[:2].mean():
            continue
        found.append((middle, float(axes_mm[2]), volume_ml, _gap_mm(outside_mm[index], spacing)))
    found += _at_sleeves(signal, inside, outside_mm, apart, region, coordinates, line, found)
    return sorted(found, key=lambda structure: -structure[1])


def _at_sleeves(
    signal: Array,
    inside: Mask,
    outside_mm: npt.NDArray[np.float32],
    apart: Mask,
    region: Mask,
    coordinates: CanalCoordinates,
    line: Centerline,
    others: Sequence[Measured],
) -> list[Measured]:
    """Return the structures that the sleeve network detects, except those near `others`.

    Parameters are those of `round_structures`, with the distance from the sac and the voxels apart
    from the collections.
    """
    c, geometry = coordinates, coordinates.geometry
    spacing = geometry.spacing_kji_mm
    points = sleeve_points(signal, outside_mm, region, c)
    patches = [
        sleeve_patch(signal, inside, geometry, line, (c.arc[at], c.left[at], c.dorsal[at]))
        for at in map(tuple, points)
    ]
    arcs_mm, lefts_mm = c.arc[tuple(points.T)], c.left[tuple(points.T)]
    opposite = np.abs(arcs_mm[:, None] - arcs_mm) <= _SAME_LEVEL_MM
    opposite &= lefts_mm[:, None] * lefts_mm < 0
    logits = cyst_logits(patches)
    logits -= np.where(opposite, np.maximum(logits, 0), 0).max(axis=1, initial=0)
    found: list[Measured] = []
    for point in points[logits >= MIN_LOGIT]:
        away_mm, box = _around(point, spacing, _RING_MM, signal.shape)
        wet = (away_mm <= _RING_MM) & (signal[box] >= _RING_SIGNAL) & (outside_mm[box] >= _EDGE_MM)
        whole = ndimage.binary_closing(np.pad(wet, 3), _within(spacing, _BALL_MM))[3:-3, 3:-3, 3:-3]
        voxels = np.argwhere(whole) + [axis.start for axis in box]
        index = tuple(voxels.T)
        volume_ml = len(voxels) * geometry.voxel_volume_ml
        if volume_ml < MIN_ML or not apart[index].all():
            continue
        middle, axes_mm = ellipsoid_of(voxels, np.ones(len(voxels)), spacing)
        if not region[tuple(np.round(middle).astype(int))]:
            continue
        if any(
            np.linalg.norm((middle - other) * spacing) <= 0.5 * diameter_mm + _BALL_MM
            for other, diameter_mm, *_ in (*others, *found)
        ):
            continue
        found.append((middle, float(axes_mm[2]), volume_ml, _gap_mm(outside_mm[index], spacing)))
    return found


def sleeve_points(
    signal: Array, outside_mm: npt.NDArray[np.float32], region: Mask, coordinates: CanalCoordinates
) -> npt.NDArray[np.intp]:
    """Return the voxels next to the sac that have the most fluid around them.

    Parameters
    ----------
    signal : ndarray
        Signal relative to CSF, 0..1.
    outside_mm : ndarray
        Distance from the sac.
    region : ndarray of bool
        Voxels that are searched.
    coordinates : CanalCoordinates

    Returns
    -------
    ndarray of int, shape (n, 3)
        Indices (k, j, i), at least `_SLEEVE_MM` apart, by decreasing fluid.
    """
    spacing = coordinates.geometry.spacing_kji_mm
    free = np.where(outside_mm >= _EDGE_MM, signal, np.float32(0))
    # Fluid beyond the region, as of a facet joint, must not cause a maximum at its border.
    aside = (np.abs(coordinates.left) >= _LATERAL_MM[0]) & (outside_mm >= _MIN_ASIDE_MM)
    fluid = np.where(aside, _convolved(free, _ball(spacing, _FLUID_MM)), np.float32(0))
    inscribed = [2 * int(_SLEEVE_MM / np.sqrt(3) / mm) + 1 for mm in spacing]
    is_peak = (ndimage.maximum_filter(fluid, size=inscribed) == fluid) & (fluid > _MIN_FLUID)
    is_peak &= region
    kept: list[npt.NDArray[np.intp]] = []
    for peak in sorted(np.argwhere(is_peak), key=lambda at: -fluid[tuple(at)]):
        if all(np.linalg.norm((peak - other) * spacing) > _SLEEVE_MM for other in kept):
            kept.append(peak)
    return np.array(kept, np.intp).reshape(-1, 3)


def _gap_mm(outside_mm: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> float:
    """Return the distance of a structure from the sac; distances are between voxel centers."""
    return max(float(outside_mm.min()) - float(np.mean(spacing)), 0.0)


def _around(
    center: npt.NDArray[np.intp],
    spacing: tuple[float, float, float],
    reach_mm: float,
    shape: tuple[int, ...],
) -> tuple[npt.NDArray[np.float64], tuple[slice, ...]]:
    """Return the distance of the voxels of a box around a voxel from it, and the box."""
    reach = [int(np.ceil(reach_mm / mm)) for mm in spacing]
    box = tuple(
        slice(max(int(c) - n, 0), min(int(c) + n + 1, size))
        for c, n, size in zip(center, reach, shape, strict=True)
    )
    axes = [
        mm * (np.arange(part.start, part.stop) - c)
        for part, mm, c in zip(box, spacing, center, strict=True)
    ]
    return np.asarray(np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0)), box


def _convolved(array: Array, kernel: npt.NDArray[np.float32]) -> Array:
    """Return the convolution with a kernel, zero beyond the array."""
    shape = [
        fft.next_fast_len(n + m - 1, real=True)
        for n, m in zip(array.shape, kernel.shape, strict=True)
    ]
    product = fft.rfftn(array, shape) * fft.rfftn(kernel, shape)
    inner = tuple(slice(m // 2, m // 2 + n) for n, m in zip(array.shape, kernel.shape, strict=True))
    return np.asarray(fft.irfftn(product, shape)[inner], np.float32)


def _within(spacing: tuple[float, float, float], radius_mm: float) -> Mask:
    """Return the footprint of a ball."""
    return np.asarray(_radii_mm(spacing, radius_mm) <= radius_mm)


def _ball(spacing: tuple[float, float, float], radius_mm: float) -> npt.NDArray[np.float32]:
    """Return the normalized kernel of a ball, with partially covered voxels at its border."""
    away = _radii_mm(spacing, radius_mm)
    kernel = np.clip((radius_mm - away) / np.mean(spacing) + 0.5, 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _radii_mm(spacing: tuple[float, float, float], reach_mm: float) -> npt.NDArray[np.float64]:
    """Return the distance of each voxel of a kernel from its center."""
    reach = [int(np.ceil(reach_mm / mm)) for mm in spacing]
    axes = [mm * np.arange(-n, n + 1) for n, mm in zip(reach, spacing, strict=True)]
    return np.asarray(np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0))


def distance_mm(
    mask: Mask, spacing: tuple[float, float, float], reach_mm: float | None = None
) -> npt.NDArray[np.float32]:
    """Return the distance outside a mask; infinite if the mask is empty.

    Beyond `reach_mm`, if specified, the distance is only known to be larger, and may be infinite.
    """
    distance = np.full(mask.shape, np.inf, np.float32)
    if mask.any():
        box = () if reach_mm is None else _box(mask, spacing, reach_mm + max(spacing))
        distance[box] = np.maximum(signed_distance_mm(mask[box], spacing), 0)
    return distance


def _box(
    mask: Mask, spacing: tuple[float, float, float], margin_mm: float
) -> tuple[slice, slice, slice]:
    """Return the box of a mask with a margin."""
    spans = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    k, j, i = (
        slice(max(int(span[0] - margin_mm // mm), 0), int(span[-1] + margin_mm // mm) + 2)
        for span, mm in zip(spans, spacing, strict=True)
    )
    return k, j, i
