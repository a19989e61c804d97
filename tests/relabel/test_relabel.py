"""Relabeling from a saved analysis gives the same report as a whole analysis."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from leakloc.cli import BAD_USAGE, DONE, INPUT_UNUSABLE, main
from leakloc.core.errors import InputError, OutputError, SettingsError
from leakloc.core.volume import Geometry, Volume
from leakloc.pipeline import Analysis, analyze
from leakloc.relabel import relabel, reopen
from leakloc.report import Report, relabel_data
from tests.conftest import SAMPLE

WORDS = {
    "as analyzed": {},
    "six lumbar vertebrae": {"lumbar_count": 6},
    "lowest disc": {"lowest_disc": "L4-L5"},
}


def said(report: Report) -> dict:
    """All of a report but when it was made and how long that took."""
    values = json.loads(report.to_json())
    del values["generator"]["created"], values["generator"]["runtime_s"]
    return values


def analyzed(analysis: Analysis, word: dict, **options: object) -> Analysis:
    """The whole analysis with the user's word; only the segmentation is not done twice."""
    settings = analysis.settings.changed(
        **{f"levels__{name}": value for name, value in word.items()}
    )
    found = analysis.basis.segmentation
    return analyze(analysis.study, settings, segmenter=lambda *_: found, **options)


def anchor(analysis: Analysis) -> dict:
    """The disc found as L3-L4, called L4-L5."""
    disc = next(d for d in analysis.levels.discs if d.name == "L3-L4")
    return {"anchor": "L4-L5@" + ",".join(f"{x:.1f}" for x in disc.center_lps)}


@pytest.mark.parametrize("word", [*WORDS, "anchor"])
def test_relabelling_gives_the_report_of_a_whole_analysis(analysis, finished, tmp_path, word):
    word = WORDS[word] if word in WORDS else anchor(analysis)
    whole, again = finished, shutil.copytree(finished, tmp_path / "again")
    if word:
        whole = tmp_path / "whole"
        analyzed(analysis, word).save(whole)
    expected = Report.load(whole)
    assert said(relabel(again, **word)) == said(expected)
    parts = ("masks/levels.nii.gz", "masks/levels_dseg.tsv", "levels.json", "levels.csv")
    for name in (*parts, "collections.csv", "measurements.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    named = expected.levels.vertebrae == Report.load(finished).levels.vertebrae
    assert named == (word == {})


def test_an_edited_list_of_levels_gives_the_same_too(analysis, folder, tmp_path):
    edited = json.loads((folder / "levels.json").read_text())
    names = [v["name"] for v in edited["vertebrae"]]
    for vertebra, name in zip(edited["vertebrae"][1:], names, strict=False):
        vertebra["name"] = name
    del edited["vertebrae"][0], edited["discs"]
    (folder / "levels.json").write_text(json.dumps(edited))
    expected = analyzed(analysis, {}, levels=folder / "levels.json")
    found = relabel(folder, levels=folder / "levels.json")
    assert said(found) == said(expected.save(tmp_path / "expected"))
    assert found.levels.numbering.method == "user"


def test_supplied_levels_are_retained_and_not_renumbered(analysis, folder, tmp_path):
    given = analyzed(analysis, {}, levels=folder / "levels.json")
    report = given.save(tmp_path / "given")
    assert said(relabel(tmp_path / "given")) == said(report)
    with pytest.raises(SettingsError, match="cannot be renumbered"):
        relabel(tmp_path / "given", lumbar_count=6)


@pytest.mark.parametrize("supplied", [False, True])
def test_reopened_results_are_those_of_the_report(analysis, folder, tmp_path, supplied):
    if supplied:
        edited = json.loads((folder / "levels.json").read_text())
        for vertebra, name in zip(edited["vertebrae"], ["T10", "T11", "T12"], strict=False):
            vertebra["name"] = name
        edited["vertebrae"], edited["discs"] = edited["vertebrae"][:3], []
        (tmp_path / "other.json").write_text(json.dumps(edited))
        relabel(folder, levels=tmp_path / "other.json")
    else:
        relabel(folder, lumbar_count=6)
    report = Report.load(folder)
    found = reopen(folder, SAMPLE)
    assert [v.name for v in found.levels.vertebrae] == [v.name for v in report.levels.vertebrae]
    assert [c.level for c in found.localization.collections] == [
        c.level for c in report.collections
    ]
    np.testing.assert_array_equal(
        found.segmentation.collections.array, analysis.segmentation.collections.array
    )
    assert found.triage.myelogram.geometry.matches(analysis.triage.myelogram.geometry)


def test_names_of_the_analysis_come_back(finished, folder):
    relabel(folder, lumbar_count=6)
    relabel(folder, lowest_disc="L4-L5")
    assert said(relabel(folder)) == said(Report.load(finished))


def with_pictures(analysis: Analysis, out: Path) -> Report:
    write = ["json", "png", "html", "seg", "relabel"]
    settings = analysis.settings.changed(report__write=write)
    return analyze(analysis.study, settings, segmenter=lambda *_: analysis.basis.segmentation).save(
        out
    )


def test_figures_are_retained_removed_or_recreated(analysis, tmp_path):
    """Never with names that they do not show."""
    out = tmp_path / "out"
    report = with_pictures(analysis, out)
    names = (*report.outputs.overlays, report.outputs.html, report.outputs.dicom["seg"])
    shown = {name: (out / name).read_bytes() for name in names}
    assert shown
    assert said(relabel(out)) == said(report)
    assert {name: (out / name).read_bytes() for name in shown} == shown

    removed = relabel(out, lumbar_count=6)
    assert not removed.outputs.overlays
    assert not removed.outputs.dicom
    page = (out / removed.outputs.html).read_text()
    assert "L5-L6" in page
    assert "<canvas" not in page
    assert not (out / "overlays").exists()
    assert not (out / "dicom").exists()
    assert "pictures_removed" in {w.code for w in removed.quality.warnings}
    assert said(relabel(out, lumbar_count=6)) == said(removed)

    renumbered = relabel(out, lumbar_count=6, study=SAMPLE)
    assert renumbered.outputs.overlays == report.outputs.overlays
    assert renumbered.outputs.dicom == report.outputs.dicom
    assert "pictures_removed" not in {w.code for w in renumbered.quality.warnings}
    assert "<canvas" in (out / renumbered.outputs.html).read_text()
    assert any((out / name).read_bytes() != shown[name] for name in report.outputs.overlays)


def test_pictures_without_the_study_and_another_study_are_refused(folder, series, tmp_path):
    with pytest.raises(SettingsError, match="png: images needed; specify the study with --study"):
        relabel(folder, write=("json", "png"))
    series().write(tmp_path / "other")
    before = (folder / "report.json").read_bytes()
    with pytest.raises(InputError):
        relabel(folder, study=tmp_path / "other")
    assert (folder / "report.json").read_bytes() == before


def test_no_patient_data_is_stored_that_the_report_does_not_contain(analysis, finished):
    with np.load(finished / relabel_data.NAME, allow_pickle=False) as found:
        text = found["text"].tobytes().decode()
    info = analysis.study.info
    frame = analysis.triage.myelogram.geometry.frame_of_reference_uid
    assert frame
    assert info.patient_id
    for secret in (info.patient_id, info.study_instance_uid, frame, str(SAMPLE)):
        assert secret not in text


ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_]),
    st.tuples(*[st.integers(1, 5)] * 3),
    fill=st.just(0),
)


