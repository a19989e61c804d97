"""A report folder is read with its masks, and with the image of its study only."""

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.report import Report, read_contents
from tests.conftest import SAMPLE


def test_masks_and_image_are_those_of_the_analysis(sample_analysis, sample_report):
    contents = read_contents(sample_report, SAMPLE)
    myelogram = sample_analysis.triage.myelogram
    assert np.array_equal(contents.image.array, myelogram.array)
    assert contents.report == Report.load(sample_report)
    found = sample_analysis.segmentation
    assert np.array_equal(contents.masks["thecal_sac"].array, found.thecal_sac.array)
    assert np.array_equal(contents.masks["epidural_fluid"].array, found.collections.array)
    assert set(contents.masks) == {"thecal_sac", "epidural_fluid", "levels"}
    assert all(mask.geometry.matches(myelogram.geometry) for mask in contents.masks.values())
    assert read_contents(sample_report).image is None


def test_another_study_is_refused(sample_report, series, tube, tmp_path):
    shape = (40, 60, 24)
    series(shape=shape, array=tube(shape, 0.05)).write(tmp_path / "other")
    with pytest.raises(InputError):
        read_contents(sample_report, tmp_path / "other")
