"""The anatomy network: its grid, its input, its discs, and what the shipped weights can do."""

import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakloc.anatomy import network as net
from leakloc.core.errors import AnalysisError, LeaklocError
from leakloc.core.networks import network_session
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.disc_pieces import discs_from

DATA = Path(os.environ.get("LEAKLOC_DATA", Path(__file__).parents[3] / "shared" / "data"))


def volume_of(array, spacing_ijk=(3.0, 1.0, 1.0), origin=(-19.5, -28.0, -60.0), axes=None):
    geometry = Geometry.from_axes(
        array.shape, origin_lps=origin, spacing_ijk_mm=spacing_ijk, directions_lps=axes
    )
    return Volume(array.astype(np.float32), geometry)


def plates(centers, normals, *, height_mm=8.0, radius_mm=16.0, shape=(120, 56, 14)):
    """Probabilities with a round plate of disc at each center, bone everywhere else nearby."""
    blank = volume_of(np.zeros(shape))
    points = blank.geometry.lps_from_kji(np.stack(np.indices(shape), -1))
    disc = np.zeros(shape, np.float32)
    for center, normal in zip(centers, normals, strict=True):
        offset = points - center
        along = offset @ np.asarray(normal)
        across = np.linalg.norm(offset - along[..., None] * np.asarray(normal), axis=-1)
        edge = np.clip(height_mm / 2 - np.abs(along) + 0.5, 0, 1)  # as the network: soft
        disc = np.maximum(disc, np.where(across < radius_mm, 0.95 * edge, 0)).astype(np.float32)
    column = np.hypot(points[..., 0], points[..., 1]) < 18
    bone = np.where(column, 0.95 - disc, 0.0).astype(np.float32)
    empty = np.zeros(shape, np.float32)
    return net.AnatomyProbabilities(*(blank.with_array(a) for a in (bone, disc, empty, empty)))


def tilted(degrees):
    return np.array([0.0, np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])


# --- discs from probabilities ----------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    tilt=st.floats(-35, 35),
    gap=st.floats(28, 40),
    shift=st.floats(-4, 4),
)
def test_discs_keep_their_place_and_tilt(tilt, gap, shift):
    centers = [np.array([0.0, shift, z]) for z in (gap, 0.0, -gap)]
    normal = tilted(tilt)
    found = discs_from(plates(centers, [normal] * 3))

    assert len(found.discs) == 3
    for disc, center in zip(found.discs, centers, strict=True):  # head down
        assert np.linalg.norm(disc.center_lps - center) < 1.0
        assert np.rad2deg(np.arccos(min(1.0, disc.normal_lps @ normal))) < 3.0


def test_thin_discs_close_together_stay_apart():
    centers = [np.array([0.0, 0.0, z]) for z in (28.0, 14.0, 0.0, -14.0)]
    found = discs_from(plates(centers, [tilted(10)] * 4, height_mm=5.0, radius_mm=8.0))
    heights = [disc.center_lps[2] for disc in found.discs]
    np.testing.assert_allclose(heights, [28, 14, 0, -14], atol=0.7)


def test_discs_joined_by_a_bridge_are_parted():
    centers = [np.array([0.0, 0.0, z]) for z in (32.0, 0.0, -32.0)]
    found = plates(centers, [tilted(8)] * 3)
    bridged = found.disc.array.copy()
    bridged[25:95, 40:42, 6:8] = np.maximum(bridged[25:95, 40:42, 6:8], 0.7)
    discs = discs_from(
        net.AnatomyProbabilities(
            found.vertebra, found.disc.with_array(bridged), found.canal, found.sacrum
        )
    ).discs
    np.testing.assert_allclose([d.center_lps[2] for d in discs], [32, 0, -32], atol=1.0)


def test_two_halves_of_a_disc_are_one():
    whole = plates([np.zeros(3)], [tilted(0)])
    broken = whole.disc.array.copy()
    broken[:, 26:30, :] = 0.0  # a dark cleft, front to back
    halves = net.AnatomyProbabilities(
        whole.vertebra, whole.disc.with_array(broken), whole.canal, whole.sacrum
    )
    (disc,) = discs_from(halves).discs
    assert np.linalg.norm(disc.center_lps) < 2.0


