"""DICOM objects of the source study: segmentation and secondary captures.

The objects are created with highdicom, which derives the position of the masks from their
affine. Segment and measurements of a structure have the same tracking UID (`structured_report`
creates the measurements). Codes are those of `vocabulary`: standard codes if verified, otherwise
private codes of ``99LEAKLOC``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.charset import default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, DS, DT, TM

from leakloc.anatomy.vocabulary import (
    EPIDURAL_FLUID,
    LABEL_VALUES,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_UID,
    SHORT_NOTICE,
    THECAL_SAC,
    CodedTerm,
    level_code,
    vertebra_code,
)
from leakloc.core.errors import OutputError
from leakloc.core.version import __version__
from leakloc.loaders.headers import HeaderReader, replace_decimal_commas
from leakloc.report.canvas import BLUE, ORANGE, Color
from leakloc.report.clinical_terms import SPINE
from leakloc.report.label_files import vertebra_color

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from leakloc.analysis import AnalysisData
    from leakloc.core.parts import Point
    from leakloc.core.volume import Volume
    from leakloc.loaders.study import SeriesStack
    from leakloc.report.overlays import Picture

MANUFACTURER: Final = "leakloc developers"
MODEL: Final = "leakloc"
SERIAL: Final = "0"  # software: DICOM requires a device serial number
SEG_SERIES_NUMBER: Final = 9801  # above the numbers used by scanners
SR_SERIES_NUMBER: Final = 9802
SC_SERIES_NUMBER: Final = 9803
SERIES_NOTICE: Final = "Research use only - not a medical device"
"""Part of each series description, which DICOM limits to 64 characters."""

ANATOMICAL_STRUCTURE: Final = CodedTerm("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE: Final = CodedTerm("49755003", "SCT", "Morphologically Abnormal Structure")

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
_PER_IMAGE: Final = [tag_for_keyword(word) or 0 for word in {*_RETAINED, *_PATIENT_ATTRIBUTES}]
"""Tags read from every image; all others are read from the first image of a stack only."""
_GEOMETRY: Final = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
)
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
    by_network : bool
        Whether a neural network took part; false for user-supplied masks.
    point_lps_mm : Point or None
        A point within the segment, in LPS mm; determined only for the thecal sac.
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
    by_network: bool = True
    point_lps_mm: Point | None = None
    tracking_uid: str = field(default_factory=lambda: new_uid())

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
        _one_frame_of_reference(
            [
                _header(path, s, keep_identity, _PER_IMAGE if number else None)
                for number, path in enumerate(_files(s))
            ]
        )
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


def _header(path: Path, stack: SeriesStack, keep_identity: bool, tags: list[int] | None) -> Dataset:
    """Read a header as far as it is readable, with the geometry of the loader, in UTF-8.

    All attributes are read if `tags` is None.
    """
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
    replace_decimal_commas(header)
    _remove_unreadable(header)
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"  # highdicom supports few character sets
    if str(header.get("PatientSex")) not in {value.value for value in hd.PatientSexValues}:
        header.PatientSex = None
    if "PerFrameFunctionalGroupsSequence" not in header:
        _add_geometry(header, path, stack)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if keep_identity:
        return header
    anonymous = _without_identity(header)
    anonymous.file_meta = header.file_meta
    return anonymous


def _add_geometry(header: Dataset, path: Path, stack: SeriesStack) -> None:
    """Add the geometry of the loader where the header itself has none."""
    missing = [word for word in _GEOMETRY if word not in header]
    if not missing:
        return
    (frame, *_) = HeaderReader().read(path)
    known = (
        frame.position_lps,
        frame.orientation_lps,
        frame.spacing_mm,
        stack.geometry.spacing_ijk_mm[2:] if stack.geometry else None,
    )
    for keyword, values in zip(_GEOMETRY, known, strict=True):
        if values and keyword in missing:
            numbers = [DS(value, auto_format=True) for value in values]
            setattr(header, keyword, numbers if len(numbers) > 1 else numbers[0])


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
    dataset.DeidentificationMethodCodeSequence = [coded(term) for term in _DEIDENTIFICATION]


def _remove_unreadable(dataset: Dataset) -> None:
    """Remove private elements and those with an invalid value, such as a date "unknown"."""
    for tag in list(dataset.keys()):
        if tag.is_private:
            del dataset[tag]
            continue
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
    supplied = {c.id for c in segmentation.accepted if c.features is None}
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
            by_network=not supplied,
            point_lps_mm=_point_within(segmentation.thecal_sac),
        )
    ]
    collections = segmentation.collections.array
    for number in np.unique(collections[collections > 0]).tolist():
        level = located[number].level if number in located else None
        name = f"Epidural fluid {number}" + (f" {level}" if level else "")
        found.append(
            Segment(
                name,
                collections,
                number,
                ABNORMAL_STRUCTURE,
                EPIDURAL_FLUID,
                level_code(level) if level else SPINE,
                ORANGE,
                f"epidural fluid {number}",
                collection=number,
                by_network=number not in supplied,
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
                vertebra_color(vertebra.name),
                f"{vertebra.name} vertebra",
                by_network=levels.numbering.method != "external",
            )
        )
    return tuple(segment for segment in found if segment.mask().any())


def _point_within(mask: Volume) -> Point | None:
    """Return the center of the voxel nearest to the centroid of a mask; None if it is empty."""
    voxels = np.argwhere(mask.array)
    if not len(voxels):
        return None
    nearest = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    x, y, z = (float(value) for value in mask.geometry.lps_from_kji(nearest))
    return x, y, z


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
    algorithms = {
        learned: hd.AlgorithmIdentificationSequence(name=MODEL, family=family, version=__version__)
        for learned, family in (
            (True, codes.cid7162.ArtificialIntelligence),
            (False, codes.cid7162.MorphologicalOperations),
        )
    }
    segmentation = hd.seg.Segmentation(
        source_images=sources.main,
        further_source_images=sources.further or None,
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=segment.label,
                segmented_property_category=coded(segment.category),
                segmented_property_type=coded(segment.kind),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithms[segment.by_network],
                tracking_uid=segment.tracking_uid,
                tracking_id=segment.tracking_id,
                anatomic_regions=[coded(segment.region)],
                display_color=hd.color.CIELabColor.from_rgb(*segment.color),
            )
            for number, segment in enumerate(found, 1)
        ],
        content_label="LEAKLOC",
        content_description="Thecal sac, epidural fluid, vertebrae",
        series_description=f"leakloc segmentation - {SERIES_NOTICE}",
        **instance_attributes(SEG_SERIES_NUMBER),
        device_serial_number=SERIAL,
    )
    mark_as_research(segmentation)
    return segmentation


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
        mapped = numbers.take(array)
        if merged is None:
            merged = mapped
        elif (merged.astype(bool) & mapped.astype(bool)).any():
            return None
        else:
            merged |= mapped
    return merged


# --- secondary captures -------------------------------------------------------------------


def secondary_captures(
    pictures: Sequence[Picture], sources: Sources
) -> Iterator[tuple[Picture, Any]]:
    """Yield each figure with its Secondary Capture, all in one series."""
    common = instance_attributes(SC_SERIES_NUMBER)
    for number, picture in enumerate(pictures, 1):
        capture = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=sources.main[0],
            pixel_array=picture.rgb,
            photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            series_instance_uid=common["series_instance_uid"],
            series_number=SC_SERIES_NUMBER,
            sop_instance_uid=new_uid(),
            instance_number=number,
            manufacturer=MANUFACTURER,
            patient_orientation=("L", "F"),  # highdicom does not accept an empty value
        )
        capture.PatientOrientation = []  # several planes with burned-in orientation labels
        capture.BodyPartExamined = "SPINE"  # unpaired: no laterality
        capture.BurnedInAnnotation = "NO"  # text, but no patient identity
        capture.SeriesDescription = f"leakloc figures - {SERIES_NOTICE}"
        capture.ImageComments = SHORT_NOTICE
        mark_as_research(capture)
        yield picture, capture


# --- helpers ------------------------------------------------------------------------------


def instance_attributes(series_number: int) -> dict[str, Any]:
    """Return new UIDs and the equipment attributes."""
    return {
        "series_instance_uid": new_uid(),
        "series_number": series_number,
        "sop_instance_uid": new_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": __version__,
    }


def mark_as_research(dataset: Dataset) -> None:
    """State the research status and the private coding scheme in an object; changed in place."""
    dataset.ContentQualification = "RESEARCH"
    scheme = pydicom.Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeUID = PRIVATE_SCHEME_UID
    scheme.CodingSchemeName = "leakloc private terms"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    dataset.CodingSchemeIdentificationSequence = [scheme]


def new_uid() -> str:
    """Return a random UID."""
    return str(generate_uid())


def save(dataset: Dataset, path: Path) -> None:
    """Write an object created with highdicom to a DICOM file."""
    _mark_as_encoded(dataset)
    dataset.save_as(path)


def _mark_as_encoded(dataset: Dataset) -> None:
    """State the encoding of new items, recursively, so that pydicom checks each only once.

    It checks the value representations of an object and of all its items first, and otherwise
    those of each item again with the items that contain it.
    """
    for element in dataset.values():
        for item in element.value if isinstance(element.value, pydicom.Sequence) else ():
            if item.original_encoding == (None, None):
                item.set_original_encoding(False, True, default_encoding)
            _mark_as_encoded(item)


@cache
def coded(term: CodedTerm) -> Any:
    """Return a term as a coded concept of highdicom, which must not be changed."""
    return hd.sr.CodedConcept(term.value, term.scheme, term.meaning)
