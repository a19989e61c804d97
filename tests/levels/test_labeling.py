from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import LABEL_VALUES, split_segment
from leakloc.core.errors import AnalysisError, SettingsError
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.detection import Detections
from leakloc.levels.labeling import label, parse_anchor
from tests.levels.spines import AHEAD_MM, MadeSpine, blind_segmentation

SETTINGS = LevelSettings()


def labelled(spine, settings=SETTINGS, companions=None, myelogram=None):
    return label(
        myelogram or spine.volume,
        companions or {},
        spine.segmentation,
        settings,
        detector=spine.detect,
    )


def test_names_bodies_and_discs_of_a_lumbar_spine():
    spine = MadeSpine()
    levels = labelled(spine)
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


def test_a_disc_between_bones_is_found_despite_a_wrong_canal_centerline():
    class Misled(MadeSpine):
        """The trace of the canal leaves it below L4-L5 and runs in front of the discs."""

        @property
        def centerline(self) -> Centerline:
            points = super().centerline.points_lps.copy()
            below = points[:, 2] < self.centers["L4-L5"][2] - 10.0
            points[below, 1] -= AHEAD_MM + 25.0
            return Centerline(points)

    spine = Misled()
    found = {d.name: d.center_lps for d in labelled(spine).discs}
    assert np.linalg.norm(found["L5-S1"] - spine.centers["L5-S1"]) < 1.0
    assert np.linalg.norm(found["L4-L5"] - spine.centers["L4-L5"]) < 1.0


def test_chain_is_gap_free_and_runs_down():
    spine = MadeSpine(missed=("L2-L3",))
    levels = labelled(spine)
    names = [v.name for v in levels.vertebrae]
    assert len(set(names)) == len(names)
    for upper, lower in zip(levels.discs[:-1], levels.discs[1:], strict=True):
        assert split_segment(upper.name)[1] == split_segment(lower.name)[0]
    heights = [v.center_lps[2] for v in levels.vertebrae]
    assert (np.diff(heights) < 0).all()
    missed = next(d for d in levels.discs if d.name == "L2-L3")
    assert missed.confidence < min(d.confidence for d in levels.discs if d.name == "L3-L4")


def test_every_center_lies_in_its_own_label():
    levels = labelled(MadeSpine())
    assert levels.mask.array.dtype == np.uint8
    for vertebra in levels.vertebrae:
        k, j, i = np.round(levels.mask.geometry.kji_from_lps(vertebra.center_lps)).astype(int)
        assert levels.mask.array[k, j, i] == LABEL_VALUES[vertebra.name]
    l3 = (levels.mask.array == LABEL_VALUES["L3"]).sum() * 27 / 1000
    assert 20 < l3 < 90  # millilitres; a real L3 has about 45


def test_both_adjacent_numberings_are_reported():
    numbering = labelled(MadeSpine()).numbering
    assert {a.shift for a in numbering.alternatives} == {-1, 1}
    assert all(0 < a.confidence < 1 and a.reason for a in numbering.alternatives)
    assert numbering.confidence + sum(a.confidence for a in numbering.alternatives) <= 1.0
    assert 0.4 < numbering.confidence <= SETTINGS.assumed_confidence


def test_a_field_that_ends_in_the_sacrum_is_not_trusted():
    whole = labelled(MadeSpine(last="L5-S1", margin_mm=35.0))
    cut = labelled(MadeSpine(last="L5-S1", margin_mm=18.0))
    assert "sacrum_cut" not in {n.code for n in whole.notes}
    assert "sacrum_cut" in {n.code for n in cut.notes}
    assert cut.numbering.confidence < 0.5 < whole.numbering.confidence


@pytest.mark.parametrize(("fractions", "competitors"), [((0.01,), 1), ((0.05, 0.12), 2)])
def test_count_from_c2_that_skips_high_scores_has_low_confidence(fractions, competitors):
    whole = MadeSpine(first="C2-C3", last="S1-S2")
    faint = MadeSpine(first="C2-C3", last="S1-S2", false_at=fractions)
    high = MadeSpine(first="C2-C3", last="S1-S2", false_at=fractions, false_score=0.8)
    clean = labelled(whole)
    assert clean.numbering.method == "c2_count"
    assert clean.numbering.confidence > 0.9
    assert labelled(faint).numbering.confidence > 0.8
    lowered = labelled(high)
    assert [n for n in lowered.notes if n.code == "doubtful_count"]
    assert lowered.numbering.confidence <= SETTINGS.counted_confidence * 0.6**competitors
    assert "doubtful_count" not in {n.code for n in (*clean.notes, *labelled(faint).notes)}


