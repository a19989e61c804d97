from __future__ import annotations

import numpy as np
import pytest

from leakloc.core.volume import Geometry
from leakloc.localization.canal import ArcGrid, area_profile, canal_voxels, profile_ends
from leakloc.localization.thickness import ball_diameters_mm


def sac_areas(model, sigma_mm=1.5):
    segmentation = model.segmentation()
    geometry = segmentation.thecal_sac.geometry
    index = np.flatnonzero(segmentation.thecal_sac.array)
    voxels = canal_voxels(
        index, geometry, segmentation.fluid_fraction.array, segmentation.centerline
    )
    grid = ArcGrid.over(voxels.arc_mm, 1.0, 5.0)
    return grid, voxels, area_profile(grid, voxels, 1.0, sigma_mm)


@pytest.mark.parametrize(
    ("radius_mm", "tilt_deg", "spacing"),
    [
        (np.inf, (0.0, 0.0), (1.0, 1.0, 1.0)),
        (np.inf, (25.0, 10.0), (0.8, 0.8, 1.2)),
        (130.0, (10.0, 0.0), (0.8, 0.8, 0.8)),
        (-90.0, (0.0, 10.0), (0.8, 0.9, 1.0)),
    ],
)
def test_a_tilted_or_bent_tube_keeps_its_cross_section(spine, radius_mm, tilt_deg, spacing):
    model = spine(
        radius_mm=radius_mm,
        tilt_deg=tilt_deg,
        spacing_ijk_mm=spacing,
        length_mm=120.0,
        sac_end_mm=200.0,
        field_mm=(-5.0, 125.0),
        half_width_mm=14.0,
    )
    grid, _, area = sac_areas(model)
    inner = area[(grid.centers_mm > 15) & (grid.centers_mm < 105)]
    assert inner == pytest.approx(np.pi * 8.0**2, rel=0.03)


def test_area_lateral_to_a_curve_is_not_distorted(spine, crescent):
    """Behind a lordotic canal perpendicular planes converge: volume per length is not area."""
    fluid = crescent(40.0, 160.0, 6.0, half_angle_deg=45.0)
    model = spine(radius_mm=70.0, crescents=(fluid,), half_width_mm=18.0, field_mm=(20.0, 180.0))
    segmentation = model.segmentation()
    voxels = canal_voxels(
        np.flatnonzero(segmentation.collections.array),
        segmentation.collections.geometry,
        segmentation.fluid_fraction.array,
        segmentation.centerline,
    )
    grid = ArcGrid.over(voxels.arc_mm, 1.0, 5.0)
    area = area_profile(grid, voxels, 1.0, 1.5)
    middle = (grid.centers_mm > 60) & (grid.centers_mm < 140)
    truth = np.pi / 4 * (14.0**2 - 8.0**2)
    assert area[middle].mean() == pytest.approx(truth, rel=0.05)


def test_slice_spacing_causes_no_ripple():
    from leakloc.anatomy.centerline import Centerline

    geometry = Geometry.from_axes((60, 8, 8), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1.3))
    line = Centerline(np.array([[3.5, 3.5, 80.0 - z] for z in range(90)]))
    everything = np.arange(60 * 8 * 8)
    voxels = canal_voxels(everything, geometry, np.ones((60, 8, 8)), line)
    grid = ArcGrid.over(voxels.arc_mm, 1.0, 5.0)
    area = area_profile(grid, voxels, 1.0, 1.5)
    inner = area[15:-15]
    assert inner.max() / inner.min() < 1.04


@pytest.mark.parametrize("sigma_mm", [0.0, 1.0])
def test_blunt_ends_lie_at_half_height(sigma_mm):
    grid = ArcGrid(0.0, 1.0, 101)
    profile = grid.smooth(np.where((grid.centers_mm >= 20) & (grid.centers_mm < 70), 80.0, 0.0),
                          sigma_mm)  # fmt: skip
    start, stop = profile_ends(profile, grid, 3.0, sigma_mm)
    assert start == pytest.approx(19.5, abs=0.3)
    assert stop == pytest.approx(69.5, abs=0.3)


def test_single_voxels_do_not_move_the_ends():
    grid = ArcGrid(0.0, 1.0, 101)
    profile = np.where((grid.centers_mm >= 30) & (grid.centers_mm < 60), 50.0, 0.0)
    profile[[5, 90]] = 0.6
    start, stop = profile_ends(profile, grid, 3.0, 0.0)
    assert start >= 29 and stop <= 60


@pytest.mark.parametrize("thickness_mm", [2.0, 3.3, 5.0, 8.0])
@pytest.mark.parametrize("spacing", [(0.9, 0.9, 0.9), (0.7, 0.7, 1.2)])
def test_thickness_of_a_crescent_is_not_rounded_to_voxels(spine, crescent, thickness_mm, spacing):
    """The crescent is 1 mm from the sac, so that its surfaces are separate."""
    fluid = crescent(30.0, 70.0, thickness_mm, half_angle_deg=60.0, inner_mm=9.0)
    model = spine(
        radius_mm=150.0,
        tilt_deg=(13.0, 7.0),
        spacing_ijk_mm=spacing,
        crescents=(fluid,),
        length_mm=100.0,
        sac_end_mm=120.0,
        field_mm=(10.0, 90.0),
        half_width_mm=20.0,
    )
    segmentation = model.segmentation()
    index = np.flatnonzero(segmentation.collections.array)
    _, diameter = ball_diameters_mm(
        index, segmentation.fluid_fraction.array, segmentation.collections.geometry
    )
    assert diameter.max() == pytest.approx(thickness_mm, abs=0.35)


def test_thickness_of_a_ball_at_the_edge_of_the_field():
    geometry = Geometry.from_axes((20, 20, 20), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    k, j, i = np.indices((20, 20, 20))
    distance = np.sqrt((k - 10) ** 2 + (j - 10) ** 2 + (i - 10.0) ** 2)
    fraction = np.clip(6.0 - distance + 0.5, 0, 1)
    _index, diameter = ball_diameters_mm(np.flatnonzero(fraction > 0), fraction, geometry)
    assert diameter.max() == pytest.approx(12.0, abs=0.3)
    cut = Geometry.from_axes((10, 20, 20), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    _, diameter = ball_diameters_mm(np.flatnonzero(fraction[:10] > 0), fraction[:10], cut)
    assert 4.5 < diameter.max() < 6.0  # half a ball: the field cuts it


def test_thickness_of_nothing_solid_is_empty():
    geometry = Geometry.from_axes((5, 5, 5), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    fraction = np.full((5, 5, 5), 0.3)
    index, diameter = ball_diameters_mm(np.array([62]), fraction, geometry)
    assert len(index) == len(diameter) == 0
