"""Image data of the interactive viewer in ``report.html``.

The region around the spine is stored as sagittal slices (WebP) with one label image each (PNG);
``viewer.js`` decodes them into a small volume and displays its three orthogonal planes. Requires
no network, server or WebGL.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from leakloc.core.volume import Geometry
from leakloc.localization.result import by_certainty
from leakloc.report.model import MAX_VIEWER_VOXELS
from leakloc.report.views import GAMMA, Plane, StudyView, axis_labels

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData

QUALITIES: Final = (70, 55, 40)
"""WebP qualities, best first; below the last, binning preserves vessels and roots better."""
PROBES: Final = 7  # number of slices encoded to estimate the total size
WHITE: Final = 2.0  # signal stored as 255, relative to the white level: allows a wider window
NAME_STEP_MM: Final = 2.0  # spacing of level names, finer than the accuracy of levels
SAC: Final = 255
"""Value of the thecal sac in a label image; the values of collections are their ids."""


@dataclass(frozen=True, eq=False)
class Viewer:
    """Viewer data embedded in the HTML report.

    Parameters
    ----------
    data : dict
        Input of ``viewer.js``.
    binned : tuple of int
        Number of voxels averaged along i, j and k.
    """

    data: dict[str, Any]
    binned: tuple[int, int, int]

    @property
    def size_bytes(self) -> int:
        """Size of the base64-encoded images."""
        return sum(len(text) for key in ("slices", "labels") for text in self.data[key])

    @property
    def resolution(self) -> str:
        """Voxel size and limitations of the displayed images, as text."""
        i_mm, j_mm, k_mm = self.data["spacing"]
        size = (
            f"{i_mm:.2g} × {j_mm:.2g} × {k_mm:.2g} mm (right-left, anterior-posterior, head-foot)"
        )
        text = f"Region around the spine at {size}"
        if self.binned == (1, 1, 1):
            text += ", as acquired"
        else:
            factors = " × ".join(str(n) for n in self.binned)
            text += f", averaged over {factors} voxels to reduce the file size"
        return (
            f"{text}; lossy compression for display. Not for measurement: use the masks and the "
            "original images."
        )


@dataclass(frozen=True, eq=False)
class Block:
    """Signal and labels on one grid, k cranial.

    Parameters
    ----------
    labels : ndarray
        Collection ids, `SAC` in the thecal sac, 0 elsewhere.
    binned : tuple of int
        Number of voxels averaged along i, j and k.
    """

    signal: Plane
    labels: npt.NDArray[np.uint8]
    geometry: Geometry
    binned: tuple[int, int, int] = (1, 1, 1)


def make_viewer(analysis: AnalysisData, room_bytes: int) -> Viewer:
    """Prepare the viewer of a study.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages; patient identity is not included.
    room_bytes : int
        Maximum size of the images. If it is exceeded, first the quality is reduced, then
        adjacent voxels are averaged along the finest axis.

    Returns
    -------
    Viewer
    """
    view = StudyView(analysis)
    low, high = view.window
    white = low + WHITE * (high - low)
    block = neighborhood(view)
    while block.signal.size > MAX_VIEWER_VOXELS:
        block = _binned(block)
    labels = _label_pictures(block)
    quality = _fitting_quality(block, low, white, room_bytes - sum(map(len, labels)))
    while quality is None and max(block.signal.shape) > 1:
        block = _binned(block)
        labels = _label_pictures(block)
        quality = _fitting_quality(block, low, white, room_bytes - sum(map(len, labels)))
    bytes_of = _stored(block.signal, low, white)
    data = {
        "shape": block.signal.shape,
        "affine": np.round(block.geometry.affine_lps, 5).tolist(),
        "spacing": np.round(block.geometry.spacing_ijk_mm, 4).tolist(),
        "axis_labels": axis_labels(block.geometry),
        "signal": [low, white],
        "window": [low, high],
        "gamma": GAMMA,
        "sac": SAC,
        "values": np.unique(block.labels).tolist(),
        "slices": [
            _base64(_webp(plane, quality or QUALITIES[-1])) for plane in np.moveaxis(bytes_of, 2, 0)
        ],
        "labels": labels,
        **_names(view),
    }
    return Viewer(data, block.binned)


# --- the volume ---------------------------------------------------------------------------


def neighborhood(view: StudyView) -> Block:
    """Crop image and labels to the region around the spine, at acquired resolution."""
    rows = slice(0, view.geometry.shape[0])
    box = (rows, view.depth(rows), view.across(rows))
    labels = np.where(view.sac[box], SAC, 0).astype(np.uint8)
    fluid = view.collections[box]
    np.copyto(labels, fluid.astype(np.uint8), where=fluid > 0)
    return Block(view.image.array[box], labels, view.geometry.cropped(box))


def _binned(block: Block) -> Block:
    """Bin pairs of voxels along the finest axis: mean signal, fluid labels preferred."""
    spacing = np.array(block.geometry.spacing_kji_mm)
    spacing[np.array(block.signal.shape) < 2] = np.inf
    axis = int(spacing.argmin())
    count = block.signal.shape[axis] // 2
    even = [slice(None)] * 3
    even[axis] = slice(0, 2 * count)
    pairs = [*block.signal.shape]
    pairs[axis : axis + 1] = [count, 2]
    signal = block.signal[tuple(even)].reshape(pairs).mean(axis=axis + 1, dtype=np.float32)
    labels = block.labels[tuple(even)].reshape(pairs)
    # Fluid has priority over the sac, to preserve thin layers of one voxel.
    fluid = np.where(labels == SAC, 0, labels).max(axis=axis + 1)
    joined = np.where(fluid > 0, fluid, labels.max(axis=axis + 1)).astype(np.uint8)
    affine = block.geometry.affine_lps.copy()
    column = 2 - axis
    affine[:3, 3] += 0.5 * affine[:3, column]
    affine[:3, column] *= 2
    binned = list(block.binned)
    binned[column] *= 2
    k, j, i = signal.shape
    geometry = replace(block.geometry, shape=(k, j, i), affine_lps=affine)
    return Block(signal, joined, geometry, (binned[0], binned[1], binned[2]))


def _stored(signal: Plane, low: float, white: float) -> npt.NDArray[np.uint8]:
    """Convert signal to 8 bits, with square root for finer steps at low signal."""
    fraction = (np.asarray(signal, dtype=np.float32) - low) / (white - low)
    return np.asarray(np.sqrt(np.clip(fraction, 0, 1)) * 255 + 0.5).astype(np.uint8)


def _fitting_quality(block: Block, low: float, white: float, room: int) -> int | None:
    """Return the best quality at which all slices are estimated to fit, from a sample."""
    count = block.signal.shape[2]
    chosen = np.unique(np.linspace(0, count - 1, PROBES + 2).round().astype(int)[1:-1])
    sample = _stored(block.signal[:, :, chosen], low, white)
    for quality in QUALITIES:
        size = sum(len(_webp(plane, quality)) for plane in np.moveaxis(sample, 2, 0))
        # Overestimates the size, as central slices contain more signal than outer ones.
        if size / len(chosen) * count * 4 / 3 <= room:
            return quality
    return None


def _label_pictures(block: Block) -> list[str]:
    """Encode one label image per sagittal slice, empty without labels."""
    planes = np.moveaxis(block.labels, 2, 0)
    return [_base64(_png(plane)) if plane.any() else "" for plane in planes]


def _webp(plane: Plane, quality: int) -> bytes:
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(plane[::-1]))
    image.save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def _png(plane: Plane) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(plane[::-1])).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- names --------------------------------------------------------------------------------


def _names(view: StudyView) -> dict[str, Any]:
    levels, line = view.analysis.levels, view.centerline
    arcs = np.arange(0.0, line.length_mm + NAME_STEP_MM, NAME_STEP_MM).clip(max=line.length_mm)
    return {
        "vertebrae": [{"name": v.name, "lps": _rounded(v.center_lps)} for v in levels.vertebrae],
        "discs": [
            {
                "name": d.name,
                "lps": _rounded(d.center_lps),
                "normal": [round(float(x), 4) for x in d.normal_lps],
            }
            for d in levels.discs
        ],
        "canal": [
            [*_rounded(point), view.coordinate.describe(float(arc))]
            for point, arc in zip(line.at(arcs), arcs, strict=True)
        ],
        "collections": [
            {
                "id": c.id,
                "title": f"{c.id}: {c.level or 'level not named'}, {c.position.label}",
                "lps": _rounded(view.geometry.lps_from_kji(view.epicenter(c))),
            }
            for c in by_certainty(view.analysis.localization.collections)
        ],
    }


def _rounded(point: npt.ArrayLike) -> list[float]:
    return [round(float(x), 2) for x in np.asarray(point)]
