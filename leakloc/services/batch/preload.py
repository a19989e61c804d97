"""Everything an analysis imports, loaded once by the process that the analyses are forked from.

Importing it takes some seconds, which each study would otherwise pay for.
"""

import gc
import importlib
from contextlib import suppress
from typing import Final

MODULES: Final = (
    "highdicom",
    "jsonschema",
    "matplotlib.backends.backend_agg",
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
    "SimpleITK",
    "skimage.measure",
    "leakloc.anatomy.network",
    "leakloc.levels",
    "leakloc.levels.network",
    "leakloc.loaders",
    "leakloc.localization",
    "leakloc.pipeline",
    "leakloc.report",
    "leakloc.report.html",
    "leakloc.report.overlays",
    "leakloc.segmentation",
)


def preload() -> None:
    """Import what an analysis needs, and keep it out of garbage collection.

    Collections in the forked processes then leave the shared pages shared.
    """
    for module in MODULES:
        importlib.import_module(module)
    _load_dicom_tables()
    gc.freeze()


def _load_dicom_tables() -> None:
    """Read the DICOM standard's tables, which highdicom keeps once they were asked for."""
    with suppress(ImportError, AttributeError):  # private names: without them it is only slower
        from highdicom import _standard_utils as tables

        tables.get_iod_module_map()
        tables.get_module_attribute_map()


preload()
