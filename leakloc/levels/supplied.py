"""Labelers that take the levels from elsewhere: another program's map, or an edited list.

Only where vertebrae and discs are is taken over, in any order; names must make one chain from
the head down, without gap or repetition, because a skipped number is how wrong levels happen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import (
    LABEL_VALUES,
    NumberingMethod,
    Role,
    segment_name,
    split_segment,
    vertebra_chain,
)
from leakloc.core.errors import InputError
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.levels.result import Disc, Levels, Numbering, Vertebra
from leakloc.levels.schemes import LevelScheme

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.segmentation.result import Segmentation

SUPPLIED_CONFIDENCE: Final = 0.95
"""Confidence of levels that a person or another program names: not ours to doubt much."""

_BODY_DORSAL_MM: Final = -5.0
"""Bodies lie in front of the middle of the canal by more than this; arches do not."""
_BODY_FRACTION: Final = 0.1
"""Least share of a label in front of the canal that is taken for its body; maps drawn on the
cord have nothing there."""
_S1_FRACTION: Final = 0.35
"""Share of the sacrum's voxels that belong to S1: the tallest and widest of five segments."""
_MIN_REGION_VOXELS: Final = 3
_FARTHEST_MM: Final = 80.0
"""A vertebra farther than this from the canal's middle is not of this patient's spine (30 mm)."""


@dataclass(frozen=True)
class SuppliedLevelMap:
    """A labeler that reads vertebrae and discs off a level map.

    Parameters
    ----------
    map : Volume
        Whole numbers, 0 for background; on any grid of the myelogram's patient space.
    scheme : LevelScheme
        What the numbers mean.
    """

    map: Volume
    scheme: LevelScheme

    def __call__(
        self,
        myelogram: Volume,
        companions: Mapping[Role, Volume],
        segmentation: Segmentation,
        settings: LevelSettings,
    ) -> Levels:
        """Levels of the map (a `leakloc.levels.result.Labeler`), as `levels` gives them."""
        return self.levels(myelogram.geometry, segmentation.centerline)

    def levels(self, geometry: Geometry, line: Centerline) -> Levels:
        """Levels of the map on the grid of a myelogram, along the centreline of its canal.

        Raises
        ------
        InputError
            If the map holds no vertebra of the scheme, or its names make no chain.
        GeometryError
            If it lies elsewhere than the myelogram.
        """
        from leakloc.loaders.masks import put_on_grid

        on_grid, notes = put_on_grid(self.map, geometry, "level map")
        vertebrae = {
            name: Vertebra(name, _body_center(points, line), SUPPLIED_CONFIDENCE)
            for name, points in self._points(self.scheme.vertebrae).items()
        }
        vertebrae |= self._first_sacral(vertebrae)
        discs = [
            Disc(name, points.mean(axis=0), np.zeros(3), SUPPLIED_CONFIDENCE)
            for name, points in self._points(self.scheme.discs).items()
        ]
        table = np.zeros(int(on_grid.array.max()) + 1, np.uint8)
        for value, name in self.scheme.vertebrae.items():
            if value < len(table):
                table[value] = LABEL_VALUES[name]
        mask = Volume(table[on_grid.array], geometry, Provenance("level map"))
        levels = named_levels(list(vertebrae.values()), discs, mask, line, "external")
        return replace(
            levels,
            notes=(
                *notes,
                *levels.notes,
                Note("levels_given", f"The levels come from a given map ({self.scheme.name})."),
            ),
        )

    def _points(self, names: Mapping[int, str]) -> dict[str, FloatArray]:
        """Voxel centres of each name's label, LPS mm."""
        voxels = _voxels(self.map.array)
        return {
            name: self.map.geometry.lps_from_kji(voxels[value])
            for value, name in names.items()
            if value in voxels and len(voxels[value]) >= _MIN_REGION_VOXELS
        }

    def _first_sacral(self, vertebrae: Mapping[str, Vertebra]) -> dict[str, Vertebra]:
        """S1 as the part of a whole sacrum that is next to the lowest lumbar vertebra."""
        lumbar = [v for v in vertebrae.values() if v.name.startswith("L")]
        if self.scheme.sacrum is None or "S1" in vertebrae or not lumbar:
            return {}
        points = self._points({self.scheme.sacrum: "S1"}).get("S1")
        if points is None:
            return {}
        lowest = max(lumbar, key=lambda v: v.name)
        near = np.linalg.norm(points - lowest.center_lps, axis=1)
        top = points[near <= np.quantile(near, _S1_FRACTION)]
        return {"S1": Vertebra("S1", top.mean(axis=0), SUPPLIED_CONFIDENCE)}


