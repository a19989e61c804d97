"""Read external label masks and resample them to the grid of a myelogram.

A mask is a `Volume` of integers, 0 for background, from NIfTI, NRRD, MetaImage or DICOM
Segmentation. Other input (grayscale images, probabilities, one slice) is rejected with a message
that states how to correct it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset

from leakloc.anatomy.vocabulary import EPIDURAL_FLUID, THECAL_SAC, CodedTerm
from leakloc.core.errors import GeometryError, InputError, file_label, reason_of
from leakloc.core.extras import LazyModule
from leakloc.core.notes import Note, note
from leakloc.core.quiet import quiet_libraries
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.loaders.archives import looks_like_dicom
from leakloc.loaders.images import Kind, read_image_header, read_voxels, sniff_image
from leakloc.loaders.limits import DicomFile, require_decoded_size, require_regular

hd = LazyModule("highdicom")  # only masks in DICOM format need it

MAX_LABEL: Final = 65_535
"""Maximum label; published label schemes stay below 1,000."""

_MAX_LABELS: Final = 500
"""Maximum number of labels; whole-body schemes have fewer than 200, images more."""
_WHOLE: Final = 1e-3
"""Maximum difference of a label from an integer, due to float scale factors."""
_SAME_GRID: Final = 0.05
"""Tolerance for corners of equal grids, as a fraction of the voxel edge: headers are rounded."""
_LOST_TOLERANCE: Final = 0.02
"""Fraction of a mask outside the myelogram that needs no warning: a rim of half voxels."""
_MIRRORED_INSIDE: Final = 0.5
"""Minimum fraction inside the myelogram after mirroring that indicates swapped axes."""
_HEAD_BYTES: Final = 512
_MAX_LISTED: Final = 30
"""Maximum number of segments or labels in a message."""

_MIRRORS: Final[dict[str, tuple[float, float]]] = {
    "left-right and anterior-posterior": (-1.0, -1.0),
    "left-right": (-1.0, 1.0),
    "anterior-posterior": (1.0, -1.0),
}


@dataclass(frozen=True)
class Segment:
    """A segment of a DICOM Segmentation.

    Parameters
    ----------
    number : int
        Segment number, which is the label.
    name : str
        Segment label.
    tracking_id : str
    code : tuple of str
        Value and scheme of the segmented property type.
    """

    number: int
    name: str
    tracking_id: str
    code: tuple[str, str]

    def names(self) -> set[str]:
        """Names by which it can be selected, in lower case."""
        return {self.name.casefold(), self.tracking_id.casefold()} - {""}


@dataclass(frozen=True)
class Structure:
    """What a mask is read for, to find it among the segments of a DICOM Segmentation.

    Parameters
    ----------
    code : CodedTerm
        Property type of its segments.
    name : str
        Beginning of their label or tracking identifier, in lower case.
    option : str
        Command-line option that selects labels, for messages.
    """

    code: CodedTerm
    name: str
    option: str

    def matches(self, segment: Segment) -> bool:
        """Return whether a segment is of this structure, by its code or name."""
        if segment.code == (self.code.value, self.code.scheme):
            return True
        return any(name.startswith(self.name) for name in segment.names())


FLUID: Final = Structure(EPIDURAL_FLUID, "epidural fluid", "--fluid-label")
SAC: Final = Structure(THECAL_SAC, "thecal sac", "--sac-label")


def read_mask(
    path: str | Path,
    *,
    may_be_empty: bool = False,
    labels: Sequence[int | str] = (),
    structure: Structure | None = None,
    settings: LoaderSettings | None = None,
) -> Volume:
    """Read a label mask.

    Parameters
    ----------
    path : path
        A NIfTI, NRRD or MetaImage file, or a DICOM Segmentation object, detected by content.
        In DICOM the label is the segment number.
    may_be_empty : bool
        Whether a mask without labels is valid (no fluid).
    labels : sequence of int or str, optional
        Labels to read: numbers, or in DICOM also segment labels or tracking identifiers. All by
        default.
    structure : Structure, optional
        Select its segments if a DICOM Segmentation has several and `labels` is empty.
    settings : LoaderSettings, optional
        Limit of the decoded size.

    Returns
    -------
    Volume
        uint8 if all labels fit, else uint16; LPS geometry, with the frame of reference if the
        file is DICOM.

    Raises
    ------
    InputError
        If the file cannot be read, is not a mask, contains no label or none of `labels`, or has
        several segments of which none is of `structure`.
    GeometryError
        If it is not three-dimensional, or has no position in the patient.
    """
    path, settings = Path(path), settings or LoaderSettings()
    with quiet_libraries():
        return _read_mask(path, may_be_empty, labels, structure, settings)


def _read_mask(
    path: Path,
    may_be_empty: bool,
    labels: Sequence[int | str],
    structure: Structure | None,
    settings: LoaderSettings,
) -> Volume:
    head = _head(path)
    kind = sniff_image(path, head)
    if kind is not None:
        volume = _image(path, kind, settings)
    elif looks_like_dicom(head):
        volume = _dicom_segmentation(path, labels, structure, settings)
    else:
        raise InputError(
            f"{file_label(path)} is not a supported mask file: use NIfTI, NRRD, MHA or DICOM SEG"
        )
    found = _labels(volume.array, file_label(path), may_be_empty)
    mask = Volume(found, volume.geometry, Provenance(source="mask file", steps=("read",)))
    return mask if kind is None else with_labels(mask, labels, file_label(path))


def with_labels(mask: Volume, labels: Sequence[int | str], name: str = "the mask") -> Volume:
    """Return a mask with some labels only; all if `labels` is empty.

    Raises
    ------
    InputError
        If a label does not occur, or is a name.
    """
    if not labels:
        return mask
    values = np.unique(mask.array[mask.array > 0])
    wanted = [_number(label) for label in labels]
    for label, value in zip(labels, wanted, strict=True):
        if value is None or value not in values:
            shown = ", ".join(str(n) for n in values[:_MAX_LISTED])
            raise InputError(f"{name} has no label {label}: it contains {shown or 'none'}")
    kept = np.isin(mask.array, np.array(wanted, dtype=np.int64))
    return mask.with_array(np.where(kept, mask.array, 0).astype(mask.array.dtype))


def read_segments(
    path: str | Path, *, settings: LoaderSettings | None = None
) -> tuple[Segment, ...]:
    """Return the segments of a DICOM Segmentation; none for other files.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    path = Path(path)
    head = _head(path)
    if sniff_image(path, head) is not None or not looks_like_dicom(head):
        return ()
    with quiet_libraries():
        return _segments(_dataset(path, settings or LoaderSettings()))


