"""Measurement groups of a report: coded findings with position, values and answers.

The structured report, the FHIR bundle and ``measurements.csv`` are created from these groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from leakloc.anatomy.vocabulary import (
    EPIDURAL_FLUID,
    SIDES,
    THECAL_SAC,
    CodedTerm,
    Position,
    level_code,
    private_term,
    role_name,
    vertebra_code,
)
from leakloc.report import clinical_terms as terms
from leakloc.report.caudal import stretch_text, structure_text
from leakloc.report.text import (
    axial_signal,
    diverticulum_text,
    extension_text,
    interruption_text,
    line_text,
    metal_text,
    rejected_text,
    retrospinal_sentences,
    thickness_text,
)

if TYPE_CHECKING:
    from leakloc.core.parts import Point
    from leakloc.localization.result import AxialT2, Collection, DarkLine, SideFluid
    from leakloc.report.model import Report

Unit = Literal["mm", "mm2", "cm3", "deg", "1"]
"""UCUM unit; ``1`` for ratios, probabilities and counts."""


_CURVE_STEP_MM: Final = 2.0
"""Distance of the points of a curve, a fifth of that of the length marks."""

_MIN_CURVE_POINTS: Final = 6
"""Cornerstone3D reads curves of four and five points as rectangles."""


class Value(NamedTuple):
    """A measured value; `derivation` is, for example, the maximum."""

    term: CodedTerm
    value: float
    unit: Unit
    derivation: CodedTerm | None = None

    @property
    def name(self) -> str:
        """Name of the value, with its derivation."""
        derived = "" if self.derivation is None else f", {self.derivation.meaning.lower()}"
        return f"{self.term.meaning}{derived}"


class Answer(NamedTuple):
    """A qualitative evaluation."""

    question: CodedTerm
    answer: CodedTerm


@dataclass(frozen=True)
class Group:
    """A finding with its position and measurements.

    Parameters
    ----------
    name : str
        Unique in the report. The tracking identifier in DICOM: groups and segments of the same
        structure have the same.
    finding : CodedTerm
    text : str
        Description in words.
    level : str or None
        Motion segment or vertebra.
    side : Position or None
        Side of the thecal sac or of the patient.
    state : CodedTerm or None
        Whether the finding is present.
    values : tuple of Value
    answers : tuple of Answer
    place : CodedTerm
        Meaning of `points_lps`.
    points_lps : tuple of Point
        One point, or the points of a curve that ends at the finding, in LPS mm; empty if the
        position is unknown.
    in_sac : bool
        Whether the group is placed in the thecal sac if `points_lps` is empty.
    """

    name: str
    finding: CodedTerm
    text: str
    level: str | None = None
    side: Position | None = None
    state: CodedTerm | None = None
    values: tuple[Value, ...] = ()
    answers: tuple[Answer, ...] = ()
    place: CodedTerm = terms.CENTER
    points_lps: tuple[Point, ...] = ()
    in_sac: bool = False

    @property
    def site(self) -> CodedTerm:
        """Code of the level; the spine if it is not named."""
        if self.level is None:
            return terms.SPINE
        return level_code(self.level) if "-" in self.level else vertebra_code(self.level)


def measurement_groups(report: Report) -> tuple[Group, ...]:
    """Return all groups: study, sac, fluid, nerve roots, surgical bed, path, rejected."""
    return (
        _study(report),
        _thecal_sac(report),
        *(group for c in report.collections for group in _collection(report, c)),
        *_sides(report),
        *_retrospinal(report),
        *_diverticula(report),
        *_postoperative(report),
        *_hiatus(report),
        *_path(report),
        *_structures(report),
        *_rejected(report),
    )


def _study(report: Report) -> Group:
    """Return the finding of the study, placed at its main collection or in the sac."""
    finding, numbering = report.finding, report.levels.numbering
    main = next((c for c in report.collections if c.level == finding.level), None)
    answers = [_answer("NUMBERING", "Level numbering", numbering.method)]
    for part in report.fluid_by_segment:
        question = terms.SEGMENT_WITH if part.present else terms.SEGMENT_WITHOUT
        answers.append(Answer(question, level_code(part.segment)))
    if finding.root_diverticula is not None:
        state = terms.LEAK["present" if finding.root_diverticula else "absent"]
        answers.append(Answer(terms.ROOT_DIVERTICULUM, state))
    changes = report.postoperative
    if changes is not None:
        for code, meaning, is_assessed in (
            ("ARCHES", "Posterior arches", changes.arches_assessed),
            ("METAL", "Metal artifacts", changes.metal_assessed),
        ):
            assessed = "assessed" if is_assessed else "not assessed"
            answers.append(_answer(code, meaning, assessed))
    return Group(
        "study",
        EPIDURAL_FLUID,
        f"Study: {finding.summary}",
        level=finding.level,
        state=terms.LEAK[finding.leak],
        values=_values(
            (terms.PROBABILITY, finding.confidence, "1"),
            (terms.NUMBERING_CONFIDENCE, numbering.confidence, "1"),
        ),
        answers=tuple(answers),
        place=terms.EPICENTER,
        points_lps=_points(main.epicenter_lps_mm if main is not None else None),
        in_sac=True,
    )


def _thecal_sac(report: Report) -> Group:
    sac, end = report.thecal_sac, report.thecal_sac.caudal_end
    return Group(
        "thecal sac",
        THECAL_SAC,
        f"Thecal sac{f', caudal end at {end.level}' if end.level else ''}",
        values=_values(
            (terms.VOLUME, sac.volume_ml, "cm3"),
            (terms.CSF_VOLUME, sac.csf_volume_ml, "cm3"),
            (terms.PATH_LENGTH, report.planning.sac_tip_to_hiatus_mm, "mm"),
        ),
        place=terms.CAUDAL_END,
        points_lps=_points(end.lps_mm),
        in_sac=True,
    )


# --- fluid ----------------------------------------------------------------------------------


def _collection(report: Report, c: Collection) -> Iterator[Group]:
    """Yield a collection and its ends along the canal."""
    target = next((t for t in report.planning.targets if t.collection == c.id), None)
    length = None if target is None else target.canal_distance_from_hiatus_mm
    words = [f"Epidural fluid {c.id}", c.level, c.position.label, c.grade]
    if c.volume_ml is not None:
        words.append(f"{c.volume_ml:.1f} mL")
    name = f"epidural fluid {c.id}"
    yield Group(
        name,
        EPIDURAL_FLUID,
        ", ".join(word for word in words if word),
        level=c.level,
        side=c.position.label,
        values=_values(
            (terms.VOLUME, c.volume_ml, "cm3"),
            (terms.LENGTH, c.extent.length_mm, "mm"),
            (terms.DEPTH, c.max_thickness_mm, "mm", terms.MAXIMUM),
            (terms.AREA, c.max_area_mm2, "mm2", terms.MAXIMUM),
            (terms.PROBABILITY, c.confidence, "1"),
            (terms.SAC_COMPRESSION, c.sac_compression, "1"),
            (terms.PATH_LENGTH, length, "mm"),
            *(
                (terms.signal_ratio(role_name(measured.role)), measured.ratio, "1")
                for measured in (c.character.ratios if c.character is not None else ())
            ),
            *_axial_signals(c.axial_t2),
        ),
        answers=tuple(_collection_answers(c)),
        place=terms.EPICENTER,
        points_lps=_points(c.epicenter_lps_mm),
    )
    if c.axial_t2 is not None and c.axial_t2.dark_line is not None:
        yield from _dark_line(c.id, c.level, c.axial_t2.dark_line)
    for term, end_name, end in (
        (terms.CRANIAL_END, "cranial", c.extent.cranial),
        (terms.CAUDAL_END, "caudal", c.extent.caudal),
    ):
        if end.lps_mm is None:
            continue
        distance = None if target is None else getattr(target, f"distance_to_{end_name}_end_mm")
        where = end.description or end.segment
        yield Group(
            f"{name} {end_name} end",
            EPIDURAL_FLUID,
            f"Epidural fluid {c.id}, {end_name} end" + (f": {where}" if where else ""),
            level=end.segment,
            values=_values((terms.PATH_LENGTH, distance, "mm")),
            place=term,
            points_lps=_points(end.lps_mm),
        )
    if target is not None and len(target.path_lps_mm) > 1:
        yield Group(
            f"path to {name}",
            terms.PATH,
            f"Path from the sacral hiatus to epidural fluid {c.id}",
            level=target.level,
            values=_values((terms.PATH_LENGTH, length, "mm")),
            place=terms.PATH,
            points_lps=target.path_lps_mm,
        )


def _axial_signals(axial: AxialT2 | None) -> list[tuple[CodedTerm, float | None, Unit]]:
    if axial is None:
        return []
    return [
        (terms.signal_ratio(role_name("axial_t2")), axial.ratio, "1"),
        (terms.FAT_SIGNAL, axial.fat_ratio, "1"),
        (terms.FAT_SIGNAL_HIGH, axial.fat_high, "1"),
    ]


def _dark_line(number: int, level: str | None, line: DarkLine) -> Iterator[Group]:
    """Yield the dark line between the sac and a collection, and its interruption."""
    reason = line.not_measured
    yield Group(
        f"dark line {number}",
        terms.DARK_LINE,
        f"Epidural fluid {number}: {line_text(line)}",
        level=level,
        values=_values(
            (terms.LINE_FRACTION, line.fraction, "1"),
            (terms.LINE_SLICES, line.n_slices, "1"),
            (terms.LINE_SAMPLES, line.n_samples, "1"),
            (terms.LINE_EXCLUDED, line.n_excluded, "1"),
        ),
        answers=() if reason is None else (_answer("NOTMEASURED", "Not measured", reason),),
    )
    gap = line.interruption
    if gap is not None:
        yield Group(
            f"interruption of dark line {number}",
            terms.INTERRUPTION,
            f"Epidural fluid {number}: {interruption_text(gap)}",
            level=gap.level,
            side=gap.side,
            values=_values(
                (terms.WIDTH, gap.width_mm, "mm"),
                (terms.ANGLE, gap.angle_deg, "deg"),
            ),
            points_lps=_points(gap.center_lps_mm),
        )


def _collection_answers(c: Collection) -> Iterator[Answer]:
    yield _answer("GRADE", "Grade", c.grade)
    yield _answer("PATTERN", "Pattern", c.pattern)
    if c.character is not None and c.character.kind is not None:
        yield _answer("SIGNALKIND", "Signal resembles", c.character.kind)
    if c.second_myelogram is not None:
        agreement = c.second_myelogram.agreement
        yield _answer("SECONDMYELO", "On the second myelogram", agreement)
    if c.axial_t2 is not None and (signal := axial_signal(c.axial_t2)):
        yield _answer("AXIALT2", "Signal on axial T2", signal)
    if c.enhancement is not None and c.enhancement.rim is not None:
        rim = "present" if c.enhancement.rim else "absent"
        yield _answer("RIM", "Rim enhancement on T1", rim)
    for name in c.compartments:
        yield _answer("COMPARTMENT", "Compartment", name)
    for other in c.alternatives:
        yield Answer(terms.ALTERNATIVE_LEVEL, level_code(other.level))


def _sides(report: Report) -> Iterator[Group]:
    """Yield the fluid on each side of the sac in each motion segment, placed at its disc."""
    discs = {disc.name: disc.center_lps_mm for disc in report.levels.discs}
    for part in report.fluid_by_segment:
        listed = " and ".join(map(str, part.collections))
        for side in SIDES:
            fluid: SideFluid = getattr(part, side)
            if not fluid.present:
                continue
            yield Group(
                f"epidural fluid {part.segment} {side}",
                EPIDURAL_FLUID,
                f"Epidural fluid {part.segment}, {side}, {thickness_text(fluid)} mm thick, "
                f"collection {listed}",
                level=part.segment,
                side=side,
                values=_values(
                    (terms.DEPTH, fluid.thickness_mm, "mm", terms.MAXIMUM),
                    (terms.AREA, fluid.area_mm2, "mm2", terms.MAXIMUM),
                ),
                place=terms.DISC_CENTER,
                points_lps=_points(discs.get(part.segment)),
            )


def _retrospinal(report: Report) -> Iterator[Group]:
    """Yield retrospinal fluid at C1-C2, or its absence."""
    fluid, sentences = report.finding.retrospinal_c1_c2, retrospinal_sentences(report)
    if fluid is not None and sentences:
        yield Group(
            "retrospinal fluid C1-C2",
            terms.RETROSPINAL_FLUID,
            " ".join(sentences),
            level="C1-C2",
            state=terms.PRESENCE[fluid.present],
            values=_values(
                (terms.VOLUME, fluid.volume_ml, "cm3"),
                (terms.LABEL_CONFIDENCE, fluid.confidence, "1"),
            ),
            points_lps=_points(fluid.center_lps_mm),
        )


# --- nerve roots and surgical bed -------------------------------------------------------------


def _diverticula(report: Report) -> Iterator[Group]:
    for number, found in enumerate(report.finding.root_diverticula or (), 1):
        root = [Answer(terms.NERVE_ROOT, terms.root_code(found.root))] if found.root else []
        yield Group(
            f"root diverticulum {number}",
            terms.ROOT_DIVERTICULUM,
            f"Perineural cyst or root sleeve diverticulum: {diverticulum_text(found)}",
            side=found.side,
            values=_values(
                (terms.DIAMETER, found.max_diameter_mm, "mm", terms.MAXIMUM),
                (terms.VOLUME, found.volume_ml, "cm3"),
                (terms.SAC_DISTANCE, found.sac_distance_mm, "mm"),
            ),
            answers=tuple(root),
            points_lps=(found.center_lps_mm,),
        )


def _postoperative(report: Report) -> Iterator[Group]:
    """Yield posterior arches, posterior extensions of fluid with their necks, and metal."""
    changes = report.postoperative
    if changes is None:
        return
    bodies = {vertebra.name: vertebra.center_lps_mm for vertebra in report.levels.vertebrae}
    for arch in changes.arches:
        state = terms.PRESENCE[arch.present]
        yield Group(
            f"posterior arch {arch.vertebra}",
            terms.SPINOUS_PROCESS,
            f"Spinous process of {arch.vertebra}: {state.meaning.lower()}",
            level=arch.vertebra,
            state=state,
            values=_values((terms.PROBABILITY, arch.confidence, "1")),
            place=terms.BODY_CENTER,
            points_lps=_points(bodies.get(arch.vertebra)),
        )
    for extension in changes.extensions:
        yield Group(
            f"posterior extension {extension.collection}",
            terms.POSTERIOR_EXTENSION,
            extension_text(extension),
            level=extension.end_level,
            values=_values(
                (terms.CANAL_DISTANCE, extension.canal_distance_mm, "mm"),
                (terms.SKIN_DISTANCE, extension.skin_distance_mm, "mm"),
            ),
            answers=(_answer("COMPARTMENT", "Compartment", extension.compartment),),
            place=terms.POSTERIOR_END,
            points_lps=(extension.end_lps_mm,),
        )
        if extension.neck_width_mm is not None:
            yield Group(
                f"neck {extension.collection}",
                terms.NECK,
                f"Neck of collection {extension.collection} posterior to the canal",
                level=extension.neck_level,
                values=_values((terms.WIDTH, extension.neck_width_mm, "mm")),
                points_lps=_points(extension.neck_lps_mm),
            )
    for number, metal in enumerate(changes.metal, 1):
        middle = tuple(
            0.5 * (a + b) for a, b in zip(metal.cranial_lps_mm, metal.caudal_lps_mm, strict=True)
        )
        yield Group(
            f"signal void {number}",
            terms.SIGNAL_VOID,
            metal_text(metal),
            level=metal.segments[0] if metal.segments else None,
            values=_values(
                (terms.LENGTH, metal.length_mm, "mm"),
                (terms.CANAL_DISTANCE, metal.canal_distance_mm, "mm"),
                (terms.HIDDEN_CANAL, metal.hidden_canal_mm, "mm"),
            ),
            answers=_segments(metal.segments),
            points_lps=((middle[0], middle[1], middle[2]),),
        )


# --- hiatus and path --------------------------------------------------------------------------


def _hiatus(report: Report) -> Iterator[Group]:
    """Yield the detected sacral hiatus, or its expected position; nothing if unknown."""
    hiatus, access = report.planning.sacral_hiatus, report.planning.caudal_access
    if hiatus.lps_mm is not None:
        term, point, text = terms.HIATUS, hiatus.lps_mm, "Sacral hiatus"
        confidence: float | None = hiatus.confidence
    elif hiatus.expected is not None:
        term, point, confidence = terms.EXPECTED_HIATUS, hiatus.expected.lps_mm, None
        text = f"Sacral hiatus not detected; expected at {hiatus.expected.level}"
    else:
        return
    values = [Value(terms.PROBABILITY, confidence, "1")] if confidence is not None else []
    if access is not None:
        values += _values(
            (terms.HEIGHT, access.hiatus_height_mm, "mm"),
            (terms.WIDTH, access.hiatus_width_mm, "mm"),
            (terms.DEPTH, access.hiatus_depth_mm, "mm"),
            (terms.ANGLE, access.canal_to_skin_deg, "deg"),
            (terms.SKIN_DISTANCE, access.skin_to_hiatus_mm, "mm"),
            (terms.FAT_ASSESSED, access.assessed_mm, "mm"),
        )
        missing = (f"; {key} not measured: {why}" for key, why in access.not_measured.items())
        text += "".join(missing)
    yield Group("sacral hiatus", term, text, values=tuple(values), place=term, points_lps=(point,))


def _path(report: Report) -> Iterator[Group]:
    """Yield length marks, discs and stretches without fat along the path, as curves."""
    planning, access = report.planning, report.planning.caudal_access
    for mark in planning.length_marks:
        length = f"{mark.distance_from_hiatus_mm:.0f} mm"
        yield Group(
            f"path {length}",
            terms.PATH_POINT,
            f"{length} from the sacral hiatus: {mark.description}",
            level=mark.segment,
            values=_values(
                (terms.PATH_LENGTH, mark.distance_from_hiatus_mm, "mm"),
                (terms.POSTERIOR_DEPTH, mark.posterior_depth_mm, "mm"),
            ),
            place=terms.PATH,
            points_lps=_curve(report, 0.0, mark.distance_from_hiatus_mm),
        )
    if access is None:
        return
    for disc in access.discs:
        if disc.distance_from_hiatus_mm is None:
            continue
        low, high = disc.distance_range_mm or (None, None)
        yield Group(
            f"path to disc {disc.disc}",
            terms.PATH,
            f"Path from the sacral hiatus to the disc {disc.disc}",
            level=disc.disc,
            values=_values(
                (terms.PATH_LENGTH, disc.distance_from_hiatus_mm, "mm"),
                (terms.PATH_LENGTH, low, "mm", terms.MINIMUM),
                (terms.PATH_LENGTH, high, "mm", terms.MAXIMUM),
                (terms.ADULT_PATH, disc.typical_mm, "mm", terms.MEAN),
                (terms.ADULT_PATH_LOW, disc.typical_range_mm[0], "mm"),
                (terms.ADULT_PATH_HIGH, disc.typical_range_mm[1], "mm"),
            ),
            place=terms.PATH,
            points_lps=_curve(report, 0.0, disc.distance_from_hiatus_mm),
        )
    for number, stretch in enumerate(access.without_fat, 1):
        yield Group(
            f"path without fat {number}",
            terms.WITHOUT_FAT,
            f"Stretch of the path without posterior epidural fat, {stretch_text(stretch)}",
            level=stretch.segments[0] if stretch.segments else None,
            values=_values(
                (terms.PATH_LENGTH, stretch.start_mm, "mm", terms.MINIMUM),
                (terms.PATH_LENGTH, stretch.stop_mm, "mm", terms.MAXIMUM),
            ),
            answers=(_answer("CONTENT", "Content", stretch.content), *_segments(stretch.segments)),
            place=terms.PATH,
            points_lps=_curve(report, stretch.start_mm, stretch.stop_mm),
        )


def _curve(report: Report, start_mm: float, stop_mm: float) -> tuple[Point, ...]:
    """Return the path between two distances from the hiatus, through the length marks."""
    hiatus, marks = report.planning.sacral_hiatus, report.planning.length_marks
    first = hiatus.lps_mm or (hiatus.expected.lps_mm if hiatus.expected is not None else None)
    known = [(0.0, first), *((mark.distance_from_hiatus_mm, mark.lps_mm) for mark in marks)]
    lengths = [mm for mm, point in known if point is not None]
    points = np.array([point for _, point in known if point is not None])
    if len(lengths) < 2:
        return ()
    count = max(int((stop_mm - start_mm) / _CURVE_STEP_MM) + 1, _MIN_CURVE_POINTS)
    wanted = np.linspace(start_mm, stop_mm, count)
    x, y, z = (np.interp(wanted, lengths, axis).round(2).tolist() for axis in points.T)
    return tuple(zip(x, y, z, strict=True))


def _structures(report: Report) -> Iterator[Group]:
    """Yield the cysts and the other bright structures in the canal along the path."""
    access = report.planning.caudal_access
    if access is None:
        return
    for number, cyst in enumerate(access.cysts, 1):
        yield Group(
            f"cyst on the path {number}",
            terms.CYST_ON_PATH,
            f"Cyst-like structure in the canal: {structure_text(cyst)}",
            level=cyst.level,
            values=_values(
                (terms.VOLUME, cyst.volume_ml, "cm3"),
                (terms.PATH_LENGTH, cyst.distance_from_hiatus_mm, "mm"),
            ),
            points_lps=(cyst.center_lps_mm,),
        )
    for number, structure in enumerate(access.other_structures, 1):
        yield Group(
            f"bright structure on the path {number}",
            terms.BRIGHT_ON_PATH,
            f"Bright structure in the canal: {structure_text(structure)}",
            level=structure.level,
            values=_values(
                (terms.VOLUME, structure.volume_ml, "cm3"),
                (terms.PATH_LENGTH, structure.distance_from_hiatus_mm, "mm"),
            ),
            answers=_mimics(structure.mimics),
            points_lps=(structure.center_lps_mm,),
        )


def _rejected(report: Report) -> Iterator[Group]:
    for number, found in enumerate(report.rejected, 1):
        yield Group(
            f"rejected candidate {number}",
            terms.REJECTED,
            f"Not classified as epidural fluid: {rejected_text(found)}",
            level=found.level,
            side=found.position,
            values=_values(
                (terms.VOLUME, found.volume_ml, "cm3"),
                (terms.PROBABILITY, found.probability, "1"),
            ),
            answers=_mimics(found.mimics),
            points_lps=_points(found.center_lps_mm),
        )


# --- parts of a group -------------------------------------------------------------------------


def _values(
    *items: tuple[CodedTerm, float | None, Unit]
    | tuple[CodedTerm, float | None, Unit, CodedTerm | None],
) -> tuple[Value, ...]:
    """Return the values that are known."""
    return tuple(
        Value(term, value, unit, *derivation)
        for term, value, unit, *derivation in items
        if value is not None
    )


def _points(point: Point | None) -> tuple[Point, ...]:
    return () if point is None else (point,)


def _segments(names: Iterable[str]) -> tuple[Answer, ...]:
    return tuple(Answer(terms.SEGMENT, level_code(name)) for name in names)


def _mimics(names: Iterable[str]) -> tuple[Answer, ...]:
    return tuple(_answer("MIMIC", "Assumed mimic", name) for name in names)


def _answer(code: str, meaning: str, value: str) -> Answer:
    """Return an answer with private codes."""
    answer = private_term(value.replace("_", "").upper()[:16].strip(), value.replace("_", " "))
    return Answer(private_term(code, meaning), answer)
