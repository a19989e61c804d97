"""What file systems do to a study: links, pipes, closed, vanishing and countless files."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from leakloc.core.errors import InputError
from leakloc.loaders import load_study, series_table


def reasons(study) -> dict[str, str]:
    return {item.path.name: item.reason for item in study.skipped}


def test_links_in_circles_end(series, settings, tmp_path):
    series().write(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    study = load_study(tmp_path, settings)
    assert [stack.n_instances for stack in study.stacks] == [8]
    assert "links are not followed" in reasons(study)["up"]
    assert "cannot be opened" in reasons(study)["self"]


def test_links_to_files_and_a_linked_study_are_read(series, settings, tmp_path):
    made = series().write(tmp_path / "store")
    (tmp_path / "study").mkdir()
    for path in made.paths:
        (tmp_path / "study" / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to(tmp_path / "study")
    assert load_study(tmp_path / "link", settings).stacks[0].load().array.shape == (8, 24, 16)


def test_pipes_sockets_and_devices_do_not_block(series, settings, tmp_path):
    series().write(tmp_path / "a")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "a" / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        place = Path.cwd()
        os.chdir(tmp_path / "a")  # socket paths are limited to 108 bytes
        server.bind("socket")
        os.chdir(place)
        study = load_study(tmp_path, settings)
    for name in ("pipe", "device", "socket"):
        assert reasons(study)[name] == "not a regular file"
    for path in (tmp_path / "a" / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            load_study(path, settings)


def test_closed_files_cost_their_slice_only(series, settings, tmp_path, monkeypatch):
    made = series().write(tmp_path)
    closed = made.paths[3]
    truly = Path.open

    def refuse(self, *args, **options):
        if self == closed:  # root may open everything, so the refusal is acted
            raise PermissionError(13, "Permission denied", str(self))
        return truly(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    study = load_study(tmp_path, settings)
    assert "Permission denied" in reasons(study)[closed.name]
    assert [note.code for note in study.stacks[0].notes] == ["missing_slices"]
    with pytest.raises(InputError, match="Permission denied"):
        load_study(closed, settings)


def test_files_that_vanish_during_the_scan_are_listed(series, settings, tmp_path, monkeypatch):
    made = series().write(tmp_path)
    truly = Path.stat

    def vanish(self, **options):
        if self == made.paths[0]:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return truly(self, **options)

    monkeypatch.setattr(Path, "stat", vanish)
    assert "No such file" in reasons(load_study(tmp_path, settings))[made.paths[0].name]


def test_files_that_vanish_or_change_before_pixels_are_read_are_named(series, settings, tmp_path):
    made = series().write(tmp_path / "a")
    [stack] = load_study(tmp_path / "a", settings).stacks
    other = series(shape=(1, 8, 8)).write(tmp_path / "b")
    other.paths[0].replace(made.paths[2])
    with pytest.raises(InputError, match="changed while it was read"):
        stack.load()
    made.paths[2].unlink()
    with pytest.raises(InputError, match="deleted or made inaccessible after its header was read"):
        stack.load()
    volume = tmp_path / "volume.nii.gz"
    import nibabel as nib
    import numpy as np

    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), volume)
    [stack] = load_study(volume, settings).stacks
    volume.unlink()
    with pytest.raises(InputError, match=r"cannot read volume\.nii\.gz"):
        stack.load()


def test_missing_paths_are_named(settings, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_study(tmp_path / "gone", settings)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot read"):
        load_study(tmp_path / "loop", settings)


@pytest.mark.slow
def test_a_hundred_thousand_files_next_to_the_study(series, settings, tmp_path):
    series().write(tmp_path / "study")
    for folder in range(100):
        (tmp_path / f"notes{folder}").mkdir()
        for n in range(1000):
            (tmp_path / f"notes{folder}" / f"{n}.txt").write_bytes(b"notes")
    started = time.perf_counter()
    study = load_study(tmp_path, settings)
    rows, skipped = series_table(study, settings)
    assert (len(rows), len(skipped)) == (1, 100_000)
    assert time.perf_counter() - started < 60.0
