"""Caudal access sheet: one page with the sacral hiatus and the path from it.

The content depends on the report only. It is a section of the HTML report that prints on one page,
and the file ``caudal_access.pdf``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from leakloc.anatomy.vocabulary import NOTICE
from leakloc.report.canvas import TEXT_PX, TITLE_PX, Color, Drawing, Line, TextLine, font, wrap

if TYPE_CHECKING:
    from leakloc.localization.result import (
        BrightStructure,
        CystOnPath,
        DiscDistance,
        LengthMark,
        PathStretch,
    )
    from leakloc.report.model import Report

NAME: Final = "caudal_access.pdf"

MAX_MARKS: Final = 40
"""Maximum number of length marks on the sheet: 400 mm, from the hiatus to the middle of the
thoracic spine."""

MAX_DISCS: Final = 12
"""Maximum number of discs on the sheet, from the lumbosacral disc upward."""

_MAX_STRUCTURES: Final = 4
"""Maximum number of other bright structures on the sheet, from the hiatus upward."""

LENGTHS: Final = (
    "Measurements on images only. Lengths do not include the distance from the skin to the hiatus."
)

_HIATUS: Final = (
    ("Height (apex to end of S5)", "hiatus_height_mm", "mm"),
    ("Width of the canal at the apex", "hiatus_width_mm", "mm"),
    ("Depth of the canal at the apex", "hiatus_depth_mm", "mm"),
    ("Angle of the sacral canal to the skin", "canal_to_skin_deg", "degrees"),
    ("Skin to hiatus (shortest distance)", "skin_to_hiatus_mm", "mm"),
)
"""Name, key and unit of the measurements of the hiatus."""

_PAGE_PX: Final = (827, 1169)  # A4 at 100 pixels per inch
_EDGE_PX: Final = 45
_LINE_PX: Final = 17
_SMALL_PX: Final = 12
_TABLE_PX: Final = 10
_RULED_PX: Final = 13  # rules would touch the text of denser rows
_WHITE: Final[Color] = (255, 255, 255)
_BLACK: Final[Color] = (0, 0, 0)
_GRAY: Final[Color] = (85, 85, 85)
_RULE: Final[Color] = (190, 190, 190)


@dataclass(frozen=True)
class Rows:
    """A table of texts."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CaudalSheet:
    """Texts of the caudal access sheet.

    Parameters
    ----------
    main : str
        Distance to the level of the finding, compared with that in adults; empty without one.
    facts : tuple of (str, str)
        Numbering and start of the distances.
    hiatus, way : tuple of (str, str)
        Measurements of the hiatus, and structures along the path.
    discs, marks : Rows
        Distance to each disc, and level at each 10 mm.
    """

    main: str
    facts: tuple[tuple[str, str], ...]
    hiatus: tuple[tuple[str, str], ...]
    discs: Rows
    marks: Rows
    way: tuple[tuple[str, str], ...]


def caudal_sheet(report: Report) -> CaudalSheet | None:
    """Return the texts of the sheet; None for reports of versions without these measurements."""
    access = report.planning.caudal_access
    if access is None:
        return None
    hiatus = []
    for name, key, unit in _HIATUS:
        value = getattr(access, key)
        reason = access.not_measured.get(key, "reason unknown")
        hiatus.append((name, f"not measured: {reason}" if value is None else f"{value:.0f} {unit}"))
    start = _start(report)
    return CaudalSheet(
        main=_main(report),
        facts=(("Numbering", report.levels.numbering_text), ("Sacral hiatus", start)),
        hiatus=tuple(hiatus),
        discs=Rows(
            "Distance from the hiatus to each disc, along the posterior epidural space",
            ("Disc", "Measured, mm", "Adults: mean, mm", "19 of 20 adults, mm"),
            tuple(map(_disc, access.discs[:MAX_DISCS])),
        ),
        marks=Rows(
            "Level reached at each 10 mm from the hiatus",
            ("mm", "Level reached", "Epidural depth, mm", "On the way"),
            tuple(_mark(report, mark) for mark in report.planning.length_marks[:MAX_MARKS]),
        ),
        way=_way(report),
    )


