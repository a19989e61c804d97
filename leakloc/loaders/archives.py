"""Extract zip and tar archives and compressed DICOM files safely (bombs, path traversal)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from leakloc.core.errors import InputError, file_label
from leakloc.core.temporary import TemporaryFolder

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_GIB: Final = 1024**3
_CHUNK: Final = 1024**2

BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, RuntimeError, ValueError, MemoryError),
)
"""Exceptions raised for archives that are corrupt, encrypted, unreadable or not writable."""


_HEAD_BYTES: Final = 512
_MAX_TAR_HEADER_BYTES: Final = 1_048_576
"""Maximum size of the headers of one tar member, of which long names have a few KiB."""
_MAX_TAR_OTHERS: Final = 100_000
"""Maximum number of members of a tar archive that are not files, such as folders and links."""
_OPENERS: Final[dict[bytes, Callable[..., Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""Readers of compressed files by their first bytes."""


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, with or without preamble, by its first bytes.

    Without preamble it starts with an element of group 0002 or 0008.
    """
    groups = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
    return head[128:132] == b"DICM" or head[:2] in groups


def decompressed_head(path: Path, head: bytes, size: int = _HEAD_BYTES) -> bytes:
    """Return the first bytes of the content of a compressed file; empty if it is none."""
    opener = _opener(head)
    if opener is None:
        return b""
    try:
        with opener(path, "rb") as file:
            return bytes(file.read(size))
    except BROKEN:
        return b""


def is_compressed_dicom(path: Path, head: bytes) -> bool:
    """Return whether a file is a single compressed DICOM file, such as ``.dcm.gz``."""
    return looks_like_dicom(decompressed_head(path, head))


def _opener(head: bytes) -> Callable[..., Any] | None:
    return next((found for magic, found in _OPENERS.items() if head.startswith(magic)), None)


def is_archive(path: Path, head: bytes) -> bool:
    """Return whether a file is a zip or tar archive, by its content."""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return True
    if head[257:262] == b"ustar":
        return True
    if _opener(head) is None:
        return False
    try:
        with _tar_stream(path) as stream, _opened_tar(stream):
            return True
    except BROKEN:
        return False


class _TarStream:
    """An uncompressed tar stream for tarfile, which reads headers of any stated size at once.

    Parameters
    ----------
    file : file
        Positioned at its start.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.start_member()

    def start_member(self) -> None:
        """Permit the headers of one more member to be read."""
        self._left: int | None = _MAX_TAR_HEADER_BYTES

    def start_content(self) -> None:
        """Permit the content of a member to be read."""
        self._left = None

    def read(self, size: int = -1) -> bytes:
        """Read as a file does.

        Raises
        ------
        tarfile.ReadError
            If the headers of a member are too large.
        """
        if self._left is not None:
            self._left -= size
            if size < 0 or self._left < 0:
                raise tarfile.ReadError("a member header is too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Offset in the stream."""
        return self._file.tell()


@contextmanager
def _tar_stream(path: Path) -> Iterator[_TarStream]:
    with path.open("rb") as raw:
        opener = _opener(raw.read(_HEAD_BYTES))
    with path.open("rb") if opener is None else opener(path, "rb") as file:
        yield _TarStream(file)


def _opened_tar(stream: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r:")


FILES: Final = "files"
"""Folder of the extracted files in the temporary folder."""


def unpack(path: Path, settings: LoaderSettings) -> TemporaryFolder:
    """Extract an archive to a temporary folder that exists as long as the returned object.

    See `unpack_each`.

    Raises
    ------
    InputError
        If the archive is corrupt, encrypted, or larger than the settings allow.
    """
    folder, failed = unpack_each([path], settings)
    if failed:
        folder.remove()
        raise InputError(f"cannot extract {file_label(path)}: {failed[path]}")
    return folder


def unpack_each(
    paths: Sequence[Path], settings: LoaderSettings
) -> tuple[TemporaryFolder, dict[Path, str]]:
    """Extract archives and compressed files to one temporary folder, with common limits.

    Folders are renumbered, so paths in the archive cannot point outside; links and devices are
    ignored.

    Returns
    -------
    folder : TemporaryFolder
        The files are in its subfolder `FILES`.
    failed : dict of Path to str
        Files that are corrupt, encrypted or unreadable, with the reason.

    Raises
    ------
    InputError
        If the content is larger than the settings allow.
    """
    folder = TemporaryFolder("extracted-")
    (folder.path / FILES).mkdir()  # also if all fail
    left = _Left(int(settings.max_archive_gib * _GIB), settings.max_archive_files)
    failed = {}
    try:
        for number, path in enumerate(paths):
            try:
                _extract(path, folder.path / FILES / f"{number:06d}", left, settings)
            except BROKEN as error:
                failed[path] = _reason(error)
    except BaseException:
        folder.remove()
        raise
    return folder, failed


@dataclass
class _Left:
    """What may still be extracted."""

    size: int
    files: int


def _extract(path: Path, folder: Path, left: _Left, settings: LoaderSettings) -> None:
    parents: dict[str, int] = {}
    for number, (name, file) in enumerate(members(path)):
        if left.files <= 0:
            raise InputError(
                f"{file_label(path)} contains more than {settings.max_archive_files} files; "
                "extract it and specify the study folder, or increase max_archive_files"
            )
        left.files -= 1
        parent, _, last = name.replace("\\", "/").rpartition("/")
        # Files of one folder stay together: a .mhd refers to its .raw.
        target = folder / f"{parents.setdefault(parent, len(parents)):06d}"
        target.mkdir(parents=True, exist_ok=True)
        last = last if last not in ("", ".", "..") else "file"
        if (target / last).exists():  # members of one name are different files
            last = f"{number:06d}-{last}"
        left.size -= _copy(file, target / last, left.size, path)


def _reason(error: Exception) -> str:
    """Return the reason and a remedy in one line."""
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    if isinstance(error, RuntimeError):
        return (
            "it is encrypted or uses an unsupported compression; extract it and specify the folder"
        )
    return "it is corrupt or truncated; copy or export it again"


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each file in an archive, in order, or of a compressed DICOM file.

    Raises
    ------
    Exception
        One of `BROKEN` if the archive is corrupt or encrypted.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                    continue
                with archive.open(info) as file:
                    yield info.filename, file
        return
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    opener = _opener(head)
    if opener is not None and is_compressed_dicom(path, head):
        with opener(path, "rb") as file:
            yield path.stem, file
        return
    with _tar_stream(path) as stream, _opened_tar(stream) as archive:
        others = 0
        while True:
            stream.start_member()
            member = archive.next()
            if member is None:
                break
            archive.members = []  # type: ignore[attr-defined]  # all are held in memory
            others += not member.isreg()
            if others > _MAX_TAR_OTHERS:
                raise tarfile.ReadError("more members than an archive of images has")
            stream.start_content()
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content
        stream.start_content()
        # tarfile treats a corrupt header as the end; the true end is zeros or the end of file.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a member header is corrupt")
        stream.read(_CHUNK)  # the checksum follows the padding


def _copy(file: IO[bytes], target: Path, limit: int, archive: Path) -> int:
    """Copy at most `limit` bytes, regardless of the size stated in the archive."""
    written = 0
    with target.open("wb") as out:
        while chunk := file.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise InputError(
                    f"the extracted size of {file_label(archive)} exceeds the setting "
                    "max_archive_gib"
                )
            out.write(chunk)
    return written
