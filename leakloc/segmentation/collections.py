"""Fluid outside the dura: candidates, their features, and what each one is.

Within its reach the dura network gives the expected fraction of extradural fluid in each voxel;
farther out, signal as bright as CSF that is connected with it continues a collection. Other bright
signal near the canal is measured and listed with the mimic it is taken for: nothing is dropped
silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.vocabulary import Compartment
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.dura import RADIUS_RANGE_MM, Dura
from leakloc.segmentation.result import Candidate

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]
Voxels = tuple[npt.NDArray[np.intp], ...]
"""Indices (k, j, i) of some voxels."""

SECTORS: Final = 12
"""Angular sectors about the sac in which occupancy is counted."""

HALF: Final = 0.5
"""Fluid fraction at which a voxel counts as belonging to a piece, or to its rim."""

BRIGHT: Final = 0.65
"""Signal relative to CSF from which on a place outside the dura is listed as a candidate: above
slow veins and fat whose suppression is incomplete (0.43)."""

DIMMER: Final = 0.85
"""Signal relative to CSF below which bright tissue is taken for fat: fluid reaches 0.85 to 1.2."""

MIN_BRIGHTNESS: Final = 0.5
"""A collection with less signal relative to CSF is not reported: fat that is suppressed in part.
The least of 133 collections of development patients and phantoms, thin layers among them: 0.56."""

BLUR_MM: Final = 1.2
"""Distance outside the dura beyond which bright signal is more than the blurred edge of the sac."""

PEAK_ML: Final = 0.1
"""Part of a piece that tells how sure the network is of it, whatever threshold cuts it out."""

LISTED_ML: Final = 0.15
"""Smaller pieces are noise and are not even listed as rejected."""

MAX_REJECTED: Final = 60
"""Rejected candidates listed, largest first."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A region around the canal with everything collections are judged by.

    Parameters
    ----------
    fraction : Volume
        Fraction of each voxel that CSF-like fluid fills: outside the dura that of the dura
        network within its reach, the clipped signal elsewhere.
    signal : Volume
        The same from the signal alone.
    coordinates : CanalCoordinates
        Of the same grid.
    outside_mm : ndarray
        Distance outside the dura along the ray from the centreline, negative inside.
    reached : ndarray of bool
        Outside the dura and within the reach of the network.
    dura : Dura
    fat_like_fluid : bool
        Whether fat is so bright that it cannot be told from fluid.
    tissue_bright : bool
        Whether marrow and muscle are bright, as at short echo times, but fat is not.
    """

    fraction: Volume
    signal: Volume
    coordinates: CanalCoordinates
    outside_mm: Array
    reached: Mask
    dura: Dura
    fat_like_fluid: bool
    tissue_bright: bool = False

    @classmethod
    def of(
        cls, signal: Volume, dura: Dura, fat_like_fluid: bool, tissue_bright: bool = False
    ) -> Scene:
        """Measure a region (cropped to the canal's neighbourhood beforehand).

        Parameters
        ----------
        signal : Volume
            Fluid fraction by signal alone, 0..1.
        """
        c = CanalCoordinates.of(signal.geometry, dura.centerline)
        outside = np.empty(c.arc.shape, np.float32)
        for k in range(len(outside)):  # plane by plane: the steps between take much memory
            outside[k] = _outside_mm(dura, c.arc[k], c.left[k], c.dorsal[k])
        fraction = signal
        reached = (outside > 0) & (np.hypot(c.left, c.dorsal) <= RADIUS_RANGE_MM[1])
        reached &= (c.arc >= 0) & (c.arc <= dura.arc_mm[-1])
        values = dura.fluid_outside_at(c.arc[reached], c.left[reached], c.dorsal[reached])
        if values is None:
            reached[:] = False
        else:
            known = np.isfinite(values)  # rounding may put outermost voxels beyond the reach
            reached[reached] = known
            array = signal.array.copy()
            array[reached] = values[known]
            fraction = signal.with_array(array, "dura network outside the dura")
        return cls(fraction, signal, c, outside, reached, dura, fat_like_fluid, tissue_bright)

    @property
    def sac(self) -> Mask:
        """Voxels whose centre the spinal dura encloses."""
        sac = np.asarray(self.outside_mm <= 0.0)
        if self.dura.head_arc_mm > 0:  # above it, the dura encloses the cisterns
            sac &= self.coordinates.arc >= self.dura.head_arc_mm
        return sac


def _outside_mm(dura: Dura, arc: Array, left: Array, dorsal: Array) -> FloatArray:
    """Distance outside the dura along the ray from the centreline, negative inside."""
    # Planes of an oblique grid reach a little past both ends of the centreline.
    last = float(dura.arc_mm[-1]) if dura.tip_arc_mm is None else None
    outside = np.hypot(left, dorsal) - dura.radius_at(np.clip(arc, 0.0, last), left, dorsal)
    if dura.tip_arc_mm is not None:  # below the tip there is only the tip to be near to
        below = np.maximum(arc - np.float32(dura.tip_arc_mm), 0)
        outside = np.where(below > 0, np.hypot(outside, below), outside)
    return np.asarray(outside)


@dataclass(frozen=True, eq=False)
class _Piece:
    """A connected candidate and its voxels."""

    voxels: Voxels
    features: dict[str, float]
    fluid: bool
    """Whether the dura network takes it for extradural fluid."""


def find_collections(
    scene: Scene, settings: SegmentationSettings
) -> tuple[npt.NDArray[np.uint8], tuple[Candidate, ...]]:
    """Find, measure and judge every bright piece outside the dura.

    Parameters
    ----------
    scene : Scene
    settings : SegmentationSettings

    Returns
    -------
    labels : ndarray, uint8
        Collection ids on the scene's grid, from 1 by falling volume.
    candidates : tuple of Candidate
        Accepted ones by id, then rejected ones by falling volume.
    """
    pieces = _pieces(scene, settings)
    joined = [
        _merge_pieces(group, scene) for group in _grouped([p for p in pieces if p.fluid], settings)
    ]
    judged = [(p, _judge(p, scene, settings)) for p in joined]
    judged += [(p, _name(p.features, scene, settings)) for p in pieces if not p.fluid]
    judged.sort(key=lambda item: -item[0].features["volume_ml"])
    labels = np.zeros(scene.fraction.array.shape, np.uint8)
    accepted = [item for item in judged if item[1].accepted][:255]
    for number, (piece, _) in enumerate(accepted, start=1):
        labels[piece.voxels] = number
    rejected = [item for item in judged if not item[1].accepted][:MAX_REJECTED]
    candidates = [_candidate(n, *item, scene) for n, item in enumerate(accepted, start=1)]
    return labels, (*candidates, *(_candidate(0, *item, scene) for item in rejected))


def _pieces(scene: Scene, settings: SegmentationSettings) -> list[_Piece]:
    """Connected pieces of fluid, and of other bright signal near the canal."""
    c = scene.coordinates
    reach = np.hypot(c.left, c.dorsal)
    near = (reach <= settings.search_radius_mm) | (
        (np.abs(c.left) <= settings.corridor_half_width_mm) & (c.dorsal > 0)
    )
    near &= (c.arc >= scene.dura.head_arc_mm) & (c.arc <= scene.dura.centerline.length_mm)
    near &= scene.outside_mm > 0
    fluid = near & (scene.fraction.array >= settings.fluid_min_fraction)
    if scene.fat_like_fluid:
        fluid &= scene.reached  # beyond, bright fat would connect with everything
    pieces = _connected(fluid, scene, scene.reached)
    other = near & (scene.signal.array >= BRIGHT) & (scene.outside_mm > BLUR_MM)
    for piece in pieces:
        other[piece.voxels] = False
    return pieces + _connected(other, scene, None)


def _connected(mask: Mask, scene: Scene, seeds: Mask | None) -> list[_Piece]:
    """Connected pieces worth listing; of fluid, those that hold a voxel of `seeds`."""
    from scipy import ndimage

    labelled, count = ndimage.label(mask)
    if count == 0:
        return []
    signal = scene.fraction if seeds is not None else scene.signal
    volume = np.bincount(labelled[mask], weights=signal.array[mask], minlength=count + 1)
    wanted = volume * signal.geometry.voxel_volume_ml >= LISTED_ML
    if seeds is not None:
        wanted &= np.bincount(labelled[seeds & mask], minlength=count + 1) > 0
    wanted[0] = False
    boxes = ndimage.find_objects(labelled)
    pieces = []
    for number in np.flatnonzero(wanted):
        box = boxes[number - 1]
        inside = np.nonzero(labelled[box] == number)
        voxels = tuple(axis + part.start for axis, part in zip(inside, box, strict=True))
        if seeds is not None:
            kept = _of_greatest_overlap(scene.fraction.array[voxels])
            voxels = tuple(axis[kept] for axis in voxels)
        features = _features(voxels, scene, signal)
        pieces.append(_Piece(voxels, features, seeds is not None))
    return pieces


def _of_greatest_overlap(fraction: Array) -> Mask:
    """Voxels of a piece whose mask has the greatest expected Dice coefficient.

    Where the network is sure of every voxel that is a threshold of one half; where it knows that
    there is fluid, but not exactly in which voxels, it is lower (Lipton et al., ECML PKDD 2014,
    doi 10.1007/978-3-662-44851-9_15).

    Parameters
    ----------
    fraction : ndarray, shape (n,)
        Expected fraction of fluid.
    """
    falling = np.sort(fraction.astype(np.float64))[::-1]
    dice = 2 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + falling.sum())
    return np.asarray(fraction >= falling[int(dice.argmax())])


def _features(voxels: Voxels, scene: Scene, fluid: Volume) -> dict[str, float]:
    """Measure a piece; units in the names."""
    geometry = fluid.geometry
    fraction = fluid.array[voxels].astype(np.float64)
    arc = scene.coordinates.arc[voxels].astype(np.float64)
    left = scene.coordinates.left[voxels].astype(np.float64)
    dorsal = scene.coordinates.dorsal[voxels].astype(np.float64)
    outside = scene.outside_mm[voxels].astype(np.float64)
    volume_ml = float(fraction.sum()) * geometry.voxel_volume_ml + rim_ml(
        voxels, fluid, scene.outside_mm > 0.0
    )
    weight = fraction / fraction.sum()
    angle = np.arctan2(dorsal, left)
    sector = ((angle + np.pi) / (2 * np.pi) * SECTORS).astype(int) % SECTORS
    share = np.bincount(sector, weights=weight, minlength=SECTORS)
    points = np.stack([arc, left, dorsal], axis=1)
    spread = np.sort(np.linalg.eigvalsh(np.cov(points.T, aweights=fraction) + 1e-6 * np.eye(3)))
    thickness = _thickness_mm(voxels, geometry.spacing_ijk_mm)
    radius = (3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    tip = scene.dura.tip_arc_mm
    return {
        "volume_ml": volume_ml,
        "length_mm": float(np.ptp(arc)),
        "arc_mm": float(weight @ arc),
        "arc_start_mm": float(np.percentile(arc, 2)),
        "arc_stop_mm": float(np.percentile(arc, 98)),
        "left_mm": float(weight @ left),
        "dorsal_mm": float(weight @ dorsal),
        "gap_mm": float(np.percentile(outside, 1)),
        "outside_mm": float(weight @ outside),
        "reach_mm": float(np.percentile(outside, 98)),
        "reach_left_mm": float(np.percentile(np.abs(left), 98)),
        "contact_fraction": float(weight[outside < 2.5].sum()),
        "near_fraction": float(weight[outside < 8.0].sum()),
        "sectors": float((share > 0.02).sum()),
        "ventral_fraction": float(weight[(dorsal < 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "dorsal_fraction": float(weight[(dorsal > 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "lateral_fraction": float(weight[np.abs(dorsal) <= np.abs(left)].sum()),
        "thickness_mm": thickness,
        # A ball fills the sphere of its volume to 1, sheets and tubes less.
        "roundness": float(np.clip(0.5 * thickness / radius, 0, 1)),
        "elongation": float(np.sqrt(spread[2] / max(spread[1], 1e-6))),
        "brightness": float(np.percentile(scene.signal.array[voxels], 75)),
        "network": _peak_fraction(voxels, scene),
        "below_tip_mm": float(weight @ arc - tip) if tip is not None else float("-inf"),
    }


def rim_of(
    voxels: Voxels, fraction: Volume, outside: Mask
) -> tuple[Voxels, npt.NDArray[np.float64]]:
    """Voxels next to a piece that it fills by less than half, and by how much.

    What counts is the signal above that of the shell around them: next to fat or muscle, which
    are not black, the rest of the signal is theirs.

    Parameters
    ----------
    voxels : tuple of ndarray
        Indices (k, j, i) of the piece.
    fraction : Volume
        Fraction of fluid, 0..1.
    outside : ndarray of bool
        Outside the sac, on the grid of `fraction`.

    Returns
    -------
    rim : tuple of ndarray
        Indices (k, j, i).
    filled : ndarray, shape (n,)
        Fraction of each that fluid fills.
    """
    from scipy import ndimage

    low = [max(int(axis.min()) - 2, 0) for axis in voxels]
    high = [int(axis.max()) + 3 for axis in voxels]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    near = fraction.array[box]
    piece = np.zeros(near.shape, bool)
    piece[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = True
    free = outside[box] & ~piece & (near < HALF)
    rim = ndimage.binary_dilation(piece) & free
    shell = ndimage.binary_dilation(piece, iterations=2) & free & ~rim
    around = float(np.median(near[shell])) if shell.any() else 0.0
    filled = np.clip((near[rim].astype(np.float64) - around) / (1 - around), 0.0, 1.0)
    return tuple(axis + start for axis, start in zip(np.nonzero(rim), low, strict=True)), filled


def rim_ml(voxels: Voxels, fraction: Volume, outside: Mask) -> float:
    """Fluid in the rim of a piece (see `rim_of`)."""
    return float(rim_of(voxels, fraction, outside)[1].sum()) * fraction.geometry.voxel_volume_ml


def _thickness_mm(
    voxels: tuple[npt.NDArray[np.intp], ...], spacing_ijk_mm: tuple[float, float, float]
) -> float:
    """Diameter of the largest ball inside."""
    import SimpleITK as sitk

    low = [int(axis.min()) - 1 for axis in voxels]
    shape = [int(axis.max()) - start + 2 for axis, start in zip(voxels, low, strict=True)]
    mask = np.zeros(shape, np.uint8)
    mask[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(spacing_ijk_mm)
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
        )
    )
    # Distances run to the centres of border voxels: half a voxel more on either side.
    return float(2 * distance.max() + min(spacing_ijk_mm))


def _peak_fraction(voxels: Voxels, scene: Scene) -> float:
    """Fraction of fluid by the network that `PEAK_ML` of a piece reach or exceed."""
    values = np.sort(scene.fraction.array[voxels][scene.reached[voxels]])
    count = max(round(PEAK_ML / scene.fraction.geometry.voxel_volume_ml), 1)
    return float(values[-min(count, len(values))]) if len(values) else 0.0


@dataclass(frozen=True)
class _Verdict:
    accepted: bool
    probability: float
    reason: str
    mimics: tuple[str, ...]


def _judge(piece: _Piece, scene: Scene, settings: SegmentationSettings) -> _Verdict:
    """Accept a piece of fluid with a probability, or say why not."""
    f = piece.features
    considered = tuple(_considered(f))
    if f["volume_ml"] < settings.collection_min_ml:
        return _Verdict(
            False, 0.2, f"Only {f['volume_ml']:.2f} mL: below what is reported.", considered
        )
    probability = probability_of(f)
    if f["brightness"] < MIN_BRIGHTNESS:
        return _Verdict(
            False,
            0.2,
            f"Only {f['brightness']:.0%} as bright as CSF.",
            ("epidural fat", *considered),
        )
    if scene.fat_like_fluid:
        return _Verdict(
            False, min(probability, 0.3),
            "As bright as CSF, but so is fat in this series: without fat suppression the two "
            "cannot be told apart.",
            ("epidural fat", *considered),
        )  # fmt: skip
    if scene.tissue_bright:
        probability = min(probability, settings.max_bright_tissue_probability)
    accepted = probability >= settings.collection_min_probability
    place = "in contact with the dura" if f["gap_mm"] < 2.0 else "near the dura"
    reason = (
        f"{f['volume_ml']:.1f} mL of CSF-like signal, up to {f['thickness_mm']:.1f} mm thick, "
        f"over {f['length_mm']:.0f} mm of the canal, {place}."
    )
    return _Verdict(accepted, probability, reason, considered)


def probability_of(features: dict[str, float]) -> float:
    """Calibrated probability that a piece of fluid is an extradural collection.

    Logistic function of `confidence_evidence`, fitted by `pipelines/fit_confidence.py`.
    """
    evidence = confidence_evidence(
        features["network"], features["contact_fraction"], features["volume_ml"]
    )
    logit = float(evidence @ np.array(CONFIDENCE))
    return float(np.clip(1 / (1 + np.exp(-logit)), 0.02, 0.98))


def confidence_evidence(
    network: npt.ArrayLike, contact_fraction: npt.ArrayLike, volume_ml: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Columns that `CONFIDENCE` weights, shape (..., 4).

    One, the log odds of the peak fraction by the network, the contact with the sac from 0 to 1,
    where a fifth of a piece is full contact (pseudomeningoceles have a neck), and the logarithm
    of the volume in mL: small pieces apart from the sac are often cysts.
    """
    odds = np.clip(np.asarray(network, float), 0.02, 0.98)
    contact = np.clip(np.asarray(contact_fraction, float) / 0.2, 0.0, 1.0)
    columns = (np.ones_like(odds), np.log(odds / (1 - odds)), contact, np.log(volume_ml))
    return np.stack(columns, axis=-1)


CONFIDENCE: Final = (-2.88, 2.31, 3.53, 0.72)
"""Weights of `confidence_evidence`: 213 pieces, four of them false, of development patients (seeds
0 to 6 and 11; the network was trained on these patients) and of phantoms (seeds 30 to 33)."""


def _name(f: dict[str, float], scene: Scene, settings: SegmentationSettings) -> _Verdict:
    """What bright signal that the network does not take for fluid is, by its place."""
    name, probability, reason = _mimic(f, scene, settings)
    return _Verdict(False, probability, reason, (name,))


def _mimic(
    f: dict[str, float], scene: Scene, settings: SegmentationSettings
) -> tuple[str, float, str]:
    """Name, probability of a leak after all, and the reason."""
    if f["dorsal_mm"] < -20.0 or (f["dorsal_mm"] < -8 and f["gap_mm"] > 6.0):
        return "abdominal or disc fluid", 0.02, "Lies in front of the canal, apart from it."
    if scene.fat_like_fluid:
        return "epidural fat", 0.1, "Bright as fat is in this series, and unlike fluid in shape."
    if f["brightness"] < DIMMER:
        return "epidural fat", 0.1, f"Only {f['brightness']:.0%} as bright as CSF."
    if f["gap_mm"] > settings.contact_gap_mm:
        if f["dorsal_mm"] > 12.0 and abs(f["left_mm"]) < f["dorsal_mm"]:
            return (
                "seroma apart from the canal", 0.15,
                f"Lies behind the spine, {f['gap_mm']:.0f} mm from the dura, without a connection.",
            )  # fmt: skip
        if f["dorsal_mm"] > -4.0 and f["reach_left_mm"] < 30.0 and f["volume_ml"] < 3.0:
            return (
                "facet effusion or synovial cyst", 0.1,
                f"A small pocket beside the joints, {f['gap_mm']:.0f} mm from the dura.",
            )  # fmt: skip
        return "fluid apart from the canal", 0.05, f"{f['gap_mm']:.0f} mm from the dura."
    if f["lateral_fraction"] > 0.6 and f["length_mm"] < 45.0:
        if f["roundness"] > 0.72 and f["thickness_mm"] > 6.0:
            return (
                "perineural cyst", 0.2,
                f"A round pocket of {f['thickness_mm']:.0f} mm beside the sac, on a root.",
            )  # fmt: skip
        return (
            "nerve root sleeve", 0.1,
            f"A lateral outpouching of {f['volume_ml']:.1f} mL where a root leaves.",
        )  # fmt: skip
    if f["ventral_fraction"] > 0.5 and f["thickness_mm"] < 4.0:
        return "epidural vein", 0.1, "Thin bright signal in front of the sac, unlike a layer."
    return "epidural fat", 0.2, "Unlike a layer of fluid along the dura in shape and signal."


def _considered(f: dict[str, float]) -> list[str]:
    names = []
    if f["lateral_fraction"] > 0.4:
        names += ["nerve root sleeve", "perineural cyst"]
    if f["dorsal_fraction"] > 0.4:
        names += ["epidural fat", "facet effusion or synovial cyst"]
    if f["ventral_fraction"] > 0.4:
        names.append("epidural vein")
    return names


def _grouped(pieces: list[_Piece], settings: SegmentationSettings) -> list[list[_Piece]]:
    """Pieces of one collection: close along the canal, on the same side."""
    groups: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: -piece.features["volume_ml"]):
        for group in groups:
            if any(_belong(piece.features, other.features, settings) for other in group):
                group.append(piece)
                break
        else:
            groups.append([piece])
    return groups


