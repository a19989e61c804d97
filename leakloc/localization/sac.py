"""Measurement of the thecal sac."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import segment_name, split_segment
from leakloc.core.threshold import otsu_threshold
from leakloc.core.volume import FloatArray, Geometry
from leakloc.localization.canal import (
    SECTION_SMOOTHING_MM,
    ArcGrid,
    CanalVoxels,
    area_profile,
    centers_along,
    profile_ends,
    section_sigma_mm,
)
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import CaudalEnd, SacSegment, ThecalSac

_PROBE_MM = 8.0
"""Half depth of the canal: a section is complete if the field of view includes this distance
anterior and posterior to the centerline."""

_USUAL_AREA_MM2 = {
    "C2": 165.0, "C4": 138.0, "C6": 135.0, "T1": 135.0, "T4": 123.0, "T8": 133.0, "T10": 155.0,
    "T11": 175.0, "T12": 195.0, "L1": 200.0, "L2": 190.0, "L3": 175.0, "L4": 165.0, "L5": 160.0,
    "S1": 85.0,
}  # fmt: skip
"""Mean area of the sac at the disc below each vertebra in adults; only ratios are used. L5 is
derived from L4 and the sac depths in 17 development patients of SPIDER (13.5 mm at L5-S1, 12.7 mm
at L4-L5)."""

_NO_USUAL_WIDTH = frozenset({"S1"})
"""The sac ends between S1 and S3, so there is no typical width below L5-S1."""

_ENOUGH_SEGMENTS = 4
"""Minimum number of segments to estimate the typical width in a patient."""

_CUT_MM = 5.0
"""Areas this close to the cranial end are excluded: the field of view cuts the sac obliquely."""

_SEVERE_MM2 = 20.0
"""A smaller cross-section is severe stenosis or a signal void, with an outline based on a few
voxels. Absolute stenosis begins at 75 mm² (Schonstrom et al., Spine 1985;10:806)."""

_MIDLINE_MM = 4.0
"""The back of the sac is measured within this distance left and right of its center."""

_COMPRESSION_SMOOTHING_MM: Final = 4.0
"""Gaussian sigma of sac areas before comparison with neighboring positions."""

_COMPRESSION_REACH_MM: Final = 45.0
"""Distance above and below a collection over which the expected sac area is estimated; more than
one level, to average discs and bodies."""

_MAX_WIDTH_RATIO: Final = 1.6
"""Sac width of a segment, relative to the expected width and the median segment, above which the
sac mask may include epidural fluid. Sac depths of 17 people without a leak suggest at most 1.43
(area as depth to the power of 1.8)."""

_TIP_MARGIN_MM: Final = 8.0
"""Sac areas this close to the caudal end of the thecal sac are not measured, because the sac tapers
there."""

_TIP_AREA_MM2: Final = 2.5
"""The thecal sac ends where its cross-sectional area falls below this."""

_CSF_STEP_MM: Final = 10.0
_CSF_REACH_MM: Final = 15.0
"""Signals of CSF and of cord and roots are measured at this interval along the sac, within this
distance. Reaches of 10 to 25 mm gave equally repeatable volumes (18 pairs of scans)."""

_OTSU_BINS: Final = 50
"""Number of bins of the signal of some hundred voxels."""

_DARK_PERCENTILE: Final = 10.0
"""Percentile of the darker voxels that is the signal of cord and roots. The median, which includes
partial volume of CSF, gave volumes 11 % too small on phantoms (5 scans; this percentile 3 %)."""

_MIN_CSF_VOXELS: Final = 50
"""Minimum number of voxels for these signals."""

_MIN_CSF_CONTRAST: Final = 0.3
"""Minimum difference of both signals, as a fraction of CSF; less is variation of one of them."""

SAC_TAPER_MM: Final = 35.0
"""Length of the caudal taper of the sac (20 to 55 mm), over which compression and the posterior
border of the canal are not measured."""

_LUMBOSACRAL_DISC_MM: Final = 10.0
"""Distance cranial to the center of the lumbosacral disc within which the sac counts as ending at
the disc: half its height (5 mm) and the error of the caudal end (5 mm). In 743 adults the sac ended
between the L5-S1 disc and the upper third of S3 (Binokay et al., Acta Radiol 2006;47:397)."""

_TAPER_FIT_MM: Final = (3.0, 15.0)
"""Distances cranial to the end of the mask over which the taper of the sac is measured: beyond the
smoothing of areas, within the shortest taper."""

_NARROW_FRACTION: Final = 0.4
_MAX_NARROW_MM: Final = 10.0
"""Length of the sac caudal to the end of its mask, as a fraction of the length over which a cone
with the same taper would end, and its maximum. The mask ends where nerve roots and partial volume
leave no visible CSF (cross-sections of about 12 mm²); with 0.4, the median error of the caudal end
in 14 development phantoms (seeds 41 to 43) was -1.4 mm, without continuation -6.9 mm."""

FIELD_MARGIN_MM: Final = 4.0
"""Structures that end this close to the edge of the field of view may continue beyond it."""


@dataclass(frozen=True, eq=False)
class SacProfile:
    """The sac along the canal, one value per bin of `grid`.

    Parameters
    ----------
    area_mm2 : ndarray
        Cross-section perpendicular to the canal, zero without a sac.
    left_mm, dorsal_mm : ndarray
        Center of the cross-section, as offsets from the centerline.
    back_mm : ndarray
        Dorsal offset of the back of the sac near the midline; NaN without a sac.
    whole : ndarray of bool
        Whether the field of view includes the full depth of the cross-section.
    ends_mm : (float, float) or None
        Cranial and caudal end of the sac along the centerline; None without a sac.
    """

    grid: ArcGrid
    centerline: Centerline
    area_mm2: FloatArray
    left_mm: FloatArray
    dorsal_mm: FloatArray
    back_mm: FloatArray
    whole: npt.NDArray[np.bool_]
    ends_mm: tuple[float, float] | None

    def measurable(self) -> npt.NDArray[np.bool_]:
        """Return bins with a complete cross-section, away from the ends of the sac."""
        if self.ends_mm is None:
            return np.zeros(self.grid.count, dtype=bool)
        first = self.ends_mm[0] + _CUT_MM
        last = self.ends_mm[1] - _TIP_MARGIN_MM
        arc = self.grid.centers_mm
        return self.whole & (arc >= first) & (arc <= last)


def sac_profile(
    voxels: CanalVoxels,
    grid: ArcGrid,
    centerline: Centerline,
    geometry: Geometry,
) -> SacProfile:
    """Measure area, center and back of the sac along the canal."""
    sigma_mm = section_sigma_mm(geometry, centerline, SECTION_SMOOTHING_MM)
    sharp_mm = section_sigma_mm(geometry, centerline, 0.0)
    sharp = area_profile(grid, voxels, 1.0, sharp_mm)
    area = area_profile(grid, voxels, 1.0, sigma_mm)
    left, dorsal = centers_along(grid, voxels, sigma_mm=3.0)
    back = _backs(voxels, grid, left, geometry)
    ends = None
    if len(voxels):
        ends = profile_ends(sharp, grid, _TIP_AREA_MM2, sharp_mm)
    return SacProfile(
        grid,
        centerline,
        area,
        left,
        dorsal,
        back,
        _whole_sections(grid, centerline, geometry),
        ends,
    )


def _backs(
    voxels: CanalVoxels, grid: ArcGrid, left_mm: FloatArray, geometry: Geometry
) -> FloatArray:
    near = np.abs(voxels.left_mm - left_mm[grid.bin_of(voxels.arc_mm)]) <= _MIDLINE_MM
    back = np.full(grid.count, -np.inf)
    np.maximum.at(back, grid.bin_of(voxels.arc_mm[near]), voxels.dorsal_mm[near])
    half_voxel = 0.5 * geometry.voxel_volume_ml ** (1 / 3) * 10.0
    return np.where(np.isfinite(back), back + half_voxel, np.nan)


def _whole_sections(
    grid: ArcGrid, centerline: Centerline, geometry: Geometry
) -> npt.NDArray[np.bool_]:
    center = centerline.at(grid.centers_mm)
    _, _, dorsal = centerline.frame_at(grid.centers_mm)
    front = geometry.contains(center - _PROBE_MM * dorsal)
    return np.asarray(front & geometry.contains(center + _PROBE_MM * dorsal))


def locate_sac(
    voxels: CanalVoxels,
    profile: SacProfile,
    coordinate: LevelCoordinate,
    geometry: Geometry,
) -> tuple[ThecalSac, tuple[str, ...]]:
    """Determine volumes, caudal end, and areas by motion segment.

    Returns
    -------
    sac : ThecalSac
    wide : tuple of str
        Segments in which the sac is unusually wide.
    """
    tip_mm = caudal_end_mm(profile, geometry)
    voxels = replace(voxels, fluid=csf_fraction(voxels))
    areas = _areas_by_segment(voxels, profile, coordinate)
    sac = ThecalSac(
        volume_ml=len(voxels) * voxels.voxel_mm3 / 1000.0,
        csf_volume_ml=voxels.fluid_ml,
        caudal_end=CaudalEnd(
            lps_mm=None if tip_mm is None else _center_at(profile, tip_mm),
            level=None if tip_mm is None else coordinate.body_at(tip_mm),
        ),
        by_segment=tuple(
            SacSegment(
                segment=name,
                volume_ml=len(inside) * inside.voxel_mm3 / 1000.0,
                min_area_mm2=area.min(),
                mean_area_mm2=area.mean(),
                csf_volume_ml=inside.fluid_ml,
            )
            for name, (inside, area) in areas.items()
        ),
    )
    return sac, _bulges({name: float(area.mean()) for name, (_, area) in areas.items()})


def csf_fraction(voxels: CanalVoxels) -> FloatArray:
    """Return the fraction of CSF in voxels of the sac, 0..1.

    The fluid fraction is scaled between the signals of cord and roots and of CSF at the same
    level, separated by Otsu's threshold, because they depend on the sequence and the receive field.

    Returns
    -------
    ndarray, shape (n,)
    """
    if not len(voxels):
        return voxels.fluid
    order = np.argsort(voxels.arc_mm)
    arc, fluid = voxels.arc_mm[order], voxels.fluid[order]
    levels = np.arange(arc[0], arc[-1] + _CSF_STEP_MM, _CSF_STEP_MM)
    starts, stops = (
        np.searchsorted(arc, levels + reach) for reach in (-_CSF_REACH_MM, _CSF_REACH_MM)
    )
    at, signals = [], []
    for level, start, stop in zip(levels, starts, stops, strict=True):
        if stop - start < _MIN_CSF_VOXELS:
            continue
        at.append(level)
        signals.append(_two_signals(fluid[start:stop]))
    if not at:
        return voxels.fluid
    dark, bright = (np.interp(voxels.arc_mm, at, signal) for signal in np.transpose(signals))
    return np.asarray(np.clip((voxels.fluid - dark) / (bright - dark), 0.0, 1.0))


def _two_signals(fluid: FloatArray) -> tuple[float, float]:
    """Return the signals below and above Otsu's threshold; 0 and 1 if they hardly differ."""
    is_bright = fluid > otsu_threshold(fluid, _OTSU_BINS)
    if is_bright.all() or not is_bright.any():
        return 0.0, 1.0
    dark = float(np.percentile(fluid[~is_bright], _DARK_PERCENTILE))
    bright = float(np.median(fluid[is_bright]))
    return (dark, bright) if bright - dark >= _MIN_CSF_CONTRAST else (0.0, 1.0)


