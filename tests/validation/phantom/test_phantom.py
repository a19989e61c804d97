from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from leakloc.anatomy.vocabulary import LABEL_VALUES, split_segment
from leakloc.core.volume import Geometry
from leakloc.validation.phantom import SCENARIOS, MimicSpec, make_phantom
from leakloc.validation.phantom.artifacts import draw_fat_patches
from leakloc.validation.phantom.canvas import Points
from leakloc.validation.phantom.findings import root_direction, skin_depth_mm
from leakloc.validation.phantom.tissues import TEXTURES, TISSUES

NAMES = [
    "normal",
    "postoperative_dorsal",
    "ventral_longitudinal",
    "circumferential_thin",
    "periradicular_left",
    "perineural_cyst",
    "seroma_apart",
    "hematoma",
    "facet_cysts",
    "metal",
    "fat_suppression_failure",
    "transitional",
    "transitional_shape",
    "lumbar_without_hiatus",
    "scoliosis",
    "stenosis",
    "three_stations",
    "abdominal_fluid",
    "wrap",
    "anonymised_headers",
    "slab_only",
    "cervicothoracic",
    "retrospinal_c1_c2",
    "retrospinal_c1_c2_only",
]
WITHOUT = {
    "normal", "perineural_cyst", "seroma_apart", "hematoma", "facet_cysts", "abdominal_fluid",
    "slab_only", "cervicothoracic", "retrospinal_c1_c2_only",
}  # fmt: skip


@pytest.fixture(scope="module")
def operated(make_tiny):
    return make_phantom(make_tiny("postoperative_dorsal"), 3)


@pytest.fixture(scope="module")
def masks(operated):
    return operated.masks(operated.myelogram_geometry())


def test_a_repeat_scan_has_the_same_anatomy_and_another_position(operated):
    again = make_phantom(operated.scenario, operated.seed, repeat=1)
    centers = [[v.center_lps for v in p.truth.vertebrae] for p in (operated, again)]
    np.testing.assert_array_equal(*centers)
    volumes = [[c.volume_ml for c in p.truth.collections] for p in (operated, again)]
    assert volumes[0] == volumes[1]
    assert again.vendor == operated.vendor
    grids = operated.myelogram_geometry(), again.myelogram_geometry()
    assert not grids[0].matches(grids[1], tolerance_mm=0.5)
    assert np.linalg.norm(grids[0].center_lps - grids[1].center_lps) < 40.0
    grid = grids[0].cropped((slice(0, 2), slice(0, 40), slice(0, 40)))
    images = [p.image("ht2w_3d", grid).array for p in (operated, again)]
    assert not np.array_equal(*images)  # noise


def test_matrix_is_complete():
    assert list(SCENARIOS) == NAMES
    assert all(name == scenario.name for name, scenario in SCENARIOS.items())


@pytest.mark.parametrize("name", NAMES)
def test_leak_is_at_the_specified_level(name):
    truth = make_phantom(name, 1).truth
    assert (truth.leak == "absent") == (name in WITHOUT) == (not truth.collections)
    for spec, found in zip(SCENARIOS[name].collections, truth.collections, strict=True):
        wanted = [segment.split("-")[0] for segment in spec.levels]
        assert found.level in found.segments
        assert found.volume_ml > 0.4
        assert found.position == spec.position
        chain = [v.name for v in truth.vertebrae]
        gap = min(abs(chain.index(split_segment(found.level)[0]) - chain.index(w)) for w in wanted)
        assert gap <= 1
        if spec.position != "circumferential":
            assert max(found.position_fractions, key=found.position_fractions.get) == spec.position


def test_same_seed_same_image_other_seed_other_subject(make_tiny):
    scenario = replace(make_tiny("normal"), myelogram_shape=(64, 40, 12))
    one, two, other = (make_phantom(scenario, seed) for seed in (5, 5, 6))
    grid = one.myelogram_geometry()
    image = one.image("ht2w_3d", grid).array
    assert np.array_equal(image, two.image("ht2w_3d", two.myelogram_geometry()).array)
    a, b = (p.masks(grid).thecal_sac.array for p in (one, other))
    assert not np.allclose(a, b)


