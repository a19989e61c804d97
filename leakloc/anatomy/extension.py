"""The canal's course past the myelogram, where a companion shows more of the spine."""

from __future__ import annotations

from typing import Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import FloatArray, Volume

_LIKELY: Final = 0.5
"""Probability from which a voxel counts as canal."""
_NEAR_MM: Final = 15.0
"""The canal's middle moves no further from where its course points: fat and vessels elsewhere,
taken for canal, are left alone. A canal is 20 mm wide."""
_COURSE_MM: Final = 30.0
"""Length of the course from which its direction is taken: a vertebra."""
_GAP_MM: Final = 40.0
"""Longest stretch in which the canal may not be recognised (a level), else the course ends."""
_SMOOTHING_MM: Final = 5.0
"""Gaussian along the new course: centres of planes step by a voxel, 1 to 2 mm."""


def extend_centerline(centerline: Centerline, canal: Volume | None) -> Centerline:
    """The centreline, continued at both ends through the canal that another volume shows.

    Plane by plane from either end, the centre of what is likely canal near where the course
    points.

    Parameters
    ----------
    centerline : Centerline
        Of the canal, head first.
    canal : Volume or None
        Probability of canal, 0..1, on a grid whose k axis runs to the head.

    Returns
    -------
    Centerline
        The same one where nothing is added.
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
    """Points past the end of a course, plane by plane of the canal's grid, shape (n, 3)."""
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
    """Where a course points in the next plane."""
    if len(course_kji) < 3:
        return np.array([k, *course_kji[-1, 1:]])
    slope, offset = np.polyfit(course_kji[:, 0], course_kji[:, 1:], 1)
    return np.array([k, *(slope * k + offset)])
