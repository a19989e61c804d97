from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakloc.core.volume import Volume
from leakloc.localization import LevelCoordinate, SacralCanal, localize
from leakloc.localization.hiatus import plausible_canal
from leakloc.report.relabel_crop import crop_to_region_read


def sacral(model, apex="S4", *, dorsal_mm=2.5, confidence=0.9):
    """The sacral canal of an analytic spine, as the images would show it."""
    arc = np.arange(model.body_mm("S1"), model.body_mm(apex) + 0.5)
    below = np.append(arc, arc[-1] + np.arange(1.0, 9.0))
    return SacralCanal(model.points(below), model.points(arc, 0.0, dorsal_mm), confidence)


def planned(model, **options):
    return model.localized(sacral=sacral(model, **options))


def codes(result):
    return [note.code for note in result.notes]


@pytest.mark.parametrize("radius_mm", [np.inf, 160.0, -160.0])
def test_path_has_the_length_of_the_posterior_epidural_line(spine, crescent, radius_mm):
    """Posterior to a lordotic canal the path is shorter than along its center, in closed form."""
    disc = spine().disc_mm("L4-L5")
    fluid = crescent(disc - 15, disc + 15, 3.0, toward_deg=180.0)
    model = spine(
        radius_mm=radius_mm,
        crescents=(fluid,),
        half_width_mm=15.0,
        sac_end_mm=255.0,
    )
    result = planned(model, dorsal_mm=9.0)  # as far back as the sac's back is
    (target,) = result.planning.targets
    along = model.body_mm("S4") - disc
    behind = along * (1 - 9.0 / radius_mm)
    assert target.canal_distance_from_hiatus_mm == pytest.approx(behind, abs=1.0)
    steps = np.linalg.norm(np.diff(target.path_lps_mm, axis=0), axis=1)
    assert steps.sum() == pytest.approx(target.canal_distance_from_hiatus_mm, abs=0.1)
    arc, left, dorsal = model.canal(target.path_lps_mm)
    assert arc[0] == pytest.approx(model.body_mm("S4"), abs=1)
    assert arc[-1] == pytest.approx(disc, abs=1)
    assert (np.diff(arc) < 0).all()
    assert np.abs(left).max() < 0.5
    assert dorsal[20:] == pytest.approx(9.0, abs=0.6)  # back of the sac and 1 mm
    assert target.nearest_interlaminar == "L4-L5"


def test_distances_and_crossings_come_in_order(spine, crescent):
    disc = spine().disc_mm("L3-L4")
    fluid = crescent(disc - 30, disc + 40, 4.0, peak_mm=disc)
    result = planned(spine(crescents=(fluid,), half_width_mm=15.0))
    (target,) = result.planning.targets
    to_caudal, to_cranial = target.distance_to_caudal_end_mm, target.distance_to_cranial_end_mm
    assert to_caudal < target.canal_distance_from_hiatus_mm < to_cranial
    assert to_cranial - to_caudal == pytest.approx(68, abs=4)
    passed = [crossing.disc for crossing in target.crossings]
    assert passed == ["S3-S4", "S2-S3", "S1-S2", "L5-S1", "L4-L5", "L3-L4"]
    distances = [crossing.distance_from_hiatus_mm for crossing in target.crossings]
    assert distances == sorted(distances)
    assert distances[-1] == pytest.approx(target.canal_distance_from_hiatus_mm)
    tip = result.planning.sac_tip_to_hiatus_mm
    assert tip == pytest.approx(spine().body_mm("S4") - 210.0, abs=3)


def test_the_hiatus_is_where_it_was_detected(spine):
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    hiatus = planned(model).planning.sacral_hiatus
    assert hiatus.visible and hiatus.confidence == pytest.approx(0.9, abs=0.01)
    arc, left, dorsal = model.canal(hiatus.lps_mm)
    assert arc == pytest.approx(model.body_mm("S4"), abs=1)
    assert abs(left) < 0.5 and dorsal == pytest.approx(2.5, abs=0.1)


def test_a_low_confidence_hiatus_without_levels_gives_no_distance(spine, crescent):
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0, status="unlabelled")
    result = planned(model, confidence=0.29)
    (target,) = result.planning.targets
    assert (
        not result.planning.sacral_hiatus.visible and result.planning.sacral_hiatus.lps_mm is None
    )
    assert target.canal_distance_from_hiatus_mm is None
    assert "hiatus_not_visible" in codes(result)


