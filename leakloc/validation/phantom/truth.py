"""Ground truth of a phantom for evaluating an analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from leakloc.anatomy.vocabulary import Compartment, Position, segment_name
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.body import Body
from leakloc.validation.phantom.canvas import CanalGrid, Points
from leakloc.validation.phantom.findings import Blob, skin_depth_mm
from leakloc.validation.phantom.scenario import LumbosacralShape
from leakloc.validation.phantom.shapes import Float

if TYPE_CHECKING:
    from leakloc.validation.phantom.findings import Fluid

STEP_MM: Final = 1.0
"""Grid spacing in canal coordinates for measuring collections."""

FINE_STEP_MM: Final = 0.4
"""The same for perineural cysts and diverticula."""

TOUCHED_ML: Final = 0.05
"""Minimum volume for a segment to count as involved."""

COMPARTMENT_ML: Final = 0.15
"""Minimum volume for a compartment to count as involved."""

DORSAL_EPIDURAL_MM: Final = 1.5
"""Distance of the posterior epidural path anterior to the posterior wall of the canal."""

DURA_GAP_MM: Final = 1.2
"""Minimum distance of the path posterior to the inner surface of the sac."""


_RETROSPINAL_SHAPE: Final = (60, 60, 80)
"""Numbers of steps (craniocaudal, posterior, lateral) in which retrospinal fluid is measured."""


@dataclass(frozen=True)
class TrueVertebra:
    """A vertebral body."""

    name: str
    center_lps: FloatArray


@dataclass(frozen=True)
class TrueDisc:
    """An intervertebral disc, or its remnant in the sacrum."""

    name: str
    center_lps: FloatArray
    normal_lps: FloatArray
    """Unit normal in the cranial direction."""


@dataclass(frozen=True)
class TrueCollection:
    """One true epidural collection."""

    id: int
    level: str
    """Motion segment of the largest cross-section (smoothed over 5 mm)."""
    segments: tuple[str, ...]
    position: Position
    position_fractions: dict[str, float]
    """Volume fraction by quadrant around the sac."""
    compartments: tuple[Compartment, ...]
    volume_ml: float
    max_thickness_mm: float
    """Maximum thickness of the layer along the dura; 0 without one."""
    cranial_lps: FloatArray
    caudal_lps: FloatArray
    epicenter_lps: FloatArray
    """Center of the largest cross-section."""
    path_lps: FloatArray
    """Posterior epidural path from the sacral hiatus up to the level, shape (n, 3)."""
    canal_distance_from_hiatus_mm: float | None
    """Length of that path along the canal axis."""
    path_length_mm: float | None
    """Length of the path itself."""


@dataclass(frozen=True)
class TrueRetrospinal:
    """Retrospinal fluid at C1-C2."""

    volume_ml: float
    center_lps: FloatArray
    left_mm: float
    """Mean offset from the midline, positive to the left."""


@dataclass(frozen=True)
class TrueRootStructure:
    """A perineural cyst or diverticulum of a nerve root."""

    kind: str
    root: str
    side: Literal["left", "right"]
    diameter_mm: float
    """Diameter of a sphere of the same volume."""
    visible_mm: float
    """Diameter of a sphere with the volume of its fluid outside the sac, the root and its sleeve:
    the root passes through a perineural cyst, and a small one does not exceed the sleeve."""
    center_lps: FloatArray


@dataclass(frozen=True)
class Truth:
    """Ground truth of a phantom.

    Parameters
    ----------
    vertebrae, discs : tuple
        C2 to S5, cranial to caudal, inside or outside any field of view.
    hiatus_lps : ndarray, shape (3,)
        Apex of the sacral hiatus, on the posterior wall of the canal.
    centerline_lps : ndarray, shape (n, 3)
        Centerline of the bony canal from C2 to the hiatus.
    sac_tip_lps, conus_lps : ndarray, shape (3,)
        Caudal end of the thecal sac; tip of the conus.
    """

    scenario: str
    seed: int
    leak: Literal["present", "absent"]
    lumbar_count: int
    lumbosacral: LumbosacralShape
    vertebrae: tuple[TrueVertebra, ...]
    discs: tuple[TrueDisc, ...]
    collections: tuple[TrueCollection, ...]
    mimics: tuple[str, ...]
    root_structures: tuple[TrueRootStructure, ...]
    hiatus_lps: FloatArray
    centerline_lps: FloatArray
    sac_tip_lps: FloatArray
    sac_tip_level: str
    conus_lps: FloatArray
    sac_volume_ml: float
    """C2 to the caudal end of the sac, including cord and roots."""
    csf_volume_ml: float
    """C2 to the caudal end of the sac, without cord, including roots."""
    retrospinal_c1_c2: TrueRetrospinal | None = None
    """Not one of the collections."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON."""
        return _plain(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Masks:
    """Ground-truth masks on a grid.

    Parameters
    ----------
    thecal_sac : Volume
        float32, 0 to 1: fraction of each voxel inside the dura below the foramen magnum,
        including cord and roots, excluding root sleeves.
    sleeves : Volume
        float32, 0 to 1: fraction in root sleeves.
    fluid : Volume
        uint8: id of the collection that fills at least half of the voxel; 0 for none.
    fluid_fraction : Volume
        float32, 0 to 1: fraction of all collections.
    levels : Volume
        uint8: `vocabulary.LABEL_VALUES` in vertebral bodies.
    discs : Volume
        uint8: label value of the vertebra above, in discs.
    """

    thecal_sac: Volume
    sleeves: Volume
    fluid: Volume
    fluid_fraction: Volume
    levels: Volume
    discs: Volume


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value, 3).tolist()
    if isinstance(value, np.floating | float):
        return round(float(value), 4)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(getattr(value, key)) for key in value.__dataclass_fields__}
    return value


