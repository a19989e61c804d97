"""Morphologic signs of a lumbosacral transitional vertebra.

A sacralized last lumbar or lumbarized first sacral vertebra has features of both (Castellvi et al.,
Spine 1984; O'Driscoll et al., Skeletal Radiol 1996; review by Konin and Walz, AJNR 2010). Counting
up from the last disc is then often off by one, so signs are reported and lower the confidence;
they do not change names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.levels.detection import DetectedDisc, Detections

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.levels.numbering import Assignment, Candidate

_ALONG_MM: Final = (8.0, 18.0)
"""Range beyond a disc center in which bone is sampled: the middle of a vertebra. Nearer to the end
plates and farther out, adjacent bone of a steep sacrum would be included."""
_ACROSS_MM: Final = (10.0, 8.0)
"""Anteroposterior and lateral half size of the sampled region: inside the body."""
_STEPS_MM: Final = (2.0, 4.0)
"""Sampling steps within the sagittal plane, and laterally, where planes are 3 mm apart."""
_MIN_BONE: Final = 0.05
"""Minimum mean probability of bone."""
_MIN_SCORE: Final = 0.6
"""Minimum score of discs used for the patient's reference depth."""


def sacral_fraction(found: Detections, disc: DetectedDisc, side: float) -> float:
    """Fraction of sacrum in the bone of the vertebra above or below a disc.

    Parameters
    ----------
    found : Detections
    disc : DetectedDisc
    side : float
        1 for above, -1 for below.

    Returns
    -------
    float
        0 for a lumbar vertebra, 1 for the sacrum; NaN if there is too little bone.
    """
    if found.bodies is None or found.sacrum is None:
        return float("nan")
    normal = disc.normal_lps / np.linalg.norm(disc.normal_lps)
    left = np.array([1.0, 0.0, 0.0])
    dorsal = np.cross(left, normal)
    dorsal = dorsal / np.linalg.norm(dorsal)
    fine, coarse = _STEPS_MM
    depth, width = _ACROSS_MM
    along, back, lateral = np.meshgrid(
        side * np.arange(_ALONG_MM[0], _ALONG_MM[1] + fine / 2, fine),
        np.arange(-depth, depth + fine / 2, fine),
        np.arange(-width, width + coarse / 2, coarse),
        indexing="ij",
    )
    points = (
        disc.center_lps
        + along[..., None] * normal
        + back[..., None] * dorsal
        + lateral[..., None] * left
    )
    lumbar = float(found.bodies.sample(points).mean())
    sacral = float(found.sacrum.sample(points).mean())
    return sacral / (lumbar + sacral) if lumbar + sacral > _MIN_BONE else float("nan")


def transitional_signs(
    candidates: Sequence[Candidate], assignment: Assignment, settings: LevelSettings
) -> tuple[str, ...]:
    """Signs of a transitional vertebra, each as a clause for the report.

    Parameters
    ----------
    candidates : sequence of Candidate
    assignment : Assignment
        Assigned disc names of the candidates.
    settings : LevelSettings
        Its `transitional_fraction`, `transitional_narrow` and `transitional_wide`.
    """
    chain = assignment.chain
    named = dict(zip(assignment.discs, assignment.candidates, strict=True))
    if chain.junction not in named:
        return ()
    last = candidates[named[chain.junction]]
    own = np.median(
        [c.depth_mm for c in candidates if c.score > _MIN_SCORE and c.depth_mm > 0] or [1]
    )
    above, below = (chain.vertebrae[chain.junction + n] for n in (0, 1))
    signs = []
    if last.sacral_fraction_above > settings.transitional_fraction:
        signs.append(f"{above} partly resembles the sacrum")
    if 1 - last.sacral_fraction_below > settings.transitional_fraction:
        signs.append(f"{below} partly resembles a lumbar vertebra")
    if last.depth_mm < settings.transitional_narrow * own:
        signs.append(f"the disc {chain.discs[chain.junction]} is narrow")
    if chain.junction + 1 in named:
        remnant = candidates[named[chain.junction + 1]]
        if remnant.score > _MIN_SCORE and remnant.depth_mm > settings.transitional_wide * own:
            signs.append("the disc S1-S2 is well formed")
    return tuple(signs)
