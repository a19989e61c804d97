"""Detection of the sacral canal and the sacral hiatus.

The network segments the sacral bodies. The canal lies posterior to them in the midline and is
covered by a bony roof: two dark lines with marrow between them on any contrast. The roof is
traced by dynamic programming on a straightened image. The hiatus is its caudal end; it counts
as detected if it is inside the field of view with different tissue below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import AnatomyOutputs
from leakloc.anatomy.vocabulary import SACRAL
from leakloc.core.errors import AnalysisError
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import FloatArray, Volume
from leakloc.levels.result import Levels
from leakloc.localization.coordinate import LevelCoordinate

STEP_MM: Final = 0.5
"""Grid spacing of the straightened image, half of a small voxel."""
OFFSETS_MM: Final = (-8.0, 26.0)
"""Range of the image posterior to the sacral bodies: 15 mm of canal, the roof and a margin."""
ROOF_FROM_MM: Final = 6.5
"""Minimum distance of the middle of the roof from the bodies: 4 mm of canal (5.4 ± 1.8 mm deep at
the hiatus) and half the roof."""
HALF_ROOF_MM: Final = (2.5, 3.5, 4.5)
"""Distances from the marrow of the roof to its two dark lines; the roof is 4 to 7 mm thick."""
MIDLINE_MM: Final = 3.0
"""The image is averaged over this distance to both sides; the hiatus is 12 mm wide."""
MIN_SACRUM_MM: Final = 50.0
"""Minimum visible length of the sacrum, about three segments."""
BELOW_MM: Final = 30.0
"""Extension of the image below the sacral bodies."""
BRIGHTEST: Final = 1.2
"""Upper limit of the signal, relative to sacral marrow."""
FAT_FROM: Final = 1.5
"""Minimum signal of fat or fluid in the canal and of subcutaneous fat, relative to marrow."""
ROOF_WHOLE_MM: Final = 30.0
"""Cranial part in which the roof is assumed to be mostly present; gives its typical signal."""
FAT_STRETCH: Final = (0.5, 0.75)
"""Range of the sacrum, caudal to the sac and cranial to most hiatuses, in which the canal is tested
for bright fat."""
_APEX_SD_LEVELS: Final = 0.6
"""The apex lies at S4 in 65 to 79 % of adults, in most others at S3 or S5 (Nastoulis et al.,
Folia Morphol 2023;82:603: S4 in 78.7 % of 155 sacra)."""
_NEARER_COST: Final = 0.2
"""Cost per column of approaching the bodies, which the roof does by about 10 mm from S2 to S4."""
_FARTHER_COST: Final = 1.5
"""Cost per column of receding from the bodies, which is rare."""

_MIN_FROM_SAC_MM: Final = 20.0
"""Minimum distance of a detected hiatus from the caudal end of the thecal sac (34.8 mm was the
minimum in 200 adults: Park et al., Korean J Phys Anthropol 2016;29:145)."""
_APEX_FRACTION: Final = 0.83
"""Mean position of the apex of the hiatus along the posterior border of the sacral bodies: S4 in
two thirds to four fifths of people, S3 or S5 in most others."""
_APEX_FRACTION_SD: Final = 0.12
"""Standard deviation of the position of the apex between people."""
_ROOF_FRACTION: Final = 0.3
"""The roof of the sacral canal is traced below this fraction of the posterior border of the sacral
bodies; above it, the thecal sac and the gaps between the arches of S1 and S2 interfere."""
_ROOF_TO_EPIDURAL_MM: Final = 5.0
"""Distance from the middle of the roof (4 to 7 mm thick) to the posterior epidural line anterior to
it."""
BRIGHT_FAT_FACTOR: Final = 0.6
"""Confidence factor for a hiatus detected where fat in the canal is bright and the roof and
subcutaneous fat are hard to separate, relative to a fat-suppressed image."""
_MIN_BELOW_MM: Final = 6.0
"""Minimum extent of the field of view without a roof below the apex; with half of it, a sacrum
truncated by the field was taken for its end (2 of 5 phantoms without a hiatus)."""
_MARGIN_MM: Final = 8.0
"""Distance the canal centerline continues below the apex: half of the height of the opening (16 to
19 mm)."""


@dataclass(frozen=True, eq=False)
class SacralCanal:
    """The sacral canal down to the hiatus.

    Parameters
    ----------
    middle_lps : ndarray, shape (n, 3)
        Middle of the canal, cranial to caudal, extending beyond the apex.
    back_lps : ndarray, shape (m, 3)
        Posterior epidural line anterior to the roof, cranial to caudal; the last is the apex.
    confidence : float
        Confidence of the position of the apex, 0..1.
    images : tuple of int
        Indices of the images on which the sacrum and its canal were detected.
    """

    middle_lps: FloatArray
    back_lps: FloatArray
    confidence: float
    images: tuple[int, ...] = ()

    @property
    def apex_lps(self) -> FloatArray:
        """Apex of the hiatus, in the posterior epidural space."""
        return np.asarray(self.back_lps[-1])


@dataclass(frozen=True, eq=False)
class StraightSacrum:
    """Straightened midline image posterior to the sacral bodies.

    Parameters
    ----------
    signal : ndarray, shape (n, m)
        Mean across the midline, divided by the marrow signal of the sacral bodies; rows cranial
        to caudal, columns anterior to posterior.
    arc_mm : ndarray, shape (n,)
    offset_mm : ndarray, shape (m,)
        Distance from the posterior wall of the sacral bodies.
    inside : ndarray of bool, shape (n, m)
        Whether the position is inside the field of view.
    """

    signal: FloatArray
    arc_mm: FloatArray
    offset_mm: FloatArray
    inside: npt.NDArray[np.bool_]
    length_mm: float = field(default=0.0)
    """Length of the sacral bodies along their posterior wall."""


def find_sacral_canal(images: Iterable[Volume], anatomy: AnatomyOutputs) -> SacralCanal | None:
    """Detect the hiatus on each image; the result of highest confidence is returned.

    Parameters
    ----------
    images : iterable of Volume
        Registered to the myelogram, in descending order of bone contrast.
    anatomy : AnatomyOutputs
        Output of the anatomy network for the images.

    Returns
    -------
    SacralCanal or None
        None if no image shows enough of the sacrum or the end of its roof.
    """
    line = None
    best: SacralCanal | None = None
    first = 0
    for number, image in enumerate(images):
        if line is None:
            line, first = sacral_back(image, anatomy), number
        if line is None:
            continue
        found = canal_behind(image, line)
        if found is not None and (best is None or found.confidence > best.confidence):
            best = replace(found, images=tuple(sorted({first, number})))
    return best


def plausible_canal(
    canal: SacralCanal | None,
    levels: Levels,
    sac_tip_lps: FloatArray | None,
    settings: LocalizationSettings,
) -> SacralCanal | None:
    """Return the sacral canal if the position of its apex is plausible; None otherwise.

    The confidence decreases with the distance of the apex from the middle of S4: a canal that
    continues caudally can resemble one that ends, and most apexes lie at S4.

    Parameters
    ----------
    canal : SacralCanal or None
    levels : Levels
        Position of the sacral vertebrae; not considered if none is named.
    sac_tip_lps : ndarray or None
        Caudal end of the thecal sac; the hiatus lies at least 20 mm away.
    settings : LocalizationSettings
    """
    if canal is None:
        return None
    if sac_tip_lps is not None:
        away_mm = float(np.linalg.norm(canal.apex_lps - sac_tip_lps))
        if away_mm < _MIN_FROM_SAC_MM:
            return None
    centers = {v.name: v.center_lps for v in levels.vertebrae if v.name in SACRAL}
    if centers:
        if len(centers) < 2 or "S4" not in centers:  # the field of view ends above S4
            return None
        line = Centerline(np.array(list(centers.values())))
        knots = np.array([SACRAL.index(name) for name in centers], float)
        level = LevelCoordinate((*SACRAL, "coccyx"), line.arc_mm, knots).level_at(
            line.project(canal.apex_lps)[0]
        )
        offset = float(level - SACRAL.index("S4")) / _APEX_SD_LEVELS  # NaN far from the sacrum
        factor = float(np.nan_to_num(np.exp(-0.5 * offset**2)))
        canal = replace(canal, confidence=canal.confidence * factor)
    return canal if canal.confidence >= settings.hiatus_min_confidence else None


def sacral_back(image: Volume, anatomy: AnatomyOutputs) -> Centerline | None:
    """Return the midline posterior wall of the sacral bodies, or None if they are not visible."""
    try:
        found = anatomy.of(image)
    except AnalysisError:
        return None
    components, count = ndimage.label(found.sacrum.array > 0.5)
    if not count:
        return None
    largest = int(np.bincount(components.ravel())[1:].argmax()) + 1
    return _back_of(components == largest, found.sacrum)


def _back_of(mask: npt.NDArray[np.bool_], sacrum: Volume) -> Centerline | None:
    """Return the posterior surface of a mask in its midline."""
    rows = np.unique(np.nonzero(mask)[0])
    middles = np.array([np.argwhere(mask[k])[:, 1].mean() for k in rows])
    middle = np.polyval(np.polyfit(rows, middles, 1 if len(rows) > 2 else 0), rows)
    points = []
    for k, i in zip(rows[::-1], middle[::-1], strict=True):
        column = sacrum.array[k, :, int(np.clip(round(i), 0, mask.shape[2] - 1))]
        bone = np.flatnonzero(mask[k, :, int(np.clip(round(i), 0, mask.shape[2] - 1))])
        if len(bone):
            last = int(bone[-1])
            after = float(column[last + 1]) if last + 1 < len(column) else 0.0
            fraction = (float(column[last]) - 0.5) / max(float(column[last]) - after, 1e-3)
            points.append((k, last + min(max(fraction, 0.0), 1.0), i))
    if len(points) < MIN_SACRUM_MM / 2:
        return None
    line = Centerline.smoothed(
        sacrum.geometry.lps_from_kji(np.array(points)), step_mm=1.0, smoothing_mm=6.0
    )
    return line if line.length_mm >= MIN_SACRUM_MM else None


def straighten(image: Volume, line: Centerline) -> StraightSacrum:
    """Resample the image posterior to the sacral bodies, one row per position along them."""
    arc = np.arange(0.0, line.length_mm + BELOW_MM, STEP_MM)
    offset = np.arange(OFFSETS_MM[0], OFFSETS_MM[1], STEP_MM)
    _, left, dorsal = line.frame_at(arc)
    points = line.at(arc)[:, None] + offset[None, :, None] * dorsal[:, None]
    inside = image.geometry.contains(points)
    lateral = np.linspace(-MIDLINE_MM, MIDLINE_MM, 5)
    signal = np.mean([image.sample(points + x * left[:, None]) for x in lateral], axis=0)
    bodies = (offset < -3.0) & inside & (arc < line.length_mm)[:, None]
    marrow = float(np.median(signal[bodies])) if bodies.any() else 1.0
    signal = signal / max(marrow, 1e-6)
    return StraightSacrum(signal, arc, offset, inside, line.length_mm)


def canal_behind(image: Volume, line: Centerline) -> SacralCanal | None:
    """Trace the roof of the sacral canal to its caudal end.

    Parameters
    ----------
    image : Volume
    line : Centerline
        Posterior wall of the sacral bodies, from `sacral_back`.
    """
    straight = straighten(image, line)
    followed = follow_roof(straight)
    if followed is None:
        return None
    roof_mm, end, confidence = followed
    arc = straight.arc_mm[: end + 1]
    back = np.maximum(roof_mm[: end + 1] - _ROOF_TO_EPIDURAL_MM, 1.0)
    below = straight.arc_mm[end] + np.arange(1.0, _MARGIN_MM + 1.0)
    _, _, dorsal = line.frame_at(arc)
    back_lps = line.at(arc) + back[:, None] * dorsal
    whole = np.concatenate([arc, below])
    _, _, dorsal = line.frame_at(whole)
    middle = np.append(0.5 * (back + 1.0), np.full(len(below), 0.5 * (back[-1] + 1.0)))
    return SacralCanal(line.at(whole) + middle[:, None] * dorsal, back_lps, confidence)


def follow_roof(straight: StraightSacrum) -> tuple[FloatArray, int, float] | None:
    """Return the position of the roof, the row at which it ends, and the confidence.

    Dynamic programming over two states, roof and no roof; the second is final. The gain at each
    position is the ridge strength (marrow between dark lines) minus half the typical strength
    for this sacrum, so the optimal path ends where the roof ends.

    Returns
    -------
    roof_mm : ndarray, shape (n,)
        Offset of the middle of the roof in each row.
    end : int
        Last row with a roof.
    confidence : float
    """
    ridge = _ridges(straight)
    usable = straight.offset_mm >= ROOF_FROM_MM
    held = straight.inside[:, usable].mean(axis=1) > 0.7
    if not held.any():
        return None
    start = _ROOF_FRACTION * straight.length_mm
    first = int(np.argmax(held & (straight.arc_mm >= start)))
    last = len(held) - int(np.argmax(held[::-1])) - 1
    whole = straight.arc_mm[first : last + 1] < start + ROOF_WHOLE_MM
    if last - first < ROOF_WHOLE_MM / STEP_MM or not whole.any():  # cranial part not visible
        return None
    ridge, offset = ridge[first : last + 1, usable], straight.offset_mm[usable]
    usual = float(np.percentile(ridge[whole].max(axis=1), 70))
    noise = float(np.median(np.abs(ridge - np.median(ridge)))) * 1.48
    if usual <= 2.0 * noise or usual <= 0:
        return None
    gain = np.clip(ridge / usual, -0.5, 1.2) - 0.5
    place = straight.arc_mm[first : last + 1] / straight.length_mm
    usual_place = (place - _APEX_FRACTION) / _APEX_FRACTION_SD
    end_gain = -2.0 / STEP_MM * 0.5 * usual_place**2
    bright_end = _bright_canal_end(straight)
    if bright_end is not None:
        end_gain[max(bright_end - first, 1) :] = -np.inf
    path, end = _best_path(gain, end_gain)
    rows = np.arange(len(ridge))
    strength = np.clip(ridge[rows, path] / usual, 0.0, 1.2)
    above = strength[max(end - int(15 / STEP_MM), 0) : end + 1]
    under = ridge[end + 1 + int(1 / STEP_MM) : end + 1 + int(9 / STEP_MM)]
    if len(under) * STEP_MM < _MIN_BELOW_MM:
        return None
    # Strongest ridge below the end that could be a continuation of the roof.
    near = np.abs(offset[None, :] - (offset[path[end]] - 1.0)) <= 3.0
    below = np.clip(np.where(near, under, -np.inf).max(axis=1) / usual, 0.0, 1.2)
    drop = float(above.mean()) - float(below.mean())
    typical = float(np.exp(-0.5 * max(abs(float(usual_place[end])) - 1.0, 0.0) ** 2))
    roof = np.full(len(straight.arc_mm), offset[path[end]])
    roof[first : first + end + 1] = offset[path[: end + 1]]
    roof[:first] = offset[path[0]]
    trust = 1.0 if bright_end is None else BRIGHT_FAT_FACTOR
    return roof, first + end, trust * typical * float(np.clip(drop, 0.0, 1.0))


def _bright_canal_end(straight: StraightSacrum) -> int | None:
    """Return the row at which bright fat in the canal ends; None if the canal is dark.

    Fat fills the sacral canal down to the membrane that covers the hiatus.
    """
    canal = (straight.offset_mm >= 1.0) & (straight.offset_mm <= 9.0)
    smooth = gaussian_filter(straight.signal, (1.5 / STEP_MM, 1.0 / STEP_MM))
    level = np.percentile(smooth[:, canal], 70, axis=1)
    place = straight.arc_mm / straight.length_mm
    below_sac = (place >= FAT_STRETCH[0]) & (place <= FAT_STRETCH[1])
    if (level[below_sac] > FAT_FROM).mean() < 0.5:
        return None
    dark = np.flatnonzero((level <= FAT_FROM) & (place > FAT_STRETCH[0]))
    return int(dark[0]) if len(dark) else len(level)


def _ridges(straight: StraightSacrum) -> FloatArray:
    """Return the ridge strength: signal minus that of the darker lines anterior and posterior."""
    # Clipped so that fluid and fat brighter than marrow do not dominate the roof.
    clipped = np.minimum(straight.signal, BRIGHTEST)
    smooth = gaussian_filter(clipped, (2.0 / STEP_MM, 0.5 / STEP_MM), mode="nearest")
    best = np.full(smooth.shape, -np.inf)
    for half_mm in HALF_ROOF_MM:
        step = round(half_mm / STEP_MM)
        padded = np.pad(smooth, ((0, 0), (step, step)), mode="edge")
        darker = np.maximum(padded[:, : -2 * step], padded[:, 2 * step :])
        best = np.maximum(best, smooth - darker)
    bright = gaussian_filter(straight.signal, (2.0 / STEP_MM, 0.5 / STEP_MM)) > FAT_FROM
    return np.where(bright, np.minimum(best, 0.0), best)


def _best_path(gain: FloatArray, end_gain: FloatArray) -> tuple[npt.NDArray[np.intp], int]:
    """Return the path of maximum gain: the column in each row, and its last row."""
    rows, columns = gain.shape
    total = gain[0].copy()
    moves: npt.NDArray[Any] = np.zeros((rows, columns), np.int8)
    ends = np.full(rows, -np.inf)
    costs = ((-1, _NEARER_COST), (0, 0.0), (1, _FARTHER_COST))
    best_column = np.zeros(rows, np.intp)
    for row in range(rows):
        if row:
            options = [np.roll(total, move) - cost for move, cost in costs]
            options[0][-1] = options[2][0] = -np.inf
            moves[row] = np.argmax(options, axis=0) - 1
            total = np.max(options, axis=0) + gain[row]
        best_column[row] = int(total.argmax())
        ends[row] = total.max() + end_gain[row]
    end = int(ends.argmax())
    path = np.full(rows, best_column[end], np.intp)
    for row in range(end, 0, -1):
        path[row - 1] = path[row] - moves[row][path[row]]
    return path, end
