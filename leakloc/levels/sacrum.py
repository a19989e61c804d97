"""Axis of the sacral bodies, and the remnant discs between them.

The anatomy network segments the sacral bodies as one component. Their axis is traced from the
lumbosacral disc to the lower end of the field of view. A remnant disc crosses the marrow as a dark
line on every contrast; segment heights identify the lines and give the positions of remnants that
are not visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, percentile_filter

from leakloc.anatomy.centerline import Centerline, left_and_dorsal
from leakloc.anatomy.reference import reference_chain
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.candidates import Candidate

_STEP_MM: Final = 1.0
"""Step along the axis."""
_HALF_MM: Final = (12.0, 24.0)
"""Half size of the plane in which bone is sampled: lateral, anteroposterior."""
_MIN_DEPTH_MM: Final = 3.0
"""Minimum anteroposterior depth of bone; thinner bone is the end of the sacrum."""
_MAX_LENGTH_MM: Final = 190.0
"""Maximum length of a sacrum along its axis (S1 to S5: mean 130 mm)."""
_BONE: Final = (0.35, 0.5)
"""Minimum probability of a voxel used for centering, and of bone."""
_CENTERING: Final = (0.15, 0.35)
"""Fraction of the distance to the bone center moved at each step, laterally and posteriorly: slabs
are often narrower than the sacrum."""
_TURN: Final = 0.12
"""Weight of the last step in the direction of the next step."""
_MAX_LATERAL: Final = 0.2
"""Maximum lateral component of the direction: 12 degrees."""
_ABOVE_BONE_MM: Final = 15.0
"""Maximum distance of the first bone below the center of the lumbosacral disc."""
_GAP_MM: Final = 5.0
"""Maximum length of a gap in the detected bone."""
_TURN_DEG_PER_MM: Final = 0.4
"""Anterior curvature beyond the last bone: mean from S2 to S4 in four development patients of
SPIDER (CC BY 4.0)."""
_STRAIGHT_MM: Final = 60.0
"""Length of the straight part of the axis, S1 and S2."""
_EXPECTED_TILT_DEG: Final = 20.0
"""Posterior tilt of that part from the normal of the lumbosacral disc."""
_SIGNAL_HALF_MM: Final = 6.0
"""The signal is averaged over this distance on both sides of the midline,"""
_SIGNAL_DEPTH: Final = 0.3
"""... and over this fraction of the bone depth anteriorly and posteriorly."""
_MARROW_MM: Final = 25.0
"""Length over which marrow signal is the 65th percentile: most of a segment."""
_DARK: Final = 0.5
"""Fraction by which a definite remnant is darker than marrow."""
_EVIDENCE: Final = 5.0
"""Log evidence of a definite remnant: equivalent to three standard deviations."""
_HEIGHT_SD: Final = 0.07
_SIZE_SD: Final = 0.08
"""Standard deviations of segment height relative to sacrum size, and of sacrum size relative to
body size; together 6 to 11 % in twelve development patients of SPIDER."""
_SIZES: Final = tuple(np.linspace(0.7, 1.3, 13))
"""Candidate sizes of the sacrum, relative to body size."""
_EXCLUDED: Final = -1e6
"""Score of an excluded position."""
_MIN_DARKNESS: Final = 0.3
"""Minimum darkness of a detected remnant."""


@dataclass(frozen=True, eq=False)
class SacralAxis:
    """Axis through the centers of the sacral bodies.

    Parameters
    ----------
    points_lps : ndarray, shape (n, 3)
        1 mm apart, from the center of the lumbosacral disc to the caudal end of the field of view.
    depth_mm : ndarray, shape (n,)
        Anteroposterior depth of the bone; 0 beyond its end.
    darkness : ndarray, shape (n,)
        Fraction by which the bone is darker than marrow; 0 where unknown.
    """

    points_lps: FloatArray
    depth_mm: FloatArray
    darkness: FloatArray


def trace_sacrum(
    image: Volume, sacrum: Volume, candidates: Sequence[Candidate]
) -> SacralAxis | None:
    """Trace the sacral bodies from the disc with the most sacral bone below and least above.

    Parameters
    ----------
    image : Volume
        The volume in which discs were detected.
    sacrum : Volume
        Probability of sacral bone.
    candidates : sequence of Candidate

    Returns
    -------
    SacralAxis or None
        None if no disc has sacral bone below it.
    """
    sacral = [c for c in candidates if c.sacrum_below > 0.5]
    if not sacral:
        return None
    top = max(
        sacral, key=lambda c: c.score * (c.sacrum_below - 0.5 * np.nan_to_num(c.sacrum_above))
    )
    traced = _trace(sacrum, top.center_lps, -top.normal_lps, image)
    if traced is None:
        return None
    line, depth_mm = traced
    return SacralAxis(line.points_lps, depth_mm, _darkness(image, line, depth_mm))


def expected_axis(junction_lps: FloatArray, normal_lps: FloatArray) -> SacralAxis:
    """Expected axis of a sacrum outside the images, below the lumbosacral disc.

    Parameters
    ----------
    junction_lps, normal_lps : ndarray, shape (3,)
        Center and cranial normal of the lumbosacral disc.
    """
    points, direction = [np.asarray(junction_lps, np.float64)], -np.asarray(normal_lps, np.float64)
    _, back = left_and_dorsal(direction)
    angle = np.radians(_EXPECTED_TILT_DEG)
    direction = np.cos(angle) * direction + np.sin(angle) * back
    while len(points) < _MAX_LENGTH_MM / _STEP_MM:
        if len(points) * _STEP_MM > _STRAIGHT_MM:
            _, back = left_and_dorsal(direction)
            direction = direction - np.radians(_TURN_DEG_PER_MM) * _STEP_MM * back
            direction = direction / np.linalg.norm(direction)
        points.append(points[-1] + _STEP_MM * direction)
    nothing = np.zeros(len(points))
    return SacralAxis(np.array(points), nothing, nothing)


def place_remnants(
    axis: SacralAxis,
    junction_lps: FloatArray,
    known_lps: dict[str, FloatArray],
    scale: float,
) -> tuple[FloatArray, list[bool]]:
    """Locate the four sacral discs and the caudal end of S5 along the sacral axis.

    Parameters
    ----------
    axis : SacralAxis
    junction_lps : ndarray, shape (3,)
        Center of the lumbosacral disc.
    known_lps : dict
        Centers of detected sacral discs, by name.
    scale : float
        Body size relative to the mean adult.

    Returns
    -------
    arc_mm : ndarray, shape (5,)
        Distances along the axis of S1-S2 to S4-S5 and of the end of S5.
    detected : list of bool
        Whether each is visible in the image.
    """
    line = Centerline(axis.points_lps)
    chain = reference_chain(5)
    first = chain.vertebrae.index("S1")
    heights = scale * chain.pitch_mm[first:]
    names = chain.discs[first:]
    start = float(line.project(junction_lps)[0])
    arcs = np.arange(min(start, 0.0), start + heights.sum() * max(_SIZES), _STEP_MM)
    darkness = np.interp(arcs, line.arc_mm, axis.darkness, 0.0, 0.0)
    gain = _EVIDENCE / _DARK * darkness
    gains = [gain] * len(names)
    for n, name in enumerate(names):
        if name in known_lps:
            near = np.abs(arcs - float(line.project(known_lps[name])[0])) <= 2 * _STEP_MM
            gains[n] = np.where(near, gain, _EXCLUDED)
    found = (_fitted(arcs, start, size * heights, gains, size) for size in _SIZES)
    _, chosen = max(found, key=lambda fit: fit[0])
    dark = darkness[chosen] >= _MIN_DARKNESS
    detected = [bool(d) or n in known_lps for d, n in zip(dark, (*names, ""), strict=True)]
    return arcs[chosen], detected


def _fitted(
    arcs: FloatArray, start_mm: float, heights: FloatArray, gains: Sequence[FloatArray], size: float
) -> tuple[float, npt.NDArray[np.intp]]:
    """Best positions of the caudal ends of the segments for one sacrum size, and their score."""
    best = np.where(np.abs(arcs - start_mm) <= 0.5 * _STEP_MM, 0.0, _EXCLUDED)
    previous = []
    for n, height in enumerate(heights):
        deviation = (arcs[:, None] - arcs[None, :] - height) / (_HEIGHT_SD * height)
        total = best[None, :] - 0.5 * deviation**2
        previous.append(total.argmax(axis=1))
        best = total.max(axis=1) + (gains[n] if n < len(gains) else 0.0)
    places = [int(best.argmax())]
    for back in reversed(previous[1:]):
        places.append(int(back[places[-1]]))
    score = float(best.max()) - 0.5 * ((size - 1.0) / _SIZE_SD) ** 2
    return score, np.array(places[::-1])


def _trace(
    sacrum: Volume, start_lps: FloatArray, direction: FloatArray, image: Volume
) -> tuple[Centerline, FloatArray] | None:
    """Follow the bone center caudally, then extrapolate to the end of the field of view."""
    lateral, posterior = np.meshgrid(
        np.arange(-_HALF_MM[0], _HALF_MM[0] + 0.1, 3.0),
        np.arange(-_HALF_MM[1], _HALF_MM[1] + 0.1, 1.0),
        indexing="ij",
    )
    at, half = np.asarray(start_lps, np.float64), 12.0
    points, depths, below_mm, found = [at], [0.0], 0.0, False
    while len(points) < _MAX_LENGTH_MM / _STEP_MM:
        left, back = left_and_dorsal(direction)
        moved = at + _STEP_MM * direction
        plane = moved + lateral[..., None] * left + posterior[..., None] * back
        bone = np.where(np.abs(posterior) < half + 6.0, sacrum.sample(plane), 0.0)
        bone = np.where(bone > _BONE[0], bone, 0.0)
        depth = float((bone > _BONE[1]).sum(axis=1).max())
        if depth >= _MIN_DEPTH_MM:
            found, below_mm = True, 0.0
            middle = np.array([(bone * lateral).sum(), (bone * posterior).sum()]) / bone.sum()
            move = np.clip(middle, -2.0, 2.0) * _CENTERING
            moved = moved + move[0] * left + move[1] * back
            half = 0.8 * half + 0.2 * max(depth / 2, 5.0)
            toward = (moved - at) / np.linalg.norm(moved - at)
            direction = (1 - _TURN) * direction + _TURN * toward
        elif found:
            below_mm, depth = below_mm + _STEP_MM, 0.0
            if below_mm > _GAP_MM:
                direction = direction - np.radians(_TURN_DEG_PER_MM) * _STEP_MM * back
        elif len(points) * _STEP_MM > _ABOVE_BONE_MM:
            return None
        direction[0] = np.clip(direction[0], -_MAX_LATERAL, _MAX_LATERAL)
        direction = direction / np.linalg.norm(direction)
        if direction[2] > 0.0:  # cranial: the curve has left the sacrum
            break
        at = moved
        if not image.geometry.contains(image.geometry.clamp_left_right(at)):
            break
        points.append(at)
        depths.append(depth)
    if not found or len(points) < 2:
        return None
    line = Centerline.smoothed(np.array(points), step_mm=_STEP_MM, smoothing_mm=4.0)
    arc_mm = np.linspace(0.0, line.length_mm, len(depths))
    return line, np.interp(line.arc_mm, arc_mm, depths)


def _darkness(image: Volume, line: Centerline, depth_mm: FloatArray) -> FloatArray:
    """Fraction by which bone along the axis is darker than adjacent marrow, beyond noise."""
    _, left, dorsal = line.frame_at(line.arc_mm)
    lateral = np.arange(-_SIGNAL_HALF_MM, _SIGNAL_HALF_MM + 0.1, 3.0)
    posterior = _SIGNAL_DEPTH * gaussian_filter1d(np.clip(depth_mm, 8.0, 35.0), 4.0)
    points = (
        line.points_lps[:, None, None]
        + lateral[None, :, None, None] * left[:, None, None]
        + (posterior[:, None] * np.linspace(-1, 1, 9))[:, None, :, None] * dorsal[:, None, None]
    )
    inside = image.geometry.contains(points)
    total = (image.sample(points) * inside).sum(axis=(1, 2))
    known = inside.mean(axis=(1, 2)) > 0.3
    if known.sum() < _MARROW_MM:
        return np.zeros(len(known))
    signal = np.where(known, total / np.maximum(inside.sum(axis=(1, 2)), 1), np.nan)
    signal = np.interp(line.arc_mm, line.arc_mm[known], signal[known])
    signal = gaussian_filter1d(signal, 0.7)
    half = round(0.5 * _MARROW_MM / _STEP_MM)
    around = percentile_filter(signal, 65, size=2 * half + 1, mode="nearest")
    near = percentile_filter(signal, 65, size=half, mode="nearest")
    place = np.arange(len(signal))
    cranial, caudal = (near[np.clip(place + d, 0, len(place) - 1)] for d in (-half, half))
    # Beyond the segmented bone, a line must have marrow on both sides.
    marrow = np.where(depth_mm >= _MIN_DEPTH_MM, around, np.minimum(cranial, caudal))
    dark = 1.0 - signal / np.maximum(marrow, 1e-6)
    bone = known & (depth_mm >= _MIN_DEPTH_MM)
    noise = 1.48 * float(np.median(np.abs(dark[bone] - np.median(dark[bone])))) if bone.any() else 0
    return np.where(known, np.clip(dark - 1.5 * noise, 0.0, _DARK), 0.0)
