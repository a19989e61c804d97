"""NRRD and MetaImage files are read as by SimpleITK; what it does not read is refused."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Volume
from leakloc.loaders import load_study
from leakloc.loaders.images import read_image_header, read_voxels

DATA = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3",
    "CenterOfRotation": "0 0 0", "ElementSpacing": "1 2 3", "DimSize": "2 3 4",
    "ElementType": "MET_SHORT",
}  # fmt: skip
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "2 3 4",
    "space directions": "(1,0,0) (0,2,0) (0,0,3)", "kinds": "domain domain domain",
    "endian": "little", "encoding": "raw", "space origin": "(1,2,3)",
}  # fmt: skip
ROTATED = "(0,1,0) (0,0,2) (3,0,0)"
TURNED = "0 1 0 0 0 -1 -1 0 0"
VALUES = (np.arange(24) - 5).astype("<i2").tobytes()
BIG_ENDIAN = (np.arange(24) - 5).astype(">i2").tobytes()


def stated(fields: dict[str, str], changes: dict[str, str | None], sign: str) -> str:
    """The header with some fields changed, added or (None) removed."""
    kept = {key: value for key, value in {**fields, **changes}.items() if value is not None}
    return "".join(f"{key}{sign}{value}\n" for key, value in kept.items())


def meta(path: Path, changes: dict[str, str | None], voxels: bytes = VALUES) -> Path:
    header = stated(META, changes, " = ") + "ElementDataFile = LOCAL\n"
    path.write_bytes(header.encode() + voxels)
    return path


def nrrd(path: Path, changes: dict[str, str | None], voxels: bytes = VALUES) -> Path:
    header = "NRRD0004\n" + stated(NRRD, changes, ": ") + "\n"
    path.write_bytes(header.encode() + voxels)
    return path


def same_as_simpleitk(path: Path, kind: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageFileReader()
    reader.SetImageIO({"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}[kind])
    reader.SetFileName(str(path))
    image = reader.Execute()
    while image.GetDimension() > 3:
        image = image[..., 0]
    expected = Volume.from_sitk(image)
    found = read_voxels(path, kind)
    assert found.array.dtype == expected.array.dtype
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(
        found.geometry.affine_lps, expected.geometry.affine_lps, rtol=1e-12, atol=1e-12
    )
    assert read_image_header(path, kind).geometry.matches(found.geometry, 1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TransformMatrix": TURNED},
        {"TransformMatrix": TURNED, "CenterOfRotation": "9 9 9"},
        {"TransformMatrix": TURNED, "AnatomicalOrientation": "LPI"},
        {"TransformMatrix": None, "Rotation": TURNED},
        {"TransformMatrix": None, "Orientation": TURNED},
        {"TransformMatrix": None, "AnatomicalOrientation": "RAS"},
        {"Offset": None, "Position": "5 6 7"},
        {"Offset": None, "Origin": "5 6 7"},
        {"Position": "5 6 7"},
        {"Offset": None},
        {"ElementSpacing": None, "ElementSize": "4 5 6"},
        {"ElementSize": "4 5 6"},
        {"ElementSpacing": None},
        {"ElementSpacing": "1 2 -3"},
        {"HeaderSize": "-1"},
        {"ElementNumberOfChannels": "1"},
        {"Modality": "MET_MOD_MR", "Comment": "a = b: c"},
        {"DistanceUnits": "mm"},
        {"BinaryData": None, "BinaryDataByteOrderMSB": None, "CompressedData": None},
    ],
)
def test_metaimage_headers_are_read_as_by_simpleitk(tmp_path, changes):
    same_as_simpleitk(meta(tmp_path / "a.mha", changes), "metaimage")


@pytest.mark.parametrize("field", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
def test_big_endian_voxels_are_read(tmp_path, field):
    changes = {"BinaryDataByteOrderMSB": None, field: "True"}
    same_as_simpleitk(meta(tmp_path / "a.mha", changes, BIG_ENDIAN), "metaimage")
    same_as_simpleitk(nrrd(tmp_path / "a.nrrd", {"endian": "big"}, BIG_ENDIAN), "nrrd")


@pytest.mark.parametrize(
    "kind",
    ["CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "LONG", "ULONG", "LONG_LONG", "ULONG_LONG",
     "FLOAT", "DOUBLE"],
)  # fmt: skip
def test_metaimage_types_are_those_of_simpleitk(tmp_path, kind):
    voxels = np.arange(24 * 8, dtype=np.uint8).tobytes()
    same_as_simpleitk(meta(tmp_path / "a.mha", {"ElementType": f"MET_{kind}"}, voxels), "metaimage")


@pytest.mark.parametrize("kind", ["signed char", "uint8_t", "unsigned short int", "int", "uint32",
                                  "ulonglong", "long long", "float", "double"])  # fmt: skip
def test_nrrd_types_are_those_of_simpleitk(tmp_path, kind):
    voxels = np.arange(24 * 8, dtype=np.uint8).tobytes()
    same_as_simpleitk(nrrd(tmp_path / "a.nrrd", {"type": kind}, voxels), "nrrd")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("order", ["False", "True"])
def test_compressed_metaimage_is_read_as_by_simpleitk(tmp_path, end, pack, order):
    voxels = pack(BIG_ENDIAN if order == "True" else VALUES)
    changes = {
        "CompressedData": "True", "CompressedDataSize": str(len(voxels)),
        "BinaryDataByteOrderMSB": order,
    }  # fmt: skip
    path = meta(tmp_path / "a.mha", changes, b"")
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()) + voxels)
    same_as_simpleitk(path, "metaimage")


def test_compressed_metaimage_may_lack_its_size(tmp_path):
    path = meta(tmp_path / "a.mha", {"CompressedData": "True"}, zlib.compress(VALUES))
    assert read_voxels(path, "metaimage").array.tobytes() == VALUES


@pytest.mark.parametrize(
    ("changes", "voxels"),
    [
        ({}, VALUES),
        ({}, VALUES + b"more"),
        ({"space": "RAS"}, VALUES),
        ({"space": "right-anterior-superior", "space directions": ROTATED}, VALUES),
        ({"space": "Left-Posterior-Superior", "encoding": "RAW"}, VALUES),
        ({"space origin": None, "kinds": None}, VALUES),
        ({"kinds": "space space space", "measurement frame": "(1,0,0) (0,1,0) (0,0,1)"}, VALUES),
        ({"dimension": "4", "sizes": "2 3 4 1", "kinds": "domain domain domain list",
          "space directions": "(1,0,0) (0,2,0) (0,0,3) none"}, VALUES),
        ({"dimension": "4", "sizes": "1 2 3 4", "kinds": "vector domain domain domain",
          "space directions": "none (1,0,0) (0,2,0) (0,0,3)"}, VALUES),
        ({"dimension": "4", "sizes": "2 3 4 1", "space": "left-posterior-superior-time",
          "kinds": "domain domain domain time", "space origin": "(1,2,3,0)",
          "space directions": "(1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)"}, VALUES),
        ({"byte skip": "4"}, b"skip" + VALUES),
        ({"byte skip": "-1"}, b"any length" + VALUES),
        ({"line skip": "2"}, b"1\n2\n" + VALUES),
        ({"encoding": "gzip"}, gzip.compress(VALUES)),
        ({"encoding": "gzip"}, gzip.compress(VALUES + b"more")),
        ({"encoding": "gz", "byte skip": "4"}, gzip.compress(b"skip" + VALUES)),
        ({"encoding": "gz", "line skip": "1"}, b"1\n" + gzip.compress(VALUES)),
        ({"# sizes": "9 9 9", "Segment0_Name:=a": " b", "old min": "0"}, VALUES),
    ],
)  # fmt: skip
def test_nrrd_is_read_as_by_simpleitk(tmp_path, changes, voxels):
    same_as_simpleitk(nrrd(tmp_path / "a.nrrd", changes, voxels), "nrrd")


@pytest.mark.parametrize("space", ["left-anterior-superior", "LAS"])
def test_left_anterior_superior_is_converted_to_lps(tmp_path, space):
    # SimpleITK 2.4 reads this space as right-posterior-superior.
    changes = {"space": space, "space directions": ROTATED, "space origin": "(4,5,6)"}
    found = read_voxels(nrrd(tmp_path / "a.nrrd", changes), "nrrd")
    expected = [[0, 0, 3, 4], [-1, 0, 0, -5], [0, 2, 0, 6], [0, 0, 0, 1]]
    np.testing.assert_allclose(found.geometry.affine_lps, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"space": None}, "no space field"),
        ({"space": "scanner-xyz"}, "no anatomical directions"),
        ({"space directions": None}, "no space directions"),
        ({"sizes": "4 3 2", "kinds": "vector space space",
          "space directions": "none (1,0,0) (0,2,0)"}, "color or vector"),
        ({"dimension": "4", "sizes": "2 3 2 2", "kinds": "domain domain domain time",
          "space directions": "(1,0,0) (0,2,0) (0,0,3) none"}, "three axes"),
        ({"encoding": "hex"}, "encoding hex is not supported"),
        ({"line skip": "-1"}, "unsupported skip"),
        ({"encoding": "gzip", "byte skip": "-1"}, "unsupported skip"),
        ({"type": "block"}, "type block are not supported"),
        ({"endian": None}, "no endian field"),
        ({"sizes": "2 3 -4"}, "three positive integers"),
        ({"sizes": None}, "corrupt nrrd file"),
        ({"space directions": "(1,0,0) (0,nan,0) (0,0,3)"}, "finite"),
    ],
)  # fmt: skip
def test_unusable_nrrd_headers_are_refused(tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason):
        read_image_header(nrrd(tmp_path / "a.nrrd", changes), "nrrd")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ElementNumberOfChannels": "3"}, "color or vector"),
        ({"NDims": "2", "DimSize": "4 6"}, "three axes"),
        ({"DimSize": "4 6"}, "3 axes are stated, but 2 sizes"),
        ({"ElementType": "MET_STRING"}, "type MET_STRING are not supported"),
        ({"BinaryData": "False"}, "text are not supported"),
        ({"HeaderSize": "-2"}, "unsupported HeaderSize"),
        ({"DistanceUnits": "inch"}, "'inch', which is not supported"),
        ({"ElementType": None}, "corrupt metaimage file"),
        ({"TransformMatrix": "1 0 0"}, "corrupt metaimage file"),
    ],
)
def test_unusable_metaimage_headers_are_refused(tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason):
        read_image_header(meta(tmp_path / "a.mha", changes), "metaimage")


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_incomplete_voxels_are_refused(tmp_path, name):
    write, kind = (meta, "metaimage") if name == "a.mha" else (nrrd, "nrrd")
    cases = [({}, VALUES[:-1]), ({}, b"")]
    if kind == "nrrd":
        packed = gzip.compress(VALUES)
        cases += [({"encoding": "gzip"}, packed[:-12]), ({"encoding": "gzip"}, VALUES)]
        cases += [({"encoding": "gzip"}, packed[:-8] + b"checksum")]
    for changes, voxels in cases:
        path = write(tmp_path / name, changes, voxels)
        read_image_header(path, kind)
        with pytest.raises(InputError, match="corrupt or truncated"):
            read_voxels(path, kind)


def test_a_header_without_an_end_is_refused(tmp_path):
    for name, kind in (("a.nrrd", "nrrd"), ("a.mha", "metaimage")):
        (tmp_path / name).write_text("NRRD0004\ntype: short\n" if kind == "nrrd" else "NDims = 3\n")
        with pytest.raises(InputError, match="incomplete"):
            read_image_header(tmp_path / name, kind)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="LEAKLOC_DATA is absent")
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd"])
def test_patient_volumes_are_read_as_by_simpleitk(tmp_path, dtype, name):
    sitk = pytest.importorskip("SimpleITK")
    path = DATA / "spider" / "spider-005_T2SPACE.nii.gz"
    [stack] = load_study(path, LoaderSettings()).stacks
    volume = stack.load().crop((slice(0, 40),) * 3)
    image = volume.with_array(volume.array.astype(dtype)).to_sitk()
    for compressed in (False, True):
        sitk.WriteImage(image, tmp_path / name, useCompression=compressed)
        kind = "nrrd" if name == "a.nrrd" else "metaimage"
        same_as_simpleitk(tmp_path / name, kind)
        assert read_image_header(tmp_path / name, kind).geometry.matches(volume.geometry, 1e-4)
