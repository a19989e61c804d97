"""What one DICOM file's header says, frame by frame; no pixels are read here."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

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
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "ContrastBolusAgent",
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
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "StudyDate",
    "AccessionNumber",
    "PatientID",
    "NumberOfMosaics",
)
_CONTRAST_KEYWORDS: Final = (
    *("SeriesInstanceUID", "EchoTime", "ImageType", "SliceThickness", "InversionTime"),
    *("ContrastBolusAgent", "BurnedInAnnotation"),
)
"""Classic images of one series that agree in these share their parameters."""
_FRAME_CONTRAST_KEYWORDS: Final = ("EffectiveEchoTime", "FrameType", "InversionTimes")
"""The same for the frames of one multi-frame object."""
_GE_SEQUENCE_NAME: Final = 0x0019109C
_PHILIPS_SEQUENCE_NAME: Final = 0x20011020
_PHILIPS_SCALE: Final = 0x2005100E
"""Philips scale slope: signal is (stored + intercept / slope) over it (as in dcm2niix)."""
_PHILIPS_FRAME_GROUP: Final = 0x2005140F
_PRIVATE_SEQUENCE_NAMES: Final = {"GE": _GE_SEQUENCE_NAME, "PHILIPS": _PHILIPS_SEQUENCE_NAME}

_NOT_PICTURES: Final = {
    "1.2.840.10008.1.3.10": "a DICOMDIR index, not an image",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, not an image",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation, not an image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map, not an image",
}
_LARGEST_NUMBER: Final = 1e5
"""Millimetres beyond which a position or spacing is damage: a scanner room has 1e4."""
_LEAST_SPACING_MM: Final = 1e-3
_PIXEL_HEADER_BYTES: Final = 8
"""Least bytes of tag, VR and length before uncompressed pixel values."""
_DELIMITERS: Final = (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
"""End of encapsulated pixel data (FFFE,E0DD), little and big endian."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: a classic instance, or one frame of a multi-frame object.

    Parameters
    ----------
    index : int or None
        Frame number from 0 within a multi-frame object, None for a classic instance.
    position_lps, orientation_lps : tuple or None
        Image Position (3) and Image Orientation (6), None where absent or unusable.
    spacing_mm : tuple or None
        Between rows, between columns.
    cut_short : bool
        Whether the file ends before its pixel data do.
    private_scale : float or None
        Philips' scale slope. It matters only where it differs between the slices of a stack.
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
    private_scale: float | None
    parameters: dict[str, Any] = field(repr=False)
    identity: StudyInfo = field(repr=False)


class NotAnImageError(Exception):
    """A readable file that holds no picture; the message says what it is."""


class HeaderReader:
    """Reads DICOM headers up to the pixel data.

    Sequence parameters are read once per series and contrast, as they repeat in every file.
    """

    def __init__(self) -> None:
        from pydicom.datadict import tag_for_keyword

        keywords = (*_FRAME_KEYWORDS, *SEQUENCE_KEYWORDS)
        self._tags = [tag for word in keywords if (tag := tag_for_keyword(word)) is not None]
        self._tags += [*_PRIVATE_SEQUENCE_NAMES.values(), _PHILIPS_SCALE]
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def read(self, path: Path) -> list[Frame]:
        """The frames of a file.

        Raises
        ------
        NotAnImageError
            If it is no DICOM image; the message is the reason.
        """
        import pydicom

        try:
            with path.open("rb") as file:
                dataset = pydicom.dcmread(
                    file, stop_before_pixels=True, force=True, specific_tags=self._tags
                )
                pixels_at = file.tell()
                size = os.fstat(file.fileno()).st_size
            _demand_picture(dataset)
            cut_short = _is_cut_short(path, dataset, pixels_at, size)
            if "PerFrameFunctionalGroupsSequence" in dataset:
                return _enhanced_frames(path, dataset, cut_short)
            return [self._classic_frame(path, dataset, cut_short)]
        except (NotAnImageError, OSError):
            raise
        except Exception as error:  # pydicom raises many kinds on broken files
            raise NotAnImageError(f"broken DICOM header ({type(error).__name__})") from error

    def _classic_frame(self, path: Path, dataset: Any, cut_short: bool) -> Frame:
        number = _integer(dataset, "NumberOfFrames") or 1
        key = tuple(_raw(dataset, keyword) for keyword in _CONTRAST_KEYWORDS)
        if key not in self._known:
            self._known[key] = _parameters([dataset])
        # Several frames without functional groups share one position: they form no volume.
        geometric = [dataset] if number == 1 else []
        index = None if number == 1 else 0
        return _frame(path, index, dataset, geometric, self._known[key], cut_short)


