"""Vertebral bodies, sacral segments and the level mask from named discs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline, left_and_dorsal
from leakloc.anatomy.reference import (
    ReferenceChain,
    body_width_mm,
    reference_chain,
)
from leakloc.anatomy.vocabulary import LABEL_VALUES, SACRAL, split_segment
from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.levels.detection import Detections
from leakloc.levels.result import Disc, Vertebra
from leakloc.levels.sacrum import SacralAxis, expected_axis, place_remnants

MIN_BONE: Final = 0.5
"""Minimum probability of bone."""
_MAX_SHIFT_MM: Final = 8.0
"""Maximum distance of a body center from the midpoint of its discs."""
_END_PLATE_FRACTION: Final = 0.12
"""Half the disc height as a fraction of the level height; used for bodies without image data."""
_CAUDAL_FACTOR: Final = 0.75
"""Confidence of a sacral segment relative to the one above: errors of the pitch accumulate."""


@dataclass(frozen=True)
class Body:
    """A vertebral body between two planes.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
    upper, lower : Disc
        Adjacent discs; beyond the ends of the chain, expected planes.
    depth_mm : float
        Anteroposterior depth.
    """

    name: str
    center_lps: FloatArray
    confidence: float
    upper: Disc
    lower: Disc
    depth_mm: float

    @property
    def vertebra(self) -> Vertebra:
        """The body as a `Vertebra`."""
        return Vertebra(self.name, self.center_lps, self.confidence)


def bodies_between(
    discs: Sequence[Disc],
    chain: ReferenceChain,
    scale: float,
    detections: Sequence[Detections],
    fields: Sequence[Geometry],
) -> list[Body]:
    """Build vertebral bodies above, between and below a gap-free sequence of discs.

    Parameters
    ----------
    discs : sequence of Disc
        Consecutive discs, cranial to caudal; the most caudal is at most the lumbosacral disc.
    chain : ReferenceChain
    scale : float
        Body size relative to the mean adult.
    detections : sequence of Detections
        Their probabilities center the bodies anteroposteriorly and laterally.
    fields : sequence of Geometry
        A body at an end of the chain is included if its center lies in one of them.
    """
    first = chain.discs.index(discs[0].name)
    pitch = scale * chain.pitch_mm
    above = _beyond(discs[0], float(pitch[first]), "above")
    below = _beyond(discs[-1], -float(pitch[first + len(discs)]), "below")
    planes = [above, *discs, below]
    bodies = []
    for n in range(len(planes) - 1):
        index = first + n
        upper, lower = planes[n], planes[n + 1]
        center = 0.5 * (upper.center_lps + lower.center_lps)
        center = _centered(center, upper, lower, detections)
        confidence = min(upper.confidence, lower.confidence)
        depth = float(scale * chain.depth_mm[index])
        outer = n in (0, len(planes) - 2)
        if outer and not any(field.contains(center) for field in fields):
            continue
        bodies.append(Body(chain.vertebrae[index], center, confidence, upper, lower, depth))
    return bodies


def sacral_bodies(
    junction: Disc,
    remnants: dict[str, Disc],
    scale: float,
    axis: SacralAxis | None,
    fields: Sequence[Geometry],
) -> tuple[list[Body], list[Disc]]:
    """Place S1 to S5 and the remnant discs between them along the axis of the sacrum.

    Parameters
    ----------
    junction : Disc
        The lumbosacral disc.
    remnants : dict
        Detected sacral discs, by name.
    scale : float
        Body size relative to the mean adult.
    axis : SacralAxis or None
        As traced in the image; None if no sacrum is visible.
    fields : sequence of Geometry
        Segments from the first one outside all of them caudally are omitted.

    Returns
    -------
    bodies : list of Body
    discs : list of Disc
    """
    chain = reference_chain(5)
    first = chain.vertebrae.index("S1")
    axis = axis or expected_axis(junction.center_lps, junction.normal_lps)
    line = Centerline(axis.points_lps)
    known = {name: disc.center_lps for name, disc in remnants.items()}
    arcs, detected = place_remnants(axis, junction.center_lps, known, scale)
    upper, start = junction, float(line.project(junction.center_lps)[0])
    bodies: list[Body] = []
    discs: list[Disc] = []
    for n, (name, arc) in enumerate(zip(SACRAL, arcs, strict=True)):
        depth = _bone_depth_mm(axis, line, start, arc) or scale * float(chain.depth_mm[first + n])
        disc_name = chain.discs[first + n] if first + n < len(chain.discs) else ""
        confidence = upper.confidence * (1.0 if n == 0 or detected[n - 1] else _CAUDAL_FACTOR)
        lower = remnants.get(disc_name) or Disc(
            disc_name or "S5-end",
            line.at(arc),
            -line.frame_at(arc)[0],
            confidence * (1.0 if detected[n] else _CAUDAL_FACTOR),
        )
        center = line.at(0.5 * (start + arc))
        if not any(field.contains(center) for field in fields):
            break
        bodies.append(Body(name, center, confidence, upper, lower, depth))
        if disc_name:
            discs.append(lower)
        upper, start = lower, float(arc)
    return bodies, discs


def _bone_depth_mm(axis: SacralAxis, line: Centerline, start_mm: float, end_mm: float) -> float:
    """Median depth of the bone between two positions along the axis; 0 if mostly not visible."""
    depth = axis.depth_mm[(line.arc_mm > start_mm) & (line.arc_mm < end_mm)]
    return float(np.median(depth)) if len(depth) else 0.0


def level_mask(
    bodies: Sequence[Body], detections: Sequence[Detections], geometry: Geometry
) -> Volume:
    """Label mask of vertebral bodies.

    Between the planes of its discs a body consists of the detected bone, or, if little was
    detected, of an elliptical cylinder of typical size.

    Parameters
    ----------
    bodies : sequence of Body
    detections : sequence of Detections
    geometry : Geometry
        Grid of the mask.

    Returns
    -------
    Volume
        uint8, `vocabulary.LABEL_VALUES`.
    """
    mask = np.zeros(geometry.shape, np.uint8)
    remaining = list(bodies)
    for found in detections:
        if found.bodies is None:
            continue
        grid = found.bodies.geometry
        covered = [body for body in remaining if grid.contains(body.center_lps)]
        remaining = [body for body in remaining if not grid.contains(body.center_lps)]
        bone = found.bodies.array
        if found.sacrum is not None:
            bone = np.maximum(bone, found.sacrum.array)
        drawn = Volume(_drawn(covered, grid, bone), grid)
        box = _box(drawn, geometry)
        if box is not None:
            drawn = drawn.resample(geometry.cropped(box), order=0)
            np.copyto(mask[box], drawn.array, where=mask[box] == 0)
    if remaining:
        np.copyto(mask, _drawn(remaining, geometry, None), where=mask == 0)
    for body in bodies:  # last, so that no adjacent body overwrites a center
        if geometry.contains(body.center_lps):
            nearest = np.round(geometry.kji_from_lps(body.center_lps)).astype(int)
            mask[tuple(nearest)] = LABEL_VALUES[body.name]
    return Volume(mask, geometry, Provenance("levels"))


def _box(drawn: Volume, geometry: Geometry) -> tuple[slice, slice, slice] | None:
    """The part of a grid that contains all labels drawn on another grid; None if there are none."""
    kji = np.argwhere(drawn.array)
    if not len(kji):
        return None
    low, high = kji.min(axis=0) - 1, kji.max(axis=0) + 1
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1)
    try:
        return geometry.box_around(drawn.geometry.lps_from_kji(corners))
    except GeometryError:
        return None


def _drawn(
    bodies: Sequence[Body], geometry: Geometry, bone: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.uint8]:
    """Labels of some bodies on a grid; `bone` is the probability of bone on it."""
    mask = np.zeros(geometry.shape, np.uint8)
    for body in bodies:
        radius = 0.75 * body_width_mm(body.depth_mm)
        height = float(np.linalg.norm(body.upper.center_lps - body.lower.center_lps))
        reach = (max(radius, 0.75 * height) + 2.0) / np.array(geometry.spacing_kji_mm)
        center_kji = geometry.kji_from_lps(body.center_lps)
        low = np.maximum(np.floor(center_kji - reach), 0).astype(int)
        high = np.minimum(np.ceil(center_kji + reach) + 1, geometry.shape).astype(int)
        if (high <= low).any():
            continue
        k, j, i = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        points = geometry.lps_from_kji(np.stack(np.meshgrid(k, j, i, indexing="ij"), axis=-1))
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        inside = _inside(points, body, None if bone is None else bone[box] > MIN_BONE, radius)
        part = mask[box]
        part[inside & (part == 0)] = LABEL_VALUES[body.name]
    return mask


def _inside(
    points: FloatArray, body: Body, bone: npt.NDArray[np.bool_] | None, radius_mm: float
) -> npt.NDArray[np.bool_]:
    offset = points - body.center_lps
    under = (points - body.upper.center_lps) @ body.upper.normal_lps < 0
    over = (points - body.lower.center_lps) @ body.lower.normal_lps > 0
    axis = body.upper.normal_lps + body.lower.normal_lps
    axis = axis / np.linalg.norm(axis)
    across = offset - (offset @ axis)[..., None] * axis
    left = across[..., 0]
    back = across[..., 1:] @ _unit(np.array([-axis[2], axis[1]]))
    between = under & over & (np.linalg.norm(across, axis=-1) < radius_mm)
    height = float(np.linalg.norm(body.upper.center_lps - body.lower.center_lps))
    margin = _END_PLATE_FRACTION * height
    half_depth, half_width = 0.5 * body.depth_mm, 0.5 * body_width_mm(body.depth_mm)
    cylinder = (
        ((points - body.upper.center_lps) @ body.upper.normal_lps < -margin)
        & ((points - body.lower.center_lps) @ body.lower.normal_lps > margin)
        & ((left / half_width) ** 2 + (back / half_depth) ** 2 < 1)
    )
    if bone is None:
        return np.asarray(cylinder)
    bone = bone & between
    return bone if bone.sum() >= 0.5 * cylinder.sum() else np.asarray(cylinder | bone)


def _centered(
    center: FloatArray, upper: Disc, lower: Disc, detections: Sequence[Detections]
) -> FloatArray:
    """Midpoint of two discs, shifted to the center of the surrounding bone."""
    steps = np.arange(-24.0, 24.1, 3.0)
    left, back, up = np.meshgrid(steps, steps, np.arange(-15.0, 15.1, 3.0), indexing="ij")
    axis = _unit(upper.center_lps - lower.center_lps)
    across, dorsal = left_and_dorsal(-axis)
    points = (
        center + left[..., None] * across + back[..., None] * dorsal + up[..., None] * axis
    ).reshape(-1, 3)
    between = ((points - upper.center_lps) @ upper.normal_lps < 0) & (
        (points - lower.center_lps) @ lower.normal_lps > 0
    )
    points = points[between]
    weight = np.zeros(len(points))
    for found in detections:
        if found.bodies is not None:
            weight = np.maximum(weight, found.bodies.sample(points))
    weight = np.where(weight > MIN_BONE, weight, 0.0)
    if weight.sum() < 0.1 * max(len(points), 1):  # under a tenth of the box: too little bone
        return center
    shift = np.average(points, axis=0, weights=weight) - center
    shift_mm = float(np.linalg.norm(shift))
    return np.asarray(center + shift * min(1.0, _MAX_SHIFT_MM / max(shift_mm, 1e-6)))


def _beyond(disc: Disc, distance_mm: float, place: str) -> Disc:
    """Expected plane on the other side of a vertebra at an end of the chain."""
    return replace(
        disc,
        name=f"{place} {disc.name}",
        center_lps=np.asarray(disc.center_lps + distance_mm * disc.normal_lps),
    )


def _unit(vector: FloatArray) -> FloatArray:
    return np.asarray(vector / np.linalg.norm(vector))


def is_sacral(disc_name: str) -> bool:
    """Return whether a disc lies between two sacral segments."""
    return split_segment(disc_name)[0] in SACRAL
