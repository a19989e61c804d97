"""Compare numbering solvers on the same masks: leakloc, TotalSpineSeg, SPINEPS.

    python benchmarks/numbering.py --spider DIR --phantoms DIR --peers PYTHON

`--phantoms` lists folders with ``dicom/`` and ``truth/`` as written by `leakloc phantom`;
`--peers` is the interpreter of an environment with `totalspineseg` and `spineps` (2 GB without
their CUDA libraries; their weights are not needed). Missing programs are skipped with a message.

Two kinds of input, the same for all three programs:

found    masks of leakloc's network on the image (discs, bodies, sacrum, canal)
drawn    reference masks of the data set or the phantom; SPIDER has no mask of the sacrum, so that
         of the network is used

From the same masks TotalSpineSeg gets the values of its first step, with the lumbosacral disc as
landmark, and the path solver of SPINEPS gets a score for each vertebra and name. The lumbosacral
disc is defined by leakloc's `kind_scores` of each disc on found masks, and by the ground truth on
drawn ones; if C2 is in a drawn mask, both programs get it as a landmark. leakloc gets neither;
"leakloc, with landmark" uses the uppermost of these discs on drawn masks (`--anchor`). The networks
of the other programs are not run: the classifier of SPINEPS, which uses the image of each vertebra,
has no replacement.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from conftest import RECORDS, machine, versions

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import AnatomyProbabilities, anatomy_probabilities
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import LABEL_VALUES, SACRAL, split_segment
from leakloc.core.errors import LeaklocError
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.levels.detection import Detections
from leakloc.levels.kinds import KINDS, kind_scores
from leakloc.levels.labeling import assign_levels
from leakloc.levels.network import detections_from
from leakloc.levels.search import SpineDetection, detect_spine

TOLERANCE_MM = 10.0
"""Maximum distance of the disc below a vertebra from the true disc below a correct vertebra."""
CONFIDENT = 0.7
"""Minimum confidence of leakloc at which an incorrect name is a confident error."""
NEAR_MM = 25.0
"""Maximum distance of disc voxels from the center of their disc."""
STEP1 = {"disc": 1, "C2-C3": 2, "C7-T1": 3, "T12-L1": 4, "lumbosacral": 5, "sacrum": 6, "canal": 8}
"""Values of TotalSpineSeg's first step, from its README."""
VERT_CLASSES = 24
"""Columns of SPINEPS's scores: C1 to L5."""
C2, L5 = 1, 23
FORCED = 1e6
"""Score that SPINEPS assigns to C2 if it detects the dens."""
MASK_ODDS = (0.03, 0.97)
"""Probabilities that represent a drawn mask: those of the network if it is certain."""
MIN_ML = 0.2
"""Minimum volume of a disc in the mask for TotalSpineSeg (200 voxels of 1 mm)."""
DRAWN_SEEDS = (300, 301, 302, 303)
PIXEL_MM = 1.0
"""Voxel size of the masks for TotalSpineSeg."""


@dataclass(frozen=True)
class Masks:
    """Masks of one study on one grid, each 0..1; None if not annotated."""

    disc: Volume
    vertebra: Volume
    canal: Volume
    sacrum: Volume | None = None


@dataclass(frozen=True)
class Case:
    """One spine with its ground truth; `truth` contains the presacral discs in the masks."""

    name: str
    group: str
    masks: Masks
    detection: SpineDetection
    line: Centerline
    kinds: tuple[str, ...]
    """Kind of each candidate: one of `KINDS`, ``false``, or ``C2-C3``."""
    truth: Mapping[str, FloatArray]


