"""Read NRRD and MetaImage files: a text header, and voxels in the same or in other files.

Files are untrusted: the header, the files that it names and the size of the voxels are checked
before voxels are read, and inflating stops at the size stated in the header. Libraries for these
formats open any file that a header names and inflate without a limit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from leakloc.core.errors import GeometryError, InputError, file_label
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry
from leakloc.loaders.limits import inflated, require_decoded_size, require_regular

_MAX_HEADER_BYTES: Final = 65_536
"""Maximum size of a text header; usual ones have 1 KiB."""
_MAX_PARTS: Final = 10_000
"""Maximum number of data files of one volume: one per slice."""
_MAX_SKIPPED_LINES: Final = 10_000
"""Maximum number of lines before the voxels."""
_DEFLATE_GROWTH: Final = 1.01
"""Maximum size of deflated data relative to the original; `_MAX_HEADER_BYTES` are added."""
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
_LINE: Final = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r)|([^\r\n]+)\Z")
_META_FIELD: Final = re.compile(r"\s*([^=:]+?)\s*[=:]\s*(.*?)\s*$")
_NRRD_FIELD: Final = re.compile(r"\s*([^:]+?)\s*:(=?)\s*(.*?)\s*$")
_NRRD_VECTOR: Final = re.compile(r"none|\(([^)]*)\)", re.IGNORECASE)

_META_TYPES: Final = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_TYPES: Final = {
    "signed char": "i1", "int8": "i1", "uchar": "u1", "unsigned char": "u1", "uint8": "u1",
    "short": "i2", "short int": "i2", "signed short": "i2", "signed short int": "i2",
    "int16": "i2", "ushort": "u2", "unsigned short": "u2", "unsigned short int": "u2",
    "uint16": "u2", "int": "i4", "signed int": "i4", "int32": "i4", "uint": "u4",
    "unsigned int": "u4", "uint32": "u4", "longlong": "i8", "long long": "i8",
    "long long int": "i8", "signed long long": "i8", "signed long long int": "i8",
    "int64": "i8", "ulonglong": "u8", "unsigned long long": "u8",
    "unsigned long long int": "u8", "uint64": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_LPS_SIGNS: Final = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
"""Signs that convert the spaces of NRRD to LPS."""
_AXES_IN_SPACE: Final = ("domain", "space", "time", "???", "none")
"""Kinds of an axis of NRRD that do not state components of one voxel."""

Kind = Literal["nrrd", "metaimage"]


@dataclass(frozen=True)
class StoredVolume:
    """Header of a volume, with the position of its voxels.

    Parameters
    ----------
    geometry : Geometry
        In the unit of the header.
    unit : str
        Unit of length; empty if not stated.
    dtype : dtype
        Type of a voxel as stored, with its byte order.
    sources : tuple of Path
        Files with the voxels, in this order.
    start : int
        Bytes before the voxels in each source; -1 if the voxels are at its end.
    skipped_lines : int
        Lines between `start` and the voxels.
    skipped_bytes : int
        Bytes between these lines and the voxels, counted after inflating.
    is_deflated : bool
        Whether the voxels are stored in the format zlib or gzip.
    stored_bytes : int or None
        Size of the deflated voxels in each source; None if not stated.
    may_be_longer : bool
        Whether deflated data may follow the voxels.
    """

    geometry: Geometry
    unit: str
    dtype: np.dtype[Any]
    sources: tuple[Path, ...]
    start: int
    skipped_lines: int = 0
    skipped_bytes: int = 0
    is_deflated: bool = False
    stored_bytes: int | None = None
    may_be_longer: bool = False

    @property
    def decoded_bytes(self) -> int:
        """Size in memory of the voxels and of what is skipped before them."""
        return prod(self.geometry.shape) * self.dtype.itemsize + self.skipped_bytes

    def read(self) -> npt.NDArray[Any]:
        """Return the voxels ``[k, j, i]`` as stored.

        Raises
        ------
        InputError
            If they are corrupt or incomplete.
        """
        array = np.empty(self.geometry.shape, self.dtype)
        target = array.reshape(-1).view(np.uint8)
        try:
            filled = self._inflate(target) if self.is_deflated else self._copy(target)
        except (zlib.error, EOFError):
            filled = -1
        if filled < len(target) or (filled > len(target) and not self.may_be_longer):
            stored = "compressed voxels" if self.is_deflated else "voxels"
            raise InputError(
                f"the {stored} of {file_label(self.sources[0])} are corrupt or truncated; copy or "
                "export it again"
            )
        return array

    def _copy(self, target: npt.NDArray[np.uint8]) -> int:
        """Read into `target` and return the size read."""
        count, rest = divmod(len(target), len(self.sources))
        if rest:
            return -1
        filled = 0
        for source in self.sources:
            with source.open("rb") as file:
                if self.start < 0:
                    file.seek(max(source.stat().st_size - count, 0))
                else:
                    self._skip_header(file)
                    file.seek(self.skipped_bytes, 1)
                filled += file.readinto(target[filled : filled + count].data)
        return filled

    def _inflate(self, target: npt.NDArray[np.uint8]) -> int:
        """Inflate into `target`; return the inflated size, up to the first excess part."""
        longest = int((len(target) + self.skipped_bytes) * _DEFLATE_GROWTH) + _MAX_HEADER_BYTES
        filled, skipped = 0, self.skipped_bytes
        for source in self.sources:
            with source.open("rb") as file:
                self._skip_header(file)
                content = file.read(min(self.stored_bytes or longest, longest))
            for part in inflated(content, wbits=_ZLIB_OR_GZIP):
                voxels = part[skipped:]
                skipped -= len(part) - len(voxels)
                room = target[filled : filled + len(voxels)]
                room[:] = np.frombuffer(voxels, np.uint8, len(room))
                filled += len(voxels)
                if filled > len(target):
                    return filled
        return filled

    def _skip_header(self, file: IO[bytes]) -> None:
        file.seek(self.start)
        for _ in range(self.skipped_lines):
            file.readline()


@dataclass(frozen=True)
class _Text:
    """Fields of a text header, and where the voxels are.

    `reference` is what it states on data files, empty for voxels in the same file, `following`
    the lines after it, and `end` the size of the header, None if no end was found.
    """

    fields: dict[str, str]
    reference: str
    following: list[str]
    end: int | None


def read_text_header(path: Path, kind: Kind, root: Path, settings: LoaderSettings) -> StoredVolume:
    """Read and check the header of a NRRD or MetaImage file.

    Parameters
    ----------
    path : Path
    kind : {"nrrd", "metaimage"}
    root : Path
        Folder of the study; data files that the header names must be in it or below.
    settings : LoaderSettings
        Limit of the decoded size.

    Raises
    ------
    GeometryError
        If the volume is not three-dimensional and grayscale, or its orientation is unknown.
    InputError
        If the header or the voxels are too large, or a data file is outside `root` or not a
        regular file.
    """
    is_whole = require_regular(path).st_size <= _MAX_HEADER_BYTES
    with path.open("rb") as file:
        content = file.read(_MAX_HEADER_BYTES)
    text = _nrrd_text(content) if kind == "nrrd" else _meta_text(content)
    if not is_whole and (text.end is None or text.reference.upper().startswith("LIST")):
        raise InputError(f"its header has more than {_MAX_HEADER_BYTES} bytes")
    if text.end is None and not text.reference:
        raise InputError("its header is incomplete")
    sources = tuple(_data_files(text, path, root)) or (path,)
    start = 0 if text.reference else text.end or 0
    read = _nrrd_volume if kind == "nrrd" else _meta_volume
    volume = read(text.fields, sources, start)
    require_decoded_size(volume.decoded_bytes, path, settings)
    return volume


def _lines(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield each line with the offset of the next one; all usual line ends end a line."""
    for found in _LINE.finditer(content):
        yield (found[1] or found[2] or b"").decode("latin-1"), found.end()


