"""Extension of the canal centerline beyond the myelogram by a companion series."""

from __future__ import annotations

from typing import Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume

_LIKELY: Final = 0.5
"""Minimum probability of a canal voxel."""
_NEAR_MM: Final = 15.0
"""Maximum distance of canal voxels from the extrapolated centerline, which excludes fat and vessels
misclassified as canal. A canal is 20 mm wide."""
_COURSE_MM: Final = 30.0
"""Length of the centerline from which its direction is estimated: one vertebra."""
_GAP_MM: Final = 40.0
"""Maximum length over which the canal may be undetected (one level) before the extension ends."""
_SMOOTHING_MM: Final = 5.0
"""Sigma of the Gaussian along the extended centerline; the centers of planes change in steps of a
voxel, 1 to 2 mm."""


def extend_centerline(centerline: Centerline, canal: Volume | None) -> Centerline:
    """Extend the centerline at both ends through the canal on another volume.

    Plane by plane from either end, the center of likely canal voxels near the extrapolated
    centerline is added.

    Parameters
    ----------
    centerline : Centerline
        Centerline of the canal, cranial to caudal.
    canal : Volume or None
        Probability of canal, 0..1, on a grid whose k axis points cranially.

    Returns
    -------
    Centerline
        The input object if nothing is added.
    """
    if canal is None:
        return centerline
    up = _onward(centerline.points_lps[::-1], canal, 1)[::-1]
    down = _onward(centerline.points_lps, canal, -1)
    if len(up) + len(down) == 0:
        return centerline
    points = np.concatenate([up, centerline.points_lps, down])
    return Centerline.smoothed(points, step_mm=1.0, smoothing_mm=_SMOOTHING_MM)


def _onward(course_lps: FloatArray, canal: Volume, step: int) -> FloatArray:
    """Return points beyond the end of a path, one per plane of the canal grid, shape (n, 3)."""
    geometry = canal.geometry
    points = geometry.kji_from_lps(course_lps)
    plane_mm, row_mm, column_mm = geometry.spacing_kji_mm
    back = max(round(_COURSE_MM / plane_mm), 2)
    gap = round(_GAP_MM / plane_mm)
    before = points[np.abs(points[:, 0] - points[-1, 0]) <= back]
    course = list(before[:: max(len(before) // back, 1)]) or [points[-1]]
    known = len(course)
    last_detected = known
    k = int(np.floor(points[-1, 0])) + step if step > 0 else int(np.ceil(points[-1, 0])) + step
    while 0 <= k < geometry.shape[0] and len(course) - last_detected <= gap:
        expected = _expected(np.array(course[-back:]), k)
        j, i = np.nonzero(canal.array[k] > _LIKELY)
        near = np.hypot((j - expected[1]) * row_mm, (i - expected[2]) * column_mm) <= _NEAR_MM
        if near.any():
            weight = canal.array[k][j[near], i[near]]
            middle = np.average(np.stack([j[near], i[near]], axis=1), axis=0, weights=weight)
            course.append(np.array([k, *middle]))
            last_detected = len(course)
        else:
            course.append(expected)
        k += step
    return geometry.lps_from_kji(np.array(course[known:last_detected]).reshape(-1, 3))


def _expected(course_kji: FloatArray, k: int) -> FloatArray:
    """Return the extrapolated position in plane `k`."""
    if len(course_kji) < 3:
        return np.array([k, *course_kji[-1, 1:]])
    slope, offset = np.polyfit(course_kji[:, 0], course_kji[:, 1:], 1)
    return np.array([k, *(slope * k + offset)])
