"""Levels of the spine: mean adult sizes, lumbosacral transition, positions along the canal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from leakloc.anatomy.vocabulary import vertebra_chain
from leakloc.validation.phantom.scenario import LumbosacralShape

HEAD_MARGIN_MM: Final = 90.0
"""Length above the C2-C3 disc that is modeled (C2, C1, foramen magnum)."""


@dataclass(frozen=True)
class LevelRow:
    """Mean adult sizes at one vertebra and the disc below it, in mm and mm²."""

    name: str
    pitch: float
    body_width: float
    body_depth: float
    disc_height: float
    canal_ap: float
    canal_tr: float
    sac_ap: float
    sac_tr: float
    sac_area: float
    cord_area: float
    dorsal_fat: float


_ROWS: Final = tuple(
    LevelRow(*row)
    for row in (
        ("C2", 21.0, 18, 15, 4.1, 18, 24, 12, 17, 165, 68, 0.8),
        ("C3", 17.5, 17, 15.5, 4.5, 15, 23, 11.5, 16, 145, 72, 0.8),
        ("C4", 17.1, 18, 15.5, 5.0, 14.5, 24, 11.2, 16, 138, 76, 0.8),
        ("C5", 16.3, 18.5, 16, 5.0, 14.5, 25, 11.2, 16, 134, 78, 0.8),
        ("C6", 16.8, 20, 17, 5.0, 14.5, 25.5, 11.3, 16, 135, 74, 0.8),
        ("C7", 18.7, 23, 18, 4.5, 15, 24.5, 11.8, 15.5, 140, 62, 0.8),
        ("T1", 20.2, 26, 18, 4.0, 15.5, 21, 12, 14, 135, 52, 3.0),
        ("T2", 22.1, 26, 19.5, 3.6, 15, 18.5, 12, 13.5, 130, 48, 5.0),
        ("T3", 22.5, 26, 21.5, 3.5, 15, 17.5, 12, 13.3, 125, 46, 5.0),
        ("T4", 22.9, 26, 23, 3.5, 15, 17, 12, 13, 123, 45, 5.0),
        ("T5", 23.4, 26.5, 24.5, 3.8, 15, 17, 12.2, 13, 125, 44, 4.5),
        ("T6", 24.1, 28, 26, 4.0, 15, 17.2, 12.2, 13.2, 127, 44, 4.5),
        ("T7", 24.8, 29.5, 27.5, 4.3, 15, 17.2, 12.3, 13.4, 130, 44, 4.5),
        ("T8", 25.5, 31, 28.5, 4.6, 15, 17.5, 12.5, 13.6, 133, 45, 4.5),
        ("T9", 26.4, 32.5, 29.5, 5.0, 15, 17.8, 12.8, 14, 140, 46, 4.2),
        ("T10", 29.0, 34, 30.5, 5.4, 15.5, 18.3, 13.3, 14.8, 155, 50, 4.2),
        ("T11", 31.5, 37, 31.5, 6.2, 16, 20, 14, 16, 175, 58, 4.1),
        ("T12", 31.5, 40, 32, 7.0, 17, 22, 14.8, 17, 195, 60, 4.0),
        ("L1", 33.5, 42, 33, 8.7, 16.8, 23, 15, 17.5, 200, 52, 4.5),
        ("L2", 35.5, 43.5, 34, 9.8, 16.3, 23.5, 14.5, 17.5, 190, 42, 5.0),
        ("L3", 36.0, 45, 34.5, 11.0, 15.8, 24, 13.8, 17.3, 175, 40, 6.0),
        ("L4", 35.5, 47, 35, 12.0, 16, 25, 13.3, 17, 165, 40, 6.7),
        ("L5", 32.5, 49, 35.7, 11.5, 15.6, 28.2, 11.5, 15, 130, 40, 5.0),
        ("S1", 30.0, 50, 31, 3.0, 14, 30, 9.5, 12, 85, 40, 5.0),
        ("S2", 25.0, 40, 22, 2.0, 11, 24, 7.5, 9, 52, 40, 3.5),
        ("S3", 20.0, 32, 16, 1.5, 8, 19, 6, 7, 33, 40, 2.5),
        ("S4", 17.0, 26, 12, 1.5, 6, 15, 5, 6, 24, 40, 2.0),
        ("S5", 15.0, 20, 9, 1.5, 5.5, 12, 4, 5, 16, 40, 1.5),
    )
)
"""Mean adult sizes; `pitch` is the canal length from the disc above to the disc below.

