"""Reading supplied levels: an edited list, or a level map of another program."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from leakloc.anatomy.vocabulary import split_segment
from leakloc.core.errors import InputError, SettingsError, file_label
from leakloc.core.volume import FloatArray
from leakloc.levels.result import Disc, Vertebra
from leakloc.levels.schemes import LevelScheme, level_scheme
from leakloc.levels.supplied import SUPPLIED_CONFIDENCE, SuppliedLevelMap, SuppliedLevels
from leakloc.loaders.limits import require_regular
from leakloc.loaders.masks import read_mask


def read_levels(path: str | Path) -> SuppliedLevels:
    """Read levels from an edited ``levels.json`` or from a ``report.json``.

    Only names and positions are used. Vertebrae are ordered along the canal, not as in the file.
    A level map ``masks/levels.nii.gz`` in the same folder is relabeled to match.

    Parameters
    ----------
    path : path

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
        raise InputError(f"{file_label(path)} is not readable JSON: {error}") from error
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
    mask = read_mask(mask_path) if mask_path.is_file() else None
    return SuppliedLevels(vertebrae, discs, mask)


def read_level_map(path: str | Path, scheme: str) -> SuppliedLevelMap:
    """Read levels from a level map of another program.

    Parameters
    ----------
    path : path
        NIfTI, NRRD, MetaImage or DICOM Segmentation.
    scheme : str
        Name of a published scheme (`leakloc.levels.schemes`), or of a TOML file with one line
        ``"VALUE" = "LEVEL"`` for each value, such as ``"5" = "L5"`` or ``"100" = "L5-S1"``.

    Raises
    ------
    InputError
        If the file is not a label map.
    SettingsError
        If the scheme is unknown or invalid.
    """
    return SuppliedLevelMap(read_mask(path), _scheme(scheme))


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
