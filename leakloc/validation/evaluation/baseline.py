"""A textbook method to compare with: Otsu, the largest component, and a split by distance.

What anybody would try first on a bright-fluid volume: threshold the signal, keep the largest
connected piece (by its height, since a full bladder beats the sac by volume), and take for the
thecal sac what an opening by a ball leaves of it; what the opening cuts off is fluid outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.core.volume import Volume
from leakloc.validation.evaluation.reading import SMALLEST_COLLECTION_ML, Reading, fluid_reading

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.loaders.study import Study

CORE_MM: Final = 4.0
"""Depth below the surface that only the sac reaches: half an adult sac's radius."""

SMOOTHING_MM: Final = 0.7
"""Gaussian before the threshold, about a voxel: Otsu of raw noise leaves holes."""


def textbook_method(study: Study, settings: Settings) -> tuple[Reading, Volume]:
    """Measure the textbook method like the analysis (`evaluate_phantoms`'s `method`)."""
    from leakloc.loaders import triage

    myelogram = triage(study, settings.loaders).myelogram
    sac, fluid = otsu_split(myelogram)
    return fluid_reading("", fluid, sac), myelogram


def otsu_split(volume: Volume) -> tuple[Volume, Volume]:
    """Thecal sac and fluid outside it, by threshold, connection and distance.

    Parameters
    ----------
    volume : Volume
        Fluid is bright.

    Returns
    -------
    sac, fluid : Volume
        uint8 0/1, and uint8 ids of the pieces of at least 0.5 mL.

    References
    ----------
    Otsu N, IEEE Trans Syst Man Cybern 1979;9:62.
    """
    import SimpleITK as sitk
    from scipy import ndimage

    image = sitk.SmoothingRecursiveGaussian(
        sitk.Cast(volume.to_sitk(), sitk.sitkFloat32), SMOOTHING_MM
    )
    bright = sitk.OtsuThreshold(image, 0, 1)
    component = _tallest(sitk.ConnectedComponent(bright))
    core = sitk.GetImageFromArray(_largest(_depth_mm(component) >= CORE_MM).astype(np.uint8))
    core.CopyInformation(component)
    whole = sitk.GetArrayFromImage(component) > 0
    # Voxel centres on both surfaces: an opening on a grid loses up to a voxel.
    reach_mm = CORE_MM + min(volume.geometry.spacing_ijk_mm)
    sac = whole & (-_depth_mm(core) <= reach_mm)
    pieces, _ = ndimage.label(whole & ~sac)
    return (
        volume.with_array(sac.astype(np.uint8), "textbook sac"),
        volume.with_array(_large(pieces, volume.geometry.voxel_volume_ml), "textbook fluid"),
    )


def _tallest(components: Any) -> Any:
    """The component that reaches farthest along the body, as a mask."""
    import SimpleITK as sitk

    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(components)
    along = np.abs(np.reshape(components.GetDirection(), (3, 3))[2]) * components.GetSpacing()

    def height_mm(label: int) -> float:
        return float(along @ np.array(shapes.GetBoundingBox(label)[3:]))

    return components == max(shapes.GetLabels(), key=height_mm, default=1)


def _depth_mm(mask: Any) -> npt.NDArray[Any]:
    """Distance to the surface of a mask: positive inside, negative outside."""
    import SimpleITK as sitk

    depth = sitk.SignedMaurerDistanceMap(
        mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return np.asarray(sitk.GetArrayFromImage(depth))


def _largest(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def _large(pieces: npt.NDArray[Any], voxel_ml: float) -> npt.NDArray[np.uint8]:
    """Pieces large enough to be reported, numbered by falling size."""
    counts = np.bincount(pieces.ravel())
    counts[0] = 0
    order = [n for n in np.argsort(-counts) if counts[n] * voxel_ml >= SMALLEST_COLLECTION_ML]
    table = np.zeros(len(counts), np.uint8)
    table[order[:255]] = np.arange(1, len(order[:255]) + 1)
    return np.asarray(table[pieces])
