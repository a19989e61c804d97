"""Read NIfTI, NRRD and MetaImage files: single volumes without acquisition headers."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from leakloc.core.errors import GeometryError, InputError
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.loaders.headers import SEQUENCE_KEYWORDS
from leakloc.loaders.study import SeriesStack

Kind = Literal["nifti", "nrrd", "metaimage"]

_GZIP = b"\x1f\x8b"
_NIFTI_SIZES = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
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
        geometry = _nifti_geometry(path) if kind == "nifti" else _itk_geometry(path)
    except GeometryError as error:
        raise InputError(str(error)) from error
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"corrupt {kind} file ({type(error).__name__})") from error
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
    )


def read_voxels(path: Path, kind: Kind) -> Volume:
    """Read the voxels of a volume file as stored, including NaN.

    Raises
    ------
    InputError
        If the file is corrupt or not grayscale.
    """
    try:
        volume = _read_nifti(path) if kind == "nifti" else _read_itk(path)
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"cannot read {path.name}: {type(error).__name__}") from error
    if volume.array.dtype.kind not in "biuf":
        raise InputError(f"{path.name} contains color or complex values, not grayscale")
    return volume


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


def _nifti_geometry(path: Path) -> Geometry:
    image = _nifti(path)
    _require_affine(image)
    shape = _three_axes(image.shape)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    return Geometry((shape[2], shape[1], shape[0]), affine)


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


def _read_nifti(path: Path) -> Volume:
    return Volume.from_nibabel(_nifti(path))


def _itk_reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _itk_geometry(path: Path) -> Geometry:
    reader = _itk_reader(path)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise GeometryError("a color or vector image, not grayscale")
    with path.open("rb") as file:
        is_nrrd = file.read(4) == b"NRRD"
    if is_nrrd and "NRRD_space" not in reader.GetMetaDataKeys():
        raise GeometryError("the NRRD header has no space field, so the orientation is unknown")
    i, j, k = _three_axes(reader.GetSize())
    return Geometry.from_axes(
        (k, j, i),
        origin_lps=reader.GetOrigin()[:3],
        spacing_ijk_mm=reader.GetSpacing()[:3],
        directions_lps=np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:3, :3],
    )


def _read_itk(path: Path) -> Volume:
    image = _itk_reader(path).Execute()
    while image.GetDimension() > 3:
        size = list(image.GetSize())
        image = sitk.Extract(image, [*size[:-1], 0], [0] * len(size))
    return Volume.from_sitk(image)
