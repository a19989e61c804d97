"""Edited disc points and masks are written as corrections that relabel and analyze apply."""

import json

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.loaders import read_mask
from leakloc.relabel import DiscPoint, relabel, write_corrections
from leakloc.report import read_contents


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
    (path,) = write_corrections(contents, tmp_path / "new" / "edits", reader=" AB ", discs=edited)
    written = json.loads(path.read_text())
    assert written["reader"] == "AB"
    assert written["vertebrae"] == [{"name": "L4", "new_name": "L5"}]
    assert {d["name"]: d["lps_mm"] is None for d in written["discs"]} == {
        "L1-L2": True,
        "L3-L4": False,
    }
    after = {d.name: np.array(d.center_lps_mm) for d in relabel(folder, path).levels.discs}
    assert after["L4-L5"] == pytest.approx(moved, abs=0.1)
    assert after["L5-S1"] == pytest.approx(before["L4-L5"], abs=0.1)


def test_an_erased_collection_is_marked_as_false(contents, folder, tmp_path):
    fluid = contents.masks["epidural_fluid"]
    empty = fluid.with_array(np.zeros_like(fluid.array))
    (path,) = write_corrections(contents, tmp_path / "edits", reader="AB", fluid=empty)
    assert path.name == "corrections.json"
    assert relabel(folder, path).collections == ()


def test_an_edited_mask_is_written_on_the_grid_of_the_report(contents, tmp_path):
    fluid = contents.masks["epidural_fluid"]
    turned = fluid.oriented("LPI")
    place = tuple(np.argwhere(turned.array == 1)[0])
    edited = turned.array.copy()
    edited[place] = 2
    files = write_corrections(
        contents, tmp_path / "edits", reader="AB", fluid=turned.with_array(edited)
    )
    assert [file.name for file in files] == ["corrected_fluid.nii.gz"]
    mask = read_mask(files[0])
    assert mask.geometry.matches(fluid.geometry)
    (voxel,) = np.argwhere(mask.array != fluid.array)
    expected = turned.geometry.lps_from_kji(place)
    assert mask.geometry.lps_from_kji(voxel) == pytest.approx(expected, abs=1e-3)


def test_files_of_earlier_edits_do_not_remain(contents, tmp_path):
    fluid = contents.masks["epidural_fluid"]
    out = tmp_path / "edits"
    write_corrections(
        contents, out, reader="AB", fluid=fluid.with_array(np.minimum(fluid.array + 1, 2))
    )
    write_corrections(contents, out, reader="AB", discs=points(contents)[1:])
    assert [file.name for file in out.iterdir()] == ["corrections.json"]


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
