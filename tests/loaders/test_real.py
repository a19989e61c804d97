"""Real vendor files, compared with what independent readers make of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Volume
from leakloc.loaders import load_study, triage

DATA = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="LEAKLOC_DATA is absent"),
]
SETTINGS = LoaderSettings()

REPAIRED = {"uneven_spacing", "sheared_stack", "missing_slices", "split_at_gap", "private_scale"}

VENDOR_SERIES = [
    "dicom-edge/dcm_qa_sag/In/2_gre_field_mapping",
    "dicom-edge/dcm_qa_sag/In/XA30/classic",
    "dicom-edge/dcm_qa_sag/In/XA30/enhanced/5_Product_EPI_Sag_Ascending",
    "dicom-edge/dcm_qa_enh/In/Siemens/XA10",
    "dicom-edge/dcm_qa_frag/In/5001_anat-T1w_acq-tfl",
    "dicom-edge/dcm_qa_frag/In/6001_anat-T1w_acq-tfl",
    "dicom-edge/dcm_qa_decubitus/In/HFDL",
    "dicom-edge/dcm_qa_decubitus/In/HFS",
    "spider-dicom/spider-005",
    "spider-dicom/spider-098",
    "spider-dicom/spider-141",
]


@pytest.mark.parametrize("name", VENDOR_SERIES)
def test_same_voxels_in_the_same_place_as_dcm2niix(name, tmp_path):
    dcm2niix = pytest.importorskip("dcm2niix")
    import nibabel as nib

    subprocess.run(
        [dcm2niix.bin, "-o", tmp_path, "-f", "%s_%e", DATA / name], check=True, capture_output=True
    )
    [path] = tmp_path.glob("*.nii")
    image = nib.load(path)
    times = image.shape[3] if image.ndim > 3 else 1
    stacks = load_study(DATA / name, SETTINGS).stacks
    assert len(stacks) == times
    for time, stack in enumerate(stacks):
        theirs = Volume.from_nibabel(image.slicer[..., time] if times > 1 else image)
        theirs, ours = theirs.oriented("LPS"), stack.load().oriented("LPS")
        assert ours.geometry.matches(theirs.geometry, tolerance_mm=0.01)
        np.testing.assert_array_equal(ours.array, theirs.array)


def folders_of_one_study() -> list[str]:
    """Every folder of the awkward files that holds images itself and reads as one study."""
    names = []
    for folder in sorted({path.parent for path in (DATA / "dicom-edge").rglob("*")}):
        try:
            stacks = load_study(folder, SETTINGS).stacks
        except InputError:
            continue
        if any(path.parent == folder for stack in stacks for path in stack.files):
            names.append(str(folder.relative_to(DATA)))
    return names


@pytest.mark.slow
def test_every_stack_of_the_awkward_files_agrees_with_dcm2niix(tmp_path):
    """Each volume is one of dcm2niix's, voxel for voxel, or has a note on the repair."""
    dcm2niix = pytest.importorskip("dcm2niix")
    import nibabel as nib

    compared = 0
    for number, name in enumerate(folders_of_one_study()):
        out = tmp_path / str(number)
        out.mkdir()
        # -p n: rescaled values, as DICOM defines them, in place of Philips' own scale
        command = [dcm2niix.bin, "-p", "n", "-d", "0", "-o", out, "-f", "%s_%e_%p", DATA / name]
        subprocess.run(command, check=False, capture_output=True)
        theirs = []
        for path in out.glob("*.nii"):
            image = nib.load(path)
            times = (
                [image]
                if image.ndim == 3
                else [image.slicer[..., n] for n in range(image.shape[3])]
            )
            for time in times:
                try:
                    theirs.append(Volume.from_nibabel(time).oriented("LPS"))
                except InputError:
                    continue  # dcm2niix keeps a sheared grid
        for stack in load_study(DATA / name, SETTINGS).stacks:
            if stack.geometry is None or {n.code for n in stack.notes} & REPAIRED:
                continue
            ours = stack.load().oriented("LPS")
            placed = [
                other
                for other in theirs
                if other.array.shape == ours.array.shape
                and other.geometry.matches(ours.geometry, tolerance_mm=0.02)
            ]
            assert placed, name
            assert any(
                np.allclose(other.array, ours.array, rtol=1e-4, atol=1e-3) for other in placed
            ), name
            compared += 1
    assert compared == 18


