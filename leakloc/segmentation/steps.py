"""Single steps of the segmentation, for notebooks and custom pipelines.

Each step takes a `Volume` and returns results on the same grid (wrap an array with
``Volume(array, geometry)``); `segment` runs the same functions:

>>> line = canal_centerline(volume)  # doctest: +SKIP
>>> fluid = fluid_fraction(volume, centerline=line)  # doctest: +SKIP
>>> dura = dural_surface(volume, centerline=line)  # doctest: +SKIP
>>> sac = sac_mask(dura, volume.geometry)  # doctest: +SKIP
>>> labels, candidates = fluid_outside(fluid, dura)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.collections import find_collections
from leakloc.segmentation.dura import Dura, find_dura
from leakloc.segmentation.fluid import map_fluid
from leakloc.segmentation.result import Candidate
from leakloc.segmentation.scene import Scene
from leakloc.segmentation.segment import canal_prior, neighbourhood, on_grid, placed

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings


def canal_centerline(volume: Volume) -> Centerline:
    """Trace the spinal canal from cranial to caudal.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine, in any grid orientation and signal unit.

    Raises
    ------
    AnalysisError
        If no spinal canal is detected.
    """
    oriented = volume.oriented("LPS")
    return find_canal(oriented, canal_prior(volume)).centerline


def fluid_fraction(volume: Volume, *, centerline: Centerline | None = None) -> Volume:
    """Return the fraction of CSF-like fluid in each voxel: 0 in soft tissue, 1 in CSF of the sac.

    Both references are measured along the canal, which corrects for the receive bias field.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine.
    centerline : Centerline, optional
        Centerline of the canal; computed if None (one to two seconds).

    Returns
    -------
    Volume
        float32 0..1 on the grid of `volume`.
    """
    line = centerline or canal_centerline(volume)
    return on_grid(map_fluid(volume.oriented("LPS"), line).fraction, volume)


def dural_surface(
    volume: Volume,
    *,
    centerline: Centerline | None = None,
    settings: SegmentationSettings | None = None,
) -> Dura:
    """Detect the dura as one radius for each position along the canal and each angle.

    For fat-suppressed or heavily T2-weighted volumes; see `segment` for other volumes.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine.
    centerline : Centerline, optional
        Centerline of the canal; computed if None.
    settings : SegmentationSettings, optional
    """
    settings = settings or _default()
    oriented = volume.oriented("LPS")
    prior = canal_prior(volume)
    line = centerline or find_canal(oriented, prior).centerline
    return find_dura(map_fluid(oriented, line).signal, line, settings, prior=prior)


def sac_mask(dura: Dura, geometry: Geometry) -> Volume:
    """Return the mask of the thecal sac: voxels whose center lies inside the dura.

    Returns
    -------
    Volume
        uint8 0/1 on `geometry`.
    """
    empty = Volume(np.zeros(geometry.shape, np.float32), geometry)
    scene = Scene.of(empty, dura, False)
    return empty.with_array(scene.sac.astype(np.uint8), "thecal sac")


def fluid_outside(
    fraction: Volume, dura: Dura, *, settings: SegmentationSettings | None = None
) -> tuple[Volume, tuple[Candidate, ...]]:
    """Detect and classify all fluid components outside the dura.

    Parameters
    ----------
    fraction : Volume
        Fraction of CSF-like fluid, 0..1, as returned by `fluid_fraction`.
    dura : Dura
    settings : SegmentationSettings, optional

    Returns
    -------
    labels : Volume
        uint8 collection ids on the grid of `fraction`, 0 for none.
    candidates : tuple of Candidate
        Accepted and rejected candidates, each with its features and the reason.
    """
    settings = settings or _default()
    oriented = fraction.oriented("LPS")
    box = neighbourhood(oriented, dura.centerline, settings)
    labels, candidates = find_collections(Scene.of(oriented.crop(box), dura, False), settings)
    return placed(labels, box, fraction), candidates


def _default() -> SegmentationSettings:
    from leakloc.core.settings import SegmentationSettings

    return SegmentationSettings()
