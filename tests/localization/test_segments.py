import numpy as np
import pytest

from leakloc.anatomy.vocabulary import SIDES
from tests.localization.conftest import Crescent, Spine

TOWARD = {"dorsal": 0.0, "left": 90.0, "ventral": 180.0, "right": -90.0}


def segments_of(spine):
    return {part.segment: part for part in spine.localized().fluid_by_segment}


@pytest.mark.parametrize("radius_mm", [np.inf, 250.0])
@pytest.mark.parametrize("side", SIDES)
def test_fluid_is_on_its_side_of_its_segment(side, radius_mm):
    disc = Spine().disc_mm("L3-L4")
    spine = Spine(
        radius_mm=radius_mm, crescents=[Crescent(disc - 8, disc + 8, 3.0, toward_deg=TOWARD[side])]
    )
    segments = segments_of(spine)
    assert [name for name, part in segments.items() if part.present] == ["L3-L4"]
    found = segments["L3-L4"]
    assert [name for name in SIDES if getattr(found, name).present] == [side]
    fluid = getattr(found, side)
    assert fluid.thickness_mm == pytest.approx(3.0, abs=0.8)
    ring = np.pi * ((8.0 + 3.0) ** 2 - 8.0**2) * 80 / 360
    assert fluid.area_mm2 == pytest.approx(ring, rel=0.15)
    assert found.collections == (1,)


def test_two_collections_in_one_segment():
    disc = Spine().disc_mm("L2-L3")
    spine = Spine(
        crescents=[
            Crescent(disc - 10, disc + 10, 4.0),
            Crescent(disc - 10, disc + 10, 2.0, toward_deg=180.0),
        ]
    )
    found = segments_of(spine)["L2-L3"]
    assert found.dorsal.present and found.ventral.present
    assert not found.left.present and not found.right.present
    assert found.collections == (1, 2)


def test_long_fluid_is_in_all_its_segments():
    spine = Spine()
    start, stop = spine.disc_mm("L1-L2"), spine.disc_mm("L4-L5")
    result = Spine(crescents=[Crescent(start, stop, 3.0)]).localized()
    present = [part.segment for part in result.fluid_by_segment if part.present]
    assert present == ["L1-L2", "L2-L3", "L3-L4", "L4-L5"]
    assert result.finding.segments_with_fluid == 4


def test_no_fluid():
    result = Spine().localized()
    assert result.finding.segments_with_fluid == 0
    for part in result.fluid_by_segment:
        assert not part.present and part.collections == ()
        assert all(getattr(part, side).thickness_mm == 0 for side in SIDES)


def test_without_levels_the_number_is_unknown():
    result = Spine(status="unlabelled", crescents=[Crescent(80, 120, 3.0)]).localized()
    assert result.fluid_by_segment == ()
    assert result.finding.segments_with_fluid is None


@pytest.mark.parametrize(("half_angle_deg", "floating"), [(40.0, False), (179.0, True)])
def test_floating_sac(half_angle_deg, floating):
    made = Spine(crescents=[Crescent(80, 120, 4.0, half_angle_deg=half_angle_deg)])
    (collection,) = made.localized().collections
    assert collection.floating_sac is floating
    expected = 360.0 if floating else 2 * half_angle_deg
    assert collection.max_angle_around_sac_deg == pytest.approx(expected, abs=25)


@pytest.mark.parametrize(("half_width_mm", "truncated"), [(40.0, False), (12.0, True)])
def test_fluid_at_the_edge_of_the_images_is_truncated(half_width_mm, truncated):
    disc = Spine().disc_mm("L3-L4")
    lateral = Crescent(disc - 8, disc + 8, 8.0, toward_deg=90.0)
    found = segments_of(Spine(half_width_mm=half_width_mm, crescents=[lateral]))["L3-L4"]
    assert found.left.present and found.left.truncated is truncated
    assert not found.right.truncated
