"""Storage of received objects: one folder per study, one complete file per object.

A file appears only when it is complete and flushed to disk, so acknowledged objects survive a
power failure and incomplete files are never analyzed. File names contain only validated UIDs.
"""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from leakloc.core.errors import InputError, OutputError
from leakloc.core.settings import LoaderSettings
from leakloc.loaders.limits import inflated

if TYPE_CHECKING:
    from leakloc.core.settings import NodeSettings

FOLDER: Final = "incoming"
IMAGES: Final = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image
)
"""Storage SOP classes that can be analyzed."""
_PARTIAL: Final = ".partial"
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH: Final = 64
_MIB: Final = 1024**2
_SHORT: Final = re.compile(b"A[EST]|CS|D[AST]|F[DL]|IS|L[OT]|PN|S[HLST]|TM|U[ILS]")
"""Value representations with a two-byte length."""
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_UNDEFINED: Final = 0xFFFFFFFF
_UID_TAGS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
_SIZE_TAGS: Final = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
_TAGS: Final = tuple(sorted(Tag(keyword) for keyword in (*_UID_TAGS, *_SIZE_TAGS)))
_MAX_READS: Final = 1_000_000
"""Maximum number of reads of a header, of which pydicom makes two per element or item: more than an
enhanced MR object of 2000 frames has. Each element takes up to 100 times its size in memory."""
_MAX_HEADER_BYTES: Final = 16 * _MIB  # to the last of these tags, before the frames of an object


class FullError(OutputError):
    """Raised if an object exceeds the disk space or the object limit of its study."""


class TooLargeError(InputError):
    """Raised if the decoded size of an object exceeds `loaders.max_decoded_mib`."""


class ConflictError(InputError):
    """Raised if an object with the same SOP Instance UID and other content is stored."""


class Spool:
    """Received objects of an output folder; thread-safe.

    Parameters
    ----------
    output : Path
        Output folder; the spool is the folder ``incoming`` in it.
    settings : NodeSettings
        Limits of disk space and objects.
    loaders : LoaderSettings, optional
        Limit of the decoded size of an object.

    Raises
    ------
    OutputError
        If the folder cannot be created.
    """

    def __init__(
        self, output: Path, settings: NodeSettings, loaders: LoaderSettings | None = None
    ) -> None:
        self.folder = Path(output).absolute() / FOLDER
        self._settings = settings
        self._max_decoded_mib = (loaders or LoaderSettings()).max_decoded_mib
        self._partial = self.folder / _PARTIAL
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)  # headers contain patient names
        except OSError as error:
            raise OutputError(
                f"cannot create the folder {self.folder}: {error.strerror}"
            ) from error

    def recover(self) -> tuple[str, ...]:
        """Remove incomplete files left by a killed process.

        Returns
        -------
        tuple of str
            UIDs of the stored studies.
        """
        for left in self._partial.iterdir():
            if not left.is_dir():
                left.unlink(missing_ok=True)
        return tuple(sorted(path.name for path in self.folder.iterdir() if is_uid(path.name)))

    def study(self, study_uid: str) -> Path:
        """Folder of a study.

        Raises
        ------
        InputError
            If the UID is invalid.
        """
        return self.folder / _valid(study_uid, "Study Instance UID")

    def store(self, content: bytes, sop_uid: str, sop_class: str | None = None) -> str:
        """Write an object to disk so that it survives a power failure.

        Parameters
        ----------
        content : bytes
            Complete DICOM file, including preamble and file meta information.
        sop_uid : str
            Announced SOP Instance UID.
        sop_class : str, optional
            Announced SOP class.

        Returns
        -------
        str
            Its Study Instance UID.

        Raises
        ------
        InputError
            If it is damaged, truncated, or not the announced object.
        TooLargeError
            If its decoded size exceeds `loaders.max_decoded_mib`.
        ConflictError
            If an object with its UID and other content is stored; that object is kept.
        FullError
            If there is not enough space for it.
        OutputError
            If it cannot be written for another reason.
        """
        study_uid = examine(content, sop_uid, sop_class, max_decoded_mib=self._max_decoded_mib)
        try:
            self._write(content, study_uid, sop_uid)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FullError("the disk is full") from error
            raise OutputError(f"cannot write to {self.folder}: {error.strerror}") from error
        return study_uid

    def _write(self, content: bytes, study_uid: str, sop_uid: str) -> None:
        self._check_room(len(content))
        folder = self.study(study_uid)
        target = folder / f"{sop_uid}.dcm"
        partial = self._partial / uuid.uuid4().hex
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                if target.exists():
                    # Not replaced: its time is kept, so that the study is not analyzed again.
                    if filecmp.cmp(partial, target, shallow=False) or _is_same(partial, target):
                        return
                    raise ConflictError(
                        f"an object with its SOP Instance UID {sop_uid} and other content is "
                        "stored, which is kept"
                    )
                self._count(folder)
                partial.replace(target)
            _sync(folder)
        finally:
            partial.unlink(missing_ok=True)

    def _count(self, folder: Path) -> None:
        """Count one more object of a study; create its folder if needed."""
        if not folder.exists():
            folder.mkdir()
            _sync(self.folder)
        count = self._counts.get(folder.name)
        if count is None:
            count = sum(1 for _ in folder.iterdir())
        if count >= self._settings.max_study_instances:
            raise FullError(
                f"a study may have at most {self._settings.max_study_instances} objects"
            )
        self._counts[folder.name] = count + 1

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free - size < self._settings.min_free_mib * _MIB:
            raise FullError(f"only {free // _MIB} MiB are free on the disk")


