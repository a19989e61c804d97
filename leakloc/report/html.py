"""``report.html``: the complete report as a self-contained HTML file.

Styles, figures and the viewer script are embedded; a content security policy blocks all requests
and all other scripts. All text is escaped, as DICOM headers may contain arbitrary text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

from leakloc.anatomy.vocabulary import split_segment, vertebra_chain
from leakloc.report import viewer as viewing

if TYPE_CHECKING:
    from leakloc.report.model import Collection, Report, Target
    from leakloc.report.overlays import Picture
    from leakloc.report.viewer import Viewer

PAGE_BYTES: Final = 2_900_000
"""Maximum size of the HTML report: below 3 MB, suitable for email."""
TEXT_BYTES: Final = 150_000
"""Size reserved for everything except images."""
VIEWER_BYTES: Final = 1_500_000
"""Maximum size of the viewer's slices: half of the report; the rest is for the figures."""
MANY: Final = 5  # columns above which a table scrolls horizontally on a phone
MAX_REJECTED_LISTED: Final = 12  # number of candidates listed, in order of probability
LONG: Final = 90  # characters above which a value has its own line
WEBP_QUALITY: Final = 88  # text stays sharp; a third of the size of PNG

_HEADLINES: Final = {
    "present": "Epidural fluid: present",
    "absent": "Epidural fluid: not detected",
    "indeterminate": "Epidural fluid: indeterminate",
}

_SECTIONS: Final = {
    "collections": "Collections",
    "levels": "Levels",
    "sac": "Thecal sac",
    "planning": "Planning geometry",
    "series": "Series",
    "warnings": "Quality and warnings",
    "limits": "Limitations",
    "provenance": "Provenance",
}
"""Headings by section id, in order of appearance."""

LIMITS: Final = (
    "Shows the location of fluid; a dural tear may be distant from it and is not localized.",
    "Absence of detected fluid does not exclude a leak: fast, slow and venous leaks may show none.",
    "Signal alone does not distinguish CSF from seroma or liquefied hematoma.",
    "Level names depend on the numbering, which is assumed if C2 is outside the field of view.",
    "Distances are measured along the canal; no recommendation of a route, volume or device.",
)
"""Limitations stated in the HTML report."""


def page(report: Report, pictures: Sequence[Picture] = (), viewer: Viewer | None = None) -> str:
    """Create the report as an HTML document.

    Parameters
    ----------
    report : Report
    pictures : sequence of Picture
        Figures, embedded if they fit; the others are listed by file name.
    viewer : Viewer, optional
        From `leakloc.report.viewer.make_viewer`; without it, the document contains no script.
    """
    used = TEXT_BYTES + (viewer.size_bytes if viewer is not None else 0)
    figures = _figures(pictures, PAGE_BYTES - used)
    sections = (
        _head(report),
        _contents(with_viewer=viewer is not None),
        _figure_row(figures, None),
        viewing.section(viewer) if viewer is not None else "",
        _collections(report, figures, linked=viewer is not None),
        _levels(report, linked=viewer is not None),
        _sac(report),
        _planning(report),
        _series(report),
        _warnings(report),
        _limits(),
        _provenance(report),
    )
    title = f"leakloc: {report.finding.summary}"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    styles, program = _STYLE, ""
    if viewer is not None:
        policy += f"; script-src {viewing.script_digest()}"
        styles += viewing.style()
        program = f"<script>{viewing.script()}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{styles}</style>\n</head>\n<body>\n"
        f'<aside class="notice" aria-label="Notice">{escape(report.notice)}</aside>\n<main>\n'
        + "\n".join(section for section in sections if section)
        + f"\n</main>\n{program}</body>\n</html>\n"
    )


# --- sections -----------------------------------------------------------------------------


