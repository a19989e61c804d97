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
    """Collections of a report: level, side, size, certainty, the way from the sacral hiatus."""
    from leakloc.report.rows import collection_rows

    return _frame(collection_rows(report))


def levels_table(report: Report) -> pd.DataFrame:
    """Vertebrae and discs of a report, head down, with their centres and the sac beside them."""
    from leakloc.report.rows import level_rows

    return _frame(level_rows(report))


def sac_table(report: Report) -> pd.DataFrame:
    """The thecal sac by motion segment: volume and areas."""
    return _frame([segment.model_dump() for segment in report.thecal_sac.by_segment])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame: pd.DataFrame = need("pandas", "research").DataFrame(rows)
    return frame
