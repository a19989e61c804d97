"""Layers of a report folder, without napari: geometry, names, and edits in them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.napari import edited_layers, layer_data
from leakloc.napari.layers import report_reader
from leakloc.relabel import relabel, write_corrections
from leakloc.report import Report, read_contents
from tests.conftest import SAMPLE


def opened(data):
    """Layers as napari creates them: data, and attributes as properties."""
    return [
        SimpleNamespace(data=values.copy(), type=kind, **attributes)
        for values, attributes, kind in data
    ]


@pytest.fixture(scope="module")
def with_image(sample_report):
    return layer_data(sample_report, SAMPLE)


def by_name(layers):
    return {layer.name: layer for layer in layers}


def test_layers_of_a_folder_and_its_study(sample_report, with_image):
    layers = by_name(opened(with_image))
    assert {name: layer.type for name, layer in layers.items()} == {
        "myelogram": "image",
        "thecal sac": "labels",
        "epidural fluid": "labels",
        "levels": "labels",
        "discs": "points",
    }
    report = Report.load(sample_report)
    assert layers["discs"].features["name"] == [d.name for d in report.levels.discs]
    levels = layers["levels"].features
    assert dict(zip(levels["name"][1:], levels["index"][1:], strict=True)) == (
        report.levels.label_values
    )
    fluid = layers["epidural fluid"]
    assert fluid.features["name"] == ["", "Epidural fluid 1 L4-L5"]
    assert fluid.colormap[1] == fluid.colormap[None] != layers["thecal sac"].colormap[1]
    low, high = layers["myelogram"].contrast_limits
    assert layers["myelogram"].data.min() <= low < high <= layers["myelogram"].data.max()


def test_world_coordinates_are_inferior_posterior_left_in_mm(sample_report, with_image):
    """The grid of the sample is oblique by 5 degrees: exact at its center, close near it."""
    contents = read_contents(sample_report)
    layers = by_name(opened(with_image))
    grid = contents.masks["epidural_fluid"].geometry
    for layer in layers.values():
        assert layer.scale == pytest.approx(grid.spacing_kji_mm)
        assert layer.units == ("mm", "mm", "mm")
    image = layers["myelogram"]
    center = image.translate + image.scale * (np.array(image.data.shape) - 1) / 2
    x, y, z = grid.center_lps
    assert center == pytest.approx([-z, y, x])
    discs = layers["discs"]
    for point, disc in zip(discs.data, contents.report.levels.discs, strict=True):
        world = discs.translate + discs.scale * point
        x, y, z = disc.center_lps_mm
        apart = np.linalg.norm(np.array(disc.center_lps_mm) - grid.center_lps)
        assert np.linalg.norm(world - [-z, y, x]) < 0.12 * apart + 0.01
    # Voxels and points are on one grid.
    fluid = np.argwhere(layers["epidural fluid"].data == 1)
    turned = contents.masks["epidural_fluid"].oriented("LPI").geometry
    expected = np.argwhere(contents.masks["epidural_fluid"].array == 1)
    expected_lps = grid.lps_from_kji(expected).mean(axis=0)
    assert turned.lps_from_kji(fluid).mean(axis=0) == pytest.approx(expected_lps, abs=1e-3)


def test_edits_in_layers_are_applied_by_relabel(sample_report, tmp_path):
    folder = shutil.copytree(sample_report, tmp_path / "out")
    before = {d.name: np.array(d.center_lps_mm) for d in Report.load(folder).levels.discs}
    layers = opened(layer_data(folder))
    discs = by_name(layers)["discs"]
    index = discs.features["name"].index("L3-L4")
    discs.data[index, 0] -= 4  # cranially
    contents, points, fluid = edited_layers(layers)
    path = write_corrections(contents, tmp_path / "edits", reader="AB", discs=points, fluid=fluid)
    after = {d.name: np.array(d.center_lps_mm) for d in relabel(folder, path).levels.discs}
    spacing_mm = discs.scale[0]
    shift = after["L3-L4"] - before["L3-L4"]
    assert np.linalg.norm(shift) == pytest.approx(4 * spacing_mm, abs=0.1)
    assert shift[2] == pytest.approx(4 * spacing_mm, abs=0.1)
    with pytest.raises(InputError, match="replaced after it was opened"):
        edited_layers(layers)


def test_layers_of_one_report_are_needed(sample_report, tmp_path):
    other = shutil.copytree(sample_report, tmp_path / "other")
    with pytest.raises(InputError, match="open one report"):
        edited_layers([SimpleNamespace(metadata={})])
    with pytest.raises(InputError, match="several reports"):
        edited_layers(opened([*layer_data(sample_report), *layer_data(other)]))


def test_the_reader_accepts_reports_only(sample_report, tmp_path, monkeypatch):
    assert report_reader(str(tmp_path)) is None
    assert report_reader([str(tmp_path), str(SAMPLE)]) is None
    for path in (str(sample_report), str(sample_report / "report.json")):
        assert [kind for *_, kind in report_reader(path)(path)] == ["labels"] * 3 + ["points"]
    monkeypatch.setattr("leakloc.napari.layers.layer_data", lambda *paths: paths)
    both = [str(SAMPLE), str(sample_report)]
    assert report_reader(both)(both) == (sample_report, SAMPLE)


def test_a_report_without_masks_is_refused(sample_report, tmp_path):
    folder = shutil.copytree(sample_report, tmp_path / "out")
    shutil.rmtree(folder / "masks")
    with pytest.raises(InputError, match="no masks"):
        layer_data(folder)
