"""The report as text by headings, to paste into a reporting system."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from leakloc.anatomy.vocabulary import SIDES, role_name
from leakloc.core.errors import counted
from leakloc.localization.result import FALSE_LOCALIZING, RETROSPINAL_FLUID, by_certainty
from leakloc.report.caudal import caudal_sheet

if TYPE_CHECKING:
    from leakloc.localization.result import (
        AxialT2,
        Collection,
        DarkLine,
        DiscDistance,
        FluidCharacter,
        Interruption,
        LengthMark,
        MetalArtifact,
        PosteriorExtension,
        RootDiverticulum,
        SegmentFluid,
        SideFluid,
        Target,
    )
    from leakloc.report.model import Rejected, Report, Series

Section = tuple[str, tuple[str, ...]]
"""A heading and its sentences."""

LIMITATIONS: Final = (
    "The location of fluid is shown; a dural tear may be distant from it and is not localized.",
    "CSF-venous fistulas, distal root sleeve leaks and intermittent or rapid leaks may show no "
    "fluid; absence of detected fluid does not exclude a leak.",
    "Signal alone does not distinguish CSF from seroma or liquefied hematoma.",
)

_MAX_OTHER: Final = 6
"""Number of other bright structures that are listed, in order of probability."""
_WIDTH: Final = 92

_MIN_LINE_FRACTION: Final = 0.1
"""Below this fraction of the interface, the dark line is stated as not detected."""


def report_text(report: Report) -> str:
    """Return the report as plain text: technique, comparison, findings, impression, limitations."""
    parts = []
    for heading, sentences in report_sections(report):
        lines = [textwrap.fill(sentence, _WIDTH) for sentence in sentences]
        parts.append("\n".join([heading.upper(), *lines]))
    return "\n\n".join([*parts, textwrap.fill(report.notice, _WIDTH)]) + "\n"


def headline(report: Report) -> str:
    """Return the finding in a few words, for the first line of the HTML report."""
    finding, coverage = report.finding, report.quality.coverage
    if not report.collections:
        if finding.leak == "indeterminate":
            return "Epidural fluid: indeterminate"
        where = f", {coverage.cranial} to {coverage.caudal}" if coverage.cranial else ""
        return f"No epidural fluid detected{where}"
    main = by_certainty(report.collections)[0]
    parts = ["Epidural fluid" if finding.leak == "present" else "Possible epidural fluid"]
    parts.append(main.position.label)
    if not main.segments:
        parts.append(f"{main.extent.length_mm:.0f} mm long, level not named")
    else:
        parts.append(" to ".join(dict.fromkeys((main.segments[0], main.segments[-1]))))
    largest = f"; largest at {main.level}" if len(main.segments) > 1 and main.level else ""
    return f"{', '.join(parts)}{largest}"


def numbering_caveat(report: Report) -> str:
    """Return the assumption of the level names and its confidence."""
    if report.levels.status == "unlabelled":
        return "Vertebral levels could not be named: determine the level on the images."
    numbering = report.levels.numbering
    text = (
        f"Level names assume {numbering.assumption.partition(';')[0]} (numbering confidence "
        f"{numbering.confidence:.2f})"
    )
    if numbering.transitional_suspected:
        text += ". Transitional vertebra suspected: verify the numbering first"
    return f"{text}."


def report_sections(report: Report) -> tuple[Section, ...]:
    """Return headings and sentences of the report, in the order of a radiology report."""
    return (
        ("Technique", _technique(report)),
        ("Comparison", ("None used by the software.",)),
        ("Numbering and coverage", _numbering(report)),
        ("Epidural fluid", _fluid(report)),
        ("Nerve root sleeves", diverticula_sentences(report)),
        ("Postoperative changes", postoperative_sentences(report)),
        ("Thecal sac and conus", _sac(report)),
        ("Other bright structures", _others(report)),
        ("Caudal access geometry", _planning(report)),
        ("Image quality", _quality(report)),
        ("Impression", _impression(report)),
        ("Limitations", LIMITATIONS),
    )


def _technique(report: Report) -> tuple[str, ...]:
    sentences = []
    for series in report.series:
        if not series.used_for:
            continue
        kind = "MR myelography" if "fluid" in series.used_for else _series_name(series)
        voxel = ""
        if series.spacing_mm is not None:
            voxel = f", voxels of {' x '.join(f'{mm:.2g}' for mm in series.spacing_mm)} mm"
        sentences.append(f"{_capitalized(kind)}{voxel}: {series.contribution}.")
    generator = report.generator
    return (*sentences, f"Automated measurement with {generator.name} {generator.version}.")


def _series_name(series: Series) -> str:
    if series.role == "myelogram":
        return "second MR myelography"
    return "T1 series" if series.role == "other" else role_name(series.role)


def _numbering(report: Report) -> tuple[str, ...]:
    coverage, levels = report.quality.coverage, report.levels
    if levels.status == "unlabelled":
        return ("Vertebral levels could not be named.",)
    numbering = levels.numbering
    sentences = [f"Field of view from {coverage.cranial} to {coverage.caudal}."]
    sentences.append(
        f"Levels assume {numbering.assumption.partition(';')[0]} (confidence "
        f"{numbering.confidence:.2f})."
    )
    if numbering.transitional_suspected:
        sentences.append("A transitional vertebra is suspected: verify the numbering.")
    return tuple(sentences)


def _fluid(report: Report) -> tuple[str, ...]:
    if not report.collections:
        return ("No epidural fluid collection detected.", *retrospinal_sentences(report))
    with_fluid = [s for s in report.fluid_by_segment if s.present]
    sentences = [_collection(c) for c in by_certainty(report.collections)]
    if with_fluid:
        listed = "; ".join(f"{s.segment} {_sides(s)}" for s in with_fluid)
        sentences.append(f"Motion segments with fluid: {len(with_fluid)} ({listed}).")
    return (*sentences, *retrospinal_sentences(report))


def retrospinal_sentences(report: Report) -> tuple[str, ...]:
    """Return a sentence on retrospinal fluid at C1-C2; none if not assessed and C2 is not named."""
    fluid = report.finding.retrospinal_c1_c2
    if fluid is None:
        return ()
    if fluid.present is None:
        if all(v.name != "C2" for v in report.levels.vertebrae):
            return ()
        return (f"Retrospinal fluid at C1-C2 not assessed: {fluid.not_assessed}.",)
    if not fluid.present:
        return ("No retrospinal fluid at C1-C2 detected.",)
    size = (
        f"{fluid.volume_ml:.1f} mL, {fluid.side}; confidence of the label C2 {fluid.confidence:.2f}"
    )
    return (f"{_capitalized(RETROSPINAL_FLUID)} ({size}): {FALSE_LOCALIZING}.",)


def _collection(c: Collection) -> str:
    span = "level not named"
    if c.segments:
        ends = dict.fromkeys((c.segments[0], c.segments[-1]))
        span = " to ".join(ends)
    largest = ""
    if c.level is not None and len(c.segments) > 1:
        largest = f", largest at {' or '.join(c.level_set or (c.level,))}"
    size = [
        f"{value:.{digits}f} {unit}"
        for value, digits, unit in (
            (c.volume_ml, 1, "mL"),
            (c.max_thickness_mm, 0, "mm thick"),
            (c.extent.length_mm, 0, "mm long"),
        )
        if value is not None
    ]
    parts = [f"Collection {c.id} ({c.grade}): {c.position.label}, {span}{largest}"]
    parts.append(f"{', '.join(size)}; {c.pattern}, {', '.join(c.compartments)}")
    if c.floating_sac:
        parts.append("fluid surrounds the dural sac (floating dural sac sign)")
    if c.character is not None and (signals := signal_text(c.character)):
        parts.append(signals)
    parts += companion_text(c)
    if c.sac_compression:
        parts.append(f"sac compression {c.sac_compression:.0%}")
    return "; ".join(parts) + "."


def signal_text(character: FluidCharacter) -> str:
    """Return the signal ratios of a collection and the kind of fluid they resemble."""
    known = [m for m in character.ratios if m.ratio is not None]
    if not known:
        return ""
    listed = ", ".join(
        f"{role_name(m.role)} {m.ratio:.2f} "
        f"({m.low:.2f}-{m.high:.2f}, {counted(m.n_voxels, 'voxels')})"
        for m in known
    )
    kind = f": {character.kind}" if character.kind is not None else ""
    return f"signal relative to CSF in the sac {listed}{kind}"


def companion_text(c: Collection) -> list[str]:
    """Return what axial T2, T1 before and after contrast and a second myelogram show."""
    parts = []
    if c.axial_t2 is not None:
        parts += _axial_text(c.axial_t2)
    if c.enhancement is not None and c.enhancement.rim is not None:
        found = "rim enhancement" if c.enhancement.rim else "no rim enhancement"
        parts.append(
            f"{found} on T1 after contrast (rise {c.enhancement.rise:.2f} of muscle signal around, "
            f"{c.enhancement.interior_rise:.2f} within)"
        )
    if c.second_myelogram is not None:
        volume = c.second_myelogram.volume_ml
        size = f" ({volume:.1f} mL)" if volume is not None and volume > 0 else ""
        parts.append(f"second myelogram: {c.second_myelogram.agreement}{size}")
    return parts


def axial_signal(axial: AxialT2) -> str:
    """Return the signal on axial T2 in words; empty if not measured."""
    if axial.bright is None:
        return ""
    if not axial.bright:
        return "darker than CSF"
    return (
        "as bright as CSF, brighter than fat" if axial.confirms else "bright; fat is not excluded"
    )


def line_text(line: DarkLine) -> str:
    """Return whether a dark line was detected between sac and collection."""
    if line.fraction is None:
        return f"dark line between sac and fluid not measured ({line.not_measured})"
    detected = f"detected along {line.fraction:.0%} of the interface with the sac"
    found = "not detected" if line.fraction < _MIN_LINE_FRACTION else detected
    samples = f"{counted(line.n_slices, 'axial slices')}, {counted(line.n_samples, 'samples')}"
    excluded = f"; {line.n_excluded} at darker tissue not counted" if line.n_excluded else ""
    return f"dark line {found} ({samples}{excluded})"


def interruption_text(gap: Interruption) -> str:
    """Return an interruption of the dark line."""
    where = "" if gap.level is None else f" at {gap.level}"
    return (
        f"interruption of the dark line{where}, {gap.side} ({gap.angle_deg:.0f}°), "
        f"{gap.width_mm:.1f} mm wide, with fluid signal across; not evidence of a tear"
    )


def _axial_text(axial: AxialT2) -> list[str]:
    side = {True: "side confirmed", False: "opposite side brighter", None: "side not compared"}
    signal, fat = axial_signal(axial), ""
    if axial.fat_ratio is not None and axial.fat_high is not None:
        fat = f" (fat {axial.fat_ratio:.2f}, up to {axial.fat_high:.2f} of CSF)"
    parts = [f"on axial T2 {signal}{fat}, {side[axial.side_confirmed]}"] if signal else []
    line = axial.dark_line
    if line is not None and (axial.bright or line.fraction is not None):
        parts.append(line_text(line))
    if line is not None and line.interruption is not None:
        parts.append(interruption_text(line.interruption))
    return parts


def _sides(segment: SegmentFluid) -> str:
    sides = ((side, getattr(segment, side)) for side in SIDES)
    listed = [
        f"{side} {thickness_text(fluid)} mm"
        + ("" if fluid.area_mm2 is None else f" ({fluid.area_mm2:.0f} mm²)")
        for side, fluid in sides
        if fluid.present
    ]
    return ", ".join(listed) or "outside the canal"


def thickness_text(fluid: SideFluid) -> str:
    """Return the thickness of fluid in mm; a minimum if it is truncated by the images' edge."""
    if fluid.thickness_mm is None:
        return "unknown"
    return f"{'at least ' if fluid.truncated else ''}{fluid.thickness_mm:.1f}"


