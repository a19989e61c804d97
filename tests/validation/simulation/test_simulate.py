"""Simulated contrast on an analytic patient: what is painted, where, and in which contrast."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from leakloc.core.errors import InputError, SettingsError
from leakloc.core.volume import Geometry, Volume
from leakloc.validation.simulation import (
    DEVELOPMENT_PATIENTS,
    SCENARIOS,
    TEST_PATIENTS,
    Patient,
    SimulationScenario,
    list_patients,
    read_patient,
    simulate,
)
from leakloc.validation.simulation.contrast import (
    Acquisition,
    acquisition_grid,
    draw_contrast,
    sample_on,
)
from leakloc.validation.simulation.findings import Layer, Pool, paint_layer, paint_pool
from leakloc.validation.simulation.patients import BONE, DISC, SAC

CANAL_MM = 8.0


@pytest.fixture(scope="module")
def patient() -> Patient:
    """A straight sac of 8 mm radius, bodies and discs 12 mm in front of its middle, bright fat."""
    grid = Geometry.from_axes(
        (200, 90, 27), origin_lps=(-13, -45, -100), spacing_ijk_mm=(1.0, 1.0, 1.0)
    )
    x, y, z = np.moveaxis(grid.lps_from_kji(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    labels = np.zeros(grid.shape, np.uint8)
    column = (y < -12) & (y > -40)
    labels[column] = np.where(np.abs((z[column] + 15) % 30 - 15) < 4, DISC, BONE)
    labels[(np.hypot(x, y) <= CANAL_MM) & (z > -80)] = SAC
    image = np.full(grid.shape, 0.5)
    image[labels == SAC] = 1.0
    image[labels == BONE] = 0.3
    image[labels == DISC] = 0.2
    image[(labels == SAC) & (y > 3) & (np.abs(x) < 4)] = 0.3  # roots at the back of the sac
    discs = {f"L{n}-L{n + 1}": np.array([0.0, -25.0, 60.0 - 30 * n]) for n in range(1, 5)}
    return Patient("999", Volume((700 * image).astype("f4"), grid), Volume(labels, grid), discs)


def test_patients_are_split_once() -> None:
    assert not set(DEVELOPMENT_PATIENTS) & set(TEST_PATIENTS)
    assert len({*DEVELOPMENT_PATIENTS, *TEST_PATIENTS}) == 26


def test_at_least_a_third_of_the_leaking_scenarios_has_a_leak_free_counterpart() -> None:
    free = [scenario for scenario in SCENARIOS.values() if not scenario.leak]
    assert len(free) >= 6
    painted = {pattern for scenario in SCENARIOS.values() for pattern in scenario.patterns}
    assert painted == {
        "dorsal", "ventral", "left", "right", "circumferential", "pseudomeningocele"
    }  # fmt: skip


def test_distance_is_that_from_the_surface(patient: Patient) -> None:
    c = patient.coordinates
    k, j, i = np.nonzero((np.abs(c.arc - 80) < 20) & (np.hypot(c.left, c.dorsal) < 12))
    distance = patient.sac_distance_mm[k, j, i]
    expected = np.hypot(c.left[k, j, i], c.dorsal[k, j, i]) - CANAL_MM
    assert np.abs(distance - expected).mean() < 0.35
    assert abs((distance - expected).mean()) < 0.1


def test_signal_is_relative_to_csf_under_shading(patient: Patient) -> None:
    field = np.linspace(0.8, 1.25, patient.image.geometry.shape[0])[:, None, None]
    shaded = Patient("999", patient.image.with_array((patient.image.array * field).astype("f4")),
                     patient.labels, patient.discs)  # fmt: skip
    csf = (patient.labels.array == SAC) & (patient.image.array > 600)
    assert np.median(shaded.relative_signal[csf]) == pytest.approx(1.0, abs=0.08)
    assert np.ptp(np.percentile(shaded.relative_signal[csf], [5, 95])) < 0.4


@pytest.mark.parametrize("position", ["dorsal", "ventral", "left", "right", "circumferential"])
def test_a_layer_lies_on_its_side_outside_sac_and_bone(patient: Patient, position) -> None:
    layer = Layer(position, (40.0, 120.0), 0.9, 3.0)
    painted = paint_layer(patient, layer, np.random.default_rng(1))
    inside = patient.labels.array == SAC
    assert painted[inside].sum() < 0.05 * painted.sum()
    assert painted[patient.solid].sum() == 0
    c = patient.coordinates
    assert painted[(c.arc < 40) | (c.arc > 120)].sum() == 0
    left = np.average(c.left, weights=painted)
    dorsal = np.average(c.dorsal, weights=painted)
    side = {"dorsal": dorsal, "ventral": -dorsal, "left": left, "right": -left}
    if position == "circumferential":
        assert np.hypot(left, dorsal) < 4
    else:
        assert side[position] > 5
    thick = painted[(np.abs(c.arc - 80) < 20)].sum() / 40  # area of the section, mm2
    width = 2 * np.pi if position == "circumferential" else 1.8
    assert 0.2 * 3 * 10 * width < thick < 1.8 * 3 * 10 * width


def test_a_pool_has_a_neck_or_none(patient: Patient) -> None:
    c = patient.coordinates
    between = (np.abs(c.left) < 2) & (c.dorsal > 10) & (c.dorsal < 20) & (np.abs(c.arc - 80) < 2)
    for neck_mm, filled in ((3.0, True), (0.0, False)):
        pool = Pool(80.0, 0.0, 30.0, (15.0, 8.0, 8.0), neck_mm)
        assert bool(paint_pool(patient, pool)[between].mean() > 0.8) is filled


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_series_cover_the_volume_and_keep_means(patient: Patient, plane) -> None:
    grid = acquisition_grid(patient, Acquisition(plane, 0.8, 3.0))
    assert np.allclose(grid.center_lps, patient.image.geometry.center_lps, atol=0.01)
    assert np.linalg.det(grid.directions_lps) > 0
    sampled = sample_on(patient.image, grid)
    assert sampled.shape == grid.shape
    assert sampled.mean() == pytest.approx(patient.image.array.mean(), rel=0.05)
    ramp = patient.image.with_array(
        patient.image.geometry.lps_from_kji(
            np.moveaxis(np.indices(patient.image.geometry.shape), 0, -1)
        )[..., 2].astype(np.float32)
    )
    inner = (slice(1, -1),) * 3 if min(grid.shape) > 2 else (slice(None),) * 3
    own = grid.lps_from_kji(np.moveaxis(np.indices(grid.shape), 0, -1))[..., 2]
    assert np.abs(sample_on(ramp, grid)[inner] - own[inner]).max() < 0.5


def test_studies_repeat_by_seed_and_differ_between_seeds(patient: Patient) -> None:
    first, again, other = (simulate(patient, "dorsal", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.myelogram.array, again.myelogram.array)
    np.testing.assert_array_equal(first.fluid.array, again.fluid.array)
    assert first.myelogram.geometry.shape != other.myelogram.geometry.shape or not np.array_equal(
        first.myelogram.array, other.myelogram.array
    )


def test_a_repeat_scan_has_the_same_fluid_and_another_image(patient: Patient) -> None:
    first, again = (simulate(patient, "dorsal", 3, repeat=n) for n in (0, 1))
    volumes = [
        float(s.fluid_fraction.array.sum()) * s.myelogram.geometry.voxel_volume_ml
        for s in (first, again)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.05)
    assert not first.myelogram.geometry.matches(again.myelogram.geometry)


def test_a_repeat_scan_with_the_same_protocol_has_another_position_only(patient: Patient) -> None:
    first, again = (simulate(patient, "dorsal", 3, repeat=n, same_protocol=True) for n in (0, 1))
    assert again.acquisition == first.acquisition
    one, two = first.myelogram.geometry, again.myelogram.geometry
    assert one.spacing_ijk_mm == pytest.approx(two.spacing_ijk_mm)
    shift_mm = np.abs(one.origin_lps - two.origin_lps)
    assert 0 < shift_mm.max() <= 0.51 * max(one.spacing_ijk_mm)
    csf = [float(np.median(s.myelogram.array[s.thecal_sac.array > 0])) for s in (first, again)]
    assert csf[0] == pytest.approx(csf[1], rel=0.1)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_yields_a_study_with_its_truth(patient: Patient, name: str) -> None:
    study = simulate(patient, name, 5)
    scenario = SCENARIOS[name]
    grid = study.myelogram.geometry
    assert study.myelogram.array.dtype == np.float32
    assert np.isfinite(study.myelogram.array).all()
    for mask in (study.thecal_sac, study.fluid, study.fluid_fraction):
        assert mask.geometry.matches(grid)
    csf = study.myelogram.array[study.thecal_sac.array > 0]
    assert 0.5 < np.percentile(csf, 90) < 2.0
    assert bool(study.fluid.array.any()) is scenario.leak
    assert set(study.positions) == set(range(1, len(scenario.patterns) + 1))
    assert not (study.fluid.array > 0)[study.thecal_sac.array > 0].sum() > 0.1 * max(
        (study.fluid.array > 0).sum(), 1
    )
    slices_mm = grid.spacing_kji_mm[0]
    assert (slices_mm >= 3) is (scenario.acquisition != "3d")


def test_fat_is_bright_where_it_is_not_suppressed(patient: Patient) -> None:
    posterior = (slice(None), slice(70, 85), slice(None))
    means = {}
    for fat in ("suppressed", "none"):
        contrast = "conventional" if fat == "none" else "heavy"
        scenario = SimulationScenario("test", contrasts=(contrast,), fat=fat)  # type: ignore[arg-type]
        study = simulate(patient, scenario, 1, companion=False)
        oriented = study.myelogram.oriented("LPS").resample(patient.image.geometry)
        means[fat] = float(oriented.array[posterior].mean())
    assert means["none"] > 0.4
    assert means["suppressed"] < 0.6 * means["none"]


def test_contrasts_vary_and_stay_within_their_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_contrast("heavy", "partial", rng) for _ in range(200)]
    assert min(c.floor for c in drawn) < 0.05 < 0.4 < max(c.floor for c in drawn)
    assert all(c.ceiling > c.floor for c in drawn)
    assert all(0.4 <= c.failed <= 1.0 for c in drawn)
    assert all(c.failed == c.other for c in [draw_contrast("stir", "suppressed", rng)])


def test_widened_patients_have_the_same_sac(patient: Patient) -> None:
    wide = patient.widened(10.0)
    assert wide.image.geometry.shape[2] == patient.image.geometry.shape[2] + 20
    assert (wide.labels.array == SAC).sum() == (patient.labels.array == SAC).sum()
    point = patient.image.geometry.lps_from_kji([50, 45, 13])
    np.testing.assert_allclose(wide.image.geometry.lps_from_kji([50, 45, 23]), point)


def test_unknown_scenarios_and_missing_files_are_named(patient: Patient, tmp_path) -> None:
    with pytest.raises(SettingsError, match="no scenario is named 'nothing'"):
        simulate(patient, "nothing", 0)
    with pytest.raises(InputError, match="contains no spider-NNN"):
        list_patients(tmp_path)
    nib.save(patient.image.to_nibabel(), tmp_path / "spider-999_T2SPACE.nii.gz")
    assert list_patients(tmp_path) == ("999",)
    with pytest.raises(InputError, match=r"lacks spider-999_mask\.nii\.gz"):
        read_patient(tmp_path, "999")
    empty = patient.labels.with_array(np.zeros_like(patient.labels.array))
    nib.save(empty.to_nibabel(), tmp_path / "spider-999_mask.nii.gz")
    (tmp_path / "spider-999_discs.json").write_text(json.dumps({"discs": []}))
    with pytest.raises(InputError, match="no voxel of the spinal canal"):
        read_patient(tmp_path, "999")


def test_a_patient_is_read_as_it_was_written(patient: Patient, tmp_path) -> None:
    labels = patient.labels.array.copy()
    labels[0, 0, 0] = SAC  # a speck apart from the sac
    nib.save(patient.image.oriented("PIR").to_nibabel(), tmp_path / "spider-999_T2SPACE.nii.gz")
    nib.save(patient.labels.with_array(labels).to_nibabel(), tmp_path / "spider-999_mask.nii.gz")
    discs = [{"name": n, "ras_mm": [-p[0], -p[1], p[2]]} for n, p in patient.discs.items()]
    (tmp_path / "spider-999_discs.json").write_text(json.dumps({"discs": discs}))
    read = read_patient(tmp_path, "999")
    assert read.image.geometry.axis_codes == "LPS"
    np.testing.assert_array_equal(read.labels.array, patient.labels.array)
    for name, center in patient.discs.items():
        np.testing.assert_allclose(read.discs[name], center)
