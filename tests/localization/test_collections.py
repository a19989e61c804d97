from __future__ import annotations

import numpy as np
import pytest

GRIDS = [
    {"radius_mm": np.inf, "tilt_deg": (0.0, 0.0), "spacing_ijk_mm": (1.0, 1.0, 1.0)},
    {"radius_mm": 150.0, "tilt_deg": (15.0, 8.0), "spacing_ijk_mm": (0.8, 0.8, 1.1)},
    {"radius_mm": -140.0, "tilt_deg": (-10.0, 5.0), "spacing_ijk_mm": (1.2, 0.8, 0.8)},
]


def only(model, **options):
    (collection,) = model.localized(**options).collections
    return collection


@pytest.mark.parametrize("grid", GRIDS)
def test_a_dorsal_crescent_is_located(spine, crescent, grid):
    peak = spine().disc_mm("L4-L5") + 3.0
    fluid = crescent(peak - 38, peak + 30, 6.0, peak_mm=peak)
    model = spine(crescents=(fluid,), half_width_mm=18.0, field_mm=(90.0, 220.0), **grid)
    found = only(model)
    assert found.level == "L4-L5"
    assert found.segments == ("L3-L4", "L4-L5", "L5-S1")
    assert found.extent.cranial.segment == "L3-L4" and found.extent.caudal.segment == "L5-S1"
    assert model.canal(found.extent.cranial.lps_mm)[0] == pytest.approx(peak - 38, abs=3)
    assert model.canal(found.extent.caudal.lps_mm)[0] == pytest.approx(peak + 30, abs=3)
    # The mask ends where the crescent is thinner than half a voxel, 1.5 mm from its tips.
    assert found.extent.length_mm == pytest.approx(65, abs=2.5)
    assert model.canal(found.epicenter_lps_mm)[0] == pytest.approx(peak, abs=3)
    assert found.position.label == "dorsal"
    assert found.position.dorsal > 0.9
    assert sum(
        getattr(found.position, s) for s in ("dorsal", "ventral", "left", "right")
    ) == pytest.approx(1.0)
    assert found.max_thickness_mm == pytest.approx(6.0, abs=0.6)
    sector = np.deg2rad(80) / 2 * (14.0**2 - 8.0**2)
    assert found.max_area_mm2 == pytest.approx(sector, rel=0.1)
    assert found.pattern == "focal"
    assert found.grade == "definite"


@pytest.mark.parametrize(
    ("toward_deg", "side"), [(0.0, "dorsal"), (90.0, "left"), (180.0, "ventral"), (-90.0, "right")]
)
@pytest.mark.parametrize("tilt_deg", [(0.0, 0.0), (20.0, 15.0)])
def test_sides_come_from_the_patient(spine, crescent, toward_deg, side, tilt_deg):
    fluid = crescent(80.0, 110.0, 4.0, toward_deg=toward_deg, half_angle_deg=30.0)
    model = spine(crescents=(fluid,), tilt_deg=tilt_deg, half_width_mm=15.0, field_mm=(60.0, 130.0))
    found = only(model)
    assert found.position.label == side
    assert getattr(found.position, side) > 0.95


def test_side_does_not_depend_on_the_storage_of_the_grid(spine, crescent):
    from dataclasses import replace

    from leakloc.localization import localize

    fluid = crescent(80.0, 110.0, 4.0, toward_deg=90.0, half_angle_deg=30.0)
    model = spine(crescents=(fluid,), half_width_mm=20.0, field_mm=(40.0, 150.0))
    segmentation = model.segmentation()
    turned = replace(
        segmentation,
        **{
            name: getattr(segmentation, name).oriented("PIR")
            for name in ("fluid_fraction", "thecal_sac", "collections")
        },
    )
    plain = localize(segmentation, model.levels(), model.settings).collections[0]
    other = localize(turned, model.levels(), model.settings).collections[0]
    assert other.position.label == plain.position.label == "left"
    assert other.extent.length_mm == pytest.approx(plain.extent.length_mm, abs=1e-6)
    assert other.max_thickness_mm == pytest.approx(plain.max_thickness_mm, abs=1e-6)
    assert other.centroid_lps_mm == pytest.approx(plain.centroid_lps_mm)


