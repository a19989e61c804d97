"""Results of the segmentation stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Compartment, Role
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Volume

if TYPE_CHECKING:
    from leakloc.core.settings import SegmentationSettings


@dataclass(frozen=True)
class Features:
    """Measurements of a connected component outside the dura.

    Means and fractions are weighted by the fluid fraction of the voxels; arc positions are those
    of the centerline of the canal.
    """

    volume_ml: float
    """Volume, with partially filled voxels."""
    length_mm: float
    """Length along the canal."""
    arc_start_mm: float
    arc_stop_mm: float
    """Ends along the canal (percentiles 2 and 98)."""
    left_mm: float
    dorsal_mm: float
    """Mean offset from the centerline."""
    gap_mm: float
    """Distance from the dura."""
    reach_left_mm: float
    """Lateral distance from the centerline (percentile 98)."""
    contact_fraction: float
    """Fraction within 2.5 mm of the dura."""
    sectors: int
    """Number of sectors of 30 degrees around the sac that contain fluid."""
    ventral_fraction: float
    dorsal_fraction: float
    lateral_fraction: float
    """Fractions by direction from the centerline; their sum is 1."""
    thickness_mm: float
    """Diameter of the largest inscribed ball."""
    roundness: float
    """1 for a ball, less for thin layers and tubes."""
    brightness: float
    """Signal relative to CSF (percentile 75)."""
    network: float
    """Fluid fraction of the dura network that 0.1 mL of the component reach or exceed."""
    surrounding: float
    """Signal of the tissue around the component relative to its own: near 0 around fluid with fat
    suppression, more where the component is part of bright fat. 0 (not measured) if the network
    does not classify the component as fluid."""


@dataclass(frozen=True)
class Candidate:
    """A candidate: a connected component of bright signal outside the thecal sac.

    Parameters
    ----------
    id : int
        Value in the label mask: the collection id if accepted, 0 if rejected.
    accepted : bool
        Whether the candidate counts as a collection.
    probability : float
        Probability of CSF-like epidural fluid, 0..1.
    volume_ml : float
        Fluid volume; partially filled voxels count by their fraction.
    center_lps : ndarray, shape (3,)
        Fluid-weighted center.
    reason : str
        One sentence: why it was accepted, or what it is classified as otherwise.
    mimics : tuple of str
        Mimics considered, such as ``"nerve root sleeve"``.
    features : Features or None
        Measurements on which the decision is based; None for user-supplied collections.
    """

    id: int
    accepted: bool
    probability: float
    volume_ml: float
    center_lps: FloatArray
    reason: str
    mimics: tuple[str, ...]
    compartments: tuple[Compartment, ...]
    features: Features | None = None


@dataclass(frozen=True)
class RoundStructure:
    """A round structure of CSF signal at a nerve root, outside the sac and the collections.

    Parameters
    ----------
    center_lps : ndarray, shape (3,)
    diameter_mm : float
        Maximum diameter.
    volume_ml : float
    sac_distance_mm : float
        Distance of its border from the sac.
    """

    center_lps: FloatArray
    diameter_mm: float
    volume_ml: float
    sac_distance_mm: float


@dataclass(frozen=True)
class Segmentation:
    """Thecal sac and epidural fluid on the grid of the myelogram.

    Parameters
    ----------
    fluid_fraction : Volume
        float32, 0..1: fraction of CSF-like fluid in each voxel.
    centerline : Centerline
        Centerline of the canal, from the upper edge of the field of view to the sacral canal or
        the lower edge.
    thecal_sac : Volume
        uint8 0/1: everything inside the dura, including cord and roots.
    collections : Volume
        uint8: collection id, 0 for none; ids start at 1 in order of decreasing volume.
    candidates : tuple of Candidate
        Accepted and rejected candidates.
    fat_suppressed : bool or None
        Whether fat is dark; None if unknown.
    csf_signal : float
        Signal of pure CSF at the middle of the centerline, in units of the myelogram.
    noise : float
        Standard deviation of the noise in tissue, in units of the myelogram.
    round_structures : tuple of RoundStructure or None
        Perineural cysts and root sleeve diverticula, largest first; None if not assessed,
        as next to bright fat or with supplied masks.
    foramen_magnum_arc_mm : float or None
        Position of the foramen magnum along the centerline; None if not detected.
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
    round_structures: tuple[RoundStructure, ...] | None = None
    foramen_magnum_arc_mm: float | None = None

    @property
    def accepted(self) -> tuple[Candidate, ...]:
        """Accepted candidates (collections), by id."""
        return tuple(sorted((c for c in self.candidates if c.accepted), key=lambda c: c.id))


Segmenter = Callable[[Spine, Mapping[Role, Volume], "SegmentationSettings"], Segmentation]
"""A segmentation stage, called with the spine (contains the myelogram), companions by role, and
settings."""