def caudal_end_mm(profile: SacProfile, geometry: Geometry) -> float | None:
    """Return the caudal end of the sac, mm; None if it extends beyond the field of view.

    The end of the mask, continued by the part that is too narrow to be visible.
    """
    if profile.ends_mm is None:
        return None
    end_mm = profile.ends_mm[1]
    tangent = profile.centerline.frame_at(end_mm)[0]
    beyond = _center_at(profile, end_mm) + FIELD_MARGIN_MM * tangent
    return end_mm + _narrow_end_mm(profile) if bool(geometry.contains(beyond)) else None


def _narrow_end_mm(profile: SacProfile) -> float:
    """Return the length of the tapering sac caudal to the end of its mask; 0 for a blunt end."""
    assert profile.ends_mm is not None
    above_mm = np.arange(*_TAPER_FIT_MM, profile.grid.step_mm)
    arc_mm = profile.ends_mm[1] - above_mm
    if arc_mm[-1] < profile.ends_mm[0]:
        return 0.0
    width = np.sqrt(np.interp(arc_mm, profile.grid.centers_mm, profile.area_mm2))
    slope, width_at_end = np.polyfit(above_mm, width, 1)
    if width_at_end <= 0 or width_at_end >= SAC_TAPER_MM * slope:
        return 0.0
    return min(_NARROW_FRACTION * float(width_at_end / slope), _MAX_NARROW_MM)


