"""Unnamed discs and vertebral bodies, and the detector interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume


@dataclass(frozen=True)
class DetectedDisc:
    """An unnamed disc.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
    normal_lps : ndarray, shape (3,)
        Unit normal of the disc plane, cranial.
    score : float
        Detector score, 0..1.
    depth_mm : float or None
        Anteroposterior depth, if measured.
    """

    center_lps: FloatArray
    normal_lps: FloatArray
    score: float
    depth_mm: float | None = None


@dataclass(frozen=True)
class Detections:
    """Results of a detector on one volume.

    Parameters
    ----------
    discs : tuple of DetectedDisc
        Cranial to caudal; false positives and missed discs are resolved by numbering.
    bodies : Volume or None
        float32 probability of vertebral body, on any grid in the same patient space.
    method : str
        Name of the detector, for the report.
    sacrum : Volume or None
        float32 probability of sacral body, on the grid of `bodies`.
    canal : Volume or None
        float32 probability of spinal canal, on the same grid.
    """

    discs: tuple[DetectedDisc, ...]
    bodies: Volume | None
    method: str
    sacrum: Volume | None = None
    canal: Volume | None = None


Detector = Callable[[Volume, Centerline | None], Detections]
"""A detector: image, canal centerline if known."""
