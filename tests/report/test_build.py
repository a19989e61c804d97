import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from leakloc.loaders.study import SkippedFile
from leakloc.localization import LevelCoordinate
from leakloc.localization.result import Collection, Conus, ExpectedHiatus, SacralHiatus, Target
from leakloc.pipeline import Analysis
from leakloc.report import build_report
from leakloc.segmentation.result import Candidate

STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
PATIENT_ID = "MRN-0047-SECRET"
ACCESSION = "ACC-1234-SECRET"


def test_numbers_arrive_unchanged(analysis: Analysis) -> None:
    report = build_report(analysis)
    found = analysis.localization.collections[0]
    written = report.collections[0]
    assert written is found
    assert (written.level, written.volume_ml, written.grade) == ("L4-L5", 3.21, "definite")
    assert written.extent.cranial.description == "L3-L4, 5 mm below the disc center"
    vertebra = analysis.levels.vertebrae[3]
    assert report.levels.vertebrae[3].name == vertebra.name == "L4"
    np.testing.assert_allclose(
        report.levels.vertebrae[3].center_lps_mm, vertebra.center_lps, atol=0.006
    )
    assert report.levels.label_values["L4"] == 23
    assert report.planning.targets[0].crossings[0].disc == "L5-S1"


def test_level_set_end_of_cord_and_expected_hiatus(analysis: Analysis) -> None:
    located = analysis.localization
    first = located.collections[0].model_copy(update={"level_set": ("L4-L5", "L3-L4")})
    most, cranial, caudal = (np.array([0.0, 60.0, -height]) for height in (150.0, 130.0, 170.0))
    expected = ExpectedHiatus(level="S4", lps_mm=most, cranial_lps_mm=cranial, caudal_lps_mm=caudal)
    hiatus = SacralHiatus(visible=False, lps_mm=None, confidence=0.0, expected=expected)
    target = located.planning.targets[0].model_copy(
        update={"canal_distance_range_mm": (90.0, 150.0)}
    )
    changed = replace(
        located,
        collections=(first, *located.collections[1:]),
        conus=Conus(lps_mm=np.array([1.0, 2.0, 3.0]), level="lower L1"),
        planning=located.planning.model_copy(
            update={"sacral_hiatus": hiatus, "targets": (target,)}
        ),
    )
    report = build_report(replace(analysis, localization=changed))
    assert report.collections[0].level_set == ("L4-L5", "L3-L4")
    assert report.collections[0].level == "L4-L5"
    assert report.levels.conus is not None and report.levels.conus.level == "lower L1"
    written = report.planning.sacral_hiatus
    assert (written.visible, written.lps_mm) == (False, None)
    assert written.expected is not None and written.expected.cranial_lps_mm[2] == -130.0
    assert report.planning.targets[0].canal_distance_range_mm == (90.0, 150.0)
    broken = Target(**{**dict(target), "canal_distance_range_mm": (float("nan"), 150.0)})
    assert broken.canal_distance_range_mm is None


def test_shape_and_spacing_have_the_same_order(analysis: Analysis) -> None:
    series = build_report(analysis).series[1]
    assert series.shape == (64, 96, 96)
    assert series.spacing_mm == (1.1, 2.1, 1.3)


def test_unknown_is_null_and_nan_is_never_written(analysis: Analysis) -> None:
    text = build_report(analysis).to_json()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} was written"))
    assert values["planning"]["sac_tip_to_hiatus_mm"] is None
    assert values["collections"][0]["profile"]["thickness_mm"][3] is None
    assert values["collections"][1]["sac_compression"] is None
    assert values["thecal_sac"]["caudal_end"] == {"lps_mm": None, "level": None}


