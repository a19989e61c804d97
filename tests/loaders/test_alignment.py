"""Companions of patients who moved, and of another session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Volume
from leakloc.loaders import load_study, triage
from leakloc.loaders.study import SeriesStack, Study

SAMPLE = Path(__file__).parents[2] / "sample_data" / "postoperative" / "dicom"
SETTINGS = LoaderSettings()


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(SAMPLE, SETTINGS)


def rigid(shift_mm, degrees, about_lps) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = about_lps + np.array(shift_mm) - matrix[:3, :3] @ about_lps
    return matrix


def with_moved_companion(study: Study, number: int, matrix, frame: str | None = "same") -> Study:
    def change(stack: SeriesStack) -> SeriesStack:
        if stack.series_number != number or stack.geometry is None:
            return stack
        uid = stack.geometry.frame_of_reference_uid if frame == "same" else frame
        geometry = replace(
            stack.geometry, affine_lps=matrix @ stack.geometry.affine_lps,
            frame_of_reference_uid=uid,
        )  # fmt: skip
        volume = stack.load()
        return replace(
            stack, geometry=geometry, read=lambda: Volume(volume.array, geometry, volume.provenance)
        )

    return replace(study, stacks=tuple(change(stack) for stack in study.stacks))


def error_mm(result, original: Volume) -> float:
    """Largest distance of a place near the canal in the companion from where it truly lies."""
    placed = result.companions["sagittal_t2"].geometry
    k, j, i = placed.shape
    around = np.array([[f * i, g * j, k / 2] for f in (0.4, 0.6) for g in (0.15, 0.5, 0.85)])
    gap = placed.lps_from_ijk(around) - original.geometry.lps_from_ijk(around)
    return float(np.linalg.norm(gap, axis=1).max())


@pytest.fixture(scope="module")
def still(study):
    return triage(study, SETTINGS)


@pytest.fixture(scope="module")
def number(still) -> int:
    return next(i.stack.series_number for i in still.stacks if i.used_for == ("levels",))


def codes(result) -> list[str]:
    return [note.code for note in result.notes if note.code.startswith("companion")]


def test_who_did_not_move_is_left_alone(still, study, number):
    assert codes(still) == []
    [stack] = [s for s in study.stacks if s.series_number == number]
    companion = still.companions["sagittal_t2"]
    np.testing.assert_array_equal(companion.geometry.affine_lps, stack.geometry.affine_lps)


@pytest.mark.parametrize(
    ("shift_mm", "degrees"),
    [
        ((0, 5, -18), (2, 0, 0)),
        pytest.param((3, -2, 4), (0, 0, 0), marks=pytest.mark.slow),
        pytest.param((-4, 3, 33), (3, 1, -1), marks=pytest.mark.slow),
    ],
)
def test_a_patient_who_moved_between_series_is_moved_back(still, study, number, shift_mm, degrees):
    original = still.companions["sagittal_t2"]
    matrix = rigid(shift_mm, degrees, original.geometry.center_lps)
    result = triage(with_moved_companion(study, number, matrix), SETTINGS)
    assert codes(result) == ["companion_moved"]
    assert error_mm(result, original) < 1.5
    assert [i.used_for for i in result.stacks] == [i.used_for for i in still.stacks]
    assert "agree within" in result.notes[-1].message


def test_a_companion_stays_where_images_and_headers_of_two_frames_agree(still, study, number):
    original = still.companions["sagittal_t2"]
    result = triage(with_moved_companion(study, number, np.eye(4), "9.9"), SETTINGS)
    assert codes(result) == ["companion_frame_confirmed"]
    assert error_mm(result, original) == 0.0
    frame = result.myelogram.geometry.frame_of_reference_uid
    assert result.companions["sagittal_t2"].geometry.frame_of_reference_uid == frame


@pytest.mark.slow
@pytest.mark.parametrize("shift_mm", [(0.5, 0.5, -0.5), (160, -90, 420)])
def test_another_frame_of_reference_is_registered(still, study, number, shift_mm):
    original = still.companions["sagittal_t2"]
    matrix = rigid(shift_mm, (2, 0, 1), original.geometry.center_lps)
    result = triage(with_moved_companion(study, number, matrix, "9.9"), SETTINGS)
    assert codes(result) == ["companion_registered"]
    assert error_mm(result, original) < 2.0
    frame = result.myelogram.geometry.frame_of_reference_uid
    assert result.companions["sagittal_t2"].geometry.frame_of_reference_uid == frame


@pytest.mark.slow
def test_another_body_is_not_fused(still, study, number):
    """Upside down, the same tissues lie where no rigid movement of a patient puts them."""

    def upset(stack: SeriesStack) -> SeriesStack:
        if stack.series_number != number:
            return stack
        volume = stack.load()
        turned = volume.array[:, ::-1].copy()
        return replace(stack, read=lambda: Volume(turned, volume.geometry, volume.provenance))

    other = replace(study, stacks=tuple(upset(stack) for stack in study.stacks))
    result = triage(with_moved_companion(other, number, np.eye(4), "9.9"), SETTINGS)
    assert codes(result) == ["companion_other_frame"]
    assert "sagittal_t2" not in result.companions
    assert all(i.used_for != ("levels",) for i in result.stacks)
    same_frame = triage(other, SETTINGS)
    assert codes(same_frame)[0] in ("companion_not_fused", "companion_alignment_unverified")


def test_checking_can_be_switched_off(still, study, number):
    matrix = rigid((0, 0, 20), (0, 0, 0), np.zeros(3))
    settings = SETTINGS.model_copy(update={"verify_companions": False})
    result = triage(with_moved_companion(study, number, matrix), settings)
    assert codes(result) == []
