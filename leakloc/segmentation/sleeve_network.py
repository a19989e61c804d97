"""Neural network that distinguishes cysts and diverticula of a root from its normal sleeve.

A normal sleeve contains a dark root and tapers laterally. A small cyst around the root is a local
widening of the fluid, in which no voxel is free of the root. A small 3D network classifies the
signal around a point next to the sac, together with the sac and the signal at the same position on
the opposite side. Its weights (``models/sleeves.onnx``, see ``models/SLEEVES_CARD.md``) were
trained by ``pipelines/train_sleeves.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.centerline import Centerline
from leakloc.core.networks import network_session
from leakloc.core.volume import Geometry

Array = npt.NDArray[np.float32]

SHAPE: Final = (18, 18, 14)
"""Points of a patch in caudal, lateral and dorsal direction, 1 mm apart."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "sleeves.onnx"
"""Weights shipped with the package."""


def cyst_logits(patches: Sequence[Array]) -> Array:
    """Return the log odds of a cyst or diverticulum of at least 4 mm in each patch, shape (n,).

    Parameters
    ----------
    patches : sequence of ndarray
        As returned by `sleeve_patch`.

    Raises
    ------
    LeaklocError
        If the weights are missing.
    """
    if not patches:
        return np.zeros(0, np.float32)
    (logits,) = network_session(MODEL_PATH, "sleeve").run(None, {"patches": np.stack(patches)})
    return np.asarray(logits, np.float32)


def sleeve_patch(
    signal: npt.NDArray[np.floating],
    inside: npt.NDArray[np.bool_],
    geometry: Geometry,
    line: Centerline,
    canal_mm: tuple[float, float, float],
    shape: tuple[int, int, int] = SHAPE,
) -> Array:
    """Return the signal and the sac around a point, and the signal around the mirrored point.

    Parameters
    ----------
    signal : ndarray, shape (k, j, i)
        Signal relative to CSF, 0 to 1.
    inside : ndarray of bool, same shape
        Voxels in the sac.
    geometry : Geometry
        Grid of both.
    line : Centerline
    canal_mm : tuple of float
        Canal coordinates of the point: arc, left and dorsal.
    shape : tuple of int
        Number of points in caudal, lateral and dorsal direction.

    Returns
    -------
    ndarray, float32, shape (3, *shape)
    """
    arc_mm, left_mm, dorsal_mm = canal_mm
    caudal, left, dorsal = line.frame_at(arc_mm)
    steps = [np.arange(n) - 0.5 * (n - 1) for n in shape]
    offsets_mm = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    channels = []
    for volume, lateral_mm in ((signal, left_mm), (inside, left_mm), (signal, -left_mm)):
        center_lps = line.at(arc_mm) + lateral_mm * left + dorsal_mm * dorsal
        axes = np.stack([caudal, np.sign(lateral_mm) * left, dorsal])
        index = geometry.kji_from_lps(center_lps + offsets_mm @ axes)
        channels.append(
            ndimage.map_coordinates(volume, np.moveaxis(index, -1, 0), np.float32, order=1)
        )
    return np.stack(channels)
