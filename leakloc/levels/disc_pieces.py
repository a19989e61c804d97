"""Disc detection from connected components of the disc probability of the anatomy network."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.network import AnatomyProbabilities
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.detection import DetectedDisc, Detections

MIN_DISC_ML: Final = 0.25
"""Minimum volume of a component: a third of a small cervical disc."""
THICKEST_MM: Final = 17.0
"""Maximum height of a disc (mean 12 mm at L4-L5, more if wedge-shaped)."""
_STRICTER: Final = 0.15
"""Threshold increment for separating bridged discs."""
DISC_WIDTH_MM: Final = 40.0
"""Transverse width of the narrowest lumbar discs (Zhou et al., Eur Spine J 2000;9:242)."""
MERGE_MM: Final = 7.0
"""Components closer than this along the spine are one disc; cervical discs are 15 mm apart."""
MERGE_LATERAL_MM: Final = 45.0
"""... and laterally no farther apart than the width of a lumbar disc,"""
MERGE_SAGITTAL_MM: Final = 25.0
"""... and anteroposteriorly no farther than within a disc; spinous processes lie posterior."""
_THRESHOLD: Final = 0.5
"""Minimum probability of a disc voxel."""


def discs_from(found: AnatomyProbabilities) -> Detections:
    """Detect discs as connected components of the disc probability.

    Each component becomes a disc with its center of mass, its axis of least spread as normal, and
    its mean probability as score, reduced if no vertebra lies above or below it. Components of one
    disc are merged and small ones discarded.

    Returns
    -------
    Detections
        With `bodies` and `sacrum` on the grid of the network.
    """
    geometry = found.disc.geometry
    clouds = _components(found.disc.array, geometry, _THRESHOLD)
    groups = _merge_components(clouds, geometry)
    discs = [_disc_of(kji, found) for kji in groups]
    discs.sort(key=lambda disc: -float(disc.center_lps[2]))
    return Detections(tuple(discs), found.vertebra, "network", found.sacrum)


def _components(
    probability: npt.NDArray[Any], geometry: Geometry, threshold: float
) -> list[npt.NDArray[Any]]:
    """Voxels ``(k, j, i)`` of each connected component above a threshold.

    A component too thick for one disc is two bridged discs; a stricter threshold and an opening
    by one pixel remove the bridge.
    """
    likely = probability > threshold
    if threshold > _THRESHOLD:
        likely = ndimage.binary_opening(likely, structure=np.ones((3, 3, 1)))
    labels, _ = ndimage.label(likely, structure=np.ones((3, 3, 3)))
    smallest = MIN_DISC_ML / geometry.voxel_volume_ml
    clouds: list[npt.NDArray[Any]] = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == label
        if inside.sum() < smallest:
            continue
        start = np.array([part.start for part in box])
        parts: list[npt.NDArray[Any]] = []
        if _thickness_mm(geometry.lps_from_kji(np.argwhere(inside))) > THICKEST_MM:
            stricter = threshold + _STRICTER
            if stricter < 1:
                parts = _components(np.where(inside, probability[box], 0), geometry, stricter)
        clouds += [part + start for part in parts] or [np.argwhere(inside) + start]
    return clouds


def _thickness_mm(points_lps: FloatArray) -> float:
    """Thickness of a slab with the same spread about its fitted plane."""
    offset = points_lps - points_lps.mean(axis=0)
    slope, *_ = np.linalg.lstsq(offset[:, :2], offset[:, 2], rcond=None)
    return float(np.sqrt(12.0) * np.std(offset[:, 2] - offset[:, :2] @ slope))


def _merge_components(clouds: list[npt.NDArray[Any]], geometry: Geometry) -> list[npt.NDArray[Any]]:
    """Merge components at the same height that are laterally adjacent."""
    clouds = sorted(clouds, key=len, reverse=True)
    groups: list[npt.NDArray[Any]] = []
    for cloud in clouds:
        center = geometry.lps_from_kji(cloud.mean(0))
        for n, group in enumerate(groups):
            points = geometry.lps_from_kji(group)
            middle, normal = points.mean(0), _plane_normal(points)
            gap = center - middle
            close = abs(gap[0]) < MERGE_LATERAL_MM and abs(gap[1]) < MERGE_SAGITTAL_MM
            if close and abs(gap @ normal) < MERGE_MM:
                groups[n] = np.concatenate([group, cloud])
                break
        else:
            groups.append(cloud)
    return groups


def _plane_normal(points_lps: FloatArray, weight: FloatArray | None = None) -> FloatArray:
    """Axis of least (weighted) spread, pointing cranially.

    In a thin sagittal slab the visible width of a disc may be less than its height, so a minimum
    disc width is assumed.
    """
    offset = points_lps - np.average(points_lps, axis=0, weights=weight)
    covariance = np.cov(offset.T, aweights=weight, bias=True)
    covariance[0, 0] = max(covariance[0, 0], DISC_WIDTH_MM**2 / 12)
    _, axes = np.linalg.eigh(covariance)
    normal = axes[:, 0]
    return np.asarray(normal if normal[2] >= 0 else -normal)


def _disc_of(kji: npt.NDArray[Any], found: AnatomyProbabilities) -> DetectedDisc:
    geometry = found.disc.geometry
    points = geometry.lps_from_kji(kji)
    weight = found.disc.array[tuple(kji.T)].astype(np.float64)
    center = np.average(points, axis=0, weights=weight)
    normal = _plane_normal(points, weight)
    half = 2.0 * float(np.std((points - center) @ normal))
    bone = Volume(np.maximum(found.vertebra.array, found.sacrum.array), geometry)
    adjacent = center + np.outer([1.0, 1.0, -1.0, -1.0], normal) * (
        half + np.array([4.0, 7.0, 4.0, 7.0])[:, None]
    )
    above, below = bone.sample(adjacent).reshape(2, 2).max(axis=1)
    score = float(weight.mean()) * (0.5 + 0.25 * float(above) + 0.25 * float(below))
    return DetectedDisc(np.asarray(center), normal, min(1.0, score))
