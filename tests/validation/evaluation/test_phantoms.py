from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakloc.core.errors import AnalysisError, SettingsError
from leakloc.core.settings import Settings
from leakloc.core.volume import Geometry, Volume
from leakloc.validation.evaluation import study_cache
from leakloc.validation.evaluation.annotation import annotation_from_phantom, read_case
from leakloc.validation.evaluation.baseline import otsu_split, textbook_method
from leakloc.validation.evaluation.phantoms import evaluate_phantoms
from leakloc.validation.evaluation.sheet import COLORS, contact_sheet, make_tile
from leakloc.validation.evaluation.sweep import PARAMETERS, sweep_phantoms
from leakloc.validation.phantom import SCENARIOS, compact, make_phantom

SAMPLE = Path(__file__).parents[3] / "sample_data/postoperative"
TINY = replace(
    compact(SCENARIOS["postoperative_dorsal"]),
    series=("ht2w_3d",),
    optional_series=(),
    myelogram_shape=(64, 40, 18),
    voxel_mm=5.0,
    slice_mm=5.0,
    obliquity_deg=(3.0, 6.0),
)
HEALTHY = replace(TINY, name="normal", collections=(), laminectomy=False)


def oracle(study, settings):
    """A method that returns the truth of `TINY`, on the grid of the input volume."""
    myelogram = study.stacks[-1].load()
    return annotation_from_phantom(make_phantom(TINY, 3), myelogram), myelogram


def healthy_oracle(study, settings):
    myelogram = study.stacks[-1].load()
    return annotation_from_phantom(make_phantom(HEALTHY, 3), myelogram), myelogram


def refusing(study, settings):
    raise AnalysisError("no canal")


@pytest.fixture(scope="module")
def keep(tmp_path_factory):
    return tmp_path_factory.mktemp("keep")


@pytest.fixture(scope="module")
def perfect(keep):
    tiles = []
    cohort = evaluate_phantoms([TINY], [3], Settings(), method=oracle, keep=keep, tiles=tiles)
    return cohort, tiles


def test_the_truth_scores_perfectly(perfect):
    [case] = perfect[0].cases
    assert (case.group, case.seed) == ("postoperative_dorsal", 3)
    assert case.fluid_dice == case.sac_dice == 1.0
    assert case.levels_exact == case.detected_collections == case.true_collections == 1


def test_cached_phantoms_are_not_rendered_again(perfect, keep, monkeypatch):
    monkeypatch.setattr(study_cache, "write_study", None)  # would fail if called
    again = evaluate_phantoms([TINY], [3], Settings(), method=oracle, keep=keep)
    assert again.cases[0].fluid_dice == 1.0


def test_changed_code_renders_them_again(perfect, keep, monkeypatch):
    [place] = [path for path in keep.iterdir() if path.is_dir()]
    assert place.name.startswith("postoperative_dorsal_3_")  # not the scenario as shipped
    written = []
    monkeypatch.setattr(study_cache, "_code_digest", lambda: "other")
    monkeypatch.setattr(study_cache, "write_study", lambda phantom, folder: written.append(folder))
    assert study_cache.cached_phantom(TINY, 3, keep) == place
    assert len(written) == 1
    assert {path.name for path in keep.iterdir()} == {place.name}  # nothing half-made is left


def test_refusal_is_a_case(tmp_path):
    slab = replace(TINY, series=("localizer",))
    cohort = evaluate_phantoms([slab], [3], Settings(), method=refusing)
    [case] = cohort.cases
    assert case.refusal_correct
    assert (case.leak_true, case.leak_reported) == ("present", "refused")
    assert cohort.summary()["n_failures"] == 0


def test_unknown_scenario_is_named():
    with pytest.raises(SettingsError, match="no scenario is named 'nobody'"):
        evaluate_phantoms(["nobody"], [1], Settings())


def test_tile_outlines_truth_and_result(perfect):
    [tile] = perfect[1]
    colors = {tuple(c) for c in tile.rgb.reshape(-1, 3)}
    # The result is drawn over the truth, which it equals here.
    assert COLORS["predicted sac"] in colors
    assert COLORS["predicted fluid"] in colors
    assert "sac 1.000" in tile.caption[1]


def test_contact_sheet_holds_every_tile(perfect):
    import io

    six = Image.open(io.BytesIO(contact_sheet(perfect[1] * 6)))
    eight = Image.open(io.BytesIO(contact_sheet(perfect[1] * 8)))
    assert eight.width == six.width > 6 * perfect[1][0].rgb.shape[1]
    assert eight.height > 1.8 * six.height


