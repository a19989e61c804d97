"""Disc detector based on the anatomy network, with the depth of each disc."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.detection import DetectedDisc, Detections, Detector
from leakloc.levels.disc_pieces import discs_from

if TYPE_CHECKING:
    from leakloc.anatomy.network import AnatomyOutputs, AnatomyProbabilities

_REACH_MM: Final = (12.0, 30.0, 30.0)
"""Half size of the box around a disc center for its measurement: cranial, dorsal, left."""
_INSIDE: Final = 0.4
"""Minimum probability of a disc voxel; a thin remnant rarely reaches 0.5."""
_MIN_DISC_VOXELS: Final = 8
"""Minimum number of voxels (about 25 microliters) for a direction."""
_MIN_CRANIAL: Final = 0.35
"""Minimum cranial component of a disc normal (70 degrees of tilt), even in the sacrum."""
_MAX_LATERAL: Final = 0.5
"""Maximum lateral component of a disc normal (30 degrees), even in scoliosis."""


def network_detector(anatomy: AnatomyOutputs) -> Detector:
    """Return a detector that uses the anatomy network; see `anatomy_probabilities` for errors."""

    def detect(image: Volume, centerline: Centerline | None) -> Detections:
        return detections_from(anatomy.of(image), centerline)

    return detect


def detections_from(found: AnatomyProbabilities, centerline: Centerline | None) -> Detections:
    """Detect discs from the probability of each tissue, or from supplied masks.

    Parameters
    ----------
    found : AnatomyProbabilities
    centerline : Centerline or None
        Of the canal, if known.
    """
    detections = discs_from(found)
    upright = (_with_upward_normal(disc, found.disc, centerline) for disc in detections.discs)
    sized = tuple(_with_depth(disc, found.disc) for disc in upright)
    return Detections(sized, found.vertebra, detections.method, found.sacrum, found.canal)


def _with_upward_normal(
    disc: DetectedDisc, probability: Volume, centerline: Centerline | None
) -> DetectedDisc:
    """Return the disc with a normal along the spine.

    If the disc is visible on few planes, its axis of least spread is lateral; then the spread
    within the sagittal plane, or the canal, defines the normal.
    """
    if _points_up(disc.normal_lps):
        return disc
    normal = np.array([0.0, 0.0, 1.0])
    if centerline is not None:
        arc, _, _ = centerline.project(disc.center_lps)
        along = -centerline.frame_at(arc)[0]
        normal = along if _points_up(along) else normal
    offset = _cloud(disc, probability)
    if len(offset) >= _MIN_DISC_VOXELS:
        _, axes = np.linalg.eigh(offset[:, 1:].T @ offset[:, 1:])
        sagittal = np.array([0.0, axes[0, 0], axes[1, 0]])
        sagittal *= np.sign(sagittal[2]) or 1.0
        if _points_up(sagittal):
            normal = sagittal
    return replace(disc, normal_lps=np.asarray(normal))


def _points_up(normal_lps: FloatArray) -> bool:
    return bool(normal_lps[2] > _MIN_CRANIAL and abs(normal_lps[0]) < _MAX_LATERAL)


def _cloud(disc: DetectedDisc, probability: Volume) -> FloatArray:
    """Offsets of disc voxels from the disc center, LPS in mm, shape (n, 3)."""
    geometry = probability.geometry
    corner = geometry.kji_from_lps(disc.center_lps)
    reach = np.array(_REACH_MM) / geometry.spacing_kji_mm
    low = np.maximum(np.floor(corner - reach), 0).astype(int)
    high = np.minimum(np.ceil(corner + reach) + 1, geometry.shape).astype(int)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    kji = np.argwhere(probability.array[box] > _INSIDE)
    return geometry.lps_from_kji(kji + low) - disc.center_lps


def _with_depth(disc: DetectedDisc, probability: Volume) -> DetectedDisc:
    """Return the disc with its anteroposterior depth, from the spread of its voxels."""
    offset = _cloud(disc, probability)
    if len(offset) < _MIN_DISC_VOXELS:
        return disc
    left = np.array([1.0, 0.0, 0.0])
    dorsal = np.cross(left, disc.normal_lps)
    dorsal = dorsal / np.linalg.norm(dorsal)
    near = np.abs(offset @ disc.normal_lps) < 8.0
    central = near & (np.abs(offset @ left) < 8.0)
    chosen = central if central.sum() >= _MIN_DISC_VOXELS else near
    if chosen.sum() < _MIN_DISC_VOXELS:
        return disc
    back = offset[chosen] @ dorsal
    depth = float(np.sqrt(12.0) * back.std())  # length of a uniform line with that spread
    return replace(disc, depth_mm=depth)
