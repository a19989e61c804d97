"""Write a simulated study as DICOM with its ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from leakloc.core.volume import Volume
from leakloc.validation.phantom.dicom import StudyHeader, image_datasets, write_truth
from leakloc.validation.phantom.sequences import Sequence
from leakloc.validation.phantom.series import PhantomSeries
from leakloc.validation.simulation.truth import true_values

if TYPE_CHECKING:
    from leakloc.validation.simulation.study import SimulatedStudy

STORED_CSF: Final = 1000.0
"""Stored value of CSF, as in the phantom."""

FIELD_T: Final = 1.5
"""Field strength in the header; the contrast does not depend on it."""

THICK_SLICE_MM: Final = 2.0
"""Minimum slice spacing for a series to be labeled two-dimensional in the header."""

COMMENTS: Final = (
    "Simulated contrast on real anatomy. Contrast and epidural fluid are computed; this is not "
    "an image of a patient with a leak. Anatomy: SPIDER patient {patient} (van der Graaf et al., "
    "Sci Data 2024;11:264, doi 10.1038/s41597-024-03090-w), CC BY 4.0, modified."
)


def write_study(study: SimulatedStudy, folder: Path, *, truth: bool = True) -> None:
    """Write a simulated study to a folder.

    Parameters
    ----------
    study : SimulatedStudy
    folder : Path
        Receives ``dicom/`` (all series in one flat folder) and, if requested, ``truth/``:
        ``truth.json`` and, on the myelogram's grid, ``thecal_sac.nii.gz`` (0/1), ``fluid.nii.gz``
        (collection ids) and ``fluid_fraction.nii.gz``.
    truth : bool
        Whether to write the truth.
    """
    folder = Path(folder)
    dicom_folder = folder / "dicom"
    dicom_folder.mkdir(parents=True, exist_ok=True)
    repeat = (study.repeat,) if study.repeat else ()
    header = StudyHeader(
        key=("leakloc simulation", study.patient, repr(study.scenario), study.seed, *repeat),
        vendor="siemens",
        patient_name=f"SIMULATED^{study.patient}",
        patient_id=f"SIMULATED-{study.patient}",
        description="MR spine, simulated contrast on real anatomy",
        software="LEAKLOC_SIMUL",
        comments=COMMENTS.format(patient=study.patient),
    )
    for number, (name, sequence, volume) in enumerate(_planned(study), start=1):
        series = PhantomSeries(number, name, sequence, (volume.geometry,))
        stored = volume.with_array(volume.array * np.float32(STORED_CSF))
        for dataset in image_datasets(header, series, [stored]):
            file = dicom_folder / f"{number:04d}_{dataset.InstanceNumber:04d}.dcm"
            dataset.save_as(file, enforce_file_format=True)
    if truth:
        masks = {
            "thecal_sac": study.thecal_sac,
            "fluid": study.fluid,
            "fluid_fraction": study.fluid_fraction,
        }
        write_truth(true_values(study), masks, folder / "truth")


def _planned(study: SimulatedStudy) -> list[tuple[str, Sequence, Volume]]:
    """Return description, sequence and volume of each series."""
    scenario, myelogram = study.scenario, study.myelogram
    planned = [(*_myelogram(scenario.contrasts[0], scenario.fat != "none", myelogram), myelogram)]
    if study.companion is not None:
        planned.append(("t2_spc_sag_companion", _t2(study.companion)[1], study.companion))
    return planned


def _myelogram(contrast: str, fat_suppressed: bool, volume: Volume) -> tuple[str, Sequence]:
    """Return the header of the myelogram; it states fat suppression even if that fails."""
    if not fat_suppressed:
        return _t2(volume)
    thickness = _thickness_mm(volume)
    if contrast == "stir":
        return "t2_tirm", Sequence(
            "stir_sagittal", "inversion", 4500.0, 60.0, FIELD_T, ti_ms=155.0, flip_deg=150.0,
            echo_train=12, thickness_mm=thickness,
        )  # fmt: skip
    te_ms = 600.0 if contrast == "heavy" else 250.0
    if thickness is None:
        return "t2_spc_myelo_fs_iso", Sequence(
            "ht2w_3d", "variable_flip", 3000.0, te_ms, FIELD_T, flip_deg=120.0, echo_train=120,
            fat_suppressed=True,
        )  # fmt: skip
    return "t2_tse_myelo_fs", Sequence(
        "t2_sagittal", "turbo", 6000.0, te_ms, FIELD_T, flip_deg=150.0, echo_train=64,
        fat_suppressed=True, thickness_mm=thickness,
    )  # fmt: skip


def _t2(volume: Volume) -> tuple[str, Sequence]:
    """Return the header of conventional T2 without fat suppression."""
    thickness = _thickness_mm(volume)
    if thickness is None:
        return "t2_spc_iso", Sequence(
            "ht2w_3d", "variable_flip", 1700.0, 120.0, FIELD_T, flip_deg=120.0, echo_train=60
        )
    return "t2_tse", Sequence(
        "t2_sagittal", "turbo", 3500.0, 110.0, FIELD_T, flip_deg=150.0, echo_train=18,
        thickness_mm=thickness,
    )  # fmt: skip


def _thickness_mm(volume: Volume) -> float | None:
    """Return the slice thickness of a two-dimensional series; None for three-dimensional."""
    spacing = volume.geometry.spacing_ijk_mm[2]
    return spacing if spacing >= THICK_SLICE_MM else None
