"""DICOM objects of the source study: segmentation, structured report and secondary captures.

The objects are created with highdicom, which derives the position of the masks from their
affine. Segment and measurements of a structure share a tracking UID. Codes are those of
`vocabulary`: standard codes if verified, otherwise private codes of ``99LEAKLOC``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, DS, DT, TM

from leakloc.anatomy.vocabulary import (
    EPIDURAL_FLUID,
    LABEL_VALUES,
    NOTICE,
    SHORT_NOTICE,
    SIDES,
    THECAL_SAC,
    CodedTerm,
    level_code,
    private_term,
    role_name,
    vertebra_code,
)
from leakloc.core.errors import OutputError
from leakloc.core.version import __version__
from leakloc.loaders.headers import HeaderReader, replace_decimal_commas
from leakloc.report.canvas import BLUE, ORANGE, Color

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from leakloc.analysis import AnalysisData
    from leakloc.anatomy.vocabulary import Role
    from leakloc.loaders.study import SeriesStack
    from leakloc.localization.result import Collection, SideFluid
    from leakloc.report.model import Report
    from leakloc.report.overlays import Picture

MANUFACTURER: Final = "leakloc developers"
MODEL: Final = "leakloc"
SERIAL: Final = "0"  # software: DICOM requires a device serial number
SEG_SERIES_NUMBER: Final = 9801  # above the numbers used by scanners
SR_SERIES_NUMBER: Final = 9802
SC_SERIES_NUMBER: Final = 9803
VERTEBRA_COLOR: Final[Color] = (204, 121, 167)  # Okabe-Ito reddish purple

ANATOMICAL_STRUCTURE: Final = CodedTerm("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE: Final = CodedTerm("49755003", "SCT", "Morphologically Abnormal Structure")
SPINE: Final = CodedTerm("421060004", "SCT", "Spine")

_POSITIONS: Final = {
    "dorsal": CodedTerm("255551008", "SCT", "Posterior"),
    "ventral": CodedTerm("255549009", "SCT", "Anterior"),
    "left": CodedTerm("7771000", "SCT", "Left"),
    "right": CodedTerm("24028007", "SCT", "Right"),
    "circumferential": CodedTerm("255593009", "SCT", "Circumferential"),
}
_LEAK: Final = {
    "present": CodedTerm("52101004", "SCT", "Present"),
    "absent": CodedTerm("272519000", "SCT", "Absent"),
    "indeterminate": CodedTerm("373068000", "SCT", "Undetermined"),
}
_VOLUME: Final = CodedTerm("118565006", "SCT", "Volume")
_LENGTH: Final = CodedTerm("410668003", "SCT", "Length")
_DEPTH: Final = CodedTerm("131197000", "SCT", "Depth")
_AREA: Final = CodedTerm("42798000", "SCT", "Area")
_MAXIMUM: Final = CodedTerm("56851009", "SCT", "Maximum")
_PROBABILITY: Final = CodedTerm("122157", "DCM", "Probability")
_PATH_LENGTH: Final = CodedTerm("121211", "DCM", "Path length")
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
_CONVERTED: Final[dict[str, Any]] = {"DA": DA, "TM": TM, "DT": DT, "DS": float, "IS": int}
"""Types of the values that highdicom converts."""
# Required by DICOM but possibly empty; missing in some anonymized files.
_MAY_BE_EMPTY: Final = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
_PATIENT_ATTRIBUTES: Final = (
    "AccessionNumber",
    "PatientAge",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PatientSize",
    "PatientWeight",
    "ReferringPhysicianName",
    "StudyID",
)
"""Attributes whose values no message may contain."""
_RETAINED: Final = frozenset(
    {
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
        *("FrameOfReferenceUID", "PositionReferenceIndicator", "NumberOfFrames", "Rows", "Columns"),
        *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SamplesPerPixel"),
        *("ImageOrientationPatient", "ImagePositionPatient", "ImageType", "BodyPartExamined"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"),
        *("FrameContentSequence", "DimensionIndexValues", "StackID", "InStackPositionNumber"),
        *("DimensionOrganizationType", "DimensionOrganizationSequence", "DimensionIndexSequence"),
        *("DimensionOrganizationUID", "DimensionIndexPointer", "FunctionalGroupPointer"),
    }
)
"""Attributes of the source that objects without identity are derived from: references and geometry.
All others are removed, more than DICOM PS3.15 Annex E requires."""
_DUMMY_TIMES: Final = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
"""Values of dates and times in objects without identity, by value representation."""
_DEIDENTIFICATION: Final = (
    CodedTerm("113100", "DCM", "Basic Application Confidentiality Profile"),
    CodedTerm("113110", "DCM", "Retain UIDs Option"),
)
_MIN_IDENTIFYING: Final = 3
"""Minimum length of a patient attribute that is removed from messages; a sex has one character."""


@dataclass(frozen=True)
class Segment:
    """One segment before it is written.

    Parameters
    ----------
    labels : ndarray, shape (k, j, i)
        Label mask that contains the segment.
    value : int
        Label value of the segment.
    collection : int or None
        Id of the collection; None for other structures.
    """

    label: str
    labels: npt.NDArray[Any]
    value: int
    category: CodedTerm
    kind: CodedTerm
    region: CodedTerm
    color: Color
    tracking_id: str
    collection: int | None = None
    tracking_uid: str = field(default_factory=lambda: _new_uid())

    def mask(self, box: Any = ...) -> npt.NDArray[np.bool_]:
        """Return the binary mask, of the whole grid or of a box."""
        return np.asarray(self.labels[box] == self.value)


@dataclass(frozen=True)
class Sources:
    """Headers of the images used for fluid detection, without pixel data.

    Parameters
    ----------
    main : list of Dataset
        The series whose grid the masks have, in slice order.
    further : list of Dataset
        Images of the other stations if several were composed.
    """

    main: list[Dataset]
    further: list[Dataset]

    @property
    def all(self) -> list[Dataset]:
        """All images."""
        return [*self.main, *self.further]


def source_stacks(analysis: AnalysisData) -> tuple[SeriesStack, ...]:
    """Return the DICOM series used for fluid detection, that of the mask grid first."""
    uid = analysis.triage.myelogram.provenance.series_instance_uid
    used = [t.stack for t in analysis.triage.stacks if "fluid" in t.used_for]
    used.sort(key=lambda stack: stack.series_instance_uid != uid)
    return tuple(s for s in used if s.files and s.series_instance_uid is not None)


def read_sources(stacks: Sequence[SeriesStack], *, keep_identity: bool = True) -> Sources:
    """Read the headers of the source images.

    Parameters
    ----------
    stacks : sequence of SeriesStack
        From `source_stacks`, at least one.
    keep_identity : bool
        Whether the created objects contain the attributes of the patient, study and equipment
        of the source; if not, pass each to `mark_without_identity`.

    Raises
    ------
    OutputError
        If required attributes are missing or the source cannot be referenced.
    """
    main, *others = (
        _one_frame_of_reference([_header(path, s, keep_identity) for path in _files(s)])
        for s in stacks
    )
    if not getattr(main[0], "FrameOfReferenceUID", None):
        raise OutputError(
            "the source images have no Frame of Reference UID, which the results require"
        )
    if len(main) > 1 and "NumberOfFrames" in main[0]:
        raise OutputError(
            f"the source consists of {len(main)} multi-frame files; only one can be referenced"
        )
    return Sources(main, [header for headers in others for header in headers])


def identifying_values(sources: Sources) -> tuple[str, ...]:
    """Return the patient attributes of the sources, which no message may contain."""
    values = {str(image.get(word) or "") for image in sources.all for word in _PATIENT_ATTRIBUTES}
    return tuple(sorted((v for v in values if len(v) >= _MIN_IDENTIFYING), key=len, reverse=True))


def _files(stack: SeriesStack) -> tuple[Path, ...]:
    """Remove duplicates: a multi-frame file is listed once per frame in the stack."""
    return tuple(dict.fromkeys(stack.files))


def _header(path: Path, stack: SeriesStack, keep_identity: bool) -> Dataset:
    """Read a header as far as it is readable, with the geometry of the loader, in UTF-8."""
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    replace_decimal_commas(header)
    header.remove_private_tags()
    _remove_unreadable(header)
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"  # highdicom supports few character sets
    if str(header.get("PatientSex")) not in {value.value for value in hd.PatientSexValues}:
        header.PatientSex = None
    if "PerFrameFunctionalGroupsSequence" not in header:
        (frame, *_) = HeaderReader().read(path)
        for keyword, values in (
            ("ImagePositionPatient", frame.position_lps),
            ("ImageOrientationPatient", frame.orientation_lps),
            ("PixelSpacing", frame.spacing_mm),
            ("SliceThickness", stack.geometry and stack.geometry.spacing_ijk_mm[2:]),
        ):
            if values and keyword not in header:
                numbers = [DS(value, auto_format=True) for value in values]
                setattr(header, keyword, numbers if len(numbers) > 1 else numbers[0])
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if keep_identity:
        return header
    anonymous = _without_identity(header)
    anonymous.file_meta = header.file_meta
    return anonymous


def _without_identity(dataset: Dataset) -> Dataset:
    """Return a copy with the retained and the empty attributes only, also in sequences."""
    copy = pydicom.Dataset()
    for element in dataset:
        if element.keyword in _MAY_BE_EMPTY:
            setattr(copy, element.keyword, "")
        elif element.keyword in _RETAINED:
            copy.add(element)
            if element.VR == "SQ":
                setattr(copy, element.keyword, [_without_identity(item) for item in element.value])
    return copy


def mark_without_identity(dataset: Dataset) -> None:
    """State in an object that it was de-identified, and replace its dates and times.

    According to the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E with
    the option to retain UIDs, by which archives and planning software find the images.

    Parameters
    ----------
    dataset : Dataset
        Created from the sources of `read_sources` with `keep_identity` false; changed in place.
    """

    def replace(_: Dataset, element: Any) -> None:
        if element.VR in _DUMMY_TIMES and element.value:
            element.value = _DUMMY_TIMES[element.VR]

    dataset.walk(replace)
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.DeidentificationMethod = [term.meaning for term in _DEIDENTIFICATION]
    dataset.DeidentificationMethodCodeSequence = [_code(term) for term in _DEIDENTIFICATION]


def _remove_unreadable(dataset: Dataset) -> None:
    """Remove elements with an invalid value, such as a number with a decimal comma or a date."""
    for tag in list(dataset.keys()):
        try:
            value = dataset[tag].value
            convert = _CONVERTED.get(dataset[tag].VR)
            for part in value if dataset[tag].VM > 1 else [value]:
                if convert is not None and part not in (None, ""):
                    convert(part)
        except Exception:  # pydicom raises various exceptions
            del dataset[tag]
            continue
        for item in value if dataset[tag].VR == "SQ" else ():
            _remove_unreadable(item)


def _one_frame_of_reference(headers: list[Dataset]) -> list[Dataset]:
    """State one orientation and frame of reference for all frames of a stack.

    highdicom requires both. The loader accepts small differences of orientation between slices, a
    frame of reference per slice, and an orientation in each frame of a multi-frame object.
    """
    first = headers[0]
    if "PerFrameFunctionalGroupsSequence" in first:
        shared = first.SharedFunctionalGroupsSequence[0]
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            for frame in first.PerFrameFunctionalGroupsSequence:
                if keyword in frame and keyword not in shared:
                    setattr(shared, keyword, frame[keyword].value)
    else:
        for header in headers:
            header.ImageOrientationPatient = first.ImageOrientationPatient
            header.FrameOfReferenceUID = first.get("FrameOfReferenceUID")
    return headers


# --- segmentation -------------------------------------------------------------------------


def segments(analysis: AnalysisData) -> tuple[Segment, ...]:
    """Return the non-empty segments: thecal sac, collections and named vertebrae."""
    segmentation, levels = analysis.segmentation, analysis.levels
    located = {c.id: c for c in analysis.localization.collections}
    found = [
        Segment(
            "Thecal sac",
            segmentation.thecal_sac.array,
            1,
            ANATOMICAL_STRUCTURE,
            THECAL_SAC,
            SPINE,
            BLUE,
            "thecal sac",
        )
    ]
    for number in (int(value) for value in np.unique(segmentation.collections.array) if value):
        level = located[number].level if number in located else None
        name = f"Epidural fluid {number}" + (f" {level}" if level else "")
        found.append(
            Segment(
                name,
                segmentation.collections.array,
                number,
                ABNORMAL_STRUCTURE,
                EPIDURAL_FLUID,
                level_code(level) if level else SPINE,
                ORANGE,
                f"epidural fluid {number}",
                collection=number,
            )
        )
    for vertebra in levels.vertebrae:
        found.append(
            Segment(
                f"{vertebra.name} vertebra",
                levels.mask.array,
                LABEL_VALUES[vertebra.name],
                ANATOMICAL_STRUCTURE,
                vertebra_code(vertebra.name),
                SPINE,
                VERTEBRA_COLOR,
                f"{vertebra.name} vertebra",
            )
        )
    return tuple(segment for segment in found if segment.mask().any())


def segmentation_object(analysis: AnalysisData, found: Sequence[Segment], sources: Sources) -> Any:
    """Create a BINARY Segmentation on the grid of the source.

    Parameters
    ----------
    analysis : AnalysisData
    found : sequence of Segment
        At least one, from `segments`.
    sources : Sources
        From `read_sources`.

    Returns
    -------
    highdicom.seg.Segmentation
    """
    geometry = analysis.segmentation.thecal_sac.geometry
    labels = _merged(found)
    filled = np.flatnonzero(
        labels.any(axis=(1, 2))
        if labels is not None
        else np.any([s.mask().any(axis=(1, 2)) for s in found], axis=0)
    )
    # Empty slices at both ends are excluded for speed; no frames are written for them.
    box = (slice(int(filled[0]), int(filled[-1]) + 1), slice(None), slice(None))
    place = (
        # highdicom indexes arrays [k, j, i]; the affine is for (i, j, k).
        geometry.cropped(box).affine_lps[:, [2, 1, 0, 3]],
        "PATIENT",
        sources.main[0].FrameOfReferenceUID,
    )
    if labels is not None:
        volume = hd.Volume(labels[box], *place)
    else:
        volume = hd.Volume(
            np.stack([segment.mask(box) for segment in found], axis=-1).astype(np.uint8),
            *place,
            channels={"SegmentNumber": list(range(1, len(found) + 1))},
        )
    algorithm = hd.AlgorithmIdentificationSequence(
        name=MODEL, family=codes.cid7162.MorphologicalOperations, version=__version__
    )
    return hd.seg.Segmentation(
        source_images=sources.main,
        further_source_images=sources.further or None,
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=segment.label,
                segmented_property_category=_code(segment.category),
                segmented_property_type=_code(segment.kind),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=segment.tracking_uid,
                tracking_id=segment.tracking_id,
                anatomic_regions=[_code(segment.region)],
                display_color=hd.color.CIELabColor.from_rgb(*segment.color),
            )
            for number, segment in enumerate(found, 1)
        ],
        content_label="LEAKLOC",
        content_description="Thecal sac, epidural fluid, vertebrae",
        series_description=f"leakloc segmentation - {SHORT_NOTICE}"[:64],
        **_instance_attributes(SEG_SERIES_NUMBER),
        device_serial_number=SERIAL,
    )


def _merged(found: Sequence[Segment]) -> npt.NDArray[np.uint8] | None:
    """Merge all segments into one map of segment numbers, which requires less memory.

    None if segments overlap or their number exceeds 8 bits.
    """
    if len(found) > np.iinfo(np.uint8).max:
        return None
    merged: npt.NDArray[np.uint8] | None = None
    arrays = {id(segment.labels): segment.labels for segment in found}
    for key, array in arrays.items():
        numbers = np.zeros(int(array.max()) + 1, np.uint8)
        for number, segment in enumerate(found, 1):
            if id(segment.labels) == key:
                numbers[segment.value] = number
        mapped = numbers[array]
        if merged is None:
            merged = mapped
        elif (merged.astype(bool) & mapped.astype(bool)).any():
            return None
        else:
            merged |= mapped
    return merged


# --- structured report --------------------------------------------------------------------


def report_object(
    report: Report, found: Sequence[Segment], sources: Sources, segmentation: Any = None
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

    Returns
    -------
    highdicom.sr.Comprehensive3DSR
    """
    device = hd.sr.ObserverContext(
        observer_type=_code(CodedTerm("121007", "DCM", "Device")),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=_new_uid(), name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
        ),
    )
    numbers = {s.collection: n for n, s in enumerate(found, 1) if s.collection is not None}
    groups = [_study_group(report)]
    for collection in report.collections:
        number = numbers.get(collection.id)
        segment = found[number - 1] if number is not None else None
        reference = None
        if segmentation is not None and number is not None:
            reference = hd.sr.ReferencedSegment.from_segmentation(segmentation, number)
        groups.append(_collection_group(report, collection, segment, reference))
    groups += [
        _side_group(part.segment, side, getattr(part, side))
        for part in report.fluid_by_segment
        for side in SIDES
        if getattr(part, side).present
    ]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=_code(private_term("MRMYELOGRAPHY", "MR myelography of the spine")),
        imaging_measurements=groups,
    )
    for text in (NOTICE, report.finding.summary, _numbering_text(report)):
        content[0].ContentSequence.append(
            hd.sr.TextContentItem(
                name=_code(CodedTerm("121106", "DCM", "Comment")),
                value=text,
                relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
            )
        )
    evidence = [*sources.all, *([segmentation] if segmentation is not None else [])]
    document = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"leakloc measurements - {SHORT_NOTICE}"[:64],
        **_instance_attributes(SR_SERIES_NUMBER),
    )
    library = _library(sources)
    if library is not None:  # inserted last: highdicom copies all supplied items
        kinds = [item.ValueType for item in document.ContentSequence]
        document.ContentSequence.insert(kinds.index("CONTAINER"), library)
    return document


