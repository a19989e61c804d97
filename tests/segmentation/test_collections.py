"""Tests of `leakloc.segmentation.collections`."""

import numpy as np
import pytest

from leakloc.centerline import Centerline
from leakloc.segmentation.collections import Scene, find_collections
from leakloc.segmentation.dura import Dura
from leakloc.settings import SegmentationSettings
from leakloc.volume import Geometry, Provenance, Volume

GEOMETRY = Geometry.from_axes((61, 40, 40), origin_lps=(-20, -20, -30), spacing_ijk_mm=(1, 1, 1))
HEAD_LPS = GEOMETRY.lps_from_kji([60, 20, 20])
FOOT_LPS = GEOMETRY.lps_from_kji([0, 20, 20])


@pytest.mark.parametrize(("head_arc_mm", "highest_k"), [(0.0, 60), (20.0, 40)])
def test_the_sac_ends_where_the_cisterns_begin(head_arc_mm: float, highest_k: int) -> None:
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    angle = np.arange(0.0, 2 * np.pi, np.pi / 8)
    radius = np.full((len(line.arc_mm), len(angle)), 8.0)
    dura = Dura(line, line.arc_mm, angle, radius, None, head_arc_mm=head_arc_mm)
    fraction = Volume(np.ones(GEOMETRY.shape, np.float32), GEOMETRY, Provenance("made"))
    sac = Scene.of(fraction, dura, False).sac
    planes = np.flatnonzero(sac.any(axis=(1, 2)))
    assert planes.max() == pytest.approx(highest_k, abs=1)
    assert planes.min() == 0
    assert sac[20].sum() == pytest.approx(np.pi * 8**2, rel=0.05)


def scene_with(*, fat: float, noise: float = 0.07) -> Scene:
    """A sac, 6 mm of fluid behind its dark dura, and 6 mm of fat that touches the fluid."""
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    angle = np.arange(0.0, 2 * np.pi, np.pi / 8)
    dura = Dura(line, line.arc_mm, angle, np.full((len(line.arc_mm), len(angle)), 6.0), None)
    k, j, i = np.indices(GEOMETRY.shape)
    radius = np.hypot(i - 20.0, j - 20.0)
    behind = (j > 20) & (np.abs(i - 20) < 8) & (k > 15) & (k < 45)
    share = np.where(radius < 5.5, 1.0, 0.05)
    share[behind & (radius > 6.5) & (radius <= 12.5)] = 1.0
    share[behind & (radius > 12.5) & (radius <= 18.5)] = fat
    share += np.random.default_rng(1).normal(0.0, noise, share.shape)
    fraction = Volume(np.clip(share, 0, 1).astype(np.float32), GEOMETRY, Provenance("made"))
    return Scene.of(fraction, dura, False)


def test_fat_that_touches_fluid_is_told_by_its_level() -> None:
    settings = SegmentationSettings()
    labels, _, candidates = find_collections(scene_with(fat=0.7), settings)
    fluid, fat = candidates
    assert fluid.accepted
    assert not fat.accepted
    assert fat.mimics == ("epidural fat",)
    assert "evenly dimmer" in fat.reason.lower()
    row = labels[30, 20:, 20]  # from the sac's middle backwards, mm
    assert row[8:12].all()
    assert not row[15:].any()


@pytest.mark.parametrize("shade", [0.9, 1.0])
def test_fluid_of_one_level_stays_whole(shade: float) -> None:
    labels, _, candidates = find_collections(scene_with(fat=shade), SegmentationSettings())
    assert [c.accepted for c in candidates] == [True]
    assert labels[30, 20:, 20][8:18].all()


@pytest.mark.parametrize(("tissue_bright", "accepted"), [(False, True), (True, False)])
def test_grey_pieces_are_no_fluid_where_tissue_is_bright(tissue_bright: bool, accepted: bool):
    scene = scene_with(fat=1.0, noise=0.03)
    outside = np.hypot(*(np.indices(GEOMETRY.shape)[1:] - 20.0)) > 6
    share = np.where(outside, 0.7 * scene.fraction.array, scene.fraction.array)
    fraction = scene.fraction.with_array(share.astype(np.float32), "grey")
    grey = Scene.of(fraction, scene.dura, False, tissue_bright)
    _, _, candidates = find_collections(grey, SegmentationSettings())
    assert [c.accepted for c in candidates] == [accepted]
    if tissue_bright:
        assert candidates[0].mimics == ("marrow, muscle or blood",)


def test_fluid_where_tissue_is_bright_is_probable_at_most() -> None:
    scene = scene_with(fat=1.0, noise=0.03)
    settings = SegmentationSettings()
    sure, unsure = (
        find_collections(Scene.of(scene.fraction, scene.dura, False, bright), settings)[2][0]
        for bright in (False, True)
    )
    assert sure.accepted
    assert unsure.accepted
    assert unsure.probability == settings.bright_tissue_most < sure.probability
