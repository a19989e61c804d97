from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import batch_fakes as fakes
import nibabel
import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.settings import Settings
from leakloc.services.batch import finder
from leakloc.services.batch.finder import Found, ScanCache, Search, find_studies
from leakloc.services.batch.ledger import Ledger

LOADERS = Settings().loaders
ROOT = fakes.UID_ROOT


def find(*roots: Path, **options) -> Search:
    return find_studies(roots, LOADERS, **options)


def only(search: Search) -> Found:
    (study,) = search.studies
    return study


def volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)


def test_folders_of_any_depth(tmp_path):
    fakes.make_study(tmp_path / "a" / "b" / "c", 1)
    fakes.make_study(tmp_path / "d", 2)
    found = find(tmp_path)
    assert [study.name for study in found.studies] == [f"{ROOT}.1", f"{ROOT}.2"]
    assert found.studies[0].source == (str(tmp_path / "a" / "b" / "c"),)
    assert found.studies[0].study_uid == f"{ROOT}.1"
    assert found.n_files == 6


def test_series_in_folders_of_their_own_are_one_study(tmp_path):
    for series in ("sag", "cor"):
        fakes.make_study(tmp_path / "patient" / series, 1)
    fakes.make_study(tmp_path / "other", 2)
    first = find(tmp_path).studies[1]
    assert (first.source, first.n_files) == ((str(tmp_path / "patient"),), 4)


def test_studies_mixed_in_one_folder_are_distinguished(tmp_path):
    for number in (1, 2):
        fakes.make_study(tmp_path / str(number), number)
        for image in ("im0", "im1"):
            (tmp_path / str(number) / image).rename(tmp_path / f"{image}-{number}")
        shutil.rmtree(tmp_path / str(number))
    first, second = find(tmp_path).studies
    assert first.source == (str(tmp_path / "im0-1"), str(tmp_path / "im1-1"))
    assert second.name == f"{ROOT}.2"


def test_a_study_of_which_a_part_lies_among_others_is_spread(tmp_path):
    fakes.make_study(tmp_path / "a" / "sag", 1)
    fakes.make_study(tmp_path / "b" / "cor", 1)
    fakes.make_study(tmp_path / "b" / "other", 2)
    spread = next(study for study in find(tmp_path).studies if study.name.endswith(".1"))
    assert spread.source == (str(tmp_path / "a" / "sag"), str(tmp_path / "b" / "cor"))


def test_patients_with_the_same_study_uid_are_not_mixed(tmp_path):
    fakes.make_study(tmp_path / "a", 1, patient="A")
    fakes.make_study(tmp_path / "b", 1, patient="B")
    found = find(tmp_path)
    assert [study.source for study in found.studies] == [
        (str(tmp_path / "a"),),
        (str(tmp_path / "b"),),
    ]
    assert len({study.name for study in found.studies}) == 2
    assert all(study.name.startswith(f"{ROOT}.1-") for study in found.studies)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives(tmp_path, kind):
    for number in (1, 2):
        fakes.make_study(tmp_path / "in" / str(number), number)
    archive = tmp_path / "root" / f"Doe^Jane.{kind}"
    archive.parent.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in (tmp_path / "in").rglob("im*"):
                packed.write(file, file.relative_to(tmp_path))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "in", "in")
    for root in (archive, archive.parent):
        studies = find(root).studies
        assert [(s.name, s.source, s.study_uid) for s in studies] == [
            (f"{ROOT}.{n}", (str(archive),), f"{ROOT}.{n}") for n in (1, 2)
        ]
    shutil.move(tmp_path / "in" / "1", archive.parent / "unpacked")
    found = find(archive.parent)
    assert {study.name for study in found.studies} == {f"{ROOT}.1", f"{ROOT}.2"}
    assert found.left_out == {"archives of extracted studies": 1}


def test_a_broken_archive_is_a_study_that_fails(tmp_path):
    (tmp_path / "Doe^Jane.zip").write_bytes(b"PK\x03\x04" + b"broken" * 100)
    broken = only(find(tmp_path))
    assert broken.name.startswith("volume-") and "Doe" not in broken.name


def test_a_table(tmp_path):
    fakes.make_study(tmp_path / "in" / "a", 1)
    fakes.make_study(tmp_path / "in" / "b", 2)
    table = tmp_path / "list.csv"
    table.write_text(f"path,study_uid\nin/a,\nin/b,{ROOT}.2\nin/gone,\n")
    found = find(table)
    assert {study.source[0] for study in found.studies} == {
        str(tmp_path / "in" / name) for name in ("a", "b", "gone")
    }
    gone = next(study for study in found.studies if study.source[0].endswith("gone"))
    assert gone.fingerprint == "missing"
    table.write_text("file\nin/a\n")
    with pytest.raises(InputError, match="column `path`"):
        find(table)


