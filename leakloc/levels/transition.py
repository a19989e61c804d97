"""Morphologic signs of a lumbosacral transitional vertebra.

A sacralized last lumbar or lumbarized first sacral vertebra has features of both (Castellvi et al.,
Spine 1984; O'Driscoll et al., Skeletal Radiol 1996; review by Konin and Walz, AJNR 2010). Counting
up from the last disc is then often off by one, so signs are reported and lower the confidence;
they do not change names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from leakloc.levels.candidates import Candidate
from leakloc.levels.numbering import Assignment

_MIN_FRACTION: Final = 0.04
"""Minimum fraction classified as sacrum in the vertebra above the lumbosacral disc, or as lumbar
vertebra below it, at which a transitional vertebra is suspected. Flags 29 of 33 phantoms of such a
shape and 1 of 26 patients of SPIDER."""
_NARROW: Final = 0.78
"""A lumbosacral disc below this fraction of the depth of the patient's other discs indicates a
sacralized vertebra above it."""
_WIDE: Final = 0.78
"""An S1-S2 disc above this fraction of that depth indicates a lumbarized S1."""
_MIN_SCORE: Final = 0.6
"""Minimum score of discs used for the patient's reference depth."""


def transitional_signs(candidates: Sequence[Candidate], assignment: Assignment) -> tuple[str, ...]:
    """Signs of a transitional vertebra, each as a clause for the report.

    Parameters
    ----------
    candidates : sequence of Candidate
    assignment : Assignment
        Assigned disc names of the candidates.
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
    if last.sacral_fraction_above > _MIN_FRACTION:
        signs.append(f"{above} partly resembles the sacrum")
    if 1 - last.sacral_fraction_below > _MIN_FRACTION:
        signs.append(f"{below} partly resembles a lumbar vertebra")
    if last.depth_mm < _NARROW * own:
        signs.append(f"the disc {chain.discs[chain.junction]} is narrow")
    if chain.junction + 1 in named:
        remnant = candidates[named[chain.junction + 1]]
        if remnant.score > _MIN_SCORE and remnant.depth_mm > _WIDE * own:
            signs.append("the disc S1-S2 is well formed")
    return tuple(signs)