def step1_labels(masks: Masks, centers: Sequence[FloatArray], kinds: Sequence[str]) -> Volume:
    """Return the masks with the values of TotalSpineSeg's first step, with 1 mm voxels.

    Parameters
    ----------
    masks : Masks
    centers : sequence of ndarray, shape (3,)
        LPS centers of the discs.
    kinds : sequence of str
        Kind of each; sacral and false discs are omitted, landmarks have their own value.

    Returns
    -------
    Volume
        uint8, axes cranial, posterior and left.
    """
    grid = masks.disc.geometry
    upright = masks.disc.oriented("LPS").geometry
    size = np.array(upright.shape[::-1]) * upright.spacing_ijk_mm / PIXEL_MM
    shape = np.ceil(size).astype(int)[::-1]
    target = Geometry.from_axes(
        tuple(int(n) for n in shape),
        origin_lps=tuple(upright.origin_lps),
        spacing_ijk_mm=(PIXEL_MM,) * 3,
        directions_lps=upright.directions_lps,
        frame_of_reference_uid=grid.frame_of_reference_uid,
    )

    def inside(volume: Volume | None) -> Any:
        if volume is None:
            return np.zeros(target.shape, bool)
        return volume.resample(target, order=0).array >= 0.5

    out = np.zeros(target.shape, np.uint8)
    out[inside(masks.canal)] = STEP1["canal"]
    out[inside(masks.sacrum)] = STEP1["sacrum"]
    kji = np.argwhere(inside(masks.disc))
    if not len(centers) or not len(kji):
        return Volume(out, target)
    points = target.lps_from_kji(kji)
    gaps = np.stack([np.linalg.norm(points - center, axis=-1) for center in centers])
    owner = gaps.argmin(axis=0)
    value = np.array([STEP1.get(kind, STEP1["disc"]) for kind in kinds], np.uint8)
    omitted = [kind in ("false", "first_sacral", "lower_sacral") for kind in kinds]
    value[omitted] = 0
    value = np.where(gaps.min(axis=0) <= NEAR_MM, value[owner], 0)
    out[tuple(kji[value > 0].T)] = value[value > 0]
    return Volume(out, target)


def path_scores(last: Sequence[float], *, has_c2_disc: bool) -> list[list[float]]:
    """Return scores of every vertebra for every name, derived from the disc kinds.

    Parameters
    ----------
    last : sequence of float
        Probability of each vertebra (cranial to caudal) of being the last above the sacrum.
    has_c2_disc : bool
        Whether the first vertebra is known to be C2.

    Returns
    -------
    list of list of float
        Columns C1 to L5: L5 has the score of the last vertebra, all others that of a higher one.
    """
    probability = np.asarray(last, dtype=float)
    scores = np.repeat(1.0 - probability[:, None], VERT_CLASSES, axis=1)
    scores[:, L5] = probability
    scores[:, 0] = 0.0  # C1 has no body
    if has_c2_disc and len(scores):
        scores[0] = 0.0
        scores[0, C2] = FORCED
    return [[float(x) for x in row] for row in scores]


def totalspineseg_names(values: Sequence[int]) -> list[str]:
    """Return the vertebra above each disc of TotalSpineSeg, by value, cranial to caudal.

    91 is T12-L1 and 100 the lumbosacral disc, below L5 unless 95 (L4-L5) is missing or 96 is
    present.
    """
    names = []
    for value in values:
        if value == 100:
            lumbar = [v - 90 for v in values if 91 <= v < 100]
            names.append(f"L{max(lumbar, default=5)}")
        elif value >= 91:
            names.append("T12" if value == 91 else f"L{value - 91}")
        else:
            names.append(f"C{value - 61}" if value <= 67 else _thoracic(value))
    return names


def _thoracic(value: int) -> str:
    return "C7" if value == 71 else f"T{value - 71}"


def nearest_volumes_ml(disc: Volume, centers: Sequence[FloatArray]) -> FloatArray:
    """Return the volume of the disc mask nearest to each disc center."""
    kji = np.argwhere(disc.array >= 0.5)
    points = disc.geometry.lps_from_kji(kji)
    gaps = np.stack([np.linalg.norm(points - center, axis=-1) for center in centers])
    owner = gaps.argmin(axis=0)[gaps.min(axis=0) <= NEAR_MM]
    return np.bincount(owner, minlength=len(centers)) * disc.geometry.voxel_volume_ml


