"""Common data model of one study's result, ground truth, or human annotation.

An annotation is built from an analysis in memory, a report folder, a phantom's truth, or masks
only; missing items are None and are not evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from leakloc.anatomy.vocabulary import SIDES, Grade, LeakStatus, Position
from leakloc.core.errors import InputError
from leakloc.core.volume import FloatArray, Volume
from leakloc.loaders import read_mask
from leakloc.report import Report
from leakloc.validation.evaluation.fluid_by_segment import true_fluid_by_segment

if TYPE_CHECKING:
    from leakloc.localization.result import Collection, Planning, SegmentFluid
    from leakloc.pipeline import Analysis
    from leakloc.validation.phantom import Phantom, Truth

Kind = Literal["sac", "fluid"]

MASK_SUFFIXES: Final = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
SAC_NAMES: Final = ("thecal_sac", "sac")
FLUID_NAMES: Final = ("epidural_fluid", "fluid", "collections")

MIN_COLLECTION_ML: Final = 0.5
"""Smaller collections are neither missed nor false positives: readers disagree on them."""


@dataclass(frozen=True, eq=False)
class AnnotatedCollection:
    """One collection of an annotation; None for items not reported."""

    id: int
    volume_ml: float
    level: str | None = None
    level_set: tuple[str, ...] = ()
    segments: tuple[str, ...] | None = None
    cranial_lps: FloatArray | None = None
    caudal_lps: FloatArray | None = None
    path_mm: float | None = None
    """Path length from the sacral hiatus to the level."""
    confidence: float | None = None
    grade: Grade | None = None
    position: Position | None = None
    """Position around the sac."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """Result or ground truth of one study.

    Parameters
    ----------
    case : str
        Name of the study.
    thecal_sac : Volume or None
        Nonzero inside the sac.
    fluid : Volume or None
        Collection ids.
    fluid_ml : float or None
        Volume of all collections; partial volumes count as fractions if known.
    discs : dict
        Disc centers by name, LPS mm, cranial to caudal; they define the axis of levels.
    """

    case: str
    thecal_sac: Volume | None = None
    fluid: Volume | None = None
    fluid_ml: float | None = None
    leak: LeakStatus | None = None
    collections: tuple[AnnotatedCollection, ...] = ()
    vertebrae: dict[str, FloatArray] = field(default_factory=dict)
    discs: dict[str, FloatArray] = field(default_factory=dict)
    numbering_confidence: float | None = None
    transitional: bool | None = None
    hiatus_lps: FloatArray | None = None
    """Apex of the sacral hiatus, if detected."""
    conus_lps: FloatArray | None = None
    """Tip of the conus, if detected."""
    fluid_mm: dict[str, dict[str, float]] = field(default_factory=dict)
    """Thickness of the epidural fluid by motion segment and side of the sac, 0 without fluid."""
    notes: tuple[str, ...] = ()
    """Warning codes."""

    @property
    def reportable(self) -> tuple[AnnotatedCollection, ...]:
        """Collections of at least `MIN_COLLECTION_ML`."""
        return tuple(c for c in self.collections if c.volume_ml >= MIN_COLLECTION_ML)


def read_case(path: Path, *, label: int | None = None, kind: Kind = "fluid") -> Annotation:
    """Read a result or ground truth from a folder or file.

    Parameters
    ----------
    path : Path
        A report folder, a folder with a phantom's ``truth.json`` (or one above it), a folder of
        masks named ``thecal_sac`` or ``epidural_fluid``, or one mask file.
    label : int, optional
        Label value to use in a mask file; all by default.
    kind : {"fluid", "sac"}
        Content of a mask file.

    Raises
    ------
    InputError
        If there is nothing to read, or a file is not a valid mask.
    """
    if path.is_file():
        if path.name == "report.json":
            return _read_report(path.parent)
        return _read_mask_file(path, label, kind)
    if not path.is_dir():
        raise InputError(f"{path} does not exist")
    if (path / "report.json").is_file():
        return _read_report(path)
    for folder in (path, path / "truth"):
        if (folder / "truth.json").is_file():
            return _read_truth(folder, path.name)
    sac, fluid = mask_in(path, SAC_NAMES), mask_in(path, FLUID_NAMES)
    if sac is None and fluid is None:
        raise InputError(
            f"{path} contains no report.json, truth.json, or mask named thecal_sac or "
            "epidural_fluid (.nii.gz, .nrrd, .mha, .dcm)"
        )
    return _read_masks(path.name, sac, fluid)


def is_case(path: Path) -> bool:
    """Return whether the path is a study that `read_case` can read."""
    if path.is_file():
        return path.name.lower().endswith(MASK_SUFFIXES)
    known = ("report.json", "truth.json", "truth/truth.json")
    return path.is_dir() and (
        any((path / name).is_file() for name in known)
        or mask_in(path, SAC_NAMES) is not None
        or mask_in(path, FLUID_NAMES) is not None
    )


def case_name(path: Path) -> str:
    """Return the name of a study: its folder name, or file name without suffix."""
    name = path.name
    if path.is_file():
        for suffix in MASK_SUFFIXES:
            if name.lower().endswith(suffix):
                return name[: -len(suffix)]
    return name


def mask_in(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the mask file with one of the names in a folder or its ``masks``, or None."""
    for parent in (folder, folder / "masks"):
        for name in names:
            for suffix in MASK_SUFFIXES:
                if (parent / f"{name}{suffix}").is_file():
                    return parent / f"{name}{suffix}"
    return None


