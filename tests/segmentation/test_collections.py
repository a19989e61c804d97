"""Tests of `leakloc.segmentation.collections`."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.segmentation.classification import (
    FULL_SURROUNDING,
    MAX_BRIGHT_TISSUE_PROBABILITY,
    classify_fluid,
    probability_of,
)
from leakloc.segmentation.collections import find_collections
from leakloc.segmentation.components import (
    CanalExtent,
    find_components,
    group_extents,
    select_voxels,
)
from leakloc.segmentation.dura import Dura
from leakloc.segmentation.scene import Scene

GEOMETRY = Geometry.from_axes((61, 40, 40), origin_lps=(-20, -20, -30), spacing_ijk_mm=(1, 1, 1))
HEAD_LPS = GEOMETRY.lps_from_kji([60, 20, 20])
FOOT_LPS = GEOMETRY.lps_from_kji([0, 20, 20])


@pytest.mark.parametrize(("head_arc_mm", "highest_k"), [(0.0, 60), (20.0, 40)])
def test_the_sac_ends_where_the_cisterns_begin(head_arc_mm: float, highest_k: int) -> None:
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    angle = np.arange(0.0, 2 * np.pi, np.pi / 8)
    radius = np.full((len(line.arc_mm), len(angle)), 8.0)
    dura = Dura(line, line.arc_mm, angle, radius, None, head_arc_mm=head_arc_mm)
    _, j, i = np.indices(GEOMETRY.shape)
    csf = (np.hypot(i - 20.0, j - 20.0) < 8.0).astype(np.float32)
    sac = Scene.of(Volume(csf, GEOMETRY, Provenance("made")), dura, False).sac
    planes = np.flatnonzero(sac.any(axis=(1, 2)))
    assert planes.max() == pytest.approx(highest_k, abs=1)
    assert planes.min() == 0
    assert sac[20].sum() == pytest.approx(np.pi * 8**2, rel=0.05)


def test_the_sac_extends_to_the_edge_of_the_field_above_the_centerline() -> None:
    top = GEOMETRY.lps_from_kji([56, 20, 20])
    line = Centerline.smoothed(np.linspace(top, FOOT_LPS, 57), step_mm=1.0, smoothing_mm=0.0)
    radius = np.full((len(line.arc_mm), 16), 8.0)
    dura = Dura(line, line.arc_mm, np.arange(0.0, 2 * np.pi, np.pi / 8), radius, None)
    _, j, i = np.indices(GEOMETRY.shape)
    csf = (np.hypot(i - 20.0, j - 20.0) < 8.0).astype(np.float32)
    sac = Scene.of(Volume(csf, GEOMETRY, Provenance("made")), dura, False).sac
    assert sac[60].sum() == pytest.approx(sac[30].sum(), rel=0.05)


@pytest.mark.parametrize(("fat_like", "tissue_bright"), [(True, False), (False, True)])
def test_next_to_bright_tissue_the_sac_is_the_dural_surface(
    fat_like: bool, tissue_bright: bool
) -> None:
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    radius = np.full((len(line.arc_mm), 16), 8.0)
    dura = Dura(line, line.arc_mm, np.arange(0.0, 2 * np.pi, np.pi / 8), radius, None)
    _, j, i = np.indices(GEOMETRY.shape)
    # The signal decreases from the surface outwards, as in fat next to the sac.
    csf = np.clip(10.0 - np.hypot(i - 20.0, j - 20.0), 0.1, 1.0).astype(np.float32)
    volume = Volume(csf, GEOMETRY, Provenance("made"))
    surface = Scene.of(volume, dura, fat_like, tissue_bright)
    assert np.array_equal(surface.sac, surface.outside_mm <= 0)
    learned = Scene.of(volume, dura, False)
    assert learned.sac.sum() != surface.sac.sum()


ANGLE = np.arange(48) * 2 * np.pi / 48
RADIUS_MM = 0.8 + 0.5 * np.arange(48)


def scene_with(
    *,
    layer: float = 1.0,
    pool: float = 0.0,
    fat_like: bool = False,
    tissue_bright: bool = False,
    seroma: bool = False,
    rows: tuple[int, int] = (15, 45),
    slice_mm: int = 1,
) -> Scene:
    """A sac, 6 mm of fluid behind it, 4 mm of fat that touches the fluid, and signal outside it.

    Parameters
    ----------
    layer
        Signal of the fluid behind the sac.
    pool
        Signal from the layer of fluid backwards to beyond the reach of the network.
    seroma
        Whether a bright pool lies behind the canal, apart from it.
    rows
        Planes k between which the fluid lies, in millimeters above the caudal end.
    slice_mm
        Distance of the axial slices.
    """
    wide = Geometry.from_axes((61, 60, 40), origin_lps=(-20, -20, -30), spacing_ijk_mm=(1, 1, 1))
    line = Centerline.smoothed(np.linspace(HEAD_LPS, FOOT_LPS, 61), step_mm=1.0, smoothing_mm=0.0)
    arc = np.arange(0.0, 61.0, 2.0)
    k, j, i = np.indices(wide.shape)
    radius = np.hypot(i - 20.0, j - 20.0)
    behind = (j > 20) & (np.abs(i - 20) < 8) & (k > rows[0]) & (k < rows[1])
    signal = np.where(radius < 6.0, 1.0, 0.05)
    signal[behind & (radius > 6.0) & (radius <= 12.0)] = layer
    signal[behind & (radius > 12.0) & (radius <= 16.0)] = 0.75
    if pool:
        signal[behind & (radius > 12.0) & (j < 55)] = pool
    if seroma:
        signal[behind & (radius > 28.0) & (radius < 35.0)] = 1.0
    rays, steps = np.meshgrid(ANGLE, RADIUS_MM, indexing="ij")
    left, dorsal = steps * np.cos(rays), steps * np.sin(rays)
    reach = 40.0 if pool else 12.0
    section = (dorsal > 0) & (np.abs(left) < 8) & (steps > 6.0) & (steps <= reach)
    outside = np.zeros((len(arc), 48, 48), np.float32)
    outside[(arc > 60 - rows[1]) & (arc < 60 - rows[0])] = 0.95 * section
    dura = Dura(line, arc, ANGLE, np.full((len(arc), 48), 6.0), None, fluid_outside=outside)
    sliced = signal[::slice_mm].astype(np.float32)
    origin, spacing = (-20, -20, -30), (1, 1, slice_mm)
    grid = Geometry.from_axes(sliced.shape, origin_lps=origin, spacing_ijk_mm=spacing)
    return Scene.of(Volume(sliced, grid, Provenance("made")), dura, fat_like, tissue_bright)


def test_bright_tissue_that_touches_fluid_is_listed_apart() -> None:
    labels, candidates = find_collections(scene_with(), SegmentationSettings())
    fluid, fat = candidates
    assert fluid.accepted
    assert not fat.accepted
    assert fat.mimics == ("epidural fat",)
    row = labels[30, 20:, 20]  # from the middle of the sac backwards, mm
    assert row[8:12].all()
    assert not row[13:].any()


def test_fluid_continues_outside_the_range_of_the_network() -> None:
    labels, candidates = find_collections(scene_with(pool=1.0), SegmentationSettings())
    assert [c.accepted for c in candidates] == [True]
    assert labels[30, 20:, 20][8:34].all()
    assert candidates[0].volume_ml > 10


def test_a_pool_without_connection_is_named_and_rejected() -> None:
    labels, candidates = find_collections(scene_with(seroma=True), SegmentationSettings())
    apart = [c for c in candidates if c.mimics == ("seroma apart from the canal",)]
    assert len(apart) == 1
    assert not apart[0].accepted
    assert not labels[30, 48:, 20].any()


def test_nothing_is_accepted_where_fat_is_like_fluid_but_it_is_listed() -> None:
    labels, candidates = find_collections(scene_with(fat_like=True), SegmentationSettings())
    assert not labels.any()
    assert max(c.probability for c in candidates) == pytest.approx(0.3)
    assert candidates[0].center_lps[1] > 5  # behind the sac


@pytest.mark.parametrize(("layer", "accepted"), [(0.44, False), (0.6, True)])
def test_a_layer_with_less_than_half_of_the_signal_of_csf_is_not_fluid(layer, accepted) -> None:
    _, candidates = find_collections(scene_with(layer=layer), SegmentationSettings())
    assert candidates[0].accepted == accepted
    assert accepted or candidates[0].mimics[0] == "epidural fat"


@pytest.mark.parametrize(("first_k", "accepted"), [(52, False), (46, False), (38, True)])
def test_fluid_mainly_at_the_upper_edge_of_the_field_is_not_assessed(first_k, accepted) -> None:
    """The canal's upper end is at k = 60, 12 mm above k = 48; 1 mm of the fluid is 0.1 mL."""
    candidates = find_collections(scene_with(rows=(first_k, 60)), SegmentationSettings())[1]
    assert candidates[0].accepted == accepted


