"""Detection of the dural surface around the canal centerline.

The dura is described by one radius for each arc position and angle about the centerline.
A network (`leakloc.segmentation.dura_network`) estimates the probability that a point lies inside
the dura; the surface is optimized over all positions (semi-global aggregation along arc and
angle, Hirschmüller, IEEE TPAMI 2008;30:328), so that it bridges positions without evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, median_filter

from leakloc.anatomy.centerline import Centerline, left_and_dorsal
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.dura_network import boundary_cost, dura_probabilities
from leakloc.segmentation.fluid import offset_points

Array = npt.NDArray[np.float32]

ARC_STEP_MM: Final = 2.0
"""Step along the canal; the curvature of the dura extends over centimeters."""

ANGLES: Final = 48
"""Number of rays around the canal: 1 mm apart at the dura."""

RADIUS_STEP_MM: Final = 0.5
RADIUS_RANGE_MM: Final = (0.8, 24.3)
"""Range of sampled radii: from the tapering caudal end to beyond a wide sac with a thick layer of
fluid."""

FOLLOW_RADIUS_MM: Final = 9.0
"""Radius of the region used to center the rough centerline: that of a wide sac."""

MAX_TAIL_MM: Final = 120.0
"""Maximum distance over which fluid is followed below the last reliable point of the rough path."""

MIN_TAIL_AREA_MM2: Final = 4.0
"""Cross-sectional area of fluid below which the caudal end of the thecal sac has been passed."""

SACRAL_TAIL_MM: Final = 40.0
"""Length of the centerline beyond the caudal end of the sac, into the sacral canal."""

_HEAD_AREA: Final = 2.0
"""Minimum ratio of a cross-section to the median one that may be a cistern."""
_MAX_TO_HEAD_MM: Final = 20.0
"""Maximum distance of the cisterns from the upper end of the fluid."""
_CANAL_HALF_WIDTH_MM: Final = 14.0
"""Lateral distance from the centerline that CSF within the spinal canal does not reach on both
sides; the canal is widest at C1, about 28 mm."""
_SECTOR_DEG: Final = 20.0
"""Half angle of the sectors to the left and right in which the width of the fluid is measured."""
_MIN_NARROWING: Final = 0.25
"""Decrease of the half width per length, cranial to caudal, in the cisterns; in the canal below
them it is smaller (from 12 mm at C1 to 10 mm at C3, 0.06)."""
_STRAIGHT_MM: Final = (4.0, 24.0)
"""Range caudal to a wide section whose direction is that of the canal."""

_EDGE_MARGIN_MM: Final = 10.0
_MIN_EDGE_AREA: Final = 0.6
"""Minimum ratio of the area of the sac, this far cranial to the caudal edge of the field of view,
to the median one if the sac continues beyond the edge. It is then continued, because the network
interprets the edge as the end of the sac and narrows it over 16 mm."""

CENTERING_SMOOTHING_MM: Final = 6.0
"""Sigma of the Gaussian along the centerline after it is moved to the center of the sac."""

_MIN_SAC_AREA_MM2: Final = 12.0
"""Minimum cross-sectional area of the thecal sac; the sac ends caudally where it falls below
this."""
_MAX_GAP_MM: Final = 80.0
"""Maximum length over which the sac is bridged: two lumbar levels. Without a limit, fluid 108 mm
caudal to the end of the sac was joined to it in a phantom."""
_MIN_CAUDAL_MM: Final = 30.0
_SHORT_GAP_MM: Final = 6.0
"""Minimum length of the end of the sac caudal to a gap longer than `_SHORT_GAP_MM`. A shorter part
may be a cyst of the sacral canal: the longest of the phantoms has 23 mm."""

_SMOOTHNESS_COST: Final = 0.5
"""Cost of a change by two radii (0.6 mm) between neighboring rays."""


@dataclass(frozen=True, eq=False)
class Dura:
    """The dural surface in canal coordinates (arc, angle, radius).

    Parameters
    ----------
    centerline : Centerline
        Through the center of the sac and, below its caudal end, the sacral canal.
    arc_mm : ndarray, shape (n,)
    angle_rad : ndarray, shape (m,)
        From the patient's left (0) to the back (pi / 2).
    radius_mm : ndarray, shape (n, m)
        0 below the caudal end of the sac.
    tip_arc_mm : float or None
        Caudal end of the sac; None if it lies outside the field of view.
    head_arc_mm : float
        Lower end of the intracranial cisterns; 0 if they are outside the field of view.
    fluid_outside : ndarray, shape (n, m, r), or None
        Expected fraction of fluid outside the dura, over the radii of `polar_signal`; None for a
        surface that was not detected by the network.
    """

    centerline: Centerline
    arc_mm: FloatArray
    angle_rad: FloatArray
    radius_mm: FloatArray
    tip_arc_mm: float | None
    head_arc_mm: float = 0.0
    fluid_outside: Array | None = None

    @property
    def area_mm2(self) -> FloatArray:
        """Cross-sectional area of the sac at each arc position, shape (n,)."""
        step = 2 * np.pi / len(self.angle_rad)
        return np.asarray(0.5 * (self.radius_mm**2).sum(axis=1) * step)

    def fluid_outside_at(
        self,
        arc_mm: npt.NDArray[np.floating],
        left_mm: npt.NDArray[np.floating],
        dorsal_mm: npt.NDArray[np.floating],
    ) -> FloatArray | None:
        """Expected fraction of fluid outside the dura at points around the centerline.

        NaN beyond the largest radius sampled; None for a surface not detected by the network.
        """
        if self.fluid_outside is None:
            return None
        angle = np.arctan2(dorsal_mm, left_mm) % (2 * np.pi)
        closed = np.concatenate([self.fluid_outside, self.fluid_outside[:, :1]], axis=1)
        row = (arc_mm - self.arc_mm[0]) / float(self.arc_mm[1] - self.arc_mm[0])
        column = angle / (2 * np.pi) * len(self.angle_rad)
        step = (np.hypot(left_mm, dorsal_mm) - RADIUS_RANGE_MM[0]) / RADIUS_STEP_MM
        values = map_coordinates(closed, [row, column, step], order=1, mode="nearest")
        return np.asarray(np.where(step <= closed.shape[2] - 1, values, np.nan), np.float64)

    def radius_at(
        self,
        arc_mm: npt.NDArray[np.floating],
        left_mm: npt.NDArray[np.floating],
        dorsal_mm: npt.NDArray[np.floating],
    ) -> FloatArray:
        """Radius of the dura in the direction of points around the centerline."""
        angle = np.arctan2(dorsal_mm, left_mm) % (2 * np.pi)
        wrapped = np.concatenate([self.radius_mm, self.radius_mm[:, :1]], axis=1)
        step = float(self.arc_mm[1] - self.arc_mm[0])
        row = (arc_mm - self.arc_mm[0]) / step
        column = angle / (2 * np.pi) * len(self.angle_rad)
        flat = map_coordinates(
            wrapped, [row.ravel(), column.ravel()], order=1, mode="constant", cval=0.0
        )
        return np.asarray(flat.reshape(np.shape(arc_mm)))


def find_dura(
    signal: Volume,
    centerline: Centerline,
    *,
    prior: Volume | None = None,
) -> Dura:
    """Detect the dural surface and the caudal end of the thecal sac.

    Parameters
    ----------
    signal : Volume
        Signal normalized to CSF (0 in soft tissue, 1 in CSF), in any grid orientation.
    centerline : Centerline
        Approximate centerline of the canal (within the sac, to its caudal end).
    prior : Volume, optional
        Probability of the spinal canal, on any grid in the same patient space.

    Raises
    ------
    AnalysisError
        If no section of the canal contains fluid.
    """
    line = follow_canal(signal, centerline, prior)
    is_cut = False
    for _ in range(2):  # the first pass centers the frame in the sac
        line, frame, head = _straight_in_head(signal, line)
        near = None if prior is None else _Frame.around(prior, line).values
        inside, outside = dura_probabilities(frame.values, frame.inside, near)
        edge = _field_edge(frame, _sac_area(frame, inside), is_cut)
        if edge is not None:
            is_cut = True
            frame = frame.continued(edge)
            if near is not None:
                near[edge:] = near[edge - 1]
            inside, outside = dura_probabilities(frame.values, frame.inside, near)
        first, last = sac_range(frame, inside)
        radius = _surface(frame, inside, first, last)
        found = line
        whole = last if edge is None else min(last, edge - 1)
        line = _recentered(line, frame, radius, min(max(first, head), whole), whole)
    field_end = last >= len(frame.arc_mm) - 1 - round(3.0 / ARC_STEP_MM)
    return Dura(
        found,
        frame.arc_mm,
        frame.angle_rad,
        radius.astype(np.float64),
        None if field_end else float(frame.arc_mm[last]),
        float(frame.arc_mm[head]),
        outside,
    )


def _straight_in_head(signal: Volume, line: Centerline) -> tuple[Centerline, _Frame, int]:
    """Continue the canal in a straight line through the cisterns, if they are in the field of view.

    A path through the cisterns may leave the axis of the canal, because fluid extends to all sides.

    Returns
    -------
    line : Centerline
    frame : _Frame
    head : int
        Position of the lower end of the cisterns; 0 if they are outside the field of view.
    """
    frame = _Frame.around(signal, line)
    wide = _wide_section(frame)
    if wide is None:
        return line, frame, 0
    above, below = (float(frame.arc_mm[wide[1] - 1]) + mm for mm in _STRAIGHT_MM)
    start, stop = line.at([above, below])
    direction = (start - stop) / np.linalg.norm(start - stop)
    points = start + np.arange(above, 0.0, -1.0)[:, None] * direction
    points = points[signal.geometry.contains(points)]
    straight = Centerline.smoothed(
        np.concatenate([points, line.points_lps[line.arc_mm > above]]), smoothing_mm=2.0
    )
    along = _Frame.around(signal, straight)
    head = _head_end(along)
    return (straight, along, head) if head else (line, frame, 0)


def _field_edge(frame: _Frame, area_mm2: FloatArray, is_cut: bool) -> int | None:
    """Return the first section that the caudal edge of the field of view cuts.

    None if the sac, by its cross-sectional areas, ends within the field of view. The areas are not
    compared if `is_cut`: the sac is already known to continue beyond the edge.
    """
    outside = np.flatnonzero(~frame.inside[:, :, 0].any(axis=1))
    margin = round(_EDGE_MARGIN_MM / ARC_STEP_MM)
    end = next((int(n) for n in outside if n > len(frame.arc_mm) // 2), 0)
    if not end:
        return None
    covered = frame.inside[:, :, frame.radius_mm <= FOLLOW_RADIUS_MM].mean(axis=(1, 2))
    edge = next(n for n in range(end - margin, end + 1) if covered[n] < covered[end - margin])
    reaches = area_mm2[edge - 1] >= _MIN_SAC_AREA_MM2
    full = area_mm2[end - margin] > _MIN_EDGE_AREA * np.median(area_mm2[:end])
    return edge if is_cut or (reaches and full) else None


def _sac_area(frame: _Frame, inside: Array) -> FloatArray:
    """Return the cross-sectional area inside the dura at each arc position, mm²."""
    return frame.area_mm2(frame.inside & (inside > 0.5))


def _fluid_area(frame: _Frame) -> FloatArray:
    """Return the cross-sectional area of fluid at each arc position, mm²."""
    return frame.area_mm2(np.clip(frame.values, 0.0, 1.0))


def _wide_section(frame: _Frame) -> tuple[int, int] | None:
    """Return the section at the upper end of the fluid with large areas; None without one."""
    area = _fluid_area(frame)
    wet = np.flatnonzero(area >= _MIN_SAC_AREA_MM2)
    if not len(wet):
        return None
    first = int(wet[0])
    large = _runs(area > _HEAD_AREA * np.median(area[first:]))
    return next((run for run in large if run[0] <= first + _MAX_TO_HEAD_MM / ARC_STEP_MM), None)


def _head_end(frame: _Frame) -> int:
    """Return the position of the lower end of the intracranial cisterns; 0 if they are not visible.

    The cisterns are a section at the upper end of the fluid with large areas, in which fluid
    extends laterally beyond the width of the spinal canal. Their end is the foramen magnum: there
    the width no longer decreases caudally.
    """
    section = _wide_section(frame)
    if section is None:
        return 0
    half = _half_width_mm(frame)
    wide = np.flatnonzero(half[: section[1]] >= _CANAL_HALF_WIDTH_MM)
    if not len(wide):
        return 0
    end = int(wide[-1])
    while end + 1 < len(half) and half[end] - half[end + 1] >= _MIN_NARROWING * ARC_STEP_MM:
        end += 1
    return end


def _half_width_mm(frame: _Frame) -> FloatArray:
    """Return the radius that fluid reaches both to the left and to the right, shape (n,)."""
    reach = []
    for side in (1.0, -1.0):
        sector = side * np.cos(frame.angle_rad) >= np.cos(np.radians(_SECTOR_DEG))
        wet = frame.values[:, sector].mean(axis=1) > 0.5
        outermost = wet.shape[1] - 1 - wet[:, ::-1].argmax(axis=1)
        reach.append(np.where(wet.any(axis=1), frame.radius_mm[outermost], 0.0))
    return np.minimum(*reach)


def follow_canal(signal: Volume, centerline: Centerline, prior: Volume | None) -> Centerline:
    """Center a rough centerline in the canal and extend it to the caudal end of the sac.

    Mean shift in planes perpendicular to the line, toward CSF and high canal probability. Below
    the last plane with enough fluid, the fluid itself is followed, because a rough path cuts the
    curve at the sacrum.
    """
    filling = _Filling(signal, prior)
    line = centerline
    for radius_mm in (FOLLOW_RADIUS_MM + 4.0, FOLLOW_RADIUS_MM + 4.0, FOLLOW_RADIUS_MM):
        shift, area = _fluid_shift(filling, line, line.arc_mm, radius_mm)
        weight = np.minimum(area, 60.0) + 1e-3
        lateral, back = (_weighted_smooth(shift[:, n], weight, 5.0) for n in (0, 1))
        points = line.points_lps + lateral[:, None] * line.lefts_lps
        line = Centerline.smoothed(
            points + back[:, None] * line.dorsals_lps, step_mm=1.0, smoothing_mm=4.0
        )
    _, area = _fluid_shift(filling, line, line.arc_mm, FOLLOW_RADIUS_MM)
    wet = np.flatnonzero(area >= 40.0)
    if len(wet) == 0:
        return line
    return _followed_tail(filling, line, int(wet[-1]))


@dataclass(frozen=True, eq=False)
class _Filling:
    """Weights for centering a rough centerline: CSF and canal probability."""

    signal: Volume
    prior: Volume | None

    def at(self, points_lps: FloatArray) -> FloatArray:
        """Return the weight at points, 0 in soft tissue to 1 in the canal."""
        fluid = np.clip(self.signal.sample(points_lps, order=1, fill=0.0), 0.0, 1.0)
        if self.prior is not None:  # nerve roots are dark
            fluid = 0.2 * fluid + 0.8 * self.prior.sample(points_lps, order=1, fill=0.0)
        return np.asarray(np.clip(fluid * 2 - 0.6, 0, 1), np.float64)  # no weight in soft tissue


def _fluid_shift(
    filling: _Filling, line: Centerline, arc: FloatArray, radius_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the (left, dorsal) offset of the fluid centroid in a radius, and its area in mm²."""
    grid = np.arange(-radius_mm, radius_mm + 0.1, 1.0)
    left, dorsal = (axis.ravel() for axis in np.meshgrid(grid, grid))
    near = np.hypot(left, dorsal) <= radius_mm
    left, dorsal = left[near], dorsal[near]
    fluid = filling.at(offset_points(line, arc, left, dorsal))
    area = fluid.sum(axis=1)
    safe = np.maximum(area, 1e-6)
    shift = np.stack([fluid @ left / safe, fluid @ dorsal / safe], axis=1)
    shift[area < 8.0] = 0.0
    return np.clip(shift, -3.0, 3.0), area


