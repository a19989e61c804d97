"""Anatomy of one subject: sizes and curvature drawn from published distributions.

Sizes are adult means of both sexes on MR (cervical to sacral levels), canal and sac areas,
conus and dural tip positions, recumbent curvature and root angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import segment_name, split_segment
from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.levels import (
    LevelSite,
    draw_sites,
    lumbar_rows,
    transitional_rows,
)
from leakloc.validation.phantom.roots import ROOT_ROWS, Roots, draw_roots, draw_settling
from leakloc.validation.phantom.scenario import LumbosacralShape, Scenario
from leakloc.validation.phantom.shapes import Float
from leakloc.validation.phantom.tables import (
    TABLE_STEP_MM,
    Plan,
    Tables,
    draw_tables,
    foramen_magnum_mm,
    sacral_landmarks,
)

TAIL_MARGIN_MM: Final = 60.0
"""Length below S5 that is modeled (coccyx)."""

_LUMBAR_ANGLES_DEG: Final = {"L1": 2.0, "L2": 4.0, "L3": 7.0, "L4": 12.0, "L5": 16.0}
"""Recumbent lordosis at the disc below each lumbar vertebra."""

_CONUS: Final = (
    ("T12", 0.5, 0.03),
    ("T12", 0.85, 0.06),
    ("T12", 1.0, 0.10),
    ("L1", 0.15, 0.17),
    ("L1", 0.5, 0.22),
    ("L1", 0.8, 0.20),
    ("L1", 1.0, 0.13),
    ("L2", 0.15, 0.06),
    ("L2", 0.5, 0.03),
)
"""Vertebra, fraction of its pitch from above, probability of the conus tip there."""

_DURAL_TIP: Final = (
    ("S1", 0.15, 0.015),
    ("S1", 0.5, 0.035),
    ("S1", 0.85, 0.07),
    ("S1", 1.0, 0.10),
    ("S2", 0.2, 0.25),
    ("S2", 0.5, 0.24),
    ("S2", 0.8, 0.17),
    ("S2", 1.0, 0.06),
    ("S3", 0.2, 0.04),
    ("S3", 0.5, 0.02),
)
"""Vertebra, fraction of its pitch from above, probability of the caudal end of the sac there."""

_HIATUS_APEX: Final = (("S3", 0.8, 0.15), ("S4", 0.5, 0.68), ("S5", 0.3, 0.17))
"""Vertebra, fraction of its pitch from above, probability of the sacral hiatus' apex there."""

_TRANSITION: Final = (0.4, 0.85)
"""Range of the degree of transition of a vertebra toward its neighbor across the junction: from
intermediate (Castellvi II, O'Driscoll 3) to nearly complete (Castellvi III, O'Driscoll 4)."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Anatomy of a spine drawn from the distributions.

    Parameters
    ----------
    centerline : Centerline
        Centerline of the bony canal, from above C1 to below the coccyx, LPS millimeters.
    sites : tuple of LevelSite
        C2 to S5, cranial to caudal.
    tables : Tables
        Tables over arc length, step `TABLE_STEP_MM`, for the whole centerline.
    """

    scenario: Scenario
    centerline: Centerline
    sites: tuple[LevelSite, ...]
    tables: Tables
    lumbar_count: int
    lumbosacral: LumbosacralShape
    sacrum_top_mm: float
    """Arc position of the cranial end of the sacrum; may be within a transitional vertebra."""
    conus_mm: float
    sac_tip_mm: float
    hiatus_mm: float
    roots: Roots
    """Cauda equina."""
    stature: float
    """Body size relative to the mean."""
    field_t: float
    fat_depth_mm: float
    """Subcutaneous fat over the lumbar spine."""

    @property
    def foramen_magnum_mm(self) -> float:
        """Arc position of the cranial end of the thecal sac."""
        return foramen_magnum_mm(self.sites, self.scenario.atlas)

    def site(self, name: str) -> LevelSite:
        """Return the site of a vertebra."""
        return next(site for site in self.sites if site.name == name)

    def disc_mm(self, segment: str) -> float:
        """Return the arc position of the disc of a motion segment."""
        return self.site(split_segment(segment)[0]).bottom_mm

    def segment_at(self, arc_mm: float) -> str:
        """Return the motion segment (mid-body to mid-body) at an arc position."""
        middles = [site.middle_mm for site in self.sites]
        index = int(np.clip(np.searchsorted(middles, arc_mm), 1, len(middles) - 1))
        return segment_name(self.sites[index - 1].name, self.sites[index].name)

    def rows(self, arc_mm: Float) -> npt.NDArray[np.int32]:
        """Return the table indices of arc positions."""
        rows = np.clip(np.rint(arc_mm * (1 / TABLE_STEP_MM)), 0, len(self.tables.muscle) - 1)
        return np.asarray(rows, dtype=np.int32)

    def value(self, table: Float, arc_mm: float) -> float:
        """Return the value of one of the tables at an arc position."""
        return float(table[min(max(round(arc_mm / TABLE_STEP_MM), 0), len(table) - 1)])


