"""The HTML page that compares two studies."""

import re
from dataclasses import replace

import pytest

from leakloc.report import build_report
from leakloc.report.compare import RESIDUAL, compare
from leakloc.report.csf_reference import THORACOLUMBAR, ReferenceVolume
from leakloc.report.page.followup import followup_page, same_patient


@pytest.fixture(scope="module")
def page(analysis, leakless):
    reports = build_report(leakless), build_report(analysis)
    return followup_page(*reports, compare(*reports), (leakless, analysis))


def test_the_page_is_self_contained_and_accessible(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert '<html lang="en">' in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 3
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        assert "<caption>" in table
        assert 'scope="col"' in table
        assert 'scope="row"' in table
    assert "prefers-color-scheme:light" in page
    assert "@media print" in page


def test_contents(page, analysis):
    text = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    assert "Epidural fluid increased from 0.0 to 3.5 mL." in text
    assert RESIDUAL in text
    assert build_report(analysis).notice in text
    assert "absent \N{RIGHTWARDS ARROW} present" in text
    assert "No comparison with a published volume" in text


def test_without_images_or_fluid(leakless):
    report = build_report(leakless)
    page = followup_page(report, report, compare(report, report))
    assert "<img" not in page
    assert "images of the studies were not supplied" in page
    assert "No epidural fluid collection in either study" in page
    assert RESIDUAL not in page


def test_a_published_volume_has_its_source(leakless):
    report = build_report(leakless)
    reference = ReferenceVolume(THORACOLUMBAR, (31.4, None))
    page = followup_page(report, report, replace(compare(report, report), reference=reference))
    row = re.search(r"<tr><th scope=\"row\">CSF, T11-T12 disc.*?</tr>", page)[0]
    assert "31.4" in row
    assert "unknown" in row
    assert "Hogan et al." in row
    assert "not limits of normal" in page


def test_values_of_the_reports_are_escaped(analysis):
    report = build_report(analysis)
    finding = report.finding.model_copy(update={"summary": "<script>alert(1)</script>"})
    evil = report.model_copy(update={"finding": finding})
    assert "<script>alert" not in followup_page(evil, report, compare(evil, report))


def test_patient_ids_of_the_headers(analysis, leakless):
    assert same_patient((analysis, leakless)) is True