def measure_truth(body: Body, seed: int) -> Truth:
    """Measure the ground truth of a phantom."""
    anatomy = body.anatomy
    line, tables = anatomy.centerline, anatomy.tables

    def body_center(arc: float) -> FloatArray:
        point = line.at(arc)
        _, _, dorsal = line.frame_at(arc)
        back = anatomy.value(tables.canal.b, arc) + anatomy.value(tables.column.b, arc)
        return np.asarray(point - back * dorsal)

    vertebrae = tuple(TrueVertebra(s.name, body_center(s.middle_mm)) for s in anatomy.sites)
    discs = tuple(
        TrueDisc(
            segment_name(upper.name, lower.name),
            body_center(upper.bottom_mm),
            -line.frame_at(upper.bottom_mm)[0],
        )
        for upper, lower in zip(anatomy.sites, anatomy.sites[1:], strict=False)
    )
    collections = tuple(
        _measure(body, number, fluid)
        for number, fluid in enumerate(body.findings.collections, start=1)
    )
    top = anatomy.sites[0].top_mm
    step = float(line.arc_mm[1])
    arcs = np.arange(top, anatomy.hiatus_mm, step)
    rows = anatomy.rows(arcs.astype(np.float32))
    areas = np.pi * tables.sac.a[rows] * tables.sac.b[rows]
    cord = np.pi * tables.cord.a[rows] * tables.cord.b[rows]
    return Truth(
        scenario=anatomy.scenario.name,
        seed=seed,
        leak="present" if collections else "absent",
        lumbar_count=anatomy.lumbar_count,
        lumbosacral=anatomy.lumbosacral,
        vertebrae=vertebrae,
        discs=discs,
        collections=collections,
        mimics=tuple(mimic.kind for mimic in anatomy.scenario.mimics),
        root_structures=_root_structures(body),
        hiatus_lps=_posterior(anatomy, np.array([anatomy.hiatus_mm]))[0],
        centerline_lps=line.at(np.arange(top, anatomy.hiatus_mm, 2.0)),
        sac_tip_lps=_in_canal(anatomy, anatomy.sac_tip_mm, tables.sac.center),
        sac_tip_level=anatomy.segment_at(anatomy.sac_tip_mm),
        conus_lps=_in_canal(anatomy, anatomy.conus_mm, tables.cord.center),
        sac_volume_ml=float(areas.sum() * step / 1000),
        csf_volume_ml=float((areas - cord).sum() * step / 1000),
        retrospinal_c1_c2=_retrospinal(body),
    )


def _retrospinal(body: Body) -> TrueRetrospinal | None:
    fluid, anatomy = body.findings.retrospinal, body.anatomy
    if fluid is None:
        return None
    middle = anatomy.centerline.at(float(np.mean(fluid.reach_mm)))
    grid = Geometry.from_axes(
        _RETROSPINAL_SHAPE,
        origin_lps=list(middle - [_RETROSPINAL_SHAPE[2] / 2, 0, _RETROSPINAL_SHAPE[0] / 2]),
        spacing_ijk_mm=(STEP_MM,) * 3,
    )
    points = CanalGrid(anatomy, grid).slab(0, grid.shape[0])
    fraction = body.canal.fluid_fractions(points, (fluid,), STEP_MM)[0].astype(np.float64)
    lps = np.stack([points.x, points.y, points.z], axis=1)
    return TrueRetrospinal(
        float(fraction.sum()) * grid.voxel_volume_ml,
        np.average(lps, axis=0, weights=fraction),
        float(np.average(points.left, weights=fraction)),
    )


