from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakloc.localization import LevelCoordinate, localize
from leakloc.settings import LocalizationSettings


def codes(result):
    return [note.code for note in result.notes]


@pytest.mark.parametrize("radius_mm", [np.inf, 160.0, -160.0])
def test_path_has_the_length_of_the_posterior_epidural_line(spine, crescent, radius_mm):
    """Behind a lordotic canal the way is shorter than along its middle, in closed form."""
    disc = spine().disc_mm("L4-L5")
    fluid = crescent(disc - 15, disc + 15, 3.0, toward_deg=180.0)
    settings = LocalizationSettings(hiatus_dorsal_mm=9.0)  # as far back as the sac's back is
    model = spine(
        radius_mm=radius_mm,
        crescents=(fluid,),
        half_width_mm=15.0,
        sac_end_mm=255.0,
        settings=settings,
    )
    result = model.localized()
    (target,) = result.planning.targets
    along = model.body_mm("S4") - disc
    behind = along * (1 - 9.0 / radius_mm)
    assert target.canal_distance_from_hiatus_mm == pytest.approx(behind, abs=1.0)
    steps = np.linalg.norm(np.diff(target.path_lps, axis=0), axis=1)
    assert steps.sum() == pytest.approx(target.canal_distance_from_hiatus_mm, abs=0.1)
    arc, left, dorsal = model.canal(target.path_lps)
    assert arc[0] == pytest.approx(model.body_mm("S4"), abs=1)
    assert arc[-1] == pytest.approx(disc, abs=1)
    assert (np.diff(arc) < 0).all()
    assert np.abs(left).max() < 0.5
    assert dorsal[20:] == pytest.approx(9.0, abs=0.6)  # back of the sac and 1 mm
    assert target.nearest_interlaminar == "L4-L5"


def test_distances_and_crossings_come_in_order(spine, crescent):
    disc = spine().disc_mm("L3-L4")
    fluid = crescent(disc - 30, disc + 40, 4.0, peak_mm=disc)
    result = spine(crescents=(fluid,), half_width_mm=15.0).localized()
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


def test_hiatus_is_placed_on_the_back_wall_at_s4(spine):
    model = spine(radius_mm=-150.0, half_width_mm=15.0)
    hiatus = model.localized().planning.hiatus
    assert hiatus.visible
    arc, left, dorsal = model.canal(hiatus.point_lps)
    assert arc == pytest.approx(model.body_mm("S4"), abs=1)
    assert abs(left) < 0.5 and dorsal > 1.0
    assert 0 < hiatus.confidence < 0.9  # it is estimated, never seen


def test_hiatus_outside_the_field_is_unknown(spine, crescent):
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(
        crescents=(fluid,), field_mm=(0.0, 230.0), length_mm=230.0, half_width_mm=15.0,
        names=("T12", "L1", "L2", "L3", "L4", "L5", "S1"),
    )  # fmt: skip
    result = model.localized()
    hiatus = result.planning.hiatus
    assert not hiatus.visible and hiatus.point_lps is None and hiatus.confidence == 0.0
    (target,) = result.planning.targets
    assert target.canal_distance_from_hiatus_mm is None
    assert target.distance_to_caudal_end_mm is None
    assert target.crossings == ()
    assert result.planning.sac_tip_to_hiatus_mm is None
    assert "hiatus_not_visible" in codes(result)
    assert model.canal(target.path_lps)[0][0] == pytest.approx(230.0, abs=1)


def test_hiatus_below_the_last_name_is_less_certain(spine):
    """S2 is named; S3 and S4 follow with the mean heights of sacral segments."""
    full = spine(half_width_mm=15.0)
    short = replace(full, names=full.names[: full.names.index("S2") + 1])
    sure = full.localized().planning.hiatus
    guessed = short.localized().planning.hiatus
    assert guessed.visible
    assert model_arc(full, guessed) == pytest.approx(model_arc(full, sure), abs=3)
    assert guessed.confidence < sure.confidence
    strict = LocalizationSettings(hiatus_reach_mm=20.0)
    assert not replace(short, settings=strict).localized().planning.hiatus.visible


def test_the_canal_goes_on_beyond_its_trace_like_a_sacrum(spine):
    """The segmenter lost the canal 40 mm above the hiatus; the sacrum bends forwards."""
    model = spine(radius_mm=-140.0, half_width_mm=25.0)
    segmentation = model.segmentation()
    line = segmentation.centerline
    cut = replace(segmentation, centerline=type(line)(line.points_lps[: -(36 + 18)]))
    hiatus = localize(cut, model.levels(), model.settings).planning.hiatus
    whole = localize(segmentation, model.levels(), model.settings).planning.hiatus
    assert np.linalg.norm(hiatus.point_lps - whole.point_lps) < 3.0
    assert hiatus.confidence < whole.confidence
    strict = LocalizationSettings(hiatus_beyond_trace_mm=20.0)
    assert not localize(cut, model.levels(), strict).planning.hiatus.visible


def model_arc(model, hiatus):
    return model.canal(hiatus.point_lps)[0]


def test_a_path_unlike_other_peoples_is_doubted(spine, crescent):
    """Names that are two levels off make the way to 'L4-L5' far too long."""
    fluid = crescent(100.0, 130.0, 4.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0)
    assert "path_implausible" not in codes(model.localized())
    segmentation = model.segmentation()
    levels = model.levels()
    renamed = {"L2": "L4", "L3": "L5", "L1": "L3", "T12": "L2", "L4": "S1"}
    wrong = tuple(replace(v, name=renamed[v.name]) for v in levels.vertebrae if v.name in renamed)
    sacrum = tuple(v for v in levels.vertebrae if v.name in ("S2", "S3", "S4"))
    mistaken = replace(levels, vertebrae=(*wrong, *sacrum), discs=())
    result = localize(segmentation, mistaken, model.settings)
    assert "path_implausible" in codes(result)


def test_a_collection_below_the_hiatus_is_not_a_detour(spine, crescent):
    model = spine(half_width_mm=15.0)
    low = model.body_mm("S4") + 12.0
    fluid = crescent(low - 5, low + 5, 3.0)
    result = replace(model, crescents=(fluid,)).localized()
    (target,) = result.planning.targets
    assert target.distance_to_caudal_end_mm == 0.0
    assert target.canal_distance_from_hiatus_mm >= 0.0


def test_path_stays_behind_the_sac_where_the_canal_is_traced(spine, crescent):
    fluid = crescent(100.0, 130.0, 4.0, toward_deg=180.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0, radius_mm=180.0)
    segmentation = model.segmentation()
    (target,) = localize(segmentation, model.levels(), model.settings).planning.targets
    # (The end of this sac is blunt, unlike any real one: a smooth path cuts its corner.)
    above = model.canal(target.path_lps)[0] < model.sac_end_mm - 20
    assert segmentation.thecal_sac.sample(target.path_lps[above], order=0).max() == 0
    coordinate = LevelCoordinate.from_levels(model.levels(), model.centerline())
    assert coordinate.segment_at(float(model.canal(target.path_lps[-1])[0])) == target.level
