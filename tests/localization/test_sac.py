from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakloc.localization import localize


def test_volume_end_and_level(spine):
    model = spine(radius_mm=170.0, tilt_deg=(12.0, 5.0), sac_end_mm=235.0, half_width_mm=13.0)
    sac = model.localized().thecal_sac
    length = 235.0 - model.field_mm[0]
    assert sac.volume_ml == pytest.approx(np.pi * 64 * length / 1000, rel=0.02)
    assert sac.csf_volume_ml == pytest.approx(sac.volume_ml, rel=0.01)
    arc, left, dorsal = model.canal(sac.caudal_end.lps_mm)
    assert arc == pytest.approx(235.0, abs=1.5)
    assert abs(left) < 1 and abs(dorsal) < 1
    assert sac.caudal_end.level == "S2"


@pytest.mark.parametrize("slope", [0.15, 0.25])
def test_the_end_of_a_tapering_sac_is_caudal_to_its_mask(spine, slope):
    """A cone of which the last part, up to 4 mm wide, is missing in the mask."""
    model = spine(half_width_mm=13.0, sac_end_mm=240.0)
    segmentation = model.segmentation()
    mask = segmentation.thecal_sac
    kji = np.argwhere(mask.array > 0)
    arc, left, dorsal = model.canal(mask.geometry.lps_from_kji(kji))
    width = slope * (240.0 - arc)
    cut = (np.hypot(left, dorsal) > width) | (width < 2.0)
    array = mask.array.copy()
    array[tuple(kji[cut].T)] = 0
    tapering = replace(segmentation, thecal_sac=mask.with_array(array))
    end = localize(tapering, model.levels(), model.settings).thecal_sac.caudal_end
    mask_end = 240.0 - 2.0 / slope
    assert float(model.canal(end.lps_mm)[0]) - mask_end == pytest.approx(0.8 / slope, abs=1.5)


def test_csf_volume_excludes_what_is_not_fluid(spine):
    model = spine(half_width_mm=15.0)
    segmentation = model.segmentation()
    fraction = segmentation.fluid_fraction
    half = replace(segmentation, fluid_fraction=fraction.with_array(fraction.array * 0.6))
    sac = localize(half, model.levels(), model.settings).thecal_sac
    assert sac.csf_volume_ml == pytest.approx(0.6 * sac.volume_ml, rel=1e-3)


def with_roots(spine, signal):
    """A segmentation whose sac contains roots of a signal, and the true volume of its CSF."""
    segmentation = spine(half_width_mm=15.0).segmentation()
    fraction = segmentation.fluid_fraction
    _, left, dorsal = segmentation.centerline.project(
        fraction.geometry.lps_from_kji(np.argwhere(segmentation.thecal_sac.array > 0))
    )
    is_root = np.hypot(left, dorsal - 4.0) < 3.0
    array = fraction.array.copy()
    array[segmentation.thecal_sac.array > 0] = np.where(is_root, signal, 1.0)
    csf_ml = float((~is_root).sum() * fraction.geometry.voxel_volume_ml)
    return replace(segmentation, fluid_fraction=fraction.with_array(array)), csf_ml


@pytest.mark.parametrize("signal", [0.0, 0.3, 0.6])
def test_csf_volume_does_not_depend_on_the_signal_of_roots(spine, signal):
    from leakloc.localization import localize

    model = spine(half_width_mm=15.0)
    segmentation, csf_ml = with_roots(spine, signal)
    sac = localize(segmentation, model.levels(), model.settings).thecal_sac
    assert sac.csf_volume_ml == pytest.approx(csf_ml, rel=1e-3)
    assert all(part.csf_volume_ml < 0.9 * part.volume_ml for part in sac.by_segment)


def test_segments_add_up_and_have_the_right_area(spine):
    model = spine(radius_mm=150.0, tilt_deg=(20.0, 0.0), half_width_mm=13.0, sac_end_mm=240.0)
    sac = model.localized().thecal_sac
    names = [part.segment for part in sac.by_segment]
    assert names[:3] == ["T12-L1", "L1-L2", "L2-L3"]
    for part in sac.by_segment:
        assert part.mean_area_mm2 == pytest.approx(np.pi * 64, rel=0.03)
        assert part.min_area_mm2 == pytest.approx(np.pi * 64, rel=0.06)
    l4 = next(part for part in sac.by_segment if part.segment == "L4-L5")
    length = model.body_mm("L5") - model.body_mm("L4")
    assert l4.volume_ml == pytest.approx(np.pi * 64 * length / 1000, rel=0.03)


def test_a_sac_that_leaves_the_field_has_no_end(spine):
    model = spine(sac_end_mm=250.0, field_mm=(0.0, 200.0), half_width_mm=15.0)
    sac = model.localized().thecal_sac
    assert sac.caudal_end.lps_mm is None
    assert sac.caudal_end.level is None
    # A segment that the field cuts is not measured as if it were whole.
    assert "S1-S2" not in [part.segment for part in sac.by_segment]


