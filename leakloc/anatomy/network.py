"""Segmentation of vertebral bodies, discs and the canal on spine MR of any contrast.

A small U-Net takes three neighboring sagittal planes at a time. Its weights
(``models/anatomy.onnx``, see ``models/MODEL_CARD.md``) were trained on the masks of SPIDER
(van der Graaf et al., Sci Data 11:264, 2024, doi 10.1038/s41597-024-03090-w, CC BY 4.0,
modified) with synthesized contrasts, and on phantoms. Inference requires only onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, uniform_filter

from leakloc.core.errors import AnalysisError
from leakloc.core.networks import network_session
from leakloc.core.volume import Geometry, Provenance, Volume

CLASSES: Final = ("background", "vertebra", "disc", "canal", "sacrum")
"""Output channels of the network, in order."""
PIXEL_MM: Final = 1.0
"""In-plane voxel size used in training."""
PLANE_STEP_MM: Final = 3.0
"""Distance between planes: within the 2 to 4.5 mm of the training data, and fast."""
HALF_WIDTH_MM: Final = 40.0
"""Distance to each side of the canal within which planes are computed; a lumbar body is 50 mm
wide."""
FRONT_MM: Final = 100.0
"""Extent of the region anterior to the canal: a lumbar body (35 mm), lordosis, and context."""
BACK_MM: Final = 50.0
"""Extent of the region posterior to the canal."""
LOCAL_WINDOW_PX: Final = 31
"""Side length of the window of the locally normalized channel (1 mm pixels)."""
_STRIDE_PX: Final = 16
"""The network halves the resolution of its planes four times."""
_EMPTY_PX: Final = 9
"""Side length of a window that lies outside the field of view if it contains no signal."""
_COARSE_PLANES: Final = 5
"""The coarse pass uses every fifth plane, 15 mm apart; a canal is 20 mm wide."""
_MIN_CANAL_PX: Final = 1000
"""Area of a detected canal in the coarse pass (1 mm pixels): 10 mm x 100 mm."""
MODEL_PATH: Final = Path(__file__).parents[1] / "models" / "anatomy.onnx"
"""Weights shipped with the package."""


@dataclass(frozen=True)
class AnatomyProbabilities:
    """Probability of each tissue on a grid of sagittal planes.

    The grid has the axes of the image in LPS orientation (k cranial, j posterior, i left): 1 mm in
    plane, planes about 3 mm apart (or as acquired, if coarser).

    Parameters
    ----------
    vertebra : Volume
        float32, vertebral bodies without posterior elements, from C2 or higher to L5.
    disc : Volume
        float32, intervertebral discs.
    canal : Volume
        float32, spinal canal with its contents.
    sacrum : Volume
        float32, sacral bodies; trained on phantoms only.
    """

    vertebra: Volume
    disc: Volume
    canal: Volume
    sacrum: Volume


def anatomy_probabilities(image: Volume) -> AnatomyProbabilities:
    """Segment vertebral bodies, discs and the canal with the network.

    A coarse pass over every fifth plane, from the middle outward, detects the canal; planes
    farther than `HALF_WIDTH_MM` from it are skipped.

    Parameters
    ----------
    image : Volume
        Spine MR that resolves vertebrae in sagittal planes, in any signal unit.

    Returns
    -------
    AnatomyProbabilities

    Raises
    ------
    AnalysisError
        If the image is constant.
    LeaklocError
        If the network's weights are not installed.
    """
    working = _working_volume(image)
    low, high = _window(working.array)
    working = working.crop(_region(working, low, high))
    planes = range(working.array.shape[2])
    found = _classify(working.array, planes, low, high)
    provenance = Provenance("anatomy network", image.provenance.series_instance_uid)
    tissues = [
        Volume(np.ascontiguousarray(np.moveaxis(found[:, c], 0, 2)), working.geometry, provenance)
        for c in range(1, len(CLASSES))
    ]
    return AnatomyProbabilities(*tissues)


class AnatomyOutputs:
    """Output of the network for the images of one study, computed once per image."""

    def __init__(self) -> None:
        self._outputs: WeakKeyDictionary[Volume, AnatomyProbabilities] = WeakKeyDictionary()

    def of(self, image: Volume) -> AnatomyProbabilities:
        """Return the output for an image; see `anatomy_probabilities` for errors."""
        if image not in self._outputs:
            self._outputs[image] = anatomy_probabilities(image)
        return self._outputs[image]


def network_input(planes: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    """Return the network input for three neighboring sagittal planes.

    The square root enhances dark tissue; the fourth channel, the middle plane normalized by its
    local standard deviation, is insensitive to coil shading.

    Parameters
    ----------
    planes : ndarray, shape (3, k, j)
        Signal with 1 mm pixels.
    low, high : float
        Signal mapped to 0 and 1.

    Returns
    -------
    ndarray, float32, shape (4, k, j)
    """
    scaled = np.clip((planes - low) / max(high - low, 1e-6), 0.0, 2.0).astype(np.float32)
    rooted = np.sqrt(scaled)
    middle = rooted[1]
    offset = middle - uniform_filter(middle, LOCAL_WINDOW_PX, mode="constant")
    variance = uniform_filter(offset * offset, LOCAL_WINDOW_PX, mode="constant")
    spread = np.sqrt(np.maximum(variance, 0)) + 0.02  # rounding may give negative values
    return np.concatenate([rooted, np.clip(offset / spread, -4, 4)[None] / 2]).astype(np.float32)


def _working_volume(image: Volume) -> Volume:
    """Return the image on the network's grid: block averages, then interpolation."""
    oriented = image.oriented("LPS")
    i_mm, j_mm, k_mm = oriented.geometry.spacing_ijk_mm
    blocks = (
        max(1, int(PIXEL_MM / k_mm + 0.1)),
        max(1, int(PIXEL_MM / j_mm + 0.1)),
        max(1, round(PLANE_STEP_MM / i_mm)),
    )
    averaged = _block_mean(oriented, blocks)
    step_mm = averaged.geometry.spacing_ijk_mm[0]
    target = averaged.geometry.with_spacing((step_mm, PIXEL_MM, PIXEL_MM))
    return averaged.resample(target)


