"""The posterior epidural line along which distances from the sacral hiatus are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray
from leakloc.localization.sac import SAC_TAPER_MM, SacProfile

_POSTERIOR_EPIDURAL_MM: Final = 1.0
"""Distance of the path from the posterior border of the sac: just outside the dura, where the
posterior epidural space is open even between its fat pads."""

_DEFAULT_DORSAL_MM: Final = 2.5
"""Distance of the path from the canal center where neither sac nor sacral canal was detected."""

_PATH_STEP_MM: Final = 2.0
"""Distance between points of a path."""

_PATH_SMOOTHING_MM: Final = 8.0
"""Gaussian sigma of the path's distance from the centerline; a catheter does not follow every
concavity of the sac."""


@dataclass(frozen=True, eq=False)
class PosteriorPath:
    """The posterior epidural line.

    Parameters
    ----------
    arc_mm : ndarray, shape (n,)
        Distance along the centerline, starting at the lowest point (decreasing).
    points_lps : ndarray, shape (n, 3)
    length_mm : ndarray, shape (n,)
        Distance along the path from its lowest point.
    """

    arc_mm: FloatArray
    points_lps: FloatArray
    length_mm: FloatArray

    def length_at(self, arc_mm: float) -> float:
        """Return the path length from the lowest point to `arc_mm`; 0 caudal to it."""
        return float(np.interp(arc_mm, self.arc_mm[::-1], self.length_mm[::-1]))

    def arc_at(self, length_mm: float) -> float:
        """Return the position along the centerline at a path length."""
        return float(np.interp(length_mm, self.length_mm, self.arc_mm))

    def point_at(self, length_mm: float) -> FloatArray:
        """Return the point at a path length, shape (3,)."""
        return np.array([np.interp(length_mm, self.length_mm, x) for x in self.points_lps.T])

    def dorsal_at(self, arc_mm: FloatArray, centerline: Centerline) -> FloatArray:
        """Return dorsal offsets of the path from the centerline, shape (n,)."""
        _, _, dorsal = centerline.frame_at(self.arc_mm)
        offset = np.einsum("nc,nc->n", self.points_lps - centerline.at(self.arc_mm), dorsal)
        return np.asarray(np.interp(arc_mm, self.arc_mm[::-1], offset[::-1]))

    def holds(self, arc_mm: float) -> bool:
        """Return whether a position along the centerline lies between the ends of the path."""
        return bool(self.arc_mm[-1] <= arc_mm <= self.arc_mm[0])


def posterior_path(
    top_mm: float,
    bottom_mm: float,
    back: FloatArray | None,
    sac: SacProfile,
) -> PosteriorPath:
    """Return the path posterior to the sac and, below it, along the posterior sacral canal.

    Parameters
    ----------
    top_mm, bottom_mm : float
        Ends of the path, as distances along the centerline.
    back : ndarray, shape (2, n), or None
        Distance along the centerline and dorsal offset of the posterior epidural line of the
        sacral canal, if detected.
    """
    top_mm = min(top_mm, bottom_mm)
    count = max(int(np.ceil((bottom_mm - top_mm) / _PATH_STEP_MM)) + 1, 2)
    arc = np.linspace(bottom_mm, top_mm, count)
    margin = int(3 * _PATH_SMOOTHING_MM / _PATH_STEP_MM) + 1
    step = (bottom_mm - top_mm) / (count - 1) or _PATH_STEP_MM
    wide = np.asarray(bottom_mm + step * (margin - np.arange(count + 2 * margin)), np.float64)
    offset = back_of_canal(wide, back, sac)
    offset = gaussian_filter1d(offset, _PATH_SMOOTHING_MM / step, mode="nearest")
    offset = offset[margin : margin + count]
    _, _, dorsal = sac.centerline.frame_at(arc)
    points = sac.centerline.at(arc) + offset[:, None] * dorsal
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return PosteriorPath(arc, points, np.concatenate([[0.0], np.cumsum(steps)]))


def back_of_canal(
    arc_mm: FloatArray,
    back: FloatArray | None,
    sac: SacProfile,
) -> FloatArray:
    """Return the dorsal offset of the posterior epidural space, mm; constant where unknown."""
    behind_sac = sac.back_mm + _POSTERIOR_EPIDURAL_MM
    known = np.isfinite(behind_sac)
    if sac.ends_mm is not None:  # the posterior canal does not taper with the sac
        known &= sac.grid.centers_mm <= sac.ends_mm[1] - SAC_TAPER_MM
    at, offsets = sac.grid.centers_mm[known], behind_sac[known]
    if back is not None:
        detected = back[:, back[0] > (at[-1] if len(at) else -np.inf)]
        order = np.argsort(detected[0])
        at, offsets = np.append(at, detected[0, order]), np.append(offsets, detected[1, order])
    if len(at):
        offset = np.interp(arc_mm, at, offsets)
    else:
        offset = np.full(arc_mm.shape, _DEFAULT_DORSAL_MM)
    here = behind_sac[sac.grid.bin_of(arc_mm)]
    inside = (arc_mm >= sac.grid.centers_mm[0]) & (arc_mm <= sac.grid.centers_mm[-1])
    # The path never crosses the sac.
    offset = np.fmax(offset, np.where(inside, here, np.nan))
    return np.asarray(offset, dtype=np.float64)
