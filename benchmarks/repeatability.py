"""Repeatability of the measurements: the smallest detectable change between two studies.

    python benchmarks/repeatability.py --phantoms --spider DIR --scans 3 -o SCANS.jsonl
    python benchmarks/repeatability.py --summary SCANS.jsonl

Each subject is scanned several times without a change: phantoms with another position, tilt,
slice thickness, noise and flow voids; simulated contrast on development patients of SPIDER once
with the same protocol (another position of the grid, noise, receive field and flow voids) and once
with another protocol (also voxel size, plane and contrast). The smallest detectable change is two
standard deviations of the difference between two scans of one subject. Results do not apply to
patients. Scans that are in the output file are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from leakloc.core.errors import LeaklocError
from leakloc.core.settings import Settings
from leakloc.loaders import load_study
from leakloc.pipeline import analyze
from leakloc.report import build_report
from leakloc.report.model import Report
from leakloc.validation import phantom
from leakloc.validation.simulation import SimulatedStudy, read_patient, simulate
from leakloc.validation.simulation.dicom import write_study as write_simulation

PHANTOMS: Final = (
    ("postoperative_dorsal", 41),
    ("ventral_longitudinal", 42),
    ("circumferential_thin", 43),
    ("periradicular_left", 44),
    ("stenosis", 45),
    ("scoliosis", 46),
)
SLICES_MM: Final = (1.0, 1.25, 1.5)
"""Slice thickness of each scan of a phantom, with the same thickness of the slab."""
PATIENTS: Final = (
    ("007", "dorsal"),
    ("022", "ventral"),
    ("057", "circumferential_thin"),
    ("110", "pseudomeningocele"),
    ("034", "dorsal"),
    ("078", "long"),
    ("118", "ventral"),
    ("141", "two_collections"),
)
"""Development patients and simulated scenarios."""
REPEATS: Final = ((0, True), (1, True), (1, False))
"""Repeat number of each scan of a patient, and whether its protocol is that of the first."""
SIMULATED: Final = "simulated contrast on real anatomy"
SIMULATION_SEED: Final = 41
SMALL_ML: Final = 5.0
"""Volume up to which the change is limited in mL, above which in percent."""


@dataclass(frozen=True)
class Scan:
    """Measurements of one scan.

    Parameters
    ----------
    group : str
        ``phantom`` or ``simulated contrast on real anatomy``.
    repeat : int
        Number of the scan.
    same_protocol : bool
        Whether it has the protocol of the first scan of the subject.
    csf_ml : dict
        CSF volume of the sac by motion segment completely in the field of view.
    thickness_mm : dict
        Thickness of the fluid by motion segment and side.
    """

    group: str
    subject: str
    repeat: int
    same_protocol: bool
    leak: str
    segments: int | None
    fluid_ml: float
    length_mm: float | None
    csf_ml: dict[str, float]
    thickness_mm: dict[str, float]


def scan_of(
    report: Report, group: str, subject: str, repeat: int, *, same_protocol: bool = True
) -> Scan:
    """Return the measurements of a report."""
    largest = next(iter(report.collections), None)
    return Scan(
        group,
        subject,
        repeat,
        same_protocol,
        report.finding.leak,
        report.finding.segments_with_fluid,
        sum(c.volume_ml or 0.0 for c in report.collections),
        None if largest is None else largest.extent.length_mm,
        {s.segment: s.csf_volume_ml or 0.0 for s in report.thecal_sac.by_segment},
        {
            f"{s.segment} {side}": getattr(s, side).thickness_mm or 0.0
            for s in report.fluid_by_segment
            for side in ("dorsal", "ventral", "left", "right")
        },
    )


def analyzed(write: Callable[[Path], None]) -> Report:
    """Write a study as DICOM, analyze it and return its report."""
    settings = Settings()
    with TemporaryDirectory() as folder:
        write(Path(folder))
        return build_report(analyze(load_study(Path(folder) / "dicom", settings.loaders), settings))


def phantom_scans(count: int, done: set[tuple[str, int]]) -> Iterator[Scan]:
    """Scan each phantom with `count` slice thicknesses."""
    for name, seed in PHANTOMS:
        for repeat, slice_mm in enumerate(SLICES_MM[:count]):
            if (f"{name} {seed}", repeat) in done:
                continue
            scenario = phantom.SCENARIOS[name]
            rows, columns, slices = scenario.myelogram_shape
            slices = round(slices * scenario.slice_mm / slice_mm)
            changed = replace(
                scenario,
                series=("localizer", "t2_sagittal", "ht2w_3d"),
                optional_series=(),
                myelogram_shape=(rows, columns, slices),
                slice_mm=slice_mm,
            )
            subject = phantom.make_phantom(changed, seed, repeat)

            def write(folder: Path, subject: phantom.Phantom = subject) -> None:
                phantom.write_study(subject, folder, truth=False)

            yield scan_of(analyzed(write), "phantom", f"{name} {seed}", repeat)


def simulated_scans(spider: Path, count: int, done: set[tuple[str, int]]) -> Iterator[Scan]:
    """Scan each simulated patient `count` times."""
    for number, scenario in PATIENTS:
        patient = read_patient(spider, number)
        for scan, (repeat, same) in enumerate(REPEATS[:count]):
            if (f"{scenario} {number}", scan) in done:
                continue
            study = simulate(patient, scenario, SIMULATION_SEED, repeat=repeat, same_protocol=same)

            def write(folder: Path, study: SimulatedStudy = study) -> None:
                write_simulation(study, folder, truth=False)

            subject = f"{scenario} {number}"
            yield scan_of(analyzed(write), SIMULATED, subject, scan, same_protocol=same)


# --- summary ------------------------------------------------------------------------------


def change_of(pairs: Sequence[tuple[float, float]], *, relative: bool = False) -> float:
    """Return two standard deviations of the difference of pairs, in units or percent of the mean.

    The expected difference is zero, as nothing changed.
    """
    if not pairs:
        return float("nan")
    values = np.array(pairs)
    differences = values[:, 1] - values[:, 0]
    if relative:
        differences = 100.0 * differences / values.mean(axis=1)
    return float(2.0 * np.sqrt(np.mean(differences**2)))


def csf_pair(one: Scan, two: Scan) -> tuple[float, float]:
    """Return the CSF volumes in the motion segments that are complete in both scans."""
    common = sorted(one.csf_ml.keys() & two.csf_ml.keys())
    return sum(one.csf_ml[s] for s in common), sum(two.csf_ml[s] for s in common)


def group_of(one: Scan, two: Scan) -> str:
    """Return the group of a pair of scans of one subject."""
    if one.group != SIMULATED:
        return one.group
    same = one.same_protocol and two.same_protocol
    return f"{SIMULATED}, {'same' if same else 'another'} protocol"


def print_summary(scans: Sequence[Scan]) -> None:
    """Print the smallest detectable changes by group of pairs."""
    groups: dict[str, list[tuple[Scan, Scan]]] = {}
    for pair in combinations(scans, 2):
        if pair[0].subject == pair[1].subject:
            groups.setdefault(group_of(*pair), []).append(pair)
    for group, pairs in groups.items():
        fluid = [(a.fluid_ml, b.fluid_ml) for a, b in pairs]
        small = [p for p in fluid if max(p) <= SMALL_ML]
        large = [p for p in fluid if max(p) > SMALL_ML]
        csf = [p for p in (csf_pair(*pair) for pair in pairs) if all(p)]
        thickness = [
            (a.thickness_mm[place], b.thickness_mm[place])
            for a, b in pairs
            for place in a.thickness_mm.keys() & b.thickness_mm.keys()
            if max(a.thickness_mm[place], b.thickness_mm[place]) > 0
        ]
        lengths = [
            (a.length_mm, b.length_mm) for a, b in pairs if None not in (a.length_mm, b.length_mm)
        ]
        segments = [abs((a.segments or 0) - (b.segments or 0)) for a, b in pairs]
        subjects = {pair[0].subject for pair in pairs}
        print(f"{group}: {len(subjects)} subjects, {len(pairs)} pairs")
        print(f"  fluid up to {SMALL_ML:g} mL ({len(small)}): {change_of(small):.2f} mL")
        print(
            f"  fluid above ({len(large)}): {change_of(large, relative=True):.1f} %, "
            f"{change_of(large):.2f} mL"
        )
        print(
            f"  CSF in common segments ({len(csf)}): {change_of(csf, relative=True):.1f} %, "
            f"{change_of(csf):.2f} mL"
        )
        print(f"  thickness ({len(thickness)}): {change_of(thickness):.2f} mm")
        print(f"  length of the largest collection ({len(lengths)}): {change_of(lengths):.1f} mm")
        print(
            f"  segments with fluid: equal {segments.count(0)}/{len(segments)}, "
            f"largest difference {max(segments, default=0)}"
        )


def read_scans(path: Path) -> list[Scan]:
    """Read the scans of an output file."""
    return [Scan(**json.loads(line)) for line in path.read_text().splitlines()]


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phantoms", action="store_true", help="scan phantoms")
    parser.add_argument("--spider", type=Path, help="folder of SPIDER volumes, to scan them too")
    parser.add_argument("-o", "--output", type=Path, help="file of scans, which are appended")
    parser.add_argument("--scans", type=int, default=len(SLICES_MM), help="scans of each subject")
    parser.add_argument("--summary", type=Path, help="only summarize a file of scans")
    args = parser.parse_args()
    if args.summary:
        print_summary(read_scans(args.summary))
        return
    scans = read_scans(args.output) if args.output and args.output.exists() else []
    done = {(scan.subject, scan.repeat) for scan in scans}
    try:
        for source in (
            phantom_scans(args.scans, done) if args.phantoms else iter(()),
            simulated_scans(args.spider, args.scans, done) if args.spider else iter(()),
        ):
            for scan in source:
                scans.append(scan)
                print(f"{scan.subject} {scan.repeat}: {scan.fluid_ml:.2f} mL", file=sys.stderr)
                if args.output:
                    with args.output.open("a") as file:
                        file.write(json.dumps(asdict(scan)) + "\n")
    except LeaklocError as error:
        sys.exit(f"repeatability: {error}")
    print_summary(scans)


if __name__ == "__main__":
    main()
