"""Measurements as a structured report: TID 1500 in a Comprehensive 3D SR.

Each measurement group has the position of its finding as SCOORD3D, both in the group, where OHIF
expects it, and as the coordinates from which each numeric measurement is inferred, where
Cornerstone3D expects it. The templates of DICOM PS3.16 are extensible. Coordinates are in the frame
of reference of the myelogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from leakloc.anatomy.vocabulary import (
    EPIDURAL_FLUID,
    NOTICE,
    SIDES,
    THECAL_SAC,
    CodedTerm,
    level_code,
    private_term,
    role_name,
)
from leakloc.core.version import __version__
from leakloc.report import clinical_terms as terms
from leakloc.report.dicom import (
    MANUFACTURER,
    MODEL,
    SERIAL,
    SERIES_NOTICE,
    SPINE,
    SR_SERIES_NUMBER,
    Segment,
    Sources,
    coded,
    instance_attributes,
    mark_as_research,
    new_uid,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from leakloc.anatomy.vocabulary import Role
    from leakloc.core.parts import Point
    from leakloc.localization.result import Collection, ExtentEnd, SideFluid, Target
    from leakloc.report.model import Report

_EPICENTER: Final = private_term("EPICENTER", "Center of the largest cross-section")
_CRANIAL_END: Final = private_term("CRANIALEND", "Cranial end")
_CAUDAL_END: Final = private_term("CAUDALEND", "Caudal end")
_SAC_POINT: Final = private_term("SACPOINT", "Point within the thecal sac")
_DISC_CENTER: Final = private_term("DISCCENTER", "Center of the disc at the level of the fluid")
_HIATUS: Final = private_term("SACRALHIATUS", "Sacral hiatus")
_EXPECTED_HIATUS: Final = private_term("EXPECTEDHIATUS", "Expected position of the sacral hiatus")
_PATH: Final = private_term("HIATUSPATH", "Path from the sacral hiatus")
_ILLUSTRATION: Final = CodedTerm("121080", "DCM", "Best illustration of finding")
_COMMENT: Final = CodedTerm("121106", "DCM", "Comment")
_MAXIMUM: Final = CodedTerm("56851009", "SCT", "Maximum")
_UNITS: Final = {
    "mm": CodedTerm("mm", "UCUM", "mm"),
    "mm2": CodedTerm("mm2", "UCUM", "mm2"),
    "cm3": CodedTerm("cm3", "UCUM", "cm3"),
    "1": CodedTerm("1", "UCUM", "no units"),
}
_SOURCE: Final = CodedTerm("260753009", "SCT", "Source")
_GROUP_ATTRIBUTES: Final = (
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImageOrientationPatient",
)
"""Attributes of an image group of the image library, equal for all images of the group."""


@dataclass(frozen=True)
class Capture:
    """A secondary capture to refer to.

    Parameters
    ----------
    header : Dataset
        The capture; its pixel data are not used.
    collection : int or None
        Id of the collection in the figure; None for figures of the whole study.
    """

    header: Dataset
    collection: int | None


@dataclass(frozen=True)
class _Place:
    """Position of a measurement group: a point, or a curve of several points.

    Parameters
    ----------
    name : CodedTerm
    points_lps : sequence of Point
        In LPS mm.
    frame : str
        Frame of Reference UID.
    """

    name: CodedTerm
    points_lps: Sequence[Point]
    frame: str

    def item(self, relationship: hd.sr.RelationshipTypeValues) -> Any:
        """Return the coordinates as a content item."""
        return hd.sr.Scoord3DContentItem(
            name=coded(self.name),
            graphic_type="POINT" if len(self.points_lps) == 1 else "POLYLINE",
            graphic_data=np.asarray(self.points_lps, dtype=np.float64),
            frame_of_reference_uid=self.frame,
            relationship_type=relationship,
        )


def report_object(
    report: Report,
    found: Sequence[Segment],
    sources: Sources,
    segmentation: Any = None,
    captures: Sequence[Capture] = (),
) -> Any:
    """Create the measurements as an unverified Comprehensive 3D SR (TID 1500).

    Parameters
    ----------
    report : Report
    found : sequence of Segment
        The segments of `segmentation`, in the same order.
    sources : Sources
        From `read_sources`.
    segmentation : highdicom.seg.Segmentation, optional
        Referenced by the measurements if supplied.
    captures : sequence of Capture
        Secondary captures, referenced by the collection or the study they show.

    Returns
    -------
    highdicom.sr.Comprehensive3DSR
    """
    device = hd.sr.ObserverContext(
        observer_type=coded(CodedTerm("121007", "DCM", "Device")),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=terms.DEVICE_UID,
            name=MODEL,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL,
            serial_number=SERIAL,
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=coded(terms.PROCEDURE),
        imaging_measurements=_Groups(report, found, sources, segmentation, captures).all(),
    )
    root = content[0].ContentSequence
    root.extend(_comment(t) for t in (NOTICE, report.finding.summary, _numbering_text(report)))
    root.extend(_illustration(c) for c in captures if c.collection is None)
    evidence = [
        *sources.all,
        *([segmentation] if segmentation is not None else []),
        *(capture.header for capture in captures),
    ]
    document = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"leakloc measurements - {SERIES_NOTICE}",
        **instance_attributes(SR_SERIES_NUMBER),
    )
    kinds = [item.ValueType for item in document.ContentSequence]
    # Inserted last: highdicom copies all supplied items.
    document.ContentSequence.insert(kinds.index("CONTAINER"), _library(sources))
    mark_as_research(document)
    return document


def _library(sources: Sources) -> Any:
    """Create the image library (TID 1600).

    Attributes common to the images of a stack are listed once, for their group; multi-frame
    images, whose attributes are those of frames, are listed without.
    """
    groups: dict[str, list[Dataset]] = {}
    for image in sources.all:
        groups.setdefault(str([image.get(word) for word in _GROUP_ATTRIBUTES]), []).append(image)
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = hd.sr.ContentSequence()
    own = (
        codes.DCM.ImagePositionPatientX,
        codes.DCM.ImagePositionPatientY,
        codes.DCM.ImagePositionPatientZ,
    )
    for images in groups.values():
        group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=contains)
        group.ContentSequence = hd.sr.ContentSequence()
        if "NumberOfFrames" not in images[0]:
            descriptors = hd.sr.ImageLibraryEntryDescriptors(images[0])
            group.ContentSequence.extend(item for item in descriptors if item.name not in own)
        group.ContentSequence.extend(_entry(image, own) for image in images)
        library.ContentSequence.append(group)
    return library


def _entry(image: Dataset, names: Sequence[Any]) -> Any:
    """Create an image library entry; its position, if any, has the concepts `names`."""
    entry = hd.sr.ImageContentItem(
        coded(_SOURCE),
        image.SOPClassUID,
        image.SOPInstanceUID,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    if "ImagePositionPatient" not in image:
        return entry
    entry.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.NumContentItem(
                name,
                value,
                codes.UCUM.Millimeter,
                relationship_type=hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT,
            )
            for name, value in zip(names, image.ImagePositionPatient, strict=True)
        ]
    )
    return entry


class _Groups:
    """Measurement groups of a report, each with its position."""

    def __init__(
        self,
        report: Report,
        found: Sequence[Segment],
        sources: Sources,
        segmentation: Any,
        captures: Sequence[Capture],
    ) -> None:
        self.report = report
        self.found = found
        self.segmentation = segmentation
        self.captures = captures
        self.frame = str(sources.main[0].FrameOfReferenceUID)
        self.targets = {target.collection: target for target in report.planning.targets}

    def all(self) -> list[Any]:
        """Return all groups: study, sac, collections, sides of segments, hiatus, paths."""
        report = self.report
        groups = [self.study(), self.thecal_sac()]
        for c in report.collections:
            groups.append(self.collection(c))
            groups += [
                self.end(c, term, name, end)
                for term, name, end in (
                    (_CRANIAL_END, "cranial", c.extent.cranial),
                    (_CAUDAL_END, "caudal", c.extent.caudal),
                )
                if end.lps_mm is not None
            ]
        groups += [
            self.side(part.segment, side, getattr(part, side))
            for part in report.fluid_by_segment
            for side in SIDES
            if getattr(part, side).present
        ]
        groups += self.hiatus()
        groups += [self.path(t) for t in report.planning.targets if len(t.path_lps_mm) > 1]
        return groups

    def place(self, name: CodedTerm, point: Point | None) -> _Place | None:
        """Return the place of a point; None if its position is unknown."""
        return None if point is None else _Place(name, (point,), self.frame)

    def in_sac(self) -> _Place | None:
        """Return a point within the sac; None without a sac."""
        points = [s.point_lps_mm for s in self.found if s.kind == THECAL_SAC]
        return self.place(_SAC_POINT, points[0] if points else None)

    def reference(self, number: int | None) -> Any:
        """Return the reference to a segment; None without segmentation."""
        if self.segmentation is None or number is None:
            return None
        return hd.sr.ReferencedSegment.from_segmentation(self.segmentation, number)

    def study(self) -> Any:
        """Return the finding of the study, placed at its main collection or in the sac."""
        report, finding = self.report, self.report.finding
        sites = [hd.sr.FindingSite(coded(level_code(finding.level)))] if finding.level else None
        main = next((c for c in report.collections if c.level == finding.level), None)
        place = self.place(_EPICENTER, main.epicenter_lps_mm) if main is not None else None
        group = _group(
            "study",
            finding_type=coded(EPIDURAL_FLUID),
            finding_sites=sites,
            measurements=[
                _measurement(terms.PROBABILITY, finding.confidence, "1"),
                _measurement(
                    terms.NUMBERING_CONFIDENCE,
                    report.levels.numbering.confidence,
                    "1",
                ),
            ],
            qualitative_evaluations=[
                hd.sr.QualitativeEvaluation(coded(EPIDURAL_FLUID), coded(terms.LEAK[finding.leak])),
                _evaluation("NUMBERING", "Level numbering", report.levels.numbering.method),
            ],
        )
        return _placed(group, place or self.in_sac(), f"Study: {finding.summary}")

    def thecal_sac(self) -> Any:
        """Return the volumes of the thecal sac, with the tracking UID of its segment."""
        sac = self.report.thecal_sac
        number = next((n for n, s in enumerate(self.found, 1) if s.kind == THECAL_SAC), None)
        values = ((terms.VOLUME, sac.volume_ml), (terms.CSF_VOLUME, sac.csf_volume_ml))
        group = _group(
            "thecal sac",
            segment=self.found[number - 1] if number is not None else None,
            reference=self.reference(number),
            finding_type=coded(THECAL_SAC),
            finding_sites=[hd.sr.FindingSite(coded(SPINE))],
            measurements=[_measurement(n, v, "cm3") for n, v in values if v is not None],
        )
        place = self.place(_CAUDAL_END, sac.caudal_end.lps_mm) or self.in_sac()
        end = f", caudal end at {sac.caudal_end.level}" if sac.caudal_end.level else ""
        return _placed(group, place, f"Thecal sac{end}")

    def collection(self, c: Collection) -> Any:
        """Return the measurements of a collection, with the tracking UID of its segment."""
        number = next((n for n, s in enumerate(self.found, 1) if s.collection == c.id), None)
        target = self.targets.get(c.id)
        group = _group(
            f"epidural fluid {c.id}",
            segment=self.found[number - 1] if number is not None else None,
            reference=self.reference(number),
            finding_type=coded(EPIDURAL_FLUID),
            finding_sites=[_site(c.level, c.position.label)],
            measurements=_collection_measurements(c, target),
            qualitative_evaluations=_collection_evaluations(c),
        )
        words = [f"Epidural fluid {c.id}", c.level, c.position.label, c.grade]
        if c.volume_ml is not None:
            words.append(f"{c.volume_ml:.1f} mL")
        text = ", ".join(word for word in words if word)
        shown = [capture for capture in self.captures if capture.collection == c.id]
        return _placed(group, self.place(_EPICENTER, c.epicenter_lps_mm), text, shown)

    def end(self, c: Collection, term: CodedTerm, name: str, end: ExtentEnd) -> Any:
        """Return one end of a collection along the canal, with its distance from the hiatus."""
        target = self.targets.get(c.id)
        distance = None if target is None else getattr(target, f"distance_to_{name}_end_mm")
        group = _group(
            f"epidural fluid {c.id} {name} end",
            finding_type=coded(EPIDURAL_FLUID),
            finding_sites=[_site(end.segment)],
            measurements=_path_length(distance),
        )
        where = end.description or end.segment
        text = f"Epidural fluid {c.id}, {name} end" + (f": {where}" if where else "")
        return _placed(group, self.place(term, end.lps_mm), text)

    def side(self, segment: str, side: str, fluid: SideFluid) -> Any:
        """Return the fluid on one side of the sac in a motion segment, placed at its disc."""
        values = ((terms.DEPTH, fluid.thickness_mm, "mm"), (terms.AREA, fluid.area_mm2, "mm2"))
        group = _group(
            f"epidural fluid {segment} {side}",
            finding_type=coded(EPIDURAL_FLUID),
            finding_sites=[_site(segment, side)],
            measurements=[
                _measurement(name, value, unit, _MAXIMUM)
                for name, value, unit in values
                if value is not None
            ],
        )
        centers = {disc.name: disc.center_lps_mm for disc in self.report.levels.discs}
        place = self.place(_DISC_CENTER, centers.get(segment))
        size = "" if fluid.thickness_mm is None else f", {fluid.thickness_mm:.1f} mm thick"
        return _placed(group, place, f"Epidural fluid {segment}, {side}{size}")

    def hiatus(self) -> list[Any]:
        """Return the detected sacral hiatus, or its expected position; nothing if unknown."""
        hiatus = self.report.planning.sacral_hiatus
        if hiatus.lps_mm is not None:
            term, point, text = _HIATUS, hiatus.lps_mm, "Sacral hiatus"
            measurements = [_measurement(terms.PROBABILITY, hiatus.confidence, "1")]
        elif hiatus.expected is not None:
            term, point = _EXPECTED_HIATUS, hiatus.expected.lps_mm
            text = f"Sacral hiatus not detected; expected at {hiatus.expected.level}"
            measurements = None
        else:
            return []
        group = _group(
            "sacral hiatus",
            finding_type=coded(term),
            finding_sites=[_site(None)],
            measurements=measurements,
        )
        return [_placed(group, self.place(term, point), text)]

    def path(self, target: Target) -> Any:
        """Return the path from the hiatus to a collection, as a polyline, with its length."""
        length = target.canal_distance_from_hiatus_mm
        group = _group(
            f"path to epidural fluid {target.collection}",
            finding_type=coded(_PATH),
            finding_sites=[_site(target.level)],
            measurements=_path_length(length),
        )
        text = f"Path from the sacral hiatus to epidural fluid {target.collection}"
        return _placed(group, _Place(_PATH, target.path_lps_mm, self.frame), text)


def _placed(group: Any, place: _Place | None, text: str, captures: Iterable[Capture] = ()) -> Any:
    """Add the position to a group and to each of its measurements, a text and figures."""
    items = group[0].ContentSequence
    if place is not None:
        for item in items:
            if item.ValueType == "NUM":
                if "ContentSequence" not in item:
                    item.ContentSequence = hd.sr.ContentSequence()
                inferred = place.item(hd.sr.RelationshipTypeValues.INFERRED_FROM)
                item.ContentSequence.append(inferred)
        items.append(place.item(hd.sr.RelationshipTypeValues.CONTAINS))
    items.append(_comment(text))
    items.extend(_illustration(capture) for capture in captures)
    return group


def _group(
    identifier: str, *, segment: Segment | None = None, reference: Any = None, **content: Any
) -> Any:
    """Create the group of a segmented structure (TID 1411), or TID 1501 without segmentation."""
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=segment.tracking_uid if segment else new_uid(),
            identifier=segment.tracking_id if segment else identifier,
        ),
        "algorithm_id": _algorithm(),
        **content,
    }
    if reference is None:
        return hd.sr.MeasurementsAndQualitativeEvaluations(**common)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=reference, **common
    )


def _path_length(length_mm: float | None) -> list[Any] | None:
    """Return a distance along a path as the measurements of a group."""
    return None if length_mm is None else [_measurement(terms.PATH_LENGTH, length_mm, "mm")]


def _comment(text: str) -> Any:
    return hd.sr.TextContentItem(
        name=coded(_COMMENT),
        value=text,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )


def _illustration(capture: Capture) -> Any:
    """Create the reference to a secondary capture."""
    return hd.sr.ImageContentItem(
        name=coded(_ILLUSTRATION),
        referenced_sop_class_uid=capture.header.SOPClassUID,
        referenced_sop_instance_uid=capture.header.SOPInstanceUID,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )


def _collection_measurements(c: Collection, target: Target | None) -> list[Any]:
    distance = target.canal_distance_from_hiatus_mm if target is not None else None
    values = [
        (terms.VOLUME, c.volume_ml, "cm3", None),
        (terms.LENGTH, c.extent.length_mm, "mm", None),
        (terms.DEPTH, c.max_thickness_mm, "mm", _MAXIMUM),
        (terms.AREA, c.max_area_mm2, "mm2", _MAXIMUM),
        (terms.PROBABILITY, c.confidence, "1", None),
        (terms.SAC_COMPRESSION, c.sac_compression, "1", None),
        (terms.PATH_LENGTH, distance, "mm", None),
        *(
            (_signal_term(measured.role), measured.ratio, "1", None)
            for measured in (c.character.ratios if c.character is not None else ())
        ),
    ]
    return [
        _measurement(name, value, unit, derivation)
        for name, value, unit, derivation in values
        if value is not None
    ]


def _collection_evaluations(c: Collection) -> list[Any]:
    return [
        _evaluation("GRADE", "Grade", c.grade),
        _evaluation("PATTERN", "Pattern", c.pattern),
        *(
            [_evaluation("SIGNALKIND", "Signal resembles", c.character.kind)]
            if c.character is not None and c.character.kind is not None
            else []
        ),
        *_companion_evaluations(c),
        *(_evaluation("COMPARTMENT", "Compartment", name) for name in c.compartments),
        *(
            hd.sr.QualitativeEvaluation(
                coded(private_term("ALTLEVEL", "Level it could also be")),
                coded(level_code(other.level)),
            )
            for other in c.alternatives
        ),
    ]


def _companion_evaluations(c: Collection) -> list[Any]:
    """Return the findings on series other than the myelogram."""
    found = []
    if c.second_myelogram is not None:
        agreement = c.second_myelogram.agreement
        found.append(_evaluation("SECONDMYELO", "On the second myelogram", agreement))
    if c.axial_t2 is not None and c.axial_t2.bright is not None:
        bright = "as bright as CSF" if c.axial_t2.bright else "darker than CSF"
        found.append(_evaluation("AXIALT2", "Signal on axial T2", bright))
    if c.enhancement is not None and c.enhancement.rim is not None:
        rim = "present" if c.enhancement.rim else "absent"
        found.append(_evaluation("RIM", "Rim enhancement on T1", rim))
    return found


def _site(segment: str | None, side: str | None = None) -> Any:
    """Create the finding site of a motion segment, or of the spine, with a side of the sac."""
    term = None if side is None else coded(terms.POSITIONS[side])
    lateral = side in ("left", "right")
    return hd.sr.FindingSite(
        coded(level_code(segment) if segment else SPINE),
        laterality=term if lateral else None,
        topographical_modifier=None if lateral else term,
    )


def _signal_term(role: Role) -> CodedTerm:
    name = role_name(role)
    return private_term(f"RATIO{name.replace(' ', '')}".upper(), f"Signal relative to CSF, {name}")


def _measurement(
    name: CodedTerm, value: float, unit: str, derivation: CodedTerm | None = None
) -> Any:
    return hd.sr.Measurement(
        name=coded(name),
        value=round(value, 4),
        unit=coded(_UNITS[unit]),
        derivation=coded(derivation) if derivation else None,
    )


def _evaluation(code: str, meaning: str, value: str) -> Any:
    """Create a qualitative evaluation with a private code."""
    answer = private_term(value.replace("_", "").upper()[:16], value.replace("_", " "))
    return hd.sr.QualitativeEvaluation(coded(private_term(code, meaning)), coded(answer))


def _numbering_text(report: Report) -> str:
    numbering = report.levels.numbering
    return (
        f"Level status: {report.levels.status}. Numbering assumes {numbering.assumption}"
        f" (confidence {numbering.confidence:.2f})."
    )


def _algorithm() -> Any:
    return hd.sr.AlgorithmIdentification(name=MODEL, version=__version__)
