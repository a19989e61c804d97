"""Ground truth of a simulated study, in the format of the phantom.

Levels are defined as in the phantom: the motion segment of the largest cross-section, where a
segment extends from the middle of one vertebra to the middle of the next. SPIDER numbers discs
cranially from the lowest one, taken as L5-S1; one more segment at either end is named as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from leakloc.anatomy.vocabulary import Position, with_neighbors
from leakloc.core.volume import FloatArray, Volume
from leakloc.validation.phantom.truth import TOUCHED_ML

if TYPE_CHECKING:
    from leakloc.validation.simulation.study import SimulatedStudy

STEP_MM: Final = 1.0
"""Length along the centerline over which a cross-section is measured."""

SMOOTHING_STEPS: Final = 5
"""Number of cross-sections averaged before the largest is selected."""

SAMPLE_MM: Final = 0.5
"""Maximum length of the parts into which voxels are split along the canal."""

CIRCUMFERENTIAL_DEG: Final = 270.0
"""Minimum angle occupied by a collection that surrounds the sac."""

CIRCUMFERENTIAL_MM: Final = 20.0
"""Minimum length of that angle for "circumferential"; also one third of the collection."""

OCCUPIED_MM: Final = 0.4
"""Minimum radial thickness for a direction to be occupied."""

END_AREA_MM2: Final = 2.0
"""Cross-sectional area at which a collection ends."""


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
        # Segments beyond the outermost discs are as long as the adjacent ones.
        self._borders = np.array([2 * arcs[0] - inner[0], *inner, 2 * arcs[-1] - inner[-1]])
        self.names = with_neighbors(ordered)

    def at(self, arc_mm: float) -> str:
        """Return the segment that contains a position along the centerline."""
        return self.names[int(np.searchsorted(self._borders, arc_mm))]


def true_values(study: SimulatedStudy) -> dict[str, Any]:
    """Return the ground truth as plain values with the keys of the phantom's ``truth.json``.

    A collection that does not fill at least half of any myelogram voxel is not in the mask and not
    listed. Items unknown for a real patient (vertebrae, sacral hiatus) are empty or None.
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
    """Return the voxel fractions of each collection; partial voxels go to the nearest one."""
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
    stretch = study.centerline.stretch_at(arcs, left, dorsal)
    areas = np.bincount(step, weights_mm3 / stretch) / STEP_MM
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
    """Return the position of the fluid; bone and discs may interrupt a circumferential layer."""
    if painted != "circumferential":
        return painted
    directions = 24
    row = (arcs - arcs.min()).astype(int)
    revolution = np.arctan2(dorsal, left) % (2 * np.pi) / (2 * np.pi)
    column = (revolution * directions).astype(int) % directions
    area = np.maximum(np.hypot(left, dorsal), 2.0) * (2 * np.pi / directions)
    cells = np.bincount(row * directions + column, mm3 / area, (row.max() + 1) * directions)
    thickness = gaussian_filter1d(cells.reshape(-1, directions), 1.5, axis=0, mode="constant")
    occupied_deg = 360.0 * (thickness >= OCCUPIED_MM).mean(axis=1)
    surrounded_mm = int((occupied_deg >= CIRCUMFERENTIAL_DEG).sum())
    if surrounded_mm >= max(CIRCUMFERENTIAL_MM, len(occupied_deg) / 3):
        return "circumferential"
    quadrants: tuple[Position, ...] = ("left", "dorsal", "right", "ventral")
    quadrant = ((revolution * 4 + 0.5).astype(int)) % 4
    return quadrants[int(np.bincount(quadrant, mm3, 4).argmax())]


def _samples(fraction: Volume, along_lps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return sample points (n, 3) in fluid voxels, LPS mm, and the volume of each in mm3.

    Voxels are split along the canal, so that thick slices leave no empty cross-sections.
    """
    geometry = fraction.geometry
    edges_mm = geometry.edges_along_mm(along_lps / np.linalg.norm(along_lps))
    parts = np.ceil(edges_mm / SAMPLE_MM).clip(1).astype(int)
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
