"""Which received objects are stored, and which are refused."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from leakloc.core.errors import InputError
from leakloc.core.settings import NodeSettings
from leakloc.services.node import spool as spool_module
from leakloc.services.node.spool import (
    ConflictError,
    FullError,
    Spool,
    TooLargeError,
    check_inflated,
    examine,
    is_uid,
)

Maker = Callable[..., Any]


def encoded(dataset: pydicom.Dataset, syntax: str | None = None) -> bytes:
    """A dataset as a file in memory."""
    stream = BytesIO()
    if syntax is not None:
        stream_of = BytesIO()
        pydicom.dcmwrite(stream_of, dataset, enforce_file_format=True)
        dataset = pydicom.dcmread(BytesIO(stream_of.getvalue()))
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)
        else:
            dataset["PixelData"].VR = "OW"
            dataset.file_meta.TransferSyntaxUID = syntax
            little = syntax != ExplicitVRBigEndian
            implicit = syntax == ImplicitVRLittleEndian
            pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little)
            return stream.getvalue()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "out", NodeSettings(min_free_mib=0, max_study_instances=4))


SYNTAXES = [
    None,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_keeps_every_encoding_and_sees_where_it_is_cut(
    spool: Spool, study: Maker, syntax: str | None
) -> None:
    dataset = study().datasets[0]
    content = encoded(dataset, syntax)
    assert spool.store(content, dataset.SOPInstanceUID) == dataset.StudyInstanceUID
    kept = spool.study(dataset.StudyInstanceUID) / f"{dataset.SOPInstanceUID}.dcm"
    assert kept.read_bytes() == content
    for length in (1, 140, 300, len(content) // 2, len(content) - 100, len(content) - 2):
        with pytest.raises(InputError):
            examine(content[:length], dataset.SOPInstanceUID)


def test_the_same_object_again_changes_nothing(spool: Spool, study: Maker) -> None:
    dataset = study().datasets[0]
    for _ in range(2):
        uid = spool.store(encoded(dataset), dataset.SOPInstanceUID)
    kept = spool.study(uid) / f"{dataset.SOPInstanceUID}.dcm"
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    for syntax in (None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        spool.store(encoded(dataset, syntax), dataset.SOPInstanceUID)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("changed", ["PatientID", "PixelData"])
def test_other_content_under_a_stored_uid_is_refused(
    spool: Spool, study: Maker, syntax: str | None, changed: str
) -> None:
    dataset = study().datasets[0]
    uid = spool.store(encoded(dataset), dataset.SOPInstanceUID)
    kept = spool.study(uid) / f"{dataset.SOPInstanceUID}.dcm"
    before = kept.read_bytes()
    other = bytes(len(dataset.PixelData)) if changed == "PixelData" else "other"
    setattr(dataset, changed, other)
    with pytest.raises(ConflictError, match="is kept"):
        spool.store(encoded(dataset, syntax), dataset.SOPInstanceUID)
    assert kept.read_bytes() == before
    assert len(list(spool.study(uid).iterdir())) == 1
    assert list((spool.folder / ".partial").iterdir()) == []


EVIL = ["../../x", "/etc/passwd", "1/2", "..", "", "1..2", "1.2\x001", "1." + "2" * 64, "a"]


@pytest.mark.parametrize("uid", EVIL)
def test_an_invalid_uid_gives_no_file_name(
    spool: Spool, study: Maker, uid: str, tmp_path: Path
) -> None:
    dataset = study().datasets[0]
    good = str(dataset.SOPInstanceUID)
    with pydicom.config.disable_value_validation():
        dataset.StudyInstanceUID = uid
        content = encoded(dataset)
        with pytest.raises(InputError, match="Study Instance UID"):
            spool.store(content, good)
        with pytest.raises(InputError, match="UID"):
            spool.store(content, uid)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == []


@given(st.text(max_size=70))
def test_a_uid_is_one_plain_file_name(text: str) -> None:
    if is_uid(text):
        assert text.isascii() and text == Path(text).name and text not in (".", "..")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_only_input_errors(data: st.DataObject) -> None:
    content = bytearray(_SAMPLE)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InputError):
        examine(bytes(content), "1.2.3")


def _sample() -> bytes:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2"
    dataset.PatientID, dataset.Rows, dataset.Columns = "P", 2, 2
    dataset.BitsAllocated, dataset.PixelData = 16, bytes(8)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    return encoded(dataset)


_SAMPLE = _sample()


def bomb(decoded_mib: int, where: str = "pixels", split: int = 1) -> bytes:
    """A deflated object of this inflated size, as `split` deflate blocks."""
    dataset = pydicom.dcmread(BytesIO(_SAMPLE))
    content = encoded(dataset, DeflatedExplicitVRLittleEndian)
    (meta_length,) = struct.unpack_from("<L", content, 140)
    start = 144 + meta_length
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    length = decoded_mib * 1024**2
    if where == "pixels":
        at = plain.index(b"\xe0\x7f\x10\x00")
        tag, rest = plain[at : at + 8], b""
    else:  # a private element of the header
        at = plain.index(b"\x10\x00\x20\x00LO")
        tag, rest = b"\x09\x00\x10\x10OB\0\0", plain[at:]
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(plain[:at] + tag + struct.pack("<L", length))
    for part in range(split):
        size = length // split if part else length - length // split * (split - 1)
        body += packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)
    return content[:start] + body + packer.compress(rest) + packer.flush()


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 8),
    st.sampled_from(["pixels", "header"]),
    st.integers(1, 5),
)
def test_decoded_size_is_limited(size: int, limit: int, where: str, split: int) -> None:
    content = bomb(size, where, split)
    for check in (
        lambda: examine(content, "1.2.3", max_decoded_mib=limit),
        lambda: check_inflated(content, limit),
    ):
        if size >= limit:  # the header counts too
            with pytest.raises(TooLargeError, match="max_decoded_mib"):
                check()
        else:
            check()


def test_memory_does_not_depend_on_the_inflated_size() -> None:
    content = bomb(200)
    tracemalloc.start()
    try:
        assert examine(content, "1.2.3") == "1.2"
        assert tracemalloc.get_traced_memory()[1] < 100 * 1024**2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_deflated", [False, True])
@pytest.mark.parametrize("kind", ["items", "elements"])
def test_elements_of_a_header_are_limited(
    kind: str, is_deflated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    truly = spool_module._HeaderStream.read

    def read(self: Any, size: int | None = -1, /) -> bytes:
        try:
            return truly(self, size)
        finally:
            reads.append(self._reads)

    monkeypatch.setattr(spool_module, "_MAX_READS", 20_000)
    monkeypatch.setattr(spool_module._HeaderStream, "read", read)
    count = 40_000
    if kind == "items":
        inside = b"\xfe\xff\x00\xe0\0\0\0\0" * count
    else:
        elements = b"".join(struct.pack("<L2sH", 0x10 + (n << 8), b"LO", 0) for n in range(count))
        inside = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + elements
    at = _SAMPLE.index(b"\x10\x00\x20\x00LO")
    content = _SAMPLE[:at] + b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + inside
    if is_deflated:
        (meta_length,) = struct.unpack_from("<L", content, 140)
        meta = content[: 144 + meta_length].replace(
            b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
        )
        meta = meta[:140] + struct.pack("<L", len(meta) - 144) + meta[144:]
        at = meta.index(b"\x02\x00\x10\x00UI") + 6
        meta = meta[:at] + struct.pack("<H", 22) + meta[at + 2 :]
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        content = meta + packer.compress(content[144 + meta_length :]) + packer.flush()
    # pydicom converts an error while it reads an item.
    with pytest.raises(InputError, match=r"too many elements|not readable"):
        examine(content, "1.2.3")
    assert max(reads) <= 20_001


def test_decoded_size_of_compressed_pixels_is_that_of_the_header(spool: Spool) -> None:
    dataset = pydicom.dcmread(BytesIO(_SAMPLE))
    dataset.Rows = dataset.Columns = 65535
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(90)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset)
    with pytest.raises(TooLargeError):
        spool.store(stream.getvalue(), "1.2.3")


def test_announced_and_sent_must_agree(spool: Spool, study: Maker) -> None:
    dataset = study().datasets[0]
    with pytest.raises(InputError, match="not the one announced"):
        spool.store(encoded(dataset), "1.2.3.4")
    with pytest.raises(InputError, match="SOP class"):
        spool.store(encoded(dataset), dataset.SOPInstanceUID, "1.2.3.4")


def test_a_study_has_a_bound(spool: Spool, study: Maker) -> None:
    datasets = study().datasets
    for dataset in datasets[:4]:
        spool.store(encoded(dataset), dataset.SOPInstanceUID)
    with pytest.raises(FullError, match="4 objects"):
        spool.store(encoded(datasets[4]), datasets[4].SOPInstanceUID)
    spool.store(encoded(datasets[0]), datasets[0].SOPInstanceUID)  # known: still fine


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_loses_nothing(
    spool: Spool, study: Maker, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second = study().datasets[:2]
    uid = spool.store(encoded(first), first.SOPInstanceUID)

    def full(_handle: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullError):
        spool.store(encoded(second), second.SOPInstanceUID)
    monkeypatch.undo()
    assert [path.stem for path in spool.study(uid).iterdir()] == [first.SOPInstanceUID]
    assert list((spool.folder / ".partial").iterdir()) == []


def test_recovery_drops_only_what_was_half_written(spool: Spool, study: Maker) -> None:
    dataset = study().datasets[0]
    uid = spool.store(encoded(dataset), dataset.SOPInstanceUID)
    (spool.folder / ".partial" / "f00d").write_bytes(b"half")
    assert spool.recover() == (uid,)
    assert list((spool.folder / ".partial").iterdir()) == []
    assert len(list(spool.study(uid).iterdir())) == 1


FILL = """
import sys
from pathlib import Path
from leakloc.services.node.spool import FullError, Spool
from leakloc.core.settings import NodeSettings
from tests.services.node.test_spool import sized
spool = Spool(Path(sys.argv[1]), NodeSettings(min_free_mib=0))
kept = []
try:
    for number in range(100):
        content, uid = sized(200_000, f"1.2.3.{number}")
        spool.store(content, uid)
        kept.append((content, uid))
except FullError:
    files = sorted(spool.study("1.2").iterdir())
    assert [path.stem for path in files] == sorted(uid for _, uid in kept)
    assert all((spool.study("1.2") / f"{uid}.dcm").read_bytes() == c for c, uid in kept)
    assert list((spool.folder / ".partial").iterdir()) == []
    print("full after", len(kept))
"""


def sized(size: int, uid: str) -> tuple[bytes, str]:
    """An MR object of about `size` bytes."""
    dataset = pydicom.dcmread(BytesIO(_SAMPLE))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.PixelData = bytes(size)
    return encoded(dataset), uid


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=3m none "{disk}"'
    space = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*space, mounted], capture_output=True, check=False).returncode
    ):
        pytest.skip("may not mount a small disk here")
    done = subprocess.run(
        [*space, f'{mounted} && exec "$@"', "sh", sys.executable, "-c", FILL, str(disk)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full after 1")
