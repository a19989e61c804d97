"""Second myelogram, axial T2, and T1 before and after contrast, on analytic spines."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from leakloc.core.notes import Note
from leakloc.core.volume import Geometry, Volume
from leakloc.localization import (
    CompanionMeasurements,
    compare_myelograms,
    localize,
    measure_axial,
    measure_enhancement,
    surroundings_of,
)
from leakloc.localization.axial import agreement_of
from leakloc.localization.enhancement import enhancement_of
from leakloc.localization.signals import CollectionSignals, MeasuredRatio

CSF, TISSUE, NOISE = 100.0, 60.0, 2.0
PLACE = (90, 130)


@pytest.fixture
def dorsal(crescent):
    return crescent(*PLACE, 6.0, half_angle_deg=60.0)


@pytest.fixture
def model(spine, dorsal):
    return spine(crescents=(dorsal,))


def images(segmentation, signal, *, slice_mm=3.0, pixel_mm=0.8, shift_mm=0.0, seed=0):
    """Axial images with partial volume of a signal on the grid of a segmentation."""
    fine = segmentation.collections.geometry
    volume = Volume(signal.astype(np.float32), fine)
    points = fine.lps_from_kji(np.argwhere(segmentation.collections.array > 0))
    low = points.min(axis=0) - np.array([30, 25, 10])
    high = points.max(axis=0) + np.array([30, 30, 10])
    count = ((high - low) / [pixel_mm, pixel_mm, slice_mm]).astype(int)
    grid = Geometry.from_axes(
        (int(count[2]), int(count[1]), int(count[0])),
        origin_lps=tuple(low),
        spacing_ijk_mm=(pixel_mm, pixel_mm, slice_mm),
    )
    kji = np.moveaxis(np.indices(grid.shape), 0, -1).astype(float)
    parts = [
        volume.sample(grid.lps_from_kji(kji + np.array([k, 0, 0])) + np.array([shift_mm, 0, 0]))
        for k in np.linspace(-0.4, 0.4, 5)
    ]
    noise = np.random.default_rng(seed).normal(0, NOISE, grid.shape)
    return Volume((np.mean(parts, axis=0) + noise).astype(np.float32), grid)


def tissues(segmentation, fluid, tissue=TISSUE):
    signal = np.full(segmentation.collections.geometry.shape, tissue)
    signal[segmentation.thecal_sac.array > 0] = CSF
    signal[segmentation.collections.array > 0] = fluid
    return signal


def unnamed(_point_lps):
    return None


# --- second myelogram ---------------------------------------------------------------------


def test_a_collection_on_both_myelograms_is_confirmed_with_its_volume_there(model, spine, dorsal):
    second = spine(crescents=(replace(dorsal, thickness_mm=5.0),), spacing_ijk_mm=(1.2, 0.9, 1.1))
    found = compare_myelograms(model.segmentation(), second.segmentation())
    (one,) = found.detections
    assert one.agreement == "confirmed" and one.covered == 1.0
    assert one.volume_ml == pytest.approx(second.segmentation().candidates[0].volume_ml, rel=0.15)
    assert found.additional == ()


def test_a_collection_on_the_other_side_is_not_detected_and_additional(model, spine, dorsal):
    second = spine(crescents=(replace(dorsal, toward_deg=180.0),))
    found = compare_myelograms(model.segmentation(), second.segmentation())
    assert [one.agreement for one in found.detections] == ["not detected"]
    (additional,) = found.additional
    assert additional.in_field and additional.volume_ml > 1


def test_a_collection_outside_the_second_field_is_not_covered(model, spine):
    second = spine(field_mm=(150.0, 310.0))
    found = compare_myelograms(model.segmentation(), second.segmentation())
    assert [one.agreement for one in found.detections] == ["not covered"]


def test_with_bright_fat_a_missing_collection_is_not_assessable(model, spine):
    second = replace(spine().segmentation(), notes=(Note("fat_like_fluid", "Fat is bright."),))
    found = compare_myelograms(model.segmentation(), second)
    assert [one.agreement for one in found.detections] == ["not assessable"]


def test_the_comparison_is_part_of_the_results(model, spine, dorsal):
    segmentation = model.segmentation()
    other = replace(dorsal, start_mm=150, stop_mm=180)
    second = spine(crescents=(dorsal, other)).segmentation()
    measured = CompanionMeasurements(comparison=compare_myelograms(segmentation, second))
    result = localize(segmentation, model.levels(), model.settings, companions=measured)
    (collection,) = result.collections
    assert collection.second_myelogram.agreement == "confirmed"
    agreement = result.finding.second_myelogram
    assert (agreement.n_collections, agreement.n_confirmed, agreement.n_additional) == (2, 1, 1)
    (message,) = [n.message for n in result.notes if n.code == "second_myelogram_additional"]
    assert "L3-L4" in message or "L4-L5" in message


# --- axial T2 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fluid", "bright", "side"), [(100.0, True, True), (55.0, False, None), (40.0, False, False)]
)
def test_signal_and_side_on_axial_t2(model, fluid, bright, side):
    segmentation = model.segmentation()
    volume = images(segmentation, tissues(segmentation, fluid, tissue=55.0))
    (measured,) = measure_axial(segmentation, surroundings_of(segmentation), volume)
    found = agreement_of(measured, unnamed)
    assert found.bright is bright
    assert found.ratio == pytest.approx(fluid / CSF, abs=0.05)
    assert found.opposite_ratio == pytest.approx(0.55, abs=0.05)
    if side is not None:
        assert found.side_confirmed is side


def test_fluid_on_the_opposite_side_contradicts_the_side(model, spine, dorsal):
    segmentation = model.segmentation()
    elsewhere = spine(crescents=(replace(dorsal, toward_deg=180.0),)).segmentation()
    signal = tissues(elsewhere, CSF)
    signal[segmentation.collections.array > 0] = TISSUE
    around = surroundings_of(segmentation)
    (measured,) = measure_axial(segmentation, around, images(segmentation, signal))
    found = agreement_of(measured, unnamed)
    assert found.bright is False and found.side_confirmed is False


@pytest.mark.parametrize("toward_deg", [90.0, -90.0])
def test_side_of_a_collection_lateral_to_the_sac(spine, dorsal, toward_deg):
    lateral = replace(dorsal, toward_deg=toward_deg, half_angle_deg=20.0, inner_mm=9.0)
    segmentation = spine(crescents=(lateral,)).segmentation()
    volume = images(segmentation, tissues(segmentation, CSF))
    (measured,) = measure_axial(segmentation, surroundings_of(segmentation), volume)
    found = agreement_of(measured, unnamed)
    assert found.side_confirmed is True
    assert measured.opposite.n_voxels > 0.7 * measured.own.n_voxels


def test_thick_slices_across_thin_fluid_are_not_measured(spine, crescent):
    segmentation = spine(crescents=(crescent(90, 96, 1.5),)).segmentation()
    volume = images(segmentation, tissues(segmentation, CSF), slice_mm=9.0)
    around = surroundings_of(segmentation)
    for measured in measure_axial(segmentation, around, volume):
        assert agreement_of(measured, unnamed).bright is None
    assert measure_axial(segmentation, around, None) == ()


DURA_MM = 0.8
SAC_MM = 8.0


def dura_images(
    model, *, dura=20.0, fluid=CSF, tissue=TISSUE, gap_deg=0.0, root=False, pixel_mm=0.5,
    slice_mm=3.0, tilt_deg=0.0,
):  # fmt: skip
    """Axial images of a dark dura around the sac, with a gap, and fluid dorsal to it.

    The root is dark tissue on the inner side of the dura.
    """
    turn = np.deg2rad(tilt_deg)
    axes = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    size = (14, round(60 / pixel_mm), round(60 / pixel_mm))
    half = (np.array(size[::-1]) - 1) / 2 * [pixel_mm, pixel_mm, slice_mm]
    center = model.points(np.mean(PLACE))
    grid = Geometry.from_axes(
        size, origin_lps=tuple(center - axes @ half), directions_lps=axes,
        spacing_ijk_mm=(pixel_mm, pixel_mm, slice_mm),
    )  # fmt: skip
    kji = np.moveaxis(np.indices(size), 0, -1).astype(float)
    total = np.zeros(size)
    shifts = np.array([[0, j, i] for j in (-0.25, 0.25) for i in (-0.25, 0.25)])
    for shift in shifts:
        arc, left, dorsal = model.canal(grid.lps_from_kji(kji + shift))
        radius, angle = np.hypot(left, dorsal), np.rad2deg(np.abs(np.arctan2(left, dorsal)))
        signal = np.full(size, tissue)
        signal[(radius < 14) & (angle < 60) & (arc > PLACE[0]) & (arc < PLACE[1])] = fluid
        signal[radius < SAC_MM] = CSF
        if root:  # dorsal, so that most of the sac contains CSF
            signal[(radius < SAC_MM) & (radius > SAC_MM - 3) & (angle < 75)] = dura
        in_dura = (radius >= SAC_MM) & (radius < SAC_MM + DURA_MM)
        signal[in_dura] = dura
        signal[in_dura & (angle < gap_deg)] = CSF
        total += signal / len(shifts)
    noise = np.random.default_rng(4).normal(0, NOISE, size)
    return Volume((total + noise).astype(np.float32), grid)


def on_axial_t2(model, segment_of=unnamed, **options):
    segmentation = model.segmentation()
    volume = dura_images(model, **options)
    (measured,) = measure_axial(segmentation, surroundings_of(segmentation), volume)
    return agreement_of(measured, segment_of)


def test_the_dura_is_a_dark_line_without_interruption(model):
    line = on_axial_t2(model).dark_line
    assert line.fraction > 0.95 and line.interruption is None and line.not_measured is None
    assert line.n_slices >= 11 and line.n_samples > 300


def test_without_a_dark_line_the_fraction_is_zero(model):
    line = on_axial_t2(model, dura=CSF).dark_line
    assert line.fraction < 0.05 and line.n_samples > 300 and line.interruption is None


@pytest.mark.parametrize("width_mm", [4.0, 8.0])
def test_an_interruption_of_the_dark_line(model, width_mm):
    gap_deg = np.rad2deg(width_mm / 2 / (SAC_MM + DURA_MM / 2))
    line = on_axial_t2(model, lambda point: f"{point[2]:.0f}", gap_deg=gap_deg).dark_line
    gap = line.interruption
    assert gap.width_mm == pytest.approx(width_mm, abs=1.5)
    assert gap.side == "dorsal" and min(gap.angle_deg, 360 - gap.angle_deg) < 10
    assert gap.center_lps_mm == pytest.approx(
        model.points(model.length_mm / 2 - gap.center_lps_mm[2], 0.0, SAC_MM), abs=1.0
    )
    assert gap.level == f"{gap.center_lps_mm[2]:.0f}"
    assert 0.5 < line.fraction < 0.97


def test_an_interruption_that_is_not_as_bright_as_csf_is_not_reported(model):
    assert on_axial_t2(model, gap_deg=30.0, fluid=80.0).dark_line.interruption is not None
    darker = dura_images(model, gap_deg=0.0, dura=80.0, fluid=80.0)
    segmentation = model.segmentation()
    (measured,) = measure_axial(segmentation, surroundings_of(segmentation), darker)
    assert agreement_of(measured, unnamed).dark_line.interruption is None


def test_roots_at_the_dura_are_not_counted(model):
    line = on_axial_t2(model, root=True).dark_line
    assert line.fraction is None and line.not_measured == "partial volume"
    assert line.n_excluded > 300 and line.interruption is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pixel_mm": 1.0}, "in-plane resolution"),
        ({"tilt_deg": 30.0, "slice_mm": 4.0}, "slice thickness"),
    ],
)
def test_where_the_dark_line_is_not_measured(model, options, reason):
    line = on_axial_t2(model, **options).dark_line
    assert line.fraction is None and line.not_measured == reason and line.interruption is None


def test_a_thin_collection_has_no_dark_line(spine, dorsal):
    thin = spine(crescents=(replace(dorsal, thickness_mm=1.0),))
    assert on_axial_t2(thin).dark_line.not_measured == "partial volume"


@pytest.mark.parametrize(("tissue", "confirms"), [(60.0, True), (85.0, True), (98.0, False)])
def test_a_bright_collection_is_confirmed_if_fat_is_darker(model, tissue, confirms):
    found = on_axial_t2(model, tissue=tissue)
    assert found.bright is True and found.confirms is confirms
    assert found.fat_ratio == pytest.approx(tissue / CSF, abs=0.03)
    assert found.fat_ratio <= found.fat_high < found.fat_ratio + 0.12


def test_a_bright_collection_without_measurable_fat_is_not_confirmed(model):
    found = on_axial_t2(model, tissue=20.0)
    assert found.bright is True and found.confirms is False and found.fat_ratio is None


@pytest.mark.parametrize(("tissue", "factor"), [(60.0, 1.0), (98.0, 0.6)])
def test_fluid_on_axial_t2_is_not_taken_for_unsuppressed_fat(spine, dorsal, tissue, factor):
    model = spine(crescents=(replace(dorsal, mimics=("epidural fat",)),), fat_suppressed=False)
    segmentation = model.segmentation()
    volume = dura_images(model, tissue=tissue)
    axial = measure_axial(segmentation, surroundings_of(segmentation), volume)
    companions = CompanionMeasurements(axial=axial)
    result = localize(segmentation, model.levels(), model.settings, companions=companions)
    (collection,) = result.collections
    assert collection.confidence == pytest.approx(factor * dorsal.probability)
    assert ("brighter than fat" in " ".join(collection.basis)) is (factor == 1.0)


# --- T1 before and after contrast ---------------------------------------------------------


def pair(segmentation, *, rim=0.0, interior=0.0, gain=1.3, shift_mm=0.0):
    """T1 before and after contrast with a rise of the shell and of the fluid, times muscle."""
    rng = np.random.default_rng(3)
    before = tissues(segmentation, 30.0, tissue=TISSUE)
    before[segmentation.thecal_sac.array > 0] = 30.0
    texture = rng.normal(0, 12, [n // 4 + 1 for n in before.shape])
    before += np.kron(texture, np.ones((4, 4, 4)))[tuple(slice(n) for n in before.shape)]
    own = segmentation.collections.array > 0
    distance = distance_transform_edt(~own)
    shell = (distance > 0) & (distance <= 3) & (segmentation.thecal_sac.array == 0)
    after = before.copy()
    after[shell] += rim * TISSUE
    after[own] += interior * TISSUE
    return (
        images(segmentation, before, seed=1),
        images(segmentation, gain * after, shift_mm=shift_mm, seed=2),
    )


@pytest.mark.parametrize(
    ("rim", "interior", "expected"),
    [(1.0, 0.0, True), (0.0, 0.0, False), (0.0, 1.0, False), (0.6, 1.0, False)],
)
def test_rim_enhancement(model, rim, interior, expected):
    segmentation = model.segmentation()
    pairs = (pair(segmentation, rim=rim, interior=interior),)
    (measured,) = measure_enhancement(segmentation, pairs)
    found = enhancement_of(measured)
    assert found.rim is expected
    assert found.interior_rise == pytest.approx(interior, abs=0.1)
    assert found.rise == pytest.approx(rim, abs=0.25)
    assert found.not_measured is None


def test_enhancement_of_series_with_a_displacement_is_not_measured(model):
    segmentation = model.segmentation()
    (measured,) = measure_enhancement(segmentation, (pair(segmentation, rim=1.0, shift_mm=4.0),))
    found = enhancement_of(measured)
    assert found.rim is None and found.rise is None
    assert found.not_measured == "not registered"


def test_enhancement_with_partial_volume_is_not_measured(spine, crescent):
    segmentation = spine(crescents=(crescent(90, 93, 2.0, half_angle_deg=15.0),)).segmentation()
    (measured,) = measure_enhancement(segmentation, (pair(segmentation, rim=1.0),))
    assert enhancement_of(measured).not_measured == "partial volume"
    assert measure_enhancement(segmentation, ()) == ()
    assert enhancement_of(None) is None


def test_measurements_belong_to_the_collection_with_their_center(spine, dorsal):
    other = replace(dorsal, start_mm=150, stop_mm=180)
    model = spine(crescents=(dorsal, other))
    segmentation = model.segmentation()
    second = segmentation.candidates[1]
    # Cisterns are excluded after the measurement: the remaining collections are renumbered.
    labels = (segmentation.collections.array == 2).astype(np.uint8)
    remaining = replace(
        segmentation,
        candidates=(replace(second, id=1),),
        collections=segmentation.collections.with_array(labels),
    )
    signals = tuple(
        CollectionSignals(c.center_lps, (MeasuredRatio("sagittal_t1", value, value, value, 50),))
        for c, value in zip(segmentation.candidates, (2.0, 1.1), strict=True)
    )
    companions = CompanionMeasurements(signals=signals)
    result = localize(remaining, model.levels(), model.settings, companions=companions)
    assert [c.character.ratios[0].ratio for c in result.collections] == [1.1]
