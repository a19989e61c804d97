"""Untrusted files: bounded memory, no files outside the study, no pipes, no absurd geometry."""

from __future__ import annotations

import gzip
import os
import struct
import weakref
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian

from leakloc.core.errors import InputError, neutral_names
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import load, load_study, read_mask
from leakloc.loaders.headers import HeaderReader
from leakloc.loaders.pixels import read_stack, same_pixels
from leakloc.loaders.roles import Pixels
from leakloc.loaders.stacks import lay_out

ONE_MIB = LoaderSettings(max_decoded_mib=1)
LARGE = (120, 120, 120)
"""1.6 MiB as 8-bit integers."""
NRRD = """NRRD0004
type: uint8
dimension: 3
space: left-posterior-superior
sizes: 8 8 {count}
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
encoding: raw
{reference}
"""
META = """ObjectType = Image
NDims = 3
DimSize = 8 8 {count}
ElementSpacing = 1 1 1
Offset = 0 0 0
TransformMatrix = 1 0 0 0 1 0 0 0 1
ElementType = MET_UCHAR
{reference}
"""


def refused(path: Path, settings: LoaderSettings, *words: str) -> None:
    """Reading the study, or else each of its series, ends with one sentence."""
    with pytest.raises(InputError) as caught:
        for stack in load_study(path, settings).stacks:
            stack.load()
    for word in words:
        assert word in str(caught.value)


def nifti(shape: tuple[int, ...], dtype: type = np.uint8, slope: float | None = None) -> bytes:
    image = nib.Nifti1Image(np.zeros(shape, dtype), np.eye(4))
    image.header.set_slope_inter(slope, 0.0 if slope else None)
    return image.to_bytes()


@pytest.mark.parametrize("name", ["a.nii.gz", "a", "a.bin"])
def test_compressed_nifti_is_bounded_by_its_decoded_size(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(nifti(LARGE)))
    refused(tmp_path, ONE_MIB, name, "loaders.max_decoded_mib")
    assert load_study(tmp_path, LoaderSettings()).stacks[0].load().array.shape == LARGE


def test_scaled_integers_count_as_they_are_decoded(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti((60, 60, 60), slope=2.0))  # 1.6 MiB as float64
    refused(tmp_path, ONE_MIB, "a.nii", "loaders.max_decoded_mib")


def test_nifti_with_a_huge_header_extension_is_refused(tmp_path):
    content = bytearray(nifti((4, 4, 4)))
    struct.pack_into("<f", content, 108, 1_999_984.0)  # offset of the voxels
    content[348:360] = struct.pack("<4bii", 1, 0, 0, 0, 1_999_632, 6)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content) + bytes(2_000_000)))
    refused(tmp_path, ONE_MIB, "a.nii.gz", "loaders.max_decoded_mib")


@pytest.mark.parametrize("magic", [b"n+1\0", b"ni1\0"])
@pytest.mark.parametrize("end", [-1.0, 0.0, 368.0])  # 352 or more with extensions
def test_nifti_extensions_end_at_the_voxels(tmp_path, magic, end):
    content = bytearray(nifti((8, 8, 8)))
    struct.pack_into("<f", content, 108, end)
    content[344:352] = magic + b"\1\0\0\0"
    content[352:360] = struct.pack("<2i", 2**31 - 16, 6)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    refused(tmp_path, LoaderSettings(), "a.nii.gz", "extensions")


def test_nifti_extensions_are_skipped(tmp_path):
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    for text in (b"one", b"another" * 1000):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        assert load_study(tmp_path / name, LoaderSettings()).stacks[0].load().array.shape


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_compressed_nrrd_and_metaimage_are_bounded_by_their_decoded_size(tmp_path, name):
    sitk.WriteImage(sitk.Image(LARGE, sitk.sitkUInt8), tmp_path / name, useCompression=True)
    refused(tmp_path, ONE_MIB, name, "loaders.max_decoded_mib")
    with pytest.raises(InputError, match="max_decoded_mib"):
        read_mask(tmp_path / name, settings=ONE_MIB)


