"""``report3d.html``: the volume and its masks in NiiVue, as a self-contained HTML file.

Requires WebGL2, unlike ``report.html``. The NiiVue bundle is distributed with the package (BSD
2-Clause, see ``niivue.LICENSE.txt``) and embedded in the file.
"""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.core.templates import render_html
from leakloc.core.volume import Volume
from leakloc.localization.result import by_certainty
from leakloc.report.canvas import BLUE, ORANGE
from leakloc.report.page.viewer import SAC, WHITE, Block, neighborhood
from leakloc.report.views import Plane, StudyView

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
    return render_html(
        "report/page/report3d.html.j2", report=report, data=_data(StudyView(analysis))
    )


def _data(view: StudyView) -> dict[str, Any]:
    low, high = view.window
    white = low + WHITE * (high - low)
    block = neighborhood(view)
    fraction = (np.asarray(block.signal, dtype=np.float32) - low) / (white - low)
    signal = (np.clip(fraction, 0, 1) * SIGNAL_STEPS).astype(np.uint8)
    labels = np.where(block.labels == SAC, SAC_VALUE, FLUID_VALUE).astype(np.uint8)
    labels[block.labels == 0] = 0
    found = by_certainty(view.analysis.localization.collections)
    kji = view.epicenter(found[0]) if found else None
    start = (
        view.geometry.lps_from_kji(kji)
        if kji is not None
        else view.centerline.at(view.centerline.length_mm / 2)
    )
    colors = [(0, 0, 0), BLUE, ORANGE]
    return {
        "volume": _nifti(block, signal),
        "labels": _nifti(block, labels),
        "window": [0, SIGNAL_STEPS / WHITE],
        "start": [round(float(x), 2) for x in start],
        "colors": {
            "R": [c[0] for c in colors],
            "G": [c[1] for c in colors],
            "B": [c[2] for c in colors],
            "A": [0, 255, 255],
            "I": [0, SAC_VALUE, FLUID_VALUE],
            "labels": ["", "thecal sac", "epidural fluid"],
        },
    }


def _nifti(block: Block, array: Plane) -> str:
    image = Volume(array, block.geometry).to_nibabel()
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
