"""Image data and HTML of the interactive viewer in ``report.html``.

The region around the spine is stored as sagittal slices (WebP) with one label image each (PNG);
``viewer.js`` decodes them into a small volume and displays its three orthogonal planes. Requires
no network, server or WebGL.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.core.volume import Geometry
from leakloc.report.scene import GAMMA, Plane, Scene, edge_letters

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData

MAX_VOXELS: Final = 24_000_000  # decoded in three seconds on an old PC, requires 48 MB
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
    scene = Scene(analysis)
    low, high = scene.window
    white = low + WHITE * (high - low)
    block = neighbourhood(scene)
    while block.signal.size > MAX_VOXELS:
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
        "letters": edge_letters(block.geometry),
        "signal": [low, white],
        "window": [low, high],
        "gamma": GAMMA,
        "sac": SAC,
        "values": np.unique(block.labels).tolist(),
        "slices": [
            _base64(_webp(plane, quality or QUALITIES[-1])) for plane in np.moveaxis(bytes_of, 2, 0)
        ],
        "labels": labels,
        **_names(scene),
    }
    return Viewer(data, block.binned)


def section(viewer: Viewer) -> str:
    """Create the HTML of the viewer: panes, controls and data."""
    # All "<" are escaped, so that no text in the data can close the element.
    data = json.dumps(viewer.data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    sagittal, coronal, axial = (_pane(name, plane) for name, plane in _PANES)
    targets = "".join(
        f'<button type="button" data-lps="{_csv(c["lps"])}" data-collection="{c["id"]}">'
        f"{escape(c['title'])}</button>"
        for c in viewer.data["collections"]
    )
    goto = f'<div class="targets"><span>Go to</span>{targets}</div>' if targets else ""
    return (
        '<section id="viewer" aria-label="Interactive viewer"><h2>Viewer</h2>'
        f"<p>{escape(_resolution(viewer))}</p>"
        '<noscript><p class="doubt">The viewer needs JavaScript, which is disabled; '
        "the figures show the finding.</p></noscript>"
        f'{goto}<div class="panes">{sagittal}{coronal}'
        f'<div class="side">{axial}<div class="controls">{_CONTROLS}</div></div></div>'
        '<p id="viewer-place" class="place" role="status" aria-live="polite"></p>'
        f'<details><summary>Mouse and keys</summary><div id="viewer-help">{_HELP}</div></details>'
        f'<script type="application/json" id="viewer-data">{data}</script></section>'
    )


@cache
def script() -> str:
    """Return the viewer script."""
    return files("leakloc.report").joinpath("viewer.js").read_text(encoding="utf-8")


@cache
def style() -> str:
    """Return the viewer style sheet."""
    return files("leakloc.report").joinpath("viewer.css").read_text(encoding="utf-8")


def script_digest() -> str:
    """Return the hash of the viewer script for the content security policy."""
    return f"'sha256-{base64.b64encode(sha256(script().encode()).digest()).decode()}'"


# --- the volume ---------------------------------------------------------------------------


def neighbourhood(scene: Scene) -> Block:
    """Crop image and labels to the region around the spine, at acquired resolution."""
    rows = slice(0, scene.geometry.shape[0])
    box = (rows, scene.depth(rows), scene.across(rows))
    labels = np.where(scene.sac[box], SAC, 0).astype(np.uint8)
    fluid = scene.collections[box]
    np.copyto(labels, fluid.astype(np.uint8), where=fluid > 0)
    return Block(scene.image.array[box], labels, scene.geometry.cropped(box))


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
    from PIL import Image

    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(plane[::-1]))
    image.save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def _png(plane: Plane) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(plane[::-1])).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- names --------------------------------------------------------------------------------


def _names(scene: Scene) -> dict[str, Any]:
    levels, line = scene.analysis.levels, scene.centerline
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
            [*_rounded(point), scene.coordinate.describe(float(arc))]
            for point, arc in zip(line.at(arcs), arcs, strict=True)
        ],
        "collections": [
            {
                "id": c.id,
                "title": f"{c.id}: {c.level or 'level not named'}, {c.position}",
                "lps": _rounded(scene.geometry.lps_from_kji(scene.epicenter(c))),
            }
            for c in scene.analysis.localization.collections
        ],
    }


def _rounded(point: npt.ArrayLike) -> list[float]:
    return [round(float(x), 2) for x in np.asarray(point)]


def _csv(point: list[float]) -> str:
    return ",".join(str(x) for x in point)


def _resolution(viewer: Viewer) -> str:
    i_mm, j_mm, k_mm = viewer.data["spacing"]
    size = f"{i_mm:.2g} × {j_mm:.2g} × {k_mm:.2g} mm (right-left, anterior-posterior, head-foot)"
    text = f"Region around the spine at {size}"
    if viewer.binned == (1, 1, 1):
        text += ", as acquired"
    else:
        factors = " × ".join(str(n) for n in viewer.binned)
        text += f", averaged over {factors} voxels to reduce the file size"
    return (
        f"{text}; lossy compression for display. Not for measurement: use the masks and the "
        "original images."
    )


_PANES: Final = (("Sagittal", "sagittal"), ("Coronal", "coronal"), ("Axial", "axial"))


def _pane(name: str, plane: str) -> str:
    return (
        f'<figure class="pane {plane}"><canvas id="{plane}" tabindex="0" role="application" '
        f'aria-roledescription="slice view" aria-label="{name} view" '
        'aria-describedby="viewer-help"></canvas>'
        f'<figcaption><label for="{plane}-slice">{name}</label>'
        f'<input type="range" id="{plane}-slice" min="0" max="0" value="0">'
        f'<output for="{plane}-slice" id="{plane}-where"></output></figcaption></figure>'
    )


_CONTROLS: Final = (
    "<fieldset><legend>Show</legend>"
    '<label><input type="checkbox" id="show-masks" checked> masks '
    '<span class="key sac">sac</span> <span class="key fluid">fluid</span></label>'
    '<label><input type="checkbox" id="show-names" checked> level names</label>'
    '<label><input type="checkbox" id="show-cross" checked> cross-hair</label></fieldset>'
    "<fieldset><legend>Window</legend>"
    '<label>width <input type="range" id="window-width" min="1" max="200" value="100"></label>'
    '<label>level <input type="range" id="window-level" min="0" max="200" value="50"></label>'
    '<output id="window-text" for="window-width window-level"></output>'
    '<button type="button" id="window-reset">Reset window</button></fieldset>'
    "<fieldset><legend>Zoom</legend>"
    '<button type="button" id="zoom-out" aria-label="Zoom out">−</button>'
    '<output id="zoom-text">1×</output>'
    '<button type="button" id="zoom-in" aria-label="Zoom in">+</button></fieldset>'
    '<p class="small">Research use only - not a medical device</p>'
)

_HELP: Final = (
    "<ul><li>Wheel, arrow keys: next and previous slice. Page Up, Page Down: ten slices. "
    "Home, End: first and last.</li>"
    "<li>Click, or Shift and arrow keys: move the cross-hair in all three planes.</li>"
    "<li>Drag: window width (horizontal) and level (vertical).</li>"
    "<li>M masks, N names, C cross-hair, R reset window, + and − zoom, 1 to 9 go to that "
    "collection.</li></ul>"
)
