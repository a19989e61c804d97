"""Reference dimensions of the spine: spacing, depth and tilt of its levels.

Adult means along the canal. Spacing from C3 to L1 was measured on the discs of the PAM50
template; the other values are consistent with published ranges. Individuals differ by overall
body size and by about 7 % per level.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from leakloc.anatomy.vocabulary import segment_name, vertebra_chain
from leakloc.core.volume import FloatArray

_PITCH_MM: Final = {
    "C2": 21.0, "C3": 18.5, "C4": 18.5, "C5": 16.5, "C6": 15.5, "C7": 17.0,
    "T1": 21.5, "T2": 23.0, "T3": 23.0, "T4": 24.5, "T5": 25.5, "T6": 25.5,
    "T7": 26.5, "T8": 27.0, "T9": 26.5, "T10": 28.5, "T11": 28.5, "T12": 31.3,
    "L1": 32.8, "L2": 35.1, "L3": 35.6, "L4": 34.4, "L5": 32.0,
    "S1": 37.0, "S2": 31.5, "S3": 25.5, "S4": 20.5, "S5": 17.0,
}  # fmt: skip
"""Distance from the disc above a vertebra to the disc below it. T11 to S3 were measured in the
development patients of SPIDER (CC BY 4.0): distances of disc centers in 6 (T11) and 17 patients, S1
to S3 in 12 from manually placed landmarks, minus the contribution of `CENTER_AHEAD_MM`; S4 and S5
are in proportion. Phantoms have other heights, from the literature."""

FORAMEN_ABOVE_AXIS_MM: Final = 22.0
"""Distance of the foramen magnum above the body of C2: dens and arch of C1."""

_DEPTH_MM: Final = {
    "C2": 15.0, "C3": 15.5, "C4": 15.5, "C5": 16.0, "C6": 17.0, "C7": 18.0,
    "T1": 18.0, "T2": 19.5, "T3": 21.5, "T4": 23.0, "T5": 24.5, "T6": 26.0,
    "T7": 27.5, "T8": 28.5, "T9": 29.5, "T10": 30.5, "T11": 31.5, "T12": 32.0,
    "L1": 33.0, "L2": 34.0, "L3": 34.5, "L4": 35.0, "L5": 35.7,
    "S1": 28.0, "S2": 20.0, "S3": 14.0, "S4": 10.0, "S5": 8.0,
}  # fmt: skip
"""Anteroposterior diameter of the vertebral body."""

_TILT_DEG: Final = {
    "T12-L1": -4.0, "L1-L2": -2.0, "L2-L3": 1.0, "L3-L4": 7.0, "L4-L5": 17.0, "L5-S1": 33.0,
    "S1-S2": 50.0, "S2-S3": 60.0, "S3-S4": 65.0, "S4-S5": 65.0,
}  # fmt: skip
"""Anterior tilt of a disc's normal relative to the long axis of a supine patient."""

_UPPER_TILT_DEG: Final = -6.0
"""The same above T12; it is poorly known and has little weight."""


@dataclass(frozen=True)
class ReferenceChain:
    """Discs from C2-C3 to S4-S5 of a mean adult with a given number of lumbar vertebrae.

    Parameters
    ----------
    vertebrae : tuple of str
        C2 to S5.
    discs : tuple of str
        One fewer than `vertebrae`; disc `n` lies below vertebra `n`.
    pitch_mm : ndarray
        Per vertebra.
    depth_mm : ndarray
        Per vertebra.
    tilt_deg : ndarray
        Per disc.
    junction : int
        Index of the lumbosacral disc.
    """

    vertebrae: tuple[str, ...]
    discs: tuple[str, ...]
    pitch_mm: FloatArray
    depth_mm: FloatArray
    tilt_deg: FloatArray
    junction: int

    @property
    def lumbar_count(self) -> int:
        """Number of lumbar vertebrae."""
        return sum(name.startswith("L") for name in self.vertebrae)

    @property
    def chord_mm(self) -> FloatArray:
        """Distance between disc centers, per vertebra; longer than the pitch in lordosis.

        Disc centers lie `CENTER_AHEAD_MM` anterior to the canal, where wedged levels diverge.
        """
        bend = np.zeros(len(self.vertebrae))
        bend[1:-1] = np.radians(np.diff(self.tilt_deg))
        bend[self.junction + 1 :] = 0.0  # the sacrum is curved in the opposite direction
        return np.asarray(self.pitch_mm + CENTER_AHEAD_MM * bend)


CENTER_AHEAD_MM: Final = 14.0
"""Effective distance of disc centers anterior to the line along which pitch is measured. The
geometric value is 24 mm; 11 patients of SPIDER (CC BY 4.0) show half of that lengthening, because
L5-S1 is less wedged in patients referred for imaging."""

_WIDTH_OVER_DEPTH: Final = 1.3
"""Ratio of transverse to anteroposterior diameter of a lumbar body (45 by 34.5 mm)."""


@lru_cache(maxsize=8)
def reference_chain(lumbar_count: int = 5) -> ReferenceChain:
    """Return the mean adult; lumbar values are interpolated if the count is not five."""
    names = vertebra_chain(lumbar_count)[1:]
    pitch = np.array([_lookup(_PITCH_MM, name, lumbar_count) for name in names])
    depth = np.array([_lookup(_DEPTH_MM, name, lumbar_count) for name in names])
    pairs = list(itertools.pairwise(names))
    junction = names.index("S1") - 1
    discs = tuple(segment_name(a, b) for a, b in pairs)
    tilt = np.full(len(discs), _UPPER_TILT_DEG)
    tilt[-len(_TILT_DEG) :] = list(_TILT_DEG.values())  # by distance from the sacrum, not by name
    return ReferenceChain(names, discs, pitch, depth, tilt, junction)


def body_width_mm(depth_mm: float) -> float:
    """Return the transverse diameter (mm) of a vertebral body of that depth."""
    return _WIDTH_OVER_DEPTH * depth_mm


def _lookup(table: dict[str, float], name: str, lumbar_count: int) -> float:
    if not name.startswith("L"):
        return table[name]
    where = 1 + (int(name[1:]) - 1) / (lumbar_count - 1) * 4
    return float(np.interp(where, range(1, 6), [table[f"L{n}"] for n in range(1, 6)]))