def test_no_sac_gives_no_numbers(spine):
    model = spine(sac_end_mm=-50.0, half_width_mm=15.0)
    result = model.localized()
    assert result.thecal_sac.volume_ml == 0.0
    assert result.thecal_sac.caudal_end.lps_mm is None
    assert result.thecal_sac.by_segment == ()
    assert result.planning.sac_tip_to_hiatus_mm is None


def test_a_narrow_stretch_is_compression(spine, crescent):
    fluid = crescent(100.0, 140.0, 4.0, half_angle_deg=40.0)
    model = spine(crescents=(fluid,), half_width_mm=20.0, length_mm=260.0, field_mm=(0.0, 260.0))
    plain = model.segmentation()
    arc, left, dorsal = model.canal(
        plain.thecal_sac.geometry.lps_from_kji(
            np.indices(plain.thecal_sac.array.shape).reshape(3, -1).T
        )
    )
    narrow = (np.abs(arc - 120) < 15) & (np.hypot(left, dorsal) > 8.0 * np.sqrt(0.6))
    sac = np.where(narrow.reshape(plain.thecal_sac.array.shape), 0, plain.thecal_sac.array)
    pressed = replace(plain, thecal_sac=plain.thecal_sac.with_array(sac.astype(np.uint8)))
    levels = model.levels()
    before = localize(plain, levels, model.settings).collections[0]
    after = localize(pressed, levels, model.settings).collections[0]
    assert before.sac_compression == pytest.approx(0.0, abs=0.02)
    assert after.sac_compression == pytest.approx(0.4, abs=0.05)


def test_without_neighbouring_sac_compression_is_unknown(spine, crescent):
    fluid = crescent(5.0, 195.0, 4.0)
    model = spine(crescents=(fluid,), half_width_mm=15.0, field_mm=(0.0, 200.0))
    assert model.localized().collections[0].sac_compression is None


def test_a_collection_included_in_the_sac_is_reported(spine, crescent):
    disc = spine().disc_mm("L2-L3")
    fluid = crescent(disc - 18, disc + 18, 6.0, half_angle_deg=80.0)
    model = spine(crescents=(fluid,), half_width_mm=18.0)
    segmentation = model.segmentation()
    sac = segmentation.thecal_sac.array | (segmentation.collections.array > 0)
    merged = replace(
        segmentation,
        thecal_sac=segmentation.thecal_sac.with_array(sac.astype(np.uint8)),
        collections=segmentation.collections.with_array(np.zeros_like(sac)),
        candidates=(),
    )
    levels = model.levels()
    notes = localize(merged, levels, model.settings).notes
    (note,) = (n for n in notes if not n.code.startswith("hiatus_"))
    assert note.code == "sac_unusually_wide" and "L2-L3" in note.message
    (other,) = localize(segmentation, levels, model.settings).notes
    assert other.code.startswith("hiatus_")


def test_a_severe_stenosis_names_its_level(spine):
    model = spine(half_width_mm=15.0, sac_end_mm=240.0)
    plain = model.segmentation()
    middle = model.disc_mm("L3-L4")
    arc, left, dorsal = model.canal(
        plain.thecal_sac.geometry.lps_from_kji(
            np.indices(plain.thecal_sac.array.shape).reshape(3, -1).T
        )
    )
    pressed = (np.abs(arc - middle) < 6) & (np.hypot(left, dorsal) > 1.5)
    sac = np.where(pressed.reshape(plain.thecal_sac.array.shape), 0, plain.thecal_sac.array)
    narrow = replace(plain, thecal_sac=plain.thecal_sac.with_array(sac.astype(np.uint8)))
    levels = model.levels()
    messages = {n.code: n.message for n in localize(narrow, levels, model.settings).notes}
    assert "L3-L4" in messages["sac_interrupted"]
    assert "L2-L3" not in messages["sac_interrupted"]
    codes = [n.code for n in localize(plain, levels, model.settings).notes]
    assert "sac_interrupted" not in codes


def test_a_sac_that_ends_above_the_sacrum_is_reported(spine):
    model = spine(half_width_mm=15.0)
    cut = model.disc_mm("L3-L4") + 3.0
    messages = {n.code: n.message for n in replace(model, sac_end_mm=cut).localized().notes}
    assert "caudal to L3-L4," in messages["sac_not_followed"]
    lowest = model.disc_mm("L5-S1")
    for end_mm in (lowest - 6.0, lowest + 40.0):
        codes = [n.code for n in replace(model, sac_end_mm=end_mm).localized().notes]
        assert "sac_not_followed" not in codes


def test_a_sac_is_not_reported_as_cut_without_its_end_or_names(spine):
    model = spine(half_width_mm=15.0, sac_end_mm=spine().disc_mm("L3-L4"))
    beyond = replace(model, sac_end_mm=250.0, field_mm=(0.0, model.sac_end_mm))
    for other in (beyond, replace(model, status="unlabelled")):
        assert "sac_not_followed" not in [n.code for n in other.localized().notes]


def test_a_sac_that_ends_above_the_named_levels_is_reported(spine):
    names = spine().names[: spine().names.index("L4") + 1]
    model = spine(half_width_mm=15.0, names=names, sac_end_mm=spine().disc_mm("L2-L3"))
    assert "sac_not_followed" in [n.code for n in model.localized().notes]
