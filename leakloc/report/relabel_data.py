"""Data stored with a report so that levels can be renumbered without the images.

``relabel.npz`` contains the segmentation near the canal, the spine detections and the landmarks:
everything required by numbering and localization, as one JSON text and plain arrays.
Nonzero voxels are stored losslessly, so that renumbering gives exactly the same values as a new
analysis. It contains no more patient data than ``report.json``.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from leakloc.analysis import AnalysisData, Basis, Landmarks, SeriesSelection
from leakloc.anatomy.centerline import Centerline
from leakloc.core.errors import InputError, LeaklocError, OutputError
from leakloc.core.notes import Note
from leakloc.core.settings import Settings
from leakloc.core.version import __version__
from leakloc.core.volume import Geometry, Provenance, Volume
from leakloc.levels.candidates import Candidate as DiscCandidate
from leakloc.levels.conus import Conus
from leakloc.levels.detection import DetectedDisc, Detections
from leakloc.levels.result import AlternativeNumbering, Disc, Levels, Numbering, Vertebra
from leakloc.levels.sacrum import SacralAxis
from leakloc.levels.search import SpineDetection
from leakloc.localization.axial import MeasuredAxial, MeasuredInterruption, MeasuredLine
from leakloc.localization.companions import CompanionMeasurements
from leakloc.localization.enhancement import MeasuredEnhancement
from leakloc.localization.hiatus import SacralCanal
from leakloc.localization.second_myelogram import (
    AdditionalFluid,
    MyelogramComparison,
    SecondDetection,
)
from leakloc.localization.signals import CollectionSignals, MeasuredRatio
from leakloc.localization.surgical_bed import (
    ArchProfile,
    FluidExtension,
    SurgicalBed,
    VoidProfile,
)
from leakloc.report.relabel_crop import crop_to_region_read, without_unused_bone
from leakloc.segmentation.result import Candidate, Features, RoundStructure, Segmentation

NAME: Final = "relabel.npz"

_FORMAT: Final = 14
"""Version of the file format."""
_MAX_BYTES: Final = 2**32
"""Maximum unpacked size; files written by leakloc are smaller, damaged or malicious files may be
larger."""
_MAX_VOXELS: Final = 2**31
"""Maximum grid size: 25 times 512 x 512 x 300."""
_INLINE: Final = 64
"""Maximum size of arrays stored in the JSON text: points, directions, affines."""

_CLASSES: Final[dict[str, type]] = {
    "collection_candidate": Candidate,
    "features": Features,
    "round_structure": RoundStructure,
    "segmentation": Segmentation,
    "centerline": Centerline,
    "geometry": Geometry,
    "note": Note,
    "detection": SpineDetection,
    "detections": Detections,
    "conus": Conus,
    "detected_disc": DetectedDisc,
    "disc_candidate": DiscCandidate,
    "levels": Levels,
    "numbering": Numbering,
    "alternative": AlternativeNumbering,
    "vertebra": Vertebra,
    "disc": Disc,
    "landmarks": Landmarks,
    "sacral_axis": SacralAxis,
    "sacral_canal": SacralCanal,
    "basis": Basis,
    "series_selection": SeriesSelection,
    "collection_signals": CollectionSignals,
    "measured_ratio": MeasuredRatio,
    "companion_measurements": CompanionMeasurements,
    "measured_axial": MeasuredAxial,
    "measured_line": MeasuredLine,
    "measured_interruption": MeasuredInterruption,
    "measured_enhancement": MeasuredEnhancement,
    "myelogram_comparison": MyelogramComparison,
    "second_detection": SecondDetection,
    "additional_fluid": AdditionalFluid,
    "surgical_bed": SurgicalBed,
    "arch_profile": ArchProfile,
    "void_profile": VoidProfile,
    "fluid_extension": FluidExtension,
}
_NAMES: Final = {kind: name for name, kind in _CLASSES.items()}


@dataclass(frozen=True)
class RelabelData:
    """Input for renumbering the levels.

    Parameters
    ----------
    settings : Settings
        Settings of the analysis, including user-specified level settings.
    basis : Basis
        Segmentation, landmarks and warnings of earlier stages.
    detection : SpineDetection or None
        Spine detections before numbering; None if the levels were supplied.
    levels : Levels or None
        The supplied levels, if `detection` is None.
    """

    settings: Settings
    basis: Basis
    detection: SpineDetection | None
    levels: Levels | None


def of_analysis(analysis: AnalysisData) -> RelabelData:
    """Return the data of an analysis.

    Raises
    ------
    OutputError
        If the analysis was assembled manually without `basis`.
    """
    if analysis.basis is None:
        raise OutputError("the analysis has no data for renumbering the levels (basis is None)")
    detection = analysis.levels.detection
    levels = analysis.levels if detection is None else None
    return RelabelData(analysis.settings, analysis.basis, detection, levels)


def save(analysis: AnalysisData, path: Path) -> None:
    """Write ``relabel.npz``.

    Raises
    ------
    OutputError
        If the analysis was assembled manually without `basis`, or contains results of classes
        defined by a plug-in.
    """
    data = of_analysis(analysis)
    arrays: dict[str, npt.NDArray[Any]] = {}
    detection = data.detection
    text = {
        "format": _FORMAT,
        "version": __version__,
        "settings": data.settings.model_dump(mode="json"),
        "basis": _pack(_reduce_basis(data.basis, data.settings), arrays),
        "detection": None if detection is None else _pack(_reduce_detection(detection), arrays),
        "levels": _pack(data.levels, arrays),
    }
    arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load(folder: Path) -> RelabelData:
    """Read the ``relabel.npz`` of a report folder.

    Raises
    ------
    InputError
        If it is missing, damaged, or from another version of leakloc.
    """
    path = folder / NAME
    if not path.is_file():
        raise InputError(
            f"{folder} contains no {NAME} for renumbering the levels: run leakloc analyze again"
        )
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(member.file_size for member in packed.infolist()) > _MAX_BYTES:
                raise ValueError("the unpacked size exceeds the maximum")
        with np.load(path, allow_pickle=False) as stored:
            text = json.loads(stored["text"].tobytes())
            if (text["format"], text["version"]) == (_FORMAT, __version__):
                return _from_json(text, stored)
    except (
        ArithmeticError, AttributeError, EOFError, LeaklocError, LookupError, MemoryError,
        NotImplementedError, OSError, RecursionError, TypeError, ValueError, zipfile.BadZipFile,
        zlib.error,
    ) as error:  # fmt: skip
        raise InputError(f"{path} is damaged: run leakloc analyze again") from error
    raise InputError(
        f"{path} was written by another version of leakloc than {__version__}: "
        "run leakloc analyze again"
    )


def _from_json(text: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> RelabelData:
    basis = _unpack(text["basis"], arrays)
    detection, levels = (_unpack(text[name], arrays) for name in ("detection", "levels"))
    for value, kind in ((basis, Basis), (detection or levels, (SpineDetection, Levels))):
        if not isinstance(value, kind):
            raise TypeError(f"unexpected {type(value).__name__}")
    return RelabelData(Settings.from_dict(text["settings"], NAME), basis, detection, levels)


def _reduce_basis(basis: Basis, settings: Settings) -> Basis:
    """Remove data that later stages do not use: fluid and companion far from the canal."""
    segmentation, landmarks = basis.segmentation, basis.landmarks
    mask = (segmentation.thecal_sac.array > 0) | (segmentation.collections.array > 0)
    box = _box(mask, margin=2)
    near = np.zeros(mask.shape, dtype=bool)
    # Margin of two voxels for interpolation and the rim of a collection.
    near[box] = binary_dilation(mask[box], np.ones((3, 3, 3)), iterations=2)
    fluid = segmentation.fluid_fraction
    anatomy = landmarks.anatomy
    if anatomy is not None:
        anatomy = crop_to_region_read(
            anatomy, segmentation, landmarks.sacral, settings.localization
        )
    return replace(
        basis,
        segmentation=replace(
            segmentation,
            fluid_fraction=fluid.with_array(np.where(near, fluid.array, np.float32(0))),
        ),
        landmarks=replace(landmarks, anatomy=anatomy),
    )


def _reduce_detection(detection: SpineDetection) -> SpineDetection:
    return replace(
        detection, detections=tuple(without_unused_bone(d) for d in detection.detections)
    )


def _pack(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Convert a result to JSON; larger arrays are added to `arrays`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, np.ndarray):
        if value.size <= _INLINE and value.dtype == np.float64:
            return {"values": value.ravel().tolist(), "shape": list(value.shape)}
        return {"array": _store(value, arrays)}
    if isinstance(value, Geometry) and value.frame_of_reference_uid is not None:
        value = replace(value, frame_of_reference_uid=None)  # not in the report either
    if isinstance(value, Volume):
        return {"volume": _pack_volume(value, arrays)}
    if is_dataclass(value) and type(value) in _NAMES:
        field_values = {
            f.name: _pack(getattr(value, f.name), arrays) for f in fields(value) if f.init
        }
        return {"class": _NAMES[type(value)], "fields": field_values}
    raise OutputError(f"a {type(value).__name__} from a plug-in cannot be stored")


def _pack_volume(volume: Volume, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Convert a volume to its nonzero voxels and their positions, without the series UID."""
    nonzero = volume.array != 0
    box = _box(nonzero)
    values = volume.array[box][nonzero[box]]
    fits = values.size > 0 and values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max
    whole = values.astype(np.uint16) if fits else values
    return {
        "geometry": _pack(volume.geometry, arrays),
        "source": volume.provenance.source,
        "dtype": volume.array.dtype.str,
        "box": [[part.start, part.stop] for part in box],
        "nonzero": _store(np.packbits(nonzero[box]), arrays),
        "values": _store(whole if np.array_equal(whole, values) else values, arrays),
    }


