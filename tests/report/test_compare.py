"""What changed between two reports of a patient."""

from __future__ import annotations

import json

import pytest

from leakloc.cli import BAD_USAGE, DONE, INPUT_UNUSABLE, main
from leakloc.localization.result import SacSegment
from leakloc.report import build_report
from leakloc.report.compare import OTHER_PROTOCOL, RESIDUAL, SAME_PROTOCOL, compare


@pytest.fixture
def report(analysis):
    return build_report(analysis)


def changed(report, collections):
    """The report with other collections."""
    return report.model_copy(update={"collections": tuple(collections)})


def moved(collection, **values):
    return collection.model_copy(update=values)


def test_a_report_against_itself_changes_nothing(report):
    found = compare(report, report)
    assert found.same_patient in (True, None)
    assert [c.change for c in found.collections] == ["no measurable change"] * len(
        report.collections
    )
    assert all(not c.segments_gained and not c.segments_lost for c in found.collections)
    assert not [c for c in found.cautions if "numbering" in c or "settings" in c]


def test_shrunk_gone_and_new(report):
    first = report.collections[0]
    shrunk = moved(first, volume_ml=first.volume_ml * 0.3, segments=first.segments[:1])
    new = moved(first, id=9, segments=("T1-T2",), level="T1-T2")
    found = compare(report, changed(report, [shrunk, new]))
    by_ids = {(c.before, c.after): c for c in found.collections}
    assert by_ids[first.id, first.id].change == "decreased"
    assert by_ids[first.id, first.id].segments_lost == first.segments[1:]
    assert by_ids[None, 9].change == "new"
    assert "(-70%)" in found.text
    assert by_ids[2, None].change == "no measurable change"  # 0.27 mL


def test_the_same_side_is_matched_first(report):
    first = report.collections[0]
    ventral = moved(first.position, label="ventral")
    dorsal = moved(first.position, label="dorsal")
    one = changed(
        report, [moved(first, id=1, position=dorsal), moved(first, id=2, position=ventral)]
    )
    two = changed(
        report, [moved(first, id=1, position=ventral), moved(first, id=2, position=dorsal)]
    )
    assert {(c.before, c.after) for c in compare(one, two).collections} == {(1, 2), (2, 1)}


def test_another_numbering_is_a_caution(report):
    numbering = report.levels.numbering.model_copy(update={"lumbar_count": 6, "method": "user"})
    levels = report.levels.model_copy(update={"numbering": numbering})
    found = compare(report, report.model_copy(update={"levels": levels}))
    assert any("same name may mean different levels" in c for c in found.cautions)


def test_other_patient_and_reversed_dates_are_cautions(report):
    def dated(date, patient):
        study = report.study.model_copy(
            update={"study_date": date, "patient_id": patient, "identity": "keep"}
        )
        return report.model_copy(update={"study": study})

    found = compare(dated("20260201", "a"), dated("20260101", "b"))
    assert found.same_patient is False
    assert any("different patient" in c for c in found.cautions)
    assert any("later study" in c for c in found.cautions)


