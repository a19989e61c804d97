from __future__ import annotations

import numpy as np
import pytest

from leakloc.validation.simulation.truth import SegmentAxis, true_values


def test_segments_run_from_mid_vertebra_to_mid_vertebra():
    axis = SegmentAxis({"L5-S1": 90.0, "L4-L5": 60.0, "L3-L4": 20.0})
    assert axis.names == ("L2-L3", "L3-L4", "L4-L5", "L5-S1", "S1-S2")
    at = {1.0: "L3-L4", -1.0: "L2-L3", 39.0: "L3-L4", 41.0: "L4-L5", 76.0: "L5-S1", 106.0: "S1-S2"}
    assert {arc: axis.at(arc) for arc in at} == at


@pytest.mark.parametrize(("spacing", "slices"), [(1.0, 1.0), (1.0, 4.0), (2.0, 3.0)])
def test_collection_is_measured_whatever_the_voxels(made_simulation, spacing, slices):
    study = made_simulation(spacing_mm=spacing, slice_mm=slices)
    [collection] = true_values(study)["collections"]
    # 50 to 74 mm: the middle of L3 is at 75, that of L4 at 45.
    assert (collection["level"], collection["segments"]) == ("L3-L4", ["L3-L4"])
    assert collection["position"] == "dorsal"
    in_plane = (study.fluid.array.sum(axis=(1, 2)).max()) * spacing**2
    assert collection["volume_ml"] == pytest.approx(24 * in_plane / 1000, rel=1e-3)
    assert collection["cranial_lps"][2] == pytest.approx(73.5, abs=slices / 2 + 0.5)
    assert collection["caudal_lps"][2] == pytest.approx(50.5, abs=slices / 2 + 0.5)
    assert collection["cranial_lps"][1] == pytest.approx(12, abs=1.5)


@pytest.mark.parametrize(
    ("taken", "position"), [(360, "circumferential"), (290, "circumferential"), (200, "dorsal")]
)
def test_layer_surrounds_the_sac_only_where_bone_leaves_room(made_simulation, taken, position):
    study = made_simulation()
    study.positions[1] = "circumferential"
    grid = study.myelogram.geometry
    points = grid.lps_from_kji(np.stack(np.indices(grid.shape), -1).reshape(-1, 3))
    _, left, dorsal = study.centerline.project(points)
    around, angle = np.hypot(left, dorsal), np.arctan2(left, dorsal)  # from the back
    ring = (around > 8) & (around < 11) & (np.abs(angle) <= np.deg2rad(taken / 2))
    ring &= (points[:, 2] > 20) & (points[:, 2] < 80)
    for volume in (study.fluid, study.fluid_fraction):
        volume.array[:] = ring.reshape(grid.shape)
    [collection] = true_values(study)["collections"]
    assert collection["position"] == position


def test_level_is_that_of_the_largest_cross_section(made_simulation):
    study = made_simulation()
    z = study.myelogram.geometry.lps_from_kji([[k, 0, 0] for k in range(150)])[:, 2]
    # A thin tail down to L5-S1 moves the middle of the fluid, not its level.
    tail = (z > -10) & (z < 50)
    study.fluid_fraction.array[tail, 36:38, 10:20] = 1
    study.fluid.array[tail, 36:38, 10:20] = 1
    [collection] = true_values(study)["collections"]
    assert collection["level"] == "L3-L4"
    assert collection["segments"] == ["L3-L4", "L4-L5", "L5-S1"]


def test_only_discs_within_the_field_are_true_discs(made_simulation):
    study = made_simulation()
    study.discs["T12-L1"] = np.array([0.0, -20, 150])
    names = [disc["name"] for disc in true_values(study)["discs"]]
    assert names == ["L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]


def test_two_collections_divide_the_fluid(made_simulation, annotation_of):
    study = made_simulation()
    study.positions[2] = "ventral"
    study.fluid_fraction.array[30:40, 5:10, 10:20] = 0.9
    study.fluid.array[30:40, 5:10, 10:20] = 2
    study.fluid_fraction.array[30:40, 4, 10:20] = 0.3  # belongs to the nearest one
    annotation = annotation_of(study)
    assert [c.position for c in annotation.collections] == ["dorsal", "ventral"]
    assert annotation.collections[1].volume_ml == pytest.approx(0.9 * 0.5 + 0.3 * 0.1, abs=1e-3)
    assert annotation.fluid_ml == pytest.approx(
        sum(c.volume_ml for c in annotation.collections), rel=1e-4
    )


def test_a_study_without_a_leak_holds_no_collection(made_simulation, annotation_of):
    annotation = annotation_of(made_simulation("no_leak"))
    assert (annotation.leak, annotation.collections, annotation.fluid_ml) == ("absent", (), 0.0)
    assert annotation.case == "no_leak_107_100"
    assert list(annotation.discs) == ["L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]
