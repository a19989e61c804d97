"""Finding CSF inside and outside the dura: fluid map, canal, dura, collections."""

from leakloc.segmentation.given import GivenMasks
from leakloc.segmentation.result import Candidate, Segmentation, Segmenter
from leakloc.segmentation.segment import segment

__all__ = ["Candidate", "GivenMasks", "Segmentation", "Segmenter", "segment"]