def deflated(path: Path, source: Path, padding: int) -> None:
    """Write a deflated copy of an object with `padding` bytes more."""
    dataset = pydicom.dcmread(source)
    dataset.add_new(0x00091010, "UN", bytes(padding))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)


def test_deflated_dicom_is_bounded_by_its_inflated_size(series, tmp_path):
    made = series().write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    deflated(tmp_path / "b" / "x", made.paths[0], 3 * 1024**2)
    assert (tmp_path / "b" / "x").stat().st_size < 10_000
    refused(tmp_path / "b", ONE_MIB, "x", "loaders.max_decoded_mib")
    assert HeaderReader().read(tmp_path / "b" / "x")[0].rows == 24
    with pytest.raises(InputError, match=r"x exceeds .*max_decoded_mib"):
        read_mask(tmp_path / "b" / "x", settings=ONE_MIB)


def test_meta_information_cannot_hide_the_deflated_syntax(series, tmp_path):
    """Elements before the transfer syntax may be long, so its position is not known."""
    made = series().write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    deflated(tmp_path / "b" / "x", made.paths[0], 3 * 1024**2)
    content = (tmp_path / "b" / "x").read_bytes()
    long = b"\x02\x00\x02\x01OB\0\0" + struct.pack("<I", 100_000) + bytes(100_000)
    (tmp_path / "b" / "x").write_bytes(content[:144] + long + content[144:])
    refused(tmp_path / "b", ONE_MIB, "loaders.max_decoded_mib")


def test_sparse_files_are_bounded(series, tmp_path):
    made = series().write(tmp_path)
    for path in made.paths:
        os.truncate(path, 2**31)
    refused(tmp_path, LoaderSettings(), "8 x", "loaders.max_decoded_mib")


def test_the_slices_of_a_series_count_together(series, tmp_path):
    series(shape=(12, 256, 256)).write(tmp_path)  # 1.5 MiB
    refused(tmp_path, ONE_MIB, "im0000", "loaders.max_decoded_mib")


def test_interpolated_slices_count_too(series, tmp_path):
    made = series(shape=(4, 64, 64))
    for dataset, at in zip(made.datasets, (0, -0.1, -0.2, -29.9), strict=True):
        dataset.ImagePositionPatient = [at, 0, 0]
    frames = [f for path in made.write(tmp_path).paths for f in HeaderReader().read(path)]
    layout, _ = lay_out(frames)
    assert layout.geometry.shape[0] == 300
    with pytest.raises(InputError, match="max_decoded_mib"):
        read_stack(tuple(frames), layout, ONE_MIB)


J2K, JPEG, JPEG_LS, RLE = (
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
)  # fmt: skip
_SIZ = struct.pack(">HHHH8IH", 0xFF4F, 0xFF51, 41, 0, 20000, 20000, 0, 0, 20000, 20000, 0, 0, 1)
_JPEG_SIZE = struct.pack(">HBHHB", 11, 16, 60000, 60000, 1) + b"\1\x11\0"
CODES = {
    "jpeg 2000": (J2K, _SIZ + b"\x0f\1\1"),
    "jpeg 2000 in a file wrapper": (J2K, b"\0\0\0\x0cjP  \r\n\x87\n" + _SIZ + b"\x0f\1\1"),
    "jpeg 2000 of many components": (
        J2K, struct.pack(">HHHH8IH", 0xFF4F, 0xFF51, 41, 0, 16, 24, 0, 0, 16, 24, 0, 0, 16000),
    ),
    "jpeg": (JPEG, b"\xff\xd8\xff\xfe\0\4ab\xff\xff\xc3" + _JPEG_SIZE),
    "jpeg-ls": (JPEG_LS, b"\xff\xd8\xff\xf7" + _JPEG_SIZE),
}  # fmt: skip


