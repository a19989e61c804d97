"""The segmentation stage: from a myelogram to the sac and the fluid outside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import AnalysisError
from leakloc.core.notes import Note
from leakloc.core.volume import Volume
from leakloc.segmentation.collections import Scene, find_collections
from leakloc.segmentation.dura import Dura, find_dura
from leakloc.segmentation.fluid import FluidMap, map_fluid
from leakloc.segmentation.result import Segmentation

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

_RAYLEIGH_MEAN = 1.91
"""Mean over standard deviation of magnitude noise where there is no signal (Gudbjartsson and
Patz, Magn Reson Med 1995;34:910): noise alone must not pass for bright tissue."""


def segment(
    myelogram: Volume, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> Segmentation:
    """Find the thecal sac and the CSF-like fluid outside it.

    Parameters
    ----------
    myelogram : Volume
        Fluid-sensitive volume of the spine, any orientation of the grid.
    companions : mapping
        Other volumes of the study by role, in the same frame of reference.
    settings : SegmentationSettings

    Returns
    -------
    Segmentation
        Masks on the grid of `myelogram`.

    Raises
    ------
    AnalysisError
        If the volume is empty or not finite, or shows no spinal canal.
    """
    volume, prior, line, fluid = _mapped(myelogram, companions, settings)
    confusing = _fat_like_fluid(volume, fluid, settings)
    grey = not confusing and _tissue_bright(fluid, settings)
    dura = find_dura(fluid.signal, line, settings, prior=prior)
    scene, box = _scene(fluid, dura, settings, confusing, grey)
    labels, candidates = find_collections(scene, settings)
    fraction = fluid.fraction
    fraction.array[box] = scene.fraction.array
    return Segmentation(
        fluid_fraction=on_grid(fraction, myelogram),
        centerline=dura.centerline,
        thecal_sac=placed(scene.sac.astype(np.uint8), box, myelogram),
        collections=placed(labels, box, myelogram),
        candidates=candidates,
        fat_suppressed=False if confusing else fluid.fat_suppressed,
        csf_signal=fluid.csf_signal,
        noise=fluid.noise,
        notes=tuple(_notes(fluid, dura, confusing, grey)),
    )


def canal_and_fluid(
    myelogram: Volume, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> Segmentation:
    """The canal and the fluid fraction alone: an empty sac, no collection.

    For masks made elsewhere. The fraction is the one that `segment` measures volumes with, or that
    of the signal alone where no sac is detected. Parameters and errors are those of `segment`.
    """
    _, prior, line, fluid = _mapped(myelogram, companions, settings)
    fraction = fluid.fraction
    with suppress(AnalysisError):
        dura = find_dura(fluid.signal, line, settings, prior=prior)
        scene, box = _scene(fluid, dura, settings)
        fraction.array[box] = scene.fraction.array
        line = dura.centerline
    empty = Volume(
        np.zeros(myelogram.geometry.shape, np.uint8), myelogram.geometry, myelogram.provenance
    )
    return Segmentation(
        fluid_fraction=on_grid(fraction, myelogram),
        centerline=line,
        thecal_sac=empty,
        collections=empty,
        candidates=(),
        fat_suppressed=fluid.fat_suppressed,
        csf_signal=fluid.csf_signal,
        noise=fluid.noise,
    )


def _mapped(
    myelogram: Volume, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> tuple[Volume, Volume | None, Centerline, FluidMap]:
    """The volume in LPS order, probability and centerline of its canal, and its fluid."""
    _check(myelogram)
    volume = myelogram.oriented("LPS")
    prior = canal_prior(volume, companions, settings)
    line = find_canal(volume, settings, prior).centerline
    return volume, prior, line, map_fluid(volume, line, settings)


def _scene(
    fluid: FluidMap,
    dura: Dura,
    settings: SegmentationSettings,
    confusing: bool = False,
    grey: bool = False,
) -> tuple[Scene, tuple[slice, slice, slice]]:
    """The surroundings of the canal as collections are sought in, and their place in the grid."""
    box = neighbourhood(fluid.fraction, dura.centerline, settings)
    return Scene.of(fluid.fraction.crop(box), dura, confusing, grey), box


def canal_prior(
    volume: Volume, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> Volume | None:
    """Where the network sees the canal: on a sagittal companion, else on the volume itself."""
    from leakloc.anatomy.network import anatomy_probabilities

    if settings.canal_prior_weight == 0:
        return None
    sagittal: tuple[Role, ...] = ("sagittal_t2", "sagittal_stir", "sagittal_t1")
    image = next((companions[role] for role in sagittal if role in companions), volume)
    return anatomy_probabilities(image, threads=settings.canal_prior_threads).canal


def _check(volume: Volume) -> None:
    name = volume.provenance.source or "the myelogram"
    if not np.isfinite(volume.array).all():
        raise AnalysisError(f"{name} holds values that are not finite (NaN); export it again")
    if float(np.ptp(volume.array)) <= 0:
        raise AnalysisError(f"{name} is empty: all its voxels have the same value")


def _fat_like_fluid(volume: Volume, fluid: FluidMap, settings: SegmentationSettings) -> bool:
    """Whether fat outside the dura would look like fluid."""
    if settings.fat_suppressed is not None:
        return not settings.fat_suppressed
    if fluid.fat_level is not None and fluid.fat_level > settings.fat_confusing_above:
        return True
    # Thin fat is dimmed by partial volume; bright soft tissue gives a conventional T2 away,
    # unless the header says that fat was suppressed and nothing says that it failed.
    clear = fluid.csf_signal >= settings.bright_tissue_snr * fluid.noise
    trusted = volume.provenance.fat_suppressed and fluid.fat_suppressed is not False and clear
    return not trusted and _tissue_bright(fluid, settings)


def _tissue_bright(fluid: FluidMap, settings: SegmentationSettings) -> bool:
    """Whether soft tissue is as bright as on a conventional T2, noise taken off."""
    tissue = float(np.median(fluid.background_profile / fluid.csf_profile))
    floor = _RAYLEIGH_MEAN * fluid.noise / fluid.csf_signal
    return float(np.sqrt(max(tissue**2 - floor**2, 0.0))) > settings.tissue_conventional_above


def neighbourhood(
    volume: Volume, centerline: Centerline, settings: SegmentationSettings
) -> tuple[slice, slice, slice]:
    """The part of the volume in which fluid can belong to the canal."""
    aside = max(settings.corridor_half_width_mm, settings.search_radius_mm)
    corners = [
        centerline.points_lps + left * centerline.lefts_lps + dorsal * centerline.dorsals_lps
        for left in (-aside, aside)
        for dorsal in (-settings.search_radius_mm, settings.corridor_depth_mm)
    ]
    inside = np.concatenate([centerline.points_lps, *corners])
    return volume.geometry.box_around(inside)


def placed(
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    box: tuple[slice, slice, slice],
    target: Volume,
) -> Volume:
    """Put a crop of ``target.oriented("LPS")`` back into the whole grid, zero elsewhere."""
    whole = Volume(np.zeros(target.geometry.shape, np.uint8), target.geometry, target.provenance)
    whole.oriented("LPS").array[box] = array  # a view of the same voxels
    return whole


def on_grid(oriented: Volume, target: Volume) -> Volume:
    """Undo `Volume.oriented`: the same voxels in the target's order of axes."""
    back = oriented.oriented(target.geometry.axis_codes)
    return Volume(np.ascontiguousarray(back.array), target.geometry, oriented.provenance)


def _notes(fluid: FluidMap, dura: Dura, confusing: bool, grey: bool) -> list[Note]:
    notes = []
    if confusing:
        notes.append(
            Note(
                "fat_like_fluid",
                "Soft tissue and fat are bright, as on a conventional T2: fluid outside the dura "
                "cannot be told from fat.",
            )
        )
    elif fluid.fat_suppressed is False:
        notes.append(
            Note(
                "fat_not_suppressed",
                f"Fat has {fluid.fat_level:.0%} of the signal of CSF: only what is clearly "
                "brighter is taken for fluid.",
            )
        )
    if grey:
        notes.append(
            Note(
                "bright_tissue",
                "Marrow and muscle are bright on this series (a short echo time), though fat is "
                "suppressed by its header: fluid is told from them by its signal alone.",
            )
        )
    if dura.tip_arc_mm is None:
        notes.append(Note("sac_tip_outside", "The tip of the thecal sac lies outside the field."))
    return notes
