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

_MIN_SACRAL_FRACTION: Final = 0.04
"""Minimum fraction classified as sacrum in the vertebra above the lumbosacral disc; at most 0.01 in
25 of 26 patients of SPIDER and in ordinary phantoms."""
_MIN_LUMBAR_FRACTION: Final = 0.1
"""Minimum fraction classified as lumbar vertebra in the one below it; at most 0.02 in the patients,
0.05 in ordinary phantoms, and 0.15 or more in most lumbarized S1 on a T2-weighted series."""
_NARROW: Final = 0.78
"""A lumbosacral disc below this fraction of the depth of the patient's other discs indicates a
sacralized vertebra above it."""
_SMALL: Final = 0.47
"""The same for the product of depth and height relative to the other discs (midsagittal area).
Height alone is not a sign: degenerated discs are flat but wide (0.5 or more in the patients)."""
_MIN_SCORE: Final = 0.6
"""Minimum score of discs used for the patient's reference depth, and of a well-formed disc S1-S2;
none was detected in the patients of SPIDER and in ordinary phantoms."""
_NEIGHBORS: Final = 4
"""Number of discs above the lumbosacral one whose heights are the reference: those of the lumbar
spine."""


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
    own_mm = _median([c.depth_mm for c in candidates if c.score > _MIN_SCORE])
    lumbar = [named[n] for n in range(chain.junction - _NEIGHBORS, chain.junction) if n in named]
    depth = last.depth_mm / own_mm
    height = last.height_mm / _median([candidates[m].height_mm for m in lumbar])
    above, below = (chain.vertebrae[chain.junction + n] for n in (0, 1))
    signs = []
    if last.sacral_fraction_above > _MIN_SACRAL_FRACTION:
        signs.append(f"{above} partly resembles the sacrum")
    if 1 - last.sacral_fraction_below > _MIN_LUMBAR_FRACTION:
        signs.append(f"{below} partly resembles a lumbar vertebra")
    if depth < _NARROW:
        signs.append(f"the disc {chain.discs[chain.junction]} is narrow")
    elif depth * height < _SMALL:
        signs.append(f"the disc {chain.discs[chain.junction]} is small")
    if chain.junction + 1 in named:
        # The network does not detect the remnants of ordinary sacral discs.
        remnant = candidates[named[chain.junction + 1]]
        if remnant.score > _MIN_SCORE:
            signs.append("the disc S1-S2 is well formed")
    return tuple(signs)


def _median(sizes_mm: Sequence[float]) -> float:
    """Median of the known sizes; NaN if none is known."""
    known = [mm for mm in sizes_mm if mm > 0]
    return float(np.median(known)) if known else float("nan")
