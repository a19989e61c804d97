"""Atomic writing of the report folder of a study.

All files are written to a hidden sibling of the target folder, which is renamed after
``report.json`` has been validated against the schema. Incomplete reports are therefore never
visible, and a failure leaves no files.
"""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import numpy as np

from leakloc.analysis import AnalysisData
from leakloc.core.errors import LeaklocError, OutputError, reason_of
from leakloc.core.extras import LazyModule
from leakloc.core.notes import Note, note
from leakloc.core.quiet import quiet_libraries
from leakloc.levels.schemes import level_scheme
from leakloc.report import bids, caudal, fhir, label_files, markups, relabel_data, tables
from leakloc.report.build import build_report
from leakloc.report.model import Outputs, Report
from leakloc.report.overlays import Picture, draw_pictures, figures
from leakloc.report.page import html, html3d
from leakloc.report.page.key_images import KeyImage, key_images
from leakloc.report.page.viewer import Viewer, make_viewer
from leakloc.report.text import report_text

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.core.volume import Volume
    from leakloc.levels.result import Levels
    from leakloc.loaders.study import SeriesStack
    from leakloc.report import dicom, structured_report, vector
    from leakloc.report.model import Corrections
    from leakloc.segmentation.result import Segmentation
else:  # only needed for some outputs: highdicom and matplotlib are imported slowly
    dicom = LazyModule("leakloc.report.dicom")
    structured_report = LazyModule("leakloc.report.structured_report")
    vector = LazyModule("leakloc.report.vector", "figures")

PARTS: Final = frozenset(
    {
        "report.json",
        "levels.json",
        "collections.csv",
        "levels.csv",
        "measurements.csv",
        "report.html",
        "report.txt",
        "report3d.html",
        "figures.pdf",
        "caudal_access.pdf",
        "overlays",
        "masks",
        "dicom",
        "relabel.npz",
        "markups",
        "fhir.json",
        "derivatives",
    }
)
"""Contents of a report folder; a folder with other contents is never replaced."""


_SCHEMA: Final = Path(__file__).with_name("report.schema.json")
"""Equal to `report_schema`, which is slow to create."""
_LIBRARIES: Final = frozenset({"highdicom", "pydicom", "nibabel"})
"""Packages whose error messages are about attributes and files."""


