"""Real lumbar anatomy used for simulated studies.

The volumes are those of SPIDER (van der Graaf et al., Sci Data 2024;11:264,
doi 10.1038/s41597-024-03090-w, CC BY 4.0, modified): sagittal T2 with masks of vertebrae, discs
and thecal sac. No patient has a leak.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_closing,
    distance_transform_edt,
    gaussian_filter1d,
    label,
    maximum_filter1d,
)

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.anatomy.centerline import Centerline
from leakloc.core.distances import signed_distance_mm
from leakloc.core.errors import InputError
from leakloc.core.volume import FloatArray, Geometry, Volume

Array = npt.NDArray[np.float32]

BONE, DISC, SAC = 1, 2, 3
"""Label values: vertebrae with arches, discs, spinal canal (used as the thecal sac)."""

TEST_PATIENTS: Final = ("005", "045", "069", "098", "107", "127", "152", "162", "220")
"""Test patients: not used to train any network of this project."""

DEVELOPMENT_PATIENTS: Final = (
    "007", "018", "022", "034", "052", "057", "078", "081", "110", "118", "141", "146", "166",
    "185", "209", "239", "241",
)  # fmt: skip
"""Development patients: used to train networks."""

REFERENCE_STEP_MM: Final = 2.0
"""Step along the canal for measuring the local CSF signal."""

CAUDAL_EXTENSION_MM: Final = 45.0
"""Length by which the centerline is extended caudally into the sacral canal."""

CLOSED_GAP_MM: Final = 6.0
"""Maximum gap between bone and disc that is closed: ligament and endplate, not fluid."""


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient volume with its labels, arrays ``[k, j, i]`` oriented LPS.

    Parameters
    ----------
    number : str
        Number of the patient in SPIDER, three digits.
    image : Volume
        float32, T2-weighted signal in arbitrary units.
    labels : Volume
        uint8 on the grid of `image`: `BONE`, `DISC`, `SAC`.
    discs : dict
        Center of each disc by name, LPS mm, shape (3,).
    """

    number: str
    image: Volume
    labels: Volume
    discs: dict[str, FloatArray]

    @cached_property
    def centerline(self) -> Centerline:
        """Centerline of the sac, cranial to caudal, extended caudally."""
        sac = self.labels.array == SAC
        area = sac.sum(axis=(1, 2))
        planes = np.flatnonzero(area > 0.15 * np.percentile(area[area > 0], 75))[::-1]
        _, rows, columns = np.meshgrid(*map(np.arange, (1, *sac.shape[1:])), indexing="ij")
        centroids = [
            (k, (rows[0] * sac[k]).sum() / area[k], (columns[0] * sac[k]).sum() / area[k])
            for k in planes
        ]
        points = self.image.geometry.lps_from_kji(np.array(centroids))
        line = Centerline.smoothed(points, step_mm=1.0, smoothing_mm=5.0)
        beyond = line.length_mm + np.arange(1.0, CAUDAL_EXTENSION_MM)
        extended = np.concatenate([line.points_lps, line.at(beyond)])
        return Centerline.smoothed(extended, step_mm=1.0, smoothing_mm=4.0)

    @cached_property
    def coordinates(self) -> CanalCoordinates:
        """Arc length, left and dorsal offset of each voxel relative to the centerline."""
        return CanalCoordinates.of(self.image.geometry, self.centerline)

    @cached_property
    def sac_distance_mm(self) -> Array:
        """Signed distance from the surface of the sac, negative inside; clipped at 60 mm."""
        # Each map is zero at the centers of border voxels; the surface is midway between them.
        sac = self.labels.array == SAC
        spacing = self.labels.geometry.spacing_kji_mm
        distance_mm = 0.5 * (signed_distance_mm(sac, spacing) - signed_distance_mm(~sac, spacing))
        return np.asarray(np.clip(distance_mm, -60.0, 60.0), np.float32)

    @cached_property
    def solid(self) -> npt.NDArray[np.bool_]:
        """Mask of bone, discs, and the narrow gaps between them along the spine."""
        solid = np.isin(self.labels.array, (BONE, DISC))
        # Vertebral arches are separate: only the column of bodies and discs is closed.
        front = self.coordinates.dorsal < 0
        steps = max(round(CLOSED_GAP_MM / self.image.geometry.spacing_kji_mm[0]), 1)
        closed = binary_closing(solid & front, np.ones((steps, 3, 1), bool))
        return np.asarray((solid | closed) & (self.labels.array != SAC))

    @cached_property
    def relative_signal(self) -> Array:
        """Signal relative to that of CSF at the same position along the sac."""
        sac = self.sac_distance_mm < -1.0
        bins = (self.coordinates.arc[sac] / REFERENCE_STEP_MM).astype(int).clip(0)
        count = int(self.centerline.length_mm / REFERENCE_STEP_MM) + 1
        signal = self.image.array[sac]
        order = np.argsort(bins, kind="stable")
        parts = np.split(signal[order], np.searchsorted(bins[order], np.arange(1, count)))
        level = np.array([np.percentile(p, 92) if len(p) > 20 else np.nan for p in parts])
        known = np.isfinite(level)
        level = np.interp(np.arange(count), np.flatnonzero(known), level[known])
        # Narrow or crowded segments contain little pure CSF: use the neighboring maximum.
        level = gaussian_filter1d(maximum_filter1d(level, 21), 8.0, mode="nearest")
        at = np.interp(self.coordinates.arc, np.arange(count) * REFERENCE_STEP_MM, level)
        return np.asarray(self.image.array / np.maximum(at, 1e-3), np.float32)

    def scaled(self, factor: float) -> Patient:
        """Return the patient scaled about the origin."""
        affine = np.diag([factor, factor, factor, 1.0]) @ self.image.geometry.affine_lps
        geometry = Geometry(self.image.geometry.shape, affine)
        return Patient(
            self.number,
            Volume(self.image.array, geometry),
            Volume(self.labels.array, geometry),
            {name: center * factor for name, center in self.discs.items()},
        )

    def widened(self, side_mm: float) -> Patient:
        """Return the patient with synthetic tissue on both sides of the slab.

        The outermost planes are repeated outward; the sac is replaced by the nearest tissue in the
        plane.
        """
        count = max(round(side_mm / self.image.geometry.spacing_ijk_mm[0]), 1)
        image, labels = self.image.array, self.labels.array
        sides: dict[int, tuple[npt.NDArray[np.intp], ...]] = {}
        for column in (0, -1):
            sac = labels[..., column] == SAC
            nearest = distance_transform_edt(sac, return_distances=False, return_indices=True)
            sides[column] = tuple(nearest)

        def extended(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            left, right = (
                np.repeat(array[..., column][nearest][..., None], count, axis=2)
                for column, nearest in sides.items()
            )
            return np.concatenate([left, array, right], axis=2)

        affine = self.image.geometry.affine_lps.copy()
        affine[:3, 3] -= count * affine[:3, 0]
        k, j, i = image.shape
        geometry = Geometry((k, j, i + 2 * count), affine)
        wide_image, wide_labels = (Volume(extended(a), geometry) for a in (image, labels))
        return Patient(self.number, wide_image, wide_labels, self.discs)

    def cropped(self, front_mm: float, back_mm: float) -> Patient:
        """Return the patient cropped anterior and posterior to the canal."""
        j = self.image.geometry.kji_from_lps(self.centerline.points_lps)[:, 1]
        dj = self.image.geometry.spacing_kji_mm[1]
        low = max(int(j.min() - front_mm / dj), 0)
        high = min(int(j.max() + back_mm / dj) + 1, self.image.geometry.shape[1])
        box = (slice(None), slice(low, high), slice(None))
        return Patient(self.number, self.image.crop(box), self.labels.crop(box), self.discs)


def list_patients(folder: Path) -> tuple[str, ...]:
    """Return the patient numbers in a folder of ``spider-NNN_T2SPACE.nii.gz``.

    Raises
    ------
    InputError
        If there are none.
    """
    paths = sorted(Path(folder).glob("spider-*_T2SPACE.nii.gz"))
    if not paths:
        raise InputError(f"{folder} contains no spider-NNN_T2SPACE.nii.gz")
    return tuple(path.name.removeprefix("spider-").split("_")[0] for path in paths)


def read_patient(folder: Path, number: str) -> Patient:
    """Read one patient of SPIDER.

    Raises
    ------
    InputError
        If a file is missing or the mask contains no sac.
    """
    stem = Path(folder) / f"spider-{number}"
    files = [Path(f"{stem}{end}") for end in ("_T2SPACE.nii.gz", "_mask.nii.gz", "_discs.json")]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}")
    image, mask = (Volume.from_nibabel(nib.load(file)).oriented("LPS") for file in files[:2])
    labels = Volume(_largest_sac(np.ascontiguousarray(mask.array)), image.geometry)
    if not (labels.array == SAC).any():
        raise InputError(f"{files[1].name} contains no voxel of the spinal canal (value {SAC})")
    signal = image.with_array(np.ascontiguousarray(image.array).astype(np.float32))
    return Patient(number, signal, labels, read_discs(folder, number))


def read_discs(folder: Path, number: str) -> dict[str, FloatArray]:
    """Return the disc centers of a patient by name, LPS mm."""
    text = (Path(folder) / f"spider-{number}_discs.json").read_text(encoding="utf-8")
    flip = np.array([-1.0, -1.0, 1.0])
    return {disc["name"]: np.array(disc["ras_mm"]) * flip for disc in json.loads(text)["discs"]}


def _largest_sac(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Return the labels with only the largest connected component of the sac."""
    result = labels.astype(np.uint8)
    components, count = label(result == SAC, np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(components.ravel())[1:]
        result[(components > 0) & (components != 1 + sizes.argmax())] = 0
    return result