def test_a_dicomdir(tmp_path):
    from pydicom.fileset import FileSet

    sample = Path(__file__).parents[3] / "sample_data" / "postoperative" / "dicom"
    files = FileSet()
    chosen = [file for file in sorted(sample.rglob("*")) if file.is_file()][:3]
    for file in chosen:
        files.add(file)
    files.write(tmp_path / "cd")
    listed = only(find(tmp_path / "cd" / "DICOMDIR"))
    assert listed.n_files == 3
    walked = only(find(tmp_path / "cd"))
    assert (walked.name, walked.n_files) == (listed.name, 3)
    # files that are not listed are ignored
    extra = Path(listed.source[0])
    folder = next(path for path in extra.rglob("*") if path.is_file()).parent
    shutil.copy(next(file for file in folder.iterdir()), folder / "unlisted")
    again = only(find(tmp_path / "cd" / "DICOMDIR"))
    assert again.n_files == 3 and not any("unlisted" in place for place in again.source)
    # and what is listed and gone is counted
    Path(again.source[0]).unlink()
    gone = find(tmp_path / "cd" / "DICOMDIR")
    assert gone.left_out == {"files listed in a DICOMDIR but missing": 1}


def test_other_modalities_are_left_out_and_counted(tmp_path):
    fakes.make_study(tmp_path / "ct", 1, modality="CT")
    fakes.make_study(tmp_path / "mr", 2)
    fakes.make_study(tmp_path / "mr" / "report", 2, modality="SR")
    found = find(tmp_path)
    assert only(found).name == f"{ROOT}.2"
    assert found.left_out == {"studies without MR images": 1}


def test_volumes_count_where_there_is_no_dicom(tmp_path):
    volume(tmp_path / "Doe.nii.gz")
    volume(tmp_path / "sub-01" / "anat" / "t2.nii.gz")
    volume(tmp_path / "sub-01" / "anat" / "t1.nii")
    fakes.make_study(tmp_path / "case" / "dicom", 1)
    volume(tmp_path / "case" / "nifti" / "converted.nii.gz")
    found = find(tmp_path)
    assert {study.source[0] for study in found.studies} == {
        str(tmp_path / "Doe.nii.gz"),
        str(tmp_path / "sub-01" / "anat"),
        str(tmp_path / "case" / "dicom"),
    }
    assert found.left_out == {"volumes next to DICOM images": 1}
    assert not any("Doe" in study.name for study in found.studies)


def test_images_without_a_study_uid_are_a_study_by_their_folder(tmp_path):
    fakes.make_study(tmp_path / "a", 1)
    for image in (tmp_path / "a").glob("im*"):
        image.write_bytes(fakes.header(""))
    study = only(find(tmp_path))
    assert (study.study_uid, study.source) == (None, (str(tmp_path / "a"),))


def test_what_a_batch_wrote_is_not_read_again(tmp_path):
    fakes.make_study(tmp_path / "in", 1)
    fakes.make_study(tmp_path / "out" / f"{ROOT}.9", 9)
    fakes.make_study(tmp_path / "elsewhere" / f"{ROOT}.8", 8)
    fakes.make_study(tmp_path / "report" / "dicom", 7)
    (tmp_path / "report" / "masks").mkdir()
    (tmp_path / "report" / "report.json").touch()
    Ledger(tmp_path / "elsewhere")
    assert only(find(tmp_path, output=tmp_path / "out")).name == f"{ROOT}.1"


def test_links_inside_the_folder_are_followed_once(tmp_path):
    fakes.make_study(tmp_path / "cohort" / ".store" / "x1", 1)
    (tmp_path / "cohort" / "a").symlink_to(tmp_path / "cohort" / ".store" / "x1")
    (tmp_path / "cohort" / "b").symlink_to(tmp_path / "cohort" / ".store" / "x1")
    (tmp_path / "cohort" / "loop").symlink_to(tmp_path / "cohort")
    assert only(find(tmp_path / "cohort")).n_files == 2
    (tmp_path / "root").symlink_to(tmp_path / "cohort")
    assert only(find(tmp_path / "root")).n_files == 2


