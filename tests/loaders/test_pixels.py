"""Pixels read directly from their offset in the file equal those of a decoder of the whole file."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leakloc.core.errors import InputError
from leakloc.core.settings import LoaderSettings
from leakloc.loaders import load_study
from leakloc.loaders.headers import HeaderReader
from leakloc.loaders.pixels import read_stack
from leakloc.loaders.stacks import lay_out

JPEG_LS, JPEG_2000, RLE = (
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5",
)  # fmt: skip
HIGH_THROUGHPUT = """
/0//UQApQAAAAAAUAAAAEAAAAAAAAAAAAAAAFAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wA
EyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAVIAAf+TwAAm3/oFB3QAwAATAGL+
Aod0AMAAEsAAE8AAEgC1AYd0AOhi+wCCNAD+F3MAwAAVEAAFbAABMNvrZvMAgrQAAmwG1ATY/gAhA362ABj4AER0AMAAFrwA
AWvAABaIN+ffxfvq5ky9qKhokNb+P+E4wfoxuACiWAIF4AVcANkAJ4D9BDMAAAY6L8BaAAGPVK4UAZGpxVzBR0X5JzgAwAAu
9gABdrAAC6u11b66JS5ccOvvrD87ZioVMno4pLB6fccjVCpopeJPJRYJxc9UKlLsYE6ZIanZ7lCJncha7UQWZjpr6bUBFFhR
SAAHGfF+fkFSngmRYqUDkB6awDcAxSYIgTDQgMl5AQYYFG6/L7ySTusWa6NGa0jTVwGIEDr+QwguHjMOugsAxheCuQgHEKKg
DlPPh8aX01xZe7Z6vz6OP8dRz3YB/9k=
"""
"""The image of `test_high_throughput_jpeg_2000`, encoded by OpenJPH."""


def assert_same_either_way(frames):
    layout, _ = lay_out(frames)
    direct = read_stack(tuple(frames), layout)
    decoded = read_stack(tuple(replace(frame, stored=None) for frame in frames), layout)
    assert direct.array.dtype == decoded.array.dtype
    np.testing.assert_array_equal(direct.array, decoded.array)
    return direct.array


def encode(dataset, syntax, picture):
    """Set the pixels of a dataset as a scanner or PACS would, compressed."""
    from openjpeg.utils import encode_array
    from pydicom.encaps import encapsulate

    if syntax == JPEG_2000:
        dataset.PixelData = encapsulate([encode_array(picture, bits_stored=dataset.BitsStored)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, picture, generate_instance_uid=False)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    signed=st.booleans(),
    bits=st.integers(1, 16),
    slope=st.sampled_from([None, 1.0, 0.25, 3.7]),
    padding=st.sampled_from([None, 0, 7, 4095]),
    inverted=st.booleans(),
    implicit=st.booleans(),
    seed=st.integers(0, 99),
)
def test_direct_reading_equals_decoding(
    series, tmp_path_factory, signed, bits, slope, padding, inverted, implicit, seed
):
    folder = tmp_path_factory.mktemp("x")
    kind = np.int16 if signed else np.uint16
    array = np.random.default_rng(seed).integers(0, 65536, (4, 6, 5)).astype(np.uint16).view(kind)
    array[:, 0, 0] = 7
    made = series(
        shape=(4, 6, 5), array=array, BitsStored=bits, HighBit=bits - 1,
        PixelPaddingValue=padding if not signed or padding != 4095 else None,
        RescaleSlope=slope, RescaleIntercept=None if slope is None else -3.0,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )  # fmt: skip
    for dataset in made.datasets:
        if implicit:
            dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    made.write(folder)
    frames = [frame for path in made.paths for frame in HeaderReader().read(path)]
    assert all(frame.stored is not None for frame in frames)
    assert_same_either_way(frames)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    syntax=st.sampled_from([JPEG_LS, JPEG_2000, RLE]),
    signed=st.booleans(),
    bits=st.sampled_from([8, 10, 12, 16]),
    slope=st.sampled_from([None, 0.25]),
    padding=st.sampled_from([None, 7]),
    inverted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_direct_decompression_equals_decoding(
    series, tmp_path_factory, syntax, signed, bits, slope, padding, inverted, seed
):
    folder = tmp_path_factory.mktemp("x")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    array = np.random.default_rng(seed).integers(low, high, (3, 32, 40))
    array[:, 0, 0] = 7
    kind = "i" if signed else "u"
    made = series(
        shape=array.shape, array=array.astype(f"{kind}2"), BitsStored=bits, HighBit=bits - 1,
        PixelPaddingValue=padding, RescaleSlope=slope,
        RescaleIntercept=None if slope is None else -3.0,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )  # fmt: skip
    for dataset, picture in zip(made.datasets, made.array, strict=True):
        if bits == 8:
            dataset.BitsAllocated, picture = 8, picture.astype(f"{kind}1")
        encode(dataset, syntax, picture)
    made.write(folder)
    frames = [frame for path in made.paths for frame in HeaderReader().read(path)]
    assert all(frame.stored is not None for frame in frames)
    decoded = assert_same_either_way(frames)
    if slope is padding is None and not inverted:
        np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize("spoil", ["no fragments", "other length", "cut"])
def test_what_cannot_be_decompressed_directly_names_the_file(series, tmp_path, spoil):
    made = series(shape=(2, 16, 20))
    for dataset, picture in zip(made.datasets, made.array, strict=True):
        encode(dataset, JPEG_LS, picture)
    path = made.write(tmp_path).paths[0]
    frames = tuple(frame for one in made.paths for frame in HeaderReader().read(one))
    content, at = bytearray(path.read_bytes()), frames[0].stored.at
    if spoil == "no fragments":
        content[at + 12 :] = bytes(len(content) - at - 12)
    elif spoil == "other length":
        content[at + 8 : at + 12] = (40).to_bytes(4, "little")
    else:  # as long as it was, so that the change does not show
        content[-400:] = bytes(400)
    path.write_bytes(content)
    layout, _ = lay_out(frames)
    with pytest.raises(InputError, match=rf"{path.name} \(transfer syntax JPEG-LS Lossless"):
        read_stack(frames, layout)


def test_damaged_run_lengths_are_an_error_and_no_panic(series, tmp_path):
    made = series(shape=(2, 16, 20))
    for dataset, picture in zip(made.datasets, made.array, strict=True):
        encode(dataset, RLE, picture)
        length = len(dataset.PixelData)
        content = bytearray(dataset.PixelData)
        content[-length // 2 :] = b"\x7f" * (length - length // 2)
        dataset.PixelData = bytes(content)
        dataset["PixelData"].VR = "OB"
    paths = made.write(tmp_path).paths
    frames = tuple(frame for path in paths for frame in HeaderReader().read(path))
    layout, _ = lay_out(frames)
    with pytest.raises(InputError, match="RLE"):
        read_stack(frames, layout)


def test_high_throughput_jpeg_2000(series, tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import HTJ2KLossless

    made = series(shape=(3, 16, 20))
    for dataset in made.datasets:
        dataset.PixelData = encapsulate([base64.b64decode(HIGH_THROUGHPUT)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    made.write(tmp_path)
    [stack] = load_study(tmp_path, LoaderSettings()).stacks
    j, i = np.mgrid[:16, :20]
    np.testing.assert_array_equal(stack.load().array[1], 200 + 40 * j + 3 * i * i + (j * i) % 17)


@pytest.mark.parametrize(
    "tags",
    [
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"BitsStored": 12, "HighBit": 15},
        {"PhotometricInterpretation": "PALETTE COLOR"},
    ],
)
def test_unusual_pixels_go_to_the_decoder(series, tmp_path, tags):
    made = series(**tags).write(tmp_path)
    assert HeaderReader().read(made.paths[0])[0].stored is None


def test_corrupt_pixel_attributes_are_an_error_that_names_the_file(series, tmp_path):
    made = series(shape=(4, 8, 8)).write(tmp_path)
    for path in made.paths:
        dataset = pydicom.dcmread(path)
        dataset["HighBit"]._value = b"99999999999"
        dataset["HighBit"].VR = "UN"
        dataset.save_as(path)
    (stack,) = load_study(tmp_path, LoaderSettings()).stacks
    with pytest.raises(InputError, match=r"pixel attributes of .* are corrupt"):
        stack.load()
