"""Tests of `leakloc.anatomy.extension`."""

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.extension import extend_centerline
from leakloc.core.volume import Geometry, Provenance, Volume

GRID = Geometry.from_axes((400, 160, 20), origin_lps=(-30, -80, -200), spacing_ijk_mm=(3, 1, 1))


def middle_lps(z_mm: np.ndarray) -> np.ndarray:
    """A kyphosis and a lordosis, 25 mm deep, and a curve to the side."""
    return np.stack([5 * np.sin(z_mm / 90), 25 * np.sin(z_mm / 60), z_mm], axis=-1)


def canal(hidden: tuple[float, float] = (0.0, 0.0), decoy_mm: float | None = None) -> Volume:
    """A canal of 8 mm radius, hidden between two heights; optionally a tube lateral to it."""
    points = GRID.lps_from_kji(np.indices(GRID.shape).transpose(1, 2, 3, 0))
    z = points[..., 2]
    across = np.linalg.norm(points[..., :2] - middle_lps(z)[..., :2], axis=-1)
    seen = (across < 8) & ~((z > hidden[0]) & (z < hidden[1]))
    if decoy_mm is not None:
        seen |= (
            np.linalg.norm(points[..., :2] - middle_lps(z)[..., :2] - [0, decoy_mm], axis=-1) < 8
        )
    return Volume(seen.astype(np.float32), GRID, Provenance("made"))


def known(top_mm: float, bottom_mm: float) -> Centerline:
    return Centerline.smoothed(
        middle_lps(np.arange(top_mm, bottom_mm, -1.0)), step_mm=1.0, smoothing_mm=0.0
    )


@pytest.mark.parametrize("hidden", [(0.0, 0.0), (80.0, 105.0)])
@pytest.mark.parametrize("decoy_mm", [None, 35.0])
def test_the_course_follows_the_canal_past_both_ends(hidden, decoy_mm):
    line = extend_centerline(known(40, -60), canal(hidden, decoy_mm))
    assert line.points_lps[0, 2] > 190
    assert line.points_lps[-1, 2] < -190
    off = line.points_lps[:, :2] - middle_lps(line.points_lps[:, 2])[:, :2]
    assert np.abs(off).max() < 4
    assert np.median(np.abs(off)) < 1


def test_the_course_ends_where_the_canal_does():
    line = extend_centerline(known(40, -60), canal((90.0, 400.0)))
    assert line.points_lps[0, 2] == pytest.approx(90, abs=4)


def test_nothing_to_add_changes_nothing():
    line = known(190, -190)
    assert extend_centerline(line, None) is line
    empty = Volume(np.zeros(GRID.shape, np.float32), GRID, Provenance("made"))
    assert extend_centerline(known(40, -60), empty).length_mm == known(40, -60).length_mm
