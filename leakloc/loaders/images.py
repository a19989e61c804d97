"""Read NIfTI, NRRD and MetaImage files: single volumes without acquisition headers."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from leakloc.core.errors import GeometryError, InputError, file_label, reason_of
from leakloc.core.notes import Note, note
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.loaders.headers import SEQUENCE_KEYWORDS
from leakloc.loaders.limits import (
    inflated,
    require_decoded_size,
    require_plausible,
    require_regular,
)
from leakloc.loaders.study import SeriesStack

Kind = Literal["nifti", "nrrd", "metaimage"]

_GZIP = b"\x1f\x8b"
_NIFTI_SIZES = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
_MM: Final = {
    **dict.fromkeys(("", "unknown", "?", "mm", "millimeter", "millimeters", "millimetre"), 1.0),
    **dict.fromkeys(("m", "meter", "meters", "metre"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), 1e-3),
}
"""Millimeters per unit of length of the formats."""
_ITK_UNIT: Final = "ITK_VoxelUnits"
_NRRD_UNIT: Final = re.compile(rb'^space units:\s*"([^"]*)"', re.MULTILINE)
_NIFTI1_MAGIC_AT, _NIFTI2_MAGIC_AT = 344, 4
_MIN_EXTENSION_BYTES: Final = 8
_READERS: Final = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_MAX_HEADER_BYTES: Final = 65_536
"""Maximum size of the text header of a NRRD or MetaImage file; usual ones have 1 KiB."""
_MAX_SIDECAR_BYTES: Final = 1_048_576
"""Maximum size of a JSON sidecar; usual ones have 4 KiB."""
_MAX_PARTS: Final = 10_000
"""Maximum number of data files of one volume: one per slice."""
_DATA_FILE: Final = {
    "nrrd": re.compile(r"^\s*data[ \t]*file[ \t]*:=?[ \t]*(.*)", re.IGNORECASE | re.MULTILINE),
    "metaimage": re.compile(r"ElementDataFile[ \t]*[=:][ \t]*(.*)", re.IGNORECASE),
}
"""Reference from a header to the file with its voxels."""
_BYTE_SKIP: Final = re.compile(
    r"^\s*byte[ \t]*skip[ \t]*:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE
)
_IS_COMPRESSED: Final = re.compile(r"CompressedData[ \t]*[=:][ \t]*[Tt1]")
_COMPRESSED_BYTES: Final = re.compile(r"CompressedDataSize[ \t]*[=:][ \t]*(\d+)")
_SKIPPED_BYTES: Final = re.compile(r"HeaderSize[ \t]*[=:][ \t]*(\d+)")
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
_DEFLATE_GROWTH: Final = 1.01
"""Maximum size of deflated data relative to the original; `_MAX_HEADER_BYTES` are added."""


def sniff_image(path: Path, head: bytes) -> Kind | None:
    """Detect the format of a volume file from its first bytes."""
    if head.startswith(_GZIP):
        try:
            with gzip.open(path) as file:
                head = file.read(512)
        except (OSError, EOFError, zlib.error):
            return None
    if head[:4] in _NIFTI_SIZES and (
        head[_NIFTI1_MAGIC_AT : _NIFTI1_MAGIC_AT + 2] in (b"n+", b"ni")
        or head[_NIFTI2_MAGIC_AT : _NIFTI2_MAGIC_AT + 2] in (b"n+", b"ni")
    ):
        return "nifti"
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if b"NDims" in head[:256] and b"=" in head[:256]:
        return "metaimage"
    return None


def read_image_header(
    path: Path, kind: Kind, settings: LoaderSettings | None = None, root: Path | None = None
) -> SeriesStack:
    """Read the header of a volume file; pixels are read by `SeriesStack.load`.

    Parameters
    ----------
    path : Path
    kind : {"nifti", "nrrd", "metaimage"}
        From `sniff_image`.
    settings : LoaderSettings, optional
        Limit of the decoded size.
    root : Path, optional
        Folder of the study; data files that a header names must be in it or below. By default the
        folder of `path`.

    Raises
    ------
    InputError
        If the file is corrupt, too large or not three-dimensional, its geometry is implausible, or
        its data file is outside `root` or not a regular file.
    """
    settings = settings or LoaderSettings()
    try:
        if kind != "nifti":
            _require_data_files(path, kind, root or path.parent, settings)
        geometry, notes = _geometry(path, kind, settings)
    except GeometryError as error:
        raise InputError(str(error)) from error
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"corrupt {kind} file ({reason_of(error, path)})") from error
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        name = name.removesuffix(suffix)

    def read() -> Volume:
        volume = read_voxels(path, kind, settings, root)
        array = volume.array
        if array.dtype.kind == "f":  # some tools write NaN outside the field of view
            array = np.nan_to_num(array.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
        return Volume(array, volume.geometry, Provenance(source=kind))

    return SeriesStack(
        series_instance_uid=None,
        description=name,
        modality="",
        n_instances=1,
        parameters=_sidecar(path.with_name(f"{name}.json")),
        geometry=geometry,
        files=(path,),
        sop_instance_uids=(),
        read=read,
        notes=tuple(notes),
    )


def read_voxels(
    path: Path, kind: Kind, settings: LoaderSettings | None = None, root: Path | None = None
) -> Volume:
    """Read the voxels of a volume file as stored, including NaN.

    The parameters are those of `read_image_header`.

    Raises
    ------
    InputError
        If the file is corrupt, too large or not grayscale.
    """
    settings = settings or LoaderSettings()
    try:
        if kind == "nifti":
            volume = _read_nifti(path, settings)
        else:
            _require_data_files(path, kind, root or path.parent, settings)
            volume = _read_itk(path, kind, settings)
        volume = replace(volume, geometry=_geometry(path, kind, settings)[0])
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"cannot read {file_label(path)}: {reason_of(error, path)}") from error
    if volume.array.dtype.kind not in "biuf":
        raise InputError(f"{file_label(path)} contains color or complex values, not grayscale")
    return volume.with_array(_native(volume.array))


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in the byte order of this machine, which ITK requires."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _sidecar(path: Path) -> dict[str, Any]:
    """Read sequence parameters from the BIDS JSON sidecar of a volume."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            content = file.read(_MAX_SIDECAR_BYTES + 1)
        values = json.loads(content) if len(content) <= _MAX_SIDECAR_BYTES else None
    except (OSError, ValueError, RecursionError, InputError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {key: values[key] for key in SEQUENCE_KEYWORDS if values.get(key) not in (None, "")}
    for key in ("EchoTime", "RepetitionTime", "InversionTime"):  # seconds in BIDS, ms in DICOM
        if isinstance(found.get(key), int | float):
            found[key] = 1000.0 * found[key]
    return found


@contextmanager
def _nifti(path: Path, settings: LoaderSettings) -> Iterator[Any]:
    """Open a NIfTI file by content, regardless of its suffix; the voxels are not read."""
    require_regular(path)
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
    with gzip.open(path) if compressed else path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        kind = nib.Nifti1Image if start[:2] in (b"\x5c\x01", b"\x00\x00") else nib.Nifti2Image
        if start == b"\x00\x00\x02\x1c":  # NIfTI-2, big endian
            kind = nib.Nifti2Image
        block = file.read(kind.header_class.template_dtype.itemsize)
        header = kind.header_class(block, check=False)
        scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))
        voxel_bytes = np.dtype(np.float64 if scaled else header.get_data_dtype()).itemsize
        # Header extensions, which precede the voxels, are read too.
        size = prod(map(float, header.get_data_shape())) * voxel_bytes
        end = float(header["vox_offset"])
        require_decoded_size(abs(size) + max(end, 0.0), path, settings)
        _require_extensions(file, len(block), end, header.endianness)
        file.seek(0)
        yield kind.from_stream(file)


