"""Time scanning and loading of a series, compared with SimpleITK, pydicom and dcm2niix.

    python benchmarks/reading.py [--files 160 2000] [--rounds 5] [--syntax raw j2k jpegls]

Series of 320 x 320 pixels are written to a temporary folder. "load" is the time of leakloc after
the headers are scanned; the others have no separate step and read everything. In every round each
reader reads the series once, in rotating order, with warm file caches; the table shows medians and
the time of leakloc relative to the fastest other reader. The volume of each reader is compared with
the original.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from conftest import RECORDS, machine, versions

SIDE = 320
SYNTAXES = {
    "raw": "1.2.840.10008.1.2.1",
    "j2k": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
}
Reader = Callable[[Path], np.ndarray]


def make_series(folder: Path, count: int, syntax: str) -> np.ndarray:
    """Write a series that resembles a myelogram: a bright tube and noise in dark tissue."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(0)
    j, i = np.mgrid[:SIDE, :SIDE]
    smooth = 60 + 20 * np.sin(j / 31) * np.cos(i / 23)
    pictures = []
    base = Dataset()
    base.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    base.Modality, base.PatientID, base.SeriesDescription = "MR", "BENCH", "t2_spc_myelo_sag"
    base.StudyInstanceUID, base.SeriesInstanceUID = generate_uid(), generate_uid()
    base.FrameOfReferenceUID = generate_uid()
    base.SeriesNumber, base.ImageType = 1, ["ORIGINAL", "PRIMARY", "M"]
    base.ScanningSequence, base.SequenceVariant, base.MRAcquisitionType = "SE", "SK", "3D"
    base.EchoTime, base.RepetitionTime, base.SliceThickness = 560.0, 3000.0, 1.0
    base.ImageOrientationPatient, base.PixelSpacing = [0, 1, 0, 0, 0, -1], [1, 1]
    base.Rows = base.Columns = SIDE
    base.SamplesPerPixel, base.PhotometricInterpretation = 1, "MONOCHROME2"
    base.BitsAllocated, base.BitsStored, base.HighBit, base.PixelRepresentation = 16, 12, 11, 0
    for n in range(count):
        tube = 900 * np.exp(-(((i - 160 - 10 * np.sin(n / 40)) / 9) ** 2))
        picture = np.clip(smooth + tube + rng.normal(0, 12, (SIDE, SIDE)), 0, 4095)
        pictures.append(picture.astype(np.uint16))
        base.SOPInstanceUID, base.InstanceNumber = generate_uid(), n + 1
        base.ImagePositionPatient = [float(n), 0.0, 0.0]
        base.file_meta = FileMetaDataset()
        base.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        base.file_meta.MediaStorageSOPClassUID = base.SOPClassUID
        base.file_meta.MediaStorageSOPInstanceUID = base.SOPInstanceUID
        base.PixelData = pictures[-1].tobytes()
        if syntax == "j2k":
            from openjpeg.utils import encode_array

            base.PixelData = encapsulate([encode_array(pictures[-1], bits_stored=12)])
            base["PixelData"].VR = "OB"
            base.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
        elif syntax == "jpegls":
            base["PixelData"].VR = "OW"
            base.compress(SYNTAXES[syntax], generate_instance_uid=False)
        base.save_as(folder / f"im{n:05d}", enforce_file_format=True)
        base["PixelData"].VR = "OW"
        base["PixelData"].is_undefined_length = False
    return np.stack(pictures)


def leakloc(folder: Path) -> np.ndarray:
    """Scan and load with leakloc."""
    from leakloc.core.settings import LoaderSettings
    from leakloc.loaders import load_study

    [stack] = load_study(folder, LoaderSettings()).stacks
    return stack.load().array


def leakloc_scan(folder: Path) -> None:
    """Scan headers, sort, and check the geometry."""
    from leakloc.core.settings import LoaderSettings
    from leakloc.loaders import load_study

    load_study(folder, LoaderSettings())


def leakloc_load(folder: Path) -> Reader:
    """Return a reader of the pixels of a series whose headers are already scanned."""
    from leakloc.core.settings import LoaderSettings
    from leakloc.loaders import load_study

    [stack] = load_study(folder, LoaderSettings()).stacks
    return lambda _: stack.load().array


def simpleitk(folder: Path) -> np.ndarray:
    """Read as in the documentation of SimpleITK."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    [series] = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    return sitk.GetArrayFromImage(reader.Execute())


def simpleitk_scan(folder: Path) -> None:
    """Find the series and sort their files."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    [series] = reader.GetGDCMSeriesIDs(str(folder))
    reader.GetGDCMSeriesFileNames(str(folder), series)


