"""Discs as connected pieces of what the anatomy network takes for disc."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.network import AnatomyProbabilities
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.detection import DetectedDisc, Detections

MIN_DISC_ML: Final = 0.25
"""Smallest piece that counts: a third of a small cervical disc."""
THICKEST_MM: Final = 17.0
"""No single disc is higher (12 mm on average at L4-L5, more in a wedge)."""
_STRICTER: Final = 0.15
"""Step of the threshold that parts bridged discs."""
DISC_WIDTH_MM: Final = 40.0
"""From left to right, of the narrowest lumbar discs (Zhou et al., Eur Spine J 2000;9:242)."""
MERGE_MM: Final = 7.0
"""Pieces closer than this along the spine are one disc: cervical discs lie 15 mm apart."""
MERGE_LATERAL_MM: Final = 45.0
"""... and side by side no farther than a lumbar disc is wide,"""
MERGE_SAGITTAL_MM: Final = 25.0
"""... and no farther front to back than within one; spinous processes lie behind that."""
_THRESHOLD: Final = 0.5
"""A voxel is disc where the network thinks so more likely than not."""


def discs_from(found: AnatomyProbabilities) -> Detections:
    """Discs as connected pieces of likely disc.

    Each piece becomes a disc: its centre of mass, the axis of least spread as its normal, and
    as its score the mean probability, lowered where no vertebra lies above or below it. Pieces
    of one disc are joined, specks dropped.

    Returns
    -------
    Detections
        With `bodies` and `sacrum` on the network's grid.
    """
    geometry = found.disc.geometry
    clouds = _pieces(found.disc.array, geometry, _THRESHOLD)
    groups = _merge_pieces(clouds, geometry)
    discs = [_disc_of(kji, found) for kji in groups]
    discs.sort(key=lambda disc: -float(disc.center_lps[2]))
    return Detections(tuple(discs), found.vertebra, "network", found.sacrum)


def _pieces(
    probability: npt.NDArray[Any], geometry: Geometry, threshold: float
) -> list[npt.NDArray[Any]]:
    """Voxels ``(k, j, i)`` of each connected piece above a threshold.

    A piece too thick for one disc is two with a bridge: a stricter threshold, and shaving one
    pixel off, take the bridge away.
    """
    from scipy import ndimage

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
                parts = _pieces(np.where(inside, probability[box], 0), geometry, stricter)
        clouds += [part + start for part in parts] or [np.argwhere(inside) + start]
    return clouds


def _thickness_mm(points_lps: FloatArray) -> float:
    """Height of a slab with the same spread about its tilted plane."""
    offset = points_lps - points_lps.mean(axis=0)
    slope, *_ = np.linalg.lstsq(offset[:, :2], offset[:, 2], rcond=None)
    return float(np.sqrt(12.0) * np.std(offset[:, 2] - offset[:, :2] @ slope))


def _merge_pieces(clouds: list[npt.NDArray[Any]], geometry: Geometry) -> list[npt.NDArray[Any]]:
    """Join pieces that lie at the same height and side by side."""
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
    """Axis of least (weighted) spread, towards the head.

    A thin sagittal slab shows less of a disc from left to right than its height: the part within
    the field stands for a disc of usual width.
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
    beside = center + np.outer([1.0, 1.0, -1.0, -1.0], normal) * (
        half + np.array([4.0, 7.0, 4.0, 7.0])[:, None]
    )
    above, below = bone.sample(beside).reshape(2, 2).max(axis=1)
    score = float(weight.mean()) * (0.5 + 0.25 * float(above) + 0.25 * float(below))
    return DetectedDisc(np.asarray(center), normal, min(1.0, score))
