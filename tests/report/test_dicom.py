import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from leakloc.anatomy.vocabulary import LABEL_VALUES, PRIVATE_SCHEME_UID, level_code, vertebra_code
from leakloc.core.volume import Geometry
from leakloc.pipeline import Analysis
from leakloc.report import clinical_terms, dicom, structured_report, write_outputs
from leakloc.segmentation.result import Candidate

Make = Callable[..., Analysis]
STORED = ["LPS", "PSL", "RAI", "SLA", "LSA", "PIR"]
"""Axial, sagittal and coronal acquisitions, stacked either way."""


def read_back(path: Path, geometry: Geometry) -> dict[str, np.ndarray]:
    """Masks of a SEG by segment label, on a grid, placed by the positions in the file."""
    seg = hd.seg.segread(path)
    masks = {}
    for number in seg.segment_numbers:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True)
        filled = np.argwhere(volume.array > 0)
        affine = volume.affine
        points = filled @ affine[:3, :3].T + affine[:3, 3]
        kji = geometry.kji_from_lps(points)
        assert np.abs(kji - np.round(kji)).max() < 0.02  # on voxel centers
        mask = np.zeros(geometry.shape, bool)
        mask[tuple(np.round(kji).astype(int).T)] = True
        masks[seg.get_segment_description(number).segment_label] = mask
    return masks


@pytest.mark.parametrize("codes", STORED)
def test_segmentation_read_back_is_the_mask(
    make_small: Make, as_dicom: Make, tmp_path: Path, codes: str
) -> None:
    analysis = as_dicom(make_small(codes), tmp_path)
    sources = dicom.read_sources(dicom.source_stacks(analysis))
    seg = dicom.segmentation_object(analysis, dicom.segments(analysis), sources)
    seg.save_as(tmp_path / "seg.dcm")
    geometry = analysis.triage.myelogram.geometry
    masks = read_back(tmp_path / "seg.dcm", geometry)
    segmentation, levels = analysis.segmentation, analysis.levels.mask
    expected = {
        "Thecal sac": segmentation.thecal_sac.array == 1,
        "Epidural fluid 1 L4-L5": segmentation.collections.array == 1,
        "Epidural fluid 2 L2-L3": segmentation.collections.array == 2,
        **{
            f"{v.name} vertebra": levels.array == LABEL_VALUES[v.name]
            for v in analysis.levels.vertebrae
        },
    }
    assert set(masks) == {label for label, mask in expected.items() if mask.any()}
    for label, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[label], err_msg=label)
        format_coordinate = geometry.lps_from_kji(np.argwhere(expected[label])).mean(axis=0)
        again = geometry.lps_from_kji(np.argwhere(mask)).mean(axis=0)
        np.testing.assert_allclose(again, format_coordinate, atol=0.01)


def test_headers_of_all_images_have_references_and_geometry(
    make_small: Make, as_dicom: Make, tmp_path: Path
) -> None:
    """Only the header of the first image is read completely."""
    (stack,) = dicom.source_stacks(as_dicom(make_small("LPS"), tmp_path))
    sources = dicom.read_sources([stack])
    assert len(sources.main) == len(stack.files) > 1
    for path, read in zip(stack.files, sources.main, strict=True):
        stored = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in (
            *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
            *("FrameOfReferenceUID", "SliceThickness", "PatientID", "PatientName"),
        ):
            assert read[keyword].value == stored[keyword].value, keyword
    assert sources.main[0].Manufacturer == stored.Manufacturer


