from __future__ import annotations

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import AnatomyOutputs
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.localization.hiatus import BRIGHT_FAT_FACTOR, canal_behind, find_sacral_canal

LENGTH_MM = 100.0
SETTINGS = LocalizationSettings()


def back_of_sacrum(radius_mm=120.0):
    """A kyphotic curve down the back of the sacral bodies."""
    turn = np.arange(0.0, LENGTH_MM + 0.5) / radius_mm
    tilt = 0.6  # the sacrum leans back
    y = radius_mm * (np.cos(turn - tilt) - np.cos(tilt))
    z = -radius_mm * (np.sin(turn - tilt) + np.sin(tilt))
    return Centerline(np.stack([np.full(len(turn), 3.0), y, z], axis=-1))


def sacrum(apex_mm, *, fat=0.15, noise=0.03, field_below_mm=40.0, spacing=(1.0, 1.0, 1.0)):
    """Bodies, canal and roof along the curve; marrow 1, dark lines 0.1, muscle 0.2.

    The canal is 9 mm deep, the roof 5 mm thick with marrow between dark lines, and the canal's
    content goes on 8 mm below the roof.
    """
    line = back_of_sacrum()
    low = line.points_lps.min(axis=0) - [12, 30, field_below_mm]
    high = line.points_lps.max(axis=0) + np.array([12, 40, 15])
    size = np.ceil((high - low) / spacing).astype(int) + 1
    geometry = Geometry.from_axes(
        tuple(int(n) for n in size[::-1]),
        origin_lps=low,
        spacing_ijk_mm=spacing,
        directions_lps=np.eye(3),
    )
    points = geometry.lps_from_kji(np.moveaxis(np.indices(geometry.shape), 0, -1))
    arc, _, dorsal = line.project(points)
    image = np.full(arc.shape, 0.2)
    image[dorsal < 0] = 1.0
    image[(dorsal > -1) & (dorsal < 1)] = 0.1
    image[(dorsal >= 1) & (dorsal < 9) & (arc < apex_mm + 8)] = fat
    roof = arc < apex_mm
    image[roof & (dorsal >= 9) & (dorsal < 16)] = 0.05
    image[roof & (dorsal >= 10.5) & (dorsal < 14.5)] = 0.9
    image += noise * np.random.default_rng(3).standard_normal(image.shape)
    return Volume((300 * np.clip(image, 0, None)).astype(np.float32), geometry), line


@pytest.mark.parametrize("apex_mm", [66.0, 80.0, 92.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 0.8, 0.8)])
def test_the_hiatus_is_where_the_roof_ends(apex_mm, spacing):
    image, line = sacrum(apex_mm, spacing=spacing)
    found = canal_behind(image, line)
    arc, left, dorsal = line.project(found.apex_lps)
    assert float(arc) == pytest.approx(apex_mm, abs=2.0)
    assert abs(float(left)) < 0.5
    assert 5.0 < float(dorsal) < 9.0  # in the back of the canal, not in the roof
    assert found.confidence > 0.7
    middle = line.project(found.middle_lps)
    assert middle[0][-1] > apex_mm + 5 and (middle[2] < 6.0).all()


def test_bright_fat_in_the_canal_lowers_confidence():
    dark, line = sacrum(80.0)
    bright, _ = sacrum(80.0, fat=1.8)
    sure = canal_behind(dark, line)
    less = canal_behind(bright, line)
    assert float(line.project(less.apex_lps)[0]) == pytest.approx(80.0, abs=6.0)
    assert less.confidence <= BRIGHT_FAT_FACTOR < sure.confidence


def test_a_roof_that_runs_out_of_the_field_has_no_end():
    image, line = sacrum(130.0, field_below_mm=-5.0)
    found = canal_behind(image, line)
    assert found is None or found.confidence < SETTINGS.hiatus_min_confidence


def test_the_end_of_the_roof_alone_is_insufficient():
    image, line = sacrum(92.0)
    k = int(image.geometry.kji_from_lps(line.at(80.0))[0])
    assert canal_behind(image.crop((slice(0, k), slice(None), slice(None))), line) is None


def test_noise_gives_no_roof():
    image, line = sacrum(80.0)
    noise = np.random.default_rng(0).normal(100.0, 30.0, image.array.shape)
    found = canal_behind(image.with_array(noise.astype(np.float32)), line)
    assert found is None or found.confidence < SETTINGS.hiatus_min_confidence


def test_images_without_a_sacrum_give_no_canal():
    image, _ = sacrum(80.0)
    flat = image.with_array(np.full(image.array.shape, 7.0, np.float32))
    assert find_sacral_canal([flat], AnatomyOutputs()) is None
    assert find_sacral_canal([], AnatomyOutputs()) is None
