"""The 43 defects of studies, one by one: the notes, and the volume.

Numbers 1 to 25 were measured with other readers, most of which returned wrong volumes without
an exception; 26 to 43 come from their users' reports.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import generate_uid

from leakloc.core.errors import InputError
from leakloc.loaders import load_study, series_table

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass
class Expected:
    """What must come of a study: note codes and content of its stacks, or words of an error.

    `volumes` holds one item per stack in order: an array that must lie on `affine`, "any" for
    a volume whose content is checked elsewhere, None for a stack that is no volume.
    """

    codes: list[set[str]] = field(default_factory=lambda: [set()])
    volumes: list[Any] = field(default_factory=lambda: ["any"])
    affine: np.ndarray | None = None
    skipped: int = 0
    error: str | None = None


WAYS: dict[int, Callable[..., Expected]] = {}


def way(number: int) -> Callable[[Callable[..., Expected]], Callable[..., Expected]]:
    def keep(function: Callable[..., Expected]) -> Callable[..., Expected]:
        WAYS[number] = function
        return function

    return keep


def given(made, *codes: str, array=None, skipped: int = 0) -> Expected:
    """One stack on the grid as it was made."""
    array = made.array if array is None else array
    return Expected([set(codes)], [array], made.affine_lps, skipped)


def halves(array: np.ndarray, missing: int) -> np.ndarray:
    filled = array.astype(float)
    filled[missing] = (filled[missing - 1] + filled[missing + 1]) / 2
    return filled


def another(series, made, **options):
    """Another part of the same series."""
    other = series(**options)
    return other.set(SeriesInstanceUID=made.datasets[0].SeriesInstanceUID)


@way(1)
def missing_inner_slice(series, folder):
    made = series()
    del made.datasets[4]
    made.write(folder)
    return given(made, "missing_slices", array=halves(made.array, 4))


@way(2)
def missing_end_slices(series, folder):
    made = series(ImagesInAcquisition=8)
    del made.datasets[6:]
    made.write(folder)
    return given(made, "end_slices_may_be_missing", array=made.array[:6])


@way(3)
def identical_copy(series, folder):
    made = series().write(folder)
    (folder / "copy").write_bytes(made.paths[2].read_bytes())
    return given(made, "duplicate_instances")


@way(4)
def other_picture_at_one_position(series, folder):
    made = series().write(folder)
    extra = made.datasets[2]
    extra.SOPInstanceUID, extra.PixelData = generate_uid(), bytes(len(extra.PixelData))
    made.datasets = [extra]
    made.write(folder, prefix="extra")
    return Expected([{"ambiguous_positions"}], [None])


@way(5)
def uneven_spacing(series, folder):
    places = np.array([0.0, 1.0, 2.0, 3.3, 4.0, 5.0, 6.2, 7.0])
    array = np.broadcast_to((100 * places)[:, None, None], (8, 24, 16)).astype(np.uint16)
    made = series(array=array.copy(), spacing_ijk_mm=(0.7, 0.9, 1.0))
    for dataset, place in zip(made.datasets, places, strict=True):
        dataset.ImagePositionPatient = list(made.affine_lps[:3, 3] + place * made.affine_lps[:3, 2])
    made.write(folder)
    ramp = np.broadcast_to(100.0 * np.arange(8)[:, None, None], (8, 24, 16))
    return given(made, "uneven_spacing", array=ramp)


@way(6)
def localizer_in_the_series(series, folder):
    made = series().write(folder)
    another(series, made, shape=(1, 24, 16), plane=AXIAL).write(folder, prefix="loc")
    return Expected([set(), {"too_few_slices"}], [made.array, None], made.affine_lps)


@way(7)
def sheared_stack(series, folder):
    made = series(shape=(8, 40, 30), spacing_ijk_mm=(1.0, 1.0, 1.0), plane=AXIAL)
    array = np.zeros((8, 40, 30), np.uint16)
    for n, dataset in enumerate(made.datasets):
        array[n, 20, 12] = 1000
        drawn = np.zeros((40, 30), np.uint16)
        drawn[20 - n, 12] = 1000  # one place in the patient, on slices that drift by a row
        dataset.PixelData = drawn.tobytes()
        dataset.ImagePositionPatient = list(made.affine_lps[:3, 3] + np.array([0, n, n]))
    made.write(folder)
    return given(made, "sheared_stack", array=array)


@way(8)
def no_position(series, folder):
    series(ImagePositionPatient=None, ImageOrientationPatient=None).write(folder)
    return Expected([{"no_position"}], [None])


@way(9)
def no_suffix_and_wrong_suffix(series, folder):
    made = series().write(folder)
    made.paths[0].rename(folder / "picture.jpg")
    made.paths[1].rename(folder / "notes.txt")
    return given(made)


@way(10)
def shuffled_instance_numbers(series, folder):
    made = series()
    for dataset, number in zip(made.datasets, [5, 1, 8, 3, 2, 7, 4, 6], strict=True):
        dataset.InstanceNumber = number
    made.write(folder)
    return given(made)


@way(11)
def truncated_file(series, folder):
    made = series().write(folder)
    made.paths[4].write_bytes(made.paths[4].read_bytes()[:-40])
    return given(made, "truncated_slices", "missing_slices", array=halves(made.array, 4))


@way(12)
def other_files_beside(series, folder):
    made = series().write(folder)
    (folder / "empty").touch()
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "readme.txt").write_text("read me")
    return given(made, skipped=3)


@way(13)
def two_echoes(series, folder):
    made = series(EchoTime=30.0).write(folder)
    late = another(series, made, array=made.array + 7, EchoTime=90.0).write(folder, prefix="late")
    return Expected([set(), set()], [made.array, late.array], made.affine_lps)


@way(14)
def two_frames_of_reference(series, folder):
    made = series().write(folder)
    other = another(series, made, frame_uid="1.2.826.0.1.9", array=made.array + 7)
    other.write(folder, prefix="other")
    return Expected([set(), set()], [made.array, other.array], made.affine_lps)


@way(15)
def rescale_per_slice(series, folder):
    made = series()
    for n, dataset in enumerate(made.datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1.0 + n, float(-n)
    made.write(folder)
    n = np.arange(8.0)[:, None, None]
    return given(made, array=made.array * (1 + n) - n)


@way(16)
def mixed_matrix(series, folder):
    made = series().write(folder)
    other = another(series, made, shape=(8, 12, 16)).write(folder, prefix="other")
    return Expected([set(), set()], [made.array, other.array])


@way(17)
def big_endian(series, folder):
    made = series()
    for n, dataset in enumerate(made.datasets):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
        dataset.PixelData = made.array[n].astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(folder / str(n), enforce_file_format=True)
    return given(made)


@way(18)
def no_preamble(series, folder):
    made = series()
    for n, dataset in enumerate(made.datasets):
        del dataset.file_meta
        dataset.save_as(folder / str(n), implicit_vr=True, little_endian=True)
        content = (folder / str(n)).read_bytes()
        (folder / str(n)).write_bytes(content[132:] if content[128:132] == b"DICM" else content)
    return given(made)


@way(19)
def orientation_jitter(series, folder):
    made = series()
    jitter = np.random.default_rng(0).uniform(-1e-5, 1e-5, (8, 6))
    for dataset, noise in zip(made.datasets, jitter, strict=True):
        dataset.ImageOrientationPatient = list(np.array(dataset.ImageOrientationPatient) + noise)
    made.write(folder)
    return given(made)


@way(20)
def color_and_derived_mixed_in(series, folder):
    made = series().write(folder)
    color = another(series, made, shape=(1, 24, 16))
    color.set(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    color.set(BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(24 * 16 * 3))
    color.write(folder, prefix="rgb")
    derived = another(series, made, array=made.array + 9, ImageType=["DERIVED", "SECONDARY", "MIP"])
    derived.write(folder, prefix="mip")
    return Expected([set(), set(), {"color_image"}], [made.array, derived.array, None])


@way(21)
def signed_pixels(series, folder):
    array = np.random.default_rng(0).integers(-900, 900, (8, 24, 16)).astype(np.int16)
    return given(series(array=array).write(folder))


@way(22)
def high_padding(series, folder):
    array = np.random.default_rng(0).integers(5, 1000, (8, 24, 16)).astype(np.uint16)
    array[:, :4] = 4095
    made = series(array=array, PixelPaddingValue=4095).write(folder)
    return given(made, array=np.where(array == 4095, array[:, 4:].min(), array))


@way(23)
def single_slice(series, folder):
    series(shape=(1, 24, 16)).write(folder)
    return Expected([{"too_few_slices"}], [None])


@way(24)
def nested_folders_and_link_loop(series, folder):
    deep = folder / "a" / "b" / "c"
    made = series().write(deep)
    (deep / "again").symlink_to(folder, target_is_directory=True)
    return given(made, skipped=1)


@way(25)
def bits_above_those_stored(series, folder):
    made = series(BitsStored=12, HighBit=11)
    for n, dataset in enumerate(made.datasets):
        dataset.PixelData = (made.array[n] | 0xF000).astype(np.uint16).tobytes()
    made.write(folder)
    return given(made)


@way(26)
def enhanced_multi_frame(series, enhanced, folder):
    made = series()
    enhanced(folder / "x", made, [3, 1, 0, 2, 7, 6, 5, 4])
    return given(made)


@way(27)
def siemens_mosaic(series, folder):
    series(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]).write(folder)
    return Expected([{"mosaic"}], [None])


@way(28)
def philips_private_scale(series, folder):
    made = series(Manufacturer="Philips Medical Systems", RescaleSlope=2.0, RescaleIntercept=0.0)
    for n, dataset in enumerate(made.datasets):
        scale = 0.5 if n < 4 else 0.25  # the receiver's gain changed during acquisition
        dataset.PixelData = (made.array[n] * (1 if n < 4 else 2)).astype(np.uint16).tobytes()
        dataset.add(DataElement(0x20050010, "LO", "Philips MR Imaging DD 001"))
        dataset.add(DataElement(0x2005100E, "FL", scale * (1 if n < 4 else 4)))
    made.write(folder)
    signal = np.concatenate([made.array[:4] / 0.5, made.array[4:] * 2 / 1.0])
    return given(made, "private_scale", array=signal)


@way(29)
def wrong_spacing_tag(series, folder):
    return given(series(SpacingBetweenSlices=-7.5).write(folder))


@way(30)
def thickness_is_not_spacing(series, folder):
    return given(series(SliceThickness=0.4).write(folder))


@way(31)
def projections_as_a_series(series, folder):
    made = series(ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE"]).write(folder)
    return given(made)


@way(32)
def repetitions(series, folder):
    made = series(TemporalPositionIdentifier=1).write(folder)
    later = another(series, made, array=made.array + 3, TemporalPositionIdentifier=2)
    later.write(folder, prefix="later")
    return Expected([{"repetitions"}] * 2, [made.array, later.array], made.affine_lps)


@way(33)
def monochrome1(series, folder):
    made = series(PhotometricInterpretation="MONOCHROME1").write(folder)
    return given(made, array=made.array.max() - made.array.astype(float))


@way(34)
def float_pixels(series, folder):
    made = series(BitsAllocated=32, BitsStored=None, HighBit=None, PixelRepresentation=None)
    for n, dataset in enumerate(made.datasets):
        del dataset.PixelData
        dataset.FloatPixelData = (made.array[n] / 7).astype(np.float32).tobytes()
    made.write(folder)
    return given(made, array=(made.array / 7).astype(np.float32))


@way(35)
def feet_first_and_decubitus(series, folder):
    return given(series(PatientPosition="FFDL").write(folder))


@way(36)
def archive_with_index(series, folder):
    made = series().write(folder.parent / "apart")
    index = series(shape=(1, 4, 4), SOPClassUID="1.2.840.10008.1.3.10")
    index.write(folder.parent / "apart", prefix="DICOMDIR")
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for path in (folder.parent / "apart").iterdir():
            archive.write(path, f"../../{path.name}")
    (folder / "export.zip").rename(folder.parent / "export.zip")
    folder.rmdir()
    (folder.parent / "export.zip").rename(folder)
    return given(made, skipped=1)


@way(37)
def wrong_character_set(series, folder):
    made = series(SpecificCharacterSet="ISO_IR 999", SeriesDescription="t2 r\xfccken")
    made.write(folder)
    return given(made)


@way(38)
def burned_in_text(series, folder):
    return given(series(BurnedInAnnotation="YES", PatientID="Doe^Jane").write(folder))


@way(39)
def several_studies(series, folder):
    series().write(folder / "one")
    series(study_uid="1.2.826.0.1.77").write(folder / "two")
    return Expected(error="images of 2 studies")


@way(40)
def many_files_beside(series, folder):
    made = series().write(folder / "study")
    (folder / "other").mkdir()
    for n in range(2000):
        (folder / "other" / f"{n}.xml").write_bytes(b"<?xml version='1.0'?>")
    return given(made, skipped=2000)


@way(41)
def non_compliant_object(series, folder):
    made = series(
        ImageType=None, SeriesNumber=None, InstanceNumber="", PatientID=None, HighBit=None,
        SliceThickness="", SpacingBetweenSlices=None,
    )  # fmt: skip
    for dataset in made.datasets:
        dataset.add(DataElement("EchoTime", "LO", "unknown"))
    return given(made.write(folder))


@way(42)
def rounded_positions(series, folder):
    made = series(spacing_ijk_mm=(0.7, 0.9, 0.8333))
    for dataset in made.datasets:
        dataset.ImagePositionPatient = [round(x, 2) for x in dataset.ImagePositionPatient]
    return given(made.write(folder))


@way(43)
def false_duplicates(series, folder):
    """Two echoes without an echo time, distinguished by acquisition: nothing is dropped."""
    made = series(AcquisitionNumber=1).write(folder)
    other = another(series, made, array=made.array + 5, AcquisitionNumber=2)
    other.write(folder, prefix="other")
    return Expected([{"repetitions"}] * 2, [made.array, other.array], made.affine_lps)


def test_all_ways_are_here():
    assert sorted(WAYS) == list(range(1, 44))


@pytest.mark.parametrize(
    "number", sorted(WAYS), ids=[f"{n}-{WAYS[n].__name__}" for n in sorted(WAYS)]
)
def test_way(number, series, enhanced, settings, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    makers = (series, enhanced) if number == 26 else (series,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is written here on purpose
        expected = WAYS[number](*makers, folder)
    if expected.error is not None:
        with pytest.raises(InputError, match=expected.error):
            load_study(folder, settings)
        return
    study = load_study(folder, settings)
    assert [{note.code for note in stack.notes} for stack in study.stacks] == expected.codes
    assert len(study.skipped) == expected.skipped
    for stack, content in zip(study.stacks, expected.volumes, strict=True):
        if content is None:
            assert stack.geometry is None
            with pytest.raises(InputError):
                stack.load()
            continue
        volume = stack.load()
        np.testing.assert_allclose(volume.array, content, atol=0.5 if number in (1, 11) else 1e-4)
        if expected.affine is not None:
            np.testing.assert_allclose(
                volume.geometry.affine_lps, expected.affine, atol=0.01 if number == 42 else 1e-3
            )
    rows, _ = series_table(study, settings)
    assert len(rows) == len(study.stacks)


def test_projections_are_never_used_and_burned_in_text_is_said(series, settings, tmp_path):
    for number, folder in ((31, tmp_path / "mip"), (38, tmp_path / "text")):
        folder.mkdir()
        WAYS[number](series, folder)
    rows, _ = series_table(load_study(tmp_path / "mip", settings), settings)
    assert rows[0]["role"] == "projection"
    study = load_study(tmp_path / "text", settings)
    assert [note.code for note in study.notes] == ["burned_in_annotation"]
    assert "Doe" not in repr([*study.notes, *study.skipped])


def test_a_disc_image_is_named(series, settings, tmp_path):
    image = bytearray(40_000)
    image[32_769:32_774] = b"CD001"
    (tmp_path / "cd.iso").write_bytes(image)
    with pytest.raises(InputError, match="disc image"):
        load_study(tmp_path / "cd.iso", settings)


@pytest.mark.parametrize("number", [9, 10, 17, 19, 21, 26, 29, 30, 35, 42])
def test_highdicom_agrees_where_it_reads(number, series, enhanced, settings, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    folder = tmp_path / "study"
    folder.mkdir()
    WAYS[number](*((series, enhanced) if number == 26 else (series,)), folder)
    ours = load_study(folder, settings).stacks[0].load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        for dataset in datasets:  # highdicom believes the tag that way 29 is about
            dataset.pop("SpacingBetweenSlices", None)
        if number == 26:
            theirs = highdicom.image.Image.from_dataset(datasets[0]).get_volume()
        else:
            theirs = highdicom.get_volume_from_series(datasets, orientation_tol=1e-3)
    points = np.array([[0, 0, 0], [2, 5, 3], [7, 23, 15]])
    for place in points:
        at = theirs.map_indices_to_reference(place[None])[0]
        k, j, i = np.round(ours.geometry.kji_from_lps(at)).astype(int)
        np.testing.assert_allclose(ours.geometry.lps_from_kji((k, j, i)), at, atol=0.02)
        assert ours.array[k, j, i] == pytest.approx(theirs.array[tuple(place)])
