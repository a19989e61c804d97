"""Evaluation of many cases: pooled metrics with intervals, as text, CSV, JSON, figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.core.errors import OutputError
from leakloc.core.extras import LazyModule
from leakloc.validation.evaluation.agreement import (
    BlandAltman,
    Reliability,
    bland_altman,
    icc_2_1,
    mean_interval,
    reliability,
    weighted_kappa,
    wilson_interval,
)
from leakloc.validation.evaluation.cases import LANDMARK_TOLERANCE_MM, Case

if TYPE_CHECKING:
    from leakloc.validation.evaluation import figures
else:  # needs matplotlib
    figures = LazyModule("leakloc.validation.evaluation.figures", "figures")

VOLUME_STRATA_ML: Final = ((0.0, 1.0), (1.0, 5.0), (5.0, 20.0), (20.0, math.inf))
"""Strata of true volume in which detection is reported."""

PHANTOM_CAVEAT: Final = "Phantoms only; no clinical validation."


@dataclass(frozen=True)
class Cohort:
    """All cases of an evaluation.

    Parameters
    ----------
    cases : tuple of Case
    caveat : str
        Limitation that is printed with the results.
    """

    cases: tuple[Case, ...]
    caveat: str = ""

    @property
    def completed(self) -> tuple[Case, ...]:
        """Cases with a result."""
        return tuple(c for c in self.cases if not c.error)

    @property
    def evaluated(self) -> tuple[Case, ...]:
        """Cases that should have a result; failures count as missed."""
        return tuple(c for c in self.cases if not c.error or not c.refusal_correct)

    def groups(self) -> dict[str, Cohort]:
        """Return the cases by group, in input order."""
        names = dict.fromkeys(c.group for c in self.cases)
        return {n: Cohort(tuple(c for c in self.cases if c.group == n)) for n in names}

    @property
    def volume_agreement(self) -> BlandAltman:
        """Bland-Altman of fluid volume, mL, over studies with detected or true fluid."""
        detected, true = self._volumes()
        return bland_altman(detected, true)

    @property
    def reliability(self) -> Reliability:
        """Confidence of the detected collections against their correctness."""
        return reliability(
            [p for c in self.completed for p in c.confidences],
            [y for c in self.completed for y in c.detections_correct],
        )

    @property
    def numbering_reliability(self) -> Reliability:
        """Confidence of the numbering against all vertebrae of the study being correct."""
        numbered = [c for c in self.completed if c.vertebrae_true]
        return reliability(
            [c.numbering_confidence for c in numbered],
            [c.vertebrae_correct == c.vertebrae_true for c in numbered],
        )

    def detected_and_true(self) -> tuple[int, int]:
        """Return the numbers of true collections that were detected, and of all of them."""
        evaluated = self.evaluated
        return sum(c.detected_collections for c in evaluated), sum(
            c.true_collections for c in evaluated
        )

    def detection_by_volume(self) -> list[tuple[str, int, int]]:
        """Return the volume stratum, detected collections, and true collections of each row."""
        sizes = [
            (ml, hit)
            for c in self.evaluated
            for ml, hit in zip(c.true_volumes_ml, c.true_detected, strict=True)
        ]
        rows = []
        for low, high in VOLUME_STRATA_ML:
            hits = [hit for ml, hit in sizes if low <= ml < high]
            rows.append((_stratum(low, high), sum(hits), len(hits)))
        return rows

    def dice_by_volume(self) -> dict[str, float | None]:
        """Return the mean fluid Dice of the studies by true fluid volume."""
        return {
            _stratum(low, high): _mean(
                c.fluid_dice for c in self.completed if low <= c.fluid_true_ml < high
            )
            for low, high in VOLUME_STRATA_ML
        }

    def summary(self) -> dict[str, Any]:
        """Return the pooled metrics; None if undefined."""
        completed = self.completed
        detected, true = self.detected_and_true()
        free = [c for c in self.evaluated if c.leak_true == "absent"]
        leaking = [c for c in self.evaluated if c.leak_true == "present"]
        compared = sum(c.levels_compared for c in completed)
        vertebrae = sum(c.vertebrae_true for c in completed)
        volumes, calibration = self.volume_agreement, self.reliability
        pairs = [pair for c in completed for pair in c.level_pairs]
        sets = [size for c in completed for size in c.level_set_sizes]
        votes = [
            (name in c.segments_detected, name in c.segments_true)
            for c in completed
            for name in c.segments_in_field
        ]
        sides = [
            pair
            for c in completed
            for pair in zip(c.sides_detected_mm, c.sides_true_mm, strict=True)
        ]
        both = [abs(found - true) for found, true in sides if found and true]
        n_true_positives = sum(c.leak_reported == "present" for c in leaking)
        n_true_negatives = sum(c.leak_reported == "absent" for c in free)
        definite = [correct for c in completed for correct in c.correct_of_grade("definite")]
        return {
            "cases": len(self.cases),
            "n_failures": sum(not c.refusal_correct for c in self.cases),
            "sac_dice": _mean(c.sac_dice for c in completed),
            "sac_dice_95_interval": _interval(c.sac_dice for c in completed),
            "sac_hd95_mm": _mean(c.sac_hd95_mm for c in completed),
            "sac_assd_mm": _mean(c.sac_assd_mm for c in completed),
            "sac_volume_error_abs": _mean(
                abs(c.sac_detected_ml / c.sac_true_ml - 1) for c in completed if c.sac_true_ml > 0
            ),
            "fluid_dice": _mean(c.fluid_dice for c in completed),
            "fluid_dice_95_interval": _interval(c.fluid_dice for c in completed),
            "fluid_dice_over_5_ml": _mean(c.fluid_dice for c in completed if c.fluid_true_ml > 5.0),
            "fluid_dice_by_volume": self.dice_by_volume(),
            "fluid_hd95_mm": _mean(c.fluid_hd95_mm for c in completed if c.fluid_distance_defined),
            "fluid_assd_mm": _mean(c.fluid_assd_mm for c in completed),
            "fluid_distance_undefined": sum(not c.fluid_distance_defined for c in completed),
            "fluid_volume_error_abs": _mean(abs(c.fluid_volume_error) for c in completed),
            "fluid_volume_bias_ml": _none_if_nan(volumes.bias),
            "fluid_volume_limits_ml": [_none_if_nan(volumes.low), _none_if_nan(volumes.high)],
            "fluid_volume_icc": _none_if_nan(icc_2_1(*self._volumes())),
            "collections_detected": f"{detected}/{true}",
            "collections_detected_95_interval": wilson_interval(detected, true),
            "collections_detected_by_volume": {
                name: f"{hits}/{n}" for name, hits, n in self.detection_by_volume()
            },
            "false_positive_collections": sum(c.false_positive_collections for c in completed),
            "false_positives_per_leak_free_study": _mean(
                c.false_positive_collections for c in free if not c.error
            ),
            "definite_or_probable_false_positives": sum(
                c.definite_or_probable_false_positives for c in completed
            ),
            "definite_or_probable_false_positives_per_leak_free_study": _mean(
                c.definite_or_probable_false_positives for c in free if not c.error
            ),
            "false_positive_ml_per_leak_free_study": _mean(c.fluid_detected_ml for c in free),
            "definite_false_positives": f"{definite.count(False)}/{len(definite)}",
            "position_correct": _ratio(
                sum(c.positions_correct for c in completed),
                sum(c.positions_compared for c in completed),
            ),
            "leak_status": dict(Counter(c.leak_reported for c in self.cases if c.leak_reported)),
            "notes": dict(Counter(code for c in completed for code in sorted(set(c.notes)))),
            "leak_correct": _mean(
                c.leak_true == c.leak_reported for c in self.evaluated if c.leak_true
            ),
            "sensitivity": f"{n_true_positives}/{len(leaking)}",
            "sensitivity_95_interval": wilson_interval(n_true_positives, len(leaking)),
            "specificity": f"{n_true_negatives}/{len(free)}",
            "specificity_95_interval": wilson_interval(n_true_negatives, len(free)),
            "level_exact": _ratio(sum(c.levels_exact for c in completed), compared),
            "level_within_one": _ratio(sum(c.levels_within_one for c in completed), compared),
            "level_set_correct": _ratio(sum(c.level_sets_correct for c in completed), len(sets)),
            "level_set_size": _mean(sets),
            "level_weighted_kappa": _none_if_nan(
                weighted_kappa([f for f, _ in pairs], [t for _, t in pairs])
            ),
            "segment_by_segment_kappa": _none_if_nan(
                weighted_kappa([int(f) for f, _ in votes], [int(t) for _, t in votes])
            ),
            "side_kappa": _none_if_nan(
                weighted_kappa([int(f > 0) for f, _ in sides], [int(t > 0) for _, t in sides])
            ),
            "side_thickness_error_mm": _mean(both),
            "side_thickness_within_1_mm": _ratio(sum(mm <= 1.0 for mm in both), len(both)),
            "segment_sets_jaccard": _mean(_jaccard(c) for c in completed),
            "extent_error_mm": _mean(c.extent_error_mm for c in completed),
            "extent_error_levels": _mean(c.extent_error_levels for c in completed),
            "vertebrae_correct": _ratio(sum(c.vertebrae_correct for c in completed), vertebrae),
            "studies_numbered_correctly": _mean(
                c.vertebrae_correct == c.vertebrae_true for c in completed if c.vertebrae_true
            ),
            "path_error_mm": _mean(c.path_error_mm for c in completed),
            **self._landmarks(),
            "confidence_brier": _none_if_nan(calibration.brier),
            "confidence_calibration_error": _none_if_nan(calibration.calibration_error),
            "runtime_s": _mean(c.runtime_s for c in completed),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return cases and summary as plain values; NaN as None."""
        return {
            "caveat": self.caveat,
            "cases": [c.row() for c in self.cases],
            "summary": self.summary(),
        }

    def to_json(self) -> str:
        """Return cases and summary as JSON; NaN as null."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """Return the cases as CSV, one per row; multiple values separated by semicolons."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(Case("").row()), lineterminator="\n")
        writer.writeheader()
        for case in self.cases:
            writer.writerow({name: _cell(value) for name, value in case.row().items()})
        return stream.getvalue()

    def to_text(self) -> str:
        """Return a table of means by group with pooled metrics, as text."""
        named = [(name or "-", part) for name, part in self.groups().items()]
        if len(named) == 1:
            named = [(c.case, Cohort((c,))) for c in self.cases]
        table = table_lines(_COLUMNS, [(n, p.summary()) for n, p in (*named, ("all", self))])
        problems = [
            f"{c.case}: {c.error or 'analyzed, but should have been refused'}"
            for c in self.cases
            if not c.refusal_correct
        ]
        return "\n".join([*table, *problems, *self._summary_lines()])

    def save(self, folder: Path) -> tuple[Path, ...]:
        """Write ``cases.csv``, ``evaluation.json``, ``evaluation.txt`` and the figures.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        files: dict[str, bytes] = {
            "cases.csv": self.to_csv().encode(),
            "evaluation.json": self.to_json().encode(),
            "evaluation.txt": (self.to_text() + "\n").encode(),
            **{f"{name}.png": png for name, png in figures.cohort_figures(self).items()},
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
        return tuple(folder / name for name in files)

    def _volumes(self) -> tuple[list[float], list[float]]:
        with_fluid = [c for c in self.completed if c.fluid_true_ml > 0 or c.fluid_detected_ml > 0]
        return [c.fluid_detected_ml for c in with_fluid], [c.fluid_true_ml for c in with_fluid]

    def _landmarks(self) -> dict[str, str]:
        """Detected landmarks of those in the field, and how many of them are accurate."""
        counts = {}
        for name, limit_mm in LANDMARK_TOLERANCE_MM.items():
            visible = [c for c in self.completed if getattr(c, f"{name}_in_field")]
            values = [getattr(c, f"{name}_error_mm") for c in visible]
            errors_mm = [mm for mm in values if not math.isnan(mm)]
            counts[f"{name}_detected"] = f"{len(errors_mm)}/{len(visible)}"
            accurate = sum(mm <= limit_mm for mm in errors_mm)
            counts[f"{name}_within_{limit_mm:.0f}_mm"] = f"{accurate}/{len(errors_mm)}"
        return counts

    def _summary_lines(self) -> list[str]:
        s = self.summary()
        lines = []
        if s["collections_detected"] != "0/0":
            low, high = s["collections_detected_95_interval"]
            strata = ", ".join(f"{k} {v}" for k, v in s["collections_detected_by_volume"].items())
            lines.append(
                f"collections detected {s['collections_detected']} "
                f"(95 % interval {low:.0%}-{high:.0%}): "
                f"{strata}; false positives {s['false_positive_collections']}"
            )
        for name in ("sensitivity", "specificity"):
            if not s[name].endswith("/0"):
                low, high = s[f"{name}_95_interval"]
                lines.append(f"{name} by study {s[name]} (95 % interval {low:.0%}-{high:.0%})")
        if s["fluid_volume_bias_ml"] is not None and s["fluid_volume_limits_ml"][0] is not None:
            low, high = s["fluid_volume_limits_ml"]
            lines.append(
                f"fluid volume: bias {s['fluid_volume_bias_ml']:+.2f} mL, limits of agreement "
                f"{low:+.2f} to {high:+.2f} mL, ICC(2,1) {as_text(s['fluid_volume_icc'], '.3f')}"
            )
        if s["level_exact"] is not None:
            lines.append(
                f"levels: weighted kappa {as_text(s['level_weighted_kappa'], '.2f')}, segment by "
                f"segment {as_text(s['segment_by_segment_kappa'], '.2f')}; extent error "
                f"{as_text(s['extent_error_mm'], '.1f')} mm; set of levels contains the true one "
                f"in {as_text(s['level_set_correct'], '.0%')}, "
                f"{as_text(s['level_set_size'], '.2f')} "
                "segments on average"
            )
        for name, limit_mm in LANDMARK_TOLERANCE_MM.items():
            if not s[f"{name}_detected"].endswith("/0"):
                lines.append(
                    f"{name} detected in {s[f'{name}_detected']} that show it, "
                    f"{s[f'{name}_within_{limit_mm:.0f}_mm']} within {limit_mm:.0f} mm"
                )
        if s["confidence_brier"] is not None:
            lines.append(
                f"confidence of collections: Brier {s['confidence_brier']:.3f}, calibration error "
                f"{s['confidence_calibration_error']:.3f}"
            )
        return [*lines, self.caveat] if self.caveat else lines


_COLUMNS: Final = (
    ("cases", "cases", ""), ("sac Dice", "sac_dice", ".3f"), ("HD95", "sac_hd95_mm", ".1f"),
    ("ASSD", "sac_assd_mm", ".2f"), ("fluid Dice", "fluid_dice", ".3f"),
    ("HD95", "fluid_hd95_mm", ".1f"), ("volume", "fluid_volume_error_abs", ".0%"),
    ("detected", "collections_detected", ""), ("false positives", "false_positive_collections", ""),
    ("leak correct", "leak_correct", ".0%"), ("level", "level_exact", ".0%"),
    ("within 1", "level_within_one", ".0%"), ("vertebrae", "vertebrae_correct", ".1%"),
    ("path mm", "path_error_mm", ".1f"), ("s", "runtime_s", ".1f"),
)  # fmt: skip
"""Title, key in `Cohort.summary` and format of each column."""


def table_lines(
    columns: Sequence[tuple[str, str, str]], summaries: Iterable[tuple[str, dict[str, Any]]]
) -> list[str]:
    """Return a table of named summaries; each column has a title, a key and a format."""
    rows = [["", *(title for title, _, _ in columns)]]
    for name, summary in summaries:
        rows.append([name, *(as_text(summary[key], style) for _, key, style in columns)])
    return align_columns(rows)


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return table lines: first column left-aligned, all others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _stratum(low_ml: float, high_ml: float) -> str:
    return f"> {low_ml:g} mL" if math.isinf(high_ml) else f"{low_ml:g}-{high_ml:g} mL"


def _jaccard(case: Case) -> float:
    true, detected = set(case.segments_true), set(case.segments_detected)
    return len(true & detected) / len(true | detected) if true | detected else math.nan


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join("/".join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
    return value


def _mean(values: Iterable[float]) -> float | None:
    known = [float(v) for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else None


def _interval(values: Iterable[float]) -> list[float | None]:
    return [_none_if_nan(end) for end in mean_interval([float(v) for v in values])]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def as_text(value: float | None, style: str) -> str:
    """Return a formatted value, or a dash if it is None."""
    return "-" if value is None else format(value, style)
