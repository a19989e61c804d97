"""Enhanced (multi-frame) MR: geometry and contrast live in functional groups."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.loaders import load_study

SHUFFLED = [3, 0, 7, 1, 6, 2, 5, 4]
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def codes(stack) -> set[str]:
    return {note.code for note in stack.notes}


def test_frames_are_placed_one_by_one(series, enhanced, settings, tmp_path):
    made = series()
    enhanced(tmp_path / "x", made, SHUFFLED)
    [stack] = load_study(tmp_path, settings).stacks
    volume = stack.load()
    np.testing.assert_array_equal(volume.array, made.array)
    np.testing.assert_allclose(volume.geometry.affine_lps, made.affine_lps, atol=1e-6)
    assert stack.n_instances == 8
    assert stack.parameters["EffectiveEchoTime"] == 500.0
    assert stack.parameters["RepetitionTime"] == 4000.0
    assert stack.parameters["ImageType"] == ["ORIGINAL", "PRIMARY", "M", "NONE"]
    assert len(stack.files) == len(stack.sop_instance_uids) == 8


def test_rescale_is_read_frame_by_frame(series, enhanced, settings, tmp_path):
    made = series()
    enhanced(tmp_path / "x", made, SHUFFLED, {n: {"slope": n + 1.0} for n in range(8)})
    [stack] = load_study(tmp_path, settings).stacks
    expected = made.array * (np.arange(8.0)[:, None, None] + 1)
    np.testing.assert_allclose(stack.load().array, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"echo_time": 90.0},
        {"frame_type": ["ORIGINAL", "PRIMARY", "PHASE MAP", "NONE"]},
        {"time": 2},
    ],
)
def test_echoes_types_and_times_become_stacks(series, enhanced, settings, tmp_path, change):
    """Places 4..7 repeat places 0..3 with another contrast or at another time."""
    made = series()
    changes = {
        n + 4: {"position": made.datasets[n].ImagePositionPatient, **change} for n in range(4)
    }
    enhanced(tmp_path / "x", made, SHUFFLED, changes)
    stacks = load_study(tmp_path, settings).stacks
    arrays = sorted(
        (s.load().array for s in stacks), key=lambda a: a.tolist() != made.array[:4].tolist()
    )
    np.testing.assert_array_equal(arrays[0], made.array[:4])
    np.testing.assert_array_equal(arrays[1], made.array[4:])


def test_three_planes_in_one_object_are_split(series, enhanced, settings, tmp_path):
    made = series()
    changes = {n: {"orientation": AXIAL, "position": [0.0, 0.0, 2.0 * n]} for n in range(4)}
    enhanced(tmp_path / "x", made, SHUFFLED, changes)
    stacks = load_study(tmp_path, settings).stacks
    assert sorted(s.geometry.axis_codes for s in stacks) == ["LPS", "PIR"]
    assert [s.n_instances for s in stacks] == [4, 4]


def test_cut_short_objects_yield_no_volume(series, enhanced, settings, tmp_path):
    enhanced(tmp_path / "x", series(), SHUFFLED)
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-200])
    [stack] = load_study(tmp_path, settings).stacks
    assert stack.geometry is None
    assert codes(stack) == {"truncated_slices", "unreadable"}


def test_multi_frame_objects_without_groups_have_no_place(series, settings, tmp_path):
    made = series(shape=(1, 24, 16))
    made.set(NumberOfFrames=4, PixelData=bytes(4 * 24 * 16 * 2)).write(tmp_path)
    [stack] = load_study(tmp_path, settings).stacks
    assert codes(stack) == {"no_position"}
