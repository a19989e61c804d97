"""Refit the disc classifier (`leakloc.levels.kinds`) after retraining the anatomy network.

Detects candidate discs with the installed network on volumes of SPIDER (van der Graaf et al., Sci
Data 11:264, 2024, CC BY 4.0) and on phantoms, labels each with the ground truth, and fits a
multinomial logistic model with the same prior for every kind. Prints confusion tables of a fit
without the held-out cases, then the weights of a fit to all cases, which replace the rows of
``_WEIGHTS`` in ``leakloc/levels/kinds.py``.

Run ``python pipelines/fit_disc_kinds.py --spider DIR --phantoms-seeds 0-4``. Cases are held out
from this fit only: most patients, and phantoms with seeds below 50, were used to train the network.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import MODEL_PATH, AnatomyOutputs
from leakloc.anatomy.vocabulary import Role, split_segment
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.candidates import Candidate
from leakloc.levels.kinds import KINDS, kind_features
from leakloc.levels.network import network_detector
from leakloc.levels.search import detect_discs
from leakloc.validation.evaluation.spider import DISC_TOLERANCE_MM
from leakloc.validation.phantom import SCENARIOS, Truth, make_phantom
from leakloc.validation.simulation.patients import SAC, read_discs

PATIENTS: Final = ("005", "007", "022", "034", "057", "098", "110", "141", "166", "209", "241")
"""SPIDER patients used for fitting; the others are used to evaluate the numbering."""
HELD_OUT_PATIENTS: Final = ("166", "209", "241")
HELD_OUT_FRACTION: Final = 0.4
"""Fraction of the phantom seeds (the last ones) that are held out."""
UNLISTED_FIRST_SACRAL: Final = {"110": (-3.0, 53.0, -88.0)}
"""LPS center of a visible S1-S2 disc, by patient: SPIDER's annotations end at L5-S1."""
SCENARIO_NAMES: Final = (
    "normal",
    "lumbar_without_hiatus",
    "metal",
    "scoliosis",
    "three_stations",
    "transitional",
    "ventral_longitudinal",
)
"""All fields of view, and variations of disc appearance and number."""
COMPANION_ROLES: Final[dict[str, Role]] = {
    "t2_sagittal": "sagittal_t2",
    "t1_sagittal": "sagittal_t1",
}
"""No STIR: it is used only if there is no T2."""
MYELOGRAMS: Final = ("ht2w_3d", "ht2w_bssfp")
MIN_CANAL_VOXELS: Final = 10
"""Minimum canal size in a slice; smaller ones are the irregular ends of SPIDER's canal."""
PATIENT_WEIGHT: Final = 5.0
"""Weight of a detection in a patient relative to one in a phantom."""
RIDGE: Final = 0.3
"""Penalty on squared weights, in detections: keeps the weights of rare kinds finite."""
CLASSES: Final = ("false_detection", *KINDS)

Classes = npt.NDArray[np.int64]
Detections = tuple[FloatArray, Classes]
"""Features and classes of the detections of one search."""


@dataclass(frozen=True)
class Case:
    """Detections in one patient, or in one phantom with or without companions.

    Parameters
    ----------
    features : ndarray, shape (n, 12)
        As `kind_features`.
    classes : ndarray of int, shape (n,)
        Index into `CLASSES`.
    real, held_out : bool
    """

    features: FloatArray
    classes: Classes
    real: bool
    held_out: bool


def class_of(name: str | None) -> int:
    """Return the index into `CLASSES` of a disc's true name; None is a false detection."""
    if name is None:
        return CLASSES.index("false_detection")
    above, below = split_segment(name)
    if above == "S1":
        return CLASSES.index("first_sacral")
    if above.startswith("S"):
        return CLASSES.index("lower_sacral")
    return CLASSES.index("lumbosacral" if below == "S1" else "presacral")


def classes_of(candidates: Sequence[Candidate], truth: dict[str, FloatArray]) -> Classes:
    """Return the class of the true disc nearest to each detection; false if none is near."""
    classes = []
    for candidate in candidates:
        gaps = {n: float(np.linalg.norm(at - candidate.center_lps)) for n, at in truth.items()}
        nearest = min(gaps, key=gaps.__getitem__)
        classes.append(class_of(nearest if gaps[nearest] < DISC_TOLERANCE_MM else None))
    return np.array(classes, dtype=np.int64)


