"""Everything an analysis imports, loaded once by the process that the analyses are forked from.

Importing it takes some seconds, which each study would otherwise pay for.
"""

import gc
import importlib
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
    "scipy.ndimage",
    "scipy.stats",
    "SimpleITK",
    "skimage.measure",
    "leakloc.anatomy_network",
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
    gc.freeze()


preload()
