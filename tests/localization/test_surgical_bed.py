"""Postoperative changes on an analytic spine: known processes, fluid posterior to it, and metal."""

from dataclasses import replace

import numpy as np
import pytest

from leakloc.core.volume import Volume
from leakloc.localization.canal import CANAL_RADIUS_MM
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.localization.surgical_bed import measure_surgical_bed, postoperative_changes
from leakloc.segmentation.result import Candidate

LUMBAR = ("L1", "L2", "L3", "L4", "L5")
SCREW = (18.0, -4.0)
"""Left and dorsal offset of the metal."""


@pytest.fixture(scope="module")
def operated(spine):
    """A spine in lordosis, and the canal coordinates of its voxels."""
    made = spine(radius_mm=250.0, spacing_ijk_mm=(2.0, 1.5, 1.5), half_width_mm=50.0)
    geometry = made.geometry()
    voxels = np.moveaxis(np.indices(geometry.shape), 0, -1)
    return made, made.segmentation(), made.canal(geometry.lps_from_kji(voxels))


def t2_image(operated, *, absent=(), csf=900.0, metal=()):
    """Bodies and processes of signal 300, scar of 120 in place of absent ones."""
    made, segmentation, (arc, left, dorsal) = operated
    image = np.full(arc.shape, 60.0, np.float32)
    image[(np.abs(left) < 24) & (np.abs(dorsal + 26) < 17)] = 300.0
    image[np.hypot(left, dorsal) < 8] = csf
    for name in ("T12", *LUMBAR):
        process = (np.abs(arc - made.body_mm(name) - 3) < 11) & (np.abs(left) < 4)
        process &= (dorsal > 13) & (dorsal < 42)
        image[process] = 120.0 if name in absent else 300.0
    for name in metal:
        at = np.hypot(arc - made.body_mm(name), np.hypot(left - SCREW[0], dorsal - SCREW[1]))
        image[at < 7] = 0.0
    return Volume(image, segmentation.collections.geometry)


def changes(operated, anatomy, segmentation=None, reported=(), levels=None):
    made, plain, _ = operated
    found = plain if segmentation is None else segmentation
    named = made.levels(found.collections.geometry) if levels is None else levels
    coordinate = LevelCoordinate.from_levels(named, found.centerline)
    bed = measure_surgical_bed(found, anatomy)
    return postoperative_changes(bed, coordinate, found.centerline, reported)


def with_pool(operated, radius_mm):
    """A pool of radius 10 mm at 34 mm posterior, connected at L4-L5 by a neck."""
    made, segmentation, (arc, left, dorsal) = operated
    at = made.disc_mm("L4-L5")
    geometry = segmentation.collections.geometry
    layer = (np.abs(arc - at) < 25) & (np.abs(left) < 7) & (dorsal > 8) & (dorsal < 14)
    pool = np.hypot(arc - at, np.hypot(left, dorsal - 34)) < 10
    neck = (np.hypot(arc - at, left) < radius_mm) & (dorsal > 8) & (dorsal < 34)
    fluid = (layer | pool | neck) & (segmentation.thecal_sac.array == 0)
    candidate = Candidate(
        1, True, 0.95, float(fluid.sum()) * geometry.voxel_volume_ml, np.zeros(3), "It is bright.",
        (), ("epidural", "paraspinal"), {},
    )  # fmt: skip
    fraction = np.maximum(segmentation.fluid_fraction.array, fluid.astype(np.float32))
    return replace(
        segmentation,
        collections=Volume(fluid.astype(np.uint8), geometry),
        fluid_fraction=Volume(fraction, geometry),
        candidates=(candidate,),
    )


