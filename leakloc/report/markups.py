"""Markups of 3D Slicer (``.mrk.json``): levels as points and paths from the hiatus as curves.

Coordinates are LPS mm, as in the report; the format states its coordinate system.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from leakloc.anatomy.vocabulary import SHORT_NOTICE
from leakloc.report.canvas import ORANGE, Color

if TYPE_CHECKING:
    from leakloc.core.parts import Point
    from leakloc.report.model import Report

SCHEMA: Final = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)
"""Identifies the format; it is not retrieved."""
_LEVEL_COLOR: Final[Color] = (86, 180, 233)

Named = tuple[str, "Point", str]
"""Label, position in LPS mm, and description of a point."""


def markup_files(report: Report) -> dict[str, str]:
    """Return the content of each markups file by its name; unknown positions are omitted.

    ``levels.mrk.json`` contains the centers of vertebrae and discs, ``collections.mrk.json`` the
    epicenter and both ends of each collection and the sacral hiatus, ``path-N.mrk.json`` the path
    from the sacral hiatus to collection N.
    """
    levels = report.levels
    centers: list[Named] = [
        (part.name, part.center_lps_mm, f"{kind}, confidence {part.confidence:.2f}")
        for kind, parts in (("vertebra", levels.vertebrae), ("disc", levels.discs))
        for part in parts
    ]
    found = {
        "levels": _markup("Fiducial", "Levels", centers, _LEVEL_COLOR),
        "collections": _markup("Fiducial", "Collections", list(_findings(report)), ORANGE),
    }
    for target in report.planning.targets:
        path: list[Named] = [("", point, "") for point in target.path_lps_mm]
        name = f"Path to collection {target.collection}"
        found[f"path-{target.collection}"] = _markup("Curve", name, path, ORANGE)
    return {f"{name}.mrk.json": text for name, text in found.items() if text is not None}


def _findings(report: Report) -> Iterable[Named]:
    """Return the points of the collections and the sacral hiatus."""
    for c in report.collections:
        where = f"{c.level}, " if c.level else ""
        points = (
            ("epicenter", c.epicenter_lps_mm, f"{where}{c.position.label}, {c.grade}"),
            ("cranial end", c.extent.cranial.lps_mm, c.extent.cranial.description),
            ("caudal end", c.extent.caudal.lps_mm, c.extent.caudal.description),
        )
        for name, point, text in points:
            if point is not None:
                yield f"Fluid {c.id} {name}", point, text or ""
    hiatus = report.planning.sacral_hiatus
    if hiatus.lps_mm is not None:
        yield "Sacral hiatus", hiatus.lps_mm, f"confidence {hiatus.confidence:.2f}"
    elif hiatus.expected is not None:
        yield "Expected hiatus", hiatus.expected.lps_mm, "not detected; most frequent position"


def _markup(kind: str, name: str, points: Sequence[Named], color: Color) -> str | None:
    """Return the text of a file with one markup; None without points."""
    if not points:
        return None
    shown = [component / 255 for component in color]
    markup: dict[str, Any] = {
        "type": kind,
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "controlPoints": [
            {
                "id": str(number),
                "label": label,
                "description": text,
                "position": list(point),
                "selected": True,
                "locked": True,
                "visibility": True,
                "positionStatus": "defined",
            }
            for number, (label, point, text) in enumerate(points, 1)
        ],
        "display": {"visibility": True, "color": shown, "selectedColor": shown},
        "description": SHORT_NOTICE,
    }
    if kind == "Curve":
        markup["curveType"] = "Linear"
    content = {"@schema": SCHEMA, "markups": [markup]}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