def _meta_text(content: bytes) -> _Text:
    fields: dict[str, str] = {}
    lines = _lines(content)
    for line, end in lines:
        found = _META_FIELD.match(line)
        if found is None:
            continue
        if found[1] == "ElementDataFile":
            reference = "" if found[2].upper() == "LOCAL" else found[2]
            return _Text(fields, reference, [line for line, _ in lines], end)
        fields[found[1]] = found[2]
    return _Text(fields, "", [], None)


def _nrrd_text(content: bytes) -> _Text:
    fields: dict[str, str] = {}
    reference, following = "", list[str]()
    lines = _lines(content)
    for line, end in lines:
        if not line:
            return _Text(fields, reference, following, end)
        found = None if line.startswith("#") else _NRRD_FIELD.match(line)
        if found is None:
            continue
        name = found[1].lower().replace(" ", "")
        if name == "datafile":  # also as a key with a value, which other readers may follow
            reference = found[3]
            if reference.upper().startswith("LIST"):
                return _Text(fields, reference, [line for line, _ in lines], end)
        elif not found[2]:
            fields[name] = found[3]
    return _Text(fields, reference, following, None)


def _data_files(text: _Text, path: Path, root: Path) -> Iterator[Path]:
    """Yield the data files that a header names, which must be regular files of the study."""
    inside = root.resolve()
    for name in _named_files(text.reference, text.following):
        target = Path(path.parent, name).resolve()
        if not target.is_relative_to(inside):
            raise InputError("the header names a data file outside the folder of the study")
        if not target.exists():
            raise InputError("the data file that the header names does not exist")
        require_regular(target)
        yield target


