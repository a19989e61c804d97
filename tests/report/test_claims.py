"""What a report must never claim, looked for in everything that is written.

Where fluid is, not where the dura is torn; no diagnosis, dose, needle, technique or safe way; a
negative answer excludes nothing; levels only under the numbering they assume.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pydicom
import pytest

import leakloc
from leakloc.anatomy.vocabulary import NOTICE, Grade, Position
from leakloc.core.settings import LocalizationSettings
from leakloc.localization import finding as finding_module
from leakloc.localization.collections import Placed
from leakloc.localization.result import Collection, Coverage
from leakloc.pipeline import Analysis
from leakloc.report import write_outputs

Make = Callable[..., Analysis]

CLAIMS = (
    r"(leak|fistula|tear) (is |was )?(confirmed|proven|diagnosed)",
    r"diagnos(is|tic) of",
    r"(consistent with|diagnostic for) (a )?(csf leak|dural tear)",
    r"(site|location|position|place|point) of the (dural )?(tear|leak|defect|rent|breach)",
    r"(dura|dural sac|thecal sac) is (torn|open|breached|leaking)",
    r"(tear|leak|defect) (is |lies |was )?(at|located|found|seen|localised|localized)\b",
    r"leak site",
    r"no (csf )?leak\b",
    r"(rules? out|excludes?|excluded) (a )?(csf )?leak",
    r"\binject\b|\binjected\b|aliquot|\bgauge\b|tuohy|\bneedle\b",
    r"recommend|should be (treated|punctured|patched)|\bdose\b|\bdosage\b",
    r"\bsafe (path|way|route|trajectory|distance)|safely|safe to",
    r"(certainly|undoubtedly|definitely) (csf|a leak|cerebrospinal)",
    r"(is|contains) cerebrospinal fluid|\bis csf\b",
    r"real[- ]time navigation",
    r"not a leak|leak[- ]free",
)
"""Patterns that would be one of the claims; lower case."""

ALLOWED = (
    NOTICE.lower(),
    "does not exclude a leak",
    "not where the dura is torn",
    "no recommendation of a route, volume or device",
)
"""Sentences that say the opposite."""


def claims(text: str) -> list[str]:
    """Every claim in a text."""
    text = re.sub(r"\s+", " ", text.lower())
    for sentence in ALLOWED:
        text = text.replace(re.sub(r"\s+", " ", sentence), " ")
    return [found.group(0) for claim in CLAIMS for found in re.finditer(claim, text)]


@pytest.mark.parametrize(
    "text",
    [
        "CSF leak confirmed at L4-L5.",
        "Site of the dural tear: L4-L5",
        "The dura is torn at L4-L5.",
        "No leak.",
        "A negative scan rules out a leak.",
        "Recommended volume 20 mL",
        "a safe trajectory from the hiatus",
        "Inject through a Tuohy needle.",
        "The collection is CSF.",
    ],
)
def test_the_scan_finds_what_it_should(text: str) -> None:
    assert claims(text)


def texts_of(dataset: pydicom.Dataset) -> str:
    """Every string of a DICOM object."""
    found = []
    for element in dataset.iterall():
        if element.VR not in ("OB", "OW", "SQ", "UI", "OF", "UN"):
            found.append(str(element.value))
    return "\n".join(found)


def pdf_text(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def own_words(html: str) -> str:
    """A page without pictures and without the viewers' code (the 3D one is another project's)."""
    html = re.sub(r"<script\b.*?</script>", " ", html, flags=re.S)
    return re.sub(r"data:[^\"')]+", " ", html)


COVERAGE = Coverage(cranial="L1", caudal="S1")


def placed(collections: Iterable[Collection]) -> tuple[Placed, ...]:
    """Collections with the measurements that the finding states."""
    return tuple(Placed(c, 0.0, 0.0, 50.0, np.zeros((2, 3)), 3.21, 5.5) for c in collections)


@pytest.fixture(scope="module", params=["leak", "leakless"])
def everything(
    request: pytest.FixtureRequest,
    make_synthetic: Make,
    as_dicom: Make,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Analysis, Path]:
    analysis = make_synthetic(leak=request.param != "leakless")
    folder = tmp_path_factory.mktemp(request.param)
    analysis = as_dicom(analysis, folder / "source")
    settings = LocalizationSettings()
    localization = analysis.localization
    answer = finding_module.find(
        placed(localization.collections if request.param != "leakless" else ()),
        analysis.segmentation, analysis.levels, COVERAGE, settings, blind=False,
    )  # fmt: skip
    analysis = replace(analysis, localization=replace(localization, finding=answer))
    parts = ["masks", "png", "html", "seg", "sr", "sc", "pdf", "html3d", "csv"]
    parts += ["markups", "fhir", "bids"]
    changed = analysis.settings.changed(report__write=parts, report__picture_height_px=400)
    analysis = replace(analysis, settings=changed)
    write_outputs(analysis, folder / "out")
    return analysis, folder / "out"


def test_nothing_written_claims_too_much(everything: tuple[Analysis, Path]) -> None:
    analysis, folder = everything
    read: dict[str, str] = {}
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".csv", ".tsv"):
            read[path.name] = path.read_text(encoding="utf-8")
        elif path.suffix == ".html":
            read[path.name] = own_words(path.read_text(encoding="utf-8"))
        elif path.suffix == ".pdf":
            read[path.name] = pdf_text(path)
        elif path.suffix == ".dcm":
            read[path.name] = texts_of(pydicom.dcmread(path))
    assert {"report.json", "report.html", "sr.dcm", "seg.dcm", "collections.csv"} <= set(read)
    # Text in figures.
    from leakloc.report.overlays import figures

    for figure in figures(analysis):
        read[f"figure {figure.name}"] = repr(figure)
    assert {name: claims(text) for name, text in read.items() if claims(text)} == {}


def test_the_notice_is_on_all_output_for_readers(everything: tuple[Analysis, Path]) -> None:
    _, folder = everything
    for name in ("report.json", "report.html", "report3d.html"):
        assert "Not a medical device" in (folder / name).read_text(encoding="utf-8"), name
    document = pydicom.dcmread(folder / "dicom" / "sr.dcm")
    assert document.VerificationFlag == "UNVERIFIED"
    assert "Not a medical device" in texts_of(document)


def test_no_sentence_of_the_code_claims_too_much() -> None:
    """Rare branches too: every string of the package that could be printed or written."""
    import ast

    package = Path(leakloc.__file__).parent
    for path in package.rglob("*.py"):
        if {"phantom", "evaluation"} & set(path.parts):
            continue  # simulates leaks with known positions; evaluates detections
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in documentation:
                assert claims(text) == [], f"{path.name}:{node.lineno}"


def test_every_grade_and_side_is_put_in_careful_words(analysis: Analysis) -> None:
    located = analysis.localization.collections[0]
    for grade in get_args(Grade):
        for position in get_args(Position):
            side = located.position.model_copy(update={"label": position})
            one = located.model_copy(update={"grade": grade, "position": side})
            found = finding_module.find(
                placed((one,)), analysis.segmentation, analysis.levels, COVERAGE,
                LocalizationSettings(), blind=False,
            )  # fmt: skip
            assert claims(found.summary) == []
            assert "numbering assumes" in found.summary
            assert grade in found.summary


@pytest.mark.parametrize("leak", [True, False])
def test_an_input_that_cannot_tell_is_put_in_careful_words(
    make_synthetic: Make, leak: bool
) -> None:
    analysis = make_synthetic(leak=leak)
    found = finding_module.find(
        placed(analysis.localization.collections if leak else ()), analysis.segmentation,
        analysis.levels, Coverage(cranial=None, caudal=None), LocalizationSettings(), blind=True,
    )  # fmt: skip
    assert found.leak == "indeterminate" and claims(found.summary) == []
