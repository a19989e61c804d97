"""Read NIfTI, NRRD and MetaImage files: single volumes without acquisition headers."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from leakloc.core.errors import GeometryError, InputError, reason_of
from leakloc.core.notes import Note, note
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.loaders.headers import SEQUENCE_KEYWORDS
from leakloc.loaders.study import SeriesStack

Kind = Literal["nifti", "nrrd", "metaimage"]

_GZIP = b"\x1f\x8b"
_NIFTI_SIZES = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
_MM: Final = {
    **dict.fromkeys(("", "unknown", "?", "mm", "millimeter", "millimeters", "millimetre"), 1.0),
    **dict.fromkeys(("m", "meter", "meters", "metre"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), 1e-3),
}
"""Millimeters per unit of length of the formats."""
_MIN_EDGE_MM: Final = 0.01
_MAX_EDGE_MM: Final = 100.0
"""Voxel edges of MR images lie within; an edge beyond them has another unit than stated."""
_HEADER_BYTES: Final = 65_536
_ITK_UNIT: Final = "ITK_VoxelUnits"
_NRRD_UNIT: Final = re.compile(rb'^space units:\s*"([^"]*)"', re.MULTILINE)
_NIFTI1_MAGIC_AT, _NIFTI2_MAGIC_AT = 344, 4


def sniff_image(path: Path, head: bytes) -> Kind | None:
    """Detect the format of a volume file from its first bytes."""
    if head.startswith(_GZIP):
        try:
            with gzip.open(path) as file:
                head = file.read(512)
        except (OSError, EOFError, zlib.error):
            return None
    if head[:4] in _NIFTI_SIZES and (
        head[_NIFTI1_MAGIC_AT : _NIFTI1_MAGIC_AT + 2] in (b"n+", b"ni")
        or head[_NIFTI2_MAGIC_AT : _NIFTI2_MAGIC_AT + 2] in (b"n+", b"ni")
    ):
        return "nifti"
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if b"NDims" in head[:256] and b"=" in head[:256]:
        return "metaimage"
    return None


def read_image_header(path: Path, kind: Kind) -> SeriesStack:
    """Read the header of a volume file; pixels are read by `SeriesStack.load`.

    Raises
    ------
    InputError
        If the file is corrupt or not three-dimensional.
    """
    try:
        geometry, notes = _geometry(path, kind)
    except GeometryError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"corrupt {kind} file ({reason_of(error)})") from error
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        name = name.removesuffix(suffix)

    def read() -> Volume:
        volume = read_voxels(path, kind)
        array = volume.array
        if array.dtype.kind == "f":  # some tools write NaN outside the field of view
            array = np.nan_to_num(array.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
        return Volume(array, volume.geometry, Provenance(source=kind))

    return SeriesStack(
        series_instance_uid=None,
        description=name,
        modality="",
        n_instances=1,
        parameters=_sidecar(path.with_name(f"{name}.json")),
        geometry=geometry,
        files=(path,),
        sop_instance_uids=(),
        read=read,
        notes=tuple(notes),
    )


def read_voxels(path: Path, kind: Kind) -> Volume:
    """Read the voxels of a volume file as stored, including NaN.

    Raises
    ------
    InputError
        If the file is corrupt or not grayscale.
    """
    try:
        volume = Volume.from_nibabel(_nifti(path)) if kind == "nifti" else _read_itk(path)
        volume = replace(volume, geometry=_geometry(path, kind)[0])
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"cannot read {path.name}: {reason_of(error)}") from error
    if volume.array.dtype.kind not in "biuf":
        raise InputError(f"{path.name} contains color or complex values, not grayscale")
    return volume.with_array(_native(volume.array))


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in the byte order of this machine, which ITK requires."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _sidecar(path: Path) -> dict[str, Any]:
    """Read sequence parameters from the BIDS JSON sidecar of a volume."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {key: values[key] for key in SEQUENCE_KEYWORDS if values.get(key) not in (None, "")}
    for key in ("EchoTime", "RepetitionTime", "InversionTime"):  # seconds in BIDS, ms in DICOM
        if isinstance(found.get(key), int | float):
            found[key] = 1000.0 * found[key]
    return found


def _nifti(path: Path) -> Any:
    """Open a NIfTI file by content, regardless of its suffix."""
    if path.name.endswith((".nii", ".nii.gz")):
        return nib.load(path)
    opener = gzip.open if path.open("rb").read(2) == _GZIP else open
    with opener(path, "rb") as file:
        content = file.read()
    kind = nib.Nifti1Image if content[:2] in (b"\x5c\x01", b"\x00\x00") else nib.Nifti2Image
    return kind.from_bytes(content)


