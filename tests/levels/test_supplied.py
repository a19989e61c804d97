"""Levels named elsewhere: maps of other programs, and edited lists."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import LABEL_VALUES, vertebra_code
from leakloc.core.errors import GeometryError, InputError, SettingsError
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels import SuppliedLevelMap, files, read_level_map, read_levels
from leakloc.levels.schemes import SCHEMES, LevelScheme, level_scheme
from leakloc.loaders.masks import Segment, with_labels

SETTINGS = LevelSettings()
NAMES = ("T12", "L1", "L2", "L3", "L4", "L5")
GEOMETRY = Geometry.from_axes((120, 40, 20), origin_lps=(-19, -60, -118), spacing_ijk_mm=(2, 2, 2))
LINE = Centerline(np.array([[0.0, 0.0, z] for z in np.arange(118.0, -119.0, -2.0)]))
SEGMENTATION = SimpleNamespace(centerline=LINE)
MYELOGRAM = Volume(np.ones(GEOMETRY.shape, np.float32), GEOMETRY)


def z_of(n: int) -> float:
    """Height of the nth vertebra from the head."""
    return 90.0 - 34.0 * n


def drawn(values: dict[str, int], discs: dict[str, int] | None = None, *, arches: bool = False):
    """A level map: bodies 20 mm anterior to the canal, discs, optionally arches posterior to it."""
    array = np.zeros(GEOMETRY.shape, np.uint8)
    where = GEOMETRY.lps_from_kji(np.moveaxis(np.indices(GEOMETRY.shape), 0, -1))
    y, z = where[..., 1], where[..., 2]
    for n, name in enumerate(NAMES):
        body = (np.abs(z - z_of(n)) < 12) & (y < -10) & (y > -45)
        arch = (np.abs(z - z_of(n)) < 12) & (y > 6)
        if name in values:
            array[body | arch if arches else body] = values[name]
    for name, value in (discs or {}).items():
        n = NAMES.index(name.partition("-")[0])
        array[(np.abs(z - z_of(n) + 17) < 3) & (y < -10) & (y > -45)] = value
    return Volume(array, GEOMETRY)


def run(labeler, myelogram=MYELOGRAM):
    return labeler(Spine(myelogram), {}, SEGMENTATION, SETTINGS)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_bodies_of_every_scheme(scheme):
    """A made map of each scheme gives the names in order, where they were drawn."""
    found = run(SuppliedLevelMap(drawn(SCHEMES[scheme].values, arches=True), SCHEMES[scheme]))
    assert [v.name for v in found.vertebrae] == list(NAMES)
    for n, vertebra in enumerate(found.vertebrae):
        assert np.linalg.norm(vertebra.center_lps - (0, -28, z_of(n))) < 2.0
    assert [d.name for d in found.discs] == ["T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5"]
    assert found.numbering.method == "external"
    assert set(np.unique(found.mask.array)) == {0, *(LABEL_VALUES[name] for name in NAMES)}


@pytest.mark.parametrize("scheme", ["totalspineseg", "spineps", "spider"])
def test_discs_of_schemes_that_have_them(scheme):
    values = {name: value for value, name in SCHEMES[scheme].discs.items()}
    discs = {name: values[name] for name in ("L3-L4", "L4-L5")}
    found = run(SuppliedLevelMap(drawn(SCHEMES[scheme].values, discs), SCHEMES[scheme]))
    center = {d.name: d.center_lps for d in found.discs}["L4-L5"]
    assert np.linalg.norm(center - (0, -28, z_of(4) - 17)) < 2.0
    assert all(d.normal_lps[2] > 0.99 for d in found.discs)


def test_published_values():
    """Spot checks against the programs' documentation."""
    tss, spineps = SCHEMES["totalspineseg"], SCHEMES["spineps"]
    assert (tss.values["C1"], tss.values["T12"], tss.values["L5"], tss.sacrum) == (11, 32, 45, 50)
    assert (tss.discs[63], tss.discs[82], tss.discs[100]) == ("C2-C3", "T11-T12", "L5-S1")
    assert (spineps.values["T13"], spineps.discs[123]) == (28, "L4-L5")
    assert SCHEMES["totalsegmentator"].values["C1"] == 50
    assert SCHEMES["totalsegmentator"].values["L5"] == 27
    assert SCHEMES["totalsegmentator_mr"].values["L5"] == 2
    assert (SCHEMES["sct"].values["T1"], SCHEMES["sct"].values["S1"]) == (8, 25)
    assert (SCHEMES["spider"].values["L5"], SCHEMES["spider"].discs[201]) == (1, "L5-S1")