def check_output(folder: Path, *, overwrite: bool = False) -> None:
    """Check that a report can be written to `folder`, before the analysis.

    Raises
    ------
    OutputError
        If it contains a report and `overwrite` is false, contains files not belonging to a
        report, is a file or a mount point, or is not writable.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} is not a folder; specify a new one")
    if folder.exists():
        _check_replaceable(folder, overwrite=overwrite)
    ancestor = next(parent for parent in folder.parents if parent.exists())
    probe = ancestor / f".leakloc-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OutputError(
            f"cannot write in {ancestor}: {error.strerror}; specify another folder"
        ) from error


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    if folder.is_mount():
        raise OutputError(
            f"{folder} is a mount point, which cannot be replaced atomically; "
            f"specify a folder in it, such as {folder / 'report'}"
        )
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise OutputError(f"cannot read {folder}: {error.strerror}") from error
    if names - PARTS or (names and "report.json" not in names):
        raise OutputError(
            f"{folder} contains files not belonging to a report; specify a new or empty folder"
        )
    if names and not overwrite:
        raise OutputError(
            f"{folder} contains a report; specify another folder or enable overwriting"
        )


def write_outputs(
    analysis: AnalysisData,
    folder: Path,
    *,
    overwrite: bool = False,
    corrections: tuple[Corrections, ...] = (),
    uncorrected: AnalysisData | None = None,
) -> Report:
    """Write the report folder of one study according to ``analysis.settings.report.write``.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages.
    folder : Path
        Created atomically; missing parents are created.
    overwrite : bool
        Replace an existing report.
    corrections : tuple of Corrections
        Corrections by readers that the results contain.
    uncorrected : AnalysisData, optional
        Results before these corrections, which are stored for `leakloc relabel`.

    Returns
    -------
    Report
        As written. If another output than ``report.json`` fails, it is reported in
        ``quality.warnings`` and leaves no file.

    Raises
    ------
    OutputError
        If the folder must not be replaced or is not writable, or the report violates its
        schema.
    """
    folder = Path(folder).absolute()
    check_output(folder, overwrite=overwrite)
    with staged_folder(folder, overwrite=overwrite) as staging:
        build = partial(build_report, analysis, corrections=corrections)
        draft = Draft(staging, analysis.settings, build)
        if "relabel" in draft.wanted and analysis.basis is not None:
            path = staging / relabel_data.NAME
            draft.attempt(
                "relabel_file_not_written",
                lambda: relabel_data.save(uncorrected or analysis, path),
                relabel_data.NAME,
            )
        return draft.write_all(analysis)


def validate(report: Report) -> None:
    """Validate a report against the JSON Schema.

    Raises
    ------
    OutputError
        If it violates the schema; the message includes the path.
    """
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    values = json.loads(report.to_json())
    error = jsonschema.exceptions.best_match(validator.iter_errors(values))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise OutputError(f"the report violates its schema at {place}: {error.message[:200]}")


@dataclass
class Draft:
    """A report folder that is being written.

    Parameters
    ----------
    folder : Path
        The staged folder.
    settings : Settings
    build : callable
        Returns the report, with the arguments `outputs`, `notes` and `runtime_s` of
        `build_report`.
    """

    folder: Path
    settings: Settings
    build: Callable[..., Report]
    notes: list[Note] = field(default_factory=list)
    overlays: tuple[str, ...] = ()
    masks: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    markups: tuple[str, ...] = ()
    dicom: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    html: str | None = None
    pdf: str | None = None
    caudal: str | None = None
    html3d: str | None = None
    tables: tuple[str, ...] = ()
    fhir: str | None = None
    bids: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    key_images: tuple[KeyImage, ...] = ()
    identity: tuple[str, ...] = ()
    _start: float = field(default_factory=time.perf_counter)

    @property
    def wanted(self) -> frozenset[str]:
        """Outputs to write."""
        return frozenset(self.settings.report.write)

    def report(self) -> Report:
        """Build the report with the outputs written so far."""
        outputs = Outputs(
            text="report.txt" if "text" in self.wanted else None,
            overlays=self.overlays,
            masks=self.masks,
            labels=self.labels,
            markups=self.markups,
            dicom=self.dicom,
            html=self.html,
            pdf=self.pdf,
            caudal=self.caudal,
            html3d=self.html3d,
            tables=self.tables,
            fhir=self.fhir,
            bids=self.bids,
        )
        writing_s = time.perf_counter() - self._start
        return self.build(outputs=outputs, notes=self.notes, runtime_s={"writing": writing_s})

    def write_all(self, analysis: AnalysisData) -> Report:
        """Write all requested outputs, ``report.json`` last."""
        self.write_masks(analysis.segmentation, analysis.levels)
        if self.wanted & {"png", "html", "sc"}:
            self.attempt("pictures_not_written", lambda: self._pictures(analysis))
        if "png" in self.wanted and self.pictures:
            self.attempt("overlays_not_written", self._overlays, "overlays")
        if "pdf" in self.wanted:
            self.attempt("pdf_not_written", lambda: self._pdf(analysis), "figures.pdf")
        if self.wanted & {"seg", "sr", "sc"}:
            self._write_dicom(analysis)
        self.write_exports()
        self.write_caudal()
        if "html3d" in self.wanted:
            self.attempt("page_3d_not_written", lambda: self._page_3d(analysis), "report3d.html")
        return self.finish(lambda: self._viewer(analysis))

    def finish(self, viewer: Callable[[], Viewer | None] = lambda: None) -> Report:
        """Write the HTML report, if requested and not yet written, and the JSON files."""
        report = self.report()
        if "html" in self.wanted and self.html is None:
            report = self._write_page(report, viewer)
        validate(report)
        levels = report.levels.model_dump_json(indent=2, by_alias=True)
        if "text" in self.wanted:
            (self.folder / "report.txt").write_text(report_text(report), encoding="utf-8")
        # levels.json can be edited and supplied again.
        (self.folder / "levels.json").write_text(levels, encoding="utf-8")
        (self.folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        return report

    def attempt(self, code: str, write: Callable[[], None], *leftovers: str) -> None:
        """Run one writer; if it fails, remove its files and add the warning `code`."""
        try:
            with quiet_libraries():
                write()
        except Exception as error:  # the report is written even if a writer fails
            logging.getLogger(__name__).debug(code, exc_info=True)
            for name in leftovers:
                _remove(self.folder / name)
            self.notes.append(note(code, error=self._reason(error)))

    def _reason(self, error: Exception) -> str:
        """Return the class of an error, with its text if that is about the files written."""
        frames = traceback.extract_tb(error.__traceback__)
        places = {part for frame in frames for part in Path(frame.filename).parts}
        from_library = not places.isdisjoint(_LIBRARIES)
        if not (from_library or isinstance(error, LeaklocError)):
            return type(error).__name__  # the text of other errors may contain patient data
        text = reason_of(error)
        for value in self.identity:
            text = text.replace(value, "...")
        return text

    def _write_dicom(self, analysis: AnalysisData) -> None:
        """Write the DICOM objects, which contain the measurements of the report."""
        stacks = dicom.source_stacks(analysis)
        if not stacks:
            self.notes.append(note("no_dicom_source"))
            return
        report = self.report()
        self.attempt(
            "dicom_objects_not_written", lambda: self._dicom(analysis, stacks, report), "dicom"
        )

    def _dicom(
        self, analysis: AnalysisData, stacks: tuple[SeriesStack, ...], report: Report
    ) -> None:
        keep = analysis.settings.report.dicom_identity == "keep"
        sources = dicom.read_sources(stacks, keep_identity=keep)
        self.identity = dicom.identifying_values(sources)
        found = dicom.segments(analysis)
        target = self.folder / "dicom"
        target.mkdir()
        made: list[Any] = []

        def save(made: Any, path: Path) -> None:
            if not keep:
                dicom.mark_without_identity(made)
            dicom.save(made, path)

        def segmentation() -> None:
            made.append(dicom.segmentation_object(analysis, found, sources))
            save(made[0], target / "seg.dcm")
            self.dicom["seg"] = "dicom/seg.dcm"

        captures: list[structured_report.Capture] = []

        def measurements() -> None:
            document = structured_report.report_object(
                report, found, sources, made[0] if made else None, captures
            )
            save(document, target / "sr.dcm")
            self.dicom["sr"] = "dicom/sr.dcm"

        def secondary_captures() -> None:
            (target / "sc").mkdir()
            names = []
            written = []
            for picture, capture in dicom.secondary_captures(self.pictures, sources):
                save(capture, target / "sc" / f"{picture.name}.dcm")
                names.append(f"dicom/sc/{picture.name}.dcm")
                del capture.PixelData  # only its identifiers are needed
                written.append(structured_report.Capture(capture, picture.collection))
            self.dicom["sc"] = tuple(names)
            captures.extend(written)

        if "seg" in self.wanted and found:
            self.attempt("dicom_segmentation_not_written", segmentation, "dicom/seg.dcm")
        if "sc" in self.wanted and self.pictures:
            self.attempt("dicom_captures_not_written", secondary_captures, "dicom/sc")
        if "sr" in self.wanted:  # last: it references the other objects
            self.attempt("dicom_structured_report_not_written", measurements, "dicom/sr.dcm")
        if not self.dicom:
            target.rmdir()

    def write_masks(self, segmentation: Segmentation, levels: Levels) -> None:
        """Write the masks, also as BIDS derivatives, as requested."""
        scheme = level_scheme(self.settings.report.level_scheme)
        found = {
            "thecal_sac": segmentation.thecal_sac,
            "epidural_fluid": segmentation.collections,
            "levels": scheme.written(levels.mask),
        }
        if "masks" in self.wanted:
            self.attempt("masks_not_written", lambda: self._masks(found), "masks")
        if "bids" in self.wanted:
            self.attempt("bids_not_written", lambda: self._bids(found), "derivatives")

    def _masks(self, found: Mapping[str, Volume]) -> None:
        (self.folder / "masks").mkdir()
        for name, mask in found.items():
            self._mask(mask, f"masks/{name}.nii.gz")
        self.labels = self._label_files()
        self.masks = {name: f"masks/{name}.nii.gz" for name in found}

    def _mask(self, mask: Volume, name: str) -> None:
        write_mask(mask, self.folder / name, compression=self.settings.report.mask_compression)

    def _bids(self, found: Mapping[str, Volume]) -> None:
        report = self.report()
        stems = bids.mask_stems(report, self.settings.report, found["thecal_sac"])
        files = bids.text_files(report, stems)
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text, encoding="utf-8")
        images = {name: f"{stem}_dseg.nii.gz" for name, stem in stems.items()}
        for name, path in images.items():
            self._mask(found[name], path)
        self.bids = (*images.values(), *files)

    def _label_files(self) -> tuple[str, ...]:
        """Write the names and colors of the values of each mask; return the file names."""
        names = []
        for mask, labels in label_files.mask_labels(self.report()).items():
            for suffix, text in (
                ("dseg.tsv", label_files.dseg_table(labels)),
                ("itksnap.txt", label_files.itksnap_descriptions(labels)),
            ):
                names.append(f"masks/{mask}_{suffix}")
                (self.folder / names[-1]).write_text(text, encoding="utf-8")
        return tuple(names)

    def _pictures(self, analysis: AnalysisData) -> None:
        self.pictures = draw_pictures(analysis)
        if "html" in self.wanted:
            self.key_images = key_images(analysis)

    def _pdf(self, analysis: AnalysisData) -> None:
        with (self.folder / "figures.pdf").open("wb") as target:
            vector.write_pdf((found.drawing for found in figures(analysis)), target)
        self.pdf = "figures.pdf"

    def _page_3d(self, analysis: AnalysisData) -> None:
        text = html3d.page(self.report(), analysis)
        (self.folder / "report3d.html").write_text(text, encoding="utf-8")
        self.html3d = "report3d.html"

    def write_exports(self) -> None:
        """Write the tables, markups and FHIR bundle, as requested: the report in other formats."""
        self._write_tables()
        if "markups" in self.wanted:
            self.attempt("markups_not_written", self._markups, "markups")
        if "fhir" in self.wanted:
            self.attempt("fhir_not_written", self._fhir, "fhir.json")

    def _markups(self) -> None:
        files = markups.markup_files(self.report())
        if files:
            (self.folder / "markups").mkdir()
        for name, text in files.items():
            (self.folder / "markups" / name).write_text(text, encoding="utf-8")
        self.markups = tuple(f"markups/{name}" for name in files)

    def _fhir(self) -> None:
        (self.folder / "fhir.json").write_text(fhir.bundle(self.report()), encoding="utf-8")
        self.fhir = "fhir.json"

    def _write_tables(self) -> None:
        report = self.report()
        made = {
            "collections.csv": (tables.COLLECTION_COLUMNS, tables.collection_rows),
            "levels.csv": (tables.LEVEL_COLUMNS, tables.level_rows),
            "measurements.csv": (tables.MEASUREMENT_COLUMNS, tables.measurement_rows),
        }

        def write() -> None:
            for name, (columns, rows) in made.items():
                tables.write_csv(self.folder / name, columns, rows(report))
            self.tables = tuple(made)

        if "csv" in self.wanted:
            self.attempt("tables_not_written", write, *made)

    def write_caudal(self) -> None:
        """Write the caudal access sheet, if requested; it depends on the report only."""
        if "caudal" in self.wanted:
            self.attempt("caudal_sheet_not_written", self._caudal, caudal.NAME)

    def _caudal(self) -> None:
        report = self.report()
        sheet = caudal.caudal_sheet(report)
        if sheet is not None:
            with (self.folder / caudal.NAME).open("wb") as target:
                vector.write_pdf([caudal.draw_caudal_sheet(sheet, report)], target)
            self.caudal = caudal.NAME

    def _viewer(self, analysis: AnalysisData) -> Viewer | None:
        """Create the viewer of the HTML report; None if that fails."""
        made: list[Viewer] = []
        self.attempt(
            "viewer_not_written", lambda: made.append(make_viewer(analysis, html.VIEWER_BYTES))
        )
        return made[0] if made else None

    def _overlays(self) -> None:
        (self.folder / "overlays").mkdir()
        for picture in self.pictures:
            (self.folder / "overlays" / f"{picture.name}.png").write_bytes(picture.png)
        self.overlays = tuple(f"overlays/{picture.name}.png" for picture in self.pictures)

    def _write_page(self, report: Report, viewer: Callable[[], Viewer | None]) -> Report:
        """Write ``report.html`` and add it to the outputs of the report."""
        with_page = report.model_copy(
            update={"outputs": report.outputs.model_copy(update={"html": "report.html"})}
        )

        def write() -> None:
            text = html.page(with_page, self.pictures, viewer(), self.key_images)
            (self.folder / "report.html").write_text(text, encoding="utf-8")
            self.html = "report.html"

        before = len(self.notes)
        self.attempt("page_not_written", write, "report.html")
        return with_page if len(self.notes) == before else self.report()


def write_mask(mask: Volume, path: Path, *, compression: int = 1) -> None:
    """Write a label volume as ``.nii.gz``: uint8, with its affine (RAS).

    Parameters
    ----------
    mask : Volume
        Integer or boolean labels, 0..255.
    compression : int
        gzip level, 0..9.
    """
    array = mask.array
    if array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > np.iinfo(np.uint8).max):
            raise OutputError(f"the labels of {path.name} exceed 8 bits")
        array = array.astype(np.uint8)
    content = mask.with_array(array).to_nibabel().to_bytes()
    # mtime 0: reproducible files.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compression, raw, mtime=0) as packed:
        packed.write(content)


@contextmanager
def staged_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Create a hidden sibling of `folder`, which replaces it when the block succeeds."""
    staging = _sibling(folder, "partial")
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir()
            yield staging
            _replace(staging, folder, overwrite=overwrite)
        except OSError as error:
            raise OutputError(
                f"cannot write the report to {folder}: {error.strerror or error}"
            ) from error
    finally:
        _remove(staging)


def _replace(staging: Path, folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    _check_replaceable(folder, overwrite=overwrite)  # it may have changed in the meantime
    old = _sibling(folder, "old")
    folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    _remove(old)


def _sibling(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{kind}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