def test_without_a_hiatus_distances_from_s4_have_a_range(spine, crescent):
    model = spine(crescents=(crescent(100.0, 130.0, 4.0),), half_width_mm=15.0)
    result = planned(model, confidence=0.29)
    hiatus = result.planning.sacral_hiatus
    assert not hiatus.visible and hiatus.lps_mm is None
    assert model.canal(hiatus.expected.lps_mm)[0] == pytest.approx(model.body_mm("S4"), abs=1)
    assert model.canal(hiatus.expected.cranial_lps_mm)[0] == pytest.approx(
        model.body_mm("S3"), abs=1
    )
    assert "hiatus_from_levels" in codes(result)
    seen = planned(model).planning.targets[0]
    (target,) = result.planning.targets
    assert seen.canal_distance_range_mm is None
    shortest, longest = target.canal_distance_range_mm
    assert shortest + 10 < target.canal_distance_from_hiatus_mm < longest - 10
    assert target.canal_distance_from_hiatus_mm == pytest.approx(
        seen.canal_distance_from_hiatus_mm, abs=4
    )


@pytest.mark.parametrize("apex", ["S3", "S5"])
def test_an_opening_far_from_s4_is_less_certain(spine, apex):
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    trusting = model.settings.model_copy(update={"hiatus_min_confidence": 0.1})
    hiatus = planned(replace(model, settings=trusting), apex=apex).planning.sacral_hiatus
    assert hiatus.visible and hiatus.confidence < 0.4
    assert not planned(model, apex=apex).planning.sacral_hiatus.visible


def test_the_opening_is_judged_by_names_where_the_first_sacral_ones_are_missing(spine):
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    levels = model.levels()
    lower = replace(levels, vertebrae=tuple(v for v in levels.vertebrae if v.name != "S1"))
    whole, part = (
        plausible_canal(sacral(model), named, None, model.settings) for named in (levels, lower)
    )
    assert part.confidence == pytest.approx(whole.confidence, abs=0.01)
    upper = replace(levels, vertebrae=tuple(v for v in levels.vertebrae if v.name < "S4"))
    assert plausible_canal(sacral(model), upper, None, model.settings) is None


@pytest.mark.parametrize("apex", ["S1", "S2"])
def test_an_opening_above_the_anatomical_range_is_not_reported(spine, apex):
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    result = planned(model, apex=apex)
    assert (
        not result.planning.sacral_hiatus.visible and result.planning.sacral_hiatus.lps_mm is None
    )


def test_an_opening_near_the_end_of_the_sac_is_not_reported(spine, monkeypatch):
    model = spine(radius_mm=-150.0, half_width_mm=15.0, sac_end_mm=225.0)
    assert planned(model).planning.sacral_hiatus.visible
    monkeypatch.setattr("leakloc.localization.hiatus._MIN_FROM_SAC_MM", 60.0)
    assert not planned(model).planning.sacral_hiatus.visible


def test_the_image_is_stored_for_names_that_make_the_hiatus_implausible(spine):
    """The canal ends elsewhere without the sacral canal; what is read then is stored, too."""
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    segmentation = model.segmentation()
    geometry = segmentation.collections.geometry
    anatomy = Volume(np.ones(geometry.shape, np.float32), geometry)
    found = sacral(model, apex="S3")
    kept, without = (
        crop_to_region_read(anatomy, segmentation, canal, model.settings).array > 0
        for canal in (found, None)
    )
    assert not (without & ~kept).any()


def test_hiatus_outside_the_field_is_unknown(spine, crescent):
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(
        crescents=(fluid,), field_mm=(0.0, 230.0), length_mm=230.0, half_width_mm=15.0,
        names=("T12", "L1", "L2", "L3", "L4", "L5", "S1"),
    )  # fmt: skip
    result = model.localized()
    hiatus = result.planning.sacral_hiatus
    assert not hiatus.visible and hiatus.lps_mm is None and hiatus.confidence == 0.0
    (target,) = result.planning.targets
    assert target.canal_distance_from_hiatus_mm is None
    assert target.distance_to_caudal_end_mm is None
    assert target.crossings == ()
    assert result.planning.sac_tip_to_hiatus_mm is None
    assert "hiatus_not_visible" in codes(result)
    assert model.canal(target.path_lps_mm)[0][0] == pytest.approx(230.0, abs=1)