def is_uid(text: str) -> bool:
    """Return whether a text is a DICOM UID, and therefore safe as a file name.

    Examples
    --------
    >>> is_uid("1.2.840.10008"), is_uid("../../etc/passwd"), is_uid("1..2")
    (True, False, False)
    """
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def examine(
    content: bytes,
    sop_uid: str,
    sop_class: str | None = None,
    *,
    max_decoded_mib: float | None = None,
) -> str:
    """Check a DICOM file before storage, without decoding pixel data.

    A deflated dataset is inflated in parts, of which only the header is held in memory.

    Parameters
    ----------
    content : bytes
        Complete DICOM file, including preamble and file meta information.
    sop_uid : str
        Announced SOP Instance UID.
    sop_class : str, optional
        Announced SOP class.
    max_decoded_mib : float, optional
        Maximum decoded size in MiB; that of the default settings if omitted.

    Returns
    -------
    str
        Its Study Instance UID.

    Raises
    ------
    InputError
        If it is damaged, truncated, or not the announced object.
    TooLargeError
        If its decoded size exceeds the maximum.
    """
    if max_decoded_mib is None:
        max_decoded_mib = LoaderSettings().max_decoded_mib
    _valid(sop_uid, "SOP Instance UID")
    try:
        header, syntax, at = _read_header(content, max_decoded_mib)
        found, found_class, study_uid = (
            str(header.get(keyword) or "")
            for keyword in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID")
        )
        decoded = _decoded_bytes(header)
    except InputError:
        raise
    except Exception as error:  # any error from damaged data
        raise InputError(f"not readable as DICOM ({type(error).__name__})") from None
    if found != sop_uid:
        raise InputError("its SOP Instance UID is not the one announced")
    if sop_class is not None and found_class != sop_class:
        raise InputError("its SOP class is not the one announced")
    _valid(study_uid, "Study Instance UID")
    if decoded > max_decoded_mib * _MIB:
        raise _too_large(max_decoded_mib)
    if at is not None and (
        (at >= len(content) and found_class in IMAGES) or not _whole(content, at, syntax)
    ):
        raise InputError("it is truncated")
    return study_uid


def check_inflated(content: bytes, max_decoded_mib: float) -> None:
    """Check the inflated size of a file before it is parsed; only deflated files are inflated.

    Raises
    ------
    InputError
        If it is not a DICOM file or the compressed data are damaged.
    TooLargeError
        If the size exceeds `max_decoded_mib`.
    """
    try:
        syntax, at = _read_meta(content)
        if syntax == _DEFLATED:
            for _ in _inflated(content, at, max_decoded_mib):
                pass
    except InputError:
        raise
    except Exception as error:  # any error from damaged data
        raise InputError(f"not readable as DICOM ({type(error).__name__})") from None


