"""Disc candidates: detected discs of the spinal column with their features for numbering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.detection import DetectedDisc, Detections

if TYPE_CHECKING:
    from leakloc.segmentation.result import Segmentation

MIN_DISCS: Final = 2
"""Minimum number of discs for numbering."""
SAME_DISC_MM: Final = 9.0
"""Detections closer than this are the same disc; the minimum pitch is 15 mm."""
MAX_LEVEL_MM: Final = 45.0
"""Maximum height of a level."""
END_MARGIN_MM: Final = 10.0
"""Discs closer than this to the end of the field of view need not be detected."""

_MAX_LATERAL_MM: Final = 30.0
"""Maximum lateral distance of a disc center from the plane of the canal."""
_MAX_POSTERIOR_MM: Final = 0.0
"""Maximum distance of a disc center posterior to the canal center."""
_MAX_ANTERIOR_MM: Final = 60.0
"""Maximum distance of a disc center anterior to the canal center (typically 25 to 40 mm)."""
_ADJACENT_MM: Final = (9.0, 12.0, 15.0)
"""Distances from a disc center along its normal at which adjacent bone is sampled."""
_MIN_COSINE: Final = 0.8
"""The direction from a disc to the next is within 37 degrees of its normal."""
_MIN_BONE: Final = 0.5
"""Minimum probability of bone."""
_FIELD_STEP_MM: Final = 3.0
_MAX_FIELD_MM: Final = 900.0
"""Step and maximum length when following the field of view along the spine."""

_BONE_ALONG_MM: Final = (8.0, 18.0)
"""Range beyond a disc center in which bone is sampled: the middle of a vertebra. Nearer to the end
plates and farther out, adjacent bone of a steep sacrum would be included."""
_BONE_ACROSS_MM: Final = (10.0, 8.0)
"""Anteroposterior and lateral half size of the sampled region: inside the body."""
_BONE_STEPS_MM: Final = (2.0, 4.0)
"""Sampling steps within the sagittal plane, and laterally, where planes are 3 mm apart."""
_MIN_MEAN_BONE: Final = 0.05
"""Minimum mean probability of bone."""
_HEIGHT_ALONG_MM: Final = 24.0
"""Distance from a disc center within which its end plates are searched: most of a level."""
_HEIGHT_ACROSS_MM: Final = (9.0, 6.0)
"""Anteroposterior and lateral half size of the part of a disc in which its height is measured; near
the rim, discs bulge and end plates have osteophytes."""
_HEIGHT_STEPS_MM: Final = (0.5, 1.0, 3.0)
"""Sampling steps along the normal, anteroposterior and lateral."""


@dataclass(frozen=True)
class Candidate:
    """A possible disc with its image features.

    Parameters
    ----------
    center_lps, normal_lps : ndarray, shape (3,)
    score : float
        Detector score, 0..1.
    tilt_deg : float
        Forward tilt of the normal against the patient's long axis.
    depth_mm : float
        Anteroposterior depth; NaN if unknown.
    bone_above, bone_below : float
        Probability of vertebra (not sacrum) above and below the disc; NaN if unknown.
    sacrum_above, sacrum_below : float
        Probability of sacrum at the same points; NaN if unknown.
    reach_above_mm, reach_below_mm : float
        Extent of the field of view along the spine, above and below the disc.
    sacral_fraction_above, sacral_fraction_below : float
        Fraction of sacrum in the bone of the adjacent vertebra; NaN if unknown.
    height_mm : float
        Distance between the end plates; NaN if unknown.
    below_foramen_mm : float
        Distance along the canal from the foramen magnum; NaN if that was not detected.
    """

    center_lps: FloatArray
    normal_lps: FloatArray
    score: float
    tilt_deg: float
    depth_mm: float
    bone_above: float
    bone_below: float
    sacrum_above: float
    sacrum_below: float
    reach_above_mm: float
    reach_below_mm: float
    sacral_fraction_above: float = float("nan")
    sacral_fraction_below: float = float("nan")
    height_mm: float = float("nan")
    below_foramen_mm: float = float("nan")


def candidate_from(
    disc: DetectedDisc, found: Detections, centerline: Centerline, fields: Sequence[Geometry]
) -> Candidate:
    """Measure the features of a disc.

    Parameters
    ----------
    disc : DetectedDisc
    found : Detections
        Detections that contain the disc.
    centerline : Centerline
        Of the canal.
    fields : sequence of Geometry
        Grids of all volumes searched.
    """
    above, below = _adjacent_points(disc)
    return Candidate(
        center_lps=disc.center_lps,
        normal_lps=disc.normal_lps,
        score=disc.score,
        tilt_deg=float(np.degrees(np.arctan2(-disc.normal_lps[1], disc.normal_lps[2]))),
        depth_mm=np.nan if disc.depth_mm is None else disc.depth_mm,
        bone_above=_max_probability(found.bodies, above),
        bone_below=_max_probability(found.bodies, below),
        sacrum_above=_max_probability(found.sacrum, above),
        sacrum_below=_max_probability(found.sacrum, below),
        reach_above_mm=_reach_mm(disc.center_lps, centerline, fields, -1.0),
        reach_below_mm=_reach_mm(disc.center_lps, centerline, fields, 1.0),
        sacral_fraction_above=sacral_fraction(found, disc, 1.0),
        sacral_fraction_below=sacral_fraction(found, disc, -1.0),
        height_mm=disc_height_mm(found, disc),
    )


def below_foramen(
    candidates: Sequence[Candidate], segmentation: Segmentation
) -> tuple[Candidate, ...]:
    """Return the candidates with their distance from the foramen magnum, if that was detected."""
    foramen_mm = segmentation.foramen_magnum_arc_mm
    if foramen_mm is None:
        return tuple(candidates)
    arcs = (float(segmentation.centerline.project(c.center_lps)[0]) for c in candidates)
    return tuple(
        replace(c, below_foramen_mm=arc - foramen_mm)
        for c, arc in zip(candidates, arcs, strict=True)
    )


def plausible_discs(found: Detections, centerline: Centerline) -> list[DetectedDisc]:
    """Select discs anterior to the canal, and discs between bones next to them.

    Parameters
    ----------
    found : Detections
    centerline : Centerline
        Of the canal.

    Returns
    -------
    list of DetectedDisc
        Without duplicates.
    """
    kept: list[DetectedDisc] = []
    ranked = sorted(found.discs, key=lambda d: -d.score)
    at_canal = [disc for disc in ranked if _is_anterior_to_canal(disc, centerline)]
    # Discs of the same column are retained if the canal is narrowed or ends early.
    in_column = [
        disc
        for disc in ranked
        if _is_between_bones(disc, found) and any(_follows(disc, other) for other in at_canal)
    ]
    for disc in (*at_canal, *in_column):
        if nearest_mm(disc, kept) > SAME_DISC_MM:
            kept.append(disc)
    return kept


def nearest_mm(disc: DetectedDisc, others: Sequence[DetectedDisc]) -> float:
    """Distance to the nearest of the other discs; infinite if none."""
    gaps = (float(np.linalg.norm(disc.center_lps - other.center_lps)) for other in others)
    return min(gaps, default=np.inf)


def within_height_and_depth(field: Geometry, points_lps: FloatArray) -> npt.NDArray[np.bool_]:
    """Test points against a field, ignoring left-right: slabs may be narrower than scoliosis."""
    return field.contains(field.clamp_left_right(points_lps))


def sacral_fraction(found: Detections, disc: DetectedDisc, side: float) -> float:
    """Fraction of sacrum in the bone of the vertebra above or below a disc.

    Parameters
    ----------
    found : Detections
    disc : DetectedDisc
    side : float
        1 for above, -1 for below.

    Returns
    -------
    float
        0 for a lumbar vertebra, 1 for the sacrum; NaN if there is too little bone.
    """
    if found.bodies is None or found.sacrum is None:
        return float("nan")
    fine, coarse = _BONE_STEPS_MM
    depth, width = _BONE_ACROSS_MM
    along, back, lateral = np.meshgrid(
        side * np.arange(_BONE_ALONG_MM[0], _BONE_ALONG_MM[1] + fine / 2, fine),
        np.arange(-depth, depth + fine / 2, fine),
        np.arange(-width, width + coarse / 2, coarse),
        indexing="ij",
    )
    points = _points_around(disc, along, back, lateral)
    lumbar = float(found.bodies.sample(points).mean())
    sacral = float(found.sacrum.sample(points).mean())
    return sacral / (lumbar + sacral) if lumbar + sacral > _MIN_MEAN_BONE else float("nan")


def disc_height_mm(found: Detections, disc: DetectedDisc) -> float:
    """Median distance between the end plates in the center of a disc.

    Parameters
    ----------
    found : Detections
    disc : DetectedDisc

    Returns
    -------
    float
        NaN if no bone is detected on one side, or the bones are not separated.
    """
    if found.bodies is None or found.sacrum is None:
        return float("nan")
    fine, step, coarse = _HEIGHT_STEPS_MM
    depth, width = _HEIGHT_ACROSS_MM
    offsets = np.arange(0.0, _HEIGHT_ALONG_MM, fine)
    along, back, lateral = np.meshgrid(
        np.concatenate([-offsets[:0:-1], offsets]),
        np.arange(-depth, depth + step / 2, step),
        np.arange(-width, width + coarse / 2, coarse),
        indexing="ij",
    )
    points = _points_around(disc, along, back, lateral)
    bone = np.maximum(found.bodies.sample(points), found.sacrum.sample(points)).mean(axis=-1)
    is_bone = bone > _MIN_BONE
    above, below = is_bone[len(offsets) - 1 :], is_bone[len(offsets) - 1 :: -1]
    closed = above.any(axis=0) & below.any(axis=0)
    if not closed.any():
        return float("nan")
    height = float(np.median((above.argmax(axis=0) + below.argmax(axis=0))[closed])) * fine
    return height if height > 0 else float("nan")


def _points_around(
    disc: DetectedDisc, along: FloatArray, back: FloatArray, lateral: FloatArray
) -> FloatArray:
    """Points at offsets from a disc center: cranial along its normal, dorsal and left, in mm."""
    normal = disc.normal_lps / np.linalg.norm(disc.normal_lps)
    left = np.array([1.0, 0.0, 0.0])
    dorsal = np.cross(left, normal)
    dorsal = dorsal / np.linalg.norm(dorsal)
    return np.asarray(
        disc.center_lps
        + along[..., None] * normal
        + back[..., None] * dorsal
        + lateral[..., None] * left
    )


def _is_between_bones(disc: DetectedDisc, found: Detections) -> bool:
    return all(
        any(_max_probability(bone, points) > _MIN_BONE for bone in (found.bodies, found.sacrum))
        for points in _adjacent_points(disc)
    )


def _follows(disc: DetectedDisc, other: DetectedDisc) -> bool:
    """Return whether a disc lies within one level of another, along its normal."""
    offset = disc.center_lps - other.center_lps
    gap_mm = float(np.linalg.norm(offset))
    return (
        0 < gap_mm < MAX_LEVEL_MM and abs(float(offset @ other.normal_lps)) > _MIN_COSINE * gap_mm
    )


def _is_anterior_to_canal(disc: DetectedDisc, centerline: Centerline) -> bool:
    """Return whether a disc lies anterior to the canal and near its plane."""
    arc, left, dorsal = (float(x) for x in centerline.project(disc.center_lps))
    beyond = max(-arc, arc - centerline.length_mm, 0.0)
    # Beyond the known canal its centerline is extrapolated; tolerance grows with distance.
    if abs(left) > _MAX_LATERAL_MM + 0.5 * beyond or dorsal > _MAX_POSTERIOR_MM + 0.7 * beyond:
        return False
    return dorsal >= -_MAX_ANTERIOR_MM - 0.7 * beyond


def _adjacent_points(disc: DetectedDisc) -> tuple[FloatArray, FloatArray]:
    """Points in the bone above and below a disc."""
    offsets = np.array(_ADJACENT_MM)[:, None] * disc.normal_lps
    return disc.center_lps + offsets, disc.center_lps - offsets


def _max_probability(volume: Volume | None, points_lps: FloatArray) -> float:
    """Maximum probability at some points; NaN if any lies outside the volume."""
    if volume is None or not volume.geometry.contains(points_lps).all():
        return float("nan")
    return float(volume.sample(points_lps).max())


def _reach_mm(
    center_lps: FloatArray, centerline: Centerline, fields: Sequence[Geometry], direction: float
) -> float:
    """Distance from a disc to the edge of the field of view, parallel to the canal."""
    arc, left, dorsal = (float(x) for x in centerline.project(center_lps))
    steps = np.arange(_FIELD_STEP_MM, _MAX_FIELD_MM, _FIELD_STEP_MM)
    arcs = arc + direction * steps
    _, lefts, dorsals = centerline.frame_at(arcs)
    points = centerline.at(arcs) + left * lefts + dorsal * dorsals
    inside = np.any([within_height_and_depth(field, points) for field in fields], axis=0)
    outside = np.flatnonzero(~inside)
    return float(steps[outside[0]] - _FIELD_STEP_MM if len(outside) else steps[-1])
