"""Cache of rendered studies: rendering is the slowest part of an evaluation."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import OutputError
from leakloc.validation import simulation
from leakloc.validation.phantom import SCENARIOS, Scenario, make_phantom, write_study

if TYPE_CHECKING:
    from leakloc.validation.simulation import SimulationScenario

Writer = Callable[[Path], None]
"""Writes a study into an existing folder."""

STAMP: Final = "phantom.json"


def cached_phantom(scenario: Scenario, seed: int, folder: Path) -> Path:
    """Return the folder of a rendered phantom with its truth; render it if not cached.

    A study rendered with other parameters or another version of the code is rendered again.

    Parameters
    ----------
    scenario : Scenario
    seed : int
    folder : Path
        Cache folder; contains one folder per phantom.

    Returns
    -------
    Path
        Folder with ``dicom/`` and ``truth/``.

    Raises
    ------
    OutputError
        If the study cannot be written.
    """
    stamp = {"scenario": repr(scenario), "seed": seed, "code": _code_digest()}
    name = _name(scenario, seed, SCENARIOS)
    return cached_study(
        folder / name, stamp, lambda target: write_study(make_phantom(scenario, seed), target)
    )


def cached_simulation(
    scenario: SimulationScenario, patient: str, seed: int, folder: Path, write: Writer
) -> Path:
    """Return the folder of a simulated study with its truth; create it if not cached.

    Parameters
    ----------
    scenario : SimulationScenario
    patient : str
    seed : int
    folder : Path
        Cache folder; contains one folder per study.
    write : callable
        Writes the study into a folder.

    Returns
    -------
    Path
        Folder with ``dicom/`` and ``truth/``.

    Raises
    ------
    OutputError
        If the study cannot be written.
    """
    code = _code_digest("phantom", "simulation")
    stamp = {"scenario": repr(scenario), "patient": patient, "seed": seed, "code": code}
    name = f"{patient}_{_name(scenario, seed, simulation.SCENARIOS)}"
    return cached_study(folder / name, stamp, write)


def cached_study(folder: Path, stamp: dict[str, object], write: Writer) -> Path:
    """Return a folder filled by `write`; one with the same stamp is reused.

    Raises
    ------
    OutputError
        If the study cannot be written.
    """
    if _is_current(folder, stamp):
        return folder
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        (temporary / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write a study to {folder.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_current(folder: Path, stamp: dict[str, object]) -> bool:
    try:
        stored = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stored == stamp)


def _name(scenario: Scenario | SimulationScenario, seed: int, shipped: Mapping[str, object]) -> str:
    if shipped.get(scenario.name) == scenario:
        return f"{scenario.name}_{seed}"
    digest = hashlib.sha256(repr(scenario).encode()).hexdigest()[:8]
    return f"{scenario.name}_{seed}_{digest}"


@cache
def _code_digest(*packages: str) -> str:
    """Return a digest of the source code that renders the studies; by default of `phantom`."""
    digest = hashlib.sha256()
    for package in packages or ("phantom",):
        for file in sorted((Path(__file__).parents[1] / package).glob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
