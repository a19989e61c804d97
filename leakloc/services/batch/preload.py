"""Modules of an analysis, imported once by the process from which analyses are forked.

The import takes some seconds, which would otherwise be added to each study.
"""

import gc
import importlib
from contextlib import suppress
from typing import Final

from leakloc.core.extras import LazyModule
from leakloc.core.garbage import collect_rarely

tables = LazyModule("highdicom._standard_utils")

MODULES: Final = (
    "contourpy",
    "highdicom",
    "jinja2",
    "jsonschema",
    "nibabel",
    "onnxruntime",
    "PIL.ImageDraw",
    "PIL.ImageFont",
    "PIL.WebPImagePlugin",
    "pydicom",
    "scipy.fft",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.spatial",
    "leakloc.anatomy.network",
    "leakloc.levels",
    "leakloc.levels.network",
    "leakloc.loaders",
    "leakloc.localization",
    "leakloc.pipeline",
    "leakloc.report",
    "leakloc.report.overlays",
    "leakloc.report.page.html",
    "leakloc.segmentation",
)


def preload() -> None:
    """Import the modules of an analysis and exclude them from garbage collection.

    Garbage collection in forked processes then does not copy shared memory pages.
    """
    for module in MODULES:
        importlib.import_module(module)
    _load_dicom_tables()
    gc.freeze()
    collect_rarely()


def _load_dicom_tables() -> None:
    """Load the DICOM tables that highdicom caches on first use."""
    with suppress(ImportError, AttributeError):  # private API: only slower if missing
        tables.get_iod_module_map()
        tables.get_module_attribute_map()


preload()
