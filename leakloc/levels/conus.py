"""Position of the conus medullaris, the only numbering landmark in a lumbar field of view.

The conus lies near the lower third of L1 in most people. If it appears one level higher or lower,
there may be six or four lumbar vertebrae. The landmark is weak (standard deviation half a level;
unreliable alone in Tokgoz et al., Korean J Radiol 2014), so it changes probabilities and
confidence but does not determine the numbering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from leakloc.anatomy.reference import ReferenceChain
from leakloc.core.volume import FloatArray
from leakloc.levels.candidates import Candidate

if TYPE_CHECKING:
    from leakloc.segmentation.result import Segmentation

_STEP_MM: Final = 2.0
"""Spacing of the planes perpendicular to the canal."""
_HALF_WIDTH_MM: Final = 14
"""Half size of a plane; the thecal sac is at most 25 mm wide."""
_BLUR_MM: Final = (1.5, 0.8)
"""Smoothing along and across the canal."""
_RIM_MM: Final = 2
"""Width of the excluded rim of the sac, with partial volume of wall and fat."""
_CORE_MM: Final = 4
"""Width of the window, filled by the cord (8 mm); crowded roots always leave CSF in it."""
_CORE_PERCENTILE: Final = 15.0
"""Percentile of tissue within that window: the cord fills it completely."""
_CORD: Final = 0.75
"""Minimum solidity of the cord; single roots reach 0.5, crowded ones 0.85 on conventional T2."""
_MAX_SOLID: Final = 0.9
"""Minimum solidity of the cord as a fraction of the maximum in the sac."""
_MIN_DECREASE: Final = 0.08
"""Minimum decrease of solidity from cord to roots; it is smaller between crowded roots."""
_ABOVE_MM: Final = (24.0, 8.0)
_BELOW_MM: Final = (8.0, 40.0)
"""Ranges above and below a position over which solidity is compared; the cord tapers between."""
_FRACTION: Final = (0.2, 0.65)
"""Fraction of the decrease from cord to roots at the conus tip: the lower value if CSF separates
the roots, the higher one if crowded roots obscure the tapering conus."""
_TAPER_MM: Final = 3.0
"""Length over which the conus is thinner than the window."""
_USUAL_IN_L1: Final = 0.55
"""Mean position of the conus medullaris, in heights of L1 from its top: near its lower third."""


@dataclass(frozen=True)
class Conus:
    """Tip of the conus medullaris relative to a disc.

    Parameters
    ----------
    candidate : int
        Index of the nearest disc candidate.
    below_mm : float
        Distance of the tip below that disc along the canal; negative if above.
    point_lps : ndarray, shape (3,)
        Position of the tip, on the canal centerline.
    """

    candidate: int
    below_mm: float
    point_lps: FloatArray


def find_conus(segmentation: Segmentation, candidates: Sequence[Candidate]) -> Conus | None:
    """Locate the conus tip relative to the nearest disc; None if either is not detected."""
    arc = conus_arc_mm(segmentation)
    if arc is None or not candidates:
        return None
    line = segmentation.centerline
    below = [arc - float(line.project(c.center_lps)[0]) for c in candidates]
    nearest = int(np.abs(below).argmin())
    return Conus(nearest, below[nearest], line.at(arc))


def conus_offset(conus: Conus, chain: ReferenceChain, scale: float) -> FloatArray:
    """Offset of the conus below its usual position, for each possible name of its disc.

    Returns
    -------
    ndarray, shape (n,)
        In levels; negative if above.
    """
    disc = np.arange(len(chain.discs))
    vertebra = disc + 1 if conus.below_mm >= 0 else disc  # integers: tops of vertebrae
    level = disc + 1 + conus.below_mm / (scale * chain.pitch_mm[vertebra])
    return np.asarray(level - (chain.vertebrae.index("L1") + _USUAL_IN_L1))


def conus_arc_mm(segmentation: Segmentation) -> float | None:
    """Return the position of the conus tip along the canal centerline, in mm.

    Parameters
    ----------
    segmentation : Segmentation
        The cord is the part of its thecal sac without fluid.

    Returns
    -------
    float or None
        None if the cord or its end is not in the field of view.
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
    decrease = np.where(is_cord, cord - roots, 0.0)
    steps = np.flatnonzero(decrease >= _MIN_DECREASE)
    if not len(steps):
        return None
    first = int(steps[0])  # farther caudally, crowded roots separate again
    top = first + int(decrease[first : first + until - after].argmax())
    low = float(roots[top])
    limit = low + float(np.clip(low, *_FRACTION)) * decrease[top]
    start = int(places[top]) - near
    below_limit = np.flatnonzero(solid[start : int(places[top]) + until] < limit)
    if not len(below_limit) or below_limit[0] == 0:
        return None
    end = start + int(below_limit[0])
    step = (solid[end - 1] - limit) / max(solid[end - 1] - solid[end], 1e-3)
    return float(arcs[end - 1] + _STEP_MM * min(max(step, 0.0), 1.0) + _TAPER_MM)


def _solidity(segmentation: Segmentation) -> tuple[FloatArray, FloatArray]:
    """Positions along the canal inside the sac, and the maximum solidity at each."""
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
    covered = inner.any(axis=(1, 2))
    solid = np.where(inner, core, 0.0).max(axis=(1, 2))
    return arcs[covered], np.asarray(solid[covered])