C3 to T9 are independent of the reference of the numbering (`leakloc.anatomy.reference`, measured on
the PAM50 template): sums of body and disc heights. Bodies: 12.0 mm at C3, 10.7 mm at C5 (164
vertebrae; "Anthropometry of bodies of C3-C6 cervical vertebrae in Northwest Indian population"),
posteriorly 17.6 mm at T2, 20.5 mm at T9 (26 skeletons; Egwu et al., J Anat Soc India 2019;68:110).
Discs: 5.3 to 5.8 mm in the neck (42 adults; Lee et al., "Height and depth of the cervical disc
space in normal Korean adults"), 4.5 mm in the upper to 7.2 mm in the lower thoracic spine (30
donors; Kunkel et al., J Anat 2011;219:375). Levels between are interpolated."""

_UPPER_LEVELS: Final = 15
"""Number of vertebrae from C2 to T9, with the variation below."""
_NECK_LEVELS: Final = 7
"""Number of vertebrae from C2 to T1, which vary together."""
_NECK_SD: Final = 0.072
"""Standard deviation of the length of the neck for a given stature; it decreases to zero at T10.
The length of the upper cord varies by 9.1 % (144.0 mm, SD 13.1 mm, 46 adults; Papinutto et al., J
Neuroimaging 2024;34:639), body size in phantoms by 5.5 %."""
_UPPER_LEVEL_SCALE: Final = 1.7
"""Ratio of the individual variation of these levels, 6 %, to that of lower ones. It displaces discs
by 1 % of the length of the neck; Papinutto et al. report 0.8 to 1.7 %, including errors of
measurement."""

_BRIDGE_FRACTION: Final = (0.25, 0.5)
"""Range of the anteroposterior disc fraction of a sacralized vertebra bridged by bone."""


@dataclass(frozen=True)
class LevelSite:
    """Position of one vertebra and the disc below it along the canal."""

    name: str
    row: LevelRow
    top_mm: float
    """Arc position of the disc above (for C2: of its cranial end)."""
    bottom_mm: float
    """Arc position of the disc below."""
    disc_kind: str
    """``"healthy"``, ``"intermediate"``, ``"desiccated"``, ``"rudimentary"`` or ``"none"``."""
    bridged: float = 0.0
    """Fraction of the depth of that disc bridged by bone, from the rim inward."""

    @property
    def pitch_mm(self) -> float:
        """Length of the level along the canal."""
        return self.bottom_mm - self.top_mm

    @property
    def middle_mm(self) -> float:
        """Arc position of the middle of the vertebral body."""
        return 0.5 * (self.top_mm + self.bottom_mm)

    def at(self, fraction: float) -> float:
        """Return the arc position at a fraction of the level, 0 at its upper disc."""
        return self.top_mm + fraction * self.pitch_mm


def lumbar_rows(count: int) -> tuple[LevelRow, ...]:
    """Return the size rows of a spine with `count` lumbar vertebrae, C2 to S5.

    If not five, sizes are interpolated so that the first and last lumbar vertebrae have the
    sizes of L1 and L5.
    """
    by_name = {row.name: row for row in _ROWS}
    five = [by_name[f"L{n}"] for n in range(1, 6)]
    rows = []
    for name in vertebra_chain(count)[1:]:
        if not name.startswith("L"):
            rows.append(by_name[name])
            continue
        where = (int(name[1:]) - 1) / (count - 1) * 4
        low = min(int(where), 3)
        rows.append(replace(_blended(five[low], five[low + 1], where - low), name=name))
    return tuple(rows)


def transitional_rows(
    rows: tuple[LevelRow, ...], shape: LumbosacralShape, degree: float
) -> tuple[LevelRow, ...]:
    """Return rows with a lumbosacral transition, blended toward neighboring vertebrae.

    Parameters
    ----------
    rows : tuple of LevelRow
        C2 to S5.
    shape : str
    degree : float
        At 0 rows are unchanged; at 1 a sacralized L5 has the sizes of S1, a lumbarized S1 those
        of L5. The adjacent vertebrae change by half of the degree.
    """
    if shape == "regular":
        return rows
    s1 = next(n for n, row in enumerate(rows) if row.name == "S1")
    changed = s1 - 1 if shape == "sacralised" else s1
    step = 1 if shape == "sacralised" else -1
    drawn = list(rows)
    for n, weight in ((changed - 1, 0.5 * degree), (changed, degree), (changed + 1, 0.5 * degree)):
        drawn[n] = _blended(rows[n], rows[n + step], weight)
    if shape == "sacralised":  # the remaining disc is thin even at a low degree
        rest = rows[s1].disc_height + 0.4 * (1 - degree) * rows[changed].disc_height
        drawn[changed] = replace(drawn[changed], disc_height=rest)
        drawn[s1] = replace(drawn[s1], disc_height=rows[s1].disc_height)
    else:
        drawn[s1 + 1] = replace(drawn[s1 + 1], disc_height=rows[s1 + 1].disc_height)
    return tuple(drawn)


def _blended(row: LevelRow, other: LevelRow, weight: float) -> LevelRow:
    sizes = [
        (1 - weight) * getattr(row, key) + weight * getattr(other, key)
        for key in LevelRow.__dataclass_fields__
        if key != "name"
    ]
    return LevelRow(row.name, *sizes)


def draw_sites(
    rows: tuple[LevelRow, ...],
    stature: float,
    shape: LumbosacralShape,
    rng: np.random.Generator,
    neck_rng: np.random.Generator,
) -> tuple[LevelSite, ...]:
    """Draw length, sizes and disc degeneration of each level.

    Parameters
    ----------
    rows : tuple of LevelRow
        C2 to S5.
    stature : float
    shape : str
    rng : numpy.random.Generator
    neck_rng : numpy.random.Generator
        Of the length of the neck; separate, so that other draws of a seed do not change.
    """
    neck = float(np.clip(neck_rng.normal(0.0, _NECK_SD), -2 * _NECK_SD, 2 * _NECK_SD))
    decrease = np.interp(np.arange(len(rows)), [_NECK_LEVELS - 1, _UPPER_LEVELS], [1.0, 0.0])
    sites: list[LevelSite] = []
    wear = rng.beta(1.6, 2.2)  # disc degeneration of the subject
    top = HEAD_MARGIN_MM - rows[0].pitch * stature
    last_lumbar = next(a.name for a, b in pairwise(rows) if b.name == "S1")
    for n, row in enumerate(rows):
        deviation = float(np.clip(rng.normal(1.0, 0.035), 0.9, 1.1)) - 1.0
        scale = _UPPER_LEVEL_SCALE if 0 < n < _UPPER_LEVELS else 1.0
        pitch = row.pitch * stature * (1 + scale * deviation) * (1 + neck * float(decrease[n]))
        fusing = row.name == last_lumbar and shape == "sacralised"
        mobile = row.name == "S1" and shape == "lumbarised"
        if fusing or (row.name.startswith("S") and not mobile):
            kind = "none" if row.name == "S5" else "rudimentary"
        else:
            # The two lowest discs degenerate first.
            chance = wear + 0.25 * row.name.startswith("L") * (row.name[1:] in ("4", "5", "6"))
            draw = rng.random()
            kind = (
                "desiccated" if draw < 0.5 * chance
                else "intermediate" if draw < chance else "healthy"
            )  # fmt: skip
        lost = {"desiccated": 0.72, "intermediate": 0.9}.get(kind, 1.0)
        height = row.disc_height * stature * lost * float(np.clip(rng.normal(1, 0.12), 0.7, 1.3))
        body = stature * float(np.clip(rng.normal(1.0, 0.03), 0.92, 1.08))
        drawn = replace(
            row,
            disc_height=min(height, 0.42 * pitch),
            body_width=row.body_width * body,
            body_depth=row.body_depth * body,
        )
        bridged = float(rng.uniform(*_BRIDGE_FRACTION)) if fusing else 0.0
        sites.append(LevelSite(row.name, drawn, top, top + pitch, kind, bridged))
        top += pitch
    return tuple(sites)
