"""Classification of bright signal outside the dura by location."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from leakloc.segmentation.classification import MIMIC_RULES, name_mimic
from leakloc.segmentation.result import Features

FAT_LAYER = Features(
    volume_ml=1.0,
    length_mm=60.0,
    arc_start_mm=0.0,
    arc_stop_mm=60.0,
    left_mm=0.0,
    dorsal_mm=8.0,
    gap_mm=1.0,
    reach_left_mm=5.0,
    contact_fraction=0.5,
    sectors=2,
    ventral_fraction=0.0,
    dorsal_fraction=1.0,
    lateral_fraction=0.0,
    thickness_mm=5.0,
    roundness=0.5,
    brightness=1.0,
    network=0.1,
    surrounding=0.0,
)
"""A component to which only the last rule applies."""

CASES = [
    # feature values, fat as bright as fluid, rule, mimic, probability, reason
    ({"dorsal_mm": -20.5}, True, 0, "abdominal or disc fluid", 0.02,
     "Anterior to the canal and not connected with it."),
    ({"dorsal_mm": -9.0, "gap_mm": 6.5}, False, 0, "abdominal or disc fluid", 0.02,
     "Anterior to the canal and not connected with it."),
    ({"brightness": 0.4, "gap_mm": 9.0}, True, 1, "epidural fat", 0.1,
     "As bright as fat in this series; not shaped like fluid."),
    ({"brightness": 0.84, "gap_mm": 9.0}, False, 2, "epidural fat", 0.1,
     "Only 84% as bright as CSF."),
    ({"gap_mm": 9.4, "dorsal_mm": 13.0, "left_mm": -12.0}, False, 3,
     "seroma apart from the canal", 0.15,
     "Posterior to the spine, 9 mm from the dura, not connected."),
    ({"gap_mm": 3.6, "dorsal_mm": 13.0, "left_mm": -14.0}, False, 4,
     "facet effusion or synovial cyst", 0.1,
     "Small collection near the facet joints, 4 mm from the dura."),
    ({"gap_mm": 3.6, "dorsal_mm": -4.5}, False, 5, "fluid apart from the canal", 0.05,
     "4 mm from the dura."),
    ({"gap_mm": 3.6, "reach_left_mm": 30.0}, False, 5, "fluid apart from the canal", 0.05,
     "4 mm from the dura."),
    ({"gap_mm": 3.6, "volume_ml": 3.0}, False, 5, "fluid apart from the canal", 0.05,
     "4 mm from the dura."),
    ({"lateral_fraction": 0.61, "length_mm": 44.0, "roundness": 0.73, "thickness_mm": 6.6}, False,
     6, "perineural cyst", 0.2, "Round structure of 7 mm lateral to the sac, on a root."),
    ({"lateral_fraction": 0.61, "length_mm": 44.0, "roundness": 0.73, "thickness_mm": 6.0}, False,
     7, "nerve root sleeve", 0.1, "Lateral outpouching of 1.0 mL at a nerve root exit."),
    ({"lateral_fraction": 0.61, "length_mm": 44.0, "roundness": 0.72, "thickness_mm": 6.6}, False,
     7, "nerve root sleeve", 0.1, "Lateral outpouching of 1.0 mL at a nerve root exit."),
    ({"ventral_fraction": 0.51, "thickness_mm": 3.9}, False, 8, "epidural vein", 0.1,
     "Thin bright signal ventral to the sac, not a layer of fluid."),
    ({"ventral_fraction": 0.51, "thickness_mm": 4.0}, False, 9, "epidural fat", 0.2,
     "Shape and signal are not those of a layer of fluid along the dura."),
    ({"lateral_fraction": 0.6, "length_mm": 44.0}, False, 9, "epidural fat", 0.2,
     "Shape and signal are not those of a layer of fluid along the dura."),
    ({"lateral_fraction": 0.61, "length_mm": 45.0}, False, 9, "epidural fat", 0.2,
     "Shape and signal are not those of a layer of fluid along the dura."),
]  # fmt: skip


@pytest.mark.parametrize(("values", "fat", "rule", "mimic", "probability", "reason"), CASES)
def test_mimics_are_named_by_location(values, fat, rule, mimic, probability, reason):
    features = replace(FAT_LAYER, **values)
    scene = SimpleNamespace(fat_like_fluid=fat)
    applying = [r.applies(features, scene) for r in MIMIC_RULES]
    assert applying.index(True) == rule
    decision = name_mimic(features, scene)
    assert not decision.accepted
    assert (decision.mimics, decision.probability, decision.reason) == (
        (mimic,), probability, reason,
    )  # fmt: skip


def test_every_mimic_rule_has_a_case():
    assert {case[2] for case in CASES} == set(range(len(MIMIC_RULES)))
