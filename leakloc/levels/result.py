"""What labelling the levels yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakloc.anatomy.vocabulary import LevelStatus, NumberingMethod, Role
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.levels.labeling import SpineDetection
    from leakloc.segmentation.result import Segmentation


@dataclass(frozen=True)
class Vertebra:
    """A vertebral body."""

    name: str
    center_lps: FloatArray
    confidence: float


@dataclass(frozen=True)
class Disc:
    """An intervertebral disc, or the remnant between sacral segments."""

    name: str
    center_lps: FloatArray
    normal_lps: FloatArray
    """Unit normal of the disc plane, towards the head."""
    confidence: float


@dataclass(frozen=True)
class AlternativeNumbering:
    """Another way to number the same vertebrae.

    Parameters
    ----------
    shift : int
        How many names every level moves towards the tail: with +1, the level reported as
        L4-L5 would be L5-S1; with -1 it would be L3-L4.
    """

    shift: int
    confidence: float
    reason: str


@dataclass(frozen=True)
class Numbering:
    """How the names were assigned and how far to trust them."""

    method: NumberingMethod
    assumption: str
    confidence: float
    lumbar_count: int
    transitional_suspected: bool = False
    alternatives: tuple[AlternativeNumbering, ...] = ()


@dataclass(frozen=True)
class Levels:
    """Named vertebrae and discs, head down, gap-free, in the frame of the myelogram.

    Parameters
    ----------
    status : str
        ``"labelled"``, ``"partial"`` (part of the field), ``"unlabelled"`` (nothing named).
    vertebrae, discs : tuple
        From the head down. A disc ``"L4-L5"`` lies between the vertebrae of its name.
    mask : Volume
        uint8 on the myelogram's grid: `vocabulary.LABEL_VALUES` inside each vertebral body.
    seen : SpineDetection or None
        What the names were given to, so that `leakloc.levels.assign_levels` can name it again; None
        where the labeler only took names over.
    cord_end_lps : ndarray or None
        End of the spinal cord; None where it was not detected, or lies farther from its usual
        level than in anybody.
    """

    status: LevelStatus
    numbering: Numbering
    vertebrae: tuple[Vertebra, ...]
    discs: tuple[Disc, ...]
    mask: Volume
    notes: tuple[Note, ...] = ()
    seen: SpineDetection | None = None
    cord_end_lps: FloatArray | None = None


Labeler = Callable[[Volume, Mapping[Role, Volume], "Segmentation", "LevelSettings"], Levels]
"""A labelling stage: myelogram, companions by role, segmentation, settings."""
