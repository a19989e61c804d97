from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from leakloc.core.errors import GeometryError, InputError
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import load_study

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def oblique(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    a = np.radians(degrees)
    row = np.array([np.sin(a), np.cos(a), 0.0])
    column = np.array([np.sin(a) * np.cos(a) * 0.1, -(np.sin(a) ** 2) * 0.1, -1.0])
    column -= row * (row @ column)
    return row, column / np.linalg.norm(column)


def as_jpeg_2000(made):
    from openjpeg.utils import encode_array
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    for n, dataset in enumerate(made.datasets):
        dataset.PixelData = encapsulate([encode_array(made.array[n])])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return made


def only(study):
    assert len(study.stacks) == 1, [s.notes for s in study.stacks]
    return study.stacks[0]


def codes(stack) -> set[str]:
    return {note.code for note in stack.notes}


@pytest.mark.parametrize(
    "plane", [SAGITTAL, AXIAL, CORONAL, oblique(20), oblique(-35), (SAGITTAL[1], SAGITTAL[0])]
)
def test_every_voxel_lies_where_its_slice_says(series, settings, tmp_path, plane):
    made = series(plane=plane).write(tmp_path)
    volume = only(load_study(tmp_path, settings)).load()
    np.testing.assert_array_equal(volume.array, made.array)
    np.testing.assert_allclose(volume.geometry.affine_lps, made.affine_lps, atol=1e-6)
    assert volume.geometry.frame_of_reference_uid == "1.2.826.0.1.2"


def test_order_comes_from_positions_not_numbers_or_names(series, settings, tmp_path):
    made = series()
    order = np.random.default_rng(3).permutation(len(made.datasets))
    for number, place in enumerate(order):
        made.datasets[place].InstanceNumber = number + 1
    made.datasets = [made.datasets[n] for n in order]
    made.write(tmp_path / "a" / "b c", prefix="no suffix ")
    stack = only(load_study(tmp_path, settings))
    np.testing.assert_array_equal(stack.load().array, made.array)
    np.testing.assert_allclose(stack.geometry.affine_lps, made.affine_lps, atol=1e-6)
    assert stack.sop_instance_uids[0] == made.datasets[int(np.argmin(order))].SOPInstanceUID


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP", "HFDL"])
def test_patient_position_changes_nothing(series, settings, tmp_path, position):
    made = series(PatientPosition=position).write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    np.testing.assert_allclose(stack.geometry.affine_lps, made.affine_lps, atol=1e-6)


def test_jittered_orientation_stays_one_stack(series, settings, tmp_path):
    made = series(plane=oblique(10))
    for n, dataset in enumerate(made.datasets):
        row = [float(x) + 1e-5 * (-1) ** n for x in dataset.ImageOrientationPatient]
        dataset.ImageOrientationPatient = row
    made.write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    np.testing.assert_allclose(stack.geometry.affine_lps, made.affine_lps, atol=1e-3)
    assert codes(stack) == set()


def test_byte_identical_copies_are_dropped(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    for path in made.paths[:3]:
        (tmp_path / f"copy of {path.name}").write_bytes(path.read_bytes())
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"duplicate_instances"}
    np.testing.assert_array_equal(stack.load().array, made.array)


def test_same_picture_under_new_uid_is_dropped(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    made.datasets[2].SOPInstanceUID = generate_uid()
    made.datasets = [made.datasets[2]]
    made.write(tmp_path / "b")
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"duplicate_slices"}
    np.testing.assert_array_equal(stack.load().array, made.array)


def test_different_pictures_at_one_place_are_refused(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    again = made.datasets[2]
    again.SOPInstanceUID = generate_uid()
    again.PixelData = np.zeros_like(made.array[2]).tobytes()
    made.datasets = [again]
    made.write(tmp_path / "b")
    stack = only(load_study(tmp_path, settings))
    assert stack.geometry is None
    assert codes(stack) == {"ambiguous_positions"}
    with pytest.raises(GeometryError, match="same position"):
        stack.load()


def test_repeated_acquisitions_become_separate_stacks(series, settings, tmp_path):
    first = series(AcquisitionNumber=1).write(tmp_path / "a")
    second = series(array=first.array + 1, AcquisitionNumber=2)
    second.set(SeriesInstanceUID=first.datasets[0].SeriesInstanceUID).write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert [codes(stack) for stack in stacks] == [{"repetitions"}] * 2
    np.testing.assert_array_equal(stacks[1].load().array, second.array)


def test_a_missing_slice_is_named_and_interpolated(series, settings, tmp_path):
    made = series()
    del made.datasets[3]
    made.write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    note = next(n for n in stack.notes if n.code == "missing_slices")
    assert "1 of 8 slices are missing" in note.message
    assert "between slices 3 and 4" in note.message
    volume = stack.load()
    np.testing.assert_allclose(volume.geometry.affine_lps, made.affine_lps, atol=1e-6)
    kept = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(volume.array[kept], made.array[kept])
    mean = (made.array[2].astype(float) + made.array[4]) / 2
    np.testing.assert_allclose(volume.array[3], mean, atol=0.01)


def test_a_wide_gap_splits_the_stack(series, settings, tmp_path):
    made = series(shape=(20, 12, 10), spacing_ijk_mm=(0.7, 0.9, 4.0))
    del made.datasets[8]
    made.write(tmp_path)
    stacks = load_study(tmp_path, settings).stacks
    assert [stack.n_instances for stack in stacks] == [8, 11]
    for stack in stacks:
        assert codes(stack) == {"split_at_gap"}
        assert stack.geometry.spacing_ijk_mm[2] == pytest.approx(4.0)
    np.testing.assert_array_equal(stacks[1].load().array, made.array[9:])


def test_a_truncated_file_counts_as_missing(series, settings, tmp_path):
    made = series().write(tmp_path)
    path = made.paths[4]
    path.write_bytes(path.read_bytes()[:-50])
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"truncated_slices", "missing_slices"}
    assert stack.n_instances == 7
    np.testing.assert_array_equal(stack.load().array[5], made.array[5])


def test_a_complete_copy_replaces_a_truncated_one(series, settings, tmp_path):
    made = series().write(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(made.paths[4].read_bytes()[:-50])
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"duplicate_instances"}
    np.testing.assert_array_equal(stack.load().array, made.array)


def test_uneven_slices_are_laid_onto_an_even_grid(series, settings, tmp_path):
    """A ramp along the slices must come out as the same ramp."""
    steps = np.array([0, 1.0, 2.3, 3.0, 4.2, 5.0, 6.1, 7.0])
    array = np.broadcast_to((100 * steps).astype(np.uint16)[:, None, None], (8, 24, 16)).copy()
    made = series(array=array, spacing_ijk_mm=(0.7, 0.9, 1.0))
    for dataset, step in zip(made.datasets, steps, strict=True):
        place = made.affine_lps[:3, 3] + step * made.affine_lps[:3, 2]
        dataset.ImagePositionPatient = [float(x) for x in place]
    made.write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"uneven_spacing"}
    volume = stack.load()
    assert volume.geometry.spacing_ijk_mm[2] == pytest.approx(1.0)
    np.testing.assert_allclose(volume.array[:, 5, 5], np.arange(8) * 100, atol=1)


