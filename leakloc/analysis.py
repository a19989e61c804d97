"""Results of the stages in one study: plain data, passed to the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakloc.localization.companions import CompanionMeasurements

if TYPE_CHECKING:
    from leakloc.anatomy.vocabulary import Role
    from leakloc.core.notes import Note
    from leakloc.core.settings import Settings
    from leakloc.core.volume import Volume
    from leakloc.levels.result import Levels
    from leakloc.loaders.study import Study, Triage
    from leakloc.localization.hiatus import SacralCanal
    from leakloc.localization.result import Localization
    from leakloc.localization.surgical_bed import SurgicalBed
    from leakloc.segmentation.result import Segmentation


@dataclass(frozen=True)
class Landmarks:
    """Image data used by localization that do not depend on the level numbering.

    Parameters
    ----------
    sacral : SacralCanal or None
        Result of `leakloc.localization.find_sacral_canal`.
    anatomy : Volume or None
        A companion series with bright fat.
    companions : CompanionMeasurements
        Measurements of the collections on other series.
    sacral_roles, anatomy_roles : tuple of Role
        Roles of the series used.
    bed : SurgicalBed or None
        Postoperative changes, without level names.
    """

    sacral: SacralCanal | None
    anatomy: Volume | None
    companions: CompanionMeasurements = field(default_factory=CompanionMeasurements)
    sacral_roles: tuple[Role, ...] = ()
    anatomy_roles: tuple[Role, ...] = ()
    bed: SurgicalBed | None = None


@dataclass(frozen=True)
class SeriesSelection:
    """How one stack of slices took part in the analysis.

    Parameters
    ----------
    role : Role
    is_fluid : bool
        Whether fluid was detected on it.
    is_companion : bool
        Whether it is the companion of its role, or a part of it.
    has_other : bool
        Whether another series is the companion of its role.
    is_second : bool
        Whether it is the second myelogram.
    t1_pair : str or None
        Plane of the T1 series before and after intravenous contrast, if it is one of these.
    """

    role: Role
    is_fluid: bool
    is_companion: bool
    has_other: bool
    is_second: bool = False
    t1_pair: str | None = None


@dataclass(frozen=True)
class Basis:
    """Input of the level numbering, stored so that it can be repeated.

    Parameters
    ----------
    segmentation : Segmentation
        Output of the segmenter, before collections are excluded by level.
    landmarks : Landmarks
    notes : tuple of Note
        Warnings from reading the study and selecting its series.
    series : tuple of SeriesSelection
        One for each stack of the study.
    myelogram_uid : str or None
    companion_uids : tuple of str
        User-selected series.
    """

    segmentation: Segmentation
    landmarks: Landmarks
    notes: tuple[Note, ...]
    series: tuple[SeriesSelection, ...]
    myelogram_uid: str | None = None
    companion_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisData:
    """Results of all stages for one study.

    Parameters
    ----------
    runtime_s : dict
        Run time in seconds by stage, in order of execution.
    basis : Basis or None
        Input of the level numbering; None if the results were assembled manually.
    """

    study: Study
    triage: Triage
    segmentation: Segmentation
    levels: Levels
    localization: Localization
    settings: Settings
    runtime_s: dict[str, float]
    basis: Basis | None = None
