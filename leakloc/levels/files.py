"""Reading supplied levels: an edited list, or a level map of another program."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.anatomy.vocabulary import LABEL_VALUES, split_segment, vertebra_code
from leakloc.core.errors import InputError, SettingsError, file_label, reason_of
from leakloc.core.volume import FloatArray
from leakloc.levels.result import Disc, Vertebra
from leakloc.levels.schemes import LevelScheme, level_scheme
from leakloc.levels.supplied import SUPPLIED_CONFIDENCE, SuppliedLevelMap, SuppliedLevels
from leakloc.loaders.limits import require_regular
from leakloc.loaders.masks import Segment, listed, read_mask, read_segments

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings

_VERTEBRA: Final = re.compile(r"(?:vertebrae?[ _-]*)?([CTLS]\d{1,2})(?:[ _-]*vertebrae?)?", re.I)
"""Names of a segment of one vertebra, such as ``L5``, ``L5 vertebra`` or ``vertebrae_L5``."""


def read_levels(path: str | Path, *, settings: LoaderSettings | None = None) -> SuppliedLevels:
    """Read levels from an edited ``levels.json`` or from a ``report.json``.

    Only names and positions are used. Vertebrae are ordered along the canal, not as in the file.
    A level map ``masks/levels.nii.gz`` in the same folder is relabeled to match.

    Parameters
    ----------
    path : path
    settings : LoaderSettings, optional
        Limit of the decoded size of the level map.

    Raises
    ------
    InputError
        If the file is not such a list; the message names the entry.
    """
    path = Path(path)
    try:
        require_regular(path)
        content = json.loads(path.read_text())
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file_label(path)} is not readable JSON: {reason_of(error)}") from error
    content = content.get("levels", content) if isinstance(content, dict) else {}
    vertebrae = [
        Vertebra(_name(item, path), _point(item, "center_lps_mm", path), SUPPLIED_CONFIDENCE)
        for item in _items(content, "vertebrae", path)
    ]
    discs = [
        Disc(
            _disc_name(item, path),
            _point(item, "center_lps_mm", path),
            _point(item, "normal_lps", path) if "normal_lps" in item else np.zeros(3),
            SUPPLIED_CONFIDENCE,
        )
        for item in (_items(content, "discs", path) if "discs" in content else [])
    ]
    mask_path = path.parent / "masks" / "levels.nii.gz"
    mask = None
    if mask_path.is_file():
        levels = read_mask(mask_path, settings=settings, may_be_empty=True)
        mask = levels if levels.array.any() else None
    return SuppliedLevels(vertebrae, discs, mask)


def read_level_map(
    path: str | Path, scheme: str, *, settings: LoaderSettings | None = None
) -> SuppliedLevelMap:
    """Read levels from a level map of another program.

    Parameters
    ----------
    path : path
        NIfTI, NRRD, MetaImage or DICOM Segmentation. In DICOM, segments with the code or name of a
        vertebra are used regardless of `scheme`; without any, the segment number is the value.
    scheme : str
        Name of a published scheme (`leakloc.levels.schemes`), or of a TOML file with one line
        ``"VALUE" = "LEVEL"`` for each value, such as ``"5" = "L5"`` or ``"100" = "L5-S1"``.
    settings : LoaderSettings, optional
        Limit of the decoded size.

    Raises
    ------
    InputError
        If the file is not a label map, or several segments are the same vertebra.
    SettingsError
        If the scheme is unknown or invalid.
    """
    segments = read_segments(path, settings=settings)
    named = {s.number: name for s in segments if (name := _vertebra(s)) is not None}
    if not named:
        return SuppliedLevelMap(read_mask(path, settings=settings), _scheme(scheme))
    twice = [s for s in segments if list(named.values()).count(named.get(s.number, "")) > 1]
    if twice:
        raise InputError(
            f"{file_label(Path(path))} contains several segments of one vertebra "
            f"({listed(twice)}): export one segment for each"
        )
    mask = read_mask(path, labels=list(named), settings=settings)
    table = np.zeros(max(named) + 1, np.uint8)
    for number, name in named.items():
        table[number] = LABEL_VALUES[name]
    return SuppliedLevelMap(mask.with_array(table[mask.array]), level_scheme("leakloc"))


def _vertebra(segment: Segment) -> str | None:
    """Return the vertebra of a segment by its code, label or tracking identifier."""
    for name in LABEL_VALUES:
        if segment.code == vertebra_code(name)[:2]:
            return name
    for text in (segment.name, segment.tracking_id):
        found = _VERTEBRA.fullmatch(text.strip())
        if found and found[1].upper() in LABEL_VALUES:
            return found[1].upper()
    return None


def _scheme(name: str) -> LevelScheme:
    if not name.endswith(".toml"):
        return level_scheme(name)
    try:
        meanings = tomllib.loads(Path(name).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the level scheme {name} cannot be read: {error}") from error
    return LevelScheme.of(Path(name).stem, meanings)


def _items(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(
            f"{file_label(path)} contains no list of {key}; supply a levels.json or report.json of "
            "leakloc"
        )
    return items


def _name(item: dict[str, Any], path: Path) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise InputError(f"{file_label(path)}: an entry has no name such as L4")
    return name


def _disc_name(item: dict[str, Any], path: Path) -> str:
    name = _name(item, path)
    try:
        split_segment(name)
    except ValueError as error:
        raise InputError(f"{file_label(path)}: {error}") from None
    return name


def _point(item: dict[str, Any], key: str, path: Path) -> FloatArray:
    try:
        point = np.asarray(item.get(key), dtype=float)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError(
            f"{file_label(path)}: {key} of {item.get('name')} must be three numbers (LPS, in mm)"
        )
    return point
