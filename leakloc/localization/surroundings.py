"""Anatomy adjacent to the path: posterior epidural depth, skin and cysts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.path import PosteriorPath
from leakloc.localization.result import BrightStructure, CystOnPath, NarrowestDepth
from leakloc.localization.sac import SacProfile
from leakloc.segmentation.result import Candidate, Segmentation

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

UNKNOWN: Final = 0
FAT: Final = 1
FLUID: Final = 2
NO_FAT: Final = 3
"""Content of the posterior epidural space."""

_MIN_STRUCTURE_ML: Final = 0.2
"""Minimum volume of a listed bright structure: a sphere of 7 mm, half the canal's depth."""

_FAT_FROM_MM: Final = 1.0
_FAT_TO_MM: Final = 3.0
"""Range posterior to the sac in which fat is looked for: beyond the dura and partial volume of CSF,
up to twice the depth of the thinnest fat."""

_CANAL_FAT_MM: Final = (-3.0, 1.0)
"""The same relative to the path, caudal to the sac."""

_FAT_REACH_MM: Final = 60.0
"""The signal of fat is compared with that of the fat within this distance along the canal; coil
sensitivity varies over longer distances."""

_FAT_SMOOTH_MM: Final = 2.0
"""Sigma of the smoothing of that signal along the canal."""

_FAT_PERCENTILE: Final = 80.0
"""Percentile of the signal within this distance that counts as that of fat."""

_FLUID_FRACTION: Final = 0.5
"""Minimum fraction of the range posterior to the sac that is fluid."""

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
    fluid : Volume
        Labels of the epidural collections, 0 elsewhere.
    cysts : tuple of (arc_mm, CystOnPath)
        Cyst-like structures in the canal.
    rejected : tuple of (arc_mm, Candidate)
        Bright structures in the canal that are not epidural fluid, cysts included.
    """

    sac: SacProfile
    depth_mm: FloatArray
    anatomy: Volume | None
    fluid: Volume
    cysts: tuple[tuple[float, CystOnPath], ...]
    rejected: tuple[tuple[float, Candidate], ...] = ()

    @classmethod
    def of(
        cls,
        segmentation: Segmentation,
        anatomy: Volume | None,
        sac: SacProfile,
    ) -> Surroundings:
        """Measure the anatomy around the posterior epidural space."""
        cysts, others = [], []
        for candidate in segmentation.candidates:
            arc, left, dorsal = sac.centerline.project(candidate.center_lps)
            in_canal = float(np.hypot(left, dorsal)) <= CANAL_RADIUS_MM
            if candidate.accepted or not in_canal:
                continue
            if candidate.volume_ml >= _MIN_STRUCTURE_ML:
                others.append((float(arc), candidate))
            if any("perineural cyst" in mimic for mimic in candidate.mimics):
                cyst = CystOnPath(volume_ml=candidate.volume_ml, center_lps_mm=candidate.center_lps)
                cysts.append((float(arc), cyst))
        depth = np.full(sac.grid.count, np.nan)
        if anatomy is not None:
            depth = posterior_depths_mm(anatomy, sac)
        return cls(sac, depth, anatomy, segmentation.collections, tuple(cysts), tuple(others))

    def cysts_along(
        self, path: PosteriorPath, coordinate: LevelCoordinate, *, is_from_hiatus: bool
    ) -> tuple[CystOnPath, ...]:
        """Return the cysts along a path, from its lowest point upward.

        Parameters
        ----------
        is_from_hiatus : bool
            Whether the path starts at the hiatus or its expected position.
        """
        along = sorted((item for item in self.cysts if path.holds(item[0])), key=lambda c: -c[0])
        return tuple(
            cyst.model_copy(
                update={
                    "level": coordinate.segment_at(arc_mm),
                    "distance_from_hiatus_mm": round(path.length_at(arc_mm), 2)
                    if is_from_hiatus
                    else None,
                }
            )
            for arc_mm, cyst in along
        )

    def rejected_along(
        self, path: PosteriorPath, coordinate: LevelCoordinate
    ) -> tuple[BrightStructure, ...]:
        """Return the rejected bright structures along a path from the hiatus, from it upward."""
        along = sorted(
            (item for item in self.rejected if path.holds(item[0])), key=lambda item: -item[0]
        )
        return tuple(
            BrightStructure(
                volume_ml=candidate.volume_ml,
                center_lps_mm=candidate.center_lps,
                level=coordinate.segment_at(arc_mm),
                distance_from_hiatus_mm=path.length_at(arc_mm),
                mimics=candidate.mimics,
            )
            for arc_mm, candidate in along
        )

    def content_along(self, path: PosteriorPath, arc_mm: FloatArray) -> npt.NDArray[np.intp]:
        """Return the content of the posterior epidural space at positions on a path.

        Fat is recognized by its signal 1 to 3 mm posterior to the sac or, caudal to it, in the
        posterior canal, relative to the fat of adjacent levels.

        Parameters
        ----------
        arc_mm : ndarray, shape (n,)
            Distances along the centerline.

        Returns
        -------
        ndarray, shape (n,)
            `FAT`, `FLUID`, `NO_FAT`, or `UNKNOWN` outside the image.
        """
        if self.anatomy is None:
            return np.full(arc_mm.shape, UNKNOWN)
        line = self.sac.centerline
        _, left, dorsal = line.frame_at(arc_mm)
        bins = self.sac.grid.bin_of(arc_mm)
        back, aside = self.sac.back_mm[bins], self.sac.left_mm[bins]
        has_sac = np.isfinite(back) & (arc_mm <= self.sac.grid.centers_mm[-1])
        out = np.arange(_FAT_FROM_MM, _FAT_TO_MM + _STEP_MM, _STEP_MM)
        canal = np.linspace(*_CANAL_FAT_MM, len(out))
        offset = np.where(
            has_sac[:, None], back[:, None] + out, path.dorsal_at(arc_mm, line)[:, None] + canal
        )
        start = line.at(arc_mm) + np.where(has_sac, aside, 0.0)[:, None] * left
        points = start[:, None] + offset[..., None] * dorsal[:, None]
        inside = self.anatomy.geometry.contains(points).all(axis=1)
        fluid = (self.fluid.sample(points, order=0) > 0).mean(axis=1) >= _FLUID_FRACTION
        signal = self.anatomy.sample(points).max(axis=1)
        signal = gaussian_filter1d(signal, _FAT_SMOOTH_MM / self.sac.grid.step_mm, mode="nearest")
        content = np.full(arc_mm.shape, UNKNOWN)
        for n in np.flatnonzero(inside):
            near = inside & ~fluid & (np.abs(arc_mm - arc_mm[n]) <= _FAT_REACH_MM)
            if near.any():
                usual = np.percentile(signal[near], _FAT_PERCENTILE)
                content[n] = FAT if signal[n] >= _DARK_FRACTION * usual else NO_FAT
        return np.where(inside & fluid, FLUID, content)

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
        """Return the distance from skin to point; see the function `skin_depth_mm`."""
        return None if self.anatomy is None else skin_depth_mm(self.anatomy, point_lps, dorsal)


def skin_depth_mm(anatomy: Volume, point_lps: FloatArray, dorsal: FloatArray) -> float | None:
    """Return the distance from skin to point; None if the skin is outside the field of view."""
    out = np.arange(0.0, SKIN_MM, 1.0)
    ray = point_lps + out[:, None] * dorsal
    inside = anatomy.geometry.contains(ray)
    signal = np.where(inside, anatomy.sample(ray), 0.0)
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
