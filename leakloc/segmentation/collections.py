"""Detection and classification of candidate fluid collections outside the dura.

Within its range the dura network estimates the fraction of epidural fluid in each voxel; beyond
it, connected signal as bright as CSF extends a collection. Other bright signal near the canal is
measured and listed with the mimic it is classified as.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.vocabulary import Compartment
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.dura import RADIUS_RANGE_MM, Dura
from leakloc.segmentation.result import Candidate

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]
Voxels = tuple[npt.NDArray[np.intp], ...]
"""Indices (k, j, i) of a set of voxels."""

SECTORS: Final = 12
"""Number of angular sectors around the sac in which fluid is counted."""

HALF: Final = 0.5
"""Fluid fraction at which a voxel belongs to a component rather than to its rim."""

BRIGHT: Final = 0.65
"""Minimum signal relative to CSF of a candidate outside the dura: above slow veins and incompletely
suppressed fat (0.43)."""

DIMMER: Final = 0.85
"""Signal relative to CSF below which bright tissue is classified as fat; fluid reaches 0.85 to
1.2."""

EDGE_MM: Final = 12.0
"""A component that ends within this distance below the upper end of the canal is not assessed: the
network lacks the sections above it."""

MIN_BRIGHTNESS: Final = 0.5
"""Minimum signal relative to CSF of a reported collection; partially suppressed fat is below it.
The minimum of 133 collections of development patients and phantoms, including thin layers, was
0.56."""

BLUR_MM: Final = 1.2
"""Distance outside the dura beyond which bright signal exceeds the blurred edge of the sac."""

PEAK_ML: Final = 0.1
"""Volume of a component over which its peak network probability is measured, independent of the
threshold that delimits it."""

LISTED_ML: Final = 0.15
"""Components below this volume are noise and are not listed, not even as rejected."""

MAX_REJECTED: Final = 60
"""Maximum number of rejected candidates listed, largest first."""

_MAX_CONTACT_GAP_MM: Final = 3.0
"""Maximum distance from the dura of fluid that counts as connected with the canal."""

MAX_BRIGHT_TISSUE_PROBABILITY: Final = 0.75
"""Maximum probability of a collection where soft tissue is bright, because fat suppression is then
known only from the DICOM header."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A region around the canal with the data used to classify collections.

    Parameters
    ----------
    fraction : Volume
        Fraction of CSF-like fluid in each voxel: that of the dura network outside the dura and
        within its range, the clipped signal elsewhere.
    signal : Volume
        The same from the signal alone.
    coordinates : CanalCoordinates
        Canal coordinates of the same grid.
    outside_mm : ndarray
        Distance outside the dura along the ray from the centerline, negative inside.
    reached : ndarray of bool
        Whether a voxel is outside the dura and within the range of the network.
    dura : Dura
    fat_like_fluid : bool
        Whether fat is too bright to be distinguished from fluid.
    tissue_bright : bool
        Whether marrow and muscle are bright, as at short echo times, but fat is not.
    """

    fraction: Volume
    signal: Volume
    coordinates: CanalCoordinates
    outside_mm: Array
    reached: Mask
    dura: Dura
    fat_like_fluid: bool
    tissue_bright: bool = False

    @classmethod
    def of(
        cls, signal: Volume, dura: Dura, fat_like_fluid: bool, tissue_bright: bool = False
    ) -> Scene:
        """Compute the data of a region (already cropped to the vicinity of the canal).

        Parameters
        ----------
        signal : Volume
            Fluid fraction from the signal alone, 0..1.
        """
        c = CanalCoordinates.of(signal.geometry, dura.centerline)
        outside = np.empty(c.arc.shape, np.float32)
        for k in range(len(outside)):  # plane by plane to limit memory
            outside[k] = _outside_mm(dura, c.arc[k], c.left[k], c.dorsal[k])
        fraction = signal
        reached = (outside > 0) & (np.hypot(c.left, c.dorsal) <= RADIUS_RANGE_MM[1])
        reached &= (c.arc >= 0) & (c.arc <= dura.arc_mm[-1])
        values = dura.fluid_outside_at(c.arc[reached], c.left[reached], c.dorsal[reached])
        if values is None:
            reached[:] = False
        else:
            known = np.isfinite(values)  # rounding may exclude the outermost voxels
            reached[reached] = known
            array = signal.array.copy()
            array[reached] = values[known]
            fraction = signal.with_array(array, "dura network outside the dura")
        return cls(fraction, signal, c, outside, reached, dura, fat_like_fluid, tissue_bright)

    @property
    def sac(self) -> Mask:
        """Voxels whose center lies inside the spinal dura."""
        sac = np.asarray(self.outside_mm <= 0.0)
        if self.dura.head_arc_mm > 0:  # above it lie the cisterns
            sac &= self.coordinates.arc >= self.dura.head_arc_mm
        return sac


def _outside_mm(dura: Dura, arc: Array, left: Array, dorsal: Array) -> FloatArray:
    """Distance outside the dura along the ray from the centerline, negative inside."""
    # Planes of an oblique grid extend slightly beyond both ends of the centerline.
    last = float(dura.arc_mm[-1]) if dura.tip_arc_mm is None else None
    outside = np.hypot(left, dorsal) - dura.radius_at(np.clip(arc, 0.0, last), left, dorsal)
    if dura.tip_arc_mm is not None:  # below the sac: distance to its caudal end
        below = np.maximum(arc - np.float32(dura.tip_arc_mm), 0)
        outside = np.where(below > 0, np.hypot(outside, below), outside)
    return np.asarray(outside)


@dataclass(frozen=True, eq=False)
class _Component:
    """A connected candidate and its voxels."""

    voxels: Voxels
    features: dict[str, float]
    fluid: bool
    """Whether the dura network classifies it as epidural fluid."""


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
    components = _components(scene, settings)
    joined = [
        _merge_components(group, scene)
        for group in _grouped([p for p in components if p.fluid], settings)
    ]
    classified = [(p, _classify(p, scene, settings)) for p in joined]
    classified += [(p, _name(p.features, scene)) for p in components if not p.fluid]
    classified.sort(key=lambda item: -item[0].features["volume_ml"])
    labels = np.zeros(scene.fraction.array.shape, np.uint8)
    accepted = [item for item in classified if item[1].accepted][:255]
    for number, (component, _) in enumerate(accepted, start=1):
        labels[component.voxels] = number
    rejected = [item for item in classified if not item[1].accepted][:MAX_REJECTED]
    candidates = [_candidate(n, *item, scene) for n, item in enumerate(accepted, start=1)]
    return labels, (*candidates, *(_candidate(0, *item, scene) for item in rejected))


def _components(scene: Scene, settings: SegmentationSettings) -> list[_Component]:
    """Connected components of fluid and of other bright signal near the canal."""
    c = scene.coordinates
    reach = np.hypot(c.left, c.dorsal)
    near = (reach <= settings.search_radius_mm) | (
        (np.abs(c.left) <= settings.corridor_half_width_mm) & (c.dorsal > 0)
    )
    near &= (c.arc >= scene.dura.head_arc_mm) & (c.arc <= scene.dura.centerline.length_mm)
    near &= scene.outside_mm > 0
    fluid = near & (scene.fraction.array >= settings.fluid_min_fraction)
    if scene.fat_like_fluid:
        fluid &= scene.reached  # beyond, bright fat would connect all components
    components = _connected(fluid, scene, scene.reached)
    other = near & (scene.signal.array >= BRIGHT) & (scene.outside_mm > BLUR_MM)
    for component in components:
        other[component.voxels] = False
    return components + _connected(other, scene, None)


def _connected(mask: Mask, scene: Scene, seeds: Mask | None) -> list[_Component]:
    """Return connected components above `LISTED_ML`; those of fluid must include a seed voxel."""
    from scipy import ndimage

    labelled, count = ndimage.label(mask)
    if count == 0:
        return []
    signal = scene.fraction if seeds is not None else scene.signal
    volume = np.bincount(labelled[mask], weights=signal.array[mask], minlength=count + 1)
    wanted = volume * signal.geometry.voxel_volume_ml >= LISTED_ML
    if seeds is not None:
        wanted &= np.bincount(labelled[seeds & mask], minlength=count + 1) > 0
    wanted[0] = False
    boxes = ndimage.find_objects(labelled)
    components = []
    for number in np.flatnonzero(wanted):
        box = boxes[number - 1]
        inside = np.nonzero(labelled[box] == number)
        voxels = tuple(axis + part.start for axis, part in zip(inside, box, strict=True))
        if seeds is not None:
            selected = _of_greatest_overlap(scene.fraction.array[voxels])
            voxels = tuple(axis[selected] for axis in voxels)
        features = _features(voxels, scene, signal)
        components.append(_Component(voxels, features, seeds is not None))
    return components


def _of_greatest_overlap(fraction: Array) -> Mask:
    """Return the voxels of a component that maximize the expected Dice coefficient.

    The threshold is one half if the network is certain of every voxel, and lower if it is certain
    of fluid but not of its exact voxels (Lipton et al., ECML PKDD 2014,
    doi 10.1007/978-3-662-44851-9_15).

    Parameters
    ----------
    fraction : ndarray, shape (n,)
        Expected fraction of fluid.
    """
    falling = np.sort(fraction.astype(np.float64))[::-1]
    dice = 2 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + falling.sum())
    return np.asarray(fraction >= falling[int(dice.argmax())])


def _features(voxels: Voxels, scene: Scene, fluid: Volume) -> dict[str, float]:
    """Measure a component; units are in the feature names."""
    geometry = fluid.geometry
    fraction = fluid.array[voxels].astype(np.float64)
    arc = scene.coordinates.arc[voxels].astype(np.float64)
    left = scene.coordinates.left[voxels].astype(np.float64)
    dorsal = scene.coordinates.dorsal[voxels].astype(np.float64)
    outside = scene.outside_mm[voxels].astype(np.float64)
    volume_ml = float(fraction.sum()) * geometry.voxel_volume_ml + rim_ml(
        voxels, fluid, scene.outside_mm > 0.0
    )
    weight = fraction / fraction.sum()
    angle = np.arctan2(dorsal, left)
    sector = ((angle + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    fraction_by_sector = np.bincount(sector, weights=weight, minlength=SECTORS)
    points = np.stack([arc, left, dorsal], axis=1)
    spread = np.sort(np.linalg.eigvalsh(np.cov(points.T, aweights=fraction) + 1e-6 * np.eye(3)))
    thickness = _thickness_mm(voxels, geometry.spacing_ijk_mm)
    radius = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    tip = scene.dura.tip_arc_mm
    return {
        "volume_ml": volume_ml,
        "length_mm": float(np.ptp(arc)),
        "arc_mm": float(weight @ arc),
        "arc_start_mm": float(np.percentile(arc, 2)),
        "arc_stop_mm": float(np.percentile(arc, 98)),
        "left_mm": float(weight @ left),
        "dorsal_mm": float(weight @ dorsal),
        "gap_mm": float(np.percentile(outside, 1)),
        "outside_mm": float(weight @ outside),
        "reach_mm": float(np.percentile(outside, 98)),
        "reach_left_mm": float(np.percentile(np.abs(left), 98)),
        "contact_fraction": float(weight[outside < 2.5].sum()),
        "near_fraction": float(weight[outside < 8.0].sum()),
        "sectors": float((fraction_by_sector > 0.02).sum()),
        "ventral_fraction": float(weight[(dorsal < 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "dorsal_fraction": float(weight[(dorsal > 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "lateral_fraction": float(weight[np.abs(dorsal) <= np.abs(left)].sum()),
        "thickness_mm": thickness,
        # 1 for a ball, less for thin layers and tubes.
        "roundness": float(np.clip(0.5 * thickness / radius, 0, 1)),
        "elongation": float(np.sqrt(spread[2] / max(spread[1], 1e-6))),
        "brightness": float(np.percentile(scene.signal.array[voxels], 75)),
        "network": _peak_fraction(voxels, scene),
        "below_tip_mm": float(weight @ arc - tip) if tip is not None else float("-inf"),
    }


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
    from scipy import ndimage

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


def _thickness_mm(
    voxels: tuple[npt.NDArray[np.intp], ...], spacing_ijk_mm: tuple[float, float, float]
) -> float:
    """Return the diameter of the largest inscribed ball."""
    import SimpleITK as sitk

    low = [int(axis.min()) - 1 for axis in voxels]
    shape = [int(axis.max()) - start + 2 for axis, start in zip(voxels, low, strict=True)]
    mask = np.zeros(shape, np.uint8)
    mask[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(spacing_ijk_mm)
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
        )
    )
    # Distances are to the centers of border voxels: add half a voxel on either side.
    return float(2 * distance.max() + min(spacing_ijk_mm))


def _peak_fraction(voxels: Voxels, scene: Scene) -> float:
    """Return the network's fluid fraction that `PEAK_ML` of a component reach or exceed."""
    values = np.sort(scene.fraction.array[voxels][scene.reached[voxels]])
    count = max(round(PEAK_ML / scene.fraction.geometry.voxel_volume_ml), 1)
    return float(values[-min(count, len(values))]) if len(values) else 0.0


