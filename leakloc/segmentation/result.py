"""What segmentation yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import Compartment, Role
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings


@dataclass(frozen=True)
class Candidate:
    """A connected piece of bright signal outside the thecal sac that was looked at.

    Parameters
    ----------
    id : int
        Value in the label mask: the collection id where accepted, 0 where rejected.
    accepted : bool
        Whether it counts as a collection.
    probability : float
        How likely it is extradural CSF-like fluid, 0..1.
    volume_ml : float
        Fluid volume, partial volume counted as a fraction.
    center_lps : ndarray, shape (3,)
        Fluid-weighted centre.
    reason : str
        One sentence: why it was accepted, or what else it is taken for.
    mimics : tuple of str
        Mimics considered, such as ``"nerve root sleeve"``.
    features : dict
        The figures the decision rests on (units in the names).
    """

    id: int
    accepted: bool
    probability: float
    volume_ml: float
    center_lps: FloatArray
    reason: str
    mimics: tuple[str, ...]
    compartments: tuple[Compartment, ...]
    features: dict[str, float]


@dataclass(frozen=True)
class Segmentation:
    """Thecal sac and extradural fluid on the grid of the myelogram.

    Parameters
    ----------
    fluid_fraction : Volume
        float32, 0..1: the share of each voxel that is CSF-like fluid.
    centerline : Centerline
        Down the canal, from the top of the field to the sacral canal (or the field's end).
    thecal_sac : Volume
        uint8 0/1: everything the dura encloses, cord and roots included.
    collections : Volume
        uint8: collection id, 0 for none. Ids follow falling volume from 1.
    candidates : tuple of Candidate
        Accepted and rejected.
    fat_suppressed : bool or None
        Whether fat is dark; None where it cannot be told.
    csf_signal : float
        Signal of pure CSF at the centre of the field, in units of the myelogram.
    noise : float
        Standard deviation of the noise in tissue, in units of the myelogram.
    """

    fluid_fraction: Volume
    centerline: Centerline
    thecal_sac: Volume
    collections: Volume
    candidates: tuple[Candidate, ...]
    fat_suppressed: bool | None
    csf_signal: float
    noise: float
    notes: tuple[Note, ...] = ()

    @property
    def accepted(self) -> tuple[Candidate, ...]:
        """The candidates that count as collections, by id."""
        return tuple(sorted((c for c in self.candidates if c.accepted), key=lambda c: c.id))


Segmenter = Callable[[Volume, Mapping[Role, Volume], "SegmentationSettings"], Segmentation]
"""A segmentation stage: myelogram, companions by role, settings."""
