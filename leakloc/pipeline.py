"""The whole job, told once: study in, report out.

    loaders -> segmentation -> levels -> localization -> report

`analyze_study` runs the stages on a study that has been read; `analyze` adds the edges:
reading a path and writing a folder. `relabel` runs the stages from naming the levels on again,
on what an earlier analysis left in its folder. A stage is swapped by passing another callable of
the same type, or by naming a plug-in in the settings (`StageSettings`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from leakloc.core.errors import InputError, SettingsError
from leakloc.core.settings import Settings
from leakloc.core.volume import Volume

if TYPE_CHECKING:
    import pandas as pd

    from leakloc.anatomy.vocabulary import Role
    from leakloc.core.notes import Note
    from leakloc.levels.result import Labeler, Levels
    from leakloc.levels.supplied import SuppliedLevelMap, SuppliedLevels
    from leakloc.loaders.study import Study, Triage
    from leakloc.localization.hiatus import SacralCanal
    from leakloc.localization.result import Localization
    from leakloc.report.build import Source
    from leakloc.report.model import Report
    from leakloc.saved import Saved
    from leakloc.segmentation.result import Segmentation, Segmenter

Progress = Callable[[str, float], None]
"""Told the stage that starts and the share of the work done before it, 0..1."""


class Results(Protocol):
    """What the stages found in one study, as the report needs it."""

    @property
    def source(self) -> Source:
        """What the report says of the images."""

    @property
    def segmentation(self) -> Segmentation:
        """Sac and collections."""

    @property
    def levels(self) -> Levels:
        """Named levels."""

    @property
    def localization(self) -> Localization:
        """What was found, placed."""

    @property
    def settings(self) -> Settings:
        """Of the run."""

    @property
    def runtime_s(self) -> dict[str, float]:
        """Seconds by stage that ran."""


@dataclass(frozen=True)
class Landmarks:
    """What localization takes from the images themselves; it does not hang on names.

    Parameters
    ----------
    sacral : SacralCanal or None
        As `leakloc.localization.find_sacral_canal` gives it.
    anatomy : Volume or None
        A companion on which fat is bright.
    """

    sacral: SacralCanal | None
    anatomy: Volume | None


@dataclass(frozen=True)
class Basis:
    """What naming the levels starts from, so that it can be done again.

    Parameters
    ----------
    segmentation : Segmentation
        As the segmenter gave it; levels may yet show that a collection is none.
    landmarks : Landmarks
    myelogram_uid : str or None
    companion_uids : tuple of str
        Series that the user chose.
    """

    segmentation: Segmentation
    landmarks: Landmarks
    myelogram_uid: str | None = None
    companion_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relabelled:
    """What the stages found with levels named anew; there are no images.

    Parameters
    ----------
    source : Source
        What the report says of the images it was first made from.
    runtime_s : dict
        Seconds by stage that ran again.
    """

    source: Source
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


@dataclass(frozen=True)
class Analysis:
    """Everything the stages found in one study, before it is written.

    Parameters
    ----------
    runtime_s : dict
        Seconds by stage, in the order they ran.
    basis : Basis or None
        What levels were named on; None where results were put together by hand.
    """

    study: Study
    triage: Triage
    segmentation: Segmentation
    levels: Levels
    localization: Localization
    settings: Settings
    runtime_s: dict[str, float]
    basis: Basis | None = None

    @property
    def source(self) -> Source:
        """What the report says of the images."""
        from leakloc.report.build import source_of

        return source_of(self.study, self.triage, self.settings)

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
        """The collections, one a row; `leakloc.notebook` has more."""
        from leakloc.notebook import collections_table

        return collections_table(self.report)

    def _repr_html_(self) -> str:
        from leakloc.notebook import analysis_html

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
        see `leakloc.segmentation.SuppliedMasks`.
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

    settings = settings or Settings()
    segmenter = segmenter or stage("leakloc.segmenters", settings.stages.segmenter)
    labeler = labeler or stage("leakloc.labelers", settings.stages.labeler)
    if sac is not None or fluid is not None:
        segmenter = _given(sac, fluid, sac_label, segmenter)
    if levels is not None:
        labeler = levels if callable(levels) else _supplied_levels(levels, level_scheme)
    clock = _Clock(progress)

    with clock.stage("choosing series", 0.10):
        chosen = triage(
            study, settings.loaders, myelogram_uid=myelogram_uid, companion_uids=companion_uids
        )
    with clock.stage("segmentation", 0.25):
        segmentation = segmenter(chosen.myelogram, chosen.companions, settings.segmentation)
    basis, named = _named_and_placed(
        segmentation,
        lambda: labeler(chosen.myelogram, chosen.companions, segmentation, settings.levels),
        lambda: _landmarks(chosen, settings),
        (*study.notes, *chosen.notes),
        settings,
        clock,
    )
    basis = replace(basis, myelogram_uid=myelogram_uid, companion_uids=companion_uids)
    return Analysis(study, chosen, *named, settings, clock.seconds, basis)


def _named_and_placed(
    segmentation: Segmentation,
    label: Callable[[], Levels],
    landmarks: Callable[[], Landmarks],
    notes: tuple[Note, ...],
    settings: Settings,
    clock: _Clock,
) -> tuple[Basis, tuple[Segmentation, Levels, Localization]]:
    """From the segmentation on: name the levels, then place what was found by them."""
    from leakloc.localization import localize, without_cisterns

    with clock.stage("levels", 0.55):
        levels = label()
    with clock.stage("localization", 0.70):
        basis = Basis(segmentation, landmarks())
        within = without_cisterns(segmentation, levels)
        localization = localize(
            within,
            levels,
            settings.localization,
            input_notes=(*notes, *within.notes, *levels.notes),
            sacral=basis.landmarks.sacral,
            anatomy=basis.landmarks.anatomy,
        )
    return basis, (within, levels, localization)


def _landmarks(chosen: Triage, settings: Settings) -> Landmarks:
    """What localization takes from the images."""
    from leakloc.localization import find_sacral_canal

    roles: tuple[Role, ...] = ("sagittal_t2", "sagittal_t1", "sagittal_stir")
    sagittal = [chosen.companions[r] for r in roles if r in chosen.companions]
    return Landmarks(
        find_sacral_canal((*sagittal[:1], chosen.myelogram), settings.localization),
        next((chosen.companions[r] for r in roles[:2] if r in chosen.companions), None),
    )


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


def relabel_study(
    saved: Saved,
    settings: Settings,
    *,
    levels: str | Path | None = None,
    level_scheme: str | None = None,
    progress: Progress | None = None,
) -> Relabelled:
    """Name the levels of an analysed study anew, and place what was found by the new names.

    Parameters
    ----------
    saved : Saved
        From `leakloc.saved.load`.
    settings : Settings
        Those of the analysis with another word on the levels.
    levels, level_scheme : optional
        As for `analyze_study`.

    Raises
    ------
    SettingsError
        If the user's word fits nothing that was seen.
    """
    from leakloc.levels import assign_levels

    found, seen, before = saved.basis.segmentation, saved.seen, saved.levels

    def label() -> Levels:
        if levels is not None:
            given = _supplied_levels(levels, level_scheme)
            return given.levels(found.collections.geometry, found.centerline)
        if seen is not None:
            return assign_levels(seen, settings.levels)
        if settings.levels != saved.settings.levels or before is None:
            raise SettingsError(
                "the levels of this report were given, not counted, so that there is nothing to "
                "count anew: give others with --levels, or run leakloc analyze again"
            )
        return before

    clock = _Clock(progress)
    _, named = _named_and_placed(
        found, label, lambda: saved.basis.landmarks, saved.source.notes, settings, clock
    )
    return Relabelled(saved.source, *named, settings, clock.seconds)


def relabel(
    folder: str | Path,
    *,
    study: str | Path | None = None,
    write: tuple[str, ...] | None = None,
    anchor: str | None = None,
    lumbar_count: int | None = None,
    lowest_disc: str | None = None,
    levels: str | Path | None = None,
    level_scheme: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Name the levels of a finished report anew and rewrite it, without analysing again.

    Takes what `analyze` left in the folder, so that it takes a second or two and gives the
    report that `analyze` would give with the same word on the levels. Without any, the names
    of the analysis come back. Figures and DICOM objects need the images: they are made anew
    where `study` is given; else those with other names are removed, which the report says.

    Parameters
    ----------
    folder : path
        Output of `analyze`.
    study : path, optional
        The study it was made from.
    write : tuple of str, optional
        What to write, as in the setting ``report.write``; what the analysis wrote where None.
    anchor, lumbar_count, lowest_disc : optional
        As in the settings of the levels, added to those of the analysis.
    levels, level_scheme : optional
        As for `analyze_study`.
    progress : callable, optional

    Raises
    ------
    LeaklocError
        One of its kinds, with a message for the user.
    """
    from leakloc import saved
    from leakloc.report.writer import PICTURED, check_rewritable, rewrite_outputs

    folder = Path(folder)
    check_rewritable(folder)
    clock = _Clock(progress)
    with clock.stage("reading", 0.0):
        found = saved.load(folder)
    word = {"anchor": anchor, "lumbar_count": lumbar_count, "lowest_disc": lowest_disc}
    changes: dict[str, Any] = {f"levels__{k}": v for k, v in word.items() if v is not None}
    if write is not None:
        if study is None and (needy := sorted(PICTURED.intersection(write))):
            raise SettingsError(f"{', '.join(needy)}: need the images; name them with --study")
        changes["report__write"] = list(dict.fromkeys([*write, "relabel"]))  # it stays
    settings = found.settings.changed(**changes)
    results = relabel_study(
        found, settings, levels=levels, level_scheme=level_scheme, progress=progress
    )
    shown: Results = results
    if study is not None:
        with clock.stage("choosing series", 0.80):
            shown = _with_images(results, found, Path(study))
    shown.runtime_s.update({**clock.seconds, **shown.runtime_s})
    if progress is not None:
        progress("writing", 0.85)
    report = rewrite_outputs(shown, folder)
    if progress is not None:
        progress("done", 1.0)
    return report


