"""The segmentation stage: thecal sac and epidural fluid on a myelogram."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.errors import AnalysisError
from leakloc.core.notes import Note, note
from leakloc.core.volume import Volume
from leakloc.segmentation.collections import find_collections
from leakloc.segmentation.dura import Dura, find_dura
from leakloc.segmentation.fluid import FluidMap, map_fluid
from leakloc.segmentation.result import Segmentation
from leakloc.segmentation.root_sleeves import find_round_structures, name_cysts
from leakloc.segmentation.scene import Scene

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings

_RAYLEIGH_MEAN = 1.91
"""Mean over standard deviation of magnitude noise without signal (Gudbjartsson and Patz, Magn Reson
Med 1995;34:910); used so that noise alone does not count as bright tissue."""

_MAX_DISTINCT_FAT: Final = 0.5
"""Above this fraction of the CSF signal, fat cannot be distinguished from fluid by signal."""

_MAX_DARK_TISSUE: Final = 0.15
"""Soft tissue above this fraction of the CSF signal indicates conventional T2 weighting, with
bright fat; on heavily T2-weighted images muscle and marrow stay below 0.12."""

_MAX_SATURATED: Final = 0.2
"""Maximum fraction of the sac with the maximum signal of the image; without saturation it is less
than 0.001."""

_MIN_BRIGHT_TISSUE_SNR: Final = 15.0
"""Minimum CSF signal-to-noise ratio at which fat suppression in the DICOM header is accepted where
soft tissue is bright. Below it (a true ratio of about 8) noise resembles bright tissue, and two of
three leak-free phantoms had a false-positive collection."""


def segment(
    spine: Spine, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> Segmentation:
    """Segment the thecal sac and CSF-like fluid outside it.

    Parameters
    ----------
    spine : Spine
        Contains the myelogram.
    companions : mapping
        Other volumes of the study by role, as supplied to every segmenter; not used here.
    settings : SegmentationSettings

    Returns
    -------
    Segmentation
        Masks on the grid of the myelogram.

    Raises
    ------
    AnalysisError
        If the volume is empty or not finite, or no spinal canal is detected.
    """
    myelogram, fluid = spine.myelogram, _fluid_map(spine)
    bright_fat = _fat_like_fluid(myelogram, fluid, settings)
    bright_tissue = not bright_fat and _tissue_bright(fluid)
    dura = find_dura(fluid.signal, spine.centerline, prior=spine.canal_probability)
    scene, box = search_region(fluid, dura, settings, bright_fat, bright_tissue)
    labels, candidates = find_collections(scene, settings)
    structures = find_round_structures(scene, labels)
    fraction = fluid.fraction
    fraction.array[box] = scene.fraction.array
    return Segmentation(
        fluid_fraction=on_grid(fraction, myelogram),
        centerline=dura.centerline,
        thecal_sac=placed(scene.sac.astype(np.uint8), box, myelogram),
        collections=placed(labels, box, myelogram),
        candidates=name_cysts(candidates, structures or ()),
        fat_suppressed=False if bright_fat else fluid.fat_suppressed,
        csf_signal=fluid.csf_signal,
        noise=fluid.noise,
        notes=(
            *_notes(fluid, dura, bright_fat, bright_tissue),
            *_saturation_notes(spine.oriented.array[box], scene.sac),
        ),
        round_structures=structures,
        foramen_magnum_arc_mm=dura.head_arc_mm or None,
    )


def canal_and_fluid(
    spine: Spine, companions: Mapping[Role, Volume], settings: SegmentationSettings
) -> Segmentation:
    """Return the canal and the fluid fraction, with an empty sac and no collections.

    For externally supplied masks. The fluid fraction is the one with which `segment` measures
    volumes, or that of the signal alone if no sac is detected. Parameters and errors are those of
    `segment`.
    """
    myelogram, fluid, line = spine.myelogram, _fluid_map(spine), spine.centerline
    fraction, foramen_mm = fluid.fraction, None
    with suppress(AnalysisError):
        dura = find_dura(fluid.signal, line, prior=spine.canal_probability)
        scene, box = search_region(fluid, dura, settings)
        fraction.array[box] = scene.fraction.array
        line, foramen_mm = dura.centerline, dura.head_arc_mm or None
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
        foramen_magnum_arc_mm=foramen_mm,
    )


def _fluid_map(spine: Spine) -> FluidMap:
    """Return the fluid map of the myelogram, in LPS order."""
    _check(spine.myelogram)
    return map_fluid(spine.oriented, spine.centerline)


def search_region(
    fluid: FluidMap,
    dura: Dura,
    settings: SegmentationSettings,
    bright_fat: bool = False,
    bright_tissue: bool = False,
) -> tuple[Scene, tuple[slice, slice, slice]]:
    """Return the region in which fluid is searched for, and its box in the grid (LPS order)."""
    box = neighborhood(fluid.signal, dura.centerline, settings)
    return Scene.of(fluid.signal.crop(box), dura, bright_fat, bright_tissue), box


def _check(volume: Volume) -> None:
    name = volume.provenance.source or "the myelogram"
    if not np.isfinite(volume.array).all():
        raise AnalysisError(f"{name} contains non-finite values (NaN); export it again")
    if float(np.ptp(volume.array)) <= 0:
        raise AnalysisError(f"{name} is empty: all its voxels have the same value")


def _fat_like_fluid(volume: Volume, fluid: FluidMap, settings: SegmentationSettings) -> bool:
    """Return whether fat outside the dura is as bright as fluid."""
    if settings.fat_suppressed is not None:
        return not settings.fat_suppressed
    if fluid.fat_level is not None and fluid.fat_level > _MAX_DISTINCT_FAT:
        return True
    # Thin fat is dimmed by partial volume; bright soft tissue indicates conventional T2 weighting,
    # unless the header states fat suppression and the signal does not contradict it.
    clear = fluid.csf_signal >= _MIN_BRIGHT_TISSUE_SNR * fluid.noise
    trusted = volume.provenance.fat_suppressed and fluid.fat_suppressed is not False and clear
    return not trusted and _tissue_bright(fluid)


def _tissue_bright(fluid: FluidMap) -> bool:
    """Return whether soft tissue is as bright as on conventional T2, corrected for noise."""
    tissue = float(np.median(fluid.background_profile / fluid.csf_profile))
    floor = _RAYLEIGH_MEAN * fluid.noise / fluid.csf_signal
    return float(np.sqrt(max(tissue**2 - floor**2, 0.0))) > _MAX_DARK_TISSUE


def neighborhood(
    volume: Volume, centerline: Centerline, settings: SegmentationSettings
) -> tuple[slice, slice, slice]:
    """Return the box of the volume in which fluid is searched for."""
    lateral = max(settings.corridor_half_width_mm, settings.search_radius_mm)
    corners = [
        centerline.points_lps + left * centerline.lefts_lps + dorsal * centerline.dorsals_lps
        for left in (-lateral, lateral)
        for dorsal in (-settings.search_radius_mm, settings.corridor_depth_mm)
    ]
    inside = np.concatenate([centerline.points_lps, *corners])
    return volume.geometry.box_around(inside)


def placed(
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    box: tuple[slice, slice, slice],
    target: Volume,
) -> Volume:
    """Insert a crop of ``target.oriented("LPS")`` into the whole grid, zero elsewhere."""
    whole = Volume(np.zeros(target.geometry.shape, np.uint8), target.geometry, target.provenance)
    whole.oriented("LPS").array[box] = array  # a view of the same voxels
    return whole


def on_grid(oriented: Volume, target: Volume) -> Volume:
    """Undo `Volume.oriented`: return the same voxels in the axis order of the target."""
    back = oriented.oriented(target.geometry.axis_codes)
    return Volume(np.ascontiguousarray(back.array), target.geometry, oriented.provenance)


def _saturation_notes(
    signal: npt.NDArray[np.floating], sac: npt.NDArray[np.bool_]
) -> tuple[Note, ...]:
    """Return a note if much of the sac has the maximum signal of the image."""
    if not sac.any():
        return ()
    fraction = float((signal[sac] >= signal.max()).mean())
    return (note("signal_saturated", fraction=fraction),) if fraction > _MAX_SATURATED else ()


def _notes(fluid: FluidMap, dura: Dura, bright_fat: bool, bright_tissue: bool) -> list[Note]:
    notes = []
    if bright_fat:
        notes.append(note("fat_like_fluid"))
    elif fluid.fat_suppressed is False:
        notes.append(note("fat_not_suppressed", fraction=fluid.fat_level))
    if bright_tissue:
        notes.append(note("bright_tissue"))
    if dura.tip_arc_mm is None:
        notes.append(note("sac_tip_outside"))
    return notes