def test_discs_higher_than_a_slab_is_wide_stay_apart():
    centers = [np.array([0.0, 0.0, z]) for z in (-34.0, 0.0, 34.0)]
    whole = plates(centers, [tilted(0), tilted(20), tilted(0)], height_mm=12.0)
    slab = {name: getattr(whole, name).crop((slice(None), slice(None), slice(5, 8)))
            for name in ("vertebra", "disc", "canal", "sacrum")}  # fmt: skip
    found = discs_from(net.AnatomyProbabilities(**slab)).discs
    assert len(found) == 3
    assert all(disc.normal_lps[2] > 0.9 for disc in found)


def test_specks_are_no_discs():
    speck = plates([np.zeros(3)], [tilted(0)], height_mm=3.0, radius_mm=3.5)
    assert discs_from(speck).discs == ()


def test_a_plate_outside_the_column_scores_lower():
    inside = discs_from(plates([np.zeros(3)], [tilted(0)])).discs[0]
    lonely = plates([np.zeros(3)], [tilted(0)])
    bare = net.AnatomyProbabilities(
        lonely.vertebra.with_array(np.zeros_like(lonely.vertebra.array)),
        lonely.disc,
        lonely.canal,
        lonely.sacrum,
    )
    outside = discs_from(bare).discs[0]
    assert outside.score < 0.6 * inside.score
    assert inside.score > 0.9


# --- canal ---------------------------------------------------------------------------------------


# --- grid and input ----------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    i_mm=st.sampled_from([0.9, 1.0, 3.3, 4.4]),
    j_mm=st.floats(0.4, 1.4),
    k_mm=st.floats(0.4, 2.0),
)
def test_working_grid_keeps_every_point_in_place(i_mm, j_mm, k_mm):
    shape = (60, 50, 12)
    blank = volume_of(np.zeros(shape), (i_mm, j_mm, k_mm))
    points = blank.geometry.lps_from_kji(np.stack(np.indices(shape), -1))
    slope = np.array([0.3, -0.7, 1.1])
    working = net._working_volume(blank.with_array((points @ slope).astype(np.float32)))

    assert working.geometry.spacing_ijk_mm[1:] == pytest.approx((1.0, 1.0))
    assert 2.0 <= working.geometry.spacing_ijk_mm[0] <= 4.5
    inner = working.geometry.lps_from_kji(
        np.stack(np.indices(working.array.shape), -1)[3:-3, 3:-3, :]
    )
    np.testing.assert_allclose(working.array[3:-3, 3:-3], inner @ slope, atol=1e-2)


@given(gain=st.floats(0.01, 1000), offset=st.floats(-100, 100))
@settings(max_examples=25, deadline=None)
def test_input_does_not_depend_on_the_scanner_scale(gain, offset):
    planes = np.random.default_rng(3).uniform(0, 1, (3, 48, 48))
    plain = net.network_input(planes, 0.1, 0.9)
    scaled = net.network_input(planes * gain + offset, 0.1 * gain + offset, 0.9 * gain + offset)
    np.testing.assert_allclose(scaled, plain, atol=2e-3)


def test_input_is_finite_where_the_image_is_flat():
    assert np.isfinite(net.network_input(np.zeros((3, 64, 64)), 0.0, 0.0)).all()


# --- the shipped weights -------------------------------------------------------------------------


def drawn_spine(*, disc=0.25, marrow=0.55, fluid=1.0, fat=0.7, seed=5):
    """A cartoon: bodies of 27 mm, discs of 9 mm, a canal behind, noise. And the disc heights."""
    shape = (200, 160, 14)
    k, j, i = np.indices(shape)
    array = np.where(j > 120, fat, 0.15).astype(np.float32)
    column = (j > 55) & (j < 91) & (np.abs(i - 6.5) * 3 < 25)
    array[column] = marrow
    array[column & ((k + 5) % 36 < 9)] = disc
    array[(j > 94) & (j < 109) & (np.abs(i - 6.5) * 3 < 9)] = fluid
    array[((j >= 91) & (j <= 94)) | ((j >= 109) & (j <= 112))] = 0.1
    noise = np.random.default_rng(seed).normal(0, 0.02, shape)
    heights = [m * 36 - 5 + 4 for m in range(1, 6)]
    return volume_of(np.abs(array + noise), origin=(-19.5, -70.0, 0.0)), heights


