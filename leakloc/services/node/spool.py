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
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from leakloc.core.errors import InputError, OutputError

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


class FullError(OutputError):
    """Raised if an object exceeds the disk space or the object limit of its study."""


class Spool:
    """Received objects of an output folder; thread-safe.

    Parameters
    ----------
    output : Path
        Output folder; the spool is the folder ``incoming`` in it.
    settings : NodeSettings
        Limits of disk space and objects.

    Raises
    ------
    OutputError
        If the folder cannot be created.
    """

    def __init__(self, output: Path, settings: NodeSettings) -> None:
        self.folder = Path(output).absolute() / FOLDER
        self._settings = settings
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
        FullError
            If there is not enough space for it.
        OutputError
            If it cannot be written for another reason.
        """
        study_uid = examine(content, sop_uid, sop_class)
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
                    # Resent unchanged: keep its time so that the study is not analyzed again.
                    if filecmp.cmp(partial, target, shallow=False):
                        return
                else:
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


def examine(content: bytes, sop_uid: str, sop_class: str | None = None) -> str:
    """Check a DICOM file before storage, without decoding pixel data.

    Returns
    -------
    str
        Its Study Instance UID.

    Raises
    ------
    InputError
        If it is damaged, truncated, or not the announced object.
    """
    _valid(sop_uid, "SOP Instance UID")
    stream = BytesIO(content)
    try:
        header = dcmread(
            stream,
            stop_before_pixels=True,
            specific_tags=["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"],
        )
        found = str(header.get("SOPInstanceUID") or "")
        found_class = str(header.get("SOPClassUID") or "")
        study_uid = str(header.get("StudyInstanceUID") or "")
    except Exception as error:  # any error from damaged data
        raise InputError(f"not readable as DICOM ({type(error).__name__})") from None
    if found != sop_uid:
        raise InputError("its SOP Instance UID is not the one announced")
    if sop_class is not None and found_class != sop_class:
        raise InputError("its SOP class is not the one announced")
    _valid(study_uid, "Study Instance UID")
    syntax = str(header.file_meta.get("TransferSyntaxUID") or "")
    if syntax != _DEFLATED:  # the parser decompresses these completely
        at = stream.tell()
        if (at >= len(content) and found_class in IMAGES) or not _whole(content, at, syntax):
            raise InputError("it is truncated")
    return study_uid


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
