"""Extract zip and tar archives safely (decompression bombs, path traversal)."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

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


def is_archive(path: Path, head: bytes) -> bool:
    """Return whether a file is a zip or tar archive, by its content."""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return True
    compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    if head[257:262] == b"ustar":
        return True
    try:
        return compressed and tarfile.is_tarfile(path)
    except BROKEN:
        return False


FILES: Final = "files"
"""Folder of the extracted files in the temporary folder."""


def unpack(path: Path, settings: LoaderSettings) -> TemporaryFolder:
    """Extract an archive to a temporary folder that exists as long as the returned object.

    Folders are renumbered, so paths in the archive cannot point outside; links and devices are
    ignored.

    Raises
    ------
    InputError
        If the archive is corrupt, encrypted, or larger than the settings allow.
    """
    folder = TemporaryFolder("extracted-")
    left = int(settings.max_archive_gib * _GIB)
    parents: dict[str, int] = {}
    try:
        for number, (name, file) in enumerate(members(path)):
            if number >= settings.max_archive_files:
                raise InputError(
                    f"{file_label(path)} contains more than {settings.max_archive_files} files; "
                    "extract it and specify the study folder, or increase max_archive_files"
                )
            parent, _, last = name.replace("\\", "/").rpartition("/")
            # Files of one folder stay together: a .mhd refers to its .raw.
            target = folder.path / FILES / f"{parents.setdefault(parent, len(parents)):06d}"
            target.mkdir(parents=True, exist_ok=True)
            last = last if last not in ("", ".", "..") else "file"
            if (target / last).exists():  # members of one name are different files
                last = f"{number:06d}-{last}"
            left -= _copy(file, target / last, left, path)
    except BROKEN as error:
        folder.remove()
        raise InputError(f"cannot extract {file_label(path)}: {_reason(error)}") from error
    except BaseException:
        folder.remove()
        raise
    return folder


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
    """Yield name and content of each file in an archive, in order.

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
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content
        # tarfile treats a corrupt header as the end; the true end is zeros or the end of file.
        if archive.fileobj is not None:
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a member header is corrupt")
            archive.fileobj.read(_CHUNK)  # the checksum follows the padding


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