def test_one_high_score_above_c2_c3_is_usual():
    spine = MadeSpine(first="C2-C3", last="S1-S2", false_at=(-0.03,), false_score=0.8)
    levels = labelled(spine)
    assert "doubtful_count" not in {n.code for n in levels.notes}
    assert levels.numbering.confidence > 0.8


def test_usual_conus_supports_five_lumbar_vertebrae():
    hidden = labelled(MadeSpine()).numbering
    usual = labelled(MadeSpine(cord_ends_at=("L1-L2", -12.0))).numbering
    assert usual.confidence > hidden.confidence
    assert "not visible" in hidden.assumption and "usual" in usual.assumption
    assert not usual.transitional_suspected


@pytest.mark.parametrize(("disc", "reported"), [("T12-L1", True), ("L4-L5", False)])
def test_implausible_conus_is_not_reported(disc, reported):
    levels = labelled(MadeSpine(cord_ends_at=(disc, 8.0)))
    assert levels.seen.conus is not None
    assert (levels.cord_end_lps is not None) == reported


@pytest.mark.parametrize(
    ("disc", "below_mm", "shift", "word"),
    [("T11-T12", 8.0, 1, "higher"), ("L2-L3", 0.0, -1, "lower")],
)
def test_unusual_conus_lowers_confidence(disc, below_mm, shift, word):
    levels = labelled(MadeSpine(cord_ends_at=(disc, below_mm)))
    numbering = levels.numbering
    assert numbering.transitional_suspected
    assert "transitional_suspected" in {n.code for n in levels.notes}
    assert numbering.lumbar_count == 5  # reported, not renamed: the landmark is weak
    likely = max(numbering.alternatives, key=lambda a: a.confidence)
    assert likely.shift == shift and word in likely.reason
    assert numbering.confidence < labelled(MadeSpine()).numbering.confidence


def test_conus_is_ignored_if_the_user_sets_the_numbering():
    spine = MadeSpine(cord_ends_at=("T11-T12", 8.0))
    numbering = labelled(spine, LevelSettings(lumbar_count=5)).numbering
    assert numbering.confidence == 1.0 and not numbering.transitional_suspected


def test_without_sacrum_and_c2_levels_are_partial_with_low_confidence():
    levels = labelled(MadeSpine(first="T9-T10", last="L2-L3"))
    assert levels.status == "partial"
    assert levels.numbering.confidence < 0.4
    assert "no_anchor" in {n.code for n in levels.notes}


def test_anchor_of_the_user_decides():
    spine = MadeSpine()
    x, y, z = spine.centers["L3-L4"]
    levels = labelled(spine, LevelSettings(anchor=f"L4-L5@{x},{y + 4},{z}"))
    assert levels.numbering.method == "user"
    found = {d.name: d.center_lps for d in levels.discs}
    assert np.allclose(found["L4-L5"], spine.centers["L3-L4"])


@pytest.mark.parametrize("count", [4, 5, 6])
@pytest.mark.parametrize("anchor", ["T12-L1", "T11-T12"])
def test_an_anchor_above_the_lumbar_spine_lets_its_vertebrae_be_counted(anchor, count):
    spine = MadeSpine(first="T9-T10", lumbar_count=count)
    x, y, z = spine.centers[anchor]
    levels = labelled(spine, LevelSettings(anchor=f"{anchor}@{x},{y},{z}"))
    assert levels.numbering.lumbar_count == count
    found = {d.name: d.center_lps for d in levels.discs}
    for name, center in spine.centers.items():
        if not name.startswith("S"):
            assert np.allclose(found[name], center), name


def test_lowest_disc_of_the_user_decides():
    spine = MadeSpine()
    levels = labelled(spine, LevelSettings(lowest_disc="L4-L5"))
    found = {d.name: d.center_lps for d in levels.discs}
    assert levels.numbering.method == "user"
    assert np.allclose(found["L4-L5"], spine.centers["L5-S1"])


def test_six_lumbar_vertebrae_of_the_user():
    levels = labelled(MadeSpine(), LevelSettings(lumbar_count=6))
    assert "L6" in {v.name for v in levels.vertebrae}
    assert levels.numbering.lumbar_count == 6


@pytest.mark.parametrize("text", ["L4-L5", "L4-L5@1,2", "L4-L5@a,b,c", "L4-L6@1,2,3", "@1,2,3"])
def test_malformed_anchor_is_refused(text):
    with pytest.raises(SettingsError):
        parse_anchor(text)


