"""Classification of components outside the dura: epidural fluid, or a mimic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.segmentation.components import Component
from leakloc.segmentation.ellipsoid import ellipsoid_of
from leakloc.segmentation.result import Features
from leakloc.segmentation.scene import Scene

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

DIMMER: Final = 0.85
"""Signal relative to CSF below which bright tissue is classified as fat; fluid reaches 0.85 to
1.2."""

EDGE_MM: Final = 12.0
"""Fluid within this distance below the upper end of the canal is not assessed: the network lacks
the sections above it."""

MIN_BRIGHTNESS: Final = 0.5
"""Minimum signal relative to CSF of a reported collection; partially suppressed fat is below it.
The minimum of 133 collections of development patients and phantoms, including thin layers, was
0.56."""

FULL_SURROUNDING: Final = 0.2
"""Signal of the surrounding tissue, relative to that of a component, from which it counts fully as
evidence against fluid. It was up to 0.10 in 107 of 108 collections of development patients and
phantoms (0.21 in one), and 0.33 in the false positive one."""

_MAX_CONTACT_GAP_MM: Final = 3.0
"""Maximum distance from the dura of fluid that counts as connected with the canal."""

MAX_BRIGHT_TISSUE_PROBABILITY: Final = 0.75
"""Maximum probability of a collection where soft tissue is bright, because fat suppression is then
known only from the DICOM header."""


CYST: Final = "perineural cyst"
"""Name of a rejected candidate that is a round structure at a root."""

_CYST_LATERAL: Final = 0.8
"""Minimum lateral fraction of a fluid component that is a cyst or diverticulum of a root."""

_CYST_ML: Final = 1.5
"""Its maximum volume: a sphere of 14 mm."""

_CYST_ELONGATION: Final = 1.75
_CYST_FILLING: Final = 0.65
"""Its maximum length relative to its mean thickness, and the minimum fraction of the ellipsoid with
its moments that it fills. Four cysts and diverticula of 8 to 9 mm in development phantoms (seeds 47
to 54) that the dura network classified as epidural fluid had 1.2 to 1.65 and 0.68 to 0.90; fluid
along a root (seeds 42 to 50) had 1.9 to 3.2 and 0.54 to 0.70."""


@dataclass(frozen=True)
class Decision:
    """Whether a component is accepted as a collection, and why."""

    accepted: bool
    probability: float
    reason: str
    mimics: tuple[str, ...]


def classify_fluid(component: Component, scene: Scene, settings: SegmentationSettings) -> Decision:
    """Accept or reject a fluid component, with a probability and a reason."""
    f = component.features
    considered = tuple(_considered(f))
    if f.volume_ml < settings.collection_min_ml:
        return Decision(
            False, 0.2, f"Only {f.volume_ml:.2f} mL: below the reporting threshold.", considered
        )
    probability = probability_of(f)
    if _assessable_ml(component, scene) < settings.collection_min_ml:
        return Decision(
            False, 0.2, "Lies mainly at the upper edge of the field: not assessable.", considered
        )
    if f.brightness < MIN_BRIGHTNESS:
        return Decision(
            False,
            0.2,
            f"Only {f.brightness:.0%} as bright as CSF.",
            ("epidural fat", *considered),
        )
    if scene.fat_like_fluid:
        return Decision(
            False, min(probability, 0.3),
            "As bright as CSF, but so is fat in this series: without fat suppression the two "
            "cannot be distinguished.",
            ("epidural fat", *considered),
        )  # fmt: skip
    if is_cyst(component, scene):
        return Decision(
            False,
            0.2,
            f"Round structure of {f.volume_ml:.2f} mL lateral to the sac, at a nerve root.",
            (CYST, *(name for name in considered if name != CYST)),
        )
    if scene.tissue_bright:
        probability = min(probability, MAX_BRIGHT_TISSUE_PROBABILITY)
    accepted = probability >= settings.collection_min_probability
    place = "in contact with the dura" if f.gap_mm < 2.0 else "near the dura"
    reason = (
        f"{f.volume_ml:.1f} mL of CSF-like signal, up to {f.thickness_mm:.1f} mm thick, "
        f"over {f.length_mm:.0f} mm of the canal, {place}. "
        f"Surrounding tissue: {f.surrounding:.0%} of its signal."
    )
    return Decision(accepted, probability, reason, considered)


def is_cyst(component: Component, scene: Scene) -> bool:
    """Return whether a component lateral to the sac is a compact ellipsoid."""
    f = component.features
    if f.lateral_fraction < _CYST_LATERAL or f.volume_ml > _CYST_ML:
        return False
    geometry = scene.fraction.geometry
    voxels = np.stack(component.voxels, axis=1)
    _, axes_mm = ellipsoid_of(voxels, np.ones(len(voxels)), geometry.spacing_kji_mm)
    volume_mm3 = len(voxels) * geometry.voxel_volume_ml * 1000.0
    compact = volume_mm3 >= _CYST_FILLING * np.pi / 6 * axes_mm.prod()
    return bool(compact and axes_mm[2] <= _CYST_ELONGATION * axes_mm[:2].mean())


def _assessable_ml(component: Component, scene: Scene) -> float:
    """Return the volume below the upper `EDGE_MM` of the canal."""
    tangent, _, _ = scene.dura.centerline.frame_at(0.0)
    along_mm = float(scene.fraction.geometry.edges_along_mm(tangent).max())
    f = component.features
    arc_mm = scene.coordinates.arc[component.voxels] - 0.5 * along_mm  # upper end of a voxel
    fraction = scene.fraction.array[component.voxels].astype(np.float64)
    return f.volume_ml * float(fraction[arc_mm >= EDGE_MM].sum() / fraction.sum())


def probability_of(features: Features) -> float:
    """Return the calibrated probability that a component is an epidural fluid collection.

    Logistic function of `confidence_evidence`, fitted by `pipelines/fit_confidence.py`.
    """
    evidence = confidence_evidence(
        features.network, features.contact_fraction, features.volume_ml, features.surrounding
    )
    logit = float(evidence @ np.array(CONFIDENCE))
    return float(np.clip(1 / (1 + np.exp(-logit)), 0.02, 0.98))


def confidence_evidence(
    network: npt.ArrayLike,
    contact_fraction: npt.ArrayLike,
    volume_ml: npt.ArrayLike,
    surrounding: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Return the predictors weighted by `CONFIDENCE`, shape (..., 5).

    A constant 1, the log odds of the network's peak fraction, the contact with the sac (0 to 1;
    contact of a fifth of the component counts as full, because pseudomeningoceles have a neck),
    the logarithm of the volume in mL (small components separate from the sac are often cysts), and
    the signal of the surrounding tissue (0 to 1; a fifth of the component's signal counts as full,
    and the cube leaves little of the tenth that is found around fluid): fluid is delimited by dark
    tissue, bright fat continues beyond the component. Brightness is not a predictor: it rejects
    fat, but also fluid darker than CSF (in simulated studies a pseudomeningocele).
    """
    odds = np.clip(np.asarray(network, float), 0.02, 0.98)
    contact = np.clip(np.asarray(contact_fraction, float) / 0.2, 0.0, 1.0)
    bright = np.clip(np.asarray(surrounding, float) / FULL_SURROUNDING, 0.0, 1.0) ** 3
    columns = (np.ones_like(odds), np.log(odds / (1 - odds)), contact, np.log(volume_ml), bright)
    return np.stack(columns, axis=-1)


