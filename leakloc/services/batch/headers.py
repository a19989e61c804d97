"""Study, patient and modality of a DICOM file, read from its first bytes.

Twenty times faster than a full parse: 5,000 studies have a million files, and only three elements
of each are needed. The usual encoding is parsed here, all others by pydicom.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zlib
from contextlib import suppress
from typing import Final, NamedTuple

from pydicom import config
from pydicom.filereader import read_partial

HEAD_BYTES: Final = 8192
"""Includes the Study Instance UID in all but unusual files."""

_MODALITY: Final = (0x0008, 0x0060)
_PATIENT_ID: Final = (0x0010, 0x0020)
_STUDY_UID: Final = (0x0020, 0x000D)
_SYNTAX: Final = (0x0002, 0x0010)
_WANTED: Final = frozenset({_MODALITY, _PATIENT_ID, _STUDY_UID, _SYNTAX})
_LONG: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_UNDEFINED: Final = 0xFFFFFFFF
_OTHERWISE_ENCODED: Final = frozenset((b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2"))
"""Implicit VR little endian, explicit VR big endian."""
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH: Final = 64


class Ownership(NamedTuple):
    """Study, patient and modality of a file.

    Parameters
    ----------
    study_uid : str
        Empty if absent or not a valid UID.
    patient : str
        Digest of the patient ID, empty if absent.
    modality : str
        Empty if absent.
    """

    study_uid: str
    patient: str
    modality: str


def is_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, with or without preamble."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x08\x00", b"\x02\x00", b"\x00\x08")


def read_ownership(head: bytes) -> Ownership:
    """Read study, patient and modality from the first `HEAD_BYTES` of a DICOM file."""
    values = _walk_elements(head)
    if values is None:
        return _parse(head)
    return _ownership(
        values.get(_STUDY_UID, b""), values.get(_PATIENT_ID, b""), values.get(_MODALITY, b"")
    )


def _walk_elements(head: bytes) -> dict[tuple[int, int], bytes] | None:
    """Values of explicit VR little endian elements; None for other encodings."""
    if head[128:132] != b"DICM":
        return None
    values: dict[tuple[int, int], bytes] = {}
    at = _walk(head, 132, values, last_group=2)
    syntax = values.get(_SYNTAX, b"").rstrip(b" \0")
    if at is None or syntax in _OTHERWISE_ENCODED:
        return None
    if syntax == _DEFLATED:
        with suppress(zlib.error):  # a truncated stream is decompressed up to its end
            head, at = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[at:]), 0
    return values if _walk(head, at, values, last_group=_STUDY_UID[0]) is not None else None


def _walk(
    head: bytes, at: int, values: dict[tuple[int, int], bytes], *, last_group: int
) -> int | None:
    """Collect the wanted values up to the end of a group or the last wanted element.

    Returns
    -------
    int or None
        Offset of the next element; None if the bytes are truncated or invalid.
    """
    end = len(head)
    while at + 8 <= end:
        group, element, kind, length = struct.unpack_from("<HH2sH", head, at)
        tag = (group, element)
        if group > last_group or tag > _STUDY_UID:
            return at
        value_at = at + 8
        if kind in _LONG:
            if at + 12 > end:
                return None
            (length,) = struct.unpack_from("<I", head, value_at)
            value_at += 4
            if length == _UNDEFINED:
                return None
        elif not kind.isalpha():
            return None
        at = value_at + length
        if tag in _WANTED:
            values[tag] = head[value_at:at]
            if tag == _STUDY_UID and at <= end:
                return at
    return None


def _parse(head: bytes) -> Ownership:
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")  # the loader checks unusual files
            dataset = read_partial(
                io.BytesIO(head),
                stop_when=lambda tag, _vr, _length: tag > 0x0020000D,
                force=True,
                specific_tags=[0x00080060, 0x00100020, 0x0020000D],
            )
            found = [
                str(dataset.get(keyword) or "").encode("utf-8", "replace")
                for keyword in ("StudyInstanceUID", "PatientID", "Modality")
            ]
    except Exception:  # any error from a damaged header; the loader reports it
        return Ownership("", "", "")
    return _ownership(*found)


def is_uid(text: str) -> bool:
    """Return whether a text is a DICOM UID."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


def _ownership(study_uid: bytes, patient: bytes, modality: bytes) -> Ownership:
    uid = study_uid.decode("ascii", "replace").strip(" \0")
    patient = patient.strip(b" \0")
    return Ownership(
        uid if is_uid(uid) else "",
        hashlib.sha256(patient).hexdigest()[:16] if patient else "",
        modality.decode("ascii", "replace").strip(" \0").upper()[:16],
    )
