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

from leakloc.core.volume import FloatArray

if TYPE_CHECKING:
    from leakloc.segmentation.result import Segmentation

_STEP_MM: Final = 2.0
"""Distance of the planes across the canal."""
_HALF_WIDTH_MM: Final = 14
"""Half size of a plane; a sac is 25 mm wide at most."""
_BLUR_MM: Final = (1.5, 0.8)
"""Blur along and across the canal, against noise."""
_RIM_MM: Final = 2
"""The sac's rim, where wall and fat mix in, is left out."""
_CORE_MM: Final = 4
"""Width of the window that a cord fills (8 mm); between crowded roots there is always CSF."""
_CORE_PERCENTILE: Final = 15.0
"""Percentile of tissue within that window: of a cord all of it is solid."""
_CORD: Final = 0.75
"""Least such solidity of a cord; single roots reach 0.5, crowded ones 0.85 on conventional T2."""
_MAX_SOLID: Final = 0.9
"""The cord is the most solid part of the sac: within this fraction of the maximum."""
_FALL: Final = 0.08
"""Least fall of solidity from cord to roots; crowded roots fall by less from level to level."""
_ABOVE_MM: Final = (24.0, 8.0)
_BELOW_MM: Final = (8.0, 40.0)
"""Stretches above and below a place over which solidity is compared; the cord tapers between."""
_FRACTION: Final = (0.2, 0.65)
"""Where roots leave CSF between them the tapering conus can be followed down to the lower fraction
of the fall from cord to roots; where they crowd it is lost in them at the higher one."""
_TAPER_MM: Final = 3.0
"""The conus is thinner than the window over its last millimetres."""


@dataclass(frozen=True)
class Conus:
    """The cord's tip in relation to a disc.

    Parameters
    ----------
    candidate : int
        Index of the nearest disc candidate.
    below_mm : float
        How far below that disc the tip lies along the canal; negative above.
    point_lps : ndarray, shape (3,)
        The tip, on the centerline of the canal.
    """

    candidate: int
    below_mm: float
    point_lps: FloatArray


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
    places = np.arange(far, len(arcs) - until)
    if not len(places):
        return None
    cord = np.array([solid[n - far : n - near].mean() for n in places])
    roots = np.array([solid[n + after : n + until].mean() for n in places])
    is_cord = (cord >= _CORD) & (cord >= _MAX_SOLID * cord.max())
    fall = np.where(is_cord, cord - roots, 0.0)
    steps = np.flatnonzero(fall >= _FALL)
    if not len(steps):
        return None
    first = int(steps[0])  # farther down, crowded roots fall apart again
    top = first + int(fall[first : first + until - after].argmax())
    low = float(roots[top])
    limit = low + float(np.clip(low, *_FRACTION)) * fall[top]
    start = int(places[top]) - near
    fallen = np.flatnonzero(solid[start : int(places[top]) + until] < limit)
    if not len(fallen) or fallen[0] == 0:
        return None
    end = start + int(fallen[0])
    step = (solid[end - 1] - limit) / max(solid[end - 1] - solid[end], 1e-3)
    return float(arcs[end - 1] + _STEP_MM * min(max(step, 0.0), 1.0) + _TAPER_MM)


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
    along, wide = _BLUR_MM
    tissue = ndimage.gaussian_filter(
        np.where(sac, 1.0 - fluid, 0.0), (along / _STEP_MM, wide, wide)
    )
    offset = np.arange(-(_CORE_MM // 2), _CORE_MM // 2 + 1)
    window = np.hypot(offset, offset[:, None]) <= _CORE_MM / 2
    core = ndimage.percentile_filter(tissue, _CORE_PERCENTILE, footprint=window[None])
    there = inner.any(axis=(1, 2))
    solid = np.where(inner, core, 0.0).max(axis=(1, 2))
    return arcs[there], np.asarray(solid[there])