def _root_structures(body: Body) -> tuple[TrueRootStructure, ...]:
    """Return the perineural cysts and diverticula, in the order of the scenario."""
    line, found = body.anatomy.centerline, []
    for spec, fluid in zip(body.anatomy.scenario.mimics, body.findings.mimics, strict=True):
        if fluid.root is None:
            continue
        (shape,) = fluid.shapes
        assert isinstance(shape, Blob)
        arc_mm, left_mm, dorsal_mm = shape.center
        _, left, dorsal = line.frame_at(arc_mm)
        center = np.asarray(line.at(arc_mm) + left_mm * left + dorsal_mm * dorsal)
        diameter_mm = 2 * float(np.cbrt(np.prod(shape.radii)))
        visible_mm = _visible_mm(body, shape)
        found.append(TrueRootStructure(spec.kind, *fluid.root, diameter_mm, visible_mm, center))
    return tuple(found)


def _visible_mm(body: Body, shape: Blob) -> float:
    """Return the diameter of a sphere with the volume of the shape outside sac and sleeve."""
    reach = max(shape.radii) + 1.0
    steps = np.arange(-reach, reach, FINE_STEP_MM)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    arc, left, dorsal = (shape.center + grid).astype(np.float32).T
    zeros = np.zeros_like(arc)
    points = Points(arc, left, dorsal, zeros, zeros, zeros, body.anatomy.rows(arc))
    sleeve, root = body.canal.sleeve_distances(points)
    outside = np.minimum(body.canal.sac_distance(points), np.minimum(sleeve, root)) > 0
    volume_mm3 = float((outside & (shape.distance(arc, left, dorsal) < 0)).sum()) * FINE_STEP_MM**3
    return float(np.cbrt(6 / np.pi * volume_mm3))


def _in_canal(anatomy: Anatomy, arc_mm: float, offset: Float) -> FloatArray:
    _, _, dorsal = anatomy.centerline.frame_at(arc_mm)
    return np.asarray(anatomy.centerline.at(arc_mm) + anatomy.value(offset, arc_mm) * dorsal)


def _posterior(anatomy: Anatomy, arcs_mm: FloatArray) -> FloatArray:
    """Return points just anterior to the posterior wall of the canal."""
    _, _, dorsal = anatomy.centerline.frame_at(arcs_mm)
    tables, rows = anatomy.tables, anatomy.rows(arcs_mm.astype(np.float32))
    wall = tables.canal.b[rows] - DORSAL_EPIDURAL_MM
    dura = tables.sac.center[rows] + tables.sac.b[rows]
    offset = np.where(arcs_mm < anatomy.sac_tip_mm, np.maximum(wall, dura + DURA_GAP_MM), wall)
    return np.asarray(anatomy.centerline.at(arcs_mm) + offset[:, None] * dorsal)


