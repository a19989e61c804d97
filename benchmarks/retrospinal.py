"""Retrospinal fluid at C1-C2 on phantoms, with and without it in the same subjects.

    python benchmarks/retrospinal.py --ventral 40 41 --dorsal 50 51 --alone 46 47 -o STUDIES.jsonl
    python benchmarks/retrospinal.py --summary STUDIES.jsonl

Each seed is a subject, with a ventral collection at the cervicothoracic junction, with a dorsal one
that extends to C1 or C2, or without a collection. Each subject is analyzed with and without
retrospinal fluid. Studies in the output file are not repeated. Results do not apply to patients.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from leakloc.anatomy.spine import Spine
from leakloc.core.settings import Settings
from leakloc.levels import label
from leakloc.localization import localize, without_cisterns, without_retrospinal
from leakloc.segmentation import segment
from leakloc.validation.phantom import SCENARIOS, Scenario, make_phantom


def two_series(name: str) -> Scenario:
    """Return a scenario with a sagittal T2 series and a myelogram only."""
    series = ("t2_sagittal", "ht2w_3d")
    return replace(SCENARIOS[name], series=series, optional_series=())


VENTRAL: Final = two_series("retrospinal_c1_c2")
ALONE: Final = two_series("retrospinal_c1_c2_only")
DORSAL: Final = replace(
    VENTRAL,
    collections=(
        replace(
            VENTRAL.collections[0],
            levels=("C4-C5", "C5-C6"),
            position="dorsal",
            cranial_levels=(2.5, 3.5),
        ),
    ),
)
GROUPS: Final = {"ventral": VENTRAL, "dorsal": DORSAL, "alone": ALONE}


@dataclass(frozen=True)
class Study:
    """One analyzed phantom: truth and result."""

    group: str
    seed: int
    has_fluid: bool
    true_ml: float | None
    true_level: str | None
    present: bool | None
    volume_ml: float | None
    side_correct: bool | None
    center_error_mm: float | None
    leak: str
    level: str | None
    levels_above_c2: int
    """Number of collections with the largest cross-section cranial to C2."""
    volumes_ml: tuple[float, ...]


def analyze_phantom(group: str, scenario: Scenario, seed: int) -> Study:
    """Render the series of a phantom and run the stages on them, without DICOM files."""
    phantom, settings = make_phantom(scenario, seed), Settings()
    truth = phantom.truth
    images = {series.sequence.name: phantom.render(series)[0] for series in phantom.series()}
    spine, companions = Spine(images["ht2w_3d"]), {"sagittal_t2": images["t2_sagittal"]}
    fluid = segment(spine, companions, settings.segmentation)
    levels = label(spine, companions, fluid, settings.levels)
    within = without_retrospinal(without_cisterns(fluid, levels), levels, settings.segmentation)
    result = localize(within, levels, settings.localization)
    true, found = truth.retrospinal_c1_c2, result.finding.retrospinal_c1_c2
    assert found is not None
    side_correct = error_mm = None
    if true is not None and found.center_lps_mm is not None:
        error_mm = float(np.linalg.norm(np.array(found.center_lps_mm) - true.center_lps))
        sign = {"left": 1.0, "right": -1.0, "midline": 0.0}[found.side or "midline"]
        side_correct = bool(sign * true.left_mm > 0 if sign else abs(true.left_mm) < 4.0)
    top = phantom.body.anatomy.sites[0].middle_mm
    line = phantom.body.anatomy.centerline
    above = [line.project(np.array(c.epicenter_lps_mm))[0] < top for c in result.collections]
    return Study(
        group=group,
        seed=seed,
        has_fluid=true is not None,
        true_ml=None if true is None else true.volume_ml,
        true_level=truth.collections[0].level if truth.collections else None,
        present=found.present,
        volume_ml=found.volume_ml,
        side_correct=side_correct,
        center_error_mm=error_mm,
        leak=result.finding.leak,
        level=result.finding.level,
        levels_above_c2=sum(map(bool, above)),
        volumes_ml=tuple(c.volume_ml or 0.0 for c in result.collections),
    )


def summary(studies: Sequence[Study]) -> Iterator[str]:
    """Yield the lines of the summary."""
    fluid = [s for s in studies if s.has_fluid]
    controls = [s for s in studies if not s.has_fluid]
    detected = [s for s in fluid if s.present]
    yield f"with retrospinal fluid: {len(detected)} of {len(fluid)} detected"
    yield f"without: {sum(bool(s.present) for s in controls)} of {len(controls)} false positive"
    yield f"not assessed: {sum(s.present is None for s in studies)} of {len(studies)}"
    if detected:
        errors = [abs((s.volume_ml or 0.0) / (s.true_ml or np.nan) - 1) for s in detected]
        yield f"error of the volume: median {np.median(errors):.0%}, maximum {np.max(errors):.0%}"
        sides = sum(bool(s.side_correct) for s in detected)
        yield f"side correct: {sides} of {len(detected)}"
        distances = [s.center_error_mm for s in detected if s.center_error_mm is not None]
        yield f"distance of the center: maximum {np.max(distances):.1f} mm"
    pairs = [
        (a, b)
        for a in fluid
        for b in controls
        if (a.group, a.seed) == (b.group, b.seed) and a.true_level is not None
    ]
    same = sum(a.level == b.level for a, b in pairs)
    yield f"level with and without retrospinal fluid the same: {same} of {len(pairs)} subjects"
    changes = [abs(sum(a.volumes_ml) - sum(b.volumes_ml)) for a, b in pairs]
    if changes:
        yield f"difference of the collections' volume: maximum {max(changes):.2f} mL"
    leading = sum(s.levels_above_c2 for s in studies)
    yield f"collections with the largest cross-section cranial to C2: {leading}"
    for word, group in (("with", fluid), ("without", controls)):
        results = sorted(s.leak for s in group if s.true_level is None)
        counts = ", ".join(f"{results.count(r)} {r}" for r in dict.fromkeys(results))
        yield f"finding without a collection, {word} retrospinal fluid: {counts or 'no study'}"


def read_studies(path: Path) -> list[Study]:
    """Read the studies of an output file."""
    if not path.exists():
        return []
    return [Study(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for group in GROUPS:
        parser.add_argument(f"--{group}", type=int, nargs="*", default=[], metavar="SEED")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="print a file's summary only")
    options = parser.parse_args()
    path = options.summary or options.output
    if path is None:
        parser.error("-o or --summary is required")
    studies = read_studies(path)
    known = {(s.group, s.seed, s.has_fluid) for s in studies}
    subjects = [(group, seed) for group in GROUPS for seed in getattr(options, group)]
    for group, seed in subjects if options.summary is None else ():
        scenario = GROUPS[group]
        for has_fluid in (True, False):
            if (group, seed, has_fluid) in known:
                continue
            chosen = scenario if has_fluid else replace(scenario, retrospinal=None)
            study = analyze_phantom(group, chosen, seed)
            with path.open("a", encoding="utf-8") as target:
                target.write(f"{json.dumps(asdict(study))}\n")
            studies.append(study)
    print("\n".join(summary(studies)))


if __name__ == "__main__":
    main()