@pytest.mark.slow
def test_every_classic_series_has_the_affine_of_highdicom():
    highdicom = pytest.importorskip("highdicom")
    import pydicom

    compared = 0
    for name in [*folders_of_one_study(), *VENDOR_SERIES[-3:]]:
        for stack in load_study(DATA / name, SETTINGS).stacks:
            repaired = {n.code for n in stack.notes} & REPAIRED
            if stack.geometry is None or repaired or len(set(stack.files)) < stack.n_instances:
                continue
            datasets = [pydicom.dcmread(path) for path in stack.files]
            theirs = highdicom.get_volume_from_series(datasets, orientation_tol=1e-3)
            volume = stack.load()
            # highdicom indexes [slice, row, column]; ours maps (i, j, k).
            affine = theirs.affine[:, [2, 1, 0, 3]]
            if affine[:3, 2] @ volume.geometry.affine_lps[:3, 2] < 0:
                affine[:3, 3] += affine[:3, 2] * (theirs.shape[0] - 1)
                affine[:3, 2] *= -1
            np.testing.assert_allclose(volume.geometry.affine_lps, affine, atol=1e-3)
            compared += 1
    assert compared >= 8


@pytest.mark.slow
def test_every_volume_survives_nibabel(tmp_path):
    import nibabel as nib

    for number, name in enumerate(folders_of_one_study()):
        for stack in load_study(DATA / name, SETTINGS).stacks:
            if stack.geometry is None:
                continue
            ours = stack.load()
            path = tmp_path / f"{number}.nii"
            nib.save(ours.to_nibabel(), path)
            [again] = load_study(path, SETTINGS).stacks
            volume = again.load().oriented("LPS")
            mine = ours.oriented("LPS")
            assert volume.geometry.matches(mine.geometry, tolerance_mm=0.01)
            np.testing.assert_array_equal(volume.array, mine.array)


def test_philips_field_map_splits_into_magnitude_and_phase():
    stacks = load_study(DATA / "dicom-edge/dcm_qa_enh/In/Philips", SETTINGS).stacks
    assert [stack.geometry.shape for stack in stacks] == [(32, 64, 64)] * 2
    low = [float(stack.load().array.min()) for stack in stacks]
    assert low[0] == 0.0
    assert low[1] < -400  # hertz: its own rescale, frame by frame


@pytest.mark.parametrize("patient", ["005", "098", "141"])
def test_spider_dicom_agrees_with_its_nifti(patient):
    dicom = triage(load_study(DATA / f"spider-dicom/spider-{patient}", SETTINGS), SETTINGS)
    nifti = triage(load_study(DATA / f"spider/spider-{patient}_T2SPACE.nii.gz", SETTINGS), SETTINGS)
    ours, theirs = dicom.myelogram.oriented("LPS"), nifti.myelogram.oriented("LPS")
    assert ours.array.shape == theirs.array.shape
    np.testing.assert_allclose(ours.geometry.spacing_ijk_mm, theirs.geometry.spacing_ijk_mm, 1e-5)
    np.testing.assert_allclose(
        ours.geometry.directions_lps, theirs.geometry.directions_lps, atol=1e-6
    )
    together = np.corrcoef(ours.array.ravel(), theirs.array.ravel())[0, 1]
    assert together > 0.99
    for result in (dicom, nifti):
        assert [note.code for note in result.notes] == ["no_myelogram"]
        assert result.stacks[0].used_for == ("fluid", "levels")
        assert result.companions["sagittal_t2"] is result.myelogram


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dcm_qa_ct/In/GE", "modality CT"),
        ("dcm_qa_decubitus/In/HFS", "brain"),
        ("dcm_qa_ts/In", "mosaic"),
        ("dcm_qa_sag/In/2_fmri_SagAP", "brain"),
        ("pydicom-small", "regular geometry"),
    ],
)
def test_what_shows_no_spine_is_refused(name, words):
    with pytest.raises(InputError, match=words):
        triage(load_study(DATA / "dicom-edge" / name, SETTINGS), SETTINGS)


@pytest.mark.slow
def test_every_vendor_file_is_read_or_listed():
    folder = DATA / "dicom-edge"
    with pytest.raises(InputError, match="14 studies"):
        load_study(folder, SETTINGS)
    unread = set()
    for part in folder.rglob("*"):
        if not part.is_file():
            continue
        try:
            assert load_study(part, SETTINGS).stacks
        except InputError as error:
            assert "no usable images among 1 file" in str(error)
            if b"DICM" in part.read_bytes()[:132]:
                unread.add(part.name)
    assert unread == set()