def canal_line(mask: Volume) -> Centerline:
    """Return the centerline of the canal in a SPIDER mask, cranial to caudal."""
    upright = mask.oriented("LPS")
    points = []
    for k in reversed(range(upright.array.shape[0])):
        j, i = np.nonzero(upright.array[k] == SAC)
        if len(j) >= MIN_CANAL_VOXELS:
            points.append(upright.geometry.lps_from_kji([k, j.mean(), i.mean()]))
    return Centerline.smoothed(np.array(points))


def detections_in_patient(folder: Path, patient: str) -> list[Detections]:
    """Return features and classes of the detections in one volume of SPIDER."""
    stem = folder / f"spider-{patient}"
    image: Any = nib.load(f"{stem}_T2SPACE.nii.gz")
    mask: Any = nib.load(f"{stem}_mask.nii.gz")
    volume, line = Volume.from_nibabel(image), canal_line(Volume.from_nibabel(mask))
    truth = read_discs(folder, patient)
    if patient in UNLISTED_FIRST_SACRAL:
        truth["S1-S2"] = np.array(UNLISTED_FIRST_SACRAL[patient])
    found = detect_discs(volume, {}, line, network_detector(AnatomyOutputs())).candidates
    return [(kind_features(found), classes_of(found, truth))]


def rendered(scenario: str, seed: int) -> tuple[Volume, dict[Role, Volume], Truth]:
    """Return myelogram, companions and ground truth of one phantom.

    The slice spacing of a single-station myelogram is doubled: the network skips planes, and
    rendering takes most of the time.
    """
    phantom = make_phantom(scenario, seed)
    myelograms: list[Volume] = []
    companions: dict[Role, Volume] = {}
    for series in phantom.series():
        name = series.sequence.name
        if name in COMPANION_ROLES:
            companions.setdefault(COMPANION_ROLES[name], phantom.render(series)[0])
        elif name not in MYELOGRAMS or series.derived:
            continue
        elif series.composed:
            myelograms.append(phantom.render(series)[0])
        elif series.station is None:
            i_mm, j_mm, k_mm = series.geometry.spacing_ijk_mm
            coarse = series.geometry.with_spacing((i_mm, j_mm, 2 * k_mm))
            myelograms.append(phantom.image(series.sequence, coarse))
    return myelograms[-1], companions, phantom.truth


def detections_in_phantom(scenario: str, seed: int) -> list[Detections]:
    """Return features and classes in one phantom, with and without companions."""
    myelogram, companions, truth = rendered(scenario, seed)
    in_field = myelogram.geometry.contains(truth.centerline_lps)
    line = Centerline.smoothed(truth.centerline_lps[in_field])
    discs = {disc.name: disc.center_lps for disc in truth.discs}
    results = []
    detect = network_detector(AnatomyOutputs())
    for series in (companions, {}):
        found = detect_discs(myelogram, series, line, detect).candidates
        results.append((kind_features(found), classes_of(found, discs)))
    return results


def cases(
    spider: Path, patients: Sequence[str], scenarios: Sequence[str], seeds: Sequence[int],
    work: Path | None,
) -> Iterator[Case]:  # fmt: skip
    """Yield the detections in all cases; those in the working folder are read from there."""
    for patient in patients:
        find = partial(detections_in_patient, spider, patient)
        for features, classes in _cached(work, f"spider-{patient}", find):
            yield Case(features, classes, True, patient in HELD_OUT_PATIENTS)
    held_out = seeds[len(seeds) - round(HELD_OUT_FRACTION * len(seeds)) :]
    for seed in seeds:
        for scenario in scenarios:
            show = partial(detections_in_phantom, scenario, seed)
            for features, classes in _cached(work, f"{scenario}-{seed}", show):
                yield Case(features, classes, False, seed in held_out)


def _cached(work: Path | None, name: str, find: Callable[[], list[Detections]]) -> list[Detections]:
    """Return detections from the working folder, or compute and store them, by network hash."""
    path = None
    if work is not None:
        network = hashlib.sha256(MODEL_PATH.read_bytes()).hexdigest()[:8]
        path = work / f"{name}-{network}.npz"
        if path.is_file():
            with np.load(path) as data:
                count = len(data.files) // 2
                return [(data[f"features{n}"], data[f"classes{n}"]) for n in range(count)]
    found = find()
    print(f"{name}: {[len(classes) for _, classes in found]} detections", flush=True)
    if path is not None:
        arrays: dict[str, Any] = {}
        for n, (features, classes) in enumerate(found):
            arrays[f"features{n}"], arrays[f"classes{n}"] = features, classes
        np.savez(path, **arrays)
    return found