def draw_anatomy(scenario: Scenario, rng: np.random.Generator) -> Anatomy:
    """Draw the anatomy of one subject.

    Parameters
    ----------
    scenario : Scenario
    rng : numpy.random.Generator
        Random generator of all properties.
    """
    count = int(rng.choice(scenario.lumbar_counts))
    stature = float(np.clip(rng.normal(1.0, 0.055), 0.87, 1.13))
    shape, degree = _draw_transition(scenario, rng)
    rows = transitional_rows(lumbar_rows(count), shape, degree)
    own = rng.spawn(1)[0]
    sites = draw_sites(rows, stature, shape, rng, own.spawn(1)[0])
    centerline = _draw_curve(sites, scenario, shape, degree, rng)
    canal_scale = float(np.clip(rng.normal(1.0, 0.07), 0.86, 1.16))
    sac_scale = float(np.clip(rng.normal(1.0, 0.17), 0.68, 1.38))
    conus = _draw_position(_CONUS, sites, rng)
    tip = _draw_position(_DURAL_TIP, sites, rng)
    hiatus = _draw_position(_HIATUS_APEX, sites, rng)
    hiatus = max(hiatus, tip + 12.0)
    shift = {"sacralised": -degree, "lumbarised": degree}.get(shape, 0.0)
    settling = draw_settling(own)
    plan = Plan(
        sites, stature, canal_scale, sac_scale, conus, tip, hiatus, shift, settling, scenario.atlas
    )
    tables = draw_tables(plan, centerline.length_mm, rng)
    return Anatomy(
        scenario=scenario,
        centerline=centerline,
        sites=sites,
        tables=tables,
        lumbar_count=count,
        lumbosacral=shape,
        sacrum_top_mm=sacral_landmarks(sites, shift)[0],
        conus_mm=conus,
        sac_tip_mm=tip,
        hiatus_mm=hiatus,
        roots=draw_roots(tables.arc_mm[::ROOT_ROWS], sites, conus, tip, settling, rng),
        stature=stature,
        field_t=scenario.field_t or float(rng.choice([1.5, 3.0])),
        fat_depth_mm=float(np.clip(rng.lognormal(np.log(18), 0.4), 7, 45)),
    )


def _draw_transition(
    scenario: Scenario, rng: np.random.Generator
) -> tuple[LumbosacralShape, float]:
    """Draw shape and degree of the lumbosacral junction; a regular one uses no random number."""
    shapes = scenario.lumbosacral
    if shapes == ("regular",):
        return "regular", 0.0
    shape = shapes[int(rng.integers(len(shapes)))]
    return shape, float(rng.uniform(*_TRANSITION)) if shape != "regular" else 0.0


def _draw_position(
    distribution: tuple[tuple[str, float, float], ...],
    sites: tuple[LevelSite, ...],
    rng: np.random.Generator,
) -> float:
    weights = np.array([weight for _, _, weight in distribution])
    name, fraction, _ = distribution[int(rng.choice(len(distribution), p=weights / weights.sum()))]
    site = next(site for site in sites if site.name == name)
    return site.at(float(np.clip(fraction + rng.normal(0, 0.05), 0.02, 1.1)))


