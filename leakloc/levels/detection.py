"""Finding discs and vertebral bodies, before anything is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings


@dataclass(frozen=True)
class DetectedDisc:
    """An unnamed disc.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
    normal_lps : ndarray, shape (3,)
        Unit normal of the disc plane, towards the head.
    score : float
        How sure the detector is, 0..1.
    depth_mm : float or None
        Front to back, where the detector measures it.
    """

    center_lps: FloatArray
    normal_lps: FloatArray
    score: float
    depth_mm: float | None = None


@dataclass(frozen=True)
class Detections:
    """Everything a detector saw on one volume.

    Parameters
    ----------
    discs : tuple of DetectedDisc
        Head down; may hold false and miss true ones: numbering decides.
    bodies : Volume or None
        float32 probability of vertebral body, on any grid in the same patient space.
    method : str
        Name of the detector, for the report.
    sacrum : Volume or None
        float32 probability of sacral body, on the grid of `bodies`.
    canal : Volume or None
        float32 probability of canal, likewise.
    """

    discs: tuple[DetectedDisc, ...]
    bodies: Volume | None
    method: str
    sacrum: Volume | None = None
    canal: Volume | None = None


Detector = Callable[[Volume, Centerline | None, "LevelSettings"], Detections]
"""A detector: image, canal centreline where known, settings."""
