import numpy as np

from leakloc.anatomy.spine import Spine
from leakloc.anatomy.vocabulary import LABEL_VALUES, split_segment
from leakloc.core.settings import LevelSettings
from leakloc.levels.detection import Detections
from leakloc.levels.labeling import label
from tests.levels.spines import MadeSpine, label_spine


def test_names_bodies_and_discs_of_a_lumbar_spine():
    spine = MadeSpine()
    levels = label_spine(spine)
    found = {d.name: d.center_lps for d in levels.discs}
    assert levels.status == "labelled"
    assert levels.numbering.method == "sacrum_up"
    assert {n for n in spine.names if not n.startswith("S")} <= set(found)
    for name in spine.names:
        if not name.startswith("S"):
            assert np.linalg.norm(found[name] - spine.centers[name]) < 1.0
    centers = {v.name: v.center_lps for v in levels.vertebrae}
    middle = 0.5 * (spine.centers["L2-L3"] + spine.centers["L3-L4"])
    assert np.linalg.norm(centers["L3"] - middle) < 3.0


def test_chain_is_gap_free_and_runs_down():
    spine = MadeSpine(missed=("L2-L3",))
    levels = label_spine(spine)
    names = [v.name for v in levels.vertebrae]
    assert len(set(names)) == len(names)
    for upper, lower in zip(levels.discs[:-1], levels.discs[1:], strict=True):
        assert split_segment(upper.name)[1] == split_segment(lower.name)[0]
    heights = [v.center_lps[2] for v in levels.vertebrae]
    assert (np.diff(heights) < 0).all()
    missed = next(d for d in levels.discs if d.name == "L2-L3")
    assert missed.confidence < min(d.confidence for d in levels.discs if d.name == "L3-L4")


def test_every_center_lies_in_its_own_label():
    levels = label_spine(MadeSpine())
    assert levels.mask.array.dtype == np.uint8
    for vertebra in levels.vertebrae:
        k, j, i = np.round(levels.mask.geometry.kji_from_lps(vertebra.center_lps)).astype(int)
        assert levels.mask.array[k, j, i] == LABEL_VALUES[vertebra.name]
    l3 = (levels.mask.array == LABEL_VALUES["L3"]).sum() * 27 / 1000
    assert 20 < l3 < 90  # millilitres; a real L3 has about 45


def test_nothing_found_is_reported():
    spine = MadeSpine()
    levels = label(
        Spine(spine.volume),
        {},
        spine.segmentation,
        LevelSettings(),
        detector=lambda *_: Detections((), None, "blind"),
    )
    assert levels.status == "unlabelled" and levels.vertebrae == ()
    assert not levels.mask.array.any()
    assert levels.numbering.confidence == 0.0


def test_detector_without_probabilities_still_gives_a_mask():
    spine = MadeSpine()
    bare = spine.detect

    def detect(image, centerline):
        return Detections(bare(image, centerline).discs, None, "bare")

    spine.detect = detect
    levels = label_spine(spine)
    assert levels.vertebrae
    for vertebra in levels.vertebrae:
        assert (levels.mask.array == LABEL_VALUES[vertebra.name]).sum() > 20
