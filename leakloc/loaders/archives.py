"""Unpacking zip and tar archives, with limits against bombs and escaping paths."""

from __future__ import annotations

import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from leakloc.errors import InputError

if TYPE_CHECKING:
    from leakloc.settings import LoaderSettings

_GIB: Final = 1024**3
_CHUNK: Final = 1024**2


def is_archive(path: Path, head: bytes) -> bool:
    """Whether a file is a zip or tar archive, by its content."""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return True
    compressed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    if head[257:262] == b"ustar":
        return True
    try:
        return compressed and tarfile.is_tarfile(path)
    except (OSError, EOFError):
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
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, RuntimeError) as error:
        folder.cleanup()
        raise InputError(f"cannot unpack {path.name}: {error}") from error
    except InputError:
        folder.cleanup()
        raise
    return folder


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file in an archive, in order, without unpacking it.

    Raises
    ------
    zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, RuntimeError
        If the archive is broken or encrypted.
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
