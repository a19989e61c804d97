"""Atomic writing of the report folder of a study.

All files are written to a hidden sibling of the target folder, which is renamed after
``report.json`` has been validated against the schema. Incomplete reports are therefore never
visible, and a failure leaves no files.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leakloc.analysis import AnalysisData
from leakloc.core.errors import InputError, LeaklocError, OutputError
from leakloc.core.notes import Note, note
from leakloc.levels.schemes import level_scheme
from leakloc.report import dicom
from leakloc.report.build import build_report
from leakloc.report.model import Outputs, Report, report_schema

if TYPE_CHECKING:
    from leakloc.core.volume import Geometry, Volume
    from leakloc.loaders.study import SeriesStack
    from leakloc.report.build import Results
    from leakloc.report.overlays import Picture
    from leakloc.report.page.viewer import Viewer

PARTS: Final = frozenset(
    {
        "report.json",
        "levels.json",
        "collections.csv",
        "levels.csv",
        "report.html",
        "report3d.html",
        "figures.pdf",
        "overlays",
        "masks",
        "dicom",
        "relabel.npz",
    }
)
"""Contents of a report folder; a folder with other contents is never replaced."""

FIGURE_PARTS: Final = frozenset({"png", "seg", "sr", "sc", "pdf", "html3d"})
"""Outputs that require the images; without images, the HTML report has no figures."""

_HEADER_BYTES: Final = 352
"""NIfTI-1: header of 348 bytes and 4 bytes for the absence of extensions."""
_HEADER_LENGTH: Final = struct.pack("<i", 348)
_UNSIGNED_BYTES: Final = 2
"""NIfTI-1 data type code of uint8."""

_SHOWN: Final = ("levels", "collections", "finding", "thecal_sac", "planning", "series", "study")
"""Parts of a report that are shown in figures, HTML report and DICOM objects."""


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


def write_outputs(analysis: AnalysisData, folder: Path, *, overwrite: bool = False) -> Report:
    """Write the report folder of one study according to ``analysis.settings.report.write``.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages.
    folder : Path
        Created atomically; missing parents are created.
    overwrite : bool
        Replace an existing report.

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
    start = time.perf_counter()
    folder = Path(folder).absolute()
    check_output(folder, overwrite=overwrite)
    with _staged(folder, overwrite=overwrite) as staging:
        draft = _Draft(analysis, staging)
        if "relabel" in draft.wanted and analysis.basis is not None:
            draft.attempt("relabel_file_not_written", draft.write_relabel, "relabel.npz")
        return _fill(draft, start)


def check_rewritable(folder: Path) -> None:
    """Check that a report folder can be replaced by one with renumbered levels.

    Raises
    ------
    InputError
        If the folder contains no report.
    OutputError
        If it contains files not belonging to a report, or cannot be replaced.
    """
    if not (folder / "report.json").is_file():
        raise InputError(
            f"{folder} contains no report; specify an output folder of leakloc analyze"
        )
    foreign = sorted({entry.name for entry in folder.iterdir()} - PARTS)
    if foreign:
        raise OutputError(
            f"{foreign[0]} in {folder} does not belong to the report; move it elsewhere first, as "
            "the folder is replaced"
        )
    check_output(folder, overwrite=True)


def rewrite_outputs(results: Results, folder: Path) -> Report:
    """Replace a report by one with renumbered levels.

    Parameters
    ----------
    results : AnalysisData or Relabelled
        With images, all outputs are written as by `write_outputs`. Without, outputs that
        require images are kept if the content of the report is unchanged; otherwise they are
        removed, with a warning in the report.
    folder : Path
        Contains the report; replaced atomically.

    Raises
    ------
    OutputError
        As `write_outputs`.
    """
    start = time.perf_counter()
    folder = Path(folder).absolute()
    check_rewritable(folder)
    with _staged(folder, overwrite=True) as staging:
        draft = _Draft(results, staging, former=folder)
        shutil.copyfile(folder / "relabel.npz", staging / "relabel.npz")
        if not isinstance(results, AnalysisData):
            draft.keep_figures(folder, Report.load(folder))
        return _fill(draft, start)


