import re
from dataclasses import replace

import pytest

from leakloc.localization.result import (
    Enhancement,
    LevelAlternative,
    RetrospinalFluid,
    RootDiverticulum,
    SecondMyelogram,
)
from leakloc.report import build_report
from leakloc.report.tables import collection_rows
from leakloc.report.text import (
    alternative_levels,
    axial_signal,
    companion_text,
    line_text,
    report_sections,
    report_text,
    retrospinal_sentences,
)
from tests.report.conftest import AXIAL_T2, synthetic

HEADINGS = (
    "Technique",
    "Comparison",
    "Numbering and coverage",
    "Epidural fluid",
    "Nerve root sleeves",
    "Postoperative changes",
    "Thecal sac and conus",
    "Other bright structures",
    "Caudal access geometry",
    "Image quality",
    "Impression",
    "Limitations",
)


def test_order_of_the_headings(analysis):
    sections = report_sections(build_report(analysis))
    assert tuple(heading for heading, _ in sections) == HEADINGS
    assert all(sentences for _, sentences in sections)


def test_text_states_the_numbers_of_the_report(analysis):
    report = build_report(analysis)
    text = report_text(report)
    sections = dict(report_sections(report))
    first = report.collections[0]
    assert f"{first.volume_ml:.1f} mL" in sections["Epidural fluid"][0]
    assert "L3-L4 to L4-L5" in sections["Epidural fluid"][0]
    assert "L4-L5 dorsal 4.5 mm" in sections["Epidural fluid"][-1]
    assert sections["Impression"][0] == report.finding.summary
    assert "61 mm along the canal to L4-L5" in " ".join(sections["Caudal access geometry"])
    for heading in HEADINGS:
        assert f"{heading.upper()}\n" in text
    assert re.sub(r"\s+", " ", report.notice) in re.sub(r"\s+", " ", text)
    assert max(map(len, text.splitlines())) <= 92


@pytest.mark.parametrize(
    ("level_set", "impression"),
    [(("L4-L5",), ("Alternative level: L3-L4.",)), (("L4-L5", "L3-L4"), ())],
)
def test_impression_does_not_repeat_an_alternative_of_the_summary(analysis, level_set, impression):
    report = build_report(analysis)
    main = report.collections[0]
    assert (main.level, len(main.segments)) == ("L4-L5", 2)
    other = LevelAlternative(level="L3-L4", score=0.3, basis=())
    changed = main.model_copy(update={"level_set": level_set, "alternatives": (other,)})
    report = report.model_copy(update={"collections": (changed, *report.collections[1:])})
    assert dict(report_sections(report))["Impression"][1:] == impression
    assert alternative_levels(report) == "L3-L4"


def test_no_collection():
    sections = dict(report_sections(build_report(synthetic(leak=False))))
    assert sections["Epidural fluid"] == ("No epidural fluid collection detected.",)
    assert "does not exclude a leak" in sections["Impression"][0]


def diverticulum(**values):
    return RootDiverticulum(
        side="left", volume_ml=0.12, center_lps_mm=(14, 0, 0), sac_distance_mm=2, **values
    )


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        (None, ("Not assessed.",)),
        ((), ("No perineural cyst or root sleeve diverticulum detected.",)),
        (
            (diverticulum(root=None, max_diameter_mm=7.2),),
            (
                "Perineural cyst or root sleeve diverticulum: left, root not named, 7 mm, 0.12 mL, "
                "2 mm from the sac.",
            ),
        ),
        (
            tuple(diverticulum(root=n, max_diameter_mm=d) for n, d in (("L4", 7.2), ("S2", 4.4))),
            (
                "Largest perineural cyst or root sleeve diverticulum: left L4 root, 7 mm, 0.12 mL, "
                "2 mm from the sac.",
                "Others: left S2 root, 4 mm, 0.12 mL, 2 mm from the sac.",
            ),
        ),
    ],
)
def test_root_diverticula(analysis, found, sentences):
    finding = analysis.localization.finding.model_copy(update={"root_diverticula": found})
    localization = replace(analysis.localization, finding=finding)
    report = build_report(replace(analysis, localization=localization))
    assert dict(report_sections(report))["Nerve root sleeves"] == sentences


RETROSPINAL = RetrospinalFluid(
    present=True, volume_ml=0.84, side="left", center_lps_mm=(5, 60, 400), confidence=0.7
)


