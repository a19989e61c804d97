"""Where the dura encloses fluid, as a small network sees it in the straightened canal.

Where the dark line of the dura is only half visible, shape decides: how the outline runs at the
neighbouring levels, which side bulges, where cord and roots lie. A 3D U-Net looks at the signal in
polar coordinates about the centreline (`leakloc.segmentation.dura`) and gives for every place the
probability of lying inside the dura. Its weights (``models/dura.onnx``, see
``models/DURA_CARD.md``) were trained on made-up canals and phantoms only
(``pipelines/train_dura.py``); at run time only onnxruntime is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.networks import network_session

Array = npt.NDArray[np.float32]

ANGLES: Final = 48
"""Rays that the network was trained with."""
RADII: Final = 38
"""Radii: 0.8 mm to 15.6 mm in steps of 0.4 mm."""
RADIUS_START_MM: Final = 0.8
RADIUS_STEP_MM: Final = 0.4
OVERLAP_RAYS: Final = 8
"""Rays repeated at either end, so that the ring closes on itself."""
SIGNAL_RANGE: Final = (-0.2, 1.4)
"""Signal, 0 in soft tissue and 1 in CSF, is cut here."""
OUTSIDE_FIELD: Final = -0.3
"""Marks places outside the field of view."""
_STRIDE: Final = 8
"""The network halves the arc three times; radii are filled up to a multiple of four."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "dura.onnx"
"""The weights that come with the package."""


def dura_probabilities(
    signal: npt.NDArray[np.floating], in_field: npt.NDArray[np.bool_], *, threads: int = 2
) -> tuple[Array, Array]:
    """Probability that a place lies inside the dura, and that it holds fluid outside it.

    Parameters
    ----------
    signal : ndarray, shape (n, 48, 38)
        Signal normalised to the CSF (0 soft tissue, 1 CSF, not clipped) over arc (2 mm steps),
        angle (from the patient's left to the back) and radius (0.8 to 15.6 mm).
    in_field : ndarray, bool, same shape
        Whether the place lies within the field of view.
    threads : int
        Processor threads.

    Returns
    -------
    inside, fluid_outside : ndarray, float32, same shape

    Raises
    ------
    LeaklocError
        If the weights are missing.
    """
    planes = network_input(signal, in_field)
    session = network_session(MODEL_PATH, "dura", threads)
    (logits,) = session.run(None, {"polar": planes[None]})
    asked = logits[0, :, : len(signal), OVERLAP_RAYS : OVERLAP_RAYS + ANGLES, :RADII]
    inside, outside = (1.0 / (1.0 + np.exp(-asked))).astype(np.float32)
    return inside, outside


def network_input(signal: npt.NDArray[np.floating], in_field: npt.NDArray[np.bool_]) -> Array:
    """Channels of the network: signal, and how far out a place lies; shape (2, n', 64, 40)."""
    cut = np.where(in_field, np.clip(signal, *SIGNAL_RANGE), OUTSIDE_FIELD).astype(np.float32)
    cut = np.pad(cut, ((0, -len(cut) % _STRIDE), (0, 0), (0, -RADII % 4)), mode="edge")
    ring = np.concatenate([cut[:, -OVERLAP_RAYS:], cut, cut[:, :OVERLAP_RAYS]], axis=1)
    radius_mm = RADIUS_START_MM + RADIUS_STEP_MM * np.arange(ring.shape[2])
    place = np.broadcast_to((radius_mm / 10.0 - 0.8).astype(np.float32), ring.shape)
    return np.stack([ring, place])


def boundary_cost(inside: Array) -> Array:
    """Negative log likelihood of the dura at each radius, given what lies inside.

    All that is nearer must be inside, all that is farther outside: the sum of the logarithms of
    those probabilities along the ray, less their least sum. The dura runs through the middle of
    its own step, half of which counts either way.

    Parameters
    ----------
    inside : ndarray, shape (arc, angle, radius)
    """
    likely = np.clip(inside, 0.02, 0.98)
    within, beyond = -np.log(likely), -np.log(1.0 - likely)
    nearer = np.cumsum(within, axis=2) - 0.5 * within
    farther = np.cumsum(beyond[:, :, ::-1], axis=2)[:, :, ::-1] - 0.5 * beyond
    cost = nearer + farther
    return np.asarray(cost - cost.min(axis=2, keepdims=True), np.float32)
