"""Flat tables of a report: one row per collection, level or value of a measurement group."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.anatomy.vocabulary import SIDES
from leakloc.report.measurement_groups import measurement_groups

if TYPE_CHECKING:
    from leakloc.anatomy.vocabulary import CodedTerm, Role
    from leakloc.core.parts import Point
    from leakloc.localization.result import (
        AxialT2,
        FluidCharacter,
        PostoperativeChanges,
        SegmentFluid,
    )
    from leakloc.report.model import Report

Row = dict[str, Any]

_SIGNAL_ROLES: Final[tuple[Role, ...]] = ("sagittal_t1", "sagittal_t2", "sagittal_stir")

_XYZ: Final = ("x_lps_mm", "y_lps_mm", "z_lps_mm")

_ARCH_NAMES: Final = {True: "present", False: "absent", None: "indeterminate"}

COLLECTION_COLUMNS: Final = (
    "id", "level", "segments", "position", "pattern", "volume_ml", "max_thickness_mm",
    "max_area_mm2", "length_mm", "sac_compression", "compartments", "grade", "confidence",
    "epicenter_x_lps_mm", "epicenter_y_lps_mm", "epicenter_z_lps_mm",
    "canal_distance_from_hiatus_mm", "distance_to_caudal_end_mm", "distance_to_cranial_end_mm",
    "nearest_interlaminar", "signal_kind", "neck_level", "neck_width_mm", "posterior_end_level",
    "posterior_canal_distance_mm", "posterior_skin_distance_mm",
    *(f"{role}_signal_ratio" for role in _SIGNAL_ROLES),
    "axial_t2_bright", "axial_t2_confirms", "axial_t2_side_confirmed", "dark_line_fraction",
    "interruption_level", "interruption_side", "interruption_width_mm", "rim_enhancement",
    "rim_rise",
    "second_myelogram", "second_myelogram_ml",
)  # fmt: skip
LEVEL_COLUMNS: Final = (
    "kind", "name", "center_x_lps_mm", "center_y_lps_mm", "center_z_lps_mm", "confidence",
    "numbering_confidence", "sac_volume_ml", "sac_min_area_mm2", "sac_mean_area_mm2",
    "sac_csf_volume_ml", "posterior_arch", "posterior_arch_confidence", "metal",
    *(f"fluid_{side}_{size}" for side in SIDES for size in ("mm", "mm2")),
)  # fmt: skip
MEASUREMENT_COLUMNS: Final = (
    "group", "finding", "level", "side", "state", *_XYZ, "name", "code", "scheme", "value",
    "unit", "answer", "text",
)  # fmt: skip


def collection_rows(report: Report) -> list[Row]:
    """Return one row per collection: level, position, size, confidence, path distances."""
    targets = {target.collection: target for target in report.planning.targets}
    changes = report.postoperative
    extensions = {} if changes is None else {one.collection: one for one in changes.extensions}
    rows = []
    for c in report.collections:
        extension = extensions.get(c.id)
        target = targets.get(c.id)
        rows.append(
            {
                "id": c.id,
                "level": c.level,
                "segments": ", ".join(c.segments),
                "position": c.position.label,
                "pattern": c.pattern,
                "volume_ml": c.volume_ml,
                "max_thickness_mm": c.max_thickness_mm,
                "max_area_mm2": c.max_area_mm2,
                "length_mm": c.extent.length_mm,
                "sac_compression": c.sac_compression,
                "compartments": ", ".join(c.compartments),
                "grade": c.grade,
                "confidence": c.confidence,
                **_xyz("epicenter", c.epicenter_lps_mm),
                "canal_distance_from_hiatus_mm": target and target.canal_distance_from_hiatus_mm,
                "distance_to_caudal_end_mm": target and target.distance_to_caudal_end_mm,
                "distance_to_cranial_end_mm": target and target.distance_to_cranial_end_mm,
                "nearest_interlaminar": target and target.nearest_interlaminar,
                "signal_kind": c.character and c.character.kind,
                "neck_level": extension and extension.neck_level,
                "neck_width_mm": extension and extension.neck_width_mm,
                "posterior_end_level": extension and extension.end_level,
                "posterior_canal_distance_mm": extension and extension.canal_distance_mm,
                "posterior_skin_distance_mm": extension and extension.skin_distance_mm,
                **_signal_ratios(c.character),
                **_axial_columns(c.axial_t2),
                "rim_enhancement": c.enhancement and c.enhancement.rim,
                "rim_rise": c.enhancement and c.enhancement.rise,
                "second_myelogram": c.second_myelogram and c.second_myelogram.agreement,
                "second_myelogram_ml": c.second_myelogram and c.second_myelogram.volume_ml,
            }
        )
    return rows


def _axial_columns(axial: AxialT2 | None) -> Row:
    """Return the columns of the signal and the dark line on axial T2."""
    line = axial and axial.dark_line
    gap = line and line.interruption
    return {
        "axial_t2_bright": axial and axial.bright,
        "axial_t2_confirms": axial and axial.confirms,
        "axial_t2_side_confirmed": axial and axial.side_confirmed,
        "dark_line_fraction": line and line.fraction,
        "interruption_level": gap and gap.level,
        "interruption_side": gap and gap.side,
        "interruption_width_mm": gap and gap.width_mm,
    }


def level_rows(report: Report) -> list[Row]:
    """Return one row per vertebra and disc, cranial to caudal.

    Vertebrae include the posterior arch, discs the sac, fluid and metal of their motion segment.
    """
    sac = {part.segment: part for part in report.thecal_sac.by_segment}
    fluid = {part.segment: part for part in report.fluid_by_segment}
    changes = report.postoperative
    arches = {} if changes is None else {arch.vertebra: arch for arch in changes.arches}
    rows: list[Row] = []
    for kind, things in (("vertebra", report.levels.vertebrae), ("disc", report.levels.discs)):
        for thing in things:
            part = sac.get(thing.name)
            sides = _sides(fluid.get(thing.name))
            arch = arches.get(thing.name) if kind == "vertebra" else None
            rows.append(
                {
                    "kind": kind,
                    "name": thing.name,
                    **_xyz("center", thing.center_lps_mm),
                    "confidence": thing.confidence,
                    "numbering_confidence": report.levels.numbering.confidence,
                    "sac_volume_ml": part and part.volume_ml,
                    "sac_min_area_mm2": part and part.min_area_mm2,
                    "sac_mean_area_mm2": part and part.mean_area_mm2,
                    "sac_csf_volume_ml": part and part.csf_volume_ml,
                    "posterior_arch": arch and _ARCH_NAMES[arch.present],
                    "posterior_arch_confidence": arch and arch.confidence,
                    "metal": _has_metal(changes, thing.name) if kind == "disc" else None,
                    **sides,
                }
            )
    rows.sort(key=lambda row: -float(row["center_z_lps_mm"]))
    return rows


def measurement_rows(report: Report) -> list[Row]:
    """Return one row per value and answer of each measurement group.

    The position is the point of the group, or the end of its curve. A group without values and
    answers has one row.
    """
    rows = []
    for group in measurement_groups(report):
        point = group.points_lps[-1] if group.points_lps else (None, None, None)
        common = {
            "group": group.name,
            "finding": group.finding.meaning,
            "level": group.level,
            "side": group.side,
            "state": group.state and group.state.meaning,
            **dict(zip(_XYZ, point, strict=True)),
            "text": group.text,
        }
        parts: list[Row] = [
            _coded(value.term) | {"name": value.name, "value": value.value, "unit": value.unit}
            for value in group.values
        ]
        parts += [_coded(a.question) | {"answer": a.answer.meaning} for a in group.answers]
        rows += [common | part for part in parts or [{}]]
    return rows


def _coded(term: CodedTerm) -> Row:
    return {"name": term.meaning, "code": term.value, "scheme": term.scheme}


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows as UTF-8 CSV with a header; unknown values are empty."""
    with path.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, columns)
        writer.writeheader()
        writer.writerows(rows)


def _has_metal(changes: PostoperativeChanges | None, segment: str) -> bool | None:
    """Return whether a signal void is near a motion segment; None if not assessed."""
    if changes is None or not changes.metal_assessed:
        return None
    return any(segment in artifact.segments for artifact in changes.metal)


def _signal_ratios(character: FluidCharacter | None) -> Row:
    known = {m.role: m.ratio for m in character.ratios} if character is not None else {}
    return {f"{role}_signal_ratio": known.get(role) for role in _SIGNAL_ROLES}


def _sides(part: SegmentFluid | None) -> Row:
    row = {}
    for side in SIDES:
        fluid = part and getattr(part, side)
        row[f"fluid_{side}_mm"] = fluid and fluid.thickness_mm
        row[f"fluid_{side}_mm2"] = fluid and fluid.area_mm2
    return row


def _xyz(name: str, point: Point | None) -> Row:
    values = (None, None, None) if point is None else point
    return {f"{name}_{axis}_lps_mm": v for axis, v in zip("xyz", values, strict=True)}