def _library(sources: Sources) -> Any:
    """Create the image library (TID 1600); None for multi-frame sources.

    Attributes common to the images of a stack are listed once, for their group.
    """
    groups: dict[str, list[Dataset]] = {}
    for image in sources.all:
        if "NumberOfFrames" not in image:
            groups.setdefault(str([image.get(word) for word in _GROUP_ATTRIBUTES]), []).append(
                image
            )
    if not groups:
        return None
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
        descriptors = hd.sr.ImageLibraryEntryDescriptors(images[0])
        group.ContentSequence = hd.sr.ContentSequence(
            [item for item in descriptors if item.name not in own]
        )
        group.ContentSequence.extend(_entry(image, own) for image in images)
        library.ContentSequence.append(group)
    return library


def _entry(image: Dataset, names: Sequence[Any]) -> Any:
    """Create an image library entry with its position, encoded with the concepts `names`."""
    entry = hd.sr.ImageContentItem(
        _code(_SOURCE),
        image.SOPClassUID,
        image.SOPInstanceUID,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
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


def _study_group(report: Report) -> Any:
    finding = report.finding
    sites = [hd.sr.FindingSite(_code(level_code(finding.level)))] if finding.level else None
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=_new_uid(), identifier="study"),
        finding_type=_code(EPIDURAL_FLUID),
        finding_sites=sites,
        algorithm_id=_algorithm(),
        measurements=[
            _measurement(_PROBABILITY, finding.confidence, "1"),
            _measurement(
                private_term("NUMBERINGCONF", "Confidence of the level numbering"),
                report.levels.numbering.confidence,
                "1",
            ),
        ],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_code(EPIDURAL_FLUID), _code(_LEAK[finding.leak])),
            _evaluation("NUMBERING", "Level numbering", report.levels.numbering.method),
        ],
    )


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


