"""Deferred imports: nothing is imported before use, and import-linter sees those of leakloc."""

import ast
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from leakloc.core.errors import SettingsError
from leakloc.core.extras import LazyModule, check_installed, need

PACKAGE = Path(str(files("leakloc")))


def test_module_is_imported_on_first_use(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    module = LazyModule("colorsys")
    assert not hasattr(module, "__wrapped__") and "colorsys" not in sys.modules
    assert callable(module.rgb_to_hsv) and "colorsys" in sys.modules


def test_missing_extra_is_reported_on_first_use():
    module = LazyModule("package_that_is_not_there", "node")
    with pytest.raises(SettingsError, match=r"pip install 'leakloc\[node\]'"):
        _ = module.anything


def test_module_of_leakloc_names_the_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "leakloc.report.vector", raising=False)
    with pytest.raises(SettingsError, match=r"needs matplotlib: pip install 'leakloc\[figures\]'"):
        need("leakloc.report.vector", "figures")


def test_check_installed_names_all_missing_packages():
    check_installed(("json", "numpy"), "batch")
    with pytest.raises(SettingsError, match=r"no_such_a, no_such_b: .*leakloc\[batch\]"):
        check_installed(("json", "no_such_a", "no_such_b"), "batch")


def test_deferred_modules_of_leakloc_are_visible_to_import_linter():
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "LazyModule":
                name = ast.literal_eval(node.args[0])
                assert not name.startswith("leakloc.") or name in imported, f"{file.name}: {name}"


def test_only_the_command_line_imports_by_name():
    allowed = {"cli/__init__.py", "core/extras.py"}
    allowed |= {"services/batch/run.py", "services/batch/preload.py"}  # in the forked processes
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if "import_module(" in file.read_text("utf-8")
    }
    assert found == allowed
