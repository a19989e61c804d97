"""Disc detector without a network, from the signal profile along the canal.

Anterior to the canal the signal changes at end plates, twice per disc, and little within a
vertebral body, on any contrast; bulging discs indent the bright canal. Peaks of both combined are
discs. This is the baseline for the network, and the fallback without it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.core.extras import LazyModule
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.detection import DetectedDisc, Detections

signal = LazyModule("scipy.signal")  # slow to import; not needed with the network

_STEP_MM: Final = 1.0
_LATERAL_MM: Final = (-8.0, -4.0, 0.0, 4.0, 8.0)
"""Lateral offsets of the averaged planes; vertebral bodies are 35 to 45 mm wide."""
_BODY_MM: Final = (14.0, 34.0)
"""Range anterior to the canal center that lies in lumbar bodies and discs."""
_CANAL_MM: Final = (0.0, 14.0)
"""Range searched for the ventral border of the bright canal."""
_CENTER_MM: Final = 24.0
"""Distance of a disc center anterior to the canal center."""
_DISC_MM: Final = 5.0
"""Gaussian width that merges the two end plates of a disc (8 to 12 mm apart)."""
_TREND_MM: Final = 25.0
"""Gaussian width of the subtracted trend along the spine: most of a level."""
_MIN_CONCAVITY_MM: Final = 0.5
"""Minimum standard deviation of the canal border for concavities; less is noise."""
_MIN_SPACING_MM: Final = 13.0
"""Minimum distance between discs (cervical: 15 mm)."""
_PROMINENCE: Final = 0.5
"""Minimum prominence of a peak, in standard deviations of the profile."""
_HALF_PROMINENCE: Final = 2.0
"""Prominence of a peak with score 0.5."""


def detect(image: Volume, centerline: Centerline | None) -> Detections:
    """Detect discs from the profile along the canal (a `leakloc.levels.detection.Detector`).

    Parameters
    ----------
    image : Volume
    centerline : Centerline
        Of the canal; required for the profile.

    Raises
    ------
    AnalysisError
        If the centerline is None.
    """
    if centerline is None:
        raise AnalysisError("the profile detector requires the centerline of the canal")
    arcs = np.arange(0.0, centerline.length_mm, _STEP_MM)
    changes, concavities = (find(image, centerline, arcs) for find in (_changes, _concavities))
    combined = _standard(changes) + _standard(concavities, minimum=_MIN_CONCAVITY_MM)
    peaks, found = signal.find_peaks(
        _standard(combined), distance=_MIN_SPACING_MM / _STEP_MM, prominence=_PROMINENCE
    )
    discs = []
    for peak, prominence in zip(peaks, found["prominences"], strict=True):
        tangent, _, dorsal = centerline.frame_at(arcs[peak])
        center = centerline.at(arcs[peak]) - _CENTER_MM * dorsal
        if image.geometry.contains(center):
            score = float(prominence / (prominence + _HALF_PROMINENCE))
            discs.append(DetectedDisc(np.asarray(center), np.asarray(-tangent), score))
    return Detections(tuple(discs), None, "profile")


def _slab(
    image: Volume, line: Centerline, arcs: FloatArray, anterior_mm: tuple[float, float]
) -> FloatArray:
    """Mean signal of several planes anterior to the canal, shape (arc, depth)."""
    offsets = np.arange(*anterior_mm, _STEP_MM)
    _, left, dorsal = line.frame_at(arcs)
    points = line.at(arcs)[:, None] - offsets[:, None] * dorsal[:, None]
    lateral = np.array(_LATERAL_MM)[:, None, None, None] * left[:, None]
    return np.asarray(image.sample(points + lateral).mean(axis=0), dtype=np.float64)


def _changes(image: Volume, line: Centerline, arcs: FloatArray) -> FloatArray:
    """Signal change along the spine at each position anterior to the canal."""
    slab = np.sqrt(np.maximum(_slab(image, line, arcs, _BODY_MM), 0.0))
    slope = np.abs(gaussian_filter1d(slab, 1.5 / _STEP_MM, axis=0, order=1)).mean(axis=1)
    return np.asarray(gaussian_filter1d(slope, _DISC_MM / _STEP_MM))


def _concavities(image: Volume, line: Centerline, arcs: FloatArray) -> FloatArray:
    """Dorsal displacement of the ventral border of the bright canal at each position."""
    slab = _slab(image, line, arcs, _CANAL_MM)
    bright = np.maximum(slab[:, :4].max(axis=1, keepdims=True), 1e-6)
    reach = (slab > 0.5 * bright).sum(axis=1) * _STEP_MM
    return np.asarray(-gaussian_filter1d(reach.astype(float), _DISC_MM / 2 / _STEP_MM))


def _standard(profile: FloatArray, minimum: float = 1e-9) -> FloatArray:
    """Profile without its trend, in standard deviations (of at least `minimum`)."""
    fast = profile - gaussian_filter1d(profile, _TREND_MM / _STEP_MM)
    return np.asarray(fast / max(float(fast.std()), minimum))
