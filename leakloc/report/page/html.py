"""``report.html``: the complete report as a self-contained HTML file.

Styles, figures and the viewer script are embedded; a content security policy blocks all requests
and all other scripts. The functions of this module return the values that ``report.html.j2``
displays.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image

from leakloc.anatomy.vocabulary import SIDES, role_name, split_segment, vertebra_chain
from leakloc.core.templates import render_html
from leakloc.localization.result import by_certainty
from leakloc.report.caudal import LENGTHS, caudal_sheet
from leakloc.report.model import MAX_RUNS_LENGTH, positions_lps_mm
from leakloc.report.text import (
    LIMITATIONS,
    alternative_levels,
    companion_text,
    diverticula_sentences,
    headline,
    numbering_caveat,
    place_of_rejected,
    postoperative_sentences,
    report_sections,
    signal_text,
    thickness_text,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from leakloc.localization.result import Collection, Target
    from leakloc.report.model import Report
    from leakloc.report.overlays import Picture
    from leakloc.report.page.key_images import KeyImage
    from leakloc.report.page.viewer import Viewer

PAGE_BYTES: Final = 2_900_000
"""Maximum size of the HTML report: below 3 MB, suitable for email."""
TEXT_BYTES: Final = 150_000
"""Size reserved for everything except images."""
VIEWER_BYTES: Final = 1_500_000
"""Maximum size of the viewer's slices: half of the report; the rest is for the figures."""
MAX_REJECTED_LISTED: Final = 12  # number of candidates listed, in order of probability
WEBP_QUALITY: Final = 88  # text stays sharp; a third of the size of PNG

Facts = list[tuple[str, str]]
"""Names and values of a list of facts."""


class Link(NamedTuple):
    """A link that moves the viewer to a position in the patient."""

    text: str
    lps_mm: Sequence[float]
    what: str
    collection: int | None = None