def _head(report: Report) -> str:
    finding, numbering = report.finding, report.levels.numbering
    facts = [("Level", finding.level or "not named")] if finding.leak != "absent" else []
    facts += [
        ("Confidence", f"{finding.confidence:.2f}"),
        ("Numbering", _numbering(report)),
        ("Field of view", _coverage(report)),
    ]
    if report.study.study_date:
        facts.append(("Study date", _date(report.study.study_date)))
    if report.study.patient_id:
        label = "Patient (pseudonym)" if report.study.identity == "hash" else "Patient"
        facts.append((label, report.study.patient_id))
    alternatives = [
        f"{a.level} (score {a.score:.2f})" for c in report.collections[:1] for a in c.alternatives
    ]
    also = (
        f"<p>Alternative level: {escape(' or '.join(alternatives))}; "
        '<a href="#collections">reasons</a>.</p>'
        if alternatives
        else ""
    )
    doubt = (
        '<p class="doubt">Transitional vertebra suspected: verify the numbering first.</p>'
        if numbering.transitional_suspected
        else ""
    )
    warnings = len(report.quality.warnings)
    pointer = (
        f'<p><a href="#warnings">{warnings} warning{"s" if warnings != 1 else ""}</a> below.</p>'
        if warnings
        else ""
    )
    return (
        f'<header class="{finding.leak}"><p class="status">{_HEADLINES[finding.leak]}</p>'
        f"<h1>{escape(finding.summary)}</h1>{also}{doubt}{_facts(facts)}{pointer}</header>"
    )


def _collections(report: Report, figures: dict[int | None, str], *, linked: bool) -> str:
    if not report.collections:
        none = "<p>No collection of epidural fluid was detected.</p>"
        return _section("collections", none + _rejected(report, linked=linked))
    header = (
        "#",
        "Level",
        "Segments",
        "Position",
        "Volume, mL",
        "Length, mm",
        "Thickness, mm",
        "Area, mm²",
        "Sac compression",
        "Pattern",
        "Grade",
        "Confidence",
    )
    rows = [
        (
            _Link(str(c.id), c.epicenter_lps_mm, f"collection {c.id}", c.id)
            if linked and c.epicenter_lps_mm is not None
            else str(c.id),
            c.level or "not named",
            _span(c.segments),
            c.position.label,
            _number(c.volume_ml, 2),
            _number(c.extent.length_mm, 0),
            _number(c.max_thickness_mm, 1),
            _number(c.max_area_mm2, 0),
            _percent(c.sac_compression),
            c.pattern,
            c.grade,
            f"{c.confidence:.2f}",
        )
        for c in report.collections
    ]
    details = "".join(_collection(c, _figure_row(figures, c.id)) for c in report.collections)
    table = _table("Epidural fluid collections, largest first", header, rows)
    return _section("collections", f"{table}{details}{_rejected(report, linked=linked)}")


def _rejected(report: Report, *, linked: bool) -> str:
    """Section on rejected candidates, for review by the reader."""
    if not report.rejected:
        return ""
    rows = [
        (
            _Link(_point(r.center_lps_mm), r.center_lps_mm, "this position")
            if linked and r.center_lps_mm is not None
            else _point(r.center_lps_mm),
            f"{r.level or 'level not named'}, {r.position}",
            _number(r.volume_ml, 2),
            r.reason,
            f"{r.probability:.2f}",
        )
        for r in report.rejected[:MAX_REJECTED_LISTED]
    ]
    header = (
        "Center",
        "Location",
        "Volume, mL",
        "Reason for rejection",
        "Probability of epidural fluid",
    )
    table = _table("Rejected bright signal outside the thecal sac", header, rows)
    more = len(report.rejected) - len(rows)
    rest = f"<p>{more} more: see report.json.</p>" if more else ""
    return f"<h3>Rejected candidates</h3>{table}{rest}"