def _weighted_smooth(values: FloatArray, weight: FloatArray, sigma: float) -> FloatArray:
    top = gaussian_filter1d(values * weight, sigma, mode="nearest")
    return np.asarray(top / gaussian_filter1d(weight, sigma, mode="nearest"))


def _followed_tail(filling: _Filling, line: Centerline, last: int) -> Centerline:
    """Replace the line below point `last` by steps that follow the fluid to its end."""
    step = 1.5
    start = max(last - 10, 1)
    at = line.points_lps[start]
    direction = line.points_lps[start] - line.points_lps[max(start - 12, 0)]
    direction = direction / np.linalg.norm(direction)
    points = [*line.points_lps[: start + 1]]
    grid = np.arange(-6.0, 6.1, 1.0)
    left, dorsal = (axis.ravel() for axis in np.meshgrid(grid, grid))
    near = np.hypot(left, dorsal) <= 6.0
    left, dorsal = left[near], dorsal[near]
    for _ in range(round(MAX_TAIL_MM / step)):
        following = at + step * direction
        across, back = left_and_dorsal(direction)
        plane = following + left[:, None] * across + dorsal[:, None] * back
        fluid = filling.at(plane)
        if fluid.sum() < MIN_TAIL_AREA_MM2:
            break
        move = np.array([fluid @ left, fluid @ dorsal]) / fluid.sum()
        following = (
            following
            + 0.5 * np.clip(move[0], -1, 1) * across
            + 0.5 * np.clip(move[1], -1, 1) * back
        )
        turned = 0.8 * direction + 0.2 * (following - at) / np.linalg.norm(following - at)
        direction = turned / np.linalg.norm(turned)
        if direction[2] > -0.1:  # never cranially
            break
        at = following
        points.append(at)
    points.extend(at + n * direction for n in np.arange(1.0, SACRAL_TAIL_MM))
    return Centerline.smoothed(np.array(points), step_mm=1.0, smoothing_mm=4.0)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The signal in polar coordinates about a centerline, shape (arc, angle, radius)."""

    arc_mm: FloatArray
    angle_rad: FloatArray
    radius_mm: FloatArray
    values: Array
    inside: npt.NDArray[np.bool_]

    @classmethod
    def around(cls, fluid_fraction: Volume, centerline: Centerline) -> _Frame:
        arc = np.asarray(np.arange(0.0, centerline.length_mm + 1e-6, ARC_STEP_MM), np.float64)
        angle = np.asarray(np.arange(ANGLES) * (2 * np.pi / ANGLES), np.float64)
        low, high = RADIUS_RANGE_MM
        bins = round((high - low) / RADIUS_STEP_MM) + 1
        radius = np.asarray(np.linspace(low, high, bins), dtype=np.float64)
        left = (np.cos(angle)[:, None] * radius).ravel()
        dorsal = (np.sin(angle)[:, None] * radius).ravel()
        points = offset_points(centerline, arc, left, dorsal)
        shape = (len(arc), ANGLES, len(radius))
        values = fluid_fraction.sample(points, order=1, fill=0.0).astype(np.float32)
        inside = fluid_fraction.geometry.contains(points)
        return cls(arc, angle, radius, values.reshape(shape), inside.reshape(shape))

    def area_mm2(self, filled: npt.NDArray[Any]) -> FloatArray:
        """Return the area of the filled fraction, 0 to 1, of each section, mm²."""
        weight = self.radius_mm * RADIUS_STEP_MM * (2 * np.pi / ANGLES)
        return np.asarray((filled * weight).sum(axis=(1, 2)), np.float64)

    def continued(self, edge: int) -> _Frame:
        """Return the frame with the section cranial to position `edge` repeated caudal to it."""
        values, inside = self.values.copy(), self.inside.copy()
        values[edge:], inside[edge:] = values[edge - 1], inside[edge - 1]
        return replace(self, values=values, inside=inside)


def polar_signal(volume: Volume, centerline: Centerline) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Sample a volume around a centerline: every 2 mm of arc, 48 angles, 48 radii.

    Returns
    -------
    signal : ndarray, float32, shape (arc, angle, radius)
        Angles from the patient's left (0) to the back (90 degrees); radii 0.8 mm to 24.3 mm.
    in_field : ndarray, bool, same shape
    """
    frame = _Frame.around(volume, centerline)
    return frame.values, frame.inside


