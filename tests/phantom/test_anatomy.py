import numpy as np
import pytest

from leakloc.phantom import SCENARIOS
from leakloc.phantom.anatomy import TABLE_STEP_MM, draw_anatomy, lumbar_rows
from leakloc.vocabulary import vertebra_chain

SEEDS = range(24)


@pytest.fixture(scope="module")
def people():
    return [draw_anatomy(SCENARIOS["normal"], np.random.default_rng(seed)) for seed in SEEDS]


def _areas(anatomy):
    tables = anatomy.tables
    arc = np.arange(len(tables["canal_a"])) * TABLE_STEP_MM
    sac = np.pi * tables["sac_a"] * tables["sac_b"]
    cord = np.pi * tables["cord_a"] * tables["cord_b"]
    return arc, sac, cord


def test_mean_csf_volumes_are_those_measured_on_myelography(people):
    whole, low = [], []
    for anatomy in people:
        arc, sac, cord = _areas(anatomy)
        spine = arc > anatomy.site("C2").top_mm
        whole.append((sac - cord)[spine].sum() * TABLE_STEP_MM / 1000)
        below = arc > anatomy.disc_mm("T11-T12")
        low.append((sac - cord)[below].sum() * TABLE_STEP_MM / 1000)
    assert np.mean(whole) == pytest.approx(95, abs=12)  # 95 mL in controls
    assert np.mean(low) == pytest.approx(50, abs=8)  # 50 +- 12 mL with roots
    assert 12 < np.std(whole) < 40


def test_distances_from_the_hiatus_are_those_measured_on_mr(people):
    conus = [a.hiatus_mm - a.conus_mm for a in people]
    l4_l5 = [a.hiatus_mm - a.disc_mm("L4-L5") for a in people]
    assert np.mean(conus) == pytest.approx(232, abs=15)
    assert np.mean(l4_l5) == pytest.approx(115, abs=8)
    assert all(a.hiatus_mm > a.sac_tip_mm > a.disc_mm("L4-L5") for a in people)


def test_sac_fits_the_canal_and_the_cord_fits_the_sac(people):
    for anatomy in people:
        t = anatomy.tables
        arc, _, _ = _areas(anatomy)
        spine = (arc > anatomy.site("C2").middle_mm) & (arc < anatomy.sac_tip_mm - 3)
        assert (t["sac_a"] < t["canal_a"])[spine].all()
        assert (t["sac_c"] - t["sac_b"] > -t["canal_b"])[spine].all()
        behind = t["canal_b"] + t["recess"] - t["sac_c"] - t["sac_b"]
        assert behind[spine].min() > -0.2
        cord = (np.abs(t["cord_c"] - t["sac_c"]) + t["cord_b"] <= t["sac_b"] + 0.3)[spine]
        assert cord.mean() > 0.98


def test_seeds_differ_in_anatomy(people):
    for figure in (
        lambda a: a.stature,
        lambda a: a.sac_tip_mm - a.disc_mm("L5-S1"),
        lambda a: a.value("sac_a", a.disc_mm("L3-L4")),
        lambda a: a.centerline.points_lps[:, 1].max() - a.centerline.points_lps[:, 1].min(),
        lambda a: a.fat_depth_mm,
    ):
        assert len({round(figure(a), 6) for a in people}) >= len(people) - 1


@pytest.mark.parametrize("count", [4, 5, 6])
def test_lumbar_count_sets_the_chain(count):
    rows = lumbar_rows(count)
    assert tuple(row.name for row in rows) == vertebra_chain(count)[1:]
    first = next(row for row in rows if row.name == "L1")
    last = next(row for row in rows if row.name == f"L{count}")
    assert (first.pitch, last.pitch) == (33.5, 32.5)


def test_segment_is_mid_body_to_mid_body(people):
    anatomy = people[0]
    middle = anatomy.site("L4").middle_mm
    assert anatomy.segment_at(middle - 1) == "L3-L4"
    assert anatomy.segment_at(middle + 1) == "L4-L5"
    assert anatomy.segment_at(anatomy.disc_mm("L5-S1")) == "L5-S1"


def test_lordosis_bends_the_lumbar_canal_forwards(people):
    for anatomy in people:
        line = anatomy.centerline
        y = [line.at(anatomy.site(name).middle_mm)[1] for name in ("L1", "L3", "S1")]
        chord = 0.5 * (y[0] + y[2])
        assert y[1] < chord