def test_masks_hold_the_true_volumes(operated, masks):
    voxel = masks.fluid.geometry.voxel_volume_ml
    (true,) = operated.truth.collections
    assert masks.fluid_fraction.array.sum() * voxel == pytest.approx(true.volume_ml, rel=0.04)
    fine = operated.myelogram_geometry().with_spacing((1.25, 1.25, 1.25))
    finer = operated.masks(fine).fluid_fraction.array.sum() * fine.voxel_volume_ml
    assert finer == pytest.approx(true.volume_ml, rel=0.04)
    assert masks.thecal_sac.array.min() >= 0 and masks.thecal_sac.array.max() <= 1
    overlap = masks.thecal_sac.array + masks.fluid_fraction.array
    assert overlap.max() < 1.05  # a voxel is filled once
    assert set(np.unique(masks.fluid.array)) == {0, 1}


def test_sac_volume_is_that_of_the_anatomy(make_tiny):
    phantom = make_phantom(replace(make_tiny("normal"), field_of_view="whole_spine"), 2)
    anatomy = phantom.body.anatomy
    line = anatomy.centerline
    covered = np.arange(anatomy.disc_mm("T11-T12"), anatomy.sac_tip_mm, 0.25)
    rows = anatomy.rows(covered.astype(np.float32))
    areas = np.pi * anatomy.tables.sac.a[rows] * anatomy.tables.sac.b[rows]
    grid = make_phantom(make_tiny("normal"), 2).myelogram_geometry().with_spacing((1.5, 1.5, 1.5))
    sac = phantom.masks(grid).thecal_sac
    kji = np.argwhere(sac.array > 0)
    arc, _, _ = line.project(grid.lps_from_kji(kji))
    inside = sac.array[tuple(kji[arc > covered[0]].T)].sum() * grid.voxel_volume_ml
    assert inside == pytest.approx(areas.sum() * 0.25 / 1000, rel=0.05)


def test_truth_agrees_with_the_masks(operated, masks):
    truth = operated.truth
    grid = masks.levels.geometry
    for vertebra in truth.vertebrae:
        if not grid.contains(vertebra.center_lps) or vertebra.name.startswith("S"):
            continue
        k, j, i = np.round(grid.kji_from_lps(vertebra.center_lps)).astype(int)
        assert masks.levels.array[k, j, i] == LABEL_VALUES[vertebra.name]
    (true,) = truth.collections
    kji = np.argwhere(masks.fluid.array == 1)
    points = grid.lps_from_kji(kji)
    assert true.cranial_lps[2] == pytest.approx(points[:, 2].max(), abs=8)
    assert true.caudal_lps[2] == pytest.approx(points[:, 2].min(), abs=8)
    assert np.linalg.norm(points - true.epicenter_lps, axis=1).min() < 12
    names = {disc.name: disc for disc in truth.discs}
    disc = names["L4-L5"]
    above = next(v for v in truth.vertebrae if v.name == "L4").center_lps
    assert disc.normal_lps @ (above - disc.center_lps) > 8


def test_path_runs_posterior_to_the_sac_from_the_hiatus_to_the_level(operated):
    (true,) = operated.truth.collections
    truth = operated.truth
    assert np.allclose(true.path_lps[0], truth.hiatus_lps, atol=0.01)
    assert np.linalg.norm(np.diff(true.path_lps, axis=0), axis=1).sum() == pytest.approx(
        true.path_length_mm, abs=1
    )
    # The path is longer or shorter than the canal's axis only by the curve's own bend.
    assert true.path_length_mm == pytest.approx(true.canal_distance_from_hiatus_mm, rel=0.12)
    grid = operated.myelogram_geometry().with_spacing((0.8, 0.8, 0.8))
    near = operated.masks(grid.cropped(grid.box_around(true.path_lps, 3))).thecal_sac
    assert near.sample(true.path_lps).max() < 0.5
    assert 90 <= true.canal_distance_from_hiatus_mm <= 165 or true.level not in ("L4-L5",)


def test_csf_is_bright_and_fluid_outside_nearly_as_bright(operated, masks):
    grid = masks.fluid.geometry
    image = operated.image("ht2w_3d", grid)
    sac = ndimage.binary_erosion(masks.thecal_sac.array > 0.99)
    csf = np.percentile(image.array[sac], 90)  # between the roots
    fluid = np.median(image.array[masks.fluid_fraction.array > 0.97])
    marrow = np.median(image.array[masks.levels.array > 0])
    assert image.array.dtype == np.float32
    assert 500 < csf < 1800
    assert 0.7 < fluid / csf < 1.4
    assert marrow < 0.3 * csf