def test_every_float_of_localization_may_be_nan(analysis: Analysis) -> None:
    nan = float("nan")
    located = analysis.localization
    first = located.collections[0]
    written = Collection(
        **{
            **dict(first),
            "volume_ml": nan,
            "max_thickness_mm": float("inf"),
            "max_area_mm2": nan,
            "sac_compression": nan,
            "confidence": nan,
            "epicenter_lps_mm": np.full(3, nan),
        }
    )
    report = build_report(replace(analysis, localization=replace(located, snr=nan)))
    assert written.volume_ml is written.max_thickness_mm is written.epicenter_lps_mm is None
    assert written.sac_compression is report.quality.snr is None
    assert written.confidence == 0.0


def test_each_warning_once_from_every_stage(analysis: Analysis) -> None:
    warnings = build_report(analysis).quality.warnings
    assert [w.code for w in warnings] == ["synthetic", "c2_not_seen"]


def test_skipped_files_are_counted_without_their_names(analysis: Analysis) -> None:
    from pathlib import Path

    skipped = tuple(SkippedFile(Path(f"{PATIENT_ID}/{n}"), "not DICOM") for n in range(3))
    report = build_report(replace(analysis, study=replace(analysis.study, skipped=skipped)))
    assert (report.skipped_files[0].reason, report.skipped_files[0].count) == ("not DICOM", 3)
    assert PATIENT_ID not in report.to_json()


def test_by_default_identity_is_hashed_and_the_study_uid_retained(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEAKLOC_IDENTITY_KEY", raising=False)
    report = build_report(analysis)
    text = report.to_json()
    assert PATIENT_ID not in text and ACCESSION not in text
    assert report.study.study_instance_uid == STUDY_UID
    assert report.study.patient_id == build_report(analysis).study.patient_id
    other = replace(
        analysis.study, info=replace(analysis.study.info, study_instance_uid=STUDY_UID + ".9")
    )
    assert build_report(replace(analysis, study=other)).study.patient_id != report.study.patient_id


def test_a_key_makes_pseudonyms_of_a_patient_the_same_in_all_studies(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = build_report(analysis).study.patient_id
    monkeypatch.setenv("LEAKLOC_IDENTITY_KEY", "a secret of the site")
    first = build_report(analysis)
    other = replace(
        analysis.study, info=replace(analysis.study.info, study_instance_uid=STUDY_UID + ".9")
    )
    assert build_report(replace(analysis, study=other)).study.patient_id == first.study.patient_id
    assert first.study.patient_id != without
    assert "a secret of the site" not in first.to_json()


def test_keep_and_remove(analysis: Analysis, with_settings: Callable[..., Analysis]) -> None:
    kept = build_report(with_settings(analysis, report__identity="keep")).study
    assert (kept.patient_id, kept.accession_number) == (PATIENT_ID, ACCESSION)
    removed = build_report(with_settings(analysis, report__identity="remove")).study
    assert removed.patient_id is removed.accession_number is removed.study_date is None
    assert removed.study_instance_uid == STUDY_UID


def test_runtime_adds_up(analysis: Analysis) -> None:
    runtime = build_report(analysis, runtime_s={"writing": 0.25}).generator.runtime_s
    assert runtime == {"total": 2.0, "reading": 0.5, "segmentation": 1.25, "writing": 0.25}


@pytest.mark.parametrize(("left_mm", "side"), [(12.0, "left"), (-12.0, "right"), (2.0, "midline")])
def test_rejected_candidates_have_level_and_side(
    analysis: Analysis, left_mm: float, side: str
) -> None:
    line = analysis.segmentation.centerline
    beyond = line.points_lps[0] - 80.0 * line.tangents_lps[0]  # cranial to the named levels
    candidate = Candidate(
        0, False, 0.1, 0.3, beyond + left_mm * line.lefts_lps[0], "Dim.", ("epidural fat",), ()
    )
    segmentation = replace(analysis.segmentation, candidates=(candidate,))
    (rejected,) = build_report(replace(analysis, segmentation=segmentation)).rejected
    first = LevelCoordinate.from_levels(analysis.levels, line).segments()[0][0]
    assert (rejected.level, rejected.side) == (first, side)
