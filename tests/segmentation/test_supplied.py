"""Masks drawn elsewhere in the place of what the segmenter finds."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.spine import Spine
from leakloc.core.errors import AnalysisError, InputError
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation import Candidate, Segmentation, SuppliedMasks

SETTINGS = SegmentationSettings()
GRID = Geometry.from_axes((100, 60, 60), origin_lps=(-30, -30, -50), spacing_ijk_mm=(1, 1, 1))
Z, Y, X = np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij")
SAC = (np.hypot(Y - 30, X - 30) < 7).astype(np.uint8)
DORSAL = ((Y > 37) & (Y < 43) & (abs(X - 30) < 6) & (Z > 40) & (Z < 60)).astype(np.uint8)
LEFT = ((X > 38) & (X < 44) & (abs(Y - 30) < 4) & (Z > 45) & (Z < 55)).astype(np.uint8)
FAR = ((Y > 37) & (Y < 43) & (abs(X - 30) < 6) & (Z > 5) & (Z < 15)).astype(np.uint8)
SIGNAL = (1000.0 * np.maximum.reduce([SAC, DORSAL, LEFT, FAR]) + 20.0).astype(np.float32)
MYELOGRAM = Volume(SIGNAL, GRID)


def found(collections=DORSAL) -> Segmentation:
    line = Centerline(np.stack([np.zeros(100), np.zeros(100), np.arange(49.0, -51, -1)], axis=1))
    candidates = []
    for number in range(1, int(collections.max()) + 1):
        voxels = np.argwhere(collections == number)
        candidates.append(
            Candidate(
                number, True, 0.9, len(voxels) / 1000, GRID.lps_from_kji(voxels.mean(axis=0)),
                "bright", ("epidural fat",), ("epidural",), {},
            )
        )  # fmt: skip
    return Segmentation(
        Volume(np.clip(SIGNAL / 1000, 0, 1), GRID), line, Volume(SAC, GRID),
        Volume(collections, GRID), tuple(candidates), True, 1000.0, 10.0,
    )  # fmt: skip


def base(spine, companions, settings) -> Segmentation:
    return found()


def blind(spine, companions, settings) -> Segmentation:
    raise AnalysisError("no canal")


def given(sac=None, fluid=None, segmenter=base, **options) -> Segmentation:
    masks = [None if m is None else Volume(m.astype(np.uint8), GRID) for m in (sac, fluid)]
    return SuppliedMasks(*masks, segmenter, **options)(Spine(MYELOGRAM), {}, SETTINGS)


def codes(result: Segmentation) -> list[str]:
    return [note.code for note in result.notes]


def test_supplied_fluid_replaces_segmented_fluid_with_a_note():
    result = given(fluid=FAR)
    assert codes(result) == ["fluid_given"]
    np.testing.assert_array_equal(result.collections.array, FAR)
    (drawn,) = result.accepted
    assert drawn.volume_ml == pytest.approx(FAR.sum() / 1000)
    assert drawn.compartments == ("epidural",)
    left_out = [c for c in result.candidates if not c.accepted]
    assert "not part of the supplied fluid mask" in left_out[0].reason


def test_one_label_is_split_and_several_are_retained():
    both = np.maximum(DORSAL, FAR)
    result = given(fluid=both)
    assert [c.id for c in result.accepted] == [1, 2]
    assert result.accepted[0].volume_ml >= result.accepted[1].volume_ml
    labelled = np.where(DORSAL, 9, 0) + np.where(FAR, 4, 0)
    result = given(fluid=labelled)
    assert (result.collections.array == 1).sum() == DORSAL.sum()
    assert (result.collections.array == 2).sum() == FAR.sum()


def test_components_on_one_side_are_one_collection_and_on_two_sides_two():
    upper, lower = DORSAL * (Z > 52), DORSAL * (Z < 49)
    assert len(given(fluid=upper + lower).accepted) == 1
    assert len(given(fluid=DORSAL + LEFT).accepted) == 2


def test_an_empty_fluid_mask_says_there_is_none():
    result = given(fluid=np.zeros(GRID.shape))
    assert result.accepted == ()
    assert not result.collections.array.any()


def test_fluid_drawn_on_dim_signal_counts_whole_voxels_with_a_note():
    dim = ((Y > 45) & (Y < 50) & (abs(X - 30) < 6) & (Z > 40) & (Z < 60)).astype(np.uint8)
    result = given(fluid=dim)
    assert "given_fluid_dim" in codes(result)
    assert result.accepted[0].volume_ml == pytest.approx(dim.sum() / 1000)


def test_fluid_wins_where_both_masks_claim_a_voxel():
    wide = (np.hypot(Y - 30, X - 30) < 9).astype(np.uint8)
    result = given(sac=wide, fluid=DORSAL)
    assert "masks_overlap" in codes(result)
    assert not (result.thecal_sac.array & (result.collections.array > 0)).any()


def test_supplied_sac_removes_enclosed_collections():
    whole = np.maximum(SAC, DORSAL)
    result = given(sac=whole)
    assert result.accepted == ()
    assert "inside the supplied sac" in result.candidates[0].reason
    np.testing.assert_array_equal(result.thecal_sac.array, whole)


def test_supplied_sac_truncates_partly_enclosed_collections():
    result = given(sac=np.maximum(SAC, DORSAL * (Z < 50)))
    (left,) = result.accepted
    assert left.volume_ml == pytest.approx((DORSAL * (Z >= 50)).sum() / 1000)
    assert left.center_lps[2] > 3


def test_the_centerline_follows_a_sac_lateral_to_the_traced_canal():
    moved = np.roll(SAC, 9, axis=2)
    result = given(sac=moved)
    inner = result.centerline.points_lps[20:-20]
    np.testing.assert_allclose(inner[:, 0], 9.0, atol=0.5)
    assert "sac_mask_dim" not in codes(given(sac=SAC))
    assert "sac_mask_dim" in codes(given(sac=np.roll(SAC, 20, axis=2)))


def test_which_label_is_the_sac_must_be_said():
    labels = np.where(SAC, 3, 0) + np.where(FAR, 5, 0)
    with pytest.raises(InputError, match="--sac-label"):
        given(sac=labels)
    with pytest.raises(InputError, match="no label 7"):
        given(sac=labels, sac_label=7)
    np.testing.assert_array_equal(given(sac=labels, sac_label=3).thecal_sac.array, SAC)


def test_both_masks_do_where_no_canal_is_found():
    result = given(sac=SAC, fluid=DORSAL, segmenter=blind)
    assert codes(result)[0] == "canal_not_found"
    assert result.accepted[0].volume_ml == pytest.approx(DORSAL.sum() / 1000, rel=0.03)
    np.testing.assert_allclose(result.centerline.points_lps[:, :2], 0.0, atol=0.6)
    assert result.centerline.points_lps[0, 2] > result.centerline.points_lps[-1, 2]
    with pytest.raises(AnalysisError):
        given(fluid=DORSAL, segmenter=blind)


def test_fluid_mask_supplied_as_sac_is_refused():
    with pytest.raises(AnalysisError, match="fluid mask supplied instead"):
        given(sac=FAR, fluid=DORSAL, segmenter=blind)


def test_a_label_map_of_other_structures_is_not_fluid():
    labelled = np.where(SAC, 1, 0) + np.where(DORSAL, 2, 0)
    with pytest.raises(InputError, match=r"labels \(1, 2\), of which 1 are not .*--fluid-label"):
        given(fluid=labelled)
    vertebra = (Y < 20) & (Z > 40)
    with pytest.raises(InputError, match="of which 5 are not"):
        given(fluid=np.where(DORSAL, 2, 0) + np.where(vertebra, 5, 0))
    assert len(given(fluid=labelled, is_fluid_selected=True).accepted) == 2
