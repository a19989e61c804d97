"""Stored values: their place in a word, their sign, padding and rescaling."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.loaders import load_study

SHAPE = (8, 64, 64)


def smooth(low: float, high: float) -> np.ndarray:
    """An image with smooth edges, with values in the specified range."""
    k, j, i = np.indices(SHAPE)
    image = np.exp(-((j - 30) ** 2 + (i - 33) ** 2) / 150.0) * np.exp(-((k - 4) ** 2) / 30.0)
    return np.round(low + (high - low) * image).astype(np.int64)


def only(folder, settings):
    (stack,) = load_study(folder, settings).stacks
    return stack


def read(made, settings, folder):
    made.write(folder)
    return only(folder, settings).load().array


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_values_in_the_upper_bits_are_shifted(series, settings, tmp_path, bits, signed):
    values = smooth(-400 if signed else 3, 500)
    words = (values << (16 - bits)).astype(np.int16 if signed else np.uint16)
    array = read(series(array=words, shape=SHAPE, BitsStored=bits), settings, tmp_path)
    np.testing.assert_array_equal(array, values)


def test_frames_of_multi_frame_objects_are_shifted(series, enhanced, settings, tmp_path):
    values = smooth(3, 900)
    made = series(array=(values << 4).astype(np.uint16), shape=SHAPE, BitsStored=12)
    enhanced(tmp_path / "enhanced.dcm", made, list(range(8)))
    np.testing.assert_array_equal(only(tmp_path, settings).load().array, values)


@pytest.mark.parametrize("high", [10, 15])
def test_a_high_bit_that_the_values_contradict_is_ignored(series, settings, tmp_path, high):
    values = smooth(3, 900).astype(np.uint16)
    made = series(array=values, shape=SHAPE, BitsStored=12, HighBit=high)
    np.testing.assert_array_equal(read(made, settings, tmp_path), values)


def test_overlays_in_unused_bits_are_ignored(series, settings, tmp_path):
    values = smooth(3, 4000)
    words = values.copy()
    words[:, :, ::3] |= 0x1000
    words[:, 20:30, 20:40] |= 0x2000
    made = series(array=words.astype(np.uint16), shape=SHAPE, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(made, settings, tmp_path), values)


@pytest.mark.parametrize(
    ("low", "high", "kind", "header"),
    [
        (0, 4000, np.uint16, {"BitsStored": 10, "HighBit": 9}),
        (0, 4000, np.uint16, {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1}),
        (-60, 900, np.int16, {"PixelRepresentation": 0}),
        (-60, 900, np.int16, {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}),
    ],
)
def test_values_that_wrap_around_are_refused(series, settings, tmp_path, low, high, kind, header):
    shape = (8, 128, 128)
    noise = np.random.default_rng(0).integers(-50, 50, shape)
    wave = np.round(high * (0.5 + 0.5 * np.sin(np.indices(shape)[2] / 6.0))).astype(np.int64)
    made = series(array=np.maximum(wave + noise, low).astype(kind), shape=shape)
    with pytest.raises(InputError, match="Bits Stored or Pixel Representation is wrong"):
        read(made.set(**header), settings, tmp_path)


def test_signed_values_and_a_filled_range_are_read(series, settings, tmp_path):
    noise = np.random.default_rng(0).integers(-50, 50, SHAPE)
    for n, values in enumerate([(smooth(0, 1900) + noise).astype(np.int16), smooth(0, 4095)]):
        made = series(
            array=values if n == 0 else values.astype(np.uint16), shape=SHAPE, BitsStored=12,
            HighBit=11,
        )  # fmt: skip
        np.testing.assert_array_equal(read(made, settings, tmp_path / str(n)), values)


def test_a_slope_of_zero_is_ignored_with_a_note(series, settings, tmp_path):
    made = series(RescaleSlope="0", RescaleIntercept="0").write(tmp_path)
    stack = only(tmp_path, settings)
    assert [note.code for note in stack.notes] == ["slope_ignored"]
    np.testing.assert_array_equal(stack.load().array, made.array)


def test_a_slope_of_zero_in_frames_is_ignored_with_a_note(series, enhanced, settings, tmp_path):
    made = series()
    enhanced(tmp_path / "x.dcm", made, list(range(8)), {n: {"slope": 0.0} for n in range(8)})
    stack = only(tmp_path, settings)
    assert [note.code for note in stack.notes] == ["slope_ignored"]
    np.testing.assert_array_equal(stack.load().array, made.array)


@pytest.mark.parametrize("slope", [None, "0"])
def test_slices_without_the_slope_of_others_form_no_volume(series, settings, tmp_path, slope):
    made = series(RescaleSlope="2.5", RescaleIntercept="0")
    for dataset in made.datasets[::2]:
        dataset.RescaleSlope = slope
    made.write(tmp_path)
    stack = only(tmp_path, settings)
    assert stack.geometry is None
    assert stack.notes[-1].code == "mixed_slopes"


def test_padding_of_signed_values_may_be_written_unsigned(series, settings, tmp_path):
    values = (smooth(0, 900)).astype(np.int16)
    values[:, :, :5] = -2000
    made = series(array=values, shape=SHAPE)
    for dataset in made.datasets:
        dataset.add_new(0x00280120, "US", 63536)
    np.testing.assert_array_equal(read(made, settings, tmp_path), np.maximum(values, 0))


def test_saturated_fluid_with_the_value_of_padding_is_signal(series, settings, tmp_path):
    values = np.minimum(smooth(10, 900), 700).astype(np.uint16)
    padded = values.copy()
    padded[:, :6] = 700
    made = series(array=padded, shape=SHAPE)
    for dataset in made.datasets:
        dataset.add_new(0x00280120, "US", 700)
    array = read(made, settings, tmp_path)
    np.testing.assert_array_equal(array[:, 6:], values[:, 6:])
    assert (array[:, :6] == values.min()).all()
