"""Roots and sides of perineural cysts and root sleeve diverticula on an analytic spine."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.localization import localize
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.segmentation.result import RoundStructure
from tests.localization.conftest import Spine


def located(spine, *points):
    """Diverticula at points (arc, left, dorsal), of 8, 7, ... mm."""
    structures = tuple(
        RoundStructure(spine.points(*point), 8.0 - n, 0.1, 2.0) for n, point in enumerate(points)
    )
    segmentation = replace(spine.segmentation(), round_structures=structures)
    levels = spine.levels(segmentation.collections.geometry)
    return localize(segmentation, levels, spine.settings).finding.root_diverticula


def test_root_and_side():
    spine = Spine(radius_mm=250.0)
    found = located(
        spine,
        (spine.disc_mm("L4-L5") - 6, 14.0, -2.0),
        (spine.body_mm("L2") + 2, -13.0, -1.0),
        (spine.body_mm("S2") + 2, -5.0, 0.0),
    )
    assert [(d.root, d.side) for d in found] == [("L4", "left"), ("L2", "right"), ("S2", "right")]
    assert [d.max_diameter_mm for d in found] == [8, 7, 6]
    center = spine.points(spine.disc_mm("L4-L5") - 6, 14.0, -2.0)
    assert found[0].center_lps_mm == pytest.approx(tuple(center), abs=0.01)


def test_no_root_is_named_without_levels():
    (found,) = located(Spine(status="unlabelled"), (100.0, 14.0, 0.0))
    assert (found.root, found.side) == (None, "left")


def test_none_found_differs_from_not_assessed():
    assert located(Spine()) == ()
    assert Spine().localized().finding.root_diverticula is None


@pytest.mark.parametrize(
    ("level", "root"),
    [(1.5, "C6"), (1.9, "C6"), (3.5, "C8"), (4.2, "T1"), (4.6, "T2"), (2.3, "C7")],
)
def test_cervical_roots_exit_cranial_to_their_vertebra(level, root):
    chain = ("C4", "C5", "C6", "C7", "T1", "T2")
    coordinate = LevelCoordinate(chain, 20.0 * np.arange(6), np.arange(6.0))
    assert coordinate.root_at(20.0 * level) == root
