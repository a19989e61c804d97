"""Every notebook runs from top to bottom, and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 600


def run(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()


def outputs(notebook: nbformat.NotebookNode, kind: str) -> str:
    """Everything of one kind that the cells put out."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and kind == "text/plain":
                parts.append(output.text)
            parts.append(output.get("data", {}).get(kind, ""))
    return "\n".join(parts)


def test_there_are_six():
    assert [path.stem[0] for path in NOTEBOOKS] == list("123456")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert "/work" not in path.read_text()


@pytest.mark.slow
def test_first_look():
    done = run(FOLDER / "1_first_look.ipynb")
    assert "L4-L5" in outputs(done, "text/html")
    assert "data:image/png" in outputs(done, "text/html")
    assert "accepted" in outputs(done, "text/plain")


@pytest.mark.slow
def test_your_masks():
    text = outputs(run(FOLDER / "3_your_masks.ipynb"), "text/plain")
    for mistake in ("another grid", "RAS written as LPS", "NaN", "overflow", "2D"):
        assert f"{mistake}: " in text
    assert ": accepted" not in text
    assert "--resample" in text
    assert "mirrored" in text


@pytest.mark.slow
def test_tuning():
    text = outputs(run(FOLDER / "2_tuning.ipynb"), "text/plain")
    assert "redrawn 3 times" in text  # once at first, once for each slider that was moved
    assert "fluid_min_fraction" in text
    assert "report.json" in text


@pytest.mark.slow
def test_own_segmenter():
    text = outputs(run(FOLDER / "4_own_segmenter.ipynb"), "text/plain")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert float(rows["leakloc"][2]) > float(rows["textbook"][2])


@pytest.mark.slow
def test_phantoms():
    done = run(FOLDER / "5_phantoms.ipynb")
    assert "thinnest found" in outputs(done, "text/plain")
    assert outputs(done, "image/png")


@pytest.mark.slow
def test_follow_up():
    text = outputs(run(FOLDER / "6_follow_up.ipynb"), "text/plain")
    assert "change -" in text