def listed(segments: Sequence[Segment]) -> str:
    """Return the number and name of segments, for messages."""
    shown = ", ".join(
        f"{s.number} {s.name or s.tracking_id}".strip() for s in segments[:_MAX_LISTED]
    )
    more = len(segments) - _MAX_LISTED
    return shown if more <= 0 else f"{shown} and {more} more"


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{file_label(path)} is a folder: specify the mask file")
    try:
        require_regular(path)
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the mask {file_label(path)}: {error.strerror}") from error


def _number(label: int | str) -> int | None:
    """Return the number of a label; None for a name."""
    return int(label) if str(label).isdecimal() else None


def _segments(dataset: Any) -> tuple[Segment, ...]:
    found = []
    for item in dataset.get("SegmentSequence") or ():
        if not int(item.SegmentNumber):  # the background of a label map
            continue
        types = item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
        code = (str(types[0].get("CodeValue", "")), str(types[0].get("CodingSchemeDesignator", "")))
        found.append(
            Segment(
                int(item.SegmentNumber),
                str(item.get("SegmentLabel", "")).strip(),
                str(item.get("TrackingID", "")).strip(),
                code,
            )
        )
    return tuple(found)


def _selected(
    segments: tuple[Segment, ...],
    labels: Sequence[int | str],
    structure: Structure | None,
    name: str,
) -> list[int]:
    """Return the numbers of the segments to read."""
    if not labels:
        if structure is None or len(segments) < 2:
            return [segment.number for segment in segments]
        numbers = [segment.number for segment in segments if structure.matches(segment)]
        if not numbers:
            raise InputError(
                f"{name} contains {len(segments)} segments, none of which is marked as "
                f"{structure.name}: select with {structure.option} ({listed(segments)})"
            )
        return numbers
    numbers = []
    for label in labels:
        value, text = _number(label), str(label).casefold()
        same = [s.number for s in segments if s.number == value or text in s.names()]
        if len(same) != 1:
            count = "several segments" if same else "no segment"
            raise InputError(f"{name} has {count} {label!r}: it contains {listed(segments)}")
        numbers += same
    return numbers


