"""Edited disc points and masks are written as corrections that relabel applies."""

import json

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.volume import Volume
from leakloc.relabel import DiscPoint, relabel, write_corrections
from leakloc.relabel.corrections import _edited_voxels
from leakloc.relabel.runs import run_lengths
from leakloc.report import read_contents
from leakloc.report.model import EditedFluid
from tests.relabel.conftest import around


@pytest.fixture
def contents(folder):
    return read_contents(folder)


def points(contents, **changes):
    """All disc points of a report; those in `changes` with other names."""
    discs = contents.report.levels.discs
    renamed = {name.replace("_", "-"): now for name, now in changes.items()}
    return [DiscPoint(d.name, renamed.get(d.name, d.name), d.center_lps_mm) for d in discs]


def test_moved_deleted_and_renamed_discs_are_applied(contents, folder, tmp_path):
    before = {d.name: np.array(d.center_lps_mm) for d in contents.report.levels.discs}
    moved = before["L3-L4"] + [0, 0, 4.0]
    edited = [
        p._replace(center_lps_mm=moved) if p.reported == "L3-L4" else p
        for p in points(contents, L4_L5="L5-S1")
        if p.reported != "L1-L2"
    ]
    path = write_corrections(contents, tmp_path / "new" / "edits", reader=" AB ", discs=edited)
    written = json.loads(path.read_text())
    assert written["reader"] == "AB"
    assert written["vertebrae"] == [{"name": "L4", "new_name": "L5"}]
    assert {d["name"]: d["lps_mm"] is None for d in written["discs"]} == {
        "L1-L2": True,
        "L3-L4": False,
    }
    assert set(written["positions_lps_mm"]) == {"L4", "L1-L2", "L3-L4"}
    assert written["positions_lps_mm"]["L3-L4"] == pytest.approx(before["L3-L4"], abs=0.01)
    after = {d.name: np.array(d.center_lps_mm) for d in relabel(folder, path).levels.discs}
    assert after["L4-L5"] == pytest.approx(moved, abs=0.1)
    assert after["L5-S1"] == pytest.approx(before["L4-L5"], abs=0.1)


def test_edits_of_a_mask_are_applied_like_those_of_the_page(contents, folder, tmp_path):
    """Both write run lengths; the page on its own grid, the plug-in on the box of the edits."""
    mask = contents.masks["epidural_fluid"]
    grid = mask.geometry
    (disc,) = (d.center_lps_mm for d in contents.report.levels.discs if d.name == "T12-L1")
    painted = around(mask, np.add(disc, [0.0, 12.0, 0.0]), 4.0) & (mask.array == 0)
    cranial = contents.report.collections[0].extent.cranial.lps_mm
    erased = around(mask, cranial, 25.0) & (mask.array == 1)
    assert painted.any() and erased.any()

    edited = mask.with_array(np.where(erased, 0, np.where(painted, 7, mask.array)).astype(np.uint8))
    path = write_corrections(contents, tmp_path / "a", reader="AB", fluid=edited.oriented("LPI"))
    assert [file.name for file in path.parent.iterdir()] == ["corrections.json"]
    written = json.loads(path.read_text())
    assert np.prod(written["fluid"]["shape_kji"]) < mask.array.size
    assert not written["collections"]

    page = mask.oriented("RSA").geometry  # another axis order, as that of the page

    def on_page(selected):
        return run_lengths(mask.with_array(selected.view(np.uint8)).oriented("RSA").array > 0)

    by_page = EditedFluid(
        shape_kji=page.shape,
        affine_lps=page.affine_lps.tolist(),
        painted=on_page(painted),
        erased=on_page(erased),
    )
    by_plugin = EditedFluid.model_validate(written["fluid"])
    for kind, expected in (("painted", painted), ("erased", erased)):
        for form in (by_page, by_plugin):
            found = _edited_voxels(form, getattr(form, kind), grid)
            np.testing.assert_array_equal(found, expected)

    report = relabel(folder, path)
    after = read_contents(folder).masks["epidural_fluid"]
    np.testing.assert_array_equal(after.array > 0, edited.array > 0)
    assert [c.id for c in report.collections] == [1, 2]


def test_an_erased_collection_is_removed(contents, folder, tmp_path):
    fluid = contents.masks["epidural_fluid"]
    empty = fluid.with_array(np.zeros_like(fluid.array))
    path = write_corrections(contents, tmp_path / "edits", reader="AB", fluid=empty)
    report = relabel(folder, path)
    assert report.collections == ()
    assert "Erased by the reader." in [r.reason for r in report.rejected]


def test_edits_that_do_not_fit_one_file_are_refused(contents, tmp_path):
    fluid = contents.masks["epidural_fluid"]
    checkered = np.indices(fluid.array.shape).sum(axis=0) % 2
    with pytest.raises(InputError, match="too complex"):
        write_corrections(
            contents, tmp_path, reader="AB", fluid=fluid.with_array(checkered.astype(np.uint8))
        )
    shifted = Volume(fluid.array[1:], fluid.geometry.cropped(np.s_[1:, :, :]))
    with pytest.raises(InputError, match="another grid"):
        write_corrections(contents, tmp_path, reader="AB", fluid=shifted)


@pytest.mark.parametrize(
    ("edits", "reader", "message"),
    [
        (lambda p: p, "AB", "no correction"),
        (lambda p: p[1:], " ", "name or initials"),
        (lambda p: [*p, p[0]], "AB", "two points"),
        (lambda p: [*p, DiscPoint("C2-C3", "C2-C3", (0, 0, 0))], "AB", "no disc C2-C3"),
        (lambda p: [p[0]._replace(name="L5"), *p[1:]], "AB", "L5 is not a disc"),
        (
            lambda p: [p[0]._replace(name=p[1].name), p[1], p[2]._replace(name=p[1].name)],
            "AB",
            "contradict",
        ),
    ],
)
def test_invalid_edits_are_refused(contents, tmp_path, edits, reader, message):
    with pytest.raises(InputError, match=message):
        write_corrections(contents, tmp_path / "e", reader=reader, discs=edits(points(contents)))
    assert not (tmp_path / "e").exists()


def test_corrections_are_not_written_into_the_report(contents):
    with pytest.raises(InputError, match="inside the report folder"):
        write_corrections(
            contents, contents.folder / "masks", reader="AB", discs=points(contents)[1:]
        )
