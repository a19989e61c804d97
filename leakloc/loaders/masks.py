"""Label masks made elsewhere: reading them, and putting them on a myelogram's grid.

A mask is a `Volume` of whole numbers, 0 for background. It may come as NIfTI, NRRD, MetaImage
or DICOM Segmentation; what is no mask (a picture, probabilities, one slice) is refused with
the way to mend it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leakloc.core.errors import GeometryError, InputError
from leakloc.core.notes import Note
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.loaders.images import Kind, read_image_header, read_voxels, sniff_image

MAX_LABEL: Final = 65_535
"""Largest label kept; published schemes of labels stay below 1,000."""

_MAX_LABELS: Final = 500
"""More different values are a picture: whole-body schemes have fewer than 200 labels."""
_WHOLE: Final = 1e-3
"""Farthest a label that went through floats and a scale factor is from a whole number."""
_SAME_GRID: Final = 0.05
"""Share of the smallest voxel edge by which corners of one grid may differ: headers round."""
_LOST_TOLERANCE: Final = 0.02
"""Share of a mask that may lie outside the myelogram unmentioned: a rim of half voxels."""
_MIRRORED_INSIDE: Final = 0.5
"""Share of a mask inside the myelogram after mirroring from which a mix-up of sides is likely."""
_HEAD_BYTES: Final = 512

_MIRRORS: Final[dict[str, tuple[float, float]]] = {
    "left-right and front-back": (-1.0, -1.0),
    "left-right": (-1.0, 1.0),
    "front-back": (1.0, -1.0),
}


def read_mask(path: str | Path, *, may_be_empty: bool = False) -> Volume:
    """Read a label mask.

    Parameters
    ----------
    path : path
        A NIfTI, NRRD or MetaImage file, or a DICOM Segmentation object, told by content. In
        DICOM the label is the segment number.
    may_be_empty : bool
        Whether a mask without any label is an answer (no fluid) and not a mistake.

    Returns
    -------
    Volume
        uint8 where every label fits, else uint16; LPS geometry, with the frame of reference
        where the file is DICOM.

    Raises
    ------
    InputError
        If the file cannot be read, is no mask, or holds no label.
    GeometryError
        If it has not three axes, or does not say where it lies in the patient.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path.name} is a folder: name the mask file itself")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the mask {path.name}: {error.strerror}") from error
    kind = sniff_image(path, head)
    if kind is not None:
        volume = _image(path, kind)
    elif head[128:132] == b"DICM":
        volume = _dicom_segmentation(path)
    else:
        raise InputError(
            f"{path.name} is no mask that can be read: give NIfTI, NRRD, MHA or a DICOM SEG file"
        )
    labels = _labels(volume.array, path.name, may_be_empty)
    return Volume(labels, volume.geometry, Provenance(source="mask file", steps=("read",)))


def put_on_grid(
    mask: Volume, target: Geometry, what: str = "mask", onto: str = "myelogram"
) -> tuple[Volume, list[Note]]:
    """A mask on another grid of the same patient space.

    The same grid, in whatever order of axes, is taken over voxel by voxel; another one is
    resampled to the nearest label, with the note ``mask_resampled``.

    Parameters
    ----------
    mask : Volume
        As `read_mask` gives it.
    target : Geometry
        Of the myelogram.
    what : str
        What the mask is called in messages, such as ``"sac mask"``.
    onto : str
        What the volume of that grid is called.

    Returns
    -------
    Volume
        Same labels, on `target`.
    list of Note

    Raises
    ------
    GeometryError
        If the mask lies in another frame of reference, elsewhere, or with its sides swapped
        (RAS coordinates written as LPS); the message says how to mend it.
    """
    _demand_same_frame(mask.geometry, target, what, onto)
    same = _same_voxels(mask, target)
    if same is not None:
        return same, []
    _refuse_mirrored_grid(mask, target, what, onto)
    if not mask.array.any():
        return Volume(np.zeros(target.shape, np.uint8), target, mask.provenance), []
    inside = _fraction_inside(mask, target)
    if inside == 0.0:
        raise GeometryError(_nowhere(mask, target, what, onto))
    moved = mask.resample(target, order=0)
    if not moved.array.any():
        raise GeometryError(
            f"nothing is left of the {what} on the {onto}'s grid: its labels are smaller than "
            f"the {onto}'s voxels; draw it on the {onto}"
        )
    spacing = " x ".join(f"{mm:.2g}" for mm in mask.geometry.spacing_ijk_mm)
    text = f"the {what} lies on another grid ({spacing} mm) and was resampled to the nearest label"
    if inside < 1.0 - _LOST_TOLERANCE:
        text += f"; {1.0 - inside:.0%} of it lies outside the {onto} and was left out"
    return moved, [Note("mask_resampled", text)]


def _image(path: Path, kind: Kind) -> Volume:
    """The voxels of a volume file that passes the checks of the loader."""
    try:
        read_image_header(path, kind)
        return read_voxels(path, kind)
    except InputError as error:
        raise type(error)(f"mask {path.name}: {error}") from error


