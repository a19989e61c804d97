"""Made-up pieces of spinal canal for training the dura network, drawn anew each time.

No anatomy is copied: sac, cord, roots, dura, fluid outside, fat, veins, cysts and the scanner are
drawn at random, wider than nature, so that the network cannot lean on one renderer's look. A piece
is 32 slices, 2 mm apart, of 36 mm squares, sampled like a real one in polar coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from leakloc.segmentation.dura_network import ANGLES, RADII, RADIUS_START_MM, RADIUS_STEP_MM

Array = npt.NDArray[Any]
Rng = np.random.Generator

SLICES = 32
SLICE_MM = 2.0
SIDE_PX = 60
PIXEL_MM = 0.6
RING = 96
"""Columns of the fields over the angle."""
TURN = np.arange(RING) * 2 * np.pi / RING
_OFFSET_MM = ((np.arange(SIDE_PX) - (SIDE_PX - 1) / 2) * PIXEL_MM).astype(np.float32)
LEFT_MM, DORSAL_MM = (axis[None] for axis in np.meshgrid(_OFFSET_MM, _OFFSET_MM))
SLICE = np.arange(SLICES)


@dataclass(frozen=True)
class Piece:
    """One piece in polar coordinates, arrays ``(SLICES, 48, 38)``.

    Parameters
    ----------
    signal : ndarray, float32
        About 0 in soft tissue and 1 in CSF.
    in_field : ndarray, bool
    inside, fluid : ndarray, float32
        Share inside the dura, and of fluid outside it.
    """

    signal: Array
    in_field: Array
    inside: Array
    fluid: Array


@dataclass
class _Canal:
    """Geometry of a piece: distances in mm over ``(slice, dorsal, left)``."""

    left: Array
    dorsal: Array
    half_width: Array
    half_depth: Array
    outside_dura: Array
    above_tip: Array
    sheet: Array
    """Thickness of the fluid outside, ``(SLICES, RING)``."""
    sheet_turn: float
    """Angle of its middle."""
    middle: tuple[Array, Array]


def make_piece(rng: Rng) -> Piece:
    """Draw one piece."""
    canal = _canal(rng)
    signal, fluid, inner = _painted(canal, rng)
    return _scanned(signal, fluid * (1 - inner), canal, rng)


def _wander(rng: Rng, sigma: float) -> Array:
    """Smooth noise of unit variance along the slices, shape (SLICES, 1, 1)."""
    noise = gaussian_filter1d(rng.normal(size=SLICES + 60), sigma)[30:-30]
    return np.asarray(noise / (noise.std() + 1e-6), np.float32)[:, None, None]


def _field(rng: Rng, along: float, around: float) -> Array:
    """Smooth noise of unit variance over slice and angle, shape (SLICES, RING)."""
    noise = rng.normal(size=(SLICES + 40, RING))
    noise = gaussian_filter(noise, (along, around), mode=("nearest", "wrap"))[20:-20]
    return np.asarray(noise / noise.std(), np.float32)


def _at(field: Array, angle: Array) -> Array:
    """Values of a field over slice and angle at the angles of pixels."""
    column = angle % (2 * np.pi) / (2 * np.pi) * RING
    low = np.floor(column).astype(int) % RING
    share = (column - np.floor(column)).astype(np.float32)
    closed = np.concatenate([field, field[:, :1]], axis=1)
    rows = SLICE[:, None, None]
    return np.asarray(closed[rows, low] * (1 - share) + closed[rows, low + 1] * share)


def _covered(distance_mm: Array) -> Array:
    """Share of a pixel within a surface, from its signed distance."""
    return np.asarray(np.clip(0.5 - distance_mm / PIXEL_MM, 0, 1), np.float32)


def _ellipse(x: Array, y: Array, a: Array, b: Array) -> Array:
    """About the signed distance from an ellipse."""
    a, b = np.maximum(a, 0.05), np.maximum(b, 0.05)
    ratio, angle = np.hypot(x / a, y / b) + 1e-6, np.arctan2(y / b, x / a)
    return np.asarray((ratio - 1) * np.hypot(a * np.cos(angle), b * np.sin(angle)))


def _canal(rng: Rng) -> _Canal:
    a, b, tip = _sac_size(rng)
    middle = tuple(_wander(rng, 7) * rng.uniform(0, 1.5) + rng.normal() * 0.8 for _ in range(2))
    x, y = LEFT_MM - middle[0], DORSAL_MM - middle[1]
    turn = float(rng.choice([np.pi / 2, -np.pi / 2, 0, np.pi]) + rng.normal() * 0.25)
    around = rng.random() < 0.2
    sheet = np.zeros((SLICES, RING), np.float32)
    if rng.random() < 0.65:
        sheet = _sheet(rng, turn, around)
    push = np.clip(gaussian_filter1d(sheet.max(1), 1.5) - rng.uniform(1, 4), 0, None)
    push = push[:, None, None]
    sine, cosine = np.sin(turn), np.cos(turn)
    flattened = rng.random() < 0.5
    if around:
        give_b, give_a = np.minimum(push / 2, 0.4 * b), np.minimum(push / 2, 0.4 * a)
    else:
        give_b = np.minimum(push * abs(sine), 0.5 * b)
        give_a = np.minimum(push * abs(cosine), 0.5 * a)
    wide, deep = a, b
    if flattened or around:  # the whole sac becomes smaller and moves aside
        wide, deep = a - give_a / 2, b - give_b / 2
        if not around:
            y = y + np.sign(sine) * give_b / 2
            x = x + np.sign(cosine) * give_a / 2
    outside = _ellipse(x, y, wide, deep)
    outside = outside + _at(_field(rng, 6, 6) * rng.uniform(0, 0.35), np.arctan2(y, x))
    if sheet.any() and not flattened and not around:  # a flat side where the fluid presses
        reach = b - give_b if abs(sine) > abs(cosine) else a - give_a
        plane = x * cosine + y * sine - np.maximum(reach, 1.0)
        outside = _smooth_maximum(outside, plane, 0.8)
    return _Canal(
        x, y, wide, deep, outside.astype(np.float32), (tip >= SLICE)[:, None, None],
        sheet, turn, (middle[0], middle[1]),
    )  # fmt: skip


def _smooth_maximum(first: Array, second: Array, blend_mm: float) -> Array:
    gap = np.abs(first - second)
    blend = np.where(gap < blend_mm, (blend_mm - gap) ** 2 / (4 * blend_mm), 0)
    return np.asarray(np.maximum(first, second) + blend)


def _sac_size(rng: Rng) -> tuple[Array, Array, float]:
    """Half width and half depth of the sac, and the slice of its tip."""
    width = rng.uniform(4.5, 10.0)
    depth = max(width * rng.uniform(0.55, 1.05), 3.5)
    a = width * (1 + 0.08 * _wander(rng, 6) * rng.random())
    b = depth * (1 + 0.08 * _wander(rng, 5) * rng.random())
    tip = float(SLICES + 99)
    row = SLICE[:, None, None]
    if rng.random() < 0.3:
        tip = rng.uniform(8, SLICES - 3)
        taper = np.clip((tip - row) / rng.uniform(4, 25), 0, 1) ** rng.uniform(0.4, 1.0)
        a, b = a * taper, b * taper
    if rng.random() < 0.25:  # stenosis
        waist = np.exp(-0.5 * ((row - rng.uniform(0, SLICES)) / rng.uniform(2, 5)) ** 2)
        narrow = 1 - rng.uniform(0.2, 0.65) * waist
        a, b = a * (0.6 + 0.4 * narrow), b * narrow
    return a, b, tip


def _sheet(rng: Rng, turn: float, around: bool) -> Array:
    """Thickness of a sheet of fluid along the dura."""
    peak = rng.uniform(-3, SLICES + 3)
    above, below = rng.uniform(6, 45, 2)
    away = np.where(peak > SLICE, (peak - SLICE) / above, (SLICE - peak) / below)
    envelope = np.clip(1 - away**2, 0, 1) ** rng.uniform(0.6, 1.6)
    aside = np.abs((TURN - turn + np.pi) % (2 * np.pi) - np.pi)
    flat = np.deg2rad(rng.uniform(25, 70))
    fading = np.deg2rad(rng.uniform(20, 60))
    window = np.clip((flat + fading - aside) / fading, 0, 1)
    window = window * window * (3 - 2 * window)
    if around:
        window[:] = 1
    elif abs(turn + np.pi / 2) < 0.6 and rng.random() < 0.5:  # the septum in front
        window *= 1 - 0.5 * np.exp(-0.5 * (aside / 0.17) ** 2)
    greatest = rng.choice([rng.uniform(1, 2.5), rng.uniform(2, 5), rng.uniform(4, 9)])
    uneven = np.exp(rng.uniform(0.05, 0.4) * _field(rng, 3, 4))
    sheet = greatest * envelope[:, None] * window * uneven
    return np.where(sheet < 0.3, 0, sheet).astype(np.float32)


def _painted(canal: _Canal, rng: Rng) -> tuple[Array, Array, Array]:
    """Signal before the scanner, share of fluid outside, share inside the dura."""
    x, y, outside = canal.left, canal.dorsal, canal.outside_dura
    angle = np.arctan2(y, x)
    image = _surroundings(canal, angle, rng)
    thickness = _at(canal.sheet, angle)
    fluid = np.where(thickness > 0.3, _covered(outside - thickness), 0)
    brightness = rng.uniform(0.85, 1.08)
    if canal.sheet.any() and rng.random() < 0.4:  # islands of fat
        for _ in range(rng.integers(1, 5)):
            turn = canal.sheet_turn + rng.normal() * 0.5
            ball = _ball(canal, turn, rng.uniform(1, 4), rng.uniform(0.6, 2.0), rng, 0.5)
            fluid = fluid * (1 - _covered(ball))
    if rng.random() < 0.5:
        fluid = fluid * canal.above_tip
    image = image * (1 - fluid) + brightness * fluid
    if rng.random() < 0.06:  # a cyst on a root
        size = rng.uniform(3, 8)
        cyst = _ball(canal, rng.choice([0, np.pi]), 0.8 * size, size, rng)
        image = _over(image, _covered(cyst - 0.5), 0.04)
        image = _over(image, _covered(cyst), rng.uniform(0.9, 1.05))
    sleeve = _sleeves(canal, rng)
    image = _over(image, _covered(sleeve - 0.4), 0.05)
    image = _over(image, _covered(sleeve), 1.0)
    if rng.random() < 0.8:
        image = _over(image, _covered(sleeve + rng.uniform(0.6, 1.2)), 0.15)
    inner = _covered(outside) * canal.above_tip
    outer = _covered(outside - rng.uniform(0.3, 0.8)) * canal.above_tip
    mouth = np.minimum(_covered(sleeve), _covered(outside - 1.2))
    line = np.maximum(outer - mouth, inner) - inner
    csf = _flow_voids(x, y, rng)
    seen = _at(_dura_visibility(rng), angle)
    blurred_over = np.where(fluid > 0.3, brightness, csf)
    dark = rng.uniform(0, 0.25)
    image = image * (1 - line - inner) + line * (seen * dark + (1 - seen) * blurred_over)
    image = image + inner * csf
    return _nerves(image, inner, canal, rng), fluid, inner


def _over(image: Array, share: Array, signal: float) -> Array:
    return np.asarray(image * (1 - share) + signal * share)


def _ball(
    canal: _Canal, turn: float, beyond_mm: float, radius_mm: float, rng: Rng, squash: float = 1.0
) -> Array:
    """Signed distance from a ball beyond the sac at a random height."""
    dx = canal.left - (canal.half_width + beyond_mm) * np.cos(turn)
    dy = canal.dorsal - (canal.half_depth + beyond_mm) * np.sin(turn)
    dz = (SLICE[:, None, None] - rng.uniform(0, SLICES)) * SLICE_MM * squash
    return np.asarray(np.sqrt(dx**2 + dy**2 + dz**2) - radius_mm)


def _surroundings(canal: _Canal, angle: Array, rng: Rng) -> Array:
    """Soft tissue, epidural fat, bone, veins and bright pools outside."""
    grain = gaussian_filter(rng.normal(size=(SLICES, SIDE_PX, SIDE_PX)), (1, 2, 2))
    image = rng.uniform(0, 0.14) * (1 + 2 * rng.random() * grain).astype(np.float32)
    behind = (TURN - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    depth = 1 + 2 * _field(rng, 5, 5) + rng.uniform(0, 3) * np.exp(-0.5 * behind**2 / 0.3)
    space = np.maximum(
        _at(np.clip(depth, 0.2, 8), angle), _at(canal.sheet, angle) * rng.uniform(0.9, 1.2)
    )
    wall = canal.outside_dura - space
    fat = rng.choice([rng.uniform(0, 0.12), rng.uniform(0.05, 0.45)])
    image = _over(image, _covered(wall), fat)
    if rng.random() < 0.5:
        image = _over(image, _covered(np.abs(wall - 0.6) - 0.6), rng.uniform(0, 0.03))
    row = SLICE[:, None, None]
    for _ in range(rng.integers(0, 6)):  # veins
        turn, beyond = rng.uniform(0, 2 * np.pi), rng.uniform(1, 7)
        sway = 1.5 * _wander(rng, 5)
        dx = canal.left - (canal.half_width + beyond) * np.cos(turn) - sway
        dy = canal.dorsal - (canal.half_depth + beyond) * np.sin(turn)
        fade = np.clip(1.3 - np.abs(row - rng.uniform(0, SLICES)) / rng.uniform(3, 12), 0, 1)
        share = _covered(np.hypot(dx, dy) - rng.uniform(0.5, 2.0) * fade)
        signal = rng.choice([rng.uniform(0.15, 0.6), rng.uniform(0.6, 1)])
        image = _over(image, share * (canal.outside_dura > 1.0), signal)
    if rng.random() < 0.3:  # joint fluid, seroma, disc
        size = rng.uniform(3, 12)
        pool = _ball(canal, rng.uniform(0, 2 * np.pi), size + rng.uniform(4, 14), size, rng)
        image = _over(image, _covered(pool), rng.uniform(0.5, 1.1))
    return image


def _sleeves(canal: _Canal, rng: Rng) -> Array:
    """Signed distance from the root sleeves."""
    distance = np.full(canal.outside_dura.shape, 9.0, np.float32)
    row = SLICE[:, None, None]
    for side in (-1, 1):
        for _ in range(rng.integers(0, 4)):
            radius, length = rng.uniform(0.8, 2.2), rng.uniform(2, 7)
            along = side * canal.left - (canal.half_width - 0.5)
            down = (row - rng.uniform(0, SLICES)) * SLICE_MM
            at = np.clip(along, 0, length)
            away = np.sqrt(
                (along - at) ** 2
                + (canal.dorsal - rng.uniform(-2, 1)) ** 2
                + (down - rng.uniform(0.5, 1.5) * at) ** 2
            )
            distance = np.minimum(distance, away - radius * (1 - 0.4 * at / length))
    return distance


def _dura_visibility(rng: Rng) -> Array:
    """How much of the dura's darkness shows, over slice and angle."""
    level = rng.choice([rng.uniform(0.3, 1.2), rng.uniform(0.7, 1.2)])
    patches = _field(rng, rng.uniform(1, 4), rng.uniform(2, 6))
    return np.asarray(np.clip(level + rng.uniform(0, 0.45) * patches, 0.05, 1), np.float32)


