"""Widget of napari: adds the image, renames disc points and writes corrections."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from leakloc.anatomy.vocabulary import SHORT_NOTICE, segment_name, vertebra_chain
from leakloc.core.errors import InputError, LeaklocError
from leakloc.core.extras import LazyModule
from leakloc.napari.layers import DISCS, edited_layers, image_layers
from leakloc.relabel import write_corrections
from leakloc.report import read_contents

if TYPE_CHECKING:
    import napari
    from magicgui import widgets
else:
    napari = LazyModule("napari", "napari")
    widgets = LazyModule("magicgui.widgets", "napari")


SLAB_MM: Final = 12.0
"""Thickness in which disc points are displayed; in one sagittal plane only few have their center.
The images are displayed without projection."""


def corrections_widget() -> widgets.Container:
    """Return the widget for the corrections of the report that is open in the current viewer.

    Disc points are moved or deleted, and the mask of the epidural fluid is edited, with the tools
    of their layers.
    """
    viewer = napari.current_viewer()
    viewer.dims.thickness = [SLAB_MM] * viewer.dims.ndim
    study = widgets.FileEdit(mode="d", label="Study", value="")
    name = widgets.ComboBox(label="Selected disc is", choices=_disc_names())
    reader = widgets.LineEdit(label="Reader")
    output = widgets.FileEdit(mode="d", label="Output folder", value="")
    add = widgets.PushButton(text="Add image")
    rename = widgets.PushButton(text="Rename disc")
    write = widgets.PushButton(text="Write corrections")
    status = widgets.Label(value="")
    notice = widgets.Label(value=SHORT_NOTICE)

    def on_click(button: Any, action: Any) -> None:
        def run() -> None:
            try:
                status.value = action()
            except LeaklocError as error:
                status.value = f"Error: {error}"

        button.changed.connect(run)

    def add_image() -> str:
        contents, _, _ = edited_layers(viewer.layers)
        if not str(study.value).strip(". "):
            raise InputError("specify the folder of the study")
        for data in image_layers(read_contents(contents.folder, study.value)):
            viewer.layers.insert(0, napari.layers.Layer.create(*data))
        return "Image added."

    def rename_disc() -> str:
        layer = next((layer for layer in viewer.layers if layer.name == DISCS), None)
        if layer is None or len(layer.selected_data) != 1:
            raise InputError("select one point of the layer of discs")
        (index,) = layer.selected_data
        features = layer.features.copy()
        before = features.loc[index, "name"]
        features.loc[index, "name"] = name.value
        layer.features = features
        layer.refresh_text()
        return f"{before} is {name.value}; all levels will be renamed accordingly."

    def write_file() -> str:
        contents, discs, fluid = edited_layers(viewer.layers)
        target = Path(output.value)
        if not str(output.value).strip(". "):
            target = contents.folder.with_name(f"{contents.folder.name}_corrections")
        file = write_corrections(contents, target, reader=reader.value, discs=discs, fluid=fluid)
        return f"Written to {target.name}: {file.name}."

    on_click(add, add_image)
    on_click(rename, rename_disc)
    on_click(write, write_file)
    return widgets.Container(
        widgets=[study, add, name, rename, reader, output, write, status, notice], labels=True
    )


def _disc_names() -> tuple[str, ...]:
    """Return the names of all discs, cranial to caudal, including those of six lumbar vertebrae."""
    chains = (vertebra_chain(count) for count in (6, 5, 4))
    return tuple(dict.fromkeys(segment_name(*pair) for c in chains for pair in pairwise(c)))
