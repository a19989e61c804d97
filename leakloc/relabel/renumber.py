"""Renumber the levels of a report, localize its collections again and rewrite its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.analysis import AnalysisData, Basis
from leakloc.core.clock import Clock
from leakloc.core.errors import InputError, OutputError, SettingsError
from leakloc.core.notes import Note, note
from leakloc.core.settings import Settings
from leakloc.core.volume import Volume
from leakloc.levels import assign_levels, read_level_map, read_levels
from leakloc.loaders import read_mask
from leakloc.localization import localize, without_cisterns, without_retrospinal
from leakloc.relabel.corrections import (
    check_collections,
    check_created,
    check_positions,
    check_study,
    corrected_levels,
    read_corrections,
    renaming_anchor,
    reported_levels,
    with_corrected_fluid,
)
from leakloc.report import Report, build_report, check_output, relabel_data
from leakloc.report.build import result_parts
from leakloc.report.contents import select_images
from leakloc.report.model import Outputs
from leakloc.report.usage import usage_of
from leakloc.report.writer import PARTS, Draft, staged_folder

if TYPE_CHECKING:
    from leakloc.core.clock import Progress
    from leakloc.levels.result import Levels
    from leakloc.localization.result import Localization
    from leakloc.report.model import Corrections
    from leakloc.segmentation.result import Segmentation

_FIGURE_PARTS: Final = frozenset({"png", "seg", "sr", "sc", "pdf", "html3d"})
"""Outputs that require the images; without images, the HTML report has no figures."""

_SHOWN: Final = ("levels", "collections", "finding", "thecal_sac", "planning", "corrections")
"""Parts of a report that depend on the numbering and are shown in figures and DICOM objects."""


@dataclass(frozen=True)
class Renumbered:
    """Results with renumbered levels, without images.

    Parameters
    ----------
    former : Report
        Report of the same study, with the image information.
    basis : Basis
    runtime_s : dict
        Run time in seconds of the stages that were repeated.
    """

    former: Report
    segmentation: Segmentation
    levels: Levels
    localization: Localization
    settings: Settings
    basis: Basis
    runtime_s: dict[str, float]
    corrections: tuple[Corrections, ...] = ()

    def report(
        self,
        outputs: Outputs | None = None,
        notes: Iterable[Note] = (),
        runtime_s: Mapping[str, float] | None = None,
    ) -> Report:
        """Build the report; parameters as for `build_report`."""
        parts = result_parts(
            self.segmentation,
            self.levels,
            self.localization,
            self.settings,
            input_notes=self.basis.notes,
            notes=notes,
            runtime_s={**self.runtime_s, **(runtime_s or {})},
        )
        landmarks = self.basis.landmarks
        usages = [
            usage_of(selection, self.levels, self.localization, landmarks)
            for selection in self.basis.series
        ]
        series = tuple(
            former.model_copy(update=usage._asdict())
            for former, usage in zip(self.former.series, usages, strict=True)
        )
        return self.former.model_copy(
            update={
                **parts,
                "series": series,
                "outputs": outputs or Outputs(),
                "corrections": self.corrections,
            }
        )


def relabel(
    folder: str | Path,
    corrections: str | Path | None = None,
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
    """Renumber the levels of an existing report and rewrite it without a new analysis.

    Uses data that `analyze` stored in the folder, takes one to two seconds, and gives the same
    report as `analyze` with the same level settings. Without corrections, the numbering (unless
    level settings are specified) and the collections of the analysis are restored; with them,
    earlier corrections are kept. Figures and DICOM objects require the images: they are recreated
    if `study` is specified; otherwise those with other level names are removed, with a warning.

    Parameters
    ----------
    folder : path
        Output folder of `analyze`.
    corrections : path, optional
        ``corrections.json`` downloaded from the HTML report. A renamed vertebra or an edited disc
        replaces other level settings; a collection marked as false is removed, and fluid is added
        or removed as painted or erased.
    study : path, optional
        The analyzed study.
    write : tuple of str, optional
        Outputs, as in the setting ``report.write``; those of the analysis if None.
    anchor, lumbar_count, lowest_disc : optional
        Level settings that replace those of the analysis.
    levels, level_scheme : optional
        As for `analyze`.
    progress : callable, optional

    Raises
    ------
    LeaklocError
        A subclass, with a message for the user.
    """
    folder = Path(folder).absolute()
    _check_rewritable(folder)
    clock = Clock(progress)
    with clock.stage("reading", 0.0):
        data = relabel_data.load(folder)
        former = Report.load(folder)
    overrides = {"anchor": anchor, "lumbar_count": lumbar_count, "lowest_disc": lowest_disc}
    changes: dict[str, Any] = {f"levels__{k}": v for k, v in overrides.items() if v is not None}
    if write is not None:
        if study is None and (needy := sorted(_FIGURE_PARTS.intersection(write))):
            raise SettingsError(
                f"{', '.join(needy)}: images needed; specify the study with --study"
            )
        changes["report__write"] = list(dict.fromkeys([*write, "relabel"]))  # always kept
    settings = data.settings.changed(**changes)
    if study is not None:
        settings.report.check_installed()
    edits: tuple[Corrections, ...] = ()
    if corrections is not None:
        path = Path(corrections)
        edited = read_corrections(path)
        check_study(edited, former.study.study_instance_uid, path)
        check_created(edited, former, path)
        edits = (*former.corrections, edited)
    with clock.stage("levels", 0.55):
        if edits:
            mask = _level_map(folder, settings)
            numbered = _corrected(data, settings, former, mask, edits[-1])
        else:
            numbered = _renumber(data, settings, levels, level_scheme)
    with clock.stage("localization", 0.70):
        results = _localize(data, former, numbered, settings, clock.seconds, edits)
    analysis = None
    if study is not None:
        with clock.stage("choosing series", 0.80):
            analysis = _with_images(results, data, Path(study))
    clock.report("writing", 0.85)
    report = _rewrite(folder, results, analysis)
    clock.report("done", 1.0)
    return report


def correct(analysis: AnalysisData, corrections: Sequence[tuple[Path, Corrections]]) -> Renumbered:
    """Return the results of an analysis with corrections by readers.

    Parameters
    ----------
    analysis : AnalysisData
        With `basis`.
    corrections : sequence of (Path, Corrections)
        At least one, of the same study, each with the path of its file. Each is relative to the
        report with the former ones.

    Raises
    ------
    InputError
        If a correction does not match the results: unknown names or numbers, or other positions
        than in the corrected report.
    """
    data = relabel_data.of_analysis(analysis)
    mask: Volume | None = analysis.levels.mask
    results = Renumbered(
        build_report(analysis),
        analysis.segmentation,
        analysis.levels,
        analysis.localization,
        analysis.settings,
        data.basis,
        {},
    )
    notes = []
    for path, edits in corrections:
        former = results.report()
        if not check_positions(edits, former, path):
            notes.append(note("corrections_not_compared"))
        numbered = _corrected(data, analysis.settings, former, mask, edits)
        made = (*former.corrections, edits)
        results = _localize(data, former, numbered, analysis.settings, {}, made)
        mask = results.levels.mask
    levels = replace(results.levels, notes=(*results.levels.notes, *notes))
    return replace(results, levels=levels)


def reopen(folder: str | Path, study: str | Path) -> AnalysisData:
    """Return the results of an existing report with the images of its study.

    Parameters
    ----------
    folder : path
        Output folder of `analyze` or `relabel`.
    study : path
        The analyzed study.

    Raises
    ------
    InputError
        If the folder contains no report or no data for renumbering, or `study` is another study.
    """
    folder = Path(folder)
    data = relabel_data.load(folder)
    former = Report.load(folder)
    settings = Settings.from_dict(former.generator.config, "report.json")
    numbered = _renumber(data, settings, None, None)
    if [v.name for v in numbered.vertebrae] != [v.name for v in former.levels.vertebrae]:
        # `relabel` supplied other levels after the analysis.
        numbered = _levels_of(former, _level_map(folder, settings), data.basis.segmentation)
    results = _localize(data, former, numbered, settings, {}, former.corrections)
    return _with_images(results, data, Path(study))


def _localize(
    data: relabel_data.RelabelData,
    former: Report,
    numbered: Levels,
    settings: Settings,
    runtime_s: dict[str, float],
    edits: tuple[Corrections, ...],
) -> Renumbered:
    """Localize the collections with other level names and corrected fluid."""
    basis = data.basis
    # Marks refer to the numbers in the report, which exclude cisterns and retrospinal fluid.
    found = without_retrospinal(
        without_cisterns(basis.segmentation, numbered), numbered, settings.segmentation
    )
    within = with_corrected_fluid(found, edits, settings.segmentation)
    localization = localize(
        within,
        numbered,
        settings.localization,
        input_notes=(*basis.notes, *within.notes, *numbered.notes),
        sacral=basis.landmarks.sacral,
        anatomy=basis.landmarks.anatomy,
        companions=basis.landmarks.companions,
        bed=basis.landmarks.bed,
    )
    return Renumbered(former, within, numbered, localization, settings, basis, runtime_s, edits)


def _renumber(
    data: relabel_data.RelabelData,
    settings: Settings,
    levels: str | Path | None,
    scheme: str | None,
) -> Levels:
    """Return the levels according to the settings, or those of a file.

    Raises
    ------
    SettingsError
        If the level settings do not match the detected spine.
    """
    if levels is not None:
        supplied = (
            read_levels(levels, settings=settings.loaders)
            if scheme is None
            else read_level_map(levels, scheme, settings=settings.loaders)
        )
        found = data.basis.segmentation
        return supplied.levels(found.collections.geometry, found.centerline)
    if data.detection is not None:
        return assign_levels(data.detection, settings.levels)
    if settings.levels != data.settings.levels or data.levels is None:
        raise SettingsError(
            "the levels of this report were supplied and cannot be renumbered: supply other "
            "levels with --levels, or run leakloc analyze again"
        )
    return data.levels


def _corrected(
    data: relabel_data.RelabelData,
    settings: Settings,
    former: Report,
    mask: Volume | None,
    corrections: Corrections,
) -> Levels:
    """Return the levels with the corrections of a reader, which are relative to the report."""
    check_collections(corrections, former)
    found = data.basis.segmentation
    supplied = corrected_levels(former, mask, corrections)
    if supplied is None:
        if any(edits.vertebrae or edits.discs for edits in former.corrections):
            return _levels_of(former, mask, found)
        return _renumber(data, settings, None, None)
    anchor = renaming_anchor(former, corrections)
    moved = any(edits.discs for edits in former.corrections)
    if anchor is not None and data.detection is not None and not moved:
        # Segments of the sacrum follow the detections, not only the points in the report.
        with suppress(SettingsError):
            return assign_levels(data.detection, settings.changed(levels__anchor=anchor).levels)
    return supplied.levels(found.collections.geometry, found.centerline)


def _levels_of(report: Report, mask: Volume | None, segmentation: Segmentation) -> Levels:
    """Return the levels of a report, as supplied levels."""
    supplied = reported_levels(report, mask)
    return supplied.levels(segmentation.collections.geometry, segmentation.centerline)


def _level_map(folder: Path, settings: Settings) -> Volume | None:
    """Return the level map of a report folder; None if it was not written or is empty."""
    path = folder / "masks" / "levels.nii.gz"
    if not path.is_file():
        return None
    mask = read_mask(path, settings=settings.loaders, may_be_empty=True)
    return mask if mask.array.any() else None


def _with_images(results: Renumbered, data: relabel_data.RelabelData, path: Path) -> AnalysisData:
    """Combine the results with the images of the study.

    Raises
    ------
    InputError
        If it is another study, or another volume is selected.
    """
    study, chosen = select_images(results.former, data, path)
    grid, found = chosen.myelogram.geometry, results.segmentation
    return AnalysisData(
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
        results.settings,
        results.runtime_s,
        data.basis,
    )


def _check_rewritable(folder: Path) -> None:
    """Check that a report folder can be replaced by one with renumbered levels.

    Raises
    ------
    InputError
        If the folder contains no report.
    OutputError
        If it contains files not belonging to a report, or cannot be replaced.
    """
    if not (folder / "report.json").is_file():
        raise InputError(
            f"{folder} contains no report; specify an output folder of leakloc analyze"
        )
    foreign = sorted({entry.name for entry in folder.iterdir()} - PARTS)
    if foreign:
        raise OutputError(
            f"{foreign[0]} in {folder} does not belong to the report; move it elsewhere first, as "
            "the folder is replaced"
        )
    check_output(folder, overwrite=True)


def _rewrite(folder: Path, results: Renumbered, analysis: AnalysisData | None) -> Report:
    """Replace a report by one with renumbered levels.

    With images, all outputs are written as by `write_outputs`. Without, outputs that require
    images are kept if the content of the report is unchanged; otherwise they are removed, with a
    warning in the report.
    """
    _check_rewritable(folder)
    with staged_folder(folder, overwrite=True) as staging:
        shutil.copyfile(folder / relabel_data.NAME, staging / relabel_data.NAME)
        if analysis is not None:
            build = partial(build_report, analysis, corrections=results.corrections)
            return Draft(staging, results.settings, build).write_all(analysis)
        draft = Draft(staging, results.settings, results.report)
        _keep_figures(draft, folder, results)
        draft.write_masks(results.segmentation, results.levels)
        draft.write_exports()
        draft.write_caudal()
        return draft.finish()


def _keep_figures(draft: Draft, folder: Path, results: Renumbered) -> None:
    """Keep outputs that require images if the report is unchanged; else add a warning."""
    wanted = draft.wanted & {*_FIGURE_PARTS, "html"}
    former, now = results.former, results.report()
    if any(getattr(now, part) != getattr(former, part) for part in _SHOWN):
        if wanted:
            draft.notes.append(note("pictures_removed"))
        return
    found = former.outputs
    draft.overlays = found.overlays if "png" in wanted else ()
    draft.dicom = {kind: names for kind, names in found.dicom.items() if kind in wanted}
    draft.html = found.html if "html" in wanted else None
    draft.pdf = found.pdf if "pdf" in wanted else None
    draft.html3d = found.html3d if "html3d" in wanted else None
    objects = [(n,) if isinstance(n, str) else n for n in draft.dicom.values()]
    for name in (*draft.overlays, *chain(*objects), draft.html, draft.pdf, draft.html3d):
        if name is not None:
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, draft.folder / name)
    earlier = (Note(warning.code, warning.message) for warning in former.quality.warnings)
    draft.notes += [former for former in earlier if former.definition.concerns_images]
