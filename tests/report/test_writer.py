import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from leakloc.core.errors import OutputError
from leakloc.core.volume import Volume
from leakloc.pipeline import Analysis
from leakloc.report import Report, check_output, report_schema, write_outputs, writer

Change = Callable[..., Analysis]


@pytest.fixture
def bare(analysis: Analysis, with_settings: Change) -> Analysis:
    """Report and masks only: what the folder does is the same with pictures, but slower."""
    return with_settings(analysis, report__write=["masks"])


def contents(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def test_folder_holds_what_the_report_names(bare: Analysis, folder: Path) -> None:
    report = write_outputs(bare, folder)
    assert contents(folder) == {
        "report.json", "levels.json", *report.outputs.masks.values(), *report.outputs.labels
    }  # fmt: skip
    values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(report_schema()).validate(values)
    assert Report.load(folder) == report
    assert list(folder.parent.iterdir()) == [folder]  # no other files


def test_masks_lie_in_the_patient(bare: Analysis, folder: Path) -> None:
    write_outputs(bare, folder)
    segmentation = bare.segmentation
    for name, mask in [
        ("thecal_sac", segmentation.thecal_sac),
        ("epidural_fluid", segmentation.collections),
        ("levels", bare.levels.mask),
    ]:
        image = nib.load(folder / "masks" / f"{name}.nii.gz")
        assert image.get_data_dtype() == np.uint8
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        np.testing.assert_array_equal(np.transpose(np.asanyarray(image.dataobj)), mask.array)
        voxel = np.argwhere(np.asanyarray(image.dataobj)).mean(axis=0)
        ras = image.affine[:3, :3] @ voxel + image.affine[:3, 3]
        lps = mask.geometry.lps_from_kji(np.argwhere(mask.array)).mean(axis=0)
        np.testing.assert_allclose(ras * [-1, -1, 1], lps, atol=1e-3)


def test_masks_are_the_same_bytes_each_time(bare: Analysis, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_outputs(bare, first)
    write_outputs(bare, second)
    for file in (first / "masks").iterdir():
        assert file.read_bytes() == (second / "masks" / file.name).read_bytes()


def test_labels_of_more_than_8_bits_are_refused(analysis: Analysis, tmp_path: Path) -> None:
    mask = analysis.segmentation.thecal_sac
    wide = mask.with_array(mask.array.astype(np.int32) * 300)
    with pytest.raises(OutputError, match="8 bits"):
        writer.write_mask(wide, tmp_path / "sac.nii.gz")


def test_a_report_is_replaced_only_when_asked(bare: Analysis, folder: Path) -> None:
    write_outputs(bare, folder)
    (folder / "masks" / "levels.nii.gz").unlink()
    with pytest.raises(OutputError, match="contains a report"):
        write_outputs(bare, folder)
    write_outputs(bare, folder, overwrite=True)
    assert (folder / "masks" / "levels.nii.gz").is_file()
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_touched(bare: Analysis, folder: Path, overwrite: bool) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (folder / "report.json").write_text("{}")
    with pytest.raises(OutputError, match="not belonging to a report"):
        write_outputs(bare, folder, overwrite=overwrite)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_used_and_parents_are_created(bare: Analysis, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_outputs(bare, tmp_path / "empty")
    write_outputs(bare, tmp_path / "a" / "b" / "c")
    assert (tmp_path / "empty" / "report.json").is_file()
    assert (tmp_path / "a" / "b" / "c" / "report.json").is_file()


def test_an_existing_file_is_named(bare: Analysis, folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        write_outputs(bare, folder)


def test_read_only_target_gives_one_clear_sentence(
    bare: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "mkdir", denied)  # file modes do not stop root
    with pytest.raises(OutputError, match=r"cannot write in .*Permission denied"):
        check_output(folder)


def test_a_full_disk_leaves_nothing(
    bare: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        write_outputs(bare, folder)
    assert list(folder.parent.iterdir()) == []


def test_an_interrupted_overwrite_keeps_the_old_report(
    bare: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write_outputs(bare, folder)
    rename = Path.rename

    def fails_for_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, os.strerror(5))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(OutputError):
        write_outputs(bare, folder, overwrite=True)
    assert Report.load(folder) == old
    assert list(folder.parent.iterdir()) == [folder]


def test_a_writer_that_fails_becomes_a_warning(
    bare: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(mask: Volume, path: Path, **_: object) -> None:
        path.write_bytes(b"half a mask")
        raise RuntimeError("patient MRN-0047 broke it")

    monkeypatch.setattr(writer, "write_mask", broken)
    report = write_outputs(bare, folder)
    assert report.outputs.masks == {}
    assert not (folder / "masks").exists()
    warning = report.quality.warnings[-1]
    assert warning.code == "masks_not_written"
    assert "RuntimeError" in warning.message and "MRN" not in warning.message


def test_a_report_that_breaks_the_schema_is_not_written(
    bare: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = writer.build_report

    def wrong(*args: object, **values: object) -> Report:
        report = build(*args, **values)  # type: ignore[arg-type]
        finding = report.finding.model_copy(update={"leak": "maybe"})
        return report.model_copy(update={"finding": finding})

    monkeypatch.setattr(writer, "build_report", wrong)
    with pytest.raises(OutputError, match="finding/leak"):
        write_outputs(bare, folder)
    assert list(folder.parent.iterdir()) == []


def test_nothing_but_the_report_where_nothing_else_is_wanted(
    analysis: Analysis, with_settings: Change, folder: Path
) -> None:
    report = write_outputs(with_settings(analysis, report__write=[]), folder)
    assert contents(folder) == {"report.json", "levels.json"}
    assert report.outputs.html is None and report.outputs.overlays == ()


def test_an_empty_study_is_written_too(bare: Analysis, folder: Path) -> None:
    grid = bare.levels.mask
    nothing = replace(
        bare,
        levels=replace(
            bare.levels,
            status="unlabelled",
            vertebrae=(),
            discs=(),
            mask=grid.with_array(np.zeros_like(grid.array)),
        ),
    )
    report = write_outputs(nothing, folder)
    assert report.levels.label_values == {}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_tables_say_what_the_report_says(
    analysis: Analysis, with_settings: Change, folder: Path
) -> None:
    report = write_outputs(with_settings(analysis, report__write=["csv"]), folder)
    assert report.outputs.tables == ("collections.csv", "levels.csv", "measurements.csv")
    assert set(report.outputs.tables) <= contents(folder)
    rows = read_csv(folder / "collections.csv")
    assert [row["level"] for row in rows] == [c.level for c in report.collections]
    assert float(rows[0]["volume_ml"]) == report.collections[0].volume_ml
    assert [float(rows[0][f"epicenter_{axis}_lps_mm"]) for axis in "xyz"] == list(
        report.collections[0].epicenter_lps_mm or ()
    )
    assert rows[1]["sac_compression"] == ""  # unknown
    target = report.planning.targets[0]
    assert float(rows[0]["canal_distance_from_hiatus_mm"]) == target.canal_distance_from_hiatus_mm
    levels = read_csv(folder / "levels.csv")
    named = {v.name for v in report.levels.vertebrae} | {d.name for d in report.levels.discs}
    assert {row["name"] for row in levels} == named
    heights = [float(row["center_z_lps_mm"]) for row in levels]
    assert heights == sorted(heights, reverse=True)
    write_outputs(with_settings(analysis, report__write=["csv"]), folder, overwrite=True)


def test_tables_of_a_study_without_fluid_hold_the_header(
    leakless: Analysis, with_settings: Change, folder: Path
) -> None:
    write_outputs(with_settings(leakless, report__write=["csv"]), folder)
    assert (folder / "collections.csv").read_text().startswith("id,level,")
    assert read_csv(folder / "collections.csv") == []


WRITERS = {
    "masks": ("leakloc.report.writer.write_mask", "masks_not_written"),
    "csv": ("leakloc.report.tables.write_csv", "tables_not_written"),
    "markups": ("leakloc.report.markups.markup_files", "markups_not_written"),
    "fhir": ("leakloc.report.fhir.bundle", "fhir_not_written"),
    "bids": ("leakloc.report.bids.text_files", "bids_not_written"),
    "png": ("leakloc.report.writer.draw_pictures", "pictures_not_written"),
    "pdf": ("leakloc.report.vector.write_pdf", "pdf_not_written"),
    "caudal": ("leakloc.report.caudal.caudal_sheet", "caudal_sheet_not_written"),
    "html3d": ("leakloc.report.page.html3d.page", "page_3d_not_written"),
    "html": ("leakloc.report.page.html.page", "page_not_written"),
}


@pytest.mark.parametrize("part", WRITERS)
def test_each_writer_fails_alone(
    analysis: Analysis,
    with_settings: Change,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    function, code = WRITERS[part]

    def broken(*_: object, **__: object) -> None:
        raise ValueError("broken for the test")

    monkeypatch.setattr(function, broken)
    other = "masks" if part == "csv" else "csv"
    report = write_outputs(with_settings(analysis, report__write=[part, other]), folder)
    assert [w.code for w in report.quality.warnings if w.code.endswith("_not_written")] == [code]
    assert Report.load(folder) == report
    kept = report.outputs.masks if other == "masks" else report.outputs.tables
    assert kept
    mine = {
        "masks": report.outputs.masks, "csv": report.outputs.tables,
        "png": report.outputs.overlays, "pdf": report.outputs.pdf,
        "html3d": report.outputs.html3d, "html": report.outputs.html,
        "caudal": report.outputs.caudal,
        "markups": report.outputs.markups, "fhir": report.outputs.fhir,
        "bids": report.outputs.bids,
    }[part]  # fmt: skip
    assert not mine
    held = contents(folder)
    assert held == {
        "report.json", "levels.json", *report.outputs.masks.values(), *report.outputs.labels,
        *report.outputs.tables,
    }  # fmt: skip
