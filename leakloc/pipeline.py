"""The analysis pipeline, from a study to a report.

    loaders -> segmentation -> levels -> localization -> report

`analyze` runs the stages on a study, a volume or a path, and writes the report folder if desired.
A stage is replaced by passing another callable of the same type, or by specifying a plug-in in the
settings (`StageSettings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.analysis import AnalysisData, Basis, Landmarks
from leakloc.anatomy.spine import Spine
from leakloc.core.clock import Clock
from leakloc.core.errors import AnalysisError, SettingsError
from leakloc.core.settings import Settings
from leakloc.levels import read_level_map, read_levels
from leakloc.loaders import Study, load, read_mask, triage
from leakloc.loaders.masks import FLUID, SAC, read_segments, with_labels
from leakloc.localization import (
    CompanionMeasurements,
    compare_myelograms,
    find_sacral_canal,
    localize,
    measure_axial,
    measure_enhancement,
    measure_signals,
    measure_surgical_bed,
    surroundings_of,
    without_cisterns,
    without_retrospinal,
)
from leakloc.notebook import analysis_html, collections_table
from leakloc.relabel.corrections import check_study, read_corrections
from leakloc.relabel.renumber import correct
from leakloc.report import build_report, check_output, write_outputs
from leakloc.report.usage import selections_of
from leakloc.segmentation import SuppliedMasks

if TYPE_CHECKING:
    import pandas as pd

    from leakloc.anatomy.vocabulary import Role
    from leakloc.core.clock import Progress
    from leakloc.core.volume import Volume
    from leakloc.levels.result import Labeler
    from leakloc.levels.supplied import SuppliedLevelMap, SuppliedLevels
    from leakloc.loaders.study import Study, Triage
    from leakloc.report.model import Corrections, Report
    from leakloc.segmentation.result import Segmentation, Segmenter

STAGES: Final = {
    "reading": 0.0,
    "choosing series": 0.02,
    "segmentation": 0.08,
    "levels": 0.50,
    "localization": 0.62,
    "writing": 0.64,
}
"""Fraction of the run time before each stage, measured on two cores with the sample study."""


@dataclass(frozen=True)
class Analysis(AnalysisData):
    """Results of one study, with its report, output folder and notebook views.

    Parameters
    ----------
    corrections : tuple of Corrections
        Corrections by readers that the results contain.
    uncorrected : AnalysisData or None
        Results before these corrections; None without any.
    """

    corrections: tuple[Corrections, ...] = ()
    uncorrected: AnalysisData | None = None

    @cached_property
    def report(self) -> Report:
        """Content of ``report.json``; after `save`, with the files written."""
        return build_report(self, corrections=self.corrections)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Report:
        """Write the report folder, completely or not at all.

        Raises
        ------
        OutputError
            If it cannot be written, or contains a report and `overwrite` is False.
        """
        report = write_outputs(
            self,
            Path(folder),
            overwrite=overwrite,
            corrections=self.corrections,
            uncorrected=self.uncorrected,
        )
        self.__dict__["report"] = report  # replaces the cached value
        return report

    def table(self) -> pd.DataFrame:
        """Return the collections, one per row; see `leakloc.notebook` for other tables."""
        return collections_table(self.report)

    def _repr_html_(self) -> str:
        return analysis_html(self, self.report)


def analyze(
    study: Study | Volume | str | Path,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    study_uid: str | None = None,
    myelogram_uid: str | None = None,
    companion_uids: tuple[str, ...] = (),
    segmenter: Segmenter | None = None,
    labeler: Labeler | None = None,
    sac: Volume | str | Path | None = None,
    fluid: Volume | str | Path | None = None,
    sac_label: int | str | None = None,
    fluid_label: int | str | Sequence[int | str] | None = None,
    levels: Labeler | str | Path | None = None,
    level_scheme: str | None = None,
    corrections: str | Path | Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Detect and localize epidural fluid: run all stages on a study.

    Parameters
    ----------
    study : Study, Volume or path
        Result of `leakloc.load`, or an argument accepted by it.
    settings : Settings, optional
        Defaults if None; stored in the result.
    output : path, optional
        Folder for the report; written completely or not at all.
    overwrite : bool
        Whether to replace an existing report in `output`.
    study_uid : str, optional
        Study Instance UID, if a path contains several studies.
    myelogram_uid, companion_uids : optional
        User-selected series instead of automatic selection.
    segmenter, labeler : callable, optional
        Stages that replace those of `settings.stages`.
    sac, fluid : Volume or path, optional
        User-supplied masks that replace those of the segmenter; see
        `leakloc.segmentation.SuppliedMasks`.
    sac_label : int or str, optional
        Label of the sac in `sac`, if it contains several: a number, or the name of a DICOM segment.
    fluid_label : int, str or sequence, optional
        Labels of the fluid in `fluid`, if it also contains other structures.
    levels : path or callable, optional
        User-supplied levels that replace the numbering: an edited ``levels.json``, or, with
        `level_scheme`, another program's level map; see `leakloc.levels.files`.
    level_scheme : str, optional
        Label scheme of that map: a published scheme, or a TOML file.
    corrections : path or sequence of paths, optional
        ``corrections.json`` of earlier reports of the same study, in the order of their
        application; applied as by `leakloc.relabel.relabel`.
    progress : callable, optional
        Called with each stage of `STAGES` and the fraction of the run time before it, 0..1.

    Returns
    -------
    Analysis
        Has an HTML view in notebooks; `report` has the content of ``report.json``, and
        ``save(folder)`` writes it.

    Raises
    ------
    LeaklocError
        A subclass, with a message for the user: `InputError` if no series of the study can be
        analyzed, or corrections are of another study; `AnalysisError` if a stage produces no
        result although the input is usable.

    Examples
    --------
    >>> import leakloc as ll
    >>> result = ll.analyze("sample_data/postoperative/dicom")  # doctest: +SKIP
    >>> result.report.finding.level  # doctest: +SKIP
    'L4-L5'
    """
    if settings is not None and not isinstance(settings, Settings):
        raise SettingsError(
            "the second argument of analyze is a Settings object; specify the output folder with "
            "output=..., and read a recipe with leakloc.Settings.load(path)"
        )
    settings = settings or Settings()
    if output is not None:
        check_output(Path(output), overwrite=overwrite)
        settings.report.check_installed()
    segmenter = segmenter or stage("leakloc.segmenters", settings.stages.segmenter)
    labeler = labeler or stage("leakloc.labelers", settings.stages.labeler)
    automatic = segmenter
    if sac is not None or fluid is not None:
        segmenter = _supplied_segmenter(sac, fluid, sac_label, fluid_label, segmenter, settings)
    if levels is not None:
        labeler = levels if callable(levels) else _supplied_levels(levels, level_scheme, settings)
    files = (corrections,) if isinstance(corrections, str | Path) else corrections
    edits = [(Path(file), read_corrections(Path(file))) for file in files]
    clock = Clock(progress)

    with clock.stage("reading", STAGES["reading"]):
        if not isinstance(study, Study):
            until = STAGES["choosing series"]
            study = load(
                study,
                settings,
                study_uid=study_uid,
                progress=lambda _, done: clock.report("reading", until * done),
            )
        for file, edited in edits:
            check_study(edited, study.info.study_instance_uid, file)
    with clock.stage("choosing series", STAGES["choosing series"]):
        chosen = triage(
            study, settings.loaders, myelogram_uid=myelogram_uid, companion_uids=companion_uids
        )
    with clock.stage("segmentation", STAGES["segmentation"]):
        segmentation = segmenter(chosen.spine, chosen.companions, settings.segmentation)
        second = _segment_second(chosen, automatic, settings)
    with clock.stage("levels", STAGES["levels"]):
        named = labeler(chosen.spine, chosen.companions, segmentation, settings.levels)
    with clock.stage("localization", STAGES["localization"]):
        notes = (*chosen.notes, *study.notes)
        landmarks = _landmarks(chosen, segmentation, second)
        within = without_retrospinal(
            without_cisterns(segmentation, named), named, settings.segmentation
        )
        localization = localize(
            within,
            named,
            settings.localization,
            input_notes=(*notes, *within.notes, *named.notes),
            sacral=landmarks.sacral,
            anatomy=landmarks.anatomy,
            companions=landmarks.companions,
            bed=landmarks.bed,
        )
    basis = Basis(
        segmentation, landmarks, notes, selections_of(chosen), myelogram_uid, companion_uids
    )
    analysis = Analysis(study, chosen, within, named, localization, settings, clock.seconds, basis)
    if edits:
        with clock.stage("localization", STAGES["localization"]):
            corrected = correct(analysis, edits)
        analysis = replace(
            analysis,
            segmentation=corrected.segmentation,
            levels=corrected.levels,
            localization=corrected.localization,
            corrections=corrected.corrections,
            uncorrected=analysis,
        )
    if output is not None:
        clock.report("writing", STAGES["writing"])
        analysis.save(output, overwrite=overwrite)
        clock.report("done", 1.0)
    return analysis


