"""Group frames into stacks and compute their slice order and grid.

Slice order and spacing are computed from Image Position and Image Orientation only. Instance
numbers, slice locations, slice thickness and spacing tags are often incorrect and not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isclose
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.errors import GeometryError
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray, Geometry, Volume
from leakloc.loaders.headers import Frame, usable_slope
from leakloc.loaders.limits import require_plausible
from leakloc.loaders.study import SeriesStack

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_COMPONENTS: Final = frozenset(
    {
        *("M", "P", "R", "I", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "MAGNITUDE"),
        *("W", "F", "WATER", "FAT", "IP", "OP", "IN", "OPP", "IN_PHASE", "OUT_PHASE", "OPP_PHASE"),
        *("DERIVED", "SECONDARY", "LOCALIZER", "ADC", "T2MAP", "T1MAP", "SUB", "SUBTRACTION"),
        *("MIP", "MAX_IP", "MIN_IP", "MPR", "PROJECTION IMAGE", "REFORMATTED", "MNIP"),
        *("COMP_SP", "COMP_AD", "COMPOSED", "SPLICED", "PASTED", "MOSAIC"),
    }
)
"""Image type values that distinguish images of one series; others (such as NORM) may vary."""

_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
"""Prefix of the secondary capture SOP classes, including multi-frame ones."""

_ORIENTATION_TOLERANCE: Final = 1e-3
"""Maximum difference between direction cosines of the slices of one stack, and maximum in-plane
drift per millimeter along the normal. Scanner jitter is 1e-5; 1e-3 corresponds to 0.06 degrees."""

_MAX_ORIENTATION_SPREAD: Final = 5e-3
"""Maximum difference between direction cosines of slices that form one regular stack: 0.3 degrees
displace the edge of a 320 mm field of view by 1 mm from its center."""

_ECHO_TIME_TOLERANCE: Final = 0.01
"""Maximum relative difference of the echo time of one image type: echoes of one series differ by
more than 2 %, rounded values by less than 0.1 %."""

_PIXEL_SPACING_TOLERANCE: Final = 1e-3
"""Maximum relative difference of the pixel spacing: a quarter of a voxel over 256 voxels."""

_SPACING_TOLERANCE: Final = 0.05
"""Maximum deviation of a slice position from a regular grid, as a fraction of the spacing, that is
accepted without interpolation; positions are written with two or three decimals."""

_ROUNDING_MM: Final = 0.1
"""Maximum deviation from a regular grid of positions that are written with one decimal: the slice
and the end of the stack are each rounded by up to 0.05 mm."""

_MAX_SPACING_TOLERANCE: Final = 0.25
"""Limit of the tolerance for rounded positions, as a fraction of the spacing."""

_REGULAR_FRACTION: Final = 0.8
"""Minimum fraction of regular steps between parts of a series that form one stack; the others
contain missing slices. A single step between two parts must be regular."""

_GAP_FACTOR: Final = 1.5
"""A distance between slices above this multiple of the usual spacing indicates missing slices; 1.5
is halfway between one and two spacings."""

_MIN_SLICES: Final = 3
"""Minimum number of parallel slices of a volume."""


@dataclass(frozen=True)
class Layout:
    """Positions of the slices of a stack relative to a regular grid.

    Parameters
    ----------
    geometry : Geometry
        The regular grid.
    offsets_k : ndarray, shape (n,)
        Position of each slice along the k axis of `geometry`, in voxels.
    shifts_ji : ndarray, shape (n, 2)
        In-plane displacement of each slice relative to the grid, in voxels.
    """

    geometry: Geometry
    offsets_k: FloatArray
    shifts_ji: FloatArray

    @property
    def is_regular(self) -> bool:
        """Whether the slices coincide with those of the grid (no interpolation)."""
        own = np.array_equal(self.offsets_k, np.arange(self.geometry.shape[0]))
        return own and not self.shifts_ji.any()


_SCALE_VARIES: Final = 1e-3
"""Minimum relative difference of private scales, which are stored as four-byte floats."""


def scale_varies(frames: Sequence[Frame]) -> bool:
    """Return whether the slices of a stack have different private scales."""
    scales = [frame.private_scale for frame in frames if frame.private_scale is not None]
    return len(scales) == len(frames) and max(scales) > (1 + _SCALE_VARIES) * min(scales)


ReadStack = Callable[[tuple[Frame, ...], Layout], Volume]


def build_stacks(
    frames: Iterable[Frame],
    settings: LoaderSettings,
    read: ReadStack,
    same_pixels: Callable[[Frame, Frame], bool],
) -> list[SeriesStack]:
    """Group frames into stacks and compute the grid of each.

    Parameters
    ----------
    frames : iterable of Frame
    settings : LoaderSettings
    read : callable
        Reads the pixels of frames, given their layout.
    same_pixels : callable
        Returns whether two frames at the same position have identical pixels.

    Returns
    -------
    list of SeriesStack
        Sorted by series number, then series UID.
    """
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.series_instance_uid].append(frame)
    stacks: list[SeriesStack] = []
    for uid in sorted(by_series, key=lambda u: (by_series[u][0].series_number or 0, u)):
        stacks += _series_stacks(by_series[uid], settings, read, same_pixels)
    return stacks


def _series_stacks(
    frames: list[Frame],
    settings: LoaderSettings,
    read: ReadStack,
    same_pixels: Callable[[Frame, Frame], bool],
) -> list[SeriesStack]:
    notes: list[Note] = []
    unique = _without_repeated_instances(frames, notes, same_pixels)
    whole = [frame for frame in unique if not frame.cut_short]
    if len(whole) < len(unique):
        truncated = len(unique) - len(whole)
        notes.append(note("truncated_slices", truncated=truncated, total=len(unique)))
    if not whole:
        return [_without_geometry(unique, [*notes, note("unreadable")])]
    stacks = []
    for group in _split(whole, _layout_key):
        reason = _exclusion(group[0])
        if reason is not None:
            stacks.append(_without_geometry(group, [*notes, reason]))
            continue
        strays: list[_Block] = []
        for plane in _planes(group):
            varying = [*notes, *_variation_notes(plane)]
            for block in _blocks(plane, settings, same_pixels):
                if len(block.frames) < _MIN_SLICES and block.fault is None:
                    strays.append(block)
                else:
                    stacks.append(_stack(block, varying, read))
        if strays:
            left = [frame for block in strays for frame in block.frames]
            count = len(_by_orientation(left, _ORIENTATION_TOLERANCE))
            gaps = dict.fromkeys(note for block in strays for note in block.notes)
            fault = note(
                "too_few_slices" if count == 1 else "mixed_orientations",
                "gaps" if gaps else "",
                slices=len(left),
                orientations=count,
                min_slices=_MIN_SLICES,
            )
            stacks.append(_without_geometry(left, [*notes, *gaps, fault]))
    if len(whole) < len(unique):
        stacks = [replace(stack, n_truncated=len(unique) - len(whole)) for stack in stacks]
    return _with_stated_count(stacks, whole)


def _with_stated_count(stacks: list[SeriesStack], frames: list[Frame]) -> list[SeriesStack]:
    """Add a note if a series of one stack has fewer slices than its header states.

    Slices missing at an end leave no gap; only the count reveals them.
    """
    if len(stacks) != 1 or stacks[0].geometry is None:
        return stacks
    if any(frame.index is not None for frame in frames):
        return stacks
    stated = stacks[0].parameters.get("ImagesInAcquisition")
    present = stacks[0].geometry.shape[0]
    if not isinstance(stated, int) or stated <= present:
        return stacks
    missing = note("end_slices_may_be_missing", stated=stated, present=present)
    return [replace(stacks[0], notes=(*stacks[0].notes, missing))]


@dataclass(frozen=True)
class _Block:
    """Parallel slices, sorted along the normal: candidate for one volume."""

    frames: list[Frame]
    notes: tuple[Note, ...] = ()
    fault: Note | None = None


def _stack(block: _Block, notes: list[Note], read: ReadStack) -> SeriesStack:
    if block.fault is not None:
        return _without_geometry(block.frames, [*notes, *block.notes, block.fault])
    try:
        layout, layout_notes = lay_out(block.frames)
    except GeometryError as error:
        fault = note("irregular_geometry", error=error)
        return _without_geometry(block.frames, [*notes, *block.notes, fault])
    frames = tuple(block.frames)
    if scale_varies(frames):
        layout_notes.append(note("private_scale"))
    unusable = sum(
        frame.slope is not None and usable_slope(frame.slope) is None for frame in frames
    )
    if unusable:
        layout_notes.append(note("slope_ignored", count=unusable, total=len(frames)))
    if _is_scale_ambiguous(frames):
        fault = note("mixed_slopes")
        return _without_geometry(block.frames, [*notes, *block.notes, *layout_notes, fault])
    stack = _without_geometry(block.frames, [*notes, *block.notes, *layout_notes])
    return replace(stack, geometry=layout.geometry, read=lambda: read(frames, layout))


def _is_scale_ambiguous(frames: Sequence[Frame]) -> bool:
    """Return whether some slices have a rescale slope and others have none that can be used."""
    slopes = {None if frame.slope is None else usable_slope(frame.slope) for frame in frames}
    return None in slopes and bool(slopes - {None, 1.0})


def lay_out(frames: list[Frame]) -> tuple[Layout, list[Note]]:
    """Compute the grid of parallel slices sorted along their normal.

    Evenly spaced, orthogonal slices are used unmodified. Gaps up to
    `settings.max_bridged_gap_mm`, uneven spacing and in-plane drift (shear) are resampled to a
    regular grid by linear interpolation, with a note.

    Raises
    ------
    GeometryError
        If the slices cannot be resampled to a regular grid.
    """
    axes = _plane_axes(frames[0])
    row_mm, column_mm = frames[0].spacing_mm or (0.0, 0.0)
    positions = np.array([frame.position_lps for frame in frames])
    along = positions @ axes[:, 2]
    steps = np.diff(along)
    step = _step(steps)
    notes = _gap_notes(steps, step)
    span = float(along[-1] - along[0])
    count = _count(steps, step, span)
    spacing = span / (count - 1)
    offsets = (along - along[0]) / spacing
    snapped = np.round(offsets)  # header positions are rounded; do not interpolate for this
    rounding = min(_ROUNDING_MM / spacing, _MAX_SPACING_TOLERANCE)
    offsets = np.where(
        np.abs(offsets - snapped) <= max(_SPACING_TOLERANCE, rounding), snapped, offsets
    )
    even = np.array_equal(offsets, np.arange(count))
    if not even and not notes:
        notes.append(
            note(
                "uneven_spacing",
                min_mm=float(steps.min()),
                max_mm=float(steps.max()),
                spacing_mm=spacing,
            )
        )
    drift = (positions - positions[0]) @ axes[:, :2]
    line = (positions[-1] - positions[0]) / span
    tilt = float(np.hypot(*(line @ axes[:, :2])))
    wobble = float(np.abs(drift - np.outer(along - along[0], line @ axes[:, :2])).max())
    in_plane = np.array([column_mm, row_mm], dtype=np.float64)
    shifts = np.zeros((len(frames), 2))
    normal = axes[:, 2]
    if tilt <= _ORIENTATION_TOLERANCE and wobble <= 0.5 * in_plane.min():
        normal = line  # keeps the position of the last slice exact
    else:
        _require_overlap(drift, frames[0], in_plane)
        shifts = np.asarray((drift / in_plane)[:, ::-1], dtype=np.float64)
        notes.append(note("sheared_stack", degrees=float(np.degrees(np.arctan(tilt)))))
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 0] * column_mm
    affine[:3, 1] = axes[:, 1] * row_mm
    affine[:3, 2] = normal * spacing
    affine[:3, 3] = positions[0]
    shape = (count, frames[0].rows, frames[0].columns)
    geometry = Geometry(shape, affine, frames[0].frame_of_reference_uid)
    require_plausible(geometry)
    return Layout(geometry, offsets, shifts), notes


def _step(steps: FloatArray) -> float:
    """Estimate the acquired slice spacing: the median of the steps.

    With few slices the median may be a gap; then the smallest step is used if all are multiples.
    """
    median, smallest = float(np.median(steps)), float(steps.min())
    multiples = steps / smallest
    if np.abs(multiples - np.round(multiples)).max() <= _SPACING_TOLERANCE:
        return smallest
    return median


def _count(steps: FloatArray, step: float, span: float) -> int:
    """Return the number of slices of the grid.

    Steps between rounded positions are counted one by one, as their median may differ from the
    spacing.
    """
    multiples = np.round(steps / step)
    if multiples.min() >= 1 and np.abs(steps - multiples * step).max() <= _ROUNDING_MM + 1e-6:
        return int(multiples.sum()) + 1
    return round(span / step) + 1


def _gap_notes(steps: FloatArray, step: float) -> list[Note]:
    gaps = np.flatnonzero(steps > _GAP_FACTOR * step)
    if not gaps.size:
        return []
    missing = [round(float(steps[n] / step)) - 1 for n in gaps]
    where = ", ".join(
        f"{count} between slices {n + 1} and {n + 2} ({steps[n]:.3g} mm)"
        for n, count in zip(gaps[:5], missing, strict=False)
    )
    more = "" if len(gaps) <= 5 else f" and {len(gaps) - 5} more gaps"
    total = len(steps) + 1 + sum(missing)
    return [note("missing_slices", missing=sum(missing), total=total, gaps=f"{where}{more}")]


def _require_overlap(drift: FloatArray, frame: Frame, in_plane_mm: FloatArray) -> None:
    extent = np.array([frame.columns, frame.rows]) * in_plane_mm
    if (np.ptp(drift, axis=0) > 0.5 * extent).any():
        raise GeometryError("the slices lie side by side instead of forming a stack")


def _plane_axes(frame: Frame) -> FloatArray:
    """Return unit vectors along rows, along columns, and normal, as matrix columns."""
    row, column = np.reshape(frame.orientation_lps or (0.0,) * 6, (2, 3))
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _exclusion(frame: Frame) -> Note | None:
    """Return the reason why such frames cannot form a volume, or None."""
    if frame.color:
        return note("color_image")
    if frame.sop_class_uid.startswith(_SECONDARY_CAPTURE):
        return note("secondary_capture")
    if frame.mosaic:
        return note("mosaic")
    if frame.position_lps is None or frame.orientation_lps is None:
        return note("no_position")
    if frame.spacing_mm is None:
        return note("no_pixel_spacing")
    row, column = np.reshape(frame.orientation_lps, (2, 3))
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > 1e-2 or abs(row @ column) > 1e-2:
        return note("bad_orientation")
    return None


def _layout_key(frame: Frame) -> Hashable:
    """Properties that are equal for all slices of a stack."""
    return frame.rows, frame.columns, _exclusion(frame)


def _echo_time(frame: Frame) -> tuple[float, ...]:
    return () if frame.echo_time_ms is None else (frame.echo_time_ms,)


def _component(frame: Frame) -> Hashable:
    return tuple(part for part in frame.image_type if part in _COMPONENTS)


def _series(frame: Frame) -> Hashable:
    return frame.series_number, frame.parameters.get("SeriesDescription")


def _frame_of_reference(frame: Frame) -> Hashable:
    return frame.frame_of_reference_uid


def _planes(frames: list[Frame]) -> list[list[Frame]]:
    """Group frames that may form one stack: same plane, grid and contrast.

    Numbers are compared with a tolerance. Parts that differ only in a text or identifier, or
    slightly in orientation, are one group if their slices interleave or adjoin: attributes may
    differ from slice to slice after processing or anonymization.
    """
    return [
        part
        for plane in _by_orientation(frames, _MAX_ORIENTATION_SPREAD)
        for grid in _by_value(plane, lambda f: f.spacing_mm or (), _PIXEL_SPACING_TOLERANCE)
        for echo in _by_value(grid, _echo_time, _ECHO_TIME_TOLERANCE)
        for part in _parts(echo, _PART_RULES)
    ]


_PART_RULES: Final[tuple[Callable[[list[Frame]], list[list[Frame]]], ...]] = (
    lambda frames: _split(frames, _series),
    lambda frames: _split(frames, _component),
    lambda frames: _by_orientation(frames, _ORIENTATION_TOLERANCE),
    lambda frames: _split(frames, _frame_of_reference),
)
"""How to split frames into parts, the most significant difference first."""


def _parts(
    frames: list[Frame], rules: Sequence[Callable[[list[Frame]], list[list[Frame]]]]
) -> list[list[Frame]]:
    """Split frames by all rules; parts that together form a regular stack are not separated."""
    if not rules:
        return [frames]
    found = [part for group in rules[0](frames) for part in _parts(group, rules[1:])]
    return [frames] if len(found) > 1 and _is_one_stack(found) else found


def _is_one_stack(parts: list[list[Frame]]) -> bool:
    """Return whether the slices of several parts interleave or adjoin in one regular stack."""
    frames = [frame for part in parts for frame in part]
    normal = _plane_axes(frames[0])[:, 2]
    along = np.array([frame.position_lps for frame in frames]) @ normal
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(along, kind="stable")
    steps, changes = np.diff(along[order]), np.diff(owner[order]) != 0
    apart = steps[steps > 1e-3]
    if len(apart) < _MIN_SLICES - 1 or len(_by_in_plane_origin(frames)) > 1:
        return False
    step = float(np.median(apart))
    # Repetitions within a part are separated later; those of different parts are different images.
    own = steps[~changes & (steps >= 0.1 * step)]
    between = steps[changes]
    regular = np.abs(between / step - 1) <= 0.5
    return bool(
        between.min() > 0.5 * step
        and regular.mean() >= _REGULAR_FRACTION
        and (not own.size or abs(float(np.median(own)) / step - 1) <= 0.5)
    )


def _variation_notes(frames: list[Frame]) -> list[Note]:
    """Notes on attributes that differ between the slices of one stack."""
    found = []
    frames_of_reference = len({frame.frame_of_reference_uid for frame in frames})
    if frames_of_reference > 1:
        found.append(note("frame_of_reference_varies", count=frames_of_reference))
    commas = sum(frame.decimal_comma for frame in frames)
    if commas:
        found.append(note("decimal_comma", count=commas))
    cosines = np.array([frame.orientation_lps for frame in frames])
    spread = float(np.ptp(cosines, axis=0).max())
    if spread > _ORIENTATION_TOLERANCE:
        found.append(note("orientation_varies", degrees=float(np.degrees(spread))))
    return found


def _by_value(
    frames: list[Frame], value: Callable[[Frame], tuple[float, ...]], tolerance: float
) -> list[list[Frame]]:
    """Group frames whose numbers agree within a relative tolerance."""
    groups: dict[tuple[float, ...], list[Frame]] = {}
    for frame in frames:
        own = value(frame)
        key = next((known for known in groups if _agree(known, own, tolerance)), own)
        groups.setdefault(key, []).append(frame)
    return list(groups.values())


def _split(frames: list[Frame], key: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return list(groups.values())


def _agree(one: tuple[float, ...], other: tuple[float, ...], tolerance: float) -> bool:
    return len(one) == len(other) and all(
        isclose(a, b, rel_tol=tolerance) for a, b in zip(one, other, strict=True)
    )


def _without_repeated_instances(
    frames: list[Frame], notes: list[Note], same_pixels: Callable[[Frame, Frame], bool]
) -> list[Frame]:
    """Remove copies: frames with the same UID, position and pixels as another one."""
    known: dict[tuple[str, int | None], list[Frame]] = defaultdict(list)
    for frame in frames:
        same_uid = known[frame.sop_instance_uid, frame.index]
        for n, other in enumerate(same_uid):
            if not _same_place(frame, other):
                continue
            if other.cut_short or frame.cut_short or same_pixels(frame, other):
                same_uid[n] = frame if other.cut_short else other  # a complete copy is preferred
                break
        else:
            same_uid.append(frame)
    unique = [frame for same_uid in known.values() for frame in same_uid]
    if len(unique) < len(frames):
        notes.append(note("duplicate_instances", count=len(frames) - len(unique)))
    if len(unique) > len(known):
        images = sum(len(same_uid) for same_uid in known.values() if len(same_uid) > 1)
        notes.append(note("instance_uids_not_unique", count=images))
    return unique


def _same_place(one: Frame, other: Frame) -> bool:
    return one.position_lps == other.position_lps and one.orientation_lps == other.orientation_lps


def _by_orientation(frames: list[Frame], tolerance: float) -> list[list[Frame]]:
    """Group frames with the same direction cosines, within a tolerance."""
    leaders: list[FloatArray] = []
    groups: list[list[Frame]] = []
    for frame in frames:
        cosines = np.array(frame.orientation_lps)
        for leader, group in zip(leaders, groups, strict=True):
            if np.abs(leader - cosines).max() <= tolerance:
                group.append(frame)
                break
        else:
            leaders.append(cosines)
            groups.append([frame])
    return groups


def _blocks(
    frames: list[Frame],
    settings: LoaderSettings,
    same_pixels: Callable[[Frame, Frame], bool],
) -> list[_Block]:
    """Split parallel frames into runs without duplicate positions or wide gaps."""
    blocks = []
    for station in _by_in_plane_origin(frames):
        for run in _by_repetition(station, same_pixels):
            if run.fault is not None or len(run.frames) < 2:
                blocks.append(run)
            else:
                blocks += _by_gap(run, settings)
    return blocks


def _by_in_plane_origin(frames: list[Frame]) -> list[list[Frame]]:
    """Split stations of one orientation that are adjacent in plane.

    A sheared stack, which drifts from slice to slice, is not split.
    """
    axes = _plane_axes(frames[0])
    origins = np.array([f.position_lps for f in frames]) @ axes[:, :2]
    groups: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame, origin in zip(frames, origins, strict=True):
        groups[tuple(int(n) for n in np.round(origin))].append(frame)  # 1 mm cells
    separate = len(groups) > 1 and min(map(len, groups.values())) >= 3
    apart = separate and bool(_min_distance(list(groups)) > 2.0)
    return list(groups.values()) if apart else [frames]


def _min_distance(cells: list[tuple[int, ...]]) -> float:
    points = np.array(cells, dtype=float)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return float(gaps[~np.eye(len(points), dtype=bool)].min())


def _by_repetition(
    frames: list[Frame], same_pixels: Callable[[Frame, Frame], bool]
) -> list[_Block]:
    """Sort along the normal; separate repetitions, time points and copies at one position."""
    ordered, repeated = _sorted_along_normal(frames)
    if not repeated:
        return [_Block(ordered)]
    for n in range(3):
        parts = _split(ordered, lambda frame, n=n: frame.temporal_position[n])  # type: ignore[misc]
        if len(parts) > 1 and not any(_sorted_along_normal(part)[1] for part in parts):
            separated = note("repetitions", count=len(parts))
            return [_Block(part, (separated,)) for part in parts]
    for attribute, key in _VERSION_KEYS.items():
        parts = _split(ordered, key)
        if len(parts) > 1 and not any(_sorted_along_normal(part)[1] for part in parts):
            separated = note("repetitions", "versions", count=len(parts), attribute=attribute)
            return [_Block(part, (separated,)) for part in parts]
    drop = {id(later) for first, later in repeated if same_pixels(first, later)}
    kept = [frame for frame in ordered if id(frame) not in drop]
    if not _sorted_along_normal(kept)[1]:
        return [_Block(kept, (note("duplicate_slices", count=len(drop)),))]
    parts = _by_number(kept)
    if parts:
        return [_Block(part, (note("repetitions", count=len(parts)),)) for part in parts]
    return [_Block(ordered, fault=note("ambiguous_positions"))]


_VERSION_KEYS: Final[dict[str, Callable[[Frame], Hashable]]] = {
    "Image Type": lambda frame: frame.image_type,
    "Series Number": _series,
    "Echo Time": lambda frame: frame.echo_time_ms,
    "Repetition Time": lambda frame: frame.parameters.get("RepetitionTime"),
    "Inversion Time": lambda frame: frame.parameters.get("InversionTime"),
    "Flip Angle": lambda frame: frame.parameters.get("FlipAngle"),
}
"""Attributes by which images at the same position are separated, by their names."""


def _by_number(frames: list[Frame]) -> list[list[Frame]]:
    """Separate complete repetitions by Instance Number; empty if it does not distinguish them.

    The numbers of the images at each position differ by a constant: repetitions are numbered one
    after the other, or the images of each position are.
    """
    ordered, pairs = _sorted_along_normal(frames)
    places: dict[int, list[Frame]] = {id(frame): [frame] for frame in ordered}
    for first, later in pairs:
        places[id(first)].append(later)
        del places[id(later)]
    columns = [
        sorted(place, key=lambda frame: frame.instance_number or 0) for place in places.values()
    ]
    if len({len(column) for column in columns}) != 1:
        return []
    numbers = np.array([[f.instance_number or 0 for f in column] for column in columns])
    differences = np.diff(numbers, axis=1)
    if (differences <= 0).any() or (np.ptp(differences, axis=0) > 0).any():
        return []
    return [list(part) for part in zip(*columns, strict=True)]


def _sorted_along_normal(frames: list[Frame]) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Sort frames by position along their normal; also return pairs at the same position."""
    normal = _plane_axes(frames[0])[:, 2]
    along = [float(np.dot(frame.position_lps or (0.0,) * 3, normal)) for frame in frames]
    order = np.argsort(along, kind="stable")
    ordered = [frames[n] for n in order]
    steps = np.diff(np.sort(along))
    wide = float(np.median(steps[steps > 1e-3])) if (steps > 1e-3).any() else 1.0
    # A tenth of a step is far below any slice spacing but above header rounding.
    same = np.flatnonzero(steps < 0.1 * wide)
    pairs, first = [], -1
    for n in same:
        first = first if first >= 0 and n - 1 in same else int(n)
        pairs.append((ordered[first], ordered[n + 1]))
    return ordered, pairs


