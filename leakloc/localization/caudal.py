"""Measurements for caudal access: the sacral hiatus, and what lies along the path from it."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Final

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import segment_name
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray, Volume
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.hiatus import SacralCanal
from leakloc.localization.path import PosteriorPath
from leakloc.localization.result import (
    BrightStructure,
    CaudalAccess,
    CystOnPath,
    DiscDistance,
    LengthMark,
    PathStretch,
)
from leakloc.localization.surroundings import (
    FLUID,
    NO_FAT,
    SAC_ASIDE_MM,
    UNKNOWN,
    Surroundings,
)

_MEAN_PATH_MM = (
    82.0, 115.0, 150.0, 186.0, 221.0, 254.0, 285.5, 317.0, 346.0, 372.5, 399.5, 426.0, 451.5, 477.0,
    501.5, 524.5, 547.5, 569.0,
)  # fmt: skip
"""Mean distance from the hiatus along the posterior canal to each disc from the lumbosacral disc up
to C7-T1, mm, for any number of lumbar vertebrae. Sum of posterior wall heights; agrees with hiatus
to conus, 232 ± 22 mm, measured on MRI in 200 adults (Park 2016)."""

_PATH_SD_FRACTION: Final = 0.10
"""Standard deviation of path lengths between people, as a fraction of the length."""

_PATH_SD_MM: Final = 8.0
"""Additional standard deviation in mm, added in quadrature."""

_MAX_PATH_SD: Final = 3.0
"""Paths that deviate by more than this many standard deviations from the mean are reported as
implausible."""

_TYPICAL_SD: Final = 2.0
"""Half the typical range, in standard deviations: 19 of 20 people."""

_MIN_DISCS: Final = 5
"""Minimum number of discs listed, from the lumbosacral disc upward."""

_MARK_STEP_MM: Final = 10.0
"""Distance between length marks; catheters have marks every 10 mm."""

_MIN_STRETCH_MM: Final = 10.0
"""Minimum length of a reported stretch without fat: that between two length marks."""

_STEP_MM: Final = 0.25
"""Sampling of profiles across the sacral canal, a quarter of a small voxel."""

_WALLS_AT_MM: Final = (1.5, 4.0, 6.5, 9.0, 11.5, 14.0, 16.5, 19.0)
"""Distances above the apex at which the walls of the sacral canal are measured: there is no roof
caudal to it, and 20 mm, two thirds of S3 to S4, give its direction."""

_AT_APEX: Final = 3
"""Number of these positions that give depth and width at the apex."""

_ALONG_MM: Final = (-1.0, 0.0, 1.0)
"""Profiles at these distances along the canal are averaged."""

_DEPTH_REACH_MM: Final = (9.0, 13.0)
"""Anterior and posterior limit of the profile: twice the depth at the hiatus (5.4 ± 1.8 mm)."""

_FAT_WITHIN_MM: Final = 3.0
"""Maximum distance of the brightest fat from the middle of a profile."""

_MAX_LATERAL_VOXEL_MM: Final = 2.5
"""Maximum distance of slices at which the width is measured: a quarter of the width (9.9 ± 3.0 mm,
240 adults, Diagnostics 2025;15:2729)."""

_MIN_CONTRAST: Final = 0.4
"""Minimum decrease of the signal from fat to the wall, relative to fat."""

_SKIN_REACH_MM: Final = 40.0
"""Part of the skin above and below the apex that is searched for the nearest point."""

_SKIN_STEP_MM: Final = 2.0
_MAX_SKIN_STEP_MM: Final = 3.0
"""Distance of skin points, and the maximum change of depth between two of them."""

_SKIN_FIT: Final = 10
"""Number of skin points above and below the nearest one that give the direction of the skin; it is
measured if at least half of them are in the field of view."""

_ON_FAT_IMAGE: Final = (
    "hiatus_width_mm", "hiatus_depth_mm", "canal_to_skin_deg", "skin_to_hiatus_mm",
)  # fmt: skip
"""Measurements on the series with bright fat."""

_NO_HIATUS: Final = "the sacral hiatus was not detected"
_NO_FAT_IMAGE: Final = "no registered series with bright fat"
_NO_WALLS: Final = "the walls of the sacral canal at the apex are not visible"
_NO_SKIN: Final = "the skin is not in the field of view"
_NO_S5: Final = "the end of S5 is not in the field of view"


def caudal_access(
    path: PosteriorPath | None,
    range_paths: tuple[PosteriorPath, PosteriorPath] | None,
    sacral: SacralCanal | None,
    coordinate: LevelCoordinate,
    surroundings: Surroundings,
) -> CaudalAccess:
    """Measure the sacral hiatus and the path from it.

    Parameters
    ----------
    path : PosteriorPath or None
        From the hiatus or its expected position to the most cranial disc; None if neither is in
        the field of view.
    range_paths : tuple of PosteriorPath, or None
        The same from both ends of the expected range.
    sacral : SacralCanal or None
        The sacral canal, if the hiatus was detected.
    """
    hiatus = _hiatus(sacral, coordinate, surroundings)
    reasons = {key: value for key, value in hiatus.items() if isinstance(value, str)}
    stretches: tuple[PathStretch, ...] = ()
    assessed_mm = None
    cysts: tuple[CystOnPath, ...] = ()
    structures: tuple[BrightStructure, ...] = ()
    if path is None:
        reasons["assessed_mm"] = "neither the hiatus nor S4 is in the field of view"
    else:
        stretches, assessed_mm = _stretches(path, coordinate, surroundings)
        cysts = surroundings.cysts_along(path, coordinate, is_from_hiatus=True)
        structures = surroundings.rejected_along(path, coordinate)
        if assessed_mm is None:
            reasons["assessed_mm"] = _NO_FAT_IMAGE
    return CaudalAccess(
        **{key: None if isinstance(value, str) else value for key, value in hiatus.items()},
        not_measured=reasons,
        discs=_discs(path, range_paths, coordinate),
        without_fat=stretches,
        assessed_mm=assessed_mm,
        cysts=cysts,
        bright_structures=structures,
    )


# --- the hiatus ---------------------------------------------------------------------------


def _hiatus(
    sacral: SacralCanal | None, coordinate: LevelCoordinate, surroundings: Surroundings
) -> dict[str, float | str]:
    """Return the measurements of the hiatus by key, or the reason why one is missing."""
    if sacral is None:
        return dict.fromkeys(("hiatus_height_mm", *_ON_FAT_IMAGE), _NO_HIATUS)
    line = surroundings.sac.centerline
    apex_mm = float(line.project(sacral.apex_lps)[0])
    found: dict[str, float | str] = {"hiatus_height_mm": _height_mm(apex_mm, coordinate) or _NO_S5}
    image = surroundings.anatomy
    if image is None:
        return found | dict.fromkeys(_ON_FAT_IMAGE, _NO_FAT_IMAGE)
    walls = _walls(line, apex_mm, image)
    found["hiatus_depth_mm"], found["hiatus_width_mm"] = _NO_WALLS, _NO_WALLS
    if walls is not None:
        depths = np.linalg.norm(walls[1] - walls[0], axis=1)[:_AT_APEX]
        found["hiatus_depth_mm"] = float(np.median(depths))
        middle_mm = float(np.median(line.project(walls.mean(axis=0)[:_AT_APEX])[2]))
        lateral_mm = _lateral_spacing_mm(image)
        if lateral_mm > _MAX_LATERAL_VOXEL_MM:
            found["hiatus_width_mm"] = f"slices {lateral_mm:.1f} mm apart are too thick"
        else:
            found["hiatus_width_mm"] = _canal_width(line, apex_mm, middle_mm, image) or _NO_WALLS
    found["skin_to_hiatus_mm"] = found["canal_to_skin_deg"] = _NO_SKIN
    skin = _skin(line, apex_mm, surroundings)
    if skin is None:
        return found
    away = np.linalg.norm(skin - sacral.apex_lps, axis=1)
    nearest = int(away.argmin())
    if 0 < nearest < len(skin) - 1:  # otherwise nearer skin may be outside the field of view
        found["skin_to_hiatus_mm"] = float(away[nearest])
        around = skin[max(nearest - _SKIN_FIT, 0) : nearest + _SKIN_FIT + 1]
        if walls is None:
            found["canal_to_skin_deg"] = _NO_WALLS
        elif len(around) > _SKIN_FIT:
            found["canal_to_skin_deg"] = _angle_deg(walls.mean(axis=0), around)
    return found


def _height_mm(apex_mm: float, coordinate: LevelCoordinate) -> float | None:
    """Return the distance from the apex to the end of S5; None if S5 is not in the field."""
    s4_mm, s5_mm = (coordinate.body_arc(name) for name in ("S4", "S5"))
    if s4_mm is None or s5_mm is None:
        return None
    end_mm = s5_mm + 0.5 * (s5_mm - s4_mm)
    return end_mm - apex_mm if end_mm > apex_mm else None


def _lateral_spacing_mm(image: Volume) -> float:
    """Return the spacing of the image axis closest to left-right."""
    axes = np.abs(image.geometry.directions_lps[0])
    return float(image.geometry.spacing_ijk_mm[int(axes.argmax())])


def _walls(line: Centerline, apex_mm: float, image: Volume) -> FloatArray | None:
    """Return points on the anterior and posterior wall of the sacral canal above the apex.

    Returns
    -------
    ndarray, shape (2, n, 3), or None
        Caudal to cranial; None if the walls are not visible at most positions.
    """
    offset = np.arange(-_DEPTH_REACH_MM[0], _DEPTH_REACH_MM[1], _STEP_MM)
    found = []
    for above_mm in _WALLS_AT_MM:
        center_mm = apex_mm - above_mm
        arc = center_mm + np.array(_ALONG_MM)
        _, _, dorsal = line.frame_at(arc)
        points = line.at(arc)[:, None] + offset[None, :, None] * dorsal[:, None]
        edges = _bright_part(image, points, offset)
        if edges is not None:
            _, _, outward = line.frame_at(center_mm)
            found.append(line.at(center_mm) + np.array(edges)[:, None] * outward)
    if len(found) <= len(_WALLS_AT_MM) / 2:
        return None
    return np.stack(found, axis=1)


def _canal_width(line: Centerline, apex_mm: float, middle_mm: float, image: Volume) -> float | None:
    """Return the width of the canal at the apex, halfway between its walls."""
    arc = apex_mm - np.array(_WALLS_AT_MM[:_AT_APEX])
    _, left, dorsal = line.frame_at(arc)
    offset = np.arange(-SAC_ASIDE_MM, SAC_ASIDE_MM + _STEP_MM, _STEP_MM)
    points = (line.at(arc) + middle_mm * dorsal)[:, None] + offset[None, :, None] * left[:, None]
    edges = _bright_part(image, points, offset)
    return None if edges is None else edges[1] - edges[0]


def _bright_part(
    image: Volume, points: FloatArray, offset_mm: FloatArray
) -> tuple[float, float] | None:
    """Return the edges of the bright part around the middle of parallel profiles, or None."""
    if not image.geometry.contains(points).all():
        return None
    signal = image.sample(points).mean(axis=0)
    near = np.abs(offset_mm) <= _FAT_WITHIN_MM
    top = int(np.flatnonzero(near)[signal[near].argmax()])
    edges = []
    for sign, side in ((-1, signal[top::-1]), (1, signal[top:])):
        lowest = int(side.argmin())
        wall = float(side[lowest])
        if wall > (1.0 - _MIN_CONTRAST) * signal[top]:
            return None
        limit = 0.5 * (wall + float(signal[top]))
        first = int((side < limit).argmax())
        steps = first - (limit - side[first]) / (side[first - 1] - side[first])
        edges.append(float(offset_mm[top] + sign * steps * _STEP_MM))
    return edges[0], edges[1]


def _skin(line: Centerline, apex_mm: float, surroundings: Surroundings) -> FloatArray | None:
    """Return the skin posterior to the sacral canal in the midline, cranial to caudal, or None.

    Returns
    -------
    ndarray, shape (n, 3), or None
        The part around the apex that is continuous; None if it is not in the field of view.
    """
    arc = apex_mm + np.arange(-_SKIN_REACH_MM, _SKIN_REACH_MM + 1.0, _SKIN_STEP_MM)
    center, (_, _, dorsal) = line.at(arc), line.frame_at(arc)
    depths = [surroundings.skin_depth_mm(p, d) for p, d in zip(center, dorsal, strict=True)]
    out = np.array([np.nan if depth is None else depth for depth in depths])
    apex = len(arc) // 2
    if not np.isfinite(out[apex]):
        return None
    broken = ~(np.abs(np.diff(out)) <= _MAX_SKIN_STEP_MM)
    above, below = np.flatnonzero(broken[:apex]), np.flatnonzero(broken[apex:])
    first = int(above[-1]) + 1 if len(above) else 0
    last = apex + int(below[0]) if len(below) else len(out) - 1
    part = slice(first, last + 1)
    return np.asarray(center[part] + out[part, None] * dorsal[part])


def _angle_deg(first: FloatArray, second: FloatArray) -> float:
    """Return the acute angle between the directions of two sets of points, shape (n, 3)."""
    directions = [np.linalg.svd(part - part.mean(axis=0))[2][0] for part in (first, second)]
    cosine = abs(float(directions[0] @ directions[1]))
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


# --- the path -----------------------------------------------------------------------------


def _typical_sd_mm(mean_mm: float) -> float:
    return float(np.hypot(_PATH_SD_FRACTION * mean_mm, _PATH_SD_MM))


def _typical_discs(coordinate: LevelCoordinate) -> list[tuple[str, float]]:
    """Return the discs from the lumbosacral disc upward, with the mean distance in adults."""
    presacral = coordinate.chain[: coordinate.chain.index("S1") + 1][::-1]
    names = [segment_name(upper, lower) for lower, upper in pairwise(presacral)]
    return list(zip(names, _MEAN_PATH_MM, strict=False))


def _discs(
    path: PosteriorPath | None,
    range_paths: tuple[PosteriorPath, PosteriorPath] | None,
    coordinate: LevelCoordinate,
) -> tuple[DiscDistance, ...]:
    if not coordinate.is_labeled:
        return ()
    discs = []
    for number, (name, mean_mm) in enumerate(_typical_discs(coordinate)):
        arc_mm = coordinate.disc_arc(name)
        length_mm = range_mm = None
        if path is not None and arc_mm is not None and path.holds(arc_mm):
            length_mm = path.length_at(arc_mm)
            if range_paths is not None:
                range_mm = (range_paths[0].length_at(arc_mm), range_paths[1].length_at(arc_mm))
        elif number >= _MIN_DISCS:
            continue
        spread_mm = _TYPICAL_SD * _typical_sd_mm(mean_mm)
        discs.append(
            DiscDistance(
                disc=name,
                distance_from_hiatus_mm=length_mm,
                distance_range_mm=range_mm,
                typical_mm=mean_mm,
                typical_range_mm=(mean_mm - spread_mm, mean_mm + spread_mm),
            )
        )
    return tuple(discs)


def length_marks(
    path: PosteriorPath, coordinate: LevelCoordinate, surroundings: Surroundings
) -> tuple[LengthMark, ...]:
    """Return the level reached at every 10 mm along the path, up to the most cranial disc."""
    marks = []
    for length_mm in np.arange(_MARK_STEP_MM, path.length_mm[-1], _MARK_STEP_MM):
        arc_mm = path.arc_at(length_mm)
        segment = coordinate.segment_at(arc_mm)
        if segment is None:
            continue
        marks.append(
            LengthMark(
                distance_from_hiatus_mm=length_mm,
                segment=segment,
                description=coordinate.describe(arc_mm),
                posterior_depth_mm=surroundings.depth_at(arc_mm),
                lps_mm=path.point_at(length_mm),
            )
        )
    return tuple(marks)


def implausible_length(path: PosteriorPath, coordinate: LevelCoordinate) -> tuple[Note, ...]:
    """Compare path lengths with population means; report the level of largest deviation."""
    worst: tuple[float, str, float, float] | None = None
    for name, mean_mm in _typical_discs(coordinate):
        disc_mm = coordinate.disc_arc(name)
        if disc_mm is None or not path.holds(disc_mm):
            continue
        length_mm = path.length_at(disc_mm)
        away = abs(length_mm - mean_mm) / _typical_sd_mm(mean_mm)
        if worst is None or away > worst[0]:
            worst = away, name, length_mm, mean_mm
    if worst is None or worst[0] <= _MAX_PATH_SD:
        return ()
    _, name, length_mm, mean_mm = worst
    return (note("path_implausible", disc=name, length_mm=length_mm, mean_mm=mean_mm),)


def _stretches(
    path: PosteriorPath, coordinate: LevelCoordinate, surroundings: Surroundings
) -> tuple[tuple[PathStretch, ...], float | None]:
    """Return the stretches without fat, and the length of the path that was assessed."""
    length = np.arange(0.5, path.length_mm[-1], 1.0)
    arc = np.interp(length, path.length_mm, path.arc_mm)
    content = surroundings.content_along(path, arc)
    assessed = content != UNKNOWN
    if not assessed.any():
        return (), None
    found = []
    for code, group in groupby(zip(content, length, arc, strict=True), key=lambda item: item[0]):
        part = list(group)
        start_mm, stop_mm = part[0][1] - 0.5, part[-1][1] + 0.5
        if code not in (FLUID, NO_FAT) or stop_mm - start_mm < _MIN_STRETCH_MM:
            continue
        names = (coordinate.segment_at(float(at)) for _, _, at in part)
        found.append(
            PathStretch(
                start_mm=start_mm,
                stop_mm=stop_mm,
                content="fluid" if code == FLUID else "no fat",
                segments=tuple(dict.fromkeys(name for name in names if name is not None)),
            )
        )
    return tuple(found), float(assessed.sum())