def _landmarks(
    chosen: Triage, segmentation: Segmentation, second: Segmentation | None
) -> Landmarks:
    """Return the image data used by localization."""
    preferred: tuple[Role, ...] = ("sagittal_t2", "sagittal_t1", "sagittal_stir")
    volumes: dict[Role, Volume] = {"myelogram": chosen.myelogram, **chosen.companions}
    roles = [role for role in preferred if role in volumes]
    for_sacrum: tuple[Role, ...] = (*roles[:1], "myelogram")
    sacral = find_sacral_canal([volumes[role] for role in for_sacrum], chosen.spine.anatomy)
    with_fat = tuple(role for role in roles if role != "sagittal_stir")[:1]
    anatomy = volumes[with_fat[0]] if with_fat else None
    return Landmarks(
        sacral,
        anatomy,
        _measured(chosen, segmentation, second),
        () if sacral is None else tuple(for_sacrum[number] for number in sacral.images),
        with_fat,
        measure_surgical_bed(segmentation, anatomy),
    )


def _measured(
    chosen: Triage, segmentation: Segmentation, second: Segmentation | None
) -> CompanionMeasurements:
    """Return the measurements of the collections on series other than the myelogram."""
    around = surroundings_of(segmentation)
    return CompanionMeasurements(
        signals=measure_signals(around, chosen.companions),
        axial=measure_axial(segmentation, around, chosen.companions.get("axial_t2")),
        enhancement=measure_enhancement(segmentation, chosen.t1_pairs),
        comparison=None if second is None else compare_myelograms(segmentation, second),
    )