def _belong(a: dict[str, float], b: dict[str, float], settings: SegmentationSettings) -> bool:
    gap = max(a["arc_start_mm"], b["arc_start_mm"]) - min(a["arc_stop_mm"], b["arc_stop_mm"])
    if gap > settings.collection_gap_mm:
        return False
    around = a["sectors"] >= 6 or b["sectors"] >= 6
    angles = [np.arctan2(f["dorsal_mm"], f["left_mm"]) for f in (a, b)]
    apart = abs((angles[0] - angles[1] + np.pi) % (2 * np.pi) - np.pi)
    return bool(around or apart < np.pi / 2)


def _merge_pieces(pieces: list[_Piece], scene: Scene) -> _Piece:
    if len(pieces) == 1:
        return pieces[0]
    voxels = tuple(np.concatenate([p.voxels[axis] for p in pieces]) for axis in range(3))
    return _Piece(voxels, _features(voxels, scene, scene.fraction), True)


def _candidate(number: int, piece: _Piece, verdict: _Verdict, scene: Scene) -> Candidate:
    fraction = scene.fraction.array[piece.voxels].astype(np.float64)
    center = np.average(np.stack(piece.voxels, axis=1), axis=0, weights=fraction)
    return Candidate(
        id=number,
        accepted=verdict.accepted,
        probability=verdict.probability,
        volume_ml=piece.features["volume_ml"],
        center_lps=scene.fraction.geometry.lps_from_kji(center),
        reason=verdict.reason,
        mimics=verdict.mimics,
        compartments=_compartments(piece.voxels, fraction, scene),
        features=dict(piece.features),
    )


def _compartments(
    voxels: tuple[npt.NDArray[np.intp], ...], fraction: FloatArray, scene: Scene
) -> tuple[Compartment, ...]:
    """Where it lies, by place: at least a tenth of the volume, or 0.2 mL."""
    left = np.abs(scene.coordinates.left[voxels])
    dorsal = scene.coordinates.dorsal[voxels]
    outside = scene.outside_mm[voxels]
    subcutaneous = dorsal > 50.0
    epidural = (outside <= 9.0) & (left < 14.0) & ~subcutaneous
    foraminal = ~epidural & ~subcutaneous & (left >= 12.0) & (left < 30.0) & (np.abs(dorsal) < 14)
    places: dict[Compartment, Mask] = {
        "epidural": epidural,
        "foraminal": foraminal,
        "paraspinal": ~epidural & ~foraminal & ~subcutaneous,
        "subcutaneous": subcutaneous,
    }
    unit = scene.fraction.geometry.voxel_volume_ml
    total = float(fraction.sum()) * unit
    return tuple(
        name
        for name, where in places.items()
        if float(fraction[where].sum()) * unit >= min(0.2, 0.5 * total)
    )
