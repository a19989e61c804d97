"""Contrast classified by pixels if the header does not state it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leakloc.anatomy.network import AnatomyOutputs
from leakloc.core.errors import InputError
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Volume
from leakloc.loaders import load_study, triage
from leakloc.loaders.gate import fluid_over_bone

SAMPLE = Path(__file__).parents[2] / "sample_data" / "postoperative" / "dicom"
SETTINGS = LoaderSettings()


@pytest.fixture(scope="module")
def t2() -> Volume:
    stacks = load_study(SAMPLE, SETTINGS).stacks
    [stack] = [s for s in stacks if s.geometry is not None and s.geometry.shape[0] == 13]
    return stack.load()


def dark_fluid(volume: Volume) -> Volume:
    """Bright and dark swapped inside the body, as on T1: fluid darker than marrow and fat."""
    values = volume.array.astype(np.float32)
    top = np.percentile(values, 99.5)
    return volume.with_array(np.where(values > 0.05 * top, np.maximum(1.1 * top - values, 0), 0))


def saved(volume: Volume, path: Path) -> Path:
    nib.save(volume.to_nibabel(), path)
    return path


def test_fluid_is_brighter_than_bone_on_t2_and_darker_on_t1(t2):
    assert fluid_over_bone(t2, AnatomyOutputs()) > 2.0
    assert fluid_over_bone(dark_fluid(t2), AnatomyOutputs()) < 0.8


def test_a_t1_file_without_header_is_refused_and_a_t2_file_is_not(t2, tmp_path):
    result = triage(load_study(saved(t2, tmp_path / "a.nii.gz"), SETTINGS), SETTINGS)
    assert result.stacks[0].role == "sagittal_t2"
    assert "do not rule out" not in result.notes[0].message
    with pytest.raises(InputError, match="canal is darker than bone"):
        triage(load_study(saved(dark_fluid(t2), tmp_path / "b.nii.gz"), SETTINGS), SETTINGS)


def test_if_no_spine_is_detected_a_note_is_added(tube, tmp_path):
    affine = np.diag([-0.9, -0.9, 0.9, 1.0])
    image = nib.Nifti1Image(tube((70, 64, 64), 0.55).astype(np.int16), affine)
    nib.save(image, tmp_path / "a.nii.gz")
    result = triage(load_study(tmp_path / "a.nii.gz", SETTINGS), SETTINGS)
    assert "do not rule out T1" in result.notes[0].message
