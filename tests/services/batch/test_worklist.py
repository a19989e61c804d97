from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from leakloc.services.batch.ledger import Entry, State
from leakloc.services.batch.summaries import StudySummary
from leakloc.services.batch.table import COLUMNS, as_csv, as_parquet, table_rows
from leakloc.services.batch.worklist import worklist

EVIL = "<script>alert(1)</script>\"'&"
SUMMARY = StudySummary(
    study_instance_uid="1.2", study_date="20260101", patient_id=None, leak="present",
    level="L4-L5", confidence=0.9, summary="Fluid at L4-L5.", collections=1, volume_ml=3.5,
    thickness_mm=4.0, position="dorsal", grade="definite", numbering="five lumbar vertebrae",
    numbering_confidence=0.8, warnings=(("low_snr", "Noisy."),), page="report.html",
    picture=None, thumbnail=None,
)  # fmt: skip


def entry(name: str, state: State = State.FINISHED, **values) -> Entry:
    return Entry(name, ("/in/Doe",), None, "f", "s", state, **values)


CASES = {
    "waiting": (entry("waiting", State.WAITING), None),
    "absent": (
        entry("absent"),
        replace(SUMMARY, leak="absent", level=None, collections=0, summary="None."),
    ),
    "failed": (entry("failed", State.FAILED, error_class="Crash", error_message=EVIL), None),
    "unsure": (entry("unsure"), replace(SUMMARY, confidence=0.5)),
    "doubtful": (
        entry("doubtful"),
        replace(SUMMARY, leak="indeterminate", level="L1-L2", summary="Fluid?"),
    ),
    "small": (entry("small"), replace(SUMMARY, volume_ml=0.5)),
    "sure": (entry("sure"), SUMMARY),
}
URGENT_FIRST = ["sure", "small", "unsure", "doubtful", "failed", "absent", "waiting"]
ENTRIES = [one for one, _ in CASES.values()]
SUMMARIES = {name: summary for name, (_, summary) in CASES.items() if summary is not None}


def test_the_most_urgent_come_first():
    assert [row["study"] for row in table_rows(ENTRIES, SUMMARIES)] == URGENT_FIRST
    page = worklist(ENTRIES, SUMMARIES)
    places = [page.index(f"<code>{name}</code>") for name in URGENT_FIRST]
    assert places == sorted(places)


def test_every_text_is_escaped():
    summary = replace(
        SUMMARY,
        summary=EVIL,
        level=EVIL,
        patient_id=EVIL,
        study_date=EVIL,
        warnings=((EVIL, EVIL),),
        page=f"{EVIL}.html",
    )
    summaries = {"sure": summary}
    page = worklist([CASES["sure"][0], CASES["failed"][0]], summaries)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 6
    assert "/in/Doe" not in page


def test_tables_hold_every_study_and_type():
    rows = table_rows(ENTRIES, SUMMARIES)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["study"] for row in read] == URGENT_FIRST
    assert tuple(read[0]) == COLUMNS
    assert (read[0]["warnings"], read[4]["level"], read[0]["report"]) == (
        "low_snr",
        "",
        "sure/report.json",
    )
    frame = pd.read_parquet(io.BytesIO(as_parquet(rows)))
    assert frame["confidence"].isna().sum() == 2 and frame["confidence"].max() == 0.9
    assert pd.read_parquet(io.BytesIO(as_parquet([]))).empty


def test_a_spreadsheet_finds_no_formula():
    evil = replace(CASES["failed"][0], error_message="=cmd|' /C calc'!A0")
    assert "'=cmd" in as_csv(table_rows([evil], {}))


@pytest.fixture
def browser():
    sync = pytest.importorskip("playwright.sync_api")
    chromium = next(
        (p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if p.exists()), None
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync.sync_playwright() as player:
        opened = player.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield opened
        opened.close()


def test_the_page_sorts_and_filters_in_a_browser(browser, tmp_path):
    (tmp_path / "index.html").write_text(worklist(ENTRIES, SUMMARIES), encoding="utf-8")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())

    def shown() -> list[str]:
        names = page.locator("tbody tr:not([hidden]) td:last-child code")
        return names.all_text_contents()

    assert shown() == URGENT_FIRST
    page.get_by_role("button", name="Volume").click()
    assert shown()[:2] == ["sure", "unsure"] and shown()[3:5] == ["absent", "small"]
    page.get_by_role("button", name="Level").click()
    assert shown()[0] == "doubtful"
    page.get_by_role("button", name="Level").click()
    assert shown()[3] == "doubtful"  # the other way round; those without a level stay last
    page.get_by_role("button", name="Epidural fluid").click()
    assert shown() == URGENT_FIRST
    page.get_by_label("failed").uncheck()
    assert "failed" not in shown() and len(shown()) == 6
    page.get_by_role("searchbox").fill("l4-l5 low")
    assert shown() == ["sure", "small", "unsure"]
    assert page.locator("#shown").text_content() == "3 of 7 shown"
    assert complaints == []


def test_one_study_is_not_plural():
    assert "<h1>1 study</h1>" in worklist(ENTRIES[:1], SUMMARIES)
    assert "<h1>2 studies</h1>" in worklist(ENTRIES[:2], SUMMARIES)


def test_each_confidence_of_the_worklist_states_what_it_refers_to():
    page = worklist([CASES["sure"][0], CASES["absent"][0]], SUMMARIES)
    assert "numbering confidence 80%</span>" in page
    assert '90%<br><span class="faint">fluid</span>' in page
    assert '90%<br><span class="faint">no fluid</span>' in page
