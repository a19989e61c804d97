from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from leakloc.anatomy.centerline import Centerline

quick = hypothesis_settings(max_examples=60, deadline=None)


@st.composite
def spines(draw: st.DrawFn) -> Centerline:
    """A smooth curve down the body with lordosis, scoliosis and any tilt."""
    length = draw(st.floats(80, 400))
    sway = draw(st.floats(-30, 30))
    side = draw(st.floats(-15, 15))
    tilt = draw(st.floats(-0.4, 0.4))
    t = np.linspace(0, 1, 400)
    path = np.stack(
        [side * np.sin(2 * t), sway * np.sin(3 * t) + tilt * length * t, -length * t], axis=1
    )
    return Centerline.smoothed(
        path + np.array([5.0, -20.0, 100.0]), step_mm=draw(st.floats(0.5, 3.0))
    )


@quick
@given(spines())
def test_frames_are_orthonormal_and_point_to_the_patients_sides(line: Centerline) -> None:
    axes = np.stack([line.lefts_lps, line.dorsals_lps, line.tangents_lps], axis=1)
    np.testing.assert_allclose(
        axes @ axes.transpose(0, 2, 1), np.tile(np.eye(3), (len(axes), 1, 1)), atol=1e-9
    )
    assert (line.tangents_lps[:, 2] < 0).all()  # towards the tail
    assert (line.lefts_lps[:, 0] > 0.8).all()
    assert (line.dorsals_lps[:, 1] > 0.5).all()


@quick
@given(spines())
def test_arc_is_even_and_ends_at_the_length(line: Centerline) -> None:
    steps = np.diff(line.arc_mm)
    assert line.arc_mm[0] == 0
    assert line.length_mm == line.arc_mm[-1]
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)


@quick
@given(spines(), st.lists(st.floats(-0.3, 1.3), min_size=1, max_size=8))
def test_points_on_the_curve_project_to_their_arc(line: Centerline, shares: list[float]) -> None:
    arc = np.array(shares) * line.length_mm
    found, left, dorsal = line.project(line.at(arc))
    np.testing.assert_allclose(found, arc, atol=0.05)
    np.testing.assert_allclose(left, 0, atol=0.05)
    np.testing.assert_allclose(dorsal, 0, atol=0.1)


@quick
@given(spines(), st.floats(0.02, 0.98), st.floats(-15, 15), st.floats(-15, 15))
def test_offsets_come_back(line: Centerline, share: float, left: float, dorsal: float) -> None:
    n = round(share * (len(line.arc_mm) - 1))
    point = line.points_lps[n] + left * line.lefts_lps[n] + dorsal * line.dorsals_lps[n]
    arc, across, back = line.project(point)
    assert arc.shape == ()
    # On the inner side of a bend another point of the curve may be a little nearer.
    assert float(arc) == pytest.approx(line.arc_mm[n], abs=2.0)
    assert float(across) == pytest.approx(left, abs=0.5)
    assert float(back) == pytest.approx(dorsal, abs=0.5)


@quick
@given(spines(), st.floats(-50, 50), st.integers(1, 3))
def test_projection_keeps_the_shape_of_its_input(line: Centerline, x: float, n: int) -> None:
    points = np.full((n, 2, 3), x)
    assert [part.shape for part in line.project(points)] == [(n, 2)] * 3
    assert line.at(np.zeros((n, 2))).shape == (n, 2, 3)
    assert [part.shape for part in line.frame_at(np.zeros((n, 2)))] == [(n, 2, 3)] * 3


@quick
@given(spines(), st.floats(1, 100))
def test_it_is_extrapolated_linearly(line: Centerline, beyond: float) -> None:
    head = line.points_lps[0] - beyond * line.tangents_lps[0]
    tail = line.points_lps[-1] + beyond * line.tangents_lps[-1]
    np.testing.assert_allclose(line.at([-beyond, line.length_mm + beyond]), [head, tail], atol=1e-9)
    arc, left, dorsal = line.project([head, tail])
    np.testing.assert_allclose(arc, [-beyond, line.length_mm + beyond], atol=1e-6)
    np.testing.assert_allclose([left, dorsal], 0, atol=1e-6)


@quick
@given(spines(), st.floats(0, 1))
def test_frame_at_matches_the_curve(line: Centerline, share: float) -> None:
    arc = share * line.length_mm
    tangent, left, dorsal = line.frame_at(arc)
    n = int(np.abs(line.arc_mm - arc).argmin())
    near = slice(max(n - 1, 0), n + 2)
    assert (line.tangents_lps[near] @ tangent).max() > 1 - 1e-9
    np.testing.assert_allclose(np.cross(left, tangent), dorsal, atol=1e-9)


def test_uneven_points_project_to_their_own_arc() -> None:
    """Points far apart next to points close together."""
    z = np.array([0.0, -1.0, -2.0, -22.0, -42.0, -43.0])
    line = Centerline(np.stack([np.zeros(6), np.zeros(6), z], axis=1))
    query = np.array([-1.4, -9.0, -15.0, -30.0, -42.7])
    arc, _, _ = line.project(np.stack([query * 0 + 3, query * 0, query], axis=1))
    np.testing.assert_allclose(arc, -query, atol=1e-9)


def test_smoothing_keeps_ends_and_removes_noise() -> None:
    rng = np.random.default_rng(0)
    z = np.arange(0, -200, -1.0)
    rough = np.stack([np.zeros(200), 0.05 * z, z], axis=1)
    noisy = rough + rng.normal(0, 0.5, rough.shape) * [1, 1, 0]
    line = Centerline.smoothed(noisy, step_mm=1.0, smoothing_mm=5.0)
    np.testing.assert_allclose(line.points_lps[0], rough[0], atol=1.5)
    np.testing.assert_allclose(line.points_lps[-1], rough[-1], atol=1.5)
    middle = np.abs(line.points_lps[20:-20, 0])
    assert middle.max() < 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_short_paths_can_be_smoothed(count: int) -> None:
    """The point reflection at the ends must not need more points than there are."""
    path = np.stack([np.zeros(count), np.zeros(count), -np.arange(count) * 1.0], axis=1)
    line = Centerline.smoothed(path, step_mm=1.0, smoothing_mm=5.0)
    np.testing.assert_allclose(line.points_lps[[0, -1]], path[[0, -1]], atol=1e-9)


def test_repeated_points_do_not_matter() -> None:
    path = np.array([[0, 0, 0], [0, 0, 0], [0, 0, -5.0], [0, 0, -5.0], [0, 0, -10.0]])
    line = Centerline.smoothed(path, smoothing_mm=0)
    assert line.length_mm == pytest.approx(10)
    assert np.isfinite(line.tangents_lps).all()


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.zeros((3, 2)), np.zeros(3)])
def test_what_is_no_curve_is_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="centerline"):
        Centerline(points)


def test_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat"):
        Centerline(np.zeros((3, 3)))


@pytest.mark.parametrize("offset", [-12.0, 0.0, 12.0])
def test_parallel_curves_of_an_arc_are_shorter_inside(offset: float) -> None:
    turn = np.linspace(0, 1.5, 181)
    circle = 120.0 * np.stack([np.zeros_like(turn), np.cos(turn), -np.sin(turn)], axis=1)
    line = Centerline(circle)
    arc = np.linspace(20.0, line.length_mm - 20.0, 30)
    dorsal = np.full_like(arc, offset)  # away from the center of the circle
    stretch = line.stretch_at(arc, np.zeros_like(arc), dorsal)
    np.testing.assert_allclose(stretch, 1 + offset / 120.0, atol=0.01)