def predict_kinds(detection: SpineDetection, disc: Volume) -> tuple[tuple[str, ...], list[float]]:
    """Return the kind of each disc, and its probability of being the lumbosacral disc.

    Only the most probable disc is lumbosacral. A detection is false only if it has hardly any mask.
    """
    if not detection.candidates:
        return (), []
    scores = kind_scores(detection.candidates)
    predicted = np.array(KINDS)[scores.argmax(axis=1)]
    mask_ml = nearest_volumes_ml(disc, [c.center_lps for c in detection.candidates])
    predicted = np.where(mask_ml < MIN_ML, "false", predicted)
    probability = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    best = int(np.where(predicted == "lumbosacral", probability, -1).argmax())
    kinds = [
        "presacral" if kind == "lumbosacral" and n != best else str(kind)
        for n, kind in enumerate(predicted)
    ]
    return tuple(kinds), [float(x) for x in probability]


def reference_kinds(detection: SpineDetection, truth: Mapping[str, FloatArray]) -> tuple[str, ...]:
    """Return the kind of the nearest true disc; false if none is near."""
    kinds = []
    for candidate in detection.candidates:
        gaps = {n: float(np.linalg.norm(c - candidate.center_lps)) for n, c in truth.items()}
        name = min(gaps, key=gaps.__getitem__)
        upper, lower = split_segment(name)
        if gaps[name] > TOLERANCE_MM:
            kinds.append("false")
        elif lower == "S1":
            kinds.append("lumbosacral")
        elif upper in SACRAL:
            kinds.append("first_sacral" if upper == "S1" else "lower_sacral")
        else:
            kinds.append(name if name in STEP1 else "presacral")
    return tuple(kinds)


def canal_line(canal: Volume) -> Centerline:
    """Return the centerline of a canal mask, cranial to caudal."""
    upright = canal.oriented("LPS")
    points = []
    for k in reversed(range(upright.array.shape[0])):
        j, i = np.nonzero(upright.array[k] >= 0.5)
        if len(j) >= 5:
            points.append(upright.geometry.lps_from_kji([k, j.mean(), i.mean()]))
    return Centerline.smoothed(np.array(points))


def predicted_case(
    name: str,
    group: str,
    image: Volume,
    probabilities: AnatomyProbabilities,
    truth: Mapping[str, FloatArray],
) -> Case:
    """Return a case with the masks of leakloc's network."""
    masks = Masks(
        probabilities.disc,
        probabilities.vertebra,
        _largest(probabilities.canal),
        probabilities.sacrum,
    )
    return _case(name, group, image, masks, truth, drawn=False)


def reference_case(name: str, group: str, masks: Masks, truth: Mapping[str, FloatArray]) -> Case:
    """Return a case with reference masks."""
    low, high = MASK_ODDS

    def to_probability(mask: Volume) -> Volume:
        return mask.with_array(np.where(mask.array >= 0.5, high, low).astype(np.float32))

    probability_masks = Masks(
        to_probability(masks.disc),
        to_probability(masks.vertebra),
        to_probability(masks.canal),
        to_probability(masks.sacrum) if masks.sacrum else None,
    )
    return _case(name, group, masks.disc, probability_masks, truth, drawn=True)


def _case(
    name: str, group: str, image: Volume, masks: Masks, truth: Mapping[str, FloatArray], drawn: bool
) -> Case:
    line = canal_line(masks.canal)
    nothing = masks.disc.with_array(np.zeros_like(masks.disc.array))
    probabilities = AnatomyProbabilities(
        masks.vertebra, masks.disc, masks.canal, masks.sacrum or nothing
    )

    def detect(_: Volume, centerline: Centerline | None) -> Detections:
        detected_discs = detections_from(probabilities, centerline)
        return detected_discs if masks.sacrum else replace(detected_discs, sacrum=None)

    without_image: Any = SimpleNamespace(
        centerline=line,
        thecal_sac=nothing,
        fluid_fraction=nothing,
    )  # masks only: no cord is detected
    detection = detect_spine(Spine(image), {}, without_image, LevelSettings(), detect)
    kinds = reference_kinds(detection, truth) if drawn else predict_kinds(detection, masks.disc)[0]
    presacral = {n: c for n, c in truth.items() if split_segment(n)[0] not in SACRAL}
    visible = {n: c for n, c in presacral.items() if masks.disc.geometry.contains(c).all()}
    return Case(name, group, masks, detection, line, kinds, visible)


