"""CSF volume of the thecal sac in comparison with published volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Final

from leakloc.anatomy.vocabulary import split_segment

if TYPE_CHECKING:
    from leakloc.localization.result import SacSegment
    from leakloc.report.model import Report


@dataclass(frozen=True)
class PublishedVolume:
    """A published CSF volume and the part of the sac that it refers to.

    Parameters
    ----------
    region : str
        Part of the sac.
    first : str
        Most cranial motion segment of the part.
    first_fraction : float
        Fraction of that segment within the part, 0..1.
    value : str
        Published volume, population and method.
    source : str
    """

    region: str
    first: str
    first_fraction: float
    value: str
    source: str


WHOLE_SPINE: Final = PublishedVolume(
    region="C2 to the end of the sac",
    first="C2-C3",
    first_fraction=1.0,
    value=(
        "mean 95.3 mL in 32 healthy controls; in 23 patients with spontaneous intracranial "
        "hypotension 72.3 mL initially and 93.7 mL after recovery (threshold segmentation of MR "
        "myelograms, 1.5 T)"
    ),
    source="Chen et al., AJNR Am J Neuroradiol 2017;38:1061",
)
THORACOLUMBAR: Final = PublishedVolume(
    region="T11-T12 disc to the end of the sac",
    first="T11-T12",
    first_fraction=0.5,
    value=(
        "mean 49.9 mL, SD 12.1 mL, range 28.0 to 81.1 mL in 25 healthy volunteers (axial T2; "
        "nerve roots included, which leakloc excludes)"
    ),
    source="Hogan et al., Anesthesiology 1996;84:1341",
)
PUBLISHED: Final = (WHOLE_SPINE, THORACOLUMBAR)
"""Published volumes, the larger part of the sac first."""


@dataclass(frozen=True)
class ReferenceVolume:
    """CSF volume of a part of the sac before and after, in mL, and the published volume.

    Parameters
    ----------
    volumes_ml : tuple of float or None
        None if the part is not completely in the field of view.
    """

    published: PublishedVolume
    volumes_ml: tuple[float | None, float | None]


def reference_volume(before: Report, after: Report) -> ReferenceVolume | None:
    """Return the CSF volumes of the largest part of the sac that is complete in a study."""
    for published in PUBLISHED:
        volumes = csf_volume_ml(before, published), csf_volume_ml(after, published)
        if volumes != (None, None):
            return ReferenceVolume(published, volumes)
    return None


def csf_volume_ml(report: Report, published: PublishedVolume) -> float | None:
    """Return the CSF volume of a part of the sac; None if it is not completely measured."""
    parts = report.thecal_sac.by_segment
    names = [part.segment for part in parts]
    end = report.thecal_sac.caudal_end.level
    if published.first not in names or end is None:
        return None
    below = _contiguous(parts[names.index(published.first) :])
    volumes = [part.csf_volume_ml for part in below]
    if end not in split_segment(below[-1].segment) or None in volumes:
        return None
    first, *others = (volume for volume in volumes if volume is not None)
    return published.first_fraction * first + sum(others)


def _contiguous(parts: Sequence[SacSegment]) -> list[SacSegment]:
    """Return the first segments up to a gap."""
    joined = takewhile(
        lambda pair: split_segment(pair[0].segment)[1] == split_segment(pair[1].segment)[0],
        pairwise(parts),
    )
    return [parts[0], *(lower for _, lower in joined)]