@dataclass(frozen=True)
class _Decision:
    accepted: bool
    probability: float
    reason: str
    mimics: tuple[str, ...]


def _classify(component: _Component, scene: Scene, settings: SegmentationSettings) -> _Decision:
    """Accept or reject a fluid component, with a probability and a reason."""
    f = component.features
    considered = tuple(_considered(f))
    if f["volume_ml"] < settings.collection_min_ml:
        return _Decision(
            False, 0.2, f"Only {f['volume_ml']:.2f} mL: below the reporting threshold.", considered
        )
    probability = probability_of(f)
    if f["arc_stop_mm"] < EDGE_MM:
        return _Decision(
            False, 0.2, "Lies only at the upper edge of the field: not assessable.", considered
        )
    if f["brightness"] < MIN_BRIGHTNESS:
        return _Decision(
            False,
            0.2,
            f"Only {f['brightness']:.0%} as bright as CSF.",
            ("epidural fat", *considered),
        )
    if scene.fat_like_fluid:
        return _Decision(
            False, min(probability, 0.3),
            "As bright as CSF, but so is fat in this series: without fat suppression the two "
            "cannot be distinguished.",
            ("epidural fat", *considered),
        )  # fmt: skip
    if scene.tissue_bright:
        probability = min(probability, MAX_BRIGHT_TISSUE_PROBABILITY)
    accepted = probability >= settings.collection_min_probability
    place = "in contact with the dura" if f["gap_mm"] < 2.0 else "near the dura"
    reason = (
        f"{f['volume_ml']:.1f} mL of CSF-like signal, up to {f['thickness_mm']:.1f} mm thick, "
        f"over {f['length_mm']:.0f} mm of the canal, {place}."
    )
    return _Decision(accepted, probability, reason, considered)