def _collection(c: Collection, figures: str) -> str:
    position = ", ".join(
        f"{name} {_percent(getattr(c.position, name))}"
        for name in ("dorsal", "ventral", "left", "right")
    )
    facts = [
        ("Cranial end", _end(c.extent.cranial.description, c.extent.cranial.segment)),
        ("Caudal end", _end(c.extent.caudal.description, c.extent.caudal.segment)),
        ("Position around the sac", position),
        ("Compartments", ", ".join(c.compartments) or "not reported"),
        ("Largest cross-section at", _point(c.epicenter_lps_mm)),
    ]
    if c.alternatives:
        others = "; ".join(
            f"{a.level} ({a.score:.2f}: {_join_words(a.basis)})" for a in c.alternatives
        )
        facts.append(("Alternative levels", others))
    if c.basis:
        facts.append(("Basis", _join_words(c.basis)))
    if c.mimics_considered:
        facts.append(("Mimics considered", _join_words(c.mimics_considered)))
    title = f"Collection {c.id}: {c.level or 'level not named'}, {c.position.label}, {c.grade}"
    return f"<article><h3>{escape(title)}</h3>{_facts(facts)}{figures}</article>"


def _levels(report: Report, *, linked: bool) -> str:
    levels = report.levels
    parts = [f"<p>{escape(_numbering(report))}. Status: {levels.status}.</p>"]
    if levels.conus is not None:
        place = levels.conus.level or "an unnamed level"
        parts.append(f"<p>Conus medullaris: {escape(place)}.</p>")
    if levels.numbering.alternatives:
        others = [
            (
                f"{a.shift:+d}",
                _shifted(report.finding.level, a.shift, levels.numbering.lumbar_count),
                f"{a.confidence:.2f}",
                a.reason,
            )
            for a in levels.numbering.alternatives
        ]
        header = ("Shift", "Level of the finding", "Confidence", "Reason")
        parts.append(_table("Alternative numberings", header, others))
    if levels.vertebrae or levels.discs:
        centers = [
            (
                kind,
                _Link(part.name, part.center_lps_mm, part.name) if linked else part.name,
                *_xyz(part.center_lps_mm),
                f"{part.confidence:.2f}",
            )
            for kind, parts in (("vertebra", levels.vertebrae), ("disc", levels.discs))
            for part in parts
        ]
        columns = ("Kind", "Name", "L, mm", "P, mm", "H, mm", "Confidence")
        table = _table(
            "Centers in patient coordinates (LPS: left, posterior, head)", columns, centers
        )
        parts.append(f"<details><summary>All vertebrae and discs</summary>{table}</details>")
    return _section("levels", "".join(parts))


def _sac(report: Report) -> str:
    sac = report.thecal_sac
    end = sac.caudal_end.level or (
        "not named" if sac.caudal_end.lps_mm else "not in the field of view"
    )
    facts = [
        ("Volume", _with_unit(sac.volume_ml, 1, "mL")),
        ("CSF volume", _with_unit(sac.csf_volume_ml, 1, "mL")),
        ("Caudal end", end),
    ]
    rows = [
        (
            s.segment,
            _number(s.volume_ml, 2),
            _number(s.min_area_mm2, 0),
            _number(s.mean_area_mm2, 0),
        )
        for s in sac.by_segment
    ]
    header = ("Segment", "Volume, mL", "Minimum area, mm²", "Mean area, mm²")
    table = _table("By motion segment, cranial to caudal", header, rows) if rows else ""
    return _section("sac", f"{_facts(facts)}{table}")


def _range(range_mm: tuple[float, float] | None) -> str:
    return "" if range_mm is None else f" ({range_mm[0]:.0f} to {range_mm[1]:.0f})"


def _planning(report: Report) -> str:
    planning = report.planning
    hiatus = planning.sacral_hiatus
    if hiatus.visible:
        where = f"detected at {_point(hiatus.lps_mm)} (confidence {hiatus.confidence:.2f})"
    elif hiatus.expected is not None:
        where = (
            f"not detected; distances are measured from {hiatus.expected.level}, its position in "
            "two of three people, with their range for S3 to S5"
        )
    else:
        where = "not detected or outside the field of view; no distances from it"
    facts = [("Sacral hiatus", where)]
    if planning.sac_tip_to_hiatus_mm is not None:
        facts.append(("Caudal end of the sac to hiatus", f"{planning.sac_tip_to_hiatus_mm:.0f} mm"))
    rows = [
        (
            str(t.collection),
            t.level or "not named",
            _number(t.canal_distance_from_hiatus_mm, 0) + _range(t.canal_distance_range_mm),
            _number(t.distance_to_caudal_end_mm, 0),
            _number(t.distance_to_cranial_end_mm, 0),
            t.nearest_interlaminar or "unknown",
            ", ".join(f"{x.disc} {x.distance_from_hiatus_mm:.0f}" for x in t.crossings) or "none",
        )
        for t in planning.targets
    ]
    header = (
        "Collection",
        "Level",
        "Hiatus to level, mm",
        "Hiatus to caudal end, mm",
        "Hiatus to cranial end, mm",
        "Nearest interlaminar window",
        "Discs crossed, mm from the hiatus",
    )
    table = _table("Distances along the posterior epidural space", header, rows) if rows else ""
    ways = "".join(_path(t) for t in planning.targets)
    return _section("planning", f"{_facts(facts)}{table}{ways}")