@given(array=ARRAYS)
def test_a_volume_comes_back_as_it_was(array):
    """Any numbers, infinite and undefined ones too, and their type; nothing at all as well."""
    geometry = Geometry.from_axes(array.shape, origin_lps=(1, 2, 3), spacing_ijk_mm=(0.5, 1, 2))
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(relabel_data._pack(Volume(array, geometry), arrays))
    back = relabel_data._unpack(json.loads(text), arrays)
    assert back.array.dtype == array.dtype
    assert np.array_equal(back.array, array, equal_nan=array.dtype.kind == "f")
    assert back.geometry.matches(geometry, tolerance_mm=0)


def test_the_image_is_stored_where_planning_reads_it(analysis, finished):
    """And not elsewhere: the stored part is small."""
    whole = analysis.basis.landmarks.anatomy
    field_values = relabel_data.load(finished).basis.landmarks.anatomy
    assert 0 < np.count_nonzero(field_values.array) < 0.5 * np.count_nonzero(whole.array)
    nonzero = field_values.array != 0
    assert np.array_equal(field_values.array[nonzero], whole.array[nonzero])
    targets = Report.load(finished).planning.targets
    assert any(w.skin_to_canal_mm is not None for t in targets for w in t.interlaminar)
    assert any(t.narrowest_posterior_depth is not None for t in targets)
    assert (finished / relabel_data.NAME).stat().st_size < 2_000_000


def rewritten(path: Path, **changes: object) -> None:
    with np.load(path, allow_pickle=False) as found:
        arrays = dict(found)
    text = json.loads(arrays["text"].tobytes()) | changes
    arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez(path, **arrays)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def flipped(path: Path) -> None:
    """One byte of the largest member."""
    with zipfile.ZipFile(path) as packed:
        member = max(packed.infolist(), key=lambda m: m.compress_size)
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size // 2] ^= 0xFF
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.savez(path, text=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "contains no relabel.npz.*: run leakloc analyze again"),
        (cut, "damaged: run leakloc analyze again"),
        (flipped, "damaged: run leakloc analyze again"),
        (pickled, "damaged: run leakloc analyze again"),
        (lambda p: rewritten(p, basis={"class": "note", "fields": {}}), "damaged"),
        (lambda p: rewritten(p, settings={"unheard": {}}), "damaged"),
        (lambda p: rewritten(p, detection=None), "damaged"),
        (lambda p: rewritten(p, version="0.0.1"), "another version .* run leakloc analyze again"),
        (lambda p: rewritten(p, format=99), "another version .* run leakloc analyze again"),
    ],
)
def test_a_damaged_file_is_refused(folder, spoil, message):
    spoil(folder / relabel_data.NAME)
    with pytest.raises(InputError, match=message):
        relabel(folder, lumbar_count=6)
    assert Report.load(folder).levels.numbering.lumbar_count == 5


def test_foreign_files_and_folders_without_a_report_are_left_alone(folder, tmp_path):
    (folder / "my notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"my notes\.txt"):
        relabel(folder)
    assert (folder / "my notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="contains no report"):
        relabel(tmp_path)


def test_command_says_what_changed_and_errors_have_their_codes(capsys, folder):
    assert main(["relabel", str(folder), "--lumbar-count", "6"]) == DONE
    assert "L5-L6" in capsys.readouterr().out
    assert main(["relabel", str(folder), "--lowest-disc", "nonsense"]) == BAD_USAGE
    assert main(["relabel", str(folder), "--write", "sr"]) == BAD_USAGE
    (folder / relabel_data.NAME).unlink()
    assert main(["relabel", str(folder)]) == INPUT_UNUSABLE


def test_nothing_heavy_is_imported(folder):
    """Importing these takes longer than relabeling."""
    code = (
        "import sys; from leakloc.cli import main; "
        f"assert main(['relabel', {str(folder)!r}, '--lumbar-count', '6']) == 0; "
        "print(sorted({'matplotlib', 'onnxruntime', 'highdicom', "
        "'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