def _measure(body: Body, number: int, fluid: Fluid) -> TrueCollection:
    anatomy = body.anatomy
    assert fluid.spec is not None
    low, high = fluid.reach_mm
    arcs = np.arange(low, high, STEP_MM, dtype=np.float32)
    lefts = np.arange(-55, 55.1, STEP_MM, dtype=np.float32)
    depth = skin_depth_mm(anatomy, 0.5 * (low + high)) + 8 if fluid.shapes else 30.0
    dorsals = np.arange(-34, depth, STEP_MM, dtype=np.float32)
    areas = np.zeros(len(arcs))  # perpendicular to the canal
    per_mm = np.zeros(len(arcs))  # volume per unit length of the canal
    centers = np.zeros((len(arcs), 3))
    quadrants = dict.fromkeys(("dorsal", "left", "ventral", "right"), 0.0)
    compartments: dict[Compartment, float] = dict.fromkeys(
        ("epidural", "foraminal", "paraspinal", "subcutaneous"), 0.0
    )
    line = anatomy.centerline
    left_grid, dorsal_grid = (grid.ravel() for grid in np.meshgrid(lefts, dorsals))
    zeros = np.zeros_like(left_grid)
    tangents, left_axes, dorsal_axes = line.frame_at(arcs)
    turn = np.gradient(tangents, STEP_MM, axis=0)
    for row, arc in enumerate(arcs):
        points = Points(
            zeros + arc, left_grid, dorsal_grid, zeros, zeros, zeros, anatomy.rows(zeros + arc)
        )
        mm2 = body.canal.fluid_fractions(points, (fluid,), STEP_MM)[0].astype(float)
        # Cross-sections of a curved canal diverge: volume depends on the distance to the center.
        stretch = 1 - (
            left_grid * float(turn[row] @ left_axes[row])
            + dorsal_grid * float(turn[row] @ dorsal_axes[row])
        )
        areas[row] = mm2.sum() * STEP_MM**2
        mm2 *= np.maximum(stretch, 0) * STEP_MM**2
        per_mm[row] = mm2.sum()
        if per_mm[row] <= 0:
            continue
        mean_left = float(mm2 @ left_grid) / per_mm[row]
        mean_dorsal = float(mm2 @ dorsal_grid) / per_mm[row]
        centers[row] = line.at(arc) + mean_left * left_axes[row] + mean_dorsal * dorsal_axes[row]
        y = dorsal_grid - anatomy.value(anatomy.tables.sac.center, float(arc))
        dorsal = np.abs(left_grid) <= np.abs(y)
        for name, where in (
            ("dorsal", dorsal & (y > 0)),
            ("ventral", dorsal & (y <= 0)),
            ("left", ~dorsal & (left_grid > 0)),
            ("right", ~dorsal & (left_grid <= 0)),
        ):
            quadrants[name] += mm2[where].sum()
        for compartment, where in _compartments(body, points, float(arc)).items():
            compartments[compartment] += mm2[where].sum()
    ml = STEP_MM / 1000
    window = np.ones(5) / 5
    smooth = np.convolve(areas, window, mode="same")
    peak = int(smooth.argmax())
    filled = np.flatnonzero(areas > 2.0)
    filled = filled if len(filled) else np.array([peak])
    segments: dict[str, float] = {}
    for arc, mm3 in zip(arcs, per_mm, strict=True):
        name = anatomy.segment_at(float(arc))
        segments[name] = segments.get(name, 0.0) + mm3 * ml
    total = max(sum(quadrants.values()), 1e-9)
    level = anatomy.segment_at(float(arcs[peak]))
    path = _posterior(anatomy, np.arange(anatomy.hiatus_mm, anatomy.disc_mm(level), -1.0))
    return TrueCollection(
        id=number,
        level=level,
        segments=tuple(name for name, volume in segments.items() if volume >= TOUCHED_ML),
        position=fluid.spec.position,
        position_fractions={name: float(volume / total) for name, volume in quadrants.items()},
        compartments=tuple(
            name for name, volume in compartments.items() if volume * ml >= COMPARTMENT_ML
        ),
        volume_ml=float(per_mm.sum() * ml),
        max_thickness_mm=float(fluid.layer.thickness_mm.max()) if fluid.layer else 0.0,
        cranial_lps=centers[filled[0]],
        caudal_lps=centers[filled[-1]],
        epicenter_lps=centers[peak],
        path_lps=path,
        canal_distance_from_hiatus_mm=float(anatomy.hiatus_mm - anatomy.disc_mm(level)),
        path_length_mm=float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()),
    )


def _compartments(
    body: Body, points: Points, arc_mm: float
) -> dict[Compartment, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the compartment masks of the points of one cross-section."""
    anatomy, walls = body.anatomy, body.anatomy.tables.canal
    canal = body.canal.wall_distance(points) <= 0.5
    half_width = anatomy.value(walls.a, arc_mm)
    fascia = skin_depth_mm(anatomy, arc_mm) - anatomy.fat_depth_mm
    subcutaneous = points.dorsal > fascia
    lateral = (
        (np.abs(points.left) > half_width)
        & (np.abs(points.left) <= half_width + 14)
        & (np.abs(points.dorsal) < anatomy.value(walls.b, arc_mm) + 4)
    )
    foraminal = ~canal & ~subcutaneous & lateral
    return {
        "epidural": canal & ~subcutaneous,
        "foraminal": foraminal,
        "paraspinal": ~canal & ~foraminal & ~subcutaneous,
        "subcutaneous": subcutaneous & ~canal,
    }
