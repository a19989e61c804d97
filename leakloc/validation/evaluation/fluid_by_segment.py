"""True epidural fluid by motion segment and side, measured from the masks of a ground truth."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.ndimage import distance_transform_edt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import split_segment
from leakloc.core.volume import Volume
from leakloc.localization.canal import ArcGrid, canal_voxels
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import SegmentFluid
from leakloc.localization.sac import sac_profile
from leakloc.localization.segments import fluid_by_segment

_LINE_STEP_MM: Final = 2.0
_LINE_SMOOTHING_MM: Final = 10.0
"""Spacing and smoothing of the centerline of a true sac."""


def true_fluid_by_segment(
    values: dict[str, Any], sac: Volume | None, fluid: Volume | None, fraction: Volume | None
) -> tuple[SegmentFluid, ...]:
    """Return the true fluid of each segment by side, measured like that of a report.

    Parameters
    ----------
    values : dict
        Content of ``truth.json``.
    sac, fluid, fraction : Volume or None
        Mask of the sac, collection ids, and fraction of fluid, on one grid.

    Returns
    -------
    tuple of SegmentFluid
        Empty without masks or names of discs.
    """
    discs = {d["name"]: np.array(d["center_lps"]) for d in values["discs"]}
    if sac is None or fluid is None or fraction is None or len(discs) < 2 or not sac.array.any():
        return ()
    grid = sac.geometry
    points = grid.lps_from_kji(np.argwhere(sac.array))
    if "centerline_lps" in values:
        line = Centerline(np.array(values["centerline_lps"]))
    else:
        step = ((points[:, 2].max() - points[:, 2]) / _LINE_STEP_MM).astype(int)
        count = np.bincount(step)
        centers = [np.bincount(step, column)[count > 0] / count[count > 0] for column in points.T]
        line = Centerline.smoothed(np.stack(centers, axis=-1), smoothing_mm=_LINE_SMOOTHING_MM)
    arcs = line.project(np.array(list(discs.values())))[0]
    names = list(discs)
    chain = (split_segment(names[0])[0], *(split_segment(name)[1] for name in names))
    coordinate = LevelCoordinate(chain, arcs, np.arange(len(arcs), dtype=np.float64) + 0.5)
    voxels = canal_voxels(np.flatnonzero(sac.array), grid, fraction.array, line)
    nearest = distance_transform_edt(
        fluid.array == 0,
        sampling=grid.spacing_kji_mm,
        return_distances=False,
        return_indices=True,
    )
    owner = fluid.array[tuple(nearest)]
    collections = {
        int(n): canal_voxels(
            np.flatnonzero((owner == n) & (fraction.array > 0)), grid, fraction.array, line
        )
        for n in np.unique(fluid.array[fluid.array > 0])
    }
    every = [np.array([0.0, line.length_mm]), *(v.arc_mm for v in (voxels, *collections.values()))]
    bins = ArcGrid.over(np.concatenate(every), _LINE_STEP_MM / 2, _LINE_SMOOTHING_MM)
    profile = sac_profile(voxels, bins, line, grid)
    segments = {int(c["id"]): tuple(c["segments"]) for c in values["collections"]}
    return fluid_by_segment(collections, segments, profile, coordinate, grid)
