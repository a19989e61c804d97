"""The structured report, read by pydicom and by the code of a viewer."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from leakloc.localization.result import ExpectedHiatus, LengthMark, SacralHiatus
from leakloc.pipeline import Analysis
from leakloc.report import build_report, dicom, write_outputs
from leakloc.report.clinical_terms import DEVICE_UID

Make = Callable[..., Analysis]
Read = Callable[[Analysis, Path], dict]


def groups(document: pydicom.Dataset) -> dict[str, list[pydicom.Dataset]]:
    """Content items of each measurement group by tracking identifier."""
    found = {}
    measurements = next(
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    for group in measurements.ContentSequence:
        items = list(group.ContentSequence)
        name = next(i for i in items if i.ConceptNameCodeSequence[0].CodeValue == "112039")
        found[name.TextValue] = items
    return found


def values(items: list[pydicom.Dataset]) -> dict[str, float]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(
            item.MeasuredValueSequence[0].NumericValue
        )
        for item in items
        if item.ValueType == "NUM"
    }


def test_structured_report_says_what_the_report_says(written: tuple[Analysis, Path]) -> None:
    analysis, out = written
    document = pydicom.dcmread(out / "dicom" / "sr.dcm")
    assert document.VerificationFlag == "UNVERIFIED"
    assert document.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    first = groups(document)["epidural fluid 1"]
    report = build_report(analysis)
    found = values(first)
    assert found["Volume"] == report.collections[0].volume_ml
    assert found["Depth"] == report.collections[0].max_thickness_mm
    assert found["Path length"] == report.planning.targets[0].canal_distance_from_hiatus_mm
    assert "Sac compression" not in values(groups(document)["epidural fluid 2"])  # unknown
    site = next(i for i in first if i.ConceptNameCodeSequence[0].CodeValue == "363698007")
    code = site.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("243923001", "SCT")
    texts = [i.TextValue for i in document.ContentSequence if i.ValueType == "TEXT"]
    assert any("Not a medical device" in text for text in texts)
    assert report.finding.summary in texts


def test_report_and_segmentation_have_the_same_tracking_uids(
    written: tuple[Analysis, Path],
) -> None:
    _, out = written
    seg = hd.seg.segread(out / "dicom" / "seg.dcm")
    document = pydicom.dcmread(out / "dicom" / "sr.dcm")
    for number in seg.segment_numbers:
        segment = seg.get_segment_description(number)
        if segment.segment_label.endswith("vertebra"):  # without measurements
            continue
        items = groups(document)[segment.tracking_id]
        uid = next(i for i in items if i.ConceptNameCodeSequence[0].CodeValue == "112040")
        assert segment.tracking_uid == uid.UID
        reference = next(i for i in items if i.ConceptNameCodeSequence[0].CodeValue == "121191")
        image = reference.ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert int(image.ReferencedSegmentNumber) == number


def test_report_without_segmentation(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    report = write_outputs(with_settings(analysis, report__write=["sr"]), tmp_path / "out")
    assert report.outputs.dicom == {"sr": "dicom/sr.dcm"}
    assert "epidural fluid 1" in groups(pydicom.dcmread(tmp_path / "out" / "dicom" / "sr.dcm"))


def test_the_report_lists_its_images(written: tuple[Analysis, Path]) -> None:
    """Readers find the source through the image library (TID 1600)."""
    analysis, out = written
    (stack,) = dicom.source_stacks(analysis)
    document = pydicom.dcmread(out / "dicom" / "sr.dcm")
    library = next(
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "111028"
    )
    named = {
        image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for group in library.ContentSequence
        for image in group.ContentSequence
        if image.ValueType == "IMAGE"
    }
    assert named == set(stack.sop_instance_uids)


def items_of(items: list[pydicom.Dataset], kind: str) -> list[pydicom.Dataset]:
    return [item for item in items if item.ValueType == kind]


def points(items: list[pydicom.Dataset]) -> np.ndarray:
    """Points of the position of a measurement group."""
    (position,) = items_of(items, "SCOORD3D")
    return np.reshape(position.GraphicData, (-1, 3))


def test_each_group_has_the_position_in_the_report(written: tuple[Analysis, Path]) -> None:
    analysis, out = written
    report = build_report(analysis)
    found = groups(pydicom.dcmread(out / "dicom" / "sr.dcm"))
    first, second = report.collections
    centers = {disc.name: disc.center_lps_mm for disc in report.levels.discs}
    expected = {
        "study": [first.epicenter_lps_mm],
        "epidural fluid 1": [first.epicenter_lps_mm],
        "epidural fluid 1 cranial end": [first.extent.cranial.lps_mm],
        "epidural fluid 1 caudal end": [first.extent.caudal.lps_mm],
        "epidural fluid 2": [second.epicenter_lps_mm],
        "epidural fluid L4-L5 dorsal": [centers["L4-L5"]],
        "path to epidural fluid 1": report.planning.targets[0].path_lps_mm,
    }
    for name, position in expected.items():
        np.testing.assert_allclose(points(found[name]), position, atol=1e-3, err_msg=name)
    assert items_of(found["path to epidural fluid 1"], "SCOORD3D")[0].GraphicType == "POLYLINE"
    assert values(found["epidural fluid 1 caudal end"])["Path length"] == 41.0
    (stack,) = dicom.source_stacks(analysis)
    frame = pydicom.dcmread(stack.files[0]).FrameOfReferenceUID
    for name, items in found.items():
        (position,) = items_of(items, "SCOORD3D")
        assert position.ReferencedFrameOfReferenceUID == frame
        for number in items_of(items, "NUM"):
            inferred = number.ContentSequence[-1]
            assert inferred.RelationshipType == "INFERRED FROM", name
            assert inferred.GraphicData == position.GraphicData, name


def test_point_of_the_sac_is_within_its_mask(written: tuple[Analysis, Path]) -> None:
    """The caudal end of the sac is outside the field of view."""
    analysis, out = written
    (point,) = points(groups(pydicom.dcmread(out / "dicom" / "sr.dcm"))["thecal sac"])
    sac = analysis.segmentation.thecal_sac
    k, j, i = np.round(sac.geometry.kji_from_lps(point)).astype(int)
    assert sac.array[k, j, i] == 1


def test_a_study_without_fluid_is_placed_at_the_sac(
    leakless: Analysis, as_dicom: Make, with_settings: Make, tmp_path: Path
) -> None:
    analysis = with_settings(as_dicom(leakless, tmp_path / "source"), report__write=["sr"])
    write_outputs(analysis, tmp_path / "out")
    found = groups(pydicom.dcmread(tmp_path / "out" / "dicom" / "sr.dcm"))
    assert set(found) == {"study", "thecal sac"}
    np.testing.assert_array_equal(points(found["study"]), points(found["thecal sac"]))


@pytest.mark.parametrize("visible", [True, False])
def test_the_sacral_hiatus_is_placed(
    make_small: Make, as_dicom: Make, with_settings: Make, tmp_path: Path, visible: bool
) -> None:
    analysis = as_dicom(make_small("LPS"), tmp_path / "source")
    point = (1.0, 22.0, -98.0)
    expected = ExpectedHiatus(
        level="S4", lps_mm=point, cranial_lps_mm=(1.0, 20.0, -88.0), caudal_lps_mm=(1.0, 24.0, -99)
    )
    hiatus = SacralHiatus(
        visible=visible,
        lps_mm=point if visible else None,
        confidence=0.7 if visible else 0.0,
        expected=None if visible else expected,
    )
    localization = analysis.localization
    planning = localization.planning.model_copy(update={"sacral_hiatus": hiatus})
    analysis = replace(analysis, localization=replace(localization, planning=planning))
    write_outputs(with_settings(analysis, report__write=["sr"]), tmp_path / "out")
    items = groups(pydicom.dcmread(tmp_path / "out" / "dicom" / "sr.dcm"))["sacral hiatus"]
    np.testing.assert_allclose(points(items), [point], atol=1e-3)
    assert values(items) == ({"Probability": 0.7} if visible else {})
    (text,) = [item.TextValue for item in items_of(items, "TEXT") if item.TextValue.startswith("S")]
    assert ("not detected" in text) != visible


def test_captures_are_referenced_where_they_belong(written: tuple[Analysis, Path]) -> None:
    _, out = written
    document = pydicom.dcmread(out / "dicom" / "sr.dcm")
    files = sorted((out / "dicom" / "sc").iterdir())
    uids = {str(pydicom.dcmread(path).SOPInstanceUID): path.stem for path in files}

    def named(items: list[pydicom.Dataset]) -> set[str]:
        """Captures among the images, which include segments and their sources."""
        images = (item.ReferencedSOPSequence[0] for item in items_of(items, "IMAGE"))
        return {uids[uid] for i in images if (uid := i.ReferencedSOPInstanceUID) in uids}

    first = named(groups(document)["epidural fluid 1"])
    second = named(groups(document)["epidural fluid 2"])
    study = named(list(document.ContentSequence))
    assert {name.rpartition("-")[0] for name in first} == {"collection-1"}
    assert {name.rpartition("-")[0] for name in second} == {"collection-2"}
    assert first | second | study == set(uids.values())
    (evidence,) = document.CurrentRequestedProcedureEvidenceSequence
    instances = {
        image.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }
    assert set(uids) <= instances


def test_the_observer_is_the_same_device_in_every_report(written: tuple[Analysis, Path]) -> None:
    document = pydicom.dcmread(written[1] / "dicom" / "sr.dcm")
    observer = next(
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121012"
    )
    assert observer.UID == DEVICE_UID == "2.25.159017851476458511371247128631913737447"
    assert pydicom.uid.UID(DEVICE_UID).is_valid


# --- a viewer --------------------------------------------------------------------------------

VIEWERS = Path(__file__).with_name("viewers")


@pytest.fixture(scope="module")
def read_by_viewer() -> Read:
    """Read SR and SEG with the adapters of Cornerstone3D, the library of OHIF.

    Their folder is `LEAKLOC_NODE`, or that of ``make test-viewers``; skipped without it.
    """
    modules = Path(os.environ.get("LEAKLOC_NODE", VIEWERS))
    node = shutil.which("node")
    if node is None or not (modules / "node_modules" / "@cornerstonejs" / "adapters").is_dir():
        pytest.skip("Node.js with @cornerstonejs/adapters is not installed: make test-viewers")

    def read(analysis: Analysis, out: Path) -> dict:
        (stack,) = dicom.source_stacks(analysis)
        objects = (out / "dicom" / "sr.dcm", out / "dicom" / "seg.dcm", *stack.files)
        ran = subprocess.run(
            [node, VIEWERS / "read.mjs", modules.resolve(), *objects],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return read


@pytest.fixture(scope="module")
def viewed(written: tuple[Analysis, Path], read_by_viewer: Read) -> dict:
    return read_by_viewer(*written)


def test_a_viewer_places_each_group(written: tuple[Analysis, Path], viewed: dict) -> None:
    document = pydicom.dcmread(written[1] / "dicom" / "sr.dcm")
    found = groups(document)
    found.pop("path to epidural fluid 1")  # the viewer has no tool for a curve in space
    assert viewed["warnings"] == []
    annotations = {made["trackingUID"]: made for made in viewed["annotations"]}
    assert len(annotations) == len(viewed["annotations"]) == len(found)
    for name, items in found.items():
        (uid,) = items_of(items, "UIDREF")
        made = annotations[uid.UID]
        assert made["tool"] == "Probe"
        np.testing.assert_allclose(made["points"], points(items), atol=1e-4, err_msg=name)
        (position,) = items_of(items, "SCOORD3D")
        assert made["frameOfReference"] == position.ReferencedFrameOfReferenceUID
        assert made["text"], name


def test_a_viewer_shows_no_shape_for_a_path(
    make_small: Make, as_dicom: Make, with_settings: Make, read_by_viewer: Read, tmp_path: Path
) -> None:
    """The viewer reads a curve of four or five points as a rectangle."""
    analysis = as_dicom(make_small("SLA"), tmp_path / "source")
    localization = analysis.localization
    marks = tuple(
        LengthMark(
            distance_from_hiatus_mm=10.0 * n, segment="L5-S1", description="L5-S1",
            posterior_depth_mm=None, lps_mm=(0.0, 20.0, 10.0 * n - 96.0),
        )
        for n in range(1, 8)
    )  # fmt: skip
    hiatus = SacralHiatus(visible=True, lps_mm=(0.0, 20.0, -96.0), confidence=0.9)
    planning = localization.planning.model_copy(
        update={"length_marks": marks, "sacral_hiatus": hiatus}
    )
    analysis = replace(analysis, localization=replace(localization, planning=planning))
    write_outputs(with_settings(analysis, report__write=["seg", "sr"]), tmp_path / "out")
    viewed = read_by_viewer(analysis, tmp_path / "out")
    assert viewed["warnings"] == []
    assert {made["tool"] for made in viewed["annotations"]} == {"Probe"}
    assert "path 70 mm" in groups(pydicom.dcmread(tmp_path / "out" / "dicom" / "sr.dcm"))


def test_a_viewer_reads_the_segments(written: tuple[Analysis, Path], viewed: dict) -> None:
    found = dicom.segments(written[0])
    assert not viewed["overlapping"]
    assert [(s["label"], s["voxels"]) for s in viewed["segments"]] == [
        (segment.label, int(segment.mask().sum())) for segment in found
    ]
    colors = [tuple(s["color"]) for s in viewed["segments"] if s["label"].endswith("vertebra")]
    assert len(set(colors)) == len(colors) > 3
    tracked = {s["trackingUID"] for s in viewed["segments"]}
    placed = {made["trackingUID"] for made in viewed["annotations"]}
    assert len(tracked & placed) == 3  # sac and two collections
