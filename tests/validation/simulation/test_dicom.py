from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from leakloc.core.settings import Settings
from leakloc.loaders import load_study, triage
from leakloc.validation.evaluation.annotation import read_case
from leakloc.validation.simulation import SCENARIOS, read_patient, simulate
from leakloc.validation.simulation.dicom import write_study

SPIDER = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[4] / "shared/data")) / "spider"


def headers(folder):
    """One image of each series, by series number."""
    read = [pydicom.dcmread(path) for path in sorted((folder / "dicom").iterdir())]
    return {int(d.SeriesNumber): d for d in read}


def test_loaded_study_is_the_simulated_one(made_simulation, tmp_path):
    study = made_simulation()
    write_study(study, tmp_path)
    loaded = triage(load_study(tmp_path / "dicom", Settings().loaders), Settings().loaders)
    image = loaded.myelogram.oriented("LPS")
    assert image.geometry.matches(study.myelogram.geometry)
    assert np.corrcoef(image.array.ravel(), study.myelogram.array.ravel())[0, 1] > 0.9999
    assert loaded.myelogram.provenance.fat_suppressed
    assert list(loaded.companions) == ["sagittal_t2"]


def test_truth_reads_as_a_case(made_simulation, tmp_path, annotation_of):
    study = made_simulation(slice_mm=3.0)
    write_study(study, tmp_path)
    read, direct = read_case(tmp_path), annotation_of(study)
    assert read.thecal_sac.geometry.matches(study.myelogram.geometry)
    assert (read.fluid.array == study.fluid.array).all()
    assert read.fluid_ml == pytest.approx(direct.fluid_ml)
    assert read.collections[0].level == direct.collections[0].level
    assert read.collections[0].position == "dorsal"


def test_headers_state_that_it_is_simulated(made_simulation, tmp_path):
    write_study(made_simulation(), tmp_path / "a", truth=False)
    write_study(made_simulation(), tmp_path / "again", truth=False)
    write_study(made_simulation(seed=101), tmp_path / "other", truth=False)
    a, again, other = (headers(tmp_path / name) for name in ("a", "again", "other"))
    for number, d in a.items():
        assert d.PatientName == "SIMULATED^107"
        assert "Simulated contrast on real anatomy" in d.ImageComments
        assert "CC BY 4.0, modified" in d.ImageComments
        assert d.SOPInstanceUID == again[number].SOPInstanceUID
        assert d.StudyInstanceUID != other[number].StudyInstanceUID
        assert d.FrameOfReferenceUID == a[1].FrameOfReferenceUID
    assert not (tmp_path / "a/truth").exists()


@pytest.mark.parametrize(
    ("changes", "slice_mm", "te_ms", "kind", "suppressed"),
    [
        ({}, 1.0, 600, "3D", True),
        ({"fat": "partial"}, 1.0, 600, "3D", True),
        ({"fat": "none", "contrasts": ("conventional",)}, 1.0, 120, "3D", False),
        ({"contrasts": ("moderate",)}, 4.0, 250, "2D", True),
        ({"contrasts": ("stir",)}, 4.0, 60, "2D", False),  # by inversion, not by its spectrum
    ],
)
def test_headers_fit_the_scenario(
    made_simulation, tmp_path, changes, slice_mm, te_ms, kind, suppressed
):
    scenario = replace(SCENARIOS["dorsal"], **changes)
    write_study(made_simulation(scenario, slice_mm=slice_mm), tmp_path, truth=False)
    myelogram, companion = headers(tmp_path).values()
    assert (myelogram.EchoTime, myelogram.MRAcquisitionType) == (te_ms, kind)
    assert myelogram.SliceThickness == slice_mm
    assert ("FS" in myelogram.ScanOptions) == suppressed
    assert ("InversionTime" in myelogram) == (changes.get("contrasts") == ("stir",))
    assert "FS" not in companion.ScanOptions


@pytest.mark.data
@pytest.mark.parametrize("name", ["two_collections", "axial_slices", "conventional_t2"])
def test_real_patient_goes_through_the_files(tmp_path, name):
    if not SPIDER.is_dir():
        pytest.skip("the public volumes are not here; set LEAKLOC_DATA")
    study = simulate(read_patient(SPIDER, "107"), name, 100)
    write_study(study, tmp_path)
    loaded = triage(load_study(tmp_path / "dicom", Settings().loaders), Settings().loaders)
    truth = read_case(tmp_path)
    assert truth.thecal_sac.geometry.matches(study.myelogram.geometry)
    image = loaded.myelogram.resample(study.myelogram.geometry)
    sac = study.thecal_sac.array > 0
    assert image.array[sac].mean() > 2 * image.array[~sac].mean()
    assert {c.position for c in truth.collections} <= set(study.positions.values())
    assert truth.fluid_ml == pytest.approx(
        float(study.fluid_fraction.array.sum()) * study.fluid.geometry.voxel_volume_ml, rel=1e-3
    )
