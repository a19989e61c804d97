"""``report3d.html``: the volume and its masks in NiiVue, as a self-contained HTML file.

Requires WebGL2, unlike ``report.html``. The NiiVue bundle is distributed with the package (BSD
2-Clause, see ``niivue.LICENSE.txt``) and embedded in the file.
"""

from __future__ import annotations

import base64
import gzip
import json
import lzma
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.core.volume import Volume
from leakloc.report.canvas import BLUE, ORANGE
from leakloc.report.scene import Plane, Scene
from leakloc.report.viewer import SAC, WHITE, Block, neighbourhood

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.report.model import Report

SIGNAL_STEPS: Final = 255  # NiiVue textures have 8 bits
SAC_VALUE: Final = 1
FLUID_VALUE: Final = 2


def page(report: Report, analysis: AnalysisData) -> str:
    """Create the 3D viewer as an HTML document.

    Parameters
    ----------
    report : Report
    analysis : AnalysisData
        Results of all stages; patient identity is not included.
    """
    programs = (_packed("niivue.umd.js.xz"), _plain("viewer3d.js"))
    digests = " ".join(
        f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" for text in programs
    )
    policy = (
        f"default-src 'none'; script-src {digests} 'wasm-unsafe-eval'; "
        "img-src data: blob:; connect-src data: blob:; style-src 'unsafe-inline'"
    )
    data = json.dumps(_data(Scene(analysis)), allow_nan=False).replace("<", "\\u003c")
    targets = "".join(
        f'<button type="button" data-lps="{",".join(f"{x:.2f}" for x in c.epicenter_lps_mm)}">'
        f"{c.id}: {escape(c.level or 'level not named')}, {c.position.label}</button>"
        for c in report.collections
        if c.epicenter_lps_mm is not None
    )
    scripts = "".join(f"<script>{text}</script>\n" for text in programs)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(f'leakloc: {report.finding.summary}')}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<aside class="notice" aria-label="Notice">{escape(report.notice)}</aside>\n'
        f"<h1>{escape(report.finding.summary)}</h1>\n"
        f'<div class="bar">{targets}'
        '<button type="button" id="planes">Planes</button>'
        '<button type="button" id="rendering">Rendering</button>'
        '<label>masks <input type="range" id="opacity" min="0" max="1" step="0.05" value="0.5">'
        "</label>"
        '<span class="sac">thecal sac</span><span class="fluid">epidural fluid</span>'
        '<span id="place" role="status"></span></div>\n'
        '<canvas id="gl" tabindex="0" aria-label="Three planes and a rendering"></canvas>\n'
        f'<script type="application/json" id="viewer-data">{data}</script>\n'
        f"{scripts}</body>\n</html>\n"
    )


def _data(scene: Scene) -> dict[str, Any]:
    low, high = scene.window
    white = low + WHITE * (high - low)
    block = neighbourhood(scene)
    fraction = (np.asarray(block.signal, dtype=np.float32) - low) / (white - low)
    signal = (np.clip(fraction, 0, 1) * SIGNAL_STEPS).astype(np.uint8)
    labels = np.where(block.labels == SAC, SAC_VALUE, FLUID_VALUE).astype(np.uint8)
    labels[block.labels == 0] = 0
    found = scene.analysis.localization.collections
    kji = scene.epicenter(found[0]) if found else None
    start = (
        scene.geometry.lps_from_kji(kji)
        if kji is not None
        else scene.centerline.at(scene.centerline.length_mm / 2)
    )
    colours = [(0, 0, 0), BLUE, ORANGE]
    return {
        "volume": _nifti(block, signal),
        "labels": _nifti(block, labels),
        "window": [0, SIGNAL_STEPS / WHITE],
        "start": [round(float(x), 2) for x in start],
        "colours": {
            "R": [c[0] for c in colours],
            "G": [c[1] for c in colours],
            "B": [c[2] for c in colours],
            "A": [0, 255, 255],
            "I": [0, SAC_VALUE, FLUID_VALUE],
            "labels": ["", "thecal sac", "epidural fluid"],
        },
    }


def _nifti(block: Block, array: Plane) -> str:
    image = Volume(array, block.geometry).to_nibabel()
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()


@cache
def _packed(name: str) -> str:
    return lzma.decompress(files("leakloc.report").joinpath(name).read_bytes()).decode()


@cache
def _plain(name: str) -> str:
    return files("leakloc.report").joinpath(name).read_text(encoding="utf-8")


_STYLE: Final = """
:root{color-scheme:dark}
*{box-sizing:border-box}
body{margin:0;height:100vh;display:flex;flex-direction:column;background:#0e0f12;color:#eceef2;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.notice{margin:0;padding:.4rem 1rem;background:#3a2a00;color:#ffe2a6;font-size:.9rem;
text-align:center}
h1{font-size:1.15rem;line-height:1.3;margin:.5rem 1rem}
.bar{display:flex;flex-wrap:wrap;gap:.4rem .8rem;align-items:center;margin:0 1rem .5rem}
button{font:inherit;color:inherit;background:#17191e;border:1px solid #a8adb6;border-radius:4px;
padding:.15rem .6rem;cursor:pointer;min-height:2rem}
:focus-visible{outline:3px solid #f0e442;outline-offset:2px}
.sac{border-bottom:3px solid #56b4e9}.fluid{border-bottom:3px solid #e69f00}
canvas{flex:1;min-height:0;width:100%}
"""
