"""leakloc: where is the leak?

Reads a spine MR study with heavily T2-weighted myelography, finds cerebrospinal fluid
outside the dura, and names the vertebral level. Research use only; not a medical device.

>>> import leakloc as ll
>>> study = ll.load("study/")  # doctest: +SKIP
>>> result = ll.analyze(study, ll.Settings())  # doctest: +SKIP
>>> result.report.finding.level  # doctest: +SKIP
'L4-L5'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakloc.core.extras import lazy_names
from leakloc.core.version import __version__

if TYPE_CHECKING:
    from leakloc import levels, loaders, localization, segmentation
    from leakloc.core.settings import Settings
    from leakloc.core.volume import Geometry, Volume
    from leakloc.loaders import Study, read_mask
    from leakloc.loaders.load import load
    from leakloc.pipeline import Analysis, analyze
    from leakloc.report import Report
    from leakloc.validation import evaluation, phantom

_import = lazy_names(
    __name__,
    {
        "Analysis": "leakloc.pipeline",
        "Geometry": "leakloc.core.volume",
        "Report": "leakloc.report",
        "Settings": "leakloc.core.settings",
        "Study": "leakloc.loaders",
        "Volume": "leakloc.core.volume",
        "analyze": "leakloc.pipeline",
        "evaluation": "leakloc.validation.evaluation",
        "levels": "leakloc.levels",
        "load": "leakloc.loaders",
        "loaders": "leakloc.loaders",
        "localization": "leakloc.localization",
        "phantom": "leakloc.validation.phantom",
        "read_mask": "leakloc.loaders",
        "segmentation": "leakloc.segmentation",
    },
)

__all__ = [
    "Analysis",
    "Geometry",
    "Report",
    "Settings",
    "Study",
    "Volume",
    "__version__",
    "analyze",
    "evaluation",
    "levels",
    "load",
    "loaders",
    "localization",
    "phantom",
    "read_mask",
    "segmentation",
]


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that `leakloc --help` starts at once."""
    return _import(name)


def __dir__() -> list[str]:
    """The public names, for completion at a prompt."""
    return list(__all__)
