"""Triage on studies as five vendors would write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import generate_uid

from leakloc.core.errors import InputError
from leakloc.loaders import load_study, triage
from leakloc.validation.phantom import SCENARIOS, make_phantom, write_study

VENDORS = ["siemens", "ge", "philips", "canon", "uih"]
pytestmark = pytest.mark.slow


def written(name, vendor, folder, settings):
    coarse = replace(
        SCENARIOS[name],
        vendor=vendor,
        myelogram_shape=(96, 96, 36),
        companion_matrix=96,
        slice_mm=3.0,
        optional_series=(),
    )
    write_study(make_phantom(coarse, 3), folder, truth=False)
    return load_study(folder, settings)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", ["normal", "anonymised_headers"])
def test_myelogram_and_sagittal_t2_are_found(name, vendor, settings, tmp_path):
    result = triage(written(name, vendor, tmp_path, settings), settings)
    used = [item for item in result.stacks if "fluid" in item.used_for]
    assert [item.role for item in used] == ["myelogram"]
    assert used[0].stack.n_instances == 36
    assert "sagittal_t2" in result.companions
    roles = [item.role for item in result.stacks]
    assert roles.count("localizer") == 3
    assert roles.count("projection") == 2
    assert result.notes == ()


@pytest.mark.parametrize("vendor", VENDORS)
def test_slabs_alone_are_refused(vendor, settings, tmp_path):
    with pytest.raises(InputError, match="thick-slab"):
        triage(written("slab_only", vendor, tmp_path, settings), settings)


def test_stations_are_joined_on_the_composed_grid(settings, tmp_path):
    study = written("three_stations", "siemens", tmp_path, settings)
    result = triage(study, settings)
    assert [note.code for note in result.notes] == ["stations_stitched"]
    composed = max(study.stacks, key=lambda s: 0 if s.geometry is None else s.geometry.shape[1])
    assert result.myelogram.geometry.matches(composed.geometry)


# --- enhanced multi-frame objects -------------------------------------------------------------

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
MOVED = {
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("EchoTime", "RepetitionTime", "FlipAngle", "InversionTime", "EchoTrainLength"),
    *("SequenceName", "ScanningSequence", "SequenceVariant", "ScanOptions", "ImageType"),
    *("SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "InstanceNumber"),
    *("SliceLocation", "PixelData", "NumberOfAverages", "EchoNumbers"),
}
"""Attributes that enhanced objects keep in functional groups or under other names."""


def group(**values: Any) -> DicomSequence:
    item = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    return DicomSequence([item])


def enhanced_object(slices: list[Dataset], vendor: str) -> Dataset:
    """Classic images of one series as one Enhanced MR object in a vendor's manner."""
    first = slices[0]
    result = Dataset()
    result.file_meta = first.file_meta
    for element in first:
        if element.keyword not in MOVED and not element.tag.is_private:
            result.add(element)
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    result.NumberOfFrames = len(slices)
    codes = str(first.get("ScanningSequence", "SE"))
    result.EchoPulseSequence = "GRADIENT" if "GR" in codes else "SPIN"
    options = str(first.get("ScanOptions", ""))
    kind = list(first.ImageType)
    if vendor == "siemens":  # XA: no SequenceName, a pulse sequence name and short image types
        result.PulseSequenceName = first.get("SequenceName", "")
        kind = [*kind[:3], "NONE"] if len(kind) >= 3 else kind
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = group(
        RepetitionTime=first.get("RepetitionTime"),
        FlipAngle=first.get("FlipAngle"),
        RFEchoTrainLength=first.get("EchoTrainLength"),
    )
    shared.MRModifierSequence = group(
        SpectrallySelectedSuppression="FAT" if "FS" in options else "NONE",
        InversionRecovery="YES" if "IR" in codes else "NO",
        InversionTimes=first.get("InversionTime"),
    )
    measures = {"PixelSpacing": first.PixelSpacing, "SliceThickness": first.SliceThickness}
    frames = []
    for dataset in slices:
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=dataset.ImagePositionPatient)
        frame.PlaneOrientationSequence = group(
            ImageOrientationPatient=dataset.ImageOrientationPatient
        )
        frame.MREchoSequence = group(EffectiveEchoTime=dataset.get("EchoTime"))
        frame.MRImageFrameTypeSequence = group(FrameType=kind)
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=dataset.get("RescaleSlope", 1.0),
            RescaleIntercept=dataset.get("RescaleIntercept", 0.0),
        )
        if vendor == "philips":  # measures frame by frame, and a private group with the scale
            frame.PixelMeasuresSequence = group(**measures)
            private = Dataset()
            private.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
            private.add_new(0x2005100E, "FL", 0.0031)
            frame.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
            frame.add_new(0x2005140F, "SQ", DicomSequence([private]))
        frames.append(frame)
    if vendor != "philips":
        shared.PixelMeasuresSequence = group(**measures)
    result.SharedFunctionalGroupsSequence = DicomSequence([shared])
    result.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    result.PixelData = b"".join(dataset.PixelData for dataset in slices)
    return result


def legacy_object(slices: list[Dataset], vendor: str) -> Dataset:
    """The same as an archive converts old series: a Legacy Converted Enhanced MR object."""
    import highdicom

    for dataset in slices:
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyTime", "StudyID"):
            dataset.setdefault(keyword, "")
        for keyword in ("AccessionNumber", "ReferringPhysicianName", "StudyDate"):
            dataset.setdefault(keyword, "")
    return highdicom.legacy.LegacyConvertedEnhancedMRImage(
        slices,
        slices[0].SeriesInstanceUID,
        int(slices[0].SeriesNumber),
        generate_uid(),
        1,
    )


def converted(source: Path, target: Path, vendor: str, convert: Callable[..., Dataset]) -> None:
    """A classic study with every series of equal pictures as one object."""
    series: dict[tuple[Any, ...], list[Dataset]] = defaultdict(list)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            dataset = pydicom.dcmread(path)
            key = (dataset.SeriesInstanceUID, dataset.Rows, dataset.Columns)
            series[key].append(dataset)
    target.mkdir()
    for number, slices in enumerate(series.values()):
        convert(slices, vendor).save_as(target / f"IM_{number:04d}", enforce_file_format=True)


@pytest.mark.parametrize(
    ("vendor", "convert"),
    [
        ("siemens", enhanced_object),
        ("philips", enhanced_object),
        ("canon", enhanced_object),
        ("uih", enhanced_object),
        ("ge", legacy_object),
    ],
    ids=["siemens-xa", "philips", "canon", "uih", "ge-legacy-converted"],
)
def test_enhanced_objects_are_triaged_like_classic_series(vendor, convert, settings, tmp_path):
    classic = triage(written("normal", vendor, tmp_path / "classic", settings), settings)
    converted(tmp_path / "classic", tmp_path / "enhanced", vendor, convert)
    study = load_study(tmp_path / "enhanced", settings)
    assert len(list((tmp_path / "enhanced").iterdir())) < 10
    result = triage(study, settings)
    used = [item for item in result.stacks if "fluid" in item.used_for]
    assert [item.role for item in used] == ["myelogram"]
    assert result.companions.keys() == classic.companions.keys()
    for ours, theirs in (
        (result.myelogram, classic.myelogram),
        (result.companions["sagittal_t2"], classic.companions["sagittal_t2"]),
    ):
        assert ours.geometry.matches(theirs.geometry)
        np.testing.assert_allclose(ours.array, theirs.array, rtol=1e-6)
    assert sorted(i.role for i in result.stacks) == sorted(i.role for i in classic.stacks)
    assert result.notes == ()