def annotation_from_analysis(analysis: Analysis, case: str = "") -> Annotation:
    """Return the annotation of an analysis in memory."""
    located, levels = analysis.localization, analysis.levels
    notes = (*analysis.segmentation.notes, *levels.notes, *located.notes)
    collections = _annotated(located.collections, located.planning)
    return Annotation(
        case=case,
        thecal_sac=analysis.segmentation.thecal_sac,
        fluid=analysis.segmentation.collections,
        fluid_ml=sum(c.volume_ml for c in collections),
        leak=located.finding.leak,
        collections=collections,
        vertebrae={v.name: v.center_lps for v in levels.vertebrae},
        discs={d.name: d.center_lps for d in levels.discs},
        numbering_confidence=levels.numbering.confidence,
        transitional=levels.numbering.transitional_suspected,
        hiatus_lps=_point(located.planning.sacral_hiatus.lps_mm),
        conus_lps=_point(located.conus.lps_mm if located.conus else None),
        fluid_mm=_thicknesses(located.fluid_by_segment),
        notes=tuple(note.code for note in notes),
    )


def _annotated(
    collections: Iterable[Collection], planning: Planning
) -> tuple[AnnotatedCollection, ...]:
    targets = {t.collection: t for t in planning.targets}
    return tuple(
        AnnotatedCollection(
            id=c.id,
            volume_ml=c.volume_ml or 0.0,
            level=c.level,
            level_set=c.level_set,
            segments=c.segments,
            cranial_lps=_point(c.extent.cranial.lps_mm),
            caudal_lps=_point(c.extent.caudal.lps_mm),
            path_mm=targets[c.id].canal_distance_from_hiatus_mm if c.id in targets else None,
            confidence=c.confidence,
            grade=c.grade,
            position=c.position.label,
        )
        for c in collections
    )


def annotation_from_phantom(phantom: Phantom, like: Volume | None = None) -> Annotation:
    """Return the ground truth of a phantom, on the grid of `like` or of its own myelogram."""
    geometry = phantom.myelogram_geometry() if like is None else like.geometry
    masks = phantom.masks(geometry)
    return annotation_from_truth(
        phantom.truth.to_dict(),
        f"{phantom.scenario.name}_{phantom.seed}",
        sac=masks.thecal_sac.with_array((masks.thecal_sac.array >= 0.5).astype(np.uint8)),
        fluid=masks.fluid,
        fraction=masks.fluid_fraction,
    )


def annotation_without_masks(truth: Truth, case: str) -> Annotation:
    """Return the ground truth of a phantom without masks, for a study that was refused."""
    return annotation_from_truth(truth.to_dict(), case, None, None, None)


