"""Plug-in for napari: opens report folders and writes corrections.

The manifest is ``napari.yaml`` in this folder. Reading does not require napari.
"""

from leakloc.napari.layers import edited_layers, layer_data

__all__ = ["edited_layers", "layer_data"]
