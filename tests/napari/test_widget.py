"""The widget adds the image, renames discs and writes files that relabel applies."""

import json
import shutil

import pytest

from leakloc.relabel import relabel
from tests.conftest import SAMPLE

napari = pytest.importorskip("napari")
pytest.importorskip("qtpy")


@pytest.fixture
def viewer(monkeypatch):
    """A viewer without window; Qt without display."""
    from qtpy.QtWidgets import QApplication

    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    app = QApplication.instance() or QApplication([])
    model = napari.components.ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: model)
    yield model
    app.processEvents()


def test_corrections_are_written(viewer, sample_report, tmp_path):
    from leakloc.napari import layer_data
    from leakloc.napari.widget import corrections_widget

    folder = shutil.copytree(sample_report, tmp_path / "out")
    for data in layer_data(folder):
        viewer.add_layer(napari.layers.Layer.create(*data))
    study, add, name, rename, reader, _, write, status, _ = corrections_widget()
    study.value = SAMPLE
    add.changed.emit(True)
    assert viewer.layers[0].name == "myelogram"
    write.changed.emit(True)
    assert "name or initials" in status.value
    reader.value = "AB"
    write.changed.emit(True)
    assert "no correction" in status.value
    rename.changed.emit(True)
    assert "select one point" in status.value
    discs = viewer.layers["discs"]
    discs.selected_data = {list(discs.features["name"]).index("L5-S1")}
    name.value = "L4-L5"
    rename.changed.emit(True)
    write.changed.emit(True)
    path = tmp_path / "out_corrections" / "corrections.json"
    assert json.loads(path.read_text())["vertebrae"] == [{"name": "L5", "new_name": "L4"}]
    assert relabel(folder, path).finding.level == "L3-L4"