def test_tile_is_drawn_cranial_side_up():
    geometry = Geometry.from_axes((60, 50, 40), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    array = np.zeros(geometry.shape, np.float32)
    array[45:] = 100.0
    sac = np.zeros(geometry.shape, np.uint8)
    sac[10:50, 20:30, 15:25] = 1
    from leakloc.validation.evaluation.annotation import Annotation

    image = Volume(array, geometry).oriented("PIR")
    tile = make_tile("x", image, Annotation("x"), Annotation("x", Volume(sac, geometry)))
    assert tile.rgb[20, 20].mean() > 200
    assert tile.rgb[-20, 20].mean() < 20


# --- the textbook method ------------------------------------------------------------------


def test_textbook_method_separates_a_tube_from_an_attached_blob():
    geometry = Geometry.from_axes((60, 60, 60), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    k, j, i = np.indices(geometry.shape)
    tube = (j - 30) ** 2 + (i - 30) ** 2 <= 8**2
    blob = (j - 44) ** 2 + (i - 30) ** 2 + (k - 30) ** 2 <= 7**2
    noise = np.random.default_rng(0).normal(0, 5, geometry.shape)
    sac, fluid = otsu_split(Volume((100.0 * (tube | blob) + noise).astype(np.float32), geometry))
    inner = tube & (k > 3) & (k < 56)
    assert (sac.array[inner] > 0).mean() > 0.95
    assert fluid.array.max() == 1
    assert (fluid.array[blob & ~tube] > 0).mean() > 0.5
    assert not (fluid.array[tube]).any()


def test_textbook_method_measures_like_any_other():
    from leakloc.loaders import load_study
    from leakloc.validation.evaluation.cases import compare

    settings = Settings()
    found, image = textbook_method(load_study(SAMPLE / "dicom", settings.loaders), settings)
    case = compare(found, read_case(SAMPLE))
    assert found.thecal_sac.geometry.matches(image.geometry)
    assert 0.3 < case.sac_dice < 1.0


# --- sweeps -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_sweep_does_not_change_the_anatomy(name):
    base = compact(SCENARIOS["circumferential_thin"])
    swept = PARAMETERS[name]
    first, last = (
        make_phantom(swept.apply(base, v), 5) for v in (swept.values[0], swept.values[-1])
    )
    assert first.scenario != last.scenario
    if name == "scoliosis":
        return  # is the anatomy
    assert [s.name for s in first.body.anatomy.sites] == [s.name for s in last.body.anatomy.sites]
    tips = first.body.anatomy.sac_tip_mm, last.body.anatomy.sac_tip_mm
    assert tips[0] == tips[1]


@pytest.mark.parametrize("name", ["voxel", "slice", "plane"])
def test_grids_change_but_not_the_field(name):
    base = replace(compact(SCENARIOS["normal"]), obliquity_deg=(0.0, 0.0))

    def field(scenario):
        geometry = make_phantom(scenario, 5).myelogram_geometry()
        corners = geometry.lps_from_kji([[0, 0, 0], [n - 1 for n in geometry.shape]])
        return np.sort(corners, axis=0), geometry

    swept = PARAMETERS[name]
    fields = [field(swept.apply(base, v)) for v in swept.values]
    for corners, geometry in fields[1:]:
        tolerance = 2.0 * max(geometry.spacing_ijk_mm) + 2.0
        assert np.abs(corners - fields[0][0]).max() < tolerance
    if name == "plane":
        normals = [int(np.abs(g.directions_lps[:, 2]).argmax()) for _, g in fields]
        assert normals == [0, 1, 2]


def test_kinds_are_swept_by_their_names():
    plane = PARAMETERS["plane"]
    assert [plane.format_value(plane.value(n)) for n in plane.names] == list(plane.names)
    assert PARAMETERS["snr"].format_value(PARAMETERS["snr"].value("12.50")) == "12.5"


def test_sweep_is_a_curve(tmp_path):
    sweep = sweep_phantoms(
        "snr", [HEALTHY], [3], Settings(), values=[40, 10], method=healthy_oracle
    )
    assert [p.value for p in sweep.points] == [40.0, 10.0]
    text = sweep.to_text()
    assert text.splitlines()[1].startswith("40")
    assert "1.000" in text
    assert sweep.to_csv().startswith("snr,case,")
    assert sweep.to_json().count('"value"') == 2
    from leakloc.validation.evaluation.figures import png, sweep_figure

    assert png(sweep_figure(sweep)).startswith(b"\x89PNG")
