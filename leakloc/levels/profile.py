"""A detector without a network: the rhythm of discs and bodies along the canal.

In front of the canal the signal changes where end plates are, twice per disc, and hardly within
a body, whatever the contrast; bulging discs dent the bright canal. Peaks of both together are
discs. This is the baseline the network is measured against, and the fallback without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import AnalysisError
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.detection import DetectedDisc, Detections

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings

_STEP_MM: Final = 1.0
_ASIDE_MM: Final = (-8.0, -4.0, 0.0, 4.0, 8.0)
"""Planes beside the canal's middle that are averaged; bodies are 35 to 45 mm wide."""
_BODY_MM: Final = (14.0, 34.0)
"""Stretch in front of the canal's middle that lies in lumbar bodies and discs."""
_CANAL_MM: Final = (0.0, 14.0)
"""Stretch on which the ventral border of the bright canal is sought."""
_CENTER_MM: Final = 24.0
"""A disc's centre lies this far in front of the canal's middle."""
_DISC_MM: Final = 5.0
"""Gaussian that joins the two end plates of a disc (8 to 12 mm apart)."""
_TREND_MM: Final = 25.0
"""Gaussian of the slow change along the spine that is taken off: most of a level."""
_MIN_DENT_MM: Final = 0.5
"""A smoother canal than this has no dents: its noise must not count."""
_NEAREST_MM: Final = 13.0
"""Discs are no nearer to each other (15 mm in the neck)."""
_PROMINENCE: Final = 0.5
"""Least height of a peak over its surroundings, in standard deviations of the profile."""
_SURE: Final = 2.0
"""Prominence of a peak that is half sure."""


def detect(image: Volume, centerline: Centerline | None, settings: LevelSettings) -> Detections:
    """Find discs by the profile along the canal (a `leakloc.levels.detection.Detector`).

    Parameters
    ----------
    image : Volume
    centerline : Centerline
        Of the canal; without it there is no profile.
    settings : LevelSettings

    Raises
    ------
    AnalysisError
        If the canal is not known.
    """
    if centerline is None:
        raise AnalysisError("the profile detector needs the course of the canal")
    from scipy.signal import find_peaks

    arcs = np.arange(0.0, centerline.length_mm, _STEP_MM)
    changes, dents = (find(image, centerline, arcs) for find in (_changes, _dents))
    rhythm = _standard(changes) + _standard(dents, least=_MIN_DENT_MM)
    peaks, found = find_peaks(
        _standard(rhythm), distance=_NEAREST_MM / _STEP_MM, prominence=_PROMINENCE
    )
    discs = []
    for peak, prominence in zip(peaks, found["prominences"], strict=True):
        tangent, _, dorsal = centerline.frame_at(arcs[peak])
        center = centerline.at(arcs[peak]) - _CENTER_MM * dorsal
        if image.geometry.contains(center):
            score = float(prominence / (prominence + _SURE))
            discs.append(DetectedDisc(np.asarray(center), np.asarray(-tangent), score))
    return Detections(tuple(discs), None, "profile")


def _slab(
    image: Volume, line: Centerline, arcs: FloatArray, ahead_mm: tuple[float, float]
) -> FloatArray:
    """Signal in front of the canal, averaged over some planes, shape (arc, depth)."""
    ahead = np.arange(*ahead_mm, _STEP_MM)
    _, left, dorsal = line.frame_at(arcs)
    points = line.at(arcs)[:, None] - ahead[:, None] * dorsal[:, None]
    aside = np.array(_ASIDE_MM)[:, None, None, None] * left[:, None]
    return np.asarray(image.sample(points + aside).mean(axis=0), dtype=np.float64)


def _changes(image: Volume, line: Centerline, arcs: FloatArray) -> FloatArray:
    """How much the signal changes along the spine at each place in front of the canal."""
    from scipy.ndimage import gaussian_filter1d

    slab = np.sqrt(np.maximum(_slab(image, line, arcs, _BODY_MM), 0.0))
    slope = np.abs(gaussian_filter1d(slab, 1.5 / _STEP_MM, axis=0, order=1)).mean(axis=1)
    return np.asarray(gaussian_filter1d(slope, _DISC_MM / _STEP_MM))


def _dents(image: Volume, line: Centerline, arcs: FloatArray) -> FloatArray:
    """How far the ventral border of the bright canal is pushed back at each place."""
    from scipy.ndimage import gaussian_filter1d

    slab = _slab(image, line, arcs, _CANAL_MM)
    bright = np.maximum(slab[:, :4].max(axis=1, keepdims=True), 1e-6)
    reach = (slab > 0.5 * bright).sum(axis=1) * _STEP_MM
    return np.asarray(-gaussian_filter1d(reach.astype(float), _DISC_MM / 2 / _STEP_MM))


def _standard(profile: FloatArray, least: float = 1e-9) -> FloatArray:
    """Without its slow trend, in standard deviations (of at least `least`)."""
    from scipy.ndimage import gaussian_filter1d

    fast = profile - gaussian_filter1d(profile, _TREND_MM / _STEP_MM)
    return np.asarray(fast / max(float(fast.std()), least))