def _by_gap(block: _Block, settings: LoaderSettings) -> list[_Block]:
    """Split at gaps that are too wide for interpolation."""
    normal = _plane_axes(block.frames[0])[:, 2]
    along = np.array([frame.position_lps for frame in block.frames]) @ normal
    steps = np.diff(along)
    step = _step(steps)
    limit = max(settings.max_bridged_gap_mm, _GAP_FACTOR * step)
    cuts = np.flatnonzero(steps > limit)
    if not cuts.size:
        return [block]
    widest = float(steps.max())
    split = note("split_at_gap", widest_mm=widest, step_mm=step, parts=len(cuts) + 1)
    bounds = [0, *(int(n) + 1 for n in cuts), len(block.frames)]
    return [_Block(block.frames[a:b], (*block.notes, split)) for a, b in pairwise(bounds)]


def _without_geometry(frames: list[Frame], notes: list[Note]) -> SeriesStack:
    first = frames[0]
    description = str(first.parameters.get("SeriesDescription", ""))
    why = "; ".join(note.message for note in notes) or "the slices do not form a regular volume"

    def fail() -> Volume:
        number = "" if first.series_number is None else f" (number {first.series_number})"
        raise GeometryError(f"series {first.series_instance_uid}{number} is not a volume: {why}")

    return SeriesStack(
        series_instance_uid=first.series_instance_uid,
        description=description,
        modality=first.modality,
        n_instances=len(frames),
        parameters=first.parameters,
        geometry=None,
        files=tuple(frame.path for frame in frames),
        sop_instance_uids=tuple(frame.sop_instance_uid for frame in frames),
        read=fail,
        series_number=first.series_number,
        notes=tuple(notes),
    )