def _read_truth(folder: Path, case: str) -> Annotation:
    def load(name: str) -> Volume | None:
        file = folder / f"{name}.nii.gz"
        return Volume.from_nibabel(nib.load(file)) if file.is_file() else None

    try:
        values = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        sac = load("thecal_sac")
        if sac is not None:
            sac = sac.with_array((sac.array >= 0.5).astype(np.uint8))
        return annotation_from_truth(values, case, sac, load("fluid"), load("fluid_fraction"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the ground truth in {folder} cannot be read ({error}): create it again"
        ) from error


def annotation_from_truth(
    values: dict[str, Any],
    case: str,
    sac: Volume | None,
    fluid: Volume | None,
    fraction: Volume | None,
) -> Annotation:
    """Return the annotation of a ground truth.

    Parameters
    ----------
    values : dict
        Content of ``truth.json``.
    sac, fluid, fraction : Volume or None
        Mask of the sac, collection ids, and fraction of fluid, on one grid.
    """

    def centers(structures: list[dict[str, Any]]) -> dict[str, FloatArray]:
        return {s["name"]: np.array(s["center_lps"]) for s in structures}

    ml = None
    if fraction is not None:
        ml = float(fraction.array.sum()) * fraction.geometry.voxel_volume_ml
    return Annotation(
        case=case,
        thecal_sac=sac,
        fluid=fluid,
        fluid_ml=ml,
        leak=values["leak"],
        collections=tuple(
            AnnotatedCollection(
                id=c["id"],
                volume_ml=c["volume_ml"],
                level=c["level"],
                segments=tuple(c["segments"]),
                cranial_lps=np.array(c["cranial_lps"]),
                caudal_lps=np.array(c["caudal_lps"]),
                path_mm=c["path_length_mm"],
                position=c.get("position"),
            )
            for c in values["collections"]
        ),
        vertebrae=centers(values["vertebrae"]),
        discs=centers(values["discs"]),
        transitional=values["lumbar_count"] != 5
        or values.get("lumbosacral", "regular") != "regular",
        hiatus_lps=_point(values.get("hiatus_lps")),
        conus_lps=_point(values.get("conus_lps")),
        fluid_mm=_thicknesses(true_fluid_by_segment(values, sac, fluid, fraction)),
    )


def _thicknesses(segments: Iterable[SegmentFluid]) -> dict[str, dict[str, float]]:
    return {
        part.segment: {side: getattr(part, side).thickness_mm or 0.0 for side in SIDES}
        for part in segments
    }


def _read_report(folder: Path) -> Annotation:
    report = Report.load(folder)
    masks: dict[str, Volume] = {}
    for name, file in report.outputs.masks.items():
        if name in ("thecal_sac", "epidural_fluid"):
            masks[name] = _mask(folder / file)
    collections = _annotated(report.collections, report.planning)
    return Annotation(
        case=folder.name,
        thecal_sac=masks.get("thecal_sac"),
        fluid=masks.get("epidural_fluid"),
        fluid_ml=sum(c.volume_ml for c in collections),
        leak=report.finding.leak,
        collections=collections,
        vertebrae={v.name: np.array(v.center_lps_mm) for v in report.levels.vertebrae},
        discs={d.name: np.array(d.center_lps_mm) for d in report.levels.discs},
        numbering_confidence=report.levels.numbering.confidence,
        transitional=report.levels.numbering.transitional_suspected,
        hiatus_lps=_point(report.planning.sacral_hiatus.lps_mm),
        conus_lps=_point(report.levels.conus.lps_mm if report.levels.conus else None),
        fluid_mm=_thicknesses(report.fluid_by_segment),
        notes=tuple(warning.code for warning in report.quality.warnings),
    )


def _mask(path: Path) -> Volume:
    """Read a mask file; an empty mask means no fluid."""
    return read_mask(path, may_be_empty=True)


def _read_mask_file(path: Path, label: int | None, kind: Kind) -> Annotation:
    mask = _mask(path)
    if label is not None:
        present = [int(n) for n in np.unique(mask.array) if n]
        if label not in present and present:
            listed = ", ".join(map(str, present[:12]))
            raise InputError(
                f"{path.name} has no label {label}; its labels: {listed}. Select one with --label"
            )
        mask = mask.with_array((mask.array == label).astype(np.uint8))
    if kind == "sac":
        return Annotation(case=case_name(path), thecal_sac=mask)
    return annotation_from_fluid(case_name(path), mask)


def _read_masks(case: str, sac: Path | None, fluid: Path | None) -> Annotation:
    thecal_sac = None if sac is None else _mask(sac)
    if fluid is None:
        return Annotation(case=case, thecal_sac=thecal_sac)
    return annotation_from_fluid(case, _mask(fluid), thecal_sac)


def annotation_from_fluid(case: str, mask: Volume, sac: Volume | None = None) -> Annotation:
    """Return the annotation of a fluid mask.

    Labels are collections; a mask with a single label is split into connected components.
    """
    ids = mask.array
    if len(np.unique(ids[ids > 0])) == 1:
        ids, count = ndimage.label(ids > 0, np.ones((3, 3, 3)))
        ids = ids.astype(np.uint8 if count < 256 else np.uint16)
    fluid = mask.with_array(ids)
    counts = np.bincount(ids.ravel())
    voxel_ml = mask.geometry.voxel_volume_ml
    collections = tuple(
        AnnotatedCollection(n, float(count * voxel_ml))
        for n, count in enumerate(counts)
        if n and count
    )
    found = any(c.volume_ml >= MIN_COLLECTION_ML for c in collections)
    return Annotation(
        case=case,
        thecal_sac=sac,
        fluid=fluid,
        fluid_ml=sum(c.volume_ml for c in collections),
        leak="present" if found else "absent",
        collections=collections,
    )


def _point(point: Any) -> FloatArray | None:
    return None if point is None else np.array(point, dtype=float)