@pytest.mark.parametrize(("first_k", "accepted"), [(46, False), (30, True)])
def test_slices_that_overlap_the_upper_edge_are_not_assessed(first_k, accepted) -> None:
    """The centers of the slices lie 4, 12, 20 and 28 mm below the upper end of the canal."""
    scene = scene_with(rows=(first_k, 60), slice_mm=8)
    assert find_collections(scene, SegmentationSettings())[1][0].accepted == accepted


@pytest.mark.parametrize("slice_mm", [1, 4])
def test_tissue_around_fluid_is_measured_without_its_border(slice_mm: int) -> None:
    dark = find_collections(scene_with(pool=1.0, slice_mm=slice_mm), SegmentationSettings())[1][0]
    assert dark.features is not None
    assert dark.features.surrounding == pytest.approx(0.05, abs=0.01)


def test_fat_around_fluid_is_measured() -> None:
    """Fat with three quarters of the signal of CSF surrounds a third of the layer."""
    fluid = find_collections(scene_with(), SegmentationSettings())[1][0]
    assert fluid.features is not None
    assert fluid.features.surrounding == pytest.approx(0.2, abs=0.05)


def test_bright_surroundings_lower_the_probability_and_name_fat() -> None:
    scene = scene_with(pool=1.0)
    component = find_components(scene, SegmentationSettings())[0]
    dark, bright = (
        classify_fluid(
            replace(component, features=replace(component.features, surrounding=value)),
            scene,
            SegmentationSettings(),
        )
        for value in (0.0, FULL_SURROUNDING)
    )
    assert bright.probability < dark.probability
    assert "Surrounding tissue: 20% of its signal." in bright.reason
    assert "epidural fat" in bright.mimics


