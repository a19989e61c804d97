"""Anatomy of one subject: sizes and curvature drawn from published distributions.

All quantities are functions of the arc length along the canal (millimeters, cranial to caudal) in
finely sampled tables, so that rendering requires only the canal coordinates of a voxel.
Sizes are adult means of both sexes on MR (cervical to sacral levels), canal and sac areas,
conus and dural tip positions, recumbent curvature and root angles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import segment_name, split_segment, vertebra_chain
from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.roots import ROOT_ROWS, Roots, Settling, draw_roots, draw_settling
from leakloc.validation.phantom.scenario import LumbosacralShape, Scenario
from leakloc.validation.phantom.shapes import smooth_noise

FloatTable = npt.NDArray[np.float32]

TABLE_STEP_MM: Final = 0.25
"""Step of the arc tables: a quarter of a voxel, so that no interpolation is needed."""

HEAD_MARGIN_MM: Final = 90.0
"""Length above the C2-C3 disc that is modeled (C2, C1, foramen magnum)."""

FORAMEN_MAGNUM_MM: Final = 8.0
"""Length from the top of C2 to the foramen magnum, the cranial end of the thecal sac."""

TAIL_MARGIN_MM: Final = 60.0
"""Length below S5 that is modeled (coccyx)."""

AREA_MEAN_FACTOR: Final = 1.30
"""Ratio of mean sac area of a level to its area at the disc, to match the CSF volumes:
whole spine 95 mL, T11-T12 to the caudal end of the sac about 50 mL."""

AREA_MODULATION: Final = 0.15
"""Amplitude of the variation of sac area between disc (narrow) and mid-body (wide)."""


@dataclass(frozen=True)
class LevelRow:
    """Mean adult sizes at one vertebra and the disc below it, in mm and mm²."""

    name: str
    pitch: float
    body_width: float
    body_depth: float
    disc_height: float
    canal_ap: float
    canal_tr: float
    sac_ap: float
    sac_tr: float
    sac_area: float
    cord_area: float
    dorsal_fat: float


_ROWS: Final = tuple(
    LevelRow(*row)
    for row in (
        ("C2", 21.0, 18, 15, 4.1, 18, 24, 12, 17, 165, 68, 0.8),
        ("C3", 18.5, 17, 15.5, 4.5, 15, 23, 11.5, 16, 145, 72, 0.8),
        ("C4", 18.5, 18, 15.5, 5.0, 14.5, 24, 11.2, 16, 138, 76, 0.8),
        ("C5", 16.5, 18.5, 16, 5.0, 14.5, 25, 11.2, 16, 134, 78, 0.8),
        ("C6", 15.5, 20, 17, 5.0, 14.5, 25.5, 11.3, 16, 135, 74, 0.8),
        ("C7", 17.0, 23, 18, 4.5, 15, 24.5, 11.8, 15.5, 140, 62, 0.8),
        ("T1", 21.5, 26, 18, 4.0, 15.5, 21, 12, 14, 135, 52, 3.0),
        ("T2", 23.0, 26, 19.5, 3.6, 15, 18.5, 12, 13.5, 130, 48, 5.0),
        ("T3", 23.0, 26, 21.5, 3.5, 15, 17.5, 12, 13.3, 125, 46, 5.0),
        ("T4", 24.5, 26, 23, 3.5, 15, 17, 12, 13, 123, 45, 5.0),
        ("T5", 25.5, 26.5, 24.5, 3.8, 15, 17, 12.2, 13, 125, 44, 4.5),
        ("T6", 25.5, 28, 26, 4.0, 15, 17.2, 12.2, 13.2, 127, 44, 4.5),
        ("T7", 26.5, 29.5, 27.5, 4.3, 15, 17.2, 12.3, 13.4, 130, 44, 4.5),
        ("T8", 27.0, 31, 28.5, 4.6, 15, 17.5, 12.5, 13.6, 133, 45, 4.5),
        ("T9", 26.5, 32.5, 29.5, 5.0, 15, 17.8, 12.8, 14, 140, 46, 4.2),
        ("T10", 29.0, 34, 30.5, 5.4, 15.5, 18.3, 13.3, 14.8, 155, 50, 4.2),
        ("T11", 31.5, 37, 31.5, 6.2, 16, 20, 14, 16, 175, 58, 4.1),
        ("T12", 31.5, 40, 32, 7.0, 17, 22, 14.8, 17, 195, 60, 4.0),
        ("L1", 33.5, 42, 33, 8.7, 16.8, 23, 15, 17.5, 200, 52, 4.5),
        ("L2", 35.5, 43.5, 34, 9.8, 16.3, 23.5, 14.5, 17.5, 190, 42, 5.0),
        ("L3", 36.0, 45, 34.5, 11.0, 15.8, 24, 13.8, 17.3, 175, 40, 6.0),
        ("L4", 35.5, 47, 35, 12.0, 16, 25, 13.3, 17, 165, 40, 6.7),
        ("L5", 32.5, 49, 35.7, 11.5, 15.6, 28.2, 11.5, 15, 130, 40, 5.0),
        ("S1", 30.0, 50, 31, 3.0, 14, 30, 9.5, 12, 85, 40, 5.0),
        ("S2", 25.0, 40, 22, 2.0, 11, 24, 7.5, 9, 52, 40, 3.5),
        ("S3", 20.0, 32, 16, 1.5, 8, 19, 6, 7, 33, 40, 2.5),
        ("S4", 17.0, 26, 12, 1.5, 6, 15, 5, 6, 24, 40, 2.0),
        ("S5", 15.0, 20, 9, 1.5, 5.5, 12, 4, 5, 16, 40, 1.5),
    )
)
"""Mean adult sizes; `pitch` is the canal length from the disc above to the disc below."""

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

_BRIDGE_FRACTION: Final = (0.25, 0.5)
"""Range of the anteroposterior disc fraction of a sacralized vertebra bridged by bone."""


@dataclass(frozen=True)
class LevelSite:
    """Position of one vertebra and the disc below it along the canal."""

    name: str
    row: LevelRow
    top_mm: float
    """Arc position of the disc above (for C2: of its cranial end)."""
    bottom_mm: float
    """Arc position of the disc below."""
    disc_kind: str
    """``"healthy"``, ``"intermediate"``, ``"desiccated"``, ``"rudimentary"`` or ``"none"``."""
    bridged: float = 0.0
    """Fraction of the depth of that disc bridged by bone, from the rim inward."""

    @property
    def pitch_mm(self) -> float:
        """Length of the level along the canal."""
        return self.bottom_mm - self.top_mm

    @property
    def middle_mm(self) -> float:
        """Arc position of the middle of the vertebral body."""
        return 0.5 * (self.top_mm + self.bottom_mm)

    def at(self, fraction: float) -> float:
        """Return the arc position at a fraction of the level, 0 at its upper disc."""
        return self.top_mm + fraction * self.pitch_mm


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Anatomy of a spine drawn from the distributions.

    Parameters
    ----------
    centerline : Centerline
        Centerline of the bony canal, from above C1 to below the coccyx, LPS millimeters.
    sites : tuple of LevelSite
        C2 to S5, cranial to caudal.
    tables : dict
        float32 tables over arc length, step `TABLE_STEP_MM`, for the whole centerline.
    """

    scenario: Scenario
    centerline: Centerline
    sites: tuple[LevelSite, ...]
    tables: dict[str, FloatTable]
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
        return self.sites[0].top_mm - FORAMEN_MAGNUM_MM

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

    def index(self, arc_mm: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Return the table indices of arc positions."""
        last = len(self.tables["canal_a"]) - 1
        rows = np.clip(np.rint(arc_mm * (1 / TABLE_STEP_MM)), 0, last)
        return np.asarray(rows, dtype=np.int32)

    def value(self, table: str, arc_mm: float) -> float:
        """Return the value of a table at an arc position."""
        row = round(arc_mm / TABLE_STEP_MM)
        values = self.tables[table]
        return float(values[min(max(row, 0), len(values) - 1)])


def lumbar_rows(count: int) -> tuple[LevelRow, ...]:
    """Return the size rows of a spine with `count` lumbar vertebrae, C2 to S5.

    If not five, sizes are interpolated so that the first and last lumbar vertebrae have the
    sizes of L1 and L5.
    """
    by_name = {row.name: row for row in _ROWS}
    five = [by_name[f"L{n}"] for n in range(1, 6)]
    rows = []
    for name in vertebra_chain(count)[1:]:
        if not name.startswith("L"):
            rows.append(by_name[name])
            continue
        where = (int(name[1:]) - 1) / (count - 1) * 4
        low = min(int(where), 3)
        share = where - low
        rows.append(replace(_blended(five[low], five[low + 1], share), name=name))
    return tuple(rows)


def transitional_rows(
    rows: tuple[LevelRow, ...], shape: LumbosacralShape, degree: float
) -> tuple[LevelRow, ...]:
    """Return rows with a lumbosacral transition, blended toward neighboring vertebrae.

    Parameters
    ----------
    rows : tuple of LevelRow
        C2 to S5.
    shape : str
    degree : float
        At 0 rows are unchanged; at 1 a sacralized L5 has the sizes of S1, a lumbarized S1 those
        of L5. The adjacent vertebrae change by half of the degree.
    """
    if shape == "regular":
        return rows
    s1 = next(n for n, row in enumerate(rows) if row.name == "S1")
    changed = s1 - 1 if shape == "sacralised" else s1
    towards = 1 if shape == "sacralised" else -1
    drawn = list(rows)
    for n, share in ((changed - 1, 0.5 * degree), (changed, degree), (changed + 1, 0.5 * degree)):
        drawn[n] = _blended(rows[n], rows[n + towards], share)
    if shape == "sacralised":  # the remaining disc is thin even at a low degree
        rest = rows[s1].disc_height + 0.4 * (1 - degree) * rows[changed].disc_height
        drawn[changed] = replace(drawn[changed], disc_height=rest)
        drawn[s1] = replace(drawn[s1], disc_height=rows[s1].disc_height)
    else:
        drawn[s1 + 1] = replace(drawn[s1 + 1], disc_height=rows[s1 + 1].disc_height)
    return tuple(drawn)


def _blended(row: LevelRow, other: LevelRow, share: float) -> LevelRow:
    figures = [
        (1 - share) * getattr(row, key) + share * getattr(other, key)
        for key in LevelRow.__dataclass_fields__
        if key != "name"
    ]
    return LevelRow(row.name, *figures)


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
    sites = _draw_sites(rows, stature, shape, rng)
    centerline = _draw_curve(sites, scenario, shape, degree, rng)
    canal_scale = float(np.clip(rng.normal(1.0, 0.07), 0.86, 1.16))
    sac_scale = float(np.clip(rng.normal(1.0, 0.17), 0.68, 1.38))
    conus = _draw_place(_CONUS, sites, rng)
    tip = _draw_place(_DURAL_TIP, sites, rng)
    hiatus = _draw_place(_HIATUS_APEX, sites, rng)
    hiatus = max(hiatus, tip + 12.0)
    shift = {"sacralised": -degree, "lumbarised": degree}.get(shape, 0.0)
    settling = draw_settling(rng.spawn(1)[0])
    tables = _draw_tables(
        sites, centerline, stature, canal_scale, sac_scale, conus, tip, hiatus, shift, settling, rng
    )
    arc = np.arange(len(tables["canal_a"]), dtype=np.float64) * TABLE_STEP_MM
    return Anatomy(
        scenario=scenario,
        centerline=centerline,
        sites=sites,
        tables=tables,
        lumbar_count=count,
        lumbosacral=shape,
        sacrum_top_mm=_places_from_below(sites, shift)[0],
        conus_mm=conus,
        sac_tip_mm=tip,
        hiatus_mm=hiatus,
        roots=draw_roots(arc[::ROOT_ROWS], sites, conus, tip, settling, rng),
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


def _draw_place(
    places: tuple[tuple[str, float, float], ...],
    sites: tuple[LevelSite, ...],
    rng: np.random.Generator,
) -> float:
    weights = np.array([weight for _, _, weight in places])
    name, fraction, _ = places[int(rng.choice(len(places), p=weights / weights.sum()))]
    site = next(site for site in sites if site.name == name)
    return site.at(float(np.clip(fraction + rng.normal(0, 0.05), 0.02, 1.1)))


def _draw_sites(
    rows: tuple[LevelRow, ...],
    stature: float,
    shape: LumbosacralShape,
    rng: np.random.Generator,
) -> tuple[LevelSite, ...]:
    sites: list[LevelSite] = []
    wear = rng.beta(1.6, 2.2)  # disc degeneration of the subject
    top = HEAD_MARGIN_MM - rows[0].pitch * stature
    last_lumbar = next(a.name for a, b in pairwise(rows) if b.name == "S1")
    for row in rows:
        pitch = row.pitch * stature * float(np.clip(rng.normal(1.0, 0.035), 0.9, 1.1))
        fusing = row.name == last_lumbar and shape == "sacralised"
        mobile = row.name == "S1" and shape == "lumbarised"
        if fusing or (row.name.startswith("S") and not mobile):
            kind = "none" if row.name == "S5" else "rudimentary"
        else:
            # The two lowest discs degenerate first.
            chance = wear + 0.25 * row.name.startswith("L") * (row.name[1:] in ("4", "5", "6"))
            draw = rng.random()
            kind = (
                "desiccated" if draw < 0.5 * chance
                else "intermediate" if draw < chance else "healthy"
            )  # fmt: skip
        lost = {"desiccated": 0.72, "intermediate": 0.9}.get(kind, 1.0)
        height = row.disc_height * stature * lost * float(np.clip(rng.normal(1, 0.12), 0.7, 1.3))
        body = stature * float(np.clip(rng.normal(1.0, 0.03), 0.92, 1.08))
        figures = {
            "disc_height": min(height, 0.42 * pitch),
            "body_width": row.body_width * body,
            "body_depth": row.body_depth * body,
        }
        drawn = LevelRow(
            row.name,
            *(
                figures.get(key, getattr(row, key))
                for key in LevelRow.__dataclass_fields__
                if key != "name"
            ),
        )
        bridged = float(rng.uniform(*_BRIDGE_FRACTION)) if fusing else 0.0
        sites.append(LevelSite(row.name, drawn, top, top + pitch, kind, bridged))
        top += pitch
    return tuple(sites)


def _draw_curve(
    sites: tuple[LevelSite, ...],
    scenario: Scenario,
    shape: LumbosacralShape,
    degree: float,
    rng: np.random.Generator,
) -> Centerline:
    """Draw the centerline of the canal from angles at the discs, smoothed and integrated."""
    from scipy.ndimage import gaussian_filter1d

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
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(side * gaussian_filter1d(bow, 40))


def _draw_tables(
    sites: tuple[LevelSite, ...],
    centerline: Centerline,
    stature: float,
    canal_scale: float,
    sac_scale: float,
    conus_mm: float,
    tip_mm: float,
    hiatus_mm: float,
    sacrum_shift: float,
    settling: Settling,
    rng: np.random.Generator,
) -> dict[str, FloatTable]:
    from scipy.ndimage import gaussian_filter1d

    n = int(centerline.length_mm / TABLE_STEP_MM) + 1
    arc = np.arange(n, dtype=np.float64) * TABLE_STEP_MM
    discs = np.array([site.bottom_mm for site in sites])
    middles = np.array([site.middle_mm for site in sites])
    tables: dict[str, FloatArray] = {}

    def at_discs(key: str) -> FloatArray:
        return np.asarray(np.interp(arc, discs, [getattr(site.row, key) for site in sites]))

    def at_bodies(key: str) -> FloatArray:
        figures = np.interp(arc, middles, [getattr(site.row, key) for site in sites])
        return np.asarray(gaussian_filter1d(figures, 4 / TABLE_STEP_MM))

    # Offsets from the nearest disc and mid-body, and their index.
    body = np.clip(np.searchsorted(discs, arc), 0, len(sites) - 1)
    edges = np.concatenate([[sites[0].top_mm], discs])
    nearest = np.abs(arc[:, None] - edges[None, :]).argmin(axis=1)
    disc_off = arc - edges[nearest]
    heights = np.array([0.0] + [site.row.disc_height for site in sites])
    pitches = np.array([site.pitch_mm for site in sites])
    phase = np.clip((arc - np.concatenate([[sites[0].top_mm], discs])[body]) / pitches[body], 0, 1)
    tables["body"] = body.astype(float)
    tables["disc"] = nearest.astype(float) - 1.0
    tables["disc_off"] = disc_off
    tables["disc_half"] = 0.5 * heights[nearest]
    bridged = np.array([0.0] + [site.bridged for site in sites])
    tables["phase"] = phase
    tables["pitch"] = pitches[body]
    tables["body_off"] = arc - middles[body]

    width, depth = at_bodies("body_width"), at_bodies("body_depth")
    waist = np.sin(np.pi * phase) ** 2
    tables["body_a"] = 0.5 * width * (1 - 0.09 * waist)
    tables["body_b"] = 0.5 * depth * (1 - 0.07 * waist)
    tables["waist"] = waist
    tables["disc_inset"] = bridged[nearest] * tables["body_b"]

    # Sac: area at the disc, wider at mid-body, tapering to its caudal end.
    slow = np.exp(0.07 * smooth_noise(n, 45.0, rng, TABLE_STEP_MM))
    area = at_discs("sac_area") * sac_scale * stature**2 * slow
    narrowest = np.cos(2 * np.pi * phase)  # 1 at the discs
    bulging = np.array(
        [
            {"desiccated": 0.10, "intermediate": 0.05}.get(site.disc_kind, 0.0)
            * max(rng.normal(1.0, 0.7), 0.0)
            for site in sites
        ]
    )
    at_disc = np.exp(-0.5 * (disc_off / 4.0) ** 2)
    bulge_area = np.concatenate([[0.0], bulging])[nearest] * at_disc
    area = area * (AREA_MEAN_FACTOR - AREA_MODULATION * narrowest) * (1 - bulge_area)
    if rng.random() < 0.38:  # pointed or ovoid end
        taper = np.clip((tip_mm - arc) / rng.uniform(35, 55), 0, 1) ** 0.9
    else:
        taper = np.sqrt(np.clip((tip_mm - arc) / rng.uniform(22, 35), 0, 1))
    floor_area = np.maximum(area, 45.0 * sac_scale)  # minimum area for the last roots
    area = np.where(arc > tip_mm - 60, floor_area, area)
    area = gaussian_filter1d(area, 2 / TABLE_STEP_MM) * taper**2
    aspect = np.interp(arc, discs, [site.row.sac_tr / site.row.sac_ap for site in sites])
    aspect = (
        aspect * (1 - 0.06 * narrowest) * np.exp(0.05 * smooth_noise(n, 60.0, rng, TABLE_STEP_MM))
    )
    sac_a = np.sqrt(area * aspect / np.pi)
    sac_b = np.sqrt(area / aspect / np.pi)

    # Canal: contains the sac, ventral veins and dorsal fat.
    front = 0.9 + 1.2 * waist * rng.uniform(0.6, 1.2)
    lumbosacral = np.interp(
        arc, [sites[-7].middle_mm, sites[-6].middle_mm, sites[-5].middle_mm], [0.0, 1.0, 1.0]
    )
    front = front + lumbosacral * float(np.clip(rng.normal(3.5, 1.4), 1.0, 7.0))
    canal_a = np.maximum(0.5 * at_discs("canal_tr") * canal_scale * stature, sac_a + 1.4)
    sacral = np.interp(arc, _places_from_below(sites, sacrum_shift)[1:], [0.0, 1.0])
    canal_ap = at_discs("canal_ap") * canal_scale * stature
    front = np.minimum(front, np.maximum(0.45 * (canal_ap - 2 * sac_b), 0.8))
    canal_b = 0.5 * np.maximum(canal_ap, front + 2 * sac_b + 0.9)
    canal_b = gaussian_filter1d(canal_b, 4 / TABLE_STEP_MM)
    canal_a = gaussian_filter1d(canal_a, 4 / TABLE_STEP_MM)
    opening = np.clip((sites[0].top_mm - FORAMEN_MAGNUM_MM - arc) / 25, 0, 1)
    canal_a, canal_b = canal_a + 22 * opening, canal_b + 10 * opening
    sac_a, sac_b = (
        np.where(opening > 0, canal_a - 2, sac_a),
        np.where(opening > 0, np.maximum(canal_b - 2, sac_b), sac_b),
    )
    tables["canal_a"], tables["canal_b"] = canal_a, canal_b
    tables["sac_a"], tables["sac_b"] = sac_a, sac_b
    tables["sac_c"] = np.where(opening > 0, 0.0, -canal_b + front + sac_b)
    tables["sac_c"] = np.where(arc > tip_mm, 0.0, tables["sac_c"])
    tables["sac_trefoil"] = 0.06 * np.interp(
        arc, [sites[-8].middle_mm, sites[-6].middle_mm], [0.0, 1.0]
    ) * float(rng.uniform(0.2, 1.6)) + 0.02 * smooth_noise(n, 40.0, rng, TABLE_STEP_MM)
    fat_scale = float(np.clip(rng.lognormal(0, 0.25), 0.55, 1.7))
    recess_window = np.exp(-0.5 * ((disc_off - 3.0) / (0.22 * pitches[body])) ** 2)
    tables["recess"] = at_discs("dorsal_fat") * fat_scale * (0.25 + 0.75 * recess_window)
    tables["recess"] *= np.clip((hiatus_mm - arc) / 5, 0, 1)

    # Cord, tapering at the conus.
    cord_area = at_discs("cord_area") * float(np.clip(rng.normal(1, 0.09), 0.8, 1.2))
    cord_area = np.minimum(cord_area, 0.62 * area / (taper**2 + 1e-6))
    conus = np.sqrt(np.clip((conus_mm - arc) / 32, 0, 1))
    cord_aspect = np.interp(
        arc, [sites[0].middle_mm, sites[4].middle_mm, sites[7].middle_mm], [1.35, 1.75, 1.15]
    )
    tables["cord_a"] = np.sqrt(cord_area * cord_aspect / np.pi) * conus
    tables["cord_b"] = np.sqrt(cord_area / cord_aspect / np.pi) * conus
    # The cord lies ventrally in kyphosis; above the conus it is dorsal or central.
    free = np.maximum(sac_b - tables["cord_b"] - settling.cord_rim_mm, 0.0)
    conus_hug = settling.cord_hug * np.cos(np.deg2rad(settling.gravity_deg))
    hug = np.interp(
        arc, [sites[1].middle_mm, sites[10].middle_mm, sites[17].middle_mm], [0.1, -0.75, conus_hug]
    )
    tables["cord_c"] = tables["sac_c"] + free * hug

    # Posterior elements: windows in the phase of the level (signed distance in mm).
    tables["lamina"] = _window(phase, 0.42, 0.95, pitches[body])
    tables["pedicle"] = _window(phase, 0.20, 0.50, pitches[body])
    tables["spinous"] = _window(phase, 0.55, 0.98, pitches[body])
    tables["lamina"] = np.where(sacral > 0.5, -4.0, tables["lamina"])
    tables["lamina"] = np.where(arc > hiatus_mm, 8.0, tables["lamina"])
    tables["sacral"] = sacral
    spinous_len = np.interp(
        arc,
        [sites[0].middle_mm, sites[6].middle_mm, sites[14].middle_mm, sites[19].middle_mm,
         sites[-6].middle_mm, sites[-4].middle_mm, sites[-2].middle_mm],
        [16, 28, 28, 31, 24, 10, 3],
    )  # fmt: skip
    tables["spinous_len"] = spinous_len * stature
    tables["spinous_shear"] = np.interp(
        arc, [sites[5].middle_mm, sites[10].middle_mm, sites[16].middle_mm], [0.35, 0.95, 0.2]
    )

    # Nerve roots: origin, angle from the canal axis, visible sleeve.
    tables |= _root_tables(arc, sites, tip_mm, stature, rng)

    # Depth of the skin and of muscle posterior to the canal.
    muscle = np.interp(
        arc,
        [sites[0].middle_mm, sites[8].middle_mm, sites[18].middle_mm, sites[-6].middle_mm,
         sites[-4].middle_mm, sites[-1].middle_mm],
        [38, 30, 40, 44, 28, 14],
    )  # fmt: skip
    tables["muscle"] = gaussian_filter1d(muscle, 25 / TABLE_STEP_MM, mode="nearest") * stature
    return {key: np.asarray(value, dtype=np.float32) for key, value in tables.items()}


def _places_from_below(sites: tuple[LevelSite, ...], shift: float) -> tuple[float, float, float]:
    """Return the arc positions of the sacral top and the middles of S1 and S2.

    `shift` is a fraction of a level, negative cranially, due to a transitional vertebra.
    """
    tops = [site.top_mm for site in sites[-6:-3]]
    upper = [site.middle_mm for site in sites[-6:-3]]
    lower = [site.middle_mm for site in sites[-5:-2]]
    top, first, second = (float(np.interp(shift, [-1, 0, 1], x)) for x in (tops, upper, lower))
    return top, first, second


def _window(phase: FloatArray, start: float, stop: float, pitch: FloatArray) -> FloatArray:
    """Return the signed arc distance (negative inside) to a window of level phase."""
    middle, half = 0.5 * (start + stop), 0.5 * (stop - start)
    gap = np.abs(phase - middle)
    gap = np.minimum(gap, 1 - gap)
    return np.asarray((gap - half) * pitch)


def _root_tables(
    arc: FloatArray,
    sites: tuple[LevelSite, ...],
    tip_mm: float,
    stature: float,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    """Return the tables of nerve roots by exit foramen; one arc window per level."""
    origins, angles, lengths, radii, slopes = [], [], [], [], []
    for number, site in enumerate(sites[:-1]):
        # The root that exits through the foramen at the disc below this vertebra.
        below = sites[number + 1].name
        if site.name.startswith("C"):
            origin, angle, length, radius, slope = site.bottom_mm - 3, 62.0, 5.0, 2.2, -0.55
        elif site.name.startswith("T"):
            share = int(site.name[1:]) / 12
            origin, angle = site.at(0.45), 72.0 - 18 * share
            length, radius, slope = 4.5, 2.0, -0.15
        elif site.name.startswith("L"):
            share = np.clip((int(site.name[1:]) - 1) / 4, 0, 1)
            origin = site.at(0.22 - 0.14 * share)
            angle, length, radius, slope = 46 - 18 * share, 13 + 5 * share, 2.7, -0.12
        else:
            depth = int(site.name[1:])
            origin = site.at(-0.12 if depth == 1 else 0.0)
            angle, length, radius, slope = 19.0, 20.0 - 3 * depth, 2.3 - 0.2 * depth, -0.2
        if origin > tip_mm - 2 or below == "S5":
            length, radius = 0.0, 0.0
        origins.append(origin + rng.normal(0, 1.0))
        angles.append(angle + rng.normal(0, 3.0))
        lengths.append(length * stature)
        radii.append(radius)
        slopes.append(slope)
    starts = np.array(origins)
    which = np.clip(np.searchsorted(starts - 9.0, arc) - 1, 0, len(starts) - 1)
    tables = {
        "root": which.astype(float),
        "root_off": arc - starts[which],
        "root_sin": np.sin(np.deg2rad(np.array(angles)))[which],
        "root_cos": np.cos(np.deg2rad(np.array(angles)))[which],
        "root_slope": np.array(slopes)[which],
    }
    for side in ("left", "right"):
        long = np.array(lengths) * np.clip(rng.lognormal(0, 0.22, len(lengths)), 0.55, 1.7)
        wide = np.array(radii) * np.clip(rng.normal(1, 0.14, len(radii)), 0.6, 1.5)
        tables[f"sleeve_length_{side}"] = long[which]
        tables[f"sleeve_radius_{side}"] = wide[which]
    return tables