def sac_range(frame: _Frame, inside: Array) -> tuple[int, int]:
    """Return the first and last arc position of the thecal sac.

    The sac is bridged where no dura is detected (severe stenosis, signal void), up to
    `_MAX_GAP_MM`, unless the part caudal to it is short.
    """
    area = _sac_area(frame, inside)
    parts: list[list[tuple[int, int]]] = []
    for run in _runs(area >= _MIN_SAC_AREA_MM2):
        if parts and (run[0] - parts[-1][-1][1]) * ARC_STEP_MM <= _MAX_GAP_MM:
            parts[-1].append(run)
        else:
            parts.append([run])
    if not parts:
        raise AnalysisError(
            "no thecal sac was detected in the canal; check that the series is fluid-sensitive"
        )
    sac = max(parts, key=lambda runs: runs[-1][1] - runs[0][0])
    while len(sac) > 1 and _is_apart(*sac[-2:]):
        sac.pop()
    return sac[0][0], sac[-1][1] - 1


def _is_apart(sac: tuple[int, int], caudal: tuple[int, int]) -> bool:
    """Return whether a range caudal to the sac is too short to be its continuation."""
    gap_mm = (caudal[0] - sac[1]) * ARC_STEP_MM
    return gap_mm > _SHORT_GAP_MM and (caudal[1] - caudal[0]) * ARC_STEP_MM < _MIN_CAUDAL_MM


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    padded = np.concatenate([[False], mask, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _surface(frame: _Frame, inside: Array, first: int, last: int) -> Array:
    """Return the radius for each arc position and angle, 0 outside `first` to `last`."""
    cost = boundary_cost(inside)[first : last + 1]
    found = _optimize(cost)
    whole = np.zeros(frame.values.shape[:2], np.float32)
    whole[first : last + 1] = _smooth(_subvoxel(frame.radius_mm.astype(np.float32), found, cost))
    return whole


def _optimize(cost: Array) -> npt.NDArray[np.intp]:
    """Return the index of the radius of minimum aggregated cost, shape (arc, angle)."""
    slope = np.float32(_SMOOTHNESS_COST)
    total = np.zeros_like(cost)
    total += _aggregate(cost, slope)
    total += _aggregate(cost[::-1], slope)[::-1]
    around = np.ascontiguousarray(np.moveaxis(cost, 1, 0))
    turned = np.concatenate([around, around, around])  # the angle is periodic
    third = len(around)
    forth = _aggregate(turned, slope)[third : 2 * third]
    back = _aggregate(turned[::-1], slope)[::-1][third : 2 * third]
    total += np.moveaxis(forth + back, 0, 1)
    total -= 3 * cost  # each direction includes the position itself
    return np.asarray(total.argmin(axis=2))


def _aggregate(cost: Array, slope: np.float32) -> Array:
    """Return the minimum cost of a path to each entry along the first axis."""
    reach = 3
    penalties = [slope * np.float32((d / 2.0) ** 2) for d in range(reach + 1)]
    jump = slope * np.float32(4.0)
    result = np.empty_like(cost)
    result[0] = cost[0]
    for n in range(1, len(cost)):
        before = result[n - 1]
        floor = before.min(axis=-1, keepdims=True)
        best = np.minimum(before, floor + jump)
        for d in range(1, reach + 1):
            best[..., d:] = np.minimum(best[..., d:], before[..., :-d] + penalties[d])
            best[..., :-d] = np.minimum(best[..., :-d], before[..., d:] + penalties[d])
        result[n] = cost[n] + best - floor
    return result


def _subvoxel(radii: Array, found: npt.NDArray[np.intp], cost: Array) -> Array:
    """Return the vertex of the parabola through the cost at the optimum and its neighbors."""
    n = len(radii)
    middle = np.clip(found, 1, n - 2)
    before, at, after = (
        np.take_along_axis(cost, (middle + d)[..., None], axis=2)[..., 0] for d in (-1, 0, 1)
    )
    bend = before - 2 * at + after
    shift = np.where(bend > 1e-4, 0.5 * (before - after) / np.maximum(bend, 1e-4), 0.0)
    return np.asarray(radii[middle] + np.clip(shift, -0.5, 0.5) * RADIUS_STEP_MM, np.float32)


def _smooth(radius: Array) -> Array:
    ring = np.pad(radius, ((0, 0), (1, 1)), mode="wrap")
    steady = median_filter(ring, size=(5, 3), mode="nearest")[:, 1:-1]
    return np.asarray(gaussian_filter(steady, (1.0, 0.7), mode=("nearest", "wrap")))


def _recentered(
    centerline: Centerline, frame: _Frame, radius: Array, first: int, last: int
) -> Centerline:
    """Move the centerline to the centroid of each cross-section of the sac."""
    ring = radius[first : last + 1].astype(np.float64)
    weight = (ring**2).sum(axis=1)
    # Centroid of a polar region: integral of r³/3 over that of r²/2.
    left = (2 / 3) * (ring**3 * np.cos(frame.angle_rad)).sum(axis=1) / weight
    dorsal = (2 / 3) * (ring**3 * np.sin(frame.angle_rad)).sum(axis=1) / weight
    arc = frame.arc_mm[first : last + 1]
    at = centerline.arc_mm
    points = centerline.points_lps.copy()
    shift_left = np.interp(at, arc, left)
    shift_dorsal = np.interp(at, arc, dorsal)
    points = (
        points
        + shift_left[:, None] * centerline.lefts_lps
        + shift_dorsal[:, None] * centerline.dorsals_lps
    )
    return Centerline.smoothed(points, step_mm=1.0, smoothing_mm=CENTERING_SMOOTHING_MM)
