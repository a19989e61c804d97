"""Cauda equina: strands of the nerve roots, their arrangement in the sac and exit points.

In supine position the roots lie in contact with each other along the dorsal wall of the sac, with a
crescent of CSF ventral to them. Their number decreases at each foramen.
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

DIAMETER_MM: Final = (0.8, 1.6)
"""Range of the strand diameter on high-resolution T2-weighted images."""

_STRANDS: Final = (2, 2, 3, 4, 4, 4, 3, 3)
"""Strands per side that exit at the top of L1 ... S3: ventral and dorsal bundles, more fascicles
for the large roots (L3 to S1); the last entry is for S3 to S5 combined. An axial plane at L2-L3
contains about 40 strands; 30 to 40 dark dots were counted there on SPIDER volumes."""

_SIZES: Final = (0.85, 0.9, 0.95, 1.0, 1.1, 1.15, 0.95, 0.8)
"""Diameter of these strands relative to the mean: L5 and S1 are the largest roots."""

_SCATTERED: Final = 0.15
"""Fraction of subjects with roots dispersed in the sac: 1 of 6 inspected SPIDER volumes."""

_TURNED: Final = 0.10
"""Fraction of subjects in prone or lateral position (assumption)."""

_EXIT_DEG: Final = 97.0
"""Exit angle of a root, degrees from dorsal: lateral, slightly ventral."""

_CRESCENT_ANGLES: Final = np.deg2rad(np.linspace(0, 180, 91))
"""Angles from the lowest wall for tables of wall length, 2 degrees apart."""


@dataclass(frozen=True)
class Settling:
    """Arrangement of cord and roots in the sac of one subject."""

    settled: float
    """0 for roots dispersed in the sac, 1 for all on its lowest wall."""
    gravity_deg: float
    """Direction of the lowest wall, degrees from dorsal to the left."""
    crescent_deg: float
    """Half the angle of one layer of roots before they form another layer."""
    gap_mm: float
    """Distance of the lowest layer from the dura."""
    contact: float
    """Distance of neighbors in a layer relative to their diameter."""
    layer: float
    """Distance of layers relative to the diameter: 0.87 at the densest packing."""
    spread: float
    """Maximum factor by which few roots are spread apart."""
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
        crescent_deg=float(rng.uniform(30, 90)),
        gap_mm=float(rng.uniform(0.0, 0.5)),
        contact=float(rng.uniform(0.95, 1.2)),
        layer=float(rng.uniform(0.9, 1.7)),
        spread=float(rng.uniform(1.0, 1.8)),
        reach_mm=float(rng.uniform(25, 45)),
        waviness_mm=float(np.clip(rng.lognormal(np.log(0.35), 0.5), 0.1, 1.2)),
        redundancy_mm=float(rng.uniform(0.8, 1.8) if rng.random() < 0.12 else 0.15),
        density=float(rng.uniform(0.7, 1.0)),
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
        its path to the lateral wall, radius, and rank among layers (0 lowest, 1 highest).
    scattered : numpy.ndarray
        Course of dispersed roots, shape (strands, n, 2): left and dorsal offset from the center
        of the sac, relative to its half axes.
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
    scattered: FloatArray
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
    own = rng.spawn(1)[0]
    step = float(arc[1] - arc[0])
    lumbar = [site for site in sites if site.name[0] in "LS" and site.name not in ("S4", "S5")]
    strands, scattered, waves = [], [], []
    for rank, site in enumerate(lumbar):
        exit_mm = min(site.top_mm + 6.0, tip_mm - 4.0)
        kind = max(rank - len(lumbar), -len(_STRANDS))  # counted from below
        for side in (-1.0, 1.0):
            for number in range(_STRANDS[kind]):
                # Strands beyond two (caudally, one) use a separate random generator, so that
                # draws after the roots do not change for a seed.
                source = rng if number < (2 if rank < 6 else 1) else own
                start = conus_mm - source.uniform(5, 45)
                inward = 1 - rank / len(lumbar)
                spread = np.clip((arc - conus_mm) / 40, 0, 1)
                lateral = side * (0.25 + 0.45 * inward + 0.10 * source.normal())
                left = lateral * (0.6 + 0.4 * spread)
                dorsal = 0.62 * np.sqrt(np.clip(1 - left**2, 0, 1)) * spread
                dorsal = dorsal + 0.12 * source.normal()
                slow = smooth_noise(len(arc), 25.0, source, step)
                wobble = 0.05 * slow
                scattered.append(np.stack([left + wobble, dorsal - np.abs(wobble)], axis=1))
                waves.append(np.stack([slow, smooth_noise(len(arc), 9.0, own, step)]))
                strands.append((side, start, exit_mm, _SIZES[kind] * own.lognormal(0, 0.12)))
    sides, starts, exits_mm, sizes = np.array(strands).T
    thin, thick = DIAMETER_MM
    radius = np.clip(float(rng.uniform(0.45, 0.72)) * sizes, 0.5 * thin, 0.5 * thick)
    return Roots(
        settling=settling,
        arc=arc,
        side=sides,
        start_mm=starts,
        exit_mm=exits_mm,
        run_mm=own.uniform(15, 40, len(sides)),
        radius_mm=radius,
        depth=own.random(len(sides)),
        scattered=np.array(scattered),
        waves=np.stack(waves, axis=1),
    )


def place_roots(roots: Roots, tables: Tables) -> FloatArray:
    """Return the course of each strand in the sac, after findings have changed its shape.

    Strands lie next to each other along the lowest wall, the last to exit in the middle. Where
    they exceed the width of the crescent, as in a stenosis, they form layers.

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

    def wall(angle: FloatArray, inset: FloatArray | float) -> FloatArray:
        """Return points at an inset from the dura, at an angle from dorsal to the left."""
        swell = 1 + trefoil * np.cos(3 * np.arctan2(a * np.sin(angle), b * np.cos(angle)))
        x = np.maximum(a * swell - inset, 0.02) * np.sin(angle)
        y = np.maximum(b * swell - inset, 0.02) * np.cos(angle)
        return np.stack([x, y], axis=-1)

    emerged = _smooth_step((roots.arc - roots.start_mm[:, None]) / settling.reach_mm)
    leaving = _smooth_step(1 - (roots.exit_mm[:, None] - roots.arc) / roots.run_mm[:, None])
    gravity = np.deg2rad(settling.gravity_deg)
    turn = np.where(np.cos(gravity) > -0.5, roots.side, -roots.side)
    angle, inset = np.zeros_like(emerged), np.zeros_like(emerged)
    for sign in (-1.0, 1.0):
        index = np.flatnonzero(turn == sign)
        index = index[np.argsort(-roots.exit_mm[index], kind="stable")]
        diameter = 2 * radius[index]
        width = settling.contact * diameter * emerged[index] * (1 - leaving[index])
        position = np.cumsum(width, axis=0) - 0.5 * width
        points = wall(gravity + sign * _CRESCENT_ANGLES[:, None], 1.0)
        along = np.cumsum(np.hypot(*np.moveaxis(np.diff(points, axis=0), -1, 0)), axis=0)
        along = np.vstack([np.zeros(len(a)), along])
        room = along[np.searchsorted(_CRESCENT_ANGLES, np.deg2rad(settling.crescent_deg))]
        load = width.sum(axis=0) / np.maximum(room, 0.1)
        position /= np.maximum(load, 1 / settling.spread)
        wave = (
            settling.waviness_mm * roots.waves[0, index]
            + settling.redundancy_mm * roots.waves[1, index]
        )
        position = np.abs(position + 0.6 * cord_a + wave)
        for row in range(len(a)):
            angle[index, row] = np.interp(position[:, row], along[:, row], _CRESCENT_ANGLES)
        layers = roots.depth[index, None] * np.maximum(load - 1, 0) * settling.layer * diameter
        # Inward undulation: that of another strand, so that it is independent.
        inset[index] = radius[index] + settling.gap_mm + layers + 0.4 * np.abs(wave[::-1])
        angle[index] = gravity + sign * angle[index]
    exits = np.deg2rad(_EXIT_DEG) * side
    angle += ((exits - angle + np.pi) % (2 * np.pi) - np.pi) * leaving
    inset += (radius + 0.1 - inset) * leaving
    dispersed = roots.scattered * np.stack([a - 0.7, b - 0.7], axis=-1)
    dispersed += (wall(exits, radius + 0.1) - dispersed) * leaving[..., None]
    path = dispersed + settling.settled * (wall(angle, inset) - dispersed)
    # From the surface of the cord, ventral and dorsal rootlets.
    origin = side * np.deg2rad(35 + 110 * roots.depth[:, None])
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


def _smooth_step(position: FloatArray) -> FloatArray:
    """Return a smooth step from 0 to 1 between positions 0 and 1."""
    x = np.clip(position, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
