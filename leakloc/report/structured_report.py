"""Measurements as a structured report: TID 1500 in a Comprehensive 3D SR.

The groups are those of `measurement_groups`. The position of a group is SCOORD3D, both in the
group, where OHIF expects it, and as the coordinates from which each numeric measurement is
inferred, where Cornerstone3D expects it. The templates of DICOM PS3.16 are extensible. Coordinates
are in the frame of reference of the myelogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import highdicom as hd
import numpy as np
from pydicom.sr.codedict import codes

from leakloc.anatomy.vocabulary import NOTICE, THECAL_SAC, CodedTerm
from leakloc.core.version import __version__
from leakloc.report import clinical_terms as terms
from leakloc.report.dicom import (
    MANUFACTURER,
    MODEL,
    SERIAL,
    SERIES_NOTICE,
    SR_SERIES_NUMBER,
    Segment,
    Sources,
    coded,
    instance_attributes,
    mark_as_research,
    new_uid,
)
from leakloc.report.measurement_groups import measurement_groups

if TYPE_CHECKING:
    from pydicom import Dataset

    from leakloc.report.measurement_groups import Group, Value
    from leakloc.report.model import Report

_ILLUSTRATION: Final = CodedTerm("121080", "DCM", "Best illustration of finding")
_COMMENT: Final = CodedTerm("121106", "DCM", "Comment")
_UNITS: Final = {
    "mm": CodedTerm("mm", "UCUM", "mm"),
    "mm2": CodedTerm("mm2", "UCUM", "mm2"),
    "cm3": CodedTerm("cm3", "UCUM", "cm3"),
    "deg": CodedTerm("deg", "UCUM", "degree"),
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
    group = partial(
        _group, sources=sources, found=found, segmentation=segmentation, captures=captures
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=coded(terms.PROCEDURE),
        imaging_measurements=[group(one) for one in measurement_groups(report)],
    )
    items = content[0].ContentSequence
    comments = (NOTICE, report.finding.summary, _numbering_text(report))
    items.extend(_comment(text) for text in comments)
    items.extend(_illustration(c) for c in captures if c.collection is None)
    kinds = [item.ValueType for item in items]
    items.insert(kinds.index("CONTAINER"), _library(sources))
    content[0].ContentSequence = []  # inserted later: highdicom copies and searches all items
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
    document.ContentSequence = items
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
    own = [
        hd.sr.CodedConcept.from_code(code)
        for code in (
            codes.DCM.ImagePositionPatientX,
            codes.DCM.ImagePositionPatientY,
            codes.DCM.ImagePositionPatientZ,
        )
    ]
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
                coded(_UNITS["mm"]),
                relationship_type=hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT,
            )
            for name, value in zip(names, image.ImagePositionPatient, strict=True)
        ]
    )
    return entry


def _group(
    group: Group,
    sources: Sources,
    found: Sequence[Segment],
    segmentation: Any,
    captures: Sequence[Capture],
) -> Any:
    """Create a group: TID 1411 for a segmented structure, otherwise TID 1501."""
    named = ((n, s) for n, s in enumerate(found, 1) if s.tracking_id == group.name)
    number, segment = next(named, (None, None))
    content: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=new_uid() if segment is None else segment.tracking_uid, identifier=group.name
        ),
        "algorithm_id": hd.sr.AlgorithmIdentification(name=MODEL, version=__version__),
        "finding_type": coded(group.finding),
        "finding_sites": [_site(group)],
        "measurements": [_measurement(value) for value in group.values],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(coded(question), coded(answer))
            for question, answer in (
                *([(group.finding, group.state)] if group.state is not None else []),
                *group.answers,
            )
        ],
    }
    made: Any
    if segmentation is None or number is None:
        made = hd.sr.MeasurementsAndQualitativeEvaluations(**content)
    else:
        made = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=hd.sr.ReferencedSegment.from_segmentation(segmentation, number),
            **content,
        )
    items = made[0].ContentSequence
    points: Sequence[Any] = group.points_lps
    place = group.place
    if not points and group.in_sac:
        points = [s.point_lps_mm for s in found if s.kind == THECAL_SAC]
        place = terms.SAC_POINT
    if points:
        position = partial(
            hd.sr.Scoord3DContentItem,
            name=coded(place),
            graphic_type="POINT" if len(points) == 1 else "POLYLINE",
            graphic_data=np.asarray(points, dtype=np.float64),
            frame_of_reference_uid=str(sources.main[0].FrameOfReferenceUID),
        )
        for item in items:
            if item.ValueType == "NUM":
                if "ContentSequence" not in item:
                    item.ContentSequence = hd.sr.ContentSequence()
                inferred = position(relationship_type=hd.sr.RelationshipTypeValues.INFERRED_FROM)
                item.ContentSequence.append(inferred)
        items.append(position(relationship_type=hd.sr.RelationshipTypeValues.CONTAINS))
    items.append(_comment(group.text))
    if segment is not None and segment.collection is not None:
        items.extend(_illustration(c) for c in captures if c.collection == segment.collection)
    return made


def _site(group: Group) -> Any:
    """Create the finding site, with the side of the sac or of the patient."""
    term = None if group.side is None else coded(terms.POSITIONS[group.side])
    lateral = group.side in ("left", "right")
    return hd.sr.FindingSite(
        coded(group.site),
        laterality=term if lateral else None,
        topographical_modifier=None if lateral else term,
    )


def _measurement(value: Value) -> Any:
    return hd.sr.Measurement(
        name=coded(value.term),
        value=round(value.value, 4),
        unit=coded(_UNITS[value.unit]),
        derivation=coded(value.derivation) if value.derivation else None,
    )


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


def _numbering_text(report: Report) -> str:
    numbering = report.levels.numbering
    return (
        f"Level status: {report.levels.status}. Numbering assumes {numbering.assumption}"
        f" (confidence {numbering.confidence:.2f})."
    )
