import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest

from leakloc.validation.phantom import SCENARIOS, make_phantom, write_study


@pytest.fixture(scope="module")
def study(make_tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    phantom = make_phantom(make_tiny("postoperative_dorsal", vendor="siemens"), 1)
    fractions = []
    write_study(phantom, folder, progress=lambda message, fraction: fractions.append(fraction))
    return phantom, folder, fractions


def _smallest(scenario):
    return replace(scenario, myelogram_shape=(32, 24, 4), voxel_mm=10.0, slice_mm=10.0)


@pytest.fixture(scope="module")
def datasets(study):
    return [pydicom.dcmread(path) for path in sorted((study[1] / "dicom").iterdir())]


def test_study_is_one_study_of_valid_mr_images(study, datasets):
    phantom, _, fractions = study
    assert len({d.StudyInstanceUID for d in datasets}) == 1
    assert len({d.FrameOfReferenceUID for d in datasets}) == 1
    assert len({d.SeriesInstanceUID for d in datasets}) == len(phantom.series())
    assert len({d.SOPInstanceUID for d in datasets}) == len(datasets)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    for d in datasets:
        assert d.SOPClassUID == pydicom.uid.MRImageStorage
        assert pydicom.uid.UID(d.SOPInstanceUID).is_valid and len(d.SOPInstanceUID) <= 64
        assert d.pixel_array.max() <= 4095
        row, column = np.array(d.ImageOrientationPatient).reshape(2, 3)
        assert abs(row @ column) < 1e-6


def test_slices_lie_where_the_grid_says(study, datasets):
    phantom = study[0]
    series = next(s for s in phantom.series() if s.sequence.name == "ht2w_3d")
    slices = sorted(
        (d for d in datasets if d.SeriesNumber == series.number), key=lambda d: d.InstanceNumber
    )
    grid = series.geometry
    assert len(slices) == grid.shape[0]
    for k in (0, 7, grid.shape[0] - 1):
        d = slices[k]
        position = np.array(d.ImagePositionPatient, dtype=float)
        assert np.allclose(position, grid.lps_from_ijk([0, 0, k]), atol=1e-4)
        row, column = np.array(d.ImageOrientationPatient, dtype=float).reshape(2, 3)
        spacing = np.array(d.PixelSpacing, dtype=float)
        assert np.allclose(row * spacing[1], grid.affine_lps[:3, 0], atol=1e-4)
        assert np.allclose(column * spacing[0], grid.affine_lps[:3, 1], atol=1e-4)
    image = phantom.render(series)[0].array[7]
    assert np.corrcoef(slices[7].pixel_array.ravel(), image.ravel())[0, 1] > 0.999


def test_truth_is_written_with_the_study(study):
    phantom, folder, _ = study
    truth = json.loads((folder / "truth" / "truth.json").read_text())
    assert truth["leak"] == "present"
    assert truth["collections"][0]["level"] == phantom.truth.collections[0].level
    grid = phantom.myelogram_geometry()
    for name in ("thecal_sac", "fluid", "fluid_fraction", "levels"):
        image = nib.load(folder / "truth" / f"{name}.nii.gz")
        assert image.shape == grid.shape[::-1]
        ras = np.diag([-1, -1, 1, 1]) @ grid.affine_lps
        assert np.allclose(image.affine, ras, atol=1e-4)


@pytest.mark.parametrize("vendor", ["siemens", "ge", "philips", "canon", "uih"])
def test_vendors_differ_in_headers(make_tiny, tmp_path, vendor):
    scenario = replace(
        make_tiny("normal"), vendor=vendor, series=("ht2w_3d",),
        myelogram_shape=(32, 24, 4), voxel_mm=10.0, slice_mm=10.0,
    )  # fmt: skip
    write_study(make_phantom(scenario, 0), tmp_path, truth=False)
    found = [pydicom.dcmread(path) for path in (tmp_path / "dicom").iterdir()]
    myelogram = next(d for d in found if d.MRAcquisitionType == "3D")
    assert myelogram.SeriesDescription
    assert ("SequenceName" in myelogram) == (vendor == "siemens")
    assert ("RescaleSlope" in myelogram) == (vendor == "philips")
    assert not (tmp_path / "truth").exists()


def test_anonymized_headers_contain_no_names(make_tiny, tmp_path):
    scenario = replace(_smallest(make_tiny("anonymised_headers")), series=("ht2w_3d",))
    write_study(make_phantom(scenario, 0), tmp_path, truth=False)
    for path in (tmp_path / "dicom").iterdir():
        d = pydicom.dcmread(path)
        assert not d.get("SeriesDescription") and not d.get("ProtocolName")
        assert "SequenceName" not in d


def test_same_seed_same_bytes(make_tiny, tmp_path):
    scenario = replace(_smallest(make_tiny("normal")), series=("ht2w_3d",))
    for name in ("one", "two"):
        write_study(make_phantom(scenario, 0), tmp_path / name, truth=False)
    for path in (tmp_path / "one" / "dicom").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "dicom" / path.name).read_bytes()


def test_repeat_scans_are_different_studies(make_tiny, tmp_path):
    scenario = replace(_smallest(make_tiny("normal")), series=("ht2w_3d",))
    uids = set()
    for repeat in (0, 1):
        folder = tmp_path / str(repeat)
        write_study(make_phantom(scenario, 0, repeat), folder, truth=False)
        image = pydicom.dcmread(next((folder / "dicom").iterdir()), stop_before_pixels=True)
        uids.add(str(image.StudyInstanceUID))
    assert len(uids) == 2


def test_loader_reads_the_grid_back(study):
    from leakloc.core.settings import Settings
    from leakloc.loaders import load_study

    phantom, folder, _ = study
    loaded = load_study(folder / "dicom", Settings().loaders)
    grid = phantom.myelogram_geometry()
    stacks = [s for s in loaded.stacks if s.geometry is not None]
    assert any(s.load().oriented("LPS").array.shape == _oriented(grid) for s in stacks)


def _oriented(grid):
    from leakloc.core.volume import Volume

    return Volume(np.zeros(grid.shape, np.uint8), grid).oriented("LPS").array.shape


def test_slab_only_has_no_grid_for_truth():
    with pytest.raises(LookupError, match="slab_only"):
        make_phantom(SCENARIOS["slab_only"], 0).myelogram_geometry()
