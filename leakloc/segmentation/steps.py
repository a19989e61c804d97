"""Single steps of the segmentation, for notebooks and custom pipelines.

The steps take the `Spine` of a volume (wrap an array with ``Volume(array, geometry)``) and return
results on the grid of the volume; `segment` runs the same functions:

>>> spine = Spine(volume)  # doctest: +SKIP
>>> fluid = fluid_fraction(spine)  # doctest: +SKIP
>>> dura = dural_surface(spine)  # doctest: +SKIP
>>> sac = sac_mask(spine, dura)  # doctest: +SKIP
>>> labels, candidates = fluid_outside(spine, dura)  # doctest: +SKIP
"""

from __future__ import annotations

import numpy as np

from leakloc.anatomy.spine import Spine
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Volume
from leakloc.segmentation.collections import find_collections
from leakloc.segmentation.dura import Dura, find_dura
from leakloc.segmentation.fluid import map_fluid
from leakloc.segmentation.result import Candidate
from leakloc.segmentation.segment import on_grid, placed, search_region


def fluid_fraction(spine: Spine) -> Volume:
    """Return the fraction of CSF-like fluid in each voxel: 0 in soft tissue, 1 in CSF of the sac.

    Both references are measured along the canal, which corrects for the receive bias field.

    Parameters
    ----------
    spine : Spine
        Of a fluid-sensitive volume.

    Returns
    -------
    Volume
        float32 0..1 on the grid of the volume.

    Raises
    ------
    AnalysisError
        If no spinal canal is detected.
    """
    return on_grid(map_fluid(spine.oriented, spine.centerline).fraction, spine.myelogram)


def dural_surface(spine: Spine) -> Dura:
    """Detect the dura as one radius for each position along the canal and each angle.

    For fat-suppressed or heavily T2-weighted volumes; see `segment` for other volumes.

    Parameters
    ----------
    spine : Spine
        Of a fluid-sensitive volume.
    """
    line = spine.centerline
    signal = map_fluid(spine.oriented, line).signal
    return find_dura(signal, line, prior=spine.canal_probability)


def sac_mask(spine: Spine, dura: Dura) -> Volume:
    """Return the mask of the thecal sac.

    Returns
    -------
    Volume
        uint8 0/1 on the grid of the myelogram.
    """
    scene, box = search_region(map_fluid(spine.oriented, spine.centerline), dura, _default())
    return placed(scene.sac.astype(np.uint8), box, spine.myelogram)


def fluid_outside(
    spine: Spine, dura: Dura, *, settings: SegmentationSettings | None = None
) -> tuple[Volume, tuple[Candidate, ...]]:
    """Detect and classify all fluid components outside the dura.

    Parameters
    ----------
    spine : Spine
        Of a fluid-sensitive volume.
    dura : Dura
    settings : SegmentationSettings, optional

    Returns
    -------
    labels : Volume
        uint8 collection ids on the grid of the myelogram, 0 for none.
    candidates : tuple of Candidate
        Accepted and rejected candidates, each with its features and the reason.
    """
    settings = settings or _default()
    scene, box = search_region(map_fluid(spine.oriented, spine.centerline), dura, settings)
    labels, candidates = find_collections(scene, settings)
    return placed(labels, box, spine.myelogram), candidates


def _default() -> SegmentationSettings:
    return SegmentationSettings()
