"""Corrections of a reader are applied to a report and recorded in it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from leakloc.cli import DONE, INPUT_UNUSABLE, main
from leakloc.core.errors import InputError
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import read_mask
from leakloc.relabel import relabel
from leakloc.relabel.corrections import _edited_voxels, read_corrections
from leakloc.relabel.renumber import correct
from leakloc.relabel.runs import run_lengths
from leakloc.report import Report
from leakloc.report.model import EditedFluid, positions_lps_mm
from tests.conftest import SAMPLE
from tests.relabel.conftest import around


def corrections(folder: Path, **edits: object) -> Path:
    """A file as downloaded from the page of the report in `folder`."""
    report = Report.load(folder)
    content = {
        "schema": "leakloc.corrections/1",
        "study_instance_uid": report.study.study_instance_uid,
        "report_created": report.generator.created,
        "reader": "AB",
        "created": "2026-01-02T10:00:00Z",
        **edits,
    }
    path = folder.parent / "corrections.json"
    path.write_text(json.dumps(content))
    return path


def fluid(folder: Path) -> Volume:
    return read_mask(folder / "masks" / "epidural_fluid.nii.gz", may_be_empty=True)


def test_all_vertebrae_are_renamed_with_one(folder):
    before = Report.load(folder)
    path = corrections(folder, vertebrae=[{"name": "L5", "new_name": "L4"}])
    after = relabel(folder, path)
    assert (before.finding.level, after.finding.level) == ("L4-L5", "L3-L4")
    assert before.collections[0].segments[:3] == ("L3-L4", "L4-L5", "L5-S1")
    assert after.collections[0].segments[:3] == ("L2-L3", "L3-L4", "L4-L5")
    places = {v.name: v.center_lps_mm for v in before.levels.vertebrae}
    renamed = {v.name: v.center_lps_mm for v in after.levels.vertebrae}
    assert renamed["L4"] == pytest.approx(places["L5"], abs=0.1)
    # The center of a sacral body is placed differently from that of a lumbar one.
    assert min(places, key=lambda name: math.dist(places[name], renamed["L5"])) == "S1"
    assert after.levels.numbering.method == "user"
    (stored,) = Report.load(folder).corrections
    assert stored.reader == "AB" and stored.vertebrae[0].new_name == "L4"


def test_a_disc_point_is_moved_or_deleted(folder):
    before = {d.name: np.array(d.center_lps_mm) for d in Report.load(folder).levels.discs}
    moved = before["L3-L4"] + [0.0, 0.0, 4.0]
    bodies = {v.name: np.array(v.center_lps_mm) for v in Report.load(folder).levels.vertebrae}
    path = corrections(
        folder,
        discs=[
            {"name": "L3-L4", "lps_mm": moved.tolist()},
            {"name": "L1-L2", "lps_mm": None},
        ],
    )
    after = {d.name: np.array(d.center_lps_mm) for d in relabel(folder, path).levels.discs}
    assert after["L3-L4"] == pytest.approx(moved, abs=0.1)
    assert after["L1-L2"] == pytest.approx((bodies["L1"] + bodies["L2"]) / 2, abs=0.1)
    assert after["L2-L3"] == pytest.approx(before["L2-L3"], abs=0.1)


def test_a_false_collection_is_removed(folder):
    before = Report.load(folder)
    assert (fluid(folder).array == 1).any()
    path = corrections(folder, collections=[{"id": 1, "is_fluid": False}])
    after = relabel(folder, path)
    assert after.collections == () and after.finding.leak == "absent"
    assert not fluid(folder).array.any()
    reasons = [r.reason for r in after.rejected]
    assert "Marked as not epidural fluid by the reader." in reasons
    assert after.levels == before.levels  # no level is corrected
    again = relabel(folder)
    assert again.collections == before.collections and again.corrections == ()


def test_earlier_corrections_are_kept(folder):
    path = corrections(folder, vertebrae=[{"name": "L5", "new_name": "L4"}])
    renamed = relabel(folder, path)
    path = corrections(folder, collections=[{"id": 1, "is_fluid": False}])
    after = relabel(folder, path)
    assert [edits.vertebrae != () for edits in after.corrections] == [True, False]
    assert after.collections == ()
    places = {v.name: v.center_lps_mm for v in renamed.levels.vertebrae}
    for vertebra in after.levels.vertebrae:
        assert vertebra.center_lps_mm == pytest.approx(places[vertebra.name], abs=0.1)
    point = np.add(places["L3"], [0.0, 0.0, -20.0])
    path = corrections(folder, discs=[{"name": "L3-L4", "lps_mm": point.tolist()}])
    last = relabel(folder, path)
    assert last.collections == () and len(last.corrections) == 3
    discs = {d.name: d.center_lps_mm for d in last.levels.discs}
    assert discs["L3-L4"] == pytest.approx(point, abs=0.1)


def edited(volume: Volume, painted: np.ndarray, erased: np.ndarray) -> dict[str, object]:
    return {
        "shape_kji": volume.array.shape,
        "affine_lps": volume.geometry.affine_lps.tolist(),
        "painted": run_lengths(painted),
        "erased": run_lengths(erased),
    }


def test_fluid_is_painted_and_erased_in_succession(folder):
    before, mask = Report.load(folder), fluid(folder)
    disc = {d.name: np.array(d.center_lps_mm) for d in before.levels.discs}["T12-L1"]
    ball = around(mask, disc + np.array([0.0, 12.0, 0.0]), 4.0) & (mask.array == 0)
    path = corrections(folder, fluid=edited(mask, ball, np.zeros_like(ball)))
    painted = relabel(folder, path)
    assert len(painted.collections) == len(before.collections) + 1
    new = painted.collections[-1]
    np.testing.assert_array_equal(fluid(folder).array == new.id, ball)
    assert new.volume_ml == pytest.approx(ball.sum() * mask.geometry.voxel_volume_ml, rel=0.05)
    assert "T12-L1" in new.segments and "Painted by the reader." in new.basis
    unchanged = [c.model_dump(exclude={"basis"}) for c in painted.collections[:-1]]
    assert unchanged == [c.model_dump(exclude={"basis"}) for c in before.collections]

    half = (mask.array == 1) & around(mask, before.collections[0].extent.cranial.lps_mm, 25.0)
    path = corrections(
        folder,
        collections=[{"id": new.id, "is_fluid": False}],
        fluid=edited(mask, np.zeros_like(ball), half),
    )
    after = relabel(folder, path)
    np.testing.assert_array_equal(
        fluid(folder).array, np.where(half, 0, mask.array).astype(np.uint8)
    )
    assert after.collections[0].volume_ml < before.collections[0].volume_ml
    assert [edits.fluid is not None for edits in after.corrections] == [True, True]
    assert relabel(folder).collections == before.collections


def flipped_and_binned(volume: Volume) -> Geometry:
    """A grid with other axes and twice the voxel size along i, as that of the page."""
    k, j, i = volume.array.shape
    affine = volume.geometry.affine_lps.copy()
    affine[:3, 3] = volume.geometry.lps_from_ijk([0.5, j - 1, 0])
    affine[:3, 0] *= 2
    affine[:3, 1] *= -1
    return Geometry((k, j, i // 2), affine)


def test_the_grid_of_the_page_may_differ_from_that_of_the_images():
    geometry = Geometry.from_axes(
        (12, 10, 9), origin_lps=(3, -4, 5), spacing_ijk_mm=(0.7, 1.2, 2.0)
    )
    volume = Volume(np.zeros(geometry.shape, np.uint8), geometry)
    grid = flipped_and_binned(volume)
    painted = np.zeros(grid.shape, bool)
    painted[4:6, 1, 3] = True
    made = EditedFluid(
        shape_kji=grid.shape, affine_lps=grid.affine_lps.tolist(), painted=run_lengths(painted)
    )
    found = _edited_voxels(made, made.painted, geometry)
    expected = np.zeros(geometry.shape, bool)
    expected[4:6, 8, 6:8] = True
    np.testing.assert_array_equal(found, expected)
    shifted = grid.affine_lps.copy()
    shifted[0, 3] += 6.0
    outside = made.model_copy(update={"affine_lps": shifted.tolist()})
    with pytest.raises(InputError, match="outside the images"):
        _edited_voxels(outside, made.painted, geometry)


GRID = {"shape_kji": (2, 2, 2), "affine_lps": np.eye(4).tolist()}


def test_a_true_collection_is_recorded(folder):
    before = Report.load(folder)
    path = corrections(folder, collections=[{"id": 1, "is_fluid": True}])
    after = relabel(folder, path)
    assert after.collections == before.collections
    assert Report.load(folder).corrections[0].collections[0].is_fluid


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"study_instance_uid": "1.2.3"}, "another study"),
        ({"report_created": "2020-01-01T00:00:00Z"}, "another version of this report"),
        ({"reader": ""}, "reader"),
        ({"vertebrae": [{"name": "C3", "new_name": "C4"}]}, "cannot be renamed"),
        ({"vertebrae": [{"name": "L5", "new_name": "X9"}]}, "cannot be renamed"),
        (
            {
                "vertebrae": [
                    {"name": "L5", "new_name": "L4"},
                    {"name": "L3", "new_name": "L4"},
                ]
            },
            "contradict",
        ),
        ({"discs": [{"name": "C2-C3", "lps_mm": None}]}, "no disc C2-C3"),
        ({"collections": [{"id": 7, "is_fluid": False}]}, "no collection 7"),
        ({"fluid": {**GRID, "painted": "0 9"}}, "run lengths exceed the grid"),
        ({"fluid": {**GRID, "painted": "0 -1"}}, "fluid.painted"),
        ({"fluid": {**GRID, "shape_kji": (4000, 4000, 4000)}}, "more than 24000000 voxels"),
        ({"fluid": {**GRID, "painted": "1 " * 200_001 + "1"}}, "fluid.painted"),
        ({"fluid": {**GRID, "affine_lps": np.zeros((4, 4)).tolist(), "painted": "0 1"}}, "grid"),
        (
            {"fluid": {**GRID, "affine_lps": (np.eye(4) * 900.0).tolist(), "painted": "7 1"}},
            "outside the images",
        ),
        ({"created": "2" * 1_000_000}, "larger than 1000 kB"),
    ],
)
def test_corrections_that_do_not_match_are_refused(folder, edits, message):
    before = (folder / "report.json").read_bytes()
    with pytest.raises(InputError, match=message):
        relabel(folder, corrections(folder, **edits))
    assert (folder / "report.json").read_bytes() == before


def with_positions(path: Path, folder: Path) -> Path:
    """The same file with the positions of what it corrects, as written by the page."""
    content, known = json.loads(path.read_text()), positions_lps_mm(Report.load(folder))
    parts = [*content.get("vertebrae", []), *content.get("discs", [])]
    names = [part["name"] for part in parts]
    names += [str(mark["id"]) for mark in content.get("collections", [])]
    content["positions_lps_mm"] = {name: known[name] for name in names}
    path.write_text(json.dumps(content))
    return path


def results_of(report: Report) -> dict[str, object]:
    return report.model_dump(exclude={"generator", "outputs"})


def test_a_new_analysis_with_corrections_equals_relabel(sample_analysis, folder, tmp_path):
    """Also with a second file, which refers to the report with the first."""
    path = corrections(folder, vertebrae=[{"name": "L5", "new_name": "L4"}])
    first = with_positions(path, folder).rename(tmp_path / "first.json")
    renamed = relabel(folder, first)
    mask = fluid(folder)
    erased = (mask.array == 1) & (np.indices(mask.array.shape)[0] % 2 == 0)
    second = corrections(
        folder,
        discs=[{"name": "L3-L4", "lps_mm": None}],
        fluid=edited(mask, np.zeros_like(erased), erased),
    )
    second = with_positions(second, folder)
    expected = relabel(folder, second)
    files = [(path, read_corrections(path)) for path in (first, second)]
    assert results_of(correct(sample_analysis, files[:1]).report()) == results_of(renamed)
    result = correct(sample_analysis, files)
    assert results_of(result.report()) == results_of(expected)
    np.testing.assert_array_equal(result.segmentation.collections.array, fluid(folder).array)
    levels = read_mask(folder / "masks" / "levels.nii.gz").array
    np.testing.assert_array_equal(result.levels.mask.array, levels)
    assert levels.any()


def test_the_level_map_is_kept_when_only_fluid_is_corrected_later(folder):
    relabel(folder, corrections(folder, discs=[{"name": "L3-L4", "lps_mm": None}]))
    before = read_mask(folder / "masks" / "levels.nii.gz").array
    relabel(folder, corrections(folder, collections=[{"id": 1, "is_fluid": True}]))
    after = read_mask(folder / "masks" / "levels.nii.gz").array
    np.testing.assert_array_equal(after, before)


def test_positions_are_compared_with_the_new_analysis(sample_analysis, folder):
    def codes(path: Path) -> list[str]:
        corrected = correct(sample_analysis, [(path, read_corrections(path))])
        return [note.code for note in corrected.levels.notes]

    edits = {"collections": [{"id": 1, "is_fluid": True}]}
    path = corrections(folder, **edits)
    assert "corrections_not_compared" in codes(path)
    assert "corrections_not_compared" not in codes(with_positions(path, folder))
    place = np.add(positions_lps_mm(Report.load(folder))["1"], [0, 0, 6.0])
    for name, what in (("1", "collection 1"), ("L4", "L4"), ("C2-C3", "C2-C3")):
        path = corrections(folder, **edits, positions_lps_mm={name: place.tolist()})
        with pytest.raises(InputError, match=f"{what} is not where it was"):
            codes(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"study_instance_uid": "1.2.3"}, "corrections of another study"),
        ({"schema": "leakloc.corrections/9"}, "not valid: schema"),
        (None, "not readable"),
    ],
)
def test_unsuitable_corrections_stop_analyze_before_the_segmentation(
    folder, tmp_path, capsys, monkeypatch, content, message
):
    def segment(*arguments: object) -> None:
        raise AssertionError("the segmentation was started")

    monkeypatch.setattr("leakloc.pipeline.stage", lambda *names: segment)
    path = tmp_path / "none.json" if content is None else corrections(folder, **content)
    out = tmp_path / "new"
    command = ["analyze", str(SAMPLE), "-o", str(out), "--quiet", "--corrections", str(path)]
    assert main(command) == INPUT_UNUSABLE
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not out.exists()


@pytest.mark.slow
def test_analyze_writes_the_corrected_report(folder, tmp_path):
    path = with_positions(corrections(folder, vertebrae=[{"name": "L5", "new_name": "L4"}]), folder)
    out = tmp_path / "new"
    assert main(["analyze", str(SAMPLE), "-o", str(out), "-q", "--corrections", str(path)]) == DONE
    report = Report.load(out)
    assert report.finding.level == "L3-L4"
    assert [edits.reader for edits in report.corrections] == ["AB"]
    assert "L5 renamed to L4" in (out / "report.html").read_text()
    restored = relabel(out)
    assert restored.finding.level == "L4-L5" and restored.corrections == ()


def test_the_command_applies_the_file(folder, capsys):
    path = corrections(folder, vertebrae=[{"name": "L5", "new_name": "L4"}])
    assert main(["relabel", str(folder), str(path)]) == DONE
    assert Report.load(folder).finding.level == "L3-L4"
    path.write_text("{")
    assert main(["relabel", str(folder), str(path)]) == INPUT_UNUSABLE
    assert "corrections.json" in capsys.readouterr().err
