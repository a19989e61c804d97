"""Worklist data of one study, cached so that 5,000 reports need not be read again."""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from leakloc.core.errors import LeaklocError
from leakloc.localization.result import by_certainty
from leakloc.report import Report

if TYPE_CHECKING:
    from leakloc.services.batch.ledger import Ledger

THUMBNAIL_PX: Final = 160
"""Longer side of a thumbnail: a sagittal spine is recognizable, and 5,000 images take 20 MB."""
_QUALITY: Final = 55


@dataclass(frozen=True)
class StudySummary:
    """Summary of one report.

    Parameters
    ----------
    study_instance_uid, study_date, patient_id : str or None
        As in the report, subject to the setting `report.identity`.
    leak, level, confidence, summary
        The finding.
    collections : int
        Number of collections.
    volume_ml, thickness_mm : float or None
        Their total volume and maximum thickness.
    position, grade : str or None
        Of the first collection.
    numbering : str
        Assumption of the vertebral numbering.
    numbering_confidence : float
    warnings : tuple of (code, message)
    page, picture : str or None
        Files in the study's folder.
    thumbnail : str or None
        WebP as base64.
    """

    study_instance_uid: str | None
    study_date: str | None
    patient_id: str | None
    leak: str
    level: str | None
    confidence: float
    summary: str
    collections: int
    volume_ml: float | None
    thickness_mm: float | None
    position: str | None
    grade: str | None
    numbering: str
    numbering_confidence: float
    warnings: tuple[tuple[str, str], ...]
    page: str | None
    picture: str | None
    thumbnail: str | None


def summarize_report(folder: Path) -> StudySummary:
    """Summarize the report in a folder.

    Raises
    ------
    InputError
        If there is none, or it does not match the report schema.
    """
    report = Report.load(folder)
    found = by_certainty(report.collections)
    volumes = [c.volume_ml for c in found if c.volume_ml is not None]
    depths = [c.max_thickness_mm for c in found if c.max_thickness_mm is not None]
    pictures = report.outputs.overlays
    return StudySummary(
        study_instance_uid=report.study.study_instance_uid,
        study_date=report.study.study_date,
        patient_id=report.study.patient_id,
        leak=report.finding.leak,
        level=report.finding.level,
        confidence=report.finding.confidence,
        summary=report.finding.summary,
        collections=len(found),
        volume_ml=sum(volumes) if volumes else None,
        thickness_mm=max(depths, default=None),
        position=found[0].position.label if found else None,
        grade=found[0].grade if found else None,
        numbering=report.levels.numbering.assumption,
        numbering_confidence=report.levels.numbering.confidence,
        warnings=tuple((warning.code, warning.message) for warning in report.quality.warnings),
        page=report.outputs.html,
        picture=pictures[0] if pictures else None,
        thumbnail=_thumbnail(folder / pictures[0]) if pictures else None,
    )


def _thumbnail(picture: Path) -> str | None:
    with suppress(OSError, ValueError), Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        packed = io.BytesIO()
        small.save(packed, "WEBP", quality=_QUALITY)
        return base64.b64encode(packed.getvalue()).decode("ascii")
    return None


class SummaryStore:
    """Cache of summaries in the ledger, each valid for one version of a report.

    Parameters
    ----------
    ledger : Ledger
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.connection() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS summaries "
                "(name TEXT PRIMARY KEY, stamp TEXT NOT NULL, summary TEXT NOT NULL)"
            )

    def put(self, name: str, summary: StudySummary) -> None:
        """Store the summary of the report that is currently in the folder."""
        stamp = self._ledger.stamp(name)
        if stamp is not None:
            with self._ledger.connection() as database:
                database.execute(
                    "INSERT OR REPLACE INTO summaries VALUES (?, ?, ?)",
                    (name, stamp, json.dumps(asdict(summary))),
                )

    def all(self, names: list[str]) -> dict[str, StudySummary]:
        """Cards of the studies with a readable report; missing or old ones are created."""
        with self._ledger.connection() as database:
            rows = database.execute("SELECT name, stamp, summary FROM summaries").fetchall()
        known = {row["name"]: (row["stamp"], row["summary"]) for row in rows}
        summaries: dict[str, StudySummary] = {}
        for name in names:
            stamp, text = known.get(name, (None, ""))
            if stamp is not None and stamp == self._ledger.stamp(name):
                with suppress(ValueError, TypeError, KeyError):  # a damaged row is created again
                    summaries[name] = _from_json(json.loads(text))
                    continue
            with suppress(LeaklocError):
                summaries[name] = summarize_report(self._ledger.output / name)
                self.put(name, summaries[name])
        return summaries


def _from_json(values: dict[str, Any]) -> StudySummary:
    values["warnings"] = tuple((code, message) for code, message in values["warnings"])
    return StudySummary(**values)