def _demand_picture(dataset: Any) -> None:
    sop_class = _text(dataset, "SOPClassUID") or ""
    modality = _text(dataset, "Modality") or ""
    for uid in (sop_class, str(getattr(dataset.file_meta, "MediaStorageSOPClassUID", ""))):
        if uid in _NOT_PICTURES:
            raise NotAnImageError(_NOT_PICTURES[uid])
    if not sop_class and not modality and "Rows" not in dataset:
        raise NotAnImageError("not DICOM")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise NotAnImageError(f"a DICOM object without pictures ({modality or 'unknown kind'})")
    if not _text(dataset, "SOPInstanceUID") or not _text(dataset, "SeriesInstanceUID"):
        raise NotAnImageError("a DICOM image without instance or series UID")


def _raw(dataset: Any, keyword: str) -> Any:
    """The undecoded value of an attribute, for comparison only."""
    element = dataset.get_item(keyword)
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else str(value)


def _enhanced_frames(path: Path, dataset: Any, cut_short: bool) -> list[Frame]:
    shared = _groups(dataset.get("SharedFunctionalGroupsSequence") or [None])
    known: dict[tuple[Any, ...], dict[str, Any]] = {}
    frames = []
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        sources = [*_groups([item]), *shared, dataset]
        key = tuple(str(_first(sources, keyword, _plain)) for keyword in _FRAME_CONTRAST_KEYWORDS)
        if key not in known:
            known[key] = _parameters(sources)
        private = item.get(_PHILIPS_FRAME_GROUP)
        scale = (
            _private_number(private.value[0], _PHILIPS_SCALE) if private and private.value else None
        )
        frame = _frame(path, index, dataset, sources, known[key], cut_short)
        frames.append(frame if scale is None else replace(frame, private_scale=scale))
    return frames


def _groups(items: Iterable[Any]) -> list[Any]:
    """The datasets inside functional groups, each holding plain attributes."""
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
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        color=(_integer(dataset, "SamplesPerPixel") or 1) != 1
        or _text(dataset, "PhotometricInterpretation") == "PALETTE COLOR",
        mosaic="MOSAIC" in image_type,
        echo_time_ms=float(echo_time) if isinstance(echo_time, int | float) else None,
        image_type=image_type,
        cut_short=cut_short,
        private_scale=_private_number(dataset, _PHILIPS_SCALE),
        parameters=parameters,
        identity=StudyInfo(
            study_instance_uid=_text(dataset, "StudyInstanceUID"),
            study_date=_text(dataset, "StudyDate"),
            accession_number=_text(dataset, "AccessionNumber"),
            patient_id=_text(dataset, "PatientID"),
        ),
    )


def _parameters(sources: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in SEQUENCE_KEYWORDS:
        value = next((v for s in sources if (v := _plain(s, keyword)) not in (None, "", [])), None)
        if value is not None:
            found[keyword] = value
    maker = str(found.get("Manufacturer", "")).upper()
    for start, tag in _PRIVATE_SEQUENCE_NAMES.items():
        if maker.startswith(start) and not {"SequenceName", "PulseSequenceName"} & found.keys():
            name = _private_text(sources[-1], tag)
            if name:
                found["PulseSequenceName"] = name
    return found


def _is_cut_short(path: Path, dataset: Any, pixels_at: int, size: int) -> bool:
    """Whether the file ends before its pixel data do."""
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_deflated:
        return False  # the position in the inflated stream says nothing about the file
    if syntax is not None and syntax.is_compressed:
        with path.open("rb") as file:
            file.seek(max(pixels_at, size - 4096))
            tail = file.read()
        return not any(mark in tail for mark in _DELIMITERS)
    samples = _integer(dataset, "SamplesPerPixel") or 1
    bits = _integer(dataset, "BitsAllocated") or 16
    frames = _integer(dataset, "NumberOfFrames") or 1
    expected = int(dataset.Rows) * int(dataset.Columns) * samples * frames * bits // 8
    return size - pixels_at - _PIXEL_HEADER_BYTES < expected


def _plain(source: Any, keyword: str) -> Any:
    """A value as plain Python, None where absent or unreadable."""
    from pydicom.multival import MultiValue

    try:
        value = source.get(keyword)
    except Exception:  # an undecodable text or number must not cost the file
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
    return numbers if numbers and min(numbers) >= _LEAST_SPACING_MM else None


def _private_number(dataset: Any, tag: int) -> float | None:
    """A positive private number; unknown to readers without that vendor's dictionary."""
    if tag not in dataset:
        return None
    try:
        value = dataset[tag].value
        if isinstance(value, bytes):  # implicit VR: four bytes of a float
            value = struct.unpack("<f", value)[0]
        number = float(value)
    except Exception:  # bytes of another length, or text
        return None
    return number if math.isfinite(number) and number > 0 else None


def _private_text(dataset: Any, tag: int) -> str | None:
    try:
        value = dataset[tag].value
    except Exception:  # absent, or bytes that are no text
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip().strip("\0") or None