def test_the_sacral_canal_continues_a_lost_trace(spine, crescent):
    """The segmenter lost the canal below the sac and ran straight on; the sacrum bends."""
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(radius_mm=-140.0, half_width_mm=25.0, crescents=(fluid,))
    segmentation = model.segmentation()
    line = segmentation.centerline
    kept = line.points_lps[: int(model.sac_end_mm) + 10]
    astray = kept[-1] + np.arange(1.0, 60.0)[:, None] * line.tangents_lps[len(kept)]
    lost = replace(segmentation, centerline=type(line)(np.concatenate([kept, astray])))
    paths = [
        localize(s, model.levels(), model.settings, sacral=sacral(model)).planning.targets[0]
        for s in (segmentation, lost)
    ]
    lengths = [path.canal_distance_from_hiatus_mm for path in paths]
    assert lengths[1] == pytest.approx(lengths[0], abs=2.0)
    below = model.canal(paths[1].path_lps_mm)[0] > model.sac_end_mm
    assert np.abs(model.canal(np.array(paths[1].path_lps_mm)[below])[2]).max() < 8.0


def test_a_path_of_unusual_length_is_flagged(spine, crescent):
    """Names that are two levels off make the path to 'L4-L5' far too long."""
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0)
    assert "path_implausible" not in codes(planned(model))
    segmentation = model.segmentation()
    levels = model.levels()
    renamed = {"L2": "L4", "L3": "L5", "L1": "L3", "T12": "L2", "L4": "S1"}
    wrong = tuple(replace(v, name=renamed[v.name]) for v in levels.vertebrae if v.name in renamed)
    sacrum = tuple(v for v in levels.vertebrae if v.name in ("S2", "S3", "S4"))
    mistaken = replace(levels, vertebrae=(*wrong, *sacrum), discs=())
    result = localize(segmentation, mistaken, model.settings, sacral=sacral(model))
    assert "path_implausible" in codes(result)


def test_six_lumbar_vertebrae_do_not_flag_the_path(spine, crescent):
    """Lengths depend on the number of levels above the sacrum, not on the name."""
    model = spine(crescents=(crescent(100.0, 130.0, 4.0),), half_width_mm=15.0)
    levels = model.levels()
    down = {"T12": "L1", **{f"L{n}": f"L{n + 1}" for n in range(1, 6)}}
    six = tuple(replace(v, name=down.get(v.name, v.name)) for v in levels.vertebrae)
    renamed = replace(
        levels, vertebrae=tuple(v for v in six if not v.name.startswith("T")), discs=()
    )
    result = localize(model.segmentation(), renamed, model.settings, sacral=sacral(model))
    assert "path_implausible" not in codes(result)
    (target,) = result.planning.targets
    assert "L6-S1" in {c.disc for c in target.crossings}


def test_a_collection_below_the_hiatus_is_not_a_detour(spine, crescent):
    model = spine(half_width_mm=15.0)
    low = model.body_mm("S4") + 12.0
    fluid = crescent(low - 5, low + 5, 3.0)
    result = planned(replace(model, crescents=(fluid,)))
    (target,) = result.planning.targets
    assert target.distance_to_caudal_end_mm == 0.0
    assert target.canal_distance_from_hiatus_mm >= 0.0


def test_path_stays_behind_the_sac_where_the_canal_is_traced(spine, crescent):
    fluid = crescent(100.0, 130.0, 4.0, toward_deg=180.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0, radius_mm=180.0)
    segmentation = model.segmentation()
    result = localize(segmentation, model.levels(), model.settings, sacral=sacral(model))
    (target,) = result.planning.targets
    # (The end of this sac is blunt, unlike any real one: a smooth path cuts its corner.)
    above = model.canal(target.path_lps_mm)[0] < model.sac_end_mm - 20
    assert segmentation.thecal_sac.sample(np.array(target.path_lps_mm)[above], order=0).max() == 0
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    assert coordinate.segment_at(float(model.canal(target.path_lps_mm[-1])[0])) == target.level