def _geometry(path: Path, kind: Kind) -> tuple[Geometry, list[Note]]:
    """Return the geometry of a volume file in millimeters, with notes on its header."""
    geometry, unit, notes = _nifti_geometry(path) if kind == "nifti" else _itk_geometry(path)
    factor = _MM.get(unit)
    if factor is None:
        raise GeometryError(
            f"lengths are stated in {unit!r}, which is not supported: convert to mm"
        )
    scaled = geometry
    if factor != 1.0:
        affine = geometry.affine_lps.copy()
        affine[:3] *= factor
        scaled = replace(geometry, affine_lps=affine)
        notes = [*notes, note("units_converted", unit=unit)]
    low, high = min(scaled.spacing_ijk_mm), max(scaled.spacing_ijk_mm)
    if low < _MIN_EDGE_MM or high > _MAX_EDGE_MM:
        raise GeometryError(
            f"the voxel size is {low:.3g} to {high:.3g} mm, with lengths stated in "
            f"{unit or 'no unit'}: the unit in the header is wrong or missing; save the volume "
            "in mm"
        )
    return scaled, notes


def _nifti_geometry(path: Path) -> tuple[Geometry, str, list[Note]]:
    """Return the geometry in the unit of the header, the unit, and notes."""
    image = _nifti(path)
    _require_affine(image)
    shape = _three_axes(image.shape)
    unit = image.header.get_xyzt_units()[0]
    geometry = _nifti_grid(image.affine, shape)
    distance = _disagreement(image.header, geometry, shape)
    if distance is None:
        return geometry, unit, []
    return geometry, unit, [note("nifti_forms_disagree", distance_mm=distance * _MM.get(unit, 1.0))]


def _nifti_grid(affine: npt.ArrayLike, shape: tuple[int, ...]) -> Geometry:
    affine_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)
    return Geometry((shape[2], shape[1], shape[0]), affine_lps)


def _disagreement(header: Any, geometry: Geometry, shape: tuple[int, ...]) -> float | None:
    """Return the largest distance between the positions by qform and sform; None within a voxel.

    Raises
    ------
    GeometryError
        If they disagree on the directions of the axes: sides may be swapped.
    """
    if not int(header["qform_code"]) or not int(header["sform_code"]):
        return None
    try:
        other = _nifti_grid(header.get_qform(), shape)
    except (ValueError, GeometryError):  # an invalid quaternion: the sform is used
        return None
    distance = float(np.linalg.norm(geometry.corners_lps - other.corners_lps, axis=1).max())
    if distance <= max(geometry.spacing_ijk_mm):
        return None
    if geometry.axis_codes != other.axis_codes:
        raise GeometryError(
            "qform and sform of the NIfTI header disagree on the directions of the axes, so that "
            "left and right may be swapped: delete the incorrect one (in nibabel: "
            "image.set_sform(image.get_qform(), 1), or vice versa) and save it again"
        )
    return distance


def _require_affine(image: Any) -> None:
    """Reject NIfTI without qform and sform: the patient orientation is unknown."""
    if not int(image.header["qform_code"]) and not int(image.header["sform_code"]):
        raise GeometryError(
            "the NIfTI header has neither qform nor sform, so the orientation is unknown"
        )


def _three_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise GeometryError(f"one volume with three axes is required, not shape {tuple(shape)}")
    return tuple(int(n) for n in shape[:3])


def _itk_reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _itk_geometry(path: Path) -> tuple[Geometry, str, list[Note]]:
    """Return the geometry in the unit of the header, the unit, and no notes."""
    reader = _itk_reader(path)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise GeometryError("a color or vector image, not grayscale")
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    is_nrrd = head.startswith(b"NRRD")
    unit = reader.GetMetaData(_ITK_UNIT) if _ITK_UNIT in reader.GetMetaDataKeys() else ""
    stated = _NRRD_UNIT.search(head.split(b"\n\n")[0]) if is_nrrd else None
    if stated:  # ITK does not read it
        unit = stated[1].decode("utf-8", "replace")
    if is_nrrd and "NRRD_space" not in reader.GetMetaDataKeys():
        raise GeometryError("the NRRD header has no space field, so the orientation is unknown")
    i, j, k = _three_axes(reader.GetSize())
    geometry = Geometry.from_axes(
        (k, j, i),
        origin_lps=reader.GetOrigin()[:3],
        spacing_ijk_mm=reader.GetSpacing()[:3],
        directions_lps=np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3],
    )
    return geometry, unit.strip(), []


def _read_itk(path: Path) -> Volume:
    image = _itk_reader(path).Execute()
    while image.GetDimension() > 3:
        size = list(image.GetSize())
        image = sitk.Extract(image, [*size[:-1], 0], [0] * len(size))
    return Volume.from_sitk(image)
