"""What is true of a simulated study, in the words of the phantom's truth.

Levels follow the definition of the phantom: the motion segment of the largest cross-section, where
a segment runs from the middle of one vertebra to the middle of the next. SPIDER names discs up from
the lowest one, taken as L5-S1; one segment beyond either end of them is named as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.anatomy.vocabulary import Position, with_neighbors
from leakloc.core.volume import FloatArray, Volume
from leakloc.validation.phantom.truth import TOUCHED_ML

if TYPE_CHECKING:
    from leakloc.validation.evaluation.reading import Reading
    from leakloc.validation.simulation.study import SimulatedStudy

STEP_MM: Final = 1.0
"""Stretch of the centerline over which a cross-section is measured."""

SMOOTHING_STEPS: Final = 5
"""Cross-sections averaged before the largest one is chosen."""

SAMPLE_MM: Final = 0.5
"""Voxels are split along the canal into parts of at most this length."""

CIRCUMFERENTIAL_DEG: Final = 270.0
"""A collection surrounds the sac where it takes up this angle,"""

CIRCUMFERENTIAL_MM: Final = 20.0
"""... over this length, and over a third of its own."""

OCCUPIED_MM: Final = 0.4
"""Radial thickness from which on a direction is taken up."""

END_AREA_MM2: Final = 2.0
"""A collection ends where its cross-section falls to this area."""


class SegmentAxis:
    """Motion segments along a centerline.

    Parameters
    ----------
    discs_mm : dict
        Position of each disc along the centerline by name, in any order; at least two.
    """

    def __init__(self, discs_mm: dict[str, float]) -> None:
        ordered = sorted(discs_mm, key=lambda name: discs_mm[name])
        arcs = np.array([discs_mm[name] for name in ordered])
        inner = 0.5 * (arcs[1:] + arcs[:-1])
        # Beyond the outermost discs a segment is as long as its neighbor.
        self._borders = np.array([2 * arcs[0] - inner[0], *inner, 2 * arcs[-1] - inner[-1]])
        self.names = with_neighbors(ordered)

    def at(self, arc_mm: float) -> str:
        """The segment that holds a position along the centerline."""
        return self.names[int(np.searchsorted(self._borders, arc_mm))]


def simulated_reading(study: SimulatedStudy) -> Reading:
    """The truth of a simulated study as a reading on the grid of its myelogram."""
    from leakloc.validation.evaluation.reading import truth_reading

    name = f"{study.scenario.name}_{study.patient}_{study.seed}"
    masks = study.thecal_sac, study.fluid, study.fluid_fraction
    return truth_reading(true_values(study), name, *masks)


def true_values(study: SimulatedStudy) -> dict[str, Any]:
    """The truth as plain values with the field names of the phantom's ``truth.json``.

    A collection that fills no voxel of the myelogram by half is not listed, because it is not in
    the mask. What is not known of a real patient (vertebrae, sacral hiatus) is empty or None.
    """
    arcs = study.centerline.project(np.array(list(study.discs.values())))[0]
    axis = SegmentAxis(dict(zip(study.discs, map(float, arcs), strict=True)))
    grid = study.myelogram.geometry
    inside = [(n, study.discs[n]) for n in axis.names if n in study.discs]
    fractions = _by_collection(study)
    return {
        "scenario": study.scenario.name,
        "patient": study.patient,
        "seed": study.seed,
        "leak": "present" if study.fluid_fraction.array.any() else "absent",
        "lumbar_count": 5,
        "vertebrae": [],
        "discs": [
            {"name": name, "center_lps": _rounded(center)}
            for name, center in inside
            if grid.contains(center)
        ],
        "collections": [
            _collection(study, number, fraction, axis) for number, fraction in fractions.items()
        ],
    }


def _by_collection(study: SimulatedStudy) -> dict[int, Volume]:
    """Fraction of each collection: what fills less than half belongs to the nearest one."""
    from scipy.ndimage import distance_transform_edt

    ids, fraction = study.fluid, study.fluid_fraction
    numbers = [int(n) for n in np.unique(ids.array) if n]
    if not numbers:
        return {}
    nearest = distance_transform_edt(
        ids.array == 0,
        sampling=ids.geometry.spacing_kji_mm,
        return_distances=False,
        return_indices=True,
    )
    owner = ids.array[tuple(nearest)]
    return {n: fraction.with_array(np.where(owner == n, fraction.array, 0)) for n in numbers}


def _collection(
    study: SimulatedStudy, number: int, fraction: Volume, axis: SegmentAxis
) -> dict[str, Any]:
    points, weights_mm3 = _samples(fraction, study.centerline.tangents_lps.mean(axis=0))
    arcs, left, dorsal = study.centerline.project(points)
    first = float(np.floor(arcs.min()))
    step = ((arcs - first) / STEP_MM).astype(int)
    volumes = np.bincount(step, weights_mm3)
    middles = first + (np.arange(len(volumes)) + 0.5) * STEP_MM
    areas = volumes / STEP_MM
    smooth = np.convolve(areas, np.ones(SMOOTHING_STEPS) / SMOOTHING_STEPS)
    peak = int(smooth[SMOOTHING_STEPS // 2 :][: len(areas)].argmax())
    filled, reach = np.flatnonzero(volumes > 0), np.flatnonzero(areas > END_AREA_MM2)
    ends = (int(reach[0]), int(reach[-1])) if len(reach) else (peak, peak)
    segments = dict.fromkeys(axis.names, 0.0)
    for middle, volume in zip(middles, volumes, strict=True):
        segments[axis.at(float(middle))] += float(volume) / 1000
    cranial, caudal, epicenter = (
        np.average(points[step == n], axis=0, weights=weights_mm3[step == n])
        for n in (*ends, filled[np.abs(filled - peak).argmin()])
    )
    return {
        "id": number,
        "level": axis.at(float(middles[peak])),
        "segments": [name for name, ml in segments.items() if ml >= TOUCHED_ML],
        "position": _position(study.positions[number], arcs, left, dorsal, weights_mm3),
        "volume_ml": round(float(weights_mm3.sum()) / 1000, 4),
        "cranial_lps": _rounded(cranial),
        "caudal_lps": _rounded(caudal),
        "epicenter_lps": _rounded(epicenter),
        "path_length_mm": None,
    }


def _position(
    painted: Position, arcs: FloatArray, left: FloatArray, dorsal: FloatArray, mm3: FloatArray
) -> Position:
    """Where the fluid lies: bone and discs may leave little of a layer painted all round."""
    from scipy.ndimage import gaussian_filter1d

    if painted != "circumferential":
        return painted
    directions = 24
    row = (arcs - arcs.min()).astype(int)
    turn = np.arctan2(dorsal, left) % (2 * np.pi) / (2 * np.pi)
    column = (turn * directions).astype(int) % directions
    area = np.maximum(np.hypot(left, dorsal), 2.0) * (2 * np.pi / directions)
    cells = np.bincount(row * directions + column, mm3 / area, (row.max() + 1) * directions)
    thickness = gaussian_filter1d(cells.reshape(-1, directions), 1.5, axis=0, mode="constant")
    occupied_deg = 360.0 * (thickness >= OCCUPIED_MM).mean(axis=1)
    surrounded_mm = int((occupied_deg >= CIRCUMFERENTIAL_DEG).sum())
    if surrounded_mm >= max(CIRCUMFERENTIAL_MM, len(occupied_deg) / 3):
        return "circumferential"
    quadrants: tuple[Position, ...] = ("left", "dorsal", "right", "ventral")
    quadrant = ((turn * 4 + 0.5).astype(int)) % 4
    return quadrants[int(np.bincount(quadrant, mm3, 4).argmax())]


def _samples(fraction: Volume, along_lps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points (n, 3) in the voxels that hold fluid, LPS mm, and the volume of each in mm3.

    Thick slices would leave cross-sections between them empty: voxels are split along the canal.
    """
    geometry = fraction.geometry
    along = np.abs(geometry.directions_lps.T @ (along_lps / np.linalg.norm(along_lps)))
    parts = np.ceil(np.array(geometry.spacing_ijk_mm) * along / SAMPLE_MM).clip(1).astype(int)
    offsets = np.stack(
        np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in parts), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    voxels = np.argwhere(fraction.array > 0)
    points = geometry.lps_from_ijk(voxels[:, None, ::-1] + offsets).reshape(-1, 3)
    values = fraction.array[tuple(voxels.T)].astype(float)
    unit_mm3 = 1000 * geometry.voxel_volume_ml / len(offsets)
    return points, np.repeat(values * unit_mm3, len(offsets))


def _rounded(point: FloatArray) -> list[float]:
    return [round(float(x), 3) for x in point]