def _largest(canal: Volume) -> Volume:
    from scipy import ndimage

    labels, count = ndimage.label(canal.array >= 0.5)
    sizes = np.bincount(labels.ravel())[1:] if count else np.array([0])
    return canal.with_array((labels == int(sizes.argmax()) + 1).astype(np.float32))


def leakloc_names(
    case: Case, anchor: str | None = None
) -> tuple[list[tuple[str, FloatArray]], bool]:
    """Return leakloc's vertebrae with the discs below them, and whether it is confident."""
    levels = assign_levels(case.detection, LevelSettings(anchor=anchor))
    numbering = levels.numbering
    confident = numbering.confidence >= CONFIDENT and not numbering.transitional_suspected
    named = [(split_segment(d.name)[0], d.center_lps) for d in levels.discs]
    return [(n, c) for n, c in named if n not in SACRAL], confident


def find_landmark(case: Case) -> str | None:
    """Return the landmark of the other programs on drawn masks, in the format of leakloc."""
    names = {"C2-C3": "C2-C3", "lumbosacral": "L5-S1"}
    for kind, candidate in zip(case.kinds, case.detection.candidates, strict=True):
        if kind in names:
            x, y, z = candidate.center_lps
            return f"{names[kind]}@{x:.1f},{y:.1f},{z:.1f}"
    return None


def presacral_candidates(case: Case) -> list[int]:
    """Return the indices of candidates above the sacrum, cranial to caudal."""
    return [
        n for n, kind in enumerate(case.kinds)
        if kind not in ("false", "first_sacral", "lower_sacral")
    ]  # fmt: skip


def write_case(case: Case, folder: Path) -> None:
    """Write the input of `numbering_peers.py`."""
    import nibabel as nib

    centers = [c.center_lps for c in case.detection.candidates]
    labels: Any = step1_labels(case.masks, centers, case.kinds).to_nibabel()
    nib.save(nib.as_closest_canonical(labels), folder / f"{case.name}.nii.gz")
    rows = presacral_candidates(case)
    drawn = case.group.startswith("drawn")
    probability = (
        [float(case.kinds[n] == "lumbosacral") for n in rows]
        if drawn
        else [predict_kinds(case.detection, case.masks.disc)[1][n] for n in rows]
    )
    has_c2_disc = drawn and bool(rows) and case.kinds[rows[0]] == "C2-C3"
    scores = path_scores(probability, has_c2_disc=has_c2_disc)
    (folder / f"{case.name}.json").write_text(json.dumps({"scores": scores}))


def peer_names(case: Case, peer: str, answer: Any) -> list[tuple[str, FloatArray]]:
    """Return another program's vertebrae with the discs below them."""
    if peer == "totalspineseg":
        names = totalspineseg_names([value for value, _ in answer])
        lps = [np.array(ras) * (-1, -1, 1) for _, ras in answer]
        return list(zip(names, lps, strict=True))
    level_names = {value: name for name, value in LABEL_VALUES.items()}
    rows = presacral_candidates(case)
    return [
        (level_names[v], case.detection.candidates[n].center_lps)
        for v, n in zip(answer, rows, strict=True)
    ]


def score_names(
    named: Sequence[tuple[str, FloatArray]], truth: Mapping[str, FloatArray], confident: bool
) -> dict[str, Any]:
    """Count the correctly named vertebrae; also return whether there is a confident error."""
    true = {split_segment(disc)[0]: center for disc, center in truth.items()}
    correct = incorrect = 0
    for vertebra, center in true.items():
        near = [n for n, c in named if np.linalg.norm(c - center) <= TOLERANCE_MM]
        correct += vertebra in near
        incorrect += bool(near) and vertebra not in near
    return {
        "true": len(true),
        "correct": correct,
        "incorrect": incorrect,
        "all_correct": correct == len(true),
        "confident_error": bool(incorrect and confident),
    }


