"""The folder of one study: written aside, checked, and moved into place whole.

Everything goes into a hidden sibling of the folder that was asked for. Only when
``report.json`` is written and validates against the schema is the sibling renamed, so a
reader never meets a half-written report, and a failure leaves nothing behind.
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

from leakloc.core.errors import InputError, LeaklocError, OutputError
from leakloc.core.notes import Note
from leakloc.levels.schemes import level_scheme
from leakloc.report import dicom
from leakloc.report.build import build_report
from leakloc.report.model import Outputs, Report, report_schema

if TYPE_CHECKING:
    from leakloc.analysis import AnalysisData
    from leakloc.core.volume import Geometry, Volume
    from leakloc.loaders.study import SeriesStack
    from leakloc.report.build import Results
    from leakloc.report.overlays import Picture
    from leakloc.report.viewer import Viewer

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
"""What a report folder holds; a folder with anything else in it is never replaced."""

PICTURED: Final = frozenset({"png", "seg", "sr", "sc", "pdf", "html3d"})
"""What cannot be made without the images of the study; the page then stands without figures."""

_HEAD_BYTES: Final = 352
"""NIfTI-1: a header of 348 bytes, and four that say that no extension follows."""
_HEAD_LENGTH: Final = struct.pack("<i", 348)
_UNSIGNED_BYTES: Final = 2
"""NIfTI-1's code of the type of voxels."""

_SHOWN: Final = ("levels", "collections", "finding", "thecal_sac", "planning", "series", "study")
"""Parts of a report that pictures, page and DICOM objects show."""
_PICTURE_NOTES: Final = frozenset(
    {
        "pictures_removed",
        "no_dicom_source",
        *(
            f"{what}_not_written"
            for what in (
                "pictures", "overlays", "pdf", "page", "page_3d", "viewer", "dicom_objects",
                "dicom_segmentation", "dicom_structured_report", "dicom_captures",
            )
        ),
    }
)  # fmt: skip
"""What is said of them when they are written, or not."""