def _start(report: Report) -> str:
    hiatus = report.planning.sacral_hiatus
    if hiatus.visible:
        return f"detected (confidence {hiatus.confidence:.2f})"
    if hiatus.expected is not None:
        level = hiatus.expected.level
        return f"not detected; distances from {level}, its level in two of three people"
    return "not detected; no distances from it"


def _main(report: Report) -> str:
    access = report.planning.caudal_access
    level = report.finding.level
    disc = next((d for d in access.discs if d.disc == level), None) if access else None
    if disc is None:
        return ""
    measured = disc.distance_from_hiatus_mm
    value = "not measured" if measured is None else f"{measured:.0f} mm{_range(disc)}"
    low, high = disc.typical_range_mm
    return (
        f"Hiatus to {level}: {value}. In adults {disc.typical_mm:.0f} mm "
        f"({low:.0f} to {high:.0f} mm in 19 of 20)."
    )


def _range(disc: DiscDistance) -> str:
    limits = disc.distance_range_mm
    return "" if limits is None else f" ({limits[0]:.0f} to {limits[1]:.0f})"


def _disc(disc: DiscDistance) -> tuple[str, ...]:
    measured = disc.distance_from_hiatus_mm
    low, high = disc.typical_range_mm
    return (
        disc.disc,
        "not measured" if measured is None else f"{measured:.0f}{_range(disc)}",
        f"{disc.typical_mm:.0f}",
        f"{low:.0f} to {high:.0f}",
    )


def _mark(report: Report, mark: LengthMark) -> tuple[str, ...]:
    length, depth = mark.distance_from_hiatus_mm, mark.posterior_depth_mm
    tip = report.planning.sac_tip_to_hiatus_mm
    text = "not measured" if depth is None else f"{depth:.1f}"
    if depth is None and tip is not None and length < tip:
        text = "caudal to the sac"
    return f"{length:.0f}", mark.description, text, ", ".join(_passed(report, length))


def _passed(report: Report, length_mm: float) -> Iterable[str]:
    """Yield the structures within 5 mm of a length mark, and the content of the epidural space."""
    planning = report.planning
    access = planning.caudal_access
    assert access is not None
    for stretch in access.without_fat:
        if stretch.start_mm <= length_mm <= stretch.stop_mm:
            yield stretch.content
    tip = planning.sac_tip_to_hiatus_mm
    if tip is not None and _is_at(tip, length_mm):
        yield "end of the sac"
    for cyst in access.cysts:
        if cyst.distance_from_hiatus_mm is not None and _is_at(
            cyst.distance_from_hiatus_mm, length_mm
        ):
            yield "cyst"
    for structure in access.other_structures[:_MAX_STRUCTURES]:
        if _is_at(structure.distance_from_hiatus_mm, length_mm):
            yield "bright structure"


def _is_at(structure_mm: float, length_mm: float) -> bool:
    return -5.0 <= structure_mm - length_mm < 5.0


def _way(report: Report) -> tuple[tuple[str, str], ...]:
    planning = report.planning
    access = planning.caudal_access
    assert access is not None
    tip, end = planning.sac_tip_to_hiatus_mm, report.thecal_sac.caudal_end
    level = f" ({end.level})" if end.level else ""
    sac = f"{tip:.0f} mm from the hiatus{level}" if tip is not None else "distance not measured"
    way = [
        ("End of the thecal sac", sac),
        ("Cysts in the canal", "; ".join(map(structure_text, access.cysts)) or "none detected"),
    ]
    if others := access.other_structures:
        listed = "; ".join(map(structure_text, others[:_MAX_STRUCTURES]))
        way.append(("Other bright structures in the canal", listed))
    if access.assessed_mm is None:
        fat = f"not assessed: {access.not_measured.get('assessed_mm', 'reason unknown')}"
    else:
        stretches = "; ".join(map(stretch_text, access.without_fat)) or "none of 10 mm or more"
        fat = f"{stretches} (assessed: {access.assessed_mm:.0f} mm of the path)"
    way.append(("Stretches without posterior epidural fat", fat))
    for target in planning.targets:
        low, high = target.distance_to_caudal_end_mm, target.distance_to_cranial_end_mm
        if low is not None and high is not None:
            name = f"Collection {target.collection} ({target.level or 'level not named'})"
            way.append((name, f"{low:.0f} to {high:.0f} mm"))
    return tuple(way)


