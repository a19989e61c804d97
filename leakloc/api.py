"""leakloc in two calls, for notebooks and scripts: `load` a study, `analyze` it.

`leakloc.pipeline` tells the job stage by stage; this is the same job for people at a prompt.
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
    """Read a study's headers; pixels follow when they are needed.

    Parameters
    ----------
    path : path or Volume
        A folder of any depth and naming, an archive, a DICOM file, or a NIfTI, NRRD or
        MetaImage volume; or a `Volume` made in memory.
    settings : Settings, optional
        Its `loaders` section is used.
    study_uid : str, optional
        Study Instance UID, where `path` holds several.

    Returns
    -------
    Study
        ``study.table()`` lists its series, the role of each and why.

    Raises
    ------
    InputError
        If there is nothing to read, or images of several studies or patients.

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
    """Find and place extradural fluid.

    Parameters
    ----------
    study : Study, Volume or path
        From `load`, or what `load` takes.
    settings : Settings, optional
        Defaults where None; the result remembers them.
    output : path, optional
        Folder to write the report to; it appears whole or not at all.
    overwrite : bool
        Replace a report that stands in `output`.
    study_uid : str, optional
        Study Instance UID, where a path holds several.
    progress : callable, optional
        Told each stage and the share of the work done, 0..1.
    **options
        As for `leakloc.pipeline.analyze_study`: series chosen by you (``myelogram_uid``), stages
        of your own (``segmenter``, ``labeler``), masks made elsewhere (``sac``, ``fluid``).

    Returns
    -------
    Analysis
        Shows itself in a notebook; `report` is what ``report.json`` would hold, and
        ``save(folder)`` writes it.

    Raises
    ------
    LeaklocError
        One of its kinds, with a message for the user.

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
            "the second argument of analyze is a Settings object; name the folder to write with "
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
    """A study of one series that is in memory already."""
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
