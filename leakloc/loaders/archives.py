"""Unpacking zip and tar archives, with limits against bombs and escaping paths."""

from __future__ import annotations

import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from leakloc.core.errors import InputError

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_GIB: Final = 1024**3
_CHUNK: Final = 1024**2

BROKEN: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
    *(OSError, EOFError, RuntimeError, ValueError),
)
"""What reading an archive raises that is broken, encrypted, or cannot be read or written."""


def is_archive(path: Path, head: bytes) -> bool:
    """Whether a file is a zip or tar archive, by its content."""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return True
    compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    if head[257:262] == b"ustar":
        return True
    try:
        return compressed and tarfile.is_tarfile(path)
    except BROKEN:
        return False


def unpack(path: Path, settings: LoaderSettings) -> tempfile.TemporaryDirectory[str]:
    """Unpack an archive into a temporary folder that lives as long as the returned object.

    Folders are renumbered, so no name in the archive can lead outside; links and devices are
    left out.

    Raises
    ------
    InputError
        If the archive is broken, encrypted, or larger than the settings allow.
    """
    folder = tempfile.TemporaryDirectory(prefix="leakloc-", ignore_cleanup_errors=True)
    left = int(settings.max_archive_gib * _GIB)
    parents: dict[str, int] = {}
    try:
        for number, (name, file) in enumerate(members(path)):
            if number >= settings.max_archive_files:
                raise InputError(
                    f"{path.name} holds more than {settings.max_archive_files} files; unpack it "
                    "and name the study's folder, or raise max_archive_files"
                )
            parent, _, last = name.replace("\\", "/").rpartition("/")
            # Files that lay together stay together: a .mhd names its .raw.
            target = Path(folder.name, f"{parents.setdefault(parent, len(parents)):06d}")
            target.mkdir(exist_ok=True)
            last = last if last not in ("", ".", "..") else "file"
            left -= _copy(file, target / last, left, path)
    except BROKEN as error:
        folder.cleanup()
        raise InputError(f"cannot unpack {path.name}: {_reason(error)}") from error
    except InputError:
        folder.cleanup()
        raise
    return folder


def _reason(error: Exception) -> str:
    """In one line, with a way out; the libraries' own words may take many."""
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    if isinstance(error, RuntimeError):
        return "it is encrypted or packed in an unusual way; unpack it and name the folder"
    return "it is damaged or cut short; copy or export it again"


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file in an archive, in order, without unpacking it.

    Raises
    ------
    Exception
        One of `BROKEN` if the archive is broken or encrypted.
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
        # tarfile takes a damaged header for the end; the true end is zeros, or that of the file.
        if archive.fileobj is not None:
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a member's header is damaged")
            archive.fileobj.read(_CHUNK)  # past the padding lies the checksum of what was packed


def _copy(file: IO[bytes], target: Path, limit: int, archive: Path) -> int:
    """Copy at most `limit` bytes, whatever size the archive claims."""
    written = 0
    with target.open("wb") as out:
        while chunk := file.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise InputError(
                    f"{archive.name} unpacks to more than the setting max_archive_gib allows"
                )
            out.write(chunk)
    return written