def _block_mean(volume: Volume, blocks: tuple[int, int, int]) -> Volume:
    """Average blocks of ``(k, j, i)`` voxels; an incomplete last block is dropped."""
    sizes = [min(b, n) for b, n in zip(blocks, volume.array.shape, strict=True)]
    box = tuple(slice(0, n - n % b) for n, b in zip(volume.array.shape, sizes, strict=True))
    array = volume.array[box]
    for axis, block in enumerate(sizes):
        if block > 1:
            parts = [
                array[(slice(None),) * axis + (slice(part, None, block),)] for part in range(block)
            ]
            total = parts[0].astype(np.float32)
            for part_array in parts[1:]:
                total += part_array
            array = total / block
    affine = volume.geometry.affine_lps.copy()
    ijk_blocks = np.array(sizes[::-1], dtype=float)
    affine[:3, :3] *= ijk_blocks
    affine[:3, 3] = volume.geometry.lps_from_ijk((ijk_blocks - 1) / 2)
    k, j, i = array.shape
    geometry = Geometry((k, j, i), affine, volume.geometry.frame_of_reference_uid)
    return Volume(array.astype(np.float32, copy=False), geometry, volume.provenance)


def _window(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the signal mapped to 0 and 1: robust minimum and maximum."""
    low, high = np.percentile(array, [0.5, 99.5])
    if not high > low:
        raise AnalysisError("the image is constant: it contains no spine")
    return float(low), float(high)


def _region(working: Volume, low: float, high: float) -> tuple[slice, slice, slice]:
    """Return the box ``[k, j, i]`` around the spine, over the full height."""
    step_mm = working.geometry.spacing_ijk_mm[0]
    height, depth, count = working.array.shape
    if count * step_mm <= 2 * HALF_WIDTH_MM:
        return slice(0, height), slice(0, depth), slice(0, count)
    voxels = _coarse_canal(working.array, low, high)
    if len(voxels) == 0:  # assume the spine in the middle
        voxels = np.array([[height // 2, depth // 2, count // 2]])
    low_kji, high_kji = np.percentile(voxels, [5, 95], axis=0)  # without outliers
    reach = max(1, round(HALF_WIDTH_MM / step_mm))
    return (
        slice(0, height),
        _span(low_kji[1] - FRONT_MM / PIXEL_MM, high_kji[1] + BACK_MM / PIXEL_MM, depth),
        _span(low_kji[2] - reach, high_kji[2] + reach, count),
    )


def _coarse_canal(array: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.intp]:
    """Return the canal voxels ``[k, j, i]`` of every fifth plane, shape (n, 3).

    The planes are computed from the middle outward until the canal lies between planes without it.
    """
    planes = np.arange(0, array.shape[2], _COARSE_PLANES)
    distances = np.abs(np.arange(len(planes)) - len(planes) // 2)
    found = np.empty((0, 3), np.intp)
    for distance in range(int(distances.max()) + 1):
        pair = planes[distances == distance]
        canal = _classify(array, pair, low, high)[:, CLASSES.index("canal")] > 0.5
        if not canal.any() and len(found) >= _MIN_CANAL_PX:
            break
        number, rows, columns = np.nonzero(canal)
        found = np.concatenate([found, np.stack([rows, columns, pair[number]], axis=-1)])
    return found


def _span(first: float, last: float, length: int) -> slice:
    """Return the index range from `first` to `last` within an axis, with at least one index."""
    start = int(np.clip(np.floor(first), 0, length - 1))
    return slice(start, int(np.clip(np.ceil(last) + 1, start + 1, length)))


def _classify(
    array: npt.NDArray[Any], planes: Iterable[int], low: float, high: float
) -> npt.NDArray[np.float32]:
    """Return class probabilities of sagittal planes, shape ``(len(planes), class, k, j)``."""
    session = network_session(MODEL_PATH, "anatomy")
    height, width, count = array.shape
    padding = [(0, -height % _STRIDE_PX), (0, -width % _STRIDE_PX)]
    chosen = [int(i) for i in planes]
    found = np.empty((len(chosen), len(CLASSES), height, width), np.float32)
    for plane, i in zip(found, chosen, strict=True):  # batches need memory and gain no speed
        around = [max(i - 1, 0), i, min(i + 1, count - 1)]
        three = np.moveaxis(array[:, :, around], 2, 0)
        three = np.pad(three, [(0, 0), *padding], constant_values=low)
        (probabilities,) = session.run(None, {"planes": network_input(three, low, high)[None]})
        plane[:] = probabilities[0, :, :height, :width]
        # The training loss excluded pixels outside the field of view: ignore the output there.
        empty = maximum_filter(array[:, :, i], _EMPTY_PX) <= low
        plane[0, empty] = 1.0
        plane[1:, empty] = 0.0
    return found
