"""Pointing leakloc at the wrong thing: one sentence, an exit code, no litter."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from leakloc.cli import BAD_USAGE, INPUT_UNUSABLE, main

CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


def refused(capsys, study: Path, out: Path, code: int, *words: str) -> None:
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    assert main(["analyze", str(study), "-o", str(out), "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    if before is not None:
        assert sorted(out.parent.iterdir()) == before  # nothing half-written


@pytest.fixture
def study(tmp_path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def test_empty_folder(capsys, study, out):
    refused(capsys, study, out, INPUT_UNUSABLE, "no files")


def test_missing_folder(capsys, tmp_path, out):
    refused(capsys, tmp_path / "nowhere", out, INPUT_UNUSABLE, "does not exist")


def test_folder_of_pdfs(capsys, study, out):
    for n in range(3):
        (study / f"{n}.pdf").write_bytes(b"%PDF-1.7 nothing to see")
    refused(capsys, study, out, INPUT_UNUSABLE, "PDF")


def test_ct_instead_of_mr(capsys, study, out, series):
    series(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2").write(study)
    refused(capsys, study, out, INPUT_UNUSABLE, "CT")


def test_brain_instead_of_spine(capsys, study, out, series, tube):
    shape = (24, 48, 48)
    series(
        shape=shape,
        spacing_ijk_mm=(4.0, 4.0, 4.0),
        array=tube(shape, 0.5),
        SeriesDescription="t2_tse_tra brain",
        BodyPartExamined="BRAIN",
        ScanningSequence="SE",
        EchoTime=100.0,
        RepetitionTime=5000.0,
    ).write(study)
    refused(capsys, study, out, INPUT_UNUSABLE, "head")


def test_lone_localizer(capsys, study, out, series):
    series(
        shape=(3, 32, 32), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="loc"
    ).write(study)
    refused(capsys, study, out, INPUT_UNUSABLE, "localizer")


def test_thick_slab_only(capsys, study, out, series):
    series(
        shape=(4, 64, 64),
        plane=CORONAL,
        spacing_ijk_mm=(5.0, 5.0, 40.0),
        SliceThickness=40.0,
        SeriesDescription="haste myelo slab cor",
        ScanningSequence="SE",
        EchoTime=1100.0,
        RepetitionTime=6000.0,
    ).write(study)
    refused(capsys, study, out, INPUT_UNUSABLE, "slab")


def test_truncated_files(capsys, study, out, series):
    made = series(
        shape=(12, 32, 32), SeriesDescription="3D myelo", EchoTime=600.0, RepetitionTime=5000.0
    ).write(study)
    for path in made.paths:
        path.write_bytes(path.read_bytes()[:700])
    refused(capsys, study, out, INPUT_UNUSABLE)


def test_noise_without_a_spine_gives_no_report(capsys, tmp_path, out):
    import nibabel as nib

    noise = np.random.default_rng(0).normal(100, 10, (40, 96, 96)).astype(np.float32)
    path = tmp_path / "noise.nii.gz"
    nib.save(nib.Nifti1Image(noise, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    assert main(["analyze", str(path), "-o", str(out), "-q"]) in (3, 4)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not out.exists()


def test_output_that_holds_a_report(capsys, study, out):
    out.mkdir()
    (out / "report.json").write_text("{}")
    refused(capsys, study, out, BAD_USAGE, "contains a report")
    assert (out / "report.json").read_text() == "{}"


def test_output_that_holds_other_files(capsys, study, out):
    out.mkdir()
    (out / "thesis.doc").write_text("precious")
    refused(capsys, study, out, BAD_USAGE, "not belonging to a report")


def test_output_below_a_file(capsys, study, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(capsys, study, tmp_path / "file" / "out", BAD_USAGE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output(capsys, study, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(capsys, study, locked / "out", BAD_USAGE, "cannot write")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, read-only for everyone")
def test_output_where_nobody_can_write(capsys, study):
    refused(capsys, study, Path("/proc/leakloc-out"), BAD_USAGE, "cannot write")


def test_control_characters_do_not_reach_the_terminal(capsys, study, out, series):
    """They could change the title, the colors or the content of a terminal."""
    with pydicom.config.disable_value_validation():
        for name in ("a", "b"):
            made = series(study_uid=f"\x1b]0;{name}\x07\x1b[2J", SeriesDescription="\x1b[31mred")
            made.write(study, prefix=name)
    refused(capsys, study, out, INPUT_UNUSABLE, "images of 2 studies")
    main(["series", str(study)])
    main(["series", str(study), "--study", "\x1b]0;a\x07\x1b[2J"])
    captured = capsys.readouterr()
    assert "?[31mred" in captured.out
    assert "\x1b" not in captured.out + captured.err and "\x07" not in captured.out + captured.err