@pytest.mark.parametrize(
    ("half_angle_deg", "length_mm", "expected"),
    [
        (180.0, 40.0, "circumferential"),
        (145.0, 40.0, "circumferential"),
        (110.0, 40.0, "dorsal"),
        (180.0, 12.0, "ring"),
    ],
)
def test_circumferential_needs_angle_and_length(
    spine, crescent, half_angle_deg, length_mm, expected
):
    fluid = crescent(80.0, 80.0 + length_mm, 2.5, half_angle_deg=half_angle_deg)
    model = spine(crescents=(fluid,), half_width_mm=15.0, field_mm=(60.0, 140.0))
    found = only(model)
    if expected == "ring":  # too short: whatever side has most of it, but not circumferential
        assert found.position.label != "circumferential"
    else:
        assert found.position.label == expected


def test_an_overlap_of_one_voxel_adds_no_segment(spine, crescent, monkeypatch):
    model = spine()
    border = model.body_mm("L4")
    inside = crescent(border + 1.0, border + 25.0, 4.0)
    across = crescent(border - 6.0, border + 25.0, 4.0)
    options = {"half_width_mm": 20.0, "field_mm": (90.0, 230.0)}
    assert only(spine(crescents=(inside,), **options)).segments == ("L4-L5",)
    assert only(spine(crescents=(across,), **options)).segments == ("L3-L4", "L4-L5")
    monkeypatch.setattr("leakloc.localization.collections._MIN_SEGMENT_OVERLAP_MM", 8.0)
    assert only(spine(crescents=(across,), **options)).segments == ("L4-L5",)


def test_a_long_band_is_longitudinal(spine, crescent):
    fluid = crescent(40.0, 190.0, 3.0, toward_deg=180.0, half_angle_deg=50.0)
    found = only(spine(crescents=(fluid,), half_width_mm=15.0))
    assert found.pattern == "longitudinal"
    assert found.position.label == "ventral"
    unnamed = only(spine(crescents=(fluid,), half_width_mm=15.0, status="unlabelled"))
    assert unnamed.pattern == "longitudinal"


def test_bulk_behind_the_canal_is_a_pseudomeningocele(spine, crescent):
    fluid = crescent(
        140.0, 180.0, 26.0, half_angle_deg=35.0, compartments=("epidural", "paraspinal")
    )
    model = spine(crescents=(fluid,), half_width_mm=36.0, field_mm=(90.0, 230.0))
    found = only(model)
    assert found.pattern == "pseudomeningocele"
    assert found.compartments == ("epidural", "paraspinal")
    tame = crescent(140.0, 180.0, 5.0, half_angle_deg=35.0, compartments=("epidural", "paraspinal"))
    assert (
        only(spine(crescents=(tame,), half_width_mm=20.0, field_mm=(90.0, 230.0))).pattern
        == "focal"
    )


def test_fluid_along_a_root_is_periradicular(spine, crescent):
    fluid = crescent(
        150.0, 160.0, 22.0, toward_deg=90.0, half_angle_deg=12.0, compartments=("foraminal",)
    )
    model = spine(crescents=(fluid,), half_width_mm=34.0, field_mm=(90.0, 230.0))
    found = only(model)
    assert found.pattern == "periradicular"
    assert found.position.label == "left"
    assert found.max_thickness_mm < 14  # the width of the tract, not its length


def test_nothing_is_named_when_levels_are_unknown(spine, crescent):
    fluid = crescent(80.0, 110.0, 4.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0, status="unlabelled")
    result = model.localized()
    (found,) = result.collections
    assert found.level is None
    assert found.segments == ()
    assert found.alternatives == ()
    assert found.extent.cranial.segment is None
    assert found.extent.length_mm == pytest.approx(30, abs=2)
    assert result.finding.level is None
    assert result.coverage.cranial is None
    assert result.thecal_sac.caudal_end.level is None
    assert result.planning.targets[0].level is None
    assert result.planning.targets[0].nearest_interlaminar is None
    assert result.planning.targets[0].canal_distance_from_hiatus_mm is None


