"""Tables of the anatomy over the arc length along the canal (millimeters, cranial to caudal).

They are finely sampled, so that rendering requires only the canal coordinates of a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.levels import LevelSite
from leakloc.validation.phantom.roots import Settling
from leakloc.validation.phantom.shapes import Float, smooth_noise

TABLE_STEP_MM: Final = 0.25
"""Step of the arc tables: a quarter of a voxel, so that no interpolation is needed."""

FORAMEN_MAGNUM_MM: Final = 8.0
"""Length from the top of C2 to the foramen magnum, the cranial end of the thecal sac."""

ATLAS_FORAMEN_MM: Final = 22.0
"""The same with dens and atlas."""

_ATLAS_ARCH: Final = (9.0, 4.5, 5.0)
"""Posterior arch of C1: distance of its middle above the top of C2, half height, and length of the
tubercle."""
_DENS_MM: Final = (5.0, 5.5)
"""Lateral and anteroposterior half axes of the dens."""

AREA_MEAN_FACTOR: Final = 1.30
"""Ratio of mean sac area of a level to its area at the disc, to match the CSF volumes:
whole spine 95 mL, T11-T12 to the caudal end of the sac about 50 mL."""

AREA_MODULATION: Final = 0.15
"""Amplitude of the variation of sac area between disc (narrow) and mid-body (wide)."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Tables of one structure, shape (n,) if not stated otherwise; converted to float32."""

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            object.__setattr__(self, name, np.array(values, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class ColumnTables(_Group):
    """Vertebral bodies and discs; `a` and `b` are lateral and anteroposterior half axes."""

    body: Float
    """Index of the level."""
    disc: Float
    """Index of the level above the nearest disc; -1 for the disc above the first level."""
    body_offset: Float
    """Distance caudal to the middle of the body."""
    disc_offset: Float
    """Distance caudal to the nearest disc."""
    half_height: Float
    """Half the height of the nearest disc."""
    bridge: Float
    """Depth over which the nearest disc is bridged by bone."""
    phase: Float
    """Position in the level, 0 at its upper disc to 1."""
    pitch: Float
    """Length of the level."""
    waist: Float
    """0 at the discs, 1 at the middle of the body."""
    a: Float
    b: Float


@dataclass(frozen=True, eq=False)
class CanalTables(_Group):
    """Bony canal, centered on the centerline."""

    a: Float
    b: Float
    recess: Float
    """Depth of the dorsal recess between the laminae, filled with fat."""


@dataclass(frozen=True, eq=False)
class SacTables(_Group):
    """Inner surface of the dura."""

    a: Float
    b: Float
    center: Float
    """Dorsal offset from the centerline."""
    trefoil: Float
    """Relative amplitude of a triangular cross-section, apex dorsal."""


@dataclass(frozen=True, eq=False)
class CordTables(_Group):
    """Spinal cord; `center` is the dorsal offset from the centerline."""

    a: Float
    b: Float
    center: Float


@dataclass(frozen=True, eq=False)
class ArchTables(_Group):
    """Posterior elements and sacrum; windows are signed arc distances, negative inside."""

    lamina: Float
    pedicle: Float
    spinous: Float
    spinous_length: Float
    spinous_shear: Float
    """Caudal inclination of the spinous process."""
    sacral: Float
    """0 above the sacrum, 1 inside."""
    cut: Float
    """1 where laminae and spinous process are removed."""


@dataclass(frozen=True, eq=False)
class RootTables(_Group):
    """Nerve root nearest to each position: exit, direction and visible sleeve."""

    level: Float
    """Index of the level above its exit foramen."""
    offset: Float
    """Distance caudal to its exit."""
    sine: Float
    cosine: Float
    """Of the angle to the canal."""
    slope: Float
    """Dorsal component of the direction relative to the lateral one."""
    sleeve_length: Float
    sleeve_radius: Float
    """Of the right and left sleeve, shape (2, n)."""


@dataclass(frozen=True, eq=False)
class Tables:
    """All tables, millimeters if not stated otherwise."""

    column: ColumnTables
    canal: CanalTables
    sac: SacTables
    cord: CordTables
    arches: ArchTables
    roots: RootTables
    muscle: Float
    """Depth of muscle posterior to the canal."""

    @property
    def arc_mm(self) -> FloatArray:
        """Arc positions of the tables."""
        return np.arange(len(self.muscle), dtype=np.float64) * TABLE_STEP_MM


@dataclass(frozen=True)
class Plan:
    """Overall properties of one subject, from which the tables are drawn."""

    sites: tuple[LevelSite, ...]
    stature: float
    canal_scale: float
    sac_scale: float
    conus_mm: float
    sac_tip_mm: float
    hiatus_mm: float
    sacrum_shift: float
    """Shift of the sacrum in levels, negative cranially, due to a transitional vertebra."""
    settling: Settling
    atlas: bool = False
    """Whether dens and posterior arch of C1 are modeled."""


def foramen_magnum_mm(sites: tuple[LevelSite, ...], atlas: bool) -> float:
    """Return the arc position of the foramen magnum."""
    return sites[0].top_mm - (ATLAS_FORAMEN_MM if atlas else FORAMEN_MAGNUM_MM)


class _Levels:
    """Arc positions of the tables relative to the levels."""

    def __init__(self, sites: tuple[LevelSite, ...], length_mm: float, atlas: bool) -> None:
        self.sites = sites
        self.arc = np.arange(int(length_mm / TABLE_STEP_MM) + 1, dtype=np.float64) * TABLE_STEP_MM
        self.discs = np.array([site.bottom_mm for site in sites])
        self.middles = np.array([site.middle_mm for site in sites])
        self.body = np.clip(np.searchsorted(self.discs, self.arc), 0, len(sites) - 1)
        edges = np.concatenate([[sites[0].top_mm], self.discs])
        self.nearest = np.abs(self.arc[:, None] - edges[None, :]).argmin(axis=1)
        self.disc_offset = self.arc - edges[self.nearest]
        self.pitch = np.array([site.pitch_mm for site in sites])[self.body]
        self.phase = np.clip((self.arc - edges[self.body]) / self.pitch, 0, 1)
        self.waist = np.sin(np.pi * self.phase) ** 2
        self.opening = np.clip((foramen_magnum_mm(sites, atlas) - self.arc) / 25, 0, 1)

    def at_discs(self, key: str) -> FloatArray:
        """Return a size of `LevelRow` interpolated between the discs."""
        sizes = [getattr(site.row, key) for site in self.sites]
        return np.asarray(np.interp(self.arc, self.discs, sizes))

    def at_bodies(self, key: str) -> FloatArray:
        """Return a size of `LevelRow` interpolated between the bodies and smoothed."""
        sizes = [getattr(site.row, key) for site in self.sites]
        return self.smoothed(np.interp(self.arc, self.middles, sizes), 4)

    def between(self, levels: Sequence[int], values: Sequence[float]) -> FloatArray:
        """Return values interpolated between the middles of some levels, by index."""
        return np.asarray(np.interp(self.arc, self.middles[list(levels)], values))

    def smoothed(self, values: FloatArray, sigma_mm: float) -> FloatArray:
        """Return a table smoothed with a Gaussian."""
        return np.asarray(gaussian_filter1d(values, sigma_mm / TABLE_STEP_MM))

    def noise(self, sigma_mm: float, rng: np.random.Generator) -> FloatArray:
        """Return smooth noise of unit variance."""
        return smooth_noise(len(self.arc), sigma_mm, rng, TABLE_STEP_MM)

    def window(self, start: float, stop: float) -> FloatArray:
        """Return the signed arc distance (negative inside) to a window of level phase."""
        middle, half = 0.5 * (start + stop), 0.5 * (stop - start)
        gap = np.abs(self.phase - middle)
        gap = np.minimum(gap, 1 - gap)
        return np.asarray((gap - half) * self.pitch)


def draw_tables(plan: Plan, length_mm: float, rng: np.random.Generator) -> Tables:
    """Draw the tables of one subject for a centerline of a length."""
    levels = _Levels(plan.sites, length_mm, plan.atlas)
    sac_a, sac_b, max_cord_area = _draw_sac_axes(levels, plan, rng)
    canal_a, canal_b, ventral = _draw_canal_axes(levels, plan, sac_a, sac_b, rng)
    # The sac fills the canal above the foramen magnum.
    above = levels.opening > 0
    sac_a = np.where(above, canal_a - 2, sac_a)
    sac_b = np.where(above, np.maximum(canal_b - 2, sac_b), sac_b)
    sac_center = np.where(above, 0.0, -canal_b + ventral + sac_b)
    sac_center = np.where(levels.arc > plan.sac_tip_mm, 0.0, sac_center)
    trefoil = 0.06 * levels.between([-8, -6], [0.0, 1.0]) * float(
        rng.uniform(0.2, 1.6)
    ) + 0.02 * levels.noise(40.0, rng)
    recess = _draw_recess(levels, plan, rng)
    cord_area = levels.at_discs("cord_area") * float(np.clip(rng.normal(1, 0.09), 0.8, 1.2))
    cord_area = np.minimum(cord_area, max_cord_area)
    muscle = levels.between([0, 8, 18, -6, -4, -1], [38, 30, 40, 44, 28, 14])
    muscle = gaussian_filter1d(muscle, 25 / TABLE_STEP_MM, mode="nearest") * plan.stature
    return Tables(
        column=_column(levels, plan),
        canal=CanalTables(canal_a, canal_b, recess),
        sac=SacTables(sac_a, sac_b, sac_center, trefoil),
        cord=_cord(levels, plan, cord_area, sac_b, sac_center),
        arches=_arches(levels, plan),
        roots=_draw_roots(levels, plan, rng),
        muscle=muscle.astype(np.float32),
    )


def _column(levels: _Levels, plan: Plan) -> ColumnTables:
    heights = np.array([0.0] + [site.row.disc_height for site in levels.sites])
    bridged = np.array([0.0] + [site.bridged for site in levels.sites])
    a = 0.5 * levels.at_bodies("body_width") * (1 - 0.09 * levels.waist)
    b = 0.5 * levels.at_bodies("body_depth") * (1 - 0.07 * levels.waist)
    if plan.atlas:
        dens = levels.arc < plan.sites[0].top_mm
        a, b = np.where(dens, _DENS_MM[0], a), np.where(dens, _DENS_MM[1], b)
    return ColumnTables(
        body=levels.body.astype(float),
        disc=levels.nearest - 1.0,
        body_offset=levels.arc - levels.middles[levels.body],
        disc_offset=levels.disc_offset,
        half_height=0.5 * heights[levels.nearest],
        bridge=bridged[levels.nearest] * b,
        phase=levels.phase,
        pitch=levels.pitch,
        waist=levels.waist,
        a=a,
        b=b,
    )


def _draw_sac_axes(
    levels: _Levels, plan: Plan, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw the half axes of the sac; return also the maximum area of the cord in it.

    The area at the discs is narrower than at mid-body and tapers to the caudal end.
    """
    arc, tip_mm = levels.arc, plan.sac_tip_mm
    slow = np.exp(0.07 * levels.noise(45.0, rng))
    area = levels.at_discs("sac_area") * plan.sac_scale * plan.stature**2 * slow
    narrowest = np.cos(2 * np.pi * levels.phase)  # 1 at the discs
    bulging = np.array(
        [
            {"desiccated": 0.10, "intermediate": 0.05}.get(site.disc_kind, 0.0)
            * max(rng.normal(1.0, 0.7), 0.0)
            for site in plan.sites
        ]
    )
    at_disc = np.exp(-0.5 * (levels.disc_offset / 4.0) ** 2)
    bulge_area = np.concatenate([[0.0], bulging])[levels.nearest] * at_disc
    area = area * (AREA_MEAN_FACTOR - AREA_MODULATION * narrowest) * (1 - bulge_area)
    if rng.random() < 0.38:  # pointed or ovoid end
        taper = np.clip((tip_mm - arc) / rng.uniform(35, 55), 0, 1) ** 0.9
    else:
        taper = np.sqrt(np.clip((tip_mm - arc) / rng.uniform(22, 35), 0, 1))
    floor_area = np.maximum(area, 45.0 * plan.sac_scale)  # minimum area for the last roots
    area = np.where(arc > tip_mm - 60, floor_area, area)
    area = levels.smoothed(area, 2) * taper**2
    ratios = [site.row.sac_tr / site.row.sac_ap for site in plan.sites]
    aspect = np.interp(arc, levels.discs, ratios)
    aspect = aspect * (1 - 0.06 * narrowest) * np.exp(0.05 * levels.noise(60.0, rng))
    max_cord_area = 0.62 * area / (taper**2 + 1e-6)
    return np.sqrt(area * aspect / np.pi), np.sqrt(area / aspect / np.pi), max_cord_area


def _draw_canal_axes(
    levels: _Levels, plan: Plan, sac_a: FloatArray, sac_b: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw the half axes of the canal, and the distance from its anterior wall to the sac.

    The canal contains the sac, ventral veins and dorsal fat.
    """
    ventral = 0.9 + 1.2 * levels.waist * rng.uniform(0.6, 1.2)
    lumbosacral = levels.between([-7, -6, -5], [0.0, 1.0, 1.0])
    ventral = ventral + lumbosacral * float(np.clip(rng.normal(3.5, 1.4), 1.0, 7.0))
    transverse = 0.5 * levels.at_discs("canal_tr") * plan.canal_scale * plan.stature
    depth = levels.at_discs("canal_ap") * plan.canal_scale * plan.stature
    ventral = np.minimum(ventral, np.maximum(0.45 * (depth - 2 * sac_b), 0.8))
    b = levels.smoothed(0.5 * np.maximum(depth, ventral + 2 * sac_b + 0.9), 4)
    a = levels.smoothed(np.maximum(transverse, sac_a + 1.4), 4)
    return a + 22 * levels.opening, b + 10 * levels.opening, ventral


def _draw_recess(levels: _Levels, plan: Plan, rng: np.random.Generator) -> FloatArray:
    fat_scale = float(np.clip(rng.lognormal(0, 0.25), 0.55, 1.7))
    window = np.exp(-0.5 * ((levels.disc_offset - 3.0) / (0.22 * levels.pitch)) ** 2)
    recess = levels.at_discs("dorsal_fat") * fat_scale * (0.25 + 0.75 * window)
    return np.asarray(recess * np.clip((plan.hiatus_mm - levels.arc) / 5, 0, 1))


def _cord(
    levels: _Levels, plan: Plan, area: FloatArray, sac_b: FloatArray, sac_center: FloatArray
) -> CordTables:
    """Return the cord, tapering at the conus."""
    taper = np.sqrt(np.clip((plan.conus_mm - levels.arc) / 32, 0, 1))
    aspect = levels.between([0, 4, 7], [1.35, 1.75, 1.15])
    b = np.sqrt(area / aspect / np.pi) * taper
    # The cord lies ventrally in kyphosis; above the conus it is dorsal or central.
    free = np.maximum(sac_b - b - plan.settling.cord_rim_mm, 0.0)
    conus_offset = plan.settling.cord_offset * np.cos(np.deg2rad(plan.settling.gravity_deg))
    offset = levels.between([1, 10, 17], [0.1, -0.75, conus_offset])
    return CordTables(np.sqrt(area * aspect / np.pi) * taper, b, sac_center + free * offset)


def _arches(levels: _Levels, plan: Plan) -> ArchTables:
    middles = sacral_landmarks(plan.sites, plan.sacrum_shift)[1:]
    sacral = np.interp(levels.arc, middles, [0.0, 1.0])
    lamina = np.where(sacral > 0.5, -4.0, levels.window(0.42, 0.95))
    length = levels.between([0, 6, 14, 19, -6, -4, -2], [16, 28, 28, 31, 24, 10, 3])
    spinous = levels.window(0.55, 0.98)
    if plan.atlas:
        half = _ATLAS_ARCH[1]
        lamina = _with_atlas(levels, lamina, 0.42, half)
        spinous = _with_atlas(levels, spinous, 0.55, half - 2)  # drawn 2 mm wider
        length = np.where(levels.arc < plan.sites[0].top_mm, _ATLAS_ARCH[2], length)
    return ArchTables(
        lamina=np.where(levels.arc > plan.hiatus_mm, 8.0, lamina),
        pedicle=levels.window(0.20, 0.50),
        spinous=spinous,
        spinous_length=length * plan.stature,
        spinous_shear=levels.between([5, 10, 16], [0.35, 0.95, 0.2]),
        sacral=sacral,
        cut=np.zeros_like(sacral),
    )


def _with_atlas(levels: _Levels, window: FloatArray, start: float, half_mm: float) -> FloatArray:
    """Return a window of posterior elements that starts at a phase of C2, with that of C1."""
    axis = levels.sites[0]
    first = np.abs(levels.arc - axis.top_mm + _ATLAS_ARCH[0]) - half_mm
    before = axis.at(start) - levels.arc
    return np.where(before > 0, np.minimum(first, before), window)


def sacral_landmarks(sites: tuple[LevelSite, ...], shift: float) -> tuple[float, float, float]:
    """Return the arc positions of the sacral top and the middles of S1 and S2.

    `shift` is a fraction of a level, negative cranially, due to a transitional vertebra.
    """
    tops = [site.top_mm for site in sites[-6:-3]]
    upper = [site.middle_mm for site in sites[-6:-3]]
    lower = [site.middle_mm for site in sites[-5:-2]]
    top, first, second = (float(np.interp(shift, [-1, 0, 1], x)) for x in (tops, upper, lower))
    return top, first, second


def _draw_roots(levels: _Levels, plan: Plan, rng: np.random.Generator) -> RootTables:
    """Draw the roots by exit foramen; one arc window per level."""
    roots = []
    for site, below in zip(plan.sites, plan.sites[1:], strict=False):
        # The root that exits through the foramen at the disc below this vertebra.
        if site.name.startswith("C"):
            exit_mm, angle, length, radius, slope = site.bottom_mm - 3, 62.0, 5.0, 2.2, -0.55
        elif site.name.startswith("T"):
            rank = int(site.name[1:]) / 12
            exit_mm, angle = site.at(0.45), 72.0 - 18 * rank
            length, radius, slope = 4.5, 2.0, -0.15
        elif site.name.startswith("L"):
            rank = np.clip((int(site.name[1:]) - 1) / 4, 0, 1)
            exit_mm = site.at(0.22 - 0.14 * rank)
            angle, length, radius, slope = 46 - 18 * rank, 13 + 5 * rank, 2.7, -0.12
        else:
            depth = int(site.name[1:])
            exit_mm = site.at(-0.12 if depth == 1 else 0.0)
            angle, length, radius, slope = 19.0, 20.0 - 3 * depth, 2.3 - 0.2 * depth, -0.2
        if exit_mm > plan.sac_tip_mm - 2 or below.name == "S5":
            length, radius = 0.0, 0.0
        exit_mm += rng.normal(0, 1.0)
        angle += rng.normal(0, 3.0)
        roots.append((exit_mm, angle, length * plan.stature, radius, slope))
    exits, angles, lengths, radii, slopes = np.array(roots).T
    sleeve_lengths, sleeve_radii = np.empty((2, 2, len(exits)))
    for side in (1, 0):  # left, right
        sleeve_lengths[side] = lengths * np.clip(rng.lognormal(0, 0.22, len(exits)), 0.55, 1.7)
        sleeve_radii[side] = radii * np.clip(rng.normal(1, 0.14, len(exits)), 0.6, 1.5)
    nearest = np.clip(np.searchsorted(exits - 9.0, levels.arc) - 1, 0, len(exits) - 1)
    return RootTables(
        level=nearest.astype(float),
        offset=levels.arc - exits[nearest],
        sine=np.sin(np.deg2rad(angles))[nearest],
        cosine=np.cos(np.deg2rad(angles))[nearest],
        slope=slopes[nearest],
        sleeve_length=sleeve_lengths[:, nearest],
        sleeve_radius=sleeve_radii[:, nearest],
    )
