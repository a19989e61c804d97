from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakloc.core.volume import Volume
from leakloc.localization import SacralCanal

SKIN_MM = 40.0
"""Distance from the centerline to the skin at the apex."""
ANGLE_DEG = 20.0
HIATUS_KEYS = {
    "hiatus_height_mm", "hiatus_width_mm", "hiatus_depth_mm", "canal_to_skin_deg",
    "skin_to_hiatus_mm",
}  # fmt: skip


def sacral(model, apex="S4"):
    arc = np.arange(model.body_mm("S1"), model.body_mm(apex) + 0.5)
    below = np.append(arc, arc[-1] + np.arange(1.0, 9.0))
    return SacralCanal(model.points(below), model.points(arc, 0.0, 2.5), 0.9)


def image_of(model, *, without_fat_mm=(0.0, 0.0), has_walls=True):
    """Fat posterior to the sac and in a sacral canal 7 mm deep and 10 mm wide, an oblique skin."""
    geometry = model.geometry()
    arc, left, dorsal = model.canal(
        geometry.lps_from_kji(np.moveaxis(np.indices(geometry.shape), 0, -1))
    )
    image = np.full(arc.shape, 800.0)
    image[(dorsal > model.sac_radius_mm + 4) & (dorsal < model.sac_radius_mm + 10)] = 60.0
    start, stop = without_fat_mm
    image[(arc > start) & (arc < stop) & (dorsal > model.sac_radius_mm)] = 60.0
    canal = (np.abs(left) < 5) & (np.abs(dorsal) < 3.5)
    image[(arc > model.sac_end_mm + 5) & (dorsal < 12) & ~canal & has_walls] = 60.0
    skin = SKIN_MM - np.tan(np.deg2rad(ANGLE_DEG)) * (arc - model.body_mm("S4"))
    image[dorsal > skin] = 0.0
    return Volume(image.astype(np.float32), geometry)


@pytest.fixture(scope="module")
def lumbar(spine):
    return spine(half_width_mm=64.0, field_mm=(60.0, 310.0), spacing_ijk_mm=(2.0, 1.0, 2.0))


def measured(model, image):
    return model.localized(sacral=sacral(model), anatomy=image).planning.caudal_access


def test_the_hiatus_is_measured(lumbar):
    access = measured(lumbar, image_of(lumbar))
    assert access.not_measured == {}
    assert access.hiatus_depth_mm == pytest.approx(7.0, abs=0.7)
    assert access.hiatus_width_mm == pytest.approx(10.0, abs=1.0)
    assert access.canal_to_skin_deg == pytest.approx(ANGLE_DEG, abs=2.0)
    nearest = (SKIN_MM - 2.5) * np.cos(np.deg2rad(ANGLE_DEG))
    assert access.skin_to_hiatus_mm == pytest.approx(nearest, abs=1.5)
    assert access.hiatus_height_mm == pytest.approx(17.0 / 2 + 15.0, abs=1.0)  # half S4, and S5


def test_a_value_that_is_not_measured_has_a_reason(spine, lumbar):
    without = measured(lumbar, None)
    assert set(without.not_measured) == HIATUS_KEYS - {"hiatus_height_mm"} | {"assessed_mm"}
    assert without.hiatus_depth_mm is None and without.hiatus_height_mm is not None
    open_canal = measured(lumbar, image_of(lumbar, has_walls=False))
    assert set(open_canal.not_measured) == HIATUS_KEYS - {"hiatus_height_mm", "skin_to_hiatus_mm"}
    thick = replace(lumbar, spacing_ijk_mm=(4.0, 1.0, 2.0))
    access = measured(thick, image_of(thick))
    assert access.hiatus_width_mm is None and access.hiatus_depth_mm is not None
    assert access.not_measured == {"hiatus_width_mm": "slices 4.0 mm apart are too thick"}
    narrow = replace(lumbar, half_width_mm=30.0)
    access = measured(narrow, image_of(narrow))
    assert set(access.not_measured) == {"skin_to_hiatus_mm", "canal_to_skin_deg"}


def test_without_a_hiatus_nothing_is_measured_on_it(spine):
    model = spine(half_width_mm=15.0)
    planning = model.localized().planning
    access = planning.caudal_access
    assert set(access.not_measured) >= HIATUS_KEYS
    assert all(getattr(access, key) is None for key in HIATUS_KEYS)
    disc = next(disc for disc in access.discs if disc.disc == "L4-L5")
    shortest, longest = disc.distance_range_mm
    assert shortest < disc.distance_from_hiatus_mm < longest


def test_260_mm_to_l4_l5_is_outside_the_typical_range(spine):
    model = spine(half_width_mm=15.0, sac_end_mm=210.0)
    planning = model.localized(sacral=sacral(model)).planning
    disc = next(disc for disc in planning.caudal_access.discs if disc.disc == "L4-L5")
    true_mm = model.body_mm("S4") - model.disc_mm("L4-L5")
    assert disc.distance_from_hiatus_mm == pytest.approx(true_mm, abs=3.0)
    low, high = disc.typical_range_mm
    assert low < disc.distance_from_hiatus_mm < high < 160 and disc.typical_mm == 115.0
    names = [d.disc for d in planning.caudal_access.discs]
    assert names == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1"]


def test_typical_distances_are_stated_without_a_sacrum(spine):
    model = spine(
        names=("T12", "L1", "L2", "L3", "L4", "L5", "S1"), field_mm=(0.0, 215.0), length_mm=215.0,
        half_width_mm=15.0,
    )  # fmt: skip
    access = model.localized().planning.caudal_access
    assert {disc.distance_from_hiatus_mm for disc in access.discs} == {None}
    assert access.discs[1].typical_mm == 115.0
    assert "assessed_mm" in access.not_measured


def test_stretches_without_fat_are_reported(spine, crescent):
    disc = spine().disc_mm("L4-L5")
    fluid = crescent(disc - 20, disc + 20, 5.0)
    model = spine(crescents=(fluid,), half_width_mm=25.0, sac_end_mm=255.0)
    dark = (model.disc_mm("L2-L3") - 12, model.disc_mm("L2-L3") + 12)
    access = measured(model, image_of(model, without_fat_mm=dark))
    assert [part.content for part in access.without_fat] == ["fluid", "no fat"]
    apex = model.body_mm("S4")
    for part, (start, stop) in zip(access.without_fat, ((disc - 20, disc + 20), dark), strict=True):
        assert part.start_mm == pytest.approx(apex - stop, abs=5.0)
        assert part.stop_mm == pytest.approx(apex - start, abs=5.0)
    assert "L4-L5" in access.without_fat[0].segments
    assert access.without_fat[1].segments == ("L2-L3",)
    assert measured(model, image_of(model)).without_fat[1:] == ()
