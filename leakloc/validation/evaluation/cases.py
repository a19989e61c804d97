"""One study compared with its truth: every figure of one row of an evaluation.

Definitions follow Maier-Hein et al., Metrics reloaded, Nat Methods 2024;21:195. Figures from
phantoms are upper bounds; they say nothing about patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from leakloc.anatomy.vocabulary import Grade, with_neighbors
from leakloc.core.errors import GeometryError
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.validation.evaluation.metrics import assd_mm, dice, hd95_mm, match_collections
from leakloc.validation.evaluation.reading import SMALLEST_COLLECTION_ML, ReadCollection, Reading

VERTEBRA_TOLERANCE_MM: Final = 10.0
"""A vertebra is right where its centre lies this near the true centre of the same name."""

UNJUDGED_VERTEBRAE: Final = ("C1", "S2", "S3", "S4", "S5")
"""Without discs of their own to be seen by, or without a body."""

NAN: Final = float("nan")


@dataclass(frozen=True)
class Case:
    """One study's figures; NaN or empty where a figure does not apply.

    Volumes mL, lengths mm. ``fluid_hd95_mm`` of two masks of which one is empty is the
    diagonal of the field, and ``fluid_distance_defined`` is False.
    """

    case: str
    group: str = ""
    """What it is pooled with, such as a phantom's scenario."""
    seed: int = -1
    error: str = ""
    """Why there is no result; empty where there is one."""
    refusal_right: bool = True
    """Whether refusing (or not) was the right answer."""
    sac_dice: float = NAN
    sac_hd95_mm: float = NAN
    sac_assd_mm: float = NAN
    sac_true_ml: float = NAN
    sac_found_ml: float = NAN
    fluid_dice: float = NAN
    fluid_hd95_mm: float = NAN
    fluid_assd_mm: float = NAN
    fluid_distance_defined: bool = True
    fluid_true_ml: float = NAN
    fluid_found_ml: float = NAN
    fluid_volume_error: float = NAN
    """(found - true) / true volume of all collections."""
    true_collections: int = 0
    found_collections: int = 0
    false_positive_collections: int = 0
    true_volumes_ml: tuple[float, ...] = ()
    true_were_found: tuple[bool, ...] = ()
    confidences: tuple[float, ...] = ()
    """Stated confidence of every collection found, and whether it is one."""
    were_right: tuple[bool, ...] = ()
    grades: tuple[str, ...] = ()
    """Grade of each of these collections."""
    positions_compared: int = 0
    positions_right: int = 0
    """Matched collections on the true side of the sac."""
    notes: tuple[str, ...] = ()
    """Codes of the warnings."""
    leak_true: str = ""
    leak_found: str = ""
    levels_compared: int = 0
    levels_exact: int = 0
    """Matched collections whose segment is the true one."""
    levels_within_one: int = 0
    level_sets_right: int = 0
    """Matched collections whose stated set of segments holds the true one."""
    level_set_sizes: tuple[int, ...] = ()
    level_pairs: tuple[tuple[int, int], ...] = ()
    """Found and true segment of each, as numbers in the true chain."""
    segments_true: tuple[str, ...] = ()
    """Segments that truly hold fluid, those said to, and all in the field."""
    segments_found: tuple[str, ...] = ()
    segments_in_field: tuple[str, ...] = ()
    extent_error_mm: float = NAN
    """|difference of upper ends| + |difference of lower ends| along the discs; worst collection."""
    extent_error_levels: float = NAN
    vertebrae_true: int = 0
    """True vertebrae C2 to S1 whose centres lie in the field."""
    vertebrae_right: int = 0
    numbering_confidence: float = NAN
    transitional_true: bool = False
    transitional_found: bool = False
    path_error_mm: float = NAN
    """Largest error of the way from the hiatus, over matched collections."""
    runtime_s: float = NAN
    patient: str = ""
    """Number of the real patient whose anatomy it shows; empty for a phantom."""

    def right_of_grade(self, *grades: Grade) -> tuple[bool, ...]:
        """Of every collection found with one of these grades, whether it is one."""
        pairs = zip(self.grades, self.were_right, strict=False)
        return tuple(right for grade, right in pairs if grade in grades)

    @property
    def firm_false_positives(self) -> int:
        """False positives that are graded definite or probable."""
        return self.right_of_grade("definite", "probable").count(False)

    def row(self) -> dict[str, Any]:
        """Plain values for CSV and JSON: tuples as lists, NaN as None."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def failed(
    truth: Reading | None,
    case: str,
    error: str,
    *,
    right: bool = False,
    group: str = "",
    seed: int = -1,
    patient: str = "",
    runtime_s: float = NAN,
) -> Case:
    """The row of a study that was refused or left without a result.

    Unless refusing was right, all its collections count as missed.
    """
    missed = truth.counted if truth is not None and not right else ()
    return Case(
        case,
        group,
        seed,
        error,
        refusal_right=right,
        patient=patient,
        true_collections=len(missed),
        true_volumes_ml=tuple(c.volume_ml for c in missed),
        true_were_found=(False,) * len(missed),
        leak_true=(truth.leak or "") if truth is not None else "",
        leak_found="refused",
        transitional_true=bool(truth.transitional) if truth is not None else False,
        runtime_s=runtime_s,
    )


def compare(
    found: Reading,
    truth: Reading,
    *,
    resample: bool = False,
    group: str = "",
    seed: int = -1,
    patient: str = "",
    refusal_right: bool = True,
    runtime_s: float = NAN,
) -> Case:
    """Every figure that both sides allow.

    Parameters
    ----------
    found, truth : Reading
    resample : bool
        Whether masks on another grid are put on the truth's, to the nearest label; without it
        they are refused, because interpolation costs Dice.

    Raises
    ------
    GeometryError
        If masks do not lie on one grid; the message says how to mend it.
    """
    values: dict[str, Any] = {}
    pairs: dict[int, int] = {}
    invented: list[int] = []
    if found.thecal_sac is not None and truth.thecal_sac is not None:
        sac = on_grid_of(found.thecal_sac, truth.thecal_sac, "sac", resample=resample)
        values |= _sac(sac, truth.thecal_sac)
    if found.fluid is not None and truth.fluid is not None:
        fluid = on_grid_of(found.fluid, truth.fluid, "fluid", resample=resample)
        pairs, _, invented = match_collections(fluid, truth.fluid)
        values |= _fluid(fluid, truth.fluid, found, truth)
    values |= _detection(found, truth, pairs, invented)
    values |= _levels(found, truth, pairs)
    field_of = truth.thecal_sac or truth.fluid
    if truth.vertebrae and found.numbering_confidence is not None and field_of is not None:
        right, total = _vertebrae(found.vertebrae, truth.vertebrae, field_of.geometry)
        values |= {"vertebrae_right": right, "vertebrae_true": total}
    if found.numbering_confidence is not None:
        values["numbering_confidence"] = found.numbering_confidence
    return Case(
        case=truth.case,
        group=group,
        seed=seed,
        patient=patient,
        refusal_right=refusal_right,
        notes=found.notes,
        leak_true=truth.leak or "",
        leak_found=found.leak or "",
        transitional_true=bool(truth.transitional),
        transitional_found=bool(found.transitional),
        runtime_s=runtime_s,
        **values,
    )


def on_grid_of(found: Volume, truth: Volume, what: str, *, resample: bool) -> Volume:
    """A mask voxel by voxel on the truth's grid.

    Raises
    ------
    GeometryError
        If it lies on another grid and `resample` is False, or elsewhere altogether.
    """
    from leakloc.loaders import put_on_grid

    moved, notes = (
        put_on_grid(found, truth.geometry, f"predicted {what} mask", "true mask")
        if (found.array.any())
        else (_emptied(found, truth, resample), [])
    )
    if notes and not resample:
        raise GeometryError(_other_grid(found.geometry, truth.geometry, what))
    return moved


def _emptied(found: Volume, truth: Volume, resample: bool) -> Volume:
    """An empty mask has no place: it must have the shape at least, unless resampling is asked."""
    if not resample and sorted(found.geometry.shape) != sorted(truth.geometry.shape):
        raise GeometryError(_other_grid(found.geometry, truth.geometry, "(empty)"))
    return truth.with_array(np.zeros(truth.geometry.shape, found.array.dtype))


def _other_grid(found: Geometry, truth: Geometry, what: str) -> str:
    def size(geometry: Geometry) -> str:
        spacing = " x ".join(f"{mm:.3g}" for mm in geometry.spacing_ijk_mm)
        return f"{' x '.join(map(str, geometry.shape))} voxels of {spacing} mm"

    return (
        f"the predicted {what} mask lies on another grid ({size(found)}) than the true one "
        f"({size(truth)}): compare on one grid, or add --resample (resample=True) to put the "
        "prediction on the truth's grid to the nearest label"
    )


def _sac(found: Volume, truth: Volume) -> dict[str, Any]:
    unit = truth.geometry.voxel_volume_ml
    return {
        "sac_dice": dice(found.array > 0, truth.array > 0),
        "sac_hd95_mm": hd95_mm(found, truth),
        "sac_assd_mm": assd_mm(found, truth),
        "sac_true_ml": float(np.count_nonzero(truth.array)) * unit,
        "sac_found_ml": float(np.count_nonzero(found.array)) * unit,
    }


def _fluid(found: Volume, truth: Volume, said: Reading, true: Reading) -> dict[str, Any]:
    values: dict[str, Any] = {}
    true_ml, found_ml = true.fluid_ml, said.fluid_ml
    if true_ml is not None and found_ml is not None:
        values |= {"fluid_true_ml": true_ml, "fluid_found_ml": found_ml}
    if not true.counted:
        return values  # nothing to overlap with: judged as detection, not by Dice
    values["fluid_dice"] = dice(found.array > 0, truth.array > 0)
    if found.array.any():
        values["fluid_hd95_mm"] = hd95_mm(found, truth)
        values["fluid_assd_mm"] = assd_mm(found, truth)
    else:
        shape, spacing = truth.geometry.shape, truth.geometry.spacing_kji_mm
        values["fluid_hd95_mm"] = math.hypot(
            *(n * mm for n, mm in zip(shape, spacing, strict=True))
        )
        values["fluid_distance_defined"] = False
    if true_ml and found_ml is not None:
        values["fluid_volume_error"] = (found_ml - true_ml) / true_ml
    return values


def _detection(
    found: Reading, truth: Reading, pairs: dict[int, int], invented: list[int]
) -> dict[str, Any]:
    if found.fluid is None or truth.fluid is None:
        return {}
    counted = truth.counted
    sizes = {c.id: c.volume_ml for c in found.collections}
    # A reader's specks are no inventions; what a report names is, whatever its size.
    named = any(c.confidence is not None for c in found.collections)
    false = [n for n in invented if named or sizes.get(n, 0.0) >= SMALLEST_COLLECTION_ML]
    confident = [c for c in found.collections if c.confidence is not None]
    return {
        "true_collections": len(counted),
        "found_collections": sum(c.id in pairs for c in counted),
        "false_positive_collections": len(false),
        "true_volumes_ml": tuple(c.volume_ml for c in counted),
        "true_were_found": tuple(c.id in pairs for c in counted),
        "confidences": tuple(c.confidence or 0.0 for c in confident),
        "were_right": tuple(c.id not in invented for c in confident),
        "grades": tuple(c.grade or "" for c in confident),
    }


def _levels(found: Reading, truth: Reading, pairs: dict[int, int]) -> dict[str, Any]:
    said = {c.id: c for c in found.collections}
    matched = [
        (said[pairs[c.id]], c) for c in truth.counted if c.id in pairs and pairs[c.id] in said
    ]
    chain = with_neighbors(list(truth.discs)) if truth.discs else ()
    sides = [f.position == t.position for f, t in matched if f.position and t.position]
    values: dict[str, Any] = {"positions_compared": len(sides), "positions_right": sum(sides)}
    named = [(f, t) for f, t in matched if t.level is not None]
    if named:
        steps = [_steps_apart(f.level, t.level, chain) for f, t in named]
        values |= {
            "levels_compared": len(named),
            "levels_exact": sum(step == 0 for step in steps),
            "levels_within_one": sum(step is not None and abs(step) <= 1 for step in steps),
            "level_sets_right": sum(t.level in f.level_set for f, t in named),
            "level_set_sizes": tuple(len(f.level_set) for f, _ in named if f.level_set),
            "level_pairs": tuple(
                (chain.index(f.level), chain.index(t.level))
                for f, t in named
                if f.level in chain and t.level in chain
            ),
        }
    values |= _segments(found, truth)
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


def _segments(found: Reading, truth: Reading) -> dict[str, Any]:
    """Fluid, segment by segment: what inter-reader kappas of the literature are about."""
    grid = truth.fluid or truth.thecal_sac
    sides = (*truth.collections, *found.collections)
    if grid is None or not truth.discs or any(c.segments is None for c in sides):
        return {}
    inside = tuple(
        name for name, center in truth.discs.items() if bool(grid.geometry.contains(center))
    )
    union = {n for c in truth.collections for n in c.segments or ()}
    said = {n for c in found.collections for n in c.segments or ()}
    return {
        "segments_in_field": inside,
        "segments_true": tuple(n for n in inside if n in union),
        "segments_found": tuple(n for n in inside if n in said),
    }


def _steps_apart(found: str | None, true: str | None, chain: tuple[str, ...]) -> int | None:
    if found == true:
        return 0
    if found not in chain or true not in chain:
        return None
    return chain.index(found) - chain.index(true)


def _extent_error(
    found: ReadCollection, true: ReadCollection, discs: dict[str, FloatArray]
) -> tuple[float, float] | None:
    """Errors of both ends added up, in mm and in levels, along the line of the discs."""
    ends = (found.cranial_lps, true.cranial_lps, found.caudal_lps, true.caudal_lps)
    if any(end is None for end in ends) or len(discs) < 2:
        return None
    line = np.array(list(discs.values()))
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = [_along(np.asarray(end), line, arc) for end in ends]
    mm = abs(at[0] - at[1]) + abs(at[2] - at[3])
    level = np.interp(at, arc, np.arange(len(arc)))
    return mm, float(abs(level[0] - level[1]) + abs(level[2] - level[3]))


def _along(point: FloatArray, line: FloatArray, arc: FloatArray) -> float:
    """Arc length of the point of a polyline that is nearest to `point`."""
    start, step = line[:-1], np.diff(line, axis=0)
    share = ((point - start) * step).sum(axis=1) / (step**2).sum(axis=1)
    share = share.clip(0, 1)
    gap = np.linalg.norm(start + share[:, None] * step - point, axis=1)
    best = int(gap.argmin())
    return float(arc[best] + share[best] * (arc[best + 1] - arc[best]))


def _vertebrae(
    found: dict[str, FloatArray], true: dict[str, FloatArray], geometry: Geometry
) -> tuple[int, int]:
    wanted = {
        name: center
        for name, center in true.items()
        if name not in UNJUDGED_VERTEBRAE and bool(geometry.contains(center))
    }
    right = sum(
        name in found and float(np.linalg.norm(found[name] - center)) <= VERTEBRA_TOLERANCE_MM
        for name, center in wanted.items()
    )
    return right, len(wanted)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
