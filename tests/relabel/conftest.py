"""An analysis of the sample study, and its report folder."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from leakloc.core.volume import Volume
from leakloc.pipeline import Analysis


def around(volume: Volume, point_lps: npt.ArrayLike, radius_mm: float) -> npt.NDArray[np.bool_]:
    """Voxels within a distance of a point."""
    near = np.zeros(volume.array.shape, bool)
    box = volume.geometry.box_around(np.atleast_2d(point_lps), radius_mm)
    grid = volume.geometry.cropped(box)
    points = grid.lps_from_kji(np.moveaxis(np.indices(grid.shape), 0, -1))
    near[box] = np.linalg.norm(points - point_lps, axis=-1) <= radius_mm
    return near


@pytest.fixture(scope="session")
def analysis(sample_analysis) -> Analysis:
    return sample_analysis


@pytest.fixture(scope="session")
def finished(sample_report) -> Path:
    return sample_report


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))