def _path(target: Target) -> str:
    """Further measurements along the path to one collection."""
    facts = []
    narrowest = target.narrowest_posterior_depth
    if narrowest is not None:
        level = f" at {narrowest.level}" if narrowest.level else ""
        where = f"{narrowest.depth_mm:.1f} mm{level} ({_point(narrowest.lps_mm)})"
        facts.append(("Minimum posterior epidural depth along the path", where))
    if target.cysts:
        cysts = (f"{c.volume_ml:.2f} mL at {_point(c.center_lps_mm)}" for c in target.cysts)
        facts.append(("Cyst-like structures along the path", _join_words(cysts)))
    rows = [
        (
            w.segment,
            f"{abs(w.along_canal_mm):.0f} {'above' if w.along_canal_mm >= 0 else 'below'}",
            _number(w.skin_to_canal_mm, 0),
        )
        for w in target.interlaminar
    ]
    header = ("Interlaminar window", "Distance from the level, mm", "Skin to canal, mm")
    caption = f"Interlaminar windows near collection {target.collection}, nearest first"
    table = _table(caption, header, rows) if rows else ""
    return f"{_facts(facts) if facts else ''}{table}"


def _series(report: Report) -> str:
    rows = [
        (
            s.description or "(no description)",
            s.role.replace("_", " "),
            ", ".join(s.used_for) or "not used",
            s.reason,
            str(s.n_instances),
            _product(s.shape, "{:d}"),
            _product(s.spacing_mm, "{:.2f}"),
            " ".join(note.message for note in s.notes),
        )
        for s in report.series
    ]
    header = ("Series", "Role", "Used for", "Reason", "Images", "Shape", "Spacing, mm", "Notes")
    skipped = "".join(f"<li>{f.count} × {escape(f.reason)}</li>" for f in report.skipped_files)
    left_out = f"<p>Skipped files:</p><ul>{skipped}</ul>" if skipped else ""
    table = _table("Series of the study and their roles", header, rows)
    return _section("series", f"{table}{left_out}")


def _warnings(report: Report) -> str:
    items = "".join(
        f"<li>{escape(w.message)} <code>{escape(w.code)}</code></li>"
        for w in report.quality.warnings
    )
    body = f"<ul>{items}</ul>" if items else "<p>None.</p>"
    facts = _facts([("Signal-to-noise ratio", _number(report.quality.snr, 0))])
    return _section("warnings", f"{facts}{body}")


def _limits() -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in LIMITS)
    return _section("limits", f"<ul>{items}</ul>")


def _provenance(report: Report) -> str:
    generator = report.generator
    runtime = ", ".join(f"{name} {value:.1f}" for name, value in generator.runtime_s.items())
    facts = [
        ("Created by", f"{generator.name} {generator.version}, {generator.created}"),
        ("Study Instance UID", report.study.study_instance_uid or "none"),
        ("SHA-256 of the settings", generator.config_sha256),
        ("Run time, s", runtime),
    ]
    settings = escape(json.dumps(generator.config, indent=2, ensure_ascii=False))
    return _section(
        "provenance",
        f"{_facts(facts)}<details><summary>All settings</summary><pre>{settings}</pre></details>",
    )


def _section(name: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(_SECTIONS[name])}</h2>{body}</section>'


