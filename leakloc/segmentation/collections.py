"""Bright signal outside the dura: candidates, their features, and what each one is.

Whatever is as bright as CSF, lies outside the dura and near the canal is a candidate. Every
candidate is measured and either accepted with a probability or named as a mimic with the
reason: nothing is dropped silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.segmentation.coordinates import CanalCoordinates
from leakloc.segmentation.dura import Dura
from leakloc.segmentation.result import Candidate
from leakloc.vocabulary import Compartment
from leakloc.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.settings import SegmentationSettings

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]
Voxels = tuple[npt.NDArray[np.intp], ...]
"""Indices (k, j, i) of some voxels."""

INTRATHECAL: Final = "intrathecal fluid"

SECTORS: Final = 12
"""Angular sectors about the sac in which occupancy is counted."""

DIM_RIM_MM: Final = 2.0
"""How far partial volume reaches around fluid."""

HALF: Final = 0.5
"""Fluid fraction at which a voxel counts as belonging to a piece, or to its rim."""

BESIDE_BRIGHTER: Final = "beside_brighter"
"""Feature: 1 where a piece is the evenly dimmer part of what touches it."""

LISTED_ML: Final = 0.15
"""Smaller pieces are noise and are not even listed as rejected."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A region around the canal with everything collections are judged by.

    Parameters
    ----------
    fraction : Volume
        Share of CSF-like fluid in the region.
    coordinates : CanalCoordinates
        Of the same grid.
    outside_mm : ndarray
        Distance outside the dura along the ray from the centreline, negative inside.
    dura : Dura
    fat_like_fluid : bool
        Whether fat is so bright that it cannot be told from fluid.
    tissue_bright : bool
        Whether marrow and muscle are bright, as at short echo times, but fat is not.
    """

    fraction: Volume
    coordinates: CanalCoordinates
    outside_mm: Array
    dura: Dura
    fat_like_fluid: bool
    tissue_bright: bool = False

    @classmethod
    def of(
        cls, fraction: Volume, dura: Dura, fat_like_fluid: bool, tissue_bright: bool = False
    ) -> Scene:
        """Measure a region (cropped to the canal's neighbourhood beforehand)."""
        coordinates = CanalCoordinates.of(fraction.geometry, dura.centerline)
        outside = np.empty(coordinates.arc.shape, np.float32)
        for k in range(len(outside)):  # plane by plane: the steps between take much memory
            outside[k] = _outside_mm(
                dura, coordinates.arc[k], coordinates.left[k], coordinates.dorsal[k]
            )
        return cls(fraction, coordinates, outside, dura, fat_like_fluid, tissue_bright)

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

    voxels: tuple[npt.NDArray[np.intp], ...]
    features: dict[str, float]


def find_collections(
    scene: Scene, settings: SegmentationSettings
) -> tuple[npt.NDArray[np.uint8], Mask, tuple[Candidate, ...]]:
    """Find, measure and judge every bright piece outside the dura.

    Parameters
    ----------
    scene : Scene
    settings : SegmentationSettings

    Returns
    -------
    labels : ndarray, uint8
        Collection ids on the scene's grid, from 1 by falling volume.
    intrathecal : ndarray, bool
        Pieces that turned out to lie inside the dura.
    candidates : tuple of Candidate
        Accepted ones by id, then rejected ones by falling volume.
    """
    pieces = _pieces(scene, settings)
    _add_dural_lines(pieces, scene)
    judged = [(piece, _judge(piece.features, scene, settings)) for piece in pieces]
    accepted = [(p, v) for p, v in judged if v.accepted]
    groups = _grouped(accepted, settings)
    labels = np.zeros(scene.fraction.array.shape, np.uint8)
    merged: list[tuple[_Piece, _Verdict]] = []
    for group in groups:
        merged.append(
            (
                _joined([p for p, _ in group], scene),
                max((v for _, v in group), key=lambda v: v.probability),
            )
        )
    merged.sort(key=lambda item: -item[0].features["volume_ml"])
    candidates = []
    for number, (piece, verdict) in enumerate(merged[:255], start=1):
        labels[piece.voxels] = number
        candidates.append(_candidate(number, piece, verdict, scene))
    rejected = sorted(
        ((p, v) for p, v in judged if not v.accepted),
        key=lambda item: -item[0].features["volume_ml"],
    )
    candidates.extend(_candidate(0, piece, verdict, scene) for piece, verdict in rejected[:60])
    intrathecal = np.zeros(labels.shape, bool)
    for piece, verdict in judged:
        if INTRATHECAL in verdict.mimics and not verdict.accepted:
            intrathecal[piece.voxels] = True
    return labels, intrathecal, tuple(candidates)


def _pieces(scene: Scene, settings: SegmentationSettings) -> list[_Piece]:
    from scipy import ndimage

    fraction, outside = scene.fraction.array, scene.outside_mm
    coordinates = scene.coordinates
    reach = np.hypot(coordinates.left, coordinates.dorsal)
    near = (reach <= settings.search_radius_mm) | (
        (np.abs(coordinates.left) <= settings.corridor_half_width_mm) & (coordinates.dorsal > 0)
    )
    near &= (coordinates.arc >= scene.dura.head_arc_mm) & (
        coordinates.arc <= scene.dura.centerline.length_mm
    )
    bright = near & (fraction >= settings.fluid_grow) & (outside > settings.dura_margin_mm)
    seeds = bright & (fraction >= settings.fluid_seed) & (outside > settings.seed_margin_mm)
    # Dim signal counts only next to bright: not along rims of metal or slow veins.
    steps = [max(round(DIM_RIM_MM / mm), 1) for mm in scene.fraction.geometry.spacing_kji_mm]
    for axis, count in enumerate(steps):
        line = np.ones([2 * count + 1 if n == axis else 1 for n in range(3)], bool)
        seeds = ndimage.binary_dilation(seeds, line) & bright
    bright = seeds
    labelled, count = ndimage.label(bright)
    if count == 0:
        return []
    volume = np.bincount(labelled[bright], weights=fraction[bright], minlength=count + 1)
    seeded = np.bincount(labelled[seeds], minlength=count + 1)
    wanted = np.flatnonzero(
        (volume * scene.fraction.geometry.voxel_volume_ml >= LISTED_ML) & (seeded > 0)
    )
    boxes = ndimage.find_objects(labelled)
    pieces = []
    for number in wanted:
        if number == 0:
            continue
        box = boxes[number - 1]
        inside = np.nonzero(labelled[box] == number)
        voxels = tuple(axis + part.start for axis, part in zip(inside, box, strict=True))
        dim = _dimmer_part(voxels, scene.fraction, settings)
        if dim is None:
            pieces.append(_Piece(voxels, _features(voxels, scene)))
            continue
        for side in (~dim, dim):
            for part in _connected(tuple(axis[side] for axis in voxels), scene):
                features = _features(part, scene) | {BESIDE_BRIGHTER: float(side is dim)}
                pieces.append(_Piece(part, features))
    return pieces


def _dimmer_part(
    voxels: Voxels, fraction: Volume, settings: SegmentationSettings
) -> npt.NDArray[np.bool_] | None:
    """Which voxels of a piece belong to tissue that is evenly dimmer than its fluid.

    Fat where suppression failed, as about metal, may touch fluid. Away from the rims, where
    partial volume blurs both, two tissues show as two levels of signal (Otsu, IEEE Trans Syst
    Man Cybern 1979;9:62); every other voxel goes with the nearer of them.

    Returns
    -------
    ndarray of bool, or None
        None where the piece is all of one signal.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    low = [max(int(axis.min()) - 1, 0) for axis in voxels]
    high = [int(axis.max()) + 2 for axis in voxels]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    at = tuple(axis - start for axis, start in zip(voxels, low, strict=True))
    share = fraction.array[box]
    piece = np.zeros(share.shape, np.float32)
    piece[at] = 1.0
    solid = ndimage.binary_erosion(piece)
    unit = fraction.geometry.voxel_volume_ml
    if solid.sum() * unit < 2 * settings.tissue_least_ml:
        return None
    around = ndimage.uniform_filter(piece, 3)
    level = ndimage.uniform_filter(share * piece, 3) / np.maximum(around, 1e-3)
    values = level[solid]
    if float(np.ptp(values)) < 1e-3:
        return None
    dim = solid & (level < threshold_otsu(values))  # type: ignore[no-untyped-call]
    bright = solid & ~dim
    means = [float(level[part].mean()) for part in (dim, bright)]
    least = min(float(dim.sum()), float(bright.sum())) * unit
    between = dim.sum() * bright.sum() / solid.sum() ** 2 * (means[1] - means[0]) ** 2
    apart = float(between / values.var())
    if (
        least < settings.tissue_least_ml
        or means[0] > settings.tissue_dimmer_than * means[1]
        or apart < settings.tissue_apart_least
    ):
        return None
    to_dim, to_bright = (
        ndimage.distance_transform_edt(~part, fraction.geometry.spacing_kji_mm)
        for part in (dim, bright)
    )
    return np.asarray((to_dim < to_bright)[at])


def _connected(voxels: Voxels, scene: Scene) -> list[Voxels]:
    """The connected parts of some voxels that are large enough to be listed."""
    from scipy import ndimage

    least = LISTED_ML / scene.fraction.geometry.voxel_volume_ml
    low = [int(axis.min()) for axis in voxels]
    shape = [int(axis.max()) - start + 1 for axis, start in zip(voxels, low, strict=True)]
    mask = np.zeros(shape, bool)
    mask[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = True
    labelled, count = ndimage.label(mask)
    found = [np.nonzero(labelled == number) for number in range(1, count + 1)]
    return [
        tuple(axis + start for axis, start in zip(part, low, strict=True))
        for part in found
        if len(part[0]) >= least
    ]


def _add_dural_lines(pieces: list[_Piece], scene: Scene) -> None:
    """Measure how dark the dura is between the sac and each piece, and how dented.

    A surface that cuts through fluid within the sac has no dark line along it, or one only
    where it happens to follow nerve roots: the lower quartile over the contact tells.
    """
    dura = scene.dura
    convex = dura.convex()  # CSF's pressure leaves no dents in the dura
    coordinates = scene.coordinates
    for piece in pieces:
        arc, left, dorsal = (
            axis[piece.voxels].astype(np.float64)
            for axis in (coordinates.arc, coordinates.left, coordinates.dorsal)
        )
        seen = dura.fluid_outside_at(arc, left, dorsal)
        if seen is not None and np.isfinite(seen).any():
            piece.features["network"] = float(np.nanmean(seen))
        filled = np.hypot(left, dorsal) <= convex.radius_at(np.maximum(arc, 0), left, dorsal)
        piece.features["dent_share"] = float(filled.mean())
    centers = scene.fraction.geometry
    owner = np.full(centers.shape, -1, np.int32)
    for number, piece in enumerate(pieces):
        owner[piece.voxels] = number
    rows, columns = np.nonzero(dura.radius_mm > 0)
    radius, angle = dura.radius_mm[rows, columns], dura.angle_rad[columns]
    at = dura.centerline.at(dura.arc_mm[rows])
    _, lefts, dorsals = dura.centerline.frame_at(dura.arc_mm[rows])
    outward = np.cos(angle)[:, None] * lefts + np.sin(angle)[:, None] * dorsals

    def points(offset_mm: float) -> FloatArray:
        return np.asarray(at + (radius + offset_mm)[:, None] * outward)

    values = {
        mm: scene.fraction.sample(points(mm)) for mm in (-1.6, -1.2, -0.4, 0, 0.4, 0.8, 1.6, 2)
    }
    inner = np.maximum(values[-1.6], values[-1.2])
    outer = np.maximum(values[1.6], values[2])
    darkest = np.min([values[mm] for mm in (-0.4, 0, 0.4, 0.8)], axis=0)
    line = np.minimum(inner, outer) - darkest
    beside = np.round(centers.kji_from_lps(points(1.6))).astype(int)
    inside = ((beside >= 0) & (beside < np.array(centers.shape))).all(axis=1)
    touching = np.full(len(beside), -1, np.int32)
    touching[inside] = owner[tuple(beside[inside].T)]
    for number, piece in enumerate(pieces):
        contact = touching == number
        piece.features["contact_rays"] = float(contact.sum())
        piece.features["dural_line"] = (
            float(np.percentile(line[contact], 25)) if contact.any() else 0.0
        )
        piece.features["dural_line_median"] = (
            float(np.median(line[contact])) if contact.any() else 0.0
        )


def _features(voxels: tuple[npt.NDArray[np.intp], ...], scene: Scene) -> dict[str, float]:
    """Measure a piece; units in the names."""
    geometry = scene.fraction.geometry
    fraction = scene.fraction.array[voxels].astype(np.float64)
    arc = scene.coordinates.arc[voxels].astype(np.float64)
    left = scene.coordinates.left[voxels].astype(np.float64)
    dorsal = scene.coordinates.dorsal[voxels].astype(np.float64)
    outside = scene.outside_mm[voxels].astype(np.float64)
    volume_ml = float(fraction.sum()) * geometry.voxel_volume_ml + rim_ml(
        voxels, scene.fraction, scene.outside_mm > 0.0
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
        "contact_share": float(weight[outside < 2.5].sum()),
        "near_share": float(weight[outside < 8.0].sum()),
        "sectors": float((share > 0.02).sum()),
        "ventral_share": float(weight[(dorsal < 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "dorsal_share": float(weight[(dorsal > 0) & (np.abs(dorsal) > np.abs(left))].sum()),
        "lateral_share": float(weight[np.abs(dorsal) <= np.abs(left)].sum()),
        "thickness_mm": thickness,
        # A ball fills the sphere of its volume to 1, sheets and tubes less.
        "roundness": float(np.clip(0.5 * thickness / radius, 0, 1)),
        "elongation": float(np.sqrt(spread[2] / max(spread[1], 1e-6))),
        "brightness": float(np.percentile(fraction, 75)),
        "below_tip_mm": float(weight @ arc - tip) if tip is not None else float("-inf"),
    }


def rim_ml(
    voxels: tuple[npt.NDArray[np.intp], ...], fraction: Volume, outside: npt.NDArray[np.bool_]
) -> float:
    """Fluid in the voxels next to a piece that it fills by less than half.

    Their signal above that of the shell around them: next to fat or muscle, which are not
    black, the rest of the signal is theirs.

    Parameters
    ----------
    voxels : tuple of ndarray
        Indices (k, j, i) of the piece.
    fraction : Volume
        Share of fluid, 0..1.
    outside : ndarray of bool
        Outside the sac, on the grid of `fraction`.
    """
    from scipy import ndimage

    low = [max(int(axis.min()) - 2, 0) for axis in voxels]
    high = [int(axis.max()) + 3 for axis in voxels]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    share = fraction.array[box]
    piece = np.zeros(share.shape, bool)
    piece[tuple(axis - start for axis, start in zip(voxels, low, strict=True))] = True
    free = outside[box] & ~piece & (share < HALF)
    rim = ndimage.binary_dilation(piece) & free
    shell = ndimage.binary_dilation(piece, iterations=2) & free & ~rim
    around = float(np.median(share[shell])) if shell.any() else 0.0
    filled = np.clip((share[rim] - around) / (1 - around), 0.0, 1.0)
    return float(filled.sum()) * fraction.geometry.voxel_volume_ml


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


@dataclass(frozen=True)
class _Verdict:
    accepted: bool
    probability: float
    reason: str
    mimics: tuple[str, ...]


def _judge(f: dict[str, float], scene: Scene, settings: SegmentationSettings) -> _Verdict:
    """Name the mimic, or accept with a probability."""
    mimic = _mimic(f, scene, settings)
    if mimic is not None:
        name, probability, reason = mimic
        return _Verdict(False, probability, reason, (name,))
    considered = tuple(_considered(f, scene))
    if f["volume_ml"] < settings.collection_min_ml:
        return _Verdict(
            False, 0.2, f"Only {f['volume_ml']:.2f} mL: below what is reported.", considered
        )
    lined = (
        f["network"] >= settings.thin_network_least
        if "network" in f
        else f["dural_line_median"] >= settings.thin_dural_line
    ) and f["contact_rays"] >= settings.thin_contact_rays
    if f["thickness_mm"] < settings.collection_min_thickness_mm and not lined:
        return _Verdict(
            False, 0.2,
            f"At most {f['thickness_mm']:.1f} mm thick: could be the blurred edge of the sac.",
            considered,
        )  # fmt: skip
    # Evidence adds up: amount, thickness, brightness, and contact with the dura.
    evidence = (
        1.2 * np.log2(f["volume_ml"] / settings.collection_min_ml)
        + 0.6 * (f["thickness_mm"] - settings.collection_min_thickness_mm)
        + 4.0 * (f["brightness"] - 0.75)
        + 1.0 * min(f["contact_share"] * 4, 1.0)
        - 1.5
    )
    probability = float(np.clip(1 / (1 + np.exp(-evidence)), 0.02, 0.98))
    if scene.fat_like_fluid:
        return _Verdict(
            False, min(probability, 0.3),
            "As bright as CSF, but so is fat in this series: without fat suppression the two "
            "cannot be told apart.",
            ("epidural fat", *considered),
        )  # fmt: skip
    if scene.tissue_bright:
        probability = min(probability, settings.bright_tissue_most)
    accepted = probability >= settings.collection_min_probability
    place = "in contact with the dura" if f["gap_mm"] < 2.0 else "near the dura"
    reason = (
        f"{f['volume_ml']:.1f} mL as bright as CSF, up to {f['thickness_mm']:.1f} mm thick, "
        f"over {f['length_mm']:.0f} mm of the canal, {place}."
    )
    return _Verdict(accepted, probability, reason, considered)


def _mimic(
    f: dict[str, float], scene: Scene, settings: SegmentationSettings
) -> tuple[str, float, str] | None:
    """Name, probability of a leak after all, and the reason; None for no mimic."""
    if f["dorsal_mm"] < -20.0 or (f["dorsal_mm"] < -8 and f["gap_mm"] > 6.0):
        return "abdominal or disc fluid", 0.02, "Lies in front of the canal, apart from it."
    if f.get(BESIDE_BRIGHTER, 0.0) > 0:
        return (
            "epidural fat", 0.2,
            "Evenly dimmer than the fluid it touches: fat where its suppression failed, or blood.",
        )  # fmt: skip
    if scene.tissue_bright and f["brightness"] < settings.bright_tissue_least:
        return (
            "marrow, muscle or blood", 0.2,
            f"Only {f['brightness']:.0%} as bright as CSF, and other tissue is bright here too.",
        )  # fmt: skip
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
    touching = f["contact_rays"] >= 25 and f["contact_share"] > 0.25
    if "network" in f:
        # The network weighs line, shape and neighbours together; the line alone may be faint.
        if touching and f["network"] < settings.network_least:
            if f["lateral_share"] > 0.6 and f["length_mm"] < 45.0:
                return (
                    "perineural cyst", 0.2,
                    "A pocket beside the sac, on a root, unlike fluid along the dura.",
                )  # fmt: skip
            return (
                INTRATHECAL, 0.1,
                "In the context of its neighbours it lies inside the dura.",
            )  # fmt: skip
    elif touching and f["dural_line"] < settings.dural_line_least:
        return (
            INTRATHECAL, 0.1,
            "No dark dural line lies between it and the sac: it is fluid within the sac.",
        )  # fmt: skip
    if "network" not in f and f["dent_share"] > settings.dent_share_most:
        return (
            INTRATHECAL, 0.1,
            "It would lie in a dent of the sac: nerve roots, not the dura, bound it inwards.",
        )  # fmt: skip
    if f["lateral_share"] > 0.6 and f["length_mm"] < 45.0:
        if f["roundness"] > 0.72 and f["thickness_mm"] > 6.0:
            return (
                "perineural cyst", 0.2,
                f"A round pocket of {f['thickness_mm']:.0f} mm beside the sac, on a root.",
            )  # fmt: skip
        unlike_sheet = f.get("network", 0.0) < settings.thin_network_least
        if f["volume_ml"] < 1.2 and f["thickness_mm"] < 4.5 and unlike_sheet:
            return (
                "nerve root sleeve", 0.1,
                f"A thin lateral outpouching of {f['volume_ml']:.1f} mL where a root leaves.",
            )  # fmt: skip
    return None


def _considered(f: dict[str, float], scene: Scene) -> list[str]:
    names = []
    if f["lateral_share"] > 0.4:
        names.append("nerve root sleeve")
        names.append("perineural cyst")
    if f["dorsal_share"] > 0.4:
        names.append("epidural fat")
        names.append("facet effusion or synovial cyst")
    if f["ventral_share"] > 0.4:
        names.append("epidural vein")
    return names


def _grouped(
    items: list[tuple[_Piece, _Verdict]], settings: SegmentationSettings
) -> list[list[tuple[_Piece, _Verdict]]]:
    """Pieces of one collection: close along the canal, on the same side."""
    groups: list[list[tuple[_Piece, _Verdict]]] = []
    for item in sorted(items, key=lambda i: -i[0].features["volume_ml"]):
        for group in groups:
            if any(_belong(item[0].features, other.features, settings) for other, _ in group):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _belong(a: dict[str, float], b: dict[str, float], settings: SegmentationSettings) -> bool:
    gap = max(a["arc_start_mm"], b["arc_start_mm"]) - min(a["arc_stop_mm"], b["arc_stop_mm"])
    if gap > settings.collection_gap_mm:
        return False
    around = a["sectors"] >= 6 or b["sectors"] >= 6
    angles = [np.arctan2(f["dorsal_mm"], f["left_mm"]) for f in (a, b)]
    apart = abs((angles[0] - angles[1] + np.pi) % (2 * np.pi) - np.pi)
    return bool(around or apart < np.pi / 2)


def _joined(pieces: list[_Piece], scene: Scene) -> _Piece:
    if len(pieces) == 1:
        return pieces[0]
    voxels = tuple(np.concatenate([p.voxels[axis] for p in pieces]) for axis in range(3))
    return _Piece(voxels, _features(voxels, scene))


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
