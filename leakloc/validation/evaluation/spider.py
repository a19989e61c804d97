"""Evaluation of the analysis on the public lumbar volumes of SPIDER.

SPIDER: van der Graaf et al., Sci Data 2024;11:264, doi 10.1038/s41597-024-03090-w, CC BY 4.0.
The patients have no leak and the volumes no fat suppression: every detected collection is a
false positive, most likely epidural fat. Discs are numbered cranially from the lowest, as in the
data set; the canal is that of the data set, within its slab.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np

from leakloc.core.errors import InputError, LeaklocError, counted
from leakloc.core.volume import Volume
from leakloc.loaders import load_study
from leakloc.pipeline import analyze
from leakloc.validation.evaluation.annotation import Annotation, annotation_from_analysis
from leakloc.validation.evaluation.cases import LANDMARK_TOLERANCE_MM
from leakloc.validation.evaluation.cohort import as_text
from leakloc.validation.evaluation.metrics import dice
from leakloc.validation.evaluation.sheet import Tile, make_tile
from leakloc.validation.simulation.patients import SAC, list_patients, read_discs

if TYPE_CHECKING:
    from leakloc.core.clock import Progress
    from leakloc.core.settings import Settings
    from leakloc.pipeline import Analysis

DISC_TOLERANCE_MM: Final = 10.0
"""Maximum distance of the centers for a disc of the same name to be correct."""

LANDMARKS: Final = Path(__file__).with_name("spider_landmarks.json")
"""Sacral discs and caudal ends of the cord, annotated on images; see its `source`."""


@dataclass(frozen=True)
class SpiderCase:
    """Evaluation of one patient."""

    patient: str
    error: str
    discs_true: int
    discs_correct: int
    disc_error_mm: float | None
    """Median distance of the correct discs from the true centers."""
    numbering_confidence: float | None
    canal_dice: float | None
    leak_reported: str
    false_positives: int
    """Number of detected collections; all are false positives."""
    runtime_s: float
    sacral_error_mm: dict[str, float] = field(default_factory=dict)
    """In-plane distance of the sacral discs from the annotated ones, by name."""
    cord_error_mm: float | None = None
    """Height of the detected above the annotated end of the cord; None if either is missing."""
    cord_detected: bool = False
    hiatus_detected: bool = False


def evaluate_spider(
    folder: Path,
    settings: Settings,
    *,
    patients: Iterable[str] | None = None,
    tiles: list[Tile] | None = None,
    progress: Progress | None = None,
) -> tuple[SpiderCase, ...]:
    """Analyze each ``spider-NNN_T2SPACE.nii.gz`` of a folder and compare with its labels.

    Parameters
    ----------
    folder : Path
    settings : Settings
    patients : iterable of str, optional
        Patient numbers; all by default.
    tiles : list, optional
        Receives an image of each patient, for `contact_sheet`.
    progress : callable, optional

    Raises
    ------
    InputError
        If the folder contains no such volume.
    """
    present = list_patients(folder)
    wanted = present if patients is None else [n for n in present if n in set(patients)]
    if not wanted:
        raise InputError(f"{folder} contains none of the selected patients")
    cases = []
    for n, patient in enumerate(wanted):
        cases.append(_case(folder, patient, settings, tiles))
        if progress is not None:
            progress(f"patient {patient}", (n + 1) / len(wanted))
    return tuple(cases)


def spider_text(cases: Iterable[SpiderCase]) -> str:
    """Return cases and pooled metrics as aligned text."""
    cases = list(cases)
    lines = [
        "patient  discs correct  error mm  confidence  canal Dice  leak           detected     s"
    ]
    for c in cases:
        lines.append(
            f"{c.patient:7}  {c.discs_correct:6}/{c.discs_true:<6}"
            f"  {as_text(c.disc_error_mm, '.1f'):>8}"
            f"  {as_text(c.numbering_confidence, '.2f'):>10}  {as_text(c.canal_dice, '.3f'):>10}"
            f"  {c.leak_reported:13}  {c.false_positives:8}  {c.runtime_s:4.1f}  {c.error}"
        )
    total = sum(c.discs_true for c in cases)
    all_correct = sum(c.discs_correct == c.discs_true for c in cases)
    canal = [c.canal_dice for c in cases if c.canal_dice is not None]
    lines.append(
        f"{sum(c.discs_correct for c in cases)} of {counted(total, 'discs')} correct, "
        f"all of them in {all_correct} of {counted(len(cases), 'patients')}; "
        f"mean canal Dice {np.mean(canal) if canal else float('nan'):.3f}; "
        f"{sum(c.false_positives for c in cases)} false-positive collections; "
        f"leak reported as present in {sum(c.leak_reported == 'present' for c in cases)}."
    )
    sacral = [mm for c in cases for mm in c.sacral_error_mm.values()]
    cord = [abs(c.cord_error_mm) for c in cases if c.cord_error_mm is not None]
    if sacral:
        lines.append(
            f"Sacral discs ({len(sacral)}): median error {np.median(sacral):.1f} mm, "
            f"95th percentile {np.percentile(sacral, 95):.1f} mm."
        )
    if cord:
        limit_mm = LANDMARK_TOLERANCE_MM["conus"]
        lines.append(
            f"End of the cord detected in {sum(c.cord_detected for c in cases)} of {len(cases)}, "
            f"within {limit_mm:.0f} mm in {sum(mm <= limit_mm for mm in cord)} of {len(cord)}."
        )
    lines.append(f"Hiatus reported as detected in {sum(c.hiatus_detected for c in cases)}.")
    return "\n".join(lines)


def _case(folder: Path, patient: str, settings: Settings, tiles: list[Tile] | None) -> SpiderCase:
    centers = read_discs(folder, patient)
    start = time.perf_counter()
    try:
        study = load_study(folder / f"spider-{patient}_T2SPACE.nii.gz", settings.loaders)
        analysis = analyze(study, settings)
    except LeaklocError as error:
        return SpiderCase(
            patient, str(error), len(centers), 0, None, None, None, "refused", 0,
            time.perf_counter() - start,
        )  # fmt: skip
    runtime_s = time.perf_counter() - start
    detected = {d.name: d.center_lps for d in analysis.levels.discs}
    errors = {
        name: float(np.linalg.norm(detected[name] - center))
        for name, center in centers.items()
        if name in detected
    }
    correct = [mm for mm in errors.values() if mm <= DISC_TOLERANCE_MM]
    mask: Any = nib.load(folder / f"spider-{patient}_mask.nii.gz")
    canal = Volume.from_nibabel(mask)
    sac = analysis.segmentation.thecal_sac.resample(canal.geometry, order=0)
    if tiles is not None:
        truth = Annotation("", canal.with_array((canal.array == SAC).astype(np.uint8)))
        result = annotation_from_analysis(analysis)
        tiles.append(make_tile(patient, analysis.triage.myelogram, result, truth))
    return SpiderCase(
        patient=patient,
        error="",
        discs_true=len(centers),
        discs_correct=len(correct),
        disc_error_mm=float(np.median(correct)) if correct else None,
        numbering_confidence=analysis.levels.numbering.confidence,
        canal_dice=dice(sac.array > 0, canal.array == SAC),
        leak_reported=analysis.localization.finding.leak,
        false_positives=len(analysis.localization.collections),
        runtime_s=runtime_s,
        hiatus_detected=analysis.localization.planning.sacral_hiatus.visible,
        **_landmark_errors(patient, analysis),
    )


def _landmark_errors(patient: str, analysis: Analysis) -> dict[str, Any]:
    """Return the errors relative to the annotated landmarks of a patient."""
    annotated = json.loads(LANDMARKS.read_text())["patients"].get(patient, {})
    detected = {d.name: d.center_lps for d in analysis.levels.discs}
    sacral = {
        name: float(np.hypot(*(detected[name][1:] - np.array(yz))))
        for name, yz in annotated.get("sacral_discs_yz_mm", {}).items()
        if name in detected
    }
    conus = analysis.localization.conus
    end_mm = annotated.get("cord_end_z_mm")
    return {
        "sacral_error_mm": sacral,
        "cord_error_mm": float(conus.lps_mm[2] - end_mm) if conus and end_mm is not None else None,
        "cord_detected": conus is not None,
    }


def spider_json(cases: Iterable[SpiderCase]) -> str:
    """Return the cases as a JSON list."""
    return json.dumps([asdict(c) for c in cases], indent=2)