def put_on_grid(
    mask: Volume, target: Geometry, what: str = "mask", onto: str = "myelogram"
) -> tuple[Volume, list[Note]]:
    """Resample a mask to another grid of the same patient space.

    A mask on the same grid, in any axis order, is copied; others are resampled by nearest
    neighbor, with the note ``mask_resampled``.

    Parameters
    ----------
    mask : Volume
        As returned by `read_mask`.
    target : Geometry
        Grid of the myelogram.
    what : str
        Name of the mask in messages, such as ``"sac mask"``.
    onto : str
        Name of the volume of that grid in messages.

    Returns
    -------
    Volume
        The same labels on `target`.
    list of Note

    Raises
    ------
    GeometryError
        If the mask has another frame of reference, lies elsewhere, or is mirrored (RAS
        coordinates written as LPS); the message states how to correct it.
    """
    _require_same_frame(mask.geometry, target, what, onto)
    same = _same_voxels(mask, target)
    if same is not None:
        return same, []
    _reject_mirrored_grid(mask, target, what, onto)
    if not mask.array.any():
        return Volume(np.zeros(target.shape, np.uint8), target, mask.provenance), []
    inside = _fraction_inside(mask, target)
    if inside == 0.0:
        raise GeometryError(_outside_message(mask, target, what, onto))
    moved = mask.resample(target, order=0)
    if not moved.array.any():
        raise GeometryError(
            f"the {what} is empty on the grid of the {onto}: its labels are smaller than the "
            f"voxels of the {onto}; draw it on the {onto}"
        )
    spacing = " x ".join(f"{mm:.2g}" for mm in mask.geometry.spacing_ijk_mm)
    variant = "inside" if inside >= 1.0 - _LOST_TOLERANCE else "partly_outside"
    values = {"mask": what, "spacing": spacing, "outside": 1.0 - inside, "onto": onto}
    return moved, [note("mask_resampled", variant, **values)]


def _image(path: Path, kind: Kind, settings: LoaderSettings) -> Volume:
    """Read the voxels of a volume file after checking its header."""
    try:
        header = read_image_header(path, kind, settings)
        if any(found.code == "nifti_forms_disagree" for found in header.notes):
            raise GeometryError(
                "qform and sform of the NIfTI header disagree, so the position is unknown: delete "
                "the incorrect one (in nibabel: image.set_sform(image.get_qform(), 1), or vice "
                "versa) and save it again"
            )
        return read_voxels(path, kind, settings)
    except InputError as error:
        raise type(error)(f"mask {file_label(path)}: {error}") from error