def test_command(report, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    assert main(["diff", str(path), str(tmp_path)]) == DONE
    assert report.notice in capsys.readouterr().out
    assert main(["diff", str(path), str(path), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["collections"]
    assert main(["diff", str(path), str(tmp_path / "nothing")]) in (BAD_USAGE, INPUT_UNUSABLE)


def test_command_writes_a_page(report, tmp_path, capsys):
    path, page = tmp_path / "report.json", tmp_path / "page.html"
    path.write_text(report.to_json())
    assert main(["diff", str(path), str(path), "--html", str(page)]) == DONE
    assert f"HTML: {page}" in capsys.readouterr().out
    assert "No measurable change of the epidural fluid" in page.read_text(encoding="utf-8")
    assert main(["diff", str(path), str(path), "--studies", "a", "b"]) == BAD_USAGE
    nowhere = tmp_path / "no" / "page.html"
    assert main(["diff", str(path), str(path), "--html", str(nowhere)]) == BAD_USAGE


@pytest.mark.parametrize("limits", [SAME_PROTOCOL, OTHER_PROTOCOL])
def test_changes_below_the_detectable_one_are_no_change(report, limits):
    first = report.collections[0]
    series = report.series
    if limits is OTHER_PROTOCOL:
        series = tuple(s.model_copy(update={"description": "other"}) for s in series)
    earlier = report.model_copy(update={"series": series})

    def fluid(of, volume_ml):
        return changed(of, [moved(first, volume_ml=volume_ml)])

    for before, after, trend in (
        (1.0, 1.0 + 0.9 * limits.fluid_ml, "no measurable change"),
        (1.0, 1.0 + 1.1 * limits.fluid_ml, "increased"),
        (50.0, 50.0 * (1 - 0.9 * limits.fluid_fraction), "no measurable change"),
        (50.0, 50.0 * (1 - 1.1 * limits.fluid_fraction), "decreased"),
    ):
        found = compare(fluid(earlier, before), fluid(report, after))
        assert found.detectable is limits
        assert found.collections[0].change == trend
        assert found.measurements[1].trend == trend
        assert (trend in found.summary) is (trend != "no measurable change")
        assert limits.protocol in found.text
    small = compare(fluid(earlier, 0.5 * limits.fluid_ml), changed(report, []))
    assert small.collections[0].change == "no measurable change"
    assert compare(fluid(earlier, 9.0), changed(report, [])).collections[0].change == "gone"


def test_another_voxel_size_or_no_description_is_another_protocol(report):
    def with_series(**values):
        series = tuple(s.model_copy(update=values) for s in report.series)
        return report.model_copy(update={"series": series})

    assert compare(report, report).detectable is SAME_PROTOCOL
    for values in ({"spacing_mm": (3.0, 1.0, 1.0)}, {"description": ""}, {"spacing_mm": None}):
        other = with_series(**values)
        assert compare(report, other).detectable is OTHER_PROTOCOL
        if not values.get("spacing_mm"):
            assert compare(other, other).detectable is OTHER_PROTOCOL


def test_csf_is_compared_in_the_segments_of_both_fields_of_view(report):
    def with_csf(**volumes):
        parts = tuple(
            SacSegment(segment=name.replace("_", "-"), volume_ml=9.0, min_area_mm2=1.0,
                       mean_area_mm2=1.0, csf_volume_ml=volume)
            for name, volume in volumes.items()
        )  # fmt: skip
        sac = report.thecal_sac.model_copy(update={"by_segment": parts})
        return report.model_copy(update={"thecal_sac": sac})

    found = compare(with_csf(L2_L3=5.0, L3_L4=4.0, L4_L5=3.0), with_csf(L3_L4=8.0, L4_L5=8.0))
    assert found.csf_segments == ("L3-L4", "L4-L5")
    assert found.measurements[-1].values == (7.0, 16.0)
    assert found.measurements[-1].trend == "increased"
    apart = compare(with_csf(L2_L3=5.0), with_csf(L3_L4=5.0))
    assert apart.csf_segments == ()
    assert not [m for m in apart.measurements if "CSF" in m.name]


def test_different_pseudonyms_may_be_of_one_patient(report):
    def of(patient, identity):
        values = {"patient_id": patient, "identity": identity}
        study = report.study.model_copy(update=values)
        return report.model_copy(update={"study": study})

    assert compare(of("a", "hash"), of("b", "hash")).same_patient is None
    assert compare(of("a", "hash"), of("a", "hash")).same_patient is True
    assert compare(of("a", "keep"), of("b", "keep")).same_patient is False
    assert compare(of("a", "hash"), of("b", "hash"), same_patient=True).cautions == ()


def test_number_of_segments_and_volume_of_all_fluid(report):
    less = changed(report, [moved(report.collections[0], volume_ml=1.0)])
    less = less.model_copy(
        update={"finding": report.finding.model_copy(update={"segments_with_fluid": 1})}
    )
    before = report.model_copy(
        update={"finding": report.finding.model_copy(update={"segments_with_fluid": 3})}
    )
    found = compare(before, less)
    assert found.segments_with_fluid == (3, 1)
    assert found.fluid_ml == (pytest.approx(sum(c.volume_ml for c in report.collections)), 1.0)
    assert "motion segments with fluid: 3 -> 1" in found.text
    assert RESIDUAL in found.text
    assert RESIDUAL not in compare(before, changed(less, [])).text