@pytest.mark.parametrize("absent", [(), ("L4",), ("L2", "L3")])
def test_absent_spinous_processes_are_named(operated, absent):
    found = changes(operated, t2_image(operated, absent=absent))
    assert found.arches_assessed
    assert tuple(arch.vertebra for arch in found.arches if arch.present is False) == absent
    assert {arch.vertebra for arch in found.arches if arch.present} >= set(LUMBAR) - set(absent)
    assert all(arch.confidence >= 0.7 for arch in found.arches if arch.present is not None)


def test_fluid_in_place_of_a_process_is_not_bone_marrow(operated):
    image = t2_image(operated, absent=("L4",))
    segmentation = with_pool(operated, 4.0)
    fluid = image.with_array(np.where(segmentation.collections.array > 0, 900.0, image.array))
    found = changes(operated, fluid, segmentation)
    assert [arch.vertebra for arch in found.arches if arch.present is False] == ["L4"]


def test_arches_and_metal_are_not_assessed_without_t2(operated):
    for anatomy in (None, t2_image(operated, absent=("L4",), csf=50.0)):
        found = changes(operated, anatomy)
        assert not found.arches_assessed
        assert not found.metal_assessed
        assert found.arches == found.metal == ()


def test_arches_are_not_named_without_levels(operated, spine):
    levels = replace(operated[0], status="unlabelled").levels()
    found = changes(operated, t2_image(operated, absent=("L4",)), levels=levels)
    assert not found.arches_assessed
    assert found.arches == ()


def test_process_outside_the_image_is_indeterminate(operated):
    image = t2_image(operated)
    _, _, (_, _, dorsal) = operated
    j = int(np.argmax((dorsal > 28).any(axis=(0, 2))))
    found = changes(operated, image.crop((slice(None), slice(0, j), slice(None))))
    assert found.arches
    assert all(arch.present is None and arch.confidence == 0 for arch in found.arches)


@pytest.mark.parametrize("radius_mm", [3.0, 5.0])
def test_neck_and_posterior_end(operated, radius_mm):
    segmentation = with_pool(operated, radius_mm)
    (found,) = changes(operated, None, segmentation, segmentation.accepted).extensions
    assert (found.collection, found.compartment) == (1, "paraspinal")
    assert found.neck_level == found.end_level == "L4-L5"
    assert found.neck_width_mm == pytest.approx(2 * radius_mm, abs=1.5)
    assert found.canal_distance_mm == pytest.approx(44 - CANAL_RADIUS_MM, abs=2)
    assert found.skin_distance_mm is None


def test_no_neck_without_a_narrowing(operated):
    segmentation = with_pool(operated, 10.0)
    (found,) = changes(operated, None, segmentation, segmentation.accepted).extensions
    assert found.neck_width_mm is None
    assert found.neck_level is None


def test_extension_of_a_removed_collection_is_not_reported(operated):
    assert changes(operated, None, with_pool(operated, 4.0)).extensions == ()


def test_extension_belongs_to_its_collection_after_renumbering(operated):
    segmentation = with_pool(operated, 4.0)
    (pool,) = segmentation.accepted
    other = replace(pool, id=1, center_lps=pool.center_lps + 100.0)
    reported = (other, replace(pool, id=2))
    (found,) = changes(operated, None, segmentation, reported).extensions
    assert found.collection == 2


def test_metal_is_located(operated):
    made = operated[0]
    found = changes(operated, t2_image(operated, metal=("L3",))).metal
    assert len(found) == 1
    assert found[0].segments == ("L2-L3", "L3-L4")
    assert found[0].length_mm == pytest.approx(14, abs=5)
    distance = np.hypot(*SCREW) - 7 - CANAL_RADIUS_MM
    assert found[0].canal_distance_mm == pytest.approx(max(distance, 0), abs=2)
    ends = np.array([found[0].cranial_lps_mm, found[0].caudal_lps_mm])
    assert np.linalg.norm(ends.mean(axis=0) - made.points(made.body_mm("L3"))) < 3


def test_no_metal_without_a_void(operated):
    assert changes(operated, t2_image(operated)).metal == ()
