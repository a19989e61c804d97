import numpy as np
import pytest

from leakloc.core.errors import SettingsError
from leakloc.core.settings import LevelSettings
from leakloc.levels.candidates import Candidate
from leakloc.levels.conus import Conus
from leakloc.levels.naming import choose_numbering, parse_anchor
from tests.levels.spines import MadeSpine, label_spine


def test_conus_is_ignored_if_the_user_sets_the_numbering():
    spine = MadeSpine(cord_ends_at=("T11-T12", 8.0))
    numbering = label_spine(spine, LevelSettings(lumbar_count=5)).numbering
    assert numbering.confidence == 1.0 and not numbering.transitional_suspected


def test_anchor_of_the_user_decides():
    spine = MadeSpine()
    x, y, z = spine.centers["L3-L4"]
    levels = label_spine(spine, LevelSettings(anchor=f"L4-L5@{x},{y + 4},{z}"))
    assert levels.numbering.method == "user"
    found = {d.name: d.center_lps for d in levels.discs}
    assert np.allclose(found["L4-L5"], spine.centers["L3-L4"])


@pytest.mark.parametrize("count", [4, 5, 6])
@pytest.mark.parametrize("anchor", ["T12-L1", "T11-T12"])
def test_an_anchor_above_the_lumbar_spine_lets_its_vertebrae_be_counted(anchor, count):
    spine = MadeSpine(first="T9-T10", lumbar_count=count)
    x, y, z = spine.centers[anchor]
    levels = label_spine(spine, LevelSettings(anchor=f"{anchor}@{x},{y},{z}"))
    assert levels.numbering.lumbar_count == count
    found = {d.name: d.center_lps for d in levels.discs}
    for name, center in spine.centers.items():
        if not name.startswith("S"):
            assert np.allclose(found[name], center), name


def test_lowest_disc_of_the_user_decides():
    spine = MadeSpine()
    levels = label_spine(spine, LevelSettings(lowest_disc="L4-L5"))
    found = {d.name: d.center_lps for d in levels.discs}
    assert levels.numbering.method == "user"
    assert np.allclose(found["L4-L5"], spine.centers["L5-S1"])


def test_six_lumbar_vertebrae_of_the_user():
    levels = label_spine(MadeSpine(), LevelSettings(lumbar_count=6))
    assert "L6" in {v.name for v in levels.vertebrae}
    assert levels.numbering.lumbar_count == 6


@pytest.mark.parametrize("text", ["L4-L5", "L4-L5@1,2", "L4-L5@a,b,c", "L4-L6@1,2,3", "@1,2,3"])
def test_malformed_anchor_is_refused(text):
    with pytest.raises(SettingsError):
        parse_anchor(text)


def test_anchor_far_from_every_disc_is_refused():
    with pytest.raises(SettingsError, match="anchor"):
        label_spine(MadeSpine(), LevelSettings(anchor="L4-L5@0,200,0"))


def test_a_false_disc_is_skipped_if_the_conus_then_lies_at_its_usual_level():
    """Candidates of a phantom; the last but one is a facet joint, 26 mm left of the canal."""
    rows = [  # left, posterior, cranial mm; score; depth mm; tilt degrees; mm of field below
        (-4, 8, 120, 0.94, 30, 5, 309),
        (-4, 10, 88, 0.95, 30, 4, 276),
        (-3, 12, 56, 0.96, 31, 4, 246),
        (-3, 15, 20, 0.96, 31, 6, 210),
        (-3, 21, -15, 0.96, 32, 9, 177),
        (-3, 29, -50, 0.97, 33, 17, 141),
        (26, 36, -65, 0.79, 22, 23, 126),
        (-1, 44, -83, 0.94, 31, 26, 111),
    ]
    candidates = [
        Candidate(
            center_lps=np.array([left, back, up], float),
            normal_lps=np.array([0.0, -np.sin(np.radians(tilt)), np.cos(np.radians(tilt))]),
            score=score,
            tilt_deg=tilt,
            depth_mm=depth,
            bone_above=1.0,
            bone_below=0.0 if n == len(rows) - 1 else 1.0,
            sacrum_above=0.0,
            sacrum_below=1.0 if n == len(rows) - 1 else 0.0,
            reach_above_mm=333.0 - below,
            reach_below_mm=below,
            sacral_fraction_above=0.0,
            sacral_fraction_below=1.0 if n == len(rows) - 1 else 0.0,
        )
        for n, (left, back, up, score, depth, tilt, below) in enumerate(rows)
    ]
    conus = Conus(1, 11.8, np.array([-4.0, 37.0, 79.0]))
    chosen = choose_numbering(candidates, LevelSettings(), conus)
    assert chosen is not None
    assert 6 not in chosen.assignment.candidates
    assert chosen.assignment.chain.discs[chosen.assignment.discs[0]] == "T11-T12"
    assert chosen.assignment.shifted[0] == max(chosen.assignment.shifted.values())
