from dataclasses import replace

import numpy as np
import pytest

from leakloc.anatomy.reference import reference_chain
from leakloc.anatomy.vocabulary import vertebra_chain
from leakloc.validation.phantom import SCENARIOS
from leakloc.validation.phantom.anatomy import draw_anatomy
from leakloc.validation.phantom.levels import draw_sites, lumbar_rows
from leakloc.validation.phantom.roots import ROOT_ROWS, place_roots
from leakloc.validation.phantom.tables import TABLE_STEP_MM

SEEDS = range(24)


@pytest.fixture(scope="module")
def subjects():
    return [draw_anatomy(SCENARIOS["normal"], np.random.default_rng(seed)) for seed in SEEDS]


def _areas(anatomy):
    sac, cord = anatomy.tables.sac, anatomy.tables.cord
    return anatomy.tables.arc_mm, np.pi * sac.a * sac.b, np.pi * cord.a * cord.b


def test_mean_csf_volumes_are_those_measured_on_myelography(subjects):
    whole, low = [], []
    for anatomy in subjects:
        arc, sac, cord = _areas(anatomy)
        spine = arc > anatomy.site("C2").top_mm
        whole.append((sac - cord)[spine].sum() * TABLE_STEP_MM / 1000)
        below = arc > anatomy.disc_mm("T11-T12")
        low.append((sac - cord)[below].sum() * TABLE_STEP_MM / 1000)
    assert np.mean(whole) == pytest.approx(95, abs=12)  # 95 mL in controls
    assert np.mean(low) == pytest.approx(50, abs=8)  # 50 +- 12 mL with roots
    assert 12 < np.std(whole) < 40


def test_distances_from_the_hiatus_are_those_measured_on_mr(subjects):
    conus = [a.hiatus_mm - a.conus_mm for a in subjects]
    l4_l5 = [a.hiatus_mm - a.disc_mm("L4-L5") for a in subjects]
    assert np.mean(conus) == pytest.approx(232, abs=15)
    assert np.mean(l4_l5) == pytest.approx(115, abs=8)
    assert all(a.hiatus_mm > a.sac_tip_mm > a.disc_mm("L4-L5") for a in subjects)


def test_sac_fits_the_canal_and_the_cord_fits_the_sac(subjects):
    for anatomy in subjects:
        canal, sac, cord = (getattr(anatomy.tables, n) for n in ("canal", "sac", "cord"))
        arc, _, _ = _areas(anatomy)
        spine = (arc > anatomy.site("C2").middle_mm) & (arc < anatomy.sac_tip_mm - 3)
        assert (sac.a < canal.a)[spine].all()
        assert (sac.center - sac.b > -canal.b)[spine].all()
        dorsal_gap = canal.b + canal.recess - sac.center - sac.b
        assert dorsal_gap[spine].min() > -0.2
        fits = np.abs(cord.center - sac.center) + cord.b <= sac.b + 0.3
        assert fits[spine].mean() > 0.98


def test_seeds_differ_in_anatomy(subjects):
    for figure in (
        lambda a: a.stature,
        lambda a: a.sac_tip_mm - a.disc_mm("L5-S1"),
        lambda a: a.value(a.tables.sac.a, a.disc_mm("L3-L4")),
        lambda a: a.centerline.points_lps[:, 1].max() - a.centerline.points_lps[:, 1].min(),
        lambda a: a.fat_depth_mm,
    ):
        assert len({round(figure(a), 6) for a in subjects}) >= len(subjects) - 1


@pytest.mark.parametrize("count", [4, 5, 6])
def test_lumbar_count_sets_the_chain(count):
    rows = lumbar_rows(count)
    assert tuple(row.name for row in rows) == vertebra_chain(count)[1:]
    first = next(row for row in rows if row.name == "L1")
    last = next(row for row in rows if row.name == f"L{count}")
    assert (first.pitch, last.pitch) == (33.5, 32.5)


def test_heights_are_not_those_of_the_numbering_prior():
    rows, chain = lumbar_rows(5), reference_chain(5)
    ratios = np.array([row.pitch for row in rows[1:15]]) / chain.pitch_mm[1:15]  # C3 to T9
    assert (ratios != 1).all() and ratios.std() > 0.03
    assert ((ratios > 0.85) & (ratios < 1.15)).all()


def _sites(seed, neck_seed):
    rng, neck_rng = np.random.default_rng(seed), np.random.default_rng(neck_seed)
    return draw_sites(lumbar_rows(5), 1.0, "regular", rng, neck_rng)


def test_neck_varies_as_a_whole_and_does_not_change_lower_levels():
    drawn = np.array([[site.pitch_mm for site in _sites(n, 100 + n)] for n in range(300)])
    neck = drawn[:, 1:7]  # C3 to T1
    assert neck.sum(axis=1).std() / neck.sum(axis=1).mean() == pytest.approx(0.075, abs=0.012)
    assert np.corrcoef(neck[:, :3].sum(axis=1), neck[:, 3:].sum(axis=1))[0, 1] > 0.6
    one, other = _sites(0, 1), _sites(0, 2)
    assert [s.row for s in one[15:]] == [s.row for s in other[15:]]
    assert [s.pitch_mm for s in one[15:]] == pytest.approx([s.pitch_mm for s in other[15:]])
    assert one[3].pitch_mm != other[3].pitch_mm


