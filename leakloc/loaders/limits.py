"""Limits on untrusted input, checked before it is read or decoded."""

from __future__ import annotations

import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import GeometryError, InputError, file_label

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings
    from leakloc.core.volume import Geometry

_MIB: Final = 1024**2
_CHUNK: Final = _MIB
"""Maximum number of bytes inflated at a time."""
_DEFLATED_BYTES: Final = 65536
"""Deflated bytes processed in one step, because zlib copies what it did not read."""
_MIN_SPACING_MM: Final = 0.01
"""Minimum spacing: ten times finer than MR microscopy of a finger."""
_MAX_SPACING_MM: Final = 200.0
"""Maximum spacing: twice the thickest projection slab."""
_MAX_EXTENT_MM: Final = 3000.0
"""Maximum extent of a volume along one axis: a person on a table that moves."""


class DicomFile(io.BufferedReader):
    """A DICOM file whose decoded size is limited, for pydicom.

    pydicom decompresses a deflated data set as a whole, and only then calls ``read()`` without a
    size; the decompressed size is therefore determined before that call returns.

    Parameters
    ----------
    path : Path
    settings : LoaderSettings

    Raises
    ------
    InputError
        If the file, or its inflated data set, is larger than `max_decoded_mib`.
    """

    def __init__(self, path: Path, settings: LoaderSettings) -> None:
        require_decoded_size(require_regular(path).st_size, path, settings)
        super().__init__(io.FileIO(str(path)))  # pydicom requires a text name
        self._path, self._settings = path, settings

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BufferedReader` does; an unlimited read is a deflated data set."""
        content = super().read(size)
        if size is None or size < 0:
            _require_inflated_size(content, self._path, self._settings)
        return content


def _require_inflated_size(content: bytes, path: Path, settings: LoaderSettings) -> None:
    total = 0
    try:
        for part in inflated(content):
            total += len(part)
            require_decoded_size(total, path, settings)
    except (zlib.error, EOFError):
        return  # pydicom reports it


def inflated(content: bytes, start: int = 0, wbits: int = -zlib.MAX_WBITS) -> Iterator[bytes]:
    """Yield a deflated data set in parts; memory does not depend on the inflated size.

    Parameters
    ----------
    content : bytes
    start : int
        Offset of the data set.
    wbits : int
        Format, as for `zlib.decompress`; that of DICOM by default.

    Raises
    ------
    EOFError
        If it is truncated.
    zlib.error
        If it is damaged.
    """
    inflater = zlib.decompressobj(wbits)
    for at in range(start, len(content), _DEFLATED_BYTES):
        left = content[at : at + _DEFLATED_BYTES]
        while True:
            part = inflater.decompress(left, _CHUNK)
            yield part
            left = inflater.unconsumed_tail
            if inflater.eof:
                return
            if not left and len(part) < _CHUNK:
                break
    raise EOFError("the deflated data set is truncated")


def require_decoded_size(size: float, path: Path, settings: LoaderSettings) -> None:
    """Reject data whose size in memory exceeds the setting `max_decoded_mib`.

    Parameters
    ----------
    size : float
        Bytes, as known so far.
    path : Path
        File named in the message.
    settings : LoaderSettings

    Raises
    ------
    InputError
    """
    if not size <= settings.max_decoded_mib * _MIB:  # also not a number
        raise InputError(
            f"the decoded size of {file_label(path)} exceeds {settings.max_decoded_mib} MiB; if it "
            "is correct, increase the setting loaders.max_decoded_mib"
        )


def require_regular(path: Path) -> os.stat_result:
    """Return the status of a file; reject pipes and devices, which may block or have no end.

    Raises
    ------
    InputError
        If `path` is not a regular file.
    OSError
        If it does not exist or is inaccessible.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{file_label(path)} is not a regular file")
    return status


def require_plausible(geometry: Geometry) -> None:
    """Reject voxel sizes and extents that are not those of a patient in millimeters.

    Raises
    ------
    GeometryError
    """
    spacing = geometry.spacing_ijk_mm
    extent = max(n * mm for n, mm in zip(geometry.shape[::-1], spacing, strict=True))
    far = max(abs(float(v)) for v in geometry.origin_lps)
    usable = min(spacing) >= _MIN_SPACING_MM and max(spacing) <= _MAX_SPACING_MM
    if not usable or extent > _MAX_EXTENT_MM or not math.isfinite(far):
        sizes = " x ".join(f"{mm:.3g}" for mm in spacing)
        raise GeometryError(
            f"voxels of {sizes} mm with an extent of {extent:.3g} mm are not plausible for a "
            "patient: the affine is corrupt or not in millimeters"
        )