def diverticula_sentences(report: Report) -> tuple[str, ...]:
    """Return sentences on perineural cysts and root sleeve diverticula, largest first."""
    found = report.finding.root_diverticula
    if found is None:
        return ("Not assessed.",)
    if not found:
        return ("No perineural cyst or root sleeve diverticulum detected.",)
    largest, *others = map(diverticulum_text, found)
    prefix = "Largest perineural" if others else "Perineural"
    sentences = [f"{prefix} cyst or root sleeve diverticulum: {largest}."]
    if others:
        sentences.append(f"Others: {'; '.join(others)}.")
    return tuple(sentences)


def diverticulum_text(d: RootDiverticulum) -> str:
    """Return the root, size and distance from the sac of a diverticulum."""
    root = f"{d.side} {d.root} root" if d.root is not None else f"{d.side}, root not named"
    return (
        f"{root}, {d.max_diameter_mm:.0f} mm, {d.volume_ml:.2f} mL, {d.sac_distance_mm:.0f} mm "
        "from the sac"
    )


def postoperative_sentences(report: Report) -> tuple[str, ...]:
    """Return sentences on posterior arches, posterior extension of fluid and metal."""
    changes = report.postoperative
    if changes is None:
        return ("Not assessed.",)
    sentences = []
    assessed = [arch for arch in changes.arches if arch.present is not None]
    absent = [arch for arch in assessed if not arch.present]
    if absent:
        listed = ", ".join(f"{arch.vertebra} (confidence {arch.confidence:.2f})" for arch in absent)
        sentences.append(f"Spinous process not identified: {listed}; verify on the images.")
    elif assessed:
        listed = ", ".join(arch.vertebra for arch in assessed)
        sentences.append(f"Spinous processes identified: {listed}.")
    unknown = [arch.vertebra for arch in changes.arches if arch.present is None]
    if unknown and changes.arches_assessed:
        sentences.append(f"Spinous process indeterminate: {', '.join(unknown)}.")
    if not changes.arches_assessed:
        sentences.append(
            "Posterior arches not assessed: requires a sagittal T2 series and named levels."
        )
    sentences += map(extension_text, changes.extensions)
    sentences += map(metal_text, changes.metal)
    if not changes.metal_assessed:
        sentences.append("Metal artifacts not assessed: requires a sagittal T2 series.")
    elif not changes.metal:
        sentences.append("No signal void of an implant detected near the canal.")
    return tuple(sentences)


