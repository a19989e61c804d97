"""Tests of `leakloc.segmentation.fluid`."""

import numpy as np
import pytest

from leakloc.segmentation import fluid
from leakloc.segmentation.fluid import ARC_STEP_MM


def profile(*pieces: tuple[float, float, float]) -> np.ndarray:
    """Signal along the canal from segments of (length in mm, first, last)."""
    return np.concatenate([np.linspace(a, b, round(mm / ARC_STEP_MM)) for mm, a, b in pieces])


@pytest.mark.parametrize(
    ("pieces", "first_below_mm"),
    [
        ([(260, 1000, 900), (20, 150, 150), (40, 400, 400)], 260),  # marrow past a dark gap
        ([(260, 1000, 900), (40, 900, 300), (40, 400, 400)], 274),  # marrow at once
        ([(320, 1000, 500)], None),  # the receive field halves it
        ([(150, 1000, 950), (12, 200, 200), (150, 940, 800)], None),  # a stenosis
    ],
)
def test_csf_ends_where_its_signal_breaks_off(pieces, first_below_mm):
    csf = profile(*pieces)
    good = csf > 300
    below = fluid._below_the_end(csf, good) & good
    if first_below_mm is None:
        assert not below.any()
    else:
        assert np.flatnonzero(below)[0] * ARC_STEP_MM == pytest.approx(first_below_mm, abs=25)
        assert not below[: round(first_below_mm / ARC_STEP_MM) - 1].any()
        assert below[good & (np.arange(len(csf)) * ARC_STEP_MM > 305)].all()


def test_no_csf_at_all():
    assert not fluid._below_the_end(np.ones(9), np.zeros(9, bool)).any()