def test_a_sheared_stack_is_straightened(series, settings, tmp_path):
    """A marker drawn at fixed patient positions must stay there."""
    made = series(shape=(9, 40, 30), spacing_ijk_mm=(1.0, 1.0, 1.0), plane=AXIAL)
    for n, dataset in enumerate(made.datasets):
        array = np.zeros((40, 30), np.uint16)
        array[20 - n, 12] = 1000  # same patient place on every slice
        dataset.PixelData = array.tobytes()
        dataset.ImagePositionPatient = [-10.0, -30.0 + n, 40.0 + n]
    made.write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == {"sheared_stack"}
    volume = stack.load()
    peaks = volume.geometry.lps_from_kji(np.argwhere(volume.array > 500))
    assert len(peaks) == 9
    np.testing.assert_allclose(peaks[:, :2], np.tile([2.0, -10.0], (9, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("keyword", "code"),
    [
        ("ImagePositionPatient", "no_position"),
        ("ImageOrientationPatient", "no_position"),
        ("PixelSpacing", "no_pixel_spacing"),
    ],
)
def test_without_placement_there_is_no_affine(series, settings, tmp_path, keyword, code):
    series(**{keyword: None}).write(tmp_path)
    stack = only(load_study(tmp_path, settings))
    assert stack.geometry is None
    assert codes(stack) == {code}


def test_skewed_orientation_vectors_are_refused(series, settings, tmp_path):
    series(ImageOrientationPatient=[1.0, 0.0, 0.0, 0.5, 0.866, 0.0]).write(tmp_path)
    assert codes(only(load_study(tmp_path, settings))) == {"bad_orientation"}


def test_localizer_in_the_same_series_is_split_off(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    extra = series(shape=(1, 24, 16), plane=AXIAL)
    extra.set(SeriesInstanceUID=made.datasets[0].SeriesInstanceUID).write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert [stack.n_instances for stack in stacks] == [8, 1]
    np.testing.assert_array_equal(stacks[0].load().array, made.array)
    assert codes(stacks[1]) == {"too_few_slices"}


@pytest.mark.parametrize(
    "change",
    [
        {"EchoTime": 90.0},
        {"ImageType": ["DERIVED", "PRIMARY", "P", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "DIXON", "W"]},
        {"FrameOfReferenceUID": "1.2.826.0.1.9"},
        {"PixelSpacing": [0.5, 0.5]},
    ],
)
def test_images_of_other_contrast_or_grid_are_separated(series, settings, tmp_path, change):
    made = series(EchoTime=30.0).write(tmp_path / "a")
    other = series(array=made.array + 7, **{"EchoTime": 30.0, **change})
    other.set(SeriesInstanceUID=made.datasets[0].SeriesInstanceUID).write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert len(stacks) == 2
    np.testing.assert_array_equal(stacks[0].load().array, made.array)
    np.testing.assert_array_equal(stacks[1].load().array, other.array)


def test_sagittal_stations_of_one_series_are_separated(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    other = series(origin_lps=(-10.0, -30.0, 240.0), array=made.array + 7)
    other.set(SeriesInstanceUID=made.datasets[0].SeriesInstanceUID).write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert sorted(s.geometry.origin_lps[2] for s in stacks) == [40.0, 240.0]


def test_color_images_are_excluded(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    color = series(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    color.set(BitsAllocated=8, BitsStored=8, HighBit=7)
    color.set(SeriesInstanceUID=made.datasets[0].SeriesInstanceUID)
    color.set(PixelData=bytes(24 * 16 * 3)).write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert [codes(stack) for stack in stacks] == [set(), {"color_image"}]
    np.testing.assert_array_equal(stacks[0].load().array, made.array)


def test_secondary_captures_are_excluded(series, settings, tmp_path):
    series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7").write(tmp_path)
    assert codes(only(load_study(tmp_path, settings))) == {"secondary_capture"}


def test_monochrome1_is_inverted(series, settings, tmp_path):
    made = series(PhotometricInterpretation="MONOCHROME1").write(tmp_path)
    volume = only(load_study(tmp_path, settings)).load()
    np.testing.assert_allclose(volume.array, made.array.max() - made.array.astype(float))


def test_high_padding_becomes_the_lowest_signal(series, settings, tmp_path):
    array = np.random.default_rng(0).integers(5, 1000, (8, 24, 16)).astype(np.uint16)
    array[:, :4] = 4095
    series(array=array, PixelPaddingValue=4095).write(tmp_path)
    volume = only(load_study(tmp_path, settings)).load()
    assert (volume.array[:, :4] == array[:, 4:].min()).all()
    np.testing.assert_array_equal(volume.array[:, 4:], array[:, 4:])


def test_rescale_differs_from_slice_to_slice(series, settings, tmp_path):
    made = series()
    for n, dataset in enumerate(made.datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0 + n, float(-n)
    made.write(tmp_path)
    volume = only(load_study(tmp_path, settings)).load()
    n = np.arange(8.0)[:, None, None]
    np.testing.assert_allclose(volume.array, made.array * (1 + n) - n)
    assert volume.array.dtype == np.float32


def test_signed_pixels_keep_their_sign(series, settings, tmp_path):
    array = np.random.default_rng(0).integers(-900, 900, (8, 24, 16)).astype(np.int16)
    series(array=array).write(tmp_path)
    np.testing.assert_array_equal(only(load_study(tmp_path, settings)).load().array, array)


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2",  # implicit little endian
        "1.2.840.10008.1.2.1.99",  # deflated
        "1.2.840.10008.1.2.2",  # explicit big endian
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    ],
)
def test_transfer_syntaxes(series, settings, tmp_path, syntax):
    from pydicom.uid import UID

    made = series(shape=(8, 64, 72))
    if syntax.endswith(".90"):
        as_jpeg_2000(made)
    elif UID(syntax).is_encapsulated:
        for dataset in made.datasets:
            dataset.compress(syntax, generate_instance_uid=False)
    else:
        for n, dataset in enumerate(made.datasets):
            dataset.file_meta.TransferSyntaxUID = UID(syntax)
            if syntax.endswith("1.2.2"):
                dataset.PixelData = made.array[n].astype(">u2").tobytes()
                dataset["PixelData"].VR = "OW"
    for n, dataset in enumerate(made.datasets):
        path = tmp_path / str(n)
        dataset.save_as(path, enforce_file_format=True)
    stack = only(load_study(tmp_path, settings))
    assert codes(stack) == set()
    np.testing.assert_array_equal(stack.load().array, made.array)


def test_cut_compressed_data_count_as_missing(series, settings, tmp_path):
    made = series(shape=(8, 64, 72))
    as_jpeg_2000(made).write(tmp_path)
    made.paths[4].write_bytes(made.paths[4].read_bytes()[:-100])
    assert codes(only(load_study(tmp_path, settings))) == {"truncated_slices", "missing_slices"}


def test_broken_pixels_name_the_file_and_what_to_do(series, settings, tmp_path):
    made = series(shape=(8, 64, 72))
    as_jpeg_2000(made).write(tmp_path)
    raw = bytearray(made.paths[4].read_bytes())
    start = raw.index(b"\xff\x4f\xff\x51")
    raw[start : start + 60] = bytes(60)
    made.paths[4].write_bytes(raw)
    with pytest.raises(InputError, match=r"cannot decode .*im0004.*JPEG 2000.*export"):
        only(load_study(tmp_path, settings)).load()


def test_files_without_preamble_are_read(series, settings, tmp_path):
    made = series()
    for n, dataset in enumerate(made.datasets):
        dataset.save_as(tmp_path / str(n), implicit_vr=False, little_endian=True)
        content = (tmp_path / str(n)).read_bytes()
        if content[128:132] == b"DICM":
            (tmp_path / str(n)).write_bytes(content[132:])
    np.testing.assert_array_equal(only(load_study(tmp_path, settings)).load().array, made.array)


def test_other_files_are_listed_never_fatal(series, settings, tmp_path):
    made = series().write(tmp_path / "deep" / "er")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "report.dcm").write_bytes(b"%PDF-1.4 ...")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "junk").write_bytes(os.urandom(2000))
    (tmp_path / "halfhead").write_bytes(made.paths[0].read_bytes()[:200])
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe")
    study = load_study(tmp_path, settings)
    assert only(study).n_instances == 8
    reasons = {item.path.name: item.reason for item in study.skipped}
    assert reasons["empty.dcm"] == "an empty file"
    assert reasons["report.dcm"] == "a PDF document"
    assert {"pipe", "dangling", "junk", ".DS_Store", "halfhead"} <= reasons.keys()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_closed_folders_are_listed(series, settings, tmp_path):
    series().write(tmp_path / "open")
    (tmp_path / "closed").mkdir(mode=0)
    assert [i.path.name for i in load_study(tmp_path, settings).skipped] == ["closed"]


def test_documents_and_indices_are_not_images(series, settings, tmp_path):
    series().write(tmp_path)
    report = series(shape=(1, 4, 4), Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    report.set(Rows=None, Columns=None, PixelData=None).write(tmp_path, prefix="sr")
    index = series(shape=(1, 4, 4), SOPClassUID="1.2.840.10008.1.3.10")
    index.write(tmp_path, prefix="DICOMDIR")
    study = load_study(tmp_path, settings)
    assert only(study).n_instances == 8
    assert sorted(item.reason for item in study.skipped) == [
        "a DICOM object without images (SR)",
        "a DICOMDIR (index of a disc), not an image",
    ]


def test_several_studies_must_be_chosen_from(series, settings, tmp_path):
    series().write(tmp_path / "a")
    made = series(study_uid="1.2.826.0.1.77").write(tmp_path / "b")
    with pytest.raises(InputError, match=r"2 studies.*1\.2\.826\.0\.1\.1, 1\.2\.826\.0\.1\.77"):
        load_study(tmp_path, settings)
    study = load_study(tmp_path, settings, study_uid="1.2.826.0.1.77")
    assert study.info.study_instance_uid == "1.2.826.0.1.77"
    np.testing.assert_array_equal(only(study).load().array, made.array)
    assert len(study.skipped) == 8
    with pytest.raises(InputError, match="no study 9"):
        load_study(tmp_path, settings, study_uid="9.9")


def test_two_patients_under_one_study_are_refused_without_naming_them(series, settings, tmp_path):
    series().write(tmp_path / "a")
    series(PatientID="Doe^Jane").write(tmp_path / "b")
    with pytest.raises(InputError, match="2 patient IDs") as caught:
        load_study(tmp_path, settings)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "no files"),
        (lambda folder: (folder / "a.pdf").write_bytes(b"%PDF-1.4"), "1 x a PDF document"),
        (lambda folder: (folder / "a.txt").write_text("hello"), "1 x not DICOM"),
    ],
)
def test_unusable_input_is_reported_in_one_sentence(settings, tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(InputError, match=words):
        load_study(tmp_path, settings)
    with pytest.raises(InputError, match="does not exist"):
        load_study(tmp_path / "nowhere", settings)


def test_undecodable_text_costs_nothing(series, settings, tmp_path):
    made = series(SpecificCharacterSet="ISO_IR 999", SeriesDescription="t2 r\xfccken")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.write(tmp_path)
    np.testing.assert_array_equal(only(load_study(tmp_path, settings)).load().array, made.array)


def test_one_file_of_a_series_is_read_alone(series, settings, tmp_path):
    made = series().write(tmp_path)
    assert codes(only(load_study(made.paths[0], settings))) == {"too_few_slices"}


# --- archives ---------------------------------------------------------------------------------


@pytest.fixture
def zipped(series, tmp_path) -> Path:
    made = series().write(tmp_path / "in" / "sub")
    with zipfile.ZipFile(tmp_path / "study.bin", "w") as archive:
        for path in made.paths:
            archive.write(path, f"../../{path.name}")
    return tmp_path / "study.bin"


def test_zip_is_read_and_nothing_escapes(zipped, settings, tmp_path):
    before = set(tmp_path.rglob("*"))
    stack = only(load_study(zipped, settings))
    assert stack.load().array.shape == (8, 24, 16)
    folder = stack.files[0].parents[1]
    assert set(tmp_path.rglob("*")) == before
    assert folder.is_dir()
    del stack
    import gc

    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_is_read(series, settings, tmp_path, mode):
    made = series().write(tmp_path / "in")
    with tarfile.open(tmp_path / "study.tar", mode) as archive:
        for path in made.paths:
            archive.add(path, path.name)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    study = load_study(tmp_path / "study.tar", settings)
    np.testing.assert_array_equal(only(study).load().array, made.array)
    assert not study.skipped


def test_archive_bombs_are_refused(zipped, settings, tmp_path):
    few = settings.model_copy(update={"max_archive_files": 3})
    with pytest.raises(InputError, match="more than 3 files"):
        load_study(zipped, few)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    small = settings.model_copy(update={"max_archive_gib": 0.01})
    with pytest.raises(InputError, match="max_archive_gib"):
        load_study(bomb, small)


def test_broken_archive_is_one_clear_sentence(zipped, settings):
    zipped.write_bytes(zipped.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"study.bin: it is corrupt or truncated; copy .*again$"):
        load_study(zipped, settings)


def archived(made, path: Path, kind: str) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in made.paths:
                archive.write(file, file.name)
    else:
        with tarfile.open(path, kind) as archive:
            for file in made.paths:
                archive.add(file, file.name)
    return path


def test_an_encrypted_archive_says_so(series, settings, tmp_path):
    path = archived(series().write(tmp_path / "in"), tmp_path / "study.zip", "zip")
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at] |= 1  # the flag of encryption
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        load_study(path, settings)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_damaged_archives_are_refused_or_whole(series, settings, tmp_path, kind):
    made = series(array=np.random.default_rng(0).integers(0, 4095, (8, 24, 16)).astype("u2"))
    path = archived(made.write(tmp_path / "in"), tmp_path / "study", kind)
    whole = path.read_bytes()
    refused = 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        content = bytearray(whole)
        if seed % 3:
            for place in chance.integers(0, len(content), 1 + seed % 5):
                content[place] ^= 1 << int(chance.integers(8))
        else:
            del content[int(chance.integers(1, len(content))) :]
        path.write_bytes(content)
        try:
            study = load_study(path, settings)
        except InputError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            continue
        # All images are read in spite of damage, or a note states what is missing.
        whole_study = sum(stack.n_instances for stack in study.stacks) == 8
        assert whole_study or study.skipped or any(map(codes, study.stacks))
    assert refused > 10


@pytest.fixture
def disc(series, tmp_path) -> Path:
    from pydicom.fileset import FileSet

    files = FileSet()
    described = {"StudyDate": "20260101", "StudyTime": "1200", "StudyID": "1", "PatientName": "P"}
    for path in series(**described).write(tmp_path / "in").paths:
        files.add(path)
    files.write(tmp_path / "disc")
    series().write(tmp_path / "disc", prefix="beside")
    return tmp_path / "disc" / "DICOMDIR"


def test_a_dicomdir_is_read_as_the_files_it_lists(disc, settings, tmp_path):
    study = load_study(disc, settings)
    assert only(study).n_instances == 8
    assert not study.skipped
    only(study).files[2].unlink()
    study = load_study(disc, settings)
    assert [item.reason for item in study.skipped] == ["listed in the DICOMDIR, but missing"]
    assert codes(only(study)) == {"missing_slices"}


def test_a_dicomdir_without_its_disc_says_what_to_do(disc, settings, tmp_path):
    alone = tmp_path / "DICOMDIR"
    alone.write_bytes(disc.read_bytes())
    with pytest.raises(InputError, match=r"none of the 8 files .* copy the whole disc"):
        load_study(alone, settings)
    alone.write_bytes(disc.read_bytes()[:700])
    with pytest.raises(InputError, match=r"cannot read DICOMDIR|none of the"):
        load_study(alone, settings)


def test_dicomdir_entries_outside_its_folder_are_ignored(disc, tmp_path):
    import pydicom

    from leakloc.loaders.dicomdir import listed_files

    dataset = pydicom.dcmread(disc)
    for record, parts in zip(
        [r for r in dataset.DirectoryRecordSequence if "ReferencedFileID" in r],
        (["..", "in", "a"], "/etc/passwd", "a/../../b", ["C:\\x"], ["."]),
        strict=False,
    ):
        record.ReferencedFileID = parts
    dataset.save_as(tmp_path / "DICOMDIR")
    found = listed_files(tmp_path / "DICOMDIR")
    assert found
    assert all(tmp_path in path.resolve().parents for path in found)


# --- volumes without headers ---------------------------------------------------------------------


def made_volume() -> Volume:
    affine = np.array(
        [[0.0, 0.1, -1.2, 5.0], [0.6, 0.0, 0.0, -7.0], [0.0, -0.79, -0.15, 3.0], [0, 0, 0, 1.0]]
    )
    affine[:3, 2] = -1.3 * np.cross(affine[:3, 0] / 0.6, affine[:3, 1] / np.hypot(0.1, 0.79))
    rng = np.random.default_rng(0)
    return Volume(rng.integers(0, 900, (9, 11, 13)).astype(np.int16), Geometry((9, 11, 13), affine))


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.nrrd", "v.mha", "v.mhd"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_volume_files_keep_every_voxels_place(settings, tmp_path, name, as_folder):
    import nibabel as nib
    import SimpleITK as sitk

    volume = made_volume()
    path = tmp_path / name
    if "nii" in name:
        nib.save(volume.to_nibabel(), path)
    else:
        sitk.WriteImage(volume.to_sitk(), path)
    read = only(load_study(tmp_path if as_folder else path, settings)).load()
    np.testing.assert_array_equal(read.array, volume.array)
    np.testing.assert_allclose(read.geometry.affine_lps, volume.geometry.affine_lps, atol=1e-5)


def test_nifti_is_recognized_by_content(settings, tmp_path):
    import nibabel as nib

    volume = made_volume()
    nib.save(volume.to_nibabel(), tmp_path / "v.nii.gz")
    (tmp_path / "v.nii.gz").rename(tmp_path / "v.dcm")
    np.testing.assert_array_equal(only(load_study(tmp_path, settings)).load().array, volume.array)


def test_volumes_next_to_dicom_are_ignored(series, settings, tmp_path):
    import nibabel as nib

    series().write(tmp_path)
    nib.save(made_volume().to_nibabel(), tmp_path / "v.nii")
    study = load_study(tmp_path, settings)
    assert only(study).modality == "MR"
    assert study.skipped[0].reason == "a nifti volume next to DICOM images"


def test_nifti_without_orientation_or_with_time_is_refused(settings, tmp_path):
    import nibabel as nib

    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(InputError, match="qform"):
        load_study(tmp_path / "a.nii", settings)
    image = nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), np.eye(4))
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(InputError, match="three axes"):
        load_study(tmp_path / "b.nii", settings)


