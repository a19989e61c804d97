"""Baseline method: Otsu threshold, largest component, and morphological opening.

The signal is thresholded, the tallest connected component is selected (a full bladder may exceed
the sac in volume), and its opening by a ball is the thecal sac; the rest is epidural fluid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

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
    image = sitk.SmoothingRecursiveGaussian(
        sitk.Cast(volume.to_sitk(), sitk.sitkFloat32), SMOOTHING_MM
    )
    bright = sitk.OtsuThreshold(image, 0, 1)
    component = _tallest(sitk.ConnectedComponent(bright))
    core = sitk.GetImageFromArray(_largest(_depth_mm(component) >= CORE_MM).astype(np.uint8))
    core.CopyInformation(component)
    whole = sitk.GetArrayFromImage(component) > 0
    # Both distances are to voxel centers: opening on a grid loses up to one voxel.
    reach_mm = CORE_MM + min(volume.geometry.spacing_ijk_mm)
    sac = whole & (-_depth_mm(core) <= reach_mm)
    components, _ = ndimage.label(whole & ~sac)
    return (
        volume.with_array(sac.astype(np.uint8), "textbook sac"),
        volume.with_array(_large(components, volume.geometry.voxel_volume_ml), "textbook fluid"),
    )


def _tallest(components: Any) -> Any:
    """Return the component of largest craniocaudal extent, as a mask."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(components)
    along = np.abs(np.reshape(components.GetDirection(), (3, 3))[2]) * components.GetSpacing()

    def height_mm(label: int) -> float:
        return float(along @ np.array(shapes.GetBoundingBox(label)[3:]))

    return components == max(shapes.GetLabels(), key=height_mm, default=1)


def _depth_mm(mask: Any) -> npt.NDArray[Any]:
    """Return the distance to the surface of a mask: positive inside, negative outside."""
    depth = sitk.SignedMaurerDistanceMap(
        mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return np.asarray(sitk.GetArrayFromImage(depth))


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
