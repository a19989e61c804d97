"""Epidural fluid, its mimics, and postoperative changes, in canal coordinates."""

from __future__ import annotations

import itertools
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, zoom

from leakloc.anatomy.vocabulary import split_segment
from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.scenario import (
    CollectionSpec,
    MimicSpec,
    RetrospinalSpec,
    Scenario,
)
from leakloc.validation.phantom.shapes import Float, Noise3D, capsule, ellipse, ellipsoid
from leakloc.validation.phantom.tables import TABLE_STEP_MM, Tables
from leakloc.validation.phantom.tissues import TissueName

ANGLES: Final = 72
"""Number of columns of the thickness table of a layer: 5 degrees each."""

LEFT_DEG: Final = {"dorsal": 0.0, "left": 90.0, "ventral": 180.0, "right": -90.0}
"""Angle around the sac, from dorsal to the left of the patient."""

_SHOULDER: Final = 0.25
"""Fraction of diverticula cranial and lateral to the root; of lateral dural tears it was 24.5 %."""

_ROOT_MM: Final = 1.0
_BESIDE: Final = 0.7
"""Distance of the center of a diverticulum from the axis of the root: this length (two thirds of
the radius of a root) and this fraction of its radius; the root forms part of its wall."""

_OUTSIDE: Final = 0.8
"""Minimum distance of its center from the sac, relative to its radius."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Thin layer of fluid along the dura: thickness over arc (`TABLE_STEP_MM`) and angle."""

    thickness_mm: Float
    fat_lobules: tuple[tuple[float, float, float], ...] = ()
    """Fat lobules within the layer: arc, angle in degrees, radius."""


@dataclass(frozen=True, eq=False)
class Blob:
    """An ellipsoid with an irregular surface, in (arc, left, dorsal)."""

    center: FloatArray
    radii: tuple[float, float, float]
    noise: Noise3D
    unevenness_mm: float = 0.8

    def distance(self, arc: Float, left: Float, dorsal: Float) -> Float:
        """Return the signed distance in millimeters."""
        c = self.center.astype(np.float32)
        distance = ellipsoid(arc - c[0], left - c[1], dorsal - c[2], self.radii)
        near = np.abs(distance) < 4 * self.unevenness_mm
        distance[near] += self.unevenness_mm * self.noise(arc[near], left[near], dorsal[near])
        return distance

    @property
    def reach_mm(self) -> tuple[float, float]:
        """Arc range of the shape."""
        half = self.radii[0] + 4 * self.unevenness_mm
        return float(self.center[0] - half), float(self.center[0] + half)


@dataclass(frozen=True, eq=False)
class Tube:
    """A curved tube with an irregular wall, in (arc, left, dorsal)."""

    points: FloatArray
    radii: FloatArray
    noise: Noise3D
    unevenness_mm: float = 0.4

    def distance(self, arc: Float, left: Float, dorsal: Float) -> Float:
        """Return the signed distance in millimeters."""
        distance = np.full(arc.shape, 1e3, np.float32)
        for n in range(len(self.points) - 1):
            radii = (float(self.radii[n]), float(self.radii[n + 1]))
            part = capsule(arc, left, dorsal, self.points[n], self.points[n + 1], radii)
            np.minimum(distance, part, out=distance)
        near = np.abs(distance) < 4 * self.unevenness_mm + 1
        distance[near] += self.unevenness_mm * self.noise(arc[near], left[near], dorsal[near])
        return distance

    @property
    def reach_mm(self) -> tuple[float, float]:
        """Arc range of the shape."""
        margin = float(self.radii.max()) + 4 * self.unevenness_mm
        return float(self.points[:, 0].min() - margin), float(self.points[:, 0].max() + margin)


@dataclass(frozen=True)
class DuralGap:
    """A gap in the dura: an ellipse on its surface, of double length along the canal.

    Parameters
    ----------
    arc_mm, angle_deg : float
        Center: position along the canal, and angle around the sac from dorsal to the left.
    width_mm : float
    """

    arc_mm: float
    angle_deg: float
    width_mm: float

    def distance(self, arc: Float, left: Float, dorsal: Float) -> Float:
        """Return the signed distance along the dura; `dorsal` is relative to the sac's center."""
        turn = np.degrees(np.arctan2(left, dorsal)) - np.float32(self.angle_deg)
        turn = np.radians((turn + 180) % 360 - 180)
        half = np.full_like(arc, self.width_mm / 2)
        return ellipse(turn * np.hypot(left, dorsal), arc - np.float32(self.arc_mm), half, 2 * half)


