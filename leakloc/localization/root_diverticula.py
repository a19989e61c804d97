"""Perineural cysts and root sleeve diverticula by nerve root and side."""

from __future__ import annotations

from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.result import RootDiverticulum
from leakloc.segmentation.result import Segmentation


def locate_diverticula(
    segmentation: Segmentation, coordinate: LevelCoordinate
) -> tuple[RootDiverticulum, ...] | None:
    """Return the perineural cysts and root sleeve diverticula, largest first.

    Parameters
    ----------
    segmentation : Segmentation
    coordinate : LevelCoordinate
        Levels along the centerline of the segmentation.

    Returns
    -------
    tuple of RootDiverticulum or None
        None if not assessed.
    """
    if segmentation.round_structures is None:
        return None
    found = []
    for structure in segmentation.round_structures:
        arc_mm, left_mm, _ = segmentation.centerline.project(structure.center_lps)
        found.append(
            RootDiverticulum(
                root=coordinate.root_at(float(arc_mm)),
                side="left" if left_mm > 0 else "right",
                max_diameter_mm=structure.diameter_mm,
                volume_ml=structure.volume_ml,
                center_lps_mm=structure.center_lps,
                sac_distance_mm=structure.sac_distance_mm,
            )
        )
    return tuple(found)