def test_t2_shows_discs_and_marrow(operated):
    series = next(s for s in operated.series() if s.sequence.name == "t2_sagittal")
    (image,) = operated.render(series)
    masks = operated.masks(series.geometry)
    csf = np.median(image.array[masks.thecal_sac.array > 0.95])
    marrow = np.median(image.array[masks.levels.array > 0])
    assert 0.2 < marrow / csf < 0.8


def test_mimics_are_bright_but_no_collection(make_tiny):
    phantom = make_phantom(make_tiny("seroma_apart"), 0)
    grid = phantom.myelogram_geometry()
    masks = phantom.masks(grid)
    assert masks.fluid_fraction.array.max() == 0
    (blob,) = phantom.body.findings.mimics[0].shapes
    line = phantom.body.anatomy.centerline
    _, left, dorsal = line.frame_at(blob.center[0])
    middle = line.at(blob.center[0]) + blob.center[1] * left + blob.center[2] * dorsal
    image = phantom.image("ht2w_3d", grid)
    sac = np.median(image.array[masks.thecal_sac.array > 0.95])
    assert image.sample(middle) > 0.3 * sac
    assert masks.thecal_sac.sample(middle) == 0


def test_a_diverticulum_is_next_to_its_root_and_a_cyst_around_it(make_tiny):
    mimics = (
        MimicSpec("root_diverticulum", ("L2-L3",), (3.0, 3.0)),
        MimicSpec("perineural_cyst", ("L4-L5",), (4.0, 4.0)),
    )
    phantom = make_phantom(make_tiny("normal", mimics=mimics), 0)
    diverticulum, cyst = phantom.truth.root_structures
    assert (diverticulum.root, cyst.root) == ("L3", "L5")
    assert diverticulum.diameter_mm == pytest.approx(6, rel=0.05)
    assert diverticulum.visible_mm == pytest.approx(6, abs=1.2)
    assert cyst.visible_mm < cyst.diameter_mm - 0.5  # the root passes through its center
    anatomy = phantom.body.anatomy
    for item, fluid in zip((diverticulum, cyst), phantom.body.findings.mimics, strict=True):
        _, left_mm, _ = anatomy.centerline.project(item.center_lps)
        assert (left_mm > 0) == (item.side == "left")
        side = 1.0 if item.side == "left" else -1.0
        start, direction, _ = root_direction(anatomy, item.root, side)
        (blob,) = fluid.shapes
        away_mm = np.linalg.norm(np.cross(blob.center - start, direction))
        assert (away_mm > 2) == (item is diverticulum)


def test_thin_collection_keeps_its_thickness(make_tiny):
    phantom = make_phantom(make_tiny("circumferential_thin"), 4)
    (true,) = phantom.truth.collections
    assert 1.2 <= true.max_thickness_mm <= 3.2
    assert min(true.position_fractions.values()) > 0.12


def test_stenosis_narrows_the_sac(make_tiny):
    phantom = make_phantom(make_tiny("stenosis"), 1)
    anatomy = phantom.body.anatomy
    (true,) = phantom.truth.collections
    levels = [name for spec in phantom.scenario.collections for name in spec.levels]
    areas = {
        name: np.pi
        * anatomy.value(anatomy.tables.sac.a, anatomy.disc_mm(name))
        * anatomy.value(anatomy.tables.sac.b, anatomy.disc_mm(name))
        for name in levels
    }
    assert min(areas.values()) < 75
    assert true.volume_ml > 0.3


def test_transitional_has_four_or_six_lumbar_vertebrae():
    counts = {make_phantom("transitional", seed).truth.lumbar_count for seed in range(6)}
    assert counts == {4, 6}


def test_field_without_hiatus_lacks_it(make_tiny):
    phantom = make_phantom(
        make_tiny(
            "lumbar_without_hiatus",
        ),
        1,
    )
    wide = make_phantom("lumbar_without_hiatus", 1)
    for one in (phantom, wide):
        truth = one.truth
        if one is wide:
            assert not one.myelogram_geometry().contains(truth.hiatus_lps)
    assert (
        make_phantom("normal", 1)
        .myelogram_geometry()
        .contains(make_phantom("normal", 1).truth.hiatus_lps)
    )


