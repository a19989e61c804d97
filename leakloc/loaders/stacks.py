"""Group frames into stacks and compute their slice order and grid.

Slice order and spacing are computed from Image Position and Image Orientation only. Instance
numbers, slice locations, slice thickness and spacing tags are often incorrect and not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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

_SPACING_TOLERANCE: Final = 0.05
"""Maximum deviation of a slice position from a regular grid, as a fraction of the spacing, that is
accepted without interpolation; positions are written with two or three decimals."""

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
    unique = _without_repeated_instances(frames, notes)
    whole = [frame for frame in unique if not frame.cut_short]
    if len(whole) < len(unique):
        truncated = len(unique) - len(whole)
        notes.append(note("truncated_slices", truncated=truncated, total=len(unique)))
    if not whole:
        return [_without_geometry(unique, [*notes, note("unreadable")])]
    stacks = []
    for group in _split(whole, _contrast_key):
        reason = _exclusion(group[0])
        if reason is not None:
            stacks.append(_without_geometry(group, [*notes, reason]))
            continue
        strays: list[_Block] = []
        for plane in _by_orientation(group):
            for block in _blocks(plane, settings, same_pixels):
                if len(block.frames) < _MIN_SLICES and block.fault is None:
                    strays.append(block)
                else:
                    stacks.append(_stack(block, notes, read))
        if strays:
            left = [frame for block in strays for frame in block.frames]
            count = len(_by_orientation(left))
            gaps = dict.fromkeys(note for block in strays for note in block.notes)
            fault = note(
                "too_few_slices" if count == 1 else "mixed_orientations",
                "gaps" if gaps else "",
                slices=len(left),
                orientations=count,
                min_slices=_MIN_SLICES,
            )
            stacks.append(_without_geometry(left, [*notes, *gaps, fault]))
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
    count = round(span / step) + 1
    spacing = span / (count - 1)
    offsets = (along - along[0]) / spacing
    snapped = np.round(offsets)  # header positions are rounded; do not interpolate for this
    offsets = np.where(np.abs(offsets - snapped) <= _SPACING_TOLERANCE, snapped, offsets)
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


def _contrast_key(frame: Frame) -> Hashable:
    spacing = frame.spacing_mm and tuple(round(mm, 4) for mm in frame.spacing_mm)
    return (
        frame.color,
        frame.rows,
        frame.columns,
        spacing,
        frame.frame_of_reference_uid,
        None if frame.echo_time_ms is None else round(frame.echo_time_ms, 2),
        tuple(part for part in frame.image_type if part in _COMPONENTS),
        frame.position_lps is None or frame.orientation_lps is None,
    )


def _split(frames: list[Frame], key: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return list(groups.values())


def _without_repeated_instances(frames: list[Frame], notes: list[Note]) -> list[Frame]:
    unique: dict[tuple[str, int | None], Frame] = {}
    for frame in frames:
        known = unique.get((frame.sop_instance_uid, frame.index))
        if known is None or known.cut_short:  # a complete copy replaces a truncated one
            unique[(frame.sop_instance_uid, frame.index)] = frame
    if len(unique) < len(frames):
        notes.append(note("duplicate_instances", count=len(frames) - len(unique)))
    return list(unique.values())


def _by_orientation(frames: list[Frame]) -> list[list[Frame]]:
    """Group frames with the same direction cosines, within `_ORIENTATION_TOLERANCE`."""
    leaders: list[FloatArray] = []
    groups: list[list[Frame]] = []
    for frame in frames:
        cosines = np.array(frame.orientation_lps)
        for leader, group in zip(leaders, groups, strict=True):
            if np.abs(leader - cosines).max() <= _ORIENTATION_TOLERANCE:
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
    drop = {id(later) for first, later in repeated if same_pixels(first, later)}
    kept = [frame for frame in ordered if id(frame) not in drop]
    if not _sorted_along_normal(kept)[1]:
        return [_Block(kept, (note("duplicate_slices", count=len(drop)),))]
    return [_Block(ordered, fault=note("ambiguous_positions"))]


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
