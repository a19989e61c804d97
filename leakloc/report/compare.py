"""Comparison of two reports of a patient, for example before and after a blood patch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from leakloc.anatomy.vocabulary import SIDES, Position, split_segment, vertebra_chain
from leakloc.localization.result import Collection, SegmentFluid
from leakloc.report.csf_reference import ReferenceVolume, reference_volume
from leakloc.report.model import Report

Trend = Literal["increased", "decreased", "no measurable change", "unknown"]
Change = Literal["new", "gone", "increased", "decreased", "no measurable change", "unknown"]
Pair = tuple[float | None, float | None]
"""A measurement before and after; None if unknown or not in the report."""

DETECTABLE_SEGMENTS: Final = 1
"""Smallest change of the number of segments with fluid; it was equal in all 34 pairs."""

RESIDUAL: Final = "Residual fluid alone does not indicate failure of a treatment."
"""Fluid remained in 4 of 16 patients after a blood patch, two of them without symptoms."""

_SIDE_WEIGHT: Final = 0.5
"""Matching weight of a collection on another side of the sac."""


@dataclass(frozen=True)
class DetectableChange:
    """Smallest detectable changes, not below two standard deviations of repeated scans.

    Parameters
    ----------
    fluid_ml, fluid_fraction : float
        Of a fluid volume: the larger of a volume and a fraction of the larger volume.
    csf_fraction : float
        Of the CSF volume of the same segments, as a fraction of the larger volume.
    thickness_mm : float
        Of the thickness of fluid on a side of a segment.
    protocol : str
        Description of the protocols compared.
    """

    fluid_ml: float
    fluid_fraction: float
    csf_fraction: float
    thickness_mm: float
    protocol: str

    def of_fluid_ml(self, volumes_ml: Pair) -> float:
        """Return the smallest detectable change of a fluid volume, in mL."""
        known = [volume for volume in volumes_ml if volume is not None]
        return max(self.fluid_ml, self.fluid_fraction * max(known, default=0.0))

    @property
    def text(self) -> str:
        """The limits and their source."""
        return (
            f"Smallest detectable change, {self.protocol}: {self.fluid_ml:g} mL or "
            f"{self.fluid_fraction:.0%} of the larger fluid volume, whichever is larger; "
            f"{self.csf_fraction:.0%} of the CSF volume; {self.thickness_mm:g} mm thickness. These "
            "limits are not below two standard deviations of the difference between simulated "
            "scans without a change (contrast simulated on the anatomy of 8 patients, and "
            "phantoms). Patients may vary more."
        )


SAME_PROTOCOL: Final = DetectableChange(0.5, 0.08, 0.05, 0.9, "same protocol")
"""Measured (benchmarks/repeatability.py, 2026-11-30): simulated contrast, 8 pairs: fluid 0.02 mL
(up to 5 mL) and 3.6 %, CSF 1.4 %, thickness 0.81 mm; phantoms with other voxel sizes: fluid 0.09 mL
and 2.2 %, CSF 4.9 % (2 pairs), thickness 0.59 mm. Limits are higher, as there were few pairs."""

OTHER_PROTOCOL: Final = DetectableChange(0.5, 0.22, 0.38, 1.1, "different or unknown protocol")
"""Measured as above with another contrast, plane and voxel size, 16 pairs: fluid 0.26 mL (up to 5
mL) and 21.7 %, CSF 37.4 %, thickness 1.02 mm."""

_SAME_SPACING_MM: Final = 0.02
"""Maximum difference of voxel sizes of one protocol."""


def trend_of(values: Pair, detectable: float) -> Trend:
    """Return the direction of a change, unless it is below the smallest detectable change."""
    before, after = values
    if before is None or after is None:
        return "unknown"
    if after == before or abs(after - before) < detectable:
        return "no measurable change"
    return "increased" if after > before else "decreased"


@dataclass(frozen=True)
class Measurement:
    """A measurement of the whole study before and after.

    Parameters
    ----------
    detectable : float
        Smallest detectable change, in `unit`.
    digits : int
        Decimal places.
    """

    name: str
    unit: str
    values: Pair
    detectable: float
    trend: Trend
    digits: int = 1

    @property
    def text(self) -> str:
        """One-line description of the change."""
        unit = f" {self.unit}" if self.unit else ""
        change = f"{pair_text(self.values, self.digits)}{unit}{relative_text(self.values)}"
        return (
            f"{self.name}: {change}: {self.trend} "
            f"(smallest detectable change {self.detectable:.{self.digits}f}{unit})"
        )


@dataclass(frozen=True)
class SegmentChange:
    """Fluid of one motion segment before and after.

    Parameters
    ----------
    present : tuple of bool or None
        None if the segment is not in the field of view.
    thicknesses_mm : dict
        Thickness before and after by side of the sac.
    trends : dict
        Change of the thickness by side.
    """

    segment: str
    present: tuple[bool | None, bool | None]
    thicknesses_mm: dict[str, Pair]
    trends: dict[str, Trend]


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
    volumes_ml: Pair
    lengths_mm: Pair
    thicknesses_mm: Pair
    segments_gained: tuple[str, ...]
    segments_lost: tuple[str, ...]

    @property
    def place(self) -> str:
        """Level and side of the sac."""
        level = self.levels[1] or self.levels[0] or "level unknown"
        if self.levels[0] and self.levels[1] and self.levels[0] != self.levels[1]:
            level = f"{self.levels[0]} -> {self.levels[1]}"
        return f"{level} {self.positions[1] or self.positions[0] or ''}"

    @property
    def text(self) -> str:
        """One-line description of the change."""
        parts = [
            f"{self.place}: {self.change}",
            f"volume {pair_text(self.volumes_ml)} mL{relative_text(self.volumes_ml)}",
            f"length {pair_text(self.lengths_mm, 0)} mm",
            f"thickness {pair_text(self.thicknesses_mm)} mm",
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
        None if a report contains no patient ID or the IDs are not comparable, such as different
        pseudonyms.
    detectable : DetectableChange
        Smallest detectable changes.
    segments_with_fluid : tuple of int or None
        Number of motion segments with epidural fluid before and after.
    fluid_ml : tuple of float
        Volume of all collections before and after.
    measurements : tuple of Measurement
        Number of segments with fluid, fluid volume, and CSF volume of the sac.
    csf_segments : tuple of str
        Motion segments completely in both fields of view, in which the CSF volume is compared.
    segments : tuple of SegmentChange
        Motion segments with fluid before or after, cranial to caudal.
    reference : ReferenceVolume or None
        CSF volume and its published value; None if the part of the sac is incomplete.
    cautions : tuple of str
        Limitations of the comparison.
    """

    same_patient: bool | None
    detectable: DetectableChange
    findings: tuple[str, str]
    collections: tuple[CollectionChange, ...]
    segments_with_fluid: tuple[int | None, int | None]
    fluid_ml: tuple[float, float]
    sac_csf_ml: Pair
    measurements: tuple[Measurement, ...]
    csf_segments: tuple[str, ...]
    segments: tuple[SegmentChange, ...]
    reference: ReferenceVolume | None
    cautions: tuple[str, ...]
    notice: str

    @property
    def summary(self) -> str:
        """The change of the fluid volume in one sentence."""
        before, after = self.fluid_ml
        trend = trend_of(self.fluid_ml, self.detectable.of_fluid_ml(self.fluid_ml))
        if not before and not after:
            return "No epidural fluid collection in either study."
        if trend == "no measurable change":
            return f"No measurable change of the epidural fluid ({before:.1f} and {after:.1f} mL)."
        return f"Epidural fluid {trend} from {before:.1f} to {after:.1f} mL."

    @property
    def text(self) -> str:
        """The comparison as text."""
        lines = [self.summary, f"before: {self.findings[0]}", f"after:  {self.findings[1]}"]
        lines += [f"  {change.text}" for change in self.collections]
        if not self.collections:
            lines.append("  no collection in either report")
        lines += [f"  {measurement.text}" for measurement in self.measurements]
        if self.reference is not None:
            published = self.reference.published
            volumes = pair_text(self.reference.volumes_ml)
            lines.append(f"  CSF, {published.region}: {volumes} mL")
            lines.append(f"    published: {published.value}; {published.source}")
        if self.fluid_ml[1]:
            lines.append(f"  {RESIDUAL}")
        lines += [f"caution: {caution}" for caution in self.cautions]
        return "\n".join([*lines, self.detectable.text, self.notice])

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary."""
        return asdict(self)


def compare(before: Report, after: Report, *, same_patient: bool | None = None) -> Comparison:
    """Compare two reports of a patient, such as before and after a blood patch.

    Collections are matched by the overlap of their motion segments, preferably on the same side
    of the sac. Level names are compared as reported: with a different numbering, the same name
    is a different level.

    Parameters
    ----------
    before, after : Report
    same_patient : bool, optional
        Whether the patient IDs in the headers of both studies are equal, if known.

    Examples
    --------
    >>> from leakloc import Report
    >>> compare(Report.load("before"), Report.load("after")).text  # doctest: +SKIP
    """
    pairs = _matched_pairs(before.collections, after.collections)
    old = {c.id: c for c in before.collections}
    new = {c.id: c for c in after.collections}
    limits = SAME_PROTOCOL if _is_same_protocol(before, after) else OTHER_PROTOCOL
    changes = [_change(old[a], new[b], limits) for a, b in pairs]
    changes += [_change(c, None, limits) for n, c in old.items() if n not in {a for a, _ in pairs}]
    changes += [_change(None, c, limits) for n, c in new.items() if n not in {b for _, b in pairs}]
    csf_segments, csf_ml = _csf_in_common(before, after)
    if same_patient is None:
        same_patient = _same_patient(before, after)
    return Comparison(
        same_patient=same_patient,
        detectable=limits,
        findings=(before.finding.summary, after.finding.summary),
        collections=tuple(changes),
        segments_with_fluid=(
            before.finding.segments_with_fluid,
            after.finding.segments_with_fluid,
        ),
        fluid_ml=(_total_ml(before), _total_ml(after)),
        sac_csf_ml=(before.thecal_sac.csf_volume_ml, after.thecal_sac.csf_volume_ml),
        measurements=_measurements(before, after, csf_segments, csf_ml, limits),
        csf_segments=csf_segments,
        segments=_segments(before, after, limits),
        reference=reference_volume(before, after),
        cautions=tuple(_cautions(before, after, same_patient)),
        notice=after.notice,
    )


def _is_same_protocol(before: Report, after: Report) -> bool:
    """Return whether the myelograms have the same description and voxel size."""
    one, two = (
        {(s.description, s.spacing_mm) for s in report.series if "fluid" in s.used_for}
        for report in (before, after)
    )
    if not one or len(one) != len(two):
        return False
    for (name, spacing), (other_name, other_spacing) in zip(
        sorted(one, key=str), sorted(two, key=str), strict=True
    ):
        if not name or name != other_name or spacing is None or other_spacing is None:
            return False
        if max(abs(a - b) for a, b in zip(spacing, other_spacing, strict=True)) > _SAME_SPACING_MM:
            return False
    return True


def _measurements(
    before: Report,
    after: Report,
    csf_segments: tuple[str, ...],
    csf_ml: Pair,
    limits: DetectableChange,
) -> tuple[Measurement, ...]:
    counts = before.finding.segments_with_fluid, after.finding.segments_with_fluid
    fluid_ml = _total_ml(before), _total_ml(after)
    detectable_ml = limits.of_fluid_ml(fluid_ml)
    measurements = [
        Measurement(
            "motion segments with fluid",
            "",
            counts,
            DETECTABLE_SEGMENTS,
            trend_of(counts, DETECTABLE_SEGMENTS),
            digits=0,
        ),
        Measurement("all fluid", "mL", fluid_ml, detectable_ml, trend_of(fluid_ml, detectable_ml)),
    ]
    if csf_segments:
        detectable_ml = limits.csf_fraction * max(volume or 0.0 for volume in csf_ml)
        name = f"CSF in the sac, {span(csf_segments)}"
        trend = trend_of(csf_ml, detectable_ml)
        measurements.append(Measurement(name, "mL", csf_ml, detectable_ml, trend))
    return tuple(measurements)


def span(segments: tuple[str, ...]) -> str:
    """Return the first and last of several segments."""
    return segments[0] if len(segments) == 1 else f"{segments[0]} to {segments[-1]}"


def _csf_in_common(before: Report, after: Report) -> tuple[tuple[str, ...], Pair]:
    """Return the segments completely in both fields of view, and their CSF volume."""
    one, two = (
        {s.segment: s.csf_volume_ml for s in r.thecal_sac.by_segment if s.csf_volume_ml is not None}
        for r in (before, after)
    )
    common = tuple(segment for segment in one if segment in two)
    if not common:
        return (), (None, None)
    return common, (sum(one[s] for s in common), sum(two[s] for s in common))


def _segments(before: Report, after: Report, limits: DetectableChange) -> tuple[SegmentChange, ...]:
    one, two = ({s.segment: s for s in r.fluid_by_segment} for r in (before, after))
    return tuple(
        _segment(name, one.get(name), two.get(name), limits)
        for name in sorted({*one, *two}, key=_craniocaudal)
        if any(s.present for s in (one.get(name), two.get(name)) if s is not None)
    )


def _craniocaudal(segment: str) -> tuple[int, ...]:
    """Return a sort key of segments of any numbering, cranial to caudal."""
    chain = vertebra_chain(lumbar_count=6, thoracic_count=13)
    return tuple(chain.index(name) for name in split_segment(segment))


def _segment(
    name: str, old: SegmentFluid | None, new: SegmentFluid | None, limits: DetectableChange
) -> SegmentChange:
    thicknesses: dict[str, Pair] = {
        side: (
            _measurement(old and getattr(old, side), "thickness_mm"),
            _measurement(new and getattr(new, side), "thickness_mm"),
        )
        for side in SIDES
    }
    return SegmentChange(
        segment=name,
        present=(
            None if old is None else old.present,
            None if new is None else new.present,
        ),
        thicknesses_mm=thicknesses,
        trends={side: trend_of(pair, limits.thickness_mm) for side, pair in thicknesses.items()},
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


def _change(
    old: Collection | None, new: Collection | None, limits: DetectableChange
) -> CollectionChange:
    volumes = (_measurement(old, "volume_ml"), _measurement(new, "volume_ml"))
    change: Change = trend_of(volumes, limits.of_fluid_ml(volumes))
    if old is None or new is None:
        present_ml = volumes[1] if old is None else volumes[0]
        undetectable = present_ml is not None and present_ml < limits.fluid_ml
        change = "no measurable change" if undetectable else "new" if old is None else "gone"
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


def _same_patient(before: Report, after: Report) -> bool | None:
    one, two = before.study, after.study
    if one.patient_id is None or two.patient_id is None or one.identity != two.identity:
        return None
    if one.patient_id == two.patient_id:
        return True
    return False if one.identity == "keep" else None  # pseudonyms may differ between studies


def _cautions(before: Report, after: Report, same: bool | None) -> list[str]:
    found = []
    if same is False:
        found.append("the studies have different patient IDs")
    elif same is None:
        found.append(
            "the reports contain no comparable patient IDs: verify that they are of one patient"
        )
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


def pair_text(values: Pair, digits: int = 1, arrow: str = " -> ") -> str:
    """Return a measurement before and after, as text."""
    return arrow.join("-" if value is None else f"{value:.{digits}f}" for value in values)


def relative_text(values: Pair) -> str:
    """Return the change in percent in parentheses, or an empty text."""
    before, after = values
    return f" ({(after - before) / before:+.0%})" if before and after is not None else ""