@pytest.mark.parametrize(
    ("fluid", "sentence"),
    [
        (
            RETROSPINAL,
            "Retrospinal CSF-like fluid at C1-C2 (0.8 mL, left; confidence of the label C2 0.70): "
            "a known false localizing sign: it does not indicate the level.",
        ),
        (
            RetrospinalFluid(present=False, confidence=0.7),
            "No retrospinal fluid at C1-C2 detected.",
        ),
        (
            RetrospinalFluid(present=None, confidence=0.0, not_assessed="no reason"),
            "Retrospinal fluid at C1-C2 not assessed: no reason.",
        ),
    ],
)
def test_retrospinal_fluid_is_stated_if_c2_is_named(analysis, fluid, sentence):
    finding = analysis.localization.finding.model_copy(update={"retrospinal_c1_c2": fluid})
    localization = replace(analysis.localization, finding=finding)
    lumbar = build_report(replace(analysis, localization=localization))
    assert (retrospinal_sentences(lumbar) == ()) is (fluid.present is None)
    first, *others = lumbar.levels.vertebrae
    bodies = (first.model_copy(update={"name": "C2"}), *others)
    levels = lumbar.levels.model_copy(update={"vertebrae": bodies})
    report = lumbar.model_copy(update={"levels": levels})
    assert dict(report_sections(report))["Epidural fluid"][-1] == sentence


@pytest.mark.parametrize("word", ["None.", "nan", "null", "Nullable"])
def test_unknown_values_are_not_printed(analysis, word):
    assert f" {word}" not in report_text(build_report(analysis)).replace("None used", "")


COMPANIONS = {
    "axial_t2": AXIAL_T2.model_copy(update={"confirms": True, "fat_high": 0.83}),
    "enhancement": Enhancement(
        rim=True, rise=0.7, low=0.6, high=0.8, interior_rise=0.0, enhancing_fraction=0.8,
        n_voxels=200, plane="axial",
    ),
    "second_myelogram": SecondMyelogram(
        agreement="confirmed", volume_ml=3.4, covered_fraction=1.0
    ),
}  # fmt: skip


def test_other_series_of_a_collection(analysis):
    report = build_report(analysis)
    first, *others = report.collections
    changed = report.model_copy(
        update={"collections": (first.model_copy(update=COMPANIONS), *others)}
    )
    sentence = dict(report_sections(changed))["Epidural fluid"][0]
    signal = "on axial T2 as bright as CSF, brighter than fat (fat 0.71, up to 0.83 of CSF)"
    assert f"{signal}, side confirmed" in sentence
    assert "dark line detected along 63% of the interface with the sac" in sentence
    assert "interruption of the dark line at L3-L4, left (64°), 3.4 mm wide" in sentence
    assert "not evidence of a tear" in sentence
    assert "rim enhancement on T1 after contrast (rise 0.70 of muscle signal around" in sentence
    assert "second myelogram: confirmed (3.4 mL)" in sentence
    assert "infect" not in sentence and "abscess" not in sentence
    (row, *_) = collection_rows(changed)
    assert row["rim_enhancement"] is True and row["second_myelogram_ml"] == 3.4
    assert collection_rows(report)[0]["second_myelogram"] is None


def test_brightness_on_axial_t2_does_not_confirm_fluid_next_to_bright_fat():
    fat, dark = (AXIAL_T2.model_copy(update=change) for change in ({}, {"bright": False}))
    assert axial_signal(fat) == "bright; fat is not excluded"
    assert axial_signal(dark) == "darker than CSF"
    fluid = AXIAL_T2.model_copy(update={"confirms": True})
    assert axial_signal(fluid) == "as bright as CSF, brighter than fat"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"fraction": 0.04}, "dark line not detected (11 axial slices, 243 samples"),
        ({"fraction": None}, "dark line between sac and fluid not measured (partial volume)"),
        ({"n_excluded": 0}, "(11 axial slices, 243 samples)"),
    ],
)
def test_words_of_the_dark_line(change, expected):
    assert expected in line_text(AXIAL_T2.dark_line.model_copy(update=change))


def test_unmeasured_series_are_not_mentioned(analysis):
    report = build_report(analysis)
    unknown = COMPANIONS["enhancement"].model_copy(update={"rim": None})
    first = report.collections[0].model_copy(update={"enhancement": unknown})
    assert companion_text(first) == []