CONFIDENCE: Final = (-0.80, 1.25, 1.92, 0.51, -4.55)
"""Weights of `confidence_evidence`. The first four were fitted to 124 components, three of them
false positive, of development patients (seed 11; the networks were trained on these patients) and
of phantoms (seeds 30 to 32); the last to 109 components of the present networks, one of them false
positive, of the same patients and of phantoms (seeds 30, and 33 to 39 and 44 to 49 with metal)."""


@dataclass(frozen=True)
class MimicRule:
    """One row of `MIMIC_RULES`."""

    mimic: str
    probability: float
    """Remaining probability of a leak."""
    applies: Callable[[Features, Scene], bool]
    reason: str
    """Format string; ``f`` is the `Features` of the component."""


def _is_apart(f: Features) -> bool:
    return f.gap_mm > _MAX_CONTACT_GAP_MM


def _is_lateral(f: Features) -> bool:
    return f.lateral_fraction > 0.6 and f.length_mm < 45.0


MIMIC_RULES: Final = (
    MimicRule(
        "abdominal or disc fluid", 0.02,
        lambda f, _: f.dorsal_mm < -20.0 or (f.dorsal_mm < -8 and f.gap_mm > 6.0),
        "Anterior to the canal and not connected with it.",
    ),
    MimicRule(
        "epidural fat", 0.1, lambda _, scene: scene.fat_like_fluid,
        "As bright as fat in this series; not shaped like fluid.",
    ),
    MimicRule(
        "epidural fat", 0.1, lambda f, _: f.brightness < DIMMER,
        "Only {f.brightness:.0%} as bright as CSF.",
    ),
    MimicRule(
        "seroma apart from the canal", 0.15,
        lambda f, _: _is_apart(f) and f.dorsal_mm > 12.0 and abs(f.left_mm) < f.dorsal_mm,
        "Posterior to the spine, {f.gap_mm:.0f} mm from the dura, not connected.",
    ),
    MimicRule(
        "facet effusion or synovial cyst", 0.1,
        lambda f, _: (
            _is_apart(f) and f.dorsal_mm > -4.0 and f.reach_left_mm < 30.0 and f.volume_ml < 3.0
        ),
        "Small collection near the facet joints, {f.gap_mm:.0f} mm from the dura.",
    ),
    MimicRule(
        "fluid apart from the canal", 0.05, lambda f, _: _is_apart(f),
        "{f.gap_mm:.0f} mm from the dura.",
    ),
    MimicRule(
        "perineural cyst", 0.2,
        lambda f, _: _is_lateral(f) and f.roundness > 0.72 and f.thickness_mm > 6.0,
        "Round structure of {f.thickness_mm:.0f} mm lateral to the sac, on a root.",
    ),
    MimicRule(
        "nerve root sleeve", 0.1, lambda f, _: _is_lateral(f),
        "Lateral outpouching of {f.volume_ml:.1f} mL at a nerve root exit.",
    ),
    MimicRule(
        "epidural vein", 0.1, lambda f, _: f.ventral_fraction > 0.5 and f.thickness_mm < 4.0,
        "Thin bright signal ventral to the sac, not a layer of fluid.",
    ),
    MimicRule(
        "epidural fat", 0.2, lambda _, __: True,
        "Shape and signal are not those of a layer of fluid along the dura.",
    ),
)  # fmt: skip
"""Mimics in order of precedence: the first rule that applies names the component."""


def name_mimic(f: Features, scene: Scene) -> Decision:
    """Classify bright signal that the network does not classify as fluid, by location."""
    rule = next(rule for rule in MIMIC_RULES if rule.applies(f, scene))
    return Decision(False, rule.probability, rule.reason.format(f=f), (rule.mimic,))


def _considered(f: Features) -> list[str]:
    names = []
    if f.lateral_fraction > 0.4:
        names += ["nerve root sleeve", "perineural cyst"]
    if f.dorsal_fraction > 0.4 or f.surrounding >= FULL_SURROUNDING:
        names.append("epidural fat")
    if f.dorsal_fraction > 0.4:
        names.append("facet effusion or synovial cyst")
    if f.ventral_fraction > 0.4:
        names.append("epidural vein")
    return names
