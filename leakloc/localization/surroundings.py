"""Anatomy adjacent to the path: posterior epidural depth, skin and cysts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import CystOnPath, NarrowestDepth
from leakloc.localization.sac import SacProfile
from leakloc.segmentation.result import Segmentation

_STEP_MM = 0.5
_FILL_MM = 2.0
"""The reference signal is the maximum within this distance posterior to the sac."""
_SMOOTH_MM = 4.0
"""Sigma of the signal smoothing along the canal."""
SKIN_MM = 160.0
"""Maximum distance from the canal to the skin."""
_AIR_MM = 6.0
"""Minimum depth of air posterior to the skin inside the field of view."""
START_MM = 25.0
"""Maximum distance from the centerline to the start of a depth, the back of the sac or canal."""
ASIDE_MM = 3.0
"""Lateral tolerance for rays to the skin in the midline, for turns of the canal."""
SAC_ASIDE_MM = 10.0
"""Maximum lateral distance of the sac center from the centerline."""
PAST_MM = 60.0
"""Straight extension of the centerline beyond its ends, where levels may still be named."""

_DARK_FRACTION: Final = 0.5
"""The posterior epidural space ends where the signal posterior to the sac falls below this fraction
of the signal within it, at the dark ligamentum flavum or lamina."""

_MAX_DEPTH_MM: Final = 12.0
"""Maximum measured depth of the epidural space; beyond it the arch is absent or not visible."""

_AIR_FRACTION: Final = 0.12
"""Air begins where the signal stays below this fraction of the brightest subcutaneous fat."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Anatomy around the posterior epidural space.

    Parameters
    ----------
    sac : SacProfile
    depth_mm : ndarray, shape (grid.count,)
        Depth of the posterior epidural space in the midline; NaN if not measured.
    anatomy : Volume or None
        Image on which fat is bright.
    cysts : tuple of (arc_mm, CystOnPath)
        Cyst-like structures in the canal.
    """

    sac: SacProfile
    depth_mm: FloatArray
    anatomy: Volume | None
    cysts: tuple[tuple[float, CystOnPath], ...]

    @classmethod
    def of(
        cls,
        segmentation: Segmentation,
        anatomy: Volume | None,
        sac: SacProfile,
    ) -> Surroundings:
        """Measure the anatomy around the posterior epidural space."""
        cysts = []
        for candidate in segmentation.candidates:
            arc, left, dorsal = sac.centerline.project(candidate.center_lps)
            in_canal = float(np.hypot(left, dorsal)) <= CANAL_RADIUS_MM
            named = any("perineural cyst" in mimic for mimic in candidate.mimics)
            if named and not candidate.accepted and in_canal:
                cyst = CystOnPath(volume_ml=candidate.volume_ml, center_lps_mm=candidate.center_lps)
                cysts.append((float(arc), cyst))
        depth = np.full(sac.grid.count, np.nan)
        if anatomy is not None:
            depth = posterior_depths_mm(anatomy, sac)
        return cls(sac, depth, anatomy, tuple(cysts))

    def cysts_between(self, top_mm: float, bottom_mm: float) -> tuple[CystOnPath, ...]:
        """Return the cysts along a range of the canal."""
        return tuple(cyst for arc, cyst in self.cysts if top_mm <= arc <= bottom_mm)

    def depth_at(self, arc_mm: float) -> float:
        """Return the depth of the posterior epidural space at a position; NaN if unknown."""
        return float(self.depth_mm[self.sac.grid.bin_of(arc_mm)])

    def narrowest_depth(
        self, top_mm: float, bottom_mm: float, coordinate: LevelCoordinate
    ) -> NarrowestDepth | None:
        """Return the minimum depth of the posterior epidural space along a range."""
        arc = self.sac.grid.centers_mm
        along = (arc >= top_mm) & (arc <= bottom_mm) & np.isfinite(self.depth_mm)
        if not along.any():
            return None
        at = int(np.flatnonzero(along)[np.argmin(self.depth_mm[along])])
        line = self.sac.centerline
        _, _, dorsal = line.frame_at(arc[at])
        point = line.at(arc[at]) + (self.sac.back_mm[at] + 0.5 * self.depth_mm[at]) * dorsal
        return NarrowestDepth(
            depth_mm=self.depth_mm[at], lps_mm=point, level=coordinate.segment_at(arc[at])
        )

    def skin_depth_mm(self, point_lps: FloatArray, dorsal: FloatArray) -> float | None:
        """Return the distance from skin to point; None if the skin is outside the field of view."""
        if self.anatomy is None:
            return None
        out = np.arange(0.0, SKIN_MM, 1.0)
        ray = point_lps + out[:, None] * dorsal
        inside = self.anatomy.geometry.contains(ray)
        signal = np.where(inside, self.anatomy.sample(ray), 0.0)
        limit = _AIR_FRACTION * float(signal.max())
        tissue = np.flatnonzero(signal > limit)
        if not len(tissue):
            return None
        skin = int(tissue[-1])
        shown = inside[skin + 1 : skin + 1 + int(_AIR_MM)]
        return float(out[skin]) if len(shown) == int(_AIR_MM) and shown.all() else None


def posterior_depths_mm(anatomy: Volume, sac: SacProfile) -> FloatArray:
    """Return the midline depth of the posterior epidural space per bin; NaN if not visible.

    Measured from the back of the sac to the first position where the signal drops below a
    fraction of that of the fat: fat is bright on T1 and T2, the ligamentum flavum and the arch
    are dark.

    Parameters
    ----------
    anatomy : Volume
        Image on which fat is bright.
    """
    arc = sac.grid.centers_mm
    known = np.isfinite(sac.back_mm)
    depth = np.full(sac.grid.count, np.nan)
    if not known.any():
        return depth
    out = np.arange(0.0, _MAX_DEPTH_MM + _STEP_MM, _STEP_MM)
    _, left, dorsal = sac.centerline.frame_at(arc[known])
    start = sac.centerline.at(arc[known]) + sac.left_mm[known, None] * left
    points = start[:, None] + (sac.back_mm[known, None] + out)[..., None] * dorsal[:, None]
    signal = anatomy.sample(points)
    inside = anatomy.geometry.contains(points).all(axis=1)
    signal = gaussian_filter1d(signal, _SMOOTH_MM / sac.grid.step_mm, axis=0, mode="nearest")
    filled = signal[:, out <= _FILL_MM].max(axis=1)
    fallen = signal < _DARK_FRACTION * filled[:, None]
    fallen[:, 0] = False
    ends = np.where(fallen.any(axis=1), out[fallen.argmax(axis=1)], np.nan)
    depth[known] = np.where(inside, ends, np.nan)
    return depth
