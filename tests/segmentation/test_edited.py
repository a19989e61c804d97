"""Voxels painted and erased by a reader."""

from __future__ import annotations

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import InputError
from leakloc.core.settings import SegmentationSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.segmentation import Candidate, Segmentation
from leakloc.segmentation.edited import edit_fluid

GRID = Geometry.from_axes((100, 60, 60), origin_lps=(-30, -30, -50), spacing_ijk_mm=(1, 1, 1))
Z, Y, X = np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij")
SAC = np.hypot(Y - 30, X - 30) < 7
FLUID = (Y > 37) & (Y < 43) & (abs(X - 30) < 6) & (Z > 40) & (Z < 60)
NONE = np.zeros(GRID.shape, bool)


def box(k: tuple[int, int], j: tuple[int, int], i: tuple[int, int]) -> np.ndarray:
    mask = NONE.copy()
    mask[slice(*k), slice(*j), slice(*i)] = True
    return mask


@pytest.fixture
def found() -> Segmentation:
    line = Centerline(np.stack([np.zeros(100), np.zeros(100), np.arange(49.0, -51, -1)], axis=1))
    center = GRID.lps_from_kji(np.argwhere(FLUID).mean(axis=0))
    return Segmentation(
        Volume((SAC | FLUID).astype(np.float32), GRID),
        line,
        Volume(SAC.astype(np.uint8), GRID),
        Volume(FLUID.astype(np.uint8), GRID),
        (Candidate(1, True, 0.9, FLUID.sum() / 1000, center, "Bright.", (), ("epidural",)),),
        True,
        1000.0,
        10.0,
    )


def edit(found: Segmentation, painted=NONE, erased=NONE, original=None) -> Segmentation:
    first_id = int(found.collections.array.max()) + 1
    return edit_fluid(
        found,
        painted,
        erased,
        SegmentationSettings(),
        original=original or found,
        first_id=first_id,
    )


def test_painted_voxels_are_added_to_the_collection_they_touch(found):
    painted = box((60, 65), (38, 43), (25, 36))
    result = edit(found, painted)
    np.testing.assert_array_equal(result.collections.array, FLUID | painted)
    (candidate,) = result.accepted
    assert candidate.volume_ml == pytest.approx((FLUID | painted).sum() / 1000)
    assert candidate.center_lps[2] > found.accepted[0].center_lps[2]
    assert candidate.reason == "Mask edited by the reader. Before: Bright."
    assert candidate.probability == 0.9


def test_painted_voxels_apart_from_all_are_new_collections(found):
    near = box((10, 15), (38, 43), (25, 36))
    gap = box((16, 20), (38, 43), (25, 36))  # one collection: close, on the same side
    ventral = box((80, 90), (17, 22), (25, 36))
    result = edit(found, near | gap | ventral)
    assert [c.id for c in result.accepted] == [1, 2, 3]
    assert set(result.collections.array[near | gap]) == {2}
    assert set(result.collections.array[ventral]) == {3}
    assert result.accepted[1].reason == "Painted by the reader."
    assert result.accepted[0] is found.accepted[0]


def test_the_larger_contact_decides_between_two_collections(found):
    other = edit(found, box((70, 75), (38, 43), (25, 36)))
    bridge = box((59, 70), (38, 40), (28, 30))
    result = edit(other, bridge)
    added = bridge & ~FLUID
    assert len(set(result.collections.array[added])) == 1
    wide = box((60, 70), (38, 39), (30, 31)) | box((69, 70), (38, 43), (25, 36))
    assert set(edit(other, wide).collections.array[wide]) == {2}


def test_painted_voxels_of_the_sac_become_fluid_and_return_when_erased(found):
    inside = box((48, 52), (34, 37), (29, 32))
    assert SAC[inside].all()
    painted = edit(found, inside | box((48, 52), (37, 38), (29, 32)))
    assert not painted.thecal_sac.array[inside].any()
    assert (painted.collections.array[inside] == 1).all()
    back = edit(painted, erased=inside, original=found)
    np.testing.assert_array_equal(back.thecal_sac.array, SAC)
    assert (back.fluid_fraction.array[inside] == 1).all()


def test_erased_voxels_are_removed(found):
    upper = box((50, 100), (0, 60), (0, 60))
    result = edit(found, erased=upper)
    np.testing.assert_array_equal(result.collections.array > 0, FLUID & ~upper)
    assert result.accepted[0].volume_ml == pytest.approx((FLUID & ~upper).sum() / 1000)
    np.testing.assert_array_equal(result.thecal_sac.array, SAC)  # only fluid is erased


def test_a_collection_erased_completely_is_listed_as_rejected(found):
    result = edit(found, erased=FLUID)
    assert not result.accepted and not result.collections.array.any()
    assert result.candidates[0].reason == "Erased by the reader."


def test_too_many_separate_parts_are_refused(found):
    speckle = (X % 2 == 0) & (Y % 2 == 0) & (Z % 2 == 0) & ~FLUID
    with pytest.raises(InputError, match="separate parts are painted; the maximum is 1000"):
        edit(found, speckle)
