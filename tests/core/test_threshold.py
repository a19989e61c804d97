from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.threshold import otsu_threshold


@pytest.mark.parametrize("seed", range(5))
def test_threshold_is_that_of_simpleitk(seed):
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(seed)
    dark, bright = rng.normal(0.3, 0.1, 400), rng.normal(0.9, 0.1, int(rng.integers(50, 800)))
    values = np.concatenate([dark, bright]).astype(np.float32)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(50)
    otsu.Execute(sitk.GetImageFromArray(values[None]))
    # ITK extends the histogram by a hundredth of a bin.
    assert otsu_threshold(values, 50) == pytest.approx(
        otsu.GetThreshold(), abs=float(np.ptp(values)) / 5000
    )


def test_equal_values_are_not_above_the_threshold():
    assert otsu_threshold(np.full(9, 0.5), 50) == 0.5