def _center_at(profile: SacProfile, arc_mm: float) -> FloatArray:
    at = int(profile.grid.bin_of(arc_mm))
    _, left, dorsal = profile.centerline.frame_at(arc_mm)
    offset = profile.left_mm[at] * left + profile.dorsal_mm[at] * dorsal
    return np.asarray(profile.centerline.at(arc_mm) + offset)


def _areas_by_segment(
    voxels: CanalVoxels,
    profile: SacProfile,
    coordinate: LevelCoordinate,
) -> dict[str, tuple[CanalVoxels, FloatArray]]:
    """Return voxels and cross-sections of the sac by segment, if completely in the image."""
    if profile.ends_mm is None:
        return {}
    arc = profile.grid.centers_mm
    measured = profile.measurable()
    found = {}
    for name, start, stop in coordinate.segments():
        inside = (voxels.arc_mm >= start) & (voxels.arc_mm < stop)
        bins = measured & (arc >= start) & (arc < stop)
        held = (arc >= start) & (arc < min(stop, profile.ends_mm[1]))
        cut = start < profile.ends_mm[0] - _CUT_MM or not profile.whole[held].all()
        if not inside.any() or not bins.any() or cut:
            continue
        found[name] = voxels.where(inside), profile.area_mm2[bins]
    return found


