"""External label masks: read with their position, or refused with the fix."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from leakloc.core.errors import GeometryError, InputError
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.loaders import put_on_grid, read_mask
from leakloc.loaders.masks import FLUID, SAC

DIRECTIONS = np.array([[0.0, 0.1, 0.995], [1.0, 0.0, 0.0], [0.0, 0.995, -0.1]])
DIRECTIONS[:, 1:] /= np.linalg.norm(DIRECTIONS[:, 1:], axis=0)


def grid(shape=(8, 12, 10), origin=(-20.0, 30.0, -100.0), spacing=(0.8, 0.9, 2.0)) -> Geometry:
    return Geometry.from_axes(
        shape, origin_lps=origin, spacing_ijk_mm=spacing, directions_lps=DIRECTIONS
    )


def labeled(geometry: Geometry, dtype=np.uint8) -> Volume:
    array = np.zeros(geometry.shape, dtype)
    array[1:4, 2:7, 3:6] = 1
    array[4:7, 5:9, 6:9] = 7
    return Volume(array, geometry, Provenance(source="mask"))


def written(volume: Volume, path: Path) -> Path:
    if ".nii" in path.name:
        nib.save(volume.to_nibabel(), path)
    else:
        sitk.WriteImage(volume.to_sitk(), str(path))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_labels_keep_their_value_and_place(tmp_path, name):
    made = labeled(grid(), np.int16)
    read = read_mask(written(made, tmp_path / name))
    assert read.array.dtype == np.uint8
    for label in (1, 7):
        here = read.geometry.lps_from_kji(np.argwhere(read.array == label)).mean(axis=0)
        there = made.geometry.lps_from_kji(np.argwhere(made.array == label)).mean(axis=0)
        np.testing.assert_allclose(here, there, atol=1e-3)


def test_dicom_segmentation_is_read_by_segment_number(series, tmp_path):
    import highdicom as hd
    import pydicom
    from highdicom.sr.coding import CodedConcept

    made = series()
    made.write(tmp_path / "series")
    sources = [pydicom.dcmread(path) for path in made.paths]
    for source in sources:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
            source.setdefault(keyword, "")
        for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
            source.setdefault(keyword, "")
    k = len(sources)
    labels = np.zeros((k, sources[0].Rows, sources[0].Columns), np.uint8)
    labels[1:3, 2:5, 3:6] = 1
    labels[3, 1, 2] = 2
    code = CodedConcept("1", "99TEST", "test")
    segments = [
        hd.seg.SegmentDescription(n, f"s{n}", code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for n in (1, 2)
    ]
    for kind in ("BINARY", "LABELMAP"):
        seg = hd.seg.Segmentation(
            sources, labels, kind, segments, hd.UID(), 1, hd.UID(), 1, "m", "m", "1", "1"
        )
        seg.save_as(tmp_path / "seg.dcm")
        read = read_mask(tmp_path / "seg.dcm")
        assert read.geometry.frame_of_reference_uid == sources[0].FrameOfReferenceUID
        affines = [np.array(d.ImagePositionPatient, float) for d in sources]
        at = read.geometry.lps_from_kji(np.argwhere(read.array == 2)[0])
        row, column = np.reshape(sources[3].ImageOrientationPatient, (2, 3)).astype(float)
        dy, dx = (float(mm) for mm in sources[3].PixelSpacing)
        np.testing.assert_allclose(at, affines[3] + 2 * dx * row + 1 * dy * column, atol=1e-3)
        assert (read.array == 1).sum() == 18


def refusal(tmp_path, array, affine=None, name="m.nii.gz") -> str:
    affine = np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    nib.save(image, tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_mask(tmp_path / name)
    return str(caught.value)


CUBE = np.zeros((6, 6, 6), np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({(1, 1, 1): np.nan}, "NaN"),
        ({(1, 1, 1): 0.4, (2, 2, 2): 1.0}, "threshold"),
        ({(1, 1, 1): 3.7}, "non-integer values"),
        ({(1, 1, 1): -1.0}, "negative"),
        ({(1, 1, 1): 1e6}, "overflow"),
        ({}, "empty"),
    ],
)
def test_invalid_label_values_are_reported(tmp_path, change, words):
    array = CUBE.copy()
    for place, value in change.items():
        array[place] = value
    assert words in refusal(tmp_path, array)


def test_image_is_not_a_mask(tmp_path):
    picture = np.random.default_rng(0).integers(0, 4000, (20, 20, 20)).astype(np.int16)
    assert "appears to be an image" in refusal(tmp_path, picture)


def test_one_slice_and_time_series_are_no_volume(tmp_path):
    assert "three axes" in refusal(tmp_path, np.ones((6, 6), np.uint8))
    assert "three axes" in refusal(tmp_path, np.ones((6, 6, 6, 2), np.uint8))


def test_a_nifti_without_sides_is_refused(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), None)
    nib.save(image, tmp_path / "m.nii")
    with pytest.raises(InputError, match="orientation is unknown"):
        read_mask(tmp_path / "m.nii")


def test_a_nrrd_without_a_space_is_refused(tmp_path):
    header = b"NRRD0004\ntype: unsigned char\ndimension: 3\nsizes: 6 5 4\nencoding: raw\n\n"
    (tmp_path / "m.nrrd").write_bytes(header + bytes([1] * 120))
    with pytest.raises(InputError, match="no space field"):
        read_mask(tmp_path / "m.nrrd")


def test_wrong_files_are_named(series, tmp_path):
    made = series()
    made.write(tmp_path / "series")
    with pytest.raises(InputError, match="not a segmentation"):
        read_mask(made.paths[0])
    (tmp_path / "a.txt").write_text("notes")
    with pytest.raises(InputError, match="not a supported mask file"):
        read_mask(tmp_path / "a.txt")
    with pytest.raises(InputError, match="folder"):
        read_mask(tmp_path)
    with pytest.raises(InputError, match="cannot read the mask gone"):
        read_mask(tmp_path / "gone.nii")


def test_the_same_grid_is_taken_voxel_by_voxel():
    made = labeled(grid())
    placed, notes = put_on_grid(made, made.geometry)
    assert not notes
    np.testing.assert_array_equal(placed.array, made.array)


@given(codes=st.sampled_from(["LPS", "RAS", "PIL", "SAR", "LSA", "AIR"]))
def test_the_order_of_axes_does_not_matter(codes):
    made = labeled(grid())
    placed, notes = put_on_grid(made.oriented(codes), made.geometry)
    assert not notes
    np.testing.assert_array_equal(placed.array, made.array)


def test_another_grid_is_resampled_and_said():
    made = labeled(grid())
    target = made.geometry.with_spacing((0.4, 0.45, 1.0))
    placed, notes = put_on_grid(made, target)
    assert [note.code for note in notes] == ["mask_resampled"]
    assert set(np.unique(placed.array)) == {0, 1, 7}
    assert (placed.array > 0).sum() == 8 * (made.array > 0).sum()


def test_what_lies_outside_is_said():
    made = labeled(grid())
    half = made.geometry.cropped((slice(0, 4), slice(None), slice(None)))
    affine = half.affine_lps.copy()
    affine[:3, 3] += 0.3 * affine[:3, 0]
    _, notes = put_on_grid(made, Geometry(half.shape, affine))
    assert "lies outside the myelogram" in notes[0].message


@pytest.mark.parametrize("signs", [(-1, -1), (-1, 1), (1, -1)])
@pytest.mark.parametrize("overlap", [False, True])
def test_swapped_sides_are_named_with_the_fix(signs, overlap):
    origin = (-4.0, -5.0, -100.0) if overlap else (-90.0, 130.0, -100.0)
    made = labeled(grid(origin=origin))
    affine = np.diag([*signs, 1.0, 1.0]) @ made.geometry.affine_lps
    wrong = Volume(made.array, Geometry(made.geometry.shape, affine))
    with pytest.raises(GeometryError, match="RAS"):
        put_on_grid(wrong, made.geometry, "sac mask")


def test_a_swapped_mask_on_another_grid_is_named_too():
    made = labeled(grid(origin=(-90.0, 130.0, -100.0)))
    coarse = made.resample(made.geometry.with_spacing((1.6, 1.8, 2.0)), order=0)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ coarse.geometry.affine_lps
    with pytest.raises(GeometryError, match="RAS"):
        put_on_grid(Volume(coarse.array, Geometry(coarse.geometry.shape, affine)), made.geometry)


def test_a_lost_affine_and_another_place_are_named():
    made = labeled(grid())
    lost = Volume(
        made.array, Geometry.from_axes((8, 12, 10), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    )
    with pytest.raises(GeometryError, match="saved without the affine"):
        put_on_grid(lost, made.geometry)
    far = labeled(grid((9, 12, 10), origin=(500.0, 400.0, 300.0)))
    with pytest.raises(GeometryError, match="mm apart"):
        put_on_grid(far, made.geometry)


def test_another_frame_of_reference_is_refused():
    made = labeled(grid())
    one, other = (
        Geometry(made.geometry.shape, made.geometry.affine_lps, uid) for uid in ("1.2", "1.3")
    )
    with pytest.raises(GeometryError, match="another frame of reference"):
        put_on_grid(Volume(made.array, one), other)
    assert put_on_grid(made, one)[1] == []


# --- segments of a DICOM Segmentation ---------------------------------------------------------

FLUID_CODE, OTHER_CODE = ("EPIFLUID", "99LEAKLOC"), ("1", "99TEST")


def segmentation(series, folder, described):
    """A DICOM SEG with one voxel per segment: (label, tracking id, code)."""
    import highdicom as hd
    import pydicom

    made = series().write(folder / "series")
    sources = [pydicom.dcmread(path) for path in made.paths]
    for source in sources:
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"):
            source.setdefault(keyword, "")
        for keyword in ("StudyTime", "AccessionNumber", "ReferringPhysicianName"):
            source.setdefault(keyword, "")
    labels = np.zeros((len(sources), sources[0].Rows, sources[0].Columns), np.uint8)
    segments = []
    for n, (label, tracking, code) in enumerate(described, 1):
        labels[1, n, 2] = n
        concept = hd.sr.CodedConcept(*code, "test")
        segments.append(
            hd.seg.SegmentDescription(
                n, label, concept, concept, hd.seg.SegmentAlgorithmTypeValues.MANUAL,
                tracking_uid=hd.UID(), tracking_id=tracking,
            )
        )  # fmt: skip
    seg = hd.seg.Segmentation(
        sources, labels, "BINARY", segments, hd.UID(), 1, hd.UID(), 1, "m", "m", "1", "1"
    )
    seg.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize(
    "fluid", [("one", "x", FLUID_CODE), ("one", "epidural fluid 1", OTHER_CODE),
              ("Epidural fluid 1 L4-L5", "x", OTHER_CODE)],
)  # fmt: skip
def test_fluid_is_found_by_code_or_name(series, tmp_path, fluid):
    sac, bone = ("sac", "thecal sac", OTHER_CODE), ("L4", "L4 vertebra", OTHER_CODE)
    path = segmentation(series, tmp_path, [sac, fluid, bone, ("two", "x", FLUID_CODE)])
    assert set(np.unique(read_mask(path, structure=FLUID).array)) == {0, 2, 4}
    assert set(np.unique(read_mask(path, structure=SAC).array)) == {0, 1}


def test_unmarked_segments_are_refused_with_a_list(series, tmp_path):
    described = [("sac", "a", OTHER_CODE), ("leak", "b", OTHER_CODE), ("leak", "c", OTHER_CODE)]
    path = segmentation(series, tmp_path, described)
    with pytest.raises(InputError, match=r"--fluid-label \(1 sac, 2 leak, 3 leak\)"):
        read_mask(path, structure=FLUID)
    with pytest.raises(InputError, match="several segments 'leak'"):
        read_mask(path, labels=["leak"])
    with pytest.raises(InputError, match="no segment 'fluid': it contains 1 sac"):
        read_mask(path, labels=["fluid"])
    assert set(np.unique(read_mask(path, labels=["SAC", "3"]).array)) == {0, 1, 3}
    assert set(np.unique(read_mask(path, labels=["c"]).array)) == {0, 3}


def test_a_single_segment_needs_no_name(series, tmp_path):
    path = segmentation(series, tmp_path, [("mine", "a", OTHER_CODE)])
    assert read_mask(path, structure=FLUID).array.sum() == 1


def test_labels_of_other_formats_are_selected_by_number(tmp_path):
    path = written(labeled(grid(), np.uint8), tmp_path / "a.nii.gz")
    assert set(np.unique(read_mask(path, labels=[7]).array)) == {0, 7}
    for wrong in (3, "fluid"):
        with pytest.raises(InputError, match=f"no label {wrong}: it contains 1, 7"):
            read_mask(path, labels=[wrong])