def test_anchor_far_from_every_disc_is_refused():
    with pytest.raises(SettingsError, match="anchor"):
        labelled(MadeSpine(), LevelSettings(anchor="L4-L5@0,200,0"))


def test_nothing_found_is_reported():
    spine = MadeSpine()
    levels = label(
        spine.volume,
        {},
        spine.segmentation,
        SETTINGS,
        detector=lambda *_: Detections((), None, "blind"),
    )
    assert levels.status == "unlabelled" and levels.vertebrae == ()
    assert not levels.mask.array.any()
    assert levels.numbering.confidence == 0.0


def test_companion_of_another_frame_is_left_out():
    spine = MadeSpine()
    geometry = spine.geometry
    here = Geometry(geometry.shape, geometry.affine_lps, "1.2.3")
    there = Geometry(geometry.shape, geometry.affine_lps, "1.2.4")
    searched = []
    detect = spine.detect

    def spy(image, centerline, settings):
        searched.append(image)
        return detect(image, centerline, settings)

    spine.detect = spy
    myelogram = Volume(spine.volume.array, here)
    companion = Volume(spine.volume.array, there)
    levels = labelled(spine, companions={"sagittal_t2": companion}, myelogram=myelogram)
    assert searched == [myelogram]
    assert "companion_in_other_frame" in {n.code for n in levels.notes}


def test_detector_without_probabilities_still_gives_a_mask():
    spine = MadeSpine()
    bare = spine.detect

    def detect(image, centerline, settings):
        return Detections(bare(image, centerline, settings).discs, None, "bare")

    spine.detect = detect
    levels = labelled(spine)
    assert levels.vertebrae
    for vertebra in levels.vertebrae:
        assert (levels.mask.array == LABEL_VALUES[vertebra.name]).sum() > 20


def counted_on_localizer(
    lift_mm: float = 0.0, missed: tuple[str, ...] = (), *, empty: bool = False
):
    """A lumbar field, and a localizer of the whole spine that the patient may have moved since."""
    spine = MadeSpine(first="C2-C3", last="S1-S2", lumbar_count=6)
    top = spine.centers["T10-T11"][2] + 15.0
    k = int(spine.geometry.kji_from_lps([0.0, 0.0, top])[0])
    lower = (slice(0, k), slice(None), slice(None))
    myelogram, localizer = spine.volume.crop(lower), spine.volume
    coarse = MadeSpine(first="C2-C3", last="S1-S2", lumbar_count=6, missed=missed)
    for center in coarse.centers.values():
        center += [0.0, 0.0, lift_mm]

    def detect(image, centerline, settings):
        if image is localizer:
            if empty:
                raise AnalysisError("constant")
            return coarse.detect(image, centerline, settings)
        found = spine.detect(image, centerline, settings)
        visible = tuple(d for d in found.discs if d.center_lps[2] < top)
        return replace(
            found, discs=visible, bodies=found.bodies.crop(lower), sacrum=found.sacrum.crop(lower)
        )

    segmentation = blind_segmentation(myelogram, spine.centerline)
    both = label(myelogram, {"localizer": localizer}, segmentation, SETTINGS, detector=detect)
    alone = label(myelogram, {}, segmentation, SETTINGS, detector=detect)
    return spine, both, alone


@pytest.mark.parametrize("lift_mm", [-6.0, 0.0, 6.0])
def test_a_localizer_gives_the_number_of_lumbar_vertebrae(lift_mm):
    spine, both, alone = counted_on_localizer(lift_mm)
    assert (alone.numbering.method, alone.numbering.lumbar_count) == ("sacrum_up", 5)
    assert (both.numbering.method, both.numbering.lumbar_count) == ("c2_count", 6)
    assert "counted_on_localizer" in {n.code for n in both.notes}
    found = {d.name: d.center_lps for d in both.discs}
    for name in ("L1-L2", "L5-L6", "L6-S1"):  # detected on the myelogram
        assert np.linalg.norm(found[name] - spine.centers[name]) < 1.0


def test_an_empty_localizer_changes_nothing():
    _, both, alone = counted_on_localizer(empty=True)
    assert both.numbering == alone.numbering


def test_a_localizer_without_the_neck_leaves_the_count_to_the_sacrum():
    neck = ("C2-C3", "C3-C4", "C4-C5", "C5-C6", "C6-C7", "C7-T1")
    _, both, _ = counted_on_localizer(missed=neck)
    assert both.numbering.method == "sacrum_up"
    assert {"counted_on_localizer", "localizer_without_c2"} & {n.code for n in both.notes} == {
        "localizer_without_c2"
    }