def test_six_lumbar_vertebrae_keep_their_discs():
    scheme = SCHEMES["spineps"]
    six = dict(zip(NAMES, ("L2", "L3", "L4", "L5", "L6", "S1"), strict=True))
    bodies = drawn({name: scheme.values[six[name]] for name in NAMES}, {"L3-L4": 124})
    found = run(SuppliedLevelMap(bodies, scheme))
    assert "L5-L6" in [d.name for d in found.discs]
    assert [v.name for v in found.vertebrae][-2:] == ["L6", "S1"]


def test_first_sacral_vertebra_of_a_whole_sacrum():
    scheme = SCHEMES["totalspineseg"]
    bodies = drawn(scheme.values)
    array = bodies.array.copy()
    array[:10, 10:25] = 50
    found = run(SuppliedLevelMap(bodies.with_array(array), scheme))
    assert found.vertebrae[-1].name == "S1"
    assert found.discs[-1].name == "L5-S1"


def test_a_scheme_is_written_and_read_back():
    mask = run(SuppliedLevelMap(drawn(SCHEMES["leakloc"].values), SCHEMES["leakloc"])).mask
    for name in ("totalspineseg", "totalsegmentator", "sct"):
        back = run(SuppliedLevelMap(SCHEMES[name].written(mask), SCHEMES[name]))
        assert np.array_equal(back.mask.array, mask.array)


def test_wrong_scheme_is_refused():
    with pytest.raises(InputError, match="at least two"):
        run(
            SuppliedLevelMap(
                drawn(SCHEMES["leakloc"].values), LevelScheme.of("mine", {"200": "L5"})
            )
        )


def test_map_of_another_place_is_refused():
    far = Geometry.from_axes(GEOMETRY.shape, origin_lps=(900, 0, 0), spacing_ijk_mm=(2, 2, 2))
    bodies = drawn(SCHEMES["leakloc"].values)
    with pytest.raises(GeometryError):
        run(SuppliedLevelMap(Volume(bodies.array, far), SCHEMES["leakloc"]))


def test_skipped_names_are_refused():
    values = {**SCHEMES["leakloc"].values}
    values["L3"] = 200
    with pytest.raises(InputError, match="L4 is directly below L2"):
        run(SuppliedLevelMap(drawn(values), SCHEMES["leakloc"]))


def test_custom_scheme_from_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(f'"{70 + n}" = "{name}"' for n, name in enumerate(NAMES)))
    drawn({name: 70 + n for n, name in enumerate(NAMES)}).to_nibabel().to_filename(
        tmp_path / "map.nii.gz"
    )
    found = run(read_level_map(tmp_path / "map.nii.gz", str(path)))
    assert [v.name for v in found.vertebrae] == list(NAMES)


@pytest.mark.parametrize(
    ("meanings", "match"),
    [
        ({"x": "L4"}, "not a voxel value"),
        ({"3": "Lumbar4"}, "not a level"),
        ({"0": "L4"}, "not a voxel"),
    ],
)
def test_invalid_custom_schemes(meanings, match):
    with pytest.raises(SettingsError, match=match):
        LevelScheme.of("mine", meanings)


