"""Result types of level labeling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import LevelStatus, NumberingMethod, Role
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.levels.search import SpineDetection
    from leakloc.segmentation.result import Segmentation


@dataclass(frozen=True)
class Vertebra:
    """A vertebral body."""

    name: str
    center_lps: FloatArray
    confidence: float


@dataclass(frozen=True)
class Disc:
    """An intervertebral disc, or a remnant disc between sacral segments."""

    name: str
    center_lps: FloatArray
    normal_lps: FloatArray
    """Unit normal of the disc plane, cranial."""
    confidence: float


@dataclass(frozen=True)
class AlternativeNumbering:
    """An alternative numbering of the same vertebrae.

    Parameters
    ----------
    shift : int
        Caudal shift of all names, in levels: with +1, the level reported as L4-L5 would be
        L5-S1; with -1 it would be L3-L4.
    """

    shift: int
    confidence: float
    reason: str


@dataclass(frozen=True)
class Numbering:
    """Method, assumption and confidence of the level numbering."""

    method: NumberingMethod
    assumption: str
    confidence: float
    lumbar_count: int
    transitional_suspected: bool = False
    alternatives: tuple[AlternativeNumbering, ...] = ()


@dataclass(frozen=True)
class Levels:
    """Named vertebrae and discs without gaps, cranial to caudal, in the myelogram frame.

    Parameters
    ----------
    status : str
        ``"labelled"``, ``"partial"`` (neither C2 nor sacrum), ``"unlabelled"`` (nothing named).
    vertebrae, discs : tuple
        Cranial to caudal. A disc ``"L4-L5"`` lies between the vertebrae of its name.
    mask : Volume
        uint8 on the myelogram's grid: `vocabulary.LABEL_VALUES` inside each vertebral body.
    detection : SpineDetection or None
        Detections that were named, so that `leakloc.levels.assign_levels` can name them again;
        None for supplied levels.
    conus_tip_lps : ndarray or None
        Tip of the conus medullaris; None if not detected or outside the range of normal levels.
    """

    status: LevelStatus
    numbering: Numbering
    vertebrae: tuple[Vertebra, ...]
    discs: tuple[Disc, ...]
    mask: Volume
    notes: tuple[Note, ...] = ()
    detection: SpineDetection | None = None
    conus_tip_lps: FloatArray | None = None


Labeler = Callable[[Spine, Mapping[Role, Volume], "Segmentation", "LevelSettings"], Levels]
"""A labeling stage: spine (contains the myelogram), companions by role, segmentation, settings."""