def test_scoliosis_bends_sideways():
    spread = {
        name: np.ptp(make_phantom(name, 2).body.anatomy.centerline.points_lps[:, 0])
        for name in ("normal", "scoliosis")
    }
    assert spread["scoliosis"] > 9
    assert spread["scoliosis"] > spread["normal"]


def test_stations_overlap_and_compose(make_tiny):
    scenario = replace(
        SCENARIOS["three_stations"], myelogram_shape=(72, 48, 18), voxel_mm=4.0, slice_mm=4.0
    )
    phantom = make_phantom(scenario, 0)
    series = [s for s in phantom.series() if s.sequence.name == "ht2w_3d"]
    assert [s.station for s in series] == [0, 1, 2, None]
    assert series[-1].composed
    tops = [s.geometry.center_lps[2] for s in series[:3]]
    assert tops == sorted(tops, reverse=True)
    composed = phantom.render(series[-1])[0]
    lowest = phantom.render(series[2])[0]
    box = composed.geometry.box_around(lowest.geometry.center_lps[None], 30)
    part = composed.crop(box)
    again = lowest.resample(part.geometry, order=0)
    assert np.allclose(part.array, again.array, atol=1e-2)
    assert composed.geometry.contains(phantom.truth.vertebrae[0].center_lps)


def test_balanced_steady_state_leaves_fat_bright(make_tiny):
    scenario = replace(
        make_tiny("normal"), series=("ht2w_3d", "ht2w_bssfp"), plane="coronal",
        myelogram_shape=(64, 32, 20), voxel_mm=5.0, slice_mm=5.0, end_rolloff=0.0, bias=0.0,
    )  # fmt: skip
    phantom = make_phantom(scenario, 2)
    grid = phantom.myelogram_geometry()
    assert grid.axis_codes[1] == "I" and grid.axis_codes[0] == "L"
    anatomy = phantom.body.anatomy
    arc = anatomy.site("L3").middle_mm
    _, _, dorsal = anatomy.centerline.frame_at(arc)
    depth = skin_depth_mm(anatomy, arc) - 0.5 * anatomy.fat_depth_mm
    under_skin = anatomy.centerline.at(arc) + dorsal * depth
    fat = {
        name: phantom.image(name, grid).sample(under_skin) / phantom.sequences[name].csf_signal
        for name in ("ht2w_3d", "ht2w_bssfp")
    }
    assert fat["ht2w_bssfp"] > 0.4
    assert fat["ht2w_3d"] < 0.2


def test_metal_is_dark_with_a_bright_rim(make_tiny):
    phantom = make_phantom(make_tiny("metal"), 1)
    bare = make_phantom(replace(make_tiny("metal"), screws=False), 1)
    line, findings = phantom.body.anatomy.centerline, phantom.body.findings
    assert len(findings.screws) == 6
    grid = phantom.myelogram_geometry()
    image, without = (p.image("ht2w_3d", grid) for p in (phantom, bare))
    middle = 0.5 * (np.array(findings.screws[0].start) + np.array(findings.screws[0].stop))
    _, left, dorsal = line.frame_at(middle[0])
    place = line.at(middle[0]) + middle[1] * left + middle[2] * dorsal
    csf = phantom.sequences["ht2w_3d"].csf_signal
    box = grid.box_around(place[None], 9)
    assert image.sample(place) < 0.15 * csf
    gained = image.array[box] - without.array[box]
    assert (gained > 0.15 * csf).sum() > 5


def test_the_sac_ends_at_the_foramen_magnum():
    phantom = make_phantom("three_stations", 0)
    anatomy = phantom.body.anatomy
    points = anatomy.centerline.at(anatomy.foramen_magnum_mm + np.array([-15.0, 15.0]))
    above, below = (
        phantom.masks(
            Geometry.from_axes((8, 8, 8), origin_lps=point - 8, spacing_ijk_mm=(2, 2, 2))
        ).thecal_sac.array.max()
        for point in points
    )
    assert above == 0
    assert below == 1


@pytest.fixture(scope="module")
def retrospinal():
    return make_phantom("retrospinal_c1_c2", 40)