def compression(
    profile: SacProfile,
    start_mm: float,
    stop_mm: float,
    coordinate: LevelCoordinate,
) -> float | None:
    """Return the reduction of sac area along a range relative to adjacent levels.

    The expected area is the typical area of each level, scaled to the areas above and below
    the range. The tapering end of the sac is excluded.

    Parameters
    ----------
    start_mm, stop_mm : float
        The range, as distances along the centerline.

    Returns
    -------
    float or None
        1 - minimum area / expected area, 0..1; None if no adjacent sac is in the field of view.
    """
    if profile.ends_mm is None:
        return None
    arc = profile.grid.centers_mm
    usable = profile.measurable() & (arc <= profile.ends_mm[1] - SAC_TAPER_MM)
    usual = _usual_area_mm2(arc, coordinate)
    area = profile.grid.smooth(profile.area_mm2, _COMPRESSION_SMOOTHING_MM) / usual
    along = usable & (arc >= start_mm) & (arc <= stop_mm)
    reach = _COMPRESSION_REACH_MM
    above = usable & (arc < start_mm) & (arc >= start_mm - reach)
    below = usable & (arc > stop_mm) & (arc <= stop_mm + reach)
    enough = reach / 3.0 / profile.grid.step_mm
    sides = [side for side in (above, below) if side.sum() >= enough]
    if not along.any() or not sides:
        return None
    expected = np.interp(
        arc[along],
        [float(arc[side].mean()) for side in sides],
        [float(np.median(area[side])) for side in sides],
    )
    ratio = float((area[along] / np.maximum(expected, 1e-6)).min())
    return float(np.clip(1.0 - ratio, 0.0, 1.0))


