"""leakloc: where is the leak?

Reads a spine MR study with heavily T2-weighted myelography, finds cerebrospinal fluid
outside the dura, and names the vertebral level. Research use only; not a medical device.

>>> import leakloc
>>> report = leakloc.analyze("study/", "out/")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from leakloc.loaders import load_study
    from leakloc.pipeline import Analysis, analyze, analyze_study
    from leakloc.report import Report
    from leakloc.settings import Settings
    from leakloc.volume import Geometry, Volume

_PUBLIC = {
    "Analysis": "leakloc.pipeline",
    "Geometry": "leakloc.volume",
    "Report": "leakloc.report",
    "Settings": "leakloc.settings",
    "Volume": "leakloc.volume",
    "analyze": "leakloc.pipeline",
    "analyze_study": "leakloc.pipeline",
    "load_study": "leakloc.loaders",
}

__all__ = [
    "Analysis",
    "Geometry",
    "Report",
    "Settings",
    "Volume",
    "__version__",
    "analyze",
    "analyze_study",
    "load_study",
]


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that `leakloc --help` starts at once."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'leakloc' has no attribute {name!r}")