@dataclass(frozen=True, eq=False)
class Fluid:
    """One fluid collection: a layer along the dura and other shapes, of one tissue."""

    tissue: TissueName
    layer: Layer | None = None
    shapes: tuple[Blob | Tube, ...] = ()
    spec: CollectionSpec | None = None
    """Specification of a true collection; None for mimics."""
    reach_mm: tuple[float, float] = (0.0, 0.0)
    root: tuple[str, Literal["left", "right"]] | None = None
    """Nerve root and side of a perineural cyst or diverticulum; None for other fluid."""
    gap: DuralGap | None = None


@dataclass(frozen=True)
class Screw:
    """A pedicle screw, in (arc, left, dorsal)."""

    start: tuple[float, float, float]
    stop: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Findings:
    """All findings in addition to the anatomy."""

    collections: tuple[Fluid, ...] = ()
    mimics: tuple[Fluid, ...] = ()
    scar: tuple[Blob, ...] = ()
    screws: tuple[Screw, ...] = ()
    retrospinal: Fluid | None = None
    facet_fluid_mm: dict[str, float] = field(default_factory=dict)
    """Width of the bright joint line by motion segment."""

    def screw_distance(self, arc: Float, left: Float, dorsal: Float) -> Float:
        """Return the distance to the nearest screw; large if there are none."""
        distance = np.full(arc.shape, 1e3, np.float32)
        for screw in self.screws:
            start, stop = np.array(screw.start), np.array(screw.stop)
            radii = (screw.radius_mm, screw.radius_mm)
            np.minimum(distance, capsule(arc, left, dorsal, start, stop, radii), out=distance)
        return distance