@pytest.mark.parametrize("stored", [True, False], ids=["single-frame", "by the decoder"])
@pytest.mark.parametrize("kind", CODES)
def test_compressed_images_of_another_size_are_not_decoded(
    series, tmp_path, monkeypatch, kind, stored
):
    syntax, code = CODES[kind]
    made = series(shape=(3, 24, 16))
    for dataset in made.datasets:
        dataset.PixelData = encapsulate([code + bytes(200)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
        if not stored:  # the usual encoding is not read by pydicom
            dataset.HighBit = 14
    made.write(tmp_path)
    for name in ("get_decoder", "pixel_array"):
        monkeypatch.setattr(f"leakloc.loaders.pixels.{name}", None)  # any call is an error
    refused(tmp_path, LoaderSettings(), "im0000 contains an image of")


def test_run_lengths_larger_than_the_image_are_not_decoded(series, tmp_path, monkeypatch):
    made = series(shape=(3, 24, 16))
    code = struct.pack("<16I", 2, 64, 10_064, *(0,) * 13) + b"\x81\0" * 10_000
    for dataset in made.datasets:
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = RLE
    made.write(tmp_path)
    monkeypatch.setattr("leakloc.loaders.pixels.get_decoder", None)
    refused(tmp_path, LoaderSettings(), "im0000", "larger than the image")


def test_images_at_one_position_are_compared_within_the_limit(series, tmp_path, monkeypatch):
    made = series(shape=(3, 24, 16), Rows=60_000, Columns=60_000).write(tmp_path)
    frames = [HeaderReader().read(path)[0] for path in made.paths]
    monkeypatch.setattr("leakloc.loaders.pixels.np.fromfile", None)
    assert not same_pixels(frames[0], frames[1])


@pytest.fixture
def outside(tmp_path) -> Path:
    path = tmp_path / "outside.raw"
    path.write_bytes(bytes(range(256)) * 4)
    (tmp_path / "study").mkdir()
    return path


REFERENCES = {
    "absolute": "{outside}",
    "relative": "../outside.raw",
    "link": "link.raw",
    "linked folder": "up/outside.raw",
    "list": "LIST\n{outside}\n{outside}",
    "series": "../outside%03d.raw 1 2 1",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["nhdr", "mhd", "nhdr without a space", "mhd with a colon"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_voxels_are_read_from_the_study_only(outside, reference, kind, packed):
    study = outside.parent / "study"
    for n in (1, 2):
        (study.parent / f"outside{n:03d}.raw").write_bytes(bytes(range(64)))
    (study / "link.raw").symlink_to(outside)
    (study / "up").symlink_to(outside.parent)
    form = {
        "nhdr": "data file: {}", "nhdr without a space": "DATAFILE:{}",
        "mhd": "ElementDataFile = {}", "mhd with a colon": "ElementDataFile:{}",
    }[kind]  # fmt: skip
    text = (NRRD if kind.startswith("nhdr") else META).format(
        count=2, reference=form.format(REFERENCES[reference].format(outside=outside))
    )
    header = study / f"a.{kind.split()[0]}"
    header.write_text(text)
    if packed:
        with zipfile.ZipFile(study.parent / "a.zip", "w") as archive:
            archive.write(header, header.name)
    refused(study.parent / "a.zip" if packed else study, LoaderSettings(), header.name)
    with pytest.raises(InputError):
        read_mask(header)


@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
@pytest.mark.parametrize("reference", ["v.raw", "sub/v.raw", "LIST\n1.raw\n2.raw", "%d.raw 1 2 1"])
def test_data_files_of_the_study_are_read(tmp_path, kind, reference):
    voxels = np.arange(128, dtype=np.uint8)
    (tmp_path / "sub").mkdir()
    for name, part in (("v", voxels), ("sub/v", voxels), ("1", voxels[:64]), ("2", voxels[64:])):
        (tmp_path / f"{name}.raw").write_bytes(part.tobytes())
    text, form = (NRRD, "data file: ") if kind == "nhdr" else (META, "ElementDataFile = ")
    (tmp_path / f"a.{kind}").write_text(text.format(count=2, reference=form + reference))
    [stack] = load_study(tmp_path, LoaderSettings()).stacks
    np.testing.assert_array_equal(stack.load().array.ravel(), voxels)


def test_a_header_in_a_subfolder_names_a_file_of_the_study(tmp_path):
    (tmp_path / "headers").mkdir()
    (tmp_path / "v.raw").write_bytes(bytes(range(128)))
    text = META.format(count=2, reference="ElementDataFile = ../v.raw")
    (tmp_path / "headers" / "a.mhd").write_text(text)
    [stack] = load_study(tmp_path, LoaderSettings()).stacks
    assert stack.load().array.max() == 127


@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
def test_a_long_header_cannot_hide_its_data_file(outside, kind):
    study = outside.parent / "study"
    text, form = (NRRD, "data file: ") if kind == "nhdr" else (META, "ElementDataFile = ")
    comment = "# x\n" if kind == "nhdr" else "Comment = x\n"
    text = text.format(count=2, reference=comment * 40_000 + form + str(outside))
    (study / f"a.{kind}").write_text(text)
    refused(study, LoaderSettings(), "its header has more than")


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_cannot_hide_a_data_file(outside, end):
    text = NRRD.format(count=8, reference=f"data file: {outside}").replace("\n", end)
    path = outside.parent / "study" / "a.nhdr"
    path.write_bytes(text.encode())
    refused(path.parent, LoaderSettings(), "a.nhdr", "outside")


def test_skipped_bytes_are_bounded(tmp_path):
    text = NRRD.format(count=8, reference=f"byte skip: {2**31}").replace("raw", "gzip")
    (tmp_path / "a.nrrd").write_bytes(text.encode() + b"\n" + gzip.compress(bytes(512)))
    refused(tmp_path, LoaderSettings(), "a.nrrd", "loaders.max_decoded_mib")


@pytest.mark.parametrize(
    ("name", "is_size_stated"), [("a.mha", True), ("a.mhd", True), ("a.mhd", False)]
)
def test_compressed_metaimage_is_read_completely_or_refused(tmp_path, name, is_size_stated):
    voxels = np.random.default_rng(0).integers(0, 255, (8, 8, 8)).astype(np.uint8)
    packed = zlib.compress(voxels.tobytes())
    for content in (packed, packed[:-100], zlib.compress(voxels.tobytes()[:-1])):
        local = name == "a.mha"
        lines = ["CompressedData = True"]
        lines += [f"CompressedDataSize = {len(content)}"] if is_size_stated else []
        lines += [f"ElementDataFile = {'LOCAL' if local else 'a.zraw'}"]
        header = META.format(count=8, reference="\n".join(lines)).rstrip("\n") + "\n"
        (tmp_path / name).write_bytes(header.encode() + (content if local else b""))
        (tmp_path / "a.zraw").write_bytes(content)
        stack = load_study(tmp_path / name, LoaderSettings()).stacks[0]
        if content is packed:
            np.testing.assert_array_equal(stack.load().array, voxels)
            continue
        with pytest.raises(InputError, match="corrupt or truncated"):
            stack.load()


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_pipes_and_devices_are_no_data_files(tmp_path, name):
    os.mkfifo(tmp_path / "v.raw")
    text, form = (NRRD, "data file: ") if name == "a.nhdr" else (META, "ElementDataFile = ")
    (tmp_path / name).write_text(text.format(count=2, reference=f"{form}v.raw"))
    refused(tmp_path, LoaderSettings(), "not a regular file")


@pytest.mark.parametrize("sidecar", ["pipe", "deep", "large"])
def test_unusable_sidecars_are_ignored(tmp_path, sidecar):
    (tmp_path / "a.nii").write_bytes(nifti((4, 4, 4)))
    if sidecar == "pipe":
        os.mkfifo(tmp_path / "a.json")
    else:
        spaces = " " * 2_000_000
        (tmp_path / "a.json").write_text(
            "[" * 100_000 if sidecar == "deep" else f'{{"EchoTime": 1.0{spaces}}}'
        )
    assert load_study(tmp_path, LoaderSettings()).stacks[0].parameters == {}


def test_a_pipe_is_no_mask(tmp_path):
    os.mkfifo(tmp_path / "mask.nii")
    with pytest.raises(InputError, match="not a regular file"):
        read_mask(tmp_path / "mask.nii")


@pytest.mark.parametrize("spacing_mm", [1e-4, 1e4, 900.0])
def test_absurd_voxel_sizes_are_refused(tmp_path, series, spacing_mm):
    affine = np.diag([spacing_mm] * 3 + [1.0])
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), affine), tmp_path / "a.nii")
    refused(tmp_path, LoaderSettings(), "a.nii", "not plausible")
    with pytest.raises(InputError, match="not plausible"):
        load(Volume(np.zeros((9, 9, 9)), Geometry((9, 9, 9), affine)))
    if spacing_mm > 1:  # shorter ones are no pixel spacing at all
        series(spacing_ijk_mm=(spacing_mm,) * 3).write(tmp_path / "dicom")
        (tmp_path / "a.nii").unlink()
        refused(tmp_path, LoaderSettings(), "not plausible")


def test_archive_members_of_one_name_are_all_read(series, tmp_path):
    made = series().write(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in made.paths:
            with pytest.warns(UserWarning) if path != made.paths[0] else _quiet():
                archive.write(path, "same.dcm")
    assert load_study(tmp_path / "a.zip", LoaderSettings()).stacks[0].n_instances == 8


def test_two_studies_with_control_characters_are_listed_without(series, tmp_path):
    with pydicom.config.disable_value_validation():
        series(study_uid="\x1b]0;OWNED\x07").write(tmp_path, prefix="a")
        series().write(tmp_path, prefix="b")
    refused(tmp_path, LoaderSettings(), "?]0;OWNED?")


def test_a_name_in_place_of_a_uid_is_not_shown_with_neutral_names(series, tmp_path):
    series().set(StudyInstanceUID="DOE^JANE").write(tmp_path, prefix="a")
    series().write(tmp_path, prefix="b")
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "a.nii").write_bytes(nifti((8, 8, 8)))
    for path, uid in ((tmp_path, None), (tmp_path, "DOE"), (tmp_path / "volume", "DOE")):
        with neutral_names(lambda _: "the input"), pytest.raises(InputError) as caught:
            load_study(path, LoaderSettings(), study_uid=uid)
        assert "DOE" not in str(caught.value) and "(not a UID)" in str(caught.value)


def test_the_cache_of_volumes_is_bounded(series, tmp_path):
    """A study may have any number of series, each within the limit."""
    for number in range(4):
        series(shape=(4, 256, 256), series_number=number).write(tmp_path / str(number))
    study = load_study(tmp_path, ONE_MIB)
    pixels = Pixels(ONE_MIB)
    first = weakref.ref(pixels.of(study.stacks[0]).array)
    assert pixels.of(study.stacks[0]).array is first()
    for stack in study.stacks[1:]:
        pixels.of(stack)  # 0.5 MiB each
    assert first() is None
    assert pixels.of(study.stacks[0]).array.shape == (4, 256, 256)


def _quiet():
    from contextlib import nullcontext

    return nullcontext()


def test_inflating_stops_at_the_limit(series, tmp_path, monkeypatch):
    """The whole of a bomb is never inflated."""
    made = series().write(tmp_path / "a")
    deflated(tmp_path / "x", made.paths[0], 64 * 1024**2)
    sizes = []
    truly = zlib.decompressobj

    class Counting:
        def __init__(self, *options):
            self.real = truly(*options)

        def decompress(self, *values):
            found = self.real.decompress(*values)
            sizes.append(len(found))
            return found

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr("leakloc.loaders.limits.zlib.decompressobj", Counting)
    refused(tmp_path / "x", ONE_MIB, "max_decoded_mib")
    assert sum(sizes) <= 3 * 1024**2
