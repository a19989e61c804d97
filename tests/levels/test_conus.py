from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.reference import reference_chain
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.conus import Conus, conus_arc_mm, conus_offset

TOP_MM = 200.0


def canal(cord_mm, *, roots=0.2, cord=0.9, length=200.0):
    """A straight sac with a cord from the top that tapers over 25 mm and ends at `cord_mm`."""
    geometry = Geometry.from_axes(
        (int(length / 2), 18, 18), origin_lps=(-17, -17, TOP_MM - length), spacing_ijk_mm=(2, 2, 2)
    )
    k, j, i = np.indices(geometry.shape)
    x, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([i, j, k], axis=-1)), -1, 0)
    sac = np.hypot(x, y) < 11
    solid = np.where(sac, roots, 0.0)
    radius = 5.5 * np.sqrt(np.clip((cord_mm - (TOP_MM - z)) / 25.0, 0.0, 1.0))
    solid[np.hypot(x, y) < radius] = cord
    heights = np.arange(TOP_MM, TOP_MM - length, -1.0)
    return SimpleNamespace(
        centerline=Centerline(np.stack([0 * heights, 0 * heights, heights], axis=-1)),
        thecal_sac=Volume(sac.astype(np.uint8), geometry),
        fluid_fraction=Volume(np.where(sac, 1 - solid, 0).astype(np.float32), geometry),
    )


@given(cord_mm=st.floats(30, 140), roots=st.floats(0.05, 0.5))
@settings(max_examples=15, deadline=None)
def test_conus_position(cord_mm, roots):
    assert conus_arc_mm(canal(cord_mm, roots=roots)) == pytest.approx(cord_mm, abs=6.0)


@pytest.mark.parametrize("cord_mm", [0.0, 10.0, 198.0, 400.0])
def test_none_without_cord_or_conus(cord_mm):
    assert conus_arc_mm(canal(cord_mm)) is None


def test_crowded_roots_are_not_the_cord():
    assert conus_arc_mm(canal(90.0, roots=0.85)) is None


def test_roots_that_separate_below_a_stenosis_are_not_the_conus():
    made = canal(60.0, roots=0.65)
    fluid = made.fluid_fraction.array.copy()
    z = made.fluid_fraction.geometry.lps_from_ijk(
        np.stack([np.zeros(len(fluid)), np.zeros(len(fluid)), np.arange(len(fluid))], axis=-1)
    )[:, 2]
    below = z < TOP_MM - 140
    fluid[below] = np.where(made.thecal_sac.array[below] > 0, 0.9, 0.0)
    made.fluid_fraction = made.fluid_fraction.with_array(fluid)
    assert conus_arc_mm(made) == pytest.approx(60.0, abs=6.0)


@given(below_mm=st.floats(-30, 30), count=st.sampled_from([4, 5, 6]))
def test_offset_grows_by_one_level_from_disc_to_disc(below_mm, count):
    chain = reference_chain(count)
    levels = conus_offset(Conus(0, below_mm, np.zeros(3)), chain, 1.0)
    assert (np.diff(levels) > 0.5).all() and (np.diff(levels) < 1.6).all()
    assert abs(levels[chain.discs.index("T12-L1")]) < 2.0
