import numpy as np
import pytest

from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.localization import CompanionMeasurements, localize
from leakloc.localization.signals import (
    CollectionSignals,
    MeasuredRatio,
    character_of,
    measure_signals,
    suppressed_signal,
    surroundings_of,
)

CSF, TISSUE, NOISE = 100.0, 300.0, 3.0


def companion(model, segmentation, fluid, *, slice_mm=3.0, **provenance):
    """Sagittal images with partial volume of a spine whose fluid has a signal of its own."""
    fine = segmentation.collections.geometry
    signal = np.full(fine.shape, TISSUE)
    signal[segmentation.thecal_sac.array > 0] = CSF
    signal[segmentation.collections.array > 0] = fluid
    volume = Volume(signal.astype(np.float32), fine)
    size = np.array(fine.shape) * np.array(fine.spacing_kji_mm)
    corner = fine.lps_from_kji(np.zeros(3))
    grid = Geometry.from_axes(
        (int(size[0]), int(size[1]), int(size[2] // slice_mm)),
        origin_lps=tuple(corner),
        spacing_ijk_mm=(slice_mm, 1.0, 1.0),
    )
    shifts = np.linspace(-0.4, 0.4, 5)
    kji = np.moveaxis(np.indices(grid.shape), 0, -1).astype(float)
    parts = [volume.sample(grid.lps_from_kji(kji + np.array([0, 0, i]))) for i in shifts]
    noise = np.random.default_rng(0).normal(0, NOISE, grid.shape)
    return Volume(
        (np.mean(parts, axis=0) + noise).astype(np.float32), grid, Provenance(**provenance)
    )


@pytest.fixture
def model(spine, crescent):
    return spine(crescents=(crescent(90, 130, 6.0, half_angle_deg=60.0),))


@pytest.mark.parametrize(
    ("t1", "kind"), [(1.05, "CSF-like"), (1.65, "protein-rich or seroma-like")]
)
def test_ratio_to_csf_in_the_sac(model, t1, kind):
    segmentation = model.segmentation()
    volume = companion(model, segmentation, CSF * t1)
    (signals,) = measure_signals(surroundings_of(segmentation), {"sagittal_t1": volume})
    (measured,) = signals.ratios
    assert measured.low <= measured.ratio <= measured.high
    assert measured.ratio == pytest.approx(t1, abs=0.05)
    assert measured.n_voxels > 20
    assert character_of(signals).kind == kind


def test_partial_volume_gives_no_ratio(spine, crescent):
    model = spine(crescents=(crescent(90, 130, 1.5),))
    segmentation = model.segmentation()
    volume = companion(model, segmentation, 2 * CSF, slice_mm=8.0)
    for signals in measure_signals(surroundings_of(segmentation), {"sagittal_t1": volume}):
        character = character_of(signals)
        assert character.kind is None
        assert all(m.ratio is None for m in character.ratios)


def test_enhanced_t1_is_not_measured(model):
    segmentation = model.segmentation()
    volume = companion(model, segmentation, 2 * CSF, contrast_agent=True)
    assert measure_signals(surroundings_of(segmentation), {"sagittal_t1": volume}) == ()
    assert measure_signals(surroundings_of(segmentation), {}) == ()


def ratio(role, value, half=0.05):
    return MeasuredRatio(role, value, value - half, value + half, 50)


@pytest.mark.parametrize(
    ("t1", "t2", "stir", "kind"),
    [
        (1.1, 1.0, 1.0, "CSF-like"),
        (1.7, 1.2, 1.2, "protein-rich or seroma-like"),
        (2.4, 0.6, 0.6, "blood-like"),
        (2.0, 0.4, 0.6, "blood-like"),  # at 3 T
        (5.5, 0.9, 0.3, "fat-like"),
        (2.4, 1.0, 1.0, None),
        (np.nan, 0.6, 0.6, None),  # too few voxels on T1
        (1.3, 1.0, 1.0, None),  # the interval includes two kinds
    ],
)
def test_kind_of_fluid(t1, t2, stir, kind):
    ratios = (ratio("sagittal_t1", t1), ratio("sagittal_t2", t2), ratio("sagittal_stir", stir))
    assert character_of(CollectionSignals(np.zeros(3), ratios)).kind == kind


def test_without_t1_there_is_no_kind():
    character = character_of(CollectionSignals(np.zeros(3), (ratio("sagittal_t2", 1.0),)))
    assert character.kind is None and character.ratios[0].ratio == 1.0
    assert character_of(None) is None


@pytest.mark.parametrize(
    ("t1", "stir", "signal"),
    [
        (1.1, 1.0, "fluid"),
        (np.nan, 1.0, "fluid"),
        (5.5, 0.3, "fat"),
        (np.nan, 0.3, "fat"),
        (1.1, 0.3, None),  # dark on STIR, but not bright on T1
        (5.5, 0.48, "tissue"),  # the interval includes the limit of fat
        (2.4, 0.6, "tissue"),
        (2.03, 0.6, None),
        (2.4, 0.78, None),
        (np.nan, 0.6, None),
        (5.5, np.nan, None),
    ],
)
def test_signal_on_stir(t1, stir, signal):
    ratios = (ratio("sagittal_t1", t1), ratio("sagittal_stir", stir))
    assert suppressed_signal(CollectionSignals(np.zeros(3), ratios)) == signal


def test_without_stir_there_is_no_signal_of_fat():
    ratios = (ratio("sagittal_t1", 5.5),)
    assert suppressed_signal(CollectionSignals(np.zeros(3), ratios)) is None
    assert suppressed_signal(None) is None


def test_the_signal_of_fat_limits_the_grade(model):
    segmentation = model.segmentation()

    def located(t1, stir):
        volumes = {
            "sagittal_t1": companion(model, segmentation, CSF * t1),
            "sagittal_stir": companion(model, segmentation, CSF * stir),
        }
        signals = measure_signals(surroundings_of(segmentation), volumes)
        measured = CompanionMeasurements(signals=signals)
        result = localize(segmentation, model.levels(), model.settings, companions=measured)
        return result.collections[0], result.finding

    fluid, finding = located(1.05, 1.0)
    assert fluid.grade == "definite" and finding.leak == "present"
    fat, finding = located(5.5, 0.3)
    assert fat.grade == "possible" and finding.leak == "indeterminate"
    assert any("signal of fat" in sentence for sentence in fat.basis)
