"""Baseline method: Otsu threshold, largest component, and morphological opening.

The signal is thresholded, the tallest connected component is selected (a full bladder may exceed
the sac in volume), and its opening by a ball is the thecal sac; the rest is epidural fluid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.core.distances import signed_distance_mm
from leakloc.core.threshold import otsu_threshold
from leakloc.core.volume import Volume
from leakloc.loaders import triage
from leakloc.validation.evaluation.annotation import (
    MIN_COLLECTION_ML,
    Annotation,
    annotation_from_fluid,
)

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.loaders.study import Study

CORE_MM: Final = 4.0
"""Minimum depth below the surface of the core of the sac: half an adult sac's radius."""

SMOOTHING_MM: Final = 0.7
"""Gaussian smoothing before thresholding, about one voxel, to avoid holes from noise."""

_BINS: Final = 128
"""Number of bins of the signal, as by default in ITK."""


def textbook_method(study: Study, settings: Settings) -> tuple[Annotation, Volume]:
    """Apply the baseline method to a study; for `method` of `evaluate_phantoms`."""
    myelogram = triage(study, settings.loaders).myelogram
    sac, fluid = otsu_split(myelogram)
    return annotation_from_fluid("", fluid, sac), myelogram


def otsu_split(volume: Volume) -> tuple[Volume, Volume]:
    """Segment the thecal sac and epidural fluid by threshold, connectivity and distance.

    Parameters
    ----------
    volume : Volume
        T2-weighted volume with bright fluid.

    Returns
    -------
    sac, fluid : Volume
        uint8 0/1, and uint8 ids of the components of at least 0.5 mL.

    References
    ----------
    Otsu N, IEEE Trans Syst Man Cybern 1979;9:62.
    """
    spacing = volume.geometry.spacing_kji_mm
    image = ndimage.gaussian_filter(
        volume.array.astype(np.float32), SMOOTHING_MM / np.array(spacing), mode="nearest"
    )
    whole = _tallest(image > otsu_threshold(image, _BINS), volume)
    sac = whole.copy()
    if whole.any():
        core = _largest(-signed_distance_mm(whole, spacing) >= CORE_MM)
        # Both distances are to voxel centers: opening on a grid loses up to one voxel.
        reach_mm = CORE_MM + min(spacing)
        sac &= signed_distance_mm(core, spacing) <= reach_mm if core.any() else core
    components, _ = ndimage.label(whole & ~sac)
    return (
        volume.with_array(sac.astype(np.uint8), "textbook sac"),
        volume.with_array(_large(components, volume.geometry.voxel_volume_ml), "textbook fluid"),
    )


def _tallest(bright: npt.NDArray[np.bool_], volume: Volume) -> npt.NDArray[np.bool_]:
    """Return the component of largest craniocaudal extent; empty if there is none."""
    components, count = ndimage.label(bright)
    along = volume.geometry.edges_along_mm(np.array([0.0, 0.0, 1.0]))[::-1]
    heights_mm = [
        sum(mm * (part.stop - part.start) for mm, part in zip(along, box, strict=True))
        for box in ndimage.find_objects(components)
    ]
    if not count:
        return bright
    return np.asarray(components == 1 + int(np.argmax(heights_mm)))


def _largest(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def _large(components: npt.NDArray[Any], voxel_ml: float) -> npt.NDArray[np.uint8]:
    """Return components of reportable size, numbered by decreasing size."""
    counts = np.bincount(components.ravel())
    counts[0] = 0
    order = [n for n in np.argsort(-counts) if counts[n] * voxel_ml >= MIN_COLLECTION_ML]
    table = np.zeros(len(counts), np.uint8)
    table[order[:255]] = np.arange(1, len(order[:255]) + 1)
    return np.asarray(table[components])
