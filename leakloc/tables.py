"""Results as pandas tables, one row a thing, units in the column names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakloc.extras import need

if TYPE_CHECKING:
    import pandas as pd

    from leakloc.loaders.study import Study
    from leakloc.report.model import Report
    from leakloc.settings import Settings


def study_table(study: Study, settings: Settings | None = None) -> pd.DataFrame:
    """Series of a study: geometry, role, and the rule that gave the role."""
    from leakloc.loaders import series_table
    from leakloc.settings import Settings as Defaults

    rows, _ = series_table(study, (settings or Defaults()).loaders)
    return _frame(rows)


def collections_table(report: Report) -> pd.DataFrame:
    """Collections of a report: level, side, size, certainty."""
    return _frame(
        [
            {
                "id": c.id,
                "level": c.level,
                "segments": ", ".join(c.segments),
                "position": c.position.label,
                "pattern": c.pattern,
                "volume_ml": c.volume_ml,
                "max_thickness_mm": c.max_thickness_mm,
                "length_mm": c.extent.length_mm,
                "compartments": ", ".join(c.compartments),
                "grade": c.grade,
                "confidence": c.confidence,
                **_xyz("epicenter", c.epicenter_lps_mm),
            }
            for c in report.collections
        ]
    )


def levels_table(report: Report) -> pd.DataFrame:
    """Vertebrae and discs of a report, head down, with their centres."""
    rows: list[dict[str, Any]] = []
    for kind, things in (("vertebra", report.levels.vertebrae), ("disc", report.levels.discs)):
        for thing in things:
            rows.append(
                {
                    "kind": kind,
                    "name": thing.name,
                    **_xyz("center", thing.center_lps_mm),
                    "confidence": thing.confidence,
                }
            )
    rows.sort(key=lambda row: -float(row["center_z_lps_mm"]))
    return _frame(rows)


def sac_table(report: Report) -> pd.DataFrame:
    """The thecal sac by motion segment: volume and areas."""
    return _frame([segment.model_dump() for segment in report.thecal_sac.by_segment])


def _xyz(name: str, point: Any) -> dict[str, float | None]:
    values = (None, None, None) if point is None else point
    return {f"{name}_{axis}_lps_mm": v for axis, v in zip("xyz", values, strict=True)}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame: pd.DataFrame = need("pandas", "research").DataFrame(rows)
    return frame
