"""Second opinion of axial T2 images: signal, side, fat and the dark line of the dura.

The line is measured on profiles across the outline of the sac where a collection adjoins it. A
profile has the line if its outermost local minimum is darker than both sides, and is open if no
signal drop is detected from the collection to the sac. Elsewhere dark tissue, such as a nerve root,
is adjacent to the dura; these profiles are not counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from scipy import ndimage

from leakloc.anatomy.vocabulary import quadrant
from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM
from leakloc.localization.result import AxialT2, DarkLine, Interruption, LineReason
from leakloc.localization.signals import (
    MIN_VOXELS,
    MeasuredRatio,
    Surrounded,
    ratio_of,
)
from leakloc.segmentation.fluid import tissue_noise
from leakloc.segmentation.result import Segmentation

BoolArray = npt.NDArray[np.bool_]

MIN_BRIGHT: Final = 0.75
"""Minimum signal relative to CSF of fluid on T2: epidural CSF 1.0, seroma 1.2; acute hematoma has
0.6, scar 0.2. Epidural fat has 0.9 in phantoms, and medians of 0.5 to 1.0 in 17 patients (SPIDER),
in 5 of them at least 0.75."""

_MIN_CSF: Final = 0.9
"""Minimum signal of epidural CSF relative to CSF in the sac."""

_CLEARANCE_MM: Final = 1.0
"""Points on the opposite side within this distance of sac or fluid are not compared."""


_STEP_MM: Final = 0.5
"""Distance of profiles along the outline of the sac."""
_OFFSETS_MM: Final = np.arange(-3.0, 3.01, 0.25)
"""Positions on a profile relative to the outline, positive outside the sac."""
_TOLERANCE_MM: Final = 1.0
"""Maximum distance of the line from the outline: errors of segmentation and registration."""
_NEAR_MM: Final = 0.5
"""Maximum distance from the line of the adjacent profiles."""
_SIDE_MM: Final = 1.25
"""Distance on both sides of the line within which the signal is brighter."""
_MIN_DEPTH: Final = 0.1
_MIN_DEPTH_SD: Final = 3.0
"""Minimum depth of the line relative to CSF, and in standard deviations of the noise of a voxel."""
_MAX_PIXEL_MM: Final = 0.8
_MAX_SLOPE_MM: Final = 1.0
"""Maximum pixel size, and displacement of the surface within the thickness of a slice: beyond it
the dura, about 0.35 mm thick, is not visible."""
_CONTACT_MM: Final = 1.0
"""Distance from the outline at which the collection adjoins."""
_MIN_THICKNESS_MM: Final = 2.0
"""Minimum thickness of the collection at a profile."""
_MIN_SAMPLES: Final = 20
"""Minimum number of profiles, 10 mm of the interface."""
_MIN_GAP_MM: Final = 2.5
_MAX_GAP_PIXEL_MM: Final = 0.6
"""Minimum width of an interruption, and maximum pixel size: with larger pixels, thin dura next to
nerve roots appears interrupted."""
_FLANK_MM: Final = 1.0
"""Maximum length of the transition from the line to its interruption."""

_FAT_REACH_MM: Final = 30.0
"""Fat is measured within this distance of the collection."""
_FAT_CLEARANCE_MM: Final = 2.0
_MAX_FAT_FLUID: Final = 0.1
"""Maximum fluid fraction on the myelogram of fat."""
_MIN_FAT: Final = 0.4
"""Minimum signal of fat relative to CSF; muscle, ligament and bone are darker."""
_FAT_BLOCK_MM: Final = 8.0
_MIN_FAT_BLOCKS: Final = 4
_FAT_SD: Final = 2.0
_MIN_FAT_SPREAD: Final = 0.1
"""Fat varies between blocks of this size; the interval is this number of standard deviations, and
at least this fraction, as the sensitivity of the coil differs between fat and collection."""


@dataclass(frozen=True)
class MeasuredInterruption:
    """An interruption of the dark line.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
    width_mm : float
        Length along the outline of the sac.
    left_mm, dorsal_mm : float
        Position relative to the center of the sac.
    """

    center_lps: FloatArray
    width_mm: float
    left_mm: float
    dorsal_mm: float


@dataclass(frozen=True)
class MeasuredLine:
    """Dark line between sac and collection.

    Parameters
    ----------
    n_slices, n_samples, n_dark, n_excluded : int
        Slices, counted profiles, those with the line, and profiles with adjacent dark tissue.
    not_measured : str or None
    interruption : MeasuredInterruption or None
        The widest.
    """

    n_slices: int
    n_samples: int
    n_dark: int
    n_excluded: int
    not_measured: LineReason | None
    interruption: MeasuredInterruption | None = None


@dataclass(frozen=True)
class MeasuredAxial:
    """Signal of a collection on axial T2, and of the opposite side of the sac.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
        Center of the candidate.
    own, opposite : MeasuredRatio
        Signal relative to CSF in the sac.
    covered : float
        Fraction of the collection within the canal in the field of view.
    fat : MeasuredRatio
        Signal of fat in the same images; the interval is the variation between places.
    line : MeasuredLine
    """

    center_lps: FloatArray
    own: MeasuredRatio
    opposite: MeasuredRatio
    covered: float
    fat: MeasuredRatio
    line: MeasuredLine


def measure_axial(
    segmentation: Segmentation, surroundings: Sequence[Surrounded], volume: Volume | None
) -> tuple[MeasuredAxial, ...]:
    """Measure the signal of each collection on axial T2.

    Parameters
    ----------
    segmentation : Segmentation
    surroundings : sequence of Surrounded
        Of each collection, from `surroundings_of`.
    volume : Volume or None
        Axial T2, in the frame of reference of the myelogram.
    """
    if volume is None:
        return ()
    noise = tissue_noise(volume)
    found = []
    for around in surroundings:
        voxels = around.voxels_on(volume.geometry)
        if voxels is None:
            continue
        own, csf = (volume.array[tuple(kji.T)].astype(np.float64) for kji in voxels)
        places = _opposite(segmentation, volume.geometry.lps_from_kji(voxels[0]))
        places = places[volume.geometry.contains(places)]
        found.append(
            MeasuredAxial(
                around.center_lps,
                ratio_of("axial_t2", own, csf),
                ratio_of("axial_t2", volume.sample(places), csf),
                float(volume.geometry.contains(around.points_lps).mean()),
                _fat(segmentation, around, volume, csf),
                _line(segmentation, around, volume, csf, noise),
            )
        )
    return tuple(found)


def _opposite(segmentation: Segmentation, points_lps: FloatArray) -> FloatArray:
    """Return the points mirrored at the center of the sac that are outside sac and collections."""
    line = segmentation.centerline
    arc, left, dorsal = line.project(points_lps)
    sac = segmentation.thecal_sac
    if not len(points_lps):
        return np.empty((0, 3))
    # The whole width of the sac, also around a collection lateral to it.
    box = sac.geometry.box_around(points_lps, 2 * CANAL_RADIUS_MM)
    inside = np.argwhere(sac.array[box]) + np.array([part.start for part in box])
    if not len(inside):
        return np.empty((0, 3))
    arcs, lefts, dorsals = line.project(sac.geometry.lps_from_kji(inside))
    order = np.argsort(arcs)
    bins = np.arange(arcs.min(), arcs.max() + 5.0, 5.0)
    middle = [
        [np.mean(values[order][part]) for values in (arcs, lefts, dorsals)]
        for part in np.split(np.arange(len(arcs)), np.searchsorted(arcs[order], bins[1:-1]))
        if len(part)
    ]
    at, center_left, center_dorsal = np.array(middle).T
    left = 2 * np.interp(arc, at, center_left) - left
    dorsal = 2 * np.interp(arc, at, center_dorsal) - dorsal
    _, lefts_lps, dorsals_lps = line.frame_at(arc)
    mirrored = line.at(arc) + left[:, None] * lefts_lps + dorsal[:, None] * dorsals_lps
    occupied = np.zeros(len(mirrored), dtype=bool)
    for shift in (-_CLEARANCE_MM, 0.0, _CLEARANCE_MM):
        for axis in (lefts_lps, dorsals_lps):
            for mask in (sac, segmentation.collections):
                occupied |= mask.sample(mirrored + shift * axis, order=0) > 0
    return np.asarray(mirrored[~occupied])


def _fat(
    segmentation: Segmentation, around: Surrounded, volume: Volume, csf: FloatArray
) -> MeasuredRatio:
    """Return the signal of fat posterior to the middle of the canal, dark on the myelogram."""
    unknown = MeasuredRatio("axial_t2", np.nan, np.nan, np.nan, 0)
    if len(csf) < MIN_VOXELS or np.median(csf) <= 0:
        return unknown
    grid, fluid = volume.geometry, segmentation.fluid_fraction
    box = grid.box_around(around.points_lps, _FAT_REACH_MM)
    signal = volume.array[box] / np.median(csf)
    # Not at the edges, where partial volume lowers the signal.
    kji = np.argwhere(ndimage.minimum_filter(signal, (1, 3, 3)) >= _MIN_FAT)
    kji += [part.start for part in box]
    points = grid.lps_from_kji(kji)
    _, left, dorsal = segmentation.centerline.project(points)
    kept = (dorsal > 0) & (np.hypot(left, dorsal) <= _FAT_REACH_MM)
    kept &= fluid.geometry.contains(points) & (fluid.sample(points) <= _MAX_FAT_FLUID)
    for axis in np.concatenate([np.eye(3), -np.eye(3)]) * _FAT_CLEARANCE_MM:
        for mask in (segmentation.thecal_sac, segmentation.collections):
            kept &= mask.sample(points + axis, order=0) == 0
    values = volume.array[tuple(kji[kept].T)] / np.median(csf)
    blocks = np.floor(points[kept] / _FAT_BLOCK_MM).astype(int)
    _, block, count = np.unique(blocks, axis=0, return_inverse=True, return_counts=True)
    numbers = np.flatnonzero(count >= MIN_VOXELS)
    if len(numbers) < _MIN_FAT_BLOCKS:
        return unknown
    medians = ndimage.median(values, block.ravel(), numbers)
    ratio = float(np.median(medians))
    spread = max(_FAT_SD * float(np.std(medians)), _MIN_FAT_SPREAD * ratio)
    return MeasuredRatio("axial_t2", ratio, ratio - spread, ratio + spread, len(values))


# --- dark line of the dura ------------------------------------------------------------------


@dataclass(frozen=True)
class _Outline:
    """Profiles across the outline of the sac on one slice, in order along it.

    Parameters
    ----------
    points_lps : ndarray, shape (n, 3)
    contact, is_thick : ndarray of bool, shape (n,)
        Whether the collection adjoins, and with the minimum thickness.
    slope_mm : ndarray, shape (n,)
        Displacement of the surface within the thickness of the slice.
    signal : ndarray, shape (n, m)
        At `_OFFSETS_MM`.
    """

    points_lps: FloatArray
    contact: BoolArray
    is_thick: BoolArray
    slope_mm: FloatArray
    signal: FloatArray


def _outlines(segmentation: Segmentation, around: Surrounded, volume: Volume) -> Iterator[_Outline]:
    """Yield the outline of the sac on each slice through the collection."""
    margin_mm = _OFFSETS_MM[-1] + 5.0
    box = segmentation.thecal_sac.geometry.box_around(around.points_lps, margin_mm)
    sac = _softened(segmentation.thecal_sac.crop(box), 1.0)
    own_box = around.fluid.geometry.box_around(around.points_lps, margin_mm)
    own = _softened(around.fluid.crop(own_box), 0.7)
    slopes = [
        sac.with_array(np.gradient(sac.array, mm, axis=axis))
        for axis, mm in enumerate(sac.geometry.spacing_kji_mm)
    ]
    grid = volume.geometry
    across, normal = np.array(grid.spacing_kji_mm[1:]), grid.directions_lps[:, 2]
    steps = 0.5 * sac.geometry.spacing_ijk_mm[0] / across
    k, j, i = grid.kji_from_lps(sac.geometry.corners_lps).reshape(-1, 3).T
    rows, columns = (np.arange(v.min(), v.max(), d) for v, d in zip((j, i), steps, strict=True))
    for number in range(max(int(np.ceil(k.min())), 0), min(int(k.max()), grid.shape[0] - 1) + 1):
        kji = np.stack(np.meshgrid([number], rows, columns, indexing="ij"), axis=-1)[0]
        contours = contour_generator(columns, rows, sac.sample(grid.lps_from_kji(kji)))
        lines: list[FloatArray] = [np.asarray(one) for one in contours.lines(0.5)]
        if not lines:
            continue
        line = max(lines, key=len)[:, ::-1]
        along = np.r_[0, np.linalg.norm(np.diff(line * across, axis=0), axis=1).cumsum()]
        at = np.arange(0, along[-1], _STEP_MM)
        if len(at) < _MIN_SAMPLES:
            continue
        j, i = (ndimage.gaussian_filter1d(np.interp(at, along, v), 2, mode="wrap") for v in line.T)
        points = grid.lps_from_kji(np.stack([np.full(len(at), number), j, i], axis=-1))
        kji_slopes = np.stack([slope.sample(points) for slope in slopes], axis=-1)
        outward = -kji_slopes @ sac.geometry.directions_lps[:, ::-1].T
        tilt = outward @ normal
        outward -= tilt[:, None] * normal
        length = np.maximum(np.linalg.norm(outward, axis=1), 1e-6)
        outward /= length[:, None]
        spots = grid.kji_from_lps(points[:, None] + _OFFSETS_MM[:, None] * outward[:, None])
        signal = ndimage.map_coordinates(
            volume.array[number].astype(np.float64), (spots[..., 1], spots[..., 2]), mode="nearest"
        )
        contact, beyond = (
            own.sample(points + mm * outward) >= 0.5 for mm in (_CONTACT_MM, _MIN_THICKNESS_MM)
        )
        yield _Outline(
            points,
            contact,
            contact & beyond,
            np.abs(tilt) / length * grid.spacing_kji_mm[0],
            ndimage.uniform_filter1d(signal, 3, axis=0, mode="wrap"),
        )


def _softened(mask: Volume, sigma_mm: float) -> Volume:
    sigma = [sigma_mm / mm for mm in mask.geometry.spacing_kji_mm]
    return mask.with_array(ndimage.gaussian_filter((mask.array > 0).astype(np.float32), sigma))


def _line(
    segmentation: Segmentation,
    around: Surrounded,
    volume: Volume,
    csf: FloatArray,
    noise: float,
) -> MeasuredLine:
    """Return the dark line between the sac and a collection."""
    reason: LineReason | None = None
    pixel_mm = max(volume.geometry.spacing_kji_mm[1:])
    if pixel_mm > _MAX_PIXEL_MM:
        reason = "in-plane resolution"
    elif len(csf) < MIN_VOXELS or np.median(csf) <= 0:
        reason = "partial volume"
    if reason is not None:
        return MeasuredLine(0, 0, 0, 0, reason)
    reference = float(np.median(csf))
    min_depth = max(_MIN_DEPTH, _MIN_DEPTH_SD * noise / reference)
    is_fine = pixel_mm <= _MAX_GAP_PIXEL_MM
    counts, n_contact, gaps = [], 0, []
    for outline in _outlines(segmentation, around, volume):
        n_contact += int(outline.is_thick.sum())
        visible = outline.slope_mm <= _MAX_SLOPE_MM
        signal = outline.signal / reference
        dark, is_open = _classify(signal, visible, min_depth)
        used = outline.is_thick & visible
        counts.append([(part & used).sum() for part in (dark, is_open, visible)])
        gap = _widest_gap(dark, is_open, outline.contact)
        across = signal[gap][:, np.abs(_OFFSETS_MM) <= _NEAR_MM]
        if len(gap) and is_fine and np.median(across) >= _MIN_CSF:
            center = outline.points_lps[gap].mean(axis=0)
            away = segmentation.centerline.project(
                np.stack([center, outline.points_lps.mean(axis=0)])
            )
            left, dorsal = (float(v[0] - v[1]) for v in away[1:])
            gaps.append(MeasuredInterruption(center, len(gap) * _STEP_MM, left, dorsal))
    n_dark, n_open, n_used = (int(n) for n in np.sum(counts, axis=0)) if counts else (0, 0, 0)
    if n_dark + n_open < _MIN_SAMPLES:
        reason = "slice thickness" if n_used < _MIN_SAMPLES <= n_contact else "partial volume"
    return MeasuredLine(
        n_slices=sum(bool(n[0] + n[1]) for n in counts),
        n_samples=n_dark + n_open,
        n_dark=n_dark,
        n_excluded=n_used - n_dark - n_open,
        not_measured=reason,
        interruption=max(gaps, key=lambda gap: gap.width_mm, default=None),
    )


def _classify(signal: FloatArray, used: BoolArray, min_depth: float) -> tuple[BoolArray, BoolArray]:
    """Return which profiles have the dark line, and which no signal drop near its place.

    Parameters
    ----------
    signal : ndarray, shape (n, m)
        Relative to CSF, at `_OFFSETS_MM`.
    used : ndarray of bool, shape (n,)
    min_depth : float
    """
    n = round(_SIDE_MM / (_OFFSETS_MM[1] - _OFFSETS_MM[0]))
    padded = np.pad(signal, ((0, 0), (n, n)), mode="edge")
    highest = np.lib.stride_tricks.sliding_window_view(padded, n + 1, axis=1).max(axis=-1)
    inner, outer = highest[:, :-n] - signal, highest[:, n:] - signal
    depth = np.minimum(inner, outer)
    lowest = signal == ndimage.minimum_filter1d(signal, 3, axis=1)
    minima = lowest & (depth >= min_depth) & (np.abs(_OFFSETS_MM) <= _TOLERANCE_MM)
    has_line = minima.any(axis=1) & used
    # The outermost minimum: roots are inside the dura.
    last = len(_OFFSETS_MM) - 1 - minima[:, ::-1].argmax(axis=1)
    place = _OFFSETS_MM[np.where(has_line, last, len(_OFFSETS_MM) // 2)]
    expected = _place(place, has_line)
    near = np.abs(_OFFSETS_MM - expected[:, None]) <= _NEAR_MM
    dark = has_line & (np.abs(place - expected) <= _NEAR_MM)
    is_open = used & ~dark & (np.where(near, outer, -np.inf).max(axis=1) < min_depth)
    return dark, is_open


def _place(place_mm: FloatArray, known: BoolArray) -> FloatArray:
    """Return the place of the line at each profile: the median of the nearest known ones."""
    if not known.any():
        return np.zeros(len(place_mm))
    at = np.flatnonzero(known)
    n = min(len(at), 9)
    away = np.abs(np.arange(len(place_mm))[:, None] - at)
    away = np.minimum(away, len(place_mm) - away)
    nearest = np.argsort(away, axis=1, kind="stable")[:, :n]
    return np.asarray(np.median(place_mm[at][nearest], axis=1))


def _widest_gap(dark: BoolArray, is_open: BoolArray, contact: BoolArray) -> npt.NDArray[np.intp]:
    """Return the profiles of the widest interruption, from the line on one side to the other.

    Half of it adjoins the collection: the dura is also open at root sleeves.
    """
    widest = np.array([], dtype=np.intp)
    lines = np.flatnonzero(dark)
    if not len(lines):
        return widest
    gaps = [
        np.arange(start + 1, stop) % len(dark)
        for start, stop in itertools.pairwise([*lines, lines[0] + len(dark)])
    ]
    most = 2 * round(_FLANK_MM / _STEP_MM)
    for gap in gaps:
        is_wide = len(gap) > len(widest) and len(gap) * _STEP_MM >= _MIN_GAP_MM
        if is_wide and is_open[gap].sum() >= max(len(gap) - most, len(gap) / 2):
            widest = gap if contact[gap].mean() >= 0.5 else widest
    return widest


def agreement_of(
    measured: MeasuredAxial | None, segment_of: Callable[[FloatArray], str | None]
) -> AxialT2 | None:
    """Return a measurement in the form of the report; None without axial T2.

    Parameters
    ----------
    measured : MeasuredAxial or None
    segment_of : callable
        Returns the motion segment of a point in LPS, or None.
    """
    if measured is None:
        return None
    own, opposite, fat = measured.own, measured.opposite, measured.fat
    bright = None if np.isnan(own.ratio) else bool(own.ratio >= MIN_BRIGHT)
    side = None
    if min(own.n_voxels, opposite.n_voxels) >= MIN_VOXELS and bright is not None:
        if own.low > opposite.high:
            side = True
        elif own.high < opposite.low:
            side = False
    return AxialT2(
        bright=bright,
        side_confirmed=side,
        confirms=None if bright is None else confirms_fluid(measured),
        ratio=own.ratio,
        low=own.low,
        high=own.high,
        opposite_ratio=opposite.ratio,
        fat_ratio=fat.ratio,
        fat_high=fat.high,
        n_voxels=own.n_voxels,
        covered_fraction=measured.covered,
        dark_line=_reported(measured.line, segment_of, is_bright=bool(bright)),
    )


def confirms_fluid(measured: MeasuredAxial | None) -> bool:
    """Return whether a collection has the signal of CSF, and not that of fat, on axial T2."""
    if measured is None:
        return False
    own = measured.own
    return bool(own.ratio >= MIN_BRIGHT and own.high >= _MIN_CSF and own.low > measured.fat.high)


def _reported(
    line: MeasuredLine, segment_of: Callable[[FloatArray], str | None], *, is_bright: bool
) -> DarkLine:
    """Return the dark line in the form of the report; interruptions only if fluid is bright."""
    fraction = None if line.not_measured else line.n_dark / line.n_samples
    gap = line.interruption if is_bright and fraction is not None else None
    return DarkLine(
        fraction=fraction,
        n_slices=line.n_slices,
        n_samples=line.n_samples,
        n_excluded=line.n_excluded,
        not_measured=line.not_measured,
        interruption=None
        if gap is None
        else Interruption(
            center_lps_mm=gap.center_lps,
            level=segment_of(gap.center_lps),
            side=quadrant(gap.left_mm, gap.dorsal_mm),
            angle_deg=float(np.degrees(np.arctan2(gap.left_mm, gap.dorsal_mm)) % 360),
            width_mm=gap.width_mm,
        ),
    )
