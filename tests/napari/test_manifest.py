"""The manifest names functions that exist, and is installed as an entry point."""

import tomllib
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest


def python_names(manifest: str) -> list[str]:
    lines = (line.strip() for line in manifest.splitlines())
    return [line.split(": ")[1] for line in lines if line.startswith("python_name")]


def test_manifest_and_functions_exist():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    package, _, name = project["entry-points"]["napari.manifest"]["leakloc"].partition(":")
    names = python_names((files(package) / name).read_text())
    assert len(names) == 2
    for module, _, function in (name.partition(":") for name in names):
        assert callable(getattr(import_module(module), function))


def test_manifest_is_valid():
    npe2 = pytest.importorskip("npe2")
    npe2.PluginManifest.from_file(str(files("leakloc.napari") / "napari.yaml"))