@pytest.mark.parametrize("overlap", [False, True])
def test_each_segment_is_written_whole(
    make_small: Make, as_dicom: Make, tmp_path: Path, overlap: bool
) -> None:
    """Masks made elsewhere may overlap; those that do not go to highdicom as one map."""
    analysis = as_dicom(make_small("LPS"), tmp_path)
    levels, sac = analysis.levels.mask, analysis.segmentation.thecal_sac.array > 0
    mask = np.where(sac | (analysis.segmentation.collections.array > 0), 0, levels.array)
    if overlap:
        mask[sac] = LABEL_VALUES[analysis.levels.vertebrae[0].name]
    analysis = replace(
        analysis, levels=replace(analysis.levels, mask=levels.with_array(mask.astype(np.uint8)))
    )
    found = dicom.segments(analysis)
    sources = dicom.read_sources(dicom.source_stacks(analysis))
    seg = dicom.segmentation_object(analysis, found, sources)
    assert seg.SegmentsOverlap == ("YES" if overlap else "NO")
    seg.save_as(tmp_path / "seg.dcm")
    masks = read_back(tmp_path / "seg.dcm", analysis.triage.myelogram.geometry)
    assert set(masks) == {segment.label for segment in found}
    for segment in found:
        np.testing.assert_array_equal(masks[segment.label], segment.mask(), err_msg=segment.label)


def objects(folder: Path) -> dict[str, pydicom.Dataset]:
    return {f.name: pydicom.dcmread(f) for f in folder.rglob("*.dcm")}


def test_objects_belong_to_the_source_study_with_fresh_uids(
    written: tuple[Analysis, Path],
) -> None:
    analysis, out = written
    (stack,) = dicom.source_stacks(analysis)
    source = pydicom.dcmread(stack.files[0])
    made = objects(out)
    assert len(made) == 10
    for made_object in made.values():
        assert made_object.StudyInstanceUID == source.StudyInstanceUID
        assert made_object.PatientID == source.PatientID
        assert made_object.SeriesInstanceUID != source.SeriesInstanceUID
    uids = {o.SOPInstanceUID for o in made.values()}
    assert len(uids) == len(made) and not uids & set(stack.sop_instance_uids)
    assert len({o.SeriesInstanceUID for o in made.values()}) == 3


def test_objects_state_research_and_the_private_scheme(written: tuple[Analysis, Path]) -> None:
    for name, made in objects(written[1]).items():
        assert made.ContentQualification == "RESEARCH", name
        (scheme,) = made.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == "99LEAKLOC"
        assert scheme.CodingSchemeUID == PRIVATE_SCHEME_UID
        assert made.SeriesDescription.endswith("Research use only - not a medical device"), name
        assert len(made.SeriesDescription) <= 64


@pytest.mark.parametrize("supplied", [False, True])
def test_algorithm_family_of_each_segment(make_small: Make, supplied: bool) -> None:
    """A network takes part, except in masks and levels of the user."""
    analysis = make_small("LPS")
    if supplied:
        own = tuple(Candidate(n, True, 0.9, 1.0, np.zeros(3), "supplied", (), ()) for n in (1, 2))
        numbering = replace(analysis.levels.numbering, method="external")
        analysis = replace(
            analysis,
            segmentation=replace(analysis.segmentation, candidates=own),
            levels=replace(analysis.levels, numbering=numbering),
        )
    assert {segment.by_network for segment in dicom.segments(analysis)} == {not supplied}


def test_segments_of_a_network_are_of_artificial_intelligence(
    written: tuple[Analysis, Path],
) -> None:
    seg = hd.seg.segread(written[1] / "dicom" / "seg.dcm")
    for number in seg.segment_numbers:
        algorithm = seg.get_segment_description(number).algorithm_identification
        assert algorithm.family.meaning == "Artificial Intelligence"


def test_segmentation_refers_to_the_source_slices(written: tuple[Analysis, Path]) -> None:
    analysis, out = written
    (stack,) = dicom.source_stacks(analysis)
    seg = hd.seg.segread(out / "dicom" / "seg.dcm")
    assert seg.SegmentationType == "BINARY"
    assert seg.FrameOfReferenceUID == pydicom.dcmread(stack.files[0]).FrameOfReferenceUID
    place = {uid: k for k, uid in enumerate(stack.sop_instance_uids)}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = place[source.ReferencedSOPInstanceUID]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        expected = analysis.triage.myelogram.geometry.lps_from_ijk([0, 0, k])
        np.testing.assert_allclose(np.array(position, float), expected, atol=0.01)