def test_confidence_rises_with_certainty_contact_and_volume() -> None:
    features = find_collections(scene_with(), SegmentationSettings())[1][0].features
    assert features is not None

    def probability(network: float, contact: float, volume_ml: float = 1.0) -> float:
        return probability_of(
            replace(features, network=network, contact_fraction=contact, volume_ml=volume_ml)
        )

    assert probability(0.7, 0.5) < probability(0.8, 0.5)
    assert probability(0.7, 0.0, 0.5) < probability(0.7, 0.0, 5.0)
    assert probability(0.8, 0.0) < probability(0.8, 0.1) < probability(0.8, 0.2)
    assert probability(0.8, 0.2) == probability(0.8, 0.9)


def test_fluid_where_tissue_is_bright_is_probable_at_most() -> None:
    sure, unsure = (
        find_collections(scene_with(pool=1.0, tissue_bright=bright), SegmentationSettings())[1][0]
        for bright in (False, True)
    )
    assert sure.accepted
    assert unsure.accepted
    assert unsure.probability == MAX_BRIGHT_TISSUE_PROBABILITY < sure.probability


@pytest.mark.parametrize(
    ("fraction", "kept"),
    [
        ([1.0] * 10 + [0.3] * 4, 10),  # sure of every voxel: half
        ([0.4] * 10, 10),  # fluid somewhere in a thin layer: all of it
        ([0.6] * 5 + [0.4] * 10 + [0.05] * 10, 15),
    ],
)
def test_mask_has_the_greatest_expected_overlap(fraction, kept):
    assert select_voxels(np.array(fraction, np.float32)).sum() == kept


