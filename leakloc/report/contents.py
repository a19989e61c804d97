"""Reading a report folder: report, masks, and the image of the analyzed study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leakloc.core.errors import InputError
from leakloc.loaders import load_study, read_mask, triage
from leakloc.report import relabel_data
from leakloc.report.model import Report

if TYPE_CHECKING:
    from leakloc.core.volume import Volume
    from leakloc.loaders.study import Study, Triage

MASKS: Final = ("thecal_sac", "epidural_fluid", "levels")
"""Names of the masks of a report, without suffix."""


@dataclass(frozen=True)
class ReportContents:
    """A report with its masks and image.

    Parameters
    ----------
    folder : Path
        The report folder.
    report : Report
        Names and positions of levels, collections.
    masks : dict
        By name (`MASKS`): uint8 labels on the grid of the myelogram; those that were written.
    image : Volume or None
        The myelogram; None if no study was specified, as reports contain no images.
    """

    folder: Path
    report: Report
    masks: dict[str, Volume]
    image: Volume | None


def read_contents(folder: str | Path, study: str | Path | None = None) -> ReportContents:
    """Read the report and masks of a report folder, and the image of its study.

    Parameters
    ----------
    folder : path
        Output folder of `leakloc analyze`.
    study : path, optional
        The analyzed study.

    Raises
    ------
    InputError
        If a file cannot be read, or it is another study.
    """
    folder = Path(folder)
    report = Report.load(folder)
    paths = {name: folder / "masks" / f"{name}.nii.gz" for name in MASKS}
    masks = {
        name: read_mask(path, may_be_empty=True) for name, path in paths.items() if path.is_file()
    }
    image = None
    if study is not None:
        data = relabel_data.load(folder)
        image = select_images(report, data, Path(study))[1].myelogram
    return ReportContents(folder, report, masks, image)


def select_images(
    report: Report, data: relabel_data.RelabelData, path: Path
) -> tuple[Study, Triage]:
    """Load the study of a report and select the same series as its analysis.

    Raises
    ------
    InputError
        If it is another study, or another volume is selected.
    """
    uid, settings = report.study.study_instance_uid, data.settings.loaders
    study = load_study(path, settings, study_uid=uid)
    chosen = triage(
        study,
        settings,
        myelogram_uid=data.basis.myelogram_uid,
        companion_uids=data.basis.companion_uids,
    )
    grid = data.basis.segmentation.collections.geometry
    if study.info.study_instance_uid != uid or not chosen.myelogram.geometry.matches(grid):
        raise InputError(f"{path} is not the study of this report")
    return study, chosen
