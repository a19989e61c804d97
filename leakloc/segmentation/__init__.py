"""Finding CSF inside and outside the dura: fluid map, canal, dura, collections.

`segment` runs all steps; each can be called alone (see `leakloc.segmentation.steps`).
"""

from leakloc.anatomy.spine import Spine
from leakloc.segmentation.dura import Dura
from leakloc.segmentation.result import Candidate, Segmentation, Segmenter
from leakloc.segmentation.segment import segment
from leakloc.segmentation.steps import (
    dural_surface,
    fluid_fraction,
    fluid_outside,
    sac_mask,
)
from leakloc.segmentation.supplied import SuppliedMasks

__all__ = [
    "Candidate",
    "Dura",
    "Segmentation",
    "Segmenter",
    "Spine",
    "SuppliedMasks",
    "dural_surface",
    "fluid_fraction",
    "fluid_outside",
    "sac_mask",
    "segment",
]
