"""The interactive viewer of ``report.html``: what of the volume goes into the page.

The neighbourhood of the spine is stored as sagittal slices (WebP) with one label picture
each (PNG); the script in ``viewer.js`` decodes them into one small volume and cuts all
three planes from it. Needs no network, no server and no WebGL.
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

MAX_VOXELS: Final = 24_000_000  # decoded in three seconds and held in 48 MB by an old PC
QUALITIES: Final = (70, 55, 40)
"""Qualities of WebP, best first; below the last, vessels and roots blur more than by binning."""
PROBES: Final = 7  # slices that are encoded to foresee the size of all
WHITE: Final = 2.0  # signal stored as 255, in terms of the window's white: room to widen it
NAME_STEP_MM: Final = 2.0  # between named places along the canal, finer than a level is known
SAC: Final = 255
"""Value of the thecal sac in a label picture; collections keep their ids."""


@dataclass(frozen=True, eq=False)
class Viewer:
    """What the page embeds.

    Parameters
    ----------
    data : dict
        As ``viewer.js`` reads it.
    binned : tuple of int
        How many voxels were averaged along i, j and k.
    """

    data: dict[str, Any]
    binned: tuple[int, int, int]

    @property
    def size_bytes(self) -> int:
        """Length of the pictures in the page, after base64."""
        return sum(len(text) for key in ("slices", "labels") for text in self.data[key])


@dataclass(frozen=True, eq=False)
class Block:
    """Signal and labels on one grid, k to the head.

    Parameters
    ----------
    labels : ndarray
        Collection ids, `SAC` in the thecal sac, 0 elsewhere.
    binned : tuple of int
        How many voxels were averaged along i, j and k.
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
        Results of all stages; nothing of the patient's identity goes in.
    room_bytes : int
        What the pictures may take in the page. To fit, quality goes down first; then
        neighbouring voxels are averaged, those along the finest axis first.

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
    """HTML of the viewer: panes, controls, and the data for the script."""
    # No "<" is left, so that no text in the data can end the element.
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
        '<noscript><p class="doubt">The viewer needs JavaScript, which is switched off here; '
        "the figures show the finding.</p></noscript>"
        f'{goto}<div class="panes">{sagittal}{coronal}'
        f'<div class="side">{axial}<div class="controls">{_CONTROLS}</div></div></div>'
        '<p id="viewer-place" class="place" role="status" aria-live="polite"></p>'
        f'<details><summary>Mouse and keys</summary><div id="viewer-help">{_HELP}</div></details>'
        f'<script type="application/json" id="viewer-data">{data}</script></section>'
    )


@cache
def script() -> str:
    """The viewer's program."""
    return files("leakloc.report").joinpath("viewer.js").read_text(encoding="utf-8")


@cache
def style() -> str:
    """The viewer's style sheet."""
    return files("leakloc.report").joinpath("viewer.css").read_text(encoding="utf-8")


def script_digest() -> str:
    """What a content security policy calls the viewer's program: nothing else may run."""
    return f"'sha256-{base64.b64encode(sha256(script().encode()).digest()).decode()}'"


# --- the volume ---------------------------------------------------------------------------


def neighbourhood(scene: Scene) -> Block:
    """The spine's neighbourhood as acquired, the sac and the collections in one label array."""
    rows = slice(0, scene.geometry.shape[0])
    box = (rows, scene.depth(rows), scene.across(rows))
    labels = np.where(scene.sac[box], SAC, 0).astype(np.uint8)
    fluid = scene.collections[box]
    np.copyto(labels, fluid.astype(np.uint8), where=fluid > 0)
    return Block(scene.image.array[box], labels, scene.geometry.cropped(box))


def _binned(block: Block) -> Block:
    """Half as many voxels along the finest axis: mean of the signal, largest share of labels."""
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
    # A sheet of fluid one voxel thin must not vanish, so fluid wins over the sac beside it.
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
    """Signal in eight bits; the root keeps steps between dark tissues fine."""
    share = (np.asarray(signal, dtype=np.float32) - low) / (white - low)
    return np.asarray(np.sqrt(np.clip(share, 0, 1)) * 255 + 0.5).astype(np.uint8)


def _fitting_quality(block: Block, low: float, white: float, room: int) -> int | None:
    """The best quality at which a sample of the slices foretells that all fit, in base64."""
    count = block.signal.shape[2]
    chosen = np.unique(np.linspace(0, count - 1, PROBES + 2).round().astype(int)[1:-1])
    sample = _stored(block.signal[:, :, chosen], low, white)
    for quality in QUALITIES:
        size = sum(len(_webp(plane, quality)) for plane in np.moveaxis(sample, 2, 0))
        # The middle slices hold more than the outer ones: this errs on the safe side.
        if size / len(chosen) * count * 4 / 3 <= room:
            return quality
    return None


def _label_pictures(block: Block) -> list[str]:
    """One picture for each sagittal slice, empty where nothing is labelled."""
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
    size = f"{i_mm:.2g} × {j_mm:.2g} × {k_mm:.2g} mm (right-left, front-back, head-foot)"
    text = f"The spine's neighbourhood at {size}"
    if viewer.binned == (1, 1, 1):
        text += ", as acquired"
    else:
        factors = " × ".join(str(n) for n in viewer.binned)
        text += f", averaged over {factors} voxels to keep this page small"
    return (
        f"{text}; compressed for display. Not for measurement: the masks and the images "
        "themselves are the record."
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
    "<li>Click, or Shift and arrow keys: move the cross-hair, which the three planes share.</li>"
    "<li>Drag: window (right and left) and level (up and down).</li>"
    "<li>M masks, N names, C cross-hair, R reset window, + and − zoom, 1 to 9 go to that "
    "collection.</li></ul>"
)