def _box(nonzero: npt.NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice, slice]:
    """Return the smallest box with all true elements and a margin, within the array."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(nonzero.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        box.append(slice(max(low - margin, 0), min(high + margin, nonzero.shape[axis])))
    return box[0], box[1], box[2]


def _store(array: npt.NDArray[Any], arrays: dict[str, npt.NDArray[Any]]) -> str:
    name = f"a{len(arrays)}"
    arrays[name] = array
    return name


def _unpack(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return tuple(_unpack(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "class" in value:
        field_values = {name: _unpack(item, arrays) for name, item in value["fields"].items()}
        return _CLASSES[value["class"]](**field_values)
    if "dict" in value:
        return {name: _unpack(item, arrays) for name, item in value["dict"].items()}
    if "values" in value:
        return np.array(value["values"], dtype=np.float64).reshape(value["shape"])
    if "volume" in value:
        return _unpack_volume(value["volume"], arrays)
    return arrays[value["array"]]


def _unpack_volume(packed: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Volume:
    geometry = _unpack(packed["geometry"], arrays)
    dtype = np.dtype(packed["dtype"])
    if dtype.kind not in "biuf" or int(np.prod(geometry.shape)) > _MAX_VOXELS:
        raise ValueError("not a volume of an analysis")
    array = np.zeros(geometry.shape, dtype)
    part = array[tuple(slice(start, stop) for start, stop in packed["box"])]
    nonzero = (
        np.unpackbits(arrays[packed["nonzero"]], count=part.size).view(bool).reshape(part.shape)
    )
    part[nonzero] = arrays[packed["values"]].astype(dtype)
    return Volume(array, geometry, Provenance(str(packed["source"])))
