"""`import leakloc as ll`: loading, analysing, showing and converting."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import leakloc as ll
from leakloc import notebook
from leakloc.core.errors import GeometryError, OutputError, SettingsError
from leakloc.core.extras import need

SAMPLE = Path(__file__).parents[1] / "sample_data/postoperative"


@pytest.fixture(scope="module")
def study():
    return ll.load(SAMPLE / "dicom")


@pytest.fixture(scope="module")
def result(sample_analysis):
    return replace(sample_analysis)


def test_import_brings_nothing_heavy():
    heavy = ("scipy", "SimpleITK", "pydicom", "matplotlib", "pandas", "nibabel", "onnxruntime")
    code = f"import leakloc, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in ll.__all__:
        assert getattr(ll, name) is not None
    assert set(dir(ll)) == set(ll.__all__)
    with pytest.raises(AttributeError, match="no attribute 'leek'"):
        _ = ll.leek


def test_study_as_a_table(study):
    table = study.table()
    assert list(table[table.role == "myelogram"].used_for) == [["fluid"]]
    assert "sagittal_t2" in set(table.role)
    assert table.reason.str.len().min() > 10
    html = study._repr_html_()
    assert html.count("<tr>") == len(table) + 1


def test_series_description_is_shown_as_text(study):
    bad = replace(study.stacks[0], description="<script>alert(1)</script>")
    html = replace(study, stacks=(bad,))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_result_shows_and_converts_itself(result):
    assert result.report.finding.level == "L4-L5"
    html = result._repr_html_()
    assert result.report.finding.summary[:30] in html
    assert "data:image/png;base64," in html
    collections = result.table()
    assert list(collections.id) == [c.id for c in result.report.collections]
    assert collections.volume_ml[0] == result.report.collections[0].volume_ml
    levels = notebook.levels_table(result.report)
    assert levels.center_z_lps_mm.is_monotonic_decreasing
    assert {"L4", "L4-L5"} <= set(levels.name)
    assert {"segment", "volume_ml"} <= set(notebook.sac_table(result.report).columns)


def test_result_remembers_its_settings(result):
    assert result.settings.report.picture_height_px == 400
    stored = result.report.generator.config
    assert ll.Settings.from_dict(stored) == result.settings


def test_result_is_saved_once(result, tmp_path):
    report = result.save(tmp_path / "out")
    assert ll.Report.load(tmp_path / "out") == report
    with pytest.raises(OutputError):
        ll.analyze("unread", output=tmp_path / "out")
    # A report on disk measures as the analysis in memory does.
    [from_disk] = ll.evaluation.evaluate_folders(tmp_path / "out", SAMPLE).cases
    truth = ll.evaluation.read_case(SAMPLE)
    in_memory = ll.evaluation.compare(ll.evaluation.annotation_from_analysis(result), truth)
    assert from_disk.sac_dice == in_memory.sac_dice > 0.9
    assert from_disk.fluid_hd95_mm == in_memory.fluid_hd95_mm
    assert from_disk.levels_exact == in_memory.levels_exact == 1
    assert from_disk.vertebrae_correct == from_disk.vertebrae_true > 3
    assert from_disk.fluid_detected_ml == pytest.approx(in_memory.fluid_detected_ml, abs=1e-3)


def test_masks_convert_in_one_call(result):
    sac = result.segmentation.thecal_sac
    assert np.asarray(sac).shape == sac.geometry.shape
    assert np.asarray(sac, dtype=float).sum() == np.count_nonzero(sac.array)
    assert isinstance(sac.to_sitk(), sitk.Image)
    assert isinstance(sac.to_nibabel(), nib.Nifti1Image)
    assert ll.Volume.from_sitk(sac.to_sitk()).geometry.matches(sac.geometry)
    assert ll.Volume.from_nibabel(sac.to_nibabel()).geometry.matches(sac.geometry)


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.bool_])
def test_volume_shows_itself(kind):
    array = np.zeros((20, 30, 10), kind)
    array[4:9, 20:25, 2:5] = 1
    geometry = ll.Geometry.from_axes((20, 30, 10), origin_lps=(0, 0, 0), spacing_ijk_mm=(3, 1, 1))
    html = ll.Volume(array, geometry)._repr_html_()
    assert "3 x 1 x 1 mm" in html
    assert "data:image/png" in html


def test_volume_picture_has_head_up_and_right_on_the_left():
    from leakloc.notebook import volume_picture

    array = np.zeros((40, 40, 40), np.float32)
    array[30:, :, :] = 1.0  # towards the head
    array[:, :, 30:] += 2.0  # towards the patient's left
    geometry = ll.Geometry.from_axes((40, 40, 40), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    turned = ll.Volume(array, geometry).oriented("PIR")  # stored sagittally
    picture = volume_picture(turned)[..., 0].astype(int)
    sagittal, coronal = picture[:, :280], picture[:, 284:564]
    assert sagittal[20].mean() > sagittal[-20].mean()
    assert coronal[:, -20].mean() > coronal[:, 20].mean()


def test_volume_in_memory_is_a_study():
    array = np.zeros((8, 9, 10), np.float32)
    geometry = ll.Geometry.from_axes((8, 9, 10), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    study = ll.load(ll.Volume(array, geometry))
    assert study.stacks[0].load().array is array


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((9, 10), r"array\[None\]"), ((10, 9, 8), "nibabel order"), ((9, 8, 10), "not in the order")],
)
def test_array_of_another_shape_says_what_to_do(shape, hint):
    geometry = ll.Geometry.from_axes((8, 9, 10), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    with pytest.raises(GeometryError, match=hint):
        ll.Volume(np.zeros(shape), geometry)


def test_settings_are_copied_saved_and_loaded(tmp_path):
    settings = ll.Settings().changed(segmentation__search_radius_mm=12.3)
    settings.save(tmp_path / "mine.toml")
    assert ll.Settings.load(tmp_path / "mine.toml") == settings
    assert ll.Settings().segmentation.search_radius_mm != 12.3
    with pytest.raises(OutputError, match="cannot write the recipe"):
        settings.save(tmp_path / "absent" / "mine.toml")


def test_a_folder_in_the_place_of_settings_is_named():
    with pytest.raises(SettingsError, match="output="):
        ll.analyze(SAMPLE / "dicom", "out")


def test_missing_extra_says_how_to_install_it():
    with pytest.raises(SettingsError, match=r"pip install 'leakloc\[research\]'"):
        need("pandas_that_is_not_there", "research")
