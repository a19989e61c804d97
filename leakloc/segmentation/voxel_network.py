"""Neural network that assigns single voxels to the sac and to epidural fluid.

The dura network works in canal coordinates, 2 mm apart along the canal: it distinguishes the sac
and fluid outside it from other tissue, but blurs their borders. The image itself is sharper, but
its signal does not distinguish CSF in the sac from fluid outside it. A small 3D network combines
both for each voxel and its neighbors (5 x 5 x 5 voxels). Its weights (``models/voxels.onnx``, see
``models/VOXELS_CARD.md``) were trained by ``pipelines/train_voxels.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from leakloc.core.networks import network_session

Array = npt.NDArray[np.float32]

SIGNAL_RANGE: Final = (-0.3, 1.6)
"""Clipping range of the signal, which is 0 in soft tissue and 1 in CSF."""
MAX_DISTANCE_MM: Final = 3.0
"""Clipping range of the distance from the dura."""
DURA_WIDTH_MM: Final = 0.7
"""Scale of the second channel of the distance, which resolves the surface."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "voxels.onnx"
"""Weights shipped with the package."""
_SLAB: Final = 32
"""Number of planes computed at once; few, because the box around a curved canal is large."""
_REACH: Final = 2
"""Number of adjacent voxels in each direction that the network takes into account."""


def voxel_probabilities(
    signal: Array, outside_mm: Array, fluid: Array, needed: npt.NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Estimate for each voxel the probabilities of lying in the sac and of epidural fluid.

    Parameters
    ----------
    signal : ndarray, shape (k, j, i)
        Signal normalized to the CSF (0 soft tissue, 1 CSF, not clipped).
    outside_mm : ndarray, same shape
        Distance outside the dural surface, negative inside.
    fluid : ndarray, same shape
        Fraction of epidural fluid estimated by the dura network, 0 inside the surface.
    needed : ndarray of bool, same shape
        Voxels whose probabilities are needed; others may be 0.

    Returns
    -------
    sac, epidural : ndarray, float32, same shape
        Probability that the sac, and that fluid outside it, fill at least half of the voxel.

    Raises
    ------
    LeaklocError
        If the weights are missing.
    """
    session = network_session(MODEL_PATH, "voxel")
    result = np.zeros((2, *signal.shape), np.float32)
    for start in range(0, len(signal), _SLAB):
        for part in find_objects(needed[start : start + _SLAB].astype(np.uint8)):
            inner = (slice(part[0].start + start, part[0].stop + start), *part[1:])
            outer = tuple(
                slice(max(s.start - _REACH, 0), min(s.stop + _REACH, n))
                for s, n in zip(inner, signal.shape, strict=True)
            )
            planes = network_input(signal[outer], outside_mm[outer], fluid[outer])
            (logits,) = session.run(None, {"voxels": planes[None]})
            own = tuple(
                slice(a.start - b.start, a.stop - b.start)
                for a, b in zip(inner, outer, strict=True)
            )
            result[(slice(None), *inner)] = 1 / (1 + np.exp(-logits[0][(slice(None), *own)]))
    return result[0], result[1]


def network_input(
    signal: npt.NDArray[np.floating],
    outside_mm: npt.NDArray[np.floating],
    fluid: npt.NDArray[np.floating],
) -> Array:
    """Return the input channels: signal, distance on two scales, fluid; shape (4, k, j, i)."""
    distance = np.clip(outside_mm, -MAX_DISTANCE_MM, MAX_DISTANCE_MM) / MAX_DISTANCE_MM
    near = np.tanh(outside_mm / DURA_WIDTH_MM)
    return np.stack([np.clip(signal, *SIGNAL_RANGE), distance, near, fluid]).astype(np.float32)
