"""Result types of reading a study: series with their geometry, and skipped files.

A `Study` results from reading headers; pixels are read only by `SeriesStack.load`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import Role
from leakloc.core.extras import LazyModule
from leakloc.core.notes import Note
from leakloc.core.quiet import quiet_libraries
from leakloc.core.volume import Geometry, Volume

if TYPE_CHECKING:
    import pandas as pd

    from leakloc import notebook
    from leakloc.core.settings import Settings
else:  # an upper layer, for `Study.table` and `_repr_html_`
    notebook = LazyModule("leakloc.notebook")


@dataclass(frozen=True)
class StudyInfo:
    """Identifiers of a study from its headers; `None` if absent."""

    study_instance_uid: str | None = None
    study_date: str | None = None
    accession_number: str | None = None
    patient_id: str | None = None


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not part of any series, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SeriesStack:
    """One stack of parallel slices with the same contrast: a series, or a part of one.

    Parameters
    ----------
    series_instance_uid : str or None
        None for files that are not DICOM.
    description : str
        Series description as written by the scanner (untrusted text: escape it).
    parameters : dict
        Sequence parameters by DICOM keyword (`EchoTime`, `RepetitionTime`, `ImageType`, ...),
        only those present.
    geometry : Geometry or None
        None if the slices do not form a regular volume (`notes` states why).
    files : tuple of Path
        Source files sorted along the stack normal, in the order of `geometry`'s k axis.
    sop_instance_uids : tuple of str
        As `files`; one per frame for multi-frame objects.
    read : callable
        Reads the pixels and returns the volume.
    n_truncated : int
        Number of images of the series that were excluded because their pixels are truncated.
    """

    series_instance_uid: str | None
    description: str
    modality: str
    n_instances: int
    parameters: dict[str, Any]
    geometry: Geometry | None
    files: tuple[Path, ...]
    sop_instance_uids: tuple[str, ...]
    read: Callable[[], Volume] = field(repr=False)
    series_number: int | None = None
    notes: tuple[Note, ...] = ()
    n_truncated: int = 0

    def load(self) -> Volume:
        """Read the pixels.

        Raises
        ------
        GeometryError
            If the slices do not form a regular volume.
        InputError
            If pixel data cannot be decoded.
        """
        with quiet_libraries():
            return self.read()


@dataclass(frozen=True)
class Study:
    """All stacks of one study, and the skipped files."""

    info: StudyInfo
    stacks: tuple[SeriesStack, ...]
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[Note, ...] = ()

    def table(self, settings: Settings | None = None) -> pd.DataFrame:
        """Table of all series with geometry, role and the rule that assigned it.

        Raises
        ------
        SettingsError
            If pandas is not installed.
        """
        return notebook.study_table(self, settings)

    def _repr_html_(self) -> str:
        return notebook.study_html(self)


@dataclass(frozen=True)
class TriagedStack:
    """A stack with its role and the rule that assigned it."""

    stack: SeriesStack
    role: Role
    reason: str
    """One sentence: the rule that applied."""
    score: float = 0.0
    """Rank among stacks of the same role; higher is better."""
    heaviness: float | None = None
    """Tissue-to-fluid signal ratio (80th over 99.5th percentile of the central field of view), low
    for heavy T2 weighting; None if no pixels were read."""
    used_for: tuple[str, ...] = ()
    """Uses in the analysis: ``"fluid"``, ``"levels"``, ``"comparison"``, ``"enhancement"``."""


@dataclass(frozen=True)
class Triage:
    """Every stack with its role, and the volumes selected for analysis.

    Parameters
    ----------
    stacks : tuple of TriagedStack
        In scanner order.
    spine : Spine
        Contains the myelogram, the volume used to detect fluid.
    companions : dict
        Volumes of other roles, by role. A localizer, or a fast sagittal series instead, is
        included only if it extends far cranial to all others, to count levels.
    second_myelogram : Volume or None
        Another myelogram of the study, for comparison.
    t1_pairs : tuple
        T1 volumes before and after intravenous contrast with the same plane and fat suppression.
    """

    stacks: tuple[TriagedStack, ...]
    spine: Spine
    companions: dict[Role, Volume]
    notes: tuple[Note, ...] = ()
    second_myelogram: Volume | None = None
    t1_pairs: tuple[tuple[Volume, Volume], ...] = ()

    @property
    def myelogram(self) -> Volume:
        """The volume used to detect fluid."""
        return self.spine.myelogram