def test_network_sees_a_drawn_spine_whatever_way_the_array_lies():
    image, heights = drawn_spine()
    turned = image.oriented("SAR")
    for shown in (image, turned):
        found = discs_from(net.anatomy_probabilities(shown))
        centers = np.array([disc.center_lps for disc in found.discs])
        for height in heights:
            nearest = centers[np.abs(centers[:, 2] - height).argmin()]
            assert np.abs(nearest - [0.0, 3.0, height]).max() < 5.0
        assert found.bodies is not None and found.method == "network"


def test_the_canal_chooses_the_planes():
    image, _ = drawn_spine()
    wide = volume_of(np.pad(image.array, [(0, 0), (0, 0), (40, 0)]), origin=(-139.5, -70.0, 0.0))
    found = net.anatomy_probabilities(wide)
    lateral = found.disc.geometry.lps_from_kji([[0, 0, 0], [0, 0, found.disc.array.shape[2]]])
    assert lateral[0, 0] > -60.0  # not the empty side
    assert found.canal.array.max() > 0.8


def test_a_volume_is_looked_at_once(monkeypatch):
    image, _ = drawn_spine()
    outputs = net.AnatomyOutputs()
    first = outputs.of(image)
    monkeypatch.setattr(net, "_classify", lambda *_: pytest.fail("looked twice"))
    assert outputs.of(image) is first
    gone = weakref.ref(first.canal)
    del image, first
    assert gone() is None  # forgotten with its volume


def test_nothing_is_detected_outside_the_field_of_view():
    image, _ = drawn_spine()
    wide = volume_of(np.pad(image.array, [(40, 0), (0, 0), (0, 0)]), origin=(-19.5, -70.0, -40.0))
    found = net.anatomy_probabilities(wide)
    for tissue in (found.vertebra, found.disc, found.canal, found.sacrum):
        assert tissue.array[:30].max() == 0.0


def test_constant_image_is_refused():
    with pytest.raises(AnalysisError, match="constant"):
        net.anatomy_probabilities(volume_of(np.ones((40, 40, 6))))


def test_missing_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(net, "MODEL_PATH", tmp_path / "anatomy.onnx")
    with pytest.raises(LeaklocError, match="weights of the anatomy network are missing"):
        net.anatomy_probabilities(drawn_spine()[0])


def test_weights_fit_the_code():
    assert net.MODEL_PATH.stat().st_size < 4e6
    session = network_session(net.MODEL_PATH, "anatomy")
    (given_,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given_.name, given_.shape[1]) == ("planes", 4)
    probabilities = session.run(None, {"planes": np.zeros((1, 4, 32, 48), np.float32)})[0]
    assert probabilities.shape == (1, len(net.CLASSES), 32, 48)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-4)
    assert made.name == "probabilities"


@pytest.mark.data
def test_held_out_patient():
    nib = pytest.importorskip("nibabel")
    stem = DATA / "spider" / "spider-005"
    if not Path(f"{stem}_T2SPACE.nii.gz").is_file():
        pytest.skip("the public volumes are not here")
    image = Volume.from_nibabel(nib.load(f"{stem}_T2SPACE.nii.gz"))
    truth = json.loads(Path(f"{stem}_discs.json").read_text())["discs"]
    centers = np.array([disc["ras_mm"] for disc in truth]) * [-1, -1, 1]
    found = np.array([d.center_lps for d in discs_from(net.anatomy_probabilities(image)).discs])
    gaps = np.linalg.norm(found[:, None] - centers[None], axis=-1)
    assert (gaps.min(0) < 8.0).all()
    assert (gaps.min(1) > 8.0).sum() <= 1