def test_captures_are_the_pictures(written: tuple[Analysis, Path]) -> None:
    from PIL import Image

    _, out = written
    for path in (out / "dicom" / "sc").iterdir():
        capture = pydicom.dcmread(path)
        picture = np.asarray(Image.open(out / "overlays" / f"{path.stem}.png"))
        np.testing.assert_array_equal(capture.pixel_array, picture)
        assert capture.BurnedInAnnotation == "NO"


SECRETS = {
    "PatientName": "ZZNAME^X", "PatientID": "ZZID", "PatientBirthDate": "19610203",
    "PatientSex": "O", "PatientAge": "064Y", "PatientWeight": "71.5", "PatientSize": "1.83",
    "PatientComments": "ZZCOMMENT", "IssuerOfPatientID": "ZZISSUER", "EthnicGroup": "ZZGROUP",
    "OtherPatientIDs": "ZZOTHER", "PatientAddress": "ZZSTREET", "PatientTelephoneNumbers": "ZZTEL",
    "AdditionalPatientHistory": "ZZHISTORY", "Occupation": "ZZJOB", "MedicalAlerts": "ZZALERT",
    "AccessionNumber": "ZZACC", "StudyID": "ZZSTUDY", "StudyDescription": "ZZSTUDYDESC",
    "SeriesDescription": "ZZSERIESDESC", "ProtocolName": "ZZPROTOCOL", "StudyDate": "20230417",
    "StudyTime": "111213", "SeriesDate": "20230417", "SeriesTime": "111213",
    "AcquisitionDate": "20230417", "AcquisitionTime": "111213", "ContentDate": "20230417",
    "AcquisitionDateTime": "20230417111213", "InstanceCreationDate": "20230417",
    "ReferringPhysicianName": "ZZREF^X", "ReferringPhysicianAddress": "ZZREFADR",
    "PerformingPhysicianName": "ZZPERF^X", "OperatorsName": "ZZOPERATOR^X",
    "PhysiciansOfRecord": "ZZRECORD^X", "NameOfPhysiciansReadingStudy": "ZZREADER^X",
    "RequestingPhysician": "ZZREQ^X", "InstitutionName": "ZZHOSPITAL",
    "InstitutionAddress": "ZZHOSPADR", "InstitutionalDepartmentName": "ZZDEPARTMENT",
    "StationName": "ZZSTATION", "DeviceSerialNumber": "ZZSERIAL", "DeviceUID": "1.2.99.77",
    "PerformedStationAETitle": "ZZAE", "ImageComments": "ZZIMAGE", "BurnedInAnnotation": "NO",
    "ClinicalTrialSubjectID": "ZZTRIAL", "ClinicalTrialSponsorName": "ZZSPONSOR",
}  # fmt: skip
"""Identifying attributes of several modules, with recognizable values."""
PARTS = ["ZZ", "19610203", "20230417", "111213", "1.83", "71.5", "064Y", "1.2.99.77"]


@pytest.fixture(scope="module")
def anonymous(
    make_small: Make, as_dicom: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Analysis, Path]:
    folder = tmp_path_factory.mktemp("anonymous")
    analysis = as_dicom(make_small("LPS"), folder / "source")
    for path in (folder / "source").iterdir():
        image = pydicom.dcmread(path)
        for keyword, value in SECRETS.items():
            setattr(image, keyword, value)
        image.private_block(0x0009, "ZZPRIVATE", create=True).add_new(1, "LO", "ZZPRIVATE")
        image.RequestAttributesSequence = [pydicom.Dataset()]
        image.RequestAttributesSequence[0].RequestedProcedureID = "ZZREQUEST"
        image.save_as(path)
    settings = analysis.settings.changed(
        report__dicom_identity="remove",
        report__write=["seg", "sr", "sc"],
        report__picture_height_px=400,
    )
    analysis = replace(analysis, settings=settings)
    report = write_outputs(analysis, folder / "out")
    assert set(report.outputs.dicom) == {"seg", "sr", "sc"}
    return analysis, folder / "out"