def test_retrospinal_fluid_lies_between_the_arches_of_c1_and_c2(retrospinal):
    anatomy, true = retrospinal.body.anatomy, retrospinal.truth.retrospinal_c1_c2
    arc, left, dorsal = anatomy.centerline.project(true.center_lps)
    assert 0.2 < true.volume_ml < 6
    assert true.left_mm == pytest.approx(float(left), abs=0.5)
    assert dorsal > anatomy.value(anatomy.tables.canal.b, float(arc))
    lamina = anatomy.tables.arches.lamina
    top = anatomy.sites[0].top_mm
    assert top - 5 < arc < anatomy.site("C2").at(0.42)
    assert anatomy.value(lamina, float(arc)) > 0
    assert anatomy.value(lamina, top - 9) < 0  # posterior arch of C1
    assert anatomy.value(lamina, anatomy.site("C2").at(0.6)) < 0
    grid = Geometry.from_axes(
        (6, 6, 6), origin_lps=list(true.center_lps - 2.5), spacing_ijk_mm=(1, 1, 1)
    )
    bare = make_phantom(replace(retrospinal.scenario, retrospinal=None), 40)
    image, without = (p.image("ht2w_3d", grid).array.max() for p in (retrospinal, bare))
    assert image > 0.8 * retrospinal.sequences["ht2w_3d"].csf_signal > 5 * without


def test_retrospinal_fluid_changes_no_other_draw(retrospinal):
    bare = make_phantom(replace(retrospinal.scenario, retrospinal=None), 40).truth.to_dict()
    true = retrospinal.truth.to_dict()
    assert bare.pop("retrospinal_c1_c2") is None
    assert true.pop("retrospinal_c1_c2")["volume_ml"] > 0
    assert bare == true


def test_cervicothoracic_field_contains_the_foramen_magnum_and_the_collection(retrospinal):
    grid, anatomy = retrospinal.myelogram_geometry(), retrospinal.body.anatomy
    ends = anatomy.centerline.at([anatomy.foramen_magnum_mm, anatomy.site("T4").middle_mm])
    assert grid.contains(ends).all()
    (true,) = retrospinal.truth.collections
    assert grid.contains([true.cranial_lps, true.caudal_lps]).all()
    assert not grid.contains(retrospinal.truth.conus_lps)


def test_textures_follow_the_measured_statistics():
    """Variation and correlation length of pure tissue over subjects, as on SPIDER volumes."""
    rng = np.random.default_rng(0)
    x, y, z = rng.uniform(-60, 60, (3, 20_000)).astype(np.float32)
    rows = np.zeros(len(x), np.int32)
    fat_fractions = {"muscle": 0.0, "marrow": TISSUES["marrow"].fat_fraction, "fat": 1.0}
    for name, fat_fraction in fat_fractions.items():
        texture = TEXTURES[name]
        median = np.sqrt(np.prod(texture.variation))
        found, near = [], []
        for seed in range(4):
            body = make_phantom("normal", seed).body
            fractions = np.full(len(x), fat_fraction, np.float32)
            one, other = (
                body.grain(Points(x, x, x, x, y + shift, z, rows), median, fractions, 0.3) - 1
                for shift in (0.0, np.mean(texture.length_mm))
            )
            found.append(one.std())
            near.append(np.mean(one * other) / one.var())
        assert 0.6 * texture.variation[0] < min(found)
        assert max(found) < 1.2 * texture.variation[1]
        assert 0.05 < np.mean(near) < 0.75
        assert np.ptp(found) > 0


@pytest.mark.parametrize("seed", [41, 42, 43])
def test_only_the_rim_enhances_after_intravenous_contrast(make_tiny, seed):
    scenario = make_tiny("postoperative_dorsal")
    (spec,) = scenario.collections
    with_rim = make_phantom(
        replace(scenario, collections=(replace(spec, rim_mm=2.0),), bias=0.0, ghosts=0.0), seed
    )
    epicenter = with_rim.truth.collections[0].epicenter_lps
    grid = Geometry.from_axes(
        (3, 48, 48), origin_lps=epicenter - np.array([24, 24, 2]), spacing_ijk_mm=(1.0, 1.0, 2.0)
    )
    before, after = (
        with_rim.image(replace(with_rim.sequences[name], thickness_mm=None, snr=1000.0), grid).array
        for name in ("t1_axial", "t1_axial_post")
    )
    fluid = with_rim.masks(grid).fluid_fraction.array
    away = ndimage.distance_transform_edt(fluid < 0.5, sampling=(2.0, 1.0, 1.0))
    rise = after / np.maximum(before, 1)
    assert np.median(rise[fluid > 0.95]) == pytest.approx(1.0, abs=0.1)
    assert np.quantile(rise[(away > 0.5) & (away < 2.0)], 0.75) > 1.5
    without = make_phantom(scenario, seed)
    assert np.array_equal(without.masks(grid).fluid_fraction.array, fluid)


