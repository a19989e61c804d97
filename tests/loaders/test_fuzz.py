"""Damaged files by the thousand: only leakloc's own errors, little memory, no hang, no crash."""

from __future__ import annotations

import os
import random
import resource
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from leakloc.core.errors import LeaklocError
from leakloc.core.settings import LoaderSettings
from leakloc.loaders import load_study, series_table

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LEAKLOC_DATA", ROOT.parent / "shared" / "data"))
SETTINGS = LoaderSettings()

CASES = 2400
CHUNKS = 12
LARGEST_BYTES = 700_000
MAX_S = 5.0
MAX_MEMORY_MIB = 600
"""What a worker may grow by over all its cases: a handful of small series fit many times."""
SLICES = 4

pytestmark = pytest.mark.slow


def templates() -> list[Path]:
    """Small DICOM files in every transfer syntax at hand: bundled, and vendors' where present."""
    bundled = Path(pydicom.__file__).parent / "data" / "test_files"
    folders = [ROOT / "sample_data", DATA / "dicom-edge", bundled]
    found: dict[tuple[str, str, bool], list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
                continue
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
                key = (
                    path.parent.name,
                    header.file_meta.TransferSyntaxUID,
                    "NumberOfFrames" in header,
                )
            except Exception:
                continue
            if "Rows" in header:
                found.setdefault(key, []).append(path)
    return [path for group in found.values() for path in group[:3]]


def as_series(template: Path, folder: Path) -> list[Path]:
    """The image of one file as a short, regular MR series; multi-frame objects stay alone."""
    folder.mkdir(parents=True)
    dataset = pydicom.dcmread(template)
    if "NumberOfFrames" in dataset:
        (folder / "im").write_bytes(template.read_bytes())
        return [folder / "im"]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = dataset.StudyInstanceUID = generate_uid()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.PixelSpacing = [1, 1]
    paths = []
    for n in range(SLICES):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ImagePositionPatient = [float(n), 0.0, 0.0]
        paths.append(folder / f"im{n}")
        dataset.save_as(paths[-1])
    return paths


def damage(paths: list[Path], chance: random.Random) -> str:
    """Spoil one file, or several, in one of the ways in which files get spoilt."""
    way = chance.choice(["flip_header", "flip_anywhere", "cut", "delete", "zeros", "values"])
    for path in chance.sample(paths, chance.randint(1, len(paths))):
        content = bytearray(path.read_bytes())
        if way == "cut":
            del content[chance.randrange(len(content)) :]
        elif way == "zeros":
            start = chance.randrange(len(content))
            content[start : start + 512] = bytes(min(512, len(content) - start))
        elif way.startswith("flip"):
            end = min(4000, len(content)) if way == "flip_header" else len(content)
            for _ in range(chance.choice([1, 1, 2, 5, 50])):
                place = chance.randrange(min(128, end - 1), end)
                content[place] ^= 1 << chance.randrange(8)
        else:
            change_elements(path, chance, delete=way == "delete")
            continue
        path.write_bytes(content)
    return way


def change_elements(path: Path, chance: random.Random, *, delete: bool) -> None:
    """Delete elements, nested ones too, or give them values that no scanner writes."""
    dataset = pydicom.dcmread(path)
    elements = [element for element in dataset.iterall() if element.tag.group > 2]
    odd = [b"", b"\xff" * 8, b"-1", b"nan", b"1e400", b"0\\0\\0\\0\\0\\0", b"99999999999", b"\x00"]
    for element in chance.sample(elements, min(len(elements), chance.choice([1, 3, 10]))):
        if delete:
            for owner in (dataset, *[item for e in elements if e.VR == "SQ" for item in e.value]):
                if owner.get_item(element.tag) is element:
                    del owner[element.tag]
        elif element.VR != "SQ" and element.keyword != "PixelData":
            element._value = chance.choice(odd)
            element.VR = "UN"
    dataset.save_as(path)


def run_chunk(chunk: int, folder: Path) -> tuple[Counter[str], list[str], float]:
    """Tally of outcomes, descriptions of failures, and growth of memory in MiB."""
    warnings.simplefilter("ignore")
    files = templates()
    tally: Counter[str] = Counter()
    failures = []
    start_kib = None
    for case in range(chunk, CASES, CHUNKS):
        chance = random.Random(case)
        template = files[case % len(files)]
        paths = as_series(template, folder / str(case))
        try:
            way = damage(paths, chance)
        except Exception:  # pydicom refuses to write some damage
            tally["not written"] += 1
            continue
        started = time.perf_counter()
        try:
            tally[use(folder / str(case))] += 1
        except Exception:
            failures.append(f"case {case} {way} {template.name}: {traceback.format_exc(limit=-4)}")
        seconds = time.perf_counter() - started
        if seconds > MAX_S:
            failures.append(f"case {case} {way} {template.name}: {seconds:.1f} s")
        start_kib = start_kib or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in paths:
            path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (start_kib or 0)) / 1024
    return tally, failures, grown


def use(folder: Path) -> str:
    """Read, choose and load; what became of it."""
    try:
        study = load_study(folder, SETTINGS)
        loaded = 0
        for stack in study.stacks:
            if stack.geometry is None:
                continue
            try:
                assert stack.load().array.shape == stack.geometry.shape
                loaded += 1
            except LeaklocError as error:
                assert str(error)
        series_table(study, SETTINGS)
    except LeaklocError as error:
        assert str(error)
        return "refused"
    return "loaded" if loaded else "no volume"


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damage_never_surprises(chunk, tmp_path):
    # A child process, so that a crash in a decoder is one failed test and not the end of all.
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        tally, failures, grown_mib = pool.submit(run_chunk, chunk, tmp_path).result()
    print(dict(tally), f"{grown_mib:.0f} MiB")
    assert not failures, "\n\n".join(failures[:10])
    assert sum(tally.values()) == len(range(chunk, CASES, CHUNKS))
    assert tally["loaded"]
    assert tally["refused"] + tally["no volume"]
    assert grown_mib < MAX_MEMORY_MIB
