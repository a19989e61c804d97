"""Neural network that detects the dura and epidural fluid in canal coordinates.

Where the dark line of the dura is only partly visible, shape provides the evidence: the outline at
neighboring levels, asymmetry, and the position of cord and roots. A 3D U-Net takes the signal in
polar coordinates about the centerline (`leakloc.segmentation.dura`) and estimates for every point
the probability of lying inside the dura and of fluid outside it. Its weights
(``models/dura.onnx``, see ``models/DURA_CARD.md``) were trained on simulated contrast on real
anatomy and on phantoms (``pipelines/train_dura.py``); inference requires only onnxruntime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.core.networks import network_session

Array = npt.NDArray[np.float32]

ANGLES: Final = 48
"""Number of rays in training."""
RADII: Final = 48
"""Number of radii: 0.8 mm to 24.3 mm in steps of 0.5 mm."""
RADIUS_START_MM: Final = 0.8
RADIUS_STEP_MM: Final = 0.5
OVERLAP_RAYS: Final = 8
"""Rays repeated at either end, because the angle is periodic."""
SIGNAL_RANGE: Final = (-0.3, 1.6)
"""Clipping range of the signal, which is 0 in soft tissue and 1 in CSF."""
OUTSIDE_FIELD: Final = -0.5
"""Value of points outside the field of view."""
NO_PRIOR: Final = 0.5
"""Value of the prior if none is supplied."""
_STRIDE: Final = 16
"""The network halves the arc resolution four times."""
INSIDE_ODDS: Final = 1.1
"""Factor on the odds of lying inside the dura. The mask with the maximum expected Dice coefficient
D contains the voxels with a probability above D / 2 (Lipton et al., ECML PKDD 2014), here 0.475.
In 18 studies of nine development patients, which trained the network, factors of 1.0, 1.1 and 1.3
give 0.9481, 0.9486 and 0.9488; in phantoms, 1.3 gives a sac 2 % too large."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "dura.onnx"
"""Weights shipped with the package."""


def dura_probabilities(
    signal: npt.NDArray[np.floating],
    in_field: npt.NDArray[np.bool_],
    prior: npt.NDArray[np.floating] | None = None,
) -> tuple[Array, Array]:
    """Estimate the probabilities of lying inside the dura and of fluid outside it.

    Parameters
    ----------
    signal : ndarray, shape (n, 48, 48)
        Signal normalized to the CSF (0 soft tissue, 1 CSF, not clipped) over arc (2 mm steps),
        angle (from the patient's left to the back) and radius (0.8 to 24.3 mm).
    in_field : ndarray, bool, same shape
        Whether the point lies within the field of view.
    prior : ndarray, same shape, optional
        Probability of the spinal canal from another series or another network.

    Returns
    -------
    inside, fluid_outside : ndarray, float32, same shape

    Raises
    ------
    LeaklocError
        If the weights are missing.
    """
    planes = network_input(signal, in_field, prior)
    session = network_session(MODEL_PATH, "dura")
    (logits,) = session.run(None, {"polar": planes[None]})
    cropped = logits[0, :, : len(signal), OVERLAP_RAYS : OVERLAP_RAYS + ANGLES, :RADII]
    inside, outside = (1.0 / (1.0 + np.exp(-cropped))).astype(np.float32)
    return inside, outside


def network_input(
    signal: npt.NDArray[np.floating],
    in_field: npt.NDArray[np.bool_],
    prior: npt.NDArray[np.floating] | None,
) -> Array:
    """Return the network input channels: signal, prior, radius; shape (3, n', 64, 48)."""
    cut = np.where(in_field, np.clip(signal, *SIGNAL_RANGE), OUTSIDE_FIELD)
    known = np.full(signal.shape, NO_PRIOR) if prior is None else prior
    planes = np.stack([cut, known]).astype(np.float32)
    padding = ((0, 0), (0, -len(signal) % _STRIDE), (OVERLAP_RAYS, OVERLAP_RAYS), (0, 0))
    ends, ring = (padding[0], padding[1], (0, 0), (0, 0)), ((0, 0), (0, 0), padding[2], (0, 0))
    planes = np.pad(np.pad(planes, ends, mode="edge"), ring, mode="wrap")
    radius_mm = RADIUS_START_MM + RADIUS_STEP_MM * np.arange(RADII)
    place = np.broadcast_to((radius_mm / 12.0 - 1.0).astype(np.float32), planes.shape[1:])
    return np.concatenate([planes, place[None]])


def boundary_cost(inside: Array) -> Array:
    """Return the negative log likelihood of the dura at each radius.

    Smaller radii must be inside and larger radii outside: the sum of the negative logarithms of
    these probabilities along the ray, minus the minimum sum. The dura lies in the middle of its
    own radial step, half of which counts on either side.

    Parameters
    ----------
    inside : ndarray, shape (arc, angle, radius)
        Probability of lying inside the dura.
    """
    odds = INSIDE_ODDS * inside / np.maximum(1.0 - inside, 1e-6)
    likely = np.clip(odds / (1.0 + odds), 0.02, 0.98)
    within, beyond = -np.log(likely), -np.log(1.0 - likely)
    nearer = np.cumsum(within, axis=2) - 0.5 * within
    farther = np.cumsum(beyond[:, :, ::-1], axis=2)[:, :, ::-1] - 0.5 * beyond
    cost = nearer + farther
    return np.asarray(cost - cost.min(axis=2, keepdims=True), np.float32)