class _HeaderStream(BytesIO):
    """Limits the number of elements that pydicom reads, each of which takes time and memory."""

    def __init__(self, content: bytes | bytearray) -> None:
        super().__init__(content)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise InputError("its header has too many elements")
        return super().read(size)


def _read_meta(content: bytes) -> tuple[str, int]:
    """Transfer syntax UID of a file and the offset of its dataset."""
    stream = _HeaderStream(content)
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    return str(meta.get("TransferSyntaxUID") or ""), stream.tell()


def _read_header(content: bytes, max_decoded_mib: float) -> tuple[Dataset, str, int | None]:
    """UIDs and sizes of a file, its transfer syntax, and the offset of its pixel data.

    The offset is None for a deflated dataset, which is inflated to its end.
    """
    syntax, start = _read_meta(content)
    if syntax != _DEFLATED:
        stream = _HeaderStream(content)
        found = dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS))
        return found, syntax, stream.tell()
    header_bytes = bytearray()
    for part in _inflated(content, start, max_decoded_mib):
        header_bytes += part[: _MAX_HEADER_BYTES - len(header_bytes)]
    stream = _HeaderStream(header_bytes)
    header = read_dataset(stream, False, True, stop_when=_is_behind_tags, specific_tags=list(_TAGS))
    return header, syntax, None


def _is_behind_tags(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _TAGS[-1])


def _inflated(content: bytes, at: int, max_mib: float) -> Iterator[bytes]:
    """Yield the inflated dataset in parts, up to a maximum size."""
    total = 0
    try:
        for part in inflated(content, at):
            total += len(part)
            if total > max_mib * _MIB:
                raise _too_large(max_mib)
            yield part
    except EOFError:
        raise InputError("it is truncated") from None


def _too_large(max_mib: float) -> TooLargeError:
    return TooLargeError(f"its decoded size exceeds loaders.max_decoded_mib ({max_mib:g} MiB)")


def _decoded_bytes(header: Dataset) -> float:
    """Size of the decoded pixel data according to the header."""
    rows, columns, frames, samples, bits = (
        int(header.get(keyword) or usual)
        for keyword, usual in zip(_SIZE_TAGS, (0, 0, 1, 1, 16), strict=True)
    )
    return rows * columns * frames * samples * bits / 8


def _is_same(path: Path, stored: Path) -> bool:
    """Whether two files hold the same dataset, possibly in another transfer syntax."""
    try:
        if dcmread(path, stop_before_pixels=True) != dcmread(stored, stop_before_pixels=True):
            return False
        return bool(dcmread(path) == dcmread(stored))
    except Exception:  # any error from damaged data
        return False


def _whole(content: bytes, at: int, syntax: str) -> bool:
    """Whether the pixel data at offset `at` and all following elements are complete."""
    order: Literal["big", "little"] = "big" if syntax == ExplicitVRBigEndian else "little"
    end = len(content)
    while at < end:
        short = _SHORT.fullmatch(content[at + 4 : at + 6]) is not None
        head = 8 if syntax == ImplicitVRLittleEndian or short else 12
        if at + head > end:
            return False
        width = 2 if short and syntax != ImplicitVRLittleEndian else 4
        length = int.from_bytes(content[at + head - width : at + head], order)
        pixels = content[at : at + 4] == b"\xe0\x7f\x10\x00"
        at += head
        if length != _UNDEFINED:
            at += length
        elif pixels:
            at = _after_fragments(content, at)
        else:
            return True  # another sequence: no error up to here
    return at == end


def _after_fragments(content: bytes, at: int) -> int:
    """End offset of encapsulated pixel data; beyond the file if truncated."""
    while at + 8 <= len(content):
        last = content[at : at + 4] == b"\xfe\xff\xdd\xe0"
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        if last:
            return at
    return len(content) + 1


def _valid(uid: str, what: str) -> str:
    if not is_uid(uid):
        raise InputError(f"its {what} is not a valid UID")
    return uid


def _sync(folder: Path) -> None:
    """Flush the directory entries of a folder to disk, if the system supports it."""
    with suppress(AttributeError, PermissionError):  # Windows cannot open folders
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
