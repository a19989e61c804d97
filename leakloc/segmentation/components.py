"""Connected components of fluid outside the dura: detection, measurement and grouping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from leakloc.anatomy.vocabulary import Compartment
from leakloc.core.distances import signed_distance_mm
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.result import Features
from leakloc.segmentation.scene import HALF, Array, Mask, Scene

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

Voxels = tuple[npt.NDArray[np.intp], ...]
"""Indices (k, j, i) of a set of voxels."""
Floats = npt.NDArray[np.floating]

SECTORS: Final = 12
"""Number of angular sectors around the sac in which fluid is counted."""
_MIN_SECTOR_FRACTION: Final = 0.02
"""Minimum fraction of a component in a sector that is counted."""
_CIRCUMFERENTIAL_SECTORS: Final = 6
"""Minimum number of sectors of a component that belongs to either side."""

_EPIDURAL_MM: Final = 9.0
"""Depth of the epidural space outside the dura, including its widest dorsal recess."""
_CANAL_HALF_WIDTH_MM: Final = 14.0
_FORAMEN_MM: Final = (12.0, 30.0)
"""Lateral extent of a foramen: from the lateral wall of the canal to beyond the facet joints."""
_FORAMEN_DEPTH_MM: Final = 14.0
_SKIN_FAT_MM: Final = 50.0
"""Distance posterior to the canal beyond laminae and muscles in slim adults: subcutaneous fat."""
_MIN_COMPARTMENT_ML: Final = 0.2
"""Minimum fluid volume in a compartment that is reported, unless half of the collection is less."""

BRIGHT: Final = 0.65
"""Minimum signal relative to CSF of a candidate outside the dura: above slow veins and incompletely
suppressed fat (0.43)."""

BLUR_MM: Final = 1.2
"""Distance outside the dura beyond which bright signal exceeds the blurred edge of the sac."""

PEAK_ML: Final = 0.1
"""Volume of a component over which its peak network probability is measured, independent of the
threshold that delimits it."""

_SHELL_START_MM: Final = 2.0
"""Distance beyond the blurred border of a component, unless the voxels are larger."""
_SHELL_MM: Final = 2.0
"""Thickness of the shell around a component in which the surrounding tissue is measured."""
_MIN_SIGNAL: Final = 0.05
"""Signal relative to CSF of tissue without fluid."""

LISTED_ML: Final = 0.15
"""Components below this volume are noise and are not listed, not even as rejected."""


@dataclass(frozen=True, eq=False)
class Component:
    """A connected candidate and its voxels."""

    voxels: Voxels
    features: Features
    fluid: bool
    """Whether the dura network classifies it as epidural fluid."""


def find_components(scene: Scene, settings: SegmentationSettings) -> list[Component]:
    """Connected components of fluid and of other bright signal near the canal."""
    c = scene.coordinates
    reach = np.hypot(c.left, c.dorsal)
    near = (reach <= settings.search_radius_mm) | (
        (np.abs(c.left) <= settings.corridor_half_width_mm) & (c.dorsal > 0)
    )
    near &= (c.arc >= scene.dura.head_arc_mm) & (c.arc <= scene.dura.centerline.length_mm)
    near &= ~scene.inside
    fluid = near & (scene.fraction.array >= settings.fluid_min_fraction)
    if scene.fat_like_fluid:
        fluid &= scene.reached  # beyond, bright fat would connect all components
    components = _connected(fluid, scene, scene.reached)
    other = near & (scene.signal.array >= BRIGHT) & (scene.outside_mm > BLUR_MM)
    for component in components:
        other[component.voxels] = False
    return components + _connected(other, scene, None)


def _connected(mask: Mask, scene: Scene, seeds: Mask | None) -> list[Component]:
    """Return connected components above `LISTED_ML`; those of fluid must include a seed voxel."""
    labeled, count = ndimage.label(mask)
    if count == 0:
        return []
    signal = scene.fraction if seeds is not None else scene.signal
    volume = np.bincount(labeled[mask], weights=signal.array[mask], minlength=count + 1)
    wanted = volume * signal.geometry.voxel_volume_ml >= LISTED_ML
    if seeds is not None:
        wanted &= np.bincount(labeled[seeds & mask], minlength=count + 1) > 0
    wanted[0] = False
    boxes = ndimage.find_objects(labeled)
    components = []
    for number in np.flatnonzero(wanted):
        box = boxes[number - 1]
        inside = np.nonzero(labeled[box] == number)
        voxels = tuple(axis + part.start for axis, part in zip(inside, box, strict=True))
        if seeds is not None:
            selected = select_voxels(scene.fraction.array[voxels])
            voxels = tuple(axis[selected] for axis in voxels)
        features = measure(voxels, scene, signal)
        components.append(Component(voxels, features, seeds is not None))
    return components


def select_voxels(fraction: Array) -> Mask:
    """Return the voxels of a component that maximize the expected Dice coefficient.

    The threshold is one half if every voxel is certain, and lower if the fluid is certain but not
    its exact voxels (Lipton et al., ECML PKDD 2014, doi 10.1007/978-3-662-44851-9_15).

    Parameters
    ----------
    fraction : ndarray, shape (n,)
        Probability of fluid (`Scene.fraction`).
    """
    falling = np.sort(fraction.astype(np.float64))[::-1]
    dice = 2 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + falling.sum())
    return np.asarray(fraction >= falling[int(dice.argmax())])


def measure(voxels: Voxels, scene: Scene, fluid: Volume) -> Features:
    """Measure the features of a component."""
    geometry = fluid.geometry
    fraction = fluid.array[voxels].astype(np.float64)
    arc = scene.coordinates.arc[voxels].astype(np.float64)
    left = scene.coordinates.left[voxels].astype(np.float64)
    dorsal = scene.coordinates.dorsal[voxels].astype(np.float64)
    outside = scene.outside_mm[voxels].astype(np.float64)
    volume_ml = float(fraction.sum()) * geometry.voxel_volume_ml + rim_ml(
        voxels, fluid, ~scene.inside
    )
    weight = fraction / fraction.sum()
    # Adjacent slices may be filled partially.
    start_mm = max(_SHELL_START_MM, 1.01 * max(geometry.spacing_ijk_mm))
    # No shell around other bright signal, which has many and large components.
    reach_mm = start_mm + _SHELL_MM if fluid is scene.fraction else 0.0
    distance, box = _distance_mm(voxels, geometry, reach_mm)
    shell = (distance < -start_mm) & (distance >= -reach_mm)
    thickness = _thickness_mm(distance, geometry.spacing_ijk_mm)
    radius = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    return Features(
        volume_ml=volume_ml,
        length_mm=float(np.ptp(arc)),
        arc_start_mm=float(np.percentile(arc, 2)),
        arc_stop_mm=float(np.percentile(arc, 98)),
        left_mm=float(weight @ left),
        dorsal_mm=float(weight @ dorsal),
        gap_mm=float(np.percentile(outside, 1)),
        reach_left_mm=float(np.percentile(np.abs(left), 98)),
        contact_fraction=float(weight[outside < 2.5].sum()),
        sectors=count_sectors(left, dorsal, weight),
        ventral_fraction=float(weight[(dorsal < 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        dorsal_fraction=float(weight[(dorsal > 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        lateral_fraction=float(weight[np.abs(dorsal) <= np.abs(left)].sum()),
        thickness_mm=thickness,
        roundness=float(np.clip(0.5 * thickness / radius, 0, 1)),
        brightness=float(np.percentile(scene.signal.array[voxels], 75)),
        network=_peak_fraction(voxels, scene),
        surrounding=_surrounding(voxels, scene, shell, box),
    )


def rim_of(
    voxels: Voxels, fraction: Volume, outside: Mask
) -> tuple[Voxels, npt.NDArray[np.float64]]:
    """Return adjacent voxels filled to less than half by a component, and their fluid fractions.

    The signal of the surrounding shell (such as fat or muscle) is subtracted first.

    Parameters
    ----------
    voxels : tuple of ndarray
        Indices (k, j, i) of the component.
    fraction : Volume
        Fraction of fluid, 0..1.
    outside : ndarray of bool
        Mask of voxels outside the sac, on the grid of `fraction`.

    Returns
    -------
    rim : tuple of ndarray
        Indices (k, j, i).
    filled : ndarray, shape (n,)
        Fluid fraction of each.
    """
    low = [max(int(axis.min()) - 2, 0) for axis in voxels]
    high = [int(axis.max()) + 3 for axis in voxels]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    near = fraction.array[box]
    component = np.zeros(near.shape, bool)
    component[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = True
    free = outside[box] & ~component & (near < HALF)
    rim = ndimage.binary_dilation(component) & free
    shell = ndimage.binary_dilation(component, iterations=2) & free & ~rim
    around = float(np.median(near[shell])) if shell.any() else 0.0
    filled = np.clip((near[rim].astype(np.float64) - around) / (1 - around), 0.0, 1.0)
    return tuple(axis + start for axis, start in zip(np.nonzero(rim), low, strict=True)), filled


def rim_ml(voxels: Voxels, fraction: Volume, outside: Mask) -> float:
    """Return the fluid volume in the rim of a component (see `rim_of`)."""
    return float(rim_of(voxels, fraction, outside)[1].sum()) * fraction.geometry.voxel_volume_ml


def _distance_mm(
    voxels: Voxels, geometry: Geometry, reach_mm: float
) -> tuple[npt.NDArray[np.float32], tuple[slice, ...]]:
    """Return the distance from a component's border, positive inside, in a box with margin."""
    pad = np.ceil(reach_mm / np.array(geometry.spacing_ijk_mm)[::-1]).astype(int)
    box = tuple(
        slice(max(int(axis.min()) - n, 0), int(axis.max()) + n + 1)
        for axis, n in zip(voxels, pad, strict=True)
    )
    shape = [min(part.stop, n) - part.start for part, n in zip(box, geometry.shape, strict=True)]
    mask = np.zeros(np.add(shape, 2), bool)  # empty border: at the edge of the grid as within
    mask[tuple(axis - part.start + 1 for axis, part in zip(voxels, box, strict=True))] = True
    distance = -signed_distance_mm(mask, geometry.spacing_kji_mm)
    return distance[1:-1, 1:-1, 1:-1], box


