"""The series of a study: grid and series description of each sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Geometry
from leakloc.validation.phantom.anatomy import Anatomy
from leakloc.validation.phantom.scenario import FieldOfView, Scenario, SequenceName, Vendor
from leakloc.validation.phantom.sequences import Sequence

FIELD_MM: Final[dict[FieldOfView, float]] = {
    "lumbar": 320.0,
    "lumbar_without_hiatus": 260.0,
    "thoracolumbar": 380.0,
    "cervicothoracic": 288.0,
    "whole_spine": 288.0,
}
"""Usual craniocaudal length of each field of view."""

STATION_OVERLAP_MM: Final = 40.0

HEAD_MM: Final = 16.0
"""Length of a cervicothoracic field of view above the foramen magnum."""


@dataclass(frozen=True, eq=False)
class PhantomSeries:
    """One series of a study, not yet rendered.

    Parameters
    ----------
    number : int
        Series number.
    name : str
        Series description of the vendor protocol (empty if anonymized).
    stacks : tuple of Geometry
        Grids in the order they are written; more than one for localizers and radial slabs.
    station : int or None
        Couch position of a station; None for a single or composed series.
    composed : bool
        Whether the series is composed from stations.
    """

    number: int
    name: str
    sequence: Sequence
    stacks: tuple[Geometry, ...]
    station: int | None = None
    composed: bool = False
    derived: bool = False

    @property
    def geometry(self) -> Geometry:
        """The first (usually only) grid."""
        return self.stacks[0]


_NAMES: Final[dict[Vendor, dict[SequenceName, tuple[str, ...]]]] = {
    "siemens": {
        "ht2w_3d": ("t2_space_myelo_sag_p2_iso", "t2_spc_myelo_fs_iso", "MYELO 3D SPACE"),
        "ht2w_bssfp": ("t2_ci3d_sag_iso", "ciss3d_sag"),
        "ht2w_slab": ("t2_haste_myelo_cor_sag", "myelo_haste_radial"),
        "ht2w_mip": ("t2_space_myelo_MIP_RADIAL",),
        "t2_sagittal": ("t2_tse_sag_p2", "T2 TSE SAG LWS", "t2_tse_sag_384"),
        "stir_sagittal": ("t2_tirm_sag_p2", "STIR SAG"),
        "t1_sagittal": ("t1_tse_sag", "T1 TSE SAG LWS"),
        "t2_axial": ("t2_tse_tra_384", "T2 TSE TRA"),
        "t1_axial_post": ("t1_tse_tra_fs_KM", "T1 TSE TRA FS +KM"),
        "localizer": ("localizer", "AAScout"),
        "t1_axial": ("t1_tse_tra_fs",),
        "t1_sagittal_post": ("t1_tse_sag_KM",),
        "t1_intrathecal": ("t1_tse_sag_fs_KM",),
        "ht2w_coronal": ("t2_space_myelo_cor_p2_iso",),
        "t2_fs_sagittal": ("t2_tse_sag_fs",),
    },
    "ge": {
        "ht2w_3d": ("3D CUBE MYELO SAG", "Sag CUBE T2 FS Myelogram"),
        "ht2w_bssfp": ("3D FIESTA-C SAG",),
        "ht2w_slab": ("SSFSE MYELO RADIAL", "Thick slab SSFSE myelo"),
        "ht2w_mip": ("PJN: 3D CUBE MYELO",),
        "t2_sagittal": ("Sag T2 FRFSE", "SAG T2"),
        "stir_sagittal": ("Sag STIR",),
        "t1_sagittal": ("Sag T1 FSE",),
        "t2_axial": ("Ax T2 FRFSE",),
        "t1_axial_post": ("Ax T1 FS +C",),
        "localizer": ("3-Plane Loc", "3PL LOC SSFSE"),
        "t1_axial": ("Ax T1 FS",),
        "t1_sagittal_post": ("Sag T1 FSE +C",),
        "t1_intrathecal": ("Sag T1 FS +C",),
        "ht2w_coronal": ("3D CUBE MYELO COR",),
        "t2_fs_sagittal": ("Sag T2 FS",),
    },
    "philips": {
        "ht2w_3d": ("3D_MYELO_VISTA", "sMYELO_3D_VIEW SENSE"),
        "ht2w_bssfp": ("3D_bFFE_SAG",),
        "ht2w_slab": ("MYELO_SSH_RAD", "SSh_TSE_Myelo"),
        "ht2w_mip": ("MIP 3D_MYELO_VISTA",),
        "t2_sagittal": ("T2W_TSE_SAG", "SAG T2 TSE mVISTA OFF"),
        "stir_sagittal": ("STIR_longTE_SAG",),
        "t1_sagittal": ("T1W_TSE_SAG",),
        "t2_axial": ("T2W_TSE_AX",),
        "t1_axial_post": ("T1W_SPIR_AX_GD",),
        "localizer": ("Survey", "SURVEY_LSPINE"),
        "t1_axial": ("T1W_SPIR_AX",),
        "t1_sagittal_post": ("T1W_TSE_SAG_GD",),
        "t1_intrathecal": ("T1W_SPIR_SAG_GD",),
        "ht2w_coronal": ("3D_MYELO_VISTA_COR",),
        "t2_fs_sagittal": ("T2W_SPAIR_SAG",),
    },
    "canon": {
        "ht2w_3d": ("3D MPV MYELO SAG",),
        "ht2w_bssfp": ("3D True SSFP SAG",),
        "ht2w_slab": ("FASE MYELO RADIAL", "2D FASE MRM"),
        "ht2w_mip": ("MIP 3D MPV MYELO",),
        "t2_sagittal": ("SAG T2W FSE",),
        "stir_sagittal": ("SAG STIR FastIR",),
        "t1_sagittal": ("SAG T1W FSE",),
        "t2_axial": ("AX T2W FSE",),
        "t1_axial_post": ("AX T1W FS CE",),
        "localizer": ("Locator", "3 Axis Locator"),
        "t1_axial": ("AX T1W FS",),
        "t1_sagittal_post": ("SAG T1W FSE CE",),
        "t1_intrathecal": ("SAG T1W FS CE",),
        "ht2w_coronal": ("3D MPV MYELO COR",),
        "t2_fs_sagittal": ("SAG T2W FSE FS",),
    },
    "uih": {
        "ht2w_3d": ("t2_mx3d_myelo_sag_fs", "MRM_mx3d_sag"),
        "ht2w_bssfp": ("bssfp_3d_sag",),
        "ht2w_slab": ("ssfse_mrm_radial",),
        "ht2w_mip": ("t2_mx3d_myelo_MIP",),
        "t2_sagittal": ("t2_fse_sag",),
        "stir_sagittal": ("t2_stir_sag",),
        "t1_sagittal": ("t1_fse_sag",),
        "t2_axial": ("t2_fse_tra",),
        "t1_axial_post": ("t1_fse_tra_fs_post",),
        "localizer": ("scout_3plane",),
        "t1_axial": ("t1_fse_tra_fs",),
        "t1_sagittal_post": ("t1_fse_sag_post",),
        "t1_intrathecal": ("t1_fse_sag_fs_post",),
        "ht2w_coronal": ("t2_mx3d_myelo_cor_fs",),
        "t2_fs_sagittal": ("t2_fse_sag_fs",),
    },
}


def plan_series(
    scenario: Scenario,
    anatomy: Anatomy,
    vendor: Vendor,
    sequences: dict[SequenceName, Sequence],
    focus_mm: float,
    rng: np.random.Generator,
) -> list[PhantomSeries]:
    """Plan the series of the study of a scenario in scanner order.

    Parameters
    ----------
    focus_mm : float
        Arc position of the center of axial slices.
    """
    wanted = list(scenario.series)
    for name in scenario.optional_series:
        if rng.random() < 0.5 and name not in wanted:
            after = wanted.index("t2_sagittal") + 1 if "t2_sagittal" in wanted else 1
            wanted.insert(after, name)
    myelogram = myelogram_geometry(scenario, anatomy, rng)
    planned: list[PhantomSeries] = []

    def add(
        sequence: SequenceName, stacks: tuple[Geometry, ...], suffix: str = "",
        station: int | None = None, composed: bool = False, derived: bool = False,
    ) -> None:  # fmt: skip
        names = _NAMES[vendor][sequence]
        name = "" if scenario.anonymised else names[int(rng.integers(len(names)))] + suffix
        planned.append(
            PhantomSeries(
                len(planned) + 1, name, sequences[sequence], stacks, station, composed, derived
            )
        )

    for sequence in wanted:
        if sequence in ("ht2w_3d", "ht2w_bssfp"):
            if scenario.stations > 1:
                for number, part in enumerate(station_slices(scenario, myelogram)):
                    add(sequence, (myelogram.cropped(part),), f"_{number + 1}", station=number)
                add(sequence, (myelogram,), "_COMP_SP", composed=True)
            else:
                add(sequence, (myelogram,))
        elif sequence == "ht2w_mip":
            add(sequence, projection_grids(myelogram), derived=True)
        elif sequence == "ht2w_slab":
            add(sequence, _slabs(scenario, anatomy, sequences[sequence], rng))
        elif sequence == "localizer":
            add(sequence, _localizer(scenario, anatomy))
        elif sequence == "ht2w_coronal":
            coronal = replace(scenario, plane="coronal", stations=1)
            add(sequence, (myelogram_geometry(coronal, anatomy, rng),))
        elif sequence in ("t2_axial", "t1_axial", "t1_axial_post"):
            add(sequence, (_axial(scenario, anatomy, sequences[sequence], focus_mm, rng),))
        else:
            add(sequence, (_sagittal(scenario, anatomy, sequences[sequence], myelogram, rng),))
    return planned


def field_center_lps(scenario: Scenario, anatomy: Anatomy, extent_mm: float) -> FloatArray:
    """Return the center of a field of view of craniocaudal length `extent_mm`."""
    line = anatomy.centerline
    if scenario.field_of_view == "cervicothoracic":
        z = float(line.at(anatomy.foramen_magnum_mm - HEAD_MM)[2]) - extent_mm / 2
        return _centered_on(line, z, extent_mm)
    low_end = {
        "lumbar": anatomy.site("S5").bottom_mm + 6,
        "thoracolumbar": anatomy.site("S5").bottom_mm + 6,
        "whole_spine": anatomy.site("S5").bottom_mm + 6,
        "lumbar_without_hiatus": anatomy.site("S2").at(0.9),
    }[scenario.field_of_view]
    return _centered_on(line, float(line.at(low_end)[2]) + extent_mm / 2, extent_mm)


def _centered_on(line: Centerline, z: float, extent_mm: float) -> FloatArray:
    """Return the center of a field of view at a height, so that it contains the spine."""
    covered = line.points_lps[np.abs(line.points_lps[:, 2] - z) < extent_mm / 2]
    middle = 0.5 * (covered.min(axis=0) + covered.max(axis=0))
    return np.array([covered[:, 0].mean(), middle[1], z])


def myelogram_geometry(scenario: Scenario, anatomy: Anatomy, rng: np.random.Generator) -> Geometry:
    """Return the grid of the (composed) three-dimensional myelogram."""
    rows, columns, slices = scenario.myelogram_shape
    voxel = scenario.voxel_mm or FIELD_MM[scenario.field_of_view] / rows
    if scenario.stations > 1:
        overlap = round(STATION_OVERLAP_MM / voxel)
        rows = scenario.stations * rows - (scenario.stations - 1) * overlap
    along_body = slices * scenario.slice_mm if scenario.plane == "axial" else rows * voxel
    center = field_center_lps(scenario, anatomy, along_body)
    center += np.array([rng.normal(0, 3), rng.normal(8, 6), rng.normal(0, 4)])
    plane = scenario.plane or str(rng.choice(["sagittal", "coronal"], p=[0.75, 0.25]))
    tilt = np.deg2rad(rng.uniform(*scenario.obliquity_deg, size=3) * rng.choice([-1, 1], 3))
    axes = _rotation(tilt) @ plane_axes(plane)
    if plane == "sagittal" and rng.random() < 0.5:
        axes[:, 2] *= -1  # slices numbered from the other side
    return centered(center, axes, (slices, rows, columns), (voxel, voxel, scenario.slice_mm))


def station_slices(scenario: Scenario, composed: Geometry) -> list[tuple[slice, slice, slice]]:
    """Return the part of the composed grid of each station, cranial to caudal."""
    rows = scenario.myelogram_shape[0]
    step = (composed.shape[1] - rows) // (scenario.stations - 1)
    everything = slice(None)
    return [
        (everything, slice(n * step, n * step + rows), everything) for n in range(scenario.stations)
    ]


def plane_axes(plane: str) -> FloatArray:
    """Return unit axes (columns i, j, k) of a standard plane in radiological orientation."""
    axes = {
        "sagittal": [(0, 1, 0), (0, 0, -1), (1, 0, 0)],
        "coronal": [(1, 0, 0), (0, 0, -1), (0, 1, 0)],
        "axial": [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
    }[plane]
    return np.array(axes, dtype=float).T


def centered(
    center_lps: FloatArray, axes: FloatArray, shape: tuple[int, int, int],
    spacing_ijk_mm: tuple[float, float, float],
) -> Geometry:  # fmt: skip
    """Return a grid of `shape` ``(k, j, i)`` around a center."""
    half = (np.array(shape[::-1]) - 1) / 2 * np.array(spacing_ijk_mm)
    return Geometry.from_axes(
        shape, origin_lps=list(center_lps - axes @ half), spacing_ijk_mm=spacing_ijk_mm,
        directions_lps=axes,
    )  # fmt: skip


def _rotation(angles_rad: FloatArray) -> FloatArray:
    rotation = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        p, q = (axis + 1) % 3, (axis + 2) % 3
        turn[p, p], turn[p, q], turn[q, p], turn[q, q] = c, -s, s, c
        rotation = turn @ rotation
    return rotation


def _sagittal(
    scenario: Scenario, anatomy: Anatomy, sequence: Sequence, myelogram: Geometry,
    rng: np.random.Generator,
) -> Geometry:  # fmt: skip
    thickness = sequence.thickness_mm or 4.0
    gap = thickness * float(rng.choice([1.0, 1.1, 1.1, 1.2]))
    spread = float(np.ptp(anatomy.centerline.points_lps[:, 0]))
    count = int(np.clip(round((58 + 0.6 * spread) / gap), 11, 25))
    body_axis = int(np.abs(myelogram.directions_lps[2]).argmax())  # of i, j, k
    extent = myelogram.shape[2 - body_axis] * myelogram.spacing_ijk_mm[body_axis]
    size = scenario.companion_matrix
    voxel = max(extent, 280.0) / size
    center = field_center_lps(scenario, anatomy, extent)
    center += np.array([rng.normal(0, 1.5), 8, rng.normal(0, 5)])
    axes = _rotation(np.deg2rad(rng.normal(0, 1.5, 3))) @ plane_axes("sagittal")
    columns = min(size, round(320 / voxel))
    return centered(center, axes, (count, size, columns), (voxel, voxel, gap))


_AXIAL_FIELD_MM: Final = 192.0
"""Field of view of axial companions."""


def _axial(
    scenario: Scenario, anatomy: Anatomy, sequence: Sequence, focus_mm: float,
    rng: np.random.Generator,
) -> Geometry:  # fmt: skip
    thickness = sequence.thickness_mm or 4.0
    gap = thickness * 1.1
    line = anatomy.centerline
    tangent, left, _ = line.frame_at(focus_mm)
    up = -tangent
    dorsal = np.cross(up, left)
    axes = np.stack([left, dorsal, up], axis=1)
    center = line.at(focus_mm) + 5 * dorsal
    voxel = scenario.axial_voxel_mm
    size = round(_AXIAL_FIELD_MM / voxel)
    return centered(center, axes, (int(rng.integers(24, 34)), size, size), (voxel, voxel, gap))


_COUNTING_GRID: Final = (5, 1.5, 7.0)
"""Number of planes, voxel size and plane spacing (mm) of a localizer for level counting."""


def _localizer(scenario: Scenario, anatomy: Anatomy) -> tuple[Geometry, ...]:
    if scenario.localizer == "whole_spine":
        planes, voxel, step = _COUNTING_GRID
        points = anatomy.centerline.points_lps
        low, high = points.min(axis=0), points.max(axis=0)
        rows = int((high[2] - low[2]) / voxel) + 16
        anterior = np.array([0.0, -15.0, 0.0])  # bodies are anterior to the canal
        middle = np.array([np.median(points[:, 0]), *(0.5 * (low + high))[1:]]) + anterior
        shape, size = (planes, rows, round(340 / voxel)), (voxel, voxel, step)
        return (centered(middle, plane_axes("sagittal"), shape, size),)
    center = field_center_lps(scenario, anatomy, 400.0)
    return tuple(
        centered(center, plane_axes(plane), (3, 160, 160), (2.5, 2.5, 20.0))
        for plane in ("sagittal", "coronal", "axial")
    )


def _slabs(
    scenario: Scenario, anatomy: Anatomy, sequence: Sequence, rng: np.random.Generator
) -> tuple[Geometry, ...]:
    extent = min(FIELD_MM[scenario.field_of_view], 380.0)
    size = 256
    center = field_center_lps(scenario, anatomy, extent)
    turns = np.linspace(0, np.pi, int(rng.choice([2, 6, 8])), endpoint=False)
    grids = []
    for turn in turns:
        across = np.array([np.cos(turn), np.sin(turn), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        axes = np.stack([across, down, np.cross(across, down)], axis=1)
        voxel = extent / size
        depth = sequence.thickness_mm or 50.0
        grids.append(centered(center, axes, (1, size, size), (voxel, voxel, depth)))
    return tuple(grids)


PROJECTIONS: Final = 8
"""Number of views of the derived maximum-intensity projection, over 180 degrees."""


def projection_grids(myelogram: Geometry) -> tuple[Geometry, ...]:
    """Return one single-slice grid per view, rotated about the column (craniocaudal) axis."""
    i, j, k = (myelogram.directions_lps[:, n] for n in range(3))
    rows = myelogram.shape[1] // 2
    voxel = myelogram.spacing_ijk_mm[1] * 2
    width = max(myelogram.shape[2] * myelogram.spacing_ijk_mm[0], 1.0)
    columns = max(round(width / voxel), 1)
    grids = []
    for turn in np.linspace(0, np.pi, PROJECTIONS, endpoint=False):
        across = np.cos(turn) * i + np.sin(turn) * k
        axes = np.stack([across, j, np.cross(across, j)], axis=1)
        grids.append(centered(myelogram.center_lps, axes, (1, rows, columns), (voxel, voxel, 1.0)))
    return tuple(grids)
