"""Analyzers that take no time; imported by the processes that the node starts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def analyze(
    source: Path, settings: Any, *, output: Path, study_uid: str | None, overwrite: bool
) -> None:
    """Write a report's folder: how many files there were, and two captures of the study."""
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    first = pydicom.dcmread(paths[0])
    aside = output.parent / f".{output.name}.{os.getpid()}.partial"
    (aside / "dicom" / "sc").mkdir(parents=True)
    for number in range(2):
        _capture(first).save_as(aside / "dicom" / "sc" / f"{number}.dcm", enforce_file_format=True)
    report = {"generator": {"config_sha256": settings.sha256}, "n_files": len(paths)}
    (aside / "report.json").write_text(json.dumps(report))
    if output.exists():
        output.rename(output.parent / f".{output.name}.{os.getpid()}.old")
    aside.rename(output)


def crash(*_: Any, **__: Any) -> None:
    """End like a segmentation fault."""
    os.abort()


def hang(*_: Any, **__: Any) -> None:
    """Never end."""
    time.sleep(3600)


def _capture(source: pydicom.Dataset) -> pydicom.Dataset:
    capture = pydicom.Dataset()
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate"):
        setattr(capture, keyword, source.get(keyword, ""))
    capture.SOPClassUID = SECONDARY_CAPTURE
    capture.SOPInstanceUID = generate_uid()
    capture.SeriesInstanceUID = generate_uid()
    capture.Modality = "OT"
    capture.Rows = capture.Columns = 4
    capture.SamplesPerPixel, capture.PhotometricInterpretation = 1, "MONOCHROME2"
    capture.BitsAllocated = capture.BitsStored = 8
    capture.HighBit, capture.PixelRepresentation = 7, 0
    capture.PixelData = bytes(16)
    capture.file_meta = pydicom.dataset.FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return capture