def test_identity_can_be_removed(anonymous: tuple[Analysis, Path]) -> None:
    analysis, out = anonymous
    made = objects(out)
    assert len(made) == 10
    for name, found in made.items():
        found.pop("PixelData", None)  # its bytes may be any text
        assert [part for part in PARTS if part in found.to_json()] == [], name
        assert found.PatientID == found.PatientName == found.AccessionNumber == "", name
        assert found.StudyInstanceUID == analysis.study.info.study_instance_uid
        assert found.PatientIdentityRemoved == "YES"
        assert found.LongitudinalTemporalInformationModified == "REMOVED"
        codes = [item.CodeValue for item in found.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113110"]
        assert len(found.DeidentificationMethod) == 2
        assert time.strftime("%Y%m%d") not in str(found)
    hd.seg.segread(out / "dicom" / "seg.dcm")
    hd.sr.srread(out / "dicom" / "sr.dcm")


def test_objects_without_identity_have_no_attribute_of_the_basic_profile(
    anonymous: tuple[Analysis, Path],
) -> None:
    """The table of DICOM PS3.15 Annex E, as maintained by dicom-anonymizer."""
    selector = pytest.importorskip("dicomanonymizer.dicomfields_selector")
    table = selector.dicom_anonymization_database_selector("dicomfields_2026c")
    removed = {tag for action in ("X_TAGS", "X_Z_TAGS", "X_D_TAGS") for tag in table[action]}
    # Written by leakloc and highdicom about the new objects; dates are dummies.
    own = {
        *("SeriesDescription", "ImageComments", "ContributionDescription"),
        *("InstanceCreationDate", "ContributionDateTime"),
        *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
    }
    for name, found in objects(anonymous[1]).items():
        identifying = {
            element.keyword
            for element in found.iterall()
            if (element.tag.group, element.tag.element) in removed and element.value
        }
        assert identifying - own == set(), name
        assert not any(element.tag.is_private for element in found.iterall())


def test_anonymised_sources_without_patient_attributes_work(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    for path in (tmp_path / "source").iterdir():
        image = pydicom.dcmread(path)
        for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate"):
            delattr(image, keyword)
        image.save_as(path)
    report = write_outputs(with_settings(analysis, report__write=["seg", "sr"]), tmp_path / "out")
    assert set(report.outputs.dicom) == {"seg", "sr"}


def written_after(
    analysis: Analysis, with_settings: Make, folder: Path, change: Callable[[int, Path], None]
) -> Path:
    """The objects written after `change` of each source file."""
    for number, path in enumerate(sorted((folder / "source").iterdir())):
        change(number, path)
    analysis = with_settings(analysis, report__write=["seg", "sr", "sc"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = write_outputs(analysis, folder / "out")
    assert [w.message for w in report.quality.warnings if w.code.startswith("dicom_")] == []
    assert set(report.outputs.dicom) == {"seg", "sr", "sc"}
    return folder / "out" / "dicom"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e"),
        ("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
        ("ISO_IR 100", "Buc^J\u00e9r\u00f4me"),
        (None, "Doe^Jane"),
    ],
)
def test_names_in_any_character_set_are_written(
    make_small: Make,
    as_dicom: Make,
    with_settings: Make,
    tmp_path: Path,
    charset: list[str] | str | None,
    name: str,
) -> None:
    def change(_: int, path: Path) -> None:
        image = pydicom.dcmread(path)
        if charset is not None:
            image.SpecificCharacterSet = charset
        image.PatientName = name
        image.save_as(path)

    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    made = written_after(analysis, with_settings, tmp_path, change)
    for path in (made / "seg.dcm", made / "sr.dcm", next((made / "sc").iterdir())):
        assert str(pydicom.dcmread(path).PatientName) == name


def test_sources_with_an_unknown_character_set_are_written(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    def change(_: int, path: Path) -> None:
        content = path.read_bytes()
        image = pydicom.dcmread(path)
        image.SpecificCharacterSet = "ISO_IR 100"
        image.PatientName = "Buc^J\u00e9r\u00f4me"
        image.save_as(path)
        content = path.read_bytes()
        assert content.count(b"ISO_IR 100") == 1
        path.write_bytes(content.replace(b"ISO_IR 100", b"ISO_IR 999"))

    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    written_after(analysis, with_settings, tmp_path, change)


def test_sources_with_invalid_values_are_written_without_warnings(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    def change(number: int, path: Path) -> None:
        with pydicom.config.disable_value_validation():
            image = pydicom.dcmread(path)
            image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.840.05.1", "1.02.840.7"
            image.SOPInstanceUID = f"1.2.840.0113.{number:05d}"
            image.StudyDate, image.StudyTime, image.PatientSex = "2026.01.02", "10h15", "female"
            image.PatientAge, image.PatientBirthDate = "45", "unknown"
            image.AccessionNumber = "longer than sixteen characters"
            image.save_as(path)
        content = path.read_bytes()
        thickness = image["SliceThickness"].value.original_string.encode()
        at = content.index(b"\x18\x00\x50\x00DS") + 8
        changed = b"1,5".ljust(len(thickness) + len(thickness) % 2)
        path.write_bytes(content[:at] + changed + content[at + len(changed) :])

    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    written_after(analysis, with_settings, tmp_path, change)


def jitter_orientation(number: int, image: pydicom.Dataset) -> None:
    jittered = np.array(image.ImageOrientationPatient, float) + 1e-5 * (number % 2)
    image.ImageOrientationPatient = [f"{x:.8f}" for x in jittered]


def change_frame_of_reference(number: int, image: pydicom.Dataset) -> None:
    image.FrameOfReferenceUID = f"1.2.3.{number + 1}"


@pytest.mark.parametrize("edit", [jitter_orientation, change_frame_of_reference])
def test_attributes_that_differ_between_slices_are_unified(
    edit: Callable[[int, pydicom.Dataset], None],
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path,
) -> None:  # fmt: skip
    def change(number: int, path: Path) -> None:
        image = pydicom.dcmread(path)
        edit(number, image)
        image.save_as(path)

    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    made = written_after(analysis, with_settings, tmp_path, change)
    masks = read_back(made / "seg.dcm", analysis.triage.myelogram.geometry)
    np.testing.assert_array_equal(
        masks["Epidural fluid 1 L4-L5"], analysis.segmentation.collections.array == 1
    )


def test_the_text_of_a_library_error_is_shown_without_patient_data(
    make_small: Make,
    as_dicom: Make,
    with_settings: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")

    def broken(*_: object) -> None:
        pydicom.dcmread(tmp_path / "of Doe^Jane")

    monkeypatch.setattr(dicom, "segmentation_object", broken)
    write = with_settings(analysis, report__write=["seg"])
    warning = write_outputs(write, tmp_path / "out").quality.warnings[-1]
    assert warning.code == "dicom_segmentation_not_written"
    assert "No such file or directory" in warning.message
    assert "Doe" not in warning.message


def test_a_source_without_frame_of_reference_is_a_warning(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    for path in (tmp_path / "source").iterdir():
        image = pydicom.dcmread(path)
        del image.FrameOfReferenceUID
        image.save_as(path)
    report = write_outputs(with_settings(analysis, report__write=["seg"]), tmp_path / "out")
    assert report.outputs.dicom == {} and not (tmp_path / "out" / "dicom").exists()
    warning = report.quality.warnings[-1]
    assert warning.code == "dicom_objects_not_written"
    assert "Frame of Reference" in warning.message


def test_other_formats_get_no_dicom_objects(
    analysis: Analysis, with_settings: Make, folder: Path
) -> None:
    report = write_outputs(with_settings(analysis, report__write=["seg", "sr"]), folder)
    assert report.outputs.dicom == {}
    assert report.quality.warnings[-1].code == "no_dicom_source"


def test_standard_codes_are_those_of_the_dicom_dictionaries() -> None:
    from pydicom.sr._concepts_dict import concepts

    known = {
        code: meaning
        for entries in concepts["SCT"].values()
        for code, (meaning, _) in entries.items()
    }
    chain = [*LABEL_VALUES]
    for name in chain:
        term = vertebra_code(name)
        assert (known[term.value] if term.scheme == "SCT" else term.meaning) == term.meaning
    for upper, lower in [("C2", "C3"), ("C7", "T1"), ("T12", "L1"), ("L4", "L5"), ("L5", "S1")]:
        term = level_code(f"{upper}-{lower}")
        assert term.scheme == "SCT" and known[term.value] == term.meaning
    assert level_code("L6-S1").scheme == level_code("S1-S2").scheme == "99LEAKLOC"
    terms = [*vars(dicom).values(), *vars(structured_report).values()]
    terms += vars(clinical_terms).values()
    terms += [*clinical_terms.POSITIONS.values(), *clinical_terms.LEAK.values()]
    for term in terms:
        if isinstance(term, type(level_code("L4-L5"))) and term.scheme == "SCT":
            assert term.value in known


def test_joined_stations_are_all_referred_to(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    (stack,) = dicom.source_stacks(analysis)
    for path in stack.files[20:]:  # the upper station: a series of its own
        image = pydicom.dcmread(path)
        image.SeriesInstanceUID += ".7"
        image.save_as(path)
    lower = replace(stack, files=stack.files[:20])
    upper = replace(
        stack, files=stack.files[20:], series_instance_uid=f"{stack.series_instance_uid}.7"
    )
    used = next(t for t in analysis.triage.stacks if "fluid" in t.used_for)
    stacks = (replace(used, stack=upper), replace(used, stack=lower))
    analysis = replace(analysis, triage=replace(analysis.triage, stacks=stacks))
    write_outputs(with_settings(analysis, report__write=["seg", "sr"]), tmp_path / "out")
    seg = pydicom.dcmread(tmp_path / "out" / "dicom" / "seg.dcm")
    document = pydicom.dcmread(tmp_path / "out" / "dicom" / "sr.dcm")
    for made, series in (
        (seg, seg.ReferencedSeriesSequence),
        (document, document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence),
    ):
        named = {s.SeriesInstanceUID for s in series} - {seg.SeriesInstanceUID}
        assert named == {lower.series_instance_uid, upper.series_instance_uid}, made.Modality
    masks = read_back(tmp_path / "out" / "dicom" / "seg.dcm", analysis.triage.myelogram.geometry)
    np.testing.assert_array_equal(masks["Thecal sac"], analysis.segmentation.thecal_sac.array == 1)


@pytest.mark.parametrize("shared", [True, False])
def test_a_multi_frame_source_is_referred_to(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path, shared: bool
) -> None:
    analysis = as_dicom(make_small("SLA"), tmp_path / "source")
    (stack,) = dicom.source_stacks(analysis)
    enhanced = hd.legacy.LegacyConvertedEnhancedMRImage(
        legacy_datasets=[pydicom.dcmread(path) for path in stack.files],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=4,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
    )
    if not shared:
        (common,) = enhanced.SharedFunctionalGroupsSequence
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            for frame in enhanced.PerFrameFunctionalGroupsSequence:
                setattr(frame, keyword, common[keyword].value)
            del common[keyword]
    path = tmp_path / "enhanced.dcm"
    enhanced.save_as(path)
    count = len(stack.files)
    stack = replace(
        stack,
        files=(path,) * count,
        sop_instance_uids=(str(enhanced.SOPInstanceUID),) * count,
        series_instance_uid=str(enhanced.SeriesInstanceUID),
    )
    used = next(t for t in analysis.triage.stacks if "fluid" in t.used_for)
    triage = replace(analysis.triage, stacks=(replace(used, stack=stack),))
    analysis = with_settings(replace(analysis, triage=triage), report__write=["seg", "sr"])
    report = write_outputs(analysis, tmp_path / "out")
    assert set(report.outputs.dicom) == {"seg", "sr"}
    masks = read_back(tmp_path / "out" / "dicom" / "seg.dcm", analysis.triage.myelogram.geometry)
    np.testing.assert_array_equal(
        masks["Epidural fluid 1 L4-L5"], analysis.segmentation.collections.array == 1
    )


# --- other DICOM readers ---------------------------------------------------------------------

KNOWN_ERRORS: dict[str, tuple[str, ...]] = {
    "seg.dcm": (),
    "sr.dcm": (),
    # The spine is unpaired: the module asks for no laterality then (type 2C), the validator of
    # 2022 asks always.
    "sc": ("Missing attribute Type 2C Conditional Element=<Laterality>",),
}


def tool(name: str) -> str:
    """A program next to Python or on the path; the test is skipped if it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_a_validator_finds_no_error(written: tuple[Analysis, Path]) -> None:
    dciodvfy = tool("dciodvfy")
    for path in sorted((written[1] / "dicom").rglob("*.dcm")):
        known = KNOWN_ERRORS["sc" if path.parent.name == "sc" else path.name]
        ran = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
        lines = (ran.stdout + ran.stderr).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        assert [e for e in errors if not any(k in e for k in known)] == [], path.name


def test_dcmtk_prints_the_report(written: tuple[Analysis, Path]) -> None:
    dsrdump = tool("dsrdump")
    path = written[1] / "dicom" / "sr.dcm"
    ran = subprocess.run([dsrdump, "+Pl", str(path)], capture_output=True, check=False)
    text = ran.stdout.decode("utf-8", "replace")
    assert ran.returncode == 0
    for text_line in (
        "Image Library",
        "Epidural fluid collection",
        "Not a medical device",
        "Volume",
    ):
        assert text_line in text, text_line


@pytest.mark.parametrize("codes", STORED)
def test_dcmqi_reads_the_masks_back(
    make_small: Make, as_dicom: Make, tmp_path: Path, codes: str
) -> None:
    """Another implementation: equal voxel for voxel, millimetre for millimetre."""
    import json

    import SimpleITK as sitk

    reader = tool("segimage2itkimage")
    analysis = as_dicom(make_small(codes), tmp_path / "source")
    sources = dicom.read_sources(dicom.source_stacks(analysis))
    found = dicom.segments(analysis)
    dicom.segmentation_object(analysis, found, sources).save_as(tmp_path / "seg.dcm")
    target = tmp_path / "itk"
    target.mkdir()
    ran = subprocess.run(
        [reader, "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(target),
         "--outputType", "nrrd", "-p", "s"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    geometry = analysis.triage.myelogram.geometry
    meta = json.loads((target / "s-meta.json").read_text())
    described = {
        attributes["labelID"]: attributes
        for group in meta["segmentAttributes"]
        for attributes in group
    }
    seen = {}
    for file in target.glob("s-*.nrrd"):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        filled = np.argwhere(array > 0)
        for label in np.unique(array[array > 0]):
            voxels = filled[array[tuple(filled.T)] == label][:, ::-1].astype(float)
            directions = np.array(image.GetDirection()).reshape(3, 3)
            points = (voxels * image.GetSpacing()) @ directions.T + image.GetOrigin()
            kji = geometry.kji_from_lps(points)
            assert np.abs(kji - np.round(kji)).max() < 0.02
            mask = np.zeros(geometry.shape, bool)
            mask[tuple(np.round(kji).astype(int).T)] = True
            seen[int(label)] = mask
    assert sorted(seen) == list(range(1, len(found) + 1))
    for number, segment in enumerate(found, 1):
        np.testing.assert_array_equal(seen[number], segment.mask(), err_msg=segment.label)
        assert described[number]["SegmentLabel"] == segment.label
