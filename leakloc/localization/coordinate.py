"""The level coordinate: mapping of positions along the canal to vertebral levels.

The coordinate increases caudally: it is an integer at the middle of each vertebral body and
a half-integer at each disc center, and linear in between. The motion segment L4-L5 extends
from the middle of the L4 body to the middle of the L5 body.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import CERVICAL, SACRAL, segment_name, split_segment, vertebra_chain
from leakloc.core.volume import FloatArray
from leakloc.levels.result import Levels

NOT_NAMED = "outside the named levels"
"""Description of a position outside the labeled range."""

_ROUNDING = 1e-9
"""Tolerance for rounding errors at the ends of the labeled range, in levels."""

_MIN_GAP_MM = 2.0
"""Minimum distance of two landmarks along the canal; closer ones are duplicates or out of order."""


@dataclass(frozen=True, eq=False)
class LevelCoordinate:
    """Continuous, strictly increasing mapping between distance along the canal and level.

    Parameters
    ----------
    chain : tuple of str
        Names of the vertebrae, cranial to caudal; level n is the middle of ``chain[n]``.
    knots_arc_mm, knots_level : ndarray, shape (n,)
        Positions of known level: bodies at integers, discs at half-integers. Both strictly
        increasing; with fewer than two knots no level is named.
    """

    chain: tuple[str, ...]
    knots_arc_mm: FloatArray
    knots_level: FloatArray

    def __post_init__(self) -> None:
        arc = np.asarray(self.knots_arc_mm, dtype=np.float64)
        level = np.asarray(self.knots_level, dtype=np.float64)
        if arc.ndim != 1 or arc.shape != level.shape:
            raise ValueError(f"knots must be 1-D of equal shape, not {arc.shape} and {level.shape}")
        if (np.diff(arc) <= 0).any() or (np.diff(level) <= 0).any():
            raise ValueError("knots must be strictly increasing in distance and level")
        object.__setattr__(self, "knots_arc_mm", arc)
        object.__setattr__(self, "knots_level", level)

    @classmethod
    def from_levels(cls, levels: Levels, centerline: Centerline) -> LevelCoordinate:
        """Project discs onto the canal, and bodies that are not between two discs.

        Each center is projected to the centerline point whose perpendicular plane contains it,
        so lordosis does not shift a disc relative to the adjacent canal. The level of a body is
        halfway between its discs along the canal; in lordosis, its center projects up to 3 mm
        cranial of that. Landmarks out of order are dropped in favor of those of higher confidence.
        """
        chain = _chain(levels)
        landmarks: list[tuple[float, FloatArray, float]] = []
        if levels.status != "unlabelled":
            for disc in levels.discs:
                upper, lower = split_segment(disc.name)
                if upper in chain and lower in chain:
                    level = 0.5 * (chain.index(upper) + chain.index(lower))
                    landmarks.append((level, disc.center_lps, disc.confidence))
            between = {level for level, _, _ in landmarks}
            for body in levels.vertebrae:
                if body.name in chain:
                    level = float(chain.index(body.name))
                    if not {level - 0.5, level + 0.5} <= between:
                        landmarks.append((level, body.center_lps, body.confidence))
        if len(landmarks) < 2:
            return cls(chain, np.empty(0), np.empty(0))
        landmarks.sort(key=lambda landmark: landmark[0])
        named = np.array([landmark[0] for landmark in landmarks])
        arc, _, _ = centerline.project(np.array([landmark[1] for landmark in landmarks]))
        keep = _increasing(arc, np.array([landmark[2] for landmark in landmarks]))
        if len(keep) < 2:
            return cls(chain, np.empty(0), np.empty(0))
        return cls(chain, arc[keep], named[keep])

    @property
    def is_labeled(self) -> bool:
        """Whether any level can be named."""
        return len(self.knots_arc_mm) >= 2

    @property
    def level_range(self) -> tuple[float, float]:
        """First and last labeled level, including the complete segments of the end knots."""
        first = max(np.ceil(self.knots_level[0]) - 1, 0.0)
        last = min(np.floor(self.knots_level[-1]) + 1, len(self.chain) - 1.0)
        return float(first), float(last)

    def level_at(self, arc_mm: npt.ArrayLike) -> FloatArray:
        """Return levels at distances along the canal, shape (...); NaN outside the range."""
        arc = np.asarray(arc_mm, dtype=np.float64)
        if not self.is_labeled:
            return np.full(arc.shape, np.nan)
        level = self._interpolate(arc, self.knots_arc_mm, self.knots_level)
        first, last = self.level_range
        named = (level >= first - _ROUNDING) & (level <= last + _ROUNDING)
        return np.where(named, np.clip(level, first, last), np.nan)

    def arc_at(self, level: npt.ArrayLike) -> FloatArray:
        """Return distances along the canal of levels, mm, shape (...); NaN outside the range."""
        wanted = np.asarray(level, dtype=np.float64)
        if not self.is_labeled:
            return np.full(wanted.shape, np.nan)
        arc = self._interpolate(wanted, self.knots_level, self.knots_arc_mm)
        first, last = self.level_range
        named = (wanted >= first - _ROUNDING) & (wanted <= last + _ROUNDING)
        return np.where(named, arc, np.nan)

    def _interpolate(self, x: FloatArray, knots_x: FloatArray, knots_y: FloatArray) -> FloatArray:
        """Interpolate linearly; extrapolate with the mean slope of the first or last level."""
        level = self.knots_level
        head = int(np.searchsorted(level[1:-1], level[0] + 1.0)) + 1
        tail = int(np.searchsorted(level[1:-1], level[-1] - 1.0, side="right"))
        before = (knots_y[head] - knots_y[0]) / (knots_x[head] - knots_x[0])
        beyond = (knots_y[-1] - knots_y[tail]) / (knots_x[-1] - knots_x[tail])
        return np.asarray(
            np.interp(x, knots_x, knots_y)
            + np.minimum(x - knots_x[0], 0.0) * before
            + np.maximum(x - knots_x[-1], 0.0) * beyond
        )

    def body_arc(self, vertebra: str) -> float | None:
        """Return the position of a vertebral body, mm; None outside the labeled range."""
        if vertebra not in self.chain:
            return None
        return _known(self.arc_at(self.chain.index(vertebra)))

    def disc_arc(self, segment: str) -> float | None:
        """Return the position of the disc of a segment, mm; None outside the labeled range."""
        upper, _ = split_segment(segment)
        if upper not in self.chain:
            return None
        return _known(self.arc_at(self.chain.index(upper) + 0.5))

    def segment_at(self, arc_mm: float) -> str | None:
        """Return the motion segment at a position, or None outside the labeled range."""
        level = _known(self.level_at(arc_mm))
        if level is None:
            return None
        upper = min(int(np.floor(level)), len(self.chain) - 2)
        return segment_name(self.chain[upper], self.chain[upper + 1])

    def nearest_segment(self, arc_mm: float) -> str | None:
        """Return the named motion segment nearest to a position; None if no level is named."""
        named = self.segments()
        if not named:
            return None
        return min(named, key=lambda part: max(part[1] - arc_mm, arc_mm - part[2], 0.0))[0]

    def segments_between(self, start_mm: float, stop_mm: float) -> tuple[str, ...]:
        """Return motion segments that overlap a section of the canal, cranial to caudal."""
        return tuple(
            name
            for name, first, last in self.segments()
            if min(stop_mm, last) > max(start_mm, first)
        )

    def segments(self) -> tuple[tuple[str, float, float], ...]:
        """Return each named motion segment with its start and end, mm along the canal."""
        if not self.is_labeled:
            return ()
        first, last = (int(level) for level in self.level_range)
        ends = self.arc_at(np.arange(first, last + 1))
        return tuple(
            (segment_name(self.chain[n], self.chain[n + 1]), float(a), float(b))
            for n, a, b in zip(range(first, last), ends[:-1], ends[1:], strict=True)
        )

    def body_at(self, arc_mm: float) -> str | None:
        """Return the vertebra at a position; its range is from disc center to disc center."""
        level = _known(self.level_at(arc_mm))
        return None if level is None else self.chain[int(np.floor(level + 0.5))]

    def root_at(self, arc_mm: float) -> str | None:
        """Return the nerve root that exits at a position; None outside the labeled range.

        Thoracic, lumbar and sacral roots exit caudal to the pedicles of their vertebra, cervical
        roots at the disc cranial to it; C8 exits at C7-T1.
        """
        segment = self.segment_at(arc_mm)
        if segment is None:
            return None
        upper, _ = split_segment(segment)
        if upper in CERVICAL:
            return f"C{CERVICAL.index(upper) + 2}"
        return self.body_at(arc_mm)

    def body_part_at(self, arc_mm: float) -> str | None:
        """Return the third of a vertebral level, such as ``"upper S1"``."""
        level = _known(self.level_at(arc_mm))
        if level is None:
            return None
        nearest = int(np.floor(level + 0.5))
        offset = level - nearest
        third = "upper" if offset < -1 / 6 else "lower" if offset > 1 / 6 else "mid"
        return f"{third} {self.chain[nearest]}"

    def describe(self, arc_mm: float) -> str:
        """Describe a position, such as ``"L4-L5, 6 mm below the disc center"``."""
        segment = self.segment_at(arc_mm)
        if segment is None:
            return NOT_NAMED
        disc_mm = self.disc_arc(segment)
        if disc_mm is None:
            return segment
        landmark = "junction" if split_segment(segment)[0] in SACRAL else "disc center"
        below = round(arc_mm - disc_mm)
        if below == 0:
            return f"{segment}, at the {landmark}"
        side = "below" if below > 0 else "above"
        return f"{segment}, {abs(below)} mm {side} the {landmark}"

    def shifted(self, segment: str, shift: int) -> str | None:
        """Return the name of a segment after shifting all names caudally by `shift` levels."""
        upper, _ = split_segment(segment)
        if upper not in self.chain:
            return None
        index = self.chain.index(upper) + shift
        if not 0 <= index < len(self.chain) - 1:
            return None
        return segment_name(self.chain[index], self.chain[index + 1])

    def nearest_interlaminar(self, arc_mm: float, lumbar_below_disc_mm: float) -> str | None:
        """Return the interlaminar window nearest to a position; none below L5-S1.

        Parameters
        ----------
        arc_mm : float
            Distance along the canal.
        lumbar_below_disc_mm : float
            Distance of the middle of a lumbar window below its disc center, along the canal.
        """
        best: tuple[float, str] | None = None
        for name, _, _ in self.segments():
            upper, _ = split_segment(name)
            disc_mm = self.disc_arc(name)
            if disc_mm is None or upper in SACRAL:
                continue
            window_mm = disc_mm + (lumbar_below_disc_mm if upper.startswith("L") else 0.0)
            gap = abs(window_mm - arc_mm)
            if best is None or gap < best[0]:
                best = gap, name
        return None if best is None else best[1]


def _known(value: npt.ArrayLike) -> float | None:
    number = float(np.asarray(value))
    return None if np.isnan(number) else number


def _chain(levels: Levels) -> tuple[str, ...]:
    """Return all vertebrae of the patient; counts are taken from the names if these suffice."""
    names = [body.name for body in levels.vertebrae]
    followers = dict(pairwise(names))
    lumbar = _last_before(followers, "L", "S1") or levels.numbering.lumbar_count
    thoracic = 13 if "T13" in names else _last_before(followers, "T", "L1") or 12
    return vertebra_chain(min(max(lumbar, 4), 6), min(max(thoracic, 11), 13))


def _last_before(followers: dict[str, str], region: str, first: str) -> int | None:
    for upper, lower in followers.items():
        if lower == first and upper.startswith(region):
            return int(upper[1:])
    return None


def _increasing(arc: FloatArray, trust: Sequence[float] | FloatArray) -> list[int]:
    """Return indices of the strictly increasing landmarks with the highest total confidence."""
    best = [float(t) for t in trust]
    previous: list[int | None] = [None] * len(arc)
    for n in range(len(arc)):
        for m in _reachable(arc, n):
            # A small increment per landmark retains those of zero confidence.
            if best[m] + float(trust[n]) + 1e-3 > best[n]:
                best[n] = best[m] + float(trust[n]) + 1e-3
                previous[n] = m
    at: int | None = int(np.argmax(best))
    kept = []
    while at is not None:
        kept.append(at)
        at = previous[at]
    return kept[::-1]


def _reachable(arc: FloatArray, n: int) -> Iterable[int]:
    return (m for m in range(n) if arc[n] - arc[m] >= _MIN_GAP_MM)
