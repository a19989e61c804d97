"""DICOMDIR, the index of a DICOM CD or USB drive."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pydicom

from leakloc.core.errors import InputError, file_label, reason_of
from leakloc.core.settings import LoaderSettings
from leakloc.loaders.limits import DicomFile

_INDEX_CLASS: Final = b"1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""


def is_dicomdir(head: bytes) -> bool:
    """Return whether a file is a DICOMDIR, by its first 512 bytes."""
    return head[128:132] == b"DICM" and _INDEX_CLASS in head


def listed_files(path: Path, settings: LoaderSettings | None = None) -> list[Path]:
    """Return the files that a DICOMDIR lists, present or not.

    Entries outside the DICOMDIR's folder are ignored.

    Raises
    ------
    InputError
        If the DICOMDIR cannot be read.
    """
    try:
        with DicomFile(path, settings or LoaderSettings()) as file:
            records = pydicom.dcmread(file).DirectoryRecordSequence
        listed = [record.get("ReferencedFileID") for record in records]
    except InputError:
        raise
    except Exception as error:  # pydicom raises various exceptions on corrupt files
        raise InputError(
            f"cannot read {file_label(path)} ({reason_of(error)}); specify the image folder"
        ) from error
    found = []
    for parts in listed:
        names = [parts] if isinstance(parts, str) else [str(part) for part in parts or []]
        if names and not any(name in ("", ".", "..") or {*name} & {*"/\\"} for name in names):
            found.append(_existing_case(path.parent, Path(*names)))
    return found


def _existing_case(folder: Path, name: Path) -> Path:
    """Path of a listed file; media written under Windows may use lower case."""
    path, lower = folder / name, folder / str(name).lower()
    return lower if not path.exists() and lower.exists() else path
