"""Label values of vertebrae and discs in the level maps of other programs.

A scheme maps voxel values to names. The published ones:

totalspineseg
    "List of Classes" in the README of neuropoly/totalspineseg (labels of ``step2_output``).
spineps
    ``Vertebra_Instance`` of TPTBox, which SPINEPS writes (``seg-vert``): vertebrae 1-26 and 28,
    the disc below a vertebra 100 higher.
totalsegmentator
    Class map ``total`` of TotalSegmentator 2: sacrum 25, S1 26, L5 27 ... C1 50.
totalsegmentator_mr
    Class map ``vertebrae_mr`` of TotalSegmentator 2: sacrum 1, L5 2 ... C1 25.
sct
    Vertebral levels of the Spinal Cord Toolbox (``sct_label_vertebrae``), drawn on the cord:
    C1 1 ... C7 7, T1 8 ... T12 19, L1 20 ... L5 24, S1 25.
spider
    SPIDER counts from the lowest vertebra: L5 1, L4 2 ...; the disc below vertebra n is 200 + n.
    It does not encode transitional anatomy: vertebra 1 is assumed to be L5.
leakloc
    Values written by leakloc (`vocabulary.LABEL_VALUES`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from leakloc.anatomy.vocabulary import LABEL_VALUES, segment_name, split_segment, vertebra_chain
from leakloc.core.errors import SettingsError
from leakloc.core.volume import Volume

_CHAIN: Final = vertebra_chain()
_ABOVE_SACRUM: Final = _CHAIN[: _CHAIN.index("S1")]


@dataclass(frozen=True)
class LevelScheme:
    """Meaning of the voxel values of a level map.

    Parameters
    ----------
    vertebrae : mapping of int to str
        Value of each vertebra.
    discs : mapping of int to str
        Value of each disc, such as ``"L4-L5"``; may be empty.
    sacrum : int, optional
        Value of the whole sacrum, if its segments are not distinguished.
    """

    name: str
    vertebrae: Mapping[int, str]
    discs: Mapping[int, str] = field(default_factory=dict)
    sacrum: int | None = None

    def __post_init__(self) -> None:
        duplicates = {*self.vertebrae} & {*self.discs}
        if duplicates:
            raise SettingsError(
                f"level scheme {self.name}: value {min(duplicates)} is both a vertebra and a disc"
            )

    @property
    def values(self) -> dict[str, int]:
        """Label value of each vertebra, for writing."""
        return {name: value for value, name in self.vertebrae.items()}

    def written(self, mask: Volume) -> Volume:
        """Convert a leakloc level mask (`vocabulary.LABEL_VALUES`) to the values of this scheme."""
        table = np.zeros(256, np.uint8)
        for name, value in self.values.items():
            table[LABEL_VALUES[name]] = value
        return mask.with_array(table[mask.array], f"values of {self.name}")

    @classmethod
    def of(cls, name: str, meanings: Mapping[str, str]) -> LevelScheme:
        """Create a custom scheme from values and names of vertebrae, discs, or ``sacrum``.

        Raises
        ------
        SettingsError
            If a value is not a voxel value or a name is not a level.

        Examples
        --------
        >>> LevelScheme.of("mine", {"1": "L5", "2": "L4", "11": "L4-L5"}).discs
        {11: 'L4-L5'}
        """
        vertebrae: dict[int, str] = {}
        discs: dict[int, str] = {}
        sacrum = None
        for text, level in meanings.items():
            if not re.fullmatch(r"\d{1,5}", str(text)) or int(text) == 0:
                raise SettingsError(
                    f"level scheme {name}: {text!r} is not a voxel value (1 to 65535)"
                )
            if level == "sacrum":
                sacrum = int(text)
            elif level in LABEL_VALUES:
                vertebrae[int(text)] = level
            elif _is_disc(level):
                discs[int(text)] = level
            else:
                raise SettingsError(
                    f"level scheme {name}: {level!r} is not a level; use L4, L4-L5 or sacrum"
                )
        return cls(name, vertebrae, discs, sacrum)


def _is_disc(level: str) -> bool:
    try:
        split_segment(level)
    except ValueError:
        return False
    return True


def _pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


def _totalspineseg() -> LevelScheme:
    vertebrae = {
        **{10 + n: f"C{n}" for n in range(1, 8)},
        **{20 + n: f"T{n}" for n in range(1, 13)},
        **{40 + n: f"L{n}" for n in range(1, 6)},
    }
    discs = {
        **{61 + n: f"C{n}-C{n + 1}" for n in range(2, 7)},
        71: "C7-T1",
        **{71 + n: f"T{n}-T{n + 1}" for n in range(1, 12)},
        91: "T12-L1",
        **{91 + n: f"L{n}-L{n + 1}" for n in range(1, 5)},
        100: "L5-S1",
    }
    return LevelScheme("totalspineseg", vertebrae, discs, sacrum=50)


def _spineps() -> LevelScheme:
    names = {value: name for name, value in LABEL_VALUES.items()}
    below = dict(_pairs(_CHAIN))
    below |= {"T13": "L1", "L6": "S1"}
    discs = {100 + LABEL_VALUES[a]: segment_name(a, b) for a, b in below.items() if a != "C1"}
    return LevelScheme("spineps", names, discs)


def _counted_up(name: str, first: int, sacrum: int, s1: int | None = None) -> LevelScheme:
    """Scheme with value `first` for L5, increasing by one per vertebra up to C1."""
    vertebrae = {first + n: level for n, level in enumerate(reversed(_ABOVE_SACRUM))}
    if s1 is not None:
        vertebrae[s1] = "S1"
    return LevelScheme(name, vertebrae, sacrum=sacrum)


def _spider() -> LevelScheme:
    above = list(reversed(_ABOVE_SACRUM))[:24]
    vertebrae = dict(enumerate(above, start=1))
    lower = ["S1", *above]
    discs = {200 + n: segment_name(level, lower[n - 1]) for n, level in vertebrae.items()}
    return LevelScheme("spider", vertebrae, {k: v for k, v in discs.items() if v != "C1-C2"})


SCHEMES: Final[dict[str, LevelScheme]] = {
    scheme.name: scheme
    for scheme in (
        LevelScheme("leakloc", {value: name for name, value in LABEL_VALUES.items()}),
        _totalspineseg(),
        _spineps(),
        _counted_up("totalsegmentator", first=27, sacrum=25, s1=26),
        _counted_up("totalsegmentator_mr", first=2, sacrum=1),
        LevelScheme("sct", dict(enumerate(_CHAIN, start=1))),
        _spider(),
    )
}
"""Published schemes by name."""


def level_scheme(name: str) -> LevelScheme:
    """Return a published scheme by name.

    Raises
    ------
    SettingsError
        If the name is unknown.
    """
    if name not in SCHEMES:
        raise SettingsError(
            f"unknown level scheme {name!r}; choose from {', '.join(sorted(SCHEMES))}, "
            "or specify a TOML file that maps values to levels"
        )
    return SCHEMES[name]
