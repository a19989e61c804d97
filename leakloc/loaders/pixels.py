"""Decode the pixels of a stack and resample them to a regular volume."""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from scipy import ndimage

from leakloc.core.errors import InputError, file_label, reason_of
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Provenance, Volume
from leakloc.loaders.headers import (
    Frame,
    Stored,
    padding_range,
    replace_decimal_commas,
    usable_slope,
)
from leakloc.loaders.limits import DicomFile, require_decoded_size
from leakloc.loaders.stacks import Layout, scale_varies

if TYPE_CHECKING:
    from pydicom import Dataset

Picture = npt.NDArray[Any]
Result = TypeVar("Result")
Counts = npt.NDArray[np.float64]
Decoded = tuple[Picture, npt.NDArray[np.bool_] | None, bool, Counts]
"""Signal, padding mask, whether MONOCHROME1, and the result of `_crossings`."""

_CROSSING_ROWS: Final = 4
"""Step of the rows that are examined for values that wrap around."""
_MIN_PAIRS: Final = 1000
"""Minimum number of pairs of pixels for which their values are said to wrap around."""
_MAX_SMALLER: Final = np.array([0.1, 0.1, 0.9])
"""Fraction of pairs with a smaller difference in an alternative above which values wrap around. On
volumes with a correct header it is 0.00 for whole words and unsigned values, with too few bits or a
wrong sign 0.29 to 1.00. Unsigned images may fill their range, so that more is required of signed
values (1.00 for negative values read as unsigned)."""

_PIXEL_DATA: Final = b"\xe0\x7f\x10\x00"
"""Tag of the pixel data element, little endian."""
_UNDEFINED_LENGTH: Final = b"\xff\xff\xff\xff"
"""Length of encapsulated pixel data."""
_JPEG_LS: Final = ("pyjpegls", "gdcm")
_PLUGINS: Final = {
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.5": ("gdcm", "pydicom"),
}
"""pydicom decoders in order of preference; for other syntaxes all available ones.

pyjpegls takes two thirds of the time of GDCM. pylibjpeg-rle is not used: it panics on corrupt data.
"""