def _draw_curve(
    sites: tuple[LevelSite, ...],
    scenario: Scenario,
    shape: LumbosacralShape,
    degree: float,
    rng: np.random.Generator,
) -> Centerline:
    """Draw the centerline of the canal from angles at the discs, smoothed and integrated."""
    step = 0.5
    length = sites[-1].bottom_mm + TAIL_MARGIN_MM
    arc = np.arange(0.0, length + step, step)
    turn = np.zeros_like(arc)  # degrees per step; positive bends the canal posteriorly
    last_lumbar = max(n for n, site in enumerate(sites) if site.name.startswith("L"))
    names = [site.name for site in sites]
    lordosis = float(np.clip(rng.normal(1.0, 0.28), 0.35, 1.7))
    kyphosis = float(np.clip(rng.normal(33, 7), 18, 50))
    cervical = float(np.clip(rng.normal(12, 8), -6, 28))
    sacral = float(np.clip(rng.normal(42, 12), 18, 68))
    lumbar_total = sum(name.startswith("L") for name in names)
    for site in sites:
        at = int(site.bottom_mm / step)
        if site.name.startswith("C"):
            angle = cervical / 6
        elif site.name.startswith("T"):
            angle = 0.0 if site.name == "T12" else -kyphosis / 11
        elif site.name.startswith("L"):
            rank = round(1 + (int(site.name[1:]) - 1) / (lumbar_total - 1) * 4)
            angle = _LUMBAR_ANGLES_DEG[f"L{rank}"] * lordosis
            if shape == "sacralised" and rank == 5:
                angle = (1 - degree) * angle - degree * sacral / 4
        else:
            angle = -sacral / 4 if site.name != "S5" else -float(rng.uniform(10, 30))
            if shape == "lumbarised" and site.name == "S1":
                angle = (1 - degree) * angle + degree * _LUMBAR_ANGLES_DEG["L5"] * lordosis
        turn[at] += angle * float(np.clip(rng.normal(1.0, 0.12), 0.6, 1.4))
    slope = np.cumsum(gaussian_filter1d(turn, 11.0 / step))
    # In supine position the mid-lumbar canal is about horizontal; L4 slopes posteriorly.
    reference = sites[max(last_lumbar - 2, 0)].middle_mm
    if scenario.atlas:  # head and neck rest on a pillow: C4 is about horizontal instead
        reference = sites[2].middle_mm
    tilt = float(rng.normal(2.0, 4.0))
    slope = np.deg2rad(slope - np.interp(reference, arc, slope) + tilt)
    y = np.concatenate([[0.0], np.cumsum(np.sin(slope[:-1]) * step)])
    z = np.concatenate([[0.0], np.cumsum(-np.cos(slope[:-1]) * step)])
    x = _lateral_curve(arc, sites, scenario, rng)
    points = np.stack([x, y, z], axis=1)
    anchor = int(sites[last_lumbar - 2].middle_mm / step)
    offset = np.array([rng.normal(0, 6), rng.normal(35, 12), rng.normal(0, 15)])
    points += offset - points[anchor]
    return Centerline(points)


def _lateral_curve(
    arc: FloatArray, sites: tuple[LevelSite, ...], scenario: Scenario, rng: np.random.Generator
) -> FloatArray:
    """Draw scoliosis: a cosine curve of the thoracolumbar spine with a counter-curve above."""
    cobb = float(rng.uniform(*scenario.scoliosis_deg))
    apex_name = str(rng.choice(["T10", "T12", "L1", "L2", "L2", "L3"]))
    apex = next(site for site in sites if site.name == apex_name).middle_mm
    half = float(rng.uniform(85, 125))
    side = float(rng.choice([-1.0, 1.0]))
    # Slope +-cobb/2 at the inflections of A cos(pi u / (2 half)).
    amplitude = np.tan(np.deg2rad(cobb / 2)) * 2 * half / np.pi
    u = np.clip((arc - apex) / half, -3.0, 1.6)
    bow = amplitude * np.cos(0.5 * np.pi * u) * np.where(np.abs(u) < 1, 1.0, 0.45)
    return np.asarray(side * gaussian_filter1d(bow, 40))
