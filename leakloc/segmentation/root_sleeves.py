"""Round CSF-like structures at the nerve roots: perineural cysts and root sleeve diverticula.

A normal root sleeve contains a nerve root, which is dark, so that the mean signal within a ball of
the size of the sleeve is far below that of CSF; a cyst or diverticulum fills the ball with CSF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.core.volume import Geometry
from leakloc.segmentation.result import Candidate, RoundStructure
from leakloc.segmentation.scene import HALF, Array, Mask, Scene

CYST: Final = "perineural cyst"
"""Name of a rejected candidate that is a round structure at a root."""

MIN_ML: Final = 0.0265
"""Minimum volume: a sphere of 3.7 mm, as measured in spheres of 4 mm."""

_BALL_MM: Final = 2.0
"""Radius of the ball in which the signal is averaged: that of the smallest structure."""

MIN_FILLED: Final = 0.65
"""Minimum mean signal of that ball relative to CSF. It was at most 0.65 in the sleeves of four of
five normal phantoms and 0.81 in a wide sleeve of the fifth; in cysts with a root in the center,
0.4 to 0.7 up to 6 mm and 0.6 to 1.0 above."""

MIN_CENTER: Final = 0.5
"""Minimum signal at the center of the ball, up to `_CENTER_MM` from it. The root in the center of
a wide sleeve is darker."""
_CENTER_MM: Final = 1.3

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
_BELOW_SAC_MM: Final = 3.0
"""Maximum distance from the centerline of a structure at the midline in the sacral canal, and its
minimum distance caudal to the sac, whose tip is blurred."""

_COLLECTION_MM: Final = 3.0
"""Maximum distance from a collection at which a structure counts as part of it."""

_MAX_ELONGATION: Final = 2.0
"""Maximum length of a structure relative to its mean thickness; veins and fluid along a root are
longer."""


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
    aside = np.abs(c.left)
    region = (aside >= np.abs(c.dorsal)) & (aside >= _LATERAL_MM[0]) & (aside <= _LATERAL_MM[1])
    if tip_mm is not None:
        in_canal = np.hypot(aside, c.dorsal) <= _CANAL_MM
        region |= (c.arc > tip_mm + _BELOW_SAC_MM) & in_canal
    region &= (c.dorsal >= _ANTERIOR_MM) & (c.dorsal <= _POSTERIOR_MM)
    region &= (c.arc >= scene.dura.head_arc_mm) & (c.arc < scene.dura.centerline.length_mm)
    if not region.any():
        return ()
    geometry = scene.signal.geometry
    # Margin of the ball and of the distance from a collection.
    box = _box(region, geometry.spacing_kji_mm, 2 * _BALL_MM + _COLLECTION_MM)
    signal, inside = scene.signal.array[box], scene.inside[box]
    structures = round_structures(signal, inside, collections[box] > 0, region[box], geometry)
    corner = np.array([part.start for part in box])
    return tuple(
        RoundStructure(geometry.lps_from_kji(corner + center), *sizes)
        for center, *sizes in structures
    )


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
    signal: Array, inside: Mask, collections: Mask, region: Mask, geometry: Geometry
) -> list[tuple[npt.NDArray[np.float64], float, float, float]]:
    """Return center (k, j, i), diameter (mm), volume (mL) and distance from the sac (mm) of each.

    Parameters
    ----------
    signal : ndarray
        Signal relative to CSF, 0..1.
    inside, collections, region : ndarray of bool
        Masks of the sac, of the collections, and of the centers that are searched.
    geometry : Geometry
        Voxel size; its shape and origin are not used.
    """
    spacing = geometry.spacing_kji_mm
    outside_mm = distance_mm(inside, spacing)
    apart = distance_mm(collections, spacing, _COLLECTION_MM) > _COLLECTION_MM
    # The sac next to a structure must not fill the ball.
    free = np.where(inside, 0.0, signal)
    filled = ndimage.convolve(free, _ball(spacing), mode="constant")
    center = ndimage.minimum_filter(free, footprint=_radii_mm(spacing, _CENTER_MM) <= _CENTER_MM)
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
        weight = signal[index].astype(np.float64)
        center = np.average(voxels, axis=0, weights=weight)
        offset = (voxels - center) * spacing
        # Within-voxel variance; a uniform ellipsoid has a variance of a fifth of its semi-axis².
        spread = np.cov(offset.T, aweights=weight, bias=True) + np.diag(np.square(spacing)) / 12
        axes_mm = 2 * np.sqrt(5 * np.linalg.eigvalsh(spread))
        if axes_mm[2] > _MAX_ELONGATION * axes_mm[:2].mean():
            continue
        # Distances are between voxel centers.
        gap_mm = max(float(outside_mm[index].min()) - float(np.mean(spacing)), 0.0)
        found.append((center, float(axes_mm[2]), volume_ml, gap_mm))
    return sorted(found, key=lambda structure: -structure[1])


def _ball(spacing: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Return the normalized kernel of a ball, with partially covered voxels at its border."""
    radius = _radii_mm(spacing, _BALL_MM)
    kernel = np.clip((_BALL_MM - radius) / np.mean(spacing) + 0.5, 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _radii_mm(spacing: tuple[float, float, float], reach_mm: float) -> npt.NDArray[np.float64]:
    """Return the distance of each voxel of a kernel from its center."""
    reach = [int(np.ceil(reach_mm / mm)) for mm in spacing]
    axes = [mm * np.arange(-n, n + 1) for n, mm in zip(reach, spacing, strict=True)]
    return np.asarray(np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0))


def distance_mm(
    mask: Mask, spacing: tuple[float, float, float], reach_mm: float | None = None
) -> npt.NDArray[np.float64]:
    """Return the distance outside a mask; infinite if the mask is empty.

    Beyond `reach_mm`, if specified, the distance is only known to be larger, and may be infinite.
    """
    distance = np.full(mask.shape, np.inf)
    if mask.any():
        box = () if reach_mm is None else _box(mask, spacing, reach_mm + max(spacing))
        distance[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing)
    return distance


def _box(mask: Mask, spacing: tuple[float, float, float], margin_mm: float) -> tuple[slice, ...]:
    """Return the box of a mask with a margin."""
    spans = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return tuple(
        slice(max(int(span[0] - margin_mm // mm), 0), int(span[-1] + margin_mm // mm) + 2)
        for span, mm in zip(spans, spacing, strict=True)
    )
