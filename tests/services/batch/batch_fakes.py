"""A replacement for the analysis: does what a file in the study specifies, in milliseconds.

Run as a program, a whole batch with it: ``python batch_fakes.py ROOT OUT [option=value ...]``.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from leakloc.core.errors import InputError, OutputError
from leakloc.report.model import Report

UID_ROOT = "1.2.826.0.1.3680043.8.498"
ANALYZE = "batch_fakes:behave"


def header(uid: str, patient: str = "P1", modality: str = "MR") -> bytes:
    """The shortest DICOM file with the UIDs of its series, explicit little endian."""

    def element(group: int, number: int, kind: bytes, text: str) -> bytes:
        value = text.encode()
        value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
        place = group.to_bytes(2, "little") + number.to_bytes(2, "little")
        return place + kind + len(value).to_bytes(2, "little") + value

    return (
        bytes(128)
        + b"DICM"
        + element(2, 0x10, b"UI", "1.2.840.10008.1.2.1")
        + element(8, 0x60, b"CS", modality)
        + element(0x10, 0x20, b"LO", patient)
        + element(0x20, 0xD, b"UI", uid)
        + element(0x20, 0xE, b"UI", uid + ".1")
    )


def make_study(folder: Path, number: int, behaviour: str = "", **values: str) -> str:
    """A study of two images and what the analysis of it shall do; returns its UID."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"{UID_ROOT}.{number}"
    for image in range(2):
        (folder / f"im{image}").write_bytes(header(uid, **values))
    (folder / "behaviour.txt").write_text(behaviour)
    return uid


def behave(path: Path, settings: Any, *, output: Path, **options: Any) -> None:
    """Takes the place of `leakloc.pipeline.analyze`."""
    behavior = path / "behaviour.txt"
    word, _, value = (behavior.read_text() if behavior.exists() else "").partition(" ")
    if word == "sleep":
        time.sleep(float(value))
    elif word == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif word == "killed":
        os.kill(os.getpid(), 9)
    elif word == "exit":
        os._exit(7)
    elif word == "eat":
        full = bytearray(int(value) * 1024**2)
        full[::4096] = b"x" * len(full[::4096])
        time.sleep(30)
    elif word == "input":
        raise InputError(f"{path} holds no images; name another folder")
    elif word == "unexpected":
        raise ValueError(f"Patient Jane Doe in {path}")
    elif word == "disk":
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise OutputError("cannot write the report") from error
    elif word == "fork":
        import subprocess

        child = subprocess.Popen(["sleep", "300"])
        Path(value).write_text(str(child.pid))
        time.sleep(300)
    elif word == "once":  # crashes the first time
        marker = path.parent / f"{path.name}.tried"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), 9)
    write(output, settings, level=value if word == "leak" else None)


def write(output: Path, settings: Any, level: str | None) -> None:
    """A small but whole report, put in place as the real one is."""
    aside = output.with_name(f".{output.name}.{os.getpid():08d}.partial")
    aside.mkdir()
    (aside / "report.json").write_text(report(output.name, settings.sha256, level).to_json())
    if output.exists():
        old = output.with_name(f".{output.name}.{os.getpid():08d}.old")
        output.rename(old)
        aside.rename(output)
        (old / "report.json").unlink()
        old.rmdir()
    else:
        aside.rename(output)


def report(uid: str, settings_sha256: str, level: str | None) -> Report:
    """A valid report, with one collection if a level is specified."""
    nowhere = {"lps_mm": None, "segment": None}
    collection = {
        "id": 1, "level": level, "alternatives": [], "segments": [level],
        "extent": {"cranial": nowhere, "caudal": nowhere, "length_mm": 20.0},
        "position": {"label": "dorsal", "dorsal": 1, "ventral": 0, "left": 0, "right": 0},
        "compartments": ["epidural"], "pattern": "focal", "volume_ml": 3.5,
        "max_thickness_mm": 4.0, "max_area_mm2": 50.0, "sac_compression": 0.1,
        "centroid_lps_mm": None, "epicenter_lps_mm": None, "confidence": 0.9,
        "grade": "definite", "basis": [], "mimics_considered": [],
    }  # fmt: skip
    numbering = {
        "method": "sacrum_up", "assumption": "five lumbar vertebrae", "confidence": 0.8,
        "transitional_suspected": False, "lumbar_count": 5, "alternatives": [],
    }  # fmt: skip
    values = {
        "schema": "leakloc.report/1",
        "notice": "Research use only.",
        "generator": {
            "name": "leakloc", "version": "0", "created": "2026-01-01T00:00:00Z", "config": {},
            "config_sha256": settings_sha256, "runtime_s": {"total": 0.0},
        },
        "study": {
            "study_instance_uid": uid, "study_date": None, "accession_number": None,
            "patient_id": None, "identity": "remove",
        },
        "series": [],
        "levels": {
            "status": "labelled", "numbering": numbering, "vertebrae": [], "discs": [],
            "label_values": {},
        },
        "thecal_sac": {
            "volume_ml": None, "csf_volume_ml": None,
            "caudal_end": {"lps_mm": None, "level": None}, "by_segment": [],
        },
        "collections": [collection] if level else [],
        "finding": {
            "leak": "present" if level else "absent", "level": level, "confidence": 0.9,
            "summary": f"Fluid at {level}." if level else "No fluid seen.",
        },
        "planning": {
            "sacral_hiatus": {"visible": False, "lps_mm": None, "confidence": 0.0}, "targets": [],
        },
        "quality": {"snr": None, "coverage": {"cranial": None, "caudal": None}, "warnings": []},
        "outputs": {},
    }  # fmt: skip
    return Report.model_validate(values)


def main(root: str, output: str, *options: str) -> None:
    from leakloc.core.settings import Settings
    from leakloc.services.batch import run
    from leakloc.services.batch.batch import Batch
    from leakloc.services.batch.engine import WorkOptions

    run.PRELOAD[:] = ["leakloc.report.model"]
    changes: dict[str, Any] = dict(option.split("=") for option in options)
    workers = int(changes.get("workers", 2))
    work = WorkOptions(workers=workers, analyze=ANALYZE, scheduler=changes.get("scheduler"))
    print("began", flush=True)
    tally = Batch(Path(output), Settings(), work).run([Path(root)])
    print(f"finished {tally.finished} failed {tally.failed}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