def test_components_are_grouped_along_a_chain_and_around_the_sac() -> None:
    def at(start_mm: float, angle_deg: float, sectors: int = 2) -> CanalExtent:
        return CanalExtent(start_mm, start_mm + 10.0, np.deg2rad(angle_deg), sectors)

    # The first and third are too far apart, but both are close to the second.
    chain = [at(0.0, 90), at(40.0, 90), at(20.0, 90), at(20.0, -90)]
    assert group_extents(chain, 12.0).tolist() == [0, 0, 0, 1]
    assert group_extents([*chain, at(20.0, 0, sectors=8)], 12.0).tolist() == [0] * 5
    many = [at(30.0 * n, 90) for n in range(3000)]
    assert group_extents(many, 12.0).tolist() == list(range(3000))


@pytest.mark.parametrize(
    ("semi_axes", "is_cyst"),
    [((4.0, 4.0, 4.0), True), ((4.0, 4.0, 5.5), True), ((3.0, 3.0, 9.0), False)],
)
def test_a_compact_ellipsoid_lateral_to_the_sac_is_a_cyst(
    semi_axes: tuple[float, float, float], is_cyst: bool
) -> None:
    scene = scene_with(pool=1.0)
    component = find_components(scene, SegmentationSettings())[0]
    fluid = scene.fraction.with_array(np.ones_like(scene.fraction.array))
    k, j, i = np.indices(fluid.geometry.shape)
    offset = np.stack([i - 32, j - 20, k - 30], axis=-1) / semi_axes
    voxels = np.nonzero(np.linalg.norm(offset, axis=-1) <= 1)
    lateral = replace(component.features, volume_ml=0.3, lateral_fraction=1.0, network=0.9)
    decision = classify_fluid(
        replace(component, voxels=voxels, features=lateral),
        replace(scene, fraction=fluid),
        SegmentationSettings(),
    )
    assert decision.accepted != is_cyst
    assert ("nerve root" in decision.reason) == is_cyst


@pytest.mark.parametrize(
    ("caudal_half_mm", "accepted", "rejected"), [(4.0, 0, 2), (9.0, 1, 0)], ids=["cysts", "fluid"]
)
def test_cysts_at_adjacent_roots_are_not_a_collection(
    caudal_half_mm: float, accepted: int, rejected: int
) -> None:
    scene = scene_with()
    k, j, i = np.indices(scene.fraction.geometry.shape)
    signal = np.zeros(k.shape, np.float32)
    for center, half in ((38, 4.0), (14, caudal_half_mm)):
        offset = np.stack([(i - 32) / 4, (j - 20) / 4, (k - center) / half])
        signal[np.linalg.norm(offset, axis=0) <= 1] = 1.0
    fluid = scene.fraction.with_array(signal)
    lateral = replace(
        scene, fraction=fluid, network=fluid, signal=fluid, reached=np.ones(k.shape, bool)
    )
    _, candidates = find_collections(lateral, SegmentationSettings())
    assert sum(c.accepted for c in candidates) == accepted
    assert sum(c.mimics[0] == "perineural cyst" for c in candidates) == rejected