def test_a_sidecar_describes_the_sequence(settings, tmp_path):
    import json

    import nibabel as nib

    nib.save(made_volume().to_nibabel(), tmp_path / "5_myelo.nii.gz")
    content = {"EchoTime": 0.65, "RepetitionTime": 5, "ImageType": ["ORIGINAL"], "Other": 1}
    (tmp_path / "5_myelo.json").write_text(json.dumps(content))
    study = load_study(tmp_path, settings)
    assert only(study).parameters == {
        "EchoTime": 650.0,
        "RepetitionTime": 5000.0,
        "ImageType": ["ORIGINAL"],
    }
    (tmp_path / "5_myelo.json").write_text("no json")
    assert only(load_study(tmp_path, settings)).parameters == {}


def test_nan_becomes_zero(settings, tmp_path):
    import nibabel as nib

    values = np.ones((4, 5, 6), np.float32)
    values[0] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    array = only(load_study(tmp_path / "a.nii", settings)).load().array
    assert (array[:, :, 0] == 0).all()


def test_progress_is_reported(series, settings, tmp_path):
    series().write(tmp_path)
    reported: list[tuple[str, float]] = []
    report: Callable[[str, float], None] = lambda what, fraction: reported.append((what, fraction))  # noqa: E731
    load_study(tmp_path, LoaderSettings(), progress=report)
    assert reported == [("reading headers", 0.0)]
