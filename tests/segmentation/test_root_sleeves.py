"""Tests of `leakloc.segmentation.root_sleeves` on analytic shapes next to a sac."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.centerline import Centerline
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation.dura import Dura
from leakloc.segmentation.result import Candidate
from leakloc.segmentation.root_sleeves import (
    CYST,
    distance_mm,
    find_round_structures,
    name_cysts,
)
from leakloc.segmentation.scene import Scene

GEOMETRY = Geometry.from_axes((61, 60, 60), origin_lps=(-30, -30, -30), spacing_ijk_mm=(1, 1, 1))
X, Y, Z = np.moveaxis(GEOMETRY.lps_from_kji(np.indices(GEOMETRY.shape).reshape(3, -1).T), -1, 0)
SAC_MM = 7.0
TIP_Z = -10.0
NO_FLUID = np.zeros(GEOMETRY.shape, np.uint8)


def ellipsoid(center, semi_axes):
    """Fraction of each voxel within an ellipsoid, with a border 1 mm wide."""
    offset = (np.stack([X, Y, Z], axis=-1) - center) / semi_axes
    depth = (1 - np.linalg.norm(offset, axis=-1)) * np.min(semi_axes)
    return np.clip(depth + 0.5, 0, 1)


def scene(*shapes, **options):
    """A sac that ends 20 mm above the lower edge, and shapes of CSF signal outside it."""
    inside = (np.hypot(X, Y) < SAC_MM) & (TIP_Z < Z)
    signal = np.maximum.reduce([inside.astype(float), np.full(len(X), 0.05), *shapes])
    line = Centerline.smoothed(
        np.stack([np.zeros(61), np.zeros(61), np.arange(30.0, -31.0, -1.0)], axis=1),
        step_mm=1.0,
        smoothing_mm=0.0,
    )
    angle = np.arange(0.0, 2 * np.pi, np.pi / 8)
    dura = Dura(line, line.arc_mm, angle, np.full((len(line.arc_mm), 16), SAC_MM), 30.0 - TIP_Z)
    volume = Volume(signal.reshape(GEOMETRY.shape).astype(np.float32), GEOMETRY)
    mask = inside.reshape(GEOMETRY.shape)
    found = Scene(
        volume, volume, volume, CanalCoordinates.of(GEOMETRY, line),
        np.zeros(GEOMETRY.shape, np.float32), mask, ~mask, dura, False,
    )  # fmt: skip
    return replace(found, **options)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("diameter_mm", [4.0, 6.0, 9.0])
def test_a_sphere_lateral_to_the_sac_is_found_with_its_size(diameter_mm, side):
    center = (side * 14.3, -1.4, 3.2)
    cyst = ellipsoid(center, np.full(3, diameter_mm / 2))
    (found,) = find_round_structures(scene(cyst), NO_FLUID)
    assert found.center_lps == pytest.approx(center, abs=0.5)
    assert found.diameter_mm == pytest.approx(diameter_mm, abs=1.0)
    gap_mm = 14.3 - 0.5 * diameter_mm - SAC_MM
    assert found.sac_distance_mm == pytest.approx(gap_mm, abs=1.2)
    if diameter_mm > 5:
        assert found.volume_ml == pytest.approx(np.pi / 6 * diameter_mm**3 / 1000, rel=0.25)


def test_sleeves_with_a_root_are_not_found():
    axis = np.clip((np.abs(X) - 5) / 20, 0, 1)[:, None] * np.array([20.0, 0, -10]) + [5.0, 0, 5]
    radius = np.linalg.norm(np.stack([np.abs(X), Y, Z], axis=-1) - axis, axis=-1)
    sleeves = np.clip(3.4 - radius, 0, 1) * np.clip(radius - 1.0, 0, 1)
    assert find_round_structures(scene(sleeves), NO_FLUID) == ()
    filled = np.maximum(sleeves, ellipsoid((16, 0, 0), np.full(3, 3.0)))
    assert len(find_round_structures(scene(filled), NO_FLUID)) == 1


def sleeve_to(side, radius_mm):
    """A straight sleeve of a lateral root with the root in its center."""
    away = np.hypot(Y, Z)
    tube = np.clip(radius_mm + 0.5 - away, 0, 1) * np.clip(away - 1.2, 0, 1)
    return tube * (side * X > 5) * (side * X < 22)


def test_a_cyst_around_a_root_has_more_fluid_than_the_sleeve_of_the_opposite_side():
    cyst = ellipsoid((14, 0, 0), np.full(3, 4.0)) * np.clip(np.hypot(Y, Z) - 1.2, 0, 1)
    sleeve, opposite = sleeve_to(1, 2.0), sleeve_to(-1, 2.0)
    assert find_round_structures(scene(sleeve, opposite), NO_FLUID) == ()
    (found,) = find_round_structures(scene(np.maximum(sleeve, cyst), opposite), NO_FLUID)
    assert found.center_lps == pytest.approx((14, 0, 0), abs=1.5)
    assert found.diameter_mm == pytest.approx(8, abs=2)
    # Sleeves that are wide on both sides are normal.
    assert find_round_structures(scene(sleeve_to(1, 2.7), sleeve_to(-1, 2.7)), NO_FLUID) == ()


@pytest.mark.parametrize(
    ("center", "semi_axes"),
    [
        ((14, 0, 0), (3, 3, 12)),  # a vein
        ((12, 9, 0), (4, 4, 4)),  # a facet joint
        ((0, -14, 0), (4, 4, 4)),  # anterior to the canal
        ((14, 0, 0), (1.2, 1.2, 1.2)),  # too small
    ],
)
def test_other_shapes_and_positions_are_not_found(center, semi_axes):
    shape = ellipsoid(center, np.array(semi_axes, float))
    assert find_round_structures(scene(shape), NO_FLUID) == ()


def test_a_cyst_in_the_midline_is_found_caudal_to_the_sac_only():
    cyst = ellipsoid((0.5, -1, -21), np.full(3, 5.0))
    (found,) = find_round_structures(scene(cyst), NO_FLUID)
    assert found.diameter_mm == pytest.approx(10, abs=1)
    tip = ellipsoid((0, 0, TIP_Z), np.full(3, 3.0))
    assert find_round_structures(scene(tip), NO_FLUID) == ()


def test_collections_are_not_structures_and_the_largest_is_first():
    small = ellipsoid((14, 0, 15), np.full(3, 2.5))
    large = ellipsoid((-15, 0, -2), np.full(3, 4.0))
    both = scene(small, large)
    found = find_round_structures(both, NO_FLUID)
    assert [s.center_lps[0] > 0 for s in found] == [False, True]
    fluid = (large >= 0.5).reshape(GEOMETRY.shape).astype(np.uint8)
    (other,) = find_round_structures(both, fluid)
    assert other.center_lps[0] > 0


@pytest.mark.parametrize("option", ["fat_like_fluid", "tissue_bright"])
def test_not_assessed_next_to_bright_tissue(option):
    cyst = ellipsoid((14, 0, 0), np.full(3, 4.0))
    assert find_round_structures(scene(cyst, **{option: True}), NO_FLUID) is None


def test_rejected_candidates_at_a_structure_are_named():
    structures = find_round_structures(scene(ellipsoid((14, 0, 0), np.full(3, 4.0))), NO_FLUID)

    def named(x_mm, accepted=False):
        fat = Candidate(
            int(accepted), accepted, 0.1, 0.3, np.array([x_mm, 0, 0]), "Dim.", ("epidural fat",), ()
        )
        (result,) = name_cysts([fat], structures)
        return result.mimics

    assert named(15.0) == (CYST, "epidural fat")
    assert named(25.0) == named(15.0, accepted=True) == ("epidural fat",)


@pytest.mark.parametrize("reach_mm", [1.85, 3.05])
def test_distances_within_a_limit_are_those_of_the_whole_grid(reach_mm):
    mask = np.zeros((30, 40, 20), bool)
    mask[10:12, 3:9, 19] = mask[15, 20, 18] = True  # at an edge of the grid
    spacing = (0.6, 0.6, 1.0)
    whole, limited = distance_mm(mask, spacing), distance_mm(mask, spacing, reach_mm)
    within = whole <= reach_mm
    assert within.sum() > mask.sum()
    np.testing.assert_allclose(limited[within], whole[within], atol=1e-5)  # single precision
    assert (limited[~within] > reach_mm).all()
    assert np.isinf(distance_mm(np.zeros_like(mask), spacing, reach_mm)).all()
