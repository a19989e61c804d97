"""A synthetic study with ground truth on disk, small enough to compare in milliseconds."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from leakloc.core.volume import Geometry, Volume

GRID = Geometry.from_axes((40, 30, 24), origin_lps=(-10, -12, -60), spacing_ijk_mm=(1.0, 1.2, 3.0))
DISCS = {"L2-L3": 40.0, "L3-L4": 10.0, "L4-L5": -20.0, "L5-S1": -50.0}


def save(volume: Volume, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(volume.to_nibabel(), path)


def box(k=slice(0), j=slice(None), i=slice(None), value=1, geometry=GRID) -> Volume:
    array = np.zeros(geometry.shape, np.uint8)
    array[k, j, i] = value
    return Volume(array, geometry)


def write_truth(folder, fluid: Volume | None = None) -> Volume:
    """A phantom-like truth folder: sac, one collection at L3-L4, levels."""
    sac = box(slice(4, 36), slice(8, 20), slice(6, 18))
    fluid = box(slice(20, 30), slice(20, 25), slice(6, 18)) if fluid is None else fluid
    ml = float((fluid.array > 0).sum()) * GRID.voxel_volume_ml
    save(sac.with_array(sac.array.astype(np.float32)), folder / "thecal_sac.nii.gz")
    save(fluid, folder / "fluid.nii.gz")
    fraction = (fluid.array > 0).astype(np.float32)
    save(fluid.with_array(fraction), folder / "fluid_fraction.nii.gz")
    collection = {
        "id": 1, "volume_ml": ml, "level": "L3-L4", "segments": ["L3-L4"],
        "cranial_lps": [0, 10, 29], "caudal_lps": [0, 10, 0], "path_length_mm": 120.0,
    }  # fmt: skip
    values = {
        "leak": "present" if ml else "absent",
        "lumbar_count": 5,
        "vertebrae": [{"name": "L3", "center_lps": [0, 0, 25]}],
        "discs": [{"name": n, "center_lps": [0, 0, z]} for n, z in DISCS.items()],
        "collections": [collection] if ml else [],
    }
    (folder / "truth.json").write_text(json.dumps(values))
    return fluid


@pytest.fixture
def truth_folder(tmp_path):
    folder = tmp_path / "truth" / "case_a"
    folder.mkdir(parents=True)
    write_truth(folder)
    return folder