def _require_extensions(file: Any, at: int, end: float, endianness: Any) -> None:
    """Require that the header extensions of a NIfTI file end at its voxels.

    nibabel reads each completely, of the size that it states, and further ones to the end of the
    file if the last one ends later.

    Raises
    ------
    GeometryError
    """
    has_extensions = file.read(4)[:1] not in (b"", b"\0")
    at += 4
    while has_extensions and at != end:
        size = int.from_bytes(file.read(4), "little" if endianness == "<" else "big", signed=True)
        at += size
        if size < _MIN_EXTENSION_BYTES or at > end:
            raise GeometryError("the extensions of the NIfTI header are corrupt")
        file.seek(at)


def _geometry(path: Path, kind: Kind, settings: LoaderSettings) -> tuple[Geometry, list[Note]]:
    """Return the geometry of a volume file in millimeters, with notes on its header."""
    if kind == "nifti":
        geometry, unit, notes = _nifti_geometry(path, settings)
    else:
        geometry, unit, notes = _itk_geometry(path, kind, settings)
    factor = _MM.get(unit)
    if factor is None:
        raise GeometryError(
            f"lengths are stated in {unit!r}, which is not supported: convert to mm"
        )
    scaled = geometry
    if factor != 1.0:
        affine = geometry.affine_lps.copy()
        affine[:3] *= factor
        scaled = replace(geometry, affine_lps=affine)
        notes = [*notes, note("units_converted", unit=unit)]
    try:
        require_plausible(scaled)
    except GeometryError as error:
        raise GeometryError(
            f"{error} (lengths are stated in {unit or 'no unit'}; if the unit in the header is "
            "wrong or missing, save the volume in mm)"
        ) from error
    return scaled, notes


