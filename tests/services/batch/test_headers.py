from __future__ import annotations

import io
import random
from typing import Any

import batch_fakes as fakes
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from leakloc.services.batch import headers
from leakloc.services.batch.headers import HEAD_BYTES, is_dicom, read_ownership

UID = "1.2.3.4"
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
]


def head_of(syntax: Any, **tags: Any) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows = 4
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()[:HEAD_BYTES]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_encoding_is_read(syntax):
    head = head_of(syntax, StudyInstanceUID=UID, PatientID="Müller", Modality="MR")
    found = read_ownership(head)
    assert is_dicom(head)
    assert (found.study_uid, found.modality) == (UID, "MR")
    assert len(found.patient) == 16 and "ller" not in found.patient


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_uid_of_another_study_within_a_sequence_is_not_taken(syntax):
    other = Dataset()
    other.StudyInstanceUID = "9.9.9"
    head = head_of(syntax, RelatedSeriesSequence=Sequence([other]), StudyInstanceUID=UID)
    assert read_ownership(head).study_uid == UID
    head = head_of(syntax, RelatedSeriesSequence=Sequence([other]))
    assert read_ownership(head).study_uid == ""


def test_what_is_absent_or_no_uid_is_empty():
    assert read_ownership(head_of(ExplicitVRLittleEndian)) == ("", "", "")
    assert read_ownership(fakes.header("../../etc/passwd")).study_uid == ""
    assert read_ownership(fakes.header("1" * 70)).study_uid == ""


def test_a_deflated_file_is_read_from_its_first_bytes():
    noise = random.Random(0).randbytes(20_000)
    head = head_of(
        DeflatedExplicitVRLittleEndian, StudyInstanceUID=UID, Modality="MR",
        PixelData=noise, BitsAllocated=8,
    )  # fmt: skip
    assert len(head) == HEAD_BYTES
    assert read_ownership(head)[::2] == (UID, "MR")


def test_the_quick_way_is_taken_for_what_scanners_write(monkeypatch):
    monkeypatch.setattr(headers, "_parse", lambda _: pytest.fail("parsed in full"))
    for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless):
        assert read_ownership(head_of(syntax, StudyInstanceUID=UID)).study_uid == UID


@given(
    uid=st.from_regex(r"[1-9](\.[1-9][0-9]{0,5}){1,9}", fullmatch=True),
    patient=st.text("ABC^ 019", max_size=20),
    institution=st.text("xyz ", max_size=200),
    syntax=st.sampled_from(SYNTAXES),
)
def test_it_reads_what_pydicom_reads(uid, patient, institution, syntax):
    head = head_of(
        syntax, StudyInstanceUID=uid, PatientID=patient, InstitutionName=institution, Modality="MR"
    )
    whole = head_of(ImplicitVRLittleEndian, StudyInstanceUID=uid, PatientID=patient, Modality="MR")
    assert read_ownership(head) == read_ownership(whole)
    assert read_ownership(head).study_uid == uid


@given(st.binary(max_size=400), st.integers(0, 300), st.integers(0, 255))
def test_no_damage_raises(noise, place, value):
    whole = bytearray(fakes.header(UID))
    whole[place % len(whole)] = value
    for head in (noise, bytes(whole), bytes(whole[:place]), bytes(128) + b"DICM" + noise):
        is_dicom(head)
        read_ownership(head)
