"""Compressed DICOM files, archives inside folders, and files without preamble."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from leakloc.core.errors import InputError, neutral_names
from leakloc.loaders import archives, load_study


def only(study):
    (stack,) = study.stacks
    return stack


def zipped(made, path):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in made.paths:
            archive.write(file, file.name)
    return path


@pytest.mark.parametrize("codec", [gzip, bz2, lzma])
def test_compressed_files_are_read(series, settings, tmp_path, codec):
    made = series().write(tmp_path)
    for path in made.paths[::2]:  # the others remain uncompressed
        path.with_suffix(".dcm.gz").write_bytes(codec.compress(path.read_bytes()))
        path.unlink()
    volume = only(load_study(tmp_path, settings)).load()
    np.testing.assert_array_equal(volume.array, made.array)


def test_one_compressed_file_is_read(series, settings, tmp_path):
    made = series().write(tmp_path)
    path = tmp_path / "one.dcm.gz"
    path.write_bytes(gzip.compress(made.paths[0].read_bytes()))
    stack = only(load_study(path, settings))
    assert stack.n_instances == 1
    assert stack.notes[-1].code == "too_few_slices"


def test_compressed_bombs_are_refused(series, settings, tmp_path):
    made = series().write(tmp_path / "in")
    path = tmp_path / "bomb.dcm.gz"
    path.write_bytes(gzip.compress(made.paths[0].read_bytes() + bytes(20_000_000)))
    small = settings.model_copy(update={"max_archive_gib": 0.01})
    with pytest.raises(InputError, match="max_archive_gib"):
        load_study(path, small)


def test_an_archive_in_a_folder_without_images_is_read(series, settings, tmp_path):
    made = series().write(tmp_path / "in")
    zipped(made, tmp_path / "study" / "export.zip")
    (tmp_path / "study" / "readme.txt").write_text("notes")
    volume = only(load_study(tmp_path / "study", settings)).load()
    np.testing.assert_array_equal(volume.array, made.array)


def test_an_archive_in_an_archive_is_read(series, settings, tmp_path):
    made = series().write(tmp_path / "in")
    inner = zipped(made, tmp_path / "inner.zip")
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "series/inner.zip")
    volume = only(load_study(outer, settings)).load()
    np.testing.assert_array_equal(volume.array, made.array)


def test_an_archive_next_to_images_is_noted(series, settings, tmp_path):
    made = series().write(tmp_path)
    zipped(series().write(tmp_path.parent / "other"), tmp_path / "other.zip")
    study = load_study(tmp_path, settings)
    np.testing.assert_array_equal(only(study).load().array, made.array)
    assert [note.code for note in study.notes] == ["archives_not_read"]
    assert [file.path.name for file in study.skipped] == ["other.zip"]


def test_a_corrupt_archive_in_a_folder_is_named(series, settings, tmp_path):
    whole = zipped(series().write(tmp_path / "in"), tmp_path / "study" / "export.zip")
    whole.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be extracted: it is corrupt or truncated"):
        load_study(tmp_path / "study", settings)


@pytest.mark.parametrize("has_meta", [True, False])
def test_a_single_file_without_preamble_is_read(series, enhanced, settings, tmp_path, has_meta):
    made = series()
    dataset = enhanced(tmp_path / "whole.dcm", made, list(range(8)))
    path = tmp_path / "bare"
    if has_meta:
        path.write_bytes((tmp_path / "whole.dcm").read_bytes()[132:])
    else:
        del dataset.file_meta
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(only(load_study(path, settings)).load().array, made.array)


@pytest.mark.parametrize("count", ["size", "number"])
def test_archives_in_a_folder_have_common_limits_and_neutral_names(
    series, settings, tmp_path, count
):
    made = series().write(tmp_path / "files")
    for name in ("doe1.zip", "doe2.zip"):
        zipped(made, tmp_path / "study" / name)
    total = sum(path.stat().st_size for path in made.paths)
    limit = (
        {"max_archive_gib": 1.5 * total / 1024**3}
        if count == "size"
        else {"max_archive_files": len(made.paths) + 1}
    )
    with neutral_names(lambda _: "the file"), pytest.raises(InputError, match="the file") as raised:
        load_study(tmp_path / "study", settings.model_copy(update=limit))
    assert "doe" not in str(raised.value)


def test_a_volume_in_an_archive_of_a_folder_may_name_its_data_file(settings, tmp_path):
    image = sitk.GetImageFromArray(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6))
    sitk.WriteImage(image, tmp_path / "a.mhd")
    (tmp_path / "study").mkdir()
    with zipfile.ZipFile(tmp_path / "study" / "a.zip", "w") as archive:
        for name in ("a.mhd", "a.raw"):
            archive.write(tmp_path / name, name)
    volume = only(load_study(tmp_path / "study", settings)).load()
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))


def tar_of(*members, content=b"", format=tarfile.DEFAULT_FORMAT):
    """Bytes of members whose headers may state any size."""
    return b"".join(member.tobuf(format) for member in members) + content


def stated(kind, size, name="member"):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member


def sparse(count):
    """A member in `count` pieces, which extended headers list."""
    first = bytearray(tar_of(stated(tarfile.GNUTYPE_SPARSE, 0), format=tarfile.GNU_FORMAT))
    first[482] = 1  # an extended header follows
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    return bytes(first) + (b"00000000001\0" * 42 + b"\1" + bytes(7)) * count


@pytest.mark.parametrize("codec", [gzip, bz2, lzma])
@pytest.mark.parametrize(
    "start",
    [
        tar_of(stated(tarfile.GNUTYPE_LONGNAME, 20_000_000), format=tarfile.GNU_FORMAT),
        tar_of(stated(tarfile.GNUTYPE_LONGLINK, 20_000_000), format=tarfile.GNU_FORMAT),
        tar_of(stated(tarfile.XHDTYPE, 20_000_000)),
        tar_of(stated(tarfile.XGLTYPE, 20_000_000)),
        sparse(count=10_000),
    ],
    ids=["name", "link", "header", "common header", "sparse"],
)
def test_headers_in_a_tar_archive_are_bounded(settings, tmp_path, codec, start):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(codec.compress(start + bytes(20_000_000)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.tar\.gz"):
        load_study(path, settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15_000_000


def test_long_names_in_a_tar_archive_are_read(series, settings, tmp_path):
    made = series().write(tmp_path / "in")
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz", format=format) as archive:
            for file in made.paths:
                archive.add(file, f"{'folder/' * 40}{file.name}")
        volume = only(load_study(path, settings)).load()
        np.testing.assert_array_equal(volume.array, made.array)


def test_folders_in_a_tar_archive_are_counted(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_TAR_OTHERS", 100)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_of(*[stated(tarfile.DIRTYPE, 0)] * 101)))
    with pytest.raises(InputError, match="corrupt"):
        load_study(path, settings)