@dataclass(frozen=True)
class SuppliedLevels:
    """A labeler that takes vertebrae and discs from a list, as edited by a person.

    Parameters
    ----------
    vertebrae : sequence of Vertebra
    discs : sequence of Disc
        May be empty: then half-way between vertebrae.
    mask : Volume, optional
        A level map of the same bodies under any names, such as that of an earlier run.
    """

    vertebrae: Sequence[Vertebra]
    discs: Sequence[Disc] = ()
    mask: Volume | None = None

    def __call__(
        self,
        myelogram: Volume,
        companions: Mapping[Role, Volume],
        segmentation: Segmentation,
        settings: LevelSettings,
    ) -> Levels:
        """Levels of the list (a `leakloc.levels.result.Labeler`), as `levels` gives them."""
        return self.levels(myelogram.geometry, segmentation.centerline)

    def levels(self, geometry: Geometry, line: Centerline) -> Levels:
        """Levels of the list on the grid of a myelogram, along the centreline of its canal.

        Raises
        ------
        InputError
            If the names make no chain from the head down.
        """
        given = Note("levels_given", "The levels come from a given list.")
        mask, notes = self._renamed_mask(geometry)
        levels = named_levels(list(self.vertebrae), list(self.discs), mask, line, "user")
        return replace(levels, notes=(*notes, *levels.notes, given))

    def _renamed_mask(self, geometry: Geometry) -> tuple[Volume, list[Note]]:
        if self.mask is None:
            empty = np.zeros(geometry.shape, np.uint8)
            text = "No level map came with the given levels; the map of this report is empty."
            return Volume(empty, geometry, Provenance("levels")), [Note("level_map_empty", text)]
        from leakloc.loaders.masks import put_on_grid

        mask, notes = put_on_grid(self.mask, geometry, "level map")
        centers = np.array([v.center_lps for v in self.vertebrae])
        table = np.zeros(int(mask.array.max()) + 1, np.uint8)
        for value, kji in _voxels(mask.array).items():
            middle = mask.geometry.lps_from_kji(kji.mean(axis=0))
            nearest = int(np.argmin(np.linalg.norm(centers - middle, axis=1)))
            table[value] = LABEL_VALUES[self.vertebrae[nearest].name]
        return mask.with_array(table[mask.array], "renamed"), list(notes)


def named_levels(
    vertebrae: list[Vertebra],
    discs: list[Disc],
    mask: Volume,
    centerline: Centerline,
    method: NumberingMethod,
) -> Levels:
    """Levels in order, checked to be a chain, with every disc between two vertebrae.

    Parameters
    ----------
    vertebrae : list of Vertebra
        At least two, in any order.
    discs : list of Disc
        Those missing are put half-way between their vertebrae; normals that are zero are
        taken from the vertebrae.
    mask : Volume
        uint8, `vocabulary.LABEL_VALUES`.
    centerline : Centerline
        Of the canal; tells what is higher.
    method : str

    Raises
    ------
    InputError
        If names repeat, skip, or are out of order.
    """
    if len(vertebrae) < 2:
        raise InputError(
            f"the given levels name {len(vertebrae)} vertebrae; at least two are needed: check "
            "that the scheme fits the file (leakloc analyze --scheme)"
        )
    centers = np.array([v.center_lps for v in vertebrae])
    arcs, aside, dorsal = centerline.project(centers)
    if float(np.median(np.hypot(aside, dorsal))) > _FARTHEST_MM:
        raise InputError(
            "the given levels lie far from the spinal canal: they are of another patient space, "
            "or their sides are swapped (positions are LPS millimetres)"
        )
    ordered = [vertebrae[n] for n in np.argsort(arcs)]
    _demand_chain([v.name for v in ordered])
    by_upper = {split_segment(d.name)[0]: d for d in discs}
    complete = []
    for upper, lower in itertools.pairwise(ordered):
        between = upper.center_lps - lower.center_lps
        disc = by_upper.get(upper.name) or Disc(
            "", (upper.center_lps + lower.center_lps) / 2, between, SUPPLIED_CONFIDENCE
        )
        normal = disc.normal_lps if np.any(disc.normal_lps) else between
        complete.append(
            replace(
                disc,
                name=segment_name(upper.name, lower.name),
                normal_lps=normal / np.linalg.norm(normal),
            )
        )
    lumbar = {"L1", "S1"} <= {v.name for v in ordered}
    count = sum(v.name.startswith("L") for v in ordered) if lumbar else 5
    source = "the user" if method == "user" else "another program's level map"
    numbering = Numbering(method, f"the names given by {source}", SUPPLIED_CONFIDENCE, count)
    return Levels("labelled", numbering, tuple(ordered), tuple(complete), mask)


def _demand_chain(names: Sequence[str]) -> None:
    """Refuse names that skip, repeat or run upwards."""
    for name in names:
        if name not in LABEL_VALUES:
            raise InputError(f"the given levels name {name!r}, which is no vertebra such as L4")
        if names.count(name) > 1:
            raise InputError(f"the given levels name {name} twice; every vertebra once")
    for upper, lower in itertools.pairwise(names):
        if not _follows(upper, lower):
            raise InputError(
                f"in the given levels {lower} comes right below {upper}: names must follow each "
                "other from the head down without a gap; correct the names, or leave the part "
                "beyond the gap out"
            )


def _follows(upper: str, lower: str) -> bool:
    chains = (vertebra_chain(lumbar, thoracic) for lumbar in (4, 5, 6) for thoracic in (11, 12, 13))
    return any((upper, lower) in itertools.pairwise(chain) for chain in chains)


def _voxels(labels: npt.NDArray[np.integer]) -> dict[int, npt.NDArray[np.intp]]:
    """Indices (k, j, i) of each label's voxels, shape (n, 3); one pass over a large map."""
    kji = np.argwhere(labels != 0)
    values = labels[tuple(kji.T)]
    return {int(value): kji[values == value] for value in np.unique(values)}


def _body_center(points_lps: FloatArray, centerline: Centerline) -> FloatArray:
    """Centre of the part of a vertebra in front of the canal: maps may hold its arch too."""
    dorsal = centerline.project(points_lps)[2]
    body = points_lps[dorsal < _BODY_DORSAL_MM]
    if len(body) < _BODY_FRACTION * len(points_lps):
        body = points_lps
    return np.asarray(body.mean(axis=0))
