"""Position of the conus medullaris, the only numbering landmark in a lumbar field of view.

The conus lies near the lower third of L1 in most people. If it appears one level higher or lower,
there may be six or four lumbar vertebrae. The landmark is weak (standard deviation half a level;
unreliable alone in Tokgoz et al., Korean J Radiol 2014), so it changes probabilities and
confidence but does not determine the numbering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.reference import ReferenceChain
from leakloc.core.networks import network_session
from leakloc.core.volume import FloatArray
from leakloc.levels.candidates import Candidate

if TYPE_CHECKING:
    from leakloc.segmentation.result import Segmentation

STEP_MM: Final = 2.0
"""Spacing of the planes perpendicular to the canal."""
HALF_WIDTH_MM: Final = 14
"""Half size of a plane; the thecal sac is at most 25 mm wide."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "conus.onnx"
"""Regression trees shipped with the package; see ``models/CONUS_CARD.md``."""
_BLUR_MM: Final = (1.5, 0.6)
"""Smoothing along and across the canal."""
_RIM_MM: Final = 2
"""Width of the excluded rim of the sac, with partial volume of wall and fat."""
_RADII_MM: Final = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Radii of the windows in which solidity is measured; the cord narrows from 4 mm to its tip."""
_PERCENTILE: Final = 15.0
"""Percentile of tissue within a window: the cord fills it; between roots there is CSF."""
_USUAL_SAC_MM2: Final = 300.0
"""Unit of the area of the sac in a profile; about its area at L1."""
_WINDOW_PLANES: Final = 20
"""Planes above and below a position that the regression evaluates."""
_USED_PLANES: Final = 2
"""Every second plane of these is evaluated; smoothing makes adjacent planes similar."""
MAX_OFFSET_MM: Final = 24.0
"""Maximum distance of the tip from the planes used in training."""
_VOTE_MM: Final = (16.0, 4.0)
"""Decay of the weight of an estimate with its distance, and width of a vote."""
_MIN_VOTES: Final = 8.0
"""Minimum sum of votes: reached by 98 % of visible tips in cross-validation; without the cord in
view, crowded roots reached at most 10.4 in 32 studies."""
_MIN_PEAK: Final = 0.7
"""Minimum votes of a position relative to the maximum."""
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

    Regression trees estimate the distance of the tip from each plane, from the solidity of the
    content of the sac in windows of several sizes around it. The tip is where most estimates
    agree.

    Parameters
    ----------
    segmentation : Segmentation
        The cord is the part of its thecal sac without fluid.

    Returns
    -------
    float or None
        None if too few estimates agree; the end of the cord may be outside the field of view.
    """
    first, profile = measure_profile(*sample_planes(segmentation))
    if not profile.shape[1]:
        return None
    (offsets,) = network_session(MODEL_PATH, "conus").run(None, {"profiles": windows_of(profile)})
    plane = vote_for_tip(offsets[:, 0])
    return None if plane is None else STEP_MM * (first + plane)


def sample_planes(
    segmentation: Segmentation,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return planes perpendicular to the canal, 2 mm apart, from its cranial end.

    Returns
    -------
    tissue : ndarray, shape (n, 29, 29)
        Fraction of a pixel (1 mm) without fluid; rows to the back, columns to the left.
    sac : ndarray of bool, same shape
    """
    line = segmentation.centerline
    arcs = np.arange(0.0, line.length_mm, STEP_MM)
    across = np.arange(-HALF_WIDTH_MM, HALF_WIDTH_MM + 1.0)
    left, back = np.meshgrid(across, across)
    _, lefts, dorsals = line.frame_at(arcs)
    points = (
        line.at(arcs)[:, None, None]
        + left[..., None] * lefts[:, None, None]
        + back[..., None] * dorsals[:, None, None]
    )
    sac = segmentation.thecal_sac.sample(points, order=0) > 0
    return np.asarray(1.0 - segmentation.fluid_fraction.sample(points)), sac


def measure_profile(
    tissue: FloatArray, sac: npt.NDArray[np.bool_]
) -> tuple[int, npt.NDArray[np.float32]]:
    """Measure how solid the content of the sac is in each plane of `sample_planes`.

    Returns
    -------
    first : int
        First plane that contains the sac without its rim.
    profile : ndarray, shape (7, n)
        Of this plane to the last such plane; interpolated where the sac is narrower than its rim.
        Maximum solidity in windows of five sizes, fraction of tissue in the sac, area of the sac.
    """
    inner = ndimage.binary_erosion(sac, np.ones((1, 2 * _RIM_MM + 1, 2 * _RIM_MM + 1)))
    along, wide = _BLUR_MM
    content = np.where(sac, np.clip(tissue, 0.0, 1.0), 0.0).astype(np.float32)
    content = ndimage.gaussian_filter(content, (along / STEP_MM, wide, wide))
    rows = []
    for radius in _RADII_MM:
        offset = np.arange(-np.ceil(radius), np.ceil(radius) + 1)
        window = np.hypot(offset, offset[:, None]) <= radius
        solid = ndimage.percentile_filter(content, _PERCENTILE, footprint=window[None])
        rows.append(np.where(inner, solid, 0.0).max((1, 2)))
    area = sac.sum((1, 2))
    rows.append((sac & (content > 0.5)).sum((1, 2)) / np.maximum(area, 1))
    rows.append(np.clip(area / _USUAL_SAC_MM2, 1 / _USUAL_SAC_MM2, 2.0))
    covered = np.flatnonzero(inner.any((1, 2)))
    if not len(covered):
        return 0, np.zeros((len(rows), 0), np.float32)
    planes = np.arange(covered[0], covered[-1] + 1)
    rows = [np.interp(planes, covered, row[covered]) for row in rows]
    return int(covered[0]), np.array(rows, np.float32)


def windows_of(profile: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the part of a profile around each plane, shape (n, 147): the input of the trees."""
    padded = np.pad(profile, ((0, 0), (_WINDOW_PLANES, _WINDOW_PLANES)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _WINDOW_PLANES + 1, axis=1)
    return np.ascontiguousarray(
        np.moveaxis(around[..., ::_USED_PLANES], 0, 1).reshape(profile.shape[1], -1)
    )


def vote_for_tip(offsets_mm: FloatArray) -> float | None:
    """Return the plane on which most estimates agree; None if too few do.

    Of several such planes the most cranial one is returned: below a stenosis, crowded roots
    separate again.

    Parameters
    ----------
    offsets_mm : ndarray, shape (n,)
        Estimated distance of the tip below each plane.
    """
    decay, width = _VOTE_MM
    estimates = np.arange(len(offsets_mm)) + offsets_mm / STEP_MM
    places = np.arange(0.0, len(offsets_mm) - 0.9, 0.5)
    votes = np.exp(-0.5 * ((places[:, None] - estimates) * STEP_MM / width) ** 2)
    votes = votes @ np.exp(-np.abs(offsets_mm) / decay)
    enough = votes >= max(_MIN_VOTES, _MIN_PEAK * votes.max())
    # Not scipy.signal.find_peaks: its import takes 0.3 s.
    peaks = np.flatnonzero((votes[1:-1] > votes[:-2]) & (votes[1:-1] >= votes[2:]) & enough[1:-1])
    return float(places[peaks[0] + 1]) if len(peaks) else None
