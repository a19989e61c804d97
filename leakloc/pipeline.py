"""The whole job, told once: study in, report out.

    loaders -> segmentation -> levels -> localization -> report

`analyze_study` runs the stages on a study that has been read; `analyze` adds the edges:
reading a path and writing a folder. A stage is swapped by passing another callable of the
same type, or by naming a plug-in in the settings (`StageSettings`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakloc.errors import SettingsError
from leakloc.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from leakloc.levels.result import Labeler, Levels
    from leakloc.loaders.study import Study, Triage
    from leakloc.localization.result import Localization
    from leakloc.report.model import Report
    from leakloc.segmentation.result import Segmentation, Segmenter
    from leakloc.vocabulary import Role
    from leakloc.volume import Volume

Progress = Callable[[str, float], None]
"""Told the stage that starts and the share of the work done before it, 0..1."""


@dataclass(frozen=True)
class Analysis:
    """Everything the stages found in one study, before it is written.

    Parameters
    ----------
    runtime_s : dict
        Seconds by stage, in the order they ran.
    """

    study: Study
    triage: Triage
    segmentation: Segmentation
    levels: Levels
    localization: Localization
    settings: Settings
    runtime_s: dict[str, float]

    @cached_property
    def report(self) -> Report:
        """What ``report.json`` holds."""
        from leakloc.report import build_report

        return build_report(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Report:
        """Write the report's folder, which appears whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written, or a report stands there and `overwrite` is False.
        """
        from leakloc.report import write_outputs

        return write_outputs(self, Path(folder), overwrite=overwrite)

    def table(self) -> pd.DataFrame:
        """The collections, one a row; `leakloc.tables` has more."""
        from leakloc.tables import collections_table

        return collections_table(self.report)

    def _repr_html_(self) -> str:
        from leakloc.display import analysis_html

        return analysis_html(self)


@dataclass
class _Clock:
    """Times the stages and tells the caller which one starts."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, share: float) -> Iterator[None]:
        if self.progress is not None:
            self.progress(name, share)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def analyze_study(
    study: Study,
    settings: Settings | None = None,
    *,
    myelogram_uid: str | None = None,
    companion_uids: tuple[str, ...] = (),
    segmenter: Segmenter | None = None,
    labeler: Labeler | None = None,
    sac: Volume | str | Path | None = None,
    fluid: Volume | str | Path | None = None,
    sac_label: int | None = None,
    levels: Labeler | str | Path | None = None,
    level_scheme: str | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Run every stage on a study.

    Parameters
    ----------
    study : Study
        From `leakloc.loaders.load_study`.
    settings : Settings, optional
        Defaults where None.
    myelogram_uid, companion_uids : optional
        Series chosen by the user instead of by triage.
    segmenter, labeler : callable, optional
        Stages to run instead of those that `settings.stages` names.
    sac, fluid : Volume or path, optional
        Masks made or corrected elsewhere, used instead of what the segmenter would find;
        see `leakloc.segmentation.GivenMasks`.
    sac_label : int, optional
        Which label of `sac` is the sac, where it holds several.
    levels : path or callable, optional
        Levels named elsewhere, used instead of numbering: an edited ``levels.json``, or, with
        `level_scheme`, another program's level map; see `leakloc.levels.files`.
    level_scheme : str, optional
        What the values of that map mean: a published scheme, or a TOML file.
    progress : callable, optional

    Raises
    ------
    InputError
        If no series of the study can be analysed.
    AnalysisError
        If a stage reaches no result on usable input.
    """
    from leakloc.loaders import triage
    from leakloc.localization import find_sacral_canal, localize, without_cisterns

    settings = settings or Settings()
    segmenter = segmenter or stage("leakloc.segmenters", settings.stages.segmenter)
    labeler = labeler or stage("leakloc.labelers", settings.stages.labeler)
    if sac is not None or fluid is not None:
        segmenter = _given(sac, fluid, sac_label, segmenter)
    if levels is not None:
        labeler = _given_levels(levels, level_scheme)
    clock = _Clock(progress)

    with clock.stage("choosing series", 0.10):
        chosen = triage(
            study, settings.loaders, myelogram_uid=myelogram_uid, companion_uids=companion_uids
        )
    with clock.stage("segmentation", 0.25):
        segmentation = segmenter(chosen.myelogram, chosen.companions, settings.segmentation)
    with clock.stage("levels", 0.55):
        named = labeler(chosen.myelogram, chosen.companions, segmentation, settings.levels)
    with clock.stage("localization", 0.70):
        segmentation = without_cisterns(segmentation, named)
        notes = study.notes + chosen.notes + segmentation.notes + named.notes
        roles: tuple[Role, ...] = ("sagittal_t2", "sagittal_t1", "sagittal_stir")
        sagittal = [chosen.companions[r] for r in roles if r in chosen.companions]
        localization = localize(
            segmentation,
            named,
            settings.localization,
            input_notes=notes,
            sacral=find_sacral_canal((*sagittal[:1], chosen.myelogram), settings.localization),
            anatomy=next((chosen.companions[r] for r in roles[:2] if r in chosen.companions), None),
        )
    return Analysis(study, chosen, segmentation, named, localization, settings, clock.seconds)


def analyze(
    path: str | Path,
    output: str | Path | None = None,
    settings: Settings | None = None,
    *,
    study_uid: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Analyse a study and, where `output` is given, write its folder.

    Parameters
    ----------
    path : path
        A folder, archive, DICOM file, or NIfTI/NRRD/MHA volume.
    output : path, optional
        Folder to write; it appears whole or not at all.
    settings : Settings, optional
    study_uid : str, optional
        Which study, where `path` holds several.
    overwrite : bool
        Replace a report that stands in `output`.
    **options
        As for `analyze_study`.

    Returns
    -------
    Report
        What ``report.json`` holds.

    Raises
    ------
    LeaklocError
        One of its kinds, with a message for the user.

    Examples
    --------
    >>> import leakloc
    >>> report = leakloc.analyze("sample_data/postoperative/dicom")  # doctest: +SKIP
    >>> report.finding.level  # doctest: +SKIP
    'L4-L5'
    """
    from leakloc.loaders import load_study
    from leakloc.report import build_report, check_output, write_outputs

    settings = settings or Settings()
    folder = Path(output) if output is not None else None
    if folder is not None:
        check_output(folder, overwrite=overwrite)
    clock = _Clock(progress)
    with clock.stage("reading", 0.0):
        study = load_study(Path(path), settings.loaders, study_uid=study_uid)
    analysis = analyze_study(study, settings, progress=progress, **options)
    analysis.runtime_s.update({**clock.seconds, **analysis.runtime_s})
    if folder is None:
        return build_report(analysis)
    if progress is not None:
        progress("writing", 0.80)
    report = write_outputs(analysis, folder, overwrite=overwrite)
    if progress is not None:
        progress("done", 1.0)
    return report


def _given(
    sac: Volume | str | Path | None,
    fluid: Volume | str | Path | None,
    sac_label: int | None,
    base: Segmenter,
) -> Segmenter:
    """The segmenter with masks from elsewhere in the place of what it finds itself."""
    from leakloc.loaders import read_mask
    from leakloc.segmentation import GivenMasks

    if isinstance(sac, str | Path):
        sac = read_mask(sac)
    if isinstance(fluid, str | Path):
        fluid = read_mask(fluid, may_be_empty=True)
    return GivenMasks(sac, fluid, base, sac_label)


def _given_levels(levels: Labeler | str | Path, scheme: str | None) -> Labeler:
    """The labeler that reads the levels from a file."""
    from leakloc.levels import read_level_map, read_levels

    if not isinstance(levels, str | Path):
        return levels
    return read_levels(levels) if scheme is None else read_level_map(levels, scheme)


def stage(group: str, name: str) -> Any:
    """A stage by its plug-in name.

    Parameters
    ----------
    group : {"leakloc.segmenters", "leakloc.labelers"}
        Entry-point group, in which any installed package may register a callable.
    name : str
        Name within the group; leakloc's own stages are called ``"leakloc"``.

    Raises
    ------
    SettingsError
        If nothing installed registers that name.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        raise SettingsError(
            f"no {group} plug-in is named {name!r}; installed: {', '.join(sorted(found)) or 'none'}"
        )
    return found[name].load()
