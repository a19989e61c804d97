"""Simulated studies: known epidural fluid on real anatomy with random contrast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import Position
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.validation.phantom.scenario import find_scenario
from leakloc.validation.simulation.contrast import (
    Acquisition,
    ContrastKind,
    Fat,
    acquire,
    acquisition_grid,
    draw_contrast,
    render,
    sample_on,
    smooth_voids,
)
from leakloc.validation.simulation.findings import (
    Layer,
    Painted,
    Pool,
    paint_blob,
    paint_layer,
    paint_pool,
    paint_vein,
)
from leakloc.validation.simulation.patients import CAUDAL_EXTENSION_MM, DISC, SAC, Patient

Array = npt.NDArray[np.float32]
Rng = np.random.Generator
Pattern = Literal["dorsal", "ventral", "left", "right", "circumferential", "pseudomeningocele"]
Mimic = Literal["veins", "basivertebral", "facet", "cyst", "seroma", "fat"]
AcquisitionKind = Literal["3d", "2d_sagittal", "2d_axial"]

CAVEAT: Final = "Simulated contrast on real anatomy (SPIDER, CC BY 4.0, modified)."
"""Statement to accompany all results."""

ALL_MIMICS: Final[tuple[Mimic, ...]] = ("veins", "basivertebral", "facet", "cyst", "seroma", "fat")


@dataclass(frozen=True)
class SimulationScenario:
    """Content of a simulated study; values are drawn from the ranges for each study.

    Parameters
    ----------
    patterns : tuple of str
        One collection per pattern; empty for no leak.
    thickness_mm, length_mm : tuple of float
        Range for a layer.
    contrasts : tuple of str
        Candidate contrasts; one is drawn.
    fat : str
        Quality of fat suppression.
    acquisition : str
    snr : tuple of float
        Range of CSF signal divided by noise.
    mimics : tuple of str
        Bright structures that mimic a leak.
    """

    name: str
    patterns: tuple[Pattern, ...] = ()
    thickness_mm: tuple[float, float] = (2.0, 6.5)
    length_mm: tuple[float, float] = (25.0, 120.0)
    contrasts: tuple[ContrastKind, ...] = ("heavy",)
    fat: Fat = "suppressed"
    acquisition: AcquisitionKind = "3d"
    snr: tuple[float, float] = (20.0, 60.0)
    mimics: tuple[Mimic, ...] = ()

    @property
    def leak(self) -> bool:
        """Whether there is epidural fluid."""
        return bool(self.patterns)


_S = SimulationScenario
SCENARIOS: Final[dict[str, SimulationScenario]] = {
    s.name: s
    for s in (
        _S("no_leak"),
        _S("no_leak_partial_fat", fat="partial", mimics=("fat",)),
        _S("no_leak_mimics", mimics=ALL_MIMICS),
        _S("no_leak_moderate", contrasts=("moderate",)),
        _S("no_leak_stir", contrasts=("stir",)),
        _S("no_leak_thick_slices", contrasts=("heavy", "moderate"), acquisition="2d_sagittal"),
        _S("dorsal", ("dorsal",)),
        _S("ventral", ("ventral",)),
        _S("left", ("left",)),
        _S("right", ("right",)),
        _S("circumferential_thin", ("circumferential",), (1.5, 2.5), (60.0, 200.0)),
        _S("focal_thin", ("dorsal",), (1.2, 2.5), (15.0, 40.0)),
        _S("long", ("dorsal",), (2.0, 5.0), (120.0, 220.0)),
        _S("pseudomeningocele", ("pseudomeningocele",)),
        _S("two_collections", ("dorsal", "ventral"), length_mm=(20.0, 60.0)),
        _S("thick_slices", ("dorsal",), acquisition="2d_sagittal"),
        _S("axial_slices", ("dorsal",), acquisition="2d_axial"),
        _S("low_snr", ("dorsal",), snr=(12.0, 12.0)),
        _S("leak_partial_fat", ("dorsal",), fat="partial"),
        _S("leak_mimics", ("dorsal",), mimics=ALL_MIMICS),
        _S("conventional_t2", ("dorsal",), contrasts=("conventional",), fat="none"),
    )
}
"""Scenarios of an evaluation by name."""


@dataclass(frozen=True, eq=False)
class SimulatedStudy:
    """A simulated study and its ground truth.

    Parameters
    ----------
    patient : str
        Number in SPIDER.
    myelogram : Volume
        float32, CSF about 1.
    companion : Volume or None
        Sagittal T2 in the same frame of reference; float32, CSF about 1.
    thecal_sac : Volume
        uint8 0/1 on the grid of `myelogram`.
    fluid : Volume
        uint8: id of the collection that fills at least half of the voxel; 0 for none.
    fluid_fraction : Volume
        float32: fraction of each voxel filled by epidural fluid.
    centerline : Centerline
        Centerline of the sac, extended caudally.
    discs : dict
        Disc centers by name, LPS mm.
    positions : dict
        Position of each collection by number.
    repeat : int
        Number of the repeat scan, as in `simulate`.
    """

    patient: str
    scenario: SimulationScenario
    seed: int
    acquisition: Acquisition
    myelogram: Volume
    companion: Volume | None
    thecal_sac: Volume
    fluid: Volume
    fluid_fraction: Volume
    centerline: Centerline
    discs: dict[str, FloatArray]
    positions: dict[int, Position]
    repeat: int = 0


def simulate(
    patient: Patient,
    scenario: SimulationScenario | str,
    seed: int,
    *,
    companion: bool = True,
    repeat: int = 0,
    same_protocol: bool = False,
) -> SimulatedStudy:
    """Simulate a myelogram with known epidural fluid from a patient without a leak.

    Parameters
    ----------
    patient : Patient
    scenario : SimulationScenario or str
        Custom scenario, or a name from `SCENARIOS`.
    seed : int
        Random seed; combined with scenario name and patient.
    companion : bool
        Whether to also create the sagittal T2.
    repeat : int
        Number of the repeat scan: 0 for the first scan. A repeat scan has the same collections and
        mimics, and another contrast, voxel grid, plane and noise.
    same_protocol : bool
        Whether a repeat scan has the contrast, plane and voxel size of the first scan. Position of
        the grid, flow voids, receive field and noise differ.

    Raises
    ------
    SettingsError
        If no scenario has that name.
    """
    scenario = find_scenario(scenario, SCENARIOS)
    key = [seed, int(patient.number), *scenario.name.encode()]
    rng = np.random.default_rng(key)
    painted = _paint(patient, scenario, rng)
    if repeat and not same_protocol:
        rng = np.random.default_rng([*key, repeat])
    kind = scenario.contrasts[rng.integers(len(scenario.contrasts))]
    contrast = draw_contrast(kind, scenario.fat, rng)
    signal = render(patient, painted, contrast, rng)
    voids = smooth_voids(patient, int(rng.integers(0, 6)), rng)
    acquisition = draw_acquisition(scenario, rng)
    grid = acquisition_grid(patient, acquisition)
    if repeat and same_protocol:
        rng = np.random.default_rng([*key, repeat, 1])
        voids = smooth_voids(patient, int(rng.integers(0, 6)), rng)
        affine_lps = grid.affine_lps.copy()
        affine_lps[:3, 3] = grid.lps_from_ijk(rng.uniform(-0.5, 0.5, 3))
        grid = Geometry(grid.shape, affine_lps)
    signal *= voids
    source = patient.image.geometry
    sampled = sample_on(Volume(signal, source), grid)
    provenance = Provenance(f"simulated {scenario.name} {patient.number} {seed}")
    myelogram = Volume(acquire(sampled, grid, acquisition, rng), grid, provenance)
    sac = sample_on(Volume((patient.labels.array == SAC).astype(np.float32), source), grid)
    fraction = sample_on(Volume(painted.fraction, source), grid)
    return SimulatedStudy(
        patient=patient.number,
        scenario=scenario,
        seed=seed,
        acquisition=acquisition,
        myelogram=myelogram,
        companion=_companion(patient, painted, rng) if companion else None,
        thecal_sac=Volume((sac >= 0.5).astype(np.uint8), grid),
        fluid=Volume(_ids_on(painted, patient, fraction, grid), grid),
        fluid_fraction=Volume(fraction, grid),
        centerline=patient.centerline,
        discs=patient.discs,
        positions=painted.positions,
        repeat=repeat,
    )


def draw_acquisition(scenario: SimulationScenario, rng: Rng) -> Acquisition:
    """Draw random voxel grid and quality of the myelogram."""
    snr = float(np.exp(rng.uniform(*np.log(scenario.snr))))
    quality = (float(rng.uniform(0.0, 0.7)), snr, float(rng.uniform(0.0, 0.45)))
    if scenario.acquisition == "3d":
        plane: Literal["sagittal", "coronal"] = "coronal" if rng.random() < 0.3 else "sagittal"
        voxel = float(rng.uniform(0.7, 1.1))
        return Acquisition(plane, voxel, voxel, *quality)
    thickness = float(rng.uniform(3.0, 4.2))
    pixel = float(rng.uniform(0.6, 1.0))
    if scenario.acquisition == "2d_axial":
        return Acquisition("axial", pixel, thickness, *quality)
    return Acquisition("sagittal", pixel, thickness, *quality)


def _companion(patient: Patient, painted: Painted, rng: Rng) -> Volume:
    """Return the T2 volume with the simulated fluid as bright as CSF."""
    signal = patient.relative_signal.copy()
    near = painted.fraction > 0
    signal[near] += painted.fraction[near] * (np.float32(0.95) - signal[near])
    acquisition = Acquisition("sagittal", 0.8, patient.image.geometry.spacing_ijk_mm[0], snr=40.0)
    grid = acquisition_grid(patient, acquisition)
    noisy = acquire(sample_on(Volume(signal, patient.image.geometry), grid), grid, acquisition, rng)
    return Volume(noisy, grid, Provenance(f"simulated companion {patient.number}"))


def _ids_on(
    painted: Painted, patient: Patient, fraction: Array, grid: Geometry
) -> npt.NDArray[np.uint8]:
    """Return the id of the collection that fills at least half of each voxel."""
    ids = Volume(painted.ids, patient.image.geometry).resample(grid, order=0).array
    if len(painted.positions) == 1:
        ids = np.ones_like(ids)
    return np.where(fraction >= 0.5, ids, 0).astype(np.uint8)


def _paint(patient: Patient, scenario: SimulationScenario, rng: Rng) -> Painted:
    """Draw the collections and mimics of a scenario."""
    length = patient.centerline.length_mm - CAUDAL_EXTENSION_MM
    shape = patient.image.geometry.shape
    fraction, ids = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    positions: dict[int, Position] = {}
    for number, pattern in enumerate(scenario.patterns, start=1):
        # Multiple collections are placed in equal parts of the canal.
        part = length / len(scenario.patterns)
        window = (part * (number - 1), part * number - (12.0 if len(scenario.patterns) > 1 else 0))
        layer, position = _collection(patient, scenario, pattern, window, rng)
        more = layer > fraction
        fraction[more], ids[more] = layer[more], number
        positions[number] = position
    mimics = np.zeros(shape, np.float32)
    for kind in scenario.mimics:
        np.maximum(mimics, _mimic(patient, kind, rng), out=mimics)
    return Painted(fraction, ids, positions, mimics)


def _collection(
    patient: Patient, scenario: SimulationScenario, pattern: Pattern,
    window: tuple[float, float], rng: Rng,
) -> tuple[Array, Position]:  # fmt: skip
    extent = min(float(rng.uniform(*scenario.length_mm)), 0.95 * (window[1] - window[0]))
    start = float(rng.uniform(window[0], window[1] - extent))
    low, high = np.log(scenario.thickness_mm)
    thickness = float(np.exp(rng.uniform(low, high)))
    position: Position = "dorsal" if pattern == "pseudomeningocele" else pattern
    half_width = float(rng.uniform(0.6, 1.3))
    layer = Layer(
        position, (start, start + extent), half_width, thickness, float(rng.uniform(0.3, 0.9))
    )
    if pattern != "pseudomeningocele":
        return paint_layer(patient, layer, rng), position
    middle = float(rng.uniform(0.35, 0.95)) * (window[1] - window[0]) + window[0]
    radii = (float(rng.uniform(9, 28)), float(rng.uniform(7, 20)), float(rng.uniform(5, 13)))
    depth = float(rng.uniform(14, 24)) + radii[2]
    pool = Pool(middle, float(rng.normal(0, 2)), depth, radii, float(rng.uniform(1.5, 4.0)))
    painted = paint_pool(patient, pool)
    if rng.random() < 0.5:
        reach = (max(middle - extent / 2, 1.0), min(middle + extent / 2, window[1]))
        thin = replace(layer, arc_mm=reach, thickness_mm=min(thickness, 4.0))
        painted = np.maximum(painted, paint_layer(patient, thin, rng))
    return painted, position


def _mimic(patient: Patient, kind: Mimic, rng: Rng) -> Array:
    """Return the signal of one kind of mimic, relative to CSF."""
    length = patient.centerline.length_mm - CAUDAL_EXTENSION_MM
    total = np.zeros(patient.image.geometry.shape, np.float32)
    u = rng.uniform

    def add(fraction: Array, low: float, high: float) -> None:
        """Add a structure with a random signal between two limits."""
        np.maximum(total, np.float32(u(low, high)) * fraction, out=total)

    if kind == "veins":
        for _ in range(int(rng.integers(2, 7))):
            start = u(0, length - 12)
            side = rng.choice([-0.6, 0.6]) + (0 if rng.random() < 0.7 else np.pi)
            arc_mm, angle = (start, start + u(10, 45)), -np.pi / 2 + side + u(-0.3, 0.3)
            add(paint_vein(patient, arc_mm, angle, u(0.5, 1.1), rng), 0.2, 0.75)
    elif kind in ("basivertebral", "facet"):
        heights, _, backs = patient.centerline.project(np.array(list(patient.discs.values())))
        heights = np.sort(heights)
        levels = 0.5 * (heights[1:] + heights[:-1]) if kind == "basivertebral" else heights
        for arc in levels[rng.random(len(levels)) < 0.6]:
            if kind == "basivertebral":
                center = (arc, u(-2, 2), 0.45 * float(np.median(backs)) - 2)
                radii, sides = (u(1.0, 2.5), u(2.0, 5.0), u(3.0, 7.0)), [1.0]
            else:
                center = (arc + u(-4, 4), u(12, 17), u(5, 12))
                radii, sides = (u(2, 6), u(0.8, 2.0), u(2, 5)), [1.0, -1.0]
            for sign in sides:
                side_center = (center[0], sign * center[1], center[2])
                add(paint_blob(patient, side_center, radii), 0.3, 0.95)
    elif kind == "cyst":
        for _ in range(int(rng.integers(1, 4))):
            arc, sign, size = u(0.2 * length, length + 15), float(rng.choice([-1, 1])), u(1.5, 6.0)
            center = (arc, sign * (8.0 + size), u(-3, 4))
            add(paint_blob(patient, center, (size * u(0.8, 1.6), size, size)), 0.8, 1.1)
    elif kind == "seroma":
        radii = (float(u(8, 25)), float(u(6, 18)), float(u(4, 9)))
        pool = Pool(u(0.4, 0.95) * length, u(-3, 3), u(26, 34) + radii[2], radii, 0.0)
        add(paint_pool(patient, pool), 0.8, 1.1)
    else:  # lobules of fat of varying brightness
        for _ in range(int(rng.integers(2, 6))):
            center = (u(0, length), u(-5, 5), u(9, 16))
            radii = (u(3, 10), u(2, 5), u(1.5, 4))
            fat = np.clip(patient.relative_signal, 0, 1) * paint_blob(patient, center, radii)
            add(fat, 0.3, 0.8)
    total[patient.labels.array == DISC] *= 0.3
    return total