def anatomy(model, *, depth_mm, narrow_mm=None, skin_mm=40.0):
    """Fat behind the sac, the arch behind that, fat up to the skin, air."""
    geometry = model.geometry()
    arc, _, dorsal = model.canal(
        geometry.lps_from_kji(np.moveaxis(np.indices(geometry.shape), 0, -1))
    )
    depth = np.full(arc.shape, float(depth_mm))
    if narrow_mm is not None:
        depth[np.abs(arc - narrow_mm[0]) < 12.0] = narrow_mm[1]
    image = np.full(arc.shape, 800.0)
    behind = dorsal - model.sac_radius_mm
    image[(behind > depth) & (behind < depth + 6)] = 60.0
    image[dorsal > skin_mm] = 0.0
    return Volume(image.astype(np.float32), geometry)


def test_the_minimum_posterior_depth_along_the_path_is_found(spine, crescent):
    disc = spine().disc_mm("L3-L4")
    fluid = crescent(disc - 10, disc + 10, 3.0, toward_deg=180.0)
    model = spine(crescents=(fluid,), half_width_mm=22.0)
    place = model.disc_mm("L4-L5")
    above = model.disc_mm("L2-L3")
    for at, expected in ((place, 3.0), (above, 6.0)):  # what lies above the target is not passed
        image = anatomy(model, depth_mm=6.0, narrow_mm=(at, 3.0))
        result = model.localized(sacral=sacral(model), anatomy=image)
        narrowest = result.planning.targets[0].narrowest_posterior_depth
        assert narrowest.depth_mm == pytest.approx(expected, abs=1.0)
    assert result.planning.targets[0].narrowest_posterior_depth is not None
    assert (
        planned(model).planning.targets[0].narrowest_posterior_depth is None
    )  # nothing to see it on


def test_windows_near_the_level_have_a_skin_depth(spine, crescent):
    disc = spine().disc_mm("L3-L4")
    fluid = crescent(disc - 10, disc + 10, 3.0, toward_deg=180.0)
    model = spine(crescents=(fluid,), half_width_mm=50.0, spacing_ijk_mm=(2.0, 2.0, 2.0))
    result = model.localized(anatomy=anatomy(model, depth_mm=5.0))
    (target,) = result.planning.targets
    assert [w.segment for w in target.interlaminar] == ["L3-L4", "L2-L3", "L4-L5"]
    assert target.interlaminar[0].along_canal_mm == pytest.approx(-5.0, abs=1.0)
    for window in target.interlaminar:
        assert window.skin_to_canal_mm == pytest.approx(40.0 - 9.0, abs=2.5)
    cut = replace(model, half_width_mm=36.0)  # the skin lies outside the field
    (target,) = cut.localized(anatomy=anatomy(cut, depth_mm=5.0)).planning.targets
    assert {w.skin_to_canal_mm for w in target.interlaminar} == {None}


def test_length_marks_state_the_level_at_every_10_mm(spine, crescent):
    disc = spine().disc_mm("L4-L5")
    fluid = crescent(disc - 15, disc + 15, 3.0, toward_deg=180.0)
    model = spine(crescents=(fluid,), half_width_mm=22.0, sac_end_mm=255.0)
    image = anatomy(model, depth_mm=5.0)
    result = model.localized(sacral=sacral(model, dorsal_mm=9.0), anatomy=image)
    marks = result.planning.length_marks
    lengths = [mark.distance_from_hiatus_mm for mark in marks]
    assert lengths == [10.0 * n for n in range(1, len(marks) + 1)]
    (target,) = result.planning.targets
    at = round(target.canal_distance_from_hiatus_mm / 10.0)
    path = np.array(target.path_lps_mm)
    apart = [np.linalg.norm(path - mark.lps_mm, axis=1).min() for mark in marks[: at - 1]]
    assert max(apart) < 1.0
    assert marks[at - 1].segment == "L4-L5"  # within 5 mm of the disc
    near = [m.posterior_depth_mm for m in marks if m.segment in ("L2-L3", "L3-L4")]
    assert near == pytest.approx([5.0] * len(near), abs=1.0) and near


def test_without_a_hiatus_there_are_no_length_marks(spine, crescent):
    model = spine(names=("L1", "L2", "L3", "L4", "L5", "S1"), field_mm=(-10.0, 215.0))
    assert model.localized().planning.length_marks == ()