def _with_images(results: Relabelled, saved: Saved, path: Path) -> Analysis:
    """The results with the study they were found in.

    Raises
    ------
    InputError
        If it is another study, or another volume would be chosen in it.
    """
    from leakloc.loaders import load_study, triage

    settings, uid = results.settings, saved.source.study.study_instance_uid
    study = load_study(path, settings.loaders, study_uid=uid)
    chosen = triage(
        study,
        settings.loaders,
        myelogram_uid=saved.basis.myelogram_uid,
        companion_uids=saved.basis.companion_uids,
    )
    grid = chosen.myelogram.geometry
    found = results.segmentation
    if study.info.study_instance_uid != uid or not grid.matches(found.collections.geometry):
        raise InputError(f"{path} is not the study that the report was made from")
    return Analysis(
        study,
        chosen,
        replace(
            found,
            thecal_sac=Volume(found.thecal_sac.array, grid, found.thecal_sac.provenance),
            collections=Volume(found.collections.array, grid, found.collections.provenance),
            fluid_fraction=Volume(found.fluid_fraction.array, grid),
        ),
        replace(results.levels, mask=Volume(results.levels.mask.array, grid)),
        results.localization,
        settings,
        results.runtime_s,
        saved.basis,
    )


def _given(
    sac: Volume | str | Path | None,
    fluid: Volume | str | Path | None,
    sac_label: int | None,
    base: Segmenter,
) -> Segmenter:
    """The segmenter with masks from elsewhere in the place of what it finds itself."""
    from leakloc.loaders import read_mask
    from leakloc.segmentation import SuppliedMasks

    if isinstance(sac, str | Path):
        sac = read_mask(sac)
    if isinstance(fluid, str | Path):
        fluid = read_mask(fluid, may_be_empty=True)
    return SuppliedMasks(sac, fluid, base, sac_label)


def _supplied_levels(levels: str | Path, scheme: str | None) -> SuppliedLevels | SuppliedLevelMap:
    """The labeler that reads the levels from a file."""
    from leakloc.levels import read_level_map, read_levels

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