def _collection_group(
    report: Report, c: Collection, segment: Segment | None, reference: Any
) -> Any:
    targets = [t for t in report.planning.targets if t.collection == c.id]
    distance = targets[0].canal_distance_from_hiatus_mm if targets else None
    values = [
        (_VOLUME, c.volume_ml, "cm3", None),
        (_LENGTH, c.extent.length_mm, "mm", None),
        (_DEPTH, c.max_thickness_mm, "mm", _MAXIMUM),
        (_AREA, c.max_area_mm2, "mm2", _MAXIMUM),
        (_PROBABILITY, c.confidence, "1", None),
        (private_term("SACCOMPRESSION", "Sac compression"), c.sac_compression, "1", None),
        (_PATH_LENGTH, distance, "mm", None),
        *(
            (_signal_term(measured.role), measured.ratio, "1", None)
            for measured in (c.character.ratios if c.character is not None else ())
        ),
    ]
    evaluations = [
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
                _code(private_term("ALTLEVEL", "Level it could also be")),
                _code(level_code(other.level)),
            )
            for other in c.alternatives
        ),
    ]
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=segment.tracking_uid if segment else _new_uid(),
            identifier=segment.tracking_id if segment else f"epidural fluid {c.id}",
        ),
        "finding_type": _code(EPIDURAL_FLUID),
        "finding_sites": [_site(c.level, c.position.label)],
        "algorithm_id": _algorithm(),
        "measurements": [
            _measurement(name, value, unit, derivation)
            for name, value, unit, derivation in values
            if value is not None
        ],
        "qualitative_evaluations": evaluations,
    }
    if reference is None:
        return hd.sr.MeasurementsAndQualitativeEvaluations(**common)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=reference, **common
    )