def check_output(folder: Path, *, overwrite: bool = False) -> None:
    """Whether a report may be written to `folder`, before any work is done for it.

    Raises
    ------
    OutputError
        If it holds a report and `overwrite` is false, holds anything that is no part of a
        report, is a file or a mount point, or lies where nothing can be written.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} is no folder; name a new one")
    if folder.exists():
        _check_replaceable(folder, overwrite=overwrite)
    ancestor = next(parent for parent in folder.parents if parent.exists())
    probe = ancestor / f".leakloc-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OutputError(
            f"cannot write in {ancestor}: {error.strerror}; name a folder elsewhere"
        ) from error


def _check_replaceable(folder: Path, *, overwrite: bool) -> None:
    if folder.is_mount():
        raise OutputError(
            f"{folder} is a mount point, where a report cannot appear whole; "
            f"name a folder in it, such as {folder / 'report'}"
        )
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise OutputError(f"cannot read {folder}: {error.strerror}") from error
    if names - PARTS or (names and "report.json" not in names):
        raise OutputError(
            f"{folder} holds files that are no part of a report; name a new or empty folder"
        )
    if names and not overwrite:
        raise OutputError(f"{folder} holds a report; name another folder or ask to overwrite it")


def write_outputs(analysis: AnalysisData, folder: Path, *, overwrite: bool = False) -> Report:
    """Write the folder of one study as ``analysis.settings.report.write`` says.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages.
    folder : Path
        Appears whole or not at all; missing parents are made.
    overwrite : bool
        Replace a report that stands there.

    Returns
    -------
    Report
        As written. A writer of anything but ``report.json`` that fails is named in
        ``quality.warnings`` and leaves no file.

    Raises
    ------
    OutputError
        If the folder must not be replaced, nothing can be written there, or the report
        breaks its own schema.
    """
    start = time.perf_counter()
    folder = Path(folder).absolute()
    check_output(folder, overwrite=overwrite)
    with _written_aside(folder, overwrite=overwrite) as aside:
        draft = _Draft(analysis, aside)
        if "relabel" in draft.wanted and analysis.basis is not None:
            draft.attempt("relabel_file", draft.write_relabel, "relabel.npz")
        return _fill(draft, start)


def check_rewritable(folder: Path) -> None:
    """Whether a report's folder may be replaced by one with other names.

    Raises
    ------
    InputError
        If there is no report.
    OutputError
        If it holds anything that is no part of one, or cannot be replaced.
    """
    if not (folder / "report.json").is_file():
        raise InputError(f"{folder} holds no report; name the output folder of leakloc analyze")
    foreign = sorted({entry.name for entry in folder.iterdir()} - PARTS)
    if foreign:
        raise OutputError(
            f"{foreign[0]} in {folder} is no part of the report, which is replaced as a whole; "
            "move it elsewhere first"
        )
    check_output(folder, overwrite=True)


def rewrite_outputs(results: Results, folder: Path) -> Report:
    """Replace a report by one whose levels were named anew.

    Parameters
    ----------
    results : AnalysisData or Relabelled
        With the images everything is written as by `write_outputs`. Without, what needs the
        images is kept where the report says the same as before; else it is gone, and a note
        in the report says so.
    folder : Path
        Holds the report; replaced whole or not at all.

    Raises
    ------
    OutputError
        As `write_outputs`.
    """
    from leakloc.analysis import AnalysisData

    start = time.perf_counter()
    folder = Path(folder).absolute()
    check_rewritable(folder)
    with _written_aside(folder, overwrite=True) as aside:
        draft = _Draft(results, aside, former=folder)
        shutil.copyfile(folder / "relabel.npz", aside / "relabel.npz")
        if not isinstance(results, AnalysisData):
            draft.keep_pictured(folder, Report.load(folder))
        return _fill(draft, start)


def _fill(draft: _Draft, start: float) -> Report:
    """Write everything that is wanted, the report last."""
    draft.write_all()
    draft.write_dicom(draft.report(time.perf_counter() - start))
    draft.write_tables(draft.report(time.perf_counter() - start))
    draft.write_3d(draft.report(time.perf_counter() - start))
    report = draft.report(time.perf_counter() - start)
    if "html" in draft.wanted and draft.html is None:
        report = _write_page(draft, report)
    validate(report)
    levels = report.levels.model_dump_json(indent=2, by_alias=True)
    (draft.folder / "levels.json").write_text(levels, encoding="utf-8")  # to edit and give back
    (draft.folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return report


def validate(report: Report) -> None:
    """Check a report against the JSON Schema, as any other reader would.

    Raises
    ------
    OutputError
        If it breaks the schema; the message names the place.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(report_schema())
    values = json.loads(report.to_json())
    error = jsonschema.exceptions.best_match(validator.iter_errors(values))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top"
        raise OutputError(f"the report breaks its schema at {place}: {error.message[:200]}")


