import re

import pytest

from leakloc.report import build_report
from leakloc.report.text import report_sections, report_text
from tests.report.conftest import synthetic

HEADINGS = (
    "Technique",
    "Comparison",
    "Numbering and coverage",
    "Epidural fluid",
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


def test_no_collection():
    sections = dict(report_sections(build_report(synthetic(leak=False))))
    assert sections["Epidural fluid"] == ("No epidural fluid collection detected.",)
    assert "does not exclude a leak" in sections["Impression"][0]


@pytest.mark.parametrize("word", ["None.", "nan", "null", "Nullable"])
def test_unknown_values_are_not_printed(analysis, word):
    assert f" {word}" not in report_text(build_report(analysis)).replace("None used", "")