def _thickness_mm(distance_mm: Floats, spacing_ijk_mm: tuple[float, float, float]) -> float:
    """Return the diameter of the largest inscribed ball."""
    # Distances are to the centers of border voxels: add half a voxel on either side.
    return float(2 * distance_mm.max() + min(spacing_ijk_mm))


def _surrounding(voxels: Voxels, scene: Scene, shell: Mask, box: tuple[slice, ...]) -> float:
    """Return the mean signal of the shell outside the sac, relative to that of the component."""
    if shell.any():
        shell = shell & (scene.outside_mm[box] > BLUR_MM) & ~scene.inside[box]
    if not shell.any():
        return 0.0
    signal = scene.signal.array
    return float(signal[box][shell].mean() / max(np.median(signal[voxels]), _MIN_SIGNAL))


def _peak_fraction(voxels: Voxels, scene: Scene) -> float:
    """Return the network's fluid fraction that `PEAK_ML` of a component reach or exceed."""
    values = np.sort(scene.network.array[voxels][scene.reached[voxels]])
    count = max(round(PEAK_ML / scene.fraction.geometry.voxel_volume_ml), 1)
    return float(values[-min(count, len(values))]) if len(values) else 0.0


def count_sectors(left_mm: Floats, dorsal_mm: Floats, weight: Floats) -> int:
    """Return the number of sectors around the sac that a component occupies.

    Parameters
    ----------
    left_mm, dorsal_mm, weight : ndarray, shape (n,)
        Position of each voxel relative to the centerline, and its fraction of the component.
    """
    angle = np.arctan2(dorsal_mm, left_mm)
    sector = ((angle + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    by_sector = np.bincount(sector, weights=weight, minlength=SECTORS)
    return int((by_sector > _MIN_SECTOR_FRACTION).sum())


def assign_compartments(
    left_mm: Floats, dorsal_mm: Floats, outside_mm: Floats, volume_ml: Floats
) -> tuple[Compartment, ...]:
    """Return the compartments that contain a reported part of a collection.

    Parameters
    ----------
    left_mm, dorsal_mm, outside_mm, volume_ml : ndarray, shape (n,)
        Of each voxel: position relative to the centerline, distance from the dura, fluid volume.
    """
    left = np.abs(left_mm)
    subcutaneous = dorsal_mm > _SKIN_FAT_MM
    epidural = (outside_mm <= _EPIDURAL_MM) & (left < _CANAL_HALF_WIDTH_MM) & ~subcutaneous
    foraminal = ~epidural & ~subcutaneous & (left >= _FORAMEN_MM[0]) & (left < _FORAMEN_MM[1])
    foraminal &= np.abs(dorsal_mm) < _FORAMEN_DEPTH_MM
    places: dict[Compartment, Mask] = {
        "epidural": epidural,
        "foraminal": foraminal,
        "paraspinal": ~epidural & ~foraminal & ~subcutaneous,
        "subcutaneous": subcutaneous,
    }
    minimum = min(_MIN_COMPARTMENT_ML, 0.5 * float(volume_ml.sum()))
    return tuple(name for name, where in places.items() if float(volume_ml[where].sum()) >= minimum)


@dataclass(frozen=True)
class CanalExtent:
    """Position of a component around and along the canal."""

    start_mm: float
    stop_mm: float
    angle_rad: float
    """Direction from the centerline."""
    sectors: int
    """Number of sectors around the sac, of `SECTORS`."""


def group_extents(extents: Sequence[CanalExtent], max_gap_mm: float) -> npt.NDArray[np.int32]:
    """Group components into collections: close along the canal and on the same side.

    Returns
    -------
    ndarray, shape (n,)
        Number of the group of each component, from 0 in order of the first member.
    """
    start, stop, angle = np.array([(e.start_mm, e.stop_mm, e.angle_rad) for e in extents]).T
    around = np.array([e.sectors >= _CIRCUMFERENTIAL_SECTORS for e in extents])
    groups = np.full(len(extents), -1, np.int32)
    for first in range(len(extents)):
        if groups[first] >= 0:
            continue
        groups[first] = number = groups.max() + 1
        pending = [first]
        while pending:  # one row at a time: a mask may have thousands of components
            n = pending.pop()
            gap = np.maximum(start, start[n]) - np.minimum(stop, stop[n])
            apart = np.abs((angle - angle[n] + np.pi) % (2 * np.pi) - np.pi)
            linked = (gap <= max_gap_mm) & (around | around[n] | (apart < np.pi / 2))
            added = np.flatnonzero(linked & (groups < 0))
            groups[added] = number
            pending += added.tolist()
    return groups


def group_components(
    components: list[Component], settings: SegmentationSettings
) -> list[list[Component]]:
    """Group components into collections, by decreasing volume of the largest member."""
    if not components:
        return []
    ordered = sorted(components, key=lambda component: -component.features.volume_ml)
    extents = [
        CanalExtent(f.arc_start_mm, f.arc_stop_mm, np.arctan2(f.dorsal_mm, f.left_mm), f.sectors)
        for f in (component.features for component in ordered)
    ]
    groups = group_extents(extents, settings.collection_gap_mm)
    return [
        [ordered[n] for n in np.flatnonzero(groups == number)] for number in range(groups.max() + 1)
    ]


def merge_components(components: list[Component], scene: Scene) -> Component:
    """Return one component with the voxels of all."""
    if len(components) == 1:
        return components[0]
    voxels = tuple(np.concatenate([p.voxels[axis] for p in components]) for axis in range(3))
    return Component(voxels, measure(voxels, scene, scene.fraction), True)
