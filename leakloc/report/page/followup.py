"""Comparison of two studies of a patient as a self-contained HTML file.

The style is that of ``report.html``; no scripts, a content security policy blocks all requests.
The functions of this module return the values that ``followup.html.j2`` displays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leakloc.anatomy.vocabulary import SIDES
from leakloc.core.templates import render_html
from leakloc.report.compare import (
    RESIDUAL,
    pair_text,
    relative_text,
)
from leakloc.report.followup import NAMES, followup_pictures
from leakloc.report.page.html import (
    PAGE_BYTES,
    TEXT_BYTES,
    Figure,
    Table,
    coverage_text,
    date_text,
    embed,
    number_text,
)
from leakloc.report.text import LIMITATIONS

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.report.compare import CollectionChange, Comparison, Pair, SegmentChange
    from leakloc.report.model import Report
    from leakloc.report.overlays import Picture

ARROW = " \N{RIGHTWARDS ARROW} "


def followup_page(
    before: Report,
    after: Report,
    comparison: Comparison,
    analyses: tuple[AnalysisData, AnalysisData] | None = None,
) -> str:
    """Create the comparison of two studies as an HTML document.

    Parameters
    ----------
    before, after : Report
    comparison : Comparison
        Of these reports.
    analyses : tuple of AnalysisData, optional
        Results of both studies with their images, such as from `leakloc.relabel.reopen`; without
        them, the page has no figures.

    Examples
    --------
    >>> from leakloc import Report
    >>> from leakloc.report.compare import compare
    >>> reports = Report.load("before"), Report.load("after")  # doctest: +SKIP
    >>> html = followup_page(*reports, compare(*reports))  # doctest: +SKIP
    """
    pictures = () if analyses is None else followup_pictures(analyses, comparison)
    return render_html(
        "report/page/followup.html.j2",
        comparison=comparison,
        has_images=analyses is not None,
        figures=_figures(pictures),
        studies=_studies(before, after),
        measurements=_measurements(comparison),
        segments=_segments(comparison),
        collections=_collections(comparison),
        reference=_reference(comparison),
        residual=RESIDUAL,
        detectable=comparison.detectable.text,
        limitations=LIMITATIONS,
        provenance=_provenance(before, after),
    )


def same_patient(analyses: tuple[AnalysisData, AnalysisData]) -> bool | None:
    """Return whether the patient IDs in the headers are equal; None if one is absent."""
    one, two = (analysis.study.info.patient_id for analysis in analyses)
    return one == two if one and two else None


def _figures(pictures: Sequence[Picture]) -> list[Figure]:
    room = PAGE_BYTES - TEXT_BYTES
    figures = []
    for picture in pictures:
        plane = picture.kind.capitalize()
        caption = f"{plane}, both studies. Blue: thecal sac. Orange: epidural fluid."
        figure = embed(picture, caption, room)
        room -= len(figure.data or "")
        figures.append(figure)
    return figures


def _studies(before: Report, after: Report) -> Table:
    reports = before, after
    rows = [
        ("Study date", *(date_text(r.study.study_date or "unknown") for r in reports)),
        ("Finding", *(r.finding.summary for r in reports)),
        ("Numbering", *(r.levels.numbering_text for r in reports)),
        ("Field of view", *(coverage_text(r) for r in reports)),
    ]
    if any(r.study.patient_id for r in reports):
        rows.append(("Patient", *(r.study.patient_id or "not reported" for r in reports)))
    return Table("Compared studies", ("Item", *NAMES), rows)


def _measurements(comparison: Comparison) -> Table:
    rows = [
        (
            m.name[0].upper() + m.name[1:] + (f", {m.unit}" if m.unit else ""),
            *(number_text(value, m.digits) for value in m.values),
            m.trend,
            _difference(m.values, m.digits),
            f"{m.detectable:.{m.digits}f}",
        )
        for m in comparison.measurements
    ]
    header = ("Measurement", *NAMES, "Result", "Change", "Smallest detectable change")
    return Table("Measurements of both studies", header, rows)


def _segments(comparison: Comparison) -> Table | None:
    if not comparison.segments:
        return None
    rows = [
        (s.segment, ARROW.join(_presence(p) for p in s.present), *(_side(s, x) for x in SIDES))
        for s in comparison.segments
    ]
    limit_mm = comparison.detectable.thickness_mm
    caption = (
        "Motion segments with fluid in a study, cranial to caudal: thickness in mm on each side of "
        f"the sac, earlier{ARROW}later study; smallest detectable change {limit_mm:.1f} mm"
    )
    return Table(caption, ("Segment", "Fluid", *(side.capitalize() for side in SIDES)), rows)


def _side(segment: SegmentChange, side: str) -> str:
    values = segment.thicknesses_mm[side]
    if not any(values):
        return "-"
    return f"{pair_text(values, 1, ARROW)}: {segment.trends[side]}"


def _presence(present: bool | None) -> str:
    return "not in the field of view" if present is None else "present" if present else "absent"


def _collections(comparison: Comparison) -> Table | None:
    if not comparison.collections:
        return None
    rows = [
        (
            c.place,
            ARROW.join("-" if n is None else str(n) for n in (c.before, c.after)),
            c.change,
            pair_text(c.volumes_ml, 2, ARROW) + relative_text(c.volumes_ml),
            pair_text(c.lengths_mm, 0, ARROW),
            pair_text(c.thicknesses_mm, 1, ARROW),
            _segments_changed(c),
        )
        for c in comparison.collections
    ]
    header = (
        "Collection",
        "Number in the reports",
        "Volume change",
        "Volume, mL",
        "Length, mm",
        "Thickness, mm",
        "Segments",
    )
    return Table(f"Collections, earlier{ARROW}later study", header, rows)


def _segments_changed(change: CollectionChange) -> str:
    parts = []
    if change.segments_gained:
        parts.append(f"gained {', '.join(change.segments_gained)}")
    if change.segments_lost:
        parts.append(f"lost {', '.join(change.segments_lost)}")
    return "; ".join(parts) or "-"


def _reference(comparison: Comparison) -> Table | None:
    reference = comparison.reference
    if reference is None:
        return None
    published = reference.published
    row = (
        f"CSF, {published.region}, mL",
        *(number_text(volume, 1) for volume in reference.volumes_ml),
        f"{published.value}. {published.source}",
    )
    return Table(
        "CSF volume of the sac and published volume", ("Region", *NAMES, "Published"), [row]
    )


def _provenance(before: Report, after: Report) -> Table:
    reports = before, after
    rows = [
        ("Created by", *(f"{r.generator.name} {r.generator.version}" for r in reports)),
        ("Created", *(r.generator.created for r in reports)),
        ("Study Instance UID", *(r.study.study_instance_uid or "none" for r in reports)),
        ("SHA-256 of the settings", *(r.generator.config_sha256 for r in reports)),
    ]
    return Table("Compared reports", ("Item", *NAMES), rows)


def _difference(values: Pair, digits: int) -> str:
    before, after = values
    if before is None or after is None:
        return "unknown"
    return f"{after - before:+.{digits}f}{relative_text(values)}"
