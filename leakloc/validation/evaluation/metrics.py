"""Overlap, surface distance and detection metrics of masks.

Definitions follow Maier-Hein et al., Metrics reloaded, Nat Methods 2024;21:195: Dice on
voxels, HD95 on surface distances pooled over both directions; a collection counts as detected
if its intersection over union with the truth is at least 0.1 or the centers lie within 10 mm.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.core.distances import signed_distance_mm
from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Volume

MATCH_IOU: Final = 0.1
"""Minimum intersection over union for a collection to count as detected."""

MATCH_DISTANCE_MM: Final = 10.0
"""Maximum distance of centers, in mm, to count as detected with less overlap."""

Mask = npt.NDArray[np.bool_]


def dice(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return the Dice coefficient of two masks of equal shape; NaN if both are empty."""
    a, b = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def surface_distances_mm(predicted: Volume, truth: Volume) -> FloatArray:
    """Return surface distances of two masks, both directions pooled, shape (n,).

    Surface voxels are mask voxels with a background face neighbor; distances are exact
    Euclidean distances in mm (Maurer transform). Empty if either mask is empty.

    Raises
    ------
    GeometryError
        If the masks are on different grids.
    """
    _same_grid(predicted, truth)
    a, b = predicted.array > 0, truth.array > 0
    if not a.any() or not b.any():
        return np.empty(0)
    occupied = np.argwhere(a | b)
    box = tuple(
        slice(max(int(low) - 1, 0), int(high) + 2)
        for low, high in zip(occupied.min(axis=0), occupied.max(axis=0), strict=True)
    )
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    spacing = predicted.geometry.spacing_kji_mm
    return np.concatenate(
        [
            np.maximum(signed_distance_mm(surface_b, spacing)[surface_a], 0),
            np.maximum(signed_distance_mm(surface_a, spacing)[surface_b], 0),
        ]
    )


def hd95_mm(predicted: Volume, truth: Volume) -> float:
    """Return the 95th percentile of `surface_distances_mm`; NaN if either mask is empty."""
    distances = surface_distances_mm(predicted, truth)
    return float(np.percentile(distances, 95)) if distances.size else float("nan")


def assd_mm(predicted: Volume, truth: Volume) -> float:
    """Return the average symmetric surface distance; NaN if either mask is empty."""
    distances = surface_distances_mm(predicted, truth)
    return float(distances.mean()) if distances.size else float("nan")


def match_collections(
    predicted: Volume, truth: Volume
) -> tuple[dict[int, int], list[int], list[int]]:
    """Match detected to true collections, best overlap first.

    Parameters
    ----------
    predicted, truth : Volume
        Label masks on one grid; 0 is background.

    Returns
    -------
    pairs : dict
        True id to detected id.
    missed : list of int
        True ids without a match.
    false_positives : list of int
        Detected ids that are not matched and do not overlap any true collection. (A second
        component of one true collection is not a false positive.)
    """
    _same_grid(predicted, truth)
    true_ids = [int(n) for n in np.unique(truth.array) if n]
    predicted_ids = [int(n) for n in np.unique(predicted.array) if n]
    scores: list[tuple[float, int, int]] = []
    for true_id in true_ids:
        true_mask = truth.array == true_id
        true_center = _center_lps(truth, true_mask)
        for predicted_id in predicted_ids:
            predicted_mask = predicted.array == predicted_id
            overlap = int((true_mask & predicted_mask).sum())
            union = int(true_mask.sum()) + int(predicted_mask.sum()) - overlap
            gap = float(np.linalg.norm(true_center - _center_lps(predicted, predicted_mask)))
            if overlap / union >= MATCH_IOU or gap <= MATCH_DISTANCE_MM:
                scores.append((overlap / union - gap * 1e-6, true_id, predicted_id))
    pairs: dict[int, int] = {}
    for _, true_id, predicted_id in sorted(scores, reverse=True):
        if true_id not in pairs and predicted_id not in pairs.values():
            pairs[true_id] = predicted_id
    touching = {int(n) for n in np.unique(predicted.array[truth.array > 0]) if n}
    missed = [n for n in true_ids if n not in pairs]
    false_positives = [n for n in predicted_ids if n not in pairs.values() and n not in touching]
    return pairs, missed, false_positives


def _same_grid(a: Volume, b: Volume) -> None:
    if not a.geometry.matches(b.geometry):
        raise GeometryError(
            f"masks of {a.geometry.shape} and {b.geometry.shape} voxels are on different grids; "
            "resample one onto the other with Volume.resample(order=0)"
        )


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def _center_lps(volume: Volume, mask: Mask) -> FloatArray:
    return volume.geometry.lps_from_kji(np.argwhere(mask).mean(axis=0))