def _side_group(segment: str, side: str, fluid: SideFluid) -> Any:
    """Create the measurements of the fluid on one side of the sac within a motion segment."""
    values = ((_DEPTH, fluid.thickness_mm, "mm"), (_AREA, fluid.area_mm2, "mm2"))
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=_new_uid(), identifier=f"epidural fluid {segment} {side}"
        ),
        finding_type=_code(EPIDURAL_FLUID),
        finding_sites=[_site(segment, side)],
        algorithm_id=_algorithm(),
        measurements=[
            _measurement(name, value, unit, _MAXIMUM)
            for name, value, unit in values
            if value is not None
        ],
    )


def _site(segment: str | None, side: str) -> Any:
    """Create the finding site of a motion segment, with a side of the sac."""
    lateral = side in ("left", "right")
    return hd.sr.FindingSite(
        _code(level_code(segment) if segment else SPINE),
        laterality=_code(_POSITIONS[side]) if lateral else None,
        topographical_modifier=None if lateral else _code(_POSITIONS[side]),
    )


def _signal_term(role: Role) -> CodedTerm:
    name = role_name(role)
    return private_term(f"RATIO{name.replace(' ', '')}".upper(), f"Signal relative to CSF, {name}")


def _measurement(
    name: CodedTerm, value: float, unit: str, derivation: CodedTerm | None = None
) -> Any:
    return hd.sr.Measurement(
        name=_code(name),
        value=round(value, 4),
        unit=_code(_UNITS[unit]),
        derivation=_code(derivation) if derivation else None,
    )


