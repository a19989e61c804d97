"""Disc names: numbering by the user, by counting from C2, or by counting up from the sacrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.reference import reference_chain
from leakloc.anatomy.vocabulary import NumberingMethod
from leakloc.core.errors import SettingsError
from leakloc.core.volume import FloatArray
from leakloc.levels.candidates import MIN_DISCS, Candidate
from leakloc.levels.conus import Conus
from leakloc.levels.numbering import (
    Assignment,
    Solution,
    best_of,
    disc_at_conus,
    lumbar_count_probabilities,
    solve,
)
from leakloc.levels.result import Disc

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings


@dataclass(frozen=True)
class ChosenNumbering:
    """The selected numbering.

    Parameters
    ----------
    assignment : Assignment
    method : str
        ``"user"``, ``"c2_count"`` or ``"sacrum_up"``.
    count_probabilities : dict
        Probability of 4, 5 and 6 lumbar vertebrae.
    """

    assignment: Assignment
    method: NumberingMethod
    count_probabilities: dict[int, float]

    @property
    def is_anchored(self) -> bool:
        """Whether C2, the lumbosacral disc or the user determines the names."""
        assignment = self.assignment
        return assignment.has_junction or assignment.has_c2 or self.method == "user"


def choose_numbering(
    candidates: Sequence[Candidate], settings: LevelSettings, conus: Conus | None = None
) -> ChosenNumbering | None:
    """Select the numbering by the settings, else counted from C2, else from the sacrum.

    Parameters
    ----------
    candidates : sequence of Candidate
        Cranial to caudal.
    settings : LevelSettings
    conus : Conus or None

    Returns
    -------
    ChosenNumbering or None
        None if there are too few discs.

    Raises
    ------
    SettingsError
        If the user-supplied anchor is malformed or matches no disc.
    """
    if len(candidates) < MIN_DISCS:
        return None
    solutions = solve(candidates)
    counts = lumbar_count_probabilities(solutions, settings, conus)
    pinned = _disc_of_user(candidates, solutions, settings)
    if pinned is not None:
        possible = _possible_counts(pinned[1], settings)
        fixed = solve(candidates, lumbar_counts=possible, pinned=pinned)
        found = best_of(fixed, settings)
        if found is None:
            raise SettingsError(f"no numbering allows disc {pinned[1]!r} at the anchor")
        return ChosenNumbering(found, "user", counts)
    free = best_of(solutions, settings, conus)
    if free is None or len(free.candidates) < MIN_DISCS:
        return None
    if settings.lumbar_count is None and free.has_c2:
        counts = lumbar_count_probabilities(solutions, settings, conus, counted=True)
        return ChosenNumbering(free, "c2_count", counts)
    wanted = settings.lumbar_count or 5
    of_count = [s for s in solutions if s.chain.lumbar_count == wanted]
    usual = best_of(of_count, settings, conus)
    if usual is None:
        return None
    if conus is not None and conus.candidate in usual.candidates and not usual.has_c2:
        # Each solution is the best path without the conus; with it, another may be better.
        pin = conus.candidate, disc_at_conus(of_count, conus)
        at_conus = solve(candidates, lumbar_counts=(wanted,), pinned=pin)
        usual = best_of(at_conus, settings, conus, alternatives=of_count) or usual
    return ChosenNumbering(usual, "sacrum_up" if settings.lumbar_count is None else "user", counts)


def name_discs(candidates: Sequence[Candidate], assignment: Assignment) -> list[Disc]:
    """Return the named discs, with missed discs interpolated.

    Parameters
    ----------
    candidates : sequence of Candidate
    assignment : Assignment
        Assigned disc names of the candidates.
    """
    probability = assignment.shifted.get(0, 1.0)
    discs: list[Disc] = []
    names = assignment.chain.discs
    previous: tuple[int, Candidate] | None = None
    for m, n in zip(assignment.candidates, assignment.discs, strict=True):
        here = candidates[m]
        if previous is not None:
            last_n, last = previous
            for inner in range(last_n + 1, n):
                fraction = (inner - last_n) / (n - last_n)
                center = (1 - fraction) * last.center_lps + fraction * here.center_lps
                normal = (1 - fraction) * last.normal_lps + fraction * here.normal_lps
                normal = normal / np.linalg.norm(normal)
                discs.append(Disc(names[inner], center, normal, 0.3 * probability))
        discs.append(Disc(names[n], here.center_lps, here.normal_lps, here.score * probability))
        previous = (n, here)
    return discs


def parse_anchor(text: str) -> tuple[str, FloatArray]:
    """Parse the disc name and LPS point of an anchor such as ``"L4-L5@-3.5,12.0,-88.0"``.

    Raises
    ------
    SettingsError
        If the text is malformed.
    """
    name, separator, numbers = text.partition("@")
    try:
        point = np.array([float(part) for part in numbers.split(",")])
    except ValueError as error:
        raise SettingsError(f"anchor {text!r}: {numbers!r} are not three numbers") from error
    if not separator or point.shape != (3,) or not np.isfinite(point).all():
        raise SettingsError(f"anchor {text!r} must have the form 'L4-L5@x,y,z' (LPS, mm)")
    _check_disc_name(name)
    return name, point


def _disc_of_user(
    candidates: Sequence[Candidate], solutions: Sequence[Solution], settings: LevelSettings
) -> tuple[int, str] | None:
    """The candidate named by the user, by anchor or as the lowest disc."""
    if settings.anchor is not None:
        name, point = parse_anchor(settings.anchor)
        gaps = [float(np.linalg.norm(c.center_lps - point)) for c in candidates]
        nearest = int(np.argmin(gaps))
        if gaps[nearest] > settings.anchor_reach_mm:
            raise SettingsError(
                f"no disc was detected within {settings.anchor_reach_mm:g} mm of the anchor "
                f"{settings.anchor!r}; the nearest is {gaps[nearest]:.0f} mm away"
            )
        return nearest, name
    if settings.lowest_disc is not None:
        _check_disc_name(settings.lowest_disc)
        free = best_of([s for s in solutions if s.chain.lumbar_count == 5], settings)
        if free is None:
            return None
        well_formed = [
            m for m, n in zip(free.candidates, free.discs, strict=True) if n <= free.chain.junction
        ]
        return (well_formed[-1], settings.lowest_disc) if well_formed else None
    return None


def _possible_counts(name: str, settings: LevelSettings) -> tuple[int, ...]:
    """Numbers of lumbar vertebrae to consider if the user named one disc.

    From a disc above L1 they can be counted down to the sacrum; for a lumbar disc the usual five
    are assumed.
    """
    if "L6" in name:
        return (6,)
    if settings.lumbar_count is not None:
        return (settings.lumbar_count,)
    return (5,) if name.startswith(("L", "S")) else (4, 5, 6)


def _check_disc_name(name: str) -> None:
    """Raise `SettingsError` if the text is not the name of a disc."""
    known = {disc for count in (4, 5, 6) for disc in reference_chain(count).discs}
    if name not in known:
        raise SettingsError(f"{name!r} is not a disc name such as 'L4-L5'")
