import json

import pytest

from leakloc.cli import main
from leakloc.core.errors import InputError
from leakloc.validation.evaluation import evaluate_readers
from leakloc.validation.evaluation.readers import read_findings
from tests.report.conftest import synthetic

HEADER = "study,segment,fluid,reference,reader\n"
TRUE = (
    "a,L3-L4,0,CTM,R1\na,L4-L5,1,CTM,R1\na,L5-S1,1,CTM,R1\n"
    "b,L3-L4,0,CTM,R1\nb,L4-L5,0,CTM,R1\nb,T1-T2,0,CTM,R1\n"
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Study a with fluid at L4-L5, study b without fluid; both from L3-L4 to L5-S1."""
    folder = tmp_path_factory.mktemp("reports")
    for name, leak in (("a", True), ("b", False)):
        (folder / name).mkdir()
        report = synthetic(leak=leak).report
        (folder / name / "report.json").write_text(report.to_json(), encoding="utf-8")
    return folder


def table(tmp_path, text):
    path = tmp_path / "readers.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_agreement_by_segment_and_by_patient(reports, tmp_path):
    (one,) = evaluate_readers(reports, table(tmp_path, HEADER + TRUE))
    summary = one.summary()
    assert (summary["reference"], summary["reader"]) == ("CTM", "R1")
    assert summary["n_patients"] == 2 and summary["n_segments"] == 5
    assert summary["n_segments_outside_the_field_of_view"] == 1
    assert summary["by_segment"]["sensitivity"]["value"] == 0.5
    assert summary["by_segment"]["specificity"]["value"] == 1.0
    # Observed agreement 4/5, by chance (1/5 * 2/5 + 4/5 * 3/5).
    assert summary["by_segment"]["kappa"]["value"] == pytest.approx((0.8 - 0.56) / (1 - 0.56))
    assert summary["by_patient"]["sensitivity"]["value"] == 1.0
    low, high = summary["by_patient"]["specificity"]["interval"]
    assert low == pytest.approx(0.207, abs=0.001) and high == 1.0


def test_references_and_readers_are_separate(reports, tmp_path):
    text = HEADER + TRUE + "a,L4-L5,0,MRM,R1\nb,L4-L5,0,MRM,R2\n"
    found = evaluate_readers(reports, table(tmp_path, text))
    assert [(one.reference, one.reader) for one in found] == [
        ("CTM", "R1"),
        ("MRM", "R1"),
        ("MRM", "R2"),
    ]
    assert found[1].summary()["by_segment"]["sensitivity"]["value"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,segment\na,L4-L5\n", "no column 'fluid'"),
        (HEADER, "no rows"),
        (HEADER + "a,L4,1,,\n", "line 2: 'L4' is not a motion segment"),
        (HEADER + "a,L4-L5,maybe,,\n", "line 2: fluid is 'maybe'"),
        (HEADER + "a,L4-L5,1,,\na,L4-L5,0,,\n", "line 3: contradicts"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_findings(table(tmp_path, text))


@pytest.mark.parametrize("name", ["c", "../reports", ""])
def test_a_study_without_a_report_is_named(reports, tmp_path, name):
    with pytest.raises(InputError, match="no report of study"):
        evaluate_readers(reports, table(tmp_path, f"{HEADER}{name},L4-L5,1,,\n"))


def test_command(reports, tmp_path, capsys):
    path = table(tmp_path, HEADER + TRUE)
    assert main(["evaluate", str(reports), "--readers", str(path), "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert summary["by_segment"]["specificity"]["value"] == 1.0
    assert main(["evaluate", str(reports), "--readers", str(path)]) == 0
    assert "CTM R1: 2 patients, 5 segments" in capsys.readouterr().out
    assert main(["evaluate", "--readers", str(path)]) == 2