def test_links_to_other_places_are_counted_and_not_followed(tmp_path):
    root = tmp_path / "cohort"
    fakes.make_study(root / "own", 1)
    fakes.make_study(tmp_path / "cohort-2" / "x", 2)
    (root / "proc").symlink_to("/proc")
    (root / "other").symlink_to(tmp_path / "cohort-2")
    (root / "up").symlink_to("..")
    (root / "image").symlink_to(tmp_path / "cohort-2" / "x" / "im0")
    search = find(root)
    assert only(search).name == f"{ROOT}.1"
    assert search.left_out == {"links to places outside the folder": 4}
    assert search.n_files < 10


@pytest.mark.parametrize("name", ["pipe", "DICOMDIR", "list.csv"])
def test_a_pipe_as_root_is_an_input_error(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="not a regular file or folder"):
        find(tmp_path / name)


def test_text_that_is_no_uid_names_no_report_folder(tmp_path):
    fakes.make_study(tmp_path / "a", 1)
    (tmp_path / "list.csv").write_text("path,study_uid\na,../../DOE JANE\na,1.2.3\nb,DOE\n")
    names = {study.name for study in find(tmp_path / "list.csv").studies}
    assert "1.2.3" in names and len(names) == 3
    assert all(name == "1.2.3" or re.fullmatch("volume-[0-9a-f-]+", name) for name in names)


@pytest.mark.parametrize("name", ["a.nii", "a.zip"])
def test_files_that_disappear_after_they_are_listed_are_left_out(tmp_path, monkeypatch, name):
    fakes.make_study(tmp_path / "x", 1)
    if name == "a.nii":
        volume(tmp_path / name)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a", "x")
    truly = finder._Finder.studies

    def studies(self):
        (tmp_path / name).unlink(missing_ok=True)
        return truly(self)

    monkeypatch.setattr(finder._Finder, "studies", studies)
    search = find(tmp_path)
    assert only(search).name == f"{ROOT}.1"
    assert search.left_out == {"files that cannot be opened": 1}


def test_roots_named_twice_or_overlapping_give_a_study_once(tmp_path):
    fakes.make_study(tmp_path / "a" / "b", 1)
    for roots in ((tmp_path, tmp_path), (tmp_path, tmp_path / "a")):
        assert only(find(*roots)).name == f"{ROOT}.1"
    image = tmp_path / "a" / "b" / "im0"
    assert only(find(image, image)).name == f"{ROOT}.1"


def test_a_root_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find(tmp_path / "nothing")


@pytest.mark.parametrize("change", ["add", "rewrite", "touch", "remove"])
def test_the_fingerprint_depends_only_on_changes(tmp_path, change):
    folder = tmp_path / "a"
    fakes.make_study(folder, 1)
    before = only(find(tmp_path)).fingerprint
    assert only(find(tmp_path)).fingerprint == before
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert only(find(tmp_path)).fingerprint == before
    match change:
        case "add":
            (moved / "im2").write_bytes(fakes.header(f"{ROOT}.1"))
        case "rewrite":
            (moved / "im1").write_bytes(fakes.header(f"{ROOT}.1") + b"more")
        case "touch":
            os.utime(moved / "im1", ns=(0, time.time_ns()))
        case "remove":
            (moved / "im1").unlink()
    assert only(find(tmp_path)).fingerprint != before


def test_folders_that_did_not_change_are_not_read_again(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "out")
    for number in range(3):
        fakes.make_study(tmp_path / "in" / str(number), number + 1)
    fakes.make_study(tmp_path / "in" / "0", 4)  # replaces the first
    with zipfile.ZipFile(tmp_path / "in" / "z.zip", "w") as packed:
        packed.writestr("im", fakes.header(f"{ROOT}.7"))
    first = find(tmp_path / "in", cache=ScanCache(ledger))
    read: list[str] = []
    identify = finder._identify
    monkeypatch.setattr(finder, "_identify", lambda path: read.append(path) or identify(path))
    assert find(tmp_path / "in", cache=ScanCache(ledger)) == first
    assert read == []
    (tmp_path / "in" / "1" / "im5").write_bytes(fakes.header(f"{ROOT}.2"))
    again = find(tmp_path / "in", cache=ScanCache(ledger))
    assert {Path(path).parent.name for path in read} == {"1"}
    assert [a.name for a in again.studies] == [a.name for a in first.studies]
    changed = set(again.studies) - set(first.studies)
    assert [study.name for study in changed] == [f"{ROOT}.2"]
