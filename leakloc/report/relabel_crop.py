"""Reduction of the stored data to what numbering and localization can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.ndimage import maximum_filter

from leakloc.anatomy.centerline import Centerline
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import Volume
from leakloc.levels.bodies import MIN_BONE
from leakloc.levels.detection import Detections
from leakloc.localization.hiatus import SacralCanal
from leakloc.localization.localizer import continue_through_sacrum, find_sac_tip
from leakloc.localization.surroundings import (
    ASIDE_MM,
    PAST_MM,
    SAC_ASIDE_MM,
    SKIN_MM,
    START_MM,
)
from leakloc.segmentation.result import Segmentation


def crop_to_region_read(
    anatomy: Volume,
    segmentation: Segmentation,
    sacral: SacralCanal | None,
    settings: LocalizationSettings,
) -> Volume:
    """Return the image with zeros outside the region `localize` can read, for any level names.

    Parameters
    ----------
    anatomy, segmentation, sacral, settings
        As for `localize`.
    """
    line = segmentation.centerline
    lines = [line]  # plausibility of the sacral canal depends on the level names
    if sacral is not None and sacral.confidence >= settings.hiatus_min_confidence:
        lines.append(continue_through_sacrum(line, find_sac_tip(segmentation), sacral))
    return _crop_to_path(anatomy, lines)


def _crop_to_path(anatomy: Volume, lines: Sequence[Centerline]) -> Volume:
    """Return the image with zeros outside the region `Surroundings` can read, for any level names.

    Parameters
    ----------
    anatomy : Volume
    lines : sequence of Centerline
        Centerlines of the whole canal.
    """
    geometry = anatomy.geometry
    read = np.zeros(geometry.shape, dtype=bool)
    reaches = ((START_MM + SKIN_MM, ASIDE_MM), (2 * START_MM, SAC_ASIDE_MM))
    for line, (depth_mm, aside_mm) in product(lines, reaches):
        arcs = np.arange(-PAST_MM, line.length_mm + PAST_MM, 1.0)
        _, _, dorsal = line.frame_at(arcs)
        back = np.arange(-ASIDE_MM, depth_mm, 1.0)
        points = line.at(arcs)[:, None] + back[:, None] * dorsal[:, None]
        kji = np.round(geometry.kji_from_lps(points.reshape(-1, 3))).astype(np.intp)
        kji = kji[((kji >= 0) & (kji < geometry.shape)).all(axis=1)]
        if not len(kji):
            continue
        reach = np.ceil(aside_mm / np.array(geometry.spacing_kji_mm)).astype(int) + 1
        low = np.maximum(kji.min(axis=0) - reach, 0)
        box = tuple(
            slice(int(a), int(b)) for a, b in zip(low, kji.max(axis=0) + reach + 1, strict=True)
        )
        marked = np.zeros(read[box].shape, np.uint8)
        marked[tuple((kji - low).T)] = 1
        read[box] |= maximum_filter(marked, size=tuple(2 * reach + 1), mode="constant") > 0
    return anatomy.with_array(np.where(read, anatomy.array, anatomy.array.dtype.type(0)))


def without_unused_bone(found: Detections) -> Detections:
    """Remove probabilities that `bodies_between` and `level_mask` do not use.

    Both use only interpolated probabilities above 0.5; for the sacrum, at voxels.
    """
    bodies, sacrum = found.bodies, found.sacrum
    if bodies is not None:
        near = maximum_filter((bodies.array > MIN_BONE).astype(np.uint8), size=3) > 0
        bodies = bodies.with_array(np.where(near, bodies.array, np.float32(0)))
    if sacrum is not None:
        sacrum = sacrum.with_array((sacrum.array > MIN_BONE).astype(np.float32))
    return replace(found, bodies=bodies, sacrum=sacrum, canal=None)
