"""Accuracy of perineural cysts and root sleeve diverticula on phantoms.

    python benchmarks/root_structures.py 105 106 107 -o STUDIES.jsonl
    python benchmarks/root_structures.py --summary STUDIES.jsonl

A study is a phantom without epidural fluid, with a root sleeve on each side of each level. Four
diverticula next to a root and three cysts around a root, of 4 to 9 mm, are added at seven of the
levels T11-T12 to S1-S2. A structure counts by its visible diameter: that of a sphere with the
volume of its fluid outside the sac, the root and its sleeve. Structures of less than 4 mm are
neither missed nor false. The caudal end of the sac is measured too. Studies in the output file are
not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from leakloc.core.errors import LeaklocError
from leakloc.core.settings import Settings
from leakloc.core.volume import FloatArray, Geometry
from leakloc.loaders import load_study
from leakloc.localization.result import RootDiverticulum
from leakloc.pipeline import analyze
from leakloc.report import build_report
from leakloc.validation import phantom
from leakloc.validation.evaluation import wilson_interval
from leakloc.validation.phantom.truth import TrueRootStructure

LEVELS: Final = (
    "T11-T12", "T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1", "S1-S2",
)  # fmt: skip
KINDS: Final = ("root_diverticulum",) * 4 + ("perineural_cyst",) * 3
RADIUS_MM: Final = (2.0, 4.5)
MIN_MM: Final = 4.0
"""Minimum visible diameter of a structure that must be found."""
REACH_MM: Final = 4.0
"""Minimum distance of the centers of a true and a reported structure up to which they are the same;
0.6 diameters if more."""


@dataclass(frozen=True)
class Structure:
    """A true structure and the result at it."""

    kind: str
    root: str
    side: str
    diameter_mm: float
    visible_mm: float
    found_mm: float | None
    """Reported diameter; None if it was not found."""
    found_root: str | None = None
    found_side: str | None = None


@dataclass(frozen=True)
class Study:
    """Result of one phantom."""

    seed: int
    structures: tuple[Structure, ...]
    """Those with the center in the field of view."""
    false_mm: tuple[float, ...]
    """Diameters of reported structures without a true one."""
    leak: str
    unplaced: int
    """Number of rejected candidates without level or side."""
    tip_error_mm: float | None
    """Caudal end of the sac along the canal, positive caudally; None if not reported."""


def scenario(seed: int) -> phantom.Scenario:
    """Return the phantom of a seed: levels and kinds vary, sizes are drawn with the findings."""
    rng = np.random.default_rng(seed)
    base = phantom.SCENARIOS["normal"]
    if seed % 2 == 0:
        base = phantom.compact(base)
    levels = [LEVELS[n] for n in np.sort(rng.permutation(len(LEVELS))[: len(KINDS)])]
    kinds = [KINDS[n] for n in rng.permutation(len(KINDS))]
    return replace(
        base,
        series=("t2_sagittal", "ht2w_3d"),
        optional_series=(),
        mimics=tuple(
            phantom.MimicSpec(kind, (level,), RADIUS_MM)  # type: ignore[arg-type]
            for kind, level in zip(kinds, levels, strict=True)
        ),
    )


def compare(
    true: Sequence[TrueRootStructure],
    reported: Sequence[RootDiverticulum],
    geometry: Geometry,
) -> tuple[tuple[Structure, ...], tuple[float, ...]]:
    """Return the true structures in the field of view with the results, and false diameters."""
    structures, matched = [], set()
    for item in true:
        away = [float(np.linalg.norm(r.center_lps_mm - item.center_lps)) for r in reported]
        near = [n for n, mm in enumerate(away) if mm <= max(0.6 * item.diameter_mm, REACH_MM)]
        matched.update(near)
        if not bool(geometry.contains(item.center_lps)):
            continue
        best = reported[min(near, key=away.__getitem__)] if near else None
        structures.append(
            Structure(
                item.kind,
                item.root,
                item.side,
                item.diameter_mm,
                item.visible_mm,
                None if best is None else best.max_diameter_mm,
                None if best is None else best.root,
                None if best is None else best.side,
            )
        )
    false_mm = tuple(r.max_diameter_mm for n, r in enumerate(reported) if n not in matched)
    return tuple(structures), false_mm


def measure(seed: int) -> Study:
    """Render and analyze the phantom of a seed."""
    settings = Settings()
    subject = phantom.make_phantom(scenario(seed), seed)
    with TemporaryDirectory() as folder:
        phantom.write_study(subject, Path(folder), truth=False)
        analysis = analyze(load_study(Path(folder) / "dicom", settings.loaders), settings)
    report = build_report(analysis)
    truth, localization = subject.truth, analysis.localization
    structures, false_mm = compare(
        truth.root_structures,
        localization.finding.root_diverticula or (),
        analysis.segmentation.collections.geometry,
    )
    tip: FloatArray | None = localization.thecal_sac.caudal_end.lps_mm
    ends = [truth.sac_tip_lps] if tip is None else [tip, truth.sac_tip_lps]
    arcs = analysis.segmentation.centerline.project(np.array(ends))[0]
    return Study(
        seed,
        structures,
        false_mm,
        localization.finding.leak,
        sum(r.level is None for r in report.rejected),
        None if tip is None else float(arcs[0] - arcs[1]),
    )


def fraction(correct: int, total: int) -> str:
    """Return a fraction with its 95 % interval."""
    if not total:
        return "0 of 0"
    low, high = wilson_interval(correct, total)
    return f"{correct} of {total} ({correct / total:.0%}, 95 % interval {low:.0%} to {high:.0%})"


def print_summary(studies: Sequence[Study]) -> None:
    """Print the structures found, their roots and sides, and false ones."""
    every = [s for study in studies for s in study.structures if s.visible_mm >= MIN_MM]
    print(f"{len(studies)} studies, structures from {MIN_MM:g} mm visible diameter")
    for kind in dict.fromkeys(KINDS):
        for low, high in ((4, 5), (5, 6), (6, 99)):
            part = [s for s in every if s.kind == kind and low <= s.visible_mm < high]
            label = f"from {low} mm" if high == 99 else f"{low} to {high} mm"
            hits = sum(s.found_mm is not None for s in part)
            print(f"  {kind}, {label}: {fraction(hits, len(part))}")
    found = [s for s in every if s.found_mm is not None]
    named = [s for s in found if (s.found_root, s.found_side) == (s.root, s.side)]
    print(f"found: {fraction(len(found), len(every))}")
    print(f"root and side correct, of those found: {fraction(len(named), len(found))}")
    for kind in dict.fromkeys(KINDS):
        mm = [s.found_mm - s.diameter_mm for s in found if s.kind == kind and s.found_mm]
        if mm:
            print(
                f"  {kind}: reported largest diameter minus that of a sphere of the same volume: "
                f"median {np.median(mm):+.1f} mm, range {min(mm):+.1f} to {max(mm):+.1f} mm"
            )
    false = [mm for study in studies for mm in study.false_mm]
    print(f"false: {len(false)} ({len(false) / len(studies):.2f} per study)")
    print(f"leak not absent: {sum(study.leak != 'absent' for study in studies)} of {len(studies)}")
    print(f"rejected candidates without level: {sum(study.unplaced for study in studies)}")
    errors = np.array([s.tip_error_mm for s in studies if s.tip_error_mm is not None])
    if len(errors):
        print(
            f"caudal end of the sac ({len(errors)}): median error {np.median(errors):+.1f} mm, "
            f"90th percentile of its amount {np.quantile(np.abs(errors), 0.9):.1f} mm"
        )


def read_studies(path: Path) -> list[Study]:
    """Read the studies of an output file."""
    studies = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Study(**study | {
            "structures": tuple(Structure(**s) for s in study["structures"]),
            "false_mm": tuple(study["false_mm"]),
        })
        for study in studies
    ]  # fmt: skip


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", nargs="*", type=int, help="seeds of the phantoms")
    parser.add_argument("-o", "--output", type=Path, help="file of studies, which are appended")
    parser.add_argument("--summary", type=Path, help="only summarize a file of studies")
    args = parser.parse_args()
    path = args.summary or args.output
    studies = read_studies(path) if path and path.exists() else []
    try:
        for seed in () if args.summary else args.seeds:
            if seed in {study.seed for study in studies}:
                continue
            studies.append(measure(seed))
            print(studies[-1], file=sys.stderr)
            if args.output:
                with args.output.open("a") as file:
                    file.write(json.dumps(asdict(studies[-1])) + "\n")
    except LeaklocError as error:
        sys.exit(f"root_structures: {error}")
    print_summary(studies)


if __name__ == "__main__":
    main()
