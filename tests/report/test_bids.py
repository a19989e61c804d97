"""The masks as a BIDS derivative dataset."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leakloc.core.errors import SettingsError
from leakloc.loaders.study import StudyInfo
from leakloc.pipeline import Analysis
from leakloc.report import Report, write_outputs
from leakloc.report.label_files import mask_labels


@pytest.fixture(scope="module")
def written(
    analysis: Analysis, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Report, Path]]:
    def write(source: Analysis = analysis, **settings: object) -> tuple[Report, Path]:
        folder = tmp_path_factory.mktemp("bids") / "out"
        changed = source.settings.changed(report__write=["masks", "bids"], **settings)
        return write_outputs(replace(source, settings=changed), folder), folder

    return write


def test_names_contain_the_labels_of_the_settings(written: Callable[..., tuple[Report, Path]]):
    report, folder = written(report__bids_subject="01", report__bids_session="post")
    images = [name for name in report.outputs.bids if name.endswith(".nii.gz")]
    anat = "derivatives/leakloc/sub-01/ses-post/anat"
    assert images == [
        f"{anat}/sub-01_ses-post_desc-{desc}_dseg.nii.gz" for desc in ("sac", "fluid", "levels")
    ]
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if "derivatives" in p.parts}
    assert {name for name in files if (folder / name).is_file()} == set(report.outputs.bids)
    labels = mask_labels(report)
    for name, path in zip(("thecal_sac", "epidural_fluid", "levels"), images, strict=True):
        mask, same = nib.load(folder / path), nib.load(folder / report.outputs.masks[name])
        np.testing.assert_array_equal(mask.get_fdata(), same.get_fdata())
        np.testing.assert_array_equal(mask.affine, same.affine)
        with (folder / path.replace(".nii.gz", ".tsv")).open() as table:
            rows = list(csv.DictReader(table, delimiter="\t"))
        assert [row["name"] for row in rows] == [label.name for label in labels[name]]


def test_names_contain_no_patient_data_by_default(
    analysis: Analysis, written: Callable[..., tuple[Report, Path]]
):
    def subject(uid: str | None, patient_id: str) -> str:
        info = StudyInfo(study_instance_uid=uid, patient_id=patient_id)
        source = replace(analysis, study=replace(analysis.study, info=info))
        report, _ = written(source)
        return report.outputs.bids[0].split("/")[2].removeprefix("sub-")

    first = subject("1.2.3", "MILLER1960")
    assert first == subject("1.2.3", "SMITH1950") != subject("1.2.4", "MILLER1960")
    assert len(first) == 8 and set(first) <= set("0123456789abcdef")
    assert len(subject(None, "MILLER1960")) == 8


@pytest.mark.parametrize("label", ["sub-01", "a_b", "../x"])
def test_labels_are_letters_and_digits(analysis: Analysis, label: str):
    with pytest.raises(SettingsError, match="bids_subject"):
        analysis.settings.changed(report__bids_subject=label)


def test_the_dataset_is_valid(written: Callable[..., tuple[Report, Path]]):
    """Of several reports, copied into one dataset; with the validator of BIDS."""
    validator = shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    _, folder = written(report__bids_subject="01")
    _, other = written(report__bids_subject="02", report__bids_session="post")
    dataset = folder / "derivatives" / "leakloc"
    shutil.copytree(other / "derivatives" / "leakloc", dataset, dirs_exist_ok=True)
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    done = subprocess.run(
        [validator, "--format", "json", str(dataset)], capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)["issues"]["issues"]
    assert done.returncode == 0, [issue for issue in found if issue["severity"] == "error"]
    codes = {issue.get("subCode") or issue["code"] for issue in found}
    assert codes <= {"SpatialReference", "TOO_FEW_AUTHORS"}  # recommended metadata