def test_unknown_scheme_names_the_others():
    with pytest.raises(SettingsError, match="totalspineseg"):
        level_scheme("nobody")


def listed(names=NAMES):
    return {
        "vertebrae": [
            {"name": name, "center_lps_mm": [0, -28, z_of(n)]} for n, name in enumerate(names)
        ],
        "discs": [],
    }


def test_edited_list_renames_the_level_map(tmp_path):
    """One name further down, as after finding that the lowest disc is L5-S1 after all."""
    (tmp_path / "masks").mkdir()
    old = run(SuppliedLevelMap(drawn(SCHEMES["leakloc"].values), SCHEMES["leakloc"])).mask
    old.to_nibabel().to_filename(tmp_path / "masks" / "levels.nii.gz")
    shifted = ("L1", "L2", "L3", "L4", "L5", "S1")
    (tmp_path / "levels.json").write_text(json.dumps(listed(shifted)))
    found = run(read_levels(tmp_path / "levels.json"))
    assert found.numbering.method == "user"
    assert [d.name for d in found.discs][-1] == "L5-S1"
    for before, after in zip(NAMES, shifted, strict=True):
        assert np.array_equal(
            found.mask.array == LABEL_VALUES[after], old.array == LABEL_VALUES[before]
        )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["vertebrae"][2].update(name="L7"), "L7"),
        (lambda c: c["vertebrae"][2].update(name="L1"), "twice"),
        (lambda c: c["vertebrae"][2].update(center_lps_mm=[0, 1]), "three numbers"),
        (lambda c: c["vertebrae"][2].update(center_lps_mm=[0, 1, float("nan")]), "three numbers"),
        (lambda c: c.pop("vertebrae"), "no list of vertebrae"),
        (lambda c: c["discs"].append({"name": "L4/5", "center_lps_mm": [0, 0, 0]}), "L4/5"),
        (lambda c: [v["center_lps_mm"].__setitem__(0, 400) for v in c["vertebrae"]], "far from"),
    ],
)
def test_invalid_edits_are_reported(tmp_path, change, match):
    content = listed()
    change(content)
    (tmp_path / "levels.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=match):
        run(read_levels(tmp_path / "levels.json"))


def test_no_json_at_all(tmp_path):
    (tmp_path / "levels.json").write_text("L4-L5")
    with pytest.raises(InputError, match="JSON"):
        read_levels(tmp_path / "levels.json")


def test_vertebrae_of_a_dicom_segmentation_are_found_by_code_or_name(monkeypatch):
    bodies = drawn({name: n for n, name in enumerate(NAMES, 3)})
    array = bodies.array.copy()
    array[:10, 10:25] = 1
    segments = [
        Segment(1, "Thecal sac", "thecal sac", ("THECALSAC", "99LEAKLOC")),
        Segment(2, "L4-L5", "disc", ("1", "99TEST")),
        Segment(3, "a", "", vertebra_code("T12")[:2]),
        Segment(4, "L1 vertebra", "", ("1", "99TEST")),
        Segment(5, "vertebrae_L2", "", ("1", "99TEST")),
        Segment(6, "b", "L3", ("1", "99TEST")),
        Segment(7, "VERTEBRA L4", "", ("1", "99TEST")),
        Segment(8, "l5", "", ("1", "99TEST")),
    ]

    def read(path, labels=(), **_):
        return with_labels(bodies.with_array(array), labels)

    monkeypatch.setattr(files, "read_segments", lambda path, **_: tuple(segments))
    monkeypatch.setattr(files, "read_mask", read)
    found = run(read_level_map("seg.dcm", "totalspineseg"))
    assert [v.name for v in found.vertebrae] == list(NAMES)
    segments.append(Segment(9, "L5 vertebra", "", ("1", "99TEST")))
    with pytest.raises(InputError, match=r"several segments of one vertebra \(8 l5, 9 L5 vert"):
        read_level_map("seg.dcm", "totalspineseg")