def _named_files(reference: str, following: list[str]) -> list[str]:
    """Return the files that a header names: none, one, a list, or a numbered series."""
    words = reference.split()
    if not words:
        return []
    if words[0].upper() == "LIST":
        return [line.strip() for line in following if line.strip()]
    if "%" not in reference:
        return [reference]
    try:
        pattern, first, last, step = words[0], *map(int, words[1:4])
        numbers = range(first, last + (1 if step > 0 else -1), step)
        if len(numbers) > _MAX_PARTS:
            raise ValueError
        return [pattern % number for number in numbers]
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError("the header names data files in an unsupported way") from error


def _meta_volume(fields: Mapping[str, str], sources: tuple[Path, ...], start: int) -> StoredVolume:
    """Return the volume of a MetaImage header; its positions and directions are LPS."""
    count = int(fields["NDims"])
    sizes = _integers(fields["DimSize"])
    if len(sizes) != count:
        raise GeometryError(f"{count} axes are stated, but {len(sizes)} sizes")
    if int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise GeometryError("a color or vector image, not grayscale")
    shape = three_axes(sizes)
    spacing = _floats(fields, "ElementSpacing", "ElementSize") or [1.0] * count
    origin = _floats(fields, "Offset", "Position", "Origin") or [0.0] * count
    axes = np.eye(count)
    if matrix := _floats(fields, "TransformMatrix", "Rotation", "Orientation"):
        axes = np.reshape(matrix, (count, count)).T
    skipped = int(fields.get("HeaderSize", "0"))
    is_big = _is_true(fields.get("BinaryDataByteOrderMSB") or fields.get("ElementByteOrderMSB"))
    is_deflated = _is_true(fields.get("CompressedData"))
    if not _is_true(fields.get("BinaryData", "True")):
        raise InputError("voxels stored as text are not supported; save it with binary voxels")
    if skipped < -1 or (skipped < 0 and is_deflated):
        raise InputError(f"the header states an unsupported HeaderSize ({skipped})")
    return StoredVolume(
        _grid(shape, axes[:3, :3] * spacing[:3], origin[:3]),
        fields.get("DistanceUnits", ""),
        _dtype(_META_TYPES, fields["ElementType"].upper().removesuffix("_ARRAY"), is_big),
        sources,
        skipped or start,
        is_deflated=is_deflated,
        stored_bytes=max(int(fields.get("CompressedDataSize", "0")), 0) or None,
    )