def _labels(array: npt.NDArray[Any], name: str, may_be_empty: bool) -> npt.NDArray[Any]:
    """Return integer labels in the smallest type; raise if the values are not labels."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} contains color or complex values, not labels")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{name} contains non-finite values (NaN): set them to 0")
        whole = np.round(array)
        if np.abs(array - whole).max() > _WHOLE:
            raise InputError(_fraction_message(array, name))
        array = whole
    low, high = array.min(), array.max()
    if low < 0:
        raise InputError(
            f"{name} contains negative values (down to {low:g}): background is 0, labels are >= 1"
        )
    if high > MAX_LABEL:
        raise InputError(
            f"{name} contains values up to {high:g}, above the maximum label {MAX_LABEL}: it "
            "appears to be a grayscale image or an overflow, not a mask"
        )
    if high == 0 and not may_be_empty:
        raise InputError(f"{name} is empty: it contains no label above 0")
    dtype: type[np.unsignedinteger[Any]] = np.uint8 if high < 256 else np.uint16
    labels = array.astype(dtype)
    count = 0
    if high >= _MAX_LABELS:  # otherwise the count cannot exceed the maximum
        count = int(np.count_nonzero(np.bincount(labels.ravel())))
    if count > _MAX_LABELS:
        raise InputError(
            f"{name} contains {count} distinct values: it appears to be an image, not a mask"
        )
    return labels


def _fraction_message(array: npt.NDArray[Any], name: str) -> str:
    low, high = float(array.min()), float(array.max())
    if low >= 0.0 and high <= 1.0:
        return (
            f"{name} contains fractions between 0 and 1 (probabilities): threshold it, usually at "
            "0.5, and save integers"
        )
    return (
        f"{name} contains non-integer values ({low:.3g} to {high:.3g}): it appears to be a "
        "grayscale image or an interpolated mask; resample labels by nearest neighbor"
    )


def _dataset(path: Path, settings: LoaderSettings) -> Any:
    try:
        with DicomFile(path, settings) as file:
            return pydicom.dcmread(file, force=True)
    except InputError:
        raise
    except Exception as error:  # corrupt files raise various exceptions
        raise InputError(f"corrupt DICOM file {file_label(path)} ({reason_of(error)})") from error


def _dicom_segmentation(
    path: Path,
    labels: Sequence[int | str],
    structure: Structure | None,
    settings: LoaderSettings,
) -> Volume:
    """Read a DICOM SEG (binary or label map); labels are segment numbers."""
    dataset = _dataset(path, settings)
    if str(dataset.get("Modality")) != "SEG":
        raise InputError(
            f"{file_label(path)} is a DICOM image or document, not a segmentation (modality "
            f"{dataset.get('Modality', 'unknown')}): use a SEG object, NIfTI, NRRD or MHA"
        )
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        raise InputError(
            f"{file_label(path)} is a fractional segmentation (probabilities): export a binary one"
        )

    numbers = _selected(_segments(dataset), labels, structure, file_label(path))

    def volume_of() -> Any:
        segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        grid = segmentation.get_volume_geometry(allow_missing_positions=True)
        if grid is not None:
            frame = int(dataset.Rows) * int(dataset.Columns)
            n_frames = max(int(dataset.NumberOfFrames), grid.spatial_shape[0])
            require_decoded_size(n_frames * frame, path, settings)
        return segmentation.get_volume(
            segment_numbers=numbers, combine_segments=True, allow_missing_positions=True
        )

    try:
        try:
            volume = volume_of()
        except (
            RuntimeError
        ):  # tools copy the slice spacing of the scanner, which is often incorrect
            for item in dataset.SharedFunctionalGroupsSequence:
                for measures in item.get("PixelMeasuresSequence") or []:
                    measures.pop("SpacingBetweenSlices", None)
            volume = volume_of()
    except InputError:
        raise
    except Exception as error:  # highdicom raises various exceptions with a message
        reason = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else "unknown reason"
        )
        raise GeometryError(
            f"the segments of {file_label(path)} do not form a label volume ({reason}); export one "
            "segment per file, or a label map as NIfTI"
        ) from error
    array = np.asarray(volume.array)
    affine = np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]  # (k, j, i) -> (i, j, k)
    k, j, i = array.shape
    return Volume(array, Geometry((k, j, i), affine, volume.frame_of_reference_uid))


def _require_same_frame(one: Geometry, other: Geometry, what: str, onto: str) -> None:
    if one.in_other_frame(other):
        raise GeometryError(
            f"the {what} has another frame of reference than the {onto}: register it to the "
            f"{onto} first, or specify the series it was drawn on with --myelogram"
        )


def _same_voxels(mask: Volume, target: Geometry) -> Volume | None:
    """Return the mask in the axis order of the target if both have the same grid."""
    oriented = mask.oriented(target.axis_codes)
    if not oriented.geometry.matches(target, _SAME_GRID * min(target.spacing_ijk_mm)):
        return None
    return Volume(np.ascontiguousarray(oriented.array), target, mask.provenance)


def _mirrored(geometry: Geometry, signs: tuple[float, float]) -> Geometry:
    return replace(geometry, affine_lps=np.diag([*signs, 1.0, 1.0]) @ geometry.affine_lps)


def _reject_mirrored_grid(mask: Volume, target: Geometry, what: str, onto: str) -> None:
    """Reject a grid that matches only when mirrored: its affine has the wrong sign convention."""
    for sides, signs in _MIRRORS.items():
        if _same_voxels(replace(mask, geometry=_mirrored(mask.geometry, signs)), target):
            raise GeometryError(_mirrored_message(what, sides, onto))


def _mirrored_message(what: str, sides: str, onto: str) -> str:
    return (
        f"the {what} matches the {onto} only when mirrored ({sides}): its affine was probably "
        "written in LPS where the format requires RAS, or vice versa; negate the first two "
        "rows of its affine (in nibabel: np.diag([-1, -1, 1, 1]) @ affine) and save it again"
    )


def _fraction_inside(mask: Volume, target: Geometry, map_lps: FloatArray | None = None) -> float:
    """Fraction of labeled voxels whose center lies in the field of view of the target."""
    voxels = np.argwhere(mask.array)
    stride = max(1, len(voxels) // 20_000)  # a sample is sufficient
    points = mask.geometry.lps_from_kji(voxels[::stride])
    if map_lps is not None:
        points = points * map_lps
    return float(target.contains(points).mean())


def _outside_message(mask: Volume, target: Geometry, what: str, onto: str) -> str:
    for sides, (x, y) in _MIRRORS.items():
        if _fraction_inside(mask, target, np.array([x, y, 1.0])) >= _MIRRORED_INSIDE:
            return _mirrored_message(what, sides, onto)
    if sorted(mask.geometry.shape) == sorted(target.shape):
        return (
            f"the {what} has as many voxels as the {onto}, but a different position: it was "
            "probably saved without the affine; save it with that of the volume it was drawn on"
        )
    gap = np.linalg.norm(mask.geometry.center_lps - target.center_lps)
    return (
        f"the {what} lies outside the {onto} (centers {gap:.0f} mm apart): it belongs to "
        f"another volume or patient, or its affine was lost; save it with that of the {onto}"
    )