def structure_text(structure: CystOnPath | BrightStructure) -> str:
    """Return the volume, level and distance from the hiatus of a structure along the path."""
    distance = structure.distance_from_hiatus_mm
    where = structure.level or "level not named"
    length = "" if distance is None else f", {distance:.0f} mm from the hiatus"
    mimics = getattr(structure, "mimics", ())
    assumed = f" (assumed: {mimics[0]})" if mimics else ""
    return f"{structure.volume_ml:.1f} mL, {where}{length}{assumed}"


def stretch_text(stretch: PathStretch) -> str:
    """Return the distances from the hiatus, the content and the segments of a stretch."""
    ends = dict.fromkeys((stretch.segments[0], stretch.segments[-1])) if stretch.segments else {}
    where = f", {' to '.join(ends)}" if ends else ""
    return f"{stretch.start_mm:.0f} to {stretch.stop_mm:.0f} mm: {stretch.content}{where}"


# --- PDF ----------------------------------------------------------------------------------


def draw_caudal_sheet(sheet: CaudalSheet, report: Report) -> Drawing:
    """Lay out the sheet on one A4 page, dark on white."""
    width, height = _PAGE_PX
    page = Drawing(width, height, _WHITE)
    room = width - 2 * _EDGE_PX
    y = float(_EDGE_PX)

    def write(text: str, size: int, color: Color = _BLACK, *, bold: bool = False) -> None:
        nonlocal y
        for line in wrap(text, font(size, bold=bold), room):
            page.items.append(TextLine(_EDGE_PX, y, line, size, color, bold=bold))
            y += size + 6

    write("Caudal access geometry", TITLE_PX, bold=True)
    write(_identity(report), _SMALL_PX, _GRAY)
    if sheet.main:
        write(sheet.main, TEXT_PX, bold=True)
    for facts in (sheet.facts, sheet.hiatus, sheet.way):
        y = _pairs(page, facts, y + 6)
    limits = (_EDGE_PX, _EDGE_PX + room)
    y = _table(page, sheet.discs, limits, (0.0, 0.25, 0.5, 0.75), y + 10, height)
    bottom = height - _EDGE_PX - 4 * _LINE_PX
    _table(page, sheet.marks, limits, (0.0, 0.08, 0.5, 0.75), y + 10, bottom)
    y = bottom + _LINE_PX
    for text in (LENGTHS, NOTICE):
        write(text, _TABLE_PX, _GRAY)
    return page


def _identity(report: Report) -> str:
    study = report.study
    parts = [f"leakloc {report.generator.version}"]
    if study.study_date:
        parts.insert(0, f"study date {study.study_date}")
    if study.patient_id:
        parts.insert(0, f"patient {study.patient_id}")
    return " · ".join(parts)


def _pairs(page: Drawing, pairs: Sequence[tuple[str, str]], y: float) -> float:
    left, right = _EDGE_PX, _EDGE_PX + 255
    for name, value in pairs:
        page.items.append(TextLine(left, y, name, _SMALL_PX, _GRAY))
        for line in wrap(value, font(_SMALL_PX), _PAGE_PX[0] - _EDGE_PX - right):
            page.items.append(TextLine(right, y, line, _SMALL_PX, _BLACK))
            y += _LINE_PX
    return y


def _table(
    page: Drawing,
    table: Rows,
    limits: tuple[float, float],
    starts: Sequence[float],
    y: float,
    bottom: float,
) -> float:
    """Place a table whose columns start at fractions of its width; return its lower end."""
    left, right = limits
    page.items.append(TextLine(left, y, table.caption, _SMALL_PX, _GRAY, bold=True))
    y += _LINE_PX
    pitch = min(_TABLE_PX + 5, (bottom - y) / (len(table.rows) + 1))
    for number, row in enumerate((table.header, *table.rows)):
        is_header = number == 0
        for start, text in zip(starts, row, strict=True):
            x, color = left + start * (right - left), _GRAY if is_header else _BLACK
            page.items.append(TextLine(x, y, text, _TABLE_PX, color, bold=is_header))
        y += pitch
        if pitch >= _RULED_PX:
            page.items.append(Line((left, y), (right, y), _RULE, 1))
    return y
