"""An analysis of the sample study, and its report folder."""

import shutil
from pathlib import Path

import pytest

from leakloc.pipeline import Analysis


@pytest.fixture(scope="session")
def analysis(sample_analysis) -> Analysis:
    return sample_analysis


@pytest.fixture(scope="session")
def finished(sample_report) -> Path:
    return sample_report


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))
