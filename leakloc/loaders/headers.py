"""Read the header of a DICOM file frame by frame, without pixels."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from leakloc.core.errors import InputError, neutral_names, reason_of
from leakloc.core.settings import LoaderSettings
from leakloc.loaders.limits import DicomFile
from leakloc.loaders.study import StudyInfo

Vector = tuple[float, ...]

SEQUENCE_KEYWORDS: Final = (
    "SeriesDescription",
    "ProtocolName",
    "StudyDescription",
    "SequenceName",
    "PulseSequenceName",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "EchoPulseSequence",
    "MRAcquisitionType",
    "AcquisitionContrast",
    "SegmentedKSpaceTraversal",
    "SteadyStatePulseSequence",
    "SpectrallySelectedSuppression",
    "InversionRecovery",
    "RepetitionTime",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "InversionTimes",
    "EchoTrainLength",
    "RFEchoTrainLength",
    "FlipAngle",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImageType",
    "ComplexImageComponent",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "ContrastBolusAgent",
    "ContrastBolusRoute",
    "BodyPartExamined",
    "MagneticFieldStrength",
    "PatientPosition",
    "BurnedInAnnotation",
    "Manufacturer",
    "ManufacturerModelName",
    "ImagesInAcquisition",
)
"""Copied to `SeriesStack.parameters` where present."""

_FRAME_KEYWORDS: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "StudyDate",
    "AccessionNumber",
    "PatientID",
    "NumberOfMosaics",
)
_CONTRAST_KEYWORDS: Final = (
    *("SeriesInstanceUID", "EchoTime", "ImageType", "SliceThickness", "InversionTime"),
    *("ContrastBolusAgent", "BurnedInAnnotation", "RepetitionTime", "FlipAngle"),
    *("SeriesNumber", "SeriesDescription", "ComplexImageComponent"),
)
"""Single-frame images of one series with equal values here have the same parameters."""
_FRAME_CONTRAST_KEYWORDS: Final = (
    *("EffectiveEchoTime", "FrameType", "InversionTimes", "ComplexImageComponent"),
    *("RepetitionTime", "FlipAngle"),
)
"""The same for frames of a multi-frame object."""
_GE_SEQUENCE_NAME: Final = 0x0019109C
_PHILIPS_SEQUENCE_NAME: Final = 0x20011020
_PHILIPS_SCALE: Final = 0x2005100E
"""Philips scale slope: signal is (stored + intercept / slope) / scale slope (as in dcm2niix)."""
_PHILIPS_FRAME_GROUP: Final = 0x2005140F
_GE_COMPONENT: Final = 0x0043102F
"""GE image type: number of the component, `_GE_COMPONENTS`."""
_PHILIPS_COMPONENT: Final = 0x20051011
"""Philips image type: ``M``, ``P``, ``R``, ``I``, ``W``, ``F`` and others."""
_GE_COMPONENTS: Final = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
_PHILIPS_COMPONENTS: Final = {
    **{"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"},
    **{"W": "WATER", "F": "FAT", "IP": "IN_PHASE", "OP": "OUT_PHASE"},
}
_PRIVATE_SEQUENCE_NAMES: Final = {"GE": _GE_SEQUENCE_NAME, "PHILIPS": _PHILIPS_SEQUENCE_NAME}

_NOT_IMAGES: Final = {
    "1.2.840.10008.1.3.10": "a DICOMDIR (index of a disc), not an image",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, not an image",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation, not an image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map, not an image",
}
_LARGEST_NUMBER: Final = 1e5
"""Maximum valid position or spacing in millimeters: a scanner room measures 1e4."""
_MIN_SPACING_MM: Final = 1e-3
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double and integer pixel data."""
_FUNCTIONAL_GROUPS: Final = frozenset({0x52009229, 0x52009230})
"""Shared and Per-Frame Functional Groups Sequence."""
_REPEATED_BYTES: Final = 128
"""Maximum length of cached values; longer ones differ between files."""
_MAX_VALUES: Final = 100_000
"""Maximum number of cached values; a study of 2,000 images has about 6,000."""
_PIXEL_HEADER_BYTES: Final = 8
"""Minimum bytes of tag, VR and length before uncompressed pixel values."""
_ALLOCATED: Final = 16
"""Bits of a padding value (US or SS)."""
_DELIMITERS: Final = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
"""End of encapsulated pixel data (FFFE,E0DD), little and big endian."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Location and encoding of the grayscale pixels of one frame.

    Allows reading them without parsing the file again.

    Parameters
    ----------
    at : int
        Offset of the pixel data element.
    file_bytes : int
        Size of the file when its header was read.
    header_bytes : int
        Bytes of the element before its values: 8 with implicit, 12 with explicit VR.
    syntax : str or None
        Transfer syntax of compressed pixels; None if uncompressed (16 bits each).
    allocated : int
        Bits Allocated.
    bits : int
        Bits Stored, the least significant ones.
    padding : tuple or None
        Lowest and highest stored value of padding.
    inverted : bool
        Whether higher values are darker (MONOCHROME1).
    """

    at: int
    file_bytes: int
    header_bytes: int
    syntax: str | None
    signed: bool
    allocated: int
    bits: int
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    inverted: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One image: a single-frame instance, or one frame of a multi-frame object.

    Parameters
    ----------
    index : int or None
        Zero-based frame number in a multi-frame object, None for a single-frame instance.
    position_lps, orientation_lps : tuple or None
        Image Position (3) and Image Orientation (6), None if absent or unusable.
    spacing_mm : tuple or None
        Between rows, between columns.
    cut_short : bool
        Whether the pixel data are truncated.
    decimal_comma : bool
        Whether numbers of the header have decimal commas, which were replaced.
    slope : float or None
        Rescale Slope as stated, None if absent; see `usable_slope`.
    private_scale : float or None
        Philips scale slope. Used only if it differs between the slices of a stack.
    pixel_bytes : int
        Decoded size of one pixel.
    stored : Stored or None
        Location and encoding of the pixels; None if a decoder is needed.
    """

    path: Path
    index: int | None
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    series_number: int | None
    instance_number: int | None
    temporal_position: tuple[int | None, ...]
    frame_of_reference_uid: str | None
    modality: str
    position_lps: Vector | None
    orientation_lps: Vector | None
    spacing_mm: Vector | None
    rows: int
    columns: int
    color: bool
    mosaic: bool
    echo_time_ms: float | None
    image_type: tuple[str, ...]
    cut_short: bool
    slope: float | None
    private_scale: float | None
    parameters: dict[str, Any] = field(repr=False)
    identity: StudyInfo = field(repr=False)
    pixel_bytes: int = 2
    stored: Stored | None = None
    decimal_comma: bool = False


class NotAnImageError(Exception):
    """A readable file without an image; the message states its type."""


class HeaderReader:
    """Reads DICOM headers up to the pixel data.

    Sequence parameters are read once per series and contrast, as they repeat in every file.

    Parameters
    ----------
    settings : LoaderSettings, optional
        Limit of the size of a file.
    """

    def __init__(self, settings: LoaderSettings | None = None) -> None:
        self._settings = settings or LoaderSettings()
        keywords = (*_FRAME_KEYWORDS, *SEQUENCE_KEYWORDS)
        by_keyword = {word: tag_for_keyword(word) for word in keywords}
        self._tags = {word: int(tag) for word, tag in by_keyword.items() if tag is not None}
        # Plain numbers: a comparison of pydicom's tags costs as much as reading an element.
        self._wanted: list[Any] = [*self._tags.values(), *_PRIVATE_SEQUENCE_NAMES.values()]
        self._wanted += [_PHILIPS_SCALE, _GE_COMPONENT, _PHILIPS_COMPONENT]
        self._values: dict[tuple[Any, ...], Any] = {}
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def read(self, path: Path) -> list[Frame]:
        """Read the frames of a file.

        Raises
        ------
        NotAnImageError
            If it is not a DICOM image; the message states the reason.
        """
        try:
            # The message is the reason in the report, which contains no file names.
            with neutral_names(lambda _: "the file"), DicomFile(path, self._settings) as file:
                dataset = read_partial(file, _at_pixels, force=True, specific_tags=self._wanted)
                pixels_at = file.tell()
                size = os.fstat(file.fileno()).st_size
                comma = replace_decimal_commas(dataset)
                source = _Repeating(dataset, self._tags, self._values)
                _require_image(source)
                cut_short = _is_cut_short(file, source, pixels_at, size)
            if "PerFrameFunctionalGroupsSequence" in dataset:
                frames = _enhanced_frames(path, dataset, cut_short)
                return [replace(f, decimal_comma=True) for f in frames] if comma else frames
            frame = self._classic_frame(path, source, cut_short)
            stored = _stored(source, pixels_at, size)
            return [replace(frame, stored=stored, decimal_comma=comma)]
        except (NotAnImageError, OSError):
            raise
        except InputError as error:
            raise NotAnImageError(str(error)) from error
        except Exception as error:  # pydicom raises various exceptions on corrupt files
            raise NotAnImageError(f"corrupt DICOM header ({reason_of(error)})") from error

    def _classic_frame(self, path: Path, dataset: _Repeating, cut_short: bool) -> Frame:
        number = _integer(dataset, "NumberOfFrames") or 1
        component = _private_component(dataset)
        key = (*(dataset.undecoded(keyword) for keyword in _CONTRAST_KEYWORDS), component)
        if key not in self._known:
            self._known[key] = _parameters([dataset], component)
        # Frames without functional groups have a single position: they do not form a volume.
        geometric = [dataset] if number == 1 else []
        index = None if number == 1 else 0
        return _frame(path, index, dataset, geometric, self._known[key], cut_short)


def replace_decimal_commas(dataset: pydicom.Dataset) -> bool:
    """Replace decimal commas in decimal strings of a dataset by points.

    Returns
    -------
    bool
        Whether there were any.
    """
    found = False
    for element in list(dataset.elements()):
        if isinstance(element, RawDataElement):
            value = element.value
            if isinstance(value, bytes) and b"," in value and _is_decimal(element):
                dataset[element.tag] = element._replace(value=value.replace(b",", b"."))
                found = True
        if element.VR == "SQ" or element.tag in _FUNCTIONAL_GROUPS:
            for item in dataset[element.tag].value:
                found |= replace_decimal_commas(item)
    return found


def _is_decimal(element: RawDataElement) -> bool:
    if element.VR not in (None, "UN"):
        return element.VR == "DS"
    return dictionary_has_tag(element.tag) and dictionary_VR(element.tag) == "DS"


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_TAGS


class _Repeating:
    """A header whose decoded values are cached across files with the same bytes."""

    def __init__(
        self, dataset: Any, tags: dict[str, int], values: dict[tuple[Any, ...], Any]
    ) -> None:
        self._dataset = dataset
        self._tags = tags
        self._values = values
        self._raw = {int(element.tag): element for element in dataset.elements()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __contains__(self, tag: object) -> bool:
        return tag in self._dataset

    def __getitem__(self, tag: int) -> Any:
        return self._dataset[tag]

    def get(self, keyword: str) -> Any:
        """Return the value of an attribute, None if absent."""
        return self._dataset.get(keyword)

    def undecoded(self, keyword: str) -> Any:
        """Return the bytes of an attribute, for comparison only."""
        element = self._raw.get(self._tags.get(keyword, 0))
        value = None if element is None else element.value
        return value if isinstance(value, bytes) else str(value)

    def plain(self, keyword: str) -> Any:
        """Return the value as `_plain` does, cached across files with the same bytes."""
        tag = self._tags.get(keyword, 0)
        raw = self._raw.get(tag)
        if raw is None:
            return None  # absent, or not read
        bare = raw.value if raw.is_raw else None
        # Non-ASCII bytes depend on the character set of their file.
        if not isinstance(bare, bytes) or len(bare) > _REPEATED_BYTES or not bare.isascii():
            return _plain(self._dataset, keyword)
        key = (tag, bare, raw.VR, raw.is_little_endian)
        if key not in self._values:
            if len(self._values) > _MAX_VALUES:
                self._values.clear()
            self._values[key] = _plain(self._dataset, keyword)
        return self._values[key]


def _require_image(dataset: Any) -> None:
    sop_class = _text(dataset, "SOPClassUID") or ""
    modality = _text(dataset, "Modality") or ""
    for uid in (sop_class, str(getattr(dataset.file_meta, "MediaStorageSOPClassUID", ""))):
        if uid in _NOT_IMAGES:
            raise NotAnImageError(_NOT_IMAGES[uid])
    if not sop_class and not modality and "Rows" not in dataset:
        raise NotAnImageError("not DICOM")
    if not _integer(dataset, "Rows") or not _integer(dataset, "Columns"):
        raise NotAnImageError(f"a DICOM object without images ({modality or 'unknown modality'})")
    if not _text(dataset, "SOPInstanceUID") or not _text(dataset, "SeriesInstanceUID"):
        raise NotAnImageError("a DICOM image without instance or series UID")


def _enhanced_frames(path: Path, dataset: Any, cut_short: bool) -> list[Frame]:
    shared = _groups(dataset.get("SharedFunctionalGroupsSequence") or [None])
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    frames = []
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        sources = [*_groups([item]), *shared, dataset]
        private = item.get(_PHILIPS_FRAME_GROUP)
        vendor = private.value[0] if private and private.value else {}
        component = _private_component(vendor) or _private_component(dataset)
        key = (
            *(str(_first(sources, keyword, _plain)) for keyword in _FRAME_CONTRAST_KEYWORDS),
            component,
        )
        if key not in known:
            known[key] = _parameters(sources, component)
        scale = _private_number(vendor, _PHILIPS_SCALE)
        frame = _frame(path, index, dataset, sources, known[key], cut_short)
        frames.append(frame if scale is None else replace(frame, private_scale=scale))
    return frames


def _groups(items: Iterable[Any]) -> list[Any]:
    """Return the datasets in functional groups."""
    inner = []
    for item in items:
        for element in item or []:
            if element.VR == "SQ" and not element.tag.is_private and element.value:
                inner.append(element.value[0])
    return inner


def _frame(
    path: Path,
    index: int | None,
    dataset: Any,
    sources: list[Any],
    parameters: dict[str, Any],
    cut_short: bool,
) -> Frame:
    echo_time = parameters.get("EchoTime", parameters.get("EffectiveEchoTime"))
    image_type = tuple(str(part).upper() for part in _listed(parameters.get("ImageType")))
    frame_type = _first(sources, "FrameType", _texts)
    if frame_type:
        image_type = tuple(part.upper() for part in frame_type)
        parameters = {**parameters, "ImageType": list(image_type)}
    image_type += component_words(parameters)
    temporal = tuple(
        _first([*sources, dataset], keyword, _integer)
        for keyword in ("TemporalPositionIndex", "TemporalPositionIdentifier", "AcquisitionNumber")
    )
    return Frame(
        path=path,
        index=index,
        sop_instance_uid=_text(dataset, "SOPInstanceUID") or "",
        sop_class_uid=_text(dataset, "SOPClassUID") or "",
        study_instance_uid=_text(dataset, "StudyInstanceUID") or "",
        series_instance_uid=_text(dataset, "SeriesInstanceUID") or "",
        series_number=_integer(dataset, "SeriesNumber"),
        instance_number=_integer(dataset, "InstanceNumber"),
        temporal_position=temporal,
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        modality=_text(dataset, "Modality") or "",
        position_lps=_numbers(sources, "ImagePositionPatient", 3),
        orientation_lps=_numbers(sources, "ImageOrientationPatient", 6),
        spacing_mm=_positive(_numbers(sources, "PixelSpacing", 2)),
        rows=_integer(dataset, "Rows") or 0,
        columns=_integer(dataset, "Columns") or 0,
        color=(_integer(dataset, "SamplesPerPixel") or 1) != 1
        or _text(dataset, "PhotometricInterpretation") == "PALETTE COLOR",
        mosaic="MOSAIC" in image_type,
        echo_time_ms=float(echo_time) if isinstance(echo_time, int | float) else None,
        image_type=image_type,
        cut_short=cut_short,
        slope=_first([*sources, dataset], "RescaleSlope", _float),
        private_scale=_private_number(dataset, _PHILIPS_SCALE),
        pixel_bytes=_pixel_bytes(dataset),
        parameters=parameters,
        identity=StudyInfo(
            study_instance_uid=_text(dataset, "StudyInstanceUID"),
            study_date=_text(dataset, "StudyDate"),
            accession_number=_text(dataset, "AccessionNumber"),
            patient_id=_text(dataset, "PatientID"),
        ),
    )


def _pixel_bytes(dataset: Any) -> int:
    bits = (_integer(dataset, "BitsAllocated") or 16) * (_integer(dataset, "SamplesPerPixel") or 1)
    return max(1, bits // 8)


def _parameters(sources: list[Any], component: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in SEQUENCE_KEYWORDS:
        value = next((v for s in sources if (v := _plain(s, keyword)) not in (None, "", [])), None)
        if value is not None:
            found[keyword] = value
    if component is not None and found.get("ComplexImageComponent", "MIXED") == "MIXED":
        found["ComplexImageComponent"] = component
    maker = str(found.get("Manufacturer", "")).upper()
    for start, tag in _PRIVATE_SEQUENCE_NAMES.items():
        if maker.startswith(start) and not {"SequenceName", "PulseSequenceName"} & found.keys():
            name = _private_text(sources[-1], tag)
            if name:
                found["PulseSequenceName"] = name
    return found


def component_words(parameters: dict[str, Any]) -> tuple[str, ...]:
    """Return the component of complex images, if it is not the magnitude, as in Image Type."""
    stated = str(parameters.get("ComplexImageComponent", "")).upper()
    return () if stated in ("", "MAGNITUDE", "MIXED") else (stated,)


def _private_component(source: Any) -> str | None:
    """Return the image component stated by private elements of GE and Philips."""
    try:
        if _GE_COMPONENT in source:
            value = source[_GE_COMPONENT].value
            if isinstance(value, bytes):  # implicit VR: a two-byte integer
                value = int.from_bytes(value[:2], "little")
            return _GE_COMPONENTS.get(int(value))
        if _PHILIPS_COMPONENT in source:
            text = _private_text(source, _PHILIPS_COMPONENT) or ""
            return _PHILIPS_COMPONENTS.get(text.split("\\")[0].strip().upper())
    except Exception:  # undecodable or of another type
        return None
    return None


def _is_cut_short(file: BinaryIO, dataset: Any, pixels_at: int, size: int) -> bool:
    """Return whether the pixel data are truncated."""
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_deflated:
        return False  # the position is that in the inflated stream, not in the file
    if syntax is not None and syntax.is_compressed:
        file.seek(max(pixels_at, size - 4096))
        tail = file.read()
        return not any(mark in tail for mark in _DELIMITERS)
    samples = _integer(dataset, "SamplesPerPixel") or 1
    bits = _integer(dataset, "BitsAllocated") or 16
    frames = _integer(dataset, "NumberOfFrames") or 1
    pixels = (_integer(dataset, "Rows") or 0) * (_integer(dataset, "Columns") or 0)
    expected = pixels * samples * frames * bits // 8
    return size - pixels_at - _PIXEL_HEADER_BYTES < expected


def _stored(dataset: Any, pixels_at: int, size: int) -> Stored | None:
    """Return how to read the pixels directly; None if the encoding is unsupported."""
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    compressed = syntax is not None and syntax.is_compressed and not syntax.is_deflated
    bits, signed = _integer(dataset, "BitsStored"), _integer(dataset, "PixelRepresentation")
    allocated = _integer(dataset, "BitsAllocated")
    usual = (
        (compressed or syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian))
        and allocated in ((8, 16) if compressed else (16,))
        and (_integer(dataset, "SamplesPerPixel") or 1) == 1
        and (_integer(dataset, "NumberOfFrames") or 1) == 1
        and bits is not None
        and allocated is not None
        and 1 <= bits <= allocated
        and _integer(dataset, "HighBit") == bits - 1
        and signed in (0, 1)
        and _text(dataset, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    )
    slope, intercept = _plain(dataset, "RescaleSlope"), _plain(dataset, "RescaleIntercept")
    padding, limit = _plain(dataset, "PixelPaddingValue"), _plain(dataset, "PixelPaddingRangeLimit")
    odd = [
        value
        for value in (slope, intercept, padding, limit)
        if value is not None and not isinstance(value, int | float)
    ]
    if not usual or odd or bits is None or allocated is None:
        return None
    scale = usable_slope(slope)
    ends = padding_range(padding, limit, bits, signed=bool(signed))
    return Stored(
        at=pixels_at,
        file_bytes=size,
        header_bytes=8 if syntax == ImplicitVRLittleEndian else 12,
        syntax=str(syntax) if compressed else None,
        signed=bool(signed),
        allocated=allocated,
        bits=bits,
        slope=1.0 if scale is None else scale,
        intercept=0.0 if scale is None or intercept is None else float(intercept),
        padding=ends,
        inverted=_text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
    )


def usable_slope(slope: float | None) -> float | None:
    """Return a rescale slope; None if absent, zero or not finite, which would erase the image."""
    return float(slope) if slope and math.isfinite(slope) else None


def padding_range(
    value: float | None, limit: float | None, bits: int, *, signed: bool
) -> tuple[int, int] | None:
    """Return the lowest and highest value of padding as the pixels store it; None if not stated.

    Some writers encode the padding of signed pixels as an unsigned number, or vice versa.
    """
    if value is None:
        return None
    width = bits if limit is None else _ALLOCATED
    lowest = -(2 ** (width - 1)) if signed else 0
    ends = [
        (int(end) - lowest) % 2**width + lowest
        for end in (value, value if limit is None else limit)
    ]
    return min(ends), max(ends)


def _plain(source: Any, keyword: str) -> Any:
    """Return a value as a plain Python type; None if absent or unreadable."""
    if isinstance(source, _Repeating):
        return source.plain(keyword)
    try:
        value = source.get(keyword)
    except Exception:  # an undecodable text or number must not exclude the file
        return None
    if isinstance(value, MultiValue):
        return [_scalar(part) for part in value]
    return None if value is None else _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value).strip(" \0")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts(source: Any, keyword: str) -> list[str] | None:
    value = _plain(source, keyword)
    return [str(part) for part in _listed(value)] if value else None


def _text(source: Any, keyword: str) -> str | None:
    value = _plain(source, keyword)
    return str(value) if value not in (None, "", []) else None


def _integer(source: Any, keyword: str) -> int | None:
    try:
        return int(_plain(source, keyword))
    except (TypeError, ValueError, OverflowError):
        return None


def _float(source: Any, keyword: str) -> float | None:
    value = _plain(source, keyword)
    return float(value) if isinstance(value, int | float) else None


def _first(sources: list[Any], keyword: str, getter: Any) -> Any:
    return next((v for source in sources if (v := getter(source, keyword)) is not None), None)


def _numbers(sources: list[Any], keyword: str, count: int) -> Vector | None:
    value = _first(sources, keyword, _plain)
    try:
        numbers = tuple(float(part) for part in _listed(value))
    except (TypeError, ValueError):
        return None
    usable = all(abs(number) <= _LARGEST_NUMBER for number in numbers)  # False for NaN too
    return numbers if len(numbers) == count and usable else None


def _positive(numbers: Vector | None) -> Vector | None:
    return numbers if numbers and min(numbers) >= _MIN_SPACING_MM else None


def _private_number(dataset: Any, tag: int) -> float | None:
    """Return a positive number of a private element, with or without private dictionary."""
    if tag not in dataset:
        return None
    try:
        value = dataset[tag].value
        if isinstance(value, bytes):  # implicit VR: a four-byte float
            value = struct.unpack("<f", value)[0]
        number = float(value)
    except Exception:  # bytes of another length, or text
        return None
    return number if math.isfinite(number) and number > 0 else None


def _private_text(dataset: Any, tag: int) -> str | None:
    try:
        value = dataset[tag].value
    except Exception:  # absent or not text
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip().strip("\0") or None