def fit(features: FloatArray, classes: Classes, importance: FloatArray) -> FloatArray:
    """Fit multinomial logistic weights with the same prior for every class.

    Parameters
    ----------
    features : ndarray, shape (n, f)
        The first column is one and not penalized.
    classes : ndarray of int, shape (n,)
    importance : ndarray, shape (n,)
        Weight of each detection before the classes are balanced.

    Returns
    -------
    ndarray, shape (len(KINDS), f)
        Scores relative to a false detection.
    """
    count = len(CLASSES)
    totals = np.bincount(classes, importance, count)
    each = importance / totals[classes] * totals.sum() / count / importance.mean()
    truth = np.eye(count)[classes]

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(count, -1)
        scores = features @ weights.T
        scores = scores - scores.max(1, keepdims=True)
        log_fraction = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        value = -(each * (truth * log_fraction).sum(1)).sum() + RIDGE * (weights[:, 1:] ** 2).sum()
        slope = ((np.exp(log_fraction) - truth) * each[:, None]).T @ features
        slope[:, 1:] += 2 * RIDGE * weights[:, 1:]
        return float(value), slope.ravel()

    start = np.zeros(count * features.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    weights = np.asarray(found.x, dtype=np.float64).reshape(count, -1)
    return np.asarray(weights[1:] - weights[0])


def confusion(features: FloatArray, classes: Classes, weights: FloatArray) -> str:
    """Return the confusion matrix as text: true class (rows), most probable class (columns)."""
    scores = np.column_stack([np.zeros(len(features)), features @ weights.T])
    table = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    np.add.at(table, (classes, scores.argmax(1)), 1)
    lines = [" " * 13 + "".join(f"{name:>14}" for name in CLASSES)]
    for name, row in zip(CLASSES, table, strict=True):
        lines.append(f"{name:13}" + "".join(f"{n:14}" for n in row))
    return "\n".join(lines)


def rows_text(weights: FloatArray) -> str:
    """Format weights as the rows of ``_WEIGHTS`` in ``leakloc/levels/kinds.py``."""
    return "\n".join("        [" + ", ".join(f"{w:.2f}" for w in row) + "]," for row in weights)


def seeds_from(text: str) -> list[int]:
    """Parse a range of seeds such as ``0-4``, or one number."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    """Parse the command line, detect, fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spider", type=Path, required=True, help="folder of SPIDER volumes")
    parser.add_argument("--phantoms-seeds", type=seeds_from, default="0-4", help="such as 0-4")
    parser.add_argument("--work", type=Path, help="folder for detections, to resume later")
    parser.add_argument("--patients", nargs="+", default=PATIENTS, metavar="NNN")
    parser.add_argument("--scenarios", nargs="+", default=SCENARIO_NAMES, choices=list(SCENARIOS))
    args = parser.parse_args()
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    found = list(cases(args.spider, args.patients, args.scenarios, args.phantoms_seeds, args.work))
    features = np.concatenate([case.features for case in found])
    classes = np.concatenate([case.classes for case in found])
    sizes = [len(case.classes) for case in found]
    held_out = np.repeat([case.held_out for case in found], sizes)
    importance = np.repeat([PATIENT_WEIGHT if case.real else 1.0 for case in found], sizes)
    missing = [name for n, name in enumerate(CLASSES) if n not in classes[~held_out]]
    if missing:
        print(f"Never detected, weights not meaningful: {', '.join(missing)}")
    part = fit(features[~held_out], classes[~held_out], importance[~held_out])
    for title, chosen in (("fitted to", ~held_out), ("held out", held_out)):
        print(f"\n{title}: {chosen.sum()} detections, true class by row")
        print(confusion(features[chosen], classes[chosen], part))
    print("\nfitted to all cases, for _WEIGHTS in leakloc/levels/kinds.py:")
    print(rows_text(fit(features, classes, importance)))


if __name__ == "__main__":
    main()
