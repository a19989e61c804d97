"""Cauda equina: strands of the nerve roots, their arrangement in the sac and exit points.

The roots fill the lowest part of the sac, in supine position the dorsal part, in contact with each
other. Their number decreases at each foramen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.volume import FloatArray
from leakloc.validation.phantom.shapes import smooth_noise

if TYPE_CHECKING:
    from leakloc.validation.phantom.levels import LevelSite
    from leakloc.validation.phantom.tables import Tables

ROOT_ROWS: Final = 8
"""Rows of the arc tables per point of a strand (2 mm)."""

DIAMETER_MM: Final = (0.8, 2.4)
"""Range of the strand diameter."""

_STRANDS: Final = (3, 3, 4, 5, 6, 6, 5, 6)
"""Strands per side that exit at the top of L1 ... S3: ventral and dorsal bundles, more fascicles
for the large roots (L3 to S1); the last entry is for S3 to S5 combined. An axial plane at L2-L3
contains about 40 strands; 30 to 40 dark dots were counted there on SPIDER volumes."""

_RADIUS_MM: Final = 0.84
"""Mean radius of the strands of a subject (median), chosen so that the fraction of the sac below
half the CSF signal, between conus and L5, is about that of ten development patients of SPIDER with
simulated contrast (median 0.46, range 0.22 to 0.80)."""

_RADIUS_SD: Final = 0.3
"""Standard deviation of its logarithm; with 0.15 the range of that fraction was narrower than in
the patients."""

_SIZES: Final = (0.85, 0.9, 0.95, 1.0, 1.1, 1.15, 0.95, 0.8)
"""Diameter of these strands relative to the mean: L5 and S1 are the largest roots."""

_SCATTERED: Final = 0.15
"""Fraction of subjects with roots dispersed in the sac: 1 of 6 inspected SPIDER volumes."""

_TURNED: Final = 0.3
"""Fraction of subjects in prone or lateral position (assumption; more than in practice, so that
segmentation does not depend on the position)."""

_EXIT_DEG: Final = 97.0
"""Exit angle of a root, degrees from dorsal: lateral, slightly ventral."""

_POSITIONS: Final = np.linspace(-1.0, 1.0, 201)
"""Lateral positions in the unit disc for the integration of areas."""

_HEIGHTS: Final = np.linspace(-1.0, 0.99, 200)
"""Heights of the surface of the settled roots in the unit disc, for the table of areas."""

_GOLDEN: Final = 0.6180339887
"""Step of the depths of consecutive strands: neighbors have well-distributed depths."""


@dataclass(frozen=True)
class Settling:
    """Arrangement of cord and roots in the sac of one subject."""

    settled: float
    """0 for roots dispersed in the sac, 1 for all on its lowest wall."""
    gravity_deg: float
    """Direction of the lowest wall, degrees from dorsal to the left."""
    packing: float
    """Area of the strands relative to the part of the section that they fill; 0.91 at most for
    circles, more for strands that deform each other."""
    reach_mm: float
    """Length over which a root passes from the cord to its final position."""
    waviness_mm: float
    """Standard deviation of long-wavelength undulation of a root."""
    redundancy_mm: float
    """Standard deviation of short-wavelength undulation."""
    density: float
    """Nerve fraction of the cross-section of a strand; the rest is CSF between fascicles."""
    cord_offset: float
    """Position of the conus between the center of the sac (0) and its lowest wall (1)."""
    cord_rim_mm: float
    """Minimum CSF thickness between cord and dura."""


def draw_settling(rng: np.random.Generator) -> Settling:
    """Draw the arrangement of cord and roots of one subject."""
    scattered = rng.random() < _SCATTERED
    turned = rng.random() < _TURNED
    return Settling(
        settled=float(rng.uniform(0.0, 0.4) if scattered else rng.beta(5, 1) * 0.5 + 0.5),
        gravity_deg=float((rng.choice([180.0, 90.0, -90.0]) if turned else 0) + rng.normal(0, 8)),
        packing=float(rng.uniform(0.75, 1.05)),
        reach_mm=float(rng.uniform(25, 45)),
        waviness_mm=float(np.clip(rng.lognormal(np.log(0.25), 0.5), 0.1, 0.8)),
        redundancy_mm=float(rng.uniform(0.8, 1.8) if rng.random() < 0.12 else 0.15),
        density=float(rng.uniform(0.8, 1.0)),
        cord_offset=float(rng.uniform(-0.1, 0.95)),
        cord_rim_mm=float(rng.uniform(0.5, 1.6)),
    )


@dataclass(frozen=True, eq=False)
class Roots:
    """Strands of the cauda equina before placement in the sac.

    Parameters
    ----------
    settling : Settling
    arc : numpy.ndarray
        Every `ROOT_ROWS`-th arc position of the tables, shape (n,).
    side, start_mm, exit_mm, run_mm, radius_mm, depth : numpy.ndarray
        Of each strand: 1 left and -1 right, arc positions of exit from cord and sac, length of
        its path to the lateral wall, radius, and depth among the roots (0 highest, 1 lowest).
    waves : numpy.ndarray
        Unit noise of long and of short wavelength, shape (2, strands, n).
    """

    settling: Settling
    arc: FloatArray
    side: FloatArray
    start_mm: FloatArray
    exit_mm: FloatArray
    run_mm: FloatArray
    radius_mm: FloatArray
    depth: FloatArray
    waves: FloatArray


def draw_roots(
    arc: FloatArray,
    sites: tuple[LevelSite, ...],
    conus_mm: float,
    tip_mm: float,
    settling: Settling,
    rng: np.random.Generator,
) -> Roots:
    """Draw the strands: origin, exit, radius and undulation."""
    step = float(arc[1] - arc[0])
    lumbar = [site for site in sites if site.name[0] in "LS" and site.name not in ("S4", "S5")]
    strands, waves = [], []
    for rank, site in enumerate(lumbar):
        exit_mm = min(site.top_mm + 6.0, tip_mm - 4.0)
        kind = max(rank - len(lumbar), -len(_STRANDS))  # counted from below
        for side in (-1.0, 1.0):
            for _ in range(_STRANDS[kind]):
                start = conus_mm - rng.uniform(5, 45)
                waves.append([smooth_noise(len(arc), width, rng, step) for width in (25.0, 9.0)])
                strands.append((side, start, exit_mm, _SIZES[kind] * rng.lognormal(0, 0.12)))
    sides, starts, exits_mm, sizes = np.array(strands).T
    radius = _RADIUS_MM * rng.lognormal(0, _RADIUS_SD)
    thin, thick = DIAMETER_MM
    return Roots(
        settling=settling,
        arc=arc,
        side=sides,
        start_mm=starts,
        exit_mm=exits_mm,
        run_mm=rng.uniform(15, 40, len(sides)),
        radius_mm=np.clip(radius * sizes, 0.5 * thin, 0.5 * thick),
        depth=np.asarray((rng.random() + _GOLDEN * np.arange(len(sides))) % 1, np.float64),
        waves=np.moveaxis(np.array(waves), 0, 1),
    )


def place_roots(roots: Roots, tables: Tables) -> FloatArray:
    """Return the course of each strand in the sac, after findings have changed its shape.

    Settled strands fill the lowest part of each section, up to a horizontal surface; the next to
    exit are lateral, the last to exit in the middle. Dispersed strands fill the whole section.

    Parameters
    ----------
    roots : Roots
    tables : Tables

    Returns
    -------
    numpy.ndarray
        Shape (strands, n, 2): left and dorsal offset from the center of the sac, millimeters;
        NaN where a strand is absent.
    """
    settling = roots.settling
    sac, cord = tables.sac, tables.cord
    a, b, trefoil, cord_a, cord_b, cord_center = (
        table[::ROOT_ROWS].astype(float)
        for table in (sac.a, sac.b, sac.trefoil, cord.a, cord.b, cord.center - sac.center)
    )
    side, radius = roots.side[:, None], roots.radius_mm[:, None]
    emerged = _smooth_step((roots.arc - roots.start_mm[:, None]) / settling.reach_mm)
    leaving = _smooth_step(1 - (roots.exit_mm[:, None] - roots.arc) / roots.run_mm[:, None])
    # Cross-section of the strands and the cord, as a fraction of that of the sac.
    area = np.pi * radius**2 * emerged * (1 - leaving)
    section = np.pi * np.maximum(a * b, 0.1)
    load = (area.sum(axis=0) + np.pi * cord_a * cord_b) / section / settling.packing
    fill = 1 - settling.settled * (1 - np.minimum(load, 1))
    gravity = np.deg2rad(settling.gravity_deg)
    lateral = np.where(np.cos(gravity) > -0.5, 1.0, -1.0) * roots.side
    order = np.lexsort((roots.exit_mm * lateral, lateral))  # from right to left
    rank = np.empty_like(area)
    rank[order] = np.cumsum(area[order], axis=0) - 0.5 * area[order]
    rank /= np.maximum(area.sum(axis=0), 1e-6)
    u, v = _fill_disc(rank, roots.depth[:, None], fill)
    # Rotate from the direction of gravity to left and dorsal.
    x = a * (u * np.cos(gravity) + v * np.sin(gravity))
    y = b * (v * np.cos(gravity) - u * np.sin(gravity))
    wave = np.array([settling.waviness_mm, settling.redundancy_mm])[:, None, None] * roots.waves
    wave = wave.sum(axis=0)
    swell = 1 + trefoil * np.cos(3 * np.arctan2(x, y))
    path = np.stack([x * swell + wave, y * swell + 0.4 * wave[::-1]], axis=-1)
    exits = np.deg2rad(_EXIT_DEG) * side
    lateral_wall = np.stack([a * np.sin(exits), b * np.cos(exits)], axis=-1)
    path += (lateral_wall - path) * leaving[..., None]
    # From the surface of the cord, ventral and dorsal rootlets.
    origin = side * np.deg2rad(145 - 110 * roots.depth[:, None])
    x, y = (cord_a + radius) * np.sin(origin), (cord_b + radius) * np.cos(origin)
    surface = np.stack([x, y + cord_center], axis=-1)
    path = surface + emerged[..., None] * (path - surface)
    # Move points out of the cord, then into the sac.
    x, y = path[..., 0], path[..., 1] - cord_center
    within = np.hypot(x / (cord_a + radius), y / (cord_b + radius))
    push = np.where(cord_a > 0.1, np.maximum(1 / np.maximum(within, 0.05), 1), 1)
    path = np.stack([x * push, y * push + cord_center], axis=-1)
    x, y = path[..., 0], path[..., 1]
    swell = 1 + trefoil * np.cos(3 * np.arctan2(x, y))
    room_a, room_b = (np.maximum(half * swell - radius - 0.05, 0.02) for half in (a, b))
    path /= np.maximum(np.hypot(x / room_a, y / room_b), 1)[..., None]
    path[(roots.arc < roots.start_mm[:, None]) | (roots.arc > roots.exit_mm[:, None] + 2)] = np.nan
    return np.asarray(path)


def _fill_disc(
    rank: FloatArray, depth: FloatArray, fill: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Distribute strands over the lowest part of the unit disc.

    Parameters
    ----------
    rank : numpy.ndarray
        Fraction of the area to the right of each strand, shape (strands, n).
    depth : numpy.ndarray
        0 at the surface, 1 at the wall; shape (strands, 1).
    fill : numpy.ndarray
        Fraction of the disc that is filled, shape (n,).

    Returns
    -------
    left, low : numpy.ndarray
        Coordinates in the unit disc, shape (strands, n).
    """
    chord = np.sqrt(1 - _POSITIONS**2)
    filled = np.maximum(chord - np.maximum(_HEIGHTS[:, None], -chord), 0)
    height = np.interp(-fill, -filled.sum(axis=1) / filled[0].sum(), _HEIGHTS)
    left = np.empty_like(rank)
    for row, surface in enumerate(height):
        inside = np.cumsum(np.maximum(chord - np.maximum(surface, -chord), 0))
        left[:, row] = np.interp(rank[:, row], inside / inside[-1], _POSITIONS)
    wall = np.sqrt(1 - left**2)
    top = np.maximum(height, -wall)
    return left, top + depth * np.maximum(wall - top, 0)


def _smooth_step(position: FloatArray) -> FloatArray:
    """Return a smooth step from 0 to 1 between positions 0 and 1."""
    x = np.clip(position, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