def _evaluation(code: str, meaning: str, value: str) -> Any:
    """Create a qualitative evaluation with a private code."""
    answer = private_term(value.replace("_", "").upper()[:16], value.replace("_", " "))
    return hd.sr.QualitativeEvaluation(_code(private_term(code, meaning)), _code(answer))


def _numbering_text(report: Report) -> str:
    numbering = report.levels.numbering
    return (
        f"Level status: {report.levels.status}. Numbering assumes {numbering.assumption}"
        f" (confidence {numbering.confidence:.2f})."
    )


def _algorithm() -> Any:
    return hd.sr.AlgorithmIdentification(name=MODEL, version=__version__)


# --- secondary captures -------------------------------------------------------------------


def secondary_captures(pictures: Sequence[Picture], sources: Sources) -> Iterator[tuple[str, Any]]:
    """Yield the name and Secondary Capture of each figure, all in one series."""
    common = _instance_attributes(SC_SERIES_NUMBER)
    for number, picture in enumerate(pictures, 1):
        capture = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=sources.main[0],
            pixel_array=picture.rgb,
            photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            series_instance_uid=common["series_instance_uid"],
            series_number=SC_SERIES_NUMBER,
            sop_instance_uid=_new_uid(),
            instance_number=number,
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "F"),  # highdicom does not accept an empty value
        )
        capture.PatientOrientation = []  # several planes with burned-in orientation labels
        capture.BodyPartExamined = "SPINE"  # unpaired: no laterality
        capture.BurnedInAnnotation = "NO"  # text, but no patient identity
        capture.SeriesDescription = f"leakloc figures - {SHORT_NOTICE}"[:64]
        capture.ImageComments = SHORT_NOTICE
        yield picture.name, capture


# --- helpers ------------------------------------------------------------------------------


def _instance_attributes(series_number: int) -> dict[str, Any]:
    """Return new UIDs and the equipment attributes."""
    return {
        "series_instance_uid": _new_uid(),
        "series_number": series_number,
        "sop_instance_uid": _new_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": __version__,
    }


def _new_uid() -> str:
    return str(generate_uid())


def _code(term: CodedTerm) -> Any:
    return hd.sr.CodedConcept(term.value, term.scheme, term.meaning)