@dataclass
class _Draft:
    """A folder being filled."""

    analysis: Results
    folder: Path
    former: Path | None = None
    """The report that this one replaces, where it is of the same analysis."""
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
        """The results with the study they were found in, where that is at hand."""
        from leakloc.analysis import AnalysisData

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
        """Everything but the page and ``report.json``, which tell of all the others."""
        if "masks" in self.wanted:
            self.attempt("masks", self._masks, "masks")
        if (images := self.images) is None:
            return
        if self.wanted & {"png", "html", "sc"}:
            self.attempt("pictures", lambda: self._pictures(images))
        if "png" in self.wanted and self.pictures:
            self.attempt("overlays", self._overlays, "overlays")
        if "pdf" in self.wanted:
            self.attempt("pdf", lambda: self._pdf(images), "figures.pdf")

    def keep_pictured(self, folder: Path, before: Report) -> None:
        """Take over what shows images where it says the same as before; else say it is gone."""
        wanted = self.wanted & {*PICTURED, "html"}
        now = build_report(self.analysis)
        if any(getattr(now, part) != getattr(before, part) for part in _SHOWN):
            if wanted:
                self.notes.append(
                    Note(
                        "pictures_removed",
                        "The levels were named anew without the images: figures and DICOM objects "
                        "with the former names were removed. leakloc relabel --study makes them "
                        "anew.",
                    )
                )
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
        self.notes += [
            Note(warning.code, warning.message)
            for warning in before.quality.warnings
            if warning.code in _PICTURE_NOTES
        ]

    def attempt(self, what: str, write: Callable[[], None], *leftovers: str) -> None:
        """Run one writer; its failure costs its own files and becomes a warning."""
        try:
            write()
        except Exception as error:  # a picture must never cost the report
            logging.getLogger(__name__).debug("writing the %s failed", what, exc_info=True)
            for name in leftovers:
                _remove(self.folder / name)
            detail = f": {error}" if isinstance(error, LeaklocError) else ""
            self.notes.append(
                Note(
                    f"{what}_not_written",
                    f"The {what.replace('_', ' ')} could not be written "
                    f"({type(error).__name__}{detail}); the rest of the report is complete.",
                )
            )

    def write_dicom(self, report: Report) -> None:
        """The DICOM objects, which repeat the report's numbers."""
        if (images := self.images) is None or not self.wanted & {"seg", "sr", "sc"}:
            return
        stacks = dicom.source_stacks(images)
        if not stacks:
            self.notes.append(
                Note(
                    "no_dicom_source",
                    "The myelogram is no DICOM series, so no DICOM objects were made.",
                )
            )
            return
        self.attempt("dicom_objects", lambda: self._dicom(images, stacks, report), "dicom")

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

        def captures() -> None:
            (target / "sc").mkdir()
            names = []
            for name, capture in dicom.captures(self.pictures, sources):
                capture.save_as(target / "sc" / f"{name}.dcm")
                names.append(f"dicom/sc/{name}.dcm")
            self.dicom["sc"] = tuple(names)

        if "seg" in self.wanted and found:
            self.attempt("dicom_segmentation", segmentation, "dicom/seg.dcm")
        if "sr" in self.wanted:
            self.attempt("dicom_structured_report", structured_report, "dicom/sr.dcm")
        if "sc" in self.wanted and self.pictures:
            self.attempt("dicom_captures", captures, "dicom/sc")
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
        """What levels can be named anew from."""
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
        """The page in three dimensions, where it is wanted."""
        images = self.images

        def write() -> None:
            from leakloc.report.html3d import page

            assert images is not None
            text = page(report, images)
            (self.folder / "report3d.html").write_text(text, encoding="utf-8")
            self.html3d = "report3d.html"

        if "html3d" in self.wanted and images is not None:
            self.attempt("page_3d", write, "report3d.html")

    def write_tables(self, report: Report) -> None:
        """The CSV tables, where they are wanted."""
        from leakloc.report import rows

        names = ("collections.csv", "levels.csv")

        def write() -> None:
            collections, levels = (self.folder / name for name in names)
            rows.write_csv(collections, rows.COLLECTION_COLUMNS, rows.collection_rows(report))
            rows.write_csv(levels, rows.LEVEL_COLUMNS, rows.level_rows(report))
            self.tables = names

        if "csv" in self.wanted:
            self.attempt("tables", write, *names)

    def viewer(self) -> Viewer | None:
        """What the page's viewer shows; the page stands without it if that fails."""
        from leakloc.report.html import VIEWER_BYTES
        from leakloc.report.viewer import make_viewer

        made: list[Viewer] = []
        if (images := self.images) is not None:
            self.attempt("viewer", lambda: made.append(make_viewer(images, VIEWER_BYTES)))
        return made[0] if made else None

    def _overlays(self) -> None:
        (self.folder / "overlays").mkdir()
        for picture in self.pictures:
            (self.folder / "overlays" / f"{picture.name}.png").write_bytes(picture.png)
        self.overlays = tuple(f"overlays/{picture.name}.png" for picture in self.pictures)