def _nifti_geometry(path: Path, settings: LoaderSettings) -> tuple[Geometry, str, list[Note]]:
    """Return the geometry in the unit of the header, the unit, and notes."""
    with _nifti(path, settings) as image:
        _require_affine(image)
        shape = _three_axes(image.shape)
        unit = image.header.get_xyzt_units()[0]
        geometry = _nifti_grid(image.affine, shape)
        distance = _disagreement(image.header, geometry, shape)
    if distance is None:
        return geometry, unit, []
    return geometry, unit, [note("nifti_forms_disagree", distance_mm=distance * _MM.get(unit, 1.0))]


def _nifti_grid(affine: npt.ArrayLike, shape: tuple[int, ...]) -> Geometry:
    affine_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)
    return Geometry((shape[2], shape[1], shape[0]), affine_lps)


def _disagreement(header: Any, geometry: Geometry, shape: tuple[int, ...]) -> float | None:
    """Return the largest distance between the positions by qform and sform; None within a voxel.

    Raises
    ------
    GeometryError
        If they disagree on the directions of the axes: sides may be swapped.
    """
    if not int(header["qform_code"]) or not int(header["sform_code"]):
        return None
    try:
        other = _nifti_grid(header.get_qform(), shape)
    except (ValueError, GeometryError):  # an invalid quaternion: the sform is used
        return None
    distance = float(np.linalg.norm(geometry.corners_lps - other.corners_lps, axis=1).max())
    if distance <= max(geometry.spacing_ijk_mm):
        return None
    if geometry.axis_codes != other.axis_codes:
        raise GeometryError(
            "qform and sform of the NIfTI header disagree on the directions of the axes, so that "
            "left and right may be swapped: delete the incorrect one (in nibabel: "
            "image.set_sform(image.get_qform(), 1), or vice versa) and save it again"
        )
    return distance


def _require_affine(image: Any) -> None:
    """Reject NIfTI without qform and sform: the patient orientation is unknown."""
    if not int(image.header["qform_code"]) and not int(image.header["sform_code"]):
        raise GeometryError(
            "the NIfTI header has neither qform nor sform, so the orientation is unknown"
        )


def _three_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise GeometryError(f"one volume with three axes is required, not shape {tuple(shape)}")
    return tuple(int(n) for n in shape[:3])


def _read_nifti(path: Path, settings: LoaderSettings) -> Volume:
    with _nifti(path, settings) as image:
        return Volume.from_nibabel(image)


def _require_data_files(path: Path, kind: Kind, root: Path, settings: LoaderSettings) -> None:
    """Require that the data files named in a header are regular files of the study.

    Raises
    ------
    InputError
        If one is outside `root`, also by a link, or not a regular file, or more bytes precede the
        voxels than are read.
    """
    require_regular(path)
    with path.open("rb") as file:
        header = file.read(_MAX_HEADER_BYTES).decode("latin-1")
    header = header.replace("\r\n", "\n").replace("\r", "\n")  # all end a line for the readers
    for skipped in _BYTE_SKIP.findall(header) if kind == "nrrd" else ():
        require_decoded_size(float(skipped), path, settings)
    inside = root.resolve()
    whole = path.stat().st_size <= _MAX_HEADER_BYTES
    references = list(_DATA_FILE[kind].finditer(header))
    ended = bool(references) if kind == "metaimage" else "\n\n" in header
    if not whole and (
        not ended or any(found[1].upper().startswith("LIST") for found in references)
    ):
        raise InputError(f"its header has more than {_MAX_HEADER_BYTES} bytes")
    for found in references:
        for name in _named_files(found[1].strip(), header[found.end() :]):
            target = Path(path.parent, name).resolve()
            if not target.is_relative_to(inside):
                raise InputError("the header names a data file outside the folder of the study")
            if not target.exists():
                raise InputError("the data file that the header names does not exist")
            require_regular(target)


