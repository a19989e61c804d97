"""Level numbering on random parts of SPIDER volumes, which may cut the sacrum or the canal.

    python benchmarks/fields.py --spider DIR --count 240 --workers 2

Each part is 25 to 100 % of a volume in every direction. A disc within 10 mm of a true disc is
correct if it has the same name, a part if all such discs are correct. SPIDER numbers upward from
the lowest disc.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import nibabel as nib
import numpy as np

from leakloc.core.errors import LeaklocError
from leakloc.core.settings import Settings
from leakloc.levels.bodies import is_sacral
from leakloc.loaders import load_study
from leakloc.pipeline import analyze
from leakloc.validation.evaluation.spider import DISC_TOLERANCE_MM
from leakloc.validation.simulation import list_patients
from leakloc.validation.simulation.patients import read_discs

SMALLEST: Final = 0.25
"""Minimum fraction of a volume in each direction: two or three levels."""
BINS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Confidence bins of the table."""


@dataclass(frozen=True)
class Part:
    """One analyzed part of a volume."""

    numbering: str
    """``correct``, ``incorrect``, ``unnamed``, or ``refused``."""
    confidence: float = 0.0


def part_of(spider: Path, patients: tuple[str, ...], seed: int) -> Part:
    """Analyze a random part of a random volume."""
    rng = np.random.default_rng(seed)
    patient = patients[rng.integers(len(patients))]
    whole = nib.load(spider / f"spider-{patient}_T2SPACE.nii.gz")
    box = []
    for length in whole.shape:
        size = int(length * rng.uniform(SMALLEST, 1.0))
        start = int(rng.integers(0, length - size + 1))
        box.append(slice(start, start + size))
    settings = Settings()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "part.nii.gz"
        nib.save(whole.slicer[tuple(box)], file)
        try:
            levels = analyze(load_study(file, settings.loaders), settings).levels
        except LeaklocError:
            return Part("refused")
    true = read_discs(spider, patient)
    correct = []
    for disc in levels.discs:
        gaps = {name: np.linalg.norm(center - disc.center_lps) for name, center in true.items()}
        nearest = min(gaps, key=gaps.__getitem__)
        if gaps[nearest] <= DISC_TOLERANCE_MM and not is_sacral(disc.name):
            correct.append(nearest == disc.name)
    if not correct:
        return Part("unnamed")
    return Part("correct" if all(correct) else "incorrect", levels.numbering.confidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spider", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first part")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    patients = list_patients(options.spider)
    seeds = range(options.seed, options.seed + options.count)
    with Pool(options.workers) as pool:
        parts = pool.map(partial(part_of, options.spider, patients), seeds, chunksize=4)
    print(", ".join(f"{n} {word}" for word, n in Counter(p.numbering for p in parts).most_common()))
    print("| reported confidence | correct | parts |\n|---|---|---|")
    numbered = [p for p in parts if p.numbering in ("correct", "incorrect")]
    for low, high in pairwise(BINS):
        inside = [p for p in numbered if low <= p.confidence < high]
        if inside:
            correct = sum(p.numbering == "correct" for p in inside)
            print(f"| {low:.1f} to {high:.1f} | {correct} | {len(inside)} |")
    worst = max((p.confidence for p in parts if p.numbering == "incorrect"), default=0.0)
    print(f"highest confidence of an incorrect numbering: {worst:.2f}")


if __name__ == "__main__":
    main()
