"""High-level interface for notebooks and scripts: `load` a study, `analyze` it.

The stages are run by `leakloc.pipeline`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakloc.core.errors import SettingsError
from leakloc.core.settings import Settings
from leakloc.core.volume import Volume
from leakloc.loaders.study import SeriesStack, Study, StudyInfo

if TYPE_CHECKING:
    from leakloc.pipeline import Analysis, Progress


def load(
    path: str | Path | Volume, settings: Settings | None = None, *, study_uid: str | None = None
) -> Study:
    """Read the headers of a study; pixel data are read on demand.

    Parameters
    ----------
    path : path or Volume
        A folder (searched recursively), an archive, a DICOM file, or a NIfTI, NRRD or MetaImage
        volume; or a `Volume` in memory.
    settings : Settings, optional
        Only the `loaders` section is used.
    study_uid : str, optional
        Study Instance UID, if `path` contains several studies.

    Returns
    -------
    Study
        ``study.table()`` lists its series, with the role of each and the reason.

    Raises
    ------
    InputError
        If there are no readable images, or images of several studies or patients.

    Examples
    --------
    >>> import leakloc as ll
    >>> len(ll.load("sample_data/postoperative/dicom").stacks)  # doctest: +SKIP
    4
    """
    from leakloc.loaders import load_study

    if isinstance(path, Volume):
        return _study_of(path)
    return load_study(Path(path), (settings or Settings()).loaders, study_uid=study_uid)


def analyze(
    study: Study | Volume | str | Path,
    settings: Settings | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    study_uid: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Analysis:
    """Detect and localize epidural fluid.

    Parameters
    ----------
    study : Study, Volume or path
        Result of `load`, or an argument accepted by `load`.
    settings : Settings, optional
        Defaults if None; stored in the result.
    output : path, optional
        Folder for the report; written completely or not at all.
    overwrite : bool
        Whether to replace an existing report in `output`.
    study_uid : str, optional
        Study Instance UID, if a path contains several studies.
    progress : callable, optional
        Called with each stage and the fraction of the work completed, 0..1.
    **options
        As for `leakloc.pipeline.analyze_study`: user-selected series (``myelogram_uid``), custom
        stages (``segmenter``, ``labeler``), supplied masks (``sac``, ``fluid``).

    Returns
    -------
    Analysis
        Has an HTML view in notebooks; `report` has the content of ``report.json``, and
        ``save(folder)`` writes it.

    Raises
    ------
    LeaklocError
        A subclass, with a message for the user.

    Examples
    --------
    >>> import leakloc as ll
    >>> result = ll.analyze("sample_data/postoperative/dicom")  # doctest: +SKIP
    >>> result.report.finding.level  # doctest: +SKIP
    'L4-L5'
    """
    from leakloc.pipeline import analyze_study
    from leakloc.report import check_output

    if settings is not None and not isinstance(settings, Settings):
        raise SettingsError(
            "the second argument of analyze is a Settings object; specify the output folder with "
            "output=..., and read a recipe with leakloc.Settings.load(path)"
        )
    if output is not None:
        check_output(Path(output), overwrite=overwrite)
    if not isinstance(study, Study):
        study = load(study, settings, study_uid=study_uid)
    analysis = analyze_study(study, settings, progress=progress, **options)
    if output is not None:
        analysis.save(output, overwrite=overwrite)
    return analysis


def _study_of(volume: Volume) -> Study:
    """Return a study with one series that is already in memory."""
    stack = SeriesStack(
        series_instance_uid=None,
        description=volume.provenance.source,
        modality="MR",
        n_instances=1,
        parameters={},
        geometry=volume.geometry,
        files=(),
        sop_instance_uids=(),
        read=lambda: volume,
    )
    return Study(StudyInfo(), (stack,))