def _contents(*, with_viewer: bool) -> str:
    """Navigation links to the sections."""
    names = {"viewer": "Viewer", **_SECTIONS} if with_viewer else _SECTIONS
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in names.items())
    return f'<nav aria-label="Sections">{links}</nav>'


# --- helpers ------------------------------------------------------------------------------


def _figures(pictures: Sequence[Picture], room: int) -> dict[int | None, str]:
    """HTML of the figures by collection (None: whole study), embedded if they fit."""
    figures: dict[int | None, str] = {}
    for picture in pictures:
        source = base64.b64encode(_webp(picture)).decode()
        if len(source) > room:
            figure = f"<p>The {picture.kind} figure is overlays/{escape(picture.name)}.png.</p>"
        else:
            room -= len(source)
            height, width = picture.rgb.shape[:2]
            figure = (
                f'<figure class="drawn" tabindex="0"><img alt="{escape(picture.alt)}" '
                f'width="{width}" height="{height}" '
                f'src="data:image/webp;base64,{source}">'
                f"<figcaption>{escape(_figure_caption(picture))}</figcaption></figure>"
            )
        figures[picture.collection] = figures.get(picture.collection, "") + figure
    return figures


def _figure_row(figures: dict[int | None, str], collection: int | None) -> str:
    found = figures.get(collection)
    return f'<div class="figures">{found}</div>' if found else ""


def _figure_caption(picture: Picture) -> str:
    if picture.kind == "count":
        return "Verification of the level count from C2."
    if picture.collection is None:
        about = {"straightened": "Straightened canal"}.get(picture.kind, "Overview")
    else:
        about = f"Collection {picture.collection}, {picture.kind}"
    return f"{about}. Blue: thecal sac. Orange: epidural fluid."


def _webp(picture: Picture) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture.rgb).save(buffer, "WEBP", quality=WEBP_QUALITY, method=1)
    return buffer.getvalue()


class _Link(NamedTuple):
    """A link that moves the viewer to a position in the patient."""

    text: str
    lps_mm: Sequence[float]
    what: str
    collection: int | None = None


def _cell(content: str | _Link) -> str:
    if isinstance(content, str):
        return f"<td>{escape(content)}</td>"
    place = ",".join(f"{x:.2f}" for x in content.lps_mm)
    title = escape(f"Show {content.what} in the viewer")
    which = f' data-collection="{content.collection}"' if content.collection else ""
    link = f'<a href="#viewer" data-lps="{place}"{which} title="{title}">{escape(content.text)}</a>'
    return f"<td>{link}</td>"


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str | _Link]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(f"<tr>{''.join(_cell(content) for content in row)}</tr>" for row in rows)
    kind = "table many" if len(header) > MANY else "table"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f"<div{' class=wide' if len(value) > LONG else ''}>"
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts
    )
    return f"<dl>{items}</dl>"


def _numbering(report: Report) -> str:
    if report.levels.status == "unlabelled":
        return "levels could not be named"
    numbering = report.levels.numbering
    return f"{numbering.assumption} (confidence {numbering.confidence:.2f})"


def _coverage(report: Report) -> str:
    coverage = report.quality.coverage
    if coverage.cranial is None or coverage.caudal is None:
        return "levels unknown"
    return f"{coverage.cranial} to {coverage.caudal}"


def _shifted(segment: str | None, shift: int, lumbar_count: int) -> str:
    """Name of a segment with all names shifted caudally by `shift` levels."""
    if segment is None:
        return "not named"
    try:
        chain = vertebra_chain(lumbar_count)
        upper, lower = (chain.index(name) + shift for name in split_segment(segment))
        if min(upper, lower) < 0:
            return "not named"
        return f"{chain[upper]}-{chain[lower]}"
    except (ValueError, IndexError):
        return "not named"


def _date(text: str) -> str:
    """Format ``20260102`` as ``2026-01-02``; other text is returned unchanged."""
    if len(text) == 8 and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def _span(segments: Sequence[str]) -> str:
    if not segments:
        return "not named"
    return segments[0] if len(segments) == 1 else f"{segments[0]} to {segments[-1]}"