def spider_cases(folder: Path) -> Iterator[Case]:
    """Yield every volume of SPIDER, with found and with drawn masks."""
    import nibabel as nib

    for path in sorted(folder.glob("spider-*_T2SPACE.nii.gz")):
        stem = str(path).removesuffix("_T2SPACE.nii.gz")
        listed = json.loads(Path(f"{stem}_discs.json").read_text())["discs"]
        truth = {d["name"]: np.array(d["ras_mm"]) * (-1, -1, 1) for d in listed}
        image = Volume.from_nibabel(nib.load(path))
        drawn = Volume.from_nibabel(nib.load(f"{stem}_mask.nii.gz")).oriented("LPS")
        step = (drawn.geometry.spacing_ijk_mm[0], PIXEL_MM, PIXEL_MM)
        grid = drawn.geometry.with_spacing(step)
        drawn = drawn.resample(grid, order=0)
        vertebra, disc, canal = (
            drawn.with_array((drawn.array == v).astype(np.float32)) for v in (1, 2, 3)
        )
        found = anatomy_probabilities(image)
        sacrum = found.sacrum.resample(drawn.geometry)
        name = Path(stem).name
        yield predicted_case(f"{name}-found", "found: SPIDER", image, found, truth)
        yield reference_case(
            f"{name}-drawn", "drawn: SPIDER", Masks(disc, vertebra, canal, sacrum), truth
        )


def _lumbar_group(count: int) -> str:
    return "five lumbar vertebrae" if count == 5 else "four or six lumbar vertebrae"


def phantom_cases(folders: Sequence[Path]) -> Iterator[Case]:
    """Yield rendered phantoms with the masks found on the sagittal T2 or the myelogram."""
    from leakloc.core.settings import LoaderSettings
    from leakloc.loaders import load_study
    from leakloc.loaders.triage import triage

    for folder in folders:
        truth = json.loads((folder / "truth" / "truth.json").read_text())
        discs = {d["name"]: np.array(d["center_lps"]) for d in truth["discs"]}
        chosen = triage(load_study(folder / "dicom", LoaderSettings()), LoaderSettings())
        image = chosen.companions.get("sagittal_t2", chosen.myelogram)
        group = f"found: phantoms, {_lumbar_group(truth['lumbar_count'])}"
        yield predicted_case(
            f"{folder.name}-found", group, image, anatomy_probabilities(image), discs
        )


def drawn_phantoms(seeds: Sequence[int]) -> Iterator[Case]:
    """Yield phantom masks with four to six lumbar vertebrae, lumbar and whole spine."""
    from leakloc.validation.phantom import SCENARIOS, make_phantom

    for count in (4, 5, 6):
        scenario = replace(SCENARIOS["transitional"], lumbar_counts=(count,))
        for seed in seeds:
            phantom = make_phantom(scenario, seed)
            where = {v.name: v.center_lps for v in phantom.truth.vertebrae}
            for field, top in (("lumbar field", "T10"), ("whole spine", "C2")):
                ends = np.array([where[top] + np.array([0, 0, 12]), *phantom.truth.centerline_lps])
                ends = ends[ends[:, 2] <= where[top][2] + 12]
                low = ends.min(axis=0) - np.array([30, 75, 0])
                high = ends.max(axis=0) + np.array([30, 20, 0])
                step = (3.0, 1.25, 1.25)
                size = np.ceil((high - low) / step).astype(int)
                grid = Geometry.from_axes(
                    tuple(int(n) for n in size[::-1]),
                    origin_lps=tuple(float(x) for x in low),
                    spacing_ijk_mm=step,
                )
                rendered = phantom.masks(grid)
                values = rendered.levels.array
                sacral = np.isin(values, [LABEL_VALUES[s] for s in SACRAL])
                masks = Masks(
                    rendered.discs.with_array((rendered.discs.array > 0).astype(np.float32)),
                    rendered.levels.with_array(((values > 0) & ~sacral).astype(np.float32)),
                    rendered.thecal_sac,
                    rendered.levels.with_array(sacral.astype(np.float32)),
                )
                discs = {d.name: d.center_lps for d in phantom.truth.discs}
                group_label = f"drawn: phantoms, {field}, {_lumbar_group(count)}"
                tag = f"{count}-lumbar-{seed}-{field.split()[0]}-drawn"
                yield reference_case(tag, group_label, masks, discs)