def extension_text(extension: PosteriorExtension) -> str:
    """Return neck and posterior end of fluid posterior to the canal."""
    parts = [f"Collection {extension.collection} extends posterior to the canal"]
    if extension.neck_width_mm is not None:
        where = "" if extension.neck_level is None else f" at {extension.neck_level}"
        parts.append(f"neck{where}, {extension.neck_width_mm:.0f} mm wide")
    where = "" if extension.end_level is None else f" at {extension.end_level}"
    end = (
        f"posterior end in the {extension.compartment} tissue{where}, "
        f"{extension.canal_distance_mm:.0f} mm from the canal"
    )
    if extension.skin_distance_mm is not None:
        end += f", {extension.skin_distance_mm:.0f} mm from the skin"
    return f"{'; '.join([*parts, end])}."


def metal_text(artifact: MetalArtifact) -> str:
    """Return the level and length of a signal void, and the canal that it hides."""
    where = " and ".join(artifact.segments) or "an unnamed level"
    text = f"Signal void at {where}, consistent with metal, {artifact.length_mm:.0f} mm long"
    if artifact.hidden_canal_mm:
        return (
            f"{text}; fluid may not be visible in {artifact.hidden_canal_mm:.0f} mm of the canal."
        )
    return f"{text}, {artifact.canal_distance_mm:.0f} mm from the canal."


