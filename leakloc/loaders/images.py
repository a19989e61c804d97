"""Read NIfTI, NRRD and MetaImage files: single volumes without acquisition headers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from leakloc.core.errors import GeometryError, InputError, file_label, reason_of
from leakloc.core.notes import Note, note
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.loaders.headers import SEQUENCE_KEYWORDS
from leakloc.loaders.limits import require_decoded_size, require_plausible, require_regular
from leakloc.loaders.study import SeriesStack
from leakloc.loaders.text_headers import StoredVolume, read_text_header, three_axes

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
_NIFTI1_MAGIC_AT, _NIFTI2_MAGIC_AT = 344, 4
_MIN_EXTENSION_BYTES: Final = 8
_MAX_SIDECAR_BYTES: Final = 1_048_576
"""Maximum size of a JSON sidecar; usual ones have 4 KiB."""


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


def read_image_header(
    path: Path, kind: Kind, settings: LoaderSettings | None = None, root: Path | None = None
) -> SeriesStack:
    """Read the header of a volume file; pixels are read by `SeriesStack.load`.

    Parameters
    ----------
    path : Path
    kind : {"nifti", "nrrd", "metaimage"}
        From `sniff_image`.
    settings : LoaderSettings, optional
        Limit of the decoded size.
    root : Path, optional
        Folder of the study; data files that a header names must be in it or below. By default the
        folder of `path`.

    Raises
    ------
    InputError
        If the file is corrupt, too large or not three-dimensional, its geometry is implausible, or
        its data file is outside `root` or not a regular file.
    """
    settings = settings or LoaderSettings()
    try:
        if kind == "nifti":
            geometry, notes = _nifti_geometry(path, settings)
        else:
            geometry, notes = _stored_geometry(_text_header(path, kind, settings, root))
    except GeometryError as error:
        raise InputError(str(error)) from error
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"corrupt {kind} file ({reason_of(error, path)})") from error
    name = path.name
    for suffix in (".gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"):
        name = name.removesuffix(suffix)

    def read() -> Volume:
        volume = read_voxels(path, kind, settings, root)
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


def read_voxels(
    path: Path, kind: Kind, settings: LoaderSettings | None = None, root: Path | None = None
) -> Volume:
    """Read the voxels of a volume file as stored, including NaN.

    The parameters are those of `read_image_header`.

    Raises
    ------
    InputError
        If the file is corrupt, too large or not grayscale.
    """
    settings = settings or LoaderSettings()
    try:
        if kind == "nifti":
            with _nifti(path, settings) as image:
                volume = Volume.from_nibabel(image)
            volume = replace(volume, geometry=_nifti_geometry(path, settings)[0])
        else:
            header = _text_header(path, kind, settings, root)
            volume = Volume(header.read(), _stored_geometry(header)[0])
    except InputError:
        raise
    except Exception as error:  # readers raise various exceptions on corrupt files
        raise InputError(f"cannot read {file_label(path)}: {reason_of(error, path)}") from error
    if volume.array.dtype.kind not in "biuf":
        raise InputError(f"{file_label(path)} contains color or complex values, not grayscale")
    return volume.with_array(_native(volume.array))


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in the byte order of this machine, which other libraries require."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _sidecar(path: Path) -> dict[str, Any]:
    """Read sequence parameters from the BIDS JSON sidecar of a volume."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            content = file.read(_MAX_SIDECAR_BYTES + 1)
        values = json.loads(content) if len(content) <= _MAX_SIDECAR_BYTES else None
    except (OSError, ValueError, RecursionError, InputError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {key: values[key] for key in SEQUENCE_KEYWORDS if values.get(key) not in (None, "")}
    for key in ("EchoTime", "RepetitionTime", "InversionTime"):  # seconds in BIDS, ms in DICOM
        if isinstance(found.get(key), int | float):
            found[key] = 1000.0 * found[key]
    return found


@contextmanager
def _nifti(path: Path, settings: LoaderSettings) -> Iterator[Any]:
    """Open a NIfTI file by content, regardless of its suffix; the voxels are not read."""
    require_regular(path)
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
    with gzip.open(path) if compressed else path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        kind = nib.Nifti1Image if start[:2] in (b"\x5c\x01", b"\x00\x00") else nib.Nifti2Image
        if start == b"\x00\x00\x02\x1c":  # NIfTI-2, big endian
            kind = nib.Nifti2Image
        block = file.read(kind.header_class.template_dtype.itemsize)
        header = kind.header_class(block, check=False)
        scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))
        voxel_bytes = np.dtype(np.float64 if scaled else header.get_data_dtype()).itemsize
        # Header extensions, which precede the voxels, are read too.
        size = prod(map(float, header.get_data_shape())) * voxel_bytes
        end = float(header["vox_offset"])
        require_decoded_size(abs(size) + max(end, 0.0), path, settings)
        _require_extensions(file, len(block), end, header.endianness)
        file.seek(0)
        yield kind.from_stream(file)


def _require_extensions(file: Any, at: int, end: float, endianness: Any) -> None:
    """Require that the header extensions of a NIfTI file end at its voxels.

    nibabel reads each completely, of the size that it states, and further ones to the end of the
    file if the last one ends later.

    Raises
    ------
    GeometryError
    """
    has_extensions = file.read(4)[:1] not in (b"", b"\0")
    at += 4
    while has_extensions and at != end:
        size = int.from_bytes(file.read(4), "little" if endianness == "<" else "big", signed=True)
        at += size
        if size < _MIN_EXTENSION_BYTES or at > end:
            raise GeometryError("the extensions of the NIfTI header are corrupt")
        file.seek(at)


def _in_mm(geometry: Geometry, unit: str) -> tuple[Geometry, list[Note]]:
    """Return the geometry of a header in millimeters, with a note if it was converted."""
    factor = _MM.get(unit)
    if factor is None:
        raise GeometryError(
            f"lengths are stated in {unit!r}, which is not supported: convert to mm"
        )
    scaled, notes = geometry, []
    if factor != 1.0:
        affine = geometry.affine_lps.copy()
        affine[:3] *= factor
        scaled = replace(geometry, affine_lps=affine)
        notes = [note("units_converted", unit=unit)]
    try:
        require_plausible(scaled)
    except GeometryError as error:
        raise GeometryError(
            f"{error} (lengths are stated in {unit or 'no unit'}; if the unit in the header is "
            "wrong or missing, save the volume in mm)"
        ) from error
    return scaled, notes


def _text_header(
    path: Path, kind: Literal["nrrd", "metaimage"], settings: LoaderSettings, root: Path | None
) -> StoredVolume:
    return read_text_header(path, kind, root or path.parent, settings)


def _stored_geometry(header: StoredVolume) -> tuple[Geometry, list[Note]]:
    return _in_mm(header.geometry, header.unit)


def _nifti_geometry(path: Path, settings: LoaderSettings) -> tuple[Geometry, list[Note]]:
    """Return the geometry in millimeters, and notes."""
    with _nifti(path, settings) as image:
        _require_affine(image)
        shape = three_axes(image.shape)
        unit = image.header.get_xyzt_units()[0]
        stated = _nifti_grid(image.affine, shape)
        distance = _disagreement(image.header, stated, shape)
    geometry, notes = _in_mm(stated, unit)
    if distance is None:
        return geometry, notes
    distance_mm = distance * _MM[unit]
    return geometry, [note("nifti_forms_disagree", distance_mm=distance_mm), *notes]


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
