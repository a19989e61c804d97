"""Second opinion of axial T2 images on the signal and side of collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.canal import CANAL_RADIUS_MM
from leakloc.localization.result import AxialT2
from leakloc.localization.signals import (
    MIN_VOXELS,
    MeasuredRatio,
    Surrounded,
    ratio_of,
)
from leakloc.segmentation.result import Segmentation

MIN_BRIGHT: Final = 0.75
"""Minimum signal relative to CSF of fluid on T2: epidural CSF 1.0, seroma 1.2; acute hematoma has
0.6, scar 0.2. Epidural fat has 0.9 in phantoms, and medians of 0.5 to 1.0 in 17 patients (SPIDER),
in 5 of them at least 0.75."""

_CLEARANCE_MM: Final = 1.0
"""Points on the opposite side within this distance of sac or fluid are not compared."""


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
    """

    center_lps: FloatArray
    own: MeasuredRatio
    opposite: MeasuredRatio
    covered: float


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


def agreement_of(measured: MeasuredAxial | None) -> AxialT2 | None:
    """Return a measurement in the form of the report; None without axial T2."""
    if measured is None:
        return None
    own, opposite = measured.own, measured.opposite
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
        ratio=own.ratio,
        low=own.low,
        high=own.high,
        opposite_ratio=opposite.ratio,
        n_voxels=own.n_voxels,
        covered_fraction=measured.covered,
    )