def write_mask(
    mask: Volume, path: Path, *, compression: int = 1, head: bytes | None = None
) -> None:
    """Write a label volume as ``.nii.gz``: uint8, its real place in the patient, RAS.

    Parameters
    ----------
    mask : Volume
        Integer or boolean labels, 0..255.
    compression : int
        gzip level, 0..9.
    head : bytes, optional
        What stands before the voxels in a mask on the same grid, from `mask_header`.
    """
    import gzip

    array = mask.array
    if array.dtype != np.uint8:
        if array.size and (array.min() < 0 or array.max() > np.iinfo(np.uint8).max):
            raise OutputError(f"the labels of {path.name} do not fit into 8 bits")
        array = array.astype(np.uint8)
    if head is None:
        content = mask.with_array(array).to_nibabel().to_bytes()
    else:  # NIfTI runs through i first: the order of our arrays
        content = head + np.ascontiguousarray(array).tobytes()
    # mtime 0: the same mask gives the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compression, raw, mtime=0) as packed:
        packed.write(content)


def mask_header(path: Path, geometry: Geometry) -> bytes | None:
    """What stands before the voxels in a mask that `write_mask` wrote.

    Importing nibabel takes longer than all else that naming levels anew does.

    Returns
    -------
    bytes or None
        None where there is no such file, or it is no 8-bit mask on this very grid.
    """
    import gzip

    try:
        with gzip.open(path) as packed:
            head = packed.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    if len(head) < _HEAD_BYTES or head[:4] != _HEAD_LENGTH or head[344:348] != b"n+1\0":
        return None
    dims = struct.unpack_from("<8h", head, 40)
    kind, offset = struct.unpack_from("<h", head, 70)[0], struct.unpack_from("<f", head, 108)[0]
    rows = np.frombuffer(head, "<f4", 12, 280).reshape(3, 4)
    affine = np.diag([-1.0, -1.0, 1.0]) @ geometry.affine_lps[:3]
    same = (
        dims == (3, *geometry.shape[::-1], 1, 1, 1, 1)
        and (kind, offset) == (_UNSIGNED_BYTES, _HEAD_BYTES)
        and np.array_equal(rows, affine.astype(np.float32))
    )
    return head if same else None


def _write_page(draft: _Draft, report: Report) -> Report:
    """Add ``report.html``, which shows the report it is part of."""

    def write() -> None:
        from leakloc.report.html import page

        shown = report.model_copy(update={"outputs": with_page})
        text = page(shown, draft.pictures, draft.viewer())
        (draft.folder / "report.html").write_text(text, encoding="utf-8")
        draft.html = "report.html"

    with_page = report.outputs.model_copy(update={"html": "report.html"})
    before = len(draft.notes)
    draft.attempt("page", write, "report.html")
    if len(draft.notes) == before:
        return report.model_copy(update={"outputs": with_page})
    return draft.report(report.generator.runtime_s["writing"])


@contextmanager
def _written_aside(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new hidden sibling of `folder` that takes its place when the block ends well."""
    aside = _sibling(folder, "partial")
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.mkdir()
            yield aside
            _put_in_place(aside, folder, overwrite=overwrite)
        except OSError as error:
            raise OutputError(
                f"cannot write the report to {folder}: {error.strerror or error}"
            ) from error
    finally:
        _remove(aside)


def _put_in_place(aside: Path, folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        aside.rename(folder)
        return
    _check_replaceable(folder, overwrite=overwrite)  # someone may have written meanwhile
    old = _sibling(folder, "old")
    folder.rename(old)
    try:
        aside.rename(folder)
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
