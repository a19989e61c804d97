"""Postoperative changes: posterior arches, posterior extension of fluid, metal artifacts.

Everything is measured in canal coordinates without reference to level names, which are added by
`postoperative_changes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, label, percentile_filter
from scipy.special import expit

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM, ArcGrid, CanalVoxels, canal_voxels
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import (
    MetalArtifact,
    PosteriorArch,
    PosteriorExtension,
    PostoperativeChanges,
)
from leakloc.localization.surroundings import skin_depth_mm
from leakloc.segmentation.result import Candidate, Segmentation

_STEP_MM: Final = 1.0
"""Distance of samples along the canal and posterior to it."""

_MIN_INSIDE: Final = 0.9
"""Minimum fraction of samples in the field of view."""

_SPINOUS_MM: Final = (18.0, 36.0)
"""Range posterior to the centerline in which a spinous process is looked for: beyond the canal and
its enlargement by a laminectomy (17 mm), up to the tips of short processes."""

_SPINOUS_ASIDE_MM: Final = 6.0
"""Lateral range, for scoliosis and rotation; the articular processes are more lateral."""

_PATCH_MM: Final = 10
"""Edge length of a patch of bone marrow; a lumbar spinous process is 15 to 25 mm high."""

_PATCH_PERCENTILE: Final = 30
"""Percentile of the signal that a patch must reach, robust to texture."""

_BODY_MM: Final = (-32.0, -18.0)
"""Range anterior to the centerline of the reference signal, the vertebral bodies."""

_BODY_REACH_MM: Final = 15.0
_BODY_PERCENTILE: Final = 75
"""The reference is this percentile within this distance along the canal, half a level; discs, most
of them darker than the bodies, are up to half of the range."""

_MIN_FLUID: Final = 0.2
"""Minimum fluid fraction of samples that are not bone marrow."""

_SPINOUS_LEVELS: Final = (-0.25, 0.6)
"""Range of the spinous process relative to the middle of its vertebra, in levels (caudal is
positive): includes those of phantoms and of 17 patients, excludes those of adjacent vertebrae."""

_ARCH_RATIO: Final = 0.6
_ARCH_RATIO_SCALE: Final = 0.03
"""Signal of a patch relative to the vertebral body at which presence and absence of the process
are equally probable, and scale of the logistic function; from phantoms (seeds 41 to 44) and 17
development patients."""

_MIN_ARCH_CONFIDENCE: Final = 0.7
"""Below this confidence neither presence nor absence is reported."""

_VOID_STEP_MM: Final = 2.0
_VOID_REACH_MM: Final = 26.0
"""Distance from the centerline in which signal voids are looked for: canal, pedicles, laminae and
the posterior part of the bodies. All 8 voids of the development phantoms and patients without metal
were 30 mm or more from it."""

_VOID_SIGNAL: Final = 0.1
"""Maximum signal of a void relative to the vertebral bodies."""

_VOID_RADIUS_MM: Final = 4.0
"""Minimum radius of a sphere within a void; cortical bone and ligaments are thinner."""

_MIN_POSTERIOR_ML: Final = 0.5
"""Minimum volume of fluid posterior to the canal of a posterior extension."""

_END_PERCENTILE: Final = 99.0
"""Percentile of the distance posterior to the canal that is the posterior end of a collection."""

_MAX_NECK_RATIO: Final = 0.5
"""Maximum cross-section of a neck relative to that of the fluid posterior to it."""

_SHELL_MM: Final = 2.0
"""Thickness of the layers parallel to the back of the canal in which a neck is looked for."""


@dataclass(frozen=True, eq=False)
class ArchProfile:
    """Signal of bone marrow posterior to the canal.

    Parameters
    ----------
    points_lps : ndarray, shape (n, 3)
        Positions on the centerline.
    ratio : ndarray, shape (n,)
        Highest signal of a patch relative to the vertebral bodies; NaN outside the image.
    """

    points_lps: FloatArray
    ratio: FloatArray


@dataclass(frozen=True, eq=False)
class VoidProfile:
    """Distance of signal voids of metal from the canal.

    Parameters
    ----------
    points_lps : ndarray, shape (n, 3)
        Positions on the centerline.
    distance_mm : ndarray, shape (n,)
        Distance of the nearest void from the centerline; infinite without a void.
    """

    points_lps: FloatArray
    distance_mm: FloatArray


@dataclass(frozen=True, eq=False)
class FluidExtension:
    """Extension of one collection posterior to the canal.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the candidate: identifiers change when cisterns are excluded.
    neck_lps : ndarray, shape (3,), or None
        Center of the narrowest cross-section between the canal and the fluid posterior to it.
    neck_width_mm : float or None
        Diameter of the circle of equal area.
    end_lps : ndarray, shape (3,)
        Posterior end.
    canal_distance_mm : float
        Distance of the posterior end from the posterior border of the canal.
    skin_distance_mm : float or None
        Distance of the posterior end from the skin; None if the skin is not in the field of view.
    is_subcutaneous : bool
        Whether the collection extends into the subcutaneous tissue.
    """

    center_lps: FloatArray
    neck_lps: FloatArray | None
    neck_width_mm: float | None
    end_lps: FloatArray
    canal_distance_mm: float
    skin_distance_mm: float | None
    is_subcutaneous: bool


@dataclass(frozen=True, eq=False)
class SurgicalBed:
    """Measurements of postoperative changes.

    Parameters
    ----------
    arches : ArchProfile or None
        None without a T2-weighted companion series.
    voids : VoidProfile or None
        None without a T2-weighted companion series.
    extensions : tuple of FluidExtension
    """

    arches: ArchProfile | None
    voids: VoidProfile | None
    extensions: tuple[FluidExtension, ...]


def measure_surgical_bed(segmentation: Segmentation, anatomy: Volume | None) -> SurgicalBed:
    """Measure arches, metal and posterior extensions of fluid.

    Parameters
    ----------
    segmentation : Segmentation
    anatomy : Volume or None
        Registered companion series. Arches and metal are assessed only if it is T2-weighted; on
        T1 the contrast of scar and bone marrow was not evaluated.
    """
    line = segmentation.centerline
    arches = voids = None
    if anatomy is not None:
        arc_mm = np.arange(0.0, line.length_mm, _STEP_MM)
        body = _body_signal(anatomy, line, arc_mm)
        if _is_t2_weighted(anatomy, line, arc_mm, body):
            arches = _arch_profile(anatomy, segmentation.fluid_fraction, line, arc_mm, body)
            voids = _void_profile(anatomy, line, arc_mm, body)
    extensions = filter(None, (_extension(c, segmentation, anatomy) for c in segmentation.accepted))
    return SurgicalBed(arches, voids, tuple(extensions))


def postoperative_changes(
    bed: SurgicalBed | None,
    coordinate: LevelCoordinate,
    line: Centerline,
    candidates: Iterable[Candidate],
) -> PostoperativeChanges | None:
    """Return the measurements with level names; None without measurements.

    Parameters
    ----------
    bed : SurgicalBed or None
    coordinate : LevelCoordinate
    line : Centerline
        Centerline of `coordinate`.
    candidates : iterable of Candidate
        Reported collections.
    """
    if bed is None:
        return None
    return PostoperativeChanges(
        arches=() if bed.arches is None else _arches(bed.arches, coordinate, line),
        arches_assessed=bed.arches is not None and coordinate.is_labeled,
        extensions=tuple(
            _named_extension(one, candidate.id, coordinate, line)
            for candidate in candidates
            for one in bed.extensions
            if np.array_equal(one.center_lps, candidate.center_lps)
        ),
        metal=() if bed.voids is None else _metal(bed.voids, coordinate, line),
        metal_assessed=bed.voids is not None,
    )


def _grid(
    line: Centerline, arc_mm: FloatArray, left_mm: FloatArray, dorsal_mm: FloatArray
) -> FloatArray:
    """Return points in canal coordinates, shape (arc, left, dorsal, 3)."""
    _, left, dorsal = line.frame_at(arc_mm)
    return np.asarray(
        line.at(arc_mm)[:, None, None]
        + left_mm[None, :, None, None] * left[:, None, None]
        + dorsal_mm[None, None, :, None] * dorsal[:, None, None]
    )


def _steps(low_mm: float, high_mm: float, step_mm: float) -> FloatArray:
    return np.arange(low_mm, high_mm + 0.5 * step_mm, step_mm)


def _body_signal(anatomy: Volume, line: Centerline, arc_mm: FloatArray) -> FloatArray:
    """Return the signal of the vertebral bodies at each position; NaN outside the image."""
    aside = _steps(-_SPINOUS_ASIDE_MM, _SPINOUS_ASIDE_MM, 3.0)
    points = _grid(line, arc_mm, aside, _steps(*_BODY_MM, 2.0))
    inside = anatomy.geometry.contains(points)
    signal = np.where(inside, anatomy.sample(points), np.nan).reshape(len(arc_mm), -1)
    reach = round(_BODY_REACH_MM / _STEP_MM)
    body = np.full(len(arc_mm), np.nan)
    for n in range(len(arc_mm)):
        near = signal[max(n - reach, 0) : n + reach + 1]
        if np.isfinite(near).mean() >= _MIN_INSIDE / 2:
            body[n] = np.nanpercentile(near, _BODY_PERCENTILE)
    return np.where(body > 0, body, np.nan)


def _is_t2_weighted(
    anatomy: Volume, line: Centerline, arc_mm: FloatArray, body: FloatArray
) -> bool:
    """Return whether CSF at the centerline is brighter than the vertebral bodies."""
    aside = _steps(-4.0, 4.0, 2.0)
    csf = np.quantile(anatomy.sample(_grid(line, arc_mm, aside, aside)), 0.75, axis=(1, 2))
    known = np.isfinite(body)
    return bool(known.any()) and bool(np.median(csf[known] / body[known]) > 1.0)


def _arch_profile(
    anatomy: Volume, fluid: Volume, line: Centerline, arc_mm: FloatArray, body: FloatArray
) -> ArchProfile:
    """Return the highest signal of a patch posterior to the canal at each position."""
    aside = _steps(-_SPINOUS_ASIDE_MM, _SPINOUS_ASIDE_MM, 2.0)
    points = _grid(line, arc_mm, aside, _steps(*_SPINOUS_MM, _STEP_MM))
    inside = anatomy.geometry.contains(points)
    signal = np.where(fluid.sample(points) > _MIN_FLUID, 0.0, anatomy.sample(points))
    size = round(_PATCH_MM / _STEP_MM)
    patch = percentile_filter(signal, _PATCH_PERCENTILE, size=(size, 2, size))
    margin = size // 2
    highest = patch[:, 1:, margin:-margin].max(axis=(1, 2))
    known = inside.mean(axis=(1, 2)) >= _MIN_INSIDE
    return ArchProfile(line.at(arc_mm), np.where(known, highest / body, np.nan))


def _arches(
    profile: ArchProfile, coordinate: LevelCoordinate, line: Centerline
) -> tuple[PosteriorArch, ...]:
    arc_mm = line.project(profile.points_lps)[0]
    found = []
    for index, name in enumerate(coordinate.chain):
        # Thoracic processes overlap, and arches of the sacrum are often incomplete.
        if not name.startswith("L") or not coordinate.is_labeled:
            continue
        middle, below = coordinate.arc_at([index, index + 1])
        if not np.isfinite([middle, below]).all():
            continue
        pitch_mm = below - middle
        low, high = (
            middle + levels * pitch_mm - end * 0.5 * _PATCH_MM
            for levels, end in zip(_SPINOUS_LEVELS, (-1.0, 1.0), strict=True)
        )
        ratio = profile.ratio[(arc_mm >= low) & (arc_mm <= high)]
        if len(ratio) * _STEP_MM < _MIN_INSIDE * (high - low) - _STEP_MM:
            continue
        is_known = len(ratio) > 0 and np.isfinite(ratio).mean() >= _MIN_INSIDE
        margin = (float(np.nanmax(ratio)) - _ARCH_RATIO) / _ARCH_RATIO_SCALE if is_known else 0.0
        confidence = float(expit(abs(margin)))
        if confidence < _MIN_ARCH_CONFIDENCE:
            found.append(PosteriorArch(vertebra=name, present=None, confidence=0.0))
        else:
            found.append(PosteriorArch(vertebra=name, present=margin > 0, confidence=confidence))
    return tuple(found)


def _void_profile(
    anatomy: Volume, line: Centerline, arc_mm: FloatArray, body: FloatArray
) -> VoidProfile:
    """Return the distance of the nearest signal void that contains a sphere, at each position."""
    at = slice(None, None, round(_VOID_STEP_MM / _STEP_MM))
    # A void is assessed by the sphere it contains, which may reach beyond the region.
    reach_mm = _VOID_REACH_MM + 2.0 * _VOID_RADIUS_MM
    across_mm = _steps(-reach_mm, reach_mm, _VOID_STEP_MM)
    points = _grid(line, arc_mm[at], across_mm, across_mm)
    inside = anatomy.geometry.contains(points)
    dark = inside & (anatomy.sample(points) < _VOID_SIGNAL * body[at][:, None, None])
    # Outside the image nothing is known: a void must be surrounded by signal.
    depth = distance_transform_edt(np.pad(dark, 1), sampling=_VOID_STEP_MM)[1:-1, 1:-1, 1:-1]
    away = np.hypot(across_mm[:, None], across_mm[None])
    distance = np.where(_opened(dark, depth), away, np.inf).min(axis=(1, 2))
    distance[distance > _VOID_REACH_MM] = np.inf
    return VoidProfile(line.at(arc_mm[at]), distance)


def _opened(dark: npt.NDArray[np.bool_], depth: FloatArray) -> npt.NDArray[np.bool_]:
    """Return the parts of a mask within spheres of the minimum radius."""
    core = depth >= _VOID_RADIUS_MM
    if not core.any():
        return core
    near = distance_transform_edt(~core, sampling=_VOID_STEP_MM) < _VOID_RADIUS_MM
    return np.asarray(dark & near)


def _metal(
    voids: VoidProfile, coordinate: LevelCoordinate, line: Centerline
) -> tuple[MetalArtifact, ...]:
    """Return the stretches of the canal cranial to the middle of S1 adjacent to a void."""
    arc_mm = line.project(voids.points_lps)[0]
    sacrum_mm = coordinate.body_arc("S1")
    is_spine = arc_mm < (np.inf if sacrum_mm is None else sacrum_mm)
    number, count = label(np.isfinite(voids.distance_mm) & is_spine)
    found = []
    for n in range(1, count + 1):
        along = np.flatnonzero(number == n)
        distance = voids.distance_mm[along]
        start, stop = arc_mm[along[0]], arc_mm[along[-1]]
        found.append(
            MetalArtifact(
                segments=coordinate.segments_between(start, stop + _VOID_STEP_MM),
                cranial_lps_mm=voids.points_lps[along[0]],
                caudal_lps_mm=voids.points_lps[along[-1]],
                length_mm=stop - start + _VOID_STEP_MM,
                canal_distance_mm=max(float(distance.min()) - CANAL_RADIUS_MM, 0.0),
                hidden_canal_mm=_VOID_STEP_MM * int((distance < CANAL_RADIUS_MM).sum()),
            )
        )
    return tuple(found)


def _extension(
    candidate: Candidate, segmentation: Segmentation, anatomy: Volume | None
) -> FluidExtension | None:
    """Return the extension of a collection posterior to the canal, if it has one."""
    if not {"paraspinal", "subcutaneous"} & set(candidate.compartments):
        return None
    index = np.flatnonzero(segmentation.collections.array == candidate.id)
    line = segmentation.centerline
    fraction = segmentation.fluid_fraction
    voxels = canal_voxels(index, fraction.geometry, fraction.array, line)
    behind = (voxels.dorsal_mm > CANAL_RADIUS_MM) & (voxels.dorsal_mm > np.abs(voxels.left_mm))
    posterior = voxels.where(behind)
    if posterior.fluid_ml < _MIN_POSTERIOR_ML:
        return None
    last = posterior.dorsal_mm >= np.percentile(posterior.dorsal_mm, _END_PERCENTILE)
    end = posterior.points_lps[last].mean(axis=0)
    arc_mm, _, dorsal_mm = line.project(end)
    skin = None if anatomy is None else skin_depth_mm(anatomy, end, line.frame_at(float(arc_mm))[2])
    neck = _neck(voxels.where(voxels.dorsal_mm > np.abs(voxels.left_mm)))
    return FluidExtension(
        candidate.center_lps,
        None if neck is None else neck[0],
        None if neck is None else neck[1],
        end,
        float(dorsal_mm) - CANAL_RADIUS_MM,
        skin,
        "subcutaneous" in candidate.compartments,
    )


def _neck(voxels: CanalVoxels) -> tuple[FloatArray, float] | None:
    """Return center and width of the narrowest layer between canal and posterior fluid."""
    grid = ArcGrid.over(voxels.dorsal_mm, _SHELL_MM / 2, 0.0)
    area = grid.smooth(
        grid.spread(voxels.dorsal_mm, voxels.fluid * voxels.voxel_mm3) / grid.step_mm, _SHELL_MM / 2
    )
    outside = grid.centers_mm > CANAL_RADIUS_MM
    if not outside.any() or outside.all():
        return None
    canal = int(np.where(outside, -1.0, area).argmax())
    beyond = area[canal:]
    least = np.minimum.accumulate(beyond)
    # The first widening: a tract posterior to it may be narrower.
    pool = np.flatnonzero((least <= _MAX_NECK_RATIO * beyond) & outside[canal:])
    if not len(pool):
        return None
    narrowest = canal + int(beyond[: pool[0] + 1].argmin())
    if area[narrowest] <= 0.0:
        return None
    layer = np.abs(voxels.dorsal_mm - grid.centers_mm[narrowest]) <= _SHELL_MM / 2
    if not layer.any():
        return None
    weights = np.maximum(voxels.fluid[layer], 1e-3)
    center = np.average(voxels.points_lps[layer], axis=0, weights=weights)
    return center, float(np.sqrt(4.0 * area[narrowest] / np.pi))


def _named_extension(
    one: FluidExtension, number: int, coordinate: LevelCoordinate, line: Centerline
) -> PosteriorExtension:
    def level(point_lps: FloatArray | None) -> str | None:
        if point_lps is None:
            return None
        return coordinate.segment_at(float(line.project(point_lps)[0]))

    compartment: Literal["paraspinal", "subcutaneous"] = (
        "subcutaneous" if one.is_subcutaneous else "paraspinal"
    )
    return PosteriorExtension(
        collection=number,
        neck_level=level(one.neck_lps),
        neck_width_mm=one.neck_width_mm,
        neck_lps_mm=one.neck_lps,
        end_level=level(one.end_lps),
        end_lps_mm=one.end_lps,
        canal_distance_mm=one.canal_distance_mm,
        skin_distance_mm=one.skin_distance_mm,
        compartment=compartment,
    )