_RLE: Final = "1.2.840.10008.1.2.5"
_JPEG_2000_SIZE: Final = re.compile(rb"\xff\x4f\xff\x51.{4}(.{16}).{16}(..)", re.DOTALL)
"""Start and size markers of a JPEG 2000 codestream: upper and lower corners, components."""
_JPEG_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG and JPEG-LS that precede rows, columns and components."""
_JPEG_START: Final = b"\xff\xd8"
_MAX_COMPONENTS: Final = 4
_MAX_RLE_GROWTH: Final = 2
"""Maximum size of RLE data relative to the pixels; run headers add less than 1 % in practice."""
_RLE_HEADER_BYTES: Final = 1024
"""Allowance for the header and padding of small RLE images."""


def read_stack(
    frames: tuple[Frame, ...], layout: Layout, settings: LoaderSettings | None = None
) -> Volume:
    """Decode the frames of a stack and resample them to its grid.

    Rescale slope and intercept are applied slice by slice, padding is set to the lowest
    signal (high padding would resemble fluid), and MONOCHROME1 is inverted so that higher
    values are always brighter.

    Returns
    -------
    Volume
        The stored integer type if unmodified, float32 otherwise.

    Raises
    ------
    InputError
        If pixel data cannot be decoded, or their decoded size exceeds the settings.
    """
    settings = settings or LoaderSettings()
    pixel_bytes = frames[0].pixel_bytes if layout.is_regular else np.dtype(np.float32).itemsize
    size = prod(layout.geometry.shape) * pixel_bytes
    require_decoded_size(size, frames[0].path, settings)
    array, padding, inverted = _signal(frames, settings)
    if any(mask is not None for mask in padding):
        _clear_padding(array, padding, np.max if inverted else np.min)
    if inverted:
        array = array.max() - array.astype(np.float32)
    steps: tuple[str, ...] = ()
    if not layout.is_regular:
        array = _onto_grid(array, layout)
        steps = ("slices interpolated onto a regular grid",)
    first = frames[0]
    description = str(first.parameters.get("SeriesDescription", ""))
    provenance = Provenance("series", first.series_instance_uid, description, steps=steps)
    return Volume(array, layout.geometry, provenance)


def _signal(
    frames: tuple[Frame, ...], settings: LoaderSettings
) -> tuple[Picture, list[npt.NDArray[np.bool_] | None], bool]:
    """Return all frames in one array, their padding masks, and whether any is MONOCHROME1.

    Raises
    ------
    InputError
        If the values wrap around: the header states fewer bits than the pixels have, or another
        sign.
    """
    array: Picture | None = None
    padding: list[npt.NDArray[np.bool_] | None] = [None] * len(frames)
    inverted = False
    crossings = np.zeros((len(_MAX_SMALLER), 2))
    for place, (values, mask, flag, found) in _pictures(frames, settings):
        frame = frames[place]
        crossings += found
        if values.shape != (frame.rows, frame.columns):
            raise InputError(_size_message(frame.path, values.shape, (frame.rows, frame.columns)))
        if array is None:
            array = np.empty((len(frames), *values.shape), values.dtype)
        elif array.dtype != values.dtype:
            array = array.astype(np.result_type(array, values), copy=False)
        array[place] = values
        padding[place] = mask
        inverted |= flag
    assert array is not None  # a stack has frames
    pairs, smaller = crossings.T
    if ((pairs >= _MIN_PAIRS) & (smaller > _MAX_SMALLER * pairs)).any():
        raise InputError(
            f"the pixels of series {frames[0].series_instance_uid} contradict its header: Bits "
            "Stored or Pixel Representation is wrong, so that values wrap around; export the "
            "series again"
        )
    return array, padding, inverted


def _size_message(path: Path, found: tuple[int, ...], stated: tuple[int, int]) -> str:
    return (
        f"{file_label(path)} contains an image of {found}, not of {stated} as stated in its "
        "header: it was changed while it was read, or is corrupt; read the study again"
    )


def same_pixels(one: Frame, other: Frame, settings: LoaderSettings | None = None) -> bool:
    """Return whether two frames have identical stored values."""
    limits = settings or LoaderSettings()
    try:
        (_, first), (_, second) = [
            next(iter(_pictures((frame,), limits))) for frame in (one, other)
        ]
    except InputError:
        return False
    return bool(np.array_equal(first[0], second[0]))


def _pictures(frames: tuple[Frame, ...], settings: LoaderSettings) -> Iterator[tuple[int, Decoded]]:
    """Yield index in the stack and the decoded frame, file by file."""
    size = sum(frame.rows * frame.columns * frame.pixel_bytes for frame in frames)
    require_decoded_size(size, frames[0].path, settings)
    scaled = scale_varies(frames)
    numbered = sorted(enumerate(frames), key=lambda item: str(item[1].path))
    for path, group in groupby(numbered, key=lambda item: item[1].path):
        members = list(group)
        direct = [(place, frame, _read_directly(frame)) for place, frame in members]
        if all(words is not None for _, _, words in direct):
            for place, frame, words in direct:
                if words is not None:
                    yield place, _decoded_signal(frame, words, scaled=scaled)
            continue
        dataset, stored = _decode(path, [frame for _, frame in members], settings)
        for (place, frame), words in zip(members, stored, strict=True):
            try:
                decoded = _interpreted(frame, words, dataset, scaled=scaled)
            except InputError:
                raise
            except Exception as error:  # pydicom raises various exceptions for invalid values
                raise InputError(
                    f"the pixel attributes of {file_label(path)} are corrupt "
                    f"({type(error).__name__}); export the series again"
                ) from error
            yield place, decoded


def _interpreted(frame: Frame, words: Picture, dataset: Any, *, scaled: bool) -> Decoded:
    """Return the signal of words from a decoder, according to the header."""
    values, crossings = _extracted(words, dataset)
    mask = _padding_mask(values, dataset)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    signal = _rescaled(values, dataset, frame.index)
    if scaled and frame.private_scale is not None:
        slope = _rescale(dataset, frame.index)[0]
        signal = _unscaled(signal, slope, frame.private_scale)
    return signal, mask, inverted, crossings


def _read_directly(frame: Frame) -> Picture | None:
    """Read words at the stored offset; None if the file has changed or is unsupported."""
    stored = frame.stored
    if stored is None:
        return None
    count = frame.rows * frame.columns
    try:
        with frame.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != stored.file_bytes:
                return None
            file.seek(stored.at)
            element = file.read(stored.header_bytes)
            if element[:4] != _PIXEL_DATA:
                return None
            if stored.syntax is not None:
                fragments = file.read() if element.endswith(_UNDEFINED_LENGTH) else b""
                return _decompressed(fragments, stored.syntax, frame, stored)
            values = np.fromfile(file, "<i2" if stored.signed else "<u2", count)
    except OSError:
        return None  # the decoder reports the reason
    if values.size != count:
        return None
    return _native(values.reshape(frame.rows, frame.columns))


def _decompressed(fragments: bytes, syntax: str, frame: Frame, stored: Stored) -> Picture | None:
    """Decode an encapsulated frame; None if its fragments alone are not sufficient."""
    try:
        code = get_frame(fragments, 0, number_of_frames=1)
    except Exception:  # various exceptions; `_decode` reports the reason
        return None
    _require_stated_size(code, syntax, frame)
    options: dict[str, Any] = {
        "rows": frame.rows,
        "columns": frame.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": stored.allocated,
        "bits_stored": stored.bits,
        "pixel_representation": int(stored.signed),
    }

    def decode(plugin: str) -> Picture:
        values, _ = get_decoder(UID(syntax)).as_array(fragments, decoding_plugin=plugin, **options)
        return _native(values)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. padding bytes, which are harmless
            return _first_to_succeed(decode, syntax)
    except Exception:  # various exceptions; `_decode` reports the reason
        return None


def _require_stated_size(code: bytes, syntax: str, frame: Frame) -> None:
    """Reject a compressed image that would be decoded to another size than its header states.

    Raises
    ------
    InputError
    """
    stated = frame.rows, frame.columns
    if syntax == _RLE:
        pixel_bytes = frame.rows * frame.columns * frame.pixel_bytes
        if len(code) > _MAX_RLE_GROWTH * pixel_bytes + _RLE_HEADER_BYTES:
            raise InputError(
                f"the compressed pixels of {file_label(frame.path)} are larger than the image of "
                f"{stated} stated in its header: it is corrupt; export the series again"
            )
        return
    for rows, columns, components in _coded_sizes(code):
        if (rows, columns) != stated or components > _MAX_COMPONENTS:
            raise InputError(_size_message(frame.path, (rows, columns, components), stated))


def _coded_sizes(code: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield rows, columns and components of the images in a JPEG or JPEG 2000 codestream."""
    if code.startswith(_JPEG_START):
        at = len(_JPEG_START)
        while at + 10 <= len(code):
            mark, kind, length = struct.unpack_from(">BBH", code, at)
            if mark != 0xFF or kind == 0xDA:  # the compressed data follow
                return
            if kind == 0xFF:  # a fill byte
                at += 1
                continue
            if kind in _JPEG_FRAMES:
                yield struct.unpack_from(">HHB", code, at + 5)
            at += 2 + length
        return
    # A file wrapper (JP2) may precede the codestream; compressed data can resemble its start.
    begin = _JPEG_2000_SIZE.match(code)
    for found in [begin] if begin else _JPEG_2000_SIZE.finditer(code):
        right, bottom, left, top = struct.unpack(">4I", found[1])
        yield bottom - top, right - left, int.from_bytes(found[2], "big")