def _named_files(value: str, following: str) -> list[str]:
    """Return the files that a header names: one, a list, or a numbered series."""
    words = value.split()
    if value.upper() == "LOCAL":
        return []
    if words and words[0].upper() == "LIST":
        return [line.strip() for line in following.splitlines() if line.strip()]
    if "%" not in value:
        return [value]
    try:
        pattern, first, last, step = words[0], *map(int, words[1:4])
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if len(numbers) > _MAX_PARTS:
            raise ValueError
        return [pattern % number for number in numbers]
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError("the header names data files in an unsupported way") from error


def _itk_reader(path: Path, kind: Kind) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[kind])  # otherwise selected by the suffix
    reader.SetFileName(str(path))
    return reader


def _itk_size(reader: sitk.ImageFileReader) -> int:
    """Return the bytes of the voxels; unknown types count as those with the most bytes."""
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.search(r"\d+", name)
    voxel_bytes = int(bits[0]) // 8 if bits and "complex" not in name else 16
    return int(prod(reader.GetSize()) * reader.GetNumberOfComponents() * voxel_bytes)


def _itk_geometry(
    path: Path, kind: Kind, settings: LoaderSettings
) -> tuple[Geometry, str, list[Note]]:
    """Return the geometry in the unit of the header, the unit, and no notes."""
    reader = _itk_reader(path, kind)
    reader.ReadImageInformation()
    require_decoded_size(_itk_size(reader), path, settings)
    if reader.GetNumberOfComponents() != 1:
        raise GeometryError("a color or vector image, not grayscale")
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER_BYTES)
    is_nrrd = head.startswith(b"NRRD")
    unit = reader.GetMetaData(_ITK_UNIT) if _ITK_UNIT in reader.GetMetaDataKeys() else ""
    stated = _NRRD_UNIT.search(head.split(b"\n\n")[0]) if is_nrrd else None
    if stated:  # ITK does not read it
        unit = stated[1].decode("utf-8", "replace")
    if is_nrrd and "NRRD_space" not in reader.GetMetaDataKeys():
        raise GeometryError("the NRRD header has no space field, so the orientation is unknown")
    i, j, k = _three_axes(reader.GetSize())
    geometry = Geometry.from_axes(
        (k, j, i),
        origin_lps=reader.GetOrigin()[:3],
        spacing_ijk_mm=reader.GetSpacing()[:3],
        directions_lps=np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3],
    )
    return geometry, unit.strip(), []


def _require_complete(path: Path, size_bytes: int) -> None:
    """Require that compressed voxels of a MetaImage file are complete, which ITK ignores.

    Raises
    ------
    InputError
    """
    with path.open("rb") as file:
        header = file.read(_MAX_HEADER_BYTES).decode("latin-1")
    reference = _DATA_FILE["metaimage"].search(header)
    if reference is None or not _IS_COMPRESSED.search(header[: reference.start()]):
        return
    names = _named_files(reference[1].strip(), header[reference.end() :])
    sources = [(Path(path.parent, name), 0) for name in names] or [(path, reference.end() + 1)]
    skipped, stated = (
        int(found[1]) if (found := pattern.search(header[: reference.start()])) else None
        for pattern in (_SKIPPED_BYTES, _COMPRESSED_BYTES)
    )
    longest = int(size_bytes * _DEFLATE_GROWTH) + _MAX_HEADER_BYTES
    total = 0
    if stated is None and not names:
        raise InputError(
            f"the header of {file_label(path)} does not state CompressedDataSize, which is "
            "required; save it again"
        )
    try:
        for source, start in sources:
            with source.open("rb") as file:
                file.seek(start + (skipped or 0))
                content = file.read(min(stated or longest, longest))
            for part in inflated(content, wbits=_ZLIB_OR_GZIP):
                total += len(part)
                if total > size_bytes:
                    break
    except (zlib.error, EOFError):
        total = -1
    if total != size_bytes:
        raise InputError(
            f"the compressed voxels of {file_label(path)} are corrupt or truncated; copy or export "
            "it again"
        )


def _read_itk(path: Path, kind: Kind, settings: LoaderSettings) -> Volume:
    reader = _itk_reader(path, kind)
    reader.ReadImageInformation()
    size_bytes = _itk_size(reader)
    require_decoded_size(size_bytes, path, settings)
    if kind == "metaimage":
        _require_complete(path, size_bytes)
    image = reader.Execute()
    while image.GetDimension() > 3:
        size = list(image.GetSize())
        image = sitk.Extract(image, [*size[:-1], 0], [0] * len(size))
    return Volume.from_sitk(image)