def _segment_second(
    chosen: Triage, segmenter: Segmenter, settings: Settings
) -> Segmentation | None:
    """Segment the second myelogram, if any; None if no spinal canal is detected on it."""
    if chosen.second_myelogram is None:
        return None
    try:
        return segmenter(Spine(chosen.second_myelogram), {}, settings.segmentation)
    except AnalysisError:
        return None


def _supplied_segmenter(
    sac: Volume | str | Path | None,
    fluid: Volume | str | Path | None,
    sac_label: int | str | None,
    fluid_label: int | str | Sequence[int | str] | None,
    base: Segmenter,
    settings: Settings,
) -> Segmenter:
    """Return a segmenter with user-supplied masks."""
    sac_labels, fluid_labels = _listed(sac_label), _listed(fluid_label)
    is_selected = bool(fluid_labels)
    if isinstance(sac, str | Path):
        sac = read_mask(sac, labels=sac_labels, structure=SAC, settings=settings.loaders)
    elif sac is not None:
        sac = with_labels(sac, sac_labels, "the sac mask")
    if isinstance(fluid, str | Path):
        is_selected = is_selected or bool(read_segments(fluid, settings=settings.loaders))
        fluid = read_mask(
            fluid,
            may_be_empty=True,
            labels=fluid_labels,
            structure=FLUID,
            settings=settings.loaders,
        )
    elif fluid is not None:
        fluid = with_labels(fluid, fluid_labels, "the fluid mask")
    return SuppliedMasks(sac, fluid, base, is_fluid_selected=is_selected)


def _listed(labels: int | str | Sequence[int | str] | None) -> Sequence[int | str]:
    if labels is None:
        return ()
    return (labels,) if isinstance(labels, int | str) else labels


def _supplied_levels(
    levels: str | Path, scheme: str | None, settings: Settings
) -> SuppliedLevels | SuppliedLevelMap:
    """Return a labeler that reads the levels from a file."""
    if scheme is None:
        return read_levels(levels, settings=settings.loaders)
    return read_level_map(levels, scheme, settings=settings.loaders)


def stage(group: str, name: str) -> Any:
    """Return a stage by its plug-in name.

    Parameters
    ----------
    group : {"leakloc.segmenters", "leakloc.labelers"}
        Entry-point group in which installed packages register a callable.
    name : str
        Name within the group; the built-in stages are named ``"leakloc"``.

    Raises
    ------
    SettingsError
        If no installed package registers that name.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        raise SettingsError(
            f"no {group} plug-in is named {name!r}; installed: {', '.join(sorted(found)) or 'none'}"
        )
    return found[name].load()