def _flow_voids(x: Array, y: Array, rng: Rng) -> Array:
    csf = np.ones(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for _ in range(rng.integers(0, 3)):
        if rng.random() < 0.5:
            dx = (x - rng.normal() * 4) / rng.uniform(1.5, 4)
            dy = (y - rng.normal() * 3) / rng.uniform(1.5, 4)
            dz = (SLICE[:, None, None] - rng.uniform(0, SLICES)) / rng.uniform(2, 6)
            csf *= 1 - rng.uniform(0.2, 0.8) * np.exp(-0.5 * (dx**2 + dy**2 + dz**2))
    return csf


def _nerves(image: Array, inner: Array, canal: _Canal, rng: Rng) -> Array:
    """Cord, roots, or both."""
    kind, signal = rng.random(), rng.uniform(0.02, 0.35)
    a, b = canal.half_width, canal.half_depth
    row = SLICE[:, None, None]
    if kind < 0.55:
        wide = np.minimum(rng.uniform(3.0, 6.5), 0.85 * a)
        deep = np.minimum(rng.uniform(2.5, 4.5), 0.85 * b)
        free_x = np.maximum(a - wide - 0.2, 0)
        free_y = np.maximum(b - deep - rng.uniform(-0.2, 0.6), 0)  # it may touch the dura
        aside = np.clip(_wander(rng, 7) * rng.uniform(0, 1), -free_x, free_x)
        back = np.clip(_wander(rng, 7) * rng.uniform(0, 1.2) + rng.normal() * 1.2, -free_y, free_y)
        end = rng.uniform(0, SLICES) if rng.random() < 0.3 else SLICES + 9
        size = np.maximum(np.clip((end - row) / 6, 0, 1), 0.02)
        cord = _ellipse(canal.left - aside, canal.dorsal - back, wide * size, deep * size)
        image = _over(image, np.minimum(_covered(cord), inner) * (row <= end), signal)
    if kind > 0.35:
        gravity, spread = rng.uniform(-0.2, 0.8), rng.uniform(0.5, 1)
        for _ in range(rng.integers(4, 34)):
            turn, place = rng.uniform(0, 2 * np.pi), 0.92 * np.sqrt(rng.random())
            px = place * np.cos(turn) * spread + 0.08 * _wander(rng, 6)
            py = 0.7 * place * np.sin(turn) * spread + 0.5 * gravity + 0.08 * _wander(rng, 6)
            shrink = np.maximum(np.hypot(px, py) / 0.93, 1)
            away = np.hypot(canal.left - px / shrink * a, canal.dorsal - py / shrink * b)
            share = np.clip((rng.uniform(0.3, 0.85) + 0.35 - away) / 0.7, 0, 1)
            middle = rng.uniform(-SLICES, 2 * SLICES)
            there = rng.random() < 0.6 or np.abs(row - middle) < SLICES / 2
            share = np.minimum(share, inner) * there * rng.uniform(0.4, 1)
            image = _over(image, share, signal)
    return image


def _scanned(image: Array, fluid: Array, canal: _Canal, rng: Rng) -> Piece:
    """Contrast, bias, blur, voxels and noise; then polar, about a line that is a little off."""
    image = np.clip(image, 0, None)
    if rng.random() < 0.5:
        image = image ** rng.uniform(0.75, 1.4)
    tilt = rng.uniform(-0.02, 0.02, 2)
    image = image * (1 + tilt[0] * DORSAL_MM + tilt[1] * LEFT_MM)
    blur = [rng.uniform(0, 0.6), *[rng.uniform(0.2, 0.6) / PIXEL_MM] * 2]
    voxel_mm = [rng.uniform(0.6, 1.2)] * 2  # back, left
    if rng.random() < 0.22:  # thick slices: sagittal, or along the canal
        if rng.random() < 0.6:
            voxel_mm[1] = rng.uniform(2.5, 4.2)
        else:
            blur[0] = rng.uniform(0.6, 1.1)
    for axis in (0, 1):  # a voxel averages over its width
        blur[axis + 1] = float(np.hypot(blur[axis + 1], 0.29 * voxel_mm[axis] / PIXEL_MM))
    image = gaussian_filter(image.astype(np.float32), blur)
    centers = []
    for mm, shift in zip(voxel_mm, rng.uniform(-0.5, 0.5, 2), strict=True):
        count = int(SIDE_PX * PIXEL_MM / mm)
        centers.append((np.arange(count) - (count - 1) / 2 + shift) * mm)
    pixels = [mm / PIXEL_MM + (SIDE_PX - 1) / 2 for mm in centers]
    grid = np.meshgrid(SLICE, *pixels, indexing="ij")
    voxels = map_coordinates(image, grid, order=1, mode="nearest")
    noise = gaussian_filter1d(rng.normal(size=(2, *voxels.shape)), 0.5, axis=1)
    noise *= rng.choice([rng.uniform(0.005, 0.03), rng.uniform(0.02, 0.09)]) / noise.std()
    voxels = np.hypot(voxels + noise[0], noise[1])
    voxels = (voxels - np.median(voxels) * 0.7 * rng.random()) * rng.uniform(0.85, 1.15)
    radius = RADIUS_START_MM + RADIUS_STEP_MM * np.arange(RADII)
    turn = np.arange(ANGLES) * 2 * np.pi / ANGLES
    aside, back = (canal.middle[n] + _wander(rng, 6) * rng.uniform(0, 0.8) for n in (0, 1))
    left = radius * np.cos(turn)[:, None] + aside
    dorsal = radius * np.sin(turn)[:, None] + back
    rows = np.broadcast_to(SLICE[:, None, None], left.shape)
    at_voxel = [
        (mm - start[0]) / size
        for mm, start, size in zip((dorsal, left), centers, voxel_mm, strict=True)
    ]
    signal = map_coordinates(voxels, [rows, *at_voxel], order=1, mode="nearest")
    at_pixel = [rows, *(mm / PIXEL_MM + (SIDE_PX - 1) / 2 for mm in (dorsal, left))]
    inside = _covered(canal.outside_dura) * canal.above_tip
    truth = [
        map_coordinates(part.astype(np.float32), at_pixel, order=1, mode="nearest")
        for part in (inside, fluid)
    ]
    in_field = np.ones(signal.shape, bool)
    if rng.random() < 0.1:  # a thin sagittal slab
        in_field = np.abs(left) < rng.uniform(9, 14)
    return Piece(np.where(in_field, signal, 0).astype(np.float32), in_field, *truth)