def draw_findings(
    scenario: Scenario, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[Anatomy, Findings]:
    """Draw the findings, and the anatomy modified by findings and surgery.

    Fluid that exceeds the epidural space compresses the sac.
    """
    anatomy = replace(anatomy, tables=deepcopy(anatomy.tables))  # modified below
    choices = [spec.levels for spec in scenario.collections]
    choices += [mimic.levels for mimic in scenario.mimics]
    chosen = [str(rng.choice(levels)) for levels in choices]
    own = rng.spawn(1)[0]
    scar: list[Blob] = []
    operated = bool(chosen) and (
        scenario.laminectomy or any(mimic.kind == "seroma" for mimic in scenario.mimics)
    )
    if operated and scenario.laminectomy:
        _remove_lamina(anatomy, chosen[0], rng)
    if operated:
        scar.append(_scar(anatomy, chosen[0], rng))
    if scenario.stenosis_area_mm2 is not None and chosen:
        _narrow(anatomy, chosen[0], scenario.stenosis_area_mm2, rng)
    collections, mimics = [], []
    facet_fluid = _facet_fluid(anatomy, rng)
    for spec, level in zip(scenario.collections, chosen, strict=False):
        if spec.kind == "periradicular":
            collections.append(_periradicular(spec, anatomy, level, rng))
        else:
            collections.append(_epidural(spec, anatomy, level, rng))
    for mimic, level in zip(scenario.mimics, chosen[len(collections) :], strict=True):
        if mimic.kind == "hematoma":
            spec = CollectionSpec((level,), "dorsal", "epidural", mimic.radius_mm, (0.6, 1.4))
            fluid = _epidural(spec, anatomy, level, rng)
            mimics.append(replace(fluid, tissue="hematoma", spec=None))
        else:
            mimics.append(_mimic(mimic, anatomy, level, rng))
        if mimic.kind == "facet_cyst":
            facet_fluid[level] = float(rng.uniform(1.5, 3.0))
    screws = _screws(anatomy, chosen[0], rng) if scenario.screws and chosen else ()
    retrospinal = None
    if scenario.retrospinal is not None:
        retrospinal = _retrospinal(scenario.retrospinal, anatomy, own)
    return anatomy, Findings(
        tuple(collections), tuple(mimics), tuple(scar), screws, retrospinal, facet_fluid
    )


def _retrospinal(spec: RetrospinalSpec, anatomy: Anatomy, rng: np.random.Generator) -> Fluid:
    """Draw fluid between the posterior arches of C1 and C2, in the midline or on one side."""
    axis, canal, sac = anatomy.sites[0], anatomy.tables.canal, anatomy.tables.sac
    arc = axis.top_mm + 2.0 + float(rng.normal(0, 0.7))
    height, width, depth = (
        float(rng.uniform(*limits))
        for limits in (spec.half_height_mm, spec.half_width_mm, spec.half_depth_mm)
    )
    side = float(rng.choice([-1.0, 0.0, 0.0, 1.0]))
    if side:
        width *= 0.7
    aside = side * float(rng.uniform(5.0, 8.0)) + float(rng.normal(0, 0.7))
    wall = anatomy.value(canal.b, arc)
    center = np.array([arc, aside, wall + 2.5 + 0.8 * depth])
    shapes: list[Blob | Tube] = [Blob(center, (height, width, depth), Noise3D(rng, 6.0), 0.5)]
    if rng.random() < 0.6:
        dura = anatomy.value(sac.center, arc) + anatomy.value(sac.b, arc)
        neck = np.array([[arc, 0.4 * aside, dura], center])
        shapes.append(Tube(neck, np.array([1.5, 2.0]), Noise3D(rng, 5.0), 0.3))
    if rng.random() < 0.4:  # into the nuchal soft tissue
        beyond = center + np.array([0.0, -0.4 * aside, depth + float(rng.uniform(2.0, 5.0))])
        radii = (0.7 * height, 0.5 * width, float(rng.uniform(3.0, 6.0)))
        shapes.append(Blob(beyond, radii, Noise3D(rng, 6.0), 0.5))
    low = min(shape.reach_mm[0] for shape in shapes)
    high = max(shape.reach_mm[1] for shape in shapes)
    return Fluid("epidural_csf", None, tuple(shapes), None, (low, high))


def _remove_lamina(anatomy: Anatomy, level: str, rng: np.random.Generator) -> None:
    tables, arc = anatomy.tables, anatomy.tables.arc_mm
    pitch = anatomy.site(split_segment(level)[0]).pitch_mm
    half = pitch * float(rng.uniform(0.45, 0.75))
    center = anatomy.disc_mm(level) - 0.05 * pitch
    cut = np.clip((half - np.abs(arc - center)) / 3.0, 0, 1).astype(np.float32)
    np.maximum(tables.arches.cut, cut, out=tables.arches.cut)
    widened = np.float32(rng.uniform(6.0, 9.0))
    np.maximum(tables.canal.recess, widened * cut, out=tables.canal.recess)


def _narrow(anatomy: Anatomy, level: str, area_mm2: float, rng: np.random.Generator) -> None:
    canal, sac, arc = anatomy.tables.canal, anatomy.tables.sac, anatomy.tables.arc_mm
    at = anatomy.disc_mm(level)
    now = np.pi * anatomy.value(sac.a, at) * anatomy.value(sac.b, at)
    shrink = np.sqrt(min(area_mm2 * float(rng.uniform(0.85, 1.15)) / now, 1.0))
    dip = np.exp(-0.5 * ((arc - at) / 5.5) ** 2)
    scale = (1 - (1 - shrink) * dip).astype(np.float32)
    old_b = sac.b.copy()
    for table in (sac.a, sac.b, canal.a):
        table *= scale
    # Bulging disc ventrally, thick ligament dorsally: narrowing from both sides.
    canal.b[:] -= (old_b - sac.b) * np.float32(0.9)
    canal.recess[:] *= scale**2


def _scar(anatomy: Anatomy, level: str, rng: np.random.Generator) -> Blob:
    arc = anatomy.disc_mm(level)
    depth = anatomy.value(anatomy.tables.canal.b, arc) + 18.0
    center = np.array([arc + rng.normal(0, 3), rng.normal(0, 2), depth])
    radii = (float(rng.uniform(22, 32)), float(rng.uniform(7, 12)), float(rng.uniform(18, 24)))
    return Blob(center, radii, Noise3D(rng, 8.0), 1.5)


def _facet_fluid(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, float]:
    """Draw the joint fluid that is common in lumbar facet joints."""
    names = [site.name for site in anatomy.sites]
    return {
        f"{upper}-{lower}": float(rng.uniform(0.4, 1.3))
        for upper, lower in itertools.pairwise(names)
        if upper.startswith("L") and rng.random() < 0.35
    }


def _epidural(
    spec: CollectionSpec, anatomy: Anatomy, level: str, rng: np.random.Generator
) -> Fluid:
    arc = anatomy.tables.arc_mm
    pitch = anatomy.site(split_segment(level)[0]).pitch_mm
    peak = anatomy.disc_mm(level) + float(rng.uniform(-0.12, 0.12)) * pitch
    top = peak - float(rng.uniform(*spec.cranial_levels)) * pitch
    bottom = peak + float(rng.uniform(*spec.caudal_levels)) * pitch
    bottom = min(bottom, anatomy.hiatus_mm - 12.0)
    max_mm = float(rng.uniform(*spec.thickness_mm))
    reach = np.where(arc < peak, peak - top, bottom - peak)
    u = np.clip(np.abs(arc - peak) / reach, 0, 1)
    if spec.position == "circumferential":
        envelope = (1 - u**4) ** 0.8
    elif max(spec.cranial_levels) > 2:
        envelope = 0.35 * (1 - u**6) + 0.65 * (1 - u**2) ** 1.2
    else:
        envelope = (1 - u**2) ** float(rng.uniform(0.9, 1.6))
    noise = _layer_noise(len(arc), rng)
    depth = 0.14 if spec.position == "circumferential" else 0.30
    window = _angular_window(spec, rng)
    thickness = max_mm * envelope[:, None] * window[None, :] * np.exp(depth * noise)
    thickness = np.minimum(thickness, 1.25 * max_mm)
    # Thinner layers are not collections.
    thickness = np.where(thickness < 0.35, 0.0, thickness)
    _compress_sac(anatomy.tables, thickness, spec)
    fat_lobules: list[tuple[float, float, float]] = []
    if spec.position in ("dorsal", "circumferential") and max_mm > 3:
        for site in anatomy.sites:
            if top < site.bottom_mm < bottom and rng.random() < 0.5:
                size = float(rng.uniform(0.2, 0.42)) * max_mm
                fat_lobules.append(
                    (site.bottom_mm + float(rng.normal(4, 3)), float(rng.normal(0, 12)), size)
                )
    shapes: list[Blob | Tube] = []
    if spec.pseudomeningocele_mm[1] > 0:
        shapes = _pool_and_tract(spec, anatomy, peak, max_mm, rng)
    low = min([top, *(shape.reach_mm[0] for shape in shapes)]) - 2
    high = max([bottom, *(shape.reach_mm[1] for shape in shapes)]) + 2
    layer = Layer(thickness.astype(np.float32), tuple(fat_lobules))
    gap = _dural_gap(spec, thickness, arc, rng.spawn(1)[0]) if spec.dural_gap_mm[1] > 0 else None
    return Fluid(spec.tissue, layer, tuple(shapes), spec, (low, high), gap=gap)


def _dural_gap(
    spec: CollectionSpec, thickness: FloatArray, arc: FloatArray, rng: np.random.Generator
) -> DuralGap:
    """Draw a gap where the layer has at least half of its maximum thickness."""
    thick = np.argwhere(thickness >= 0.5 * thickness.max())
    row, column = thick[int(rng.integers(len(thick)))]
    angle_deg = (float(column) + 0.5) * 360 / ANGLES - 180
    return DuralGap(float(arc[row]), angle_deg, float(rng.uniform(*spec.dural_gap_mm)))


def _layer_noise(n: int, rng: np.random.Generator) -> FloatArray:
    """Return smooth unit-variance noise over arc (10 mm) and angle (45 degrees)."""
    coarse = rng.normal(size=(max(n // 16, 4), ANGLES // 2))
    smooth = gaussian_filter(coarse, (1.3, 2.2), mode=("reflect", "wrap"))
    smooth /= smooth.std()
    fine = zoom(smooth, (n / smooth.shape[0], ANGLES / smooth.shape[1]), order=1, mode="nearest")
    return np.asarray(fine[:n, :ANGLES])


def _angular_window(spec: CollectionSpec, rng: np.random.Generator) -> FloatArray:
    angles = (np.arange(ANGLES) + 0.5) * 360 / ANGLES - 180
    if spec.position == "circumferential":
        return np.ones(ANGLES)
    center = LEFT_DEG[spec.position] + float(rng.normal(0, 8))
    away = np.abs((angles - center + 180) % 360 - 180)
    flat, end = float(rng.uniform(35, 60)), float(rng.uniform(80, 105))
    window = np.clip((end - away) / (end - flat), 0, 1)
    window = window * window * (3 - 2 * window)
    if spec.position == "ventral":  # the midline septum fixes the dura to the vertebrae
        window = window * (1 - 0.45 * np.exp(-0.5 * (away / 9) ** 2))
    return np.asarray(window)


def _compress_sac(tables: Tables, thickness: FloatArray, spec: CollectionSpec) -> None:
    """Compress the sac where the fluid is thicker than the epidural space."""

    def widest(angle_deg: float) -> FloatArray:
        column = int((angle_deg + 180) / 360 * ANGLES) % ANGLES
        around = [(column + step) % ANGLES for step in (-3, -2, -1, 0, 1, 2)]
        return np.asarray(thickness[:, around].mean(axis=1))

    canal, sac, cord = tables.canal, tables.sac, tables.cord
    a, b, center = (table.astype(float) for table in (sac.a, sac.b, sac.center))
    dorsal = np.maximum(widest(0) - (canal.b + canal.recess - center - b) + 0.3, 0)
    ventral = np.maximum(widest(180) - (center - b + canal.b) + 0.3, 0)
    lateral = np.maximum(np.maximum(widest(90), widest(-90)) - (canal.a - a) + 0.3, 0)
    x_dorsal, x_ventral, x_lateral = (
        gaussian_filter1d(push / 2, 3 / TABLE_STEP_MM) for push in (dorsal, ventral, lateral)
    )
    limit = 0.38 * b
    x_dorsal, x_ventral = np.minimum(x_dorsal, limit), np.minimum(x_ventral, limit)
    new_b = np.maximum(b - x_dorsal - x_ventral, 0.45 * b)
    new_a = np.maximum(a - x_lateral, 0.6 * a)
    # Under ventral or dorsal compression the sac widens slightly.
    free = np.maximum(canal.a - 0.8 - new_a, 0)
    new_a = new_a + np.minimum(0.25 * (b - new_b), free) * (spec.position != "circumferential")
    sac.a[:], sac.b[:], sac.center[:] = new_a, new_b, center - x_dorsal + x_ventral
    fit = np.minimum(1.0, (new_b - 0.8) / np.maximum(cord.b, 0.1))
    cord.b[:] *= np.clip(fit, 0.5, 1).astype(np.float32)
    cord.center[:] += (sac.center - center).astype(np.float32)


def _pool_and_tract(
    spec: CollectionSpec, anatomy: Anatomy, peak: float, max_mm: float, rng: np.random.Generator
) -> list[Blob | Tube]:
    radius = float(rng.uniform(*spec.pseudomeningocele_mm))
    tables = anatomy.tables
    canal = anatomy.value(tables.canal.b, peak)
    roof = canal + anatomy.value(tables.canal.recess, peak)
    skin = skin_depth_mm(anatomy, peak)
    radii = (
        radius * float(rng.uniform(1.1, 1.5)),
        radius * float(rng.uniform(0.8, 1.1)),
        radius * float(rng.uniform(0.6, 0.8)),
    )
    side = float(rng.normal(0, 3.5))
    depth = min(roof + radii[2] + float(rng.uniform(3, 8)), skin - anatomy.fat_depth_mm)
    center = np.array([peak + rng.normal(0, 3.0), side, depth])
    pool = Blob(center, radii, Noise3D(rng, 7.0), 0.11 * radius)
    below = np.array([peak, 0.3 * side, anatomy.value(tables.sac.center, peak) + 0.9 * canal])
    neck = Tube(np.array([below, center]), np.array([0.55, 0.85]) * max_mm, Noise3D(rng, 5.0), 0.4)
    shapes: list[Blob | Tube] = [neck, pool]
    if spec.tract:
        fascia = skin - anatomy.fat_depth_mm
        out = np.array([center[0] + rng.normal(0, 6), side + rng.normal(0, 5), fascia])
        bed = np.array(
            [out[0] + rng.normal(0, 4), out[1] + rng.normal(0, 4),
             fascia + 0.45 * anatomy.fat_depth_mm]
        )  # fmt: skip
        wide = float(rng.uniform(1.8, 3.2))
        shapes.append(Tube(np.array([center, out, bed]), np.full(3, wide), Noise3D(rng, 5.0), 0.5))
        flat = min(0.32 * anatomy.fat_depth_mm, 7.0)
        size = float(rng.uniform(9, 17))
        shapes.append(Blob(bed, (size * 1.3, size, flat), Noise3D(rng, 6.0), 0.12 * flat + 0.3))
    return shapes


def skin_depth_mm(anatomy: Anatomy, arc_mm: float) -> float:
    """Return the dorsal offset of the skin in the midline."""
    tables = anatomy.tables
    wall, muscle = (anatomy.value(table, arc_mm) for table in (tables.canal.b, tables.muscle))
    return wall + 6.0 + muscle + anatomy.fat_depth_mm


def root_direction(
    anatomy: Anatomy, site: str, side: float
) -> tuple[FloatArray, FloatArray, float]:
    """Return the exit point and unit direction of a root, in (arc, left, dorsal).

    Parameters
    ----------
    site : str
        Vertebra above the exit foramen.
    side : float
        +1 for the patient's left, -1 for the right.

    Returns
    -------
    start, direction : ndarray, shape (3,)
    sleeve_mm : float
        Visible length of the sleeve.
    """
    roots, sac = anatomy.tables.roots, anatomy.tables.sac
    number = [s.name for s in anatomy.sites].index(site)
    rows = np.flatnonzero(roots.level == number)
    at = int(rows[np.abs(roots.offset[rows]).argmin()])
    sine, cosine = float(roots.sine[at]), float(roots.cosine[at])
    direction = np.array([cosine, side * sine, sine * float(roots.slope[at])])
    direction /= np.linalg.norm(direction)
    start = np.array([at * TABLE_STEP_MM, side * 0.8 * float(sac.a[at]), float(sac.center[at])])
    return start, direction, float(roots.sleeve_length[int(side > 0), at])


def _periradicular(
    spec: CollectionSpec, anatomy: Anatomy, level: str, rng: np.random.Generator
) -> Fluid:
    side = 1.0 if spec.position == "left" else -1.0
    start, direction, sleeve = root_direction(anatomy, split_segment(level)[0], side)
    size = float(rng.uniform(*spec.thickness_mm)) / 2 + 1.2
    begin = start + direction * 0.45 * sleeve
    reach = float(rng.uniform(16, 30))
    bends = rng.normal(0, 1.2, (4, 3))
    points = np.array([begin + direction * reach * t for t in (0.0, 0.33, 0.66, 1.0)]) + bends
    points[-1, 2] += float(rng.normal(0, 4))
    radii = size * np.array([0.75, 1.15, 1.0, 0.55]) * rng.uniform(0.85, 1.15, 4)
    shapes: list[Blob | Tube] = [Tube(points, radii, Noise3D(rng, 5.0), 0.7)]
    for _ in range(int(rng.integers(1, 4))):
        center = points[int(rng.integers(1, 4))] + rng.normal(0, 3.0, 3)
        span = rng.uniform(0.6, 1.2, 3) * size
        shapes.append(
            Blob(center, (float(span[0] * 1.4), float(span[1]), float(span[2])), Noise3D(rng, 4.0))
        )
    low = min(shape.reach_mm[0] for shape in shapes)
    high = max(shape.reach_mm[1] for shape in shapes)
    return Fluid(spec.tissue, None, tuple(shapes), spec, (low, high))


def _mimic(mimic: MimicSpec, anatomy: Anatomy, level: str, rng: np.random.Generator) -> Fluid:
    canal = anatomy.tables.canal
    _upper, lower = split_segment(level)
    side = float(rng.choice([-1.0, 1.0]))
    size = float(rng.uniform(*mimic.radius_mm))
    shape: Blob
    tissue: TissueName
    root: tuple[str, Literal["left", "right"]] | None = None
    if mimic.kind in ("perineural_cyst", "root_diverticulum"):
        root = lower, "left" if side > 0 else "right"
    if mimic.kind == "root_diverticulum":
        shape = _diverticulum(anatomy, lower, side, size, rng)
        tissue = "csf"
    elif mimic.kind == "perineural_cyst":
        start, direction, _ = root_direction(anatomy, lower, side)
        center = start + direction * float(rng.uniform(7, 12))
        shape = Blob(center, (1.35 * size, size, 0.85 * size), Noise3D(rng, 8.0), 0.3)
        tissue = "csf"
    elif mimic.kind == "facet_cyst":
        arc = anatomy.disc_mm(level) + 4.0
        center = np.array(
            [arc, side * (anatomy.value(canal.a, arc) + 0.55 * size + 1.0),
             0.75 * anatomy.value(canal.b, arc) + 0.4 * size]
        )  # fmt: skip
        shape = Blob(center, (1.2 * size, size, size), Noise3D(rng, 5.0), 0.3)
        tissue = "synovial"
    else:
        arc = anatomy.disc_mm(level)
        skin = skin_depth_mm(anatomy, arc)
        spinous = anatomy.tables.arches.spinous_length
        tip = anatomy.value(canal.b, arc) + anatomy.value(spinous, arc)
        depth = max(skin - anatomy.fat_depth_mm, tip) + 0.25 * size
        center = np.array([arc + rng.normal(0, 6), rng.normal(0, 6), depth])
        shape = Blob(center, (1.7 * size, size, 0.55 * size), Noise3D(rng, 7.0), 0.08 * size)
        tissue = "seroma"
    return Fluid(tissue, None, (shape,), None, shape.reach_mm, root)


def _diverticulum(
    anatomy: Anatomy, site: str, side: float, radius_mm: float, rng: np.random.Generator
) -> Blob:
    """Return a diverticulum next to a root, outside the sac.

    Most are caudal and medial to the root (axilla), fewer cranial and lateral (shoulder).
    """
    start, direction, sleeve_mm = root_direction(anatomy, site, side)
    axilla = np.array([direction[1] * side, -direction[0] * side, 0.0])
    axilla /= np.linalg.norm(axilla)
    turn = float(rng.normal(0.0, 0.5)) + (np.pi if rng.random() < _SHOULDER else 0.0)
    away = np.cos(turn) * axilla + np.sin(turn) * np.cross(direction, axilla)
    for along_mm in np.arange(float(rng.uniform(0.4, 0.8)) * sleeve_mm, 40.0, 0.5):
        center = start + along_mm * direction + (_ROOT_MM + _BESIDE * radius_mm) * away
        a, b, middle = (
            anatomy.value(table, float(center[0]))
            for table in (anatomy.tables.sac.a, anatomy.tables.sac.b, anatomy.tables.sac.center)
        )
        reach = np.array([center[1], center[2] - middle])
        scale = float(np.hypot(reach[0] / max(a, 0.1), reach[1] / max(b, 0.1)))
        if float(np.hypot(*reach)) * (1 - 1 / scale) >= _OUTSIDE * radius_mm:
            break
    radii = (1.1 * radius_mm, radius_mm, 0.9 * radius_mm)
    return Blob(center, radii, Noise3D(rng, 8.0), 0.2)


def _screws(anatomy: Anatomy, level: str, rng: np.random.Generator) -> tuple[Screw, ...]:
    names = [site.name for site in anatomy.sites]
    first = max(names.index(split_segment(level)[0]) - int(rng.integers(0, 2)), 0)
    canal = anatomy.tables.canal
    screws = []
    for name in names[first : first + 3]:
        site = anatomy.site(name)
        arc = site.at(0.35)
        wide = anatomy.value(canal.a, arc) + 5.0
        wall = anatomy.value(canal.b, arc)
        for side in (-1.0, 1.0):
            start = (arc, side * (wide + 7.0), wall + 14.0)
            stop = (arc + float(rng.normal(0, 2)), side * (wide - 3.0), -wall - 26.0)
            screws.append(Screw(start, stop, float(rng.uniform(2.8, 3.4))))
    return tuple(screws)