def _nrrd_volume(fields: Mapping[str, str], sources: tuple[Path, ...], start: int) -> StoredVolume:
    space = fields.get("space", "").lower()
    if not space:
        raise GeometryError("the NRRD header has no space field, so the orientation is unknown")
    signs = _LPS_SIGNS.get(space.removesuffix("-time").removesuffix("t"))
    if signs is None:
        raise GeometryError(f"the space {space!r} of the NRRD header has no anatomical directions")
    sizes = _integers(fields["sizes"])
    directions = [vector[:3] for vector in _vectors(fields.get("spacedirections", ""))]
    if len(directions) != len(sizes):
        raise GeometryError(
            "the NRRD header has no space directions of all axes, so the orientation is unknown"
        )
    spatial = [n for n, vector in enumerate(directions) if any(vector)]
    others = [n for n in range(len(sizes)) if n not in spatial]
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(sizes)
    if any(sizes[n] != 1 and kinds[n] not in _AXES_IN_SPACE for n in others):
        raise GeometryError("a color or vector image, not grayscale")
    shape = three_axes([sizes[n] for n in (*spatial, *others)])
    origin = next(_vectors(fields.get("spaceorigin", "(0,0,0)")))[:3]
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"the encoding {encoding} is not supported; save it as raw or gzip")
    lines, skipped = (int(fields.get(name, "0")) for name in ("lineskip", "byteskip"))
    if not 0 <= lines <= _MAX_SKIPPED_LINES or skipped < (-1 if encoding == "raw" else 0):
        raise InputError(f"the header states an unsupported skip ({lines} lines, {skipped} bytes)")
    dtype = _dtype(
        _NRRD_TYPES,
        fields["type"].lower().removesuffix("_t"),
        fields.get("endian", "").lower() == "big",
    )
    if dtype.itemsize > 1 and fields.get("endian", "").lower() not in ("big", "little"):
        raise InputError("the NRRD header has no endian field")
    return StoredVolume(
        _grid(shape, np.transpose([directions[n] for n in spatial]), origin, signs),
        units[0].strip() if units else "",
        dtype,
        sources,
        -1 if skipped < 0 else start,
        skipped_lines=lines,
        skipped_bytes=max(skipped, 0),
        is_deflated=encoding != "raw",
        may_be_longer=True,
    )


def _grid(
    shape: Sequence[int],
    axes: npt.ArrayLike,
    origin: Sequence[float],
    signs: tuple[int, int, int] = (1, 1, 1),
) -> Geometry:
    """Return a geometry from axes (columns i, j, k) and origin, multiplied by `signs`."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = origin
    affine[:3] *= np.reshape(signs, (3, 1))
    return Geometry((shape[2], shape[1], shape[0]), affine)


def three_axes(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the first three sizes ``(i, j, k)``.

    Raises
    ------
    GeometryError
        If there are fewer, or another size is not 1.
    """
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise GeometryError(f"one volume with three axes is required, not shape {tuple(shape)}")
    i, j, k = (int(n) for n in shape[:3])
    return i, j, k


def _dtype(types: Mapping[str, str], name: str, is_big_endian: bool) -> np.dtype[Any]:
    if name not in types:
        raise GeometryError(f"voxels of type {name} are not supported")
    return np.dtype(types[name]).newbyteorder(">" if is_big_endian else "<")


def _is_true(value: str | None) -> bool:
    return value is not None and value[:1] in ("T", "t", "1")


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def _floats(fields: Mapping[str, str], *names: str) -> list[float]:
    """Return the numbers of the first of several fields; empty if there is none."""
    text = next((fields[name] for name in names if name in fields), "")
    return [float(word) for word in text.split()]


def _vectors(text: str) -> Iterator[list[float]]:
    """Yield the vectors of a field such as ``(1,0,0) none``; an empty one for ``none``."""
    for found in _NRRD_VECTOR.finditer(text):
        yield [float(part) for part in found[1].split(",")] if found[1] is not None else []
