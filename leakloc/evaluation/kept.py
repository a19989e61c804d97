"""Rendered phantoms that are kept between runs: rendering is the slow part of an evaluation."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from functools import cache
from pathlib import Path
from typing import Final

from leakloc.errors import OutputError
from leakloc.phantom import SCENARIOS, Scenario, make_phantom, write_study

STAMP: Final = "phantom.json"


def kept_phantom(scenario: Scenario, seed: int, folder: Path) -> Path:
    """Folder of a rendered phantom with its truth, made if it is not there yet.

    What was made for other parameters, or by other code of the phantom, is made again.

    Parameters
    ----------
    scenario : Scenario
    seed : int
    folder : Path
        Holds one folder a phantom.

    Returns
    -------
    Path
        Holds ``dicom/`` and ``truth/``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    place = folder / _name(scenario, seed)
    stamp = {"scenario": repr(scenario), "seed": seed, "code": _code_digest()}
    if _is_made(place, stamp):
        return place
    aside = folder / f".{place.name}.{uuid.uuid4().hex[:8]}"
    try:
        aside.mkdir(parents=True)
        write_study(make_phantom(scenario, seed), aside)
        (aside / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        aside.rename(place)
    except OSError as error:
        raise OutputError(f"cannot keep a phantom in {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place


def _is_made(place: Path, stamp: dict[str, object]) -> bool:
    try:
        found = json.loads((place / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == stamp)


def _name(scenario: Scenario, seed: int) -> str:
    if SCENARIOS.get(scenario.name) == scenario:
        return f"{scenario.name}_{seed}"
    changes = hashlib.sha256(repr(scenario).encode()).hexdigest()[:8]
    return f"{scenario.name}_{seed}_{changes}"


@cache
def _code_digest() -> str:
    """Of the phantom's source: another renderer makes other pictures."""
    source = Path(__file__).parents[1] / "phantom"
    digest = hashlib.sha256()
    for file in sorted(source.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
