"""Attributes that vary within a series, and counts of images that are not used."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from leakloc.core.errors import InputError
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import load_study, triage
from leakloc.loaders.gate import looks_like_phase
from leakloc.loaders.roles import roles

SHAPE = (20, 48, 40)
HEAVY = {
    "SeriesDescription": "3D myelo sag",
    "EchoTime": 693.0,
    "RepetitionTime": 4700.0,
    "ScanningSequence": "SE",
}


@pytest.fixture
def myelogram(series, tube):
    def make(**tags):
        return series(
            shape=SHAPE, array=tube(SHAPE, 0.04), spacing_ijk_mm=(1.2, 1.2, 1.25), **HEAVY
        ).set(**tags)

    return make


def codes(notes) -> set[str]:
    return {note.code for note in notes}


def rotated(cosines, angle: float) -> list[float]:
    row, column = np.reshape([float(x) for x in cosines], (2, 3))
    turned = row * np.cos(angle) + column * np.sin(angle)
    return [*turned, *(column * np.cos(angle) - row * np.sin(angle))]


def half_rotated(n, dataset):
    if n >= 10:
        dataset.ImageOrientationPatient = rotated(dataset.ImageOrientationPatient, 0.0012)


def three_orientations(n, dataset):
    angle = (0.0, 0.0012, -0.0015)[n // 7]
    dataset.ImageOrientationPatient = rotated(dataset.ImageOrientationPatient, angle)


def echo_time(n, dataset):
    dataset.EchoTime = 693.0049 if n % 2 else 693.0051


def timing(n, dataset):
    dataset.RepetitionTime = 4700.0 + 0.03 * (n % 2)
    dataset.FlipAngle = 120.0 + 0.1 * (n % 3)
    dataset.SliceThickness = 1.25 + 1e-4 * (n % 2)


def pixel_spacing(n, dataset):
    dataset.PixelSpacing = [1.20005 if n % 2 else 1.19994] * 2


def rounded_positions(n, dataset):
    dataset.ImagePositionPatient = [round(float(x), 1) for x in dataset.ImagePositionPatient]


def frame_of_reference(n, dataset):
    dataset.FrameOfReferenceUID = generate_uid()


def derived(n, dataset):
    if n % 3 == 0:
        dataset.ImageType = ["DERIVED", "PRIMARY", "M", "ND"]


def same_instance_uid(n, dataset):
    dataset.SOPInstanceUID = "1.2.3.4"


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (half_rotated, {"orientation_varies"}),
        (three_orientations, {"orientation_varies"}),
        (echo_time, set()),
        (timing, set()),
        (pixel_spacing, set()),
        (rounded_positions, set()),
        (frame_of_reference, {"frame_of_reference_varies"}),
        (derived, set()),
        (same_instance_uid, {"instance_uids_not_unique"}),
    ],
)
def test_a_varying_attribute_does_not_split_a_series(myelogram, settings, tmp_path, vary, expected):
    made = myelogram()
    for n, dataset in enumerate(made.datasets):
        vary(n, dataset)
    made.write(tmp_path)
    (stack,) = load_study(tmp_path, settings).stacks
    assert codes(stack.notes) == expected
    np.testing.assert_array_equal(stack.load().array, made.array)
    np.testing.assert_allclose(stack.geometry.spacing_ijk_mm, (1.2, 1.2, 1.25), atol=6e-3)


def test_a_missing_slice_is_interpolated_if_frames_of_reference_vary(myelogram, settings, tmp_path):
    made = myelogram()
    for n, dataset in enumerate(made.datasets):
        frame_of_reference(n, dataset)
    del made.datasets[9]
    made.write(tmp_path)
    (stack,) = load_study(tmp_path, settings).stacks
    assert codes(stack.notes) == {"frame_of_reference_varies", "missing_slices"}
    assert stack.geometry.shape == SHAPE


def twins(made, folder, **tags):
    """Write a second version of a series, with other pixels, into the same series."""
    made.write(folder / "a")
    for dataset in made.datasets:
        dataset.PixelData = (dataset.pixel_array // 2).tobytes()
        dataset.InstanceNumber = int(dataset.InstanceNumber) + len(made.datasets)
    made.set(**tags)
    for dataset in made.datasets:
        if "SOPInstanceUID" not in tags:
            dataset.SOPInstanceUID = generate_uid()
    made.write(folder / "b")


@pytest.mark.parametrize(
    ("first", "second", "tags"),
    [
        ("ND", "DIS2D", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]}),
        ("DIS2D", "ND", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}),
    ],
)
def test_the_corrected_version_of_a_series_is_used(
    myelogram, settings, tmp_path, first, second, tags
):
    made = myelogram(ImageType=["ORIGINAL", "PRIMARY", "M", first])
    twins(made, tmp_path, **tags)
    result = triage(load_study(tmp_path, settings), settings)
    used = next(item for item in result.stacks if "fluid" in item.used_for)
    assert "DIS2D" in used.stack.parameters["ImageType"]
    partly = next(note for note in result.notes if note.code == "series_partly_used")
    assert "20 of 40 images of series 1" in partly.message
    assert "series_incomplete" not in codes(result.notes)


def test_echoes_stay_separate(myelogram, settings, tmp_path):
    twins(myelogram(), tmp_path, EchoTime=120.0)
    stacks = load_study(tmp_path, settings).stacks
    assert [stack.parameters["EchoTime"] for stack in stacks] == [693.0, 120.0]
    assert [stack.geometry.shape for stack in stacks] == [SHAPE, SHAPE]


def test_repetitions_are_separated_by_number_even_with_the_same_uids(myelogram, settings, tmp_path):
    made = myelogram()
    array = made.array.copy()
    made.write(tmp_path / "a")
    for dataset in made.datasets:
        dataset.PixelData = (dataset.pixel_array // 2).tobytes()
        dataset.InstanceNumber = int(dataset.InstanceNumber) + 20
    made.write(tmp_path / "b")
    stacks = load_study(tmp_path, settings).stacks
    assert [codes(stack.notes) for stack in stacks] == [
        {"instance_uids_not_unique", "repetitions"}
    ] * 2
    np.testing.assert_array_equal(stacks[0].load().array, array)
    np.testing.assert_array_equal(stacks[1].load().array, array // 2)


@pytest.mark.parametrize(("number", "code"), [(1, "series_partly_used"), (6, "series_incomplete")])
def test_slices_that_are_not_used_are_counted(myelogram, settings, tmp_path, number, code):
    made = myelogram()
    for dataset in made.datasets[-number:]:
        cosines = rotated(dataset.ImageOrientationPatient, 0.03)
        dataset.ImageOrientationPatient = cosines
    made.write(tmp_path)
    result = triage(load_study(tmp_path, settings), settings)
    assert result.notes[0].code == code
    assert f"{number} of 20" in result.notes[0].message
    assert result.notes[0].definition.is_incomplete == (code == "series_incomplete")


def test_truncated_slices_are_counted(myelogram, settings, tmp_path):
    made = myelogram().write(tmp_path)
    for path in made.paths[:4]:
        path.write_bytes(path.read_bytes()[:-500])
    result = triage(load_study(tmp_path, settings), settings)
    assert result.notes[0].code == "series_incomplete"
    assert "4 of 20 slices of series 1 were not used (truncated)" in result.notes[0].message


def test_one_truncated_slice_is_counted_once(myelogram, settings, tmp_path):
    made = myelogram().write(tmp_path)
    made.paths[5].write_bytes(made.paths[5].read_bytes()[:-500])
    result = triage(load_study(tmp_path, settings), settings)
    found = [note.code for note in result.notes]
    assert found.count("truncated_slices") == 1
    assert not {"series_partly_used", "series_incomplete"} & set(found)


def with_commas(dataset: pydicom.Dataset) -> None:
    """Write all decimal strings with commas."""
    for keyword in ("PixelSpacing", "SliceThickness", "EchoTime", "ImagePositionPatient"):
        tag = Tag(keyword)
        text = "\\".join(str(x) for x in np.atleast_1d(dataset[tag].value)).replace(".", ",")
        raw = text.encode() + b" " * (len(text) % 2)
        dataset._dict[tag] = RawDataElement(tag, "DS", len(raw), raw, 0, False, True)


def test_decimal_commas_are_read_with_a_note(myelogram, settings, tmp_path):
    made = myelogram()
    affine, array = made.affine_lps, made.array
    for dataset in made.datasets:
        with_commas(dataset)
    made.write(tmp_path)
    (stack,) = load_study(tmp_path, settings).stacks
    assert codes(stack.notes) == {"decimal_comma"}
    np.testing.assert_allclose(stack.geometry.affine_lps, affine, atol=1e-3)
    np.testing.assert_array_equal(stack.load().array, array)
    assert stack.parameters["EchoTime"] == 693.0


@pytest.mark.parametrize(
    "names",
    [
        ("Sag 3D Myelo ASSET", "Myelo"),
        ("Sag Myelo Perf", "Perf"),
        ("3D myelo shim", "shim"),
        ("Sag 3D Myelo", "MRCP"),
    ],
)
def test_options_do_not_outweigh_name_and_echo_time(myelogram, settings, tmp_path, names):
    myelogram(SeriesDescription=names[0], ProtocolName=names[1]).write(tmp_path)
    result = triage(load_study(tmp_path, settings), settings)
    assert [item.role for item in result.stacks] == ["myelogram"]


@pytest.mark.parametrize(("part", "role"), [("F", "other"), ("opp", "other"), ("W", "myelogram")])
def test_dixon_parts_are_recognized_in_the_description(
    series, tube, settings, tmp_path, part, role
):
    name = f"t2_myelo_dixon_{part}"
    made = series(shape=SHAPE, array=tube(SHAPE, 0.04), spacing_ijk_mm=(1.2, 1.2, 1.25), **HEAVY)
    made.set(SeriesDescription=name, ProtocolName="t2_myelo_dixon", SequenceName="*spc3d1")
    made.write(tmp_path)
    study = load_study(tmp_path, settings)
    assert [item.role for item in roles(study, settings)] == [role]


def test_the_larger_part_of_a_series_is_used(myelogram, settings, tmp_path):
    made = myelogram()
    for dataset in made.datasets[:7]:
        dataset.PixelSpacing = [1.3, 1.3]
    made.write(tmp_path)
    result = triage(load_study(tmp_path, settings), settings)
    assert result.myelogram.geometry.shape[0] == 13
    assert "7 of 20" in result.notes[0].message


def test_hydrography_of_the_bile_ducts_is_not_a_myelogram(myelogram, settings, tmp_path):
    myelogram(SeriesDescription="MRCP 3D hydro MR").write(tmp_path)
    with pytest.raises(InputError, match="another organ"):
        triage(load_study(tmp_path, settings), settings)


FAULTS = {
    "Secondary Capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "no Image Position": {"ImagePositionPatient": None},
    "no Pixel Spacing": {"PixelSpacing": None},
}


@pytest.mark.parametrize(("cause", "tags"), FAULTS.items())
def test_an_unusable_myelogram_is_the_first_warning(
    myelogram, series, tube, settings, tmp_path, cause, tags
):
    myelogram(SeriesNumber=3, **tags).write(tmp_path / "a")
    with pytest.raises(InputError, match=f"series 3 appears to be a myelogram.*{cause}"):
        triage(load_study(tmp_path, settings), settings)
    shape = (12, 48, 40)
    series(
        shape=shape, array=tube(shape, 0.5), SeriesDescription="t2 sag", SeriesNumber=2,
        spacing_ijk_mm=(1.2, 1.2, 4.0), EchoTime=105.0, RepetitionTime=3500.0,
    ).write(tmp_path / "b")  # fmt: skip
    first, second = triage(load_study(tmp_path, settings), settings).notes[:2]
    assert (first.code, second.code) == ("myelogram_not_used", "no_myelogram")
    assert "series 3" in first.message
    assert cause in first.message


COMPONENTS = [
    {"ComplexImageComponent": "PHASE"},
    {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
    {0x0043102F: ("GE MEDICAL SYSTEMS", "SS", 1)},
    {0x0043102F: ("GE MEDICAL SYSTEMS", "SS", 2)},
    {0x20051011: ("Philips", "CS", "P")},
    {0x20051011: ("Philips", "CS", "F")},
]


@pytest.mark.parametrize("tags", COMPONENTS)
def test_components_other_than_magnitude_are_not_used(myelogram, settings, tmp_path, tags):
    magnitude = myelogram(ImageType=["ORIGINAL", "PRIMARY"])
    other = copy.deepcopy(magnitude)
    for dataset in other.datasets:
        dataset.SOPInstanceUID = generate_uid()
        for key, value in tags.items():
            if isinstance(key, str):
                setattr(dataset, key, value)
            else:
                dataset.Manufacturer = value[0]
                dataset.add_new((key & ~0xFFFF) | 0x10, "LO", "PRIVATE")
                dataset.add_new(key, *value[1:])
    magnitude.write(tmp_path / "a")
    other.write(tmp_path / "b")
    result = triage(load_study(tmp_path, settings), settings)
    assert [item.role for item in result.stacks] == ["myelogram", "other"]
    assert any(word in result.stacks[1].reason for word in ("phase image", "fat image"))


def test_phase_is_recognized_by_noise_of_full_amplitude(tube):
    geometry = Geometry(SHAPE, np.eye(4))
    magnitude = tube(SHAPE, 0.04)
    rng = np.random.default_rng(0)
    phase = rng.integers(0, 4095, SHAPE)
    phase[:, 8:] = 2048 + magnitude[:, 8:] // 8  # noise in air only
    assert looks_like_phase(Volume(phase.astype(np.uint16), geometry))
    real = (magnitude * rng.choice([-1.0, 1.0], SHAPE)).astype(np.float32)
    assert looks_like_phase(Volume(real, geometry))
    for tissue in (0.04, 0.5):
        assert not looks_like_phase(Volume(tube(SHAPE, tissue), geometry))