def _fill(draft: _Draft, start: float) -> Report:
    """Write all requested outputs, ``report.json`` last."""
    draft.write_all()
    draft.write_dicom(draft.report(time.perf_counter() - start))
    draft.write_tables(draft.report(time.perf_counter() - start))
    draft.write_3d(draft.report(time.perf_counter() - start))
    report = draft.report(time.perf_counter() - start)
    if "html" in draft.wanted and draft.html is None:
        report = _write_page(draft, report)
    validate(report)
    levels = report.levels.model_dump_json(indent=2, by_alias=True)
    # levels.json can be edited and supplied again.
    (draft.folder / "levels.json").write_text(levels, encoding="utf-8")
    (draft.folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return report


def validate(report: Report) -> None:
    """Validate a report against the JSON Schema.

    Raises
    ------
    OutputError
        If it violates the schema; the message includes the path.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(report_schema())
    values = json.loads(report.to_json())
    error = jsonschema.exceptions.best_match(validator.iter_errors(values))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise OutputError(f"the report violates its schema at {place}: {error.message[:200]}")


@dataclass
class _Draft:
    """A report folder that is being written."""

    analysis: Results
    folder: Path
    former: Path | None = None
    """Folder of the replaced report of the same analysis."""
    notes: list[Note] = field(default_factory=list)
    overlays: tuple[str, ...] = ()
    masks: dict[str, str] = field(default_factory=dict)
    dicom: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    html: str | None = None
    pdf: str | None = None
    html3d: str | None = None
    tables: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset(self.analysis.settings.report.write)

    @property
    def images(self) -> AnalysisData | None:
        """The results including images; None without images."""
        return self.analysis if isinstance(self.analysis, AnalysisData) else None

    def report(self, writing_s: float) -> Report:
        outputs = Outputs(
            overlays=self.overlays,
            masks=self.masks,
            dicom=self.dicom,
            html=self.html,
            pdf=self.pdf,
            html3d=self.html3d,
            tables=self.tables,
        )
        return build_report(
            self.analysis, outputs=outputs, notes=self.notes, runtime_s={"writing": writing_s}
        )

    def write_all(self) -> None:
        """Write masks and figures."""
        if "masks" in self.wanted:
            self.attempt("masks_not_written", self._masks, "masks")
        if (images := self.images) is None:
            return
        if self.wanted & {"png", "html", "sc"}:
            self.attempt("pictures_not_written", lambda: self._pictures(images))
        if "png" in self.wanted and self.pictures:
            self.attempt("overlays_not_written", self._overlays, "overlays")
        if "pdf" in self.wanted:
            self.attempt("pdf_not_written", lambda: self._pdf(images), "figures.pdf")

    def keep_figures(self, folder: Path, before: Report) -> None:
        """Keep outputs that require images if the report is unchanged; else add a warning."""
        wanted = self.wanted & {*FIGURE_PARTS, "html"}
        now = build_report(self.analysis)
        if any(getattr(now, part) != getattr(before, part) for part in _SHOWN):
            if wanted:
                self.notes.append(note("pictures_removed"))
            return
        found = before.outputs
        self.overlays = found.overlays if "png" in wanted else ()
        self.dicom = {kind: names for kind, names in found.dicom.items() if kind in wanted}
        self.html = found.html if "html" in wanted else None
        self.pdf = found.pdf if "pdf" in wanted else None
        self.html3d = found.html3d if "html3d" in wanted else None
        objects = [(n,) if isinstance(n, str) else n for n in self.dicom.values()]
        for name in (*self.overlays, *chain(*objects), self.html, self.pdf, self.html3d):
            if name is not None:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, self.folder / name)
        earlier = (Note(warning.code, warning.message) for warning in before.quality.warnings)
        self.notes += [former for former in earlier if former.definition.concerns_images]

    def attempt(self, code: str, write: Callable[[], None], *leftovers: str) -> None:
        """Run one writer; if it fails, remove its files and add the warning `code`."""
        try:
            write()
        except Exception as error:  # the report is written even if a writer fails
            logging.getLogger(__name__).debug(code, exc_info=True)
            for name in leftovers:
                _remove(self.folder / name)
            detail = f": {error}" if isinstance(error, LeaklocError) else ""
            self.notes.append(note(code, error=f"{type(error).__name__}{detail}"))

    def write_dicom(self, report: Report) -> None:
        """Write the DICOM objects, which contain the measurements of the report."""
        if (images := self.images) is None or not self.wanted & {"seg", "sr", "sc"}:
            return
        stacks = dicom.source_stacks(images)
        if not stacks:
            self.notes.append(note("no_dicom_source"))
            return
        self.attempt(
            "dicom_objects_not_written", lambda: self._dicom(images, stacks, report), "dicom"
        )

    def _dicom(self, images: AnalysisData, stacks: tuple[SeriesStack, ...], report: Report) -> None:
        keep = images.settings.report.dicom_identity == "keep"
        sources = dicom.read_sources(stacks, keep_identity=keep)
        found = dicom.segments(images)
        target = self.folder / "dicom"
        target.mkdir()
        made: list[Any] = []

        def segmentation() -> None:
            made.append(dicom.segmentation_object(images, found, sources))
            made[0].save_as(target / "seg.dcm")
            self.dicom["seg"] = "dicom/seg.dcm"

        def structured_report() -> None:
            document = dicom.report_object(report, found, sources, made[0] if made else None)
            document.save_as(target / "sr.dcm")
            self.dicom["sr"] = "dicom/sr.dcm"

        def secondary_captures() -> None:
            (target / "sc").mkdir()
            names = []
            for name, capture in dicom.secondary_captures(self.pictures, sources):
                capture.save_as(target / "sc" / f"{name}.dcm")
                names.append(f"dicom/sc/{name}.dcm")
            self.dicom["sc"] = tuple(names)

        if "seg" in self.wanted and found:
            self.attempt("dicom_segmentation_not_written", segmentation, "dicom/seg.dcm")
        if "sr" in self.wanted:
            self.attempt("dicom_structured_report_not_written", structured_report, "dicom/sr.dcm")
        if "sc" in self.wanted and self.pictures:
            self.attempt("dicom_captures_not_written", secondary_captures, "dicom/sc")
        if not self.dicom:
            target.rmdir()

    def _masks(self) -> None:
        segmentation, levels = self.analysis.segmentation, self.analysis.levels
        scheme = level_scheme(self.analysis.settings.report.level_scheme)
        found = {
            "thecal_sac": segmentation.thecal_sac,
            "epidural_fluid": segmentation.collections,
            "levels": scheme.written(levels.mask),
        }
        (self.folder / "masks").mkdir()
        head = None
        if self.former is not None:
            head = mask_header(self.former / "masks" / "thecal_sac.nii.gz", levels.mask.geometry)
        for name, mask in found.items():
            write_mask(
                mask,
                self.folder / "masks" / f"{name}.nii.gz",
                compression=self.analysis.settings.report.mask_compression,
                head=head,
            )
        self.masks = {name: f"masks/{name}.nii.gz" for name in found}

    def write_relabel(self) -> None:
        """Write the data for renumbering the levels."""
        from leakloc.report import saved

        if self.images is not None:
            saved.save(self.images, self.folder / saved.NAME)

    def _pictures(self, images: AnalysisData) -> None:
        from leakloc.report.overlays import draw_pictures

        self.pictures = draw_pictures(images)

    def _pdf(self, images: AnalysisData) -> None:
        from leakloc.report.overlays import figures
        from leakloc.report.vector import write_pdf

        with (self.folder / "figures.pdf").open("wb") as target:
            write_pdf((found.drawing for found in figures(images)), target)
        self.pdf = "figures.pdf"

    def write_3d(self, report: Report) -> None:
        """Write the 3D viewer, if requested."""
        images = self.images

        def write() -> None:
            from leakloc.report.page.html3d import page

            assert images is not None
            text = page(report, images)
            (self.folder / "report3d.html").write_text(text, encoding="utf-8")
            self.html3d = "report3d.html"

        if "html3d" in self.wanted and images is not None:
            self.attempt("page_3d_not_written", write, "report3d.html")

    def write_tables(self, report: Report) -> None:
        """Write the CSV tables, if requested."""
        from leakloc.report import tables

        names = ("collections.csv", "levels.csv")

        def write() -> None:
            collections, levels = (self.folder / name for name in names)
            tables.write_csv(collections, tables.COLLECTION_COLUMNS, tables.collection_rows(report))
            tables.write_csv(levels, tables.LEVEL_COLUMNS, tables.level_rows(report))
            self.tables = names

        if "csv" in self.wanted:
            self.attempt("tables_not_written", write, *names)

    def viewer(self) -> Viewer | None:
        """Create the viewer of the HTML report; None if that fails."""
        from leakloc.report.page.html import VIEWER_BYTES
        from leakloc.report.page.viewer import make_viewer

        made: list[Viewer] = []
        if (images := self.images) is not None:
            self.attempt(
                "viewer_not_written", lambda: made.append(make_viewer(images, VIEWER_BYTES))
            )
        return made[0] if made else None

    def _overlays(self) -> None:
        (self.folder / "overlays").mkdir()
        for picture in self.pictures:
            (self.folder / "overlays" / f"{picture.name}.png").write_bytes(picture.png)
        self.overlays = tuple(f"overlays/{picture.name}.png" for picture in self.pictures)


def write_mask(
    mask: Volume, path: Path, *, compression: int = 1, head: bytes | None = None
) -> None:
    """Write a label volume as ``.nii.gz``: uint8, with its affine (RAS).

    Parameters
    ----------
    mask : Volume
        Integer or boolean labels, 0..255.
    compression : int
        gzip level, 0..9.
    head : bytes, optional
        Header of a mask on the same grid, from `mask_header`.
    """
    import gzip

    array = mask.array
    if array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > np.iinfo(np.uint8).max):
            raise OutputError(f"the labels of {path.name} exceed 8 bits")
        array = array.astype(np.uint8)
    if head is None:
        content = mask.with_array(array).to_nibabel().to_bytes()
    else:  # NIfTI order: i fastest, as in the arrays
        content = head + np.ascontiguousarray(array).tobytes()
    # mtime 0: reproducible files.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compression, raw, mtime=0) as packed:
        packed.write(content)


def mask_header(path: Path, geometry: Geometry) -> bytes | None:
    """Return the header of a mask written by `write_mask`.

    Avoids importing nibabel, which takes longer than renumbering the levels.

    Returns
    -------
    bytes or None
        None if the file is missing or is not an 8-bit mask on this grid.
    """
    import gzip

    try:
        with gzip.open(path) as packed:
            head = packed.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    if len(head) < _HEADER_BYTES or head[:4] != _HEADER_LENGTH or head[344:348] != b"n+1\0":
        return None
    dims = struct.unpack_from("<8h", head, 40)
    kind, offset = struct.unpack_from("<h", head, 70)[0], struct.unpack_from("<f", head, 108)[0]
    rows = np.frombuffer(head, "<f4", 12, 280).reshape(3, 4)
    affine = np.diag([-1.0, -1.0, 1.0]) @ geometry.affine_lps[:3]
    same = (
        dims == (3, *geometry.shape[::-1], 1, 1, 1, 1)
        and (kind, offset) == (_UNSIGNED_BYTES, _HEADER_BYTES)
        and np.array_equal(rows, affine.astype(np.float32))
    )
    return head if same else None


def _write_page(draft: _Draft, report: Report) -> Report:
    """Write ``report.html`` and add it to the outputs of the report."""

    def write() -> None:
        from leakloc.report.page.html import page

        shown = report.model_copy(update={"outputs": with_page})
        text = page(shown, draft.pictures, draft.viewer())
        (draft.folder / "report.html").write_text(text, encoding="utf-8")
        draft.html = "report.html"

    with_page = report.outputs.model_copy(update={"html": "report.html"})
    before = len(draft.notes)
    draft.attempt("page_not_written", write, "report.html")
    if len(draft.notes) == before:
        return report.model_copy(update={"outputs": with_page})
    return draft.report(report.generator.runtime_s["writing"])


@contextmanager
def _staged(folder: Path, *, overwrite: bool) -> Iterator[Path]:
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