def narrow_places(profile: SacProfile, coordinate: LevelCoordinate) -> tuple[str, ...]:
    """Return where the sac is hardly visible between its ends: segments, or the position in mm.

    The tapering end is excluded.
    """
    if profile.ends_mm is None:
        return ()
    arc = profile.grid.centers_mm
    last = profile.ends_mm[1] - SAC_TAPER_MM
    narrow = profile.whole & (arc >= profile.ends_mm[0] + _CUT_MM) & (arc <= last)
    places = arc[narrow & (profile.area_mm2 < _SEVERE_MM2)]
    named = [coordinate.segment_at(float(mm)) or f"{mm:.0f} mm below its top" for mm in places]
    return tuple(dict.fromkeys(named if coordinate.is_labeled else named[:1]))


def premature_end(
    profile: SacProfile, coordinate: LevelCoordinate, geometry: Geometry
) -> tuple[str, ...]:
    """Return the segment in which the sac ends, if that is cranial to the lumbosacral disc.

    The sac then probably continues: its end was not followed through a stenosis, or the numbering
    is incorrect. Empty without a caudal end in the field of view, and if its level is not named.
    """
    end_mm = caudal_end_mm(profile, geometry)
    segment = None if end_mm is None else coordinate.segment_at(end_mm)
    if end_mm is None or segment is None:
        return ()
    last = coordinate.chain.index("S1") - 1
    disc_mm = coordinate.disc_arc(segment_name(coordinate.chain[last], "S1"))
    if disc_mm is None:  # not among the named levels
        is_cranial = bool(coordinate.level_at(end_mm) < last)
    else:
        is_cranial = end_mm < disc_mm - _LUMBOSACRAL_DISC_MM
    return (segment,) if is_cranial else ()


def _bulges(mean_area_mm2: Mapping[str, float]) -> tuple[str, ...]:
    """Return segments in which the sac is unusually wide for its level and this patient.

    If the dura between sac and collection is not visible, the collection resembles a wide sac.
    """
    relative = {
        segment: mean_mm2 / usual_mm2
        for segment, mean_mm2 in mean_area_mm2.items()
        if (usual_mm2 := _USUAL_AREA_MM2.get(upper := split_segment(segment)[0])) is not None
        and upper not in _NO_USUAL_WIDTH
    }
    if len(relative) < _ENOUGH_SEGMENTS:
        return ()
    limit = _MAX_WIDTH_RATIO * float(np.median(list(relative.values())))
    return tuple(segment for segment, width in relative.items() if width > limit)


def _usual_area_mm2(arc_mm: FloatArray, coordinate: LevelCoordinate) -> FloatArray:
    """Return the typical sac area along the canal; constant if levels are not named."""
    levels = [(n + 0.5, _USUAL_AREA_MM2.get(name)) for n, name in enumerate(coordinate.chain)]
    known = [(level, area) for level, area in levels if area is not None]
    if not coordinate.is_labeled or not known:
        return np.ones(arc_mm.shape)
    first, last = coordinate.level_range
    ends = coordinate.arc_at(np.array([first, last]))
    level = coordinate.level_at(np.clip(arc_mm, ends[0] + 1e-6, ends[1] - 1e-6))
    places, areas = zip(*known, strict=True)
    return np.asarray(np.interp(level, places, areas), dtype=np.float64)
