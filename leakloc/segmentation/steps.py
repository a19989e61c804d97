"""The steps of segmentation one by one, for a notebook or a pipeline of one's own.

Each takes and gives a `Volume` on the grid it was given (wrap an array with
``Volume(array, geometry)``), and `segment` runs the same functions:

>>> line = canal_centerline(volume)  # doctest: +SKIP
>>> fluid = fluid_fraction(volume, centerline=line)  # doctest: +SKIP
>>> dura = dural_surface(volume, centerline=line)  # doctest: +SKIP
>>> sac = sac_mask(dura, volume.geometry)  # doctest: +SKIP
>>> labels, candidates = fluid_outside(fluid, dura)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import Role
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.collections import Scene, find_collections
from leakloc.segmentation.dura import Dura, find_dura
from leakloc.segmentation.fluid import map_fluid
from leakloc.segmentation.result import Candidate
from leakloc.segmentation.segment import canal_prior, neighbourhood, on_grid, placed

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings


def canal_centerline(
    volume: Volume,
    companions: Mapping[Role, Volume] | None = None,
    *,
    settings: SegmentationSettings | None = None,
) -> Centerline:
    """Follow the spinal canal from the top of the field down.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine, any orientation of the grid, any unit of signal.
    companions : mapping, optional
        Other volumes of the study by role (``{"sagittal_t2": ...}``), on which the network looks
        for the canal in the first place.
    settings : SegmentationSettings, optional

    Raises
    ------
    AnalysisError
        If nothing in the volume looks like a spinal canal.
    """
    settings = settings or _default()
    oriented = volume.oriented("LPS")
    prior = canal_prior(oriented, companions or {}, settings)
    return find_canal(oriented, settings, prior).centerline


def fluid_fraction(
    volume: Volume,
    *,
    centerline: Centerline | None = None,
    settings: SegmentationSettings | None = None,
) -> Volume:
    """Share of each voxel that is CSF-like fluid: 0 in soft tissue, 1 in the CSF of the sac.

    Both references are taken along the canal, so that the receive field's bias cancels.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine.
    centerline : Centerline, optional
        Of the canal; looked for if not given (a second or two).
    settings : SegmentationSettings, optional

    Returns
    -------
    Volume
        float32 0..1 on the grid of `volume`.
    """
    settings = settings or _default()
    line = centerline or canal_centerline(volume, settings=settings)
    return on_grid(map_fluid(volume.oriented("LPS"), line, settings).fraction, volume)


def dural_surface(
    volume: Volume,
    companions: Mapping[Role, Volume] | None = None,
    *,
    centerline: Centerline | None = None,
    settings: SegmentationSettings | None = None,
) -> Dura:
    """Find the dura as one radius for each position along the canal and each angle about it.

    For fat-suppressed or heavily T2-weighted volumes; `segment` says how it treats others.

    Parameters
    ----------
    volume : Volume
        Fluid-sensitive volume of the spine.
    companions : mapping, optional
        Other volumes of the study by role, on which the network looks for the canal first.
    centerline : Centerline, optional
        Of the canal; looked for if not given.
    settings : SegmentationSettings, optional
    """
    settings = settings or _default()
    oriented = volume.oriented("LPS")
    prior = canal_prior(oriented, companions or {}, settings)
    line = centerline or find_canal(oriented, settings, prior).centerline
    return find_dura(map_fluid(oriented, line, settings).signal, line, settings, prior=prior)


def sac_mask(dura: Dura, geometry: Geometry) -> Volume:
    """Voxels whose centre the dura encloses, cord and roots included.

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
    """Find and judge every piece of fluid outside the dura.

    Parameters
    ----------
    fraction : Volume
        Share of CSF-like fluid, 0..1, as `fluid_fraction` gives it.
    dura : Dura
    settings : SegmentationSettings, optional

    Returns
    -------
    labels : Volume
        uint8 collection ids on the grid of `fraction`, 0 for none.
    candidates : tuple of Candidate
        Accepted and rejected, each with its features and the reason.
    """
    settings = settings or _default()
    oriented = fraction.oriented("LPS")
    box = neighbourhood(oriented, dura.centerline, settings)
    labels, candidates = find_collections(Scene.of(oriented.crop(box), dura, False), settings)
    return placed(labels, box, fraction), candidates


def _default() -> SegmentationSettings:
    from leakloc.core.settings import SegmentationSettings

    return SegmentationSettings()
