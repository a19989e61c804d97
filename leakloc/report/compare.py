"""Comparison of two reports of a patient, for example before and after a blood patch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from leakloc.anatomy.vocabulary import Position
from leakloc.localization.result import Collection
from leakloc.report.model import Report

Change = Literal["new", "gone", "larger", "smaller", "unchanged", "unknown"]

STEADY_FRACTION: Final = 0.2
STEADY_ML: Final = 0.5
"""Volume differences below this fraction of the larger volume, or below this volume in mL, are
reported as unchanged: approximately the volume error of leakloc on phantoms (README)."""

RESIDUAL: Final = "Residual fluid alone does not indicate failure of a treatment."
"""Fluid remained in 4 of 16 patients after a blood patch, two of them without symptoms."""

_SIDE_WEIGHT: Final = 0.5
"""Matching weight of a collection on another side of the sac."""


@dataclass(frozen=True)
class CollectionChange:
    """Change of one collection between the reports; it may be in only one of them.

    Parameters
    ----------
    before, after : int or None
        Ids in the reports; None if not in the report.
    levels : tuple
        Level before and after; None if unknown or not in the report.
    segments_gained, segments_lost : tuple of str
        Motion segments involved only after or only before.
    """

    before: int | None
    after: int | None
    change: Change
    levels: tuple[str | None, str | None]
    positions: tuple[Position | None, Position | None]
    volumes_ml: tuple[float | None, float | None]
    lengths_mm: tuple[float | None, float | None]
    thicknesses_mm: tuple[float | None, float | None]
    segments_gained: tuple[str, ...]
    segments_lost: tuple[str, ...]

    @property
    def text(self) -> str:
        """One-line description of the change."""
        place = self.levels[1] or self.levels[0] or "level unknown"
        if self.levels[0] and self.levels[1] and self.levels[0] != self.levels[1]:
            place = f"{self.levels[0]} -> {self.levels[1]}"
        side = self.positions[1] or self.positions[0] or ""
        parts = [
            f"{place} {side}: {self.change}",
            f"volume {_pair(self.volumes_ml, 'mL')}{_percent(self.volumes_ml)}",
            f"length {_pair(self.lengths_mm, 'mm', 0)}",
            f"thickness {_pair(self.thicknesses_mm, 'mm')}",
        ]
        parts += [f"gained {', '.join(self.segments_gained)}"] if self.segments_gained else []
        parts += [f"lost {', '.join(self.segments_lost)}"] if self.segments_lost else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """Differences between two reports.

    Parameters
    ----------
    same_patient : bool or None
        None if a report contains no patient ID or the IDs are not comparable.
    segments_with_fluid : tuple of int or None
        Number of motion segments with epidural fluid before and after.
    fluid_ml : tuple of float
        Volume of all collections before and after.
    cautions : tuple of str
        Limitations of the comparison.
    """

    same_patient: bool | None
    findings: tuple[str, str]
    collections: tuple[CollectionChange, ...]
    segments_with_fluid: tuple[int | None, int | None]
    fluid_ml: tuple[float, float]
    sac_csf_ml: tuple[float | None, float | None]
    cautions: tuple[str, ...]
    notice: str

    @property
    def text(self) -> str:
        """The comparison as text."""
        lines = [f"before: {self.findings[0]}", f"after:  {self.findings[1]}"]
        lines += [f"  {change.text}" for change in self.collections]
        if not self.collections:
            lines.append("  no collection in either report")
        counts = ["-" if n is None else str(n) for n in self.segments_with_fluid]
        lines.append(f"  motion segments with fluid: {counts[0]} -> {counts[1]}")
        lines.append(f"  all fluid: {_pair(self.fluid_ml, 'mL')}{_percent(self.fluid_ml)}")
        lines.append(f"  CSF in the sac: {_pair(self.sac_csf_ml, 'mL')}{_percent(self.sac_csf_ml)}")
        if all(self.fluid_ml):
            lines.append(f"  {RESIDUAL}")
        lines += [f"caution: {caution}" for caution in self.cautions]
        return "\n".join([*lines, self.notice])

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary."""
        return asdict(self)


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports of a patient, such as before and after a blood patch.

    Collections are matched by the overlap of their motion segments, preferably on the same side
    of the sac. Level names are compared as reported: with a different numbering, the same name
    is a different level.

    Parameters
    ----------
    before, after : Report

    Examples
    --------
    >>> from leakloc import Report
    >>> compare(Report.load("before"), Report.load("after")).text  # doctest: +SKIP
    """
    pairs = _matched_pairs(before.collections, after.collections)
    old = {c.id: c for c in before.collections}
    new = {c.id: c for c in after.collections}
    changes = [_change(old[a], new[b]) for a, b in pairs]
    changes += [_change(c, None) for n, c in old.items() if n not in {a for a, _ in pairs}]
    changes += [_change(None, c) for n, c in new.items() if n not in {b for _, b in pairs}]
    return Comparison(
        same_patient=_same_patient(before, after),
        findings=(before.finding.summary, after.finding.summary),
        collections=tuple(changes),
        segments_with_fluid=(
            before.finding.segments_with_fluid,
            after.finding.segments_with_fluid,
        ),
        fluid_ml=(_total_ml(before), _total_ml(after)),
        sac_csf_ml=(before.thecal_sac.csf_volume_ml, after.thecal_sac.csf_volume_ml),
        cautions=tuple(_cautions(before, after)),
        notice=after.notice,
    )


def _total_ml(report: Report) -> float:
    return sum(collection.volume_ml or 0.0 for collection in report.collections)


def _matched_pairs(
    before: tuple[Collection, ...], after: tuple[Collection, ...]
) -> list[tuple[int, int]]:
    """Match collections one to one: pairs of ids, in order of decreasing overlap."""
    scores = {
        (a.id, b.id): _similarity(a, b)
        for a in before
        for b in after
        if set(a.segments) & {*b.segments}
    }
    pairs: list[tuple[int, int]] = []
    for one, two in sorted(scores, key=lambda pair: -scores[pair]):
        if all(one != a and two != b for a, b in pairs):
            pairs.append((one, two))
    return pairs


def _similarity(one: Collection, two: Collection) -> float:
    shared, all_ = {*one.segments} & {*two.segments}, {*one.segments} | {*two.segments}
    same_side = one.position.label == two.position.label
    return len(shared) / len(all_) * (1.0 if same_side else _SIDE_WEIGHT)


def _change(old: Collection | None, new: Collection | None) -> CollectionChange:
    volumes = (_measurement(old, "volume_ml"), _measurement(new, "volume_ml"))
    change: Change = "new" if old is None else "gone" if new is None else _direction(volumes)
    before, after = (() if c is None else c.segments for c in (old, new))
    both = old is not None and new is not None
    return CollectionChange(
        before=None if old is None else old.id,
        after=None if new is None else new.id,
        change=change,
        levels=(None if old is None else old.level, None if new is None else new.level),
        positions=(
            None if old is None else old.position.label,
            None if new is None else new.position.label,
        ),
        volumes_ml=volumes,
        lengths_mm=(
            _measurement(old and old.extent, "length_mm"),
            _measurement(new and new.extent, "length_mm"),
        ),
        thicknesses_mm=(
            _measurement(old, "max_thickness_mm"),
            _measurement(new, "max_thickness_mm"),
        ),
        segments_gained=_difference(after, before) if both else (),
        segments_lost=_difference(before, after) if both else (),
    )


def _measurement(part: object, name: str) -> float | None:
    """Return a measurement, or None if there is no collection."""
    value: float | None = getattr(part, name, None)
    return value


def _difference(segments: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(segment for segment in segments if segment not in others)


def _direction(volumes: tuple[float | None, float | None]) -> Change:
    before, after = volumes
    if before is None or after is None:
        return "unknown"
    if abs(after - before) < max(STEADY_ML, STEADY_FRACTION * max(before, after)):
        return "unchanged"
    return "larger" if after > before else "smaller"


def _same_patient(before: Report, after: Report) -> bool | None:
    one, two = before.study, after.study
    if one.patient_id is None or two.patient_id is None or one.identity != two.identity:
        return None
    return one.patient_id == two.patient_id


def _cautions(before: Report, after: Report) -> list[str]:
    found = []
    same = _same_patient(before, after)
    if same is False:
        found.append("the reports have different patient IDs")
    elif same is None:
        found.append("the reports do not show whether they are of the same patient")
    dates = before.study.study_date, after.study.study_date
    if dates[0] and dates[1] and dates[0] > dates[1]:
        found.append("the first report is of the later study")
    one, two = before.levels.numbering, after.levels.numbering
    if (one.method, one.lumbar_count) != (two.method, two.lumbar_count):
        found.append(
            f"different level numbering: {one.assumption}, versus {two.assumption}; "
            "the same name may mean different levels"
        )
    if before.generator.version != after.generator.version:
        found.append("created with different versions of leakloc")
    if before.generator.config_sha256 != after.generator.config_sha256:
        found.append("analyzed with different settings")
    spans = before.quality.coverage, after.quality.coverage
    if (spans[0].cranial, spans[0].caudal) != (spans[1].cranial, spans[1].caudal):
        found.append(
            f"the fields of view differ ({spans[0].cranial} to {spans[0].caudal}, "
            f"{spans[1].cranial} to {spans[1].caudal}): findings outside are unknown"
        )
    return found


def _pair(values: tuple[float | None, float | None], unit: str, digits: int = 1) -> str:
    shown = ["-" if value is None else f"{value:.{digits}f}" for value in values]
    return f"{shown[0]} -> {shown[1]} {unit}"


def _percent(values: tuple[float | None, float | None]) -> str:
    before, after = values
    return f" ({(after - before) / before:+.0%})" if before and after is not None else ""
