"""Files damaged at random: whatever is left is read or named, and nothing else is raised."""

from __future__ import annotations

import random

import pytest

from leakloc.core.errors import LeaklocError
from leakloc.loaders import load_study, series_table


@pytest.mark.parametrize("seed", range(12))
def test_damaged_headers_raise_nothing_unexpected(series, enhanced, settings, tmp_path, seed):
    chance = random.Random(seed)
    made = series(EchoTime=600.0, RepetitionTime=3000.0, SeriesDescription="myelo")
    made.write(tmp_path / "classic")
    (tmp_path / "enhanced").mkdir()
    enhanced(tmp_path / "enhanced" / "x", made, list(range(8)))
    for path in (*chance.sample(made.paths, 4), tmp_path / "enhanced" / "x"):
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 3, 20])):
            place = chance.randrange(128, min(6000, len(content)))
            content[place] = chance.choice([0, 255, chance.randrange(256)])
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
    for folder in (tmp_path / "classic", tmp_path / "enhanced"):
        try:
            study = load_study(folder, settings)
            for stack in study.stacks:
                if stack.geometry is not None:
                    assert stack.load().array.shape == stack.geometry.shape
            series_table(study, settings)
        except LeaklocError as error:
            assert str(error)
