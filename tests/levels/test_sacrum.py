import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.reference import reference_chain
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.candidates import Candidate
from leakloc.levels.sacrum import expected_axis, place_remnants, trace_sacrum

CHAIN = reference_chain(5)
HEIGHTS_MM = CHAIN.pitch_mm[CHAIN.vertebrae.index("S1") :]
NAMES = ("S1-S2", "S2-S3", "S3-S4", "S4-S5")


def made_sacrum(heights_mm, *, remnants=True, field_mm=160.0, noise=0.0, above=0.0):
    """An image of a curved sacrum below a lumbosacral disc at the origin, and its bone.

    Returns image, bone, the disc, and the true curve.
    """
    arc = np.arange(0.0, heights_mm.sum() + 1.0)
    tilt = np.radians(55.0 - 0.25 * arc)
    steps = np.stack([0 * arc, np.sin(tilt), -np.cos(tilt)], axis=-1)
    line = Centerline(np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]))
    geometry = Geometry.from_axes(
        (int(field_mm), 150, 7), origin_lps=(-9, -30, 20 - field_mm), spacing_ijk_mm=(3, 1, 1)
    )
    k, j, i = np.indices(geometry.shape)
    along, _, dorsal = line.project(geometry.lps_from_kji(np.stack([k, j, i], axis=-1)))
    half = 14.0 - 8.0 * along / line.length_mm
    bone = (np.abs(dorsal) < half) & (along > 5.0 - above) & (along < line.length_mm)
    image = np.where(bone, 1.0, 0.3)
    if remnants:
        for end in np.cumsum(heights_mm)[:4]:
            image[bone & (np.abs(along - end) < 1.5)] = 0.2
    image += noise * np.random.default_rng(0).normal(size=image.shape)
    disc = Candidate(
        np.zeros(3), np.array([0.0, -np.sin(tilt[0]), np.cos(tilt[0])]), 0.9, 40.0, 35.0,
        0.9, 0.1, 0.0, 0.95, 100.0, 100.0,
    )  # fmt: skip
    return (
        Volume(image.astype(np.float32), geometry),
        Volume(bone.astype("f4"), geometry),
        disc,
        line,
    )


def placed(heights_mm, **options):
    """Distances of the placed remnants from the true ones, and whether they were detected."""
    image, bone, disc, true = made_sacrum(heights_mm, **options)
    axis = trace_sacrum(image, bone, [disc])
    arcs, detected = place_remnants(axis, disc.center_lps, {}, 1.0)
    points = Centerline(axis.points_lps).at(arcs)
    return np.linalg.norm(points - true.at(np.cumsum(heights_mm)), axis=1), detected


@given(size=st.floats(0.8, 1.2), own=st.lists(st.floats(-0.06, 0.06), min_size=5, max_size=5))
@settings(max_examples=8, deadline=None)
def test_remnants_lie_where_the_marrow_is_crossed(size, own):
    errors_mm, detected = placed(size * HEIGHTS_MM * (1 + np.array(own)))
    assert (errors_mm[:4] < 3.0).all()
    assert all(detected[:3])


def test_without_remnants_the_usual_heights_count():
    errors_mm, detected = placed(HEIGHTS_MM, remnants=False, noise=0.02)
    assert (errors_mm[:4] < 6.0).all()
    assert not any(detected)


def test_a_field_that_ends_in_the_sacrum_still_places_all_of_it():
    errors_mm, _ = placed(HEIGHTS_MM, field_mm=90.0)
    assert errors_mm[0] < 3.0 and (errors_mm[:4] < 25.0).all()


def test_no_disc_above_sacral_bone_is_no_sacrum():
    image, bone, disc, _ = made_sacrum(HEIGHTS_MM)
    nothing = bone.with_array(np.zeros_like(bone.array))
    assert trace_sacrum(image, nothing, [disc]) is None
    assert trace_sacrum(image, bone, []) is None


def test_a_known_remnant_is_retained():
    image, bone, disc, true = made_sacrum(HEIGHTS_MM, remnants=False)
    axis = trace_sacrum(image, bone, [disc])
    own = true.at(HEIGHTS_MM[0] + 5.0)
    arcs, detected = place_remnants(axis, disc.center_lps, {"S1-S2": own}, 1.0)
    assert np.linalg.norm(Centerline(axis.points_lps).at(arcs[0]) - own) < 4.0
    assert detected[0] and not detected[1]


@pytest.mark.parametrize("tilt_deg", [20.0, 35.0, 50.0])
def test_the_expected_axis_leads_down_and_back(tilt_deg):
    tilt = np.radians(tilt_deg)
    axis = expected_axis(np.zeros(3), np.array([0.0, -np.sin(tilt), np.cos(tilt)]))
    end = axis.points_lps[100]
    assert end[2] < -30 and end[1] > 30 and abs(end[0]) < 1e-6
    arcs, detected = place_remnants(axis, np.zeros(3), {}, 1.0)
    assert arcs == pytest.approx(np.cumsum(HEIGHTS_MM), abs=2.0) and not any(detected)
