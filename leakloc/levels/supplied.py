"""Labelers for supplied levels: a level map of another program, or an edited list.

Vertebrae and discs may be in any order; their names must form one chain from cranial to caudal
without gap or repetition, because a skipped vertebra shifts all other levels.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import (
    LABEL_VALUES,
    NumberingMethod,
    Role,
    segment_name,
    split_segment,
    vertebra_chain,
)
from leakloc.core.errors import InputError
from leakloc.core.notes import Note, note
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.levels.result import Disc, Levels, Numbering, Vertebra
from leakloc.levels.schemes import LevelScheme
from leakloc.loaders.masks import put_on_grid

if TYPE_CHECKING:
    from leakloc.core.settings import LevelSettings
    from leakloc.segmentation.result import Segmentation

SUPPLIED_CONFIDENCE: Final = 0.95
"""Confidence of levels named by the user or another program."""

_BODY_DORSAL_MM: Final = -5.0
"""Vertebral bodies lie farther anterior to the canal center than this; arches do not."""
_BODY_FRACTION: Final = 0.1
"""Minimum fraction of a label anterior to the canal for a body; labels drawn on the cord have no
such part."""
_S1_FRACTION: Final = 0.35
"""Fraction of sacral voxels that belong to S1, the largest of five segments."""
_MIN_REGION_VOXELS: Final = 3
_MAX_CANAL_MM: Final = 80.0
"""Maximum distance of vertebrae from the canal center (typically 30 mm)."""


class _SuppliedLabeler(ABC):
    """Labeler (`leakloc.levels.result.Labeler`) that does not use the image."""

    def __call__(
        self,
        spine: Spine,
        companions: Mapping[Role, Volume],
        segmentation: Segmentation,
        settings: LevelSettings,
    ) -> Levels:
        """Return the supplied levels on the grid of the myelogram; see `levels`."""
        return self.levels(spine.myelogram.geometry, segmentation.centerline)

    @abstractmethod
    def levels(self, geometry: Geometry, line: Centerline) -> Levels:
        """Levels on the grid of a myelogram, ordered along the canal centerline."""


@dataclass(frozen=True)
class SuppliedLevelMap(_SuppliedLabeler):
    """Labeler that takes vertebrae and discs from a level map.

    Parameters
    ----------
    map : Volume
        Integer labels, 0 for background; any grid in the patient space of the myelogram.
    scheme : LevelScheme
        Meaning of the labels.
    """

    map: Volume
    scheme: LevelScheme

    def levels(self, geometry: Geometry, line: Centerline) -> Levels:
        """Levels of the map on the grid of a myelogram, ordered along the canal centerline.

        Raises
        ------
        InputError
            If the map contains no vertebra of the scheme, or its names do not form a chain.
        GeometryError
            If it does not overlap the myelogram.
        """
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
                note("levels_given", "map", scheme=self.scheme.name),
            ),
        )

    def _points(self, names: Mapping[int, str]) -> dict[str, FloatArray]:
        """Voxel centers of each named label, LPS mm."""
        voxels = _voxels(self.map.array)
        return {
            name: self.map.geometry.lps_from_kji(voxels[value])
            for value, name in names.items()
            if value in voxels and len(voxels[value]) >= _MIN_REGION_VOXELS
        }

    def _first_sacral(self, vertebrae: Mapping[str, Vertebra]) -> dict[str, Vertebra]:
        """S1 as the part of an undivided sacrum nearest to the lowest lumbar vertebra."""
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
class SuppliedLevels(_SuppliedLabeler):
    """Labeler that takes vertebrae and discs from a list edited by the user.

    Parameters
    ----------
    vertebrae : sequence of Vertebra
    discs : sequence of Disc
        Optional; missing discs are placed midway between vertebrae.
    mask : Volume, optional
        A level map of the same vertebrae under any names, such as from an earlier run.
    """

    vertebrae: Sequence[Vertebra]
    discs: Sequence[Disc] = ()
    mask: Volume | None = None

    def levels(self, geometry: Geometry, line: Centerline) -> Levels:
        """Levels of the list on the grid of a myelogram, ordered along the canal centerline.

        Raises
        ------
        InputError
            If the names do not form a chain from cranial to caudal.
        """
        mask, notes = self._renamed_mask(geometry)
        levels = named_levels(list(self.vertebrae), list(self.discs), mask, line, "user")
        return replace(levels, notes=(*notes, *levels.notes, note("levels_given", "list")))

    def _renamed_mask(self, geometry: Geometry) -> tuple[Volume, list[Note]]:
        if self.mask is None:
            empty = np.zeros(geometry.shape, np.uint8)
            return Volume(empty, geometry, Provenance("levels")), [note("level_map_empty")]
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
    """Sort levels, check that they form a chain, and add missing discs.

    Parameters
    ----------
    vertebrae : list of Vertebra
        At least two, in any order.
    discs : list of Disc
        Missing discs are placed midway between their vertebrae; zero normals are derived from
        the vertebrae.
    mask : Volume
        uint8, `vocabulary.LABEL_VALUES`.
    centerline : Centerline
        Canal centerline, which defines the order.
    method : str

    Raises
    ------
    InputError
        If names are repeated, skipped, or out of order.
    """
    if len(vertebrae) < 2:
        raise InputError(
            f"the supplied levels name {len(vertebrae)} vertebrae; at least two are needed: check "
            "that the scheme matches the file (leakloc analyze --scheme)"
        )
    centers = np.array([v.center_lps for v in vertebrae])
    arcs, lateral, dorsal = centerline.project(centers)
    if float(np.median(np.hypot(lateral, dorsal))) > _MAX_CANAL_MM:
        raise InputError(
            "the supplied levels lie far from the spinal canal: they are in another patient space, "
            "or left and right are swapped (positions are LPS, in mm)"
        )
    ordered = [vertebrae[n] for n in np.argsort(arcs)]
    _check_chain([v.name for v in ordered])
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
    numbering = Numbering(method, f"the names supplied by {source}", SUPPLIED_CONFIDENCE, count)
    return Levels("labelled", numbering, tuple(ordered), tuple(complete), mask)


def _check_chain(names: Sequence[str]) -> None:
    """Raise InputError if names are skipped, repeated or in ascending order."""
    for name in names:
        if name not in LABEL_VALUES:
            raise InputError(
                f"the supplied levels contain {name!r}, which is not a vertebra such as L4"
            )
        if names.count(name) > 1:
            raise InputError(
                f"the supplied levels name {name} twice; each vertebra must occur once"
            )
    for upper, lower in itertools.pairwise(names):
        if not _follows(upper, lower):
            raise InputError(
                f"in the supplied levels {lower} is directly below {upper}: names must be "
                "consecutive from cranial to caudal; correct the names, or omit the part beyond "
                "the gap"
            )


def _follows(upper: str, lower: str) -> bool:
    chains = (vertebra_chain(lumbar, thoracic) for lumbar in (4, 5, 6) for thoracic in (11, 12, 13))
    return any((upper, lower) in itertools.pairwise(chain) for chain in chains)


def _voxels(labels: npt.NDArray[np.integer]) -> dict[int, npt.NDArray[np.intp]]:
    """Voxel indices (k, j, i) of each label, shape (n, 3), found in one pass."""
    kji = np.argwhere(labels != 0)
    values = labels[tuple(kji.T)]
    return {int(value): kji[values == value] for value in np.unique(values)}


def _body_center(points_lps: FloatArray, centerline: Centerline) -> FloatArray:
    """Center of the part of a vertebra anterior to the canal; maps may include the arch."""
    dorsal = centerline.project(points_lps)[2]
    body = points_lps[dorsal < _BODY_DORSAL_MM]
    if len(body) < _BODY_FRACTION * len(points_lps):
        body = points_lps
    return np.asarray(body.mean(axis=0))