def _end(description: str | None, segment: str | None) -> str:
    return description or segment or "not named"


def _join_words(sentences: Iterable[str]) -> str:
    return "; ".join(sentence.rstrip(".") for sentence in sentences)


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def _with_unit(value: float | None, digits: int, unit: str) -> str:
    return "unknown" if value is None else f"{value:.{digits}f} {unit}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"


def _xyz(point: Sequence[float]) -> tuple[str, str, str]:
    x, y, z = point
    return f"{x:.1f}", f"{y:.1f}", f"{z:.1f}"


def _point(point: Sequence[float] | None) -> str:
    if point is None:
        return "unknown"
    letters = ("LR", "PA", "HF")
    return ", ".join(
        f"{pair[0] if value >= 0 else pair[1]} {abs(value):.1f} mm"
        for pair, value in zip(letters, point, strict=True)
    )


def _product(values: Sequence[float] | None, form: str) -> str:
    return "no volume" if values is None else " × ".join(form.format(v) for v in values)


_STYLE: Final = """
:root{color-scheme:dark;--back:#0e0f12;--card:#17191e;--ink:#eceef2;--faint:#a8adb6;
--line:#2c3038;--blue:#56b4e9;--orange:#e69f00}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.notice{margin:0;padding:.5rem 1rem;background:#3a2a00;color:#ffe2a6;font-size:.9rem;
text-align:center}
main{max-width:1920px;margin:0 auto;padding:1rem}
header,section>*,article>dl,article>h3{max-width:1240px}
section>article{max-width:none}
header{border-left:6px solid var(--faint);padding:.25rem 0 .25rem 1rem;margin:.5rem 0 1.25rem}
header.present{border-color:var(--orange)}
header.indeterminate{border-color:#f0e442}
header.absent{border-color:var(--blue)}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:0 0 1rem}
.status{margin:0;color:var(--faint);font-size:.95rem}
h1{font-size:1.6rem;line-height:1.25;margin:.15rem 0 .6rem}
h2{font-size:1.2rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--line);
padding-bottom:.25rem}
h3{font-size:1.05rem;margin:1.25rem 0 .4rem}
.doubt{color:#f0e442}
a{color:var(--blue)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.4rem 1.5rem;
margin:.5rem 0}
dl .wide{grid-column:1/-1}
dt{color:var(--faint);font-size:.85rem}
dd{margin:0;overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:1rem;max-width:none;margin:1rem 0}
figure{margin:0}
img{max-width:100%;height:auto;display:block;border-radius:4px}
figcaption{color:var(--faint);font-size:.85rem;margin-top:.3rem}
.table{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--faint);font-size:.85rem;padding-bottom:.3rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);
vertical-align:top}
th{color:var(--faint);font-weight:600}
article{background:var(--card);border-radius:6px;padding:.25rem 1rem 1rem;margin:1rem 0}
details{margin:.75rem 0}
summary{cursor:pointer;color:var(--blue)}
pre,code{font-family:ui-monospace,Consolas,"DejaVu Sans Mono",monospace;font-size:.82rem}
pre{overflow-x:auto;background:var(--card);padding:.75rem;border-radius:6px}
code{color:var(--faint)}
@media screen and (max-width:600px){main{padding:.6rem}h1{font-size:1.25rem}
.drawn{overflow-x:auto}.drawn img{max-width:none;width:auto;height:75vh;max-height:36rem}
.drawn figcaption{position:sticky;left:0}.many table{min-width:46rem}
th,td{padding:.3rem .4rem}article{padding:.1rem .6rem .6rem}}
@media print{nav{display:none}
:root{color-scheme:light;--back:#fff;--card:#fff;--ink:#000;--faint:#444;
--line:#bbb;--blue:#00507f}
.notice{background:#fff;color:#000;border:1px solid #000}
.table{overflow:visible}table{font-size:.72rem}
main{max-width:none;padding:0}article{padding:0}
figure,tr{break-inside:avoid}h2,h3{break-after:avoid}
img{max-height:22cm;width:auto}.doubt{color:#000;font-weight:600}}
"""