def test_alternatives_rank_by_evidence_and_numbering(spine, crescent):
    from leakloc.levels.result import AlternativeNumbering

    model = spine()
    low = model.body_mm("L4") + 2.0
    fluid = crescent(low - 30, low + 34, 5.0, peak_mm=low)
    other = (AlternativeNumbering(1, 0.3, "the last mobile segment may be L6"),)
    found = only(
        spine(crescents=(fluid,), alternatives=other, half_width_mm=20.0, field_mm=(60.0, 230.0))
    )
    assert found.level == "L4-L5"
    names = [a.level for a in found.alternatives]
    assert set(names) == {"L3-L4", "L5-S1"}
    scores = [a.score for a in found.alternatives]
    assert scores == sorted(scores, reverse=True)
    numbering = next(a for a in found.alternatives if a.level == "L5-S1")
    assert numbering.score >= 0.3
    assert any("numbered differently" in reason for reason in numbering.basis)
    assert all(a.basis for a in found.alternatives)


def test_a_focal_collection_has_no_far_alternatives(spine, crescent):
    model = spine()
    disc = model.disc_mm("L3-L4")
    fluid = crescent(disc - 9, disc + 9, 4.0)
    found = only(spine(crescents=(fluid,), half_width_mm=20.0, field_mm=(60.0, 200.0)))
    assert found.level == "L3-L4"
    assert found.alternatives == ()


def test_profile_covers_the_extent(spine, crescent):
    fluid = crescent(80.0, 120.0, 5.0, peak_mm=100.0)
    found = only(spine(crescents=(fluid,), half_width_mm=20.0, field_mm=(40.0, 160.0)))
    profile = found.profile
    assert len(profile.arc_mm) == len(profile.area_mm2) == len(profile.thickness_mm)
    assert profile.arc_mm[-1] - profile.arc_mm[0] == pytest.approx(found.extent.length_mm, abs=2.1)
    volume_ml = sum(profile.area_mm2) / 1000
    assert volume_ml == pytest.approx(found.volume_ml, rel=0.05)


def test_weak_evidence_is_stated_or_lowers_the_grade(spine, crescent):
    options = {"half_width_mm": 20.0, "field_mm": (40.0, 160.0)}
    good = crescent(80.0, 110.0, 4.0, probability=0.9)
    doubtful = crescent(80.0, 110.0, 4.0, probability=0.6)
    tiny = crescent(80.0, 84.0, 2.0, probability=0.9, half_angle_deg=20.0)
    fatty = crescent(80.0, 110.0, 4.0, probability=0.9, mimics=("epidural fat",))
    assert only(spine(crescents=(good,), **options)).grade == "definite"
    assert only(spine(crescents=(doubtful,), **options)).grade == "probable"
    small = only(spine(crescents=(tiny,), **options))
    assert any("root sleeve" in sentence for sentence in small.basis)
    noisy = only(spine(crescents=(good,), noise=400.0, **options))
    assert noisy.confidence == small.confidence == 0.9  # calibrated by the segmenter
    assert any("noisy" in sentence for sentence in noisy.basis)
    fat = only(spine(crescents=(fatty,), fat_suppressed=False, **options))
    assert fat.grade == "probable" and any("Fat" in s for s in fat.basis)
    assert only(spine(crescents=(fatty,), fat_suppressed=True, **options)).grade == "definite"


def test_confidence_ignores_the_numbering(spine, crescent):
    fluid = crescent(80.0, 110.0, 4.0)
    options = {"crescents": (fluid,), "half_width_mm": 20.0, "field_mm": (40.0, 160.0)}
    sure = only(spine(numbering_confidence=0.99, **options))
    unsure = only(spine(numbering_confidence=0.2, **options))
    assert sure.confidence == unsure.confidence