def _sac(report: Report) -> tuple[str, ...]:
    sac, conus = report.thecal_sac, report.levels.conus
    sentences = []
    if sac.csf_volume_ml is not None:
        sentences.append(
            f"CSF in the thecal sac within the field of view: {sac.csf_volume_ml:.0f} mL."
        )
    areas = [s for s in sac.by_segment if s.min_area_mm2 is not None]
    if areas:
        narrowest = min(areas, key=lambda s: s.min_area_mm2 or 0.0)
        sentences.append(
            f"Smallest cross-section {narrowest.min_area_mm2:.0f} mm² at {narrowest.segment}."
        )
    if sac.caudal_end.level is not None:
        sentences.append(f"The sac ends at {sac.caudal_end.level}.")
    if conus is not None and conus.level is not None:
        sentences.append(f"Conus medullaris at {conus.level}.")
    return tuple(sentences) or ("Not measured.",)


def _others(report: Report) -> tuple[str, ...]:
    listed = report.rejected[:_MAX_OTHER]
    sentences = [f"{_capitalized(rejected_text(found))}." for found in listed]
    if more := len(report.rejected) - len(listed):
        sentences.append(f"{more} more not classified as epidural fluid, of lower probability.")
    return tuple(sentences) or ("None listed.",)


def place_of_rejected(found: Rejected) -> str:
    """Return the level, direction and side of a rejected candidate."""
    level, direction = found.level or "level not named", found.position
    return ", ".join(dict.fromkeys(filter(None, (level, direction, found.side))))