def _first_to_succeed(decode: Callable[[str], Result], syntax: str) -> Result:
    """Return the result of the first plugin that succeeds; else the last one raises."""
    *others, last = _PLUGINS.get(syntax, ("",))
    for plugin in others:
        with suppress(Exception):  # decoders raise various exceptions
            return decode(plugin)
    return decode(last)


def _decoded_signal(frame: Frame, words: Picture, *, scaled: bool) -> Decoded:
    """Decode directly read words."""
    stored = frame.stored
    assert stored is not None
    values = words if stored.syntax is not None else _lowest_bits(words, stored.bits)
    crossings = _crossings(values, words, stored.bits)
    mask = None
    if stored.padding is not None:
        mask = (values >= stored.padding[0]) & (values <= stored.padding[1])
    signal = _linear(values, stored.slope, stored.intercept)
    if scaled and frame.private_scale is not None:
        signal = _unscaled(signal, stored.slope, frame.private_scale)
    return signal, mask if mask is not None and mask.any() else None, stored.inverted, crossings


def _lowest_bits(words: Picture, bits: int) -> Picture:
    """Return the values in the lowest bits of words; the bits above are undefined."""
    unused = 8 * words.dtype.itemsize - bits
    return (words << unused) >> unused if unused > 0 else words


def _extracted(words: Picture, dataset: Any) -> tuple[Picture, Counts]:
    """Return the stored values of decoded words, and their crossings.

    Values are shifted if High Bit places them above the lowest bits. A High Bit that the words
    contradict, with values in the lowest bits only, is ignored.

    Raises
    ------
    InputError
        If High Bit places the values of a compressed image above the lowest bits.
    """
    allocated = 8 * words.dtype.itemsize
    bits = int(dataset.get("BitsStored") or allocated)
    if words.dtype.kind not in "iu" or bits > allocated:
        return words, np.zeros((len(_MAX_SMALLER), 2))
    lowest = _lowest_bits(words, bits)
    shift = int(dataset.get("HighBit") or 0) + 1 - bits
    if not 0 < shift <= allocated - bits:
        return lowest, _crossings(lowest, words, bits)
    if np.array_equal(lowest, words) and (words & ((1 << shift) - 1)).any():
        return lowest, _crossings(lowest, words, bits)
    if not _is_plain(dataset):
        raise InputError(
            f"High Bit {dataset.HighBit} of a compressed image with Bits Stored {bits} is not "
            "supported; export the series again, uncompressed"
        )
    shifted = _lowest_bits(words >> shift, bits)
    return shifted, _crossings(shifted, shifted, bits)