def test_csf_is_the_brightest_tissue_after_intrathecal_contrast(operated):
    sequence = operated.sequences["t1_intrathecal"]
    palette = sequence.palette()
    brightest = max(palette["csf"][:4].sum(), palette["epidural_csf"][:4].sum())
    assert all(
        color[:4].sum() < 0.8 * brightest
        for tissue, color in palette.items()
        if tissue not in ("csf", "epidural_csf", "fat", "marrow")
    )
    plain = operated.sequences["t1_axial"].palette()
    assert plain["csf"][:4].sum() < 0.5 * plain["muscle"][:4].sum()


def points_at(anatomy, arc, left, dorsal):
    arc, left, dorsal = (np.atleast_1d(v).astype(np.float32) for v in (arc, left, dorsal))
    zeros = np.zeros_like(left)
    return Points(arc + zeros, left, dorsal, zeros, zeros, zeros, anatomy.rows(arc + zeros))


def test_a_gap_in_the_dura_is_filled_with_csf_and_changes_no_other_draw(make_tiny):
    scenario = make_tiny("scoliosis")
    (spec,) = scenario.collections
    open_spec = replace(spec, dural_gap_mm=(5.0, 5.0))
    closed = make_phantom(scenario, 41).body
    opened = make_phantom(replace(scenario, collections=(open_spec,)), 41).body
    gap = opened.findings.collections[0].gap
    assert gap.width_mm == 5.0 and closed.findings.collections[0].gap is None
    assert (closed.findings.collections[0].layer.thickness_mm
            == opened.findings.collections[0].layer.thickness_mm).all()  # fmt: skip
    radius, turn = np.arange(2, 16, 0.02), np.radians(gap.angle_deg)

    def dura(body, arc):
        """Dura along a ray from the center of the sac, in mm."""
        center = body.anatomy.value(body.anatomy.tables.sac.center, arc)
        points = points_at(body.anatomy, arc, radius * np.sin(turn), center + radius * np.cos(turn))
        palette = dict.fromkeys(TISSUES, np.zeros(5, np.float32))
        palette["dura"] = np.eye(5, dtype=np.float32)[0]
        return body.paint(points, palette, 0.02)[:, 0].sum() * 0.02

    assert dura(closed, gap.arc_mm) > 0.08
    assert dura(opened, gap.arc_mm) < 0.01
    # Of double length along the canal.
    assert dura(opened, gap.arc_mm + 4.0) < 0.01
    assert dura(opened, gap.arc_mm + 6.0) == pytest.approx(dura(closed, gap.arc_mm + 6.0))


def test_fat_suppression_fails_posterior_to_the_sac(make_tiny):
    scenario = replace(make_tiny("normal"), epidural_fat_failure="L3")
    anatomy = make_phantom(scenario, 41).body.anatomy
    failed, regular = (
        draw_fat_patches(one, anatomy, np.random.default_rng(1))
        for one in (scenario, make_tiny("normal"))
    )
    arc = anatomy.site("L3").bottom_mm
    back = 0.5 * float(anatomy.value(anatomy.tables.canal.b, arc) + 8)
    for away_mm, remaining in ((0.0, 1.0), (60.0, regular.residual)):
        _, _, dorsal = anatomy.centerline.frame_at(arc - away_mm)
        x, y, z = anatomy.centerline.at(arc - away_mm) + back * dorsal
        point = points_at(anatomy, arc, 0.0, back)
        moved = replace(point, x=point.x + x, y=point.y + y, z=point.z + z)
        factor = failed.factor(moved)[0]
        assert factor == pytest.approx(remaining, abs=0.03)