def run_peers(cases: Sequence[Case], python: str) -> dict[str, Any]:
    """Return the results of the other programs, by name."""
    with tempfile.TemporaryDirectory() as place:
        for case in cases:
            write_case(case, Path(place))
        script = Path(__file__).with_name("numbering_peers.py")
        subprocess.run([python, str(script), place], check=True)
        results: dict[str, Any] = json.loads((Path(place) / "answers.json").read_text())
        return results


def summary(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return pooled results by group of cases and solver."""
    rows = []
    for key in dict.fromkeys((r["group"], r["solver"]) for r in results):
        solver_results = [r for r in results if (r["group"], r["solver"]) == key]
        rows.append(
            {
                "group": key[0],
                "solver": key[1],
                "spines": len(solver_results),
                "vertebrae": sum(r["true"] for r in solver_results),
                "correct": sum(r["correct"] for r in solver_results),
                "spines_all_correct": sum(r["all_correct"] for r in solver_results),
                "refused": sum(r["refused"] for r in solver_results),
                "confident_errors": sum(r["confident_error"] for r in solver_results),
            }
        )
    return rows


def measure(cases: Sequence[Case], peers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each case and solver."""
    rows = []
    for case in cases:
        case_columns = {"case": case.name, "group": case.group}
        named, confident = leakloc_names(case)
        row = score_names(named, case.truth, confident)
        rows.append({**case_columns, "solver": "leakloc", "refused": not named, **row})
        if case.group.startswith("drawn") and (anchor := find_landmark(case)):
            named, confident = leakloc_names(case, anchor)
            row = score_names(named, case.truth, confident)
            rows.append(
                {**case_columns, "solver": "leakloc, with landmark", "refused": not named, **row}
            )
        for peer, answers in peers.items():
            if "absent" in answers:
                continue
            answer = answers["cases"][case.name]
            named = [] if "refused" in answer else peer_names(case, peer, answer["answer"])
            row = score_names(named, case.truth, confident=True)  # no confidence reported
            rows.append({**case_columns, "solver": peer, "refused": not named, **row})
    return rows


def main() -> None:
    """Parse the command line, measure, print and write a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spider", type=Path, help="folder of SPIDER volumes")
    parser.add_argument("--phantoms", type=Path, nargs="*", default=[], help="folders of phantoms")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=DRAWN_SEEDS, help="seeds of drawn phantoms"
    )
    parser.add_argument("--peers", default=sys.executable, help="interpreter of their environment")
    parser.add_argument("-o", "--output", type=Path, help="record; default benchmarks/records")
    args = parser.parse_args()
    cases: list[Case] = []

    def collect(new_cases: Iterator[Case]) -> None:
        for case in new_cases:
            cases.append(case)
            print(f"{case.name}: {len(case.truth)} vertebrae", file=sys.stderr, flush=True)

    try:
        if args.spider:
            collect(spider_cases(args.spider))
        collect(phantom_cases(args.phantoms))
        collect(drawn_phantoms(args.seeds))
    except LeaklocError as error:
        sys.exit(f"numbering: {error}")
    peers = run_peers(cases, args.peers)
    for answers in peers.values():
        if "absent" in answers:
            print(answers["absent"], file=sys.stderr)
    rows = measure(cases, peers)
    pooled = sorted(summary(rows), key=lambda r: r["group"])
    for r in pooled:
        print(
            f"{r['group']:60} {r['solver']:14} vertebrae {r['correct']}/{r['vertebrae']}  spines "
            f"{r['spines_all_correct']}/{r['spines']}  refused {r['refused']}  confident errors "
            f"{r['confident_errors']}"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "date": now,
        "machine": machine(),
        "versions": {
            **versions(),
            **{peer: a["version"] for peer, a in peers.items() if "version" in a},
        },
        "absent": [a["absent"] for a in peers.values() if "absent" in a],
        "peers_seconds": {p: a["seconds"] for p, a in peers.items() if "seconds" in a},
        "confident_from": CONFIDENT,
        "summary": pooled,
        "cases": rows,
    }
    path = args.output or RECORDS / f"{now[:10]}-numbering.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {path}")


if __name__ == "__main__":
    main()
