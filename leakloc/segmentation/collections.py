"""Detection and classification of candidate fluid collections outside the dura.

Within its range the dura network estimates the fraction of epidural fluid in each voxel; beyond
it, connected signal as bright as CSF extends a collection. Other bright signal near the canal is
measured and listed with the mimic it is classified as.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.segmentation.classification import Decision, classify_fluid, is_cyst, name_mimic
from leakloc.segmentation.components import (
    Component,
    assign_compartments,
    find_components,
    group_components,
    merge_components,
)
from leakloc.segmentation.result import Candidate
from leakloc.segmentation.scene import Scene

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

MAX_REJECTED: Final = 60
"""Maximum number of rejected candidates listed, largest first."""


def find_collections(
    scene: Scene, settings: SegmentationSettings
) -> tuple[npt.NDArray[np.uint8], tuple[Candidate, ...]]:
    """Find, measure and classify all bright components outside the dura.

    Parameters
    ----------
    scene : Scene
    settings : SegmentationSettings

    Returns
    -------
    labels : ndarray, uint8
        Collection ids on the scene's grid, from 1 in order of decreasing volume.
    candidates : tuple of Candidate
        Accepted candidates by id, then rejected candidates by decreasing volume.
    """
    components = find_components(scene, settings)
    groups = group_components([p for p in components if p.fluid], settings)
    joined = [component for group in groups for component in _joined(group, scene)]
    classified = [(p, classify_fluid(p, scene, settings)) for p in joined]
    classified += [(p, name_mimic(p.features, scene)) for p in components if not p.fluid]
    classified.sort(key=lambda item: -item[0].features.volume_ml)
    labels = np.zeros(scene.fraction.array.shape, np.uint8)
    accepted = [item for item in classified if item[1].accepted][:255]
    for number, (component, _) in enumerate(accepted, start=1):
        labels[component.voxels] = number
    rejected = [item for item in classified if not item[1].accepted][:MAX_REJECTED]
    candidates = [_candidate(n, *item, scene) for n, item in enumerate(accepted, start=1)]
    return labels, (*candidates, *(_candidate(0, *item, scene) for item in rejected))


def _joined(group: list[Component], scene: Scene) -> list[Component]:
    """Return the components of a group as one, unless each of them is a cyst."""
    if all(is_cyst(component, scene) for component in group):
        return group  # cysts at adjacent roots
    return [merge_components(group, scene)]


def _candidate(number: int, component: Component, decision: Decision, scene: Scene) -> Candidate:
    filling = scene.fraction if component.fluid else scene.signal
    fraction = filling.array[component.voxels].astype(np.float64)
    center = np.average(np.stack(component.voxels, axis=1), axis=0, weights=fraction)
    return Candidate(
        id=number,
        accepted=decision.accepted,
        probability=decision.probability,
        volume_ml=component.features.volume_ml,
        center_lps=scene.fraction.geometry.lps_from_kji(center),
        reason=decision.reason,
        mimics=decision.mimics,
        compartments=assign_compartments(
            scene.coordinates.left[component.voxels],
            scene.coordinates.dorsal[component.voxels],
            scene.outside_mm[component.voxels],
            fraction * scene.fraction.geometry.voxel_volume_ml,
        ),
        features=component.features,
    )