def pydicom_alone(folder: Path) -> np.ndarray:
    """Read every file, sort by position and stack, without checks."""
    import pydicom

    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[0]))
    return np.stack([dataset.pixel_array for dataset in datasets])


def pydicom_scan(folder: Path) -> None:
    """Read every header up to the pixel data, without checks."""
    import pydicom

    for path in folder.iterdir():
        pydicom.dcmread(path, stop_before_pixels=True)


def dcm2niix_converted(folder: Path) -> np.ndarray:
    """Convert to an uncompressed NIfTI file and read it."""
    import dcm2niix
    import nibabel as nib

    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        command = [dcm2niix.bin, "-b", "n", "-z", "n", "-o", out, "-f", "x", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        array = np.asarray(nib.load(Path(out, "x.nii")).dataobj)
    return np.transpose(array)[..., ::-1, :]


LOADERS: dict[str, Reader] = {
    "leakloc": leakloc,
    "SimpleITK": simpleitk,
    "pydicom": pydicom_alone,
    "dcm2niix": dcm2niix_converted,
}
SCANNERS: dict[str, Callable[[Path], None]] = {
    "leakloc": leakloc_scan,
    "SimpleITK": simpleitk_scan,
    "pydicom": pydicom_scan,
}


def timed(run: Callable[[Path], object], folder: Path) -> tuple[float, float]:
    """Return wall time and CPU time in seconds, including child processes."""
    before, started = os.times(), time.perf_counter()
    run(folder)
    clock, after = time.perf_counter() - started, os.times()
    return clock, sum(after[:4]) - sum(before[:4])


def paired(runs: dict, folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median times of each reader; the order rotates from round to round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(timed(runs[name], folder))
    clock, processor = (
        {
            name: round(statistics.median(pair[n] for pair in pairs), 4)
            for name, pairs in seconds.items()
        }
        for n in (0, 1)
    )
    return {"clock_s": clock, "processor_s": processor}


def over_fastest(seconds: dict[str, float]) -> float:
    """Return the time of leakloc relative to the fastest other reader."""
    fastest = min(value for name, value in seconds.items() if name != "leakloc")
    return round(seconds["leakloc"] / max(fastest, 1e-3), 2)


def check(folder: Path, truth: np.ndarray) -> None:
    """Check that every reader returns the original; also warms caches and imports."""
    for name, read in LOADERS.items():
        array = read(folder)
        same = np.array_equal(array, truth) or np.array_equal(array, truth[::-1])
        if not same and name != "dcm2niix":  # its axis order may differ
            raise SystemExit(f"{name} returned other pixels than were written")


def main() -> None:
    """Measure, print the table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, nargs="+", default=[160, 2000])
    parser.add_argument("--syntax", nargs="+", default=list(SYNTAXES), choices=list(SYNTAXES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for count in options.files:
        for syntax in options.syntax:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder, "series")
                place.mkdir()
                truth = make_series(place, count, syntax)
                check(place, truth)
                loads = {**LOADERS, "leakloc": leakloc_load(place)}
                for what, runs in (("scan", SCANNERS), ("load", loads), ("both", LOADERS)):
                    seconds = paired(runs, place, options.rounds)
                    row = {"files": count, "syntax": syntax, "what": what, **seconds}
                    ratios = {key: over_fastest(values) for key, values in seconds.items()}
                    rows.append({**row, "leakloc_over_fastest": ratios})
                    print(json.dumps(rows[-1]), flush=True)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rounds": options.rounds,
        "median": rows,
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{record['date'][:10]}-reading-{os.cpu_count()}-cores.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(table(rows))
    print(f"record: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def table(rows: list[dict]) -> str:
    """Format the rows as Markdown: wall time (CPU time) in seconds."""
    names = list(LOADERS)
    lines = [
        "| files | syntax | what | " + " | ".join(names) + " | leakloc / fastest other |",
        "|" + "---|" * (len(names) + 4),
    ]
    for row in rows:
        clock, processor, ratio = row["clock_s"], row["processor_s"], row["leakloc_over_fastest"]
        cells = [
            f"{clock[name]:.2f} ({processor[name]:.2f})" if name in clock else "-" for name in names
        ]
        lines.append(
            f"| {row['files']} | {row['syntax']} | {row['what']} | {' | '.join(cells)} | "
            f"{ratio['clock_s']:.2f} ({ratio['processor_s']:.2f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
