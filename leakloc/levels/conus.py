"""Where the spinal cord ends: the one cue to the numbering that a lumbar field of view holds.

The cord's tip lies near the lower third of L1 in most people. Where it seems to lie a level
higher or lower, there may be six or four lumbar vertebrae. The cue is weak (persons differ by
half a level; Tokgoz et al., Korean J Radiol 2014, found it unreliable alone), so it moves belief
and raises doubt, and never decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.volume import FloatArray

if TYPE_CHECKING:
    from leakloc.segmentation.result import Segmentation

_STEP_MM: Final = 2.0
"""Distance of the planes across the canal."""
_HALF_WIDTH_MM: Final = 14
"""Half size of a plane; a sac is 25 mm wide at most."""
_BLUR_MM: Final = 2.0
"""Blur across the canal: roots are thinner than this (1.2 mm), the cord is thicker (8 mm)."""
_RIM_MM: Final = 2
"""The sac's rim, where wall and fat mix in, is left out."""
_CORD: Final = 0.6
"""Least share of solid tissue, blurred, in the middle of a cord; roots alone stay below 0.35 on
heavy T2, but crowd to 0.75 on conventional T2."""
_MOST_SOLID: Final = 0.85
"""The cord is the most solid part of the sac: within this share of the maximum."""
_STEP_DOWN: Final = 0.12
"""Least fall of solidity from cord to roots; crowded roots fall by less from level to level."""
_ABOVE_MM: Final = (24.0, 8.0)
_BELOW_MM: Final = (8.0, 40.0)
"""Stretches above and below a place over which solidity is compared; the cord tapers over 15 mm."""
_BROKEN: Final = 0.2
"""A cord with more of its length less solid than that is something else, such as a lost sac."""
_TIP: Final = 0.2
"""At the tip solidity has fallen to this share of the way from cord to roots."""


@dataclass(frozen=True)
class Conus:
    """The cord's tip in relation to a disc.

    Parameters
    ----------
    candidate : int
        Index of the nearest disc candidate.
    below_mm : float
        How far below that disc the tip lies along the canal; negative above.
    """

    candidate: int
    below_mm: float


def conus_arc_mm(segmentation: Segmentation) -> float | None:
    """Where along the canal's centreline the cord ends, millimetres.

    Parameters
    ----------
    segmentation : Segmentation
        The cord is what holds no fluid in the middle of its sac.

    Returns
    -------
    float or None
        None where no cord, or no end of it, lies in the field.
    """
    arcs, solid = _solidity(segmentation)
    far, near = (round(mm / _STEP_MM) for mm in _ABOVE_MM)
    after, until = (round(mm / _STEP_MM) for mm in _BELOW_MM)
    if len(arcs) <= far + until:
        return None
    cord_from = max(_CORD, _MOST_SOLID * float(solid.max()))
    places = np.arange(far, len(arcs) - until)
    cord = np.array([solid[n - far : n - near].mean() for n in places])
    roots = np.array([solid[n + after : n + until].mean() for n in places])
    fall = np.where(cord >= cord_from, cord - roots, 0.0)
    steps = np.flatnonzero(fall >= _STEP_DOWN)
    if len(steps) == 0:
        return None
    first = int(steps[0])  # further down roots may be crowded in a narrow sac and fall apart again
    top = first + int(fall[first : first + until].argmax())
    start = int(places[top]) - near
    if (solid[:start] < cord_from).mean() > _BROKEN:
        return None
    end = int(places[top]) + until
    fallen = np.flatnonzero(solid[start:end] < roots[top] + _TIP * fall[top])
    return float(arcs[start + fallen[0]]) if len(fallen) else None


def _solidity(segmentation: Segmentation) -> tuple[FloatArray, FloatArray]:
    """Places along the canal inside the sac, and the most solid spot across it there."""
    from scipy import ndimage

    line = segmentation.centerline
    arcs = np.arange(0.0, line.length_mm, _STEP_MM)
    across = np.arange(-_HALF_WIDTH_MM, _HALF_WIDTH_MM + 1.0)
    left, back = np.meshgrid(across, across)
    _, lefts, dorsals = line.frame_at(arcs)
    points = (
        line.at(arcs)[:, None, None]
        + left[..., None] * lefts[:, None, None]
        + back[..., None] * dorsals[:, None, None]
    )
    sac = segmentation.thecal_sac.sample(points, order=0) > 0
    fluid = np.clip(segmentation.fluid_fraction.sample(points), 0.0, 1.0)
    inner = ndimage.binary_erosion(sac, np.ones((1, 2 * _RIM_MM + 1, 2 * _RIM_MM + 1)))
    tissue = ndimage.gaussian_filter(
        np.where(sac, 1.0 - fluid, 0.0), (_BLUR_MM / _STEP_MM, _BLUR_MM, _BLUR_MM)
    )
    there = inner.any(axis=(1, 2))
    solid = np.where(inner, tissue, 0.0).max(axis=(1, 2))
    return arcs[there], np.asarray(solid[there])
