"""An analysis of the sample study, and its report folder."""

import shutil
from pathlib import Path

import pytest

import leakloc
from leakloc.core.settings import Settings
from leakloc.pipeline import Analysis, analyze

SAMPLE = Path(__file__).parents[2] / "sample_data" / "postoperative" / "dicom"
PLAIN = Settings().changed(report__write=["json", "masks", "csv", "relabel"])


@pytest.fixture(scope="session")
def analysis() -> Analysis:
    return analyze(leakloc.load(SAMPLE), PLAIN)


@pytest.fixture(scope="session")
def finished(analysis, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("relabel") / "out"
    analysis.save(out)
    return out


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))
