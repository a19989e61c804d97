"""Uncompressed pixels read at their place in the file mean what a decoder says they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leakloc.loaders.headers import HeaderReader
from leakloc.loaders.pixels import read_stack
from leakloc.loaders.stacks import lay_out
from leakloc.settings import LoaderSettings


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
    layout, _ = lay_out(frames, LoaderSettings())
    direct = read_stack(tuple(frames), layout)
    decoded = read_stack(tuple(replace(frame, stored=None) for frame in frames), layout)
    assert direct.array.dtype == decoded.array.dtype
    np.testing.assert_array_equal(direct.array, decoded.array)


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