def rejected_text(found: Rejected) -> str:
    """Return the assumed mimic, place and size of a rejected candidate, and why it is one."""
    mimic = " or ".join(found.mimics) or "bright signal"
    return (
        f"{mimic}, {place_of_rejected(found)}: {found.volume_ml:.1f} mL; "
        f"not classified as epidural fluid (probability {found.probability:.2f}): "
        f"{found.reason.removesuffix('.')}"
    )


def _planning(report: Report) -> tuple[str, ...]:
    sheet, planning = caudal_sheet(report), report.planning
    is_visible = planning.sacral_hiatus.visible
    sentences = ["Sacral hiatus detected." if is_visible else "Sacral hiatus not detected."]
    if sheet is not None:
        hiatus = "; ".join(f"{name[:1].lower()}{name[1:]} {value}" for name, value in sheet.hiatus)
        sentences.append(f"{_capitalized(hiatus)}.")
        sentences += [f"{name}: {value}." for name, value in sheet.way]
    if planning.caudal_access is not None and planning.caudal_access.discs:
        discs = "; ".join(map(_disc, planning.caudal_access.discs))
        sentences.append(f"Distance from the hiatus to each disc: {discs}.")
    if planning.length_marks:
        by_segment = groupby(planning.length_marks, key=lambda mark: mark.segment)
        marks = "; ".join(_marks(segment, list(group)) for segment, group in by_segment)
        sentences.append(f"Level reached along the path from the hiatus: {marks}.")
    sentences += filter(None, map(_target, planning.targets))
    return tuple(sentences)


def _disc(disc: DiscDistance) -> str:
    measured, low_high = disc.distance_from_hiatus_mm, disc.distance_range_mm
    text = "not measured" if measured is None else f"{measured:.0f} mm"
    if low_high is not None:
        text += f" (range {low_high[0]:.0f} to {low_high[1]:.0f} mm)"
    low, high = disc.typical_range_mm
    return f"{disc.disc} {text}, adults {disc.typical_mm:.0f} mm ({low:.0f} to {high:.0f} mm)"


def _marks(segment: str, marks: Sequence[LengthMark]) -> str:
    """Return the lengths at which the path is in a segment, and the epidural depth there."""
    lengths = dict.fromkeys(f"{m.distance_from_hiatus_mm:.0f}" for m in (marks[0], marks[-1]))
    depths = [m.posterior_depth_mm for m in marks if m.posterior_depth_mm is not None]
    depth = ""
    if depths:
        limits = dict.fromkeys(f"{mm:.1f}" for mm in (min(depths), max(depths)))
        depth = f" (epidural depth {' to '.join(limits)} mm)"
    return f"{segment} at {' to '.join(lengths)} mm{depth}"


def _target(target: Target) -> str:
    distance, limits = target.canal_distance_from_hiatus_mm, target.canal_distance_range_mm
    if distance is None:
        return ""
    where = target.level or "its level"
    text = f"Collection {target.collection}: {distance:.0f} mm along the canal to {where}"
    if limits is not None:
        text += f" from the expected hiatus (range {limits[0]:.0f} to {limits[1]:.0f} mm)"
    return f"{text}."


def _quality(report: Report) -> tuple[str, ...]:
    snr = report.quality.snr
    sentences = [] if snr is None else [f"Signal-to-noise ratio of CSF: {snr:.0f}."]
    sentences += [
        _capitalized(w.message if w.message.endswith(".") else f"{w.message}.")
        for w in report.quality.warnings
    ]
    return tuple(sentences) or ("No warning.",)


def _impression(report: Report) -> tuple[str, ...]:
    others = alternative_levels(report, in_summary=False)
    return (report.finding.summary, *([f"Alternative level: {others}."] if others else []))


def alternative_levels(report: Report, *, in_summary: bool = True) -> str:
    """Return the alternative levels of the main collection, best first; empty without any.

    Parameters
    ----------
    report : Report
    in_summary : bool
        Include the levels of `Collection.level_set`, which the summary of the finding names.
    """
    main = by_certainty(report.collections)[:1]
    return " or ".join(
        other.level
        for c in main
        for other in c.alternatives
        if in_summary or len(c.segments) < 2 or other.level not in c.level_set
    )


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
