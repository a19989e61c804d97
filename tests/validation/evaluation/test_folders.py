from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from leakloc.cli import main
from leakloc.core.errors import GeometryError, InputError
from leakloc.core.volume import Geometry, Volume
from leakloc.validation.evaluation.annotation import annotation_from_fluid, read_case
from leakloc.validation.evaluation.folders import evaluate_folders

from .conftest import GRID, box, save, write_truth


@pytest.fixture
def pair(tmp_path, truth_folder):
    """The true fluid as one mask file, and the same moved by a voxel as the prediction."""
    truth = read_case(truth_folder).fluid
    save(truth, tmp_path / "true.nii.gz")
    save(truth.with_array(np.roll(truth.array, 1, axis=1)), tmp_path / "pred.nii.gz")
    return tmp_path / "pred.nii.gz", tmp_path / "true.nii.gz"


def test_two_mask_files(pair):
    [case] = evaluate_folders(*pair).cases
    assert case.fluid_dice == pytest.approx(0.8)
    assert case.fluid_hd95_mm == pytest.approx(1.2)
    assert case.detected_collections == case.true_collections == 1


def test_mask_file_against_a_phantoms_truth(pair, truth_folder):
    [case] = evaluate_folders(pair[0], truth_folder).cases
    assert case.fluid_dice == pytest.approx(0.8)


def test_components_of_one_label_are_separate_collections():
    mask = box(slice(2, 8), slice(2, 12), slice(2, 12))
    mask.array[20:28, 2:12, 2:12] = 1
    annotation = annotation_from_fluid("", mask)
    assert [c.id for c in annotation.collections] == [1, 2]
    assert annotation.fluid_ml == pytest.approx(sum(c.volume_ml for c in annotation.collections))
    assert [c.id for c in annotation_from_fluid("", box(slice(2, 9), value=7)).collections] == [1]


def test_folders_are_paired_by_name(tmp_path, truth_folder):
    for name in ("case_b", "case_c"):
        shutil.copytree(truth_folder, tmp_path / "truth" / name)
    for name in ("case_a", "case_b"):
        save(read_case(truth_folder).fluid, tmp_path / "found" / name / "epidural_fluid.nii.gz")
    other = Geometry.from_axes((9, 9, 9), origin_lps=(0, 0, 0), spacing_ijk_mm=(1, 1, 1))
    spoiled = Volume(np.ones((9, 9, 9), np.uint8), other)
    save(spoiled, tmp_path / "found" / "case_b" / "epidural_fluid.nii.gz")
    cohort = evaluate_folders(tmp_path / "found", tmp_path / "truth")
    a, b, c = cohort.cases
    assert a.fluid_dice == 1.0
    assert "another grid" in b.error
    assert c.error == "no result with this name"
    assert cohort.summary()["n_failures"] == 2


def test_mask_files_of_folders_are_paired_by_stem(tmp_path, pair):
    for side, file in zip(("p", "t"), pair, strict=True):
        (tmp_path / side).mkdir()
        shutil.copy(file, tmp_path / side / "one.nii.gz")
    assert len(evaluate_folders(tmp_path / "p", tmp_path / "t").cases) == 1


def test_nothing_to_pair_is_reported(tmp_path, truth_folder, pair):
    with pytest.raises(InputError, match="one study"):
        evaluate_folders(pair[0], tmp_path / "truth")
    save(box(slice(3)), tmp_path / "found" / "elsewhere.nii.gz")
    with pytest.raises(InputError, match="name the folders or mask files"):
        evaluate_folders(tmp_path / "found", tmp_path / "truth")
    with pytest.raises(InputError, match="does not exist"):
        evaluate_folders(tmp_path / "nothing", tmp_path / "truth")


MISTAKES = {
    "NaN": (np.where(box(slice(9)).array, np.nan, 0).astype(np.float32), "NaN.*set them to 0"),
    "probabilities": (box(slice(9)).array * np.float32(0.7), "probabilities.*threshold"),
    "picture": (np.arange(40 * 30 * 24, dtype=np.int32).reshape(GRID.shape), "to be an image"),
    "overflow": (box(slice(9)).array * np.int32(100_000), "overflow"),
    "signed overflow": (-box(slice(9)).array.astype(np.int16), "negative"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_invalid_mask_is_refused_with_the_fix(tmp_path, pair, name):
    array, message = MISTAKES[name]
    save(Volume(array, GRID), tmp_path / "bad.nii.gz")
    with pytest.raises(InputError, match=message):
        evaluate_folders(tmp_path / "bad.nii.gz", pair[1])


def test_two_dimensional_mask_is_refused(tmp_path, pair):
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.ones((24, 30), np.uint8), np.eye(4)), tmp_path / "flat.nii.gz")
    with pytest.raises(InputError, match=r"flat\.nii\.gz"):
        evaluate_folders(tmp_path / "flat.nii.gz", pair[1])


def test_mirrored_mask_is_refused(tmp_path, pair):
    mirrored = Geometry(GRID.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.affine_lps)
    save(Volume(read_case(pair[1]).fluid.array, mirrored), tmp_path / "ras.nii.gz")
    with pytest.raises(GeometryError, match="mirrored"):
        evaluate_folders(tmp_path / "ras.nii.gz", pair[1])


def test_invalid_labels_are_named(tmp_path, pair):
    levels = np.zeros(GRID.shape, np.uint8)
    levels.reshape(-1)[:160] = np.arange(160)
    save(Volume(levels, GRID), tmp_path / "levels.nii.gz")
    with pytest.raises(InputError, match=r"159 labels .*--label"):
        evaluate_folders(tmp_path / "levels.nii.gz", pair[1])
    with pytest.raises(InputError, match="more than a sac mask has"):
        evaluate_folders(tmp_path / "levels.nii.gz", tmp_path / "levels.nii.gz", kind="sac")
    with pytest.raises(InputError, match=r"has no label 9; its labels: 1\."):
        evaluate_folders(*pair, label=9)


def test_command_prints_and_writes(tmp_path, pair, capsys):
    found, truth = map(str, pair)
    assert main(["evaluate", found, truth, "-o", str(tmp_path / "out")]) == 0
    assert "0.800" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "cases.csv",
        "evaluation.json",
        "evaluation.txt",
        "dice.png",
        "detection.png",
    } <= written
    assert main(["evaluate", found, truth, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["fluid_dice"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "specify PRED and TRUTH"),
        (["x"], "specify both"),
        (["--sweep", "mood"], "no sweep parameter is named 'mood'; one of: snr"),
        (["--sweep", "snr", "--values", "a,b"], "SNR of CSF: 'a' is not a number"),
        (["--sweep", "plane", "--values", "1"], "'1' is not one of sagittal, coronal, axial"),
        (["--phantom", "nobody"], "no scenario is named"),
        (["--phantom", "normal", "--seeds", "x"], "range A-B"),
    ],
)
def test_command_reports_what_is_missing(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_leak_free_truth(tmp_path, pair):
    free = tmp_path / "free"
    free.mkdir()
    write_truth(free, box())
    [case] = evaluate_folders(pair[0], free).cases
    assert case.leak_true == "absent"
    assert case.false_positive_collections == 1
    assert np.isnan(case.fluid_dice)