def _is_plain(dataset: Any) -> bool:
    """Return whether the pixels are stored word by word, so that bits keep their place."""
    syntax = dataset.file_meta.TransferSyntaxUID
    return not syntax.is_encapsulated or syntax == RLELossless


def _crossings(values: Picture, words: Picture, bits: int) -> Counts:
    """Count adjacent pixels between which values may have wrapped around.

    The alternatives to `values` are the whole words, and unsigned and signed values. Pairs whose
    difference changes in an alternative are counted, and those of them with a smaller difference in
    the alternative: few if the header is correct, because the alternative adds a step, but many if
    it is wrong.

    Returns
    -------
    ndarray, shape (3, 2)
        For each alternative, both numbers.
    """
    rows = values[::_CROSSING_ROWS].astype(np.int64)
    differences = np.diff(rows, axis=-1)
    span = 2**bits
    unsigned = np.where(rows < 0, rows + span, rows)
    signed = np.where(rows >= span // 2, rows - span, rows)
    others = (words[::_CROSSING_ROWS].astype(np.int64), unsigned, signed)
    counts = np.zeros((len(_MAX_SMALLER), 2))
    for n, other in enumerate(others):
        alternative = np.diff(other, axis=-1)
        crossing = alternative != differences
        smaller = np.abs(alternative) < np.abs(differences)
        counts[n] = crossing.sum(), (crossing & smaller).sum()
    return counts


def _decode(
    path: Path, frames: list[Frame], settings: LoaderSettings
) -> tuple[Dataset, list[Picture]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. padding bytes, which are harmless
            with DicomFile(path, settings) as file:
                dataset = pydicom.dcmread(file, force=True)
            replace_decimal_commas(dataset)
            if "TransferSyntaxUID" not in dataset.file_meta:
                _assume_native(dataset)
            syntax = dataset.file_meta.TransferSyntaxUID
            if syntax.is_compressed and not syntax.is_deflated:
                for frame in frames:
                    _require_stated_size(_code(dataset, frame.index or 0), syntax, frame)
            whole = any(frame.index is None for frame in frames)
            # `_extracted` does it, with regard to High Bit.
            options: dict[str, Any] = {"correct_unused_bits": False} if _is_plain(dataset) else {}

            def decode(plugin: str) -> list[Picture]:
                if whole:
                    values = _native(pixel_array(dataset, decoding_plugin=plugin, **options))
                    return [values] * len(frames)
                return [
                    _native(
                        pixel_array(dataset, index=frame.index, decoding_plugin=plugin, **options)
                    )
                    for frame in frames
                ]

            return dataset, _first_to_succeed(decode, syntax)
    except InputError:
        raise
    except Exception as error:  # decoders raise various exceptions
        if isinstance(error, OSError) and error.errno is not None:  # a file system error
            raise InputError(
                f"cannot read {file_label(path)} any more ({error.strerror}): it was moved, "
                "deleted or made inaccessible after its header was read; read the study again"
            ) from error
        meta = getattr(dataset, "file_meta", None) if "dataset" in locals() else None
        name = getattr(getattr(meta, "TransferSyntaxUID", None), "name", "unknown")
        raise InputError(
            f"cannot decode the pixels of {file_label(path)} (transfer syntax {name}): "
            f"{reason_of(error)}; export the series again, uncompressed"
        ) from error


def _code(dataset: Dataset, index: int) -> bytes:
    """Return one compressed frame."""
    table = dataset.get("ExtendedOffsetTable")
    offsets = None if table is None else (table, dataset.ExtendedOffsetTableLengths)
    count = int(dataset.get("NumberOfFrames") or 1)
    return get_frame(dataset.PixelData, index, extended_offsets=offsets, number_of_frames=count)


def _assume_native(dataset: Any) -> None:
    """Set the transfer syntax of files without meta information: uncompressed."""
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _native(values: Picture) -> Picture:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _padding_mask(values: Picture, dataset: Any) -> npt.NDArray[np.bool_] | None:
    ends = padding_range(
        dataset.get("PixelPaddingValue"),
        dataset.get("PixelPaddingRangeLimit"),
        int(dataset.get("BitsStored") or 16),
        signed=values.dtype.kind == "i",
    )
    if ends is None:
        return None
    mask: npt.NDArray[np.bool_] = (values >= ends[0]) & (values <= ends[1])
    return mask if mask.any() else None


def _clear_padding(
    array: Picture, masks: list[npt.NDArray[np.bool_] | None], lowest: Callable[..., Any]
) -> None:
    """Set padding to the lowest signal of the stack.

    Padding as bright as fluid is outside the image only where it is connected with a corner;
    elsewhere it is signal that has the same value, such as saturated fluid.
    """
    outside = np.stack(
        [np.zeros(array.shape[1:], dtype=bool) if mask is None else mask for mask in masks]
    )
    if outside.all():
        return
    sign = -1 if lowest is np.max else 1  # of brightness
    if sign * np.median(array[outside]) > sign * np.median(array[~outside]):
        outside = np.stack([_at_corners(mask) for mask in outside])
    array[outside] = lowest(array[~outside])


def _at_corners(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the components of a mask that contain a corner of the image."""
    components, _ = ndimage.label(mask)
    corners = components[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.asarray(np.isin(components, corners[corners > 0]))


def _rescaled(values: Picture, dataset: Any, index: int | None) -> Picture:
    return _linear(values, *_rescale(dataset, index))


def _linear(values: Picture, slope: float, intercept: float) -> Picture:
    if slope == 1.0 and intercept == 0.0:
        return values
    return np.asarray(values * np.float32(slope) + np.float32(intercept), dtype=np.float32)


def _unscaled(signal: Picture, slope: float, private_scale: float) -> Picture:
    """Convert values rescaled by `slope` to the Philips signal scale."""
    return np.asarray(signal / np.float32(slope * private_scale), dtype=np.float32)


def _rescale(dataset: Any, index: int | None) -> tuple[float, float]:
    sources = [dataset]
    if index is not None:
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        items = [frames[index]] if index < len(frames) else []
        for item in [*shared, *items]:
            for transform in item.get("PixelValueTransformationSequence") or []:
                sources.insert(0, transform)
    for source in sources:
        try:
            if source.get("RescaleSlope") is not None:
                slope = usable_slope(float(source.RescaleSlope))
                if slope is None:
                    return 1.0, 0.0
                return slope, float(source.get("RescaleIntercept") or 0.0)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the rescale slope or intercept of an image is not a number ({error}); export the "
                "series again"
            ) from error
    return 1.0, 0.0


def _onto_grid(array: Picture, layout: Layout) -> Picture:
    """Shift slices in plane, then interpolate linearly between adjacent slices."""
    slices = array.astype(np.float32)
    for n, shift in enumerate(layout.shifts_ji):
        if shift.any():
            slices[n] = ndimage.shift(slices[n], shift, order=1, mode="constant")
    count = layout.geometry.shape[0]
    below = np.searchsorted(layout.offsets_k, np.arange(count), side="right") - 1
    below = np.clip(below, 0, len(slices) - 2)
    reach = layout.offsets_k[below + 1] - layout.offsets_k[below]
    fraction = np.clip((np.arange(count) - layout.offsets_k[below]) / reach, 0.0, 1.0)
    upper = fraction[:, None, None].astype(np.float32)
    return np.asarray(slices[below] * (1 - upper) + slices[below + 1] * upper)