def test_segment_is_mid_body_to_mid_body(subjects):
    anatomy = subjects[0]
    middle = anatomy.site("L4").middle_mm
    assert anatomy.segment_at(middle - 1) == "L3-L4"
    assert anatomy.segment_at(middle + 1) == "L4-L5"
    assert anatomy.segment_at(anatomy.disc_mm("L5-S1")) == "L5-S1"


def test_lordosis_bends_the_lumbar_canal_anteriorly(subjects):
    for anatomy in subjects:
        line = anatomy.centerline
        y = [line.at(anatomy.site(name).middle_mm)[1] for name in ("L1", "L3", "S1")]
        chord = 0.5 * (y[0] + y[2])
        assert y[1] < chord


def _sac(anatomy):
    sac = anatomy.tables.sac
    return [table[::ROOT_ROWS].astype(float) for table in (sac.a, sac.b, sac.trefoil)]


def _depths(anatomy):
    """Mean dorsal position of the roots between conus and L5-S1, over the sac's half depth."""
    paths = place_roots(anatomy.roots, anatomy.tables)
    arc = anatomy.roots.arc
    below = (arc > anatomy.conus_mm + 25) & (arc < anatomy.disc_mm("L4-L5"))
    return np.nanmean((paths[..., 1] / _sac(anatomy)[1])[:, below])


def test_roots_stay_in_the_sac(subjects):
    for anatomy in subjects:
        x, y = np.moveaxis(place_roots(anatomy.roots, anatomy.tables), -1, 0)
        a, b, trefoil = _sac(anatomy)
        swell = 1 + trefoil * np.cos(3 * np.arctan2(x, y))
        away = np.hypot(x / (a * swell), y / (b * swell))
        assert np.nanmax(away) <= 1


def test_roots_settle_on_the_lowest_wall(subjects):
    supine = [p for p in subjects if abs(p.roots.settling.gravity_deg) < 45]
    assert 0.45 < len(supine) / len(subjects) < 0.95  # 70 % expected
    assert 0.6 < np.mean([p.roots.settling.settled > 0.5 for p in subjects]) < 1
    settled = [p for p in supine if p.roots.settling.settled > 0.5]
    depths = [_depths(p) for p in settled]
    assert min(depths) > -0.05  # 0 where roots fill the sac; never ventral
    assert np.median(depths) > 0.2
    prone = replace(settled[0].roots.settling, gravity_deg=180.0)
    turned = replace(settled[0], roots=replace(settled[0].roots, settling=prone))
    assert _depths(turned) == pytest.approx(-depths[0], abs=0.1)


def test_settled_roots_lie_in_contact(subjects):
    for anatomy in subjects:
        if anatomy.roots.settling.settled < 0.5:
            continue
        arc, radius = anatomy.roots.arc, anatomy.roots.radius_mm
        row = int(np.abs(arc - anatomy.disc_mm("L2-L3")).argmin())
        at = place_roots(anatomy.roots, anatomy.tables)[:, row]
        here = np.isfinite(at[:, 0])
        gaps = np.hypot(*(at[here, None] - at[None, here]).T) - radius[here] - radius[here, None]
        np.fill_diagonal(gaps, 9)
        assert here.sum() > 20
        assert np.median(gaps.min(axis=0)) < 0.3


def test_more_roots_fill_more_of_the_sac(subjects):
    def height(scale):
        roots = replace(settled.roots, radius_mm=scale * settled.roots.radius_mm)
        y = place_roots(roots, settled.tables)[:, row, 1]
        return np.nanmin(y)

    settled = next(p for p in subjects if p.roots.settling.settled > 0.8
                   and abs(p.roots.settling.gravity_deg) < 20)  # fmt: skip
    row = int(np.abs(settled.roots.arc - settled.disc_mm("L3-L4")).argmin())
    assert height(0.4) > height(0.7) > height(1.0)


def test_roots_exit_level_by_level(subjects):
    for anatomy in subjects:
        there = np.isfinite(place_roots(anatomy.roots, anatomy.tables)[..., 0]).sum(axis=0)
        places = (anatomy.conus_mm, anatomy.disc_mm("L3-L4"), anatomy.sac_tip_mm - 6)
        counts = [there[int(np.abs(anatomy.roots.arc - mm).argmin())] for mm in places]
        assert counts[0] >= counts[1] > counts[2] > 0
        assert (there[anatomy.roots.arc > anatomy.sac_tip_mm] == 0).all()


def test_roots_differ_between_subjects_and_repeat_for_a_seed(subjects):
    again = draw_anatomy(SCENARIOS["normal"], np.random.default_rng(0))
    same = [place_roots(p.roots, p.tables) for p in (subjects[0], again)]
    assert np.array_equal(*same, equal_nan=True)
    assert len({round(p.roots.settling.settled, 6) for p in subjects}) == len(subjects)
    diameters = 2 * np.concatenate([p.roots.radius_mm for p in subjects])
    assert diameters.min() >= 0.8
    assert diameters.max() <= 2.4