def _labels(array: npt.NDArray[Any], name: str, may_be_empty: bool) -> npt.NDArray[Any]:
    """Whole labels in the smallest type, or the reason why these are none."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} holds colours or complex numbers, not labels")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{name} holds values that are not finite (NaN): set them to 0")
        whole = np.round(array)
        if np.abs(array - whole).max() > _WHOLE:
            raise InputError(_fractions(array, name))
        array = whole
    low, high = array.min(), array.max()
    if low < 0:
        raise InputError(
            f"{name} holds negative values (down to {low:g}): background is 0, labels are 1 and up"
        )
    if high > MAX_LABEL:
        raise InputError(
            f"{name} holds values up to {high:g}, beyond the {MAX_LABEL} of a label: it looks like "
            "a picture or an overflow, not like a mask"
        )
    if high == 0 and not may_be_empty:
        raise InputError(f"{name} is empty: it holds no label above 0")
    labels = array.astype(np.uint8 if high < 256 else np.uint16)
    count = 0
    if high >= _MAX_LABELS:  # else there cannot be as many
        count = int(np.count_nonzero(np.bincount(labels.ravel())))
    if count > _MAX_LABELS:
        raise InputError(
            f"{name} holds {count} different values: it looks like a picture, not like a mask"
        )
    return labels


def _fractions(array: npt.NDArray[Any], name: str) -> str:
    low, high = float(array.min()), float(array.max())
    if low >= 0.0 and high <= 1.0:
        return (
            f"{name} holds fractions between 0 and 1 (probabilities): threshold it, usually at "
            "0.5, and save whole numbers"
        )
    return (
        f"{name} holds values that are no whole numbers ({low:.3g} to {high:.3g}): it looks like a "
        "picture, or a mask resampled with interpolation; resample labels to the nearest"
    )


def _dicom_segmentation(path: Path) -> Volume:
    """Segments of a DICOM SEG (binary or label map) as labels by segment number."""
    import highdicom as hd
    import pydicom

    try:
        dataset = pydicom.dcmread(path)
    except Exception as error:  # damaged files raise many kinds
        raise InputError(f"broken DICOM file {path.name} ({type(error).__name__})") from error
    if str(dataset.get("Modality")) != "SEG":
        raise InputError(
            f"{path.name} is a DICOM image or document, not a segmentation (modality "
            f"{dataset.get('Modality', 'unknown')}): give a SEG object, NIfTI, NRRD or MHA"
        )
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        raise InputError(
            f"{path.name} is a fractional segmentation (probabilities): export a binary one"
        )

    def volume_of() -> Any:
        segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        return segmentation.get_volume(combine_segments=True, allow_missing_positions=True)

    try:
        try:
            volume = volume_of()
        except RuntimeError:  # tools copy the scanner's slice spacing, which is often wrong
            for item in dataset.SharedFunctionalGroupsSequence:
                for measures in item.get("PixelMeasuresSequence") or []:
                    measures.pop("SpacingBetweenSlices", None)
            volume = volume_of()
    except Exception as error:  # highdicom raises several kinds, each with its reason
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason"
        raise GeometryError(
            f"the segments of {path.name} form no volume of labels ({reason}); export one segment "
            "per file, or a label map as NIfTI"
        ) from error
    array = np.asarray(volume.array)
    affine = np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]  # (k, j, i) -> (i, j, k)
    k, j, i = array.shape
    return Volume(array, Geometry((k, j, i), affine, volume.frame_of_reference_uid))


def _demand_same_frame(one: Geometry, other: Geometry, what: str, onto: str) -> None:
    if one.in_other_frame(other):
        raise GeometryError(
            f"the {what} lies in another frame of reference than the {onto}: register it to the "
            f"{onto} first, or name the series it was drawn on with --myelogram"
        )


def _same_voxels(mask: Volume, target: Geometry) -> Volume | None:
    """The mask in the target's order of axes where both are the same grid."""
    turned = mask.oriented(target.axis_codes)
    if not turned.geometry.matches(target, _SAME_GRID * min(target.spacing_ijk_mm)):
        return None
    return Volume(np.ascontiguousarray(turned.array), target, mask.provenance)


def _mirrored(geometry: Geometry, signs: tuple[float, float]) -> Geometry:
    return replace(geometry, affine_lps=np.diag([*signs, 1.0, 1.0]) @ geometry.affine_lps)


def _refuse_mirrored_grid(mask: Volume, target: Geometry, what: str, onto: str) -> None:
    """A grid that fits exactly once mirrored was written with the signs of another convention."""
    for sides, signs in _MIRRORS.items():
        if _same_voxels(replace(mask, geometry=_mirrored(mask.geometry, signs)), target):
            raise GeometryError(_mixed_up(what, sides, onto))


def _mixed_up(what: str, sides: str, onto: str) -> str:
    return (
        f"the {what} fits the {onto} only when mirrored ({sides}): its affine was probably "
        "written in LPS where the format means RAS, or the other way round; negate the first two "
        "rows of its affine (in nibabel: np.diag([-1, -1, 1, 1]) @ affine) and save it again"
    )


def _fraction_inside(mask: Volume, target: Geometry, map_lps: FloatArray | None = None) -> float:
    """Share of the labelled voxels whose centre lies in the target's field."""
    places = np.argwhere(mask.array)
    stride = max(1, len(places) // 20_000)  # a share needs no more
    points = mask.geometry.lps_from_kji(places[::stride])
    if map_lps is not None:
        points = points * map_lps
    return float(target.contains(points).mean())


def _nowhere(mask: Volume, target: Geometry, what: str, onto: str) -> str:
    for sides, (x, y) in _MIRRORS.items():
        if _fraction_inside(mask, target, np.array([x, y, 1.0])) >= _MIRRORED_INSIDE:
            return _mixed_up(what, sides, onto)
    if sorted(mask.geometry.shape) == sorted(target.shape):
        return (
            f"the {what} has as many voxels as the {onto}, but its affine puts it elsewhere: it "
            "was probably saved without the affine; save it with that of the volume it was drawn on"
        )
    gap = np.linalg.norm(mask.geometry.center_lps - target.center_lps)
    return (
        f"the {what} lies outside the {onto} (centres {gap:.0f} mm apart): it belongs to "
        f"another volume or patient, or its affine was lost; save it with that of the {onto}"
    )