def probability_of(features: dict[str, float]) -> float:
    """Return the calibrated probability that a component is an epidural fluid collection.

    Logistic function of `confidence_evidence`, fitted by `pipelines/fit_confidence.py`.
    """
    evidence = confidence_evidence(
        features["network"], features["contact_fraction"], features["volume_ml"]
    )
    logit = float(evidence @ np.array(CONFIDENCE))
    return float(np.clip(1 / (1 + np.exp(-logit)), 0.02, 0.98))


def confidence_evidence(
    network: npt.ArrayLike, contact_fraction: npt.ArrayLike, volume_ml: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the predictors weighted by `CONFIDENCE`, shape (..., 4).

    A constant 1, the log odds of the network's peak fraction, the contact with the sac (0 to 1;
    contact of a fifth of the component counts as full, because pseudomeningoceles have a neck),
    and the logarithm of the volume in mL (small components separate from the sac are often cysts).
    """
    odds = np.clip(np.asarray(network, float), 0.02, 0.98)
    contact = np.clip(np.asarray(contact_fraction, float) / 0.2, 0.0, 1.0)
    columns = (np.ones_like(odds), np.log(odds / (1 - odds)), contact, np.log(volume_ml))
    return np.stack(columns, axis=-1)


CONFIDENCE: Final = (-2.88, 2.31, 3.53, 0.72)
"""Weights of `confidence_evidence`, fitted to 213 components, four of them false positive, of
development patients (seeds 0 to 6 and 11; the network was trained on these patients) and of
phantoms (seeds 30 to 33)."""


def _name(f: dict[str, float], scene: Scene) -> _Decision:
    """Classify bright signal that the network does not classify as fluid, by location."""
    name, probability, reason = _mimic(f, scene)
    return _Decision(False, probability, reason, (name,))


def _mimic(f: dict[str, float], scene: Scene) -> tuple[str, float, str]:
    """Return the mimic, the remaining probability of a leak, and the reason."""
    if f["dorsal_mm"] < -20.0 or (f["dorsal_mm"] < -8 and f["gap_mm"] > 6.0):
        return "abdominal or disc fluid", 0.02, "Anterior to the canal and not connected with it."
    if scene.fat_like_fluid:
        return "epidural fat", 0.1, "As bright as fat in this series; not shaped like fluid."
    if f["brightness"] < DIMMER:
        return "epidural fat", 0.1, f"Only {f['brightness']:.0%} as bright as CSF."
    if f["gap_mm"] > _MAX_CONTACT_GAP_MM:
        if f["dorsal_mm"] > 12.0 and abs(f["left_mm"]) < f["dorsal_mm"]:
            return (
                "seroma apart from the canal", 0.15,
                f"Posterior to the spine, {f['gap_mm']:.0f} mm from the dura, not connected.",
            )  # fmt: skip
        if f["dorsal_mm"] > -4.0 and f["reach_left_mm"] < 30.0 and f["volume_ml"] < 3.0:
            return (
                "facet effusion or synovial cyst", 0.1,
                f"Small collection near the facet joints, {f['gap_mm']:.0f} mm from the dura.",
            )  # fmt: skip
        return "fluid apart from the canal", 0.05, f"{f['gap_mm']:.0f} mm from the dura."
    if f["lateral_fraction"] > 0.6 and f["length_mm"] < 45.0:
        if f["roundness"] > 0.72 and f["thickness_mm"] > 6.0:
            return (
                "perineural cyst", 0.2,
                f"Round structure of {f['thickness_mm']:.0f} mm lateral to the sac, on a root.",
            )  # fmt: skip
        return (
            "nerve root sleeve", 0.1,
            f"Lateral outpouching of {f['volume_ml']:.1f} mL at a nerve root exit.",
        )  # fmt: skip
    if f["ventral_fraction"] > 0.5 and f["thickness_mm"] < 4.0:
        return "epidural vein", 0.1, "Thin bright signal ventral to the sac, not a layer of fluid."
    return "epidural fat", 0.2, "Shape and signal are not those of a layer of fluid along the dura."


def _considered(f: dict[str, float]) -> list[str]:
    names = []
    if f["lateral_fraction"] > 0.4:
        names += ["nerve root sleeve", "perineural cyst"]
    if f["dorsal_fraction"] > 0.4:
        names += ["epidural fat", "facet effusion or synovial cyst"]
    if f["ventral_fraction"] > 0.4:
        names.append("epidural vein")
    return names


def _grouped(
    components: list[_Component], settings: SegmentationSettings
) -> list[list[_Component]]:
    """Group components into collections: close along the canal and on the same side."""
    groups: list[list[_Component]] = []
    for component in sorted(components, key=lambda component: -component.features["volume_ml"]):
        for group in groups:
            if any(_belong(component.features, other.features, settings) for other in group):
                group.append(component)
                break
        else:
            groups.append([component])
    return groups


def _belong(a: dict[str, float], b: dict[str, float], settings: SegmentationSettings) -> bool:
    gap = max(a["arc_start_mm"], b["arc_start_mm"]) - min(a["arc_stop_mm"], b["arc_stop_mm"])
    if gap > settings.collection_gap_mm:
        return False
    around = a["sectors"] >= 6 or b["sectors"] >= 6
    angles = [np.arctan2(f["dorsal_mm"], f["left_mm"]) for f in (a, b)]
    apart = abs((angles[0] - angles[1] + np.pi) % (2 * np.pi) - np.pi)
    return bool(around or apart < np.pi / 2)


def _merge_components(components: list[_Component], scene: Scene) -> _Component:
    if len(components) == 1:
        return components[0]
    voxels = tuple(np.concatenate([p.voxels[axis] for p in components]) for axis in range(3))
    return _Component(voxels, _features(voxels, scene, scene.fraction), True)


def _candidate(number: int, component: _Component, decision: _Decision, scene: Scene) -> Candidate:
    fraction = scene.fraction.array[component.voxels].astype(np.float64)
    center = np.average(np.stack(component.voxels, axis=1), axis=0, weights=fraction)
    return Candidate(
        id=number,
        accepted=decision.accepted,
        probability=decision.probability,
        volume_ml=component.features["volume_ml"],
        center_lps=scene.fraction.geometry.lps_from_kji(center),
        reason=decision.reason,
        mimics=decision.mimics,
        compartments=_compartments(component.voxels, fraction, scene),
        features=dict(component.features),
    )


def _compartments(
    voxels: tuple[npt.NDArray[np.intp], ...], fraction: FloatArray, scene: Scene
) -> tuple[Compartment, ...]:
    """Return the compartments with 0.2 mL or half of the volume, whichever is less."""
    left = np.abs(scene.coordinates.left[voxels])
    dorsal = scene.coordinates.dorsal[voxels]
    outside = scene.outside_mm[voxels]
    subcutaneous = dorsal > 50.0
    epidural = (outside <= 9.0) & (left < 14.0) & ~subcutaneous
    foraminal = ~epidural & ~subcutaneous & (left >= 12.0) & (left < 30.0) & (np.abs(dorsal) < 14)
    places: dict[Compartment, Mask] = {
        "epidural": epidural,
        "foraminal": foraminal,
        "paraspinal": ~epidural & ~foraminal & ~subcutaneous,
        "subcutaneous": subcutaneous,
    }
    unit = scene.fraction.geometry.voxel_volume_ml
    total = float(fraction.sum()) * unit
    return tuple(
        name
        for name, where in places.items()
        if float(fraction[where].sum()) * unit >= min(0.2, 0.5 * total)
    )
