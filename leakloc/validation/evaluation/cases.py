"""Comparison of one study with its ground truth: all metrics of one evaluation row.

Definitions follow Maier-Hein et al., Metrics reloaded, Nat Methods 2024;21:195. Results
on phantoms are upper bounds and do not apply to patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from leakloc.anatomy.vocabulary import Grade, with_neighbors
from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.loaders import put_on_grid
from leakloc.validation.evaluation.annotation import (
    MIN_COLLECTION_ML,
    AnnotatedCollection,
    Annotation,
)
from leakloc.validation.evaluation.metrics import assd_mm, dice, hd95_mm, match_collections

VERTEBRA_TOLERANCE_MM: Final = 10.0
"""Maximum distance of the centers for a vertebra of the same name to be correct."""

LANDMARK_TOLERANCE_MM: Final = {"hiatus": 5.0, "conus": 6.0}
"""Maximum error, in mm, of a landmark that counts as accurate."""

EXCLUDED_VERTEBRAE: Final = ("C1", "S2", "S3", "S4", "S5")
"""Vertebrae excluded from the evaluation: no disc of their own or no vertebral body."""

NAN: Final = float("nan")


@dataclass(frozen=True)
class Case:
    """Metrics of one study; NaN or empty if not applicable.

    Volumes in mL, lengths in mm. If exactly one mask is empty, ``fluid_hd95_mm`` is the diagonal
    of the field of view and ``fluid_distance_defined`` is False.
    """

    case: str
    group: str = ""
    """Group for pooling, such as the phantom scenario."""
    seed: int = -1
    error: str = ""
    """Reason why there is no result; empty if there is one."""
    refusal_correct: bool = True
    """Whether refusing or analyzing the study was correct."""
    sac_dice: float = NAN
    sac_hd95_mm: float = NAN
    sac_assd_mm: float = NAN
    sac_true_ml: float = NAN
    sac_detected_ml: float = NAN
    fluid_dice: float = NAN
    fluid_hd95_mm: float = NAN
    fluid_assd_mm: float = NAN
    fluid_distance_defined: bool = True
    fluid_true_ml: float = NAN
    fluid_detected_ml: float = NAN
    fluid_volume_error: float = NAN
    """(detected - true) / true volume of all collections."""
    true_collections: int = 0
    detected_collections: int = 0
    false_positive_collections: int = 0
    true_volumes_ml: tuple[float, ...] = ()
    true_detected: tuple[bool, ...] = ()
    confidences: tuple[float, ...] = ()
    """Confidence of each detected collection."""
    detections_correct: tuple[bool, ...] = ()
    """Whether each of these collections is a true positive."""
    grades: tuple[str, ...] = ()
    """Grade of each of these collections."""
    positions_compared: int = 0
    positions_correct: int = 0
    """Matched collections with the correct position around the sac."""
    notes: tuple[str, ...] = ()
    """Codes of the warnings."""
    leak_true: str = ""
    leak_reported: str = ""
    levels_compared: int = 0
    levels_exact: int = 0
    """Matched collections with the correct segment."""
    levels_within_one: int = 0
    level_sets_correct: int = 0
    """Matched collections whose set of segments contains the true one."""
    level_set_sizes: tuple[int, ...] = ()
    level_pairs: tuple[tuple[int, int], ...] = ()
    """Detected and true segment of each, as indices into the true sequence of segments."""
    segments_true: tuple[str, ...] = ()
    """Segments with true fluid, with detected fluid, and all in the field of view."""
    segments_detected: tuple[str, ...] = ()
    segments_in_field: tuple[str, ...] = ()
    sides_true_mm: tuple[float, ...] = ()
    sides_detected_mm: tuple[float, ...] = ()
    """Thickness of the epidural fluid on each side of each segment in the field of view; 0 without
    fluid."""
    extent_error_mm: float = NAN
    """|cranial end error| + |caudal end error| along the discs; maximum over collections."""
    extent_error_levels: float = NAN
    vertebrae_true: int = 0
    """Number of true vertebrae C2 to S1 with the center in the field of view."""
    vertebrae_correct: int = 0
    numbering_confidence: float = NAN
    transitional_true: bool = False
    transitional_detected: bool = False
    path_error_mm: float = NAN
    """Maximum error of the path length from the sacral hiatus, over matched collections."""
    hiatus_in_field: bool = False
    hiatus_error_mm: float = NAN
    """Distance of the detected apex of the sacral hiatus from the true one."""
    conus_in_field: bool = False
    conus_error_mm: float = NAN
    """Craniocaudal distance of the detected tip of the conus from the true one."""
    runtime_s: float = NAN
    patient: str = ""
    """Number of the patient whose anatomy is used; empty for a phantom."""

    def correct_of_grade(self, *grades: Grade) -> tuple[bool, ...]:
        """Return for each detected collection with one of the grades whether it is true."""
        pairs = zip(self.grades, self.detections_correct, strict=False)
        return tuple(correct for grade, correct in pairs if grade in grades)

    @property
    def definite_or_probable_false_positives(self) -> int:
        """Number of false positives graded definite or probable."""
        return self.correct_of_grade("definite", "probable").count(False)

    def row(self) -> dict[str, Any]:
        """Return plain values for CSV and JSON: tuples as lists, NaN as None."""
        return {f.name: _to_plain(getattr(self, f.name)) for f in fields(self)}


def failed_case(
    truth: Annotation | None, case: str, error: str, *, refusal_correct: bool = False
) -> Case:
    """Return the row of a study that was refused or has no result.

    Unless refusing was correct, all its collections count as missed.
    """
    missed = truth.reportable if truth is not None and not refusal_correct else ()
    return Case(
        case,
        error=error,
        refusal_correct=refusal_correct,
        true_collections=len(missed),
        true_volumes_ml=tuple(c.volume_ml for c in missed),
        true_detected=(False,) * len(missed),
        leak_true=(truth.leak or "") if truth is not None else "",
        leak_reported="refused",
        transitional_true=bool(truth.transitional) if truth is not None else False,
    )


def compare(
    predicted: Annotation, truth: Annotation, *, resample: bool = False, group: str = ""
) -> Case:
    """Compare a result with the ground truth in all available metrics.

    Parameters
    ----------
    predicted, truth : Annotation
    resample : bool
        Whether masks on another grid are resampled to that of the truth (nearest neighbor);
        if False they are rejected, because interpolation lowers Dice.
    group : str
        Group for pooling.

    Raises
    ------
    GeometryError
        If the masks are on different grids; the message describes the fix.
    """
    values: dict[str, Any] = {}
    pairs: dict[int, int] = {}
    false_positives: list[int] = []
    if predicted.thecal_sac is not None and truth.thecal_sac is not None:
        sac = match_grid(predicted.thecal_sac, truth.thecal_sac, "sac", resample=resample)
        values |= _sac(sac, truth.thecal_sac)
    if predicted.fluid is not None and truth.fluid is not None:
        fluid = match_grid(predicted.fluid, truth.fluid, "fluid", resample=resample)
        pairs, _, false_positives = match_collections(fluid, truth.fluid)
        values |= _fluid(fluid, truth.fluid, predicted, truth)
    values |= _detection(predicted, truth, pairs, false_positives)
    values |= _levels(predicted, truth, pairs)
    field_of = truth.thecal_sac or truth.fluid
    if truth.vertebrae and predicted.numbering_confidence is not None and field_of is not None:
        correct, total = _vertebrae(predicted.vertebrae, truth.vertebrae, field_of.geometry)
        values |= {"vertebrae_correct": correct, "vertebrae_true": total}
    if field_of is not None:
        values |= _landmarks(predicted, truth, field_of.geometry)
    if predicted.numbering_confidence is not None:
        values["numbering_confidence"] = predicted.numbering_confidence
    return Case(
        case=truth.case,
        group=group,
        notes=predicted.notes,
        leak_true=truth.leak or "",
        leak_reported=predicted.leak or "",
        transitional_true=bool(truth.transitional),
        transitional_detected=bool(predicted.transitional),
        **values,
    )


def match_grid(predicted: Volume, truth: Volume, what: str, *, resample: bool) -> Volume:
    """Return a mask on the voxel grid of the truth.

    Raises
    ------
    GeometryError
        If it is on another grid and `resample` is False, or at a different location.
    """
    resampled, notes = (
        put_on_grid(predicted, truth.geometry, f"predicted {what} mask", "true mask")
        if (predicted.array.any())
        else (_empty_mask(predicted, truth, resample), [])
    )
    if notes and not resample:
        raise GeometryError(_other_grid(predicted.geometry, truth.geometry, what))
    return resampled


def _empty_mask(predicted: Volume, truth: Volume, resample: bool) -> Volume:
    """Return an empty mask on the grid of the truth; the shapes must match unless resampled."""
    if not resample and sorted(predicted.geometry.shape) != sorted(truth.geometry.shape):
        raise GeometryError(_other_grid(predicted.geometry, truth.geometry, "(empty)"))
    return truth.with_array(np.zeros(truth.geometry.shape, predicted.array.dtype))


def _other_grid(predicted: Geometry, truth: Geometry, what: str) -> str:
    def size(geometry: Geometry) -> str:
        spacing = " x ".join(f"{mm:.3g}" for mm in geometry.spacing_ijk_mm)
        return f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm"

    return (
        f"the predicted {what} mask is on another grid ({size(predicted)}) than the true one "
        f"({size(truth)}): use the same grid, or add --resample (resample=True) to resample the "
        "prediction to the grid of the truth (nearest neighbor)"
    )


def _sac(predicted: Volume, truth: Volume) -> dict[str, Any]:
    unit = truth.geometry.voxel_volume_ml
    return {
        "sac_dice": dice(predicted.array > 0, truth.array > 0),
        "sac_hd95_mm": hd95_mm(predicted, truth),
        "sac_assd_mm": assd_mm(predicted, truth),
        "sac_true_ml": float(np.count_nonzero(truth.array)) * unit,
        "sac_detected_ml": float(np.count_nonzero(predicted.array)) * unit,
    }


def _fluid(
    predicted: Volume, truth: Volume, result: Annotation, true: Annotation
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    true_ml, predicted_ml = true.fluid_ml, result.fluid_ml
    if true_ml is not None and predicted_ml is not None:
        values |= {"fluid_true_ml": true_ml, "fluid_detected_ml": predicted_ml}
    if not true.reportable:
        return values  # no true fluid: evaluated as detection, not by Dice
    values["fluid_dice"] = dice(predicted.array > 0, truth.array > 0)
    if predicted.array.any():
        values["fluid_hd95_mm"] = hd95_mm(predicted, truth)
        values["fluid_assd_mm"] = assd_mm(predicted, truth)
    else:
        shape, spacing = truth.geometry.shape, truth.geometry.spacing_kji_mm
        values["fluid_hd95_mm"] = math.hypot(
            *(n * mm for n, mm in zip(shape, spacing, strict=True))
        )
        values["fluid_distance_defined"] = False
    if true_ml and predicted_ml is not None:
        values["fluid_volume_error"] = (predicted_ml - true_ml) / true_ml
    return values


def _detection(
    predicted: Annotation, truth: Annotation, pairs: dict[int, int], unmatched: list[int]
) -> dict[str, Any]:
    if predicted.fluid is None or truth.fluid is None:
        return {}
    reportable = truth.reportable
    sizes = {c.id: c.volume_ml for c in predicted.collections}
    # Small components of a mask are not counted; collections of a report always are.
    has_confidence = any(c.confidence is not None for c in predicted.collections)
    false = [n for n in unmatched if has_confidence or sizes.get(n, 0.0) >= MIN_COLLECTION_ML]
    confident = [c for c in predicted.collections if c.confidence is not None]
    return {
        "true_collections": len(reportable),
        "detected_collections": sum(c.id in pairs for c in reportable),
        "false_positive_collections": len(false),
        "true_volumes_ml": tuple(c.volume_ml for c in reportable),
        "true_detected": tuple(c.id in pairs for c in reportable),
        "confidences": tuple(c.confidence or 0.0 for c in confident),
        "detections_correct": tuple(c.id not in unmatched for c in confident),
        "grades": tuple(c.grade or "" for c in confident),
    }


def _levels(predicted: Annotation, truth: Annotation, pairs: dict[int, int]) -> dict[str, Any]:
    detected = {c.id: c for c in predicted.collections}
    matched = [
        (detected[pairs[c.id]], c)
        for c in truth.reportable
        if c.id in pairs and pairs[c.id] in detected
    ]
    chain = with_neighbors(list(truth.discs)) if truth.discs else ()
    sides = [f.position == t.position for f, t in matched if f.position and t.position]
    values: dict[str, Any] = {"positions_compared": len(sides), "positions_correct": sum(sides)}
    with_level = [(f, t) for f, t in matched if t.level is not None]
    if with_level:
        steps = [_level_difference(f.level, t.level, chain) for f, t in with_level]
        values |= {
            "levels_compared": len(with_level),
            "levels_exact": sum(step == 0 for step in steps),
            "levels_within_one": sum(step is not None and abs(step) <= 1 for step in steps),
            "level_sets_correct": sum(t.level in f.level_set for f, t in with_level),
            "level_set_sizes": tuple(len(f.level_set) for f, _ in with_level if f.level_set),
            "level_pairs": tuple(
                (chain.index(f.level), chain.index(t.level))
                for f, t in with_level
                if f.level in chain and t.level in chain
            ),
        }
    values |= _segments(predicted, truth)
    if predicted.fluid_mm:
        cells = [(name, side) for name, parts in truth.fluid_mm.items() for side in parts]
        values["sides_true_mm"] = tuple(truth.fluid_mm[name][side] for name, side in cells)
        values["sides_detected_mm"] = tuple(
            predicted.fluid_mm.get(name, {}).get(side, 0.0) for name, side in cells
        )
    errors = (_extent_error(f, t, truth.discs) for f, t in matched)
    ends = [error for error in errors if error is not None]
    if ends:
        values["extent_error_mm"] = max(end[0] for end in ends)
        values["extent_error_levels"] = max(end[1] for end in ends)
    paths = [
        abs(f.path_mm - t.path_mm)
        for f, t in matched
        if f.path_mm is not None and t.path_mm is not None
    ]
    values["path_error_mm"] = max(paths, default=NAN)
    return values


def _landmarks(predicted: Annotation, truth: Annotation, grid: Geometry) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if truth.hiatus_lps is not None:
        values["hiatus_in_field"] = bool(grid.contains(truth.hiatus_lps))
        if predicted.hiatus_lps is not None:
            gap = np.linalg.norm(predicted.hiatus_lps - truth.hiatus_lps)
            values["hiatus_error_mm"] = float(gap)
    if truth.conus_lps is not None:
        values["conus_in_field"] = bool(grid.contains(truth.conus_lps))
        if predicted.conus_lps is not None:
            gap = predicted.conus_lps[2] - truth.conus_lps[2]
            values["conus_error_mm"] = abs(float(gap))
    return values


def _segments(predicted: Annotation, truth: Annotation) -> dict[str, Any]:
    """Return the segments with fluid, as used for inter-reader kappa in the literature."""
    grid = truth.fluid or truth.thecal_sac
    sides = (*truth.collections, *predicted.collections)
    if grid is None or not truth.discs or any(c.segments is None for c in sides):
        return {}
    inside = tuple(
        name for name, center in truth.discs.items() if bool(grid.geometry.contains(center))
    )
    union = {n for c in truth.collections for n in c.segments or ()}
    detected = {n for c in predicted.collections for n in c.segments or ()}
    return {
        "segments_in_field": inside,
        "segments_true": tuple(n for n in inside if n in union),
        "segments_detected": tuple(n for n in inside if n in detected),
    }


def _level_difference(
    predicted: str | None, true: str | None, chain: tuple[str, ...]
) -> int | None:
    if predicted == true:
        return 0
    if predicted not in chain or true not in chain:
        return None
    return chain.index(predicted) - chain.index(true)


def _extent_error(
    predicted: AnnotatedCollection, true: AnnotatedCollection, discs: dict[str, FloatArray]
) -> tuple[float, float] | None:
    """Return the summed error of both ends along the disc centers, in mm and in levels."""
    ends = (predicted.cranial_lps, true.cranial_lps, predicted.caudal_lps, true.caudal_lps)
    if any(end is None for end in ends) or len(discs) < 2:
        return None
    line = np.array(list(discs.values()))
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = [_arc_length_at(np.asarray(end), line, arc) for end in ends]
    mm = abs(at[0] - at[1]) + abs(at[2] - at[3])
    level = np.interp(at, arc, np.arange(len(arc)))
    return mm, float(abs(level[0] - level[1]) + abs(level[2] - level[3]))


def _arc_length_at(point: FloatArray, line: FloatArray, arc: FloatArray) -> float:
    """Return the arc length of the point on a polyline nearest to `point`."""
    start, step = line[:-1], np.diff(line, axis=0)
    fraction = ((point - start) * step).sum(axis=1) / (step**2).sum(axis=1)
    fraction = fraction.clip(0, 1)
    gap = np.linalg.norm(start + fraction[:, None] * step - point, axis=1)
    best = int(gap.argmin())
    return float(arc[best] + fraction[best] * (arc[best + 1] - arc[best]))


def _vertebrae(
    predicted: dict[str, FloatArray], true: dict[str, FloatArray], geometry: Geometry
) -> tuple[int, int]:
    wanted = {
        name: center
        for name, center in true.items()
        if name not in EXCLUDED_VERTEBRAE and bool(geometry.contains(center))
    }
    correct = sum(
        name in predicted
        and float(np.linalg.norm(predicted[name] - center)) <= VERTEBRA_TOLERANCE_MM
        for name, center in wanted.items()
    )
    return correct, len(wanted)


def _to_plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value