class Table(NamedTuple):
    """A table with links to the viewer in some cells."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]


class Figure(NamedTuple):
    """A figure; `data` is the base64 of its WebP image, None if it is not embedded."""

    name: str
    kind: str
    alt: str
    caption: str
    width: int
    height: int
    data: str | None


class Answer(NamedTuple):
    """A value in large type at the top of the report, with its name and explanations."""

    name: str
    value: str
    explanations: Sequence[str] = ()


def page(
    report: Report,
    pictures: Sequence[Picture] = (),
    viewer: Viewer | None = None,
    key_images: Sequence[KeyImage] = (),
) -> str:
    """Create the report as an HTML document.

    Parameters
    ----------
    report : Report
    pictures : sequence of Picture
        Figures, embedded if they fit; the others are listed by file name.
    viewer : Viewer, optional
        From `leakloc.report.page.viewer.make_viewer`; without it, the document contains no
        script.
    key_images : sequence of KeyImage
        Planes at the main collection, shown at the top.
    """
    linked = viewer is not None
    used = TEXT_BYTES + (viewer.size_bytes if viewer is not None else 0)
    used += sum(len(image.data) for image in key_images)
    ordered = by_certainty(report.collections)
    return render_html(
        "report/page/report.html.j2",
        report=report,
        limitations=LIMITATIONS,
        viewer=viewer,
        figures=_figures(pictures, PAGE_BYTES - used),
        headline=headline(report),
        caveat=numbering_caveat(report),
        answers=_answers(report),
        finding=_finding(report),
        key_images=key_images,
        correctable=_correctable(report),
        ordered=ordered,
        collections=_collections(report, linked=linked),
        sides=_sides(report),
        details={c.id: _collection(c) for c in report.collections},
        rejected=_rejected(report, linked=linked),
        diverticula=_diverticula(report, linked=linked),
        roots=diverticula_sentences(report)[0],
        postoperative=postoperative_sentences(report),
        numbering=report.levels.numbering_text,
        numberings=_numberings(report),
        centers=_centers(report, linked=linked),
        sac=_sac(report),
        segments=_segments(report),
        planning=_planning(report),
        distances=_distances(report),
        caudal=caudal_sheet(report),
        lengths=LENGTHS,
        paths=[(_path(target), _windows(target)) for target in report.planning.targets],
        series=_series(report),
        quality=[("Signal-to-noise ratio", number_text(report.quality.snr, 0))],
        text=report_sections(report),
        provenance=_provenance(report),
        settings=json.dumps(report.generator.config, indent=2, ensure_ascii=False),
    )


# --- finding and collections --------------------------------------------------------------


def _answers(report: Report) -> list[Answer]:
    """Return level and confidence, with the alternative levels and what was determined."""
    finding = report.finding
    confidence = f"{finding.confidence:.2f}"
    found = by_certainty(report.collections)
    if found:
        others = alternative_levels(report)
        return [
            Answer("Level", finding.level or "not named", [f"or {others}"] if others else ()),
            Answer("Confidence in fluid", confidence, (found[0].grade,)),
        ]
    if finding.leak == "absent":
        return [
            Answer("Field of view", coverage_text(report)),
            Answer("Confidence in absence", confidence, ("of visible fluid",)),
        ]
    if finding.confidence > 0:
        rejected = "rejected candidate of highest probability"
        return [Answer("Probability of fluid", confidence, (rejected,))]
    return []


def _finding(report: Report) -> Facts:
    study = report.study
    found = by_certainty(report.collections)
    facts = []
    if found:
        main = found[0]
        facts += [
            ("Volume", _with_unit(main.volume_ml, 1, "mL")),
            ("Maximum thickness", _with_unit(main.max_thickness_mm, 0, "mm")),
            ("Length", _with_unit(main.extent.length_mm, 0, "mm")),
            ("Compartments", ", ".join(main.compartments) or "not reported"),
        ]
    if found[1:]:
        others = (f"{c.id}: {c.level or 'level not named'}, {c.grade}" for c in found[1:])
        facts.append(("Other collections", "; ".join(others)))
    if found or report.finding.leak != "absent":
        facts.append(("Field of view", coverage_text(report)))
    if study.study_date:
        facts.append(("Study date", date_text(study.study_date)))
    if study.patient_id:
        label = "Patient (pseudonym)" if study.identity == "hash" else "Patient"
        facts.append((label, study.patient_id))
    return facts


def _collections(report: Report, *, linked: bool) -> Table | None:
    if not report.collections:
        return None
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
        "Confidence in fluid",
    )
    rows = [
        (
            Link(str(c.id), c.epicenter_lps_mm, f"collection {c.id}", c.id)
            if linked and c.epicenter_lps_mm is not None
            else str(c.id),
            c.level or "not named",
            _span(c.segments),
            c.position.label,
            number_text(c.volume_ml, 2),
            number_text(c.extent.length_mm, 0),
            number_text(c.max_thickness_mm, 1),
            number_text(c.max_area_mm2, 0),
            _percent(c.sac_compression),
            c.pattern,
            c.grade,
            f"{c.confidence:.2f}",
        )
        for c in by_certainty(report.collections)
    ]
    return Table("Epidural fluid collections, most certain and largest first", header, rows)


def _rejected(report: Report, *, linked: bool) -> Table | None:
    """Rejected candidates, for review by the reader."""
    if not report.rejected:
        return None
    header = (
        "Center",
        "Location",
        "Volume, mL",
        "Reason for rejection",
        "Probability of epidural fluid",
    )
    rows = [
        (
            Link(_point(r.center_lps_mm), r.center_lps_mm, "this position")
            if linked and r.center_lps_mm is not None
            else _point(r.center_lps_mm),
            place_of_rejected(r),
            number_text(r.volume_ml, 2),
            r.reason,
            f"{r.probability:.2f}",
        )
        for r in report.rejected[:MAX_REJECTED_LISTED]
    ]
    return Table("Rejected bright signal outside the thecal sac", header, rows)


def _sides(report: Report) -> Table | None:
    """Return the segments with fluid, and the thickness of the fluid on each side of the sac."""
    with_fluid = [s for s in report.fluid_by_segment if s.present]
    if not with_fluid:
        return None
    rows = [
        (
            s.segment,
            *(
                f"{thickness_text(side)} ({number_text(side.area_mm2, 0)})" if side.present else "-"
                for side in (getattr(s, name) for name in SIDES)
            ),
            ", ".join(map(str, s.collections)),
        )
        for s in with_fluid
    ]
    caption = (
        f"Fluid in {len(with_fluid)} of {len(report.fluid_by_segment)} motion segments in the "
        "field of view: thickness in mm (area in mm²) within the canal"
    )
    if any(getattr(s, side).truncated for s in with_fluid for side in SIDES):
        caption += "; at least: the fluid extends to the edge of the images"
    header = ("Segment", "Dorsal", "Ventral", "Left", "Right", "Collections")
    return Table(caption, header, rows)


def _collection(c: Collection) -> Facts:
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
    if c.character is not None and (signals := signal_text(c.character)):
        facts.append(("Signal", signals))
    if measured := companion_text(c):
        facts.append(("Other series", "; ".join(measured)))
    if c.basis:
        facts.append(("Basis", _join_words(c.basis)))
    if c.mimics_considered:
        facts.append(("Mimics considered", _join_words(c.mimics_considered)))
    return facts


def _diverticula(report: Report, *, linked: bool) -> Table | None:
    """Perineural cysts and root sleeve diverticula, the largest first."""
    rows = [
        (
            Link(root, d.center_lps_mm, "this position") if linked else root,
            d.side,
            f"{d.max_diameter_mm:.1f}",
            f"{d.volume_ml:.2f}",
            f"{d.sac_distance_mm:.1f}",
            _point(d.center_lps_mm),
        )
        for d in report.finding.root_diverticula or ()
        for root in (d.root or "not named",)
    ]
    header = ("Root", "Side", "Diameter, mm", "Volume, mL", "Distance from the sac, mm", "Center")
    return Table("By size, largest first", header, rows) if rows else None


# --- levels and sac -----------------------------------------------------------------------


def _numberings(report: Report) -> Table | None:
    numbering = report.levels.numbering
    if not numbering.alternatives:
        return None
    rows = [
        (
            f"{a.shift:+d}",
            _shifted(report.finding.level, a.shift, numbering.lumbar_count),
            f"{a.confidence:.2f}",
            a.reason,
        )
        for a in numbering.alternatives
    ]
    header = ("Shift", "Level of the finding", "Confidence", "Reason")
    return Table("Alternative numberings", header, rows)


def _centers(report: Report, *, linked: bool) -> Table | None:
    levels = report.levels
    rows = [
        (
            kind,
            Link(part.name, part.center_lps_mm, part.name) if linked else part.name,
            *_xyz(part.center_lps_mm),
            f"{part.confidence:.2f}",
        )
        for kind, parts in (("vertebra", levels.vertebrae), ("disc", levels.discs))
        for part in parts
    ]
    header = ("Kind", "Name", "L, mm", "P, mm", "H, mm", "Confidence")
    caption = "Centers in patient coordinates (LPS: left, posterior, head)"
    return Table(caption, header, rows) if rows else None


def _sac(report: Report) -> Facts:
    sac = report.thecal_sac
    end = sac.caudal_end.level or (
        "not named" if sac.caudal_end.lps_mm else "not in the field of view"
    )
    return [
        ("Volume", _with_unit(sac.volume_ml, 1, "mL")),
        ("CSF volume", _with_unit(sac.csf_volume_ml, 1, "mL")),
        ("Caudal end", end),
    ]


def _segments(report: Report) -> Table | None:
    rows = [
        (
            s.segment,
            number_text(s.volume_ml, 2),
            number_text(s.min_area_mm2, 0),
            number_text(s.mean_area_mm2, 0),
            number_text(s.csf_volume_ml, 2),
        )
        for s in report.thecal_sac.by_segment
    ]
    header = ("Segment", "Volume, mL", "Minimum area, mm²", "Mean area, mm²", "CSF, mL")
    return Table("By motion segment, cranial to caudal", header, rows) if rows else None


# --- planning -----------------------------------------------------------------------------


def _planning(report: Report) -> Facts:
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
    return facts


def _distances(report: Report) -> Table | None:
    rows = [
        (
            str(t.collection),
            t.level or "not named",
            number_text(t.canal_distance_from_hiatus_mm, 0) + _range(t.canal_distance_range_mm),
            number_text(t.distance_to_caudal_end_mm, 0),
            number_text(t.distance_to_cranial_end_mm, 0),
            t.nearest_interlaminar or "unknown",
            ", ".join(f"{x.disc} {x.distance_from_hiatus_mm:.0f}" for x in t.crossings) or "none",
        )
        for t in report.planning.targets
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
    return Table("Distances along the posterior epidural space", header, rows) if rows else None


def _path(target: Target) -> Facts:
    """Minimum depth and cysts along the path to one collection."""
    facts = []
    narrowest = target.narrowest_posterior_depth
    if narrowest is not None:
        level = f" at {narrowest.level}" if narrowest.level else ""
        where = f"{narrowest.depth_mm:.1f} mm{level} ({_point(narrowest.lps_mm)})"
        facts.append(("Minimum posterior epidural depth along the path", where))
    if target.cysts:
        cysts = (f"{c.volume_ml:.2f} mL at {_point(c.center_lps_mm)}" for c in target.cysts)
        facts.append(("Cyst-like structures along the path", _join_words(cysts)))
    return facts


def _windows(target: Target) -> Table | None:
    """Interlaminar windows near one collection."""
    rows = [
        (
            w.segment,
            f"{abs(w.along_canal_mm):.0f} {'above' if w.along_canal_mm >= 0 else 'below'}",
            number_text(w.skin_to_canal_mm, 0),
        )
        for w in target.interlaminar
    ]
    header = ("Interlaminar window", "Distance from the level, mm", "Skin to canal, mm")
    caption = f"Interlaminar windows near collection {target.collection}, nearest first"
    return Table(caption, header, rows) if rows else None


# --- series and provenance ----------------------------------------------------------------


def _series(report: Report) -> Table:
    rows = [
        (
            s.description or "(no description)",
            role_name(s.role),
            ", ".join(s.used_for) or "not used",
            s.contribution,
            s.reason,
            str(s.n_instances),
            _product(s.shape, "{:d}"),
            _product(s.spacing_mm, "{:.2f}"),
            " ".join(note.message for note in s.notes),
        )
        for s in report.series
    ]
    header = (
        "Series",
        "Role",
        "Used for",
        "Contribution",
        "Reason",
        "Images",
        "Shape",
        "Spacing, mm",
        "Notes",
    )
    return Table("Series of the study and their roles", header, rows)


def _correctable(report: Report) -> dict[str, object]:
    """Values from which the page creates ``corrections.json``."""
    return {
        "study_instance_uid": report.study.study_instance_uid,
        "report_created": report.generator.created,
        "names": vertebra_chain(report.levels.numbering.lumbar_count),
        "positions_lps_mm": positions_lps_mm(report),
        "max_runs_length": MAX_RUNS_LENGTH,
    }


def _corrections(report: Report) -> Facts:
    """Return the corrections that the report contains."""
    facts = []
    for edits in report.corrections:
        words = [f"{v.name} renamed to {v.new_name}" for v in edits.vertebrae]
        words += [f"disc {d.name} {'moved' if d.lps_mm else 'deleted'}" for d in edits.discs]
        words += [
            f"collection {c.id} marked as {'true' if c.is_fluid else 'false'}"
            for c in edits.collections
        ]
        if edits.fluid is not None:
            words += [
                f"fluid {edit} ({volume:.2g} mL)"
                for edit, volume in edits.fluid.volumes_ml().items()
            ]
        facts.append(("Corrections", f"{edits.reader}, {edits.created}: {', '.join(words)}"))
    return facts


def _provenance(report: Report) -> Facts:
    generator = report.generator
    runtime = ", ".join(f"{name} {value:.1f}" for name, value in generator.runtime_s.items())
    return [
        ("Created by", f"{generator.name} {generator.version}, {generator.created}"),
        ("Study Instance UID", report.study.study_instance_uid or "none"),
        ("SHA-256 of the settings", generator.config_sha256),
        ("Run time, s", runtime),
        *_corrections(report),
    ]


# --- figures ------------------------------------------------------------------------------


def _figures(pictures: Sequence[Picture], room: int) -> dict[int | None, list[Figure]]:
    """Figures by collection (None: whole study), embedded if they fit."""
    figures: dict[int | None, list[Figure]] = {}
    for picture in pictures:
        # Titles of these repeat the heading of the page.
        top = picture.title_px if picture.kind in ("overview", "straightened") else 0
        figure = embed(picture, _caption(picture), room, top_px=top)
        room -= len(figure.data or "")
        figures.setdefault(picture.collection, []).append(figure)
    return figures


def embed(picture: Picture, caption: str, room: int, *, top_px: int = 0) -> Figure:
    """Return a figure for a page, without its top; it has no data if larger than `room` bytes."""
    rgb = picture.rgb[top_px:]
    data = base64.b64encode(_webp(rgb)).decode()
    return Figure(
        name=picture.name,
        kind=picture.kind,
        alt=picture.alt,
        caption=caption,
        width=rgb.shape[1],
        height=rgb.shape[0],
        data=data if len(data) <= room else None,
    )


def _caption(picture: Picture) -> str:
    if picture.kind == "count":
        return "Verification of the level count from C2."
    if picture.collection is None:
        straightened = "Straightened canal: the vertical axis is the distance along the canal"
        about = straightened if picture.kind == "straightened" else "Overview"
    else:
        about = f"Collection {picture.collection}, {picture.kind}"
    return f"{about}. Blue: thecal sac. Orange: epidural fluid."


def _webp(rgb: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", quality=WEBP_QUALITY, method=1)
    return buffer.getvalue()


# --- texts --------------------------------------------------------------------------------


def _range(range_mm: tuple[float, float] | None) -> str:
    return "" if range_mm is None else f" ({range_mm[0]:.0f} to {range_mm[1]:.0f})"


def coverage_text(report: Report) -> str:
    """Return the first and last level of the field of view."""
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


def date_text(text: str) -> str:
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


def number_text(value: float | None, digits: int) -> str:
    """Format a number; None is unknown."""
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
    orientation_labels = ("LR", "PA", "HF")
    return ", ".join(
        f"{pair[0] if value >= 0 else pair[1]} {abs(value):.1f} mm"
        for pair, value in zip(orientation_labels, point, strict=True)
    )


def _product(values: Sequence[float] | None, form: str) -> str:
    return "no volume" if values is None else " × ".join(form.format(v) for v in values)
