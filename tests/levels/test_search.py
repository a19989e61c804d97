from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import AnatomyOutputs
from leakloc.anatomy.spine import Spine
from leakloc.core.errors import AnalysisError, LeaklocError
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.labeling import label
from tests.levels.spines import (
    AHEAD_MM,
    MadeSpine,
    blind_segmentation,
    draw_spine,
    label_spine,
)


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
    found = {d.name: d.center_lps for d in label_spine(spine).discs}
    assert np.linalg.norm(found["L5-S1"] - spine.centers["L5-S1"]) < 1.0
    assert np.linalg.norm(found["L4-L5"] - spine.centers["L4-L5"]) < 1.0


def test_companion_of_another_frame_is_left_out():
    spine = MadeSpine()
    geometry = spine.geometry
    here = Geometry(geometry.shape, geometry.affine_lps, "1.2.3")
    there = Geometry(geometry.shape, geometry.affine_lps, "1.2.4")
    searched = []
    detect = spine.detect

    def spy(image, centerline):
        searched.append(image)
        return detect(image, centerline)

    spine.detect = spy
    myelogram = Volume(spine.volume.array, here)
    companion = Volume(spine.volume.array, there)
    levels = label_spine(spine, companions={"sagittal_t2": companion}, myelogram=myelogram)
    assert searched == [myelogram]
    assert "companion_in_other_frame" in {n.code for n in levels.notes}


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

    def detect(image, centerline):
        if image is localizer:
            if empty:
                raise AnalysisError("constant")
            return coarse.detect(image, centerline)
        found = spine.detect(image, centerline)
        visible = tuple(d for d in found.discs if d.center_lps[2] < top)
        return replace(
            found, discs=visible, bodies=found.bodies.crop(lower), sacrum=found.sacrum.crop(lower)
        )

    segmentation = blind_segmentation(myelogram, spine.centerline)
    field = Spine(myelogram)
    both = label(field, {"localizer": localizer}, segmentation, LevelSettings(), detector=detect)
    alone = label(field, {}, segmentation, LevelSettings(), detector=detect)
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


def test_the_profile_detector_replaces_a_network_without_weights(monkeypatch):
    spine, image = draw_spine(0.5, 0.2)

    def lost(*_):
        raise LeaklocError("the weights are missing")

    monkeypatch.setattr(AnatomyOutputs, "of", lost)
    segmentation = spine.segmentation
    levels = label(Spine(image), {}, segmentation, LevelSettings())
    assert "detector_failed" in {n.code for n in levels.notes}
    assert levels.vertebrae and levels.numbering.confidence < 0.4
    chosen = label(Spine(image), {}, segmentation, LevelSettings(detector="profile"))
    assert [d.name for d in chosen.discs] == [d.name for d in levels.discs]
    assert "detector_failed" not in {n.code for n in chosen.notes}
